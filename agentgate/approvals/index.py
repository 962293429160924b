"""The index (newest approved version of every workflow) and the revocations.

Rules: the index approves nothing: it only says below which version nothing may run, and that this is news (it expires within
seven days, and its serial rises). A revocation takes one signature and is never undone: the highest revoked version of a
workflow, in the file, in the index or in what a gate saw before, counts; a later version needs its own approval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field

from agentgate.approvals import sshsig
from agentgate.approvals._files import APPROVALS, INDEX, REVOKED, Tree, file_digest, text_of
from agentgate.approvals._shape import Digest, Moment, Person, Shape, ascii_json, from_json, from_yaml, seconds
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.refusal import ApprovalRefusal, ApprovalRefused, refuse
from agentgate.approvals.root import Role, Root
from agentgate.errors import KeyRefused

INDEX_LIFE = 7 * 24 * 3600
MAX_INDEX = 32 * 1024 * 1024
UNKNOWN = "?"  # no path of a workflow file
_LEEWAY = 300  # seconds a signer's clock may be ahead

_Id = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z")]
_Text = Annotated[str, Field(min_length=1, max_length=2000)]
_Version = Annotated[int, Field(ge=1, le=10**9)]
_Serial = Annotated[int, Field(ge=1, le=2**53 - 1)]


class _ApprovedShape(Shape):
    version: _Version
    digest: Digest
    paths: Annotated[list[_Text], Len(1, 2)]
    risks: Annotated[list[Literal["low", "medium", "high"]], Len(1, 3)]


class _NewestShape(_ApprovedShape):
    narrows: Annotated[list[_ApprovedShape], Len(0, 64)]
    removed: Literal[True] | None = None


class _RevokedInIndexShape(Shape):
    serial: _Serial
    digest: Digest
    up_to: dict[_Id, _Version]


class _IndexShape(Shape):
    agentgate: Literal["index/v1"]
    serial: _Serial
    expires: Moment
    signer: Person
    workflows: Annotated[dict[_Id, _NewestShape], Len(0, 100_000)]
    revoked: _RevokedInIndexShape


class _RevocationShape(Shape):
    up_to: _Version
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    by: Person


class _RevokedShape(Shape):
    agentgate: Literal["revoked/v1"]
    serial: _Serial
    signer: Person
    revoked: Annotated[dict[_Id, _RevocationShape], Len(0, 100_000)]


@dataclass(frozen=True, slots=True)
class Newest:
    """An approved version of a workflow.

    Attributes:
        paths: where it lies, and where the version before lay (`UNKNOWN`: nobody knows, every rule of the root counted).
        risks: its risk, and those that counted because of the version before.
        narrows: the versions it stands on, newest first, when it was approved as only narrowing.
        removed: nothing of the workflow was kept when the index was made; the version stays the lowest that may run.
    """

    version: int
    digest: str
    paths: tuple[str, ...]
    risks: tuple[str, ...]
    narrows: tuple[Newest, ...] = ()
    removed: bool = False

    @property
    def value(self) -> dict[str, Any]:
        """What an index says of it, without what it narrows."""
        return {"version": self.version, "digest": self.digest, "paths": list(self.paths), "risks": list(self.risks)}


@dataclass(frozen=True, slots=True)
class Revocation:
    """Versions up to and including `up_to` are revoked."""

    up_to: int
    reason: str
    by: str


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
    revoked: Mapping[str, int] = field(default_factory=dict)


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
    """The index, signed and in its time (`ended`: or past it, for those who sign the next one).

    Raises:
        ApprovalRefused: STALE INDEX (absent, past its end, or valid for longer than an index may be), TAMPERED, UNAPPROVED, EXPIRED.
    """
    file = f"{APPROVALS}/{INDEX}"
    data = tree.read(INDEX, ApprovalRefusal.STALE_INDEX, limit=MAX_INDEX)
    shape = from_json(_IndexShape, data, file, ApprovalRefusal.TAMPERED, large=True)
    signed_by(tree, INDEX, data, root=root, allowed=allowed, role="index", person=shape.signer, now=now)
    until = seconds(shape.expires)
    if now >= until and not ended:
        expected = "an index signed in the last seven days (agentgate workflow index)"
        raise refuse(ApprovalRefusal.STALE_INDEX, file, "expires", shape.expires, expected)
    if until > now + INDEX_LIFE + _LEEWAY:
        raise refuse(ApprovalRefusal.STALE_INDEX, file, "expires", shape.expires, "at most seven days from now")
    return Index(
        shape.serial,
        until,
        shape.signer,
        {id_: _newest(n, tuple(map(_newest, n.narrows)), removed=bool(n.removed)) for id_, n in shape.workflows.items()},
        shape.revoked.digest,
        shape.revoked.serial,
        shape.revoked.up_to,
    )


def _newest(shape: _ApprovedShape, narrows: tuple[Newest, ...] = (), *, removed: bool = False) -> Newest:
    return Newest(shape.version, shape.digest, tuple(shape.paths), tuple(shape.risks), narrows, removed)


def load_revoked(tree: Tree, root: Root, allowed: AllowedSigners, now: float) -> Revoked:
    """The revocations, signed.

    Raises:
        ApprovalRefused: TAMPERED (absent, malformed or changed), UNAPPROVED, EXPIRED.
    """
    file = f"{APPROVALS}/{REVOKED}"
    data = tree.read(REVOKED, ApprovalRefusal.TAMPERED)
    shape = from_yaml(_RevokedShape, text_of(data, file), file, ApprovalRefusal.TAMPERED)
    signed_by(tree, REVOKED, data, root=root, allowed=allowed, role="revoke", person=shape.signer, now=now)
    entries = {id_: Revocation(r.up_to, r.reason, r.by) for id_, r in shape.revoked.items()}
    return Revoked(shape.serial, file_digest(data), shape.signer, entries)


def check_same(index: Index, revoked: Revoked) -> None:
    """The revocations are those the index was made with, or newer ones.

    Raises:
        ApprovalRefused: ROLLBACK when older, TAMPERED when other.
    """
    file = f"{APPROVALS}/{REVOKED}"
    if revoked.serial < index.revoked_serial:
        raise refuse(ApprovalRefusal.ROLLBACK, file, "serial", revoked.serial, f"at least {index.revoked_serial}, as in the index")
    if revoked.serial == index.revoked_serial and revoked.digest != index.revoked_digest:
        raise refuse(ApprovalRefusal.TAMPERED, file, "digest", revoked.digest, f"{index.revoked_digest}, as in the index")


_NAMESPACES: Mapping[Role, str] = {
    "root": sshsig.ROOT_NAMESPACE,
    "index": sshsig.INDEX_NAMESPACE,
    "revoke": sshsig.REVOKED_NAMESPACE,
}


def signed_by(tree: Tree, name: str, data: bytes, *, root: Root, allowed: AllowedSigners, role: Role, person: str, now: float) -> None:
    """A trust file's one signature is by a person of this role.

    Raises:
        ApprovalRefused: TAMPERED when it is not a signature over these bytes, UNAPPROVED when it is by somebody else, EXPIRED.
    """
    file = f"{APPROVALS}/{name}.sig"
    text = tree.read(f"{name}.sig", ApprovalRefusal.TAMPERED)
    try:
        key = sshsig.verify(text_of(text, file), data, _NAMESPACES[role])
    except KeyRefused as error:
        raise refuse(ApprovalRefusal.TAMPERED, file, "signature", str(error), f"{person}'s over {name}") from None
    if person not in root.roles[role]:
        raise refuse(ApprovalRefusal.UNAPPROVED, file, "signer", person, f"one of roles.{role}: {', '.join(root.roles[role])}")
    if not root.owns(person, key):
        raise refuse(ApprovalRefusal.UNAPPROVED, file, "key", key.fingerprint, f"a key of {person} in the root")
    allowed.until(person, key, _NAMESPACES[role], now)


__all__ = [
    "INDEX_LIFE",
    "ApprovalRefused",
    "Index",
    "Newest",
    "Revocation",
    "Revoked",
    "check_same",
    "index_bytes",
    "load_index",
    "load_revoked",
]
