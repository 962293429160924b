"""The same question put to an SMT solver: a second reading of the rules, as one formula over every call there can be.

Text is first cut by the solver's own regular expressions: which combinations of languages one text can meet (kept, since pairs
share their patterns). Everything else of a call is a variable. Nothing here uses `agentgate.diff`.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
from datetime import date
from functools import cache
from itertools import permutations, product
from typing import Any

import z3

from agentgate.values.entities import _FORMS
from agentgate.workflow.clauses.conditions import Conditions, Hours
from agentgate.workflow.clauses.who import AgentRule, UserRule, ViaRule
from agentgate.workflow.model import Tool, Upstream, Workflow
from agentgate.workflow.rule import Rule, Source

_parser: Any = importlib.import_module("re._parser")  # the oracle reads patterns with Python's own parser
LONGEST = 5
_TOP = 0x2FFFF  # the solver's last character
MANY = 24  # the solver counts slowly; no pattern here tells a form's 62 characters from more


# --- languages -----------------------------------------------------------------------------------------------------------
def _chars(codes: set[int], negated: bool = False) -> Any:  # noqa: FBT001, FBT002 - a class and its sign
    """One character of a class, as ranges (the solver is lost in long unions)."""
    edges: list[list[int]] = []
    for code in sorted(codes):
        if edges and code == edges[-1][1] + 1:
            edges[-1][1] = code
        else:
            edges.append([code, code])
    if negated:
        cuts = [-1, *(x for edge in edges for x in edge), _TOP + 1]
        edges = [[low + 1, high - 1] for low, high in zip(cuts[::2], cuts[1::2], strict=True) if low + 1 <= high - 1]
    parts = [z3.Range(chr(low), chr(high)) for low, high in edges]
    return z3.Union(*parts) if len(parts) > 1 else parts[0]


def _set(items: Any, *, fold: bool) -> tuple[set[int], bool]:
    codes: set[int] = set()
    negated = False
    for op, value in items:
        name = str(op)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            codes.add(value)
        elif name == "RANGE":
            codes |= set(range(value[0], value[1] + 1))
        elif name == "CATEGORY" and str(value) == "CATEGORY_WORD":
            codes |= {c for c in range(128) if chr(c).isalnum() or c == 95}
        elif name == "CATEGORY" and str(value) == "CATEGORY_DIGIT":
            codes |= set(range(48, 58))
        else:
            raise AssertionError(f"the oracle does not know {op} {value}")
    if fold:
        codes |= {ord(x) for c in codes for x in (chr(c).lower(), chr(c).upper()) if len(x) == 1}
    return codes, negated


def _tree(tree: Any, *, fold: bool = False, dot_all: bool = False) -> Any:
    parts = []
    for op, value in tree:
        name = str(op)
        if name in {"LITERAL", "NOT_LITERAL"}:
            codes, _ = _set([("LITERAL", value)], fold=fold)
            parts.append(_chars(codes, name == "NOT_LITERAL"))
        elif name == "ANY":
            parts.append(z3.AllChar(z3.ReSort(z3.StringSort())) if dot_all else _chars({10}, True))
        elif name == "IN":
            parts.append(_chars(*_set(value, fold=fold)))
        elif name == "BRANCH":
            parts.append(z3.Union(*(_tree(t, fold=fold, dot_all=dot_all) for t in value[1])))
        elif name == "SUBPATTERN":
            _, add, _, inner = value
            parts.append(_tree(inner, fold=fold or bool(add & re.IGNORECASE), dot_all=dot_all or bool(add & re.DOTALL)))
        elif name in {"MAX_REPEAT", "MIN_REPEAT"}:
            low, high, inner = value
            part = _tree(inner, fold=fold, dot_all=dot_all)
            parts.append(
                z3.Loop(part, low, int(high)) if high < MANY else z3.Concat(*[part] * low, z3.Star(part)) if low else z3.Star(part)
            )
        else:
            raise AssertionError(f"the oracle does not know {op}")
    if not parts:
        return z3.Re("")
    return parts[0] if len(parts) == 1 else z3.Concat(*parts)


@cache
def regex(source: str) -> Any:
    return _tree(_parser.parse(source, re.ASCII))


@cache
def language(spec: tuple[str, Any]) -> Any:
    """A language from its kind and what it says."""
    kind, said = spec
    if kind in {"pattern", "not_pattern"}:
        return regex(said)
    if kind == "glob":
        text = "".join({"**": r"(?s:.*)", "*": "[^/]*"}.get(p, re.escape(p)) for p in re.split(r"(\*\*|\*)", said))
        return z3.Intersect(regex(text), z3.Complement(regex(r"(?s:(?:.*/)?\.\.?(?:/.*)?)")))
    if kind == "one_of":
        return z3.Union(*map(z3.Re, said)) if len(said) > 1 else z3.Re(said[0])
    if kind == "text":
        return z3.Loop(z3.AllChar(z3.ReSort(z3.StringSort())), 0, said)
    if kind == "form" and said == "text":
        return z3.Star(_chars({*range(9), *range(11, 32), *range(127, 160)}, True))
    found = regex(_FORMS[said].pattern)
    return z3.Intersect(found, z3.Complement(regex(r"(?s:(?:.*/)?\.\.?(?:/.*)?)"))) if said == "path" else found


@cache
def combinations_of(kind: str, specs: tuple[tuple[str, Any], ...]) -> tuple[tuple[bool, ...], ...]:
    """Which combinations of these languages a text of this type can meet."""
    found: list[tuple[bool, ...]] = [()]
    for index in range(len(specs)):
        longer = [(*chosen, held) for chosen in found for held in (True, False)]
        found = [chosen for chosen in longer if _possible(kind, tuple(zip(specs[: index + 1], chosen, strict=True)))]
    return tuple(found)


@cache
def _possible(kind: str, chosen: tuple[tuple[tuple[str, Any], bool], ...]) -> bool:
    inside = [language(spec) if held else z3.Complement(language(spec)) for spec, held in chosen]
    solver = z3.SimpleSolver()
    solver.add(z3.InRe(z3.String("text"), z3.Intersect(language(("form", kind)), *inside)))
    answer = solver.check()
    assert answer != z3.unknown, (kind, chosen)
    return bool(answer == z3.sat)


def _specs(rule: Rule) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    if rule.pattern is not None:
        found.append(("pattern", rule.pattern.source))
    if rule.not_pattern is not None:
        found.append(("not_pattern", rule.not_pattern.source))
    if rule.glob is not None:
        found.append(("glob", rule.glob.source))
    if rule.one_of is not None:
        found.append(("one_of", rule.one_of))
    if rule.not_in is not None:
        found.append(("one_of", rule.not_in))
    if rule.text is not None:
        found.append(("text", rule.text))
    return found + [("one_of", (scope,)) for scope in sorted(rule.role_scopes)]


# --- arguments -----------------------------------------------------------------------------------------------------------
# A variable is known by its name, so what a rule says of it is written down once and used for every pair with that rule.
@cache
def _boolean(name: str) -> Any:
    return z3.Bool(name)


@cache
def _number(name: str, kind: str) -> Any:
    return z3.Int(name) if kind == "integer" else z3.Real(name)


def _inside(element: str, spec: tuple[str, Any]) -> Any:
    return _boolean(f"{element}~{spec}")


def _explained(element: str, source: Source) -> Any:
    return _boolean(f"{element}:{source}")


def _length(name: str) -> Any:
    return _number(f"{name}#", "integer")


def _elements(name: str, *, many: bool) -> list[tuple[str, Any]]:
    """The elements of a value, each with the condition under which it is there."""
    return [(f"{name}{i}", i < _length(name)) for i in range(LONGEST)] if many else [(f"{name}0", z3.BoolVal(True))]


@cache
def _meets(element: str, rule: Rule) -> Any:
    """Whether one value meets every operator."""
    parts = []
    if rule.type in {"money", "integer"}:
        number = _number(element, rule.type)
        if rule.minimum is not None:
            parts.append(number >= z3.RealVal(str(rule.minimum)))
        if rule.maximum is not None:
            parts.append(number <= z3.RealVal(str(rule.maximum)))
        if rule.above is not None:
            parts.append(number > z3.RealVal(str(rule.above)))
    elif rule.type == "boolean":
        truth = _boolean(element)
        parts += [z3.Or([truth if v else z3.Not(truth) for v in allowed]) for allowed in (rule.one_of, rule.equals) if allowed is not None]
    else:
        for spec in _specs(rule):
            if spec == ("one_of", rule.not_in) or spec[0] == "not_pattern":
                parts.append(z3.Not(_inside(element, spec)))
            elif spec[0] != "one_of" or spec[1] == rule.one_of:
                parts.append(_inside(element, spec))
        if rule.role:
            parts.append(z3.Or([_inside(element, ("one_of", (s,))) for s in sorted(rule.role_scopes)]))
    return z3.And(parts)


@cache
def _can_be(element: str, kind: str, specs: tuple[tuple[str, Any], ...]) -> Any:
    """The combinations of languages that a text can meet."""
    ways = combinations_of(kind, specs)
    return z3.Or([z3.And([_inside(element, s) if h else z3.Not(_inside(element, s)) for s, h in zip(specs, w, strict=True)]) for w in ways])


def _facts(name: str, rules: list[Rule], whens: list[Rule]) -> list[Any]:
    """What is true of an argument's variables whatever the rules say."""
    kind, many = rules[0].type, rules[0].max_items is not None
    facts = [_length(name) >= 1, _length(name) <= LONGEST] if many else []
    if kind not in {"money", "integer", "boolean"}:
        specs = tuple(sorted({s for r in (*rules, *whens) for s in _specs(r)}, key=str))
        facts += [_can_be(element, kind, specs) for element, _ in _elements(name, many=many)]
    bounds = {r.at_most for r in rules if r.at_most is not None}
    return facts + [z3.Implies(_explained(f"{name}0", b), _boolean(f"{name}<={b}")) for b in bounds]


