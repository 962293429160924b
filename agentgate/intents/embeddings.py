"""A deriver by meaning: how close each clause is to the intents' words and examples, by static word embeddings (extra ``intent``).

An intent is *present* when some one to three words of a clause are close to one of its words (to "set up a meeting" not fewer words than
that: "meeting" alone is its topic); or when they are fairly close and the
clause as a whole is close to one of its examples or to what it asks for (a clause alone is close to whatever shares its topic: "read
the draft" to "delete the draft"). It is *unclear* when it is only somewhat close, when the clause is clearly closer to a
counter-example than to any example, or names a quantity ("all", "every") that no example names; *absent* otherwise, or when the
clause repeats a counter-example. The clearest clause decides; a later turn that denies it withdraws it. Quoted and forwarded text is
not read.

The model ships in the wheel of `wordllama` and is read from there only, on first use; nothing is ever downloaded. Static embeddings
know "erase" from "delete", and do not know that "wire" may mean paying: what they do not recognise is absent.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from agentgate.errors import ConfigError
from agentgate.intents.deriver import CLARITY
from agentgate.intents.lexical import COMMON, STOP, delegated, handed_over
from agentgate.intents.phrases import places, without_places
from agentgate.language.delegation import Delegation
from agentgate.language.prompt import clauses, entities, own_words, unquoted
from agentgate.language.quantity import quantities
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

# Chosen on the vocabularies of the workflows in this repository and nothing else. Each intent met the examples of the other intents of
# its workflow (those without a word of it): the closest came to 0.70 by words and 0.51 by clause. *Unclear* begins there and *present* a
# tenth above. Its own examples, each held out together with its words, then come out present in 2 of 20 cases: static embeddings widen
# a vocabulary a little and are no substitute for one. tests/test_embeddings.py measures both again.
WORD, NEAR_WORD = 0.8, 0.7
CLAUSE, NEAR_CLAUSE = 0.6, 0.5
FAIR_WORD = 0.45  # of the words, where the clause is to decide
_NEAR_COUNTER = 0.5  # closeness from which a counter-example has something to say
_CLEARLY = 0.15  # how much closer a counter-example must be: it often says the intent's word, and starts ahead
_SAME = 0.999  # closeness of a repeated counter-example
_LONGEST = 3  # words of one window
MAX_CHARACTERS = 262_144  # of all turns; more is unclear

_WORDS = re.compile(r"[^\W\d_]{1,40}(?:['\u2019][^\W\d_]{1,10})?")
_NOWHERE = date(2000, 1, 1)  # only entity types matter here
EXTRA = "pip install 'agentgate-mediator[intent]'"


@lru_cache(maxsize=1)
def _model() -> Any:
    """The model, from the installed wheel. Its package sets up the root logger when imported; that is undone."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import wordllama  # noqa: PLC0415 - an extra, and its weights are read on first use only

    root.handlers[:] = handlers
    root.setLevel(level)
    home = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load("l2_supercat", cache_dir=home, dim=256, disable_download=True)


@lru_cache(maxsize=16_384)
def _vector(word: str) -> tuple[Any, int]:
    """A word's token vectors summed, and how many they are: the mean of a text is their sum over their number."""
    model = _model()
    ids = model.tokenizer.encode(word, add_special_tokens=False).ids
    return model.embedding[ids].sum(axis=0), len(ids)


def _unit(words: list[str]) -> Any:
    """The direction of the words' mean vector: one of length 1, or of zeros when there is nothing to point with."""
    import numpy as np  # noqa: PLC0415 - as wordllama, which brings it

    total = np.sum([_vector(word)[0] for word in words], axis=0)
    return total / (float(np.linalg.norm(total)) or 1.0)


def _words(text: str) -> list[str]:
    """The words that mean something, in order, typed entities as the name of their type."""
    kept, end = [], 0
    for entity in entities(text, _NOWHERE):
        kept += [text[end : entity.start], entity.type]
        end = entity.start + len(entity.words)
    return [word for word in _WORDS.findall(" ".join([*kept, text[end:]]).lower()) if word not in COMMON]


