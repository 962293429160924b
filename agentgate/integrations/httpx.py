"""httpx: each request of a call carries a token of its own, exchanged at a gate and shown with the caller's key. Blocking and awaited.

Rules: a token is minted for each attempt, never kept: a retry by the caller exchanges again, and the gate decides whether that call may run
again. A server that answers `invalid_token` is asked once more with a fresh one, if the body can be sent twice. The token goes to its own
server and nowhere else: a request to another origin raises before it is sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any

import httpx

from agentgate.integrations.exchange import AskedFor, Credentials, ExchangedToken, TokenEndpoint
from agentgate.token.signing import RunKey

_SENT = ("Authorization", "DPoP")


class GateAuth:
    """A gate as a caller uses it: ``client.post(url, json=args, auth=gate.call("orders.refund", args, workflow="shop.refund"))``."""

    def __init__(self, gate: str, who: Credentials, *, key: RunKey | None = None, address: str | None = None) -> None:
        """A gate by its issuer URL.

        Args:
            gate: its issuer.
            who: what proves the caller.
            key: P-256; each token is bound to it. None: a new one of this process.
            address: where the gate is reached, if not at its issuer.

        Raises:
            ConfigError: a URL that is neither https nor loopback.
        """
        self._endpoint, self._who = TokenEndpoint(gate, key or RunKey.generate(), address=address), who

    def call(self, tool: str, arguments: Mapping[str, Any], *, workflow: str, **more: Any) -> httpx.Auth:
        """Authentication for the requests of one call. Sending one raises `ExchangeRefused` where there is no token for it.

        Args:
            tool: its name in the workflow.
            arguments: of the call, exactly as the request carries them.
            workflow: its id.
            more: further fields of `AskedFor`: `run`, `tool_call_id`, `tenant`, `resource`, `scope`.
        """
        return _CallAuth(self._endpoint, self._who, AskedFor(tool, workflow, dict(arguments), **more))


class _CallAuth(httpx.Auth):
    """One call's requests. The steps are written once; reading an answer is blocking or awaited."""

    def __init__(self, endpoint: TokenEndpoint, who: Credentials, asked: AskedFor) -> None:
        self._endpoint, self._who, self._asked = endpoint, who, asked

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx."""
        steps = self._steps(request)
        ask = next(steps)
        while True:
            answer = yield ask
            if ask is not request:
                answer.read()
            try:
                ask = steps.send(answer)
            except StopIteration:
                return

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See httpx."""
        steps = self._steps(request)
        ask = next(steps)
        while True:
            answer = yield ask
            if ask is not request:
                await answer.aread()
            try:
                ask = steps.send(answer)
            except StopIteration:
                return

    def _steps(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        for last in (False, True):
            for name in _SENT:
                request.headers.pop(name, None)
            token = yield from self._token(request)
            request.headers.update(token.headers(request.method, str(request.url)))
            answer = yield request
            if last or not _stale(answer) or not _repeatable(request):
                return

    def _token(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, ExchangedToken]:
        form = self._endpoint.form(self._asked, self._who)
        for _ in range(2):
            proof = self._endpoint.proof()
            answer = yield httpx.Request("POST", self._endpoint.url, data=form, headers=proof, extensions=request.extensions)
            if not self._endpoint.wants_nonce(answer.status_code, answer.headers, answer.content):
                break
        return self._endpoint.token(answer.status_code, answer.content, self._asked)


def _stale(answer: httpx.Response) -> bool:
    """Whether a server says that the token itself is not valid (RFC 6750 section 3.1): nothing ran."""
    return answer.status_code == 401 and 'error="invalid_token"' in answer.headers.get("WWW-Authenticate", "")


def _repeatable(request: httpx.Request) -> bool:
    try:
        request.content  # noqa: B018 - it raises where the body is a stream
    except httpx.RequestNotRead:
        return False
    return True
