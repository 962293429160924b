"""The bytes of one audit record: the same checks for every log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.errors import AuditUnavailable, CanonicalError
from agentgate.values.canonical import MAX_BYTES, canonical

_PREFIX = len(b'{"record":')
_ROOM = 512  # for what a segment puts around a record
_OWN = ("seq", "writer")


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The RFC 8785 bytes of a record, such that the line around it is canonical too.

    Raises:
        AuditUnavailable: no canonical form, too large, or a key that is the log's own. A call that cannot be recorded is refused.
    """
    for key in _OWN:
        if key in record:
            raise AuditUnavailable(f"record: got key '{key}', expected none of the log's own keys")
    try:
        data = canonical({"record": dict(record)})[_PREFIX:-1]
    except CanonicalError as error:
        raise AuditUnavailable(f"the record has no canonical form: {error}") from error
    if len(data) > MAX_BYTES - _ROOM:
        raise AuditUnavailable(f"record: got {len(data)} bytes, expected at most {MAX_BYTES - _ROOM}")
    return data
