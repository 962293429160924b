"""What needs grounding inside a free text: the quick look that ends early ends only where there is nothing to find."""

from __future__ import annotations

import re
import time
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate import prompt, spans
from agentgate.prompt import Prompt

TODAY = date(2027, 3, 10)
_FOUND = ("a@b.example", "@", "https://evil.example/x", "ftp:/x", ":/", "www.evil.example", "WwW.x", "wWw", "DE89370400440532013000")
_FOUND_TOO = ("de89 3704 0044 0532 0130", "+49 151 12345678", "0049 151 1234567", "00", "7")
_NOT_FOUND = ("it arrived broken", " ", ".", "é", "ſ", "K", "①", "٣", "ｗｗｗ．", "＠", "\n")  # noqa: RUF001 - look-alikes are the point
PIECES = st.sampled_from(_FOUND + _FOUND_TOO + _NOT_FOUND)


@given(st.lists(PIECES | st.text(max_size=4), max_size=8).map("".join))
def test_a_text_without_a_hint_has_nothing_embedded(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_HINT", re.compile(""))
        wanted = list(spans.embedded(text, TODAY))
    assert list(spans.embedded(text, TODAY)) == wanted


@given(st.lists(PIECES | st.text(alphabet=":/\\\\.+0128 -ahtpsw@", max_size=6), max_size=8).map("".join))
def test_what_a_user_may_repeat_is_looked_for_wherever_it_can_be(text):
    if list(spans.glued(text, [])):
        assert prompt._GLUED.search(text)


@pytest.mark.parametrize(
    "text", ["a@b.example", "see x:/y", "WWW.evil.example", "de89 3704 0044 0532 0130 00", "+4915112345678", "0049 151 1234567"]
)
def test_each_kind_is_found(text):
    assert list(spans.embedded(text, TODAY))


@pytest.mark.parametrize(
    "text",
    [
        "see evil.com/x?d=1",
        "see EVIL.com.",
        "eve\uff20evil.example",
        "\uff24\uff25\uff18\uff19370400440532013000",
        "DE89\xa03704\xa00044\xa00532\xa00130\xa000",
        "DE89\u034f3704\u034f0044\u034f0532\u034f0130\u034f00",
        "DE89\n3704\n0044\n0532\n0130\n00",
        "\uff57\uff57\uff57\uff0eevil\uff0eexample",
        "https:\\\\evil.example",
        "https:evil.example",
        '<img src="//evil.example/x.png">',
        "\\\\evil.example\\share",
        "https&#58;//evil.example",
        "https&colon;&sol;&sol;evil.example",
        "eve&#64;evil.example",
        "https\ufe0f://evil.example",
        "www\u3002evil\u3002example",
        "+\uff14\uff19 151 12345678",
        "+49\u2011151\u201112345678",
        "+\u0664\u0669 \u0661\u0665\u0661 \u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668",
    ],
)
def test_what_reads_or_works_like_an_address_is_one(text):
    assert list(spans.embedded(text, TODAY))


@pytest.mark.parametrize(
    "text", ["and/or", "e.g. this", "I agree.Thanks", "ok :/ fine", "AT&T", "either//or", "3.6.2026", "a \u2013 b", "C:dir"]
)
def test_ordinary_text_has_nothing_to_ground(text):
    assert not list(spans.embedded(text, TODAY))


def test_the_user_may_name_a_site_without_a_scheme_and_it_may_be_repeated():
    said = Prompt.of(("Tell Ann that the shop is acme.com, and the map acme.example/map",), TODAY)
    for text in ("It is acme.com.", "see acme.example/map"):
        assert all(said.words(e.type, e.key) for e in spans.embedded(text, TODAY))
    assert not all(said.words(e.type, e.key) for e in spans.embedded("see acme.com/x", TODAY))


@pytest.mark.parametrize("unit", ["a.", "a.b/", "//a", "\\\\", "https:", "&#64;", "\uff20", "aa11\n", "aa11 ", "a-", "\u0661", "&sol;"])
def test_a_longest_text_is_read_in_linear_time(unit):
    """Not a measurement: quadratic work takes many seconds."""
    text = (unit * 65_536)[:65_536]
    start = time.process_time()
    list(spans.embedded(text, TODAY))
    for kind in spans.FINDABLE:
        spans.only(text, kind, TODAY)
    assert time.process_time() - start < 5
