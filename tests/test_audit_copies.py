"""Copies of checkpoints, where a writer of the log cannot change them: the state store, a folder, an endpoint, a witness that cosigns."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from typer.testing import CliRunner

from agentgate import Allow, Gate, Verifier
from agentgate.audit import FileAudit
from agentgate.audit.copies import place_of
from agentgate.audit.sealer import LOGS
from agentgate.audit.tree import PUBLIC, read_checkpoint
from agentgate.audit.verify import LogFinding
from agentgate.cli.main import app
from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores import open_store, ops, server_id
from tests.servers import Server, as_tool_server, valkey_binary
from tests.shop import ORDER, WORKFLOW, opened, run_of
from tests.test_audit_seals import consistent
from tests.test_verifier import GOOD


def soon() -> float:
    return time.monotonic() + 5


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def written(folder: Path, count: int, *places: str) -> FileAudit:
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    log = FileAudit(folder / "audit", keys=folder / "keys", places=tuple(map(place_of, places)))
    for number in range(count):
        log.append({"id": number}, soon())
    return log


def verified(folder: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["audit", "verify", str(folder / "audit"), "--key", str(folder / "keys" / PUBLIC), *more])


def made_anew(folder: Path) -> None:
    """Whoever may write log and key directory makes another log with the key."""
    shutil.rmtree(folder / "audit")
    shutil.rmtree(folder / "keys" / LOGS)
    written(folder, 1).close()


class Witness(ThreadingHTTPServer):
    """A small witness of https://c2sp.org/tlog-witness, and an endpoint beside it that keeps what it is sent."""

    def __init__(self, log: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.key, self.log, self.known = Ed25519PrivateKey.generate(), log, dict[str, tuple[int, bytes]]()
        self.posted: list[str] = []
        self.answers: list[int] = []
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def verifier(self) -> str:
        data = b"\x04" + self.key.public_key().public_bytes_raw()
        id_ = hashlib.sha256(b"witness.example\n" + data).digest()[:4]
        return f"witness.example+{id_.hex()}+{b64encode(data).decode()}"

    def add(self, body: str) -> tuple[int, str]:
        head, note = body.split("\n\n", 1)
        first, *proof = head.split("\n")
        old = int(first.removeprefix("old "))
        text, signatures = note.split("\n\n")
        origin, size, root = text.split("\n")
        public = Ed25519PublicKey.from_public_bytes(b64decode(self.log.read_text()))
        try:
            public.verify(b64decode(signatures.rpartition(" ")[2])[4:], f"{text}\n".encode())
        except InvalidSignature:
            return 403, ""
        known, known_root = self.known.get(origin, (0, b""))
        if old != known:
            return 409, f"{known}\n"
        if old and not consistent(old, int(size), known_root, b64decode(root), [b64decode(each) for each in proof]):
            return 422, ""
        self.known[origin] = int(size), b64decode(root)
        now = int(time.time())
        signature = self.key.sign(f"cosignature/v1\ntime {now}\n{text}\n".encode())
        id_ = bytes.fromhex(self.verifier.split("+")[1])
        return 200, f"\u2014 witness.example {b64encode(id_ + now.to_bytes(8) + signature).decode()}\n"


class Answer(BaseHTTPRequestHandler):
    server: Witness

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("location", f"{self.server.url}/")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        while self.path == "/slow" and not self.server.over.wait(0.2):
            self.wfile.write(b"HTTP/1.0 200 ")  # a byte now and then is no answer, and no silence
        status, answer = (200, "") if self.path != "/add-checkpoint" else self.server.add(body)
        self.server.posted.append(body)
        self.server.answers.append(status)
        self.send_response(status)
        self.send_header("content-length", str(len(answer.encode())))
        self.end_headers()
        self.wfile.write(answer.encode())

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    served = Witness(tmp_path / "keys" / PUBLIC)
    yield served
    served.over.set()
    served.shutdown()
    served.server_close()


def test_a_witness_cosigns_each_tree_that_goes_on(tmp_path: Path, witness: Witness) -> None:
    place = f"{witness.verifier} {witness.url}"
    log = written(tmp_path, 3, place)
    (path,) = (tmp_path / "audit").glob("*.seals")
    cosigned = tmp_path / "audit" / f"{path.name.split('.')[0]}.checkpoint"
    log.close()
    until(cosigned.exists)
    for _ in range(4):  # another process does not know what was cosigned: the witness says it
        written(tmp_path, 2, place).close()
    ((origin, (size, root)),) = witness.known.items()
    note = cosigned.read_text()
    assert read_checkpoint(note) == (origin, size, root)
    assert size > 8
    assert {*witness.answers} <= {200, 409}
    with_witness = ("--checkpoint", str(cosigned), "--witness", witness.verifier)
    assert verified(tmp_path, *with_witness).exit_code == 0
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    id_ = hashlib.sha256(b"witness.example\n\x04" + other).digest()[:4]
    stranger = f"witness.example+{id_.hex()}+{b64encode(bytes([4]) + other).decode()}"
    assert verified(tmp_path, "--checkpoint", str(cosigned), "--witness", stranger).exit_code == 1
    kept = tmp_path / "kept"
    shutil.copy(cosigned, kept)
    made_anew(tmp_path)
    assert verified(tmp_path).exit_code == 0
    assert verified(tmp_path, "--checkpoint", str(kept), "--witness", witness.verifier).exit_code == LogFinding.WENT_BACK


def test_a_witness_does_not_cosign_a_log_that_went_back(tmp_path: Path, witness: Witness) -> None:
    place = f"{witness.verifier} {witness.url}"
    log = written(tmp_path, 3, place)
    until(lambda: witness.known)
    shutil.copytree(tmp_path / "audit", tmp_path / "before", symlinks=True)
    shutil.copytree(tmp_path / "keys" / LOGS, tmp_path / "logs")
    log.close()
    written(tmp_path, 3, place).close()
    shutil.rmtree(tmp_path / "audit")
    shutil.rmtree(tmp_path / "keys" / LOGS)
    (tmp_path / "before").rename(tmp_path / "audit")
    (tmp_path / "logs").rename(tmp_path / "keys" / LOGS)
    back = written(tmp_path, 0, place)
    until(lambda: back.copies.problems)
    assert "leaves" in back.copies.problems[witness.url]
    back.close()


def test_a_witness_that_answers_without_its_cosignature_has_not_cosigned(tmp_path: Path, witness: Witness) -> None:
    place = f"{witness.verifier} {witness.url}"
    witness.key = Ed25519PrivateKey.generate()
    log = written(tmp_path, 2, place)
    until(lambda: log.copies.problems)
    assert log.copies.problems[witness.url] == "answered without its cosignature"
    log.close()
    assert not [*(tmp_path / "audit").glob("*.checkpoint")]


def test_a_copy_beside_the_keys_that_another_key_signed_is_an_error(tmp_path: Path) -> None:
    written(tmp_path, 2).close()
    (copy,) = (tmp_path / "keys" / LOGS).iterdir()
    value = json.loads(copy.read_text())
    text, _, line = value["note"].rpartition(" ")
    data = bytearray(b64decode(line))
    data[20] ^= 1
    copy.write_text(json.dumps({**value, "note": f"{text} {b64encode(bytes(data)).decode()}\n"}))
    done = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")])
    assert (done.exit_code, "another key signed" in done.output) == (1, True)


@pytest.mark.parametrize("known", [-1, 1000])
def test_a_witness_that_knows_a_size_that_cannot_be_is_believed_in_nothing(tmp_path: Path, witness: Witness, known: int) -> None:
    """Else what it said once would keep every later checkpoint from it."""
    written(tmp_path, 1).close()
    (seals,) = (tmp_path / "audit").glob("*.seals")
    note = json.loads(seals.read_bytes().splitlines()[-1])["note"]
    place, origin = place_of(f"{witness.verifier} {witness.url}"), read_checkpoint(note).origin
    witness.known[origin] = known, b""
    for _ in range(2):
        with pytest.raises(OSError, match=f"knows {known} leaves"):
            place.send(note, tmp_path / "audit")
    del witness.known[origin]
    place.send(note, tmp_path / "audit")
    assert witness.known[origin][0] == read_checkpoint(note).size


def test_a_folder_keeps_the_newest_and_takes_no_older_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    log = written(tmp_path, 3, str(tmp_path / "elsewhere"))
    log.close()
    (kept,) = (tmp_path / "elsewhere").iterdir()
    assert verified(tmp_path, "--checkpoint", str(kept)).exit_code == 0
    before = kept.read_text()
    (seals,) = (tmp_path / "audit").glob("*.seals")
    seals.write_bytes(b"".join(seals.read_bytes().splitlines(keepends=True)[:-1]))
    shutil.rmtree(tmp_path / "keys" / LOGS)
    assert verified(tmp_path, "--checkpoint", str(kept)).exit_code == LogFinding.WENT_BACK
    note = json.loads(seals.read_bytes().splitlines()[-1])["note"]
    with pytest.raises(OSError, match="does not continue"):
        place_of(str(tmp_path / "elsewhere")).send(note, tmp_path)
    assert kept.read_text() == before


def test_an_endpoint_gets_each_newest_checkpoint_and_one_that_is_away_stops_nothing(tmp_path: Path, witness: Witness) -> None:
    log = written(tmp_path, 3, f"{witness.url}/checkpoints", "http://127.0.0.1:9/nobody")
    until(lambda: witness.posted and read_checkpoint(witness.posted[-1]).size >= 1)
    until(lambda: log.copies.problems)
    log.append({"id": 4}, soon())
    log.close()
    assert [*log.copies.problems] == ["http://127.0.0.1:9/nobody"]


def test_an_endpoint_that_names_another_keeps_nothing_and_that_is_told(tmp_path: Path, witness: Witness) -> None:
    """A redirected POST is asked for by GET, without the checkpoint, wherever the endpoint says; its 200 kept nothing."""
    log = written(tmp_path, 1, f"{witness.url}/elsewhere")
    until(lambda: log.copies.problems)
    log.close()
    assert "302" in log.copies.problems[f"{witness.url}/elsewhere"]


def test_no_proxy_of_the_environment_takes_a_checkpoint(tmp_path: Path, witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", witness.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    log = written(tmp_path, 1, "http://127.0.0.1:9/nobody")
    until(lambda: log.copies.problems)
    log.close()
    assert not witness.posted


def test_a_place_that_does_not_come_to_an_end_keeps_none_from_another(tmp_path: Path, witness: Witness) -> None:
    """A witness that is slow on purpose would keep the log's growth from everybody who could notice that it is cut."""
    log = written(tmp_path, 1, f"{witness.url}/slow", f"{witness.url}/kept")
    until(lambda: witness.posted)
    assert not witness.over.is_set()
    witness.over.set()
    log.close()


@pytest.mark.parametrize("place", ["", "ftp://x", "http://example.com/", "key https://example.com", "/not/there", "https:// x"])
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError):
        place_of(place)


# --- the state store ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(valkey_binary(), tmp_path / "server")
    yield running
    running.stop()


def ask(url: str, op: Any) -> Any:
    store = open_store(url)
    try:
        return op.parse(store.call(op, soon()))
    finally:
        store.close()


def test_only_a_larger_tree_replaces_a_checkpoint_in_the_store(server: Server) -> None:
    assert ask(server.url, ops.keep_checkpoint("a", 3, "three")) == "three"
    assert ask(server.url, ops.keep_checkpoint("a", 2, "two")) == "three"
    assert ask(server.url, ops.keep_checkpoint("a", 3, "another three")) == "three"
    assert ask(server.url, ops.keep_checkpoint("a", 10, "ten")) == "ten"
    assert ask(server.url, ops.keep_checkpoint("b", 0, "none")) == "none"
    assert sorted(ask(server.url, ops.read_checkpoints())) == ["none", "ten"]


def shop(folder: Path, server: Server) -> Gate:
    (folder / "w").mkdir(exist_ok=True)
    (folder / "w" / "refund.yaml").write_text(
        WORKFLOW.replace("  orders.get:\n", '  orders.get:\n    audience: "https://orders.example"\n')
    )
    gate = opened(folder, store=server.url, audit=str(folder / "audit"), keys=folder / "keys")
    assert isinstance(gate, Gate)
    return gate


def test_a_gate_keeps_its_checkpoint_in_the_store_and_a_log_that_was_made_anew_is_told(tmp_path: Path, server: Server) -> None:
    with shop(tmp_path, server) as gate:
        assert isinstance(run_of(gate).authorize("orders.get", ORDER), Allow)
    until(lambda: ask(server.url, ops.read_checkpoints()))
    assert verified(tmp_path, "--store", server.url).exit_code == 0
    before = max(read_checkpoint(note).size for note in ask(server.url, ops.read_checkpoints()))
    made_anew(tmp_path)
    assert verified(tmp_path).exit_code == 0
    answer = verified(tmp_path, "--store", server.url)
    assert answer.exit_code == LogFinding.WENT_BACK
    assert f"the state store knows {before} leaves" in answer.output.replace("\n", " ")


def test_a_gate_compares_and_says_so_where_the_store_knows_more(tmp_path: Path, server: Server) -> None:
    with shop(tmp_path, server):
        pass
    (seals,) = (tmp_path / "audit").glob("*.seals")
    origin = f"agentgate/audit/{seals.name.split('.')[0]}"
    note = f"{origin}\n1000\n{b64encode(b'x' * 32).decode()}\n\n\u2014 x\n"
    ask(server.url, ops.keep_checkpoint(origin, 1000, note))
    with shop(tmp_path, server) as gate:
        copies = gate._audit.copies  # type: ignore[attr-defined]  # a log in files
        until(lambda: copies.problems)
        assert "1000 leaves that this log" in copies.problems["state store"]


def test_a_tool_servers_checkpoint_is_under_its_own_key_and_gates_copy_it_where_it_cannot_write(tmp_path: Path, server: Server) -> None:
    with shop(tmp_path, server) as gate:
        audience = "https://orders.example"
        more: dict[str, Any] = {**GOOD, "issuer": gate.issuer, "audience": audience, "store": as_tool_server(server.url, audience, "acme")}
        more["tenants"] = ["acme"]
        verifier = Verifier.open(gate.jwks(), **more, audit=str(tmp_path / "tool"), heads=str(tmp_path / "kept"))
        key = f"ag:{{_audit}}:checkpoints:{server_id(audience)}"
        until(lambda: "agentgate/audit/" in server.command("HKEYS", key))
        verifier.close()
        until(lambda: server_id(audience) in server.command("HKEYS", "ag:{_audit}:checkpoints"))
    with pytest.raises(StoreUnavailable):
        ask(str(more["store"]), ops.keep_checkpoint("x", 1, "x"))
    with pytest.raises(StoreUnavailable):
        ask(str(more["store"]), ops.keep_checkpoint("x", 1, "x", audience="https://other.example"))
    assert "DEL" not in server.command("DEL", key)
    tool = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "tool"), "--keys", str(tmp_path / "kept"), "--store", server.url])
    assert tool.exit_code == 0
    shutil.rmtree(tmp_path / "tool")
    shutil.rmtree(tmp_path / "kept" / LOGS)
    log = FileAudit(tmp_path / "tool", keys=tmp_path / "kept")
    log.append({"id": 1}, soon())
    log.close()
    answer = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "tool"), "--keys", str(tmp_path / "kept"), "--store", server.url])
    assert answer.exit_code == LogFinding.WENT_BACK


