"""The values of a scene: how they are stated by dotted key and read back, and such as a
workflow allows.

Rules: a structure is stated by its leaves: ``files[].id`` is one value for each element of the
list `files`. What is made up is made in a fixed order: the same rule always gives the same
first, second, third value. Nothing here decides whether a value is allowed; the engine's own
check is asked (`fits`). A pattern or type for which no value is found gives none, and the
reviewer is asked to state one.
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
from agentgate.review.scenarios.fields import Values, moment
from agentgate.values.entities import normal
from agentgate.values.paths import EACH, FIND, KEY, NUMBERS, VALUES
from agentgate.values.request import Agent, Call, Header, RunState, Surroundings
from agentgate.values.samples import VARIANTS
from agentgate.values.times import seconds
from agentgate.workflow.clauses.table import clauses_of
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.nested import flat, root
from agentgate.workflow.operators import as_sent
from agentgate.workflow.rule import Rule


# --- reading ----------------------------------------------------------------------------------
def parts(prompt: Any) -> tuple[str, ...]:
    """The turns of a prompt that is text or a list."""
    return (prompt,) if type(prompt) is str else tuple(prompt)


def argument_of(key: str) -> str:
    """The argument that a leaf of a structure is in: ``args.files`` for ``args.files[].id``;
    any other key itself.
    """
    head, mark, _ = key.partition(EACH)
    return head if mark else key


def missing(values: Values, key: str) -> bool:
    """Whether a key is neither stated nor left out on purpose, alone or with its group."""
    if key in values or argument_of(key) in values:
        return False
    return all(values.get(group, "") is not None for group in _groups(key))


def _groups(key: str) -> list[str]:
    """``who`` and ``who.user`` for ``who.user.id``."""
    steps = key.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]


def under(values: Values, prefix: str) -> dict[str, Any]:
    """The values under a prefix by the rest of their keys, structures put together from their
    leaves (``files[].id``).
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith(prefix) and value is not None:
            name = key[len(prefix) :]
            if "." in name and prefix.startswith(("args.", "earlier.")):
                out = put_at(out, steps(name), value)
            else:
                out[name] = value
    return out


def ago(values: Values, label: str) -> int:
    """How many seconds ago an earlier call was redeemed."""
    return seconds(values.get(f"ago.{label}")) or 0


def earlier(values: Values) -> tuple[str, ...]:
    """The labels of the earlier calls, oldest first: the tool's name, ``tool#2`` for its second
    call.
    """
    labels = [key[len("ago.") :] for key in values if key.startswith("ago.")]
    return tuple(
        sorted(
            (each for each in labels if values.get(f"earlier.{each}", "") is not None),
            key=lambda each: -ago(values, each),
        )
    )


def time_of(values: Values) -> datetime:
    """The decision time, in UTC."""
    return (moment(values["time"]) or datetime(2000, 1, 1, tzinfo=UTC)).astimezone(UTC)


# --- stating ----------------------------------------------------------------------------------
def state(values: dict[str, Any], tool: Tool | None, key: str, value: Any) -> list[str]:
    """State one value of a scene that calls `tool`; the keys that now hold it."""
    leaves = {key: value}
    if key.startswith("args."):
        leaves = _leaves(tool, key[len("args.") :], value)
        if EACH not in key:
            for old in [k for k in values if argument_of(k) == key]:
                del values[old]
    for leaf, inner in leaves.items():
        put(values, leaf, inner)
    return list(leaves)


def _leaves(tool: Tool | None, name: str, value: Any) -> dict[str, Any]:
    """A structure by its leaves, where they say all of it; any other value under the argument's
    own key.
    """
    if tool and any(root(rule) == name and "." in rule for rule in tool.args):
        leaves = dict(flat(tool, {name: value}))
        made = dict[str, Any]()
        for leaf, inner in leaves.items():
            made = put_at(made, steps(leaf), inner)
        if made == {name: value}:
            return {f"args.{leaf}": inner for leaf, inner in leaves.items()}
    return {f"args.{name}": value}


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """State one value: a group that is left out takes its parts with it, a part brings its
    group back.
    """
    block, _, rest = key.partition(".")
    groups = _groups(key)
    gone = list[str]()
    if value is None:
        inside = [f"{key}.", f"{key}#", *([f"facts.{rest}."] if block == "earlier" else [])]
        gone = [
            k
            for k in values
            if k.startswith(tuple(inside)) or (block == "earlier" and k == f"ago.{rest}")
        ]
    if block == "facts":
        groups += [f"earlier.{group.removeprefix('facts.')}" for group in groups[1:]]
    gone += [group for group in groups if values.get(group, "") is None]
    for old in gone:
        values.pop(old, None)
    values[key] = value


# --- structures -------------------------------------------------------------------------------
def steps(name: str) -> tuple[str, ...]:
    """The path of a leaf: ``("files", "[]", "id")`` for ``files[].id``."""
    return tuple(
        step
        for part in name.split(".")
        for step in ((part.removesuffix(EACH), EACH) if part.endswith(EACH) else (part,))
    )


def elements(value: Any) -> list[Any]:
    """The elements of a list; of a single value, that value."""
    return value if type(value) is list else [value]


def put_at(container: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of `container` with a value at a fact's path; a list of values spreads over the
    elements of the first list.
    """
    if path and path[0] == NUMBERS:  # beside whatever else is read out of that text
        return f"{container}\n{value}" if type(container) is str else str(value)
    if not path or path[0] in FIND:
        return value
    head = path[0]
    rest = path[1:]
    if head == VALUES:
        return _in_object(container, rest[1:], value)
    if head != EACH:
        out = dict(container) if type(container) is dict else {}
        out[head] = put_at(out.get(head), rest, value)
        return out
    listed = list(container) if type(container) is list else []
    for index, one in enumerate(elements(value)):
        listed[index : index + 1] = [
            put_at(listed[index] if index < len(listed) else None, rest, one)
        ]
    return listed


def _in_object(container: Any, rest: tuple[str, ...], value: Any) -> dict[str, Any]:
    """An object of which each value holds one of the values at the rest of a path, or whose
    keys they are.
    """
    entries = list(container.items()) if type(container) is dict else []
    for index, one in enumerate(elements(value)):
        key, inner = entries[index] if index < len(entries) else (f"key {index + 1}", None)
        entries[index : index + 1] = [
            (str(one), inner) if rest == (KEY,) else (key, put_at(inner, rest, one))
        ]
    return dict(entries)


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
