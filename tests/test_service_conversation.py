"""A conversation over HTTP: its host's own id names the run, whichever process is asked, and nobody else's id does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.authority import Key
from tests.served import JWT, Party, Process, publish, served
from tests.served_notes import GATE, WORKFLOW, Notes, Place, a_place, error_of

TALK = (
    WORKFLOW.replace("id: desk.notes", "id: desk.chat")
    .replace("{app: {is: notes}}}}}", "{app: {is: notes}}}}, for_user: {groups: [support]}}")
    .replace("\nstep_up:", "\ntoken: {bound_to: [call, agent_key]}\nlimits:\n  - {count: notes.write, max: 2, per: conversation}\nstep_up:")
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("talk"), more=[TALK]) as made:
        made.keys["second"] = Key("second")
        made.settings["clients"]["second"] = {"role": "host", "keys": publish(made.folder, made.keys["second"]), "tenants": ["acme"]}
        yield made


@pytest.fixture(scope="module")
def gates(place: Place) -> Iterator[tuple[Process, Process]]:
    """Two processes that share a store and their keys."""
    one, other = ({**place.settings, "shared_runs": True, "audit": str(place.folder / name)} for name in ("one", "other"))
    with served(place.folder, one) as first, served(place.folder, other) as second:
        yield first, second


class Talk:
    """What a user says to the agent in one chat, and what the agent asks, at whichever gate."""

    def __init__(self, place: Place, chat: str, user: str = "lee") -> None:
        self.place, self.chat, self.key = place, chat, Key("asks")
        self.user = place.token(sub=user, app="desk", tenant="acme", groups=["support"])
        self.run = ""

    def say(self, gate: Process, prompt: str = "Write a note", host: str = "desk", client: str = "notes", **more: Any) -> httpx.Response:
        agent = self.place.token()
        given = {"client_id": client, "token": agent, "proof": self.key.proof("POST", f"{GATE}/v1/runs", token=agent)}
        body = {"workflow": "desk.chat", "prompt": prompt, "subject_token": self.user, "agent": given, "conversation": self.chat, **more}
        answer = Party(gate, host, self.place.keys[host]).post("/v1/runs", body)
        self.run = answer.json().get("run", self.run)
        return answer

    def write(self, gate: Process, text: str) -> httpx.Response:
        notes = Notes(self.place, gate)
        notes.asking.key = self.key
        of = {"workflow": {"id": "desk.chat"}, "run": self.run, "tool_call_id": text}
        return notes.ask(text, subject_token=self.user, actor_token=self.place.token(), actor_token_type=JWT, of=of)


def limited(answer: httpx.Response) -> bool:
    return bool(answer.json() == {"error": "access_denied", "error_description": "limit_reached"})


def test_a_chat_goes_on_at_another_process_with_its_counts(place: Place, gates: tuple[Process, Process]) -> None:
    first, second = gates
    talk = Talk(place, "chat-1")
    opened = talk.say(first)
    assert opened.status_code == 201, opened.text
    assert talk.write(first, "one").status_code == 200
    went_on = talk.say(second, "And another note")
    assert (went_on.status_code, went_on.json()["run"]) == (201, opened.json()["run"])
    assert talk.write(second, "two").status_code == 200
    assert limited(talk.write(first, "three"))
    assert Talk(place, "chat-2").say(second).json()["run"] != talk.run


def test_a_run_that_follows_carries_the_counts(place: Place, gates: tuple[Process, Process]) -> None:
    first, second = gates
    talk = Talk(place, "chat-3")
    opened = talk.say(first, ttl=2).json()
    assert talk.write(first, "one").status_code == 200
    assert talk.write(first, "two").status_code == 200
    time.sleep(max(0.0, opened["expires_at"] - time.time() + 0.1))
    assert talk.write(second, "three").status_code == 400  # it is over
    assert error_of(talk.say(second, client="other")) == (400, "invalid_request")  # whose agent it was never
    follows = talk.say(second).json()
    assert follows["run"] == opened["run"]
    assert follows["expires_at"] > opened["expires_at"] + 60
    assert limited(talk.write(second, "four"))


def test_the_same_id_of_another_user_or_host_is_another_conversation(place: Place, gates: tuple[Process, Process]) -> None:
    first, second = gates
    talk = Talk(place, "chat-4")
    own = talk.say(first).json()["run"]
    assert Talk(place, "chat-4", user="kim").say(second).json()["run"] != own
    stranger = Talk(place, "chat-4")
    assert stranger.say(second, host="second").json()["run"] != own
    closed = Party(second, "second", place.keys["second"]).post(f"/v1/runs/{own}/close", {})
    assert error_of(closed) == (404, "not_found")


def test_a_conversation_that_was_closed_opens_no_run(place: Place, gates: tuple[Process, Process]) -> None:
    first, second = gates
    talk = Talk(place, "chat-5")
    talk.say(first)
    assert Party(second, "desk", place.keys["desk"]).post(f"/v1/runs/{talk.run}/close", {}).status_code == 204
    for gate in gates:
        answer = talk.say(gate)
        assert error_of(answer) == (400, "access_denied")
        assert "an open one, of another id" in str(gate.log())
    assert talk.write(first, "after all").status_code == 400


def test_nothing_goes_on_where_nothing_was_said_before(place: Place, gates: tuple[Process, Process]) -> None:
    answer = Talk(place, "chat-6").say(gates[0], prompt="")
    assert error_of(answer) == (400, "invalid_authorization_details")
    assert "run_missing" in str(gates[0].log()[-1])


@pytest.mark.parametrize("name", ["", " chat-1", "x" * 5000, "a\x00b", 7, None, ["chat-1"]])
def test_what_is_no_id_is_refused(place: Place, gates: tuple[Process, Process], name: Any) -> None:
    answer = Talk(place, name).say(gates[0])
    assert answer.status_code == 400, answer.text
    assert "conversation" in str(gates[0].log()[-1])


def test_limits_per_conversation_open_no_run_without_one(place: Place, gates: tuple[Process, Process]) -> None:
    talk = Talk(place, "chat-7")
    given = {"client_id": "notes", "token": (agent := place.token()), "proof": talk.key.proof("POST", f"{GATE}/v1/runs", token=agent)}
    body = {"workflow": "desk.chat", "prompt": "Write a note", "subject_token": talk.user, "agent": given}
    answer = Party(gates[0], "desk", place.keys["desk"]).post("/v1/runs", body)
    assert error_of(answer) == (400, "invalid_authorization_details")
    assert "the workflow limits calls per conversation" in str(gates[0].log()[-1])


def test_an_agent_without_a_key_does_not_end_a_conversation_that_it_could_have_begun(place: Place, gates: tuple[Process, Process]) -> None:
    talk = Talk(place, "chat-8")
    bare = {"client_id": "notes", "token": place.token()}
    assert error_of(talk.say(gates[0], agent=bare)) == (400, "invalid_dpop_proof")
    assert talk.say(gates[1]).status_code == 201
