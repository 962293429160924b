"""The gate: opens runs, authorises calls, lets people answer holds. Thin shells over
`agentgate.gate.flow`.

Rules: no setting turns a check off. An unsafe way to open a gate has `unsafe` in its name, and
warns at every start.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import structlog

from agentgate.audit import AuditLog, open_audit, remembered
from agentgate.audit.auditor import make_sealer
from agentgate.errors import ConfigError
from agentgate.gate import account_key
from agentgate.gate.call_context import Sources, data_classes
from agentgate.gate.core import Allowances, Core, read
from agentgate.gate.holds import methods as holding
from agentgate.gate.holds.callback import Callback
from agentgate.gate.holds.proof import Answerers, fronts, passkeys_of
from agentgate.gate.notify import Notifier
from agentgate.gate.open_run import close_conversation, open_run
from agentgate.gate.proving import AgentGiven, UserGiven
from agentgate.gate.revoking import AsyncRevoking, Revoking, Tenants
from agentgate.gate.run import AsyncRun, Run
from agentgate.gate.settings import ApprovedSettings, GateSettings, UnapprovedSettings
from agentgate.gate.view import View
from agentgate.identity.connection import caller
from agentgate.redemption.outcome import read_ends
from agentgate.redemption.steps import Trust
from agentgate.redemption.verifier import AsyncVerifier, Verifier
from agentgate.shell.asking import keep_checkpoints
from agentgate.shell.bound import AT_ONCE, Bound
from agentgate.shell.drive import awaited, blocking, busy, drive, taking
from agentgate.shell.step import Step
from agentgate.stores import AsyncStore, Store, async_ready_store, ready_store
from agentgate.stores._op import History
from agentgate.token.signing import KeyRing
from agentgate.values.request import Spoken, User
from agentgate.values.value_class import Json, Names

if TYPE_CHECKING:
    from agentgate.approvals.opening import Opening
    from agentgate.loading.catalog import Catalog

_log = structlog.get_logger("agentgate.gate.gate")
OneStore = TypeVar("OneStore", bound=Store | AsyncStore)
OneRun = TypeVar("OneRun")


def _now() -> datetime:
    return datetime.now(UTC)


def _core(
    s: GateSettings, catalog: Catalog, keys: KeyRing, opening: Opening | None = None
) -> Core:
    # what a store in memory counted means nothing to the next one
    history = (
        History(lasting=False)
        if s.store == "memory://"
        else History({} if s.audit == "memory://" else remembered(s.audit))
    )
    identities = None
    if s.identity is not None:
        from agentgate.identity.door import Identities  # noqa: PLC0415 - pydantic and PyJWT are for gates that prove identities

        identities = Identities.of(s.identity)
    sources = Sources(
        s.environment,
        caller if identities is None else identities.caller,
        data_classes(s.data_classes),
    )
    answerers = Answerers(
        keys,
        s.issuer,
        fronts(s.answer_keys, keys),
        lambda: opening.signers if opening is not None else None,
    )
    answerers.passkeys = passkeys_of(s.passkeys, s.issuer)
    brokers = s.brokers if isinstance(s.brokers, Mapping) else dict.fromkeys(s.brokers)
    return Core(
        catalog=catalog,
        keys=keys,
        issuer=s.issuer,
        derive=s.deriver,
        clock=s.clock or _now,
        sources=sources,
        brokers=brokers,
        history=history,
        answerers=answerers,
        budgets=Allowances(s.denials_per_run, s.open_holds_per_run, s.runs_per_hour),
        identities=identities,
        confirm=Callback(s.confirm) if s.confirm is not None else None,
        notifier=Notifier(s.tell, s.pages),
        find=None if opening is None else opening.other,
        tracing=s.tracing,
        shared_runs=s.shared_runs,
        seal=make_sealer(Path(s.auditor)) if s.auditor is not None else None,
    )


def _not_empty(settings: GateSettings, catalog: Catalog) -> Catalog:
    if not catalog:
        expected = (
            "a directory with at least one workflow that loads (agentgate workflow "
            "lint and status say what is wrong)"
        )
        raise ConfigError("workflows", str(settings.workflows), expected)
    return catalog


def _opening(settings: ApprovedSettings) -> Opening:
    from agentgate.approvals.opening import Opening  # noqa: PLC0415 - YAML, diff and approvals are for opening and reloading only

    ring = KeyRing.open(settings.keys, settings.alg)
    kept = Path(settings.keys)
    workflows = Path(settings.workflows)
    log = open_audit(settings.audit, kept, settings.checkpoints)
    return Opening(
        workflows,
        settings.root,
        gate=settings.issuer,
        ring=ring,
        kept=kept,
        log=log,
        derive=settings.deriver,
    )


def _unapproved(settings: UnapprovedSettings) -> Core:
    """A core over whatever workflows the directory holds."""
    from agentgate.approvals.opening import report  # noqa: PLC0415 - as in `_opening`
    from agentgate.loading.catalog import Catalog  # noqa: PLC0415 - as in `_opening`

    catalog = Catalog.load(Path(settings.workflows), settings.deriver)
    report(catalog)
    _not_empty(settings, catalog)
    ring = (
        KeyRing.ephemeral(settings.alg)
        if settings.keys is None
        else KeyRing.open(settings.keys, settings.alg)
    )
    message = (
        "workflows are enforced as they lie in the directory; nobody's signature was checked"
    )
    _log.warning("unsafe_unapproved", message=message, workflows=str(settings.workflows))
    return _core(settings, catalog, ring)


class _GateBase(Tenants, Generic[OneStore, OneRun]):
    """What both gates consist of; `_run`: what a run is to their callers."""

    _run: Callable[[View, OneStore, AuditLog, Bound], OneRun]

    def __init__(
        self,
        core: Core,
        store: OneStore,
        audit: AuditLog,
        opening: Opening | None = None,
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self._core = core
        self._store = store
        self._audit = audit
        self._opening = opening
        self._bound = Bound(at_once, core.unproven)
        self._one_reload = threading.Lock()
        self._one_reload_awaited = asyncio.Lock()
        core.issued.store = store
        core.observer.log = audit
        keep_checkpoints(
            audit,
            store,
            servers=lambda: {
                t.audience for w in core.catalog for t in w.tools.values() if t.audience
            },
        )
        core.notifier.start(
            store, lambda: {tenant for workflow in core.catalog for tenant in workflow.tenants}
        )

    @property
    def issuer(self) -> str:
        """This gate's URL."""
        return self._core.issuer

    @property
    def catalog(self) -> Catalog:
        """The loaded workflows and the quarantined files."""
        return self._core.catalog

    def jwks(self) -> Json:
        """The public key set (RFC 7517) for verifiers."""
        return dict(self._core.keys.jwks(_now().timestamp()))

    def _trust(self, audience: str, tenants: Names | list[str]) -> Trust:
        if not audience or not tenants:
            raise ConfigError(
                "audience" if not audience else "tenants", audience or tenants, "exact names"
            )
        return self._core.trust(audience, tuple(tenants))

    def _with_approvals(self) -> Opening:
        if self._opening is None:
            raise ConfigError(
                "root",
                None,
                "a gate opened with Gate.open (one without approvals is closed and opened again)",
            )
        return self._opening


