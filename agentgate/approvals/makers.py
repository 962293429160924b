"""Who made a version, and so never counts among its reviewers.

Rules: everybody whom any signer names as proposer or author made it; under another spelling, or
with their key under another name, too. One honest signer is enough, and one liar hides nobody.
Under a solo root, which approves only low risk, the one person counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentgate.approvals.root import Need, Root
from agentgate.approvals.version import Signed
from agentgate.values.identities import author


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
