"""A conversation: what one user says to one agent under a host's own id, and the runs that
follow each other in it.

Rules: the run's name is derived from tenant, user, agent and the host's id, so that nobody
else's id finds it. All runs of a conversation are one record in the store: what was counted,
done, held, denied and taken back stands. Of an earlier run only the newest turns are known on:
they name values, and ask for nothing; its facts and what was confirmed in it count no more. A
run that follows begins with a turn of the user's, and none follows one that was closed, by its
host or its denials, or revoked.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from agentgate.gate.core import Core, refuse_run, subjects_of
from agentgate.gate.state import header_bytes
from agentgate.gate.turns import MAX_SAID, MAX_TURNS, refused_input, takes_back_in
from agentgate.identity.proven import Proven
from agentgate.language.turn import MAX_TURN
from agentgate.shell.drive import apart
from agentgate.shell.step import Flow
from agentgate.stores import ops
from agentgate.values.canonical import canonical, digest
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import FORM, Agent, Header, RunState, User, is_name

KEPT = 30 * 24 * 3600  # seconds after its end in which a run can be followed by another
_SOON = 30  # seconds before its end in which the next turn begins another run
# stored turns of earlier runs, of `MAX_TURN` characters together; where they are longer, the
# last
_CARRIED = 50


def name_run(
    tenant: str,
    conversation: str,
    user: Proven[User] | None,
    agent: Proven[Agent],
    host: str = "",
) -> str:
    """The id of a conversation's run, which only this tenant, user and agent have, and over
    HTTP only this `host`.

    Raises:
        RunRefused: no such name can be a host's id.
    """
    if not is_name(conversation):
        raise refused_input(
            "conversation", type(conversation).__name__, f"the host's id of it, {FORM}"
        )
    whose = [
        [each.who.issuer, each.who.subject or each.who.id] if each else []
        for each in (user, agent)
    ]
    of_host = {"host": host} if host else {}
    return (
        "run_"
        + digest(
            canonical(
                {"conversation": conversation, "tenant": tenant, "whose": whose, **of_host}
            )
        )[:40]
    )


def keeping_of(header: Header) -> int:
    """Seconds after its end in which a run can be followed by another; one of a thread: as long
    as it lived.
    """
    if header.named_by_host:
        return KEPT
    return int(header.expires_at - header.opened_at) if header.conversation else 0


def is_over(state: RunState) -> bool:
    """Whether a run has ended, is about to, or has no room for what comes next."""
    header = state.header
    soon = min(_SOON, (header.expires_at - header.opened_at) / 10)
    full = (
        state.full
        or len(state.turns) >= MAX_TURNS
        or sum(map(len, state.turns)) > MAX_SAID - MAX_TURN
    )
    return full or time.time() >= header.expires_at - soon


def check_open(state: RunState, workflow: str) -> None:
    """A conversation goes on under its own workflow, and not where it was closed. Raises
    RunRefused.
    """
    header = state.header
    if state.closed:
        reason = Reason.TOO_MANY_DENIALS if state.denials_spent else Reason.RUN_CLOSED
        failure = Failure(reason, "conversation", "closed", "an open one, of another id")
    elif header.workflow != workflow:
        expected = f"the conversation's own, {header.workflow}"
        failure = Failure(Reason.INPUT, "workflow", workflow, expected)
    else:
        return
    raise RunRefused((failure,), header.id)


def succeed(core: Core, known: RunState, header: Header, text: str, stored: str) -> Flow:
    """Open the run that follows; its header, or None: the one that was known has changed, or is
    closed.

    Raises (through the driver):
        RunRefused: it is revoked. StoreUnavailable, AuditUnavailable: not opened.
    """
    carried = known.stored[-_CARRIED:]
    carried = carried if sum(map(len, carried)) <= MAX_TURN else carried[-1:]
    days = (
        *known.header.earlier,
        *[known.header.day] * (len(known.stored) - len(known.header.earlier)),
    )
    said_no = partial(core.readings.may_say_no, known)
    following = replace(
        header,
        succession=known.header.succession + 1,
        earlier=days[len(days) - len(carried) :],
        said_no=(yield from apart(sum(map(len, known.stored)), said_no)),
    )
    answer = yield ops.succeed_run(
        *(header.tenant, header.id, header_bytes(following), (*carried, stored)),
        revision=known.revision,
        life_ms=int(header.expires_at - header.opened_at + keeping_of(header)) * 1000,
        takes_back=(yield from takes_back_in(core, known, text)),
        who=subjects_of(header),
    )
    if answer == "revoked":
        refused = Failure(
            Reason.REVOKED,
            "conversation",
            answer,
            "none of its run, user, agent, workflow version and tenant revoked",
        )
        yield from refuse_run(header, (refused,))
    return following if answer == "ok" else None