def test_a_tool_server_that_keeps_no_text_keeps_no_gates_checkpoint_from_the_store(tmp_path: Path, server: Server) -> None:
    """Else it would switch the store's copies off, for the log of each gate and for whoever verifies by them."""
    audience = "https://orders.example"
    for note in (b"9\n\xff\xfe", b"8\nno note", b"7\n" + b"\n" * 99):
        with redis.Redis.from_url(as_tool_server(server.url, audience, "acme")) as tool:
            tool.hset(f"ag:{{_audit}}:checkpoints:{server_id(audience)}", note[:1], note)
    with shop(tmp_path, server) as gate:
        assert isinstance(run_of(gate).authorize("orders.get", ORDER), Allow)
        until(lambda: server_id(audience) in server.command("HKEYS", "ag:{_audit}:checkpoints"))
        until(lambda: "\nagentgate/audit/" in server.command("HKEYS", "ag:{_audit}:checkpoints"))
        copies = gate._audit.copies  # type: ignore[attr-defined]  # a log in files
        assert copies.problems == {}
    assert verified(tmp_path, "--store", server.url).exit_code == 0
    made_anew(tmp_path)
    assert verified(tmp_path, "--store", server.url).exit_code == LogFinding.WENT_BACK


def test_where_what_tool_servers_keep_cannot_be_read_a_gate_keeps_its_own(tmp_path: Path, server: Server) -> None:
    name = server_id("https://orders.example")
    ask(server.url, ops.keep_checkpoint("log", 2, "note", audience="https://orders.example"))
    server.command("HSET", "ag:{_audit}:checkpoints", f'"{name} log"', "nothing")
    with shop(tmp_path, server) as gate:
        assert isinstance(run_of(gate).authorize("orders.get", ORDER), Allow)
        until(lambda: gate._audit.copies.problems)  # type: ignore[attr-defined]  # as above
        until(lambda: "\nagentgate/audit/" in server.command("HKEYS", "ag:{_audit}:checkpoints"))


def test_a_tool_server_that_fills_its_own_key_fills_no_other(server: Server) -> None:
    for number in range(101):
        ask(server.url, ops.keep_checkpoint(f"log {number}", 1, "note", audience="https://orders.example"))
    assert ask(server.url, ops.read_checkpoints(["https://orders.example"])) == []
