"""The index (newest approved version of every workflow) and the revocations.

Rules: the index approves nothing: it only sets the lowest version of each workflow that may
run, and proves that this is recent (it expires within seven days, and its serial rises). A
renewal carries one index on, which it names by its digest, and can say nothing else: no key of
roles.renew changes an entry, and thirty days after a person signed an index, a person signs the
next. A revocation takes one signature and is never undone: the highest revoked version of a
workflow in the file, in the index or in a gate's marks counts; a later version needs its own
approval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import Field, TypeAdapter

from agentgate.approvals import sshsig
from agentgate.approvals._files import (
    APPROVALS,
    INDEX,
    MISSING,
    RENEWAL,
    REVOKED,
    ROLLBACK,
    STALE_INDEX,
    STRICT,
    TAMPERED,
    UNAPPROVED,
    Digest,
    Id,
    Moment,
    Person,
    Risk,
    Shape,
    Text,
    VersionNumber,
    ascii_json,
    file_digest,
    from_json,
    from_yaml,
    moment,
    refuse,
    seconds,
    text_of,
)
from agentgate.approvals.root import Role, TrustedRoot
from agentgate.errors import KeyRefused
from agentgate.values.value_class import value_class

INDEX_LIFE = 7 * 24 * 3600  # twice `agentgate.loading.catalog.AHEAD`
RENEWABLE = 30 * 24 * 3600  # seconds from an index's signature to the end of its last renewal
MAX_INDEX = 32 * 1024 * 1024
UNKNOWN = "?"  # no path of a workflow file
_LEEWAY = 300  # seconds a signer's clock may be ahead

_Serial = Annotated[int, Field(ge=1, le=2**53 - 1)]


@value_class
class Listed:
    """An approved version of a workflow, as an index lists it.

    Attributes:
        paths: its path, and that of the version before (`UNKNOWN`: unknown, every rule of the
            root counted).
        risks: its risk, and those that counted because of the version before.
    """

    __pydantic_config__ = STRICT

    version: VersionNumber
    digest: Digest
    paths: Annotated[tuple[Text, ...], Len(1, 2)]
    risks: Annotated[tuple[Risk, ...], Len(1, 3)]


@value_class
class Newest(Listed):
    """The newest approved version of a workflow.

    Attributes:
        narrows: the versions it builds on, newest first, when it was approved as only
            narrowing.
        removed: nothing of the workflow was stored when the index was made; the version stays
            the lowest that may run.
    """

    narrows: Annotated[tuple[Listed, ...], Len(0, 64)]
    removed: Literal[True] | None = None


@value_class
class RevokedThen:
    """The ``revoked.yaml`` that an index was made with; `up_to`: workflow -> highest revoked
    version.
    """

    __pydantic_config__ = STRICT

    serial: _Serial
    digest: Digest
    up_to: dict[Id, VersionNumber]


@value_class
class Index:
    """``index.json``."""

    __pydantic_config__ = STRICT

    agentgate: Literal["index/v1"]
    serial: _Serial
    expires: Moment
    signer: Person
    workflows: Annotated[dict[Id, Newest], Len(0, 100_000)]
    revoked: RevokedThen

    @property
    def until(self) -> float:
        """POSIX seconds of its end."""
        return seconds(self.expires)

    @property
    def renewable_until(self) -> float:
        """POSIX seconds of the last end that a renewal may give it, as it was signed."""
        return self.until - INDEX_LIFE + RENEWABLE


@value_class
class Renewal:
    """``renewal.json``: a later end of the index with the digest `base`, and the revocations
    there were then.
    """

    __pydantic_config__ = STRICT

    agentgate: Literal["renewal/v1"]
    base: Digest
    expires: Moment
    signer: Person
    revoked_serial: _Serial
    revoked_digest: Digest


_INDEX = TypeAdapter(Index)
_RENEWAL = TypeAdapter(Renewal)


class Revocation(Shape):
    """Versions up to and including `up_to` are revoked."""

    up_to: VersionNumber
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    by: Person


class _RevokedShape(Shape):
    agentgate: Literal["revoked/v1"]
    serial: _Serial
    signer: Person
    revoked: Annotated[dict[Id, Revocation], Len(0, 100_000)]


@value_class
class Revoked:
    """``revoked.yaml``."""

    serial: int
    digest: str
    signer: str
    revoked: Mapping[str, Revocation]


def index_bytes(
    serial: int, expires: str, signer: str, workflows: Mapping[str, Newest], revoked: Revoked
) -> bytes:
    """The bytes of an index, as they are signed."""
    then = RevokedThen(
        revoked.serial,
        revoked.digest,
        {id_: revocation.up_to for id_, revocation in revoked.revoked.items()},
    )
    value = asdict(Index("index/v1", serial, expires, signer, dict(workflows), then))
    for newest in value["workflows"].values():
        if not newest["removed"]:
            del newest["removed"]
    return ascii_json(value)


def load_index(trusted: TrustedRoot) -> Index:
    """The index, signed, whether or not it has ended, with the end its renewal gives it.

    Raises ApprovalRefused: STALE INDEX (absent, or valid for longer than an index may be),
    MISSING (its signature), TAMPERED, UNAPPROVED, EXPIRED.
    """
    return carry_on(load_signed_index(trusted), trusted)


def load_signed_index(trusted: TrustedRoot) -> tuple[Index, str]:
    """The index as a person signed it, and its digest. Raises as `load_index`."""
    file = f"{APPROVALS}/{INDEX}"
    data = trusted.tree.read(INDEX, STALE_INDEX, limit=MAX_INDEX)
    index = from_json(_INDEX, data, file, TAMPERED, ascii_json)
    check_signed(trusted, INDEX, data, "index", index.signer)
    _check_life(index.expires, trusted.now + INDEX_LIFE + _LEEWAY, file)
    return index, file_digest(data)


def carry_on(signed: tuple[Index, str], trusted: TrustedRoot) -> Index:
    """The index with the end of its renewal. A renewal of another index changes nothing: it is
    left over, or of an index put back.

    Raises as `load_index`: a renewal of this index that does not hold.
    """
    (index, digest), data, file = (
        signed,
        trusted.tree.read_optional(RENEWAL),
        f"{APPROVALS}/{RENEWAL}",
    )
    if data is None:
        return index
    renewal = from_json(_RENEWAL, data, file, TAMPERED, ascii_json)
    if renewal.base != digest:
        return index
    check_signed(trusted, RENEWAL, data, "renew", renewal.signer)
    _check_life(
        renewal.expires, min(index.renewable_until, trusted.now + INDEX_LIFE + _LEEWAY), file
    )
    revoked = index.revoked
    if renewal.revoked_serial > revoked.serial:
        revoked = replace(revoked, serial=renewal.revoked_serial, digest=renewal.revoked_digest)
    return replace(index, expires=max(index.expires, renewal.expires), revoked=revoked)


def _check_life(expires: str, latest: float, file: str) -> None:
    if seconds(expires) > latest:
        expected = (
            f"at most {moment(latest)}: seven days from now, and thirty after "
            "somebody of roles.index signed"
        )
        raise refuse(STALE_INDEX, file, "expires", expires, expected)


def check_not_ended(index: Index, now: float) -> None:
    """The index is in its time. Raises ApprovalRefused: STALE INDEX."""
    if now >= index.until:
        expected = (
            "an index signed or renewed in the last seven days (agentgate workflow index)"
        )
        raise refuse(STALE_INDEX, f"{APPROVALS}/{INDEX}", "expires", index.expires, expected)


def load_revoked(trusted: TrustedRoot) -> Revoked:
    """The revocations, signed. Raises ApprovalRefused: MISSING, TAMPERED (malformed or
    changed), UNAPPROVED, EXPIRED.
    """
    file = f"{APPROVALS}/{REVOKED}"
    data = trusted.tree.read(REVOKED, MISSING)
    shape = from_yaml(_RevokedShape, text_of(data, file), file, TAMPERED)
    check_signed(trusted, REVOKED, data, "revoke", shape.signer)
    return Revoked(shape.serial, file_digest(data), shape.signer, shape.revoked)


def check_same(index: Index, revoked: Revoked) -> None:
    """The revocations are those the index was made with, or newer ones.

    Raises ApprovalRefused: ROLLBACK when older, TAMPERED when they differ.
    """
    file = f"{APPROVALS}/{REVOKED}"
    if revoked.serial < index.revoked.serial:
        raise refuse(
            ROLLBACK,
            file,
            "serial",
            revoked.serial,
            f"at least {index.revoked.serial}, as in the index",
        )
    if revoked.serial == index.revoked.serial and revoked.digest != index.revoked.digest:
        raise refuse(
            TAMPERED, file, "digest", revoked.digest, f"{index.revoked.digest}, as in the index"
        )


_NAMESPACES: Mapping[Role, str] = {
    "root": sshsig.ROOT_NAMESPACE,
    "index": sshsig.INDEX_NAMESPACE,
    "revoke": sshsig.REVOKED_NAMESPACE,
    "renew": sshsig.RENEWAL_NAMESPACE,
}


def check_signed(trusted: TrustedRoot, name: str, data: bytes, role: Role, person: str) -> None:
    """A trust file's one signature is by a person of this role.

    Raises ApprovalRefused: MISSING without it, TAMPERED when it is not over these bytes,
    UNAPPROVED when it is by somebody else, EXPIRED.
    """
    root = trusted.root
    file = f"{APPROVALS}/{name}.sig"
    text = trusted.tree.read(f"{name}.sig", MISSING)
    try:
        key = sshsig.verify(text_of(text, file), data, _NAMESPACES[role])
    except KeyRefused as error:
        raise refuse(
            TAMPERED, file, "signature", str(error), f"{person}'s over {name}"
        ) from None
    if person not in root.roles[role]:
        raise refuse(
            UNAPPROVED,
            file,
            "signer",
            person,
            f"one of roles.{role}: {', '.join(root.roles[role]) or 'nobody'}",
        )
    if not root.owns(person, key):
        raise refuse(UNAPPROVED, file, "key", key.fingerprint, f"a key of {person} in the root")
    trusted.allowed.until(person, key, _NAMESPACES[role], trusted.now)
