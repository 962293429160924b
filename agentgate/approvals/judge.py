"""Is this version approved? One pass over its folder; the answer carries everything the gate
needs to run it.

The checks of one version, in order (the same numbers stand in the code; 1 and 4 to 6 in
`agentgate.approvals.version`):

1. The canonical definition is there, is complete, and is of this id and version. WRONG PLACE,
  TAMPERED.
2. Where the index names this version, or this gate had it in force, it is this very definition.
  TAMPERED.
3. It is not revoked. REVOKED.
4. Each statement is about this definition and repeats its version, tenants and risk. TAMPERED,
  naming the field.
5. Each signature is over its statement, in our namespace, by a key that root and
  allowed_signers give to that person now.
6. It has not ended. EXPIRED.
7. It was compared with the newest version approved before it: what the index says of that, or
   what is proved here, and never less than what this gate had in force. Signers who name
   another path, previous version or other roles are not counted together.
8. Nobody counts whom any of these signers names as proposer or author (except under a solo
   root, which approves only low risk), under another spelling or with their key under another
   name neither. Every rule of the root for its path, now and before, at the higher of its
   risks, now and before, has its number of distinct people and keys. UNAPPROVED. Where nothing
   vouches for the version before: every rule, with the most it ever asks for.
9. Or: it is proved to only narrow the newest approved version; then one signature under each
  rule is enough, for as long as that lasts.

Who made a version never counts among its reviewers: everybody whom any signer names as proposer
or author made it; under another spelling, or with their key under another name, too. One honest
signer is enough, and one liar hides nobody. Under a solo root, which approves only low risk, the
one person counts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from math import inf
from typing import Any, NamedTuple

from agentgate.approvals._files import (
    APPROVALS,
    EXPIRED,
    RISKS,
    ROLLBACK,
    TAMPERED,
    UNAPPROVED,
    VERSION_REVOKED,
    WRONG_PLACE,
    ApprovalRefused,
    Risk,
    Tree,
    refuse,
    refused,
)
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.index import UNKNOWN, Index, Listed, Newest, Revoked
from agentgate.approvals.narrowing import Prover, lifts_doubt, name_of
from agentgate.approvals.root import Need, Needs, Root
from agentgate.approvals.version import Signed, Statement, Version, VersionReader
from agentgate.errors import Failure, WorkflowError
from agentgate.loading.definition import Derive, load_document
from agentgate.loading.site import Sharing
from agentgate.loading.yaml_nodes import Document
from agentgate.values.request import author
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow


def makers(signed: Iterable[Signed]) -> set[str]:
    """Everybody whom a signer names as having made it, as `author` spells them."""
    return {
        author(name)
        for each in signed
        for name in (each.statement.proposer, *each.statement.authors)
    }


def reviewers(root: Root, signed: Sequence[Signed]) -> list[Signed]:
    """The signatures that can count."""
    made_it = makers(signed)
    theirs = {
        key for person, keys in root.keys.items() if author(person) in made_it for key in keys
    }
    return [
        s
        for s in signed
        if root.solo or not (author(s.person) in made_it or s.key.fingerprint in theirs)
    ]


def uncounted(root: Root, signed: Iterable[Signed]) -> tuple[str, ...]:
    """Who of the root's people never counts for this version."""
    made_it = makers(signed) if not root.solo else set()
    return tuple(sorted(name for name in root.keys if author(name) in made_it))


def but_not(root: Root, signed: Iterable[Signed], need: Need) -> str:
    """Who of a rule's people does not count, in words."""
    out = ", ".join(name for name in uncounted(root, signed) if name in need.by)
    return (
        f"not {out}: who made a change never counts"
        if out
        else "who made a change never counts"
    )


IN_FORCE = "in force:"
OBSERVED = "observed:"
MAX_NARROWINGS = 40  # in a row; then a quorum looks again

_WEIGHT = (TAMPERED, WRONG_PLACE, EXPIRED, UNAPPROVED)


@value_class
class Approved:
    """A version whose approval holds.

    Attributes:
        statement: what the counted signers agree on.
        until: POSIX seconds at which the approval ends.
        signers: whose signatures count.
        entry: its entry in an index: the paths and risks that counted, and what it narrows.
    """

    version: Version
    statement: Statement
    until: float
    signers: tuple[str, ...]
    entry: Newest

    @property
    def observes(self) -> bool:
        """Calls are decided under it too, and it is never in force."""
        return bool(self.version.value["mode"] == "observe")


class Running(NamedTuple):
    """What runs of a workflow.

    Attributes:
        enforced: the newest approved version that is enforced, at or above the floor; None:
            there is none.
        observed: the newest approved one above it that only observes; without an enforced one,
            only where there never was one.
        newer: why others above them are not approved.
    """

    enforced: Approved | None
    observed: Approved | None
    newer: list[Failure]


