"""What a service keeps for a while beside runs and holds: an assertion that counts once, a held exchange, a redeemed call to report on."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args

from agentgate.errors import NameRefused, StoreUnavailable
from agentgate.stores._op import MAX_TTL_MS, Op, checked_bytes, checked_number, prefix, reply, word

Keeping = Literal["assertion", "deferred", "redeemed"]


def _key(tenant: str, kind: Keeping, name: str) -> str:
    """Names from outside are hashed: any text has a key, and none names another's."""
    if kind not in get_args(Keeping) or type(name) is not str or not name:
        raise NameRefused("kept", kind, "a name, under one of " + ", ".join(get_args(Keeping)))
    return f"{prefix(tenant)}{kind}:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def keep(tenant: str, kind: Keeping, name: str, value: bytes, *, ttl_ms: int, replace: bool = False) -> Op:
    """Keep a value (not empty) under a name for `ttl_ms` milliseconds; the first under a name stays, unless `replace`."""
    args = (checked_bytes("kept value", value), checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS), "1" if replace is True else "0")
    return Op("keep", (_key(tenant, kind, name),), args, confirm=True)


def parse_keep(op: Op, raw: Any) -> Literal["ok", "exists"]:
    """`ok`, or `exists`: the name is taken, and nothing was written."""
    return word(op, reply(op, raw, 1)[0], ("ok", "exists"))  # type: ignore[no-any-return]  # a member of that type


def kept(tenant: str, kind: Keeping, name: str) -> Op:
    """Read what is kept under a name."""
    return Op("kept", (_key(tenant, kind, name),))


def parse_kept(op: Op, raw: Any) -> bytes | None:
    """The value; None: nothing is kept under this name (any more)."""
    (value,) = reply(op, raw, 1)
    if type(value) is not bytes:
        raise StoreUnavailable(f"script {op.script}: got {type(value).__name__}, expected bytes")
    return value or None
