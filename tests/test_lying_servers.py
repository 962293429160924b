"""Servers that lie, drip, flood or never end: whoever of this package asks them refuses in time, reads little, and leaves no thread."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.parsers import ResponseParserError

from agentgate.cli.exchange import answered
from agentgate.credentials.oauth import OAuthBroker
from agentgate.credentials.static import Secret, StaticBroker
from agentgate.credentials.sts import AwsRole, Permission, STSBroker
from agentgate.credentials.vault import VaultBroker
from agentgate.errors import ConfigError, KeysUnavailable, TokenRefused, UpstreamRefused
from agentgate.gate.notify import Webhook
from agentgate.identity import fetch as fetching
from agentgate.identity.fetch import MAX_BYTES, ask, fetch
from agentgate.integrations import httpx as auth
from agentgate.integrations.client_key import ClientKey
from agentgate.integrations.exchange import Credentials, ExchangeRefused
from agentgate.integrations.redeemer import GateRedeemer, _Lost, _proven
from agentgate.redemption.credential import Asked, checked_brokers
from agentgate.redemption.credential import fetch as upstream_fetch
from agentgate.testing.probe import Probe, Sent, carried_out
from agentgate.token.signing import RunKey
from tests.authority import reply, web
from tests.tls import certificate

Send = Callable[[bytes], None]
Lie = Callable[[Send], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@cache
def bomb(compress: Callable[[bytes, int], bytes] = gzip.compress) -> bytes:
    """200 MB in 195 kB."""
    return compress(b"0" * 200_000_000, 9)


def drip(*parts: bytes, forever: bytes) -> Lie:
    def send(write: Send) -> None:
        for part in parts:
            write(part)
        while True:
            for byte in forever:
                write(bytes([byte]))
                time.sleep(0.05)
            if not forever:
                time.sleep(20)

    return send


def flood(*parts: bytes, forever: bytes) -> Lie:
    def send(write: Send) -> None:
        for part in parts:
            write(part)
        while True:
            write(forever)

    return send


def once(data: bytes) -> Lie:
    return lambda write: write(data)


def whole(body: bytes | Callable[[], bytes], more: bytes = b"", status: bytes = b"200 OK") -> Lie:
    def send(write: Send) -> None:
        made = body if isinstance(body, bytes) else body()
        head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(made)
        write(head + more + b"\r\n" + made)

    return send


def in_chunks(write: Send) -> None:
    head = OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb()), bomb()))


ENDLESS: dict[str, Lie] = {
    "a status line, drip by drip": drip(forever=b"H"),
    "a header, drip by drip": drip(OK, forever=b"X"),
    "headers, drip by drip": drip(OK, forever=b"X: y\r\n"),
    "a body, drip by drip": drip(OK, b"Content-Length: 1000\r\n\r\n", forever=b" "),
    "chunks, drip by drip": drip(OK, b"Transfer-Encoding: chunked\r\n\r\n", forever=b"1\r\n \r\n"),
    "continue, without end": flood(forever=b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "continue, drip by drip": drip(forever=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing at all": lambda _: time.sleep(20),
    "a head and no body": drip(OK + b"Content-Length: 5\r\n\r\n", forever=b""),
}
TOO_MUCH: dict[str, Lie] = {
    "a body without end": flood(OK + b"\r\n", forever=b" " * 65536),
    "chunks without end": flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", forever=b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "headers without end": flood(OK, forever=b"X: y\r\n" * 100),
    "a header without end": flood(OK + b"X: ", forever=b"y" * 65536),
    "a status line without end": flood(forever=b"H" * 65536),
    "a chunk's size without end": flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", forever=b"0" * 65536),
    "gzip": whole(bomb, b"Content-Encoding: gzip\r\n"),
    "gzip, in capitals": whole(bomb, b"CONTENT-ENCODING: GZIP\r\n"),
    "gzip, then nothing": whole(bomb, b"Content-Encoding: gzip\r\nContent-Encoding: identity\r\n"),
    "nothing, then gzip": whole(bomb, b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"),
    "gzip twice": whole(lambda: gzip.compress(bomb()), b"Content-Encoding: gzip, gzip\r\n"),
    "deflate": whole(lambda: bomb(zlib.compress), b"Content-Encoding: deflate\r\n"),
    "gzip in chunks": in_chunks,
    "a small body, encoded": whole(gzip.compress(b"{}"), b"Content-Encoding: gzip\r\n"),
    "an encoding nobody knows": whole(b"{}", b"Content-Encoding: x\r\n"),
    "a byte too many": whole(b" " * (MAX_BYTES + 1)),
    "a part of a body": once(OK + b"Content-Length: 100\r\n\r\n{}"),
    "a redirect": whole(b"", b"Location: /elsewhere\r\n", b"307 Temporary Redirect"),
    "a redirect to a file": whole(b"", b"Location: file:///etc/passwd\r\n", b"302 Found"),
    "another protocol": once(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    "early hints": once(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "no HTTP": once(b"SSH-2.0-x\r\n"),
    "nothing": once(b""),
}
LIES = {**ENDLESS, **TOO_MUCH}


class Liar:
    """A server on loopback that answers each connection with one lie; with TLS, in TLS."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.lie: Lie = once(b"")
        self.raw = False  # lie before TLS begins
        self.asked = list[bytes]()
        self._tls, self._listening = tls, socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True, name="liar").start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=self._listening.accept()[:1], daemon=True, name="liar").start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, self._spoken(connection) as spoken:
            if not self.raw:
                self.asked.append(spoken.recv(65536))
            self.lie(spoken.sendall)

    def _spoken(self, connection: socket.socket) -> AbstractContextManager[socket.socket]:
        if self._tls is None or self.raw:
            return nullcontext(connection)
        return self._tls.wrap_socket(connection, server_side=True)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


