"""Intent derivers: for each intent of a workflow's closed vocabulary, present, unclear or absent, with the evidence.

Rules: a deriver sees only the user's own turns, oldest first, and gives one answer per intent. It can only narrow: an omitted intent is
absent, a failure is unclear, an unknown intent is ignored. `ask` enforces that, so a deriver need not be trusted.
`agentgate.testing.derivers` is the test suite for authors of derivers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import get_args

from agentgate.values.request import Derived, Presence
from agentgate.workflow.model import Intent

Deriver = Callable[[tuple[Intent, ...], tuple[str, ...]], Mapping[str, Derived]]

CLARITY: Mapping[str, int] = {presence: clarity for clarity, presence in enumerate(("absent", "unclear", "present"))}
_PRESENCES = frozenset(get_args(Presence))
_MAX_EVIDENCE = 500  # characters kept of a deriver's evidence


def ask(derive: Deriver, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> dict[str, Derived]:
    """A deriver's answers, made to obey the rules: every intent of the vocabulary exactly once, and nothing else.

    Args:
        derive: the deriver, untrusted.
        intents: the closed vocabulary.
        turns: the user's own texts, oldest first.

    Returns:
        One answer per intent: absent where the deriver omitted it; unclear where it raised or returned something that is no answer.
    """
    try:
        answered = derive(intents, turns)
        return {intent.name: _held(answered.get(intent.name)) for intent in intents}
    except Exception as error:  # noqa: BLE001 - an untrusted deriver may raise anything; then nothing is present
        return {intent.name: Derived("unclear", f"the deriver failed: {type(error).__name__}") for intent in intents}


def _held(answer: object) -> Derived:
    if answer is None:
        return Derived("absent", "the deriver left it out")
    if not isinstance(answer, Derived) or answer.presence not in _PRESENCES or not isinstance(answer.evidence, str):
        return Derived("unclear", f"the deriver failed: answered a {type(answer).__name__} that is no answer")
    if type(answer.silent) is not bool:
        return Derived("unclear", "the deriver failed: silent is neither true nor false")
    return answer if len(answer.evidence) <= _MAX_EVIDENCE else replace(answer, evidence=answer.evidence[:_MAX_EVIDENCE])
