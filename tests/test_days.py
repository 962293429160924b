"""Days and times in words: each way to say one names it, and what two people would read differently names none."""

from __future__ import annotations

import time
from calendar import monthrange
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.language.prompt import MAX_TURN, Prompt
from agentgate.language.spans import entities

TODAY = date(2024, 5, 15)  # a Wednesday
DAYS = st.dates(date(2000, 1, 1), date(2100, 12, 31))
MONTHS = "January February March April May June July August September October November December".split()
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth"
ORDINALS = [*_ORDINALS.split(), *"seventeenth eighteenth nineteenth twentieth".split()]
ORDINALS += [f"twenty-{word}" for word in ORDINALS[:9]] + ["thirtieth", "thirty-first"]
HOURS = "twelve one two three four five six seven eight nine ten eleven".split()


def named(text: str, kind: str, today: date = TODAY) -> list[str]:
    return [str(e.key) for e in entities(text, today) if e.type == kind]


@given(DAYS, st.sampled_from(["-", " "]))
def test_an_ordinal_in_words_is_a_day_of_a_month(day, link):
    month, nth = MONTHS[day.month - 1], ORDINALS[day.day - 1].replace("-", link)
    for text in (f"the {nth} of {month} {day.year}", f"{month} {nth}, {day.year}", f"{month} the {nth}, {day.year}"):
        assert named(f"Please meet me on {text}.", "date") == [day.isoformat()], text
    assert named(f"Pay it on the {nth} of {month}", "date", day) == [day.isoformat()]


@given(DAYS)
def test_a_day_of_this_or_the_next_month_and_the_last_one(today):
    year, following = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    for words, wanted in (
        ("the first of this month", today.replace(day=1)),
        ("the 2nd of this month", today.replace(day=2)),
        ("the third of next month", date(year, following, 3)),
        ("by the end of the month", today.replace(day=monthrange(today.year, today.month)[1])),
        ("until the end of this month", today.replace(day=monthrange(today.year, today.month)[1])),
        ("end of next month", date(year, following, monthrange(year, following)[1])),
        ("until the end of the year", date(today.year, 12, 31)),
        ("at the end of next year", date(today.year + 1, 12, 31)),
    ):
        assert named(f"Pay Ann {words}, please", "date", today) == [wanted.isoformat()], words


@pytest.mark.parametrize(
    "text",
    [
        "the 24th",
        "on the fifth",
        "the first of the month",
        "the end of the week",
        "the end of last month",
        "at the end of the day",
        "I may first ask",
        "she may second that",
        "march first, then pay",
        "the second may be wrong",
        "a third of May",
        "one fifth of March",
        "the thirty-first of June",
        "the thirtieth of February",
        "the twenty-tenth of May",
        "the thirty-second of May",
        "the \u017fecond of May",
        "the f\u0131fth of May",
        "the fifth of Maybe",
        "the 31st of next month",
    ],
)
def test_a_day_of_two_readings_or_of_no_calendar_names_none(text):
    assert named(f"Pay it {text} ...", "date") == []


def test_a_day_after_the_last_year_names_none():
    assert named("by the end of next month", "date", date(9999, 12, 15)) == []
    assert named("on the first of next month", "date", date(9999, 12, 15)) == []
    assert named("on the first of last month", "date", date(1, 1, 15)) == []


@given(st.integers(1, 12), st.sampled_from(["am", "pm", " a.m.", " p.m."]), st.booleans())
def test_an_hour_in_words_with_its_half_of_the_day(hour, half, worded):
    said = HOURS[hour % 12] if worded else str(hour)
    if worded and not half.startswith(" "):
        half = " " + half
    wanted = f"{hour % 12 + (12 if 'p' in half else 0):02}:00"
    for words in (said, f"{said} o'clock"):
        assert named(f"Come at {words}{half if 'clock' not in words else ' ' + half.strip()} on Friday", "time") == [wanted], words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("at 2 in the afternoon", "14:00"),
        ("at two in the afternoon", "14:00"),
        ("at twelve in the afternoon", "12:00"),
        ("at 2:30 in the afternoon", "14:30"),
        ("at 14:30 in the afternoon", "14:30"),
        ("nine o'clock in the evening", "21:00"),
        ("nine o\u2019clock in the morning", "09:00"),
        ("at 11 at night", "23:00"),
        ("at 2 at night", "02:00"),
        ("at noon", "12:00"),
        ("at 16 o'clock", "16:00"),  # an hour over twelve says it itself
    ],
)
def test_a_time_that_says_which_half_of_the_day_it_is_in(text, wanted):
    assert named(f"Come {text}.", "time") == [wanted]
    assert named(f"Come tomorrow {text}.", "datetime") == [f"2024-05-16T{wanted}:00"]


