"""Holds in the store. Their states, and what follows them, are a table of
`agentgate.decision.hold`; the scripts follow it.

A hold is the hash ``hold:{id}``, listed in the sorted set ``holds:all`` until it is forgotten.
Beside state, body and revision it keeps the key under which the call's server records it, the
deadline, the sensitive values that `reveal_hold` reads, and the nonces with which it may be
answered. ``cool:{run}:{act}`` is there while an act that a person refused is not asked again.

Whoever looks for holds finds them in lists: ``holds:run:``, ``holds:from:`` (who asked for it),
``holds:group:`` and ``holds:user:`` (whom it asks), each followed by a digest. In a list, what
waits is apart from what ended, so that nothing has to be read to find what waits but that, and
nobody's holds stand in the way of anybody else's. The scripts that open, answer and cancel a
hold keep its lists; its deadline needs none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from agentgate.errors import NameRefused
from agentgate.stores._op import (
    MAX_AMOUNT,
    MAX_TTL_MS,
    Arg,
    HoldList,
    HoldRecord,
    HoldState,
    LimitTake,
    Op,
    burns_key,
    checked_bytes,
    checked_digest,
    checked_id,
    checked_number,
    checked_subject,
    checked_text,
    one_of,
    people,
    prefix,
)
from agentgate.stores.ops.revocation import is_yes
from agentgate.values.value_class import Names

# holds that one script answers of those that wait; of others ten times as many are looked at
PAGE = 50

Listed = Literal["run", "from", "group", "user"]
Asks = tuple[Literal["group", "user"], str]  # whom a hold asks
Answered = Literal["ok", "missing", "stale", "final", "nonce"]
Offered = Literal["ok", "missing", "final"]
Taken = Literal["ok", "nonce"]
_state, _answered, _offered, _nonce = map(one_of, (HoldState, Answered, Offered, Taken))
# the `call` of what `open_hold` answers while a refused act is not asked again
COOLING = "cooling"


def _key(tenant: str, hold_id: str) -> str:
    return f"{prefix(tenant)}hold:{checked_id('hold', hold_id)}"


def _list(tenant: str, kind: Listed, name: str) -> str:
    """The key of a list; any text names one, and none another's."""
    return (
        f"{prefix(tenant)}holds:{kind}:{hashlib.sha256(checked_text('list', name)).hexdigest()}"
    )


def hold_record(
    state: bytes, body: bytes, revision: bytes, call: bytes, place: bytes = b""
) -> HoldRecord:
    """A hold as a script answers it."""
    return HoldRecord(
        _state(state), body, str(int(revision)), call.decode(), place=place.decode()
    )


def open_hold(
    tenant: str,
    run: str,
    hold_id: str,
    body: bytes,
    *,
    audience: str,
    act: str,
    call: str = "",
    ttl_ms: int,
    answer_ms: int,
    most: int,
    whose: str,
    most_own: int,
    asks: Iterable[Asks],
    sensitive: bytes = b"{}",
    despite: bytes = b"",
) -> Op[HoldRecord | None]:
    """Write a new hold of a run in state `pending`: to be answered within `answer_ms`
    milliseconds, forgotten after `ttl_ms`.

    `audience` is that of the held call, as in its mint. An existing one is left as it is and
    returned, unless the user took back what it was for (`cancelled`). `call` is the runtime's
    id of the held call (`waiting_call`), `act` the digest of tool and arguments: where a person
    refused the act in this run less than its `answer_ms` ago, the answer is `COOLING` with what
    `answer_hold` noted of it as body, unless the caller opens it `despite` just that. There is
    no new hold (None) where `most` of the run are pending, `most_own` of `whose` (any text), or
    5,000 that ask the same group or person: `asks`. The run is there for as long as its holds.
    """
    start = prefix(tenant)
    burns = burns_key(tenant, run, audience)
    keys = (
        _key(tenant, hold_id),
        f"{start}holds:all",
        burns,
        f"{start}cool:{run}:{checked_digest('act', act)}",
        f"{start}open:{run}",
        f"{start}holds:since",
        f"{start}run:{run}",
        f"{start}clock:{run}",
        f"{start}reserved:{run}",
        burns.replace(":burns:", ":mints:", 1),
        _list(tenant, "run", run),
        _list(tenant, "from", whose),
        *sorted({_list(tenant, kind, name) for kind, name in asks}),
    )
    args = (
        checked_bytes("hold body", body),
        checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS),
        checked_number("answer_ms", answer_ms, 1, MAX_TTL_MS),
        hold_id,
        checked_bytes("sensitive", sensitive),
        f"{start}hold:",
        checked_number("most", most, 1, MAX_AMOUNT),
        checked_number("most_own", most_own, 1, MAX_AMOUNT),
        checked_bytes("despite", despite),
        checked_text("call", call),
    )
    return Op("open_hold", _opened, keys, args, confirm=True)


