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

from collections.abc import Iterable, Mapping, Sequence
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
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import PROMPT, Rule, Source

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


class _OfTool:
    """What of one call must be met by one earlier call of one tool.

    Attributes:
        mine: arguments whose value may come from it, with the sources that name it.
        rowed, sums: arguments whose `at_most` is a fact of one row, or of all rows together.
        windows: within how many seconds (None: ever) it must have been called.
    """

    __slots__ = ("mine", "rowed", "sums", "windows")

    def __init__(self) -> None:
        self.mine: list[tuple[str, Value, Sequence[Source]]] = []
        self.rowed: list[Value] = []
        self.sums: list[Value] = []
        self.windows: list[int | None] = []


class _Joint:
    """What of one call refers to earlier calls: by tool, and the arguments whose value must come from one."""

    __slots__ = ("pending", "tools")

    def __init__(self) -> None:
        self.tools: dict[str, _OfTool] = {}
        self.pending: dict[str, Value] = {}

    def of(self, tool: str) -> _OfTool:
        """What one tool must meet."""
        found = self.tools.get(tool)
        if found is None:
            found = self.tools[tool] = _OfTool()
        return found

    def drop(self, name: str) -> None:
        """An argument that no call explains is no part of it."""
        del self.pending[name]
        for each in self.tools.values():
            each.mine = [entry for entry in each.mine if entry[0] != name]


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
    joint = _Joint()
    for name, value in values.items():
        rule = value.rule
        if rule.at_most is not None:
            if not rule.any_call:
                need = joint.of(rule.at_most.tool)
                (need.sums if kind_of(rule.at_most).spread else need.rowed).append(value)
            elif not _within_some_call(value, earlier):
                failures.append(_above(name, value, file))
        if rule.free:
            continue
        if rule.prompted:
            said[name] = in_prompt(value, prompt)
            if said[name]:
                continue
        sources, calls, alone = rule.sources, rule.calls, rule.alone
        if rule.named_first and prompt.holds(rule.said_as):
            sources, calls = (PROMPT,), ()
            alone = tuple([source for source in alone if source == PROMPT])
        if alone and any(_alone(value, source, sources, earlier) for source in alone):
            continue
        if rule.any_call:
            calls = ()
            if all(came_from(value, key, sources, earlier) for key in value.keys):
                continue
        for other, own in calls:
            joint.of(other).mine.append((name, value, own))
        if calls:
            joint.pending[name] = value
        else:
            _note(name, _unexplained(name, value, sources, prompt, file), rule, failures, unknown)
    for order in tool.sequence:
        joint.of(order.require).windows.append(order.within)
    if failures or (joint.tools and not _joined(joint, earlier, now)):
        _explain(tool, joint, prompt, earlier, now, file, failures, unknown)
    return Traced(tuple(failures), unknown, _named(values, said, prompt, earlier))


def _alone(value: Value, source: Source, sources: tuple[Source, ...], earlier: Earlier) -> bool:
    """Whether an origin that names no call explains every element of a value."""
    return all(kind_of(source).explains(source, value, key, sources, earlier) for key in value.keys)


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
    covers = []
    for name, need in joint.tools.items():
        found = _covers(need, earlier.of(name), now)
        if not found:
            return False
        covers.append(found)
    if len(covers) == 1:
        return any(len(covered) == len(joint.pending) for covered in covers[0])
    if prod(map(len, covers)) > _MAX_CHOICES:
        return False
    return any(len(frozenset().union(*choice)) == len(joint.pending) for choice in product(*covers))


_FEW = 4  # rows that are looked at one by one; of more it is asked first whether any can have what is wanted


def _covers(need: _OfTool, calls: Sequence[Answer], now: float) -> set[frozenset[str]]:
    """The maximal sets of arguments that one call and row of a tool explains, where it meets all that must hold of that tool.

    Empty: no call meets that. A tool that only explains arguments meets it with any call, also with none.
    """
    mine, rowed = need.mine, need.rowed
    if need.windows or need.sums:
        calls = [c for c in calls if all(c.recent(w, now) for w in need.windows) and all(c.within(value, 0) for value in need.sums)]
    for call in calls:
        if _explains_all(call, need):  # nothing can cover more
            return {frozenset([arg for arg, _, _ in mine])}
    covers = set[frozenset[str]]()
    for call in calls:
        able = [each for each in mine if _in_call(each[1], each[2], call)]
        if len(able) <= 1 and not rowed:  # nothing has to share a row
            covers.add(frozenset([arg for arg, _, _ in able]))
            continue
        for index in range(len(call.rows)):
            if all(call.within(value, index) for value in rowed):
                covers.add(frozenset([arg for arg, value, sources in able if _in_row(value, sources, call, index)]))
    if not covers and not (rowed or need.sums or need.windows):
        return {frozenset()}
    return covers if len(covers) > _MAX_CHOICES else {c for c in covers if not any(c < other for other in covers)}


def _explains_all(call: Answer, need: _OfTool) -> bool:
    """Whether one row of a call explains all these arguments and is a bound for the others."""
    mine, rowed, rows = need.mine, need.rowed, len(call.rows)
    if rows > _FEW:
        if not all(_in_call(value, sources, call) for _, value, sources in mine):
            return False
        if len(mine) <= 1 and not rowed:
            return True
    for index in range(rows):
        for value in rowed:
            if not call.within(value, index):
                break
        else:
            for _, value, sources in mine:
                if not _in_row(value, sources, call, index):
                    break
            else:
                return True
    return False


def _in_call(value: Value, sources: Iterable[Source], call: Answer) -> bool:
    """Whether one source has the value, or each element of a list, in some row of a call."""
    for source in sources:  # noqa: SIM110 - as in `agentgate.decision.value.in_prompt`
        if call.has(value, source):
            return True
    return False


def _in_row(value: Value, sources: Iterable[Source], call: Answer, index: int) -> bool:
    """Whether one source has the value in a row; the elements of a list may each take a row of that call."""
    if value.rule.max_items is not None:
        return _in_call(value, sources, call)
    key = value.keys[0]
    for source in sources:  # noqa: SIM110 - as above
        if same(value, key, call.origins(source)[index]):
            return True
    return False


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
    for need in joint.tools.values():
        failures += [_above(v.rule.name, v, file) for v in (*need.sums, *need.rowed) if not _within_some_call(v, earlier)]
    for name, value in list(joint.pending.items()):
        if not any(call.has(value, source) for tool_, own in value.rule.calls for source in own for call in earlier.of(tool_)):
            joint.drop(name)
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
    for name, need in joint.tools.items():
        found = _covers(need, earlier.of(name), now)
        if not found:
            failures.append(_mixed(tool, f"{name} in one earlier call", file))
            return
        covers.append(found)
    if prod(map(len, covers)) > _MAX_CHOICES:
        failures.append(_mixed(tool, f"{', '.join(joint.tools)} in few enough different results", file))
        return
    wanted = frozenset(joint.pending)
    choices = [frozenset().union(*choice) for choice in product(*covers)]
    soft = {name for name, value in joint.pending.items() if value.rule.unknown_origin == "step_up"}
    best = max(choices, key=lambda covered: (len((covered & wanted) - soft), len(covered & soft)))
    for name in sorted(wanted - best):
        value, expected = joint.pending[name], "the same earlier call as the other arguments"
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
