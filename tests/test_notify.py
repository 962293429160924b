"""Who is told of holds: webhooks and commands, which nothing waits for and nothing depends on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import json
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow, AsyncGate, Gate, StepUp, User
from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.gate import notify
from agentgate.gate.notify import Command, Webhook
from agentgate.stores import ops
from tests.servers import Server
from tests.shop import BOSS, PROMPT, REFUND, WEEKDAY, WORKFLOW, looked_up, opened, run_of
from tests.test_cli_holds import Desk
from tests.tls import certificate, tls_front

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
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

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
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that follow each other at once, and looks that are frequent."""
    monkeypatch.setattr(notify, "_EVERY", 0.05)
    monkeypatch.setattr(notify, "_PAUSE", 0.01)


def held(gate: Gate) -> tuple[Any, Any]:
    run = run_of(gate)
    looked_up(run)
    answer = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(answer, StepUp)
    return run, answer.hold


@pytest.mark.parametrize("pages", ["http://approvals.example/holds/", "approvals.example", "https://approvals.example/?hold=", None, 1])
def test_the_pages_of_holds_are_at_a_url_that_an_id_can_follow(folder: Path, pages: Any) -> None:
    with pytest.raises(ConfigError, match="pages"):
        opened(folder, pages=pages)


def test_approvers_learn_that_a_call_waits_and_everybody_what_was_answered(folder: Path, listener: Listener) -> None:
    hook = Webhook(listener.url + "holds?team=leads", SECRET, private=True)
    with opened(folder, tell=(hook,), pages="https://approvals.example/holds/") as gate:
        run, hold = held(gate)
        run.authorize("payments.refund", BIG, tool_call_id="pay")  # asked again: nobody is told twice
        gate.release(hold.id, tenant="acme", by=BOSS)
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
        told = listener.wait(2)
    assert [(t["type"], t["state"], t["hold"], t["tenant"], t["run"]) for t in told] == [
        ("held", "pending", hold.id, "acme", run.id),
        ("answered", "released", hold.id, "acme", run.id),
    ]
    assert told[0]["text"].startswith("do        payments.refund: order_id ORD-10023344")
    assert PROMPT not in told[0]["text"]
    assert (told[0]["question"]["requester"], told[0]["question"]["rules"][0]["whom"]) == ("lee", "1 of leads")
    assert (told[1]["by"], told[1]["answer"]) == ("boss", "release")
    assert {t["page"] for t in told} == {f"https://approvals.example/holds/{hold.id}"}
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
@pytest.mark.parametrize(("statuses", "count"), [([500] * 20, notify.TRIES), ([404], 1), ([302], 1), ([307], 1)])
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
def test_nothing_waits_for_a_hook(folder: Path, monkeypatch: pytest.MonkeyPatch, hang: bool) -> None:  # noqa: FBT001 - a row
    monkeypatch.setattr(notify, "_COMMAND_SECONDS", 2.5)
    before = threading.enumerate()
    nobody = Webhook("http://127.0.0.1:9/", SECRET, private=True)
    hook: Any = Command((sys.executable, "-c", "import time; time.sleep(60)")) if hang else nobody
    with opened(folder, tell=(hook,)) as gate:
        run, hold = held(gate)
        gate.release(hold.id, tenant="acme", by=BOSS)
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
    for thread in {*threading.enumerate()}.difference(before):  # it logs how the hook ended, and not in a later test
        thread.join()


# --- what is told, whoever did it -------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("quick")
def test_that_a_hold_expired_is_told(folder: Path, listener: Listener) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("timeout: 10m", "timeout: 1s"))
    with opened(folder, tell=(Webhook(listener.url, SECRET, private=True),)) as gate:
        _, hold = held(gate)
        told = listener.wait(2)
    assert [(t["type"], t["state"], t["hold"]) for t in told] == [("held", "pending", hold.id), ("expired", "expired", hold.id)]
    assert not [t for t in told if "page" in t]


