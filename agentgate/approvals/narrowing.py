"""The proof that a version only narrows another: made by `agentgate.diff`, cached beside the
gate's keys.

Rules: proved here, never taken on trust; a proof is cached under both digests (roles included)
and the version of the prover, in the gate's own directory, which no pull request can change.
Without a cached proof, or with an unreadable cache, it is proved again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import orjson

from agentgate.approvals._files import file_digest
from agentgate.audit.writing import write_whole
from agentgate.token.regular_file import read_regular
from agentgate.values.canonical import canonical
from agentgate.workflow.model import Workflow

_FILE = "narrowings.json"
_MAX_KEPT = 100_000


class Proof(Protocol):
    """The result of comparing two versions (`agentgate.diff.Diff`)."""

    @property
    def only_narrower(self) -> bool:
        """Every call the new version allows, the old one allows with no more releases."""

    @property
    def read_yourself(self) -> tuple[str, ...]:
        """What no program can compare."""

    @property
    def wider(self) -> tuple[Any, ...]:
        """What became wider, one finding each."""


Compare = Callable[[Workflow, Workflow], Proof]


class Prover:
    """Compares versions, and remembers which pairs were proved to only narrow.

    Args:
        compare: the comparison; None: `agentgate.diff.compare`.
        engine: its version; None: `agentgate.diff.ENGINE`.
        kept: the directory of the cache; None: no cache.
    """

    def __init__(
        self,
        compare: Compare | None = None,
        engine: str | None = None,
        kept: Path | None = None,
    ) -> None:
        self._compare = compare
        self._engine = engine
        self._kept = kept
        self._new = False

    @property
    def engine(self) -> str:
        """Version of the comparison."""
        return self._engine or _diff().ENGINE

    def compare(self, old: Workflow, new: Workflow) -> Proof:
        """The comparison itself."""
        return (self._compare or _diff().compare)(old, new)

    def narrows(
        self, old: str, new: str, load: Callable[[], tuple[Workflow, Workflow]]
    ) -> bool:
        """True when a version is proved to only narrow an older one, both by their names
        (`name_of`).

        `load` makes both workflows; it is called only without a cached proof.
        """
        name = f"{self.engine} {old} {new}"
        if name in self._proved:
            return True
        proof = self.compare(*load())
        if proof.only_narrower is not True or proof.read_yourself or proof.wider:
            return False
        self._proved.add(name)
        self._new = True
        return True

    def save(self) -> None:
        """Write the cache. Failing is no error: it will be proved again."""
        if self._new and self._kept:
            with suppress(OSError):
                write_whole(self._kept / _FILE, orjson.dumps(sorted(self._proved)[-_MAX_KEPT:]))
            self._new = False

    @cached_property
    def _proved(self) -> set[str]:
        if not self._kept:
            return set()
        try:
            kept = orjson.loads(read_regular(self._kept / _FILE, forbidden=0o077))
        except (OSError, orjson.JSONDecodeError):
            return set()
        return {name for name in kept if type(name) is str} if type(kept) is list else set()


def name_of(definition: str, roles: Mapping[str, tuple[str, ...]]) -> str:
    """A version's name in a proof: the digest of its definition with the scopes of the roles it
    stays narrower than.
    """
    return (
        file_digest(canonical({"definition": definition, "roles": dict(roles)}))
        if roles
        else definition
    )


def lifts_doubt(old: Workflow, new: Workflow) -> bool:
    """Whether an intent is in doubt in `old` and not in `new`, which can then allow more
    (`Workflow.in_doubt`).

    A proof does not see it: it is of the definitions, whatever deriver reads them.
    """
    return not {doubt.intent for doubt in old.in_doubt} <= {
        doubt.intent for doubt in new.in_doubt
    }


def _diff() -> ModuleType:
    from agentgate import diff  # noqa: PLC0415 - only a directory with a one-signature change pays for loading it

    return diff
