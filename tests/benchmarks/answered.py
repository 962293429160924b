"""What becomes of short answers, other languages, withdrawals, and plain requests beside a counter-example.

``python -m tests.benchmarks.answered`` prints, for each corpus of ``conversation/``, how its lines come out for the intent that asks
(``plain``: the one of its line) and lists those that come out otherwise than they should. Half ``a`` was read while the rules were made;
half ``b`` was only measured.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentgate.intents.lexical import derive
from agentgate.workflow.model import Intent

HERE = Path(__file__).parent / "conversation"
EXPECTED = {"assent": "unclear", "languages": "unclear", "withdrawals": "absent", "plain": "present"}
_ACTS = {
    "close": (("close", "resolve"), "Please close ticket T-48213"),
    "refund": (("refund", "reimburse", "money back"), "Please refund order ORD-10023344, it arrived broken"),
    "send": (("send", "forward", "^email"), "Send the minutes to ann@acme.example"),
    "book": (("book", "schedule", "set up a meeting"), "Please schedule a meeting with kim@acme.example"),
    "delete": (("delete", "remove"), "Delete the file notes.txt"),
}


def intents_of(counter_example: str = "", of: str = "") -> tuple[Intent, ...]:
    """The vocabulary; `counter_example`: the one of the act `of`."""
    return tuple(
        [
            Intent(name, 1, name, words, "confirm", (example,), (counter_example,) if name == of else ())
            for name, (words, example) in _ACTS.items()
        ]
    )


def lines(corpus: str, half: str) -> Iterator[dict[str, Any]]:
    """The lines of one half of a corpus."""
    return map(json.loads, (HERE / f"{corpus}-{half}.jsonl").read_text("utf-8").splitlines())


def presence(line: dict[str, Any]) -> str:
    """What a line comes out as; without an intent of its own, for that of its prompt (a refund), or of what its prompt looks up."""
    act = line.get("intent", "refund")
    return derive(intents_of(line.get("counter_example", ""), act), tuple(line["turns"]))[act].presence


if __name__ == "__main__":
    for name, expected in EXPECTED.items():
        for part in "ab" if "--sealed" in sys.argv else "a":
            found = [(presence(line), line) for line in lines(name, part)]
            print(f"{name}-{part}: expected {expected}:", dict(Counter(each for each, _ in found)))
            if part == "a":
                print(*(f"  {each}: {line}" for each, line in found if each != expected), sep="\n")
