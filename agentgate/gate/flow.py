"""The steps of a gate, as generators that yield what they need from outside: a store operation, an audit record, or work outside.

Rules: one flow, two shells. `Gate` and `AsyncGate` drive the same generators, so that there is one order of steps: decide, settle in one
script, record durably, only then sign. The driver holds the call's one deadline. Whatever fails on the way is a `Deny` with a closed
reason; a token is built last, and `Allow` nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any

from agentgate.decision.answer import Allow, Decision, Deny, Eligible, Reservation
from agentgate.decision.case import Case
from agentgate.decision.versions import Versions, judged
from agentgate.errors import AuditUnavailable, CanonicalError, KeyRefused, NameRefused, StoreUnavailable
from agentgate.gate.core import Core, decided, deny, read, seen, surroundings
from agentgate.gate.holds.release import Released, released
from agentgate.gate.terms import txn
from agentgate.gate.view import View
from agentgate.identity.connection import Connection
from agentgate.shell.drive import CALL_SECONDS
from agentgate.shell.readers import apart
from agentgate.shell.spans import UNKNOWN_TOOL, call_attributes, spanned
from agentgate.shell.step import Flow, Step
from agentgate.stores import history_name, ops
from agentgate.token.mint import binding, mint, new_jti
from agentgate.values.canonical import canonical, digest
from agentgate.values.identities import name_of
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Args, Call, RunState
from agentgate.values.times import duration
from agentgate.workflow.model import Tool

LATE = CALL_SECONDS - 0.05  # seconds of a processor for one decision; then the store is no longer asked
LEEWAY = 5  # seconds a verifier's clock may differ
SPARE = 5  # seconds a single-use key outlives its token beyond that
_REREADS = 16  # parallel calls of one run change it; the deadline of a call ends before that many
_MAX_DEFINITION = 256
_KEPT = 2048  # bytes of arguments that a call's record keeps only to explain it


_ELSEWHERE = Failure(
    Reason.RUN_ELSEWHERE,
    "run",
    "a run in which acts may be lost: another gate's, from before the store started anew, or a replica or dump followed the store lately",
    "the gate that opened it, a new run, or a store that keeps what it acknowledges (agentgate doctor tells the cause, and its end)",
)
_ENDED = Failure(Reason.RUN_EXPIRED, "run", "expired", "a run within its lifetime, and that of its credentials (run.renew)")


# --- one call ------------------------------------------------------------------------------------------------------------
def authorize(view: View, call: Call, connection: Connection | None = None) -> Generator[Step, Any, tuple[Decision, RunState]]:
    """`decided_on`, in a span."""
    steps = decided_on(view, call, connection)
    if view.core.tracing is None:
        return steps
    name, said = _told(view, call)
    return spanned(view.core.tracing, f"authorize {name}", said, steps, lambda answer: _ended(answer[0]))


def _told(view: View, call: Call) -> tuple[str, Mapping[str, str | int]]:
    """How a call is named in spans, and what they say of it."""
    header, name = view.state.header, call.tool if view.tool(call.tool) is not None else UNKNOWN_TOOL
    return name, call_attributes(name, call.id, header.agent.id, header.workflow, header.version)


def _ended(decision: Decision | None) -> tuple[Mapping[str, str | int], str]:
    """What a span says of a decision; None: the run changed, and it is decided again."""
    if decision is None:
        return {}, "stale"
    error = str(decision.reasons[0]) if isinstance(decision, Deny) else ""
    return {"agentgate.decision": type(decision).__name__.lower()}, error


def decided_on(view: View, call: Call, connection: Connection | None = None) -> Generator[Step, Any, tuple[Decision, RunState]]:
    """Decide one call and, only if everything holds, mint its token; a refusal is a value. Also returns the freshest state of the run.

    A cached state is good enough to allow (the mint script compares its revision), never to deny or to ask a person. Where it is
    probably behind (a token of this run was issued, and will have been redeemed), it is read first, which saves a mint in vain.
    """
    core, state, header = view.core, view.state, view.state.header
    fresh = view.behind or header.ends <= time.time() < header.expires_at  # another handle may have renewed it
    try:
        if fresh:
            state = yield from read(core, header.tenant, header.id, state)
        for _ in range(_REREADS):
            versions, case, answer = yield from considered(core, state, call, connection, fresh=fresh)
            decision: Decision | None = None
            if isinstance(answer, Eligible) and (fresh or not answer.holds):
                name, said = _told(view, call) if core.tracing is not None else ("", {})
                decision = yield from spanned(
                    core.tracing, f"mint {name}", said, _settle(view, versions, case, answer, fresh=fresh), _ended
                )
            elif isinstance(answer, Deny) and (fresh or Reason.OVERLOAD in answer.reasons):
                decision = yield from deny(core, header, call, answer.failures, {**seen(core, case, whole=True), **_also(versions)})
            if decision is not None:
                return decision, state
            state, fresh = (yield from read(core, header.tenant, header.id, state)), True
        failures: tuple[Failure, ...] = (Failure(Reason.STORE, "run", "changed during every try", "a run at rest"),)
    except RunRefused as error:
        failures = error.failures
    except (StoreUnavailable, NameRefused) as error:
        failures = (Failure(Reason.STORE, "store", str(error), "a state store that answers in time"),)
    except CanonicalError as error:  # the record of a call is larger than the call itself
        failures = (Failure(Reason.INPUT, "call", "no canonical form", error.expected),)
    except KeyRefused as error:
        failures = (Failure(Reason.STORE, "keys", str(error), "a signing key"),)
    except AuditUnavailable as error:
        return Deny((Failure(Reason.AUDIT, "audit", str(error), "a durable audit record before any token"),)), state
    return (yield from deny(core, header, call, failures)), state


def considered(core: Core, state: RunState, call: Call, connection: Connection | None, *, fresh: bool = True) -> Flow:
    """What is decided of a call, before anything is settled: the versions it was decided under, the case and the answer.

    A decision that is late by itself is a refusal, also of what it would have allowed. Only its own work counts: a processor that is busy
    with others must not close a run. `fresh`: a refusal is final with its own reasons.

    Raises (through the driver):
        RunRefused: the run has ended, or its version decides nothing here. StoreUnavailable: the catalogue of data is too late.
    """
    versions = yield from core.in_force.of(state.header)
    if time.time() >= state.header.ends:
        raise RunRefused((_ENDED,))
    around = yield from surroundings(core, versions, state.header, call, connection)

    def decide() -> tuple[Versions, Case, Eligible | Deny]:
        began = time.thread_time()
        case, answer = judged(versions, state, call, around(), core.readings.intents)
        if (took := time.thread_time() - began) > LATE and not (fresh and isinstance(answer, Deny)):
            answer = Deny((Failure(Reason.OVERLOAD, "call", f"{took:.2f} s to decide on it", f"at most {LATE:g} s"),))
        return versions, case, answer

    return (yield from apart(len(call.data) + sum(map(len, state.turns)), decide))


def _also(versions: Versions) -> Mapping[str, object]:
    """What a record has of the other version that a call was decided under."""
    newer = versions.newer
    return {} if newer is None else {"in_force": {"version": newer.version, "digest": newer.digest}}


def unreadable(view: View, refused: Deny) -> Flow:
    """Record the refusal of a call that has no canonical form. Returns what `authorize` does."""
    return (yield from deny(view.core, view.state.header, Call("(unreadable)", "(unreadable)", b"{}", {}), refused.failures)), view.state


def _settle(view: View, versions: Versions, case: Case, answer: Eligible, *, fresh: bool) -> Flow:
    """Holds, then the mint script, then the durable record, then the token. None: the run changed, decide again."""
    core, workflow, state, call = view.core, case.workflow, case.run, case.call
    header, tool = state.header, workflow.tools[call.tool]
    known = {**seen(core, case, whole=bool(answer.holds)), **_also(versions)}
    terms = view.terms(state, workflow, tool)
    made = terms.digest(call)
    act = tool.effect != "read"
    if act and not core.issued.may_act(state) and all(made != earlier.digest for earlier in state.calls):
        return (yield from deny(core, header, call, (_ELSEWHERE,), known)) if fresh else None
    limits = tuple([terms.take(reservation, len(state.turns)) for reservation in answer.reservations])
    take, approver = None, ""
    if answer.holds:
        release = yield from released(
            core, case, answer, made=made, known=known, limits=limits, audience=terms.audience if state.owned else ""
        )
        if not isinstance(release, Released):
            return release
        take, approver = release.take, release.approver
    key, jkt, x5t = None, None, None
    if tool.redeem == "server" and (own := header.agent.key or view.certificate):  # proven at the door: only the agent holds it
        jkt, x5t = (own, None) if header.agent.key else (None, own)
    elif workflow.token.agent_key and (act or tool.redeem == "server"):  # a token that leaves the process, of a read, too
        key = view.key
        jkt = key.jkt
    jti, now, arguments_digest = new_jti(), int(time.time()), call.arguments_digest
    ttl = min(workflow.token.ttl, int(header.ends) - now)
    if ttl < 1:
        return (yield from deny(core, header, call, (_ENDED,), known))
    head = {
        "tool": tool.name,
        "tool_call_id": call.id,
        "args": _kept(tool, call),
        "named": answer.named,
        "facts": terms.facts,
        "txn": txn(made),
        "read": not act,
    }
    if terms.upstream is not None:
        head["upstream"] = terms.upstream
    account, boundary = name_of(header.agent.id, header.agent.issuer), header.agent.boundary
    audience, written = terms.audience if state.owned else "", canonical(head)
    name = history_name(header.tenant, audience)
    sent, counted = core.history.seen(header.tenant), core.history.seen(name)
    op = ops.mint(
        ops.MintRequest(
            tenant=header.tenant,
            run=header.id,
            revision=state.revision,
            call_digest=made,
            head=written,
            jti=jti,
            binding=binding(made, terms.audience, jkt, x5t),
            ttl_ms=(ttl + LEEWAY + SPARE) * 1000,
            read=not act,
            subjects=terms.subjects,
            limits=limits,
            hold=take,
            same_key=(account, boundary.key) if workflow.agent.same_key_as_last_token and boundary else None,
            history=sent,
            unspent=view.unspent.get(made, ""),
            issued=core.issued.told(header.id, made),
            audience=audience,
            redemptions=counted,
        )
    )
    settled: ops.MintReply = yield op
    if settled.detail == "lost":
        core.issued.tell(header.id, made, settled.history)
    else:
        core.history.see(header.tenant, sent, settled.history)
    core.history.see(name, counted, settled.redemptions)
    if settled.kind == "stale":
        return None
    if settled.kind != "ok":
        return (yield from deny(core, header, call, (_refused(settled, answer, versions, tool),), known))
    releases = (take.hold_id,) if take else ()
    claims = terms.claims(
        call,
        iat=now,
        ttl=ttl,
        jti=jti,
        gen=settled.lineage,
        intent=answer.intent,
        made=made,
        arguments_digest=arguments_digest,
        cnf_jkt=jkt,
        cnf_x5t=x5t,
        releases=releases,
        approver=approver,
        head_digest=digest(settled.head or written) if audience else "",
    )
    # Promise 1: durable first, then signed. If this fails there is no token, and the same call finds its reservation.
    minted: dict[str, object] = {"call_digest": made, "intent": answer.intent, "jti": jti, "txn": claims.txn, "lineage": settled.lineage}
    minted.update(core.history.note(settled.redemptions, audience))
    minted.update(core.history.note(settled.history))
    if settled.detail == "spent":
        minted["spent"] = True
    if approver:
        minted["approver"] = approver
    if limits:
        minted["limits"] = [_taken(take, reservation, tool) for take, reservation in zip(limits, answer.reservations, strict=True)]
    yield decided("allow", call, header, **minted, releases=releases, reasons=(), **known)
    if tool.redeem == "wrapper":
        view.unspent[made] = jti
    if act:
        core.issued.add(header.id, made)
    return Allow(mint(core.keys.signer(now), claims, key))


def _taken(take: ops.LimitTake, reservation: Reservation, tool: Tool) -> dict[str, object]:
    """What a call took of a limit, as its record holds it for `agentgate store reconcile`; a sensitive amount is left out."""
    argument = reservation.limit.argument
    hidden = bool(argument) and tool.args[argument].sensitive
    return {"key": take.key, "amount": None if hidden else take.amount, "every_ms": take.every_ms, "for_run": take.for_run}


def _kept(tool: Tool, call: Call) -> Mapping[str, Any]:
    """The arguments that a call's record keeps.

    All of an act with facts: its result counts as a new id only if the call itself did not contain it. Of other calls, what later ones may
    refer to, and for `explain` what is neither sensitive nor long.
    """
    if tool.effect != "read" and tool.facts:
        return call.args
    short = len(call.data) <= _KEPT
    return {n: v for n, v in call.args.items() if n in tool.referenced or (short and n in tool.args and not tool.args[n].sensitive)}


_REFUSED: Mapping[str, tuple[Reason, str, str]] = {
    "missing": (Reason.RUN_MISSING, "run", "an open run"),
    "closed": (Reason.RUN_CLOSED, "run", "an open run"),
    "revoked": (Reason.REVOKED, "revocations", "nothing of this call revoked"),
    "already_redeemed": (Reason.ALREADY_REDEEMED, "call", "a call that did not run yet"),
    "failed": (Reason.FAILED, "call", "a call that may run again: a read runs again three times"),
    "outcome_unknown": (Reason.OUTCOME_UNKNOWN, "call", "a call whose outcome is known"),
    "hold": (Reason.STEP_UP, "hold", "a release for exactly this call"),
    "key_changed": (Reason.BOUNDARY, "agent.boundary.key", "the key of this account's last token"),
}


def _refused(settled: ops.MintReply, answer: Eligible, versions: Versions, tool: Tool) -> Failure:
    if settled.kind == "closed" and settled.detail == "denials":
        return Failure(Reason.TOO_MANY_DENIALS, "run", "closed", "an open run")
    if settled.kind == "limit":
        limit = answer.reservations[int(settled.detail)].limit
        what = f"{limit.tool}.{limit.argument}" if limit.argument else f"calls of {limit.tool}"
        bound = limit.maximum / 10_000 if limit.argument else limit.maximum
        window = "" if limit.every is None else f" every {duration(limit.every)}"
        place = f"{versions.file_of(limit, tool.name)}:{limit.line}"
        return Failure(Reason.LIMIT, "limits", f"{what} used up", f"at most {bound:g} per {limit.per}{window}", place)
    if settled.detail == "lost":
        return Failure(Reason.OUTCOME_UNKNOWN, "call", "of a lost history", "a store that has lost nothing (agentgate store reconcile)")
    reason, field, expected = _REFUSED[settled.kind]
    asks = next((each for each in versions.each if each.agent.same_key_as_last_token), versions.opened)
    rule = f"{asks.file}:{asks.agent.line}" if settled.kind == "key_changed" else ""
    return Failure(reason, field, f"{settled.kind} {settled.detail}".strip(), expected, rule)


def checked_call(tool: str, args: Args, tool_call_id: str, definition: str) -> Call | Deny:
    """A canonical call, or the refusal of one that has no canonical form; the refusal shows no value of an argument."""
    if type(definition) is not str or len(definition) > _MAX_DEFINITION or not definition.isascii():
        return Deny((Failure(Reason.INPUT, "definition", type(definition).__name__, "sha256:... or empty"),))
    try:
        return Call.of(tool, args, tool_call_id, definition)
    except CanonicalError as error:
        field = ascii(error.field)[1:-1][:100]
        data = {} if field in {"tool", "tool_call_id"} else {"argument": field}
        return Deny((Failure(Reason.INPUT, field, "no canonical form", error.expected, data=data),))
    except (TypeError, ValueError, AttributeError) as error:
        return Deny((Failure(Reason.INPUT, "args", type(error).__name__, "a mapping with a canonical form"),))
