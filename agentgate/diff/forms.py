"""The normal forms of the text types as expressions, as `agentgate.values.entities` and
`agentgate.values.patterns` test them.

Each is exact except for the length of a whole value (2,048 characters, which no rule can
change) and, for free text, Unicode normalisation: there it accepts a little more than the
truth, so that no text is overlooked.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.values.characters import PRINTABLE, TEXT, Ranges
from agentgate.values.entities import source_of
from agentgate.values.expression import ANYTHING, Both, Expression, Not, Then, parse
from agentgate.values.tables import read_table

_DAY_OF_MONTH = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
_LEAP = "(?:[0-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = f"(?:[0-9]{{4}}-{_DAY_OF_MONTH}|{_LEAP}-02-29)"
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_FORMS = {
    **{
        kind: source_of(kind) for kind in "email iban domain user channel path phone id".split()
    },
    "url": source_of("url").replace(r"(?=www\.)", ""),  # what looks ahead is in `_ALSO`
    "date": _DATE,
    "time": _TIME,
    "datetime": f"{_DATE}T{_TIME}:[0-5][0-9]",
}
# A readable value of each form, which nobody is likely to have said: where any other value will
# do.
SAMPLES: Mapping[str, str] = read_table("agentgate.diff", "samples.toml")
_DOTTED = parse(r"(?s:(?:.*/)?\.\.?(?:/.*)?)")
_LINK = parse(r"(?:https?://|www\.).*")
_NO_YEAR = Then((parse("0000"), ANYTHING))
_EARLY_YEAR = Then((parse("0"), ANYTHING))  # written with fewer digits, so never in normal form
_ALSO = {
    "url": _LINK,
    "path": Not(_DOTTED),
    "date": Not(_NO_YEAR),
    "datetime": Not(_EARLY_YEAR),
}


def alphabet(kind: str) -> Ranges:
    """The characters a value of this type may hold."""
    return TEXT if kind in {"text", "json"} else PRINTABLE


def form(kind: str) -> Expression:
    """The normal form of a text type."""
    if kind in {"text", "json"}:
        return ANYTHING
    plain = parse(_FORMS[kind])
    also = _ALSO.get(kind)
    return Both((plain, also)) if also else plain


def language(source: str, without: str) -> Expression:
    """The texts that one RE2 source matches as a whole and another (empty: none) does not.
    Raises Unreadable.
    """
    whole = parse(source)
    if not without:
        return whole
    return Both((whole, Not(parse(without))))