@cache
def _allowed(name: str, rule: Rule | None) -> tuple[Any, Any]:
    """Whether a rule lets the argument through, and whether it leaves open where it, or something in it, comes from."""
    sent, null = _boolean(f"{name}?"), _boolean(f"{name}=null")  # sent, with a value; else sent as null, or not at all
    if rule is None:
        return z3.Not(z3.Or(sent, null)), z3.BoolVal(False)
    elements = _elements(name, many=rule.max_items is not None)
    parts = [z3.Implies(there, _meets(e, rule)) for e, there in elements]
    if rule.max_items is not None:
        parts.append(_length(name) <= rule.max_items)
    if rule.role:
        scopes = [("one_of", (s,)) for s in sorted(rule.role_scopes)]
        parts.append(z3.Not(z3.And([z3.Or([z3.And(there, _inside(e, s)) for e, there in elements]) for s in scopes])))
    if rule.at_most is not None:
        parts.append(_boolean(f"{name}<={rule.at_most}"))
    explained, ask, inner = _origin(name, rule), z3.BoolVal(False), z3.BoolVal(True)
    if rule.entities is not None:
        inner = z3.Or(z3.Not(_boolean(f"{name}@")), *(_boolean(f"{name}@{s}") for s in rule.entities))
    if rule.unknown_origin != "deny":
        ask = z3.And(sent, z3.Not(z3.And(explained, inner)))
    else:
        parts += [explained, inner]
    return z3.If(sent, z3.And(parts), z3.If(null, z3.BoolVal(rule.nullable), z3.BoolVal(rule.optional))), ask


