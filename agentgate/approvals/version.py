"""One version of a workflow as it lies in its folder: the definition that was signed, and every signature checked by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentgate.approvals import sshsig
from agentgate.approvals._files import APPROVALS, DEFINITION, Tree, file_digest, text_of
from agentgate.approvals._shape import json_value
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.refusal import ApprovalRefusal, ApprovalRefused, Refused, printable, refuse
from agentgate.approvals.root import RISKS, Root
from agentgate.approvals.sshkey import SshKey
from agentgate.approvals.statement import Statement
from agentgate.errors import KeyRefused
from agentgate.loading.written_out import written_out
from agentgate.loading.yaml_nodes import dotted, shown


@dataclass(frozen=True, slots=True)
class Signed:
    """A valid signature: who, with which key, what was stated, and until when it holds (POSIX seconds)."""

    person: str
    key: SshKey
    statement: Statement
    until: float


@dataclass(frozen=True, slots=True)
class Version:
    """One version as it lies in its folder.

    Attributes:
        value: the parsed definition.
        risk: its risk.
        signed: the valid signatures.
        ignored: why others do not count.
    """

    id: str
    version: int
    digest: str
    value: dict[str, Any]
    risk: str
    signed: tuple[Signed, ...]
    ignored: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class VersionReader:
    """Reads versions by the trust files of one moment.

    Attributes:
        now: POSIX seconds.
        known: digest -> definition of workflow files that were read already.
    """

    tree: Tree
    root: Root
    allowed: AllowedSigners
    now: float
    known: Mapping[str, dict[str, Any]]

    def version(self, id_: str, version: int) -> Version:
        """A version with its signatures, checks 1 and 4 to 6 of `agentgate.approvals.judge`.

        Raises:
            ApprovalRefused: the definition is absent, malformed or of another id or version.
        """
        folder = f"{id_}/{version}"
        file = f"{APPROVALS}/{folder}/{DEFINITION}"
        # (1) the definition, in its place
        data = self.tree.read(f"{folder}/{DEFINITION}", ApprovalRefusal.UNAPPROVED)
        digest = file_digest(data)
        value = self.known.get(digest)  # a workflow file has this digest: these bytes are its canonical form
        if value is None:
            value = _complete(json_value(data, file, ApprovalRefusal.TAMPERED), file)
        if value.get("id") != id_ or value.get("version") != version:
            got = f"{value.get('id')} version {value.get('version')}"
            raise refuse(ApprovalRefusal.WRONG_PLACE, file, "id", got, f"{id_} version {version}, as the folder says")
        if value.get("risk") not in RISKS:
            raise refuse(ApprovalRefusal.TAMPERED, file, "risk", shown(value.get("risk")), " or ".join(RISKS))
        signed, ignored = [], []
        for name, _ in self.tree.names(folder):
            if name.endswith(".json") and name != DEFINITION:
                try:
                    signed.append(self._signature(folder, name.removesuffix(".json"), value, digest))
                except ApprovalRefused as error:
                    ignored.append(replace(error.refused, workflow=id_, version=version))
        return Version(id_, version, digest, value, value["risk"], tuple(signed), tuple(ignored))

    def _signature(self, folder: str, person: str, value: Mapping[str, Any], digest: str) -> Signed:
        file = f"{APPROVALS}/{folder}/{person}.json"
        if person not in self.root.keys:  # before anything is read: a flood of strangers costs nothing
            raise refuse(ApprovalRefusal.UNAPPROVED, file, "signer", person, "somebody in the root")
        data = self.tree.read(f"{folder}/{person}.json", ApprovalRefusal.UNAPPROVED)
        armored = text_of(self.tree.read(f"{folder}/{person}.sig", ApprovalRefusal.UNAPPROVED), file)
        # (5) first, since nothing unsigned is worth a second look
        try:
            key = sshsig.verify(armored, data, sshsig.NAMESPACE)
        except KeyRefused as error:
            sig = file.removesuffix(".json") + ".sig"
            raise refuse(ApprovalRefusal.TAMPERED, sig, "signature", str(error), f"{person}'s over {person}.json") from None
        statement = Statement.parse(data, file)
        if statement.signer != person:
            raise refuse(ApprovalRefusal.WRONG_PLACE, file, "predicate.signer", statement.signer, f"{person}, as the file is named")
        if not self.root.owns(person, key):
            raise refuse(ApprovalRefusal.UNAPPROVED, file, "key", key.fingerprint, f"a key of {person} in the root")
        until = min(statement.until, self.allowed.until(person, key, sshsig.NAMESPACE, self.now))
        # (4) about this definition
        for name, got, expected in (
            ("predicate.id", statement.id, value.get("id")),
            ("predicate.version", statement.version, value.get("version")),
            ("predicate.tenants", list(statement.tenants), value.get("tenants")),
            ("predicate.risk", statement.risk, value.get("risk")),
            ("subject[0].digest", statement.digest, digest),
        ):
            if got != expected:
                wrong = ApprovalRefusal.WRONG_PLACE if name in {"predicate.id", "predicate.version"} else ApprovalRefusal.TAMPERED
                raise refuse(wrong, file, name, shown(got), f"{shown(expected)}, as in {DEFINITION}")
        # (6) in its time
        if self.now >= statement.until:
            raise refuse(ApprovalRefusal.EXPIRED, file, "predicate.not_after", statement.not_after, "an approval that has not ended")
        return Signed(person, key, statement, until)


def _complete(value: Any, file: str) -> dict[str, Any]:
    """A signed definition, every default of which is written out: what it leaves open, a later release could fill otherwise.

    Raises:
        ApprovalRefused: TAMPERED, naming the first field that is left open.
    """
    if type(value) is not dict:
        raise refuse(ApprovalRefusal.TAMPERED, file, "document", shown(value), "a definition")
    complete = written_out(value)
    if complete != value:
        field, _, missing = first_difference(value, complete)
        raise refuse(
            ApprovalRefusal.TAMPERED, file, field, "nothing", f"{missing} (a signed definition writes every default out: sign again)"
        )
    return value


def first_difference(got: Any, expected: Any, path: tuple[str | int, ...] = ()) -> tuple[str, str, str]:
    """Dotted path of the first place where two definitions differ, what stands there and what was approved."""
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
