"""A person's answer to a hold, and holds read by their id.

Rules: a hold is named by its id and tenant; what counts is what the store keeps under them,
never an object that a caller made. An answer is checked, then put on record, then written, and
only on the revision that was read. One that does not count is on record too; if nobody proved
to have given it, it is counted. An answer to several is one for each: what became of one
changes nothing for the others.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from agentgate.decision.batch_answer import MOST, Inclusion, Together, check_ids
from agentgate.decision.hold import Approver, Event, Hold, after, check_answer, covered
from agentgate.errors import NameRefused
from agentgate.gate.core import Core, read, reasons_of, stamp
from agentgate.gate.holds.codec import body_of, event_of, hold_of
from agentgate.gate.holds.proof import Answering, ProvenAnswer, refusal
from agentgate.gate.holds.release import with_words
from agentgate.identity.proven import Proven
from agentgate.shell.step import Apart, Flow, Record, alone, date_event
from agentgate.stores import Op, ops
from agentgate.token.mint import txn
from agentgate.values.answers import NONCE_SECONDS, Said
from agentgate.values.canonical import parse
from agentgate.values.refusal import AnswerCode, AnswerRefused, Reason, RunRefused, place
from agentgate.values.request import Header, RunState, User
from agentgate.values.value_class import Json, Values
from agentgate.values.visible import visible
from agentgate.workflow.model import StepUpRule, Workflow

_SHOWN = 80  # characters of a name from outside in a record


def _read(tenant: str, hold_id: str) -> Flow:
    """The stored hold of a tenant, with its state now, and its record."""
    missing = refusal(
        AnswerCode.MISSING,
        "hold",
        "no such hold of this tenant",
        "the id of a hold that the store still has",
    )
    if type(tenant) is not str or type(hold_id) is not str:
        raise missing
    try:
        op = ops.read_hold(tenant, hold_id)
    except NameRefused as error:
        raise missing from error
    record = yield op
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
    return (yield from spoken(core, tenant, hold.run, (hold,)))[0]


def spoken(core: Core, tenant: str, run: str, holds: tuple[Hold, ...]) -> Flow:
    """Holds of a run, and in their questions the user's words, while the run is there."""
    try:
        state: RunState = yield from read(core, tenant, run)
    except RunRefused:
        return holds
    return tuple(with_words(core, hold, state) for hold in holds)


def many(tenant: str, run: str | None, state: str | None) -> Flow:
    """The holds of a tenant, or of one of its runs, that are in this state now (None: in any);
    the earliest deadline first.

    Raises (through the driver):
        NameRefused, StoreUnavailable.
    """
    found = yield from every(partial(ops.list_holds, tenant, run or ""))
    if run is not None:
        found += yield from every(partial(ops.old_holds, tenant, run))
    now = time.time()
    holds = dict[str, Hold]()
    for record in found:
        hold = hold_of(record)
        if record.place.endswith(f".{hold.id}"):  # no copy under another id
            holds[hold.id] = replace(hold, state=hold.state_at(now))
    return tuple(
        sorted(
            (h for h in holds.values() if state in {None, h.state}),
            key=lambda h: (h.expires_at, h.id),
        )
    )


def every(page: Callable[..., Op[ops.HoldList]]) -> Flow:
    """The records of all pages, each read under a deadline of its own."""
    found: list[ops.HoldRecord] = []
    after = ""
    while True:
        read: ops.HoldList = yield Apart(alone(page(after=after)))
        found += read.records
        if not (after := read.next):
            return found


def nonce(tenant: str, hold_ids: Collection[str]) -> Flow:
    """A new nonce for one signed answer to this hold, or to these together.

    Raises (through the driver):
        AnswerRefused: `MISSING`, `STATE`: there is nothing to answer; `FORM`: these are not one
        question. StoreUnavailable.
    """
    yield from _together(tenant, hold_ids)
    new = secrets.token_urlsafe(24)
    for hold_id in hold_ids:
        if (yield ops.nonce_hold(tenant, hold_id, new, NONCE_SECONDS * 1000)) != "ok":
            raise refusal(
                AnswerCode.STATE,
                "hold",
                f"{hold_id}: answered, or over",
                "a pending or released hold",
            )
    return new


