"""How far each audit segment is known to have come, kept outside the log's own directory: what was cut off since shows.

Rules: one small file per segment, written by its writer when it begins, about once a second while records come, and when it ends. So up to
a second of the newest records may be cut off unseen. Whoever can write both directories can make both agree.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from agentgate.errors import AuditDamaged
from agentgate.token.regular_file import read_regular
from agentgate.values.canonical import canonical, parse

FOLDER = "audit-heads"  # in the key directory
KEEP_SECONDS = 1.0
_EXPECTED = "the head of a segment: {bytes, digest, seq, writer}"


class Head(NamedTuple):
    """The last durable record of a segment.

    Attributes:
        writer: the segment's name.
        seq: its number; 0: none yet.
        bytes: the length of the segment up to its end.
        digest: SHA-256 of its line, as the next line names it.
    """

    writer: str
    seq: int
    bytes: int
    digest: str


def keep(folder: Path, head: Head) -> None:
    """Write a segment's head in place of its last one.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    draft = folder / f".{head.writer}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as out:
        out.write(canonical(head._asdict()))
        out.flush()
        os.fsync(out.fileno())
    draft.replace(folder / f"{head.writer}.json")


def kept(keys: Path) -> dict[str, Head]:
    """The heads that a key directory keeps, by writer.

    Raises:
        AuditDamaged: one has another form. OSError: unreadable.
    """
    found: dict[str, Head] = {}
    for path in sorted((keys / FOLDER).glob("*.json")):
        try:
            head = Head(**parse(read_regular(path)))
        except (OSError, ValueError, TypeError) as error:
            raise AuditDamaged(str(path), 1, str(error), _EXPECTED) from error
        if [type(value) for value in head] != [str, int, int, str] or head.writer != path.stem:
            raise AuditDamaged(str(path), 1, "another form", _EXPECTED)
        found[head.writer] = head
    return found
