"""``agentgate store``: reconcile a store that has lost a part of its history with the audit
logs.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer import Option

from agentgate.audit import FileAudit
from agentgate.audit.reconcile import Loss, find_losses, find_tenants
from agentgate.cli.output import (
    Json,
    StoreUrl,
    exit_with,
    fail,
    note,
    quiet,
    refusing,
    rows,
    say,
    say_json,
)
from agentgate.stores import Op, Store, ops, ready_store, recovery, rules_of
from agentgate.values.identities import name_of

Answer = TypeVar("Answer")

PATIENCE = 5.0  # seconds for one operation
app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def reconcile(
    store: StoreUrl,
    audit: Annotated[list[Path], Option(exists=True)],
    tenant: list[str] | None = None,
    accept_loss: str = "",
    as_json: Json = False,
) -> None:
    """Replay into a store what it has lost of redemptions, limits and releases, so that acts go
    on.
    """
    quiet()
    with refusing(), closing(ready_store(store)) as opened, closing(FileAudit(audit[0])) as log:
        try:
            known = {
                name: read_history(opened, name)
                for name in tenant or sorted(find_tenants(audit))
            }
            losses = find_losses(known, audit)
        except OSError as error:
            fail(error)
        found = [
            _reconciled(opened, log, name, loss, accept_loss) for name, loss in losses.items()
        ]
    if as_json:
        say_json(found)
    else:
        body = [
            (each["tenant"], each["state"], each["replayed"], len(each["missing"]))
            for each in found
        ]
        rows(("tenant", "state", "replayed", "missing"), body, styles=("bold",))
        for each in found:
            note(*(f"{each['tenant']}: no log tells {what}" for what in each["missing"]))
    exit_with(look=any(each["state"] == "lost" for each in found))


@app.command()
def user(
    name: str,
    *,
    audience: Annotated[str, Option()],
    tenant: Annotated[list[str], Option()],
) -> None:
    """Print the ACL of a tool server's store user: what is its own, and nothing else."""
    with refusing():
        say(f"ACL SETUSER {name} on >PASSWORD {rules_of(audience, tenant)}")


@app.command("release-key")
def release_key(
    *,
    store: StoreUrl,
    audit: Annotated[Path, Option()],
    tenant: Annotated[str, Option()],
    account: Annotated[str, Option()],
    key: Annotated[str, Option()],
    reason: Annotated[str, Option()],
    issuer: str = "",
) -> None:
    """Say which key a service account has now, where the old one cannot sign for it (lost, or
    forgotten by the store).
    """
    quiet()
    if not reason.strip():
        fail("reason: got nothing, expected why this key is the account's, for the record")
    told = {
        "tenant": tenant,
        "account": account,
        "issuer": issuer,
        "key": key,
        "by": {"operator": getpass.getuser()},
        "reason": reason,
    }
    with refusing(), closing(ready_store(store)) as opened, closing(FileAudit(audit)) as log:
        op = ops.change_key(tenant, name_of(account, issuer), key)
        put_on_record(log, "key_change", told)
        history = ask_store(opened, op).history
        put_on_record(log, "key_changed", {**told, **({"history": history} if history else {})})
    note(f"{account} of {tenant}: its key is {key} from now on")


def read_history(store: Store, tenant: str) -> recovery.HistoryRecord:
    """What a store knows of a tenant's history."""
    return ask_store(store, recovery.read_history(tenant))


def ask_store(store: Store, op: Op[Answer]) -> Answer:
    """What the store answers to one operation."""
    return op.parse(store.call(op, time.monotonic() + PATIENCE))


def _reconciled(
    store: Store, log: FileAudit, tenant: str, loss: Loss, accept_loss: str
) -> dict[str, Any]:
    """One tenant: replay what the logs tell; accept it if they tell everything, or for a
    reason.
    """
    replayed = 0
    for event in loss.events:
        replayed += ask_store(store, recovery.replay(event)) == "ok"
    replayed += sum(ask_store(store, again).kind == "ok" for again in loss.revocations)
    replayed += sum(ask_store(store, again).kind == "ok" for again in loss.again)
    state = "whole"
    if loss.seen:
        state = "reconciled" if not loss.missing else "accepted" if accept_loss else "lost"
    if state in {"reconciled", "accepted"}:
        missing = {"missing": loss.missing, "reason": accept_loss} if loss.missing else {}
        told = {
            "by": getpass.getuser(),
            "tenant": tenant,
            "replayed": replayed,
            "seen": loss.seen,
        }
        put_on_record(log, "history_reconciled", {**told, **missing})
        for ends, count, server in loss.accepted():
            if beyond := ask_store(store, recovery.accept_history(tenant, ends, count, server)):
                state = "lost"
                loss.missing.append(
                    f"what another process saw meanwhile ({beyond}): run this again"
                )
    return {"tenant": tenant, "state": state, "replayed": replayed, "missing": loss.missing}


def put_on_record(log: FileAudit, kind: str, told: Mapping[str, Any]) -> None:
    """Put on record what somebody says or accepts, before it counts."""
    log.append(
        {"type": kind, "time": round(time.time(), 6), **told}, time.monotonic() + PATIENCE
    )
