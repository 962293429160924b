"""The rules of a call, which `agentgate.decision.decide` has in their order: who calls, for whom
and when; what is called; its arguments, their origins, the entities in its texts, the intent.
Then what the call takes of its limits, and whom it must ask.

A check appends failures and can do nothing else. What each key of `who` and `conditions`
requires is in its class (`agentgate.workflow.clauses`), what each word of an argument requires
in its operator (`agentgate.workflow.operators`): every one is ANDed, on every element of a
list. A value with more text than `MAX_TEXT` is refused before anything reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from decimal import Decimal
from functools import partial
from typing import Any

from agentgate.decision.answer import RequiredHold, Reservation
from agentgate.decision.case import Case, Traced
from agentgate.decision.origins.kinds import Value, kind_of, sources_of
from agentgate.decision.origins.tracing import came_from, in_some_call, trace
from agentgate.language.spans import embedded
from agentgate.values.entities import NORMAL, NUMERIC, Key, texts, written
from agentgate.values.refusal import Failure, Reason, of_argument
from agentgate.workflow.clauses.clause import Checks, WorkflowClause
from agentgate.workflow.clauses.who import NO_BROKERS, NO_USER
from agentgate.workflow.model import ANY, NONE, SCALE, Tool, emptied, flat
from agentgate.workflow.operators import Operator
from agentgate.workflow.rule import PROMPT, STRICTNESS, Rule


# --- who calls, for whom and when: nothing here depends on the call ---------------------------
def check_run(case: Case) -> None:
    """The run is open and was opened under exactly this workflow, which has not expired."""
    run = case.run
    header = case.run.header
    workflow = case.workflow
    if run.closed:
        case.deny(
            Reason.TOO_MANY_DENIALS if run.denials_spent else Reason.RUN_CLOSED,
            "run",
            "closed",
            "an open run",
        )
    if header.workflow != workflow.id or header.digest != workflow.digest:
        in_force = f"{workflow.id} {workflow.digest}, in force now"
        case.deny(
            Reason.WORKFLOW_CHANGED, "workflow", f"{header.workflow} {header.digest}", in_force
        )
    if case.around.now.astimezone(UTC).date() > workflow.expires:
        expected = f"a workflow in force on {case.around.now:%Y-%m-%d}"
        case.deny(
            Reason.WORKFLOW_EXPIRED,
            "expires",
            workflow.expires,
            expected,
            workflow.expires_line,
        )


def check_tenant(case: Case) -> None:
    """Exact tenant, from the run only (tenant spoofing by the model)."""
    tenant = case.run.header.tenant
    workflow = case.workflow
    if tenant not in workflow.tenants:
        case.deny(
            Reason.TENANT,
            "tenant",
            repr(tenant),
            "one of " + ", ".join(workflow.tenants),
            workflow.tenants_line,
        )


def check_agent(case: Case) -> None:
    """The workload: in process where the workflow says so, else proven and named."""
    _check_clauses(case, case.workflow.agent.identity)


def check_user(case: Case) -> None:
    """For whom: present, proven unless the host vouches, of the same tenant and one of the
    groups.
    """
    rule = case.workflow.for_user
    _check_clauses(case, NO_USER if rule is None else rule.person)


def check_authentication(case: Case) -> None:
    """How and when the user signed in."""
    rule = case.workflow.for_user
    if rule is not None and rule.authentication and case.run.header.user is not None:
        _check_clauses(case, rule.authentication)


def check_hops(case: Case) -> None:
    """Delegation; without `via`, none."""
    via = case.workflow.via
    _check_clauses(case, NO_BROKERS if via is None else via.clauses)


def check_posture(case: Case) -> None:
    """Attested image; nothing attested is nothing proven."""
    _check_clauses(case, case.workflow.agent.posture)


def check_freshness(case: Case) -> None:
    """What is attested was attested lately enough."""
    if case.run.header.agent.posture is not None:
        _check_clauses(case, case.workflow.agent.freshness)


def check_boundary(case: Case) -> None:
    """Workload-identity boundary."""
    _check_clauses(case, case.workflow.agent.boundary)


def check_conditions(case: Case) -> None:
    """Environment, hours, data class and network, each known to the gate itself."""
    _check_clauses(case, case.workflow.conditions.clauses)


def _check_clauses(case: Case, checks: Checks) -> None:
    for found, allows, clause in checks:
        if not allows(found(case)):
            _refuse(case, clause)
            if clause.heads:
                return


def _refuse(case: Case, clause: WorkflowClause) -> None:
    got = clause.shown(case)
    expected = clause.expected_under(case.workflow)
    shown = repr(got) if clause.quoted else got
    case.deny(clause.reason, clause.field, shown, expected, clause.line, **clause.data)


# --- what is called ---------------------------------------------------------------------------
def check_tool(case: Case) -> None:
    """The tool is on the allowlist, is the one that was reviewed (rug pull), and its upstream
    broker exists.
    """
    tool = case.tool
    if tool is None:
        case.deny(
            Reason.TOOL_UNKNOWN,
            "tool",
            repr(case.call.tool),
            "one of " + ", ".join(case.workflow.tools),
        )
        return
    if tool.definition and case.call.definition != tool.definition:
        case.deny(
            Reason.TOOL_DEFINITION,
            f"tools.{tool.name}.definition",
            case.call.definition or "unknown",
            tool.definition,
            tool.line,
        )
    if tool.upstream is not None and tool.upstream.broker not in case.around.brokers:
        got = f"{tool.upstream.broker} (not configured)"
        case.deny(
            Reason.UPSTREAM,
            f"upstream.{tool.name}.broker",
            got,
            "a configured broker",
            tool.upstream.line,
        )


# --- its arguments ----------------------------------------------------------------------------
MAX_TEXT = 65_536  # characters of all texts in one argument
_LISTED = 100  # unknown arguments that are reported one by one
_value = partial(tuple.__new__, Value)  # a third of what the constructor costs


def check_arguments(case: Case) -> None:
    """Every argument known, present, in normal form, and allowed by its operators."""
    tool = case.tool
    if tool is None:
        return
    args = case.call.args
    if tool.structures.roots or None in args.values():
        args = flat(tool, args)
    if not args.keys() <= tool.args.keys():
        _deny_unknown(case, tool, [name for name in args if name not in tool.args])
    large = len(case.call.data) > MAX_TEXT  # else no text in it is
    for name, rule in tool.args.items():
        if name not in args:
            if not rule.optional:
                where = f"args.{name} required"
                missing = Reason.ARGUMENT_MISSING
                case.deny_argument(missing, name, "nothing", "a value", rule.line, where)
            continue
        raw = args[name]
        keys = None
        if large and (length := sum(map(len, texts(raw)))) > MAX_TEXT:
            shown = f"{length} characters"
            expected = f"at most {MAX_TEXT} characters"
            case.deny_argument(
                Reason.ARGUMENT_FORM, name, shown, expected, rule.line, f"args.{name} type"
            )
            continue
        if rule.max_items is not None:
            keys = _list_keys(rule, raw)
        elif (key := NORMAL[rule.type](raw)) is not None:
            keys = (key,)
        if keys is None:
            expected = (
                written(rule.type) if rule.max_items is None else f"a list of {rule.type}"
            )
            _deny(case, Reason.ARGUMENT_FORM, Value(rule, (), "", raw), expected, "type")
            continue
        currency = ""
        if rule.currency:
            stated = args.get(rule.currency)
            currency = stated if type(stated) is str else ""
        value = case.values[name] = _value((rule, keys, currency, raw))
        if rule.max_items is not None and len(keys) > rule.max_items:
            _deny(
                case,
                Reason.ARGUMENT_VALUE,
                value,
                f"at most {rule.max_items} elements",
                "max_items",
            )
        elif (wrong := violated(rule, keys)) is not None:
            _deny(case, Reason.ARGUMENT_VALUE, value, wrong.expected, wrong.key)
        if rule.role and not set(keys) < rule.role_scopes:
            _deny(
                case,
                Reason.ROLE,
                value,
                f"a strict subset of role {rule.role}",
                "narrower_than_role",
            )


def _deny_unknown(case: Case, tool: Tool, unknown: list[str]) -> None:
    known = "one of " + (", ".join(tool.args) or "none")
    for name in unknown[:_LISTED]:
        case.deny_argument(
            Reason.ARGUMENT_UNKNOWN, name, "an argument", known, tool.line, "args args"
        )
    if len(unknown) > _LISTED:
        case.deny_argument(
            Reason.ARGUMENT_UNKNOWN,
            "*",
            f"{len(unknown) - _LISTED} more arguments",
            known,
            tool.line,
            "args args",
        )


def _deny(case: Case, reason: Reason, value: Value, expected: str, word: str) -> None:
    rule = value.rule
    case.deny_argument(
        reason, rule.name, value.shown, expected, rule.line, f"args.{rule.name} {word}"
    )


def _list_keys(rule: Rule, raw: Any) -> tuple[Key, ...] | None:
    """The comparison keys of a list argument's elements; None where it is not in normal form
    (an empty list is not).
    """
    if type(raw) is not list or not raw:
        return None
    keys = []
    for item in raw:
        key = NORMAL[rule.type](item)
        if key is None:
            return None
        keys.append(key)
    return tuple(keys)


def violated(rule: Rule, keys: tuple[Key, ...]) -> Operator | None:
    """The first operator that a value, or an element of a list, violates; None where all
    pass.
    """
    operators = rule.operators
    for key in keys:
        for operator in operators:
            if not operator.holds(key):
                return operator
    return None


# --- where they came from, and what for -------------------------------------------------------
# characters in all texts of a call that are searched for entities; the slowest such texts take
# 0.2 s
MAX_SEARCHED = 40_000


def check_origins(case: Case) -> None:
    """Origins, bounds and required earlier calls, jointly: one call, one source."""
    tool = case.tool
    if tool is None:
        return
    traced = Traced(tool, case.call.args, case.run.prompt, case.workflow.file)
    trace(traced, case)
    case.named = traced.named and bool(case.values)
    case.traced = traced
    case.denied += traced.failures
    if traced.unknown:
        for name, failure in traced.unknown.items():
            case.leave_open(failure, tool.args[name].unknown_origin)
        case.strict |= any(tool.args[name].unknown_origin == "step_up" for name in traced.apart)


def check_entities(case: Case) -> None:
    """Every address, link and account inside a free text has an allowed origin of its own
    (exfiltration in a memo line).

    Where the argument's `unknown_origin` asks a person, they see the text instead. A value that
    is refused already is not searched, nor is more text than `MAX_SEARCHED`: that is refused,
    since nothing is known of what is in it.
    """
    if case.tool is None:
        return
    refused = {
        failure.argument for failure in case.denied if failure.reason is Reason.ARGUMENT_VALUE
    }
    left = MAX_SEARCHED
    for name in case.tool.grounded:
        value = case.values.get(name)
        if value is None or name in refused:
            continue
        inside = tuple(texts(value.raw))
        left -= sum(map(len, inside))
        if left < 0:
            got = "more text than is searched"
            expected = (
                f"at most {MAX_SEARCHED} characters in all texts of the call that are searched"
            )
            case.deny_argument(
                Reason.ENTITY_ORIGIN,
                name,
                got,
                expected,
                value.rule.line,
                f"args.{name} entities",
            )
            return
        allowed = value.rule.entities or ()
        sent = case.run.prompt.named.get("sent", ()) if PROMPT in allowed else ()
        for text in inside:
            if text in sent:  # the user wrote all of it, to be sent as it stands
                continue
            for entity in embedded(text, case.around.now.date()):
                if not in_some_call(entity.type, entity.key, allowed, case.earlier):
                    shown = "(masked)" if value.rule.sensitive else repr(entity.words)
                    expected = "found in " + " or ".join(map(str, allowed))
                    rule = f"{case.workflow.file}:{value.rule.line}"
                    failure = of_argument(
                        Reason.ENTITY_ORIGIN,
                        name,
                        shown,
                        expected,
                        rule,
                        f"args.{name} entities",
                    )
                    case.leave_open(failure, value.rule.unknown_origin)


def check_intent(case: Case) -> None:
    """The user's words hold one of the intents that the tool needs, and one of those that each
    argument sent needs.

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


