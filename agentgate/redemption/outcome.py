"""What goes on record of a redeemed call: that it was not run, its facts, its outcome.

Rules: facts are read from the real result, once, from the fields that the workflow declared; a
failed call has none, nor has a result that holds the upstream credential. What cannot be
recorded is told when the call ends.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from agentgate.errors import (
    AgentGateError,
    AuditUnavailable,
    NotDone,
    NotRecorded,
    ResultWithheld,
    StoreUnavailable,
)
from agentgate.redemption.facts import MAX_LOOKED, recorded, to_read
from agentgate.redemption.records import record_of
from agentgate.redemption.upstream import Redemption, ended
from agentgate.shell.readers import apart
from agentgate.shell.step import Afterwards, Flow, Step
from agentgate.stores import ops
from agentgate.token.mint import MintClaims

_SEARCHING = 60.0  # seconds
_log = structlog.get_logger("agentgate.redemption.outcome")


def not_run(claims: MintClaims, why: str = "", *, attempt: str = "") -> Flow:
    """The token may be burned, and the tool is not going to run: without this its outcome would
    be unknown.

    `attempt`: the redemption that cannot tell whether it burned the token. Where another did,
    its tool may be running.
    """
    said: dict[str, Any] = {"why": why} if why else {}
    try:
        call = (claims.tenant, claims.run, claims.call_digest)
        yield Afterwards(
            ops.record_outcome(
                *call, "not_run", claims.jti, audience=claims.recorded_for, attempt=attempt
            )
        )
    except StoreUnavailable:  # the caller is refused, and the log says that nothing ran
        said["missing"] = ["outcome"]
    if said:
        with suppress(AuditUnavailable):
            yield record_of(
                claims, "outcome", refusal=True, promised=True, outcome="not_run", **said
            )


def record_result(done: Redemption, result: Any) -> Generator[Step, Any, None]:
    """Record the declared facts of a redeemed call's real result, or keep them until its
    end.
    """
    facts = yield from facts_of(done, result)
    if done.ends is not None:
        done.facts = facts or b""
    elif facts is not None:
        claims = done.claims
        try:
            yield ops.record_result(
                claims.tenant,
                claims.run,
                claims.call_digest,
                facts,
                audience=claims.recorded_for,
            )
        except AgentGateError as error:
            lost(done, "facts", error)


def facts_of(done: Redemption, result: Any) -> Generator[Step, Any, bytes | None]:
    """The declared facts of a result as canonical JSON; None: they cannot be recorded, which is
    told at the end of the call.

    No deadline runs while a long text is searched, and no event loop waits for it: an attacker
    may have written it.

    Raises:
        ResultWithheld: it holds the upstream credential.
    """
    size = to_read(done.head["facts"]) if done.credential is None else MAX_LOOKED
    return (yield from apart(size, partial(_facts_of, done, result), _SEARCHING))


def _facts_of(done: Redemption, result: Any) -> bytes | None:
    if done.credential is not None:
        done.credential.check_result(result)
    try:
        return recorded(done.head["facts"], result)
    except AgentGateError as error:
        lost(done, "facts", error)
        return None


def outcome_of(done: Redemption, error: BaseException | None) -> ops.Outcome:
    """How a call ended, by what its tool raised."""
    nothing_happened = isinstance(error, NotDone) or (
        isinstance(error, Exception) and done.head.get("read") is True
    )
    # the tool had returned
    withheld = isinstance(error, ResultWithheld) and error.what == "result"
    return "done" if error is None or withheld else "failed" if nothing_happened else "unknown"


def tell_lost(done: Redemption, error: BaseException | None) -> None:
    """At the end of a call, tell what of it is on no record.

    Raises:
        NotRecorded: something is not. Where the tool raised, that says it instead, in a note.
    """
    if done.missing:
        why = NotRecorded(
            done.claims.txn, tuple(done.missing), next(iter(done.missing.values()))
        )
        if error is None:
            raise why
        error.add_note(str(why))


def record_outcome(done: Redemption, error: BaseException | None) -> Generator[Step, Any, None]:
    """Record how a redeemed call ended: what the tool raised, if anything. What is missing in
    the store is on the audit record.

    Raises (through the driver):
        NotRecorded: something of the call is on no record. Where the tool raised, that says it
        instead, in a note.
    """
    done.ended = True
    outcome = outcome_of(done, error)
    more: dict[str, Any] = {"withheld": True} if isinstance(error, ResultWithheld) else {}
    try:
        claims = done.claims
        facts = done.facts if outcome != "failed" else b""
        call = (claims.tenant, claims.run, claims.call_digest, outcome, claims.jti)
        reply = yield ops.record_outcome(
            *call, audience=claims.recorded_for, facts=facts, tell=done.ends is not None
        )
        if done.ends is not None:
            done.ends(reply, outcome, facts)
    except AgentGateError as failed:
        for what in ("facts", "outcome") if done.facts else ("outcome",):
            lost(done, what, failed)
    try:
        missing: dict[str, Any] = (
            {**more, "missing": list(done.missing)} if done.missing else more
        )
        acts = done.head.get("read") is not True or bool(missing)
        record = record_of(
            done.claims,
            "outcome",
            refusal=bool(done.missing),
            promised=True,
            outcome=outcome,
            **missing,
        )
        yield record._replace(waits=acts)  # whoever asks again of a read finds it in the store
    except AgentGateError as failed:
        lost(done, "audit record", failed)
    if done.credential is not None and (failure := (yield from ended(done.credential))):
        _log.error("not_ended", what="upstream credential", txn=done.claims.txn, error=failure)
    tell_lost(done, error)


def lost(done: Redemption, what: str, error: Exception) -> None:
    """Something of the call is on no record."""
    # Told when the call ends: its result is the caller's in any case, and without the record
    # later calls may use less.
    done.missing[what] = str(error)
    _log.error("not_recorded", what=what, txn=done.claims.txn, error=str(error))
