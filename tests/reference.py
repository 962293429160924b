"""A second, slow, obviously right reading of the rules: plain loops over every combination, no caching, no early exit.

The rules are those of `agentgate.decision.decide.RULES`. It shares only the typed values (`agentgate.values.entities`), the prompt's
tokeniser and the pattern matcher with the engine;
those have tests of their own. Where the rules leave room, the stricter reading stands here and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import combinations, product
from typing import Any

from agentgate.decision.origins.labels import Heard, chosen
from agentgate.language.spans import entities
from agentgate.language.stems import stems
from agentgate.values.entities import Key, normal
from agentgate.values.refusal import Reason
from agentgate.values.request import Call, EarlierCall, RunState, Surroundings
from agentgate.workflow.model import StepUpRule, Tool, Workflow
from agentgate.workflow.rule import SELECTORS, Fact, Rule, Source
from tests.reference_numbers import Amount, computed
from tests.reference_numbers import heard as calculations
from tests.reference_who import conditions, who
from tests.reference_words import affirmed, heard, of_themself, stands


@dataclass(frozen=True)
class Verdict:
    """What the rules say: every reason to refuse; or, when there is none, what follows.

    Attributes:
        denied: the reasons; when there is one, the rest is empty.
        holds: ids of the step-up rules that a person must answer.
        named: every argument came from the prompt.
        taken: for each limit its line, the amount it takes and the currency.
        intent: what the token is for: the first needed intent that is present, else the first unclear one, else any or none.
        through, worded: an argument is named only through an earlier call; a text is only some of the user's words (what was asked about).
        reached: what else of the rules was met on the way.
    """

    denied: frozenset[Reason]
    holds: frozenset[str] = frozenset()
    named: bool = False
    taken: frozenset[tuple[int, int, str]] = frozenset()
    intent: str = ""
    through: bool = field(default=False, compare=False)
    worded: bool = field(default=False, compare=False)
    reached: frozenset[str] = field(default=frozenset(), compare=False)


# A choice: for every referenced tool one earlier call and one row of it, or nothing.
Choice = Mapping[str, tuple[EarlierCall | None, Mapping[str, Any] | None]]
Condition = Callable[[Choice], bool]
BY_YES = ("confirmed", "remembered")
Holds = Callable[[Any, Mapping[str, Any] | None], bool]  # of one key in one row
Met = Callable[[str, Any, Source, EarlierCall | None, Mapping[str, Any] | None], bool]  # of one argument, as `_Question.met`


def same(one: object, other: object) -> bool:
    """Equal keys of the same kind; nothing is never equal (Python says True == Decimal(1))."""
    return one is not None and other is not None and type(one) is type(other) and one == other


def evaluate(workflow: Workflow, run: RunState, call: Call, around: Surroundings) -> Verdict:
    """Every reason why this call is refused; else every step-up rule that must be released."""
    denied = who(workflow, run, around) | conditions(workflow, run, around)
    tool = workflow.tools.get(call.tool)
    if tool is None:
        return Verdict(frozenset(denied | {Reason.TOOL_UNKNOWN}))
    if tool.definition and call.definition != tool.definition:
        denied.add(Reason.TOOL_DEFINITION)
    if tool.upstream is not None and tool.upstream.broker not in around.brokers:
        denied.add(Reason.UPSTREAM)
    question = _Question(workflow, run, call, around, tool)
    denied |= question.forms()
    denied |= question.values()
    denied |= question.origins()
    denied |= question.inner_entities()
    denied |= question.intents()
    denied |= question.limits()
    holds = question.asked()
    if question.forced and not any(not rule.user or question.enough == "confirm" for rule in holds):
        denied |= {reason for reason, _ in question.forced}  # nobody is asked who could answer
    if denied:
        return Verdict(frozenset(denied), reached=frozenset(question.found))
    question.found |= {"confirm"} if holds and all(rule.user for rule in holds) else set()
    question.found |= {"what is left open"} if any(rule.left_open for rule in holds) else set()
    named, plainly = question.named(), bool(question.keys) and all(map(question.plainly_named, question.keys))
    return Verdict(
        frozenset(),
        frozenset(r.id for r in holds),
        named,
        question.taken(),
        question.intent(),
        named and not plainly,
        question.worded(),
        question.reached(),
    )


class _Question:
    """One call against one tool's argument rules. The methods run in order; each returns its reasons to refuse."""

    def __init__(self, workflow: Workflow, run: RunState, call: Call, around: Surroundings, tool: Tool) -> None:
        self.workflow, self.run, self.call, self.around, self.tool = workflow, run, call, around, tool
        needed = [run.intents[name].presence for name in tool.needs if name in run.intents]
        if "unclear" in needed and "present" not in needed and run.prompt is not None:  # asked about, with all that the user named
            self.run = replace(run, prompt=replace(run.prompt, in_doubt=True))
        self.written = tuple([turn.written for turn in run.prompt.turns]) if run.prompt is not None else ()
        self.forced: set[tuple[Reason, str]] = set()  # an unclear intent, an unknown origin: why a person is asked, of which argument
        self.enough = "confirm"  # whose yes suffices at least
        self.found: set[str] = set()
        self.keys: dict[str, list[Any]] = {}  # arguments in good form -> the keys of their elements
        self.refused: set[str] = set()  # those of them with a value that is not allowed: what is in them is not looked at
        self.args = _by_rule(tool, call.args)
        self.elements: list[list[tuple[str, Any]]] = []  # of each element of a list, its leaves in good form with their keys

    # --- form and value ------------------------------------------------------------------------------------------------
    def forms(self) -> set[Reason]:
        denied = set()
        for name in self.args:
            if name not in self.tool.args:
                denied.add(Reason.ARGUMENT_UNKNOWN)
        for name, rule in self.tool.args.items():
            if name not in self.args:
                if not rule.optional:
                    denied.add(Reason.ARGUMENT_MISSING)
                continue
            value = self.args[name]
            if rule.type != "json" and (type(value) is list) != (rule.max_items is not None):
                denied.add(Reason.ARGUMENT_FORM)
                continue
            elements = value if rule.max_items is not None else [value]
            keys = [normal(rule.type, element) for element in elements]
            if not keys or any(key is None for key in keys):
                denied.add(Reason.ARGUMENT_FORM)
                continue
            self.keys[name] = keys
        self.elements = _elements_of(self.tool, self.call.args, self.keys)
        return denied

    def values(self) -> set[Reason]:
        denied = set()
        for name, keys in self.keys.items():
            rule = self.tool.args[name]
            too_many = rule.max_items is not None and len(keys) > rule.max_items
            if too_many or not all(all(_operators(rule, key)) for key in keys):
                denied.add(Reason.ARGUMENT_VALUE)
                self.refused.add(name)
            if rule.role and not set(keys) < set(rule.role_scopes):
                denied.add(Reason.ROLE)
        return denied

    def currency(self, name: str) -> str | None:
        """The currency beside a money argument; None when there is none (or it is not in good form)."""
        sibling = self.tool.args[name].currency
        keys = self.keys.get(sibling, [])
        return keys[0] if len(keys) == 1 and type(keys[0]) is str and type(self.args[sibling]) is str else None

    # --- origins -------------------------------------------------------------------------------------------------------
    def fact(self, source: Source, earlier: EarlierCall, row: Mapping[str, Any], *, origin: bool) -> tuple[Any, str | None] | None:
        """The key and currency of a declared fact in one row, or None when it does not count."""
        tool = self.workflow.tools.get(source.tool)
        declared = tool.facts.get(source.field) if tool is not None else None
        if tool is None or declared is None or earlier.tool != source.tool or source.field not in row:
            return None
        if declared.named and not earlier.named and not (declared.confirmed and earlier.marked):
            return None
        if source.kind != "sum":
            if not all(self._asked(source.tool, name, row, argument, earlier) for name, argument in declared.where):
                return None
            known = source.kind == "select" or not declared.named_by or self._meant(source.tool, declared, row, earlier)
            if not known and not self._mine(source.tool, declared, row, earlier):
                return None
            self.found |= set() if known else {"me"}
        key = normal(declared.type, row[source.field])
        if key is None or (declared.pattern is not None and not (type(key) is str and declared.pattern.matches(key))):
            return None
        if origin and tool.effect != "read" and not _new_id(declared, key, earlier):
            return None
        currency = row.get(declared.currency) if declared.currency else None
        if declared.currency and type(currency) is not str:
            return None
        return key, currency

    def _asked(self, tool: str, name: str, row: Mapping[str, Any], argument: str, earlier: EarlierCall) -> bool:
        """The row holds what the call asked for."""
        kind = self.workflow.tools[tool].facts[name].type
        return same(normal(kind, row.get(name)), normal(kind, earlier.args.get(argument)))

    def _meant(self, tool: str, declared: Fact, row: Mapping[str, Any], earlier: EarlierCall, said: Heard | None = None) -> bool:
        """One label of the row is said in full and no other object's shared words hold all of its own; or none is, and it shares most."""
        words = said or heard(self.written)
        if any("[cut]" in each for each in earlier.rows) or not self._has(declared, row) or self._steered(tool, earlier, words):
            return False
        facts = self.workflow.tools[tool].facts
        labels = [facts[name] for name in declared.named_by]
        own = normal(declared.type, row[declared.name])
        shared, full = self._shared(labels, row, words)
        others = []
        for other in earlier.rows:
            value = normal(declared.type, other.get(declared.name))
            if value is not None and not same(value, own):
                others.append(self._shared(labels, other, words))
        whole = full or any(f for _, f in others) or any(self._shared(labels, r, words)[1] for r in earlier.rows if self._has(declared, r))
        if whole:
            return full and not any(theirs >= shared for theirs, _ in others)
        most = max(len(self._shared(labels, r, words)[0]) for r in earlier.rows if self._has(declared, r))
        return 0 < len(shared) == most and all(len(theirs) < most for theirs, _ in others)

    def _mine(self, tool: str, declared: Fact, row: Mapping[str, Any], earlier: EarlierCall) -> bool:
        """The user speaks of themself, and every row that carries their id in a label is this very object."""
        header = self.run.header
        if header.user is None or header.user.tenant != header.tenant or not of_themself(self.run.prompt.turns):
            return False
        if any("[cut]" in each for each in earlier.rows) or self._steered(tool, earlier, heard(self.written)):
            return False
        facts = self.workflow.tools[tool].facts

        def carries(each: Mapping[str, Any]) -> bool:
            for label in (facts[name] for name in declared.named_by):
                value, whole = normal(label.type, each.get(label.name)), header.user.id if header.user is not None else ""
                if label.type in {"user", "email", "id"} and same(value, normal(label.type, whole)):
                    return True
                if label.type == "user" and normal("email", whole) is not None and same(value, normal("user", whole.split("@")[0])):
                    return True
            return False

        own = normal(declared.type, row[declared.name])
        return carries(row) and all(same(normal(declared.type, r.get(declared.name)), own) for r in earlier.rows if carries(r))

    def _steered(self, tool: str, earlier: EarlierCall, words: Heard | None) -> bool:
        """Somebody other than the user chose which rows there are: by an argument that is neither fixed, named, nor of these words."""
        rules = self.workflow.tools[tool].args
        if earlier.named or not rules:
            return False
        if any("." in name or rule.sensitive for name, rule in rules.items()):
            return True
        for name, value in earlier.args.items():
            if value is None and name in rules and rules[name].nullable:
                continue
            if name in rules and rules[name].page_size and type(value) is int and not isinstance(value, bool):
                there = [each["[page]"] for each in earlier.rows[-1:] if type(each.get("[page]")) is int]
                if there and there[0] in range(value):
                    self.found.add("page")
                    continue
            key = None if name not in rules else normal(rules[name].type, value)
            if key is None:
                return True
            mine = rules[name].equals is not None or self.run.prompt.words(rules[name].type, key) is not None
            if rules[name].type == "text" and stems(str(key)) and words is not None:
                mine = mine or all(word in words.words for word in stems(str(key)))
            if not mine:
                return True
        return False

    def _has(self, declared: Fact, row: Mapping[str, Any]) -> bool:
        return normal(declared.type, row.get(declared.name)) is not None

    def _shared(self, labels: list[Fact], row: Mapping[str, Any], said: Heard) -> tuple[set[str], bool]:
        """Which words of the row's labels the user said, and whether all of one label."""
        shared: set[str] = set()
        full = False
        for label in labels:
            value = normal(label.type, row.get(label.name))
            if value is None:
                continue
            currency = row.get(label.currency) if label.currency else ""
            exactly = f"{label.name} {value}"
            if label.currency and type(currency) is not str:
                continue
            words, known = {exactly}, set()
            if label.type == "email":
                words, known = {*stems(str(value).split("@")[0]), exactly}, set(said.names)
            elif label.type == "path":
                last = str(value).split("/")[-1]
                words, known = set(stems(".".join(last.split(".")[:-1]) or last)), set(said.words)
            elif label.type in {"text", "user", "channel"}:
                words, known = set(stems(str(value))), set(said.words)
            if self.run.prompt.words(label.type, value, currency or "") is not None:
                known.add(exactly)
                shared.add(exactly)
            shared |= words & known
            full = full or (words != set() and words <= known)
        return shared, full

    def sources(self, name: str) -> tuple[Source, ...]:
        """The origins that count: with `named_first` the prompt alone, where the user named anything of the type."""
        rule = self.tool.args[name]
        written = {
            "money": ("money", "number"), "number": ("number", "money", "count", "percent"), "integer": ("number", "money", "count"),
            "user": ("user", "name"), "computed": ("number", "money", "count"),
            "id": ("id", "number", "date", "domain"), "text": ("text", "path", "email", "url", "domain", "id", "channel", "user"),
        }  # fmt: skip
        kinds = written.get(_named_as(rule), (rule.type,))
        if rule.named_first and any(self.run.prompt.named.get(kind) for kind in kinds):
            return (Source("prompt"),)
        return rule.sources

    def argument(self, source: Source, earlier: EarlierCall) -> list[tuple[Any, str | None]]:
        """The key of an earlier call's argument with its currency, or nothing. A list is a value of its own: no element's origin."""
        tool = self.workflow.tools.get(source.tool)
        declared = tool.args.get(source.field) if tool is not None else None
        if declared is None or earlier.tool != source.tool or source.field not in earlier.args:
            return []
        currency = earlier.args.get(declared.currency) if declared.currency else None
        if declared.currency and type(currency) is not str:
            return []
        return [(normal(declared.type, earlier.args[source.field]), currency)]

    def met(self, name: str, key: Any, source: Source, earlier: EarlierCall | None, row: Mapping[str, Any] | None) -> bool:
        """True when `source`, looked up in exactly this call and row, is where this value may come from."""
        rule = self.tool.args[name]
        if source.kind == "model":
            return True
        if source.kind == "user":
            return self.own(rule.type, key)
        if source.kind == "computed":
            return self.computed(name, key)
        if source.kind in BY_YES:
            return self.confirmed(source.kind, name)
        if source.kind == "prompt":
            if rule.type == "text" and self.stands(key) and self.exact(rule, key):
                return True
            return self.run.prompt.words(_named_as(rule), key, self.currency(name) or "") is not None
        if earlier is None:
            return False
        if source.kind == "arg":
            return any(same(key, found) and self.currency(name) == currency for found, currency in self.argument(source, earlier))
        if source.kind == "select" and not self.selected(source, earlier, row):
            return False
        fact = self.fact(source, earlier, row, origin=True) if row is not None else None
        return fact is not None and same(key, fact[0]) and self.currency(name) == fact[1]

    def confirmed(self, kind: str, name: str, every: Collection[str] = ()) -> bool:
        """The user said yes to this value of this argument in a call of this tool, and in the same to what else a yes names here.

        In this run, or, where it is `remembered`, in an earlier one.
        """
        calls = self.run.calls if kind == "confirmed" else [self.run.remembered] if self.run.remembered is not None else []
        yes = (call for call in calls if call.tool == self.tool.name and name in call.endorsed and self._sent(call, name))
        return any(set(every) <= call.endorsed and self._sent_all(call) for call in yes) if every else any(True for _ in yes)

    def _sent(self, call: EarlierCall, name: str) -> bool:
        """The argument had this value and no other; of a list exactly these, however often and in whichever order."""
        given, here = call.args.get(name), self.keys[name]
        found = [normal(self.tool.args[name].type, each) for each in (given if type(given) is list else [given])]
        return all(any(same(one, key) for one in found) for key in here) and all(any(same(one, key) for key in here) for one in found)

    def _sent_all(self, call: EarlierCall) -> bool:
        """A call had every value here that a yes can name."""
        named = [name for name in self.keys if any(source.kind == "confirmed" for source in self.tool.args[name].sources)]
        return all(self._sent(call, name) for name in named)

    def _by_yes(self, name: str, kind: str) -> bool:
        """A yes of this kind explains an argument that the user's own words do not, nor an origin that the file names before it."""
        sources, keys = self.sources(name), self.keys[name]
        kinds = list(map(str, (source.kind for source in sources)))
        others = tuple(source for source in sources if source.kind != kind)
        if others == sources or "model" in kinds:
            return False
        before = [s for s in others if not s.tool and (s.kind not in BY_YES or kinds.index(s.kind) < kinds.index(kind))]
        if any(all(self.met(name, key, source, None, None) for key in keys) for source in before):
            return False
        if keys and self.confirmed(kind, name):
            return True
        alone = [source for source in others if not source.tool]
        if any(all(self.met(name, key, source, None, None) for key in keys) for source in alone):
            return False
        mixed = self.tool.args[name].any_call and all(self.from_anywhere(name, key, sources) for key in keys)
        first = [next((s.kind for s in sources if self.from_anywhere(name, key, (s,))), "") for key in keys]
        return mixed and kind in first

    def selected(self, source: Source, earlier: EarlierCall, row: Mapping[str, Any] | None) -> bool:
        """True when the user's words select this row: of the last read before the tool's first call; after it, of all of these."""
        selector = source.selector
        assert selector is not None
        first = min((call.redeemed_at for call in self.run.calls if call.tool == selector.tool), default=float("inf"))
        reads = [call for call in self.run.calls if call.tool == source.tool and call.redeemed_at <= first]
        last = [call for call in reads if first < float("inf") or call.redeemed_at == max(read.redeemed_at for read in reads)]
        if row is None or not any(call is earlier for call in last):
            return False
        for key, compared in selector.by:
            if key in chosen(selector, self.run.prompt.spoken):
                best = [
                    None
                    if self._steered(source.tool, call, None)
                    else self._best(SELECTORS[key][1], source, Source("fact", source.tool, compared), call)
                    for call in last
                ]
                ids = [
                    None if one is None else normal(self.workflow.tools[source.tool].facts[source.field].type, one[source.field])
                    for one in best
                ]
                if None not in ids and len(set(ids)) == 1 and any(one is row for one in best):
                    return True
        return False

    def _best(self, greatest: bool, of: Source, by: Source, call: EarlierCall) -> Mapping[str, Any] | None:  # noqa: FBT001
        """The row that is before all others; None when two share the place, or one is not comparable with the rest."""
        tool = self.workflow.tools[of.tool]
        fact, name = tool.facts[by.field], tool.facts[of.field]
        ranked: list[Any] = [
            (normal(fact.type, row.get(fact.name)), normal(name.type, row.get(name.name)), row.get(fact.currency), row) for row in call.rows
        ]
        for value, key, currency, row in ranked:
            others = [(v, k, c) for v, k, c, _ in ranked]
            if any(v is None or k is None or c != currency or (fact.currency and type(c) is not str) for v, k, c in others):
                return None
            if all((v <= value if greatest else v >= value) and (v != value or k == key) for v, k, c in others):
                best: Mapping[str, Any] = row
                return best
        return None

    def own(self, kind: str, key: Any) -> bool:
        """The id of the run's user; ids are told apart only within one tenant."""
        header = self.run.header
        return header.user is not None and header.user.tenant == header.tenant and same(normal(kind, header.user.id), key)

    def computed(self, name: str, key: Any) -> bool:
        """One calculation that the user's words name, over numbers of the other origins, wherever each counts."""
        rule, currency, said = self.tool.args[name], self.currency(name) or "", calculations(self.run.prompt.turns)
        reads = {tool for tool, declared in self.workflow.tools.items() if declared.effect == "read"}
        acts = [call.redeemed_at for call in self.run.calls if call.tool not in reads]
        own: set[Amount] = set()
        returned: set[Amount] = set()
        for source in self.sources(name):
            if source.kind == "prompt":
                fit = {a for a in said.amounts if rule.type != "money" or a[1] in {"", currency}}
                own |= {a for a in fit if self.run.prompt.words(rule.type, a[0], currency) is not None}
            for earlier, row in self.everywhere() if source.tool else ():
                if earlier.tool not in reads or any(at < earlier.redeemed_at for at in acts):
                    continue  # what is read after an act may be the result of a calculation
                fact = self.fact(source, earlier, row, origin=True) if row is not None and source.kind != "arg" else None
                found = self.argument(source, earlier) if source.kind == "arg" else [fact] if fact is not None else []
                if source.kind != "select" or self.selected(source, earlier, row):
                    returned |= {(k, c or "") for k, c in found if type(k) is Decimal and (c or "") == currency}
        holds = type(key) is Decimal and computed(said, own, returned, key)
        self.found |= {"computed"} if holds else set()
        return holds

    def bounded(self, name: str, key: Any, earlier: EarlierCall | None, row: Mapping[str, Any] | None) -> bool:
        """True when `at_most`, looked up in exactly this call and row, is not exceeded."""
        source = self.tool.args[name].at_most
        if source is None or earlier is None or type(key) is not Decimal:
            return False
        if source.kind == "sum":
            facts = [self.fact(source, earlier, each, origin=False) for each in earlier.rows]
            amounts = [
                Fraction(found[0]) for found in facts if found is not None and type(found[0]) is Decimal and found[1] == self.currency(name)
            ]
            return amounts != [] and Fraction(key) <= sum(amounts)
        if source.kind == "arg":
            bounds = self.argument(source, earlier)
        else:
            fact = self.fact(source, earlier, row, origin=False) if row is not None else None
            bounds = [fact] if fact is not None else []
        return any(type(bound) is Decimal and key <= bound and self.currency(name) == currency for bound, currency in bounds)

    def everywhere(self) -> Iterator[tuple[EarlierCall, Mapping[str, Any] | None]]:
        """Every redeemed call with nothing, and with each of its rows."""
        for earlier in self.run.calls:
            yield earlier, None
            for row in earlier.rows:
                yield earlier, row

    def from_anywhere(self, name: str, key: Any, sources: tuple[Source, ...]) -> bool:
        places = [(None, None), *self.everywhere()]
        return any(self.met(name, key, source, earlier, row) for source in sources for earlier, row in places)

    def explained(self, name: str, choice: Choice) -> bool:
        """One source explains the whole argument: a scalar in the chosen row, each element of a list in any row of the chosen call."""
        rule = self.tool.args[name]
        for source in self.sources(name):
            earlier, row = choice.get(source.tool, (None, None))
            rows = [row] if rule.max_items is None or earlier is None else [None, *earlier.rows]
            if all(any(self.met(name, key, source, earlier, one) for one in rows) for key in self.keys[name]):
                return True
        return False

    def origins(self) -> set[Reason]:
        denied: set[Reason] = set()
        joint: list[tuple[bool, str, Condition]] = []  # (may be left to a person, the argument whose origin it is, condition)
        torn = set()
        for kind in BY_YES:
            by_yes = {name for name in self.keys if self._by_yes(name, kind)}
            if not any(self.confirmed(kind, name, by_yes) for name in by_yes):
                torn |= by_yes
        for name in self.keys:
            rule = self.tool.args[name]
            soft = rule.unknown_origin != "deny"
            if name in torn:
                denied |= self.open(Reason.ARGUMENT_ORIGIN, name)
            elif rule.sources:
                if rule.any_call:
                    if not all(self.from_anywhere(name, key, self.sources(name)) for key in self.keys[name]):
                        denied |= self.open(Reason.ARGUMENT_ORIGIN, name)
                else:
                    condition = self._origin(name)
                    if self._alone(condition):
                        joint.append((soft, name, condition))
                    else:
                        denied |= self.open(Reason.ARGUMENT_ORIGIN, name)
            if rule.at_most is not None:
                if rule.any_call:
                    if not any(all(self.bounded(name, key, *place) for key in self.keys[name]) for place in self.everywhere()):
                        denied.add(Reason.AT_MOST)
                else:
                    condition = self._bound(name, rule)
                    if self._alone(condition):
                        joint.append((False, "", condition))
                    else:
                        denied.add(Reason.AT_MOST)

        for step in self.tool.sequence:
            condition = self._required(step.require, step.within)
            if self._alone(condition):
                joint.append((False, "", condition))
            else:
                denied.add(Reason.SEQUENCE)

        if not denied & {Reason.ARGUMENT_ORIGIN, Reason.AT_MOST, Reason.SEQUENCE} and not self._together(joint):
            hard = [each for each in joint if not each[0]]
            if len(hard) < len(joint) and self._together(hard):
                self._apart(hard, [each for each in joint if each[0]])
            else:
                denied.add(Reason.ONE_SOURCE)
        return denied

    def _apart(self, hard: list[tuple[bool, str, Condition]], soft: list[tuple[bool, str, Condition]]) -> None:
        """Of the arguments that may be left to a person, as few as possible are; where others would do as well, each may be the odd one."""
        for kept in range(len(soft) - 1, -1, -1):
            ways = [way for way in combinations(soft, kept) if self._together([*hard, *way])]
            if ways:
                for _, name, _ in (each for way in ways for each in soft if each not in way):
                    self.open(Reason.ONE_SOURCE, name)
                return

    def _origin(self, name: str) -> Condition:
        return lambda choice: self.explained(name, choice)

    def _bound(self, name: str, rule: Rule) -> Condition:
        bound = rule.at_most
        assert bound is not None
        return lambda choice: all(self.bounded(name, key, *choice.get(bound.tool, (None, None))) for key in self.keys[name])

    def _required(self, tool: str, within: int | None) -> Condition:
        def holds(choice: Choice) -> bool:
            earlier = choice.get(tool, (None, None))[0]
            if earlier is None or earlier.tool != tool:
                return False
            return within is None or self.around.now.timestamp() - earlier.redeemed_at <= within

        return holds

    def _choices(self) -> Iterator[Choice]:
        """Every way to pick one call and one row (or none) for each tool that a rule of this tool names."""
        named = set()
        for rule in self.tool.args.values():
            named |= {source.tool for source in rule.sources if source.tool}
            named |= {rule.at_most.tool} if rule.at_most is not None else set()
        named |= {step.require for step in self.tool.sequence}
        tools = sorted(named)
        options = [[(None, None), *(place for place in self.everywhere() if place[0].tool == tool)] for tool in tools]
        for picks in product(*options):
            yield dict(zip(tools, picks, strict=True))

    def _alone(self, condition: Condition) -> bool:
        return any(condition(choice) for choice in self._choices())

    def _together(self, conditions: list[tuple[bool, str, Condition]]) -> bool:
        lists = [name for _, name, _ in conditions if name and self.tool.args[name].max_items is not None]
        bounds = {name: rule.at_most.tool for name, rule in self.tool.args.items() if rule.at_most is not None and not rule.any_call}

        def holds(choice: Choice) -> bool:
            if not all(condition(choice) for _, _, condition in conditions):
                return False
            in_rows = self.by_element(choice, {name: self._explaining(name, choice) for name in lists}, bounds)
            self.found |= set() if in_rows else {"elements"}
            return in_rows

        return any(holds(choice) for choice in self._choices())

    def _explaining(self, name: str, choice: Choice) -> dict[str, Holds]:
        """The tools (none: empty) of which one source explains a whole list, each with whether it explains one key in one row."""
        found: dict[str, Holds] = {}
        for source in self.sources(name):
            earlier, _ = choice.get(source.tool, (None, None))
            rows = [None, *earlier.rows] if earlier is not None else [None]
            if all(any(self.met(name, key, source, earlier, row) for row in rows) for key in self.keys[name]):
                found[source.tool] = self._any_of(name, source.tool, choice, self.met)
        return found

    def _any_of(self, name: str, tool: str, choice: Choice, met: Met) -> Holds:
        """Whether any source of a tool is met by one key in one row."""
        own, (earlier, _) = [source for source in self.sources(name) if source.tool == tool], choice.get(tool, (None, None))
        return lambda key, row: any(met(name, key, source, earlier, row) for source in own)

    def by_element(self, choice: Choice, explained: Mapping[str, Mapping[str, Holds]], bounds: Mapping[str, str]) -> bool:
        """One tool can be said to explain each list so that every element takes all that it takes of a tool from one row.

        Args:
            choice: one call of each tool.
            explained: for each list the tools that explain it, each with whether it explains one key in one row.
            bounds: the arguments with `at_most`, each with its tool.
        """

        def in_one_row(tool: str, element: list[tuple[str, Any]], chosen: Mapping[str, str]) -> bool:
            earlier, _ = choice[tool]
            for row in [None, *earlier.rows] if earlier is not None else [None]:
                mine = [explained[name][tool](key, row) for name, key in element if chosen.get(name) == tool]
                mine += [self.bounded(name, key, earlier, row) for name, key in element if bounds.get(name) == tool]
                if all(mine):
                    return True
            return False

        for tools in product(*explained.values()):
            chosen = dict(zip(explained, tools, strict=True))
            if all(in_one_row(tool, element, chosen) for tool in choice for element in self.elements):
                return True
        return False

    # --- free text -----------------------------------------------------------------------------------------------------
    def inner_entities(self) -> set[Reason]:
        denied: set[Reason] = set()
        for name, keys in self.keys.items():
            allowed = self.tool.args[name].entities
            if allowed is None or name in self.refused:
                continue
            inside = _texts(self.args[name]) if self.tool.args[name].type == "json" else keys
            for text in inside:
                for kind, key in _inner(text):
                    if not self.entity_from(kind, key, allowed):
                        denied |= self.open(Reason.ENTITY_ORIGIN, name)
        return denied

    def entity_from(self, kind: str, key: Any, allowed: tuple[Source, ...]) -> bool:
        for source in allowed:
            if source.kind == "model":
                return True
            if key is None:
                continue
            if source.kind == "prompt" and self.run.prompt.words(kind, key) is not None:
                return True
            if source.kind == "user" and self.own(kind, key):
                return True
            for earlier, row in self.everywhere():
                if source.kind == "arg" and any(same(key, found) for found, _ in self.argument(source, earlier)):
                    return True
                if source.kind == "fact" and row is not None:
                    fact = self.fact(source, earlier, row, origin=True)
                    if fact is not None and same(key, fact[0]):
                        return True
        return False

    # --- intents -------------------------------------------------------------------------------------------------------
    def intents(self) -> set[Reason]:
        denied: set[Reason] = set()
        if "none" in self.tool.needs:
            denied |= {Reason.INTENT_ABSENT} if self.workflow.intents else set()
        elif "any" not in self.tool.needs:
            denied |= self.asked_for(self.tool.needs)
        for name, rule in self.tool.args.items():
            if rule.needs != () and (name in self.keys or _none_of(name, self.call.args)):
                denied |= self.asked_for(rule.needs)
        return denied

    def asked_for(self, needs: tuple[str, ...]) -> set[Reason]:
        presence = {}
        for name in needs:
            derived = self.run.intents.get(name)
            presence[name] = derived.presence if derived is not None and name in self.workflow.intents else "absent"
        if "present" in presence.values():
            return set()
        unclear = [name for name, found in presence.items() if found == "unclear"]
        if not unclear:
            return {Reason.INTENT_ABSENT}
        said = [self.workflow.intents[name].unclear for name in unclear]
        if set(said) == {"deny"}:
            return {Reason.INTENT_UNCLEAR}
        self.forced.add((Reason.INTENT_UNCLEAR, ""))
        if "confirm" not in said:  # any of them would do, so the one that asks least
            self.enough = "step_up"
        return set()

    def intent(self) -> str:
        for wanted in ("present", "unclear"):
            for name in self.tool.needs:
                if name in self.run.intents and self.run.intents[name].presence == wanted:
                    return name
        return self.tool.needs[0]

    # --- limits --------------------------------------------------------------------------------------------------------
    def limits(self) -> set[Reason]:
        """A sum that cannot be taken exactly, in units of 10^-4, would slip past its limit."""
        for limit in self.tool.limits:
            keys = self.keys.get(limit.argument, [])
            if limit.argument and (not keys or any(type(key) is not Decimal for key in keys)):
                return {Reason.LIMIT}
            units = sum(keys) * 10_000
            if limit.argument and (units < 0 or units != int(units)):
                return {Reason.LIMIT}
        return set()

    def taken(self) -> frozenset[tuple[int, int, str]]:
        taken = set()
        for limit in self.tool.limits:
            if limit.argument:
                taken.add((limit.line, int(sum(self.keys[limit.argument]) * 10_000), self.currency(limit.argument) or ""))
            else:
                taken.add((limit.line, 1, ""))
        return frozenset(taken)

    def plainly_named(self, name: str) -> bool:
        """Every element is one whole entity of the user's words."""
        kind, currency = _named_as(self.tool.args[name]), self.currency(name) or ""
        return all(self.run.prompt.words(kind, key, currency) is not None for key in self.keys[name])

    def exact(self, rule: Rule, key: Key) -> bool:
        """A secret stands in the prompt letter by letter."""
        return not rule.sensitive or any(str(key) in turn for turn in self.written)

    def stands(self, text: str) -> bool:
        return stands(self.run.prompt.turns, text, in_doubt=self.run.prompt.in_doubt)

    def worded(self) -> bool:
        """A text is among the user's words and not one entity of them."""
        return any(
            self.tool.args[name].type == "text"
            and not self.plainly_named(name)
            and all(self.stands(key) and self.exact(self.tool.args[name], key) for key in keys)
            for name, keys in self.keys.items()
            if Source("prompt") in self.tool.args[name].sources
        )

    def reached(self) -> frozenset[str]:
        """A null that was left out; the user's own id as an origin; a row that only "me" means; a page that was not full."""
        nulls = {"null"} if len(self.keys) < len(self.call.args) and None in self.call.args.values() else set()
        by_id = {
            "user"
            for name in self.keys
            if any(self.own(self.tool.args[name].type, key) for key in self.keys[name])
            if Source("user") in self.sources(name)
        }
        needs = {"needs"} if any(self.tool.args[name].needs for name in self.keys) else set()
        return frozenset(nulls | by_id | needs | self.found)

    def stands_for_words(self, source: Source) -> bool:
        """A fact of a read that counts only where the user named its row, or that whole read."""
        if source.kind != "fact" or self.workflow.tools[source.tool].effect != "read":
            return False
        declared = self.workflow.tools[source.tool].facts[source.field]
        return declared.named or declared.named_by != ()

    def named(self) -> bool:
        """Every argument is named: plainly, or by one call and row of each tool that stands for the user's words."""

        def counts(source: Source, earlier: EarlierCall, row: Mapping[str, Any]) -> bool:
            declared = self.workflow.tools[source.tool].facts[source.field]
            if declared.named:  # what a person confirmed is no word of theirs
                return earlier.named
            return self._meant(source.tool, declared, row, earlier, affirmed(self.run.prompt.turns))

        def trusted(name: str, key: Any, source: Source, earlier: EarlierCall | None, row: Mapping[str, Any] | None) -> bool:
            here = earlier is not None and row is not None and self.stands_for_words(source) and counts(source, earlier, row)
            return here and self.met(name, key, source, earlier, row)

        def holds(name: str, choice: Choice) -> bool:
            return self.plainly_named(name) or standing(name, choice) != {}

        def standing(name: str, choice: Choice) -> dict[str, Holds]:
            found: dict[str, Holds] = {}
            for source in self.sources(name):
                earlier, row = choice.get(source.tool, (None, None))
                rows = [row] if self.tool.args[name].max_items is None or earlier is None else earlier.rows
                if all(any(trusted(name, key, source, earlier, one) for one in rows) for key in self.keys[name]):
                    found[source.tool] = self._any_of(name, source.tool, choice, trusted)
            return found

        def together(choice: Choice) -> bool:
            lists = [name for name in self.keys if self.tool.args[name].max_items is not None and not self.plainly_named(name)]
            return all(holds(name, choice) for name in self.keys) and self.by_element(choice, {n: standing(n, choice) for n in lists}, {})

        return bool(self.keys) and any(together(choice) for choice in self._choices())

    # --- step-up -------------------------------------------------------------------------------------------------------
    def open(self, reason: Reason, name: str) -> set[Reason]:
        """An origin that does not hold: a reason to refuse, or to ask, as the argument says."""
        said = self.tool.args[name].unknown_origin
        if said == "deny":
            return {reason}
        self.forced.add((reason, name))
        if said == "step_up":
            self.enough = "step_up"
        return set()

    def asked(self) -> list[StepUpRule]:
        """The rules that ask: every one where a group must be asked and no rule says what it is about; else those whose `when` holds."""
        rules = self.tool.step_ups
        if self.forced and self.enough == "step_up" and all(rule.left_open == () for rule in rules):
            return list(rules)
        reasons = {reason for reason, _ in self.forced}
        there = {"intent": Reason.INTENT_UNCLEAR in reasons, "origin": bool(reasons - {Reason.INTENT_UNCLEAR})}
        return [rule for rule in rules if self.fires(rule) and all(there[kind] for kind in rule.left_open)]

    def fires(self, step_up: StepUpRule) -> bool:
        """Every rule of `when` holds; one on an absent argument does not, one on a list holds if it does for an element."""
        return all(any(self._fires_on(when, key) for key in self.keys.get(when.name, [])) for when in step_up.when)

    def _fires_on(self, when: Rule, key: Any) -> bool:
        rule = self.tool.args[when.name]
        holds = list(_operators(when, key))
        if when.above is not None:
            holds.append(type(key) is Decimal and key > when.above)
        if when.not_in is not None:
            holds.append(not any(same(key, _constant(rule.type, item)) for item in when.not_in))
        if when.not_pattern is not None:
            holds.append(not (isinstance(key, str) and when.not_pattern.matches(key)))
        if when.origin is not None:
            explained = self.from_anywhere(when.name, key, tuple(s for s in self.sources(when.name) if s.kind != "model"))
            found = []
            for origin in when.origin:
                if origin == "unknown" or origin.kind == "model":
                    left_open = {name for reason, name in self.forced if reason is not Reason.ENTITY_ORIGIN}
                    found.append(not explained or (origin == "unknown" and when.name in left_open))
                else:
                    found.append(self.from_anywhere(when.name, key, (origin,)))
            holds.append(any(found))
        return all(holds)