def _together(tenant: str, hold_ids: Collection[str]) -> Flow:
    check_ids(list(hold_ids))
    found = []
    for hold_id in hold_ids:
        hold, _ = yield from _read(tenant, hold_id)
        found.append(hold)
    return Together.of(found)


def several(core: Core, tenant: str, answers: Mapping[str, Said], by: Answering) -> Flow:
    """A person's answers to holds that they were asked about together; of each id the hold as
    it is after it, or why its answer is none.

    Raises (through the driver):
        AnswerRefused: none of them counts; that is on record. StoreUnavailable,
        AuditUnavailable: some may be answered; the same again
            answers the others.
    """
    try:
        if not all(said in {"release", "refuse"} for said in answers.values()):
            raise refusal(
                AnswerCode.FORM, "answers", "something else", "release or refuse for each hold"
            )
        together: Together = yield from _together(tenant, answers)
    except AnswerRefused as refused:
        known = {
            "by": _vouched(by),
            "holds": [ascii(name)[1:-1][:_SHOWN] for name in list(answers)[:MOST]],
        }
        yield from _refused(core, tenant, None, refused, known)
        raise
    found: dict[str, Hold | AnswerRefused] = {}
    for hold in together.holds:
        leaf = together.leaf(hold.id, answers)
        try:
            found[hold.id] = yield Apart(
                answer(core, tenant, hold.id, by, answers[hold.id], leaf=leaf)
            )
        except AnswerRefused as refused:
            found[hold.id] = refused
    if all(isinstance(each, AnswerRefused) for each in found.values()):
        raise next(iter(found.values()))  # type: ignore[misc]  # one of them
    return found


def answer(
    core: Core,
    tenant: str,
    hold_id: str,
    by: Answering,
    said: Said,
    *,
    leaf: Inclusion | None = None,
    reason: str = "",
) -> Flow:
    """A person's answer to a hold; returns the hold as it is after it, for `reveal` its
    sensitive values.

    `leaf`: where the hold stands among those that they answer together; None: it is answered
    alone. `reason`: for the record.

    Raises (through the driver):
        AnswerRefused: it does not count; that is on record. StoreUnavailable, AuditUnavailable:
        not answered.
    """
    known: Json = {"by": _vouched(by)}
    try:
        return (
            yield from _answered(
                core, tenant, hold_id, by, said, leaf=leaf, known=known, reason=reason
            )
        )
    except AnswerRefused as refused:
        yield from _refused(core, tenant, hold_id, refused, {**known, "answer": said})
        raise


def _vouched(by: Answering) -> str | None:
    """Who answers, where a host or a credential said so already; None: a signature has to."""
    return by.id if type(by) is User else by.who.id if type(by) is Proven else None


# sensitive values are shown while a no may come
_EVENT: Mapping[Said, Event] = {"release": "yes", "refuse": "no", "reveal": "no"}


