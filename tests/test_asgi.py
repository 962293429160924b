"""The tool side over HTTP: what passes, what is recorded of it, and every request that is another than the call that was decided on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import FileResponse, Response
from structlog.testing import capture_logs

from agentgate import Allow, Deny, NotDone, Reason
from agentgate.errors import ConfigError
from agentgate.integrations.asgi import RedeemMiddleware, RequestRefused, ToolServer, body, path, query
from agentgate.integrations.asgi.middleware import MAX_RESULT
from agentgate.integrations.asgi.received import MAX_BODY, MAX_HEADERS, SECONDS, RequestHead
from agentgate.integrations.asgi.sources import ArgumentSource, RouteShape
from agentgate.token.dpop import DPoP
from tests.authority import Key
from tests.served import in_thread
from tests.servers import Server, redis_binary
from tests.toolshop import AUDIENCE, FOUND, LOOK, ORDER, ORIGIN, PAID, PAY, PIN, REFUND, SERVED, Orders, Shop, impatient, routed, shop, slow

META = f'resource_metadata="{ORIGIN}/.well-known/oauth-protected-resource/shop"'


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop(tmp_path) as found:
        yield found


def refused(answer: httpx.Response, status: int, error: str = "") -> None:
    """The answer is exactly this refusal, and says nothing more."""
    named = {"error": error} if error else {}
    said = answer.json()
    assert (answer.status_code, said.pop("title", None) is not None) == (status, True), answer.text
    assert said == {"type": "about:blank", "status": status, **named}
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"


async def refund(world: Shop, call: str = "pay") -> Any:
    return await world.token("payments.refund", REFUND, call)


# --- what passes ----------------------------------------------------------------------------------------------------------------


async def test_a_read_and_the_act_that_needs_its_facts_run_once(world: Shop) -> None:
    assert (await world.looked()).json() == FOUND
    world.orders.answer = {"paid": True}
    token = await refund(world)
    sent = json.dumps(PAID, indent=2).encode()
    paid = await world.send(token, "POST", PAY, content=sent, headers={"Content-Type": "application/json; charset=utf-8"})
    assert (paid.status_code, paid.json()) == (200, {"paid": True})
    seen = world.orders.seen[-1]
    assert (seen["args"], seen["path"], seen["query"]) == (REFUND, PAY, "")
    assert seen["body"] == b'{"amount":"39.99","currency":"EUR","payee":"cus_1"}'
    assert seen["headers"]["content-length"] == str(len(seen["body"]))
    assert not {"authorization", "dpop"} & seen["headers"].keys()  # step 14: the token is never passed on
    again = await world.run.authorize("payments.refund", REFUND, tool_call_id="pay", definition=PIN)
    assert isinstance(again, Deny)
    assert set(again.reasons) == {Reason.ALREADY_REDEEMED}


@pytest.mark.parametrize(
    ("answer", "media"),
    [
        (json.dumps(FOUND).encode(), "text/plain"),
        (json.dumps(FOUND).encode()[:-1] + b', "customer": "cus_1"}', "application/json"),
        (json.dumps(FOUND | {"filling": "x" * MAX_RESULT}).encode(), "application/json"),
        (b"not json", "application/json"),
    ],
    ids=["text", "a key twice", "longer than what is read", "no JSON"],
)
async def test_an_answer_that_is_not_plain_json_has_no_facts(world: Shop, answer: bytes, media: str) -> None:
    world.orders.answer, world.orders.media = answer, media
    assert (await world.looked()).content == answer
    denied = await world.run.authorize("payments.refund", REFUND, tool_call_id="pay", definition=PIN)
    assert isinstance(denied, Deny)
    assert set(denied.reasons) == {Reason.ARGUMENT_ORIGIN, Reason.AT_MOST}


@pytest.mark.parametrize(
    ("status", "raised", "after"),
    [
        (409, None, None),
        (500, None, Reason.OUTCOME_UNKNOWN),
        (302, None, Reason.OUTCOME_UNKNOWN),
        (200, NotDone("the bank refused"), None),
        (200, RuntimeError("cut off"), Reason.OUTCOME_UNKNOWN),
    ],
    ids=["a status that says nothing happened", "500", "a redirect", "NotDone", "another exception"],
)
async def test_what_an_act_answered_is_its_outcome(world: Shop, status: int, raised: Exception | None, after: Reason | None) -> None:
    await world.looked()
    world.orders.status, world.orders.answer = status, raised or {}
    answer = await world.send(await refund(world), "POST", PAY, json=PAID)
    assert answer.status_code == (500 if raised else status)
    again = await world.run.authorize("payments.refund", REFUND, tool_call_id="pay", definition=PIN)
    assert (isinstance(again, Allow), getattr(again, "reasons", ())) == (after is None, () if after is None else (after,))


async def unended(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"paid": true}', "more_body": True})


async def test_an_answer_that_does_not_end_is_no_success(world: Shop) -> None:
    await world.looked()
    world.orders.answer = unended
    with suppress(httpx.HTTPError):
        await world.send(await refund(world), "POST", PAY, json=PAID)
    again = await world.run.authorize("payments.refund", REFUND, tool_call_id="pay", definition=PIN)
    assert again.reasons == (Reason.OUTCOME_UNKNOWN,)


async def test_a_call_that_is_cancelled_at_every_await_is_on_record_all_the_same(tmp_path: Path, redis_server: Server) -> None:
    async with shop(tmp_path, store=redis_server.url, front=impatient) as world:
        world.orders.answer = slow
        with suppress(httpx.HTTPError):
            await world.looked()
        found: list[Any] = []
        for _ in range(50):
            found = [each["outcome"] for each in world.gate._audit.records if each["type"] == "outcome"]  # type: ignore[attr-defined]  # in memory
            await asyncio.sleep(0 if found else 0.02)
        assert found == ["unknown"]


async def test_a_redemption_whose_caller_is_cancelled_is_on_record_and_the_call_can_be_made(tmp_path: Path) -> None:
    server = Server(redis_binary(), tmp_path / "redis", durable=True)
    try:
        async with shop(tmp_path, store=server.url) as world:
            await world.looked()
            token = await refund(world)
            proof = DPoP(token.headers("POST", ORIGIN + PAY)["DPoP"], method="POST", url=ORIGIN + PAY)
            redeem = world.gate.verifier(AUDIENCE, tenants=["acme"]).redeem
            server.pause()
            task = asyncio.create_task(redeem(token.reveal(), tool="payments.refund", args=REFUND, proof=proof))
            await asyncio.sleep(0.1)  # the burn is on its way
            task.cancel()
            await asyncio.wait([task])
            server.resume()
            await asyncio.sleep(0.3)
            records: Any = world.gate._audit.records  # type: ignore[attr-defined]  # in memory
            assert task.cancelled()
            assert [each.get("outcome", each["type"]) for each in records[-2:]] == ["redemption", "failed"]
            assert isinstance(await world.run.authorize("payments.refund", REFUND, tool_call_id="pay", definition=PIN), Allow)
    finally:
        server.stop()


async def test_an_open_path_and_the_metadata_need_no_token(world: Shop) -> None:
    world.orders.answer = {"ok": True}
    assert (await world.http.get("/healthz")).json() == {"ok": True}
    assert (await world.http.get("/.well-known/oauth-protected-resource/shop")).json() == {
        "resource": AUDIENCE,
        "authorization_servers": ["https://gate.example"],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "scopes_supported": ["orders:use"],
    }


# --- attacks --------------------------------------------------------------------------------------------------------------------


async def test_without_credential_both_ways_are_named_and_no_error(world: Shop) -> None:
    for headers in ({}, {"Authorization": "Basic bGVlOngx"}, {"Authorization": "Bearer"}):
        answer = await world.http.get(LOOK, headers=headers)
        refused(answer, 401)
        rest = f'scope="orders:use", {META}'
        assert answer.headers["WWW-Authenticate"] == f'DPoP algs="ES256 EdDSA", {rest}, Bearer {rest}'
    assert world.orders.seen == []


async def test_a_token_counts_once_and_a_replayed_request_is_refused(world: Shop) -> None:
    await world.looked()
    token = await refund(world)
    headers = token.headers("POST", ORIGIN + PAY)
    assert (await world.http.post(PAY, headers=headers, json=PAID)).status_code == 200
    again = await world.http.post(PAY, headers=headers, json=PAID)
    refused(again, 401, "invalid_token")
    assert again.headers["WWW-Authenticate"] == f'DPoP algs="ES256 EdDSA", error="invalid_token", {META}'
    refused(await world.send(token, "POST", PAY, json=PAID), 401, "invalid_token")  # with a fresh proof, too
    assert len(world.orders.seen) == 2


async def test_of_twenty_at_once_one_runs(world: Shop) -> None:
    headers = (await world.token()).headers("GET", ORIGIN + LOOK)
    answers = await asyncio.gather(*(world.http.get(LOOK, headers=headers) for _ in range(20)))
    assert [answer.status_code for answer in answers].count(200) == len(world.orders.seen) == 1


async def test_a_token_has_one_place(world: Shop) -> None:
    await world.looked()
    token = await refund(world)
    text = token.reveal()
    for url in (f"{PAY}?access_token={text}", f"{PAY}?ACCESS_TOKEN={text}", f"{PAY}?access%5Ftoken={text}"):
        refused(await world.http.post(url, json=PAID), 400, "invalid_request")
        refused(await world.send(token, "POST", url, json=PAID), 400, "invalid_request")
    own = token.headers("POST", ORIGIN + PAY)
    for more in (("Authorization", f"Bearer {text}"), ("authorization", own["Authorization"]), ("DPoP", own["DPoP"])):
        refused(await world.http.post(PAY, headers=[*own.items(), more], json=PAID), 400, "invalid_request")
    joined = {**own, "Authorization": f"{own['Authorization']}, Bearer {text}"}
    refused(await world.http.post(PAY, headers=joined, json=PAID), 400, "invalid_request")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(await world.http.post(PAY, content=f"access_token={text}", headers=form), 401)
    assert len(world.orders.seen) == 1
    assert (await world.send(token, "POST", PAY, json=PAID)).status_code == 200  # none of them burned it


async def test_a_bound_token_needs_its_key(world: Shop) -> None:
    await world.looked()
    token, own = await refund(world), ORIGIN + PAY

    async def sent(**headers: Any) -> httpx.Response:
        return await world.send(token, "POST", PAY, json=PAID, headers=headers)

    refused(await sent(DPoP=None), 401, "invalid_token")
    bearer = await sent(Authorization=f"Bearer {token.reveal()}")
    refused(bearer, 401, "invalid_token")
    assert bearer.headers["WWW-Authenticate"] == f'Bearer error="invalid_token", {META}'
    stranger = Key("stranger").proof("POST", own, token=token.reveal())
    proof = token.headers("POST", own)["DPoP"]
    local = f"http://127.0.0.1:{world.port}{PAY}"
    others = [
        token.headers("GET", own),
        token.headers("POST", ORIGIN + LOOK),
        token.headers("POST", local),
        token.headers("POST", own, now=1),
    ]
    for other in (stranger, *(each["DPoP"] for each in others), proof[:-4] + "AAAA", "x", f"{proof}, {proof}"):
        answer = await sent(DPoP=other)
        refused(answer, 401, "invalid_dpop_proof")
        assert 'error="invalid_dpop_proof"' in answer.headers["WWW-Authenticate"]
    assert len(world.orders.seen) == 1
    answer = await sent(**{"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
    assert answer.status_code == 200  # no header says where this server is


async def test_a_proof_beside_an_unbound_token_is_refused(tmp_path: Path) -> None:
    async with shop(tmp_path, workflow=SERVED.replace("bound_to: [call, agent_key]", "bound_to: [call]")) as world:
        token = (await world.token()).reveal()
        proof = Key("any").proof("GET", ORIGIN + LOOK, token=token)
        refused(await world.http.get(LOOK, headers={"Authorization": f"DPoP {token}", "DPoP": proof}), 401, "invalid_token")
        assert world.orders.seen == []


async def test_a_token_of_a_read_needs_its_key_where_the_workflow_says_so(world: Shop) -> None:
    token = await world.token()
    refused(await world.http.get(LOOK, headers={"Authorization": f"Bearer {token.reveal()}"}), 401, "invalid_token")
    assert world.orders.seen == []
    assert (await world.send(token)).status_code == 200


async def test_what_was_changed_after_minting_is_another_call(world: Shop) -> None:
    await world.looked()
    token = await refund(world)
    changed: list[tuple[str, dict[str, Any]]] = [
        (PAY, {"json": {**PAID, "amount": "39.98"}}),
        (PAY, {"json": {**PAID, "amount": 39.99}}),
        (PAY, {"json": {name: value for name, value in PAID.items() if name != "payee"}}),
        (PAY.replace("344", "345"), {"json": PAID}),
    ]
    for url, more in changed:
        answer = await world.send(token, "POST", url, **more)
        refused(answer, 403, "insufficient_scope")
        assert 'error="insufficient_scope", scope="orders:use"' in answer.headers["WWW-Authenticate"]
    refused(await world.send(token, "GET", LOOK), 403, "insufficient_scope")  # another tool
    read = await world.token()
    refused(await world.send(read, url=f"{LOOK}?day=2026-03-04"), 403, "insufficient_scope")
    assert len(world.orders.seen) == 1
    assert (await world.send(token, "POST", PAY, json=PAID)).status_code == 200  # none of them burned it


@pytest.mark.parametrize(
    "data",
    [
        b'{"amount":"39.99","currency":"EUR","payee":"cus_1","payee":"cus_1"}',
        b'{"amount":"999.00","amount":"39.99","currency":"EUR","payee":"cus_1"}',
        b'{"amount":"39.99","currency":"EUR","payee":"cus_1","p\\u0061yee":"cus_1"}',
        b'{"amount":"39.99","currency":"EUR","payee":"cus_1","order_id":"ORD-10023344"}',
        b'{"amount":"39.99","currency":"EUR","payee":"cus_1","note":null}',
        b'[{"amount":"39.99","currency":"EUR","payee":"cus_1"}]',
        b'{"amount":NaN,"currency":"EUR","payee":"cus_1"}',
        b'{"amount":"39.99","currency":"EUR","payee":"cus_1"}{}',
        b'{"amount":"39.99","currency":"EUR","payee":"cus_1"} x',
        '{"amount":"39.99","currency":"EUR","payee":"cus_1"}'.encode("utf-16"),
        b"\xef\xbb\xbf" + b'{"amount":"39.99","currency":"EUR","payee":"cus_1"}',
        b"[" * 100_000,
        b"",
    ],
    ids=[
        *("a key twice", "another value first", "a key twice, escaped", "what comes from the path", "a further member", "a list"),
        *("NaN", "two values", "more behind", "UTF-16", "a byte order mark", "deep", "empty"),
    ],
)
async def test_a_body_that_is_not_one_call_is_refused_and_burns_nothing(world: Shop, data: bytes) -> None:
    await world.looked()
    token = await refund(world)
    answer = await world.send(token, "POST", PAY, content=data, headers={"Content-Type": "application/json"})
    refused(answer, 400, "invalid_request")
    assert len(world.orders.seen) == 1
    assert (await world.send(token, "POST", PAY, json=PAID)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": "application/json, text/plain"}, 415),
        ({"Content-Type": "application/vnd.api+json"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": None}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json", "X-HTTP-Method-Override": "GET"}, 400),
        ({"Content-Type": "application/json", "X_HTTP_Method-Override": "GET"}, 400),
        ({"Content-Type": "application/json", "X-Original-URL": "/admin"}, 400),
        ({"Content-Type": "application/json", **{f"X-{n}": "1" for n in range(MAX_HEADERS)}}, 431),
        ({"Content-Type": "application/json", "X-Long": "x" * 33_000}, 431),
    ],
)
async def test_tricks_with_headers_are_refused(world: Shop, headers: dict[str, Any], status: int) -> None:
    await world.looked()
    answer = await world.send(await refund(world), "POST", PAY, content=json.dumps(PAID), headers=headers)
    refused(answer, status, "invalid_request")
    assert len(world.orders.seen) == 1


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (f"{LOOK}?day=1&day=1", 400),
        (f"{LOOK}?x=1", 400),
        (f"{LOOK}?day", 400),
        (f"{LOOK}?&", 400),
        (f"{LOOK}?day=%ff", 400),
        (f"{LOOK}?day=a%0d%0ab", 400),
        ("/orders/ORD-10023344%2Frefund", 400),
        ("/orders/%2e%2e", 400),
        ("/orders/ORD-10023344%00", 400),
        ("/orders/ORD-10023344%252e", 400),
        ("/orders/%C0%AF", 400),
        ("/orders/", 400),
        ("/orders/ORD-10023344/", 404),
        ("//orders/ORD-10023344", 404),
        ("/ORDERS/ORD-10023344", 404),
        ("/admin", 404),
        ("/healthz/x", 404),
        ("/%68ealthz", 404),
    ],
)
async def test_a_path_or_query_that_is_not_one_call_is_refused(world: Shop, url: str, status: int) -> None:
    token = await world.token()
    request = world.http.build_request("GET", "/", headers=token.headers("GET", ORIGIN + url))
    request.url = httpx.URL(f"http://127.0.0.1:{world.port}").copy_with(raw_path=url.encode())
    refused(await world.http.send(request), status, "invalid_request" if status == 400 else "")
    assert world.orders.seen == []


async def test_an_escape_names_the_same_call_and_the_application_sees_its_one_form(world: Shop) -> None:
    url = "/orders/ORD%2d10023344"
    request = world.http.build_request("GET", "/", headers=(await world.token()).headers("GET", ORIGIN + url))
    request.url = httpx.URL(f"http://127.0.0.1:{world.port}").copy_with(raw_path=url.encode())
    assert (await world.http.send(request)).status_code == 200
    assert (world.orders.seen[0]["path"], world.orders.seen[0]["args"]) == (LOOK, ORDER)


async def test_a_part_of_an_answer_is_not_the_answer(world: Shop, tmp_path: Path) -> None:
    """An agent asks for the bytes in which another customer stands, as an object of their own."""
    other = {"total": "150.00", "currency": "EUR", "customer": "cus_evil"}
    data = json.dumps(FOUND | {"other": other}).encode()
    file = tmp_path / "order.json"
    file.write_bytes(data)
    world.orders.answer = FileResponse(file)
    first = data.index(json.dumps(other).encode())
    answer = await world.send(await world.token(), "GET", LOOK, headers={"Range": f"bytes={first}-{len(data) - 2}"})
    assert (answer.status_code, answer.content) == (200, data)
    assert isinstance(await world.run.authorize("payments.refund", {**REFUND, "payee": "cus_evil"}, tool_call_id="e", definition=PIN), Deny)
    assert isinstance(await world.run.authorize("payments.refund", REFUND, tool_call_id="pay", definition=PIN), Allow)


async def test_an_answer_by_another_message_is_none(tmp_path: Path) -> None:
    """An ASGI server offers to send a file by its path: nothing of it would be read, and an act would end unknown."""
    given: list[dict[str, Any]] = []

    def offering(app: Any) -> Any:
        async def front(scope: Any, receive: Any, send: Any) -> None:
            tls = {"tls": {"client_cert_chain": ()}}
            await app({**scope, "extensions": {"http.response.pathsend": {}, **tls}}, receive, send)

        return front

    file = tmp_path / "order.json"
    file.write_bytes(json.dumps(FOUND).encode())

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        given.append(scope["extensions"])
        await FileResponse(file)(scope, receive, send)

    async with shop(tmp_path, front=offering) as world:
        world.orders.answer = answer
        assert (await world.looked()).json() == FOUND
        assert given == [{"tls": {"client_cert_chain": ()}}]
        assert isinstance(await world.run.authorize("payments.refund", REFUND, tool_call_id="pay", definition=PIN), Allow)


async def test_a_path_in_two_forms_is_the_one_that_was_decided_on(world: Shop) -> None:
    """What stands before may have rewritten `path` and not `raw_path`: the application goes by the one, the call by the other."""

    async def opening() -> Any:
        return world.gate.verifier(AUDIENCE, tenants=["acme"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    server, orders, sent = routed(ToolServer(opening, issuer=world.gate.issuer, audience=AUDIENCE)), Orders(), list[Any]()
    await server.start()
    application = RedeemMiddleware(orders, server, open_paths=["/healthz"])
    headers = [(name.lower().encode(), value.encode()) for name, value in (await world.token()).headers("GET", ORIGIN + LOOK).items()]
    scope = {"type": "http", "method": "GET", "query_string": b"", "headers": headers}
    await application({**scope, "path": "/orders/ORD-99999999", "raw_path": LOOK.encode()}, receive, send)
    assert (sent[0]["status"], orders.seen[0]["path"], orders.seen[0]["args"]) == (200, LOOK, ORDER)
    sent.clear()
    await application({**scope, "headers": [], "path": LOOK, "raw_path": b"/healthz"}, receive, send)
    assert (sent[0]["status"], len(orders.seen)) == (404, 1)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE"])
async def test_another_method_runs_nothing(world: Shop, method: str) -> None:
    answer = await world.send(await world.token(), method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
    assert world.orders.seen == []


async def test_a_body_where_none_belongs_is_refused(world: Shop) -> None:
    refused(await world.send(await world.token(), content=b"{}"), 400, "invalid_request")
    assert world.orders.seen == []


async def raw(port: int, head: str) -> bytes:
    """What is answered to a head alone: its body is never sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    async with asyncio.timeout(SECONDS / 2):
        answer = await reader.read()  # to its end: the connection is closed
    writer.close()
    return answer


