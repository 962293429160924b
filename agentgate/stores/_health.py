"""The start-up check of a server. Pure: judges what the check read.

Refused: a replica, an eviction policy other than `noeviction` (an evicted key is a lost burn or limit), Redis Cluster without a
cluster client, servers older than Redis 7.2 / Valkey 8, a clock more than a second off, a lineage that is not 40 hex characters.
"""

from __future__ import annotations

from typing import Any

from agentgate.errors import StoreUnavailable
from agentgate.stores._op import Op, lineage_of, reply

PROBE = Op("check", ("ag:{agentgate}:check:lineage",))
MAX_SKEW = 1.0  # seconds
_OLDEST = (7, 2)


def judge(info: Any, probe: Any, before: float, after: float) -> None:
    """Refuse a server on which a token could be accepted twice, or a limit forgotten.

    Args:
        info: reply of INFO.
        probe: reply of `PROBE`.
        before: POSIX seconds, read before the probe was sent.
        after: the same, after its reply.

    Raises:
        StoreUnavailable: naming what is wrong.
    """
    if type(info) is not bytes:
        raise StoreUnavailable(f"INFO answered {str(info)[:200]}")
    fields = dict(line.split(":", 1) for line in info.decode("utf-8", "replace").splitlines() if ":" in line)
    for name, expected in (("role", "master"), ("maxmemory_policy", "noeviction"), ("cluster_enabled", "0")):
        if fields.get(name) != expected:
            raise StoreUnavailable(f"the server's {name}: got {fields.get(name)!r}, expected {expected!r}")
    version = fields.get("redis_version", "")
    if tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2]) < _OLDEST:
        raise StoreUnavailable(f"the server's version: got {version!r}, expected Redis 7.2 or Valkey 8, or later")
    lineage, clock = reply(PROBE, probe, 2)
    lineage_of(PROBE, lineage)
    server = int(clock) / 1000
    if not before - MAX_SKEW <= server <= after + MAX_SKEW:
        raise StoreUnavailable(f"the server's clock is {server - after:+.3f} s off, expected less than {MAX_SKEW:g} s")
