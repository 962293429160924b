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
(`at_most`, `require`) filters its calls; each call and row then covers a set of arguments by `from`; only different, maximal sets
matter; and one set per tool must together cover every argument that needs an earlier call. Reasons are looked for only when none does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from math import prod
from typing import NamedTuple

from agentgate.decision.earlier import Answer, Earlier
from agentgate.decision.origin_kinds import Found, kind_of
from agentgate.decision.value import Value, in_prompt
from agentgate.language.prompt import Prompt
from agentgate.values.entities import Key
from agentgate.values.paths import FINDABLE
from agentgate.values.refusal import Failure, Reason
from agentgate.workflow.model import PROMPT, Rule, Source, Tool

_MAX_CHOICES = 1024  # ways to combine the rows of several tools that are tried; a call with more is refused


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


def sources_of(value: Value, prompt: Prompt) -> tuple[Source, ...]:
    """The origins that count for a value: the rule's, or with `named_first` only the prompt where the user named one of the type."""
    rule = value.rule
    return (PROMPT,) if rule.named_first and prompt.holds(rule.said_as) else rule.sources


def came_from(value: Value, key: Key, sources: tuple[Source, ...], earlier: Earlier) -> bool:
    """True when one element of an argument has one of `sources`, in any call and row. The model explains nothing here."""
    return any(kind_of(source).explains(source, value, key, sources, earlier) for source in sources)


_OF_TYPE = {kind: Rule("", 0, kind) for kind in FINDABLE}


def in_some_call(kind: str, key: Key, sources: tuple[Source, ...], earlier: Earlier) -> bool:
    """True when an entity found inside free text has one of the allowed origins, in any call and row."""
    return any(kind_of(source).free for source in sources) or came_from(Value(_OF_TYPE[kind], (key,), "", key), key, sources, earlier)


class _Joint(NamedTuple):
    """What of one call refers to earlier calls, and must be met by one of each tool.

    Attributes:
        values: the call's arguments.
        pending: arguments whose value must come from an earlier call, with the sources that name one.
        bounded: tool -> arguments whose `at_most` is a fact of it.
        required: tool -> within how many seconds (None: ever) it must have been called.
    """

    values: Mapping[str, Value]
    pending: dict[str, tuple[Source, ...]]
    bounded: dict[str, list[Value]]
    required: dict[str, list[int | None]]

    @property
    def tools(self) -> tuple[str, ...]:
        """Every tool that is referred to."""
        sourced = (source.tool for sources in self.pending.values() for source in sources)
        return tuple(dict.fromkeys([*self.bounded, *self.required, *sourced]))


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
    failures: list[Failure] = []
    unknown: dict[str, Failure] = {}
    said: dict[str, bool] = {}  # asked only where it matters
    joint = _Joint(values, {}, {}, {})
    for name, value in values.items():
        rule = value.rule
        if rule.at_most is not None:
            if not rule.any_call:
                joint.bounded.setdefault(rule.at_most.tool, []).append(value)
            elif not _within_some_call(value, earlier):
                failures.append(_above(name, value, file))
        if rule.free:
            continue
        if PROMPT in rule.sources:
            said[name] = in_prompt(value, prompt)
            if said[name]:
                continue
        sources = sources_of(value, prompt)
        if any(_alone(value, source, sources, earlier) for source in sources):
            continue
        calls = tuple([source for source in sources if source.tool])
        if rule.any_call:
            calls = ()
            if all(came_from(value, key, sources, earlier) for key in value.keys):
                continue
        if calls:
            joint.pending[name] = calls
        else:
            _note(name, _unexplained(name, value, sources, prompt, file), rule, failures, unknown)
    for order in tool.sequence:
        joint.required.setdefault(order.require, []).append(order.within)
    if failures or not _joined(joint, earlier, now):
        _explain(tool, joint, prompt, earlier, now, file, failures, unknown)
    return Traced(tuple(failures), unknown, _named(values, said, prompt, earlier))


def _alone(value: Value, source: Source, sources: tuple[Source, ...], earlier: Earlier) -> bool:
    """Whether an origin that names no call explains every element of a value."""
    kind = kind_of(source)
    return kind.alone and all(kind.explains(source, value, key, sources, earlier) for key in value.keys)


def _within_some_call(value: Value, earlier: Earlier) -> bool:
    bound = value.rule.at_most
    calls = earlier.of(bound.tool) if bound is not None else ()
    return any(call.within(value, index) for call in calls for index in range(len(call.rows)))


