"""A tool server without access to the store redeems and reports at a real gate over HTTP; what is lost on the way runs nothing twice."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, current_thread
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from agentgate import NotDone, TokenRefused
from agentgate.audit import MemoryAudit, read_records
from agentgate.errors import ConfigError, KeyRefused, KeysUnavailable, StoreUnavailable
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.integrations.client_key import ClientKey
from agentgate.integrations.redeemer import GateRedeemer
from agentgate.redemption.outcome import MAX_ROWS, recorded, reportable
from agentgate.shell.drive import drive
from agentgate.stores import ops, ready_store
from agentgate.token.dpop import DPoP
from agentgate.token.signing import SigningKey
from agentgate.values.canonical import canonical
from agentgate.values.leaks import holds
from tests.authority import Key, jwks
from tests.preloaded import run_code
from tests.served import Process, Server, detail, served
from tests.served_notes import DEFINITION, GATE, NOTES, WORKFLOW, Notes, Place, a_place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.servers import free_port
from tests.test_tracing import Traces
from tests.test_verifier import shown
from tests.toolshop import Orders, impatient, listening, slow
from tests.upstream import CANARY, Bank

MORE = f"""\
  notes.find:
    effect: read
    needs: any
    audience: {NOTES}
    scope: [notes:read]
    definition: {DEFINITION}
    redeem: server
    args: {{}}
    facts: {{id: {{type: id}}}}
  notes.search:
    effect: read
    needs: any
    audience: {NOTES}
    scope: [notes:read]
    definition: {DEFINITION}
    redeem: server
    args: {{}}
    facts: {{account: {{type: iban, path: text, find: one, trust: named}}}}
  notes.drop:
    effect: write
    needs: none
    audience: {NOTES}
    scope: [notes:write]
    definition: {DEFINITION}
    redeem: server
    args: {{id: {{type: id, from: [notes.find.id]}}}}
  notes.sell:
    effect: write
    needs: none
    audience: {NOTES}
    scope: [notes:write]
    definition: {DEFINITION}
    redeem: server
    args: {{}}
  notes.local:
