"""The kind of act that a tool's name suggests, and so the list of usual words that a draft proposes for it.

Rules: a name is split into words and leads to a proposal only. What is made says more than the verb (``send_money``, ``add_comment``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentgate.intents.lexical import derive
from agentgate.review.draft.phrasebook import ACTS, BOOK, groups
from agentgate.workflow.model import PLACES, Intent

VERBS: Mapping[str, tuple[str, ...]] = {name: act.verbs for name, act in BOOK.items() if act.verbs}
_SAME = {verb: act for act, verbs in VERBS.items() for verb in verbs}
_MAKES = frozenset(
    "add apply assign book create issue leave log make open place plan post prepare put schedule send set submit write".split()
)
_THINGS = {thing: name for name, act in BOOK.items() for thing in act.things}
_TAKEN = frozenset("access permission permissions share sharing collaborator collaborators token session".split())
_KEPT = frozenset("note file document doc page article".split())
_BOTH = {("send", "quote"): "mail", ("send", "offer"): "mail", ("write", "note"): "write"}


def act_of(verb: str, things: Sequence[str] = ()) -> str | None:
    """The kind of act that a tool's verb belongs to; None where there is no list for it.

    `things`: the other words of its name: what is made or taken away may say more ("send", "money").
    """
    for thing in reversed(things):
        if (verb, thing) in _BOTH:
            return _BOTH[verb, thing]
        if verb == "create" and thing in _KEPT:
            return "write"
        if verb in _MAKES and thing in _THINGS:
            return "payplan" if verb in {"schedule", "plan"} and _THINGS[thing] == "pay" else _THINGS[thing]
        if verb in {"remove", "delete", "end"} and thing in _TAKEN:
            return "revoke"
    act = _SAME.get(verb, verb)
    return act if act in ACTS else None


def speaking(words: Sequence[str], verb: str) -> str:
    """The first of a name's verb (as far as `verb_of` can tell), its first and its last word for which there is a list; else the verb."""
    return next((word for word in (verb, *words[:1], *words[-1:]) if act_of(word) is not None), verb)


def usual(words: Sequence[str], verb: str) -> tuple[tuple[str, ...], ...]:
    """The usual words for what a tool's name suggests, in groups; only its verb where there is no list for it."""
    act = act_of(verb, words)
    if act is None:
        return ((verb,),)
    things = [word for word in words if word != verb and (act != "invite" or _THINGS.get(word) != act)]
    return groups(act, things[-1] if things else "")


def example(phrases: Sequence[Sequence[str]], words: Sequence[str], verb: str) -> str:
    """A request in which these words are found: the verb, the verb with its object, or a phrase without a place ("stop" alone denies)."""
    listed = tuple(phrase for group in phrases for phrase in group)
    plain = [phrase.removeprefix("^") for phrase in listed if PLACES.isdisjoint(phrase.split())]
    asked = (verb, f"{verb} {words[-1]}" if words else verb, *plain)
    intent = Intent("asked", 1, "Do it.", listed, "deny", (), ())
    return next((each for each in asked if derive((intent,), (f"Please {each}",))["asked"].presence == "present"), verb)
