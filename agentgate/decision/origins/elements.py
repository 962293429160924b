"""The elements of lists: what one element takes from the rows of a tool comes from one row.

``payments[].id``, ``payments[].to`` and ``payments[].amount`` of one element are an object:
without this rule, the id of one row could be sent with the payee of another. It holds within
the one earlier call that `agentgate.decision.origins.tracing` chooses for the whole call, for
values (`from`) and bounds (`at_most`) alike; different elements may take different rows. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentgate.decision.origins.earlier_calls import Answer
from agentgate.decision.origins.kinds import Element, Value, element
from agentgate.values.entities import normal
from agentgate.workflow.model import elements, list_of
from agentgate.workflow.rule import Sources

# sets of arguments that are kept where no row meets a whole element; with more, nothing of a
# call counts
MAX_WAYS = 64


class TiedElement(NamedTuple):
    """What one element of a list takes from the rows of one tool: values, each with the origins
    that may explain it, and bounds.
    """

    origins: list[tuple[str, Element, Sources]]
    bounds: list[Value]


def tied(
    origins: Sequence[tuple[str, Value, Sources]],
    bounds: Sequence[Value],
    args: Mapping[str, Any],
) -> tuple[TiedElement, ...]:
    """The elements that take a value and something more from a tool.

    A value by itself is in some row anyway, and what bounds a list bounds each of its elements.

    Args:
        origins: the arguments that may come from it, as in
            `agentgate.decision.origins.tracing.JointNeed`.
        bounds: the arguments that it bounds.
        args: the arguments as sent.
    """
    sources = {name: own for name, value, own in origins if value.rule.max_items is not None}
    bounded = {value.rule.name: value for value in bounds if value.rule.max_items is not None}
    values = {name: value for name, value, _ in origins if name in sources} | bounded
    lists: dict[str, list[str]] = {}
    for name in values:
        lists.setdefault(list_of(name), []).append(name)
    found = []
    for path, names in lists.items():
        for sent in _elements(path, [values[name] for name in names], args):
            mine = [
                (one.rule.name, element(one, one.keys[0]), sources[one.rule.name])
                for one in sent
                if one.rule.name in sources
            ]
            limited = [one for one in sent if one.rule.name in bounded]
            if mine and len(mine) + len(limited) > 1:
                found.append(TiedElement(mine, limited))
    return tuple(found)


def _elements(
    path: str, values: Sequence[Value], args: Mapping[str, Any]
) -> Iterator[list[Value]]:
    """The values of each element of a list, each alone."""
    if len(values) == 1:
        for key in values[0].keys:
            yield [values[0]._replace(keys=(key,))]
        return
    by_name = {value.rule.name: value for value in values}
    for sent in elements(path, by_name, args):
        alone = [
            (by_name[name], normal(by_name[name].rule.type, raw)) for name, raw in sent.items()
        ]
        yield [value._replace(keys=(key,)) for value, key in alone if key is not None]


def in_one_row_each(call: Answer, needed: Iterable[TiedElement]) -> bool:
    """Whether for each element one row of a call has all its values, and bounds it."""
    return all(_whole(call, each, _rows(call, each)) for each in needed)


def explained_together(
    call: Answer, needed: Sequence[TiedElement], *, standing: bool = False
) -> frozenset[frozenset[str]]:
    """The maximal sets of arguments of which every element has all that it sends in one row of
    a call; empty where there are too many.
    """
    everything = names_in(needed)
    ways = frozenset({everything})
    for each in needed:
        rows = _rows(call, each, standing=standing)
        if _whole(call, each, rows):
            continue
        others = everything.difference(rows)
        alike = _alike(rows)
        own = [
            others | names
            for names, indices in alike.items()
            if any(_bounds(call, each, index) for index in indices)
        ]
        narrowed = {one & way for one in (others, *own) for way in ways}
        if max(len(alike), len(narrowed)) > MAX_WAYS:
            return frozenset()
        ways = maximal(narrowed)
    return ways


def _alike(rows: Mapping[str, frozenset[int]]) -> dict[frozenset[str], frozenset[int]]:
    """The rows that have exactly the same arguments of an element, by these."""
    alike = {frozenset[str](): frozenset[int]().union(*rows.values())}
    for name, having in rows.items():
        split: dict[frozenset[str], frozenset[int]] = {}
        for names, indices in alike.items():
            split[names | {name}] = indices & having
            split[names] = indices - having
        alike = {names: indices for names, indices in split.items() if indices}
    return alike


def names_in(needed: Iterable[TiedElement]) -> frozenset[str]:
    """The arguments that elements take from the tool together with something else."""
    return frozenset([name for each in needed for name, _, _ in each.origins])


def maximal(sets: Iterable[frozenset[str]]) -> frozenset[frozenset[str]]:
    """Those that are part of no other."""
    different = frozenset(sets)
    return frozenset([one for one in different if not any(one < other for other in different)])


def _rows(
    call: Answer, tied_element: TiedElement, *, standing: bool = False
) -> dict[str, frozenset[int]]:
    """For each argument of an element the rows that have its value."""
    return {
        name: call.rows_with(wanted, sources, standing=standing)
        for name, wanted, sources in tied_element.origins
    }


def _whole(call: Answer, tied_element: TiedElement, rows: Mapping[str, frozenset[int]]) -> bool:
    """Whether one row has all values of an element, and bounds it."""
    whole = frozenset.intersection(*rows.values())
    return any(_bounds(call, tied_element, index) for index in whole)


def _bounds(call: Answer, tied_element: TiedElement, index: int) -> bool:
    return all(call.within(value, index) for value in tied_element.bounds)
