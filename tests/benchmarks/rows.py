"""The rows of the table: what is measured, against what, and how much slower it may be.

Rules: a row's baseline runs in the same process, in turns with it; where the gate talks to a server or a disk, so does the
baseline. Targets are ratios. Rows without a target are there to be read.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import random
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types
import redis
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from langchain_core.tools import tool

from agentgate.canonical import canonical
from agentgate.catalog import Catalog
from agentgate.checks import decide
from agentgate.decision import Allow, Eligible
from agentgate.dpop import DPoP
from agentgate.gate import Gate
from agentgate.integrations.langchain import guard_tools, use_run
from agentgate.intents.lexical import derive
from agentgate.mint import CallToken
from agentgate.request import Agent, User
from agentgate.run import Run
from agentgate.verifier import Verifier
from tests.benchmarks import world
from tests.benchmarks.sidebyside import Pair, Timing, Work, compare
from tests.servers import Server, redis_binary

_ES256 = ec.ECDSA(SHA256())
KB, MS = 1024, 1000.0


@dataclass(frozen=True, slots=True)
class Row:
    """One measured line.

    Attributes:
        name: stable; the key in the JSON.
        median_us, baseline_us: medians in microseconds; None where something else was measured.
        baseline: what it is measured against.
        value, unit: what the target speaks of: a ratio ("x"), microseconds ("us") or bytes ("B").
        target: the most `value` may be; None: no target.
        durable: True where an audit record was on disk before the token left.
        note: what was done.
    """

    name: str
    median_us: float | None
    baseline: str
    baseline_us: float | None
    value: float
    unit: str
    target: float | None
    durable: bool
    note: str

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        return None if self.target is None else self.value <= self.target

    @property
    def ratio(self) -> float | None:
        """Measured over baseline; None where something else was measured."""
        return self.value if self.unit == "x" else None


Measuring = Generator[None, None, list[Row]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: `rounds` for quick work, fewer for work with servers; the two catalogue sizes; runs decided in.

    Work without a server takes turns of `turn` calls: what a loop of it costs. Work with one takes turns call by call.
    """

    rounds: int
    turn: int
    trips: int
    few: int
    many: int
    runs: int


FULL = Scale(rounds=4000, turn=100, trips=1500, few=10, many=100_000, runs=1000)
QUICK = Scale(rounds=20, turn=2, trips=10, few=2, many=20, runs=10)


def _compared(
    name: str, pair: Pair, baseline: str, target: float | None, note: str, *, durable: bool = False
) -> Generator[None, None, Row]:
    timing: Timing = yield from compare(pair)
    return Row(name, timing.median_us, baseline, timing.baseline_us, timing.ratio, "x", target, durable, note)


class Bare:
    """What everything is measured against: pyca/cryptography by itself, over as many bytes as a token signs."""

    def __init__(self, size: int) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._public = self._private.public_key()
        self._data = os.urandom(size)
        self._signature = self._private.sign(self._data, _ES256)

    def sign(self) -> None:
        """One ES256 signature."""
        self._private.sign(self._data, _ES256)

    def verify(self) -> None:
        """One ES256 verification."""
        self._public.verify(self._signature, self._data, _ES256)

    def both(self) -> None:
        """One of each."""
        self.sign()
        self.verify()


def _token_size(desk: world.Desk) -> int:
    return len(desk.minted(desk.call).reveal().rpartition(".")[0])


