"""Intent derivers: each answers from a workflow's closed vocabulary with present, unclear or absent, and the evidence.

Rules: a deriver sees only the user's own turns, oldest first; it gives one answer per intent of the vocabulary; it can only
narrow (what it leaves out is absent, what fails is unclear, what it adds is ignored).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentgate.request import Derived
from agentgate.workflow import Intent

Deriver = Callable[[tuple[Intent, ...], tuple[str, ...]], Mapping[str, Derived]]
