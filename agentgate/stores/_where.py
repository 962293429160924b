"""Where a store is, as an operator reads it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Where(NamedTuple):
    """Which servers a store talks to.

    Attributes:
        told: who they are, and through whom that is known; empty: only the one of its URL.
        primaries: whether each was reached when they were looked at last.
        changes: how often another primary was named than before.
        probes: for each shard, a tenant that it has.
    """

    told: str = ""
    primaries: Mapping[str, bool] = MappingProxyType({})
    changes: int = 0
    probes: tuple[str, ...] = ("readyz",)
