"""Trust files and statements as strict models: from YAML that all readers agree on, or from canonical JSON and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from agentgate.approvals.refusal import ApprovalRefusal, refuse
from agentgate.errors import CanonicalError, WorkflowError
from agentgate.loading.yaml_nodes import dotted, read_yaml, shown
from agentgate.values.canonical import canonical

M = TypeVar("M", bound="Shape")

_PERSON = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(?:@[A-Za-z0-9][A-Za-z0-9.-]{0,63})?", re.ASCII)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_RESERVED = frozenset({"definition"})  # the file beside the signatures


class Shape(BaseModel):
    """A mapping. Strict: no coercion; unknown keys are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _whole(pattern: re.Pattern[str], expected: str, refused: frozenset[str] = frozenset()) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value) or value in refused:
            raise ValueError(expected)
        return value

    return AfterValidator(check)


def _moment(value: str) -> str:
    seconds(value)
    return value


def _day(value: str) -> str:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII) is None:
        raise ValueError('a date in quotes, such as "2031-12-31"')
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError('a day that exists, such as "2031-12-31"') from None
    return value


Person = Annotated[str, _whole(_PERSON, "a name such as alice@acme.example (letters, digits, . _ + -)", _RESERVED)]
Fingerprint = Annotated[str, _whole(_FINGERPRINT, "SHA256:... as ssh-keygen -l prints it")]
Digest = Annotated[str, _whole(_DIGEST, "sha256: and 64 lower-case hex characters")]
Team = Annotated[str, _whole(_TEAM, "a team name of letters, digits, '.', '_' or '-'")]
Day = Annotated[str, AfterValidator(_day)]
Moment = Annotated[str, AfterValidator(_moment)]


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
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_yaml(model: type[M], text: str, file: str, name: ApprovalRefusal) -> M:
    """A trust file in YAML.

    Raises:
        ApprovalRefused: under `name`, with the place of the first thing that is wrong.
    """
    try:
        document = read_yaml(text, file)
        document.refuse()
    except WorkflowError as error:
        problem = error.problems[0]
        raise refuse(name, f"{file}:{problem.line}", problem.field, problem.got, problem.expected) from None
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        field, path, got, expected = _first(error)
        raise refuse(name, f"{file}:{document.line(path)}", field, got, expected) from None


def from_json(model: type[M], data: bytes, file: str, name: ApprovalRefusal, *, large: bool = False) -> M:
    """A document in canonical JSON: the bytes are exactly what RFC 8785 makes of its value, so there is one reading of them.

    Args:
        model: its shape.
        data: the file's bytes.
        file: how messages name it.
        name: the refusal.
        large: ASCII without fractions, of any size (the index); else as `agentgate.values.canonical`.

    Raises:
        ApprovalRefused: under `name`.
    """
    value = json_value(data, file, name, form=ascii_json if large else canonical)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        field, _, got, expected = _first(error)
        raise refuse(name, file, field, got, expected) from None


def ascii_json(value: Any) -> bytes:
    """RFC 8785 for what is ASCII and has no fractions; other values come out as something else, which no signer writes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def json_value(data: bytes, file: str, name: ApprovalRefusal, form: Callable[[Any], bytes] = canonical) -> Any:
    """The value of canonical JSON; anything else is refused under `name`."""
    try:
        value = orjson.loads(data)
        same = form(value) == data and (form is canonical or data.isascii())
    except (orjson.JSONDecodeError, CanonicalError, RecursionError) as error:
        raise refuse(name, file, "document", str(error), "RFC 8785 JSON") from None
    if not same:
        raise refuse(name, file, "document", "JSON in another form", "RFC 8785 JSON (the one form that is signed)")
    return value


def _first(error: ValidationError) -> tuple[str, tuple[str | int, ...], str, str]:
    found = error.errors(include_url=False)[0]
    path = tuple(part for part in found["loc"] if part != "[key]")
    if found["type"] == "missing":
        return dotted(path), path, "nothing", f"{path[-1]}: (required)"
    if found["type"] == "extra_forbidden":
        return dotted(path), path, "an unknown key", "a key of this format"
    return dotted(path), path, shown(found["input"]), found["msg"].removeprefix("Value error, ")
