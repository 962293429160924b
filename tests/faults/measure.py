"""One row: calls before the fault, while it lasts and after it, what each host was answered, and what the ledger says in the end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import structlog
from typer.testing import CliRunner

from agentgate import RunRefused, TokenRefused
from agentgate.cli.main import app
from agentgate.errors import AuditUnavailable, StoreUnavailable
from tests.faults.rows import Fault
from tests.faults.shop import AFTER, EARLIER, FLYING, MEANWHILE, MINTED, SIDES, SINCE, Call, Shop, Side

REFUSED = (RunRefused, StoreUnavailable, AuditUnavailable, TokenRefused)
TRIES = 3  # before there is a fault
PATIENCE = 2.0  # seconds that a host goes on trying new calls before they count as stopped
Answers = dict[str, dict[str, int]]  # phase of the call -> answer -> how often it was given


@dataclass
class Row:
    """What one fault made of some calls.

    Attributes:
        lasting: what hosts were answered while it lasted.
        then: what they were answered after its end, before anybody did anything about it.
        slowest: seconds that a host waited for an answer, at most.
        executed: calls that were executed.
        tokens_twice, calls_twice: those that must not be.
        done: calls that were executed before the fault.
        forgotten: how many of these the store no longer knew after it.
        recovered: seconds that new calls of the tenants took after its end until all were executed; None: not by itself.
        remedy: what it took then.
        seconds: how long all of this took.
    """

    name: str
    server: str
    lasting: Answers = field(default_factory=dict)
    then: Answers = field(default_factory=dict)
    slowest: float = 0.0
    executed: int = 0
    tokens_twice: list[str] = field(default_factory=list)
    calls_twice: list[str] = field(default_factory=list)
    done: int = 0
    forgotten: int = 0
    recovered: float | None = None
    remedy: str = ""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Nothing happened twice."""
        return not self.tokens_twice and not self.calls_twice


def measure(fault: Fault, binary: str, server: str) -> Row:
    """Carry out one fault on servers of its own, of the kind `server`."""
    quiet()
    begin, row = time.monotonic(), Row(fault.name, server)
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        shop = Shop(
            Path(folder),
            binary,
            settings=fault.settings,
            replica=fault.replica,
            confirmed=fault.confirmed,
            disk=fault.disk,
            shared=fault.shared,
            watched=fault.watched,
        )
        try:
            _carry_out(fault, shop, row)
        finally:
            shop.close()
    row.seconds = time.monotonic() - begin
    return row


def _carry_out(fault: Fault, shop: Shop, row: Row) -> None:
    earlier, minted, since, flying, meanwhile = (_wanted(shop, phase) for phase in (EARLIER, MINTED, SINCE, FLYING, MEANWHILE))
    calls = [*earlier, *minted, *since, *flying, *meanwhile]
    first = fault.asked
    ways = (first, *(way for way in product(SIDES, SIDES) if way != first))
    _ask_all(shop, earlier, (("a", "a"),))
    for call in minted:
        shop.mint(call)
    steps = fault.steps(shop)
    next(steps)
    for call in minted:
        shop.fly(call, ("a",))
    _ask_all(shop, since, (("a", "a"),))
    for call in flying:
        with suppress(*REFUSED):
            shop.mint(call)
    row.done = len(shop.ledger.counts("executed"))
    _answers(calls)

    next(steps)
    calls += shop.more
    for call in flying:
        shop.fly(call, first[1:])
    _ask_all(shop, calls, ways[:1] if fault.apart else ways[:1] + ways[-1:])
    row.lasting = _answers(calls)

    next(steps, None)
    row.forgotten = shop.forgotten([*earlier, *minted, *since])
    for call in minted:
        shop.fly(call, first[1:])
    for call in flying:
        shop.fly(call)
    _ask_all(shop, calls, ways)
    new, row.recovered = _new_calls(shop, earlier + since)
    row.then = _answers([*calls, *new])

    if row.recovered is None:
        row.remedy = _reconciled(shop, calls)
        _ask_all(shop, calls, ways[::-1])
    shop.replay([*calls, *new])
    row.slowest = shop.slowest
    row.executed = len(shop.ledger.counts("executed"))
    row.tokens_twice, row.calls_twice = shop.ledger.twice("accepted"), shop.ledger.twice("executed")


def _wanted(shop: Shop, phase: str) -> list[Call]:
    return [_opened(shop, phase, tool, big=big) for tool in ("payments.refund", "payments.send") for big in (False, True)]


def _opened(shop: Shop, phase: str, tool: str, *, big: bool) -> Call:
    """A call whose run is open, before the fault: a machine that is too busy to answer in time is asked again."""
    for _ in range(TRIES):
        with suppress(*REFUSED):
            return shop.wanted(phase, tool, big=big)
    return shop.wanted(phase, tool, big=big)


def _ask_all(shop: Shop, calls: Sequence[Call], ways: Sequence[tuple[Side, Side]]) -> None:
    for gate, tool in ways:
        for call in calls:
            shop.ask(call, gate, tool)


def _answers(calls: Sequence[Call]) -> Answers:
    """What hosts were answered since the last time."""
    told: Answers = {}
    for call in calls:
        phase = told.setdefault(call.phase, {})
        for answer in call.answers:
            phase[answer] = phase.get(answer, 0) + 1
        call.answers.clear()
    return told


def _new_calls(shop: Shop, calls: Sequence[Call]) -> tuple[list[Call], float | None]:
    """A new call in the tenant of each, at either side; the seconds until all were done, or None: hosts lost patience."""
    begin, tried, waiting = time.monotonic(), [], [(call.tenant, call.tool, side) for call in calls for side in SIDES]
    while True:
        for tenant, tool, side in tuple(waiting):
            with suppress(*REFUSED):
                tried.append(shop.wanted(AFTER, tool, tenant=tenant, gate=side))
                if shop.ask(tried[-1], side, side) == "done":
                    waiting.remove((tenant, tool, side))
        took = time.monotonic() - begin
        if not waiting or took > PATIENCE:
            return tried, None if waiting else took
        time.sleep(0.5)


def _reconciled(shop: Shop, calls: Sequence[Call]) -> str:
    """What `agentgate store reconcile` needed before new calls went on: nothing more, or a person who accepts what no log tells."""
    logs = [word for log in shop.logs() for word in ("--audit", log)]
    command = ["store", "reconcile", "--store", shop.url, *logs, "--json"]
    for more, remedy in (((), "reconcile"), (("--accept-loss", "a fault was tried"), "reconcile --accept-loss")):
        done = CliRunner().invoke(app, [*command, *more])
        quiet()  # the command logs to where its output goes
        if done.exit_code == 0:
            return remedy if _new_calls(shop, calls)[1] is not None else "nothing"
    return "nothing"


def quiet() -> None:
    """Logs go nowhere: refusals are what is measured here."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """All rows in one line."""
    return {
        "rows": len(rows),
        "calls executed": sum(row.executed for row in rows),
        "tokens accepted twice": sum(len(row.tokens_twice) for row in rows),
        "calls executed twice": sum(len(row.calls_twice) for row in rows),
        "calls forgotten by a store": sum(row.forgotten for row in rows),
        "rows that went on by themselves": sum(row.recovered is not None for row in rows),
    }
