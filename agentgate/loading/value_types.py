"""The types of the single values of a workflow file, each with what a message says where one
cannot be read.

All text is read here: durations, dates, times of day, decimals, and the exact forms of names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import AfterValidator, PlainValidator, StringConstraints
from pydantic_core import PydanticCustomError

from agentgate.loading.yaml_nodes import did_you_mean
from agentgate.values.entities import TYPES, number
from agentgate.values.request import FORM, is_name
from agentgate.values.times import SHORT_WEEKDAYS, seconds

MAX_DURATION = 366 * 86400  # seconds
DAYS = [day.lower() for day in SHORT_WEEKDAYS]  # as a file writes them
_NAME = "[A-Za-z_][A-Za-z0-9_-]{0,63}"
# of an argument: JSON Schemas have "$filter", "@type" and "2fa"
_STEP = "[A-Za-z0-9_$@][A-Za-z0-9_$@:/-]{0,63}"
_PORT_AND_PATH = r"(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%/-]*)?"


def wrong(expected: str, hint: str = "") -> PydanticCustomError:
    """The error of a value that cannot be read as its type."""
    return PydanticCustomError("form", "{expected}", {"expected": expected, "hint": hint})


def check_form(pattern: str, expected: str) -> AfterValidator:
    """Text that is of this form as a whole."""
    whole = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not whole.fullmatch(value):
            raise wrong(expected)
        return value

    return AfterValidator(check)


def read_as(parse: Callable[[Any], Any], expected: str) -> PlainValidator:
    """A value that `parse` understands; it answers None for one that it does not."""

    def read(value: Any) -> Any:
        parsed = parse(value)
        if parsed is None:
            raise wrong(expected)
        return parsed

    return PlainValidator(read)


def _distinct(values: list[Any]) -> list[Any]:
    if len({(type(v), v) for v in values}) != len(values):
        repeated = next(v for i, v in enumerate(values) if v in values[:i])
        raise wrong(f"each element once ({repeated!r} is repeated)")
    return values


def _duration(value: Any) -> int | None:
    length = seconds(value)
    return length if length is not None and 0 < length <= MAX_DURATION else None


def _minutes(value: Any) -> int | None:
    clock = type(value) is str and re.fullmatch(
        r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00", value, re.ASCII
    )
    return int(value[:2]) * 60 + int(value[3:]) if clock else None


def _day(value: Any) -> date | None:
    try:
        shape = type(value) is str and re.fullmatch(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII
        )
        return date.fromisoformat(value) if shape else None
    except ValueError:
        return None


def _weekday(value: Any) -> Any:
    if type(value) is not str or value not in DAYS:
        raise wrong(f"{', '.join(DAYS[:-1])} or {DAYS[-1]}", did_you_mean(value, DAYS))
    return value


def _scalar(value: Any) -> str | int | bool | None:
    return value if type(value) in {str, int, bool} and value != "" else None


def _type(value: str) -> str:
    if value not in TYPES:
        raise wrong(f"one of {', '.join(sorted(TYPES))}", did_you_mean(value, TYPES))
    return value


def _group(value: str) -> str:
    if not is_name(value):
        raise wrong(f"the name of a group: {FORM}")
    return value


def word_or_list(*words: str) -> Callable[[Any], Any]:
    """One of these words alone, read as a list of it, or a list."""

    def read(value: Any) -> Any:
        if type(value) is str and value not in words:
            raise wrong(" or ".join((*words, "a list in brackets")))
        return [value] if type(value) is str else value

    return read


Distinct = AfterValidator(_distinct)
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Texts = Annotated[list[Text], Len(1, 200), Distinct]
Group = Annotated[Text, AfterValidator(_group)]
Groups = Annotated[list[Group], Len(1, 200), Distinct]
References = Annotated[list[Text], Len(1, 50), Distinct]
Label = Annotated[
    str,
    check_form(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "1 to 128 ASCII letters, digits, '.', '_' or '-'"
    ),
]
Acr = Annotated[
    str,
    check_form(
        r"[!#-\[\]-~]{1,255}", "1 to 255 visible ASCII characters without '\"', '\\' and spaces"
    ),
]
Labels = Annotated[list[Label], Len(1, 200), Distinct]
ToolName = Annotated[
    str,
    check_form(
        r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}",
        "a tool name of ASCII letters, digits, '_', '.', ':', '/' or '-'",
    ),
]
Name = Annotated[str, check_form(_NAME, "a name of ASCII letters, digits, '_' or '-'")]
ArgumentName = Annotated[
    str,
    check_form(
        rf"{_STEP}(?:(?:\[\])?(?:\.{_STEP}(?:\[\])?){{1,8}})?",
        "a name of ASCII letters, digits, '_', '-', '$', '@', ':' or '/', or a path of such "
        "names: attachments[].file_id",
    ),
]
Tenant = Annotated[
    str,
    check_form(
        r"[A-Za-z0-9._-]{1,64}",
        "an exact tenant name, 1 to 64 of A-Z a-z 0-9 . _ - (no wildcards)",
    ),
]
Spiffe = Annotated[
    str,
    check_form(
        r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+",
        "an exact spiffe://trust-domain/path (no wildcards)",
    ),
]
Https = Annotated[
    str,
    check_form(
        rf"(?:https://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|http://(?:127\.0\.0\.1|localhost)){_PORT_AND_PATH}",
        "an https:// URL without query or fragment (http:// only for 127.0.0.1)",
    ),
]
Scope = Annotated[
    str,
    check_form(
        r"[\x21\x23-\x29\x2b-\x5b\x5d-\x7e]{1,128}",
        "one exact scope without spaces or '*' (RFC 6749 section 3.3)",
    ),
]
Scopes = Annotated[list[Scope], Len(1, 50), Distinct]
ToolDigest = Annotated[
    str, check_form(r"sha256:[0-9a-f]{64}", "sha256: and 64 lower-case hex characters")
]
Type = Annotated[str, AfterValidator(_type)]
Noun = Annotated[
    str,
    check_form(
        r"[a-z][a-z-]{1,30}(?: [a-z][a-z-]{1,30}){0,2}",
        "a noun in the singular, in lower case: file, calendar event",
    ),
]
# to a Literal, 1 and true are the same
Yes = Annotated[
    Literal[True], read_as(lambda v: True if v is True else None, "true, or leave it out")
]
Once = Annotated[Literal[1], read_as(lambda v: 1 if type(v) is int and v == 1 else None, "1")]
Duration = Annotated[
    int,
    read_as(
        _duration, "a duration: a whole number and s, m, h or d, such as 15m, at most 366d"
    ),
]
Minutes = Annotated[int, read_as(_minutes, 'a time of day in quotes, "00:00" to "24:00"')]
Weekday = Annotated[str, PlainValidator(_weekday)]
Day = Annotated[date, read_as(_day, 'a date in quotes, such as "2031-12-31"')]
Number = Annotated[
    Decimal,
    read_as(
        lambda v: number(v) if type(v) in {str, int} else None,
        'a number of at most 15 digits, written as text: "500.00"',
    ),
]
Scalar = Annotated[str | int | bool, read_as(_scalar, "text, a whole number, true or false")]
Scalars = Annotated[list[Scalar], Len(1, 1000), Distinct]
