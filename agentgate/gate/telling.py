"""Where `agentgate.gate.notify` was, for one version more."""

import warnings

from agentgate.gate.notify import Command, Webhook

__all__ = ["Command", "Webhook"]

warnings.warn(
    "agentgate.gate.telling is now agentgate.gate.notify", DeprecationWarning, stacklevel=2
)