def _opened(state: bytes, body: bytes, revision: bytes, call: bytes) -> HoldRecord | None:
    if state == b"too_many":
        return None
    return (
        HoldRecord("refused", body, "0", COOLING)
        if state == b"cooling"
        else hold_record(state, body, revision, call)
    )


def waiting_call(tenant: str, run: str, act: str) -> Op[str]:
    """The runtime's id of the call under which an act of a run waits for a person, or was
    released; empty: it does not wait.
    """
    args = (checked_digest("act", act), f"{prefix(tenant)}hold:")
    return Op(
        "waiting_call",
        lambda call: call.decode(),
        (f"{prefix(tenant)}run:{checked_id('run', run)}",),
        args,
    )


def read_hold(tenant: str, hold_id: str) -> Op[HoldRecord | None]:
    """Read one hold; None: missing or forgotten."""
    return Op(
        "read_hold",
        lambda state, *rest: None if state == b"missing" else hold_record(state, *rest),
        (_key(tenant, hold_id),),
    )


def answer_hold(
    tenant: str,
    hold_id: str,
    expected_revision: str,
    body: bytes,
    state: HoldState,
    *,
    nonce: str = "",
    event: bytes = b"",
    user: str = "",
    note: bytes = b"1",
) -> Op[Answered]:
    """Replace body and state if the revision is still the expected one (`pending`: more
    approvers are needed).

    A released hold takes only `refused`. A signed answer uses up its `nonce`. `event`: for
    `agentgate.stores.ops.notification`; empty: nothing. `user`: who answers, and finds it
    afterwards. `note`: what `open_hold` tells of a refusal. Answers `ok`; `stale`: another
    answer came first; `final`: answered, expired, spent or cancelled already; `nonce`: see
    `take_nonce`.
    """
    if state not in ("pending", "released", "refused"):
        raise NameRefused("hold state", state, "pending, released or refused")
    keys = (_key(tenant, hold_id), *[_list(tenant, "user", user)] * bool(user))
    args = (
        checked_id("hold revision", expected_revision),
        checked_bytes("hold body", body),
        state,
        checked_id("nonce", nonce) if nonce else "",
        checked_bytes("event", event),
        hold_id,
        checked_bytes("note", note),
    )
    return Op("answer_hold", _answered, keys, args, confirm=True)


def nonce_hold(tenant: str, hold_id: str, nonce: str, life_ms: int) -> Op[Offered]:
    """Let a pending or released hold be answered with one more nonce for a while; at most 64
    live at a time.

    Answers `ok`; `missing`, `final`: there is nothing to answer.
    """
    args = (checked_id("nonce", nonce), checked_number("life_ms", life_ms, 1, MAX_TTL_MS))
    return Op("nonce_hold", _offered, (_key(tenant, hold_id),), args, confirm=True)


def take_nonce(
    tenant: str, hold_id: str, nonce: str, *, take: bool, user: str, opened_ms: int
) -> Op[tuple[Taken, bool]]:
    """Whether a hold may be answered with this nonce now, and whether a person is revoked for
    what was opened then (POSIX milliseconds).

    With `take` the nonce is used up. Answers `ok`, or `nonce`: unknown, used or too old.
    """
    keys = (_key(tenant, hold_id), *people(prefix(tenant), (user,)))
    args = (
        checked_id("nonce", nonce),
        "1" if take else "0",
        checked_number("opened_ms", opened_ms, 0, MAX_AMOUNT),
    )
    return Op(
        "take_nonce",
        lambda taken, gone: (_nonce(taken), is_yes(gone)),
        keys,
        args,
        confirm=take,
    )


