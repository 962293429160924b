"""The mutants of where an argument may come from: `from`, `select`, `any_call`, `named_first`,
`entities`, `unknown_origin`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from agentgate.decision.origins.kinds import kind_of
from agentgate.review.mutation.mutant import Basis, Changes, Mutated, Part
from agentgate.review.scenarios.fields import named, place
from agentgate.review.scenarios.values import candidates, in_words, singles
from agentgate.values.entities import CALCULATED, TOKENISED
from agentgate.workflow.left_open import answerable
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import (
    BY_YES,
    COMPUTED,
    CONFIRMED,
    MODEL,
    PROMPT,
    USER,
    Rule,
    Source,
)

_ADDRESSES = {  # and a text that holds each
    "kim@other.example": "write to kim@other.example",
    "https://other.example/a": "see https://other.example/a",
    "DE12500105170648489890": "pay DE12500105170648489890",
    "a@b.test": "a@b.test",  # where only a short text passes
}


def origins(basis: Basis, tool: Tool, part: Part) -> Mutated:
    """Every mutant of the origins of an argument's value, and of the entities in its text."""
    rule: Rule = part.value
    if not rule.free:
        yield from _sources(basis, tool, part)
    if not rule.any_call and rule.references:
        money = _currency_of(basis, tool, rule)
        if _alone(tool, rule):
            yield part.skipped(
                "any_call", "implied: nothing else of the call is of an earlier call"
            )
        elif money:
            yield part.skipped(
                "any_call", f"implied: {money} must be of one call, and brings its currency"
            )
        else:
            yield part.mutant(
                "any_call",
                "false -> true",
                f"{rule.name} of another call than the rest",
                _mixed(tool, rule),
                any_call=True,
            )
    if rule.named_first:
        turns = basis.turns(tool.name)
        first = [
            {
                f"origin.{rule.name}": named(source),
                "prompt": [*turns, in_words(rule.type, value, "")],
            }
            | ({} if source.tool else {f"args.{rule.name}": other})
            for source in rule.sources
            if source.tool or source == USER
            for value, other in zip(islice(singles(rule), 1, 4), candidates(rule), strict=False)
        ]
        yield part.mutant(
            "named_first",
            "dropped",
            f"{rule.name} of elsewhere although the prompt names one",
            first,
            named_first=False,
        )
    yield from _widen_entities(basis, tool, part)


def _sources(basis: Basis, tool: Tool, part: Part) -> Mutated:
    rule: Rule = part.value
    origin = f"origin.{rule.name}"
    sources = rule.sources
    elsewhere = [{origin: where} for where in _elsewhere(basis, tool, rule)]
    yield part.mutant(
        "from", "dropped", f"{rule.name} that the model made up", elsewhere, sources=()
    )
    computable = rule.type in CALCULATED and rule.max_items is None and not rule.named_first
    asked = (
        rule.type in kind_of(CONFIRMED).types
        and not rule.sensitive
        and tool.effect != "destructive"
        and rule.unknown_origin == "confirm"
    )
    missing = [each for each in BY_YES if not any(s.kind == each.kind for s in sources)]
    wider = [
        (replace(yes, field=tool.name), str(yes), "that the user confirmed before")
        for yes in missing[:1]
        if asked
    ]
    if computable and COMPUTED not in sources and basis.workflow.intents:
        wider.insert(0, (COMPUTED, "computed", "that is only computed"))
    if rule.type in TOKENISED and PROMPT not in sources:
        wider.insert(0, (PROMPT, "the prompt's", "that only the prompt names"))
    for source, words, name in wider:
        yield part.mutant(
            "from",
            f"may also be {words}",
            f"{rule.name} {name}",
            [{origin: source.kind}],
            sources=(*sources, source),
        )
    for source in (s for s in sources if s.selector):
        any_row = tuple(
            replace(s, kind="fact", selector=None) if s is source else s for s in sources
        )
        name = f"{rule.name} of another row than the user's words select"
        yield part.mutant("select", "any row", name, _unselected(rule, source), sources=any_row)
    asks = answerable(tool, "origin", rule.name)
    if rule.unknown_origin == "deny" and asks is not None:
        yield part.mutant(
            "unknown_origin",
            f"deny -> {asks}",
            f"{rule.name} of unknown origin",
            elsewhere,
            unknown_origin=asks,
        )


