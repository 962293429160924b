"""What a scene leaves out, filled with values the workflow allows.

Rules: deterministic, without a clock; what is stated is never changed (a prompt may be added to when an argument nobody stated
must be named in it); what was left out on purpose (None) stays out; only what the call needs is made up: its required arguments,
the earlier calls they refer to, and their facts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.decision.labels import stems
from agentgate.decision.origin_kinds import kind_of, of_call
from agentgate.language.prompt import Prompt
from agentgate.review.scenarios.fields import bare, moment
from agentgate.review.scenarios.values import candidates, fits
from agentgate.values.entities import normal, number
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import PROMPT, USER, Fact, Rule, Source

AGO = "1m"  # how long before the call an earlier one was redeemed
FIRST_DAY = date(2026, 1, 7)  # a Wednesday; a workflow that expires before is met in its last week


def parts(prompt: Any) -> tuple[str, ...]:
    """The turns of a prompt that is text or a list."""
    return (prompt,) if type(prompt) is str else tuple(prompt)


def in_words(kind: str, value: Any, currency: str) -> str:
    """How a user writes a value: money with its currency, a user or channel with its sign, other words in quotes."""
    if kind == "money" and currency:
        return f"{value} {currency}"
    if kind == "text":
        return f'"{value}"'
    return {"user": "@", "channel": "#"}.get(kind, "") + str(value)


def whole(key: str) -> str:
    """The argument that a leaf of a structure is in: ``args.files`` for ``args.files[].id``; of anything else the key itself."""
    head, mark, _ = key.partition("[]")
    return head if mark else key


class Filler:
    """Completes one flat scene. `values` is completed in place; `filled` holds what was made up.

    `whole`: nothing was complete before, so what an argument needs is made up for stated ones too; else a change would bring
    about more than it says.
    """

    def __init__(self, workflow: Workflow, values: dict[str, Any], *, whole: bool = False) -> None:
        self.workflow, self.values, self.whole = workflow, values, whole
        self.filled: dict[str, Any] = {}
        self._busy: set[str] = set()

    def put(self, key: str, value: Any) -> None:
        """Make up one value."""
        self.values[key] = self.filled[key] = value

    def missing(self, key: str) -> bool:
        """Neither stated nor left out on purpose, itself or with its group."""
        if key in self.values or whole(key) in self.values:
            return False
        head = key
        while "." in head:
            head = head.rpartition(".")[0]
            if head in self.values and self.values[head] is None:
                return False
        return True

    def need(self, key: str, value: Any) -> None:
        """Make up a value where there is none."""
        if self.missing(key):
            self.put(key, value)

    def fill(self) -> None:
        """Everything a call needs."""
        workflow, values = self.workflow, self.values
        self.need("call", next((n for n, t in workflow.tools.items() if t.effect != "read"), next(iter(workflow.tools))))
        self.need("tenant", workflow.tenants[0])
        self._who()
        conditions = workflow.conditions
        if self.missing("time"):
            self.put("time", self._moment().isoformat(timespec="minutes"))
        for name, allowed in (
            ("environment", conditions.environment),
            ("data_class", conditions.data_class),
            ("network", conditions.network),
        ):
            if allowed:
                self.need(name, allowed[0].partition("/")[0] if name == "network" else allowed[0])
        brokers = sorted({t.upstream.broker for t in workflow.tools.values() if t.upstream is not None})
        if brokers:
            self.need("brokers", brokers)
        tool = workflow.tools.get(values["call"])
        if self.missing("prompt"):
            self.put("prompt", ". ".join(self._asked(tool)) if tool is not None else "")
        if tool is None:
            return
        if tool.definition:
            self.need("definition", tool.definition)
        for label in list(dict.fromkeys(self._labels())):
            self._earlier(label)
        self._call(tool, "args.")

    def _asked(self, tool: Tool) -> Iterator[str]:
        """A request for what each argument that is sent needs, and the tool itself: an example of one intent of each, once."""
        chosen: set[str] = set()
        sent = (r.needs for r in tool.args.values() if r.needs and (not r.optional or self.values.get(f"args.{r.name}") is not None))
        for needs in (*sent, tool.needs):
            known = [name for name in needs if name in self.workflow.intents]
            if known and chosen.isdisjoint(known):
                chosen.add(known[0])
                yield from self.workflow.intents[known[0]].examples[:1]

    def _labels(self) -> Iterator[str]:
        """The earlier calls that the scene speaks of."""
        for key, value in self.values.items():
            block, _, rest = key.partition(".")
            if block in {"facts", "earlier", "ago"} and value is not None:
                for name in sorted(self.workflow.tools, key=len, reverse=True):
                    if rest.startswith(name) and rest[len(name) : len(name) + 1] in {"", ".", "#"}:
                        after = rest[len(name) :]
                        yield name + (after[:2] if after[:1] == "#" else "")
                        break

    def _who(self) -> None:
        rule, user, tenant = self.workflow.agent, self.workflow.for_user, self.values["tenant"]
        self.need("who.agent.id", "agent")
        self.need("who.agent.proven", not rule.in_process)
        if rule.spiffe:
            self.need("who.agent.spiffe", rule.spiffe[0])
        if rule.oidc_issuer:
            self.need("who.agent.issuer", rule.oidc_issuer)
        for claim in rule.claims:
            self.need(f"who.agent.claims.{claim.name}", claim.one_of[0])
        if rule.image_signed_by or rule.attested_within is not None:
            self.need("who.agent.posture.image_signed_by", (*rule.image_signed_by, "release")[0])
            self.need("who.agent.posture.attested_ago", "1m" if rule.attested_within is None or rule.attested_within >= 60 else "0s")
        asked = (("cluster", rule.cluster), ("namespace", rule.namespace), ("node_pool", rule.node_pool))
        if rule.same_key_as_last_token or any(allowed for _, allowed in asked):
            for name, allowed in asked:
                self.need(f"who.agent.boundary.{name}", allowed[0] if allowed else name)
            self.need("who.agent.boundary.key", "key-1")
            if rule.same_key_as_last_token:
                self.need("who.agent.last_key", "key-1")
        if user is not None and self.missing("who.user"):
            self.need("who.user.id", "user")
            self.need("who.user.tenant", tenant)
            self.need("who.user.groups", [user.groups[0]] if user.groups else [])
            self.need("who.user.proven", not rule.in_process)

    def _moment(self) -> datetime:
        """The middle of the first allowed hours of a day before the workflow expires."""
        hours = self.workflow.conditions.hours
        first = min(FIRST_DAY, self.workflow.expires - timedelta(days=7))
        if hours is None:
            return datetime.combine(first, time(12), UTC)
        day = next(d for d in (first + timedelta(days=i) for i in range(7)) if d.weekday() in hours.days)
        length = (hours.end - hours.start) % (24 * 60) or 24 * 60
        start = datetime.combine(day, time(hours.start // 60, hours.start % 60), ZoneInfo(hours.zone))
        return start + timedelta(minutes=length // 2)

    # --- calls -----------------------------------------------------------------------------------------------------------

    def _earlier(self, label: str) -> None:
        """An earlier call with everything it needed itself; the second of a tool is like the first where nothing is stated."""
        tool = self.workflow.tools.get(bare(label))
        if tool is None or label in self._busy or not self.missing(f"earlier.{label}"):
            return
        self._busy.add(label)
        if "#" in label:
            for block in ("earlier", "facts", "ago"):
                for key in [k for k in self.values if k == f"{block}.{tool.name}" or k.startswith(f"{block}.{tool.name}.")]:
                    self.need(f"{block}.{label}" + key[len(block) + 1 + len(tool.name) :], self.values[key])
        self.need(f"ago.{label}", AGO)
        self._call(tool, f"earlier.{label}.")

    def _call(self, tool: Tool, prefix: str) -> None:
        for order in tool.sequence:
            self._earlier(order.require)
        for rule in sorted(tool.args.values(), key=lambda r: any(r.name == other.currency for other in tool.args.values()), reverse=True):
            key = prefix + rule.name
            if self.missing(key) and not rule.optional:
                self._make(tool, rule, prefix)
            elif self.values.get(key) is not None and self.whole:
                self._support(rule, prefix)

    def _currency(self, rule: Rule, prefix: str) -> str:
        found = self.values.get(prefix + rule.currency) if rule.currency else ""
        return found if type(found) is str else ""

    def place(self, source: Source) -> str:
        """Where a scene says what this origin says."""
        return f"{'facts' if of_call(source).returned else 'earlier'}.{source.tool}.{source.field}"

    def bound(self, rule: Rule) -> Decimal | None:
        """What an earlier call's fact bounds an argument by, where the scene says it."""
        if rule.at_most is None:
            return None
        found = self.values.get(self.place(rule.at_most))
        amounts = [amount for one in (found if type(found) is list else [found]) if (amount := number(one)) is not None]
        return None if not amounts else sum(amounts, Decimal()) if kind_of(rule.at_most).spread else max(amounts)

    def _make(self, tool: Tool, rule: Rule, prefix: str) -> None:
        """A required argument nobody stated: from a place that is stated, else made up and put where it may come from."""
        for source in rule.sources:
            if source.tool and source.selector is None:
                self._earlier(source.tool)
        if rule.at_most is not None:
            self._earlier(rule.at_most.tool)
        value = next(self._found(tool, rule, prefix), None)
        if value is None:
            bound = self.bound(rule)
            value = next((v for v in candidates(rule, bound) if self._fits_all(tool, rule, v, prefix)), None)
        if value is not None:
            self.put(prefix + rule.name, value)
            self._support(rule, prefix)

    def _found(self, tool: Tool, rule: Rule, prefix: str) -> Iterator[Any]:
        """Values that already stand where the rule lets them come from."""
        for source in rule.sources:
            if source.tool and source.selector is None and (value := self.values.get(self.place(source))) is not None:
                for one in value if type(value) is list else [value]:
                    made = [one] if rule.max_items is not None else one
                    if self._fits_all(tool, rule, made, prefix):
                        yield made
        if USER in rule.sources and "who.user.id" not in self.filled:
            own = self.values.get("who.user.id")
            made = [own] if rule.max_items is not None else own
            if own is not None and self._fits_all(tool, rule, made, prefix):
                yield made
        if PROMPT in rule.sources and (not any(s.tool for s in rule.sources) or self.values["prompt"]):
            prompt = self._prompt()
            for table in prompt.named.values():
                for entity in table.values():
                    for text in dict.fromkeys((str(entity.key), entity.words)):
                        made = [text] if rule.max_items is not None else text
                        if self._in_prompt(rule, text, prefix, prompt) and self._fits_all(tool, rule, made, prefix):
                            yield made

    def _fits_all(self, tool: Tool, rule: Rule, value: Any, prefix: str) -> bool:
        """The value fits the rule, its bound, and the rule of the earlier argument it would have come from."""
        if not fits(self.workflow, tool.name, rule.name, value):
            return False
        bound, amount = self.bound(rule), number(value)
        if bound is not None and amount is not None and amount > bound:
            return False
        for source in rule.sources:
            if source.tool and not of_call(source).returned and not fits(self.workflow, source.tool, source.field, value):
                return False
        return rule.sources != (PROMPT,) or self._can_be_said(rule, value, prefix)

    def _can_be_said(self, rule: Rule, value: Any, prefix: str) -> bool:
        currency = self._currency(rule, prefix)
        for one in value if type(value) is list else [value]:
            if not self._in_prompt(rule, one, prefix, Prompt.of((in_words(rule.type, one, currency),), self._day())):
                return False
        return True

    def _day(self) -> date:
        found = moment(self.values["time"])
        return found.astimezone(UTC).date() if found is not None else FIRST_DAY

    def _prompt(self) -> Prompt:
        return Prompt.of(parts(self.values["prompt"]), self._day())

    def _in_prompt(self, rule: Rule, value: Any, prefix: str, prompt: Prompt) -> bool:
        key = normal(rule.type, value)
        return key is not None and prompt.words(rule.said_as, key, self._currency(rule, prefix)) is not None

    def _support(self, rule: Rule, prefix: str) -> None:
        """Let the places an argument refers to say what it needs, where they say nothing yet."""
        value = self.values[prefix + rule.name]
        if rule.at_most is not None and self.missing(self.place(rule.at_most)):
            self._say(rule.at_most, value, self._currency(rule, prefix))
        if rule.free:
            return
        elements = value if type(value) is list else [value]
        prompt = self._prompt() if PROMPT in rule.sources else None
        if prompt is not None and all(self._in_prompt(rule, one, prefix, prompt) for one in elements):
            return
        sources = [s for s in rule.sources if s.tool and s.selector is None]
        if any(self.values.get(self.place(s)) == value for s in sources):
            return
        for source in sources:
            if self.missing(self.place(source)):
                self._say(source, value, self._currency(rule, prefix))
                return
        if prompt is not None and prefix + rule.name in self.filled:
            self.name(rule, elements, self._currency(rule, prefix))
        elif USER in rule.sources and "who.user.id" in self.filled:
            self.put("who.user.id", elements[0])

    def _say(self, source: Source, value: Any, currency: str) -> None:
        """Put a value into a fact or an argument of an earlier call."""
        tool = self.workflow.tools[source.tool]
        self.put(self.place(source), value)
        self._earlier(source.tool)
        if of_call(source).returned:
            fact = tool.facts[source.field]
            if fact.currency and currency:
                self.need(f"facts.{source.tool}.{fact.currency}", [currency] * len(value) if type(value) is list else currency)
            self.meant(tool, fact)
        elif source.tool in self._busy:  # its own origins too
            self._support(tool.args[source.field], f"earlier.{source.tool}.")

    def compute(self, rule: Rule, value: Any, currency: str) -> None:
        """Let the user ask for half of a number, or the sum of two where there is no such: of a fact or argument, else of the prompt."""
        amount = number(value)
        if amount is None:  # what is no number is computed from nothing
            return
        half = number(format(2 * amount, "f")) is not None
        known = [format(n, "f") for n in ((2 * amount,) if half else (amount - 1, Decimal(1)))]
        source = next((s for s in rule.sources if s.tool and s.selector is None), None)
        said = "" if source is not None else " of " + " and ".join(in_words(rule.type, each, currency) for each in known)
        turns = list(parts(self.values["prompt"]))
        end = "" if not turns[-1] or turns[-1].endswith((".", "!", "?")) else "."
        turns[-1] = f"{turns[-1]}{end} Take {'half' if half else 'the sum total'}{said}."
        self.put("prompt", turns[0] if len(turns) == 1 else turns)
        if source is not None:
            self._say(source, known if len(known) > 1 else known[0], currency)

    def meant(self, tool: Tool, fact: Fact) -> None:
        """Let the row of a fact be one that the user's words mean, and the call asked for."""
        for name, argument in fact.where:
            key = f"earlier.{tool.name}.{argument}"
            if self.values.get(key) is None:
                self._make(tool, tool.args[argument], f"earlier.{tool.name}.")
            self.need(f"facts.{tool.name}.{name}", self.values.get(key))
        if fact.named_by and all(self.missing(f"facts.{tool.name}.{label}") for label in fact.named_by):
            label = tool.facts[fact.named_by[0]]
            said = re.findall(r"[A-Za-z]{4,}", " ".join(parts(self.values["prompt"])))
            word = max(filter(stems, said), key=len, default="")
            kept = {"text": word, "path": f"{word}.txt", "user": word.lower(), "channel": word.lower()}.get(label.type, "") if word else ""
            value = kept or next(candidates(Rule(label.name, 0, label.type)), "")
            self.put(f"facts.{tool.name}.{label.name}", value)
            if not kept:
                self.name(Rule(label.name, 0, label.type), [value], "")

    def name(self, rule: Rule, elements: list[Any], currency: str) -> None:
        """Let the user's last turn name values, in a sentence of their own."""
        turns = list(parts(self.values["prompt"]))
        for one in elements:
            said = in_words(rule.type, one, currency)
            last = turns[-1]
            turns[-1] = f"{last}{'' if not last else ' ' if last.endswith(('.', '!', '?')) else '. '}{said}"
        self.put("prompt", turns[0] if len(turns) == 1 else turns)
