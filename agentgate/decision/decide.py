"""What a call must satisfy: the decision, on one page.

A call is eligible where every rule of `RULES` holds of it. Otherwise it is denied, with every
rule that does not hold: all are looked at, in this order. A rule is one function that reads the
case and records what fails; it can do nothing else, so one more rule can only refuse. Unknown,
empty or missing fails. Then come what the call takes of its limits and whom it must ask.

Pure: no clock, no I/O, no logging; the same values give the same answer. What only the store
knows (what is left of a limit, which holds are released, whether the run has changed) is
settled by the mint script, in one step with the mint.

`tests/reference.py` says the same in plain loops, shares none of these functions, and is
compared with them on generated calls (`tests/test_reference.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.decision import checks as rules
from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case, Check
from agentgate.decision.checks import required_holds, reservations
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Call, RunState, Surroundings
from agentgate.workflow.model import Tool, Workflow

RULES: Mapping[Check, str] = {
    rules.check_run: "The run is open, under exactly this workflow, which has not expired.",
    rules.check_tenant: "The run's tenant is one of the workflow's.",
    rules.check_agent: "The agent is proven by its own credential, and the workflow names it.",
    rules.check_user: "The user is there, proven, of the tenant and a named group; or none is, "
    "where none may be.",
    rules.check_authentication: "The user signed in as, and as lately as, the workflow asks.",
    rules.check_hops: "The work came through as many and only those brokers that are named.",
    rules.check_posture: "What is attested of the agent, and who signed its image, is as asked.",
    rules.check_freshness: "That was attested lately enough.",
    rules.check_boundary: "The workload is in its cluster, namespace and node pool, with a key.",
    rules.check_conditions: "Environment, data class, network and hours are the workflow's.",
    rules.check_tool: "The tool is allowed, is the one that was reviewed, and its broker exists.",
    rules.check_arguments: "Each argument is declared, present, of its type and within its bounds.",
    rules.check_origins: "Each argument came from where the workflow says: the user's words, facts of "
    "one earlier call.",
    rules.check_entities: "Each address, link and account inside a free text did, too.",
    rules.check_intent: "The user's words hold an intent that the tool needs, and one for each "
    "argument that needs its own.",
}
"""Each rule: the function that records a `Failure` for each part that is not so, and the rule in
words."""
OF_RUN = frozenset(
    {
        *(rules.check_tenant, rules.check_agent, rules.check_user, rules.check_hops),
        *(rules.check_posture, rules.check_boundary),
    }
)
"""They read the run's header and the workflow alone: what passed them once passes in all calls
of the run."""
CHECKS = tuple(RULES)
_OF_CALL = tuple([check for check in CHECKS if check not in OF_RUN])


def decide(
    workflow: Workflow,
    run: RunState,
    call: Call,
    around: Surroundings,
    checks: tuple[Check, ...] = CHECKS,
) -> Eligible | Deny:
    """Decide one call.

    Args:
        workflow: the workflow in force.
        run: the run as last read; its revision is compared again by the mint script.
        call: the proposed call, canonicalised once.
        around: the decision time and what the gate itself knows.
        checks: of `RULES`; only tests pass another.
    """
    return judge(Case(workflow, run, call, around), checks)


def judge(case: Case, checks: tuple[Check, ...] = CHECKS) -> Eligible | Deny:
    """As `decide`, of a new case; what the checks found stays in it, for the decision's record
    and to be explained.
    """
    # under which workflow a call of this run passed everything before
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
        return Deny(
            tuple(case.denied)
            or (Failure(Reason.TOOL_UNKNOWN, "tool", case.call.tool, "a known tool"),)
        )
    return Eligible(taken, holds, _intent(case.tool, case.run), case.named)


def _intent(tool: Tool, run: RunState) -> str:
    """The intent the mint is for: the first needed one that is present, else what the tool says
    (any, none) or the unclear one.
    """
    unclear = ""
    for name in tool.needs:
        presence = run.intents[name].presence if name in run.intents else "absent"
        if presence == "present":
            return name
        if presence == "unclear" and not unclear:
            unclear = name
    return unclear or tool.needs[0]
