"""A run's handle: what a host authorises calls with. Thin shells over `agentgate.gate.flow`; the run itself lives in the store.

Rules: a handle keeps the state it last saw, which is good enough to allow and nothing else; the run's key is derived on first
use and never stored; only tools that say `redeem: wrapper` are redeemed here.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agentgate.audit import AuditLog
from agentgate.decision.answer import (
    Allow,
    Decision,
    Deny,
    StepUp,
)
from agentgate.errors import ConfigError, Refusal, TokenRefused
from agentgate.explain.explanation import Explanation
from agentgate.explain.verdicts import LATER, explain
from agentgate.gate import flow
from agentgate.gate.core import Core, read
from agentgate.gate.flow import Attempt
from agentgate.redemption.verifier import AsyncRedeemedCall, RedeemedCall, Trust, redeem
from agentgate.shell.drive import adrive, drive
from agentgate.shell.step import Flow
from agentgate.token.dpop import DPoP
from agentgate.token.mint import CallToken
from agentgate.token.signing import RunKey
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Call, Derived, Header, RunState
from agentgate.workflow.model import Tool, Workflow

Redeemed = TypeVar("Redeemed", RedeemedCall, AsyncRedeemedCall)
_REMEMBERED = 32  # refused calls that a handle can still explain by their id


@dataclass(slots=True)
class View:
    """A run's handle: the state last seen and the run's key (derived on first use, never stored)."""

    core: Core
    state: RunState
    key_: RunKey | None = None
    behind: bool = False  # a token was handed out since `state` was read
    trusts: dict[str, Trust] = field(default_factory=dict)
    refused: dict[str, tuple[Call, Deny | StepUp]] = field(default_factory=dict)  # the newest, by tool_call_id

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

    def taken(self, call: Call | Deny, attempt: Attempt) -> Decision:
        """Keep the freshest state, and what was refused, and hand out the decision."""
        self.state, self.behind = attempt.state, isinstance(attempt.decision, Allow)
        decision = attempt.decision or Deny((Failure(Reason.STORE, "decision", "none", "a decision"),))
        if not isinstance(call, Deny) and not isinstance(decision, Allow):
            self.refused.pop(call.id, None)
            self.refused[call.id] = (call, decision)
            if len(self.refused) > _REMEMBERED:
                del self.refused[next(iter(self.refused))]
        return decision

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

    def refusal(self, tool_call_id: str) -> Deny | StepUp | None:
        """Why this handle last refused or held a call, with every failure; for the host, never for a model. None: it did not, lately."""
        found = self._view.refused.get(tool_call_id)
        return None if found is None else found[1]

    def _call(self, tool: str, args: Mapping[str, Any], tool_call_id: str | None, definition: str) -> Call | Deny:
        return flow.checked_call(tool, args, "call_" + secrets.token_urlsafe(12) if tool_call_id is None else tool_call_id, definition)

    def _flow(self, call: Call | Deny) -> Flow:
        if isinstance(call, Deny):
            return flow.unreadable(self._view.state, call)
        view = self._view
        return flow.authorize(view.core, view.state, call, lambda: view.key, behind=view.behind)

    def _explain(self, tool: str, args: Mapping[str, Any] | None, tool_call_id: str | None, definition: str) -> Flow:
        """The explanation of a call on the run as it is now; nothing is minted and nothing recorded."""
        call, later = self._asked(tool, args, tool_call_id, definition)
        view, header = self._view, self._view.state.header
        state: RunState = yield from read(view.core, header.tenant, header.id, view.state)
        found = explain(view.workflow, state, call, view.core.around(), later)
        known = view.refused.get(call.id)
        if known is not None and known[0] == call and isinstance(known[1], StepUp):
            hold = known[1].hold
            found = replace(found, notes=(f"hold {hold.id} for {', '.join(hold.rules)}, open until {hold.expires_at:.0f} (POSIX seconds)",))
        return found

    def _asked(
        self, tool: str, args: Mapping[str, Any] | None, tool_call_id: str | None, definition: str
    ) -> tuple[Call, tuple[Failure, ...]]:
        """The call to explain, and what the store, a person or the gate said of it when it was refused here."""
        known = self._view.refused.get(tool_call_id) if tool_call_id is not None else None
        if args is None:
            if known is None or tool not in {"", known[0].tool}:
                raise ConfigError("tool_call_id", tool_call_id, "the id of a call this handle refused lately; else give tool and args")
            call = known[0]
        else:
            made = self._call(tool, args, tool_call_id or "explained", definition)
            if isinstance(made, Deny):
                return Call("(unreadable)", "(unreadable)", b"{}", {}), made.failures
            call = made
        if known is None or known[0] != call:
            return call, ()
        return call, tuple(f for f in known[1].failures if f.reason in LATER and (f.reason is not Reason.LIMIT or f.field == "limits"))

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
        call = self._call(tool, args, tool_call_id, definition)
        return self._view.taken(call, drive(self._flow(call), self._store, self._audit))

    def explain(
        self, tool: str = "", args: Mapping[str, Any] | None = None, *, tool_call_id: str | None = None, definition: str = ""
    ) -> Explanation:
        """Why a call is allowed, held or refused: every condition, the origin of each value, what would pass. Decides and mints nothing.

        For developers and operators: an explanation teaches where the edges are, so nothing of it belongs in front of a model. What is
        sensitive is masked.

        Args:
            tool: exact tool name; with `args`, a call to look at.
            args: its arguments; left out: those of the call that was refused or held under `tool_call_id` by this handle.
            tool_call_id: the runtime's id.
            definition: as for `authorize`.

        Raises:
            ConfigError: no such call is known here. RunRefused: the run is gone. StoreUnavailable.
        """
        found: Explanation = drive(self._explain(tool, args, tool_call_id, definition), self._store, self._audit)
        return found

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
        call = self._call(tool, args, tool_call_id, definition)
        return self._view.taken(call, await adrive(self._flow(call), self._store, self._audit))

    async def explain(
        self, tool: str = "", args: Mapping[str, Any] | None = None, *, tool_call_id: str | None = None, definition: str = ""
    ) -> Explanation:
        """See `Run.explain`."""
        found: Explanation = await adrive(self._explain(tool, args, tool_call_id, definition), self._store, self._audit)
        return found

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
