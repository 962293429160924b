"""Turns a finding of the diff into a call that shows it: the approved base call with as few
fields changed as possible, replayed.

Rules: a point of the diff says which class of values each field needs; here it becomes a scene
(words, arguments, results, who, when), and only the engine decides that scene. A finding is
shown with a call only if that very call needs fewer releases under the new version; else it is
reported with the reason, for a person to read. No finding is dropped, and none is claimed.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice, product
from typing import Any

from agentgate.decision.answer import Deny, Eligible
from agentgate.diff import ABSENT, NULL, Finding
from agentgate.diff.finding import Point
from agentgate.diff.forms import SAMPLES
from agentgate.diff.search import missing_rule, people_words
from agentgate.review.scenarios.scene import Scene, readings
from agentgate.review.scenarios.values import (
    SceneError,
    can_be_named,
    candidates,
    fits,
    in_words,
    moment_of,
    parts,
)
from agentgate.values.entities import NUMERIC, number
from agentgate.values.paths import FINDABLE
from agentgate.values.value_class import Json, value_class
from agentgate.workflow.clauses.conditions import CONFIGURED
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import Rule

_INSIDE: Mapping[str, str] = {**SAMPLES, "email": "kim@b.example"}
_MAX_PROMPTS = 64
# keys of a point that are keys of a scene, beside those of `who` and earlier calls
_STATED = {"tenant", "definition", *CONFIGURED}
Step = Mapping[str, Any]
Steps = list[Step]


@value_class
class Witness:
    """A finding and the call that shows it."""

    finding: Finding  # what the diff found
    # the call, replayed under both versions; None: no call could be shown
    scene: Scene | None = None
    # how the call differs from the base, by the keys of a scene; (before, after), None where it
    # has none
    changes: Mapping[str, tuple[Any, Any]] | None = None
    before: str = ""  # the engine's answer under each version
    after: str = ""
    # why there is no call; a person must then read the change itself. Empty also where no
    # single call could show it
    reason: str = ""


def witness(
    old: Workflow, new: Workflow, finding: Finding, base: Step | None = None
) -> Witness:
    """The smallest change of an allowed call that shows one finding; `base`: a test file's
    base, if there is one.
    """
    if not finding.call:
        return Witness(finding)
    try:
        start = _start(old, new, finding, base or {})
    except SceneError as error:
        return Witness(finding, reason=f"no allowed call could be made up: {error}")
    search = _Search(old, new, start)
    last = "no call of this kind could be made up"
    for rest in ({}, finding.rest):
        for steps in search.steps({**rest, **finding.point}):
            played, why = search.play(steps)
            if played:
                scene = search.smallest(steps, played, search.own(rest, finding.point))
                return Witness(
                    finding,
                    scene,
                    search.changes(scene),
                    *(_said(scene.decide(w)) for w in (old, new)),
                )
            last = why or last
    return Witness(finding, reason=last)


def _start(old: Workflow, new: Workflow, finding: Finding, base: Step) -> Scene:
    """The base call as the old version allows it, read under the new one; a call of the
    finding's tool.
    """
    tool = finding.tool or str(finding.point.get("call", ""))
    usual = None
    for stated in (base, {}, {"call": tool or finding.rest.get("call", "")}):
        try:
            scene = Scene.of(old, stated)
            called = tool or scene.values["call"]
            if called not in new.tools:
                continue
            if called in old.tools and called != scene.values["call"]:
                scene = scene.set({"call": called})
            start = Scene.of(new, scene.values)
            start = start.set({"call": called}) if called != start.values["call"] else start
        except SceneError:
            continue
        usual = usual or start
        if called not in old.tools or (
            isinstance(scene.decide(), Eligible) and not scene.unreached
        ):
            return start
    return usual or Scene.of(new, {"call": tool or next(iter(new.tools))})


def _said(answer: Eligible | Deny) -> str:
    if isinstance(answer, Deny):
        return "refused: " + "; ".join(str(f) for f in answer.failures)
    if not answer.holds:
        return "allowed"
    return f"allowed after {people_words([hold.rule for hold in answer.holds])}"


def _fact(place: str) -> str:
    """The fact of a place: a selected or summed fact is read from the fact itself."""
    return place.rpartition(" of ")[2] if place.startswith("the ") else place


@value_class
class _Search:
    """Looks for a call: scenes made by changing `start`, each decided under both versions."""

    old: Workflow
    new: Workflow
    start: Scene

    @property
    def _tool(self) -> Tool:
        return self.new.tools[self.start.values["call"]]

    def play(self, steps: Steps) -> tuple[Scene | None, str]:
        """The scene with these changes, if it needs fewer releases under the new version; else
        None and why.
        """
        scene = self.start
        try:
            for step in steps:
                scene = scene.set(step)
        except SceneError as error:
            return None, str(error)
        after = scene.decide(self.new)
        if isinstance(after, Deny):
            return None, "the call made for it is refused: " + "; ".join(
                str(f) for f in after.failures[:2]
            )
        before = scene.decide(self.old)
        if isinstance(before, Eligible) and not missing_rule(
            [h.rule for h in before.holds], [h.rule for h in after.holds]
        ):
            return None, "the call made for it needs no fewer releases"
        if scene.unreached:
            return None, "an earlier call it needs is refused itself: " + str(
                scene.unreached[0]
            )
        return scene, ""

    def own(self, rest: Point, point: Point) -> frozenset[str]:
        """The keys that a finding itself changes, where the rest of its point needs fewer
        releases anyway, for another finding's reason.
        """
        if all(self.play(steps)[0] is None for steps in (list(self.steps(rest)) or [[]])):
            return frozenset()
        return frozenset(key for steps in self.steps(point) for step in steps for key in step)

    def smallest(self, steps: Steps, scene: Scene, own: frozenset[str]) -> Scene:
        """The scene with every change undone that it does not need; `own` stay."""
        for index in range(len(steps) - 1, -1, -1):
            for key in [key for key in steps[index] if key not in own]:
                fewer = [*steps]
                fewer[index] = {k: v for k, v in steps[index].items() if k != key}
                smaller, _ = self.play(fewer)
                if smaller and len(self.changes(smaller)) <= len(self.changes(scene)):
                    scene = smaller
                    steps = fewer
        return scene

    def changes(self, scene: Scene) -> dict[str, tuple[Any, Any]]:
        """The keys in which a scene differs from the start, with (before, after)."""
        before = self.start.values
        after = scene.values
        return {
            k: (before.get(k), after.get(k))
            for k in dict.fromkeys((*before, *after))
            if before.get(k) != after.get(k)
        }

    def steps(self, point: Point) -> Iterator[Steps]:
        """Ways to make a scene of a point; a step is one change of the scene, and later steps
        build on earlier ones.
        """
        place = self._place(point)
        prompts = self._prompts(point["intents"]) if "intents" in point else [None]
        for asked in filter(None, (point, self._nameable(point))):
            arguments = self._arguments(asked)
            for prompt in prompts:
                words = {} if prompt is None else {"prompt": prompt}
                yield [s for s in ({**place, **words}, *arguments) if s]

    def _nameable(self, point: Point) -> Point:
        """The point with values that a prompt can name (an id has a digit), where its own
        cannot; empty: nothing to change.
        """
        tool = self._tool
        changed = {}
        for key, explained in point.items():
            name = key.removeprefix("origin.")
            rule = tool.args.get(name)
            given = point.get(f"args.{name}")
            values = self.start.values
            if (
                key != name
                and rule
                and "prompt" in explained
                and type(given) is str
                and not can_be_named(values, rule, given)
            ):
                offers = (
                    v
                    for v in candidates(rule)
                    if type(v) is str and fits(self.new, tool.name, name, v)
                )
                changed.update(
                    {
                        f"args.{name}": v
                        for v in islice((v for v in offers if can_be_named(values, rule, v)), 1)
                    }
                )
        return {**point, **changed} if changed else {}

    def _place(self, point: Point) -> Json:
        """Who, where and when."""
        values = self.start.values
        made = {}
        for key, value in point.items():
            if key.startswith(("who.", "ago.", "earlier.")) or key in _STATED:
                made[key] = value
            elif key == "brokers":
                made["brokers"] = sorted(value)
        if "tenant" in made and values.get("who.user.tenant"):
            made.setdefault("who.user.tenant", made["tenant"])
        return made | moment_of(point, self.start.now, self.old, self.new)

    def _arguments(self, point: Point) -> Steps:
        """Each argument's value, then each place that must hold it."""
        args = self._tool.args
        usual = self.start.values
        values = {
            k: None if v is ABSENT or v is NULL else v
            for k, v in point.items()
            if k.startswith("args.")
        }
        steps: Steps = []
        nulls = [key.removeprefix("args.") for key, value in point.items() if value is NULL]
        if nulls or usual.get("nulls"):
            values["nulls"] = nulls
        for key, value in point.items():
            block, _, name = key.partition(".")
            rule = args.get(name)
            given = values.get(f"args.{name}", usual.get(f"args.{name}"))
            if block == "origin" and given is not None and rule:
                split = f"split.{name}" in point
                steps += _placed(rule, name, given, value, split=split)
                steps += [
                    self._unlike(place) for place in value if split and type(place) is str
                ]
            elif block == "bound" and key.count("."):
                steps += self._bounded(values, name, held=value)
            elif block == "entities" and value is not None and rule:
                kind = next(
                    (kind for kind in map(self._kind_at, value) if kind in FINDABLE), "email"
                )
                here = [
                    usual.get(f"facts.{_fact(place)}")
                    for place in value
                    if self._kind_at(place) == kind
                ]
                held = next((text for text in here if type(text) is str), _INSIDE[kind])
                values[f"args.{name}"] = (
                    [held] if rule.type == "json" or rule.max_items is not None else held
                )
                steps += [self._put_in(place, kind, held) for place in value]
        return [values, *steps]

    def _unlike(self, place: str) -> Step:
        """The second call's other facts, unlike the first one's, so that neither call explains
        everything.
        """
        tool, _, field = _fact(place).rpartition(".")
        facts = self.new.tools[tool].facts if tool in self.new.tools else {}
        kept = {field, facts[field].currency if field in facts else ""}
        return {
            f"facts.{tool}#2.{n}": "0.00" if f.type in NUMERIC else SAMPLES.get(f.type)
            for n, f in facts.items()
            if n not in kept
        }

    def _bounded(self, values: Step, name: str, *, held: bool) -> Iterator[Step]:
        """An earlier call's fact that is no less than the argument (`held`), or less."""
        args = self._tool.args
        usual = self.start.values
        argument = next(
            (a for a in sorted(args, key=len, reverse=True) if name.startswith(a + ".")), ""
        )
        rule = args.get(argument)
        given = values.get(f"args.{argument}", usual.get(f"args.{argument}"))
        if not rule or given is None or rule.type not in NUMERIC:
            return
        fact = f"facts.{_fact(name[len(argument) + 1 :])}"
        most = max(
            (
                a
                for one in (given if type(given) is list else [given])
                if (a := number(one)) is not None
            ),
            default=None,
        )
        known = number(usual.get(fact))
        if held and most is not None and (known is None or known < most):
            yield {fact: format(most, "f")}
        elif not held and most is not None:
            yield {
                fact: format(
                    most - (Decimal(1) if rule.type == "integer" else Decimal("0.01")), "f"
                )
            }

    def _kind_at(self, place: str) -> str:
        """The type of the fact of a place; empty where it is none."""
        tool, _, field = _fact(place).rpartition(".")
        declared = self.new.tools[tool].facts.get(field) if tool in self.new.tools else None
        return declared.type if declared else ""

    def _put_in(self, place: str, kind: str, held: str) -> Step:
        """What a text holds, in a place that may hold it: the prompt, or a fact."""
        if place != "prompt":
            return {f"facts.{_fact(place)}": held}
        turns = list(parts(self.start.values["prompt"]))
        turns[-1] = f"{turns[-1].rstrip('.')}. {in_words(kind, held, '')}"
        return {"prompt": turns if len(turns) > 1 else turns[0]}

    def _prompts(self, wanted: Mapping[str, str]) -> list[str | None]:
        """Prompts in which each intent has the wanted presence; the base's own first, if it is
        one.
        """
        offers = []
        for name, presence in wanted.items():
            intent = self.new.intents.get(name)
            if not intent or presence == "absent":
                offers.append([""])
            elif presence == "present":
                offers.append([*intent.examples, *intent.words])
            else:
                wide = [
                    f"{verb} {word} {noun}"
                    for word in ("all", "every")
                    for verb in intent.words
                    for noun in ("orders", "of them")
                ]
                offers.append([*intent.counter_examples, *wide])

        def fulfils(text: Any) -> bool:
            intents = readings().intents(self.new, parts(text))
            return all(
                n not in self.new.intents or intents[n].presence == p for n, p in wanted.items()
            )

        texts = (
            ". ".join(s.rstrip(".") for s in chosen if s) or "Hello"
            for chosen in islice(product(*offers), _MAX_PROMPTS)
        )
        return [text for text in (self.start.values["prompt"], *texts) if fulfils(text)] or [
            None
        ]


def _placed(
    rule: Rule, name: str, given: Any, explained: Any, *, split: bool
) -> Iterator[Step]:
    """Where a value comes from, one place after the other; for a list, the places that all its
    elements share.

    `split`: another call of the same tool than the one the other arguments come from.
    """
    if rule.max_items:
        shared = set(explained[0]).intersection(*explained[1:]) if explained else set()
        explained = tuple(p for p in explained[0] if p in shared)
    for place in explained:
        tool, dot, field = _fact(place).rpartition(".")
        yield {
            f"args.{name}": given,
            f"origin.{name}": f"{tool}{'#2' if split and tool else ''}{dot}{field}",
        }
