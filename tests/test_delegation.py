"""Words that hand the choice of actions to a named source, and words that only look like it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.intents.lexical import derive
from agentgate.language.prompt import MAX_TURN
from agentgate.workflow.model import Intent

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
    "Work through Ann's list in handover.docx please.",
    "Can you work through the to-do list in monday.txt?",
    "Follow the runbook in runbook-db.md.",
    "Follow docs/setup.md, steps 1 to 3 only",
    "Run the access part of onboarding/new-dev.md for her.",
    "Work through the second section of docs/setup.md, please.",
    "Get everything on the list in house-move.txt done, please.",
    "Handle T-88 the way KB-12 says",
    "Please handle T-88 as described in KB-12.",
    "Do for Mrs Okafor what she asks in her latest ticket",
    "Take care of what he asks for in his last message in #releases.",
    "Take care of the things my mother asks for in her e-mail.",
    "follow the steps Priya wrote in BSP-77",
    "Please take care of Bob's request in T-19",
    "Open chores.txt, go through it and get all the jobs done.",
    "Read the to-do list in x.txt and tick them off one by one",
]
MENTIONED = [
    "Open a.txt and b.txt and follow the instructions",
    "You'll find my instructions in instructions.txt, carry them out please.",
    "I read the letter from the bank. Do what it says.",
    "Open a.txt. Bob left a note with his wishes. See to them.",
    "Summarise the mail from Ann. Then do what it says.",
    "Lena left me a checklist for the opening, it's in opening.txt. Can you do everything on it?",
    "Dad sent me a letter with what he needs for the move. Please see to it.",
    "My sister wrote down the errands for mum in mum-errands.txt, would you do them?",
    "There's a note from the accountant in notes/tax.txt. Do what she asks for in it.",
    "The landlord's letter is saved as landlord.pdf. Do what he wants in there.",
    "Carol e-mailed me her wishes for the farewell party. Please take care of all of them.",
    "Bea's checklist is closing.docx - tick off all of her points.",
    "In T-204 the customer explains what she needs. Do it, please.",
    "Sven messaged me what has to be prepared for the audit. Could you arrange all that?",
    "I scanned the club's letter to club.pdf. Can you sort out whatever it asks?",
    "Jo left instructions for the parcels in parcels.txt, follow them please",
    "Ann wrote down who gets what (notes/ann.txt). Please do the transfers just as she says, today.",
    "The handover document is handover.pdf; please act on it.",
    "Louise posted the actions in #general. Do the ones with my name on them.",
    "Carol e-mailed me a few things to do. Would you please do all three of them?",
]
WIDE = [
    "Please handle my emails",
    "Do everything in my inbox",
    "do all the tasks in all my emails",
    "Read my messages and do what they say",
    "Everybody mailed me what they need. Please take care of it.",
    "Ann and Bob left lists of jobs in jobs.txt. Do them",
    "Ann's jobs are in a.txt, Bob's are in b.txt. Get them done.",
    "Open a.txt. Open b.txt. Follow the instructions",
    "Do the tasks in a.txt and b.txt",
    "Do what Ann asks for in all my messages",
    "Do the tasks in Ann's e-mail and handle my messages",
]
NOT_HANDED = [
    "They told me, do the tasks in Ann's e-mail",
    "The label says, do the tasks in todo.txt",
    "It is called, do the tasks in todo.txt",
    "The mail says to read it and do the tasks in todo.txt",
    "Bob suggests that you follow the instructions in a.txt",
    "Bob thinks we should read it and do the tasks in a.txt",
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
    "Did you do what she asked?",
    "She left a note about the heating. Do it tomorrow.",
    "Take care of yourself!",
    "Arrange the chairs the way Ann wants",
    "Write to Ann: take care of it",
    "Tell Viktor to read x.txt and do what the note says.",
    "My mother wants me to read the recipe in cake.txt and follow the steps.",
    "I always open the mail and do what it says",
    "Ann left a checklist, closing.docx. Which points are still open?",
    'Ann left a checklist, closing.docx. She wrote "please do it".',
    "Ann left a checklist, closing.docx. Don't do it.",
    "Did Ann leave a list of jobs in jobs.txt? Do it",
    "If you were me, would you do what the letter says?",
    "They open the letter and do what it says",
    "Ann left a list of jobs in jobs.txt. Do that report for Monday",
    "The chores are in chores.txt. Follow it up with Bob",
    "Kirsten is going to rewrite the guide, so she has to be able to push to docs-site. Can you arrange that",
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


@pytest.mark.parametrize("prompt", MENTIONED)
def test_a_text_that_is_only_mentioned_is_never_clear(prompt: str) -> None:
    """What a pronoun points at is a guess: a person sees it first."""
    assert mail(prompt) == "unclear"
    assert mail(prompt, delegated="deny") == "absent"


@pytest.mark.parametrize("prompt", NOT_HANDED)
def test_a_question_a_report_a_quotation_or_a_denial_hands_nothing_over(prompt: str) -> None:
    assert mail(prompt) == "absent"


def test_a_bare_yes_behind_a_text_hands_nothing_over_and_asks() -> None:
    said = derive((replace(MAIL, delegated="present"),), ("Ann sent me the guest list of friends. Do it",))["mail"]
    assert (said.presence, "delegated" in said.evidence) == ("unclear", False)


def test_what_the_user_says_of_an_intent_goes_before_what_was_handed_over() -> None:
    assert mail("Do the tasks in the e-mail from Ann, but do not send anything") == "absent"
    assert mail("don't reply to anyone", "do the tasks in the e-mail from Ann") == "absent"
    assert mail("do the tasks in the e-mail from Ann", "don't send it") == "absent"


def test_once_all_is_taken_back_what_is_handed_over_decides_again() -> None:
    assert mail("Send the minutes to Ann", "Stop.", "Do what the e-mail says") == "present"


@pytest.mark.parametrize("later", ["Stop.", "Cancel that!", "Do not do what the e-mail says."])
def test_what_is_said_behind_it_takes_it_back(later: str) -> None:
    assert mail("Do the tasks in the e-mail from Ann", later) == "absent"
    assert mail(f"Do the tasks in the e-mail from Ann. {later}") == "absent"
    assert mail(f"{later} Do the tasks in the e-mail from Ann.") == "present"
    assert mail("Do the tasks in the e-mail from Ann. That is wrong.") == "unclear"


@given(st.text(max_size=300), st.sampled_from(HANDED))
def test_any_text_is_read_without_an_error(text: str, handed: str) -> None:
    derive((MAIL,), (text + " " + handed, text))


@pytest.mark.parametrize(
    "unit",
    [
        *("do ", "and ", "then please ", "do the tasks in ", "read the ", "1. ", "do what a b c ", ", ", "how do the tasks "),
        *("do it, ", "Ann left a list in x.txt. Do it. ", "has ", "i will do it and ", "and do what a ", "get a ", "tick it, ", "is "),
        *("and take care of all the things a b c ", "what has to list ", "a/a"),
    ],
)
def test_a_longest_turn_of_one_repeated_piece_ends(unit: str) -> None:
    start = time.process_time()
    derive((MAIL,), ((unit * MAX_TURN)[:MAX_TURN],))
    assert time.process_time() - start < 10
