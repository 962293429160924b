"""Calculations that the user's own words name, and whether one of them results in a value: the origin `computed`.

Rules: a calculation is named by the user's words, unless they are quoted, or denied there or in a later turn; forwarded text names none.
The caller passes the numbers that count; the user's own are read here, without dates, ids, numbers of list items and quoted ones. Amounts
of two currencies are never combined, nor a number with itself, and operands and results are above zero. One calculation is one row of the
table in docs/workflows.md. With more numbers than `MAX_NUMBERS`, or more shares, multiples and percentages than `MAX_FACTORS`, nothing is
calculated: that bounds the work, and the results that an agent could choose from. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from datetime import date
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, localcontext
from typing import NamedTuple

from agentgate.language.days import MONTHS
from agentgate.language.numerals import SMALL, numeral_value
from agentgate.language.spans import Entity, entities, small
from agentgate.language.turn import Turn
from agentgate.values.times import WEEKDAYS

MAX_NUMBERS = 64  # different numbers to calculate with
MAX_FACTORS = 16  # shares, multiples and percentages
_MOST = 20  # people who share, times to multiply
_NO_DAY = date(2000, 1, 1)  # no number depends on a day
_HALF_CENT, _CENT = Decimal("0.005"), Decimal("0.01")

_GAP = r"(?:[^.!?;\n]|\.(?=[0-9])){0,60}?"
_COUNT = "(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[0-9]{1,2})"
_WHAT = r"(?:the|as|that|what|my|his|her|their|its|this)\b"
_ALL = r"(?:the|both|all|my|these|those|his|her|their|our|two|what|them)\b"
_NUMBER = (
    rf"(?:[a-z]{{0,3}}[\u20ac$\u00a3]?\s?[0-9]++(?:[.,][0-9]++)*+(?!st\b|nd\b|rd\b|th\b|[-:/]|\s?[ap]m\b)"
    rf"|{SMALL}|(?:a )?hundred\b|(?:a )?thousand\b)(?!\s?(?:days?|weeks?|months?|years?|hours?|min(?:ute)?s?|o['\u2019]clock"
    r"|(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6})\b)"
)
_BY = (
    rf"\bby (?:(?:about|another|exactly|an?|an extra|a further) )?(?:{_NUMBER}|that\b(?! \w+day)|this\b|what|how|as much|so much"
    r"|the (?:same |full )?(?:amount|sum|difference|increase|decrease|rate|figure)\b)"
)
_CHARGE = (
    r"(?:tips?|fees?|tax(?:es)?|vat|shipping|delivery|postage|interest|deposit|surcharges?|charges?|gratuity)\b"
    r"(?! (?:address|number|id|no|code|office|guy|man|date|rate|in|the)\b)"
)
_PAID = "(?:pa(?:id|y(?:ing|ments?)?)|charg(?:ed?|ing)|bill(?:ed|ing))"
_CHANGED = r"\b(?:adjust|chang|updat|modif|amend|correct|adapt)\w*\b"
_PART = r"\b(?:an?|one|my|his|her|their|our|your) {}(?= of\b| each\b| and\b|\s?[.,;!?)]|\s*\Z)"

DIFFERENCE, SUM, SHARE, MULTIPLE, PERCENT = "difference", "sum", "share", "multiple", "percentage"
_WORDS = {  # for lower case
    DIFFERENCE: (
        r"\bdifferences?\b|\bremain(?:der|ing|s)\b|\b(?:the|my|his|her|its|their|our|whole|entire) rest\b|\brest of\b"
        r"|\b(?:what|whatever|how much)(?:['\u2019]s| is| was) (?:still )?(?:left|missing|lacking|outstanding)\b"
        r"|\bstill (?:owe[sd]?|owing|open|outstanding|due|missing|unpaid|lacking|to be paid)\b"
        rf"|\btoo (?:much|little|high|low)\b|\b(?:over|under)[- ]?{_PAID}\b|\b(?:shortfall|surplus|excess)\b"
        rf"|\b(?:is|are|was|were|am|be|been|came|come|comes|fell|falls|{_NUMBER}(?: \w+)?) short\b|\bshort (?:by|of)\b"
        rf"|\bminus\b|\bless (?:{_NUMBER}|(?:the|my|his|her|their|what|any)\b)|\b(?:deduct|subtract)\w*"
        rf"|\b(?:take|taking|knock|shave)\w*\b{_GAP}\boff\b|\b(?:reduction|decrease|discount|rebate)\b"
        rf"|\b(?:reduc|lower|decreas|cut|drop|trim)\w*\b{_GAP}{_BY}|\b(?:go(?:es|ing|ne)?|went) down\b"
        rf"|{_CHANGED}{_GAP}(?:\baccordingly\b|{_BY})"
    ),
    SUM: (
        rf"\bplus\b|(?<=\s)\+(?=\s)|\badditional(?:ly)?\b|\bextra\b|\bon top\b|\b(?:combined|together|altogether)\b"
        rf"|\bsums? (?:of {_ALL}|up\b|total\b)|\btotals? (?:of|for|from) {_ALL}|\btotal(?:ling)? (?:up\b|them\b)|\badd\w* (?:up|together)\b"
        rf"|\badd\w* (?:(?:the|an?|my|his|her|their|another|extra) )?(?:{_NUMBER}|what\b|{_CHARGE})"
        rf"|\b(?:includ(?:ing|es?)|incl\.?|with|and|plus) (?:(?:the|an?|my|their|its) )?(?:\w+ )?{_CHARGE}"
        rf"|\b(?:increas|rais|ris|rose|lift|bump|hik)\w*\b{_GAP}{_BY}|\b(?:put|step\w*|mov\w*)\b{_GAP}\bup\b{_GAP}{_BY}"
        r"|\b(?:go(?:es|ing|ne)?|went) up\b|\b(?:rent|price|fee|the|an?|this|that|its|annual|yearly|last|new) (?:increase|rise|hike)\b"
        rf"|{_CHANGED}{_GAP}(?:\baccordingly\b|{_BY})"
    ),
}
# number of a share or a multiple -> its words; 0: two, or a whole number in the user's words
_SHARES = {
    2: (
        r"(?<!\band )(?<!\band a )\bhalf\b(?!(?: an?)? (?:hour|past|year|day|term|time|board|way)|-|['\u2019])|\bhalv(?:e[sd]?|ing)\b"
        r"|\b50 ?[/:-] ?50\b|\bfifty[- /]fifty\b"
    ),
    3: _PART.format("third"),
    4: _PART.format("quarter"),
    5: _PART.format("fifth"),
    10: _PART.format("tenth"),
    0: (
        r"\bsplit(?:s|ting)?\b|\b(?:my|his|her|their|your|our|each|equal|fair|own|\w{1,40}['\u2019]s) shares?\b"
        r"|\bshar(?:e[ds]?|ing) (?:of|it equally|it evenly|between|among|amongst|equally|evenly|(?:the|this|that) (?:\w{1,20} )?"
        r"(?:bills?|costs?|rent|price|amount|total|sum|expenses?|fees?|tab|money))\b"
        rf"|\bdivid(?:e[ds]?|ing)\b|\b(?:evenly|equally)\b|\bper (?:person|head)\b|\beach of (?:us\b|(?:the )?{_COUNT}\b)"
    ),
}
_MULTIPLES = {
    2: rf"\bdoubl(?:e[sd]?|ing)\b(?![ -]?(?:check|room|entry|click|book|{_PAID}))|\btwice {_WHAT}(?! (?:other|day|week|month|year)\b)",
    3: r"\b(?:tripl|trebl)(?:e[sd]?|ing)\b",
    4: r"\bquadrupl(?:e[sd]?|ing)\b",
    0: rf"(?<![\w.,-])(?P<count>{_COUNT}) times {_WHAT}|\bmultipl(?:y|ied|ying)\b",
}
_PER_CENT = r"\s?(?:%|(?:percent|per cent|pct)\b)"
_PERCENTAGE = re.compile(  # not the end of "two hundred and ten percent"
    rf"(?<![\w.,-])(?:(?P<digits>[0-9]{{1,3}}(?:[.,][0-9]{{1,4}})?)"
    rf"|(?<!hundred\s)(?<!thousand\s)(?<!and\s)(?<!point\s)(?P<words>{SMALL}(?:[\s-]{SMALL})?)){_PER_CENT}"
)
_IS_PERCENTAGE = re.compile(_PER_CENT)
_TOLD = re.compile(  # the user only asks: "tell me how much is left", "What is the difference?"
    r"\b(?:(?:tell|show|remind|inform) (?:me|us)|let (?:me|us) know)\b(?:(?!\b(?:and|then)\b)[^.,!?;:\n]|\.(?=[0-9])){0,200}+"
    r"|(?<![^.!?\n])\s{0,3}(?:and |so )?(?:what|how|which|is|was|did|does|why)\b[^.!?\n]{0,300}+\?"
)
_THING = (
    r"(?:tasks?|steps?|things?|stuff|items?|files?|e?-?mails?|messages?|letters?|texts?|notes?|details?|information|time|days?|people"
    r"|work|news|pages?|list)\b"
)
_CHANGING = r"\b(?:chang|updat|adjust|modif|amend|correct|adapt)\w*"
_ELSE = re.compile(  # other meanings of the words of a calculation; the first group is kept
    r"(\b(?:we|they|us|i)(?: [a-z'\u2019]{1,20}){1,6}? )together\b"
    r"|\btogether with (?!(?:the|my|an?|his|her|their|our|what|that|this)\b|[0-9])"
    r"|\bplus (?:one|size|subscription|membership|account|plan|card)\b|\bdisney plus\b"
    rf"|\bsum(?:s|med)? up (?:(?:the|this|that|my|his|her|what|all|its) )?(?:\w{{1,20}} )?{_THING}"
    rf"|\b(?:remaining|extra|additional|excess) (?:{_THING}|(?:mile|luggage|baggage|account|iban|person|recipient|copy|care|long|fast)\b)"
    rf"|\brest of (?:(?:the|my|his|her|their|this|your) )?(?:{_THING}|(?:family|week|month|year|house|team|story)\b)|\brest home\b"
    r"|\bon top (?:of (?:the|my|this|his|her) (?:page|pile|list|letter|file|mail|form|table|stack)|priority)\b"
    r"|\bminus the (?:drama|fuss|hassle|jokes?)\b|\bshort of (?:time|breath|ideas|people|staff)\b"
    r"|\btoo (?:much|little) (?:time|work|trouble|effort)\b"
    r"|\btakes off\b|\boff (?:my|the|your|our) (?:list|calendar|desk|mind|agenda|table)\b"
    rf"|\b(?:days?|weeks?|month|year|{'|'.join(WEEKDAYS)}|some time) off\b"
    r"|\bdiscount (?:store|shop|market|code|card)s?\b"
    rf"|\b(?:first|second|latter) half of (?:the )?(?:year|month|week|day|{'|'.join(MONTHS)})\b|\bbetter half\b"
    r"|\bhalf (?:of )?(?:(?:the|my|our|his|her) )?(?:marathon|pension|family|class|team|house|night|mails?|day)\b"
    r"|\bsplit up\b(?! (?:the|it|this|that|between|among|by|in|my)\b)|\bsplit (?:air|screen|ends|second)\b|\b(?:banana|from) split\b"
    r"|\b(?:twice|times|equally|evenly) (?:as (?!(?:much|many|high|big|large)\b)|important|spaced|good)"
    r"|\bshare (?:certificate|account|price)s?\b"
    r"|\b[0-9]{1,3}\s?(?:%|percent|per cent) (?:sure|certain|positive|confident|chance|battery|charged|cotton|of the time)\b"
    rf"|{_CHANGING} (?:(?:the|my|his|her|its) )?(?:date|day|recipient|subject|address|records?|iban|name|password|me)\b"
    r"[^.!?;\n0-9]{0,40}?\b(?:accordingly\b|by\b)"
)
_OWN = re.compile(  # the user's own number directly after a word: "plus a tip of 5", "minus the 20", but not "of the 2 bills"
    rf"(?:\s(?:an?|the|of|my|another|about|exactly|extra|further|late|small|{_CHARGE})){{0,4}}\s[^\w\s]?(?=[0-9])"
    r"(?![2-9] (?:bills|invoices|amounts|payments|receipts|orders|of)\b)"
)
_NAMES = frozenset({"path", "url", "email", "domain", "id"})
_LETTER = re.compile(r"[^\W\d_]")
_NAMED = [
    *((kind, 0, re.compile(words)) for kind, words in _WORDS.items()),
    *((SHARE, n, re.compile(words)) for n, words in _SHARES.items()),
    *((MULTIPLE, n, re.compile(words)) for n, words in _MULTIPLES.items()),
]


class Number(NamedTuple):
    """One number to calculate with: its currency (empty: any), and whether it is in the user's own words."""

    value: Decimal
    currency: str = ""
    own: bool = False


