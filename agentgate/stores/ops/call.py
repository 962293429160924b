"""Calls in the store: minted, burned, reported.

Each script first checks everything, then writes everything. A token is valid only in the
lineage it was minted in.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

from agentgate.errors import NameRefused
from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Arg,
    BurnKind,
    BurnReply,
    BurnRequest,
    LimitTake,
    Meanwhile,
    Memory,
    MintKind,
    MintReply,
    MintRequest,
    Op,
    Outcome,
    OutcomeReply,
    Recorded,
    burns_key,
    checked_bytes,
    checked_digest,
    checked_history,
    checked_id,
    checked_lineage,
    checked_number,
    checked_revision,
    checked_subject,
    history_of,
    lineage_of,
    one_of,
    people,
    prefix,
    revocations_of,
    server_id,
)
from agentgate.stores.ops.memory import memory_key
from agentgate.values.canonical import canonical

Living = Literal["live", "revoked", "lineage", "used"]
# Made once: to hash a Literal costs as much as to read the rest of a reply.
_mint_kind = one_of(MintKind)
_burn_kind = one_of(BurnKind)
_living = one_of(Living)
_recorded = one_of(Recorded)
_OUTCOMES = get_args(Outcome)
MAX_LIMITS = 64  # in one mint


@lru_cache(maxsize=4096)
def _server_keys(tenant: str, run: str, audience: str) -> tuple[str, str, str]:
    """What the server of a run's calls writes: the start of its tokens' single-use keys, its
    records of the run, its history.
    """
    start = prefix(tenant)
    server = server_id(audience) if audience else ""
    token = f"{start}token:{server}:" if audience else f"{start}jti:"
    return (
        token,
        burns_key(tenant, run, audience),
        f"{start}history:{server}" if audience else f"{start}history",
    )


def mint(request: MintRequest, meanwhile: Meanwhile = None) -> Op[MintReply]:
    """Reserve limits, spend a release, record the call and write its token's single-use key, or
    redeem it: all of it or nothing. `meanwhile`: as of `Op`.
    """
    start = prefix(request.tenant)
    run = checked_id("run", request.run)
    jti = checked_id("jti", request.jti)
    approvers = () if request.hold is None else request.hold.approvers
    stopping = revocations_of(start, run, jti, request.subjects) + people(start, approvers)
    if len(request.limits) > MAX_LIMITS or len({take.key for take in request.limits}) != len(
        request.limits
    ):
        raise NameRefused(
            "limits", f"{len(request.limits)} limits", f"at most {MAX_LIMITS}, each key once"
        )
    token, burns, redemptions = _server_keys(request.tenant, run, request.audience)
    keys = [
        f"{token}{jti}",
        f"{start}run:{run}",
        burns,
        redemptions,
        f"{start}history",
        *stopping,
    ]
    # no id of a token begins like this
    issued = "" if request.issued is None else f"!{checked_history(request.issued)}"
    args: list[Arg] = [
        checked_digest("call_digest", request.call_digest),
        checked_bytes("head", request.head),
        checked_digest("binding", request.binding) if not request.attempt else "",
        checked_number("ttl_ms", request.ttl_ms, 1, MAX_TTL_MS),
        checked_revision("revision", request.revision),
        jti,
        run,
        1 if request.read is True else 0,
        checked_history(request.redemptions),
        len(stopping),
        len(request.limits),
        "" if request.hold is None else checked_id("hold revision", request.hold.revision),
        ""
        if request.same_key is None
        else checked_subject("key thumbprint", request.same_key[1]),
        checked_history(request.history),
        checked_id("unspent", request.unspent) if request.unspent else issued,
        _attempt(request.attempt),
    ]
    if request.hold is not None:
        keys.append(f"{start}hold:{checked_id('hold', request.hold.hold_id)}")
    if request.same_key is not None:
        keys.append(f"{start}lastkey:{checked_subject('account', request.same_key[0])}")
    if request.memory is not None:
        keys.append(memory_key(request.tenant, request.memory.user))
    for take in request.limits:
        taken_keys, taken_args = _take_limit(start, take)
        keys += taken_keys
        args += taken_args
    args += ["" if request.memory is None else _remembered(request.memory), request.fence or ""]
    return Op("mint", _minted, tuple(keys), tuple(args), confirm=True, meanwhile=meanwhile)


def _take_limit(start: str, take: LimitTake) -> tuple[list[str], list[Arg]]:
    """What a limit adds to a mint's keys and arguments."""
    name = checked_subject("limit", take.key)
    in_run = take.for_run is True and take.every_ms == 0
    args: list[Arg] = [
        checked_number("limit amount", take.amount, 0, MAX_AMOUNT // 2),
        checked_number("limit maximum", take.maximum, 0, MAX_AMOUNT // 2),
        checked_number("limit every_ms", take.every_ms, 0, MAX_TTL_MS),
        name if in_run else "",
    ]
    return [] if in_run else [f"{start}limit:{name}", f"{start}times:{name}"], args


def without_calls(revision: str) -> str:
    """The revision of a run whose calls do not matter to a mint: it may be stale in nothing
    else.
    """
    rev, _, lineage = revision.split(".")
    return f"{rev}.-.{lineage}"


def _remembered(memory: Memory) -> bytes:
    place = checked_digest("place", memory.place)
    rests_on = memory.rests_on and checked_digest("rests_on", memory.rests_on)
    return canonical(
        [
            place,
            rests_on,
            checked_number("span", memory.span_ms, 0, MAX_TTL_MS),
            memory.body.decode(),
        ]
    )


def _minted(  # noqa: PLR0917 - a reply of nine values
    kind: Any,
    lineage: Any,
    detail: bytes,
    history: Any,
    redemptions: Any,
    head: bytes,
    counted: bytes,
    revision: bytes,
    at: bytes,
) -> MintReply:
    return MintReply(
        kind=_mint_kind(kind),
        lineage=lineage_of(lineage),
        detail=detail.decode(),
        history=history_of(history),
        redemptions=history_of(redemptions),
        head=head,
        counted=counted == b"1",
        revision=revision.decode(),
        redeemed_at=int(at or 0) / 1000,
    )


def burn(request: BurnRequest, meanwhile: Meanwhile = None) -> Op[BurnReply]:
    """Spend a token once: check revocations, lineage, history, single-use key and binding, then
    mark the call redeemed. `meanwhile`: as of `Op`.
    """
    start = prefix(request.tenant)
    run = checked_id("run", request.run)
    jti = checked_id("jti", request.jti)
    args = (
        checked_digest("call_digest", request.call_digest),
        checked_lineage("gen", request.gen),
        checked_digest("binding", request.binding),
        jti,
        checked_history(request.history),
        _attempt(request.attempt),
        "" if request.brokers is None else _names(request.brokers),
        *revocations_of(start, run, jti, request.subjects),
    )
    token, *more = _server_keys(request.tenant, run, request.audience)
    burned = (f"{token}{jti}", *more)
    return Op("burn", _burned, burned, args, confirm=True, meanwhile=meanwhile)


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


def record_result(
    tenant: str, run: str, call_digest: str, facts: bytes, *, audience: str
) -> Op[Recorded]:
    """Record the declared facts of a redeemed call, once; of one that failed they are
    `already_recorded`: its record is closed.
    """
    args = (checked_digest("call_digest", call_digest), checked_bytes("facts", facts))
    return Op("record_result", _recorded, (burns_key(tenant, run, audience),), args)


def record_outcome(
    tenant: str,
    run: str,
    call_digest: str,
    outcome: Outcome,
    jti: str,
    *,
    audience: str,
    attempt: str = "",
    facts: bytes = b"",
    tell: bool = False,
) -> Op[OutcomeReply]:
    """Record how the redemption by a token ended, once; only `unknown` may later become
    another. `attempt`: only if it was this one.

    With it go the `facts` of a call that has none yet, as canonical JSON; empty: it has none to
    record. `tell`: a gate wants to know the run's revision; no tool server may read that.
    `failed` says that nothing happened, or that a read failed; `not_run` that the tool was
    never started.
    """
    if outcome not in _OUTCOMES:
        raise NameRefused("outcome", outcome, ", ".join(_OUTCOMES))
    args = (
        checked_digest("call_digest", call_digest),
        outcome,
        checked_id("jti", jti),
        _attempt(attempt),
        checked_bytes("facts", facts),
    )
    keys = (
        burns_key(tenant, run, audience),
        *((f"{prefix(tenant)}run:{run}",) if tell else ()),
    )
    return Op(
        "record_outcome",
        lambda kind, *rest: OutcomeReply(_recorded(kind), *map(bytes.decode, rest)),
        keys,
        args,
    )