@value_class
class Standing:
    """The state of one version: what is needed, who signed, and why it is not in force."""

    version: Version | None
    needs: Needs
    refused: Failure | None
    approved: Approved | None


@dataclass
class Judge:
    """Decides about the versions of one directory at one moment.

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
    read: dict[str, dict[str, Any]] = field(default_factory=dict)
    share: Sharing = field(default_factory=Sharing)
    _judged: dict[tuple[str, int], Standing] = field(default_factory=dict)
    _below: dict[tuple[str, int, int], Approved | None] = field(default_factory=dict)

    @cached_property
    def _reader(self) -> VersionReader:
        return VersionReader(self.tree, self.root, self.allowed, self.now, self.read)

    def revoked_up_to(self, id_: str) -> int:
        """The highest revoked version of a workflow; 0: none."""
        inside = self.revoked.revoked.get(id_) if self.revoked else None
        indexed = self.index.revoked.up_to.get(id_, 0) if self.index else 0
        return max(inside.up_to if inside else 0, indexed, self.known.get(f"revoked:{id_}", 0))

    def newest(self, id_: str) -> Newest | None:
        """The index's entry for a workflow."""
        return self.index.workflows.get(id_) if self.index else None

    def floor(self, id_: str) -> int:
        """The lowest version of a workflow that may run."""
        newest = self.newest(id_)
        return max(newest.version if newest else 0, self.known.get(id_, 0))

    def standing(self, id_: str, version: int) -> Standing:
        """Everything about one version; never raises a refusal."""
        if (id_, version) not in self._judged:
            self._judged[(id_, version)] = self._judge(id_, version)
        return self._judged[(id_, version)]

    def before(self, id_: str, version: int) -> Newest | None:
        """The newest version known to have been approved before this one: proved here, or named
        by the index.
        """
        newest = self.newest(id_)
        named = newest if newest and newest.version < version else None
        approved = self._approved_below(id_, version, named.version if named else 0)
        return approved.entry if approved else named

    def _approved_below(self, id_: str, version: int, above: int = 0) -> Approved | None:
        """The newest enforced version below one, and above another. Each answer is kept:
        thousands of versions build on each other.

        What only observes vouches for nothing: it may be as wide as nobody would enforce it.
        """
        versions = self._reader.ascending(id_)
        newest = self.newest(id_)
        first = bisect_right(versions, above)
        end = bisect_left(versions, version)
        start = (
            bisect_left(versions, newest.version, first, end)
            if newest and newest.version < version
            else first
        )
        unjudged = takewhile(
            lambda v: (id_, v) not in self._judged,
            (versions[at] for at in range(end - 1, start - 1, -1)),
        )
        # oldest first: each builds on those before it, and the one in the index on none
        for each in reversed(list(unjudged)):
            self.standing(id_, each)
        found = None
        for at in range(end - 1, first - 1, -1):
            approved = self.standing(id_, versions[at]).approved
            enforced = approved if approved and not approved.observes else None
            found = enforced or self._below.get((id_, versions[at], above))
            if found or (id_, versions[at], above) in self._below:
                break
        self._below[id_, version, above] = found
        return found

    def running(self, id_: str) -> Running:
        """What runs. Raises ApprovalRefused: unreadable folder."""
        floor = self.floor(id_)
        observed = None
        newer = []
        for version in self.tree.versions(id_):
            if version < floor:
                break
            standing = self.standing(id_, version)
            if not standing.approved:
                newer += [standing.refused] if standing.refused else []
            elif not standing.approved.observes:
                return Running(standing.approved, observed, newer)
            elif observed is None and version < (last := self.known.get(OBSERVED + id_, 0)):
                expected = f"version {last} or later, which observed before"
                newer.append(
                    refused(
                        ROLLBACK,
                        f"{APPROVALS}/{id_}",
                        "version",
                        version,
                        expected,
                        workflow=id_,
                        version=version,
                    )
                )
            else:
                observed = observed or standing.approved
        enforced_before = floor or self.revoked_up_to(id_)
        return Running(None, None if enforced_before else observed, newer)

    def load(
        self,
        version: Version,
        roles: Mapping[str, Iterable[str]],
        document: Document | None = None,
    ) -> Workflow:
        """A stored version as the gate enforces it, with the static roles that were approved
        with it.

        `document` is the workflow file, when its value is the approved one (it has lines).
        Raises WorkflowError: it does not load.
        """
        static = {name: frozenset(scopes) for name, scopes in roles.items()}
        return load_document(
            document or version.document(), static, self.derive, share=self.share, signed=True
        )

    # --- one version --------------------------------------------------------------------------
    def _judge(self, id_: str, version: int) -> Standing:
        stored = None
        try:
            stored = self._reader.version(id_, version)
            self._whole(stored)
            return self._counted(stored)
        except ApprovalRefused as error:
            return Standing(
                stored, (), error.refused.with_data(workflow=id_, version=version), None
            )

    def _whole(self, stored: Version) -> None:
        """Checks that do not depend on the signers. Raises ApprovalRefused."""
        # (2) the very definition that the index names
        pin = self._pin(stored)
        file = stored.file
        if pin and pin.digest != stored.digest:
            raise refuse(
                TAMPERED, file, "digest", stored.digest, f"{pin.digest}, as in the index"
            )
        if (
            in_force(stored.id, stored.version) in self.known
            and in_force(stored.id, stored.version, stored.digest) not in self.known
        ):
            expected = "the definition that was in force (a change needs a higher version)"
            raise refuse(TAMPERED, file, "digest", stored.digest, expected)
        # (3) not revoked
        up_to = self.revoked_up_to(stored.id)
        if stored.version <= up_to:
            got = f"version {stored.version}, revoked up to {up_to}"
            raise refuse(
                VERSION_REVOKED,
                file,
                "version",
                got,
                "a later version with approvals of its own",
            )

    def _pin(self, stored: Version) -> Listed | None:
        """The index's entry for this version: as the newest, or as one that the newest builds
        on.
        """
        newest = self.newest(stored.id)
        named = (newest, *newest.narrows) if newest else ()
        return next((each for each in named if each.version == stored.version), None)

    # --- counting -----------------------------------------------------------------------------
    def _counted(self, stored: Version) -> Standing:
        ignored = list(stored.ignored)
        pin = self._pin(stored)
        before = None if pin else self.before(stored.id, stored.version)
        # (7) those who say the same
        groups: dict[Any, list[Signed]] = {}
        for signed in stored.signed:
            statement = signed.statement
            wrong = self._previous(stored, signed, before, pinned=pin is not None)
            if wrong:
                ignored.append(wrong)
                continue
            same = (statement.path, statement.previous, tuple(sorted(statement.roles.items())))
            groups.setdefault(same, []).append(signed)
        best = None
        for group in sorted(groups.values(), key=len, reverse=True):
            needs, approved = self._group(
                stored, group, _counting(stored, group[0].statement, pin, before)
            )
            if approved:
                return Standing(stored, needs, None, approved)
            best = needs if best is None else best
        if best is None:
            best = self.needs(
                (), (UNKNOWN,), (stored.risk, *(before.risks[:1] if before else ()))
            )
        return Standing(
            stored,
            best,
            self._short(stored, best, ignored).with_data(
                workflow=stored.id, version=stored.version
            ),
            None,
        )

    def asked(self, stored: Version, path: str, roles: Mapping[str, tuple[str, ...]]) -> Needs:
        """What the root asks for a version that nobody signed yet, at this path and with these
        static roles.
        """
        before = self.before(stored.id, stored.version)
        if not before:
            return self.needs((), (path,), (stored.risk,))
        narrower = self._narrows(stored, path, roles) is not None
        return self.needs(
            (), (path, *before.paths[:1]), (stored.risk, *before.risks[:1]), narrower=narrower
        )

    def needs(
        self,
        signed: Iterable[Signed],
        paths: tuple[str, ...],
        risks: tuple[str, ...],
        *,
        narrower: bool = False,
    ) -> Needs:
        """What the rules of the root ask for, counting these signatures.

        Paths and risks are those of now and before; with `UNKNOWN` among the paths every rule
        applies. `narrower`: proved to only narrow.
        """
        if self.root.solo and set(risks) != {"low"}:
            return (Need("**", frozenset(self.root.keys), 0, 0),)
        return self.root.needs(
            None if UNKNOWN in paths else paths,
            risks,
            [(s.person, s.key.material) for s in signed],
            narrower=narrower,
        )

    def _group(
        self, stored: Version, group: list[Signed], counting: Newest
    ) -> tuple[Needs, Approved | None]:
        statement = group[0].statement
        # (8) whoever made the change never counts
        counted = reviewers(self.root, group)
        who = tuple(s.person for s in counted)

        def needs(signed: list[Signed], *, narrower: bool = False) -> Needs:
            return self.needs(signed, counting.paths, counting.risks, narrower=narrower)

        full = needs(counted)
        if _met(full):
            return full, Approved(
                stored, statement, _end(counted, lambda some: _met(needs(some))), who, counting
            )
        # (9) one signature is enough for what only narrows
        one = needs(counted, narrower=True)
        base = self._narrows(stored, statement.path, statement.roles) if _met(one) else None
        if not base:
            return full, None
        until = min(base.until, _end(counted, lambda some: _met(needs(some, narrower=True))))
        entry = base.entry
        chain = (Listed(entry.version, entry.digest, entry.paths, entry.risks), *entry.narrows)
        return one, Approved(stored, statement, until, who, replace(counting, narrows=chain))

    def _previous(
        self, stored: Version, signed: Signed, before: Newest | None, *, pinned: bool
    ) -> Failure | None:
        """The refusal of a signature that was given against another version than the newest
        approved before this one.
        """
        previous = signed.statement.previous
        memory = self.known.get(stored.id, 0)
        least = memory if memory < stored.version else 0
        if pinned:
            below = takewhile(lambda v: v >= least, reversed(self._reader.ascending(stored.id)))
            named = any(
                v < stored.version and self._reader.has(stored.id, v, previous) for v in below
            )
            expected = f"version {least} or later" if least and not named else ""
        elif before and before.version >= least:
            expected = (
                f"{before.digest}, version {before.version}"
                if previous != before.digest
                else ""
            )
        else:
            expected = f"the digest of version {least}" if least else ""
        if not expected:
            return None
        file = f"{stored.folder}/{signed.person}.json"
        return refused(
            UNAPPROVED,
            file,
            "predicate.previous",
            previous or "none",
            f"{expected} (sign again)",
        )

    def _narrows(
        self, stored: Version, path: str, roles: Mapping[str, tuple[str, ...]]
    ) -> Approved | None:
        """The approved version that this one, at this path, is proved to only narrow: the
        newest one stored before it.
        """
        before = self._approved_below(stored.id, stored.version)
        if not before or len(before.entry.narrows) >= MAX_NARROWINGS:
            return None
        if (
            before.statement.path != path
            or stored.risk not in RISKS[RISKS.index(before.version.risk) :]
        ):
            # a move changes who reviews it, and so does a lower risk: that is for the quorum
            return None
        if any(
            not set(roles.get(name, ())) <= set(scopes)
            for name, scopes in before.statement.roles.items()
        ):
            return None  # no comparison of workflows sees what bounds an upstream credential
        names = (
            name_of(before.version.digest, before.statement.roles),
            name_of(stored.digest, roles),
        )
        try:
            old = self.load(before.version, before.statement.roles)
            if old.in_doubt and lifts_doubt(old, self.load(stored, roles)):
                return None
            proved = self.prover.narrows(*names, lambda: (old, self.load(stored, roles)))
        except WorkflowError:
            return None
        return before if proved else None

    def _short(self, stored: Version, needs: Needs, ignored: list[Failure]) -> Failure:
        """The refusal of a version that did not reach its threshold: what is wrong with a
        signature, else how many are missing.
        """
        for name in _WEIGHT:
            for each in ignored:
                if each.reason is name:
                    return each
        missing = next((n for n in needs if not n.met), None)
        if not missing:
            got = "no rule of the root for its path"
            expected = "a rule under reviews"
        elif missing.needed == 0:
            solo = (
                "under a solo root" if self.root.solo else f"under the rule for {missing.path}"
            )
            got = f"risk {stored.risk}"
            expected = f"a risk that can be approved {solo}"
        else:
            got = f"{missing.have} of {missing.needed} signatures for {missing.path}"
            expected = (
                f"{missing.needed} of {', '.join(sorted(missing.by))}; "
                f"{but_not(self.root, stored.signed, missing)}"
            )
        return refused(UNAPPROVED, stored.folder, "signatures", got, expected)