def _note(name: str, failure: Failure, rule: Rule, failures: list[Failure], unknown: dict[str, Failure]) -> None:
    if rule.unknown_origin == "step_up":
        unknown[name] = failure
    else:
        failures.append(failure)


# --- one call, one source ------------------------------------------------------------------------------------------------
def _joined(joint: _Joint, earlier: Earlier, now: float) -> bool:
    """Whether one earlier call (and row) of each tool meets everything together."""
    if len(joint.pending) + len(joint.bounded) + len(joint.required) == 0:
        return True
    covers = [_covers(name, joint, earlier, now) for name in joint.tools]
    if not all(covers) or prod(map(len, covers)) > _MAX_CHOICES:
        return False
    wanted = frozenset(joint.pending)
    return any(wanted <= frozenset().union(*choice) for choice in product(*covers))


def _covers(name: str, joint: _Joint, earlier: Earlier, now: float) -> set[frozenset[str]]:
    """The maximal sets of arguments that one call and row of a tool explains, where it meets all that must hold of that tool.

    Empty: no call meets that. A tool that only explains arguments meets it with any call, also with none.
    """
    mine = {arg: [s for s in sources if s.tool == name] for arg, sources in joint.pending.items()}
    mine = {arg: sources for arg, sources in mine.items() if sources}
    bounds, windows = joint.bounded.get(name, ()), joint.required.get(name, ())
    rowed = [value for value in bounds if not _spread(value)]
    sums = [value for value in bounds if _spread(value)]
    every, covers = frozenset(mine), set[frozenset[str]]()
    for call in earlier.of(name):
        if not all(call.recent(within, now) for within in windows):
            continue
        if not all(call.within(value, 0) for value in sums):
            continue
        able = frozenset([arg for arg, sources in mine.items() if any(call.has(joint.values[arg], source) for source in sources)])
        if not rowed and (len(able) <= 1 or len(call.rows) == 1):  # nothing has to share a row, or there is one
            covers.add(able)
        else:
            lists = frozenset([arg for arg in able if joint.values[arg].rule.max_items is not None])
            for index in range(len(call.rows)):
                if all(call.within(value, index) for value in rowed):
                    covers.add(lists.union([a for a in able - lists if _in_row(joint.values[a], mine[a], call, index)]))
        if every in covers:
            return {every}
    if not covers and not bounds and not windows:
        return {frozenset()}
    return covers if len(covers) > _MAX_CHOICES else {c for c in covers if not any(c < other for other in covers)}


def _spread(value: Value) -> bool:
    bound = value.rule.at_most
    return bound is not None and kind_of(bound).spread


def _in_row(value: Value, sources: Iterable[Source], call: Answer, index: int) -> bool:
    return any(same(value, value.keys[0], call.origins(source)[index]) for source in sources)


def same(value: Value, key: Key, known: Found) -> bool:
    """True when what is known is this element of the value: type, key and currency."""
    return known is not None and type(known[0]) is type(key) and known[0] == key and known[1] == value.currency


def _explain(  # noqa: PLR0917 - one step of `trace`, with what it has found so far
    tool: Tool,
    joint: _Joint,
    prompt: Prompt,
    earlier: Earlier,
    now: float,
    file: str,
    failures: list[Failure],
    unknown: dict[str, Failure],
) -> None:
    """Why it does not hold together: first what no call meets by itself, and only without that, what one call cannot meet at once."""
    for values in joint.bounded.values():
        failures += [_above(v.rule.name, v, file) for v in values if not _within_some_call(v, earlier)]
    for name, calls in list(joint.pending.items()):
        value = joint.values[name]
        if not any(call.has(value, source) for source in calls for call in earlier.of(source.tool)):
            del joint.pending[name]
            _note(name, _unexplained(name, value, sources_of(value, prompt), prompt, file), value.rule, failures, unknown)
    for index, order in enumerate(tool.sequence):
        if not any(call.recent(order.within, now) for call in earlier.of(order.require)):
            window = "" if order.within is None else f" in the last {order.within} s"
            got, expected = f"no redeemed {order.require}{window}", f"{order.require} before {tool.name}"
            place = f"{tool.name} require {index}"
            failures.append(Failure(Reason.SEQUENCE, tool.name, got, expected, f"{file}:{order.line}", place))
    if not failures:
        _explain_joint(tool, joint, earlier, now, file, failures, unknown)


