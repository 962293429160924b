"""Runs in the store. A missing run is None and a refusal, never an empty run."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from agentgate.stores._health import Keeps
from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Acting,
    Arg,
    CallRecord,
    CallStatus,
    Extent,
    Op,
    OpenKind,
    OpenReply,
    RunRecord,
    Subjects,
    checked_bytes,
    checked_id,
    checked_number,
    checked_revision,
    checked_text,
    lineage_of,
    one_of,
    prefix,
    shared_revocations,
)
from agentgate.values.canonical import digest

Changed = Literal["ok", "missing", "closed", "stale", "revoked"]
Locked = Literal["ok", "missing", "closed", "held"]
Counted = Literal["ok", "missing", "closed", "spent"]
# Made once: to hash a Literal costs as much as to read the rest of a reply.
_open_kind = one_of(OpenKind)
_extent = one_of(Extent)
_acting = one_of(Acting)
_changed = one_of(Changed)
_locked = one_of(Locked)
_counted = one_of(Counted)
_CALL_STATUS: dict[bytes, CallStatus] = {b"minted": "minted", b"redeemed": "redeemed"}


def _run_key(tenant: str, run: str) -> str:
    return f"{prefix(tenant)}run:{checked_id('run', run)}"


def open_run(
    tenant: str,
    run: str,
    header: bytes,
    turn: str,
    ttl_ms: int,
    *,
    whose: str,
    most: int,
    keeps: Keeps = "no",
    acts: Literal["any", "opener", "nobody"] = "nobody",
    who: Subjects | None = None,
    keep_ms: int = 0,
) -> Op[OpenReply]:
    """Write a new run that expires after `ttl_ms` milliseconds, or say why not: its id is
    taken, too many were opened, or `who` is revoked.

    Args:
        tenant: tenant of the run.
        run: its id.
        header: its frozen part.
        turn: the user's first words.
        ttl_ms: its life.
        whose: who opened it, any text, in a second line by whose word; their runs of the last
            hour are counted (up to a minute longer).
        most: how many they may be.
        keeps: whether the store keeps what it acknowledges: then any gate mints acts in this
            run, and otherwise
        acts: `any` gate, as long as the store's lineage is the same; the `opener`, which
            remembers what it minted; or `nobody`.
        who: of its agent, user and workflow none may be revoked; None: it is not asked.
        keep_ms: how long it is there after its end, so that another run of its conversation can
            follow; 0: it belongs to none.
    """
    counted = "\n".join(digest(checked_text("whose", name)) for name in whose.split("\n"))
    start = prefix(tenant)
    args = (
        checked_bytes("header", header),
        checked_text("turn", turn),
        checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS),
        checked_number("most", most, 1, MAX_AMOUNT),
        keeps,
        acts,
        checked_number("keep_ms", keep_ms, 0, MAX_TTL_MS),
    )
    conversation = (_conversation_key(tenant, run),) if keep_ms else ()
    revocations = shared_revocations(start, who) if who is not None else ()
    keys = (
        _run_key(tenant, run),
        f"{start}runs:{counted}",
        f"{start}clock:{run}",
        f"{start}history",
        *conversation,
        *revocations,
    )
    return Op(
        "open_run",
        lambda kind, *record: OpenReply(_open_kind(kind), _run(*record)),
        keys,
        args,
        confirm=True,
    )


def _conversation_key(tenant: str, run: str) -> str:
    return f"{prefix(tenant)}conversation:{checked_id('run', run)}"


def succeed_run(
    tenant: str,
    run: str,
    header: bytes,
    turns: tuple[str, ...],
    *,
    revision: str,
    life_ms: int,
    takes_back: bool,
    who: Subjects,
) -> Op[Changed]:
    """Begin the run of a conversation anew, under another header and with these turns; its
    counts, calls and holds stand.

    Args:
        tenant: tenant of the run.
        run: its id.
        header: the new frozen part.
        turns: the earlier turns that it still knows, and the user's new one.
        revision: as it was read; it is refused as `stale` where it changed since.
        life_ms: how long it is there from now on.
        takes_back: the new turn takes back, as in `add_turn`.
        who: of its agent, user and workflow none may be revoked, nor the run itself.
    """
    start = prefix(tenant)
    revocations = (
        f"{start}revoked:run:{checked_id('run', run)}",
        *shared_revocations(start, who),
    )
    args: tuple[Arg, ...] = (
        checked_bytes("header", header),
        checked_revision("revision", revision),
        checked_number("life_ms", life_ms, 1, MAX_TTL_MS),
        int(takes_back),
        *[checked_text("turn", turn) for turn in turns],
    )
    keys = (_run_key(tenant, run), _conversation_key(tenant, run), *revocations)
    return Op("succeed_run", _changed, keys, args, confirm=True)


def lock_run(tenant: str, run: str, holder: str, ttl_ms: int) -> Op[tuple[Locked, int]]:
    """Take the lock of a run for at most `ttl_ms` milliseconds, or give it back (0), as often
    as it was taken by this holder.

    Answers with the holder's fence (`MintRequest.fence`), or where another has it (`held`) with
    how many milliseconds that may still be.
    """
    args = (checked_id("holder", holder), checked_number("ttl_ms", ttl_ms, 0, MAX_TTL_MS))
    return Op(
        "lock_run",
        lambda kind, number: (_locked(kind), int(number)),
        (_run_key(tenant, run),),
        args,
        confirm=ttl_ms > 0,
    )


def renew_run(tenant: str, run: str, header: bytes, revision: str) -> Op[Changed]:
    """Write another header into an open run that is still as it was read (`revision`), or say
    why not.
    """
    args = (checked_bytes("header", header), checked_revision("revision", revision))
    return Op("renew_run", _changed, (_run_key(tenant, run),), args, confirm=True)


def add_turn(tenant: str, run: str, text: str, *, harmless_after: int | None) -> Op[Changed]:
    """Append a user's turn; the run does not expire later for it.

    `harmless_after`: it takes nothing back of what these turns (their number) asked for, and is
    refused as `stale` behind others. None: it takes back, and what was minted or held before
    and did not run is void.
    """
    known = (
        ""
        if harmless_after is None
        else str(checked_number("harmless_after", harmless_after, 1, MAX_AMOUNT))
    )
    return Op(
        "add_turn",
        _changed,
        (_run_key(tenant, run),),
        (checked_text("turn", text), known),
        confirm=True,
    )


def close_run(tenant: str, run: str) -> Op[Changed]:
    """End a run, and void what was minted or held in it and did not run; closing a closed one
    changes nothing and returns `closed`.
    """
    return Op("close_run", _changed, (_run_key(tenant, run),), confirm=True)


def count_denial(tenant: str, run: str, most: int, *, closes: bool = True) -> Op[Counted]:
    """Count a denial of an open run, for all gates together: `spent` from `most` of them.

    One that `closes` then closes the run, as `close_run` does. The others, for a wrong form
    alone, have a count of their own.
    """
    args = (checked_number("most", most, 1, MAX_AMOUNT), "denials" if closes else "misformed")
    return Op("count_denial", _counted, (_run_key(tenant, run),), args, confirm=True)


def read_run(tenant: str, run: str, known: str = "") -> Op[RunRecord | None]:
    """Read a run and its call records as one snapshot; None when there is none.

    Args:
        tenant: tenant of the run.
        run: id of the run.
        known: the revision up to which the reader has it; the store then returns only what
            changed since, if it can tell.
    """
    return Op(
        "read_run",
        partial(_run, known=known),
        (_run_key(tenant, run),),
        (checked_revision("revision", known) if known else "",),
    )


def _run(  # noqa: PLR0917 - a reply of six values
    gen: Any,
    run_flat: list[bytes],
    vector: bytes,
    calls: list[list[Any]],
    extent: Any,
    acts: Any,
    known: str = "",
) -> RunRecord | None:
    lineage = lineage_of(gen)
    since = _extent(extent) == "since"
    fields = dict(zip(run_flat[::2], run_flat[1::2], strict=True))
    if not fields:
        return None
    rev = int(fields[b"rev"])
    is_known = known.startswith(f"{rev}.") and known.endswith(f".{lineage}")
    header = b"" if is_known and b"header" not in fields else fields[b"header"]
    turns = int(fields[b"turns"]) if header else 0
    return RunRecord(
        header=header,
        turns=tuple([fields[b"turn:%d" % n].decode() for n in range(1, turns + 1)]),
        revision=f"{rev}.{vector.decode()}.{lineage}",
        closed=b"closed" in fields,
        calls=tuple([_call(*call) for call in calls]),
        lineage=lineage,
        since=since,
        denials_spent=fields.get(b"closed") == b"denials",
        acts=_acting(acts),
        owned=b"form" in fields,
        full=b"full" in fields,
    )


def _call(  # noqa: PLR0917 - a record of seven values, in the order of the script's reply
    digest: bytes,
    head: bytes,
    gen: bytes,
    status: bytes,
    at: bytes,
    outcome: bytes,
    facts: bytes | None,
) -> CallRecord:
    return CallRecord(
        digest=digest.decode(),
        head=head,
        status=_CALL_STATUS[status],
        redeemed_at=int(at) / 1000 if at else None,
        facts=facts,
        outcome=outcome.decode(),
        gen=gen.decode(),
    )