def in_force(id_: str, version: int, digest: str = "") -> str:
    """The name of the mark on disk that says that a version (with this digest) was in force."""
    return f"{IN_FORCE}{id_}:{version}{f':{digest}' if digest else ''}"


def _counting(
    stored: Version, statement: Statement, pin: Listed | None, before: Newest | None
) -> Newest:
    """The paths and risks that count for a version: its own first, then those in the index, or
    those of the version before.
    """
    paths: tuple[str, ...] = (statement.path,)
    risks: tuple[Risk, ...] = (stored.risk,)
    if pin:
        paths = (*paths, *pin.paths)
        risks = (*risks, *pin.risks)
    elif before:
        paths = (*paths, *before.paths[:1])
        risks = (*risks, *before.risks[:1])
    elif statement.previous is not None:  # nothing vouches for where it comes from
        paths = (*paths, UNKNOWN)
    return Newest(
        stored.version,
        stored.digest,
        tuple(dict.fromkeys(paths)),
        tuple(dict.fromkeys(risks)),
        (),
    )


def _met(needs: Needs) -> bool:
    return bool(needs) and all(need.met for need in needs)


def _end(counted: list[Signed], enough: Callable[[list[Signed]], bool]) -> float:
    """The moment from which the signatures that still hold are no longer enough."""
    for end in sorted({s.until for s in counted}):
        if not enough([s for s in counted if s.until > end]):
            return end
    return inf
