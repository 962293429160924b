"""The values of a scene: its dotted keys and what each may hold, how they are stated and read
back, and such as a workflow allows.

Rules: keys are read strictly, and an unknown one is a finding with a suggestion. Tool names
contain dots, so the longest declared one wins; the second earlier call of a tool is written
``tool#2``. An origin, an intent or an answer cannot be stated: `origin.x` only says where a
value is placed. A structure is stated by its leaves: ``files[].id`` is one value for each element of the
list `files`. What is made up is made in a fixed order: the same rule always gives the same
first, second, third value. Nothing here decides whether a value is allowed; the engine's own
check is asked (`fits`). A pattern or type for which no value is found gives none, and the
reviewer is asked to state one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.decision.case import Case
from agentgate.decision.checks import check_arguments
from agentgate.decision.origins.kinds import of_call
from agentgate.errors import Failure, Refused
from agentgate.language.prompt import Prompt
from agentgate.language.stems import stems
from agentgate.loading.yaml_nodes import did_you_mean, shown
from agentgate.values.entities import normal, number
from agentgate.values.paths import EACH, FIND, KEY, NUMBERS, VALUES
from agentgate.values.request import FORM, Agent, Call, Header, RunState, Surroundings, is_name
from agentgate.values.samples import VARIANTS
from agentgate.values.tables import read_table
from agentgate.values.times import seconds
from agentgate.values.value_class import Json, Names, Values
from agentgate.workflow.clauses.table import CLAUSES, clauses_of
from agentgate.workflow.model import Tool, Workflow, flat, root
from agentgate.workflow.operators import as_sent
from agentgate.workflow.rule import REMEMBERED, Rule, Source

_Leaves = Iterator[tuple[str, Any, tuple[str | int, ...]]]
BLOCKS = "args facts earlier ago yes spent who origin".split()


class SceneError(Refused):
    """A scene cannot be made. `failures` names every key, what it got and what was expected."""

    _between = "\n"

    @staticmethod
    def _shown(got: object) -> str:
        return str(got)


def moment(value: Any) -> datetime | None:
    """An ISO date and time with its offset; None when the value is none."""
    try:
        read = datetime.fromisoformat(value) if type(value) is str and "T" in value else None
    except ValueError:
        return None
    return read if read and read.tzinfo else None


def _texts(value: Any) -> bool:
    return type(value) in {list, tuple} and all(type(item) is str for item in value)


def _used(value: Any, *, whole: bool = False) -> bool:
    amount = number(value)
    return amount is not None and amount >= 0 and not (whole and amount % 1)


_Form = tuple[Callable[[Any], bool], str]  # whether a value has it, and what is expected
_AMOUNT: _Form = (_used, "how much was used before: a number from 0")
_COUNT: _Form = (partial(_used, whole=True), _AMOUNT[1])
_TEXT: _Form = (lambda v: type(v) is str, "text")
_TEXTS: _Form = (_texts, "a list of texts")
_DURATIONS: _Form = (
    lambda v: seconds(v) is not None,
    "a duration: a whole number and s, m, h or d, such as 15m",
)
_NAMED: Mapping[str, _Form] = {  # as clauses name them
    "text": _TEXT,
    "texts": _TEXTS,
    "name": (is_name, FORM),
    "names": (lambda v: _texts(v) and all(map(is_name, v)), f"a list of names, each {FORM}"),
    "yes": (lambda v: type(v) is bool, "true or false"),
    "duration": _DURATIONS,
}
_FIXED: Mapping[str, _Form] = {
    **dict.fromkeys(("call", "tenant"), _TEXT),
    "prompt": (
        lambda v: type(v) is str or (_texts(v) and len(v) > 0),
        "the user's words: text, or a list of turns",
    ),
    "definition": _TEXT,
    "time": (
        lambda v: moment(v) is not None,
        'a date and time with its offset, in quotes: "2026-01-07T14:00+01:00"',
    ),
    **{
        key: _NAMED[form]
        for kind in CLAUSES
        for key, form in ((kind.scene, kind.form), *kind.forms)
        if form
    },
    "brokers": _TEXTS,
    "spent_ago": _DURATIONS,
    "nulls": _TEXTS,
}
_WHOLE = {
    "ago": _DURATIONS,
    "yes": (lambda v: type(v) is bool or v == REMEMBERED.kind, "true, false or remembered"),
}  # of an earlier call as a whole
# may be left out as a whole
_GROUPS = [kind.scene for kind in CLAUSES if kind.scene not in _FIXED]


def _group(name: str) -> _Form:
    inside = ", ".join(key for key in _FIXED if key.startswith(f"{name}.")) or f"{name}.NAME"
    return lambda _: False, f"nothing (left out), or one of its keys: {inside}"


_FORMS: Mapping[str, _Form] = {**_FIXED, **{name: _group(name) for name in _GROUPS}}
_ALWAYS = frozenset("call tenant prompt time who.agent.id".split())  # may not be left out
_PLACES = "prompt user computed confirmed remembered model".split()
_DERIVED = "origins intents origin_of decision expect".split()


def flatten(stated: Values) -> _Leaves:
    """Every leaf as (dotted key, value, path in the mapping). An argument's own value is never
    looked into.
    """

    def walk(key: str, value: Any, path: tuple[str | int, ...]) -> _Leaves:
        first, dot, _ = key.partition(".")
        if type(value) is dict and first in BLOCKS and not (first == "args" and dot):
            for name, inner in value.items():
                yield from walk(f"{key}.{name}", inner, (*path, name))
        else:
            yield key, value, path

    for name, value in stated.items():
        yield from walk(str(name), value, (name,))


def bare(label: str) -> str:
    """The tool of an earlier call's label: ``orders.get`` for ``orders.get#2``."""
    return label.partition("#")[0]


