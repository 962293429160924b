"""A caller whose call waits for a person: asked again at the gate's pace, told whom it waits for, and free to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from structlog.testing import capture_logs

from agentgate import Gate
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.integrations.client_key import ClientKey
from agentgate.integrations.deferral import GRANT, Answered, Ask, Pause, Waiting, asking
from agentgate.integrations.exchange import AskedFor, Credentials, ExchangeRefused, TokenEndpoint
from agentgate.integrations.httpx import GateAuth
from agentgate.token.signing import RunKey
from tests.served import Process, served
from tests.served_notes import GATE, NOTES, Place, a_place
from tests.test_exchange import AsyncLoopback, Loopback, in_thread
from tests.test_service_wire import answered_by, held
from tests.toolshop import Orders

CALL: dict[str, Any] = {"text": "hello", "urgent": "yes"}
ASKED = AskedFor("notes.write", "desk.notes", CALL)
GOOD = {
    "access_token": "a.b.c",
    "token_type": "DPoP",
    "expires_in": 60,
    "authorization_details": [{"identifier": "notes.write", "locations": [NOTES]}],
}
PENDING = {
    "error": "authorization_pending",
    "deferral_code": "code-1",
    "expires_in": 600,
    "interval": 5,
    "hold": {"id": "h" * 64, "whom": "1 of leads"},
}


# --- the steps, without I/O -------------------------------------------------------------------------------------------------------


def refused(**said: Any) -> Answered:
    return Answered(400, {}, json.dumps(said).encode())


def carried_out(answers: Sequence[Answered | None], clock: Any) -> tuple[list[Any], Any, list[Waiting]]:
    """What was done, in order: the form's grant or the pause; the token or the refusal; and what was told."""
    told: list[Waiting] = []
    said, left = iter(range(100)), iter(answers)
    who = Credentials("notes", lambda: f"subject-{next(said)}", client_assertion=lambda: f"assertion-{next(said)}")
    steps, done, answer = asking(TokenEndpoint(GATE, RunKey.generate()), ASKED, who, told.append), list[Any](), None
    try:
        while True:
            step = steps.send(answer)
            if isinstance(step, Pause):
                clock.shift(step.seconds)
                done.append(step.seconds)
                answer = None
            else:
                done.append(step.form)
                answer = next(left)
    except StopIteration as end:
        return done, end.value, told
    except ExchangeRefused as error:
        return done, error, told


def test_a_call_that_waits_is_asked_at_the_gates_pace_each_time_with_fresh_credentials() -> None:
    answers = [
        refused(**PENDING),
        refused(**PENDING),
        refused(error="slow_down", interval=5),
        Answered(400, {"DPoP-Nonce": "n"}, b'{"error": "use_dpop_nonce"}'),
        refused(**PENDING),
        None,
        Answered(503),
        Answered(429),
        Answered(200, {}, json.dumps(GOOD).encode()),
    ]
    with time_machine.travel(1_800_000_000.0, tick=False) as clock:
        done, token, told = carried_out(answers, clock)
    assert [each for each in done if not isinstance(each, dict)] == [5, 5, 10, 10, 20, 40, 60]
    forms = [each for each in done if isinstance(each, dict)]
    assert (forms[0]["completion_mode"], {each["grant_type"] for each in forms[1:]}) == ("deferred", {GRANT})
    assert {each["deferral_code"] for each in forms[1:]} == {"code-1"}
    assert len({each["client_assertion"] for each in forms}) == len({each["subject_token"] for each in forms}) == len(forms)
    assert token.reveal() == "a.b.c"
    (waiting,) = told
    assert str(waiting) == "waiting: 1 of leads may answer until 2027-01-15 08:10:00 UTC (agentgate holds show hhhhhhhhhhhh)"
    assert "code-1" not in repr(waiting)


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_grant", "invalid_client", "invalid_dpop_proof"])
def test_an_answer_that_ends_the_wait_is_a_refusal(error: str) -> None:
    with time_machine.travel(1_800_000_000.0, tick=False) as clock:
        done, refusal, _ = carried_out([refused(**PENDING), refused(error=error)], clock)
    assert (refusal.error, len(done)) == (error, 3)


