"""Is this version approved? One pass over what lies in its folder; the answer carries everything the gate needs to run it.

The checks of one version, in order (the same numbers stand in the code):

1. The canonical definition is there, and is of this id and version. WRONG PLACE, TAMPERED.
2. Where the index names this version, it is this very definition. TAMPERED.
3. It is not revoked. REVOKED.
4. Each statement is about this definition and repeats its version, tenants and risk. TAMPERED, naming the field.
5. Each signature is over its statement, in our namespace, by a key that root and allowed_signers give to that person now.
6. It has not ended. EXPIRED.
7. Signers agree on path, proposer, previous version and roles; `previous` is the newest version known before this one.
8. The proposer does not count (except under a solo root, which approves only low risk). Every rule of the root for its path,
   now and before, at the higher of its risks, now and before, has its number of distinct people and keys. UNAPPROVED.
9. Or: it is proved to only narrow an approved version; then one signature under each rule is enough, for as long as that lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from agentgate._sharing import Sharing
from agentgate.approvals import sshsig
from agentgate.approvals._files import APPROVALS, DEFINITION, Tree, file_digest, text_of
from agentgate.approvals._shape import json_value
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.index import Index, Revoked
from agentgate.approvals.narrowing import Prover, name_of
from agentgate.approvals.refusal import ApprovalRefusal, ApprovalRefused, Refused, refuse
from agentgate.approvals.root import RISKS, Need, Root
from agentgate.approvals.sshkey import PublicKey
from agentgate.approvals.statement import Statement
from agentgate.definition import Derive, load_document
from agentgate.errors import KeyRefused, WorkflowError
from agentgate.workflow import Workflow
from agentgate.yaml_nodes import Document, shown

MAX_NARROWINGS = 40  # in a row; then a quorum looks again

_WEIGHT = (ApprovalRefusal.TAMPERED, ApprovalRefusal.WRONG_PLACE, ApprovalRefusal.EXPIRED, ApprovalRefusal.UNAPPROVED)


@dataclass(frozen=True, slots=True)
class Signed:
    """A valid signature: who, with which key, what was stated, and until when it holds (POSIX seconds)."""

    person: str
    key: PublicKey
    statement: Statement
    until: float


@dataclass(frozen=True, slots=True)
class Version:
    """One version as it lies in its folder.

    Attributes:
        value: the parsed definition.
        signed: the valid signatures.
        ignored: why others do not count.
    """

    id: str
    version: int
    digest: str
    value: dict[str, Any]
    signed: tuple[Signed, ...]
    ignored: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class Approved:
    """A version whose approval holds.

    Attributes:
        statement: what the counted signers agree on.
        until: POSIX seconds at which the approval ends.
        signers: whose signatures count.
        narrowing: approved by one, as a proved narrowing.
    """

    version: Version
    statement: Statement
    until: float
    signers: tuple[str, ...]
    narrowing: bool

    def load(self, derive: Derive, share: Sharing, document: Document | None = None) -> Workflow:
        """The workflow as the gate enforces it, with the roles that were approved.

        Args:
            derive: the intent deriver.
            share: table of equal values.
            document: the workflow file, when its value is the approved one (it has lines).

        Raises:
            WorkflowError: it does not load (a deriver that reads an example otherwise).
        """
        roles = {name: frozenset(scopes) for name, scopes in self.statement.roles.items()}
        if document is None:
            document = Document(f"{APPROVALS}/{self.version.id}/{self.version.version}/{DEFINITION}", self.version.value)
            _check_values(document, document.value)
        return load_document(document, roles, derive, share=share)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a version is: what is needed, who signed, and why it is not in force."""

    version: Version | None
    needs: tuple[Need, ...]
    refused: Refused | None
    approved: Approved | None


