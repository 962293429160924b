"""What a scene leaves out, filled with values that the workflow allows.

Rules: deterministic, without a clock. A stated value is never changed (a sentence may be added
to a prompt when it must name an argument that was made up); what was left out on purpose (None)
stays out. Only what the call needs is made up: its required arguments, the earlier calls they
refer to, and their facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple

from agentgate.decision.origins.kinds import kind_of, of_call
from agentgate.review.scenarios.values import (
    SceneError,
    added,
    bare,
    calculation,
    can_be_named,
    candidates,
    circumstances,
    elements,
    fits,
    in_words,
    label,
    missing,
    names,
    place,
    put,
    read,
    sent,
    tool_and_field,
)
from agentgate.values.entities import number
from agentgate.values.patterns import Pattern
from agentgate.values.value_class import Json
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import PROMPT, USER, Fact, Rule, Source

AGO = "1m"  # how long before the call an earlier one was redeemed


class Slot(NamedTuple):
    """An argument of the call (``args.``) or of an earlier one (``earlier.TOOL.``)."""

    tool: Tool
    rule: Rule
    prefix: str = "args."

    @property
    def key(self) -> str:
        """Its key in the scene."""
        return self.prefix + self.rule.name


def _calls(rule: Rule) -> list[Source]:
    """The origins that name an earlier call and no row of it."""
    return [source for source in rule.sources if source.tool and not source.selector]


class Filler:
    """Completes the values of one scene in place; `filled` holds what was made up.

    `whole`: nothing was complete before, so what a stated argument needs is made up too.
    Otherwise a change would change more than it says.
    """

    def __init__(
        self,
        workflow: Workflow,
        values: Json,
        *,
        whole: bool = False,
    ) -> None:
        self.workflow = workflow
        self.values = values
        self.whole = whole
        self.filled: Json = {}
        self._busy: set[str] = set()

    def put(self, key: str, value: Any) -> None:
        """Make up one value."""
        self.values[key] = self.filled[key] = value

    def need(self, key: str, value: Any) -> None:
        """Make up a value where the scene has none."""
        if missing(self.values, key):
            self.put(key, value)

    def fill(self) -> None:
        """Make up everything that the call needs."""
        tools = self.workflow.tools
        values = self.values
        self.need(
            "call", next((n for n, t in tools.items() if t.effect != "read"), next(iter(tools)))
        )
        self.need("tenant", self.workflow.tenants[0])
        for key, value in circumstances(self.workflow, values["tenant"]):
            self.need(key, value)
        tool = tools.get(values["call"])
        self.need("prompt", ". ".join(self._requests(tool)) if tool else "")
        if not tool:
            return
        if tool.definition:
            self.need("definition", tool.definition)
        blocks = (key.partition(".") for key, value in values.items() if value is not None)
        calls = [
            tool_and_field(tools, rest)
            for block, _, rest in blocks
            if block in {"facts", "earlier", "ago", "yes"}
        ]
        for earlier in dict.fromkeys(call[0] for call in calls if call):
            self._earlier(earlier)
        self._call(tool, "args.")

    def _requests(self, tool: Tool) -> Iterator[str]:
        """An example of one intent that each sent argument needs, and the tool itself; each
        once.
        """
        chosen: set[str] = set()
        sent = (
            r.needs
            for r in tool.args.values()
            if r.needs and (not r.optional or self.values.get(f"args.{r.name}") is not None)
        )
        for needs in (*sent, tool.needs):
            known = [name for name in needs if name in self.workflow.intents]
            if known and chosen.isdisjoint(known):
                chosen.add(known[0])
                yield from self.workflow.intents[known[0]].examples[:1]

    # --- calls --------------------------------------------------------------------------------
    def _earlier(self, call: str) -> None:
        """An earlier call with everything that it needs itself; the second of a tool is like
        the first where nothing is stated.
        """
        tool = self.workflow.tools.get(bare(call))
        if not tool or call in self._busy or not missing(self.values, f"earlier.{call}"):
            return
        self._busy.add(call)
        for block in ("earlier", "facts", "ago", "yes") if "#" in call else ():
            first = f"{block}.{tool.name}"
            for key in [k for k in self.values if k == first or k.startswith(first + ".")]:
                self.need(f"{block}.{call}{key[len(first) :]}", self.values[key])
        self.need(f"ago.{call}", AGO)
        self._call(tool, f"earlier.{call}.")

    def _call(self, tool: Tool, prefix: str) -> None:
        for order in tool.sequence:
            self._earlier(order.require)
        currencies = {rule.currency for rule in tool.args.values()}
        for rule in sorted(tool.args.values(), key=lambda rule: rule.name not in currencies):
            slot = Slot(tool, rule, prefix)
            if missing(self.values, slot.key) and not rule.optional:
                self._make(slot)
            elif self.values.get(slot.key) is not None and self.whole:
                self._support(slot)

    def _make(self, slot: Slot) -> None:
        """A required argument that is not stated: from a place that the scene states, else made
        up and put where it may come from.
        """
        rule = slot.rule
        for source in (*_calls(rule), *([rule.at_most] if rule.at_most else [])):
            self._earlier(source.tool)
        present = (sent(rule, one) for one in self._present(slot))
        value = next(
            (
                v
                for v in chain(present, candidates(rule, self.bound(rule)))
                if self._fits(slot, v)
            ),
            None,
        )
        if value is not None:
            self.put(slot.key, value)
            self._support(slot)

    def _present(self, slot: Slot) -> Iterator[Any]:
        """Values of the scene, where the rule lets the argument come from."""
        rule = slot.rule
        places = [place(source) for source in _calls(rule)]
        if USER in rule.sources and "who.user.id" not in self.filled:
            places.append("who.user.id")
        for key in places:
            if self.values.get(key) is not None:
                yield from elements(self.values[key])
        if PROMPT in rule.sources and (
            not any(s.tool for s in rule.sources) or self.values["prompt"]
        ):
            prompt = read(self.values)
            currency = self.currency(slot)
            for entity in (
                entity for table in prompt.named.values() for entity in table.values()
            ):
                for text in dict.fromkeys((str(entity.key), entity.words)):
                    if names(prompt, rule, text, currency):
                        yield text

    def _fits(self, slot: Slot, value: Any) -> bool:
        """Whether a value fits the rule, its bound, and the rule of an earlier argument that it
        comes from.
        """
        rule = slot.rule
        bound = self.bound(slot.rule)
        amount = number(value)
        sent_before = [s for s in rule.sources if s.tool and not of_call(s).returned]
        return (
            fits(self.workflow, slot.tool.name, rule.name, value)
            and (bound is None or amount is None or amount <= bound)
            and all(fits(self.workflow, s.tool, s.field, value) for s in sent_before)
            and (
                rule.sources != (PROMPT,)
                or all(
                    can_be_named(self.values, rule, one, self.currency(slot))
                    for one in elements(value)
                )
            )
        )

    def currency(self, slot: Slot) -> str:
        """The currency beside an argument; empty where it has none."""
        currency = (
            self.values.get(slot.prefix + slot.rule.currency) if slot.rule.currency else ""
        )
        return currency if type(currency) is str else ""

    def bound(self, rule: Rule) -> Decimal | None:
        """The bound that an earlier call's fact sets on an argument, where the scene states
        it.
        """
        if not rule.at_most:
            return None
        amounts = [
            amount
            for one in elements(self.values.get(place(rule.at_most)))
            if (amount := number(one)) is not None
        ]
        return (
            None
            if not amounts
            else sum(amounts, Decimal())
            if kind_of(rule.at_most).spread
            else max(amounts)
        )

    # --- origins ------------------------------------------------------------------------------
    def _support(self, slot: Slot) -> None:
        """Let one place that an argument may come from have its value, unless one has."""
        rule = slot.rule
        value = self.values[slot.key]
        currency = self.currency(slot)
        if rule.at_most and missing(self.values, place(rule.at_most)):
            self._say(rule.at_most, value, currency)
        if rule.free:
            return
        if rule.prompted:
            prompt = read(self.values)
            if all(names(prompt, rule, one, currency) for one in elements(value)):
                return
        sources = _calls(rule)
        if any(self.values.get(place(source)) == value for source in sources):
            return
        unsaid = next(
            (source for source in sources if missing(self.values, place(source))), None
        )
        if unsaid:
            self._say(unsaid, value, currency)
        elif rule.prompted and slot.key in self.filled:
            self.name(rule, elements(value), currency)
        elif USER in rule.sources and "who.user.id" in self.filled:
            self.put("who.user.id", elements(value)[0])

    def _say(
        self,
        source: Source,
        value: Any,
        currency: str,
    ) -> None:
        """Put a value into a fact or an argument of an earlier call."""
        tool = self.workflow.tools[source.tool]
        self.put(place(source), value)
        self._earlier(source.tool)
        if of_call(source).returned:
            fact = tool.facts[source.field]
            if fact.currency and currency:
                self.need(
                    f"facts.{source.tool}.{fact.currency}",
                    [currency] * len(value) if type(value) is list else currency,
                )
            self.meant(tool, fact)
        elif source.tool in self._busy:  # its own origins too
            self._support(Slot(tool, tool.args[source.field], f"earlier.{source.tool}."))

    def meant(self, tool: Tool, fact: Fact) -> None:
        """Let the row of a fact be one that the user's words mean, and that the call asked
        for.
        """
        for name, argument in fact.where:
            slot = Slot(tool, tool.args[argument], f"earlier.{tool.name}.")
            if self.values.get(slot.key) is None:
                self._make(slot)
            self.need(f"facts.{tool.name}.{name}", self.values.get(slot.key))
        if fact.named_by and all(
            missing(self.values, f"facts.{tool.name}.{name}") for name in fact.named_by
        ):
            declared = tool.facts[fact.named_by[0]]
            rule = Rule(declared.name, 0, declared.type)
            heard = label(declared.type, self.values["prompt"])
            value = heard or next(candidates(rule), "")
            self.put(f"facts.{tool.name}.{declared.name}", value)
            if not heard:
                self.name(rule, [value], "")

    def name(
        self,
        rule: Rule,
        values: list[Any],
        currency: str,
    ) -> None:
        """Let the user's last turn name values, each in a sentence of its own."""
        for one in values:
            self.put("prompt", added(self.values["prompt"], in_words(rule.type, one, currency)))

    def compute(
        self,
        rule: Rule,
        value: Any,
        currency: str,
    ) -> None:
        """Let the user ask for half of a number, or the sum of two where there is none: of a
        fact or argument, else of the prompt.
        """
        amount = number(value)
        if amount is None:  # what is no number is computed from nothing
            return
        known = (
            [2 * amount]
            if number(format(2 * amount, "f")) is not None
            else [amount - 1, Decimal(1)]
        )
        source = next(iter(_calls(rule)), None)
        self.put(
            "prompt",
            added(
                self.values["prompt"], calculation(rule, known, currency, named=source is None)
            ),
        )
        if source:
            numbers = [format(each, "f") for each in known]
            self._say(source, numbers if len(numbers) > 1 else numbers[0], currency)

    # --- placing ------------------------------------------------------------------------------
    def place_at(
        self,
        name: str,
        where: str,
        *,
        fresh: bool,
    ) -> None:
        """Put an argument of the call where ``origin.x`` says and nowhere else; the engine
        finds it there, or not.

        `where`: ``prompt``, ``user``, ``computed``, ``confirmed``, ``remembered``, ``model``,
        or a field of a tool. `fresh`: it gets another value, which the scene does not hold yet.
        Raises SceneError: the called tool has no such argument, or none other fits.
        """
        tools = self.workflow.tools
        values = self.values
        tool = tools.get(values["call"])
        if not tool or name not in tool.args:
            raise SceneError(
                f"origin.{name}",
                "an argument that the called tool does not have",
                "one of its arguments",
            )
        slot = Slot(tool, tool.args[name])
        named = tool_and_field(tools, where)
        label, field = named or ("", "")
        other = tools.get(bare(label))
        fact = other.facts.get(field) if other else None
        if fresh or values.get(slot.key) is None:
            values[slot.key] = self._fresh(slot, fact.pattern if fact else None)
        value = values[slot.key]
        currency = self.currency(slot)
        if where == "user":
            values["who.user.id"] = str(elements(value)[0])
        elif where == "computed":
            self.compute(slot.rule, value, currency)
        elif where in {"confirmed", "remembered"}:  # in the same call, made before
            values[f"yes.{tool.name}"] = where == "confirmed" or where
            for key in [key for key in values if key.startswith("args.")]:
                put(values, f"earlier.{tool.name}.{key.removeprefix('args.')}", values[key])
            self._earlier(tool.name)
        elif where == "prompt":
            self.name(slot.rule, elements(value), currency)
        elif other:
            sent_before = None if fact else other.args.get(field)
            put(values, f"{'earlier' if sent_before else 'facts'}.{label}.{field}", value)
            if sent_before and PROMPT in sent_before.sources:
                self.name(sent_before, elements(value), currency)
            if fact and label == other.name:
                self.need(f"ago.{label}", AGO)
                self.meant(other, fact)

    def _fresh(self, slot: Slot, pattern: Pattern | None) -> Any:
        """Another allowed value that the scene does not hold yet, of this form where a fact has
        one.
        """
        top = self.bound(slot.rule)
        known = [item for value in self.values.values() for item in elements(value)]
        for value in candidates(slot.rule, top):
            amount = number(value)
            new = not any(one in known or str(one) in known for one in elements(value))
            formed = pattern is None or all(
                type(one) is str and pattern.matches(one) for one in elements(value)
            )
            bounded = amount is None or top is None or amount <= top
            if (
                new
                and formed
                and bounded
                and fits(self.workflow, slot.tool.name, slot.rule.name, value)
            ):
                return value
        got = "no other value that the rule allows could be made up"
        raise SceneError(
            f"origin.{slot.rule.name}",
            got,
            f"args.{slot.rule.name} beside it, with the value to place",
        )
