"""What store operations take and return, as values."""

from __future__ import annotations

from typing import Literal, NamedTuple

from agentgate.values.value_class import value_class

MintKind = Literal[
    "ok",
    "stale",
    "missing",
    "closed",
    "locked",
    "revoked",
    "limit",
    "already_redeemed",
    "failed",
    "outcome_unknown",
    "hold",
    "key_changed",
]
OpenKind = Literal["ok", "exists", "gone", "too_many", "revoked"]
Acting = Literal["any", "opener", "nobody", "alone", "replicated"]
BurnKind = Literal["ok", "revoked", "lineage", "lost", "upstream", "used", "binding"]
Extent = Literal["all", "since"]
CallStatus = Literal["minted", "redeemed"]
Recorded = Literal["ok", "not_redeemed", "already_recorded"]
Outcome = Literal["done", "failed", "not_run", "unknown"]
HoldState = Literal["pending", "released", "refused", "expired", "spent", "cancelled"]
RevokedKind = Literal["token", "run", "agent", "user", "tool", "workflow", "tenant"]


class Subjects(NamedTuple):
    """What a revocation may name, besides the run, the tenant and the token itself. Mint and
    burn must be given the same.

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
    """What a call takes from one limit.

    Attributes:
        key: the counter's name, unique per rule, owner and currency; at most once in a mint.
        amount: integer; 1 for a count, units of 10^-4 for a sum.
        maximum: the total must not exceed it.
        every_ms: sliding window in milliseconds, which counts in buckets of a sixtieth, each
            until it is wholly outside; 0: no window.
        for_run: it counts this run only and ends with it (`per: run`); without a window it is
            kept beside the run.
    """

    key: str
    amount: int
    maximum: int
    every_ms: int = 0
    for_run: bool = False


class HoldTake(NamedTuple):
    """The release this call spends: the hold, the revision at which the gate read it released,
    and who said yes: none of them revoked.
    """

    hold_id: str
    revision: str
    approvers: tuple[str, ...] = ()


class Memory(NamedTuple):
    """What a mint has to do with what is remembered of its user.

    Attributes:
        user: their id.
        place: of what the call asks, in their memory.
        rests_on: digest of the call that is remembered there, which the decision rests on;
            empty: it rests on none.
        body: JSON that is remembered there for `span_ms` once this call is done, and which the
            mint writes with the release that it spends; empty: nothing. Its `stops` are the
            revocations that end it.
    """

    user: str
    place: str
    rests_on: str = ""
    body: bytes = b""
    span_ms: int = 0


class MintRequest(NamedTuple):
    """All the mint script needs.

    Attributes:
        audience: the tool server's, under which the call is recorded; empty in a run from
            before such records (`RunRecord.owned`).
        revision: the `RunRecord.revision` on which the gate decided, or `without_calls`.
        head: JSON for the call's record, returned by the burn.
        jti: fresh id of the token (at least 128 random bits).
        binding: SHA-256 hex of call digest, audience and sender key.
        ttl_ms: how long the single-use key lives: token lifetime + leeway + 5 s.
        read: the tool only reads, so it may run again.
        limits: every limit that covers the call.
        hold: the release to spend, or None.
        history: what this process last saw of the tenant's history
            (`agentgate.stores.history`); empty: nothing.
        redemptions: the same of the audience's.
        issued: this gate has issued a token of this call before; where the store knows of none,
            it may have been redeemed. The loss that it was told of then (`MintReply.history`),
            or empty; None: it has issued none.
        attempt: the call is redeemed with it, by who mints, under this name of the redemption;
            there is no token, and `binding` is empty. Empty: it is not.
        unspent: jti of this call's last token, where it never left this process and was not
            spent; empty: that is not known.
        fence: of the holder of the run's lock (`lock_run`) who asks; 0: whoever asks holds
            none, and then nobody may.
        same_key: (account, key thumbprint): the account's last token must have been for the
            same key; None: no such condition.
        memory: None: nothing that is remembered matters.
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
    history: str = ""
    unspent: str = ""
    issued: str | None = None
    audience: str = ""
    redemptions: str = ""
    attempt: str = ""
    fence: int = 0
    memory: Memory | None = None


