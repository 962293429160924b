"""Where a value came from: the prompt, the user's own id, a fact or argument of an earlier redeemed call, a calculation, or the model.

Rules: an origin is derived here and accepted from nobody. Only `EarlierCall`s, calls of this run that were minted and
redeemed, count. One call, one source: every reference from one call to one tool (`from`, `at_most`, `require`) must be met
by the same earlier call, and by the same row of a list result; a list argument's elements may each take a row of that call.
`any_call: true` takes an argument out of that: each element from any call and row. A result of a tool that is not a read is
no origin, except a new id it created (a refused recipient would launder itself through the refusal's echo). A selected fact
counts only in the one row that the user's words select, a labelled one only in the rows they mean. `named_first`: where the user
named any value of the type, nothing but the user's words is an origin. A text is from the prompt also where it is some of the
user's words in their order (`agentgate.language.wording`); it names nothing then. The id of the run's user is an origin of its
own, and names nothing either. What is `computed` from such values by a calculation that the user's words name belongs to no call,
and names nothing.

A call is *named* when each of its arguments is one whole entity of the user's words, or what stands for them: a fact with
`named_by`, in a row that words mean which are neither quoted nor denied, or with `trust: named`, where it counts; of an earlier
read, among the argument's own origins, and all of one call and row.
It is found once, when the call is minted, and travels with its record: no call looks further back than one step.

How the joint choice is found without trying every combination: what must hold of one tool whatever the others do
(`at_most`, `require`) filters its candidates; each candidate then covers a set of arguments by `from`; only different,
maximal sets matter; and one set per tool must together cover every argument that needs an earlier call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from math import prod
from typing import NamedTuple

from agentgate.decision.earlier import (
    NO_FACTS,
    Earlier,
    Row,
    from_user,
    in_words,
    recent,
    same,
    within_bound,
)
from agentgate.decision.plan import holds_plainly
from agentgate.decision.value import Value
from agentgate.language.prompt import Prompt
from agentgate.values.entities import Key
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import EarlierCall
from agentgate.workflow.model import Source, Tool

_PROMPT: tuple[Source, ...] = (Source("prompt"),)
_MAX_CHOICES = 1024  # ways to combine the rows of several tools that are tried; a call with more is refused


def _from_call(value: Value, source: Source, call: EarlierCall, row: Row, earlier: Earlier) -> bool:
    if value.rule.max_items is None:
        return same(value, value.keys[0], earlier.origin(call, row, source))
    said = earlier.said(call, source)
    return all((type(key), key, value.currency) in said for key in value.keys)


def _from_some_row(value: Value, sources: Iterable[Source], call: EarlierCall, earlier: Earlier) -> bool:
    for source in sources:
        if source.tool == call.tool:
            said = earlier.said(call, source)
            if all((type(key), key, value.currency) in said for key in value.keys):
                return True
    return False


def _within_some_call(value: Value, bound: Source, earlier: Earlier) -> bool:
    for call in earlier.of(bound.tool):
        for row in call.rows[:1] if bound.kind == "sum" else call.rows or NO_FACTS:
            if within_bound(value, call, row, earlier):
                return True
    return False


def _from_some_call(value: Value, sources: Iterable[Source], earlier: Earlier) -> bool:
    for source in sources:
        for call in earlier.of(source.tool):
            if all((type(key), key, value.currency) in earlier.said(call, source) for key in value.keys) and value.keys:
                return True
    return False


def sources_of(value: Value, prompt: Prompt) -> tuple[Source, ...]:
    """The origins that count for a value: the rule's, or with `named_first` only the prompt where the user named one of the type."""
    rule = value.rule
    return _PROMPT if rule.named_first and prompt.holds(rule.said_as) else rule.sources


def from_prompt(value: Value, prompt: Prompt) -> bool:
    """True when every element of the value is one whole entity of the user's own words."""
    kind = value.rule.said_as
    for key in value.keys:  # noqa: SIM110 - this runs for every argument of every call, and a generator costs as much as the question
        if prompt.words(kind, key, value.currency) is None:
            return False
    return True


def _named(values: Mapping[str, Value], in_prompt: Callable[[str], bool], earlier: Earlier) -> bool:
    """Whether each argument is in the prompt, or a fact that stands for the user's words; those of one tool in one call and row."""
    left: list[tuple[Value, tuple[Source, ...]]] = []
    for name, value in values.items():
        if not in_prompt(name):
            sources = earlier.standing(value.rule)
            if not sources or (value.rule.named_first and earlier.prompt.holds(value.rule.said_as)):
                return False
            left.append((value, sources))
    covers: list[set[frozenset[int]]] = []
    for name in dict.fromkeys(s.tool for _, sources in left for s in sources):
        found = {frozenset[int]()}
        for call in earlier.of(name):
            able = [i for i, (value, sources) in enumerate(left) if _from_some_row(value, sources, call, earlier)]
            lists = frozenset(i for i in able if left[i][0].rule.max_items is not None and _stands(*left[i], call, call.rows, earlier))
            single = [i for i in able if left[i][0].rule.max_items is None]
            found.add(lists)
            for row in call.rows if single else ():
                found.add(lists.union(i for i in single if _stands(*left[i], call, (row,), earlier)))
        covers.append({c for c in found if not any(c < other for other in found)} if len(found) <= _MAX_CHOICES else found)
    if prod(map(len, covers)) > _MAX_CHOICES:
        return False
    return any(len(frozenset().union(*choice)) == len(left) for choice in product(*covers))


