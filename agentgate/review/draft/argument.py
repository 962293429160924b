"""Drafts the rule of one argument from its JSON Schema: the narrowest rule that can be stated,
or a question for the reviewer.

Rules: what the schema closes (enum, const, both ends of a range, a length, a default) becomes
the rule; what names one thing (an id, an address, a date) must come from the user's own words;
the rest is undecided, and an undecided argument is not declared, so the gate refuses every call
that sends it. Nothing here reads a tool's description.

Of a start (`agentgate init`) nothing is undecided, since the person who signs the draft is asked
at run time. What the user must name asks them where they did not; what is undecided, or only a
tool's default, the model may write. Of a tool that acts each call is held for the user, who sees
it all. What was only guessed refuses nothing: a type by a name alone becomes text of the user's
words (a `recipient` may be no e-mail address), a pattern by examples goes, and a list may be
longer than its schema says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from decimal import Decimal
from typing import Any

from agentgate.decision.origins.kinds import kind_of
from agentgate.loading.yaml_nodes import inline
from agentgate.review.draft.toolset import (
    NAMES,
    Schema,
    bound,
    null_by_default,
    resolve,
    whole_pattern,
    words_of,
)
from agentgate.values.entities import NUMERIC, normal, number
from agentgate.values.paths import EACH
from agentgate.values.patterns import Pattern
from agentgate.values.samples import VARIANTS, from_pattern
from agentgate.values.tables import read_table
from agentgate.values.value_class import Json, Values, value_class
from agentgate.workflow.model import Effect, sized
from agentgate.workflow.rule import CONFIRMED

_FORMATS, _NAMES, _SAID = (
    {
        word: name.removeprefix(of)
        for name, words in NAMES.items()
        if name.startswith(of)
        for word in words
    }
    for of in ("format ", "name ", "said ")
)
Written = Mapping[str, Any]  # a rule, as a workflow writes it
# a number in the schema stays a number, unless its name ends in one of these
IDS = frozenset({"id", "ids", "uuid"})
# two values of each type, as a person writes them
SAMPLES: Mapping[str, list[str]] = read_table("agentgate.review.draft", "samples.toml")
SIGNS = {"channel": "#"}
_FROM_PROMPT = {"from": ["prompt"]}


@value_class
class Argument:
    """One drafted argument."""

    name: str
    rule: Written | None  # its operators in order; None: undecided, so it is not declared
    note: str = ""  # what a reviewer should know or must decide
    proposal: str = ""  # what a reviewer might write for an undecided one, as YAML
    # a value that the rule accepts, and a second of the same form; None where there is none
    samples: tuple[Any, Any] | None = None
    # how the user writes the first, where it must come from the prompt; else empty
    spoken: str = ""
    # the tool always sends it (required, or with a default that is not null)
    always: bool = True
    # of an undecided one: whether it may be left out, and be null
    left_out: Mapping[str, bool] = field(default_factory=dict)
    open: bool = False  # undecided free text
    number: str = ""  # of an undecided amount: number or integer
    # of one among several: what the tool takes where the model says nothing
    default: Any = None


def argument(
    name: str,
    schema: Any,
    root: Schema,
    *,
    required: bool,
    acting: bool,
    plain: bool = True,
    mails: bool = False,
) -> Argument:
    """Draft one argument of a schema; `root`: the whole input schema, for ``#/$defs/...``.

    `acting`: the tool is no read, so the rule must state every origin. `plain`: a workflow can
    declare its name. `mails`: the tool's name mentions mail, so ``to`` is an address.
    """
    if not plain:
        always = required or resolve(schema, root).get("default") is not None
        return Argument(
            name,
            None,
            "no workflow can hold its name (letters, digits and _-$@:/)",
            always=always,
        )
    drafted = _Drafting(name, root, acting, mails and name.lower() == "to").draft(
        schema, required=required
    )
    if (
        acting
        or not sized(name)
        or drafted.rule is None
        or drafted.rule.get("type") != "integer"
    ):
        return drafted
    page = (
        "once its list has facts and it is the most rows returned: min, max and page_size: true"
    )
    return replace(drafted, note=f"{drafted.note}; {page}".removeprefix("; "))


@value_class
class _Drafting:
    """The argument being drafted. Attributes as the parameters of `argument`; `mails`: it is
    the address of a mail.
    """

    name: str
    root: Schema
    acting: bool
    mails: bool

    @property
    def _from_model(self) -> Json:
        return {"from": ["model"]} if self.acting else {}

    @property
    def _written_by_model(self) -> Json:
        return {"from": ["model"], "entities": ["prompt"]} if self.acting else {}

    def _decided(
        self,
        rule: Written,
        note: str = "",
        samples: tuple[Any, Any] | None = None,
        spoken: str = "",
    ) -> Argument:
        return Argument(self.name, rule, note, samples=samples, spoken=spoken)

    def _undecided(self, note: str, **proposal: Any) -> Argument:
        """Undecided; `draft` adds the closing brace of the proposal."""
        return Argument(
            self.name,
            None,
            note,
            f"{inline(self.name)}: " + inline(proposal).removesuffix("}") if proposal else "",
        )

    def draft(self, schema: Any, *, required: bool) -> Argument:
        """The argument of a schema, whether or not it is a list or has a default."""
        resolved = resolve(schema, self.root)
        default = resolved.get("default")
        if not required and default is not None:
            return self._default(default, resolved)
        drafted = (
            self._list(resolved) if resolved.get("type") == "array" else self._single(resolved)
        )
        left_out = {
            "optional": True,
            **({"nullable": True} if null_by_default(schema, self.root) else {}),
        }
        always = required or default is not None
        if drafted.rule is not None:
            return replace(
                drafted, rule={**drafted.rule, **({} if required else left_out)}, always=always
            )
        closing = "" if not drafted.proposal else "}" if always else f", {inline(left_out)[1:]}"
        return replace(
            drafted,
            proposal=drafted.proposal + closing,
            always=always,
            left_out={} if required else left_out,
        )

    def _default(self, default: Any, schema: Schema) -> Argument:
        """An argument with a default: exactly the default, which the tool's author chose; a
        reviewer may allow more.
        """
        closed = self._enum(schema)
        if closed and closed.rule is not None:
            return replace(closed, rule={**closed.rule, "optional": True}, default=default)
        if default == "":
            rule = {"pattern": "()", **self._from_model, "optional": True}
            return self._decided(rule, "only the tool's default, empty text", ("", "x"))
        kind, value = constant(default)
        if value is None:
            drafted = replace(self, mails=False).draft(
                {k: v for k, v in schema.items() if k != "default"}, required=False
            )
            note = (
                "which values, and how many? Its default, a list or an object, is sent "
                "where the model says nothing"
            )
            return Argument(
                self.name,
                None,
                note,
                drafted.proposal
                or f"{inline(self.name)}: {inline(drafted.rule or {'text': 200})}",
            )
        rule = {**_typed(kind), "is": value, **self._from_model, "optional": True}
        return self._decided(rule, "only the tool's own default", (default, None))

    def _enum(self, schema: Schema) -> Argument | None:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if not isinstance(values, list):
            return None
        kept = [
            (v, kind, shown)
            for v in values
            if v is not None
            for kind, shown in (constant(v),)
            if shown is not None
        ]
        if len({kind for _, kind, _ in kept}) != 1 or len(kept) > 1000:
            return self._undecided(
                "its schema lists values of several kinds", **{"in": ["..."]}
            )
        first, kind, _ = kept[0]
        shown = list(dict.fromkeys(s for _, _, s in kept))
        rule = {
            **_typed(kind),
            **({"is": shown[0]} if len(shown) == 1 else {"in": shown}),
            **self._from_model,
        }
        return self._decided(
            rule,
            "the model chooses among these" if self.acting and len(shown) > 1 else "",
            (first, None),
        )

    def _single(self, schema: Schema) -> Argument:
        closed = self._enum(schema)
        if closed:
            return closed
        kind = str(schema.get("type"))
        if kind in {"integer", "number"}:
            return self._number(schema, kind)
        if kind == "boolean":
            if self.acting:
                return self._undecided(
                    "may the model say yes and no?", type="boolean", **self._from_model
                )
            return self._decided({"type": "boolean"}, samples=(True, None))
        if kind == "string":
            return self._text(schema)
        untyped = not schema.keys() & "type properties anyOf oneOf allOf not".split()
        ask = (
            "of no type: which one? type: json takes any object or list"
            if untyped
            else "an object of no fixed form: type: json, and text: how long?"
        )
        return replace(self._undecided(ask), open=untyped)

    def _number(self, schema: Schema, kind: str) -> Argument:
        whole = kind == "integer"
        low = bound(schema.get("minimum"), schema.get("exclusiveMinimum"), 1 if whole else None)
        high = bound(
            schema.get("maximum"), schema.get("exclusiveMaximum"), -1 if whole else None
        )
        if guess(self.name) == "id" and high is None and "maximum" not in schema:
            return self._numbered(kind, low)
        if low is not None and high is not None and low <= high:
            first, last = (
                int(end) if end == end.to_integral_value() else float(end)
                for end in (low, high)
            )
            rule = {"type": kind, "min": _exact(low), "max": _exact(high)}
            if not self.acting:
                return self._decided(rule, samples=(first, None))
            return self._decided(
                {**rule, **_FROM_PROMPT},
                samples=(first, last if last != first else None),
                spoken=_exact(low),
            )
        if self.acting:
            least = _exact(low) if low is not None else "0"
            return replace(
                self._undecided(
                    "how much at most?", type=kind, min=least, max="...", **_FROM_PROMPT
                ),
                number=kind,
            )
        value = int(low) + 1 if low is not None and low > 0 else 7
        note = "no range in its schema, so the user must say it"
        return self._decided(
            {"type": kind, **_FROM_PROMPT}, note, (value, value + 1), str(value)
        )

    def _numbered(self, kind: str, low: Decimal | None) -> Argument:
        """A number that names one thing, such as an issue; an id where its name ends in that
        word.
        """
        first = max(1001, int(low) + 1) if low is not None else 1001
        if words_of(self.name)[-1] in IDS:
            rule = {"type": "id", **_FROM_PROMPT}
            note = "type guessed from its name"
        else:
            rule = {
                "type": kind,
                **({"min": _exact(low)} if low is not None else {}),
                **_FROM_PROMPT,
            }
            note = "it names one thing, as its name says, so no range"
        return self._decided(rule, note, (first, first + 1), str(first))

    def _text(self, schema: Schema) -> Argument:
        given = _FORMATS.get(str(schema.get("format")), "")
        described = _described(schema.get("description"))
        kind = given or described or guess(self.name) or ("email" if self.mails else "")
        pattern = whole_pattern(schema.get("pattern"))
        if pattern is not None:
            return self._patterned(pattern, kind)
        if kind == "id" and (shape := _shape(schema)) is not None:
            return replace(
                self._patterned(shape, kind),
                note="pattern guessed from its examples; not_pattern in a step-up would ask instead",
            )
        if kind:
            first, second = SAMPLES[kind]
            spoken = (
                first.replace("T", " ") if kind == "datetime" else SIGNS.get(kind, "") + first
            )
            note = (
                ""
                if given
                else f"type guessed from its {'description' if described else 'name'}"
            )
            return self._decided({"type": kind, **_FROM_PROMPT}, note, (first, second), spoken)
        longest = schema.get("maxLength")
        if type(longest) is int and 1 <= longest <= 20_000:
            rule = {"text": longest, **self._written_by_model}
            return self._decided(
                rule, "free text, written by the model", ("hello"[:longest], None)
            )
        return replace(
            self._undecided(
                "free text; how long may it be, or which values?",
                text=200,
                **self._written_by_model,
            ),
            open=True,
        )

    def _patterned(self, pattern: str, kind: str) -> Argument:
        values = _matching(pattern)
        kind = kind or (
            "id"
            if values
            and normal("id", values[0]) is not None
            and any(c.isdigit() for c in values[0])
            else ""
        )
        if kind and kind not in NUMERIC:
            fits = values if values and normal(kind, values[0]) is not None else None
            spoken = SIGNS.get(kind, "") + fits[0] if fits else ""
            return self._decided(
                {"type": kind, "pattern": pattern, **_FROM_PROMPT}, samples=fits, spoken=spoken
            )
        rule = {"pattern": pattern, **self._from_model}
        return self._decided(
            rule,
            "written by the model within this pattern",
            (values[0], None) if values else None,
        )

    def _list(self, schema: Schema) -> Argument:
        element = self._single(resolve(schema.get("items"), self.root))
        longest = schema.get("maxItems")
        most = longest if type(longest) is int and 1 <= longest <= 1000 else 1
        if element.rule is None:
            return self._undecided(
                f"a list; of each element: {element.note}",
                text=200,
                max_items=most,
                **self._written_by_model,
            )
        rule = dict(element.rule)
        for key in ("in", "is"):
            if key in rule:
                values = rule.pop(key)
                rule = {"each_in": values if isinstance(values, list) else [values], **rule}
        origins = {"from": rule.pop("from")} if "from" in rule else {}
        if (
            rule.get("type") in {"integer", "number"}
            and not origins
            and "min" not in rule
            and self.acting
        ):
            origins = _FROM_PROMPT
        note = (
            element.note
            if longest == most
            else f"{element.note}; one at a time: its schema sets no maximum".removeprefix("; ")
        )
        samples = element.samples
        lists = (
            ([samples[0]], [samples[1]] if samples[1] is not None else None)
            if samples
            else None
        )
        return self._decided(
            {**rule, "max_items": most, **origins}, note, lists, element.spoken
        )


def _typed(kind: str) -> dict[str, str]:
    return {"type": kind} if kind != "text" else {}


def constant(value: Any) -> tuple[str, Any]:
    """Type and YAML form of a constant; (.., None) when a workflow cannot hold it."""
    if type(value) is bool:
        return "boolean", value
    if type(value) in {int, float}:
        exact = number(value)
        if exact is None:
            return "number", None
        if type(value) is float:
            return "number", f"{exact:f}"
        return "integer", int(exact)
    if (
        type(value) is str
        and value
        and value.isprintable()
        and len(value) <= 2000
        and normal("text", value) is not None
    ):
        return "text", value
    return "text", None


def _exact(value: Decimal) -> str:
    return str(int(value)) if value == value.to_integral_value() else f"{value:f}"


def guess(name: str) -> str:
    """The type that a name suggests, or empty; of a path its last step does, or what that is
    the value of.
    """
    *outer, last = name.split(".")
    words = words_of(outer[-1]) if outer and last in {"address", "value"} else words_of(last)
    return next((_NAMES[w] for w in reversed(words) if w in _NAMES), "")


def _described(description: Any) -> str:
    """The type that a description names, or empty: the description of a `recipient` may say
    that it is an IBAN.
    """
    words = (
        frozenset(re.findall(r"[a-z-]+", description.lower()))
        if type(description) is str
        else frozenset[str]()
    )
    return next((kind for word, kind in _SAID.items() if word in words), "")


def _shape(schema: Schema) -> str | None:
    """The pattern of the ids in a schema's examples, or of the one that its description quotes;
    None where they are not of one form.
    """
    given = schema.get("examples")
    description = schema.get("description")
    found = (
        given
        if isinstance(given, list) and given
        else _QUOTED.findall(description)
        if type(description) is str
        else []
    )
    shapes = {
        _RUN.sub(lambda m: f"[0-9]{{{len(m[0])}}}", each)
        for each in found
        if type(each) is str and _CODE.fullmatch(each)
    }
    return (
        shapes.pop()
        if len(shapes) == 1
        and all(type(each) is str and _CODE.fullmatch(each) for each in found)
        else None
    )


_CODE = re.compile(r"[A-Z][A-Za-z]{0,9}[-_]?[0-9]{2,12}", re.ASCII)
_RUN = re.compile(r"[0-9]+", re.ASCII)
_QUOTED = re.compile(r"\b[A-Z][A-Za-z]{0,9}[-_]?[0-9]{2,12}\b", re.ASCII)


def _matching(pattern: str) -> tuple[str, Any] | None:
    """A value that the pattern matches and another one, if there is one; one with a digit first
    (people number what they name).
    """
    whole = Pattern.of(pattern)
    samples = (from_pattern(pattern, variant) for variant in range(VARIANTS))
    matching = sorted(
        dict.fromkeys(v for v in samples if v and whole.matches(v)),
        key=lambda v: not any(c.isdigit() for c in v),
    )
    return (matching[0], matching[1] if len(matching) > 1 else None) if matching else None


# --- as a start drafts it ---------------------------------------------------------------------
def opened(a: Argument, schema: Any, root: Values, *, acting: bool) -> Argument:
    """The argument for a start in which the person who runs it is asked: what is undecided, or
    only a default, the model may write.
    """
    resolved = resolve(schema, root)
    kind = resolved.get("type")
    if a.rule is not None and not (
        resolved.get("default") is not None and {"is", "pattern"} & a.rule.keys()
    ):
        a = _unguessed(a, a.rule)
        soft = {
            **(a.rule or {}),
            **({"max_items": _MOST} if "max_items" in (a.rule or {}) else {}),
        }
        return replace(a, rule=soft)
    left_out = a.left_out or (
        {"optional": True} if not a.always or resolved.get("default") is not None else {}
    )
    rule: Json = {"type": "json", "text": 4000}
    sample: Any = {"note": "hello"}
    items = resolve(resolved.get("items"), root) if kind == "array" else {}
    closed = items.get("enum")
    if (
        isinstance(closed, list)
        and closed
        and all(constant(v)[0] == "text" and constant(v)[1] for v in closed)
    ):
        rule = {"each_in": closed, "max_items": _MOST}
        sample = [closed[0]]
    elif (element := _SIMPLE.get(str(items.get("type")))) is not None:
        rule = {**element[0], "max_items": _MOST}
        sample = [element[1]]
    elif str(kind) in _SIMPLE:
        rule = dict(_SIMPLE[str(kind)][0])
        sample = _SIMPLE[str(kind)][1]
    elif kind == "array":
        sample = ["hello"]
    elif a.open:  # of no type: most are text
        rule = dict(_SIMPLE["string"][0])
        sample = "hello"
    return Argument(
        a.name,
        {**rule, **({"from": ["model"]} if acting else {}), **left_out},
        "the model chooses",
        samples=(sample, None),
        always=a.always,
    )


def asked_about(a: Argument, effect: Effect) -> Argument:
    """The argument, about which the user is asked where they did not name it; their yes names
    what is looked up, and who is written to.
    """
    rule = a.rule or {}
    if not set(rule.get("from", ())) - {"model"}:
        return a
    kinds = (
        kind_of(CONFIRMED).types
        if effect == "read"
        else frozenset[str]()
        if effect == "destructive"
        else _RECIPIENTS
    )
    named = (
        ["confirmed"] if rule.get("type", "text") in kinds and "prompt" in rule["from"] else []
    )
    return replace(
        a, rule={**rule, "from": [*rule["from"], *named], "unknown_origin": "confirm"}
    )


def _unguessed(a: Argument, rule: Values) -> Argument:
    """The argument without what was only guessed, and would refuse what the tool takes."""
    only = rule.get("each_in", ())
    if EACH in a.name and len(only) == 1:  # a default inside a list
        kind = str(rule.get("type", "string"))
        return replace(
            a,
            rule={
                **{k: v for k, v in rule.items() if k not in {"each_in", "type"}},
                **_SIMPLE[kind][0],
            },
            note="the model chooses",
        )
    if a.note.startswith("pattern guessed"):
        return replace(a, rule={key: value for key, value in rule.items() if key != "pattern"})
    if (
        not a.note.startswith("type guessed from its name")
        or words_of(a.name)[-1] in IDS
        or not a.samples
    ):
        return a
    first = a.samples[0][0] if isinstance(a.samples[0], list) else a.samples[0]
    return replace(
        a,
        rule={"text": 2000, **{k: v for k, v in rule.items() if k != "type"}},
        note="a text of the user's words",
        spoken=first,
    )


_RECIPIENTS = frozenset("email iban phone user channel".split())
_MOST = 50  # elements of a list
# of a JSON Schema's type: any value of it, and one
_SIMPLE: Mapping[str, tuple[Values, Any]] = {
    "string": ({"text": 2000}, "hello"),
    "integer": ({"type": "integer"}, 1),
    "number": ({"type": "number"}, 1),
    "boolean": ({"type": "boolean"}, True),
}
