"""A small file system of its own that can be filled: a tmpfs, in a mount namespace that ends with the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_MARK = "AGENTGATE_FAULTS_MOUNTS"  # set for the process that may mount
_WAYS = (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount"))


def may_mount() -> bool:
    """Whether this process has a mount namespace of its own."""
    return os.environ.get(_MARK) == "1"


def in_own_namespace() -> None:
    """Start this program again where it may mount, if this machine lets it (Linux: as root, or with user namespaces)."""
    if may_mount() or shutil.which("unshare") is None:
        return
    for way in _WAYS:
        tried = subprocess.run([*way, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"], capture_output=True, check=False)
        if tried.returncode == 0:
            os.environ[_MARK] = "1"
            os.execvp(way[0], [*way, sys.executable, "-m", "tests.faults", *sys.argv[1:]])  # noqa: S606 - this program, by exact path


class Disk:
    """A file system of `size` at `folder`."""

    def __init__(self, folder: Path, size: str = "4m") -> None:
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], check=True)
        self._folder, self._filler = folder, folder / "filler"

    def fill(self) -> None:
        """Leave not a byte (but for what is left of pages in use)."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                with suppress(OSError):
                    while filler.write(b"x" * size):
                        pass

    def free(self) -> None:
        """Take away what `fill` wrote."""
        self._filler.unlink()

    def end(self) -> None:
        """Unmount, also where a process still has a file open."""
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)