def reveal_hold(tenant: str, hold_id: str) -> Op[bytes]:
    """The sensitive values of a pending or released hold, as JSON; empty where it is over, or
    of an earlier version.
    """
    return Op(
        "reveal_hold",
        lambda found: found if type(found) is bytes else b"",
        (_key(tenant, hold_id),),
    )


def read_limits(tenant: str, run: str, limits: tuple[LimitTake, ...]) -> Op[tuple[int, ...]]:
    """What is taken of each limit now, for a person to see; of a sum in units of 10^-4."""
    start = prefix(tenant)
    own = [take.for_run is True and take.every_ms == 0 for take in limits]
    names = [checked_subject("limit", take.key) for take in limits]
    beyond = [
        f"{start}limit:{name}" for name, in_run in zip(names, own, strict=True) if not in_run
    ]
    args = [name if in_run else "" for name, in_run in zip(names, own, strict=True)]
    return Op(
        "read_limits",
        lambda totals: tuple(map(int, totals)),
        (f"{start}run:{checked_id('run', run)}", *beyond),
        tuple(args),
    )


def list_holds(
    tenant: str, run: str = "", after: str = "", page: int = 10 * PAGE
) -> Op[HoldList]:
    """A page of a tenant's holds, or of one run's, that the store still keeps, in any state (of
    each run, the last thousand that ended).
    """
    key = _list(tenant, "run", run) if run else f"{prefix(tenant)}holds:all"
    return _page(
        tenant, "any", (key,), after=after, most=checked_number("page", page, 1, 10 * PAGE)
    )


def count_holds(tenant: str) -> Op[tuple[int, float]]:
    """How many of a tenant's newest 10,000 holds wait, and since when the oldest of them does
    (POSIX seconds; 0: none).
    """
    start = prefix(tenant)
    return Op(
        "count_holds",
        lambda open_, oldest: (int(open_), int(oldest) / 1000),
        (f"{start}holds:all",),
        (f"{start}hold:", 10_000),
    )


def old_holds(tenant: str, run: str = "", after: str = "") -> Op[HoldList]:
    """A page of those in no list, as earlier versions opened them; none from two weeks after
    the first in a list: none is kept longer.
    """
    start = prefix(tenant)
    whose = checked_id("run", run) if run else ""
    return _page(
        tenant,
        "old",
        (f"{start}holds:all", f"{start}holds:since"),
        after=after,
        most=10 * PAGE,
        run=whose,
    )


def waiting_holds(
    tenant: str, whose: str, groups: Iterable[str], user: str, after: str = ""
) -> Op[HoldList]:
    """A page of those that wait for one of these groups or for this user, the earliest deadline
    first.

    Those that `whose` (as of `open_hold`) asked for are left out, unless they ask this user.
    """
    keys = (_list(tenant, "from", whose), *_lists_of(tenant, groups, user))
    return _page(tenant, "waiting", keys, after=after, most=PAGE)


def ended_holds(tenant: str, groups: Iterable[str], user: str) -> Op[HoldList]:
    """Those that ended last of what asked these groups or this user, or that this user
    answered.
    """
    return _page(tenant, "ended", _lists_of(tenant, groups, user), most=2 * PAGE)


def _lists_of(tenant: str, groups: Iterable[str], user: str) -> Names:
    """The lists of what asks these groups, and this user."""
    lists = {_list(tenant, "group", name) for name in groups}
    return *sorted(lists), _list(tenant, "user", user)


def _page(
    tenant: str, part: str, keys: Names, *, after: str = "", most: int, run: str = ""
) -> Op[HoldList]:
    at, _, hold_id = after.partition(".")
    place: tuple[Arg, Arg] = ("0", "")
    if after:
        number = int(at) if at.isascii() and at.isdecimal() and len(at) < 17 else -1
        place = checked_number("place", number, 0, MAX_AMOUNT), checked_id("place", hold_id)
    return Op(
        "list_holds",
        lambda records, more, total, before: HoldList(
            tuple(hold_record(*record) for record in records),
            more.decode(),
            int(total),
            int(before),
        ),
        keys,
        (f"{prefix(tenant)}hold:", part, *place, most, run),
    )
