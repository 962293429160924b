"""Who calls, for whom, when and where: the fields that all tools share, each as a finite set of classes.

They are the fields that `agentgate.decision.decide` looks at, one at a time: one of them suffices to refuse a call.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import chain, combinations, product
from typing import TypeVar

from agentgate.decision.caller import in_network, within
from agentgate.diff.finding import Cell, Field, Point, Ruling, cell, field, free_if
from agentgate.explain.listing import window
from agentgate.values.times import SHORT_WEEKDAYS, clock, duration
from agentgate.workflow.model import AgentRule, Conditions, Hours, UserRule, ViaRule, Workflow

OTHER = "(any other)"
NOBODY = "(none)"
_WEEK = 7 * 24 * 60
S = TypeVar("S")
V = TypeVar("V")
_User = tuple[str, tuple[str, ...]] | None  # the tenant, "same" or "other", and the groups


def fields(old: Workflow, new: Workflow) -> Iterator[Field]:
    """Every field that all tools share."""
    yield one_of("tenants", "tenant", old.tenants, new.tenants, empty=False)
    days = sorted({d + timedelta(days=more) for d in (old.expires, new.expires) for more in (0, 1)})
    yield _field("expires", (old.expires, new.expires), [(d, {"day": d}, str(d)) for d in days], lambda end, day: day <= end, str)
    yield from _agent(old.agent, new.agent)
    yield _user(old.for_user, new.for_user)
    yield from _signed_in(old.for_user, new.for_user)
    yield _via(old.via, new.via)
    yield from _conditions(old.conditions, new.conditions)


def _field(
    name: str, sides: tuple[S, S], values: Iterable[tuple[V, Point, str]], holds: Callable[[S, V], bool], said: Callable[[S], str]
) -> Field:
    """A field by whether each version's side of a condition holds of a value; `values`: each with its point and its text."""
    cells = (cell([free_if(holds(side, value)) for side in sides], name, point, text) for value, point, text in values)
    return field(name, cells, {name: [said(side) for side in sides]})


def one_of(name: str, key: str, old: tuple[str, ...], new: tuple[str, ...], *, empty: bool = True) -> Field:
    """A value that must be one of a list; `empty`: an empty list allows every value."""
    values = [(v, {key: v}, v) for v in dict.fromkeys((*old, *new, OTHER))]
    return _field(name, (old, new), values, lambda listed, v: v in listed or (empty and not listed), ", ".join)


# --- the agent -----------------------------------------------------------------------------------------------------------
def _agent(old: AgentRule, new: AgentRule) -> Iterator[Field]:
    """One field for each part of a proven identity; where the host vouches, all of them are free."""
    rules = (old, new)

    def proven(name: str, key: str, *listed: tuple[str, ...]) -> Field:
        before, after = (() if rule.in_process else values for rule, values in zip(rules, listed, strict=True))
        return one_of(f"who.agent.{name}", f"agent.{key}", before, after)

    yield _field(
        "who.agent.in_process",
        rules,
        [(v, {"agent.identity": v}, v) for v in ("proven", "in_process")],
        lambda rule, v: rule.in_process or (v == "proven" and _named(rule)),
        lambda rule: "the host vouches" if rule.in_process else "proven",
    )
    yield proven("spiffe", "spiffe", old.spiffe, new.spiffe)
    yield proven("oidc.issuer", "issuer", *((rule.oidc_issuer,) if rule.oidc_issuer else () for rule in rules))
    claims = [{claim.name: claim.one_of for claim in rule.claims} for rule in rules]
    for name in sorted({name for own in claims for name in own}):
        yield proven(f"oidc.claims.{name}", f"claims.{name}", *(own.get(name, ()) for own in claims))
    for name in ("boundary.cluster", "boundary.namespace", "boundary.node_pool", "posture.image_signed_by"):
        before, after = (getattr(rule, name.partition(".")[2]) for rule in rules)
        yield one_of(f"who.agent.{name}", f"agent.{name}", before, after)
    yield _known("boundary", "boundary", _bounded(old), _bounded(new))
    yield _known("boundary.same_key_as_last_token", "boundary.key", old.same_key_as_last_token, new.same_key_as_last_token)
    yield _known("posture", "posture", _attested(old), _attested(new))
    yield _recent("who.agent.posture.attested_within", "agent.posture.age", (old.attested_within, new.attested_within), -1)


def _recent(name: str, key: str, windows: tuple[int | None, int | None], *more: int) -> Field:
    """How many seconds ago something may be at most."""
    old, new = windows
    ages = dict.fromkeys((0, *(n for w in windows if w is not None for n in (w, w + 1)), *more))
    return _field(
        name,
        (old, new),
        [(age, {key: age}, f"{age} s") for age in ages],
        lambda window, age: window is None or 0 <= age <= window,
        duration,
    )


def _named(rule: AgentRule) -> bool:
    return bool(rule.spiffe or rule.oidc_issuer or rule.cluster or rule.namespace or rule.node_pool)


def _bounded(rule: AgentRule) -> bool:
    return bool(rule.cluster or rule.namespace or rule.node_pool or rule.same_key_as_last_token)


def _attested(rule: AgentRule) -> bool:
    return bool(rule.image_signed_by) or rule.attested_within is not None


