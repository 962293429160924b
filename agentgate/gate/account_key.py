"""A service account's new key: proven by the old one, or released by a person. Both are on
record before they are written.

Source of the rule: under `same_key_as_last_token` a token is minted only for the key of the
account's last one. A rotation statement is a JWS (typ `STATEMENT`, ES256 or EdDSA, the old
public key as `jwk`, as in RFC 9449) over exactly `aud` (the gate's URL), `tenant`, `account`,
`key` (RFC 7638 thumbprint of the new key) and `iat`. It is good for ten minutes, and once: it
must be newer than the record of the key that signed it. What the store has lost refuses it.
"""

from __future__ import annotations

import time

from agentgate.errors import TokenRefused
from agentgate.gate.core import Core
from agentgate.shell.step import Flow, Record, date_event
from agentgate.stores import ops
from agentgate.token.dpop import LEEWAY, signed_by_shown_key
from agentgate.token.jws import b64url, compact
from agentgate.token.signing import SigningKey
from agentgate.values.canonical import canonical
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import User, name_of, person
from agentgate.values.value_class import Json

STATEMENT = "agentgate-key-rotation+jwt"
MAX_AGE = 600  # seconds
_CLAIMS = {"aud", "tenant", "account", "key", "iat"}
_WHY = {
    "lost": (
        "a store that lost a part of its history",
        "a reconciled store, or a person's release",
    ),
    "other": ("a statement by another key", "the key on record"),
    "old": (
        "a statement from before the key was recorded",
        "a new statement, signed a second later or more",
    ),
}


def statement(
    old: SigningKey, new: str, *, gate: str, tenant: str, account: str, now: float
) -> str:
    """A rotation statement; `new`: RFC 7638 thumbprint of the new key, `now`: POSIX seconds."""
    header = canonical({"typ": STATEMENT, "alg": old.alg, "jwk": old.public})
    said = {"aud": gate, "tenant": tenant, "account": account, "key": new, "iat": int(now)}
    return compact(b64url(header), b64url(canonical(said)), old.sign)


def _refused(got: str, expected: str) -> RunRefused:
    return RunRefused((Failure(Reason.BOUNDARY, "agent.boundary.key", got, expected),))


def rotate(
    core: Core, statement: str, *, issuer: str = "", of: tuple[str, str] | None = None
) -> Flow:
    """Take up the new key of a rotation statement; returns its account. `of`: the tenant and
    account that it must be about.

    `issuer`: who proves the account; empty: it has a SPIFFE id.

    Raises (through the driver):
        RunRefused: the statement proves nothing here. StoreUnavailable, AuditUnavailable.
    """
    try:
        old, claims = signed_by_shown_key(statement, STATEMENT)
    except TokenRefused as error:
        raise _refused(error.got, error.expected) from error
    named = [claims.get(name) for name in ("tenant", "account", "key")]
    if claims.keys() != _CLAIMS or not all(type(each) is str for each in named):
        raise _refused("other claims", "aud, tenant, account, key and iat, nothing else")
    if claims["aud"] != core.issuer:
        raise _refused("a statement for another gate", core.issuer)
    iat = claims["iat"]
    now = time.time()
    if type(iat) is not int or not now - MAX_AGE <= iat <= now + LEEWAY:
        raise _refused("a statement of another time", f"one signed in the last {MAX_AGE} s")
    tenant = claims["tenant"]
    account = claims["account"]
    key = claims["key"]
    if of is not None and of != (tenant, account):
        raise _refused(
            "a statement about another account",
            f"one about the account that shows it, {of[1]} of tenant {of[0]}",
        )
    return (
        yield from _changed(
            core,
            tenant,
            account,
            key,
            {"by": {"key": old}},
            issuer=issuer,
            old=old,
            signed_ms=iat * 1000,
        )
    )


def release(
    core: Core, tenant: str, account: str, key: str, *, by: User, reason: str, issuer: str = ""
) -> Flow:
    """A person's word that this is the account's key now; returns the account.

    Raises (through the driver):
        RunRefused: no person, the account itself, somebody revoked, or no reason.
        StoreUnavailable, AuditUnavailable.
    """
    if (
        type(by) is not User
        or by.tenant != tenant
        or type(reason) is not str
        or not reason.strip()
    ):
        raise _refused(
            "no person of the tenant, or no reason",
            "a User of the account's tenant, and a reason for the record",
        )
    if type(account) is not str or person(by.id) == person(account):
        raise _refused(
            "the account itself", "a person: an account changes its key by its old one"
        )
    if (yield ops.revoked(tenant, by.id, int(time.time() * 1000))):
        raise _refused(f"{by.id}, who is revoked", "a person who is not revoked")
    why: Json = {"by": {"user": by.id, "identity": by.identity}, "reason": reason}
    return (yield from _changed(core, tenant, account, key, why, issuer=issuer))


def _changed(
    core: Core,
    tenant: str,
    account: str,
    key: str,
    why: Json,
    *,
    issuer: str,
    old: str = "",
    signed_ms: int = 0,
) -> Flow:
    seen = core.history.seen(tenant)
    op = ops.change_key(
        tenant, name_of(account, issuer), key, old=old, signed_ms=signed_ms, history=seen
    )
    told = {"tenant": tenant, "account": account, "issuer": issuer, "key": key, **why}
    yield Record(date_event("key_change", **told))
    answer = yield op
    if answer.kind != "ok":
        raise _refused(*_WHY[answer.kind])
    core.history.see(tenant, seen, answer.history)
    yield Record(date_event("key_changed", **told, **core.history.note(answer.history)))
    return account