class _Anchors(NamedTuple):
    """Texts to be close to, and their directions, one row each (None: there are none)."""

    texts: tuple[str, ...]
    rows: Any

    def closest(self, directions: Any) -> tuple[float, int, str]:
        """The highest cosine, the row of `directions` it is for, and the text; (0, 0, "") without anchors."""
        if self.rows is None:
            return 0.0, 0, ""
        near = directions @ self.rows.T
        row, column = divmod(int(near.argmax()), near.shape[1])
        return float(near[row, column]), row, self.texts[column]


class _Known(NamedTuple):
    """One intent's anchors, and whether an example names a quantity.

    Attributes:
        words: the intent's words by how many of them mean something: met by windows of at least as many.
        literal: words that a common word makes what they are ("email to"): met as they are written.
    """

    words: Mapping[int, _Anchors]
    literal: tuple[str, ...]
    examples: _Anchors
    counters: _Anchors
    wide: bool

    def word(self, clause: _Clause) -> tuple[float, str, str]:
        """How close some words of the clause come to one of the intent's, which, and to which."""
        for literal in self.literal:
            if found := places((literal,), clause.text):
                return 1.0, clause.text[slice(*found[0])], literal
        best = (0.0, "", "")
        for size, anchors in self.words.items():
            start = clause.starts[min(size, _LONGEST) - 1]
            if start < len(clause.windows):
                near, at, text = anchors.closest(clause.directions[start:])
                best = max(best, (near, clause.windows[start + at], text))
        return best


def _anchors(texts: Iterable[str]) -> _Anchors:
    import numpy as np  # noqa: PLC0415 - as above

    read = [(text, words) for text in texts if (words := _words(text))]
    return _Anchors(tuple(text for text, _ in read), np.stack([_unit(words) for _, words in read]) if read else None)


@lru_cache(maxsize=1024)
def _known(intent: Intent) -> _Known:
    wide = any(map(quantities, intent.examples))
    sizes = {word: len(_words(word)) for word in map(without_places, intent.words) if word}
    literal = tuple(word for word, size in sizes.items() if size < 2 <= len(word.split()) or not size)
    words = {n: _anchors(w for w, size in sizes.items() if size == n and w not in literal) for n in set(sizes.values()) if n}
    return _Known(words, literal, _anchors((*intent.examples, intent.asks_for)), _anchors(intent.counter_examples), wide)


class _Clause(NamedTuple):
    """A clause in lower case, its words, its windows of up to `_LONGEST` words, shortest first, their directions, and its own.

    Attributes:
        starts: where the windows of one word, of two, ... start.
    """

    text: str
    words: list[str]
    windows: list[str]
    starts: tuple[int, ...]
    directions: Any
    whole: Any


def _clause(text: str) -> _Clause | None:
    words = _words(text)
    if not words:
        return None
    import numpy as np  # noqa: PLC0415 - as above

    sums = np.cumsum([np.zeros(256, np.float32), *(_vector(word)[0] for word in words)], axis=0, dtype=np.float64)
    spans = [(at, at + size) for size in range(1, _LONGEST + 1) for at in range(len(words) - size + 1)]
    starts = tuple(sum(max(0, len(words) - size) for size in range(n)) for n in range(_LONGEST))
    first, last = np.array(spans).T
    totals = sums[last] - sums[first]
    lengths = np.linalg.norm(totals, axis=1, keepdims=True)
    windows = [" ".join(words[a:b]) for a, b in spans]
    return _Clause(text.lower(), words, windows, starts, totals / np.where(lengths == 0, 1, lengths), _unit(words)[None])


