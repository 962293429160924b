"""A hold: one exact call that waits for a person; its transitions, and who may answer it.

    waiting --release (enough approvers)--> released --mint--> consumed
    waiting --refuse--> refused             waiting/released --timeout--> expired
    waiting/released, or consumed by a call that did not run --the user takes back, or the run is closed--> cancelled

Rules: a release covers one call digest and the rules it showed, once, before its timeout. The requester and the agent never release,
under no spelling of their id (`agentgate.values.identities`). Every rule that fires at mint must be covered by approvers who are eligible
under it at that moment.
Pure values: the store keeps the state, the mint script consumes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentgate.values.identities import person
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Agent, User
from agentgate.workflow.model import StepUpRule

State = Literal["waiting", "released", "refused", "expired", "consumed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Approver:
    """Who said yes, as known at that moment."""

    id: str
    tenant: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """A call waiting for a person.

    Attributes:
        id: the call digest it is for (64 hex): one hold per exact call.
        rules: ids of the step-up rules that fired.
        shown: the argument values the rules say to show (`sensitive` ones masked).
        why: the failures because of which a person is asked, as text.
        expires_at: POSIX seconds.
        revision: the store's, for compare-and-set.
    """

    id: str
    tenant: str
    run: str
    tool: str
    tool_call_id: str
    rules: tuple[str, ...]
    shown: Mapping[str, Any]
    why: tuple[str, ...]
    expires_at: float
    state: State = "waiting"
    approvers: tuple[Approver, ...] = ()
    revision: str = ""

    def state_at(self, now: float) -> State:
        """The state at POSIX time `now`; a hold past its timeout is expired unless it was already consumed or refused."""
        return "expired" if self.state in {"waiting", "released"} and now >= self.expires_at else self.state


def check_approver(rule: StepUpRule, by: User | Approver, requester: User | None, agent: Agent, tenant: str) -> Failure | None:
    """Whether this person may say yes under this rule; None when they may (self-approval, wrong group, wrong tenant)."""
    where = f"step_up.{rule.id}.approvers"
    if by.tenant != tenant:
        return Failure(Reason.STEP_UP, where, f"{by.id} of tenant {by.tenant}", f"an approver of tenant {tenant}")
    if requester is not None and person(by.id) == person(requester.id):
        return Failure(Reason.STEP_UP, where, f"{by.id}, who asked for the call", "another person than the requester")
    if person(by.id) == person(agent.id):
        return Failure(Reason.STEP_UP, where, f"{by.id}, the agent", "a person")
    if rule.group not in by.groups:
        return Failure(Reason.STEP_UP, where, f"{by.id} in {', '.join(by.groups) or 'no group'}", f"a member of {rule.group}")
    return None


def covered(rule: StepUpRule, hold: Hold, requester: User | None, agent: Agent) -> bool:
    """True when the hold showed this rule and enough distinct, still eligible approvers said yes to it."""
    yes = {person(a.id) for a in hold.approvers if check_approver(rule, a, requester, agent, hold.tenant) is None}
    return rule.id in hold.rules and len(yes) >= rule.count
