"""Every operation on the state store, as pure pairs: a builder makes an `Op`, a parser reads the reply.

``parse_x(op, store.call(op, deadline))`` is the whole protocol, without a clock or I/O. A builder raises NameRefused if an argument is
malformed; a parser raises StoreUnavailable if the reply is not this operation's, holds an unknown word, or cannot be read.

| builder | parser |
|---|---|
| `open_run` | `parse_open_run` |
| `add_turn`, `close_run` | `parse_run_change` |
| `count_denial` | `parse_count_denial` |
| `renew_run` | `parse_renew_run` |
| `read_run` | `parse_read_run` |
| `mint` | `parse_mint` |
| `burn` | `parse_burn` |
| `record_result`, `record_outcome` | `parse_record` |
| `open_hold`, `read_hold` | `parse_hold` |
| `answer_hold` | `parse_answer_hold` |
| `list_holds` | `parse_list_holds` |
| `nonce_hold`, `take_nonce` | `parse_nonce`, `parse_take_nonce` |
| `reveal_hold` | `parse_reveal_hold` |
| `untold_hold`, `told_hold` | `parse_untold_hold`, `parse_told_hold` |
| `read_limits` | `parse_read_limits` |
| `revoke`, `lift`, `revoked`, `list_revocations` | `parse_revoke`, `parse_lift`, `parse_revoked`, `parse_list_revocations` |
| `raise_marks` | `parse_raise_marks` |
| `live` | `parse_live` |
| `keep` | `parse_keep` |
| `kept` | `parse_kept` |

Keys, under ``ag:{tenant}:``: a run is the hash ``run:{run}`` (`header`, `rev`, `closed`, `turns`, `turn:1`...); the records of its
calls are the hash ``calls:{run}``, so that a tool server's store user can write those without being able to write the run. A hold is the
hash ``hold:{id}`` (`state`, `body`, `rev`, `call`); `agentgate.stores._revocations` tells of revocations. The hash ``history`` counts what
a tenant must never lose (see ``scripts/_common.lua``). The marks of a gate belong to no tenant: one hash for each gate's URL, under a hash
tag of its own.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args

from agentgate.errors import NameRefused
from agentgate.stores import _account_keys, _denials, _holds, _kept, _marks, _op, _records, _revocations, _telling
from agentgate.stores._health import Keeps
from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Arg,
    checked_bytes,
    checked_digest,
    checked_id,
    checked_lineage,
    checked_number,
    checked_subject,
    checked_text,
    history_of,
    lineage_of,
    parser,
    prefix,
    reply,
    word,
)
from agentgate.stores.history import checked_history
from agentgate.values.canonical import canonical

Op = _op.Op
Subjects = _records.Subjects
LimitTake = _records.LimitTake
HoldTake = _records.HoldTake
MintRequest = _records.MintRequest
MintReply = _records.MintReply
BurnRequest = _records.BurnRequest
BurnReply = _records.BurnReply
CallRecord = _records.CallRecord
Acting = _records.Acting
RunRecord = _records.RunRecord
HoldRecord = _records.HoldRecord
Outcome = _records.Outcome
HoldState = _records.HoldState
RevokedKind = _records.RevokedKind
RevocationRecord = _revocations.RevocationRecord
RevokeReply = _revocations.RevokeReply
Untold = _telling.Untold
PAGE = _telling.PAGE
workflow_subject = _records.workflow_subject
revoke, parse_revoke, revocation_name = _revocations.revoke, _revocations.parse_revoke, _revocations.revocation_name
lift, parse_lift = _revocations.lift, _revocations.parse_lift
revoked, parse_revoked = _revocations.revoked, _revocations.parse_revoked
list_revocations, parse_list_revocations = _revocations.list_revocations, _revocations.parse_list_revocations
REVOKED_KINDS = _revocations.REVOKED_KINDS
open_hold, read_hold, parse_hold = _holds.open_hold, _holds.read_hold, _holds.parse_hold
answer_hold, parse_answer_hold = _holds.answer_hold, _holds.parse_answer_hold
list_holds, parse_list_holds = _holds.list_holds, _holds.parse_list_holds
nonce_hold, parse_nonce, take_nonce, parse_take_nonce = _holds.nonce_hold, _holds.parse_nonce, _holds.take_nonce, _holds.parse_take_nonce
reveal_hold, parse_reveal_hold = _holds.reveal_hold, _holds.parse_reveal_hold
read_limits, parse_read_limits = _holds.read_limits, _holds.parse_read_limits
COOLING = _holds.COOLING
untold_hold, parse_untold_hold = _telling.untold_hold, _telling.parse_untold_hold
told_hold, parse_told_hold = _telling.told_hold, _telling.parse_told_hold
change_key, parse_change_key = _account_keys.change_key, _account_keys.parse_change_key
count_denial, parse_count_denial = _denials.count_denial, _denials.parse_count_denial
keep, parse_keep, kept, parse_kept = _kept.keep, _kept.parse_keep, _kept.kept, _kept.parse_kept
raise_marks, parse_raise_marks, MAX_MARKS = _marks.raise_marks, _marks.parse_raise_marks, _marks.MAX_MARKS

_MINT_KINDS, _BURN_KINDS = map(get_args, (_records.MintKind, _records.BurnKind))
_OUTCOMES, _ACTING = get_args(Outcome), get_args(Acting)
_CALL_STATUS: dict[bytes, _records.CallStatus] = {b"minted": "minted", b"redeemed": "redeemed"}
MAX_LIMITS = 64  # in one mint


def _run_key(tenant: str, run: str) -> str:
    return f"{prefix(tenant)}run:{checked_id('run', run)}"


def _calls_key(tenant: str, run: str) -> str:
    return f"{prefix(tenant)}calls:{checked_id('run', run)}"


def _history_key(tenant: str) -> str:
    return f"{prefix(tenant)}history"


def _one_word(op: Op, raw: Any, known: tuple[str, ...]) -> Any:
    return word(op, reply(op, raw, 1)[0], known)


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
) -> Op:
    """Write a new run that expires after `ttl_ms` milliseconds. An existing id is never overwritten.

    Args:
        tenant: tenant of the run.
        run: its id.
        header: its frozen part.
        turn: the user's first words.
        ttl_ms: its life.
        whose: who opened it, any text; their runs of the last hour are counted (up to a minute longer).
        most: how many they may be.
        keeps: whether the store keeps what it acknowledges: then any gate mints acts in this run, and otherwise
        acts: `any` gate, as long as the store's lineage is the same; the `opener`, which remembers what it minted; or `nobody`.
    """
    opened = f"{prefix(tenant)}runs:{hashlib.sha256(checked_text('whose', whose)).hexdigest()}"
    args: tuple[Arg, ...] = (checked_bytes("header", header), checked_text("turn", turn), checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS))
    args = (*args, checked_number("most", most, 1, MAX_AMOUNT), keeps, acts)
    return Op("open_run", (_run_key(tenant, run), opened), args, confirm=True)


def parse_open_run(op: Op, raw: Any) -> Literal["ok", "exists", "too_many"]:
    """`ok`, or why nothing was written: the id is taken, or as many runs were opened as may be."""
    return _one_word(op, raw, ("ok", "exists", "too_many"))  # type: ignore[no-any-return]  # a member of that type


def renew_run(tenant: str, run: str, header: bytes, revision: str) -> Op:
    """Write another header into an open run that is still as it was read (`revision`)."""
    return Op("renew_run", (_run_key(tenant, run),), (checked_bytes("header", header), checked_id("revision", revision)), confirm=True)


def parse_renew_run(op: Op, raw: Any) -> Literal["ok", "missing", "closed", "stale"]:
    """`ok`, or why nothing was written."""
    return _one_word(op, raw, ("ok", "missing", "closed", "stale"))  # type: ignore[no-any-return]  # as above


def add_turn(tenant: str, run: str, text: str, *, takes_back: bool) -> Op:
    """Append a user's turn; the run does not expire later for it. `takes_back`: what was minted or held before and did not run is void."""
    args = (checked_text("turn", text), "1" if takes_back else "0")
    return Op("add_turn", (_run_key(tenant, run), _calls_key(tenant, run)), args, confirm=True)