@cache
def _origin(name: str, rule: Rule) -> Any:
    """Whether a value has one of the origins that its rule lists."""
    if not rule.sources or any(s.kind == "model" for s in rule.sources):
        return z3.BoolVal(True)
    elements = _elements(name, many=rule.max_items is not None)
    return z3.Or([z3.And([z3.Implies(there, _explained(e, s)) for e, there in elements]) for s in rule.sources])


@cache
def _fires(name: str, rule: Rule, when: Rule) -> Any:
    """Whether a step-up condition holds of some element."""
    ways = []
    for element, there in _elements(name, many=rule.max_items is not None):
        parts = [there, _meets(element, when)]
        if when.origin is not None:
            known = [_explained(element, s) for s in rule.sources if s.kind != "model"]
            ways_of = [_explained(element, o) if isinstance(o, Source) and o.kind != "model" else z3.Not(z3.Or(known)) for o in when.origin]
            left_open = rule.unknown_origin != "deny" and "unknown" in when.origin
            parts.append(z3.Or([*ways_of, *([z3.Not(_origin(name, rule))] if left_open else [])]))
        ways.append(z3.And(parts))
    return z3.And(_boolean(f"{name}?"), z3.Or(ways))


# --- the place -----------------------------------------------------------------------------------------------------------
@cache
def _pick(name: str, allowed: tuple[str, ...], options: tuple[str, ...]) -> Any:
    """An enumerated variable is one of the allowed options (there is one more, which nobody allows)."""
    return z3.Or([z3.Int(name) == options.index(v) for v in allowed])


