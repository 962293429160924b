"""Rows of a gate on a real server, with the verifiers of its tool servers: where it talks to a server or a disk, so does the baseline."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from agentgate.decision.answer import Allow
from agentgate.gate.gate import Gate
from agentgate.gate.run import Run
from agentgate.gate.settings import MOST
from agentgate.redemption.verifier import Verifier
from agentgate.token.dpop import DPoP
from agentgate.token.mint import CallToken
from tests.benchmarks import world
from tests.benchmarks.row import Bare, Measuring, Scale, compared, token_size
from tests.benchmarks.sidebyside import Pair, Work
from tests.servers import Server, redis_binary


class Shop:
    """A gate over one workflow on a real server, with the verifiers of its two tool servers."""

    def __init__(self, folder: Path, source: str, store: str, audit: str, **more: Any) -> None:
        workflows = folder / "workflows"
        workflows.mkdir(parents=True)
        (workflows / "refund.yaml").write_text(world.without_upstream(source), encoding="utf-8")
        (workflows / "roles.yaml").write_bytes(world.ROLES.read_bytes())
        keys = None if audit == "memory://" else folder / "keys"
        self.gate = Gate.open_unsafe_unapproved(
            workflows,
            issuer=world.ISSUER,
            keys=keys,
            store=store,
            audit=audit,
            environment="prod",
            clock=lambda: world.NOW,
            **MOST,
            **more,
        )
        (workflow,) = self.gate.catalog
        self.id, self.tools = workflow.id, workflow.tools
        self.verifiers: dict[str, Verifier] = {n: self.gate.verifier(t.audience, tenants=[world.TENANT]) for n, t in self.tools.items()}
        self.opened: Run = self.open()

    def open(self) -> Run:
        """A run of its own, in which nothing happened yet."""
        user, agent = world.lasting(world.user()), world.lasting(world.agent())
        return self.gate.open_run(self.id, tenant=world.TENANT, user=user, agent=agent, prompt=world.PROMPT)

    def token(self, run: Run, name: str, args: dict[str, Any], call: str) -> CallToken:
        """Authorise one call.

        Raises:
            ValueError: the benchmark's own call is refused.
        """
        answer = run.authorize(name, args, tool_call_id=call, definition=self.tools[name].definition)
        if not isinstance(answer, Allow):
            raise ValueError(f"the benchmark's call is refused: {answer}")  # noqa: TRY004 - the answer has the right type
        return answer.token

    def redeem(self, token: CallToken, name: str, args: dict[str, Any]) -> Any:
        """Redeem as the tool server does, with the proof of a bound token."""
        url = self.tools[name].audience + "/call"
        headers = token.headers("POST", url)
        proof = DPoP(headers["DPoP"], method="POST", url=url) if "DPoP" in headers else None
        return self.verifiers[name].redeem(token.reveal(), tool=name, args=args, proof=proof)

    def looked_up(self) -> None:
        """A new run whose order was looked up, and a handle that has seen it."""
        run = self.open()
        for name in [name for name in self.tools if name.endswith(".get")]:
            with self.redeem(self.token(run, name, world.LOOKED_UP, f"call_{name}"), name, world.LOOKED_UP) as call:
                call.record_result(world.json_order())
        self.opened = self.gate.resume_run(run.tenant, run.id)

    def refund(self) -> None:
        """One whole call: authorise the refund, redeem its token."""
        self.redeem(self.token(self.opened, "payments.refund", world.REFUND, "call_7"), "payments.refund", world.REFUND)


@contextmanager
def opened_shop(source: str, *, durable: bool = False, **more: Any) -> Iterator[tuple[Shop, redis.Redis, Path]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentgate-bench-")))
        server = Server(redis_binary(), folder / "redis")
        stack.callback(server.stop)
        shop = Shop(folder / "gate", source, server.url, str(folder / "audit") if durable else "memory://", **more)
        stack.callback(shop.gate.close)
        client = redis.Redis(host="127.0.0.1", port=server.port)
        stack.callback(client.close)
        yield shop, client, folder


def trips(client: redis.Redis, *steps: Work) -> Work:
    """The baseline of a cycle: the same signatures, and two SET NX PX round trips by redis-py."""
    count = iter(range(10**9))

    def work() -> None:
        for step in steps:
            step()
        for _ in range(2):
            client.set(f"bench:{next(count)}", "x" * 64, nx=True, px=60_000)

    return work


def cycle(scale: Scale) -> Measuring:
    """Authorise and redeem over a real server, the audit in memory."""
    bare = Bare(token_size(world.Desk()))
    rows = []
    note = "authorize + redeem, one refund in a run whose state the gate has seen; Redis over TCP, audit memory://"
    with opened_shop(world.without_agent_key(world.text())) as (shop, client, _):
        pair = Pair(shop.refund, trips(client, bare.sign, bare.verify), scale.trips, prepare=shop.looked_up)
        rows.append((yield from compared("cycle", pair, "pyca sign + verify, two redis-py SET NX PX", None, note)))
        shop.opened = shop.open()
        reads = Reads(shop)
        pair = Pair(reads.next, trips(client, bare.sign, bare.verify), scale.trips, prepare=reads.prepare)
        note = "the same for one read after another in one run: each redemption makes the gate read the run again"
        rows.append((yield from compared("cycle_next", pair, "pyca sign + verify, two redis-py SET NX PX", None, note)))
    with opened_shop(world.with_more_servers(world.without_agent_key(world.text()))) as (shop, client, _):
        pair = Pair(shop.refund, trips(client, bare.sign, bare.verify), scale.trips, prepare=shop.looked_up)
        note = "as cycle, in a run in which three other tool servers were called"
        rows.append((yield from compared("cycle_servers", pair, "pyca sign + verify, two redis-py SET NX PX", None, note)))
    return rows


class Reads:
    """Reads of one run, one after another, until the workflow's limit of twenty calls; then a new run."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._count = shop, 0

    def prepare(self) -> None:
        """A new run when this one is used up."""
        self._count += 1
        if self._count % 20 == 1:
            self._shop.opened = self._shop.open()

    def next(self) -> None:
        """One whole read."""
        call = f"call_{self._count}"
        self._shop.redeem(self._shop.token(self._shop.opened, "orders.get", world.LOOKED_UP, call), "orders.get", world.LOOKED_UP)


