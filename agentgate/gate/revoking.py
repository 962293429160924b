"""Revocations: what stops tokens, runs and people at once, in the store, until it ends or is
lifted by its name.

Rules: a revocation or lifting is on record before it is written. It applies where it is
written, from that moment; it is written again until every configured replica confirms it; and
it is in force only once a primary that was cut off before that can write no more
(`Store.heartbeat`). One that spans tenants is written to the slot of each, and counts when it
is in all. A token, a run, or what was opened up to a time is revoked for as long as a run can
live; everything else until it is lifted. What reviewers revoked (`agentgate workflow revoke`)
is listed here and cannot be lifted.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from agentgate.errors import AuditUnavailable, ConfigError, StoreUnavailable, Unconfirmed
from agentgate.gate.conversation import KEPT
from agentgate.gate.core import Core
from agentgate.gate.open_run import MAX_PROVEN_TTL
from agentgate.redemption.steps import burn_request
from agentgate.shell.drive import awaited, blocking
from agentgate.shell.step import Apart, Flow, Record, Sleep, Step, alone, date_event
from agentgate.stores import AsyncStore, Op, Store, ops
from agentgate.stores._op import History
from agentgate.token.mint import CallToken
from agentgate.values.canonical import canonical, parse
from agentgate.values.request import FORM, checked_name, is_name
from agentgate.values.value_class import Json, Names, Values, value_class

# seconds: the longest run, hold and rest of a conversation, and clocks that differ
LIFE = MAX_PROVEN_TTL + 2 * MAX_PROVEN_TTL + KEPT + 120
_BETWEEN = 0.1  # seconds between two tries
_FORM = (
    "kind:subject, of kinds "
    + ", ".join(sorted(ops.REVOKED_KINDS))
    + "; a workflow as id@version"
)
_AHEAD = 5.0  # seconds a time may lie ahead: clocks differ


@value_class
class StoredRevocation:
    """One entry of a tenant's list.

    Attributes:
        name: ``kind:subject``; lifted by it.
        before: POSIX seconds: only runs opened up to then, and their tokens; None: everything.
        signed: reviewers said it with `agentgate workflow revoke`; it cannot be lifted.
        by: who said it.
        reason: why.
        at: POSIX seconds of when.
        until: POSIX seconds at which it ends; None: when it is lifted.
    """

    tenant: str
    name: str
    before: float | None
    signed: bool
    by: str
    reason: str
    at: float
    until: float | None


@value_class
class AppliedRevocation:
    """How far a revocation has got. It is applied in every tenant, else there is an error
    instead.

    Attributes:
        name: ``kind:subject``.
        tenants: where it is applied.
        in_force_at: POSIX seconds from which nothing accepts what is revoked; None: not known,
            for the reasons in `lacking`.
        lacking: what it would take, in words.
        unknown: those of the tenants that nobody here knows: perhaps misspelt.
    """

    name: str
    tenants: Names
    in_force_at: float | None
    lacking: Names = ()
    unknown: Names = ()


@dataclass(slots=True)
class _Order:
    """A checked request to revoke or lift one name in some tenants."""

    name: str
    tenants: Sequence[str]
    by: str
    reason: str
    before_ms: int = 0
    kind: ops.RevokedKind = field(init=False)
    subject: str = field(init=False)

    def __post_init__(self) -> None:
        self.kind, self.subject = _parsed(self.name)
        if isinstance(self.tenants, str) or not self.tenants:
            raise ConfigError(
                "tenants", self.tenants, "a list of tenants (none is not every one)"
            )
        self.tenants = tuple(dict.fromkeys(self.tenants))
        checked_name("by", self.by)
        if not is_name(self.reason):
            raise ConfigError(
                "reason", self.reason, f"why, for those who read it later, in {FORM}"
            )
        self.name = ops.revocation_name(self.tenants[0], self.kind, self.subject)

    @property
    def life(self) -> int:
        """Seconds; 0: until it is lifted."""
        return LIFE if self.kind in {"token", "run"} or self.before_ms else 0

    def record(self, what: str, tenant: str, **more: object) -> Record:
        said = {"name": self.name, "by": self.by, "reason": self.reason}
        return Record(date_event(what, tenant=tenant, **said, **more))

    def said(self) -> Json:
        """What it revokes, as a record holds it."""
        return {"before": self.before_ms / 1000 if self.before_ms else None, "life": self.life}


def _parsed(name: object) -> tuple[ops.RevokedKind, str]:
    """Kind and subject; a subject that nothing can have is refused, since it would stop
    nothing.
    """
    kind, _, subject = name.partition(":") if type(name) is str else ("", "", "")
    known = next((each for each in ops.REVOKED_KINDS if each == kind), None)
    fits = is_name(subject)
    if known == "workflow":
        id_, _, version = subject.rpartition("@")
        fits = bool(
            fits and id_ and version.isascii() and version.isdigit() and version[0] != "0"
        )
    if known is None or not fits:
        raise ConfigError("name", name, _FORM)
    return known, subject


def _ms(before: object, order: _Order) -> int:
    if before is None:
        return 0
    if (
        not isinstance(before, datetime)
        or before.tzinfo is None
        or not 0 < before.timestamp() <= time.time() + _AHEAD
    ):
        raise ConfigError("before", before, "a time with its zone, now or earlier")
    if order.kind in {"token", "run"}:
        raise ConfigError("before", before, f"no time for one {order.kind}")
    return int(before.timestamp() * 1000)


class Revoker(Protocol):
    """Who revokes: a gate, or an operator's command."""

    @property
    def _history(self) -> History: ...

    @property
    def _store(self) -> Store | AsyncStore: ...

    def every_tenant(self) -> Names:
        """All tenants it knows."""