@contextmanager
def bounded(seconds: float = 6.0, most: int = 30_000_000) -> Iterator[None]:
    """In time, in little memory, and with no thread of ours that stays."""
    bomb(), bomb(zlib.compress)  # not while memory is counted
    began, before = time.monotonic(), set(threading.enumerate())
    tracemalloc.start()
    yield
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - began < seconds
    assert used < most, used
    until = time.monotonic() + 3
    while any(thread.name.startswith("agentgate") for thread in set(threading.enumerate()) - before):
        assert time.monotonic() < until, [thread.name for thread in threading.enumerate()]
        time.sleep(0.02)


@pytest.mark.parametrize("lie", LIES)
def test_a_key_set_is_not_believed(liar: Liar, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.5)
    liar.lie = LIES[lie]
    with bounded(1.5), pytest.raises(KeysUnavailable) as refused:
        fetch(liar.url + "/keys", private=True)
    assert len(str(refused.value)) < 500
    assert (b"Accept-Encoding: identity" in liar.asked[0], len(liar.asked)) == (True, 1)


def test_a_webhook_learns_nothing_by_lying(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.5)
    hook = Webhook(liar.url + "/hook", os.urandom(24), private=True)
    for name, lie in LIES.items():
        liar.lie = lie
        with bounded(1.5):
            done, _ = hook.send("evt_1", b"{}")
        believed = name not in {*(n for n in ENDLESS if "body" not in n and "chunks" not in n), "nothing", "no HTTP"}
        assert not done or believed, name


