"""The states of a hold, what can happen to it, and what follows: one table, which the gate and the store's scripts follow.

    pending --release (enough approvers)--> released --mint--> spent
    pending, released --refuse--> refused          pending, released --deadline--> expired
    whatever no person refused and no call ran with --the user takes back, or the run is closed--> cancelled

Rules: `refused` and `expired` are final until the store forgets the hold; a `cancelled` one is opened anew when its call is asked again.
A spent release is spent for ever, and only the call that spent it may be minted again, while it did not run. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

State = Literal["pending", "released", "refused", "expired", "cancelled", "spent"]
Row = State | Literal["ran"]  # ran: spent, by a call that was redeemed since
Event = Literal[
    "asked",  # its call is authorised again, and a person is still needed
    "yes",  # a release, after which a rule still wants more approvers
    "enough",  # the release after which none does
    "no",  # a refusal
    "minted",  # its call is minted; of a spent one, the same call again
    "deadline",  # its time is over
    "withdrawn",  # the user takes something back, or the run is closed
]
EVENTS: tuple[Event, ...] = get_args(Event)

AFTER: Mapping[Row, tuple[Row | None, ...]] = {  # in the order of EVENTS; None: refused, and nothing changes
    "pending": ("pending", "pending", "released", "refused", None, "expired", "cancelled"),
    "released": ("released", None, None, "refused", "spent", "expired", "cancelled"),
    "refused": ("refused", None, None, None, None, "refused", "refused"),
    "expired": ("expired", None, None, None, None, "expired", "cancelled"),
    "cancelled": ("pending", None, None, None, None, "cancelled", "cancelled"),
    "spent": ("spent", None, None, None, "spent", "expired", "cancelled"),
    "ran": ("ran", None, None, None, None, "ran", "ran"),
}


def after(state: Row, event: Event) -> Row | None:
    """The state that follows; None: this cannot happen to a hold in this state."""
    return AFTER[state][EVENTS.index(event)]
