"""``agentgate doctor``: what holds of a gate's store, keys, workflows and audit log, and what
to do about the rest.

Rules: it changes nothing and makes nothing. Each part is looked at where a gate would look; a
part that is not named is not looked at.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from typer import Option

from agentgate.approvals import status as standing
from agentgate.audit import remembered
from agentgate.audit.verify import LogEvidence, LogFinding, verify
from agentgate.cli.output import (
    Folder,
    Json,
    Root,
    StoreUrl,
    exit_with,
    fail,
    quiet,
    rows,
    say_json,
)
from agentgate.cli.store import PATIENCE, read_history
from agentgate.errors import AgentGateError
from agentgate.loading.catalog import AHEAD
from agentgate.stores import Store, open_store, wrong_patterns
from agentgate.stores.history import split
from agentgate.token.keys import KeyRing

if TYPE_CHECKING:
    from agentgate.service.settings import ServiceSettings

_SPACE = 1 << 30  # bytes


class Diagnosis(NamedTuple):
    """One line of the table: a part, what was looked at and how it is, whether that holds, and
    what to do if not.
    """

    part: str
    what: str
    holds: bool
    remedy: str = ""


_UNSIGNED = Diagnosis(
    "workflows",
    "nobody's signature is checked: unsafe_unapproved",
    holds=False,
    remedy="root, in the settings (docs/reviewing.md)",
)


def doctor(
    store: StoreUrl = "",
    keys: Folder = None,
    workflows: Folder = None,
    root: Root = None,
    audit: Annotated[list[Path] | None, Option(file_okay=False)] = None,
    *,
    settings: Annotated[Path | None, Option("-s", "--settings")] = None,
    as_json: Json = False,
) -> None:
    """Look at store, keys, workflows and audit log: what holds, and what to do about what does
    not.
    """
    signed = True
    if settings:
        served = _settings(settings)
        signed = workflows is not None or not served.unsafe_unapproved
        store = store or served.store
        keys = keys or served.keys
        workflows = workflows or served.workflows
        root = root or served.root
        audit = audit or [served.audit]
    if not (store or keys or workflows or audit):
        fail(
            "nothing to look at: name a part with --store, --keys, --workflows or --audit, "
            "or a served gate's --settings"
        )
    quiet()
    found: list[Diagnosis] = []
    if store:
        found += _guarded("store", _store(store, audit or []))
    if keys:
        found += _guarded("keys", _keys(keys))
    if workflows:
        found += _guarded("workflows", _workflows(workflows, root)) if signed else [_UNSIGNED]
    if audit:
        found += _guarded("audit", _audit(audit, keys))
    if as_json:
        say_json([each._asdict() for each in found])
    else:
        body = [
            (each.part, "holds" if each.holds else "does not", each.what, each.remedy)
            for each in found
        ]
        rows(("part", "", "what", "to do"), body, styles=("bold",))
    exit_with(look=not all(each.holds for each in found))


def _settings(file: Path) -> ServiceSettings:
    try:
        from agentgate.service.settings import ServiceSettings  # noqa: PLC0415 - packages of the extra
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed: pip install '.[service]' in the clone")
    return ServiceSettings.of(file)


def _guarded(part: str, findings: Iterator[Diagnosis]) -> Iterator[Diagnosis]:
    """The diagnoses, and the error that ended them, as one that does not hold."""
    try:
        yield from findings
    except (AgentGateError, OSError) as error:
        yield Diagnosis(
            part, str(error), holds=False, remedy="see the message; a gate would not open"
        )


def _store(url: str, audits: list[Path]) -> Iterator[Diagnosis]:
    with closing(open_store(url)) as store:
        weaknesses = store.check()
        yield Diagnosis(
            "store",
            "answers; one primary that evicts nothing, of a known version, with the right time",
            holds=True,
        )
        if store.where.told:
            yield Diagnosis("store", store.where.told, holds=True)
        for weakness in weaknesses:
            yield Diagnosis(
                "store",
                f"{weakness.setting}: {weakness.means}",
                holds=False,
                remedy=weakness.remedy,
            )
        yield from _users(store)
        logs = [remembered(audit) for audit in audits]
        for name in sorted(set().union(*logs)):
            tenant = name.partition(" ")[0]
            known = read_history(store, tenant)
            seen = [split(log[name]) for log in logs if name in log]
            whole = not known.lost and all(
                known.ends.get(epoch, 0) >= count for epoch, count in seen
            )
            remedy = (
                ""
                if whole
                else "agentgate store reconcile, with the audit logs of every gate and tool server"
            )
            yield Diagnosis(
                "store",
                f"history of {tenant}: {'whole' if whole else 'lost in part; only reads go on'}",
                whole,
                remedy,
            )


def _users(store: Store) -> Iterator[Diagnosis]:
    """Whether each tool server's user owns only what is its own, as far as this one may ask."""
    # a store in this process has no users
    if (ask := getattr(store, "key_patterns", None)) is None:
        return
    known: dict[str, str] = ask(time.monotonic() + PATIENCE)
    if not known:
        unseen = "users of tool servers: not seen (each looks at its own when it starts)"
        yield Diagnosis(
            "store",
            unseen,
            holds=True,
            remedy="to see them here: +acl|users +acl|getuser for this user",
        )
    for name, keys in known.items():
        wrong = wrong_patterns(keys)
        if wrong is not None:
            what = f"user {name}: " + (
                f"beyond what is its own: {' '.join(wrong)}"
                if wrong
                else "only what is its own"
            )
            yield Diagnosis(
                "store", what, holds=not wrong, remedy="agentgate store user" if wrong else ""
            )


