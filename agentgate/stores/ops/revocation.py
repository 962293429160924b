"""What is revoked: written, listed and lifted. Mint and burn look for it (``revoked`` in
``scripts/_common.lua``).

A revocation is the key ``revoked:NAME``, which mint and burn read, with ``revocation:NAME``
(who, when, why) and a place in the sorted set ``revocations`` beside it; NAME is
``kind:subject``. People and agents are compared as `agentgate.values.request.person` does:
to revoke one spelling of an id is to revoke all of them, at every issuer. A revocation is said
in a hurry and of a name: it stops too many rather than too few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

from agentgate.errors import NameRefused
from agentgate.stores._op import (
    ALL,
    MAX_AMOUNT,
    MAX_TTL_MS,
    Op,
    RevokedKind,
    Subjects,
    checked_bytes,
    checked_history,
    checked_id,
    checked_number,
    history_of,
    one_of,
    people,
    prefix,
    revocations_of,
    shared_revocations,
    subject_of,
)
from agentgate.values.value_class import Names, value_class

REVOKED_KINDS: tuple[RevokedKind, ...] = get_args(RevokedKind)
YesNo = Literal["yes", "no"]
RevokeKind = Literal["ok", "known"]
Lifted = Literal["lifted", "missing", "signed"]
_SIGNED = "signed"


@value_class
class RevocationRecord:
    """A revocation as stored.

    Attributes:
        name: ``kind:subject``.
        before_ms: only what was opened or minted up to then (POSIX milliseconds); None:
            everything.
        signed: reviewers said it; it is not lifted.
        told: the JSON it was written with.
        life_ms: how long it still holds; None: until it is lifted.
    """

    name: str
    before_ms: int | None
    signed: bool
    told: bytes
    life_ms: int | None


class RevokeReply(NamedTuple):
    """`ok`, or `known` where it revokes nothing more than before; the tenant's history (one
    event more after `ok`; empty: lost).
    """

    kind: RevokeKind
    history: str


def revocation_name(tenant: str, kind: RevokedKind, subject: str) -> str:
    """``kind:subject`` as it is stored.

    Raises:
        NameRefused: no such kind, or nothing of that kind can have this name.
    """
    if kind not in REVOKED_KINDS:
        raise NameRefused("revocation kind", kind, ", ".join(sorted(REVOKED_KINDS)))
    if kind == "tenant":
        if subject not in (ALL, tenant):
            raise NameRefused("subject", subject, "'*' or the tenant itself")
        return f"tenant:{ALL}"
    if kind in ("token", "run"):
        return f"{kind}:{checked_id(kind, subject)}"
    return f"{kind}:{subject_of(kind, subject)}"


def revocations_of_memory(tenant: str, who: Subjects, run: str) -> list[str]:
    """The names of every revocation that ends what is remembered of a call: those that may stop
    more than its token.
    """
    start = prefix(tenant)
    keys = (f"{start}revoked:run:{run}", *shared_revocations(start, who))
    return [key.removeprefix(f"{start}revoked:") for key in keys]


def revoked(tenant: str, user: str | Subjects, opened_ms: int, run: str = "none") -> Op[bool]:
    """Whether a person, or a run and whatever its call is about, is revoked for what was opened
    then (POSIX milliseconds).
    """
    start = prefix(tenant)
    keys = (
        people(start, (user,))
        if isinstance(user, str)
        else revocations_of(start, run, "none", user)
    )
    return Op("revoked", is_yes, keys, (checked_number("opened_ms", opened_ms, 0, MAX_AMOUNT),))


def is_yes(said: Any) -> bool:
    """What a script answers to the question whether a person is revoked."""
    return bool(one_of(YesNo)(said) == "yes")


def _keys(tenant: str, name: str) -> Names:
    start = prefix(tenant)
    return (
        f"{start}revoked:{name}",
        f"{start}history",
        f"{start}revocation:{name}",
        f"{start}revocations",
        f"{start}forgets:{name}",
    )


def revoke(
    tenant: str,
    kind: RevokedKind,
    subject: str,
    *,
    before_ms: int = 0,
    life_ms: int = 0,
    told: bytes = b"{}",
    signed: bool = False,
    history: str = "",
) -> Op[RevokeReply]:
    """Refuse a subject's mints and burns from now on. A revocation only ever grows.

    Args:
        tenant: in whose slot; a revocation that spans tenants is written to each.
        kind: what `subject` is.
        subject: jti, run id, agent, user, tool, `workflow_subject`, or ``*`` for the tenant.
        before_ms: 0: everything. Else POSIX milliseconds: only runs opened up to then, and
            their tokens.
        life_ms: after how many milliseconds it ends; 0: when it is lifted.
        told: JSON for those who list it: who, when, why.
        signed: reviewers said it; it is not lifted.
        history: as in a mint.
    """
    name = revocation_name(tenant, kind, subject)
    before = checked_number("before_ms", before_ms, 0, MAX_AMOUNT)
    value = _SIGNED if signed is True else str(before) if before else ALL
    life = checked_number("life_ms", life_ms, 0, MAX_TTL_MS)
    args = (value, name, checked_bytes("told", told), life, checked_history(history))
    return Op(
        "revoke",
        lambda said, seen: RevokeReply(one_of(RevokeKind)(said), history_of(seen)),
        _keys(tenant, name),
        args,
        confirm=True,
    )


def lift(tenant: str, kind: RevokedKind, subject: str) -> Op[Lifted]:
    """End a revocation. `missing`: there is none; `signed`: reviewers said it, and it
    stands.
    """
    name = revocation_name(tenant, kind, subject)
    revocation, _, told, index, _ = _keys(tenant, name)
    return Op("lift", one_of(Lifted), (revocation, told, index), (name,), confirm=True)


def list_revocations(
    tenant: str, skip: int = 0
) -> Op[tuple[int, tuple[RevocationRecord, ...]]]:
    """How much is revoked in a tenant, and a page of it (at most 500), lasting ones first, from
    number `skip` on.
    """
    start = prefix(tenant)
    return Op(
        "list_revocations",
        lambda total, page: (int(total), tuple(_listed(page))),
        (f"{start}revocations",),
        (start, checked_number("skip", skip, 0, MAX_AMOUNT)),
    )


def _listed(page: list[list[bytes]]) -> Iterator[RevocationRecord]:
    for name, value, told, life in page:
        if value:  # else it has just ended
            said = value.decode("ascii")
            left = int(life)
            before = int(said) if said not in (ALL, _SIGNED) else None
            yield RevocationRecord(
                name.decode(),
                before,
                said == _SIGNED,
                told,
                life_ms=left if left >= 0 else None,
            )
