"""Runs are opened, and renewed: who comes in, for whom, and until when.

Rules: a host's `User` and `Agent` are taken as `in_process`; a credential is proven here,
against the gate's identity settings, before anything else is looked at. Nothing is kept of the
credential itself. A run ends for every call when the first of its credentials does; a fresh one
of the same issuer, subject, tenant, key and hops goes on with it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from agentgate.decision import checks as rules
from agentgate.decision.case import Case, Check
from agentgate.decision.versions import Versions, under
from agentgate.errors import StoreUnavailable
from agentgate.gate.conversation import check_open, is_over, keeping_of, name_run, succeed
from agentgate.gate.core import Core, found, read, read_again, refuse_run, stamp, subjects_of
from agentgate.gate.proving import (
    IN_PROCESS,
    AgentGiven,
    OverHTTP,
    UserGiven,
    prove,
)
from agentgate.gate.state import header_bytes, missing
from agentgate.gate.turns import add, checked_turn, close, refused_input, stored_turn
from agentgate.identity.credential import AgentCredential
from agentgate.identity.proven import Proven, placed
from agentgate.shell.drive import apart
from agentgate.shell.step import Flow, Record
from agentgate.stores import ops
from agentgate.values.canonical import canonical, digest
from agentgate.values.refusal import Failure, Failures, Reason, RunRefused
from agentgate.values.request import THREAD, Agent, Call, Header, RunState, Spoken, User
from agentgate.values.value_class import Json, Names
from agentgate.workflow.model import Workflow

MAX_TTL = 24 * 3600
# while no credential is renewed nothing can be done in it; a hold may wait for days
MAX_PROVEN_TTL = 7 * 24 * 3600
_TRIES = 16  # as in `flow`
_SOON = 30  # seconds
# seconds in which whoever comes back after the end of a run can finish a call that was held
_HELD = 300
_ONCE = (
    "a workflow with intents: {none: ...}, no prompt, no user, no conversation, and a "
    "credential of the agent"
)


def open_run(
    core: Core,
    name: str,
    *,
    tenant: str,
    user: UserGiven,
    agent: AgentGiven,
    prompt: Spoken,
    agent_said: str = "",
    ttl: int,
    once: bool = False,
    conversation: str | None = None,
    over: OverHTTP = IN_PROCESS,
) -> Flow:
    """Open a run: identity, tenant and workflow decide whether it opens; intents are derived
    now and decide per call.

    `once`: the run of this very credential, found again if it is open, so that limits per run
    hold whoever asks how often. `conversation`: the host's id of it: its run goes on with this
    turn, or is followed by another (`agentgate.gate.conversation`).

    Raises (through the driver):
        RunRefused: with every failing reason. StoreUnavailable, AuditUnavailable: not opened.
    """
    workflow = core.workflow(name)
    text = checked_turn(prompt)
    stored = stored_turn(text, agent_said)
    # before it is stored: what cannot be read opens no run
    yield from apart(len(text), partial(core.readings.turn, text))
    _check_who(tenant, user, agent)
    _check_ttl(ttl, user, agent)
    if once and (
        workflow.intents
        or text
        or user is not None
        or conversation is not None
        or not isinstance(agent, AgentCredential)
    ):
        raise refused_input("once", "a run that somebody asks for", _ONCE)
    proven = yield from prove(core, workflow, tenant, user, agent, over=over, returning=once)
    name = _name_run(workflow, tenant, conversation, proven, over.host)
    if once:
        name = _name_of_credential(tenant, workflow.id, proven[1])
        ttl = MAX_PROVEN_TTL  # it is not forgotten while the credential may come again
        if isinstance(agent, AgentCredential) and agent.known:
            if (own := (yield from _read_own(core, tenant, name))) is not None:
                return (yield from _return_to(core, own, agent, proven[1], over))
            # it founds a run
            proven = yield from prove(core, workflow, tenant, user, agent, over=over)
    header = Header(
        **_described(core, workflow, proven, ttl, over),
        id=name,
        tenant=tenant,
        conversation=conversation or "",
    )
    yield from _check(core, Versions(workflow), header)
    if conversation is not None and not text:
        known = yield from read(core, tenant, name)
        return (yield from _go_on(core, known, header, proven, ("", "")))
    opened: ops.OpenReply = yield from _write_run(core, header, stored, ttl, once=once)
    if opened.kind != "ok":
        if not once and conversation is None:
            raise StoreUnavailable(f"run {name}: the store already has a run of this id")
        known = yield from found(core, tenant, name, opened.run)
        if conversation is not None:
            return (yield from _go_on(core, known, header, proven, (text, stored)))
        return (yield from _return_to(core, known, agent, proven[1], over))
    core.issued.opened(header.id)
    yield _record_opened(header)
    return (yield from found(core, tenant, header.id, opened.run))


def _described(
    core: Core,
    workflow: Workflow,
    proven: tuple[Proven[User] | None, Proven[Agent]],
    ttl: int,
    over: OverHTTP,
) -> Json:
    """What the header of a run that begins now says of its version, its user and agent, and its
    times.
    """
    (for_user, by_agent), now = proven, time.time()
    return {
        "user": None if for_user is None else for_user.who,
        "agent": by_agent.who,
        "workflow": workflow.id,
        "version": workflow.version,
        "digest": workflow.digest,
        "opened_at": round(now, 3),
        "expires_at": round(now + ttl, 3),
        "day": core.clock().date().isoformat(),
        "user_until": 0.0 if for_user is None else for_user.expires_at,
        "agent_until": by_agent.expires_at,
        "host": over.host,
        "client": over.client,
    }


def _read_own(core: Core, tenant: str, name: str) -> Flow:
    with suppress(RunRefused):  # there is none; or opening it says why it cannot be used
        return (yield from read(core, tenant, name))
    return None


def _return_to(
    core: Core, known: RunState, shown: Any, by_agent: Proven[Agent], over: OverHTTP
) -> Flow:
    """The run that a credential (`shown`) founded, for who shows it again."""
    if known.header.client != over.client:
        yield from _check_same(known.header, replace(known.header, client=over.client))
    state = yield from _renewed(core, known, None, by_agent)
    shown.keep()
    return state


def _record_opened(header: Header) -> Record:
    said = {
        name: value
        for name in ("host", "client", "conversation", "succession")
        if (value := getattr(header, name))
    }
    return stamp("run_opened", header, expires_at=header.ends, **said)


def _go_on(
    core: Core,
    known: RunState,
    header: Header,
    proven: tuple[Proven[User] | None, Proven[Agent]],
    said: tuple[str, str],
) -> Flow:
    """A conversation's run with one more turn, or the run that follows. Raises as
    `open_run`.
    """
    text, stored = said
    for _ in range(_TRIES):
        check_open(known, header.workflow)
        follows = bool(text) and is_over(known)
        yield from _check_same(known.header, header, further=follows)
        if not follows:
            state = yield from _renewed(core, known, *proven)
            return (yield from add(core, state, text, stored)) if text else state
        following = yield from succeed(core, known, header, text, stored)
        if following is not None:
            yield _record_opened(following)
        known = yield from read(core, header.tenant, header.id)
        if following is not None:
            return known
    raise RunRefused(
        (Failure(Reason.STORE, "conversation", "changed during every try", "one at rest"),),
        header.id,
    )


def close_conversation(
    core: Core, name: str, conversation: str, *, tenant: str, user: UserGiven, agent: AgentGiven
) -> Flow:
    """Close the run of a conversation, for whoever its host says or shows that they are.
    Returns its state.

    Raises (through the driver):
        RunRefused: there is none of theirs. StoreUnavailable, AuditUnavailable: it may be open.
    """
    _check_who(tenant, user, agent)
    proven = yield from prove(core, core.workflow(name), tenant, user, agent)
    return (
        yield from close(
            core, (yield from read(core, tenant, name_run(tenant, conversation, *proven)))
        )
    )


def _name_run(
    workflow: Workflow,
    tenant: str,
    conversation: str | None,
    proven: tuple[Proven[User] | None, Proven[Agent]],
    host: str,
) -> str:
    if (conversation is None or str(conversation).startswith(THREAD)) and any(
        limit.per == "conversation" for tool in workflow.tools.values() for limit in tool.limits
    ):
        raise refused_input(
            "conversation",
            "none",
            "the host's id of it: the workflow limits calls per conversation",
        )
    if conversation is None:
        return "run_" + secrets.token_urlsafe(18)
    return name_run(tenant, conversation, *proven, host)


def _check_ttl(ttl: int, user: UserGiven, agent: AgentGiven) -> None:
    most = (
        MAX_PROVEN_TTL
        if isinstance(agent, AgentCredential) or isinstance(user, AgentCredential)
        else MAX_TTL
    )
    if type(ttl) is not int or not 0 < ttl <= most:
        raise refused_input("ttl", type(ttl).__name__, f"an int from 1 to {most} seconds")


def _write_run(core: Core, header: Header, turn: str, ttl: int, *, once: bool) -> Flow:
    """The store's answer: the run is new, or there is one of its id. Raises RunRefused where
    the store opens none.
    """
    # Another gate may have opened this very run of a credential before, and the store may have
    # lost it: nobody remembers all of its acts.
    acts: Literal["any", "opener", "nobody"] = (
        "nobody" if once else "any" if core.shared_runs else "opener"
    )
    opened: ops.OpenReply = yield ops.open_run(
        *(header.tenant, header.id, header_bytes(header), turn),
        ttl_ms=ttl * 1000,
        whose=header.whose,
        most=core.budgets.runs,
        keeps=core.issued.keeps,
        acts=acts,
        who=subjects_of(header),
        keep_ms=keeping_of(header) * 1000,
    )
    if (refused := _refusal_of(opened, header, core.budgets.runs)) is not None:
        yield from refuse_run(header, (refused,))
    return opened


def _name_of_credential(tenant: str, workflow: str, agent: Proven[Agent]) -> str:
    """The id of the one run of an agent's very credential."""
    who = agent.who
    same = [
        tenant,
        workflow,
        who.issuer,
        who.subject,
        agent.once,
        *([who.environment] if who.environment else []),
    ]
    return "run_" + digest(canonical(same))[:40]


