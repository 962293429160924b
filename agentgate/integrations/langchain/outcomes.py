"""What became of guarded calls, for the host: why each was refused or held, and whose turn it
is.

Rules: it is a list of the host's own, in this process. Of all this, graph state holds a
message's artifact, which no model is shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.tools import ToolException

from agentgate.decision.answer import Deny
from agentgate.decision.hold import Hold
from agentgate.errors import AgentGateError, CallDenied
from agentgate.shell.context import set_variables
from agentgate.values.refusal import Code, Failure, Reason, RunRefused, code_of
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

_STATUS = {
    Code.NEEDS_APPROVAL: 202,
    Code.NOT_PERMITTED: 403,
    Code.REFUSED: 403,
    Code.INVALID_ARGUMENTS: 422,
    Code.LIMIT_REACHED: 429,
    Code.UNAVAILABLE: 503,
}
_TURN = {401: "the user", 422: "the agent", 503: "the host"}


@value_class
class CallOutcome:
    """Why one call was refused or held. Without a tool: why there is no run, so that each call
    is refused.

    Attributes:
        code: all that the model learns.
        failures: every reason, as far as the gate or the wrapper knows one.
        tool, tool_call_id, run: empty where there is none.
        hold: the id of the hold that waits, or was refused, or expired.
        until: when the time to answer is over, or there is room in the limit again: a time,
            `next_turn`, `end_of_run`, `end_of_conversation`; empty: not known.
        whom: who may answer.
    """

    code: Code
    failures: tuple[Failure, ...] = ()
    tool: str = ""
    tool_call_id: str = ""
    run: str = ""
    hold: str = ""
    until: str = ""
    whom: str = ""

    @property
    def status(self) -> int:
        """The HTTP status that says the same to a front end.

        202 held, 401 sign in again, 403 not allowed here, or (`code` is `refused`) a person's
        no, 409 done, failed or unknown, 422 of a wrong form, 429 a limit, 503 try again.
        """
        reasons = {failure.reason for failure in self.failures}
        if Reason.AUTHENTICATION in reasons or any(
            failure.data.get("sign_in") for failure in self.failures
        ):
            return 401
        if Reason.TOO_MANY_RUNS in reasons:
            return 429
        return _STATUS.get(code_of(self.failures) if self.failures else self.code, 409)

    @property
    def turn(self) -> str:
        """Whose turn it is to act."""
        return self.whom or (
            "an operator"
            if self.code is Code.OUTCOME_UNKNOWN
            else _TURN.get(self.status, "nobody")
        )


_OUTCOMES: ContextVar[list[CallOutcome] | None] = ContextVar(
    "agentgate_call_outcomes", default=None
)


@contextmanager
def call_outcomes() -> Iterator[list[CallOutcome]]:
    """The refused and held calls of the invokes in this block, as they come."""
    seen: list[CallOutcome] = []
    with set_variables((_OUTCOMES, seen)):
        yield seen


def _add(outcome: CallOutcome) -> None:
    """Tell the host, if it asks; a call that is held is decided on twice when it is resumed,
    and told once.
    """
    seen = _OUTCOMES.get()
    if seen is not None and outcome not in seen:
        seen.append(outcome)


def until_of(hold: Hold) -> str:
    """When the time to answer a hold is over."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(hold.expires_at))


def add_held(hold: Hold, failures: tuple[Failure, ...] = ()) -> None:
    """Tell the host of a call that waits."""
    shown = hold.tool, hold.tool_call_id, hold.run, hold.id, until_of(hold), hold.question.whom
    _add(CallOutcome(Code.NEEDS_APPROVAL, failures, *shown))


def add_no_run(error: AgentGateError | str, run: str = "") -> None:
    """Tell the host why there is no run; a text: nobody is proven."""
    nobody = isinstance(error, str)
    reason = Reason.USER if nobody else Reason.STORE
    expected = "somebody who is proven, and a gate that answers in time"
    other = Failure(reason, "run", visible(error)[:2000], expected, data={"sign_in": nobody})
    failures = error.failures if isinstance(error, RunRefused) else (other,)
    _add(CallOutcome(code_of(failures), failures, run=run))


def add_refusal(
    code: Code, decision: Deny | None, tool: str, tool_call_id: str, run: Any
) -> dict[str, str]:
    """Tell the host of a refused call, in which there is no run for a reason that it was told
    before. Returns what its message carries.
    """
    if decision:
        failures = decision.failures
        until = decision.until
    else:
        earlier = _OUTCOMES.get() or () if not run else ()
        failures = next((each.failures for each in reversed(earlier) if not each.tool), ())
        until = ""
    hold = next((failure.data["hold"] for failure in failures if "hold" in failure.data), "")
    _add(CallOutcome(code, failures, tool, tool_call_id, run.id if run else "", hold, until))
    return {"type": "agentgate.refused", "code": str(code), "hold": hold, "until": until}


class CallRefused(ToolException, CallDenied):
    """A refused call that has no `tool_call_id` to answer to. Its text is the closed code only;
    the rest is for the host.

    Attributes:
        decision: every failure; None where the call never reached the gate (no run, arguments
            that the model may not set).
        tool_call_id: the id that the call was given, for ``run.explain(tool_call_id=...)``;
            empty without a decision.
    """

    def __init__(self, code: str, decision: Deny | None = None, tool_call_id: str = "") -> None:
        super().__init__(code)
        self.decision = decision
        self.tool_call_id = tool_call_id
        self.add_note(
            "why: the log line call_refused, error.decision, or "
            "run.explain(tool_call_id=error.tool_call_id)"
        )
