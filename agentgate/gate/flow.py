"""The steps of a gate, as generators that yield what they need from outside: a store operation,
an audit record, or work outside.

Rules: one flow, two shells. `Gate` and `AsyncGate` drive the same generators, so that there is
one order of steps: decide, settle in one script, record durably, only then sign. A call that
who asks redeems, too, is recorded first, and one script settles and redeems it (docs/adr-0041).
The driver holds the call's one deadline. Whatever fails on the way is a `Deny` with a closed
reason; a token is built last, and `Allow` nowhere else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from agentgate.decision.answer import Allow, Decision, Deny, Eligible, StepUp
from agentgate.decision.case import Case
from agentgate.decision.versions import Versions, judged
from agentgate.errors import (
    AuditUnavailable,
    CanonicalError,
    KeyRefused,
    NameRefused,
    Refusal,
    StoreUnavailable,
    TokenRefused,
)
from agentgate.gate.core import Core, form_of, read_again, seen, surroundings
from agentgate.gate.denial import deny
from agentgate.gate.holds.memory import Recalled, add_memory
from agentgate.gate.holds.release import find_release
from agentgate.gate.minting import Minting, Release
from agentgate.gate.observing import observe
from agentgate.gate.state import ENDED, run_state
from agentgate.gate.view import Seen, Settled, View, WithCall, template_of
from agentgate.identity.connection import Connection
from agentgate.redemption.credential import Redemption
from agentgate.redemption.outcome import not_run
from agentgate.redemption.steps import record_redemption, redemption_record
from agentgate.shell.drive import CALL_SECONDS, apart
from agentgate.shell.spans import UNKNOWN_TOOL, Attributes, call_attributes, spanned
from agentgate.shell.step import Flow, Room, Step
from agentgate.stores import ops
from agentgate.token.mint import new_jti
from agentgate.values.refusal import Failure, Failures, Reason, RunRefused
from agentgate.values.request import Args, Call, Header, RunState
from agentgate.values.value_class import Json
from agentgate.workflow.model import Limit

# seconds of a processor for one decision; then the store is no longer asked
LATE = CALL_SECONDS - 0.05
# parallel calls of one run change it; the deadline of a call ends before that many
_REREADS = 16
_MAX_DEFINITION = 256

_ELSEWHERE = Failure(
    Reason.RUN_ELSEWHERE,
    "run",
    "a run in which acts may be lost: another gate's, from before the store started anew, or "
    "a replica or dump followed the store lately",
    "the gate that opened it, a new run, or a store that keeps what it acknowledges "
    "(agentgate doctor tells the cause, and its end)",
)
_NEVER_AT_REST = Failure(Reason.STORE, "run", "changed during every try", "a run at rest")


Deciding = Generator[Step, Any, tuple[Settled, Seen]]


# --- one call ---------------------------------------------------------------------------------
def authorize(
    view: View, call: Call, connection: Connection | None, *, redeems: bool
) -> Deciding:
    """`decided_on`, in a span."""
    steps = decided_on(view, call, connection, redeems=redeems)
    return _in_span(view, call, "authorize", steps, lambda answer: _ended(answer[0]))


def _in_span(
    view: View,
    call: Call,
    what: str,
    steps: Flow,
    ended: Callable[[Any], tuple[Attributes, str]],
) -> Flow:
    """The steps in a span that says of which call they are."""
    if view.core.tracing is None:
        return steps
    header = view.state.header
    name = call.tool if view.tool(call.tool) is not None else UNKNOWN_TOOL
    said = call_attributes(name, call.id, header.agent.id, header.workflow, header.version)
    return spanned(view.core.tracing, f"{what} {name}", said, steps, ended)


def _ended(decision: Settled | Performed | None) -> tuple[Attributes, str]:
    """What a span says of a decision; None: the run changed, and it is decided again."""
    if decision is None:
        return {}, "stale"
    error = str(decision.reasons[0]) if isinstance(decision, Deny) else ""
    said = type(decision).__name__ if isinstance(decision, Deny | StepUp) else "allow"
    return {"agentgate.decision": said.lower()}, error


def decided_on(
    view: View, call: Call, connection: Connection | None, *, redeems: bool
) -> Deciding:
    """Decide one call and, only if everything holds, mint its token; a refusal is a value. Also
    returns the freshest state of the run.

    `redeems`: a call that needs no token, since who asks runs its tool, is redeemed instead.

    A cached state is good enough to allow (the mint script compares its revision), never to
    deny or to ask a person. Where it is probably behind (a token of this run was issued, and
    will have been redeemed), it is read first, which saves a mint in vain; not for a call to
    whose decision no other matters.
    """
    core = view.core
    state = view.state
    header = state.header
    apart, fresh = _look_first(view, call)
    whole: RunState | None = None
    recalled: Recalled = {}
    jti = new_jti()
    named: Json = {"jti": jti} if redeems else {}  # of one jti the last counts
    try:
        if fresh:
            state = yield from read_again(core, state)
        for _ in range(_REREADS):
            versions, case, answer = yield from considered(
                core, whole or state, call, connection, fresh=fresh, recalled=recalled
            )
            if isinstance(answer, Deny) and fresh and whole is None:
                waiting = yield from _waiting(core, state, call)
                if waiting is not None:
                    whole, call = waiting
                    continue
            decision: Decision | Performed | str | None = None
            if isinstance(answer, Eligible) and (fresh or not answer.holds):
                alone = apart and versions.newer is None  # none came into force meanwhile
                minting = Minting.of(
                    view, versions, case, answer, jti=jti, named=named, apart=alone
                )
                steps = _settle(minting, fresh=fresh, performs=redeems and minting.stays)
                decision = yield from _in_span(view, call, "mint", steps, _ended)
                if decision is None:  # what was recalled may be forgotten
                    recalled.clear()
            elif isinstance(answer, Deny) and (fresh or Reason.OVERLOAD in answer.reasons):
                known = seen(core, versions, case, _digest_of(view, case), **named)
                decision = yield from deny(core, header, call, answer.failures, known)
            if isinstance(decision, str):
                call = replace(call, id=decision)
                continue
            if decision is not None and core.catalog.observed:
                observe(core, versions, state, case, answer)
            if isinstance(decision, Performed):
                done, record, revision = decision
                return done, WithCall(
                    state, record, revision, versions.opened
                ) if revision else state
            if decision is not None:
                return decision, state
            state = yield from read_again(core, state)
            fresh = True
            whole = None
        failures: Failures = (_NEVER_AT_REST,)
    except RunRefused as error:
        failures = error.failures
    except (StoreUnavailable, NameRefused, CanonicalError, KeyRefused) as error:
        failures = (_hindered_by(error),)
    except AuditUnavailable as error:
        expected = "a durable audit record before any token"
        return Deny((Failure(Reason.AUDIT, "audit", str(error), expected),)), state
    return (yield from deny(core, header, call, failures, named)), state


def _look_first(view: View, call: Call) -> tuple[bool, bool]:
    """Whether a call is decided apart from the run's others, and whether the run is read before
    it is decided.
    """
    header = view.state.header
    behind = view.behind
    apart = behind and is_alone(view.core, header, call.tool)
    now = time.time()
    # another handle may have renewed it
    renewed = header.ends <= now and (now < header.expires_at or header.conversation != "")
    return apart, (behind and not apart) or renewed


def is_alone(core: Core, header: Header, name: str) -> bool:
    """Whether a tool's calls are decided, under the one version that there is, whatever other
    calls the run has (`form_of`).
    """
    versions = core.in_force.known(header)
    if versions is None or versions.newer is not None or core.catalog.observed:
        return False
    tool = versions.opened.tools.get(name)
    return tool is not None and form_of(core, versions, versions.opened, tool).alone


def _hindered_by(error: Exception) -> Failure:
    """Why a call is refused that could not be decided, or not be minted for."""
    if isinstance(error, CanonicalError):  # the record of a call is larger than the call itself
        return Failure(Reason.INPUT, "call", "no canonical form", error.expected)
    if isinstance(error, KeyRefused):
        return Failure(Reason.STORE, "keys", str(error), "a signing key")
    return Failure(Reason.STORE, "store", str(error), "a state store that answers in time")


def _waiting(core: Core, state: RunState, call: Call) -> Flow:
    """A call of an earlier run of the conversation that waits or was released, as it was made,
    and all runs as one; None: it does not.
    """
    header = state.header
    if not header.succession:
        return None
    name = yield ops.waiting_call(header.tenant, header.id, call.act)
    if not name:
        return None
    record = yield ops.read_run(header.tenant, header.id)
    workflow = yield from core.in_force.own(header)
    whole = run_state(
        header.tenant,
        header.id,
        record=record,
        workflow=workflow,
        readings=core.readings,
        whole=True,
    )
    return whole, replace(call, id=name)


def considered(
    core: Core,
    state: RunState,
    call: Call,
    connection: Connection | None,
    *,
    fresh: bool = True,
    recalled: Recalled | None = None,
) -> Flow:
    """What is decided of a call, before anything is settled: the versions it was decided under,
    the case and the answer.

    A decision that is late by itself is a refusal, also of what it would have allowed. Only its
    own work counts: a processor that is busy with others must not close a run. `fresh`: a
    refusal is final with its own reasons. `recalled`: what was read for this call of its user's
    memory.

    Raises (through the driver):
        RunRefused: the run has ended, or its version decides nothing here. StoreUnavailable:
        the catalogue of data is too late.
    """
    versions = yield from core.in_force.of(state.header)
    if time.time() >= state.header.ends:
        raise RunRefused((_ended_by(state.header),))
    around = yield from surroundings(core, versions, state.header, call, connection)

    def decide() -> tuple[Versions, Case, Eligible | Deny]:
        began = time.monotonic()
        own = time.thread_time()
        case, answer = judged(versions, state, call, around(), core.readings.intents)
        waited = time.monotonic() - began  # at least as long, and cheaper to ask for
        if (
            waited > LATE
            and (took := time.thread_time() - own) > LATE
            and not (fresh and isinstance(answer, Deny))
        ):
            answer = Deny(
                (
                    Failure(
                        Reason.OVERLOAD,
                        "call",
                        f"{took:.2f} s to decide on it",
                        f"at most {LATE:g} s",
                    ),
                )
            )
        return versions, case, answer

    size = len(call.data) + sum(map(len, state.turns))
    versions, case, answer = yield from apart(size, decide)
    if case.tool is None or not case.tool.remember:
        return versions, case, answer
    reminded = yield from add_memory(
        core, case, answer, state, {} if recalled is None else recalled
    )
    if reminded is state:
        return versions, case, answer
    state = reminded
    return (yield from apart(size, decide))


def _ended_by(header: Header) -> Failure:
    """That a run has ended: where its credentials did first, whoever they are of can sign in
    again.
    """
    return ENDED.with_data(sign_in=header.ends < header.expires_at)


def _digest_of(view: View, case: Case) -> str:
    """The digest of a call; empty: of a tool that its workflow does not have."""
    if case.tool is None:
        return ""
    issuer = view.core.issuer
    template = template_of(view.templates, issuer, case.run.header, case.workflow, case.tool)
    return template.digest(case.call)


def unreadable(view: View, refused: Deny) -> Flow:
    """Record the refusal of a call that has no canonical form. Returns what `authorize`
    does.
    """
    return (
        yield from deny(
            view.core,
            view.state.header,
            Call("(unreadable)", "(unreadable)", b"{}", {}),
            refused.failures,
        )
    ), view.state


class Performed(NamedTuple):
    """A redeemed call, how the store has it, and the run's revision with it; empty: it ran
    before, and may have facts already.
    """

    done: Redemption
    call: ops.CallRecord
    revision: str


def _settle(minting: Minting, *, fresh: bool, performs: bool) -> Flow:
    """What only the store knows, then holds, then the script, which mints or `performs`. None:
    the run changed, decide again.
    """
    run = minting.case.run
    release = Release()
    core = minting.view.core
    if minting.acts and not core.issued.may_act(run) and not minting.repeats:
        return (yield from minting.deny(_ELSEWHERE)) if fresh else None
    if minting.acts and (known := (yield from minting.spent())):
        return (yield from minting.deny(_failure_of(ops.MintReply(known, ""), minting)))
    if minting.answer.holds and not core.enforces(minting.versions.opened, run.header):
        known = {**minting.known, "would": minting.answer.asks}
        return (
            yield from deny(core, run.header, minting.case.call, minting.answer.failures, known)
        )
    if minting.answer.holds:
        release = yield from find_release(minting)
        if not isinstance(release, Release):
            return release
    if release.take is None and time.time() >= run.header.expires_at:
        return (yield from minting.deny(ENDED))
    if minting.ttl < 1:
        return (yield from minting.deny(_ended_by(run.header)))
    key = (yield from minting.key()) if minting.acts else ""
    return (yield from (_perform if performs else _mint)(minting, release, key))


def _refuse(minting: Minting, settled: ops.MintReply) -> Flow:
    """Why the script did nothing. None: the run changed, decide again."""
    return (
        None
        if settled.kind == "stale"
        else (yield from minting.deny(_failure_of(settled, minting)))
    )


def _mint(minting: Minting, release: Release, key: str) -> Flow:
    """The mint script, then the durable record, then the token. None: the run changed, decide
    again.
    """
    head = minting.head(release, key)
    settled: ops.MintReply = yield from minting.reserve(release, head)
    if settled.kind != "ok":
        return (yield from _refuse(minting, settled))
    # Promise 1: durable first, then signed. If this fails there is no token, and the same call
    # finds its reservation.
    draft = minting.draft(release, settled, head)
    yield draft.record
    if minting.template.tool.redeem == "wrapper":
        minting.view.unspent[minting.digest] = minting.jti
    return Allow(draft.sign(minting.view.core.keys.signer(minting.iat)), key)


def _perform(minting: Minting, release: Release, key: str) -> Flow:
    """The durable record of the attempt, then the script, which also redeems. None: the run
    changed, decide again.

    What must never be forgotten of it is durable before the tool runs. Where that, or the
    script's answer, is missing, it does not run.
    """
    core = minting.view.core
    head = minting.head(release, key)
    yield minting.record(release, performed=True)
    yield Room()
    try:
        settled: ops.MintReply = yield from minting.reserve(release, head, redeems=True)
    except StoreUnavailable as error:  # it may be redeemed
        yield from not_run(minting.claims(release, "", head), attempt=minting.jti)
        return (yield from minting.deny(_hindered_by(error)))
    if settled.kind != "ok":
        return (yield from _refuse(minting, settled))
    first = settled.head  # of a read that ran before
    head = first or head
    drafted = minting.redeemed.get((settled.lineage, head))
    claims = drafted.claims if drafted else minting.claims(release, settled.lineage, head)
    record = None
    if settled.counted:
        noted: Json = core.history.note(settled.redemptions, minting.audience)
        if settled.detail == "spent":
            noted |= {**core.history.note(settled.history), "spent": True}
        record = redemption_record(claims, noted)
    data = minting.case.call.data
    try:
        done: Redemption = yield from record_redemption(
            record, claims, data, head, core.tracing, drafted=drafted
        )
    except TokenRefused as error:
        reason = Reason.AUDIT if error.code is Refusal.AUDIT else Reason.STORE
        return (yield from minting.deny(error.failure(reason=reason)))
    call = ops.CallRecord(
        digest=minting.digest,
        head=head,
        status="redeemed",
        redeemed_at=settled.redeemed_at,
        facts=None,
        outcome="",
        gen=settled.lineage,
    )
    done.ends = partial(minting.view.follow, call, minting.versions.opened)
    if minting.template.tool.unreferenced:
        done.queue = core.queue
    return Performed(done, call, "" if first else settled.revision)


_REFUSED: Mapping[str, tuple[Reason, str, str]] = {
    "missing": (Reason.RUN_MISSING, "run", "an open run"),
    "closed": (Reason.RUN_CLOSED, "run", "an open run"),
    "locked": (
        Reason.RUN_BUSY,
        "run",
        "one resume of the conversation at a time: again when the other is over",
    ),
    "revoked": (Reason.REVOKED, "revocations", "nothing of this call revoked"),
    "already_redeemed": (Reason.ALREADY_REDEEMED, "call", "a call that did not run yet"),
    "failed": (
        Reason.FAILED,
        "call",
        "a call that may run again: a read runs again three times",
    ),
    "outcome_unknown": (Reason.OUTCOME_UNKNOWN, "call", "a call whose outcome is known"),
    "hold": (Reason.STEP_UP, "hold", "a release for exactly this call"),
    "key_changed": (
        Reason.BOUNDARY,
        "agent.boundary.key",
        "the key of this account's last token",
    ),
    "full": (
        Reason.LIMIT,
        "run",
        "at most 500 stored calls: the user's next words begin another run",
    ),
    "full_of_acts": (Reason.LIMIT, "run", "at most 500 stored acts: another conversation"),
}
_ROOM_AGAIN = {"full": "next_turn", "full_of_acts": "end_of_conversation"}


def _failure_of(settled: ops.MintReply, minting: Minting) -> Failure:
    versions = minting.versions
    if settled.kind == "closed" and settled.detail == "denials":
        return Failure(Reason.TOO_MANY_DENIALS, "run", "closed", "an open run")
    if settled.kind == "limit":
        reservation = minting.answer.reservations[int(settled.detail)]
        limit = reservation.limit
        until = _until(limit) if reservation.amount <= limit.maximum else ""
        rule = f"{versions.file_of(limit, minting.template.tool.name)}:{limit.line}"
        return Failure(
            Reason.LIMIT,
            "limits",
            f"{limit.counted} used up",
            limit.bound,
            rule=rule,
            data={"until": until} if until else {},
        )
    if settled.detail == "lost":
        return Failure(
            Reason.OUTCOME_UNKNOWN,
            "call",
            "of a lost history",
            "a store that has lost nothing (agentgate store reconcile)",
        )
    reason, field, expected = _REFUSED[settled.kind]
    asks = next(
        (each for each in versions.each if each.agent.same_key_as_last_token), versions.opened
    )
    rule = f"{asks.file}:{asks.agent.line}" if settled.kind == "key_changed" else ""
    room = _ROOM_AGAIN.get(settled.kind)
    if room and not minting.template.header.conversation:
        room = "end_of_run"
    data = {"until": room, "full": True} if room else {}
    got = f"{settled.kind} {settled.detail}".strip()
    return Failure(reason, field, got, expected, rule=rule, data=data)


def _until(limit: Limit) -> str:
    """When, at the latest, there is room in a limit of this run or turn again; of others' work
    a model is told nothing.
    """
    if not limit.is_of_run:
        return ""
    if limit.every is None:
        return "next_turn" if limit.per == "turn" else "end_of_run"
    at = math.ceil(time.time() + limit.every * (1 + 1 / 60))
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def checked_call(tool: str, args: Args, tool_call_id: str, definition: str) -> Call | Deny:
    """A canonical call, or the refusal of one that has no canonical form; the refusal shows no
    value of an argument.
    """
    if (
        type(definition) is not str
        or len(definition) > _MAX_DEFINITION
        or not definition.isascii()
    ):
        expected = "sha256:... or empty"
        failure = Failure(Reason.INPUT, "definition", type(definition).__name__, expected)
        return Deny((failure,))
    try:
        return Call.of(tool, args, tool_call_id, definition)
    except CanonicalError as error:
        field = ascii(error.field)[1:-1][:100]
        data = {} if field in {"tool", "tool_call_id"} else {"argument": field}
        failure = Failure(Reason.INPUT, field, "no canonical form", error.expected, data=data)
    except (TypeError, ValueError, AttributeError) as error:
        expected = "a mapping with a canonical form"
        failure = Failure(Reason.INPUT, "args", type(error).__name__, expected)
    return Deny((failure,))
