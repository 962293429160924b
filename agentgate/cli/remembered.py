"""``agentgate remembered``: what a user's own yeses let later runs of theirs use again: list
it, and forget it.

It works beside the gates, on their store. A person does the same for themselves on the gate's
pages, or by their own token over HTTP.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from agentgate.audit import remembered
from agentgate.cli.holds import Keys, open_desk
from agentgate.cli.output import Json, StoreUrl, Tenant, fail, note, rows, say, say_json
from agentgate.decision.question import moment
from agentgate.gate.holds.memory import forget_memory, recall_memory
from agentgate.stores.history import History

_SHORT = 12  # characters of an id in a list
Whose = Annotated[str, Option("--user", help="The user's id; whichever issuer proves them.")]
Ids = Annotated[
    list[str] | None,
    Argument(
        metavar="[ID]...", help=f"Ids, or their first {_SHORT} characters or more; none: all."
    ),
]


def list_(
    store: StoreUrl, tenant: Tenant, user: Whose, keys: Keys = None, as_json: Json = False
) -> None:
    """List what is remembered of a user, the oldest first."""
    with open_desk(store, keys) as desk:
        ring = desk.seals.keys if desk.seals else None
        found = [
            each.told | {"issuer": each.who[1]}
            for each in desk.run(recall_memory(History(), ring, tenant, user))
        ]
    if as_json:
        say_json(found)
        return
    body = [
        (
            each["id"][:_SHORT],
            each["tool"],
            "  ".join(f"{name} {value}" for name, value in each["args"].items()),
            moment(max(each["until"].values())),
            moment(each["since"]),
            each["workflow"],
            each["issuer"] or "(the host)",
        )
        for each in found
    ]
    rows(
        ("id", "tool", "values", "until", "since", "workflow", "issuer"), body, styles=("bold",)
    )
    if not found:
        note(f"nothing is remembered of {user} in tenant {tenant}")


def forget_(
    store: StoreUrl,
    tenant: Tenant,
    user: Whose,
    audit: Annotated[Path, Option()],
    ids: Ids = None,
) -> None:
    """Forget some of what is remembered of a user, or all. What they were asked before is not
    remembered, either.
    """
    with open_desk(store, None, audit) as desk:
        known = [each.id for each in desk.run(recall_memory(History(), None, tenant, user))]
        places = [
            place
            for place in known
            if place.startswith(tuple(each for each in ids or () if len(each) >= _SHORT))
        ]
        if len(places) < len(ids or ()):
            fail(
                f"expected ids of what is remembered of {user} (agentgate remembered list), "
                f"each with {_SHORT} characters or more"
            )
        steps = forget_memory(
            History(remembered(audit)), tenant, user, places, getpass.getuser()
        )
        say(f"forgotten: {desk.run(steps)} of {len(known)}")
