"""A refusal goes on record and counts: the run's last one closes it, and the first under two
versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agentgate.decision.answer import Deny
from agentgate.errors import AuditUnavailable, StoreUnavailable
from agentgate.gate.core import NOTHING, Core, decided, reasons_of, stamp, subjects_of
from agentgate.gate.observer import Unenforced
from agentgate.shell.step import Afterwards, Flow
from agentgate.stores import ops
from agentgate.values.refusal import FORM, NOT_SHOWN, Code, Failure, Reason, code_of
from agentgate.values.request import Call, Header

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
    failures: tuple[Failure, ...],
    known: Mapping[str, object] = NOTHING,
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
        code_of(failures) not in _COUNTED and Reason.OVERLOAD not in reasons
    ) or reasons & _OVER:
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


def _may_run(header: Header, call: Call, failures: tuple[Failure, ...]) -> Flow:
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


def _ended(header: Header, failures: tuple[Failure, ...]) -> Flow:
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