def _by_rule(tool: Tool, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments by the names of rules: ``files[].path`` is the list of what stands at that place in each element of ``files``."""
    found: dict[str, Any] = {}
    for name, value in args.items():
        below = [rule for rule in tool.args if rule.startswith((name + ".", name + "[]."))]
        if value is None and (tool.args[name].nullable if name in tool.args else below and all(tool.args[rule].nullable for rule in below)):
            continue  # as if it were not there
        if not below:
            found[name if name in tool.args and "." not in name else f"unknown {name}"] = value
            continue
        places = [
            (place, inner)
            for place, inner in _places(name, value)
            if not (inner is None and place in tool.args and tool.args[place].nullable and not place.endswith("]"))
            and not (inner == [] and any(rule.startswith(place + "[]") for rule in below))
        ]
        for place in {place for place, _ in places}:
            values = [inner for other, inner in places if other == place]
            found[place if place in below else f"unknown {place}"] = values if "[]" in place else values[0]
        for rule in below:
            around = rule[: rule.rindex("[]") + 2] if "[]" in rule else ""
            if around and rule in found and not tool.args[rule].optional and len(found[rule]) != _elements(name, value, around):
                del found[rule]
    return found


def _places(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _places(path + "." + (key if not set(".[") & set(key) else "?"), inner)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _places(path + "[]", inner)
    else:
        yield path, value


def _elements_of(tool: Tool, args: Mapping[str, Any], keys: Mapping[str, list[Any]]) -> list[list[tuple[str, Any]]]:
    """The elements of all lists: the leaves that stand at the same indices, by name."""
    found: dict[tuple[str, tuple[int, ...]], list[tuple[str, Any]]] = {}
    for arg, value in args.items():
        for path, at, inner in _indexed(arg, (), value):
            name = path if path in tool.args else path.removesuffix("[]")
            if name in keys and tool.args[name].max_items is not None and not (inner is None and tool.args[name].nullable):
                around = name[: name.rindex("[]")] if "[]" in name else name
                found.setdefault((around, at), []).append((name, normal(tool.args[name].type, inner)))
    return list(found.values())


def _indexed(path: str, at: tuple[int, ...], value: Any) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """As `_places`, with the index in each list around a leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _indexed(path + "." + (key if not set(".[") & set(key) else "?"), at, inner)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _indexed(path + "[]", (*at, index), inner)
    else:
        yield path, at, value


def _elements(path: str, value: Any, wanted: str) -> int:
    """How many elements stand in all lists at this place."""
    if isinstance(value, dict):
        return sum(_elements(f"{path}.{key}", inner, wanted) for key, inner in value.items())
    if isinstance(value, list):
        return (len(value) if path + "[]" == wanted else 0) + sum(_elements(path + "[]", inner, wanted) for inner in value)
    return 0


def _none_of(name: str, args: Mapping[str, Any]) -> bool:
    """Whether a list was sent where the rule's leaves would stand, and it, or all there are, hold nothing."""
    for at in [i for i in range(len(name)) if name.startswith("[].", i) or name[i:] == "[]"]:
        lists = [count for arg, value in args.items() for count in _lengths(arg, value, name[:at])] if "." in name else []
        if lists and max(lists) == 0:
            return True
    return False


def _lengths(path: str, value: Any, wanted: str) -> Iterator[int]:
    """The length of each list at this place."""
    if isinstance(value, list):
        if path == wanted:
            yield len(value)
        for inner in value:
            yield from _lengths(path + "[]", inner, wanted)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _lengths(f"{path}.{key if not set('.[') & set(key) else '?'}", inner, wanted)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for inner in value.values() for text in _texts(inner))]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _new_id(declared: Fact, key: Any, earlier: EarlierCall) -> bool:
    """Results of write tools are never origins, except a new id they create: one that was not among what they were given."""
    given = [str(value) for name, each in earlier.args.items() for _, value in _places(name, each)]
    return declared.type == "id" and key not in given


