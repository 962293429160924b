"""Many callers at once, in one process: ``python -m tests.benchmarks.overload [--callers 64,256,512] [--form asyncio|threads]``.

Each caller opens a run, looks an order up, refunds it, and again, over a real Valkey and a durable audit log. Told apart: calls that went
through, that were refused at once, that were refused late (the store or the log did not answer before the deadline), facts and outcomes
that the store lacks afterwards of calls whose tool ran, and how long an answer took. What is refused at once is tried again after a moment,
as a caller would.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from agentgate import Agent, Allow, AsyncGate, Gate
from agentgate.errors import AgentGateError
from agentgate.stores import server_id
from tests.servers import Server, valkey_binary
from tests.shop import LEE, ORDER, PROMPT, REFUND, WEEKDAY, WORKFLOW

RESULT = {"total": "150.00", "currency": "EUR", "customer": "cus_1", "comment": "none"}
PAUSE, TRIES = 0.05, 200  # seconds before another try of what was refused at once, and tries


class Tally:
    """What the callers met."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()
        self.took: list[float] = []
        self.ran: list[tuple[str, str, str, str]] = []  # tenant, run, call digest, tool
        self.seen: Counter[str] = Counter()

    def kind(self, answer: Any) -> str:
        text = str(answer.failures[0]) if hasattr(answer, "failures") and not isinstance(answer, Exception) else str(answer)
        if "overload" in text:
            return "early"
        if isinstance(answer, AgentGateError) or text.startswith(("store", "audit")):
            self.seen[text[:110]] += 1
            return "late"
        self.seen[text[:110]] += 1
        return "refused"


def caller(gate: Any, tally: Tally, rounds: int, tool_seconds: float) -> Generator[Callable[[], Any] | float, Any, None]:
    """One caller's steps: each yielded callable is called (and awaited); a number is a pause in seconds."""

    def asked(what: Callable[[], Any]) -> Generator[Callable[[], Any] | float, Any, Any]:
        for _ in range(TRIES):
            start = time.monotonic()
            try:
                answer = yield what
            except AgentGateError as error:
                answer = error
            tally.took.append(time.monotonic() - start)
            if isinstance(answer, Exception) or hasattr(answer, "failures"):
                kind = tally.kind(answer)
                tally.met[kind] += 1
                if kind == "early":
                    yield PAUSE
                    continue
                return None
            return answer
        tally.met["gave up"] += 1
        return None

    for _ in range(rounds):
        run = yield from asked(partial(gate.open_run, "shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT))
        if run is None:
            continue
        for tool, args, id_ in (("orders.get", ORDER, "look"), ("payments.refund", REFUND, "pay")):
            allowed = yield from asked(partial(run.authorize, tool, args, tool_call_id=id_))
            if not isinstance(allowed, Allow):
                break
            tally.met["allowed"] += 1
            call = yield from asked(partial(run.redeem, allowed.token, tool=tool, args=args))
            if call is None:
                break
            tally.met["redeemed"] += 1
            tally.ran.append((run.tenant, run.id, call.claims.call_digest, tool))
            if tool_seconds:
                yield tool_seconds
            try:
                if tool == "orders.get":
                    yield partial(call.record_result, RESULT)
                yield partial(call.__aexit__ if hasattr(call, "__aexit__") else call.__exit__, None, None, None)
            except AgentGateError as error:
                tally.met["told"] += 1
                tally.seen[str(error)[:110]] += 1


async def _awaited(steps: Any) -> None:
    answer: Any = None
    try:
        step = next(steps)
        while True:
            try:
                answer = await (asyncio.sleep(step) if isinstance(step, float) else step())
            except Exception as error:  # noqa: BLE001 - handed to the caller's steps
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration:
        return


def _blocked(steps: Any) -> None:
    answer: Any = None
    try:
        step = next(steps)
        while True:
            try:
                answer = partial(time.sleep, step)() if isinstance(step, float) else step()
            except Exception as error:  # noqa: BLE001 - handed to the caller's steps
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration:
        return


def measure(form: str, callers: int, rounds: int, tool_seconds: float = 0.0, **settings: Any) -> dict[str, Any]:
    """One measurement, on a server of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "w").mkdir()
        (folder / "w" / "refund.yaml").write_text(WORKFLOW)
        server = Server(valkey_binary(), folder / "server")
        options = {
            "runs_per_hour": 100_000,
            "issuer": "https://gate.example",
            "clock": lambda: WEEKDAY,
            "store": server.url,
            "keys": folder / "keys",
            **settings,
        }
        tally = Tally()
        try:
            start = time.monotonic()
            if form == "asyncio":

                async def all_of_them() -> None:
                    async with await AsyncGate.open_unsafe_unapproved(folder / "w", audit=str(folder / "audit"), **options) as gate:
                        await asyncio.gather(*(_awaited(caller(gate, tally, rounds, tool_seconds)) for _ in range(callers)))

                asyncio.run(all_of_them())
            else:
                with Gate.open_unsafe_unapproved(folder / "w", audit=str(folder / "audit"), **options) as gate:
                    threads = [threading.Thread(target=_blocked, args=(caller(gate, tally, rounds, tool_seconds),)) for _ in range(callers)]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
            took = time.monotonic() - start
            facts = outcomes = 0
            for tenant, run, digest, tool in tally.ran:
                key = f"ag:{{{tenant}}}:burns:{server_id('https://gate.example')}:{run}"
                outcomes += server.command("HEXISTS", key, f"{digest}:outcome").startswith(":0")
                facts += tool == "orders.get" and server.command("HEXISTS", key, f"{digest}:facts").startswith(":0")
        finally:
            server.stop()
    times = sorted(tally.took)
    met = tally.met
    return {
        "form": form,
        "callers": callers,
        "seconds": round(took, 1),
        "allowed": met["allowed"],
        "redeemed": met["redeemed"],
        "early": met["early"],
        "late": met["late"],
        "other": met["refused"] + met["gave up"],
        "facts lost": facts,
        "outcomes lost": outcomes,
        "told": met["told"],
        "p50 ms": round(times[len(times) // 2] * 1000, 1),
        "p99 ms": round(times[int(len(times) * 0.99)] * 1000, 1),
        "seen": dict(tally.seen.most_common(4)),
    }


def main() -> None:
    """Measure and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", default="64,256,512")
    parser.add_argument("--form", choices=("asyncio", "threads"), action="append")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tool", type=float, default=0.0, help="seconds a tool takes")
    parser.add_argument("--at-once", type=int)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    more = {} if chosen.at_once is None else {"at_once": chosen.at_once}
    for form in chosen.form or ("asyncio", "threads"):
        for callers in map(int, chosen.callers.split(",")):
            print(measure(form, callers, chosen.rounds, chosen.tool, **more), flush=True)


if __name__ == "__main__":
    main()