def _check_needs(
    case: Case, field: str, needs: tuple[str, ...], line: int, data: dict[str, str]
) -> None:
    intents = case.run.intents
    unclear = []
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
    got = "unclear: " + ", ".join(unclear)
    rule = f"{case.workflow.file}:{line}"
    failure = Failure(Reason.INTENT_UNCLEAR, field, got, "a clear request", rule, data)
    # one of them would do: the least strict counts
    answers = {case.workflow.intents[name].unclear for name in unclear}
    case.leave_open(failure, next(answer for answer in STRICTNESS if answer in answers))


# --- what the call takes of its limits; whether that much is left, the mint script says -------
_NOTHING = Decimal()
# as `Value` in `agentgate.decision.checks`
_reservation = partial(tuple.__new__, Reservation)


def reservations(case: Case) -> tuple[Reservation, ...]:
    """What each limit on this tool takes: one for a count, the amount for a sum; what cannot be
    summed is denied.
    """
    taken = []
    for index, limit in enumerate(case.tool.limits if case.tool is not None else ()):
        if not limit.argument:
            taken.append(_reservation((limit, 1, "")))
            continue
        value = case.values.get(limit.argument)
        got = "nothing to count"
        expected = "a number: a limit sums it (an omitted amount must not slip past it)"
        if value is not None and value.rule.type in NUMERIC:
            keys = [key for key in value.keys if isinstance(key, Decimal)]
            total = (keys[0] if len(keys) == 1 else sum(keys, _NOTHING)) * SCALE
            amount = int(total)
            if amount == total and amount >= 0:
                taken.append(_reservation((limit, amount, value.currency)))
                continue
            got = value.shown
            expected = "not negative, at most 4 decimals: a limit sums it"
        case.deny_argument(
            Reason.LIMIT, limit.argument, got, expected, limit.line, f"limits limit {index}"
        )
    return tuple(taken)


