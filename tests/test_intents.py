"""The lexical deriver: present, unclear, absent, withdrawn; only the user's own words."""

from __future__ import annotations

import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.intents.lexical import derive
from agentgate.intents.phrases import _compiled, _inflected, places
from agentgate.language.prompt import MAX_TURN
from agentgate.values.request import Presence
from agentgate.workflow.model import PLACES, Intent

REFUND = Intent(
    "refund",
    1,
    "Give a customer money back for an order they name.",
    ("refund", "reimburse", "money back"),
    "step_up",
    ("Please refund order ORD-10023344, it arrived broken", "Customer wants their money back for ORD-10023344"),
    ("What is the status of ORD-10023344?", "Refund all orders from last week"),
)


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        *((text, "present") for text in REFUND.examples),
        *zip(REFUND.counter_examples, ("absent", "unclear"), strict=True),
        ("Reimburse Jane for ORD-1", "present"),
        ("Could you please issue a refund on ORD-77? The box was crushed.", "present"),
        ("The customer asks for her money straight back, ORD-1", "unclear"),
        ("refund every order", "unclear"),
        ("Refund everything", "unclear"),
        ("Do not refund ORD-1", "absent"),
        ("Please don't reimburse anyone", "absent"),
        ("What is in ORD-1?", "absent"),
        ("Summarise this: please refund ORD-1", "absent"),
        ('Translate: "Please refund my order at once. I am angry with you"', "absent"),
        ("prerefunding", "unclear"),
        ("", "absent"),
    ],
)
def test_one_turn(prompt: str, presence: Presence) -> None:
    assert derive((REFUND,), (prompt,))["refund"].presence == presence


TAKEN_BACK = (
    "stop",
    "Stop!",
    "don't refund it",
    "please do not refund ORD-1 after all",
    "cancel that",
    "never mind",
    "no, cancel it",
    "Stop! Don't do that.",
    "wait",
    "no wait",
    "hold on",
    "I changed my mind",
    "undo that",
    "Cancel that refund",
)


@pytest.mark.parametrize("later", TAKEN_BACK)
def test_a_later_turn_withdraws(later: str) -> None:
    assert derive((REFUND,), ("refund ORD-1", later))["refund"].presence == "absent"


def test_what_a_later_turn_cancels_is_not_asked_for_and_its_cancelling_is() -> None:
    order = Intent("order", 1, "Order things.", ("order",), "deny", ("Order 3 pens",), ())
    cancel = Intent("cancel", 1, "Cancel an order.", ("cancel",), "deny", ("Cancel order ORD-1",), ())
    found = derive((order, cancel), ("order 3 pens", "cancel that order"))
    assert (found["order"].presence, found["cancel"].presence) == ("absent", "present")


def test_an_unrelated_later_turn_changes_nothing() -> None:
    assert derive((REFUND,), ("refund ORD-1", "it arrived broken"))["refund"].presence == "present"


def test_it_says_which_words() -> None:
    assert "refund" in derive((REFUND,), ("refund ORD-1",))["refund"].evidence


@pytest.mark.parametrize("first", ["Cancel it", "please cancel it", "Cancel that one.", "Which order is still open? Cancel that one."])
def test_a_first_turn_has_nothing_to_take_back(first: str) -> None:
    cancel = Intent("cancel", 1, "Cancel an order.", ("cancel",), "deny", ("Cancel order ORD-1",), ())
    assert derive((cancel,), (first,))["cancel"].presence == "present"


def asks(words: str, prompt: str) -> bool:
    intent = Intent("act", 1, "Do it.", tuple(part.strip() for part in words.split(",")), "deny", (), ())
    return derive((intent,), (prompt,))["act"].presence == "present"