def _open_run(
    self: _GateBase[Any, OneRun],
    workflow: str,
    *,
    tenant: str,
    user: UserGiven,
    agent: AgentGiven,
    prompt: Spoken,
    agent_said: str = "",
    ttl: int = 3600,
    once: bool = False,
    conversation: str | None = None,
) -> Generator[Step, Any, OneRun]:
    """Open a run and freeze tenant, user, agent and workflow version.

    Args:
        self: the gate.
        workflow: id of a loaded workflow.
        tenant: exact tenant.
        user: the person worked for, or their `OIDCToken`; None where the workflow is for an
            autonomous workload.
        agent: the workload, or its credential (`OIDCToken`, `JWTSVID`, `X509SVID`); the run
            ends with the first credential (`Run.renew`).
        prompt: the user's own words; a host that knows which part was pasted gives `[Own(...),
            Pasted(...)]`.
        agent_said: what the agent had said before it (as in `Run.add_turn`).
        ttl: the run's life in seconds, at most a day; a week with credentials, since it can be
            renewed that long.
        once: the run of this very credential (`jti`, or attempt of a job), found again where it
            is open; for workflows without intents.
        conversation: the host's own id for what this user says to this agent, in this tenant.
            Its first prompt opens a run; with each further one that run is found, in whichever
            process, and the prompt is a turn in it. Where it is over, another follows it, with
            its counts. An empty prompt says nothing and opens nothing: the run is found, to
            finish a call that was held.

    Raises:
        RunRefused: with every failing reason. StoreUnavailable, AuditUnavailable, Overloaded:
            not opened.
    """
    state = yield from open_run(
        self._core,
        workflow,
        tenant=tenant,
        user=user,
        agent=agent,
        prompt=prompt,
        agent_said=agent_said,
        ttl=ttl,
        once=once,
        conversation=conversation,
    )
    return self._run(View(self._core, state), self._store, self._audit, self._bound)


