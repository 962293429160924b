"""Heads of segments as earlier versions kept them, one small file each in the key directory.
Only read: seals tell more.
"""

from __future__ import annotations

from pathlib import Path

from agentgate.audit.tree import Head, read_head
from agentgate.errors import AuditDamaged
from agentgate.token.regular_file import read_regular
from agentgate.values.canonical import parse

FOLDER = "audit-heads"  # in the key directory
_EXPECTED = "the head of a segment: {bytes, digest, seq, writer}"


def kept(keys: Path) -> dict[str, Head]:
    """The heads that a key directory keeps, by writer.

    Raises:
        AuditDamaged: one has another form. OSError: unreadable.
    """
    found: dict[str, Head] = {}
    for path in sorted((keys / FOLDER).glob("*.json")):
        try:
            head = found[path.stem] = read_head({"time": 0, **parse(read_regular(path))})
        except (OSError, ValueError, TypeError) as error:
            raise AuditDamaged(str(path), 1, str(error), _EXPECTED) from error
        if head.writer != path.stem:
            raise AuditDamaged(str(path), 1, f"the head of {head.writer}", _EXPECTED)
    return found
