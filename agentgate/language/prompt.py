"""The user's own words, read once: what is said, what is denied, what is only quoted, and the typed entities in it.

Rules: only the user's turns come here, never tool output. Quoted and forwarded text says nothing and names nothing; a
negated clause withdraws what it names, also from earlier turns. A span belongs to one type, and an entity is a whole one:
``3.34`` is not in ``ORD-3.34``, nor ``bob@acme.example`` in ``bob@acme.example.evil.com``. One left-to-right pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal
from unicodedata import normalize

from agentgate.language.denials import (
    ALONE,
    BIDDING,
    IDIOM,
    LISTED,
    NEGATION,
    NOTHING,
    REQUEST,
    STATED,
    STATEMENT_END,
    SUBJECT,
    YOU,
    exception_end,
    joined,
)
from agentgate.language.spans import (
    Entity,
    entities,
    glued,
    small,
)
from agentgate.values.entities import COMMON_ENDS, Key, normal
from agentgate.values.paths import FINDABLE

__all__ = ["MAX_TURN", "Entity", "Prompt", "Voice", "clauses", "entities", "own_words", "small", "unquoted"]

MAX_TURN = 65_536  # characters of one turn; more is refused by the gate

Voice = Literal["said", "denied"]

_BREAK = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029](?!(?<=\r)\n)")  # other ways to begin a line
_SPACE = re.compile("[\xa0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]")
_MARK = re.compile("[\u0300-\u036f]")
_ACCENT = re.compile(f"[A-Za-z]{_MARK.pattern}")
_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_FROM = "(?:from|von|de|da|van|fr\u00e5n|fra)"  # as mail programs write it in the languages they speak
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
_LINES = r"\n(?:[^\n]*\n){0,2}"  # a line may stand between two fields, or be part of a name
_FORWARDED_AS = (
    rf"(?im)^[ \t]*(?:[-\u2013\u2014_]{{2,40}}[ \t]*(?:{_AGAIN})|begin forwarded message|(?:fwd?|wg|tr|rv|forwarded):"
    rf"|{_WHEN}(?!\w)[^\n]{{1,600}}(?:\n[^\n]{{0,200}}?)?\b{_WROTE}(?:[ \t][^\n:]{{1,400}})?[ \t]?:[ \t\r]*$"
    rf"|\*{{0,2}}{_FROM}[ \t]?:\*{{0,2}}.+{_LINES}[ \t]*\*{{0,2}}{_FIELD}[ \t]?:"
    rf"|\*{{0,2}}{_FROM}[ \t]?:[^\n]{{1,400}}[ \t](?:sent|gesendet|envoy\u00e9|enviado|inviato|verzonden|skickat|sendt|subject)[ \t]?:"
    rf"|\*{{0,2}}{_HEAD}[ \t]?:.*{_LINES}[ \t]*\*{{0,2}}{_FROM}[ \t]?:"
    rf"|[^\n]{{0,200}}<[^\s<>@]{{1,64}}@[^\s<>@]{{1,255}}>[ \t]*\n[^\n]{{0,80}}[0-9]:[0-9]{{2}}[^\n]{{0,20}}\n[ \t]*{_FIELD}[ \t]?:)"
)
# Where an accent was a character of its own, `_shown` leaves one behind its letter.
_FORWARDED = re.compile("".join(c if c.isascii() or not c.isalpha() else c + "\u0301?" for c in _FORWARDED_AS))
_TEXT = "(?:text|message|mail|e-?mail|letter|note|thread|conversation|chat)"
_PASTED = re.compile(  # in small letters; without a colon or a tag there is none
    r"\b(?=[acegprstwh])(?:"
    r"(?:summari[sz]e|translate|proofread|rewrite|explain|analy[sz]e|classify|reply to|respond to|answer)\b[^.\n:]{0,60}"
    rf"\b(?:this|following|below|{_TEXT})\b[^.\n:]{{0,30}}:"
    rf"|(?:received|got|here(?:['\u2019]s| is| are))\b[^.\n:]{{0,60}}\b{_TEXT}s?\b[^.\n:]{{0,60}}:"
    r"|(?:wrote|writes|says|said|sent me|reads)\b[^.\n:]{0,40}:[ \t]*\n)"
    rf"|<(?:{_TEXT}|(?:block)?quote)>"
)
_QUOTED_LINE = re.compile(r"(?m)^[ \t\xa0\u200b-\u200d\u2060\ufeff]{0,40}>.*$")
_QUOTE = re.compile(  # each begins with its mark, so that a text without any is read at once
    r"\"([^\"]+)\"|“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»|»([^«»]+)«|‹([^‹›]+)›|＂([^＂]+)＂|「([^「」]+)」|`([^`\n]{1,2000})`"
    r"|'(?<!\w')([^'\n]{1,2000})'(?!\w)|‘(?<!\w‘)([^’]{1,2000}+)’(?!\w)"
)
_CLAUSE = re.compile(  # in small letters; each begins with a space or a comma
    r"[\s,](?:(?<=[.!?;]\s)(?<!\b(?:dr|mr|ms|mx)\.\s)(?<!\bmrs\.\s)(?<!\bprof\.\s)|(?<=\n)(?<!\binstead\n)(?<!\brather\n)|(?:(?<=,)\s|(?<!\s\s)(?<!,))\s{0,7}"
    r"\b(?:but(?<!\ball.but)(?<!(?:any|ery)thing.but)(?<!(?:any|ery)body.but)(?<!(?:any|ery)one.but)|instead(?!\s{1,8}of\b)|rather(?!\s{1,8}than\b)|then|however)\b"
    r"|(?<=,)\s{1,8}(?=(?:and|just|only|please)\b))"
)


def _blank(found: re.Match[str]) -> str:
    return " " * len(found.group())


def _hidden(found: re.Match[str]) -> str:
    return "_" * len(found.group())


_SENTENCE = re.compile(r"[!?;:]\s|\.\s(?![0-9])")
_TITLE = re.compile(  # a dot that ends no sentence: "Dr. Meyer", "J. R. Smith", "St. James Road"; not "Main St. Pay it"
    r"\b(?:Dr|Drs|Mr|Mrs|Ms|Mx|Prof|Rev|Hon|Gen|Col|Capt|Lt|Sgt|Hr|Fr|Mme|Sra?|vs)\.\s|^(?:[A-HJ-Z]\.\s)+(?=[A-Z])"
    r"|(?:^|\b(?:of|the|in|at|to|near|from)\s)(?:St|Ste|Mt|Ft)\.\s(?=[A-Z])"
)


def _blank_quotation(found: re.Match[str]) -> str:
    inner = next(group for group in found.groups() if group is not None)
    return _blank(found) if len(inner.split()) > 6 or _SENTENCE.search(_TITLE.sub("", inner)) else found.group()


def _shown(text: str) -> str:
    """The text with spaces of any width as a space, letters with their accents as one, of the same length."""
    if text.isascii():
        return text
    text = _SPACE.sub(" ", text)
    return _ACCENT.sub(lambda found: normalize("NFC", found.group()).ljust(2, "\u0301"), text) if _MARK.search(text) else text


@lru_cache(maxsize=32)
def own_text(turn: str) -> str:
    """The turn with forwarded, fenced and pasted text blanked out (same length), quotations within the user's sentences kept."""
    text = _BREAK.sub("\n", turn)
    shown = _shown(text)
    if (forwarded := _FORWARDED.search(shown)) is not None:
        text = text[: forwarded.start()].ljust(len(text))
        shown = _shown(text)
    pasted = _PASTED.search(small(shown)) if ":" in text or "<" in text else None
    if pasted:
        text = text[: pasted.end()].ljust(len(text))
    if "```" in text or "~~~" in text:
        text = _FENCE.sub(_blank, text)
    return _QUOTED_LINE.sub(_blank, text) if ">" in text else text


