"""A run's handle: what a host authorises calls with. Thin shells over `agentgate.flow`; the run itself lives in the store.

Rules: a handle keeps the state it last saw, which is good enough to allow and nothing else; the run's key is derived on first
use and never stored; only tools that say `redeem: wrapper` are redeemed here.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agentgate import flow
from agentgate.audit import AuditLog
from agentgate.core import Core
from agentgate.decision import Allow, Decision, Deny, Failure, Reason
from agentgate.dpop import DPoP
from agentgate.drive import adrive, drive
from agentgate.errors import ConfigError, Refusal, TokenRefused
from agentgate.flow import Attempt
from agentgate.keys import RunKey
from agentgate.mint import CallToken
from agentgate.request import Derived, Header, RunState
from agentgate.steps import Flow
from agentgate.verifier import AsyncRedeemedCall, RedeemedCall, Trust, redeem
from agentgate.workflow import Tool, Workflow

Redeemed = TypeVar("Redeemed", RedeemedCall, AsyncRedeemedCall)


@dataclass(slots=True)
class View:
    """A run's handle: the state last seen and the run's key (derived on first use, never stored)."""

    core: Core
    state: RunState
    key_: RunKey | None = None
    behind: bool = False  # a token was handed out since `state` was read
    trusts: dict[str, Trust] = field(default_factory=dict)

    @property
    def key(self) -> RunKey:
        """The run's key."""
        if self.key_ is None:
            self.key_ = self.core.keys.run_key(self.state.header.tenant, self.state.header.id)
        return self.key_

    def trust(self, tool: Tool) -> Trust:
        """What this gate itself believes when it redeems for one of the run's tools (`redeem: wrapper`)."""
        audience = self.core.audience(tool)
        if audience not in self.trusts:  # a Trust keeps its parsed keys
            self.trusts[audience] = Trust(self._jwks, self.core.issuer, (self.state.header.tenant,), audience)
        return self.trusts[audience]

    def taken(self, attempt: Attempt) -> Decision:
        """Keep the freshest state, and hand out the decision."""
        self.state, self.behind = attempt.state, isinstance(attempt.decision, Allow)
        return attempt.decision or Deny((Failure(Reason.STORE, "decision", "none", "a decision"),))

    def _jwks(self) -> Mapping[str, Any]:
        return self.core.keys.jwks(time.time())

    @property
    def workflow(self) -> Workflow:
        """The workflow in force under the run's id."""
        return self.core.workflow(self.state.header.workflow)


class _RunBase:
    """What both runs show."""

    def __init__(self, view: View, store: Any, audit: AuditLog) -> None:
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
