"""What a reviewer signs: an in-toto Statement v1 in RFC 8785 JSON over the digest of the parsed definition.

Rules: comments may change, deciding values may not. Everything the gate needs is in the statement and checked against the
definition itself; `root`, `tests` and `wider` say what the signer saw and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field, ValidationError

from agentgate.approvals._shape import Digest, Moment, Person, Shape, from_json, seconds
from agentgate.approvals.refusal import ApprovalRefusal, refuse
from agentgate.values.canonical import canonical

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:agentgate:workflow-approval:v1"
MAX_WIDER = 500

_Text = Annotated[str, Field(min_length=1, max_length=2000)]
_Id = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z")]


class _DigestShape(Shape):
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class _SubjectShape(Shape):
    name: _Id
    digest: _DigestShape


class _PredicateShape(Shape):
    id: _Id
    path: _Text
    version: Annotated[int, Field(ge=1, le=10**9)]
    tenants: Annotated[list[_Text], Len(1, 1000)]
    risk: Literal["low", "medium", "high"]
    previous: Digest | None
    root: Digest
    tests: Digest | None
    roles: Annotated[dict[_Id, list[_Text]], Len(0, 1000)]
    wider: Annotated[list[_Text], Len(0, MAX_WIDER)]
    proposer: Person
    signer: Person
    role: Literal["reviewer"]
    not_after: Moment


class _StatementShape(Shape):
    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[list[_SubjectShape], Len(1, 1)]
    predicate_type: Annotated[Literal["urn:agentgate:workflow-approval:v1"], Field(alias="predicateType")]
    predicate: _PredicateShape


@dataclass(frozen=True, slots=True)
class Statement:
    """One reviewer's statement about one version.

    Attributes:
        id, version, tenants, risk: as the definition says.
        digest: ``sha256:...`` of the definition's canonical bytes.
        path: the workflow file, below the workflow directory.
        previous: digest of the version it was compared with; None: there was none.
        root, tests: digests of what the signer saw (tests: of the bytes beside the workflow; None: none).
        roles: the static roles the workflow stays narrower than, each with its scopes.
        wider: what it newly permits, in words.
        proposer: who made the change; never counts.
        not_after: until when the approval holds, ``2031-12-31T00:00:00Z``.
    """

    id: str
    version: int
    digest: str
    path: str
    tenants: tuple[str, ...]
    risk: str
    previous: str | None
    root: str
    tests: str | None
    roles: Mapping[str, tuple[str, ...]]
    wider: tuple[str, ...]
    proposer: str
    signer: str
    not_after: str

    @property
    def data(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self.value, "statement")

    @property
    def value(self) -> dict[str, Any]:
        """The in-toto Statement."""
        return {
            "_type": TYPE,
            "subject": [{"name": self.id, "digest": {"sha256": self.digest.removeprefix("sha256:")}}],
            "predicateType": PREDICATE,
            "predicate": {
                "id": self.id,
                "path": self.path,
                "version": self.version,
                "tenants": list(self.tenants),
                "risk": self.risk,
                "previous": self.previous,
                "root": self.root,
                "tests": self.tests,
                "roles": {name: list(scopes) for name, scopes in self.roles.items()},
                "wider": list(self.wider),
                "proposer": self.proposer,
                "signer": self.signer,
                "role": "reviewer",
                "not_after": self.not_after,
            },
        }

    @property
    def until(self) -> float:
        """`not_after` in POSIX seconds."""
        return seconds(self.not_after)

    @classmethod
    def parse(cls, data: bytes, file: str) -> Statement:
        """Read a statement's bytes.

        Raises:
            ApprovalRefused: TAMPERED, with the field.
        """
        try:
            shape = _StatementShape.model_validate_json(data)
        except ValidationError:  # the slow way says what is wrong
            shape = from_json(_StatementShape, data, file, ApprovalRefusal.TAMPERED)
        said, subject = shape.predicate, shape.subject[0]
        if subject.name != said.id:
            raise refuse(ApprovalRefusal.TAMPERED, file, "subject[0].name", subject.name, said.id)
        found = cls(
            id=said.id,
            version=said.version,
            digest="sha256:" + subject.digest.sha256,
            path=said.path,
            tenants=tuple(said.tenants),
            risk=said.risk,
            previous=said.previous,
            root=said.root,
            tests=said.tests,
            roles={name: tuple(scopes) for name, scopes in said.roles.items()},
            wider=tuple(said.wider),
            proposer=said.proposer,
            signer=said.signer,
            not_after=said.not_after,
        )
        if found.data != data:  # duplicate keys, another order, escapes, white space
            raise refuse(ApprovalRefusal.TAMPERED, file, "document", "JSON in another form", "RFC 8785 JSON (the one form that is signed)")
        return found
