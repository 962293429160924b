"""One question for the calls of a run that wait for its user at once: the callback that takes ``*questions``."""

from __future__ import annotations

import os
import pty
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Deny, StepUp
from agentgate.gate.holds import callback
from agentgate.gate.holds.callback import Callback
from agentgate.integrations.terminal import ask
from tests.test_confirm import LEE, SMALL, asking, run_of


@pytest.fixture(autouse=True)
def _busy_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that begin at once may come half a second apart, where the test is of no deadline."""
    if request.node.get_closest_marker("deadline") is None:
        monkeypatch.setattr(callback, "_GATHER", 0.5)


def together(run: Any, count: int) -> list[Any]:
    """What each of so many calls is answered that begin at once."""
    with ThreadPoolExecutor(count) as threads:
        calls = [threads.submit(run.authorize, "pay", SMALL, tool_call_id=f"c{n}") for n in range(count)]
        return [call.result() for call in calls]


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (True, {Allow: 3}),
        (False, {Deny: 3}),
        (None, {StepUp: 3}),
        ((True, False, None), {Allow: 1, Deny: 1, StepUp: 1}),
        ([True, True, 1], {Allow: 2, StepUp: 1}),
        ((True, True), {StepUp: 3}),
        ((True,) * 4, {StepUp: 3}),
        ("yes", {StepUp: 3}),
        ({0: True, 1: True, 2: True}, {StepUp: 3}),
    ],
    ids=str,
)
def test_calls_that_come_at_once_are_one_question_answered_together_or_singly(tmp_path: Path, said: Any, kinds: dict[type, int]) -> None:
    seen: list[tuple[Any, ...]] = []

    def answer(*questions: Any) -> Any:
        seen.append(questions)
        return said

    with asking(tmp_path, answer) as gate:
        answers = together(run_of(gate), 3)
        assert {kind: [type(each) for each in answers].count(kind) for kind in kinds} == kinds
    (questions,) = seen
    assert len({question.hold for question in questions}) == 3
    assert {question.tool for question in questions} == {"pay"}


@pytest.mark.deadline
def test_each_answer_is_to_its_own_call(tmp_path: Path) -> None:
    order: list[str] = []

    def first_alone(*questions: Any) -> list[bool]:
        order.extend(question.hold for question in questions)
        return [n == 0 for n in range(len(questions))]

    with asking(tmp_path, first_alone) as gate:
        run = run_of(gate)
        answers = together(run, 3)
        (yes,) = gate.holds("acme", state="spent", run=run.id)
        assert yes.id == order[0]
        (allowed,) = (n for n, answer in enumerate(answers) if isinstance(answer, Allow))
        assert yes.tool_call_id == f"c{allowed}"


def test_a_question_has_ten_calls_at_most_and_only_of_one_run(tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    def yes(*questions: Any) -> bool:
        seen.append(questions)
        return True

    with asking(tmp_path, yes, open_holds_per_run=20) as gate, ThreadPoolExecutor(2) as threads:
        runs = [run_of(gate), run_of(gate)]
        answers = [each for found in threads.map(together, runs, (12, 2)) for each in found]
        assert all(isinstance(answer, Allow) for answer in answers)
        of = {hold.id: hold.run for hold in gate.holds("acme", state=None)}
    assert max(len(questions) for questions in seen) <= 10
    assert sum(len(questions) for questions in seen) == 14
    assert all(len({of[question.hold] for question in questions}) == 1 for questions in seen)


def test_what_comes_while_the_user_thinks_is_asked_next(tmp_path: Path) -> None:
    thinking, seen = threading.Event(), list[int]()

    def slow(*questions: Any) -> bool:
        seen.append(len(questions))
        if len(seen) == 1:
            thinking.set()
            time.sleep(0.3)
        return True

    with asking(tmp_path, slow) as gate, ThreadPoolExecutor(1) as threads:
        run = run_of(gate)
        first = threads.submit(run.authorize, "pay", SMALL, tool_call_id="first")
        assert thinking.wait(5)
        assert all(isinstance(answer, Allow) for answer in [*together(run, 2), first.result()])
    assert seen == [1, 2]


def test_who_stops_waiting_is_not_asked_about_and_holds_nobody_up(tmp_path: Path) -> None:
    """The thread that asks for all is interrupted (Ctrl-C): the others ask again, without its call."""
    seen: list[int] = []

    def interrupted(*questions: Any) -> bool:
        seen.append(len(questions))
        if len(seen) == 1:
            raise KeyboardInterrupt
        return True

    with asking(tmp_path, lambda _: None) as gate:
        run = run_of(gate)
        questions = [answer.hold.question for answer in together(run, 3)]
    callback, said = Callback(interrupted), list[Any]()

    def ask_for(question: Any) -> None:
        try:
            said.append(callback.ask(question, run.id))
        except KeyboardInterrupt:
            said.append("interrupted")

    threads = [threading.Thread(target=ask_for, args=(question,)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(map(str, said)) == ["True", "True", "interrupted"]
    assert seen == [3, 2]
    assert callback._waiting == {}


def test_a_callback_that_takes_one_question_is_asked_about_each(tmp_path: Path) -> None:
    seen: list[Any] = []

    def yes(question: Any) -> bool:
        seen.append(question.hold)
        return True

    with asking(tmp_path, yes) as gate:
        assert all(isinstance(answer, Allow) for answer in together(run_of(gate), 3))
    assert len(set(seen)) == 3
    assert Callback(print)._several  # a builtin that says what it takes
    silent: Any = iter
    assert not Callback(silent)._several  # one that does not


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("yes\n", True),
        ("no\n", False),
        ("1 3\n", (True, False, True)),
        ("1,2, 3\n", (True, True, True)),
        *((wrong, None) for wrong in ("4\n", "0 1\n", "y\n", "1-3\n", "\n")),
    ],
)
def test_the_terminal_shows_several_whole_and_takes_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, said: Any) -> None:
    with asking(tmp_path, None) as gate:
        prompt = "Pay 20 to kim@acme.example"
        run = gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt)
        questions = [answer.hold.question for answer in together(run, 3)]
    ours, theirs = pty.openpty()
    monkeypatch.setattr("agentgate.integrations.terminal._TERMINAL", os.ttyname(theirs))
    os.write(ours, typed.encode())
    assert ask(*questions) == said
    shown = ""
    while "(1 3): " not in shown:
        shown += os.read(ours, 65536).decode()
    assert all(question.hold in shown for question in questions)
    assert "--- 3 of 3" in shown
    os.close(ours)
    os.close(theirs)
