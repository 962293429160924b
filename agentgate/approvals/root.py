"""The root: who reviews what, with which keys, and how many signatures it takes. Pinned by its
digest in the gate's settings.

Rules: a root is signed by its own threshold. One that is not the pinned root is trusted only at
the end of a chain from it in which each root is signed by its own threshold and by that of the
one before, versions rising by one. A root is signed by keys that a root names, so the chain is
all that is needed to check it. An expired root loads nothing.

The people of a root are approvers of holds, too: an SSH signature becomes a person with their
teams. The key must be one that the root gives to exactly one person and that
``allowed_signers`` lets sign holds now (``agentgate-hold`` among its namespaces); an expired
root names nobody. A person's name in the root is their user id, their teams are their groups. A
person for whom the root names tenants answers in these only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from annotated_types import Len
from pydantic import Field

from agentgate.approvals import sshsig
from agentgate.approvals._files import (
    APPROVALS,
    EXPIRED,
    ROOT,
    ROOT_NOT_TRUSTED,
    SIGNERS,
    TAMPERED,
    ApprovalRefused,
    Day,
    Digest,
    Fingerprint,
    Person,
    Shape,
    Team,
    Tenant,
    Tree,
    end_of,
    file_digest,
    from_yaml,
    refuse,
    text_of,
)
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.sshsig import SshKey
from agentgate.errors import CanonicalError, KeyRefused
from agentgate.values.patterns import Glob
from agentgate.values.value_class import value_class

Role = Literal["root", "index", "revoke", "renew"]
MAX_ROTATIONS = 200

_Count = Annotated[int, Field(ge=1, le=20)]
_People = Annotated[list[Person], Len(1, 200)]


class PersonShape(Shape):
    """One person: fingerprints of the keys, teams, and the only tenants whose held calls they
    answer (absent: of all tenants).
    """

    keys: Annotated[list[Fingerprint], Len(1, 20)]
    teams: Annotated[list[Team], Len(1, 50)] | None = None
    tenants: Annotated[list[Tenant], Len(1, 1000)] | None = None


class RolesShape(Shape):
    """Who signs which trust file; `renew` carries an index on for a while, and does nothing
    else.
    """

    root: _People
    index: _People
    revoke: _People
    renew: _People | None = None


class SignaturesShape(Shape):
    """How many signatures at each risk; a risk that is left out cannot be approved."""

    low: _Count | None = None
    medium: _Count | None = None
    high: _Count | None = None


class ReviewShape(Shape):
    """Who reviews the workflows whose path matches."""

    path: Annotated[str, Field(min_length=1, max_length=200)]
    by: Annotated[list[Annotated[str, Field(min_length=1, max_length=140)]], Len(1, 200)]
    signatures: SignaturesShape

    @property
    def counts(self) -> dict[str, int]:
        """Risk -> how many signatures."""
        return self.signatures.model_dump(exclude_none=True)


class RootShape(Shape):
    """``root.yaml``."""

    agentgate: Literal["root/v1"]
    version: Annotated[int, Field(ge=1, le=10**6)]
    expires: Day
    threshold: _Count
    allowed_signers: Digest
    people: Annotated[dict[Person, PersonShape], Len(1, 1000)]
    roles: RolesShape
    reviews: Annotated[list[ReviewShape], Len(1, 200)]
    solo: bool = False
    demo: bool = False
    signed_commits: bool = False


@value_class
class Review:
    """One rule: below `path`, people of `by` sign, this often per risk."""

    path: Glob
    by: frozenset[str]
    signatures: Mapping[str, int]


@value_class
class Need:
    """How many signatures one rule requires of a change, and how many it has.

    Attributes:
        path: the rule's glob.
        by: whose signatures count.
        needed: how many; 0: this risk cannot be approved under this rule.
        have: how many there are.
    """

    path: str
    by: frozenset[str]
    needed: int
    have: int

    @property
    def met(self) -> bool:
        """True when the rule requires no more."""
        return self.needed > 0 and self.have >= self.needed


Needs = tuple[Need, ...]


@value_class
class Root:
    """A root that was read; trusted only when `load_root` returned it.

    Attributes:
        digest: ``sha256:...`` of the file's bytes.
        shape: the file as written.
        until: POSIX seconds of its end.
        keys: person -> fingerprints.
        roles: who signs root, index and revocations, and who renews an index.
    """

    digest: str
    shape: RootShape
    version: int
    until: float
    keys: Mapping[str, frozenset[str]]
    roles: Mapping[Role, tuple[str, ...]]
    reviews: tuple[Review, ...]
    solo: bool

    @classmethod
    def parse(cls, data: bytes, file: str) -> Root:
        """Read a root's bytes. Raises ApprovalRefused: ROOT NOT TRUSTED, with the line."""
        shape = from_yaml(RootShape, text_of(data, file), file, ROOT_NOT_TRUSTED)
        people = {name: frozenset(p.keys) for name, p in shape.people.items()}
        teams: dict[str, set[str]] = {}
        for name, person in shape.people.items():
            for team in person.teams or ():
                teams.setdefault(f"team:{team}", set()).add(name)
        roles: dict[Role, tuple[str, ...]] = {
            role: tuple(names or ())  # type: ignore[misc]  # its fields are the roles
            for role, names in shape.roles
        }
        for role, names in roles.items():
            for name in names:
                if name not in people:
                    raise _wrong(file, f"roles.{role}", name, "a name under people")
        most = len(set(roles["root"]))
        if shape.threshold > most:
            raise _wrong(
                file, "threshold", shape.threshold, f"at most the {most} people of roles.root"
            )
        if shape.solo and len(people.keys() - {*roles["renew"]}) != 1:
            raise _wrong(
                file,
                "solo",
                f"true with {len(people)} people",
                "exactly one person, or solo: false",
            )
        reviews = tuple(
            _review(each, at, people, teams, file) for at, each in enumerate(shape.reviews)
        )
        _check_renewers(shape, roles, reviews, file)
        return cls(
            file_digest(data),
            shape,
            shape.version,
            end_of(shape.expires),
            people,
            roles,
            reviews,
            shape.solo,
        )

    def person(self, key: SshKey) -> str | None:
        """Whose key this is; None when it belongs to no person (of several, the first by
        name).
        """
        return next(
            (name for name in sorted(self.keys) if key.fingerprint in self.keys[name]), None
        )

    def owns(self, person: str, key: SshKey) -> bool:
        """True when the root names this key for this person."""
        return key.fingerprint in self.keys.get(person, ())

    def needs(
        self,
        paths: Iterable[str] | None,
        risks: Iterable[str],
        signed: Iterable[tuple[str, bytes]],
        *,
        narrower: bool = False,
    ) -> Needs:
        """What every rule that applies requires; no rule, no approval.

        Args:
            paths: the workflow's paths, now and before; None: unknown, so every rule applies,
                with its highest count.
            risks: its risks, now and before; the highest count for any of them applies.
            signed: who gave valid signatures, each with the key's material.
            narrower: proved to only narrow: one signature under each rule.
        """
        known = None if paths is None else tuple(paths)
        asked = tuple(risks)
        signed = tuple(signed)
        needs = []
        for rule in self.reviews:
            if known is None or any(rule.path.matches(path) for path in known):
                counts = [rule.signatures.get(risk, 0) for risk in asked] + (
                    [*rule.signatures.values()] if known is None else []
                )
                needed = 0 if 0 in counts else 1 if narrower else max(counts)
                needs.append(
                    Need(
                        rule.path.source,
                        rule.by,
                        needed,
                        distinct((p, m) for p, m in signed if p in rule.by),
                    )
                )
        return tuple(needs)


