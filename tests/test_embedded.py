"""What needs grounding inside a free text: the quick look that ends early ends only where there is nothing to find."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate import spans

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


@pytest.mark.parametrize(
    "text", ["a@b.example", "see x:/y", "WWW.evil.example", "de89 3704 0044 0532 0130 00", "+4915112345678", "0049 151 1234567"]
)
def test_each_kind_is_found(text):
    assert list(spans.embedded(text, TODAY))
