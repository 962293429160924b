"""The user's words of a run, turn by turn: the typed entities they name, and what they say or
deny.

Rules: only the user's turns are read (`agentgate.language.turn`), never tool output. A denied
clause withdraws what it names, also from earlier turns; reported words name nothing. A
quotation gives texts and names only, never an address, an account or a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from datetime import date
from decimal import Decimal
from itertools import product
from operator import attrgetter
from typing import Any

from agentgate.language.spans import Entity, entities, glued
from agentgate.language.turn import MAX_TURN, Turn
from agentgate.language.whose import Extent
from agentgate.language.word_files import Forms, listed
from agentgate.values.entities import Key, normal
from agentgate.values.value_class import value_class

__all__ = ["MAX_TURN", "Entity", "Prompt", "Turn"]

_FORMS = Forms("prompt")
# what a quoted name may be
_QUOTABLE = "text sent path name user channel".split()

_NEAR = 200  # characters before the word "channel" that may name it
_MENTIONS = 8  # of a value, that are kept beside the last one
_NUMBERS = "money number count percent".split()
_NO_CHANNEL = listed("no channel")


def _named(
    words: str,
    quoted: tuple[Extent, ...],
) -> Iterator[Entity]:
    """Names without a form of their own."""
    for at, end, whose in quoted:
        inner = words[at:end]
        if normal("text", inner):
            yield Entity("text", inner, inner, at)
            if whose == "sent":
                yield Entity("sent", inner, inner, at)
        if " " in inner and _FORMS.ending.search(inner) and normal("path", inner):
            yield Entity("path", inner, inner, at)
    for word in _FORMS.capital.finditer(words):
        yield Entity("name", word[0], word[0], word.start())
    for word in _FORMS.channel.finditer(words):
        at = word.start()
        listed = _FORMS.before.search(words, max(0, at - _NEAR), at)
        yield from _channels(listed) or _channels(_FORMS.after.match(words, word.end()))


def _channels(names: re.Match[str] | None) -> list[Entity]:
    if not names:
        return []
    handles = _FORMS.handle.finditer(names.string, *names.span(1))
    return [
        Entity("channel", word[0], word[0], word.start())
        for word in handles
        if word[0].lower() not in _NO_CHANNEL
    ]


# type of a value -> the types of entities that a prompt may write it as
_WRITTEN_AS: Mapping[str, str] = {
    "money": "money number",
    # a number in words counts things: it is no amount without a currency, and no id
    "number": "number money count percent",
    "integer": "number money count",
    "computed": "number money count",  # `Rule.said_as`
    "id": "id number date domain",
    "user": "user name",
    "text": "text path email url domain id channel user",
}


@value_class
class Prompt:
    """What a run's user has said.

    Attributes:
        turns: the turns, oldest first.
        named: type -> key -> the entity, as last written.
        amounts: amounts of money with their currency (empty: none written), and plain numbers.
        mentions: type and key -> where each is named: the turn, and the place in it.
        in_doubt: what sentences name whose force is in doubt (`agentgate.language.force`)
            counts, too.
        memo: what readers further on keep of all turns.
    """

    turns: tuple[Turn, ...] = ()
    named: Mapping[str, Mapping[Key, Entity]] = field(default_factory=dict)
    amounts: frozenset[tuple[Decimal, str]] = frozenset()
    mentions: Mapping[tuple[str, Key], tuple[tuple[Turn, int], ...]] = field(
        default_factory=dict, compare=False, repr=False
    )
    in_doubt: bool = False
    memo: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        turns: Iterable[str],
        today: date,
    ) -> Prompt:
        """Read the turns in order.

        Args:
            turns: the user's texts, oldest first; each at most `MAX_TURN` characters.
            today: the run's day, for "tomorrow" and "May 26th".
        """
        prompt = cls()
        for turn in turns:
            prompt = prompt.after(Turn(turn), today)
        return prompt

    def after(self, turn: Turn, today: date) -> Prompt:
        """This prompt and one more turn; an entity that it denies is withdrawn, from this turn
        and the earlier ones.
        """
        named = {kind: dict(keys) for kind, keys in self.named.items()}
        amounts = set(self.amounts)
        mentions = dict(self.mentions)
        words = turn.own
        whole = list(entities(words, today))
        quoted = [name for name in turn.named if name.whose != "typed"]
        denied = []
        # Text of no type is named by the very same words, so that a text may repeat it.
        for entity in sorted(
            [*whole, *_named(words, turn.named), *glued(words, whole)],
            key=attrgetter("start"),
        ):
            kind, key, _, start, currency = entity
            within = quoted and any(name.start <= start < name.end for name in quoted)
            if within and kind not in _QUOTABLE:
                continue
            voice = turn.clause_at(start).voice
            if voice == "denied":
                denied.append(entity)
            elif voice == "said":
                named.setdefault(kind, {})[key] = entity
                before = mentions.get((kind, key), ())
                mentions[kind, key] = (*before[-_MENTIONS:], (turn, start))
                if (
                    isinstance(key, Decimal)
                    and kind in {"money", "number"}
                    and words[max(0, start - 1)] != "#"
                ):
                    amounts.add((key, currency))
        no: dict[Decimal, set[str]] = {}  # denied numbers, with their currencies
        for kind, key, _, _, currency in denied:
            named.get(kind, {}).pop(key, None)
            # "not 50" also withdraws 50 EUR, and "not 50 EUR" a bare 50
            if isinstance(key, Decimal):
                no.setdefault(key, set()).add(currency)
            else:
                mentions.pop((kind, key), None)
        if no:
            amounts = {
                (key, currency)
                for key, currency in amounts
                if key not in no or (currency and no[key].isdisjoint({"", currency}))
            }
            left = {key for key, _ in amounts}
            for number, written in product(no, _NUMBERS):
                named.get(written, {}).pop(number, None)
                if number not in left:
                    mentions.pop((written, number), None)
        return Prompt((*self.turns, turn), named, frozenset(amounts), mentions)

    def doubted(
        self,
        before: Prompt,
        denied: Prompt,
        since: Prompt,
    ) -> Prompt:
        """This prompt without what words in doubt take back: named `before` them, not in
        `denied`, which includes them, nor `since`.
        """
        named = {
            kind: {
                key: entity
                for key, entity in keys.items()
                if key not in before.named.get(kind, {})
                or any(key in each.named.get(kind, {}) for each in (denied, since))
            }
            for kind, keys in self.named.items()
        }
        return replace(
            self,
            named=named,
            amounts=self.amounts - (before.amounts - denied.amounts - since.amounts),
        )

    @property
    def spoken(self) -> Iterator[tuple[str, str]]:
        """The clauses of all turns, as (voice, text)."""
        return (
            (voice, turn.own[start:end])
            for turn in self.turns
            for voice, start, end in turn.voices
        )

    def holds(self, kind: str) -> bool:
        """Whether the user named any value of this type."""
        return any(map(self.named.get, _WRITTEN_AS.get(kind, kind).split()))

    def words(
        self,
        kind: str,
        key: Key,
        currency: str = "",
    ) -> str | None:
        """The user's words that name this value as one whole entity, or None.

        Args:
            kind: the argument's type.
            key: its comparison key.
            currency: for money, the argument's currency; an amount that the user wrote with
                another currency does not count.
        """
        if kind == "money":
            if self.amounts.isdisjoint({(key, ""), (key, currency)}):
                return None
            meant = self._meant("money", key) or self._meant("number", key)
            return str(key) if meant else None
        for name in _WRITTEN_AS.get(kind, kind).split():
            wanted = normal("number", key) if name == "number" and kind == "id" else key
            entity = self.named.get(name, {}).get(wanted) if wanted is not None else None
            if entity and self._meant(name, entity.key):
                return entity.words
        return None

    def _meant(self, kind: str, key: Key) -> bool:
        """Whether some sentence that names it is in no doubt."""
        place = "meant", kind, key
        if place not in self.memo:
            places = self.mentions.get((kind, key), ())
            self.memo[place] = self.in_doubt or any(not turn.doubted(at) for turn, at in places)
        return bool(self.memo[place])
