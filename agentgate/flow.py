"""The steps of a gate, as generators that yield what they need from outside: a store operation or an audit record.

Rules: one flow, two shells. `Gate` and `AsyncGate` drive the same generators, so that there is one order of steps: decide,
settle in one script, record durably, only then sign. The driver holds the call's one deadline. Anything that fails on the
way is a `Deny` with a closed reason; a token is built at the very end, and `Allow` nowhere else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from agentgate.canonical import canonical, parse
from agentgate.catalog import Catalog
from agentgate import checks
from agentgate.checks import decide, describe
from agentgate.decision import Allow, Decision, Deny, Eligible, Failure, Reason, RequiredHold, StepUp
from agentgate.errors import AuditUnavailable, CanonicalError, KeyRefused, NameRefused, RunRefused, StoreUnavailable
from agentgate.hold import Approver, Hold, check_approver, covered
from agentgate.intents import Deriver
from agentgate.keys import KeyRing, RunKey
from agentgate.mint import MintClaims, WorkflowRef, binding, call_digest, mint
from agentgate.prompt import MAX_TURN
from agentgate.request import Agent, Call, Header, RunState, Surroundings, User
from agentgate.runs import header_bytes, missing, run_state
from agentgate.stores import ops
from agentgate.stores.ops import Op
from agentgate.workflow import Tool, Workflow

LEEWAY = 5  # seconds a verifier's clock may differ
SPARE = 5  # seconds a single-use key outlives its token beyond that
MAX_TTL = 24 * 3600
_REREADS = 3


class Record(NamedTuple):
    """An audit record that must be durable before the flow goes on."""

    body: Mapping[str, Any]


Step = Op | Record
Flow = Generator[Step, Any, Any]


@dataclass(frozen=True, slots=True)
class Core:
    """What a gate is made of, all of it shared by its flows and none of it changed by them.

    Attributes:
        clock: the decision clock; moves conditions, workflow expiry and relative dates, never token times.
        issuer: the gate's URL; audience of wrapper-redeemed tools that name none.
    """

    catalog: Catalog
    keys: KeyRing
    issuer: str
    derive: Deriver
    clock: Callable[[], datetime]
    environment: str | None
    brokers: frozenset[str]

    def workflow(self, name: str) -> Workflow:
        """The workflow in force under this id, or RunRefused."""
        found = self.catalog.get(name)
        if found is None:
            raise RunRefused((Failure(Reason.WORKFLOW_UNKNOWN, "workflow", repr(name), "the id of a loaded workflow"),))
        return found

    def around(self) -> Surroundings:
        """The decision time and what this gate knows of its surroundings; read once per call."""
        return Surroundings(self.clock(), environment=self.environment, brokers=self.brokers)

    def audience(self, tool: Tool) -> str:
        """The tool server's resource, or this gate's own where the wrapper redeems."""
        return tool.audience or self.issuer


def _subjects(workflow: Workflow, header: Header, tool: str) -> ops.Subjects:
    return ops.Subjects(
        agent=header.agent.id, user=header.user.id if header.user else "", tool=tool, workflow=ops.workflow_subject(workflow.id, workflow.version)
    )


def _stamp(kind: str, header: Header, **more: object) -> Record:
    """An audit record with who, where and which workflow; never a prompt, a token or a raw argument."""
    body = {
        "type": kind,
        "time": round(time.time(), 6),
        "tenant": header.tenant,
        "run": header.id,
        "workflow": {"id": header.workflow, "version": header.version, "digest": header.digest},
        "user": header.user.id if header.user else None,
        "agent": header.agent.id,
        "identity": {"user": header.user.identity if header.user else None, "agent": header.agent.identity},
        **more,
    }
    return Record(body)


def _check_turn(text: str) -> None:
    fits = type(text) is str and len(text) <= MAX_TURN and "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
    if not fits:
        got = f"{type(text).__name__} of length {len(text)}"
        raise RunRefused((Failure(Reason.INPUT, "prompt", got, f"Unicode text of at most {MAX_TURN} characters"),))


# --- runs ----------------------------------------------------------------------------------------------------------------
def open_run(core: Core, name: str, tenant: str, user: User | None, agent: Agent, prompt: str, ttl: int) -> Flow:
    """Open a run: identity, tenant and workflow decide whether it opens; intents are derived now and decide per call.

    Raises (through the driver):
        RunRefused: with every failing reason. StoreUnavailable, AuditUnavailable: not opened.
    """
    workflow = core.workflow(name)
    _check_turn(prompt)
    if type(ttl) is not int or not 0 < ttl <= MAX_TTL:
        raise RunRefused((Failure(Reason.INPUT, "ttl", repr(ttl), f"1 to {MAX_TTL} seconds"),))
    now = time.time()
    header = Header(
        "run_" + secrets.token_urlsafe(18), tenant, user, agent, workflow.id, workflow.version, workflow.digest, round(now, 3), round(now + ttl, 3)
    )
    refused = _opening(core, workflow, header)
    if refused:
        yield _stamp("run_refused", header, reasons=describe(refused))
        raise RunRefused(refused)
    op = ops.open_run(tenant, header.id, header_bytes(header), prompt, ttl * 1000)
    if ops.parse_open_run(op, (yield op)) != "ok":
        raise StoreUnavailable(f"run {header.id}: the store already has a run of this id")
    yield _stamp("run_opened", header, expires_at=header.expires_at)
    return (yield from read(core, tenant, header.id))


def _opening(core: Core, workflow: Workflow, header: Header) -> tuple[Failure, ...]:
    """The checks that need no call: a run that could never mint does not open."""
    empty = RunState(header, (), {}, None, (), "")
    case = checks.Case(workflow, empty, Call("", "", b"{}", {}), core.around())
    for check in (checks.check_run, checks.check_tenant, checks.check_agent, checks.check_user, checks.check_hops):
        check(case)
    return tuple(case.denied)


def read(core: Core, tenant: str, run: str) -> Flow:
    """The run's state and its workflow, from the store.

    Raises (through the driver):
        RunRefused: missing, unreadable, or its workflow is no longer loaded.
    """
    try:
        op = ops.read_run(tenant, run)
    except NameRefused as error:
        raise missing(tenant, run, str(error)) from error
    record = ops.parse_read_run(op, (yield op))
    if record is None:
        raise missing(tenant, run)
    try:
        workflow = core.workflow(parse(record.header)["workflow"])
    except (KeyError, TypeError, ValueError) as error:
        raise missing(tenant, run, "unreadable header") from error
    return run_state(tenant, run, record, workflow, core.derive, core.clock().date())


def change(core: Core, state: RunState, turn: str | None) -> Flow:
    """Add a user's turn (intents are derived again), or close the run (`turn` None).

    Raises (through the driver):
        RunRefused: missing or closed.
    """
    header = state.header
    if turn is not None:
        _check_turn(turn)
    op = ops.close_run(header.tenant, header.id) if turn is None else ops.add_turn(header.tenant, header.id, turn)
    answer = ops.parse_run_change(op, (yield op))
    if answer == "missing":
        raise missing(header.tenant, header.id)
    if answer == "closed" and turn is not None:
        raise RunRefused((Failure(Reason.RUN_CLOSED, "run", "closed", "an open run"),))
    yield _stamp("run_closed" if turn is None else "turn_added", header)
    return (yield from read(core, header.tenant, header.id))


# --- one call ------------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Attempt:
    """What `authorize` leaves for its shell: the decision and the freshest state of the run."""

    decision: Decision
    state: RunState


def authorize(core: Core, state: RunState, call: Call, key: Callable[[], RunKey]) -> Flow:
    """Decide one call and, only if everything holds, mint its token. Returns an `Attempt`; never raises a refusal.

    A cached state is good enough to allow (the mint script compares its revision), never to deny or to ask a person.
    """
    header, fresh = state.header, False
    try:
        for _ in range(_REREADS):
            workflow = core.catalog.get(header.workflow)
            if workflow is None or workflow.digest != header.digest:
                failure = Failure(Reason.WORKFLOW_CHANGED, "workflow", f"{header.workflow} {header.digest}", "the version the run was opened with, in force now")
                return Attempt((yield from _deny(header, call, (failure,))), state)
            if time.time() >= header.expires_at:
                return Attempt((yield from _deny(header, call, (Failure(Reason.RUN_EXPIRED, "run", "expired", "a run within its lifetime"),))), state)
            around = core.around()
            answer = decide(workflow, state, call, around)
            if not fresh and (isinstance(answer, Deny) or answer.holds):
                state, fresh = (yield from read(core, header.tenant, header.id)), True
                continue
            if isinstance(answer, Deny):
                return Attempt((yield from _deny(header, call, answer.failures)), state)
            settled = yield from _settle(core, workflow, state, call, answer, key)
            if settled is not None:
                return Attempt(settled, state)
            state, fresh = (yield from read(core, header.tenant, header.id)), True
        return Attempt((yield from _deny(header, call, (Failure(Reason.STORE, "run", "changed during every try", "a run at rest"),))), state)
    except RunRefused as error:
        failures = tuple(f for f in error.failures if isinstance(f, Failure))
        return Attempt((yield from _deny(header, call, failures)), state)
    except (StoreUnavailable, NameRefused) as error:
        return Attempt((yield from _deny(header, call, (Failure(Reason.STORE, "store", str(error), "a state store that answers in time"),))), state)
    except AuditUnavailable as error:
        return Attempt(Deny((Failure(Reason.AUDIT, "audit", str(error), "a durable audit record before any token"),)), state)
    except KeyRefused as error:
        return Attempt((yield from _deny(header, call, (Failure(Reason.STORE, "keys", str(error), "a signing key"),))), state)


def unreadable(state: RunState, refused: Deny) -> Flow:
    """Record the refusal of a call that has no canonical form. Returns an `Attempt`."""
    return Attempt((yield from _deny(state.header, Call("(unreadable)", "(unreadable)", b"{}", {}), refused.failures)), state)


def _deny(header: Header, call: Call, failures: tuple[Failure, ...]) -> Flow:
    """Record a refusal. It stands even when the record cannot be written: then that is one more reason."""
    try:
        yield _stamp("decision", header, decision="deny", tool=call.tool, tool_call_id=call.id, arguments_digest=call.arguments_digest, reasons=describe(failures))
    except AuditUnavailable as error:
        return Deny((*failures, Failure(Reason.AUDIT, "audit", str(error), "a durable audit record")))
    return Deny(failures)


def _settle(core: Core, workflow: Workflow, state: RunState, call: Call, answer: Eligible, run_key: Callable[[], RunKey]) -> Flow:
    """Holds, then the mint script, then the durable record, then the token. None: the run changed, decide again."""
    header, tool = state.header, workflow.tools[call.tool]
    audience = core.audience(tool)
    user = header.user.id if header.user else ""
    made = call_digest(header.tenant, header.id, call.id, header.agent.id, user, call.tool, audience, call.definition, workflow.digest, call.data)
    take = None
    if answer.holds:
        found = yield from _released(core, workflow, state, call, answer.holds, made)
        if not isinstance(found, ops.HoldTake):
            return found
        take = found
    key = run_key() if workflow.token.agent_key and tool.effect != "read" else None
    jti, txn, now = secrets.token_urlsafe(16), "txn_" + made[:32], int(time.time())
    ttl = min(workflow.token.ttl, max(1, int(header.expires_at - now)))
    head = {
        "tool": tool.name,
        "tool_call_id": call.id,
        "args": {name: call.args[name] for name in tool.referenced if name in call.args},
        "named": answer.named,
        "facts": {name: list(fact.path) for name, fact in tool.facts.items()},
        "txn": txn,
    }
    boundary = header.agent.boundary
    op = ops.mint(
        ops.MintRequest(
            tenant=header.tenant,
            run=header.id,
            revision=state.revision,
            call_digest=made,
            head=canonical(head),
            jti=jti,
            binding=binding(made, audience, key.jkt if key else None),
            ttl_ms=(ttl + LEEWAY + SPARE) * 1000,
            read=tool.effect == "read",
            subjects=_subjects(workflow, header, tool.name),
            limits=tuple(_limit_take(r, header, workflow) for r in answer.reservations),
            hold=take,
            same_key=(header.agent.id, boundary.key) if workflow.agent.same_key_as_last_token and boundary else None,
        )
    )
    settled = ops.parse_mint(op, (yield op))
    if settled.kind == "stale":
        return None
    if settled.kind != "ok":
        return (yield from _deny(header, call, (_refused(settled, answer, workflow),)))
    identity: dict[str, str] = {"agent": header.agent.identity, "host": "in_process"}
    if header.user is not None:
        identity["user"] = header.user.identity
    # Promise 1: durable first, then signed. If this fails there is no token, and the same call finds its reservation.
    yield _stamp(
        "decision",
        header,
        decision="allow",
        tool=tool.name,
        tool_call_id=call.id,
        arguments_digest=call.arguments_digest,
        call_digest=made,
        intent=answer.intent,
        jti=jti,
        txn=txn,
        lineage=settled.lineage,
        releases=[take.hold_id] if take else [],
        reasons=[],
    )
    claims = MintClaims(
        iss=core.issuer,
        sub=user or header.agent.id,
        aud=audience,
        client_id=header.agent.id,
        iat=now,
        exp=now + ttl,
        jti=jti,
        txn=txn,
        scope=" ".join(tool.scope) or tool.name,
        tenant=header.tenant,
        gen=settled.lineage,
        act=_actor(header.agent, core.issuer),
        cnf_jkt=key.jkt if key else None,
        tool=tool.name,
        tool_call_id=call.id,
        workflow=WorkflowRef(workflow.id, workflow.version, workflow.digest),
        intent=answer.intent,
        run=header.id,
        call_digest=made,
        arguments_digest=call.arguments_digest,
        tool_digest=call.definition,
        releases=(take.hold_id,) if take else (),
        identity=identity,
    )
    return Allow(mint(core.keys.signer(now), claims, key))


def _actor(agent: Agent, issuer: str) -> dict[str, Any]:
    """RFC 8693 4.1: the agent, and the brokers it came through nested inside."""
    act: dict[str, Any] = {"sub": agent.spiffe or agent.id, "iss": agent.issuer or issuer}
    inner = act
    for broker in reversed(agent.via):
        inner["act"] = {"sub": broker, "iss": issuer}
        inner = inner["act"]
    return act


def _limit_take(reservation: Any, header: Header, workflow: Workflow) -> ops.LimitTake:
    limit = reservation.limit
    owner = {"run": header.id, "agent": header.agent.id, "tenant": "*"}[limit.per]
    # The counter's name holds what is counted, not the rule's bound: raising a limit does not start a new count.
    name = f"{workflow.id}:{limit.tool}:{limit.argument or 'count'}:{limit.per}:{limit.every or 0}:{reservation.currency}:{owner}"
    return ops.LimitTake(name, reservation.amount, limit.maximum, (limit.every or 0) * 1000, for_run=limit.per == "run")


_REFUSED: Mapping[str, tuple[Reason, str, str]] = {
    "missing": (Reason.RUN_MISSING, "run", "an open run"),
    "closed": (Reason.RUN_CLOSED, "run", "an open run"),
    "revoked": (Reason.REVOKED, "revocations", "nothing of this call revoked"),
    "already_redeemed": (Reason.ALREADY_REDEEMED, "call", "a call that did not run yet"),
    "outcome_unknown": (Reason.OUTCOME_UNKNOWN, "call", "a known outcome: the store's history changed since this call was minted"),
    "hold": (Reason.STEP_UP, "hold", "a release for exactly this call"),
    "key_changed": (Reason.BOUNDARY, "agent.boundary.key", "the key of this account's last token"),
}


def _refused(settled: ops.MintReply, answer: Eligible, workflow: Workflow) -> Failure:
    if settled.kind == "limit":
        limit = answer.reservations[int(settled.detail)].limit
        what = f"{limit.tool}.{limit.argument}" if limit.argument else f"calls of {limit.tool}"
        bound = limit.maximum / 10_000 if limit.argument else limit.maximum
        window = "" if limit.every is None else f" every {limit.every} s"
        return Failure(Reason.LIMIT, "limits", f"{what} used up", f"at most {bound:g} per {limit.per}{window}", f"{workflow.file}:{limit.line}")
    reason, field, expected = _REFUSED[settled.kind]
    return Failure(reason, field, f"{settled.kind} {settled.detail}".strip(), expected)


# --- holds ---------------------------------------------------------------------------------------------------------------
def _released(core: Core, workflow: Workflow, state: RunState, call: Call, required: tuple[RequiredHold, ...], made: str) -> Flow:
    """The release to consume, or the `StepUp` or `Deny` that answers the call instead."""
    header, now = state.header, time.time()
    op = ops.read_hold(header.tenant, made)
    record = ops.parse_hold(op, (yield op))
    why = tuple(f for hold in required for f in hold.why)
    if record is None:
        op = ops.open_hold(header.tenant, made, _hold_body(_new_hold(workflow, state, call, required, made, now)), 2 * max(h.rule.timeout for h in required) * 1000)
        record = ops.parse_hold(op, (yield op))
        if record is None:
            raise StoreUnavailable("hold: not kept by the store")
    hold = hold_of(record)
    status = hold.state_at(now)
    if status == "refused":
        return (yield from _deny(header, call, (Failure(Reason.HOLD_REFUSED, "hold", "a person refused this call", "a released hold"),)))
    if status == "expired":
        return (yield from _deny(header, call, (Failure(Reason.HOLD_EXPIRED, "hold", "nobody answered in time", "a released hold"),)))
    if status == "waiting":
        yield _stamp("decision", header, decision="step_up", tool=call.tool, tool_call_id=call.id, arguments_digest=call.arguments_digest, call_digest=made, hold=made, reasons=describe(why))
        return StepUp(hold, why)
    for each in required:
        if not covered(each.rule, hold, header.user, header.agent):
            failure = Failure(Reason.STEP_UP, f"step_up.{each.rule.id}", "released by " + ", ".join(a.id for a in hold.approvers), f"{each.rule.count} of {each.rule.group} who saw this rule")
            return (yield from _deny(header, call, (failure,)))
    return ops.HoldTake(made, record.revision)


def _new_hold(workflow: Workflow, state: RunState, call: Call, required: tuple[RequiredHold, ...], made: str, now: float) -> Hold:
    tool = workflow.tools[call.tool]
    names = dict.fromkeys(name for hold in required for name in (hold.rule.show or tuple(tool.args)))
    shown = {name: "(masked)" if tool.args[name].sensitive else call.args[name] for name in names if name in call.args}
    expires = now + min(hold.rule.timeout for hold in required)
    rules = tuple(hold.rule.id for hold in required)
    why = tuple(str(f) for hold in required for f in hold.why)
    return Hold(made, state.header.tenant, state.header.id, call.tool, call.id, rules, shown, why, round(expires, 3))


def _hold_body(hold: Hold) -> bytes:
    return canonical(
        {
            "v": 1,
            "id": hold.id,
            "tenant": hold.tenant,
            "run": hold.run,
            "tool": hold.tool,
            "tool_call_id": hold.tool_call_id,
            "rules": list(hold.rules),
            "shown": dict(hold.shown),
            "why": list(hold.why),
            "expires_at": hold.expires_at,
            "approvers": [{"id": a.id, "tenant": a.tenant, "groups": list(a.groups)} for a in hold.approvers],
        }
    )


def hold_of(record: ops.HoldRecord) -> Hold:
    """The hold of a stored record.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        kept = parse(record.body)
        if kept["v"] != 1:
            raise ValueError(kept["v"])
        return Hold(
            kept["id"],
            kept["tenant"],
            kept["run"],
            kept["tool"],
            kept["tool_call_id"],
            tuple(kept["rules"]),
            kept["shown"],
            tuple(kept["why"]),
            float(kept["expires_at"]),
            record.state,
            tuple(Approver(a["id"], a["tenant"], tuple(a["groups"])) for a in kept["approvers"]),
            record.revision,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreUnavailable(f"hold: unreadable ({type(error).__name__})") from error


def answer(core: Core, tenant: str, hold_id: str, by: User, *, release: bool) -> Flow:
    """A person's answer to a hold; returns the hold as it is then.

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
        raise _no_answer("approver", f"{by.id} (in process)", "a person proven by a token")
    failures = tuple(f for f in (check_approver(rule, by, state.header.user, state.header.agent, tenant) for rule in rules) if f is not None)
    if failures:
        yield _stamp("hold_answer_refused", state.header, hold=hold_id, by=by.id, reasons=describe(failures))
        raise RunRefused(failures)
    state_after: ops.HoldState = "refused"
    if release:
        others = tuple(a for a in hold.approvers if a.id != by.id)
        hold = replace(hold, approvers=(*others, Approver(by.id, by.tenant, tuple(by.groups))))
        enough = all(covered(rule, hold, state.header.user, state.header.agent) for rule in rules)
        state_after = "released" if enough else "waiting"
    hold = replace(hold, state=state_after)
    yield _stamp("hold_answer", state.header, hold=hold_id, by=by.id, answer="release" if release else "refuse", state=hold.state, tool=hold.tool, tool_call_id=hold.tool_call_id)
    op = ops.answer_hold(tenant, hold_id, record.revision, _hold_body(hold), state_after)
    if ops.parse_answer_hold(op, (yield op)) != "ok":
        raise _no_answer("hold", "answered by somebody else meanwhile", "a waiting hold")
    return hold


def _no_answer(field: str, got: str, expected: str) -> RunRefused:
    return RunRefused((Failure(Reason.STEP_UP, field, got, expected),))


def checked_call(tool: str, args: Mapping[str, Any], tool_call_id: str, definition: str) -> Call | Deny:
    """A canonical call, or the refusal of one that has no canonical form."""
    try:
        return Call.of(tool, args, tool_call_id, definition)
    except (CanonicalError, TypeError, ValueError) as error:
        field = error.field if isinstance(error, CanonicalError) else "args"
        return Deny((Failure(Reason.INPUT, field, str(error)[:200], "a call with a canonical form"),))

