"""Writing trust files: a root (for one person or a team), its signatures, the index, a
revocation.

Rules: the gate's own reader reads back what will be written before the old file is replaced; a
replaced root stays stored with its signatures, so that gates pinned to it can follow; serials
rise.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agentgate.approvals import sshsig
from agentgate.approvals._files import (
    APPROVALS,
    INDEX,
    RENEWAL,
    REVOKED,
    ROOT,
    ROOT_NOT_TRUSTED,
    SIGNERS,
    STALE_INDEX,
    UNAPPROVED,
    ApprovalRefused,
    Tree,
    ascii_json,
    file_digest,
    moment,
    refuse,
    text_of,
)
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.index import (
    INDEX_LIFE,
    Renewal,
    Revocation,
    Revoked,
    check_same,
    index_bytes,
    load_revoked,
    load_signed_index,
)
from agentgate.approvals.loading import lenient_judge
from agentgate.approvals.narrowing import Prover
from agentgate.approvals.root import Role, Root, load_root
from agentgate.approvals.sshsig import SshKey
from agentgate.approvals.writing.approval import Signer
from agentgate.intents.lexical import derive as lexical
from agentgate.loading.yaml_nodes import inline
from agentgate.values.value_class import value_class

NAMESPACES = (
    sshsig.NAMESPACE,
    sshsig.ROOT_NAMESPACE,
    sshsig.INDEX_NAMESPACE,
    sshsig.REVOKED_NAMESPACE,
    sshsig.HOLD_NAMESPACE,
)


@value_class
class Reviewer:
    """A person of a new root; `tenants`: the only ones whose held calls they answer, empty: of
    all.
    """

    name: str
    keys: tuple[SshKey, ...]
    teams: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()


@value_class
class ReviewRule:
    """A rule of a new root: below `path` (a glob) these people, or ``team:``s, sign this often
    per risk.
    """

    path: str
    by: tuple[str, ...]
    signatures: Mapping[str, int]


def new_root(
    directory: Path | str,
    people: Iterable[Reviewer],
    *,
    expires: str,
    rules: Iterable[ReviewRule] = (),
    roles: Mapping[str, tuple[str, ...]] | None = None,
    threshold: int = 1,
    solo: bool = False,
    demo: bool = False,
    signed_commits: bool = False,
    signer: Signer | None = None,
) -> str:
    """Write ``root.yaml`` and ``allowed_signers``.

    An earlier root is moved to ``approvals/root/`` with its signatures.

    Args:
        directory: the workflow directory.
        people: who may sign, with their keys.
        expires: last day of the root, ``2027-05-31``.
        rules: who reviews what; none: everybody everything, one signature for low risk and two
            for others (solo: low only).
        roles: who signs `root`, `index` and `revoke`, which everybody signs who is not in
            `renew`; nobody renews where that is left out.
        threshold: signatures a root needs.
        solo: one person approves their own changes, low risk only; gates warn at every start.
        demo: for demonstrations; gates warn at every start.
        signed_commits: reviewers' commands take only commits that somebody of the root signed,
            and who signed one made the change.
        signer: signs it at once; others call `sign_root`.

    Returns:
        The new root's digest.

    Raises:
        ApprovalRefused: ROOT NOT TRUSTED, when a gate would not accept it; nothing is written.
    """
    tree = Tree(directory)
    everybody = tuple(people)
    signs = roles or {}
    renewers = signs.get("renew", ())
    names = tuple(person.name for person in everybody if person.name not in renewers)
    signers = _signers_file(everybody, renewers)
    before = tree.read_optional(ROOT)
    old = Root.parse(before, f"{APPROVALS}/{ROOT}") if before is not None else None
    given_roles = {role: list(signs.get(role, names)) for role in ("root", "index", "revoke")}
    if renewers:
        given_roles["renew"] = list(renewers)
    value = {
        "agentgate": "root/v1",
        "version": old.version + 1 if old else 1,
        "expires": expires,
        "threshold": threshold,
        "allowed_signers": file_digest(signers),
        "people": {person.name: _person_entry(person) for person in everybody},
        "roles": given_roles,
        "reviews": [
            {"path": rule.path, "by": list(rule.by), "signatures": dict(rule.signatures)}
            for rule in tuple(rules) or (_default_rule(names, solo=solo),)
        ],
    }
    marks = {"solo": solo, "demo": demo, "signed_commits": signed_commits}
    value |= {name: True for name, marked in marks.items() if marked}
    data = _yaml(value)
    root = Root.parse(data, f"{APPROVALS}/{ROOT}")
    AllowedSigners.parse(text_of(signers, SIGNERS), f"{APPROVALS}/{SIGNERS}")
    signature = signer.sign(data, sshsig.ROOT_NAMESPACE) if signer else None
    person = _person(root, signer, "root") if signer else ""
    if before is not None and old:
        _archive(tree, before, old.version)
    tree.write(SIGNERS, signers)
    tree.write(ROOT, data)
    if signature:
        tree.write(f"root.{person}.sig", signature.encode())
    return root.digest


def _default_rule(names: tuple[str, ...], *, solo: bool) -> ReviewRule:
    """Everybody reviews everything."""
    two = min(2, len(names))
    return ReviewRule(
        "**", names, {"low": 1} if solo else {"low": 1, "medium": two, "high": two}
    )


def _signers_file(people: Iterable[Reviewer], renewers: tuple[str, ...]) -> bytes:
    """``allowed_signers``: every key, and what its signatures may be for."""
    lines = []
    for person in people:
        renews = person.name in renewers
        spaces = sshsig.RENEWAL_NAMESPACE if renews else ",".join(NAMESPACES)
        lines += [f'{person.name} namespaces="{spaces}" {key.line}\n' for key in person.keys]
    return "".join(lines).encode()


def _person_entry(person: Reviewer) -> dict[str, list[str]]:
    """A person as the root names them."""
    entry = {"keys": [key.fingerprint for key in person.keys]}
    if person.teams:
        entry["teams"] = list(person.teams)
    if person.tenants:
        entry["tenants"] = list(person.tenants)
    return entry


def _archive(tree: Tree, root: bytes, version: int) -> None:
    """Move a root and its signatures aside.

    A gate that is pinned to it, or to an earlier one, follows from there.
    """
    tree.write(f"root/{version}.yaml", root)
    for name, kind in tree.names():
        if name.startswith("root.") and name.endswith(".sig") and kind == "file":
            signature = tree.read(name, ROOT_NOT_TRUSTED)
            tree.write(f"root/{version}.{name.removeprefix('root.')}", signature)
            (tree.directory / APPROVALS / name).unlink()


def sign_root(directory: Path | str, signer: Signer) -> Path:
    """Sign the present root: as one of its own signers, or as one of the root before it.

    Raises ApprovalRefused: UNAPPROVED, when this key may not.
    """
    tree = Tree(directory)
    data = tree.read(ROOT, ROOT_NOT_TRUSTED)
    root = Root.parse(data, f"{APPROVALS}/{ROOT}")
    try:
        person = _person(root, signer, "root")
    except ApprovalRefused:
        if root.version == 1:
            raise
        before = tree.read(f"root/{root.version - 1}.yaml", UNAPPROVED)
        person = _person(
            Root.parse(before, f"{APPROVALS}/root/{root.version - 1}.yaml"), signer, "root"
        )
    return tree.write(f"root.{person}.sig", signer.sign(data, sshsig.ROOT_NAMESPACE).encode())


def write_index(
    directory: Path | str,
    signer: Signer,
    *,
    root: str | None = None,
    now: float | None = None,
    prover: Prover | None = None,
    anew: bool = False,
) -> Path:
    """Sign the list of newest approved versions, valid for seven days.

    Makes an empty ``revoked.yaml`` where there is none.

    Args:
        directory: the workflow directory.
        signer: a key of somebody in the root's roles.index.
        root: the pinned digest; None: the present root.
        now: POSIX seconds; None: now.
        prover: proves narrowings.
        anew: start without the last index, on purpose. Else a missing or bad one refuses,
            unless nothing was ever signed here: only the last index says which versions were in
            force.

    Raises ApprovalRefused: the root is not trusted, this key may not, or the present index or
    revocations are
        bad.
    """
    at = time.time() if now is None else now
    judge, wrong = lenient_judge(directory, root, derive=lexical, now=at, prover=prover)
    tree = judge.tree
    person = _person(judge.root, signer, "index")
    there = {name for name, _ in tree.names()}
    if not judge.revoked and REVOKED in there:
        raise ApprovalRefused.of(wrong[0])
    if not judge.index and not anew and there & {REVOKED, INDEX}:
        if wrong[-1].reason is not STALE_INDEX:
            raise ApprovalRefused.of(wrong[-1])
        expected = (
            "the index that was signed last (restore it, or say --anew if nothing was in force)"
        )
        raise refuse(STALE_INDEX, f"{APPROVALS}/{INDEX}", "file", "nothing", expected)
    if not judge.revoked:
        judge.revoked = write_revoked(tree, judge.root, signer, 1, {})
    newest = {}
    for id_ in tree.ids():
        standings = (judge.standing(id_, version).approved for version in tree.versions(id_))
        approved = next((each for each in standings if each and not each.observes), None)
        if approved:
            newest[id_] = approved.entry
    old = judge.index
    for id_, was in (old.workflows if old else {}).items():
        if id_ not in newest or newest[id_].version < was.version:
            newest[id_] = replace(
                was, removed=None if tree.versions(id_) else True
            )  # a floor never sinks: a removed version could be put back
    # higher than any earlier index may have had: serials are times, so two checkouts do not
    # make the same one
    serial = max((old.serial if old else 0) + 1, int(at))
    data = index_bytes(serial, moment(at + INDEX_LIFE), person, newest, judge.revoked)
    return write_signed(tree, INDEX, data, signer, sshsig.INDEX_NAMESPACE)


def renew_index(
    directory: Path | str, signer: Signer, *, root: str | None = None, now: float | None = None
) -> tuple[float, float]:
    """Carry the index on for seven days, and never beyond thirty after somebody of roles.index
    signed it.

    Args:
        directory: the workflow directory.
        signer: a key of somebody in the root's roles.renew.
        root: the pinned digest; None: the present root.
        now: POSIX seconds; None: now.

    Returns:
        POSIX seconds of its end, and of the latest one that a renewal may give it.

    Raises ApprovalRefused: the root, the index or the revocations are not trusted, this key may
    not, or the
        thirty days are over.
    """
    tree = Tree(directory)
    at = time.time() if now is None else now
    trusted = load_root(tree, root, at)
    person = _person(trusted.root, signer, "renew")
    index, digest = load_signed_index(trusted)
    revoked = load_revoked(trusted)
    check_same(index, revoked)
    end = min(at + INDEX_LIFE, index.renewable_until)
    if end <= at:
        expected = (
            "an index that somebody of roles.index signed in the last thirty days (agentgate "
            "workflow index)"
        )
        raise refuse(STALE_INDEX, f"{APPROVALS}/{INDEX}", "expires", index.expires, expected)
    renewal = Renewal("renewal/v1", digest, moment(end), person, revoked.serial, revoked.digest)
    write_signed(tree, RENEWAL, ascii_json(asdict(renewal)), signer, sshsig.RENEWAL_NAMESPACE)
    return end, index.renewable_until


def revoke(
    directory: Path | str,
    workflow: str,
    signer: Signer,
    *,
    version: int,
    reason: str,
    root: str | None = None,
    now: float | None = None,
) -> Path:
    """Revoke a workflow's versions up to and including one, for good.

    One signature is enough, and no new index is needed.

    Args:
        directory: the workflow directory.
        workflow: its id.
        signer: a key of somebody in the root's roles.revoke.
        version: the highest version to revoke.
        reason: why, for later readers.
        root: the pinned digest; None: the present root.
        now: POSIX seconds; None: now.

    Raises ApprovalRefused: the root or the present revocations are not trusted, or this key may
    not.
    """
    tree = Tree(directory)
    at = time.time() if now is None else now
    trusted = load_root(tree, root, at)
    person = _person(trusted.root, signer, "revoke")
    old = (
        load_revoked(trusted)
        if tree.read_optional(REVOKED) is not None
        else Revoked(0, "", person, {})
    )
    before = old.revoked.get(workflow)
    entry = Revocation(
        up_to=max(version, before.up_to if before else 0), reason=reason, by=person
    )
    write_revoked(tree, trusted.root, signer, old.serial + 1, {**old.revoked, workflow: entry})
    return Path(directory) / APPROVALS / REVOKED


def write_revoked(
    tree: Tree, root: Root, signer: Signer, serial: int, entries: Mapping[str, Revocation]
) -> Revoked:
    """Sign revocations, as somebody in the root's roles.revoke.

    Raises ApprovalRefused: UNAPPROVED, when this key may not.
    """
    person = _person(root, signer, "revoke")
    said = {id_: revocation.model_dump() for id_, revocation in sorted(entries.items())}
    data = _yaml(
        {"agentgate": "revoked/v1", "serial": serial, "signer": person, "revoked": said}
    )
    write_signed(tree, REVOKED, data, signer, sshsig.REVOKED_NAMESPACE)
    return Revoked(serial, file_digest(data), person, dict(entries))


def write_signed(tree: Tree, name: str, data: bytes, signer: Signer, namespace: str) -> Path:
    """Sign a trust file and write it, its signature first; returns its path."""
    tree.write(f"{name}.sig", signer.sign(data, namespace).encode())
    return tree.write(name, data)


def _person(root: Root, signer: Signer, role: Role) -> str:
    """Whose key this is, in this role."""
    key = signer.public_key
    for person in root.roles[role]:
        if root.owns(person, key):
            return person
    raise refuse(
        UNAPPROVED,
        f"{APPROVALS}/{ROOT}",
        f"roles.{role}",
        f"key {key.fingerprint}",
        f"a key of {', '.join(root.roles[role]) or 'somebody whom a next root names: agentgate root draft'}",
    )


def _yaml(value: Mapping[str, Any]) -> bytes:
    """A trust file: one key per line and level, everything else on its line."""
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            lines.append(f"{key}:")
            lines += [f"  {inline(name)}: {inline(inner)}" for name, inner in item.items()]
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            lines.append(f"{key}:")
            lines += [f"  - {inline(inner)}" for inner in item]
        else:
            lines.append(f"{key}: {inline(item)}")
    return ("\n".join(lines) + "\n").encode()
