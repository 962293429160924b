"""Where a value came from: the prompt, the user's own id, a fact or argument of an earlier redeemed call, a calculation, or the model.

Rules: the gate derives an origin and accepts none from anybody. Only `EarlierCall`s, calls of this run that were minted and redeemed,
count (`agentgate.decision.earlier`), and what refers to calls of one tool is met by one of them (`agentgate.decision.joint`).
`any_call: true` takes an argument out of that: each element may come from any call and row. `named_first`: where the user named any
value of the type, nothing but the user's words is an origin. A text is from the prompt also where it is some of the user's words in
their order (`agentgate.language.wording`). What is `computed` from such values by a calculation that the user's words name belongs to no
call. Neither of these two, nor the id of the run's user, names anything (`agentgate.decision.named`). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentgate.decision.earlier import Earlier
from agentgate.decision.joint import explain, joined, within_some_call
from agentgate.decision.named import is_named
from agentgate.decision.origin_kinds import kind_of
from agentgate.decision.traced import Traced
from agentgate.decision.value import Value, in_prompt
from agentgate.language.prompt import Prompt
from agentgate.values.entities import Key
from agentgate.values.paths import FINDABLE
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import PROMPT, Rule, Source


def came_from(value: Value, key: Key, sources: tuple[Source, ...], earlier: Earlier) -> bool:
    """True when one element of an argument has one of `sources`, in any call and row. The model explains nothing here."""
    return any(kind_of(source).explains(source, value, key, sources, earlier) for source in sources)


_OF_TYPE = {kind: Rule("", 0, kind) for kind in FINDABLE}


def in_some_call(kind: str, key: Key, sources: tuple[Source, ...], earlier: Earlier) -> bool:
    """True when an entity inside free text has one of the allowed origins, in any call and row."""
    return any(kind_of(source).free for source in sources) or came_from(Value(_OF_TYPE[kind], (key,), "", key), key, sources, earlier)


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
    traced = Traced(tool, prompt, file)
    said: dict[str, bool] = {}  # asked only where it matters
    pending: dict[str, Value] = {}  # what only an earlier call can explain
    for name, value in values.items():
        rule = value.rule
        if rule.any_call and rule.at_most is not None and not within_some_call(value, earlier):
            traced.above(value)
        if rule.free:
            continue
        if rule.prompted:
            said[name] = in_prompt(value, prompt)
            if said[name]:
                continue
        calls, alone, sources = rule.calls, rule.alone, rule.sources
        if rule.named_first and prompt.holds(rule.said_as):
            sources, calls = (PROMPT,), ()
            alone = tuple([source for source in alone if source == PROMPT])
        if alone and any(_explains(source, value, sources, earlier) for source in alone):
            continue
        if calls and not rule.any_call:
            pending[name] = value
        elif not (rule.any_call and all(came_from(value, key, sources, earlier) for key in value.keys)):
            traced.unexplained(value)
    if traced.failures or not joined(tool, values, pending, earlier, now):
        explain(values, pending, earlier, now, traced)
    traced.named = is_named(values, said, prompt, earlier)
    return traced


def _explains(source: Source, value: Value, sources: tuple[Source, ...], earlier: Earlier) -> bool:
    """Whether an origin that names no call explains every element of a value."""
    return all(kind_of(source).explains(source, value, key, sources, earlier) for key in value.keys)
