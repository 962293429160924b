"""What is to be told of holds, and to whom it was told.

The store is the queue, so no restart loses an event, and no two gates tell one.

Events of a hold are numbered: 0 that it was held, then each answer (``event:N``, written by the
script that writes the answer), at last that it expired or was cancelled. A hook is known by a
digest of what it is; beside each hold stand how much each hook was told (``told:HOOK``) and
until when some gate is telling the next event (``telling:HOOK``).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from agentgate.stores._op import (
    MAX_TTL_MS,
    HoldRecord,
    Op,
    checked_digest,
    checked_id,
    checked_number,
    one_of,
    prefix,
)
from agentgate.stores.ops.hold import hold_record

PAGE = 500  # holds that one script looks at

What = Literal["held", "answered", "expired", "cancelled"]
Nothing = Literal["more", "none"]
Noted = Literal["ok", "missing"]


class Notification(NamedTuple):
    """One event that is to be told.

    Attributes:
        what: what happened.
        hold_id: to which hold.
        number: of the event.
        at: when the hold was opened (ms): another hold of the same id was opened anew.
        event: of an answer, what its writer says of it.
        hold: the hold as it is now.
    """

    what: What
    hold_id: str
    number: int
    at: str
    event: bytes
    hold: HoldRecord


def take_notification(
    tenant: str,
    hook: str,
    lease_ms: int,
    first: int,
    page: int = PAGE,
) -> Op[Notification | Nothing]:
    """Take the next event for a hook; for `lease_ms` nobody else gets it.

    It is one of the `page` holds from place `first` on.

    Answers the event; `more`: none on this page, which is not the last; `none`: none.
    """
    start = prefix(tenant)
    return Op(
        "untold_hold",
        _notification,
        (f"{start}holds:all",),
        (
            f"{start}hold:",
            checked_digest("hook", hook),
            checked_number("lease_ms", lease_ms, 1, MAX_TTL_MS),
            checked_number("first", first, 0, 2**31),
            checked_number("page", page, 1, PAGE),
        ),
    )


def _notification(what: Any, *fields: Any) -> Notification | Nothing:
    hold_id, number, at, event, state, body, revision, call = fields
    found: Any = one_of(Literal[What, Nothing])(what)
    if found in {"more", "none"}:
        return found  # type: ignore[no-any-return]  # one of the two
    return Notification(
        what=found,
        hold_id=hold_id.decode(),
        number=int(number),
        at=str(int(at)),
        event=event,
        hold=hold_record(state, body, revision, call),
    )


def finish_notification(tenant: str, hook: str, event: Notification) -> Op[Noted]:
    """An event was told; after that a hold is over, nothing follows.

    Answers `missing` where the hold is forgotten, or was opened anew.
    """
    told = "all" if event.what in {"expired", "cancelled"} else str(event.number + 1)
    key = f"{prefix(tenant)}hold:{checked_id('hold', event.hold_id)}"
    return Op(
        "told_hold", one_of(Noted), (key,), (checked_digest("hook", hook), told, event.at)
    )
