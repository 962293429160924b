"""From one property of a tool's JSON Schema to the narrowest rule that can be said of it, or to a question for the reviewer.

Rules: what the schema closes (enum, const, both ends of a range, a length, a default) is taken over; what names one thing (an
id, an address, a date) must come from the user's own words; what is left is undecided, and an undecided argument is not
declared, so every call that sends it is refused. Nothing here reads a tool's description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from agentgate.errors import CanonicalError
from agentgate.review.draft.schema import null_by_default, resolve
from agentgate.review.draft.toolset import words_of
from agentgate.values.entities import NUMERIC, normal, number
from agentgate.values.patterns import Pattern
from agentgate.values.samples import VARIANTS, from_pattern
from agentgate.workflow.page_size import sized

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*", re.ASCII)
_TYPED_BY_YAML = frozenset("y n yes no on off true false null".split())
_FORMATS = {
    "email": "email",
    "idn-email": "email",
    "uri": "url",
    "url": "url",
    "date": "date",
    "date-time": "datetime",
    "time": "time",
    "hostname": "domain",
    "uuid": "id",
}
_NAMED = {
    "email": "email mail recipient recipients cc bcc",
    "url": "url uri link href website webhook",
    "iban": "iban",
    "phone": "phone tel mobile msisdn",
    "path": "path file filename filepath",
    "domain": "domain hostname host",
    "date": "date day deadline",
    "channel": "channel",
    "id": "id ids uuid number ref reference sku code ticket order invoice isbn",
}
_IDS = frozenset({"id", "ids", "uuid"})  # what a schema calls a number is one, unless its name ends in one of these
_TYPES = {word: kind for kind, words in _NAMED.items() for word in words.split()}
# two values of each type, and how a person writes them
SAMPLES: Mapping[str, tuple[Any, Any]] = {
    "id": ("A-10023344", "A-10023377"),
    "email": ("kim@acme.example", "lee@other.example"),
    "url": ("https://acme.example/a", "https://other.example/b"),
    "iban": ("DE89370400440532013000", "GB82WEST12345698765432"),
    "phone": ("+4930901820", "+442079460000"),
    "path": ("notes/june.txt", "notes/july.txt"),
    "domain": ("acme.example", "other.example"),
    "date": ("2031-03-04", "2031-03-05"),
    "datetime": ("2031-03-04T10:00:00", "2031-03-05T11:00:00"),
    "time": ("10:30", "11:45"),
    "channel": ("sales", "support"),
    "user": ("kim", "lee"),
    "number": (7, 8),
    "integer": (7, 8),
    "text": ("hello", "hi"),
    "boolean": (True, False),
}
_SIGNS = {"user": "@", "channel": "#"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One drafted argument.

    Attributes:
        rule: its operators in order; None: undecided, so it is not declared.
        note: what a reviewer should know or must decide.
        proposal: what a reviewer might write for an undecided one, as YAML.
        samples: a value that the rule takes, and a second of the same form; None where there is none.
        spoken: how the user writes the first, where it must come from the prompt; else empty.
        always: the tool always sends it (required, or with a default that is not null).
    """

    name: str
    rule: Mapping[str, Any] | None
    note: str = ""
    proposal: str = ""
    samples: tuple[Any, Any] | None = None
    spoken: str = ""
    always: bool = True


