"""Segments that were found whole, in a cache of whoever asks: one that was verified before is
only hashed, as it is searched.

Rules: an entry is named by the heads that the segment was verified against, and has the SHA-256
of its lines, which whoever reads records compares (`agentgate.audit.questions`), so that it
holds of nothing else: a segment that changed since is verified again, and its entry takes the
place of the one before. No record is in it. The cache is for its owner only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from agentgate.audit.segment import writer_of
from agentgate.audit.writing import write_whole
from agentgate.errors import ConfigError


def open_cache(folder: Path) -> Path:
    """Make it. Raises ConfigError: others may write there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077 or folder.stat().st_uid != os.geteuid():
        raise ConfigError("cache", str(folder), "a directory of this user with mode 0700")
    return folder


def entry_of(
    folder: Path, path: Path, heads: Sequence[Mapping[str, Any]], *, sealed: bool
) -> Path:
    """Where a segment stands if it was found whole."""
    name = hashlib.sha256(
        orjson.dumps([sealed, *heads], option=orjson.OPT_SORT_KEYS)
    ).hexdigest()
    return folder / f"{writer_of(path)}.{name}"


def read_entry(entry: Path, path: Path) -> dict[str, Any] | None:
    """What was found of a segment, if it may be as it was then; None: it was not whole, or has
    another size.
    """
    with suppress(OSError, ValueError):
        told: dict[str, Any] = orjson.loads(entry.read_bytes())
        if path.suffix == ".gz" or path.stat().st_size == told["size"]:
            return {**told, "file": str(path)}
    return None


def write_entry(entry: Path, told: Mapping[str, Any]) -> None:
    """Keep that a segment is whole, and what else was found of it."""
    drop_entries(entry.parent, entry.stem)
    write_whole(entry, orjson.dumps(told), durable=False)


def drop_entries(folder: Path, writer: str) -> None:
    """Forget what was found of a segment."""
    for old in folder.glob(f"{writer}.*"):
        old.unlink(missing_ok=True)
