"""``agentgate revoke``: stop tokens, runs and people at once, in the state store; list what is
revoked, and lift it.

Not ``agentgate workflow revoke``, by which reviewers end versions for good, signed and without
a store.
"""

from __future__ import annotations

import getpass
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from agentgate.audit import FileAudit, remembered
from agentgate.cli.output import (
    complain,
    exit_with,
    fail,
    quiet,
    rows,
    say,
    say_json,
    table,
)
from agentgate.errors import ConfigError
from agentgate.gate.revoking import AppliedRevocation, Revoking, StoredRevocation
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.shell.bound import Bound
from agentgate.stores import Store, ready_store
from agentgate.stores._op import History
from agentgate.values.value_class import names_of

_EVERY = "all"


class _Operator(Revoking):
    """Who revokes: a person with the store's address, and an audit directory."""

    def __init__(
        self, store: Store, audit: FileAudit, folder: Path, workflows: Path | None
    ) -> None:
        self._store = store
        self._audit = audit
        self._history = History(remembered(folder))
        self._bound = Bound()
        self._tenants = set(self._history.tenants())
        self._unread = ""
        if workflows:
            catalog = Catalog.load(workflows, derive)
            self._tenants |= {tenant for workflow in catalog for tenant in workflow.tenants}
            self._unread = ", ".join(sorted(map(str, catalog.quarantined)))

    def every_tenant(self) -> tuple[str, ...]:
        """Those of the audit log and the workflows."""
        return tuple(sorted(self._tenants))

    def meant(self, tenant: list[str], workflows: Path | None) -> tuple[str, ...]:
        """The tenants that the command names."""
        if _EVERY not in tenant:
            return tuple(tenant)
        if not workflows or self._unread or not self._tenants:
            got = (
                f"all, but these do not load: {self._unread}"
                if self._unread
                else "all, without workflows that name them"
            )
            raise ConfigError(
                "tenant",
                got,
                "all with --workflows DIR, every file of which loads; or each tenant by name",
            )
        return self.every_tenant()


def revoke(  # noqa: PLR0917 - a command's options, given by name
    name: str = "",
    store: str = "",
    audit: Path | None = None,
    tenant: list[str] | None = None,
    reason: str = "",
    before: str = "",
    listing: bool = False,
    *,
    lift: bool = False,
    workflows: Path | None = None,
    by: str = "",
    patience: float = 30.0,
    as_json: bool = False,
) -> None:
    """Refuse at once what a token, run, agent, user, tool, workflow version or tenant asks for;
    list that, or lift it.

    It works in the state store, for every gate and tool server on it. Reviewers end a
    workflow's versions for good with agentgate workflow revoke, which is signed and cannot be
    lifted.
    """
    quiet()
    if listing == bool(name):
        fail("name what to revoke (user:lee@acme.example), or say --list")
    for given, option in (
        (store, "--store"),
        (audit, "--audit"),
        (tenant, "--tenant"),
        (reason or listing, "--reason"),
    ):
        if not given:
            fail(f"{option} is missing (agentgate revoke --help)")
    if store == "memory://":
        fail("--store memory:// is this process's own: nothing that runs would notice")
    assert audit and tenant is not None  # noqa: S101, PT018 - as looked at above
    with closing(ready_store(store)) as opened, closing(FileAudit(audit)) as log:
        operator = _Operator(opened, log, audit, workflows)
        tenants = operator.meant(tenant, workflows)
        who = by or getpass.getuser()
        if listing:
            found = [each for name_ in tenants for each in operator.revocations(name_)]
            _tell_list(found, as_json=as_json)
        elif lift:
            _tell_lifted(
                name,
                operator.lift(name, tenants=tenants, by=who, reason=reason),
                as_json=as_json,
            )
        else:
            when = _time(before) if before else None
            done = operator.revoke(
                name, tenants=tenants, by=who, reason=reason, before=when, patience=patience
            )
            _tell(done, patience, as_json=as_json)


def _time(text: str) -> datetime:
    try:
        return datetime.now(UTC) if text == "now" else datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            "before", text, "now, or a time with its zone: 2026-05-31T14:00:00Z"
        ) from error


def _shown(when: float | None) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%SZ}" if when else ""


def _tell(done: AppliedRevocation, patience: float, *, as_json: bool) -> NoReturn:
    """Applied and in force, apart; waits until it is in force, for so long."""
    where = ", ".join(done.tenants)
    if not as_json:
        say(f"applied: {done.name} in {where}")
    if done.unknown:
        complain(
            f"no workflow and no record names {', '.join(done.unknown)}: is that spelt right?",
            colour="yellow",
        )
    left = 0.0 if done.in_force_at is None else done.in_force_at - time.time()
    in_force = done.in_force_at is not None and left <= patience
    if in_force:
        time.sleep(max(0.0, left))
    if as_json:
        said = {
            "name": done.name,
            "applied": done.tenants,
            "in_force": in_force,
            "in_force_at": done.in_force_at,
        }
        say_json({**said, "lacking": done.lacking, "unknown": done.unknown})
    elif in_force:
        say(f"in force: {done.name} in {where}")
    else:
        complain(
            "not in force yet:",
            *done.lacking,
            *([f"before {_shown(done.in_force_at)}"] if done.in_force_at else []),
        )
        complain("Say it again to try again: the same command, as often as you like.")
    exit_with(look=not in_force)


def _tell_lifted(name: str, found: dict[str, str], *, as_json: bool) -> NoReturn:
    words = {
        "lifted": "lifted",
        "missing": "nothing of this name is revoked (--list says what is)",
        "signed": (
            "stands: reviewers revoked it (agentgate workflow revoke); a higher "
            "version can be approved"
        ),
    }
    if as_json:
        say_json({"name": name, "tenants": found})
    else:
        rows(
            ("tenant", name),
            [(tenant, words[state]) for tenant, state in found.items()],
            styles=("bold",),
        )
    exit_with(look=set(found.values()) != {"lifted"})


def _tell_list(found: list[StoredRevocation], *, as_json: bool) -> None:
    if as_json:
        say_json(
            [
                {name: getattr(each, name) for name in names_of(StoredRevocation)}
                for each in found
            ]
        )
        return
    body = [
        (
            each.tenant,
            each.name,
            f"opened up to {_shown(each.before)}" if each.before else "everything",
            "not at all (signed)" if each.signed else _shown(each.until) or "when lifted",
            _shown(each.at),
            each.by,
            each.reason,
        )
        for each in found
    ]
    table("bold:tenant | bold:revoked | what | ends | since | by | why", body)
    if not body:
        say("nothing is revoked")
