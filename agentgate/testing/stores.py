"""Where `agentgate_conformance.stores` was, for one version more."""

import warnings

from agentgate_conformance.stores import Blocking, StoreConformance

__all__ = ["Blocking", "StoreConformance"]

warnings.warn(
    "agentgate.testing.stores is now agentgate_conformance.stores",
    DeprecationWarning,
    stacklevel=2,
)
