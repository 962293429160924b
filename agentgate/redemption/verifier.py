"""The tool side: redeem a token against the call really received, burn it, and report what the
tool did; and the redeemed call as its tool sees it, whoever burned its token.

Rules: the order of a redemption is `agentgate.redemption.steps`, then the tool. `redeem` raises
only `TokenRefused`. The tool runs from `RedeemedCall.args`, a parse of the bytes whose digest
was compared.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

from agentgate.audit import AuditLog, open_audit
from agentgate.errors import (
    AgentGateError,
    ConfigError,
    NotDone,
    Overloaded,
    Refusal,
    TokenRefused,
)
from agentgate.redemption.credential import (
    Redemption,
    UpstreamCredential,
    raise_instead,
    showable,
)
from agentgate.redemption.outcome import record_outcome, record_result
from agentgate.redemption.steps import Trust, VerifierSettings, judged, redeem, supplied, told
from agentgate.shell.asking import keep_checkpoints
from agentgate.shell.bound import Bound
from agentgate.shell.drive import (
    arecord,
    awaited,
    blocking,
    drive,
    going_on,
    record,
    taking,
    to_the_end,
)
from agentgate.shell.spans import Span, Tracing
from agentgate.shell.step import Step
from agentgate.stores import AsyncStore, Store, async_ready_store, ready_store
from agentgate.token.claims import Claims
from agentgate.token.dpop import DPoP
from agentgate.token.mint import MintClaims
from agentgate.values.value_class import Json, Values

Result = TypeVar("Result")


class ProvenCall:
    """What every redeemed call offers. Made by a verifier or a `GateRedeemer`."""

    def __init__(self, done: Redemption) -> None:
        self._done = done
        self._span: Span | None = None

    def _begin(self) -> None:
        """The tool begins: what it does is in this span."""
        if self._done.tracing is not None:
            said = {"gen_ai.operation.name": "execute_tool", **told(self._done.claims)}
            self._span = self._done.tracing.begin(
                f"execute_tool {self._done.claims.tool}", said
            )

    def _end(self, error: BaseException | None) -> None:
        """The tool has ended."""
        if self._span is not None:
            self._span.end("" if error is None else type(error).__name__)
            self._span = None

    @property
    def args(self) -> Json:
        """A fresh copy of the arguments that were decided on; run the tool from these."""
        return self._done.args

    @property
    def claims(self) -> MintClaims:
        """The verified claims; of a call that was performed without a token, what was
        decided.
        """
        return self._done.claims

    @property
    def txn(self) -> str:
        """The call's id, stable across a step-up."""
        return self._done.claims.txn

    @property
    def idempotency_key(self) -> str:
        """For what the tool calls in turn: the same for each attempt at an act, under whatever
        id, until one is done or failed.
        """
        return str(self._done.head.get("key") or self.txn)

    @property
    def acts(self) -> bool:
        """Whether its tool does not only read."""
        return self._done.head.get("read") is not True

    @property
    def has_facts(self) -> bool:
        """Whether the workflow declares facts of its result."""
        return bool(self._done.head["facts"])

    @property
    def credential(self) -> UpstreamCredential:
        """The upstream credential that was fetched for this call; it ends with the call.

        Raises:
            ConfigError: the call's workflow names none.
        """
        if self._done.credential is None:
            raise ConfigError(
                "upstream",
                None,
                f"an upstream block for {self._done.claims.tool} in its workflow",
            )
        return self._done.credential

    @property
    def has_credential(self) -> bool:
        """Whether the workflow names an upstream credential for this call."""
        return self._done.credential is not None

    def check_result(self, result: Any) -> None:
        """Look for the upstream credential in what the tool returned; `record_result` does it
        too.

        Raises:
            ResultWithheld: it is in there.
        """
        if self._done.credential is not None:
            self._done.credential.check_result(result)

    def showable(self, error: BaseException | None) -> BaseException | None:
        """What the tool raised, or what stands for it if the upstream credential is in it.
        Forgets the locals of the tool's frames.
        """
        return (
            error
            if error is None or self._done.credential is None
            else showable(self._done.credential, error)
        )


