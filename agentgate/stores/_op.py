"""One store operation as a value: script, keys and arguments, and how its reply is read.

Rules: every key is ``ag:{<tenant>}:kind:id``, so that one cluster slot holds all keys of a
tenant; a tenant name, id or digest of the wrong form is refused before anything is sent (braces
in a tenant name would move the slot); every script returns its first key, and a reply that does
not start with that key belongs to another operation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypeVar, get_args

from agentgate.errors import NameRefused, StoreUnavailable
from agentgate.stores.history import checked_history

Arg = str | bytes | int
R = TypeVar("R")

MAX_VALUE = 1024 * 1024  # bytes of one header, turn, head, hold or facts
MAX_SUBJECT = 512  # characters of a user, agent, workflow or limit name
MAX_AMOUNT = 2**53 - 1  # Lua numbers are doubles
MAX_TTL_MS = 366 * 24 * 3600 * 1000


class Op(NamedTuple, Generic[R]):
    """One script call.

    Attributes:
        script: name of the file in ``stores/scripts``.
        read: makes the value of what follows the key in the reply; raises ValueError and the
            like for anything else.
        keys: store keys, all under one tenant's hash tag; the reply repeats the first, or,
            where there is none, the first argument.
        args: the script's arguments.
        confirm: the write must survive a failover: every configured replica must confirm it
            (WAIT), or the call fails.
    """

    script: str
    read: Callable[..., R]
    keys: tuple[str, ...]
    args: tuple[Arg, ...] = ()
    confirm: bool = False

    def parse(self, raw: Any) -> R:
        """What a script's reply says.

        Raises:
            StoreUnavailable: `raw` is not the reply of this operation, has another shape, holds
                an unknown word, or cannot be read.
        """
        first = self.keys[0] if self.keys else str(self.args[0])
        if type(raw) is not list or not raw or raw[0] != first.encode():
            raise StoreUnavailable(
                f"script {self.script}: the store answered something else than this operation's reply"
            )
        try:
            return self.read(*raw[1:])
        except (AttributeError, LookupError, NameRefused, TypeError, ValueError) as error:
            raise StoreUnavailable(
                f"script {self.script}: the reply for {first} is unreadable: {error!r}"
            ) from error


def _text_of(pattern: str, expected: str) -> Callable[[str, str], str]:
    """A check of (field, value): returns a text of this form, and raises NameRefused on
    anything else.
    """
    matches = re.compile(pattern).fullmatch

    def checked(field: str, value: str) -> str:
        if type(value) is not str or matches(value) is None:
            raise NameRefused(field, value, expected)
        return value

    return checked


_checked_tenant = _text_of(r"[A-Za-z0-9._-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
# made by a gate: run, hold, jti, revision
checked_id = _text_of(r"[A-Za-z0-9._-]{1,128}", "1 to 128 of A-Z a-z 0-9 . _ -")
checked_digest = _text_of(r"[0-9a-f]{64}", "64 lower-case hex characters")  # SHA-256
checked_lineage = _text_of(r"[0-9a-f]{40}", "40 lower-case hex characters")


checked_revision = _text_of(r"[A-Za-z0-9._-]{1,4096}", "a revision as the store told it")


@lru_cache(maxsize=4096)
def server_id(audience: str) -> str:
    """How the keys of a tool server name it: the SHA-256 of its audience, 64 hex characters."""
    return sha256(checked_text("audience", audience)).hexdigest()


def history_name(tenant: str, audience: str) -> str:
    """Under which name a history is remembered: a tenant's, or where there is an audience, of
    its redemptions in that tenant.
    """
    return f"{tenant} {server_id(audience)}" if audience else tenant


def burns_key(tenant: str, run: str, audience: str) -> str:
    """The records that a tool server writes of its calls in a run; of a run from before such
    keys (no audience), all of its calls.
    """
    whose = f"burns:{server_id(audience)}" if audience else "calls"
    return f"{prefix(tenant)}{whose}:{checked_id('run', run)}"


@lru_cache(maxsize=4096)
def prefix(tenant: str) -> str:
    """``ag:{tenant}:``, with which every key of a tenant begins; NameRefused if the name does
    not fit.
    """
    return f"ag:{{{_checked_tenant('tenant', tenant)}}}:"


# marks, client assertions; they end with a digest
_OF_NO_TENANT = ("ag:{_approvals}:", "ag:{service-clients}:")


def spread(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The same keys in a cluster, where those of no tenant are not all in one slot: the start
    of their digest is in their hash tag.
    """
    if not keys or not keys[0].startswith(_OF_NO_TENANT):
        return keys
    tag = keys[0].rpartition(":")[2][:2]
    return tuple(key.replace("}", f"-{tag}}}", 1) for key in keys)


def checked_subject(field: str, value: str) -> str:
    """A name from outside (user, agent, limit): any text of 1 to 512 characters, or
    NameRefused.
    """
    if type(value) is not str or not 0 < len(value) <= MAX_SUBJECT:
        raise NameRefused(field, ascii(value), f"text of 1 to {MAX_SUBJECT} characters")
    if not value.isascii():
        checked_text(field, value)
    return value


def checked_text(field: str, value: str) -> bytes:
    """The UTF-8 bytes of a text of at most `MAX_VALUE` bytes, or NameRefused (an unpaired
    surrogate has none).
    """
    try:
        return checked_bytes(field, value.encode())
    except (UnicodeEncodeError, AttributeError) as error:
        raise NameRefused(field, ascii(value), "valid Unicode text") from error


def checked_bytes(field: str, value: bytes) -> bytes:
    """A stored value of at most `MAX_VALUE` bytes, or NameRefused."""
    if type(value) is not bytes or len(value) > MAX_VALUE:
        raise NameRefused(
            field,
            f"{type(value).__name__} of length {len(value)}",
            f"at most {MAX_VALUE} bytes",
        )
    return value


def checked_number(field: str, value: int, low: int, high: int) -> int:
    """An exact integer in [low, high], never a bool, or NameRefused."""
    if type(value) is not int or not low <= value <= high:
        raise NameRefused(field, value, f"an integer from {low} to {high}")
    return value


@cache
def one_of(words: Any) -> Callable[[Any], Any]:
    """Reads a reply that is one word of a Literal type."""
    known: tuple[str, ...] = get_args(words)

    def read(raw: Any) -> str:
        text = _ascii(raw)
        if text not in known:
            raise ValueError(f"got {text[:40]!r}, expected one of {', '.join(sorted(known))}")
        return text

    return read


def history_of(raw: Any) -> str:
    """The history in a reply, or NameRefused."""
    return checked_history(_ascii(raw))


def lineage_of(raw: Any) -> str:
    """The lineage in a reply: 40 hex characters, or NameRefused."""
    return checked_lineage("lineage", _ascii(raw))


def _ascii(raw: Any) -> str:
    return raw.decode("ascii", "replace") if type(raw) is bytes else ""
