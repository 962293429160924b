"""What the version that only observes says of a call, beside the versions that count: a record,
and nothing else comes of it.
"""

from __future__ import annotations

from functools import partial

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.decision.decide import judge
from agentgate.decision.versions import Versions, under_newer
from agentgate.gate.core import Core, reasons_of, stamp
from agentgate.values.refusal import NOT_SHOWN
from agentgate.values.request import RunState
from agentgate.values.value_class import Json, Values
from agentgate.workflow.model import Workflow


def observe(
    core: Core, versions: Versions, state: RunState, case: Case, answer: Eligible | Deny
) -> None:
    """Have it recorded what that version would say of a call that was answered."""
    observed = core.catalog.observed.get(state.header.workflow)
    if observed is not None:
        core.observer.add(
            partial(_observation, core, versions.opened, observed, state, case, answer)
        )


def _observation(  # noqa: PLR0917 - as `observe`
    core: Core,
    opened: Workflow,
    observed: Workflow,
    state: RunState,
    case: Case,
    answer: Eligible | Deny,
) -> Values:
    call = case.call
    said: Json = {
        "decision": answer.asks,
        "tool": call.tool if call.tool in opened.tools else NOT_SHOWN,
    }
    said["observed"] = {"version": observed.version, "digest": observed.digest}
    try:
        versions = Versions(opened, observed)
        other = judge(
            Case(
                observed,
                under_newer(versions, observed, state, core.readings.intents),
                call,
                case.around,
            )
        )
        said |= {"would": other.asks, "reasons": reasons_of(other.failures)}
        if any(earlier.tool in versions.changed for earlier in state.calls):
            said["unknown"] = "facts"
    except Exception as error:  # noqa: BLE001 - whatever it raises is on record, and changes nothing
        said["unknown"] = type(error).__name__
    return stamp("observation", state.header, tool_call_id=call.id, **said).body