_TENANTS, _SPIFFE, _BROKERS = ("acme", "globex"), ("spiffe://acme/a", "spiffe://acme/b"), ("b1", "b2")
_ENVIRONMENTS = ("prod", "test")


def _place(w: Workflow, tool: Tool) -> list[Any]:
    parts = [
        _agent(w.agent),
        _user(w.for_user, w.agent.in_process),
        _via(w.via),
        _around(w.conditions),
        _tool(tool.definition, tool.upstream),
    ]
    parts += [_pick("tenant", w.tenants, _TENANTS), z3.Int("day") <= w.expires.toordinal() - date(2027, 1, 1).toordinal()]
    age = z3.Int("look age")  # negative: never
    return parts + [z3.And(age >= 0, age <= (10**9 if s.within is None else s.within)) for s in tool.sequence]


@cache
def _agent(rule: AgentRule) -> Any:
    parts = []
    if not rule.in_process:
        parts += [z3.Bool("agent proven"), _pick("spiffe", rule.spiffe, _SPIFFE)]
    if rule.attested_within is not None:
        parts += [z3.Bool("posture"), z3.Int("age") >= 0, z3.Int("age") <= rule.attested_within]
    return z3.And(parts)


@cache
def _user(rule: UserRule | None, in_process: bool) -> Any:  # noqa: FBT001 - both parts of one rule
    if rule is None:
        return z3.Not(z3.Bool("user"))
    parts = [z3.Bool("user"), z3.Or(z3.Bool("user proven"), z3.BoolVal(in_process))]
    if rule.same_tenant:
        parts.append(z3.Bool("same tenant"))
    if rule.groups:
        parts.append(z3.Or([z3.Bool(f"in {g}") for g in rule.groups]))
    if rule.acr:
        parts.append(_pick("acr", rule.acr, ("mfa", "phr")))
    if rule.max_age is not None:
        parts += [z3.Int("signed in") >= 0, z3.Int("signed in") <= rule.max_age]
    return z3.And(parts)


@cache
def _via(rule: ViaRule | None) -> Any:
    hops = z3.Int("hops")
    if rule is None:
        return hops == 0
    return z3.And(
        hops >= rule.min_hops, hops <= rule.max_hops, *(z3.Implies(i < hops, _pick(f"hop{i}", rule.brokers, _BROKERS)) for i in range(3))
    )


@cache
def _around(rule: Conditions) -> Any:
    parts = []
    if rule.environment:
        parts.append(_pick("environment", rule.environment, _ENVIRONMENTS))
    if rule.network:
        parts.append(z3.Or([_network(n) for n in rule.network]))
    if rule.hours is not None:
        parts.append(_hours(rule.hours))
    return z3.And(parts)


def _tool(definition: str, upstream: Upstream | None) -> Any:
    parts = [z3.Int("definition") == int(definition[7:9], 16)] if definition else []
    return z3.And([*parts, z3.Bool("has vault")] if upstream is not None else parts)


def _network(name: str) -> Any:
    address = z3.Int("address")  # negative: no address but the zone
    if "/" not in name:
        return address == -1
    block = ipaddress.ip_network(name)
    return z3.And(address >= int(block.network_address), address <= int(block.broadcast_address))


def _hours(hours: Hours) -> Any:
    minute, week = z3.Int("minute"), 7 * 1440
    ways = []
    for day in hours.days:
        start, end = day * 1440 + hours.start, day * 1440 + hours.end + (1440 if hours.end < hours.start else 0)
        ways += [z3.And(minute >= start - lap, minute < end - lap) for lap in (0, week)]
    return z3.Or(ways)


