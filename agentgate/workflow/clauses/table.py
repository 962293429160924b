"""All clauses: the table of their classes, and those of one workflow. What walks over clauses
starts here.
"""

from __future__ import annotations

from agentgate.workflow.clauses.clause import WorkflowClause
from agentgate.workflow.clauses.conditions import CONDITIONS
from agentgate.workflow.clauses.who import AGENT, NO_BROKERS, NO_USER, USER, VIA
from agentgate.workflow.model import Workflow

CLAUSES: tuple[type[WorkflowClause], ...] = (*AGENT, *USER, *VIA, *CONDITIONS)


def clauses_of(workflow: Workflow) -> tuple[WorkflowClause, ...]:
    """What `who` and `conditions` of a workflow require, in the order of the table; no user, no
    hop, too.
    """
    agent = workflow.agent
    user = workflow.for_user
    via = workflow.via
    person = NO_USER if user is None else (*user.person, *user.authentication)
    hops = NO_BROKERS if via is None else via.clauses
    every = (
        *agent.identity,
        *agent.posture,
        *agent.freshness,
        *agent.boundary,
        *person,
        *hops,
        *workflow.conditions.clauses,
    )
    return tuple(clause for _, _, clause in every)
