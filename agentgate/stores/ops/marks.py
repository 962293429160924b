"""What only grows, and belongs to no tenant: marks (versions of workflows, serials), and the
newest checkpoint of each audit log (`agentgate.audit.tree`).

A gate reads its marks before it loads workflows and raises them afterwards, so that no gate of
this URL on this store goes back behind what was once in force. Checkpoints are those of gates,
and of each tool server under a key of its own. A log has one entry, which only a larger tree
replaces. What a tool server keeps gates copy to theirs, which its user cannot write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from agentgate.stores._op import (
    MAX_AMOUNT,
    Arg,
    Op,
    checked_number,
    checked_subject,
    checked_text,
    prefix,
    server_id,
)

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
        lambda values: {n: int(value) for n, value in zip(marks, values, strict=True)},
        (key,),
        tuple(args),
        confirm=any(marks.values()),
    )


CHECKPOINTS = prefix("_audit") + "checkpoints"


def _key(server: str) -> str:
    return f"{CHECKPOINTS}:{server}" if server else CHECKPOINTS


def keep_checkpoint(origin: str, size: int, note: str, *, audience: str = "") -> Op[str]:
    """Keep a checkpoint, unless there is one of a tree that is as large; answers the note that
    is kept now. `audience`: a tool server's.
    """
    args = (
        checked_subject("origin", origin),
        checked_number("size", size, 0, MAX_AMOUNT),
        checked_text("note", note),
    )
    return Op("keep_checkpoint", _note, (_key(server_id(audience) if audience else ""),), args)


def read_checkpoints(audiences: Sequence[str] = ()) -> Op[list[str]]:
    """Copy the checkpoints of these tool servers to those of gates; answers the notes that
    gates have then.
    """
    servers = [server_id(audience) for audience in audiences]
    return Op(
        "read_checkpoints",
        lambda values: [_note(each) for each in values],
        (CHECKPOINTS, *map(_key, servers)),
        tuple(servers),
    )


def _note(value: Any) -> str:
    return str(value.decode(errors="replace").partition("\n")[2])  # or whatever a server wrote
