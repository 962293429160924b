"""One call, one source: what a call refers to in earlier calls of one tool must be met by a
single one of them, and by one row of it.

That is every value that comes from such a call (`from`), every bound (`at_most`) and every
required call (`require`). The elements of a list argument may each come from a row of their
own, within the same call (`agentgate.decision.origins.elements`).

How the joint choice is found without trying every combination: what must hold of one tool
whatever the others do (`at_most`, `require`) filters its calls and rows; each of those left
covers a set of arguments by `from`; only different, maximal sets matter; and one set per tool
must together cover every argument that needs an earlier call. Reasons are looked for only when
none does. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from agentgate.decision.origins.earlier_calls import Answer, Earlier
from agentgate.decision.origins.elements import (
    TiedElement,
    explained_together,
    in_one_row_each,
    maximal,
    names_in,
    tied,
)
from agentgate.decision.origins.trace_result import Joined, Traced
from agentgate.decision.origins.value import Value
from agentgate.values.refusal import Reason
from agentgate.workflow.rule import Sources

Pending = Mapping[str, Value]  # arguments by their names

# ways to combine the rows of several tools that are tried where no call and row meets
# everything by itself
MAX_CHOICES = 1024
# rows that are looked at one by one; of more it is asked first whether any can have what is
# needed
_FEW = 4


class JointNeed(NamedTuple):
    """What of one call a single earlier call of `tool` must meet: a `Dependency` with the
    values sent.
    """

    tool: str
    origins: list[tuple[str, Value, Sources]]
    bounds: list[Value]
    within: float | None
    elements: tuple[TiedElement, ...]


def needs_of(traced: Traced, values: Pending, pending: Pending) -> list[JointNeed]:
    """What a call needs of earlier calls, by tool.

    Args:
        traced: the call.
        values: the arguments that are present and in normal form.
        pending: those whose value must come from an earlier call.
    """
    needs = []
    for other, origins, bounds, within, ties in traced.tool.dependencies:
        mine = [(name, pending[name], sources) for name, sources in origins if name in pending]
        bounded = [values[name] for name in bounds if name in values]
        if mine or bounded or within is not None:
            needs.append(
                JointNeed(
                    other,
                    mine,
                    bounded,
                    within,
                    tied(mine, bounded, traced.args) if ties else (),
                )
            )
    return needs


def joined(
    traced: Traced, values: Pending, pending: Pending, earlier: Earlier, now: float
) -> Joined | None:
    """The one earlier call (and row) of each tool that meets everything together; None without
    one. Arguments as of `needs_of`.
    """
    found: dict[str, tuple[Answer, int]] = {}
    needs = needs_of(traced, values, pending)
    for need in needs:
        for call in earlier.of(need.tool):
            index = _meets_all(call, need, now)
            if index is not None:
                found[need.tool] = call, index
                break
        else:
            return choice(needs, pending, earlier, now)
    return found


def choice(
    needs: Sequence[JointNeed],
    pending: Pending,
    earlier: Earlier,
    now: float,
    *,
    standing: bool = False,
) -> Joined | None:
    """One call and row of each tool that together explain all that is pending; `standing`: by
    what stands for the user's words.
    """
    covers = [_covers(need, earlier.of(need.tool), now, standing=standing) for need in needs]
    if not all(covers) or prod(map(len, covers)) > MAX_CHOICES:
        return None
    for chosen in product(*covers):
        if len(frozenset().union(*chosen)) == len(pending):
            places = zip(needs, covers, chosen, strict=True)
            return {
                need.tool: place
                for need, cover, one in places
                if (place := cover[one]) is not None
            }
    return None


def within_some_call(value: Value, earlier: Earlier) -> bool:
    """Whether some row of an earlier call bounds a value."""
    bound = value.rule.at_most
    return any(
        call.within(value, index)
        for call in (earlier.of(bound.tool) if bound else ())
        for index in range(len(call.rows))
    )


_Covers = dict[frozenset[str], tuple[Answer, int] | None]


def _covers(
    need: JointNeed, calls: Sequence[Answer], now: float, *, standing: bool = False
) -> _Covers:
    """The maximal sets of arguments that one call and row of a tool explains, where it meets
    all that must hold of that tool.

    Empty: no call meets that. A tool that only explains arguments meets it with any call, also
    with none (None as its place).
    """
    everything = frozenset([name for name, _, _ in need.origins])
    free = everything - names_in(need.elements)
    covers: _Covers = {}
    for call in calls:
        if not call.recent(need.within, now):
            continue
        able = [
            each for each in need.origins if call.has_any(each[1], each[2], standing=standing)
        ]
        if len(able) <= 1 and not need.bounds:  # nothing has to share a row
            covers.setdefault(
                frozenset([name for name, _, _ in able]), _place(call, able, standing=standing)
            )
            continue
        ways = explained_together(call, need.elements, standing=standing)
        # in any row
        lists = frozenset([name for name, value, _ in able if value.rule.max_items is not None])
        single = [each for each in able if each[0] not in lists]
        for index in range(len(call.rows)):
            if all(call.within(value, index) for value in need.bounds):
                explained = lists | {
                    name
                    for name, value, sources in single
                    if call.in_row(value, sources, index, standing=standing)
                }
                for way in ways:
                    covers.setdefault(explained & (way | free), (call, index))
    if not covers and not need.bounds and need.within is None:
        return {frozenset(): None}
    if everything in covers:
        return {everything: covers[everything]}
    if len(covers) > MAX_CHOICES:
        return covers
    return {one: covers[one] for one in maximal(covers)}


def _place(
    call: Answer, able: Sequence[tuple[str, Value, Sources]], *, standing: bool
) -> tuple[Answer, int]:
    """The first row of a call that explains an argument on its own."""
    rows = range(len(call.rows))
    return call, next(
        (
            i
            for i in rows
            if all(call.in_row(value, own, i, standing=standing) for _, value, own in able)
        ),
        0,
    )


def _meets_all(call: Answer, need: JointNeed, now: float) -> int | None:
    """The row of a call that explains all arguments that may come from its tool and bounds the
    others; None without one.
    """
    _, origins, bounds, within, tied_elements = need
    if not call.recent(within, now):
        return None
    if tied_elements and not in_one_row_each(call, tied_elements):
        return None
    if len(call.rows) > _FEW and not all(
        call.has_any(value, sources) for _, value, sources in origins
    ):
        return None
    for index in range(len(call.rows)):
        for bounded in bounds:
            if not call.within(bounded, index):
                break
        else:
            for _, value, sources in origins:
                if not call.in_row(value, sources, index):
                    break
            else:
                return index
    return None


# --- why it does not hold together ------------------------------------------------------------
def explain(
    values: Pending, pending: Pending, earlier: Earlier, now: float, traced: Traced
) -> None:
    """Record why it does not hold together: what no call meets by itself, and only without
    that, what one call cannot meet at once.
    """
    tool = traced.tool
    for need in needs_of(traced, values, pending):
        for value in need.bounds:
            if not within_some_call(value, earlier):
                traced.above(value)
    explained = {}
    for name, value in pending.items():
        if any(
            call.has_any(value, sources)
            for other, sources in value.rule.calls
            for call in earlier.of(other)
        ):
            explained[name] = value
        else:
            traced.unexplained(value)
    for index, order in enumerate(tool.sequence):
        if not any(call.recent(order.within, now) for call in earlier.of(order.require)):
            window = "" if order.within is None else f" in the last {order.within} s"
            got = f"no redeemed {order.require}{window}"
            expected = f"{order.require} before {tool.name}"
            traced.of_tool(Reason.SEQUENCE, got, expected, order.line, f"require {index}")
    if not traced.failures:
        _explain_joint(needs_of(traced, values, explained), explained, earlier, now, traced)


def _explain_joint(
    needs: Sequence[JointNeed], pending: Pending, earlier: Earlier, now: float, traced: Traced
) -> None:
    covers = []
    for need in needs:
        mine = _covers(need, earlier.of(need.tool), now)
        if not mine:
            traced.mixed(f"{need.tool} in one earlier call")
            return
        covers.append(mine)
    if prod(map(len, covers)) > MAX_CHOICES:
        traced.mixed(
            f"{', '.join([need.tool for need in needs])} in few enough different results"
        )
        return
    wanted = frozenset(pending)
    asking = {name for name, value in pending.items() if value.rule.unknown_origin != "deny"}
    choices = [frozenset().union(*choice) for choice in product(*covers)]
    # of equals, the one that covers the first arguments: the answer must not depend on the
    # order of a set
    best = max(
        choices,
        key=lambda covered: (
            len((covered & wanted) - asking),
            len(covered & asking),
            [name in covered for name in pending],
        ),
    )
    if wanted - asking <= best:
        as_good = [
            covered
            for covered in choices
            if wanted - asking <= covered and len(covered & wanted) == len(best & wanted)
        ]
        traced.apart = {name for covered in as_good for name in wanted - covered}
    for name in sorted(wanted - best):
        asks = name in asking and wanted - asking <= best
        expected = "the same earlier call as the other arguments"
        condition = f"{traced.tool.name} one source"
        if any(name in names_in(need.elements) for need in needs):
            expected = (
                "in each element, the same row of one earlier call as the other arguments"
            )
        traced.argument(Reason.ONE_SOURCE, pending[name], expected, condition, asks=asks)
