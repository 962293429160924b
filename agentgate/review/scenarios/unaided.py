"""Whether any prompt gives each required argument of a tool that acts its value without a
person, and what is missing when not.

Rules: three answers, and none is a guess. *witnessed*: the engine allows a complete call that
is made up here or is a case of the test file, with every earlier call it refers to, each
decided in full; nobody is asked, unless a rule asks about every call. *impossible*: by the
text, no origin of the argument can ever hold, whatever the user says. *not shown*: neither,
with what stood in the way; nothing is claimed then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import islice, product
from typing import Literal, NamedTuple

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.decide import decide
from agentgate.decision.origins.kinds import of_call
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.values import (
    SceneError,
    ago,
    bare,
    can_be_named,
    fits,
    in_words,
    named,
    sent,
    singles,
    under,
)
from agentgate.values.entities import Key
from agentgate.values.refusal import Failure, Failures, Reason
from agentgate.values.request import Call
from agentgate.values.value_class import Json
from agentgate.workflow.model import Limit, Tool, Workflow
from agentgate.workflow.rule import PROMPT, USER, Rule, Source

_Whys = dict[str, str]  # by the name of a tool or an argument
# tried of one tool, of its calls, of an argument
MAX_PROMPTS = 12
MAX_REPAIRED = 3
MAX_VALUES = 8
# on which day something can be named makes no difference to what can
SOME_TIME = "2026-01-07T12:00+00:00"
Verdict = Literal["witnessed", "impossible", "not shown"]


class Unaided(NamedTuple):
    """What is known of one required argument; `why`: what is missing or stood in the way
    (witnessed: empty); `scene`: the witness.
    """

    tool: str
    argument: str
    verdict: Verdict
    why: str = ""
    scene: Scene | None = None


def unaided(workflow: Workflow, cases: Iterable[Scene] = ()) -> tuple[Unaided, ...]:
    """Every required argument of every tool that acts, in the order of the file. `cases`:
    scenes of its test file.
    """
    barred = _barred(workflow)
    known = tuple(cases)
    found = []
    for tool in workflow.tools.values():
        required = [rule for rule in tool.args.values() if not rule.optional]
        if tool.effect == "read" or not required:
            continue
        before = _before(tool, barred)
        missing = {rule.name: before or _missing(workflow, rule, barred) for rule in required}
        scene, stopped = (
            (None, ()) if any(missing.values()) else _witness(workflow, tool, known)
        )
        without = next((name for name, why in missing.items() if why), "")
        for rule in required:
            verdict: Verdict = "not shown" if stopped or without else "witnessed"
            why = f"no call of {tool.name} can be shown without {without}" if without else ""
            if missing[rule.name]:
                verdict, why = "impossible", missing[rule.name]
            elif stopped:
                own = [failure for failure in stopped if failure.argument == rule.name]
                why = f"the nearest call made up is not allowed: {(own or stopped)[0]}"
            found.append(Unaided(tool.name, rule.name, verdict, why, scene))
    return tuple(found)


def counted(found: Iterable[Unaided]) -> str:
    """How many of each verdict, in words; empty for none."""
    kinds = Counter(each.verdict for each in found)
    said: dict[Verdict, str] = {
        "witnessed": "shown by a call",
        "impossible": "impossible",
        "not shown": "not shown",
    }
    return ", ".join(
        f"{kinds[verdict]} {word}" for verdict, word in said.items() if kinds[verdict]
    )


# --- by the text ------------------------------------------------------------------------------
def _barred(workflow: Workflow) -> _Whys:
    """The tools of which no call goes through without a person, and why; a file in which tools
    wait for each other does not load.
    """
    barred: _Whys = {}
    while True:
        new = {
            name: why
            for name, tool in workflow.tools.items()
            if name not in barred and (why := _stops(workflow, tool, barred))
        }
        if not new:
            return barred
        barred |= new


def _stops(
    workflow: Workflow,
    tool: Tool,
    barred: _Whys,
) -> str:
    asks = next((rule for rule in tool.step_ups if _always(rule.when, rule.left_open)), None)
    if asks:
        return f"every call of {tool.name} asks {asks.whom} (step_up.{asks.id})"
    if before := _before(tool, barred):
        return before
    whys = (
        (rule.name, _missing(workflow, rule, barred))
        for rule in tool.args.values()
        if not rule.optional
    )
    return next((f"{tool.name} needs {name}, which {why}" for name, why in whys if why), "")


def _always(when: object, left_open: object) -> bool:
    return not when and not left_open


def _before(tool: Tool, barred: _Whys) -> str:
    needed = next((order.require for order in tool.sequence if order.require in barred), "")
    return f"comes after {needed} (sequence), and {barred[needed]}" if needed else ""


def _missing(
    workflow: Workflow,
    rule: Rule,
    barred: _Whys,
) -> str:
    """Why no origin and no bound of an argument can hold; empty where some may."""
    bound = rule.at_most
    if bound and (why := _unread(workflow, bound, barred)):
        return f"is at most {bound}, and {why}"
    if rule.free or PROMPT in rule.sources or (USER in rule.sources and workflow.for_user):
        return ""
    reasons = {
        source: _unread(workflow, source, barred) for source in rule.sources if source.tool
    }
    if not reasons:
        return f"comes only from {' or '.join(map(str, rule.sources))}, and the workflow is for no user"
    return (
        ""
        if not all(reasons.values())
        else "comes only from "
        + "; or ".join(f"{source}, and {why}" for source, why in reasons.items())
    )


def _unread(
    workflow: Workflow,
    source: Source,
    barred: _Whys,
) -> str:
    """Why an origin in another call never counts; empty where it may."""
    if source.tool in barred:
        return barred[source.tool]
    tool = workflow.tools[source.tool]
    fact = tool.facts.get(source.field) if of_call(source).returned else None
    if fact and fact.named and not tool.args:
        return f"{tool.name} has no argument by which the user could name it (trust: named)"
    return ""


# --- by a witness -----------------------------------------------------------------------------
def _witness(
    workflow: Workflow, tool: Tool, cases: Iterable[Scene]
) -> tuple[Scene | None, Failures]:
    """A call of the tool that goes through; else None and what stopped the call that came
    nearest.
    """
    nearest = (
        Failure(
            Reason.ARGUMENT_VALUE,
            tool.name,
            "no call that could be made up",
            "a case of the test file that is allowed",
        ),
    )
    stopped: Failures = ()
    for scene in (
        *(case for case in cases if case.call.tool == tool.name),
        *_made(workflow, tool),
    ):
        now = stops(scene)
        if not now:
            return scene, ()
        if not stopped or len(now) < len(stopped):
            stopped = now
    return None, stopped or nearest


def _made(workflow: Workflow, tool: Tool) -> Iterator[Scene]:
    """Calls of a tool in the order of trying.

    As a scene completes them, with each example of each intent that it needs; with what the
    user may name in the prompt; then the nearest of these with what stood in the way changed.
    """
    wanted = [
        tool.needs,
        *(rule.needs for rule in tool.args.values() if rule.needs and not rule.optional),
    ]
    examples = [
        [
            text
            for name in names
            if name in workflow.intents
            for text in workflow.intents[name].examples
        ]
        for names in wanted
    ]
    prompts = (
        ". ".join(text.rstrip(".") for text in chosen)
        for chosen in product(*filter(None, examples))
    )
    made = []
    for stated in ({}, *({"prompt": prompt} for prompt in islice(prompts, MAX_PROMPTS))):
        for more in (stated, _spoken(workflow, tool, stated.get("prompt", ""))):
            with suppress(SceneError):  # no value could be made up
                made.append(Scene.of(workflow, {"call": tool.name, **more}))
                yield made[-1]
    for scene in sorted(made, key=lambda scene: len(stops(scene)))[:MAX_REPAIRED]:
        yield from _repaired(scene, tool)


def _spoken(
    workflow: Workflow,
    tool: Tool,
    prompt: str,
) -> Json:
    """A prompt that names each required argument that it may name, and these."""
    stated = {}
    sentences = [prompt.rstrip(".")] if prompt else []
    for rule in tool.args.values():
        if rule.optional or rule.free or PROMPT not in rule.sources:
            continue
        code = next((str(key) for key in _constants(tool, rule.currency)), "")
        for one in singles(rule):
            if fits(workflow, tool.name, rule.name, sent(rule, one)) and can_be_named(
                {"time": SOME_TIME}, rule, one, code
            ):
                stated[f"args.{rule.name}"] = sent(rule, one)
                sentences.append(in_words(rule.type, one, code))
                break
    return {**stated, "prompt": ". ".join(sentences)}


def _constants(tool: Tool, name: str) -> tuple[Key, ...]:
    rule = tool.args.get(name)
    return (
        tuple(key for operator in rule.operators for key in operator.constants) if rule else ()
    )


def _repaired(scene: Scene, tool: Tool) -> Iterator[Scene]:
    """The scene with one change after the other that leaves less in the way."""
    stopped = stops(scene)
    for _ in range(len(tool.args)):
        better = None
        for name in (failure.argument for failure in stopped):
            for change in _changes(tool.args[name]) if name in tool.args else ():
                with suppress(SceneError):
                    changed = scene.set(change)
                    if len(stops(changed)) < len(stopped):
                        better = changed
                        break
            if better:
                break
        if not better:
            return
        scene = better
        stopped = stops(better)
        yield scene


def _changes(rule: Rule) -> Iterator[Json]:
    """Another place for an argument, or another value at a place."""
    places = [
        named(source)
        for source in rule.sources
        if source.kind != "computed" and not source.selector
    ]
    yield from ({f"origin.{rule.name}": place} for place in places)
    for one in islice(singles(rule), MAX_VALUES):
        value = {f"args.{rule.name}": sent(rule, one)}
        yield value
        yield from ({**value, f"origin.{rule.name}": place} for place in places)


def stops(scene: Scene) -> Failures:
    """What keeps a call, or an earlier one of its run, from going through without a person;
    empty: nothing does.

    A rule that asks about every call of the tool stops nothing here, but does for an earlier
    call.
    """
    workflow = scene.workflow
    used = Counter[Limit]()
    for index, label in enumerate(scene.earlier):
        tool = workflow.tools[bare(label)]
        values = scene.values
        args = under(values, f"earlier.{label}.")
        call = Call.of(tool.name, args, f"earlier_{index}", tool.definition)
        at = replace(scene.around, now=scene.now - timedelta(seconds=ago(values, label)))
        answer = decide(workflow, replace(scene.run, calls=scene.run.calls[:index]), call, at)
        if isinstance(answer, Deny) or answer.holds:
            return answer.failures
        used.update({taken.limit: taken.amount for taken in answer.reservations})
    answer = scene.decide()
    if isinstance(answer, Deny):
        return answer.failures
    if asked := _asked_about(answer):
        return asked
    used.update({taken.limit: taken.amount for taken in answer.reservations})
    return tuple(
        Failure(Reason.LIMIT, "limits", f"the calls of {limit.tool}", limit.bound)
        for limit, amount in used.items()
        if amount > limit.maximum
    )


def _asked_about(answer: Eligible) -> Failures:
    asked = [hold for hold in answer.holds if not _always(hold.rule.when, hold.rule.left_open)]
    return tuple(failure for hold in asked for failure in hold.why)
