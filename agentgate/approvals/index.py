"""The index (newest approved version of every workflow) and the revocations.

Rules: the index approves nothing: it only sets the lowest version of each workflow that may run, and proves that this is recent (it
expires within seven days, and its serial rises). A revocation takes one signature and is never undone: the highest revoked version
of a workflow in the file, in the index or in a gate's marks counts; a later version needs its own approval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import Field, TypeAdapter

from agentgate.approvals import sshsig
from agentgate.approvals._files import APPROVALS, INDEX, REVOKED, Tree, file_digest, text_of
from agentgate.approvals._shape import (
    STRICT,
    Digest,
    Id,
    Moment,
    Person,
    Risk,
    Shape,
    Text,
    VersionNumber,
    ascii_json,
    from_json,
    from_yaml,
    seconds,
)
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.refusal import ROLLBACK, STALE_INDEX, TAMPERED, UNAPPROVED, refuse
from agentgate.approvals.root import Role, Root
from agentgate.errors import KeyRefused

INDEX_LIFE = 7 * 24 * 3600  # twice `agentgate.loading.catalog.AHEAD`
MAX_INDEX = 32 * 1024 * 1024
UNKNOWN = "?"  # no path of a workflow file
_LEEWAY = 300  # seconds a signer's clock may be ahead

_Serial = Annotated[int, Field(ge=1, le=2**53 - 1)]


@dataclass(frozen=True, slots=True)
class Listed:
    """An approved version of a workflow, as an index lists it.

    Attributes:
        paths: its path, and that of the version before (`UNKNOWN`: unknown, every rule of the root counted).
        risks: its risk, and those that counted because of the version before.
    """

    __pydantic_config__ = STRICT

    version: VersionNumber
    digest: Digest
    paths: Annotated[tuple[Text, ...], Len(1, 2)]
    risks: Annotated[tuple[Risk, ...], Len(1, 3)]


@dataclass(frozen=True, slots=True)
class Newest(Listed):
    """The newest approved version of a workflow.

    Attributes:
        narrows: the versions it builds on, newest first, when it was approved as only narrowing.
        removed: nothing of the workflow was stored when the index was made; the version stays the lowest that may run.
    """

    narrows: Annotated[tuple[Listed, ...], Len(0, 64)]
    removed: Literal[True] | None = None


@dataclass(frozen=True, slots=True)
class RevokedThen:
    """The ``revoked.yaml`` that an index was made with; `up_to`: workflow -> highest revoked version."""

    __pydantic_config__ = STRICT

    serial: _Serial
    digest: Digest
    up_to: dict[Id, VersionNumber]


@dataclass(frozen=True, slots=True)
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


_INDEX = TypeAdapter(Index)


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


@dataclass(frozen=True, slots=True)
class Revoked:
    """``revoked.yaml``."""

    serial: int
    digest: str
    signer: str
    revoked: Mapping[str, Revocation]


def index_bytes(serial: int, expires: str, signer: str, workflows: Mapping[str, Newest], revoked: Revoked) -> bytes:
    """The bytes of an index, as they are signed."""
    then = RevokedThen(revoked.serial, revoked.digest, {id_: revocation.up_to for id_, revocation in revoked.revoked.items()})
    value = asdict(Index("index/v1", serial, expires, signer, dict(workflows), then))
    for newest in value["workflows"].values():
        if not newest["removed"]:
            del newest["removed"]
    return ascii_json(value)


def load_index(tree: Tree, root: Root, allowed: AllowedSigners, now: float, *, ended: bool = False) -> Index:
    """The index, signed and not expired (`ended`: or expired, for those who sign the next one).

    Raises ApprovalRefused: STALE INDEX (absent, past its end, or valid for longer than an index may be), TAMPERED, UNAPPROVED, EXPIRED.
    """
    file = f"{APPROVALS}/{INDEX}"
    data = tree.read(INDEX, STALE_INDEX, limit=MAX_INDEX)
    index = from_json(_INDEX, data, file, TAMPERED, ascii_json)
    signed_by(tree, INDEX, data, root=root, allowed=allowed, role="index", person=index.signer, now=now)
    if not ended:
        check_not_ended(index, now)
    if index.until > now + INDEX_LIFE + _LEEWAY:
        raise refuse(STALE_INDEX, file, "expires", index.expires, "at most seven days from now")
    return index


def check_not_ended(index: Index, now: float) -> None:
    """The index is in its time. Raises ApprovalRefused: STALE INDEX."""
    if now >= index.until:
        expected = "an index signed in the last seven days (agentgate workflow index)"
        raise refuse(STALE_INDEX, f"{APPROVALS}/{INDEX}", "expires", index.expires, expected)


def load_revoked(tree: Tree, root: Root, allowed: AllowedSigners, now: float) -> Revoked:
    """The revocations, signed. Raises ApprovalRefused: TAMPERED (absent, malformed or changed), UNAPPROVED, EXPIRED."""
    file = f"{APPROVALS}/{REVOKED}"
    data = tree.read(REVOKED, TAMPERED)
    shape = from_yaml(_RevokedShape, text_of(data, file), file, TAMPERED)
    signed_by(tree, REVOKED, data, root=root, allowed=allowed, role="revoke", person=shape.signer, now=now)
    return Revoked(shape.serial, file_digest(data), shape.signer, shape.revoked)


def check_same(index: Index, revoked: Revoked) -> None:
    """The revocations are those the index was made with, or newer ones.

    Raises ApprovalRefused: ROLLBACK when older, TAMPERED when they differ.
    """
    file = f"{APPROVALS}/{REVOKED}"
    if revoked.serial < index.revoked.serial:
        raise refuse(ROLLBACK, file, "serial", revoked.serial, f"at least {index.revoked.serial}, as in the index")
    if revoked.serial == index.revoked.serial and revoked.digest != index.revoked.digest:
        raise refuse(TAMPERED, file, "digest", revoked.digest, f"{index.revoked.digest}, as in the index")


_NAMESPACES: Mapping[Role, str] = {"root": sshsig.ROOT_NAMESPACE, "index": sshsig.INDEX_NAMESPACE, "revoke": sshsig.REVOKED_NAMESPACE}


def signed_by(tree: Tree, name: str, data: bytes, *, root: Root, allowed: AllowedSigners, role: Role, person: str, now: float) -> None:
    """A trust file's one signature is by a person of this role.

    Raises ApprovalRefused: TAMPERED when it is not a signature over these bytes, UNAPPROVED when it is by somebody else, EXPIRED.
    """
    file = f"{APPROVALS}/{name}.sig"
    text = tree.read(f"{name}.sig", TAMPERED)
    try:
        key = sshsig.verify(text_of(text, file), data, _NAMESPACES[role])
    except KeyRefused as error:
        raise refuse(TAMPERED, file, "signature", str(error), f"{person}'s over {name}") from None
    if person not in root.roles[role]:
        raise refuse(UNAPPROVED, file, "signer", person, f"one of roles.{role}: {', '.join(root.roles[role])}")
    if not root.owns(person, key):
        raise refuse(UNAPPROVED, file, "key", key.fingerprint, f"a key of {person} in the root")
    allowed.until(person, key, _NAMESPACES[role], now)
