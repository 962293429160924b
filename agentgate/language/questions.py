"""Words in questions and reports, which request nothing: "how much did I pay", "check whether Ann was invited", "the mail I sent".

Rules: a word is asked about where its part of the sentence begins as a question ("what", "did I", "is the"), as a request to look and
"whether", "who" or "how" ("tell me which", "see if"), or as a request to look at a thing that the rest describes ("show me the mails
that"). It is reported where it is in the past tense after its subject ("they sent", "we have paid"), unless the workflow lists that very
form. Each part of a sentence (after a comma, "and", "please", "can you") is read on its own, so "check what they sent and send it back"
requests to send. Questions that are requests ("can you", "do you mind", "is there any chance you", "why don't we", "what about") request
what they say. For lower case; only a bounded text before the word is read.
"""

from __future__ import annotations

import re

_BEFORE = 160  # characters before a word in which its question may begin
_SHORT = 60  # characters before a word that may hold its subject
_END = r"(?:[,.:](?![0-9])|[;!?\n\u2013\u2014]|\s-\s)"  # of a part of a sentence
_JOINS = r"\b(?:and|then|so|but|please|kindly|otherwise|or else|if (?:so|not|yes|no)|(?:can|could|would|will) (?:you|we))\b"
_PART = rf"(?:(?!{_END}|{_JOINS}).){{0,140}}"  # the rest of it
_FILLER = r"(?:hi|hey|hello|ok|okay|oh|by the way|btw|first|also|and|or|so|but|quick question|[0-9]{1,2}[.)]|just|now|then|again|\W)"
_START = rf"(?:^|{_END})\s*\W{{0,8}}(?:{_FILLER}\s+){{0,4}}"
_WH = (
    r"(?:what|which|who|whom|whose|why|how|(?:when|where)(?=['\u2019]s| (?:did|do|does|is|are|was|were|am|have|has|had|will|would)\b))"
    r"(?:['\u2019](?:s|re|d|ll|ve))?(?! (?:about|if|ever|not|don['\u2019]?t|do(?:es)?n['\u2019]?t|is why|means)\b)"
    r"(?! (?:(?:i|we)(?: would|['\u2019]d)? (?:really )?(?:need|want|like) is (?:to|for|that)"
    r"|you (?:should|must|can|could|(?:have|need) to) do"
    r"|(?:needs|has) to (?:be done|happen))\b)"
)
_ASKED_FOR = (
    r"you\b|able\b|(?:any |a |the )?(?:chance|way|possibility)\b(?! (?:that )?\w+ (?:was|were|ha[sd])\b)|possible|ok(?:ay)?\b|fine\b|"
    r"hoping|wondering|looking|wanting"
)
_INVERTED = (
    rf"(?:(?:is|are|was|were|am|has|had|does)\s(?!to\b)(?!(?:it |there |that |this |i |we )?(?:{_ASKED_FOR}))(?!{_PART}\byou\b)"
    r"|would (?:it|that) be (?:wise|safe|smart|sensible|wrong|bad|dangerous|a (?:good|bad) idea)\b"
    r"|do you (?:(?:ever|always|usually|normally|often|automatically|still|really|actually) )?\Z"
    r"|(?:do|have) (?:i|we|they)\b|(?:did|have) you\b(?! (?:time|a moment|a minute|mind))|did\b)"
)
_LOOK = (
    r"(?:tell|show|check|see|know|find out|confirm|remind|look up|look|verify|wonder(?:ing)?|explain|curious|recall|remember|understand|"
    r"sure|idea|figure out|work out|wants? to know|let me know)"
)
_AT = r"(?:list|find|read|review|count|summari[sz]e|(?:sum|add) up|describe|look at)\s(?:what|which|who|how|whether)\b"
_SEEN = (  # the thing to look at: "show me the orders that go out", not "list them in a new file"
    r"(?:(?:show|tell|give) (?:me|us)(?: about)?|(?<!\bthe )list|find|look up|read|sum up|let (?:me|us) know) (?:the|my|our|all|any)\b"
)
_WHETHER = r"(?:whether|if|what|which|who|whom|whose|when|where|why|how)\b(?! (?:you|not|so)\b)"
_AIM = r"(?:in|into|onto|on|as|to|for|with|so|now)\b"  # what is then done with it
_ASKED = re.compile(
    rf"(?s:(?:{_START}(?:{_WH}|{_INVERTED})|\b{_LOOK}\b(?:(?!{_END}|{_JOINS}).){{0,40}}?\b{_WHETHER}|\b{_AT}"
    rf"|\b{_SEEN}(?!{_PART}\b{_AIM}))"
    rf"(?!{_PART}\byou (?:can|could|would|to)\b){_PART}\Z)"
    rf"|\b(?:what|where|who|whom|which|when|how) to (?:\w+ly )?\Z"
    r"|\b(?:skip|leave out|(?<=\w )than)(?: to)?(?: (?:the|a|any))? \Z"
)
_DOER = re.compile(  # not "have it cancelled"
    r"\b(?:(?<!\bwhat if )(?<!\bgreat if )(?<!\bgood if )(?<!\bnice if )(?<!\bbetter if )(?:i|we)|he|she|they|who|"
    r"(?:that|which) (?:was|were)|(?<!\bhave )(?<!\bget )(?<!\bwant )(?<!\bneed )(?<!\bsee )(?<!\bmake )(?<!\blike )(?:it|that))"
    r"(?:['\u2019](?:ve|d|s))?\s+(?:(?:have|had|has|already|just|ever|once|only|usually|always|both|recently|then) ){0,2}\Z"
)
_OWN = re.compile(  # the user's own plans: "I'll pay it myself", "before I cancel it", "I'm thinking of changing it"
    r"\b(?:(?:i|we)(?:(?:['\u2019]ll| will)(?! need\b)| may| might|(?:['\u2019]m|['\u2019]re| am| are) going to"
    r"|(?:['\u2019]m| am| was| were|['\u2019]re) (?:thinking (?:of|about)|considering))"
    r"|(?:can|could) (?:i|we) afford to)\s+(?:(?!not\b)\w+\s+){0,2}\Z"
    r"|\b(?:before|after|until|unless|in case) (?:i|we)\s+(?:(?:\w+ly|ever|even|can|could|also|have to|need to|want to|go and) ){0,2}\Z"
)
_PAST = re.compile(r"(?!(?:need|feed|proceed)\b)\w+ed\b")  # phrases have no irregular inflections
# Before a word that requests nothing of the assistant: "should I pay", "she asked me to pay", "tell Ann to pay", "it says pay",
# "title: pay", "he thinks you should pay", "a mail asking to pay", "could Ann pay"; or nothing yet: "ask me before you pay".
_NOT_I = r"(?<!\bi )(?<!\bwe )"
_MODAL = r"(?:can|could|should|must|may|might|will|would|shall|(?:ha(?:ve|s|d)|need|ought) to|be)"
_AT_FIRST = r"(?:(?:really|just|also|now|then|still|please) )?"
_ASIDE = re.compile(
    r"\b(?:(?:should|shall) (?:i|we)|(?:he|she|they) (?:should|must|can|could|may|will|would|ha[sd] to|have to|needs? to)"
    r"|whether (?:\S+ )?to|(?<!\bi['\u2019]d )say(?:s|ing)?(?: that| to)?|said(?: that| to)?"
    r"|(?:wanted|like|urged|begged) (?:me|us)(?: both)? to|want (?:me|us) to|wants you to"
    r"|(?:ask(?:s|ed)?|t(?:ell|ells|old)|remind(?:s|ed)?|wants|instruct(?:s|ed)?|advised?|invited?)"
    r" (?:(?!and\b)\S{1,40} ){0,3}(?<!\byou )to"
    rf"|{_NOT_I}(?:says|said|thinks|thought|claims|wrote|writes|texted|suggest(?:s|ed)?|recommend(?:s|ed)?|advises|requests|requested|asks|asked|"
    rf"demands|insists)(?: (?:me|us))?(?: (?:that|if|whether))? (?:i|we|you|it|he|she|they)(?: {_MODAL}){{0,2}}"
    rf"|{_NOT_I}(?:suggests|suggested|recommends|recommended|advises|requests)(?: to)?|reads|asked for (?:\S+ ){{1,4}}to be"
    r"|(?<!['\u2019]m )(?<!\bam )(?<!['\u2019]re )(?<!\bare )(?:asking|telling|instructing|ordering|urging|advising|reminding)"
    r" (?:(?!and\b)\S{1,40} ){0,3}to|(?:supposed|meant|required|obliged) to"
    rf"|according to [^,.;!?\n]{{1,60}},? (?:i|we|you) {_MODAL}"
    r"|(?<!\bmy )(?:advice|instructions?|steps?|suggestions?|recommendations?) (?:is|are|was|were)(?: to|:)|(?:called|titled|entitled)"
    r"|(?<!\bhow )(?<!\bwhat )about|(?:ask|tell|check with|let|show|warn) (?:me|us)\b[^.;!?\n]{0,60}\bbefore(?: you)?"
    r"|(?:i|we)(?:['\u2019]ll| will|['\u2019](?:m|re) going to) (?:have|need) to)"
    rf"\s{{1,4}}{_AT_FIRST}\Z"
    r"|(?:^|(?<=[.!?\n]\s))(?:can|could|will|would|may|might) "
    rf"(?!(?:you|u|ya|we|i|it|this|that|these|those|one|some\w+|any\w+|please|the|my|our)\b)[\w'\u2019-]{{1,40}} {_AT_FIRST}\Z"
    r"|\b(?:say(?:s|ing)?|writes?|wrote|title|subject|reply|called|named|remind|(?:goes|reads)(?: like this)?|"
    r"(?:an?|the|this|my|her|his|their|[\w.-]{1,40}['\u2019]s) "
    r"(?:[\w-]{1,40} )?(?:message|e-?mail|text|comment|post|draft|note|to-?do|reminder|task))\b[^.!?\n:]{0,60}:\s[^.!?\n]{0,60}\Z"
    r"|\bhere(?:['\u2019]s| is) what [^.!?\n]{1,40}\s(?:[-\u2013\u2014]|(?<=:\s))\s?[^.!?\n]{0,60}\Z"
)
_SAYS = re.compile(  # before a clause: "it says, please pay"
    r"\b(?:says|said|writes|wrote|reads|t(?:ells|old) (?:me|us|him|her|them|everyone|everybody))\s?,\s{1,8}\Z"
)
_SAID = 40  # characters before a clause that may hold these