def _close_conversation(
    self: _GateBase[Any, Any],
    conversation: str,
    *,
    workflow: str,
    tenant: str,
    user: UserGiven,
    agent: AgentGiven,
) -> Generator[Step, Any, None]:
    """End a conversation: what is held in it is cancelled, nothing is minted in it any more,
    and its id opens no run.

    Raises:
        RunRefused: this tenant, user and agent have none of this id. StoreUnavailable,
            AuditUnavailable: it may be open.
    """
    yield from close_conversation(
        self._core, workflow, conversation, tenant=tenant, user=user, agent=agent
    )


def _resume_run(
    self: _GateBase[Any, OneRun], tenant: str, run: str
) -> Generator[Step, Any, OneRun]:
    """Resume a run that this or another gate opened. Raises RunRefused: missing or unreadable;
    StoreUnavailable, Overloaded.
    """
    state = yield from read(self._core, tenant, run)
    return self._run(View(self._core, state), self._store, self._audit, self._bound)


def _rotate_key(
    self: _GateBase[Any, Any], statement: str, *, issuer: str = ""
) -> Generator[Step, Any, str]:
    """Take up a service account's new key that its old one signed for
    (`agentgate.gate.account_key`); returns the account.

    `issuer`: who proves the account; empty: it has a SPIFFE id.

    Raises:
        RunRefused: the statement proves nothing here. StoreUnavailable, AuditUnavailable.
    """
    return account_key.rotate(self._core, statement, issuer=issuer)


def _release_key(
    self: _GateBase[Any, Any],
    account: str,
    *,
    tenant: str,
    key: str,
    by: User,
    reason: str,
    issuer: str = "",
) -> Generator[Step, Any, str]:
    """A person's word that this is a service account's key from now on.

    Args:
        self: the gate.
        account: the agent's id.
        tenant: its tenant.
        key: RFC 7638 thumbprint of the new key.
        by: who says so, a person of the tenant.
        reason: why, for the record.
        issuer: who proves the account; empty: it has a SPIFFE id.

    Raises:
        RunRefused: no person, or no reason. StoreUnavailable, AuditUnavailable.
    """
    return account_key.release(
        self._core, tenant, account, key, by=by, reason=reason, issuer=issuer
    )


