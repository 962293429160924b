"""Durations and weekdays: one table and one parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.values.times import SHORT_WEEKDAYS, WEEKDAYS, clock, duration, seconds


@given(st.integers(0, 366 * 86400))
def test_a_written_duration_reads_back(value):
    assert seconds(duration(value)) == value


@pytest.mark.parametrize(
    ("text", "value"), [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7200), ("366d", 366 * 86400), ("31622400s", 366 * 86400)]
)
def test_a_duration_is_a_number_and_a_unit(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize(
    "value", ["", "15", "m", "-1m", "1.5h", "015m", "00s", "1w", "1M", " 1m", "1m ", "1m\n", "123456789s", "\u0661m", 15, None, True]
)
def test_anything_else_is_no_duration(value):
    assert seconds(value) is None


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0, "0s"), (60, "60s"), (61, "61s"), (120, "2m"), (3600, "1h"), (5400, "90m"), (86400, "1d")]
)
def test_seconds_are_written_in_the_largest_unit_that_divides_them(value, text):
    assert duration(value) == text


def test_weekdays_begin_on_monday_and_times_have_two_digits():
    assert (WEEKDAYS[0], SHORT_WEEKDAYS[0], SHORT_WEEKDAYS[6], clock(9 * 60 + 5)) == ("monday", "Mon", "Sun", "09:05")