def asked_about(turn: str, start: int, at: int) -> bool:
    """Whether a word of a turn is asked about.

    Args:
        turn: the user's own words in lower case, without quotations.
        start: where the clause starts.
        at: where the word starts.
    """
    before = turn[start:at] if start >= at - _BEFORE else "x" + turn[at - _BEFORE : at]  # "x": no question begins at the cut
    return _ASKED.search(before) is not None


def told_of(turn: str, start: int, at: int, words: str, listed: tuple[str, ...]) -> bool:
    """Whether the words in the turn at `at` report something that was done, or that the user will do.

    Args:
        turn: as in `asked_about`.
        start: where the clause starts.
        at: where the words start.
        words: the words as written.
        listed: the words of the intent; a past form among these requests ("moved" for an address).
    """
    behind = max(start, at - _SHORT)
    if _OWN.search(turn, behind, at) is not None and not words.startswith("need "):
        return True
    return words not in listed and _PAST.match(words) is not None and _DOER.search(turn, behind, at) is not None


def aside(turn: str, start: int, at: int) -> bool:
    """Whether a word is reported, dictated or for somebody else, so that it requests nothing of the assistant; see `asked_about`."""
    if _ASIDE.search(turn, max(start, at - _BEFORE), at) is not None:
        return True
    return at - start < _BEFORE and _SAYS.search(turn, max(0, start - _SAID), start) is not None
