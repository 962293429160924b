"""A tool's origin rules where they all refer to at most one other tool: the common case, answered without looking for reasons.

Rules: it says yes only where `agentgate.decision.origins.trace` would find nothing to say; no says nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from agentgate.decision.earlier import (
    NO_FACTS,
    Earlier,
    Row,
    in_words,
    recent,
    same,
    within_bound,
)
from agentgate.decision.value import Value
from agentgate.values.request import EarlierCall
from agentgate.workflow.model import Source, Tool

_Wanted = tuple[Value, tuple[Source, ...]]


class _Asked(NamedTuple):
    """What one argument's rule asks of its origin: in the prompt, or one of `sources`; and within `bound`. `several`: of a list."""

    name: str
    origin: bool
    prompt: bool
    sources: tuple[Source, ...]
    bound: Source | None
    several: bool


class _Plan(NamedTuple):
    """A tool's origin rules where they all refer to at most one other tool (empty: none) and no argument opts out."""

    asked: tuple[_Asked, ...]
    windows: tuple[int | None, ...]
    other: str


_MAX_PLANS = 4096
_plans: dict[int, tuple[Tool, _Plan | None]] = {}  # an entry holds its tool, so an identity stays that tool's


def _plan(tool: Tool) -> _Plan | None:
    """The plan of a tool, made once; None when its rules are not that plain."""
    kept = _plans.get(id(tool))
    if kept is None:
        if len(_plans) >= _MAX_PLANS:
            _plans.clear()
        kept = _plans[id(tool)] = (tool, _planned(tool))
    return kept[1]


def _planned(tool: Tool) -> _Plan | None:
    asked = []
    others = {order.require for order in tool.sequence}
    for name, rule in tool.args.items():
        free = not rule.sources or any(s.kind == "model" for s in rule.sources)
        if free and rule.at_most is None:
            continue
        if rule.any_call:
            return None
        sources = () if free else tuple(s for s in rule.sources if s.tool)
        others.update(s.tool for s in sources)
        if rule.at_most is not None:
            others.add(rule.at_most.tool)
        asked.append(
            _Asked(name, not free, any(s.kind == "prompt" for s in rule.sources), sources, rule.at_most, rule.max_items is not None)
        )
    if len(others) > 1:
        return None
    return _Plan(tuple(asked), tuple(order.within for order in tool.sequence), next(iter(others), ""))


_FEW = 4  # rows that are looked at one by one; of more it is asked first whether any can have what is wanted


def holds_plainly(tool: Tool, values: Mapping[str, Value], in_prompt: Callable[[str], bool], earlier: Earlier, now: float) -> bool:
    """The common case, found without looking for reasons: one call and row of one other tool meets everything.

    True only where the long way would find nothing to say; False says nothing.
    """
    plan = _plan(tool)
    if plan is None:
        return False
    single: list[_Wanted] = []
    lists: list[_Wanted] = []
    sums: list[Value] = []
    rowed: list[Value] = []
    for name, origin, prompt, sources, bound, several in plan.asked:
        value = values.get(name)
        if value is None:
            continue
        if bound is not None:
            (sums if bound.kind == "sum" else rowed).append(value)
        if origin and not (prompt and (in_prompt(name) or in_words(value, earlier.prompt))):
            if not sources or (value.rule.named_first and earlier.prompt.holds(value.rule.said_as)):
                return False
            (lists if several else single).append((value, sources))
    if not plan.other:
        return True
    for call in earlier.of(plan.other):
        if plan.windows and not all(recent(call, within, now) for within in plan.windows):
            continue
        if sums and not all(within_bound(value, call, {}, earlier) for value in sums):
            continue
        if lists and not all(_said(value, sources, call, earlier) for value, sources in lists):
            continue
        rows = call.rows or NO_FACTS
        if len(rows) > _FEW:
            if not all(_said(value, sources, call, earlier) for value, sources in single):
                continue
            if len(single) <= 1 and not rowed:
                return True  # nothing has to share a row
        for row in rows:
            if _row_holds(single, rowed, call, row, earlier):
                return True
    return not (single or lists or sums or rowed or plan.windows)


def _said(value: Value, sources: tuple[Source, ...], call: EarlierCall, earlier: Earlier) -> bool:
    """Whether one of the sources has the value, or each element of a list, in some row of a call."""
    for source in sources:
        said = earlier.said(call, source)
        if all((type(key), key, value.currency) in said for key in value.keys):
            return True
    return False


def _row_holds(single: list[_Wanted], rowed: list[Value], call: EarlierCall, row: Row, earlier: Earlier) -> bool:
    for value in rowed:
        if not within_bound(value, call, row, earlier):
            return False
    origin = earlier.origin
    for value, sources in single:
        key = value.keys[0]
        for source in sources:
            if (found := origin(call, row, source)) is not None and same(value, key, found):
                break
        else:
            return False
    return True
