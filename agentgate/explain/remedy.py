"""What would make a failed condition hold: a concrete change, where there is one.

Rules: a changed argument is proposed only where `agentgate.decision.decide.decide` finds that
the condition holds with it. A proposal takes its values from what the rule allows: its own list
or bounds, the user's words, the facts of earlier calls. Sensitive values are masked in the
text. For a reader, never for a model: it teaches the edge. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from difflib import get_close_matches
from itertools import islice
from typing import Any

from agentgate.decision.answer import Eligible
from agentgate.decision.case import Case
from agentgate.decision.decide import decide, judge
from agentgate.decision.origins.earlier_calls import Answer
from agentgate.decision.origins.kinds import kind_of, of_call
from agentgate.errors import CanonicalError
from agentgate.explain.evidence import MASKED, Evidence, secret
from agentgate.explain.listing import Condition, conditions, matching, needs_of
from agentgate.language.prompt import Entity
from agentgate.values.canonical import canonical, parse
from agentgate.values.entities import normal
from agentgate.values.refusal import Reason
from agentgate.values.request import Call
from agentgate.values.value_class import value_class
from agentgate.workflow.clauses.clause import WorkflowClause
from agentgate.workflow.clauses.sequence import Sequence
from agentgate.workflow.model import StepUpRule
from agentgate.workflow.nested import root
from agentgate.workflow.rule import PROMPT, USER, Rule, Source

_TRIED = 24  # proposals tried for one condition
_DROP = object()


@value_class
class Remedy:
    """A change under which one failed condition holds."""

    text: str  # for a reader: what is needed
    # the arguments to change, by name; empty when no argument is the way (None as a value:
    # leave it out)
    change: Mapping[str, Any] = field(default_factory=dict)
    # the workflow then allows the whole call, alone or after a person's yes
    enough: bool = False


def remedy(
    condition: Condition, reason: Reason, case: Case, evidence: Evidence, *, whole: bool = True
) -> Remedy:
    """What would make a condition of `case.workflow` that failed for this reason hold for this
    call, whose checks have all run.

    `whole`: all arguments of the call are known; without that, nothing is claimed of the whole
    call.
    """
    for change, text in islice(_proposals(condition, case, evidence), _TRIED):
        held, enough = _asked(condition, case, change)
        if held:
            return Remedy(
                text,
                {name: None if value is _DROP else value for name, value in change.items()},
                enough and whole,
            )
    return Remedy(_words(condition, reason, case))


def all_together(ways: Iterable[Remedy], case: Case) -> Remedy | None:
    """The changes of several conditions as one, if the engine allows the whole call with them;
    the last or the first of two wins.
    """
    changing = [way for way in ways if way.change]
    if len(changing) < 2 or any(way.enough for way in changing):
        return None
    for order in (changing, changing[::-1]):
        change: dict[str, Any] = {}
        by: dict[str, Remedy] = {}
        for way in order:
            change |= way.change
            by |= dict.fromkeys(way.change, way)
        call = _changed(
            case, {name: _DROP if value is None else value for name, value in change.items()}
        )
        if call is not None and isinstance(
            decide(case.workflow, case.run, call, case.around), Eligible
        ):
            return Remedy(
                "; ".join(dict.fromkeys(way.text for way in by.values())), change, enough=True
            )
    return None


def _changed(case: Case, change: Mapping[str, Any]) -> Call | None:
    """The call with these arguments changed; None where they have no canonical form."""
    args = {
        name: value
        for name, value in {**case.call.args, **change}.items()
        if value is not _DROP
    }
    try:
        data = canonical(args)
    except CanonicalError:
        return None
    return Call(case.call.tool, case.call.id, data, parse(data), case.call.definition)


def _asked(condition: Condition, case: Case, change: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the condition holds with these arguments changed, and whether the engine then
    allows the whole call.
    """
    call = _changed(case, change)
    if call is None:
        return False, False
    changed = Case(case.workflow, case.run, call, case.around)
    answer = judge(changed)
    listed = conditions(case.workflow, case.tool)
    failed = {
        c.key
        for failure in (*changed.denied, *changed.forced)
        for c in matching(failure, listed)
    }
    held = failed.isdisjoint({condition.key, *condition.after})
    return held, held and isinstance(answer, Eligible)


# --- proposals --------------------------------------------------------------------------------
Proposal = tuple[Mapping[str, Any], str]


