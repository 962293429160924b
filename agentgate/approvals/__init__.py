"""Approvals: verifying which workflow versions reviewers signed, and making those signatures.

Verifying never starts a program and executes nothing from a reviewed directory.
"""

from agentgate.approvals.loading import Loaded, load_approved
from agentgate.approvals.narrowing import Proof, Prover
from agentgate.approvals.refusal import ApprovalRefusal, ApprovalRefused
from agentgate.approvals.root import Need
from agentgate.approvals.signer import KeygenSigner, KeySigner, Signer, open_signer
from agentgate.approvals.sshkey import SshKey
from agentgate.approvals.standing import WorkflowStatus, forecast, status
from agentgate.approvals.statement import Statement
from agentgate.approvals.trust import Reviewer, ReviewRule, new_root, renew_index, revoke, root_digest, sign_root, write_index
from agentgate.approvals.writing import Unsigned, statement, write_approval

__all__ = [
    "ApprovalRefusal",
    "ApprovalRefused",
    "KeySigner",
    "KeygenSigner",
    "Loaded",
    "Need",
    "Proof",
    "Prover",
    "ReviewRule",
    "Reviewer",
    "Signer",
    "SshKey",
    "Statement",
    "Unsigned",
    "WorkflowStatus",
    "forecast",
    "load_approved",
    "new_root",
    "open_signer",
    "renew_index",
    "revoke",
    "root_digest",
    "sign_root",
    "statement",
    "status",
    "write_approval",
    "write_index",
]
