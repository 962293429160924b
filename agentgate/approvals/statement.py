"""What a reviewer signs: an in-toto Statement v1 in RFC 8785 JSON over the digest of the
definition with every default written out.

Rules: the gate checks everything it needs from the statement against the definition itself;
`root`, `tests` and `wider` record what the signer saw and decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import Field, TypeAdapter

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
    from_json,
    seconds,
)
from agentgate.approvals.refusal import TAMPERED, refuse
from agentgate.values.canonical import canonical

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:agentgate:workflow-approval:v1"
MAX_WIDER = 500


class _DigestShape(Shape):
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class _SubjectShape(Shape):
    name: Id
    digest: _DigestShape


@dataclass(frozen=True, slots=True, kw_only=True)
class _Predicate:
    __pydantic_config__ = STRICT

    id: Id
    path: Text
    version: VersionNumber
    tenants: Annotated[tuple[Text, ...], Len(1, 1000)]
    risk: Risk
    previous: Digest | None
    root: Digest
    tests: Digest | None
    roles: Annotated[dict[Id, tuple[Text, ...]], Len(0, 1000)]
    wider: Annotated[tuple[Text, ...], Len(0, MAX_WIDER)]
    proposer: Person
    signer: Person
    role: Literal["reviewer"]
    not_after: Moment
    authors: Annotated[tuple[Person, ...], Len(0, 200)] = ()


class _StatementShape(Shape):
    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_SubjectShape, ...], Len(1, 1)]
    predicate_type: Annotated[
        Literal["urn:agentgate:workflow-approval:v1"], Field(alias="predicateType")
    ]
    predicate: _Predicate


_STATEMENT = TypeAdapter(_StatementShape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement(_Predicate):
    """One reviewer's statement about one version.

    Attributes:
        id, version, tenants, risk: as in the definition.
        digest: ``sha256:...`` of the definition's canonical bytes.
        path: the workflow file, below the workflow directory.
        previous: digest of the version it was compared with; None: there was none.
        root, tests: digests of what the signer saw (tests: of the bytes beside the workflow;
            None: none).
        roles: the static roles the workflow stays narrower than, each with its scopes.
        wider: what it newly permits, in words.
        proposer: who made the change; never counts.
        authors: who else wrote or committed part of it since the version before; none of them
            counts.
        not_after: until when the approval holds, ``2031-12-31T00:00:00Z``.
    """

    digest: Digest

    @property
    def data(self) -> bytes:
        """The bytes that are signed: the in-toto Statement."""
        return canonical(
            {
                "_type": TYPE,
                "subject": [
                    {"name": self.id, "digest": {"sha256": self.digest.removeprefix("sha256:")}}
                ],
                "predicateType": PREDICATE,
                "predicate": {
                    f.name: getattr(self, f.name)
                    for f in fields(_Predicate)
                    if f.name != "authors" or self.authors
                },
            },
            "statement",
        )

    @property
    def until(self) -> float:
        """`not_after` in POSIX seconds."""
        return seconds(self.not_after)

    @classmethod
    def parse(cls, data: bytes, file: str) -> Statement:
        """Read a statement's bytes. Raises ApprovalRefused: TAMPERED, with the field."""
        shape = from_json(_STATEMENT, data, file, TAMPERED)
        [subject] = shape.subject
        if subject.name != shape.predicate.id:
            raise refuse(TAMPERED, file, "subject[0].name", subject.name, shape.predicate.id)
        predicate = {
            field.name: getattr(shape.predicate, field.name) for field in fields(_Predicate)
        }
        return cls(digest=f"sha256:{subject.digest.sha256}", **predicate)
