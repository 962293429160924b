"""The test file of a loaded draft: a base, which the engine allows or only a rule that always
asks holds, and cases around it.

Rules: the engine decides each case before it is written; one that comes out otherwise is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentgate.decision.answer import Deny, Eligible
from agentgate.loading.inline import inline
from agentgate.review.scenarios.fields import SceneError, Values
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import impossible
from agentgate.values.visible import visible
from agentgate.workflow.model import Workflow


def refused(workflow: Workflow, base: Values) -> tuple[str, ...]:
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


def first_tests(workflow: Workflow, base: Values, others: Values) -> Iterator[str]:
    """The lines of the test file of a loaded draft, around an allowed call: the base.

    `others`: for arguments of that call, another value of the same form, which the user did not
    name.
    """
    yield f"# What {workflow.id} lets through and what not. `agentgate workflow test -v` runs it."
    yield f"workflow: {inline(workflow.id)}"
    yield "base:"
    for key, value in base.items():
        yield f"  {key}: {inline(value)}"
    scene = Scene.of(workflow, base)
    first = scene.decide()
    expected = _expected(first)
    if expected != "allow":
        yield f"expect: {expected}"
    yield "cases:"
    yield f"  - {{name: a call as the user asked for it, expect: {expected}}}"
    for name, source in (
        (rule.name, source)
        for rule in workflow.tools[scene.call.tool].args.values()
        for source in rule.sources
        if source.tool
    ):
        placed = {f"origin.{name}": str(source)}
        if "." not in name and _goes_through(workflow, scene, placed):
            yield (
                f"  - {{name: {inline(f'{name} as {source} says')}, set: {inline(placed)}, "
                f"expect: {expected}}}"
            )
    for name, change, because in _cases(workflow, base, others):
        changed = scene.set(change)
        answer = changed.decide()
        if impossible(workflow, changed):
            continue
        reasons = list(
            dict.fromkeys(f.field if f.argument else str(f.reason) for f in answer.failures)
        )
        if because in reasons:
            shown = reasons[0] if len(reasons) == 1 else reasons
            then = (
                _expected(answer)
                if isinstance(answer, Eligible)
                else f"deny, because: {inline(shown)}"
            )
            yield f"  - {{name: {inline(visible(name, 120))}, set: {inline(change)}, expect: {then}}}"


def _expected(answer: Eligible | Deny) -> str:
    asked = [hold.rule.id for hold in answer.holds] if isinstance(answer, Eligible) else []
    return (
        f"{{confirm: {inline(asked[0] if len(asked) == 1 else asked)}}}" if asked else "allow"
    )


def _goes_through(workflow: Workflow, scene: Scene, change: Values) -> bool:
    """Whether a changed call comes out as its base."""
    try:
        changed = scene.set(change)
    except SceneError:  # no other value could be made up
        return False
    first = scene.decide()
    answer = changed.decide()
    if not (isinstance(first, Eligible) and isinstance(answer, Eligible)) or impossible(
        workflow, changed
    ):
        return False
    return [hold.rule.id for hold in answer.holds] == [hold.rule.id for hold in first.holds]


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