def _refusal_of(opened: ops.OpenReply, header: Header, most: int) -> Failure | None:
    """Why the store opened no run, where it is not that there is one of this id already."""
    if opened.kind == "gone":
        return Failure(
            Reason.RUN_EXPIRED,
            "conversation",
            "its last run ended too long ago",
            "an id of another conversation",
        )
    if opened.kind == "revoked":
        return Failure(
            Reason.REVOKED,
            "revocations",
            "one of user, agent, workflow version or tenant",
            "none of them revoked",
        )
    if opened.kind != "too_many":
        return None
    asking = header.host or header.client
    got = f"{most} in an hour of {header.whose.replace(chr(10), ' of ')} in {header.tenant}" + (
        f", by client {asking}" if asking else ""
    )
    return Failure(
        Reason.TOO_MANY_RUNS,
        "runs",
        got,
        f"at most {most} runs of one user (without one: agent) in an hour",
    )


def _check_same(known: Header, shown: Header, *, further: bool = False) -> Flow:
    """Refuse whoever is not the run's own; `further`: another run follows it, in which the
    agent may have another key.
    """
    if refused := tuple(
        [each for each in _another(known, shown) if not (further and each.data.get("proof"))]
    ):
        yield from refuse_run(shown, refused)


def present(
    core: Core, state: RunState, *, user: UserGiven, agent: AgentCredential, over: OverHTTP
) -> Flow:
    """Who calls in a run now: the user and the agent it was opened for, by credentials that
    count now, with the same key.

    Near the end of the run's credentials, and where the user signed in again, the run goes on
    with these, as by `renew`; with those of an agent that leaves out a hop or an attestation of
    the run it does not: it ends when that ends. Returns its state.

    Raises (through the driver):
        RunRefused: they prove nothing here, or somebody else. StoreUnavailable,
        AuditUnavailable.
    """
    header = state.header
    versions = yield from core.in_force.of(header)
    for_user, by_agent = yield from prove(
        core, versions.minted, header.tenant, user, agent, run=header, over=over, returning=True
    )
    was = header.agent
    who = by_agent.who
    if not agent.delegation:
        who = placed(who, posture=who.posture, boundary=who.boundary, via=was.via)
    # What was attested when the run was opened counts as long as the workflow says, for who
    # still has the key that was proven then: a credential alone could be anywhere.
    if (
        agent.attestation is None
        and was.boundary is not None
        and by_agent.key
        and by_agent.key == was.boundary.key
    ):
        who = placed(who, posture=was.posture, boundary=was.boundary, via=who.via)
    shown = replace(
        header, user=None if for_user is None else for_user.who, agent=who, client=over.client
    )
    yield from _check_same(header, shown)
    yield from _check(core, versions, shown)
    again = (
        shown.user is not None
        and header.user is not None
        and _signed_in(shown.user) != _signed_in(header.user)
    )
    for each in (user, agent):
        if isinstance(each, AgentCredential):
            each.keep()
    now = time.time()
    if not again and (
        header.ends - now > _SOON or (header.ends == header.expires_at and now < header.ends)
    ):
        return state
    less = (was.via and not agent.delegation) or (
        was.posture is not None and agent.attestation is None
    )
    return (yield from renew(core, state, user=user, agent=None if less else agent))


