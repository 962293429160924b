"""A version besides the one in force, for runs that were opened with it: judged as the directory is now."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agentgate.approvals._files import APPROVALS
from agentgate.approvals.judge import Judge
from agentgate.approvals.refusal import UNAPPROVED, ApprovalRefused, refused
from agentgate.workflow.model import Workflow


@dataclass(frozen=True, slots=True)
class Other:
    """An approved version that need not be the one in force; `until` (POSIX seconds), and whether it is the newest that may run."""

    workflow: Workflow
    until: float
    newest: bool


def load_other(judge: Judge, id_: str, version: int) -> Other:
    """One version, if its approval holds now: not revoked, not ended, signed as ever.

    Raises ApprovalRefused: it does not. WorkflowError: it does not load.
    """
    standing = judge.standing(id_, version)
    if standing.approved is None:
        file, expected = f"{APPROVALS}/{id_}/{version}", "an approved version"
        raise ApprovalRefused(standing.refused or refused(UNAPPROVED, file, "version", "nothing", expected, workflow=id_, version=version))
    approved, (newest, _) = standing.approved, judge.running(id_)
    until = min(approved.until, judge.index.until if judge.index else math.inf, judge.root.until)
    return Other(judge.load(approved.version, approved.statement.roles), until, newest is approved)
