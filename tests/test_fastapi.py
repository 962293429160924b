"""One protected route of FastAPI: the documentation's own, run as it stands over real HTTP and a real store."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from agentgate import Agent, Allow, AsyncGate, Deny, NotDone, Reason
from agentgate.integrations.fastapi import presented
from agentgate.token.dpop import DPoP
from tests.servers import Server, as_tool_server, redis_binary
from tests.shop import LEE, PROMPT, WEEKDAY
from tests.toolshop import AUDIENCE, FOUND, LOOK, ORDER, ORIGIN, PAID, PAY, PIN, REFUND, SERVED, listening

DOCUMENT = (Path(__file__).parent.parent / "docs" / "tool-servers.md").read_text("utf-8")


class Stage:
    """A gate of its own, the documented application, and HTTP to it."""

    def __init__(self, run: Any, names: dict[str, Any], http: httpx.AsyncClient) -> None:
        self.run, self.names, self.http = run, names, http

    async def authorized(self, call: str = "pay") -> Any:
        return await self.run.authorize("payments.refund", REFUND, tool_call_id=call, definition=PIN)

    async def token(self, call: str = "pay") -> Any:
        answer = await self.authorized(call)
        assert isinstance(answer, Allow), answer
        return answer.token

    async def pay(self, token: Any, **more: Any) -> httpx.Response:
        headers = {**token.headers("POST", ORIGIN + PAY), **more.pop("headers", {})}
        return await self.http.post(more.pop("url", PAY), headers=headers, **({"json": PAID} | more))


@asynccontextmanager
async def documented(folder: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    (folder / "w").mkdir()
    (folder / "w" / "refund.yaml").write_text(SERVED)
    more: dict[str, Any] = {"audit": str(folder / "gate-audit"), "keys": folder / "keys", "store": store}
    gate = await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", clock=lambda: WEEKDAY, **more)
    async with gate:
        (folder / "jwks.json").write_text(json.dumps(gate.jwks()))
        monkeypatch.chdir(folder)
        monkeypatch.setenv("STORE", as_tool_server(store, "https://orders.example/shop"))
        paid: list[dict[str, Any]] = []

        async def bank(**args: Any) -> dict[str, Any]:
            paid.append(args)
            if isinstance(names["fails"], Exception):
                raise names["fails"]
            if names["fails"] is not None:
                names["fails"]()
            return {"paid": True}

        names: dict[str, Any] = {"__name__": "documented", "bank": bank, "paid": paid, "fails": None}
        (block,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
        exec(compile(block, "tool-servers.md", "exec"), names)  # noqa: S102 - the document is ours
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        look = await run.authorize("orders.get", ORDER, tool_call_id="look", definition=PIN)
        assert isinstance(look, Allow)
        verifier = gate.verifier(AUDIENCE, tenants=["acme"])
        proof = DPoP(look.token.headers("GET", ORIGIN + LOOK)["DPoP"], "GET", ORIGIN + LOOK)
        async with await verifier.redeem(look.token.reveal(), tool="orders.get", args=ORDER, proof=proof) as call:
            await call.record_result(FOUND)
        async with listening(names["app"]) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            yield Stage(run, names, http)


async def test_the_documented_route_runs_once_and_every_other_request_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Server(redis_binary(), tmp_path / "server")
    try:
        async with documented(tmp_path, store.url, monkeypatch) as stage:
            metadata = (await stage.http.get("/.well-known/oauth-protected-resource/shop")).json()
            assert (metadata["resource"], metadata["authorization_servers"]) == (AUDIENCE, ["https://gate.example"])
            token = await stage.token()
            none = await stage.http.post(PAY, json=PAID)
            assert (none.status_code, none.json(), none.headers["WWW-Authenticate"].count("resource_metadata=")) == (401, {"detail": ""}, 2)
            twice = b'{"amount":"39.99","currency":"EUR","payee":"cus_1","payee":"cus_1"}'
            json_ = {"Content-Type": "application/json"}
            for status, error, more in (
                (403, "insufficient_scope", {"json": {**PAID, "payee": "cus_2"}}),
                (
                    403,
                    "insufficient_scope",
                    {"url": PAY.replace("344", "345"), "headers": token.headers("POST", ORIGIN + PAY.replace("344", "345"))},
                ),
                (401, "invalid_dpop_proof", {"headers": token.headers("POST", ORIGIN + "/x")}),
                (400, "invalid_request", {"url": PAY + "?x=1"}),
                (400, "invalid_request", {"url": f"{PAY}?access_token={token.reveal()}"}),
                (400, "invalid_request", {"content": twice, "json": None, "headers": {**token.headers("POST", ORIGIN + PAY), **json_}}),
                (
                    413,
                    "invalid_request",
                    {"content": b" " * 300_000, "json": None, "headers": {**token.headers("POST", ORIGIN + PAY), **json_}},
                ),
            ):
                answer = await stage.pay(token, **more)
                assert (answer.status_code, answer.json()) == (status, {"detail": error}), more
                assert answer.headers["Cache-Control"] == "no-store"
            assert stage.names["paid"] == []
            assert (await stage.pay(token)).json() == {"paid": True}
            assert (await stage.pay(token)).status_code == 401
            assert stage.names["paid"] == [REFUND]
            denied = await stage.authorized()
            assert isinstance(denied, Deny)
            assert set(denied.reasons) == {Reason.ALREADY_REDEEMED}
            stage.names["fails"] = NotDone("refused by the bank")
            assert (await stage.pay(await stage.token("second"))).status_code == 500
            stage.names["fails"] = None
            assert (await stage.pay(await stage.token("second"))).status_code == 200
            last = await stage.token("third")
            store.stop()
            down = await stage.pay(last)
            assert (down.status_code, down.headers["Retry-After"]) == (503, "1")
            assert len(stage.names["paid"]) == 3
    finally:
        store.stop()


async def test_in_starlette_it_is_awaited_with_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Server(redis_binary(), tmp_path / "server")
    try:
        async with documented(tmp_path, store.url, monkeypatch) as stage:
            token = await stage.token()
            sent = [{"type": "http.request", "body": json.dumps(PAID).encode()}]
            headers = {**token.headers("POST", ORIGIN + PAY), "Content-Type": "application/json"}
            listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            scope = {"type": "http", "method": "POST", "path": PAY, "raw_path": PAY.encode(), "query_string": b"", "headers": listed}
            for other in ({"method": "PUT"}, {"raw_path": b"/orders"}):  # a handler may stand at more paths, and for more methods
                with pytest.raises(HTTPException) as refused:
                    await presented(stage.names["refund"])(Request({**scope, **other}, lambda: asyncio.sleep(0, sent[0])))
                assert refused.value.status_code == 404
            found = await presented(stage.names["refund"])(Request(scope, lambda: asyncio.sleep(0, sent.pop())))
            async with found as call:
                assert call.args == REFUND
    finally:
        store.stop()


async def test_what_is_on_no_record_changes_no_answer_of_a_tool_that_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Server(redis_binary(), tmp_path / "server")
    try:
        async with documented(tmp_path, store.url, monkeypatch) as stage:
            token = await stage.token()
            stage.names["fails"] = store.stop  # the tool runs while the store goes away
            answer = await stage.pay(token)
            assert (answer.status_code, answer.json()) == (200, {"paid": True})
    finally:
        store.stop()