def _explain_joint(  # noqa: PLR0917 - as `_explain`
    tool: Tool, joint: _Joint, earlier: Earlier, now: float, file: str, failures: list[Failure], unknown: dict[str, Failure]
) -> None:
    covers = []
    for name in joint.tools:
        found = _covers(name, joint, earlier, now)
        if not found:
            failures.append(_mixed(tool, f"{name} in one earlier call", file))
            return
        covers.append(found)
    if prod(map(len, covers)) > _MAX_CHOICES:
        failures.append(_mixed(tool, f"{', '.join(joint.tools)} in few enough different results", file))
        return
    wanted = frozenset(joint.pending)
    choices = [frozenset().union(*choice) for choice in product(*covers)]
    soft = {name for name in wanted if joint.values[name].rule.unknown_origin == "step_up"}
    best = max(choices, key=lambda covered: (len((covered & wanted) - soft), len(covered & soft)))
    for name in sorted(wanted - best):
        value, expected = joint.values[name], "the same earlier call as the other arguments"
        place = f"{file}:{value.rule.line}"
        failure = Failure(Reason.ONE_SOURCE, f"args.{name}", value.shown, expected, place, f"{tool.name} one source")
        if name in soft and wanted - soft <= best:
            unknown[name] = failure
        else:
            failures.append(failure)


def _above(name: str, value: Value, file: str) -> Failure:
    rule = value.rule
    expected = f"at most {rule.at_most} of an earlier call"
    return Failure(Reason.AT_MOST, f"args.{name}", value.shown, expected, f"{file}:{rule.line}", f"args.{name} at_most")


def _unexplained(name: str, value: Value, sources: tuple[Source, ...], prompt: Prompt, file: str) -> Failure:
    expected = "a value from " + " or ".join(map(str, sources)) + _apart(value, prompt)
    return Failure(Reason.ARGUMENT_ORIGIN, f"args.{name}", value.shown, expected, f"{file}:{value.rule.line}", f"args.{name} from")


def _apart(value: Value, prompt: Prompt) -> str:
    """Why a prompt that seems to name a datetime does not: a day and a time belong together only where they stand together."""
    if value.rule.type != "datetime" or PROMPT not in value.rule.sources:
        return ""
    parts = [str(key).partition("T") for key in value.keys]
    named = all(prompt.words("date", day) and prompt.words("time", time[:5]) for day, _, time in parts)
    return ' (the prompt names its day and its time apart: "on 2026-06-03 at 10:00" names both together)' if named else ""


def _mixed(tool: Tool, expected: str, file: str) -> Failure:
    got = "conditions met only by different earlier calls"
    place = f"{tool.name} one source"
    return Failure(Reason.ONE_SOURCE, tool.name, got, f"all references to {expected}", f"{file}:{tool.line}", place)


# --- named calls ---------------------------------------------------------------------------------------------------------
def _named(values: Mapping[str, Value], said: Mapping[str, bool], prompt: Prompt, earlier: Earlier) -> bool:
    """Whether each argument is in the prompt, or a fact that stands for the user's words; those of one tool in one call and row."""
    left: list[tuple[Value, tuple[Source, ...]]] = []
    for name, value in values.items():
        if not (said[name] if name in said else in_prompt(value, prompt)):
            sources = earlier.standing(value.rule)
            if not sources or (value.rule.named_first and prompt.holds(value.rule.said_as)):
                return False
            left.append((value, sources))
    covers: list[set[frozenset[int]]] = []
    for name in dict.fromkeys(source.tool for _, sources in left for source in sources):
        found = {frozenset[int]()}
        for call in earlier.of(name):
            mine = [(place, value, [s for s in sources if s.tool == name]) for place, (value, sources) in enumerate(left)]
            able = [each for each in mine if any(call.has(each[1], source) for source in each[2])]
            lists = frozenset(
                [place for place, value, sources in able if value.rule.max_items is not None and _stands(value, sources, call)]
            )
            single = [each for each in able if each[1].rule.max_items is None]
            found.add(lists)
            for index in range(call.returned if single else 0):
                found.add(lists.union([place for place, value, sources in single if _stands(value, sources, call, index)]))
        covers.append({c for c in found if not any(c < other for other in found)} if len(found) <= _MAX_CHOICES else found)
    if prod(map(len, covers)) > _MAX_CHOICES:
        return False
    return any(len(frozenset().union(*choice)) == len(left) for choice in product(*covers))


def _stands(value: Value, sources: Iterable[Source], call: Answer, index: int | None = None) -> bool:
    """Whether a fact of a call that stands for the user's words is the value, in this row; without one each element, in any row."""
    for source in sources:
        known = call.standing(source)[: call.returned]
        rows = known if index is None else known[index : index + 1]
        if all(any(same(value, key, each) for each in rows) for key in value.keys):
            return True
    return False
