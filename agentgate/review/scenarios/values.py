"""Values that a workflow allows, made in a fixed order: the same rule always gives the same
first, second, third value.

Rules: nothing here decides whether a value is allowed; the engine's own check is asked
(`fits`). A pattern or type for which no value is found gives none, and the reviewer is asked to
state one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.decision.arguments import check_arguments
from agentgate.decision.case import Case
from agentgate.language.prompt import Prompt
from agentgate.language.stems import stems
from agentgate.review.scenarios.fields import Values
from agentgate.review.scenarios.statements import parts, put_at, steps, time_of
from agentgate.values.entities import normal
from agentgate.values.request import Agent, Call, Header, RunState, Surroundings
from agentgate.values.samples import VARIANTS
from agentgate.workflow.clauses.table import clauses_of
from agentgate.workflow.model import Workflow
from agentgate.workflow.operators import as_sent
from agentgate.workflow.rule import Rule

# Of each type: values, and near misses, which a person reads as such a value although their
# form is not the normal one (text has none; for `json` it is a structure, which is no text).
_VALUES: Mapping[str, Mapping[str, list[Any]]] = json.loads(
    Path(__file__).with_name("values.json").read_text("utf-8")
)


def malformed(kind: str) -> list[Any]:
    """Near misses of a type."""
    return _VALUES[kind]["near"]


def sent(rule: Rule, element: Any) -> Any:
    """One element as an argument takes it: in a list where the argument is one."""
    return [element] if rule.max_items is not None else element


def _made(rule: Rule, top: Decimal | None) -> Iterator[Any]:
    for variant in range(VARIANTS):
        for operator in rule.operators:
            yield from operator.samples(variant)
    bounds = [operator for operator in rule.operators if operator.bounds]
    if bounds or top is not None:
        edges = [
            edge
            for operator in reversed(bounds)
            for edge in (*operator.points, *(step.value for step in operator.narrowed(())))
        ]
        for amount in (Decimal("10.00"), Decimal(20), Decimal(1), top, *edges):
            if (
                amount is not None
                and (top is None or amount <= top)
                and all(operator.holds(amount) for operator in bounds)
            ):
                yield as_sent(
                    rule.type, amount.to_integral_value() if rule.type == "integer" else amount
                )
    yield from _VALUES[rule.type]["values"]


def singles(rule: Rule, top: Decimal | None = None) -> Iterator[Any]:
    """As `candidates`; of a list, its elements."""
    seen: list[Any] = []
    for value in _made(rule, top):
        if not any(type(value) is type(other) and value == other for other in seen):
            seen.append(value)
            yield value


def candidates(rule: Rule, top: Decimal | None = None) -> Iterator[Any]:
    """Values that may fit a rule, in a fixed order and each once. `top`: the bound that an
    earlier call's fact sets, if known.
    """
    return (sent(rule, value) for value in singles(rule, top))


# a Wednesday; for a workflow that expires before, a day of its last week
_FIRST_DAY = date(2026, 1, 7)
_NOWHERE = Surroundings(datetime(2000, 1, 1, tzinfo=UTC))
_NOBODY = RunState(
    Header("", "", None, Agent("agent"), "", 0, "", 0.0, 0.0), (), {}, None, (), ""
)


def fits(workflow: Workflow, tool: str, name: str, value: Any) -> bool:
    """Whether the engine finds nothing wrong with this one argument's form and value."""
    case = Case(
        workflow, _NOBODY, Call(tool, "", b"", put_at({}, steps(name), value)), _NOWHERE
    )
    check_arguments(case)
    return name in case.values and not any(f.argument == name for f in case.denied)


# --- who calls for whom, when and where -------------------------------------------------------
def circumstances(workflow: Workflow, tenant: str) -> Iterator[tuple[str, Any]]:
    """A value for every key of a scene that the workflow asks about, and for the ids of agent
    and user.
    """
    first = min(_FIRST_DAY, workflow.expires - timedelta(days=7))
    made = {
        "tenant": tenant,
        "time": datetime.combine(first, time(12), UTC).isoformat(timespec="minutes"),
    }
    for clause in clauses_of(workflow):
        made |= clause.sample(made)
    yield from made.items()
    brokers = sorted({t.upstream.broker for t in workflow.tools.values() if t.upstream})
    if brokers:
        yield "brokers", brokers


