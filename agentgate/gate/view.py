"""What a run's handle keeps: the state it last saw, and what does not change while the run
lives.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agentgate.decision.answer import Allow, Decision, Deny, StepUp
from agentgate.gate.core import Core
from agentgate.gate.state import after_call
from agentgate.gate.token_template import TokenTemplate, template_of
from agentgate.redemption.trust import Trust
from agentgate.redemption.upstream import Redemption
from agentgate.stores import ops
from agentgate.token.signing import RunKey
from agentgate.values.refusal import RunRefused
from agentgate.values.request import Call, RunState
from agentgate.workflow.model import Tool, Workflow

Settled = Decision | Redemption
_REMEMBERED = 32  # refused calls that a handle can still explain by their id


class WithCall(NamedTuple):
    """A run in which nothing but this call came after a state: how the store has it, and the
    run's revision with it.
    """

    state: RunState
    call: ops.CallRecord
    revision: str
    workflow: Workflow


Seen = RunState | WithCall


@dataclass(slots=True)
class View:
    """See the module. The state is good enough to allow, and for nothing else.

    Attributes:
        seen: the run as it was seen last; what its last call left is put together when it is
            asked for (`state`).
        behind: a token was issued since it was read.
        certificate: thumbprint of the certificate by which the agent that asks proved itself;
            empty: by other means. Where it shows no key of its own, its tokens are bound to it
            (RFC 8705 section 3).
        refused: the newest refused or held calls, by `tool_call_id`.
        unspent: call digest -> its last token (`jti`), of calls that only this handle redeems
            and has not.
    """

    core: Core
    seen: Seen
    behind: bool = False
    refused: dict[str, tuple[Call, Deny | StepUp]] = field(default_factory=dict)
    unspent: dict[str, str] = field(default_factory=dict)
    certificate: str = ""
    _key: RunKey | None = None
    _templates: dict[str, TokenTemplate] = field(default_factory=dict)

    @property
    def state(self) -> RunState:
        """The run as it was seen last."""
        seen = self.seen
        if isinstance(seen, WithCall):  # only where another call comes
            seen = self.seen = after_call(*seen, self.core.readings)
        return seen

    @property
    def key(self) -> RunKey:
        """The run's key, derived on first use and never stored."""
        if self._key is None:
            self._key = self.core.keys.run_key(self.state.header.tenant, self.state.header.id)
        return self._key

    @property
    def workflow(self) -> Workflow:
        """What the run's calls are minted by; where nothing is known of that, the workflow in
        force under its id.
        """
        versions = self.core.in_force.known(self.state.header)
        return (
            self.core.workflow(self.state.header.workflow)
            if versions is None
            else versions.minted
        )

    def tool(self, name: str) -> Tool | None:
        """One of that workflow's tools; None: it has none of this name, or nothing is in
        force.
        """
        with suppress(RunRefused):
            return self.workflow.tools.get(name) if type(name) is str else None
        return None

    def template(self, state: RunState, workflow: Workflow, tool: Tool) -> TokenTemplate:
        """What all calls of the run to this tool share."""
        return template_of(self._templates, self.core.issuer, state.header, workflow, tool)

    def trust(self, tool: Tool) -> Trust:
        """What this gate itself believes when it redeems for one of the run's tools (`redeem:
        wrapper`).
        """
        return self.core.trust(tool.audience or self.core.issuer, (self.state.header.tenant,))

    def follow(
        self,
        call: ops.CallRecord,
        workflow: Workflow,
        reply: ops.OutcomeReply,
        outcome: ops.Outcome,
        facts: bytes,
    ) -> None:
        """Take how a call of this handle ended; where anything else happened meanwhile, the run
        is read again before the next.
        """
        seen = self.seen
        if not (isinstance(seen, WithCall) and seen.call is call):
            seen = self.state
        if seen.revision == f"{reply.before}.{call.gen}":
            state = seen.state if isinstance(seen, WithCall) else seen
            ended = replace(call, outcome=outcome, facts=facts or None)
            self.seen = WithCall(state, ended, f"{reply.after}.{call.gen}", workflow)
        else:
            self.behind = True

    def take(self, call: Call | Deny, decision: Settled, seen: Seen) -> Settled:
        """Keep the freshest state, and a call that was refused or held; returns the
        decision.
        """
        against = decision if isinstance(decision, Deny | StepUp) else None
        self.seen = seen
        self.behind = isinstance(decision, Allow)
        if isinstance(call, Call) and against is not None:
            self.refused.pop(call.id, None)
            self.refused[call.id] = (call, against)
            if len(self.refused) > _REMEMBERED:
                del self.refused[next(iter(self.refused))]
        return decision
