"""Intent derivers: for each intent of a workflow's closed vocabulary, present, unclear or absent, with the evidence.

Rules: a deriver sees only the user's own turns, oldest first, and gives one answer per intent. An omitted intent is
absent, a failure is unclear, an unknown intent is ignored. `answers` enforces that, so a deriver need not be trusted. A deriver is any
callable; one that also is a `Fold` hears each turn once, so that a long conversation costs no more per turn than a short one.
`agentgate.testing.derivers` is the test suite for authors of derivers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, get_args, runtime_checkable

from agentgate.language.turn import Turn
from agentgate.values.request import Derived, Presence
from agentgate.workflow.model import Intent

Deriver = Callable[[tuple[Intent, ...], tuple[str, ...]], Mapping[str, Derived]]

CLARITY: Mapping[str, int] = {presence: clarity for clarity, presence in enumerate(("absent", "unclear", "present"))}
_PRESENCES = frozenset(get_args(Presence))
_MAX_EVIDENCE = 500  # characters kept of a deriver's evidence


@runtime_checkable
class Fold(Protocol):
    """A deriver that hears turn by turn; a state is opaque, and never changed."""

    def begun(self, intents: tuple[Intent, ...]) -> Any:
        """The state before the first turn."""

    def hear(self, intents: tuple[Intent, ...], state: Any, turn: Turn) -> Any:
        """The state after one more turn."""

    def told(self, intents: tuple[Intent, ...], state: Any) -> Mapping[str, Derived]:
        """The answers of a state."""


@runtime_checkable
class IntentReader(Protocol):
    """A deriver that reads with a model, and may settle what a workflow leaves to one (`agentgate.intents.combined`)."""

    def ask_model(self, intents: tuple[Intent, ...], question: str) -> Any:
        """The model's answer to a question about these intents."""


class _Whole:
    """A deriver that reads all turns each time."""

    def __init__(self, derive: Deriver) -> None:
        self._derive = derive

    def begun(self, intents: tuple[Intent, ...]) -> tuple[str, ...]:  # noqa: ARG002 - a method of `Fold`
        return ()

    def hear(self, intents: tuple[Intent, ...], state: tuple[str, ...], turn: Turn) -> tuple[str, ...]:  # noqa: ARG002 - as above
        return (*state, turn.text)

    def told(self, intents: tuple[Intent, ...], state: tuple[str, ...]) -> Mapping[str, Derived]:
        return self._derive(intents, state)


def fold(derive: Deriver | Fold) -> Fold:
    """A deriver as one that hears turn by turn."""
    return derive if isinstance(derive, Fold) else _Whole(derive)


def after(hearing: Fold, intents: tuple[Intent, ...], state: Any, turn: Turn) -> Any:
    """The state after one more turn; that of a deriver that failed stays failed."""
    if isinstance(state, Exception):
        return state
    try:
        return hearing.hear(intents, state, turn)
    except Exception as error:  # noqa: BLE001 - as in `answers`
        return error


def ask(derive: Deriver, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> dict[str, Derived]:
    """A deriver's `answers` for these turns.

    Args:
        derive: the deriver, untrusted.
        intents: the closed vocabulary.
        turns: the user's own texts, oldest first.
    """
    hearing = fold(derive)
    state = hearing.begun(intents)
    for turn in turns:
        state = after(hearing, intents, state, Turn(turn))
    return answers(hearing, intents, state)


def answers(hearing: Fold, intents: tuple[Intent, ...], state: Any) -> dict[str, Derived]:
    """The answers of a state, made to obey the rules: every intent of the vocabulary exactly once, and nothing else.

    Returns:
        One answer per intent: absent where the deriver omitted it; unclear where it raised or returned something that is no answer.
    """
    if isinstance(state, Exception):
        return _failed(intents, state)
    try:
        answered = hearing.told(intents, state)
        return {intent.name: _held(answered.get(intent.name)) for intent in intents}
    except Exception as error:  # noqa: BLE001 - an untrusted deriver may raise anything; then nothing is present
        return _failed(intents, error)


def _failed(intents: tuple[Intent, ...], error: Exception) -> dict[str, Derived]:
    return {intent.name: Derived("unclear", f"the deriver failed: {type(error).__name__}") for intent in intents}


def _held(answer: object) -> Derived:
    if answer is None:
        return Derived("absent", "the deriver left it out")
    if not isinstance(answer, Derived) or answer.presence not in _PRESENCES or not isinstance(answer.evidence, str):
        return Derived("unclear", f"the deriver failed: answered a {type(answer).__name__} that is no answer")
    if not type(answer.silent) is type(answer.unread) is bool:
        return Derived("unclear", "the deriver failed: silent or unread is neither true nor false")
    return answer if len(answer.evidence) <= _MAX_EVIDENCE else replace(answer, evidence=answer.evidence[:_MAX_EVIDENCE])
