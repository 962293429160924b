"""Values that a rule allows, made in a fixed order: the same rule always gives the same first, second, third value.

Rules: nothing here decides whether a value is allowed; the engine's own check is asked (`fits`). A pattern or type for which
no value is found gives none, and the reviewer is asked to state one.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agentgate.decision.arguments import check_arguments
from agentgate.decision.case import Case
from agentgate.review.scenarios.structure import put_at, steps
from agentgate.values.request import Agent, Call, Header, RunState, Surroundings
from agentgate.workflow.model import Rule, Workflow

VARIANTS = 64  # how many values of a pattern are tried
_LETTERS = string.ascii_letters + string.digits
_CLASSES = {
    "d": string.digits,
    "w": string.ascii_letters + string.digits + "_",
    "s": " ",
    "D": string.ascii_letters,
    "W": ".",
    "S": _LETTERS,
}
_EXAMPLES: dict[str, tuple[Any, ...]] = {
    "text": ("text", "other text", "x"),
    "boolean": (True, False),
    "json": ({"note": "text"}, {"note": "other text"}),
    "email": ("kim@acme.example", "lee@acme.example", "kim@other.example"),
    "iban": ("DE89370400440532013000", "DE12500105170648489890", "FR1420041010050500013M02606"),
    "url": ("https://acme.example/a", "https://other.example/b"),
    "domain": ("acme.example", "other.example"),
    "user": ("kim", "lee"),
    "channel": ("general", "random"),
    "path": ("report-1.txt", "report-2.txt"),
    "phone": ("+4915112345678", "+442071234567"),
    "id": ("A1", "B2", "C3"),
    "date": ("2026-06-03", "2026-06-04"),
    "datetime": ("2026-06-03T10:00", "2026-06-04T10:00"),
    "time": ("10:00", "11:00"),
    "money": ("10.00", "20.00", "5.00", "1.00"),
    "number": ("10", "20", "5", "1"),
    "integer": (10, 20, 5, 1),
}

MALFORMED: dict[str, tuple[Any, ...]] = {  # near misses of each type: a person reads them as such a value, its normal form they are not
    "email": ("Kim@Acme.example", "kim@acme"),
    "iban": ("DE89 3704 0044 0532 0130 00", "de89370400440532013000"),
    "url": ("HTTPS://Acme.example/a", "acme.example/a"),
    "domain": ("Acme.example", "localhost"),
    "user": ("@kim", "kim smith"),
    "channel": ("#general", "General"),
    "path": ("../secret.txt", "a//b.txt"),
    "phone": ("0049 151 1234", "+49 151 1234567"),
    "id": ("A 1", "-A1"),
    "date": ("03.06.2026", "2026-6-3"),
    "datetime": ("2026-06-03", "03.06.2026 10:00"),
    "time": ("10am", "25:00"),
    "money": ("1e2", "10,00"),
    "number": ("1e2", "1_000"),
    "integer": ("1e2", "10.5"),
    "boolean": ("true", 1),
    "json": ({"note": "text"},),  # nothing is no JSON that is a value at all; a text is not a structure
}


class _Unreadable(Exception):
    """A part of a pattern that is not made here (a Unicode class); then no value is made."""


class _Sampler:
    """One pass over an RE2 pattern, writing the shortest text it allows; `variant` moves the choice within classes."""

    def __init__(self, source: str, variant: int) -> None:
        self.source, self.at, self.variant, self.made = source, 0, variant, 0

    def run(self) -> str:
        out = self.choice()
        if self.at != len(self.source):
            raise _Unreadable
        return out

    def _peek(self) -> str:
        return self.source[self.at] if self.at < len(self.source) else ""

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise _Unreadable
        self.at += 1
        return char

    def choice(self) -> str:
        ways = [self.sequence()]
        while self._peek() == "|":
            self.at += 1
            ways.append(self.sequence())
        return ways[self.variant % len(ways)]

    def sequence(self) -> str:
        out = ""
        while self._peek() not in {"", "|", ")"}:
            start, made = self.at, self.made
            atom = self.atom()
            after, least = self.at, self.repeats()
            rest = self.at
            for index in range(least):
                if index:  # read the atom again, so that a class moves on
                    self.at = start
                    atom = self.atom()
                    self.at = after
                out += atom
            self.made = self.made if least else made
            self.at = rest
        return out

    def repeats(self) -> int:
        """How often the atom before is written: as rarely as allowed, but once where that is allowed too (so that it shows)."""
        found = 1
        while self._peek() in {"?", "*", "+", "{"}:
            char = self._next()
            if char in "?*":
                found = 0 if char == "?" else 1
            elif char == "{":
                end = self.source.find("}", self.at)
                text = self.source[self.at : end]
                self.at = end + 1
                low, _, high = text.partition(",")
                if end < 0 or not low.isdigit():
                    raise _Unreadable
                found = max(int(low), 1 if high != "0" and "," in text else int(low))
        return found

    def atom(self) -> str:
        char = self._next()
        if char == "(":
            if self._peek() == "?":
                end = min((i for i in (self.source.find(c, self.at) for c in ":>") if i > 0), default=0)
                if not end:
                    raise _Unreadable
                self.at = end + 1
            inside = self.choice()
            if self._next() != ")":
                raise _Unreadable
            return inside
        if char == "[":
            return self._pick(self._class())
        if char == ".":
            return self._pick(_LETTERS)
        if char == "\\":
            return self._pick(self._escape())
        return char

    def _escape(self) -> str:
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char.isalnum():
            raise _Unreadable
        return char

    def _class(self) -> str:
        negated = self._peek() == "^"
        self.at += negated
        members, first = "", True
        while first or self._peek() != "]":
            first = False
            char = self._next()
            if char == "[" and self._peek() == ":":
                raise _Unreadable
            chars = self._escape() if char == "\\" else char
            if len(chars) == 1 and self._peek() == "-" and self.source[self.at + 1 : self.at + 2] not in {"]", ""}:
                self.at += 1
                last = self._next()
                last = self._escape() if last == "\\" else last
                chars = "".join(map(chr, range(ord(chars), min(ord(last), ord(chars) + 255) + 1)))
            members += chars
        self._next()
        if negated:
            return "".join(c for c in _LETTERS + " .-_" if c not in members)
        return "".join(sorted(members, key=lambda c: not c.isalnum()))  # letters and digits first

    def _pick(self, chars: str) -> str:
        if not chars:
            raise _Unreadable
        self.made += 1
        return chars[(self.variant + self.made - 1) % len(chars)]


def sample(source: str, variant: int = 0) -> str | None:
    """A text that the RE2 pattern probably matches as a whole, or None where it has a part that is not made here."""
    try:
        return _Sampler(source, variant).run()
    except _Unreadable:
        return None


def _glob(source: str, variant: int) -> str:
    word = "abcdefgh"[variant % 8]
    return source.replace("**", f"a/{word}" if variant % 2 else word).replace("*", word)


def step(bound: Decimal) -> Decimal:
    """The smallest step of a bound as it is written: 0.01 for 500.00, 1 for 20."""
    exponent = bound.as_tuple().exponent
    return Decimal(1).scaleb(exponent) if isinstance(exponent, int) and exponent < 0 else Decimal(1)


def written(rule: Rule, number: Decimal) -> Any:
    """A number as a caller writes it: an integer as a JSON number, everything else as text."""
    return int(number) if rule.type == "integer" else format(number, "f")


def _singles(rule: Rule, top: Decimal | None) -> Iterator[Any]:
    if rule.equals is not None:
        yield from rule.equals
    if rule.one_of is not None:
        yield from rule.one_of
    for variant in range(VARIANTS if rule.pattern is not None or rule.glob is not None else 0):
        if rule.pattern is not None and (made := sample(rule.pattern.source, variant)) is not None:
            yield made
        if rule.glob is not None:
            yield _glob(rule.glob.source, variant)
    low, high = rule.minimum, rule.maximum
    if top is not None and (high is None or top < high):
        high = top
    if low is not None or high is not None:
        for number in (Decimal("10.00"), Decimal(20), Decimal(1), high, low, low + step(low) if low is not None else None):
            if number is not None and (low is None or number >= low) and (high is None or number <= high):
                yield written(rule, number.to_integral_value() if rule.type == "integer" else number)
    yield from _EXAMPLES.get(rule.type, ())


def candidates(rule: Rule, top: Decimal | None = None) -> Iterator[Any]:
    """Values that may fit a rule, in a fixed order and each once.

    Args:
        rule: an argument's rule.
        top: what an earlier call's fact bounds it by, if known.
    """
    seen: list[Any] = []
    for value in _singles(rule, top):
        made = [value] if rule.max_items is not None else value
        if not any(type(made) is type(other) and made == other for other in seen):
            seen.append(made)
            yield made


_NOWHERE = Surroundings(datetime(2000, 1, 1, tzinfo=UTC))
_NOBODY = RunState(Header("", "", None, Agent(""), "", 0, "", 0.0, 0.0), (), {}, None, (), "")


def fits(workflow: Workflow, tool: str, name: str, value: Any) -> bool:
    """Whether the engine finds nothing wrong with this one argument's form and value."""
    case = Case(workflow, _NOBODY, Call(tool, "", b"", put_at({}, steps(name), value)), _NOWHERE)
    check_arguments(case)
    return name in case.values and not any(f.field == f"args.{name}" for f in case.denied)