def _loop(measured: Work, baseline: Work, scale: Scale) -> Pair:
    return Pair(measured, baseline, scale.rounds * 5 // scale.turn, batch=scale.turn)


# --- without a store --------------------------------------------------------------------------------------------------------
def engine(scale: Scale) -> Measuring:
    """Decide, mint, verify: no store, no audit."""
    desk = world.Desk()
    bare = Bare(_token_size(desk))
    token = desk.minted(desk.call).reveal()
    rows = []
    note = "decide (payments.refund, one earlier order), call digest, mint"
    pair = _loop(lambda: desk.minted(desk.call), bare.sign, scale)
    rows.append((yield from _compared("decide_mint", pair, "pyca ES256 sign", 1.6, note)))
    pair = _loop(lambda: desk.eligible(desk.call), bare.sign, scale)
    rows.append((yield from _compared("decide", pair, "pyca ES256 sign", None, "decide alone")))
    intent = desk.eligible(desk.call).intent
    pair = _loop(lambda: desk.signed(desk.call, intent), bare.sign, scale)
    rows.append((yield from _compared("mint", pair, "pyca ES256 sign", None, "call digest and mint, nothing decided")))
    pair = _loop(lambda: desk.verified(token, desk.call.data), bare.verify, scale)
    rows.append((yield from _compared("verify", pair, "pyca ES256 verify", 1.4, "check_token and check_call")))

    def whole() -> None:
        fresh = desk.minted(desk.proposed()).reveal()
        desk.verified(fresh, canonical(world.REFUND))

    note = "canonicalise, decide, mint; canonicalise again, verify"
    tenuo = _tenuo()
    if tenuo is None:
        row = yield from _compared("decide_mint_verify", _loop(whole, bare.sign, scale), "", None, note + "; tenuo is not installed")
        rows.append(replace(row, baseline_us=None, value=row.median_us or 0.0, unit="us"))
    else:
        path = "tenuo, reused warrant: sign PoP, authorize"
        rows.append((yield from _compared("decide_mint_verify", _loop(whole, tenuo, scale), path, 1.0, note)))
        bottom = _loop(bare.both, tenuo, scale)
        note = "pyca ES256 sign and verify by themselves: no token, no policy"
        rows.append((yield from _compared("sign_verify", bottom, path, None, note)))
    return rows


def _tenuo() -> Work | None:
    """The fastest per-call path of tenuo that checks what this workflow checks; None where the `bench` extra is not installed.

    One warrant for the run, a proof of possession per call, and the authorizer's full check in its Rust core (issuer, expiry,
    tool, constraints, proof); of its two entry points the faster one.
    """
    if importlib.util.find_spec("tenuo_core") is None:
        return None
    tenuo_core: Any = importlib.import_module("tenuo_core")
    issuer, holder = tenuo_core.SigningKey.generate(), tenuo_core.SigningKey.generate()
    constraints = {
        "order_id": tenuo_core.Exact(world.REFUND["order_id"]),
        "amount": tenuo_core.Range(0.01, 500.0),
        "currency": tenuo_core.OneOf(["EUR", "GBP"]),
        "payee": tenuo_core.Exact(world.REFUND["payee"]),
        "reason": tenuo_core.Wildcard(),
    }
    warrant = tenuo_core.Warrant.issue(issuer, {"payments.refund": constraints}, 3600, holder=holder.public_key)
    authorizer = tenuo_core.Authorizer(trusted_roots=[issuer.public_key])
    args = {**world.REFUND, "amount": float(world.REFUND["amount"])}

    def through(check: Callable[..., Any]) -> Work:
        return lambda: check(
            warrant, "payments.refund", args, signature=bytes(warrant.sign(holder, "payments.refund", args, int(time.time())))
        )

    return min((through(authorizer.authorize), through(authorizer.authorize_one)), key=_quickest)


def _quickest(work: Work) -> int:
    def once() -> int:
        start = time.perf_counter_ns()
        work()
        return time.perf_counter_ns() - start

    return min(once() for _ in range(50))


# --- with a store -----------------------------------------------------------------------------------------------------------
class Shop:
    """A gate over one workflow on a real server, with the verifiers of its two tool servers."""

    def __init__(self, folder: Path, source: str, store: str, audit: str) -> None:
        workflows = folder / "workflows"
        workflows.mkdir(parents=True)
        (workflows / "refund.yaml").write_text(source, encoding="utf-8")
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
            brokers=frozenset({"vault"}),
        )
        (workflow,) = self.gate.catalog
        self.id, self.tools = workflow.id, workflow.tools
        self.verifiers: dict[str, Verifier] = {n: self.gate.verifier(t.audience, tenants=[world.TENANT]) for n, t in self.tools.items()}
        self.opened: Run = self.open()

    def open(self) -> Run:
        """A run of its own, in which nothing happened yet."""
        return self.gate.open_run(self.id, tenant=world.TENANT, user=world.user(), agent=world.agent(), prompt=world.PROMPT)

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
        token = self.token(run, "orders.get", world.LOOKED_UP, "call_1")
        with self.redeem(token, "orders.get", world.LOOKED_UP) as call:
            call.record_result(world.json_order())
        self.opened = self.gate.resume_run(run.tenant, run.id)

    def refund(self) -> None:
        """One whole call: authorise the refund, redeem its token."""
        self.redeem(self.token(self.opened, "payments.refund", world.REFUND, "call_7"), "payments.refund", world.REFUND)


