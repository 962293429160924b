"""Every operation on the state store, as a value (`agentgate.stores._op.Op`) that says how its reply is read.

``op.parse(store.call(op, deadline))`` is the whole protocol, without a clock or I/O. What makes an operation raises NameRefused if an
argument is malformed; `Op.parse` raises StoreUnavailable if the reply is not this operation's, holds an unknown word, or cannot be read.

Keys, under ``ag:{tenant}:``: a run is the hash ``run:{run}`` (`header`, `rev`, `closed`, `turns`, `turn:1`...). What was minted in it for
an audience is the hash ``mints:{audience}:{run}``, and what became of that ``burns:{audience}:{run}``, which that tool server's store user
may write, and nothing else but its tokens (``token:{audience}:{jti}``) and ``history:{audience}`` (docs/state.md). A hold is the hash
``hold:{id}`` (`state`, `body`, `rev`, `call`); `agentgate.stores._revocations` tells of revocations. The hash ``history`` counts what a
tenant must never lose (see ``scripts/_common.lua``). The marks of a gate belong to no tenant: one hash for each gate's URL, under a hash
tag of its own, and so are the checkpoints of audit logs (`agentgate.stores._checkpoints`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

from agentgate.errors import NameRefused
from agentgate.stores import _account_keys, _checkpoints, _holds, _kept, _marks, _notifications, _records, _revocations
from agentgate.stores._health import Keeps
from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Arg,
    Op,
    burns_key,
    checked_bytes,
    checked_digest,
    checked_id,
    checked_lineage,
    checked_number,
    checked_revision,
    checked_subject,
    checked_text,
    history_of,
    lineage_of,
    one_of,
    prefix,
    server_id,
)
from agentgate.stores.history import checked_history
from agentgate.values.canonical import canonical, digest

Subjects = _records.Subjects
LimitTake = _records.LimitTake
HoldTake = _records.HoldTake
OpenReply = _records.OpenReply
MintRequest = _records.MintRequest
MintReply = _records.MintReply
BurnRequest = _records.BurnRequest
BurnReply = _records.BurnReply
CallRecord = _records.CallRecord
Acting = _records.Acting
RunRecord = _records.RunRecord
HoldRecord = _records.HoldRecord
HoldList = _records.HoldList
Outcome = _records.Outcome
HoldState = _records.HoldState
RevokedKind = _records.RevokedKind
RevocationRecord = _revocations.RevocationRecord
RevokeReply = _revocations.RevokeReply
ChangeReply = _account_keys.ChangeReply
Notification = _notifications.Notification
PAGE = _notifications.PAGE
workflow_subject = _records.workflow_subject
revoke, lift, revoked, revocation_name = _revocations.revoke, _revocations.lift, _revocations.revoked, _revocations.revocation_name
list_revocations, REVOKED_KINDS = _revocations.list_revocations, _revocations.REVOKED_KINDS
open_hold, read_hold, answer_hold, list_holds = _holds.open_hold, _holds.read_hold, _holds.answer_hold, _holds.list_holds
old_holds, waiting_holds, ended_holds, count_holds = _holds.old_holds, _holds.waiting_holds, _holds.ended_holds, _holds.count_holds
WAITING = _holds.PAGE
nonce_hold, take_nonce, reveal_hold, read_limits = _holds.nonce_hold, _holds.take_nonce, _holds.reveal_hold, _holds.read_limits
COOLING = _holds.COOLING
take_notification, finish_notification = _notifications.take_notification, _notifications.finish_notification
change_key = _account_keys.change_key
keep, kept = _kept.keep, _kept.kept
raise_marks, MAX_MARKS = _marks.raise_marks, _marks.MAX_MARKS
keep_checkpoint, read_checkpoints = _checkpoints.keep_checkpoint, _checkpoints.read_checkpoints

Changed = Literal["ok", "missing", "closed", "stale"]
Counted = Literal["ok", "missing", "closed", "spent"]
Living = Literal["live", "revoked", "lineage", "used"]
Recorded = Literal["ok", "not_redeemed", "already_recorded"]
# Made once: to hash a Literal costs as much as to read the rest of a reply.
_mint_kind, _burn_kind, _open_kind = map(one_of, (_records.MintKind, _records.BurnKind, _records.OpenKind))
_extent, _acting = map(one_of, (_records.Extent, Acting))
_changed, _counted, _living, _recorded = map(one_of, (Changed, Counted, Living, Recorded))
_OUTCOMES = get_args(Outcome)
_CALL_STATUS: dict[bytes, _records.CallStatus] = {b"minted": "minted", b"redeemed": "redeemed"}
MAX_LIMITS = 64  # in one mint


def _run_key(tenant: str, run: str) -> str:
    return f"{prefix(tenant)}run:{checked_id('run', run)}"


@lru_cache(maxsize=4096)
def _server_keys(tenant: str, run: str, audience: str) -> tuple[str, str, str]:
    """What the server of a run's calls writes: the start of its tokens' single-use keys, its records of the run, its history."""
    start, server = prefix(tenant), server_id(audience) if audience else ""
    token = f"{start}token:{server}:" if audience else f"{start}jti:"
    return token, burns_key(tenant, run, audience), f"{start}history:{server}" if audience else f"{start}history"


# Runs. A missing run is None and a refusal, never an empty run.


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
) -> Op[OpenReply]:
    """Write a new run that expires after `ttl_ms` milliseconds, or say why not: its id is taken, too many were opened, or `who` is revoked.

    Args:
        tenant: tenant of the run.
        run: its id.
        header: its frozen part.
        turn: the user's first words.
        ttl_ms: its life.
        whose: who opened it, any text, in a second line by whose word; their runs of the last hour are counted (up to a minute longer).
        most: how many they may be.
        keeps: whether the store keeps what it acknowledges: then any gate mints acts in this run, and otherwise
        acts: `any` gate, as long as the store's lineage is the same; the `opener`, which remembers what it minted; or `nobody`.
        who: of its agent, user and workflow none may be revoked; None: it is not asked.
    """
    counted = "\n".join(digest(checked_text("whose", name)) for name in whose.split("\n"))
    opened = f"{prefix(tenant)}runs:{counted}"
    args: tuple[Arg, ...] = (checked_bytes("header", header), checked_text("turn", turn), checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS))
    args = (*args, checked_number("most", most, 1, MAX_AMOUNT), keeps, acts)
    revocations = _revocations.run_revocations(prefix(tenant), who.agent, who.user, who.workflow) if who is not None else ()
    return Op("open_run", _opened, (_run_key(tenant, run), opened, f"{prefix(tenant)}clock:{run}", *revocations), args, confirm=True)


def _opened(kind: Any, *record: Any) -> OpenReply:
    return OpenReply(_open_kind(kind), _run(*record))


def renew_run(tenant: str, run: str, header: bytes, revision: str) -> Op[Changed]:
    """Write another header into an open run that is still as it was read (`revision`), or say why not."""
    args = (checked_bytes("header", header), checked_revision("revision", revision))
    return Op("renew_run", _changed, (_run_key(tenant, run),), args, confirm=True)


def add_turn(tenant: str, run: str, text: str, *, harmless_after: int | None) -> Op[Changed]:
    """Append a user's turn; the run does not expire later for it.

    `harmless_after`: it takes nothing back of what these turns (their number) asked for, and is refused as `stale` behind others. None: it
    takes back, and what was minted or held before and did not run is void.
    """
    known = "" if harmless_after is None else str(checked_number("harmless_after", harmless_after, 1, MAX_AMOUNT))
    return Op("add_turn", _changed, (_run_key(tenant, run),), (checked_text("turn", text), known), confirm=True)


def close_run(tenant: str, run: str) -> Op[Changed]:
    """End a run, and void what was minted or held in it and did not run; closing a closed one changes nothing and returns `closed`."""
    return Op("close_run", _changed, (_run_key(tenant, run),), confirm=True)


def count_denial(tenant: str, run: str, most: int, *, closes: bool = True) -> Op[Counted]:
    """Count a denial of an open run, for all gates together: `spent` from `most` of them.

    One that `closes` then closes the run, as `close_run` does. The others, for a wrong form alone, have a count of their own.
    """
    args = (checked_number("most", most, 1, MAX_AMOUNT), "denials" if closes else "misformed")
    return Op("count_denial", _counted, (_run_key(tenant, run),), args, confirm=True)


def read_run(tenant: str, run: str, known: str = "") -> Op[RunRecord | None]:
    """Read a run and its call records as one snapshot; None when there is none.

    Args:
        tenant: tenant of the run.
        run: id of the run.
        known: the revision up to which the reader has the calls; the store then returns only calls that changed since, if it can tell.
    """
    return Op("read_run", _run, (_run_key(tenant, run),), (checked_revision("revision", known) if known else "",))


def _run(  # noqa: PLR0917 - a reply of six values
    gen: Any, run_flat: list[bytes], vector: bytes, calls: list[list[Any]], extent: Any, acts: Any
) -> RunRecord | None:
    lineage, since = lineage_of(gen), _extent(extent) == "since"
    fields = dict(zip(run_flat[::2], run_flat[1::2], strict=True))
    if not fields:
        return None
    return RunRecord(
        header=fields[b"header"],
        turns=tuple(fields[b"turn:%d" % n].decode() for n in range(1, int(fields[b"turns"]) + 1)),
        revision=f"{int(fields[b'rev'])}.{vector.decode()}.{lineage}",
        closed=b"closed" in fields,
        calls=tuple([_call(*call) for call in calls]),
        lineage=lineage,
        since=since,
        denials_spent=fields.get(b"closed") == b"denials",
        acts=_acting(acts),
        owned=b"form" in fields,
    )


def _call(  # noqa: PLR0917 - a record of seven values, in the order of the script's reply
    digest: bytes, head: bytes, gen: bytes, status: bytes, at: bytes, outcome: bytes, facts: bytes | None
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


# Calls. Each script first checks everything, then writes everything. A token is valid only in the lineage it was minted in.


def mint(request: MintRequest) -> Op[MintReply]:
    """Reserve limits, spend a release, record the call and write its token's single-use key: all of it or nothing."""
    start = prefix(request.tenant)
    run, jti = checked_id("run", request.run), checked_id("jti", request.jti)
    approvers = () if request.hold is None else request.hold.approvers
    stopping = _revocations.revocations_of(start, run, jti, request.subjects) + _revocations.people(start, approvers)
    if len(request.limits) > MAX_LIMITS or len({take.key for take in request.limits}) != len(request.limits):
        raise NameRefused("limits", f"{len(request.limits)} limits", f"at most {MAX_LIMITS}, each key once")
    token, burns, redemptions = _server_keys(request.tenant, run, request.audience)
    keys = [f"{token}{jti}", f"{start}run:{run}", burns, redemptions, f"{start}history", *stopping]
    args: list[Arg] = [
        checked_digest("call_digest", request.call_digest),
        checked_bytes("head", request.head),
        checked_digest("binding", request.binding),
        checked_number("ttl_ms", request.ttl_ms, 1, MAX_TTL_MS),
        checked_revision("revision", request.revision),
        jti,
        run,
        1 if request.read is True else 0,
        checked_history(request.redemptions),
        len(stopping),
        len(request.limits),
        "" if request.hold is None else checked_id("hold revision", request.hold.revision),
        "" if request.same_key is None else checked_subject("key thumbprint", request.same_key[1]),
        checked_history(request.history),
        checked_id("unspent", request.unspent) if request.unspent else _issued(request.issued),
    ]
    if request.hold is not None:
        keys.append(f"{start}hold:{checked_id('hold', request.hold.hold_id)}")
    if request.same_key is not None:
        keys.append(f"{start}lastkey:{checked_subject('account', request.same_key[0])}")
    for take in request.limits:
        name = checked_subject("limit", take.key)
        in_run = take.for_run is True and take.every_ms == 0
        if not in_run:
            keys += (f"{start}limit:{name}", f"{start}times:{name}")
        args += (
            checked_number("limit amount", take.amount, 0, MAX_AMOUNT // 2),
            checked_number("limit maximum", take.maximum, 0, MAX_AMOUNT // 2),
            checked_number("limit every_ms", take.every_ms, 0, MAX_TTL_MS),
            name if in_run else "",
        )
    return Op("mint", _minted, tuple(keys), tuple(args), confirm=True)


def _issued(told: str | None) -> str:
    """No id of a token begins like this."""
    return "" if told is None else f"!{checked_history(told)}"


def _minted(  # noqa: PLR0917 - a reply of six values
    kind: Any, lineage: Any, detail: bytes, history: Any, redemptions: Any, head: bytes
) -> MintReply:
    return MintReply(
        kind=_mint_kind(kind),
        lineage=lineage_of(lineage),
        detail=detail.decode(),
        history=history_of(history),
        redemptions=history_of(redemptions),
        head=head,
    )


def burn(request: BurnRequest) -> Op[BurnReply]:
    """Spend a token once: check revocations, lineage, history, single-use key and binding, then mark the call redeemed."""
    start = prefix(request.tenant)
    run, jti = checked_id("run", request.run), checked_id("jti", request.jti)
    args = (
        checked_digest("call_digest", request.call_digest),
        checked_lineage("gen", request.gen),
        checked_digest("binding", request.binding),
        jti,
        checked_history(request.history),
        _attempt(request.attempt),
        "" if request.brokers is None else _names(request.brokers),
        *_revocations.revocations_of(start, run, jti, request.subjects),
    )
    token, *more = _server_keys(request.tenant, run, request.audience)
    return Op("burn", _burned, (f"{token}{jti}", *more), args, confirm=True)


@lru_cache(maxsize=64)
def _names(brokers: tuple[str, ...]) -> bytes:
    return canonical(brokers)


def _attempt(name: str) -> str:
    return checked_id("attempt", name) if name else ""


def _burned(kind: Any, head: bytes, history: Any) -> BurnReply:
    return BurnReply(_burn_kind(kind), head, history_of(history))


def live(request: BurnRequest) -> Op[Living]:
    """Ask whether a burn would take this token, and change nothing."""
    burned = burn(request)
    return Op("live", _living, burned.keys[:2], (*burned.args[:4], *burned.args[7:]))


def record_result(tenant: str, run: str, call_digest: str, facts: bytes, *, audience: str) -> Op[Recorded]:
    """Record the declared facts of a redeemed call, once; of one that failed they are `already_recorded`: its record is closed."""
    args = (checked_digest("call_digest", call_digest), checked_bytes("facts", facts))
    return Op("record_result", _recorded, (burns_key(tenant, run, audience),), args)


def record_outcome(
    tenant: str, run: str, call_digest: str, outcome: Outcome, jti: str, *, audience: str, attempt: str = ""
) -> Op[Recorded]:
    """Record how the redemption by a token ended, once; only `unknown` may later become another. `attempt`: only if it was this one.

    `failed` says that nothing happened, or that a read failed; `not_run` that the tool was never started.
    """
    if outcome not in _OUTCOMES:
        raise NameRefused("outcome", outcome, ", ".join(_OUTCOMES))
    args = (checked_digest("call_digest", call_digest), outcome, checked_id("jti", jti), _attempt(attempt))
    return Op("record_outcome", _recorded, (burns_key(tenant, run, audience),), args)
