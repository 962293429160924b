"""How a served gate is, in closed codes: what stops it, and what it goes on without. Readiness, metrics and the log all tell this.

Rules: it is looked at when somebody asks, at most once in `FRESH_SECONDS`, and every `LOOK_SECONDS` by itself, so that the log names what
began and what ended although nobody asked. A part that cannot be looked at stops the gate. docs/operations/runbook.md explains each code.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import structlog

from agentgate.approvals.opening import warn_of
from agentgate.errors import AuditUnavailable, ClockSkewed, KeyRefused, StoreUnavailable
from agentgate.stores import Weakness, recovery
from agentgate.values.visible import visible

if TYPE_CHECKING:
    from agentgate.service.state import Service

FRESH_SECONDS, LOOK_SECONDS = 1.0, 5.0
LITTLE_ROOM = 1 << 30  # bytes for the audit log
_log = structlog.get_logger("agentgate.service")


class Condition(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        code: closed.
        stops: nothing is decided while it lasts.
        what: for the operator.
        public: whether everybody who asks may read `what`.
    """

    code: str
    stops: bool
    what: str
    public: bool = False

    @property
    def line(self) -> str:
        """What readiness says of it."""
        return f"{self.code}: {self.what}" if self.public else self.code


def _of_weakness(weakness: Weakness) -> Condition:
    return Condition(weakness.code, False, f"{weakness.setting}: {weakness.means}; to do: {weakness.remedy}")


class Health:
    """The conditions of one service, kept for a moment."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._looked = -FRESH_SECONDS
        self._looking = asyncio.Lock()
        self._known: tuple[Condition, ...] = ()

    async def conditions(self) -> tuple[Condition, ...]:
        """What is so now; empty: all is well."""
        async with self._looking:
            if time.monotonic() - self._looked >= FRESH_SECONDS:
                found = await self._look()
                self._tell_changes(found)
                self._known, self._looked = found, time.monotonic()
        return self._known

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look again and again, until it is left."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            await self.conditions()
            await asyncio.sleep(LOOK_SECONDS)

    def _tell_changes(self, found: tuple[Condition, ...]) -> None:
        before, now = {each.code: each for each in self._known}, {each.code: each for each in found}
        for code, each in now.items():
            if code not in before:
                _log.warning("condition_began", code=code, stops=each.stops, what=visible(each.what)[:500])
        for code in before.keys() - now.keys():
            _log.info("condition_ended", code=code)

    async def _look(self) -> tuple[Condition, ...]:
        found = [*self._of_keys(), *self._of_workflows(), *await self._of_store(), *await self._of_audit()]
        if not self._service.ready:
            found.append(Condition("ending", True, "the process was told to end"))
        return tuple(sorted(found, key=lambda each: not each.stops))

    def _of_keys(self) -> Iterator[Condition]:
        try:
            self._service.gate.jwks()
        except KeyRefused as error:
            yield Condition("keys", True, str(error))

    def _of_workflows(self) -> Iterator[Condition]:
        catalog = self._service.gate.catalog
        if not catalog:
            yield Condition("workflows", True, "no workflow is in force")
        if due := catalog.due():  # a gate that nobody calls warns as well
            warn_of(due)
        if (over := catalog.over()) is not None:
            yield Condition("stale_index" if over.what == "index" else f"{over.what}_expired", True, str(over))
        for each in catalog.endings(AHEAD):
            yield Condition("approvals_end", False, str(each), public=True)

    async def _of_store(self) -> list[Condition]:
        gate = self._service.gate
        try:
            weaknesses = await gate.look_at_store()
            lost = [tenant for tenant in gate.every_tenant() if (await gate.ask(recovery.read_history(tenant))).lost]
        except ClockSkewed as error:
            return [Condition("clock", True, str(error))]
        except StoreUnavailable as error:
            return [Condition("store", True, str(error))]
        found = [_of_weakness(each) for each in weaknesses if each.code != "store_weak"]  # the rest is doctor's
        if lost:
            found.append(Condition("history_lost", False, f"{', '.join(lost)}: agentgate store reconcile"))
        return found

    async def _of_audit(self) -> list[Condition]:
        try:
            await self._service.gate.look_at_audit()
            free = shutil.disk_usage(self._service.settings.audit).free
        except (AuditUnavailable, OSError) as error:
            return [Condition("audit", True, str(error))]
        little = f"{free >> 20} MiB free at {self._service.settings.audit}"
        return [Condition("audit_room", False, little)] if free < LITTLE_ROOM else []
