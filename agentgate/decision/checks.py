"""The rules of what is called: tool, origins, entities in texts, intent.
`agentgate.decision.decide` has them all, in order.

A check appends failures and can do nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.decision.case import Case
from agentgate.decision.origins.trace_result import Traced
from agentgate.decision.origins.tracing import in_some_call, trace
from agentgate.language.spans import embedded
from agentgate.values.entities import texts
from agentgate.values.refusal import Failure, Reason, of_argument
from agentgate.workflow.model import ANY, NONE
from agentgate.workflow.nested import emptied
from agentgate.workflow.rule import PROMPT, STRICTNESS

# characters in all texts of a call that are searched for entities; the slowest such texts take
# 0.2 s
MAX_SEARCHED = 40_000


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


def check_origins(case: Case) -> None:
    """Origins, bounds and required earlier calls, jointly: one call, one source."""
    tool = case.tool
    if tool is None:
        return
    traced = Traced(tool, case.call.args, case.run.prompt, case.workflow.file)
    trace(traced, case.values, case.earlier, case.around.now.timestamp())
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
