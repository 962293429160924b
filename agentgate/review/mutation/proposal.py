"""Proposed cases: for each condition that no case covers, one that passes on the workflow and fails without the condition.

Rules: a case is offered only after the engine gave both answers; of several, the one that changes least and is refused for one
reason. What could not be told apart stays in the list of survivors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from agentgate.decision.answer import Deny, Eligible
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive as lexical
from agentgate.review.draft.argument import inline
from agentgate.review.mutation.mutant import Changes, Mutant, calling
from agentgate.review.mutation.mutation import mutations, notices
from agentgate.review.scenarios.case import NamedCase, mismatch
from agentgate.review.scenarios.fields import SceneError
from agentgate.review.scenarios.grants import asked, granted
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import TestFile, impossible, passing, scenes
from agentgate.values.refusal import Failure, Reason
from agentgate.workflow.model import Workflow

_TRIES = 80  # changes that are tried for one condition


@dataclass(frozen=True, slots=True)
class Proposal:
    """A case, and the conditions it covers that no other case does."""

    case: NamedCase
    covers: tuple[Mutant, ...]


@dataclass(frozen=True, slots=True)
class Proposals:
    """What `propose` found. `left`: conditions for which no telling case was found."""

    found: tuple[Proposal, ...]
    left: tuple[Mutant, ...]


def propose(workflow: Workflow, tests: TestFile | None = None, *, derive: Deriver = lexical) -> Proposals:
    """Cases for every condition that the test file does not cover; without one, over a base filled from the workflow.

    Raises:
        WorkflowError: the test file does not fit the workflow.
    """
    made: list[tuple[NamedCase, Scene]] = []
    if tests is not None:
        made = passing(workflow, tests, derive=derive)
        base = scenes(workflow, replace(tests, cases=()), derive=derive)[0][1]
    else:
        base = Scene.of(workflow, {}, derive=derive)
    taken = {case.name for case, _ in made}
    waiting = [m for m in mutations(workflow, derive=derive, base=base).found if not any(notices(case, scene, m) for case, scene in made)]
    found: list[tuple[NamedCase, list[Mutant]]] = []
    left: list[Mutant] = []

    @cache
    def calls(tool: str) -> Changes:
        return calling(base, Scene.of(workflow, {"call": tool}, derive=derive))

    while waiting:
        mutant = waiting.pop(0)
        best = _best(workflow, base, mutant, taken, calls)
        if best is None:
            left.append(mutant)
            continue
        case, scene = best
        covered = [mutant, *(m for m in waiting if notices(case, scene, m))]
        waiting = [m for m in waiting if m not in covered]
        taken.add(case.name)
        found.append((case, covered))
    return Proposals(tuple(Proposal(case, tuple(covered)) for case, covered in _joined(base, found)), tuple(left))


def _joined(base: Scene, found: list[tuple[NamedCase, list[Mutant]]]) -> Iterator[tuple[NamedCase, list[Mutant]]]:
    """Pins of one scene as one case: what an allowed call gets, whom a held one asks."""
    kept: list[tuple[NamedCase, list[Mutant]]] = []
    for case, covered in found:
        same = next((i for i, (other, _) in enumerate(kept) if (case.grants or case.asks) and _alike(case, other)), None)
        if same is None:
            kept.append((case, covered))
            continue
        other, more = kept[same]
        name = f"what {base.set(other.changes).call.tool} gets" if other.grants and case.grants else other.name
        kept[same] = (
            replace(other, name=name, grants={**other.grants, **case.grants}, asks=_both(other.asks, case.asks)),
            [*more, *covered],
        )
    yield from kept


def _both(a: Mapping[str, Any], b: Mapping[str, Any]) -> Mapping[str, Any]:
    return {rule: {**a.get(rule, {}), **b.get(rule, {})} for rule in {**a, **b}}


def _alike(a: NamedCase, b: NamedCase) -> bool:
    return (a.changes, a.answer, a.rules) == (b.changes, b.answer, b.rules)


def _best(
    workflow: Workflow, base: Scene, mutant: Mutant, taken: set[str], calls: Callable[[str], Changes]
) -> tuple[NamedCase, Scene] | None:
    best: tuple[tuple[int, int], NamedCase, Scene] | None = None
    for index, changes in enumerate(mutant.tries[:_TRIES]):
        tool = changes.get("call", mutant.tool)
        called = calls(tool) if tool else {}
        try:
            scene = base.set({**called, **changes})
        except SceneError:
            continue
        answer = scene.decide()
        if impossible(workflow, scene):
            continue
        for case in _cases(workflow, {**called, **changes}, scene=scene, answer=answer, mutant=mutant, taken=taken):
            if mismatch(workflow, case, scene, answer) or not notices(case, scene, mutant):
                continue
            failed = len(answer.failures) if isinstance(answer, Deny) else 1
            rank = (failed, len(case.changes))
            if best is None or rank < best[0]:
                best = (rank, case, scene)
            break
        if best is not None and (best[0] <= (1, 1) or index > _TRIES // 2):
            break
    return None if best is None else (best[1], best[2])


def _cases(
    workflow: Workflow, changes: Changes, *, scene: Scene, answer: Eligible | Deny, mutant: Mutant, taken: set[str]
) -> Iterator[NamedCase]:
    """What could be said of this decision, the plainest first."""
    name = _unused(mutant.name, mutant.tool, taken)
    if isinstance(answer, Deny):
        for because in _reasons(answer.failures):
            yield NamedCase(name, changes, "deny", because=because)
        return
    held = tuple(hold.rule.id for hold in answer.holds)
    case = NamedCase(name, changes, "step_up" if held else "allow", held)
    if mutant.pin is None:
        yield case
        for because in _reasons(tuple(f for hold in answer.holds for f in hold.why)) if held else ():
            yield replace(case, because=because)
    elif mutant.pin[0] == "grants":
        yield replace(case, grants={mutant.pin[1]: granted(workflow, scene.call, answer)[mutant.pin[1]]})
    else:
        for hold in answer.holds:
            if mutant.path.startswith(f"step_up.{hold.rule.id}."):
                yield replace(case, asks={hold.rule.id: {mutant.pin[1]: asked(hold.rule)[mutant.pin[1]]}})


def _reasons(failures: tuple[Failure, ...]) -> Iterator[tuple[str, ...]]:
    """Ways to name these failures: by field, by reason."""
    by_field = tuple(dict.fromkeys(_field(f) for f in failures))
    by_reason = tuple(dict.fromkeys(str(f.reason) for f in failures))
    yield by_field
    if by_reason != by_field:
        yield by_reason


def _field(failure: Failure) -> str:
    """The plainest name: an argument, a part of who, else the reason."""
    if failure.reason in {Reason.ONE_SOURCE, Reason.LIMIT, Reason.UPSTREAM}:
        return str(failure.reason)
    plain = failure.field.removeprefix("args.")
    return plain if "." not in plain or plain.startswith(("agent.", "user.")) else str(failure.reason)


def _unused(name: str, tool: str, taken: Iterable[str]) -> str:
    if name not in taken:
        return name
    name = f"{tool}: {name}" if tool else name
    return name if name not in taken else next(made for i in range(2, 10_000) if (made := f"{name} ({i})") not in taken)


# --- as YAML ---------------------------------------------------------------------------------------------------------------


def case_yaml(case: NamedCase, indent: str = "  ") -> str:
    """One case as a line (or a few) to append below ``cases:``."""
    parts = [f"name: {inline(case.name)}"]
    stated = {key: value for key, value in case.changes.items() if value is not None}
    without = [key for key, value in case.changes.items() if value is None]
    if stated:
        parts.append(f"set: {inline(stated)}")
    if without:
        parts.append(f"without: {inline(without)}")
    rules = case.rules[0] if len(case.rules) == 1 else case.rules
    parts.append("expect: " + (inline({"step_up": rules}) if case.answer == "step_up" else case.answer))
    if case.because:
        parts.append("because: " + inline(case.because[0] if len(case.because) == 1 else case.because))
    asks = next(iter(case.asks.values())) if len(case.rules) == 1 and case.asks else case.asks
    parts += [f"{key}: {inline(pinned)}" for key, pinned in (("grants", case.grants), ("asks", asks)) if pinned]
    line = f"{indent}- {{{', '.join(parts)}}}"
    if len(line) <= 160:
        return line
    return f"{indent}- " + f"\n{indent}  ".join(parts)


def cases_yaml(cases: Iterable[NamedCase]) -> str:
    """Cases as YAML to append below ``cases:``."""
    return "".join(case_yaml(case) + "\n" for case in cases)


def head_yaml(workflow: Workflow, *, derive: Deriver = lexical) -> str:
    """The beginning of a new test file, up to ``cases:``: a base that goes through, as concrete as a reader wants it.

    What `propose` finds without a test file fits below it.
    """
    scene = Scene.of(workflow, {}, derive=derive)
    base: dict[str, Any] = {key: scene.values[key] for key in ("call", "tenant", "prompt") if scene.values[key]}
    for block in ("args", "facts"):
        inside = {key[len(block) + 1 :]: value for key, value in scene.values.items() if key.startswith(block + ".") and value is not None}
        base |= {block: inside} if inside else {}
    lines = [f"workflow: {inline(workflow.id)}", "base:", *(f"  {key}: {inline(value)}" for key, value in base.items())]
    answer = scene.decide()
    held = [hold.rule.id for hold in answer.holds] if isinstance(answer, Eligible) else []
    lines += [f"expect: {inline({'step_up': held[0] if len(held) == 1 else held})}   # the base asks a person"] if held else []
    return "\n".join([*lines, "cases:", ""])