@pytest.mark.parametrize("length", ["Content-Length: 200000", "Content-Length: 10485760", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("method", "url"), [("POST", PAY), ("GET", LOOK)], ids=["with a body", "without one"])
async def test_the_token_is_judged_before_any_of_a_body_is_read(world: Shop, length: str, method: str, url: str) -> None:
    await world.looked()
    token = await refund(world)  # bound to a key
    good, other, text = token.headers(method, ORIGIN + url), token.headers(method, ORIGIN + "/hours"), token.reveal()
    shown, forged = good["Authorization"], f"DPoP {text[:-8]}" + ("AAAAAAAA" if text[-8:] != "AAAAAAAA" else "BBBBBBBB")
    for headers in (
        {},
        {**good, "Authorization": "DPoP a.b.c"},
        {**good, "Authorization": forged},
        {"Authorization": shown},
        {"Authorization": shown, "DPoP": other["DPoP"]},
        {**good, "Authorization": f"Bearer {text}"},
    ):
        lines = [f"{method} {url} HTTP/1.1", "Host: x", "Content-Type: application/json", length]
        answer = await raw(world.port, "\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items())]))
        too_long = {b"413"} if headers and "10485760" in length else set()
        assert answer.split()[1] in (too_long or {b"401"}), (headers, answer[:200])
    assert len(world.orders.seen) == 1
    assert (await world.send(token, "POST", PAY, json=PAID)).status_code == 200  # none burned it


async def test_a_huge_body_is_not_read_whether_it_says_so_or_not(world: Shop) -> None:
    await world.looked()
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(4000):
            sent += 64 * 1024
            yield b" " * 64 * 1024

    token = await refund(world)
    json_ = {"Content-Type": "application/json"}
    refused(await world.send(token, "POST", PAY, content=b" " * (MAX_BODY + 1), headers=json_), 413, "invalid_request")
    with suppress(httpx.TransportError):  # the server closed while the client still wrote
        refused(await world.send(token, "POST", PAY, content=endless(), headers=json_), 413, "invalid_request")
    assert sent < 64 * 1024 * 2000
    assert len(world.orders.seen) == 1


async def test_a_body_that_says_it_is_too_long_is_not_waited_for(world: Shop) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = {**(await world.token()).headers("POST", ORIGIN + PAY), "Host": "x", "Content-Type": "application/json"}
    lines = [f"POST {PAY} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), f"Content-Length: {MAX_BODY + 1}", "", ""]
    writer.write("\r\n".join(lines).encode())
    assert (await asyncio.wait_for(reader.readline(), 3)).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def test_a_request_that_is_no_call_is_not_taken_for_one_without_arguments(world: Shop) -> None:
    token = await world.token("shop.hours", {})
    refused(await world.send(token, url="/hours?day=1"), 400, "invalid_request")
    assert world.orders.seen == []
    assert (await world.send(token, url="/hours")).status_code == 200  # and it was not burned


async def test_two_lengths_are_refused(world: Shop) -> None:
    head = (await world.token()).headers("GET", ORIGIN + LOOK)
    lines = [f"{name}: {value}" for name, value in head.items()]
    for smuggled in (["Content-Length: 0", "Transfer-Encoding: chunked"], ["Content-Length: 0", "Content-Length: 5"]):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        text = "\r\n".join([f"GET {LOOK} HTTP/1.1", "Host: x", *lines, *smuggled, "", "0", "", "hello"])
        writer.write(text.encode())
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
        await writer.wait_closed()
    assert world.orders.seen == []


async def test_a_slow_body_is_given_up(world: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.integrations.asgi.received.SECONDS", 0.2)
    await world.looked()

    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = {**(await refund(world)).headers("POST", ORIGIN + PAY), "Host": "x", "Content-Type": "application/json", "Content-Length": "99"}
    writer.write("\r\n".join([f"POST {PAY} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", "{"]).encode())
    assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"408"
    writer.close()
    await writer.wait_closed()
    assert len(world.orders.seen) == 1


async def test_the_token_is_judged_before_the_call(world: Shop) -> None:
    token = await world.token()
    bad = {"Authorization": "Bearer " + token.reveal()[:-4] + "AAAA"}
    refused(await world.send(token, url=f"{LOOK}?x=1", headers=bad), 401, "invalid_token")
    refused(await world.send(token, url=f"{LOOK}?x=1"), 400, "invalid_request")


async def test_a_store_that_is_down_runs_nothing(tmp_path: Path) -> None:
    store = Server(redis_binary(), tmp_path / "server")
    try:
        async with shop(tmp_path, store=store.url) as world:
            assert (await world.looked()).status_code == 200
            token = await refund(world)
            store.stop()
            answer = await world.send(token, "POST", PAY, json=PAID)
            refused(answer, 503)
            assert (answer.headers["Retry-After"], "WWW-Authenticate" in answer.headers) == ("1", False)
            assert len(world.orders.seen) == 1
    finally:
        store.stop()


async def test_the_log_says_why_and_holds_no_token(world: Shop) -> None:
    token = await world.token()
    with capture_logs() as logs:
        await world.send(token, url="/orders/ORD-99999999")
        await world.http.get(f"{LOOK}?access_token={token.reveal()}")
    assert [(each["event"], each["tool"], each["status"], each["field"]) for each in logs if each["event"] == "request_refused"] == [
        ("request_refused", "orders.get", 403, "arguments_digest"),
        ("request_refused", "orders.get", 400, "query"),
    ]
    assert token.reveal()[-30:] not in repr(logs)
    assert [each.get("run") for each in logs if each["event"] == "request_refused"] == [world.run.id, None]


async def test_the_servers_access_log_holds_no_token_out_of_a_query(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            RequestHead(scope).credential()
        except RequestRefused as refused:
            await Response(status_code=refused.status)(scope, receive, send)

    with caplog.at_level(logging.INFO), in_thread(application, log_config=None, access_log=True, lifespan="off") as port:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            for query in ("access_token=s3cret", "a=1&ACCESS%5fTOKEN=s3cret", "access_token=s3cret&x=" + "x" * 5000, "a=1"):
                await http.get(f"/x?{query}")
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert [line.rpartition('"')[2].strip() for line in lines] == ["400", "400", "431", "401"]
    assert "s3cret" not in str(lines)
    assert "a=1" in lines[-1]


@pytest.mark.parametrize("place", ["raw_path", "query_string"])
def test_bytes_that_no_url_has_name_no_call(place: str) -> None:
    scope = {"type": "http", "method": "GET", "path": LOOK, "raw_path": LOOK.encode(), "query_string": b"", "headers": []}
    with pytest.raises(RequestRefused):
        RequestHead({**scope, place: "/orders/ü".encode()})


async def test_nothing_runs_before_the_verifier_is_open() -> None:
    async def opening() -> Any:
        raise AssertionError

    server = ToolServer(opening, issuer="https://gate.example", audience=AUDIENCE)
    server.route("orders.get", "GET", "/orders/{order_id}", args={"order_id": path()})
    orders, sent = Orders(), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": LOOK, "raw_path": LOOK.encode(), "headers": [(b"authorization", b"Bearer a.b.c")]}
    await RedeemMiddleware(orders, server)(scope, receive, send)
    assert (sent[0]["status"], orders.seen) == (503, [])
    await RedeemMiddleware(orders, server)({"type": "websocket", "path": LOOK}, receive, send)
    assert (sent[-1]["type"], orders.seen) == ("websocket.close", [])


# --- declarations ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "template", "args", "setting"),
    [
        ("HEAD", "/x", {}, "method"),
        ("get", "/x", {}, "method"),
        ("GET", "x", {}, "path"),
        ("GET", "/x/", {}, "path"),
        ("GET", "/x//y", {}, "path"),
        ("GET", "/x/{a}", {}, "path"),
        ("GET", "/x/{a}/{a}", {"a": path()}, "path"),
        ("GET", "/x/v{a}", {"a": path()}, "path"),
        ("GET", "/x/../y", {}, "path"),
        ("GET", "/x", {"a": path()}, "path"),
        ("GET", "/x", {"a": body()}, "args"),
        ("GET", "/x", {"a": query("access_token")}, "args.a"),
        ("GET", "/x", {"a": query("b"), "b": query()}, "args.b"),
        ("GET", "/x", {"a": query(kind=float)}, "args.a"),  # type: ignore[arg-type]  # what a caller without mypy passes
        ("GET", "/x", {"a": ArgumentSource("header")}, "args.a"),  # type: ignore[arg-type]  # as above
    ],
)
def test_a_route_that_could_be_read_in_two_ways_is_refused(
    method: str, template: str, args: dict[str, ArgumentSource], setting: str
) -> None:
    with pytest.raises(ConfigError) as error:
        RouteShape(method, template, args)
    assert error.value.setting == setting


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("max_body", {"max_body": 0}),
        ("max_body", {"max_body": MAX_BODY + 1}),
        ("audience", {"audience": "orders"}),
        ("audience", {"origin": "orders"}),
        ("origin", {"origin": "https://orders.example/x"}),
    ],
)
def test_a_server_needs_its_own_address_and_a_cap(setting: str, change: dict[str, Any]) -> None:
    given = {"issuer": "https://gate.example", "audience": AUDIENCE, **change}
    with pytest.raises(ConfigError) as error:
        ToolServer(lambda: asyncio.sleep(0, None), **given)  # type: ignore[arg-type]  # never opened
    assert error.value.setting == setting


def test_two_routes_never_match_one_request_and_an_open_path_is_no_call() -> None:
    server = ToolServer(lambda: asyncio.sleep(0, None), issuer="https://gate.example", audience=AUDIENCE)  # type: ignore[arg-type]  # as above
    with pytest.raises(ConfigError):
        RedeemMiddleware(Orders(), server)  # no route
    server.route("a", "GET", "/x/{a}", args={"a": path()})
    for template, args in (("/x/{b}", {"b": path()}), ("/x/y", {}), ("/{x}/y", {"x": path()})):
        with pytest.raises(ConfigError):
            server.route("b", "GET", template, args=args)
    server.route("b", "POST", "/x/{b}", args={"b": path()})
    for paths in (["/x/y"], ["healthz"], "/healthz"):
        with pytest.raises(ConfigError):
            RedeemMiddleware(Orders(), server, open_paths=paths)
    for wrong in ({"not_done": [200]}, {"scope": 'a", error="'}):
        with pytest.raises(ConfigError):
            server.route("c", "GET", "/c", args={}, **wrong)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("42", int, 42), ("-7", int, -7), ("0", int, 0), ("true", bool, True), ("false", bool, False), ("042", str, "042")],
)
def test_a_value_of_a_query_has_one_spelling(text: str, kind: Any, value: Any) -> None:
    shape = RouteShape("GET", "/x/{p}", {"p": path(kind=kind), "q": query(kind=kind)})
    read = shape.arguments({"p": text}, f"q={text}", b"")
    assert (read, type(read["q"])) == ({"p": value, "q": value}, kind)
    assert shape.rendered(read) == (f"/x/{text}", f"q={text}", b"")
    spellings = {int: ["042", "+42", "4_2", " 42", "4.0", "-0", "٤٢", "9" * 17, ""], bool: ["True", "1", ""], str: []}
    for other in spellings[kind]:
        with pytest.raises(RequestRefused):
            shape.arguments({"p": text}, httpx.QueryParams({"q": other}).__str__(), b"")


def test_the_former_name_of_a_refused_request_works_with_a_warning() -> None:
    import agentgate.integrations.asgi as module

    with pytest.warns(DeprecationWarning, match="RequestRefused"):
        assert module.RequestRefusal is RequestRefused
    with pytest.raises(AttributeError):
        _ = module.RequestRefusals
