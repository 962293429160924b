"""Two gates, two tool servers and their store; and hosts that ask again and again for the same calls, as hosts do.

Rules: side "a" and side "b" are each a gate and a tool server with audit logs of their own, and share signing keys. A call is the same
call for whoever asks: same run, ``tool_call_id`` and arguments. Tools with ``redeem: wrapper`` run beside their gate, those with
``redeem: server`` behind a `Verifier`. A tool does one thing: it adds a line to the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import time_machine
from redis import Redis
from redis.exceptions import RedisError

from agentgate import Agent, Allow, Gate, Reason, RunRefused, StepUp, TokenRefused, User, Verifier
from agentgate.errors import AuditUnavailable, NotRecorded, StoreUnavailable
from agentgate.redemption.verifier import RedeemedCall
from agentgate.token.dpop import DPoP
from tests.faults.disk import Disk
from tests.faults.ledger import Ledger
from tests.servers import Server, as_tool_server
from tests.watched import Shards, Watched

Side = Literal["a", "b"]
# when a call's token was minted, and when it was executed
EARLIER, MINTED, SINCE, FLYING, MEANWHILE, AFTER = (
    "done before",  # both before all that the fault may lose
    "minted before",  # executed among what it may lose
    "done since",  # both among what it may lose
    "token on its way",  # executed only after the fault has begun, if at all
    "while it lasts",
    "afterwards",
)
SIDES: tuple[Side, ...] = ("a", "b")
ISSUER, TOOLS = "https://gate.example", "https://payments.example"
DEFINITION = "sha256:" + "1" * 64
_ACT = """
    effect: write
    needs: [refund]
    redeem: {redeem}
    args:
      order_id: {{type: id, from: [orders.get.order_id]}}
      amount: {{type: money, currency: currency, min: "0.01", max: "500.00", at_most: orders.get.total, from: [prompt, orders.get.total]}}
      currency: {{in: [EUR], from: [orders.get.currency]}}
      payee: {{type: id, from: [orders.get.customer]}}"""
_BIG = """
  - id: {rule}
    for: {tool}
    when: {{amount: {{above: "100.00"}}}}
    approvers: {{group: leads, count: 1, not: [requester]}}
    timeout: 10m
    show: [order_id, amount, payee]"""
_SERVER = f"server\n    audience: {TOOLS}\n    scope: [refunds:create]\n    definition: {DEFINITION}"
TENANTS = [f"acme-{number}" for number in range(100)]  # one for each call: what is noticed for one call tells nothing about another
WORKFLOW = f"""
agentgate: workflow/v1
id: shop.refund
version: 1
title: Refund one named order
owners: [lee]
risk: high
expires: "2099-05-31"
tenants: [{", ".join(TENANTS)}]
who: {{agent: {{in_process: true}}, for_user: {{groups: [support], same_tenant: true}}}}
intents:
  refund:
    asks_for: Give a customer money back for an order they name.
    words: [refund, reimburse]
    unclear: step_up
    examples: ["Please refund order ORD-10023344, it arrived broken"]
    counter_examples: ["Refund all orders from last week"]
tools:
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {{order_id: {{type: id, pattern: 'ORD-[0-9]{{8}}', from: [prompt]}}}}
    facts:
      total: {{type: money, currency: currency}}
      currency: {{type: text}}
      customer: {{type: id}}
  payments.refund:{_ACT.format(redeem="wrapper")}
  payments.send:{_ACT.format(redeem=_SERVER)}
