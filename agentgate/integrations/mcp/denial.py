"""What a refused `tools/call` answers: a result with ``isError``, never a protocol error, which
a model would not see.

Rules: the text is a closed code and what to do next, and of arguments in a wrong form what the
tool's schema says; nothing of the workflow, the values or the reasons. A hold says who may
answer it and until when. The host reads the same as values in ``_meta``, under `DENIAL`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_types import CallToolResult, TextContent

from agentgate.decision.question import moment
from agentgate.errors import CallDenied
from agentgate.values.refusal import Code
from agentgate.values.value_class import value_class

DENIAL: Final = "dev.agentgate/denial"
NEXT: Final[Mapping[Code, str]] = {
    Code.NOT_PERMITTED: (
        "This call is not allowed here. Do not repeat it; tell the user that "
        "it cannot be done this way."
    ),
    Code.INVALID_ARGUMENTS: (
        "An argument is missing, unknown or has another form. Read the "
        "tool's schema and send only what it names."
    ),
    Code.NEEDS_APPROVAL: (
        "A person must release this call first. When they have, make "
        "exactly the same call again."
    ),
    Code.REFUSED: "A person said no to this call. Do not repeat it unless the user asks for it again.",
    Code.LIMIT_REACHED: (
        "A limit is reached, so this call cannot be made now. Do not repeat "
        "it before that has passed."
    ),
    Code.ALREADY_DONE: "This call has run already. Do not repeat it.",
    Code.FAILED: "This call failed, and nothing happened. It may be tried again later.",
    Code.OUTCOME_UNKNOWN: "Nobody knows whether this call ran. Do not repeat it; ask the user to check.",
    Code.UNAVAILABLE: "This call could not be checked now; nothing happened. Try again later.",
}


@value_class
class HeldCall:
    """A hold as the caller is told of it: its id, who may answer, until when (POSIX
    seconds).
    """

    id: str
    whom: str
    deadline: float

    def __str__(self) -> str:
        return (
            f"Hold {self.id} waits for {self.whom or 'a person'} until {moment(self.deadline)}."
        )


def denied(
    code: Code, hold: HeldCall | None = None, form: str = "", until: str = ""
) -> CallToolResult:
    """The result of a refused call; `form`: of arguments of a wrong form, what the tool's
    schema says; `until`: as `Deny.until`.
    """
    until_when = f"Until: {until}." if until else ""
    text = " ".join(
        filter(None, [f"{CallDenied(code)}.", str(hold or ""), until_when, NEXT[code], form])
    )
    told: dict[str, Any] = {"code": str(code), **({"until": until} if until else {})}
    if hold:
        told["hold"] = {"id": hold.id, "whom": hold.whom, "deadline": hold.deadline}
    return CallToolResult(
        content=[TextContent(type="text", text=text)], is_error=True, _meta={DENIAL: told}
    )
