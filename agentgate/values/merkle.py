"""Merkle trees over a few entries (RFC 6962, section 2.1): one root for all of them, and a path
that shows one entry under it.

A leaf is hashed behind a 0 byte and a node behind a 1 byte, so that no node passes for an
entry. Hashes are SHA-256, 32 bytes. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Self


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over hashed leaves, at least one, in their order."""
    if len(leaves) == 1:
        return leaves[0]
    at = _split(len(leaves))
    return _node(root(leaves[:at]), root(leaves[at:]))


def path(index: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """The hashes that lead from the leaf at `index` to the root, from the bottom up (section
    2.1.1).
    """
    if len(leaves) == 1:
        return ()
    at = _split(len(leaves))
    if index < at:
        return (*path(index, leaves[:at]), root(leaves[at:]))
    return (*path(index - at, leaves[at:]), root(leaves[:at]))


def root_from(leaf: bytes, index: int, size: int, above: Sequence[bytes]) -> bytes | None:
    """The root of the tree of `size` leaves in which `leaf` stands at `index`, by its path;
    None: no such tree has such a path.
    """
    if not 0 <= index < size:
        return None
    if size == 1:
        return None if above else leaf
    if not above:
        return None
    at = _split(size)
    if index < at:
        below = root_from(leaf, index, at, above[:-1])
        return None if below is None else _node(below, above[-1])
    below = root_from(leaf, index - at, size - at, above[:-1])
    return None if below is None else _node(above[-1], below)


def consistency(old: int, new: int, root_of: Callable[[int, int], bytes]) -> list[bytes]:
    """The hashes that show that the tree of `new` leaves begins with that of `old`, at least
    one (section 2.1.2).

    `root_of`: the root over the leaves from one index up to another. One below `old` is asked
    for only where it is in its `RightEdge`.
    """
    return _consistency(old, 0, new, root_of, known=True)


def _consistency(
    old: int, start: int, end: int, root_of: Callable[[int, int], bytes], *, known: bool
) -> list[bytes]:
    if old == end:
        return [] if known else [root_of(start, end)]
    at = start + _split(end - start)
    if old <= at:
        return [*_consistency(old, start, at, root_of, known=known), root_of(at, end)]
    return [*_consistency(old, at, end, root_of, known=False), root_of(start, at)]


class RightEdge:
    """All that a tree needs to grow, and to tell its root: the roots of its perfect subtrees,
    the largest first, and its size.
    """

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if size < 0 or len(roots) != size.bit_count():
            raise ValueError(f"{len(roots)} subtrees of {size} leaves")
        self.size = size
        self.roots = list(roots)

    def add(self, leaf: bytes) -> None:
        """Append a hashed leaf."""
        size = self.size
        while size & 1:
            leaf = _node(self.roots.pop(), leaf)
            size = size >> 1
        self.roots.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root; of no leaves the hash of nothing."""
        if not self.roots:
            return hashlib.sha256().digest()
        found = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            found = _node(left, found)
        return found

    def copy(self) -> Self:
        """The same, which grows by itself."""
        return type(self)(self.size, self.roots)
