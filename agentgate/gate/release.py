"""Holds in the store: what a held call answers, the release that its mint consumes, and a person's answer.

Rules: `agentgate.decision.hold` says who may answer and which state follows. Here holds are read, shown, compared and written, and each
answer is on record before it is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from agentgate.decision.answer import RequiredHold, StepUp, asked
from agentgate.decision.case import Case
from agentgate.decision.hold import Approver, Hold, check_answer, covered
from agentgate.errors import StoreUnavailable
from agentgate.gate.core import Core, decided, deny, read, reasons_of, stamp
from agentgate.shell.step import Flow
from agentgate.stores import ops
from agentgate.values.canonical import canonical, parse
from agentgate.values.refusal import Failure, Reason, RunRefused, without_values
from agentgate.values.request import RunState, User
from agentgate.workflow.nested import emptied, flat

_PLAIN = ("id", "tenant", "run", "tool", "tool_call_id")  # fields of a hold that are stored as they are


def released(core: Core, case: Case, required: tuple[RequiredHold, ...], *, made: str, known: Mapping[str, object]) -> Flow:
    """The release to consume, or the `StepUp` or `Deny` that answers the call instead; `known` goes on record with either."""
    call, header, now = case.call, case.run.header, time.time()
    op = ops.read_hold(header.tenant, made)
    record = ops.parse_hold(op, (yield op))
    if record is None or record.state == "cancelled":
        life = 2 * max(hold.rule.timeout for hold in required) * 1000
        op = ops.open_hold(header.tenant, header.id, made, _hold_body(_new_hold(case, required, made)), life)
        record = ops.parse_hold(op, (yield op))
        if record is None:
            raise StoreUnavailable("hold: not kept by the store")
    hold = hold_of(record)
    status = hold.state_at(now)
    if status == "consumed" and now >= hold.expires_at and not any(c.id == call.id and c.tool == call.tool for c in case.run.calls):
        status = "expired"  # a release is good before its timeout only, also for the call that took it and did not run
    failure = None
    if status == "refused":
        failure = Failure(Reason.HOLD_REFUSED, "hold", "a person refused this call", "a released hold")
    elif status == "expired":
        failure = Failure(Reason.HOLD_EXPIRED, "hold", "nobody answered in time", "a released hold")
    elif status == "waiting":
        why = tuple(f for each in required for f in each.why)
        rules = [each.rule.id for each in required]
        asks = asked(required)
        yield decided(asks, call, header, call_digest=made, hold=made, rules=rules, reasons=reasons_of(why), **known)
        return StepUp(hold, why, asks == "confirm")
    else:
        short = next((each.rule for each in required if not covered(each.rule, hold, header.user, header.agent)), None)
        if short is not None:
            by = "released by " + ", ".join(a.id for a in hold.approvers)
            failure = Failure(Reason.STEP_UP, f"step_up.{short.id}", by, f"{short.whom}, who saw this rule")
    if failure is not None:
        return (yield from deny(core, header, call, (failure,), known))
    return ops.HoldTake(made, record.revision)


def _new_hold(case: Case, required: tuple[RequiredHold, ...], made: str) -> Hold:
    call, header = case.call, case.run.header
    tool = case.workflow.tools[call.tool]
    names = dict.fromkeys(name for hold in required for name in (hold.rule.show or tuple(tool.args)))
    args = flat(tool, call.args)
    shown = {name: "(masked)" if tool.args[name].sensitive else args[name] for name in names if name in args}
    shown |= {name: [] for name in names if name not in args and emptied(name, call.args)}
    expires = time.time() + min(hold.rule.timeout for hold in required)
    rules = tuple(hold.rule.id for hold in required)
    because = [f for hold in required for f in hold.why]
    # why a person is asked holds no value that is not shown to them
    why = tuple(str(f if f.field.removeprefix("args.") in shown else without_values(f)) for f in because)
    return Hold(made, header.tenant, header.id, call.tool, call.id, rules, shown, why, round(expires, 3))


def _hold_body(hold: Hold) -> bytes:
    return canonical(
        {
            "v": 1,
            **{name: getattr(hold, name) for name in _PLAIN},
            "rules": list(hold.rules),
            "shown": dict(hold.shown),
            "why": list(hold.why),
            "expires_at": hold.expires_at,
            "approvers": [{"id": a.id, "tenant": a.tenant, "groups": list(a.groups), "identity": a.identity} for a in hold.approvers],
        }
    )


def hold_of(record: ops.HoldRecord) -> Hold:
    """The hold of a stored record.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        stored = parse(record.body)
        if stored["v"] != 1:
            raise StoreUnavailable(f"hold: got version {stored['v']!r}, expected 1")
        return Hold(
            **{name: stored[name] for name in _PLAIN},
            rules=tuple(stored["rules"]),
            shown=stored["shown"],
            why=tuple(stored["why"]),
            expires_at=float(stored["expires_at"]),
            state=record.state,
            approvers=tuple(Approver(a["id"], a["tenant"], tuple(a["groups"]), a["identity"]) for a in stored["approvers"]),
            revision=record.revision,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreUnavailable(f"hold: unreadable ({type(error).__name__})") from error


def answer(core: Core, tenant: str, hold_id: str, by: User, *, release: bool) -> Flow:
    """A person's answer to a hold; returns the hold as it is after it.

    Raises (through the driver):
        RunRefused: this person may not answer, or the hold is missing, expired or answered.
    """
    op = ops.read_hold(tenant, hold_id)
    record = ops.parse_hold(op, (yield op))
    if record is None:
        raise _no_answer("hold", "missing or expired", "a waiting hold")
    hold = hold_of(record)
    status = hold.state_at(time.time())
    if status != "waiting":
        raise _no_answer("hold", status, "a waiting hold")
    state: RunState = yield from read(core, tenant, hold.run)
    workflow = core.workflow(state.header.workflow)
    rules = tuple(rule for rule in workflow.tools[hold.tool].step_ups if rule.id in hold.rules)
    if workflow.digest != state.header.digest or len(rules) != len(hold.rules):
        raise _no_answer("workflow", "changed since the hold was opened", "the version the call was held under")
    if by.identity != "proven" and not workflow.agent.in_process:
        raise _no_answer("approver", f"{by.id} (in process)", "a person proven by a token (in process only under in_process: true)")
    header = state.header
    failures = check_answer(rules, by, header.user, header.agent, tenant)
    if failures:
        failures = tuple(replace(f, rule=f"{workflow.file}:{rule.line}") for rule, f in zip(rules, failures, strict=True))
        yield stamp("hold_answer_refused", header, hold=hold_id, by=by.id, reasons=reasons_of(failures))
        raise RunRefused(failures)
    state_after: ops.HoldState = "refused"
    if release:
        others = tuple(a for a in hold.approvers if a.id != by.id)
        hold = replace(hold, approvers=(*others, Approver(by.id, by.tenant, tuple(by.groups), by.identity)))
        enough = all(covered(rule, hold, header.user, header.agent) for rule in rules)
        state_after = "released" if enough else "waiting"
    hold = replace(hold, state=state_after)
    said = "release" if release else "refuse"
    of_hold = {"hold": hold_id, "tool": hold.tool, "tool_call_id": hold.tool_call_id}
    yield stamp("hold_answer", header, by=by.id, by_identity=by.identity, answer=said, state=hold.state, **of_hold)
    op = ops.answer_hold(tenant, hold_id, record.revision, _hold_body(hold), state_after)
    if ops.parse_answer_hold(op, (yield op)) != "ok":
        raise _no_answer("hold", "answered by somebody else meanwhile", "a waiting hold")
    return hold


def _no_answer(field: str, got: str, expected: str) -> RunRefused:
    return RunRefused((Failure(Reason.STEP_UP, field, got, expected),))
