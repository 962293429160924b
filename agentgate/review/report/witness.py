"""From a finding of the diff to a call that shows it: the approved base call with the fewest fields changed, replayed.

Rules: a point of the diff says which class of values each field needs; here it becomes a scene (words, arguments, results, who,
when), and only the engine says what it is worth. A finding is shown with a call only if that very call needs fewer releases under
the new version; else it stands with the reason, to be read by a person. It is never dropped, and never claimed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.decision.answer import Deny, Eligible
from agentgate.diff import ABSENT, NULL, Diff, Finding
from agentgate.diff.forms import SAMPLES
from agentgate.diff.search import missing
from agentgate.diff.surroundings import NOBODY, OTHER
from agentgate.gate.state import derived
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive as lexical
from agentgate.language.prompt import Prompt
from agentgate.review.scenarios.fields import SceneError
from agentgate.review.scenarios.filling import in_words, parts
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.values import candidates, fits
from agentgate.values.entities import NUMERIC, normal, number
from agentgate.workflow.model import Workflow
from agentgate.workflow.rule import Rule

_ELSEWHERE: Mapping[str, Any] = {
    "tenant": "another-tenant",
    "environment": "elsewhere",
    "data_class": "another-class",
    "network": "203.0.113.9",
    "agent.spiffe": "spiffe://elsewhere.example/agent",
    "agent.issuer": "https://elsewhere.example",
    "agent.posture.image_signed_by": "somebody@elsewhere.example",
    "definition": "sha256:" + "ee" * 32,
}
_DIRECT = {
    **{name: name for name in ("tenant", "environment", "data_class", "network", "definition")},
    **{f"agent.{name}": f"who.agent.{name}" for name in ("spiffe", "issuer", "posture.image_signed_by")},
    **{f"agent.boundary.{name}": f"who.agent.boundary.{name}" for name in ("cluster", "namespace", "node_pool")},
}
_ADDRESS = "kim@b.example"
_MAX_PROMPTS = 64
_SOME_DAY = date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class Witness:
    """A finding and the call that shows it.

    Attributes:
        finding: what the diff says.
        scene: the call, replayed under both versions; None: no call could be shown.
        changes: what the call changes of the base, by the keys of a scene; (before, after), None where it has none.
        before, after: what the engine says of it under each version.
        reason: why there is no call; then a person must read the change itself. Empty also where no single call could show it.
    """

    finding: Finding
    scene: Scene | None = None
    changes: Mapping[str, tuple[Any, Any]] | None = None
    before: str = ""
    after: str = ""
    reason: str = ""


def witnesses(
    old: Workflow, new: Workflow, diff: Diff, base: Mapping[str, Any] | None = None, *, derive: Deriver = lexical
) -> tuple[Witness, ...]:
    """A witness for everything that became wider, in the diff's order.

    Args:
        old: the approved version.
        new: the proposed one.
        diff: their comparison.
        base: a test file's base: a call that is allowed; None: one is made up from the new version.
        derive: the intent deriver.
    """
    return tuple(witness(old, new, finding, base, derive=derive) for finding in diff.wider)


def witness(old: Workflow, new: Workflow, finding: Finding, base: Mapping[str, Any] | None = None, *, derive: Deriver = lexical) -> Witness:
    """The smallest change of the base call that shows one finding; see `witnesses`."""
    if not finding.call:
        return Witness(finding)
    try:
        start = _start(old, new, finding, base or {}, derive)
    except SceneError as error:
        return Witness(finding, reason=f"no allowed call could be made up: {error}")
    last = "no call of this kind could be made up"
    for rest in ({}, finding.rest):
        for steps in _steps(new, start, {**rest, **finding.point}, derive):
            played, why = _play(old, new, start, steps)
            if played is not None:
                scene = _smallest(old, new, start, steps, played)
                before, after = (_said(scene.decide(w)) for w in (old, new))
                return Witness(finding, scene, _changes(start, scene), before, after)
            last = why or last
    return Witness(finding, reason=last)


def _start(old: Workflow, new: Workflow, finding: Finding, base: Mapping[str, Any], derive: Deriver) -> Scene:
    """The base call as the old version allows it, read under the new one; a call of the finding's tool."""
    tool = finding.tool or str(finding.point.get("call", ""))
    usual = None
    for stated in (base, {}, {"call": tool or finding.rest.get("call", "")}):
        try:
            scene = Scene.of(old, stated, derive=derive)
            called = tool or scene.values["call"]
            if called in old.tools and called != scene.values["call"]:
                scene = scene.set({"call": called})
            start = Scene.of(new, scene.values, derive=derive)
            start = start.set({"call": called}) if called != start.values["call"] else start
        except SceneError:
            continue
        usual = usual or start
        if called not in old.tools or (isinstance(scene.decide(), Eligible) and not scene.unreached):
            return start
    return usual or Scene.of(new, {"call": tool or next(iter(new.tools))}, derive=derive)


