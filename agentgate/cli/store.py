"""``agentgate store`` and ``calls``: what an operator does in the state store.

A store that has lost a part of its history is reconciled with the audit logs; of calls of which
nobody knows whether their tool did anything, a person says how one ended.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from agentgate.audit import FileAudit
from agentgate.audit.reconcile import Loss, find_losses, find_tenants
from agentgate.cli.output import (
    exit_with,
    fail,
    note,
    quiet,
    say,
    say_json,
    table,
)
from agentgate.errors import CanonicalError, ConfigError
from agentgate.stores import Op, Store, ops, ready_store, recovery, rules_of, settling
from agentgate.token.claims import MAX_LIFETIME
from agentgate.values.canonical import parse
from agentgate.values.request import name_of


class Ended(StrEnum):
    """How a call ended, as a person says it."""

    done = "done"
    failed = "failed"
    not_run = "not-run"


def list_(
    *,
    store: str,
    tenant: str,
    unknown: bool = False,
    as_json: bool = False,
) -> None:
    """Calls whose tool was started and did not say how it ended."""
    if not unknown:
        fail("say which calls: --unknown")
    quiet()
    with closing(ready_store(store)) as opened:
        found = [
            _shown_call(call)
            for call in sorted(_unknown(opened, tenant), key=lambda call: call.redeemed_at)
        ]
    if as_json:
        say_json(found)
    else:
        table("bold:call | tool | run | redeemed", [tuple(each.values()) for each in found])
        say(f"{len(found)} calls of tenant {tenant} whose outcome nobody knows")
    exit_with(look=found)


def settle(
    call: str,
    outcome: Ended,
    *,
    reason: str,
    store: str,
    tenant: str,
    audit: Path,
) -> None:
    """Say how a call ended of which nobody knows. The same call is answered by that from then
    on.
    """
    quiet()
    if not reason.strip():
        fail("--reason: got nothing, expected how you know")
    with closing(ready_store(store)) as opened:
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


def _shown_call(call: settling.UnknownCall) -> dict[str, str]:
    try:
        head = parse(call.head)
    except (CanonicalError, ValueError):
        head = {}
    tool = str(head.get("tool", "?")) if isinstance(head, dict) else "?"
    at = datetime.fromtimestamp(round(call.redeemed_at), UTC).isoformat(sep=" ")
    return {"call": _txn(call), "tool": tool, "run": call.run, "redeemed": at}


Answer = TypeVar("Answer")

PATIENCE = 5.0  # seconds for one operation


def reconcile(
    store: str,
    audit: list[Path],
    tenant: list[str] | None = None,
    accept_loss: str = "",
    as_json: bool = False,
) -> None:
    """Replay into a store what it has lost of redemptions, limits and releases, so that acts go
    on.
    """
    quiet()
    with closing(ready_store(store)) as opened, closing(FileAudit(audit[0])) as log:
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
        table("bold:tenant | state | replayed | missing", body)
        for each in found:
            note(*(f"{each['tenant']}: no log tells {what}" for what in each["missing"]))
    exit_with(look=any(each["state"] == "lost" for each in found))


def user(
    name: str,
    *,
    audience: str,
    tenant: list[str],
) -> None:
    """Print the ACL of a tool server's store user: what is its own, and nothing else."""
    say(f"ACL SETUSER {name} on >PASSWORD {rules_of(audience, tenant)}")


def release_key(
    *,
    store: str,
    audit: Path,
    tenant: str,
    account: str,
    key: str,
    reason: str,
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
    with closing(ready_store(store)) as opened, closing(FileAudit(audit)) as log:
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
