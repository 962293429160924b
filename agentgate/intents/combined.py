"""Several derivers as one: the least of their answers, so that another one can only narrow, but
where a workflow leaves it to a reader.

Rules: an intent has the least presence that any member gives it (absent < unclear < present); a
member that fails or returns no valid answer gives unclear. The first member is normally the
lexical one: no other can add an intent that it does not find. Later members are asked only
while something is left to narrow. Two exceptions: a member that found nothing (a silent absent)
does not lower an intent that is unclear only because the request was not understood (a silent
unclear); and a reader (`agentgate.intents.deriver.IntentReader`) settles what the first member
left unread of an intent that the signed workflow leaves to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentgate.errors import ConfigError
from agentgate.intents.deriver import (
    CLARITY,
    Answers,
    Deriver,
    IntentReader,
    Turns,
    Vocabulary,
    after,
    all_absent,
    answers,
    ask,
    fold,
)
from agentgate.language.turn import Turn


@dataclass(frozen=True, init=False)
class Combined:
    """See `agentgate.intents.deriver.Deriver`. Two of the same members in the same order are
    equal.

    Attributes:
        members: the derivers, in order.

    Raises:
        ConfigError: fewer than two members, or one that cannot be called.
    """

    members: tuple[Deriver, ...]

    def __init__(self, first: Deriver, *others: Deriver) -> None:
        members = (first, *others)
        if not others or not all(map(callable, members)):
            raise ConfigError(
                "deriver",
                members,
                "at least two derivers, each a callable (intents, turns) -> answers",
            )
        object.__setattr__(self, "members", members)

    def __call__(self, intents: Vocabulary, turns: Turns) -> Answers:
        """Derive: for each intent the least answer of all members, with the evidence of the
        first member that gave it.
        """
        return ask(self, intents, turns)

    def begun(self, intents: Vocabulary) -> tuple[Any, ...]:
        """See `agentgate.intents.deriver.Fold`."""
        return tuple(fold(member).begun(intents) for member in self.members)

    def hear(
        self,
        intents: Vocabulary,
        state: tuple[Any, ...],
        turn: Turn,
    ) -> tuple[Any, ...]:
        """See `agentgate.intents.deriver.Fold`."""
        return tuple(
            after(fold(member), intents, each, turn)
            for member, each in zip(self.members, state, strict=True)
        )

    def told(
        self,
        intents: Vocabulary,
        state: tuple[Any, ...],
    ) -> Answers:
        """The least answers; of what was left unread, a reader's."""
        least = answers(fold(self.members[0]), intents, state[0])
        readable = {intent.name for intent in intents if intent.reader}
        for member, each in zip(self.members[1:], state[1:], strict=True):
            if all_absent(least):
                break
            for name, answer in answers(fold(member), intents, each).items():
                known = least[name]
                settles = known.unread and name in readable and isinstance(member, IntentReader)
                if settles or (
                    CLARITY[answer.presence] < CLARITY[known.presence]
                    and not (answer.silent and known.silent)
                ):
                    least[name] = answer
        return least