@pytest.mark.parametrize("lie", ["a handshake, drip by drip", "no handshake", "a body, drip by drip", "gzip"])
def test_tls_does_not_hide_a_lie(tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificate(tmp_path, "liar")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(made, made.with_suffix(".key"))
    monkeypatch.setattr(fetching, "SECONDS", 0.5)
    liar = Liar(server)
    liar.raw = "handshake" in lie
    hello = b"\x16\x03\x03\x40\x00\x02" + b"\x00" * 100
    liar.lie = LIES.get(lie) or (drip(forever=hello) if "drip" in lie else lambda _: time.sleep(20))
    with bounded(1.5), pytest.raises(KeysUnavailable, match="no whole answer in 0.5 s" if lie != "gzip" else "encoded"):
        ask("GET", liar.url, private=True, authorities=str(made))
    liar.close()


@pytest.mark.parametrize(
    "url", ["http://192.0.2.7/token", "http://localhost.example/", "ftp://127.0.0.1/", "file:///etc/passwd", "192.0.2.7"]
)
def test_nothing_is_asked_without_tls_but_on_this_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Whoever builds the URL: an `endpoint=` of AWS has no check of its own."""
    with bounded(1), pytest.raises(KeysUnavailable, match="https"):
        ask("GET", url, private=True)
    if url.startswith("http:"):
        with bounded(3), pytest.raises(UpstreamRefused, match="without TLS"):
            replace(brokers("http://localhost", monkeypatch)["sts"], endpoint=url).fetch(Wanted())


def test_a_connection_that_is_given_up_sends_nothing_in_the_clear(tmp_path: Path) -> None:
    """`SSLSocket.shutdown` drops TLS first: what the other thread is about to send then, a secret, would leave as it is."""
    made = certificate(tmp_path, "liar")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(made, made.with_suffix(".key"))
    liar = Liar(server)
    exchange = fetching._Exchange(liar.url, private=True, seconds=2)
    exchange._connect(str(made))
    with pytest.raises(KeysUnavailable, match="no whole answer"):
        exchange.end()
    assert isinstance(exchange._socket, ssl.SSLSocket)
    assert exchange._socket.version() is not None
    try:
        with pytest.raises(OSError):  # a broken pipe, a reset, or TLS's own: whatever the other end saw first
            exchange._socket.sendall(b"secret")
    finally:
        exchange._socket.close()
        liar.close()


def test_a_late_answer_is_told_in_the_same_words_whichever_clock_ends_it(liar: Liar) -> None:
    """The socket has the seconds that the whole answer has."""
    liar.lie = LIES["nothing at all"]
    exchange = fetching._Exchange(liar.url, private=True, seconds=0.2)
    exchange.run("GET", None, {}, 10, None)
    with pytest.raises(KeysUnavailable, match=r"no whole answer in 0\.2 s"):
        exchange.end()


# --- brokers ----------------------------------------------------------------------------------------------------------------------
class Wanted:
    """What a broker reads of a redeemed call."""

    def __init__(self, **settings: Any) -> None:
        self.wanted: Any = self
        self.broker, self.role, self.settings = "bank", "writer", {"region": "eu-central-1", **settings}
        self.args: dict[str, Any] = {}
        workflow = type("Workflow", (), {"id": "w", "version": 1})
        fields = {"tenant": "acme", "run": "r", "txn": "txn_1", "sub": "lee", "client_id": "bot", "tool": "pay", "workflow": workflow}
        self.claims = type("Claims", (), {"scopes": frozenset({"refunds:create", "refunds:read"}), **fields})


def brokers(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("SECRET", "secret-of-the-broker")
    secret = Secret(env="SECRET")
    role = AwsRole("arn:aws:iam::1:role/writer", {s: [Permission(["s3:GetObject"], ["x"])] for s in ("refunds:create", "refunds:read")})
    return {
        "oauth": OAuthBroker(url + "/token", "tools", secret),
        "vault": VaultBroker(url, secret),
        "sts": STSBroker({"writer": role}, access_key=("AKIABROKER", secret), endpoint=url),
    }


ONCE_EACH = pytest.mark.thorough("the same reader: each broker gets some of the lies, and one of them all")


def rows(*lies: str) -> list[Any]:
    """Brokers and lies: all for one broker; for the others, quickly, the first and the last."""
    some = {lies[0], lies[-1]}
    each = [(lie, broker) for lie in lies for broker in ("oauth", "vault", "sts")]
    return [pytest.param(*row, marks=[] if row[1] == "oauth" or row[0] in some else ONCE_EACH) for row in each]


@pytest.fixture(scope="module")
def imported() -> None:
    """What brokers import is no part of what is measured."""
    with pytest.MonkeyPatch.context() as monkeypatch, web() as served:
        for broker in brokers(served.url, monkeypatch).values():
            with suppress(UpstreamRefused, ResponseParserError):
                broker.fetch(Wanted())


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(("lie", "broker"), rows("a body, drip by drip", "continue, without end", "a header, drip by drip"))
def test_a_broker_does_not_wait_for_a_server_that_never_ends(liar: Liar, monkeypatch: pytest.MonkeyPatch, broker: str, lie: str) -> None:
    liar.lie = LIES[lie]
    asked = brokers(liar.url, monkeypatch)[broker]
    with bounded(5), pytest.raises(UpstreamRefused, match=r"no whole answer in [23] s"):
        asked.fetch(Wanted())


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(("lie", "broker"), rows(*TOO_MUCH))
def test_a_broker_reads_no_more_than_an_answer(liar: Liar, monkeypatch: pytest.MonkeyPatch, broker: str, lie: str) -> None:
    liar.lie = LIES[lie]
    asked = brokers(liar.url, monkeypatch)[broker]
    with bounded(5), pytest.raises((UpstreamRefused, ResponseParserError)) as refused:
        asked.fetch(Wanted())
    assert "secret-of-the-broker" not in str(refused.value)
    assert not any(b"/elsewhere" in each for each in liar.asked)


def token_answer(**more: Any) -> dict[str, Any]:
    made = {"access_token": "upstream-token-1", "token_type": "Bearer", "expires_in": 300, "scope": "refunds:create", **more}
    return {name: value for name, value in made.items() if value is not ...}


NO_TEXT: tuple[Any, ...] = ("", " ", [], ["refunds:create"], {}, {"refunds:create": 1}, None, 0, 1, True, False)
NO_TYPE: tuple[Any, ...] = ("", "mac", ["Bearer"], {}, None, 1, True, ..., "Bearer Bearer")
NO_TOKEN: tuple[Any, ...] = ({}, ["x" * 20], 7, None, ..., True, "upstream-token\r\nX-User: admin", "upstream-token-\u00e9")
NO_SECONDS: tuple[Any, ...] = ("300", "", [], [300], {}, None, True, False, 0, -1, 1.5, 3e9, 2**63)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        *(({"scope": value}, "scope") for value in NO_TEXT),
        ({"scope": "payouts:create"}, "scope"),
        ({"scope": "refunds:create payouts:create"}, "scope"),
        ({"scope": "refunds:create\tpayouts:create"}, "scope"),
        ({"scope": "refunds:create,refunds:read"}, "scope"),
        *(({"token_type": value}, "token_type") for value in NO_TYPE),
        *(({"access_token": value}, "access_token") for value in NO_TOKEN),
        *(({"expires_in": value}, "expires_in") for value in NO_SECONDS),
    ],
    ids=str,
)
def test_a_token_endpoint_that_says_something_in_another_form_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], field: str
) -> None:
    with web() as served:
        broker = brokers(served.url, monkeypatch)["oauth"]
        served.paths["/token"] = lambda handler: reply(handler, json.dumps(token_answer(**said)).encode())
        with pytest.raises(UpstreamRefused, match=f"{field}|token_endpoint"):
            broker.fetch(Wanted())
        served.paths["/token"] = lambda handler: reply(handler, json.dumps(token_answer()).encode())
        assert broker.fetch(Wanted()).scopes == {"refunds:create"}
        served.paths["/token"] = lambda handler: reply(handler, json.dumps(token_answer(scope=..., expires_in=...)).encode())
        left_out = broker.fetch(Wanted())
        assert (left_out.scopes, left_out.expires_at) == ({"refunds:create", "refunds:read"}, None)


@pytest.mark.parametrize("broker", ["oauth", "vault", "sts", "static"])
def test_a_broker_is_asked_for_the_calls_of_its_tenants_only(liar: Liar, monkeypatch: pytest.MonkeyPatch, broker: str) -> None:
    made = {**brokers(liar.url, monkeypatch), "static": StaticBroker({"writer": Secret(env="SECRET")})}[broker]
    asked = Asked("bank", {"role": "writer"} if broker != "oauth" else {}, frozenset(), frozenset())
    for tenants in (["other"], ["acme-eu", "ACME"], ("acme ",)):
        flow = upstream_fetch({"bank": replace(made, tenants=tenants)}, Wanted(), asked)  # type: ignore[arg-type]  # what it reads of a call
        with pytest.raises(UpstreamRefused, match=r"upstream\.bank\.tenants: got 'acme', expected one of"):
            next(flow)
    assert liar.asked == []
    assert next(upstream_fetch({"bank": replace(made, tenants=["other", "acme"])}, Wanted(), asked)) is not None  # type: ignore[arg-type]  # as above
    wrongs: list[Any] = [[], "acme", ()]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match="brokers"):
            checked_brokers({"bank": replace(made, tenants=wrong)})


MADE = {"client_token": "vault-token-1", "accessor": "accessor-1", "policies": ["writer"], "lease_duration": 300}


@pytest.mark.parametrize(
    "auth",
    [
        None,
        [],
        "text",
        *({**MADE, "policies": value} for value in ("writer", {"writer": 1}, [], None, ["writer", "root"], ["writer", 1], [["writer"]])),
        *({**MADE, "identity_policies": value} for value in ("root", ["root"], {"root": 1}, 1, True)),
        *({**MADE, "client_token": value} for value in (None, "", ["vault-token-1"], {"a": "vault-token-1"}, 1234567890, "short")),
        *({**MADE, "accessor": value} for value in (None, "", ["accessor-1"], 7)),
        *({**MADE, "lease_duration": value} for value in (None, "300", 0, -1, True, 1.5, [300], 301, 10**400)),
    ],
    ids=str,
)
def test_a_vault_that_says_something_in_another_form_is_not_believed(monkeypatch: pytest.MonkeyPatch, auth: Any) -> None:
    with web() as served:
        broker = brokers(served.url, monkeypatch)["vault"]
        served.paths |= {
            "/v1/auth/token/create": lambda handler: reply(handler, json.dumps({"auth": auth}).encode()),
            "/v1/auth/token/revoke-accessor": lambda handler: reply(handler, b"{}"),
        }
        with pytest.raises(UpstreamRefused):
            broker.fetch(Wanted())
        auth = MADE
        assert broker.fetch(Wanted()).reveal() == "vault-token-1"


@pytest.mark.parametrize(
    "read",
    [
        {},
        {"data": None, "lease_id": "", "lease_duration": 0},
        {"data": "text", "lease_id": "", "lease_duration": 0},
        {"data": {"data": ["password"], "metadata": {}}, "lease_id": "", "lease_duration": 0},
        {"data": {"data": None, "metadata": {}}, "lease_id": "", "lease_duration": 0},
        {"data": {"password": {"x": "y"}}, "lease_id": "", "lease_duration": 0},
        *({"data": {"password": "a-long-password"}, "lease_id": "x", "lease_duration": value} for value in ("60", None, -1, True, 1.5)),
        *({"data": {"password": "a-long-password"}, "lease_id": value, "lease_duration": 60} for value in (1, True, ["x"])),
    ],
    ids=str,
)
def test_nor_what_it_says_of_a_secret(monkeypatch: pytest.MonkeyPatch, read: Any) -> None:
    with web() as served:
        broker = brokers(served.url, monkeypatch)["vault"]
        served.paths |= {
            "/v1/auth/token/create": lambda handler: reply(handler, json.dumps({"auth": MADE}).encode()),
            "/v1/auth/token/revoke-accessor": lambda handler: reply(handler, b"{}"),
            "/v1/secret/bank": lambda handler: reply(handler, json.dumps(read).encode()),
        }
        with pytest.raises(UpstreamRefused):
            broker.fetch(Wanted(path="secret/bank"))
        assert "/v1/auth/token/revoke-accessor" in served.asked


# --- callers of a gate --------------------------------------------------------------------------------------------------------------
WHO = Credentials("notes", lambda: "a.b.c")


@pytest.mark.parametrize("lie", [name for name in LIES if name not in {"nothing at all", "a head and no body"}])
def test_a_gate_that_lies_gives_a_command_nothing(liar: Liar, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.cli.exchange._SECONDS", 1.0)
    liar.lie = LIES[lie]
    with bounded(4):
        try:
            answer = answered("POST", liar.url, trust_env=False, data={"a": "b"})
        except ExchangeRefused:
            return
    assert answer.status in {307, 302, 101, 103}, "what `TokenEndpoint.token` refuses"


def test_a_command_says_of_a_late_gate_that_it_is_late(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.cli.exchange._SECONDS", 0.1)
    liar.lie = LIES["nothing at all"]
    for _ in range(5):
        with pytest.raises(ExchangeRefused, match=r"no whole answer in 0\.1 s"):
            answered("POST", liar.url, trust_env=False)


@pytest.mark.parametrize("lie", ["gzip", "gzip, in capitals", "deflate", "a body without end", "chunks without end", "a byte too many"])
@pytest.mark.parametrize("awaited", [False, True])
def test_nor_an_httpx_client(liar: Liar, lie: str, awaited: bool) -> None:  # noqa: FBT001 - a row
    liar.lie = LIES[lie]
    call = auth.GateAuth(liar.url, WHO, key=RunKey.generate()).call("t", {}, workflow="w")

    async def post() -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            await http.post("https://tools.example/", auth=call)

    def blocking() -> None:
        with httpx.Client(trust_env=False) as http:
            http.post("https://tools.example/", auth=call)

    with bounded(), pytest.raises(ExchangeRefused, match="invalid_answer"):
        asyncio.run(post()) if awaited else blocking()


@pytest.mark.parametrize("lie", ["a body, drip by drip", "chunks, drip by drip"])
def test_a_gate_that_drips_holds_an_httpx_client_no_longer_than_it_waits(liar: Liar, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_SECONDS", 0.5)
    liar.lie = LIES[lie]
    call = auth.GateAuth(liar.url, WHO, key=RunKey.generate()).call("t", {}, workflow="w")
    with bounded(2), httpx.Client(trust_env=False) as http, pytest.raises(ExchangeRefused, match="invalid_answer"):
        http.post("https://tools.example/", auth=call)


def test_a_probe_reads_no_body(liar: Liar) -> None:
    for lie in ("gzip", "a body without end", "a body, drip by drip", "chunks without end"):
        liar.lie = LIES[lie]
        sent = Sent("POST", liar.url, (), b"{}")
        with bounded(2), httpx.Client(trust_env=False) as http:
            assert [each.status for each in carried_out([Probe("x", sent, frozenset({401}))], http)] == [200]


async def test_a_tool_server_says_of_a_late_gate_that_it_is_late(liar: Liar, tmp_path: Path) -> None:
    """Whichever clock ends it: HTTP's, of each read, or that of the whole answer."""
    liar.lie = LIES["nothing at all"]
    redeemer = GateRedeemer(liar.url, ClientKey.made("server", tmp_path / "key.pem"), tenants=["acme"], audience="https://tools.example")
    for each_read, whole_answer in ((0.1, 5.0), (5.0, 0.1)):
        async with httpx.AsyncClient(base_url=liar.url, trust_env=False, timeout=each_read) as redeemer._http:
            with pytest.raises(_Lost, match="no whole answer in time"):
                await redeemer._post("/v1/redeem", lambda: b"{}", whole_answer)


@pytest.mark.parametrize("lie", [name for name in LIES if "redirect" not in name and name not in {"another protocol", "early hints"}])
async def test_nor_a_tool_server_that_redeems_there(liar: Liar, tmp_path: Path, lie: str) -> None:
    liar.lie = LIES[lie]
    client = ClientKey.made("server", tmp_path / "key.pem")
    redeemer = GateRedeemer(liar.url, client, tenants=["acme"], audience="https://tools.example")
    async with httpx.AsyncClient(base_url=liar.url, trust_env=False) as redeemer._http:
        with bounded(3):
            try:
                answer = await redeemer._post("/v1/redeem", lambda: b"{}", 0.5)
            except _Lost:
                return
    with pytest.raises((TokenRefused, _Lost)):
        _proven({}, b"{}", answer, None)  # type: ignore[arg-type]  # no claims, nothing is the same
