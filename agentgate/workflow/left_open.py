"""What a call can leave open, and which step-up rules of its tool answer that.

An intent can be unclear, and an argument's origin unknown. The workflow says how strict the
answer has to be at least: `confirm` (the run's own user says yes), `step_up` (a group does) or
`deny`. Who is asked is said by the rules: those whose `when` holds. Only where a group has to
be asked and no rule of the tool says in its `when` what it is about (``intent: unclear``,
``origin: unknown``), every rule asks.

Rules: for each cause, a tool has a rule that asks whenever that cause is there, and is strict
enough. Else it does not load, and the decision refuses. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from agentgate.workflow.model import StepUpRule, Tool
from agentgate.workflow.rule import MODEL, Rule, WhenOpen


class Cause(NamedTuple):
    """One thing that a call of a tool can leave open.

    Attributes:
        kind: an unclear intent, or an unknown origin.
        name: of the intent or the argument.
        answer: how strict the answer is at least; never ``deny``.
        inside: it is the origin of something inside the argument's text.
    """

    kind: Literal["intent", "origin"]
    name: str
    answer: WhenOpen
    inside: bool = False

    def __str__(self) -> str:
        return (
            f"intent {self.name}"
            if self.kind == "intent"
            else f"args.{self.name}" + (".entities" if self.inside else "")
        )


def causes(tool: Tool, unclear: Mapping[str, WhenOpen]) -> Iterator[Cause]:
    """What calls of a tool can leave open that is not refused; `unclear`: what each intent of
    the workflow does then.
    """
    for name in tool.every_need:
        if unclear.get(name, "deny") != "deny":
            yield Cause("intent", name, unclear[name])
    for name, rule in tool.args.items():
        if rule.unknown_origin != "deny":
            yield Cause("origin", name, rule.unknown_origin)
            if rule.entities is not None and MODEL not in rule.entities:
                yield Cause("origin", name, rule.unknown_origin, inside=True)


def answers(rule: StepUpRule, cause: Cause, *, by_when: bool) -> bool:
    """Whether a rule asks whenever a cause is there, and is strict enough; `by_when`: its
    tool's `Tool.by_when`.
    """
    if rule.user and cause.answer == "step_up":
        return False
    if cause.answer == "step_up" and not by_when:
        return True
    return set(rule.left_open) <= {cause.kind} and all(
        _holds(when, cause) for when in rule.when
    )


def answerable(
    tool: Tool, kind: Literal["intent", "origin"], name: str, *, inside: bool = False
) -> WhenOpen | None:
    """What a tool's rules would let stand in place of `deny` for an open question; None: nobody
    would be asked.
    """
    able: tuple[WhenOpen, ...] = ("step_up", "confirm")
    return next(
        (
            a
            for a in able
            for rule in tool.step_ups
            if answers(rule, Cause(kind, name, a, inside), by_when=tool.by_when)
        ),
        None,
    )


def _holds(when: Rule, cause: Cause) -> bool:
    """Whether a condition on an argument holds whenever a cause is there: that its own origin
    is unknown, and no more.
    """
    of_its_own = (cause.kind, cause.name) == ("origin", when.name) and not cause.inside
    return (
        of_its_own
        and not when.operators
        and when.origin is not None
        and "unknown" in when.origin
    )