class TrustedRoot(NamedTuple):
    """What trust files are judged by: where they lie, the root, its signers' keys, and the time
    (POSIX seconds).
    """

    tree: Tree
    root: Root
    allowed: AllowedSigners
    now: float


def distinct(signed: Iterable[tuple[str, bytes]]) -> int:
    """How many signatures count: the most pairs of a person and a key in which no person and no
    key occurs twice.

    Never more than the number of distinct people, nor of distinct keys.
    """
    keys: dict[str, list[bytes]] = {}
    for person, material in signed:
        keys.setdefault(person, []).append(material)
    taken: dict[bytes, str] = {}

    def seat(person: str, tried: set[bytes]) -> bool:
        for material in keys[person]:
            if material not in tried:
                tried.add(material)
                if material not in taken or seat(taken[material], tried):
                    taken[material] = person
                    return True
        return False

    return sum(seat(person, set()) for person in keys)


def root_digest(path: Path | str) -> str:
    """The digest of a root, which a gate's settings pin; `path`: ``root.yaml``, or the workflow
    directory it belongs to.

    Raises ApprovalRefused: ROOT NOT TRUSTED, when there is none.
    """
    place = Path(path)
    directory = place.parent.parent if place.name == ROOT else place
    return file_digest(Tree(directory).read(ROOT, ROOT_NOT_TRUSTED))


