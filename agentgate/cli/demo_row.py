"""A row of `agentgate demo`: what was tried, how it had to end, and how it did."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

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


def agentgate_command() -> str:
    """How this installation's command is called here."""
    return "agentgate" if shutil.which("agentgate") else str(Path(sys.executable).with_name("agentgate"))
