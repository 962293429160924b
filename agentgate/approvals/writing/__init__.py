"""Writing approvals, for a reviewer's commands.

Statements, roots, the index, revocations, and who signs them.

A gate reads them by `agentgate.approvals`, and loads nothing of this.
"""

from agentgate.approvals.writing.approval import (
    KeygenSigner,
    KeySigner,
    Signer,
    Unsigned,
    open_signer,
    statement,
    write_approval,
)
from agentgate.approvals.writing.trust import (
    Reviewer,
    ReviewRule,
    new_root,
    renew_index,
    revoke,
    sign_root,
    write_index,
)

__all__ = [
    "KeySigner",
    "KeygenSigner",
    "ReviewRule",
    "Reviewer",
    "Signer",
    "Unsigned",
    "new_root",
    "open_signer",
    "renew_index",
    "revoke",
    "sign_root",
    "statement",
    "write_approval",
    "write_index",
]
