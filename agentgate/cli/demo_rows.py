"""The rows of `agentgate demo`: what was tried, how it had to end, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

Outcome = Literal["allowed", "denied", "held"]
Caller = Literal["model", "host", "client", "approver"]


@dataclass(frozen=True, slots=True)
class Expected:
    """How a scene must end: outcome, closed code, and for a refusal its reason and the field that failed."""

    outcome: Outcome
    code: str
    reason: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """An attempt and its outcome.

    Attributes:
        tried: the attempt, in words.
        expected: how the scene had to end.
        outcome: allowed, denied or held.
        code: the closed code: ``ok``, a `Code`, or the HTTP status and error of the API.
        caller: who gets the code: the model, the host that opened the run, an approver, or the client of the API.
        seen: the exact text this caller got.
        reason, field, detail, rule: what the operator sees; `rule` is ``file:line`` below the example, or empty.
    """

    tried: str
    expected: Expected
    outcome: Outcome
    code: str
    caller: Caller
    seen: str
    reason: str = ""
    field: str = ""
    detail: str = ""
    rule: str = ""

    @property
    def as_expected(self) -> bool:
        """True when the scene ended as it had to, for the reason it had to."""
        return Expected(self.outcome, self.code, self.reason, self.field) == self.expected


@dataclass(frozen=True, slots=True)
class Played:
    """All rows, and the payments that were made.

    Attributes:
        example: directory of the example.
        clock: the fixed decision time.
        paid: the API's ledger.
        honest: every payment was expected and went to the customer on file.
        seconds: how long it took.
    """

    example: Path
    clock: datetime
    rows: tuple[TableRow, ...]
    paid: tuple[dict[str, str], ...]
    honest: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """True when every row and every payment is as expected."""
        return self.honest and all(row.as_expected for row in self.rows)
