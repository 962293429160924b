"""Calls: mint, burn, result, outcome. Each is one script: everything is checked first, then everything is written.

`mint` reserves limits, consumes a release, writes the call's record and the token's single-use key; `burn` takes that key and marks
the record redeemed. Both answer with the lineage of the store or compare it (agentgate's fence: a token is good only in the
history it was minted in).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

from agentgate.errors import NameRefused
from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Arg,
    Op,
    checked_bytes,
    checked_digest,
    checked_id,
    checked_lineage,
    checked_number,
    checked_subject,
    lineage_of,
    prefix,
    reply,
    word,
)

MintKind = Literal["ok", "stale", "missing", "closed", "revoked", "limit", "already_redeemed", "outcome_unknown", "hold", "key_changed"]
BurnKind = Literal["ok", "revoked", "lineage", "used", "binding"]
Outcome = Literal["done", "failed", "unknown"]

MAX_LIMITS = 64
_MINT = frozenset({"ok", "stale", "missing", "closed", "revoked", "limit", "already_redeemed", "outcome_unknown", "hold", "key_changed"})
_BURN = frozenset({"ok", "revoked", "lineage", "used", "binding"})
_OUTCOMES = frozenset({"done", "failed", "unknown"})


class Subjects(NamedTuple):
    """Whom a revocation may name, beside the run, the tenant and the token itself. Mint and burn must be given the same.

    Attributes:
        user: empty for an autonomous workload.
        workflow: `id@version` (see `workflow_subject`).
    """

    agent: str
    user: str
    tool: str
    workflow: str


def workflow_subject(workflow_id: str, version: int) -> str:
    """How a workflow version is named in a revocation: ``id@version``."""
    return f"{workflow_id}@{version}"


class LimitTake(NamedTuple):
    """What one limit takes for a call.

    Attributes:
        key: the counter's name, unique per rule, owner and currency; never twice in one mint.
        amount: integer; 1 for a count, units of 10^-4 for a sum.
        maximum: the total must not exceed it.
        every_ms: exact sliding window in milliseconds; 0: no window.
        for_run: it counts this run only and ends with it (`per: run`); without a window it is kept beside the run.
    """

    key: str
    amount: int
    maximum: int
    every_ms: int = 0
    for_run: bool = False


class HoldTake(NamedTuple):
    """The release this call consumes: the hold, and the revision at which the gate read it released."""

    hold_id: str
    revision: str


class MintRequest(NamedTuple):
    """All the mint script needs.

    Attributes:
        revision: `RunRecord.revision` that was decided on.
        head: JSON for the call's record, returned by the burn.
        jti: fresh id of the token (at least 128 random bits).
        binding: SHA-256 hex over call digest, audience and sender key.
        ttl_ms: how long the single-use key lives: token lifetime + leeway + 5 s.
        read: the tool only reads, so it may be minted again after the lineage changed.
        limits: every limit that covers the call.
        hold: the release to consume, or None.
        same_key: (account, key thumbprint): the account's last token must have been for the same key; None: not asked.
    """

    tenant: str
    run: str
    revision: str
    call_digest: str
    head: bytes
    jti: str
    binding: str
    ttl_ms: int
    read: bool
    subjects: Subjects
    limits: tuple[LimitTake, ...] = ()
    hold: HoldTake | None = None
    same_key: tuple[str, str] | None = None


class MintReply(NamedTuple):
    """What the mint script answered.

    Attributes:
        kind: `ok`, or why nothing was reserved, consumed or released.
        lineage: the store's lineage; the token's `gen`.
        detail: index of the limit that refused, state of the hold (`missing`, `stale`, `waiting`, `refused`, `consumed`), else empty.
    """

    kind: MintKind
    lineage: str
    detail: str = ""


class BurnRequest(NamedTuple):
    """All the burn script needs, from the token's verified claims. `gen` is the lineage the token was minted in."""

    tenant: str
    jti: str
    gen: str
    binding: str
    run: str
    call_digest: str
    subjects: Subjects


class BurnReply(NamedTuple):
    """`ok` with the record's head, or why the token is refused (`used`: spent, expired, deleted or never minted)."""

    kind: BurnKind
    head: bytes = b""


