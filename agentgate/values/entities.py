"""Typed values: whether a value is in the normal form of its type, the key by which values are
compared, and how what models send is brought into that form.

A value that is not in normal form is refused, never repaired by the decision: what was compared
is what runs. Keys are text, Decimal or bool; numbers compare as exact decimals, so 39.99,
"39.99" and 39.990 are one amount and nothing is rounded.

Before the decision, the forms in which models send what a tool takes are made the one form that
is decided on, hashed and run. By the tool's JSON Schema only what it does not take as it is
changes: text that holds a list or an object, and one value for a list. A null goes only where
it is the argument's own default; elsewhere it may mean "clear this field". By the workflow's
types an e-mail address is in small letters and a time has no ``Z``. Only ASCII changes, since
`str.lower` makes a k of the Kelvin sign. What has no such form stays as it is, and the decision
refuses it. Twice is as once. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from agentgate.errors import CanonicalError
from agentgate.values.canonical import canonical, strict_parse
from agentgate.values.paths import EACH

Key = str | Decimal | bool

MAX_DIGITS = 15  # what a JSON number carries exactly
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)

_MOMENT = re.compile(
    r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}[ T](?:[01][0-9]|2[0-3]):[0-9]{2}(?::[0-9]{2})?"
)
_CLOCK = re.compile("(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_COUNTRIES = (  # ISO 3166-1, and XK as banks write it
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO "
    "BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI "
    "CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM "
    "FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ "
    "GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH "
    "KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS "
    "LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC "
    "NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG "
    "PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN "
    "SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK "
    "TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW"
)
_SECOND: dict[str, str] = {}
for _code in _COUNTRIES.split():
    _SECOND[_code[0]] = _SECOND.get(_code[0], "") + _code[1]
# The ends of a link without a scheme. Not among them: countries whose code is a file extension
# (people send a script more often than a site in Moldova) or an English word or title, since
# "done.It works" lacks a space.
_ALSO_FILES = "cc md mk ml mm mo pm ps py rs sh so tf"
_ALSO_WORDS = "ad am as at be by do id in is it mr ms my no re so to us"
_GENERIC = (
    "com net org info biz app dev onion xyz online site top shop link click page cloud edu "
    "gov mil int eu uk su name pro mobi "
    "email support help live news media blog store tech website space world life group "
    "company finance bank cash fund icu cyou "
    "buzz sbs club vip work zone chat digital network systems solutions services software "
    "studio team agency center loans bid "
    "berlin london paris tokyo nyc example test invalid localhost local"
)
_AFTER_FIRST: dict[str, list[str]] = {}
for _end in sorted(
    {*_COUNTRIES.lower().split(), *_GENERIC.split()}
    - {*_ALSO_FILES.split(), *_ALSO_WORDS.split()}
):
    _AFTER_FIRST.setdefault(_end[0], []).append(_end[1:])
# grouped by first letter
COMMON_ENDS = "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in _AFTER_FIRST.items())
# in capitals; every IBAN begins with one
COUNTRY = f"(?:{'|'.join(f'{first}[{seconds}]' for first, seconds in _SECOND.items())})"
_FORMS: Mapping[str, re.Pattern[str]] = {
    "email": re.compile(
        r"[a-z0-9](?:[a-z0-9._%+-]{0,62}[a-z0-9_%+-])?@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}"
    ),
    "iban": re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{10,30}"),
    "url": re.compile(
        r"(?:https?://|(?=www\.))(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?::[0-9]{1,5})?(?:/[!#$%&'()*+,./0-9:;=?@A-Z_a-z~-]*)?"
    ),
    "domain": re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}"),
    "user": re.compile(r"@?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"),
    "channel": re.compile(r"#?[A-Za-z0-9](?:[A-Za-z0-9_-]{0,79})"),
    "path": re.compile(
        r"/?[A-Za-z0-9_+@-][A-Za-z0-9._+@ -]*(?:/[A-Za-z0-9_+@.-][A-Za-z0-9._+@ -]*)*"
    ),
    "phone": re.compile(r"\+[1-9][0-9]{6,14}"),
    "id": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:#/-]{0,126}[A-Za-z0-9])?"),
}


def number(value: Any) -> Decimal | None:
    """The exact decimal of an int, a float (its shortest form) or plain decimal text; None for
    anything else.

    Booleans are not numbers; exponents, signs other than ``-``, separators, non-ASCII digits,
    non-finite values and more than `MAX_DIGITS` digits are refused (``"1_000"`` and ``①0`` are
    numbers to Python).
    """
    kind = type(value)
    if kind is str:
        if len(value) > MAX_DIGITS + 2 or not _DECIMAL.fullmatch(value):
            return None
        out = Decimal(value)
        if len(value) <= MAX_DIGITS:  # so at most as many digits
            return out
    elif kind is int:
        out = Decimal(value)
    elif kind is float:
        try:
            out = Decimal(repr(value))
        # nan and inf have a repr that Decimal reads; nothing else fails
        except InvalidOperation:
            return None
        if not out.is_finite():
            return None
    else:
        return None
    return (
        out if len(out.as_tuple().digits) <= MAX_DIGITS and abs(out) < 10**MAX_DIGITS else None
    )


def _text(value: Any) -> Key | None:
    if type(value) is not str:
        return None
    if value.isascii():
        return (
            value
            if value.isprintable() or value.replace("\n", "").replace("\t", "").isprintable()
            else None
        )
    if unicodedata.normalize("NFC", value) != value:
        return None
    for char in value:
        if (
            unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
            and char not in "\n\t"
        ):
            return None
    return value


def _json(value: Any) -> Key | None:
    """An object or a list as canonical JSON text, if every key and text in it is in normal
    form.
    """
    if type(value) not in {dict, list} or any(_text(text) is None for text in texts(value)):
        return None
    try:
        return canonical(value).decode()
    except CanonicalError:  # a number that is not exact, a key that is no text
        return None


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys of objects included, in order."""
    left = [value]
    while left:
        item = left.pop()
        if type(item) is str:
            yield item
        elif type(item) is dict:
            left += [*reversed(item.values())]
            yield from item
        elif type(item) is list:
            left += reversed(item)


