"""The tool side: redeem a token against the call really received, burn it, and report what the tool did.

Rules: the checks of `agentgate.token.claims` up to the call binding, then room in the log, then the burn, then the durable record, then the
tool. `redeem` raises only `TokenRefused`. The tool runs from `RedeemedCall.args`, a parse of the bytes whose digest was compared. This
side reads the facts from the real result, once, from the fields that the workflow declared; a failed call has none.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

import structlog

from agentgate.audit import AuditLog, open_audit
from agentgate.errors import (
    AgentGateError,
    AuditUnavailable,
    CanonicalError,
    NameRefused,
    NotDone,
    NotRecorded,
    Overloaded,
    Refusal,
    StoreUnavailable,
    TokenRefused,
)
from agentgate.redemption.facts import extract
from agentgate.redemption.records import record_of
from agentgate.redemption.trust import Trust, VerifierSettings
from agentgate.shell.bound import Bound
from agentgate.shell.drive import arecord, record
from agentgate.shell.step import Afterwards, Flow, Room, Step
from agentgate.shell.twins import awaited, blocking, taking
from agentgate.stores import AsyncStore, Store, async_ready_store, ops, ready_store
from agentgate.token.claims import Claims, check_call, check_proof, check_token
from agentgate.token.dpop import DPoP
from agentgate.token.mint import binding
from agentgate.values.canonical import canonical, parse
from agentgate.values.request import Args, CanonicalArguments

Result = TypeVar("Result")
_log = structlog.get_logger("agentgate.redemption.verifier")
_UNSPENT = "an unspent, unrevoked token of this store's history"
_WHOLE = "a store that has lost nothing of this tenant (agentgate store reconcile)"


@dataclass(slots=True)
class Redemption:
    """What a redemption proved, and what became of its call.

    Attributes:
        claims, data, head: the verified claims, the canonical arguments, the head of the call's record.
        ended: whether the call has ended.
        missing: what could not be recorded of it -> why.
    """

    claims: Claims
    data: bytes
    head: Mapping[str, Any]
    ended: bool = False
    missing: dict[str, str] = field(default_factory=dict)


def redeem(who: Trust, token: str, tool: str, args: Args, proof: DPoP | None) -> Flow:
    """Steps 3 to 13: verify, bind to the call, burn, record. Returns a `Redemption`.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    now = time.time()
    try:
        if type(tool) is not str:
            raise TokenRefused(Refusal.TOOL, "tool", type(tool).__name__, "a tool's name")
        claims = check_token(token, who.trusted_keys(), issuer=who.issuer, tenants=who.tenants, audience=who.audience, now=now)
        if proof is not None and type(proof) is not DPoP:
            raise TokenRefused(Refusal.PROOF, "proof", type(proof).__name__, "a DPoP")
        check_proof(claims, token, proof, now)
        data = args.data if type(args) is CanonicalArguments else canonical(dict(args), "args")  # costs most, so only for a good token
    except (CanonicalError, TypeError, ValueError, AttributeError) as error:
        raise TokenRefused(Refusal.ARGUMENTS, "args", type(error).__name__, "arguments with a canonical form") from None
    finally:
        del token  # a traceback with locals must not show it
    check_call(claims, tool, data)
    bound = binding(claims.call_digest, claims.aud, claims.cnf_jkt)
    workflow, version, _ = claims.workflow
    subjects = ops.Subjects(
        claims.client_id, claims.sub if "user" in claims.identity else "", tool, ops.workflow_subject(workflow, version)
    )
    sent = who.history.seen(claims.tenant)
    try:
        yield Room()
    except AuditUnavailable as error:  # and the token is not burned
        raise TokenRefused(Refusal.AUDIT, "audit", str(error), "room for the record of the redemption") from None
    try:
        op = ops.burn(ops.BurnRequest(claims.tenant, claims.jti, claims.gen, bound, claims.run, claims.call_digest, subjects, sent))
        burned = ops.parse_burn(op, (yield op))
    except NameRefused as error:
        raise TokenRefused(Refusal.STORE, "store", str(error), "names that a store can hold") from None
    except StoreUnavailable as error:
        yield from not_run(claims)
        raise TokenRefused(Refusal.STORE, "store", str(error), "a state store that answers in time") from None
    if burned.kind != "ok":
        raise TokenRefused(Refusal(burned.kind), "jti", burned.kind, _WHOLE if burned.kind == "lost" else _UNSPENT)
    who.history.see(claims.tenant, sent, burned.history)
    try:
        noted: dict[str, Any] = who.history.note(burned.history)
        yield record_of(claims, "redemption", promised=True, tool=tool, call_digest=claims.call_digest, **noted)
        head = parse(burned.head)
    except AuditUnavailable as error:
        yield from not_run(claims)
        raise TokenRefused(Refusal.AUDIT, "audit", str(error), "a durable record of the redemption before the tool runs") from None
    except (TypeError, ValueError):
        yield from not_run(claims)
        raise TokenRefused(Refusal.STORE, "call record", "unreadable", "the record the gate wrote") from None
    return Redemption(claims, data, head)


