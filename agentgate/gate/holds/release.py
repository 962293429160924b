"""Holds in the store: what a held call answers, and the release that its mint spends.

Rules: `agentgate.decision.hold` says who may answer and which state follows. A hold whose user
took back opens anew. A release is compared with the rules that ask now, and the mint script
spends it only as it was read here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from agentgate.decision.answer import RequiredHold, StepUp, asked
from agentgate.decision.case import Case
from agentgate.decision.hold import Hold, covered
from agentgate.explain.asking import (
    MAX_SAID,
    named_by_yes,
    question_of,
    said,
    shown_names,
    shown_text,
)
from agentgate.gate.core import Core, decided, reasons_of
from agentgate.gate.holds.codec import body_of, event_of, hold_of
from agentgate.gate.minting import Minting, Release
from agentgate.gate.state import ENDED
from agentgate.shell.drive import apart
from agentgate.shell.step import Flow
from agentgate.stores import ops
from agentgate.values.canonical import canonical
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Header, RunState
from agentgate.workflow.model import ANY, NONE, StepUpRule, emptied, flat

OWN = 50  # holds that one user may have open, in whatever runs, or as many as one run may


def find_release(minting: Minting) -> Flow:
    """The `Release` to spend, or the `StepUp` or `Deny` that answers the call instead; of a
    conversation, the id under which it waits.
    """
    core = minting.view.core
    case = minting.case
    required = minting.answer.holds
    header = case.run.header
    record: ops.HoldRecord | None = yield ops.read_hold(header.tenant, minting.digest)
    if record is None or record.state == "cancelled":
        if (header.named_by_host or header.succession) and (
            other := (yield ops.waiting_call(header.tenant, header.id, case.call.act))
        ) not in {"", case.call.id}:
            return other
        if case.run.whole or time.time() >= header.expires_at:
            return (yield from minting.deny(ENDED))
        opened = yield from _open_hold(minting)
        if isinstance(opened, Failure):
            return (yield from minting.deny(opened))
        record = opened
    yield from core.answerers.fresh()
    hold = core.answerers.standing(hold_of(record), in_process=case.workflow.agent.in_process)
    if hold.id != minting.digest:  # whose yeses are proven of another call
        return (yield from minting.deny(_COPIED))
    if hold.state_at(time.time()) == "pending" and _short(required, hold, header) is None:
        # whoever answered last could not tell (a terminal has no gate's keys): here every yes
        # is proven
        record = yield from _complete(minting, hold, record)
        hold = replace(hold, state=record.state, revision=record.revision)
    status = hold.state_at(time.time())
    if status == "pending":
        return (yield from _ask(minting, hold))
    failure = _AGAINST.get(status) or _lacking(required, hold, header)
    if failure is not None:
        return (yield from minting.deny(failure.with_data(hold=minting.digest)))
    how = "proven" if all(a.identity == "proven" for a in hold.approvers) else "in_process"
    ours = core.answerers.asked(hold)  # what somebody wrote into the store endorses nothing
    own = ours and any(each.rule.user for each in required)
    endorsed = named_by_yes(required, hold.question.endorses) if ours else ()
    return Release(
        take=ops.HoldTake(minting.digest, record.revision, tuple(a.id for a in hold.approvers)),
        approver=how,
        endorsed=endorsed,
        remembers=_remembers(case, hold, how) if own else {},
        own=own,
        approvals=tuple(
            {"by": a.id, "identity": a.identity, "channel": a.channel, "proof": dict(a.proof)}
            for a in hold.approvers
        ),
    )


def _remembers(case: Case, hold: Hold, how: str) -> Mapping[str, int]:
    """What the user's own yes lets later runs use, where it answered this call alone and is
    known as the user is.
    """
    user = case.run.header.user
    if (
        user is None
        or how not in {"proven", user.identity}
        or any("leaf" in each.proof for each in hold.approvers)
    ):
        return {}
    return hold.question.remembers


_COPIED = Failure(
    Reason.STEP_UP, "hold", "a copy of another call's hold", "the hold of exactly this call"
)
_AGAINST = {
    "refused": Failure(
        Reason.HOLD_REFUSED, "hold", "a person refused this call", "a released hold"
    ),
    "expired": Failure(
        Reason.HOLD_EXPIRED, "hold", "nobody answered in time", "a released hold"
    ),
}


def _open_hold(minting: Minting) -> Flow:
    """The record of a new hold, or of one that was opened meanwhile; or the `Failure` for which
    none is opened.
    """
    core = minting.view.core
    case = minting.case
    required = minting.answer.holds
    header = case.run.header
    limits = minting.limits
    if (unreachable := _unreachable(core, case, required)) is not None:
        return unreachable
    times = [hold.rule.timeout * 1000 for hold in required]
    used: tuple[int, ...] = (
        (yield ops.read_limits(header.tenant, header.id, limits)) if limits else ()
    )
    tried = yield from minting.attempts()
    lost = max(
        [call.redeemed_at or 0.0 for _, call in tried if call.outcome in {"", "unknown"}],
        default=0.0,
    )
    most = core.budgets.holds
    own = max(most, OWN)
    body = body_of(_new_hold(minting, used, lost))
    opening = partial(
        ops.open_hold,
        *(header.tenant, header.id, minting.digest, body),
        audience=minting.audience,
        act=case.call.act,
        call=case.call.id,
        ttl_ms=2 * max(times),
        answer_ms=min(times),
        most=most,
        whose=header.whose,
        most_own=own,
        asks=[
            ("user", header.user.id if header.user else "")
            if hold.rule.user
            else ("group", hold.rule.group)
            for hold in required
        ],
        sensitive=_sensitive(case),
    )
    record: ops.HoldRecord | None = yield opening()
    if (
        record is not None
        and record.call == ops.COOLING
        and (yield from _asked_again(core, case, record.body))
    ):
        record = yield opening(despite=record.body)
    if record is None:
        expected = (
            f"fewer than {most} open holds in one run, and {own} of one user; and a "
            "group with room for more"
        )
        return Failure(Reason.TOO_MANY_HOLDS, "run", "too many open holds", expected)
    if record.call == ops.COOLING:
        expected = "another act, or this one once the user asks for it in a new turn, or later"
        return Failure(
            Reason.HOLD_REFUSED, "hold", "a person refused this act a while ago", expected
        )
    if not hold_of(record).approvers and record.body == body:
        core.notifier.wake(header.tenant)
    return record


def _asked_again(core: Core, case: Case, refused: bytes) -> Flow:
    """Whether the user asked for the act again, in turns behind those that there were when a
    person refused it.
    """
    run = case.run
    needs = case.workflow.tools[case.call.tool].needs
    # an earlier version noted none
    before = re.fullmatch(rb"turn (?:(\d+)\.)?(\d{1,4})", refused)
    heard = (
        len(run.turns)
        if before is None
        else int(before[2])
        if int(before[1] or 0) == run.header.succession
        else 0
    )
    newer = run.turns[heard:]
    if not newer:
        return False
    told = yield from apart(
        sum(map(len, newer)),
        lambda: core.readings.intents(case.workflow, newer, (), run.header.reader),
    )
    # then what is unclear may be said against it
    no = any(core.readings.turn(turn).says_no for turn in newer)
    asked_for = {"present"} if no else {"present", "unclear"}
    return any(
        not no if name in {ANY, NONE} else name in told and told[name].presence in asked_for
        for name in needs
    )


def _complete(minting: Minting, hold: Hold, record: ops.HoldRecord) -> Flow:
    """Release a hold that has every yes it needs; returns its record, also where somebody else
    was faster.
    """
    last = hold.approvers[-1]
    tenant = minting.case.run.header.tenant
    told = event_of(last.id, last.channel, "release", "released")
    answered = yield ops.answer_hold(
        tenant, minting.digest, record.revision, record.body, "released", event=told
    )
    if answered == "ok":
        minting.view.core.notifier.wake(tenant)
        record = (yield ops.read_hold(tenant, minting.digest)) or record
    return record


def _ask(minting: Minting, hold: Hold) -> Flow:
    """The call waits for a person, on record."""
    case = minting.case
    required = minting.answer.holds
    why = minting.answer.failures
    asks = asked(required)
    yield decided(
        asks,
        case.call,
        case.run.header,
        minting.known,
        call_digest=minting.digest,
        hold=minting.digest,
        rules=[each.rule.id for each in required],
        reasons=reasons_of(why),
    )
    return StepUp(with_words(minting.view.core, hold, case.run), why, asks == "confirm")


def _short(required: tuple[RequiredHold, ...], hold: Hold, header: Header) -> StepUpRule | None:
    """A rule for which the yeses of a hold do not do."""
    return next(
        (
            each.rule
            for each in required
            if not covered(each.rule, hold, header.user, header.agent)
        ),
        None,
    )


def _lacking(required: tuple[RequiredHold, ...], hold: Hold, header: Header) -> Failure | None:
    short = _short(required, hold, header)
    if short is None:
        return None
    by = "released by " + (", ".join(a.id for a in hold.approvers) or "nobody who counts")
    return Failure(
        Reason.STEP_UP, f"step_up.{short.id}", by, f"{short.whom}, who saw this rule"
    )


def _unreachable(core: Core, case: Case, required: tuple[RequiredHold, ...]) -> Failure | None:
    """Why the user cannot be asked at all, where nobody but they must say yes; None where they
    can, or others are asked.
    """
    tenant = case.run.header.tenant
    who = core.answerers
    if (
        asked(required) != "confirm"
        or case.workflow.agent.in_process
        or core.identities is not None
        or who.asks(tenant)
    ):
        return None
    rule = f"{case.workflow.file}:{required[0].rule.line}"
    expected = (
        f"answer_keys of tenant {tenant} (or passkeys, identity, or a root): a way "
        "for the user to answer"
    )
    return Failure(
        Reason.STEP_UP,
        f"step_up.{required[0].rule.id}",
        "no way to ask the user",
        expected,
        rule=rule,
    )


def _new_hold(minting: Minting, used: tuple[int, ...], lost: float) -> Hold:
    case = minting.case
    made = minting.digest
    call = case.call
    header = case.run.header
    required = minting.answer.holds
    tool = case.workflow.tools[call.tool]
    args = flat(tool, call.args)
    shown = {
        name: "(masked)" if name in args and tool.args[name].sensitive else args.get(name, [])
        for name in shown_names(required, tool.args)
        if name in args or emptied(name, call.args)
    }
    opened = round(time.time(), 3)
    expires = round(opened + min(hold.rule.timeout for hold in required), 3)
    question = question_of(
        case, minting.answer, used, made=made, opened=opened, deadline=expires
    )
    hold = Hold(
        id=made,
        tenant=header.tenant,
        run=header.id,
        tool=call.tool,
        tool_call_id=call.id,
        rules=tuple(hold.rule.id for hold in required),
        shown=shown,
        why=question.why,
        expires_at=expires,
        question=replace(question, attempted=lost),
        conversation=header.named_by_host,
    )
    return replace(hold, seal=minting.view.core.answerers.seal(hold))


def _sensitive(case: Case) -> bytes:
    """The sensitive arguments, as text: kept apart, for whoever must judge them
    (`agentgate.gate.holds.answer.reveal`).
    """
    tool = case.workflow.tools[case.call.tool]
    args = flat(tool, case.call.args)
    return canonical(
        {
            name: shown_text(args[name])
            for name, rule in tool.args.items()
            if rule.sensitive and name in args
        }
    )


def with_words(core: Core, hold: Hold, run: RunState) -> Hold:
    """The hold, in whose question the user's words stand, and what they answer: they are kept
    with the run only.
    """
    words = said(map(core.readings.turn, run.turns[-MAX_SAID:]))
    return replace(
        hold,
        question=replace(
            hold.question,
            words=words,
            agent_said=shown_text(run.agent_said) if run.agent_said else "",
        ),
    )
