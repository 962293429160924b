"""``agentgate calls``: calls of which nobody knows whether their tool did anything, and a
person's word on how one ended.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from agentgate.audit import FileAudit
from agentgate.cli.output import (
    Json,
    StoreUrl,
    Tenant,
    exit_with,
    fail,
    quiet,
    refusing,
    rows,
    say,
    say_json,
)
from agentgate.cli.store import ask_store, put_on_record
from agentgate.errors import CanonicalError, ConfigError
from agentgate.stores import Store, ready_store, settling
from agentgate.token.claims import MAX_LIFETIME
from agentgate.values.canonical import parse

app = typer.Typer(no_args_is_help=True, add_completion=False)


class Ended(StrEnum):
    """How a call ended, as a person says it."""

    done = "done"
    failed = "failed"
    not_run = "not-run"


@app.command("list")
def list_(
    *,
    store: StoreUrl,
    tenant: Tenant,
    unknown: bool = False,
    as_json: Json = False,
) -> None:
    """Calls whose tool was started and did not say how it ended."""
    if not unknown:
        fail("say which calls: --unknown")
    quiet()
    with refusing(), closing(ready_store(store)) as opened:
        found = [
            _told(call)
            for call in sorted(_unknown(opened, tenant), key=lambda call: call.redeemed_at)
        ]
    if as_json:
        say_json(found)
    else:
        rows(
            ("call", "tool", "run", "redeemed"),
            [tuple(each.values()) for each in found],
            styles=("bold",),
        )
        say(f"{len(found)} calls of tenant {tenant} whose outcome nobody knows")
    exit_with(look=found)


@app.command()
def settle(
    call: str,
    outcome: Ended,
    *,
    reason: Annotated[str, Option()],
    store: StoreUrl,
    tenant: Tenant,
    audit: Annotated[Path, Option()],
) -> None:
    """Say how a call ended of which nobody knows. The same call is answered by that from then
    on.
    """
    quiet()
    if not reason.strip():
        fail("--reason: got nothing, expected how you know")
    with refusing(), closing(ready_store(store)) as opened:
        named = [each for each in _unknown(opened, tenant) if call in {_txn(each), each.digest}]
        if len(named) != 1:
            fail(
                f"{call}: got {len(named)} calls of tenant {tenant} with this name, expected "
                "one of agentgate calls list --unknown"
            )
        (found,) = named
        left = found.redeemed_at + MAX_LIFETIME - time.time()
        if left > 0:
            fail(
                f"{call}: redeemed less than {MAX_LIFETIME} s ago, so its tool may be "
                f"running; expected an older one: in {left:.0f} s"
            )
        ended: settling.Ended = (
            "not_run"
            if outcome is Ended.not_run
            else "done"
            if outcome is Ended.done
            else "failed"
        )
        said = {
            "call": _txn(found),
            "call_digest": found.digest,
            "run": found.run,
            "jti": found.jti,
            "outcome": ended,
            "reason": reason,
        }
        with closing(FileAudit(audit)) as log:
            put_on_record(log, "outcome", {"tenant": tenant, "by": getpass.getuser(), **said})
        op = settling.settle_call(tenant, found, ended, after_seconds=MAX_LIFETIME)
        if (answer := ask_store(opened, op)) != "ok":
            fail(
                f"{call}: "
                f"{'its tool may be running' if answer == 'running' else 'its outcome is known meanwhile'}; "
                "nothing was changed"
            )
    again = (
        "already_done"
        if ended == "done"
        else "it may run again; what asked a person asks anew, and no share of a limit is given back"
    )
    say(f"{_txn(found)} {outcome}: asked again, {again}")


def _unknown(store: Store, tenant: str) -> Iterator[settling.UnknownCall]:
    scan = getattr(store, "scan", None)
    if scan is None:
        raise ConfigError(
            "store", type(store).__name__, "redis://, rediss://, unix:// or embedded://"
        )
    for pattern in settling.key_patterns(tenant):
        for key in scan(pattern):
            yield from ask_store(store, settling.unknown_calls(key))


def _txn(call: settling.UnknownCall) -> str:
    return f"txn_{call.digest[:32]}"


def _told(call: settling.UnknownCall) -> dict[str, str]:
    try:
        head = parse(call.head)
    except (CanonicalError, ValueError):
        head = {}
    tool = str(head.get("tool", "?")) if isinstance(head, dict) else "?"
    at = datetime.fromtimestamp(round(call.redeemed_at), UTC).isoformat(sep=" ")
    return {"call": _txn(call), "tool": tool, "run": call.run, "redeemed": at}