@lru_cache(maxsize=4096)
def _standing(start: str, who: Subjects) -> tuple[str, ...]:
    """The keys of revocations that name more than one run: the same for call after call."""
    keys = (
        f"{start}revoked:tenant:*",
        f"{start}revoked:agent:{checked_subject('agent', who.agent)}",
        f"{start}revoked:tool:{checked_subject('tool', who.tool)}",
        f"{start}revoked:workflow:{checked_subject('workflow', who.workflow)}",
    )
    return (*keys, f"{start}revoked:user:{checked_subject('user', who.user)}") if who.user else keys


def _revocations(start: str, run: str, jti: str, who: Subjects) -> tuple[str, ...]:
    return (f"{start}revoked:token:{jti}", f"{start}revoked:run:{run}", *_standing(start, who))


def mint(request: MintRequest) -> Op:
    """Reserve, consume and record one call, and write its token's single-use key: all of it or nothing.

    Raises:
        NameRefused: a field does not fit its form; nothing was sent.
    """
    start = prefix(request.tenant)
    run, jti = checked_id("run", request.run), checked_id("jti", request.jti)
    checked_number("ttl_ms", request.ttl_ms, 1, MAX_TTL_MS)
    revoked = _revocations(start, run, jti, request.subjects)
    if len(request.limits) > MAX_LIMITS or len({take.key for take in request.limits}) != len(request.limits):
        raise NameRefused("limits", f"{len(request.limits)} limits", f"at most {MAX_LIMITS}, each key once")
    keys = [f"{start}jti:{jti}", f"{start}run:{run}", f"{start}calls:{run}", *revoked]
    args: list[Arg] = [
        checked_digest("call_digest", request.call_digest),
        checked_bytes("head", request.head),
        checked_digest("binding", request.binding),
        request.ttl_ms,
        checked_id("revision", request.revision),
        jti,
        run,
        1 if request.read is True else 0,
        start,
        len(revoked),
        len(request.limits),
        "" if request.hold is None else checked_id("hold revision", request.hold.revision),
        "" if request.same_key is None else checked_subject("key thumbprint", request.same_key[1]),
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


def parse_mint(op: Op, raw: Any) -> MintReply:
    """The mint script's answer; anything unknown is StoreUnavailable."""
    kind, lineage, detail = reply(op, raw, 3)
    return MintReply(word(op, kind, _MINT), lineage_of(op, lineage), detail.decode())  # type: ignore[arg-type]  # a word of the closed set


def burn(request: BurnRequest) -> Op:
    """Spend a token once: revoked, lineage, single-use key, binding, then the call is redeemed.

    Raises:
        NameRefused: a field does not fit its form; nothing was sent.
    """
    start = prefix(request.tenant)
    run, jti = checked_id("run", request.run), checked_id("jti", request.jti)
    keys = (f"{start}jti:{jti}", f"{start}calls:{run}")
    args = (
        checked_digest("call_digest", request.call_digest),
        checked_lineage("gen", request.gen),
        checked_digest("binding", request.binding),
        jti,
        *_revocations(start, run, jti, request.subjects),
    )
    return Op("burn", keys, args)


def parse_burn(op: Op, raw: Any) -> BurnReply:
    """The burn script's answer; a reply that does not echo this token's key is StoreUnavailable."""
    kind, head = reply(op, raw, 2)
    return BurnReply(word(op, kind, _BURN), head)  # type: ignore[arg-type]  # a word of the closed set


def record_result(tenant: str, run: str, call_digest: str, facts: bytes) -> Op:
    """Record the declared facts of a redeemed call, once."""
    key = f"{prefix(tenant)}calls:{checked_id('run', run)}"
    return Op("record_result", (key,), (checked_digest("call_digest", call_digest), checked_bytes("facts", facts)))


def record_outcome(tenant: str, run: str, call_digest: str, outcome: Outcome) -> Op:
    """Record how a redeemed call ended, once; only `unknown` may later become done or failed."""
    if outcome not in _OUTCOMES:
        raise NameRefused("outcome", outcome, "done, failed or unknown")
    key = f"{prefix(tenant)}calls:{checked_id('run', run)}"
    return Op("record_outcome", (key,), (checked_digest("call_digest", call_digest), outcome))


def parse_record(op: Op, raw: Any) -> Literal["ok", "not_redeemed", "already_recorded"]:
    """Reply of `record_result` and `record_outcome`. Facts of a call that failed are `already_recorded`: its record is closed."""
    known = frozenset({"ok", "not_redeemed", "already_recorded"})
    return word(op, reply(op, raw, 1)[0], known)  # type: ignore[return-value]  # a word of the closed set