@pytest.mark.parametrize(
    "text",
    [
        "at half past two",
        "half past twelve",
        "at two o'clock",
        "at 2 o'clock",
        "a quarter to nine",
        "ten past nine",
        "nine thirty",
        "at seven",
        "take two in the morning",
        "take 2 in the morning",
        "ten to two in the afternoon",
        "10 to 2 in the afternoon",
        "half to nine in the morning",
        "half nine in the morning",
        "half nine pm",
        "half past nine in the morning",
        "half past 9 in the morning",
        "at half past twelve in the afternoon",
        "quarter to nine in the evening",
        "a quarter to one in the afternoon",
        "ten minutes past nine in the morning",
        "twenty-five past nine in the morning",
        "10 past 9 in the morning",
        "two thirty pm",
        "nine forty-five in the morning",
        "half 9 pm",
        "a quarter to twelve pm",
        "a quarter to twelve in the morning",
        "at twelve in the morning",
        "at twelve in the evening",
        "at 9 in the afternoon",
        "at 2 in the evening",
        "at 6 at night",
        "at 14:30 in the morning",
        "at thirteen in the afternoon",
        "75 past 9 in the morning",
        "half past nine in the mornings",
        "half past \u017fix in the morning",
    ],
)
def test_a_time_of_two_readings_names_none(text):
    assert named(f"Come {text}, please", "time") == []
    assert named(f"Come next Tuesday {text}, please", "datetime") == []


@pytest.mark.parametrize(
    "text",
    [
        "half past two",
        "half past two pm",
        "half nine",
        "two thirty",
        "two o'clock",
        "ten to two in the afternoon",
        "nine o'clock in the evening",
    ],
)
def test_the_words_of_a_time_are_no_numbers(text):
    assert not Prompt.of((f"Come at {text}",), TODAY).holds("integer")


@pytest.mark.parametrize(
    "unit", ["half past ", "twenty-first of ", "end of the ", "May ", "may first ", "2 in the ", "at 2 in the morning ", "ten to "]
)
def test_a_longest_turn_of_days_and_times_ends(unit):
    """Not a measurement: quadratic work on a longest turn takes minutes."""
    start = time.process_time()
    Prompt.of(((unit * MAX_TURN)[:MAX_TURN],), TODAY)
    assert time.process_time() - start < 10


@given(DAYS, st.integers(1, 12), st.sampled_from([str, str.lower, str.upper]))
def test_the_end_of_a_month_is_its_last_day_the_next_one_from_today_on(today, month, case):
    wanted = next(day for day in (date(year, month, monthrange(year, month)[1]) for year in (today.year, today.year + 1)) if day >= today)
    name = case(MONTHS[month - 1])
    for words in (f"by the end of {name}", f"end of {name}", f"at the end of {name[:3]}"):
        assert named(f"Pay Ann {words}, please", "date", today) == [wanted.isoformat()], words
        assert named(f"Pay Ann {words}.", "date", today) == [wanted.isoformat()], words


@given(DAYS, DAYS)
def test_the_end_of_a_month_of_a_year(day, today):
    wanted = day.replace(day=monthrange(day.year, day.month)[1]).isoformat()
    for words in (f"the end of {MONTHS[day.month - 1]} {day.year}", f"the end of {MONTHS[day.month - 1]}, {day.year}"):
        assert named(f"Pay it by {words}", "date", today) == [wanted]


@pytest.mark.parametrize(
    "text",
    [
        "the beginning of April",
        "the start of April",
        "mid-April",
        "the middle of April",
        "early April",
        "the tail end of April",
        "the back end of April",
        "the weekend of April",
        "the endof April",
        "the end of this April",
        "the end of Aprils",
        "the end of April-June",
        "the end of April/June",
        "the ends of April",
        "the end of April 0000",
        "not the end of April",
        "the end of marching",
    ],
)
def test_another_part_of_a_month_names_none(text):
    assert not Prompt.of((f"Pay it by {text}" if text[:3] != "not" else text,), TODAY).holds("date")


def test_the_end_of_a_day_of_a_month_is_that_day():
    assert named("the end of May 20", "date") == ["2024-05-20"]
    assert named("the end of May 20th, 2026", "date") == ["2026-05-20"]
    assert named("the end of May the 20th", "date") == ["2024-05-20"]
    assert named("by the end of May 2026, 5 of them", "date") == ["2026-05-31"]
    assert named("by the end of May", "date", date(9999, 12, 15)) == []
    assert named("the end of May at 10:00", "datetime") == ["2024-05-31T10:00:00"]