@contextmanager
def _shop(source: str, *, durable: bool = False) -> Iterator[tuple[Shop, redis.Redis, Path]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentgate-bench-")))
        server = Server(redis_binary(), folder / "redis")
        stack.callback(server.stop)
        shop = Shop(folder / "gate", source, server.url, str(folder / "audit") if durable else "memory://")
        stack.callback(shop.gate.close)
        client = redis.Redis(host="127.0.0.1", port=server.port)
        stack.callback(client.close)
        yield shop, client, folder


def _trips(client: redis.Redis, *steps: Work) -> Work:
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
    bare = Bare(_token_size(world.Desk()))
    rows = []
    note = "authorize + redeem, one refund in a run whose state the gate has seen; Redis over TCP, audit memory://"
    with _shop(world.without_agent_key(world.text())) as (shop, client, _):
        pair = Pair(shop.refund, _trips(client, bare.sign, bare.verify), scale.trips, prepare=shop.looked_up)
        rows.append((yield from _compared("cycle", pair, "pyca sign + verify, two redis-py SET NX PX", 1.5, note)))
        shop.opened = shop.open()
        reads = Reads(shop)
        pair = Pair(reads.next, _trips(client, bare.sign, bare.verify), scale.trips, prepare=reads.prepare)
        note = "the same for one read after another in one run: each redemption makes the gate read the run again"
        rows.append((yield from _compared("cycle_next", pair, "pyca sign + verify, two redis-py SET NX PX", None, note)))
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
    bare = Bare(_token_size(world.Desk()))
    with _shop(world.text()) as (shop, client, _):
        work = _trips(client, bare.sign, bare.sign, bare.verify, bare.verify)
        pair = Pair(shop.refund, work, scale.trips, prepare=shop.looked_up)
        note = "authorize + DPoP proof + redeem; Redis over TCP, audit memory://"
        return [(yield from _compared("cycle_dpop", pair, "pyca 2 signs + 2 verifies, two redis-py SET NX PX", None, note))]


def cycle_audit(scale: Scale) -> Measuring:
    """As `cycle_dpop` with an audit log on disk: two records are durable before the tool runs."""
    bare = Bare(_token_size(world.Desk()))
    with _shop(world.text(), durable=True) as (shop, client, folder), (folder / "bare").open("ab", buffering=0) as log:

        def durable() -> None:
            log.write(b"x" * 1000 + b"\n")
            os.fdatasync(log.fileno())

        work = _trips(client, bare.sign, bare.sign, bare.verify, bare.verify, durable, durable)
        pair = Pair(shop.refund, work, scale.trips // 3, prepare=shop.looked_up)
        baseline = "pyca 2 signs + 2 verifies, two redis-py SET NX PX, two write + fdatasync"
        note = "authorize + DPoP proof + redeem; Redis over TCP, audit on disk (fdatasync)"
        return [(yield from _compared("cycle_audit", pair, baseline, None, note, durable=True))]


# --- many workflows ---------------------------------------------------------------------------------------------------------
def _write(folder: Path, count: int) -> None:
    source = world.text()
    (folder / "roles.yaml").write_bytes(world.ROLES.read_bytes())
    for index in range(count):
        part = folder / f"{index // 1000:04}"
        if index % 1000 == 0:
            part.mkdir()
        (part / f"{index:06}.yaml").write_text(world.renamed(source, f"payments.refund-{index:06}"), encoding="utf-8")


def _rss() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _deciding(catalog: Catalog, runs: int) -> Work:
    """Look a workflow up by id and decide a refund in it; runs spread over the catalogue, in a shuffled order."""
    rng = random.Random(7)  # noqa: S311 - an order, not a secret
    ids = [workflow.id for workflow in catalog]
    chosen = [ids[index * len(ids) // runs] for index in range(runs)]
    states = []
    for name in chosen:
        workflow = catalog.get(name)
        if workflow is None:
            raise ValueError(f"workflow {name} is not loaded")
        states.append(world.state(workflow))
    rng.shuffle(states)
    desk = world.Desk()
    place = [0]

    def work() -> None:
        state = states[place[0]]
        place[0] = (place[0] + 1) % len(states)
        workflow = catalog.get(state.header.workflow)
        if workflow is None or not isinstance(decide(workflow, state, desk.call, desk.around()), Eligible):
            raise ValueError("the benchmark's call is refused")

    return work


def flat(scale: Scale) -> Measuring:
    """Deciding among many workflows against among few; what loading them costs."""
    with tempfile.TemporaryDirectory(prefix="agentgate-bench-") as name:
        few, many = Path(name, "few"), Path(name, "many")
        for folder, count in ((few, scale.few), (many, scale.many)):
            folder.mkdir()
            _write(folder, count)
            yield
        small = Catalog.load(few, derive)  # imports, the interpreter's own memory, and what all workflows share
        before, start = _rss(), time.process_time()
        large = Catalog.load(many, derive)
        seconds, grown = time.process_time() - start, _rss() - before
        if len(small) != scale.few or len(large) != scale.many:
            raise ValueError(f"workflows did not load: {[str(e) for e in [*small.quarantined.values(), *large.quarantined.values()][:1]]}")
        yield
        pair = Pair(_deciding(large, scale.runs), _deciding(small, scale.runs), scale.rounds)
        note = f"look up and decide in {scale.runs} runs: {scale.many} workflows against {scale.few}"
        row = yield from _compared("flat", pair, f"the same with {scale.few} workflows", 1.3, note)
        per = seconds / scale.many * 1e6
        size = grown / scale.many
        note = f"CPU time of reading, parsing and checking one file of {scale.many} full payment workflows with different ids"
        load = Row("load", per, "", None, per, "us", MS, False, note)
        memory = Row("memory", None, "", None, size, "B", 8.0 * KB, False, f"growth of the process (RSS) per workflow, {scale.many} loaded")
        return [row, load, memory]


# --- LangChain --------------------------------------------------------------------------------------------------------------
_LOOKUP = """\
agentgate: workflow/v1
id: support.order-status
version: 1
title: Assistant looks up an order that the customer names
owners: [lee]
risk: low
expires: "2031-12-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents: {none: "Only looks; nothing here changes or sends anything."}
tools:
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}
    facts: {status: {type: text}}
"""


def langchain(scale: Scale) -> Measuring:
    """A guarded tool's `invoke` against the tool's own."""

    @tool("orders.get")
    def look_up(order_id: str) -> dict[str, str]:
        """Look up an order."""
        return {"order_id": order_id, "status": "delivered"}

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentgate-bench-")))
        server = Server(redis_binary(), folder / "redis")
        stack.callback(server.stop)
        (folder / "workflows").mkdir()
        (folder / "workflows" / "status.yaml").write_text(_LOOKUP, encoding="utf-8")
        gate = stack.enter_context(
            Gate.open_unsafe_unapproved(folder / "workflows", issuer=world.ISSUER, audit="memory://", store=server.url)
        )
        (guarded,) = guard_tools([look_up])
        runs: list[Run] = []

        def prepare() -> None:
            user, desk = User("lee", tenant="acme"), Agent("desk")
            run = gate.open_run("support.order-status", tenant="acme", user=user, agent=desk, prompt="What is the status of ORD-10023344?")
            runs[:] = [run]

        def invoke() -> None:
            with use_run(runs[0]):
                guarded.invoke(dict(world.LOOKED_UP))

        pair = Pair(
            invoke,
            lambda: look_up.invoke(dict(world.LOOKED_UP)),
            scale.trips // 3,
            prepare=prepare,
        )
        note = "tool.invoke: decide, mint, redeem, run the tool, record its facts and outcome; Redis over TCP, audit memory://"
        return [(yield from _compared("langchain", pair, "the unguarded tool's invoke", None, note))]


GROUPS: dict[str, Callable[[Scale], Measuring]] = {
    "engine": engine,
    "cycle": cycle,
    "cycle_dpop": cycle_dpop,
    "cycle_audit": cycle_audit,
    "flat": flat,
    "langchain": langchain,
}


def rounds(scale: Scale) -> dict[str, int]:
    """How many steps each group of rows takes, for the progress bar."""
    return {
        "engine": 6 * (scale.rounds * 5 // scale.turn),
        "cycle": 2 * scale.trips,
        "cycle_dpop": scale.trips,
        "cycle_audit": scale.trips // 3,
        "flat": scale.rounds + 3,
        "langchain": scale.trips // 3,
    }
