"""The index (newest approved version of every workflow) and the revocations.

Rules: the index approves nothing: it only sets the lowest version of each workflow that may run, and proves that this is recent (it
expires within seven days, and its serial rises). A revocation takes one signature and is never undone: the highest revoked version
of a workflow in the file, in the index or in a gate's marks counts; a later version needs its own approval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field

from agentgate.approvals import sshsig
from agentgate.approvals._files import APPROVALS, INDEX, REVOKED, Tree, file_digest, text_of
from agentgate.approvals._shape import (
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

INDEX_LIFE = 7 * 24 * 3600
MAX_INDEX = 32 * 1024 * 1024
UNKNOWN = "?"  # no path of a workflow file
_LEEWAY = 300  # seconds a signer's clock may be ahead

_Serial = Annotated[int, Field(ge=1, le=2**53 - 1)]


class _ApprovedShape(Shape):
    version: VersionNumber
    digest: Digest
    paths: Annotated[tuple[Text, ...], Len(1, 2)]
    risks: Annotated[tuple[Risk, ...], Len(1, 3)]


class _NewestShape(_ApprovedShape):
    narrows: Annotated[tuple[_ApprovedShape, ...], Len(0, 64)]
    removed: Literal[True] | None = None


class _RevokedInIndexShape(Shape):
    serial: _Serial
    digest: Digest
    up_to: dict[Id, VersionNumber]


class _IndexShape(Shape):
    agentgate: Literal["index/v1"]
    serial: _Serial
    expires: Moment
    signer: Person
    workflows: Annotated[dict[Id, _NewestShape], Len(0, 100_000)]
    revoked: _RevokedInIndexShape


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
class Newest:
    """An approved version of a workflow.

    Attributes:
        paths: its path, and that of the version before (`UNKNOWN`: unknown, every rule of the root counted).
        risks: its risk, and those that counted because of the version before.
        narrows: the versions it builds on, newest first, when it was approved as only narrowing.
        removed: nothing of the workflow was stored when the index was made; the version stays the lowest that may run.
    """

    version: int
    digest: str
    paths: tuple[str, ...]
    risks: tuple[str, ...]
    narrows: tuple[Newest, ...] = ()
    removed: bool = False

    @property
    def value(self) -> dict[str, Any]:
        """Its entry in an index, without what it narrows."""
        return {"version": self.version, "digest": self.digest, "paths": self.paths, "risks": self.risks}


@dataclass(frozen=True, slots=True)
class Revoked:
    """``revoked.yaml``."""

    serial: int
    digest: str
    signer: str
    revoked: Mapping[str, Revocation]


@dataclass(frozen=True, slots=True)
class Index:
    """``index.json``.

    Attributes:
        until: POSIX seconds of its end.
        revoked_digest, revoked_serial: the ``revoked.yaml`` it was made with.
        revoked: workflow -> highest revoked version then.
    """

    serial: int
    until: float
    signer: str
    workflows: Mapping[str, Newest]
    revoked_digest: str
    revoked_serial: int
    revoked: Mapping[str, int]


def index_bytes(serial: int, expires: str, signer: str, workflows: Mapping[str, Newest], revoked: Revoked) -> bytes:
    """The bytes of an index, as they are signed."""
    value: dict[str, Any] = {
        "agentgate": "index/v1",
        "serial": serial,
        "expires": expires,
        "signer": signer,
        "workflows": {
            id_: n.value | {"narrows": [each.value for each in n.narrows]} | ({"removed": True} if n.removed else {})
            for id_, n in workflows.items()
        },
        "revoked": {"serial": revoked.serial, "digest": revoked.digest, "up_to": {id_: r.up_to for id_, r in revoked.revoked.items()}},
    }
    return ascii_json(value)


def load_index(tree: Tree, root: Root, allowed: AllowedSigners, now: float, *, ended: bool = False) -> Index:
    """The index, signed and not expired (`ended`: or expired, for those who sign the next one).

    Raises ApprovalRefused: STALE INDEX (absent, past its end, or valid for longer than an index may be), TAMPERED, UNAPPROVED, EXPIRED.
    """
    file = f"{APPROVALS}/{INDEX}"
    data = tree.read(INDEX, STALE_INDEX, limit=MAX_INDEX)
    shape = from_json(_IndexShape, data, file, TAMPERED, ascii_json)
    signed_by(tree, INDEX, data, root=root, allowed=allowed, role="index", person=shape.signer, now=now)
    until = seconds(shape.expires)
    if now >= until and not ended:
        raise refuse(STALE_INDEX, file, "expires", shape.expires, "an index signed in the last seven days (agentgate workflow index)")
    if until > now + INDEX_LIFE + _LEEWAY:
        raise refuse(STALE_INDEX, file, "expires", shape.expires, "at most seven days from now")
    workflows = {id_: _newest(n, tuple(map(_newest, n.narrows)), removed=bool(n.removed)) for id_, n in shape.workflows.items()}
    revoked = shape.revoked
    return Index(shape.serial, until, shape.signer, workflows, revoked.digest, revoked.serial, revoked.up_to)


def _newest(shape: _ApprovedShape, narrows: tuple[Newest, ...] = (), *, removed: bool = False) -> Newest:
    return Newest(shape.version, shape.digest, shape.paths, shape.risks, narrows, removed)


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
    if revoked.serial < index.revoked_serial:
        raise refuse(ROLLBACK, file, "serial", revoked.serial, f"at least {index.revoked_serial}, as in the index")
    if revoked.serial == index.revoked_serial and revoked.digest != index.revoked_digest:
        raise refuse(TAMPERED, file, "digest", revoked.digest, f"{index.revoked_digest}, as in the index")


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
