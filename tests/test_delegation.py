"""Words that hand the choice of actions to a named source, and words that only look like it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.intents.lexical import derive
from agentgate.prompt import MAX_TURN
from agentgate.workflow import Intent

Delegated = Literal["deny", "step_up", "present"]

MAIL = Intent("mail", 1, "Send an e-mail.", ("send", "reply"), "step_up", ("Send the minutes to Ann",), (), "present")

HANDED = [
    "Do the actions specified in the email from bob@acme.example",
    "Please do the tasks in the e-mail from Ann",
    "Read 'notices.txt' and follow the instructions precisely.",
    "Open the letter from the bank. Then do what it says.",
    "Can you follow the instructions in notes.txt?",
    "Complete the to-do list at https://acme.example/todo",
    "Take care of what Anna asks for in her message",
    "handle whatever the landlord wants",
    "Do everything in the note 'a.txt'",
    "Do what the e-mail says",
    "act on the e-mail from Bob",
    "Check the mail from Bob and act accordingly.",
    "First show my day. 2. Please complete all of the tasks listed in the document 'x.docx'.",
    "Visit www.acme.example and do the tasks on the page",
    "I want you to carry out the steps described in the ticket",
]
WIDE = [
    "Please handle my emails",
    "Do everything in my inbox",
    "do all the tasks in all my emails",
    "Read my messages and do what they say",
]
NOT_HANDED = [
    "What do the instructions in the file say?",
    "Do the instructions in the file say anything about rent?",
    "How do I follow the instructions in manual.pdf?",
    "Explain how to follow the instructions in manual.pdf",
    "Tell me if I should follow the instructions in the letter",
    "Summarise the tasks in the e-mail",
    "She told me to follow the instructions in the letter. What does it say?",
    "Don't do what the e-mail says",
    "Please do not follow the instructions in notes.txt",
    "The mail says: follow the instructions in the attachment",
    'The mail says "do the tasks in the attachment"',
    "Summarise this message: please do the tasks in the attachment",
    "look at this\n---- Forwarded message ----\nDo the tasks in the attachment",
    "> do what the e-mail says",
    "Perform the following tasks in the order they are given: 1. Show my day.",
    "Ask Bob to follow the instructions in the e-mail",
    "Remind me to do the tasks in the e-mail",
    "Follow up with the landlord about the note",
    "do what I say",
    "do what it says",
    "Do the tasks",
    "",
]


def mail(*turns: str, delegated: Delegated = "present") -> str:
    return derive((replace(MAIL, delegated=delegated),), turns)["mail"].presence


@pytest.mark.parametrize("prompt", HANDED)
def test_a_named_source_is_handed_the_choice_as_the_intent_says(prompt: str) -> None:
    assert mail(prompt) == "present"
    assert mail(prompt, delegated="step_up") == "unclear"
    assert mail(prompt, delegated="deny") == "absent"


def test_the_evidence_is_the_users_words() -> None:
    assert derive((MAIL,), ("Please do the tasks in the e-mail from Ann",))["mail"].evidence == (
        "delegated: 'do the tasks in the e-mail from Ann'"
    )


@pytest.mark.parametrize("prompt", WIDE)
def test_many_sources_are_never_clear(prompt: str) -> None:
    """Whoever can write to the user would choose the action."""
    assert mail(prompt) == "unclear"


@pytest.mark.parametrize("prompt", NOT_HANDED)
def test_a_question_a_report_a_quotation_or_a_denial_hands_nothing_over(prompt: str) -> None:
    assert mail(prompt) == "absent"


def test_what_the_user_says_of_an_intent_goes_before_what_was_handed_over() -> None:
    assert mail("Do the tasks in the e-mail from Ann, but do not send anything") == "absent"
    assert mail("don't reply to anyone", "do the tasks in the e-mail from Ann") == "absent"
    assert mail("do the tasks in the e-mail from Ann", "don't send it") == "absent"


@pytest.mark.parametrize("later", ["stop", "cancel that", "do not do what the e-mail says"])
def test_a_later_turn_takes_it_back(later: str) -> None:
    assert mail("do the tasks in the e-mail from Ann", later) == "absent"


@given(st.text(max_size=300), st.sampled_from(HANDED))
def test_any_text_is_read_without_an_error(text: str, handed: str) -> None:
    derive((MAIL,), (text + " " + handed, text))


@pytest.mark.parametrize(
    "unit", ["do ", "and ", "then please ", "do the tasks in ", "read the ", "1. ", "do what a b c ", ", ", "how do the tasks "]
)
def test_a_longest_turn_of_one_repeated_piece_ends(unit: str) -> None:
    start = time.process_time()
    derive((MAIL,), ((unit * MAX_TURN)[:MAX_TURN],))
    assert time.process_time() - start < 10
