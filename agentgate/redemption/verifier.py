"""The tool side: redeem a token against the call really received, burn it, and report what the tool did.

Rules: the checks of `agentgate.token.claims` up to the call binding, then room in the log, then the burn, then the durable record, then the
upstream credential, if the workflow names one, then the tool. `redeem` raises only `TokenRefused`. The tool runs from `RedeemedCall.args`,
a parse of the bytes whose digest was compared.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

from agentgate.audit import AuditLog, open_audit
from agentgate.errors import (
    AuditUnavailable,
    CanonicalError,
    ConfigError,
    NameRefused,
    Overloaded,
    Refusal,
    StoreUnavailable,
    TokenRefused,
    UpstreamRefused,
)
from agentgate.redemption.credential import UpstreamCredential, raise_instead, showable
from agentgate.redemption.outcome import not_run, record_outcome, record_result
from agentgate.redemption.records import record_of
from agentgate.redemption.trust import Trust, VerifierSettings
from agentgate.redemption.upstream import Redemption, ended, fetch
from agentgate.shell.bound import Bound
from agentgate.shell.drive import arecord, record
from agentgate.shell.step import Apart, Flow, Record, Room, Step
from agentgate.shell.twins import awaited, blocking, taking
from agentgate.stores import AsyncStore, Store, async_ready_store, ops, ready_store
from agentgate.token.claims import Claims, check_call, check_proof, check_token
from agentgate.token.dpop import DPoP
from agentgate.token.mint import binding
from agentgate.values.canonical import canonical, parse
from agentgate.values.request import Args, CanonicalArguments

Result = TypeVar("Result")
_UNSPENT = "an unspent, unrevoked token of this store's history"
_BROKERS = "a broker of this name in `brokers` of whoever redeems; the token is not burned"
_WHOLE = "a store that has lost nothing of this tenant (agentgate store reconcile)"


def judged(who: Trust, token: str, proof: DPoP | None, now: float) -> Generator[Step, Any, Claims]:
    """Steps 3 to 10: what can be said of a token without its call. `now`: POSIX seconds.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    try:
        keys = yield from who.newest_keys()
        claims = check_token(token, keys, issuer=who.issuer, tenants=who.tenants, audience=who.audience, now=now)
        if proof is not None and type(proof) is not DPoP:
            raise TokenRefused(Refusal.PROOF, "proof", type(proof).__name__, "a DPoP")
        check_proof(claims, token, proof, now)
    finally:
        del token  # a traceback with locals must not show it
    return claims