@pytest.mark.parametrize(
    ("words", "prompt", "said"),
    [
        # regular inflections and no other words
        ("reply", "I want it replied to", True),
        ("move", "moving the dinner", True),
        ("plan", "I want it planned", True),
        ("share", "Please share it", True),
        ("move", "What is the movie about", False),
        ("share", "be there at 3 sharp", False),
        ("send", "who is the sender", False),
        ("note", "is there nothing new", False),
        ("put", "what is the input", False),
        # articles, and up to three words between
        ("create an event", "Create the event", True),
        ("create an event", "create a new weekly team event", True),
        ("create an event", "Create a file about the food that we want at the event", False),
        # somebody, something
        ("let someone know", "Let Marta Quiroga know that I am late", True),
        ("let someone know", "let me know how much I spent", False),
        ("let someone know", "Let us know", False),
        ("^tell someone", "Tell the team that lunch is at one", True),
        ("^tell someone", "Tell me what is in my inbox", False),
        ("^tell someone", "can you tell who wrote it", False),
        ("so someone can read", "Share it so Ann can read it", True),
        ("so someone can read", "Open it so I can read it", False),
        ("so someone can read", "Open it so we can read it", False),
        ("want someone paid", "I want the babysitter paid tonight", True),
        ("want someone paid", "I want to know who paid", False),
        ("put something calendar", "Put both of my Air Lusitan flights into the calendar", True),
        ("give something back", "give him one of the two payments back", True),
        ("set something to", "Set the rent to 900", True),
        ("set something to", "Set up a payment of 20 to Ann", False),
        ("set something up", "set it up", True),
        ("give someone access", "Give audit.team@finnegan.example access to the sheet", True),
        ("give someone access", "give me access", False),
        # where a request begins
        ("^email", "I'd like to email Ann", True),
        ("^email", "i need you to email Ann", True),
        ("^email", "We would like you to email Ann", True),
        ("^email", "Let's email Ann", True),
        ("^email", "don't forget to email Ann", True),
        ("^email", "When you are done, please also email Ann", True),
        ("^email", "can u email Ann", True),
        ("^email", "pls email Ann", True),
        ("^email", "Hey, any chance you could email Ann?", True),
        ("^email", "Do you think you could email Ann", True),
        ("^email", "Thanks for today\nEmail Ann", True),
        ("^email", "Two things:\n- email Ann\n- call Bob", True),
        ("^plan", "give Ann the test-plan", False),
        ("^plan", "give Ann test.plan", False),
        ("^plan", "We are early. Plan it", True),
        ("^plan", "We are early - plan it", True),
        ("^email", "Should I email Ann?", False),
        ("^email", "Did Ann get the email", False),
        ("^email", "the instructions tell you how to email", False),
        # what is denied, and what only sounds like it
        ("invite", "Don't forget to invite Mark", True),
        ("move", "I can't make it on Friday, move dinner to Monday", True),
        ("cancel", "If it is not shipped yet, cancel the order", True),
        ("cancel", "Is it shipped? If not, cancel it", True),
        ("refund", "We didn't order this, please refund it", True),
        ("cancel", "He isn't coming so cancel the table", True),
        ("pay", "Pay invoice no. 7 no later than Friday", True),
        ("pay", "Pay it without delay", True),
        ("pay", "Before I forget, pay Ann", True),
        ("pay", "forget it, pay nobody", False),
        # a title ends no sentence
        ("let someone know", "Let Mr. Fonseca know that I am late", True),
        ("let someone know", "Let Prof. Stein know", True),
        ("pay", "Don't let Mr. Fonseca pay", False),
        ("pay", "Do not ask Dr. Stein to pay", False),
        ("pay", "I don't mind. Pay Ann", True),
        # told of
        ("need something paid", "I need the rent paid", True),
        ("need something paid", "I needed the rent paid", False),
        ("comment", "mark it as won't fix and leave a comment", True),
        ("send", "I can't have you pay, send or move it", False),
        ("send", "You must not pay, send it", False),
        ("send", "I don't want you to pay, send it", False),
        ("pay", "never forget: do not pay", False),
        ("pay", "I won't pay", False),
        # a statement that denies what is to be done, a list it denies, and what only looks like an idiom
        ("send", "I won't have you pay, send it", False),
        ("send", "We haven't agreed to pay, so send nothing", False),
        ("pay", "He hasn't been told to pay - pay nothing", False),
        ("move", "it is not that you should pay, move and send it", False),
        ("refund", "The team has not approved that you pay, refund ORD-1", False),
        ("pay", "I did not say refund ORD-1, pay Ann", False),
        ("send", "It isn't ok to pay, send", False),
        ("send", "You really can't pay, send it", False),
        ("move", "We can't pay, send and move it", False),
        ("refund", "Ann is not to be paid, refunded", False),
        ("refund", "We are not paying, refunding Ann", False),
        ("pay", "Pay nothing", False),
        ("pay", "If not, pay nothing", False),
        ("pay", "Pay Ann nothing", False),
        ("pay", "You can pay nothing", False),
        ("pay", "I'd like you to pay nothing for now", False),
        ("pay", "Pay none of them", False),
        ("send", "Send no money to her", False),
        ("pay", "I refuse to pay", False),
        ("pay", "Prevent Ann from paying", False),
        ("pay", "Nothing to pay", False),
        ("pay", "Pay Ann and nobody else", True),
        ("tell", "Tell Ann nothing is lost", True),
        ("pay", "I am not sure you should pay", False),
        ("pay", "I'm not sure which one it is, pay the last", True),
        ("pay", "please not yet pay", False),
        ("refund", "Why not refunded", False),
        ("order", "no 3 orders", False),
        ("pens", "order no 3 pens", False),
        ("pay", "for invoice no 7, pay it", True),
        ("refund", "close it without further refunds", False),
        ("pay", "I won't fix or pay it", False),
        ("give someone access", "Give 'Ann' access", True),
        # asked, or reported: unclear
        ("pay", "Should I pay Ann?", False),
        ("pay", "She asked me to pay her", False),
        ("pay", "She asked me to pay her. Please pay her", True),
        ("cancel", "Tell Ann to cancel her order", False),
        ("cancel", "I was told to cancel it", False),
        ("cancel", "Remind me on Friday to cancel it", False),
        ("cancel", "Write to Ann that she should cancel her order", False),
        ("cancel", "The policy says cancel within 5 days", False),
        ("^delete", "Send Bob a message: delete the old files", False),
        ("^pay", "Add a to-do: pay Ann", False),
        ("^pay", "Title: pay Ann", False),
        ("^pay", "Three things: pay Ann, call Bob, rest", True),
        ("pay", "Read Ann's message of 10:30 and pay her", True),
        ("cancel", "I asked you to cancel it", True),
        ("pay", "Ask Ann for her account and pay to it", True),
    ],
)
def test_words_and_what_is_said_around_them(words: str, prompt: str, said: object) -> None:
    assert asks(words, prompt) is said


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        ("Refund 15 EUR every month for ORD-1", "present"),
        ("Refund them both, each with its number", "present"),
        ("Refund ORD-1 and ORD-2, 20 EUR each", "present"),
        ("Refund all three of them", "present"),
        ("Refund ORD-1 for all the trouble", "present"),
        ("Refund ORD-1 if any of it broke", "unclear"),
        ("Refund each of the orders", "unclear"),
        ("Refund all my orders of this month", "unclear"),
        ("refund all of it", "unclear"),
        ("refund all of 39.99 EUR", "unclear"),
        ("refund all 39 euros", "unclear"),
        ("refund all 3", "present"),
        ("Refund it in 12 parts, 20 EUR each month", "present"),
        ("Refund all my orders each month", "unclear"),
        ("Refund every month of 2023", "unclear"),
        ("Refund every monday order", "unclear"),
        ("Refund the whole year", "unclear"),
        ("Refund all 99 orders", "unclear"),
        ("Refund all two hundred orders", "unclear"),
        ("Refund all ten-thousand", "unclear"),
        ("Refund all 3 or more orders", "unclear"),
        ("Refund me, it was 31.40 all in.", "present"),
        ("Refund 31 all in the list", "unclear"),
        ("Refund all seven years of orders", "unclear"),
        ("Refund all the other orders", "unclear"),
        ("Refund each", "unclear"),
        ("Refund each on the list", "unclear"),
        ("Refund two orders each", "present"),
        ("Refund all right now", "unclear"),
        ("Refund all good orders", "unclear"),
        ("Refund after all orders", "unclear"),
        ("Refund all their work", "unclear"),
        ("Refund any more orders", "unclear"),
        ("Refund any problems", "unclear"),
        ("Refund ORD-1 if you have any questions.", "present"),
        ("Refund ORD-1 and leave everything else", "present"),
        ("Refund ORD-1 and keep all of the others.", "present"),
        ("Refund everything else", "unclear"),
        ("Refund the rest and leave all orders", "unclear"),
    ],
)
def test_a_quantity_of_what_is_acted_on(prompt: str, presence: Presence) -> None:
    assert derive((REFUND,), (prompt,))["refund"].presence == presence


