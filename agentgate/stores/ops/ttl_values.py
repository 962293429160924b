"""What a service keeps for a while beside runs and holds: an assertion that counts once, a held
exchange, a redeemed call to report on.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args

from agentgate.errors import NameRefused
from agentgate.stores._op import MAX_TTL_MS, Op, checked_bytes, checked_number, one_of, prefix

Keeping = Literal["assertion", "deferred", "redeemed"]
Kept = Literal["ok", "exists"]
_KINDS = get_args(Keeping)
_kept = one_of(Kept)


def _key(tenant: str, kind: Keeping, name: str) -> str:
    """Names from outside are hashed: any text has a key, and none names another's."""
    if kind not in _KINDS or type(name) is not str or not name:
        raise NameRefused("kept", kind, "a name, under one of " + ", ".join(_KINDS))
    return f"{prefix(tenant)}{kind}:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def keep(
    tenant: str, kind: Keeping, name: str, value: bytes, *, ttl_ms: int, replace: bool = False
) -> Op[Kept]:
    """Keep a value (not empty) under a name for `ttl_ms` milliseconds; the first under a name
    stays (`exists`), unless `replace`.
    """
    args = (
        checked_bytes("kept value", value),
        checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS),
        "1" if replace is True else "0",
    )
    return Op("keep", _kept, (_key(tenant, kind, name),), args, confirm=True)


def kept(tenant: str, kind: Keeping, name: str) -> Op[bytes | None]:
    """Read what is kept under a name; None: nothing (any more)."""
    return Op("kept", _value, (_key(tenant, kind, name),))


def _value(value: Any) -> bytes | None:
    if type(value) is not bytes:
        raise TypeError(f"got {type(value).__name__}, expected bytes")
    return value or None
