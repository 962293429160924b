"""The gate: opens runs, authorises calls, lets people answer holds. Thin shells over `agentgate.flow`.

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

from agentgate import flow, holding
from agentgate.audit import AuditLog, open_audit
from agentgate.catalog import Catalog
from agentgate.core import Core
from agentgate.core import read as read_run
from agentgate.drive import adrive, drive
from agentgate.errors import ConfigError
from agentgate.hold import Hold
from agentgate.intents import Deriver
from agentgate.intents.lexical import derive
from agentgate.jws import Alg
from agentgate.keys import KeyRing
from agentgate.request import Agent, User
from agentgate.run import AsyncRun, Run, View
from agentgate.stores import AsyncStore, Store, async_ready_store, ready_store
from agentgate.verifier import AsyncVerifier, Trust, Verifier

_log = structlog.get_logger("agentgate.gate")
Directory = str | os.PathLike[str]


def _now() -> datetime:
    return datetime.now(UTC)


def _core(
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
    url = urlsplit(issuer) if type(issuer) is str else urlsplit("")
    safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in {"127.0.0.1", "localhost", "::1"})
    if not safe or not url.hostname or url.query or url.fragment or url.username is not None:
        raise ConfigError("issuer", issuer, "an https URL without query or fragment (RFC 8414 section 2; http only on loopback)")
    if keys is None and log.durable:
        raise ConfigError("keys", keys, "a directory for the signing keys (left out only with audit='memory://')")
    catalog = Catalog.load(Path(workflows), deriver)
    for file, error in catalog.quarantined.items():
        _log.error("workflow_quarantined", file=str(file), problems=[str(p) for p in error.problems])
    if not catalog:
        raise ConfigError(
            "workflows", str(workflows), "a directory with at least one workflow that loads (agentgate workflow lint says what is wrong)"
        )
    for observed in (w for w in catalog if w.observe):  # only a signed workflow may observe, and nothing is signed here
        _log.warning("observe_ignored", workflow=observed.id, message="mode: observe needs approvals; this workflow is enforced")
    ring = KeyRing.ephemeral(alg) if keys is None else KeyRing.open(keys, alg)
    _log.warning(
        "unsafe_unapproved",
        message="workflows are enforced as they lie in the directory; nobody's signature was checked",
        workflows=str(workflows),
    )
    return Core(catalog, ring, issuer, deriver, clock or _now, environment, brokers)


class _GateBase:
    """What both gates are made of."""

    def __init__(self, core: Core, store: Any, audit: AuditLog) -> None:
        self._core, self._store, self._audit = core, store, audit

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
        core = _core(
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
        core = _core(
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
