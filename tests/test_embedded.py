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


@pytest.mark.parametrize("text", ["\u017fa0049 151 1234567", "http\u017f:evil.example/x", "-evil.COM", "-evil.li\u017ft/x"])
def test_odd_letters_and_capitals_are_no_way_around_that_look(text):
    assert list(spans.glued(text, []))
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


@pytest.mark.parametrize(
    "text",
    [
        "00340434161094021501",
        "1Z999AA10123456784 is",
        "JD014600003828392837",
        "JJD014600003828392837",
        "jd01 4600 1038 28392837",
        "RR123456789DE is",
    ],
)
def test_the_number_of_a_parcel_is_no_account_and_no_phone(text):
    assert not list(spans.embedded(f"Your number is {text} and more.", TODAY))


ACCOUNT, PHONE = "DE89370400440532013000", "00491511234567"


@pytest.mark.parametrize("account", [ACCOUNT, ACCOUNT.lower(), "DE89 3704 0044 0532 0130 00", "de89-3704-0044-0532-0130-00"])
@pytest.mark.parametrize(
    "before", ["JD01", "JD014600", "1Z999", "1Z999AA10123456784", "00340434161094021501", "X", "XX", "AA10 1234 ", "JD01 4600 "]
)
@pytest.mark.parametrize("after", ["", "X", "JD01", " 1234", "0034"])
def test_an_account_is_found_in_the_number_of_a_parcel(before, account, after):
    words = [e.words for e in spans.embedded(f"Your number is {before}{account}{after}.", TODAY) if e.type == "iban"]
    assert any(account[:20] in each for each in words)


@pytest.mark.parametrize("before", ["00340434161094021501 ", "JD014600003828392837 ", "00340434161094021501/", "00340434161094021501-", ""])
@pytest.mark.parametrize(
    "phone", [PHONE, "0049 151 1234567", "+491511234567", "0049 (151) 1234567", "00 49 151 1234567", "0049.151.1234567"]
)
def test_a_phone_is_found_behind_the_number_of_a_parcel(before, phone):
    assert any(e.type == "phone" for e in spans.embedded(f"Your number is {before}{phone}.", TODAY))


@given(st.text(alphabet="0123456789", min_size=1, max_size=20))
def test_only_more_digits_than_a_phone_can_have_are_none(digits):
    """Fifteen behind the sign; the sign of a phone, and a space in it, are looked at as before."""
    text = "00" + digits
    kinds = {e.type for e in spans.embedded(f"call {text}", TODAY)}
    assert ("phone" in kinds) == (digits[0] != "0" and 7 <= len(digits) <= 15)
    if digits[0] != "0" and len(digits) >= 7:
        for more in ("+" + digits, f"00 {digits}", f"00{digits[:1]} {digits[1:]}"):
            assert "phone" in {e.type for e in spans.embedded(f"call {more}", TODAY)}


def test_the_one_account_of_a_bill_stands_beside_the_number_of_a_parcel():
    bill = f"Pay to {ACCOUNT}. Parcel JD014600003828392837, 00340434161094021501."
    assert spans.only(bill, "iban", TODAY) == ACCOUNT
    assert spans.only(bill.replace("JD01", "GB01"), "iban", TODAY) is None


def test_the_number_of_a_parcel_is_an_id_and_no_account():
    said = Prompt.of(("Send Ann JD014600003828392837 and 00340434161094021501",), TODAY)
    assert said.words("id", "JD014600003828392837")
    assert said.words("id", "00340434161094021501")
    assert said.words("iban", "JD014600003828392837") is None
    assert said.words("phone", "00340434161094021501") is None