def _revoke(
    self: Revoker,
    name: str,
    *,
    tenants: Sequence[str],
    by: str,
    reason: str,
    before: datetime | None = None,
    patience: float = 5.0,
) -> Generator[Step, Any, AppliedRevocation]:
    """Refuse from now on every mint and token of a token's id, run, agent, user, tool, workflow
    version or tenant.

    Args:
        self: the gate.
        name: ``token:jti``, ``run:id``, ``agent:id``, ``user:id``, ``tool:name``,
            ``workflow:id@version`` or ``tenant:*``. Every spelling of an agent's or user's id
            is meant.
        tenants: where; `every_tenant()` for all that are known.
        by: who revokes, as your host knows them; goes on record, with the reason, before
            anything is written.
        reason: why.
        before: only runs opened up to this time (aware, not in the future), and their tokens;
            None: everything.
        patience: seconds to go on trying where a replica does not confirm it or the store does
            not answer.

    Returns:
        Applied everywhere; and from when it is in force, or what that lacks.

    Raises:
        ConfigError, IdentityRefused, NameRefused, AuditUnavailable: nothing was written.
            StoreUnavailable: it is not known to be applied in every tenant, of which it names
            those.
    """
    order = _Order(name, tenants, by, reason)
    order.before_ms = _ms(before, order)
    unknown = tuple(sorted(set(order.tenants) - set(self.every_tenant())))
    told = canonical({"at": round(time.time(), 3), "by": by, "reason": order.reason})
    # a name that no store can hold is refused before anything is on record
    for tenant in order.tenants:
        _op(order, tenant, told, "")
    for tenant in order.tenants:
        yield Apart(alone(order.record("revocation", tenant, **order.said())))
    open_ = dict.fromkeys(order.tenants, "")
    wrong = dict[str, str]()
    end = time.monotonic() + patience
    while True:
        for tenant in tuple(open_):
            try:
                yield Apart(_applied(self._history, order, tenant, told))
            except Unconfirmed as error:
                open_[tenant] = str(error)
                wrong.pop(tenant, None)
            except StoreUnavailable as error:
                wrong.setdefault(tenant, str(error))
            else:
                del open_[tenant]
                wrong.pop(tenant, None)
        if not open_ or time.monotonic() >= end:
            break
        yield Sleep(_BETWEEN)
    not_applied = [tenant for tenant in open_ if not open_[tenant]]
    if not_applied:
        there = (
            ", ".join(tenant for tenant in order.tenants if tenant not in not_applied)
            or "nowhere"
        )
        lacks = ", ".join(f"{tenant} ({wrong[tenant]})" for tenant in not_applied)
        raise StoreUnavailable(
            f"revocation {order.name}: applied in: {there}; not known to be in: {lacks}. Revoke it again"
        )
    lacking = [f"{tenant}: {why}" for tenant, why in open_.items()]
    heartbeat = self._store.heartbeat
    if heartbeat is None:
        lacking.append(
            "the server does not tell this user min-replicas-max-lag (CONFIG GET), so nobody "
            "knows when a lost primary stops"
        )
    in_force = None if lacking or heartbeat is None else time.time() + heartbeat
    return AppliedRevocation(
        order.name, tuple(order.tenants), in_force, tuple(lacking), unknown=unknown
    )


@value_class
class _RunsOwn:
    """A run that revokes a token of its own."""

    _history: History
    _store: Store | AsyncStore
    tenant: str

    def every_tenant(self) -> Names:
        """The run's."""
        return (self.tenant,)


