"""Intent derivers: each answers from a workflow's closed vocabulary with present, unclear or absent, and the evidence.

Rules: a deriver sees only the user's own turns; it can only narrow (what it leaves out is absent, what fails is unclear).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agentgate.request import Derived
from agentgate.workflow import Intent


class Deriver(Protocol):
    """Answers which of the workflow's intents the user's turns express."""

    def __call__(self, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> Mapping[str, Derived]:
        """One answer per intent.

        Args:
            intents: the workflow's vocabulary.
            turns: the user's texts, oldest first.
        """
