"""The mutants of a fact, and of a `step_up.when` condition: when a result counts less strictly, or a person is asked less often."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

from agentgate.review.mutant import Changes, Mutations
from agentgate.review.mutant_arguments import OTHERS, is_list, named, placed
from agentgate.review.values import candidates, step, written
from agentgate.workflow import Fact, Rule, StepUpRule, Tool


class Conditions:
    """Mutants of facts and of step-up conditions."""

    def __init__(self, found: Mutations) -> None:
        self.found = found

    def fact(self, tool: Tool, fact: Fact) -> None:
        """Every condition on one fact."""
        path, found = f"tools.{tool.name}.facts.{fact.name}", self.found
        users = [
            (t, r, s)
            for t in found.workflow.tools.values()
            for r in t.args.values()
            for s in r.sources
            if s.tool == tool.name and s.field == fact.name
        ]
        if fact.pattern is not None:
            mutated = found.with_tool(tool, facts={**tool.facts, fact.name: replace(fact, pattern=None)})
            tries = [
                {"call": t.name, f"args.{r.name}": value, f"origin.{r.name}": named(s)}
                for t, r, s in users
                for value in (*candidates(replace(r, pattern=None, one_of=None, equals=None)), *OTHERS)
            ]
            found.add(
                f"{path}.pattern", "dropped", fact.line, mutated, ("Fact", "pattern"), tries[:40], name=f"{fact.name} of another form"
            )
        if fact.named:
            mutated = found.with_tool(tool, facts={**tool.facts, fact.name: replace(fact, named=False)})
            unnamed = [
                {"call": t.name, f"origin.{r.name}": named(s), f"earlier.{tool.name}.{a.name}": value}
                for t, r, s in users
                for a in tool.args.values()
                for value in islice(candidates(a), 3)
            ]
            found.add(
                f"{path}.trust",
                "named -> always",
                fact.line,
                mutated,
                ("Fact", "named"),
                unnamed,
                name=f"{fact.name} of a source the user did not name",
            )

    def firing(self, tool: Tool, rule: StepUpRule) -> list[Changes]:
        """Changes after which a step-up rule may fire."""
        if not rule.when:
            return [{}]
        ways: list[Changes] = [{}]
        for when in rule.when:
            argument = tool.args.get(when.name)
            if argument is not None:
                both: list[Changes] = [{**way, **more} for way in ways for more in self._fires(argument, when)]
                ways = both[:60]
        return ways

    def _fires(self, argument: Rule, when: Rule) -> list[Changes]:
        name = argument.name
        values: list[Any] = []
        if when.above is not None:
            values.append(written(argument, when.above + step(when.above)))
        values += [v for key in (when.equals, when.one_of) for v in key or ()]
        values += [made for made in islice(candidates(replace(when, max_items=None, type=argument.type)), 12) if made not in values]
        if when.not_in is not None:
            values += [v for v in candidates(argument) if v not in when.not_in]
        if when.origin is not None:
            places = ["model" if o == "unknown" or o.kind == "model" else named(o) for o in when.origin]
            return [{f"origin.{name}": where} for where in places]
        made = [[v] if is_list(argument) and type(v) is not list else v for v in values]
        return list(placed(argument, made))

    def when(self, tool: Tool, rule: StepUpRule, when: Rule) -> None:
        """Every operator of one `step_up.when` condition, so that the rule fires less often, or always."""
        found, path = self.found, f"step_up.{rule.id}.when.{when.name}"
        argument = tool.args.get(when.name, when)
        others = [v for v in islice(candidates(argument), 12) if v not in (when.not_in or ())][:1]

        def add(key: str, words: str, name: str, tries: Iterable[Changes], **changes: Any) -> None:
            mutated = tuple(replace(r, **changes) if r is when else r for r in rule.when)
            found.add(
                f"{path}.{key}",
                words,
                when.line,
                found.with_step_up(tool, rule, when=mutated),
                ("Rule", next(iter(changes))),
                tries,
                tool=tool.name,
                name=name,
            )

        if when.above is not None:
            high = when.above + step(when.above)
            tries = placed(argument, [written(argument, high)])
            add("above", f"{when.above} -> {high}", f"{when.name} above {when.above} asks {rule.group}", tries, above=high)
        for key, field in (
            ("is", "equals"),
            ("in", "one_of"),
            ("pattern", "pattern"),
            ("glob", "glob"),
            ("text", "text"),
            ("not_in", "not_in"),
            ("origin", "origin"),
        ):
            if getattr(when, field) is not None:
                same = [{f"args.{when.name}": v} for v in [*(when.not_in or ()), *islice(candidates(argument), 8)]]
                add(key, "dropped (asks more often)", f"{when.name} that need not be asked about", [{}, *same], **{field: None})
        for key, values in (("in", when.one_of or ()), ("not_in", when.not_in or ())):
            for value in values if len(values) > 1 or key == "not_in" else ():
                kept = tuple(v for v in values if v != value) if key == "in" else (*values, *others)
                made = placed(argument, [value] if key == "in" else others)
                words = f"{value} dropped (asks less often)" if key == "in" else f"{others[0] if others else ''} added (asks less often)"
                add(key, words, f"{when.name} {value} asks {rule.group}", made, **{"one_of" if key == "in" else "not_in": kept})
        for key, field in (("min", "minimum"), ("max", "maximum")):
            bound = getattr(when, field)
            if bound is not None:
                inside = placed(argument, [written(argument, bound)])
                moved = bound + step(bound) * (1 if field == "minimum" else -1)
                add(key, f"{bound} -> {moved}", f"{when.name} of {bound} asks {rule.group}", inside, **{field: moved})