def _intents(w: Workflow, needs: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Let through; left open; left open to a group only. Each intent is 0 absent, 1 unclear or 2 present."""
    if needs in {("any",), ()}:
        return z3.BoolVal(True), z3.BoolVal(False), z3.BoolVal(False)
    present = z3.Or([z3.Int(f"intent {n}") == 2 for n in needs])
    unclear, user = (
        z3.Or([z3.Int(f"intent {n}") == 1 for n in needs if w.intents[n].unclear in answers])
        for answers in (("confirm", "step_up"), ("confirm",))
    )
    return z3.Or(present, unclear), z3.And(z3.Not(present), unclear), z3.And(z3.Not(present), unclear, z3.Not(user))


def _sent(w: Workflow, tool: Tool, name: str) -> tuple[Any, Any, Any, Any]:
    """What is said of an argument, and of its own intents where it is sent: held; origin open; intent open; open to a group only."""
    rule = tool.args.get(name)
    held, asks = _allowed(name, rule)
    needed, unclear, strictly = _intents(w, rule.needs if rule is not None else ())
    sent = _boolean(f"{name}?")
    strict = z3.Or(asks if rule is not None and rule.unknown_origin == "step_up" else z3.BoolVal(False), z3.And(sent, strictly))
    return z3.And(held, z3.Implies(sent, needed)), asks, z3.And(sent, unclear), strict


_LIMITS = [
    *(
        z3.And(z3.Int(n) >= 0, z3.Int(n) <= top)
        for n, top in (("tenant", 2), ("spiffe", 2), ("hops", 3), ("environment", 2), ("minute", 7 * 1440 - 1))
    ),
    *(z3.And(z3.Int(f"hop{i}") >= 0, z3.Int(f"hop{i}") <= 2) for i in range(3)),
    *(z3.And(z3.Int(f"intent {n}") >= 0, z3.Int(f"intent {n}") <= 2) for n in ("refund", "notify")),
    z3.Int("address") >= -2,
    z3.Int("address") < 2**32,
]


def wider(old: Workflow, new: Workflow) -> bool:
    """Whether some call needs fewer releases under `new` (the two reads are alike)."""
    places = [(w.tenants, w.expires, w.agent, w.for_user, w.via, w.conditions) for w in (old, new)]
    return _wider(old, new, "act") or (places[0] != places[1] and _wider(old, new, "look"))


def _wider(old: Workflow, new: Workflow, name: str) -> bool:
    versions, tools = (old, new), (old.tools[name], new.tools[name])
    arguments = list(dict.fromkeys((*tools[0].args, *tools[1].args)))
    facts: list[Any] = []
    for argument in arguments:
        rules = [t.args[argument] for t in tools if argument in t.args]
        facts += _facts(argument, rules, [w for t in tools for s in t.step_ups for w in s.when if w.name == argument])
    eligible, fired = [], []
    for w, tool in zip(versions, tools, strict=True):
        needed, unclear, strictly = _intents(w, tool.needs)
        sent = [_sent(w, tool, argument) for argument in arguments]
        left_open = {"origin": z3.Or([ask for _, ask, _, _ in sent]), "intent": z3.Or(unclear, *(ask for _, _, ask, _ in sent))}
        strict = z3.Or(strictly, *(each for _, _, _, each in sent))
        everyone = z3.And(strict, z3.BoolVal(not any(s.left_open for s in tool.step_ups)))
        whens = [[_fires(x.name, tool.args[x.name], x) for x in s.when] + [left_open[kind] for kind in s.left_open] for s in tool.step_ups]
        fired.append([z3.Or(everyone, z3.And(when)) for when in whens])
        some, group = (z3.Or([f for f, s in zip(fired[-1], tool.step_ups, strict=True) if not (s.user and only)]) for only in (False, True))
        answered = z3.And(z3.Implies(z3.Or(list(left_open.values())), some), z3.Implies(strict, group))
        eligible.append(z3.And([*_place(w, tool), needed, *(held for held, *_ in sent), answered]))
    less = []
    for before in product((False, True), repeat=len(fired[0])):
        for after in product((False, True), repeat=len(fired[1])):
            said = [("" if s.user else s.group, s.count) for s, f in zip(tools[0].step_ups, before, strict=True) if f]
            kept = [("" if s.user else s.group, s.count) for s, f in zip(tools[1].step_ups, after, strict=True) if f]
            if not _as_strict(said, kept):
                less.append(z3.And([x if f else z3.Not(x) for x, f in zip((*fired[0], *fired[1]), (*before, *after), strict=True)]))
    solver = z3.SimpleSolver()
    solver.add(*_LIMITS, *facts, eligible[1], z3.Or(z3.Not(eligible[0]), *less))
    answer = solver.check()
    assert answer != z3.unknown
    return bool(answer == z3.sat)


def _as_strict(said: list[tuple[str, int]], kept: list[tuple[str, int]]) -> bool:
    """Whether every hold of one list has one of its own in the other, of the same group and by as many people; the user's by anybody."""
    return any(
        all(not one[0] or (one[0] == other[0] and one[1] <= other[1]) for one, other in zip(said, chosen, strict=True))
        for chosen in permutations(kept, len(said))
    )
