"""A hold: one exact call that waits for a person, what they are shown, its states, and who may
answer it.

Rules: a release covers one call digest and the rules it showed, once, before its timeout. The
requester and the agent never release, under no spelling of their id
(`agentgate.values.request`), nor does their namesake at another issuer, who may be the same
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

A question is one frozen value, rendered once by the gate; plain text and JSON come from it. It
is made of the exact bytes that will run (`agentgate.explain.asking`), and everything in it is
text that is already visible: control, bidirectional and other unseen characters are escapes,
long text is cut and says so. What the model or a tool wrote says that it did. A `sensitive`
value is masked; whoever must judge it asks for it on record (`Gate.reveal`). The user's words
live in the run only, so a stored question has none: they are put in when it is read. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, get_args

from agentgate.values.answers import Said
from agentgate.values.canonical import canonical
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Agent, Identity, User, person
from agentgate.values.times import duration
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible
from agentgate.workflow.model import StepUpRule

# --- what a person is shown -------------------------------------------------------------------
By = Literal["user", "result", "model", "unknown"]
_LABEL = 10  # width of the left column


@value_class
class ShownArgument:
    """One argument of the call.

    Attributes:
        value: visible text; ``(masked)`` where it is sensitive, ``(not shown)`` where the
            rule's `show` leaves it out.
        origin: where it came from, in words.
        by: who wrote it: the user, a tool's result, the model, or nobody that is known.
    """

    name: str
    value: str
    origin: str
    by: By


@value_class
class ShownRule:
    """One rule that asks: its id, ``name of the file:line``, whose yes it wants (``2 of
    leads``, ``the user``), and why, in words.
    """

    id: str
    place: str
    whom: str
    why: tuple[str, ...]


@value_class
class Question:
    """A held call as a person sees it.

    Attributes:
        hold: the hold's id, which is the digest of exactly this call.
        endorses: the arguments whose values a yes of the user's lets the agent use again
            (`confirmed`).
        remembers: those that it lets later runs use, too, where it is given to this call alone
            (`remembered`), and for how many seconds.
        act: the call in a sentence: text of the workflow (or the names of tool and arguments)
            and values, by turns.
        workflow: id and version.
        effect: what the tool does: read, write, destructive, ...
        arguments: in the order in which the rules show them.
        words: the user's own words, the newest turn last; text that is not theirs is only
            named.
        agent_said: what the newest of these words answer, as the model wrote it: visible and
            cut.
        requester, agent: ids; `via`: the brokers between them.
        rules: the rules that ask.
        limits: what is used of each limit that covers the call.
        opened, deadline: POSIX seconds.
        attempted: when the same act was last tried without anybody knowing its outcome; 0:
            never.
        arguments_digest: SHA-256 of the canonical arguments.
    """

    hold: str
    tenant: str
    workflow: str
    tool: str
    effect: str
    arguments: tuple[ShownArgument, ...]
    requester: str
    agent: str
    via: tuple[str, ...]
    rules: tuple[ShownRule, ...]
    limits: tuple[str, ...]
    opened: float
    deadline: float
    arguments_digest: str
    words: tuple[str, ...] = ()
    agent_said: str = ""
    act: tuple[str, ...] = ()
    endorses: tuple[str, ...] = ()
    attempted: float = 0.0
    remembers: Mapping[str, int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The call in a sentence."""
        return "".join(self.act) or self.tool

    @property
    def asker(self) -> str:
        """Which agent asks, for whom."""
        through = f", through {', '.join(self.via)}," if self.via else ""
        return (
            f"{self.agent}{through} asks for "
            f"{self.requester or 'nobody: an autonomous workload'} of tenant {self.tenant}"
        )

    @property
    def why(self) -> tuple[str, ...]:
        """Why the call is held."""
        return tuple(dict.fromkeys(why for rule in self.rules for why in rule.why))

    @property
    def more(self) -> str:
        """What a yes lets the agent do beside this call."""
        spans = {name: self.remembers.get(name, 0) for name in self.endorses}
        told = [
            f"this {' and '.join(name for name in spans if spans[name] == span)} for "
            f"{self.tool} {_span(span)}"
            for span in dict.fromkeys(spans.values())
        ]
        alone = " (where it answers this call alone)" if self.remembers else ""
        return f"Yes also lets the agent use {', and '.join(told)}{alone}"

    @property
    def whom(self) -> str:
        """Who may answer."""
        return " and ".join(dict.fromkeys(rule.whom for rule in self.rules))

    @property
    def without_words(self) -> Question:
        """The same, as it is kept, sealed and told: the user's words are kept with the run
        only.
        """
        return replace(self, words=(), agent_said="")

    def __str__(self) -> str:
        return "\n".join(text_lines(self))