def inline(value: Any) -> str:
    """A value as YAML on one line, quoted where readers would differ."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inline(str(key))}: {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    exact = number(value) if isinstance(value, float) else None
    text = str(value) if exact is None else f"{exact:f}"  # 1e-05 is no number to a workflow
    if _PLAIN.fullmatch(text) and text.lower() not in _TYPED_BY_YAML:
        return text
    if not text.isprintable():  # a line break, in a prompt
        return json.dumps(text, ensure_ascii=False)
    return "'" + text.replace("'", "''") + "'"


def argument(
    name: str, schema: Any, root: Mapping[str, Any], *, required: bool, acting: bool, plain: bool = True, mails: bool = False
) -> Argument:
    """Draft one argument.

    Args:
        name: its name.
        schema: its schema.
        root: the whole input schema, for ``#/$defs/...``.
        required: the schema requires it.
        acting: the tool is no read, so every origin must be said.
        plain: its name is one that a workflow can hold.
        mails: the tool's name says mail, so ``to`` is an address.
    """
    made = _argument(name, schema, root, required=required, acting=acting, plain=plain, mails=mails)
    if acting or not sized(name) or made.rule is None or made.rule.get("type") != "integer":
        return made
    page = "once its list has facts and it is the most rows returned: min, max and page_size: true"
    return replace(made, note=f"{made.note}; {page}".removeprefix("; "))


def _argument(name: str, schema: Any, root: Mapping[str, Any], *, required: bool, acting: bool, plain: bool, mails: bool) -> Argument:
    mails = mails and name.lower() == "to"
    found = resolve(schema, root)
    default = found.get("default")
    always = required or default is not None
    left_out = {"optional": True, **({"nullable": True} if null_by_default(schema, found, root) else {})}
    if not plain:
        return Argument(name, None, "no workflow can hold its name (letters, digits, _ and -)", always=always)
    if not required and default is not None:
        return _default(name, default, found, root, acting=acting)
    listed = found.get("type") == "array"
    drafted = _list(name, found, root, acting=acting, mails=mails) if listed else _single(name, found, acting=acting, mails=mails)
    if drafted.rule is None:
        closing = "" if not drafted.proposal else "}" if always else f", {inline(left_out)[1:]}"
        return Argument(name, None, drafted.note, drafted.proposal + closing, always=always)
    rule = {**drafted.rule, **({} if required else left_out)}
    return Argument(name, rule, drafted.note, samples=drafted.samples, spoken=drafted.spoken, always=always)


def plain_name(name: str) -> bool:
    """True for a name that a workflow can hold."""
    return _NAME.fullmatch(name) is not None


def _undecided(name: str, what: str, **proposal: Any) -> Argument:
    """Undecided; the proposal's closing brace is left to `argument`."""
    return Argument(name, None, what, f"{inline(name)}: " + inline(proposal).removesuffix("}") if proposal else "")


def _default(name: str, default: Any, schema: Mapping[str, Any], root: Mapping[str, Any], *, acting: bool) -> Argument:
    """An argument with a default: exactly the default, which the tool's author chose; more is the reviewer's to say."""
    kind, value = _constant(default)
    closed = _enum(name, schema, acting=acting)
    if closed is not None and closed.rule is not None:
        return Argument(name, {**closed.rule, "optional": True}, closed.note, samples=closed.samples)
    said = {"from": ["model"]} if acting else {}
    if default == "":
        return Argument(name, {"pattern": "()", **said, "optional": True}, "only the tool's default, empty text", samples=("", "x"))
    if value is None:
        drafted = _argument(
            name, {k: v for k, v in schema.items() if k != "default"}, root, required=False, acting=acting, plain=True, mails=False
        )
        note = "its default is a list or an object, and is sent where the model says nothing"
        return Argument(name, None, note, drafted.proposal or f"{inline(name)}: {inline(drafted.rule or {'text': 200})}", always=True)
    rule = ({"type": kind} if kind != "text" else {}) | {"is": value} | said | {"optional": True}
    return Argument(name, rule, "only the tool's own default", samples=(default, None))


def _constant(value: Any) -> tuple[str, Any]:
    """Type and YAML form of a constant; (.., None) when a workflow cannot hold it."""
    if type(value) is bool:
        return "boolean", value
    if type(value) in {int, float}:
        exact = number(value)
        if exact is None:
            return "number", None
        whole = exact == exact.to_integral_value()
        return ("integer" if type(value) is int else "number"), int(exact) if whole and type(value) is int else f"{exact:f}"
    if type(value) is str and value and value.isprintable() and len(value) <= 2000 and normal("text", value) is not None:
        return "text", value
    return "text", None


