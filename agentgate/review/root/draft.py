"""The draft of a root: a file that a person edits, with names, public keys, teams and rules,
and nothing that must be computed.

Rules: strict as every other file (unknown keys, ambiguous YAML and keys of a refused kind are
errors at their place). A key is its own line, or a ``.pub`` file beside the draft; no other
file is opened. Nothing is dropped silently: what a draft cannot say is written into it as a ``#
CHECK:``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agentgate.approvals import ApprovalRefused, SshKey
from agentgate.approvals._shape import RISKS, Day, Person, Shape, Team, Tenant, from_yaml
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.refusal import ROOT_NOT_TRUSTED
from agentgate.approvals.root import ReviewShape, RolesShape, RootShape
from agentgate.approvals.sshsig import RENEWAL_NAMESPACE
from agentgate.approvals.writing import Reviewer, ReviewRule
from agentgate.approvals.writing.trust import NAMESPACES
from agentgate.errors import ConfigError, KeyRefused
from agentgate.loading.definition import read_file
from agentgate.loading.inline import inline
from agentgate.review.draft.template import render
from agentgate.values.value_class import value_class

_TEMPLATE = Path(__file__).parent / "templates" / "root-draft.yaml.j2"
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
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    solo: bool = False
    demo: bool = False
    notes: tuple[str, ...] = ()  # what its source says and a draft cannot, in words
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


def first_draft(
    people: Sequence[Reviewer], expires: str, notes: tuple[str, ...] = ()
) -> RootDraft:
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


def with_people(
    draft: RootDraft, people: Sequence[Reviewer], notes: tuple[str, ...] = ()
) -> RootDraft:
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


def _merged(people: Sequence[Reviewer], more: Sequence[Reviewer]) -> tuple[Reviewer, ...]:
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
    people: Sequence[Reviewer],
    expires: str,
    notes: tuple[str, ...] = (),
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


def people_in(
    signers: AllowedSigners, now: float
) -> tuple[tuple[Reviewer, ...], tuple[str, ...]]:
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