# --- whom a call that passes every check must ask ---------------------------------------------
EVERY_CALL = "every call"  # what a step-up without `when` asks about
_NONE: frozenset[str] = frozenset()


def _fires(rule: Rule, case: Case, step_up: str) -> Failure | None:
    """The failure that asks a person where one `step_up.when` condition holds of the call; an
    absent argument never fires.

    ``origin: unknown`` also holds of an argument whose origin the call leaves open, such as one
    of another call than the rest.
    """
    value = case.values.get(rule.name)
    if value is None:
        return None
    left_open = "unknown" in (rule.origin or ()) and rule.name in case.left_open
    for key in value.keys:
        if violated(rule, (key,)) is None and (
            rule.origin is None or left_open or _has_origin(rule, value, key, case)
        ):
            where = f"{case.workflow.file}:{rule.line}"
            return of_argument(
                Reason.STEP_UP,
                rule.name,
                value.shown,
                "a person's yes",
                where,
                f"step_up.{step_up} step_up",
            )
    return None


def _has_origin(rule: Rule, value: Value, key: Key, case: Case) -> bool:
    """True when this element has one of the origins of a `when`. `unknown` and `model`: nothing
    but the model explains it.
    """
    for origin in rule.origin or ():
        if origin == "unknown" or kind_of(origin).free:
            if not came_from(value, key, sources_of(value, case.run.prompt), case.earlier):
                return True
        elif came_from(value, key, (origin,), case.earlier):
            return True
    return False