def _stands(value: Value, sources: tuple[Source, ...], call: EarlierCall, rows: tuple[Row, ...], earlier: Earlier) -> bool:
    """Whether a fact of these rows of a call that stands for the user's words is the value, or each element of a list."""
    for source in sources:
        if source.tool == call.tool and all(any(same(value, key, earlier.stands(call, r, source)) for r in rows) for key in value.keys):
            return True
    return False


class Traced(NamedTuple):
    """What tracing found.

    Attributes:
        failures: conditions no origin can meet, one each.
        unknown: names of arguments whose origin does not hold and whose rule says ``unknown_origin: step_up``, with why.
        named: every argument's value is in the prompt (whether or not its rule asks), or a fact that stands for the user's words.
    """

    failures: tuple[Failure, ...]
    unknown: Mapping[str, Failure]
    named: bool


def trace(tool: Tool, values: Mapping[str, Value], prompt: Prompt, earlier: Earlier, *, now: float, file: str) -> Traced:
    """Find whether the origins, bounds and required calls of one call can all hold together.

    Args:
        tool: the tool called, with its rules.
        values: the arguments that are present and in normal form.
        prompt: entities of the user's turns.
        earlier: the run's redeemed calls.
        now: decision time in POSIX seconds.
        file: workflow file, for ``file:line`` in failures.
    """
    prompted: dict[str, bool] = {}  # asked only where it matters

    def in_prompt(name: str) -> bool:
        known = prompted.get(name)
        if known is None:
            known = prompted[name] = from_prompt(values[name], prompt)
        return known

    if holds_plainly(tool, values, in_prompt, earlier, now):
        return Traced((), {}, _named(values, in_prompt, earlier))
    failures: list[Failure] = []
    unknown: dict[str, Failure] = {}
    pending: dict[str, list[Source]] = {}
    bounded: dict[str, list[Value]] = {}
    for name, value in values.items():
        rule = value.rule
        if rule.at_most is not None:
            if not _within_some_call(value, rule.at_most, earlier):
                failures.append(
                    Failure(
                        Reason.AT_MOST, f"args.{name}", value.shown, f"at most {rule.at_most} of an earlier call", f"{file}:{rule.line}"
                    )
                )
            elif not rule.any_call:
                bounded.setdefault(rule.at_most.tool, []).append(value)
        if not rule.sources or any(
            s.kind == "model" or (s.kind == "prompt" and (in_prompt(name) or in_words(value, prompt))) for s in rule.sources
        ):
            continue
        sources = sources_of(value, prompt)
        if any(s.kind == "user" for s in sources) and all(earlier.is_user(rule.type, key) for key in value.keys):
            continue
        if any(s.kind == "computed" for s in sources) and all(earlier.calculated(value, key, sources) is not None for key in value.keys):
            continue
        calls = [s for s in sources if s.tool]
        if rule.any_call and all(came_from(value, key, sources, prompt, earlier) for key in value.keys):
            continue
        if rule.any_call or not _from_some_call(value, calls, earlier):
            failure = Failure(
                Reason.ARGUMENT_ORIGIN,
                f"args.{name}",
                value.shown,
                "a value from " + " or ".join(map(str, sources)) + _apart(value, prompt),
                f"{file}:{rule.line}",
            )
            if rule.unknown_origin == "step_up":
                unknown[name] = failure
            else:
                failures.append(failure)
        else:
            pending[name] = calls
    required: dict[str, list[int | None]] = {}
    for order in tool.sequence:
        if not any(recent(c, order.within, now) for c in earlier.of(order.require)):
            window = "" if order.within is None else f" in the last {order.within} s"
            failures.append(
                Failure(
                    Reason.SEQUENCE,
                    tool.name,
                    f"no redeemed {order.require}{window}",
                    f"{order.require} before {tool.name}",
                    f"{file}:{order.line}",
                )
            )
        else:
            required.setdefault(order.require, []).append(order.within)
    if not failures and (pending or bounded or required):
        _join(tool, values, pending, bounded, required, earlier, now, file, failures, unknown)
    return Traced(tuple(failures), unknown, _named(values, in_prompt, earlier))


