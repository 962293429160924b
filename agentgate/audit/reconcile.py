"""What a store has lost of its tenants' histories, found in audit logs.

Rules: each event raised the count of its tenant by one, and is on the record of the gate or
tool server that caused it (a revocation by reviewers on none; gates write those again when they
load). So a missing count is a missing log, or an event that was cut off before its record: it
is named, and the tenant stays stopped until that log is given too, or a person accepts the
loss. One of these logs may be a taken-over tool server's: how a call ended is the word of the
process that redeemed it (that it is done, anybody's, such as a person's by hand), an event that
two tell is refused, and whose an epoch is, the logs say.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgate.audit.segment import TypedRecord, read_typed
from agentgate.errors import AuditDamaged
from agentgate.stores import Op, ops, server_id
from agentgate.stores._op import checked_history, split
from agentgate.stores.recovery import MAX_COUNT, Event, HistoryRecord, Taken
from agentgate.values.canonical import canonical
from agentgate.values.request import name_of

_Counted = tuple[str, int]  # epoch, count
# a redemption counts in its audience's, all else in the tenant's
_HISTORIES = frozenset({"history", "redemptions"})
_COUNTED = "redemption decision revocation_applied key_changed forgotten".split()


@dataclass(slots=True)
class Loss:
    """What one tenant's store has lost.

    Attributes:
        seen: epoch -> the highest count that anybody is known to have seen.
        events: to replay, in their order.
        again: to write again, in their order: keys of accounts, and revocations that were not
            lifted and have not ended.
        missing: what no log tells, for a person.
        whose: epoch -> the history in which it is counted (`HistoryRecord.whose`).
        lost: as `HistoryRecord.lost`.
    """

    seen: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    again: list[Op[Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    whose: dict[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)

    def accepted(self) -> Iterator[tuple[dict[str, int], int, str]]:
        """For each history, the tenant's own last: up to where each of its epochs is accepted,
        its highest count, and whose it is.

        Where something is missing an epoch is accepted altogether, whatever somebody else saw.
        """
        for server in sorted({*self.whose.values(), *self.lost, ""}, reverse=True):
            own = {
                epoch: count
                for epoch, count in self.seen.items()
                if self.whose[epoch] == server
            }
            epoch, count = split(self.lost.get(server, ""))
            own |= {epoch: max(count, own.get(epoch, 0))} if epoch else {}
            yield (
                dict.fromkeys(own, MAX_COUNT) if self.missing else own,
                max(own.values(), default=0),
                server,
            )

    def saw(self, history: str, server: str) -> None:
        """Somebody saw this much of a history."""
        epoch, count = split(history)
        self.seen[epoch] = max(count, self.seen.get(epoch, 0))
        self.whose.setdefault(epoch, server)

    def tell(
        self, record: Mapping[str, Any], mint: Mapping[str, Any] | None, outcome: str
    ) -> None:
        """Take an event from its record, what it took of limits from that of its mint, and how
        it ended.
        """
        burned = record["type"] == "redemption" and "redemptions" in record
        counted = record["redemptions" if burned else "history"]
        who = f"call {record['tool_call_id']} of {record['run']}"
        if mint is None:
            self.missing.append(f"what {who} took of limits (its gate's log)")
        taken = (mint or {}).get("limits", ())
        try:
            shares = tuple(Taken(**each) for each in taken if each["amount"] is not None)
        except (KeyError, TypeError) as error:
            raise AuditDamaged(
                (mint or record)["writer"],
                (mint or record)["seq"],
                f"limits: {error}",
                str(Taken._fields),
            ) from error
        if len(shares) < len(taken):
            self.missing.append(f"the sensitive amount that {who} took of a limit")
        self.events.append(
            Event(
                tenant=record["tenant"],
                run=record["run"],
                call_digest=record["call_digest"],
                jti=record["jti"],
                gen=counted[:40],
                head=canonical(_head(record)),
                at_ms=int(record["time"] * 1000),
                outcome=outcome,
                redeemed=record["type"] == "redemption",
                limits=shares,
                audience=record.get("audience", ""),
            )
        )


def find_tenants(directories: Sequence[Path]) -> set[str]:
    """Every tenant whose calls these logs name."""
    return {record["tenant"] for record in read_typed(directories, _COUNTED)}


def find_losses(
    known: Mapping[str, HistoryRecord], directories: Sequence[Path]
) -> dict[str, Loss]:
    """What each tenant has lost.

    Args:
        known: tenant -> what its store knows.
        directories: the audit directories of every gate and tool server.

    Raises:
        AuditDamaged, OSError: a log cannot be read; nothing is left out in silence.
    """
    losses = {tenant: Loss() for tenant in known}
    events: dict[str, dict[_Counted, TypedRecord]] = {tenant: {} for tenant in known}
    for record in read_typed(directories, _COUNTED):
        if (tenant := record["tenant"]) not in known:
            continue
        for name in _HISTORIES & record.keys():
            place = split(checked_history(record[name]))
            server = server_id(record["audience"]) if name == "redemptions" else ""
            ended = known[tenant].ends.get(place[0], 0)
            # what another server says of this epoch counts for nothing
            if place[1] > ended or known[tenant].whose.get(place[0], server) != server:
                losses[tenant].saw(record[name], server)
                if (name == "history" and record.get("spent")) or record["type"] != "decision":
                    told = events[tenant].setdefault(place, record)["writer"]
                    if told != record["writer"]:  # one of them lies
                        raise AuditDamaged(told, record["seq"], record["writer"], "one writer")
    wanted = {
        record.get("jti", record.get("name"))
        for found in events.values()
        for record in found.values()
    } - {None}
    lifted: dict[tuple[str, str], float] = {}
    minted: dict[str, dict[str, Any]] = {}
    outcomes: dict[tuple[str, str], str] = {}
    for record in read_typed(directories, ("decision", "outcome", "lifting")) if wanted else ():
        if record.get("jti") in wanted and record["type"] == "decision":
            minted[record["jti"]] = record
        elif record.get("jti") in wanted:
            outcomes[record["jti"], record["writer"]] = record["outcome"]
            if record["outcome"] == "done":  # lets nothing run again, whoever says it
                outcomes[record["jti"], ""] = "done"
        elif record["type"] == "lifting":
            lifted[record["tenant"], record["name"]] = record["time"]
    for tenant, loss in losses.items():
        loss.lost = known[tenant].lost
        for server, lost in loss.lost.items():
            loss.saw(lost, server)
        loss.missing += _gaps(known[tenant], loss, events[tenant])
        for _, record in sorted(events[tenant].items(), key=lambda item: item[0][1]):
            if record["type"] == "key_changed":
                account = name_of(record["account"], record.get("issuer", ""))
                loss.again.append(ops.change_key(tenant, account, record["key"]))
            elif record["type"] in {"redemption", "decision"}:
                own = outcomes.get((record["jti"], record["writer"]), "")
                if own in {"", "unknown"}:
                    own = outcomes.get((record["jti"], ""), own)
                loss.tell(record, minted.get(record["jti"]), own)
            elif record["type"] == "forgotten":  # as all that was remembered before a loss
                continue
            elif (
                lifted.get((tenant, record["name"]), 0.0) < record["time"]
                and (op := _revoked(record)) is not None
            ):
                loss.again.append(op)
    return losses


def _gaps(known: HistoryRecord, loss: Loss, events: Collection[_Counted]) -> Iterator[str]:
    """The counts that no log tells. An epoch goes on where it is known to have come to, a new
    one where another of its history came to.
    """
    whose = {**known.whose, **loss.whose}
    ends = {e: count for e, count in known.ends.items() if known.whose[e] == whose[e]}
    ended = (*ends.items(), *loss.seen.items())
    for epoch, last in loss.seen.items():
        reached = {0, *(count for other, count in ended if whose[other] == whose[epoch])}
        first = ends.get(epoch, 0) + 1
        if not last:  # only a mint was lost
            continue
        counts = {count for name, count in events if name == epoch}
        if epoch not in ends:
            first = min(counts, default=last)
            if first - 1 not in reached:
                first = max(count for count in reached if count < first) + 1
        # a tool server may claim any number
        if (lacking := last + 1 - first - len(counts)) > 0:
            at = next(count for count in range(first, last + 1) if count not in counts)
            yield f"{lacking} of the events {first} to {last} of {epoch} (the first is {at})"


def _revoked(record: Mapping[str, Any]) -> Op[ops.RevokeReply] | None:
    """The revocation of a record, written again; None: it has ended."""
    left = int(record["time"] + record["life"] - time.time()) if record["life"] else 0
    if record["life"] and left <= 0:
        return None
    kind, _, subject = record["name"].partition(":")
    told = canonical({"at": record["time"], "by": record["by"], "reason": record["reason"]})
    before = int((record["before"] or 0) * 1000)
    return ops.revoke(
        record["tenant"], kind, subject, before_ms=before, life_ms=left * 1000, told=told
    )


def _head(record: Mapping[str, Any]) -> Mapping[str, object]:
    """The head of a call whose own is lost: it gave no fact, and none of its arguments is
    known.
    """
    return {
        "tool": record["tool"],
        "tool_call_id": record["tool_call_id"],
        "args": {},
        "named": False,
        "facts": {},
        "txn": record["txn"],
        "read": False,
    }
