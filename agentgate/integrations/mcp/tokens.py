"""Where a client's interceptor gets a token for one call: from a run of this process, or from a
served gate.

Rules: what is decided on is the arguments' canonical form and the tool's definition as its
server lists it now. A token for another server than the one at the other end of the connection
is not handed out. A call that a person must release is held, or waited for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from time import monotonic
from typing import Any, Protocol, assert_never, cast
from urllib.parse import urlencode

import structlog

from agentgate.decision.answer import Allow, Decision, Deny, StepUp
from agentgate.errors import ConfigError, KeysUnavailable, StoreUnavailable
from agentgate.gate.run import AsyncRun, Run
from agentgate.identity.fetch import ask
from agentgate.integrations.exchange import (
    Answered,
    AskedFor,
    Credentials,
    ExchangedToken,
    ExchangeRefused,
    Pause,
    TokenEndpoint,
    Waiting,
    asking,
)
from agentgate.integrations.mcp.carried import HeldCall
from agentgate.shell.drive import in_a_thread
from agentgate.token.signing import RunKey
from agentgate.values.canonical import parse
from agentgate.values.refusal import NOT_SHOWN, AnswerRefused, Code, RunRefused, misformed
from agentgate.values.request import CanonicalArguments
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Tool

_log = structlog.get_logger("agentgate.integrations.mcp")
_SECONDS = 30.0  # of one request to a served gate


@value_class
class Granted:
    """A token for one call.

    Attributes:
        headers: of one request to the server, with a fresh proof.
        secret: what no result may hold.
        void: ends the token in the store unless the server has spent it; raises AgentGateError
            where nobody knows that it is ended.
    """

    headers: Callable[[], dict[str, str]] = field(repr=False)
    secret: str = field(repr=False)
    void: Callable[[], Awaitable[object]] = field(repr=False)


@value_class
class NoToken:
    """No token: the closed code; the hold, if a person must release the call; what of its form
    is wrong; until when a limit holds.
    """

    code: Code
    hold: HeldCall | None = None
    misformed: Sequence[str] = ()
    until: str = ""


class CallTokens(Protocol):
    """Whoever gives tokens for calls of one server."""

    def offers(self, tool: str, definition: str, audience: str) -> bool:
        """Whether the model may see a tool that is listed like this."""

    async def ask(
        self,
        tool: str,
        args: CanonicalArguments,
        *,
        tool_call_id: str | None,
        definition: str,
        audience: str,
        wait: float,
    ) -> Granted | NoToken:
        """A token for exactly this call; `wait`: seconds to wait for a person."""


@value_class
class RunTokens:
    """Tokens of a run that this process opened."""

    _run: Run | AsyncRun

    def offers(self, tool: str, definition: str, audience: str) -> bool:
        """Only a tool of the run's workflow, of this server, with the definition that was
        reviewed.
        """
        rule = self.declared(tool)
        return (
            rule is not None
            and rule.redeem == "server"
            and rule.audience == audience
            and rule.definition in {"", definition}
        )

    async def ask(
        self,
        tool: str,
        args: CanonicalArguments,
        *,
        tool_call_id: str | None,
        definition: str,
        audience: str,
        wait: float,
    ) -> Granted | NoToken:
        """See `CallTokens`."""
        run = self._run
        rule = self.declared(tool)
        if rule and (rule.redeem != "server" or rule.audience != audience):
            got = f"redeem: {rule.redeem}, audience {rule.audience}"
            expected = f"redeem: server, audience {audience}"
            _log.warning(
                "call_refused",
                tool=tool,
                code=str(Code.NOT_PERMITTED),
                reasons=[f"tools.{tool}: got {got}, expected {expected}"],
            )
            return NoToken(Code.NOT_PERMITTED)
        named = run.call_id(tool, args) if tool_call_id is None else tool_call_id
        for last in (wait <= 0, True):
            decision: Decision = await _on(
                run.authorize, tool, args, tool_call_id=named, definition=definition
            )
            if not isinstance(decision, StepUp) or last:
                break
            with suppress(StoreUnavailable, AnswerRefused):  # what counts is decided anew
                await _on(run.wait, decision.hold, timeout=wait)
        match decision:
            case Allow(token=token):
                return Granted(
                    lambda: token.headers("POST", audience),
                    token.reveal(),
                    lambda: _on(run.void, token),
                )
            case StepUp(hold=hold):
                _log.info(
                    "call_held",
                    tool=tool,
                    tool_call_id=named,
                    run=run.id,
                    hold=hold.id,
                    rules=list(hold.rules),
                )
                return NoToken(
                    Code.NEEDS_APPROVAL, HeldCall(hold.id, hold.question.whom, hold.expires_at)
                )
            case Deny(code=code, failures=failures):
                return NoToken(code, misformed=misformed(failures), until=decision.until)
            case _:
                assert_never(decision)

    def declared(self, tool: str) -> Tool | None:
        """The tool in the run's workflow."""
        try:
            return self._run.workflow.tools.get(tool)
        except RunRefused:  # it is not in force any more: `authorize` says why
            return None


