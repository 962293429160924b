"""Several derivers as one: the least of what they answer, so that adding one can only narrow.

The rule: an intent is as present as the most doubtful member says (absent < unclear < present). A member that fails, or answers
what is no answer, says unclear. The first member is the vocabulary's own (normally the lexical one): what it does not find, no
other can add. Members behind the first are asked only while something is left to narrow.
One exception, which also adds nothing to what the members before said: that a member found nothing either (a silent absent) is no
reason to refuse what is unclear only because nobody understood it (a silent unclear).
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.errors import ConfigError
from agentgate.intents.deriver import CLARITY, Deriver, ask
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent


class Combined:
    """See `agentgate.intents.deriver.Deriver`. Two of the same members in the same order are equal.

    Attributes:
        members: the derivers, first to last.

    Raises:
        ConfigError: fewer than two members, or one that cannot be called.
    """

    __slots__ = ("members",)

    def __init__(self, first: Deriver, *others: Deriver) -> None:
        if not others or not all(map(callable, (first, *others))):
            raise ConfigError("deriver", (first, *others), "at least two derivers, each a callable (intents, turns) -> answers")
        self.members = (first, *others)

    def __call__(self, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> Mapping[str, Derived]:
        """Derive: per intent the least answer of all members, with the evidence of the first that gave it."""
        found = ask(self.members[0], intents, turns)
        for member in self.members[1:]:
            if all(answer.presence == "absent" for answer in found.values()):
                break
            for name, answer in ask(member, intents, turns).items():
                if CLARITY[answer.presence] < CLARITY[found[name].presence] and not (answer.silent and found[name].silent):
                    found[name] = answer
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Combined) and self.members == other.members

    def __hash__(self) -> int:
        return hash(self.members)
