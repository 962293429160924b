"""A person's answer to a hold, and holds read by their id.

Rules: a hold is named by its id and tenant; what counts is what the store keeps under them, never an object that a caller made. An answer
is checked, then put on record, then written, and only on the revision that was read. One that does not count is on record too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from agentgate.decision.hold import Approver, Hold, check_answer, covered
from agentgate.decision.hold_states import Event, after
from agentgate.errors import NameRefused
from agentgate.gate.core import Core, read, reasons_of, stamp
from agentgate.gate.release import body_of, hold_of, with_words
from agentgate.shell.step import Flow, Record
from agentgate.stores import ops
from agentgate.values.refusal import AnswerCode, AnswerRefused, Failure, Reason, RunRefused
from agentgate.values.request import RunState, User
from agentgate.workflow.model import StepUpRule, Workflow

_SHOWN = 80  # characters of a name from outside in a record


def _refusal(code: AnswerCode, field: str, got: str, expected: str) -> AnswerRefused:
    return AnswerRefused(code, (Failure(Reason.STEP_UP, field, got, expected),))


def _read(tenant: str, hold_id: str) -> Flow:
    """The stored hold of a tenant, with its state now, and its record."""
    missing = _refusal(AnswerCode.MISSING, "hold", "no such hold of this tenant", "the id of a hold that the store still has")
    if type(tenant) is not str or type(hold_id) is not str:
        raise missing
    try:
        op = ops.read_hold(tenant, hold_id)
    except NameRefused as error:
        raise missing from error
    record = ops.parse_hold(op, (yield op))
    if record is None:
        raise missing
    hold = hold_of(record)
    if hold.id != hold_id or hold.tenant != tenant:
        raise missing
    return hold, record


def one(tenant: str, hold_id: str) -> Flow:
    """A hold by its id, in its state now, its question without the user's words.

    Raises (through the driver):
        AnswerRefused: `MISSING`. StoreUnavailable.
    """
    hold, _ = yield from _read(tenant, hold_id)
    return replace(hold, state=hold.state_at(time.time()))


def shown(core: Core, tenant: str, hold_id: str) -> Flow:
    """`one`, and in its question the user's words, while the run is there. Raises as `one`."""
    hold = yield from one(tenant, hold_id)
    try:
        state: RunState = yield from read(core, tenant, hold.run)
    except RunRefused:
        return hold
    return with_words(core, hold, state.turns)


def many(tenant: str, run: str | None, state: str | None) -> Flow:
    """The holds of a tenant, or of one of its runs, that are in this state now (None: in any); the earliest deadline first.

    Raises (through the driver):
        NameRefused, StoreUnavailable.
    """
    op = ops.list_holds(tenant, run or "")
    now = time.time()
    found = [hold_of(record) for record in ops.parse_list_holds(op, (yield op))]
    now_known = [replace(hold, state=hold.state_at(now)) for hold in found]
    return tuple(sorted((h for h in now_known if state in {None, h.state}), key=lambda h: (h.expires_at, h.id)))


def answer(core: Core, tenant: str, hold_id: str, by: User, *, release: bool) -> Flow:
    """A person's answer to a hold; returns the hold as it is after it.

    Raises (through the driver):
        AnswerRefused: it does not count; that is on record. StoreUnavailable, AuditUnavailable: not answered.
    """
    known: dict[str, object] = {"by": by.id if type(by) is User else None}
    try:
        return (yield from _answered(core, tenant, hold_id, by, release=release, known=known))
    except AnswerRefused as refused:
        yield _refused_on_record(tenant, hold_id, refused, known)
        raise


def _answered(core: Core, tenant: str, hold_id: str, by: User, *, release: bool, known: dict[str, object]) -> Flow:
    # (1) the hold, still open
    hold, record = yield from _read(tenant, hold_id)
    known["run"] = hold.run
    status = hold.state_at(time.time())
    said: Event = "yes" if release else "no"
    if after(status, said) is None:
        raise _refusal(AnswerCode.STATE, "hold", status, "a pending hold" if release else "a pending or released hold")
    # (2) its run, and the version it was held under
    try:
        state: RunState = yield from read(core, tenant, hold.run)
        workflow = core.workflow(state.header.workflow)
    except RunRefused as refused:
        raise AnswerRefused(AnswerCode.RUN, refused.failures) from refused
    rules = _rules(workflow, state, hold)
    # (3) who says so, and whether they may
    if type(by) is not User or (by.identity != "proven" and not workflow.agent.in_process):
        got = f"{by.id} (in process)" if type(by) is User else type(by).__name__
        raise _refusal(AnswerCode.UNPROVEN, "approver", got, "a person who is proven (in process only under in_process: true)")
    header = state.header
    failures = check_answer(rules, by, header.user, header.agent, tenant)
    if failures:
        placed = tuple(replace(f, rule=f"{workflow.file}:{rule.line}") for rule, f in zip(rules, failures, strict=True))
        raise AnswerRefused(AnswerCode.APPROVER, placed)
    # (4) what follows
    if release:
        others = tuple(a for a in hold.approvers if a.id != by.id)
        hold = replace(hold, approvers=(*others, Approver(by.id, by.tenant, tuple(by.groups), by.identity)))
        said = "enough" if all(covered(rule, hold, header.user, header.agent) for rule in rules) else "yes"
    then = after(status, said)
    if then not in {"pending", "released", "refused"}:
        raise _refusal(AnswerCode.STATE, "hold", status, "a pending hold")
    hold = replace(hold, state=then)
    # (5) on record, then written where nobody answered meanwhile
    of_hold = {"hold": hold_id, "tool": hold.tool, "tool_call_id": hold.tool_call_id}
    word = "release" if release else "refuse"
    yield stamp("hold_answer", header, by=by.id, by_identity=by.identity, answer=word, state=hold.state, **of_hold)
    op = ops.answer_hold(tenant, hold_id, record.revision, body_of(hold), then)
    if ops.parse_answer_hold(op, (yield op)) != "ok":
        raise _refusal(AnswerCode.OVERTAKEN, "hold", "answered by somebody else meanwhile", "the hold as it was read")
    return hold


def _rules(workflow: Workflow, state: RunState, hold: Hold) -> tuple[StepUpRule, ...]:
    """The rules that asked, as they are in force."""
    tool = workflow.tools.get(hold.tool)
    rules = tuple(rule for rule in tool.step_ups if rule.id in hold.rules) if tool is not None else ()
    if workflow.digest != state.header.digest or len(rules) != len(hold.rules) or not rules:
        raise _refusal(AnswerCode.WORKFLOW, "workflow", "changed since the hold was opened", "the version the call was held under")
    return rules


def _refused_on_record(tenant: object, hold_id: object, refused: AnswerRefused, known: Mapping[str, object]) -> Record:
    body = {
        "type": "hold_answer_refused",
        "time": round(time.time(), 6),
        "tenant": ascii(tenant)[1:-1][:_SHOWN],
        "hold": ascii(hold_id)[1:-1][:_SHOWN],
        **known,
        "code": str(refused.code),
        "reasons": reasons_of(refused.failures),
    }
    return Record(body, refusal=True)
