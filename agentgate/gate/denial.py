"""A refusal goes on record, counts and is logged: the run's last one closes it, and the first
under two versions.

Rules: the log says run, workflow and its owners, tool, argument, what was got and expected, and
the rule's line. No value of the call and no name that the model made up is in it
(`agentgate.values.refusal.told`); the model gets the code alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from agentgate.decision.answer import Deny
from agentgate.errors import AgentGateError, AuditUnavailable, StoreUnavailable
from agentgate.gate.core import NOTHING, Core, decided, reasons_of, stamp, subjects_of
from agentgate.gate.observer import Unenforced
from agentgate.gate.view import View
from agentgate.shell.step import Afterwards, Flow
from agentgate.stores import ops
from agentgate.values.refusal import (
    FORM,
    NOT_SHOWN,
    Code,
    Failure,
    Failures,
    Reason,
    RunRefused,
    code_of,
    told,
)
from agentgate.values.request import Call, Header
from agentgate.values.value_class import Values
from agentgate.values.visible import visible

# An answer that tells where the edge is. What is known of a call, or that something is
# unavailable, tells nothing of it; a decision that took too long by itself counts, too, or a
# call that is slow to decide could be made without end.
_COUNTED = frozenset(
    {
        Code.NOT_PERMITTED,
        Code.INVALID_ARGUMENTS,
        Code.NEEDS_APPROVAL,
        Code.REFUSED,
        Code.LIMIT_REACHED,
    }
)
_OVER = frozenset(
    {Reason.RUN_MISSING, Reason.RUN_CLOSED, Reason.RUN_EXPIRED, Reason.TOO_MANY_DENIALS}
)


def deny(
    core: Core,
    header: Header,
    call: Call,
    failures: Failures,
    known: Values = NOTHING,
) -> Flow:
    """Record a refusal, with what was `seen`, and count it: the run's last one closes it, and
    the first under two versions.

    If it cannot be recorded, or not counted, the refusal has one more reason, which is all that
    the model then learns.
    """
    workflow = core.catalog.get(header.workflow)
    named = (
        call
        if workflow is not None and call.tool in workflow.tools
        else replace(call, tool=NOT_SHOWN)
    )  # a name the model made up
    try:
        if not core.enforces(workflow, header) and (
            yield from _may_run(header, call, failures)
        ):
            yield decided(
                "observed",
                named,
                header,
                {"would": "deny", **known},
                reasons=reasons_of(failures),
            )
            return Unenforced(failures)
        yield decided("deny", named, header, known, reasons=reasons_of(failures))
    except AuditUnavailable as error:
        return Deny(
            (*failures, Failure(Reason.AUDIT, "audit", str(error), "a durable audit record"))
        )
    reasons = {failure.reason for failure in failures}
    most = core.budgets.denials
    if Reason.TWO_VERSIONS in reasons:
        return Deny((*failures, *(yield from _ended(header, failures))))
    if (
        (code_of(failures) not in _COUNTED and Reason.OVERLOAD not in reasons)
        or reasons & _OVER
        or any("full" in each.data for each in failures)
    ):
        return Deny(failures)
    closes = not reasons <= FORM
    try:
        if (
            yield Afterwards(ops.count_denial(header.tenant, header.id, most, closes=closes))
        ) == "spent":
            then = ", which is closed now" if closes else " of a wrong form"
            spent = Failure(
                Reason.TOO_MANY_DENIALS,
                "run",
                f"{most} denials",
                f"fewer than {most} in one run{then}",
            )
            failures = (*failures, spent)
            if closes:
                yield stamp("run_closed", header, reasons=reasons_of((spent,)))
    except (StoreUnavailable, AuditUnavailable) as error:
        failures = (*failures, _undone(error, "a denial that is counted"))
    return Deny(failures)


def _undone(error: StoreUnavailable | AuditUnavailable, expected: str) -> Failure:
    return Failure(
        Reason.STORE if isinstance(error, StoreUnavailable) else Reason.AUDIT,
        "run",
        str(error),
        expected,
    )


# What a call says, what was asked for, where and when. Who calls, which tool it is and whether
# the run is open are no matter of observing.
_OF_CALL = frozenset(
    "argument_unknown argument_missing argument_form argument_value argument_origin "
    "entity_origin at_most one_source sequence"
    " intent_absent intent_unclear step_up limit environment hours data_class network".split()
)


def _may_run(header: Header, call: Call, failures: Failures) -> Flow:
    """Whether a refused call that only observes may run. Nothing is minted for it, so
    revocations are looked for here.
    """
    if not {failure.reason for failure in failures} <= _OF_CALL:
        return False
    try:
        return not (
            yield ops.revoked(
                header.tenant,
                subjects_of(header, call.tool),
                int(header.opened_at * 1000),
                header.id,
            )
        )
    except StoreUnavailable:
        return False


def _ended(header: Header, failures: Failures) -> Flow:
    """End a run whose call did not pass both versions; returns what else went wrong."""
    try:
        if (yield Afterwards(ops.close_run(header.tenant, header.id))) == "ok":
            why = tuple(
                failure for failure in failures if failure.reason is Reason.TWO_VERSIONS
            )
            yield stamp("run_closed", header, reasons=reasons_of(why))
    except (StoreUnavailable, AuditUnavailable) as error:
        return (_undone(error, "a run that is ended"),)
    return ()


_LOG = structlog.get_logger("agentgate.gate")
# characters of a reason, and reasons of a refusal
_LONGEST = 500
_MOST = 20


def log_refusal(view: View, tool: Any, tool_call_id: Any, decision: Deny) -> None:
    """Log a refusal: one warning, ``call_refused``, or ``call_not_enforced``."""
    header = view.state.header
    entry = {
        "run": header.id,
        "workflow": f"{header.workflow} v{header.version}",
        "tenant": header.tenant,
    }
    known: Iterable[str] = ()
    # no longer loaded, which is the refusal's own reason
    with suppress(AgentGateError, RunRefused):
        entry["owners"], known = ", ".join(view.workflow.owners), view.workflow.tools
    name = tool if type(tool) is str and tool in known else "(not of this workflow)"
    call = visible(tool_call_id, _LONGEST) if type(tool_call_id) is str else "(not a call's id)"
    what = "call_not_enforced" if isinstance(decision, Unenforced) else "call_refused"
    _LOG.warning(
        what,
        tool=name,
        tool_call_id=call,
        code=str(decision.code),
        **entry,
        reasons=reasons(decision.failures),
    )


def reasons(failures: Iterable[Failure]) -> list[str]:
    """Failures as the log holds them."""
    return [visible(f)[:_LONGEST] for f in told(failures)[:_MOST]]
