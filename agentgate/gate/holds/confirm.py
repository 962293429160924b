"""The run's own user, asked in the host's own process: the setting `confirm`.

Rules: only where the workflow says ``in_process: true``, only for a call that nobody but the
user must judge, and only with a question that a gate with these keys made. The callback
(`agentgate.gate.holds.callback`) gets the rendered question and says True, False, or anything
else, which is no answer: the call stays held. It runs while the call waits, its time not
counted, and takes no place of the gate (`at_once`); whatever it does wrong is no answer. Audit
and token say that the answer was given in process.
"""

from __future__ import annotations

import time
from functools import partial

from agentgate.decision.answer import StepUp
from agentgate.decision.hold import Question
from agentgate.errors import AgentGateError
from agentgate.gate import flow
from agentgate.gate.holds.answer import answer
from agentgate.gate.holds.callback import Callback
from agentgate.gate.view import View
from agentgate.identity.connection import Connection
from agentgate.shell.bound import Bound
from agentgate.shell.step import Flow, Outside
from agentgate.values.request import Call


def confirmed(
    view: View,
    call: Call,
    asked: StepUp,
    connection: Connection | None,
    bound: Bound,
    *,
    redeems: bool,
) -> Flow:
    """The decision after the user was asked; the `StepUp` as it was where they cannot be, or
    gave no answer.
    """
    core = view.core
    header = view.state.header
    user = header.user
    if (
        core.confirm is None
        or user is None
        or not asked.confirm
        or not view.workflow.agent.in_process
    ):
        return asked
    # the yes would count for the call as it is, not for what somebody wrote into the store
    if not core.answerers.asked(asked.hold):
        return asked
    work = partial(_said, core.confirm, asked.hold.question, header.id, bound)
    seconds = max(0.0, asked.hold.expires_at - time.time())
    said = yield Outside(work, seconds, own_thread=True)
    if said is None:
        return asked
    try:
        yield from answer(
            core, header.tenant, asked.hold.id, user, "release" if said else "refuse"
        )
    except AgentGateError:
        return asked  # it stays as it is in the store, and is on record
    decision, state = yield from flow.authorize(view, call, connection, redeems=redeems)
    return view.take(call, decision, state)


def _said(callback: Callback, question: Question, run: str, bound: Bound) -> bool | None:
    with bound.aside():
        return callback.ask(question, run)
