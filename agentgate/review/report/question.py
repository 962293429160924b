"""Explains a hypothetical call: given by prompt and arguments, or as a case of the test file
beside the workflow.

Rules: what is not given is filled with values that the workflow allows, and the explanation
names them. Arguments are sent as given: a missing one is left out, never filled, and a null is
sent. Nothing is minted or recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.decide import decide
from agentgate.errors import ConfigError
from agentgate.explain.explanation import Explanation
from agentgate.explain.verdicts import explain
from agentgate.loading.source import WorkflowText
from agentgate.loading.yaml_nodes import did_you_mean
from agentgate.review.scenarios.fields import Values, flatten
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import read_tests, scenes
from agentgate.values.visible import visible
from agentgate.workflow.model import Workflow
from agentgate.workflow.nested import root

_LISTED = 30  # filled values that an explanation names
_CUT = 80  # characters of each


def arguments(text: str) -> dict[str, Any]:
    """The arguments of a call, from JSON. Raises ConfigError: not a JSON object."""
    try:
        args = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError("args", text[:_CUT], f"a JSON object ({error})") from error
    if type(args) is not dict:
        raise ConfigError("args", text[:_CUT], 'a JSON object, such as {"order_id": "ORD-1"}')
    return args


def changes(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs as changes of a scene: a value is text, unless it is a JSON list,
    object, boolean or null (null: left out).

    Raises ConfigError: a pair without ``=``, or a key given twice.
    """
    changed = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key or key in changed:
            raise ConfigError(
                "set",
                pair[:_CUT],
                "key=value with each key once, such as facts.orders.get.total=80.00",
            )
        changed[key] = text
        if text.startswith(("[", "{")) or text in {"true", "false", "null"}:
            with suppress(orjson.JSONDecodeError):
                changed[key] = orjson.loads(text)
    return changed


def stated(
    workflow: Workflow, tool: str, args: Values, prompts: Sequence[str], more: Values
) -> Scene:
    """A call exactly as given: its arguments are sent as they are, nulls too, and no other is.

    `prompts`: the user's turns, oldest first; none: filled. `more`: other keys of a scene
    (``tenant``, ``time``, ``who.user.groups``, ``facts.orders.get.total``, ...); ``args.``
    among them changes an argument (null: left out).

    Raises SceneError: a key or value that no scene can have.
    """
    declared = workflow.tools[tool].args if tool in workflow.tools else {}
    left_out = {
        f"args.{name}": None for name in sorted(set(map(root, declared))) if name not in args
    }
    base = {"call": tool, **left_out, **{f"args.{name}": value for name, value in args.items()}}
    if prompts:
        base["prompt"] = list(prompts)
    scene = Scene.of(workflow, {**base, **more})
    changed = {
        root(key.removeprefix("args."))
        for key, _, _ in flatten(more)
        if key.startswith("args.")
    }
    sent = {name: value for name, value in args.items() if name not in changed}
    return scene.sending(
        {**{name: value for name, value in scene.call.args.items() if name not in sent}, **sent}
    )


def case_of(source: WorkflowText, workflow: Workflow, name: str, more: Values) -> Scene:
    """A case of the test file beside a workflow (``base``: its base), with changes.

    Raises ConfigError: no test file, or no such case. WorkflowError: the test file is wrong.
    SceneError: a change is wrong.
    """
    if source.tests is None:
        raise ConfigError(
            "case", name, f"a test file beside {source.name} (its name with .test.yaml)"
        )
    cases = scenes(workflow, read_tests(source.tests, f"tests of {source.name}"))
    by_name = {case.name: scene for case, scene in cases}
    scene = cases[0][1] if name == "base" else by_name.get(name)
    if not scene:
        near = did_you_mean(name, by_name)
        raise ConfigError(
            "case",
            name,
            "base, or one of "
            + "; ".join(list(by_name)[1:20])
            + (f" ({near})" if near else ""),
        )
    return scene.set(more) if more else scene


def answer(scene: Scene) -> Explanation:
    """Explain a scene's decision, with the scene's answers of the store, and name what was
    filled.
    """
    workflow = scene.workflow
    settled = scene.decide()
    policy = decide(workflow, scene.run, scene.call, scene.around)
    later = (
        settled.failures if isinstance(settled, Deny) and isinstance(policy, Eligible) else ()
    )
    explanation = explain(workflow, scene.run, scene.call, scene.around, later)
    notes = [f"could not have come about: {failure}" for failure in scene.unreached]
    tool = workflow.tools.get(scene.call.tool)
    secret = (
        {f"args.{rule.name}" for rule in tool.args.values() if rule.sensitive}
        if tool
        else set[str]()
    )
    filled = [
        f"{key} = {visible(value, _CUT)}"
        for key, value in scene.filled.items()
        if value is not None and key not in secret
    ]
    if filled:
        more = f" and {len(filled) - _LISTED} more" if len(filled) > _LISTED else ""
        notes.append("nobody said, so made up: " + ", ".join(filled[:_LISTED]) + more)
    return replace(explanation, notes=(*explanation.notes, *notes))