def _named_as(rule: Rule) -> str:
    """Where a number may be computed, a percentage is part of the calculation and not the number."""
    return "computed" if rule.type == "number" and "computed" in [source.kind for source in rule.sources] else rule.type


def _constant(kind: str, value: Any) -> Any:
    return value if type(value) is Decimal else normal(kind, value)


def _operators(rule: Rule, key: Any) -> Iterator[bool]:
    """The operators on one value, each yes or no."""
    if rule.equals is not None:
        yield same(key, _constant(rule.type, rule.equals[0]))
    if rule.one_of is not None:
        yield any(same(key, _constant(rule.type, item)) for item in rule.one_of)
    if rule.pattern is not None:
        yield type(key) is str and rule.pattern.matches(key)
    if rule.glob is not None:
        yield type(key) is str and rule.glob.matches(key)
    if rule.text is not None:
        yield type(key) is str and len(key) <= rule.text
    if rule.minimum is not None:
        yield type(key) is Decimal and key >= rule.minimum
    if rule.maximum is not None:
        yield type(key) is Decimal and key <= rule.maximum


_QUOTES = "<>\"'\u201c\u201d\u2018\u2019\u00ab\u00bb"
_SOME_DAY = date(2027, 1, 1)  # dates in a text do not matter here
_ENDS = ("com", "de", "example", "ru")  # of links without a scheme, as the generator writes them
_LOCAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-"
_SCHEME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-"
_HOST = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"


