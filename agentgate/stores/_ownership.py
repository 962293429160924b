"""What a tool server's store user may reach: what is its own, and to read what gates write for
it.

Rules: one table says it, for the ACL's patterns, the probe at start and `agentgate doctor`. A
tool server signs no record, so whose a record is follows from who may write its key. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agentgate.errors import ConfigError
from agentgate.stores._health import Weakness
from agentgate.stores._op import Op, prefix, server_id

_COMMANDS = (
    "-@all +evalsha +script|load +info +time +getdel +hget +hmget +hset +hexists "
    "+mget +wait +cluster|slots"
)
# {}: the server's own id
_OWN = {"token:{}:*": "rw", "burns:{}:*": "rw", "history:{}": "rw", "mints:{}:*": "r"}
_LOGS = {"checkpoints:{}": "rw"}  # of no tenant
_SHARED = {"clock:*": "r", "history": "r", "revoked:*": "r"}
_GATES = (
    "run:*",
    "hold:*",
    "limit:*",
    "lastkey:*",
    "remembered:*",
    "forgets:*",
    *(kind.format("0" * 64) for kind in _OWN),
)  # the id of no server
# in every tenant, as earlier versions asked for
_BEFORE = {"jti:*": "rw", "calls:*": "rw", "history": "rw", "revoked:*": "r"}
_LONGEST_RUN_MS = (7 * 24 + 1) * 3600 * 1000  # and its last token
_pattern = re.compile(r"(?:%(R|W|RW))?~ag:\{([^}]*)\}:(.*)").fullmatch
_EXPECTED = "a tool server's own, as in docs/state.md (One user per program)"
_OLD = Weakness(
    "key patterns of earlier versions in this user's ACL",
    "this server can change what is known of others' calls in runs that were opened before; "
    "once these are over, it starts no more",
    "ACL SETUSER without them, a week after the last gate was upgraded",
)
_EVERYWHERE = Weakness(
    "this user's own keys in tenants that it does not serve",
    "it can say what it likes of its own calls there",
    "its tenants by name in the ACL's patterns, unless it serves all of them",
)


def rules_of(audience: str, tenants: Iterable[str]) -> str:
    """What the ACL says of a tool server's user.

    Raises:
        NameRefused: a tenant that no key can have.
    """
    table = {**{kind.format(server_id(audience)): may for kind, may in _OWN.items()}, **_SHARED}
    patterns = [
        f"%{may.upper()}~{prefix(tenant)}{kind}"
        for tenant in tenants
        for kind, may in table.items()
    ]
    patterns += [
        f"%{may.upper()}~{prefix('_audit')}{kind.format(server_id(audience))}"
        for kind, may in _LOGS.items()
    ]
    return " ".join(("resetkeys", *patterns, _COMMANDS))


def probe_user(audience: str, tenants: Sequence[str]) -> Iterator[Op[frozenset[Weakness]]]:
    """Ask what the own store user may do, in each tenant that it serves and in one that it does
    not.

    Reading an answer raises ConfigError: more than a tool server's user may, or less.
    """
    own = {kind.format(server_id(audience)): may for kind, may in _OWN.items()}
    stranger = next(name for name in ("agentgate", "agentgate-other") if name not in tenants)
    for tenant in (*tenants, stranger):
        yield _probe(tenant, own, served=tenant != stranger)


def _probe(tenant: str, own: dict[str, str], *, served: bool) -> Op[frozenset[Weakness]]:
    allowed = {
        **dict.fromkeys((*_GATES, *_BEFORE, *_SHARED), ""),
        **(_SHARED if served else {}),
        **own,
    }
    keys = [f"{prefix(tenant)}{kind.replace('*', 'check')}" for kind in allowed]

    def read(answers: list[bytes], now: bytes, owned: bytes) -> frozenset[Weakness]:
        weak = set()
        for key, (kind, most), answer in zip(keys, allowed.items(), answers, strict=True):
            may = set(answer.decode())
            if served and set(most) - may:
                raise ConfigError(
                    "store", f"a user who may not {_verb(set(most) - may)} {key}", _EXPECTED
                )
            if may - set(most) - set(_BEFORE.get(kind, "")):
                raise ConfigError(
                    "store", f"a user who may {_verb(may - set(most))} {key}", _EXPECTED
                )
            if may - set(most):
                if owned and int(now) > int(owned) + _LONGEST_RUN_MS:
                    raise ConfigError(
                        "store",
                        f"a user who may {_verb(may - set(most))} {key}, a week after new runs need it",
                        _EXPECTED,
                    )
                weak.add(_OLD)
            if may and kind in own and not served:
                weak.add(_EVERYWHERE)
        return frozenset(weak)

    return Op("probe_user", read, (), (tenant, *keys))


def _verb(may: set[str]) -> str:
    return "write" if "w" in may else "read"


def wrong_patterns(keys: str) -> list[str] | None:
    """What is wrong among the key patterns of a user, as ``ACL GETUSER`` tells them; None: it
    is no tool server's.
    """
    patterns = keys.split()
    found = [(each, _pattern(each)) for each in patterns]
    if not any(
        match and match[3].startswith(("token:", "burns:", "jti:", "calls:"))
        for _, match in found
    ):
        return None
    return [
        each for each, match in found if match is None or not _fits(*match.groups(default="RW"))
    ]


def _fits(may: str, tenant: Any, kind: str) -> bool:
    named = re.sub("[0-9a-f]{64}", "{}", kind)
    if kind in _SHARED and "*" not in tenant:
        return may.lower() == _SHARED[kind]
    own = _LOGS if tenant == "_audit" else _OWN
    return set(may.lower()) <= set(own.get(named, ""))
