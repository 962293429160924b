"""How a gate learns what is in force: earlier marks, trust files, versions; then it publishes
the result and records it.

Publishing raises the marks, on disk and in the store, and ends in the store what was issued
under a revoked version. The same order opens a gate and reloads while it runs. Every refusal is
logged by its name, and all of them go into one audit record; a root that is marked solo or
demo, and an intent in doubt, are warned of every time.

Marks are versions and serials that never fall. They are read before anything is loaded, and
raised afterwards; the higher number of both places counts, so either may be lost and nothing old
comes back. A file that exists and cannot be read refuses (else emptying it would be a rollback).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import structlog

from agentgate.approvals._files import (
    APPROVALS,
    REVOKED,
    ROLLBACK,
    UNAPPROVED,
    ApprovalRefused,
    Tree,
    refuse,
    refused,
    version_of,
)
from agentgate.approvals.judge import IN_FORCE, OBSERVED
from agentgate.approvals.loading import (
    INDEX_MARK,
    REVOKED_MARK,
    ROOT_MARK,
    Loaded,
    ends_at,
    load_approved,
    strict_judge,
)
from agentgate.approvals.narrowing import Prover
from agentgate.approvals.root import Signers
from agentgate.audit import AuditLog
from agentgate.audit.writing import write_whole
from agentgate.errors import Failure, NameRefused
from agentgate.loading.catalog import Catalog, Ending
from agentgate.loading.definition import Derive
from agentgate.shell.drive import adrive, drive
from agentgate.shell.step import Apart, Flow, Record, Step, alone
from agentgate.stores import AsyncStore, Store, ops
from agentgate.token.regular_file import read_regular
from agentgate.token.signing import KeyRing
from agentgate.values.canonical import canonical
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow

MARKS_FILE = "approvals.json"


def read_marks(folder: Path) -> dict[str, int]:
    """The numbers on disk by name; none before the file exists. `folder`: an existing directory
    of this gate alone (its keys).

    Raises ApprovalRefused: ROLLBACK, when the file is not what `raise_kept` wrote.
    """
    file = folder / MARKS_FILE
    try:
        kept = orjson.loads(read_regular(file, forbidden=0o022))
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        expected = "the file this gate wrote (what was in force is unknown without it)"
        raise refuse(ROLLBACK, str(file), "file", str(error), expected) from None
    match kept:
        case {"agentgate": "marks/v1", "marks": dict(marks)} if all(
            type(n) is int and n >= 0 for n in marks.values()
        ):
            return marks
    raise refuse(ROLLBACK, str(file), "document", "something else", "the file this gate wrote")


def raise_kept(folder: Path, marks: Mapping[str, int]) -> None:
    """Raise every number on disk to at least the given one. Raises ApprovalRefused: ROLLBACK,
    when the file cannot be read or written.
    """
    file = folder / MARKS_FILE
    try:
        with _locked(folder):
            kept = read_marks(folder)
            risen = higher(kept, marks)
            if risen != kept:
                write_whole(
                    file,
                    orjson.dumps(
                        {"agentgate": "marks/v1", "marks": risen}, option=orjson.OPT_SORT_KEYS
                    ),
                )
    except OSError as error:
        raise refuse(
            ROLLBACK,
            str(file),
            "file",
            error.strerror or "an error",
            "a directory that can be written",
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time, between processes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def higher(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The higher number of each name."""
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def chunks(marks: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Marks in portions that fit one store operation."""
    items = iter(marks.items())
    while chunk := dict(islice(items, ops.MAX_MARKS)):
        yield chunk


def raise_stored(gate: str, marks: Mapping[str, int]) -> Flow:
    """Raise a portion of marks in the store; returns their values there. Raises
    StoreUnavailable, through the driver.
    """
    return (yield ops.raise_marks(gate, marks))


_log = structlog.get_logger("agentgate.gate.gate")
# named in one audit record
_MAX_REFUSED = 100
_MAX_WORDS = 600
_MAX_ENDINGS = 5  # in one warning
_SERIALS = (ROOT_MARK, INDEX_MARK, REVOKED_MARK)


@value_class
class Other:
    """An approved version that need not be the one in force; `until` (POSIX seconds), and
    whether it is the newest that may run.
    """

    workflow: Workflow
    until: float
    newest: bool


@dataclass(eq=False)
class Opening:
    """One loading of what is in force.

    Attributes:
        directory: the workflow directory.
        root: the pinned digest.
        gate: the gate's URL, under which the store keeps its marks.
        ring: the gate's keys.
        kept: their directory, which also stores the marks and the proofs.
        log: the gate's audit log.
        derive: the intent deriver.
        signers: whose SSH keys answer holds, since the last loading.
    """

    directory: Path
    root: str
    gate: str
    ring: KeyRing
    kept: Path
    log: AuditLog
    derive: Derive
    signers: Signers | None = None

    @cached_property
    def _prover(self) -> Prover:
        return Prover(kept=self.kept)

    def steps(self) -> Generator[Step, Any, Loaded]:
        """What is in force now. Each store operation has its own deadline: how many there are
        depends on the directory.

        Raises as `load`, and ApprovalRefused: the approvals folder cannot be read.
        """
        names = dict.fromkeys(_SERIALS, 0)
        for id_ in Tree(self.directory).ids():
            names |= {id_: 0, f"revoked:{id_}": 0, OBSERVED + id_: 0}
        loaded = self.load((yield from self._stored(names)))
        raise_kept(self.kept, loaded.marks)
        raised = yield from self._stored(
            {name: mark for name, mark in loaded.marks.items() if not name.startswith(IN_FORCE)}
        )
        loaded = self.settle(loaded, raised)
        yield Apart(_on_record(loaded))
        told = canonical(
            {"at": round(time.time(), 3), "by": "reviewers", "reason": f"{APPROVALS}/{REVOKED}"}
        )
        # ends tokens, runs, and gates that did not reload yet
        for id_, version, tenants in loaded.revoked:
            for tenant in tenants:
                with suppress(NameRefused):  # no tenant of this name can exist
                    yield Apart(
                        alone(
                            ops.revoke(
                                tenant,
                                "workflow",
                                ops.workflow_subject(id_, version),
                                told=told,
                                signed=True,
                            )
                        )
                    )
        self.signers = Signers(loaded.root, loaded.allowed)
        return loaded

    def load(self, stored_marks: Mapping[str, int]) -> Loaded:
        """Load, never below what disk and store know. Raises as `load_approved`, and ROLLBACK
        for unreadable marks.
        """
        known = higher(read_marks(self.kept), stored_marks)
        return load_approved(
            self.directory,
            self.root,
            derive=self.derive,
            now=time.time(),
            known=known,
            prover=self._prover,
        )

    def other(self, id_: str, version: int) -> Other:
        """A version that a run was opened with, judged as the directory is now.

        Raises as `strict_judge`, and ApprovalRefused: its approval does not hold now.
        WorkflowError: it does not load.
        """
        known = read_marks(self.kept)
        now = time.time()
        judge = strict_judge(
            self.directory,
            self.root,
            derive=self.derive,
            now=now,
            known=known,
            prover=self._prover,
        )
        standing = judge.standing(id_, version)
        approved = standing.approved
        if not approved or approved.observes:
            file = f"{APPROVALS}/{id_}/{version}"
            expected = "an approved version that is enforced"
            none = refused(
                UNAPPROVED, file, "version", "nothing", expected, workflow=id_, version=version
            )
            raise ApprovalRefused.of(standing.refused or none)
        newest = judge.running(id_).enforced is approved
        return Other(
            judge.load(approved.version, approved.statement.roles),
            ends_at(judge, approved),
            newest,
        )

    def settle(self, loaded: Loaded, now_stored: Mapping[str, int]) -> Loaded:
        """Leave out each workflow of which another gate put a newer version in force meanwhile.

        Raises ApprovalRefused: ROLLBACK, when another gate saw a newer root, index or
        revocations.
        """
        behind = {
            name: value for name, value in now_stored.items() if value > loaded.marks[name]
        }
        for name in _SERIALS:
            if name in behind:
                raise ApprovalRefused.of(_rolled(name, loaded.marks[name], behind[name]))
        gone = {
            name.removeprefix("revoked:") for name in behind if not name.startswith(OBSERVED)
        }  # what observes takes nothing away
        more = tuple(
            _rolled(id_, loaded.marks.get(id_, 0), now_stored.get(id_, 0)).with_data(
                workflow=id_
            )
            for id_ in sorted(gone)
        )
        kept = {id_: workflow for id_, workflow in loaded.workflows.items() if id_ not in gone}
        return replace(loaded, workflows=kept, refused=(*loaded.refused, *more))

    def _stored(self, marks: Mapping[str, int]) -> Generator[Step, Any, dict[str, int]]:
        """Raise marks in the store; returns their values there."""
        values: dict[str, int] = {}
        for chunk in chunks(marks):
            values |= yield Apart(raise_stored(self.gate, chunk))
        return values


def load(opening: Opening, store: Store) -> Catalog:
    """What is in force now.

    Raises ApprovalRefused, ConfigError, WorkflowError, StoreUnavailable, AuditUnavailable:
    nothing is loaded.
    """
    return _catalog(drive(opening.steps(), store, opening.log))


async def aload(opening: Opening, store: AsyncStore) -> Catalog:
    """`load`, awaited."""
    return _catalog(await adrive(opening.steps(), store, opening.log))


def warn_of(endings: tuple[Ending, ...]) -> None:
    """Log what ends soon, or has ended, of what reviewers signed."""
    for ending in endings[:_MAX_ENDINGS]:
        message = "what it keeps in force is refused from then on"
        _log.warning(
            "approvals_end",
            what=ending.what,
            ends=ending.day,
            message=message,
            remedy=ending.remedy,
        )


_UNSIGNED = "ignored", "nobody signed mode: observe; this workflow is enforced"
_ALONE = (
    "alone",
    (
        "no version of it was ever enforced: a refused call runs its tool, without a token, a "
        "credential or facts"
    ),
)


def report(catalog: Catalog, observe: tuple[str, str] = _UNSIGNED) -> None:
    """Log the files that are not loaded, what `mode: observe` means for whom, and the intents
    in doubt.
    """
    for file, error in catalog.quarantined.items():
        _log.error(
            "workflow_quarantined", file=str(file), problems=[str(p) for p in error.problems]
        )
    for workflow in catalog:
        if workflow.observe:
            _log.warning(
                f"observe_{observe[0]}",
                workflow=workflow.id,
                version=workflow.version,
                message=observe[1],
            )
        for doubt in workflow.in_doubt:
            _log.warning(
                "intent_in_doubt",
                workflow=workflow.id,
                version=workflow.version,
                intent=doubt.intent,
                problem=str(doubt),
                message=(
                    "this deriver reads an example otherwise than its reviewers did; the "
                    "intent is unclear at most"
                ),
            )


def _catalog(loaded: Loaded) -> Catalog:
    for marked, word, meaning in (
        (loaded.root.solo, "solo", "one person approves their own changes"),
        (loaded.root.shape.demo, "demo", "anybody has its keys"),
    ):
        if marked:
            _log.warning(
                f"root_{word}",
                message=f"the root of these approvals is marked {word}: {meaning}",
                root=loaded.root.digest,
            )
    for each in loaded.refused:
        workflow, version = version_of(each)
        running = loaded.workflows.get(workflow)
        _log.error(
            "workflow_refused",
            refusal=str(each.reason),
            workflow=workflow,
            version=version,
            in_force=running.version if running else None,
            problem=str(each),
        )
    catalog = Catalog(loaded.workflows, loaded.broken, loaded.until, loaded.ends)
    catalog.observed = loaded.observed
    report(catalog, _ALONE)
    warn_of(catalog.due())
    return catalog


def _on_record(loaded: Loaded) -> Flow:
    yield Record(
        {
            "type": "workflows_loaded",
            "time": round(time.time(), 6),
            "root": loaded.root.digest,
            "marks": {name: loaded.marks[name] for name in _SERIALS},
            "workflows": len(loaded.workflows),
            "refused": [str(each)[:_MAX_WORDS] for each in loaded.refused[:_MAX_REFUSED]],
            "more": max(0, len(loaded.refused) - _MAX_REFUSED),
            "revoked": [
                ops.workflow_subject(id_, version)
                for id_, version, _ in loaded.revoked[:_MAX_REFUSED]
            ],
        }
    )


def _rolled(name: str, got: int, known: int) -> Failure:
    return refused(
        ROLLBACK,
        "the state store",
        name,
        got,
        f"at least {known}, which another gate has in force (load again)",
    )
