"""Runs: open, add a turn, close, read. A missing run is None and a refusal, never an empty run.

A run is the hash ``ag:{t}:run:{run}`` (`header`, `rev`, `closed`, `turns`, `turn:1`...); all its call records are the hash
``ag:{t}:calls:{run}``, so that a tool server's store user can write those without being able to write the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentgate.errors import StoreUnavailable
from agentgate.stores._op import MAX_TTL_MS, Op, checked_bytes, checked_id, checked_number, checked_text, lineage_of, prefix, reply, word

CallStatus = Literal["minted", "redeemed"]

_EXTENTS = frozenset({"all", "since"})
_STATUS: dict[bytes, CallStatus] = {b"minted": "minted", b"redeemed": "redeemed"}


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What the store knows of one call of a run.

    Attributes:
        digest: call digest (64 hex).
        head: the JSON the gate wrote at mint.
        status: minted, or redeemed (its token was burned).
        redeemed_at: POSIX seconds of the store's clock; None until redeemed.
        facts: canonical JSON of the recorded facts; None until recorded.
        outcome: done, failed, unknown, or empty until reported.
        gen: lineage of its last mint.
    """

    digest: str
    head: bytes
    status: CallStatus
    redeemed_at: float | None
    facts: bytes | None
    outcome: str
    gen: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as stored.

    Attributes:
        header: the bytes `open_run` was given.
        turns: the user's texts, oldest first.
        revision: opaque; the mint script refuses another. It rises with a turn, a closing, a redemption and a result, and is
            another in another history of the store.
        calls: in no particular order; all of them, or those `since`.
        lineage: the store's lineage when it was read.
        since: `calls` are only those that were redeemed, or whose facts were recorded, after the revision that was known.
    """

    header: bytes
    turns: tuple[str, ...]
    revision: str
    closed: bool
    calls: tuple[CallRecord, ...]
    lineage: str
    since: bool = False


def open_run(tenant: str, run: str, header: bytes, turn: str, ttl_ms: int) -> Op:
    """Write a new run that lives `ttl_ms` milliseconds. An id that exists is never written over."""
    checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS)
    args = (checked_bytes("header", header), checked_text("turn", turn), ttl_ms)
    return Op("open_run", (f"{prefix(tenant)}run:{checked_id('run', run)}",), args, confirm=True)


def parse_open_run(op: Op, raw: Any) -> Literal["ok", "exists"]:
    """`ok`, or `exists`: the id is taken and nothing was written."""
    return word(op, reply(op, raw, 1)[0], frozenset({"ok", "exists"}))  # type: ignore[return-value]  # a word of the closed set


def add_turn(tenant: str, run: str, text: str) -> Op:
    """Append a user's turn; the run's life is not prolonged."""
    return Op("add_turn", (f"{prefix(tenant)}run:{checked_id('run', run)}",), (checked_text("turn", text),), confirm=True)


def close_run(tenant: str, run: str) -> Op:
    """End a run; closing a closed one changes nothing and is `closed`."""
    return Op("close_run", (f"{prefix(tenant)}run:{checked_id('run', run)}",), (), confirm=True)


def parse_run_change(op: Op, raw: Any) -> Literal["ok", "missing", "closed"]:
    """Reply of `add_turn` and `close_run`."""
    return word(op, reply(op, raw, 1)[0], frozenset({"ok", "missing", "closed"}))  # type: ignore[return-value]  # a word of the closed set


def read_run(tenant: str, run: str, known: str = "") -> Op:
    """Read a run and its call records as one snapshot.

    Args:
        tenant: tenant of the run.
        run: id of the run.
        known: the revision up to which the reader has the calls; of these only what changed since is read, if the store can tell.
    """
    start = prefix(tenant)
    keys = (f"{start}run:{checked_id('run', run)}", f"{start}calls:{run}")
    return Op("read_run", keys, (checked_id("revision", known) if known else "",))


def parse_read_run(op: Op, raw: Any) -> RunRecord | None:
    """The run, or None when there is none.

    Raises:
        StoreUnavailable: the stored run is unreadable (a field is missing or malformed).
    """
    gen, run_flat, calls_flat, extent = reply(op, raw, 4)
    lineage, since = lineage_of(op, gen), word(op, extent, _EXTENTS) == "since"
    fields = dict(zip(run_flat[::2], run_flat[1::2], strict=True))
    if not fields:
        return None
    kept = dict(zip(calls_flat[::2], calls_flat[1::2], strict=True))
    try:
        turns = tuple(fields[b"turn:%d" % n].decode() for n in range(1, int(fields[b"turns"]) + 1))
        revision = f"{int(fields[b'rev'])}.{int(kept.get(b'rev', b'0'))}.{lineage}"
        digests = [name[:-5] for name in kept if name.endswith(b":head")]
        calls = tuple(_call(kept, digest) for digest in digests)
        return RunRecord(fields[b"header"], turns, revision, b"closed" in fields, calls, lineage, since)
    except (KeyError, ValueError) as error:
        raise StoreUnavailable(f"run {op.keys[0]} is unreadable: {error!r}") from error


def _call(kept: dict[bytes, bytes], digest: bytes) -> CallRecord:
    status = _STATUS[kept[digest + b":status"]]
    at = int(kept[digest + b":at"]) / 1000 if status == "redeemed" else None
    outcome = kept.get(digest + b":outcome", b"").decode()
    gen = kept[digest + b":mint"].decode().split(" ")[0]
    return CallRecord(digest.decode(), kept[digest + b":head"], status, at, kept.get(digest + b":facts"), outcome, gen)
