"""Several derivers as one: the least of their answers, so that another one can only narrow.

Rules: an intent has the least presence that any member gives it (absent < unclear < present); a member that fails or returns no valid
answer gives unclear. The first member is normally the lexical one: no other can add an intent that it does not find. Later members are
asked only while something is left to narrow. One exception, which adds nothing either: a member that found nothing (a silent absent) does
not lower an intent that is unclear only because the request was not understood (a silent unclear).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.errors import ConfigError
from agentgate.intents.deriver import CLARITY, Deriver, after, answers, ask, fold
from agentgate.language.turn import Turn
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent


class Combined:
    """See `agentgate.intents.deriver.Deriver`. Two of the same members in the same order are equal.

    Attributes:
        members: the derivers, in order.

    Raises:
        ConfigError: fewer than two members, or one that cannot be called.
    """

    __slots__ = ("members",)

    def __init__(self, first: Deriver, *others: Deriver) -> None:
        if not others or not all(map(callable, (first, *others))):
            raise ConfigError("deriver", (first, *others), "at least two derivers, each a callable (intents, turns) -> answers")
        self.members = (first, *others)

    def __call__(self, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> Mapping[str, Derived]:
        """Derive: for each intent the least answer of all members, with the evidence of the first member that gave it."""
        return ask(self, intents, turns)

    def begun(self, intents: tuple[Intent, ...]) -> tuple[Any, ...]:
        """See `agentgate.intents.deriver.Fold`."""
        return tuple([fold(member).begun(intents) for member in self.members])

    def hear(self, intents: tuple[Intent, ...], state: tuple[Any, ...], turn: Turn) -> tuple[Any, ...]:
        """See `agentgate.intents.deriver.Fold`."""
        return tuple([after(fold(member), intents, each, turn) for member, each in zip(self.members, state, strict=True)])

    def told(self, intents: tuple[Intent, ...], state: tuple[Any, ...]) -> Mapping[str, Derived]:
        """The least answers."""
        least = answers(fold(self.members[0]), intents, state[0])
        for member, each in zip(self.members[1:], state[1:], strict=True):
            if all(answer.presence == "absent" for answer in least.values()):
                break
            for name, answer in answers(fold(member), intents, each).items():
                if CLARITY[answer.presence] < CLARITY[least[name].presence] and not (answer.silent and least[name].silent):
                    least[name] = answer
        return least

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Combined) and self.members == other.members

    def __hash__(self) -> int:
        return hash(self.members)