class AwaitedCall(ProvenCall):
    """A redeemed call as an asynchronous context manager: leaving it reports the outcome.

    Leaving it raises NotRecorded where facts or outcome could not be recorded within two
    seconds: the tool ran all the same. For a read of `Run.perform` to which no rule refers,
    nobody waits so long: the log tells it.
    """

    @abstractmethod
    async def record_result(self, result: Result) -> Result:
        """Read the declared facts from the tool's real result and record them, once; returns
        the result.

        Args:
            result: what the tool returned: JSON values (dict, list, scalars).
        """

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Redeemer(Protocol):
    """What redeems: an `AsyncVerifier`, or a `GateRedeemer` (`agentgate.integrations.redeemer`)
    without access to the store.
    """

    async def check(
        self, token: str, *, proof: DPoP | None = None, certificate: str | None = None
    ) -> Claims:
        """See `Verifier.check`."""

    async def redeem(
        self,
        token: str,
        *,
        tool: str,
        args: Values,
        proof: DPoP | None = None,
        certificate: str | None = None,
    ) -> AwaitedCall:
        """See `Verifier.redeem`."""

    async def close(self) -> None:
        """Close what is open."""

    @property
    def tracing(self) -> Tracing | None:
        """Where spans go; None: nowhere."""


async def taken(redeeming: Coroutine[Any, Any, Result]) -> Result:
    """What a redemption gives. Where who asked is cancelled meanwhile, the call may be spent
    and no tool runs: that goes on record.
    """
    task = going_on(redeeming)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _ = going_on(_left(task))
        raise


async def _left(redeeming: asyncio.Future[Any]) -> None:
    with suppress(AgentGateError):
        call = await redeeming
        if isinstance(call, AwaitedCall):
            await call.__aexit__(
                NotDone, NotDone("whoever asked for it went away before the tool began"), None
            )


OneStore = TypeVar("OneStore", bound=Store | AsyncStore)


class _CallBase(ProvenCall, Generic[OneStore]):
    """A redeemed call of a verifier with a store."""

    def __init__(
        self, done: Redemption, store: OneStore, audit: AuditLog, bound: Bound
    ) -> None:
        super().__init__(done)
        self._store = store
        self._audit = audit
        self._bound = bound


class RedeemedCall(_CallBase[Store]):
    """A call whose token was burned. Use as a context manager: leaving it reports the outcome.

    Leaving it raises NotRecorded where facts or outcome could not be recorded within two
    seconds: the tool ran all the same.
    """

    def record_result(self, result: Result) -> Result:
        """Read the declared facts from the tool's real result and record them, once; returns
        the result.

        Args:
            result: what the tool returned: JSON values (dict, list, scalars).
        """
        steps = record_result(self._done, result)
        if self._done.ends is None:
            record(steps, self._store, self._audit, self._bound)
        else:  # they are kept until the end
            drive(steps, self._store, self._audit)
        return result

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        shown = self.showable(error)
        self._end(shown)
        if self._bound.under_way:  # others use the time in which this one waits
            self._done.queue = None
        record(record_outcome(self._done, shown), self._store, self._audit, self._bound)
        raise_instead(shown, error)


class AsyncRedeemedCall(_CallBase[AsyncStore], AwaitedCall):
    """`RedeemedCall`, awaited: an asynchronous context manager."""

    async def record_result(self, result: Result) -> Result:
        """See `RedeemedCall.record_result`."""
        await arecord(record_result(self._done, result), self._store, self._audit, self._bound)
        return result

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        shown = self.showable(error)
        self._end(shown)
        self._done.queue = None  # nobody else waits while its reply is awaited
        await to_the_end(
            arecord(record_outcome(self._done, shown), self._store, self._audit, self._bound)
        )
        raise_instead(shown, error)


OneCall = TypeVar("OneCall")


class _VerifierBase(Generic[OneStore, OneCall]):
    """What both verifiers are made of; `_call`: what a redemption is to their callers."""

    _call: Callable[[Redemption, OneStore, AuditLog, Bound], OneCall]

    def __init__(
        self, who: Trust, store: OneStore, audit: AuditLog, bound: Bound | None = None
    ) -> None:
        self._who = who
        self._store = store
        self._audit = audit
        self._bound = bound or Bound()

    @property
    def tracing(self) -> Tracing | None:
        """Where spans go; None: nowhere."""
        return self._who.tracing


