"""Durations and weekdays, as files and reports write them. One table and one parser for all
rooms.
"""

from __future__ import annotations

import re
from typing import Any

# 0 is Monday
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SHORT_WEEKDAYS = tuple([day[:3].title() for day in WEEKDAYS])  # as reports write them: Mon
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(0|[1-9][0-9]{0,7})([dhms])", re.ASCII)


def seconds(value: Any) -> int | None:
    """``15m`` as seconds; None when it is no duration."""
    match = _DURATION.fullmatch(value) if type(value) is str else None
    return int(match[1]) * _UNITS[match[2]] if match else None


def duration(value: int | None) -> str:
    """Seconds in the largest unit that divides them (one minute is ``60s``); empty for None."""
    if value is None:
        return ""
    unit, size = next(
        (u, s) for u, s in _UNITS.items() if value % s == 0 and (value > 60 or s == 1)
    )
    return f"{value // size}{unit}"


def clock(minutes: int) -> str:
    """Minutes of the day as ``09:30``."""
    return f"{minutes // 60:02}:{minutes % 60:02}"