@lru_cache(maxsize=32)
def own_words(turn: str) -> str:
    """The turn with quoted, forwarded, fenced and pasted text blanked out (same length, so that spans stay true).

    A quotation of at most six words without sentence punctuation is a name the user gives ("open 'bill-december.txt'"),
    not a quotation of somebody, and stays.
    """
    return without_quotations(own_text(turn))


def without_quotations(own: str) -> str:
    """What `own_text` left, without quotations of somebody."""
    return _QUOTE.sub(_blank_quotation, own)


def unquoted(words: str) -> str:
    """What `own_words` left, with the short quotations blanked out too: a name may be given in quotes, a request may not."""
    return _QUOTE.sub(_blank, words)


def hidden_quotations(words: str) -> str:
    """What `own_words` left, with a word that means nothing in place of each short quotation, of the same length."""
    return _QUOTE.sub(_hidden, words)


def clauses(turn: str) -> Iterator[tuple[Voice, int, int]]:
    """See `_clauses`; the answer is kept for as long as a turn is being read."""
    return iter(_read_clauses(turn))


def _clauses(turn: str) -> Iterator[tuple[Voice, int, int]]:
    """The clauses of the user's own words as (voice, start, end) spans; a clause is denied from its first negation on.

    A clause does not end right behind its negation: "do not, please, refund it", or a line that was wrapped there. The negation
    of a statement ends with its part of the sentence; that of an instruction does not.
    """
    start, text = 0, joined(small(turn))
    bounds = [*((m.start(), m.end()) for m in _CLAUSE.finditer(text)), (len(turn), len(turn))]
    text = IDIOM.sub(_hidden, text)
    if any(map(text.__contains__, ("noth", "nobody", "no one", "none", "neither", "no money"))):
        text = NOTHING.sub(_denial, text)
    for end, following in bounds:
        negation = NEGATION.search(text, start, end)
        listed = max((m.end() for m in LISTED.finditer(text, start, end)), default=start) if negation is not None else start
        while negation is not None and listed <= negation.end():
            over = _denial_end(turn, text, negation, start, end)
            if over is None:
                break
            yield "said", start, negation.start()
            yield "denied", negation.start(), over.start()
            start = over.end()
            negation = NEGATION.search(text, start, end)
        if negation is None:
            yield "said", start, end
        elif end < len(turn) and negation.group() not in ALONE and not turn[negation.end() : end].strip(" \t,"):
            continue
        else:
            yield "said", start, negation.start()
            yield "denied", negation.start(), end
        start = following