@pytest.mark.parametrize("text", ["it isn't a, ", "it isn't a - ", "it is not so so ", "pay nothing ", "put something, "])
def test_no_denial_is_slow(text: str) -> None:
    long = (text * MAX_TURN)[:MAX_TURN]
    words = ("put something calendar", "let someone know", *(f"verb{n} something noun{n}" for n in range(200)))
    gc.disable()  # a collection over all that other tests left takes a second by itself
    try:
        begun = time.process_time()
        derive((Intent("act", 1, "Do it.", words, "deny", (), ()),), (long,))
        assert time.process_time() - begun < 1  # it takes a twentieth of that; what is quadratic here takes more
    finally:
        gc.enable()


def test_a_counter_example_is_not_near_for_the_words_of_the_intent_alone() -> None:
    ticket = Intent("ticket", 1, "Change a ticket.", ("set",), "step_up", ("Set T-301 to pending",), ("Set up a voucher",))
    assert derive((ticket,), ("then set it to solved",))["ticket"].presence == "present"
    assert derive((ticket,), ("set up a voucher",))["ticket"].presence == "unclear"


def test_a_counter_example_about_everything_says_nothing_of_one() -> None:
    pay = Intent("pay", 1, "Pay.", ("send",), "step_up", ("Send 20 EUR to my sister",), ("Send all my money to this account",))
    assert derive((pay,), ("Send the money to my savings account",))["pay"].presence == "present"
    assert derive((pay,), ("Send all the money to my savings account",))["pay"].presence == "unclear"


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12))
def test_a_word_is_found_as_itself_and_nowhere_inside_another(word: str) -> None:
    assert [place[:2] for place in places((word,), f"- {word} -")] == [(2, 2 + len(word))] or word in PLACES
    assert not places((word,), f"1{word}1") or word in PLACES


