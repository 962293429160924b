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
from typing import TYPE_CHECKING, NamedTuple

from agentgate.approvals import status as standing
from agentgate.audit import remembered
from agentgate.audit.verify import LogEvidence, LogFinding, verify
from agentgate.cli.output import (
    exit_with,
    fail,
    quiet,
    say_json,
    table,
)
from agentgate.cli.store import PATIENCE, read_history
from agentgate.errors import AgentGateError
from agentgate.loading.catalog import AHEAD
from agentgate.stores import Store, open_store, wrong_patterns
from agentgate.stores._op import split
from agentgate.token.signing import KeyRing

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


# What was looked at, and what to do: nothing where it holds; or else beside them, whether it does.
Looked = Iterator[tuple[str, str] | tuple[str, str, bool]]
_UNSIGNED = Diagnosis(
    "workflows",
    "nobody's signature is checked: unsafe_unapproved",
    holds=False,
    remedy="root, in the settings (docs/reviewing.md)",
)


def doctor(
    store: str = "",
    keys: Path | None = None,
    workflows: Path | None = None,
    root: str | None = None,
    audit: list[Path] | None = None,
    *,
    settings: Path | None = None,
    as_json: bool = False,
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
            (each.part, "holds" if each.holds else "fails", each.what, each.remedy)
            for each in found
        ]
        table("bold:part |  | what | to do", body)
    exit_with(look=not all(each.holds for each in found))


def _settings(file: Path) -> ServiceSettings:
    try:
        from agentgate.service.settings import ServiceSettings  # noqa: PLC0415 - packages of the extra
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed: pip install '.[service]' in the clone")
    return ServiceSettings.of(file)


def _guarded(part: str, findings: Looked) -> Iterator[Diagnosis]:
    """The diagnoses, and the error that ended them, as one that does not hold."""
    try:
        for what, remedy, *holds in findings:
            yield Diagnosis(part, what, holds[0] if holds else not remedy, remedy)
    except (AgentGateError, OSError) as error:
        yield Diagnosis(
            part, str(error), holds=False, remedy="see the message; a gate would not open"
        )


def _store(url: str, audits: list[Path]) -> Looked:
    with closing(open_store(url)) as store:
        weaknesses = store.check()
        yield (
            "answers; one primary that evicts nothing, of a known version, with the right time",
            "",
        )
        if store.where.told:
            yield store.where.told, ""
        for weakness in weaknesses:
            yield f"{weakness.setting}: {weakness.means}", weakness.remedy, False
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
                "agentgate store reconcile, with the audit logs of every gate and tool server"
            )
            is_whole = "whole" if whole else "lost in part; only reads go on"
            yield f"history of {tenant}: {is_whole}", "" if whole else remedy


def _users(store: Store) -> Looked:
    """Whether each tool server's user owns only what is its own, as far as this one may ask."""
    # a store in this process has no users
    if (ask := getattr(store, "key_patterns", None)) is None:
        return
    known: dict[str, str] = ask(time.monotonic() + PATIENCE)
    if not known:
        unseen = "users of tool servers: not seen (each looks at its own when it starts)"
        yield unseen, "to see them here: +acl|users +acl|getuser for this user", True
    for name, keys in known.items():
        wrong = wrong_patterns(keys)
        if wrong:
            yield (
                f"user {name}: beyond what is its own: {' '.join(wrong)}",
                "agentgate store user",
            )
        elif wrong is not None:
            yield f"user {name}: only what is its own", ""


def _keys(directory: Path) -> Looked:
    key = KeyRing.existing(directory).signer(time.time())
    yield f"{key.kid} ({key.alg}) signs; readable by its owner only", ""


def _workflows(directory: Path, root: str | None) -> Looked:
    statuses = standing(directory, root)
    soon = time.time() + AHEAD
    remedy = "" if root else "--root DIGEST, from your settings and not from that directory"
    pinned = "the pinned one" if root else "as it lies there"
    yield f"root: {pinned}", remedy, root is not None
    for each in statuses:
        name = each.id or each.path
        if each.refused:
            yield f"{name}: {each.refused}", "agentgate workflow status"
        elif not each.in_force:
            yield f"{name}: signed, and not in force: a gate loads nothing here", "see above"
        elif each.ends and each.ends.at <= soon:
            yield f"{name} v{each.in_force}: in force; {each.ends}", each.ends.remedy, False
        else:
            yield f"{name} v{each.in_force}: in force", ""


def _audit(directories: list[Path], keys: Path | None) -> Looked:
    found = verify(directories, LogEvidence.of([keys] if keys else []))
    count = sum(each.records for each in found.segments)
    yield f"{count} records, each as it was written", "", not found.findings
    restore = "restore it from where your logs are shipped to; keep what is here"
    elsewhere = (
        f"name the --audit of every gate that shares these keys; if it is in none, {restore}"
    )
    for each in found.findings:
        away = each.finding in {LogFinding.MISSING, LogFinding.WENT_BACK}
        yield f"{each.name}: {each.wrong}", elsewhere if away else restore
    for directory in directories:
        own = os.access(directory, os.W_OK) and not directory.stat().st_mode & 0o022
        remedy = "" if own else f"chmod 700 {directory}, as the gate's user"
        yield f"{directory}: writable by its owner only", remedy
        free = shutil.disk_usage(directory).free
        more = "make room: nothing is minted while the log cannot be written"
        yield f"{directory}: {free >> 20} MiB free", "" if free >= _SPACE else more
