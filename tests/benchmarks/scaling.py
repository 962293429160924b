"""Gates on one primary, behind Sentinels and on one to three shards: calls a second, and whose processor time they take.

``python -m tests.benchmarks scale [--seconds N] [--json FILE]``. All processes share this machine's cores, so what they do at once
says little; processor time per call does, and the projection below the table is made of it. The last line is of calls that their own
process performs: what one core of a server can do of them, and how much of its time the scripts themselves take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]  # it has no types
import structlog
from rich.console import Console
from rich.table import Table

from agentgate import Agent, Allow, Deny, Gate, RunRefused, StepUp, TokenRefused, User
from agentgate.errors import NotRecorded, StoreUnavailable
from agentgate.gate.settings import MOST
from tests.benchmarks.guarded import LOOKUP
from tests.benchmarks.world import LOOKED_UP
from tests.faults.shop import ISSUER, ORDER, PROMPT, TENANTS, WORKFLOW
from tests.servers import Server, valkey_binary
from tests.watched import Shards, Watched

TENANTS_USED = 64
_TURN = 20  # calls in one run
PAYMENT = {**ORDER, "amount": "39.99", "currency": "EUR", "payee": "cus_1"}
REFUSED = (StoreUnavailable, TokenRefused, RunRefused, NotRecorded)  # for the time: a busy machine
FACTS = {"total": "150.00", "currency": "EUR", "customer": "cus_1"}


class Measured(NamedTuple):
    """One row: calls a second (each authorised, redeemed and reported), and microseconds of processor time for each."""

    store: str
    gates: int
    tenants: int
    per_second: float
    gate_us: float
    server_us: float
    refused: int


def _call(gate: Gate, tenant: str) -> int:
    """A run of its own with a read and an act: how many calls that was."""
    user = User("lee", tenant=tenant, groups=["support"])
    run = gate.open_run("shop.refund", tenant=tenant, user=user, agent=Agent("bot"), prompt=PROMPT)
    for tool, args, facts in (("orders.get", ORDER, FACTS), ("payments.refund", PAYMENT, None)):
        answer = run.authorize(tool, args, tool_call_id=tool)
        if not isinstance(answer, Allow):
            raise StoreUnavailable(f"the benchmark's call is refused: {answer}")
        with run.redeem(answer.token, tool=tool, args=args) as redeemed:
            if facts is not None:
                redeemed.record_result(facts)
    return 2


def _work(folder: str, url: str, tenants: Sequence[str], seconds: float, between: tuple[Barrier, Any]) -> None:
    start, told = between
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with Gate.open_unsafe_unapproved(Path(folder), issuer=ISSUER, store=url, audit="memory://", **MOST) as gate:
        done = refused = 0
        for tenant in tenants:
            with suppress(*REFUSED):
                _call(gate, tenant)
        start.wait()
        begun, used = time.monotonic(), time.process_time()
        for tenant in cycle(tenants):
            try:
                done += _call(gate, tenant)
            except REFUSED:
                refused += 1
            if time.monotonic() - begun >= seconds:
                break
        told.put((done, refused, time.monotonic() - begun, time.process_time() - used))


def _used(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def measure(name: str, url: str, servers: Sequence[Server], folder: Path, *, gates: int, tenants: int, seconds: float) -> Measured:
    """Gates in processes of their own, each with its own callers' tenants."""
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(gates + 1), context.Queue()
    spread = [TENANTS[number:tenants:gates] or TENANTS[:1] for number in range(gates)]
    workers = [context.Process(target=_work, args=(str(folder), url, each, seconds, (start, told))) for each in spread]
    for each in workers:
        each.start()
    start.wait(60)
    pids = [server.pid for server in servers]
    before = _used(pids)
    answers = [told.get(timeout=seconds + 60) for _ in workers]
    after = _used(pids)
    for each in workers:
        each.join()
    calls = sum(done for done, *_ in answers)
    rate = sum(done / took for done, _, took, _ in answers)
    refused = sum(each for _, each, *_ in answers)
    return Measured(name, gates, tenants, rate, sum(used for *_, used in answers) / calls * 1e6, (after - before) / calls * 1e6, refused)


@contextmanager
def _workflows() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="agentgate-scale-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "w").mkdir()
        (folder / "w" / "refund.yaml").write_text(WORKFLOW, encoding="utf-8")
        yield folder