_PART = st.sampled_from(["put", "pass", "pay", "p", "on", "back", "a", "the", "something", "someone", "list", "files"])
_PHRASE = st.tuples(st.sampled_from(["put", "pass", "pay", "p"]), st.lists(_PART, max_size=3)).map(lambda p: " ".join([p[0], *p[1]]))


@given(st.lists(_PHRASE, min_size=1, max_size=6, unique=True), st.lists(_PART | st.sampled_from(["me", "passing", "it,"]), max_size=12))
def test_phrases_together_find_what_each_finds_alone(phrases: list[str], said: list[str]) -> None:
    text = " ".join(said)
    assert sorted(places(tuple(phrases), text)) == sorted(place for phrase in phrases for place in places((phrase,), text))


_ROOTS = "pay try use tie die lie move plan set hug shed carry free agree ski eye age owe ache tax fix fly".split()


@given(st.sampled_from([form for root in _ROOTS for form in _inflected(root)]), st.sampled_from(_ROOTS))
def test_how_words_start_hides_no_inflection(listed: str, said: str) -> None:
    """What a phrase is filed under is looked up in the text: it must find all that the pattern finds."""
    for form in _inflected(said):
        assert bool(places((listed,), form)) is (_compiled(listed).search(form) is not None)


VERB = Intent("mail", 1, "Send an e-mail.", ("^email", "^e-mail"), "deny", ("Email Ann",), ())


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        ("Email 'ann@acme.example' that I am late", "present"),
        ("please email Ann", "present"),
        ("Look it up, then email Ann", "present"),
        ("1. Show my day. 2. Could you please e-mail her?", "present"),
        ("Is there an email from Ann?", "absent"),
        ("Read the email", "absent"),
        ("tell me how to email Ann", "absent"),
        ("do not email Ann", "absent"),
        ("emailing is easy", "absent"),
        # the words before a clause, and a quotation, are no place where a request begins
        ("We have phone but email is broken", "absent"),
        ("Did she reply by phone or rather email?", "absent"),
        ("'Sale' email: who got it?", "absent"),
        ("Will we email her?", "absent"),
    ],
)
def test_a_verb_counts_only_where_a_request_begins(prompt: str, presence: Presence) -> None:
    assert derive((VERB,), (prompt,))["mail"].presence == presence


