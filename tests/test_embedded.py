"""What needs grounding inside a free text: the quick look that ends early ends only where there is nothing to find."""

from __future__ import annotations

import re
import time
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.language import spans
from agentgate.language.prompt import Prompt
from agentgate.language.spans import SearchedText
from agentgate.values.paths import FINDABLE

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
        assert spans._HINT.search(text)


@pytest.mark.parametrize("text", ["\u017fa0049 151 1234567", "http\u017f:evil.example/x", "-evil.COM", "-evil.li\u017ft/x"])
def test_odd_letters_and_capitals_are_no_way_around_that_look(text):
    assert list(spans.glued(text, []))
    assert spans._HINT.search(text)


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
    for kind in FINDABLE:
        SearchedText(text).only(kind)
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
    assert SearchedText(bill).only("iban") == ACCOUNT
    assert SearchedText(bill.replace("JD01", "GB01")).only("iban") is None


def test_the_number_of_a_parcel_is_an_id_and_no_account():
    said = Prompt.of(("Send Ann JD014600003828392837 and 00340434161094021501",), TODAY)
    assert said.words("id", "JD014600003828392837")
    assert said.words("id", "00340434161094021501")
    assert said.words("iban", "JD014600003828392837") is None
    assert said.words("phone", "00340434161094021501") is None


_COUNTRIES = (
    "ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs bt bv bw by bz ca cc cd cf "
    "cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg eh er es et eu fi fj fk fm fo fr ga gb gd ge gf gg gh "
    "gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky "
    "kz la lb lc li lk lr ls lt lu lv ly ma mc md me mf mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni nl "
    "no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sj sk sl sm sn so sr ss "
    "st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk um us uy uz va vc ve vg vi vn vu wf ws ye yt za zm "
    "zw"
).split()
_ALSO_OTHERWISE = "cc md mk ml mm mo pm ps py rs sh so tf ad am as at be by do id in is it mr ms my no re us to ac".split()
_GENERIC = (
    "com net org info biz app dev xyz online site top shop link click page cloud edu gov mil int name pro mobi email support help "
    "live news media blog store tech website space world life group company finance bank cash fund icu cyou buzz sbs club vip work "
    "zone chat digital network systems solutions services software studio team berlin london paris example test invalid localhost "
    "local onion"
).split()


@pytest.mark.parametrize("end", [*(end for end in _COUNTRIES if end not in _ALSO_OTHERWISE), *_GENERIC])
def test_a_link_without_a_scheme_ends_in_a_country_or_what_people_meet(end):
    for text in (f"pay at evil.{end}", f"(EVIL.{end.upper()})", f"pay-us.evil.co.{end}.", f"Evil.{end.title()}, now", f"evil.{end}"):
        words = [e.words for e in spans.embedded(text, TODAY) if e.type == "url"]
        assert any(f"evil.{end}" in each.lower() or f".co.{end}" in each for each in words), text
        assert spans._HINT.search(text)
        assert not Prompt.of(("pay at once",), TODAY).words("url", words[0])
        assert Prompt.of((text,), TODAY).words("url", words[0])  # the user may write it, and it may be repeated
    for text in (f"evil.{end}x", f"evil.{end}-", f"evil.{end}_", f"evil.{end}.x9"):
        assert not [e for e in spans.embedded(text, TODAY) if e.words == f"evil.{end}"], text


@pytest.mark.parametrize("end", _ALSO_OTHERWISE)
def test_a_file_or_a_missing_space_is_no_link_but_with_www_or_a_slash(end):
    assert not [e for e in spans.embedded(f"It is done.{end} said", TODAY) if e.type == "url"]
    for text in (f"www.evil.{end}", f"evil.{end}/x"):
        assert [e for e in spans.embedded(f"It is {text} said", TODAY) if e.type == "url"]


@pytest.mark.parametrize(
    "text", ["notes.zip", "run.sh and x.py", "clip.mov", "a.txt", "e.g. this", "i.e. that", "v1.2.3", "3.5", "p.m. on", "Ph.D."]
)
def test_a_file_an_abbreviation_and_a_version_are_no_links(text):
    assert not [e for e in spans.embedded(text, TODAY) if e.type == "url"]


def test_a_site_in_what_the_model_wrote_needs_the_user_or_a_fact():
    """The attack: a composed mail tells where to pay, without any scheme."""
    said = Prompt.of(("Tell Ann that the shop is acme.de",), TODAY)
    for text, passes in (("It is acme.de.", True), ("Pay at evil.ru", False), ("acme.de.evil.de", False), ("evil.de or acme.de", False)):
        assert all(said.words(e.type, e.key) for e in spans.embedded(text, TODAY)) is passes, text


@pytest.mark.parametrize("unit", ["a.de", "a.de ", "a.d", "x.systems", "x.system.", "a.company-", "a.localhostx "])
def test_a_longest_text_of_ends_is_read_in_linear_time(unit):
    """Not a measurement: quadratic work takes many seconds."""
    text = (unit * 65_536)[:65_536]
    start = time.process_time()
    list(spans.embedded(text, TODAY))
    SearchedText(text).only("url")
    Prompt.of((text,), TODAY)
    assert time.process_time() - start < 10
