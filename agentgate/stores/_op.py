"""One store operation as a value: script, keys and arguments, and how its reply is read; what
operations take and return; and what this process last saw of each tenant's history, so that it
notices when a store has lost a part of it.

Rules: every key is ``ag:{<tenant>}:kind:id``, so that one cluster slot holds all keys of a
tenant; a tenant name, id or digest of the wrong form is refused before anything is sent (braces
in a tenant name would move the slot); every script returns its first key, and a reply that does
not start with that key belongs to another operation. A history is the text "epoch count" that a
script returns; it is sent back with the next mint or burn, and the script compares
(``scripts/_common.lua``). What a store says after it was found to follow what was remembered
replaces that; a lower count that crosses it on the way does not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

from agentgate.errors import NameRefused, StoreUnavailable
from agentgate.values.request import person
from agentgate.values.value_class import Names, value_class

Arg = str | bytes | int
Meanwhile = Callable[[], object] | None
R = TypeVar("R")

MAX_VALUE = 1024 * 1024  # bytes of one header, turn, head, hold or facts
MAX_SUBJECT = 512  # characters of a user, agent, workflow or limit name
MAX_AMOUNT = 2**53 - 1  # Lua numbers are doubles
MAX_TTL_MS = 366 * 24 * 3600 * 1000


class Op(NamedTuple, Generic[R]):
    """One script call.

    Attributes:
        script: name of the file in ``stores/scripts``.
        read: makes the value of what follows the key in the reply; raises ValueError and the
            like for anything else.
        keys: store keys, all under one tenant's hash tag; the reply repeats the first, or,
            where there is none, the first argument.
        args: the script's arguments.
        confirm: the write must survive a failover: every configured replica must confirm it
            (WAIT), or the call fails.
        meanwhile: work that a store over a network does before it reads the reply; what it
            raises takes the reply's place.
    """

    script: str
    read: Callable[..., R]
    keys: Names
    args: tuple[Arg, ...] = ()
    confirm: bool = False
    meanwhile: Meanwhile = None

    def parse(self, raw: Any) -> R:
        """What a script's reply says.

        Raises:
            StoreUnavailable: `raw` is not the reply of this operation, has another shape, holds
                an unknown word, or cannot be read.
        """
        first = self.keys[0] if self.keys else str(self.args[0])
        if type(raw) is not list or not raw or raw[0] != first.encode():
            raise StoreUnavailable(
                f"script {self.script}: the store answered something else than this operation's reply"
            )
        try:
            return self.read(*raw[1:])
        except (AttributeError, LookupError, NameRefused, TypeError, ValueError) as error:
            raise StoreUnavailable(
                f"script {self.script}: the reply for {first} is unreadable: {error!r}"
            ) from error


def said(raw: Any) -> Callable[[float], Any]:
    """What reads, by a deadline, a reply that is here already."""
    return lambda _: raw


def _text_of(pattern: str, expected: str) -> Callable[[str, str], str]:
    """A check of (field, value): returns a text of this form, and raises NameRefused on
    anything else.
    """
    matches = re.compile(pattern).fullmatch

    def checked(field: str, value: str) -> str:
        if type(value) is not str or matches(value) is None:
            raise NameRefused(field, value, expected)
        return value

    return checked


_checked_tenant = _text_of(r"[A-Za-z0-9._-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
# made by a gate: run, hold, jti, revision
checked_id = _text_of(r"[A-Za-z0-9._-]{1,128}", "1 to 128 of A-Z a-z 0-9 . _ -")
checked_digest = _text_of(r"[0-9a-f]{64}", "64 lower-case hex characters")  # SHA-256
checked_lineage = _text_of(r"[0-9a-f]{40}", "40 lower-case hex characters")


checked_revision = _text_of(r"[A-Za-z0-9._-]{1,4096}", "a revision as the store told it")


@lru_cache(maxsize=4096)
def server_id(audience: str) -> str:
    """How the keys of a tool server name it: the SHA-256 of its audience, 64 hex characters."""
    return sha256(checked_text("audience", audience)).hexdigest()


def history_name(tenant: str, audience: str) -> str:
    """Under which name a history is remembered: a tenant's, or where there is an audience, of
    its redemptions in that tenant.
    """
    return f"{tenant} {server_id(audience)}" if audience else tenant


def burns_key(tenant: str, run: str, audience: str) -> str:
    """The records that a tool server writes of its calls in a run; of a run from before such
    keys (no audience), all of its calls.
    """
    whose = f"burns:{server_id(audience)}" if audience else "calls"
    return f"{prefix(tenant)}{whose}:{checked_id('run', run)}"


@lru_cache(maxsize=4096)
def prefix(tenant: str) -> str:
    """``ag:{tenant}:``, with which every key of a tenant begins; NameRefused if the name does
    not fit.
    """
    return f"ag:{{{_checked_tenant('tenant', tenant)}}}:"


# marks, client assertions; they end with a digest
_OF_NO_TENANT = ("ag:{_approvals}:", "ag:{service-clients}:")


def spread(keys: Names) -> Names:
    """The same keys in a cluster, where those of no tenant are not all in one slot: the start
    of their digest is in their hash tag.
    """
    if not keys or not keys[0].startswith(_OF_NO_TENANT):
        return keys
    tag = keys[0].rpartition(":")[2][:2]
    return tuple(key.replace("}", f"-{tag}}}", 1) for key in keys)


def checked_subject(field: str, value: str) -> str:
    """A name from outside (user, agent, limit): any text of 1 to 512 characters, or
    NameRefused.
    """
    if type(value) is not str or not 0 < len(value) <= MAX_SUBJECT:
        raise NameRefused(field, ascii(value), f"text of 1 to {MAX_SUBJECT} characters")
    if not value.isascii():
        checked_text(field, value)
    return value


def checked_text(field: str, value: str) -> bytes:
    """The UTF-8 bytes of a text of at most `MAX_VALUE` bytes, or NameRefused (an unpaired
    surrogate has none).
    """
    try:
        return checked_bytes(field, value.encode())
    except (UnicodeEncodeError, AttributeError) as error:
        raise NameRefused(field, ascii(value), "valid Unicode text") from error


def checked_bytes(field: str, value: bytes) -> bytes:
    """A stored value of at most `MAX_VALUE` bytes, or NameRefused."""
    if type(value) is not bytes or len(value) > MAX_VALUE:
        raise NameRefused(
            field,
            f"{type(value).__name__} of length {len(value)}",
            f"at most {MAX_VALUE} bytes",
        )
    return value


def checked_number(field: str, value: int, low: int, high: int) -> int:
    """An exact integer in [low, high], never a bool, or NameRefused."""
    if type(value) is not int or not low <= value <= high:
        raise NameRefused(field, value, f"an integer from {low} to {high}")
    return value


@cache
def one_of(words: Any) -> Callable[[Any], Any]:
    """Reads a reply that is one word of a Literal type."""
    known: Names = get_args(words)

    def read(raw: Any) -> str:
        text = _ascii(raw)
        if text not in known:
            raise ValueError(f"got {text[:40]!r}, expected one of {', '.join(sorted(known))}")
        return text

    return read


def history_of(raw: Any) -> str:
    """The history in a reply, or NameRefused."""
    return checked_history(_ascii(raw))


def lineage_of(raw: Any) -> str:
    """The lineage in a reply: 40 hex characters, or NameRefused."""
    return checked_lineage("lineage", _ascii(raw))


def _ascii(raw: Any) -> str:
    return raw.decode("ascii", "replace") if type(raw) is bytes else ""


history_form = lru_cache(maxsize=1024)(
    re.compile(r"(?:[0-9a-f]{40}\.[0-9]{1,20} [0-9]{1,15})?").fullmatch
)


def checked_history(value: str) -> str:
    """A tenant's history as a store names it ("epoch count"), or empty; else NameRefused."""
    if type(value) is not str or history_form(value) is None:
        raise NameRefused("history", value, "an epoch and a count, or nothing")
    return value


