"""The bytes of one audit record, with the same checks for every log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.errors import AuditUnavailable, CanonicalError
from agentgate.values.canonical import MAX_BYTES, canonical

_PREFIX = len(b'{"record":')
_MAX = MAX_BYTES - 512  # leaves room for what a segment puts around a record
_RESERVED = ("seq", "writer")


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The RFC 8785 bytes of a record, fit to be part of a canonical line.

    Raises:
        AuditUnavailable: no canonical form, too large, or a reserved key. A call that cannot be recorded is refused.
    """
    for key in _RESERVED:
        if key in record:
            raise AuditUnavailable(f"record: got key '{key}', expected none of the log's own keys")
    try:
        data = canonical({"record": dict(record)})[_PREFIX:-1]
    except CanonicalError as error:
        raise AuditUnavailable(f"the record has no canonical form: {error}") from error
    if len(data) > _MAX:
        raise AuditUnavailable(f"record: got {len(data)} bytes, expected at most {_MAX}")
    return data