class Spoken(NamedTuple):
    """What the user's words name: calculations, percentages, all numbers, and small whole numbers.

    A calculation has the number of its share or multiple (0: the user's); a sum or difference has 1 where one operand is the user's own.
    """

    named: frozenset[tuple[str, int]] = frozenset()
    percentages: frozenset[Decimal] = frozenset()
    numbers: frozenset[tuple[Decimal, str]] = frozenset()
    whole: frozenset[int] = frozenset()


class _Step(NamedTuple):
    """One number, or a share, a multiple or a percentage of one."""

    result: Decimal
    of: Number
    text: str
    kind: str


def spoken(turns: Iterable[Turn]) -> Spoken:
    """What these turns name; a denial withdraws what earlier turns named."""
    total = Spoken()
    for turn in turns:
        text, spans = turn.bare, turn.clauses
        whole = list(entities(text, _NO_DAY))
        low = small(_without_names(text, whole))
        said, denied = (_only(low, [(start, end) for v, start, end in spans if v == voice]) for voice in ("said", "denied"))
        meant = _ELSE.sub(_blank, said)
        one, other = _numbers(meant, text, whole), _numbers(denied, text, whole)
        last, ended = (
            {(kind, n): at for kind, fixed, words in _NAMED for n, at in _found(words, fixed, kind, each)}
            for each in (_TOLD.sub(_blank, meant), denied)
        )
        stopped = {kind: max(at for (other, _), at in ended.items() if other == kind) for kind, _ in ended}
        named = {each for each, at in last.items() if at > stopped.get(each[0], -1)}
        named |= {each for each in total.named if each[0] not in stopped}
        total = Spoken(
            frozenset(named),
            (total.percentages | one.percentages) - other.percentages,
            (total.numbers | one.numbers) - other.numbers,
            (total.whole | one.whole) - other.whole,
        )
    return total


