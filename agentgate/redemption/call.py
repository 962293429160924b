"""A redeemed call as its tool sees it, whoever burned its token."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from agentgate.errors import AgentGateError, ConfigError, NotDone
from agentgate.redemption.credential import UpstreamCredential, showable
from agentgate.redemption.steps import told
from agentgate.redemption.upstream import Redemption
from agentgate.shell.drive import going_on
from agentgate.shell.spans import Span, Tracing
from agentgate.token.claims import Claims
from agentgate.token.dpop import DPoP
from agentgate.token.mint import MintClaims

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
    def args(self) -> dict[str, Any]:
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
    seconds: the tool ran all the same.
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
        args: Mapping[str, Any],
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