def tool_and_field(tools: Mapping[str, Tool], text: str) -> tuple[str, str] | None:
    """``("orders.get#2", "total")`` for ``orders.get#2.total``; the longest declared tool name
    wins. None: no declared tool.
    """
    for name in sorted(tools, key=len, reverse=True):
        if text == name or text.startswith((name + ".", name + "#")):
            match = re.fullmatch(r"((?:#[2-9])?)(?:\.(.+))?", text[len(name) :])
            if match:
                return name + match[1], match[2] or ""
    return None


def place(source: Source, second: str = "") -> str:
    """The key under which a scene holds what this source says; `second` is ``#2`` for the
    tool's second call.
    """
    return f"{'facts' if of_call(source).returned else 'earlier'}.{source.tool}{second}.{source.field}"


def named(source: Source) -> str:
    """A source as the value of `origin.x`."""
    return f"{source.tool}.{source.field}" if source.tool else str(source)


def _wrong(
    key: str,
    got: str,
    expected: str,
    hint: str = "",
) -> Failure:
    return Failure("", key, got, expected, data={"hint": hint})


def findings(
    workflow: Workflow,
    stated: Values,
    *,
    changing: bool,
) -> list[Failure]:
    """Everything wrong with the keys and values of a scene. `changing`: `origin.x` is allowed
    (it places a value into a complete scene).
    """
    found = (_finding(workflow, key, value, changing=changing) for key, value in stated.items())
    return [problem for problem in found if problem]


def _finding(
    workflow: Workflow,
    key: str,
    value: Any,
    *,
    changing: bool,
) -> Failure | None:
    block, _, rest = key.partition(".")
    if value is None and key in _ALWAYS:
        return _wrong(key, "nothing", "a value (it may not be left out)")
    form = _FORMS.get(key, _TEXT if key.startswith("who.agent.claims.") else None)
    if form is None and (not rest or block not in BLOCKS or block == "who"):
        return _unknown(key, value)
    if block == "spent":
        limits = {
            limit.name: limit for tool in workflow.tools.values() for limit in tool.limits
        }
        if rest not in limits:
            return _wrong(
                key,
                "no such limit",
                "spent. and one of " + (", ".join(limits) or "none"),
                did_you_mean(rest, limits),
            )
        form = _AMOUNT if limits[rest].argument else _COUNT
    if form is not None:
        return None if value is None or form[0](value) else _wrong(key, shown(value), form[1])
    if block == "origin":
        return _origin(workflow.tools, key, value, changing=changing)
    return None if block == "args" else _of_call(workflow.tools, key, value)


def _unknown(key: str, value: Any) -> Failure:
    if key in BLOCKS:
        return _wrong(key, shown(value), "a mapping")
    expected = "one of " + ", ".join([*(k for k in _FIXED if "." not in k), *BLOCKS])
    if key in _DERIVED:
        return _wrong(
            key, "an unknown key", expected + " (origins and intents are derived, never stated)"
        )
    return _wrong(
        key,
        "an unknown key",
        expected,
        did_you_mean(key, [c for c in (*_FIXED, *BLOCKS) if c != key]),
    )


def _origin(
    tools: Mapping[str, Tool], key: str, value: Any, *, changing: bool
) -> Failure | None:
    if not changing:
        return _wrong(
            key,
            "an origin",
            "values only (in base, put the value where it comes from: the prompt or a fact)",
        )
    named = tool_and_field(tools, value) if type(value) is str else None
    if value in _PLACES or (named is not None and named[1]):
        return None
    choices = {*_PLACES, *(f"{n}.{f}" for n, t in tools.items() for f in [*t.facts, *t.args])}
    expected = ", ".join(_PLACES) + ", or a field of a declared tool: tool.field"
    return _wrong(key, shown(value), expected, did_you_mean(value, choices))