def not_run(claims: Claims) -> Flow:
    """The token may be burned, and the tool is not going to run: without this its outcome would be unknown."""
    try:
        yield Afterwards(ops.record_outcome(claims.tenant, claims.run, claims.call_digest, "not_run", claims.jti))
    except StoreUnavailable:  # the caller is refused, and the log says that nothing ran
        with suppress(AuditUnavailable):
            yield record_of(claims, "outcome", refusal=True, promised=True, outcome="not_run", missing=["outcome"])


def record_result(done: Redemption, result: Any) -> Generator[Step, Any, None]:
    """Record the declared facts of a redeemed call's real result. They are read at once: no deadline runs while a long text is searched."""
    facts: bytes | None = None
    try:
        declared = {name: tuple(path) for name, path in done.head["facts"].items()}
        facts = canonical([dict(row) for row in extract(declared, result)] if declared else [])
    except AgentGateError as error:
        _lost(done, "facts", error)
    return _record_facts(done, facts)


def _record_facts(done: Redemption, facts: bytes | None) -> Generator[Step, Any, None]:
    try:
        if facts is not None:
            op = ops.record_result(done.claims.tenant, done.claims.run, done.claims.call_digest, facts)
            ops.parse_record(op, (yield op))
    except AgentGateError as error:
        _lost(done, "facts", error)


def _record_outcome(done: Redemption, error: BaseException | None) -> Generator[Step, Any, None]:
    """Record how a redeemed call ended: what the tool raised, if anything. What is missing in the store is on the audit record.

    Raises (through the driver):
        NotRecorded: something of the call is on no record. Where the tool raised, that says it instead, in a note.
    """
    done.ended = True
    nothing_happened = isinstance(error, NotDone) or (isinstance(error, Exception) and done.head.get("read") is True)
    outcome: ops.Outcome = "done" if error is None else "failed" if nothing_happened else "unknown"
    try:
        op = ops.record_outcome(done.claims.tenant, done.claims.run, done.claims.call_digest, outcome, done.claims.jti)
        ops.parse_record(op, (yield op))
    except AgentGateError as failed:
        _lost(done, "outcome", failed)
    try:
        missing: dict[str, Any] = {"missing": list(done.missing)} if done.missing else {}
        yield record_of(done.claims, "outcome", refusal=bool(missing), promised=True, outcome=outcome, **missing)
    except AgentGateError as failed:
        _lost(done, "audit record", failed)
    if done.missing:
        lost = NotRecorded(done.claims.txn, tuple(done.missing), next(iter(done.missing.values())))
        if error is None:
            raise lost
        error.add_note(str(lost))


def _lost(done: Redemption, what: str, error: Exception) -> None:
    # Told when the call ends: its result is the caller's in any case, and without the record later calls may use less.
    done.missing[what] = str(error)
    _log.error("not_recorded", what=what, txn=done.claims.txn, error=str(error))


OneStore = TypeVar("OneStore", bound=Store | AsyncStore)


