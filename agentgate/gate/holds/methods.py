"""The gate's methods for holds, as steps: read, list, answer, and what a signed answer
needs.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Mapping
from typing import Any, Protocol

from agentgate.decision.hold import Hold, State
from agentgate.errors import CredentialRefused
from agentgate.gate.core import Core
from agentgate.gate.holds import answer
from agentgate.gate.holds.inbox import person_of, waiting_for
from agentgate.gate.holds.memory import RememberedCall, forget_memory, recall_memory
from agentgate.gate.holds.proof import Answering
from agentgate.gate.proving import count_unproven, failure_of, identities_of
from agentgate.identity.credential import AgentCredential, OIDCToken
from agentgate.shell.step import Flow, Step
from agentgate.values.answers import Said
from agentgate.values.refusal import AnswerCode, AnswerRefused
from agentgate.values.request import User

By = Answering | OIDCToken
Answered = Hold | AnswerRefused


class HasCore(Protocol):
    """A gate, blocking or awaited."""

    _core: Core


def hold(self: HasCore, hold_id: str, *, tenant: str) -> Generator[Step, Any, Hold]:
    """A hold as the store has it, in its state now; `Hold.question` is what a person judges it
    by, as a value, text and JSON.

    Raises:
        AnswerRefused: this tenant has no hold of this id. StoreUnavailable.
    """
    return answer.shown(self._core, tenant, hold_id)


def holds(
    self: HasCore,
    tenant: str,
    *,
    run: str | None = None,
    state: State | None = "pending",
    for_: User | OIDCToken | None = None,
) -> Generator[Step, Any, tuple[Hold, ...]]:
    """The holds of a tenant, the earliest deadline first.

    Args:
        self: the gate.
        tenant: exact tenant.
        run: only those of this run; in their questions stand the user's words, as in `hold`.
        state: only those in this state now; None: in any state, as long as the store keeps them
            (twice the time to answer).
        for_: only those that wait for this person's answer: their own token, or a `User` that
            the host vouches for. With the user's words; to be answered they still need an
            answer (`release`).

    Raises:
        NameRefused: no tenant or run can have this name. CredentialRefused: the token proves
            nobody. StoreUnavailable.
    """
    found: tuple[Hold, ...]
    if for_ is not None:
        found = yield from waiting_for(self._core, tenant, for_)
        return tuple([hold for hold in found if run in {None, hold.run}])
    found = yield from answer.many(tenant, run, state)
    return found if run is None else (yield from answer.spoken(self._core, tenant, run, found))


def release(self: HasCore, hold_id: str, *, tenant: str, by: By) -> Generator[Step, Any, Hold]:
    """A person's yes to one held call; usable once, by that call only.

    Args:
        self: the gate.
        hold_id: `Hold.id`, `StepUpRequired.hold_id`.
        tenant: of the hold.
        by: who says so: an `SSHAnswer`, a `WebAuthnAnswer` or a `JWSAnswer`, their `OIDCToken`,
            issued for exactly this answer (`nonce_claim`), or a `User` that the host vouches
            for, wherever it comes from, which only a workflow with ``in_process: true`` takes.

    Returns:
        The hold as it is now: released, or still pending where a rule wants more approvers.

    Raises:
        AnswerRefused: the answer does not count. StoreUnavailable, AuditUnavailable: nothing
            was answered.
    """
    return _answered(self, hold_id, tenant, by, "release")


def refuse(
    self: HasCore, hold_id: str, *, tenant: str, by: By, reason: str = ""
) -> Generator[Step, Any, Hold]:
    """A person's no to one held call, also to one that was released and is not spent yet. Takes
    and raises what `release` does.

    `reason`: what they say to it, for the record alone; it is not part of what is signed.
    """
    return _answered(self, hold_id, tenant, by, "refuse", reason=reason)


def answer_(
    self: HasCore, answers: Mapping[str, Said], *, tenant: str, by: By
) -> Generator[Step, Any, Mapping[str, Answered]]:
    """A person's answers to up to ten held calls of one run, by one signature
    (`agentgate.decision.batch_answer.Together.statement`).

    Args:
        self: the gate.
        answers: the id of each hold -> ``release`` or ``refuse``, as they were signed.
        tenant: of the holds.
        by: as of `release`; a `User` that the host vouches for signs nothing.

    Returns:
        Of each id the hold as it is now, or the `AnswerRefused` that says why this one was not
            answered: others were all the same.

    Raises:
        AnswerRefused: no answer counts. StoreUnavailable, AuditUnavailable: some may be
            answered; the same again answers the others.
    """
    who: Answering = yield from _prove_person(self._core, tenant, next(iter(answers), ""), by)
    answered: Mapping[str, Answered] = yield from answer.several(
        self._core, tenant, answers, who
    )
    return answered


def nonce(
    self: HasCore,  # noqa: ARG001 - the twins give it
    hold_id: str | Collection[str],
    *,
    tenant: str,
) -> Generator[Step, Any, str]:
    """A nonce for one signed answer, good for five minutes; it is part of what is signed.

    `hold_id`: of the hold that is answered alone (`Hold.statement`), or the ids of those that
    are answered together (`Together.statement`).

    Raises:
        AnswerRefused: this tenant has no such hold, there is nothing to answer, or they are not
            one question. StoreUnavailable.
    """
    return answer.nonce(tenant, (hold_id,) if isinstance(hold_id, str) else hold_id)


def reveal(
    self: HasCore, hold_id: str, *, tenant: str, by: By
) -> Generator[Step, Any, Mapping[str, str]]:
    """The sensitive arguments of a held call, as text, for somebody who may answer it; on
    record before they are read.

    Takes and raises what `release` does; a signed answer says ``reveal``.
    """
    return _answered(self, hold_id, tenant, by, "reveal")


def remembered(
    self: HasCore, tenant: str, *, for_: User | OIDCToken
) -> Generator[Step, Any, tuple[RememberedCall, ...]]:
    """What a person's own yeses let later runs of theirs use again, the oldest first.

    Args:
        self: the gate.
        tenant: exact tenant.
        for_: the person: their own token, or a `User` that the host vouches for.

    Raises:
        CredentialRefused: the token proves nobody, or somebody who is revoked. NameRefused,
            StoreUnavailable.
    """
    who: User = yield from person_of(self._core, for_)
    found: list[RememberedCall] = yield from recall_memory(
        self._core.history, self._core.keys, tenant, who.id
    )
    return tuple([each for each in found if each.is_of(who)])


def forget_own(
    self: HasCore, tenant: str, ids: Collection[str], *, by: User | OIDCToken
) -> Generator[Step, Any, int]:
    """End what is remembered of a person. What they were asked before is not remembered,
    either, whenever it is done.

    Args:
        self: the gate.
        tenant: exact tenant.
        ids: `RememberedCall.id` of each.
        by: the person, as in `remembered`.

    Returns:
        How much of it was theirs, and is forgotten.

    Raises:
        As `remembered`. AuditUnavailable: it is forgotten, and on no record.
    """
    own = yield from remembered(self, tenant, for_=by)
    places = [each.id for each in own if each.id in ids]
    count: int = (
        (yield from forget_memory(self._core.history, tenant, own[0].user, places, own[0].user))
        if places
        else 0
    )
    return count


def _answered(
    self: HasCore, hold_id: str, tenant: str, by: By, said: Said, *, reason: str = ""
) -> Flow:
    who: Answering = yield from _prove_person(self._core, tenant, hold_id, by)
    return (yield from answer.answer(self._core, tenant, hold_id, who, said, reason=reason))


def _prove_person(
    core: Core, tenant: str, hold_id: str, by: Answering | AgentCredential
) -> Flow:
    """Who answers a hold, as given; proven now, if they come with a credential.

    Raises (through the driver):
        AnswerRefused: it proves nobody; that is counted.
    """
    if not isinstance(by, AgentCredential):
        return by
    try:
        return (yield from identities_of(core).user(by, time.time()))
    except CredentialRefused as error:
        refused = failure_of(error)
    shown = {
        name: value[:80] if type(value) is str else None
        for name, value in (("tenant", tenant), ("hold", hold_id))
    }
    count_unproven(core, {"type": "hold_answer_refused", **shown, "by": None}, refused)
    raise AnswerRefused(AnswerCode.UNPROVEN, (refused,))