_read_clauses = lru_cache(maxsize=32)(lambda turn: tuple(_clauses(turn)))


def _denial(found: re.Match[str]) -> str:
    return "never".ljust(len(found.group()))


def _denial_end(turn: str, text: str, negation: re.Match[str], start: int, end: int) -> re.Match[str] | None:
    """Where what is denied ends before its clause does, if anywhere. Arguments as of `_statement_end`."""
    ends = [_statement_end(turn, text, negation, start, end), exception_end(turn, text, negation.start(), end)]
    return min(filter(None, ends), key=lambda over: over.start(), default=None)


def _statement_end(turn: str, text: str, negation: re.Match[str], start: int, end: int) -> re.Match[str] | None:
    """Where a negated statement ends in its clause; None for an instruction, and where the denial may go on ("pay, send, move it").

    Args:
        turn: the turn.
        text: the turn in small letters.
        negation: the clause's next negation.
        start: where what is not read yet of the clause starts.
        end: where the clause ends.
    """
    if STATED.search(text, max(start, negation.start() - SUBJECT), negation.end()) is None:
        return None
    over = STATEMENT_END.search(text, negation.end(), end)
    if over is None or YOU.search(text, start, negation.start()) or BIDDING.search(text, negation.end(), over.start()):
        return None
    return over if turn[over.end() : over.end() + 1].islower() and REQUEST.match(text, over.end(), end) else None


