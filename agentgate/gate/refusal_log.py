"""What the log says of a refused call: run, workflow and its owners, tool, argument, what was
got and expected, the rule's line.

Rules: no value of the call and no name that the model made up is in it
(`agentgate.values.refusal.told`); the model gets the code alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import structlog

from agentgate.decision.answer import Deny
from agentgate.errors import AgentGateError
from agentgate.gate.observer import Unenforced
from agentgate.gate.view import View
from agentgate.values.refusal import Failure, RunRefused, told
from agentgate.values.visible import visible

_LOG = structlog.get_logger("agentgate.gate")
# characters of a reason, and reasons of a refusal
_LONGEST = 500
_MOST = 20


def log_refusal(view: View, tool: Any, tool_call_id: Any, decision: Deny) -> None:
    """Log a refusal: one warning, ``call_refused``, or ``call_not_enforced``."""
    header = view.state.header
    entry = {
        "run": header.id,
        "workflow": f"{header.workflow} v{header.version}",
        "tenant": header.tenant,
    }
    known: Iterable[str] = ()
    # no longer loaded, which is the refusal's own reason
    with suppress(AgentGateError, RunRefused):
        entry["owners"], known = ", ".join(view.workflow.owners), view.workflow.tools
    name = tool if type(tool) is str and tool in known else "(not of this workflow)"
    call = visible(tool_call_id, _LONGEST) if type(tool_call_id) is str else "(not a call's id)"
    what = "call_not_enforced" if isinstance(decision, Unenforced) else "call_refused"
    _LOG.warning(
        what,
        tool=name,
        tool_call_id=call,
        code=str(decision.code),
        **entry,
        reasons=reasons(decision.failures),
    )


def reasons(failures: Iterable[Failure]) -> list[str]:
    """Failures as the log holds them."""
    return [visible(f)[:_LONGEST] for f in told(failures)[:_MOST]]