def test_that_a_hold_was_cancelled_is_told_at_once_and_that_its_call_is_asked_again(
    folder: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_EVERY", 1000.0)
    with opened(folder, tell=(Webhook(listener.url, SECRET, private=True),)) as gate:
        (run, taken_back), (other, closed) = held(gate), held(gate)
        listener.wait(2)
        time.sleep(0.1)  # nobody looks any more
        run.add_turn("No, stop, do not refund anything")
        other.close()
        told = listener.wait(4)
        expected = {(kind, hold.id) for kind in ("held", "cancelled") for hold in (taken_back, closed)}
        assert {(t["type"], t["hold"]) for t in told} == expected
        run.add_turn("Please do refund 150.00 EUR for order ORD-10023344")
        assert run.authorize("payments.refund", BIG, tool_call_id="pay").hold.id == taken_back.id
        again = listener.wait(5)[4]
    assert (again["type"], again["hold"]) == ("held", taken_back.id)
    assert len({headers["webhook-id"] for _, headers, _ in listener.got}) == len(listener.got) == 5


@pytest.mark.usefixtures("quick")
def test_an_answer_given_at_a_terminal_is_told_by_a_gate_once(tmp_path: Path, redis_server: Server, listener: Listener) -> None:
    """The terminal knows no hook; two gates that know the same one share the store."""
    tenant = f"t-{secrets.token_hex(6)}"
    (tmp_path / "desk").mkdir()
    desk = Desk(tmp_path / "desk", redis_server, tenant)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW.replace("tenants: [acme, other]", f"tenants: [{tenant}]"))
    hook = Webhook(listener.url, SECRET, private=True)
    given: dict[str, Any] = {"tell": (hook,), "store": redis_server.url}
    with desk.gate, opened(tmp_path, **given), opened(tmp_path, **given):
        run = run_of(desk.gate, tenant=tenant, user=User("lee", tenant=tenant, groups=["support"]))
        looked_up(run)
        hold = run.authorize("payments.refund", BIG, tool_call_id="pay").hold.id
        listener.wait(1)
        done = desk.command("refuse", hold, "--accept", f"refuse {hold[:12]}", answers=True, tenant=tenant)
        assert done.exit_code == 0, done.output
        told = listener.wait(2)
        time.sleep(0.2)  # four looks of each gate
    assert [(t["type"], t["state"]) for t in told] == [("held", "pending"), ("answered", "refused")]
    assert (told[1]["by"], told[1]["answer"], told[1]["channel"]) == ("mona", "refuse", "ssh")
    assert len(listener.got) == 2


@pytest.mark.usefixtures("quick")
def test_a_last_yes_given_at_a_terminal_is_told_as_a_release(tmp_path: Path, redis_server: Server, listener: Listener) -> None:
    """The terminal cannot tell that the first yes is proven: the gate finds that the call is released."""
    tenant = f"t-{secrets.token_hex(6)}"
    two = WORKFLOW.replace("count: 1, not", "count: 2, not").replace("tenants: [acme, other]", f"tenants: [{tenant}]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_cli_holds.WORKFLOW", two)
        desk = Desk(tmp_path, redis_server, tenant, tell=(Webhook(listener.url, SECRET, private=True),))
    with desk.gate:
        run = run_of(desk.gate, tenant=desk.tenant, user=User("lee", tenant=desk.tenant, groups=["support"]))
        looked_up(run)
        hold = run.authorize("payments.refund", BIG, tool_call_id="pay").hold.id
        desk.gate.release(hold, tenant=desk.tenant, by=User("boss", tenant=desk.tenant, groups=["leads"]))
        desk.command("release", hold, "--accept", f"release {hold[:12]}", answers=True, tenant=desk.tenant)
        listener.wait(3)
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
        told = listener.wait(4)
    assert told[0]["type"] == "held"
    assert [(t["state"], t["by"]) for t in told[1:]] == [("pending", "boss"), ("pending", "mona"), ("released", "mona")]


