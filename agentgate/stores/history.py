"""What this process last saw of each tenant's history, so that it notices when a store has lost
a part of it.

Rules: a history is the text "epoch count" that a script returns; it is sent back with the next
mint or burn, and the script compares (``scripts/_common.lua``). What a store says after it was
found to follow what was remembered replaces that; a lower count that crosses it on the way does
not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import lru_cache

from agentgate.errors import NameRefused

history_form = lru_cache(maxsize=1024)(
    re.compile(r"(?:[0-9a-f]{40}\.[0-9]{1,20} [0-9]{1,16})?").fullmatch
)


def checked_history(value: str) -> str:
    """A tenant's history as a store names it ("epoch count"), or empty; else NameRefused."""
    if type(value) is not str or history_form(value) is None:
        raise NameRefused("history", value, "an epoch and a count, or nothing")
    return value


class History:
    """The memory of one gate or verifier, of each history by its name
    (`agentgate.stores.history_name`). Safe to share between threads.

    Attributes:
        lasting: False for a store that ends with its process: what it counted means nothing to
            another, and goes on no record.
    """

    def __init__(self, seen: Mapping[str, str] | None = None, *, lasting: bool = True) -> None:
        """Start from what was seen before: name -> history."""
        self.lasting = lasting
        self._seen = dict(seen or {})
        self._lock = threading.Lock()

    def seen(self, name: str) -> str:
        """What was last seen of it, or empty."""
        return self._seen.get(name, "")

    def tenants(self) -> set[str]:
        """Of whom anything was seen."""
        return {name.partition(" ")[0] for name in self._seen}

    def see(self, name: str, sent: str, got: str) -> None:
        """Take what a script answered (empty: nothing) to `sent`."""
        if not got or got == self._seen.get(name):
            return
        with self._lock:
            known = self._seen.get(name, "")
            if known == sent or split(got)[1] > split(known)[1]:
                self._seen[name] = got

    def note(self, history: str, audience: str = "") -> dict[str, str]:
        """The fields of an audit record by which a later process remembers
        (`agentgate.audit.remembered`).
        """
        if not history or not self.lasting:
            return {}
        return (
            {"redemptions": history, "audience": audience} if audience else {"history": history}
        )


def split(history: str) -> tuple[str, int]:
    """Epoch and count of a history; of an empty one no epoch, and 0."""
    epoch, _, count = history.rpartition(" ")
    return epoch, int(count or 0)
