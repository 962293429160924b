"""What the version that only observes says of a call, beside the versions that count: a record, and nothing else comes of it."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.decision.decide import judge
from agentgate.decision.versions import Versions, under_newer
from agentgate.gate.core import Core, reasons_of, stamp
from agentgate.values.refusal import NOT_SHOWN
from agentgate.values.request import RunState
from agentgate.workflow.model import Workflow


def observe(core: Core, versions: Versions, state: RunState, case: Case, answer: Eligible | Deny) -> None:
    """Have it recorded what that version would say of a call that was answered."""
    observed, until = core.catalog.observed.get(state.header.workflow, (versions.opened, 0.0))
    if time.time() < until and observed is not core.catalog.get(observed.id):
        core.observer.add(observed.digest, partial(_observation, core, versions.opened, observed, state, case, answer))


def _observation(  # noqa: PLR0917 - as `observe`
    core: Core, opened: Workflow, observed: Workflow, state: RunState, case: Case, answer: Eligible | Deny
) -> dict[str, Any]:
    call = case.call
    said: dict[str, Any] = {"decision": _said(answer), "tool": call.tool if call.tool in opened.tools else NOT_SHOWN}
    said["observed"] = {"version": observed.version, "digest": observed.digest}
    try:
        versions = Versions(opened, observed)
        other = judge(Case(observed, under_newer(versions, observed, state, core.readings.intents), call, case.around))
        failures = other.failures if isinstance(other, Deny) else tuple(f for hold in other.holds for f in hold.why)
        said |= {"would": _said(other), "reasons": reasons_of(failures)}
        said["unknown"] = ["facts"] if any(call.tool in versions.changed for call in state.calls) else []
        if isinstance(answer, Eligible) and isinstance(other, Eligible):
            said["unknown"] += [name for name, was, would in zip(_TERMS, _terms(answer), _terms(other), strict=True) if was != would]
    except Exception as error:  # noqa: BLE001 - whatever it raises is on record, and changes nothing
        said["why"] = type(error).__name__
    return dict(stamp("observation", state.header, tool_call_id=call.id, **said).body)


def _said(answer: Eligible | Deny) -> str:
    return "deny" if isinstance(answer, Deny) else answer.asks


_TERMS = ("limits", "holds")


def _terms(answer: Eligible) -> tuple[object, object]:
    """What a call takes of limits, and whom it asks: what becomes of that, only a run under the version would show."""
    limits = [(replace(each.limit, line=0), each.amount) for each in answer.reservations]
    return limits, [hold.rule.whom for hold in answer.holds]