def _signed_in(user: User) -> object:
    return user.auth_time, user.acr, user.amr


def renew(core: Core, state: RunState, *, user: UserGiven, agent: AgentGiven | None) -> Flow:
    """Go on with a run under fresh credentials; whichever is left out stays as it is, with its
    end.

    Raises (through the driver):
        RunRefused: missing, closed or in process; the credentials prove nothing here, or
        somebody else. StoreUnavailable, AuditUnavailable.
    """
    header = state.header
    if not (header.agent_until or header.user_until) or not all(
        each is None or isinstance(each, AgentCredential) for each in (user, agent)
    ):
        raise refused_input(
            "run",
            "in process, or no credential",
            "a run that was opened with credentials, and fresh ones",
        )
    return (yield from _proven_again(core, state, user, agent))


def _proven_again(
    core: Core, state: RunState, user: UserGiven, agent: AgentGiven | None
) -> Flow:
    versions = yield from core.in_force.of(state.header)
    proven = yield from prove(
        core, versions.minted, state.header.tenant, user, agent, run=state.header
    )
    return (yield from _renewed(core, state, *proven))


def continue_for(
    core: Core, state: RunState, *, tenant: str, user: UserGiven, agent: AgentGiven
) -> Flow:
    """Go on with a run for the tenant, user and agent it was opened for, as they are known now.
    Returns its state.

    Raises (through the driver):
        RunRefused: missing or closed; they are not, or the workflow does not take them.
        StoreUnavailable, AuditUnavailable.
    """
    header = state.header
    _check_who(tenant, user, agent)
    if tenant != header.tenant or (user is None) != (header.user is None):
        whose = f"{header.tenant}, {'no user' if header.user is None else 'a user'}"
        raise RunRefused(
            (
                Failure(
                    Reason.TENANT,
                    "run",
                    f"{tenant}, {'no user' if user is None else 'a user'}",
                    whose,
                ),
            ),
            header.id,
        )
    return (yield from _proven_again(core, state, user, agent))


