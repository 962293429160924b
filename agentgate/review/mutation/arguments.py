"""The mutants of an argument and its origins, of a fact and of a `step_up.when` condition: every
operator and key, dropped or loosened.

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
from agentgate.review.mutation.mutant import Basis, Changes, Mutant, Mutated, Part
from agentgate.review.scenarios.values import (
    candidates,
    fits,
    in_words,
    long_words,
    malformed,
    named,
    place,
    sent,
    singles,
)
from agentgate.values.entities import CALCULATED, TOKENISED, number
from agentgate.values.expression import Unreadable
from agentgate.values.value_class import Json
from agentgate.workflow.left_open import answerable
from agentgate.workflow.model import Intent, StepUpRule, Tool, counted
from agentgate.workflow.operators import as_sent, key_of
from agentgate.workflow.rule import (
    BY_YES,
    COMPUTED,
    CONFIRMED,
    MODEL,
    PROMPT,
    USER,
    Fact,
    Rule,
    Source,
)

Tries = Iterator[Changes]


def placed(rule: Rule, values: Iterable[Any]) -> Tries:
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
    if rule.max_items:
        yield _longer(part, rule, rule.max_items + 1)
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
        pin="grants.masked",
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
        loosened: Json = {operator.field: value}
        values = list(_only_looser(basis, tool, part, replace(rule, **loosened)))
        ways = (
            [{f"args.{rule.name}": each} for each in values]
            if operator.length
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
        if not operator.bounds and not operator.length
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


def _above(basis: Basis, tool: Tool, rule: Rule) -> Tries:
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


def _longer(part: Part, rule: Rule, most: int) -> Mutant:
    """A list that may be longer by one element."""
    words = f"{rule.max_items} -> {most}"
    name = f"too many {rule.name}"
    return part.mutant("max_items", words, name, _too_many(rule), max_items=most)


def _too_many(rule: Rule) -> Tries:
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
        and not rule.max_items
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


def _sized(basis: Basis, tool: Tool, rule: Rule) -> Tries:
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


def _unasked(basis: Basis, tool: Tool, rule: Rule) -> Tries:
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
                loose: Json = {field: None}
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
                narrowed: Json = {operator.field: value}
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


# --- where an argument may come from ----------------------------------------------------------
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
    computable = rule.type in CALCULATED and not rule.max_items and not rule.named_first
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
    if rule.unknown_origin == "deny" and asks:
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
    if rule.unknown_origin == "deny" and asks:
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


def _unselected(rule: Rule, source: Source) -> Tries:
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


def _mixed(tool: Tool, rule: Rule) -> Tries:
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
            if order.require == source.tool and order.within:
                yield {**second, f"ago.{source.tool}#2": f"{order.within + 1}s"}
        two = list(islice(singles(rule), 2))
        if rule.max_items and len(two) == 2:
            yield {f"args.{rule.name}": two, place(source): two[0], place(source, "#2"): two[1]}


def _alone(tool: Tool, rule: Rule) -> bool:
    """Whether nothing else of the call refers to the tools that this single value refers to:
    then it is always of one call.
    """
    own = {s.tool for s in rule.references}
    once = rule.max_items is None and (len(rule.references) == 1 or rule.at_most is None)
    return once and not own & {
        *(s.tool for _, s in _others(tool, rule)),
        *(o.require for o in tool.sequence if o.within),
    }
