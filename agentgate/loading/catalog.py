"""All workflows of a folder, by id.

Rules: one bad file is quarantined and reported, the others stay loaded; an id that two files claim is nobody's, so both are
quarantined; a bad ``roles.yaml`` loads nothing. Every ``*.yaml`` below the folder is a workflow except tests
(``*.test.yaml``), ``roles.yaml`` and ``approvals/``; links that lead out of the folder are refused. Equal parts of
different workflows are one object in memory.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from agentgate.errors import Problem, WorkflowError
from agentgate.loading.definition import Derive, Roles, load_text, parse_roles, read_file
from agentgate.loading.sharing import Sharing
from agentgate.workflow.model import Workflow

ROLES = "roles.yaml"
APPROVALS = "approvals"
TESTS = ".test.yaml"


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's cyclic garbage collector is off inside, and after it as it was before.

    Loading makes no reference cycles (a test counts them), and every pass over what is already loaded would look at all
    of it and free nothing: a quarter of the time that many files take.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Catalog:
    """The workflows of one folder, as loaded at one moment. Build with `Catalog.load`.

    Attributes:
        quarantined: path -> why that file is not loaded.
    """

    __slots__ = ("_live", "quarantined")

    def __init__(
        self,
        workflows: Mapping[str, Workflow],
        quarantined: Mapping[str, WorkflowError],
        until: Mapping[str, float] | None = None,
    ) -> None:
        """What was loaded.

        Args:
            workflows: by id.
            quarantined: path -> why that file is not loaded.
            until: id -> POSIX seconds at which its approval ends; None: nobody's approval was asked for.
        """
        self._live = workflows, until
        self.quarantined = quarantined

    @classmethod
    @collector_paused()
    def load(cls, directory: Path | str, derive: Derive) -> Catalog:
        """Load every workflow below a folder.

        Args:
            directory: the folder.
            derive: the intent deriver that examples are checked with.

        Raises:
            WorkflowError: the folder cannot be read, or ``roles.yaml`` is wrong; then nothing is loaded.
        """
        root = Path(directory)
        if not root.is_dir():
            raise WorkflowError((Problem(str(root), 1, 1, "workflows", "no such folder", "a folder of workflow files"),))
        roles = roles_of(root)
        share = Sharing()
        loaded: dict[str, Workflow] = {}
        quarantined: dict[str, WorkflowError] = {}
        for path in workflow_files(root):
            try:
                workflow = load_text(text_of(path, root), str(path), roles, derive, share=share)
            except WorkflowError as error:
                quarantined[str(path)] = error
                continue
            other = loaded.get(workflow.id)
            if other is None:
                loaded[workflow.id] = workflow
            else:
                quarantined.setdefault(other.file, _claimed(other, workflow.file))
                quarantined[workflow.file] = _claimed(workflow, other.file)
        for id_ in [id_ for id_, workflow in loaded.items() if workflow.file in quarantined]:
            del loaded[id_]
        return cls(MappingProxyType(loaded), MappingProxyType(quarantined))

    def get(self, id: str) -> Workflow | None:  # noqa: A002 - the word of the vocabulary
        """The workflow of this id; None when there is none, it is quarantined, or its approval has ended."""
        workflows, until = self._live
        found = workflows.get(id)
        if found is not None and until is not None and time.time() >= until.get(id, 0.0):
            return None
        return found

    def become(self, other: Catalog) -> None:
        """Hold what another catalog holds, in one step for whoever reads it at the same time."""
        self._live, self.quarantined = other._live, other.quarantined  # same class

    def __iter__(self) -> Iterator[Workflow]:
        return iter(self._live[0].values())

    def __len__(self) -> int:
        return len(self._live[0])


def roles_of(root: Path) -> Roles:
    """The roles beside the workflows; none when there is no ``roles.yaml`` (a workflow that names one then does not load).

    Raises:
        WorkflowError: ``roles.yaml`` is wrong.
    """
    path = root / ROLES
    return parse_roles(text_of(path, root), str(path)) if path.exists() or path.is_symlink() else {}


def workflow_files(root: Path) -> list[Path]:
    """The workflow files below a folder, in a fixed order."""
    found = []
    for folder, folders, names in os.walk(root):  # links to folders are not followed
        if folder == str(root) and APPROVALS in folders:
            folders.remove(APPROVALS)
        found += [os.path.join(folder, n) for n in names if n.endswith(".yaml") and not n.endswith(TESTS)]  # noqa: PTH118 - a Path each costs more than reading it
    return [Path(path) for path in sorted(found) if path != str(root / ROLES)]


def text_of(path: Path, root: Path) -> str:
    """The text of a workflow file; a link that leads out of the folder is refused.

    Raises:
        WorkflowError: a link out, not readable, or not UTF-8.
    """
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):  # resolve() gives up on a loop
        raise WorkflowError((Problem(str(path), 1, 1, "document", "a link out of the folder", f"a file below {root}"),))
    return read_file(path)


def _claimed(workflow: Workflow, other: str) -> WorkflowError:
    return WorkflowError((Problem(workflow.file, 1, 1, "id", f"'{workflow.id}', also the id of {other}", "an id of its own"),))
