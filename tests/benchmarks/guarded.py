"""Rows of a guarded LangChain tool against the tool itself, and of calls that are performed in one script."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import redis
from langchain_core.tools import tool

from agentgate.decision.answer import Deny, StepUp
from agentgate.gate.gate import AsyncGate, Gate
from agentgate.gate.run import Run
from agentgate.gate.settings import MOST
from agentgate.integrations.langchain import guard_tools, use_run
from agentgate.values.request import Agent, User
from tests.benchmarks import world
from tests.benchmarks.row import Bare, Measuring, Row, Scale, compared, token_size
from tests.benchmarks.sidebyside import Pair
from tests.servers import Server, redis_binary

LOOKUP = """\
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


_TURN = 20  # calls in one run


@tool("orders.get")
def look_up(order_id: str) -> dict[str, str]:
    """Look up an order."""
    return {"order_id": order_id, "status": "delivered"}


@contextmanager
def _desk(store: str, *, durable: bool) -> Iterator[tuple[Gate, Path, str]]:
    """A gate over the look-up on a store: a Redis of its own, or another; with the directory, and where the server listens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentgate-bench-")))
        if not store:
            server = Server(redis_binary(), folder / "redis")
            stack.callback(server.stop)
            store = server.url
        elif store == "embedded":
            store = f"embedded://{folder / 'store'}"
        (folder / "workflows").mkdir()
        (folder / "workflows" / "status.yaml").write_text(LOOKUP, encoding="utf-8")
        audit = str(folder / "audit") if durable else "memory://"
        given: dict[str, Any] = {
            "issuer": world.ISSUER,
            "audit": audit,
            "store": store,
            "keys": folder / "keys" if durable else None,
            "at_once": 64,
        }
        yield stack.enter_context(Gate.open_unsafe_unapproved(folder / "workflows", **given, **MOST)), folder, store


def _open(gate: Gate) -> Run:
    user, desk = User("lee", tenant="acme"), Agent("desk")
    return gate.open_run("support.order-status", tenant="acme", user=user, agent=desk, prompt="What is the status of ORD-10023344?")


def langchain(scale: Scale) -> Measuring:
    """A guarded tool's `invoke` against the tool's own: audit in memory, on disk, and on disk with a server of the gate's own."""
    rows = []
    for name, store, durable, target in (
        ("langchain", "", False, 3.0),
        ("langchain_durable", "", True, 6.5),
        ("langchain_embedded", "embedded", True, None),
    ):
        with _desk(store, durable=durable) as (gate, _, _):
            (guarded,) = guard_tools([look_up])
            runs: list[Run] = []

            def prepare(gate: Gate = gate, runs: list[Run] = runs) -> None:
                runs[:] = [_open(gate)]

            def invoke(guarded: Any = guarded, runs: list[Run] = runs) -> None:
                with use_run(runs[0]):
                    guarded.invoke(dict(world.LOOKED_UP))

            pair = Pair(invoke, lambda: look_up.invoke(dict(world.LOOKED_UP)), scale.trips // 3, prepare=prepare)
            where = "embedded Valkey" if store else "Redis over TCP"
            note = f"tool.invoke: decide, record, one script, run the tool, record facts and outcome; {where}"
            note += ", audit on disk (fdatasync)" if durable else ", audit memory://"
            rows.append((yield from compared(name, pair, "the unguarded tool's invoke", target, note, durable=durable)))
    return rows


def perform(scale: Scale) -> Measuring:
    """`Run.perform` and its end against one EVALSHA and two SET; in a run that goes on, as its handle knows it."""
    with _desk("", durable=False) as (gate, _, store), redis.Redis.from_url(store) as client:
        runs, count, performed = [_open(gate)], iter(range(10**9)), iter(range(10**9))
        sha = client.script_load("return redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)")

        def measured() -> None:
            number = next(performed)
            if number % _TURN == _TURN - 1:
                runs[:] = [_open(gate)]
            answer = runs[0].perform("orders.get", world.LOOKED_UP, tool_call_id=f"call_{number}")
            if isinstance(answer, Deny | StepUp):
                raise ValueError(f"the benchmark's call is refused: {answer}")  # noqa: TRY004 - the answer has the right type
            with answer:
                answer.record_result({"status": "delivered"})

        def bare() -> None:
            number = next(count)
            client.evalsha(sha, 1, f"bench:{number}", "x" * 1000)
            for name in ("a", "b"):
                client.set(f"bench:{number}:{name}", "x" * 64, px=60_000)

        note = "run.perform and its end: decide, record, one script, facts and outcome in one; Redis over TCP, audit memory://"
        return [(yield from compared("perform", Pair(measured, bare, scale.trips), "one EVALSHA, two redis-py SET", 1.5, note))]


def throughput(scale: Scale) -> Measuring:
    """Performed calls a second, by threads and by tasks, beside a signature, a verification and two SET at the same concurrency."""
    rows = []
    with _desk("", durable=False) as (gate, folder, store), ThreadPoolExecutor(64) as pool:
        bare = Bare(token_size(world.Desk()))
        clients = [redis.Redis.from_url(store) for _ in range(64)]
        count, calls, refused = iter(range(10**9)), 64 * max(1, scale.trips // 64), [0]

        def guarded(worker: int, runs: list[Run]) -> None:
            for run in runs:
                for _ in range(_TURN):
                    answer = run.perform("orders.get", world.LOOKED_UP, tool_call_id=f"call_{next(count)}")
                    if isinstance(answer, Deny | StepUp):  # late: too much at once for this machine
                        refused[0] += 1
                    else:
                        with answer:
                            answer.record_result({"status": "delivered"})

        def baseline(worker: int, runs: list[Run]) -> None:
            for _ in range(_TURN * len(runs)):
                bare.both()
                for _ in range(2):
                    clients[worker].set(f"bench:{next(count)}", "x" * 64, nx=True, px=60_000)

        for threads in (1, 8, 64):
            took: dict[Any, list[float]] = {guarded: [], baseline: []}
            refused[0], each = 0, calls // threads // _TURN or 1
            for _ in range(3):
                opened = [[_open(gate) for _ in range(each)] for _ in range(threads)]
                for work, seconds in took.items():
                    start = time.perf_counter()
                    list(pool.map(work, range(threads), opened))
                    seconds.append((time.perf_counter() - start) / (each * threads * _TURN) * 1e6)
                yield
            told = f"{threads} threads" + (f", {refused[0]} of {3 * each * threads * _TURN} refused" if refused[0] else "")
            rows.append(_throughput(f"throughput_{threads}", told, median(took[guarded]), median(took[baseline])))
        tasks, late = asyncio.run(_tasks(folder, store))
        yield
        told = "64 tasks of one event loop" + (f", {late} of {_TURN * 64} refused" if late else "")
        rows.append(_throughput("throughput_64_tasks", told, tasks, median(took[baseline])))
        for client in clients:
            client.close()
    return rows


async def _tasks(folder: Path, store: str) -> tuple[float, int]:
    """Microseconds a call, by 64 tasks with a run each; and how many were refused, as too late."""
    gate = await AsyncGate.open_unsafe_unapproved(
        folder / "workflows", issuer=world.ISSUER, audit="memory://", store=store, **{**MOST, "at_once": 64}
    )
    user, desk = User("lee", tenant="acme"), Agent("desk")
    named: dict[str, Any] = {"tenant": "acme", "user": user, "agent": desk, "prompt": "What is the status of ORD-10023344?"}
    runs = [await gate.open_run("support.order-status", **named) for _ in range(64)]

    async def work(run: Any) -> int:
        refused = 0
        for number in range(_TURN):
            answer = await run.perform("orders.get", world.LOOKED_UP, tool_call_id=f"call_{number}")
            if isinstance(answer, Deny | StepUp):
                refused += 1
            else:
                async with answer:
                    await answer.record_result({"status": "delivered"})
        return refused

    start = time.perf_counter()
    refused = sum(await asyncio.gather(*map(work, runs)))
    took = time.perf_counter() - start
    await gate.close()
    return took / (_TURN * 64) * 1e6, refused


def _throughput(name: str, who: str, each: float, bare: float) -> Row:
    note = f"{1e6 / each:,.0f} performed calls a second by {who} (baseline {1e6 / bare:,.0f}); Redis over TCP, audit memory://"
    return Row(
        name, each, "pyca sign + verify, two redis-py SET NX PX, as many at once", bare, each / bare, "x", None, durable=False, note=note
    )
