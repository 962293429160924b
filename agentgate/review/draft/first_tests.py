"""The test file of a loaded draft: a base, which the engine allows or only a rule that always
asks holds, and cases around it.

Rules: the engine decides each case before it is written; one that comes out otherwise is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agentgate.decision.answer import Deny, Eligible
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import (
    NamedCase,
    cases_yaml,
    file_yaml,
    impossible,
    rules_of,
)
from agentgate.review.scenarios.values import SceneError
from agentgate.values.value_class import Names, Values
from agentgate.values.visible import visible
from agentgate.workflow.model import Workflow


def refused(workflow: Workflow, base: Values) -> Names:
    """The fields for which the engine denies or holds a base; none: it allows the call, or only
    a rule that always asks holds it.
    """
    answer = Scene.of(workflow, base).decide()
    if isinstance(answer, Eligible):
        return tuple(
            f.field
            for hold in answer.holds
            if hold.rule.when or hold.rule.left_open
            for f in hold.why
        )
    return tuple(f.field for f in answer.failures)


def first_tests(workflow: Workflow, base: Values, others: Values) -> str:
    """The test file of a loaded draft, around an allowed call: the base.

    `others`: for arguments of that call, another value of the same form, which the user did not
    name.
    """
    scene = Scene.of(workflow, base)
    first = scene.decide()
    plain = replace(_case("a call as the user asked for it", {}, first), because=())
    cases = [plain]
    sources = (
        (rule.name, source)
        for rule in workflow.tools[scene.call.tool].args.values()
        for source in rule.sources
        if source.tool
    )
    for name, source in sources:
        placed = {f"origin.{name}": str(source)}
        if "." not in name and _goes_through(workflow, scene, placed):
            cases.append(replace(plain, name=f"{name} as {source} says", changes=placed))
    for name, change, because in _cases(workflow, base, others):
        changed = scene.set(change)
        if not impossible(workflow, changed):
            case = _case(visible(name, 120), change, changed.decide())
            if because in case.because:
                cases.append(
                    replace(case, because=case.because if case.answer == "deny" else ())
                )
    return file_yaml(workflow, base, first) + cases_yaml(cases)


def _case(name: str, change: Values, answer: Eligible | Deny) -> NamedCase:
    """A case that says what this answer is, and why."""
    reasons = dict.fromkeys(f.field if f.argument else str(f.reason) for f in answer.failures)
    return NamedCase(name, change, answer.asks, rules_of(answer), tuple(reasons))


def _goes_through(workflow: Workflow, scene: Scene, change: Values) -> bool:
    """Whether a changed call comes out as its base."""
    try:
        changed = scene.set(change)
    except SceneError:  # no other value could be made up
        return False
    first = scene.decide()
    answer = changed.decide()
    return (
        answer.asks == first.asks
        and rules_of(answer) == rules_of(first)
        and not impossible(workflow, changed)
    )


def _cases(
    workflow: Workflow, base: Values, others: Values
) -> Iterator[tuple[str, Values, str]]:
    for name, value in others.items():
        yield f"{name} is not what the user named", {f"args.{name}": value}, f"args.{name}"
    yield "an argument that nobody declared", {"args.not_declared": "x"}, "args.not_declared"
    yield (
        "another tenant",
        {"tenant": "another-tenant", "who.user.tenant": "another-tenant"},
        "tenant",
    )
    for tool in workflow.tools.values():
        if tool.effect != "read" and tool.name != base["call"]:
            yield (
                f"{tool.name} without being asked for",
                {"call": tool.name, "prompt": "Please look"},
                "intent_absent",
            )
