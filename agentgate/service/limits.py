"""How often a proven client may ask: a bucket each, of this process."""

from __future__ import annotations

import time
from collections import OrderedDict

BURST = 10  # seconds' worth at once
POLL_SECONDS = 5  # between two questions after one deferred token
_KEPT = 20_000  # buckets; those asked for longest ago are forgotten, which only fills them


class Rates:
    """Token buckets by name."""

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = rate * BURST if burst is None else burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now: float | None = None) -> float:
        """Take one. 0: it was there; else the seconds until there is one. `now`: monotonic
        seconds.
        """
        at = time.monotonic() if now is None else now
        left, since = self._buckets.pop(name, (self._burst, at))
        left = min(self._burst, left + (at - since) * self._rate)
        taken = left >= 1
        self._buckets[name] = (left - 1 if taken else left, at)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._rate
