"""What a call does not bind reaches no application: whoever sends a request writes its headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from agentgate.errors import ConfigError
from agentgate.integrations.asgi import ToolServer
from agentgate.integrations.asgi.received import BoundHeaders
from agentgate.integrations.fastapi import presented
from agentgate.integrations.mcp.carried import as_meta
from tests.test_mcp_wire import HEADERS, call, over_http
from tests.toolshop import AUDIENCE, FOUND, LOOK, ORIGIN, _Shared, routed, shop

FORGED = {
    "Cookie": "session=of-an-admin",
    "X-User": "admin",
    "X-Tenant": "other",
    "X-Forwarded-User": "admin",
    "X-Remote-User": "admin",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "other.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/admin",
    "X-Real-IP": "10.0.0.1",
    "Forwarded": "for=10.0.0.1;host=other.example",
    "Proxy-Authorization": "Basic YWRtaW46eA==",
    "X-Amz-Security-Token": "of-somebody",
    "X-Api-Key": "of-somebody",
    "X_User": "admin",
    "X_Tenant": "other",
    "Accept-Language": "de",
    "User-Agent": "admin",
    "Origin": "https://admin.example",
    "Referer": "https://admin.example",
    "If-None-Match": '"x"',
    "Prefer": "return=minimal",
    "Idempotency-Key": "of-another-call",
    "Content-Language": "de",
    "Host": "other.example",
}
NEEDED = {"host", "accept", "accept-encoding", "traceparent", "content-type", "content-length"}


async def test_behind_the_middleware_an_application_sees_what_it_needs(tmp_path: Path) -> None:
    async with shop(tmp_path) as world:
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        answer = await world.send(await world.token(), headers={**FORGED, **trace})
        assert answer.json() == FOUND
        seen = world.orders.seen[-1]["headers"]
        assert seen.keys() <= NEEDED
        assert (seen["host"], seen["traceparent"]) == ("orders.example", trace["traceparent"])


async def test_a_setting_names_what_else_passes_and_only_once(tmp_path: Path) -> None:
    async with shop(tmp_path, pass_headers=["X-Tenant", "cookie"]) as world:
        assert (await world.send(await world.token(), headers=FORGED)).json() == FOUND
        seen = world.orders.seen[-1]["headers"]
        assert seen.keys() <= NEEDED | {"x-tenant", "cookie"}
        assert seen["x-tenant"] == "other"
        token = await world.token()
        twice = [*token.headers("GET", ORIGIN + LOOK).items(), ("X-Tenant", "acme"), ("x-tenant", "other")]
        assert (await world.http.get(LOOK, headers=twice)).status_code == 400
        assert (await world.send(token)).json() == FOUND, "nothing was burned"


NEVER = ("Authorization", "DPoP", "Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Range", "Connection")


@pytest.mark.parametrize("name", [*NEVER, "Upgrade", "TE", "Expect", "Accept-Encoding", "X-HTTP-Method-Override", "X_User", "x user", ""])
def test_a_header_that_says_how_a_request_is_read_is_never_named(name: str) -> None:
    with pytest.raises(ConfigError, match="pass_headers"):
        ToolServer(lambda: None, issuer="https://g.example", audience=AUDIENCE, pass_headers=[name])  # type: ignore[arg-type,return-value]  # never opened
    with pytest.raises(ConfigError, match="pass_headers"):
        BoundHeaders("x-user", "host")


async def test_a_fastapi_handler_sees_what_it_needs(tmp_path: Path) -> None:
    async with shop(tmp_path, pass_headers=["x-named"]) as world:

        async def opening() -> Any:
            return _Shared(world.gate.verifier(AUDIENCE, tenants=["acme"]))

        server = routed(ToolServer(opening, issuer="https://gate.example", audience=AUDIENCE, pass_headers=["x-named"]))
        await server.start()
        sent = {**(await world.token()).headers("GET", ORIGIN + LOOK), **FORGED, "X-Named": "yes", "Accept": "*/*"}
        listed = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
        scope = {"type": "http", "method": "GET", "path": LOOK, "raw_path": LOOK.encode(), "query_string": b"", "headers": listed}

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        request = Request(scope, receive)
        early = request.headers  # as a dependency before this one may have them
        assert request.cookies != {}
        route = next(each for each in server.routes if each.shape.matches(LOOK) is not None)
        async with await presented(route)(request) as redeemed:
            await redeemed.record_result(FOUND)
        for headers in (request.headers, early, Request(scope, receive).headers):
            assert dict(headers) == {"host": "orders.example", "accept": "*/*", "x-named": "yes"}
        assert request.cookies == {}
        await server.stop()


@pytest.mark.parametrize("kind", ["official", "fastmcp"])
@pytest.mark.parametrize("place", ["_meta", "headers"])
async def test_a_tool_of_an_mcp_server_sees_what_it_needs(tmp_path: Path, kind: str, place: str) -> None:
    async with over_http(tmp_path, kind) as (shopped, url), httpx.AsyncClient(trust_env=False) as http:
        seen: list[dict[str, str]] = []
        told: list[dict[str, Any]] = []

        def look(context: Any) -> None:
            seen.append(dict(context.request.headers))
            told.append(dict(context.meta or {}))
            if kind == "fastmcp":
                from fastmcp.server.dependencies import get_http_request

                seen.append(dict(get_http_request().headers))

        shopped.stock.inside = look
        token = await shopped.token()
        forged = {name: value for name, value in FORGED.items() if name not in {"Host", "Origin"}}
        own = token.headers("POST", AUDIENCE if place == "_meta" else f"{ORIGIN}/mcp")
        needed: Any = {"progressToken": "p", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
        meta: Any = {"user": "admin", "x-tenant": "other", "com.acme/user": "admin", **needed, **(as_meta(own) if place == "_meta" else {})}
        answer = await http.post(url, json=call(**meta), headers={**HEADERS, **forged, **(own if place == "headers" else {})})
        assert answer.json()["result"]["structuredContent"] == FOUND, answer.text
        assert seen
        for each in seen:
            assert {name for name in each if not name.startswith("mcp-")} <= NEEDED, each
        for meta in told:  # what nobody decided on is in no argument, no header and no member of _meta
            assert {name for name in meta if not name.startswith("io.modelcontextprotocol/")} <= {*needed, "progress_token"}, meta


def test_the_scope_of_a_request_is_left_as_it_was() -> None:
    scope: Any = {"headers": ((b"x-user", b"admin"), (b"accept", b"*/*"))}
    BoundHeaders((), "orders.example").bind(scope)
    assert scope["headers"] == [(b"host", b"orders.example"), (b"accept", b"*/*")]
    assert json.dumps([name.decode() for name, _ in scope["headers"]])
