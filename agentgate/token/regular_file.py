"""Reading a file that somebody else may have put there: a pipe is not waited for, a device not
read, a long file not held.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 1024 * 1024


def read_regular(
    path: str | os.PathLike[str],
    *,
    forbidden: int = 0,
    links: bool = False,
    most: int = MAX_BYTES,
) -> bytes:
    """The bytes of a regular file; what is checked is what is read.

    Args:
        path: of the file.
        forbidden: bits that its mode must not have; where there are any, it must belong to this
            user, root included.
        links: the last part of the path may be a link (a mounted ConfigMap's is).
        most: bytes.

    Raises:
        OSError: anything else; `strerror` says what is wrong.
    """
    handle = os.open(
        path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    )
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "no regular file", os.fspath(path))
        if forbidden and (status.st_uid != os.geteuid() or status.st_mode & forbidden):
            got = stat.S_IMODE(status.st_mode)
            wanted = 0o666 & ~forbidden
            raise OSError(
                0,
                f"mode {got:04o}, owner {status.st_uid}; expected a file of this user with "
                f"mode {wanted:04o}",
                os.fspath(path),
            )
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"a longer one, expected at most {most} bytes", os.fspath(path))
    return data


def read_text(path: Path) -> str:
    """A file of settings, in UTF-8. Raises OSError, UnicodeDecodeError."""
    return read_regular(path, links=True).decode()
