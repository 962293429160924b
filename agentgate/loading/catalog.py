"""All workflows of a folder, by id.

Rules: a bad file is quarantined and reported, the others stay loaded; two files that claim one
id are both quarantined; a bad ``roles.yaml`` loads nothing. Every ``*.yaml`` below the folder
is a workflow, except tests (``*.test.yaml``), ``roles.yaml`` and ``approvals/``; links that
leave the folder are refused. Equal parts of different workflows are one object in memory.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from agentgate.errors import WorkflowError
from agentgate.loading.definition import (
    Derive,
    Roles,
    load_text,
    parse_roles,
    read_file,
    refused,
)
from agentgate.loading.site import Sharing
from agentgate.workflow.model import Workflow

ROLES = "roles.yaml"
APPROVALS = "approvals"
TESTS = ".test.yaml"


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's cyclic garbage collector is off inside, and restored afterwards.

    Loading makes no reference cycles (a test counts them): each pass would visit everything
    loaded so far and free nothing, for a quarter of the time that many files take.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


AHEAD = 3.5 * 24 * 3600  # seconds: half of an index's life; from then on its end is warned of
_AGAIN = 3600.0  # seconds between two warnings
_NEXT = {
    "index": "agentgate workflow index, and reload the gate",
    "root": "agentgate root draft, new and sign, and reload the gate",
    "approval": "agentgate workflow approve, and reload the gate",
}


class Ending(NamedTuple):
    """What reviewers signed ends: `what` (index, root or approval) at a time (POSIX
    seconds).
    """

    what: str
    at: float

    @property
    def day(self) -> str:
        """The time, for people."""
        return f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d %H:%M:%SZ}"

    @property
    def remedy(self) -> str:
        """What to do before or after it."""
        return _NEXT[self.what]

    def __str__(self) -> str:
        return f"the {self.what} ends at {self.day}: {self.remedy}"


class Catalog:
    """The workflows of one folder, as they were at one moment. Build with `Catalog.load`.

    Attributes:
        quarantined: path -> why that file is not loaded.
        observed: id -> the version that only observes, beside the one in force; until the next
            loading, since nothing comes of it.
        others: what a gate found lately of versions that are not in force, until the next
            loading (`agentgate.gate.runs`).
    """

    def __init__(
        self,
        workflows: Mapping[str, Workflow],
        quarantined: Mapping[str, WorkflowError],
        until: Mapping[str, float] | None = None,
        ends: Mapping[str, float] | None = None,
    ) -> None:
        """Hold what was loaded.

        Args:
            workflows: by id.
            quarantined: path -> why that file is not loaded.
            until: id -> POSIX seconds at which it is no longer in force; None: approvals were
                not required.
            ends: those of them that are of `index` and `root`; any other is of an approval.
        """
        self._live = workflows, until, ends or {}
        self._warn_at = min(until.values(), default=math.inf) - AHEAD if until else math.inf
        self.quarantined = quarantined
        self.observed: Mapping[str, Workflow] = {}
        self.others: dict[tuple[str, str], tuple[Any, float]] = {}

    @classmethod
    @collector_paused()
    def load(cls, directory: Path | str, derive: Derive) -> Catalog:
        """Load every workflow below a folder.

        Args:
            directory: the folder.
            derive: the intent deriver that must read each example as its author does.

        Raises:
            WorkflowError: the folder cannot be read, or ``roles.yaml`` is wrong; then nothing
                is loaded.
        """
        root = Path(directory)
        if not root.is_dir():
            raise refused(root, "no such folder", "a folder of workflow files", "workflows")
        roles = roles_of(root)
        share = Sharing()
        loaded: dict[str, Workflow] = {}
        quarantined = {}
        for path in workflow_files(root):
            try:
                workflow = load_text(text_of(path, root), str(path), roles, derive, share=share)
            except WorkflowError as error:
                quarantined[str(path)] = error
                continue
            other = loaded.setdefault(workflow.id, workflow)
            if other is not workflow:
                for one, file in ((other, workflow.file), (workflow, other.file)):
                    claimed = refused(
                        one.file, f"'{one.id}', also the id of {file}", "an id of its own", "id"
                    )
                    quarantined.setdefault(one.file, claimed)
        kept = {
            id_: workflow
            for id_, workflow in loaded.items()
            if workflow.file not in quarantined
        }
        return cls(MappingProxyType(kept), MappingProxyType(quarantined))

    def get(self, id: str) -> Workflow | None:  # noqa: A002 - the word of the vocabulary
        """The workflow of this id; None when there is none, it is quarantined, or its approval
        has ended.
        """
        workflows, until, _ = self._live
        ended = until is not None and time.time() >= until.get(id, 0.0)
        return None if ended else workflows.get(id)

    def ended(self, id: str) -> Ending | None:  # noqa: A002 - as above
        """Why a workflow that was loaded is not in force any more; None: it is, or was never
        loaded.
        """
        ending = self.ending(id)
        return ending if ending and time.time() >= ending.at else None

    def ending(self, id: str) -> Ending | None:  # noqa: A002 - as above
        """When a loaded workflow is no longer in force; None: it is not loaded, or ends with
        nothing that reviewers signed.
        """
        workflows, until, _ = self._live
        return (
            self._ending(until[id])
            if until is not None and id in workflows and id in until
            else None
        )

    def due(self) -> tuple[Ending, ...]:
        """What to warn of now: each end from `AHEAD` before it, once an hour."""
        now = time.time()
        if now < self._warn_at:
            return ()
        self._warn_at = now + _AGAIN
        return self.endings(AHEAD)

    def endings(self, within: float = math.inf) -> tuple[Ending, ...]:
        """What ends within so many seconds, or has ended, soonest first."""
        latest = time.time() + within
        return tuple(
            map(
                self._ending,
                sorted({at for at in (self._live[1] or {}).values() if at <= latest}),
            )
        )

    def over(self) -> Ending | None:
        """The last end, when nothing is in force any more; None: something is, or nothing was
        loaded.
        """
        ends = self.endings()
        return ends[-1] if ends and time.time() >= ends[-1].at else None

    def _ending(self, at: float) -> Ending:
        return Ending(
            next((what for what, end in self._live[2].items() if end == at), "approval"), at
        )

    def become(self, other: Catalog) -> None:
        """Hold what another catalog holds; concurrent readers see one or the other."""
        # same class
        self._live = other._live
        self.quarantined = other.quarantined
        self._warn_at = other._warn_at
        self.observed = other.observed
        # what is being looked up meanwhile goes into the dict of before, and is looked up again
        self.others = {}

    def __iter__(self) -> Iterator[Workflow]:
        return iter(self._live[0].values())

    def __len__(self) -> int:
        return len(self._live[0])


def roles_of(root: Path) -> Roles:
    """The roles of the folder; none without a ``roles.yaml`` (a workflow that names a role then
    does not load).

    Raises:
        WorkflowError: ``roles.yaml`` is wrong.
    """
    path = root / ROLES
    return (
        parse_roles(text_of(path, root), str(path))
        if path.exists() or path.is_symlink()
        else {}
    )


def workflow_files(root: Path) -> list[Path]:
    """The workflow files below a folder, in a fixed order."""
    paths = []
    for folder, folders, names in os.walk(root):  # links to folders are not followed
        if folder == str(root) and APPROVALS in folders:
            folders.remove(APPROVALS)
        paths += [
            os.path.join(folder, n)  # noqa: PTH118 - a Path each costs more than reading it
            for n in names
            if n.endswith(".yaml") and not n.endswith(TESTS)
        ]
    return [Path(path) for path in sorted(paths) if path != str(root / ROLES)]


def is_workflow_file(path: Path, root: Path) -> bool:
    """Whether a path, as it is written, is one of `workflow_files`; looks at nothing else in
    the folder.
    """
    if (
        not path.is_relative_to(root)
        or ".." in path.parts
        or not path.name.endswith(".yaml")
        or path.name.endswith(TESTS)
    ):
        return False
    folders = path.relative_to(root).parts[:-1]
    linked = any(
        root.joinpath(*folders[:depth]).is_symlink() for depth in range(1, len(folders) + 1)
    )
    return not (linked or folders[:1] == (APPROVALS,) or path == root / ROLES) and (
        path.is_file() or path.is_symlink()
    )


def text_of(path: Path, root: Path) -> str:
    """The text of a workflow file.

    Raises:
        WorkflowError: a link that leaves the folder, not readable, or not UTF-8.
    """
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(
        os.path.realpath(root)
    ):  # resolve() gives up on a loop
        raise refused(path, "a link out of the folder", f"a file below {root}")
    return read_file(path)
