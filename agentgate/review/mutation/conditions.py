"""The mutants of a fact, and of a `step_up.when` condition: when a result counts less strictly, or a person is asked otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, product
from typing import Any

from agentgate.decision.origin_kinds import kind_of
from agentgate.review.mutation.arguments import OTHERS, is_list, named, placed
from agentgate.review.mutation.mutant import Changes, Mutations
from agentgate.review.scenarios.filling import parts
from agentgate.review.scenarios.values import candidates, fits
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


class ConditionMutants:
    """Mutants of facts and of step-up conditions."""

    def __init__(self, found: Mutations) -> None:
        self.found = found

    def fact(self, tool: Tool, fact: Fact) -> None:
        """Every condition on one fact."""
        path, found = f"tools.{tool.name}.facts.{fact.name}", self.found
        tools = found.workflow.tools.values()
        every = [(t, r, s) for t in tools for r in t.args.values() for s in r.sources]
        users = [(t, r, s) for t, r, s in every if s.tool == tool.name and s.field == fact.name]
        if fact.pattern is not None:
            mutated = found.with_tool(tool, facts={**tool.facts, fact.name: replace(fact, pattern=None)})
            tries: list[Changes] = [
                {"call": t.name, f"args.{r.name}": value, f"origin.{r.name}": named(s)}
                for t, r, s in users
                for value in (*candidates(replace(r, pattern=None, one_of=None, equals=None)), *OTHERS)
            ]
            name = f"{fact.name} of another form"
            found.add(f"{path}.pattern", "dropped", fact.line, mutated, ("Fact", "pattern"), tries[:40], name=name)
        if fact.named and all(self._must_be_named(rule) for rule in tool.args.values()):
            found.skip(f"{path}.trust", f"implied: every argument of {tool.name} must be named in the prompt anyway")
        elif fact.named:
            mutated = found.with_tool(tool, facts={**tool.facts, fact.name: replace(fact, named=False)})
            unnamed: list[Changes] = [
                {"call": t.name, f"origin.{r.name}": named(s), f"earlier.{tool.name}.{a.name}": value}
                for t, r, s in users
                for a in tool.args.values()
                for value in (*islice(candidates(a), 3), *(self._words(t) if a.type == "text" and PROMPT in a.sources else ()))
            ]
            name = f"{fact.name} of a source that the user did not name"
            found.add(f"{path}.trust", "named -> always", fact.line, mutated, ("Fact", "named"), unnamed, name=name)

        rows = f"facts.{tool.name}."
        if fact.named_by:
            unsaid: Changes = {rows + label: _UNSAID.get(tool.facts[label].type, "zzyzx") for label in fact.named_by}
            self._of_users(tool, fact, "named_by", [unsaid], f"{fact.name} of a row that the user does not mean", named_by=())
        for name, argument in fact.where:
            others: list[Changes] = [{rows + name: value} for value in islice(candidates(Rule(name, 0, tool.facts[name].type)), 3)]
            kept = tuple(pair for pair in fact.where if pair != (name, argument))
            self._of_users(tool, fact, f"where.{name}", others, f"{fact.name} of a row that was not asked for", where=kept)

    def _must_be_named(self, rule: Rule) -> bool:
        """Whether every value that an argument may have is named by the user: of a text, any of the user's words may be one."""
        if rule.sources == (PROMPT,):
            return rule.type != "text"
        tools, loose = self.found.workflow.tools, rule.any_call or rule.unknown_origin == "step_up"
        facts = [tools[s.tool].facts[s.field] for s in rule.sources if kind_of(s).row_fact and tools[s.tool].effect == "read"]
        told = rule.type != "text" and not loose and all(fact.named or fact.named_by for fact in facts)
        return told and bool(facts) and len(facts) == sum(s != PROMPT for s in rule.sources)

    def _words(self, tool: Tool) -> list[str]:
        """Single words of what the user says where a tool is called."""
        return re.findall(r"[A-Za-z]{4,}", " ".join(parts(self.found.base(tool.name).values["prompt"])))[:3]

    def _of_users(self, tool: Tool, fact: Fact, key: str, ways: list[Changes], name: str, **changes: Any) -> None:
        """A condition on rows: told by the calls that take the fact."""
        found = self.found
        tools = [
            t
            for t in found.workflow.tools.values()
            for r in t.args.values()
            for s in r.sources
            if (s.tool, s.field) == (tool.name, fact.name)
        ]
        mutated = found.with_tool(tool, facts={**tool.facts, fact.name: replace(fact, **changes)})
        tries: list[Changes] = [{"call": t.name, **way} for t in tools for way in ways]
        path = f"tools.{tool.name}.facts.{fact.name}.{key}"
        found.add(path, "any row", fact.line, mutated, ("Fact", next(iter(changes))), tries, name=name)

    # --- step-up conditions --------------------------------------------------------------------------------------------------

    def firing(self, tool: Tool, rule: StepUpRule) -> list[Changes]:
        """Changes after which every condition of a step-up rule holds."""
        return self._ways(tool, rule)

    def _ways(self, tool: Tool, rule: StepUpRule, other: Rule | None = None, changes: Iterable[Changes] = ()) -> list[Changes]:
        """Changes after which every condition of a rule holds, with those `changes` in the place of one of them."""
        parts = [list(islice(changes, 12)) if when is other else self._values(tool, when, hold=True) for when in rule.when]
        return [{key: value for part in way for key, value in part.items()} for way in islice(product(*parts), 80)]

    def _meets(self, tool: Tool, argument: Rule, when: Rule, value: Any) -> bool:
        """Whether a value satisfies what a condition says of values."""
        plain = replace(when, type=argument.type, origin=None, max_items=argument.max_items, currency=argument.currency)
        return fits(self.found.with_tool(tool, args={**tool.args, argument.name: plain}), tool.name, argument.name, value)

    def _values(self, tool: Tool, when: Rule, *, hold: bool) -> list[Changes]:
        """Changes after which one condition holds, or does not: none if it is so already."""
        argument = tool.args.get(when.name)
        if argument is None:
            return []
        if when.origin is not None:
            own = [str(MODEL) if o == "unknown" or kind_of(o).free else named(o) for o in when.origin]
            other = [where for where in ("prompt", *(named(s) for s in argument.sources), "model") if where not in own]
            return [{f"origin.{when.name}": where} for where in (own if hold else other)]
        current = self.found.base(tool.name).values.get(f"args.{when.name}")
        out: list[Changes] = [{}] if current is not None and self._meets(tool, argument, when, current) is hold else []
        good = (
            value
            for value in self._pool(argument, when)
            if fits(self.found.workflow, tool.name, when.name, value) and self._meets(tool, argument, when, value) is hold
        )
        return [*out, *islice((change for value in islice(good, 3) for change in placed(argument, [value])), 6)]

    @staticmethod
    def _pool(argument: Rule, when: Rule) -> Iterator[Any]:
        """Values near a condition: on both sides of its bounds, what it lists, what it and the argument allow."""
        near = [value for operator in when.operators for value in operator.near(argument.type)]
        listed = candidates(replace(when, max_items=None, type=argument.type))
        rest = (v[0] if is_list(argument) else v for v in candidates(argument))
        for value in (*near, *islice(listed, 16), *islice(rest, 24)):
            yield [value] if is_list(argument) else value

    def when(self, tool: Tool, rule: StepUpRule, when: Rule) -> None:
        """Every operator of one condition, so that the rule fires less often, or more."""
        argument = tool.args.get(when.name, when)
        at, asks = f"step_up.{rule.id}.when.{when.name}", f"asks {rule.group}"

        def add(key: str, words: str, name: str, value: Iterable[Changes], **changes: Any) -> None:
            mutated = self.found.with_step_up(tool, rule, when=tuple(replace(r, **changes) if r is when else r for r in rule.when))
            tries, of = self._ways(tool, rule, when, value), ("Rule", next(iter(changes)))
            self.found.add(f"{at}.{key}", words, when.line, mutated, of, tries, tool=tool.name, name=name)

        for operator in when.operators:
            if operator.bounds:
                continue  # moved, below
            if getattr(argument, operator.field) == operator.value:
                self.found.skip(f"{at}.{operator.key}", f"implied: the argument {when.name} has the same")
            else:
                outside = f"{when.name} that {rule.id} does not ask about"
                add(operator.key, "dropped", outside, self._values(tool, when, hold=False), **{operator.field: None})
        if when.origin is not None:
            add("origin", "dropped", f"{when.name} that {rule.id} does not ask about", self._values(tool, when, hold=False), origin=None)
        others = list(candidates(replace(argument, max_items=None)))
        for operator in when.operators:
            for words, value, name, tries in operator.narrowed(argument.type, others):
                only = placed(argument, [[v] if is_list(argument) else v for v in tries or ()])
                add(operator.key, words, f"{when.name} {name} {asks}", only, **{operator.field: value})
