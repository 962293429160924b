"""The index and the revocations across a change of roots: whoever signed them last may not be in the next one.

Rules: a gate accepts neither from somebody whom its root does not name, so before such a root is made they are signed again, unchanged,
by somebody whom both roots name. What is not valid under the present root is left alone.
"""

from __future__ import annotations

from pathlib import Path

from agentgate.approvals import ApprovalRefused, Signer, sshsig
from agentgate.approvals._files import INDEX, REVOKED, SIGNERS, Tree, text_of
from agentgate.approvals._shape import moment
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.index import index_bytes, load_index, load_revoked
from agentgate.approvals.refusal import ROOT_NOT_TRUSTED
from agentgate.approvals.root import Role, Root
from agentgate.approvals.trust import write_revoked, write_signed
from agentgate.errors import ConfigError

FILES = (INDEX, f"{INDEX}.sig", REVOKED, f"{REVOKED}.sig")


def hand_over(folder: Path, old: tuple[Root, AllowedSigners], new: Root, own: Signer | None, now: float) -> tuple[str, ...]:
    """Sign the revocations and the index again, where the new root would refuse who signed them; the files that were signed again.

    `folder`: a copy with the new root, and the index and revocations beside it. `old`: the root that is replaced, and its keys. `own`:
    whose key signs; None: there is no signer. Raises ConfigError: this key cannot sign; says who can.
    """
    tree, changed = Tree(folder), []
    allowed = allowed_in(tree)
    try:
        revoked = load_revoked(tree, *old, now)
    except ApprovalRefused:
        return ()
    try:
        index = load_index(tree, *old, now, ended=True)
    except ApprovalRefused:
        index = None
    try:
        load_revoked(tree, new, allowed, now)
    except ApprovalRefused:
        signer, _ = _in_both("revoke", revoked.signer, REVOKED, (old[0], new), own)
        revoked = write_revoked(tree, old[0], signer, revoked.serial + 1, revoked.revoked)
        changed += [f"{REVOKED}.sig", REVOKED]
    if index is None:
        return tuple(changed)
    try:
        load_index(tree, new, allowed, now, ended=True)
    except ApprovalRefused:
        signer, person = _in_both("index", index.signer, INDEX, (old[0], new), own)
        data = index_bytes(index.serial + 1, moment(index.until), person, index.workflows, revoked)
        write_signed(tree, INDEX, data, signer, sshsig.INDEX_NAMESPACE)
        changed += [f"{INDEX}.sig", INDEX]
    return tuple(changed)


def allowed_in(tree: Tree) -> AllowedSigners:
    """The present file of keys. Raises ApprovalRefused: absent, or not understood."""
    return AllowedSigners.parse(text_of(tree.read(SIGNERS, ROOT_NOT_TRUSTED), SIGNERS), SIGNERS)


def _in_both(role: Role, last: str, file: str, roots: tuple[Root, Root], own: Signer | None) -> tuple[Signer, str]:
    old, new = roots
    able = [name for name in new.roles[role] if name in old.roles[role] and old.keys[name] & new.keys[name]]
    if own is not None:
        for name in able:
            if all(root.owns(name, own.public_key) for root in roots):
                return own, name
    who = f"agentgate root new by {' or '.join(able)}, who signs it again" if able else f"somebody in roles.{role} of both roots"
    raise ConfigError(f"approvals/{file}", f"signed by {last}, whose key the new root does not name there", who)
