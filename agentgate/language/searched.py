"""A text that is searched for its one entity of a kind: read once, whatever is searched for,
and however many facts do.

An attacker who adds to the text can only make it ambiguous; nothing is chosen by its position
or the words around it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from agentgate.language.spans import (
    IBAN,
    LOOSE,
    Entity,
    account_length,
    as_read,
    embedded,
    entities,
    small,
)
from agentgate.values.entities import Key, normal
from agentgate.values.paths import FINDABLE, MAX_FIND

# an account number as people print it
_GROUPED = r"[a-z]{2}[\s.|/:_-]{0,2}[0-9]{2}(?:[\s.|/:_-]{1,3}[a-z0-9]{4}){3,7}"
_HIDDEN = {
    kind: re.compile("|".join(p.pattern for k, p in LOOSE if k == kind)) for kind in FINDABLE
}
_HIDDEN["iban"] = re.compile(f"{IBAN}|{_GROUPED}")


@dataclass
class SearchedText:
    """One text, of at most `MAX_FIND` characters."""

    written: str
    _today: date

    @cached_property
    def entities(self) -> list[Entity]:
        """Every whole entity of the text as it is written."""
        return list(entities(self.written, self._today))

    @cached_property
    def _text(self) -> str:
        return as_read(self.written)

    @cached_property
    def _whole(self) -> list[Entity]:
        return (
            self.entities
            if self._text == self.written
            else list(entities(self._text, self._today))
        )

    @cached_property
    def _embedded(self) -> list[Entity]:
        return list(embedded(self._text, self._today))

    def only(self, kind: str) -> Key | None:
        """The one entity of a kind of `FINDABLE`, possibly repeated; None when there is none,
        or possibly another.
        """
        if len(self.written) > MAX_FIND:
            return None
        keys = {entity.key for entity in self._embedded if entity.type == kind}
        key = normal(kind, keys.pop()) if len(keys) == 1 else None
        if key is None:
            return None
        rest = "".join(self._others(kind))
        low = small(rest)
        hidden = _HIDDEN[kind].search(low)
        while (
            hidden
            and kind == "iban"
            and account_length(rest[hidden.start() : hidden.end()]) is None
        ):
            hidden = _HIDDEN[kind].search(low, hidden.start() + 1)
        return None if hidden else key

    def _others(self, kind: str) -> Iterator[str]:
        """The text without its entities of this kind: another kind must not hide one, for
        "a@DE89..." is an account number, too.
        """
        end = 0
        for entity in self._whole:
            if entity.type == kind:
                yield self._text[end : entity.start] + "\n" * len(entity.words)
                end = entity.start + len(entity.words)
        yield self._text[end:]