step_up:{_BIG.format(rule="big-refund", tool="payments.refund")}{_BIG.format(rule="big-send", tool="payments.send")}
token: {{ttl: 60s, uses: 1, bound_to: [call, agent_key]}}
"""
# what is performed in one script: no permit leaves the gate's process
BESIDE = WORKFLOW.replace("id: shop.refund", "id: shop.beside").replace("bound_to: [call, agent_key]", "bound_to: [call]")
PROMPT = "Please refund 39.99 EUR for order ORD-10023344, it arrived broken"
ORDER = {"order_id": "ORD-10023344"}


@dataclass(eq=False)
class Call:
    """One act that a host wants done: in a tenant and a run of its own, under one id, whoever is asked."""

    phase: str
    tool: str
    big: bool
    tenant: str
    run: str
    tokens: list[Any] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"{self.phase}/{self.tool}/{'big' if self.big else 'small'}/{self.run}".replace(" ", "-")

    @property
    def args(self) -> dict[str, Any]:
        return {**ORDER, "amount": "150.00" if self.big else "39.99", "currency": "EUR", "payee": "cus_1"}


class Shop:
    """The whole of it, in one folder; every process in it can end and come back with its logs."""

    def __init__(
        self,
        folder: Path,
        binary: str,
        *,
        settings: tuple[str, ...] = (),
        replica: bool = False,
        confirmed: bool = False,
        disk: str = "",
        shared: bool = False,
        watched: Literal["", "sentinel", "cluster"] = "",
    ) -> None:
        self._ending = ExitStack()
        self.folder, self.ledger, self._confirmed, self._shared = folder, Ledger(folder / "ledger"), confirmed, shared
        self._ending.callback(self.ledger.close)
        self.disk = Disk(folder / disk) if disk else None
        if self.disk is not None:
            self._ending.callback(self.disk.end)
        (folder / "w").mkdir()
        (folder / "w" / "refund.yaml").write_text(WORKFLOW, encoding="utf-8")
        (folder / "w" / "beside.yaml").write_text(BESIDE, encoding="utf-8")
        self._replicas: list[Server] = []
        self.sentinels: Watched | None = None
        self.shards: Shards | None = None
        if watched == "sentinel":
            self.sentinels = Watched(binary, folder / "servers", settings=settings)
            self._ending.callback(self.sentinels.stop)
            self.server = self.sentinels.primary()
        elif watched:
            self.shards = Shards(binary, folder / "servers", settings=settings, replicas=2 if confirmed else int(replica))
            self._ending.callback(self.shards.stop)
            self.server = self.shards.primaries[0]
        else:
            self.server = self.started(Server(binary, folder / "server", settings=settings))
            if replica or confirmed:
                self._attach(self.server)
        self.clocks = {"gate": 0.0, "tool": 0.0}  # how far the clocks of all gates, and of all tool servers, are off; seconds
        self.gates: dict[Side, Gate] = {}
        self.tools: dict[Side, Verifier] = {}
        self._handles: dict[tuple[Side, str], Any] = {}
        self.more: list[Call] = []
        self.slowest, self._tenants = 0.0, 0
        try:
            for side in SIDES:
                self.move(side, self.url)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The store's, without options."""
        return (self.sentinels or self.shards or self.server).url

    def started(self, server: Server) -> Server:
        """A server that ends with the shop."""
        self._ending.callback(server.stop)
        return server

    def replica(self) -> Server:
        """The replica that the steps of a fault need."""
        return self._replicas[0]

    def lead(self, server: Server) -> None:
        """This server is the primary now; where a replica must confirm, an operator gives it one."""
        if self._confirmed:
            self._attach(server)
        self.server = server

    def _attach(self, primary: Server) -> Server:
        replica = self._ending.enter_context(primary.replica(self.folder / f"replica-{len(self._replicas)}"))
        self._replicas.append(replica)
        return replica

    def move(self, side: Side, url: str) -> None:
        """Open one side, or close it and open it again, at a store's address: of what it saw, it has its logs."""
        self._shut(side)
        logs, url = self.folder / side, url + ("?replicas=1" if self._confirmed else "")
        self.gates[side] = Gate.open_unsafe_unapproved(
            self.folder / "w", issuer=ISSUER, keys=self.folder / "keys", audit=str(logs / "gate"), store=url, shared_runs=self._shared
        )
        keys = self.gates[side].jwks()
        self.tools[side] = Verifier.open(
            keys, issuer=ISSUER, audience=TOOLS, tenants=TENANTS, audit=str(logs / "tool"), store=as_tool_server(url, TOOLS, "acme-*")
        )

    def _shut(self, side: Side) -> None:
        for opened in (self.gates.pop(side, None), self.tools.pop(side, None)):
            if opened is not None:
                opened.close()
        self._handles = {key: handle for key, handle in self._handles.items() if key[0] != side}

    def logs(self) -> list[str]:
        """The audit directories of all gates and tool servers."""
        return [str(self.folder / side / name) for side in SIDES for name in ("gate", "tool")]

    @contextmanager
    def clock(self, of: str) -> Iterator[None]:
        """Do something by the clock of a gate or a tool server."""
        if not self.clocks[of]:
            yield
            return
        with time_machine.travel(datetime.now(UTC) + timedelta(seconds=self.clocks[of]), tick=True):
            yield

    # hosts

    def wanted(self, phase: str, tool: str, *, big: bool = False, tenant: str = "", gate: Side = "a") -> Call:
        """A call in a new run at this gate, whose order has been looked up; in a new tenant unless one is given.

        Raises:
            RunRefused, StoreUnavailable, AuditUnavailable, TokenRefused: the run does not open, or its read is refused.
        """
        if not tenant:
            tenant, self._tenants = TENANTS[self._tenants], self._tenants + 1
        with self.clock("gate"):
            user = User("lee", tenant=tenant, groups=["support"])
            name = "shop.beside" if tool == "payments.refund" else "shop.refund"
            run = self.gates[gate].open_run(name, tenant=tenant, user=user, agent=Agent("bot"), prompt=PROMPT)
            self._handles[gate, run.id] = run
            call = Call(phase, tool, big, tenant, run.id)
            look = run.perform("orders.get", ORDER, tool_call_id="look")
            if not isinstance(look, RedeemedCall):
                raise StoreUnavailable(f"the read was answered {_code(look)}")
            with suppress(NotRecorded), look:
                look.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1"})
        if big:
            held = self._authorized(call, gate)
            if isinstance(held, StepUp):
                self.gates[gate].release(held.hold.id, tenant=tenant, by=User("boss", tenant=tenant, groups=["leads"]))
        return call

    def ask(self, call: Call, gate: Side, tool: Side) -> str:
        """A host's try: perform it at this gate, or authorise it there and have this tool server run it. What the host was answered."""
        return self._timed(call, lambda: self._ask(call, gate, tool))

    def mint(self, call: Call) -> None:
        """Only the first half: its token is on its way when the fault comes."""
        answer = self._authorized(call, "a")
        if isinstance(answer, Allow):
            call.tokens.append(answer.token)

    def fly(self, call: Call, sides: tuple[Side, ...] = SIDES) -> None:
        """Have a token that is on its way redeemed on these sides at the same moment."""
        if not call.tokens:
            return
        start = threading.Barrier(len(sides))

        def one(side: Side) -> None:
            start.wait()
            self._timed(call, lambda: self._redeemed(call, call.tokens[0], side))

        racers = [threading.Thread(target=one, args=(side,)) for side in sides]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()

    def ask_until_refused(self, tries: int = 40) -> None:
        """New calls at side a, until one is not done; they are in `more`."""
        with suppress(RunRefused, StoreUnavailable, AuditUnavailable, TokenRefused):
            for _ in range(tries):
                self.more.append(self.wanted(MEANWHILE, "payments.send"))
                if self.ask(self.more[-1], "a", "a") != "done":
                    return

    def replay(self, calls: list[Call]) -> None:
        """Every token that was ever issued comes once more, on both sides: from a proxy that repeats requests, or who recorded them."""
        for call in calls:
            for token in call.tokens:
                for side in SIDES:
                    with suppress(TokenRefused, RunRefused, StoreUnavailable, NotRecorded):
                        self._redeemed(call, token, side)

    def _timed(self, call: Call, work: Any) -> str:
        begin = time.perf_counter()
        try:
            answer = str(work())
        except TokenRefused as error:
            answer = f"token: {error.code}"
        except RunRefused as error:
            answer = f"run: {error.failures[0].reason}"
        except NotRecorded:  # the host has the tool's result
            answer = "done"
        except (StoreUnavailable, AuditUnavailable):
            answer = "unavailable"
        self.slowest = max(self.slowest, time.perf_counter() - begin)
        call.answers.append(answer)
        return answer

    def _handle(self, call: Call, gate: Side) -> Any:
        if (gate, call.run) not in self._handles:
            self._handles[gate, call.run] = self.gates[gate].resume_run(call.tenant, call.run)
        return self._handles[gate, call.run]

    def _authorized(self, call: Call, gate: Side) -> Any:
        with self.clock("gate"):
            definition = DEFINITION if call.tool == "payments.send" else ""
            return self._handle(call, gate).authorize(call.tool, call.args, tool_call_id="pay", definition=definition)

    def _ask(self, call: Call, gate: Side, tool: Side) -> str:
        if call.tool == "payments.refund" and not call.tokens:
            return self._performed(call, gate)
        answer = self._authorized(call, gate)
        if not isinstance(answer, Allow):
            return _code(answer)
        call.tokens.append(answer.token)
        return self._redeemed(call, answer.token, gate if call.tool == "payments.refund" else tool)

    def _performed(self, call: Call, gate: Side) -> str:
        with self.clock("gate"):
            answer = self._handle(call, gate).perform(call.tool, call.args, tool_call_id="pay")
            if not isinstance(answer, RedeemedCall):
                return _code(answer)
            with answer:
                self._run(call, answer.claims.jti)
        return "done"

    def _redeemed(self, call: Call, token: Any, side: Side) -> str:
        if call.tool == "payments.refund":
            handle = self._handle(call, side)
            with self.clock("gate"), handle.redeem(token, tool=call.tool, args=call.args):
                self._run(call, token.jti)
            return "done"
        with self.clock("gate"):
            headers = token.headers("POST", TOOLS)
        with self.clock("tool"):
            proof = DPoP(headers["DPoP"], method="POST", url=TOOLS)
            with self.tools[side].redeem(token.reveal(), tool=call.tool, args=call.args, proof=proof):
                self._run(call, token.jti)
        return "done"

    def _run(self, call: Call, jti: str) -> None:
        self.ledger.accept(jti)
        self.ledger.execute(call.name)

    # what is left

    def forgotten(self, calls: list[Call]) -> int:
        """How many of these calls were executed, and are not redeemed by what the store knows; all, if it does not answer."""
        done = self.ledger.counts("executed")
        executed = [call for call in calls if done[call.name]]
        found = 0
        for call in executed:
            holder = self.server if self.shards is None else self.shards.owner(call.tenant)
            with Redis.from_url(holder.url, socket_timeout=2) as line:
                try:
                    records = [line.hgetall(key) for key in line.keys(f"ag:{{{call.tenant}}}:burns:*:{call.run}")]
                except RedisError:
                    return len(executed)
                redeemed = [name for known in records for name, said in known.items() if name.endswith(b":status") and said == b"redeemed"]
                found += len(redeemed) < 2  # the read, and this act
        return found

    def close(self) -> None:
        """End every process, the last first."""
        for side in SIDES:
            self._shut(side)
        self._ending.close()


def _code(answer: Any) -> str:
    if isinstance(answer, StepUp):
        return "needs_approval"
    elsewhere = answer.failures[0].reason is Reason.RUN_ELSEWHERE  # the code is that of a store that is away
    return "run_elsewhere" if elsewhere else str(answer.code)