def _enum(name: str, schema: Mapping[str, Any], *, acting: bool) -> Argument | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list):
        return None
    constants = [(v, *_constant(v)) for v in values if v is not None]
    kept = [(v, kind, shown) for v, kind, shown in constants if shown is not None]
    kinds = {kind for _, kind, _ in kept}
    if len(kinds) != 1 or len(kept) > 1000:
        return _undecided(name, "its schema lists values of several kinds", **{"in": ["..."]})
    kind = kinds.pop()
    shown = list(dict.fromkeys(s for _, _, s in kept))
    said = {"from": ["model"]} if acting else {}
    rule = ({"type": kind} if kind != "text" else {}) | ({"is": shown[0]} if len(shown) == 1 else {"in": shown}) | said
    raw = [v for v, _, _ in kept]
    note = "the model chooses among these" if acting and len(shown) > 1 else ""
    return Argument(name, rule, note, samples=(raw[0], None))


def _single(name: str, schema: Mapping[str, Any], *, acting: bool, mails: bool) -> Argument:
    closed = _enum(name, schema, acting=acting)
    if closed is not None:
        return closed
    kind = schema.get("type")
    said = {"from": ["model"]} if acting else {}
    if kind in {"integer", "number"}:
        return _number(name, schema, str(kind), acting=acting)
    if kind == "boolean":
        if acting:
            return _undecided(name, "may the model say yes and no?", type="boolean", **said)
        return Argument(name, {"type": "boolean"}, samples=(True, None))
    if kind == "string":
        return _text(name, schema, acting=acting, mails=mails)
    return _undecided(name, "an object, or of no single type, which no workflow can describe")


def _number(name: str, schema: Mapping[str, Any], kind: str, *, acting: bool) -> Argument:
    step = 1 if kind == "integer" else None
    low = _bound(schema.get("minimum"), schema.get("exclusiveMinimum"), step)
    high = _bound(schema.get("maximum"), schema.get("exclusiveMaximum"), -1 if step else None)
    if _guess(name) == "id" and high is None and "maximum" not in schema:
        return _numbered(name, kind, low)
    if low is not None and high is not None and low <= high:
        value = int(low) if low == low.to_integral_value() else float(low)
        other = int(high) if high == high.to_integral_value() else float(high)
        rule: dict[str, Any] = {"type": kind, "min": _exact(low), "max": _exact(high)}
        if acting:
            return Argument(name, {**rule, "from": ["prompt"]}, samples=(value, other if other != value else None), spoken=_exact(low))
        return Argument(name, rule, samples=(value, None))
    if acting:
        bounds = {"type": kind, "min": _exact(low) if low is not None else "0", "max": "..."}
        return _undecided(name, "how much at most?", **bounds, **{"from": ["prompt"]})
    value = int(low) + 1 if low is not None and low > 0 else 7
    return Argument(
        name,
        {"type": kind, "from": ["prompt"]},
        "no range in its schema, so the user must say it",
        samples=(value, value + 1),
        spoken=str(value),
    )


def _numbered(name: str, kind: str, low: Decimal | None) -> Argument:
    """A number that names one thing, such as an issue; an id where its name ends in that word."""
    first = max(1001, int(low) + 1) if low is not None else 1001
    samples, spoken = (first, first + 1), str(first)
    if words_of(name)[-1] in _IDS:
        return Argument(name, {"type": "id", "from": ["prompt"]}, "type guessed from its name", samples=samples, spoken=spoken)
    rule = {"type": kind, **({"min": _exact(low)} if low is not None else {}), "from": ["prompt"]}
    return Argument(name, rule, "it names one thing, as its name says, so no range", samples=samples, spoken=spoken)


def _bound(inclusive: Any, exclusive: Any, step: int | None) -> Decimal | None:
    """One end of a range, exact; None when there is none that a workflow can say."""
    if exclusive is not None:
        found = number(exclusive) if type(exclusive) in {int, float} else None
        return found + step if found is not None and step is not None and found == found.to_integral_value() else None
    return number(inclusive) if type(inclusive) in {int, float} else None


def _exact(value: Decimal) -> str:
    return str(int(value)) if value == value.to_integral_value() else f"{value:f}"


def _guess(name: str) -> str:
    words = words_of(name)
    return next((_TYPES[w] for w in reversed(words) if w in _TYPES), "")