def _widen_entities(basis: Basis, tool: Tool, part: Part) -> Mutated:
    """The entities in a text: any, asked about, or the prompt's."""
    rule: Rule = part.value
    if rule.entities is None:
        return
    name = f"an address in {rule.name} that"
    nobody = f"{name} nobody gave"
    stray = [
        {f"args.{rule.name}": {"note": text} if rule.type == "json" else text}
        for text in _ADDRESSES.values()
    ]
    yield part.mutant("entities", "dropped", nobody, stray, entities=None)
    asks = answerable(tool, "origin", rule.name, inside=True)
    if rule.unknown_origin == "deny" and asks is not None:
        yield part.mutant(
            "unknown_origin", f"deny -> {asks}", nobody, stray, unknown_origin=asks
        )
    if not {PROMPT, MODEL} & set(rule.entities):
        turns = basis.turns(tool.name)
        asked = [
            {**way, "prompt": [*turns, address]}
            for way, address in zip(stray, _ADDRESSES, strict=True)
        ]
        yield part.mutant(
            "entities",
            "may also be the prompt's",
            f"{name} only the prompt names",
            asked,
            entities=(*rule.entities, PROMPT),
        )


def _elsewhere(basis: Basis, tool: Tool, rule: Rule) -> Iterator[str]:
    """Where an argument may not come from: a field that the workflow does not declare, the
    prompt, the model alone.
    """
    yield from (
        f"{name}.comment" for name in dict.fromkeys(s.tool for s in rule.sources if s.tool)
    )
    if PROMPT not in rule.sources:
        yield "prompt"
    yield "model"
    yield from (
        f"{t.name}.comment"
        for t in basis.workflow.tools.values()
        if t is not tool and t.effect == "read"
    )


def _unselected(rule: Rule, source: Source) -> Iterator[Changes]:
    """Two rows, and the argument names the one that no superlative of the prompt selects."""
    ids = list(islice(candidates(rule), 2))
    selector = source.selector
    if not selector or len(ids) < 2:
        return
    for key, fact in selector.by:
        for values in (
            (1, 2),
            ("10:00", "11:00"),
            ("2026-06-03", "2026-06-04"),
            ("2026-06-03T10:00", "2026-06-04T10:00"),
        ):
            rows = {place(source): ids, f"facts.{source.tool}.{fact}": list(values)}
            for other in ids:
                for act in ("Please take", "Delete", "Send"):
                    yield {
                        **rows,
                        f"args.{rule.name}": other,
                        "prompt": f"{act} the {key} {selector.nouns[0]}",
                    }


def _currency_of(basis: Basis, tool: Tool, rule: Rule) -> str:
    """The money argument whose bound is of the same call and in this currency, if that is all
    this argument may come from.
    """
    for other in tool.args.values():
        bound = other.at_most
        if (
            other.currency == rule.name
            and not other.any_call
            and not other.optional
            and bound
            and kind_of(bound).row_fact
        ):
            sibling = Source(
                "fact", bound.tool, basis.workflow.tools[bound.tool].facts[bound.field].currency
            )
            if all(source == sibling for source in rule.sources):
                return other.name
    return ""


def _others(tool: Tool, rule: Rule) -> list[tuple[Rule, Source]]:
    """What the other arguments of the call refer to."""
    return [
        (other, source)
        for other in tool.args.values()
        if other is not rule
        for source in other.references
    ]


def _mixed(tool: Tool, rule: Rule) -> Iterator[Changes]:
    """One argument from the second call of a tool that disagrees with the rest, or is too long
    ago.
    """
    for source in rule.references:
        second = {f"origin.{rule.name}": f"{source.tool}#2.{source.field}"}
        for other, s in _others(tool, rule):
            if s.tool == source.tool and s != source:
                yield from (
                    {**second, place(s, "#2"): value} for value in islice(candidates(other), 4)
                )
        for order in tool.sequence:
            if order.require == source.tool and order.within is not None:
                yield {**second, f"ago.{source.tool}#2": f"{order.within + 1}s"}
        two = list(islice(singles(rule), 2))
        if rule.max_items is not None and len(two) == 2:
            yield {f"args.{rule.name}": two, place(source): two[0], place(source, "#2"): two[1]}


def _alone(tool: Tool, rule: Rule) -> bool:
    """Whether nothing else of the call refers to the tools that this single value refers to:
    then it is always of one call.
    """
    own = {s.tool for s in rule.references}
    once = rule.max_items is None and (len(rule.references) == 1 or rule.at_most is None)
    return once and not own & {
        *(s.tool for _, s in _others(tool, rule)),
        *(o.require for o in tool.sequence if o.within is not None),
    }