# --- replay --------------------------------------------------------------------------------------------------------------
Step = Mapping[str, Any]


def _play(old: Workflow, new: Workflow, start: Scene, steps: list[Step]) -> tuple[Scene | None, str]:
    """The scene with these changes, if it shows that less is needed; else why not."""
    scene = start
    try:
        for step in steps:
            scene = scene.set(step)
    except SceneError as error:
        return None, str(error)
    after = scene.decide(new)
    if isinstance(after, Deny):
        return None, "the call made for it is refused: " + "; ".join(str(f) for f in after.failures[:2])
    before = scene.decide(old)
    if isinstance(before, Eligible) and missing([h.rule for h in before.holds], [h.rule for h in after.holds]) is None:
        return None, "the call made for it needs no fewer releases"
    if scene.unreached:
        return None, "an earlier call it needs is refused itself: " + str(scene.unreached[0])
    return scene, ""


def _smallest(old: Workflow, new: Workflow, start: Scene, steps: list[Step], scene: Scene) -> Scene:
    """One change after the other taken back, as long as the call still shows it."""
    for index in range(len(steps) - 1, -1, -1):
        for key in list(steps[index]):
            fewer = [*steps]
            fewer[index] = {k: v for k, v in steps[index].items() if k != key}
            found, _ = _play(old, new, start, fewer)
            if found is not None and len(_changes(start, found)) <= len(_changes(start, scene)):
                scene, steps = found, fewer
    return scene


def _changes(start: Scene, scene: Scene) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys((*start.values, *scene.values))
    return {k: (start.values.get(k), scene.values.get(k)) for k in keys if start.values.get(k) != scene.values.get(k)}


def _said(answer: Eligible | Deny) -> str:
    if isinstance(answer, Deny):
        return "refused: " + "; ".join(str(f) for f in answer.failures)
    if not answer.holds:
        return "allowed"
    count = max(h.rule.count for h in answer.holds)
    groups = " and ".join(dict.fromkeys(h.rule.group for h in answer.holds))
    return f"allowed after {count} release{'s' if count > 1 else ''} by {groups}"


# --- from a point to a scene ---------------------------------------------------------------------------------------------
def _steps(new: Workflow, start: Scene, point: Mapping[str, Any], derive: Deriver) -> Iterator[list[Step]]:
    """Ways to make a scene of a point; a step is one change of the scene, and later ones build on it."""
    place = _place(new, start, point)
    prompts = _prompts(new, start, point["intents"], derive) if "intents" in point else [None]
    for asked in (point, _nameable(new, start, point)):
        arguments = _arguments(new, start, asked) if asked else []
        for prompt in prompts if asked else ():
            words = {} if prompt is None else {"prompt": prompt}
            yield [s for s in ({**place, **words}, *arguments) if s]


def _nameable(new: Workflow, start: Scene, point: Mapping[str, Any]) -> Mapping[str, Any]:
    """The point with values that a prompt can name (an id has a digit there), where its own cannot; empty: nothing to change."""
    tool, changed = new.tools[start.values["call"]], {}
    for key, explained in point.items():
        name = key.removeprefix("origin.")
        rule, given = tool.args.get(name), point.get(f"args.{name}")
        if key != name and rule is not None and "prompt" in explained and type(given) is str and not _can_be_named(rule, given):
            offers = (v for v in candidates(rule) if type(v) is str and fits(new, tool.name, name, v))
            changed.update({f"args.{name}": v for v in [next((v for v in offers if _can_be_named(rule, v)), None)] if v is not None})
    return {**point, **changed} if changed else {}


