"""What a store has lost of its tenants' histories, found in audit logs.

Rules: each event raised the count of its tenant by one, and is on the record of the gate or tool server that caused it (a revocation is on
none; gates write those of workflows again when they load). So a missing count is a missing log, or an event that was cut off before its
record: it is named, and the tenant stays stopped until that log is given too, or a person accepts the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgate.audit.segment import read_records
from agentgate.stores.history import split
from agentgate.stores.recovery import MAX_COUNT, Event, HistoryRecord, Taken
from agentgate.values.canonical import canonical

_Counted = tuple[str, int]  # epoch, count
_COUNTED = ("redemption", "decision")


@dataclass(slots=True)
class Loss:
    """What one tenant's store has lost.

    Attributes:
        seen: epoch -> the highest count that anybody is known to have seen.
        events: to replay, in their order.
        missing: what no log tells, for a person.
    """

    seen: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def ends(self) -> dict[str, int]:
        """Up to where each epoch is accepted; where something is missing all of it, whatever somebody else saw."""
        return dict.fromkeys(self.seen, MAX_COUNT) if self.missing else self.seen


def find_tenants(directories: Sequence[Path]) -> set[str]:
    """Every tenant whose history these logs name."""
    return {record["tenant"] for record in _counted(directories)}


def find_loss(tenant: str, known: HistoryRecord, directories: Sequence[Path]) -> Loss:
    """What a tenant has lost.

    Raises:
        AuditDamaged, OSError: a log cannot be read; nothing is left out in silence.
    """
    found = Loss()
    events: dict[_Counted, Mapping[str, Any]] = {}
    for record in _counted(directories):
        epoch, count = split(record["history"])
        if record["tenant"] == tenant and count > known.ends.get(epoch, 0):
            found.seen[epoch] = max(count, found.seen.get(epoch, 0))
            if record["type"] == "redemption" or record.get("spent"):
                events[epoch, count] = record
    if known.lost:
        epoch, count = split(known.lost)
        found.seen[epoch] = max(count, found.seen.get(epoch, 0))
    found.missing += _gaps(known, found.seen, events.keys())
    _tell(found, [events[place] for place in sorted(events, key=lambda place: place[1])], directories)
    return found


def _counted(directories: Sequence[Path]) -> Iterator[dict[str, Any]]:
    return (record for record in _records(directories) if record.get("type") in _COUNTED and "history" in record)


def _records(directories: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for directory in directories:
        yield from read_records(directory)


def _gaps(known: HistoryRecord, seen: Mapping[str, int], events: Iterable[_Counted]) -> Iterator[str]:
    """The counts that no log tells. An epoch goes on where it is known to have come to, a new one where another came to."""
    have = set(events)
    reached = {0, *known.ends.values(), *seen.values()}
    for epoch, last in seen.items():
        first = known.ends.get(epoch, 0) + 1
        if epoch not in known.ends:
            counts = [count for name, count in have if name == epoch]
            first = min(counts, default=last)
            if first - 1 not in reached:
                first = max(count for count in reached if count < first) + 1
        lacking = [count for count in range(first, last + 1) if (epoch, count) not in have]
        if lacking:
            yield f"{len(lacking)} of the events {first} to {last} of {epoch} (the first is {lacking[0]})"


def _tell(found: Loss, records: Sequence[Mapping[str, Any]], directories: Sequence[Path]) -> None:
    """The events of these records, with what the gate's record says of limits and how the call ended."""
    jtis = {record["jti"] for record in records}
    minted: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, str] = {}
    for told in _records(directories):
        if told.get("jti") in jtis and told["type"] == "decision":
            minted[told["jti"]] = told
        elif told.get("jti") in jtis and told["type"] == "outcome":
            outcomes[told["jti"]] = told["outcome"]
    for record in records:
        jti, run, call = record["jti"], record["run"], record["call_digest"]
        mint = minted.get(jti)
        who = f"call {record['tool_call_id']} of {run}"
        if mint is None:
            found.missing.append(f"what {who} took of limits (its gate's log)")
        taken = mint.get("limits", ()) if mint is not None else ()
        known = [each for each in taken if each["amount"] is not None]
        if len(known) < len(taken):
            found.missing.append(f"the sensitive amount that {who} took of a limit")
        found.events.append(
            Event(
                tenant=record["tenant"],
                run=run,
                call_digest=call,
                jti=jti,
                gen=record["history"][:40],
                head=canonical(_head(record)),
                at_ms=int(record["time"] * 1000),
                outcome=outcomes.get(jti, ""),
                redeemed=record["type"] == "redemption",
                limits=tuple([Taken(**each) for each in known]),
            )
        )


def _head(record: Mapping[str, Any]) -> Mapping[str, object]:
    """The head of a call whose own is lost: it gave no fact, and none of its arguments is known."""
    return {
        "tool": record["tool"],
        "tool_call_id": record["tool_call_id"],
        "args": {},
        "named": False,
        "facts": {},
        "txn": record["txn"],
        "read": False,
    }