"""
UPSTREAM = "upstream: {notes.sell: {broker: bank, role: writer}}\nstep_up:\n"
SOLD = WORKFLOW.replace("desk.notes", "desk.sold").replace("  notes.local:\n", MORE).replace("step_up:\n", UPSTREAM)
TOOLS = {"notes.write": ["text", "urgent"], "notes.find": [], "notes.search": [], "notes.drop": ["id"], "notes.sell": []}
FOUND = {"id": "note_7", "secret": "of nobody else's business"}


CALL = ("txn", "tenant", "run", "tool", "tool_call_id")
CHANGED = {name: (f'"{name}":"'.encode(), f'"{name}":"x'.encode()) for name in CALL} | {"arguments": (b'"hello"', b'"other"')}


class Between:
    """HTTP between the tool server and its gate. `does` says what becomes of the next requests to a path; others pass."""

    def __init__(self, to: str) -> None:
        self.does: list[tuple[str, str]] = []
        self.seen: list[tuple[str, Any]] = []
        self.carried: list[str] = []
        self.port, between, http = free_port(), self, httpx.Client(base_url=to, trust_env=False)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.pass_on("GET", b"")

            def do_POST(self) -> None:
                self.pass_on("POST", self.rfile.read(int(self.headers["Content-Length"])))

            def pass_on(self, method: str, data: bytes) -> None:
                between.seen.append((self.path, json.loads(data) if data else None))
                between.carried.append(self.headers.get("traceparent", ""))
                act = next((each for each in between.does if each[0] in self.path), ("", "pass"))
                if act in between.does:
                    between.does.remove(act)
                self.close_connection = True
                if act[1] in {"drop", "proxy"}:
                    if act[1] == "proxy":
                        self.reply(502, b"<html>")
                    return
                own = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
                answer = http.request(method, self.path, content=data, headers=own)
                if act[1] == "hang":
                    time.sleep(1)
                if act[1] in {"lose", "hang"}:
                    return
                self.reply(answer.status_code, answer.content.replace(*CHANGED.get(act[1], (b"", b""))))

            def reply(self, status: int, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread, self._http = Thread(target=self._server.serve_forever, args=(0.01,)), http
        self._thread.start()

    def asked(self, path: str) -> list[Any]:
        return [sent for at, sent in self.seen if path in at]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._http.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("notes"), more=[SOLD]) as made:
        made.settings["clients"]["server"]["definitions"] = dict.fromkeys(TOOLS, DEFINITION)
        made.settings["brokers"] = ["bank"]
        yield made


class World:
    """A tool server that redeems through `between`, its application, and an agent."""

    def __init__(self, place: Place, gate: Process, between: Between, port: int, tools: Orders) -> None:
        self.notes, self.between, self.tools = Notes(place, gate), between, tools
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        self.job = place.token()

    def ask(self, tool: str, arguments: Any, call: str = "") -> httpx.Response:
        asked = detail(tool, "desk.sold", arguments, tool_call_id=call or tool)
        return self.notes.ask(asked=asked, subject_token=self.job)

    def token(self, tool: str, arguments: Any, call: str = "") -> str:
        answer = self.ask(tool, arguments, call)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def send(self, token: str, tool: str, arguments: Any) -> httpx.Response:
        proof = self.notes.asking.key.proof("POST", f"{NOTES}/{tool}", token=token)
        return await self.http.post(f"/{tool}", json=arguments or None, headers={"Authorization": f"DPoP {token}", "DPoP": proof})

    async def call(self, tool: str, arguments: Any, call: str = "") -> httpx.Response:
        return await self.send(self.token(tool, arguments, call), tool, arguments)


def client_key(place: Place, name: str = "server") -> ClientKey:
    """The key of the tool server, read from a file, as deployments do."""
    path = place.folder / f"{name}.pem"
    key = SigningKey.generate()
    path.touch(0o600)
    path.write_bytes(key.pem())
    read = ClientKey.read(name, path)
    published = jwks(place.keys[name])
    (place.folder / f"{place.keys[name].kid}.json").write_text(json.dumps({"keys": published["keys"] + read.jwks()["keys"]}))
    return read


@pytest.fixture(scope="module")
def own_key(place: Place, gate: Process) -> ClientKey:
    made = client_key(place)
    time.sleep(1.1)  # a key set in a file is looked at again after a second
    return made


@pytest.fixture
async def world(place: Place, gate: Process, own_key: ClientKey) -> AsyncIterator[World]:
    async with at_work(place, gate, own_key) as made:
        yield made


class at_work:  # noqa: N801 - used as a function
    """A world in which a tool server works; `front`: what stands before its middleware, `more`: of `ToolServer.remote`."""

    def __init__(self, place: Place, gate: Process, key: ClientKey, *, front: Any = None, **more: Any) -> None:
        self.place, self.gate, self.between, self.tools = place, gate, Between(gate.base), Orders()
        self.tools.answer = {"ok": True}
        address = f"http://127.0.0.1:{self.between.port}"
        server = ToolServer.remote(GATE, key, tenants=["acme"], audience=NOTES, **{"address": address, **more})
        for tool, arguments in TOOLS.items():
            server.route(tool, "POST", f"/{tool}", args={name: body() for name in arguments}, not_done=[409])
        protected = RedeemMiddleware(self.tools, server)
        self._listening = listening(protected if front is None else front(protected))

    async def __aenter__(self) -> World:
        self.world = World(self.place, self.gate, self.between, await self._listening.__aenter__(), self.tools)
        return self.world

    async def __aexit__(self, *error: object) -> None:
        await self.world.http.aclose()
        await self._listening.__aexit__(None, None, None)
        self.between.close()


HELLO = {"text": "hello"}


async def test_a_call_is_redeemed_run_and_reported_and_only_its_facts_leave_the_server(world: World) -> None:
    world.tools.answer = FOUND
    assert (await world.call("notes.find", {})).json() == FOUND
    assert world.between.asked("/result") == [{"facts": [{"id": "note_7"}], "tenant": "acme"}]
    world.tools.answer = {"dropped": True}
    assert (await world.call("notes.drop", {"id": "note_7"})).json() == {"dropped": True}
    assert world.tools.seen[-1]["args"] == {"id": "note_7"}
    assert re.fullmatch("[0-9a-f]{64}-1", world.tools.seen[-1]["key"])
    assert len(world.between.asked("/result")) == 1  # the workflow declares no facts of it
    assert world.ask("notes.drop", {"id": "note_7"}).json()["error_description"] == "already_done"
    assert world.ask("notes.drop", {"id": "note_8"}, "other").json()["error"] == "invalid_authorization_details"


@pytest.mark.parametrize("tool", ["notes.search", "notes.sell"], ids=["facts", "an upstream credential"])
async def test_a_long_answer_is_read_outside_the_tool_servers_event_loop(
    place: Place, gate: Process, own_key: ClientKey, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker may have written it, and everybody else's call waits for the loop."""
    where = set[str]()

    def noted(read: Any) -> Any:
        def note(*given: Any) -> Any:
            where.add(current_thread().name)
            return read(*given)

        return note

    monkeypatch.setattr("agentgate.redemption.outcome.recorded", noted(recorded))
    monkeypatch.setattr("agentgate.redemption.credential.holds", noted(holds))
    async with at_work(place, gate, own_key, brokers={"bank": Bank()}) as world:
        world.tools.answer = {"text": "DE89 " * 13_000}
        assert (await world.call(tool, {})).status_code == 200
    assert where
    assert current_thread().name not in where


