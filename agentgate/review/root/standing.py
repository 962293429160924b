"""The state of a root: who signed it, who still must, whether it can be signed at all, what it
changes, and its risks.

Rules: a root that is not the first needs its own threshold and that of the root before it. One
person has one signature file, which both roots check: whoever is in both signs with a key that
both name, so a key is replaced in two steps (beside the old one, then without it). These counts
are for people; a gate counts for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentgate.approvals import ApprovalRefused, SshKey
from agentgate.approvals._files import APPROVALS, ROOT, SIGNERS, Tree, file_digest, text_of
from agentgate.approvals._shape import RISKS
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.refusal import ROOT_NOT_TRUSTED
from agentgate.approvals.root import Root, RootShape, distinct, load_root, root_signers
from agentgate.errors import ConfigError
from agentgate.values.value_class import value_class

SOON = 30 * 86400.0  # seconds before a root's end from which it is told
_FILE = f"{APPROVALS}/{ROOT}"


@value_class
class RootSide:
    """One threshold that a root must reach."""

    version: int  # whose threshold: the root's own, or that of the one before
    needed: int  # how many signatures
    have: int  # how many valid ones it has
    signed: tuple[str, ...]  # whose they are
    can: tuple[str, ...]  # who else may sign for it

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
    wrong: tuple[str, ...]  # what a gate would refuse, apart from missing signatures

    @property
    def complete(self) -> bool:
        """True when nothing is wrong and no signature is missing."""
        return not self.wrong and not any(side.missing for side in self.sides)

    @property
    def signed(self) -> frozenset[str]:
        """Who signed, for either threshold."""
        return frozenset(person for side in self.sides for person in side.signed)

    @property
    def changes(self) -> tuple[str, ...]:
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
