"""Intent derivers: for each intent of a workflow's closed vocabulary, present, unclear or
absent, with the evidence.

Rules: a deriver sees only the user's own turns, oldest first, and gives one answer per intent.
An omitted intent is absent, a failure is unclear, an unknown intent is ignored. `answers`
enforces that, so a deriver need not be trusted. A deriver is any callable; one that also is a
`Fold` hears each turn once, so that a long conversation costs no more per turn than a short
one. `agentgate_conformance.derivers` is the test suite for authors of derivers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from agentgate.language.turn import Turn
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

Vocabulary = tuple[Intent, ...]
Answers = Mapping[str, Derived]  # per intent
Turns = tuple[str, ...]  # texts, oldest first
Deriver = Callable[[Vocabulary, Turns], Answers]

CLARITY: Mapping[str, int] = {"absent": 0, "unclear": 1, "present": 2}
_MAX_EVIDENCE = 500  # characters kept of a deriver's evidence


@runtime_checkable
class Fold(Protocol):
    """A deriver that hears turn by turn; a state is opaque, and never changed."""

    def begun(self, intents: Vocabulary) -> Any:
        """The state before the first turn."""

    def hear(self, intents: Vocabulary, state: Any, turn: Turn) -> Any:
        """The state after one more turn."""

    def told(self, intents: Vocabulary, state: Any) -> Answers:
        """The answers of a state."""


@runtime_checkable
class IntentReader(Protocol):
    """A deriver that reads with a model, and may settle what a workflow leaves to one
    (`agentgate.intents.combined`).
    """

    def ask_model(self, intents: Vocabulary, question: str) -> Any:
        """The model's answer to a question about these intents."""


class _Whole:
    """A deriver that reads all turns each time."""

    def __init__(self, derive: Deriver) -> None:
        self._derive = derive

    def begun(self, intents: Vocabulary) -> Turns:  # noqa: ARG002 - a method of `Fold`
        return ()

    def hear(self, intents: Vocabulary, state: Turns, turn: Turn) -> Turns:  # noqa: ARG002 - as above
        return (*state, turn.text)

    def told(self, intents: Vocabulary, state: Turns) -> Answers:
        return self._derive(intents, state)


def fold(derive: Deriver | Fold) -> Fold:
    """A deriver as one that hears turn by turn."""
    return derive if isinstance(derive, Fold) else _Whole(derive)


def after(
    hearing: Fold,
    intents: Vocabulary,
    state: Any,
    turn: Turn,
) -> Any:
    """The state after one more turn; that of a deriver that failed stays failed."""
    if isinstance(state, Exception):
        return state
    try:
        return hearing.hear(intents, state, turn)
    except Exception as error:  # noqa: BLE001 - as in `answers`
        return error


def ask(
    derive: Deriver,
    intents: Vocabulary,
    turns: Turns,
) -> dict[str, Derived]:
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


def answers(
    hearing: Fold,
    intents: Vocabulary,
    state: Any,
) -> dict[str, Derived]:
    """The answers of a state, made to obey the rules: every intent of the vocabulary exactly
    once, and nothing else.

    Returns:
        One answer per intent: absent where the deriver omitted it; unclear where it raised or
            returned something that is no answer.
    """
    failed = state
    if not isinstance(state, Exception):
        try:
            answered = hearing.told(intents, state)
            return {intent.name: _held(answered.get(intent.name)) for intent in intents}
        except Exception as error:  # noqa: BLE001 - an untrusted deriver may raise anything; then nothing is present
            failed = error
    return give_all(intents, Derived("unclear", f"the deriver failed: {type(failed).__name__}"))


def all_absent(answers: Answers) -> bool:
    """Whether nothing is asked for, and nothing may be."""
    return all(answer.presence == "absent" for answer in answers.values())


def give_all(intents: Vocabulary, answer: Derived) -> dict[str, Derived]:
    """The same answer for each intent."""
    return dict.fromkeys([intent.name for intent in intents], answer)


def _held(answer: object) -> Derived:
    match answer:
        case Derived(presence=given, evidence=str(), silent=bool(), unread=bool()) if (
            given in CLARITY
        ):
            return replace(answer, evidence=answer.evidence[:_MAX_EVIDENCE])
        case None:
            return Derived("absent", "the deriver left it out")
    return Derived(
        "unclear",
        f"the deriver failed: answered a {type(answer).__name__} that is no answer",
    )