def _said(known: _Known, clause: _Clause) -> Derived | None:
    """What one affirmed clause says of one intent; None: nothing."""
    word, window, near = known.word(clause)
    example, _, text = known.examples.closest(clause.whole)
    if not _speaks(word, example):
        return None
    counter, _, against = known.counters.closest(clause.whole)
    if counter >= _SAME > example:
        return Derived("absent", f"counter-example: {against}")
    if counter >= _NEAR_COUNTER and counter >= example + _CLEARLY:
        return Derived("unclear", f"closest to the counter-example ({counter:.2f}): {against}")
    by_word = f"'{window}' is close to '{near}' ({word:.2f})"
    evidence = by_word if word >= WORD else f"{by_word}, and all of it ({example:.2f}) to: {text}"
    if word < WORD and example < CLAUSE:
        return Derived("unclear", f"not clear enough: {evidence}")
    wide = quantities(clause.text)
    if wide and not known.wide:
        return Derived("unclear", f"{evidence}, but '{min(wide)}' stands in no example")
    return Derived("present", evidence)


def _speaks(word: float, example: float) -> bool:
    return word >= NEAR_WORD or (word >= FAIR_WORD and example >= NEAR_CLAUSE)


def _denied(known: _Known, clause: _Clause) -> bool:
    """A denial is taken at its loosest: somewhat close withdraws."""
    return _speaks(known.word(clause)[0], known.examples.closest(clause.whole)[0])


@lru_cache(maxsize=4096)
def _turn(intents: tuple[Intent, ...], turn: str) -> tuple[Mapping[str, Derived], Delegation | str | None]:
    """What one turn says: the intents it speaks of, and what it hands over. A growing conversation is read turn by turn, each once."""
    words = own_words(turn)
    bare = unquoted(words)
    spans = list(clauses(words))
    said = [(words[a:b], bare[a:b]) for voice, a, b in spans if voice == "said"]
    denied = [(words[a:b], bare[a:b]) for voice, a, b in spans if voice == "denied"]
    found: dict[str, Derived] = {}
    for text in dict.fromkeys(asked for _, asked in said):
        clause = _clause(text)
        for intent in intents if clause is not None else ():
            answer = _said(_known(intent), clause)  # type: ignore[arg-type]  # only with a clause
            if answer is not None and (intent.name not in found or CLARITY[answer.presence] > CLARITY[found[intent.name].presence]):
                found[intent.name] = answer
    for text in dict.fromkeys(refused for refused, _ in denied):
        clause = _clause(text)
        for intent in intents if clause is not None else ():
            if intent.name not in found and _denied(_known(intent), clause):  # type: ignore[arg-type]  # as above
                found[intent.name] = Derived("absent", f"denied: {text.strip()[:80]}")
    return found, handed_over(said, denied) if any(i.delegated != "deny" for i in intents) else None


class EmbeddingsDeriver:
    """See `agentgate.intents.deriver.Deriver`. Deterministic; equal to every other one.

    Raises:
        ConfigError: the extra is not installed. Said when it is built, not when a prompt comes.
    """

    def __init__(self) -> None:
        if find_spec("wordllama") is None or find_spec("numpy") is None:
            raise ConfigError("deriver", "embeddings", f"the extra 'intent' to be installed: {EXTRA}")

    def __call__(self, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> Mapping[str, Derived]:
        """Derive; the last turn that says something of an intent decides, and a bare "stop" withdraws all."""
        if sum(map(len, turns)) > MAX_CHARACTERS:
            return {i.name: Derived("unclear", f"more than {MAX_CHARACTERS} characters of prompt") for i in intents}
        found = {intent.name: Derived("absent", "nothing in the prompt is close to it", silent=True) for intent in intents}
        spoken: set[str] = set()  # intents the user's own words spoke of: no delegation decides them any more
        for index, turn in enumerate(turns):
            if index and STOP.match(turn):
                found = {name: Derived("absent", f"withdrawn: {turn.strip()[:80]}") for name in found}
                spoken.clear()
                continue
            answers, handed = _turn(intents, turn)
            found.update(answers)
            spoken.update(answers)
            for intent in intents if handed is not None else ():
                if intent.delegated != "deny" and intent.name not in spoken:
                    found[intent.name] = delegated(intent, handed)  # type: ignore[arg-type]  # only with something handed over
        return found

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))