def _integer(value: Any) -> Key | None:
    out = number(value)
    return out if out is not None and out == out.to_integral_value() else None


def _id(value: Any) -> Key | None:
    if type(value) is int:
        return str(value) if 0 <= value < 10**MAX_DIGITS else None
    return (
        value
        if type(value) is str and len(value) <= 2048 and _FORMS["id"].fullmatch(value)
        else None
    )


def source_of(kind: str) -> str:
    """The regular expression of a type's keys; of a name without its sign."""
    return _FORMS[kind].pattern.removeprefix("@?").removeprefix("#?")


def _formed(kind: str, value: Any) -> Key | None:
    return (
        value
        if type(value) is str and len(value) <= 2048 and _FORMS[kind].fullmatch(value)
        else None
    )


def _named(kind: str, sign: str, value: Any) -> Key | None:
    """A name, with or without its sign: both are one key."""
    name = _formed(kind, value)
    return None if name is None else str(name).removeprefix(sign)


def _path(value: Any) -> Key | None:
    path = _formed("path", value)
    return (
        None
        if path is None or {".", "..", ""} & set(str(path).removeprefix("/").split("/"))
        else path
    )


def _date(value: Any) -> Key | None:
    if type(value) is not str or len(value) != 10 or not value.isascii():
        return None
    try:
        return value if date.fromisoformat(value).isoformat() == value else None
    except ValueError:
        return None


def _datetime(value: Any) -> Key | None:
    if type(value) is not str or _MOMENT.fullmatch(value) is None:
        return None
    try:
        # a wall-clock time as the tool takes it
        return datetime.fromisoformat(value).isoformat()
    except ValueError:
        return None


def _time(value: Any) -> Key | None:
    return value if type(value) is str and _CLOCK.fullmatch(value) else None


NORMAL: Mapping[str, Callable[[Any], Key | None]] = {
    "text": _text,
    "json": _json,
    "boolean": lambda v: v if type(v) is bool else None,
    "money": number,
    "number": number,
    "integer": _integer,
    "id": _id,
    "path": _path,
    "date": _date,
    "datetime": _datetime,
    "time": _time,
    **{kind: partial(_formed, kind) for kind in ("email", "iban", "url", "domain", "phone")},
    "user": partial(_named, "user", "@"),
    "channel": partial(_named, "channel", "#"),
}
TYPES = frozenset(NORMAL)
NUMERIC = frozenset({"money", "number", "integer"})
CALCULATED = frozenset({"money", "number"})  # that may be `computed`
TOKENISED = TYPES - {"boolean", "json"}


def written(kind: str) -> str:
    """What a value of a type must be, for a person."""
    return f"{kind} in normal form" + {
        "datetime": " (2026-06-03T10:00, without a zone)",
        "id": " (42, without #)",
    }.get(kind, "")


def normal(kind: str, value: Any) -> Key | None:
    """The comparison key of `value` under a type of `TYPES`, or None when it is not in the
    type's normal form.
    """
    return NORMAL[kind](value)


