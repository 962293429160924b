"""The mutants of an argument, of a fact and of a `step_up.when` condition: every operator and
key, dropped or loosened.

A result then counts more often, or a person is asked less or more often.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from itertools import islice, product
from typing import Any, Literal

from agentgate.decision.origins.kinds import kind_of, of_call
from agentgate.diff.arguments import raws_of
from agentgate.diff.forms import SAMPLES
from agentgate.diff.language import TooLarge
from agentgate.review.mutation.mutant import Basis, Changes, Mutated, Part
from agentgate.review.mutation.origins import origins
from agentgate.review.scenarios.fields import named, place
from agentgate.review.scenarios.values import (
    candidates,
    fits,
    long_words,
    malformed,
    sent,
    singles,
)
from agentgate.values.entities import number
from agentgate.values.expression import Unreadable
from agentgate.workflow.model import Intent, StepUpRule, Tool
from agentgate.workflow.operators import as_sent, key_of
from agentgate.workflow.page_size import counted
from agentgate.workflow.rule import CONFIRMED, MODEL, PROMPT, Fact, Rule, Source


def placed(rule: Rule, values: Iterable[Any]) -> Iterator[Changes]:
    """Each value, placed where the rule lets it come from; alone where it names no place."""
    kept = list(islice(values, 12))
    arg = f"args.{rule.name}"
    origin = f"origin.{rule.name}"
    places = [named(source) for source in rule.sources if source != MODEL]
    yield from ({arg: value, origin: where} for value in kept for where in places)
    if not places:
        yield from ({arg: value} for value in kept)
    if rule.at_most:
        yield from ({arg: value, place(rule.at_most): value} for value in kept)


def argument(basis: Basis, tool: Part, rule: Rule) -> Mutated:
    """Every mutant of an argument of a tool."""
    part = tool.inside(f"{tool.path}.args.{rule.name}", "args", rule)
    if rule.type != "text":
        misses = placed(rule, (sent(rule, value) for value in malformed(rule.type)))
        yield part.mutant(
            "type",
            f"{rule.type} -> any text",
            f"{rule.name} not in the form of type {rule.type}",
            misses,
            type="text",
        )
    yield from _operators(basis, tool.value, part)
    yield from part.without(
        "at_most",
        f"{rule.name} above {rule.at_most}",
        _above(basis, tool.value, rule),
        at_most=None,
    )
    if rule.max_items is not None:
        yield part.moved("max_items", f"too many {rule.name}", _too_many(rule))
    if rule.role:
        full: list[list[Any]] = [sorted(rule.role_scopes)]
        full += [[scope] for scope in rule.one_of or () if scope not in rule.role_scopes]
        yield part.mutant(
            "narrower_than_role",
            "dropped",
            f"all of the role {rule.role}",
            [{f"args.{rule.name}": scopes} for scopes in full],
            role="",
            role_scopes=frozenset(),
        )
    yield from origins(basis, tool.value, part)
    if rule.currency:
        foreign = [
            {f"args.{rule.currency}": other}
            for other in candidates(tool.value.args[rule.currency])
        ]
        yield part.mutant(
            "currency", "dropped", f"{rule.name} in another currency", foreign, currency=""
        )
    yield from _loosen_presence(part)
    if _may_be_page_size(tool.value, rule):
        name = f"a row that the user names, where the model chose {rule.name}"
        sized = _sized(basis, tool.value, rule)
        yield replace(part, tool="").mutant(
            "page_size", "false -> true", name, sized, page_size=True
        )
    yield from part.without(
        "needs",
        f"{rule.name} that nobody asked for",
        _unasked(basis, tool.value, rule),
        needs=(),
    )
    yield from part.without(
        "sensitive",
        f"{rule.name} is masked",
        words="true -> false",
        pin=("grants", "masked"),
        sensitive=False,
    )


def _loosen_presence(part: Part) -> Mutated:
    """An argument that may be left out, or be sent as null."""
    rule: Rule = part.value
    none = {f"args.{rule.name}": None}
    if not rule.optional:
        yield part.mutant(
            "optional", "required -> optional", f"no {rule.name}", [none], optional=True
        )
    elif not rule.nullable and not rule.name.endswith("[]"):
        yield part.mutant(
            "nullable",
            "false -> true",
            f"{rule.name} sent as null",
            [{**none, "nulls": [rule.name]}],
            nullable=True,
        )


def _operators(basis: Basis, tool: Tool, part: Part) -> Mutated:
    rule: Rule = part.value
    implied = _implied(rule, basis.workflow.tools)
    for operator in rule.operators:
        key = key_of(operator, rule)
        if operator.field in implied:
            yield part.skipped(key, f"implied: {implied[operator.field]} has the same")
            continue
        words, value, name = operator.loosened
        loosened: dict[str, Any] = {operator.field: value}
        values = list(_only_looser(basis, tool, part, replace(rule, **loosened)))
        ways = (
            [{f"args.{rule.name}": each} for each in values]
            if operator.length is not None
            else placed(rule, values)
        )
        yield part.mutant(key, words, f"{rule.name} {name}", ways, **{operator.field: value})


def _implied(rule: Rule, tools: Mapping[str, Tool]) -> dict[str, str]:
    """Fields of operators that every source of the value has as well, so that no value they
    would refuse reaches the argument.
    """
    if not rule.sources or not all(
        s.tool and (kind_of(s).row_fact or not of_call(s).returned) for s in rule.sources
    ):
        return {}
    declared = [
        tools[s.tool].args.get(s.field) or tools[s.tool].facts.get(s.field)
        for s in rule.sources
    ]
    fields = (
        operator.field
        for operator in rule.operators
        if not operator.bounds and operator.length is None
    )
    same = (
        field
        for field in fields
        if all(getattr(other, field, None) == getattr(rule, field) for other in declared)
    )
    return dict.fromkeys(same, " and ".join(map(str, rule.sources)))


def _only_looser(basis: Basis, tool: Tool, part: Part, loose: Rule) -> Iterator[Any]:
    """Values, one of each class that the two rules tell apart, that only the loosened one
    takes.
    """
    rule: Rule = part.value
    mutated = part.put(loose)
    for raw in _classes([rule, loose]):
        made = sent(rule, raw)
        if (
            raw != ""
            and not fits(basis.workflow, tool.name, rule.name, made)
            and fits(mutated, tool.name, rule.name, made)
        ):
            yield made


def _classes(rules: list[Rule], whens: Sequence[Rule] = ()) -> list[Any]:
    """A value of each class that these rules and conditions tell apart; none where they have no
    exact answer.
    """
    with suppress(Unreadable, TooLarge, RecursionError):
        return raws_of(rules, whens)
    return []


def _above(basis: Basis, tool: Tool, rule: Rule) -> Iterator[Changes]:
    """More than the earlier call's fact says, still within the range."""
    top = (
        number(basis.scene(tool.name).values.get(place(rule.at_most))) if rule.at_most else None
    )
    if top is not None:
        more = {
            f"args.{rule.name}": as_sent(
                rule.type, top + (1 if rule.type == "integer" else Decimal("0.01"))
            )
        }
        yield more
        for where in dict.fromkeys([*(named(s) for s in rule.sources if s != MODEL), "prompt"]):
            yield {**more, f"origin.{rule.name}": where}


