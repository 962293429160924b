"""A call of a run explained: what a decision would be now, and what was said of it when this
handle last refused or held it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agentgate.decision.answer import Deny, StepUp
from agentgate.decision.versions import Versions, judged, under_newer
from agentgate.errors import ConfigError
from agentgate.gate.core import read_again, surroundings
from agentgate.gate.holds.memory import add_memory
from agentgate.gate.view import View
from agentgate.shell.drive import apart
from agentgate.shell.step import Flow
from agentgate.values.refusal import Failures, Reason
from agentgate.values.request import Call, RunState

if TYPE_CHECKING:
    from agentgate.explain.explanation import Explanation


def explained(
    view: View, tool: str, made: Call | Deny | None, tool_call_id: str | None, verdicts: Any
) -> Flow:
    """The steps of `Run.explain`; `verdicts`: the module, imported before the deadline runs."""
    core = view.core
    known = view.refused.get(tool_call_id) if tool_call_id is not None else None
    # what the store, a person or the gate said of the call when it was refused here
    later: Failures = ()
    if isinstance(made, Deny):
        call = Call("(unreadable)", "(unreadable)", b"{}", {})
        later = made.failures
    elif made is not None:
        call = made
    elif known is None or tool not in {"", known[0].tool}:
        raise ConfigError(
            "tool_call_id",
            tool_call_id,
            "the id of a call this handle refused lately; else give tool and args",
        )
    else:
        call = known[0]
    if known is not None and known[0] == call:
        later = tuple(
            f
            for f in known[1].failures
            if f.reason in verdicts.LATER
            and (f.reason is not Reason.LIMIT or f.field == "limits" or "full" in f.data)
        )
    state: RunState = yield from read_again(core, view.state)
    versions = core.in_force.known(state.header) or Versions(view.workflow)
    around = (yield from surroundings(core, versions, state.header, call, None))()
    if any(each.tools[call.tool].remember for each in versions.each if call.tool in each.tools):
        state = yield from add_memory(
            core, *judged(versions, state, call, around, core.readings.intents), state, {}
        )
    size = len(call.data) + sum(map(len, state.turns))
    explanation: Explanation = yield from apart(
        size, partial(verdicts.explain, versions.opened, state, call, around, later)
    )
    if versions.newer is not None and explanation.decision != "deny":
        seen = under_newer(versions, versions.newer, state, core.readings.intents)
        explanation = yield from apart(
            size, partial(verdicts.explain, versions.newer, seen, call, around, later)
        )
    notes = [*explanation.notes]
    if versions.newer is not None:
        notes.append(
            f"the run was opened under version {versions.opened.version}, and version "
            f"{versions.newer.version} is in force: both decide, and this is what "
            f"{explanation.workflow} says"
        )
    latest = view.refused.get(call.id)
    if latest is not None and latest[0] == call and isinstance(latest[1], StepUp):
        hold = latest[1].hold
        notes.append(
            f"hold {hold.id} for {', '.join(hold.rules)}, open until "
            f"{hold.expires_at:.0f} (POSIX seconds)"
        )
    return replace(explanation, notes=tuple(notes))