class Gate(_GateBase[Store, Run], Revoking):
    """A gate for blocking code; see `AsyncGate` for its awaited twin."""

    _run = Run

    @classmethod
    @taking(ApprovedSettings)
    def open(cls, settings: ApprovedSettings) -> Gate:
        """Open a gate over what reviewers approved: every workflow's newest version whose
        signatures reach the root's threshold.

        A workflow that is refused is logged by the name of its refusal and stops no other; an
        approved older version of it that may still run does. Opened again (or `reload`),
        nothing older than before comes back.

        Raises:
            ApprovalRefused: root, allowed_signers, index or revocations are bad, absent or old;
                nothing is opened.
            ConfigError, KeyRefused, WorkflowError (roles.yaml), StoreUnavailable,
                AuditUnavailable: nothing is opened.
        """
        from agentgate.approvals.opening import load  # noqa: PLC0415 - as in `_opening`

        opening = _opening(settings)
        with contextlib.ExitStack() as undo:
            undo.callback(opening.log.close)
            store = ready_store(settings.store)
            undo.callback(store.close)
            catalog = _not_empty(settings, load(opening, store))
            gate = cls(
                _core(settings, catalog, opening.ring, opening),
                store,
                opening.log,
                opening,
                at_once=settings.at_once,
            )
            undo.pop_all()
        return gate

    @classmethod
    @taking(UnapprovedSettings)
    def open_unsafe_unapproved(cls, settings: UnapprovedSettings) -> Gate:
        """Open a gate over workflows whose signatures were not checked; warns at every start.

        Raises:
            ConfigError, KeyRefused, WorkflowError (roles.yaml), StoreUnavailable,
                AuditUnavailable: nothing is opened.
        """
        core = _unapproved(settings)  # which makes the key directory
        log = open_audit(settings.audit, settings.keys, settings.checkpoints)
        return cls(core, ready_store(settings.store), log, at_once=settings.at_once)

    def reload(self) -> None:
        """Load what is in force now: new versions, revocations, a new index. On an error what
        was in force stays until it ends.

        One at a time: what was read earlier never replaces what was read later.

        Raises:
            ConfigError: this gate was opened without approvals. Otherwise as `open`.
        """
        from agentgate.approvals.opening import load  # noqa: PLC0415 - as in `_opening`

        with self._one_reload:
            self._core.catalog.become(load(self._with_approvals(), self._store))

    open_run = blocking(_open_run, busy=busy)
    resume_run = blocking(_resume_run, busy=busy)
    close_conversation = blocking(_close_conversation)
    hold = blocking(holding.hold)
    holds = blocking(holding.holds)
    release = blocking(holding.release)
    refuse = blocking(holding.refuse)
    answer = blocking(holding.answer_)
    rotate_key = blocking(_rotate_key)
    release_key = blocking(_release_key)
    nonce = blocking(holding.nonce)
    reveal = blocking(holding.reveal)
    remembered = blocking(holding.remembered)
    forget = blocking(holding.forget_own)

    def verifier(self, audience: str, *, tenants: Names | list[str]) -> Verifier:
        """A verifier in this process that shares this gate's store, log and (rotating) keys."""
        return Verifier(self._trust(audience, tenants), self._store, self._audit, self._bound)

    def close(self) -> None:
        """Close the log, whose last checkpoint the store keeps, and the store."""
        drive(read_ends(self._core.queue), self._store, self._audit)
        self._core.close()
        self._bound.tell_rest(self._audit)
        self._audit.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncGate(_GateBase[AsyncStore, AsyncRun], AsyncRevoking):
    """`Gate`, awaited."""

    _run = AsyncRun

    @classmethod
    @taking(ApprovedSettings)
    async def open(cls, settings: ApprovedSettings) -> AsyncGate:
        """See `Gate.open`."""
        from agentgate.approvals.opening import aload  # noqa: PLC0415 - as in `_opening`

        opening = _opening(settings)
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(opening.log.close)
            store = await async_ready_store(settings.store)
            undo.push_async_callback(store.close)
            catalog = _not_empty(settings, await aload(opening, store))
            gate = cls(
                _core(settings, catalog, opening.ring, opening),
                store,
                opening.log,
                opening,
                at_once=settings.at_once,
            )
            undo.pop_all()
        return gate

    @classmethod
    @taking(UnapprovedSettings)
    async def open_unsafe_unapproved(cls, settings: UnapprovedSettings) -> AsyncGate:
        """See `Gate.open_unsafe_unapproved`."""
        core = _unapproved(settings)  # as above
        log = open_audit(settings.audit, settings.keys, settings.checkpoints)
        return cls(core, await async_ready_store(settings.store), log, at_once=settings.at_once)

    async def reload(self) -> None:
        """See `Gate.reload`."""
        from agentgate.approvals.opening import aload  # noqa: PLC0415 - as in `_opening`

        async with self._one_reload_awaited:
            self._core.catalog.become(await aload(self._with_approvals(), self._store))

    open_run = awaited(_open_run, busy=busy)
    resume_run = awaited(_resume_run, busy=busy)
    close_conversation = awaited(_close_conversation)
    hold = awaited(holding.hold)
    holds = awaited(holding.holds)
    release = awaited(holding.release)
    refuse = awaited(holding.refuse)
    answer = awaited(holding.answer_)
    rotate_key = awaited(_rotate_key)
    release_key = awaited(_release_key)
    nonce = awaited(holding.nonce)
    reveal = awaited(holding.reveal)
    remembered = awaited(holding.remembered)
    forget = awaited(holding.forget_own)

    def verifier(self, audience: str, *, tenants: Names | list[str]) -> AsyncVerifier:
        """See `Gate.verifier`."""
        return AsyncVerifier(
            self._trust(audience, tenants), self._store, self._audit, self._bound
        )

    async def close(self) -> None:
        """See `Gate.close`."""
        await asyncio.to_thread(self._core.close)
        self._bound.tell_rest(self._audit)
        await asyncio.to_thread(self._audit.close)
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
