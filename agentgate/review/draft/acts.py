"""The kind of act that a tool's name suggests, and so the list of usual words that a draft proposes for it.

Rules: a name is split into words and leads to a proposal only. What is made says more than the verb (``send_money``, ``add_comment``).
"""

from __future__ import annotations

from collections.abc import Sequence

from agentgate.intents.lexical import derive
from agentgate.review.draft.phrasebook import ACTS, groups
from agentgate.workflow.model import PLACES, Intent

VERBS = {  # act: further words of tools' names that mean it
    "add": "append attach insert include extend",
    "approve": "accept confirm authorize authorise",
    "assign": "reassign delegate allocate route",
    "block": "ban lock freeze quarantine blacklist",
    "book": "reserve",
    "cancel": "abort terminate void",
    "change": "update edit modify set rename replace patch adjust configure",
    "close": "resolve complete finish",
    "comment": "annotate",
    "create": "make open submit generate draft register upsert new prepare",
    "delete": "remove drop purge erase wipe destroy trash clear uninstall",
    "deploy": "promote install rollout",
    "disable": "deactivate suspend mute",
    "download": "export",
    "enable": "activate reactivate unblock unlock unmute resume",
    "hire": "recruit onboard",
    "label": "tag flag categorize classify mark star pin",
    "log": "record track",
    "mail": "email",
    "move": "reschedule postpone relocate",
    "order": "buy purchase reorder",
    "pay": "transfer wire donate",
    "plan": "schedule",
    "post": "message notify reply dm sms tweet announce",
    "publish": "release",
    "quote": "offer",
    "refund": "reimburse",
    "reject": "decline deny dismiss",
    "restart": "reboot reset reload",
    "restore": "recover revert rollback unarchive undelete",
    "run": "execute start trigger invoke launch",
    "scale": "resize",
    "send": "forward dispatch",
    "share": "grant",
    "stop": "kill halt pause shutdown",
    "subscribe": "follow watch enroll enrol",
    "unsubscribe": "unfollow",
    "upload": "import push",
    "write": "save put store",
}
_SAME = {verb: act for act, verbs in VERBS.items() for verb in verbs.split()}
_MAKES = frozenset(
    "add apply assign book create issue leave log make open place plan post prepare put schedule send set submit write".split()
)
_MADE = {  # what is made says more than the verb: send_money, create_reminder, add_comment
    "book": "event meeting appointment call booking reservation",
    "comment": "comment remark reply",
    "invite": "participant participants attendee attendees guest guests invitation",
    "label": "label labels tag tags category",
    "log": "note activity entry",
    "mail": "mail email letter newsletter",
    "order": "order purchase",
    "pay": "money payment funds transfer transaction",
    "post": "message dm sms text",
    "quote": "quote offer proposal",
    "refund": "refund",
    "remind": "reminder alarm",
    "share": "access permission permissions collaborator collaborators",
}
_THINGS = {thing: act for act, things in _MADE.items() for thing in things.split()}
_TAKEN = frozenset("access permission permissions share sharing collaborator collaborators token session".split())
_KEPT = frozenset("note file document doc page article".split())
_BOTH = {("send", "quote"): "mail", ("send", "offer"): "mail", ("write", "note"): "write"}


def act_of(verb: str, things: Sequence[str] = ()) -> str | None:
    """The kind of act that a tool's verb belongs to; None where there is no list for it.

    Args:
        verb: the verb of its name.
        things: the name's other words: what is made or taken away may say more ("send", "money").
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
    """The verb of a tool's name, or its first or last word: the first of these for which there is a list; else the verb.

    Args:
        words: the words of the name: restart, service.
        verb: its verb, as far as `agentgate.review.draft.toolset.verb_of` can tell.
    """
    return next((word for word in (verb, *words[:1], *words[-1:]) if act_of(word) is not None), verb)


def usual(words: Sequence[str], verb: str) -> tuple[tuple[str, ...], ...]:
    """The usual words for what a tool's name suggests, in groups; only its verb where there is no list for it."""
    act = act_of(verb, words)
    if act is None:
        return ((verb,),)
    things = [word for word in words if word != verb and (act != "invite" or _THINGS.get(word) != act)]
    return groups(act, things[-1] if things else "")


def example(found: Sequence[Sequence[str]], words: Sequence[str], verb: str) -> str:
    """A request in which these words are found: the verb, the verb with its object, or a phrase without a place ("stop" alone denies)."""
    listed = tuple(phrase for group in found for phrase in group)
    plain = [phrase.removeprefix("^") for phrase in listed if PLACES.isdisjoint(phrase.split())]
    asked = (verb, f"{verb} {words[-1]}" if words else verb, *plain)
    intent = Intent("asked", 1, "Do it.", listed, "deny", (), ())
    return next((each for each in asked if derive((intent,), (f"Please {each}",))["asked"].presence == "present"), verb)
