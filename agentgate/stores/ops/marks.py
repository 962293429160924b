"""Marks: numbers that only ever rise (versions of workflows, serials).

A gate reads them before it loads workflows and raises them afterwards, so that no gate of this
URL on this store goes back behind what was once in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from agentgate.stores._op import MAX_AMOUNT, Arg, Op, checked_number, checked_subject, prefix

MAX_MARKS = 500  # in one operation


def raise_marks(gate: str, marks: Mapping[str, int]) -> Op[dict[str, int]]:
    """Raise every mark that is lower than given; 0 only reads it. Answers the marks after this,
    by name; 0: none yet.

    Args:
        gate: the gate's URL.
        marks: name -> number, at most `MAX_MARKS`.
    """
    args: list[Arg] = [checked_number("marks", len(marks), 1, MAX_MARKS)]
    for name, value in marks.items():
        args += [
            checked_subject("mark", name),
            checked_number(f"mark {name}", value, 0, MAX_AMOUNT),
        ]
    key = f"{prefix('_approvals')}marks:{hashlib.sha256(gate.encode()).hexdigest()}"
    return Op(
        "raise_marks",
        partial(_raised, tuple(marks)),
        (key,),
        tuple(args),
        confirm=any(marks.values()),
    )


def _raised(names: tuple[str, ...], values: list[Any]) -> dict[str, int]:
    return {name: int(value) for name, value in zip(names, values, strict=True)}
