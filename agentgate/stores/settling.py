"""What `agentgate calls` asks of a store: calls of which nobody knows whether their tool did
anything, and a person's word on one.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from agentgate.stores._op import Op, checked_digest, checked_id, checked_number, one_of, prefix

Ended = Literal["done", "failed", "not_run"]
Settled = Literal["ok", "known", "running"]


class UnknownCall(NamedTuple):
    """A redeemed call without a known outcome.

    Attributes:
        key: where its server records it.
        digest: the call's.
        jti: of the token that redeemed it; empty: its server wrote none that can be read.
        redeemed_at: POSIX seconds.
        head: what its gate minted it for (JSON).
    """

    key: str
    digest: str
    jti: str
    redeemed_at: float
    head: bytes

    @property
    def run(self) -> str:
        """The run's id."""
        return self.key.rpartition(":")[2]


def key_patterns(tenant: str) -> tuple[str, ...]:
    """Which keys hold records of a tenant's calls, for SCAN; the second: of runs from
    before.
    """
    return f"{prefix(tenant)}burns:*", f"{prefix(tenant)}calls:*"


def unknown_calls(key: str) -> Op[tuple[UnknownCall, ...]]:
    """The calls recorded under this key whose outcome nobody knows."""

    def found(rows: list[list[bytes]]) -> tuple[UnknownCall, ...]:
        return tuple(
            UnknownCall(
                key, digest.decode(), jti.decode("ascii", "replace"), int(at) / 1000, head=head
            )
            for digest, jti, at, head in rows
        )

    return Op("unknown_calls", found, (key,))


def settle_call(
    tenant: str, call: UnknownCall, outcome: Ended, *, after_seconds: int
) -> Op[Settled]:
    """Say how a call ended. Answers `ok`; `known`: somebody knew meanwhile; `running`: it was
    redeemed too lately.
    """
    digest = checked_digest("call_digest", call.digest)
    args = (
        digest,
        checked_id("jti", call.jti),
        outcome,
        checked_number("after", after_seconds * 1000, 0, 10**9),
    )
    return Op(
        "settle_call",
        one_of(Settled),
        (call.key, f"{prefix(tenant)}hold:{digest}"),
        args,
        confirm=True,
    )
