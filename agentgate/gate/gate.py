"""The gate: opens runs, authorises calls, lets people answer holds. Thin shells over `agentgate.gate.flow`.

Rules: no setting turns a check off. What is unsafe says so in its name and warns at every start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import structlog

from agentgate.approvals.opening import Opening, aload, load, report
from agentgate.audit import AuditLog, open_audit
from agentgate.decision.hold import Hold
from agentgate.errors import AgentGateError, ConfigError
from agentgate.gate import flow
from agentgate.gate import release as holding
from agentgate.gate.core import Core
from agentgate.gate.core import read as read_run
from agentgate.gate.run import AsyncRun, Run, View
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.redemption.verifier import AsyncVerifier, Trust, Verifier
from agentgate.shell.drive import adrive, drive
from agentgate.stores import AsyncStore, Store, async_ready_store, ready_store
from agentgate.token.jws import Alg
from agentgate.token.keys import KeyRing
from agentgate.values.request import Agent, User

_log = structlog.get_logger("agentgate.gate.gate")
Directory = str | os.PathLike[str]


def _now() -> datetime:
    return datetime.now(UTC)


def _check_issuer(issuer: str) -> None:
    url = urlsplit(issuer) if type(issuer) is str else urlsplit("")
    safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in {"127.0.0.1", "localhost", "::1"})
    if not safe or not url.hostname or url.query or url.fragment or url.username is not None:
        raise ConfigError("issuer", issuer, "an https URL without query or fragment (RFC 8414 section 2; http only on loopback)")


def _unapproved(
    workflows: Directory,
    log: AuditLog,
    *,
    issuer: str,
    keys: Directory | None,
    environment: str | None,
    clock: Callable[[], datetime] | None,
    alg: Alg,
    brokers: frozenset[str],
    deriver: Deriver,
) -> Core:
    """A core over workflows as they lie there."""
    _check_issuer(issuer)
    if keys is None and log.durable:
        raise ConfigError("keys", keys, "a directory for the signing keys (left out only with audit='memory://')")
    catalog = Catalog.load(Path(workflows), deriver)
    report(catalog)
    _not_empty(catalog, workflows)
    ring = KeyRing.ephemeral(alg) if keys is None else KeyRing.open(keys, alg)
    _log.warning(
        "unsafe_unapproved",
        message="workflows are enforced as they lie in the directory; nobody's signature was checked",
        workflows=str(workflows),
    )
    return Core(catalog, ring, issuer, deriver, clock or _now, environment, brokers)


def _not_empty(catalog: Catalog, workflows: Directory) -> Catalog:
    if not catalog:
        expected = "a directory with at least one workflow that loads (agentgate workflow lint and status say what is wrong)"
        raise ConfigError("workflows", str(workflows), expected)
    return catalog


def _opening(workflows: Directory, root: str, *, issuer: str, keys: Directory, audit: str, alg: Alg, deriver: Deriver) -> Opening:
    _check_issuer(issuer)
    unkept = {"keys": keys, "audit": None if audit == "memory://" else audit}
    for name, got in unkept.items():
        if got is None:
            raise ConfigError(name, audit if name == "audit" else got, "a directory (only Gate.open_unsafe_unapproved keeps it in memory)")
    return Opening(Path(workflows), root, gate=issuer, ring=KeyRing.open(keys, alg), kept=Path(keys), log=open_audit(audit), derive=deriver)


def _with_approvals(opening: Opening | None) -> Opening:
    if opening is None:
        raise ConfigError("root", None, "a gate opened with Gate.open (one without approvals is closed and opened again)")
    return opening


class _GateBase:
    """What both gates are made of."""

    def __init__(self, core: Core, store: Any, audit: AuditLog, opening: Opening | None = None) -> None:
        self._core, self._store, self._audit, self._opening = core, store, audit, opening

    @property
    def issuer(self) -> str:
        """This gate's URL."""
        return self._core.issuer

    @property
    def catalog(self) -> Catalog:
        """The loaded workflows and the quarantined files."""
        return self._core.catalog

    def jwks(self) -> dict[str, Any]:
        """The public key set (RFC 7517) for verifiers."""
        return dict(self._core.keys.jwks(_now().timestamp()))

    def _trust(self, audience: str, tenants: tuple[str, ...] | list[str]) -> Trust:
        if not audience or not tenants:
            raise ConfigError("audience" if not audience else "tenants", audience or tenants, "exact names")
        return Trust(self.jwks, self._core.issuer, tuple(tenants), audience)


