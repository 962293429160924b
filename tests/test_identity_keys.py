"""Key sets over real HTTP: pinned, cached, rotated, and what a hostile or broken server cannot do."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentgate.errors import CredentialRefused, KeyRefused, KeysUnavailable
from agentgate.identity import fetch as fetching
from agentgate.identity.fetch import fetch, is_public
from agentgate.identity.keys import FRESH, MAX_PAUSE, PAUSE, USABLE, KeySource, read_keys
from agentgate.shell.bound import WAITERS
from agentgate.shell.drive import adrive
from tests.authority import Key, Web, jwks, proven, redirect, reply, slowly, web

ONE, TWO = Key("one"), Key("two")


@pytest.fixture
def served() -> Iterator[Web]:
    with web() as made:
        yield made


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def source(where: str, clock: Clock | None = None, **more: Any) -> KeySource:
    return KeySource(where, clock=clock or Clock(), **{"private": True, **more})


# --- the cache ------------------------------------------------------------------------------------------------------------------
def test_a_key_set_is_read_once_while_it_is_fresh(served: Web) -> None:
    clock = Clock()
    keys = source(served.publish("/k", ONE, TWO), clock)
    for _ in range(50):
        assert proven(keys.key("one"))[0].key_id == "one"
        assert proven(keys.key("two"))[0].key_id == "two"
        clock.now += FRESH / 60
    assert len(served.asked) == 1
    clock.now += FRESH
    proven(keys.key("one"))
    assert len(served.asked) == 2


def test_a_rotated_key_is_found_and_the_old_one_is_gone(served: Web) -> None:
    clock = Clock()
    keys = source(served.publish("/k", ONE), clock)
    proven(keys.key("one"))
    served.publish("/k", TWO)
    clock.now += PAUSE
    assert proven(keys.key("two"))[0].key_id == "two"
    with pytest.raises(CredentialRefused, match="kid"):
        proven(keys.key("one"))


def test_unknown_names_cause_no_storm(served: Web) -> None:
    """An attacker sends tokens with a thousand names of keys: the issuer is asked once in ten seconds, and honest ones go on."""
    clock = Clock()
    keys = source(served.publish("/k", ONE), clock)
    proven(keys.key("one"))
    for n in range(1000):
        with pytest.raises(CredentialRefused):
            proven(keys.key(f"made-up-{n}"))
        assert proven(keys.key("one"))[0].key_id == "one"
        clock.now += 0.05
    assert len(served.asked) <= 2 + 1000 * 0.05 / PAUSE


def test_a_server_that_fails_is_asked_less_and_less_often(served: Web) -> None:
    clock = Clock()
    keys = source(served.url + "/none", clock)
    for _ in range(3600):
        with pytest.raises(KeysUnavailable, match="status 404"):
            proven(keys.key("one"))
        clock.now += 1
    assert len(served.asked) <= 6 + 3600 / MAX_PAUSE
    served.publish("/none", ONE)
    clock.now += MAX_PAUSE
    assert proven(keys.key("one"))[0].key_id == "one"


def test_the_last_good_keys_serve_for_an_hour_and_no_longer(served: Web) -> None:
    clock = Clock()
    keys = source(served.publish("/k", ONE), clock)
    proven(keys.key("one"))
    served.paths["/k"] = lambda handler: reply(handler, b"no", 500)
    for _ in range(int(USABLE // 100) - 1):
        clock.now += 100
        assert proven(keys.key("one"))[0].key_id == "one"
    clock.now += 100
    with pytest.raises(KeysUnavailable, match="status 500"):
        proven(keys.key("one"))


def test_few_callers_wait_for_the_first_keys_and_cause_one_request(served: Web) -> None:
    """Else an issuer that hangs, in its first minute, holds every place of a gate, which are other issuers' and tenants' too."""
    told, found, refused = threading.Event(), list[str](), list[str]()
    served.publish("/k", ONE)
    publish = served.paths["/k"]
    served.paths["/k"] = lambda handler: (told.wait(1.5), publish(handler))[1]
    keys = source(served.url + "/k")

    def ask() -> None:
        try:
            found.append(str(proven(keys.key("one"))[0].key_id))
        except KeysUnavailable as error:
            refused.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    while len(refused) < 20 - WAITERS:
        time.sleep(0.01)
    assert found == []  # they were refused while the others waited
    told.set()
    for thread in threads:
        thread.join()
    assert (found, len(refused), len(served.asked)) == (["one"] * WAITERS, 20 - WAITERS, 1)
    assert "being read" in refused[0]


async def test_who_waits_for_keys_takes_no_thread_that_others_need(served: Web) -> None:
    told = threading.Event()
    served.publish("/k", ONE)
    publish = served.paths["/k"]
    served.paths["/k"] = lambda handler: (told.wait(1.5), publish(handler))[1]
    keys, pool = source(served.url + "/k"), ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    waiting = [asyncio.create_task(adrive(keys.key("one"), None, None)) for _ in range(WAITERS)]  # type: ignore[arg-type]  # it asks neither
    await asyncio.sleep(0)  # all have begun
    await asyncio.to_thread(time.monotonic)
    assert not any(each.done() for each in waiting)
    told.set()
    assert [key.key_id for key, _ in await asyncio.gather(*waiting)] == ["one"] * WAITERS


def test_who_has_a_key_waits_for_nobody_that_reads(served: Web) -> None:
    clock = Clock()
    keys = source(served.publish("/k", ONE), clock)
    proven(keys.key("one"))
    clock.now += FRESH + 1
    served.paths["/k"] = slowly(1, served.paths["/k"])
    slow = threading.Thread(target=lambda: proven(keys.key("one")))
    slow.start()
    while not served.asked[1:]:
        time.sleep(0.01)
    began = time.monotonic()
    proven(keys.key("one"))
    assert time.monotonic() - began < 0.5
    slow.join()


@pytest.mark.deadline
def test_unknown_names_wait_for_nobody_that_reads(served: Web) -> None:
    """Else tokens that nobody signed, for an issuer that is slow, hold every place of a gate, which are other tenants' too."""
    one, clock = Key("one"), Clock()
    keys = source(served.publish("/jwks", one), clock)
    assert proven(keys.key("one"))
    clock.now += PAUSE + 1
    served.paths["/jwks"] = slowly(1.0, served.paths["/jwks"])

    def forged(name: str) -> None:
        with pytest.raises(CredentialRefused):
            proven(keys.key(name))

    slow = threading.Thread(target=forged, args=("forged",))
    slow.start()
    while len(served.asked) < 2:
        time.sleep(0.01)
    start = time.monotonic()
    with pytest.raises(KeysUnavailable, match="being read again"):
        proven(keys.key("forged too"))
    assert time.monotonic() - start < 0.5
    slow.join()
    forged("forged too")


