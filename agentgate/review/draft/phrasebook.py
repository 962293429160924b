"""How people ask in English for what tools do: the words that a draft proposes for an intent,
for a reviewer to choose from.

Rules: these are proposals only; a workflow counts the `words` that its reviewers sign.
`phrasebook.txt` has one list per kind of act, in groups that can be deleted as a whole: verbs,
phrasal verbs and idioms, phrases that name the thing, phrases of need. The words of a tool's
name lead to a kind of act; what is made says more than the verb (``send_money``,
``add_comment``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

from agentgate.intents.lexical import derive
from agentgate.loading.yaml_nodes import inline
from agentgate.values.value_class import Names
from agentgate.workflow.model import PLACES, Intent

Texts = Sequence[str]

_WIDTH = 120


class Act(NamedTuple):
    """A kind of act: further verbs of tools' names that mean it, things whose making means it,
    and the groups of phrases for it.
    """

    verbs: Names
    things: Names
    groups: tuple[Names, ...]


def _read(book: str) -> Mapping[str, Act]:
    acts: dict[str, Act] = {}
    text = "\n".join(line for line in book.splitlines() if not line.startswith("#")).replace(
        "\n    ", " "
    )  # continued lines
    for entry in re.split(r"\n(?! )", text):
        head, *lines = entry.splitlines()
        name, _, words = head.partition(":")
        verbs, _, things = words.partition("|")
        phrases = (
            tuple(phrase.strip() for phrase in line.rstrip(",").split(",")) for line in lines
        )
        acts[name] = Act(tuple(verbs.split()), tuple(things.split()), tuple(phrases))
    return acts


BOOK = _read(files("agentgate.review.draft").joinpath("phrasebook.txt").read_text("utf-8"))
ACTS: Names = tuple(sorted(BOOK))
VERBS: Mapping[str, Names] = {name: act.verbs for name, act in BOOK.items() if act.verbs}
_SAME = {verb: act for act, verbs in VERBS.items() for verb in verbs}
_MAKES = frozenset(
    "add apply assign book create issue leave log make open place plan post prepare put "
    "schedule send set submit write".split()
)
_THINGS = {thing: name for name, act in BOOK.items() for thing in act.things}
_TAKEN = frozenset(
    "access permission permissions share sharing collaborator collaborators token session".split()
)
_KEPT = frozenset("note file document doc page article".split())
_BOTH = {("send", "quote"): "mail", ("send", "offer"): "mail", ("write", "note"): "write"}
# phrases repeated for each name of the thing
_ALIKE = frozenset("create make add new need want should update delete remove".split())
_ALSO = {  # what users call a thing
    "event": ("meeting", "appointment"),
    "file": ("document", "doc"),
    "issue": ("ticket",),
    "ticket": ("issue",),
    "transaction": ("payment",),
}


def groups(act: str, thing: str = "") -> tuple[Names, ...]:
    """The usual words for an act (one of `ACTS`), ready for `words` of an intent, in groups.

    `thing`: what the tool acts on ("event"), also under its other names; without it, phrases
    that need one are left out, and where nothing else is left the act itself is the only word.
    """
    names = (thing, *_ALSO.get(thing, ())) if thing else ()
    seen = set[str]()
    made = []
    for group in BOOK[act].groups:
        phrases = dict.fromkeys(
            each for phrase in group for each in _named(phrase, names) if each not in seen
        )
        seen |= phrases.keys()
        made.append(tuple(phrases))
    return tuple(group for group in made if group) or ((act,),)


def listed(groups: Sequence[Texts]) -> Iterator[str]:
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


def _named(phrase: str, names: Texts) -> Iterator[str]:
    if "{thing}" not in phrase:
        yield phrase
        return
    for name in names if phrase.split(maxsplit=1)[0] in _ALIKE else names[:1]:
        article = "an {thing}" if name[:1] in set("aeiou") else "a {thing}"
        yield phrase.replace("a {thing}", article).replace("{thing}", name)


# --- the act that a name suggests -------------------------------------------------------------
def act_of(verb: str, things: Texts = ()) -> str | None:
    """The kind of act that a tool's verb belongs to; None where there is no list for it.

    `things`: the other words of its name: what is made or taken away may say more ("send",
    "money").
    """
    for thing in reversed(things):
        if (verb, thing) in _BOTH:
            return _BOTH[verb, thing]
        if verb == "create" and thing in _KEPT:
            return "write"
        if verb in _MAKES and thing in _THINGS:
            return (
                "payplan"
                if verb in {"schedule", "plan"} and _THINGS[thing] == "pay"
                else _THINGS[thing]
            )
        if verb in {"remove", "delete", "end"} and thing in _TAKEN:
            return "revoke"
    act = _SAME.get(verb, verb)
    return act if act in ACTS else None


def speaking(words: Texts, verb: str) -> str:
    """The first of a name's verb (as far as `verb_of` can tell), its first and its last word
    for which there is a list; else the verb.
    """
    return next(
        (word for word in (verb, *words[:1], *words[-1:]) if act_of(word) is not None), verb
    )


def usual(words: Texts, verb: str) -> tuple[Names, ...]:
    """The usual words for what a tool's name suggests, in groups; only its verb where there is
    no list for it.
    """
    act = act_of(verb, words)
    if act is None:
        return ((verb,),)
    things = [
        word for word in words if word != verb and (act != "invite" or _THINGS.get(word) != act)
    ]
    return groups(act, things[-1] if things else "")


def example(phrases: Sequence[Texts], words: Texts, verb: str) -> str:
    """A request in which these words are found: the verb, the verb with its object, or a phrase
    without a place ("stop" alone denies).
    """
    listed = tuple(phrase for group in phrases for phrase in group)
    plain = [phrase.removeprefix("^") for phrase in listed if PLACES.isdisjoint(phrase.split())]
    asked = (verb, f"{verb} {words[-1]}" if words else verb, *plain)
    intent = Intent("asked", 1, "Do it.", listed, "deny", (), ())
    return next(
        (
            each
            for each in asked
            if derive((intent,), (f"Please {each}",))["asked"].presence == "present"
        ),
        verb,
    )
