"""Mutation testing of a workflow: drop or loosen each condition, list those that no case
covers, and propose cases that would.

Rules: every field of a workflow's values is loosened here or listed in `NOT_COVERED` with the
reason. A case notices a mutant when it holds on the workflow and not on the mutant; a case with
the same outcome on both says nothing about the condition. A case is proposed only after the
engine gave both answers; of several, the one that changes least and is refused for one reason.
A condition for which no case was found stays among the survivors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from agentgate.decision.answer import Deny, Eligible
from agentgate.review.mutation.arguments import argument, fact
from agentgate.review.mutation.clauses import frame, intents, limits, tools
from agentgate.review.mutation.mutant import Basis, Mutant, Mutated, NotCovered
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import (
    NamedCase,
    TestFile,
    file_yaml,
    granted,
    impossible,
    mismatch,
    passing,
    rules_of,
    scenes,
)
from agentgate.review.scenarios.values import SceneError
from agentgate.values.refusal import Failure, Failures, Reason
from agentgate.values.tables import read_table
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.model import Workflow

Mutants = tuple[Mutant, ...]

# Every field of `agentgate.workflow.model` that no case can cover: where it stands, and the
# reason. A field that is a condition, and is neither loosened nor listed here, fails a test.
_ROWS = read_table("agentgate.review.mutation", "not_covered.toml")["rows"]
NOT_COVERED = {(kind, field): NotCovered(path, why) for kind, field, path, why in _ROWS}


@value_class
class Mutations:
    """The mutants of one workflow, and the conditions of which it has none."""

    found: list[Mutant]
    skipped: list[NotCovered]


@value_class
class Survey:
    """How far a test file covers a workflow."""

    mutants: Mutants  # all of them
    survivors: Mutants  # those that no case notices
    not_covered: tuple[NotCovered, ...]  # conditions that no case can cover, with the reason


def mutations(workflow: Workflow, *, basis: Basis | None = None) -> Mutations:
    """Every condition of a workflow dropped, or loosened by its smallest step, in the order of
    the blocks; and what cannot be shown.

    `basis`: with the base that their tries change.
    """
    every = list(_every(basis or Basis(workflow)))
    return Mutations(
        [m for m in every if isinstance(m, Mutant)],
        [m for m in every if isinstance(m, NotCovered)],
    )


def _every(basis: Basis) -> Mutated:
    yield from frame(basis)
    for intent in basis.workflow.intents.values():
        yield from intents(basis, intent)
    for name, tool in basis.workflow.tools.items():
        part = basis.root.inside(f"tools.{name}", "tools", tool, name)
        yield from tools(basis, part)
        for stated in tool.args.values():
            yield from argument(basis, part, stated)
        for declared in tool.facts.values():
            yield from fact(basis, part, declared)
    yield from limits(basis)


def notices(case: NamedCase, scene: Scene, mutant: Mutant) -> bool:
    """Whether this case fails on the mutant."""
    return bool(mismatch(mutant.workflow, case, scene, scene.decide(mutant.workflow)))


def survey(workflow: Workflow, tests: TestFile) -> Survey:
    """Which conditions the cases of a test file cover. Only cases that pass count; run them
    first.

    Raises WorkflowError: the test file does not fit the workflow.
    """
    cases = passing(workflow, tests)
    every = mutations(workflow)
    survivors = tuple(
        mutant
        for mutant in every.found
        if not any(notices(case, scene, mutant) for case, scene in cases)
    )
    return Survey(tuple(every.found), survivors, (*NOT_COVERED.values(), *every.skipped))


# --- proposed cases ---------------------------------------------------------------------------
_TRIES = 80  # changes that are tried for one condition


@value_class
class Proposal:
    """A case, and the conditions it covers that no other case does."""

    case: NamedCase
    covers: Mutants


@value_class
class Proposals:
    """The proposed cases. `left`: conditions that none was found for."""

    found: tuple[Proposal, ...]
    left: Mutants


def propose(workflow: Workflow, tests: TestFile | None = None) -> Proposals:
    """Cases for every condition that the test file does not cover; without one, over a base
    filled from the workflow.

    Raises WorkflowError: the test file does not fit the workflow.
    """
    if not tests:
        cases = []
        base = Scene.of(workflow, {})
    else:
        cases = passing(workflow, tests)
        base = scenes(workflow, replace(tests, cases=()))[0][1]
    taken = {case.name for case, _ in cases}
    basis = Basis(workflow, base)
    waiting = [
        m
        for m in mutations(workflow, basis=basis).found
        if not any(notices(case, scene, m) for case, scene in cases)
    ]
    found = []
    left = []
    while waiting:
        mutant = waiting.pop(0)
        best = _best(basis, base, mutant, taken)
        if not best:
            left.append(mutant)
            continue
        covered = [m for m in waiting if notices(*best, m)]
        waiting = [m for m in waiting if m not in covered]
        taken.add(best[0].name)
        found.append(Proposal(best[0], (mutant, *covered)))
    return Proposals(_joined(base, found), tuple(left))


def _joined(base: Scene, found: list[Proposal]) -> tuple[Proposal, ...]:
    """The pins of one scene joined into one case: what an allowed call gets, whom a held one
    asks.
    """
    kept: list[Proposal] = []
    for made in found:
        case = made.case
        subject = (case.changes, case.answer, case.rules)
        alike = (
            i
            for i, each in enumerate(kept)
            if (each.case.changes, each.case.answer, each.case.rules) == subject
        )
        same = next(alike, None) if case.grants or case.asks else None
        if same is None:
            kept.append(made)
            continue
        other = kept[same].case
        name = (
            f"what {base.set(other.changes).call.tool} gets"
            if other.grants and case.grants
            else other.name
        )
        asks = {
            rule: {**other.asks.get(rule, {}), **case.asks.get(rule, {})}
            for rule in {**other.asks, **case.asks}
        }
        joined = replace(other, name=name, grants={**other.grants, **case.grants}, asks=asks)
        kept[same] = Proposal(joined, kept[same].covers + made.covers)
    return tuple(kept)


def _best(
    basis: Basis, base: Scene, mutant: Mutant, taken: set[str]
) -> tuple[NamedCase, Scene] | None:
    """The case that shows a mutant with the fewest reasons and changes."""
    workflow = basis.workflow
    best = None
    for index, tried in enumerate(mutant.tries[:_TRIES]):
        tool = tried.get("call", mutant.tool)
        changes = {**(basis.calling(tool) if tool else {}), **tried}
        try:
            scene = base.set(changes)
        except SceneError:
            continue
        if impossible(workflow, scene):
            continue
        answer = scene.decide()
        blank = NamedCase(_unused(mutant.name, mutant.tool, taken), changes, "deny")
        cases = (
            case
            for case in _cases(workflow, blank, scene, answer, mutant)
            if not mismatch(workflow, case, scene, answer)
        )
        case = next((case for case in cases if notices(case, scene, mutant)), None)
        if case:
            rank = (len(answer.failures) if isinstance(answer, Deny) else 1, len(changes))
            best = min(
                best or (rank, case, scene), (rank, case, scene), key=lambda each: each[0]
            )
        if best and (best[0] <= (1, 1) or index > _TRIES // 2):
            break
    return best and best[1:]


def _cases(
    workflow: Workflow, blank: NamedCase, scene: Scene, answer: Eligible | Deny, mutant: Mutant
) -> Iterator[NamedCase]:
    """What a case may say of this decision, the plainest first."""
    if isinstance(answer, Deny):
        yield from (replace(blank, because=because) for because in _reasons(answer.failures))
        return
    held = rules_of(answer)
    case = replace(blank, answer=answer.asks, rules=held)
    if not mutant.pin:
        yield case
        yield from (
            replace(case, because=because) for because in _reasons(answer.failures) if held
        )
        return
    block, _, key = mutant.pin.partition(".")
    if block == "grants":
        yield replace(case, grants={key: granted(workflow, scene.call, answer)[key]})
    for hold in answer.holds if block == "asks" else ():
        if mutant.path.startswith(f"step_up.{hold.rule.id}."):
            yield replace(case, asks={hold.rule.id: {key: hold.rule.asks[key]}})


def _reasons(failures: Failures) -> Iterable[Names]:
    """Ways to name these failures: by field, by reason."""
    by_field, by_reason = (
        tuple(dict.fromkeys(map(name, failures)))
        for name in (_field, lambda failure: str(failure.reason))
    )
    return dict.fromkeys((by_field, by_reason))


def _field(failure: Failure) -> str:
    """The plainest name: an argument, a part of who, else the reason."""
    plain = failure.argument or failure.field
    unplain = failure.reason in {Reason.ONE_SOURCE, Reason.LIMIT, Reason.UPSTREAM}
    unplain |= "." in plain and not plain.startswith(("agent.", "user."))
    return str(failure.reason) if unplain else plain


def _unused(name: str, tool: str, taken: Iterable[str]) -> str:
    if name not in taken:
        return name
    name = f"{tool}: {name}" if tool else name
    return (
        name
        if name not in taken
        else next(made for i in range(2, 10_000) if (made := f"{name} ({i})") not in taken)
    )


def head_yaml(workflow: Workflow) -> str:
    """The beginning of a new test file: a base that goes through, as concrete as a reader wants
    it.

    The cases that `propose` finds without a test file fit below it.
    """
    scene = Scene.of(workflow, {})
    base = {key: scene.values[key] for key in ("call", "tenant", "prompt") if scene.values[key]}
    for block in ("args", "facts"):
        inside = {
            key[len(block) + 1 :]: value
            for key, value in scene.values.items()
            if key.startswith(block + ".") and value is not None
        }
        base |= {block: inside} if inside else {}
    return file_yaml(workflow, base, scene.decide())