def test_a_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "bundle.json"
    path.write_text(json.dumps(jwks(ONE)))
    keys = source(str(path), clock)
    assert proven(keys.key("one"))[0].key_id == "one"
    path.write_text(json.dumps(jwks(TWO)))
    clock.now += 2
    assert proven(keys.key("two"))[0].key_id == "two"
    path.write_text('{"keys": [')
    clock.now += 2
    assert proven(keys.key("two"))[0].key_id == "two"
    path.unlink()
    clock.now += USABLE
    with pytest.raises(KeysUnavailable):
        proven(keys.key("two"))


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b" " * (fetching.MAX_BYTES + 1))
    with pytest.raises(KeysUnavailable, match="at most"):
        proven(source(str(path)).key("one"))


# --- the request ------------------------------------------------------------------------------------------------------------------
def test_no_redirect_is_followed(served: Web) -> None:
    served.publish("/evil", ONE)
    for status in (301, 302, 303, 307, 308):
        served.paths["/k"] = redirect(status, "/evil")
        with pytest.raises(KeysUnavailable, match=f"status {status}"):
            fetch(served.url + "/k", private=True)
    assert "/evil" not in served.asked


def test_a_private_address_is_only_for_who_asks_for_it(served: Web) -> None:
    url = served.publish("/k", ONE)
    for private in (url, url.replace("127.0.0.1", "localhost")):
        with pytest.raises(KeysUnavailable, match="private address"):
            fetch(private, private=False)
    assert served.asked == []
    assert fetch(url, private=True)


