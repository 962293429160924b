"""What really happened, counted where no store can forget it: a line in a file for each execution and each token that was accepted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path


class Ledger:
    """Two files that are only appended to. Safe to share between threads: one `write` is one line."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {kind: folder / kind for kind in ("executed", "accepted")}
        self._open = {kind: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for kind, path in self._files.items()}

    def execute(self, call: str) -> None:
        """The tool's own side effect: what a refund is to a bank."""
        os.write(self._open["executed"], f"{call}\n".encode())

    def accept(self, jti: str) -> None:
        """A verifier took this token."""
        os.write(self._open["accepted"], f"{jti}\n".encode())

    def counts(self, kind: str) -> Counter[str]:
        """How often each call was executed ("executed"), or each token accepted ("accepted")."""
        return Counter(self._files[kind].read_text(encoding="utf-8").split())

    def twice(self, kind: str) -> list[str]:
        """Those of them that happened more than once."""
        return sorted(name for name, times in self.counts(kind).items() if times > 1)

    def close(self) -> None:
        """Close both files."""
        for descriptor in self._open.values():
            os.close(descriptor)
