"""Whether a value holds a secret: as it is, encoded, or deep inside.

Rules: each secret is looked for as text, percent-encoded, in base64 (also in the middle of a
longer encoded text), in hexadecimal, and escaped as in JSON or by `repr`; in every key,
element, attribute and text form of the value. A value too large to be looked through counts as
one that holds it. What a program splits, encrypts or spells otherwise is not found: this
notices accidents and careless tools, and does not bind a hostile one. Pure.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

MAX_PARTS = 200_000  # keys, elements and attributes that are looked at
SHORTEST = 8  # characters of a secret; a shorter one would be found by chance
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SCALARS = frozenset({int, float, complex, bool, type(None)})
_SPACE = re.compile(r"\s+")


def forms(secret: str) -> frozenset[str]:
    """Every text under which a secret is looked for."""
    data = secret.encode("utf-8", "surrogatepass")
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    found = {secret, *in_json, repr(secret)[1:-1], data.hex(), data.hex().upper()}
    for safe in (b"", b"/", b"+/=:"):
        for escape in ("%{:02X}", "%{:02x}"):
            found.add(
                "".join(
                    chr(byte) if byte in _PLAIN or byte in safe else escape.format(byte)
                    for byte in data
                )
            )
    # of base64, the characters that depend on nothing before or behind the secret
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + data).decode()
        inner = coded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return frozenset(found)


def holds(value: Any, secrets: Collection[str]) -> bool:
    """Whether `value` holds one of `secrets` (each of at least `SHORTEST` characters) in any of
    its `forms`.
    """
    looked_for = {form for secret in secrets for form in forms(secret)}
    # what was seen stays alive here, so that no other object gets its id
    waiting = [value]
    seen = dict[int, Any]()
    while waiting:
        each = waiting.pop()
        if type(each) in _SCALARS or id(each) in seen:
            continue
        if len(seen) == MAX_PARTS:
            return True
        seen[id(each)] = each
        texts, inside = _looked_into(each)
        if any(form in text for text in texts for form in looked_for):
            return True
        waiting += inside
    return False


def _looked_into(value: Any) -> tuple[list[str], list[Any]]:
    """The texts of one value, and the values inside it."""
    if isinstance(value, str):
        return [str(value), _SPACE.sub("", value)], []  # base64 is broken into lines
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value).decode("latin-1")
        return [text, bytes(value).decode("utf-8", "replace"), _SPACE.sub("", text)], []
    if isinstance(value, type | FunctionType | MethodType | BuiltinFunctionType | ModuleType):
        return [], []
    inside = []
    if isinstance(value, Mapping):
        inside += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inside += value
    if isinstance(value, BaseException):
        inside += [
            value.args,
            value.__cause__,
            value.__context__,
            getattr(value, "__notes__", None),
            getattr(value, "exceptions", None),
        ]
    inside += vars(value).values() if hasattr(value, "__dict__") else ()
    names = [name for kind in type(value).__mro__ for name in _slots(kind)]
    inside += [getattr(value, name, None) for name in names]
    return (
        [] if isinstance(value, Mapping | list | tuple | set | frozenset) else _shown(value)
    ), inside


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _shown(value: Any) -> list[str]:
    """What a framework would make of an object that it does not know."""
    texts = []
    for show in (str, repr):
        with suppress(Exception):  # an object that has no text shows none
            texts.append(show(value))
    return texts
