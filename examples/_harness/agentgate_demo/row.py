"""A row of `agentgate demo`: what was tried, how it had to end, and how it did; and all rows of a demo, with what it came to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agentgate.errors import ConfigError

Outcome = Literal["allowed", "denied", "held"]
Caller = Literal["model", "host", "client", "approver"]


class Expected(NamedTuple):
    """What is tried and how it must end: outcome, closed code, and for a refusal its reason and the field that failed."""

    tried: str
    outcome: Outcome
    code: str
    reason: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """An attempt and its outcome."""

    expected: Expected  # the attempt, and how it had to end
    outcome: Outcome  # allowed, denied or held
    code: str  # the closed code: ``ok``, a `Code`, or the HTTP status and error of the API
    caller: Caller  # who gets the code: the model, the host that opened the run, an approver, or the client of the API
    seen: str  # the exact text this caller got
    reason: str = ""  # what the operator sees; `rule` is ``file:line`` below the example, or empty
    field: str = ""
    detail: str = ""
    rule: str = ""

    @property
    def tried(self) -> str:
        """The attempt, in words."""
        return self.expected.tried

    @property
    def as_expected(self) -> bool:
        """True when the scene ended as it had to, for the reason it had to."""
        return Expected(self.tried, self.outcome, self.code, self.reason, self.field) == self.expected


def refusal_row(
    expected: Expected, reasons: Sequence[Mapping[str, Any]], caller: Caller, code: str, seen: str, *, outcome: Outcome = "denied"
) -> TableRow:
    """A row of a refusal, for the reasons in a record or a log; several are joined, so that an extra one shows."""
    reason, field = (", ".join(dict.fromkeys(each[name] for each in reasons)) for name in ("reason", "field"))
    detail = "; ".join(f"{each['field']}: got {each['got']}, expected {each['expected']}" for each in reasons)
    return TableRow(expected, outcome, code, caller, seen, reason, field, detail, relative(reasons[0].get("rule", "")))


def relative(rule: str) -> str:
    """A rule's ``file:line`` relative to the example (the gate runs from a copy)."""
    return rule[rule.rindex("workflows/") :] if "workflows/" in rule else rule


@dataclass(frozen=True, slots=True)
class Played:
    """All rows of a demo, and what it came to."""

    intro: str  # what is shown
    rows: tuple[TableRow, ...]
    honest: bool  # what had to be done was done, and nothing else
    done: str  # what that was, in words
    wrong: str  # the same, where it is something else
    steps: tuple[tuple[str, str], ...]  # what to do next: in words, and as a command
    facts: Mapping[str, Any]  # what else it is as JSON
    seconds: float  # how long it took

    @property
    def ok(self) -> bool:
        """True when every row is as expected, and nothing else was done."""
        return self.honest and all(row.as_expected for row in self.rows)

    @property
    def ending(self) -> str:
        """What it came to."""
        return f"{self.done} It took {self.seconds:.1f} s." if self.honest else f"WRONG: {self.wrong}"


def find_example(name: str) -> Path:
    """A directory of the examples, or the shipped workflows: in a wheel beside them, in a clone beside `examples`."""
    examples = Path(__file__).parents[2]
    place = next((place for place in (examples / name, examples.parent / name) if place.is_dir()), None)
    if place is None:
        raise ConfigError("example", name, f"a directory of {examples}")
    return place


def agentgate_command() -> str:
    """How this installation's command is called here."""
    return "agentgate" if shutil.which("agentgate") else str(Path(sys.executable).with_name("agentgate"))
