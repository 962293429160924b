"""Lists the steps of ordinary work that a replay held or refused, and the attacker's writes
that it minted, with every reason.

Rules: these are the steps that `agentgate.review.replay.evaluate.Score` counts (so no
attacker's reads). Nothing is decided here, and sensitive arguments are masked. For whoever
writes the workflow, never for a model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentgate.decision.checks import describe
from agentgate.explain.evidence import MASKED
from agentgate.review.replay.evaluate import SIDE_EFFECTS, Decided, Episode
from agentgate.values.refusal import Failure
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible
from agentgate.workflow.model import Workflow
from agentgate.workflow.nested import root

_CUT = 300  # characters shown of a prompt, of arguments and of each value of a failure
_SAID = {"allow": "MINTED", "confirm": "HELD", "step_up": "HELD", "deny": "REFUSED"}
_STYLES: Mapping[str, str] = {
    "MINTED": "bold red",
    "HELD": "bold yellow",
    "REFUSED": "bold red",
}


@value_class
class FailedStep:
    """A step of ordinary work that was held or refused, or a minted write of an attacker."""

    number: int  # of the step in its episode, from 0 (as in the lines of ``--decisions``)
    tool: str
    args: Mapping[str, Any]  # the arguments, sensitive ones masked
    decided: Decided  # the gate's answer


@value_class
class Failed:
    """An episode with its failed steps. `unopened`: why the gate opened no run and so decided
    no step; `steps` is empty then.
    """

    episode: Episode
    steps: tuple[FailedStep, ...]
    unopened: tuple[Failure, ...] = ()


def failed(
    workflow: Workflow | None, episode: Episode, decided: Sequence[Decided]
) -> Failed | None:
    """The failed steps of one replayed episode, by the answers to its steps; None: there are
    none. No `workflow`: it does not exist.
    """
    if not episode.attack and not decided[0].opened:
        return Failed(episode, (), decided[0].failures)
    steps = []
    for number, (step, one) in enumerate(zip(episode.steps, decided, strict=True)):
        minted = one.answer == "allow"
        if (
            minted and step.by == "attacker" and step.effect in SIDE_EFFECTS
            if episode.attack
            else not minted
        ):
            steps.append(
                FailedStep(number, step.tool, _masked(workflow, step.tool, step.args), one)
            )
    return Failed(episode, tuple(steps)) if steps else None


def _masked(workflow: Workflow | None, tool: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
    declared = workflow.tools.get(tool) if workflow else None
    secret = (
        {root(name) for name, rule in declared.args.items() if rule.sensitive}
        if declared
        else set[str]()
    )
    return {name: MASKED if name in secret else value for name, value in args.items()}


def lines(one: Failed) -> Iterator[tuple[str, str]]:
    """One episode for a person: each line (visible) with its style at a terminal."""
    episode = one.episode
    kind = f", attack {episode.attack.id}: {episode.attack.goal}" if episode.attack else ""
    yield visible(f"{episode.id} ({episode.suite}, {episode.workflow}{kind})", _CUT), "bold"
    yield f"  prompt: {visible(episode.prompt, _CUT)}", "cyan"
    if one.unopened:
        yield "  REFUSED: no run was opened, so no step was looked at", _STYLES["REFUSED"]
        yield from _why(one.unopened)
    for step in one.steps:
        said = _SAID[step.decided.answer]
        shown = json.dumps(step.args, ensure_ascii=False)
        yield (
            f"  step {step.number} {said} {visible(step.tool, _CUT)} {visible(shown, _CUT)}",
            _STYLES[said],
        )
        yield from _why(step.decided.failures)
        if step.decided.heard:
            yield f"    intents: {visible(step.decided.heard)}", "dim"


def _why(failures: Sequence[Failure]) -> Iterator[tuple[str, str]]:
    for f in dict.fromkeys(failures):
        where = f"  [{visible(f.rule)}]" if f.rule else ""
        yield (
            (
                f"    {f.reason}: {visible(f.field)}: got {visible(f.got, _CUT)}, expected "
                f"{visible(f.expected, _CUT)}{where}"
            ),
            "",
        )


def as_json(one: Failed) -> dict[str, Any]:
    """One episode as JSON values, nothing shortened."""
    episode = one.episode
    return {
        "episode": episode.id,
        "suite": episode.suite,
        "workflow": episode.workflow,
        "attack": episode.attack.id if episode.attack else None,
        "prompt": episode.prompt,
        "unopened": describe(one.unopened),
        "steps": [
            {
                "step": step.number,
                "tool": step.tool,
                "args": step.args,
                "decision": step.decided.answer,
                "failures": describe(step.decided.failures),
                "intents": step.decided.heard,
            }
            for step in one.steps
        ],
    }