def _too_many(rule: Rule) -> Iterator[Changes]:
    allowed = list(islice(singles(rule), 64))
    most = (rule.max_items or 0) + 1
    for pool in (
        allowed,
        [v for v in allowed if v in rule.role_scopes],
        allowed[:1],
        allowed[:2],
    ):
        if pool:
            yield {f"args.{rule.name}": [pool[i % len(pool)] for i in range(most)]}


def _may_be_page_size(tool: Tool, rule: Rule) -> bool:
    """Whether an argument may be declared `page_size`, and rows would count because of it."""
    plain = (
        rule.type == "integer"
        and rule.max_items is None
        and "." not in rule.name
        and rule.equals is None
    )
    free = not rule.page_size and not any(
        r.sensitive or "." in r.name for r in tool.args.values()
    )
    labelled = tool.effect == "read" and any(fact.named_by for fact in tool.facts.values())
    return (
        plain
        and free
        and labelled
        and counted(fact.path for fact in tool.facts.values()) is not None
    )


def _sized(basis: Basis, tool: Tool, rule: Rule) -> Iterator[Changes]:
    """A labelled row that the user names, in a result whose size the user did not name."""
    for other in basis.workflow.tools.values():
        for taken, source in (
            (rule, source) for rule in other.args.values() for source in rule.sources
        ):
            if (
                kind_of(source).row_fact
                and source.tool == tool.name
                and tool.facts[source.field].named_by
            ):
                for size in islice(candidates(rule), 8):
                    yield {
                        "call": other.name,
                        f"origin.{taken.name}": named(source),
                        f"earlier.{tool.name}.{rule.name}": size,
                    }


