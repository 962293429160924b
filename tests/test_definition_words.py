"""Loading the words for delegation, extracted facts, selectors, sums and nested arguments: what is refused, and where."""

from __future__ import annotations

import pytest

from tests.test_definition import PAIR, changed, expect_one, load, problems

WORDS = "words: [send],"


def test_an_intent_is_not_delegated_unless_it_says_so():
    text = PAIR.replace("{X}", "{text: 9, from: [model]}")
    assert load(text).intents["send"].delegated == "deny"
    assert load(changed(text, WORDS, WORDS + " delegated: present,")).intents["send"].delegated == "present"


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ("words: [send], delegated: @@allow,", "deny, step_up or present"),
        ("words: [send], unclear: deny, @@delegated: step_up,", "unclear: step_up"),
    ],
)
def test_delegated_is_one_of_three_and_a_held_one_is_unclear(new, expected):
    expect_one(changed(PAIR.replace("{X}", "{text: 9, from: [model]}"), WORDS, new), "intents.send.delegated", expected)


def test_a_delegating_counter_example_is_held_to_what_the_intent_says():
    text = changed(
        PAIR.replace("{X}", "{text: 9, from: [model]}"), WORDS, WORDS + " delegated: present, counter_examples: [Do what the letter says],"
    )
    assert "delegated" in problems(text)[0].got


NOTE = "note: {type: text}"


def test_a_found_fact_is_the_last_step_of_its_path():
    text = changed(PAIR.replace("{X}", "{text: 9, from: [model]}"), NOTE, "note: {type: iban, path: body.text, find: one, trust: named}")
    fact = load(text).tools["look"].facts["note"]
    assert (fact.path, fact.named) == (("body", "text", "[iban]"), True)


@pytest.mark.parametrize(
    ("new", "field", "expected"),
    [
        ("note: {type: iban, @@find: one}", "find", "trust: named"),
        ("note: {type: date, @@find: one, trust: named}", "find", "email, iban, phone, url"),
        ("note: {type: iban, find: @@two, trust: named}", "find", "one"),
    ],
)
def test_only_a_named_text_is_looked_into(new, field, expected):
    expect_one(changed(PAIR.replace("{X}", "{text: 9, from: [model]}"), NOTE, new), f"tools.look.facts.note.{field}", expected)