def void_token(self: Any, token: CallToken) -> Generator[Step, Any, bool]:
    """Revoke a token of this run that its server has not spent: it may have kept it, or passed
    it on.

    Args:
        self: the run.
        token: of one of its calls.

    Returns:
        Whether it was unspent; nobody can spend it any more.

    Raises:
        StoreUnavailable: it is not known to be void. AuditUnavailable.
    """
    claims = token.claims
    if (yield Apart(alone(ops.live(burn_request(claims))))) != "live":
        return False
    run = _RunsOwn(self._view.core.history, self._store, claims.tenant)
    why = "its server answered and had not spent it"
    yield from _revoke(
        run,
        f"token:{claims.jti}",
        tenants=[claims.tenant],
        by="agentgate",
        reason=why,
        patience=1.0,
    )
    return True


def _op(order: _Order, tenant: str, told: bytes, seen: str) -> Op[ops.RevokeReply]:
    return ops.revoke(
        tenant,
        order.kind,
        order.subject,
        before_ms=order.before_ms,
        life_ms=order.life * 1000,
        told=told,
        history=seen,
    )


def _applied(history: History, order: _Order, tenant: str, told: bytes) -> Flow:
    sent = history.seen(tenant)
    got = yield _op(order, tenant, told, sent)
    history.see(tenant, sent, got.history)
    if got.kind == "ok":
        # it is applied; this record is for `agentgate store reconcile`
        with suppress(AuditUnavailable):
            yield order.record(
                "revocation_applied", tenant, **order.said(), **history.note(got.history)
            )


def _lift(
    self: Revoker,  # noqa: ARG001 - a method
    name: str,
    *,
    tenants: Sequence[str],
    by: str,
    reason: str,
) -> Generator[Step, Any, dict[str, str]]:
    """End a revocation. Parameters as of `revoke`; the name is that in the list.

    Returns:
        Tenant -> ``lifted``, ``missing`` (there is none) or ``signed`` (reviewers said it: it
            stands).

    Raises:
        As `revoke`; after StoreUnavailable it may be lifted in some of the tenants.
    """
    order = _Order(name, tenants, by, reason)
    asked = {tenant: ops.lift(tenant, order.kind, order.subject) for tenant in order.tenants}
    for tenant in order.tenants:
        yield Apart(alone(order.record("lifting", tenant)))
    found: dict[str, str] = {}
    for tenant, op in asked.items():
        try:
            found[tenant] = yield Apart(alone(op))
        except StoreUnavailable as error:
            done = ", ".join(found) or "nowhere"
            raise StoreUnavailable(
                f"revocation {order.name}: looked at in: {done}; in {tenant}: {error}. Lift it again"
            ) from error
    return found


def _revocations(
    self: Revoker,  # noqa: ARG001 - a method
    tenant: str,
) -> Generator[Step, Any, tuple[StoredRevocation, ...]]:
    """What is revoked in a tenant, lasting ones first. Raises StoreUnavailable, NameRefused."""
    found: dict[str, StoredRevocation] = {}
    skip = total = 0
    while skip <= total:
        total, page = yield Apart(alone(ops.list_revocations(tenant, skip)))
        skip += len(page)
        now = time.time()
        found |= {each.name: each for each in _told(tenant, page, now)}
        if not page:
            break
    return tuple(found.values())


def _told(
    tenant: str, page: tuple[ops.RevocationRecord, ...], now: float
) -> Iterator[StoredRevocation]:
    for each in page:
        try:
            said: Values = parse(each.told)
            by = str(said["by"])
            reason = str(said["reason"])
            at = float(said["at"])
        except (KeyError, TypeError, ValueError):
            by = "unknown"
            reason = "unreadable"
            at = 0.0
        until = None if each.life_ms is None else round(now + each.life_ms / 1000, 3)
        before = None if each.before_ms is None else each.before_ms / 1000
        yield StoredRevocation(
            tenant=tenant,
            name=each.name,
            before=before,
            signed=each.signed,
            by=by,
            reason=reason,
            at=at,
            until=until,
        )


class Tenants:
    """The tenants that a gate knows."""

    _core: Core

    @property
    def _history(self) -> History:
        return self._core.history

    def every_tenant(self) -> Names:
        """Every tenant that a loaded workflow names, or whose history this gate has seen."""
        named = {tenant for workflow in self._core.catalog for tenant in workflow.tenants}
        return tuple(sorted(named | self._history.tenants()))


class Revoking:
    """The methods of a `Revoker` for blocking code."""

    revoke = blocking(_revoke)
    lift = blocking(_lift)
    revocations = blocking(_revocations)


class AsyncRevoking:
    """`Revoking`, awaited."""

    revoke = awaited(_revoke)
    lift = awaited(_lift)
    revocations = awaited(_revocations)
