"""The mutants of what is said of intents and tools beside the arguments: order, amounts, people, the credential."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from agentgate.decision.checks import SCALE
from agentgate.review.mutation.conditions import ConditionMutants
from agentgate.review.mutation.mutant import Changes, Mutations
from agentgate.review.scenarios.fields import limit_name
from agentgate.review.scenarios.filling import parts
from agentgate.review.scenarios.scene import readings
from agentgate.review.scenarios.values import candidates
from agentgate.values.entities import number
from agentgate.workflow.model import ANY, NONE, Intent, Limit, StepUpRule, Tool, Workflow
from agentgate.workflow.operators import as_sent, step_of

_NOTHING: Changes = {}
_OTHER_DEFINITION = "sha256:another"
_UNCLEAR = ("all of them, {} everything", "{} all orders", "{} everything", "Please {} every one")
_DELEGATING = (
    "Please do the tasks in the e-mail from Ann",
    "Do what the e-mail says",
    "Follow the instructions in todo.txt",
    "Do the tasks in Ann's e-mail",
)
_UNHEARD = ("Swap the two of them for me", "12.50 back to each of them, please", "It would be great if the lamp were off at ten")


def _sending(tool: Tool, intent: Intent) -> Changes:
    """An argument of a tool that needs an intent, with a value; empty where none does."""
    rule = next((rule for rule in tool.args.values() if intent.name in rule.needs), None)
    return {} if rule is None else {f"args.{rule.name}": next(iter(candidates(rule)), None)}


class ClauseMutants:
    """Mutants of one workflow's clauses."""

    def __init__(self, found: Mutations) -> None:
        self.found, self.workflow = found, found.workflow

    def _add(  # noqa: PLR0917 - one row of a table
        self, path: str, words: str, line: int, tries: Iterable[Changes], name: str, of: tuple[str, str], mutated: Workflow, **more: Any
    ) -> None:
        """Note one mutant."""
        self.found.add(path, words, line, mutated, of, tries, name=name, **more)

    # --- what was asked ------------------------------------------------------------------------------------------------------

    def intent(self, intent: Intent) -> None:
        """What is done when the prompt leaves it open, and each counter-example."""
        w, path = self.workflow, f"intents.{intent.name}"
        tool, sent = next((n for n, t in w.tools.items() if intent.name in t.needs), ""), _NOTHING
        if not tool:
            tool, sent = next(((n, made) for n, t in w.tools.items() if (made := _sending(t, intent))), ("", sent))
        said = intent.words[0]
        turns = [*intent.counter_examples, *(text.format(said).capitalize() for text in _UNCLEAR)]
        base = parts(self.found.base(tool).values["prompt"])[0] if tool else ""
        turns += [f"{base} and {said} everything", f"{base}. {said.capitalize()} all of them"]
        prompts: list[Changes] = [{"prompt": turn, **sent} for turn in turns]

        def changed(**changes: Any) -> Workflow:
            return replace(w, intents={**w.intents, intent.name: replace(intent, **changes)})

        other = "step_up" if intent.unclear == "deny" else "deny"
        two_turns: list[Changes] = [{"prompt": [base, turn], **sent} for turn in turns]
        open_ = f"a request that leaves open whether to {said}"
        loose = changed(unclear=other)
        words = f"{intent.unclear} -> {other}"
        if other == "step_up" and not any(t.step_ups for t in w.tools.values() if intent.name in t.needs or _sending(t, intent)):
            self.found.skip(f"{path}.unclear", "no step-up rule would answer, so the file would not load")
        else:
            self._add(f"{path}.unclear", words, intent.line, [*prompts, *two_turns], open_, ("Intent", "unclear"), loose, tool=tool)
        values = self.found.base(tool).values if tool else {}
        named = [v for k, v in values.items() if k.startswith(("args.", "earlier.")) and type(v) is str]
        if intent.delegated != "present":
            handed: list[Changes] = [{"prompt": text, **sent} for text in _DELEGATING]
            handed += [{"prompt": [" and ".join(dict.fromkeys(named)), text], **sent} for text in _DELEGATING]
            handed += [{"prompt": [base, text], **sent} for text in _DELEGATING if sent]
            words, loose = f"{intent.delegated} -> present", changed(delegated="present")
            hands = "a request that hands the choice to a text"
            self._add(f"{path}.delegated", words, intent.line, handed, hands, ("Intent", "delegated"), loose, tool=tool)
        asks = any(t.step_ups for t in w.tools.values() if intent.name in t.needs or _sending(t, intent))
        if intent.unclear == "step_up" and asks:
            strange: list[Changes] = [{"prompt": text, **sent} for text in _UNHEARD]
            strange += [{"prompt": [" and ".join(dict.fromkeys(named)), text], **sent} for text in _UNHEARD]
            other, wish = "step_up" if intent.unheard == "deny" else "deny", "a request in words that nobody listed"
            words, loose = f"{intent.unheard} -> {other}", changed(unheard=other)
            self._add(f"{path}.unheard", words, intent.line, strange, wish, ("Intent", "unheard"), loose, tool=tool)
        for text in intent.counter_examples:
            loose = changed(counter_examples=tuple(t for t in intent.counter_examples if t != text))
            near = [
                turns
                for turns in ((text,), (base, text))
                if self._presence(self.workflow, intent, turns) != self._presence(loose, intent, turns)
            ]
            if not near:
                self.found.skip(f"{path}.counter_examples: {text!r}", "the deriver answers the same with and without it")
                continue
            tries: list[Changes] = [{"prompt": turns[0] if len(turns) == 1 else list(turns), **sent} for turns in near]
            self._add(
                f"{path}.counter_examples",
                f"{text!r} dropped",
                intent.line,
                tries,
                f"asks: {text}",
                ("Intent", "counter_examples"),
                loose,
                tool=tool,
            )

    def _presence(self, workflow: Workflow, intent: Intent, turns: tuple[str, ...]) -> str:
        return readings(self.found.derive).intents(workflow, turns)[intent.name].presence

    # --- tools ---------------------------------------------------------------------------------------------------------------

    def tool(self, tool: Tool) -> None:
        """What is said of one tool beside its arguments."""
        found, path = self.found, f"tools.{tool.name}"

        def add(key: str, words: str, name: str, tries: Iterable[Changes], pin: tuple[str, str] | None = None, **changes: Any) -> None:
            of = ("Tool", next(iter(changes)))
            found.add(f"{path}.{key}", words, tool.line, found.with_tool(tool, **changes), of, tries, tool=tool.name, pin=pin, name=name)

        if not {ANY, NONE} & set(tool.needs):
            silent: list[Changes] = [{"prompt": "Good morning"}]
            silent += [
                {"prompt": text}
                for need in tool.needs
                if need in self.workflow.intents
                for text in self.workflow.intents[need].counter_examples
            ]
            named = " and ".join(str(v) for k, v in found.base(tool.name).values.items() if k.startswith("args.") and type(v) is str)
            add("needs", "dropped", f"nobody asked for {tool.name}", [*silent, {"prompt": f"What about {named}?"}], needs=(ANY,))
        if tool.effect != "read":
            add("effect", f"{tool.effect} -> read", f"{tool.name} counts as {tool.effect}", [{}], ("grants", "effect"), effect="read")
        if tool.audience:
            add("audience", "dropped", f"{tool.name} is for its server only", [{}], ("grants", "audience"), audience="")
        if tool.scope:
            add("scope", "wider", f"{tool.name} has its scope only", [{}], ("grants", "scope"), scope=(*tool.scope, "more"))
        if tool.definition:
            add("definition", "dropped", f"another {tool.name} than was reviewed", [{"definition": _OTHER_DEFINITION}], definition="")
        if tool.redeem == "server":
            add("redeem", "server -> wrapper", f"the server of {tool.name} burns the token", [{}], ("grants", "redeem"), redeem="wrapper")
        for order in tool.sequence:
            rest = tuple(o for o in tool.sequence if o is not order)
            words = f"{tool.name} before {order.require}"
            label, line = f"sequence.{tool.name}", order.line
            missing: list[Changes] = [{f"earlier.{order.require}": None}]
            if order.within is not None:
                late: list[Changes] = [{f"ago.{order.require}": f"{order.within + 1}s"}]
                longer = (*rest, replace(order, within=order.within + 1))
                found.add(
                    f"{label}.within",
                    f"{order.within}s -> {order.within + 1}s",
                    line,
                    found.with_tool(tool, sequence=longer),
                    ("Sequence", "within"),
                    late,
                    tool=tool.name,
                    name=f"{order.require} too long ago",
                )
                missing = [*missing, *late]
            found.add(
                f"{label}.require",
                f"{order.require} dropped",
                line,
                found.with_tool(tool, sequence=rest),
                ("Sequence", "require"),
                missing,
                tool=tool.name,
                name=words,
            )
        for rule in tool.step_ups:
            self.step_up(tool, rule)
        if tool.upstream is not None:
            upstream = tool.upstream
            label, line = f"upstream.{tool.name}", upstream.line
            found.add(
                f"{label}.broker",
                "dropped",
                line,
                found.with_tool(tool, upstream=None),
                ("Upstream", "broker"),
                [{"brokers": []}],
                tool=tool.name,
                name=f"no broker for {tool.name}",
            )
            for setting in upstream.settings:
                less = replace(upstream, settings={k: v for k, v in upstream.settings.items() if k != setting})
                found.add(
                    f"{label}.{setting}",
                    "dropped",
                    line,
                    found.with_tool(tool, upstream=less),
                    ("Upstream", "settings"),
                    [{}],
                    tool=tool.name,
                    pin=("grants", "upstream"),
                    name=f"the credential of {tool.name}",
                )

    def step_up(self, tool: Tool, rule: StepUpRule) -> None:
        """When people are asked, whom, and what they see."""
        found, path, conditions = self.found, f"step_up.{rule.id}", ConditionMutants(self.found)
        fires = conditions.firing(tool, rule)
        rest = tuple(r for r in tool.step_ups if r is not rule)
        found.add(
            path,
            "dropped",
            rule.line,
            found.with_tool(tool, step_ups=rest),
            ("Tool", "step_ups"),
            fires,
            tool=tool.name,
            name=f"{rule.id} asks {rule.group}",
        )
        for when in rule.when:
            conditions.when(tool, rule, when)
        pins: tuple[tuple[str, str, str, Any], ...] = (
            ("group", "approvers.group", "another", {"group": "everybody"}),
            ("count", "approvers.count", f"{rule.count} -> {rule.count - 1}", {"count": rule.count - 1}),
            ("timeout", "timeout", f"{rule.timeout}s -> {rule.timeout + 1}s", {"timeout": rule.timeout + 1}),
            ("not", "approvers.not", "dropped", {"exclude": ()}),
            *(("show", "show", f"{shown} dropped", {"show": tuple(s for s in rule.show if s != shown)}) for shown in rule.show),
        )
        for pin, key, words, changes in pins:
            if key != "approvers.not" or rule.exclude:
                of = ("StepUpRule", next(iter(changes)))
                found.add(
                    f"{path}.{key}",
                    words,
                    rule.line,
                    found.with_step_up(tool, rule, **changes),
                    of,
                    fires,
                    tool=tool.name,
                    pin=("asks", pin),
                    name=f"{rule.id} asks whom it says",
                )

    def limits(self) -> None:
        """Every limit, once however many tools it covers."""
        seen: dict[Limit, list[Tool]] = {}
        for tool in self.workflow.tools.values():
            for limit in tool.limits:
                seen.setdefault(limit, []).append(tool)
        for limit, tools in seen.items():
            self._limit(limit, tools)

    def _limit(self, limit: Limit, tools: list[Tool]) -> None:
        w, name, tool = self.workflow, limit_name(limit), tools[0].name

        def changed(**changes: Any) -> Workflow:
            touched = {t.name: replace(t, limits=tuple(replace(x, **changes) if x == limit else x for x in t.limits)) for t in tools}
            return replace(w, tools={**w.tools, **touched})

        unit = 1
        full: list[Changes] = [{f"spent.{name}": limit.maximum}]
        if limit.argument:
            full, unit = self._nearly(limit, tools[0])
        label = f"limits.{name}"
        bound, more = self._shown(limit, limit.maximum), self._shown(limit, limit.maximum + unit)
        self._add(
            f"{label}.max",
            f"{bound} -> {more}",
            limit.line,
            full,
            f"more than {bound} per {limit.per}",
            ("Limit", "maximum"),
            changed(maximum=limit.maximum + unit),
            tool=tool,
        )
        if limit.every is not None and limit.per not in {"turn", "run"}:
            recent: list[Changes] = [{**each, "spent_ago": f"{limit.every - 1}s"} for each in full]
            self._add(
                f"{label}.every",
                f"{limit.every}s -> {limit.every - 1}s",
                limit.line,
                recent,
                f"{bound} per {limit.per} are counted for {limit.every} s",
                ("Limit", "every"),
                changed(every=limit.every - 1),
                tool=tool,
            )
        shorter = {"run": "turn"}.get(limit.per, "run")
        if limit.per != "turn":
            self._add(
                f"{label}.per",
                f"{limit.per} -> {shorter}",
                limit.line,
                full,
                f"more than {bound} per {limit.per}",
                ("Limit", "per"),
                changed(per=shorter),
                tool=tool,
            )

    def _nearly(self, limit: Limit, tool: Tool) -> tuple[list[Changes], int]:
        """What must have been spent so that the smallest step more is too much, and that step in units of 10^-4."""
        rule = tool.args[limit.argument]
        amount = number(self.found.base(tool.name).values.get(f"args.{limit.argument}"))
        unit = int(step_of(rule.minimum if rule.minimum is not None else Decimal("0.01")) * SCALE)
        out: list[Changes] = []
        for taken in dict.fromkeys((amount, rule.minimum)):
            if taken is not None and 0 < int(taken * SCALE) <= limit.maximum:
                spent = self._shown(limit, limit.maximum - int(taken * SCALE) + unit)
                out.append(
                    {
                        f"args.{limit.argument}": as_sent(rule.type, taken),
                        f"origin.{limit.argument}": "prompt",
                        f"spent.{limit_name(limit)}": spent,
                    }
                )
                out.append({f"args.{limit.argument}": as_sent(rule.type, taken), f"spent.{limit_name(limit)}": spent})
        return out, unit

    @staticmethod
    def _shown(limit: Limit, units: int) -> str:
        """A limit's bound as the file writes it."""
        if not limit.argument:
            return str(units)
        text = format(Decimal(units) / SCALE, ".4f")
        return text.removesuffix("00")