def required_holds(case: Case) -> tuple[RequiredHold, ...]:
    """The step-up rules that fire: each whose `when` holds; every one where a group must be
    asked and none says what it is about.
    """
    tool = case.tool
    holds = []
    everyone = case.strict and tool is not None and not tool.by_when
    left_open = (
        {"intent" if f.reason is Reason.INTENT_UNCLEAR else "origin" for f in case.forced}
        if case.forced
        else _NONE
    )
    for rule in tool.step_ups if tool is not None else ():
        fired = tuple(
            [
                failure
                for each in rule.when
                if (failure := _fires(each, case, rule.id)) is not None
            ]
        )
        if everyone or (
            len(fired) == len(rule.when)
            and (not rule.left_open or left_open.issuperset(rule.left_open))
        ):
            where = f"{case.workflow.file}:{rule.line}"
            always = Failure(
                Reason.STEP_UP,
                f"step_up.{rule.id}",
                EVERY_CALL,
                "a person's yes",
                where,
                {"every_call": True},
            )
            holds.append(RequiredHold(rule, (*case.forced, *fired) or (always,)))
    return tuple(holds)


# --- the record -------------------------------------------------------------------------------
def describe(failures: tuple[Failure, ...]) -> list[Mapping[str, str]]:
    """Failures as JSON for the audit record: reason, field, got, expected, rule, and the
    condition where the field does not say it.
    """
    return [
        {
            "reason": str(f.reason),
            "field": f.field,
            "got": f.got,
            "expected": f.expected,
            "rule": f.rule,
        }
        | ({"condition": f.condition} if f.condition else {})
        for f in failures
    ]