def _known(name: str, key: str, *required: bool) -> Field:
    """What must be known of the agent, in each version or not."""
    old, new = required
    values: list[tuple[bool, Point, str]] = [(True, {}, "known"), (False, {f"agent.{key}": NOBODY}, NOBODY)]
    return _field(
        f"who.agent.{name}", (old, new), values, lambda needed, known: known or not needed, lambda needed: "required" if needed else ""
    )


# --- the user and who passed the request on --------------------------------------------------------------------------------
def _user(*rules: UserRule | None) -> Field:
    """No user, or one: of which tenant, in which groups. How it is proven is a matter of the agent's `in_process`, for both."""
    groups = [frozenset(r.groups) if r is not None else frozenset[str]() for r in rules]
    kinds = [groups[0] & groups[1], groups[0] - groups[1], groups[1] - groups[0]]
    picked = [min(kind) for kind in kinds if kind]
    groups_of = chain.from_iterable(combinations(picked, n) for n in range(len(picked) + 1))

    def seen(user: _User) -> Cell:
        before, after = (frozenset(_user_why(rule, user)) for rule in rules)
        point: Point = {"user": NOBODY} if user is None else {"user.tenant": user[0], "user.groups": user[1]}
        text = "no user"
        if user is not None:
            text = f"a user{' of another tenant' if user[0] == 'other' else ''} in {', '.join(user[1]) or 'no group'}"
        return Cell(Ruling(free_if(not before), before), Ruling(free_if(not after), after), point, text)

    said = {
        "who.for_user": ["a user" if r else "nobody" for r in rules],
        "who.for_user.groups": [", ".join(r.groups) if r else "" for r in rules],
        "who.for_user.same_tenant": ["of the run's tenant" if r is not None and r.same_tenant else "" for r in rules],
    }
    return field("who.for_user", map(seen, (None, *product(("same", "other"), groups_of))), said)


def _user_why(rule: UserRule | None, user: _User) -> Iterator[str]:
    if rule is None or user is None:
        if (rule is None) != (user is None):
            yield "who.for_user"
        return
    tenant, groups = user
    if rule.same_tenant and tenant != "same":
        yield "who.for_user.same_tenant"
    if rule.groups and not set(rule.groups) & set(groups):
        yield "who.for_user.groups"


def _signed_in(*rules: UserRule | None) -> Iterator[Field]:
    """How and when the user signed in; where there is none, nothing is asked."""
    old, new = (rule if rule is not None else UserRule(0) for rule in rules)
    yield one_of("who.for_user.acr", "user.acr", old.acr, new.acr)
    yield _recent("who.for_user.max_age", "user.age", (old.max_age, new.max_age))


def _via(old: ViaRule | None, new: ViaRule | None) -> Field:
    """Lists of one broker suffice: a list is refused for its length or for one broker in it."""
    hops = max((r.max_hops for r in (old, new) if r is not None), default=0)
    brokers = dict.fromkeys(b for r in (old, new) if r is not None for b in r.brokers)
    chains = [(), *((b,) * n for n in range(1, hops + 1) for b in brokers)]

    return _field(
        "who.via",
        (old, new),
        [(c, {"via": c}, " > ".join(c) or "direct") for c in chains],
        lambda rule, c: not c if rule is None else rule.min_hops <= len(c) <= rule.max_hops and set(c) <= set(rule.brokers),
        lambda rule: f"{rule.hops} of {', '.join(rule.brokers)}" if rule is not None else "",
    )


# --- conditions ----------------------------------------------------------------------------------------------------------
def _conditions(old: Conditions, new: Conditions) -> Iterator[Field]:
    yield one_of("conditions.environment", "environment", old.environment, new.environment)
    yield one_of("conditions.data_class", "data_class", old.data_class, new.data_class)
    addresses = [(a, {"network": a}, a) for a in _addresses((*old.network, *new.network))]
    networks = (old.network, new.network)
    yield _field("conditions.network", networks, addresses, lambda rules, a: not rules or in_network(a, rules), ", ".join)
    if old.hours is None or new.hours is None or old.hours.zone == new.hours.zone:
        yield _hours(old.hours, new.hours)


def _addresses(rules: tuple[str, ...]) -> list[str]:
    """Zone names as they are, and an address on each side of every edge of every block (a block itself is not an address)."""
    addresses: dict[str, None] = {}
    for rule in rules:
        try:
            block = ipaddress.ip_network(rule)
        except ValueError:
            addresses[rule] = None
            continue
        first, last = int(block.network_address), int(block.broadcast_address)
        address = type(block.network_address)
        for number in (first, first - 1, last, last + 1):
            if 0 <= number < 1 << block.max_prefixlen:
                addresses[str(address(number))] = None
    return [*addresses, OTHER]


def _hours(old: Hours | None, new: Hours | None) -> Field:
    both = [hours for hours in (old, new) if hours is not None]
    edges = {0, *((day * 1440 + minute) % _WEEK for h in both for day in range(7) for minute in (h.start, h.end))}
    zone = both[0].zone if both else "UTC"

    return _field(
        "conditions.hours",
        (old, new),
        [(m, {"hours": (m, zone)}, f"{SHORT_WEEKDAYS[m // 1440]} {clock(m % 1440)} {zone}") for m in sorted(edges)],
        lambda hours, minute: hours is None or within(hours, *divmod(minute, 1440)),
        lambda hours: window(hours) if hours is not None else "",
    )