# --- what models send -------------------------------------------------------------------------
MAX_REF = 16  # references that lead from one to the next
_CONTAINERS: Mapping[str, type] = {"array": list, "object": dict}
_SINGLE = frozenset({str, int, float, bool, dict})
_SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "email": str.lower,
    "datetime": lambda text: text.removesuffix("Z"),
}
Schema = Mapping[str, Any]


def canonical_form(args: Mapping[str, Any], schema: Schema, declared: Any) -> dict[str, Any]:
    """The arguments of a call in their one form.

    Args:
        args: as a model sent them.
        schema: the tool's JSON Schema.
        declared: the tool as the workflow declares it, with the rules of its arguments
            (`args`); None: it is not known.
    """
    rules = declared.args if declared is not None else {}
    properties = mapping(schema.get("properties"))
    found = {}
    for name, value in args.items():
        shape = mapping(properties.get(name))
        if value is None and shape.get("default", "") is None:
            continue
        rule = rules.get(name)
        # and no list is what the workflow reads
        read_as_one = rule is not None and rule.max_items is None and rule.type != "json"
        kinds = (
            set[str]()
            if read_as_one
            else {str(choice.get("type")) for choice in choices(shape, schema)}
        )
        found[name] = _spelled_inside(_coerced(value, kinds), name, rules)
    return found


def _coerced(value: Any, kinds: set[str]) -> Any:
    """A value for which only lists or objects are taken, as one of them; if it is none, as it
    is.
    """
    wanted = kinds - {"null"}
    if not wanted or not wanted <= _CONTAINERS.keys() or type(value) not in _SINGLE:
        return value
    taken = [_CONTAINERS[kind] for kind in wanted]
    if type(value) is str:
        with suppress(ValueError):
            read = strict_parse(value.encode())
            if type(read) in taken:
                return read
    return value if type(value) in taken or list not in taken else [value]


def _spelled_inside(value: Any, path: str, rules: Mapping[str, Any]) -> Any:
    """A value with every text in it that a rule names as the rule's type spells it."""
    if path in rules:
        kind = rules[path].type
        return (
            [spell_value(kind, each) for each in value]
            if type(value) is list
            else spell_value(kind, value)
        )
    if not any(name.startswith(path) for name in rules):
        return value
    if type(value) is dict:
        return {
            name: _spelled_inside(each, f"{path}.{name}", rules) for name, each in value.items()
        }
    return (
        [_spelled_inside(each, path + EACH, rules) for each in value]
        if type(value) is list
        else value
    )


def spell_value(kind: str, value: Any) -> Any:
    """A text as its type spells it; any other value as it is."""
    if kind not in _SPELLINGS or type(value) is not str or not value.isascii():
        return value
    text = _SPELLINGS[kind](value)
    return text if normal(kind, text) is not None else value


def describe_forms(schema: Schema, fields: Iterable[str]) -> str:
    """JSON type or format of arguments (``args.to``) by the tool's own schema: all that a model
    is told where a form is wrong.
    """
    names = {re.split(r"[.\[]", field)[1] for field in fields if "." in field}
    told = []
    for name, shape in mapping(schema.get("properties")).items():
        if name in names:
            kinds = [
                str(choice.get("format") or choice.get("type") or "any value")
                for choice in choices(shape, schema)
            ]
            told.append(f"{name}: {' or '.join(kinds)}")
    return "; ".join(told)


def choices(schema: Any, root: Schema) -> list[Schema]:
    """The plain schemas of which a value may meet any: with references followed, each of one
    type or of none that is known.
    """
    resolved = _resolved(schema, root)
    nested = resolved.get("anyOf") or resolved.get("oneOf") or resolved.get("allOf")
    if isinstance(nested, list):
        return [_resolved(each, root) for each in nested]
    kinds = resolved.get("type")
    return (
        [{**resolved, "type": kind} for kind in kinds]
        if isinstance(kinds, list)
        else [resolved]
    )


def _resolved(schema: Any, root: Schema) -> Schema:
    for _ in range(MAX_REF):
        reference = mapping(schema).get("$ref")
        if not isinstance(reference, str):
            break
        schema = follow_pointer(reference, root)
    return mapping(schema)


def follow_pointer(ref: str, root: Schema) -> Any:
    """What a local reference points to; no remote one is followed."""
    target: Any = root if ref.startswith("#/") else None
    for part in ref[2:].split("/"):
        target = mapping(target).get(part.replace("~1", "/").replace("~0", "~"))
    return target


def mapping(value: Any) -> Schema:
    """A value that is a mapping; else an empty one."""
    return value if type(value) is dict or isinstance(value, Mapping) else {}