class ExchangeTokens:
    """Tokens of a served gate, by token exchange (RFC 8693)."""

    def __init__(
        self,
        gate: str,
        who: Credentials,
        *,
        workflow: str,
        run: str | None = None,
        tenant: str | None = None,
        key: RunKey | None = None,
        address: str | None = None,
        deferred: bool = False,
    ) -> None:
        """A gate by its issuer URL; the other parameters are those of `TokenEndpoint` and
        `AskedFor`.

        With `deferred` (the gate's setting of this name) the gate says whom a held call waits
        for, and can be waited for.

        Raises:
            ConfigError: a URL that is neither https nor loopback.
        """
        self._endpoint = TokenEndpoint(gate, key or RunKey.generate(), address=address)
        self._who = who
        self._workflow = workflow
        self._named = {"run": run, "tenant": tenant}
        self._deferred = deferred

    def offers(self, tool: str, definition: str, audience: str) -> bool:  # noqa: ARG002 - the gate says it with each token
        """Not known before a token is asked for; the definition is compared then."""
        return True

    async def ask(
        self,
        tool: str,
        args: CanonicalArguments,
        *,
        tool_call_id: str | None,
        definition: str,
        audience: str,
        wait: float,
    ) -> Granted | NoToken:
        """See `CallTokens`."""
        asked = AskedFor(
            tool,
            self._workflow,
            parse(args.data),
            tool_call_id=tool_call_id,
            resource=audience,
            **self._named,
        )
        try:
            token = await self._exchanged(asked, wait)
        except ExchangeRefused as error:
            known = {str(code): code for code in Code}
            nobody = error.status in {429, 503} or error.error == "status 0"
            code = (
                Code.UNAVAILABLE if nobody else known.get(error.description, Code.NOT_PERMITTED)
            )
            return _refused(asked, code, str(error), listed=bool(definition))
        if isinstance(token, NoToken):
            return token
        if token.audience != audience:
            return _refused(asked, Code.NOT_PERMITTED, f"a token for {token.audience}")
        if token.definition != definition:
            return _refused(
                asked,
                Code.NOT_PERMITTED,
                f"the server lists the tool as {definition}, the gate knows {token.definition}",
            )
        return Granted(
            lambda: token.headers("POST", audience), token.reveal(), lambda: self._void(token)
        )

    async def _void(self, token: ExchangedToken) -> None:
        status = 0
        for _ in range(2):  # the second time with the nonce that the gate gave
            url, form, headers = self._endpoint.revocation(token, self._who)
            status, more, data = await _post(url, form, headers)
            if status == 200:
                return
            if not self._endpoint.wants_nonce(status, more, data):
                break
        raise ExchangeRefused(
            status, "invalid_answer", "the gate did not say that the token is void"
        )

    async def _exchanged(self, asked: AskedFor, wait: float) -> ExchangedToken | NoToken:
        held = list[Waiting]()
        end = monotonic() + wait
        steps = asking(
            self._endpoint, asked, self._who, held.append if self._deferred else None
        )
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                return cast("ExchangedToken", done.value)
            answer = None
            if isinstance(step, Pause):
                if monotonic() + step.seconds > end:
                    return NoToken(
                        Code.NEEDS_APPROVAL, HeldCall(held[0].hold, held[0].whom, held[0].until)
                    )
                await asyncio.sleep(step.seconds)
                continue
            answer = await _post(self._endpoint.url, step.form, step.headers)


async def _post(url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answered:
    """What a served gate answers to a form."""
    sent = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    try:
        got = await in_a_thread(
            ask, "POST", url, urlencode(form).encode(), sent, private=True, seconds=_SECONDS
        )
    except KeysUnavailable:
        return Answered(0)
    return Answered(
        got.status,
        {"DPoP-Nonce": nonce} if (nonce := got.headers["DPoP-Nonce"]) else {},
        got.body,
    )


def _refused(asked: AskedFor, code: Code, why: str, *, listed: bool = True) -> NoToken:
    tool = asked.tool if listed else NOT_SHOWN  # a model may have made it up
    _log.warning(
        "call_refused",
        tool=tool,
        tool_call_id=asked.tool_call_id,
        run=asked.run,
        code=str(code),
        reasons=[why],
    )
    return NoToken(code)


async def _on(method: Any, *args: Any, **kwargs: Any) -> Any:
    """A method of a run, blocking or awaited."""
    return await (
        method(*args, **kwargs)
        if inspect.iscoroutinefunction(method)
        else in_a_thread(method, *args, **kwargs)
    )


def tokens_of(source: Run | AsyncRun | CallTokens) -> CallTokens:
    """Tokens of a run, or what gives tokens already.

    Raises:
        ConfigError: neither.
    """
    if isinstance(source, Run | AsyncRun):
        return RunTokens(source)
    if not callable(getattr(source, "ask", None)):
        raise ConfigError("tokens", type(source).__name__, "a run, or ExchangeTokens")
    return source
