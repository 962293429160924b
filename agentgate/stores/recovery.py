"""What `agentgate store reconcile` asks of a store: operations like those of
`agentgate.stores.ops`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Arg,
    Op,
    burns_key,
    checked_bytes,
    checked_digest,
    checked_history,
    checked_id,
    checked_number,
    checked_subject,
    history_form,
    history_of,
    one_of,
    prefix,
)
from agentgate.values.value_class import value_class

Replayed = Literal["ok", "known"]
MAX_COUNT = 999_999_999_999_999  # more events than any tenant has
# a loss that a tool server claims in other words: no count is missing
_UNREADABLE = f"{'0' * 40}.0 0"


@value_class
class HistoryRecord:
    """A tenant's histories as stored: its own, and that of each audience.

    Attributes:
        ends: epoch -> how far it counted, the present ones included.
        whose: epoch -> the audience whose redemptions it counts (`agentgate.stores.server_id`);
            empty: the tenant's own.
        lost: the same name -> what somebody saw of that history and this store does not have,
            where that is known.
        moved: how often the tenant came from another shard of its cluster.
    """

    ends: Mapping[str, int]
    whose: Mapping[str, str]
    lost: Mapping[str, str]
    moved: int = 0


class Taken(NamedTuple):
    """What a call took of a limit; as in `agentgate.stores.ops.LimitTake`."""

    key: str
    amount: int
    every_ms: int
    for_run: bool


class Event(NamedTuple):
    """A redemption, or only a spent release, as audit logs tell it.

    Attributes:
        gen: lineage of the mint.
        head: JSON for the call's record, if the store has none.
        at_ms: when it was redeemed.
        outcome: how it ended; empty: not reported.
        audience: as in its mint.
        redeemed: False: its release was spent, and its token not redeemed.
    """

    tenant: str
    run: str
    call_digest: str
    jti: str
    gen: str
    head: bytes
    at_ms: int
    outcome: str
    redeemed: bool
    limits: tuple[Taken, ...]
    audience: str


def read_history(tenant: str) -> Op[HistoryRecord]:
    """Read a tenant's histories."""
    return Op("read_history", _histories, (f"{prefix(tenant)}history",))


def _histories(stored: list[list[bytes]]) -> HistoryRecord:
    ends = {}
    whose: dict[str, str] = {}
    lost = {}
    moved = 0
    for parts in stored:
        flat = [part.decode("ascii", "replace") for part in parts]
        kept = dict(zip(flat[::2], flat[1::2], strict=True))
        server = kept.pop("audience", "")
        moved = moved if server else int(kept.get("moved", 0))
        for name, value in (
            *kept.items(),
            (f"until:{kept.get('epoch')}", kept.get("count", "")),
        ):
            if (
                name.startswith("until:")
                and value.isdigit()
                and whose.setdefault(name[6:], server) == server
            ):
                ends[name[6:]] = int(value)
        if said := kept.get("lost"):  # a tool server may have written anything
            lost[server] = said if history_form(said) else _UNREADABLE
    return HistoryRecord(ends, whose, lost, moved)


def replay(event: Event) -> Op[Replayed]:
    """Write what the store has lost of an event (the call's redemption, its shares of limits,
    its release), or `known`: it has it.
    """
    start = prefix(event.tenant)
    run = checked_id("run", event.run)
    digest = checked_digest("call_digest", event.call_digest)
    at = checked_number("at_ms", event.at_ms, 0, MAX_AMOUNT)
    keys = [
        burns_key(event.tenant, run, event.audience),
        f"{start}run:{run}",
        f"{start}hold:{digest}",
    ]
    mint = f"{event.gen} {checked_id('jti', event.jti)} {at}"
    args: list[Arg] = [
        digest,
        mint,
        checked_bytes("head", event.head),
        at,
        event.outcome,
        run,
        1 if event.redeemed else 0,
    ]
    for take in event.limits:
        name = checked_subject("limit", take.key)
        in_run = take.for_run and take.every_ms == 0
        if not in_run:
            keys.append(f"{start}limit:{name}")
        amount = checked_number("limit amount", take.amount, 0, MAX_AMOUNT // 2)
        args += (
            amount,
            checked_number("limit every_ms", take.every_ms, 0, MAX_TTL_MS),
            name if in_run else "",
        )
    return Op("replay", one_of(Replayed), tuple(keys), tuple(args), confirm=True)


def accept_history(
    tenant: str, ends: Mapping[str, int], count: int, server: str = ""
) -> Op[str]:
    """Stop counting as lost what was seen of some epochs. Answers what somebody saw beyond that
    and is still lost; empty: nothing.

    Args:
        tenant: whose history.
        ends: epoch -> up to where.
        count: the highest count that anybody is known to have seen; the new epoch goes on from
            there.
        server: of that audience (`HistoryRecord.servers`); empty: the tenant's own.
    """
    args: list[Arg] = [checked_number("count", count, 0, MAX_AMOUNT)]
    for epoch, end in ends.items():
        checked_history(f"{epoch} {checked_number('end', end, 0, MAX_AMOUNT)}")
        args += (epoch, end)
    key = f"{prefix(tenant)}history" + (
        f":{checked_digest('server', server)}" if server else ""
    )
    return Op("accept_history", history_of, (key,), tuple(args), confirm=True)