def _unasked(basis: Basis, tool: Tool, rule: Rule) -> Iterator[Changes]:
    """The argument with words that ask for something else of this tool, or for nothing."""
    intents = basis.workflow.intents
    values = basis.scene(tool.name).values
    texts = [
        text
        for need in tool.every_need
        if need not in rule.needs and need in intents
        for text in intents[need].examples[:2]
    ]
    texts += [text for need in rule.needs for text in intents[need].counter_examples[:2]] + [
        "Good morning"
    ]
    said = [
        v
        for k, v in values.items()
        if k.startswith("args.") and type(v) is str and k != f"args.{rule.name}"
    ]
    words = " and ".join(dict.fromkeys(said))
    places = [
        {},
        *({f"origin.{rule.name}": named(source)} for source in rule.sources if source != MODEL),
    ]
    for value in islice(candidates(rule), 3):
        for text in texts:
            for where in places:
                for prompt in (text, f"{text}. {words}"):
                    yield {f"args.{rule.name}": value, "prompt": prompt, **where}


# --- facts ------------------------------------------------------------------------------------
_UNSAID = {**SAMPLES, "text": "zzyzx", "money": "0.07", "number": "7", "integer": 7}


def fact(basis: Basis, tool: Part, declared: Fact) -> Mutated:
    """Every mutant of a fact; the calls that take it as an origin show them."""
    name = declared.name
    part = replace(tool.inside(f"{tool.path}.facts.{name}", "facts", declared), tool="")
    read: Tool = tool.value
    takers = [
        (t, r, s)
        for t in basis.workflow.tools.values()
        for r in t.args.values()
        for s in r.sources
        if (s.tool, s.field) == (read.name, name)
    ]
    if declared.pattern:
        tries = [
            {"call": t.name, f"args.{r.name}": value, f"origin.{r.name}": named(s)}
            for t, r, s in takers
            for value in (
                *candidates(replace(r, pattern=None, one_of=None, equals=None)),
                "something-else",
                "2",
            )
        ]
        yield part.mutant(
            "pattern", "dropped", f"{name} of another form", tries[:40], pattern=None
        )
    if declared.named and all(_must_be_named(basis, rule) for rule in read.args.values()):
        yield part.skipped(
            "trust",
            f"implied: every argument of {read.name} must be named in the prompt anyway",
        )
    elif declared.named:
        yield from _loosen_trust(basis, part, read, takers)
    rows = f"facts.{read.name}."
    if declared.named_by:
        unsaid = {
            rows + label: _UNSAID.get(read.facts[label].type, "zzyzx")
            for label in declared.named_by
        }
        unmeant = [{"call": t.name, **unsaid} for t, _, _ in takers]
        yield part.mutant(
            "named_by",
            "any row",
            f"{name} of a row that the user does not mean",
            unmeant,
            named_by=(),
        )
    for pair in declared.where:
        values = list(islice(candidates(Rule(pair[0], 0, read.facts[pair[0]].type)), 3))
        others = [
            {"call": t.name, rows + pair[0]: value} for t, _, _ in takers for value in values
        ]
        kept = tuple(each for each in declared.where if each != pair)
        yield part.mutant(
            f"where.{pair[0]}",
            "any row",
            f"{name} of a row that was not asked for",
            others,
            where=kept,
        )


