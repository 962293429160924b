"""A root: its state (who signed it, who still must, whether it can be signed, what it changes,
its risks), its files, and its draft.

Rules: a root that is not the first needs its own threshold and that of the root before it. One
person has one signature file, which both roots check: whoever is in both signs with a key that
both name, so a key is replaced in two steps (beside the old one, then without it). These counts
are for people; a gate counts for itself.

The files are made and signed in a copy, and moved to their place only after every check passed.
This touches the root, its signatures, the file of its keys, the roots before it, and (reading)
the index and the revocations, and nothing else of the directory. No root follows one that is
not completely signed: no gate could follow from it. A gate accepts neither index nor
revocations from somebody whom its root does not name, so before such a root is made they are
signed again, unchanged, by somebody whom both roots name; what is not valid under the present
root is left alone.

A draft is a file that a person edits, with names, public keys, teams and rules, and nothing that
must be computed. It is as strict as every other file: unknown keys, ambiguous YAML and keys of a
refused kind are errors at their place. A key is its own line, or a ``.pub`` file beside the
draft; no other file is opened. Nothing is dropped silently: what a draft cannot say is written
into it as a ``# CHECK:``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from agentgate.approvals import ApprovalRefused, SshKey, sshsig
from agentgate.approvals._files import (
    APPROVALS,
    INDEX,
    RENEWAL,
    REVOKED,
    RISKS,
    ROOT,
    ROOT_NOT_TRUSTED,
    SIGNERS,
    Day,
    Person,
    Shape,
    Team,
    Tenant,
    Tree,
    file_digest,
    from_yaml,
    moment,
    text_of,
)
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.index import MAX_INDEX, index_bytes, load_index, load_revoked
from agentgate.approvals.root import (
    ReviewShape,
    Role,
    RolesShape,
    Root,
    RootShape,
    TrustedRoot,
    distinct,
    load_root,
    root_signers,
)
from agentgate.approvals.sshsig import RENEWAL_NAMESPACE
from agentgate.approvals.writing import Reviewer, ReviewRule, Signer
from agentgate.approvals.writing.trust import NAMESPACES, write_revoked, write_signed
from agentgate.errors import ConfigError, KeyRefused
from agentgate.loading.definition import read_file
from agentgate.loading.yaml_nodes import inline
from agentgate.review.draft.template import render
from agentgate.values.value_class import Names, value_class

People = Sequence[Reviewer]

SOON = 30 * 86400.0  # seconds before a root's end from which it is told
_FILE = f"{APPROVALS}/{ROOT}"


@value_class
class RootSide:
    """One threshold that a root must reach."""

    version: int  # whose threshold: the root's own, or that of the one before
    needed: int  # how many signatures
    have: int  # how many valid ones it has
    signed: Names  # whose they are
    can: Names  # who else may sign for it

    @property
    def missing(self) -> int:
        """How many more it takes."""
        return max(0, self.needed - self.have)


@value_class
class RootStanding:
    """The present root. Build with `standing`."""

    root: Root  # the root
    keys: Mapping[str, SshKey]  # the keys of ``allowed_signers`` by fingerprint
    before: Root | None  # the root it follows, where that is stored
    sides: tuple[RootSide, ...]  # the thresholds it must reach
    wrong: Names  # what a gate would refuse, apart from missing signatures

    @property
    def complete(self) -> bool:
        """True when nothing is wrong and no signature is missing."""
        return not self.wrong and not any(side.missing for side in self.sides)

    @property
    def signed(self) -> frozenset[str]:
        """Who signed, for either threshold."""
        return frozenset(person for side in self.sides for person in side.signed)

    @property
    def changes(self) -> Names:
        """The differences from the root before it, one line each; empty for a first root."""
        if not self.before:
            return ()
        old = _flat(self.before.shape)
        new = _flat(self.root.shape)
        differ = (key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key))
        return tuple(
            f"{key}: {old.get(key, 'nothing')} -> {new.get(key, 'nothing')}" for key in differ
        )

    def signer(self, key: SshKey) -> str:
        """Whose signature this key makes.

        Raises ConfigError: it belongs to nobody who signs this root, or one of both roots would
        refuse the signature.
        """
        roots = [root for root in (self.root, self.before) if root]
        person = next(
            (name for root in roots for name in root.roles["root"] if root.owns(name, key)),
            None,
        )
        if person is None:
            who = ", ".join(
                dict.fromkeys(name for root in roots for name in root.roles["root"])
            )
            raise ConfigError("key", key.fingerprint, f"a key of {who} (another: --key FILE)")
        for root in roots:
            if person in root.roles["root"] and not root.owns(person, key):
                shown = (
                    ", ".join(sorted(roots[0].keys[person] & roots[-1].keys[person]))
                    or "none: keep the old key beside the new one"
                )
                raise ConfigError(
                    "key",
                    f"{key.fingerprint}, which root version {root.version} does not name for {person}",
                    f"a key that both roots name for {person}: {shown}",
                )
        return person

    def refuse_unsignable(self) -> None:
        """Raises ConfigError where the thresholds cannot be reached, whoever signs."""
        for by, beside in ((self.root, self.before), (self.before, self.root)):
            if not by:
                continue
            usable = [
                (person, key)
                for person in by.roles["root"]
                for key in sorted(_usable(person, by, beside))
            ]
            most = distinct((person, key.encode()) for person, key in usable)
            if most < by.shape.threshold:
                raise ConfigError(
                    f"threshold of root version {by.version}",
                    f"at most {most} signatures",
                    f"{by.shape.threshold}: whoever stands in both roots keeps a key that "
                    "both name (leave it out in the next root)",
                )


def standing(
    directory: Path | str, pinned: str | None = None, now: float | None = None
) -> RootStanding:
    """The state of a directory's root.

    `pinned`: the digest a gate pins; given, this also checks whether that gate would follow to
    this root at `now` (POSIX seconds).

    Raises ApprovalRefused: there is no root, or it cannot be read.
    """
    tree = Tree(directory)
    data = tree.read(ROOT, ROOT_NOT_TRUSTED)
    root = Root.parse(data, _FILE)
    name = f"root/{root.version - 1}.yaml"
    earlier = tree.read_optional(name)
    before = Root.parse(earlier, f"{APPROVALS}/{name}") if earlier is not None else None
    wrong = []
    keys: dict[str, SshKey] = {}
    try:
        text = tree.read(SIGNERS, ROOT_NOT_TRUSTED)
        keys = {
            e.key.fingerprint: e.key
            for e in AllowedSigners.parse(
                text_of(text, SIGNERS), f"{APPROVALS}/{SIGNERS}"
            ).entries
        }
        if file_digest(text) != root.shape.allowed_signers:
            wrong.append(
                f"{APPROVALS}/{SIGNERS}: digest: got {file_digest(text)}, expected "
                f"{root.shape.allowed_signers}, as the root says"
            )
    except ApprovalRefused as error:
        wrong.append(str(error))
    sides = []
    for by, beside in ((root, before), (before, root)):
        if not by:
            continue
        try:
            signed = root_signers(tree, by, data, "root.")
        except ApprovalRefused as error:
            wrong.append(str(error))
            signed = ()
        people = tuple(person for person, _ in signed)
        can = tuple(
            person
            for person in by.roles["root"]
            if person not in people and _usable(person, by, beside)
        )
        sides.append(RootSide(by.version, by.shape.threshold, distinct(signed), people, can))
    state = RootStanding(root, keys, before, tuple(sides), tuple(dict.fromkeys(wrong)))
    if pinned is not None and state.complete:
        try:
            load_root(tree, pinned, now if now is not None else 0.0)
        except ApprovalRefused as error:
            return replace(state, wrong=(str(error),))
    return state


def warnings(state: RootStanding, now: float) -> Iterator[str]:
    """What in a root deserves a second look, in words."""
    root = state.root
    shape = state.root.shape
    if now >= root.until:
        yield (
            f"it ended after {shape.expires}: gates load nothing; renew it (agentgate root "
            "draft, then root new)"
        )
    elif now >= root.until - SOON:
        yield f"it ends after {shape.expires}: renew it (agentgate root draft, then root new)"
    if shape.solo:
        yield "solo: one person approves their own changes (low risk only)"
    if shape.demo:
        yield "demo: for demonstrations"
    if root.version > 1 and not state.before:
        yield (
            f"{APPROVALS}/root/{root.version - 1}.yaml is not kept: gates that pin an "
            "earlier root cannot follow"
        )
    if root.shape.threshold == 1 and not shape.solo:
        yield f"threshold 1: each of {', '.join(root.roles['root'])} alone can replace this root"
    for at, review in enumerate(root.reviews):
        rule = f"the rule for {review.path.source}"
        if len(review.by) == 1 and not shape.solo:
            yield f"{rule}: only {next(iter(review.by))} can approve, and never what they proposed"
            continue
        alone = [risk for risk in RISKS if risk != "low" and review.signatures.get(risk) == 1]
        if alone:
            yield f"{rule}: one signature is enough for {' and '.join(alone)} risk"
        full = [
            risk
            for risk, count in review.signatures.items()
            if count == len(review.by) and not shape.solo
        ]
        if full:
            names = ", ".join(shape.reviews[at].by)
            yield (
                f"{rule}: {' and '.join(full)} risk needs everybody of {names}, so what "
                "one of them proposes cannot be approved"
            )
    owners: dict[str, list[str]] = {}
    for person, keys in root.keys.items():
        for key in keys:
            owners.setdefault(key, []).append(person)
    for key, people in owners.items():
        if len(people) > 1:
            yield f"{key} is a key of {' and '.join(people)}: together they count once"
        if state.keys and key not in state.keys:
            yield f"{key} of {people[0]} has no line in {SIGNERS}: what it signs does not count"


def _usable(person: str, by: Root, beside: Root | None) -> frozenset[str]:
    """The keys with which a person can sign for one root so that the other does not refuse the
    signature.
    """
    keys = by.keys[person]
    return keys & beside.keys[person] if beside and person in beside.roles["root"] else keys


def _flat(shape: RootShape) -> dict[str, str]:
    """Every value of a root by its path, except the derived ones (the version, the digest of
    the keys' file).
    """
    state = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{path}.{key}" if path else str(key), inner)
        elif value is not None and value is not False:
            state[path] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    walk("", shape.model_dump(exclude={"version", "allowed_signers", "reviews"}))
    for at, rule in enumerate(shape.reviews):
        walk(f"reviews[{at}]", rule.model_dump())
    return state


FILES = (INDEX, f"{INDEX}.sig", RENEWAL, f"{RENEWAL}.sig", REVOKED, f"{REVOKED}.sig")


@contextmanager
def scratch_copy(directory: Path) -> Iterator[Path]:
    """A temporary directory with a copy of these files. Raises ApprovalRefused: one is a link
    or cannot be read.
    """
    with tempfile.TemporaryDirectory() as place:
        source = Tree(directory)
        copy = Tree(Path(place) / "w")
        there = {name for name, _ in source.names()}
        for name in [*trust_files(source), *(name for name in FILES if name in there)]:
            copy.write(name, source.read(name, ROOT_NOT_TRUSTED, limit=MAX_INDEX))
        yield copy.directory


def publish(folder: Path, directory: Path, more: Iterable[str] = ()) -> None:
    """Copy the finished files to their place: first `more` (below ``approvals``), then earlier
    roots, the keys, the root, its signatures.

    Raises ApprovalRefused: one cannot be written.
    """
    source = Tree(folder)
    there = Tree(directory)
    made = trust_files(source)
    for name in more:
        there.write(name, source.read(name, ROOT_NOT_TRUSTED, limit=MAX_INDEX))
    for name in sorted(
        made, key=lambda name: (not name.startswith("root/"), name != SIGNERS, name != ROOT)
    ):
        if name == ROOT:
            for old in trust_files(there):
                if old not in made:
                    (directory / APPROVALS / old).unlink()
        there.write(name, source.read(name, ROOT_NOT_TRUSTED))


def trust_files(tree: Tree) -> list[str]:
    """Their names, below ``approvals``."""
    names = [
        name
        for name, _ in tree.names()
        if name in {ROOT, SIGNERS} or (name.startswith("root.") and name.endswith(".sig"))
    ]
    return names + [f"root/{name}" for name, _ in tree.names("root")]


def drop_unfinished(folder: Path, *, replace: bool) -> None:
    """In a copy (`scratch_copy`), go back to the root before, where the present one is not
    complete. `replace`: the person asked for it.

    Raises ConfigError: it is not complete and nobody asked, or there is no earlier one.
    """
    tree = Tree(folder)
    if ROOT not in trust_files(tree):
        return
    state = standing(folder)
    if state.complete:
        return
    missing = [
        f"{side.missing} signatures for version {side.version} are missing"
        for side in state.sides
        if side.missing
    ]
    why = f"version {state.root.version}, not complete: {'; '.join((*state.wrong, *missing))}"
    if not replace:
        raise ConfigError(
            "root",
            why,
            "a complete one: sign it first (agentgate root sign), or drop it with --replace",
        )
    version = state.root.version - 1
    if version and not state.before:
        raise ConfigError(
            "root", why, f"approvals/root/{version}.yaml to go on from: restore it from git"
        )
    place = folder / APPROVALS
    for name in trust_files(tree):
        if "/" not in name and name != SIGNERS:
            (place / name).unlink()
    for name in trust_files(tree):
        if name.startswith(f"root/{version}."):
            (place / name).rename(place / f"root.{name.removeprefix(f'root/{version}.')}")


def hand_over(
    folder: Path, old: tuple[Root, AllowedSigners], new: Root, own: Signer | None, now: float
) -> Names:
    """Sign the revocations and the index again, where the new root would refuse who signed
    them. Returns those files.

    `folder`: a copy with the new root, and the index and revocations beside it. `old`: the root
    that is replaced, and its keys. `own`: whose key signs; None: there is no signer. Raises
    ConfigError: this key cannot sign; says who can.
    """
    tree = Tree(folder)
    changed = []
    before = TrustedRoot(tree, *old, now)
    after = TrustedRoot(tree, new, allowed_in(tree), now)
    roots = old[0], new
    try:
        revoked = load_revoked(before)
    except ApprovalRefused:
        return ()
    try:
        index = load_index(before)
    except ApprovalRefused:
        index = None
    try:
        load_revoked(after)
    except ApprovalRefused:
        signer, _ = _in_both("revoke", revoked.signer, REVOKED, roots, own)
        revoked = write_revoked(tree, old[0], signer, revoked.serial + 1, revoked.revoked)
        changed += [f"{REVOKED}.sig", REVOKED]
    if not index:
        return tuple(changed)
    try:
        load_index(after)
    except ApprovalRefused:
        signer, person = _in_both("index", index.signer, INDEX, roots, own)
        data = index_bytes(
            index.serial + 1, moment(index.until), person, index.workflows, revoked
        )
        write_signed(tree, INDEX, data, signer, sshsig.INDEX_NAMESPACE)
        changed += [f"{INDEX}.sig", INDEX]
    return tuple(changed)


def allowed_in(tree: Tree) -> AllowedSigners:
    """The present file of keys. Raises ApprovalRefused: absent, or not understood."""
    return AllowedSigners.parse(text_of(tree.read(SIGNERS, ROOT_NOT_TRUSTED), SIGNERS), SIGNERS)


def _in_both(
    role: Role, last: str, file: str, roots: tuple[Root, Root], own: Signer | None
) -> tuple[Signer, str]:
    old, new = roots
    able = [
        name
        for name in new.roles[role]
        if name in old.roles[role] and old.keys[name] & new.keys[name]
    ]
    if own:
        for name in able:
            if all(root.owns(name, own.public_key) for root in roots):
                return own, name
    who = (
        f"agentgate root new by {' or '.join(able)}, who signs it again"
        if able
        else f"somebody in roles.{role} of both roots"
    )
    raise ConfigError(
        f"approvals/{file}",
        f"signed by {last}, whose key the new root does not name there",
        who,
    )


# --- the draft: what a person edits -----------------------------------------------------------
_TEMPLATE = "review/root/templates/root-draft.yaml.j2"
ROLES = ("root", "index", "revoke")
# the namespace that allowed_signers files are usually written for; it says nothing about
# approvals
_GIT = "git"


class PersonDraft(Shape):
    """One person: key lines or ``.pub`` files, teams, and the tenants whose held calls they
    answer (absent: of all).
    """

    keys: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4000)]],
        Field(min_length=1, max_length=20),
    ]
    teams: Annotated[list[Team], Field(max_length=50)] | None = None
    tenants: Annotated[list[Tenant], Field(min_length=1, max_length=1000)] | None = None


class DraftShape(Shape):
    """The file."""

    agentgate: Literal["root-draft/v1"]
    expires: Day
    threshold: Annotated[int, Field(ge=1, le=20)]
    people: Annotated[dict[Person, PersonDraft], Field(min_length=1, max_length=1000)]
    roles: RolesShape | None = None
    reviews: Annotated[list[ReviewShape], Field(min_length=1, max_length=200)]
    solo: bool = False
    demo: bool = False
    signed_commits: bool = False


@value_class
class RootDraft:
    """The arguments of `agentgate.approvals.new_root`."""

    people: tuple[Reviewer, ...]  # with keys and teams
    rules: tuple[ReviewRule, ...]  # who reviews what
    threshold: int  # signatures the root needs
    expires: str  # its last day, ISO
    # who signs root, index and revocations; everybody signs one that is absent
    roles: Mapping[str, Names] = field(default_factory=dict)
    solo: bool = False
    demo: bool = False
    notes: Names = ()  # what its source says and a draft cannot, in words
    signed_commits: bool = False


def read_draft(path: Path) -> RootDraft:
    """Read a draft that a person edited.

    Raises ConfigError: it, or a key in it, is wrong; with the place. WorkflowError: it cannot
    be read.
    """
    try:
        shape = from_yaml(DraftShape, read_file(path), str(path), ROOT_NOT_TRUSTED)
    except ApprovalRefused as error:
        raise ConfigError(
            f"{error.refused.place}: {error.field}", error.got, error.expected
        ) from None
    people = []
    for name, person in shape.people.items():
        keys = tuple(
            _key(text, path, f"people.{name}.keys[{at}]") for at, text in enumerate(person.keys)
        )
        people.append(
            Reviewer(name, keys, tuple(person.teams or ()), tuple(person.tenants or ()))
        )
    return _drafted(shape, people, shape.expires)


def first_draft(people: People, expires: str, notes: Names = ()) -> RootDraft:
    """The usual root for these people.

    One person: solo, low risk only. Two: one signature, since whoever proposes a change never
    counts. More: one for low risk, two above.

    Raises ConfigError: there are none.
    """
    if not people:
        raise ConfigError(
            "people", "nobody", "--person NAME=KEY.pub for each, or --allowed-signers FILE"
        )
    people = _merged((), people)
    names = tuple(person.name for person in people)
    most = 2 if len(names) > 2 else 1
    signatures = {"low": 1} if len(names) == 1 else {"low": 1, "medium": most, "high": most}
    return RootDraft(
        tuple(people),
        (ReviewRule("**", names, signatures),),
        min(2, len(names)),
        expires,
        dict.fromkeys(ROLES, names),
        len(names) == 1,
        notes=notes,
    )


def with_people(draft: RootDraft, people: People, notes: Names = ()) -> RootDraft:
    """The draft with these people added; a person it names already gets the keys. Roles and
    rules stay as they are.
    """
    merged = _merged(draft.people, people)
    return replace(
        draft, people=merged, solo=draft.solo and len(merged) == 1, notes=(*draft.notes, *notes)
    )


def from_root(shape: RootShape, signers: str, expires: str, now: float) -> RootDraft:
    """The next root: the present one, whose ``allowed_signers`` has this text, with another
    last day. `now`: POSIX seconds.

    Raises ConfigError: a key of the root has no line in ``allowed_signers``. ApprovalRefused: a
    line that is not understood.
    """
    allowed = AllowedSigners.parse(signers, "approvals/allowed_signers")
    keys = {entry.key.fingerprint: entry.key for entry in allowed.entries}
    lost = next(
        (key for person in shape.people.values() for key in person.keys if key not in keys),
        None,
    )
    if lost is not None:
        raise ConfigError(
            "approvals/allowed_signers",
            f"no line with key {lost}",
            "a line for each key of the root",
        )
    valid, notes = people_in(allowed, now)
    usable = {person.name: {key.fingerprint for key in person.keys} for person in valid}
    people = tuple(
        Reviewer(name, kept, tuple(person.teams or ()), tuple(person.tenants or ()))
        for name, person in shape.people.items()
        if (kept := tuple(keys[key] for key in person.keys if key in usable.get(name, ())))
    )
    return _drafted(shape, people, expires, notes)


def _merged(people: People, more: People) -> tuple[Reviewer, ...]:
    merged = {person.name: person for person in people}
    for person in more:
        old = merged.get(person.name)
        merged[person.name] = (
            replace(old, keys=tuple(dict.fromkeys((*old.keys, *person.keys))))
            if old
            else person
        )
    return tuple(merged.values())


def _drafted(
    shape: DraftShape | RootShape,
    people: People,
    expires: str,
    notes: Names = (),
) -> RootDraft:
    rules = tuple(
        ReviewRule(review.path, tuple(review.by), review.counts) for review in shape.reviews
    )
    roles = {role: tuple(names) for role, names in shape.roles or () if names}
    return RootDraft(
        tuple(people),
        rules,
        shape.threshold,
        expires,
        roles,
        shape.solo,
        shape.demo,
        notes,
        shape.signed_commits,
    )


def person_of(text: str) -> Reviewer:
    """``NAME=KEY.pub`` of a command line. Raises ConfigError: not of this form, or no usable
    key.
    """
    name, equals, file = text.partition("=")
    if not equals or not name or not file:
        raise ConfigError("person", text, "NAME=KEY.pub, such as alice@acme.example=alice.pub")
    return Reviewer(name, (_file_key(Path(file), f"person {name}"),))


def people_in(signers: AllowedSigners, now: float) -> tuple[tuple[Reviewer, ...], Names]:
    """The people of an ``allowed_signers`` file with their keys, and notes on what a root
    cannot say.

    A key that has expired or is not valid yet is left out.
    """
    keys: dict[str, list[SshKey]] = {}
    notes = []
    for entry in signers.entries:
        who = ", ".join(entry.people)
        spaces = entry.namespaces
        if not entry.after <= now < entry.before:
            notes.append(
                f"{signers.file}:{entry.line}: a key of {who} is left out: it is not valid today"
            )
            continue
        if entry.before != inf:
            day = datetime.fromtimestamp(entry.before, UTC).date().isoformat()
            notes.append(
                f"{signers.file}:{entry.line}: a key of {who} ended on {day}; here it speaks "
                "until a next root leaves it out"
            )
        if (
            spaces is not None
            and not spaces >= frozenset(NAMESPACES)
            and spaces not in ({_GIT}, {RENEWAL_NAMESPACE})
        ):
            notes.append(
                f"{signers.file}:{entry.line}: a key of {who} signed only "
                f"{', '.join(sorted(spaces))}; here it may sign all"
            )
        for person in entry.people:
            keys.setdefault(person, []).append(entry.key)
    return tuple(
        Reviewer(name, tuple(dict.fromkeys(own))) for name, own in keys.items()
    ), tuple(notes)


def written(draft: RootDraft, file: str) -> str:
    """The draft's file (with this name, for the first comment), with fingerprints beside the
    keys.
    """
    names = tuple(person.name for person in draft.people)
    roles = {**dict.fromkeys(ROLES, names), **draft.roles}
    signatures = [
        {risk: rule.signatures[risk] for risk in RISKS if risk in rule.signatures}
        for rule in draft.rules
    ]
    return render(
        _TEMPLATE, draft=draft, file=file, roles=roles, signatures=signatures, yaml=inline
    )


def _key(text: str, draft: Path, where: str) -> SshKey:
    if " " in text.strip() and not text.strip().endswith(".pub"):
        return _line_key(text, f"{draft}: {where}")
    return _file_key(draft.parent / text, f"{draft}: {where}")


def _file_key(file: Path, where: str) -> SshKey:
    if file.suffix != ".pub":
        raise ConfigError(
            where,
            str(file),
            "a line such as 'ssh-ed25519 AAAA...', or a file that ends in .pub",
        )
    lines = [line for line in read_file(file).splitlines() if line.strip()]
    if len(lines) != 1:
        raise ConfigError(where, f"{file}, {len(lines)} lines", "a file with one public key")
    return _line_key(lines[0], where)


def _line_key(text: str, where: str) -> SshKey:
    try:
        return SshKey.from_line(text)
    except KeyRefused as error:
        raise ConfigError(
            where, str(error), "a public key: Ed25519, ECDSA or their FIDO forms"
        ) from None
