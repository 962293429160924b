"""What narrows a clause with a word of an intent: a counter-example of the clause's own kind,
and a quantity that no example has.

A counter-example's *telling* words are those that no example of its intent has. It narrows a
request (or, if it asks to be told something, a question) that has all of them; without any, one
that repeats it word for word. So it never denies, and nobody has to foresee which plain
requests it might be close to.

A quantifier ("all", "every", "everything") makes an intent unclear, unless an example of it has
one, too. Some quantify no object of an act and are ignored: frequencies ("every month", "all
day"), shares of what was named ("20 each", "all three"), what is left alone ("leave everything
else"), and set phrases ("at all", "for all the trouble", "all the best").
``words/quantities.toml`` lists them.
"""

from __future__ import annotations

import re
from functools import lru_cache

from agentgate.language.spans import small
from agentgate.language.stems import stems
from agentgate.language.word_files import Forms, read
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

_FORMS = Forms("closeness", read("quantities.toml"))
_VALUE = re.compile("[0-9@]")


def judged(
    intent: Intent,
    counter_examples: tuple[str, ...],
    said: str,
    hit: str,
) -> Derived:
    """The answer for a clause that asks for an intent.

    Args:
        intent: the intent.
        counter_examples: those of the clause's kind.
        said: the clause, as the user wrote it.
        hit: the words of it that match one of the intent's.
    """
    for counter in counter_examples:
        telling = _telling(counter, intent.examples)
        if telling <= _terms(said) if telling else _words(counter) == _words(said):
            return Derived("unclear", f"word '{hit}', as in the counter-example: {counter}")
    wide = quantities(said)
    if wide and not any(map(quantities, intent.examples)):
        return Derived("unclear", f"word '{hit}', but '{min(wide)}' stands in no example")
    return Derived("present", f"word '{hit}'")


@lru_cache(4096)
def _telling(counter: str, examples: tuple[str, ...]) -> frozenset[str]:
    return _terms(counter).difference(*map(_terms, examples))


def _terms(text: str) -> frozenset[str]:
    return stems(
        " ".join([word for word in text.split() if not _VALUE.search(word)])
    ) | quantities(text)


def _words(text: str) -> list[str]:
    """The words in their order; values are equal."""
    return [
        "#" if _VALUE.search(word) else word.strip(".,;:!?") for word in text.lower().split()
    ]


def quantities(text: str) -> frozenset[str]:
    """The quantifiers of a text that say how much is acted on."""
    low = small(text)
    return frozenset(_FORMS.wide.findall(_FORMS.ignored.sub(" ", low)))