@pytest.mark.parametrize(
    ("status", "raised", "after"),
    [(200, None, "already_done"), (409, None, ""), (500, None, "unknown"), (200, NotDone("no"), ""), (200, ValueError("x"), "unknown")],
    ids=["done", "a status that says nothing happened", "500", "NotDone", "another exception"],
)
async def test_what_an_act_answered_is_its_outcome(world: World, status: int, raised: Exception | None, after: str) -> None:
    world.tools.status, world.tools.answer = status, raised or {}
    await world.call("notes.write", HELLO)
    again = world.ask("notes.write", HELLO)
    assert (again.status_code, again.json().get("error_description", "")) == (
        (200, "") if not after else (400, again.json()["error_description"])
    )
    assert after in again.json().get("error_description", "")


async def test_a_call_that_is_cancelled_at_every_await_is_reported_all_the_same(place: Place, gate: Process, own_key: ClientKey) -> None:
    async with at_work(place, gate, own_key, front=impatient) as world:
        world.tools.answer = slow
        with suppress(httpx.HTTPError):
            await world.call("notes.find", {})
        for _ in range(50):
            await asyncio.sleep(0.02 if not world.between.asked("/outcome") else 0)
        assert world.between.asked("/outcome") == [{"outcome": "unknown", "tenant": "acme"}]


async def test_a_redemption_whose_caller_is_cancelled_is_reported(place: Place, gate: Process, own_key: ClientKey) -> None:
    async with at_work(place, gate, own_key) as world:
        address, url = f"http://127.0.0.1:{world.between.port}", f"{NOTES}/notes.find"
        redeemer = await GateRedeemer(GATE, own_key, tenants=["acme"], audience=NOTES, address=address).open()
        token = world.token("notes.find", {})
        proof = DPoP(world.notes.asking.key.proof("POST", url, token=token), method="POST", url=url)
        place.store.pause()
        task = asyncio.create_task(redeemer.redeem(token, tool="notes.find", args={}, proof=proof))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        place.store.resume()
        for _ in range(50):
            await asyncio.sleep(0.02 if not world.between.asked("/outcome") else 0)
        assert (task.cancelled(), [each["outcome"] for each in world.between.asked("/outcome")]) == (True, ["failed"])
        await redeemer.close()


