"""The newest checkpoint of each audit log (`agentgate.audit.tree`): of gates, and of each tool
server under a key of its own.

A log has one entry, which only a larger tree replaces. What a tool server keeps gates copy to
theirs, which its user cannot write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentgate.stores._op import (
    MAX_AMOUNT,
    Op,
    checked_number,
    checked_subject,
    checked_text,
    prefix,
    server_id,
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
    return str(value.decode().partition("\n")[2])
