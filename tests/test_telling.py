"""Who is told of holds: webhooks and commands, which nothing waits for and nothing depends on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow, AsyncGate, Gate, StepUp
from agentgate.errors import ConfigError
from agentgate.gate import telling
from agentgate.gate.telling import Command, Webhook
from tests.test_gate import BOSS, REFUND, WEEKDAY, WORKFLOW, looked_up, opened, run_of

BIG = {**REFUND, "amount": "150.00"}
SECRET = bytes(range(32))


class Listener:
    """A real HTTP server on loopback that keeps what it got and answers as it is told."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses = list(statuses)
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status = listener.statuses.pop(0) if listener.statuses else 204
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{listener.url}elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait(self, count: int) -> list[dict[str, Any]]:
        """The bodies, once there are so many."""
        end = time.monotonic() + 10
        while len(self.got) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.got) >= count
        return [json.loads(body) for _, _, body in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that follow each other at once."""
    monkeypatch.setattr(telling, "_PAUSE", 0.01)


def held(gate: Gate) -> tuple[Any, Any]:
    run = run_of(gate)
    looked_up(run)
    answer = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(answer, StepUp)
    return run, answer.hold


def test_approvers_learn_that_a_call_waits_and_everybody_what_was_answered(folder: Path, listener: Listener) -> None:
    hook = Webhook(listener.url + "holds?team=leads", SECRET, private=True)
    with opened(folder, tell=(hook,)) as gate:
        run, hold = held(gate)
        run.authorize("payments.refund", BIG, tool_call_id="pay")  # asked again: nobody is told twice
        gate.release(hold.id, tenant="acme", by=BOSS)
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
        told = listener.wait(2)
    assert [(t["type"], t["state"], t["hold"], t["tenant"], t["run"]) for t in told] == [
        ("held", "pending", hold.id, "acme", run.id),
        ("answered", "released", hold.id, "acme", run.id),
    ]
    assert (told[0]["question"]["requester"], told[0]["question"]["rules"][0]["whom"]) == ("lee", "1 of leads")
    assert (told[1]["by"], told[1]["answer"]) == ("boss", "release")
    path, headers, body = listener.got[0]
    assert path == "/holds?team=leads"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    everything = b"".join(body for _, _, body in listener.got)
    assert b"cus_1" not in everything  # sensitive
    assert b"arrived broken" not in everything  # the user's words


@pytest.mark.usefixtures("quick")
def test_it_is_told_again_under_the_same_id_a_few_times(folder: Path, listener: Listener) -> None:
    listener.statuses = [500, 503, 429]
    with opened(folder, tell=(Webhook(listener.url, SECRET, private=True),)) as gate:
        held(gate)
        listener.wait(4)
    assert len({headers["webhook-id"] for _, headers, _ in listener.got}) == 1
    assert len(listener.got) == 4


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("statuses", "count"), [([500] * 20, telling.TRIES), ([404], 1), ([302], 1), ([307], 1)])
def test_tries_are_bounded_and_no_redirect_is_followed(folder: Path, listener: Listener, statuses: list[int], count: int) -> None:
    listener.statuses = list(statuses)
    with opened(folder, tell=(Webhook(listener.url, SECRET, private=True),)) as gate:
        held(gate)
    assert len(listener.got) == count
    assert {path for path, _, _ in listener.got} == {"/"}


def test_a_private_address_is_told_only_where_the_setting_says_so(listener: Listener) -> None:
    done, wrong = Webhook("https://127.0.0.1:9/x", SECRET).send("msg_1", b"{}")
    assert (done, "private address" in wrong) == (False, True)
    assert listener.got == []


@pytest.mark.parametrize("hang", [True, False], ids=["it hangs", "nobody is there"])
def test_nothing_waits_for_a_hook(folder: Path, hang: bool) -> None:  # noqa: FBT001 - a row
    nobody = Webhook("http://127.0.0.1:9/", SECRET, private=True)
    hook: Any = Command((sys.executable, "-c", "import time; time.sleep(60)")) if hang else nobody
    with opened(folder, tell=(hook,)) as gate:
        run, hold = held(gate)
        gate.release(hold.id, tenant="acme", by=BOSS)
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
        gate._core.teller._over.set()


def test_a_full_queue_drops_and_never_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_WAITING", 1)
    block = threading.Event()

    class Slow:
        name = "slow"

        def send(self, id_: str, body: bytes) -> tuple[bool, str]:  # noqa: ARG002 - a hook
            block.wait(30)
            return True, ""

    teller = telling.Teller((Slow(),))  # type: ignore[arg-type]  # a hook of the test's own
    with opened(folder) as gate:
        _, hold = held(gate)
    start = time.monotonic()
    for _ in range(50):
        teller.tell("held", hold)
    assert time.monotonic() - start < 5
    block.set()
    teller.close()


def test_a_command_gets_the_event_on_standard_input(folder: Path) -> None:
    out = folder / "told.json"
    hook = Command((sys.executable, "-c", f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())"))
    with opened(folder, tell=(hook,)) as gate:
        _, hold = held(gate)
        end = time.monotonic() + 10
        while not (out.exists() and out.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
    assert json.loads(out.read_text())["hold"] == hold.id


def test_a_command_that_fails_or_is_not_there_is_logged_and_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(folder, tell=(Command((sys.executable, "-c", "raise SystemExit(3)")), Command(("/nowhere/at/all",)))) as gate:
        held(gate)
        logged, end = "", time.monotonic() + 10
        while ("exit code 3" not in logged or "FileNotFoundError" not in logged) and time.monotonic() < end:
            time.sleep(0.05)
            logged += "".join(capsys.readouterr())
    assert "exit code 3" in logged
    assert "FileNotFoundError" in logged


@pytest.mark.parametrize(
    "make",
    [
        lambda: Webhook("http://hooks.example/x", SECRET),
        lambda: Webhook("http://hooks.example/x", SECRET, private=True),
        lambda: Webhook("https://u:p@hooks.example/x", SECRET),
        lambda: Webhook("https://hooks.example/#x", SECRET),
        lambda: Webhook("ftp://hooks.example/", SECRET),
        lambda: Webhook("", SECRET),
        lambda: Webhook("https://hooks.example/x", b"short"),
        lambda: Webhook("https://hooks.example/x", "text" * 20),  # type: ignore[arg-type]  # no bytes
        lambda: Command(()),
        lambda: Command("rm -rf"),  # type: ignore[arg-type]  # no tuple
        lambda: Command(("",)),
    ],
)
def test_a_hook_that_is_none_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("tell", [None, "https://hooks.example", [Command(("true",))], ("true",)])
def test_only_hooks_are_told(folder: Path, tell: Any) -> None:
    with pytest.raises(ConfigError, match="tell"):
        opened(folder, tell=tell)


def test_the_secret_is_in_no_log() -> None:
    assert "secret" not in repr(Webhook("https://hooks.example/x", SECRET))


async def test_an_awaited_gate_tells_too(folder: Path, listener: Listener) -> None:
    from agentgate import Agent
    from tests.test_gate import LEE, PROMPT

    hook = Webhook(listener.url, SECRET, private=True)
    gate = await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY, tell=(hook,)
    )
    async with gate:
        run: Any = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        look: Any = await run.authorize("orders.get", {"order_id": "ORD-10023344"}, tool_call_id="look")
        async with await run.redeem(look.token, tool="orders.get", args={"order_id": "ORD-10023344"}) as call:
            await call.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1"})
        assert isinstance(await run.authorize("payments.refund", BIG, tool_call_id="pay"), StepUp)
    assert [t["type"] for t in listener.wait(1)] == ["held"]
