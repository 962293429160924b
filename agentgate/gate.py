"""The gate: opens runs, authorises calls, lets people answer holds. Thin shells over `agentgate.flow`.

Rules: no setting turns a check off. What is unsafe says so in its name and warns at every start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import structlog

from agentgate import flow, holding
from agentgate.audit import AuditLog, open_audit
from agentgate.catalog import Catalog
from agentgate.core import Core
from agentgate.core import read as read_run
from agentgate.decision import Allow, Decision, Deny, Failure, Reason
from agentgate.dpop import DPoP
from agentgate.drive import adrive, drive
from agentgate.errors import ConfigError, Refusal, TokenRefused
from agentgate.flow import Attempt
from agentgate.hold import Hold
from agentgate.intents import Deriver
from agentgate.intents.lexical import derive
from agentgate.jws import Alg
from agentgate.keys import KeyRing, RunKey
from agentgate.mint import CallToken
from agentgate.request import Agent, Derived, Header, RunState, User
from agentgate.steps import Flow
from agentgate.stores import AsyncStore, Store, async_ready_store, ready_store
from agentgate.verifier import AsyncRedeemedCall, AsyncVerifier, RedeemedCall, Trust, Verifier, redeem
from agentgate.workflow import Tool, Workflow

_log = structlog.get_logger("agentgate.gate")
Redeemed = TypeVar("Redeemed", RedeemedCall, AsyncRedeemedCall)
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


@dataclass(slots=True)
class _View:
    """A run's handle: the state last seen and the run's key (derived on first use, never stored)."""

    core: Core
    state: RunState
    key_: RunKey | None = None
    behind: bool = False  # a token was handed out since `state` was read

    @property
    def key(self) -> RunKey:
        if self.key_ is None:
            self.key_ = self.core.keys.run_key(self.state.header.tenant, self.state.header.id)
        return self.key_

    def trust(self, tool: Tool) -> Trust:
        """What this gate itself believes when it redeems for one of the run's tools (`redeem: wrapper`)."""
        return Trust(self._jwks, self.core.issuer, (self.state.header.tenant,), self.core.audience(tool))

    def taken(self, attempt: Attempt) -> Decision:
        """Keep the freshest state, and hand out the decision."""
        self.state, self.behind = attempt.state, isinstance(attempt.decision, Allow)
        return attempt.decision or Deny((Failure(Reason.STORE, "decision", "none", "a decision"),))

    def _jwks(self) -> Mapping[str, Any]:
        return self.core.keys.jwks(_now().timestamp())

    @property
    def workflow(self) -> Workflow:
        return self.core.workflow(self.state.header.workflow)


class _RunBase:
    """What both runs show."""

    def __init__(self, view: _View, store: Any, audit: AuditLog) -> None:
        self._view, self._store, self._audit = view, store, audit
        self._calls: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """The run's id."""
        return self._view.state.header.id

    @property
    def tenant(self) -> str:
        """The run's tenant."""
        return self._view.state.header.tenant

    @property
    def header(self) -> Header:
        """Whose run it is: tenant, user, agent and workflow version, as frozen when it was opened."""
        return self._view.state.header

    @property
    def intents(self) -> Mapping[str, Derived]:
        """What was derived from the user's turns, with the evidence."""
        return self._view.state.intents

    @property
    def workflow(self) -> Workflow:
        """The workflow in force."""
        return self._view.workflow

    def _flow(self, tool: str, args: Mapping[str, Any], tool_call_id: str | None, definition: str) -> Flow:
        call = flow.checked_call(tool, args, "call_" + secrets.token_urlsafe(12) if tool_call_id is None else tool_call_id, definition)
        if isinstance(call, Deny):
            return flow.unreadable(self._view.state, call)
        view = self._view
        return flow.authorize(view.core, view.state, call, lambda: view.key, behind=view.behind)

    def _redeem(self, token: CallToken, tool: str, args: Mapping[str, Any]) -> Flow:
        if type(token) is not CallToken:
            raise TokenRefused(Refusal.NO_CREDENTIAL, "token", type(token).__name__, "the token of an Allow")
        rule = self.workflow.tools.get(tool) if type(tool) is str else None
        if rule is None or rule.redeem != "wrapper":  # else the agent's process could report what a server's tool returned
            raise TokenRefused(
                Refusal.TOOL, "tool", str(tool)[:120] if type(tool) is str else "no text", "a tool whose workflow says redeem: wrapper"
            )
        trust = self._view.trust(rule)
        headers = token.headers("POST", trust.audience)
        proof = DPoP(headers["DPoP"], method="POST", url=trust.audience) if "DPoP" in headers else None
        return redeem(trust, token.reveal(), tool, args, proof)

    def _keep(self, done: Redeemed) -> Redeemed:
        """Remember a redeemed call for `record_result`, until it ended; of two calls under one id neither, or one would get the other's."""
        name = done.claims.tool_call_id
        self._calls = {known: call for known, call in self._calls.items() if call is None or not call.ended}
        self._calls[name] = None if name in self._calls else done
        return done

    def _kept(self, tool_call_id: str) -> Any:
        found = self._calls.get(tool_call_id) if type(tool_call_id) is str else None
        if found is None:
            raise ConfigError("tool_call_id", type(tool_call_id).__name__, "the id of exactly one call that this run redeemed")
        return self._calls.pop(tool_call_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self._view.state.header.workflow}>"


