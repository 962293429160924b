"""Intents that a model may read: those without words, and those whose file says ``unclear: reader``; and what it never settles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.diff import compare
from agentgate.intents.chat import ChatDeriver
from agentgate.intents.combined import Combined
from agentgate.intents.lexical import derive
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.advice import advise
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent
from tests.test_definition import load, problems

DESK = Intent("desk", 1, "Book a desk.", (), "confirm", ("Reserve a desk for Monday",), (), reader=True)
CLOSE = Intent("close", 2, "Close a ticket.", ("close",), "confirm", ("Close ticket T-1",), (), reader=True)
PLAIN = replace(CLOSE, name="plain", words=("shut",), reader=False)
ALL = (DESK, CLOSE, PLAIN)


class Fixed(BaseChatModel):
    """A model that gives one answer."""

    answer: str

    @property
    def _llm_type(self) -> str:
        return "fixed"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.answer))])


class Finding(Fixed):
    """A model that finds a desk in the first words of whatever it is sent."""

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        words = " ".join(json.loads(str(messages[-1].content))["turns"][-1].split()[:2])
        message = AIMessage(json.dumps({"desk": {"presence": "present", "words": words}}))
        return ChatResult(generations=[ChatGeneration(message=message)])


def reader(**found: str) -> Combined:
    """The words and, behind them, a model that finds these intents in these words of the user, whenever it is asked."""
    said = {i.name: {"presence": "present" if i.name in found else "absent", "words": found.get(i.name, "")} for i in ALL}
    return Combined(derive, ChatDeriver(Fixed(answer=json.dumps(said))))


def presence(deriver: Any, *turns: str) -> dict[str, str]:
    return {name: answer.presence for name, answer in deriver(ALL, turns).items()}


def test_without_a_reader_an_intent_without_words_is_unclear() -> None:
    assert presence(derive, "Reserve me a place by the window")["desk"] == "unclear"
    assert presence(derive, "Reserve me a place by the window", "stop")["desk"] == "absent"
    assert presence(derive)["desk"] == "absent"


def test_a_reader_settles_what_the_workflow_leaves_to_it_and_nothing_else() -> None:
    found = presence(reader(desk="Reserviere mir", close="Reserviere mir", plain="Reserviere mir"), "Reserviere mir einen Tisch in Halle 4")
    assert found == {"desk": "present", "close": "present", "plain": "unclear"}


def test_who_read_what_is_the_evidence() -> None:
    found = reader(close="Schließe")(ALL, ("Schließe T-1 und danke",))
    assert found["close"] == Derived("present", "the model found: Schließe")
    assert reader()(ALL, ("Close T-1",))["close"].evidence == "the model found nothing of it"
    assert derive(ALL, ("Close T-1",))["close"].evidence == "word 'close'"


@pytest.mark.parametrize("words", ["schließe", "Schliesse", "Schließe T-2", ""])
def test_evidence_is_copied_letter_by_letter(words: str) -> None:
    assert presence(reader(close=words), "Schließe T-1 und danke")["close"] == "unclear"


@pytest.mark.parametrize(
    "turns",
    [
        ("What is wrong with T-1?", "ja"),
        ("What is wrong with T-1?", "yes, please do it"),
        ("What is wrong with T-1?", "the second one"),
        ("What is wrong with T-1?", "das zweite"),
        ("Schließe T-1 nicht und warte",),
        ("Schließe T-1 und warte", "no"),
        ("Schließe T-1 und warte", "nein, lieber doch nicht"),
        ("Schließe T-1 und warte", "hmm, später"),
        ("Schließe T-1 und warte\n\nGruß, Eve\n--\nEve wrote: warte",),
        ('Schließe T-1 "und warte',),
    ],
)
def test_a_reader_never_settles_a_yes_a_doubt_a_denial_or_a_withdrawal(turns: tuple[str, ...]) -> None:
    for said in (turns[-1], turns[-1].split("\n")[0], "Schließe T-1", "warte"):
        found = presence(reader(close=said, desk=said), *turns)
        assert "present" not in {found["close"], found["desk"]}, said


@pytest.mark.parametrize("answer", ["das zweite", "number two", "ja"])
def test_a_choice_is_not_settled_by_what_was_looked_up_before_it(answer: str) -> None:
    assert presence(reader(close="What is wrong with T-1?"), "What is wrong with T-1?", answer)["close"] == "unclear"


def test_a_model_is_not_shown_a_bare_yes() -> None:
    seen: list[str] = []

    class Seeing(Fixed):
        def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            seen.append(str(messages[-1].content))
            return super()._generate(messages)

    ChatDeriver(Seeing(answer="{}"))(ALL, ("Reserviere mir einen Tisch", "jawohl"))
    assert [json.loads(each)["turns"] for each in seen] == [["Reserviere mir einen Tisch"]]


def test_what_a_first_member_calls_unread_is_settled_only_where_the_workflow_leaves_it_to_a_reader() -> None:
    unread = Derived("unclear", "?", silent=True, unread=True)
    open_ = Combined(lambda intents, _: {i.name: unread for i in intents}, *reader(close="Schließe", plain="Schließe").members[1:])
    assert presence(open_, "Schließe T-1 und danke") == {"desk": "absent", "close": "present", "plain": "unclear"}


def test_what_was_read_is_still_read_behind_a_yes() -> None:
    found = presence(reader(desk="Reserviere mir"), "Reserviere mir einen Tisch in Halle 4", "ok")
    assert found["desk"] == "present"
    assert found["close"] == "unclear"


def test_a_yes_is_never_read_as_nothing() -> None:
    assert presence(reader(), "What is wrong with T-1?", "yes") == dict.fromkeys(("desk", "close", "plain"), "unclear")


def test_a_member_behind_a_reader_narrows_and_a_deriver_that_is_none_settles_nothing() -> None:
    turns = ("Schließe T-1 und danke",)
    least = Combined(*reader(close="Schließe").members, lambda intents, _: {i.name: Derived("unclear", "perhaps") for i in intents})
    assert presence(least, *turns)["close"] == "unclear"
    claims = Combined(derive, lambda intents, _: {i.name: Derived("present", "sure") for i in intents})
    assert presence(claims, *turns)["close"] == "unclear"
    assert presence(Combined(derive, *reader().members[1:], *reader(close="Schließe").members[1:]), *turns)["close"] == "absent"


WORKFLOW = """
agentgate: workflow/v1
id: office
version: 1
title: Office assistant
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents:
  desk: {asks_for: Book a desk., words: [book], unclear: confirm, examples: [Book a desk]}