def _span(seconds: int) -> str:
    if not seconds:
        return "in this conversation"
    days = seconds // 86400
    return (
        f"for {duration(seconds)}" if seconds % 86400 else f"for {days} day{'s' * (days > 1)}"
    )


def moment(seconds: float, zone: tzinfo | None = UTC) -> str:
    """POSIX seconds as a time for a person; `zone` None: that of this machine."""
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def rows_of(question: Question, zone: tzinfo | None = UTC) -> Iterator[tuple[str, str]]:
    """The question as pairs of a label and a line, in the order in which they are read;
    visible, whoever wrote it into the store.
    """
    return ((label, visible(line)) for label, line in _rows(question, zone))


def _rows(question: Question, zone: tzinfo | None) -> Iterator[tuple[str, str]]:
    yield "do", question.sentence
    yield "who", question.asker
    for why in question.why:
        yield "why", why
    if question.attempted:
        yield (
            "before",
            (
                f"an earlier attempt may have happened, at {moment(question.attempted, zone)}: "
                "nobody knows its outcome"
            ),
        )
    yield (
        "said",
        " / ".join(f'"{words}"' for words in question.words)
        or "(the user's words are with the run)",
    )
    if question.agent_said:
        yield "", f"in answer to the agent, whose words are no request: {question.agent_said}"
    yield (
        "yes",
        f"of {question.whom}: exactly this call may run, once, until {moment(question.deadline, zone)}",
    )
    if question.endorses:
        yield "", question.more
    yield "call", f"{question.tool} ({question.effect}), {question.workflow}"
    columns = (
        [each.name for each in question.arguments],
        [each.value for each in question.arguments],
    )
    name, value = (max(map(len, column), default=0) for column in columns)
    for each in question.arguments:
        yield "", f"{each.name:<{min(name, 30)}}  {each.value:<{min(value, 40)}}  {each.origin}"
    for rule in question.rules:
        yield "rule", f"{rule.id} ({rule.place}) asks {rule.whom}"
    for used in question.limits:
        yield "limit", used
    yield "digest", question.hold


def text_lines(question: Question, zone: tzinfo | None = UTC) -> list[str]:
    """The question as plain text."""
    return [f"{label:<{_LABEL}}{line}".rstrip() for label, line in rows_of(question, zone)]


def as_dict(value: Any) -> dict[str, Any]:
    """The fields of a value by name, as they are."""
    return {name: getattr(value, name) for name in value.__slots__}


def as_json(question: Question) -> dict[str, Any]:
    """The question as JSON values."""
    plain = as_dict(question)
    for name in ("words", "via", "limits", "act", "endorses"):
        plain[name] = list(plain[name])
    plain["remembers"] = dict(question.remembers)
    # as an earlier version wrote it, where there is none
    for name in ("agent_said", "act", "endorses", "attempted", "remembers"):
        if not plain[name]:
            del plain[name]
    plain["arguments"] = [as_dict(each) for each in question.arguments]
    plain["rules"] = [{**as_dict(rule), "why": list(rule.why)} for rule in question.rules]
    return plain


def from_json(stored: Mapping[str, Any]) -> Question:
    """The question that `as_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    plain = dict(stored)
    plain["arguments"] = tuple(ShownArgument(**each) for each in plain["arguments"])
    plain["rules"] = tuple(
        ShownRule(**{**each, "why": tuple(each["why"])}) for each in plain["rules"]
    )
    for name in ("words", "via", "limits", "act", "endorses"):
        plain[name] = tuple(plain.get(name, ()))
    return Question(
        **{**plain, "opened": float(plain["opened"]), "deadline": float(plain["deadline"])}
    )


# --- states, and who may answer ---------------------------------------------------------------
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
