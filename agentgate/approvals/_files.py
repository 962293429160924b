"""Reading and writing below ``approvals/``: links are refused, sizes are capped, a file is
written whole or not at all.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Literal

from agentgate.approvals.refusal import TAMPERED, ApprovalRefusal, ApprovalRefused, refuse
from agentgate.audit.writing import write_whole
from agentgate.values.canonical import digest

APPROVALS = "approvals"
ROOT = "root.yaml"
SIGNERS = "allowed_signers"
INDEX = "index.json"
RENEWAL = "renewal.json"
REVOKED = "revoked.yaml"
DEFINITION = "definition.json"
MAX_BYTES = 256 * 1024

Kind = Literal["file", "folder", "link"]
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)


class Tree:
    """The ``approvals`` folder of one workflow directory."""

    __slots__ = ("_base", "directory")

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._base = os.path.join(directory, APPROVALS)  # noqa: PTH118 - joined for each of hundreds of files

    def read(self, name: str, missing: ApprovalRefusal, *, limit: int = MAX_BYTES) -> bytes:
        """The bytes of a file below ``approvals``, of at most `limit` bytes.

        Raises ApprovalRefused: absent (`missing`); a link, not a file, too large or unreadable
        (TAMPERED).
        """
        data = self.read_optional(name, limit=limit)
        if data is None:
            got = f"nothing in {os.path.abspath(self.directory)}"  # noqa: PTH100 - as it is written, links and all
            raise refuse(missing, f"{APPROVALS}/{name}", "file", got, "this file", absent=True)
        return data

    def read_optional(self, name: str, *, limit: int = MAX_BYTES) -> bytes | None:
        """The bytes of a file, or None when it does not exist. Raises TAMPERED as `read`."""
        try:
            handle = os.open(
                f"{self._base}/{name}",
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            got = (
                "a link"
                if error.errno == errno.ELOOP
                else error.strerror or type(error).__name__
            )
            raise refuse(
                TAMPERED,
                f"{APPROVALS}/{name}",
                "file",
                got,
                "a readable file (links are refused)",
            ) from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                got = (
                    f"{status.st_size} bytes"
                    if stat.S_ISREG(status.st_mode)
                    else "something else than a file"
                )
                raise refuse(
                    TAMPERED,
                    f"{APPROVALS}/{name}",
                    "file",
                    got,
                    f"a file of at most {limit} bytes",
                )
            return os.read(handle, status.st_size + 1)
        finally:
            os.close(handle)

    def names(self, folder: str = "") -> list[tuple[str, Kind]]:
        """The entries of a folder, sorted; none when it does not exist. Raises ApprovalRefused:
        a link, or unreadable (TAMPERED).
        """
        where = f"{self._base}/{folder}" if folder else self._base
        shown = f"{APPROVALS}/{folder}" if folder else APPROVALS
        try:
            if os.path.islink(where):  # noqa: PTH114 - as above
                raise _not_a_folder(shown, "a link")
            with os.scandir(where) as entries:
                return sorted(
                    (e.name, "link" if e.is_symlink() else "folder" if e.is_dir() else "file")
                    for e in entries
                )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise refuse(
                TAMPERED, shown, "folder", error.strerror or "an error", "a readable folder"
            ) from None

    def ids(self) -> list[str]:
        """The workflow ids that have a folder (or a link in its place)."""
        return [
            name
            for name, kind in self.names()
            if kind != "file" and name != "root" and _ID.fullmatch(name)
        ]

    def versions(self, id_: str) -> list[int]:
        """The stored versions of a workflow, newest first. Raises ApprovalRefused: a link or
        file in place of a folder (TAMPERED).
        """
        versions = []
        for name, kind in self.names(id_):
            if _VERSION.fullmatch(name):
                if kind != "folder":
                    raise _not_a_folder(f"{APPROVALS}/{id_}/{name}", f"a {kind}")
                versions.append(int(name))
        return sorted(versions, reverse=True)

    def write(self, name: str, data: bytes) -> Path:
        """Write a file whole or not at all, with its folders. Raises ApprovalRefused: not
        writable, or a link is in the way (TAMPERED).
        """
        path = Path(self._base) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (Path(self._base), path.parent):
                if folder.is_symlink():
                    raise _not_a_folder(str(folder), "a link")
            write_whole(path, data, mode=0o644, durable=False)
        except OSError as error:
            raise refuse(
                TAMPERED,
                f"{APPROVALS}/{name}",
                "file",
                error.strerror or "an error",
                "a writable folder",
            ) from None
        return path


def _not_a_folder(shown: str, got: str) -> ApprovalRefused:
    return refuse(TAMPERED, shown, "folder", got, "a folder (links are refused)")


def file_digest(data: bytes) -> str:
    """``sha256:...`` of a file's bytes."""
    return f"sha256:{digest(data)}"


def text_of(data: bytes, file: str) -> str:
    """A trust file as text. Raises ApprovalRefused: not UTF-8 (TAMPERED)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise refuse(
            TAMPERED, file, "document", "bytes that are not UTF-8", "UTF-8 text"
        ) from None