tools:
  book: {effect: write, needs: [desk], redeem: wrapper, args: {name: {type: id, from: [prompt]}}}
step_up: [{id: ask, for: book, when: {intent: unclear}, approvers: {user: true}, timeout: 10m}]
"""
LEFT = WORKFLOW.replace("unclear: confirm", "unclear: reader")
WITHOUT = WORKFLOW.replace("words: [book], ", "")


def test_a_file_leaves_an_intent_to_a_reader_by_a_word_or_without_words() -> None:
    assert not load(WORKFLOW).intents["desk"].reader
    for text in (LEFT, WITHOUT):
        assert (load(text).intents["desk"].reader, load(text).intents["desk"].unclear) == (True, "confirm")


@pytest.mark.parametrize(("text", "got"), [(LEFT, "unclear: reader"), (WITHOUT, "no words")])
def test_no_model_reads_what_destroys(text: str, got: str) -> None:
    (found,) = problems(text.replace("effect: write", "effect: destructive"))
    assert (found.field, found.got) == ("intents.desk", f"{got}, for a destructive tool")
    onto = "args: {name: {type: id, from: [prompt], needs: [desk]}}"
    both = text.replace("tools:", "tools:\n  drop: {effect: destructive, needs: [desk], redeem: wrapper, " + onto + "}\n")
    assert "intents.desk" in {each.field for each in problems(both)}


@pytest.mark.parametrize(("text", "field"), [(LEFT, "intents.desk.unclear"), (WITHOUT, "intents.desk.words")])
def test_leaving_it_to_a_reader_is_wider_and_lint_says_so(text: str, field: str) -> None:
    assert [each.field for each in compare(load(WORKFLOW), load(text)).wider] == [field]
    assert field not in {each.field for each in compare(load(text), load(WORKFLOW)).wider}
    assert [each for each in advise(load(text), read_yaml(text, "w.yaml")) if "a model may find" in each.text]


def test_a_file_of_today_keeps_its_digest() -> None:
    assert load(WORKFLOW).digest == "sha256:" + DIGEST


DIGEST = "d50a942918b117c3792011946d3325aa20592d9b406eece45066cdbd0855406f"


EPISODE = {
    "id": "e1",
    "suite": "office",
    "workflow": "office",
    "tenant": "acme",
    "user": "lee",
    "agent": "bot",
    "attack": None,
    "now": "2026-03-04T12:00:00+00:00",
    "prompt": "Reserviere mir D-4 am Fenster",
    "steps": [{"tool": "book", "args": {"name": "D-4"}, "result": {}, "by": "user", "effect": "write", "destructive": False}],
}
MODEL = """
from tests.test_reader import Finding
model = Finding(answer="")
"""


def test_answers_of_a_model_are_recorded_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "office.yaml").write_text(LEFT)
    (tmp_path / "e.jsonl").write_text(json.dumps(EPISODE) + "\n")
    (tmp_path / "a_model_to_record.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)

    def shares(*more: str) -> Any:
        command = ["evaluate", "e.jsonl", "--workflows", "w", "--unsafe-unapproved", "--json", *more]
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)["overall"]["tasks fully automatic"]["k"]

    assert shares() == 0
    assert shares("--record", "answers.jsonl", "--model", "a_model_to_record:model") == 1
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()]
    assert lines[-1]["turns"] == ["Reserviere mir D-4 am Fenster"]
    assert shares("--answers", "answers.jsonl") == 1
    (tmp_path / "e.jsonl").write_text(json.dumps({**EPISODE, "prompt": "Reserviere mir D-4 im Keller"}) + "\n")
    assert shares("--answers", "answers.jsonl") == 0  # nobody read this prompt
    (tmp_path / "answers.jsonl").write_text("no answers")
    for more in (
        ("--answers", "answers.jsonl"),
        ("--record", "x.jsonl"),
        ("--answers", "a", "--record", "b", "--model", "a_model_to_record:model"),
    ):
        assert CliRunner().invoke(app, ["evaluate", "e.jsonl", "--workflows", "w", "--unsafe-unapproved", *more]).exit_code != 0
