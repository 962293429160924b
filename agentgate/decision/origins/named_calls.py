"""Named calls: each argument is one whole entity of the user's words, or a value that stands
for them.

Such a value is a fact with `named_by`, in a row that words mean which are neither quoted nor
denied, or with `trust: named`, where it counts; of an earlier read, among the argument's own
origins, and all facts of one tool in one call and row (for a list: one row for each element).

Whether a call is named is worked out once, when it is minted, and kept in its record: no call
looks further back than one step. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.decision.origins.earlier_calls import Earlier
from agentgate.decision.origins.elements import tied
from agentgate.decision.origins.join import JointNeed, choice
from agentgate.decision.origins.value import Value, in_prompt
from agentgate.language.prompt import Prompt
from agentgate.workflow.rule import Sources


def is_named(
    values: dict[str, Value],
    said: Mapping[str, bool],
    args: Mapping[str, Any],
    prompt: Prompt,
    earlier: Earlier,
) -> bool:
    """Whether a call is named.

    Args:
        values: its arguments.
        said: whether an argument is in the prompt, where that is known already.
        args: the arguments as sent.
        prompt: the user's words.
        earlier: the redeemed calls of the run.
    """
    left: dict[str, Value] = {}
    standing: dict[str, Sources] = {}
    # free text, which is hardly ever named, is mostly the last argument
    for name, value in reversed(values.items()):
        if not (said[name] if name in said else in_prompt(value, prompt)):
            sources = earlier.standing(value.rule)
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
        needs.append(JointNeed(other, mine, [], None, tied(mine, [], args)))
    return choice(needs, left, earlier, 0, standing=True) is not None