async def test_a_token_counts_once_and_a_forged_or_foreign_one_never_reaches_the_gate(world: World) -> None:
    token = world.token("notes.write", HELLO)
    assert (await world.send(token[:-8] + "AAAAAAAA", "notes.write", HELLO)).status_code == 401
    assert (await world.send(token, "notes.write", {"text": "other"})).status_code == 403
    assert (await world.send(token, "notes.find", {})).status_code == 403
    assert (await world.http.post("/notes.write", json=HELLO, headers={"Authorization": f"Bearer {token}"})).status_code == 401
    assert world.between.asked("/v1/redeem") == []
    answers = await asyncio.gather(*(world.send(token, "notes.write", HELLO) for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [200, 401, 401, 401, 401]
    assert {each.json().get("error") for each in answers} == {None, "invalid_token"}
    assert len(world.tools.seen) == 1


@pytest.mark.parametrize("fault", ["lose", "hang", *CHANGED])
async def test_a_redemption_whose_answer_is_lost_runs_nothing_is_sent_once_and_the_call_may_be_asked_again(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.between.does = [("/v1/redeem", fault)]
    token = world.token("notes.write", HELLO)
    with monkeypatch.context() as short:
        short.setattr("agentgate.integrations.redeemer.SECONDS", 0.5)
        answer = await world.send(token, "notes.write", HELLO)
    assert (answer.status_code, bool(answer.headers["Retry-After"]), world.tools.seen) == (503, True, [])
    assert len(world.between.asked("/v1/redeem")) == 1
    assert (await world.send(token, "notes.write", HELLO)).status_code == 401  # it is burned
    assert (await world.call("notes.write", HELLO)).status_code == 200
    assert len(world.tools.seen) == 1


@pytest.mark.parametrize("fault", ["drop", "proxy"])
async def test_a_redemption_that_did_not_arrive_leaves_the_token_as_it_is(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgate.integrations.redeemer.RECORD_SECONDS", 0.3)
    world.between.does = [("/v1/redeem", fault)]
    token = world.token("notes.write", HELLO)
    assert (await world.send(token, "notes.write", HELLO)).status_code == 503
    assert (world.tools.seen, len(world.between.asked("/v1/redeem"))) == ([], 1)
    assert (await world.send(token, "notes.write", HELLO)).status_code == 200


async def test_who_lost_the_answer_does_not_speak_for_the_redemption_that_runs_the_tool(world: World) -> None:
    """The same token twice: one runs the tool, of the other the answer is lost. Else the call would be minted again, and run twice."""
    begun, go = asyncio.Event(), asyncio.Event()
    asked, world.tools.answer = world.tools.__call__, {"ok": True}

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go.wait()
        await asked(scope, receive, send)

    world.tools.__class__ = type(
        "Slow", (Orders,), {"__call__": lambda _, *each: slow(*each) if each[0]["type"] == "http" else asked(*each)}
    )
    token = world.token("notes.write", HELLO)
    first = asyncio.create_task(world.send(token, "notes.write", HELLO))
    await begun.wait()
    world.between.does = [("/v1/redeem", "lose")]
    assert (await world.send(token, "notes.write", HELLO)).status_code == 503
    assert {"outcome", "attempt", "tenant"} == world.between.asked("/outcome")[0].keys()
    assert "unknown" in world.ask("notes.write", HELLO).json()["error_description"]
    go.set()
    assert (await first).status_code == 200
    assert world.ask("notes.write", HELLO).json()["error_description"] == "already_done"


async def test_a_report_is_sent_again_while_there_is_time(world: World) -> None:
    world.tools.answer = FOUND
    world.between.does = [("/result", "drop"), ("/result", "lose"), ("/outcome", "proxy")]
    assert (await world.call("notes.find", {})).json() == FOUND
    assert (len(world.between.asked("/result")), len(world.between.asked("/outcome"))) == (3, 2)
    assert world.ask("notes.drop", {"id": "note_7"}).status_code == 200


async def test_what_cannot_be_reported_is_told_and_the_answer_is_the_callers_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgate.integrations.redeemer.RECORD_SECONDS", 0.3)
    world.between.does = [("/outcome", "drop")] * 9
    with capture_logs() as logs:
        assert (await world.call("notes.write", HELLO)).json() == {"ok": True}
    assert [each["what"] for each in logs if each["event"] == "not_recorded"] == ["outcome"]
    assert "unknown" in world.ask("notes.write", HELLO).json()["error_description"]


async def test_a_gate_that_is_down_is_a_503_and_opens_no_server(place: Place, gate: Process, own_key: ClientKey) -> None:
    async with at_work(place, gate, own_key) as world:
        token = world.token("notes.write", HELLO)
        world.between.close()
        world.between.close = lambda: None  # type: ignore[method-assign]  # it is closed
        answer = await world.send(token, "notes.write", HELLO)
        assert (answer.status_code, bool(answer.headers["Retry-After"]), world.tools.seen) == (503, True, [])
        assert world.notes.server.redeem(token, "notes.write", HELLO, world.notes.asking.key).status_code == 200
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(KeysUnavailable, match="gate"):
        await (made := GateRedeemer(GATE, own_key, tenants=["acme"], audience=NOTES, address=nowhere)).open()
    assert made._http is not None
    assert made._http.is_closed  # whoever tries again leaves nothing open


@pytest.mark.parametrize("name", ["desk", "notes", "nobody"])
async def test_a_server_that_the_gate_does_not_know_as_one_runs_nothing_and_its_operator_learns_it(
    place: Place, gate: Process, own_key: ClientKey, name: str
) -> None:
    async with at_work(place, gate, ClientKey(name, own_key._key)) as world:
        token = world.token("notes.write", HELLO)
        with capture_logs() as logs:
            answer = await world.send(token, "notes.write", HELLO)
        assert (answer.status_code, answer.json().get("error"), world.tools.seen) == (503, None, [])
        assert [each["status"] for each in logs if each["event"] == "refused_by_gate"] == [401]
        assert world.notes.server.redeem(token, "notes.write", HELLO, world.notes.asking.key).status_code == 200  # it was not burned


async def test_a_server_may_ask_how_the_user_signed_in(place: Place, gate: Process, own_key: ClientKey) -> None:
    async with at_work(place, gate, own_key, acr_values=["mfa"], max_age=300) as world:
        answer = await world.call("notes.write", HELLO)
        assert (answer.status_code, answer.json()["error"]) == (401, "insufficient_user_authentication")
        assert 'acr_values="mfa"' in answer.headers["WWW-Authenticate"]
        assert (world.tools.seen, world.between.asked("/v1/redeem")) == ([], [])


async def test_a_server_without_the_broker_burns_nothing_and_one_that_has_it_gets_the_credential(
    place: Place, gate: Process, own_key: ClientKey
) -> None:
    async with at_work(place, gate, own_key, brokers={"banc": Bank()}) as world:
        token = world.token("notes.sell", {})
        assert (await world.send(token, "notes.sell", {})).status_code == 503
        assert world.tools.seen == []
        bank = Bank()
        async with at_work(place, gate, own_key, brokers={"bank": bank}) as other:
            other.notes.asking.key = world.notes.asking.key
            assert (await other.send(token, "notes.sell", {})).status_code == 200
            assert (len(other.tools.seen), bank.ended) == (1, 1)
            other.tools.answer = {"leaked": CANARY}
            assert (await other.call("notes.sell", {}, "again")).status_code == 502


async def squeezed(scope: Any, receive: Any, send: Any) -> None:
    """Compresses where the request takes that."""
    plain, takes = f'{{"leaked": "{CANARY}"}}'.encode(), b"gzip" in dict(scope["headers"]).get(b"accept-encoding", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-encoding", b"gzip")] if takes else []})
    await send({"type": "http.response.body", "body": gzip.compress(plain) if takes else plain})


async def halved(scope: Any, receive: Any, send: Any) -> None:
    """Raises in the middle of its answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": CANARY.encode(), "more_body": True})
    raise RuntimeError("broken off")


async def headed(scope: Any, receive: Any, send: Any) -> None:
    """Says it in a header."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-key", CANARY.encode())]})
    await send({"type": "http.response.body", "body": b"{}"})


async def parted(scope: Any, receive: Any, send: Any) -> None:
    """Says it behind more than is read for facts."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"x" * 200, CANARY.encode()):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def drawn_out(scope: Any, receive: Any, send: Any) -> None:
    """Says more than is looked at."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 2000})


@pytest.mark.parametrize("says", [squeezed, halved, headed, parted, drawn_out])
async def test_an_application_says_its_credential_in_no_way(
    place: Place, gate: Process, own_key: ClientKey, says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("MAX_RESULT", 100), ("MAX_LOOKED", 1000)):
        monkeypatch.setattr(f"agentgate.integrations.asgi.middleware.{name}", most)
    async with at_work(place, gate, own_key, brokers={"bank": Bank()}) as world:
        world.tools.answer = says
        answer = await world.call("notes.sell", {}, says.__name__)
        assert (answer.status_code, len(world.tools.seen)) == (500 if says is halved else 502, 1)
        assert CANARY not in f"{answer.text} {answer.headers}"


async def test_a_broker_that_fails_leaves_the_call_not_run(place: Place, gate: Process, own_key: ClientKey) -> None:
    class Failing(Bank):
        def fetch(self, call: Any) -> Any:
            raise RuntimeError(CANARY, call)

    async with at_work(place, gate, own_key, brokers={"bank": Failing()}) as world:
        assert (await world.call("notes.sell", {})).status_code == 503
        assert (world.tools.seen, world.ask("notes.sell", {}).status_code) == ([], 200)


async def test_a_request_and_what_it_asks_of_the_gate_are_one_trace(place: Place, gate: Process, own_key: ClientKey) -> None:
    traces, above = Traces(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with at_work(place, gate, own_key, tracing=traces.given) as world:
        world.http.headers["traceparent"] = above
        token = world.token("notes.write", HELLO)
        assert (await world.send(token, "notes.write", {"text": "other"})).status_code == 403
        assert (await world.send(token, "notes.write", HELLO)).status_code == 200
    spans = [(span.name, dict(span.attributes or {}).get("error.type", "")) for span in traces.spans]
    assert spans == [
        ("redeem notes.write", "arguments"),
        ("POST /notes.write", "insufficient_scope"),
        ("redeem notes.write", ""),
        ("execute_tool notes.write", ""),
        ("POST /notes.write", ""),
    ]
    assert set(traces.tree().values()) == {"POST /notes.write", "?"}
    named = [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01" for span in traces.spans if span.context]
    assert {each[:35] for each in named} == {above[:35]}
    (redeem, outcome) = [each for each in world.between.carried if each]
    assert (redeem, outcome) == (named[2], named[4])
    assert not [part for part in (*token.split("."), "hello") if part in traces.text()]


async def test_a_refusals_traceback_with_locals_holds_no_token(place: Place, gate: Process, own_key: ClientKey) -> None:
    async with at_work(place, gate, own_key) as world:
        address = f"http://127.0.0.1:{world.between.port}"
        redeemer = await GateRedeemer(GATE, own_key, tenants=["acme"], audience=NOTES, address=address).open()
        token, key = world.token("notes.write", HELLO), world.notes.asking.key
        world.between.does = [("/v1/redeem", "lose")]
        for arguments in ({"text": "other"}, HELLO, HELLO):  # other arguments; the answer is lost; it is burned
            proof = DPoP(key.proof("POST", NOTES, token=token), "POST", NOTES)
            with pytest.raises(TokenRefused) as refused:
                await redeemer.redeem(token, tool="notes.write", args=arguments, proof=proof)
            assert token[-40:] not in shown(refused.value)
        with pytest.raises(TokenRefused) as refused:
            await redeemer.check(token)
        assert token[-40:] not in shown(refused.value)
        await redeemer.close()


def test_what_a_gate_takes_of_a_redemption_and_a_report_is_checked(place: Place, gate: Process) -> None:
    notes, key = Notes(place, gate), Key("dpop")
    notes.asking.key = key
    token = notes.ask(asked=detail("notes.find", "desk.sold", {})).json()["access_token"]
    proof = {"dpop": key.proof("POST", f"{NOTES}/x", token=token), "method": "POST", "url": f"{NOTES}/x"}
    redeem = {"token": token, "tool": "notes.find", "arguments": {}, "proof": proof}
    wrong: dict[str, Any]
    for wrong in (
        {"attempt": "short"},
        {"attempt": 7},
        {"attempt": "x" * 65},
        {"brokers": "bank"},
        {"brokers": [1]},
        {"brokers": ["b"] * 101},
        {"brokers": ["b" * 201]},
        {"arguments": []},  # of pairs, it could be read as an object
        {"arguments": [["text", "x"]]},
        {"arguments": "x"},
        {"arguments": None},
    ):
        assert notes.server.post("/v1/redeem", {**redeem, **wrong}).status_code == 400
    told = notes.server.post("/v1/redeem", {**redeem, "attempt": "a" * 16, "brokers": []}).json()
    assert (told["read"], told["facts"]) == (True, {"id": ["id"]})
    at = f"/v1/calls/{told['txn']}"
    wrong_reports: list[dict[str, Any]] = [
        {},
        {"result": FOUND, "facts": []},
        {"facts": {}},
        {"facts": [[]]},
        {"facts": [{"other": "x"}]},
        {"facts": [{"id": None}]},
    ]
    for report in wrong_reports:
        assert notes.server.post(f"{at}/result", report).status_code == 400
    assert notes.server.post(f"{at}/result", {"facts": [{"id": {"a": 1}}]}).status_code == 400
    assert notes.server.post(f"{at}/result", {"facts": [{"id": "x"}] * (MAX_ROWS + 1)}).status_code == 400
    assert notes.server.post(f"{at}/result", {"facts": [{"id": "n" * 60}] * MAX_ROWS}).status_code == 204
    assert notes.server.post(f"{at}/outcome", {"outcome": "not_run", "attempt": "b" * 16}).json()["code"] == "not_redeemed"
    assert notes.server.post(f"{at}/outcome", {"outcome": "not_run", "attempt": "b"}).status_code == 400
    for outcome in ("maybe", "", None, ["failed"], {"failed": 1}):
        assert error_of(notes.server.post(f"{at}/outcome", {"outcome": outcome})) == (400, "invalid_request")
    assert notes.server.post(f"{at}/outcome", {"outcome": "failed", "attempt": "a" * 16}).status_code == 204
    said = [r["outcome"] for r in read_records(place.folder / "audit") if r["type"] == "outcome" and r["txn"] == told["txn"]]
    assert said == ["failed"], "a report that was not taken is on no record"
    for txn in (told["txn"][:-1], "x"):
        assert error_of(notes.server.post(f"/v1/calls/{txn}/result", {"facts": []})) == (404, "not_found")


def test_a_call_is_reported_on_by_the_server_it_was_for_alone(place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    token = notes.ask(asked=detail("notes.find", "desk.sold", {})).json()["access_token"]
    txn = notes.server.redeem(token, "notes.find", {}, notes.asking.key).json()["txn"]
    clients = place.settings["clients"]
    elsewhere = {**clients["other"], "role": "tool_server", "resources": ["https://elsewhere.example"]}
    settings = {**place.settings, "clients": {**clients, "other": elsewhere}, "audit": str(place.folder / "audit-elsewhere")}
    with served(place.folder, settings) as second:
        other = Server(second, "other", place.keys["other"])
        for path, report in (("result", {"facts": [{"id": "note_evil"}]}), ("outcome", {"outcome": "failed"})):
            assert error_of(other.post(f"/v1/calls/{txn}/{path}", report)) == (404, "not_found")
    assert notes.server.post(f"/v1/calls/{txn}/result", {"facts": [{"id": "note_7"}]}).status_code == 204


def test_what_is_kept_for_reports_is_of_the_tenant_that_asks_and_of_a_known_version() -> None:
    """Whoever can write the store copies a call into a tenant of theirs, and reports on it there."""
    store = ready_store("memory://")
    names = ("run", "call_digest", "jti", "txn", "aud", "sub", "client_id", "tool_call_id")
    body: dict[str, Any] = {"v": 1, "tenant": "acme", **dict.fromkeys(names, "x"), "workflow": ["w", 1, "d"], "facts": {}}
    changes: tuple[dict[str, Any], ...] = ({"tenant": "other"}, {"v": 2}, {"v": None}, {"more": "x"}, {"workflow": ["w"]}, {"workflow": 1})
    for tenant, changed in (("acme", {}), *(("acme", each) for each in changes), ("other", {})):
        store.call(ops.keep(tenant, "redeemed", "txn", canonical(body | changed), ttl_ms=60_000, replace=True), time.monotonic() + 1)
        if tenant == "acme" and not changed:
            assert drive(reportable("acme", "txn"), store, MemoryAudit()).run == "x"
        else:
            with pytest.raises(StoreUnavailable, match="redeemed call"):
                drive(reportable(tenant, "txn"), store, MemoryAudit())
    assert drive(reportable("acme", "another"), store, MemoryAudit()) is None
    store.close()


def test_a_clients_key_is_its_owners_and_is_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    path.touch(0o640)
    path.chmod(0o640)
    with pytest.raises(KeyRefused, match="chmod 600"):
        ClientKey.read("server", path)
    path.chmod(0o600)
    with pytest.raises(KeyRefused, match="PEM"):
        ClientKey.read("server", path)
    with pytest.raises(ConfigError, match="client key"):
        ClientKey.read("server", tmp_path / "none.pem")
    key = ClientKey("server", SigningKey.generate())
    assert key.assertion(GATE) != key.assertion(GATE)
    assert repr(key).startswith("<ClientKey server ")
    with pytest.raises(TypeError):
        key.__reduce__()


def test_standard_output_stays_empty() -> None:
    code = f"""
from agentgate.integrations.redeemer import ClientKey, GateRedeemer, _log
from agentgate.token.signing import SigningKey
GateRedeemer("{GATE}", ClientKey("server", SigningKey.generate()), tenants=["acme"], audience="{NOTES}")
_log.error("refused_by_gate")"""
    done = run_code(code)
    assert (done.stdout, "refused_by_gate" in done.stderr) == ("", True)


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"gate": "http://gate.acme.example"}, "gate"),
        ({"gate": "https://gate.acme.example/x"}, "gate"),
        ({"address": "http://gate"}, "address"),
        ({"tenants": []}, "tenants"),
        ({"tenants": "acme"}, "tenants"),
        ({"brokers": {"bank": 1}}, "brokers"),
        ({"at_once": 0}, "at_once"),
        ({"acr_values": "mfa"}, "acr_values"),
        ({"max_age": 0}, "max_age"),
    ],
)
def test_a_redeemers_setting_that_is_wrong_is_named(change: dict[str, Any], setting: str) -> None:
    given: dict[str, Any] = {"gate": GATE, "tenants": ["acme"], "audience": NOTES, **change}
    with pytest.raises(ConfigError) as error:
        GateRedeemer(given.pop("gate"), ClientKey("server", SigningKey.generate()), **given)
    assert error.value.setting == setting