def cycle_dpop(scale: Scale) -> Measuring:
    """As `cycle` with the full workflow, whose tokens are bound to the run's key."""
    bare = Bare(token_size(world.Desk()))
    with opened_shop(world.text()) as (shop, client, _):
        work = trips(client, bare.sign, bare.sign, bare.verify, bare.verify)
        pair = Pair(shop.refund, work, scale.trips, prepare=shop.looked_up)
        note = "authorize + DPoP proof + redeem; Redis over TCP, audit memory://"
        return [(yield from compared("cycle_dpop", pair, "pyca 2 signs + 2 verifies, two redis-py SET NX PX", None, note))]


def cycle_audit(scale: Scale) -> Measuring:
    """As `cycle_dpop` with an audit log on disk: two records are durable before the tool runs."""
    bare = Bare(token_size(world.Desk()))
    with opened_shop(world.text(), durable=True) as (shop, client, folder), (folder / "bare").open("ab", buffering=0) as log:

        def durable() -> None:
            log.write(b"x" * 1000 + b"\n")
            os.fdatasync(log.fileno())

        work = trips(client, bare.sign, bare.sign, bare.verify, bare.verify, durable, durable)
        pair = Pair(shop.refund, work, scale.trips // 3, prepare=shop.looked_up)
        baseline = "pyca 2 signs + 2 verifies, two redis-py SET NX PX, two write + fdatasync"
        note = "authorize + DPoP proof + redeem; Redis over TCP, audit on disk (fdatasync)"
        return [(yield from compared("cycle_audit", pair, baseline, None, note, durable=True))]