def test_nothing_is_asked_after_the_time_to_answer() -> None:
    with time_machine.travel(1_800_000_000.0, tick=False) as clock:
        done, refusal, _ = carried_out([refused(**{**PENDING, "expires_in": 12})] + [refused(**{**PENDING, "expires_in": 99})] * 5, clock)
    assert (refusal.error, [each for each in done if not isinstance(each, dict)]) == ("expired_token", [5, 5, 2])


@pytest.mark.parametrize(
    "change",
    [
        {"deferral_code": ""},
        {"deferral_code": 7},
        {"deferral_code": "x" * 513},
        {"deferral_code": "a\nb"},
        {"expires_in": 0},
        {"expires_in": "600"},
    ],
)
def test_an_answer_that_cannot_be_waited_for_is_a_refusal(change: dict[str, Any]) -> None:
    with time_machine.travel(1_800_000_000.0, tick=False) as clock:
        done, refusal, told = carried_out([refused(**{**PENDING, **change})], clock)
    assert (type(refusal), len(done), told) == (ExchangeRefused, 1, [])


def test_what_a_gate_says_of_a_wait_moves_no_cursor_and_sets_no_pace_below_its_own() -> None:
    odd = {**PENDING, "interval": 0, "hold": {"id": "\x1b[2Jh", "whom": "leads\r\nok"}}
    with time_machine.travel(1_800_000_000.0, tick=False) as clock:
        done, _, (waiting,) = carried_out([refused(**odd), refused(error="access_denied")], clock)
    assert (done[1], "\x1b" in str(waiting), "\n" in str(waiting)) == (5, False, False)


# --- at a real gate ---------------------------------------------------------------------------------------------------------------