def rows(seconds: float, most_gates: int = 4) -> Iterator[Measured]:
    """One primary, one behind Sentinels, one to three shards; with one, two and four gates; at last one tenant alone."""
    counts = [count for count in (1, 2, 4) if count <= most_gates]
    with _workflows() as folder:
        common: dict[str, Any] = {"folder": folder / "w", "seconds": seconds}
        single = Server(valkey_binary(), folder / "single")
        for gates in counts:
            yield measure("one primary", single.url, [single], gates=gates, tenants=TENANTS_USED, **common)
        single.stop()
        watched = Watched(valkey_binary(), folder / "watched", replicas=1)
        yield measure("one primary, by Sentinels", watched.url, watched.servers[:1], gates=1, tenants=TENANTS_USED, **common)
        watched.stop()
        for count in (1, 2, 3):
            shards = Shards(valkey_binary(), folder / f"shards-{count}", shards=count, replicas=0)
            for gates in counts:
                name = f"{count} shard{'s' * (count > 1)}"
                yield measure(name, shards.url, shards.primaries, gates=gates, tenants=TENANTS_USED, **common)
            if count == 3:
                yield measure("3 shards, one tenant", shards.url, shards.primaries, gates=counts[-1], tenants=1, **common)
            shards.stop()


def performed(calls: int = 4000) -> tuple[float, float]:
    """Microseconds of a server's core for one performed read of one tenant, and those of them inside of scripts."""
    server_us = {}
    with _workflows() as folder:
        (folder / "w" / "status.yaml").write_text(LOOKUP, encoding="utf-8")
        server = Server(valkey_binary(), folder / "server")
        with Gate.open_unsafe_unapproved(folder / "w", issuer=ISSUER, store=server.url, audit="memory://", **MOST) as gate:
            _look_up(gate, 10 * _TURN)
            server.command("CONFIG", "RESETSTAT")
            used = _used([server.pid])
            _look_up(gate, calls)
            server_us["all"] = (_used([server.pid]) - used) / calls * 1e6
            (spent,) = re.findall(r"cmdstat_evalsha:calls=\d+,usec=(\d+)", server.command("INFO", "commandstats"))
            server_us["scripts"] = int(spent) / calls
        server.stop()
    return server_us["all"], server_us["scripts"]


def _look_up(gate: Gate, calls: int) -> None:
    user, desk = User("lee", tenant="acme"), Agent("desk")
    for number in range(calls):
        if number % _TURN == 0:
            run = gate.open_run("support.order-status", tenant="acme", user=user, agent=desk, prompt="What is the status of ORD-10023344?")
        answer = run.perform("orders.get", LOOKED_UP, tool_call_id=f"call_{number}")
        if isinstance(answer, Deny | StepUp):
            raise StoreUnavailable(f"the benchmark's call is refused: {answer}")
        with answer:
            answer.record_result({"status": "delivered"})


def main(arguments: Sequence[str]) -> int:
    """Print the table, and what it would mean elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks scale", description="Gates and shards, on this machine.")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row (%(default)s)")
    parser.add_argument("--gates", type=int, default=4, help="at most (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    chosen = parser.parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    table = Table(title=f"one call: authorised, redeemed, reported; {os.cpu_count()} cores for everything", title_justify="left")
    for heading in ("store", "gates", "tenants", "calls/s", "gate, us/call", "servers, us/call", "servers' share", "refused"):
        table.add_column(heading, justify="left" if heading == "store" else "right")
    found = []
    for row in rows(chosen.seconds, chosen.gates):
        found.append(row)
        share = row.server_us / (row.server_us + row.gate_us)
        cells = (row.store, row.gates, row.tenants, f"{row.per_second:.0f}", f"{row.gate_us:.0f}", f"{row.server_us:.0f}")
        table.add_row(*map(str, cells), f"{share:.0%}", str(row.refused))
    console.print(table)
    sharded = [row for row in found if row.store == "3 shards"]
    gate, server = (min(getattr(row, name) for row in sharded) for name in ("gate_us", "server_us"))
    console.print(
        f"on paper, by processor time: a core of gates does {1e6 / gate:.0f} calls/s, one shard (a core) {1e6 / server:.0f}; "
        f"16 cores of gates {16e6 / gate:.0f}, with {16 * server / gate / 0.6:.1f} shards that are 60 % busy",
        highlight=False,
    )
    whole, scripts = performed()
    console.print(
        f"one tenant, performed reads: {whole:.0f} us of a server's core each, so {1e6 / whole:.0f} calls/s; "
        f"{scripts:.0f} us are the scripts' own: {scripts / whole:.2f} of what these alone would allow",
        highlight=False,
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([row._asdict() for row in found], indent=2) + "\n", encoding="utf-8")
    return 0
