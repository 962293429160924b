"""One argument or `step_up.when` condition: from its block to the frozen value, reporting what
is wrong with it.

Rules: an operator that can never hold is a load error, not a silent refusal later (a constant
outside its own pattern, a range upside down, an origin that nothing produces); money is never
compared without its currency; a constant is compared in its type's normal form, so it must have
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentgate.decision.origins.kinds import kind_of
from agentgate.loading.blocks import WORDING, ArgumentBlock, OperatorsBlock, WhenBlock
from agentgate.loading.facts import one_list, read_bound, read_select
from agentgate.loading.site import Place, Site, argument_type, comparable
from agentgate.loading.yaml_nodes import Path, did_you_mean, shown
from agentgate.values.entities import CALCULATED, NUMERIC, TOKENISED, Key, normal
from agentgate.values.paths import EACH
from agentgate.workflow.operators import OPERATORS, unreachable
from agentgate.workflow.rule import (
    BY_YES,
    COMPUTED,
    CONFIRMED,
    MODEL,
    PROMPT,
    REMEMBERED,
    USER,
    Rule,
    Source,
    Sources,
)

_FLAGS = "any_call named_first optional nullable page_size sensitive".split()
_BY_KEY = {operator.key: operator for operator in OPERATORS}
# a key of an argument, the attribute of the key that must be beside it, what is expected
_NEEDS = WORDING["needs"]
# a key of an argument, the types that may have it, what is expected
_ONLY_ON = WORDING["only_on"]
_NEVER_INSIDE = {  # origins that nothing inside a text has, and why
    "model": "model would allow every address the model writes",
    "computed": "no address is computed",
    **{
        source.kind: "a yes is to an argument, and explains nothing inside a text"
        for source in BY_YES
    },
}


@dataclass(slots=True)
class _Reading:
    """What compiling an operator needs: the type of the value, and the place to report at
    (`agentgate.workflow.operators.Reading`).
    """

    at: Place
    kind: str

    def report(self, key: str, got: str, expected: str, *, at_key: bool = False) -> None:
        """Report what is wrong with this operator."""
        (self.at[key].report_key if at_key else self.at[key].report)(got, expected)

    def constants(self, key: str, values: list[Any]) -> tuple[Key, ...]:
        """Constants as comparison keys; one that has no normal form can never equal
        anything.
        """
        keys = []
        for index, value in enumerate(values):
            normalised = normal(self.kind, value)
            if normalised is not None:
                keys.append(normalised)
            else:
                self.at[key].element(index).report(
                    shown(value), f"{self.kind} in normal form (nothing else can ever equal it)"
                )
        return tuple(keys)  # not shared: True equals 1


def _operators(block: OperatorsBlock, kind: str, at: Place) -> dict[str, Any]:
    """The fields of a `Rule` that hold its operators."""
    stated = block.operators()
    if not stated:
        return {}
    reading = _Reading(at, kind)
    read = [(_BY_KEY[key], _BY_KEY[key].compiled(raw, reading)) for key, raw in stated.items()]
    compiled = [(operator, value) for operator, value in read if value is not None]
    for key, got, expected, at_key in _contradictions(stated, kind):
        reading.report(key, got, expected, at_key=at_key)
    wrong = (
        unreachable([operator(value) for operator, value in compiled])
        if len(compiled) > 1
        else None
    )
    if wrong:
        reading.report(
            wrong.key,
            "constants outside the other operators",
            "at least one that the other operators allow",
        )
    return {operator.field: value for operator, value in compiled}


def _contradictions(
    stated: Mapping[str, Any], kind: str
) -> Iterator[tuple[str, str, str, bool]]:
    """What is wrong between the operators of one rule: key, what it got, what was expected,
    whether the key itself is what is wrong.
    """
    if "is" in stated and "in" in stated:
        yield "in", "is and in", "one of them", True
    low = stated.get("min")
    high = stated.get("max")
    if (low is None) != (high is None):
        one, other = ("min", "max") if high is None else ("max", "min")
        yield one, f"{one} without {other}", "min and max, both", True
    elif low is not None and high is not None:
        if low > high:
            yield "min", f"{low} above max {high}", "min at most max (nothing is inside)", False
        if kind == "integer" and (low % 1 or high % 1):
            yield "min", f"{low} to {high}", "whole numbers for an integer", False


# --- arguments --------------------------------------------------------------------------------


def argument_rule(site: Site, tool: str, name: str, block: ArgumentBlock, at: Place) -> Rule:
    """The rule of one argument of a tool."""
    kind = argument_type(block)
    operators = _operators(block, kind, at)
    if block.each_in:
        operators["one_of"] = _Reading(at, kind).constants("each_in", list(block.each_in))
    sources = site.sources(block.from_, at["from"]) if block.from_ else ()
    sources = tuple(
        site.built(Source, source.kind, "", tool) if source in BY_YES else source
        for source in sources
    )
    if block.select:
        selected = read_select(site, tool, block.select, kind, at["select"])
        sources = site.share((*sources, *([] if selected is None else [selected])))
    at_most = read_bound(site, block.at_most, kind, at["at_most"]) if block.at_most else None
    scopes = (
        _role(site, block, block.narrower_than_role, at)
        if block.narrower_than_role
        else frozenset()
    )
    entities = _entities(site, block.entities, at["entities"]) if block.entities else None
    for key, got, expected in (
        *_misplaced(block, name, kind, sources),
        *_malformed(site, tool, name, block, sources),
    ):
        at[key].report_key(got, expected)
    for index, text in enumerate(block.from_ or ()):
        source = next((each for each in sources if each.tool and str(each) == text), None)
        for got, expected in (
            *_origin(site, block, text, source, sources),
            *_by_yes(site, tool, name, block, text, of=source),
        ):
            at["from", index].report(got, expected)
    if block.currency is not None and kind == "money":
        _currency(site, tool, block.currency, at["currency"])
    operators |= {name: bool(getattr(block, name)) for name in _FLAGS}
    return site.built(
        Rule,
        name,
        at.line,
        kind,
        at_most=at_most,
        max_items=block.max_items,
        role=block.narrower_than_role or "",
        role_scopes=scopes,
        sources=sources,
        unknown_origin=block.unknown_origin or "deny",
        entities=entities,
        currency=block.currency or "",
        needs=tuple(block.needs or ()),
        record=block.record or "",
        **operators,
    )


def _misplaced(
    block: ArgumentBlock, name: str, kind: str, sources: Sources
) -> Iterator[tuple[str, str, str]]:
    """Keys of an argument that may not be beside, or without, another one: key, what it got,
    what was expected.
    """
    for key, needed, expected in _NEEDS:
        if getattr(block, key) and not getattr(block, needed):
            yield key, f"{key} without {needed.removesuffix('_')}", expected
    for key, kinds, expected in _ONLY_ON:
        if getattr(block, key) and kind not in kinds:
            yield key, f"{key} on a {kind}", expected
    one_value = block.in_ is not None or block.is_ is not None
    if block.each_in and one_value:
        yield (
            "each_in",
            "each_in beside is or in",
            "one of them (each_in: a list; is, in: one value)",
        )
    if block.max_items and one_value and not block.each_in:
        yield "max_items", "is or in on a list", "each_in (every element of the list is one of)"
    earlier = any(s.tool or s == USER for s in sources)
    if block.any_call and not earlier and not block.at_most:
        yield (
            "any_call",
            "any_call without an earlier call",
            "any_call only beside from or at_most that names a tool (or user)",
        )
    if block.named_first and (PROMPT not in sources or not earlier or MODEL in sources):
        why = "it says that what the user names goes before what a tool returned"
        yield (
            "named_first",
            "named_first with nothing to go before",
            f"from: [prompt, tool.fact or user, ...] without model ({why})",
        )
    if block.named_first and kind == "text":
        yield (
            "named_first",
            "named_first on a text",
            "a type that is told apart in a prompt, such as iban or email",
        )
    if block.record and (block.sensitive or "." in name):
        got = (
            "record: full beside sensitive"
            if block.sensitive
            else "record: full inside a structure"
        )
        yield "record", got, "a whole argument that is not sensitive"
    if block.nullable and name.endswith(EACH):
        yield (
            "nullable",
            "nullable on the elements of a list",
            "no nullable (an element is sent or not)",
        )


def _malformed(
    site: Site, tool: str, name: str, block: ArgumentBlock, sources: Sources
) -> Iterator[tuple[str | Path, str, str]]:
    """What is wrong with an argument as a whole, or as a page's size: the key inside it, what
    it got, what was expected.
    """
    kind = argument_type(block)
    if "." in name:
        for got, expected in _leaf(name, block, site.tools[tool].args):
            yield (), got, expected
    if kind == "money" and block.currency is None:
        compared = any(
            o is not None
            for o in (block.min, block.at_most, block.is_, block.in_, block.each_in)
        )
        if compared or any(text != "model" for text in block.from_ or ()):
            yield (
                (),
                "money without a currency",
                "currency: the argument that holds it (money is never compared without)",
            )
    if kind == "json" and (block.text is None or block.max_items is not None):
        expected = "text: how many characters of JSON at most, and no max_items (a list is one JSON value)"
        yield (), "json without text" if not block.text else "json beside max_items", expected
    if kind == "text" and (not block.from_ or MODEL in sources) and not _narrows(block):
        expected = "at least one operator (text: N, pattern, in, a type, ...) or an origin other than model"
        yield (), "an argument without a rule", expected
    if block.page_size:
        for got, expected in _page_size(site, tool, name, block, kind):
            yield "page_size", got, expected


def _narrows(block: ArgumentBlock) -> bool:
    """Whether some operator restricts a text."""
    return (
        bool(block.operators())
        or block.each_in is not None
        or block.narrower_than_role is not None
    )


def _leaf(
    name: str, block: ArgumentBlock, args: Mapping[str, ArgumentBlock]
) -> Iterator[tuple[str, str]]:
    """A leaf of a structure: one value for each element of a list is a list, and no argument is
    both a value and a structure.
    """
    if EACH in name and not block.max_items:
        yield (
            f"{name} without max_items",
            "max_items: how many of them at most, in all elements",
        )
    parts = name.split(".")
    for outer in (".".join(parts[:end]) for end in range(1, len(parts))):
        inside = next(
            (other for other in (outer, outer.removesuffix(EACH)) if other in args), None
        )
        if inside is not None:
            yield (
                f"{name} beside {inside}",
                "rules for the leaves, or one for the whole argument",
            )


def _page_size(
    site: Site, tool: str, name: str, block: ArgumentBlock, kind: str
) -> Iterator[tuple[str, str]]:
    """`page_size`: of a read whose rows are the elements of one list."""
    effect = site.tools[tool].effect
    if effect != "read":
        yield (
            f"page_size of a {effect} tool",
            "page_size only on a read (the most rows it returns)",
        )
    elif kind != "integer" or block.max_items or "." in name or block.sensitive:
        shape = (
            "inside a structure"
            if "." in name
            else "on a list"
            if block.max_items
            else f"on a {kind}"
        )
        yield (
            f"page_size {'that is sensitive' if block.sensitive else shape}",
            "one whole number that is kept: type: integer",
        )
    elif one_list(site, tool) is None:
        yield (
            f"page_size of {tool}",
            "facts of exactly one list, which is in no other (elsewhere nobody can count what came back)",
        )
    elif block.max is None and block.in_ is None and block.is_ is None:
        yield (
            "page_size without a most",
            "min and max: no more than the tool itself returns at once (else a full page looks short)",
        )


def _role(site: Site, block: ArgumentBlock, role: str, at: Place) -> frozenset[str]:
    here = at["narrower_than_role"]
    scopes = site.role(role, here)
    if scopes is None:
        return frozenset()
    if len(scopes) < 2:
        here.report(
            f"role {role} of {len(scopes)} scope", "a role with something narrower than itself"
        )
    for index, value in enumerate(block.each_in or ()):
        if value not in scopes:
            at["each_in", index].report(
                shown(value), f"a scope of role {role}", did_you_mean(value, scopes)
            )
    return scopes


def _entities(site: Site, texts: list[str], at: Place) -> Sources:
    """`entities`: where an address, link or account inside a text may come from."""
    for index, text in enumerate(texts):
        if text in _NEVER_INSIDE:
            at[index].report(text, f"prompt or tool.fact ({_NEVER_INSIDE[text]})")
    return site.sources(texts, at)


def _origin(
    site: Site, block: ArgumentBlock, text: str, source: Source | None, sources: Sources
) -> Iterator[tuple[str, str]]:
    """One of `from`: an origin that no value of this type can have: what it got, what was
    expected.
    """
    kind = argument_type(block)
    if source:
        other, currency = site.typed(source)
        if not comparable(kind, other):
            yield f"a {kind} from a {other}", f"an origin whose values can equal a {kind}"
        elif other == "money" and not currency:
            yield (
                f"{text} without a currency",
                f"currency: on {text} (money is never compared without)",
            )
    elif text == "computed":
        yield from _computed(block, kind, sources)
    elif text == "prompt" and kind not in TOKENISED:
        yield (
            f"prompt for type {kind}",
            f"a type that is found in a prompt: {', '.join(sorted(TOKENISED))}",
        )
    elif text == "user" and kind not in kind_of(USER).types:
        yield (
            f"user for type {kind}",
            f"a type that an id of a person can be: {', '.join(sorted(kind_of(USER).types))}",
        )


def _by_yes(
    site: Site, tool: str, name: str, block: ArgumentBlock, text: str, *, of: Source | None
) -> Iterator[tuple[str, str]]:
    """What rests on a yes: never for what destroys, and only of what the user was asked about
    and shown.
    """
    gone = site.tools[tool].effect == "destructive"
    kind = argument_type(block)
    fact = site.fact(of) if of else None
    if gone and fact and fact.trust == "confirmed":
        yield (
            f"{text} with trust: confirmed, of a destructive tool",
            "a fact with trust: named",
        )
    if text not in {source.kind for source in BY_YES}:
        return
    if gone:
        yield (
            f"{text}, of a destructive tool",
            "other origins (each such call is asked about by itself)",
        )
    if kind not in kind_of(CONFIRMED).types or block.sensitive:
        got = f"{text} of a sensitive value" if block.sensitive else f"{text} for type {kind}"
        yield (
            got,
            f"a type whose value names one thing: {', '.join(sorted(kind_of(CONFIRMED).types))}",
        )
    if block.unknown_origin in {None, "deny"}:
        yield (
            f"{text} without a question",
            "unknown_origin: confirm (nobody is asked about a value that is refused)",
        )
    if text == REMEMBERED.kind:
        remember = site.tools[tool].remember
        if CONFIRMED.kind not in (block.from_ or ()):
            yield (
                "remembered without confirmed",
                "confirmed beside it (what counts in later runs counts in this one)",
            )
        if remember is None or name not in remember.arg:
            yield (
                f"remembered, and {tool} does not remember {name}",
                f"remember: {{arg: {name}, for: 90d}} on {tool}",
            )
        if EACH in name:
            yield (
                "remembered, inside a list",
                "an argument of its own (a yes to a list is a yes to none of its elements)",
            )


def _computed(block: ArgumentBlock, kind: str, sources: Sources) -> Iterator[tuple[str, str]]:
    """`computed`: a number out of numbers that the other origins of the list admit."""
    if kind not in CALCULATED:
        yield (
            f"computed for type {kind}",
            f"a type that is calculated: {', '.join(sorted(CALCULATED))}",
        )
    elif MODEL in sources:
        yield (
            "computed beside model",
            "one of the two (what the model may write needs no calculation)",
        )
    elif not any(s.tool or s == PROMPT for s in sources):
        yield (
            "computed alone",
            "prompt or tool.fact beside it (the numbers that it is computed from)",
        )
    elif block.max_items:
        yield (
            "computed on a list",
            "one value (who is owed how much of several, nobody can tell)",
        )
    elif block.named_first:
        expected = (
            "one of the two (where the user names a number, computed would never "
            "hold: nor would half of it)"
        )
        yield "computed beside named_first", expected


def _currency(site: Site, tool: str, name: str, at: Place) -> None:
    sibling = site.tools[tool].args.get(name)
    if not sibling:
        at.unknown(name, f"an argument of {tool}", site.tools[tool].args)
    elif argument_type(sibling) != "text" or sibling.max_items or sibling.optional:
        at.report(
            shown(name),
            "an argument that is one text and not optional (left out, it would compare nothing)",
        )


# --- conditions of a step-up ------------------------------------------------------------------


def condition(site: Site, tool: str, name: str, block: WhenBlock, at: Place) -> Rule | None:
    """One condition of a step-up; type and list come from the argument it looks at."""
    args = site.tools[tool].args
    if name not in args:
        at.unknown(name, f"an argument of {tool}", args, key=True)
        return None
    argument = args[name]
    kind = argument_type(args[name])
    operators = _operators(block, kind, at)
    if not block.model_fields_set:
        at.report_key(
            "a condition without an operator",
            "above, not_in, not_pattern, origin or another operator",
        )
    if block.above is not None and kind in NUMERIC:
        if kind == "money" and not argument.currency:
            at["above"].report_key(
                "money without a currency", f"currency: on the argument {name}"
            )
        elif argument.max is not None and block.above >= argument.max:
            at["above"].report(
                f"above {block.above}",
                f"less than the argument's max {argument.max} (it would never ask)",
            )
    origin: list[Source | Literal["unknown"]] = []
    for index, text in enumerate(block.origin or ()):
        here = at["origin"].element(index)
        if text == "unknown":
            origin.append("unknown")
            if argument.unknown_origin in {None, "deny"}:
                why = "otherwise an unknown origin is refused and nobody is asked"
                here.report(
                    "unknown", f"unknown_origin: step_up (or confirm) on {name} ({why})"
                )
            continue
        source = site.source(text, here)
        if source:
            origin.append(source)
            _fewer_asked(site, text, source, here)
    return site.built(
        Rule,
        name,
        at.line,
        kind,
        max_items=argument.max_items,
        currency=argument.currency or "",
        origin=tuple(origin) if block.origin else None,
        **operators,
    )


def _fewer_asked(site: Site, text: str, source: Source, at: Place) -> None:
    """A condition on an origin whose absence would ask less often."""
    if source in {COMPUTED, *BY_YES}:
        at.report(
            source.kind,
            "unknown, or an origin of its own (a number less to compute with would ask less often)",
        )
    fact = site.fact(source)
    if fact and (fact.named_by or fact.where):
        expected = (
            "a fact of every row (one that counts in some rows would ask less often: "
            "unknown asks for the rest)"
        )
        at.report(f"{text}, named_by or where", expected)
