"""Files that are written whole or not at all, and names that survive a power cut."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_whole(
    path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True, first: bool = False
) -> None:
    """Replace a file so that readers see the old or the new one.

    Args:
        path: of the file.
        data: what it holds then.
        mode: its permissions.
        durable: also after a crash of the host.
        first: one that another process has written meanwhile stays.

    Raises:
        OSError.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb"
        ) as out:
            out.write(data)
            out.flush()
            if durable:
                os.fsync(out.fileno())
        if first:
            with suppress(FileExistsError):
                os.link(draft, path)
        else:
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: it failed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