def _renewed(
    core: Core,
    state: RunState,
    fresh_user: Proven[User] | None,
    fresh_agent: Proven[Agent] | None,
) -> Flow:
    """The run under what was proven afresh. Raises as `renew`."""
    versions = yield from core.in_force.of(state.header)
    for _ in range(_TRIES):
        header = state.header
        renewed = header
        if fresh_user is not None:
            renewed = replace(renewed, user=fresh_user.who, user_until=fresh_user.expires_at)
        if time.time() >= header.expires_at and (fresh_user is not None or header.user is None):
            renewed = replace(renewed, held_until=round(time.time() + _HELD, 3))
        if fresh_agent is not None:
            renewed = replace(
                renewed, agent=fresh_agent.who, agent_until=fresh_agent.expires_at
            )
        yield from _check(core, versions, renewed, _another(header, renewed))
        if not state.closed and (
            renewed == header or header_bytes(renewed) == header_bytes(header)
        ):
            return state  # the same credentials again
        answer = yield ops.renew_run(
            header.tenant, header.id, header_bytes(renewed), state.revision
        )
        if answer == "ok":
            yield stamp("run_renewed", renewed, expires_at=renewed.ends)
        if answer != "stale":
            break
        state = yield from read_again(core, state)
    if answer == "missing":
        raise missing(header.tenant, header.id)
    if answer != "ok":
        raise RunRefused((Failure(Reason.RUN_CLOSED, "run", answer, "an open run"),), header.id)
    return (yield from read_again(core, state))


