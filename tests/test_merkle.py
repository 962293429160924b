"""Merkle trees against the published vectors of RFC 6962 and a model that is written straight from its section 2.1."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.values.merkle import leaf_hash, path, root, root_from

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "rfc6962.json").read_text())
LEAVES = [bytes.fromhex(each) for each in VECTORS["leaves"]]


def model(entries: list[bytes]) -> bytes:
    """MTH of the RFC, over entries."""
    if len(entries) == 1:
        return hashlib.sha256(bytes([0]) + entries[0]).digest()
    k = max(2**n for n in range(20) if 2**n < len(entries))
    return hashlib.sha256(bytes([1]) + model(entries[:k]) + model(entries[k:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert root([leaf_hash(each) for each in LEAVES[:size]]).hex() == VECTORS["roots"][size - 1]
    assert model(LEAVES[:size]).hex() == VECTORS["roots"][size - 1]


@pytest.mark.parametrize("known", VECTORS["paths"], ids=lambda known: f"{known['index']} of {known['size']}")
def test_paths_are_the_published_ones(known: dict[str, Any]) -> None:
    hashed = [leaf_hash(each) for each in LEAVES[: known["size"]]]
    above = path(known["index"], hashed)
    assert [each.hex() for each in above] == known["path"]
    assert root_from(hashed[known["index"]], known["index"], known["size"], above) == root(hashed)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=12), st.data())
def test_each_entry_and_nothing_else_leads_to_the_root(entries: list[bytes], data: Any) -> None:
    hashed = [leaf_hash(each) for each in entries]
    top, at, size = model(entries), data.draw(st.integers(0, len(entries) - 1)), len(entries)
    above = path(at, hashed)
    assert root(hashed) == top == root_from(hashed[at], at, size, above)
    assert root_from(leaf_hash(entries[at] + b"x"), at, size, above) != top
    assert root_from(hashed[at], at, size, (*above, top)) is None
    assert above == () or root_from(hashed[at], at, size, above[1:]) is None
    assert root_from(hashed[at], size, size, above) is None
    assert root_from(hashed[at], -1, size, above) is None


def test_a_node_is_no_entry() -> None:
    """The second preimage of a tree without prefixes: an entry made of two hashes has the root of the tree of two."""
    one, other = map(leaf_hash, LEAVES[:2])
    assert leaf_hash(one + other) != root([one, other]) != leaf_hash(b"\x01" + one + other)