def _proposals(condition: Condition, case: Case, evidence: Evidence) -> Iterator[Proposal]:
    rule = condition.rule if isinstance(condition.rule, Rule) else None
    if condition.word == "args":
        roots = {root(name) for name in (case.tool.args if case.tool is not None else ())}
        unknown = [name for name in case.call.args if name not in roots]
        yield dict.fromkeys(unknown, _DROP), "without " + ", ".join(unknown)
    elif condition.word == "one source":
        yield from _together(case, evidence)
    elif rule is None:
        return
    elif condition.word == "needs":
        if rule.optional and rule.name in case.call.args:
            yield {rule.name: _DROP}, f"without {rule.name}"
    elif condition.word == "at_most" and rule.at_most is not None:
        yield from _bounds(rule, rule.at_most, case, evidence)
    elif condition.word in {"from", "required", "type"}:
        if rule.optional and case.call.args.get(rule.name, "") is None:
            yield {rule.name: _DROP}, f"without {rule.name} (null is a value, and is sent)"
        yield from _allowed(rule)
        yield from _known(rule, case, evidence)
    elif condition.about == "argument":
        yield from _allowed(rule)
        if rule.max_items is not None and condition.word == "max_items":
            yield (
                {rule.name: case.values[rule.name].raw[: rule.max_items]},
                f"{rule.name}: the first {rule.max_items} elements",
            )
        yield from _known(rule, case, evidence)


def _named(rule: Rule, value: Any, where: str, *, hidden: bool = False) -> Proposal:
    shown = MASKED if rule.sensitive or hidden else f"{value}"
    return {
        rule.name: value if rule.max_items is None else [value]
    }, f"{rule.name} {shown}{where}"


def _allowed(rule: Rule) -> Iterator[Proposal]:
    """The values that the rule itself lists, and its bounds, the upper first."""
    for operator in sorted(rule.operators, key=lambda each: not each.closed and -each.outwards):
        for value, words in operator.proposals(rule.type):
            change, _ = _named(rule, value, "")
            yield change, f"{rule.name} {words}"


def _bounds(rule: Rule, bound: Source, case: Case, evidence: Evidence) -> Iterator[Proposal]:
    for call, index in evidence.places(bound.tool):
        value = _held(bound, call, index)
        if kind_of(bound).spread:
            total = (
                call.total(bound, case.values[rule.name].currency)
                if rule.name in case.values
                else None
            )
            value = None if total is None else str(total)
        if value is not None:
            change, _ = _named(rule, value, "")
            shown = MASKED if rule.sensitive or secret(case.workflow, bound) else value
            text = f"{rule.name} at most {shown}"
            place = f" ({bound} of call {call.id})"
            yield change, text + place
            if (currency := _currency(bound, case, call, index)) and rule.currency:
                yield {**change, rule.currency: currency}, f"{text} in {currency}{place}"


def _held(source: Source, call: Answer, index: int) -> Any:
    """What a source says in a call and row, as it was returned or given; None where it is no
    origin.
    """
    if kind_of(source).spread or call.keys(source)[index] is None:
        return None
    return of_call(source).fields(call, call.rows[index]).get(source.field)


def _currency(source: Source, case: Case, call: Answer, index: int) -> str:
    """The currency beside a money value of an earlier call; empty where it has none."""
    kind = of_call(source)
    sibling = kind.declared(source, case.workflow.tools).currency
    return str(kind.fields(call, call.rows[index]).get(sibling, "")) if sibling else ""


def _known(rule: Rule, case: Case, evidence: Evidence) -> Iterator[Proposal]:
    """The values that the allowed origins hold now."""
    for source in rule.sources:
        if source == PROMPT:
            yield from _said(rule, case)
        elif source == USER:
            if (
                case.earlier.user is not None
                and normal(rule.type, case.earlier.user) is not None
            ):
                yield _named(rule, case.earlier.user, f", {kind_of(source).short}")
        elif source.tool:
            for call, index in evidence.places(source.tool):
                value = _held(source, call, index)
                if value is not None:
                    where = f", as {kind_of(source).words} {source.tool} ({source.field}, call {call.id})"
                    change, text = _named(
                        rule, value, where, hidden=secret(case.workflow, source)
                    )
                    yield change, text
                    if (currency := _currency(source, case, call, index)) and rule.currency:
                        yield {**change, rule.currency: currency}, f"{text}, in {currency}"


def _said(rule: Rule, case: Case) -> Iterator[Proposal]:
    tables = {} if case.run.prompt is None else case.run.prompt.named
    said: list[Entity] = [entity for table in tables.values() for entity in table.values()]
    if rule.type == "text":  # for which any of the user's words would do
        said = [
            entity
            for entity in said
            if isinstance(entity.key, str)
            and case.run.prompt.words("text", entity.key) is not None
        ]
    for entity in sorted(said, key=lambda e: e.type != rule.type):
        value = entity.key if isinstance(entity.key, str | bool) else str(entity.key)
        yield _named(
            rule,
            value,
            ", as the user wrote it" + ("" if rule.sensitive else f" ({entity.words!r})"),
        )