@dataclass(slots=True)
class Judge:
    """Answers for one directory at one moment.

    Attributes:
        known: versions that were in force before (id -> version), as the gate remembers them.
        now: POSIX seconds.
        read: digest -> definition of the workflow files that were read.
    """

    tree: Tree
    root: Root
    allowed: AllowedSigners
    index: Index | None
    revoked: Revoked | None
    known: Mapping[str, int]
    now: float
    derive: Derive
    prover: Prover
    read: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    share: Sharing = field(default_factory=Sharing)
    _seen: dict[tuple[str, int], Version] = field(default_factory=dict)
    _judged: dict[tuple[str, int], Standing] = field(default_factory=dict)
    _depth: int = 0

    def revoked_up_to(self, id_: str) -> int:
        """The highest revoked version of a workflow; 0: none."""
        inside = self.revoked.revoked.get(id_) if self.revoked else None
        return max(inside.up_to if inside else 0, self.index.revoked.get(id_, 0) if self.index else 0, self.known.get(f"revoked:{id_}", 0))

    def floor(self, id_: str) -> int:
        """Below this version nothing of this workflow may run."""
        newest = self.index.workflows.get(id_) if self.index else None
        return max(newest.version if newest else 0, self.known.get(id_, 0))

    def standing(self, id_: str, version: int) -> Standing:
        """Everything about one version; never raises a refusal."""
        found = self._judged.get((id_, version))
        if found is None:
            found = self._judged[(id_, version)] = self._judge(id_, version)
        return found

    # --- one version -----------------------------------------------------------------------------------------------------
    def _judge(self, id_: str, version: int) -> Standing:
        try:
            found = self.version(id_, version)
        except ApprovalRefused as error:
            return Standing(None, (), replace(error.refused, workflow=id_, version=version), None)
        try:
            self._whole(found)
        except ApprovalRefused as error:
            return Standing(found, (), replace(error.refused, workflow=id_, version=version), None)
        return self._counted(found)

    def version(self, id_: str, version: int) -> Version:
        """What lies in a version's folder, each signature checked by itself.

        Raises:
            ApprovalRefused: the definition is absent, malformed or of another id or version.
        """
        found = self._seen.get((id_, version))
        if found is None:
            found = self._seen[(id_, version)] = self._read(id_, version)
        return found

    def _read(self, id_: str, version: int) -> Version:
        folder = f"{id_}/{version}"
        file = f"{APPROVALS}/{folder}/{DEFINITION}"
        # (1) the definition, in its place
        data = self.tree.read(f"{folder}/{DEFINITION}", ApprovalRefusal.UNAPPROVED)
        digest = file_digest(data)
        value = self.read.get(digest)  # a workflow file with this digest was read: these bytes are its canonical form
        if value is None:
            value = json_value(data, file, ApprovalRefusal.TAMPERED)
        if type(value) is not dict or value.get("id") != id_ or value.get("version") != version:
            got = f"{value.get('id')} version {value.get('version')}" if type(value) is dict else shown(value)
            raise refuse(ApprovalRefusal.WRONG_PLACE, file, "id", got, f"{id_} version {version}, as the folder says")
        signed, ignored = [], []
        for name, kind in self.tree.names(folder):
            if name.endswith(".json") and name != DEFINITION and kind != "folder":
                try:
                    signed.append(self._signature(folder, name.removesuffix(".json"), value, digest))
                except ApprovalRefused as error:
                    ignored.append(replace(error.refused, workflow=id_, version=version))
        return Version(id_, version, digest, value, tuple(signed), tuple(ignored))

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

    def _whole(self, found: Version) -> None:
        """What refuses the version whoever signed it."""
        file = f"{APPROVALS}/{found.id}/{found.version}/{DEFINITION}"
        # (2) the very definition that the index names
        newest = self.index.workflows.get(found.id) if self.index else None
        if newest is not None and newest.version == found.version and newest.digest != found.digest:
            raise refuse(ApprovalRefusal.TAMPERED, file, "digest", found.digest, f"{newest.digest}, as in the index")
        # (3) not revoked
        if found.version <= self.revoked_up_to(found.id):
            got = f"version {found.version}, revoked up to {self.revoked_up_to(found.id)}"
            raise refuse(ApprovalRefusal.REVOKED, file, "version", got, "a later version with approvals of its own")

    # --- counting --------------------------------------------------------------------------------------------------------
    def _counted(self, found: Version) -> Standing:
        ignored = list(found.ignored)
        # (7) those who say the same
        groups: dict[Any, list[Signed]] = {}
        for signed in found.signed:
            said = signed.statement
            if (wrong := self._previous(found, signed)) is not None:
                ignored.append(wrong)
                continue
            groups.setdefault((said.path, said.proposer, said.previous, tuple(sorted(said.roles.items()))), []).append(signed)
        best: tuple[Need, ...] | None = None
        for group in sorted(groups.values(), key=len, reverse=True):
            needs, approved = self._group(found, group)
            if approved is not None:
                return Standing(found, needs, None, approved)
            best = needs if best is None else best
        if best is None:
            best = self.root.needs(None, RISKS if found.version > 1 else (found.value["risk"],), ())
        return Standing(found, best, self._short(found, best, ignored), None)

    def _group(self, found: Version, group: list[Signed]) -> tuple[tuple[Need, ...], Approved | None]:
        said = group[0].statement
        # (8) the proposer never counts, and a solo root approves low risk only
        mine = said.proposer.casefold()
        counted = [s for s in group if self.root.solo or not (s.person.casefold() == mine or self.root.owns(said.proposer, s.key))]
        paths, risks = self._before(found, said)

        def needs(of: Iterable[Signed], *, narrower: bool = False) -> tuple[Need, ...]:
            if self.root.solo and set(risks) != {"low"}:
                return (Need("**", frozenset(self.root.keys), 0, 0),)
            return self.root.needs(paths, risks, [(s.person, s.key.material) for s in of], narrower=narrower)

        full = needs(counted)
        who = tuple(s.person for s in counted)
        if _met(full):
            return full, Approved(found, said, _end(counted, lambda some: _met(needs(some))), who, narrowing=False)
        # (9) one signature is enough for what only narrows
        one = needs(counted, narrower=True)
        if said.previous is not None and _met(one) and (base := self._narrows(found, said)) is not None:
            until = min(base.until, _end(counted, lambda some: _met(needs(some, narrower=True))))
            return one, Approved(found, said, until, who, narrowing=True)
        return full, None

    def _before(self, found: Version, said: Statement) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """Paths and risks that count: now, and of the version before. One that nobody vouches for: every rule, every risk."""
        risk = str(found.value["risk"])
        if said.previous is None:
            return (said.path,), (risk,)
        base = self._base(found, said.previous)
        vouched = next(iter(base.signed), None) if base is not None else None
        if base is None or vouched is None:
            return None, RISKS
        return tuple(dict.fromkeys((said.path, vouched.statement.path))), tuple(dict.fromkeys((risk, str(base.value["risk"]))))

    def _base(self, found: Version, digest: str) -> Version | None:
        """The kept version before this one that has this digest."""
        for version in self.tree.versions(found.id):
            if version < found.version:
                try:
                    base = self.version(found.id, version)
                except ApprovalRefused:
                    continue
                if base.digest == digest:
                    return base
        return None

    def _previous(self, found: Version, signed: Signed) -> Refused | None:
        """The refusal of a signature that was given against another version than the newest known before this one."""
        file = f"{APPROVALS}/{found.id}/{found.version}/{signed.person}.json"
        floor = self.floor(found.id)
        newest = self.index.workflows.get(found.id) if self.index else None
        said = signed.statement.previous
        if not 0 < floor < found.version:
            return None
        base = self._base(found, said) if said is not None else None
        if newest is not None and newest.version == floor and said == newest.digest:
            return None
        if base is not None and base.version >= floor:
            return None
        expected = f"{newest.digest if newest is not None and newest.version == floor else 'the digest of'} version {floor} (sign again)"
        return refuse(
            ApprovalRefusal.UNAPPROVED, file, "predicate.previous", said or "none", expected, workflow=found.id, version=found.version
        ).refused

    def _narrows(self, found: Version, said: Statement) -> Approved | None:
        """The approved version that this one is proved to only narrow: the newest one kept before it."""
        if self._depth >= MAX_NARROWINGS:
            return None
        self._depth += 1
        try:
            before = next(
                (a for v in self.tree.versions(found.id) if v < found.version and (a := self.standing(found.id, v).approved)), None
            )
        finally:
            self._depth -= 1
        if before is None or before.version.digest != said.previous or before.statement.path != said.path:
            return None  # a move changes who reviews it: that is for the quorum
        if RISKS.index(found.value["risk"]) < RISKS.index(before.version.value["risk"]):
            return None  # so is a lower risk
        base = before.version
        mine = Approved(found, said, inf, (), narrowing=True)

        def load() -> tuple[Workflow, Workflow]:
            return before.load(self.derive, self.share), mine.load(self.derive, self.share)

        try:
            proved = self.prover.narrows(name_of(base.digest, before.statement.roles), name_of(found.digest, said.roles), load)
        except WorkflowError:
            return None
        return before if proved else None

    def _short(self, found: Version, needs: tuple[Need, ...], ignored: list[Refused]) -> Refused:
        """The refusal of a version that did not reach its threshold: what is wrong with a signature, else how many are missing."""
        for name in _WEIGHT:
            for each in ignored:
                if each.name is name:
                    return each
        missing = next((n for n in needs if not n.met), None)
        file = f"{APPROVALS}/{found.id}/{found.version}"
        if missing is None:
            got, expected = "no rule of the root for its path", "a rule under reviews"
        elif missing.needed == 0:
            solo = "under a solo root" if self.root.solo else f"under the rule for {missing.path}"
            got, expected = f"risk {found.value['risk']}", f"a risk that can be approved {solo}"
        else:
            got = f"{missing.have} of {missing.needed} signatures for {missing.path}"
            expected = f"{missing.needed} of {', '.join(sorted(missing.by))}; the proposer never counts"
        return refuse(ApprovalRefusal.UNAPPROVED, file, "signatures", got, expected, workflow=found.id, version=found.version).refused


def _met(needs: tuple[Need, ...]) -> bool:
    return bool(needs) and all(need.met for need in needs)


def _end(counted: list[Signed], enough: Callable[[list[Signed]], bool]) -> float:
    """The moment from which the signatures that still hold are no longer enough."""
    for end in sorted({s.until for s in counted}):
        if not enough([s for s in counted if s.until > end]):
            return end
    return inf


def _check_values(document: Document, value: Any, path: tuple[str | int, ...] = ()) -> None:
    """Only what a workflow file can say: text, whole numbers, true and false, in lists and mappings; nothing that cannot be seen.

    Raises:
        WorkflowError: at the first other value.
    """
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            _check_values(document, key, path)
            _check_values(document, item, (*path, key))
    elif kind is list:
        for at, item in enumerate(value):
            _check_values(document, item, (*path, at))
    elif not (kind is int or kind is bool or (kind is str and value.replace("\n", "").isprintable())):
        document.report(path, shown(value), "what a workflow file can say")
        document.refuse()
