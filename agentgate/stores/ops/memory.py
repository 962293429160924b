"""What is remembered of users: values that their own yes named in a call that was done.

It is the hash ``remembered:{person}``, which gates alone write: under the digest of what was
asked (`Memory.place`) the call, when it was minted, until when it counts, its audience and what
it says. That the call was done is the word of whoever may say so, beside its records
(``burns:{audience}:done:{call}``), and counts for a call that a gate wrote down.
``forgets:NAME`` says when a user, agent, tool, version or tenant was last revoked.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from agentgate.stores._op import (
    Op,
    checked_digest,
    checked_history,
    checked_text,
    history_of,
    prefix,
)
from agentgate.values.request import person

# place, digest of the call, POSIX seconds of its mint, what it says
MemoryRecord = tuple[str, str, float, bytes]


def memory_key(tenant: str, user: str) -> str:
    """What is remembered of whoever has this id, at any issuer; any spelling of the id names
    it.
    """
    return (
        f"{prefix(tenant)}remembered:{sha256(checked_text('user', person(user))).hexdigest()}"
    )


def recall_memory(
    tenant: str, user: str, places: Iterable[str] = (), *, history: str = ""
) -> Op[tuple[str, tuple[MemoryRecord, ...]]]:
    """The tenant's history (empty: lost), and what counts still in these places; without
    places, all.
    """
    args = (checked_history(history), *[checked_digest("place", place) for place in places])
    return Op(
        "recall",
        lambda now, found: (
            history_of(now),
            tuple(
                [
                    (place.decode(), call.decode(), int(at) / 1000, body)
                    for place, call, at, body in found
                ]
            ),
        ),
        (memory_key(tenant, user), f"{prefix(tenant)}history"),
        args,
    )


def forget_memory(
    tenant: str, user: str, places: Iterable[str] = (), *, history: str = ""
) -> Op[tuple[str, int]]:
    """End what is remembered in these places (without any, all), and what was asked before; the
    tenant's history, and how much it was.
    """
    same = recall_memory(tenant, user, places, history=history)
    return Op(
        "forget",
        lambda now, count: (history_of(now), int(count)),
        same.keys,
        same.args,
        confirm=True,
    )
