"""Holds in the store. Their states, and what follows them, are in `agentgate.decision.hold_states`; the scripts follow that table.

A hold is the hash ``hold:{id}``, listed in the sorted set ``holds:all`` until it is forgotten. Beside state, body and revision it keeps the
run's key, the deadline, the sensitive values that `reveal_hold` reads, and the nonces with which it may be answered. ``cool:{run}:{act}``
is there while an act that a person refused is not asked again.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from agentgate.errors import NameRefused
from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Op,
    checked_bytes,
    checked_digest,
    checked_id,
    checked_number,
    checked_subject,
    parser,
    prefix,
    reply,
    word,
)
from agentgate.stores._records import HoldRecord, HoldState, LimitTake
from agentgate.stores._revocations import people

_STATES: tuple[str, ...] = get_args(HoldState)
COOLING = HoldRecord("refused", b"", "0", "cooling")  # what `open_hold` answers while a refused act is not asked again


def _key(tenant: str, hold_id: str) -> str:
    return f"{prefix(tenant)}hold:{checked_id('hold', hold_id)}"


def _calls(tenant: str, run: str) -> str:
    return f"{prefix(tenant)}calls:{checked_id('run', run)}"


def hold_record(op: Op, state: bytes, body: bytes, revision: bytes, call: bytes) -> HoldRecord:
    """A hold as a script answers it."""
    return HoldRecord(word(op, state, _STATES), body, str(int(revision)), call.decode())


def open_hold(
    tenant: str, run: str, hold_id: str, body: bytes, *, act: str, ttl_ms: int, answer_ms: int, most: int, sensitive: bytes = b"{}"
) -> Op:
    """Write a new hold of a run in state `pending`: to be answered within `answer_ms` milliseconds, forgotten after `ttl_ms`.

    An existing one is left as it is and returned, unless the user took back what it was for (`cancelled`). `act` is the digest of tool and
    arguments: where a person refused the act in this run less than its `answer_ms` ago, there is no new hold (`COOLING`), and
    none where `most` of the run are pending.
    """
    start, answered = prefix(tenant), checked_number("answer_ms", answer_ms, 1, MAX_TTL_MS)
    keys = (
        _key(tenant, hold_id),
        f"{start}holds:all",
        _calls(tenant, run),
        f"{start}cool:{run}:{checked_digest('act', act)}",
        f"{start}open:{run}",
    )
    ttl = checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS)
    args = (
        checked_bytes("hold body", body),
        ttl,
        answered,
        hold_id,
        checked_bytes("sensitive", sensitive),
        f"{start}hold:",
        checked_number("most", most, 1, MAX_AMOUNT),
    )
    return Op("open_hold", keys, args, confirm=True)


def read_hold(tenant: str, hold_id: str) -> Op:
    """Read one hold."""
    return Op("read_hold", (_key(tenant, hold_id),))


@parser
def parse_hold(op: Op, raw: Any) -> HoldRecord | None:
    """Reply of `open_hold` (None: too many of the run are pending) and `read_hold` (None: missing or forgotten)."""
    state, body, revision, call = reply(op, raw, 4)
    if state == (b"missing" if op.script == "read_hold" else b"too_many"):
        return None
    if state == b"cooling" and op.script == "open_hold":
        return COOLING
    return hold_record(op, state, body, revision, call)


def answer_hold(
    tenant: str, hold_id: str, expected_revision: str, body: bytes, state: HoldState, *, nonce: str = "", event: bytes = b""
) -> Op:
    """Replace body and state if the revision is still the expected one (`pending`: more approvers are needed).

    A released hold takes only `refused`. A signed answer uses up its `nonce`. `event`: what is told of it (`agentgate.stores._telling`);
    empty: nothing.
    """
    if state not in ("pending", "released", "refused"):
        raise NameRefused("hold state", state, "pending, released or refused")
    checked = checked_id("nonce", nonce) if nonce else ""
    args = (checked_id("hold revision", expected_revision), checked_bytes("hold body", body), state, checked, checked_bytes("event", event))
    return Op("answer_hold", (_key(tenant, hold_id),), args, confirm=True)


def parse_answer_hold(op: Op, raw: Any) -> Literal["ok", "missing", "stale", "final", "nonce"]:
    """`ok`; `stale`: another answer came first; `final`: answered, expired, spent or cancelled already; `nonce`: see `take_nonce`."""
    return word(op, reply(op, raw, 1)[0], ("ok", "missing", "stale", "final", "nonce"))  # type: ignore[no-any-return]  # one of these


def nonce_hold(tenant: str, hold_id: str, nonce: str, life_ms: int) -> Op:
    """Let a pending or released hold be answered with one more nonce for a while; at most 64 live at a time."""
    args = (checked_id("nonce", nonce), checked_number("life_ms", life_ms, 1, MAX_TTL_MS))
    return Op("nonce_hold", (_key(tenant, hold_id),), args, confirm=True)


def take_nonce(tenant: str, hold_id: str, nonce: str, *, take: bool, user: str, opened_ms: int) -> Op:
    """Whether a hold may be answered with this nonce now, and whether a person is revoked for what was opened then (POSIX milliseconds).

    With `take` the nonce is used up.
    """
    keys = (_key(tenant, hold_id), *people(prefix(tenant), (user,)))
    args = (checked_id("nonce", nonce), "1" if take else "0", checked_number("opened_ms", opened_ms, 0, MAX_AMOUNT))
    return Op("take_nonce", keys, args, confirm=take)


def parse_take_nonce(op: Op, raw: Any) -> tuple[Literal["ok", "nonce"], bool]:
    """`ok`, or `nonce`: unknown, used or too old; and whether the person is revoked."""
    taken, gone = reply(op, raw, 2)
    return word(op, taken, ("ok", "nonce")), word(op, gone, ("yes", "no")) == "yes"


def parse_nonce(op: Op, raw: Any) -> Literal["ok", "missing", "final"]:
    """`ok`; `missing`, `final`: there is nothing to answer."""
    return word(op, reply(op, raw, 1)[0], ("ok", "missing", "final"))  # type: ignore[no-any-return]  # one of these


def reveal_hold(tenant: str, hold_id: str) -> Op:
    """The sensitive values of a pending or released hold."""
    return Op("reveal_hold", (_key(tenant, hold_id),))


def parse_reveal_hold(op: Op, raw: Any) -> bytes:
    """Their JSON; empty where the hold is over, or of an earlier version."""
    found = reply(op, raw, 1)[0]
    return found if type(found) is bytes else b""


def read_limits(tenant: str, run: str, limits: tuple[LimitTake, ...]) -> Op:
    """What is taken of each limit now, for a person to see."""
    start = prefix(tenant)
    own = [take.for_run is True and take.every_ms == 0 for take in limits]
    names = [checked_subject("limit", take.key) for take in limits]
    beyond = [f"{start}limit:{name}" for name, in_run in zip(names, own, strict=True) if not in_run]
    args = [name if in_run else "" for name, in_run in zip(names, own, strict=True)]
    return Op("read_limits", (f"{start}run:{checked_id('run', run)}", *beyond), tuple(args))


@parser
def parse_read_limits(op: Op, raw: Any) -> tuple[int, ...]:
    """Reply of `read_limits`, in units of 10^-4 for sums."""
    return tuple(int(total) for total in reply(op, raw, 1)[0])


def list_holds(tenant: str, run: str = "") -> Op:
    """A tenant's holds that the store still keeps, in any state (the 1,000 that it keeps longest); with `run` only that run's."""
    start = prefix(tenant)
    return Op("list_holds", (f"{start}holds:all",), (f"{start}hold:", _calls(tenant, run) if run else ""))


@parser
def parse_list_holds(op: Op, raw: Any) -> tuple[HoldRecord, ...]:
    """Reply of `list_holds`."""
    return tuple(hold_record(op, *item) for item in reply(op, raw, 1)[0])