def _text(name: str, schema: Mapping[str, Any], *, acting: bool, mails: bool) -> Argument:
    given = _FORMATS.get(str(schema.get("format")), "")
    kind = given or _guess(name) or ("email" if mails else "")
    pattern = _whole(schema.get("pattern"))
    longest = schema.get("maxLength")
    if pattern is not None:
        return _patterned(name, pattern, kind, acting=acting)
    if kind:
        first, second = SAMPLES[kind]
        spoken = first.replace("T", " ") if kind == "datetime" else _SIGNS.get(kind, "") + first
        note = "" if given else "type guessed from its name"
        return Argument(name, {"type": kind, "from": ["prompt"]}, note, samples=(first, second), spoken=spoken)
    said: dict[str, Any] = {"from": ["model"], "entities": ["prompt"]} if acting else {}
    if type(longest) is int and 1 <= longest <= 20_000:
        return Argument(name, {"text": longest, **said}, "free text, written by the model", samples=("hello"[:longest], None))
    return _undecided(name, "free text; how long may it be, or which values?", text=200, **said)


def _whole(pattern: Any) -> str | None:
    """A schema's pattern as a whole-value one; None when it is not anchored at both ends or no RE2 (the schema still checks it)."""
    if type(pattern) is not str or not pattern.startswith("^") or not pattern.endswith("$") or pattern.endswith("\\$"):
        return None
    inner = pattern[1:-1]
    whole = f"(?:{inner})" if "|" in inner else inner
    try:
        return Pattern.of(whole).source if whole and whole.isprintable() else None
    except CanonicalError:
        return None


def _patterned(name: str, pattern: str, kind: str, *, acting: bool) -> Argument:
    values = _matching(pattern)
    kind = kind or ("id" if values and normal("id", values[0]) is not None and any(c.isdigit() for c in values[0]) else "")
    if kind and kind not in NUMERIC:
        fits = values if values and normal(kind, values[0]) is not None else None
        spoken = _SIGNS.get(kind, "") + fits[0] if fits else ""
        return Argument(name, {"type": kind, "pattern": pattern, "from": ["prompt"]}, samples=fits, spoken=spoken)
    said = {"from": ["model"]} if acting else {}
    return Argument(
        name, {"pattern": pattern, **said}, "written by the model within this pattern", samples=(values[0], None) if values else None
    )


def _matching(pattern: str) -> tuple[str, Any] | None:
    """A value that the pattern matches and another one, if found; one with a digit first (people number what they name)."""
    whole = Pattern.of(pattern)
    made = (from_pattern(pattern, variant) for variant in range(VARIANTS))
    found = list(dict.fromkeys(v for v in made if v and whole.matches(v)))
    found.sort(key=lambda v: not any(c.isdigit() for c in v))
    return (found[0], found[1] if len(found) > 1 else None) if found else None


def _list(name: str, schema: Mapping[str, Any], root: Mapping[str, Any], *, acting: bool, mails: bool) -> Argument:
    element = _single(name, resolve(schema.get("items"), root), acting=acting, mails=mails)
    longest = schema.get("maxItems")
    most = longest if type(longest) is int and 1 <= longest <= 1000 else 1
    if element.rule is None:
        return _undecided(
            name,
            f"a list; of each element: {element.note}",
            text=200,
            max_items=most,
            **({"from": ["model"], "entities": ["prompt"]} if acting else {}),
        )
    rule = dict(element.rule)
    for key in ("in", "is"):
        if key in rule:
            values = rule.pop(key)
            rule = {"each_in": values if isinstance(values, list) else [values], **rule}
    rule = {k: v for k, v in rule.items() if k != "from"} | {"max_items": most} | ({"from": rule["from"]} if "from" in rule else {})
    if rule.get("type") in {"integer", "number"} and "from" not in rule and "min" not in rule and acting:
        rule["from"] = ["prompt"]
    note = element.note if longest == most else f"{element.note}; one at a time: its schema sets no maximum".removeprefix("; ")
    samples = element.samples
    return Argument(
        name,
        rule,
        note,
        samples=([samples[0]], [samples[1]] if samples[1] is not None else None) if samples else None,
        spoken=element.spoken,
    )
