"""How fresh phrasings are read: ``python -m tests.benchmarks.phrasings`` prints, of each kind and half, how many are granted.

A line is one run: ``⏎`` is a line break, `` || `` begins another turn. Both halves of a kind have one author, who wrote them before the
rules for them; `development` was read while these were written, of `measured` only counts were looked at. (Three lines of `measured` were
seen by accident while the rule for later turns was written; six of `states` and `negations` after their rule stood.)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from agentgate.intents.lexical import derive
from agentgate.workflow.model import Intent

HERE = Path(__file__).parent / "phrasings"
WORDS = (
    *("refund", "pay", "send", "transfer", "cancel", "delete", "share", "move", "change", "book", "invite", "add", "forward", "order"),
    *("close", "remove", "approve", "schedule", "reimburse", "grant", "ship", "archive", "email", "mail", "create", "post", "put", "set"),
    *("reply", "upgrade"),
)
ACT = Intent("act", 1, "Do it.", WORDS, "step_up", (), ())


def phrasings(half: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The kind and the turns of each line of a half."""
    kind = ""
    for line in (HERE / f"{half}.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            kind = line[1 : line.index("]")]
        elif line:
            yield kind, tuple(line.replace("⏎", "\n").split(" || "))


def granted(half: str) -> dict[str, tuple[int, int]]:
    """Of each kind: how many are present, and how many there are."""
    counts: dict[str, tuple[int, int]] = {}
    for kind, turns in phrasings(half):
        k, n = counts.get(kind, (0, 0))
        counts[kind] = k + (derive((ACT,), turns)["act"].presence == "present"), n + 1
    return counts


if __name__ == "__main__":
    for name in ("development", "measured"):
        print(name, {kind: f"{k} of {n}" for kind, (k, n) in granted(name).items()})
    for kind, turns in phrasings("development") if "--failed" in sys.argv else ():
        if (derive((ACT,), turns)["act"].presence == "present") != (kind in {"plain", "ordinary", "states"}):
            print(kind, turns, derive((ACT,), turns)["act"].evidence)