@pytest.mark.usefixtures("quick")
def test_what_a_gate_could_not_tell_the_next_one_does_under_the_same_id(
    folder: Path, redis_server: Server, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost with a process, nor while the receiver is away."""
    tenant = f"t-{secrets.token_hex(6)}"
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("tenants: [acme, other]", f"tenants: [{tenant}]"))
    hook, given = Webhook(listener.url, SECRET, private=True), {"store": redis_server.url}
    with opened(folder, **given) as silent:
        run = run_of(silent, tenant=tenant, user=User("lee", tenant=tenant, groups=["support"]))
        looked_up(run)
        hold = run.authorize("payments.refund", BIG, tool_call_id="pay").hold.id
        silent.refuse(hold, tenant=tenant, by=User("boss", tenant=tenant, groups=["leads"]))
    monkeypatch.setattr(notify, "_LEASE", 0.05)
    listener.statuses = [500] * (notify.TRIES + 1)
    with opened(folder, tell=(hook,), **given):
        listener.wait(1)
    with opened(folder, tell=(hook,), **given):
        listener.wait(notify.TRIES + 3)
    ids = [headers["webhook-id"] for _, headers, _ in listener.got]
    assert len(set(ids[: notify.TRIES + 2])) == 1
    told = [json.loads(body) for _, _, body in listener.got[notify.TRIES + 1 :]]
    assert [(t["type"], t["hold"]) for t in told] == [("held", hold), ("answered", hold)]


@pytest.mark.usefixtures("quick")
def test_an_event_that_cannot_be_read_stops_no_other(folder: Path, listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(folder) as gate:
        _, broken = held(gate)
        _, fine = held(gate)
        store: Any = gate._store
        for event in (b"[]", b"{}", b"\xff", b'{"by":"x"}'):
            store._client.hset(f"ag:{{acme}}:hold:{broken.id}", mapping={"events": 1, "event:1": event, f"told:{'a' * 64}": 1})
            op = ops.take_notification("acme", "a" * 64, 1, 0)
            with pytest.raises(StoreUnavailable, match="event"):
                notify.message(op.parse(store.call(op, time.monotonic() + 1)))  # type: ignore[arg-type]  # one
            time.sleep(0.005)
        hook = Webhook(listener.url, SECRET, private=True)
        store._client.hset(f"ag:{{acme}}:hold:{broken.id}", mapping={f"told:{hook.key}": 1})
        notifier = notify.Notifier((hook,))
        notifier.start(store, lambda: ["acme", "no such tenant"])
        assert [t["hold"] for t in listener.wait(1)] == [fine.id]
        notifier.close()
    assert "tell_delayed" in "".join(capsys.readouterr())


def test_a_webhook_is_sent_to_who_proves_to_be_its_host(folder: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real TLS: the right certificate, one of nobody who is known, one of another host, one that is over."""
    port = int(listener.url.rsplit(":", 1)[1].strip("/"))
    right, other = certificate(folder, "right"), certificate(folder, "other", "127.0.0.2")
    trusted = folder / "trusted.pem"
    trusted.write_bytes(right.read_bytes() + other.read_bytes())
    for shown, believed, problem in (
        (right, None, "CERTIFICATE_VERIFY_FAILED"),
        (other, trusted, "certificate is not valid for '127.0.0.1'"),
        (right, trusted, ""),
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(believed or folder / "none.pem"))
        with tls_front(shown, port) as front:
            done, wrong = Webhook(f"https://127.0.0.1:{front}/hold", SECRET, private=True).send("msg_1", b"{}")
            assert (done, problem in wrong, bool(wrong)) == (not problem, True, bool(problem)), wrong
        assert len(listener.got) == (0 if problem else 1)
    with tls_front(right, port) as front, opened(folder, tell=(Webhook(f"https://127.0.0.1:{front}/", SECRET, private=True),)) as gate:
        _, hold = held(gate)
        assert listener.wait(2)[1]["hold"] == hold.id


def test_a_command_gets_the_event_on_standard_input(folder: Path) -> None:
    out = folder / "told.json"
    hook = Command((sys.executable, "-c", f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())"))
    with opened(folder, tell=(hook,)) as gate:
        _, hold = held(gate)
        end = time.monotonic() + 10
        while not (out.exists() and out.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
    assert json.loads(out.read_text())["hold"] == hold.id


@pytest.mark.usefixtures("quick")
def test_a_command_may_ask_to_be_told_later(folder: Path) -> None:
    tries = folder / "tries"
    count = f"import sys; f = open({str(tries)!r}, 'a+'); f.write('x'); f.seek(0); sys.exit(75 * (len(f.read()) < 3))"
    with opened(folder, tell=(Command((sys.executable, "-c", count)),)) as gate:
        held(gate)
    assert tries.read_text() == "xxx"


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


@pytest.mark.parametrize(("host", "private"), [("127.0.0.1:1", True), ("127.0.0.1:1", False), ("nowhere.invalid", False)])
def test_the_path_of_a_webhook_is_in_no_log(host: str, *, private: bool) -> None:
    """Chat services take whoever knows the path."""
    done, wrong = Webhook(f"https://{host}/services/canary?key=canary", b"s" * 32, private=private).send("id", b"{}")
    assert (done, "canary" in wrong) == (False, False)
    assert f"https://{host.partition(':')[0]}: " in wrong


def test_the_secret_is_in_no_log() -> None:
    assert "secret" not in repr(Webhook("https://hooks.example/x", SECRET))


async def test_an_awaited_gate_tells_too(folder: Path, listener: Listener) -> None:
    from agentgate import Agent
    from tests.shop import LEE

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


class _Noted:
    """A hook that keeps whose events it got, and takes its time."""

    name, key = "noted", "e" * 64

    def __init__(self) -> None:
        self.tenants: list[str] = []

    def send(self, id_: str, body: bytes) -> tuple[bool, str]:  # noqa: ARG002 - of a webhook
        self.tenants.append(json.loads(body)["tenant"])
        time.sleep(0.005)
        return True, ""


@pytest.mark.usefixtures("quick")
def test_the_events_of_one_tenant_do_not_keep_those_of_another_waiting(folder: Path) -> None:
    hook = _Noted()
    with opened(folder, tell=(), open_holds_per_run=100) as gate:
        run = run_of(gate)
        looked_up(run)
        for number in range(60):
            assert isinstance(run.authorize("payments.refund", BIG, tool_call_id=f"pay {number}"), StepUp)
        other = run_of(gate, tenant="other", user=User("kim", tenant="other", groups=("support",)))
        looked_up(other)
        assert isinstance(other.authorize("payments.refund", BIG, tool_call_id="pay"), StepUp)
        notifier = notify.Notifier((hook,))
        notifier.start(gate._store, lambda: ("acme", "other"))
        end = time.monotonic() + 10
        while len(hook.tenants) < 61 and time.monotonic() < end:
            time.sleep(0.02)
        notifier.close()
    assert (hook.tenants.count("acme"), hook.tenants.count("other")) == (60, 1)
    assert hook.tenants.index("other") <= 20


def test_the_module_of_before_works_one_version_more_and_names_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentgate.gate.telling", raising=False)  # somebody may have imported it before
    with pytest.warns(DeprecationWarning, match=r"agentgate\.gate\.notify"):
        before = importlib.import_module("agentgate.gate.telling")
    assert (before.Webhook, before.Command) == (Webhook, Command)
