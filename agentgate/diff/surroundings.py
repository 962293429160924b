"""Who calls, for whom, when and where: the fields that are the same for every tool, each as a finite set of classes.

What is compared is what `agentgate.decision.checks` looks at, one field at a time: whoever is refused by one of them is refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import chain, combinations, product
from typing import Any

from agentgate.decision.caller import in_network, within
from agentgate.diff.finding import Cell, Field, Status
from agentgate.workflow.model import AgentRule, Conditions, Hours, UserRule, ViaRule, Workflow

OTHER = "(any other)"
NOBODY = "(none)"
_WEEK = 7 * 24 * 60
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def fields(old: Workflow, new: Workflow) -> Iterator[Field]:
    """Every field that all tools share."""
    yield one_of("tenants", "tenant", old.tenants, new.tenants, empty=False)
    yield _field(
        "expires",
        [(d, {"day": d}, str(d)) for d in sorted({old.expires, new.expires, *(d + timedelta(days=1) for d in (old.expires, new.expires))})],
        lambda day: day <= old.expires,
        lambda day: day <= new.expires,
        (str(old.expires), str(new.expires)),
    )
    yield from _agent(old.agent, new.agent)
    yield _user(old, new)
    yield _via(old.via, new.via)
    yield from _conditions(old.conditions, new.conditions)


def _field(
    name: str,
    values: Iterable[tuple[Any, Mapping[str, Any], str]],
    old: Callable[[Any], bool],
    new: Callable[[Any], bool],
    said: tuple[str, str],
) -> Field:
    cells: dict[tuple[bool, bool], Cell] = {}
    for value, point, text in values:
        held = old(value), new(value)
        if any(held) and held not in cells:
            status = [Status.FREE if h else Status.REFUSE for h in held]
            why = [frozenset() if h else frozenset({name}) for h in held]
            cells[held] = Cell(status[0], status[1], why[0], why[1], point=point, shown=text)
    return Field(name, tuple(cells.values()), {name: said})


def one_of(name: str, key: str, old: tuple[str, ...], new: tuple[str, ...], *, empty: bool = True) -> Field:
    """A value that must be one of a list; `empty`: an empty list asks nothing."""
    values = [*dict.fromkeys((*old, *new)), OTHER]
    return _field(
        name,
        [(v, {key: v}, v) for v in values],
        lambda v: v in old or (empty and not old),
        lambda v: v in new or (empty and not new),
        (", ".join(old), ", ".join(new)),
    )


# --- the agent -----------------------------------------------------------------------------------------------------------
def _agent(old: AgentRule, new: AgentRule) -> Iterator[Field]:
    """Each part of a proven identity is a field; where the host vouches, all of them are free."""

    def asked(rule: AgentRule, values: tuple[str, ...]) -> tuple[str, ...]:
        return () if rule.in_process else values

    yield _field(
        "who.agent.in_process",
        [(v, {"agent.identity": v}, v) for v in ("proven", "in_process")],
        lambda v: old.in_process or (v == "proven" and _named(old)),
        lambda v: new.in_process or (v == "proven" and _named(new)),
        ("the host vouches" if old.in_process else "proven", "the host vouches" if new.in_process else "proven"),
    )
    yield one_of("who.agent.spiffe", "agent.spiffe", asked(old, old.spiffe), asked(new, new.spiffe))
    issuers = [asked(r, (r.oidc_issuer,) if r.oidc_issuer else ()) for r in (old, new)]
    yield one_of("who.agent.oidc.issuer", "agent.issuer", issuers[0], issuers[1])
    for name in sorted({c.name for r in (old, new) for c in r.claims}):
        allowed = [asked(r, next((c.one_of for c in r.claims if c.name == name), ())) for r in (old, new)]
        yield one_of(f"who.agent.oidc.claims.{name}", f"agent.claims.{name}", allowed[0], allowed[1])
    for name in ("cluster", "namespace", "node_pool"):
        yield one_of(f"who.agent.boundary.{name}", f"agent.boundary.{name}", getattr(old, name), getattr(new, name))
    yield one_of("who.agent.posture.image_signed_by", "agent.posture.image_signed_by", old.image_signed_by, new.image_signed_by)
    yield _known("who.agent.boundary", "agent.boundary", _bounded(old), _bounded(new))
    yield _known("who.agent.boundary.same_key_as_last_token", "agent.boundary.key", old.same_key_as_last_token, new.same_key_as_last_token)
    yield _known("who.agent.posture", "agent.posture", _attested(old), _attested(new))
    windows = [r.attested_within for r in (old, new)]
    ages = [0, *(n for w in windows if w is not None for n in (w, w + 1)), -1]
    yield _field(
        "who.agent.posture.attested_within",
        [(age, {"agent.posture.age": age}, f"{age} s") for age in ages],
        lambda age: windows[0] is None or 0 <= age <= windows[0],
        lambda age: windows[1] is None or 0 <= age <= windows[1],
        (seconds(windows[0]), seconds(windows[1])),
    )


def _named(rule: AgentRule) -> bool:
    return bool(rule.spiffe or rule.oidc_issuer or rule.cluster or rule.namespace or rule.node_pool)


def _bounded(rule: AgentRule) -> bool:
    return bool(rule.cluster or rule.namespace or rule.node_pool or rule.same_key_as_last_token)


def _attested(rule: AgentRule) -> bool:
    return bool(rule.image_signed_by) or rule.attested_within is not None


def _known(name: str, key: str, old: bool, new: bool) -> Field:  # noqa: FBT001 - what each version asks
    said = ("required" if old else "", "required" if new else "")
    values = [("known", {}, "known"), (NOBODY, {key: NOBODY}, NOBODY)]
    return _field(name, values, lambda v: v == "known" or not old, lambda v: v == "known" or not new, said)


def seconds(value: int | None) -> str:
    """A duration as a workflow says it; empty for none."""
    if value is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if value % size == 0 and value > 60:
            return f"{value // size}{unit}"
    return f"{value}s"


# --- the user and who passed the request on --------------------------------------------------------------------------------
def _user(old: Workflow, new: Workflow) -> Field:
    """Nobody, or somebody: of which tenant, in which groups. How known is the agent's `in_process` to say, for both."""
    rules = (old.for_user, new.for_user)
    groups = [frozenset(r.groups) if r is not None else frozenset[str]() for r in rules]
    kinds = [groups[0] & groups[1], groups[0] - groups[1], groups[1] - groups[0]]
    picked = [min(kind) for kind in kinds if kind]
    groups_of = chain.from_iterable(combinations(picked, n) for n in range(len(picked) + 1))
    cells = [_user_cell(old, new, user) for user in (None, *product(("same", "other"), groups_of))]
    distinct: dict[object, Cell] = {}
    for cell in cells:
        if cell.old != Status.REFUSE or cell.new != Status.REFUSE:
            distinct.setdefault((cell.old, cell.new, cell.why_old, cell.why_new), cell)
    said = {
        "who.for_user": ("a user" if rules[0] else "nobody", "a user" if rules[1] else "nobody"),
        "who.for_user.groups": (", ".join(rules[0].groups) if rules[0] else "", ", ".join(rules[1].groups) if rules[1] else ""),
        "who.for_user.same_tenant": (_same(rules[0]), _same(rules[1])),
    }
    return Field("who.for_user", tuple(distinct.values()), said)


