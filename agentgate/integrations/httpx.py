"""httpx: each request of a call carries a token of its own, exchanged at a gate and shown with
the caller's key, or over its certificate.

Rules: blocking or awaited. A token is minted for each attempt, never kept: a retry by the
caller exchanges again, and the gate decides whether that call may run again. A server that
answers `invalid_token` is asked once more with a fresh one, if the body can be sent twice. The
token goes to its own server and nowhere else: a request to another origin raises before it is
sent. With `wait` a request whose call must be released by a person waits for them, and the log
says for whom and until when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import suppress
from typing import Any, cast

import httpx
import structlog

from agentgate.integrations.client_certificate import ClientCertificate
from agentgate.integrations.exchange import (
    MAX_ANSWER,
    Answered,
    AskedFor,
    Credentials,
    ExchangedToken,
    ExchangeRefused,
    Pause,
    TokenEndpoint,
    Waiting,
    asking,
    origin_of,
)
from agentgate.shell.log import ready
from agentgate.token.signing import RunKey
from agentgate.values.value_class import value_class

_SECONDS = 10.0  # for a gate's answer
_SENT = ("Authorization", "DPoP")
_log = structlog.get_logger("agentgate.integrations.httpx")


class GateAuth:
    """A gate as a caller uses it: ``client.post(url, json=args, auth=gate.call("orders.refund",
    args, workflow="shop.refund"))``.
    """

    def __init__(
        self,
        gate: str,
        who: Credentials,
        *,
        key: RunKey | None = None,
        certificate: ClientCertificate | None = None,
        address: str | None = None,
        wait: bool | Callable[[Waiting], None] = False,
    ) -> None:
        """A gate by its issuer URL.

        Args:
            gate: its issuer.
            who: what proves the caller.
            key: P-256; each token is bound to it. None: a new one of this process, or the
                certificate.
            certificate: shown to the gate and, where there is no `key`, to tool servers, by a
                client of its context: ``httpx.Client(verify=certificate.context)``; with a
                client that does not show it, requests raise `ExchangeRefused`.
            address: where the gate is reached, if not at its issuer.
            wait: wait for people (the gate must defer: its setting `deferred`), and log whom; a
                function is told instead of the log. False: a call that needs one raises
                `ExchangeRefused` with `needs_approval`.

        Raises:
            ConfigError: a URL that is neither https nor loopback; with a certificate, not
                https.
        """
        ready()
        key = RunKey.generate() if not key and not certificate else key
        self._endpoint = TokenEndpoint(gate, key, certificate=certificate, address=address)
        self._who = who
        self._waits = wait if callable(wait) else _tell if wait else None

    def call(
        self, tool: str, arguments: Mapping[str, Any], *, workflow: str, **more: Any
    ) -> httpx.Auth:
        """Authentication for the requests of one call. Sending one raises `ExchangeRefused`
        where there is no token for it.

        Args:
            tool: its name in the workflow.
            arguments: of the call, exactly as the request carries them.
            workflow: its id.
            more: further fields of `AskedFor`: `run`, `tool_call_id`, `tenant`, `resource`,
                `scope`.
        """
        return _CallAuth(
            self._endpoint,
            self._who,
            AskedFor(tool, workflow, dict(arguments), **more),
            self._waits,
        )


def _tell(waiting: Waiting) -> None:
    _log.warning(
        "waiting_for_a_person", whom=waiting.whom, until=waiting.until, hold=waiting.hold
    )


@value_class
class _CallAuth(httpx.Auth):
    """One call's requests. The steps are written once; reading an answer is blocking or
    awaited.
    """

    _endpoint: TokenEndpoint
    _who: Credentials
    _asked: AskedFor
    _waits: Callable[[Waiting], None] | None

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx."""
        steps = self._steps(request)
        answer = None
        with suppress(StopIteration):
            while True:
                ask = steps.send(answer)
                answer = None
                if isinstance(ask, Pause):
                    time.sleep(ask.seconds)
                elif isinstance(ask, httpx.Response):
                    ask.read()
                else:
                    answer = yield ask

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See httpx."""
        steps = self._steps(request)
        answer = None
        with suppress(StopIteration):
            while True:
                ask = steps.send(answer)
                answer = None
                if isinstance(ask, Pause):
                    await asyncio.sleep(ask.seconds)
                elif isinstance(ask, httpx.Response):
                    await ask.aread()
                else:
                    answer = yield ask

    def _steps(self, request: httpx.Request) -> Generator[Any, Any, None]:
        """Requests to be sent, answers to be read (within bounds), and pauses."""
        for last in (False, True):
            for name in _SENT:
                request.headers.pop(name, None)
            token = yield from self._token(request)
            request.headers.update(token.headers(request.method, str(request.url)))
            answer = yield request
            if last or not answer or not _stale(answer) or not _repeatable(request):
                return

    def _token(self, request: httpx.Request) -> Generator[Any, Any, ExchangedToken]:
        steps = asking(self._endpoint, self._asked, self._who, self._waits)
        answer: Answered | None = None
        while True:
            try:
                ask = steps.send(answer)
            except StopIteration as done:
                return cast("ExchangedToken", done.value)
            if isinstance(ask, Pause):
                answer = yield ask  # None, after a pause
                continue
            headers = {**ask.headers, "Accept-Encoding": "identity"}
            sent = httpx.Request(
                "POST",
                self._endpoint.url,
                data=dict(ask.form),
                headers=headers,
                extensions=request.extensions,
            )
            got = yield sent
            _check_shown(got, self._endpoint.certificate)
            got.stream = _Bounded(got)
            yield got
            answer = Answered(got.status_code, got.headers, got.content)


class _Bounded(httpx.SyncByteStream, httpx.AsyncByteStream):
    """What a gate answers: not encoded, at most `MAX_ANSWER` bytes, in time. Raises
    ExchangeRefused otherwise.
    """

    def __init__(self, answer: httpx.Response) -> None:
        self._stream: Any = answer.stream
        self._left = MAX_ANSWER
        self._end = time.monotonic() + _SECONDS
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ExchangeRefused(0, "invalid_answer", "an encoded body")

    def _checked(self, chunk: bytes) -> bytes:
        self._left -= len(chunk)
        if self._left < 0 or time.monotonic() > self._end:
            raise ExchangeRefused(
                0,
                "invalid_answer",
                f"more than {MAX_ANSWER} bytes, or not all of it in {_SECONDS:g} s",
            )
        return chunk

    def __iter__(self) -> Iterator[bytes]:
        return map(self._checked, self._stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield self._checked(chunk)

    def close(self) -> None:
        """See httpx."""
        self._stream.close()

    async def aclose(self) -> None:
        """See httpx."""
        await self._stream.aclose()


def _check_shown(answer: httpx.Response, certificate: ClientCertificate | None) -> None:
    """Refuse an answer, not read yet, over a connection that was not made with the
    certificate's context: it did not show it.
    """
    stream = answer.extensions.get("network_stream")
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    if certificate and getattr(tls, "context", None) is not certificate.context:
        why = (
            f"the connection to {origin_of(str(answer.request.url))} does not show it; "
            "expected httpx.Client(verify=certificate.context)"
        )
        raise ExchangeRefused(0, "no_certificate", why)


def _stale(answer: httpx.Response) -> bool:
    """Whether a server says that the token itself is not valid (RFC 6750 section 3.1): nothing
    ran.
    """
    return answer.status_code == 401 and 'error="invalid_token"' in answer.headers.get(
        "WWW-Authenticate", ""
    )


def _repeatable(request: httpx.Request) -> bool:
    try:
        request.content  # noqa: B018 - it raises where the body is a stream
    except httpx.RequestNotRead:
        return False
    return True
