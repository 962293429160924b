"""A caller whose call waits for a person: asked again at the gate's pace, told whom it waits for, and free to stop."""

from __future__ import annotations

import asyncio
import json
import os
import re
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

from agentgate import Gate, OIDCToken
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.integrations.client_key import ClientKey
from agentgate.integrations.exchange import (
    DEFERRED,
    Answered,
    Ask,
    AskedFor,
    Credentials,
    ExchangeRefused,
    Pause,
    TokenEndpoint,
    Waiting,
    asking,
)
from agentgate.integrations.httpx import GateAuth
from agentgate.token.signing import RunKey
from tests.authority import claims_of, nonce_for
from tests.served import Process, in_thread, served
from tests.served_notes import GATE, LOGIN, NOTES, Place, a_place
from tests.servers import as_tool_server
from tests.test_exchange import AsyncLoopback, Loopback
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
    assert (forms[0]["completion_mode"], {each["grant_type"] for each in forms[1:]}) == ("deferred", {DEFERRED})
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


@pytest.mark.parametrize("status", [200, 401, 403])
def test_an_answer_of_another_status_is_no_call_that_waits(status: int) -> None:
    with time_machine.travel(1_800_000_000.0, tick=False) as clock:
        done, refusal, told = carried_out([Answered(status, {}, json.dumps(PENDING).encode())], clock)
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
            own: dict[str, Any] = {"store": as_tool_server(place.store.url, NOTES), "audit": str(place.folder / "tool-audit")}
            server = ToolServer.of(keys, issuer=GATE, tenants=["acme"], audience=NOTES, **own)
            server.route("notes.write", "POST", "/notes", args={"text": body(), "urgent": body()})
            tools.answer = {"written": True}
            with in_thread(RedeemMiddleware(tools, server)) as port:
                yield Stage(place, gate, port, tools)


def test_a_wait_ends_with_the_answer_with_the_hold_or_with_ctrl_c(stage: Stage, tmp_path: Path) -> None:
    place, common, asked = stage.place, ("root", "issuer", "keys", "store", "identity"), dict[str, subprocess.Popen[str]]()
    found, told = dict[str, Any](), dict[str, Waiting]()

    def send(name: str) -> None:
        auth = GateAuth(GATE, stage.credentials(), wait=lambda waiting: told.update({name: waiting}))
        with httpx.Client(transport=Loopback(stage.ports), trust_env=False) as http:
            try:
                call = auth.call("notes.write", CALL, workflow="desk.notes", tool_call_id=name)
                found[name] = http.post(f"{NOTES}/notes", json=CALL, auth=call).json()
            except ExchangeRefused as error:
                found[name] = error.error

    for how in ("released", "stopped"):
        (tmp_path / how).mkdir()
        asked[how] = stage.command(tmp_path / how, how, "--wait", "--for", f"POST {NOTES}/notes")
    sending = [threading.Thread(target=send, args=(name,)) for name in ("httpx", "refused", "expired", "closed")]
    for thread in sending:
        thread.start()
    for command in asked.values():
        assert command.stderr is not None
        said = "waiting: 1 of leads may answer until 20.* UTC .agentgate holds show [0-9a-f]{12}."
        assert re.search(said, command.stderr.readline())
    asked["stopped"].send_signal(signal.SIGINT)
    with Gate.open(place.workflows, audit=str(place.folder / "audit-4"), **{name: place.settings[name] for name in common}) as gate:

        def answered(hold: str, answer: str) -> None:
            nonce = nonce_for(gate, hold, "acme", answer)
            by = OIDCToken(place.login.sign({**claims_of(LOGIN, "ana"), "tenant": "acme", "groups": ["leads"], "nonce": nonce}))
            (gate.release if answer == "release" else gate.refuse)(hold, tenant="acme", by=by)

        while len(known := {each.id: each.tool_call_id for each in gate.holds("acme")}) < 6:
            time.sleep(0.1)
        holds = {call: hold for hold, call in known.items()}
        for call in ("released", "httpx", "stopped"):  # who stopped waiting withdrew nothing
            answered(holds[call], "release")
        answered(holds["refused"], "refuse")
        place.store.command("HSET", f"ag:{{acme}}:hold:{holds['expired']}", "deadline", "1")  # its time is over
        gate.resume_run("acme", gate.hold(holds["closed"], tenant="acme").run).close()
    ended = {how: (*command.communicate(timeout=60), command.returncode) for how, command in asked.items()}
    for thread in sending:
        thread.join(60)

    assert {how: code for how, (_, _, code) in ended.items()} == {"released": 0, "stopped": 130}
    out, err, _ = ended["stopped"]
    assert (out, "--call-id" in err, "Traceback" in err) == ("", True, False), err
    headers = dict(line.split(": ", 1) for line in ended["released"][0].splitlines())
    with httpx.Client(transport=Loopback(stage.ports), trust_env=False) as http:
        assert http.post(f"{NOTES}/notes", json=CALL, headers=headers).json() == {"written": True}
    ends = {"refused": "access_denied", "expired": "expired_token", "closed": "invalid_grant"}
    assert found == {"httpx": {"written": True}, **ends}
    assert {name: (each.whom, each.hold) for name, each in told.items()} == {name: ("1 of leads", holds[name]) for name in found}


async def test_a_task_that_is_cancelled_waits_no_more(stage: Stage) -> None:
    async with httpx.AsyncClient(transport=AsyncLoopback(stage.ports), trust_env=False) as http:
        auth = GateAuth(GATE, stage.credentials(), wait=True)
        call = auth.call("notes.write", CALL, workflow="desk.notes", tool_call_id="cancelled")
        sending = asyncio.create_task(http.post(f"{NOTES}/notes", json=CALL, auth=call))
        with capture_logs() as logs:
            while not logs:
                await asyncio.wait([sending], timeout=0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert [(each["event"], each["whom"]) for each in logs] == [("waiting_for_a_person", "1 of leads")]


def test_an_ask_carries_a_proof_and_no_credential_in_its_headers() -> None:
    step = next(asking(TokenEndpoint(GATE, RunKey.generate()), ASKED, Credentials("notes", lambda: "subject"), None))
    assert isinstance(step, Ask)
    assert (set(step.headers), "completion_mode" in step.form) == ({"DPoP"}, False)