class Run(_RunBase):
    """One piece of work for one user under one workflow, opened by the trusted host."""

    def authorize(self, tool: str, args: Mapping[str, Any], *, tool_call_id: str | None = None, definition: str = "") -> Decision:
        """Decide one call; mint its token only if everything holds.

        Args:
            tool: exact tool name.
            args: the arguments (JSON values).
            tool_call_id: the runtime's id. The same id with the same arguments is the same call; left out, always a new one.
            definition: ``sha256:...`` of the tool's definition, as the integration read it from the tool.

        Returns:
            `Allow`, `StepUp` or `Deny`; refusals are values.
        """
        return self._view.taken(drive(self._flow(tool, args, tool_call_id, definition), self._store, self._audit))

    def add_turn(self, text: str) -> None:
        """Add the user's next words; intents are derived again, and a negated one is withdrawn.

        Raises:
            RunRefused: the run is missing or closed. StoreUnavailable, AuditUnavailable: not added.
        """
        self._view.state = drive(flow.change(self._view.core, self._view.state, text), self._store, self._audit)

    def close(self) -> None:
        """End the run; nothing is minted in it any more."""
        self._view.state = drive(flow.change(self._view.core, self._view.state, "", closing=True), self._store, self._audit)

    def redeem(self, token: CallToken, *, tool: str, args: Mapping[str, Any]) -> RedeemedCall:
        """Redeem in the agent's process, for a tool with ``redeem: wrapper``.

        Raises:
            TokenRefused: and nothing else.
        """
        done = RedeemedCall(drive(self._redeem(token, tool, args), self._store, self._audit), self._store, self._audit)
        return self._keep(done)

    def record_result(self, tool_call_id: str, result: Any) -> None:
        """Record the declared facts of a call this run redeemed itself (integrations do this).

        Raises:
            ConfigError: no such redeemed call here.
        """
        self._kept(tool_call_id).record_result(result)


class AsyncRun(_RunBase):
    """`Run`, awaited."""

    async def authorize(self, tool: str, args: Mapping[str, Any], *, tool_call_id: str | None = None, definition: str = "") -> Decision:
        """See `Run.authorize`."""
        return self._view.taken(await adrive(self._flow(tool, args, tool_call_id, definition), self._store, self._audit))

    async def add_turn(self, text: str) -> None:
        """See `Run.add_turn`."""
        self._view.state = await adrive(flow.change(self._view.core, self._view.state, text), self._store, self._audit)

    async def close(self) -> None:
        """See `Run.close`."""
        self._view.state = await adrive(flow.change(self._view.core, self._view.state, "", closing=True), self._store, self._audit)

    async def redeem(self, token: CallToken, *, tool: str, args: Mapping[str, Any]) -> AsyncRedeemedCall:
        """See `Run.redeem`."""
        done = AsyncRedeemedCall(await adrive(self._redeem(token, tool, args), self._store, self._audit), self._store, self._audit)
        return self._keep(done)

    async def record_result(self, tool_call_id: str, result: Any) -> None:
        """See `Run.record_result`."""
        await self._kept(tool_call_id).record_result(result)


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
        return Run(_View(self._core, state), self._store, self._audit)

    def resume_run(self, tenant: str, run: str) -> Run:
        """Go on with a run that this or another gate opened.

        Raises:
            RunRefused: missing or unreadable. StoreUnavailable.
        """
        return Run(_View(self._core, drive(read_run(self._core, tenant, run), self._store, self._audit)), self._store, self._audit)

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
        return AsyncRun(_View(self._core, state), self._store, self._audit)

    async def resume_run(self, tenant: str, run: str) -> AsyncRun:
        """See `Gate.resume_run`."""
        return AsyncRun(
            _View(self._core, await adrive(read_run(self._core, tenant, run), self._store, self._audit)), self._store, self._audit
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