def _loosen_trust(
    basis: Basis, part: Part, read: Tool, takers: list[tuple[Tool, Rule, Source]]
) -> Mutated:
    """A fact that counts although the user did not name what its tool was asked for."""
    declared: Fact = part.value
    source = f"{declared.name} of a source that the user"
    unnamed = [
        {
            "call": t.name,
            f"origin.{r.name}": named(s),
            f"earlier.{read.name}.{a.name}": value,
        }
        for t, r, s in takers
        for a in read.args.values()
        for value in (
            *islice(candidates(a), 3),
            *(long_words(basis.turns(t.name))[:3] if a.type == "text" and a.prompted else ()),
        )
    ]
    yield part.mutant(
        "trust",
        "named -> always",
        f"{source} did not name",
        unnamed,
        named=False,
        confirmed=False,
    )
    if (
        not declared.confirmed
        and declared.type in kind_of(CONFIRMED).types
        and any(rule.user for rule in read.step_ups)
    ):
        yes = [{**way, f"yes.{read.name}": True} for way in unnamed]
        yield part.mutant(
            "trust", "named -> confirmed", f"{source} confirmed", yes, confirmed=True
        )


def _must_be_named(basis: Basis, rule: Rule) -> bool:
    """Whether every value that an argument may have is named by the user: of a text, any of the
    user's words may be one.
    """
    if rule.sources == (PROMPT,):
        return rule.type != "text"
    tools = basis.workflow.tools
    loose = rule.any_call or rule.unknown_origin != "deny"
    facts = [
        tools[s.tool].facts[s.field]
        for s in rule.sources
        if kind_of(s).row_fact and tools[s.tool].effect == "read"
    ]
    meant = (
        rule.type != "text" and not loose and all(fact.named or fact.named_by for fact in facts)
    )
    return meant and bool(facts) and len(facts) == sum(s != PROMPT for s in rule.sources)


# --- step-up conditions -----------------------------------------------------------------------
def firing(
    basis: Basis,
    tool: Tool,
    rule: StepUpRule,
    other: Rule | None = None,
    changes: Iterable[Changes] = (),
) -> list[Changes]:
    """Changes under which every condition of a step-up rule holds; for the condition `other`,
    these `changes`.
    """
    ways = [
        list(islice(changes, 12)) if when is other else _values(basis, tool, when, hold=True)
        for when in rule.when
    ]
    ways += [_left_open(basis, tool, kind) for kind in rule.left_open]
    return [
        {key: value for part in way for key, value in part.items()}
        for way in islice(product(*ways), 80)
    ]


def unclear_prompts(intent: Intent, base: str) -> list[str]:
    """Prompts that may leave open whether an intent is asked for; `base` is one that asks for
    it.
    """
    act = (*intent.words, intent.asks_for)[0]
    texts = (
        "all of them, {} everything",
        "{} all orders",
        "{} everything",
        "Please {} every one",
    )
    open_ = [*intent.counter_examples, *(text.format(act).capitalize() for text in texts)]
    return [*open_, f"{base} and {act} everything", f"{base}. {act.capitalize()} all of them"]