def _redeem(
    self: _VerifierBase[Any, OneCall],
    token: str,
    *,
    tool: str,
    args: Values,
    proof: DPoP | None = None,
    certificate: str | None = None,
) -> Generator[Step, Any, OneCall]:
    """Verify the token against the call really received, and burn it.

    Args:
        self: the verifier.
        token: the credential as received.
        tool: the tool really called.
        args: the arguments really received (JSON values).
        proof: the DPoP proof and the request it came with; required for a token that names a
            key (`cnf.jkt`).
        certificate: SHA-256 thumbprint (base64url) of the client's certificate, by whoever
            ended its TLS connection and never by what the client sent; required for a token
            that names one (`cnf.x5t#S256`, RFC 8705 section 3).

    Raises:
        TokenRefused: and nothing else.
    """
    steps = redeem(
        self._who,
        token,
        tool,
        args,
        proof,
        certificate=certificate,
        brokers=tuple(self._who.brokers),
    )
    del token  # a traceback with locals must not show it
    done: Redemption = yield from steps
    done = yield from supplied(self._who, done)
    return self._call(done, self._store, self._audit, self._bound)


def _check(
    self: _VerifierBase[Any, Any],
    token: str,
    *,
    proof: DPoP | None = None,
    certificate: str | None = None,
) -> Generator[Step, Any, Claims]:
    """Judge a token without its call, before more of a request is read: `redeem` judges it
    again. Nothing is burned.

    Args:
        self: the verifier.
        token: the credential as received.
        proof: as for `redeem`.
        certificate: as for `redeem`.

    Raises:
        TokenRefused: and nothing else. A token that passes may still be used, revoked or for
            another call.
    """
    return judged(self._who, token, proof, time.time(), certificate=certificate)


def _busy(error: Overloaded) -> NoReturn:
    raise TokenRefused.of(error.failure(reason=Refusal.OVERLOAD))


class Verifier(_VerifierBase[Store, RedeemedCall]):
    """Redeems call tokens for one tool server."""

    _call = RedeemedCall

    @classmethod
    @taking(VerifierSettings)
    def open(cls, settings: VerifierSettings) -> Verifier:
        """Open a verifier.

        Raises:
            ConfigError: something is missing or unusable. KeyRefused: an unusable key.
                StoreUnavailable: the store fails its start-up check.
        """
        trust = settings.trust()
        log = open_audit(settings.audit, settings.heads, settings.checkpoints)
        store = ready_store(settings.store, settings.serving)
        keep_checkpoints(log, store, settings.audience)
        return cls(trust, store, log, Bound(settings.at_once))

    check = blocking(_check, busy=_busy)
    redeem = blocking(_redeem, busy=_busy)

    def close(self) -> None:
        """Close the log, whose last checkpoint the store keeps, and the store."""
        self._bound.tell_rest(self._audit)
        self._audit.close()
        self._store.close()


class AsyncVerifier(_VerifierBase[AsyncStore, AsyncRedeemedCall]):
    """`Verifier`, awaited."""

    _call = AsyncRedeemedCall

    @classmethod
    @taking(VerifierSettings)
    async def open(cls, settings: VerifierSettings) -> AsyncVerifier:
        """See `Verifier.open`."""
        trust = await asyncio.to_thread(settings.trust)
        log = open_audit(settings.audit, settings.heads, settings.checkpoints)
        store = await async_ready_store(settings.store, settings.serving)
        keep_checkpoints(log, store, settings.audience)
        return cls(trust, store, log, Bound(settings.at_once))

    check = awaited(_check, busy=_busy)
    redeem = awaited(_redeem, busy=_busy, around=taken)

    async def close(self) -> None:
        """See `Verifier.close`."""
        self._bound.tell_rest(self._audit)
        await asyncio.to_thread(self._audit.close)
        await self._store.close()
