"""The steps of a gate, as generators that yield what they need from outside: a store operation or an audit record.

Rules: one flow, two shells. `Gate` and `AsyncGate` drive the same generators, so that there is one order of steps: decide, settle in one
script, record durably, only then sign. The driver holds the call's one deadline. Whatever fails on the way is a `Deny` with a closed
reason; a token is built last, and `Allow` nowhere else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Mapping
from typing import Any

from agentgate.decision import caller
from agentgate.decision.answer import Allow, Decision, Deny, Eligible, Reservation
from agentgate.decision.case import Case
from agentgate.decision.checks import judge
from agentgate.errors import AuditUnavailable, CanonicalError, ConfigError, KeyRefused, NameRefused, StoreUnavailable
from agentgate.gate.core import Core, decided, deny, read, reasons_of, seen, stamp
from agentgate.gate.release import released
from agentgate.gate.state import header_bytes, missing
from agentgate.gate.terms import txn
from agentgate.gate.view import View
from agentgate.language.prompt import MAX_TURN
from agentgate.shell.step import Flow, Step
from agentgate.stores import ops
from agentgate.token.mint import binding, mint, new_jti
from agentgate.values.canonical import canonical
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Agent, Args, Call, Header, RunState, User
from agentgate.values.turns import Spoken, turn_text
from agentgate.workflow.model import Tool, Workflow

LEEWAY = 5  # seconds a verifier's clock may differ
SPARE = 5  # seconds a single-use key outlives its token beyond that
MAX_TTL = 24 * 3600
MAX_TURNS = 200  # a gate that has not seen the run yet reads them all
_REREADS = 16  # parallel calls of one run change it; the deadline of a call ends before that many
_MAX_DEFINITION = 256
_KEPT = 2048  # bytes of arguments that a call's record keeps only to explain it


def _refused_input(field: str, got: str, expected: str) -> RunRefused:
    return RunRefused((Failure(Reason.INPUT, field, got, expected),))


def _turn(spoken: Spoken) -> str:
    """A turn as it is stored."""
    try:
        text = turn_text(spoken)
    except ConfigError as error:
        raise _refused_input("prompt", repr(error.got), error.expected) from error
    if len(text) > MAX_TURN or "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise _refused_input("prompt", f"{type(spoken).__name__} of length {len(text)}", f"Unicode text of at most {MAX_TURN} characters")
    return text


def _check_who(tenant: object, user: object, agent: object) -> None:
    known = type(user) is User and all(type(group) is str for group in user.groups)
    if type(tenant) is not str or type(agent) is not Agent or not (user is None or known):
        raise _refused_input("tenant, user or agent", "another type", "text, a User with groups that are text, an Agent")


# --- runs ----------------------------------------------------------------------------------------------------------------
def open_run(core: Core, name: str, *, tenant: str, user: User | None, agent: Agent, prompt: Spoken, ttl: int) -> Flow:
    """Open a run: identity, tenant and workflow decide whether it opens; intents are derived now and decide per call.

    Raises (through the driver):
        RunRefused: with every failing reason. StoreUnavailable, AuditUnavailable: not opened.
    """
    workflow = core.workflow(name)
    text = _turn(prompt)
    _check_who(tenant, user, agent)
    if type(ttl) is not int or not 0 < ttl <= MAX_TTL:
        raise _refused_input("ttl", type(ttl).__name__, f"an int from 1 to {MAX_TTL} seconds")
    now = time.time()
    header = Header(
        "run_" + secrets.token_urlsafe(18),
        tenant,
        user,
        agent,
        workflow.id,
        workflow.version,
        workflow.digest,
        round(now, 3),
        round(now + ttl, 3),
        core.clock().date().isoformat(),
    )
    refused = _opening(core, workflow, header)
    if refused:
        yield stamp("run_refused", header, reasons=reasons_of(refused))
        raise RunRefused(refused)
    op = ops.open_run(tenant, header.id, header_bytes(header), text, ttl * 1000)
    if ops.parse_open_run(op, (yield op)) != "ok":
        raise StoreUnavailable(f"run {header.id}: the store already has a run of this id")
    yield stamp("run_opened", header, expires_at=header.expires_at)
    return (yield from read(core, tenant, header.id))


def _opening(core: Core, workflow: Workflow, header: Header) -> tuple[Failure, ...]:
    """The checks that need no call: a run that could never mint does not open."""
    empty = RunState(header, (), {}, None, (), "")
    case = Case(workflow, empty, Call("", "", b"{}", {}), core.around())
    for check in (caller.check_run, caller.check_tenant, caller.check_agent, caller.check_user, caller.check_hops):
        check(case)
    return tuple(case.denied)


def _takes_back(core: Core, state: RunState, text: str) -> bool:
    """Whether a turn may take back anything that was asked for in this run; where its workflow is gone, it does."""
    try:
        return core.readings.takes_back(core.workflow(state.header.workflow), state, text)
    except RunRefused:
        return True


def change(core: Core, state: RunState, turn: Spoken, *, closing: bool = False) -> Flow:
    """Add a user's turn, or close the run. What takes back voids the run's tokens and holds in the script that stores it.

    Raises (through the driver):
        RunRefused: missing or closed.
    """
    header = state.header
    text = "" if closing else _turn(turn)
    if not closing and len(state.turns) >= MAX_TURNS:
        raise _refused_input("turns", f"{len(state.turns)} turns", f"at most {MAX_TURNS}: open a new run")
    op = (
        ops.close_run(header.tenant, header.id)
        if closing
        else ops.add_turn(header.tenant, header.id, text, takes_back=_takes_back(core, state, text))
    )
    answer = ops.parse_run_change(op, (yield op))
    if answer == "missing":
        raise missing(header.tenant, header.id)
    if answer == "closed" and not closing:
        raise RunRefused((Failure(Reason.RUN_CLOSED, "run", "closed", "an open run"),))
    yield stamp("run_closed" if closing else "turn_added", header)
    return (yield from read(core, header.tenant, header.id, state))


# --- one call ------------------------------------------------------------------------------------------------------------
def authorize(view: View, call: Call) -> Generator[Step, Any, tuple[Decision, RunState]]:
    """Decide one call and, only if everything holds, mint its token; a refusal is a value. Also returns the freshest state of the run.

    A cached state is good enough to allow (the mint script compares its revision), never to deny or to ask a person. Where it is
    probably behind (a token of this run was issued, and will have been redeemed), it is read first, which saves a mint in vain.
    """
    core, state, fresh = view.core, view.state, view.behind
    header = state.header
    try:
        if fresh:
            state = yield from read(core, header.tenant, header.id, state)
        for _ in range(_REREADS):
            case = Case(_in_force(core, header), state, call, core.around())
            answer = judge(case)
            decision: Decision | None = None
            if isinstance(answer, Eligible) and (fresh or not answer.holds):
                decision = yield from _settle(view, case, answer)
            elif isinstance(answer, Deny) and fresh:
                decision = yield from deny(core, header, call, answer.failures, seen(core, case, whole=True))
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


def _in_force(core: Core, header: Header) -> Workflow:
    """The workflow of a run that may still mint: in force as it was when the run was opened."""
    workflow = core.catalog.get(header.workflow)
    if workflow is None or workflow.digest != header.digest:
        got = f"{header.workflow} {header.digest}"
        raise RunRefused((Failure(Reason.WORKFLOW_CHANGED, "workflow", got, "the version the run was opened with, in force now"),))
    if time.time() >= header.expires_at:
        raise RunRefused((Failure(Reason.RUN_EXPIRED, "run", "expired", "a run within its lifetime"),))
    return workflow


def unreadable(view: View, refused: Deny) -> Flow:
    """Record the refusal of a call that has no canonical form. Returns what `authorize` does."""
    return (yield from deny(view.core, view.state.header, Call("(unreadable)", "(unreadable)", b"{}", {}), refused.failures)), view.state


def _settle(view: View, case: Case, answer: Eligible) -> Flow:
    """Holds, then the mint script, then the durable record, then the token. None: the run changed, decide again."""
    core, workflow, state, call = view.core, case.workflow, case.run, case.call
    header, tool = state.header, workflow.tools[call.tool]
    known = seen(core, case, whole=bool(answer.holds))
    terms = view.terms(state, workflow, tool)
    made = terms.digest(call)
    take = None
    if answer.holds:
        release = yield from released(core, case, answer.holds, made=made, known=known)
        if not isinstance(release, ops.HoldTake):
            return release
        take = release
    key = view.key if workflow.token.agent_key and tool.effect != "read" else None
    jkt = key.jkt if key is not None else None
    jti, now, arguments_digest = new_jti(), int(time.time()), call.arguments_digest
    ttl = min(workflow.token.ttl, max(1, int(header.expires_at - now)))
    head = {
        "tool": tool.name,
        "tool_call_id": call.id,
        "args": _kept(tool, call),
        "named": answer.named,
        "facts": terms.facts,
        "txn": txn(made),
        "read": tool.effect == "read",
    }
    boundary = header.agent.boundary
    limits = tuple([terms.take(reservation, len(state.turns)) for reservation in answer.reservations])
    sent = core.history.seen(header.tenant)
    op = ops.mint(
        ops.MintRequest(
            tenant=header.tenant,
            run=header.id,
            revision=state.revision,
            call_digest=made,
            head=canonical(head),
            jti=jti,
            binding=binding(made, terms.audience, jkt),
            ttl_ms=(ttl + LEEWAY + SPARE) * 1000,
            read=tool.effect == "read",
            subjects=terms.subjects,
            limits=limits,
            hold=take,
            same_key=(header.agent.id, boundary.key) if workflow.agent.same_key_as_last_token and boundary else None,
            history=sent,
            unspent=view.unspent.get(made, ""),
        )
    )
    settled = ops.parse_mint(op, (yield op))
    core.history.see(header.tenant, sent, settled.history)
    if settled.kind == "stale":
        return None
    if settled.kind != "ok":
        return (yield from deny(core, header, call, (_refused(settled, answer, workflow),), known))
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
        releases=releases,
    )
    # Promise 1: durable first, then signed. If this fails there is no token, and the same call finds its reservation.
    minted: dict[str, object] = {"call_digest": made, "intent": answer.intent, "jti": jti, "txn": claims.txn, "lineage": settled.lineage}
    minted.update(core.history.note(settled.history))
    if settled.detail == "spent":
        minted["spent"] = True
    if limits:
        minted["limits"] = [_taken(take, reservation, tool) for take, reservation in zip(limits, answer.reservations, strict=True)]
    yield decided("allow", call, header, **minted, releases=releases, reasons=(), **known)
    if tool.redeem == "wrapper":
        view.unspent[made] = jti
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


def _refused(settled: ops.MintReply, answer: Eligible, workflow: Workflow) -> Failure:
    if settled.kind == "limit":
        limit = answer.reservations[int(settled.detail)].limit
        what = f"{limit.tool}.{limit.argument}" if limit.argument else f"calls of {limit.tool}"
        bound = limit.maximum / 10_000 if limit.argument else limit.maximum
        window = "" if limit.every is None else f" every {limit.every} s"
        return Failure(
            Reason.LIMIT, "limits", f"{what} used up", f"at most {bound:g} per {limit.per}{window}", f"{workflow.file}:{limit.line}"
        )
    if settled.detail == "lost":
        return Failure(Reason.OUTCOME_UNKNOWN, "call", "of a lost history", "a store that has lost nothing (agentgate store reconcile)")
    reason, field, expected = _REFUSED[settled.kind]
    return Failure(reason, field, f"{settled.kind} {settled.detail}".strip(), expected)


def checked_call(tool: str, args: Args, tool_call_id: str, definition: str) -> Call | Deny:
    """A canonical call, or the refusal of one that has no canonical form; the refusal shows no value of an argument."""
    if type(definition) is not str or len(definition) > _MAX_DEFINITION or not definition.isascii():
        return Deny((Failure(Reason.INPUT, "definition", type(definition).__name__, "sha256:... or empty"),))
    try:
        return Call.of(tool, args, tool_call_id, definition)
    except CanonicalError as error:
        return Deny((Failure(Reason.INPUT, ascii(error.field)[1:-1][:100], "no canonical form", error.expected),))
    except (TypeError, ValueError, AttributeError) as error:
        return Deny((Failure(Reason.INPUT, "args", type(error).__name__, "a mapping with a canonical form"),))
