"""What a call must satisfy: the decision, on one page.

A call is eligible where every rule of `RULES` holds of it. Otherwise it is denied, with every rule that does not hold: all are looked at,
in this order. A rule is one function that reads the case and records what fails; it can do nothing else, so one more rule can only refuse.
Unknown, empty or missing fails. Then come what the call takes of its limits and whom it must ask.

Pure: no clock, no I/O, no logging; the same values give the same answer. What only the store knows (what is left of a limit, which holds
are released, whether the run has changed) is settled by the mint script, in one step with the mint.

`tests/reference.py` says the same in plain loops, shares none of these functions, and is compared with them on generated calls
(`tests/test_reference.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.arguments import check_arguments
from agentgate.decision.caller import (
    check_agent,
    check_authentication,
    check_boundary,
    check_conditions,
    check_freshness,
    check_hops,
    check_posture,
    check_run,
    check_tenant,
    check_user,
)
from agentgate.decision.case import Case, Check
from agentgate.decision.checks import check_entities, check_intent, check_origins, check_tool
from agentgate.decision.limits import reservations
from agentgate.decision.step_up import required_holds
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Call, RunState, Surroundings
from agentgate.workflow.model import Tool, Workflow


class Required(NamedTuple):
    """One rule.

    Attributes:
        rule: what must be so, in words.
        check: records a `Failure` for each part that is not so.
        once: it reads nothing but the run's header and the workflow, so that what passed it once passes it in every call of the run.
    """

    rule: str
    check: Check
    once: bool = False


RULES = (
    Required("The run is open, under exactly this workflow, which has not expired.", check_run),
    Required("The run's tenant is one of the workflow's.", check_tenant, once=True),
    Required("The agent is proven, by its own credential, and is one that the workflow names.", check_agent, once=True),
    Required(
        "The user is there, proven, of the run's tenant and of a named group; or there is none, where none may be.", check_user, once=True
    ),
    Required("The user signed in as, and as lately as, the workflow asks.", check_authentication),
    Required("The work came through as many and only those brokers that the workflow names.", check_hops, once=True),
    Required("Something is attested of the agent, and its image is signed by whom the workflow names.", check_posture, once=True),
    Required("That was attested lately enough.", check_freshness),
    Required("The workload is inside its boundary: cluster, namespace, node pool, and a key.", check_boundary, once=True),
    Required("Environment, data class, network and hours are those of the workflow.", check_conditions),
    Required("The tool is on the allowlist, is the one that was reviewed, and its broker exists.", check_tool),
    Required("Each argument is declared, present, of its type and within its bounds.", check_arguments),
    Required("Each argument came from where the workflow says: the user's words, facts of one earlier call.", check_origins),
    Required("Each address, link and account inside a free text came from where the workflow says.", check_entities),
    Required("The user's words hold an intent that the tool needs, and one for each argument that needs its own.", check_intent),
)
CHECKS = tuple([required.check for required in RULES])
_OF_CALL = tuple([required.check for required in RULES if not required.once])


def decide(workflow: Workflow, run: RunState, call: Call, around: Surroundings, checks: tuple[Check, ...] = CHECKS) -> Eligible | Deny:
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
    """As `decide`, of a new case; what the checks found stays in it, for the decision's record and to be explained."""
    memo = case.run.header.memo  # under which workflow a call of this run passed everything before
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