def _apart(value: Value, prompt: Prompt) -> str:
    """Why a prompt that seems to name a datetime does not: a day and a time belong together only where they stand together."""
    if value.rule.type != "datetime" or not any(s.kind == "prompt" for s in value.rule.sources):
        return ""
    parts = [str(key).partition("T") for key in value.keys]
    named = all(prompt.words("date", day) and prompt.words("time", time[:5]) for day, _, time in parts)
    return ' (the prompt names its day and its time apart: "on 2026-06-03 at 10:00" names both together)' if named else ""


def _join(  # noqa: PLR0917 - one step of `trace`, with what it has found so far
    tool: Tool,
    values: Mapping[str, Value],
    pending: Mapping[str, list[Source]],
    bounded: Mapping[str, list[Value]],
    required: Mapping[str, list[int | None]],
    earlier: Earlier,
    now: float,
    file: str,
    failures: list[Failure],
    unknown: dict[str, Failure],
) -> None:
    """One call, one source: choose one earlier call (and row) per referenced tool so that everything holds together."""
    tools = dict.fromkeys([*bounded, *required, *(s.tool for sources in pending.values() for s in sources)])
    covers: list[set[frozenset[str]]] = []
    sourced = {s.tool for sources in pending.values() for s in sources}
    for name in tools:
        found: set[frozenset[str]] = set()
        sums = [value for value in bounded.get(name, ()) if value.rule.at_most is not None and value.rule.at_most.kind == "sum"]
        rowed = [value for value in bounded.get(name, ()) if value.rule.at_most is not None and value.rule.at_most.kind != "sum"]
        for call in earlier.of(name):
            if not all(recent(call, within, now) for within in required.get(name, ())):
                continue
            if not all(within_bound(value, call, {}, earlier) for value in sums):
                continue
            able = frozenset(arg for arg, sources in pending.items() if _from_some_row(values[arg], sources, call, earlier))
            if len(able) <= 1 and not rowed:  # nothing has to share a row
                found.add(able)
                continue
            for row in (call.rows if rowed or name in sourced else ()) or NO_FACTS:
                if all(within_bound(value, call, row, earlier) for value in rowed):
                    found.add(
                        frozenset(
                            arg
                            for arg, sources in pending.items()
                            if any(s.tool == name and _from_call(values[arg], s, call, row, earlier) for s in sources)
                        )
                    )
        if not found and (name in bounded or name in required):
            failures.append(_mixed(tool, f"{name} in one earlier call", file))
            return
        maximal = found if len(found) > _MAX_CHOICES else {c for c in found if not any(c < other for other in found)}
        covers.append(maximal or {frozenset()})
    if prod(map(len, covers)) > _MAX_CHOICES:
        failures.append(_mixed(tool, f"{', '.join(tools)} in few enough different results", file))
        return
    wanted = frozenset(pending)
    choices = [frozenset().union(*choice) for choice in product(*covers)]
    if any(wanted <= covered for covered in choices):
        return
    soft = {name for name in wanted if values[name].rule.unknown_origin == "step_up"}
    best = max(choices, key=lambda covered: (len((covered & wanted) - soft), len(covered & soft)))
    for name in sorted(wanted - best):
        failure = Failure(
            Reason.ONE_SOURCE,
            f"args.{name}",
            values[name].shown,
            "the same earlier call as the other arguments",
            f"{file}:{values[name].rule.line}",
        )
        if name in soft and wanted - soft <= best:
            unknown[name] = failure
        else:
            failures.append(failure)


def _mixed(tool: Tool, expected: str, file: str) -> Failure:
    return Failure(
        Reason.ONE_SOURCE,
        tool.name,
        "conditions met only by different earlier calls",
        f"all references to {expected}",
        f"{file}:{tool.line}",
    )


def came_from(value: Value, key: Key, sources: tuple[Source, ...], prompt: Prompt, earlier: Earlier) -> bool:
    """True when one element of an argument has one of `sources`, in any call and row. The model explains nothing here."""
    for source in sources:
        if source.kind == "prompt" and from_user(value, key, prompt):
            return True
        if source.kind == "user" and earlier.is_user(value.rule.type, key):
            return True
        if source.kind == "computed" and earlier.calculated(value, key, sources) is not None:
            return True
        for call in earlier.of(source.tool) if source.tool else ():
            if (type(key), key, value.currency) in earlier.said(call, source):
                return True
    return False


def in_some_call(kind: str, key: Key, sources: tuple[Source, ...], prompt: Prompt, earlier: Earlier) -> bool:
    """True when a value found inside free text has one of the allowed origins, in any call and row."""
    for source in sources:
        if source.kind == "model" or (source.kind == "prompt" and prompt.words(kind, key) is not None):
            return True
        if source.kind == "user" and earlier.is_user(kind, key):
            return True
        for call in earlier.of(source.tool) if source.tool else ():
            if (type(key), key, "") in earlier.said(call, source):
                return True
    return False
