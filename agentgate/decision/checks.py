"""The pure decision: every check of a call against its workflow, in order, all failing reasons together.

Rules: no clock, no I/O, no logging; the same values give the same answer. A check is one function and one row of `CHECKS`;
it appends failures and can do nothing else, so an added check can only refuse. Unknown, empty or missing is a failure.
Counters and releases are not known here: the mint script settles them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial

from agentgate.decision.answer import Deny, Eligible, RequiredHold, Reservation
from agentgate.decision.arguments import check_arguments, violated
from agentgate.decision.caller import CALLER, OF_HEADER
from agentgate.decision.case import Case, Check
from agentgate.decision.origin_kinds import kind_of
from agentgate.decision.origins import came_from, in_some_call, trace
from agentgate.decision.traced import Traced
from agentgate.decision.value import Value, sources_of
from agentgate.language.spans import embedded
from agentgate.values.entities import NUMERIC, Key, texts
from agentgate.values.refusal import Failure, Reason, of_argument
from agentgate.values.request import Call, RunState, Surroundings
from agentgate.workflow.model import ANY, NONE, Tool, Workflow
from agentgate.workflow.nested import emptied
from agentgate.workflow.rule import PROMPT, STRICTNESS, Rule

MAX_SEARCHED = 40_000  # characters in all texts of a call that are searched for entities; the slowest such texts take 0.2 s
SCALE = 10_000  # sums are kept in units of 10^-4
EVERY_CALL = "every call"  # what a step-up without `when` asks about
_NOTHING = Decimal()
_NONE: frozenset[str] = frozenset()
_reservation = partial(tuple.__new__, Reservation)  # as `Value` in `agentgate.decision.arguments`


def check_tool(case: Case) -> None:
    """The tool is on the allowlist, is the one that was reviewed (rug pull), and its upstream broker exists."""
    tool = case.tool
    if tool is None:
        case.deny(Reason.TOOL_UNKNOWN, "tool", repr(case.call.tool), "one of " + ", ".join(case.workflow.tools))
        return
    if tool.definition and case.call.definition != tool.definition:
        case.deny(Reason.TOOL_DEFINITION, f"tools.{tool.name}.definition", case.call.definition or "unknown", tool.definition, tool.line)
    if tool.upstream is not None and tool.upstream.broker not in case.around.brokers:
        got = f"{tool.upstream.broker} (not configured)"
        case.deny(Reason.UPSTREAM, f"upstream.{tool.name}.broker", got, "a configured broker", tool.upstream.line)


def check_origins(case: Case) -> None:
    """Origins, bounds and required earlier calls, jointly: one call, one source."""
    tool = case.tool
    if tool is None:
        return
    traced = Traced(tool, case.call.args, case.run.prompt, case.workflow.file)
    trace(traced, case.values, case.earlier, case.around.now.timestamp())
    case.named, case.traced = traced.named and bool(case.values), traced
    case.denied += traced.failures
    if traced.unknown:
        for name, failure in traced.unknown.items():
            case.leave_open(failure, tool.args[name].unknown_origin)
        case.strict |= any(tool.args[name].unknown_origin == "step_up" for name in traced.apart)


def check_entities(case: Case) -> None:
    """Every address, link and account inside a free text has an allowed origin of its own (exfiltration in a memo line).

    Where the argument's `unknown_origin` asks a person, they see the text instead. A value that is refused already is not searched,
    nor is more text than `MAX_SEARCHED`: that is refused, since nothing is known of what is in it.
    """
    if case.tool is None:
        return
    refused = {failure.argument for failure in case.denied if failure.reason is Reason.ARGUMENT_VALUE}
    left = MAX_SEARCHED
    for name in case.tool.grounded:
        value = case.values.get(name)
        if value is None or name in refused:
            continue
        inside = tuple(texts(value.raw))
        left -= sum(map(len, inside))
        if left < 0:
            got, expected = "more text than is searched", f"at most {MAX_SEARCHED} characters in all texts of the call that are searched"
            case.deny_argument(Reason.ENTITY_ORIGIN, name, got, expected, value.rule.line, f"args.{name} entities")
            return
        allowed = value.rule.entities or ()
        sent = case.run.prompt.named.get("sent", ()) if PROMPT in allowed else ()
        for text in inside:
            if text in sent:  # the user wrote all of it, to be sent as it stands
                continue
            for entity in embedded(text, case.around.now.date()):
                if not in_some_call(entity.type, entity.key, allowed, case.earlier):
                    shown = "(masked)" if value.rule.sensitive else repr(entity.words)
                    expected, rule = "found in " + " or ".join(map(str, allowed)), f"{case.workflow.file}:{value.rule.line}"
                    failure = of_argument(Reason.ENTITY_ORIGIN, name, shown, expected, rule, f"args.{name} entities")
                    case.leave_open(failure, value.rule.unknown_origin)


def check_intent(case: Case) -> None:
    """The user's words hold one of the intents that the tool needs, and one of those that each argument sent needs.

    An unclear one asks or refuses, as the intent says.
    """
    tool = case.tool
    if tool is None:
        return
    if ANY not in tool.needs and (NONE not in tool.needs or case.workflow.intents):
        _check_needs(case, "intent", tool.needs, tool.line, {})
    for name in tool.asking:
        if name in case.values or emptied(name, case.call.args):
            rule = tool.args[name]
            _check_needs(case, f"args.{name}", rule.needs, rule.line, {"argument": name})


def _check_needs(case: Case, field: str, needs: tuple[str, ...], line: int, data: dict[str, str]) -> None:
    intents, unclear = case.run.intents, []
    for name in needs:
        presence = intents[name].presence if name in intents else "absent"
        if presence == "present":
            return
        if presence == "unclear":
            unclear.append(name)
    data = {**data, "condition": f"{field} needs"}
    if not unclear:
        case.deny(Reason.INTENT_ABSENT, field, "absent", " or ".join(needs), line, **data)
        return
    got, rule = "unclear: " + ", ".join(unclear), f"{case.workflow.file}:{line}"
    failure = Failure(Reason.INTENT_UNCLEAR, field, got, "a clear request", rule, data)
    answers = {case.workflow.intents[name].unclear for name in unclear}  # one of them would do: the least strict counts
    case.leave_open(failure, next(answer for answer in STRICTNESS if answer in answers))


CHECKS: tuple[Check, ...] = (*CALLER, check_tool, check_arguments, check_origins, check_entities, check_intent)
_OF_CALL = tuple([check for check in CHECKS if check not in OF_HEADER])


def _fires(rule: Rule, case: Case, step_up: str) -> Failure | None:
    """The failure that asks a person where one `step_up.when` condition holds of the call; an absent argument never fires.

    ``origin: unknown`` also holds of an argument whose origin the call leaves open, such as one of another call than the rest.
    """
    value = case.values.get(rule.name)
    if value is None:
        return None
    left_open = "unknown" in (rule.origin or ()) and rule.name in case.left_open
    for key in value.keys:
        if violated(rule, (key,)) is None and (rule.origin is None or left_open or _has_origin(rule, value, key, case)):
            where = f"{case.workflow.file}:{rule.line}"
            return of_argument(Reason.STEP_UP, rule.name, value.shown, "a person's yes", where, f"step_up.{step_up} step_up")
    return None


def _has_origin(rule: Rule, value: Value, key: Key, case: Case) -> bool:
    """True when this element has one of the origins of a `when`. `unknown` and `model`: nothing but the model explains it."""
    for origin in rule.origin or ():
        if origin == "unknown" or kind_of(origin).free:
            if not came_from(value, key, sources_of(value, case.run.prompt), case.earlier):
                return True
        elif came_from(value, key, (origin,), case.earlier):
            return True
    return False


def required_holds(case: Case) -> tuple[RequiredHold, ...]:
    """The step-up rules that fire: each whose `when` holds; every one where a group must be asked and none says what it is about."""
    tool = case.tool
    holds: list[RequiredHold] = []
    everyone = case.strict and tool is not None and not tool.by_when
    left_open = {"intent" if f.reason is Reason.INTENT_UNCLEAR else "origin" for f in case.forced} if case.forced else _NONE
    for rule in tool.step_ups if tool is not None else ():
        fired = tuple([failure for each in rule.when if (failure := _fires(each, case, rule.id)) is not None])
        if everyone or (len(fired) == len(rule.when) and (not rule.left_open or left_open.issuperset(rule.left_open))):
            where = f"{case.workflow.file}:{rule.line}"
            always = Failure(Reason.STEP_UP, f"step_up.{rule.id}", EVERY_CALL, "a person's yes", where, {"every_call": True})
            holds.append(RequiredHold(rule, (*case.forced, *fired) or (always,)))
    return tuple(holds)


def reservations(case: Case) -> tuple[Reservation, ...]:
    """What each limit on this tool takes: one for a count, the amount for a sum; what cannot be summed is denied."""
    taken = []
    for index, limit in enumerate(case.tool.limits if case.tool is not None else ()):
        if not limit.argument:
            taken.append(_reservation((limit, 1, "")))
            continue
        value, got = case.values.get(limit.argument), "nothing to count"
        expected = "a number: a limit sums it (an omitted amount must not slip past it)"
        if value is not None and value.rule.type in NUMERIC:
            keys = [key for key in value.keys if isinstance(key, Decimal)]
            total = (keys[0] if len(keys) == 1 else sum(keys, _NOTHING)) * SCALE
            amount = int(total)
            if amount == total and amount >= 0:
                taken.append(_reservation((limit, amount, value.currency)))
                continue
            got, expected = value.shown, "not negative, at most 4 decimals: a limit sums it"
        case.deny_argument(Reason.LIMIT, limit.argument, got, expected, limit.line, f"limits limit {index}")
    return tuple(taken)


def decide(workflow: Workflow, run: RunState, call: Call, around: Surroundings, checks: tuple[Check, ...] = CHECKS) -> Eligible | Deny:
    """Decide one call, pure: workflow, run, call and surroundings in; `Eligible` or `Deny` with every failing reason out.

    Args:
        workflow: the workflow in force.
        run: the run as last read; its revision is compared again by the mint script.
        call: the proposed call, canonicalised once.
        around: the decision time and what the gate itself knows.
        checks: the table of checks; only tests pass another.
    """
    return judge(Case(workflow, run, call, around), checks)


def judge(case: Case, checks: tuple[Check, ...] = CHECKS) -> Eligible | Deny:
    """As `decide`, of a new case; what the checks found stays in it, for the decision's record and to be explained.

    Who calls is checked until a call of the run passes all checks, and again under another workflow.
    """
    memo = case.run.header.memo
    passed = checks is CHECKS and memo.get("caller") is case.workflow
    for check in _OF_CALL if passed else checks:
        check(case)
    if checks is CHECKS and not (passed or case.denied):
        memo["caller"] = case.workflow
    taken = reservations(case)
    holds = required_holds(case)
    if case.forced and not any(not (case.strict and hold.rule.user) for hold in holds):
        case.denied += case.forced  # nobody is asked who could answer
    if case.denied or case.tool is None:
        return Deny(tuple(case.denied) or (Failure(Reason.TOOL_UNKNOWN, "tool", case.call.tool, "a known tool"),))
    return Eligible(taken, holds, _intent(case.tool, case.run), case.named)


def _intent(tool: Tool, run: RunState) -> str:
    """The intent the mint is for: the first needed one that is present, else what the tool says (any, none) or the unclear one."""
    unclear = ""
    for name in tool.needs:
        presence = run.intents[name].presence if name in run.intents else "absent"
        if presence == "present":
            return name
        if presence == "unclear" and not unclear:
            unclear = name
    return unclear or tool.needs[0]


def describe(failures: tuple[Failure, ...]) -> list[Mapping[str, str]]:
    """Failures as JSON for the audit record: reason, field, got, expected, rule, and the condition where the field does not say it."""
    return [
        {"reason": str(f.reason), "field": f.field, "got": f.got, "expected": f.expected, "rule": f.rule}
        | ({"condition": f.condition} if f.condition else {})
        for f in failures
    ]
