"""A call that somebody asks about: given in words and arguments, or by the name of a case beside the workflow, then explained.

Rules: what is given is values; what nobody gives is filled with values the workflow allows, and the explanation says which. An
argument that is not given is left out, never filled, and a null that is given is sent: a call is asked about as it stands.
Nothing is minted or recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.checks import decide
from agentgate.errors import ConfigError
from agentgate.explain.explanation import Explanation, plain
from agentgate.explain.verdicts import explain
from agentgate.loading.source import WorkflowText
from agentgate.loading.yaml_nodes import did_you_mean
from agentgate.review.scenarios.fields import flatten
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import read_tests, scenes
from agentgate.workflow.model import Workflow
from agentgate.workflow.nested import root

_LISTED = 30  # filled values that an explanation names
_CUT = 80  # characters of each


def arguments(text: str) -> dict[str, Any]:
    """The arguments of a call, from JSON.

    Raises:
        ConfigError: not a JSON object.
    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError("args", text[:_CUT], f"a JSON object ({error})") from error
    if type(found) is not dict:
        raise ConfigError("args", text[:_CUT], 'a JSON object, such as {"order_id": "ORD-1"}')
    return found


def changes(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs as a scene's changes: a value is text, unless it is a JSON list, object, boolean or null (null: left out).

    Raises:
        ConfigError: a pair without ``=``, or a key given twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip() or key.strip() in found:
            raise ConfigError("set", pair[:_CUT], "key=value with each key once, such as facts.orders.get.total=80.00")
        found[key.strip()] = _value(text)
    return found


def _value(text: str) -> Any:
    if text.startswith(("[", "{")) or text in {"true", "false", "null"}:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def stated(workflow: Workflow, tool: str, args: Mapping[str, Any], prompts: Sequence[str], more: Mapping[str, Any]) -> Scene:
    """A call as it is given.

    Args:
        workflow: which.
        tool: its tool, exactly.
        args: its arguments, sent exactly so, nulls too; of the tool's others, none is sent.
        prompts: the user's turns, oldest first; none: made up.
        more: a scene's other keys (``tenant``, ``time``, ``facts.orders.get.total``, ``who.user.groups``, ...); ``args.`` among them
            change the arguments (null: left out).

    Raises:
        SceneError: a key or value that a scene cannot have.
    """
    declared = workflow.tools[tool].args if tool in workflow.tools else {}
    left_out = {f"args.{name}": None for name in sorted(set(map(root, declared))) if name not in args}
    base: dict[str, Any] = {"call": tool, **left_out, **{f"args.{name}": value for name, value in args.items()}}
    if prompts:
        base["prompt"] = list(prompts)
    made = Scene.of(workflow, {**base, **more})
    changed = {root(key.removeprefix("args.")) for key, _, _ in flatten(more) if key.startswith("args.")}
    sent = {name: value for name, value in args.items() if name not in changed}
    return made.sending({**{name: value for name, value in made.call.args.items() if name not in sent}, **sent})


def case_of(source: WorkflowText, workflow: Workflow, name: str, more: Mapping[str, Any]) -> Scene:
    """A case of the test file beside a workflow (``base`` is its base), with changes.

    Raises:
        ConfigError: there is no test file, or no such case. WorkflowError: the test file is wrong. SceneError: a change is.
    """
    if source.tests is None:
        raise ConfigError("case", name, f"a test file beside {source.name} (its name with .test.yaml)")
    made = scenes(workflow, read_tests(source.tests, f"tests of {source.name}"))
    known = {case.name: scene for case, scene in made}
    scene = made[0][1] if name == "base" else known.get(name)
    if scene is None:
        near = did_you_mean(name, known)
        raise ConfigError("case", name, "base, or one of " + "; ".join(list(known)[1:20]) + (f" ({near})" if near else ""))
    return scene.set(more) if more else scene


def answer(scene: Scene) -> Explanation:
    """Explain a scene's decision, with what the scene says the store would answer, and what of it nobody said."""
    workflow = scene.workflow
    settled = scene.decide()
    policy = decide(workflow, scene.run, scene.call, scene.around)
    later = settled.failures if isinstance(settled, Deny) and isinstance(policy, Eligible) else ()
    found = explain(workflow, scene.run, scene.call, scene.around, later)
    notes = [f"could not have come about: {failure}" for failure in scene.unreached]
    filled = [f"{key} = {_short(value)}" for key, value in scene.filled.items() if value is not None and not _masked(scene, key)]
    if filled:
        more = f" and {len(filled) - _LISTED} more" if len(filled) > _LISTED else ""
        notes.append("nobody said, so made up: " + ", ".join(filled[:_LISTED]) + more)
    return replace(found, notes=(*found.notes, *notes))


def _masked(scene: Scene, key: str) -> bool:
    """An argument that is sensitive."""
    tool = scene.workflow.tools.get(scene.call.tool)
    rule = tool.args.get(key.removeprefix("args.")) if tool is not None else None
    return rule is not None and rule.sensitive


def _short(value: Any) -> str:
    text = plain(value)
    return text if len(text) <= _CUT else text[: _CUT - 3] + "..."
