"""The mutants of a fact and of a `step_up.when` condition: a result counts more often, or a person is asked less or more often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, product
from typing import Any

from agentgate.decision.origin_kinds import kind_of
from agentgate.review.mutation.arguments import OTHERS, placed
from agentgate.review.mutation.mutant import Basis, Changes, Mutated, Part
from agentgate.review.scenarios.fields import named
from agentgate.review.scenarios.values import candidates, fits, sent, singles
from agentgate.review.scenarios.wording import long_words
from agentgate.workflow.model import StepUpRule, Tool
from agentgate.workflow.rule import MODEL, PROMPT, Fact, Rule

_UNSAID = {
    "email": "zzyzx@unsaid.example",
    "path": "zzyzx.txt",
    "money": "0.07",
    "number": "7",
    "integer": 7,
    "date": "1999-01-07",
    "datetime": "1999-01-07T07:07",
    "time": "07:07",
    "iban": "GB29NWBK60161331926819",
    "phone": "+3310700700",
    "domain": "zzyzx.example",
    "url": "https://zzyzx.example/",
    "id": "Z-0707",
}


def fact(basis: Basis, tool: Part, declared: Fact) -> Mutated:
    """Every mutant of a fact; the calls that take it as an origin show them."""
    name, part = declared.name, replace(tool.inside(f"{tool.path}.facts.{declared.name}", "facts", declared), tool="")
    read: Tool = tool.value
    every = [(t, r, s) for t in basis.workflow.tools.values() for r in t.args.values() for s in r.sources]
    takers = [(t, r, s) for t, r, s in every if (s.tool, s.field) == (read.name, name)]
    if declared.pattern is not None:
        tries: list[Changes] = [
            {"call": t.name, f"args.{r.name}": value, f"origin.{r.name}": named(s)}
            for t, r, s in takers
            for value in (*candidates(replace(r, pattern=None, one_of=None, equals=None)), *OTHERS)
        ]
        yield part.mutant("pattern", "dropped", f"{name} of another form", tries[:40], pattern=None)
    if declared.named and all(_must_be_named(basis, rule) for rule in read.args.values()):
        yield part.skipped("trust", f"implied: every argument of {read.name} must be named in the prompt anyway")
    elif declared.named:
        said = {t.name: long_words(basis.turns(t.name))[:3] for t, _, _ in takers}
        unnamed: list[Changes] = [
            {"call": t.name, f"origin.{r.name}": named(s), f"earlier.{read.name}.{a.name}": value}
            for t, r, s in takers
            for a in read.args.values()
            for value in (*islice(candidates(a), 3), *(said[t.name] if a.type == "text" and a.prompted else ()))
        ]
        yield part.mutant("trust", "named -> always", f"{name} of a source that the user did not name", unnamed, named=False)
    rows = f"facts.{read.name}."
    if declared.named_by:
        unsaid = {rows + label: _UNSAID.get(read.facts[label].type, "zzyzx") for label in declared.named_by}
        unmeant = [{"call": t.name, **unsaid} for t, _, _ in takers]
        yield part.mutant("named_by", "any row", f"{name} of a row that the user does not mean", unmeant, named_by=())
    for pair in declared.where:
        values = list(islice(candidates(Rule(pair[0], 0, read.facts[pair[0]].type)), 3))
        others = [{"call": t.name, rows + pair[0]: value} for t, _, _ in takers for value in values]
        kept = tuple(each for each in declared.where if each != pair)
        yield part.mutant(f"where.{pair[0]}", "any row", f"{name} of a row that was not asked for", others, where=kept)


def _must_be_named(basis: Basis, rule: Rule) -> bool:
    """Whether every value that an argument may have is named by the user: of a text, any of the user's words may be one."""
    if rule.sources == (PROMPT,):
        return rule.type != "text"
    tools, loose = basis.workflow.tools, rule.any_call or rule.unknown_origin == "step_up"
    facts = [tools[s.tool].facts[s.field] for s in rule.sources if kind_of(s).row_fact and tools[s.tool].effect == "read"]
    meant = rule.type != "text" and not loose and all(fact.named or fact.named_by for fact in facts)
    return meant and bool(facts) and len(facts) == sum(s != PROMPT for s in rule.sources)


