"""The gate as the service uses it: an `AsyncGate` whose runs belong to clients, and whose
redemptions are reported later, over HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from agentgate.audit import FileAudit
from agentgate.errors import AuditUnavailable, ConfigError, CredentialRefused, KeyRefused
from agentgate.gate import account_key
from agentgate.gate.core import Core
from agentgate.gate.gate import AsyncGate
from agentgate.gate.holds.proof import passkeys_of
from agentgate.gate.open_run import open_run, present
from agentgate.gate.proving import OverHTTP, UserGiven
from agentgate.gate.run import AsyncRun
from agentgate.gate.settings import ApprovedSettings
from agentgate.gate.view import View
from agentgate.identity.credential import AgentCredential
from agentgate.loading.catalog import Catalog
from agentgate.service.line import aside
from agentgate.service.settings import ServiceSettings
from agentgate.shell.drive import CALL_SECONDS, adrive
from agentgate.shell.spans import Tracing
from agentgate.shell.step import Flow
from agentgate.stores import AsyncStore, Op
from agentgate.values.value_class import value_class

Answered = TypeVar("Answered")
# What the service's settings have from a gate's is declared there: its meaning, its bounds, and
# what it is where it is left out.
_OF_THE_GATE = ServiceSettings.model_fields.keys() & {
    each.name for each in fields(ApprovedSettings)
}


def tracing(*, wanted: bool) -> Tracing | None:
    """Where spans go.

    Raises:
        ConfigError: the extra is not installed.
    """
    if not wanted:
        return None
    try:
        from agentgate.integrations.otel import OpenTelemetry  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise ConfigError(
            "traces", True, "pip install '.[otel]' in the clone (or traces = false)"
        ) from None
    return OpenTelemetry()


def _rotated(core: Core, statement: str, tenant: str, agent: AgentCredential) -> Flow:
    if core.identities is None:
        raise CredentialRefused("agent", "a credential", "a gate with identity settings")
    account = yield from core.identities.agent(agent, tenant, None, time.time())
    return (
        yield from account_key.rotate(
            core, statement, issuer=account.who.issuer, of=(tenant, account.who.id)
        )
    )


@value_class
class TimedStore:
    """A store whose operations are timed; all else is the store's own."""

    _store: AsyncStore
    _observe: Callable[[str, float], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def call(self, op: Op[Any], deadline: float) -> Any:
        """See `agentgate.stores.Store`."""
        began = time.perf_counter()
        try:
            return await self._store.call(op, deadline)
        finally:
            self._observe(op.script, time.perf_counter() - began)


class ServedGate(AsyncGate):
    """See the module."""

    _workflows: Path

    @classmethod
    async def of(
        cls, settings: ServiceSettings, clock: Callable[[], datetime] | None = None
    ) -> Self:
        """Open it. Raises as `Gate.open`."""
        s = settings
        passkeys = await asyncio.to_thread(passkeys_of, s.passkeys, s.issuer)
        given: dict[str, Any] = {
            name: value for name in _OF_THE_GATE if (value := getattr(s, name)) is not None
        }
        given |= {
            "audit": str(s.audit),
            "tell": s.hooks(),
            "pages": f"{passkeys.origins[0]}/holds/" if passkeys is not None else "",
            "tracing": tracing(wanted=s.traces),
            "shared_runs": s.workers > 1 if s.shared_runs is None else s.shared_runs,
            "clock": clock,
        }
        if not s.workflows.is_dir():
            raise ConfigError(
                "workflows",
                str(s.workflows),
                "a directory with workflows, and approvals/ in it",
            )
        opened = cls.open_unsafe_unapproved(**given) if s.root is None else cls.open(**given)
        try:
            gate = cast("Self", await opened)
        except KeyRefused as error:
            raise ConfigError(
                "keys", str(s.keys), f"a directory of keys, this user's own ({error})"
            ) from None
        except AuditUnavailable as error:
            raise ConfigError(
                "audit", str(s.audit), f"a directory that this user can write ({error})"
            ) from None
        gate._workflows = s.workflows  # noqa: SLF001 - of its own class
        return gate

    async def reload(self) -> None:
        """See `Gate.reload`; without approvals, the files of the directory as they are now."""
        if self._opening is not None:
            await super().reload()
        else:
            async with self._one_reload_awaited:
                self._core.catalog.become(
                    await asyncio.to_thread(Catalog.load, self._workflows, self._core.derive)
                )

    @property
    def core(self) -> Core:
        """What the gate consists of."""
        return self._core

    async def drive(self, flow: Flow, *, new: bool = True) -> Any:
        """Carry out a flow: what it returns, and what it raises. `new` work is refused
        (Overloaded) where too much is under way.
        """
        with self._bound.place(new=new):
            return await adrive(
                self._bound.telling(flow), self._store, self._audit, aside=aside
            )

    async def ask(self, op: Op[Answered]) -> Answered:
        """What the store answers to one operation.

        Raises:
            StoreUnavailable.
        """
        return op.parse(await self._store.call(op, time.monotonic() + CALL_SECONDS))

    def time_store(self, observe: Callable[[str, float], None]) -> None:
        """Tell of each operation of the store what it was, and how many seconds it took."""
        self._store = cast("AsyncStore", TimedStore(self._store, observe))

    @property
    def store(self) -> AsyncStore:
        """Where its state lies."""
        return self._store

    async def look_at_audit(self) -> FileAudit:
        """Its log. Raises AuditUnavailable: no record could be written now."""
        await self._audit.aroom(time.monotonic() + CALL_SECONDS)
        return cast("FileAudit", self._audit)  # the settings name a directory

    async def own_run(
        self, workflow: str, *, tenant: str, agent: AgentCredential, over: OverHTTP
    ) -> AsyncRun:
        """The one run of an agent's credential, in a workflow without prompt: opened now, or
        found.
        """
        flow = open_run(
            self._core,
            workflow,
            tenant=tenant,
            user=None,
            agent=agent,
            prompt="",
            ttl=3600,
            once=True,
            over=over,
        )
        return self._handle(await self.drive(flow), agent.certificate)

    async def hosted_run(
        self,
        workflow: str,
        *,
        tenant: str,
        user: UserGiven,
        agent: AgentCredential,
        over: OverHTTP,
        **said: Any,
    ) -> AsyncRun:
        """A run that a host opens for an agent."""
        flow = open_run(
            self._core, workflow, tenant=tenant, user=user, agent=agent, over=over, **said
        )
        return self._handle(await self.drive(flow))

    async def presented(
        self, run: AsyncRun, *, user: UserGiven, agent: AgentCredential, over: OverHTTP
    ) -> AsyncRun:
        """The run, for whom these credentials prove to be its user and agent."""
        return self._handle(
            await self.drive(present(self._core, run.state, user=user, agent=agent, over=over)),
            agent.certificate,
        )

    def shown_by(self, run: AsyncRun, certificate: str) -> AsyncRun:
        """The run, for whom shows this certificate (its thumbprint; empty: none)."""
        return self._handle(run.state, certificate)

    async def rotate_own_key(
        self, statement: str, *, tenant: str, agent: AgentCredential
    ) -> str:
        """An account's new key, by its own credential and a statement of its old key; returns
        the account.

        Raises:
            CredentialRefused, RunRefused, StoreUnavailable, AuditUnavailable, Overloaded.
        """
        return str(await self.drive(_rotated(self._core, statement, tenant, agent)))

    def _handle(self, state: Any, certificate: str = "") -> AsyncRun:
        return AsyncRun(
            View(self._core, state, certificate=certificate),
            self._store,
            self._audit,
            self._bound,
        )
