"""Named calls: each argument is one whole entity of the user's words, or a value that stands for them.

Such a value is a fact with `named_by`, in a row that words mean which are neither quoted nor denied, or with `trust: named`, where it
counts; of an earlier read, among the argument's own origins, and all facts of one tool in one call and row.

Whether a call is named is worked out once, when it is minted, and kept in its record: no call looks further back than one step. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from math import prod

from agentgate.decision.earlier import Answer, Earlier
from agentgate.decision.joint import MAX_CHOICES, maximal
from agentgate.decision.value import Value, element, in_prompt
from agentgate.language.prompt import Prompt
from agentgate.workflow.rule import Source


def is_named(values: Mapping[str, Value], said: Mapping[str, bool], prompt: Prompt, earlier: Earlier) -> bool:
    """Whether a call is named.

    Args:
        values: its arguments.
        said: whether an argument is in the prompt, where that is known already.
        prompt: the user's words.
        earlier: the redeemed calls of the run.
    """
    left: dict[str, tuple[Value, tuple[Source, ...]]] = {}
    for name, value in values.items():
        if not (said[name] if name in said else in_prompt(value, prompt)):
            sources = earlier.standing(value.rule)
            if not sources or (value.rule.named_first and prompt.holds(value.rule.said_as)):
                return False
            left[name] = value, sources
    covers: list[set[frozenset[str]]] = []
    for other in dict.fromkeys([source.tool for _, sources in left.values() for source in sources]):
        mine = [(name, value, [s for s in sources if s.tool == other]) for name, (value, sources) in left.items()]
        reached = {frozenset[str]()}
        for call in earlier.of(other):
            able = [each for each in mine if call.has_any(each[1], each[2])]
            lists = [name for name, value, sources in able if value.rule.max_items is not None and _stands(value, sources, call)]
            single = [each for each in able if each[1].rule.max_items is None]
            reached.add(frozenset(lists))
            for index in range(call.returned if single else 0):
                reached.add(frozenset([*lists, *[name for name, value, sources in single if _stands(value, sources, call, index)]]))
        covers.append(maximal(reached))
    if prod(map(len, covers)) > MAX_CHOICES:
        return False
    return any(len(frozenset().union(*choice)) == len(left) for choice in product(*covers))


def _stands(value: Value, sources: Iterable[Source], call: Answer, index: int | None = None) -> bool:
    """Whether a fact of a call that stands for the user's words is the value, in this row; without one each element, in any row."""
    for source in sources:
        known = call.standing(source)[: call.returned]
        rows = known if index is None else known[index : index + 1]
        if all(element(value, key) in rows for key in value.keys):
            return True
    return False
