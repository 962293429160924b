"""Flask under a real WSGI server: the tools of a WSGI application run for a call token only, as those of an ASGI application do."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from wsgiref import simple_server

import flask
import httpx
import pytest
from structlog.testing import capture_logs
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from agentgate.errors import ConfigError, NotDone
from agentgate.integrations.asgi import ToolServer, body, query
from agentgate.integrations.client_key import ClientKey
from agentgate.integrations.wsgi import RedeemWSGI
from tests.served import Process, detail
from tests.served_notes import NOTES, Notes, Place
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.servers import as_tool_server, free_port
from tests.test_redeemer import client_key


class Desk:
    """The application: notes what it was given."""

    def __init__(self) -> None:
        self.app, self.seen, self.does = flask.Flask("desk"), list[dict[str, Any]](), lambda: None
        self.threads = set[str]()

        @self.app.post("/notes")
        def write() -> Any:
            call = flask.request.environ["agentgate.call"]
            self.threads.add(threading.current_thread().name)
            sent = {"json": flask.request.get_json(), "args": call.args, "query": flask.request.query_string.decode()}
            raw = {"RAW_URI", "REQUEST_URI"} & flask.request.environ.keys()
            self.seen.append({**sent, "raw": raw, "headers": dict(flask.request.headers), "url": flask.request.url, "txn": call.txn})
            self.does()
            return {"written": call.args["text"]}

        @self.app.get("/healthz")
        def healthz() -> str:
            return "ok"


class Quiet(simple_server.WSGIRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@contextmanager
def listening(app: Any, server: Any = None) -> Iterator[str]:
    server = server or make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


class World:
    """A desk behind the gate, and an agent."""

    def __init__(self, place: Place, gate: Process, desk: Desk, url: str) -> None:
        self.notes, self.desk, self.url, self.job = Notes(place, gate), desk, url, place.token()
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=20)

    def token(self, text: str) -> str:
        asked = detail("notes.write", "desk.notes", {"text": text}, tool_call_id=quote(text))
        answer = self.notes.ask(asked=asked, subject_token=self.job)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def send(self, token: str, text: str, path: str = "/notes", **more: Any) -> httpx.Response:
        proof = self.notes.asking.key.proof("POST", f"{NOTES}{path}", token=token)
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof, **more.pop("headers", {})}
        return self.http.post(path, headers=headers, **{"json": {"text": text}, **more})


def routed(server: ToolServer) -> ToolServer:
    server.route("notes.write", "POST", "/notes", args={"text": body(), "urgent": query()}, scope="notes:write", not_done=[409])
    return server


@pytest.fixture(scope="module")
def key(place: Place) -> ClientKey:
    return client_key(place)


@pytest.fixture(params=["remote", "own"])
def world(place: Place, gate: Process, key: ClientKey, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "remote":
        server = ToolServer.remote(place.issuer, key, tenants=["acme"], audience=NOTES, address=gate.base)
    else:
        keys, store = gate.http.get("/oauth2/jwks").json(), as_tool_server(place.store.url, NOTES)
        server = ToolServer.of(keys, issuer=place.issuer, tenants=["acme"], audience=NOTES, store=store, audit=str(tmp_path / "audit"))
    desk = Desk()
    desk.app.wsgi_app = redeem = RedeemWSGI(desk.app.wsgi_app, routed(server), open_paths=["/healthz"])  # type: ignore[method-assign]  # as Flask has it
    with listening(desk.app) as url:
        yield World(place, gate, desk, url)
    redeem.close()


def test_a_flask_tool_runs_once_for_its_own_call_and_sees_no_token(world: World) -> None:
    token = world.token("flask ü")
    for refused, status in (
        (world.http.post("/notes", json={"text": "flask ü"}), 401),
        (world.send(token, "another"), 403),
        (world.send(token, "flask ü", headers={"Authorization": f"Bearer {token}"}), 401),
        (world.send(token, "flask ü", json={"text": "flask ü", "more": 1}), 400),
        (world.send(token, "flask ü", params={"more": "1"}), 400),
        (world.send(token, "x" * 300_000), 413),
        (world.send(token, "", content=b"text=x", json=None), 415),
        (world.http.get("/notes"), 405),
        (world.http.post("/other"), 404),
    ):
        assert refused.status_code == status, refused.text
    assert world.desk.seen == []
    answer = world.send(token, "flask ü")
    assert (answer.status_code, answer.json()) == (200, {"written": "flask ü"})
    (seen,) = world.desk.seen
    assert seen["json"] == seen["args"] == {"text": "flask ü"}
    assert seen["txn"].startswith("txn_")
    assert not seen["raw"]  # of the request as it came, nothing is left
    forged = {"Cookie": "session=x", "X-User": "admin", "X-Forwarded-User": "admin", "Forwarded": "for=x", "User-Agent": "x"}
    assert world.send(world.token("forged"), "forged", headers=forged).status_code == 200
    assert world.desk.seen.pop()["headers"].keys() <= {"Host", "Accept", "Accept-Encoding", "Content-Type", "Content-Length"}
    assert not {"Authorization", "Dpop"} & seen["headers"].keys()
    for name in ("Script-Name", "Path-Info"):  # with a _, gunicorn takes the first for where the application is
        assert world.send(world.token(name), name, headers={name: "/notes"}).status_code == 400
    again = world.send(token, "flask ü")
    assert (again.status_code, 'error="invalid_token"' in again.headers["WWW-Authenticate"]) == (401, True)
    assert len(world.desk.seen) == 1
    assert world.http.get("/healthz").text == "ok"
    assert world.http.get("/.well-known/oauth-protected-resource").json()["resource"] == NOTES


def test_what_the_application_answers_or_raises_is_the_outcome(world: World) -> None:
    def raising(error: BaseException) -> Callable[[], None]:
        def does() -> None:
            raise error

        return does

    for text, does, status, error in (
        ("conflict", lambda: flask.abort(409), 409, None),
        ("broken", lambda: flask.abort(500), 500, "access_denied"),
        ("raises", raising(ValueError("x")), 500, "access_denied"),
    ):
        world.desk.does = does
        assert world.send(world.token(text), text).status_code == status
        again = world.notes.ask(asked=detail("notes.write", "desk.notes", {"text": text}, tool_call_id=text), subject_token=world.job)
        assert again.json().get("error") == error, (text, again.text)
    world.desk.does = raising(NotDone("x"))
    world.desk.app.testing = True  # what the application raises goes through
    assert world.send(world.token("not done"), "not done").status_code == 500
    assert world.token("not done")
    world.desk.does = raising(StopIteration())
    assert world.send(world.token("stops"), "stops").status_code == 500


def test_as_many_run_at_once_as_the_server_has_threads(world: World) -> None:
    """Each in its request's own thread: the one event loop never waits for an application."""
    many = 12
    together = threading.Barrier(many, timeout=30)

    def does() -> None:
        together.wait()

    world.desk.does = does
    tokens = {f"at once {n}": world.token(f"at once {n}") for n in range(many)}
    with ThreadPoolExecutor(many) as pool:
        answers = list(pool.map(lambda item: World.send(world, item[1], item[0]), tokens.items()))
    assert [answer.status_code for answer in answers] == [200] * many
    assert len(world.desk.threads) == many
    assert not any("agentgate" in name for name in world.desk.threads)