def _check_who(tenant: object, user: object, agent: object) -> None:
    known = _is(user, User) and (
        type(user) is not User or all(type(group) is str for group in user.groups)
    )
    if type(tenant) is not str or not _is(agent, Agent) or not (known or user is None):
        expected = "text, a User with groups that are text, an Agent; or credentials"
        raise refused_input(
            "tenant, user or agent",
            "another type, or somebody proven for another run",
            expected,
        )


def _is(who: object, kind: type) -> bool:
    """Whether it is a credential, what one proved and has not ended, or a host's own word:
    never what another run kept of a proof.
    """
    if type(who) is Proven:
        return type(who.who) is kind and who.expires_at > time.time()
    return isinstance(who, AgentCredential) or (
        type(who) is kind and getattr(who, "identity", "") != "proven"
    )


def _check(core: Core, versions: Versions, header: Header, further: Failures = ()) -> Flow:
    """The checks that need no call, under each version: a run that could never mint does not
    open.
    """
    checks: tuple[Check, ...] = (
        rules.check_run,
        rules.check_tenant,
        rules.check_agent,
        rules.check_user,
        rules.check_authentication,
        rules.check_hops,
    )
    # A proven run's posture and boundary change only with its credentials; one that is built in
    # process is judged per call.
    checks += (
        (rules.check_posture, rules.check_freshness, rules.check_boundary)
        if header.agent_until
        else ()
    )
    refused = further
    around = core.around()
    empty = RunState(header, turns=(), intents={}, prompt=None, calls=(), revision="")
    for each in versions.each:
        case = Case(
            each, under(empty, each, core.readings.intents), Call("", "", b"{}", {}), around
        )
        for check in checks:
            check(case)
        refused = (*refused, *case.denied)
    if refused:
        yield from refuse_run(header, refused)


def _another(before: Header, after: Header) -> Failures:
    """What a fresh credential says otherwise than the run's first: whoever comes, it is not the
    same.
    """
    was = before.agent
    now = after.agent
    failures = list(
        _differing(Reason.AGENT, was, now, ("issuer", "subject", "id", "key", "environment"))
    )
    if before.client != after.client:
        failures.append(
            Failure(
                Reason.AGENT, "client", repr(after.client), f"the run's own, {before.client!r}"
            )
        )
    if was.via and now.via != was.via:  # who leaves a hop out would go on after its end
        failures.append(
            Failure(
                Reason.HOPS,
                "agent.via",
                ", ".join(now.via) or "none",
                f"the run's own, {', '.join(was.via)}",
            )
        )
    if before.user is not None and after.user is not None:
        names = ("issuer", "subject", "id", "tenant")
        failures += _differing(Reason.USER, before.user, after.user, names)
    elif before.user is not after.user:
        failures.append(Failure(Reason.USER, "user", "another", "the run's own"))
    return tuple(failures)


def _differing(reason: Reason, was: object, now: object, names: Names) -> Iterator[Failure]:
    for name in names:
        if (old := getattr(was, name)) != (new := getattr(now, name)):
            yield Failure(
                reason,
                f"{reason}.{name}",
                repr(new),
                f"the run's own, {old!r}",
                data={"proof": name == "key"},
            )
