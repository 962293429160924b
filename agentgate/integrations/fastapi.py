"""FastAPI and Starlette: a dependency that reads the call out of a request; entering it in the
handler redeems the token.

Rules: a request that was presented keeps no header but those of `BoundHeaders`: the handler and
what FastAPI reads for it see no other. The burn comes last: after the framework has validated
everything, as the handler enters the call. The tool runs from `call.args`. Declare no body
parameter in the handler: its body is read here, under a cap and strictly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from agentgate.errors import NotRecorded, RequestRefused
from agentgate.integrations.asgi.server import PresentedCall, ToolRoute
from agentgate.redemption.verifier import AwaitedCall


class HTTPPresentedCall:
    """`PresentedCall`, which refuses with the framework's own `HTTPException`.

    Where something of a call that ran is on no record (NotRecorded, which the verifier logged),
    the handler's answer is the caller's all the same, as behind the middleware.
    """

    def __init__(self, presented: PresentedCall) -> None:
        self._presented = presented

    async def __aenter__(self) -> AwaitedCall:
        try:
            return await self._presented.__aenter__()
        except RequestRefused as refused:
            raise _exception(refused) from None

    async def __aexit__(self, *raised: Any) -> None:  # noqa: PYI036 - handed on as they are
        with suppress(NotRecorded):
            await self._presented.__aexit__(*raised)


def presented(route: ToolRoute) -> Callable[[Request], Awaitable[HTTPPresentedCall]]:
    """A dependency for one route: ``call: HTTPPresentedCall = Depends(presented(route))``, then
    ``async with call as redeemed``.

    In Starlette, await it with the request. It refuses with an `HTTPException` of status,
    `error` and headers as in the middleware.
    """

    async def dependency(request: Request) -> HTTPPresentedCall:
        try:
            call = HTTPPresentedCall(await route.present(request.scope, request.receive))
            route.server.headers.bind(request.scope, b"content-type", b"content-length")
            # Starlette's, if a dependency before this one looked
            vars(request).pop("_cookies", None)
        except RequestRefused as refused:
            raise _exception(refused) from None
        return call

    return dependency


def _exception(refused: RequestRefused) -> HTTPException:
    return HTTPException(
        refused.status,
        detail=refused.error,
        headers={"Cache-Control": "no-store", **refused.headers},
    )