@pytest.mark.parametrize(
    "address",
    "127.0.0.1 10.0.0.1 172.16.3.4 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 ::1 fe80::1%eth0 fc00::1 "
    "::ffff:127.0.0.1 ::ffff:169.254.169.254 :: 64:ff9b::169.254.169.254 2002:a00:1:: ::10.0.0.1 fec0::1".split(),
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("1.1.1.1")
    assert is_public("2606:4700:4700::1111")
    assert is_public("64:ff9b::1.1.1.1")


def test_a_name_that_also_has_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers with a public and a private address; the answer itself is real in form."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("1.1.1.1", "169.254.169.254")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(KeysUnavailable, match=r"169\.254"):
        fetch("https://keys.example/jwks", private=False)


def test_a_huge_body_is_not_read(served: Web) -> None:
    served.paths["/k"] = lambda handler: reply(handler, b"x" * (fetching.MAX_BYTES + 1))
    with pytest.raises(KeysUnavailable, match="a larger or an encoded body"):
        fetch(served.url + "/k", private=True)


def test_a_compressed_body_is_not_read(served: Web) -> None:
    served.paths["/k"] = lambda handler: reply(handler, json.dumps(jwks(ONE)).encode(), 200, **{"Content-Encoding": "gzip"})
    with pytest.raises(KeysUnavailable, match="encoded"):
        fetch(served.url + "/k", private=True)


def endless(handler: Any, kind: str) -> None:
    """A byte now and then: in the status line, in a header, in the body."""
    handler.wfile.write({"status": b"H", "header": b"HTTP/1.1 200 OK\r\nX-A: ", "body": b"HTTP/1.1 200 OK\r\n\r\n"}[kind])
    try:
        while True:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        return


@pytest.mark.parametrize("kind", ["status", "header", "body"])
@pytest.mark.deadline
def test_a_slow_server_ends_in_time_and_keeps_no_thread(served: Web, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.4)
    served.paths["/k"] = lambda handler: endless(handler, kind)
    began = time.monotonic()
    with pytest.raises(KeysUnavailable, match="no whole answer"):
        fetch(served.url + "/k", private=True)
    assert time.monotonic() - began < 2
    deadline = time.monotonic() + 5
    while any(thread.name == "agentgate-fetch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def raw(answer: bytes) -> Any:
    return lambda handler: handler.wfile.write(answer)


@pytest.mark.parametrize("answer", [b"", b"\x00" * 10, b"HTTP/1.1 2OO OK\r\n\r\n", b"SSH-2.0-x\r\n"], ids=repr)
def test_a_server_that_speaks_something_else(served: Web, answer: bytes) -> None:
    served.paths["/k"] = raw(answer)
    with pytest.raises(KeysUnavailable):
        fetch(served.url + "/k", private=True)


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(KeysUnavailable, match="ConnectionRefusedError"):
        fetch(f"http://127.0.0.1:{port}/", private=True)


def test_tls_is_verified(served: Web) -> None:
    """A server without a certificate for its name: plain HTTP under an https URL is the plainest."""
    with pytest.raises(KeysUnavailable, match="SSL"):
        fetch(served.publish("/k", ONE).replace("http://", "https://"), private=True)


# --- the set ------------------------------------------------------------------------------------------------------------------------
def test_keys_for_other_uses_are_left_out() -> None:
    listed = [
        ONE.jwk,
        {**TWO.jwk, "kid": "enc", "use": "enc"},
        {**TWO.jwk, "kid": "ops", "key_ops": ["sign"]},
        {"kty": "XX", "kid": "new"},
        {**Key("r", "RS256").jwk, "kid": "oaep", "alg": "RSA-OAEP"},
        {name: value for name, value in TWO.jwk.items() if name != "kid"},
        {**TWO.jwk, "kid": 7},
        {**TWO.jwk, "kid": ""},
    ]
    assert set(read_keys(json.dumps({"keys": listed}).encode()).keys) == {"one"}


def test_a_key_without_alg_has_that_of_its_type() -> None:
    listed = [{name: value for name, value in key.jwk.items() if name != "alg"} for key in (ONE, Key("r", "RS256"), Key("e", "EdDSA"))]
    assert [key.algorithm_name for key in read_keys(json.dumps({"keys": listed}).encode()).keys.values()] == ["ES256", "RS256", "EdDSA"]


SMALL_ORDER = {"kty": "OKP", "crv": "Ed25519", "kid": "s", "alg": "EdDSA", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}


@pytest.mark.parametrize(
    "keys",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [7]}',
        b'{"keys": [], "keys": []}',
        json.dumps({"keys": [{"kty": "oct", "kid": "s", "k": "c2VjcmV0"}]}).encode(),
        json.dumps({"keys": [{**ONE.jwk, "d": "AAAA"}]}).encode(),
        json.dumps({"keys": [ONE.jwk, ONE.jwk]}).encode(),
        json.dumps({"keys": [{**ONE.jwk, "x": "AAAA"}]}).encode(),
        json.dumps({"keys": [{**ONE.jwk, "alg": "RS256"}]}).encode(),
        json.dumps({"keys": [Key("weak", "RS256", 1024).jwk]}).encode(),
        json.dumps({"keys": [SMALL_ORDER]}).encode(),
        json.dumps({"keys": [{**ONE.jwk, "kid": str(n)} for n in range(101)]}).encode(),
    ],
    ids=lambda data: data[:20].decode(),
)
def test_a_set_that_cannot_be_trusted_is_refused_whole(keys: bytes) -> None:
    with pytest.raises(KeyRefused):
        read_keys(keys)
