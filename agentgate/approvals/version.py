"""One stored version of a workflow: the definition that was signed, and every signature checked
by itself.

What a reviewer signs is an in-toto Statement v1 in RFC 8785 JSON over the digest of the
definition with every default written out. The gate checks everything it needs from the
statement against the definition itself; `root`, `tests` and `wider` record what the signer saw
and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field, TypeAdapter

from agentgate.approvals import sshsig
from agentgate.approvals._files import (
    APPROVALS,
    DEFINITION,
    EXPIRED,
    RISKS,
    STRICT,
    TAMPERED,
    UNAPPROVED,
    WRONG_PLACE,
    ApprovalRefused,
    Digest,
    Id,
    Moment,
    Person,
    Risk,
    Shape,
    Text,
    Tree,
    VersionNumber,
    file_digest,
    from_json,
    json_value,
    printable,
    refuse,
    seconds,
    text_of,
)
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.root import Root
from agentgate.approvals.sshsig import SshKey
from agentgate.errors import Failure, KeyRefused
from agentgate.loading.blocks import written_out
from agentgate.loading.yaml_nodes import Document, dotted, shown
from agentgate.values.canonical import canonical
from agentgate.values.value_class import once, value_class

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


@value_class
class Signed:
    """A valid signature: by whom, with which key, over which statement, and until when it holds
    (POSIX seconds).
    """

    person: str
    key: SshKey
    statement: Statement
    until: float


@value_class
class Version:
    """One stored version.

    Attributes:
        value: the parsed definition.
        signed: the valid signatures.
        ignored: why others do not count.
    """

    id: str
    version: int
    digest: str
    value: dict[str, Any]
    risk: Risk
    signed: tuple[Signed, ...]
    ignored: tuple[Failure, ...]

    @property
    def folder(self) -> str:
        """Where it is stored, as messages name it."""
        return f"{APPROVALS}/{self.id}/{self.version}"

    @property
    def file(self) -> str:
        """Its definition, as messages name it."""
        return f"{self.folder}/{DEFINITION}"

    def document(self) -> Document:
        """The definition as a document (without lines). Raises WorkflowError: it holds what no
        workflow file can say.
        """
        document = Document(self.file, self.value)
        _check_values(document, document.value)
        return document


@value_class
class VersionReader:
    """Reads versions by the trust files of one moment, each once.

    Attributes:
        now: POSIX seconds.
        known: digest -> definition of workflow files that were read already.
    """

    tree: Tree
    root: Root
    allowed: AllowedSigners
    now: float
    known: Mapping[str, dict[str, Any]]
    memo: dict[Any, Any] = field(default_factory=dict)

    @once
    def ascending(self, id_: str) -> list[int]:
        """The stored versions, oldest first, as they were when first asked for. Raises
        ApprovalRefused as `Tree.versions`.
        """
        return self.tree.versions(id_)[::-1]

    def has(self, id_: str, version: int, digest: str | None) -> bool:
        """Whether a version is there with this digest, whatever its signatures are worth."""
        try:
            return self.version(id_, version).digest == digest
        except ApprovalRefused:
            return False

    @once
    def version(self, id_: str, version: int) -> Version:
        """A version with its signatures, after checks 1 and 4 to 6 of
        `agentgate.approvals.judge`.

        Raises ApprovalRefused: the definition is absent, malformed, incomplete, or of another
        id or version.
        """
        folder = f"{id_}/{version}"
        file = f"{APPROVALS}/{folder}/{DEFINITION}"
        # (1) the definition, in its place
        data = self.tree.read(f"{folder}/{DEFINITION}", UNAPPROVED)
        digest = file_digest(data)
        # a workflow file has this digest: these bytes are its canonical form
        value = self.known.get(digest)
        if value is None:
            value = _complete(json_value(data, file, TAMPERED), file)
        if value.get("id") != id_ or value.get("version") != version:
            got = f"{value.get('id')} version {value.get('version')}"
            raise refuse(
                WRONG_PLACE, file, "id", got, f"{id_} version {version}, as the folder says"
            )
        if value.get("risk") not in RISKS:
            raise refuse(TAMPERED, file, "risk", shown(value.get("risk")), " or ".join(RISKS))
        signed = []
        ignored = []
        for name, _ in self.tree.names(folder):
            if name.endswith(".json") and name != DEFINITION:
                try:
                    signed.append(
                        self._signature(folder, name.removesuffix(".json"), value, digest)
                    )
                except ApprovalRefused as error:
                    ignored.append(error.refused.with_data(workflow=id_, version=version))
        return Version(
            id_, version, digest, value, value["risk"], tuple(signed), tuple(ignored)
        )

    def _signature(
        self, folder: str, person: str, value: Mapping[str, Any], digest: str
    ) -> Signed:
        file = f"{APPROVALS}/{folder}/{person}.json"
        sig = f"{APPROVALS}/{folder}/{person}.sig"
        # before anything is read: a flood of strangers costs nothing
        if person not in self.root.keys:
            raise refuse(UNAPPROVED, file, "signer", person, "somebody in the root")
        data = self.tree.read(f"{folder}/{person}.json", UNAPPROVED)
        armored = text_of(self.tree.read(f"{folder}/{person}.sig", UNAPPROVED), file)
        # (5) first, since nothing unsigned is worth a second look
        try:
            key = sshsig.verify(armored, data, sshsig.NAMESPACE)
        except KeyRefused as error:
            raise refuse(
                TAMPERED, sig, "signature", str(error), f"{person}'s over {person}.json"
            ) from None
        statement = Statement.parse(data, file)
        if statement.signer != person:
            raise refuse(
                WRONG_PLACE,
                file,
                "predicate.signer",
                statement.signer,
                f"{person}, as the file is named",
            )
        if not self.root.owns(person, key):
            raise refuse(
                UNAPPROVED, file, "key", key.fingerprint, f"a key of {person} in the root"
            )
        until = min(
            statement.until, self.allowed.until(person, key, sshsig.NAMESPACE, self.now)
        )
        # (4) about this definition
        for name, wrong, got, expected in (
            ("predicate.id", WRONG_PLACE, statement.id, value.get("id")),
            ("predicate.version", WRONG_PLACE, statement.version, value.get("version")),
            ("predicate.tenants", TAMPERED, list(statement.tenants), value.get("tenants")),
            ("predicate.risk", TAMPERED, statement.risk, value.get("risk")),
            ("subject[0].digest", TAMPERED, statement.digest, digest),
        ):
            if got != expected:
                raise refuse(
                    wrong, file, name, shown(got), f"{shown(expected)}, as in {DEFINITION}"
                )
        # (6) in its time
        if self.now >= statement.until:
            raise refuse(
                EXPIRED,
                file,
                "predicate.not_after",
                statement.not_after,
                "an approval that has not ended",
            )
        return Signed(person, key, statement, until)


def _complete(value: Any, file: str) -> dict[str, Any]:
    """A signed definition with every default written out: a default that it left open, a later
    release could change.

    Raises ApprovalRefused: TAMPERED, naming the first default that is left open.
    """
    if type(value) is not dict:
        raise refuse(TAMPERED, file, "document", shown(value), "a definition")
    complete = written_out(value)
    if complete != value:
        field, _, missing = first_difference(value, complete)
        raise refuse(
            TAMPERED,
            file,
            field,
            "nothing",
            f"{missing} (a signed definition writes every default out: sign again)",
        )
    return value


def first_difference(
    got: Any, expected: Any, path: tuple[str | int, ...] = ()
) -> tuple[str, str, str]:
    """Dotted path of the first place where two definitions differ, what the first has there and
    what was approved.
    """
    if type(got) is dict and type(expected) is dict:
        for key in dict.fromkeys((*expected, *got)):
            if key not in got or key not in expected or got[key] != expected[key]:
                return first_difference(got.get(key), expected.get(key), (*path, key))
    if type(got) is list and type(expected) is list and len(got) == len(expected):
        for at, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
            if mine != theirs:
                return first_difference(mine, theirs, (*path, at))
    return dotted(path), _all_of(got), _all_of(expected)


def _all_of(value: Any) -> str:
    return printable(value) if type(value) in {dict, list} else shown(value)


def _check_values(document: Document, value: Any, path: tuple[str | int, ...] = ()) -> None:
    """Only what a workflow file can say: printable text, whole numbers, true and false, in
    lists and mappings.

    Raises WorkflowError: at the first other value.
    """
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            _check_values(document, key, path)
            _check_values(document, item, (*path, key))
    elif kind is list:
        for at, item in enumerate(value):
            _check_values(document, item, (*path, at))
    elif not (
        kind is int or kind is bool or (kind is str and value.replace("\n", "").isprintable())
    ):
        document.report(path, shown(value), "what a workflow file can say")
        document.refuse()
