"""Holds and revocations.

A hold is the hash ``ag:{t}:hold:{id}`` (`state`, `body`, `rev`, `call`); a revocation is one key and never undone.

Which state may follow which is `agentgate.decision.hold`'s transition table; the scripts keep the two ends: `refused` and `consumed` are
final, and only a mint consumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentgate.errors import NameRefused, StoreUnavailable
from agentgate.stores._op import MAX_AMOUNT, MAX_TTL_MS, Op, checked_bytes, checked_id, checked_number, checked_subject, prefix, reply, word

HoldState = Literal["waiting", "released", "refused", "consumed"]
RevokedKind = Literal["token", "run", "agent", "user", "tool", "workflow", "tenant"]

_STATES = frozenset({"waiting", "released", "refused", "consumed"})
_ANSWERS = frozenset({"waiting", "released", "refused"})
_KINDS = frozenset({"token", "run", "agent", "user", "tool", "workflow", "tenant"})


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A hold as stored.

    Attributes:
        state: waiting, released, refused or consumed (expired: missing).
        body: the gate's JSON, with every answer so far.
        revision: opaque; changes with each answer and with the consumption; `answer_hold` and `HoldTake` name the one they read.
        call: digest of the call that consumed the release, or empty.
    """

    state: HoldState
    body: bytes
    revision: str
    call: str


def open_hold(tenant: str, hold_id: str, body: bytes, ttl_ms: int) -> Op:
    """Write a new hold in state `waiting` that lives `ttl_ms` milliseconds; one that exists is left as it is and returned."""
    keys = (f"{prefix(tenant)}hold:{checked_id('hold', hold_id)}", f"{prefix(tenant)}holds:all")
    return Op("open_hold", keys, (checked_bytes("hold body", body), checked_number("ttl_ms", ttl_ms, 1, MAX_TTL_MS), hold_id), confirm=True)


def read_hold(tenant: str, hold_id: str) -> Op:
    """Read one hold."""
    return Op("read_hold", (f"{prefix(tenant)}hold:{checked_id('hold', hold_id)}",))


def parse_hold(op: Op, raw: Any) -> HoldRecord | None:
    """Reply of `open_hold` (never None) and `read_hold` (None: missing or expired)."""
    state, body, revision, call = reply(op, raw, 4)
    if state == b"missing":
        return None
    try:
        return HoldRecord(word(op, state, _STATES), body, str(int(revision)), call.decode())  # type: ignore[arg-type]  # a word of the closed set
    except (ValueError, AttributeError) as error:
        raise StoreUnavailable(f"hold {op.keys[0]} is unreadable: {error!r}") from error


def answer_hold(tenant: str, hold_id: str, expected_revision: str, body: bytes, state: HoldState) -> Op:
    """Replace body and state if the revision is still the expected one (`waiting`: more approvers are needed)."""
    if state not in _ANSWERS:
        raise NameRefused("hold state", state, "waiting, released or refused")
    args = (checked_id("hold revision", expected_revision), checked_bytes("hold body", body), state)
    return Op("answer_hold", (f"{prefix(tenant)}hold:{checked_id('hold', hold_id)}",), args, confirm=True)


def parse_answer_hold(op: Op, raw: Any) -> Literal["ok", "missing", "stale", "final"]:
    """`ok`; `stale`: somebody answered in between; `final`: refused or consumed already."""
    return word(op, reply(op, raw, 1)[0], frozenset({"ok", "missing", "stale", "final"}))  # type: ignore[return-value]  # a word of the closed set


def list_holds(tenant: str) -> Op:
    """The ids of a tenant's holds that have not expired, oldest expiry first (at most 1,000)."""
    return Op("list_holds", (f"{prefix(tenant)}holds:all",))


def parse_list_holds(op: Op, raw: Any) -> tuple[str, ...]:
    """Ids of unexpired holds, in any state."""
    return tuple(item.decode() for item in reply(op, raw, 1)[0])


def revoke(tenant: str, kind: RevokedKind, subject: str, *, before_ms: int = 0) -> Op:
    """Refuse a subject's mints and burns from now on. A revocation only ever grows.

    Args:
        tenant: in whose slot; a revocation that spans tenants is written to each.
        kind: what `subject` is.
        subject: jti, run id, agent, user, tool, `workflow_subject`, or ``*`` for the tenant.
        before_ms: 0: everything, for good. Else POSIX milliseconds: only tokens minted up to then.
    """
    if kind not in _KINDS:
        raise NameRefused("revocation kind", kind, ", ".join(sorted(_KINDS)))
    if kind == "tenant" and subject not in ("*", tenant):
        raise NameRefused("subject", subject, "'*' or the tenant itself")
    name = "*" if kind == "tenant" else checked_subject("subject", subject)
    key = f"{prefix(tenant)}revoked:{kind}:{name}"
    return Op("revoke", (key,), (checked_number("before_ms", before_ms, 0, MAX_AMOUNT),), confirm=True)


def parse_revoke(op: Op, raw: Any) -> Literal["ok"]:
    """Always `ok`: the revocation holds from now on."""
    return word(op, reply(op, raw, 1)[0], frozenset({"ok"}))  # type: ignore[return-value]  # a word of the closed set