def test_a_slow_body_stops_nobody_else(world: World) -> None:
    token, other, data = world.token("slow"), world.token("meanwhile"), b'{"text": "slow"}'
    proof = world.notes.asking.key.proof("POST", f"{NOTES}/notes", token=token)
    head = [f"Authorization: DPoP {token}", f"DPoP: {proof}", "Content-Type: application/json", f"Content-Length: {len(data)}", "Host: x"]
    with socket.create_connection(("127.0.0.1", httpx.URL(world.url).port or 0), timeout=20) as line:
        line.sendall("\r\n".join(["POST /notes HTTP/1.1", *head, "", ""]).encode() + data[:5])
        assert world.send(other, "meanwhile").status_code == 200
        line.sendall(data[5:])
        assert b" 200 " in line.recv(65536).split(b"\r\n")[0]


def test_a_body_that_ends_early_runs_nothing(world: World) -> None:
    token = world.token("early")
    proof = world.notes.asking.key.proof("POST", f"{NOTES}/notes", token=token)
    head = [f"Authorization: DPoP {token}", f"DPoP: {proof}", "Content-Type: application/json", "Content-Length: 50", "Host: x"]
    with socket.create_connection(("127.0.0.1", httpx.URL(world.url).port or 0)) as line:
        line.sendall("\r\n".join(["POST /notes HTTP/1.1", *head, "", '{"text": "early"}']).encode())
        line.shutdown(socket.SHUT_WR)
        assert b" 200 " not in line.recv(65536).split(b"\r\n")[0]
    assert world.desk.seen == []
    assert world.send(token, "early").status_code == 200  # and burned nothing


