"""One client sends texts that are long to read, in every field that takes one, some a second: another's calls are all answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import pytest

from agentgate.language.turn import MAX_READ, MAX_TURN
from agentgate.values.paths import MAX_FIND
from tests.effort import examples
from tests.served import JWT, Process, detail, served
from tests.served_notes import DEFINITION, GATE, LOGIN, NOTES, Notes, Place, a_place

TOOL = f"needs: any, audience: {NOTES}, scope: [mail], definition: {DEFINITION}, redeem: server"
MAIL = f"""
agentgate: workflow/v1
id: desk.mail
version: 1
title: Read and write mail
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme]
who: {{agent: {{oidc: {{issuer: {LOGIN}, claims: {{app: {{is: notes}}}}}}}}, for_user: {{same_tenant: true}}}}
intents:
  write: {{asks_for: Write a mail., words: [write], examples: ["Write a mail"]}}
tools:
  mail.read:
    {{effect: read, {TOOL}, args: {{}}, facts: {{account: {{type: iban, path: text, find: one, trust: named}}}}}}
  mail.write:
    {{effect: read, {TOOL}, args: {{body: {{text: 20000, from: [model], entities: [prompt], optional: true}}}}}}
"""
LONG = (
    "1% ",
    "@www.\uff41",
    "@a",
    "DE89 3704 ",
    "a@b.example ",
    "don't write and ",
    "write 7 ",
    "ORD-1 ",
    "https://a.example/ ",
    "1.000,00 EUR ",
)
CALLS, EVERY = examples(40, 8), 0.2  # seconds between two texts in the same field


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("hostile"), more=[MAIL]) as made:
        yield made


@pytest.fixture(scope="module")
def gate(place: Place) -> Iterator[Process]:
    server = place.settings["clients"]["server"]
    tools = dict.fromkeys(("notes.write", "mail.read", "mail.write"), DEFINITION)
    settings = {**place.settings, "clients": {**place.settings["clients"], "server": {**server, "definitions": tools}}}
    with served(place.folder, settings) as process:
        process.http.timeout = 60  # the longest text takes a busy machine long to read, and its answer is that it was late
        yield process


class Writer:
    """Who sends the long texts: a user's words through a host, an agent's arguments, and what a tool found."""

    def __init__(self, place: Place, gate: Process) -> None:
        self.notes, self.texts, self.ends = Notes(place, gate), cycle(LONG), Counter[str]()
        self.user = place.token(sub="lee", app="desk", tenant="acme", groups=[])
        self.notes.ask()
        self.run = self.opened("Write a mail")
        self.calls = 0

    def text(self, most: int) -> str:
        unit = next(self.texts)
        return unit * (most // len(unit))

    def opened(self, prompt: str) -> str:
        agent = self.notes.place.token()
        proof = self.notes.asking.key.proof("POST", f"{GATE}/v1/runs", token=agent)
        of = {"client_id": "notes", "token": agent, "proof": proof}
        body = {"workflow": "desk.mail", "prompt": prompt, "subject_token": self.user, "agent": of}
        answer = self.notes.host.post("/v1/runs", body)
        self.ends[f"prompt {answer.status_code}"] += 1
        return str(answer.json()["run"])

    def ask(self, tool: str, arguments: dict[str, Any]) -> Any:
        self.calls += 1
        asked = detail(tool, "desk.mail", arguments, run=self.run, tool_call_id=f"call_{self.calls}")
        return self.notes.ask(asked=asked, subject_token=self.user, actor_token=self.notes.place.token(), actor_token_type=JWT)

    def prompt(self) -> None:
        self.opened(self.text(MAX_TURN // 2))

    def turn(self) -> None:
        answer = self.notes.host.post(f"/v1/runs/{self.opened('Write a mail')}/turns", {"turn": self.text(MAX_READ)})
        self.ends[f"turn {answer.status_code}"] += 1

    def argument(self) -> None:
        self.ends[f"argument {self.ask('mail.write', {'body': self.text(20_000)}).status_code}"] += 1

    def fact(self) -> None:
        answer = self.ask("mail.read", {})
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        txn = self.notes.server.redeem(token, "mail.read", {}, self.notes.asking.key).json()["txn"]
        told = self.notes.server.post(f"/v1/calls/{txn}/result", {"result": {"text": self.text(MAX_FIND // 2)}})
        self.ends[f"fact {told.status_code}"] += 1


@contextmanager
def sent(writers: list[tuple[Writer, Callable[[], None]]]) -> Iterator[list[BaseException]]:
    end, failed = threading.Event(), list[BaseException]()

    def send_on(send: Callable[[], None]) -> None:
        while not end.wait(EVERY):
            try:
                send()
            except (AssertionError, KeyError) as error:
                failed.append(error)

    threads = [threading.Thread(target=send_on, args=(send,)) for _, send in writers]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        end.set()
        for thread in threads:
            thread.join()


def answered(ends: Counter[str]) -> int:
    """How often at least each kind of text was read: a turn also if that was late, an argument also if nobody named its value."""
    turns, arguments = ends["turn 200"] + ends["turn 503"], ends["argument 200"] + ends["argument 400"]
    return min(ends["prompt 201"], turns, arguments, ends["fact 204"])


def test_long_texts_of_one_client_keep_no_call_of_another_from_its_answer(place: Place, gate: Process) -> None:
    made = [Writer(place, gate) for _ in range(4)]
    work = [made[0].prompt, made[1].turn, made[2].argument, made[3].fact]
    notes, codes, slowest = Notes(place, gate), Counter[int](), 0.0

    def ends() -> Counter[str]:
        return sum((each.ends for each in made), Counter[str]())

    notes.ask("first")
    begun = time.monotonic()
    with sent(list(zip(made, work, strict=True))) as failed:
        while codes.total() < CALLS or (answered(ends()) < 3 and time.monotonic() - begun < 120):
            asked = time.monotonic()
            codes[notes.ask(f"note {codes.total()}").status_code] += 1
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.15)
    refused = [(line.get("path"), line["reasons"]) for line in gate.log() if line.get("status", 0) >= 500]
    assert set(codes) == {200}, (codes, ends(), refused)
    assert slowest < 10
    assert answered(ends()) >= 3, (ends(), failed)