def _can_be_named(rule: Rule, value: str) -> bool:
    key = normal(rule.type, value)
    return key is not None and Prompt.of((in_words(rule.type, value, ""),), _SOME_DAY).words(rule.said_as, key) is not None


def _place(new: Workflow, start: Scene, point: Mapping[str, Any]) -> dict[str, Any]:
    """Who, where and when."""
    found: dict[str, Any] = {}
    for key, value in point.items():
        if key in _DIRECT:
            found[_DIRECT[key]] = _ELSEWHERE.get(key, "elsewhere") if value == OTHER else value
        elif key.startswith("agent.claims."):
            found[f"who.{key}"] = "elsewhere" if value == OTHER else value
        elif key in {"agent.boundary", "agent.boundary.key", "agent.posture", "user"} and value == NOBODY:
            found[f"who.{key}"] = None
        elif key == "agent.identity":
            found["who.agent.proven"] = value == "proven"
        elif key == "agent.posture.age":
            found["who.agent.posture.attested_ago"] = f"{value}s"
        elif key == "via":
            found["who.via"] = list(value)
        elif key == "brokers":
            found["brokers"] = sorted(value)
        elif key.startswith("sequence."):
            tool = key[len("sequence.") :]
            found[f"ago.{tool}" if value is not None else f"earlier.{tool}"] = f"{value}s" if value is not None else None
    tenant = found.get("tenant", start.values["tenant"])
    if "user.tenant" in point:
        found["who.user.groups"] = list(point["user.groups"])
        found["who.user.id"] = start.values.get("who.user.id") or "user"
        found["who.user.proven"] = start.values.get("who.user.proven", not new.agent.in_process)
        found["who.user.tenant"] = tenant if point["user.tenant"] == "same" else "another-tenant"
    elif "tenant" in found and start.values.get("who.user.tenant"):
        found["who.user.tenant"] = tenant
    if "day" in point or "hours" in point:
        found["time"] = _time(new, start, point.get("day"), point.get("hours"))
    return found