# --- step-up conditions ------------------------------------------------------------------------------------------------------


def firing(basis: Basis, tool: Tool, rule: StepUpRule, other: Rule | None = None, changes: Iterable[Changes] = ()) -> list[Changes]:
    """Changes under which every condition of a step-up rule holds; for the condition `other`, these `changes`."""
    ways = [list(islice(changes, 12)) if when is other else _values(basis, tool, when, hold=True) for when in rule.when]
    return [{key: value for part in way for key, value in part.items()} for way in islice(product(*ways), 80)]


def conditions(basis: Basis, tool: Tool, part: Part) -> Mutated:
    """Every mutant of the conditions of a step-up rule, which then asks less often, or more."""
    rule: StepUpRule = part.value
    for when in rule.when:
        condition = part.inside(f"{part.path}.when.{when.name}", "when", when)
        argument = tool.args.get(when.name, when)
        dropped = {operator.key: operator.field for operator in when.operators if not operator.bounds}  # bounds are moved, below
        for key, field in (dropped | ({"origin": "origin"} if when.origin is not None else {})).items():
            if getattr(argument, field) == getattr(when, field):
                yield condition.skipped(key, f"implied: the argument {when.name} has the same")
            else:
                loose: dict[str, Any] = {field: None}
                outside = firing(basis, tool, rule, when, _values(basis, tool, when, hold=False))
                yield condition.mutant(key, "dropped", f"{when.name} that {rule.id} does not ask about", outside, **loose)
        others = list(singles(argument))
        for operator in when.operators:
            for words, value, name, tries in operator.narrowed(argument.type, others):
                only = firing(basis, tool, rule, when, placed(argument, [sent(argument, each) for each in tries or ()]))
                yield condition.mutant(operator.key, words, f"{when.name} {name} asks {rule.group}", only, **{operator.field: value})


def _meets(basis: Basis, tool: Tool, argument: Rule, when: Rule, value: Any) -> bool:
    """Whether a condition's operators hold of a value."""
    plain = replace(when, type=argument.type, origin=None, max_items=argument.max_items, currency=argument.currency)
    changed = replace(tool, args={**tool.args, argument.name: plain})
    return fits(replace(basis.workflow, tools={**basis.workflow.tools, tool.name: changed}), tool.name, argument.name, value)


def _values(basis: Basis, tool: Tool, when: Rule, *, hold: bool) -> list[Changes]:
    """Changes after which one condition holds, or does not: none if it is so already."""
    argument = tool.args.get(when.name)
    if argument is None:
        return []
    if when.origin is not None:
        own = [str(MODEL) if o == "unknown" or kind_of(o).free else named(o) for o in when.origin]
        other = [where for where in ("prompt", *(named(s) for s in argument.sources), "model") if where not in own]
        return [{f"origin.{when.name}": where} for where in (own if hold else other)]

    def right(value: Any) -> bool:
        return _meets(basis, tool, argument, when, value) is hold

    current = basis.scene(tool.name).values.get(f"args.{when.name}")
    good = (v for v in _near(argument, when) if fits(basis.workflow, tool.name, when.name, v) and right(v))
    ways = (change for value in islice(good, 3) for change in placed(argument, [value]))
    return [*([{}] if current is not None and right(current) else []), *islice(ways, 6)]


def _near(argument: Rule, when: Rule) -> Iterator[Any]:
    """Values near a condition: on both sides of its bounds, what it lists, what it and the argument allow."""
    near = [value for operator in when.operators for value in operator.near(argument.type)]
    listed = singles(replace(when, type=argument.type))
    yield from (sent(argument, value) for value in (*near, *islice(listed, 16), *islice(singles(argument), 24)))
