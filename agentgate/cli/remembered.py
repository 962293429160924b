"""``agentgate remembered``: what a user's own yeses let later runs of theirs use again: list
it, and forget it.

It works beside the gates, on their store. A person does the same for themselves on the gate's
pages, or by their own token over HTTP.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from agentgate.audit import FileAudit, MemoryAudit, remembered
from agentgate.cli.holds import Audit, Keys
from agentgate.cli.output import (
    Json,
    StoreUrl,
    Tenant,
    fail,
    note,
    quiet,
    refusing,
    rows,
    say,
    say_json,
)
from agentgate.decision.question import moment
from agentgate.gate.holds.memory import RememberedCall, forget, recall
from agentgate.shell.drive import drive
from agentgate.shell.step import Flow
from agentgate.stores import Store, ready_store
from agentgate.stores.history import History
from agentgate.token.keys import KeyRing

_SHORT = 12  # characters of an id in a list
Whose = Annotated[str, Option("--user", help="The user's id; whichever issuer proves them.")]


@contextmanager
def _opened(url: str) -> Iterator[Store]:
    quiet()
    if url == "memory://":
        fail("--store memory:// is this process's own: no gate remembers anything in it")
    with refusing(), closing(ready_store(url)) as store:
        yield store


def _recalled(store: Store, tenant: str, user: str, keys: Path | None) -> list[RememberedCall]:
    ring = KeyRing.existing(keys) if keys else None
    found: list[RememberedCall] = drive(
        recall(History(), ring, tenant, user), store, MemoryAudit()
    )
    return found


def list_(
    store: StoreUrl, tenant: Tenant, user: Whose, keys: Keys = None, as_json: Json = False
) -> None:
    """List what is remembered of a user, the oldest first."""
    with _opened(store) as opened:
        found = [
            each.told | {"issuer": each.who[1]}
            for each in _recalled(opened, tenant, user, keys)
        ]
    if as_json:
        say_json(found)
        return
    rows(
        ("id", "tool", "values", "until", "since", "workflow", "issuer"),
        [_row(each) for each in found],
        styles=("bold",),
    )
    if not found:
        note(f"nothing is remembered of {user} in tenant {tenant}")


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    values = "  ".join(f"{name} {value}" for name, value in told["args"].items())
    until = moment(max(told["until"].values(), default=told["since"]))
    return (
        told["id"][:_SHORT],
        told["tool"],
        values,
        until,
        moment(told["since"]),
        told["workflow"],
        told["issuer"] or "(the host)",
    )


def forget_(
    store: StoreUrl,
    tenant: Tenant,
    user: Whose,
    audit: Audit,
    ids: Annotated[
        list[str] | None,
        Argument(
            metavar="[ID]...", help="Ids, or their first 12 characters or more; none: all."
        ),
    ] = None,
) -> None:
    """Forget some of what is remembered of a user, or all. What they were asked before is not
    remembered, either.
    """
    with _opened(store) as opened, closing(FileAudit(audit)) as log:
        every = [each.id for each in _recalled(opened, tenant, user, None)]
        places = [
            id_
            for id_ in every
            if any(len(name) >= _SHORT and id_.startswith(name) for name in ids or ())
        ]
        if len(places) < len(ids or ()):
            fail(
                f"got {' '.join(ids or ())}, expected ids of what is remembered of {user} "
                "(agentgate remembered list)"
            )
        steps: Flow = forget(
            History(remembered(audit)), tenant, user, places, getpass.getuser()
        )
        say(f"forgotten: {drive(steps, opened, log)} of {len(every)}")