def _without_names(text: str, whole: list[Entity]) -> str:
    """The text without its files, links, addresses and ids (same length): "difference.txt" names a file."""
    parts, end = list[str](), 0
    for each in whole:
        if each.type in _NAMES and each.start >= end and _LETTER.search(each.words) is not None:
            parts += [text[end : each.start], "_" * len(each.words)]
            end = each.start + len(each.words)
    return "".join([*parts, text[end:]])


def _blank(match: re.Match[str]) -> str:
    kept = match[1] or "" if match.re.groups else ""
    return kept + "\n" * (len(match.group()) - len(kept))


def _only(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with everything outside these spans blanked out (same length), and a comma for text between two of them."""
    parts, at = list[str](), 0
    for start, end in spans:
        gap = text[at:start]
        parts += [",".ljust(len(gap)) if gap.strip() else gap, text[start:end]]
        at = end
    return "".join([*parts, "\n" * (len(text) - at)])


def _found(words: re.Pattern[str], number: int, kind: str, text: str) -> Iterator[tuple[int, int]]:
    """Where such words begin, in order, each with their number; that of a sum or difference is 1 beside the user's own number."""
    for match in words.finditer(text):
        own = kind in _WORDS and (match.group()[-1].isdecimal() or _OWN.match(text, match.end()) is not None)
        counted = numeral_value(count) if (count := match.groupdict().get("count")) else None
        if counted is None or 2 <= counted <= _MOST:
            yield (1 if own else number if counted is None else int(counted)), match.start()


def _numbers(low: str, text: str, whole: list[Entity]) -> Spoken:
    """The numbers of one voice; `low` is the text in lower case with everything else blanked out."""
    numbers: set[tuple[Decimal, str]] = set()
    small_ones: set[int] = set()
    for each in whole:
        key, end = each.key, each.start + len(each.words)
        if each.type not in {"number", "money", "count"} or not isinstance(key, Decimal) or text[max(0, each.start - 1)] == "#":
            continue
        if not low[each.start].isspace() and _IS_PERCENTAGE.match(low, end) is None:
            numbers.add((key, each.currency))
            if each.type != "money" and "." not in each.words and 2 <= key <= _MOST:
                small_ones.add(int(key))
    percentages = {amount for each in _PERCENTAGE.finditer(low) if (amount := _percentage(each)) is not None}
    return Spoken(frozenset(), frozenset(percentages), frozenset(numbers), frozenset(small_ones))


def _percentage(match: re.Match[str]) -> Decimal | None:
    amount = Decimal(match["digits"].replace(",", ".")) if match["digits"] else numeral_value(match["words"])
    return amount if amount is not None and 0 < amount < 100 else None


def names_any(said: Spoken) -> bool:
    """Whether the words name any calculation."""
    return bool(said.named or said.percentages)


def too_many(said: Spoken, numbers: Collection[Number]) -> bool:
    """Whether there are too many operands to calculate anything."""
    return len(numbers) > MAX_NUMBERS or sum(len(each) for each in _factors(said)) > MAX_FACTORS


def _factors(said: Spoken) -> tuple[list[int], list[int], list[Decimal]]:
    """The divisors, multipliers and percentages that apply to a number."""
    shares, multiples = ({n for kind, n in said.named if kind == wanted} for wanted in (SHARE, MULTIPLE))
    shared = (shares - {0}) | ({2, *said.whole} if 0 in shares else set())
    times = (multiples - {0}) | (said.whole if 0 in multiples else set())
    return sorted(shared), sorted(times), sorted(said.percentages)


def calculation(said: Spoken, numbers: Collection[Number], wanted: Decimal) -> str | None:
    """One calculation that the words name and that results in this value, exactly or rounded to two decimals, as text for a reader.

    Args:
        said: what the user's words name.
        numbers: the numbers that count, each value and currency once.
        wanted: the value.
    """
    if wanted <= 0 or not names_any(said) or too_many(said, numbers):
        return None
    with localcontext(Context(prec=64)):  # exact, except for quotients without a finite decimal
        table = sorted(n for n in numbers if n.value > 0)
        values = [n.value for n in table]
        steps = [step for number in table for step in _steps(said, number)]
        for step in steps:
            if step.kind and _gives(step.result, wanted):
                return f"{step.text} ({step.kind})"
        for step in sorted(steps, key=lambda s: s.kind != ""):
            for text in _with_another(said, step, table, values, wanted):
                return text
    return None


def _steps(said: Spoken, number: Number) -> Iterator[_Step]:
    x, (shares, multiples, percentages) = number.value, _factors(said)
    yield _Step(x, number, f"{x:f}", "")
    yield from (_Step(x / n, number, f"{x:f} / {n}", "a share") for n in shares)
    yield from (_Step(x * n, number, f"{x:f} * {n}", "a multiple") for n in multiples)
    for p in percentages:
        part = x * p / 100
        yield _Step(part, number, f"{p:f}% of {x:f}", "a percentage")
        yield _Step(x + part, number, f"{x:f} + {p:f}%", "a percentage more")
        yield _Step(x - part, number, f"{x:f} - {p:f}%", "a percentage less")


def _with_another(said: Spoken, step: _Step, table: list[Number], values: list[Decimal], wanted: Decimal) -> Iterator[str]:
    """The sum or difference of a step and another number; after a share, or words with the user's number, one must be the user's own."""
    b, also = step.result, f", {step.kind}" if step.kind else ""
    ways: list[tuple[Decimal, int]] = []
    kinds = {kind for kind, _ in said.named}
    if SUM in kinds:
        ways.append((wanted - b, 1))
    if DIFFERENCE in kinds:
        ways += [(b - wanted, -1), (b + wanted, -1)]
    mine = bool(said.percentages) or any(n.own for n in table)
    for about, sign in ways:
        alone = bool(step.kind) or (mine and ((SUM if sign > 0 else DIFFERENCE), 0) not in said.named)
        for other in table[bisect_left(values, about - _HALF_CENT) :]:
            z = other.value
            if z > about + _HALF_CENT:
                break
            apart = other.currency and step.of.currency and other.currency != step.of.currency
            if apart or z == step.of.value or (alone and not (other.own or step.of.own)):
                continue
            if sign > 0 and _gives(b + z, wanted):
                yield f"{step.text} + {z:f} (the sum{also})"
            elif sign < 0 and _gives(abs(b - z), wanted):
                first, second = (step.text, f"{z:f}") if b > z else (f"{z:f}", step.text if not step.kind else f"({step.text})")
                yield f"{first} - {second} (the difference{also})"


def _gives(result: Decimal, wanted: Decimal) -> bool:
    """Whether the value is this result, or its rounding to two decimals, with halves up or to even."""
    if abs(result - wanted) > _HALF_CENT:
        return False
    return wanted in {result, result.quantize(_CENT, ROUND_HALF_UP), result.quantize(_CENT, ROUND_HALF_EVEN)}
