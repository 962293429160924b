"""What nobody proved, counted: a record or a line for each would let anybody at all fill the
disk.

Rules: what is kept, and what is told in a day, has an end, whatever callers send and from
however many addresses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

SECONDS = 300.0  # from the first refusal of a summary to the summary
# refusals as they were, and rows of counts, in one
FIRST = 4
ROWS = 16
_WORDS = 80


class Refusals:
    """The counts of one gate. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = self._began = 0.0
        self._rows: dict[tuple[str, ...], int] = {}
        self._first: list[Mapping[str, Any]] = []

    def count(self, *row: str, refusal: Mapping[str, Any]) -> None:
        """Count a refusal in its row. `refusal`: what a record of it alone would say."""
        cut = tuple(ascii(each)[1:-1][:_WORDS] for each in row)
        with self._lock:
            if not self._rows:
                self._since = time.time()
                self._began = time.monotonic()
            key = cut if cut in self._rows or len(self._rows) < ROWS else ("others",)
            self._rows[key] = self._rows.get(key, 0) + 1
            if len(self._first) < FIRST:
                self._first.append(refusal)

    def summary(self, *, last: bool = False) -> Mapping[str, Any] | None:
        """What was counted, which counts as told from now on; None: nothing, or (unless it is
        the `last`) too early.
        """
        if not self._rows or not (last or time.monotonic() - self._began >= SECONDS):
            return None
        with self._lock:  # of two threads that come here one finds nothing
            rows = self._rows
            first = self._first
            self._rows = {}
            self._first = []
        if not rows:
            return None
        counts = [[*row, count] for row, count in rows.items()]
        return {
            "since": round(self._since, 6),
            "refused": sum(rows.values()),
            "counts": counts,
            "first": first,
        }