class MintReply(NamedTuple):
    """The mint script's answer.

    Attributes:
        kind: `ok`, or why nothing was reserved, spent or released.
        lineage: the store's lineage; the token's `gen`.
        detail: index of the limit that refused; state of the hold (`missing`, `stale`, or a
            `HoldState`); `denials` where the last one closed the run; `lost` where the store
            has lost what this or another process saw of the tenant; of a mint that spent its
            release `spent`; else empty.
        history: the tenant's history after this mint; empty: none yet, or it is lost. Of a
            refusal that is `lost`, what is: once that is found, it is reconciled.
        redemptions: the audience's history; empty as above.
        head: the head that stands, of a call that was redeemed before; empty: that of the
            request.
        counted: the call was redeemed with it, and its redemption is in the count of
            `redemptions`.
        revision: of a call that was redeemed, the run's from now on: as the gate knew it, with
            this call; empty: it had other calls, too.
        redeemed_at: of a call that was redeemed, POSIX seconds.
    """

    kind: MintKind
    lineage: str
    detail: str = ""
    history: str = ""
    redemptions: str = ""
    head: bytes = b""
    counted: bool = False
    revision: str = ""
    redeemed_at: float = 0.0


class OutcomeReply(NamedTuple):
    """How a report ended. `before` and `after`: the run's revision without its lineage; empty:
    it is gone, or nobody asked.
    """

    kind: Recorded
    before: str = ""
    after: str = ""


class BurnRequest(NamedTuple):
    """All the burn script needs, from the token's verified claims.

    `gen` is the lineage the token was minted in, `audience` as in a mint, `history` what was
    seen of its history. `attempt` names this redemption, for `record_outcome`; empty: nobody
    will. `brokers` are those of whoever redeems: a call that asks for the credential of another
    is not burned; None: it is not told.
    """

    tenant: str
    jti: str
    gen: str
    binding: str
    run: str
    call_digest: str
    subjects: Subjects
    history: str = ""
    attempt: str = ""
    brokers: tuple[str, ...] | None = None
    audience: str = ""


class BurnReply(NamedTuple):
    """`ok` with the record's head, or why the token is refused.

    `used`: spent, expired, deleted or never minted. `lost`: see `MintReply.detail`. `history`
    is the audience's after this burn; empty where the burn does not count (a read that took no
    limit and no release). `head` of `upstream` names the broker that is missing.
    """

    kind: BurnKind
    head: bytes = b""
    history: str = ""


@value_class
class CallRecord:
    """What the store knows of one call of a run.

    Attributes:
        digest: call digest (64 hex).
        head: the JSON the gate wrote at mint.
        status: minted, or redeemed: its server says so, of a token that a gate minted.
        redeemed_at: POSIX seconds, as its server says; None until redeemed.
        facts: what its server recorded of the facts; None until recorded.
        outcome: done, failed, not_run, unknown, or empty until reported.
        gen: lineage of its last mint.
    """

    digest: str
    head: bytes
    status: CallStatus
    redeemed_at: float | None
    facts: bytes | None
    outcome: str
    gen: str


@value_class
class RunRecord:
    """A run as stored.

    Attributes:
        header: the bytes `open_run` was given.
        turns: the user's texts, oldest first.
        revision: opaque; the mint script refuses another. A turn, a closing, a redemption and a
            result each raise it; it differs between lineages of the store.
        calls: in no particular order; all of them, or those `since`.
        lineage: the store's lineage when it was read.
        since: `calls` are only those that were redeemed, or whose facts were recorded, after
            the revision the reader knew.
        denials_spent: it was closed by its last denial.
        acts: who mints acts in it: any gate, only the one that opened it, nobody; or any gate
            as long as the store keeps what it acknowledges (`Store.keeps`), where the server
            stands `alone` or is `replicated`.
        owned: each tool server's records in it have keys of their own; False: it was opened
            before there were such keys.
    """

    header: bytes
    turns: tuple[str, ...]
    revision: str
    closed: bool
    calls: tuple[CallRecord, ...]
    lineage: str
    since: bool = False
    denials_spent: bool = False
    acts: Acting = "nobody"
    owned: bool = True


class OpenReply(NamedTuple):
    """What the open_run script answered.

    Attributes:
        kind: `ok`, or why nothing was written: the id is taken, or was in a conversation that
            is no longer kept (`gone`); or as many runs were opened as may be.
        run: the run as it is then: the new one, or the one that has its id; of `too_many` None.
    """

    kind: OpenKind
    run: RunRecord | None


@value_class
class HoldRecord:
    """A hold as stored.

    Attributes:
        state: as the store's clock and the run's calls say now (`agentgate.decision.hold`).
        body: the gate's JSON, with every answer so far.
        revision: opaque; each answer and the mint that spends it change it; `answer_hold` and
            `HoldTake` name the one they read.
        call: digest of the call that spent the release, or empty.
        place: where it stands in a list; empty: it was read by its id.
    """

    state: HoldState
    body: bytes
    revision: str
    call: str
    place: str = ""


class HoldList(NamedTuple):
    """A page of holds as stored.

    Attributes:
        next: the place after which the next page begins; empty: this is the last.
        total: how many wait in all (of `waiting_holds`).
        before: how many of them come before this page.
    """

    records: tuple[HoldRecord, ...]
    next: str
    total: int = 0
    before: int = 0