def load_root(tree: Tree, pinned: str | None, now: float) -> TrustedRoot:
    """The trusted root and its signers' keys; `pinned` is the digest in the settings; None:
    that of the present root.

    Raises ApprovalRefused: ROOT NOT TRUSTED, EXPIRED (the root's own end), TAMPERED
    (``allowed_signers``).
    """
    data = tree.read(ROOT, ROOT_NOT_TRUSTED)
    root = Root.parse(data, f"{APPROVALS}/{ROOT}")
    # (1) signed by its own threshold
    _signed(tree, root, data, "root.", root)
    # (2) the pinned one, or the end of a chain from it
    if pinned is not None and root.digest != pinned:
        _chain(tree, pinned, root, data)
    # (3) in its time
    if now >= root.until:
        raise refuse(
            EXPIRED,
            f"{APPROVALS}/{ROOT}",
            "expires",
            "a day that is over",
            "a root that its signers renewed",
        )
    # (4) the keys it names
    text = tree.read(SIGNERS, ROOT_NOT_TRUSTED)
    file = f"{APPROVALS}/{SIGNERS}"
    got = file_digest(text)
    if got != root.shape.allowed_signers:
        raise refuse(
            TAMPERED, file, "digest", got, f"{root.shape.allowed_signers}, as the root says"
        )
    return TrustedRoot(tree, root, AllowedSigners.parse(text_of(text, file), file), now)


def root_signers(
    tree: Tree, root: Root, data: bytes, prefix: str
) -> tuple[tuple[str, bytes], ...]:
    """Who of a root's own signers signed these bytes (of this root or the next one), each with
    the key's material.

    The signature files' names begin with `prefix`, below ``approvals``. A broken signature
    refuses.
    """
    signers = []
    for person in root.roles["root"]:
        name = f"{prefix}{person}.sig"
        text = tree.read_optional(name)
        if text is None:
            continue
        try:
            key = sshsig.verify(text_of(text, name), data, sshsig.ROOT_NAMESPACE)
        except KeyRefused as error:
            raise _wrong(
                f"{APPROVALS}/{name}", "signature", str(error), f"{person}'s over the root"
            ) from None
        if not root.owns(person, key):
            raise _wrong(
                f"{APPROVALS}/{name}",
                "key",
                key.fingerprint,
                f"a key of {person} in root version {root.version}",
            )
        signers.append((person, key.material))
    return tuple(signers)


def _signed(tree: Tree, by: Root, data: bytes, prefix: str, what: Root) -> None:
    have = distinct(root_signers(tree, by, data, prefix))
    if have < by.shape.threshold:
        got = f"{have} by signers of root version {by.version} over version {what.version}"
        raise _wrong(
            f"{APPROVALS}/{prefix}*.sig",
            "signatures",
            got,
            f"{by.shape.threshold} ({', '.join(sorted(by.roles['root']))})",
        )


