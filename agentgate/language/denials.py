"""Words of denial: what denies, what only looks like it, and where the denial of a statement ends. Patterns for texts in small letters.

Rules: a denial in an instruction ("do not pay it") goes on to the end of its clause; that of a statement ("I can't come, move it") ends
with its part of the sentence, unless it speaks of what is to be done or allowed.
"""

from __future__ import annotations

import re

from agentgate.language.verbs import VERBS

_NEGATED = "do does did must should ca wo would could need is are was were has have had sha might".split()  # what stands before "n't"
_UNMEANT = r"(?:do not|don['\u2019]?t) (?:know|need|recogni[sz]e|remember|understand|forget)"
DENIES = (
    rf"(?:{_UNMEANT}|(?:{'|'.join(_NEGATED)})(?:n['’ʼ`´‘＇′ʹ՚‛]?| n['’])t|cannot|never|not|no|no longer|neither|nor|none|nobody"
    r"|without|instead\s{1,8}of|rather\s{1,8}than|except|stop|cancel that(?! [a-z])|abort|forget|ignore|disregard|hold off|refrain from"
    r"|avoid|refuse to|decline to|prevent|keep from|nothing (?:to|should|must|may)|(?:other than|(?:apart|aside) from)(?! (?:that|this)\b)"
    r"|(?:in (?:place|lieu)|with the exception) of|as opposed to|excluding(?! vat\b)|(?:all|(?:any|every)(?:thing|body|one)) but"
    r"|decided against|skip(?= \w+ing\b))\b"
)
_UNSEEN = re.compile("[\xad\u200b-\u200d\u2060\ufeff]")
_PARTED = re.compile(
    rf"(?<![\w'’])[^\W\d_][\w'’]{{0,12}}(?:{_UNSEEN.pattern}[\w'’]{{1,12}}){{1,12}}"
)  # "do\u00adn't": one word for whoever reads it
NEGATION = re.compile(rf"\b(?=[acdefhikmnoprsw]){DENIES}")  # in small letters
# Words of denial that deny nothing: "don't forget to", "no later than", "can't you", "before I forget", "invoice no. 7", "won't fix".
IDIOM = re.compile(
    r"\b(?=[abcdinorsw])(?:(?:don['\u2019]?t|do not|never) (?:forget|hesitate)(?= to\b)|not only\b|if not(?=,)|(?:no|not) (?:later|sooner|"
    r"earlier|more|less|fewer) than\b|no (?:rush|hurry|problem|worries|doubt|matter)\b(?! (?:to|in)\b)|(?<!\w )why not\b(?! \w+ed\b)|"
    r"or not(?=\s{0,3}(?:[,.;:!?)]|\Z))|(?<=why )don['\u2019]?t (?:you|we)\b|(?:can|could|won|would)['\u2019]?t (?:you|wait)\b|"
    r"without (?:delay|fail|further (?:ado|delay)|hesitation)\b|(?:before|in case|if|or|so) (?:i|we)(?:['\u2019]ll| might| may|"
    r" will)? forget\b|(?:i|we) (?:always|often|tend to) forget\b|no\. ?(?=[0-9])|(?<=\b(?:invoice|account|booking|receipt) )no (?=[0-9])|"
    r"(?<=\b(?:ticket|flight) )no (?=[0-9])|(?<=\b(?:as|to|is) )won['\u2019]?t[ -]?fix\b)"
)
NOTHING = re.compile(  # "pay nothing", "pay Ann nothing" deny all of it
    r"\b(?:(?:want|need|like) (?=\S+ (?:\w+ed|sent|paid|put|to be)\b)|(?:make sure|ensure)(?: that)? |see that )(?:nothing|nobody|no one)\b"
    r"|(?:(?<![^,.;:!?\n])|(?<=[,.;:!?\n-]\s)|(?<=\b(?:so|to)\s)|(?<=\b(?:and|but)\s)|(?<=(?:then|just)\s)|(?<=please\s))(?!if\b)"
    r"[a-z]{2,20} (?:(?:(?:me|us|him|her|it|them|absolutely) )?(?:nothing|nobody|no one|neither \S{1,40} nor)\b"
    r"|(?:(?!(?:and|but|or|if|when|that|is|are|was|says?)\b)[\w@.'\u2019-]{1,40} ){0,2}(?:nothing|nobody|no one|none|neither|no money)\b"
    r"(?=\s*(?:[,.;:!?\n]|\Z|(?:to|for|at|of|yet|until|back|today|now)\b)))(?! else)"
)
# "I can't make it on Friday, move it to Monday", "if it is not shipped, cancel it": a statement, and not about "you".
STATED = re.compile(
    r"\b(?:instead\s{1,8}of|rather\s{1,8}than)\Z"
    r"|\b(?!(?:you|one|agents?|assistants?)\b)[\w'\u2019]{1,40} (?:(?:ca|could|wo|is|are|was|were|has|have|had|did|does)n['\u2019]?t|cannot"
    r"|(?:can|could|will|is|are|was|were|has|have|had|did|does|am) not|(?:have|has|got) no|decided against|(?<=i['\u2019]m )not"
    rf"|(?<=\bif )(?:not|no|nobody)|(?<=\bthere['\u2019]s )no|(?<=\bthere is )no|{_UNMEANT})\Z"
)
SUBJECT = 60  # characters before a negation in which its subject stands
YOU = re.compile(r"\byou\b")
STATEMENT_END = re.compile(r",\s{1,8}|\s{1,8}so\s{1,8}|\s{1,8}[-\u2013\u2014]\s{1,8}")
EXCEPTION = re.compile(
    r"\b(?:instead\s{1,8}of|rather\s{1,8}than|except(?:\s{1,8}for)?|other\s{1,8}than|(?:apart|aside)\s{1,8}from)\s{1,8}(?P<next>[a-z-]+)?"
)
_AND = re.compile(r"\s{1,8}and\s{1,8}(?=(?:(?:then|also|please|just|now)\s{1,8}){0,2}(?P<verb>[a-z]{2,20})\s{1,8}(?P<object>\S+))")
_OBJECT = re.compile(r"(?:the|an?|my|our|his|her|their|its|this|that|these|those|it|them|him|me|us|everyone|everybody|[A-Z])\b|[A-Z]")
LISTED = re.compile(r"\b(?:or|nor|either|neither)\b")
BIDDING = re.compile(  # a statement about what is to be done, allowed or asked for: its denial goes on ("has not agreed to pay, send it")
    r"\byou\b|(?<!\bable )\bto (?!(?:the|an?|my|our|his|her|their|this|these|me|us|him|them|work)\b)|\bthat (?!(?:is|was)\b)\w"
    r"|\b(?:let|ok|okay|fine|right|sa(?:y|ys|id|ying)|ask(?:s|ed|ing)?|t(?:ell|ells|old)|allow(?:s|ed|ing)?|permit(?:s|ted)?|meant?|"
    r"authori[sz]ed?|approved?|agreed?|tolerate|accept(?:ed)?|request(?:s|ed)?|instruct(?:s|ed)?|supposed|should|must|may)\b"
)
# Behind a comma: a request, not the next one of a list that is denied ("not from ann@x.example, bob@x.example").
REQUEST = re.compile(r"(?!\w+(?:ing|ed)\b)[a-z](?:[a-z'\u2019-]*[a-z])?\s+(?!and\b)\S")
ALONE = frozenset({"no", "none", "nobody", "stop", "abort", "forget", "cancel that", "hold off"})  # say all they have to say


def joined(text: str) -> str:
    """A text in small letters, of the same length, in which no word that denies holds a sign that nobody sees."""
    return text if text.isascii() or _UNSEEN.search(text) is None else _PARTED.sub(_whole, text)


def _whole(found: re.Match[str]) -> str:
    word = _UNSEEN.sub("", found.group())
    return word.ljust(len(found.group())) if NEGATION.fullmatch(word) else found.group()


def exception_end(turn: str, text: str, start: int, end: int) -> re.Match[str] | None:
    """Where an exception ends before the next request: "move it to 10 instead of 9 and tell Ann"; None where it does not.

    Args:
        turn: the turn.
        text: the turn in small letters.
        start: where the words of denial start.
        end: where their clause ends.
    """
    words = EXCEPTION.match(text, start, end)
    if words is None or words["next"] in VERBS:  # "rather than call and tell Ann" denies both
        return None
    for found in _AND.finditer(text, words.end(), end):
        if found["verb"] in VERBS and _OBJECT.match(turn, found.start("object"), end):
            return found
    return None
