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