def _same(rule: UserRule | None) -> str:
    return "of the run's tenant" if rule is not None and rule.same_tenant else ""


def _user_cell(old: Workflow, new: Workflow, user: tuple[str, tuple[str, ...]] | None) -> Cell:
    why = [frozenset(_user_why(w, user)) for w in (old, new)]
    status = [Status.REFUSE if w else Status.FREE for w in why]
    if user is None:
        return Cell(status[0], status[1], why[0], why[1], point={"user": NOBODY}, shown="no user")
    tenant, groups = user
    point = {"user.tenant": tenant, "user.groups": groups}
    text = f"a user {'of another tenant' if tenant == 'other' else ''} in {', '.join(groups) or 'no group'}".replace("  ", " ")
    return Cell(status[0], status[1], why[0], why[1], point=point, shown=text)


def _user_why(workflow: Workflow, user: tuple[str, tuple[str, ...]] | None) -> Iterator[str]:
    rule = workflow.for_user
    if rule is None or user is None:
        if (rule is None) != (user is None):
            yield "who.for_user"
        return
    tenant, groups = user
    if rule.same_tenant and tenant != "same":
        yield "who.for_user.same_tenant"
    if rule.groups and not set(rule.groups) & set(groups):
        yield "who.for_user.groups"


def _via(old: ViaRule | None, new: ViaRule | None) -> Field:
    """Lists of one broker suffice: a list is refused for its length or for one broker in it."""
    hops = max((r.max_hops for r in (old, new) if r is not None), default=0)
    brokers = dict.fromkeys(b for r in (old, new) if r is not None for b in r.brokers)
    chains = [(), *((b,) * n for n in range(1, hops + 1) for b in brokers)]

    def allows(rule: ViaRule | None) -> Callable[[tuple[str, ...]], bool]:
        return lambda c: not c or (rule is not None and len(c) <= rule.max_hops and set(c) <= set(rule.brokers))

    said = [f"{r.max_hops} of {', '.join(r.brokers)}" if r is not None else "" for r in (old, new)]
    return _field("who.via", [(c, {"via": c}, " > ".join(c) or "direct") for c in chains], allows(old), allows(new), (said[0], said[1]))


