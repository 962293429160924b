"""Where a value came from: the prompt, the user's own id, a fact or argument of an earlier
redeemed call, a calculation, or the model.

Rules: the gate derives an origin and accepts none from anybody. Only `EarlierCall`s, calls of
this run that were minted and redeemed, count (`agentgate.decision.origins.earlier_calls`).
`any_call: true` takes an argument out of the joint search below: each element may come from any
call and row. `named_first`: where the user named any value of the type, nothing but the user's
words is an origin. A text is from the prompt also where it is some of the user's words in their
order (`agentgate.language.wording`). What is `computed` from such values by a calculation that
the user's words name belongs to no call. Values that the user `confirmed` are those of one yes,
also where that is `remembered`. None of these, nor the id of the run's user, names anything.

One call, one source: what a call refers to in earlier calls of one tool must be met by a single
one of them, and by one row of it. That is every value that comes from such a call (`from`),
every bound (`at_most`) and every required call (`require`). The elements of a list argument may
each come from a row of their own, within the same call (`agentgate.decision.origins.elements`).
How the joint choice is found without trying every combination: what must hold of one tool
whatever the others do (`at_most`, `require`) filters its calls and rows; each of those left
covers a set of arguments by `from`; only different, maximal sets matter; and one set per tool
must together cover every argument that needs an earlier call. Reasons are looked for only when
none does.

A call is named where each argument is one whole entity of the user's words, or a value that
stands for them: a fact with `named_by`, in a row that words mean which are neither quoted nor
denied, or with `trust: named`, where it counts; of an earlier read, among the argument's own
origins, and all facts of one tool in one call and row (for a list: one row for each element).
That is worked out once, when the call is minted, and kept in its record: no call looks further
back than one step. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from agentgate.decision.case import Case, Joined, Traced
from agentgate.decision.origins.earlier_calls import Answer, Earlier, stands_for_words
from agentgate.decision.origins.elements import (
    TiedElement,
    explained_together,
    in_one_row_each,
    maximal,
    names_in,
    tied,
)
from agentgate.decision.origins.kinds import (
    Value,
    element,
    in_prompt,
    kind_of,
    sources_of,
    was_sent,
)
from agentgate.values.entities import Key
from agentgate.values.paths import FINDABLE
from agentgate.values.refusal import Reason
from agentgate.workflow.rule import BY_YES, CONFIRMED, MODEL, PROMPT, Rule, Sources

# --- one call, one source ---------------------------------------------------------------------
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


def joined(traced: Traced, pending: Pending, case: Case) -> Joined | None:
    """The one earlier call (and row) of each tool that meets everything together; None without
    one. Arguments as of `needs_of`.
    """
    found: dict[str, tuple[Answer, int]] = {}
    now = case.around.now.timestamp()
    needs = needs_of(traced, case.values, pending)
    for need in needs:
        for call in case.earlier.of(need.tool):
            index = _meets_all(call, need, now)
            if index is not None:
                found[need.tool] = call, index
                break
        else:
            return choice(needs, pending, case.earlier, now)
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
def explain(traced: Traced, pending: Pending, case: Case) -> None:
    """Record why it does not hold together: what no call meets by itself, and only without
    that, what one call cannot meet at once.
    """
    tool = traced.tool
    values = case.values
    earlier = case.earlier
    now = case.around.now.timestamp()
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


# --- each argument ----------------------------------------------------------------------------
MAX_RECORDED = 20  # elements of a list whose origins are recorded


def came_from(value: Value, key: Key, sources: Sources, earlier: Earlier) -> bool:
    """True when one element of an argument has one of `sources`, in any call and row. The model
    explains nothing here.
    """
    return any(
        kind_of(source).explains(source, value, key, sources, earlier) for source in sources
    )


_BY_YES = {str(source) for source in BY_YES}
_OF_TYPE = {kind: Rule("", 0, kind) for kind in FINDABLE}


def in_some_call(kind: str, key: Key, sources: Sources, earlier: Earlier) -> bool:
    """True when an entity inside free text has one of the allowed origins, in any call and
    row.
    """
    return any(kind_of(source).free for source in sources) or came_from(
        Value(_OF_TYPE[kind], (key,), "", key), key, sources, earlier
    )


def trace(traced: Traced, case: Case) -> None:
    """Find whether the origins, bounds and required calls of one call can all hold together.

    Args:
        traced: the call, to which what is found is added.
        case: the call, with its arguments that are present and in normal form. What the run's
            earlier calls said is read only where something depends on it.
    """
    values = case.values
    prompt = traced.prompt
    said = {}  # asked only where it matters
    pending: dict[str, Value] = {}  # what only an earlier call can explain
    by_yes: dict[str, list[str]] = {}  # what the user said yes to
    for name, value in values.items():
        rule = value.rule
        if (
            rule.any_call
            and rule.at_most is not None
            and not within_some_call(value, case.earlier)
        ):
            traced.above(value)
        if rule.free:
            continue
        if rule.prompted:
            said[name] = in_prompt(value, prompt)
            if said[name]:
                traced.origins[name] = PROMPT.kind
                continue
        if rule.joint:
            pending[name] = value
            continue
        sources = sources_of(value, prompt)
        alone = (
            rule.alone
            if sources is rule.sources
            else tuple([source for source in rule.alone if source == PROMPT])
        )
        found = next(
            filter(None, (_explained(value, (source,), sources, case) for source in alone)),
            [],
        )
        if not found and rule.any_call:
            found = _explained(value, sources, sources, case)
        if found:
            traced.origins[name] = ", ".join(dict.fromkeys(found[:MAX_RECORDED]))
            for yes in _BY_YES & {each.partition(" ")[0] for each in found}:
                by_yes.setdefault(yes, []).append(name)
        elif rule.calls and sources is rule.sources and not rule.any_call:
            pending[name] = value
        else:
            traced.unexplained(value)
    for yes, names in by_yes.items():
        if not any(
            _in_one_yes(call, values, names)
            for call in case.earlier.yeses(yes, traced.tool.name)
        ):
            for name in names:  # as a part of this call nobody said yes to it
                traced.origins.pop(name, None)
                traced.unexplained(values[name])
    chosen = None if traced.failures else joined(traced, pending, case)
    if chosen is None:
        explain(traced, pending, case)
    else:
        traced.pending = pending
        traced.chosen = chosen
    traced.named = is_named(case, said)


def rests_on_yes(values: dict[str, Value], earlier: Earlier) -> bool:
    """Whether every argument, of at least one, is named by the user, or a value that they
    confirmed, or such a read returned.
    """
    return bool(values) and all(
        _is_backed(value, key, earlier) for value in values.values() for key in value.keys
    )


def _is_backed(value: Value, key: Key, earlier: Earlier) -> bool:
    sources = [source for source in value.rule.sources if source.kind == CONFIRMED.kind]
    standing = [
        source for source in value.rule.sources if stands_for_words(source, earlier.tools)
    ]
    return (
        in_prompt(value._replace(keys=(key,)), earlier.prompt)
        or came_from(
            value,
            key,
            (
                *sources,
                *[s for s in standing if earlier.tools[s.tool].facts[s.field].confirmed],
            ),
            earlier,
        )
        or any(
            element(value, key) in call.said(source, standing=True)
            for source in standing
            for call in earlier.of(source.tool)
        )
    )


def _in_one_yes(call: Answer, values: dict[str, Value], confirmed: list[str]) -> bool:
    """Whether one call had all that is confirmed, and all else here that a yes can name: an
    account is one person's, and no other's.
    """
    return all(
        was_sent(call, value) and (name not in confirmed or name in call.endorsed)
        for name, value in values.items()
        if any(source.kind == CONFIRMED.kind for source in value.rule.sources)
    )


def _explained(value: Value, given: Sources, sources: Sources, case: Case) -> list[str]:
    """How the record names the origin of each element of a value, which is one of the `given`;
    empty where one has none.
    """
    names = [
        next(
            filter(
                None,
                (
                    kind_of(source).explains(source, value, key, sources, case.earlier)
                    for source in given
                ),
            ),
            "",
        )
        for key in value.keys
    ]
    return names if all(names) else []


# --- whether it is named, and what the record says --------------------------------------------
def is_named(case: Case, said: Mapping[str, bool]) -> bool:
    """Whether a call is named; `said`: whether an argument is in the prompt, where that is known
    already.
    """
    prompt = case.run.prompt
    left: dict[str, Value] = {}
    standing: dict[str, Sources] = {}
    # free text, which is hardly ever named, is mostly the last argument
    for name, value in reversed(case.values.items()):
        if not (said[name] if name in said else in_prompt(value, prompt)):
            sources = case.earlier.standing(value.rule)
            if not sources or (value.rule.named_first and prompt.holds(value.rule.said_as)):
                return False
            left[name], standing[name] = value, sources
    needs = []
    for other in dict.fromkeys(
        [source.tool for sources in standing.values() for source in sources]
    ):
        mine = [
            (name, left[name], tuple([s for s in sources if s.tool == other]))
            for name, sources in standing.items()
        ]
        needs.append(JointNeed(other, mine, [], None, tied(mine, [], case.call.args)))
    return not needs or choice(needs, left, case.earlier, 0, standing=True) is not None


def origin_names(case: Case) -> dict[str, str]:
    """The origin of each argument, short, for a decision's record: ``prompt``, ``model``,
    ``unknown`` or ``tool.field call``.

    What the decision found is taken as found; only of a value that it asked nothing of, or
    found nothing for, is an origin looked for here. The different origins of a list's elements
    are joined by a comma. Each is one that the rule allows, or ``unknown``.
    """
    traced = case.traced
    return {
        name: (traced.recorded(name) if traced is not None else "")
        or ", ".join(
            dict.fromkeys([_name(value, key, case) for key in value.keys[:MAX_RECORDED]])
        )
        for name, value in case.values.items()
        if value.rule.sources and value.keys
    }


def _name(value: Value, key: Key, case: Case) -> str:
    sources = sources_of(value, case.run.prompt)
    names = (
        kind_of(source).explains(source, value, key, sources, case.earlier)
        for source in sources
    )
    return next(filter(None, names), str(MODEL) if MODEL in sources else "unknown")
