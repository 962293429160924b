"""Reading approvals: which workflow versions reviewers signed. Their making is in
`agentgate.approvals.writing`.

Reading never starts a program and executes nothing from a reviewed directory.
"""

from agentgate.approvals._files import ApprovalRefusal, ApprovalRefused
from agentgate.approvals.loading import Loaded, load_approved
from agentgate.approvals.narrowing import Proof, Prover
from agentgate.approvals.root import Need, root_digest
from agentgate.approvals.sshsig import SshKey
from agentgate.approvals.standing import WorkflowStatus, forecast, status
from agentgate.approvals.version import Statement

__all__ = [
    "ApprovalRefusal",
    "ApprovalRefused",
    "Loaded",
    "Need",
    "Proof",
    "Prover",
    "SshKey",
    "Statement",
    "WorkflowStatus",
    "forecast",
    "load_approved",
    "root_digest",
    "status",
]