# --- conditions ----------------------------------------------------------------------------------------------------------
def _conditions(old: Conditions, new: Conditions) -> Iterator[Field]:
    yield one_of("conditions.environment", "environment", old.environment, new.environment)
    yield one_of("conditions.data_class", "data_class", old.data_class, new.data_class)
    yield _field(
        "conditions.network",
        [(a, {"network": a}, a) for a in _addresses((*old.network, *new.network))],
        lambda a: not old.network or in_network(a, old.network),
        lambda a: not new.network or in_network(a, new.network),
        (", ".join(old.network), ", ".join(new.network)),
    )
    if old.hours is None or new.hours is None or old.hours.zone == new.hours.zone:
        yield _hours(old.hours, new.hours)


def _addresses(rules: tuple[str, ...]) -> list[str]:
    """Zone names as they are, and an address on each side of every edge of every block (a block itself is nobody's address)."""
    found: dict[str, None] = {}
    for rule in rules:
        try:
            block = ipaddress.ip_network(rule)
        except ValueError:
            found[rule] = None
            continue
        first, last = int(block.network_address), int(block.broadcast_address)
        address = type(block.network_address)
        for number in (first, first - 1, last, last + 1):
            if 0 <= number < 1 << block.max_prefixlen:
                found[str(address(number))] = None
    return [*found, OTHER]


def _hours(old: Hours | None, new: Hours | None) -> Field:
    edges = {0}
    for hours in (old, new):
        if hours is not None:
            edges |= {(day * 1440 + minute) % _WEEK for day in range(7) for minute in (hours.start, hours.end)}
    zone = next((h.zone for h in (old, new) if h is not None), "UTC")
    return _field(
        "conditions.hours",
        [(m, {"hours": (m, zone)}, f"{_DAYS[m // 1440]} {m % 1440 // 60:02}:{m % 60:02} {zone}") for m in sorted(edges)],
        lambda m: _open(old, m),
        lambda m: _open(new, m),
        (hours_text(old), hours_text(new)),
    )


def _open(hours: Hours | None, minute_of_week: int) -> bool:
    return hours is None or within(hours, *divmod(minute_of_week, 1440))


def hours_text(hours: Hours | None) -> str:
    """Hours as a reviewer reads them; empty for none."""
    if hours is None:
        return ""
    days = ", ".join(_DAYS[d] for d in sorted(hours.days))
    return f"{days} {hours.start // 60:02}:{hours.start % 60:02}-{hours.end // 60:02}:{hours.end % 60:02} {hours.zone}"
