"""Checks of who calls, for whom and when: what the run was opened with, and the gate's
surroundings, against the workflow.

What each key of `who` and `conditions` requires is in its class (`agentgate.workflow.clauses`).
A check appends failures and can do nothing else. Nothing here depends on the call.
"""

from __future__ import annotations

from datetime import UTC

from agentgate.decision.case import Case
from agentgate.values.refusal import Reason
from agentgate.workflow.clauses.clause import Checks, WorkflowClause
from agentgate.workflow.clauses.hops import NO_BROKERS
from agentgate.workflow.clauses.user import NO_USER


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
        # in every call, so without one more function
        for found, allows, clause in case.workflow.agent.freshness:
            if not allows(found(case)):
                _refuse(case, clause)


def check_boundary(case: Case) -> None:
    """Workload-identity boundary."""
    _check_clauses(case, case.workflow.agent.boundary)


def check_conditions(case: Case) -> None:
    """Environment, hours, data class and network, each known to the gate itself."""
    for found, allows, clause in case.workflow.conditions.clauses:  # as above
        if not allows(found(case)):
            _refuse(case, clause)


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
