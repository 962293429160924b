"""Trust files and statements as strict models: from YAML that all parsers agree on, or from
canonical JSON and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agentgate.approvals.refusal import ApprovalRefusal, refuse
from agentgate.errors import CanonicalError, WorkflowError, place_of
from agentgate.loading.value_types import ToolDigest, check_form
from agentgate.loading.yaml_nodes import dotted, read_yaml, shown
from agentgate.values.canonical import canonical

M = TypeVar("M", bound="Shape")
V = TypeVar("V")

PERSON = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(?:@[A-Za-z0-9][A-Za-z0-9.-]{0,63})?", re.ASCII
)


# no coercion; unknown keys are errors
STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class Shape(BaseModel):
    """A mapping, strictly read."""

    model_config = STRICT


def _existing_day(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError('a day that exists, such as "2031-12-31"') from None
    return value


def _moment(value: str) -> str:
    seconds(value)
    return value


_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
# not "definition": that is the file beside the signatures
Person = Annotated[
    str,
    check_form(
        rf"(?!definition\Z){PERSON.pattern}",
        "a name such as alice@acme.example (letters, digits, . _ + -)",
    ),
]
Digest = ToolDigest
Fingerprint = Annotated[
    str, check_form(r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:... as ssh-keygen -l prints it")
]
Tenant = Annotated[
    str,
    check_form(r"[A-Za-z0-9._-]{1,64}", "an exact tenant name, 1 to 64 of A-Z a-z 0-9 . _ -"),
]
Team = Annotated[
    str,
    check_form(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a team name of letters, digits, '.', '_' or '-'"
    ),
]
Day = Annotated[
    str,
    check_form(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", 'a date in quotes, such as "2031-12-31"'),
    AfterValidator(_existing_day),
]
Moment = Annotated[str, AfterValidator(_moment)]
Id = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
VersionNumber = Annotated[int, Field(ge=1, le=10**9)]
Risk = Literal["low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high")


def end_of(day: str) -> float:
    """POSIX seconds at the end of a day, UTC."""
    return datetime.fromisoformat(f"{day}T23:59:59+00:00").timestamp() + 1


def seconds(moment: str) -> float:
    """POSIX seconds of ``2031-12-31T00:00:00Z``. Raises ValueError."""
    if _MOMENT.fullmatch(moment) is None:
        raise ValueError("a time such as 2031-12-31T00:00:00Z")
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        raise ValueError("a time that exists, such as 2031-12-31T00:00:00Z") from None


def moment(when: float) -> str:
    """The text of POSIX seconds, as statements and the index write times."""
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ}"


def from_yaml(model: type[M], text: str, file: str, name: ApprovalRefusal) -> M:
    """A trust file in YAML. Raises ApprovalRefused: under `name`, with the place of the first
    problem.
    """
    try:
        document = read_yaml(text, file)
        document.refuse()
    except WorkflowError as error:
        problem = error.problems[0]
        raise refuse(
            name, f"{file}:{place_of(problem)[0]}", problem.field, problem.got, problem.expected
        ) from None
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        path, got, expected = _first(error)
        raise refuse(
            name, f"{file}:{document.line(path)}", dotted(path), got, expected
        ) from None


def from_json(
    model: TypeAdapter[V],
    data: bytes,
    file: str,
    name: ApprovalRefusal,
    form: Callable[[Any], bytes] = canonical,
) -> V:
    """A document in canonical JSON: exactly the bytes that `form` makes of its value, so there
    is one reading of them.

    `form` is `canonical`, or `ascii_json` for a document of any size. Raises ApprovalRefused:
    under `name`.
    """
    json_value(data, file, name, form)
    try:
        return model.validate_json(data)
    except ValidationError as error:
        path, got, expected = _first(error)
        raise refuse(name, file, dotted(path), got, expected) from None


def ascii_json(value: Any) -> bytes:
    """RFC 8785 for ASCII values without fractions; other values come out as something else,
    which no signer writes.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def json_value(
    data: bytes, file: str, name: ApprovalRefusal, form: Callable[[Any], bytes] = canonical
) -> Any:
    """The value of canonical JSON; anything else is refused under `name`."""
    try:
        value = orjson.loads(data)
        same = form(value) == data and (form is canonical or data.isascii())
    except (orjson.JSONDecodeError, CanonicalError, RecursionError) as error:
        raise refuse(name, file, "document", str(error), "RFC 8785 JSON") from None
    if not same:
        raise refuse(
            name,
            file,
            "document",
            "JSON in another form",
            "RFC 8785 JSON (the one form that is signed)",
        )
    return value


def _first(error: ValidationError) -> tuple[tuple[str | int, ...], str, str]:
    first = error.errors(include_url=False)[0]
    path = tuple(part for part in first["loc"] if part != "[key]")
    if first["type"] == "missing":
        return path, "nothing", f"{path[-1]}: (required)"
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return path, "an unknown key", "a key of this format"
    return path, shown(first["input"]), first["msg"].removeprefix("Value error, ")
