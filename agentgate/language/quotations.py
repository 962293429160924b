"""The user's own text of a turn: without forwarded, pasted, fenced and quoted text, which is not the user's.

Rules: other people's text is blanked out, so that spans stay valid. A short quotation within the user's sentence is a name and stays.
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import normalize

from agentgate.language.spans import small

_BREAK = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029](?!(?<=\r)\n)")  # other ways to begin a line
_SPACE = re.compile("[\xa0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]")
_MARK = re.compile("[\u0300-\u036f]")
_ACCENT = re.compile(f"[A-Za-z]{_MARK.pattern}")
_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_FROM = "(?:from|von|de|da|van|fr\u00e5n|fra)"  # as mail programs write it in several languages
_FIELD = (
    "(?:sent|date|to|cc|bcc|reply-to|subject|importance|gesendet|datum|an|betreff|envoy\u00e9|\u00e0|objet|"
    "enviad[ao](?: e[lm])?|fecha|para|asunto|inviato|data|a|oggetto|verzonden|aan|onderwerp|skickat|till|\u00e4mne|"
    "assunto|sendt|dato|til|emne|kopi[ae]?)"
)
_AGAIN = (
    "(?:original|forwarded) message|forwarded by|urspr\u00fcngliche nachricht|weitergeleitete nachricht|"
    "message (?:d['\u2019]origine|transf\u00e9r\u00e9)|"
    "mensaje (?:original|reenviado)|messaggio (?:originale|inoltrato)|(?:oorspronkelijk|doorgestuurd) bericht|"
    "mensagem (?:original|encaminhada)|(?:ursprungligt|vidarebefordrat) meddelande|"
    "(?:oprindelig|opprinnelig|videresendt) (?:meddelelse|melding|besked)"
)
_WROTE = "(?:wrote|schrieb|\u00e9crit|escribi\u00f3|ha scritto|schreef|escreveu|skrev)"
_HEAD = "(?:sent|cc|reply-to|subject|gesendet|betreff|envoy\u00e9|objet|asunto|oggetto|onderwerp|\u00e4mne|emne)"
_WHEN = r"(?:on|am|le|el|il|op|em|den|[a-z\u00e5\u00e6\u00f8]{3,8}\.?,? [0-9]{1,2}\.)"  # a Norwegian reply begins with the day
_LINES = r"\n(?:[^\n]*\n){0,2}"  # a line may separate two fields, or belong to a name
_FORWARDED_AS = (
    rf"(?im)^[ \t]*(?:[-\u2013\u2014_]{{2,40}}[ \t]*(?:{_AGAIN})|begin forwarded message|(?:fwd?|wg|tr|rv|forwarded):"
    rf"|{_WHEN}(?!\w)[^\n]{{1,600}}(?:\n[^\n]{{0,200}}?)?\b{_WROTE}(?:[ \t][^\n:]{{1,400}})?[ \t]?:[ \t\r]*$"
    rf"|\*{{0,2}}{_FROM}[ \t]?:\*{{0,2}}.+{_LINES}[ \t]*\*{{0,2}}{_FIELD}[ \t]?:"
    rf"|\*{{0,2}}{_FROM}[ \t]?:[^\n]{{1,400}}[ \t](?:sent|gesendet|envoy\u00e9|enviado|inviato|verzonden|skickat|sendt|subject)[ \t]?:"
    rf"|\*{{0,2}}{_HEAD}[ \t]?:.*{_LINES}[ \t]*\*{{0,2}}{_FROM}[ \t]?:"
    rf"|[^\n]{{0,200}}<[^\s<>@]{{1,64}}@[^\s<>@]{{1,255}}>[ \t]*\n[^\n]{{0,80}}[0-9]:[0-9]{{2}}[^\n]{{0,20}}\n[ \t]*{_FIELD}[ \t]?:)"
)
# Where an accent was a separate character, `_shown` leaves one after its letter.
_FORWARDED = re.compile("".join(c if c.isascii() or not c.isalpha() else c + "\u0301?" for c in _FORWARDED_AS))
_TEXT = "(?:text|message|mail|e-?mail|letter|note|thread|conversation|chat)"
_PASTED = re.compile(  # for lower case; each match ends with a colon, a line break or a tag
    r"\b(?=[acegprstwh])(?:"
    r"(?:summari[sz]e|translate|proofread|rewrite|explain|analy[sz]e|classify|reply to|respond to|answer)\b[^.\n:]{0,60}"
    rf"\b(?:this|following|below|{_TEXT})\b[^.\n:]{{0,30}}:"
    rf"|(?:received|got|here(?:['\u2019]s| is| are))\b[^.\n:]{{0,60}}\b{_TEXT}s?\b[^.\n:]{{0,60}}:"
    r"|(?:wrote|writes|says|said|sent me|reads)\b[^.\n:]{0,40}:[ \t]*\n)"
    rf"|<(?:{_TEXT}|(?:block)?quote)>"
)
_QUOTED_LINE = re.compile(r"(?m)^[ \t\xa0\u200b-\u200d\u2060\ufeff]{0,40}>.*$")
QUOTE = re.compile(  # each alternative begins with its mark, so that a text without any is fast
    r"\"([^\"]+)\"|“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»|»([^«»]+)«|‹([^‹›]+)›|＂([^＂]+)＂|「([^「」]+)」|`([^`\n]{1,2000})`"
    r"|'(?<!\w')([^'\n]{1,2000})'(?!\w)|‘(?<!\w‘)([^’]{1,2000}+)’(?!\w)"
)


def blank(match: re.Match[str]) -> str:
    """Spaces, of the same length."""
    return " " * len(match.group())


def hidden(match: re.Match[str]) -> str:
    """A word without meaning, of the same length."""
    return "_" * len(match.group())


_SENTENCE = re.compile(r"[!?;:]\s|\.\s(?![0-9])")
_TITLE = re.compile(  # a dot that ends no sentence: "Dr. Meyer", "J. R. Smith", "St. James Road"; not "Main St. Pay it"
    r"\b(?:Dr|Drs|Mr|Mrs|Ms|Mx|Prof|Rev|Hon|Gen|Col|Capt|Lt|Sgt|Hr|Fr|Mme|Sra?|vs)\.\s|^(?:[A-HJ-Z]\.\s)+(?=[A-Z])"
    r"|(?:^|\b(?:of|the|in|at|to|near|from)\s)(?:St|Ste|Mt|Ft)\.\s(?=[A-Z])"
)


def quoted(match: re.Match[str]) -> str:
    """The text inside the quotation marks of a match of `QUOTE`."""
    return next(group for group in match.groups() if group is not None)


def _blank_quotation(match: re.Match[str]) -> str:
    inner = quoted(match)
    return blank(match) if len(inner.split()) > 6 or _SENTENCE.search(_TITLE.sub("", inner)) else match.group()


def _shown(text: str) -> str:
    """The text of the same length with every kind of space as a space and each letter and its accent as one character."""
    if text.isascii():
        return text
    text = _SPACE.sub(" ", text)
    return _ACCENT.sub(lambda letter: normalize("NFC", letter.group()).ljust(2, "\u0301"), text) if _MARK.search(text) else text


@lru_cache(maxsize=32)
def own_text(turn: str) -> str:
    """The turn with forwarded, fenced and pasted text blanked out (same length); quotations within the user's sentences stay."""
    text = _BREAK.sub("\n", turn)
    shown = _shown(text)
    if (forwarded := _FORWARDED.search(shown)) is not None:
        text = text[: forwarded.start()].ljust(len(text))
        shown = _shown(text)
    pasted = _PASTED.search(small(shown)) if ":" in text or "<" in text else None
    if pasted:
        text = text[: pasted.end()].ljust(len(text))
    if "```" in text or "~~~" in text:
        text = _FENCE.sub(blank, text)
    return _QUOTED_LINE.sub(blank, text) if ">" in text else text


@lru_cache(maxsize=32)
def own_words(turn: str) -> str:
    """The turn with quoted, forwarded, fenced and pasted text blanked out (same length, so that spans stay valid).

    A quotation of at most six words without sentence punctuation is a name that the user gives ("open 'bill-december.txt'"), and stays.
    """
    return without_quotations(own_text(turn))


def without_quotations(own: str) -> str:
    """The result of `own_text` with quotations of other people blanked out."""
    return QUOTE.sub(_blank_quotation, own)


def unquoted(words: str) -> str:
    """The result of `own_words` with short quotations blanked out too: a name may be given in quotes, a request may not."""
    return QUOTE.sub(blank, words)


def hidden_quotations(words: str) -> str:
    """The result of `own_words` with a word without meaning, of the same length, for each short quotation."""
    return QUOTE.sub(hidden, words)