@pytest.mark.parametrize("asks", ["Would you be so very kind as to", "Be so good as to", "Would you be so kind to", "Please you"])
def test_a_polite_form_asks(asks: str) -> None:
    assert derive((REFUND,), (f"{asks} refund ORD-1",))["refund"].presence == "present"
    assert derive((REFUND,), (f"{asks} not refund ORD-1",))["refund"].presence == "absent"


@pytest.mark.parametrize("missing", ["It still has no refund", "They still have no refund.", "ORD-1 has no refund yet"])
def test_what_is_missing_so_far_denies_nothing_and_asks_for_nothing(missing: str) -> None:
    assert derive((REFUND,), (missing,))["refund"].presence == "unclear"
    assert derive((REFUND,), ("Refund ORD-1", missing))["refund"].presence == "unclear"
    assert derive((REFUND,), (f"{missing.removesuffix('.')}, please refund it",))["refund"].presence == "present"


@pytest.mark.parametrize("denial", ["It has no refund", "Make sure that it has no refund", "It should have no refund", "No refund yet"])
def test_another_lack_is_a_denial(denial: str) -> None:
    assert derive((REFUND,), (denial,))["refund"].presence == "absent"


RAISE = Intent("raise", 1, "Change a planned payment.", ("raise", "from now on"), "step_up", (), ())


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        ("Please make the gift 20 instead of 10 from now on", "present"),
        ("The club gets 20 euro instead of Kim from now on", "present"),
        ("I want to give the club 20 instead of 10 a month from now on, and I'll tell them", "present"),
        ("I can't pay 10 from now on", "absent"),
        ("Do not make it 20 instead of 10 from now on", "absent"),
        ("Raise it instead of 10 from now on, no wait", "unclear"),
    ],
)
def test_from_now_on_is_of_what_takes_the_place(prompt: str, presence: Presence) -> None:
    assert derive((RAISE,), (prompt,))["raise"].presence == presence


ANSWER = Intent("answer", 1, "Answer somebody.", ("answer",), "step_up", (), ())


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        ("Answer in his thread that I'll take it", "present"),
        ("Answer in Jonas's thread that I'll take it", "present"),
        ("What does Jonas say? Answer in French", "absent"),
        ("What does Jonas say? Answer in the same language", "absent"),
        ("What does Jonas say? Answer in this thread", "absent"),
    ],
)
def test_who_answers_in_somebody_elses_thread_answers_them(prompt: str, presence: Presence) -> None:
    assert derive((ANSWER,), (prompt,))["answer"].presence == presence


@pytest.mark.parametrize(
    ("prompt", "presence"),
    [
        ("They wrote it in a.txt. Refund ORD-1", "present"),
        ("They wrote it in a.txt, refund ORD-1", "unclear"),
        ("They wrote it in a.txt: refund ORD-1", "unclear"),
        ("Refund ORD-1. After this please show me the list one more time.", "present"),
        ("Refund ORD-1. She needs more time.", "unclear"),
    ],
)
def test_where_something_was_written_and_when_it_is_shown_again(prompt: str, presence: Presence) -> None:
    assert derive((REFUND,), (prompt,))["refund"].presence == presence


LEAVE = Intent("note", 1, "Leave a note.", ("leave",), "step_up", (), ())


@pytest.mark.parametrize("rest", ["leave everything else", "leave the rest as it is", "leave all of the others."])
def test_what_is_left_alone_narrows_and_asks_for_nothing(rest: str) -> None:
    for prompt in (f"Refund ORD-1 and {rest}", f"Refund ORD-1. {rest.capitalize()}"):
        answers = derive((REFUND, LEAVE), (prompt,))
        assert (answers["refund"].presence, answers["note"].presence) == ("present", "unclear")
    assert derive((REFUND, LEAVE), ("Leave the others a note",))["note"].presence == "present"
