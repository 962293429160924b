"""The watermark of approvals: numbers that only ever rise (versions of workflows, serials), one hash for each gate's URL.

A gate reads it before it loads workflows and raises it afterwards; what was in force once is never below that again, also for
another gate on the same store. Not a tenant's: the key lies under a hash tag of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from agentgate.errors import StoreUnavailable
from agentgate.stores._op import MAX_AMOUNT, Arg, Op, checked_number, checked_subject, prefix, reply

MAX_MARKS = 500  # in one operation


def raise_marks(gate: str, marks: Mapping[str, int]) -> Op:
    """Raise every mark that is lower than given; 0 only reads it.

    Args:
        gate: the gate's URL.
        marks: name -> number, at most `MAX_MARKS`.
    """
    args: list[Arg] = [checked_number("marks", len(marks), 1, MAX_MARKS)]
    for name, value in marks.items():
        args += [checked_subject("mark", name), checked_number(f"mark {name}", value, 0, MAX_AMOUNT)]
    name = hashlib.sha256(gate.encode()).hexdigest()
    return Op("raise_marks", (f"{prefix('_approvals')}marks:{name}",), tuple(args), confirm=any(marks.values()))


def parse_raise_marks(op: Op, raw: Any) -> dict[str, int]:
    """The marks as they stand now, by name; 0: none yet.

    Raises:
        StoreUnavailable: the reply is not this operation's, or a stored mark is no number.
    """
    values = reply(op, raw, 1)[0]
    names = op.args[1::2]
    try:
        return {str(name): int(value) for name, value in zip(names, values, strict=True)}
    except (TypeError, ValueError) as error:
        raise StoreUnavailable(f"marks {op.keys[0]} are unreadable: {error!r}") from error