def _chain(tree: Tree, pinned: str, newest: Root, newest_data: bytes) -> None:
    """From the newest root down to the pinned one: each is signed by its own threshold and by
    that of the one before.
    """
    new = newest
    data = newest_data
    prefix = "root."
    for version in range(newest.version - 1, max(0, newest.version - MAX_ROTATIONS), -1):
        old_data = tree.read_optional(f"root/{version}.yaml")
        file = f"{APPROVALS}/root/{version}.yaml"
        if old_data is None:
            break
        old = Root.parse(old_data, file)
        if old.version != version:
            raise _wrong(file, "version", old.version, str(version))
        _signed(tree, old, data, prefix, new)
        if old.digest == pinned:
            return
        new = old
        data = old_data
        prefix = f"root/{version}."
        _signed(tree, new, data, prefix, new)
    expected = f"{pinned} (pinned in the settings), or a root its signers handed over to"
    raise _wrong(f"{APPROVALS}/{ROOT}", "digest", newest.digest, expected)


def _check_renewers(
    shape: RootShape,
    roles: Mapping[Role, tuple[str, ...]],
    reviews: Iterable[Review],
    file: str,
) -> None:
    """Whoever renews does nothing else: their key lies where a program can use it."""
    for name in roles["renew"]:
        others = [
            f"roles.{role}" for role in ("root", "index", "revoke") if name in roles[role]
        ]
        others += [f"the rule for {rule.path.source}" for rule in reviews if name in rule.by]
        if others or shape.people[name].teams:
            raise _wrong(
                file,
                "roles.renew",
                f"{name}, also in {', '.join(others) or 'teams'}",
                "somebody who does nothing else",
            )


def _review(
    shape: ReviewShape,
    at: int,
    people: Mapping[str, object],
    teams: Mapping[str, set[str]],
    file: str,
) -> Review:
    by = set()
    for name in shape.by:
        if name not in people and name not in teams:
            raise _wrong(
                file,
                f"reviews[{at}].by",
                name,
                "a name under people, or team: and a team that somebody is in",
            )
        by |= {name} if name in people else teams[name]
    if not shape.counts:
        raise _wrong(
            file, f"reviews[{at}].signatures", "nothing", "a number for low, medium or high"
        )
    for risk, count in shape.counts.items():
        if count > len(by):
            raise _wrong(
                file,
                f"reviews[{at}].signatures.{risk}",
                count,
                f"at most the {len(by)} people of by",
            )
    try:
        return Review(Glob(shape.path), frozenset(by), shape.counts)
    except CanonicalError as error:
        raise _wrong(file, f"reviews[{at}].path", error.got, error.expected) from None


def _wrong(file: str, field: str, got: object, expected: str) -> ApprovalRefused:
    return refuse(ROOT_NOT_TRUSTED, file, field, got, expected)


@value_class
class Signers:
    """The root in force and its signers' keys."""

    root: Root
    allowed: AllowedSigners

    def who(
        self, signature: str, statement: bytes, tenant: str, now: float
    ) -> tuple[str, tuple[str, ...]]:
        """The person who signed the statement of a hold of this tenant, and their teams. `now`:
        POSIX seconds.

        Raises:
            KeyRefused: no signature over these bytes, or by no key that may answer this
                tenant's holds now.
        """
        key = sshsig.verify(signature, statement, sshsig.HOLD_NAMESPACE)
        owners = [name for name in self.root.keys if self.root.owns(name, key)]
        if len(owners) != 1:
            raise KeyRefused(
                f"a signature by key {key.fingerprint}, which {len(owners)} people of the root "
                "have, not exactly one"
            )
        if now >= self.root.until:
            raise KeyRefused(
                "root: got one that has expired, expected a root that its signers renewed"
            )
        try:
            self.allowed.until(owners[0], key, sshsig.HOLD_NAMESPACE, now)
        except ApprovalRefused as error:
            raise KeyRefused(str(error)) from None
        person = self.root.shape.people[owners[0]]
        if person.tenants is not None and tenant not in person.tenants:
            raise KeyRefused(
                f"root: people.{owners[0]}.tenants: got tenant {tenant}, expected one of "
                f"{', '.join(person.tenants)}"
            )
        return owners[0], tuple(person.teams or ())