def _keys(directory: Path) -> Iterator[Diagnosis]:
    key = KeyRing.existing(directory).signer(time.time())
    yield Diagnosis(
        "keys", f"{key.kid} ({key.alg}) signs; readable by its owner only", holds=True
    )


def _workflows(directory: Path, root: str | None) -> Iterator[Diagnosis]:
    statuses = standing(directory, root)
    soon = time.time() + AHEAD
    remedy = "" if root else "--root DIGEST, from your settings and not from that directory"
    yield Diagnosis(
        "workflows",
        f"root: {'the pinned one' if root else 'as it lies there'}",
        root is not None,
        remedy,
    )
    for each in statuses:
        name = each.id or each.path
        if each.refused:
            yield Diagnosis(
                "workflows",
                f"{name}: {each.refused}",
                holds=False,
                remedy="agentgate workflow status",
            )
        elif not each.in_force:
            yield Diagnosis(
                "workflows",
                f"{name}: signed, and not in force: a gate loads nothing here",
                holds=False,
                remedy="see above",
            )
        elif each.ends and each.ends.at <= soon:
            yield Diagnosis(
                "workflows",
                f"{name} v{each.in_force}: in force; {each.ends}",
                holds=False,
                remedy=each.ends.remedy,
            )
        else:
            yield Diagnosis("workflows", f"{name} v{each.in_force}: in force", holds=True)


def _audit(directories: list[Path], keys: Path | None) -> Iterator[Diagnosis]:
    found = verify(directories, LogEvidence.of([keys] if keys else []))
    count = sum(each.records for each in found.segments)
    yield Diagnosis("audit", f"{count} records, each as it was written", not found.findings)
    restore = "restore it from where your logs are shipped to; keep what is here"
    elsewhere = (
        f"name the --audit of every gate that shares these keys; if it is in none, {restore}"
    )
    for each in found.findings:
        away = each.finding in {LogFinding.MISSING, LogFinding.WENT_BACK}
        yield Diagnosis(
            "audit",
            f"{each.name}: {each.wrong}",
            holds=False,
            remedy=elsewhere if away else restore,
        )
    for directory in directories:
        own = os.access(directory, os.W_OK) and not directory.stat().st_mode & 0o022
        yield Diagnosis(
            "audit",
            f"{directory}: writable by its owner only",
            own,
            "" if own else f"chmod 700 {directory}, as the gate's user",
        )
        free = shutil.disk_usage(directory).free
        more = (
            ""
            if free >= _SPACE
            else "make room: nothing is minted while the log cannot be written"
        )
        yield Diagnosis("audit", f"{directory}: {free >> 20} MiB free", free >= _SPACE, more)