def moment_of(point: Values, now: datetime, *versions: Workflow) -> dict[str, str]:
    """The `time` of a scene that a point of the diff asks for: on or soon after its day, in its
    minute of the week; empty: for none.

    `now`: the usual time. `versions`: on the same side of whose last days it is as the point's
    day; without one, of the newest's.
    """
    wanted = point.get("day")
    hours = point.get("hours")
    if wanted is None and hours is None:
        return {}
    usual_hours = versions[-1].conditions.hours
    zone = ZoneInfo(
        hours[1] if hours is not None else usual_hours.zone if usual_hours else "UTC"
    )
    usual = now.astimezone(zone)
    first = wanted or usual.date()
    weekday, minute = (
        divmod(hours[0], 1440)
        if hours is not None
        else (usual.weekday(), usual.hour * 60 + usual.minute)
    )
    ends = [version.expires for version in (versions if wanted is not None else versions[-1:])]
    days = (first + timedelta(days=n) for n in (*range(7), *range(-1, -7, -1)))
    alike = (
        d
        for d in days
        if d.weekday() == weekday and all((d <= end) == (first <= end) for end in ends)
    )
    moment = datetime.combine(next(alike, first), time(minute // 60, minute % 60), zone)
    return {"time": moment.astimezone(UTC).isoformat(timespec="minutes")}


# --- in the user's words ----------------------------------------------------------------------
def in_words(kind: str, value: Any, currency: str) -> str:
    """A value as a user writes it: money with its currency, a user or channel with its sign,
    text as a name in quotes.
    """
    if kind == "money" and currency:
        return f"{value} {currency}"
    if kind == "text":
        return f'called "{value}"'
    return {"user": "@", "channel": "#"}.get(kind, "") + str(value)


def long_words(prompt: Any) -> list[str]:
    """The longer words of a prompt."""
    return re.findall(r"[A-Za-z]{4,}", " ".join(parts(prompt)))


def label(kind: str, prompt: Any) -> str:
    """A label of this type that the longest word of a prompt means; empty where none does."""
    word = max(filter(stems, long_words(prompt)), key=len, default="")
    return (
        {
            "text": word,
            "path": f"{word}.txt",
            "user": word.lower(),
            "channel": word.lower(),
        }.get(kind, "")
        if word
        else ""
    )


def added(prompt: Any, sentence: str) -> Any:
    """A prompt whose last turn ends with one more sentence."""
    *turns, last = parts(prompt)
    last += ("" if not last else " " if last.endswith((".", "!", "?")) else ". ") + sentence
    return [*turns, last] if turns else last


def read(values: Values) -> Prompt:
    """The prompt of a scene."""
    return Prompt.of(parts(values["prompt"]), time_of(values).date())


def names(prompt: Prompt, rule: Rule, value: Any, currency: str) -> bool:
    """Whether a prompt names a value as this rule reads it."""
    key = normal(rule.type, value)
    return key is not None and prompt.words(rule.said_as, key, currency) is not None


def can_be_named(values: Values, rule: Rule, value: Any, currency: str = "") -> bool:
    """Whether a prompt of the scene's day could name a value."""
    return names(
        Prompt.of((in_words(rule.type, value, currency),), time_of(values).date()),
        rule,
        value,
        currency,
    )


def calculation(rule: Rule, known: list[Decimal], currency: str, *, named: bool) -> str:
    """A sentence that asks for the half of one number, or for the sum of more; `named`: it
    names them.
    """
    of = (
        " of "
        + " and ".join(in_words(rule.type, format(each, "f"), currency) for each in known)
        if named
        else ""
    )
    return f"As the amount, please take {'half' if len(known) == 1 else 'the sum total'}{of}."
