"""One store operation as a value: which script, which keys, which arguments; and the check of what came back.

Rules: keys are ``ag:{<tenant>}:kind:id``, so everything of one tenant lies in one slot; a tenant name, an id or a digest that
does not fit its form is refused before anything is sent (braces in a tenant name would move the slot); every script answers
with its first key, and a reply that does not start with that key is not this operation's reply.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from agentgate.errors import NameRefused, StoreUnavailable

Arg = str | bytes | int

MAX_VALUE = 1024 * 1024  # bytes of one header, turn, head, hold or facts
MAX_SUBJECT = 512  # characters of a user, agent, workflow or limit name
MAX_AMOUNT = 2**53 - 1  # Lua numbers are doubles
MAX_TTL_MS = 366 * 24 * 3600 * 1000

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch
_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch
_LINEAGE = re.compile(r"[0-9a-f]{40}").fullmatch


class Op(NamedTuple):
    """One script call.

    Attributes:
        script: name of the file in ``stores/scripts``.
        keys: store keys, all under one tenant's hash tag; the first comes back in the reply.
        args: the script's arguments.
        confirm: the write must survive a failover: with replicas configured, all of them must confirm it (WAIT) or the call fails.
    """

    script: str
    keys: tuple[str, ...]
    args: tuple[Arg, ...] = ()
    confirm: bool = False


@lru_cache(maxsize=4096)
def prefix(tenant: str) -> str:
    """``ag:{tenant}:``, the part all keys of a tenant share.

    Raises:
        NameRefused: not 1 to 64 of ``A-Z a-z 0-9 . _ -``.
    """
    if type(tenant) is not str or _TENANT(tenant) is None:
        raise NameRefused("tenant", tenant, "1 to 64 of A-Z a-z 0-9 . _ -")
    return f"ag:{{{tenant}}}:"


def checked_id(field: str, value: str) -> str:
    """An id made by a gate (run, hold, jti): 1 to 128 of ``A-Z a-z 0-9 . _ -``, or NameRefused."""
    if type(value) is not str or _ID(value) is None:
        raise NameRefused(field, value, "1 to 128 of A-Z a-z 0-9 . _ -")
    return value


def checked_digest(field: str, value: str) -> str:
    """A SHA-256 in lower-case hex, or NameRefused."""
    if type(value) is not str or _DIGEST(value) is None:
        raise NameRefused(field, value, "64 lower-case hex characters")
    return value


def checked_lineage(field: str, value: str) -> str:
    """A lineage (40 lower-case hex), or NameRefused."""
    if type(value) is not str or _LINEAGE(value) is None:
        raise NameRefused(field, value, "40 lower-case hex characters")
    return value


def checked_subject(field: str, value: str) -> str:
    """A name from outside (user, agent, limit): any text of 1 to 512 characters, or NameRefused."""
    if type(value) is not str or not 0 < len(value) <= MAX_SUBJECT:
        raise NameRefused(field, ascii(value), f"text of 1 to {MAX_SUBJECT} characters")
    if not value.isascii():
        checked_text(field, value)
    return value


def checked_text(field: str, value: str) -> bytes:
    """The UTF-8 bytes of a text of at most `MAX_VALUE` bytes, or NameRefused (a lone surrogate has none)."""
    try:
        return checked_bytes(field, value.encode())
    except (UnicodeEncodeError, AttributeError) as error:
        raise NameRefused(field, ascii(value), "valid Unicode text") from error


def checked_bytes(field: str, value: bytes) -> bytes:
    """A stored value of at most `MAX_VALUE` bytes, or NameRefused."""
    if type(value) is not bytes or len(value) > MAX_VALUE:
        raise NameRefused(field, f"{type(value).__name__} of length {len(value)}", f"at most {MAX_VALUE} bytes")
    return value


def checked_number(field: str, value: int, low: int, high: int) -> int:
    """An exact integer in [low, high] (a bool is none), or NameRefused."""
    if type(value) is not int or not low <= value <= high:
        raise NameRefused(field, value, f"an integer from {low} to {high}")
    return value


def reply(op: Op, raw: Any, length: int) -> list[Any]:
    """What follows the echoed key in a script's reply.

    Args:
        op: the operation that was sent.
        raw: what the store returned.
        length: how many elements must follow the key.

    Raises:
        StoreUnavailable: the reply is not this operation's, or has another shape.
    """
    if type(raw) is not list or len(raw) != length + 1 or raw[0] != op.keys[0].encode():
        raise StoreUnavailable(f"script {op.script}: the store answered something else than this operation's reply")
    return raw[1:]


def word(op: Op, raw: Any, known: frozenset[str]) -> str:
    """A reply's kind, one of `known`; any other is StoreUnavailable (unknown is refusal)."""
    text = raw.decode("ascii", "replace") if type(raw) is bytes else ""
    if text not in known:
        raise StoreUnavailable(f"script {op.script}: got reply {text[:40]!r}, expected one of {', '.join(sorted(known))}")
    return text


def lineage_of(op: Op, raw: Any) -> str:
    """The lineage in a reply: 40 hex characters, or StoreUnavailable."""
    text = raw.decode("ascii", "replace") if type(raw) is bytes else ""
    if _LINEAGE(text) is None:
        raise StoreUnavailable(f"script {op.script}: got lineage {text[:60]!r}, expected 40 hex characters")
    return text