def close_run(tenant: str, run: str) -> Op:
    """End a run, and void what was minted or held in it and did not run; closing a closed one changes nothing and returns `closed`."""
    return Op("close_run", (_run_key(tenant, run), _calls_key(tenant, run)), confirm=True)


def parse_run_change(op: Op, raw: Any) -> Literal["ok", "missing", "closed"]:
    """Reply of `add_turn` and `close_run`."""
    return _one_word(op, raw, ("ok", "missing", "closed"))  # type: ignore[no-any-return]  # as above


def read_run(tenant: str, run: str, known: str = "") -> Op:
    """Read a run and its call records as one snapshot.

    Args:
        tenant: tenant of the run.
        run: id of the run.
        known: the revision up to which the reader has the calls; the store then returns only calls that changed since, if it can tell.
    """
    return Op("read_run", (_run_key(tenant, run), _calls_key(tenant, run)), (checked_id("revision", known) if known else "",))


@parser
def parse_read_run(op: Op, raw: Any) -> RunRecord | None:
    """The run, or None when there is none."""
    gen, run_flat, calls_flat, extent, acts = reply(op, raw, 5)
    lineage, since = lineage_of(op, gen), word(op, extent, ("all", "since")) == "since"
    fields = dict(zip(run_flat[::2], run_flat[1::2], strict=True))
    if not fields:
        return None
    kept = dict(zip(calls_flat[::2], calls_flat[1::2], strict=True))
    turns = tuple(fields[b"turn:%d" % n].decode() for n in range(1, int(fields[b"turns"]) + 1))
    revision = f"{int(fields[b'rev'])}.{int(kept.get(b'rev', b'0'))}.{lineage}"
    calls = tuple(_call(kept, name[:-5]) for name in kept if name.endswith(b":head"))
    spent, who = fields.get(b"closed") == b"denials", word(op, acts, _ACTING)
    return RunRecord(fields[b"header"], turns, revision, b"closed" in fields, calls, lineage, since, spent, who)