def _left_open(basis: Basis, tool: Tool, kind: Literal["intent", "origin"]) -> list[Changes]:
    """Changes after which a call leaves an intent or an origin open."""
    if kind == "origin":
        return [
            {f"origin.{name}": "model"}
            for name, rule in tool.args.items()
            if rule.unknown_origin != "deny"
        ]
    intents = basis.workflow.intents
    base = basis.turns(tool.name)[0]
    declared = [
        intents[name]
        for name in tool.needs
        if name in intents and intents[name].unclear != "deny"
    ]
    return [
        {"prompt": turns}
        for intent in declared
        for text in unclear_prompts(intent, base)
        for turns in (text, [base, text])
    ]


def conditions(basis: Basis, tool: Tool, part: Part) -> Mutated:
    """Every mutant of the conditions of a step-up rule, which then asks less often, or more."""
    rule: StepUpRule = part.value
    for when in rule.when:
        condition = part.inside(f"{part.path}.when.{when.name}", "when", when)
        argument = tool.args.get(when.name, when)
        dropped = {
            operator.key: operator.field for operator in when.operators if not operator.bounds
        }  # bounds are moved, below
        for key, field in (
            dropped | ({"origin": "origin"} if when.origin is not None else {})
        ).items():
            if getattr(argument, field) == getattr(when, field):
                yield condition.skipped(key, f"implied: the argument {when.name} has the same")
            else:
                loose: dict[str, Any] = {field: None}
                outside = firing(
                    basis, tool, rule, when, _values(basis, tool, when, hold=False)
                )
                yield condition.mutant(
                    key,
                    "dropped",
                    f"{when.name} that {rule.id} does not ask about",
                    outside,
                    **loose,
                )
        others = list(singles(argument))
        for operator in when.operators:
            for words, value, name in operator.narrowed(others):
                narrowed: dict[str, Any] = {operator.field: value}
                less = replace(when, **narrowed)
                values = [sent(argument, each) for each in _classes([argument], [when, less])]
                lost = [
                    v
                    for v in values
                    if _meets(basis, tool, argument, when, v)
                    and not _meets(basis, tool, argument, less, v)
                ]
                only = firing(basis, tool, rule, when, placed(argument, lost))
                yield condition.mutant(
                    operator.key,
                    words,
                    f"{when.name} {name} asks {rule.people}",
                    only,
                    **narrowed,
                )


def _meets(basis: Basis, tool: Tool, argument: Rule, when: Rule, value: Any) -> bool:
    """Whether a condition's operators hold of a value."""
    plain = replace(
        when,
        type=argument.type,
        origin=None,
        max_items=argument.max_items,
        currency=argument.currency,
    )
    changed = replace(tool, args={**tool.args, argument.name: plain})
    return fits(
        replace(basis.workflow, tools={**basis.workflow.tools, tool.name: changed}),
        tool.name,
        argument.name,
        value,
    )


def _values(basis: Basis, tool: Tool, when: Rule, *, hold: bool) -> list[Changes]:
    """Changes after which one condition holds, or does not: none if it is so already."""
    argument = tool.args.get(when.name)
    if not argument:
        return []
    if when.origin is not None:
        own = [
            str(MODEL) if o == "unknown" or kind_of(o).free else named(o) for o in when.origin
        ]
        other = [
            where
            for where in ("prompt", *(named(s) for s in argument.sources), "model")
            if where not in own
        ]
        return [{f"origin.{when.name}": where} for where in (own if hold else other)]

    def right(value: Any) -> bool:
        return _meets(basis, tool, argument, when, value) is hold

    current = basis.scene(tool.name).values.get(f"args.{when.name}")
    listed = (
        *singles(replace(when, type=argument.type)),
        *_classes([argument], [when]),
        *singles(argument),
    )
    near = (sent(argument, value) for value in listed)
    good = (v for v in near if fits(basis.workflow, tool.name, when.name, v) and right(v))
    ways = (change for value in islice(good, 3) for change in placed(argument, [value]))
    return [*([{}] if current is not None and right(current) else []), *islice(ways, 6)]
