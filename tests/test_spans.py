"""Spans: what is read at once is what would be read one by one, and nothing is read twice as often as it is long."""

from __future__ import annotations

import re
import time
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentgate.language import spans
from agentgate.language.prompt import MAX_TURN, Prompt, Turn
from agentgate.language.spans import embedded, entities, glued, small

TODAY = date(2024, 5, 15)
_WORDS = "the a in one may May march Monday next this last coming today noon the day after ten days week from ago of".split()
_WORDS += (
    "for USD 5 eur usd ALL TRY chf www http us a$ it's Don\u2019t tell: na\u00efve stra\u00dfe \u017funday \u212aids e.g. etc...".split()
)
_NUMBERS = "5 50 500 5000 50.5 1,200 1,2,3 1.5 007 200 300. 400, 600.25 -5 5- 5% 10:30 10 2024-05-26 26.05.2024 1. 2) 5/6".split()
_ENTITIES = "a@b.example ORD-1 DE89370400440532013000 $5 5\u20ac EUR5 +41791234567".split()
_ENTITIES += "#ops @ann x.txt a/b.md acme.example 3rd 10am GB29 NWBK 6016".split()
_BETWEEN = st.sampled_from(
    ["", *" " * 12, ",", ", ", ". ", ".", ": ", ";", "! ", ")", "\n", "\u00a0", "\u202f", "'", "\u2019", "-", "/", "$", "\u20ac", "\u0301"]
)
_PIECES = st.sampled_from([*_WORDS, *_NUMBERS, *_ENTITIES, "EUR", "dollars", "people", "am", "\u00fc", "\u0130"])
TEXTS = st.lists(st.tuples(_PIECES, _BETWEEN).map("".join), max_size=12).map("".join)


def _one_by_one() -> re.Pattern[str]:
    """What reads entities, without the shortcuts."""
    pattern = spans._TOKEN.pattern
    for quick in (spans._PLAIN, spans._NUMBER_ALONE):
        assert pattern.count(f"{quick}|") == 1
        pattern = pattern.replace(f"{quick}|", "")
    return re.compile(pattern)


_ONE_BY_ONE = _one_by_one()


@given(TEXTS | st.text(alphabet="aeiMmnoy 0123,.:;-/@#$\u20ac'\n\u00e9\u017f", max_size=40))
@example("1 200 300 400 EUR and 1 200 300")
@example("USD 100 200 300.5EUR")
@example("5,1 200 300 EUR")
@example("5  hundred, 5 000  hundred")
@example("the 5 of May, TRY 5, in a 5")
@example("ORD::5, a:/5 and http:/5")
@example("5 american dollars, 5 a$ and 5 zloty")
@example("coming Tuesday, last Friday and this Sunday")
@example("augu\u017ft 5, tue\u017fday and na\u00efve\u017f, 5 \u212aronor")
def test_what_is_read_at_once_is_what_would_be_read_one_by_one(text):
    wanted = list(entities(text, TODAY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_TOKEN", _ONE_BY_ONE)
        assert list(entities(text, TODAY)) == wanted


_GLUED = [*"x@y.example,mailto:a@b.co @ann ftp:/x //evil.com www.x https:y evil.com/x +49151123456789 0049 151 1234567".split()]
_GLUED += ["de89 3704 0044 0532 0130 00x", *_ENTITIES, " ", " ", ",", ";", "\n", "<", "'", ".", "@", "/", ":", "\u017f"]
LOOSE = st.lists(st.sampled_from(_GLUED), max_size=10).map("".join)


@example("-.h\u212a")
@given(LOOSE | st.text(alphabet="a1@:/.w ,+0hps-\u212a", max_size=40))
def test_the_next_loose_entity_is_the_first_of_any_kind(text):
    """Each kind searched for by itself finds the same."""
    every = [(kind, re.compile(pattern)) for kind, pattern in spans.LOOSE.items()]
    found, position = [], 0
    while ahead := [
        (match.start(), at, match.end()) for at, (_, kind) in enumerate(every) if (match := kind.search(small(text), position))
    ]:
        start, at, end = min(ahead)
        kind = every[at][0]
        account = spans.account_length(text[start:end]) if kind == "iban" else end - start
        if account:
            found.append((kind, text[start : start + account]))
        position = start + (account or 1)
    assert [(e.type, e.words) for e in glued(text, [])] == found


def test_one_character_more_than_punctuation_is_glued():
    assert [e.words for e in embedded("write a@b.example=", TODAY)] == ["a@b.example", "a@b.example="]
    assert [e.words for e in embedded("write a@b.example>.", TODAY)] == ["a@b.example"]


@given(TEXTS)
def test_entities_come_in_the_order_of_the_text_and_are_its_words(text):
    found = list(entities(text, TODAY))
    assert all(text[e.start :].startswith(e.words) for e in found)
    plain = [e for e in found if e.type != "datetime"]  # a day with its time comes again, from where the first of them begins
    assert all(one.start + len(one.words) <= other.start for one, other in pairwise(plain))


@pytest.mark.parametrize(
    "text", ["ye\u017fterday", "the day before ye\u017fterday", "in \u017fix days", "\u017feven weeks ago", "5\u017ft of May"]
)
def test_a_day_in_an_old_spelling_names_none_and_raises_nothing(text):
    assert not Prompt.of((f"Call Ann {text}, please",), TODAY).holds("date")


@pytest.mark.parametrize(
    "unit", ["000 ", "1 000 ", "1000 000 ", "1.5 200 ", "a ", "A b, ", "\u00e9 ", "10:00 to ", "the 5 ", "a@b ", "ab12 3", "0 0", "//a"]
)
def test_a_longest_text_of_one_repeated_piece_ends(unit):
    """Not a measurement: work that grows with the square of the length takes minutes here."""
    text = (unit * MAX_TURN)[:MAX_TURN]
    start = time.process_time()
    list(embedded(text, TODAY))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("mark", ["\u2018", "\u201c", "\u201e", "'", '"', "`", "\u00ab"])
def test_a_longest_turn_of_opening_quotation_marks_ends(mark):
    start = time.process_time()
    for end in ("", "\u2019", "\u201d", "\u00bb"):
        Turn((mark * MAX_TURN)[: MAX_TURN - len(end)] + end)
    assert time.process_time() - start < 10
