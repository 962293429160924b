"""Which parts of a clause request an action, whatever the action: by grammar alone, without a vocabulary of intents.

Rules: a clause is read piece by piece ("..., and ..."). A piece requests an action when it is

- a command: an imperative with an object ("block Friday for me", "double what she gets");
- a polite request ("could you ...", "make sure ...", "..., please"), also without a verb ("12.50 back to each of them, please");
- a statement of need ("she should be in that meeting too", "I need a table for two", "Ann gets the postage back").

A question requests no action; neither does a request for information ("show", "find", "tell me"), a greeting, thanks, or a statement of
facts ("the bill is in bill.txt", "I have to leave at five"). A piece that only shapes a request or an answer ("keep the second one", "call
it 'rent'", "use bullet points") counts where the turn has no other request and asks for no information.

An error either way has little effect: see `unheard` of a workflow's intent. Every pattern is for lower case and for one piece of bounded
length; linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from agentgate.language.days import MONTHS
from agentgate.language.verbs import VERBS
from agentgate.values.times import WEEKDAYS

MAX_PIECE = 400  # characters; a longer piece requests nothing


class Piece(NamedTuple):
    """Where a piece starts and ends, and what it does: it "asks" for an action, "shapes" one or an answer, or wants to "look"."""

    start: int
    end: int
    what: str


_BREAK = re.compile(  # between two pieces; each alternative begins with one of few characters
    r"[,;:()\s](?:(?<=[,;:])\s|(?<=[()\n])|(?<=\s)(?:and|then|but|[-\u2013\u2014]{1,3})(?=\s))"
)
_PLEASE = ("please", "pls", "plz", "kindly")
_TAIL = 60  # characters at the end of a clause that may hold a tag
_TAG = re.compile(r"[,\s]\s{0,4}(?:can|could|would|will|won['\u2019]t) (?:you|ya)(?: please)?\W{0,4}\Z")

# --- how a piece begins --------------------------------------------------------------------------------------------------
_SOFT = (
    r"(?:please|pls|plz|kindly|just|also|now|then|next|finally|so|and|but|or|okay|ok|well|hey|hi|hello|oh|actually|first|afterwards?|later|"
    r"[0-9]{1,3}[.)])\b\W{1,4}"
)
_ASKING = (
    r"(?:(?:can|could|would|will) you|would you mind|(?:i|we)(?:['\u2019]d| would)? (?:like|love|want|need|ask|expect) you to|"
    r"you (?:should|can|could|may|must|have to|need to)|make sure|be sure to|let['\u2019]s|let us(?! know)|let (?!me\b|us\b|it be\b)|"
    r"go ahead(?: and)?|do me a favou?r(?: and)?|(?:don['\u2019]?t|do not) forget to|remember to|feel free to|be so kind (?:as )?to|"
    r"(?:can|could|may) (?:i|we)(?= (?:get|have)\b)|get rid of|do (?:it|that|this|them|so))\b\W{0,4}"
)
_HEAD = re.compile(rf"\W{{0,8}}(?:{_SOFT})*(?P<asking>{_ASKING}(?:{_SOFT})*)?")
_AGREED = re.compile(r"\b(?:go ahead|do (?:it|that|this|them|so))\b")  # a request without an object
_IDLE = re.compile(
    r"take (?:care(?! of (?!your))|your time|it easy)|let me\b|have (?:a|fun)|be (?:well|safe|careful|patient)|bear with|hang on|hold on|"
    r"give .{1,40} my (?:best|love)"
)

# --- requests for information ---------------------------------------------------------------------------------------------------
_ASKS_WHAT = r"(?:what|which|who|whom|whose|when|where|why|how|whether|if)"
_TOLD = (  # the information requested
    r"(?:summary|overview|list|number|address|dates?|time|names?|details?|info|information|figures?|numbers|total|sum|answer|idea|link|status|"
    r"balance|iban|rundown|breakdown|explanation|look|comparison|table of)"
)
_GIVEN = r"(?!.*\b(?:access|permissions?|rights|back|money|refund|voucher|credit|role)\b)"  # "give me edit access" requests an action
_LOOK = re.compile(
    r"(?:show|list|find|search|check(?! (?:in|out)\b)|double[ -]check|read|open|look(?! after\b)|see|view|summari[sz]e|explain|describe|"
    r"compare|count|calculate|compute|estimate|analy[sz]e|verify|translate|fetch|browse|recap|outline|review|recommend|suggest|advise|"
    r"guess|think|know|print|sort(?!.{0,40}\bout\b)|repeat (?:that|it)(?! \w*(?:ment|tion|er|ing)\b)|convert [0-9.,]+|"
    r"answer in|name (?:the|all)|"
    r"hear|understand|learn|(?:sum|add|pull|bring|look) up|(?:figure|find|work) out|go (?:over|through)|"
    r"(?:walk|talk) (?:me|us) through|(?:take|have) (?:an?|another) (?:\w+ )?(?:look|peek|read)|tell (?:me|us)|let (?:me|us) know|"
    rf"say (?:that|the|it|this|{_ASKS_WHAT})|{_ASKS_WHAT}|remind (?:me|us) (?!to\b)|(?:give|get) (?:me|us) {_GIVEN}|"
    r"answer (?:this|that|my|the|these) questions?|"
    r"help (?:me|us) (?:to )?(?:understand|find|see|check|decide)|"
    r"(?:make|write|prepare|pull|give|get|have|need|want|draw up) (?:(?:me|us) )?(?:an?|the|my|his|her|their|some) "
    rf"(?:[\w-]+ ){{0,2}}?{_TOLD})\b"
)

# --- needs and wishes ----------------------------------------------------------------------------------------------------
_NOW = "(?:also |still |really |just |only |now |then )?"
_NOBODY = rf"(?:i|we|you|it|this|that|there|because|as|since|while|maybe|perhaps|{_ASKS_WHAT})"  # no such statement begins with these
_WORDS = rf"(?:(?!(?:i|we|you|that|because|says?|said|thinks?|thought|hopes?|{_ASKS_WHAT})\b)[\w@.'\u2019#/-]{{1,40}} )"
_NEED = re.compile(  # what is to happen to somebody or something; who is to get what
    rf"(?!{_NOBODY}\b)(?!they\b.* be\b){_WORDS}{{1,8}}?{_NOW}"
    r"(?:(?:(?:ha(?:s|ve)|needs?|ought) to|should|must|(?:is|are) to) "
    r"(?!(?:have|know|be (?:somewhere|there|here|fine|ok|enough|around))\b)\w"
    r"|(?:gets|needs) (?:the|an?|my|his|her|their|our|its|access|full|back|[0-9\u20ac$\u00a3]))"
)
_OUGHT = (" to ", " should ", " must ", " gets ", " needs ")  # every match contains one of these
_WISH = re.compile(
    rf"(?:i|we)(?:['\u2019]d| would)? {_NOW}(?:need|want|(?<=d )(?:like|love)) (?:to (?P<verb>[a-z-]+)|(?P<object>(?!to\b)\w.*))"
    r"|(?:it|that)(?: would|['\u2019]d) be (?:\w+ )?(?:great|good|nice|lovely|helpful|fantastic|better|kind) if"
    r"|(?:i|we)(?:['\u2019]d| would) (?:appreciate (?:it )?|be (?:glad|grateful|happy) )if"
)
_NUMBER = r"(?:[0-9][0-9.,]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|hundred)"
_MONEY = r"(?:euros?|eur|dollars?|pounds?|francs?)"
_AMOUNT = re.compile(  # "12.50 back to each of them", "fifteen instead of ten", "half of it to Ann"
    rf"(?:another |only )?(?:[\u20ac$\u00a3]?{_NUMBER}|half(?! past)|double|twice)\b[^.!?]{{0,60}}?"
    rf"\b(?:back|instead|more|(?<=\d\d )to|(?<=it )to|{_MONEY} (?:to|for|into|back))\b(?! (?:{_NUMBER}|than)\b)"
)

# --- commands ------------------------------------------------------------------------------------------------------------
_DETERMINER = (
    r"(?:the|an?|my|our|his|her|their|its|this|that|these|those|me|us|him|them|it|what|whatever|whoever|everything|everyone|everybody|all|"
    rf"both|each|every|some|{_NUMBER}|half|[\u20ac$\u00a3][0-9.,]+)\b"
)
_COMMAND = re.compile(
    rf"(?P<verb>[a-z]{{2,20}}(?:-[a-z]{{2,12}})?)(?P<rest> (?:(?:up|off|out|down|back|away|on|in|over) )?(?P<object>{_DETERMINER})?.*)"
)
_SHAPED = re.compile(r"\b(?:in|as|for) the (?:subject|title|text|body|description|reference|caption|heading|name)\b")
_FINITE = re.compile(  # a verb of a statement
    r"\b(?:is|are|was|were|am|has|had|will|would|did|does|went|came|took|said|left|got|gave|cost|fell|rose|broke|told|wrote|began|became|"
    r"isn['\u2019]t|wasn['\u2019]t|works|looks|seems|needs|wants|says)\b"
    r"|\b(?!need|feed|speed)(?<!the )(?<!an )(?<!my )(?<!a )(?<!all )[a-z]{3,}ed\b"
)
_QUESTION = re.compile(
    r"(?:what|who|whom|whose|when|where|which|how|why|is|are|was|were|am|did|does|do|have|has|had|can|could|should|shall|may|might|will|would)"
    r"(?:['\u2019](?:s|re|d|ll)|n['\u2019]t)?\b"
)
_REQUESTED = re.compile(r"(?:can|could|would|will)\b.*(?:\bbe [a-z]+(?:ed|en|t|ne|ng)\b|\bplease\b)")
_SHAPING = frozenset("use keep leave call title name mention include note say choose pick sign write address mind be wait".split())
_OWN = re.compile(r"(?:my|our|the|this|these|those|[a-z]{2,20}['\u2019]s)\s")  # "my balance, please" requests information
_NO_VERB = frozenset((*MONTHS, *WEEKDAYS)) | frozenset(
    """
    a all also am an and any are as at be because been both but by can could dear did do does each every for from good great had has have
    he hello her here hers him his hope how i if in into is it its last let like many may maybe me might mine more most much must my need
    never next nice no none not of on once one only or our out over perhaps please same shall she should since so some sorry still such
    thank thanks that the their them then there these they this those though thus to today tomorrow tonight too two under until up us
    very was we well were what when where which while who whom whose why will with would yes yesterday yet you your cheers enjoy whether
    about after again against before during than through between above below off want wants needs wonder curious know think
    half three four five six seven eight nine ten fun both except plus minus per via
    """.split()
)


def pieces(text: str, start: int, end: int) -> Iterator[Piece]:
    """The pieces of a clause that request an action, shape one, or request information.

    Args:
        text: the turn in lower case, without quotations.
        start: where the clause starts in it.
        end: where it ends.
    """
    clause = text[start:end]
    tag = _TAG.search(clause, max(0, len(clause) - _TAIL))
    if tag is not None:
        clause = clause[: tag.start()]
    question = tag is None and clause.rstrip().endswith("?")
    polite = tag is not None or any(map(clause.__contains__, _PLEASE))
    rest: Piece | None = None  # "please" makes this a request where no piece is one by itself
    done = False
    for at, to in _places(clause):
        place = Piece(start + at, start + to, _kind(clause[at:to].strip(), question=question))
        if place.what in {"asks", "shapes", "look"}:
            done = True
            yield place
        elif place.what == "open" and rest is None:
            rest = place
    if polite and rest is not None and not done and not question:
        yield rest._replace(what="asks")


def _places(clause: str) -> Iterator[tuple[int, int]]:
    at = 0
    for gap in _BREAK.finditer(clause):
        if 1 < gap.start() - at <= MAX_PIECE:
            yield at, gap.start()
        at = gap.end()
    if 1 < len(clause) - at <= MAX_PIECE:
        yield at, len(clause)


def _kind(piece: str, *, question: bool) -> str:
    """What one piece does: it asks, shapes, looks, says how things are, or leaves that open (then a "please" decides)."""
    head = _HEAD.match(piece)
    at = head.end() if head is not None else 0
    asking = head is not None and head["asking"] is not None
    rest = piece[at:]
    if _IDLE.match(rest):
        return "says"
    if not any(map(str.isalnum, rest)):
        return "asks" if asking and _AGREED.search(piece) else "says"
    if _LOOK.match(rest):
        return "look"
    if asking:
        return "asks"
    if question:
        return "asks" if _REQUESTED.match(rest) else "look"
    if _QUESTION.match(rest):
        return "look"
    wish = _WISH.match(rest)
    if wish is not None:
        return _wished(wish)
    if (any(map(rest.__contains__, _OUGHT)) and _NEED.match(rest)) or _AMOUNT.match(rest):
        return "asks"
    return _command(rest)


def _wished(wish: re.Match[str]) -> str:
    if wish["object"] is not None:
        return "look" if _LOOK.match("need " + wish["object"]) else "asks"
    return "asks" if wish["verb"] is None or wish["verb"] in VERBS | {"have", "get"} else "says"


def _command(rest: str) -> str:
    command = _COMMAND.match(rest)
    if _OWN.match(rest):
        return "says"
    if command is None:
        return "open" if " " in rest else "says"
    verb, object_ = command["verb"], command["object"]
    if verb in _SHAPING or _SHAPED.search(rest):
        return "shapes"
    if verb in VERBS:
        return "asks" if object_ is not None or _FINITE.search(command["rest"]) is None else "says"
    if verb in _NO_VERB:
        return "says" if _FINITE.search(rest) or verb in _SUBJECTS else "open"
    if verb.endswith(("ed", "ing", "ly")) or (verb.endswith("s") and not verb.endswith("ss")):
        return "says" if _FINITE.search(command["rest"]) else "open"
    if object_ is not None and _FINITE.search(command["rest"]) is None:
        return "asks"
    return "says" if _FINITE.search(rest) else "open"


_SUBJECTS = frozenset("i we you he she it they there this that hope thank thanks sorry hello dear good yes no".split())