def _inner(text: str) -> Iterator[tuple[str, Any]]:
    """Every email, link, IBAN and phone number in a text the model wrote; the key is None where it is one in no normal form.

    Wider than the prompt's tokeniser on purpose: there, what is not a clean entity names nothing; here, it must not pass.
    """
    taken: set[int] = set()
    for at in range(len(text)):
        if text.startswith("://", at) and at not in taken:
            start, end = at, at
            while start > 0 and text[start - 1] in _SCHEME:
                start -= 1
            while end < len(text) and not text[end].isspace() and text[end] not in _QUOTES:
                end += 1
            taken |= set(range(start, end))
            scheme, _, rest = text[start:end].rstrip(".,;:!?)]}>*").partition("://")
            host, slash, path = rest.partition("/")
            yield "url", normal("url", f"{scheme.lower()}://{host.lower()}{slash}{path}")
    for at, char in enumerate(text):
        if char != "@" or at in taken:
            continue
        start, end = at, at + 1
        while start > 0 and text[start - 1] in _LOCAL:
            start -= 1
        while end < len(text) and text[end] in _HOST:
            end += 1
        local, host = text[start:at].lstrip("._%+-"), text[at + 1 : end].rstrip(".-")
        if local and "." in host:
            yield "email", normal("email", f"{local}@{host}".lower())
    for entity in entities(text, _SOME_DAY):
        if entity.type in {"iban", "phone"}:
            yield entity.type, entity.key
    for word in text.lower().split():
        if word.startswith("www.") or (
            word.strip(".,").rpartition(".")[2] in _ENDS and "@" not in word and "/" not in word and "." in word[:-1]
        ):
            yield "url", None
        if word.isalnum() and 14 <= len(word) <= 34 and word[:2].isalpha() and word[2:4].isdigit() and word.upper() not in text:
            yield "iban", None
        if word.isdigit() and len(word) >= 9 and word.startswith("00"):
            yield "phone", None