class _CallBase(Generic[OneStore]):
    """What both redeemed calls offer: the proven call."""

    def __init__(self, done: Redemption, store: OneStore, audit: AuditLog, bound: Bound) -> None:
        self._done, self._store, self._audit, self._bound = done, store, audit, bound

    @property
    def args(self) -> dict[str, Any]:
        """A fresh copy of the arguments that were decided on; run the tool from these."""
        fresh: dict[str, Any] = parse(self._done.data)
        return fresh

    @property
    def claims(self) -> Claims:
        """The verified claims."""
        return self._done.claims

    @property
    def txn(self) -> str:
        """The call's id, stable across a step-up; a good idempotency key."""
        return self._done.claims.txn


class RedeemedCall(_CallBase[Store]):
    """A call whose token was burned. Use as a context manager: leaving it reports the outcome.

    Leaving it raises NotRecorded where facts or outcome could not be recorded within two seconds: the tool ran all the same.
    """

    def record_result(self, result: Result) -> Result:
        """Read the declared facts from the tool's real result and record them, once; returns the result.

        Args:
            result: what the tool returned: JSON values (dict, list, scalars).
        """
        record(record_result(self._done, result), self._store, self._audit, self._bound)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        record(_record_outcome(self._done, error), self._store, self._audit, self._bound)


class AsyncRedeemedCall(_CallBase[AsyncStore]):
    """`RedeemedCall`, awaited: an asynchronous context manager."""

    async def record_result(self, result: Result) -> Result:
        """See `RedeemedCall.record_result`."""
        await arecord(record_result(self._done, result), self._store, self._audit, self._bound)
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await arecord(_record_outcome(self._done, error), self._store, self._audit, self._bound)


class _VerifierBase(Generic[OneStore]):
    """What both verifiers are made of."""

    def __init__(self, who: Trust, store: OneStore, audit: AuditLog, bound: Bound | None = None) -> None:
        self._who, self._store, self._audit, self._bound = who, store, audit, bound or Bound()


def _redeem(
    self: _VerifierBase[Any], token: str, *, tool: str, args: Mapping[str, Any], proof: DPoP | None = None
) -> Generator[Step, Any, Redemption]:
    """Verify the token against the call really received, and burn it.

    Args:
        self: the verifier.
        token: the credential as received.
        tool: the tool really called.
        args: the arguments really received (JSON values).
        proof: the DPoP proof and the request it came with; required for a token with `cnf`.

    Raises:
        TokenRefused: and nothing else.
    """
    steps = redeem(self._who, token, tool, args, proof)
    del token  # a traceback with locals must not show it
    done: Redemption = yield from steps
    return done


def _busy(error: Overloaded) -> NoReturn:
    raise TokenRefused(Refusal.OVERLOAD, "load", error.got, error.expected)


class Verifier(_VerifierBase[Store]):
    """Redeems call tokens for one tool server."""

    @classmethod
    @taking(VerifierSettings)
    def open(cls, settings: VerifierSettings) -> Verifier:
        """Open a verifier.

        Raises:
            ConfigError: something is missing or unusable. KeyRefused: an unusable key. StoreUnavailable: the store fails
                its start-up check.
        """
        trust, log = settings.trust(), open_audit(settings.audit, settings.heads)
        return cls(trust, ready_store(settings.store), log, Bound(settings.at_once))

    redeem = blocking(_redeem, lambda self, done: RedeemedCall(done, self._store, self._audit, self._bound), busy=_busy)

    def close(self) -> None:
        """Close the store and the log."""
        self._bound.tell_rest(self._audit)
        self._store.close()
        self._audit.close()


class AsyncVerifier(_VerifierBase[AsyncStore]):
    """`Verifier`, awaited."""

    @classmethod
    @taking(VerifierSettings)
    async def open(cls, settings: VerifierSettings) -> AsyncVerifier:
        """See `Verifier.open`."""
        trust, log = settings.trust(), open_audit(settings.audit, settings.heads)
        return cls(trust, await async_ready_store(settings.store), log, Bound(settings.at_once))

    redeem = awaited(_redeem, lambda self, done: AsyncRedeemedCall(done, self._store, self._audit, self._bound), busy=_busy)

    async def close(self) -> None:
        """Close the store and the log."""
        self._bound.tell_rest(self._audit)
        await self._store.close()
        self._audit.close()