def _answered(
    core: Core,
    tenant: str,
    hold_id: str,
    by: Answering,
    said: Said,
    *,
    leaf: Inclusion | None,
    known: Json,
    reason: str,
) -> Flow:
    # (1) the hold, still open
    hold, record = yield from _read(tenant, hold_id)
    known["run"] = hold.run
    status = hold.state_at(time.time())
    event = _EVENT[said]
    if after(status, event) is None:
        expected = "a pending hold" if said == "release" else "a pending or released hold"
        raise refusal(AnswerCode.STATE, "hold", status, expected)
    # (2) its run, and the version it was held under
    state, workflow = yield from _read_run(core, hold)
    header = state.header
    rules = rules_of(workflow, hold)
    # (3) who says so, with a nonce of this hold
    yield from core.answerers.fresh()
    proven = core.answerers.prove(hold, said, by, leaf, in_process=workflow.agent.in_process)
    who = proven.user
    known["by"] = who.id
    gone = yield from _taken(
        tenant, hold_id, proven, int(header.opened_at * 1000), take=said == "reveal"
    )
    # (4) whether they may
    _check_person(proven, rules, header, file=workflow.file, revoked=gone)
    whose = {"by": who.id, "by_identity": who.identity, "channel": proven.channel}
    if reason:
        whose["reason"] = visible(reason, 300)
    of_hold = _in_record(hold, said, leaf)
    if said == "reveal":
        yield stamp("hold_revealed", header, **whose, **of_hold)
        return parse((yield ops.reveal_hold(tenant, hold_id)) or b"{}")
    # (5) what follows
    if said == "release":
        hold, still = _add_yes(core, hold, proven, in_process=workflow.agent.in_process)
        enough = all(covered(rule, still, header.user, header.agent) for rule in rules)
        event = "enough" if enough else "yes"
    then = after(status, event)
    if then not in {"pending", "released", "refused"}:
        raise refusal(AnswerCode.STATE, "hold", status, "a pending hold")
    hold = replace(hold, state=then)
    # (6) on record, then written where nobody answered meanwhile
    took = round(time.time() - hold.question.opened, 3)
    shown: Json = {**whose, "proof": dict(proven.proof)}
    yield stamp(
        "hold_answer", header, **shown, answer=said, state=hold.state, **of_hold, seconds=took
    )
    yield from _write(
        core, hold, record, proven, said, f"turn {header.name_turn(len(state.turns))}".encode()
    )
    return hold


def _check_person(
    proven: ProvenAnswer,
    rules: tuple[StepUpRule, ...],
    header: Header,
    *,
    file: str,
    revoked: bool,
) -> None:
    """Every rule that asks takes an answer of this person, who is not revoked."""
    who = proven.user
    failures = check_answer(rules, who, header.user, header.agent, header.tenant)
    if failures:
        placed = tuple(
            replace(failure, rule=place(file, rule.line))
            for rule, failure in zip(rules, failures, strict=True)
        )
        raise AnswerRefused(AnswerCode.APPROVER, placed)
    _check_same(proven, header.user)
    if revoked:
        got = f"{who.id}, who is revoked"
        raise refusal(AnswerCode.APPROVER, "approver", got, "a person who is not revoked")


def _in_record(hold: Hold, said: Said, leaf: Inclusion | None) -> Json:
    """A hold as the record of its answer names it, and those that were answered with it."""
    body: Json = {
        "hold": hold.id,
        "txn": txn(hold.id),
        "tool": hold.tool,
        "tool_call_id": hold.tool_call_id,
        "rules": list(hold.rules),
    }
    if leaf is not None:
        root = leaf.root(hold, said)
        body["together"] = {"holds": leaf.size, "root": None if root is None else root.hex()}
    return body


def _write(  # noqa: PLR0917 - a step
    core: Core,
    hold: Hold,
    record: ops.HoldRecord,
    proven: ProvenAnswer,
    said: Said,
    note: bytes,
) -> Flow:
    """Write an answered hold over the record that was read. Raises AnswerRefused: a used nonce,
    or an answer that came first.
    """
    told = event_of(proven.user.id, proven.channel, said, hold.state)
    written = yield ops.answer_hold(
        hold.tenant,
        hold.id,
        expected_revision=record.revision,
        body=body_of(hold),
        state=hold.state,
        nonce=proven.nonce,
        event=told,
        user=proven.user.id,
        note=note,
    )
    if written == "nonce":
        raise _used()
    if written != "ok":
        raise refusal(
            AnswerCode.OVERTAKEN,
            "hold",
            "answered by somebody else meanwhile",
            "the hold as it was read",
        )
    core.notifier.wake(hold.tenant)