class History:
    """The memory of one gate or verifier, of each history by its name
    (`agentgate.stores.history_name`). Safe to share between threads.

    Attributes:
        lasting: False for a store that ends with its process: what it counted means nothing to
            another, and goes on no record.
    """

    def __init__(self, seen: Mapping[str, str] | None = None, *, lasting: bool = True) -> None:
        """Start from what was seen before: name -> history."""
        self.lasting = lasting
        self._seen = dict(seen or {})
        self._lock = threading.Lock()

    def seen(self, name: str) -> str:
        """What was last seen of it, or empty."""
        return self._seen.get(name, "")

    def tenants(self) -> set[str]:
        """Of whom anything was seen."""
        return {name.partition(" ")[0] for name in self._seen}

    def see(self, name: str, sent: str, got: str) -> None:
        """Take what a script answered (empty: nothing) to `sent`."""
        if not got or got == self._seen.get(name):
            return
        with self._lock:
            known = self._seen.get(name, "")
            if known == sent or split(got)[1] > split(known)[1]:
                self._seen[name] = got

    def note(self, history: str, audience: str = "") -> dict[str, str]:
        """The fields of an audit record by which a later process remembers
        (`agentgate.audit.remembered`).
        """
        if not history or not self.lasting:
            return {}
        return (
            {"redemptions": history, "audience": audience} if audience else {"history": history}
        )


def split(history: str) -> tuple[str, int]:
    """Epoch and count of a history; of an empty one no epoch, and 0."""
    epoch, _, count = history.rpartition(" ")
    return epoch, int(count or 0)


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
    "full",
    "full_of_acts",
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


ALL = "*"  # whom a revocation of a tenant names


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
    approvers: Names = ()


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
            (`agentgate.stores._op`); empty: nothing.
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
    brokers: Names | None = None
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


class CallRecord(NamedTuple):
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
        header: the bytes `open_run` was given; empty: it and the turns are as the reader knew.
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
        full: it stores almost as many calls as a run may; with the last of them none is minted
            any more.
    """

    header: bytes
    turns: Names
    revision: str
    closed: bool
    calls: tuple[CallRecord, ...]
    lineage: str
    since: bool = False
    denials_spent: bool = False
    acts: Acting = "nobody"
    owned: bool = True
    full: bool = False


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


def subject_of(kind: str, name: str) -> str:
    """The name that a revocation of this kind has: of people and agents any spelling names them."""
    checked_subject(kind, name)
    return checked_subject(kind, person(name) or name) if kind in ("user", "agent") else name


@lru_cache(maxsize=4096)
def shared_revocations(start: str, who: Subjects) -> Names:
    """The keys of revocations that may stop more than one run: the same for call after call. A
    new run has no tool.
    """
    named = {"tenant": ALL} | who._asdict()
    return tuple(
        f"{start}revoked:{kind}:{subject_of(kind, name)}"
        for kind, name in named.items()
        if name or kind not in {"user", "tool"}
    )


def revocations_of(start: str, run: str, jti: str, who: Subjects) -> Names:
    """The keys of every revocation that would stop this token; `start` is the tenant's
    prefix.
    """
    return (
        f"{start}revoked:token:{jti}",
        f"{start}revoked:run:{run}",
        *shared_revocations(start, who),
    )


def people(start: str, names: Iterable[str]) -> Names:
    """The keys of every revocation of one of these people."""
    return tuple([f"{start}revoked:user:{subject_of('user', name)}" for name in names])
