"""Where `agentgate_conformance.derivers` was, for one version more."""

import warnings

from agentgate_conformance.derivers import ADDRESS, REFUND, VOCABULARY, DeriverConformance

__all__ = ["ADDRESS", "REFUND", "VOCABULARY", "DeriverConformance"]

warnings.warn(
    "agentgate.testing.derivers is now agentgate_conformance.derivers",
    DeprecationWarning,
    stacklevel=2,
)
