"""A hold: one exact call that waits for a person, its states, and who may answer it.

Rules: a release covers one call digest and the rules it showed, once, before its timeout. The
requester and the agent never release, under no spelling of their id
(`agentgate.values.identities`), nor does their namesake at another issuer, who may be the same
person. Every rule that fires at mint must be covered by approvers who are eligible under it at
that moment; a yes counts only under the rules that ask whoever gave it.

A *confirm* is a yes under a rule with ``user: true``: the run's own user, under exactly their
id and tenant, says yes to exactly this call. It counts for no group, and no group's yes counts
for it. `check_answer` says who may answer a hold; how they prove who they are is the channel's
part, and no channel is one on which the agent or the model speaks.

The states and what follows them are one table, which the gate and the store's scripts follow:

    pending --release (enough approvers)--> released --mint--> spent pending, released
    --refuse--> refused pending, released --deadline--> expired whatever no person refused and
    no call ran with --the user takes back, or the run is closed--> cancelled

`refused` and `expired` are final until the store forgets the hold; a `cancelled` one is opened
anew when its call is asked again. A spent release is spent for ever, and only the call that
spent it may be minted again, while it did not run. Pure values: the store keeps the state, the
mint script spends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Literal, get_args

from agentgate.decision.question import Question
from agentgate.values.answers import Said
from agentgate.values.canonical import canonical
from agentgate.values.identities import person
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Agent, Identity, User
from agentgate.values.value_class import value_class
from agentgate.workflow.model import StepUpRule

Channel = Literal["in_process", "token", "ssh", "jws", "webauthn"]
State = Literal["pending", "released", "refused", "expired", "cancelled", "spent"]
Row = State | Literal["ran"]  # ran: spent, by a call that was redeemed since
Event = Literal[
    "asked",  # its call is authorised again, and a person is still needed
    "yes",  # a release, after which a rule still wants more approvers
    "enough",  # the release after which none does
    "no",  # a refusal
    "minted",  # its call is minted; of a spent one, the same call again
    "deadline",  # its time is over
    "withdrawn",  # the user takes something back, or the run is closed
]
EVENTS: tuple[Event, ...] = get_args(Event)

# in the order of EVENTS; None: refused, and nothing changes
AFTER: Mapping[Row, tuple[Row | None, ...]] = {
    "pending": ("pending", "pending", "released", "refused", None, "expired", "cancelled"),
    "released": ("released", None, None, "refused", "spent", "expired", "cancelled"),
    "refused": ("refused", None, None, None, None, "refused", "refused"),
    "expired": ("expired", None, None, None, None, "expired", "cancelled"),
    "cancelled": ("pending", None, None, None, None, "cancelled", "cancelled"),
    "spent": ("spent", None, None, None, "spent", "expired", "cancelled"),
    "ran": ("ran", None, None, None, None, "ran", "ran"),
}


def after(state: Row, event: Event) -> Row | None:
    """The state that follows; None: this cannot happen to a hold in this state."""
    return AFTER[state][EVENTS.index(event)]


@value_class
class Approver:
    """Who said yes, as known at that moment.

    Attributes:
        identity: how they are known; in process only where the workflow says ``in_process:
            true``.
        channel: how they said it.
        proof: what shows it again before the call is minted: the signed answer, or the gate's
            seal on one that was given to it unsigned.
    """

    id: str
    tenant: str
    groups: tuple[str, ...]
    identity: Identity = "in_process"
    channel: Channel = "in_process"
    proof: Mapping[str, str] = field(default_factory=dict, repr=False)


@value_class
class Hold:
    """A call waiting for a person.

    Attributes:
        id: the call digest it is for (64 hex): one hold per exact call.
        rules: ids of the step-up rules that fired.
        shown: the argument values the rules say to show (`sensitive` ones masked).
        why: the failures because of which a person is asked, as text.
        expires_at: POSIX seconds.
        revision: the store's, for compare-and-set.
        question: what a person is shown who judges it.
        seal: the gate's, over the question; whoever writes the store cannot make one.
        conversation: the host's own id for that of its run; empty: it has none.
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
    question: Question
    state: State = "pending"
    approvers: tuple[Approver, ...] = ()
    revision: str = ""
    seal: str = ""
    conversation: str = ""

    def statement(self, answer: Said, nonce: str) -> bytes:
        """What a person signs to answer: canonical JSON (RFC 8785) of exactly this hold, this
        answer and the gate's nonce.
        """
        return canonical(
            {
                "agentgate": "answer/v1",
                "tenant": self.tenant,
                "run": self.run,
                "hold": self.id,
                "call": self.id,
                "rules": list(self.rules),
                "answer": answer,
                "nonce": nonce,
            }
        )

    def state_at(self, now: float) -> State:
        """The state at POSIX time `now`: a pending or released hold past its deadline is
        expired.
        """
        return (
            "expired"
            if self.state in {"pending", "released"} and now >= self.expires_at
            else self.state
        )


