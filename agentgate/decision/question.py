"""What a person is shown who judges a held call: one frozen value, rendered once by the gate;
plain text and JSON come from it.

Rules: it is made of the exact bytes that will run (`agentgate.explain.asking`), and everything
in it is text that is already visible: control, bidirectional and other unseen characters are
escapes, long text is cut and says so. What the model or a tool wrote says that it did. A
`sensitive` value is masked; whoever must judge it asks for it on record (`Gate.reveal`). The
user's words live in the run only, so a stored question has none: they are put in when it is
read. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal

from agentgate.values.times import duration
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

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


def as_json(question: Question) -> dict[str, Any]:
    """The question as JSON values."""
    plain = asdict(question)
    for name in ("words", "via", "limits", "act", "endorses"):
        plain[name] = list(plain[name])
    # as an earlier version wrote it, where there is none
    for name in ("agent_said", "act", "endorses", "attempted", "remembers"):
        if not plain[name]:
            del plain[name]
    plain["arguments"] = list(plain["arguments"])
    plain["rules"] = [{**rule, "why": list(rule["why"])} for rule in plain["rules"]]
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