def _call(kept: dict[bytes, bytes], digest: bytes) -> CallRecord:
    status = _CALL_STATUS[kept[digest + b":status"]]
    at = int(kept[digest + b":at"]) / 1000 if status == "redeemed" else None
    outcome = kept.get(digest + b":outcome", b"").decode()
    gen = kept[digest + b":mint"].decode().split(" ")[0]
    return CallRecord(digest.decode(), kept[digest + b":head"], status, at, kept.get(digest + b":facts"), outcome, gen)


# Calls. Each script first checks everything, then writes everything. A token is valid only in the lineage it was minted in.


def mint(request: MintRequest) -> Op:
    """Reserve limits, spend a release, record the call and write its token's single-use key: all of it or nothing."""
    start = prefix(request.tenant)
    run, jti = checked_id("run", request.run), checked_id("jti", request.jti)
    approvers = () if request.hold is None else request.hold.approvers
    stopping = _revocations.revocations_of(start, run, jti, request.subjects) + _revocations.people(start, approvers)
    if len(request.limits) > MAX_LIMITS or len({take.key for take in request.limits}) != len(request.limits):
        raise NameRefused("limits", f"{len(request.limits)} limits", f"at most {MAX_LIMITS}, each key once")
    keys = [f"{start}jti:{jti}", f"{start}run:{run}", f"{start}calls:{run}", _history_key(request.tenant), *stopping]
    args: list[Arg] = [
        checked_digest("call_digest", request.call_digest),
        checked_bytes("head", request.head),
        checked_digest("binding", request.binding),
        checked_number("ttl_ms", request.ttl_ms, 1, MAX_TTL_MS),
        checked_id("revision", request.revision),
        jti,
        run,
        1 if request.read is True else 0,
        start,
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
    return Op("mint", tuple(keys), tuple(args), confirm=True)


def _issued(told: str | None) -> str:
    """No id of a token begins like this."""
    return "" if told is None else f"!{checked_history(told)}"


@parser
def parse_mint(op: Op, raw: Any) -> MintReply:
    """The mint script's answer."""
    kind, lineage, detail, history = reply(op, raw, 4)
    return MintReply(word(op, kind, _MINT_KINDS), lineage_of(op, lineage), detail.decode(), history_of(op, history))


def burn(request: BurnRequest) -> Op:
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
        "" if request.brokers is None else canonical(list(request.brokers)),
        *_revocations.revocations_of(start, run, jti, request.subjects),
    )
    return Op("burn", (f"{start}jti:{jti}", f"{start}calls:{run}", _history_key(request.tenant)), args, confirm=True)


def _attempt(name: str) -> str:
    return checked_id("attempt", name) if name else ""


def parse_burn(op: Op, raw: Any) -> BurnReply:
    """The burn script's answer."""
    kind, head, history = reply(op, raw, 3)
    return BurnReply(word(op, kind, _BURN_KINDS), head, history_of(op, history))


def live(request: BurnRequest) -> Op:
    """Ask whether a burn would take this token, and change nothing."""
    burned = burn(request)
    return Op("live", burned.keys[:2], (*burned.args[:4], *burned.args[7:]))


def parse_live(op: Op, raw: Any) -> Literal["live", "revoked", "lineage", "used"]:
    """`live`, or why not."""
    return _one_word(op, raw, ("live", "revoked", "lineage", "used"))  # type: ignore[no-any-return]  # a member of that type


def record_result(tenant: str, run: str, call_digest: str, facts: bytes) -> Op:
    """Record the declared facts of a redeemed call, once."""
    return Op("record_result", (_calls_key(tenant, run),), (checked_digest("call_digest", call_digest), checked_bytes("facts", facts)))


def record_outcome(tenant: str, run: str, call_digest: str, outcome: Outcome, jti: str, *, attempt: str = "") -> Op:
    """Record how the redemption by a token ended, once; only `unknown` may later become another. `attempt`: only if it was this one.

    `failed` says that nothing happened, or that a read failed; `not_run` that the tool was never started.
    """
    if outcome not in _OUTCOMES:
        raise NameRefused("outcome", outcome, ", ".join(_OUTCOMES))
    args = (checked_digest("call_digest", call_digest), outcome, checked_id("jti", jti), _attempt(attempt))
    return Op("record_outcome", (_calls_key(tenant, run),), args)


def parse_record(op: Op, raw: Any) -> Literal["ok", "not_redeemed", "already_recorded"]:
    """Reply of `record_result` and `record_outcome`. Facts of a call that failed are `already_recorded`: its record is closed."""
    return _one_word(op, raw, ("ok", "not_redeemed", "already_recorded"))  # type: ignore[no-any-return]  # as above