def _of_call(
    tools: Mapping[str, Tool],
    key: str,
    value: Any,
) -> Failure | None:
    """`facts`, `earlier`, `ago` and `yes`: keys that name a declared tool."""
    block, _, rest = key.partition(".")
    named = tool_and_field(tools, rest)
    if not named:
        expected = (
            "a declared tool"
            + ("" if block in _WHOLE else ", then its field")
            + ": "
            + ", ".join(tools)
        )
        return _wrong(
            key,
            "an unknown tool",
            expected,
            did_you_mean(rest, tools) or did_you_mean(rest.rpartition(".")[0], tools),
        )
    tool = tools[bare(named[0])]
    field = named[1]
    if block in _WHOLE:
        has_form, expected = _WHOLE[block]
        return (
            None
            if not field and (value is None or has_form(value))
            else _wrong(key, shown(value), expected)
        )
    declared, article, what = (
        (tool.args, "an", "argument") if block == "earlier" else (tool.facts, "a", "fact")
    )
    if not field:
        return (
            None
            if value is None and block == "earlier"
            else _wrong(key, shown(value), f"{key}. and {article} {what}")
        )
    if field in declared:
        return None
    more = (
        ""
        if block == "earlier"
        else f" (origin.x: {tool.name}.{field} puts a value into a field that nobody declared)"
    )
    expected = "one of " + (", ".join(declared) or "none") + more
    return _wrong(key, f"an undeclared {what}", expected, did_you_mean(field, declared))


# --- reading ----------------------------------------------------------------------------------
def parts(prompt: Any) -> Names:
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


def under(values: Values, prefix: str) -> Json:
    """The values under a prefix by the rest of their keys, structures put together from their
    leaves (``files[].id``).
    """
    out: Json = {}
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


def earlier(values: Values) -> Names:
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
def state(
    values: Json,
    tool: Tool | None,
    key: str,
    value: Any,
) -> list[str]:
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


def _leaves(
    tool: Tool | None,
    name: str,
    value: Any,
) -> Json:
    """A structure by its leaves, where they say all of it; any other value under the argument's
    own key.
    """
    if tool and any(root(rule) == name and "." in rule for rule in tool.args):
        leaves = dict(flat(tool, {name: value}))
        made = Json()
        for leaf, inner in leaves.items():
            made = put_at(made, steps(leaf), inner)
        if made == {name: value}:
            return {f"args.{leaf}": inner for leaf, inner in leaves.items()}
    return {f"args.{name}": value}


def put(
    values: Json,
    key: str,
    value: Any,
) -> None:
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
def steps(name: str) -> Names:
    """The path of a leaf: ``("files", "[]", "id")`` for ``files[].id``."""
    return tuple(
        step
        for part in name.split(".")
        for step in ((part.removesuffix(EACH), EACH) if part.endswith(EACH) else (part,))
    )


def elements(value: Any) -> list[Any]:
    """The elements of a list; of a single value, that value."""
    return value if type(value) is list else [value]


def put_at(
    container: Any,
    path: Names,
    value: Any,
) -> Any:
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


def _in_object(
    container: Any,
    rest: Names,
    value: Any,
) -> Json:
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
_VALUES: Mapping[str, Mapping[str, list[Any]]] = read_table(
    "agentgate.review.scenarios", "values.toml"
)


def malformed(kind: str) -> list[Any]:
    """Near misses of a type."""
    return _VALUES[kind]["near"]


def sent(rule: Rule, element: Any) -> Any:
    """One element as an argument takes it: in a list where the argument is one."""
    return [element] if rule.max_items else element


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


def fits(
    workflow: Workflow,
    tool: str,
    name: str,
    value: Any,
) -> bool:
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
    if workflow.brokers:
        yield "brokers", sorted(workflow.brokers)


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
def in_words(
    kind: str,
    value: Any,
    currency: str,
) -> str:
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


def names(
    prompt: Prompt,
    rule: Rule,
    value: Any,
    currency: str,
) -> bool:
    """Whether a prompt names a value as this rule reads it."""
    key = normal(rule.type, value)
    return key is not None and prompt.words(rule.said_as, key, currency) is not None


def can_be_named(
    values: Values,
    rule: Rule,
    value: Any,
    currency: str = "",
) -> bool:
    """Whether a prompt of the scene's day could name a value."""
    return names(
        Prompt.of((in_words(rule.type, value, currency),), time_of(values).date()),
        rule,
        value,
        currency,
    )


def calculation(
    rule: Rule,
    known: list[Decimal],
    currency: str,
    *,
    named: bool,
) -> str:
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
