"""Canonical JSON (RFC 8785) and the digests made of it.

Rules: what was decided on is what runs, so arguments are copied and canonicalised once, and
everything later uses those bytes. Refused: numbers whose canonical form is not the number
(integers beyond 2^53, non-finite), keys that are not text, unpaired surrogates, nesting deeper
than `MAX_DEPTH`, more than `MAX_BYTES`. orjson writes the common case; rfc8785 writes what
orjson orders or formats differently (whole and tiny floats; keys outside ASCII). Vectors: RFC
8785's own test data.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import orjson
import rfc8785

from agentgate.errors import CanonicalError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
_AT_MOST = f"at most {MAX_BYTES} bytes"
_MAX_INT = 2**53 - 1
_MAX_FIELD = 300  # characters of a path in an error; a key may be as long as the value
_MIN_PLAIN = 1e-3
SIMPLE = frozenset({str, int, bool, type(None)})
_SORTED = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)


def _is_plain(value: Any, depth: int) -> bool:
    """True only where orjson's sorted output, which it has given already, is RFC 8785's, if
    keys are ASCII. False proves nothing.

    It has refused keys that are no text (or of a subclass), and integers beyond 2^53.
    """
    kind = type(value)
    if kind is dict:
        value = value.values()
    # both write the shortest decimal; they differ in whole numbers (1.0) and in where exponents
    # begin
    elif kind is float:
        return _MIN_PLAIN <= abs(value) <= _MAX_INT and not value.is_integer()
    elif kind is not list and kind is not tuple:
        return kind in SIMPLE
    if depth >= MAX_DEPTH:
        return False
    if not SIMPLE.issuperset(map(type, value)):
        for item in value:
            if type(item) not in SIMPLE and not _is_plain(item, depth + 1):
                return False
    return True


def _validate(value: Any, field: str, depth: int, counted: Iterator[int]) -> None:
    """Raise CanonicalError for what has no safe form, with its place; `counted` bounds the
    values that are looked at.
    """
    kind = type(value)
    if next(counted) > MAX_BYTES:  # each takes a byte at least
        raise CanonicalError(field, "a value behind as many others", _AT_MOST)
    if kind is int:
        if not -_MAX_INT <= value <= _MAX_INT:
            raise CanonicalError(
                field,
                "a larger integer",
                "an integer within 2^53 (larger ones collide in JSON)",
            )
    elif kind is float:
        if not math.isfinite(value):
            raise CanonicalError(field, "another number", "a finite number")
        if abs(value) > _MAX_INT:
            raise CanonicalError(field, "a larger number", "a number within 2^53")
    elif kind in SIMPLE:
        return
    elif depth >= MAX_DEPTH:
        raise CanonicalError(
            field, f"nesting deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels"
        )
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise CanonicalError(
                    field, f"a key of type {type(key).__name__}", "keys that are text"
                )
            _validate(
                item,
                f"{field}.{key}"[:_MAX_FIELD] if field else key[:_MAX_FIELD],
                depth + 1,
                counted,
            )
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            _validate(item, f"{field}[{index}]"[:_MAX_FIELD], depth + 1, counted)
    else:
        raise CanonicalError(
            field,
            f"a value of type {kind.__name__}",
            "JSON: text, number, boolean, null, list or object",
        )


def _ascii_keys(value: Any) -> bool:
    """True when every key is ASCII; both encoders order such keys alike."""
    if type(value) is dict:
        return all(key.isascii() and _ascii_keys(item) for key, item in value.items())
    return all(map(_ascii_keys, value)) if type(value) is list or type(value) is tuple else True


def canonical(value: Any, field: str = "") -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Args:
        value: dict, list, tuple, str, int, float, bool or None; exact types, no subclasses.
        field: how errors name the value.

    Raises:
        CanonicalError: the value has no safe canonical form.
    """
    try:
        # also the quickest way to find a value too large for the checks below
        out = orjson.dumps(value, option=_SORTED)
        _check_size(out, field)
        plain = _is_plain(value, 0)
        if not plain:
            _validate(value, field, 0, count())
        if not plain or not (out.isascii() or _ascii_keys(value)):
            out = rfc8785.dumps(value)
            _check_size(out, field)
    except (orjson.JSONEncodeError, rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        _validate(value, field, 0, count())
        raise CanonicalError(field, str(error), "JSON with valid Unicode text") from error
    return out


def _check_size(data: bytes, field: str) -> None:
    if len(data) > MAX_BYTES:
        raise CanonicalError(field, f"{len(data)} bytes", _AT_MOST)


def parse(data: bytes) -> Any:
    """The JSON value of canonical bytes, as new objects that no other code holds."""
    return orjson.loads(data)


def strict_parse(data: bytes) -> Any:
    """The JSON value (RFC 8259) of UTF-8 text from outside, in which no object has a key twice,
    at any depth.

    Raises:
        ValueError: anything else.
    """
    try:
        return _STRICT.decode(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(name)  # NaN, Infinity


_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)


def digest(data: bytes) -> str:
    """SHA-256 of bytes, as 64 lower-case hex characters."""
    return hashlib.sha256(data).hexdigest()


def definition_digest(name: str, description: str, input_schema: dict[str, Any]) -> str:
    """``sha256:...`` over a tool's {name, description, input schema}: what `definition` in a
    workflow pins (tool rug pull).
    """
    value = {"name": name, "description": description, "input_schema": input_schema}
    return "sha256:" + digest(canonical(value, "definition"))