def test_without_its_gate_nothing_runs_until_it_is_there(place: Place, gate: Process, key: ClientKey) -> None:
    port = free_port()
    server = routed(ToolServer.remote(place.issuer, key, tenants=["acme"], audience=NOTES, address=f"http://127.0.0.1:{port}"))
    desk = Desk()
    desk.app.wsgi_app = redeem = RedeemWSGI(desk.app.wsgi_app, server)  # type: ignore[method-assign]  # as above
    with listening(desk.app) as url, capture_logs() as logs:
        world = World(place, gate, desk, url)
        answer = world.send(world.token("away"), "away")
        assert (answer.status_code, desk.seen) == (503, [])
        with ThreadPoolExecutor(8) as pool:
            assert {each.status_code for each in pool.map(lambda _: httpx.get(url, trust_env=False, timeout=20), range(16))} == {404}
        assert 1 <= [line["event"] for line in logs].count("not_started") <= 6  # not one try for each of them
    redeem.close()


def test_what_was_started_before_a_fork_serves_nobody_after_it(place: Place, gate: Process, key: ClientKey) -> None:
    server = routed(ToolServer.remote(place.issuer, key, tenants=["acme"], audience=NOTES, address=gate.base))
    redeem = RedeemWSGI(Desk().app, server).start()
    redeem._pid = os.getpid() + 1  # as a child has it
    with pytest.raises(ConfigError, match="before the server forked"):
        redeem.start()
    with pytest.raises(ConfigError, match="before the server forked"):
        redeem({"REQUEST_METHOD": "POST"}, print)
    redeem._pid = os.getpid()
    redeem.close()


def test_a_path_that_reads_in_two_ways_is_no_call(world: World) -> None:
    token = world.token("path")
    more = "Content-Type: application/json\r\nContent-Length: 16"
    for path in ("/notes%2F", "/%6eotes", "/notes/", "//notes", "/x/../notes"):
        line = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: DPoP {token}\r\n{more}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", httpx.URL(world.url).port or 0)) as sent:
            sent.sendall((line + '{"text": "path"}').encode())
            assert b" 200 " not in sent.recv(65536).split(b"\r\n")[0], path
    assert world.desk.seen == []


def test_under_a_prefix_on_a_server_that_takes_no_header_of_its_own(place: Place, gate: Process, key: ClientKey) -> None:
    """PEP 3333: an application says nothing of the connection (to Python's own server that is an error), and knows its prefix."""
    server = ToolServer.remote(place.issuer, key, tenants=["acme"], audience=NOTES, address=gate.base)
    server.route("notes.write", "POST", "/desk/notes", args={"text": body()})
    desk = Desk()
    desk.app.wsgi_app = redeem = RedeemWSGI(desk.app.wsgi_app, server)  # type: ignore[method-assign]  # as above
    mounted = DispatcherMiddleware(lambda *_: [], {"/desk": desk.app})
    own = simple_server.make_server("127.0.0.1", 0, mounted, handler_class=Quiet)
    with listening(None, own) as url:
        world = World(place, gate, desk, url)
        token = world.token("prefix")
        assert world.http.post("/desk/notes", json={"text": "prefix"}).status_code == 401
        assert world.send(token, "prefix", "/desk/desk/notes").status_code == 404
        assert desk.seen == []
        assert world.send(token, "prefix", "/desk/notes").json() == {"written": "prefix"}
        assert [each["url"] for each in desk.seen] == [f"{NOTES}/desk/notes".replace("https", "http")]
    own.server_close()
    redeem.close()