# What only the words around it make a name: a short quotation; a word with a capital, for a user; "the general channel".
_CAPITAL = re.compile(r"[A-Z](?<![\w@#./:-].)[A-Za-z]{1,63}(?![\w@/-])(?!\.\w)")
_WORD = r"['\"\u2018\u201c#]{0,2}[A-Za-z0-9][A-Za-z0-9_-]{0,79}['\"\u2019\u201d]?"
_LIST = rf"(?:{_WORD}(?:,\s|,?\s(?:and|or|&)\s)){{0,4}}{_WORD}"
_CHANNEL = re.compile(r"[Cc](?<![\w-].)(?i:hannels?)(?![\w-])")
_HANDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_BEFORE = re.compile(rf"(?:^|(?<=\s))({_LIST})\s+$")
_AFTER = re.compile(rf"\s+(?:called\s+|named\s+)?({_LIST})")
_NEAR = 200  # characters before the word "channel" that are looked at
_MOST = 9  # words that a list of five has, with four times "and"
_NO_CHANNEL = frozenset(
    """
    the a an this that these those each every all any some no which what whose new same my our your his her their its other another
    first last public slack is are was were and or to for in on of with about from by called named where you i it there has have can
    should will please then so but if when
    """.split()
)


def _named(words: str) -> Iterator[Entity]:
    """Names that have no form of their own."""
    for found in _QUOTE.finditer(words):
        inner = next(group for group in found.groups() if group is not None)
        at = found.start() + found.group().index(inner)
        if normal("text", inner) is not None:
            yield Entity("text", inner, inner, at)
        if (last := inner.rpartition(".")[2]) and last.isalnum() and " " in inner and normal("path", inner) is not None and len(last) <= 5:
            yield Entity("path", inner, inner, at)
    for found in _CAPITAL.finditer(words):
        yield Entity("name", found.group(), found.group(), found.start())
    for found in _CHANNEL.finditer(words):
        start = max(0, found.start() - _NEAR)
        near = words[start : found.start()]
        last = near.rsplit(None, _MOST)
        listed = _BEFORE.search(near, len(last[0]) if len(last) > _MOST else 0)
        channels = _channels(listed, start) if listed is not None else []
        if not channels and (after := _AFTER.match(words, found.end())) is not None:
            channels = _channels(after, 0)
        yield from channels


def _channels(names: re.Match[str], start: int) -> list[Entity]:
    found = [(word.group(), start + names.start(1) + word.start()) for word in _HANDLE.finditer(names[1])]
    return [Entity("channel", word, word, at) for word, at in found if word.lower() not in _NO_CHANNEL]


# A value of the left type may be written in a prompt as an entity of these types.
_WRITTEN_AS: Mapping[str, tuple[str, ...]] = {
    "money": ("money", "number"),
    "number": ("number", "money", "count", "percent"),  # words for a number count things: no amount without a currency, and no id
    **dict.fromkeys(("integer", "computed"), ("number", "money", "count")),  # `Rule.said_as`
    "id": ("id", "number", "date", "domain"),
    "user": ("user", "name"),
    "text": ("text", "path", "email", "url", "domain", "id", "channel", "user"),
}


_GLUED = re.compile(
    r"[0-9@:/\\.+](?:(?<=[0-9])(?:(?<=[A-Za-z\u0130\u0131\u017f\u212a]{2}[0-9])[0-9]|(?<=\b0)0[ ()-]{0,2}[1-9])"
    r"|(?<=@)|(?<=:)(?:[/\\]|(?<=[pPsS\u017f]:)\w)|(?<=/)/|(?<=\\)\\|(?<=\+)[ ()-]{0,2}[1-9]"
    rf"|(?<=\.)(?:(?<=[wW]{{3}}\.)|(?i:[a-z]{{2,24}}/|(?:{COMMON_ENDS})\b)))"
)


