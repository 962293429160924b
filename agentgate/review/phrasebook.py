"""How people ask in English for what tools do: the words that a draft proposes for an intent, and a reviewer picks from.

Rules: only proposals; what counts are the `words` a reviewer signs. One list per kind of act, each phrase in the form that
`words` take: ``{thing}`` stands for what the tool acts on, ``someone`` and ``something`` for what the user names, ``^`` for a
word that is a noun as often as a verb. No phrase is for looking ("tell me", "let me know").
"""

from __future__ import annotations

from collections.abc import Mapping

_LISTS: Mapping[str, str] = {
    "send": "send, forward, pass on, pass something on, reply, respond, ^answer, get back to",
    "mail": (
        "send, ^email, ^e-mail, ^mail, email to, mail to, email someone, mail someone, write to, write an email, write a mail, "
        "write someone an email, write someone a mail, write something mail, ^write someone, reply, respond, ^answer, answer the email, "
        "answer the mail, forward, pass on, pass something on, get back to, let someone know, tell someone, inform, notify, "
        "^ask someone, ^remind someone, ^thank someone, drop someone a line, drop someone a note, reach out, get in touch"
    ),
    "post": (
        "post, ^message, ^ping, ^dm, write to, write something channel, announce, share something channel, tell someone, "
        "let someone know, inform, notify, ^ask someone, ^remind someone, ^thank someone, drop someone a line, put something channel"
    ),
    "pay": (
        "pay, settle, transfer, wire, remit, send, make a payment, reimburse, chip in, donate, top up, put something aside, "
        "set something aside, put aside, give something back, give back"
    ),
    "refund": "refund, reimburse, money back, pay back, pay something back, give something back, give back, return the money",
    "plan": (
        "schedule, plan, arrange, organise, organize, set up, set something up, line up, start a {thing}, create a {thing}, new {thing}"
    ),
    "book": (
        "^book, book a {thing}, reserve, schedule, arrange, organise, organize, plan a {thing}, set up, set something up, "
        "create a {thing}, "
        "make a {thing}, add a {thing}, new {thing}, invite, put something calendar, add something calendar, enter something calendar, "
        "block something calendar, ^block, block out, pencil in, pencil something in"
    ),
    "invite": "invite, add someone, ^add someone, include someone, have someone join, bring someone in, bring in",
    "move": (
        "move, reschedule, postpone, shift, delay, push back, push something back, bring forward, bring something forward, put off, "
        "put something off, change the time, change the date"
    ),
    "cancel": "cancel, call off, call something off, drop the {thing}, end the {thing}, terminate",
    "create": (
        "create a {thing}, make a {thing}, make something {thing}, add a {thing}, open a {thing}, start a {thing}, draft a {thing}, "
        "write a {thing}, set up a {thing}, file a {thing}, new {thing}"
    ),
    "write": (
        "write down, write something down, write something {thing}, note down, note something down, put something {thing}, save, "
        "make a {thing}, make something {thing}, create a {thing}, start a {thing}, new {thing}"
    ),
    "add": "append, add, extend, insert, put something {thing}, write something {thing}",
    "change": (
        "change, update, modify, edit, alter, amend, adjust, correct, fix, increase, decrease, raise, lower, reduce, double, halve, "
        "switch, replace, rename, set, set something to, put something right, put something to, bring something to, make it, from now on"
    ),
    "assign": "assign, reassign, hand over, hand something over, give something to, pass something to, put someone on",
    "close": "close, resolve, mark something done, mark something solved, set something done, set something solved",
    "approve": "approve, accept, confirm, sign off, green-light, merge",
    "publish": "publish, release, ship, put something online, go live, make something public",
    "share": (
        "share, give someone access, grant someone access, get someone access, let someone edit, let someone see, let someone read, "
        "let someone view, make something available, open something up"
    ),
    "delete": (
        "delete, remove, erase, discard, trash, ^bin, get rid of, throw away, throw something away, throw out, throw something out, "
        "clear out, clean up, clean out, wipe, scrap, take something off"
    ),
    "order": "^order, buy, purchase, get someone a {thing}, order a {thing}",
    "run": "run, execute, start, launch, kick off, trigger",
}
_SAME = {
    "email": "mail",
    "reply": "mail",
    "message": "post",
    "notify": "post",
    "comment": "post",
    "reimburse": "refund",
    "transfer": "pay",
    "schedule": "book",
    "reserve": "book",
    "reschedule": "move",
    "remove": "delete",
    "drop": "delete",
    "purge": "delete",
    "erase": "delete",
    "wipe": "delete",
    "insert": "add",
    "append": "add",
    "save": "write",
    "put": "write",
    "update": "change",
    "edit": "change",
    "modify": "change",
    "set": "change",
    "rename": "change",
    "replace": "change",
    "grant": "share",
    "merge": "approve",
    "buy": "order",
    "make": "create",
    "open": "create",
    "submit": "create",
    "execute": "run",
    "start": "run",
    "forward": "send",
}
ACTS: tuple[str, ...] = tuple(sorted(_LISTS))


def act_of(verb: str) -> str | None:
    """The kind of act a tool's verb belongs to; None where there is no list for it."""
    act = _SAME.get(verb, verb)
    return act if act in _LISTS else None


def phrases(act: str, thing: str = "") -> tuple[str, ...]:
    """The usual words for an act, ready for `words` of an intent.

    Args:
        act: one of `ACTS`.
        thing: what the tool acts on ("event"); without it the phrases that need one are left out, and the act itself stands for them.

    Raises:
        KeyError: no such list.
    """
    listed = (phrase.strip() for phrase in _LISTS[act].split(","))
    article = "an {thing}" if thing[:1] in set("aeiou") else "a {thing}"
    found = tuple(p.replace("a {thing}", article).replace("{thing}", thing) for p in listed if thing or "{thing}" not in p)
    return found or (act,)
