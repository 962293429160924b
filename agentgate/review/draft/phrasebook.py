"""How people ask in English for what tools do: the words that a draft proposes for an intent, for a reviewer to choose from.

Rules: these are proposals only; a workflow counts the `words` that its reviewers sign. `phrasebook.txt` has one list per kind of act, in
groups that can be deleted as a whole: verbs, phrasal verbs and idioms, phrases that name the thing, phrases of need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

from agentgate.review.draft.argument import inline

_WIDTH = 120


class Act(NamedTuple):
    """A kind of act: further verbs of tools' names that mean it, things whose making means it, and the groups of phrases for it."""

    verbs: tuple[str, ...]
    things: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]


def _read(book: str) -> Mapping[str, Act]:
    acts: dict[str, list[str]] = {}
    name = ""
    for line in (line for line in book.splitlines() if not line.startswith("#")):
        if line.startswith("    "):
            acts[name][-1] += line
        elif line.startswith(" "):
            acts[name].append(line)
        else:
            name = line
            acts[name] = []
    return dict(_act(line, groups) for line, groups in acts.items())


def _act(line: str, groups: Sequence[str]) -> tuple[str, Act]:
    name, _, words = line.partition(":")
    verbs, _, things = words.partition("|")
    phrases = (tuple(phrase.strip() for phrase in group.rstrip(",").split(",")) for group in groups)
    return name, Act(tuple(verbs.split()), tuple(things.split()), tuple(phrases))


BOOK = _read(files("agentgate.review.draft").joinpath("phrasebook.txt").read_text("utf-8"))
ACTS: tuple[str, ...] = tuple(sorted(BOOK))
_ALIKE = frozenset("create make add new need want should update delete remove".split())  # phrases repeated for each name of the thing
_ALSO = {  # what users call a thing
    "event": ("meeting", "appointment"),
    "file": ("document", "doc"),
    "issue": ("ticket",),
    "ticket": ("issue",),
    "transaction": ("payment",),
}


def groups(act: str, thing: str = "") -> tuple[tuple[str, ...], ...]:
    """The usual words for an act (one of `ACTS`), ready for `words` of an intent, in groups.

    `thing`: what the tool acts on ("event"), also under its other names; without it, phrases that need one are left out, and where nothing
    else is left the act itself is the only word.
    """
    names, seen, made = (thing, *_ALSO.get(thing, ())) if thing else (), set[str](), []
    for group in BOOK[act].groups:
        phrases = dict.fromkeys(each for phrase in group for each in _named(phrase, names) if each not in seen)
        seen |= phrases.keys()
        made.append(tuple(phrases))
    return tuple(group for group in made if group) or ((act,),)


def phrases(act: str, thing: str = "") -> tuple[str, ...]:
    """As `groups`, in one list."""
    return tuple(phrase for group in groups(act, thing) for phrase in group)


def listed(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    """Words as a YAML list: each group begins a line, and no line is long."""
    yield "words: ["
    for group in groups:
        line = " "
        for phrase in group:
            item = f" {inline(phrase)},"
            if len(line) + len(item) > _WIDTH:
                yield line
                line = " "
            line += item
        yield line
    yield "]"


def _named(phrase: str, names: Sequence[str]) -> Iterator[str]:
    if "{thing}" not in phrase:
        yield phrase
        return
    for name in names if phrase.split(maxsplit=1)[0] in _ALIKE else names[:1]:
        article = "an {thing}" if name[:1] in set("aeiou") else "a {thing}"
        yield phrase.replace("a {thing}", article).replace("{thing}", name)
