"""Delegation: words that leave the choice of actions to a named source ("do the tasks in Ann's e-mail").

Rules: only a request counts: the verb is an imperative ("please do", "read it and follow", "can you handle"), not part of a question
("what do the instructions in it say?"), a report ("she told me to follow the instructions in it"), a habit ("I do what it says") or an
explanation ("how to follow ..."). It needs

- a verb of doing;
- an object: a set of actions ("the tasks", "her points"), what somebody asks ("what she needs"), the content of something ("everything in
  it"), a text of instructions ("follow docs/setup.md"), or a pronoun for a set of actions that was introduced;
- one source: named in the same words, or introduced earlier in the same turn, by opening it ("read a.txt and follow the instructions") or
  by mentioning it ("Bea left a checklist, x.docx", "Ann wrote to me what she needs").

A source is doubtful when it is several ("all my e-mails", "my inbox", "everybody sent me", two files), since anyone who can write to the
user would choose, and when the user only mentioned it, since what they meant is then a guess. The caller removes quoted and denied words
(`agentgate.language.denials.clauses`). Every pattern is for lower case. Linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from agentgate.language.spans import small
from agentgate.language.turn import Turn

MAX_CLAUSE = 4000  # characters; a longer clause delegates nothing
_MOST = 16  # requests of one clause that are read

# --- verbs of doing ------------------------------------------------------------------------------------------------------
_FAR = r"(?:[^.;!?\n]|\.(?=\w)){1,100}?\b"  # to the rest of a verb after its object ("get it done", "carry them out")
_DONE = r"(?:done|finished|completed|sorted|settled|handled|arranged|dealt\s+with|ticked\s+off|taken\s+care\s+of)"
_WORK = (  # on a text or a list, step by step
    r"(?:do|perform|execute|carry\s+out|follow(?:\s+through\s+(?:on|with))?|work\s+(?:through|off)|get\s+through|go\s+through\s+with|"
    r"go\s+by|act\s+(?:on|upon)|implement|comply\s+with|obey|run\s+through|(?:tick|cross)\s+off|"
    rf"(?:get|have)(?=\s{_FAR}{_DONE}\b)|carry(?=\s{_FAR}out\b)|(?:tick|cross)(?=\s{_FAR}off\b))"
)
_DO = (
    rf"(?:{_WORK}|complete|finish|handle|process|take\s+care\s+of|see\s+to|deal\s+with|attend\s+to|fulfil+|tackle|action|arrange|"
    rf"organi[sz]e|prepare|sort\s+out|sort(?=\s{_FAR}out\b))"
)
# --- their objects -------------------------------------------------------------------------------------------------------
_ACTIONS = (
    r"(?:actions?(?:\s+items?)?|tasks?|steps?|instructions?|to-?\s?dos?(?:\s+list)?|task\s+list|requests?|items|things(?:\s+to\s+do)?|"
    r"chores|errands|jobs|points|duties|orders|directions|guidelines|procedure|checklist|assignments?|demands?|wishes)"
)
_PAPER = r"(?:(?:check)?list|plan|run-?book|play-?book|guide|recipe|hand-?over|manual|schedule|procedure|readme)"  # of instructions
_ONE = (
    r"(?:e-?mail|mail|message|letter|note|file|document|doc|attachment|pdf|(?:web\s?)?page|(?:web)?site|link|url|ticket|issue|invoice|"
    r"bill|report|thread|conversation|chat|channel|event|invitation|invite|meeting|list|comment|post|memo|spreadsheet|sheet|notice|"
    r"form|minutes|notes|agenda|text|sms|dm|scan|calendar\s+entry|entry|reminder|review|wiki|readme|guide|manual|checklist|to-?do|"
    r"hand-?over|run-?book)"
)
_MANY = (
    r"(?:e-?mails|mails|messages|letters|files|documents|attachments|tickets|issues|threads|posts|comments|links|pages|inbox|mailbox|"
    r"drive|calendar)"
)
_FILE = r"[\w/-][\w./-]{0,80}\.(?:txt|md|docx?|pdf|xlsx?|csv|od[st]|rtf|html?|rst|org|eml)\b"
_NAMED = (  # an address, a link, a file, a handle, a ticket
    r"(?:[\w.+-]+@[\w.-]+|https?://\S+|www\.\S+|[\w./-]+\.[A-Za-z]{2,5}\b|[@#]\w[\w.-]*|\b[a-z]{1,10}-[0-9]{1,8}\b)"
)
_BY = r"(?:in|of|from|on|at|by|inside|within|under)"
_STATED = (
    r"(?:specified|described|listed|mentioned|written|given|outlined|set\s+out|stated|contained|requested|asked(?:\s+for)?|provided|"
    r"detailed|laid\s+out|found)"
)
_SAYS = (
    r"(?:says?|asks?(?:\s+(?:for|you|me|us|to\s+do))?|wants?|requests?|requires?|tells?|instructs?|demands?|needs?|specif(?:y|ies)|"
    r"describes?|lists?|mentions?|wrote|writes?|left|noted|put|said|asked(?:\s+for)?|wanted|requested|needed|"
    r"(?:is|are|was)\s+ask(?:ing|ed)(?:\s+for)?)"
)
_WHOSE = r"(?:the|my|his|her|their|our|this|that|these|those|its|[\w-]+['\u2019]s?)"
_ADJECTIVES = r"(?:[\w-]+\s+){0,2}?"
_ALL = r"(?:all|each|every|any|both|everything|whatever|anything)"
_COUNT = r"(?:two|three|four|five|six|seven|eight|nine|ten|[0-9]{1,2})"

_START = (  # before an imperative
    r"(?:^\W{0,8}|[,;]\s{0,4}|\s[-\u2013\u2014]\s{1,4}|\b(?:and|then|also|so)\s{1,4})(?:(?:[0-9]{1,3}[.)]|please|kindly|just|now|then|next|"
    r"also|finally|afterwards?|so|ok|okay|go\s+ahead\s+and|(?:can|could|would|will)\s+you(?:\s+please)?|"
    r"i(?:['\u2019]d|\s+would)?\s+(?:like|want|need|ask|expect)\s+you\s+to|you\s+(?:should|must|may|can|need\s+to|have\s+to)|"
    r"make\s+sure\s+(?:to|you|that\s+you)|be\s+sure\s+to|help\s+me(?:\s+to)?|let['\u2019]?s)\W{1,8}){0,6}"
)
_REST = r"(?:[^.;!?\n]|\.(?=\w)){1,160}"  # to the end of the sentence; a dot inside a name does not end it
_END = (  # after a pronoun: "that letter" is none
    rf"(?=\s*(?:\Z|[,.;:!?)(\u2013\u2014-]|(?:please|kindly|for\s+(?:me|us)|today|tonight|tomorrow|now|asap|soon|first|out|off|"
    rf"one\s+by\s+one|step\s+by\s+step|in\s+(?:this|that)\s+order|right\s+away|as\s+(?:well|soon)|too|before|by|when|while|until|this|"
    rf"(?:can|could|would|will)\s+you|and|then|on\s+\w+day|{_DONE})\b))"
)
_PLACE = rf"(?:(?:as\s+)?{_STATED}\s+)?{_BY}\s+(?P<place>{_REST})"
_SPEAKER = (
    rf"(?P<speaker>(?:{_WHOSE}\s+)?(?:[\w.@'\u2019-]+\s+){{1,8}}?|(?:he|she|it|they)(?:['\u2019](?:s|re)\s+))(?:asking\s+for|{_SAYS})\b"
)
_JOINS = r"(?:and|or|but|because|as|since|so|if|when|before|until|while|for|to|with|in|of|from|on|at|by|please)"
_FOR = r"(?:for\s+(?:[\w.'\u2019-]+\s+){1,3})?"

# --- requests ------------------------------------------------------------------------------------------------------------
_SET = re.compile(  # a set of actions: "do all the tasks (that are) in ...", "take care of the things (that) Ann asks for (in ...)"
    rf"{_DO}\s+(?:(?:{_ALL}|{_COUNT})\b(?:\s+of)?\s*)?(?:{_WHOSE}\s+)?{_ADJECTIVES}{_ACTIONS}\b"
    rf"(?:\s+(?:that|which)\s+(?:are|is|were|you\s+find))?(?:\s+(?:(?:that|which)\s+)?(?!{_JOINS}\b){_SPEAKER})?(?:\s+{_PLACE})?"
)
_PLAN = re.compile(  # a list or a plan, worked through: "follow the runbook in ...", "work through Ann's list"
    rf"{_WORK}\s+(?:{_ALL}\b\s*(?:of\s+)?)?{_WHOSE}\s+{_ADJECTIVES}{_PAPER}\b(?:\s+{_PAPER}\b)?(?:\s+{_PLACE})?"
)
_ASKED = re.compile(  # "do (for Ann) what she asks for (in ...)"
    rf"{_DO}\s+{_FOR}(?:exactly\s+|precisely\s+|just\s+)?(?:what(?:ever)?|(?:everything|anything|all)(?:\s+that)?|as)\s+"
    rf"{_SPEAKER}(?:\s+{_PLACE})?"
)
_ACCORDING = re.compile(  # "handle it as described in the guide", "the way the guide says"; what a person wants is only how, not what
    rf"{_DO}\s+(?:[\w.'\u2019-]+\s+){{1,5}}?(?:(?:as\s+{_STATED}\s+{_BY}|according\s+to|as\s+per)\s+(?P<place>{_REST})|"
    rf"(?:(?:just|exactly|precisely)\s+as|the\s+way)\s+{_SPEAKER})"
)
_WITHIN = re.compile(rf"{_DO}\s+(?:everything|all|what(?:ever)?(?:\s+is|['\u2019]s))\s+(?:that(?:\s+is|['\u2019]s)\s+)?{_PLACE}")
_TEXT = re.compile(  # the text itself
    rf"(?:act\s+(?:on|upon)|take\s+care\s+of|deal\s+with|handle|see\s+to)\s+"
    rf"(?P<text>{_WHOSE}\s+{_ADJECTIVES}(?:{_ONE}|{_MANY})\b)"
)
_PAPERS = re.compile(
    rf"(?:follow|work\s+through|execute|implement|go\s+by|carry\s+out)\s+"
    rf"(?P<text>{_FILE}|(?:the|my|his|her|their|our|[\w-]+['\u2019]s?)\s+{_ADJECTIVES}(?:letter|note|memo|e-?mail|mails?|messages?)\b(?!\s+up\b))"
)
_ACCORDINGLY = re.compile(r"(?:act|proceed|do\s+so|take\s+action)\s+accordingly\b")
_THEM = re.compile(  # a pronoun for a set of actions that was introduced
    rf"{_DO}\s+(?:(?:all\s+)?(?:of\s+)?(?:it|that|them|these|those|this)(?:\s+all)?|all\s+(?:of\s+)?(?:the\s+)?{_COUNT}|"
    rf"all|both|everything|each(?:\s+(?:one|of\s+(?:it|them)))?){_END}"
)
_FORMS = (_SET, _PLAN, _ASKED, _ACCORDING, _WITHIN, _TEXT, _PAPERS, _ACCORDINGLY, _THEM)
_HOW = re.compile(
    r"\b(?:how|whether|why|explain|describe|tell\s+me|should\s+(?:i|we)|do\s+(?:i|we)|did|does|if\s+(?:i|we)\s+should|were\s+you|you\s+were)\b"
)
_OTHERS = re.compile(  # what others are told, and what somebody will do or always does, up to the verb
    r"\b(?:(?:ask(?:s|ed)?|t(?:ell|ells|old)|remind(?:s|ed)?|instruct(?:s|ed)?|wants?|wanted)\s+(?!you\b)[^.,;!?\n]{1,60}?\bto"
    r"|(?:says?|said|suggests?|recommends?|thinks?)\s+(?:that\s+)?(?:to|you|we|i)\b(?!\s+(?:can|should)\b)"
    r"|(?:i|we|they|he|she)(?:['\u2019](?:ll|m|re)|\s+(?:always|usually|often|normally|sometimes|never|just|only|will|can|must|should|have\s+to|"
    r"had\s+to|need\s+to|want\s+to|wanted\s+to|am|are|was|were)))\b[^,;]*\Z"
)
_QUOTES = re.compile(  # "the label says, do the tasks"; not "the bill says 50, do the tasks", nor "Ann wrote, do what she asks"
    r"\b(?:(?:says?|said|ends|reads|goes|called|titled)|t(?:ells?|old)\s+(?:me|us|him|her|them|you|everyone|everybody))\s?[,-]\s{0,4}(?:please\s+)?\Z"
)
_BEFORE = 160  # characters before a verb that may hold these
_ASKS_BACK = re.compile(r"\b(?:can|could|would|will)\s+you\b")

# --- sources -------------------------------------------------------------------------------------------------------------
_OPENED = re.compile(
    r"\b(?:read|open|check|look\s+(?:at|into|in|up)|see|visit|go\s+to|get|find|review|fetch|load|browse)\b[^.;!?\n]{0,80}?"
    rf"(?P<text>\b{_ONE}\b|{_NAMED}|\b{_MANY}\b)"
)
_LEFT = (
    r"(?:left|wrote|written|sent|e-?mailed|mailed|posted|gave|given|handed|put|made|drew\s+up|prepared|shared|forwarded|pinned|dropped|scanned|"
    r"saved|stored|uploaded|copied|noted|jotted|typed|dictated|listed|attached|collected|added|keeps?|(?:has|have)(?!\s+to\b)|got|"
    r"(?:here|there)(?:['\u2019]s|\s+(?:is|are))|explains?|says?)"
)
_THERE = re.compile(  # "Ann mailed me", "Bea left a checklist", "I scanned it to x.txt", "there is a letter", "the list is in x.txt"
    r"\b(?:(?P<wrote>(?:e-?mailed|mailed|messaged|texted|wrote)\s+(?:to\s+)?(?:me|us))\b"
    rf"|{_LEFT}\b[^;!?\n]{{0,120}}?(?P<left>{_NAMED}|(?<![\w-])(?:{_ONE}|{_MANY})\b)"
    rf"|(?:is|are)\s[^.;!?\n]{{0,40}}?(?P<is>{_NAMED}))"
)
_HOLDS = re.compile(r"\b(?:has|holds|contains|says|lists|explains)\b")
_NEAR = 80  # characters before these that may hold their subject
_TO_DO = re.compile(  # that a text is about actions
    rf"\b(?:{_ACTIONS}|(?:list|plan|hand-?over|run-?book)(?!\s+of\b)|(?:something|everything|anything)\s+(?:to|for)"
    rf"|what\s+(?:(?:[\w'\u2019-]+\s+){{1,3}}?{_SAYS}|has\s+to|(?:needs|is)\s+to|must|to\s+do))\b"
)
_MANY_PEOPLE = re.compile(
    r"\b(?:people|everyone|everybody|customers|colleagues|folks|many|several|all\s+of\s+(?:them|us))\b"
    r"|\b\w+\s+and\s+\w+\s+(?:both\s+|each\s+|have\s+)?(?:left|wrote|sent|mailed|e-?mailed|posted|messaged|texted|asked)\b"
)
_SOURCE = re.compile(rf"\b{_ONE}\b|{_NAMED}")
_WIDE = re.compile(rf"\b{_MANY}\b|\b{_ALL}\s+(?:{_WHOSE}\s+)?{_ADJECTIVES}{_ONE}\b")
_FILES = re.compile(_FILE)
_PERSON = re.compile(r"^(?:[a-z][\w.'\u2019-]*(?:\s+[a-z][\w.'\u2019-]*){0,2})$")
_PRONOUN = re.compile(rf"^(?:it|them|this|that|these|those|he|she|they|there|here){_END}|^(?:he|she|they|it)['\u2019](?:s|re)$")
_NOBODY = re.compile(r"^(?:i|we|you|the\s+user)$")

# --- what is looked at ---------------------------------------------------------------------------------------------------
_VERBS = (  # how each verb begins: a clause without any is skipped
    "do,perform,execute,complete,carry,finish,follow,handle,process,work,go,take,see,attend,act,proceed,implement,comply,obey,fulfil,"
    "tackle,run,deal,get,have,tick,cross,action,arrange,organise,organize,prepare,sort"
).split(",")
_VERB = re.compile(rf"\b(?=[acdefghioprstw])(?:{'|'.join(_VERBS)})l*\s")
_ASKED_TO = re.compile(rf"{_START}(?P<verb>(?:{'|'.join(_VERBS)})l*\s)")


_AFTER = re.compile(r"(?i)^\W*(?:do not|don['\u2019]?t|never|not|please|ever)\b(?:\W+(?:ever|please)\b)*")  # before denied words


class Delegation(NamedTuple):
    """The words that delegate, and why their source is doubtful (empty: it is not)."""

    words: str
    doubt: str = ""


class _Introduced(NamedTuple):
    """A source: its words; whether it is about actions; whether it is named in the request or opened, not only mentioned; several."""

    source: str
    actions: bool
    opened: bool
    wide: bool


def handed_over(turn: Turn) -> Delegation | str | None:
    """The delegation of a turn, or as text the words that withdraw one."""
    said: list[tuple[str, str]] = []
    denied: list[tuple[str, str]] = []
    for voice, start, end in turn.clauses:
        own, bare = turn.own[start:end], turn.bare[start:end]
        if voice == "said":
            said.append((own, bare))
        elif voice == "denied":
            denied.append((_AFTER.sub(_blank, own), _AFTER.sub(_blank, bare)))
        elif said:  # reported words may mention a source, and request nothing
            said[-1] = said[-1][0] + own, said[-1][1].ljust(len(said[-1][0]) + len(own))
    given = delegation(said)
    if given is not None:
        return given
    refused = delegation(denied)
    return refused.words if refused is not None else None


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


def delegation(clauses: Iterable[tuple[str, str]]) -> Delegation | None:
    """The delegation of one turn: the first request with a certain source; else the first with a doubtful one; else None.

    Args:
        clauses: the user's own words, clause by clause, in order: as written (a file's name may be in quotes), and with short
            quotations blanked out (a request may not); both of the same length.
    """
    known: _Introduced | None = None
    unread: list[str] = []  # earlier clauses not yet read for the sources they introduce
    doubtful: Delegation | None = None
    for clause, bare in clauses:
        asked = _requests(clause, bare)
        for before in unread if asked else ():
            known = _introduced(small(before), known)
        if asked:
            unread.clear()
        made = _delegated(clause, asked, known)
        if made is not None and not made.doubt:
            return made
        doubtful = doubtful or made
        unread.append(clause)
    return doubtful


def _requests(clause: str, bare: str) -> list[re.Match[str]]:
    """The forms that match in a clause, from left to right; a verb spelt with a long s ("\u017fee to it") requests nothing."""
    asked = small(bare)
    if (
        len(clause) > MAX_CLAUSE
        or _VERB.search(asked) is None
        or not any(map(bare.lower().__contains__, _VERBS))
        or _question(small(clause))
    ):
        return []
    places = [verb.start("verb") for verb in _ASKED_TO.finditer(asked)]
    matches = [match for at in places for form in _FORMS if (match := form.match(asked, at)) is not None]
    return [match for match in matches[:_MOST] if not _told(asked, match.start())]


def _told(asked: str, at: int) -> bool:
    """Whether a verb that starts here explains, asks about or reports an action."""
    near = max(0, at - _BEFORE)
    return any((_HOW.search(asked, 0, at), _OTHERS.search(asked, near, at), _QUOTES.search(asked, near, at)))


def _question(clause: str) -> bool:
    return clause.rstrip().endswith("?") and not _ASKS_BACK.search(clause)


def _introduced(clause: str, known: _Introduced | None) -> _Introduced | None:
    """The source that a clause, or its part before a request, introduces; else the one known before."""
    opened = _OPENED.search(clause)
    source = opened["text"] if opened is not None else None if _question(clause) else _mentioned(clause)
    if source is None:
        return known
    files = {*_FILES.findall(clause), *_FILES.findall(known.source if known is not None else "")}
    wide = len(files) > 1 or _WIDE.search(source) is not None or _MANY_PEOPLE.search(clause) is not None
    actions = _TO_DO.search(clause) is not None or (known is not None and known.actions)
    return _Introduced(next(iter(files), source), actions, opened is not None, wide or (known is not None and known.wide))


def _mentioned(clause: str) -> str | None:
    """The source that a statement mentions."""
    there = _THERE.search(clause)
    if there is not None:
        return next(words for words in there.groups() if words is not None)
    holds = _HOLDS.search(clause)
    before = _SOURCE.search(clause, max(0, holds.start() - _NEAR), holds.start()) if holds is not None else None
    return before.group() if before is not None else None


def _delegated(clause: str, asked: list[re.Match[str]], known: _Introduced | None) -> Delegation | None:
    """The first request of a clause with a source."""
    read = small(clause)
    for match in asked:
        source = _source(match, read, _introduced(read[: match.start()], known))
        if source is not None:
            words = " ".join(clause[match.start() : match.end()].split())[:120]
            return Delegation(words, "many sources" if source.wide else "" if source.opened else "a text that is only mentioned")
    return None


def _source(match: re.Match[str], clause: str, known: _Introduced | None) -> _Introduced | None:
    """The source that a request names, or that was introduced before it; None where there is none."""
    if match.re is _THEM:
        return known if known is not None and known.actions else None
    said = [group for group in ("text", "place", "speaker") if match.re.groupindex.get(group) and match[group] is not None]
    for group in said:
        source = clause[match.start(group) : match.end(group)].strip()
        if _PRONOUN.match(source):
            return known
        wide = _WIDE.search(source) is not None
        person = group == "speaker" and match.re is not _ACCORDING and _PERSON.match(source) and not _NOBODY.match(source)
        if wide or person or _SOURCE.search(source):
            return _Introduced(source, actions=True, opened=True, wide=wide)
    return known if not said and known is not None and (known.actions or known.opened or match.re is _ACCORDINGLY) else None
