"""The audit log: a record is durable before its token is issued."""

from agentgate.audit.file import FileAudit
from agentgate.audit.log import AuditLog, open_audit
from agentgate.audit.memory import MemoryAudit
from agentgate.audit.segment import read_records

__all__ = ["AuditLog", "FileAudit", "MemoryAudit", "open_audit", "read_records"]
