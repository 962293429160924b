"""The acts for which a gate issued a token lately: where a store has lost the record of one, somebody may have redeemed it."""

from __future__ import annotations

import threading

LIMIT = 50_000  # calls; those of before are forgotten


class Issued:
    """Call digests, the newest `LIMIT`. Safe to share between threads."""

    def __init__(self) -> None:
        self._digests: dict[str, None] = {}
        self._lock = threading.Lock()

    def add(self, digest: str) -> None:
        """A token of this call leaves the gate."""
        with self._lock:
            self._digests.pop(digest, None)
            self._digests[digest] = None
            if len(self._digests) > LIMIT:
                del self._digests[next(iter(self._digests))]

    def forget(self, digest: str) -> None:
        """The store has marked the loss: what becomes of the call is settled when it is reconciled."""
        with self._lock:
            self._digests.pop(digest, None)

    def __contains__(self, digest: str) -> bool:
        return digest in self._digests
