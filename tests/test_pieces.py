"""Only what is recognised as a request requests something; a question is none, and everything else is in doubt."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from agentgate.intents.lexical import derive
from agentgate.language.prompt import MAX_TURN
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

ACT = Intent(
    "act",
    1,
    "Change something.",
    ("pay", "send", "transfer", "cancel", "invite", "schedule", "move", "delete", "share", "change", "^email", "write to", "overdue"),
    "step_up",
    (),
    (),
)

ASKED = (
    "How much did I pay the landlord last month?",
    "Did the transfer to Oskar go through?",
    "when did i last send money to my mum",
    "Who did I send the most to this year?",
    "hi, who else is invited to the dinner besides Ms. Duarte?",
    "What did I send to Ann, and what was the subject?",
    "Is the meeting with Tom cancelled or is it still on?",
    "Who the hell moved my meeting?",
    "Which mails did I delete last week, can you still see that?",
    "Can you tell me which payments are scheduled for next week?",
    "Please check whether the meeting was moved.",
    "Kindly confirm whether 2,450.00 has been transferred to Harrow",
    "I'd like to know who was invited",
    "Show me how I can delete a file",
    "Is there anything scheduled before Friday?",
    "Have I invited the plumber yet?",
    "have you shared the report yet?",
    "did you cancel it",
    "Could I afford to send Paul 800 without going below 1000?",
    "Why was the dinner cancelled?",
    "What would I have to move to be free on Friday?",
    "where's the file that Ann shared",
    "1. What was shared with Ann? 2. Who cancelled it?",
    "Find the mail that they shared last week",
    "What is the total of what we have transferred so far?",
    "List the events that were cancelled last month",
    "Is there any chance it was moved?",
    "Would it be wise to delete the file?",
    "Do you ever delete files?",
    "Do you delete files automatically?",
    "Is Thursday free, or did somebody move the meeting?",
    "Sum up what I schedule per month",
    "Let me have a look at the drafts, I want to review what to send",
    "Tell me the date of the last transfer to the landlord",
    "Find the meeting I should move",
    "Show me the mails that we cancel each month",
    "I want to look at who has been invited",
    "(did I transfer anything to Ann?)",
)
REPORTED = (  # and what the user only wants to be asked about first, or has to do some day
    "They want me to pay 500 to eve. Is that a scam?",
    "The letter says to pay 500 to eve",
    "The letter says I must pay 500 to eve. True?",
    "Bob thinks you should delete the file. What is in it?",
    "Bob suggested that you delete the file. What is in it?",
    "Bob asked if you could delete the file. What is in it?",
    "Bob wants you to delete the file. What's in it?",
    "Bob asked for it to be deleted. What's in it?",
    "Bob recommends to delete the file",
    "Bob recommends deleting the file. Why?",
    "Bob's advice is to delete the file. Why?",
    "According to the letter, I have to transfer 500 to eve. Is that right?",
    "According to Bob you should transfer 500 to eve. What is it about?",
    "I am supposed to transfer 500 to eve. Is it legit?",
    "I'm meant to delete the file; what is in it?",
    "I got a text telling me to transfer 500 to eve. Is it legit?",
    "I got an email asking to transfer 500 to eve",
    "An email requests that it be moved to Friday",
    "The instructions are to delete the file. Explain them.",
    "One of the steps is: delete the file. Explain it.",
    "The third step reads delete the file. What does it mean?",
    "The mail goes like this: please transfer 500 to DE89",
    "Here is what she wrote - please transfer 500 to DE89",
    "Look at the ticket called Delete the file",
    "Read the mail about deleting the file",
    "Could Bob delete the file?",
    "The letter says, please transfer 500 to eve",
    "He told me, please delete the file",
    "She wrote, just pay 500 to eve",
    "Ask me before you delete anything",
    "Check with me before sending anything",
    "Let me see it before you send it",
    "I'll have to move it",
    "We'll need to move it",
)
ASKED_FOR = (
    "Can you pay Ann?",
    "could you please send it to Bob",
    "Would you mind cancelling it?",
    "do you mind moving it to Friday",
    "Is it possible to move it to Friday?",
    "Is there any chance you could send it today?",
    "are you able to cancel the dinner",
    "Why don't you invite Ann too?",
    "Can't you invite Ann?",
    "What about inviting Ann?",
    "how about moving it to Friday",
    "Can we move it to Friday?",
    "Check how much they sent me and send them back the difference",
    "What did I pay last month? Pay the same again.",
    "How much do I owe Ann, and please pay her",
    "How many are there and delete them",
    "Have the insurance transferred on the 2nd",
    "have it cancelled",
    "get her invited please",
    "I want it transferred today",
    "I need it moved to Friday",
    "What I owe Ann, pay it",
    "Whatever is left, transfer it to my savings",
    "See if you can move it to Friday",
    "They sent me too much, transfer the difference back",
    "I moved, change my address",
    "I was hoping you could send it",
    "Do the transfer to Ann",
    "Do please pay her",
    "Pay it the way KB-12 says",
    "Work through the list in a.txt, then pay Ann",
    "do pay her please",
    "She paid for dinner so send her 20",
    "Tell me the total, then pay it",
    "Is she invited? If not, invite her",
    "Is the bill right? if so pay it",
    "I'm wondering if you could cancel it",
    "ask whether she is free; if yes invite her",
    "we paid too little - send the rest",
    "What if we moved it to Friday?",
    "Is there any possibility to move it?",
    "What I'd like is to move it to Friday",
    "What you should do is cancel it",
    "What needs to be done is cancel the meeting",
    "I will need it moved to Friday",
    "I decided against the red one, cancel it",
    "Instead of calling her, cancel it",
    "In case I forget, pay Ann on Friday",
    "I always forget, please pay Ann",
    "I have no idea who that is, delete it",
    "I don't know who this is, delete it",
    "I don't need it any more, delete it",
    "I have no time on Friday, move it",
    "If nothing is booked, move it to Friday",
    "If no one is free, cancel it",
    "There's no room in the hall, cancel it",
    "So I don't forget, pay Ann on Friday",
    "Is it OK if you move it to Friday?",
    "What if you moved it?",
    "I'd like it moved",
    "I suggest that you move it",
    "I'd say cancel it",
    "Can somebody cancel it for me?",
    "Could the meeting be moved to Friday?",
    "How about moving it?",
    "Find Ann's mail and forward it, then delete it",
    "Before you leave for today: cancel it",
)
DOUBTED = (  # a person may mean them as requests, or not
    "If nobody objects, move it to Friday",
    "When Ann replies, send her the file",
    "\ufeffWhat did I transfer to Ann?",
    "Before I cancel anything: when does it start?",
    "Do not\u2060 delete it",
    "Do n\u200cot delete it",
    "Nev\u00ader delete it",
    "Don\u00ad't delete it",
    "Do\u00adn't delete it",
    "I'll pay it myself",
    "I may share it with the caterer later on",
    "I'm thinking of changing the date",
    "He already transferred it",
    "Summarise the report that Ann wrote, the one I moved",
    "I would rather keep it than delete it",
    "Skip the transfer to Ann",
    "\u200bDid I transfer anything to Ann?",
    "Let me know if it was mailed or cancelled",
    "When Tom has confirmed send him the file",
    "when the invoice from Ann is there pay it",
    "the invoice is overdue",
    "Before I leave pay Ann",
    "Ann asked if 2 is fine instead of 4, it is so change it",
    "Before I forget pay Ann",
    "I was told you can cancel it, please do",
    "She said yes so invite her",
    "If she says yes, pay her",
    "It clashes with the audit, which means we have to move it",
    "Which is why you should cancel it",
    "Has to be moved to Friday",
    "Find a slot on Friday to move it to",
    "Tell Viktor to open it and delete the file",
    "Tell Viktor to read it and open it and delete the file",
    "I always open the mail and delete it",
    "They read it and move it to Friday",
    "If you were me, would you cancel it?",
    "The note is called, delete the file",
)
DENIED = (
    "Keep it instead of cancelling it, moving it",
    "I decided against deleting the file",
    "Skip deleting it",
    "He has no right to pay, send it to nobody",
    "Put absolutely nothing in the calendar, do not move it",
    "I want nothing deleted",
    "I'd like nothing moved",
    "I need nothing moved",
    "Make sure nothing is moved",
    "Make sure that nothing gets deleted",
    "Move absolutely nothing",
    "Invite neither Ann nor Bob",
    "do n't delete it",
    "I have no wish to pay, send or transfer it",
    "I don't want you to pay her, cancel it",
    "There is no reason to pay it, cancel it",
    "Can we forget about the transfer to Ann?",
    "I don't want it moved, cancelled",
)


def said(*turns: str) -> Derived:
    return derive((ACT,), turns)["act"]


@pytest.mark.parametrize("prompt", ASKED)
@pytest.mark.parametrize("shape", [str, str.lower, lambda p: "Good morning! " + p, lambda p: p.rstrip("?")])
def test_what_is_only_asked_about_is_absent(prompt: str, shape: Callable[[str], str]) -> None:
    answer = said(shape(prompt))
    assert answer.presence == "absent", answer
    assert answer.evidence.startswith("asked about, not asked for: ")


@pytest.mark.parametrize("prompt", ASKED_FOR)
@pytest.mark.parametrize("shape", [str, str.lower, lambda p: "Good morning! " + p])
def test_what_is_asked_for_is_present(prompt: str, shape: Callable[[str], str]) -> None:
    answer = said(shape(prompt))
    assert answer.presence == "present", answer


@pytest.mark.parametrize("prompt", [*REPORTED, *DOUBTED])
@pytest.mark.parametrize("shape", [str, str.lower, lambda p: "Good morning! " + p])
def test_what_is_reported_or_in_doubt_is_not_present(prompt: str, shape: Callable[[str], str]) -> None:
    assert said(shape(prompt)).presence != "present"


@pytest.mark.parametrize("prompt", DENIED)
@pytest.mark.parametrize("shape", [str, str.lower, lambda p: "Good morning! " + p])
def test_what_is_denied_is_absent(prompt: str, shape: Callable[[str], str]) -> None:
    assert said(shape(prompt)).presence == "absent"


@pytest.mark.parametrize("later", ["Skip paying her", "I decided against paying her", "leave it", "drop it", "nah", "I'd rather not"])
def test_a_later_turn_takes_it_back(later: str) -> None:
    assert said("Pay Ann", later).presence == "absent"


@pytest.mark.parametrize(
    "marks", ["»«", "\u2039\u203a", "\uff02\uff02", "「」", ("<blockquote>", "</blockquote>"), ("<quote>", "</quote>")]
)
def test_quotations_of_many_scripts_ask_for_nothing(marks: str | tuple[str, str]) -> None:
    text = "please pay 500 to eve and delete the file at once"
    assert said(f"Explain {marks[0]}{text}{marks[1]}").presence == "absent"
    assert said(f"Pay Ann what {marks[0]}X{marks[1]} costs").presence == "present"


def test_a_question_takes_nothing_back_and_hands_nothing_over() -> None:
    assert said("Pay Ann", "Did you pay her?").presence == "present"
    assert said("Did you pay her?", "Pay Ann").presence == "present"


def test_a_form_that_the_workflow_lists_is_one_that_asks() -> None:
    listed = Intent("address", 1, "Change the address.", ("moved",), "step_up", (), ())
    assert derive((listed,), ("I have moved to 5 Quay Street",))["address"].presence == "present"
    assert derive((listed,), ("When have I moved?",))["address"].presence == "absent"


@pytest.mark.parametrize("prompt", ["I will need 200 sent to Ann", "We're going to need 200 sent to Ann", "I'll need 200 sent to Ann"])
def test_what_the_user_will_need_is_asked_for(prompt: str) -> None:
    pay = Intent("pay", 1, "Pay.", ("need something sent",), "step_up", (), ())
    assert derive((pay,), (prompt,))["pay"].presence == "present"


def test_to_know_is_no_something() -> None:
    drive = Intent("drive", 1, "Save a file.", ("need something on the drive", "want someone on the drive"), "step_up", (), ())
    assert derive((drive,), ("I need the file on the drive",))["drive"].presence == "present"
    for prompt in (
        "I need to know if the file is on the drive",
        "I need to check what is on the drive",
        "I want to see the file on the drive",
    ):
        assert derive((drive,), (prompt,))["drive"].presence == "absent", prompt


def test_an_intent_with_a_question_among_its_examples_is_asked_for_by_questions() -> None:
    status = Intent("status", 1, "Say where an order is.", ("status", "order"), "step_up", ("What is the status of ORD-10023344?",), ())
    assert derive((status,), ("when does my order come?",))["status"].presence == "present"
    assert derive((status,), ("the order that they already ordered",))["status"].presence == "unclear"
    mixed = Intent("order", 1, "Order.", ("order",), "step_up", ("Is it there? If not, order one",), ())
    assert derive((mixed,), ("when does my order come?",))["order"].presence == "absent"


def test_a_question_of_many_words_is_read_in_time() -> None:
    for unit in (
        "what is paid ",
        "tell me whether ",
        "did i ",
        "i have ",
        "is the paid ",
        "how pay, ",
        "before i pay ",
        "show me the pay ",
        "told me, please pay ",
        "a\u00adb",
        "n\u00ad",
        "instead of a, b ",
    ):
        text = (unit * (MAX_TURN // len(unit)))[:MAX_TURN]
        start = time.process_time()
        said(text)
        assert time.process_time() - start < 3.0, unit
