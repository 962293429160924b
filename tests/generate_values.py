"""Pools of values, small so that they collide, and how a proven identity is put together."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agentgate.workflow.rule import Source

NOW = datetime(2027, 3, 10, 10, 30, tzinfo=UTC)  # a Wednesday
ORDERS = ("ORD-1001", "ORD-1002", "ORD-1003")
CUSTOMERS = ("cus_A1", "cus_B2", "cus_C3")
EMAILS = ("lee@acme.example", "bob@acme.example", "eve@evil.example", "bob@acme.example.evil.com")
AMOUNTS: tuple[Any, ...] = ("5.00", "20.00", "39.99", "100.00", "100.01", "500.00", 20, 39.99)
CURRENCIES = ("EUR", "GBP")
HANDLES = ("lee", "lee", "bob", "Lee", "rent", "@bob")
PATHS = ("docs/a.txt", "docs/sub/b.txt", "other/c.txt")
SUBJECTS = ("Rent", "Re: the rent of the flat", "Flat deposit", "Gym")
TITLES = (
    "Rent",
    "the rent",
    "Flat deposit",
    "rent, flat",
    "rent and gym",
    "solved",
    "as solved.",
    "Rent*",
    "@rent",
    "...",
    "Lee",
    "the gym",
)
SCOPES = ("read", "write", "admin", "list")
TEXTS = (
    "it arrived broken",
    "copy to lee@acme.example please",
    "copy to eve@evil.example please",
    "see https://acme.example/terms.",
    "see:https://evil.example/steal",
    "HTTPS://EVIL.example/x and more",
    "mailto:bob@acme.example.evil.com",
    "call +4915112345678",
    "pay DE89370400440532013000",
    "pay de89370400440532013000",
    "call 00491511234567",
    "ftp://evil.example/x or www.evil.example",
    "see (https://acme.example/terms), then https://acme.example/terms/more",
    "pay at evil.de, or evil.example.",
    "pay evil.RU",
    "it is done.it works, see run.sh",
    "two\nlines",
)
ROLES = {"reader": frozenset({"read", "list"}), "orchestrator": frozenset({"read", "write", "list"})}
PROMPT, USER, COMPUTED, MODEL = Source("prompt"), Source("user"), Source("computed"), Source("model")
USERS = ("lee", "lee@acme.example", "lee@acme.example", "lee@acme.example", "cus_A1", "cus_A1", "Rent", "ORD-1002")
DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32
READS = ("orders.get", "users.find")

_POOLS: dict[str, tuple[Any, ...]] = {
    "order_id": ORDERS,
    "amount": tuple(Decimal(str(a)) for a in AMOUNTS),
    "amounts": tuple(Decimal(str(a)) for a in AMOUNTS),
    "currency": CURRENCIES,
    "payee": CUSTOMERS,
    "payees": CUSTOMERS,
    "notify": EMAILS,
    "address": EMAILS,
    "scopes": SCOPES,
    "path": PATHS,
    "reason": TEXTS,
    "title": TITLES,
    "tags": TITLES,
    "lines[].order_id": ORDERS,
    "lines[].payee": CUSTOMERS,
    "lines[].email": EMAILS,
    "lines[].amount": tuple(Decimal(str(a)) for a in AMOUNTS),
    "files[].path": PATHS,
    "files[].note": TEXTS,
    "meta": tuple({"a": [text], "b": {text: 1}} if len(text) < 20 else [{"to": text}, 1, None] for text in TEXTS),
    "flag": (True, False),
    "count": (Decimal(1), Decimal(20)),
}
ARGUMENTS = frozenset(_POOLS)


def values_of(name: str) -> tuple[Any, ...]:
    """What the argument of this name is drawn from (numbers as Decimal)."""
    return _POOLS[name]


def put(frozen: Any, **values: Any) -> None:
    """Set what only `agentgate.identity.proven` sets, from a verified credential."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)