def _together(case: Case, evidence: Evidence) -> Iterator[Proposal]:
    """All arguments that refer to one tool, taken from one call and row."""
    rules = [v.rule for v in case.values.values() if not v.rule.any_call]
    for tool in dict.fromkeys(s.tool for rule in rules for s in rule.sources if s.tool):
        for call, index in evidence.places(tool):
            change: dict[str, Any] = {}
            for rule in rules:
                held = (
                    _held(source, call, index) for source in rule.sources if source.tool == tool
                )
                value = next((each for each in held if each is not None), None)
                if value is not None:
                    change |= _named(rule, value, "")[0]
            shown = ", ".join(
                f"{name} {MASKED if case.values[name].rule.sensitive else value}"
                for name, value in change.items()
                if name in case.values
            )
            if change:
                yield (
                    change,
                    f"{shown}: all of call {call.id} of {tool}"
                    + (f", row {index + 1}" if call.returned > 1 else ""),
                )


# --- where no argument is the way -------------------------------------------------------------
def _words(condition: Condition, reason: Reason, case: Case) -> str:
    if reason in _TOLD:
        return _TOLD[reason](condition, case)
    rule = condition.rule
    if isinstance(rule, WorkflowClause | Sequence):
        return rule.remedy
    if not isinstance(rule, Rule) or condition.about not in {"argument", "origin"}:
        return f"{condition.field}: {condition.expected}"
    if condition.word == "from" and not rule.free:
        said = (
            "in the user's words, in their order"
            if rule.type == "text"
            else kind_of(PROMPT).words
        )
        return f"{rule.name} " + " or ".join(
            said if source == PROMPT else _source(source, case) for source in rule.sources
        )
    if condition.word == "at_most" and rule.at_most is not None:
        if not case.earlier.of(rule.at_most.tool):
            return f"{rule.at_most.tool} called first: its {rule.at_most.field} is the bound"
        return (
            f"{rule.name} {condition.expected} (same currency)"
            if rule.currency
            else f"{rule.name} {condition.expected}"
        )
    if condition.word == "entities":
        allowed = " or ".join(_source(source, case) for source in rule.entities or ())
        return f"{rule.name} without that address, or with one {allowed}"
    return f"{rule.name}: {condition.expected}"


def _source(source: Source, case: Case) -> str:
    first = "" if kind_of(source).alone or case.earlier.of(source.tool) else " (call it first)"
    return f"{kind_of(source).told(source)}{first}"


def _intent(condition: Condition, case: Case) -> str:
    wanted = [
        case.workflow.intents[n]
        for n in needs_of(condition, case.tool)
        if n in case.workflow.intents
    ]
    asked = " or ".join(
        f"{i.name}: {i.asks_for}" + (f" (such as {i.examples[0]!r})" if i.examples else "")
        for i in wanted
    )
    return f"the user asking for {asked}" if asked else "a workflow that names who asks"


def _unknown_tool(_: Condition, case: Case) -> str:
    near = get_close_matches(case.call.tool, case.workflow.tools, n=1)
    return f"one of {', '.join(case.workflow.tools)}" + (
        f" (did you mean {near[0]}?)" if near else ""
    )


def _person(condition: Condition, _: Case) -> str:
    rule = condition.rule
    if not isinstance(rule, StepUpRule):
        return condition.expected
    return (
        f"a yes of {rule.whom}"
        + (", not the requester" if rule.exclude else "")
        + f", within {rule.timeout} s"
    )


_TOLD: Mapping[Reason, Callable[[Condition, Case], str]] = {
    Reason.TOOL_UNKNOWN: _unknown_tool,
    Reason.INTENT_ABSENT: _intent,
    Reason.INTENT_UNCLEAR: _intent,
    Reason.STEP_UP: _person,
    Reason.TENANT: lambda _, k: f"a run of tenant {', '.join(k.workflow.tenants)}",
    Reason.WORKFLOW_EXPIRED: lambda _, k: f"a new version of {k.workflow.id}",
    Reason.WORKFLOW_CHANGED: lambda _, k: (
        f"a new run, opened under version {k.workflow.version} of {k.workflow.id}"
    ),
    Reason.TWO_VERSIONS: lambda _, k: (
        f"a new run, opened under the version of {k.workflow.id} that is in force"
    ),
    Reason.RUN_CLOSED: lambda _, __: "a new run",
    Reason.TOO_MANY_DENIALS: lambda _, __: "a new run",
    Reason.TOOL_DEFINITION: lambda c, _: (
        f"the tool as it was reviewed ({c.expected}), or a review of the tool as it is now"
    ),
    Reason.ONE_SOURCE: lambda c, _: c.expected,
}
