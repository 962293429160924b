"""What was in force before: versions and serials that never fall, on disk beside the gate's
keys and in the state store.

Rules: read before anything is loaded, raised afterwards; the higher number of both places
counts, so either may be lost and nothing old comes back. A file that exists and cannot be read
refuses (else emptying it would be a rollback).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import orjson

from agentgate.approvals.refusal import ROLLBACK, refuse
from agentgate.audit.writing import write_whole
from agentgate.shell.step import Flow
from agentgate.stores import ops
from agentgate.token.regular_file import read_regular

FILE = "approvals.json"
_FORMAT = "marks/v1"


def read(folder: Path) -> dict[str, int]:
    """The numbers on disk by name; none before the file exists. `folder`: an existing directory
    of this gate alone (its keys).

    Raises ApprovalRefused: ROLLBACK, when the file is not what `rise` wrote.
    """
    file = folder / FILE
    try:
        kept = orjson.loads(read_regular(file, forbidden=0o022))
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        expected = "the file this gate wrote (what was in force is unknown without it)"
        raise refuse(ROLLBACK, str(file), "file", str(error), expected) from None
    marks = (
        kept.get("marks") if type(kept) is dict and kept.get("agentgate") == _FORMAT else None
    )
    if type(marks) is not dict or not all(type(n) is int and n >= 0 for n in marks.values()):
        raise refuse(
            ROLLBACK, str(file), "document", "something else", "the file this gate wrote"
        )
    return marks


def rise(folder: Path, marks: Mapping[str, int]) -> None:
    """Raise every number on disk to at least the given one. Raises ApprovalRefused: ROLLBACK,
    when the file cannot be read or written.
    """
    file = folder / FILE
    try:
        with _locked(folder):
            kept = read(folder)
            risen = higher(kept, marks)
            if risen != kept:
                write_whole(
                    file,
                    orjson.dumps(
                        {"agentgate": _FORMAT, "marks": risen}, option=orjson.OPT_SORT_KEYS
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


def stored(gate: str, marks: Mapping[str, int]) -> Flow:
    """Raise a portion of marks in the store; returns their values there. Raises
    StoreUnavailable, through the driver.
    """
    return (yield ops.raise_marks(gate, marks))