def redeem(
    who: Trust, token: str, tool: str, args: Args, proof: DPoP | None, *, attempt: str = "", brokers: tuple[str, ...] | None = None
) -> Flow:
    """Steps 3 to 13: verify, bind to the call, burn, record. Returns a `Redemption`, still without an upstream credential.

    Somebody else who runs the tool may name this `attempt`, and the `brokers` that it has; None: nobody tells.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    steps = judged(who, token, proof, time.time())
    del token  # a traceback with locals must not show it
    try:
        if type(tool) is not str:
            raise TokenRefused(Refusal.TOOL, "tool", type(tool).__name__, "a tool's name")
        claims: Claims = yield from steps
        data = args.data if type(args) is CanonicalArguments else canonical(dict(args), "args")  # costs most, so only for a good token
    except (CanonicalError, TypeError, ValueError, AttributeError) as error:
        raise TokenRefused(Refusal.ARGUMENTS, "args", type(error).__name__, "arguments with a canonical form") from None
    check_call(claims, tool, data)
    bound = binding(claims.call_digest, claims.aud, claims.cnf_jkt)
    workflow, version, _ = claims.workflow
    subjects = ops.Subjects(
        claims.client_id, claims.sub if "user" in claims.identity else "", tool, ops.workflow_subject(workflow, version)
    )
    sent, attempt = who.history.seen(claims.tenant), attempt or secrets.token_hex(16)
    try:
        yield Room()
    except AuditUnavailable as error:  # and the token is not burned
        raise TokenRefused(Refusal.AUDIT, "audit", str(error), "room for the record of the redemption") from None
    try:
        fields = (claims.tenant, claims.jti, claims.gen, bound, claims.run, claims.call_digest, subjects, sent, attempt, brokers)
        op = ops.burn(ops.BurnRequest(*fields))
        burned = ops.parse_burn(op, (yield op))
    except NameRefused as error:
        raise TokenRefused(Refusal.STORE, "store", str(error), "names that a store can hold") from None
    except StoreUnavailable as error:
        yield from not_run(claims, attempt=attempt)
        raise TokenRefused(Refusal.STORE, "store", str(error), "a state store that answers in time") from None
    if burned.kind == "upstream":
        raise TokenRefused(Refusal.UPSTREAM, "upstream.broker", ascii(burned.head.decode("utf-8", "replace")), _BROKERS)
    if burned.kind != "ok":
        raise TokenRefused(Refusal(burned.kind), "jti", burned.kind, _WHOLE if burned.kind == "lost" else _UNSPENT)
    who.history.see(claims.tenant, sent, burned.history)
    try:
        noted: dict[str, Any] = who.history.note(burned.history)
        yield record_of(claims, "redemption", promised=True, tool=tool, call_digest=claims.call_digest, **noted)
        done = Redemption(claims, data, parse(burned.head))
        _ = done.asked  # readable
    except AuditUnavailable as error:
        yield from not_run(claims)
        raise TokenRefused(Refusal.AUDIT, "audit", str(error), "a durable record of the redemption before the tool runs") from None
    except (TypeError, ValueError, KeyError):
        yield from not_run(claims)
        raise TokenRefused(Refusal.STORE, "call record", "unreadable", "the record the gate wrote") from None
    return done


def supplied(who: Trust, done: Redemption) -> Flow:
    """The redemption with the upstream credential that its workflow names, if it names one. Without it the call is not run.

    Raises (through the driver):
        TokenRefused: nothing else.
    """
    claims, asked = done.claims, done.asked
    if asked is not None:
        try:
            done.credential = yield from fetch(who.brokers, done, asked)
            got: dict[str, Any] = {"broker": asked.broker, "role": asked.settings.get("role"), "expires_at": done.credential.expires_at}
            yield Apart(_written(record_of(claims, "credential", promised=True, **got)))  # the time of the call may be used up
        except (UpstreamRefused, AuditUnavailable) as error:
            if done.credential is not None:
                yield from ended(done.credential)
            yield Apart(not_run(claims, why=str(error)))
            if isinstance(error, AuditUnavailable):
                raise TokenRefused(Refusal.AUDIT, "audit", str(error), "a durable record of the credential before the tool runs") from None
            raise TokenRefused(Refusal.UPSTREAM, error.field, error.got, error.expected) from None
    return done


def _written(record: Record) -> Flow:
    yield record


OneStore = TypeVar("OneStore", bound=Store | AsyncStore)


class _CallBase(Generic[OneStore]):
    """What both redeemed calls offer: the proven call."""

    def __init__(self, done: Redemption, store: OneStore, audit: AuditLog, bound: Bound) -> None:
        self._done, self._store, self._audit, self._bound = done, store, audit, bound

    @property
    def args(self) -> dict[str, Any]:
        """A fresh copy of the arguments that were decided on; run the tool from these."""
        return self._done.args

    @property
    def claims(self) -> Claims:
        """The verified claims."""
        return self._done.claims

    @property
    def txn(self) -> str:
        """The call's id, stable across a step-up; a good idempotency key."""
        return self._done.claims.txn

    @property
    def credential(self) -> UpstreamCredential:
        """The upstream credential that was fetched for this call; it ends with the call.

        Raises:
            ConfigError: the call's workflow names none.
        """
        if self._done.credential is None:
            raise ConfigError("upstream", None, f"an upstream block for {self._done.claims.tool} in its workflow")
        return self._done.credential

    @property
    def has_credential(self) -> bool:
        """Whether the workflow names an upstream credential for this call."""
        return self._done.credential is not None

    def check_result(self, result: Any) -> None:
        """Look for the upstream credential in what the tool returned; `record_result` does it too.

        Raises:
            ResultWithheld: it is in there.
        """
        if self._done.credential is not None:
            self._done.credential.check_result(result)

    def showable(self, error: BaseException | None) -> BaseException | None:
        """What the tool raised, or what stands for it if the upstream credential is in it. Forgets the locals of the tool's frames."""
        return error if error is None or self._done.credential is None else showable(self._done.credential, error)


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
        shown = self.showable(error)
        record(record_outcome(self._done, shown), self._store, self._audit, self._bound)
        raise_instead(shown, error)


class AsyncRedeemedCall(_CallBase[AsyncStore]):
    """`RedeemedCall`, awaited: an asynchronous context manager."""

    async def record_result(self, result: Result) -> Result:
        """See `RedeemedCall.record_result`."""
        await arecord(record_result(self._done, result), self._store, self._audit, self._bound)
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shown = self.showable(error)
        await arecord(record_outcome(self._done, shown), self._store, self._audit, self._bound)
        raise_instead(shown, error)


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
    steps = redeem(self._who, token, tool, args, proof, brokers=tuple(self._who.brokers))
    del token  # a traceback with locals must not show it
    done: Redemption = yield from steps
    return (yield from supplied(self._who, done))  # type: ignore[no-any-return]  # a Redemption


def _check(self: _VerifierBase[Any], token: str, *, proof: DPoP | None = None) -> Generator[Step, Any, Claims]:
    """Judge a token without its call, before more of a request is read: `redeem` judges it again. Nothing is burned.

    Args:
        self: the verifier.
        token: the credential as received.
        proof: as for `redeem`.

    Raises:
        TokenRefused: and nothing else. A token that passes may still be used, revoked or for another call.
    """
    return judged(self._who, token, proof, time.time())


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

    check = blocking(_check, busy=_busy)
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
        trust, log = await asyncio.to_thread(settings.trust), open_audit(settings.audit, settings.heads)
        return cls(trust, await async_ready_store(settings.store), log, Bound(settings.at_once))

    check = awaited(_check, busy=_busy)
    redeem = awaited(_redeem, lambda self, done: AsyncRedeemedCall(done, self._store, self._audit, self._bound), busy=_busy)

    async def close(self) -> None:
        """Close the store and the log."""
        self._bound.tell_rest(self._audit)
        await self._store.close()
        self._audit.close()
