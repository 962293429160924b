"""Delegation: words that hand the choice of actions to a named source ("do the tasks in Ann's e-mail").

Rules: only a request counts: the verb stands where an imperative stands ("please do", "read it and follow", "can you
handle"), not in a question ("what do the instructions in it say?"), a report ("she told me to follow the instructions in
it") or an explanation ("how to follow ..."). It needs a verb of doing, an object that is a set of actions or a "what
somebody asks", and one source: named in the same words, or opened before in the same turn ("read a.txt and follow the
instructions"). A source that is many ("all my e-mails", "my inbox") is *wide*: whoever can write to the user would choose.
Quoted and denied words are the caller's business (`agentgate.prompt.clauses`). Every pattern is for words in small
letters. Linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from agentgate.spans import small

MAX_CLAUSE = 4000  # characters; a longer clause hands nothing over

_DO = (
    r"(?:do|perform|execute|complete|carry\s+out|finish|follow(?:\s+through\s+(?:on|with))?|handle|process|work\s+through|"
    r"go\s+through\s+with|take\s+care\s+of|see\s+to|deal\s+with|attend\s+to|act\s+(?:on|upon)|implement|comply\s+with|obey|"
    r"fulfil+|tackle|run\s+through)"
)
_ACTIONS = (
    r"(?:actions?(?:\s+items?)?|tasks?|steps?|instructions?|to-?\s?dos?(?:\s+list)?|task\s+list|requests?|items|things\s+to\s+do|"
    r"chores|errands|orders|directions|guidelines|procedure|checklist|assignments?|demands?|wishes)"
)
_ONE = (
    r"(?:e-?mail|mail|message|letter|note|file|document|doc|attachment|pdf|(?:web\s?)?page|(?:web)?site|link|url|ticket|issue|invoice|"
    r"bill|report|thread|conversation|chat|channel|event|invitation|invite|meeting|list|comment|post|memo|spreadsheet|sheet|notice|"
    r"form|minutes|notes|agenda|text|sms|calendar\s+entry|entry|reminder|review|wiki|readme|guide|manual)"
)
_MANY = (
    r"(?:e-?mails|mails|messages|letters|files|documents|attachments|tickets|issues|threads|posts|links|pages|inbox|mailbox|drive|"
    r"calendar)"
)
_NAMED = r"(?:[\w.+-]+@[\w.-]+|https?://\S+|www\.\S+|[\w./-]+\.[A-Za-z]{2,5}\b|[@#]\w[\w.-]*)"  # an address, a link, a file, a handle
_BY = r"(?:in|of|from|on|at|by|inside|within|under)"
_STATED = (
    r"(?:specified|described|listed|mentioned|written|given|outlined|set\s+out|stated|contained|requested|asked(?:\s+for)?|provided|"
    r"detailed|laid\s+out|found)"
)
_SAYS = (
    r"(?:says?|asks?(?:\s+(?:for|you|me|us|to\s+do))?|wants?|requests?|requires?|tells?|instructs?|demands?|needs?|specif(?:y|ies)|"
    r"describes?|lists?|wrote|writes?|said|asked(?:\s+for)?|wanted|requested|is\s+ask(?:ing|ed)(?:\s+for)?)"
)
_WHOSE = r"(?:the|my|his|her|their|our|this|that|its|[\w-]+['\u2019]s?)"
_ADJECTIVES = r"(?:\w+\s+){0,2}?"
_ALL = r"(?:all|each|every|any|both|everything|whatever|anything)"

_START = (  # where an imperative stands
    r"(?:^\W{0,8}|[,;]\s{0,4}|\b(?:and|then|also)\s{1,4})(?:(?:[0-9]{1,3}[.)]|please|kindly|just|now|then|next|also|finally|afterwards?|so|ok|"
    r"okay|go\s+ahead\s+and|(?:can|could|would|will)\s+you(?:\s+please)?|"
    r"i(?:['\u2019]d|\s+would)?\s+(?:like|want|need|ask|expect)\s+you\s+to|you\s+(?:should|must|may|can|need\s+to|have\s+to)|"
    r"make\s+sure\s+(?:to|you|that\s+you)|be\s+sure\s+to|help\s+me(?:\s+to)?|let['\u2019]?s)\W{1,8}){0,6}"
)
_REST = r"(?:[^.;!?\n]|\.(?=\w)){1,160}"  # to the end of the sentence; a dot inside a name does not end it
_PLACE = rf"(?:(?:as\s+)?{_STATED}\s+)?{_BY}\s+(?P<source>{_REST})"
_REQUEST = re.compile(
    rf"{_START}(?P<verb>{_DO})\s+(?:{_ALL}\b(?:\s+of)?\s*)?(?:{_WHOSE}\s+)?{_ADJECTIVES}{_ACTIONS}\b"
    rf"(?:\s+(?:that|which)\s+(?:are|is|were|you\s+find))?(?:\s+{_PLACE})?"
)
_ASKED = re.compile(
    rf"{_START}(?P<verb>{_DO})\s+(?:exactly\s+|precisely\s+|just\s+)?(?:what(?:ever)?|(?:everything|anything|all)(?:\s+that)?|as)\s+"
    rf"(?P<source>(?:{_WHOSE}\s+)?(?:[\w.@'\u2019-]+\s+){{1,8}}?){_SAYS}\b"
)
_WITHIN = re.compile(
    rf"{_START}(?P<verb>{_DO})\s+(?:everything|all|what(?:ever)?(?:\s+is|['\u2019]s))\s+(?:that(?:\s+is|['\u2019]s)\s+)?{_PLACE}"
)
_ACT = re.compile(
    rf"{_START}(?P<verb>act\s+(?:on|upon)|take\s+care\s+of|deal\s+with|handle|see\s+to)\s+"
    rf"(?P<source>{_WHOSE}\s+{_ADJECTIVES}(?:{_ONE}|{_MANY})\b)"
)
_ACCORDINGLY = re.compile(rf"{_START}(?P<verb>act|proceed|do\s+so|take\s+action)\s+accordingly\b")
_OPENED = re.compile(
    r"\b(?:read|open|check|look\s+(?:at|into|in|up)|see|visit|go\s+to|get|find|review|fetch|load|browse)\b[^.;!?\n]{0,80}?"
    rf"(?P<source>\b{_ONE}\b|{_NAMED}|\b{_MANY}\b)"
)
_HOW = re.compile(r"\b(?:how|whether|why|explain|describe|tell\s+me|should\s+(?:i|we)|do\s+(?:i|we)|did|does|if\s+(?:i|we)\s+should)\b")
_ASKS_BACK = re.compile(r"\b(?:can|could|would|will)\s+you\b")
_SOURCE = re.compile(rf"\b{_ONE}\b|{_NAMED}")
_WIDE = re.compile(rf"\b{_MANY}\b|\b{_ALL}\s+(?:{_WHOSE}\s+)?{_ADJECTIVES}{_ONE}\b")
_PERSON = re.compile(r"^(?:[a-z][\w.'\u2019-]*(?:\s+[a-z][\w.'\u2019-]*){0,2})$")
_PRONOUN = re.compile(r"^(?:it|them|this|that|these|those|he|she|they|there)$")
_NOBODY = re.compile(r"^(?:i|we|you|the\s+user)$")
_VERBS = (  # how each verb begins: a clause without any is not looked at
    "do,perform,execute,complete,carry,finish,follow,handle,process,work,go,take,see,attend,act,proceed,implement,comply,obey,fulfil,"
    "tackle,run,deal"
).split(",")
_VERB = re.compile(rf"\b(?=[acdefghioprstw])(?:{'|'.join(_VERBS)})l*\s")
_ASKED_TO = re.compile(rf"{_START}(?:{'|'.join(_VERBS)})l*\s")
_FORMS = (_REQUEST, _ASKED, _WITHIN, _ACT, _ACCORDINGLY)


class Delegation(NamedTuple):
    """The words that hand the choice over, and whether to many sources rather than one."""

    words: str
    wide: bool


def delegation(clauses: Iterable[tuple[str, str]]) -> Delegation | None:
    """What the clauses of one turn hand over: the first request that names one source; else a wide one; else None.

    Args:
        clauses: the user's own words, clause by clause, in order: as they stand (a file's name may be in quotes), and with
            short quotations blanked out (a request may not); both of the same length.
    """
    opened: str | None = None
    unread: list[str] = []  # clauses before this one that have not been looked at for what they open
    wide: Delegation | None = None
    for clause, bare in clauses:
        if _may_ask(clause, bare):
            for before in unread:
                seen = _OPENED.search(small(before))
                opened = seen["source"] if seen is not None else opened
            unread.clear()
            found = _in_clause(clause, bare, opened)
            if found is not None and not found.wide:
                return found
            wide = wide or found
        unread.append(clause)
    return wide


def _may_ask(clause: str, bare: str) -> bool:
    """Whether a clause has a verb of `_VERBS` where an imperative stands; one only in an old spelling ("\u017fee to it") asks nothing."""
    asked = small(bare)
    if len(clause) > MAX_CLAUSE or _VERB.search(asked) is None or _ASKED_TO.search(asked) is None:
        return False
    return any(map(bare.lower().__contains__, _VERBS))


def _in_clause(clause: str, bare: str, opened: str | None) -> Delegation | None:
    read, asked = small(clause), small(bare)
    if read.rstrip().endswith("?") and not _ASKS_BACK.search(read):  # a question
        return None
    for form in _FORMS:
        for match in form.finditer(asked):
            at = match.start("verb")
            if _HOW.search(asked, 0, at):
                continue
            source = _source(match, read, opened)
            if source:
                words = " ".join(clause[at : match.end()].split())[:120]
                return Delegation(words, wide=_WIDE.search(source) is not None)
    return None


def _source(match: re.Match[str], clause: str, opened: str | None) -> str | None:
    """What the request names as its source, or what was opened before it; None when nothing is named."""
    if "source" in match.re.groupindex and match["source"] is not None:
        source = clause[match.start("source") : match.end("source")].strip()
        if not _PRONOUN.match(source):
            named = _SOURCE.search(source) or _WIDE.search(source)
            person = match.re is _ASKED and _PERSON.match(source) and not _NOBODY.match(source)
            return source if named or person else None
    seen = _OPENED.search(clause, 0, match.start("verb"))
    return seen["source"] if seen is not None else opened
