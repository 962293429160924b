"""The usual words for acts: they load, they find how people ask, and they find nothing where people only look."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.intents.lexical import derive
from agentgate.review.draft.phrasebook import ACTS, VERBS, act_of, example, groups, speaking, usual
from agentgate.review.draft.toolset import verb_of, words_of
from agentgate.workflow.model import ARTICLES, PLACES, Intent


def phrases(act: str, thing: str = "") -> tuple[str, ...]:
    return tuple(phrase for group in groups(act, thing) for phrase in group)


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
    "Open the event and tell me what it says",
    "Bring up the report on churn",
    "Get me the list of open orders",
    "Can you confirm that the payment arrived?",
    "Check whether the order was shipped and who should be told",
    "I need more information about the new plan",
    "Remind me what we agreed with Hansen",
    "Give me an overview of what was published in May",
    "Walk me through the changes of the last release",
    "List the ten newest orders, please",
    "Track my order and tell me where it is",
    "Follow the thread and tell me who is blocking whom",
    "Is the server down, and since when?",
    "Find out who signed off on the budget",
    "Tell me if the backup ran",
]
AT_MOST = 61  # phrases for an act: more are not read


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("thing", ["", "event"])
def test_the_words_load_and_none_is_for_looking(act: str, thing: str) -> None:
    words = phrases(act, thing)
    assert words
    assert len(words) == len(set(words))
    assert len(words) <= AT_MOST
    assert [phrase for group in groups(act, thing) for phrase in group] == list(words)
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
        ("send_money", "", "Make sure Ben gets his 12 euros"),
        ("schedule_transaction", "transaction", "I want 450 to go to the roofer on the fifth"),
        ("add_calendar_event_participants", "event", "Mr Stone should be in that meeting too"),
        ("add_calendar_event_participants", "event", "Loop Beatriz in on the workshop"),
        ("create_event", "event", "Please make an appointment with the dentist"),
        ("create_file", "file", "Jot down that the gas meter says 4417"),
        ("add_comment", "issue", "Leave a comment that it is fixed"),
        ("add_note", "deal", "Write down that they want the annual plan"),
        ("create_reminder", "", "I'd like to be reminded at nine"),
        ("remove_access", "file", "Take Tom off it, he has left the company"),
        ("add_label", "issue", "Mark it as urgent"),
        ("restart_service", "service", "Please bounce the api"),
        ("block_user", "user", "Lock her out"),
        ("create_quote", "deal", "Make them an offer over 20 seats"),
        ("send_quote", "quote", "Send it to Falk"),
        ("merge_pull_request", "", "Get it merged, please"),
        ("scale_deployment", "", "Scale it up to four"),
        ("stop_instance", "", "Shut the old one down"),
    ],
)
def test_people_ask_like_this(name: str, thing: str, prompt: str) -> None:
    verb = speaking(words_of(name), verb_of(name))
    act = act_of(verb, words_of(name))
    assert act is not None
    assert phrases(act, thing)[0] in {phrase for group in usual(words_of(name), verb) for phrase in group}
    assert derive((Intent("act", 1, "Do it.", phrases(act, thing), "deny", (), ()),), (prompt,))["act"].presence == "present"


@pytest.mark.parametrize("act", ACTS)
def test_there_is_a_request_in_which_each_phrase_is_heard(act: str) -> None:
    """What is always a denial ("stop it") or a question would only look as if it were listened to."""

    def heard(phrase: str) -> bool:
        said = phrase.removeprefix("^").replace("someone", "Ann").replace("something", "the other one")
        intent = Intent("act", 1, "Do it.", (phrase,), "deny", (), ())
        asked = (f"Please {said} A-1", f"{said} A-1", f"Ann {said} A-1", f"I {said}", f"The server {said}")
        return any(derive((intent,), (each,))["act"].presence == "present" for each in asked)

    assert [phrase for phrase in phrases(act, "server") if not heard(phrase)] == []


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("send_money", "pay"),
        ("create_payment", "pay"),
        ("update_payment", "change"),
        ("schedule_payment", "payplan"),
        ("schedule_report", "plan"),
        ("send_newsletter", "mail"),
        ("add_collaborator", "share"),
        ("remove_collaborator", "revoke"),
        ("remove_member", "delete"),
        ("service.restart", "restart"),
        ("export_report", "download"),
        ("frobnicate", None),
    ],
)
def test_what_is_made_says_more_than_the_verb(name: str, act: str | None) -> None:
    words = words_of(name)
    assert act_of(speaking(words, verb_of(name)), words) == act


def test_every_verb_of_a_name_leads_to_a_list_and_only_to_one() -> None:
    listed = [verb for verbs in VERBS.values() for verb in verbs]
    assert VERBS.keys() <= set(ACTS)
    assert len(listed) == len(set(listed))
    assert set(listed).isdisjoint(ACTS)


def test_where_a_tool_has_no_list_its_own_word_is_proposed() -> None:
    assert usual(("frobnicate",), "frobnicate") == (("frobnicate",),)
    assert example((("shut down", "stop"),), ("stop", "server"), "stop") == "shut down"  # "please stop" denies


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