class Gate(_GateBase):
    """A gate for blocking code; see `AsyncGate` for its awaited twin."""

    _store: Store

    @classmethod
    def open(
        cls,
        workflows: Directory,
        *,
        root: str,
        issuer: str,
        keys: Directory,
        audit: str,
        store: str = "memory://",
        environment: str | None = None,
        clock: Callable[[], datetime] | None = None,
        alg: Alg = "ES256",
        brokers: frozenset[str] = frozenset(),
        deriver: Deriver = derive,
    ) -> Gate:
        """Open a gate over what reviewers approved: every workflow's newest version whose signatures reach the root's threshold.

        A workflow that is refused is logged by the name of its refusal and stops no other; an approved older version of it
        that may still run does. Opened again (or `reload`), nothing older than before comes back.

        Args:
            workflows: directory of workflow files, with ``approvals/``.
            root: digest of the root of approvals, from your settings and not from that directory.
            issuer: this gate's URL, the `iss` of its tokens.
            keys: directory of the signing keys, created if absent; also keeps which versions were in force.
            audit: directory of the audit log.
            store: memory:// (one process), embedded:///path, redis://, rediss://, unix://.
            environment: where this gate runs, for `conditions.environment`.
            clock: the decision clock, as in `open_unsafe_unapproved`; approvals end by the real one.
            alg: ES256 or EdDSA.
            brokers: names of the upstream brokers that are configured.
            deriver: derives intents from the user's turns.

        Raises:
            ApprovalRefused: root, allowed_signers, index or revocations are bad, absent or old; nothing is opened.
            ConfigError, KeyRefused, WorkflowError (roles.yaml), StoreUnavailable, AuditUnavailable: nothing is opened.
        """
        opening = _opening(workflows, root, issuer=issuer, keys=keys, audit=audit, alg=alg, deriver=deriver)
        try:
            opened = ready_store(store)
        except AgentGateError:
            opening.log.close()
            raise
        try:
            catalog = _not_empty(load(opening, opened), workflows)
            return cls(Core(catalog, opening.ring, issuer, deriver, clock or _now, environment, brokers), opened, opening.log, opening)
        except AgentGateError:
            opened.close()
            opening.log.close()
            raise

    def reload(self) -> None:
        """Load what is in force now: new versions, revocations, a new index. On an error what was in force stays until it ends.

        Raises:
            ConfigError: this gate was opened without approvals. Otherwise as `open`.
        """
        self._core.catalog.become(load(_with_approvals(self._opening), self._store))

    @classmethod
    def open_unsafe_unapproved(
        cls,
        workflows: Directory,
        *,
        issuer: str,
        audit: str,
        keys: Directory | None = None,
        store: str = "memory://",
        environment: str | None = None,
        clock: Callable[[], datetime] | None = None,
        alg: Alg = "ES256",
        brokers: frozenset[str] = frozenset(),
        deriver: Deriver = derive,
    ) -> Gate:
        """Open a gate over workflows that nobody's signature was checked for; warns at every start.

        Args:
            workflows: directory of workflow files (and roles.yaml).
            issuer: this gate's URL, the `iss` of its tokens.
            audit: directory of the audit log; memory:// keeps it in this process only, and only an unsafe opening takes it.
            keys: directory of the signing keys, created if absent; None: keys that end with the process (only with memory audit).
            store: memory:// (one process), embedded:///path, redis://, rediss://, unix://.
            environment: where this gate runs, for `conditions.environment`.
            clock: the decision clock (aware datetimes), for demos, tests and replays; token times are always real.
            alg: ES256 or EdDSA.
            brokers: names of the upstream brokers that are configured.
            deriver: derives intents from the user's turns.

        Raises:
            ConfigError, KeyRefused, WorkflowError (roles.yaml), StoreUnavailable, AuditUnavailable: nothing is opened.
        """
        log = open_audit(audit)
        core = _unapproved(
            workflows, log, issuer=issuer, keys=keys, environment=environment, clock=clock, alg=alg, brokers=brokers, deriver=deriver
        )
        return cls(core, ready_store(store), log)

    def open_run(self, workflow: str, *, tenant: str, user: User | None, agent: Agent, prompt: str, ttl: int = 3600) -> Run:
        """Open a run and freeze tenant, user, agent and workflow version.

        Args:
            workflow: id of a loaded workflow.
            tenant: exact tenant.
            user: the person worked for; None where the workflow is for an autonomous workload.
            agent: the workload.
            prompt: the user's own words.
            ttl: the run's life in seconds.

        Raises:
            RunRefused: with every failing reason. StoreUnavailable, AuditUnavailable: not opened.
        """
        state = drive(
            flow.open_run(self._core, workflow, tenant=tenant, user=user, agent=agent, prompt=prompt, ttl=ttl), self._store, self._audit
        )
        return Run(View(self._core, state), self._store, self._audit)

    def resume_run(self, tenant: str, run: str) -> Run:
        """Go on with a run that this or another gate opened.

        Raises:
            RunRefused: missing or unreadable. StoreUnavailable.
        """
        return Run(View(self._core, drive(read_run(self._core, tenant, run), self._store, self._audit)), self._store, self._audit)

    def release(self, hold: Hold, *, by: User) -> Hold:
        """A person's yes to one held call; usable once, by that call only.

        Raises:
            RunRefused: this person may not, or the hold is missing, expired or answered. StoreUnavailable, AuditUnavailable.
        """
        answered: Hold = drive(holding.answer(self._core, hold.tenant, hold.id, by, release=True), self._store, self._audit)
        return answered

    def refuse(self, hold: Hold, *, by: User) -> Hold:
        """A person's no to one held call. Raises as `release`."""
        answered: Hold = drive(holding.answer(self._core, hold.tenant, hold.id, by, release=False), self._store, self._audit)
        return answered

    def verifier(self, audience: str, *, tenants: tuple[str, ...] | list[str]) -> Verifier:
        """A verifier in this process that shares this gate's store, log and (rotating) keys."""
        return Verifier(self._trust(audience, tenants), self._store, self._audit)

    def close(self) -> None:
        """Give up the store and end the log."""
        self._store.close()
        self._audit.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncGate(_GateBase):
    """`Gate`, awaited."""

    _store: AsyncStore

    @classmethod
    async def open(
        cls,
        workflows: Directory,
        *,
        root: str,
        issuer: str,
        keys: Directory,
        audit: str,
        store: str = "memory://",
        environment: str | None = None,
        clock: Callable[[], datetime] | None = None,
        alg: Alg = "ES256",
        brokers: frozenset[str] = frozenset(),
        deriver: Deriver = derive,
    ) -> AsyncGate:
        """See `Gate.open`."""
        opening = _opening(workflows, root, issuer=issuer, keys=keys, audit=audit, alg=alg, deriver=deriver)
        try:
            opened = await async_ready_store(store)
        except AgentGateError:
            opening.log.close()
            raise
        try:
            catalog = _not_empty(await aload(opening, opened), workflows)
            return cls(Core(catalog, opening.ring, issuer, deriver, clock or _now, environment, brokers), opened, opening.log, opening)
        except AgentGateError:
            await opened.close()
            opening.log.close()
            raise

    async def reload(self) -> None:
        """See `Gate.reload`."""
        self._core.catalog.become(await aload(_with_approvals(self._opening), self._store))

    @classmethod
    async def open_unsafe_unapproved(
        cls,
        workflows: Directory,
        *,
        issuer: str,
        audit: str,
        keys: Directory | None = None,
        store: str = "memory://",
        environment: str | None = None,
        clock: Callable[[], datetime] | None = None,
        alg: Alg = "ES256",
        brokers: frozenset[str] = frozenset(),
        deriver: Deriver = derive,
    ) -> AsyncGate:
        """See `Gate.open_unsafe_unapproved`."""
        log = open_audit(audit)
        core = _unapproved(
            workflows, log, issuer=issuer, keys=keys, environment=environment, clock=clock, alg=alg, brokers=brokers, deriver=deriver
        )
        return cls(core, await async_ready_store(store), log)

    async def open_run(self, workflow: str, *, tenant: str, user: User | None, agent: Agent, prompt: str, ttl: int = 3600) -> AsyncRun:
        """See `Gate.open_run`."""
        state = await adrive(
            flow.open_run(self._core, workflow, tenant=tenant, user=user, agent=agent, prompt=prompt, ttl=ttl), self._store, self._audit
        )
        return AsyncRun(View(self._core, state), self._store, self._audit)

    async def resume_run(self, tenant: str, run: str) -> AsyncRun:
        """See `Gate.resume_run`."""
        return AsyncRun(
            View(self._core, await adrive(read_run(self._core, tenant, run), self._store, self._audit)), self._store, self._audit
        )

    async def release(self, hold: Hold, *, by: User) -> Hold:
        """See `Gate.release`."""
        answered: Hold = await adrive(holding.answer(self._core, hold.tenant, hold.id, by, release=True), self._store, self._audit)
        return answered

    async def refuse(self, hold: Hold, *, by: User) -> Hold:
        """See `Gate.refuse`."""
        answered: Hold = await adrive(holding.answer(self._core, hold.tenant, hold.id, by, release=False), self._store, self._audit)
        return answered

    def verifier(self, audience: str, *, tenants: tuple[str, ...] | list[str]) -> AsyncVerifier:
        """See `Gate.verifier`."""
        return AsyncVerifier(self._trust(audience, tenants), self._store, self._audit)

    async def close(self) -> None:
        """See `Gate.close`."""
        await self._store.close()
        self._audit.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