def _read_run(core: Core, hold: Hold) -> Flow:
    """A hold's run, and the version that its calls are minted by."""
    try:
        state: RunState = yield from read(core, hold.tenant, hold.run)
        return state, (yield from core.in_force.of(state.header)).minted
    except RunRefused as refused:
        changed = any(failure.reason is Reason.WORKFLOW_CHANGED for failure in refused.failures)
        raise AnswerRefused(
            AnswerCode.WORKFLOW if changed else AnswerCode.RUN, refused.failures
        ) from refused


def _add_yes(
    core: Core, hold: Hold, proven: ProvenAnswer, *, in_process: bool
) -> tuple[Hold, Hold]:
    """The hold with a yes that was proven just now: as it is written, and with only those of
    the other yeses that still count.
    """
    who = proven.user
    others = tuple(a for a in hold.approvers if a.id != who.id)
    one_more = Approver(
        id=who.id,
        tenant=who.tenant,
        groups=tuple(who.groups),
        identity=who.identity,
        channel=proven.channel,
        proof=proven.proof,
    )
    known_still = core.answerers.standing(
        replace(hold, approvers=others), in_process=in_process
    ).approvers
    return replace(hold, approvers=(*others, one_more)), replace(
        hold, approvers=(*known_still, one_more)
    )


def _check_same(proven: ProvenAnswer, user: User | None) -> None:
    """Where an issuer proved the run's user, their id in the root or at another issuer may be
    somebody else's, of another tenant too.
    """
    who = proven.user
    if (
        user is None
        or not user.issuer
        or proven.channel not in {"ssh", "token"}
        or (who.id, who.tenant) != (user.id, user.tenant)
    ):
        return
    if (who.issuer, who.subject) != (user.issuer, user.subject):
        got = f"{who.id} of {who.issuer or 'the root'}"
        raise refusal(
            AnswerCode.APPROVER,
            "approver",
            got,
            f"{user.id} of {user.issuer} (an OIDCToken), or the front end's word",
        )


def _taken(
    tenant: str, hold_id: str, proven: ProvenAnswer, opened_ms: int, *, take: bool
) -> Flow:
    """Whether this person is revoked. Refuses a nonce that is not this hold's, was used, or is
    too old.
    """
    if not proven.nonce:
        return (yield ops.revoked(tenant, proven.user.id, opened_ms))
    try:
        op = ops.take_nonce(
            tenant, hold_id, proven.nonce, take=take, user=proven.user.id, opened_ms=opened_ms
        )
    except NameRefused as error:
        if error.field != "nonce":
            raise
        raise _used() from None
    found, gone = yield op
    if found != "ok":
        raise _used()
    return gone


def _used() -> AnswerRefused:
    return refusal(
        AnswerCode.NONCE,
        "nonce",
        "one that is not this hold's, was used, or is too old",
        "a fresh one (Gate.nonce)",
    )


def rules_of(workflow: Workflow, hold: Hold) -> tuple[StepUpRule, ...]:
    """The rules that asked, as they decide now.

    Raises:
        AnswerRefused: `WORKFLOW`: they are no longer those that ask.
    """
    tool = workflow.tools.get(hold.tool)
    asking = tool.step_ups if tool is not None else ()
    rules = tuple(rule for rule in asking if rule.id in hold.rules)
    if len(rules) != len(hold.rules) or not rules:
        raise refusal(
            AnswerCode.WORKFLOW,
            "workflow",
            "changed since the hold was opened",
            "the versions the call was held under",
        )
    return rules


def _refused(
    core: Core,
    tenant: object,
    hold_id: object,
    refused: AnswerRefused,
    known: Values,
) -> Flow:
    """Put an answer that does not count on record; of one that nobody proved to have given it
    only a count.
    """
    body = date_event(
        "hold_answer_refused",
        tenant=ascii(tenant)[1:-1][:_SHOWN],
        hold=ascii(hold_id)[1:-1][:_SHOWN],
        **known,
        code=str(refused.code),
        reasons=reasons_of(refused.failures),
    )
    if known["by"] is None:
        core.unproven.count(body["type"], body["code"], refusal=body)
    else:
        yield Record(body, refusal=True)
