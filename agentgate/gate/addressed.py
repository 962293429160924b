"""The holds that one person is asked about: what a page may show them.

Rules: who may not answer a hold learns nothing of it, not even its id. Whether they may is what an answer is judged by
(`agentgate.decision.hold.check_answer`): the rules that asked as they decide now, the run's user and agent. A hold whose run is over can no
longer be judged so: then only those see it whose yes stands in it. A question that somebody wrote into the store is none: each has the seal
of a gate with these keys.
"""

from __future__ import annotations

from typing import NamedTuple

from agentgate.decision.hold import Hold, check_answer
from agentgate.gate.answer import listed, rules_of, shown
from agentgate.gate.core import Core, read
from agentgate.gate.proof import refusal
from agentgate.shell.step import Apart, Flow
from agentgate.values.refusal import AnswerCode, AnswerRefused, RunRefused
from agentgate.values.request import RunState, User
from agentgate.workflow.model import Workflow

MOST_RUNS = 100  # that are looked at for one list


class Addressed(NamedTuple):
    """A hold that this person may answer, or answered; `risk`: of its workflow, empty where that cannot be read any more."""

    hold: Hold
    risk: str


def addressed(core: Core, tenant: str, who: User, run: str | None = None) -> Flow:
    """The holds of a tenant, or of one of its runs, that this person may answer or said yes to; and whether every one was looked at.

    Raises (through the driver):
        NameRefused, StoreUnavailable.
    """
    known: dict[str, tuple[RunState, Workflow] | None] = {}
    found: list[Addressed] = []
    holds, whole = yield from listed(tenant, run, None)
    for hold in sorted(holds, key=lambda each: each.state != "pending"):
        if hold.run not in known:
            if len(known) >= MOST_RUNS:
                continue
            known[hold.run] = yield Apart(_run(core, hold))
        if (risk := _risk(core, hold, who, known[hold.run])) is not None:
            found.append(Addressed(hold, risk))
    return tuple(found), whole and all(hold.run in known for hold in holds)


def addressed_one(core: Core, tenant: str, hold_id: str, who: User) -> Flow:
    """One hold, with the user's words, if `addressed` has it.

    Raises (through the driver):
        AnswerRefused: `MISSING`: this tenant has none of this id, or it is nothing to this person. StoreUnavailable.
    """
    hold: Hold = yield from shown(core, tenant, hold_id)
    risk = _risk(core, hold, who, (yield from _run(core, hold)))
    if risk is None:
        raise refusal(AnswerCode.MISSING, "hold", f"one that {who.id} may not answer", "a hold that they may answer, or said yes to")
    return Addressed(hold, risk)


def _run(core: Core, hold: Hold) -> Flow:
    """The run and what decides in it; None: it is over."""
    try:
        state: RunState = yield from read(core, hold.tenant, hold.run)
        workflow = (yield from core.in_force.of(state.header)).minted
    except RunRefused:
        return None
    return state, workflow


def _risk(core: Core, hold: Hold, who: User, known: tuple[RunState, Workflow] | None) -> str | None:
    """The workflow's risk; None: the hold is nothing to this person, or its question is none that a gate made."""
    if not core.answerers.asked(hold):
        return None
    if known is not None:
        state, workflow = known
        try:
            if not check_answer(rules_of(workflow, hold), who, state.header.user, state.header.agent, hold.tenant):
                return workflow.risk
        except AnswerRefused:  # the rules that asked are not those that ask now
            pass
    return "" if (who.id, who.tenant) in {(each.id, each.tenant) for each in hold.approvers} else None
