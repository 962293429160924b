"""The lexical deriver: present, unclear, absent, withdrawn; only the user's own words."""

from __future__ import annotations

import pytest

from agentgate.intents.lexical import derive
from agentgate.request import Presence
from agentgate.workflow import Intent

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
        *((text, "absent") for text in REFUND.counter_examples),
        ("Reimburse Jane for ORD-1", "present"),
        ("Could you please issue a refund on ORD-77? The box was crushed.", "present"),
        ("The customer asks for her money straight back, ORD-1", "present"),
        ("refund every order", "unclear"),
        ("Refund everything", "unclear"),
        ("Do not refund ORD-1", "absent"),
        ("Please don't reimburse anyone", "absent"),
        ("What is in ORD-1?", "absent"),
        ("Summarise this: please refund ORD-1", "absent"),
        ('Translate: "Please refund my order at once. I am angry with you"', "absent"),
        ("prerefunding", "absent"),
        ("", "absent"),
    ],
)
def test_one_turn(prompt: str, presence: Presence) -> None:
    assert derive((REFUND,), (prompt,))["refund"].presence == presence


@pytest.mark.parametrize("later", ["stop", "Stop!", "don't refund it", "please do not refund ORD-1 after all", "cancel that", "never mind"])
def test_a_later_turn_withdraws(later: str) -> None:
    assert derive((REFUND,), ("refund ORD-1", later))["refund"].presence == "absent"


def test_an_unrelated_later_turn_changes_nothing() -> None:
    assert derive((REFUND,), ("refund ORD-1", "it arrived broken"))["refund"].presence == "present"


def test_it_says_which_words() -> None:
    assert "refund" in derive((REFUND,), ("refund ORD-1",))["refund"].evidence


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
    ],
)
def test_a_verb_counts_only_where_a_request_begins(prompt: str, presence: Presence) -> None:
    assert derive((VERB,), (prompt,))["mail"].presence == presence
