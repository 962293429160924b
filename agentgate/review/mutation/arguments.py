"""The mutants of one argument: every operator, dropped or loosened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import Any

from agentgate.decision.origin_kinds import kind_of, of_call
from agentgate.review.mutation.mutant import Changes, Mutations
from agentgate.review.scenarios.filling import in_words, parts
from agentgate.review.scenarios.values import MALFORMED, candidates, fits
from agentgate.values.entities import CALCULATED, TOKENISED, number
from agentgate.workflow.model import Tool
from agentgate.workflow.operator import Operator
from agentgate.workflow.operators import as_sent, key_of
from agentgate.workflow.page_size import counted
from agentgate.workflow.rule import COMPUTED, MODEL, PROMPT, USER, Rule, Source

OTHERS = ("something-else", "USD", "other", "X", "kim@other.example", "https://other.example/", "2")


def named(source: Source) -> str:
    """How `origin.x` names a source."""
    return f"{source.tool}.{source.field}" if source.tool else str(source)


def place(source: Source, second: str = "") -> str:
    """The key of a scene under which an earlier call says what this source says."""
    return f"{'facts' if of_call(source).returned else 'earlier'}.{source.tool}{second}.{source.field}"


def is_list(rule: Rule) -> bool:
    """Whether the argument is a list."""
    return rule.max_items is not None


def placed(rule: Rule, values: Iterable[Any]) -> Iterator[Changes]:
    """Each value alone, then where the rule would let it come from."""
    kept = list(islice(values, 12))
    arg, origin = f"args.{rule.name}", f"origin.{rule.name}"
    places = [named(source) for source in rule.sources if source != MODEL]
    if not places:
        yield from ({arg: value} for value in kept)
    for value in kept:
        for where in places:
            yield {arg: value, origin: where}
    if rule.at_most is not None:
        for value in kept:
            yield {arg: value, place(rule.at_most): value}


class ArgumentMutants:
    """Mutants of the rules on single values."""

    def __init__(self, found: Mutations) -> None:
        self.found = found

    def argument(self, tool: Tool, rule: Rule) -> None:
        """Every operator of one argument."""
        found, path = self.found, f"tools.{tool.name}.args.{rule.name}"

        def add(key: str, words: str, name: str, tries: Iterable[Changes], **changes: Any) -> None:
            mutated = found.with_rule(tool, rule, **changes)
            found.add(f"{path}.{key}", words, rule.line, mutated, ("Rule", next(iter(changes))), tries, tool=tool.name, name=name)

        arg = f"args.{rule.name}"
        if rule.type != "text":
            add(
                "type",
                f"{rule.type} -> any text",
                f"{rule.name} not in the form of type {rule.type}",
                placed(rule, self._malformed(rule)),
                type="text",
            )
        implied = self._implied(rule)
        for operator in rule.operators:
            key = key_of(operator, rule)
            if operator.field in implied:
                found.skip(f"{path}.{key}", f"implied: {implied[operator.field]} has the same")
                continue
            words, value, name, tries = operator.loosened(rule.type)
            values = self._others(tool, rule, operator) if tries is None else tries
            ways = [{arg: each} for each in values] if operator.length is not None else placed(rule, values)
            add(key, words, f"{rule.name} {name}", ways, **{operator.field: value})
        if rule.at_most is not None:
            add("at_most", "dropped", f"{rule.name} above {rule.at_most}", self._above(tool, rule), at_most=None)
        if rule.max_items is not None:
            add(
                "max_items",
                f"{rule.max_items} -> {rule.max_items + 1}",
                f"too many {rule.name}",
                self._too_many(rule),
                max_items=rule.max_items + 1,
            )
        if rule.role:
            full: list[Changes] = [
                {arg: sorted(rule.role_scopes)},
                *({arg: [scope]} for scope in rule.one_of or () if scope not in rule.role_scopes),
            ]
            add("narrower_than_role", "dropped", f"all of the role {rule.role}", full, role="", role_scopes=frozenset())
        self._origins(tool, rule, add)
        if rule.currency:
            foreign = [{f"args.{rule.currency}": other} for other in candidates(tool.args[rule.currency]) if rule.currency in tool.args]
            add("currency", "dropped", f"{rule.name} in another currency", foreign, currency="")
        if not rule.optional:
            add("optional", "required -> optional", f"no {rule.name}", [{arg: None}], optional=True)
        elif not rule.nullable and not rule.name.endswith("[]"):
            add("nullable", "false -> true", f"{rule.name} sent as null", [{arg: None, "nulls": [rule.name]}], nullable=True)
        if self._may_be_size(tool, rule):
            name = f"a row that the user names, where the model chose {rule.name}"
            mutated, line, of = found.with_rule(tool, rule, page_size=True), rule.line, ("Rule", "page_size")
            found.add(f"{path}.page_size", "false -> true", line, mutated, of, self._sized(tool, rule), name=name)
        if rule.needs:
            add("needs", "dropped", f"{rule.name} that nobody asked for", self._unasked(tool, rule), needs=())
        if rule.sensitive:
            found.add(
                f"{path}.sensitive", "true -> false", rule.line, found.with_rule(tool, rule, sensitive=False), ("Rule", "sensitive"), [{}],
                tool=tool.name, pin=("grants", "masked"), name=f"{rule.name} is masked",
            )  # fmt: skip

    def _origins(self, tool: Tool, rule: Rule, add: Any) -> None:
        found, path = self.found, f"tools.{tool.name}.args.{rule.name}"
        origin = f"origin.{rule.name}"
        if not rule.free:
            elsewhere = list(self._nowhere(tool, rule))
            add("from", "dropped", f"{rule.name} that the model made up", [{origin: where} for where in elsewhere], sources=())
            if PROMPT not in rule.sources and rule.type in TOKENISED:
                add(
                    "from",
                    "may also be the prompt's",
                    f"{rule.name} that only the prompt names",
                    [{origin: "prompt"}],
                    sources=(*rule.sources, PROMPT),
                )
            may = rule.type in CALCULATED and not is_list(rule) and not rule.named_first
            if may and COMPUTED not in rule.sources and found.workflow.intents:
                words, name = "may also be computed", f"{rule.name} that is only computed"
                add("from", words, name, [{origin: "computed"}], sources=(*rule.sources, COMPUTED))
            for source in (s for s in rule.sources if s.selector is not None):
                any_row = tuple(replace(s, kind="fact", selector=None) if s is source else s for s in rule.sources)
                add(
                    "select",
                    "any row",
                    f"{rule.name} of another row than the user's words select",
                    self._unselected(rule, source),
                    sources=any_row,
                )
            if rule.unknown_origin == "deny" and tool.step_ups:
                asked = [{origin: where} for where in elsewhere]
                add("unknown_origin", "deny -> step_up", f"{rule.name} of unknown origin", asked, unknown_origin="step_up")
        if not rule.any_call and rule.references:
            money = self._currency_of(tool, rule)
            if self._alone(tool, rule):
                found.skip(f"{path}.any_call", "implied: nothing else of the call is of an earlier call")
            elif money:
                found.skip(f"{path}.any_call", f"implied: {money} must be of one call, and brings its currency")
            else:
                add("any_call", "false -> true", f"{rule.name} of another call than the rest", self._mixed(tool, rule), any_call=True)
        if rule.named_first:
            turns = parts(found.base(tool.name).values["prompt"])
            first: list[Changes] = [
                {origin: named(source), "prompt": [*turns, in_words(rule.type, value[0] if type(value) is list else value, "")]}
                | ({} if source.tool else {f"args.{rule.name}": other})
                for source in rule.sources
                if source.tool or source == USER
                for value, other in zip(islice(candidates(rule), 1, 4), candidates(rule), strict=False)
            ]
            add("named_first", "dropped", f"{rule.name} of elsewhere although the prompt names one", first, named_first=False)
        if rule.entities is not None:
            self._entities(tool, rule, add)

    def _entities(self, tool: Tool, rule: Rule, add: Any) -> None:
        """Addresses inside a text: where they may come from, and what is done when they do not."""
        said = {"kim@other.example": "write to {}", "https://other.example/a": "see {}", "DE12500105170648489890": "pay {}"}
        texts = {address: text.format(address) for address, text in said.items()}
        stray: list[Changes] = [{f"args.{rule.name}": {"note": text} if rule.type == "json" else text} for text in texts.values()]
        add("entities", "dropped", f"an address in {rule.name} that nobody gave", stray, entities=None)
        if rule.unknown_origin == "deny" and tool.step_ups:
            add("unknown_origin", "deny -> step_up", f"an address in {rule.name} that nobody gave", stray, unknown_origin="step_up")
        if rule.entities is not None and not {PROMPT, MODEL} & set(rule.entities):
            turns = parts(self.found.base(tool.name).values["prompt"])
            asked: list[Changes] = [{**way, "prompt": [*turns, address]} for way, address in zip(stray, texts, strict=True)]
            name = f"an address in {rule.name} that only the prompt names"
            add("entities", "may also be the prompt's", name, asked, entities=(*rule.entities, PROMPT))

    def _may_be_size(self, tool: Tool, rule: Rule) -> bool:
        """Whether `page_size` could be said of an argument, and would make rows count."""
        plain = rule.type == "integer" and not is_list(rule) and "." not in rule.name and rule.equals is None
        free = not rule.page_size and not any(r.sensitive or "." in r.name for r in tool.args.values())
        labelled = tool.effect == "read" and any(fact.named_by for fact in tool.facts.values())
        return plain and free and labelled and counted(fact.path for fact in tool.facts.values()) is not None

    def _sized(self, tool: Tool, rule: Rule) -> Iterator[Changes]:
        """A labelled row that the user names, of a call with a size that nobody named."""
        for other in self.found.workflow.tools.values():
            for taken in other.args.values():
                for source in taken.sources:
                    if kind_of(source).row_fact and source.tool == tool.name and tool.facts[source.field].named_by:
                        for size in islice(candidates(rule), 8):
                            place = {f"origin.{taken.name}": named(source), f"earlier.{tool.name}.{rule.name}": size}
                            yield {"call": other.name, **place}

    # --- values that break one operator ------------------------------------------------------------------------------------

    def _implied(self, rule: Rule) -> dict[str, str]:
        """Operators that every place the value may come from has too: no value reaches the argument that they would refuse."""
        out: dict[str, str] = {}
        tools = self.found.workflow.tools
        if not rule.sources or not all(s.tool and (kind_of(s).row_fact or not of_call(s).returned) for s in rule.sources):
            return out
        for operator in rule.operators:
            if operator.bounds or operator.length is not None:
                continue
            own = getattr(rule, operator.field)
            places = [
                getattr(tools[s.tool].args.get(s.field) or tools[s.tool].facts.get(s.field), operator.field, None) for s in rule.sources
            ]
            if all(other == own for other in places):
                out[operator.field] = " and ".join(map(str, rule.sources))
        return out

    def _currency_of(self, tool: Tool, rule: Rule) -> str:
        """The money argument whose bound is of the same call and in this currency, if that is all this argument may come from."""
        tools = self.found.workflow.tools
        for other in tool.args.values():
            bound = other.at_most
            if other.currency == rule.name and not other.any_call and not other.optional and bound is not None and kind_of(bound).row_fact:
                sibling = Source("fact", bound.tool, tools[bound.tool].facts[bound.field].currency)
                if all(source == sibling for source in rule.sources):
                    return other.name
        return ""

    def _malformed(self, rule: Rule) -> Iterator[Any]:
        for value in MALFORMED.get(rule.type, ()):
            yield [value] if is_list(rule) else value

    def _others(self, tool: Tool, rule: Rule, operator: Operator) -> Iterator[Any]:
        """Values that the rule allows without this operator only, near ones first."""
        loosened: dict[str, Any] = {operator.field: None}
        loose = replace(rule, **loosened)
        mutated = self.found.with_rule(tool, rule, **loosened)
        near: list[Any] = []
        for value in islice(candidates(rule), 3):
            first = value[0] if is_list(rule) else value
            if type(first) is str:
                near += [
                    first + "x",
                    first + "/x",
                    first[:-1],
                    first.rpartition("/")[0],
                    first + ".other.example",
                    first.lower(),
                    "x" + first,
                ]
            elif type(first) is int:
                near += [first + 1]
        pool = [
            *sorted(rule.role_scopes - set(rule.one_of or ())),
            *OTHERS,
            *near,
            *(v[0] if is_list(rule) else v for v in candidates(replace(loose, max_items=None))),
        ]
        for value in dict.fromkeys(pool):
            made = [value] if is_list(rule) else value
            if value != "" and not fits(self.found.workflow, tool.name, rule.name, made) and fits(mutated, tool.name, rule.name, made):
                yield made

    def _above(self, tool: Tool, rule: Rule) -> Iterator[Changes]:
        """More than the earlier call's fact says, still within the range."""
        bound = rule.at_most
        values = self.found.base(tool.name).values
        if bound is None:
            return
        top = number(values.get(place(bound)))
        if top is None:
            return
        more = as_sent(rule.type, top + Decimal("0.01") if rule.type != "integer" else top + 1)
        yield {f"args.{rule.name}": more}
        for where in dict.fromkeys([*(named(s) for s in rule.sources if s != MODEL), "prompt"]):
            yield {f"args.{rule.name}": more, f"origin.{rule.name}": where}

    def _too_many(self, rule: Rule) -> Iterator[Changes]:
        allowed = [value[0] for value in islice(candidates(rule), 64)]
        most = (rule.max_items or 0) + 1
        for pool in (allowed, [v for v in allowed if v in rule.role_scopes], allowed[:1], allowed[:2]):
            if pool:
                yield {f"args.{rule.name}": [pool[i % len(pool)] for i in range(most)]}

    def _nowhere(self, tool: Tool, rule: Rule) -> Iterator[str]:
        """Where an argument may not come from: a field nobody declared, the prompt, the model alone."""
        tools = dict.fromkeys(s.tool for s in rule.sources if s.tool)
        yield from (f"{name}.comment" for name in tools)
        if PROMPT not in rule.sources:
            yield "prompt"
        yield "model"
        yield from (f"{t.name}.comment" for t in self.found.workflow.tools.values() if t is not tool and t.effect == "read")

    def _unasked(self, tool: Tool, rule: Rule) -> Iterator[Changes]:
        """The argument beside words that ask for something else of this tool, or for nothing."""
        intents = self.found.workflow.intents
        others = [n for n in dict.fromkeys((*tool.needs, *(n for r in tool.args.values() for n in r.needs))) if n not in rule.needs]
        texts = [text for name in others if name in intents for text in intents[name].examples[:2]]
        texts += [text for name in rule.needs for text in intents[name].counter_examples[:2]] + ["Good morning"]
        said = {k: v for k, v in self.found.base(tool.name).values.items() if k.startswith("args.") and type(v) is str}
        words = " and ".join(dict.fromkeys(v for k, v in said.items() if k != f"args.{rule.name}"))
        places = ["", *(named(source) for source in rule.sources if source != MODEL)]
        for value in islice(candidates(rule), 3):
            for text in texts:
                for where in places:
                    for prompt in (text, f"{text}. {words}"):
                        yield {f"args.{rule.name}": value, "prompt": prompt} | ({f"origin.{rule.name}": where} if where else {})

    @staticmethod
    def _unselected(rule: Rule, source: Source) -> Iterator[Changes]:
        """Two rows, and the argument names the one that no superlative of the prompt selects."""
        ids = list(islice(candidates(rule), 2))
        selector = source.selector
        if selector is None or len(ids) < 2:
            return
        for key, fact in selector.by:
            asks = f"the {key} {selector.nouns[0]}"
            for values in ((1, 2), ("10:00", "11:00"), ("2026-06-03", "2026-06-04"), ("2026-06-03T10:00", "2026-06-04T10:00")):
                rows = {f"facts.{source.tool}.{source.field}": ids, f"facts.{source.tool}.{fact}": list(values)}
                for other in ids:
                    for base in ("Please take {}", "Delete {}", "Send {}"):
                        yield {**rows, f"args.{rule.name}": other, "prompt": base.format(asks)}

    def _mixed(self, tool: Tool, rule: Rule) -> Iterator[Changes]:
        """One argument from the second call of a tool that says something else about the rest, or is too long ago."""
        for source in rule.references:
            second: Changes = {f"origin.{rule.name}": f"{source.tool}#2.{source.field}"}
            others = [(other, s) for other in tool.args.values() if other is not rule for s in other.references]
            for other, s in others:
                for value in islice(candidates(other), 4 if s.tool == source.tool and s != source else 0):
                    yield {**second, place(s, "#2"): value}
            for order in tool.sequence:
                if order.require == source.tool and order.within is not None:
                    yield {**second, f"ago.{source.tool}#2": f"{order.within + 1}s"}
            if is_list(rule):
                two = [value[0] for value in islice(candidates(rule), 2)]
                if len(two) == 2:
                    yield {f"args.{rule.name}": two, place(source): two[0], place(source, "#2"): two[1]}

    def _alone(self, tool: Tool, rule: Rule) -> bool:
        """Whether nothing else of the call refers to the tools that this one value refers to: then it is always of one call."""
        mine = {s.tool for s in rule.references}
        once = len(rule.references) == 1 or (rule.at_most is None and not is_list(rule))
        others = {s.tool for other in tool.args.values() if other is not rule for s in other.references}
        return once and not is_list(rule) and not mine & (others | {order.require for order in tool.sequence if order.within is not None})