def _repeatable(words: str, whole: list[Entity]) -> Iterator[Entity]:
    """What `agentgate.language.spans.glued` finds, where anything beside the whole entities looks like it."""
    rest, end = [], 0
    for entity in (e for e in whole if e.type in FINDABLE):
        rest.append(words[end : entity.start])
        end = max(end, entity.start + len(entity.words))
    return glued(words, whole) if _GLUED.search("\n".join([*rest, words[end:]])) else iter(())


@dataclass(frozen=True, slots=True)
class Prompt:
    """The entities a run's user has named: type -> key -> the words (money keys carry the currency beside), the clauses, the turns."""

    named: Mapping[str, Mapping[Key, Entity]]
    amounts: frozenset[tuple[Decimal, str]]
    spoken: tuple[tuple[Voice, str], ...] = ()
    written: tuple[str, ...] = ()
    memo: dict[int | str, Any] = field(  # what `agentgate.language.wording` has read of a turn, `agentgate.decision.labels` of all
        default_factory=dict, init=False, compare=False, repr=False
    )

    @classmethod
    def of(cls, turns: tuple[str, ...], today: date) -> Prompt:
        """Read the turns in order; a denied entity is withdrawn, from this turn and the earlier ones.

        Args:
            turns: the user's texts, oldest first; each at most `MAX_TURN` characters.
            today: the run's day, for "tomorrow" and "May 26th".
        """
        named: dict[str, dict[Key, Entity]] = {}
        amounts: set[tuple[Decimal, str]] = set()
        spoken: list[tuple[Voice, str]] = []
        for turn in turns:
            words = own_words(turn)
            spans = list(clauses(words))
            spoken.extend((voice, words[start:end]) for voice, start, end in spans)
            denied: list[Entity] = []
            at = 0
            whole = list(entities(words, today))
            # What no type knows is named by the very same words, so that a text may repeat them.
            for entity in sorted([*whole, *_named(words), *_repeatable(words, whole)], key=attrgetter("start")):
                while at + 1 < len(spans) and spans[at][2] <= entity.start:
                    at += 1
                if spans[at][0] == "denied":
                    denied.append(entity)
                else:
                    named.setdefault(entity.type, {})[entity.key] = entity
                    if isinstance(entity.key, Decimal) and entity.type in {"money", "number"} and words[max(0, entity.start - 1)] != "#":
                        amounts.add((entity.key, entity.currency))
            for entity in denied:
                named.get(entity.type, {}).pop(entity.key, None)
                if isinstance(entity.key, Decimal):  # "not 50" also withdraws 50 EUR, and "not 50 EUR" a bare 50
                    for written in ("money", "number", "count", "percent"):
                        named.get(written, {}).pop(entity.key, None)
                    amounts = {a for a in amounts if a[0] != entity.key or (a[1] and entity.currency and a[1] != entity.currency)}
        return cls(named, frozenset(amounts), tuple(spoken), tuple(map(own_text, turns)))

    def holds(self, kind: str) -> bool:
        """Whether the user named any value of this type."""
        return any(self.named.get(name) for name in _WRITTEN_AS.get(kind, (kind,)))

    def words(self, kind: str, key: Key, currency: str = "") -> str | None:
        """The words that name this value as one whole entity, or None.

        Args:
            kind: the argument's type.
            key: its comparison key.
            currency: for money, the argument's currency; an amount the user wrote with another currency does not count.
        """
        if kind == "money":
            if isinstance(key, Decimal) and ((key, "") in self.amounts or (currency and (key, currency) in self.amounts)):
                return str(key)
            return None
        for written in _WRITTEN_AS.get(kind, (kind,)):
            table = self.named.get(written)
            if table is None:
                continue
            wanted: Key | None = key
            if written == "number" and kind == "id":
                wanted = normal("number", key)
            found = table.get(wanted) if wanted is not None else None
            if found is not None:
                return found.words
        return None