def check_approver(
    rule: StepUpRule, by: User | Approver, requester: User | None, agent: Agent, tenant: str
) -> Failure | None:
    """Whether this person may say yes under this rule; None when they may (self-approval, wrong
    group, wrong tenant).

    Args:
        rule: one that the hold shows.
        by: who answers, proven by the channel (in process: taken as given, and only where the
            workflow allows it).
        requester: the run's user; None for an autonomous workload.
        agent: the run's agent.
        tenant: the run's tenant.
    """
    where = f"step_up.{rule.id}.approvers"
    if rule.user:
        if requester is None or (by.id, by.tenant) != (requester.id, requester.tenant):
            asked = (
                f"{requester.id} of tenant {requester.tenant}"
                if requester is not None
                else "a user (this run has none)"
            )
            return Failure(
                Reason.STEP_UP,
                where,
                f"{by.id} of tenant {by.tenant}",
                f"the user who asked for the call: {asked}",
            )
        if (
            isinstance(by, User)
            and by.issuer
            and requester.issuer
            and (by.issuer, by.subject) != (requester.issuer, requester.subject)
        ):
            asked = (
                f"the user who asked for the call: {requester.subject} of {requester.issuer}"
            )
            return Failure(Reason.STEP_UP, where, f"{by.subject} of {by.issuer}", asked)
        if person(by.id) == person(agent.id):
            return Failure(Reason.STEP_UP, where, f"{by.id}, the agent", "a person")
        return None
    if by.tenant != tenant:
        return Failure(
            Reason.STEP_UP,
            where,
            f"{by.id} of tenant {by.tenant}",
            f"an approver of tenant {tenant}",
        )
    if requester is not None and person(by.id) == person(requester.id):
        return Failure(
            Reason.STEP_UP,
            where,
            f"{by.id}, who asked for the call",
            "another person than the requester",
        )
    if person(by.id) == person(agent.id):
        return Failure(Reason.STEP_UP, where, f"{by.id}, the agent", "a person")
    if rule.group not in by.groups:
        return Failure(
            Reason.STEP_UP,
            where,
            f"{by.id} in {', '.join(by.groups) or 'no group'}",
            f"a member of {rule.group}",
        )
    return None


def check_answer(
    rules: Iterable[StepUpRule],
    by: User | Approver,
    requester: User | None,
    agent: Agent,
    tenant: str,
) -> tuple[Failure, ...]:
    """Why this person may not answer a hold with these rules, yes or no; empty where at least
    one rule asks them.
    """
    failures = [check_approver(rule, by, requester, agent, tenant) for rule in rules]
    if None in failures:
        return ()
    return tuple(f for f in failures if f is not None) or (
        Failure(Reason.STEP_UP, "hold", "no rule", "a hold whose rules ask a person"),
    )


def covered(rule: StepUpRule, hold: Hold, requester: User | None, agent: Agent) -> bool:
    """True when the hold showed this rule and enough distinct, still eligible approvers said
    yes to it.
    """
    yes = {
        person(a.id)
        for a in hold.approvers
        if check_approver(rule, a, requester, agent, hold.tenant) is None
    }
    return rule.id in hold.rules and len(yes) >= rule.count