class Stage:
    """A served gate that defers, a tool server on its store, and a client with a key of its own."""

    def __init__(self, place: Place, gate: Process, port: int, tools: Orders) -> None:
        self.place, self.gate, self.tools, self.key = place, gate, tools, place.folder / "client.pem"
        self.ports = {"gate.acme.example": gate.port, "notes.acme.example": port}

    def credentials(self) -> Credentials:
        key = ClientKey.read("notes", self.key)
        return Credentials("notes", self.place.token, client_assertion=lambda: key.assertion(GATE))

    def command(self, folder: Path, call: str, *more: str) -> subprocess.Popen[str]:
        """``agentgate exchange`` as a shell runs it."""
        if not (folder / "job").exists():  # the same credential is the same run
            (folder / "job").write_text(self.place.token())
        given = [
            "--client",
            "notes",
            "--client-key",
            str(self.key),
            "--subject",
            f"file:{folder / 'job'}",
            "--key",
            str(folder / "dpop.pem"),
        ]
        what = ["-w", "desk.notes", "-t", "notes.write", "-a", json.dumps(CALL), "--call-id", call, "--address", self.gate.base]
        command = [sys.executable, "-m", "agentgate", "exchange", GATE, *given, *what, *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300"})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_place(tmp_path_factory.mktemp("deferral")) as place:
        key = ClientKey.made("notes", place.folder / "client.pem")
        Path(place.settings["clients"]["notes"]["keys"]).write_text(json.dumps(key.jwks()))
        with served(place.folder, place.settings) as gate:
            keys, tools = gate.http.get("/oauth2/jwks").json(), Orders()
            own: dict[str, Any] = {"store": place.store.url, "audit": str(place.folder / "tool-audit")}
            server = ToolServer.of(keys, issuer=GATE, tenants=["acme"], audience=NOTES, **own)
            server.route("notes.write", "POST", "/notes", args={"text": body(), "urgent": body()})
            tools.answer = {"written": True}
            with in_thread(RedeemMiddleware(tools, server)) as port:
                yield Stage(place, gate, port, tools)


def test_a_shell_and_an_httpx_client_wait_and_get_their_token_when_a_person_releases_the_call(stage: Stage, tmp_path: Path) -> None:
    asked = stage.command(tmp_path, "from-a-shell", "--wait", "--for", f"POST {NOTES}/notes")
    assert asked.stderr is not None
    said = asked.stderr.readline()
    assert "1 of leads may answer until 20" in said
    found, logs = list[Any](), list[Any]()

    def send() -> None:
        with httpx.Client(transport=Loopback(stage.ports), trust_env=False) as http, capture_logs() as seen:
            call = GateAuth(GATE, stage.credentials(), wait=True).call("notes.write", CALL, workflow="desk.notes", tool_call_id="httpx")
            found.append(http.post(f"{NOTES}/notes", json=CALL, auth=call))
            logs.extend(seen)

    first = held(stage.place)
    assert f"agentgate holds show {first[:12]}" in said
    sending = threading.Thread(target=send)
    sending.start()
    while (second := held(stage.place)) == first:
        time.sleep(0.1)
    for hold in (first, second):
        answered_by(stage.place, hold, release=True)
    out, err = asked.communicate(timeout=30)
    assert asked.returncode == 0, err
    sending.join(30)
    headers = dict(line.split(": ", 1) for line in out.splitlines())
    with httpx.Client(transport=Loopback(stage.ports), trust_env=False) as http:
        assert http.post(f"{NOTES}/notes", json=CALL, headers=headers).json() == {"written": True}
    assert found[0].json() == {"written": True}
    (told,) = [each for each in logs if each["event"] == "waiting_for_a_person"]
    assert (told["whom"], told["hold"]) == ("1 of leads", second)


def test_who_refuses_ends_the_wait_with_exit_code_1(stage: Stage, tmp_path: Path) -> None:
    asked = stage.command(tmp_path, "refused", "--wait")
    assert asked.stderr is not None
    asked.stderr.readline()
    answered_by(stage.place, held(stage.place), release=False)
    out, err = asked.communicate(timeout=30)
    assert (asked.returncode, out, "access_denied" in err) == (1, "", True)


def test_a_hold_that_ended_without_an_answer_ends_the_wait(stage: Stage, tmp_path: Path) -> None:
    asked, holds = dict[str, subprocess.Popen[str]](), dict[str, str]()
    for how in ("expired_token", "invalid_grant"):
        (tmp_path / how).mkdir()
        asked[how] = stage.command(tmp_path / how, how, "--wait")
        assert asked[how].stderr is not None
        assert "waiting" in asked[how].stderr.readline()  # type: ignore[union-attr]  # as above
        holds[how] = held(stage.place)
    stage.place.store.command("HSET", f"ag:{{acme}}:hold:{holds['expired_token']}", "deadline", "1")  # its time is over
    place, common = stage.place, ("root", "issuer", "keys", "store", "identity")
    with Gate.open(place.workflows, audit=str(place.folder / "audit-4"), **{name: place.settings[name] for name in common}) as gate:
        gate.resume_run("acme", gate.hold(holds["invalid_grant"], tenant="acme").run).close()
    for how, command in asked.items():
        out, err = command.communicate(timeout=30)
        assert (command.returncode, out, how in err) == (1, "", True), err


def test_ctrl_c_stops_waiting_and_the_call_stays_held(stage: Stage, tmp_path: Path) -> None:
    asked = stage.command(tmp_path, "stopped", "--wait")
    assert asked.stderr is not None
    assert "waiting" in asked.stderr.readline()
    asked.send_signal(signal.SIGINT)
    out, err = asked.communicate(timeout=30)
    assert (asked.returncode, out) == (130, "")
    assert "Stopped." in err
    assert "--call-id" in err
    assert "Traceback" not in err
    answered_by(stage.place, held(stage.place), release=True)  # it is pending still
    again = stage.command(tmp_path, "stopped")
    assert (again.communicate(timeout=30)[0].count("."), again.returncode) == (2, 0)


def test_without_wait_a_call_that_waits_is_exit_code_2(stage: Stage, tmp_path: Path) -> None:
    asked = stage.command(tmp_path, "later")
    out, err = asked.communicate(timeout=30)
    assert (asked.returncode, out, "--wait" in err) == (2, "", True)


async def test_a_task_that_is_cancelled_waits_no_more(stage: Stage) -> None:
    waits = asyncio.Event()
    async with httpx.AsyncClient(transport=AsyncLoopback(stage.ports), trust_env=False) as http:
        auth = GateAuth(GATE, stage.credentials(), wait=lambda _: waits.set())
        call = auth.call("notes.write", CALL, workflow="desk.notes", tool_call_id="cancelled")
        sending = asyncio.create_task(http.post(f"{NOTES}/notes", json=CALL, auth=call))
        await waits.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


def test_an_ask_carries_a_proof_and_no_credential_in_its_headers() -> None:
    step = next(asking(TokenEndpoint(GATE, RunKey.generate()), ASKED, Credentials("notes", lambda: "subject"), None))
    assert isinstance(step, Ask)
    assert (set(step.headers), "completion_mode" in step.form) == ({"DPoP"}, False)
