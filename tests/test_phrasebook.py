"""The usual words for acts: they load, they find how people ask, and they find nothing where people only look."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.intents.lexical import derive
from agentgate.review.acts import act_of
from agentgate.review.phrasebook import ACTS, phrases
from agentgate.review.toolset import verb_of
from agentgate.workflow import ARTICLES, PLACES, Intent

LOOKS = [
    "Tell me what is in my inbox",
    "Let me know how much I spent in March",
    "What is on my calendar tomorrow?",
    "Show me the files about the budget",
    "Could you have a look at the letter and tell me what I owe?",
    "Please read the note and summarise it for me",
    "How many people are in the meeting, and who are they",
    "Is there anything new that I should know about?",
    "Find the movie that Ann sent me",
    "where is the design review and who else is coming",
    "Who is the sender of the last message?",
    "Did Tom get the email?",
]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("thing", ["", "event"])
def test_the_words_load_and_none_is_for_looking(act: str, thing: str) -> None:
    words = phrases(act, thing)
    assert words
    assert len(words) == len(set(words))
    for phrase in words:
        content = [part for part in phrase.removeprefix("^").split() if part not in ARTICLES]
        assert content[0] not in PLACES
        assert "{" not in phrase
    intent = Intent("act", 1, "Do it.", words, "deny", (), ())
    assert {look: found for look in LOOKS if (found := derive((intent,), (look,))["act"]).presence != "absent"} == {}


@pytest.mark.parametrize(
    ("name", "thing", "prompt"),
    [
        ("delete_file", "file", "Please get rid of the old draft"),
        ("send_email", "", "Send Ann the minutes"),
        ("mail", "", "drop Ann a line that I am late"),
        ("mail", "", "Tell Marta Quiroga that lunch is at one"),
        ("share_file", "file", "Give Lucien access to the sheet"),
        ("create_event", "event", "Set up an event for Friday"),
        ("book_meeting", "meeting", "Put the lunch into my calendar"),
        ("refund_order", "", "She should get her money back"),
        ("cancel_order", "", "Call the dinner off"),
        ("move_event", "", "push the review back by an hour"),
        ("assign_ticket", "", "Hand T-1 over to Viktor"),
        ("update_issue", "", "Set BSP-7 to low"),
        ("publish_release", "", "publish v4.1.3"),
    ],
)
def test_people_ask_like_this(name: str, thing: str, prompt: str) -> None:
    act = act_of(verb_of(name))
    assert act is not None
    assert derive((Intent("act", 1, "Do it.", phrases(act, thing), "deny", (), ()),), (prompt,))["act"].presence == "present"


def test_the_command_prints_words_that_a_workflow_takes() -> None:
    runner = CliRunner()
    assert "delete" in runner.invoke(app, ["workflow", "words"]).stdout
    printed = runner.invoke(app, ["workflow", "words", "create", "Delete", "--thing", "event"]).stdout
    assert printed.startswith("words: [")
    assert "'create an event'" in printed
    assert "'throw something away'" in printed
    wrong = runner.invoke(app, ["workflow", "words", "frob"])
    assert wrong.exit_code == 1
    assert "no usual words for 'frob', expected one of add," in " ".join(wrong.stderr.split())
