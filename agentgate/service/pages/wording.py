"""What the pages say: what became of an answer, and of one that does not count what to do
next.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo

from agentgate.decision.hold import Hold, State
from agentgate.decision.question import moment
from agentgate.values.refusal import AnswerCode, AnswerRefused
from agentgate.values.visible import visible

_STATES: Mapping[State, str] = {
    "released": "Released. The agent may make exactly this call, once, until {until}.",
    "refused": "Refused. This call does not run, and the agent may not ask for the same again for a while.",
    "expired": "Nobody answered in time, so this call does not run.",
    "cancelled": "Nobody needs to answer any more: the user took the request back, or the run ended.",
    "spent": "Released, and used: the call was made, and cannot be made again with this yes.",
}
REFUSED: Mapping[AnswerCode, str] = {
    AnswerCode.MISSING: "There is no such call, or none that you may answer. Go back to the list.",
    AnswerCode.STATE: (
        "This call was answered meanwhile, or its time is over. Load the page "
        "again to see what became of it."
    ),
    AnswerCode.RUN: (
        "The run of this call is over, so no answer counts. If it is still "
        "wanted, the user has to ask the agent anew."
    ),
    AnswerCode.WORKFLOW: (
        "The rules changed since this call was held, so no answer counts. "
        "The agent has to propose the call anew."
    ),
    AnswerCode.FORM: "The answer could not be read. Load the page again and answer once more.",
    AnswerCode.SIGNATURE: (
        "The passkey's answer is not one to this call. Load the page again and answer once more, "
        "with the passkey that you signed in with; if that does not help, ask your operator "
        "whether it is still in the file."
    ),
    AnswerCode.NONCE: "This answer was sent before, or took longer than five minutes. Answer once more.",
    AnswerCode.CHANNEL: (
        "No answer by passkey counts at this gate now. Ask your operator for "
        "the setting passkeys and its file."
    ),
    AnswerCode.UNPROVEN: "The gate does not know who answered. Sign in again, then answer once more.",
    AnswerCode.APPROVER: (
        "You may not answer this call: its rules ask somebody else, or you "
        "are revoked. Nothing changed."
    ),
    AnswerCode.OVERTAKEN: (
        "Somebody else answered at the same moment. Load the page again to "
        "see what became of it."
    ),
}


def became(hold: Hold, zone: tzinfo) -> str:
    """What a hold's state means to a person; who said yes so far."""
    said = ", ".join(visible(each.id, 80) for each in hold.approvers)
    if hold.state != "pending":
        by = f" Yes from: {said}." if said else ""
        return _STATES[hold.state].format(until=moment(hold.expires_at, zone)) + by
    return f"Waits for {hold.question.whom}, until {moment(hold.expires_at, zone)}." + (
        f" Yes so far from: {said}." if said else ""
    )


def answered(hold: Hold, zone: tzinfo) -> str:
    """The same just after an answer."""
    return (
        f"Your yes counts. {became(hold, zone)}"
        if hold.state == "pending"
        else became(hold, zone)
    )


def refused(error: AnswerRefused) -> str:
    """Why an answer does not count, and what to do."""
    return REFUSED[error.code]
