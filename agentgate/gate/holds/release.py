"""Holds in the store: what a held call answers, and the release that its mint spends.

Rules: `agentgate.decision.hold` says who may answer and which state follows. A hold whose user took back
opens anew. A release is compared with the rules that ask now, and the mint script spends it only as it was read here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from agentgate.decision.answer import Eligible, RequiredHold, StepUp, asked
from agentgate.decision.case import Case
from agentgate.decision.hold import Hold, covered
from agentgate.explain.asking import MAX_SAID, because, question_of, said, shown_names, shown_text
from agentgate.gate.core import Core, decided, deny, reasons_of
from agentgate.gate.holds.codec import body_of, event_of, hold_of
from agentgate.shell.step import Flow
from agentgate.stores import ops
from agentgate.values.canonical import canonical, digest
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import RunState
from agentgate.workflow.nested import emptied, flat

RUNS_AT_ONCE = 20  # so many times the open holds of a run may one user have open, in whatever runs


class Released(NamedTuple):
    """The release to spend, and how those who gave it are known: proven or in_process."""

    take: ops.HoldTake
    approver: str


def released(
    core: Core,
    case: Case,
    answer: Eligible,
    *,
    made: str,
    known: Mapping[str, object],
    limits: tuple[ops.LimitTake, ...],
    audience: str,
) -> Flow:
    """The release to spend, or the `StepUp` or `Deny` that answers the call instead; `known` goes on record with either.

    `limits`: what each of the answer's reservations takes; `audience`: as of the mint.
    """
    call, header, required = case.call, case.run.header, answer.holds
    record: ops.HoldRecord | None = yield ops.read_hold(header.tenant, made)
    if record is None or record.state == "cancelled":
        unreachable = _unreachable(core, case, required)
        if unreachable is not None:
            return (yield from deny(core, header, call, (unreachable,), known))
        times = [hold.rule.timeout * 1000 for hold in required]
        used: tuple[int, ...] = (yield ops.read_limits(header.tenant, header.id, limits)) if limits else ()
        new, act = _new_hold(core, case, answer, made, used), digest(canonical([call.tool, call.arguments_digest]))
        life, kept = 2 * max(times), _sensitive(case)
        most, body = core.budgets.holds, body_of(new)
        op = ops.open_hold(
            *(header.tenant, header.id, made, body),
            audience=audience,
            act=act,
            ttl_ms=life,
            answer_ms=min(times),
            most=most,
            whose=header.whose,
            most_own=most * RUNS_AT_ONCE,
            asks=[("user", header.user.id if header.user else "") if hold.rule.user else ("group", hold.rule.group) for hold in required],
            sensitive=kept,
        )
        record = yield op
        if record is None:
            expected = f"fewer than {most} open holds in one run, and {most * RUNS_AT_ONCE} of one user; and a group with room for more"
            refused = Failure(Reason.TOO_MANY_HOLDS, "run", "too many open holds", expected)
            return (yield from deny(core, header, call, (refused,), known))
        if record is ops.COOLING:
            refused = Failure(Reason.HOLD_REFUSED, "hold", "a person refused this act a while ago", "another act, or later")
            return (yield from deny(core, header, call, (refused,), known))
        if not hold_of(record).approvers and record.body == body:
            core.notifier.wake(header.tenant)
    yield from core.answerers.fresh()
    hold = core.answerers.standing(hold_of(record), in_process=case.workflow.agent.in_process)
    status = hold.state_at(time.time())
    if status == "pending" and all(covered(each.rule, hold, header.user, header.agent) for each in required):
        # whoever answered last could not tell (a terminal has no gate's keys): here every yes is proven
        last = hold.approvers[-1]
        told = event_of(last.id, last.channel, "release", "released")
        if (yield ops.answer_hold(header.tenant, made, record.revision, record.body, "released", event=told)) == "ok":
            core.notifier.wake(header.tenant)
            record = (yield ops.read_hold(header.tenant, made)) or record
            hold = replace(hold, state=record.state, revision=record.revision)
            status = hold.state_at(time.time())
    failure = None
    if status == "refused":
        failure = Failure(Reason.HOLD_REFUSED, "hold", "a person refused this call", "a released hold")
    elif status == "expired":
        failure = Failure(Reason.HOLD_EXPIRED, "hold", "nobody answered in time", "a released hold")
    elif status == "pending":
        why = tuple(f for each in required for f in each.why)
        rules = [each.rule.id for each in required]
        asks = asked(required)
        yield decided(asks, call, header, call_digest=made, hold=made, rules=rules, reasons=reasons_of(why), **known)
        return StepUp(with_words(core, hold, case.run), why, asks == "confirm")
    else:
        short = next((each.rule for each in required if not covered(each.rule, hold, header.user, header.agent)), None)
        if short is not None:
            by = "released by " + (", ".join(a.id for a in hold.approvers) or "nobody who counts")
            failure = Failure(Reason.STEP_UP, f"step_up.{short.id}", by, f"{short.whom}, who saw this rule")
    if failure is not None:
        return (yield from deny(core, header, call, (failure,), known))
    how = "proven" if all(a.identity == "proven" for a in hold.approvers) else "in_process"
    return Released(ops.HoldTake(made, record.revision, tuple(a.id for a in hold.approvers)), how)


def _unreachable(core: Core, case: Case, required: tuple[RequiredHold, ...]) -> Failure | None:
    """Why the user cannot be asked at all, where nobody but they must say yes; None where they can, or others are asked."""
    tenant, who = case.run.header.tenant, core.answerers
    if asked(required) != "confirm" or case.workflow.agent.in_process or core.identities is not None or who.asks(tenant):
        return None
    rule = f"{case.workflow.file}:{required[0].rule.line}"
    expected = f"answer_keys of tenant {tenant} (or passkeys, identity, or a root): a way for the user to answer"
    return Failure(Reason.STEP_UP, f"step_up.{required[0].rule.id}", "no way to ask the user", expected, rule)


def _new_hold(core: Core, case: Case, answer: Eligible, made: str, used: tuple[int, ...]) -> Hold:
    call, header, required = case.call, case.run.header, answer.holds
    tool = case.workflow.tools[call.tool]
    names, args = shown_names(required, tool.args), flat(tool, call.args)
    shown = {name: "(masked)" if tool.args[name].sensitive else args[name] for name in names if name in args}
    shown |= {name: [] for name in names if name not in args and emptied(name, call.args)}
    opened = round(time.time(), 3)
    expires = round(opened + min(hold.rule.timeout for hold in required), 3)
    question = question_of(case, answer, used, made=made, opened=opened, deadline=expires)
    why = tuple(because([f for hold in required for f in hold.why], names))
    rules = tuple(hold.rule.id for hold in required)
    hold = Hold(made, header.tenant, header.id, call.tool, call.id, rules, shown, why, expires, question)
    return replace(hold, seal=core.answerers.seal(hold))


def _sensitive(case: Case) -> bytes:
    """The sensitive arguments, as text: kept apart, for whoever must judge them (`agentgate.gate.holds.answer.reveal`)."""
    tool = case.workflow.tools[case.call.tool]
    args = flat(tool, case.call.args)
    return canonical({name: shown_text(args[name]) for name, rule in tool.args.items() if rule.sensitive and name in args})


def with_words(core: Core, hold: Hold, run: RunState) -> Hold:
    """The hold, in whose question the user's words stand, and what they answer: they are kept with the run only."""
    words = said(map(core.readings.turn, run.turns[-MAX_SAID:]))
    return replace(hold, question=replace(hold.question, words=words, agent_said=shown_text(run.agent_said) if run.agent_said else ""))