def _time(new: Workflow, start: Scene, day: date | None, hours: tuple[int, str] | None) -> str:
    """A moment on or soon after a day, in a minute of the week, as far as they are asked for."""
    zone = hours[1] if hours is not None else new.conditions.hours.zone if new.conditions.hours is not None else "UTC"
    usual = start.now.astimezone(ZoneInfo(zone))
    first = day if day is not None else usual.date()
    weekday, minute = divmod(hours[0], 1440) if hours is not None else (usual.weekday(), usual.hour * 60 + usual.minute)
    last = new.expires if day is None or day <= new.expires else date.max
    days = [first + timedelta(days=n) for n in range(-6 if day is None else 0, 7)]
    chosen = next((d for d in days if d.weekday() == weekday and d <= last), first)
    moment = datetime(chosen.year, chosen.month, chosen.day, minute // 60, minute % 60, tzinfo=ZoneInfo(zone))
    return moment.astimezone(UTC).isoformat(timespec="minutes")


# --- arguments -----------------------------------------------------------------------------------------------------------
def _arguments(new: Workflow, start: Scene, point: Mapping[str, Any]) -> list[Step]:
    """Each argument's value, then each place that must say it."""
    tool = new.tools[start.values["call"]]
    values: dict[str, Any] = {}
    steps: list[Step] = []
    for key, value in point.items():
        if key.startswith("args."):
            values[key] = None if value is ABSENT or value is NULL else value
    nulls = [key.removeprefix("args.") for key, value in point.items() if value is NULL]
    if nulls or start.values.get("nulls"):
        values["nulls"] = nulls
    for key, value in point.items():
        block, _, name = key.partition(".")
        rule = tool.args.get(name)
        given = values.get(f"args.{name}", start.values.get(f"args.{name}"))
        if block == "origin" and given is not None and rule is not None:
            split = f"split.{name}" in point
            steps += _placed(rule, name, given, value, split=split)
            steps += [_unlike(new, place) for place in value if split and type(place) is str]
        elif block == "bound" and key.count("."):
            steps += _bounded(new, start, values, name, held=value)
        elif block == "entities" and value is not None and rule is not None:
            values[f"args.{name}"] = [_ADDRESS] if rule.type == "json" or rule.max_items is not None else _ADDRESS
            steps += [_said_by(start, place, Rule(name, 0, type="email"), [_ADDRESS]) for place in value]
    return [values, *steps]


def _placed(rule: Rule, name: str, given: Any, explained: Any, *, split: bool) -> Iterator[Step]:
    """Where a value comes from: one place after the other; for a list the places that all its elements share.

    `split`: another call of the same tool than the one the other arguments come from.
    """
    if rule.max_items is not None:
        shared = set(explained[0]).intersection(*explained[1:]) if explained else set()
        explained = tuple(p for p in explained[0] if p in shared)
    for place in explained:
        tool, dot, field = _plain_place(place).rpartition(".")
        yield {f"args.{name}": given, f"origin.{name}": f"{tool}{'#2' if split and tool else ''}{dot}{field}"}


def _unlike(new: Workflow, place: str) -> Step:
    """The second call's other facts, unlike the first one's, so that neither call explains everything."""
    tool, _, field = _plain_place(place).rpartition(".")
    facts = new.tools[tool].facts if tool in new.tools else {}
    kept = {field, facts[field].currency if field in facts else ""}
    return {f"facts.{tool}#2.{n}": "0.00" if f.type in NUMERIC else SAMPLES.get(f.type) for n, f in facts.items() if n not in kept}


def _plain_place(place: str) -> str:
    """A selected or summed fact stands where the fact does."""
    return place.rpartition(" of ")[2] if place.startswith("the ") else place


def _bounded(new: Workflow, start: Scene, values: Mapping[str, Any], name: str, *, held: bool) -> Iterator[Step]:
    """What an earlier call returned, no less than the argument, or less."""
    tool = new.tools[start.values["call"]]
    argument = next((a for a in sorted(tool.args, key=len, reverse=True) if name.startswith(a + ".")), "")
    rule = tool.args.get(argument)
    given = values.get(f"args.{argument}", start.values.get(f"args.{argument}"))
    if rule is None or given is None or rule.type not in NUMERIC:
        return
    place = _plain_place(name[len(argument) + 1 :])
    amounts = [a for one in (given if type(given) is list else [given]) if (a := number(one)) is not None]
    known = number(start.values.get(f"facts.{place}"))
    if held and amounts and (known is None or known < max(amounts)):
        yield {f"facts.{place}": format(max(amounts), "f")}
    elif not held and amounts:
        yield {f"facts.{place}": format(max(amounts) - (Decimal(1) if rule.type == "integer" else Decimal("0.01")), "f")}


def _said_by(start: Scene, place: str, rule: Rule, elements: list[str]) -> Step:
    """A value that is no argument, in a place that may say it."""
    if place == "prompt":
        turns = list(parts(start.values["prompt"]))
        turns[-1] = " ".join([turns[-1].rstrip(".") + ".", *(in_words(rule.type, one, "") for one in elements)])
        return {"prompt": turns if len(turns) > 1 else turns[0]}
    return {f"facts.{_plain_place(place)}": elements[0]}


# --- words ---------------------------------------------------------------------------------------------------------------
def _prompts(new: Workflow, start: Scene, wanted: Mapping[str, str], derive: Deriver) -> list[str | None]:
    """Prompts that say of each intent what is wanted; the base's own first, if it does."""
    offers: list[list[str]] = []
    for name, presence in wanted.items():
        intent = new.intents.get(name)
        if intent is None or presence == "absent":
            offers.append([""])
        elif presence == "present":
            offers.append([*intent.examples, *intent.words])
        else:
            wide = [f"{verb} {word} {noun}" for word in ("all", "every") for verb in intent.words for noun in ("orders", "of them")]
            offers.append([*intent.counter_examples, *wide])

    def says(text: Any) -> bool:
        found = derived(derive, new, parts(text))
        return all(n not in new.intents or found[n].presence == p for n, p in wanted.items())

    own = start.values["prompt"]
    found: list[str | None] = [own] if says(own) else []
    for chosen in list(product(*offers))[:_MAX_PROMPTS]:
        text = ". ".join(s.rstrip(".") for s in chosen if s) or "Hello"
        if says(text):
            found.append(text)
    return found or [None]
