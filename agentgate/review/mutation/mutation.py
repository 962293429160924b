"""Mutation testing of a workflow: drop or loosen each condition, and list those that no case covers.

Rules: every field of a workflow's values is loosened here or listed in `NOT_COVERED` with the reason. A case notices a mutant when it
holds on the workflow and not on the mutant; a case with the same outcome on both says nothing about the condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive as lexical
from agentgate.review.mutation.arguments import argument, fact
from agentgate.review.mutation.clauses import frame, intents, limits, tools
from agentgate.review.mutation.mutant import Basis, Mutant, Mutated, NotCovered
from agentgate.review.scenarios.case import NamedCase, mismatch
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import TestFile, passing
from agentgate.workflow.model import Workflow

# Every field of `agentgate.workflow.model` that no case can cover, with the reason. A field that is a condition, and is neither loosened
# nor listed here, fails a test.
NOT_COVERED: Mapping[tuple[str, str], str] = {
    ("Workflow", "id"): "the name: another name is another workflow",
    ("Workflow", "version"): "the number: approvals see that it rises",
    ("Workflow", "title"): "for people: nothing is decided by it",
    ("Workflow", "owners"): "for people: nothing is decided by it",
    ("Workflow", "risk"): "decides how many reviewers sign, not what a call may do",
    ("Intent", "asks_for"): "for people: nothing is decided by it",
    ("Intent", "words"): (
        "a word more cannot be known from cases: read them; examples and counter-examples are checked whenever the file loads"
    ),
    ("Intent", "examples"): "as words",
    ("Fact", "type"): "how a result is read: another type reads other values, none of them looser",
    ("Fact", "path"): "as type",
    ("Fact", "currency"): "as type",
    ("Rule", "role_scopes"): "stands in roles.yaml",
    ("Selector", "nouns"): "as an intent's words",
    ("Selector", "by"): "as an intent's words",
}


@dataclass(frozen=True, slots=True)
class Mutations:
    """The mutants of one workflow, and the conditions of which it has none."""

    found: list[Mutant]
    skipped: list[NotCovered]


@dataclass(frozen=True, slots=True)
class Survey:
    """How far a test file covers a workflow.

    Attributes:
        mutants: all of them.
        survivors: those that no case notices.
        not_covered: conditions that no case can cover, with the reason.
    """

    mutants: tuple[Mutant, ...]
    survivors: tuple[Mutant, ...]
    not_covered: tuple[NotCovered, ...]


def mutations(workflow: Workflow, *, derive: Deriver = lexical, basis: Basis | None = None) -> Mutations:
    """Every condition of a workflow dropped, or loosened by its smallest step, in the order of the blocks; and what cannot be shown.

    `basis`: with the base that their tries change.
    """
    every = list(_every(basis or Basis(workflow, derive)))
    return Mutations([m for m in every if isinstance(m, Mutant)], [m for m in every if isinstance(m, NotCovered)])


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


def survey(workflow: Workflow, tests: TestFile, *, derive: Deriver = lexical) -> Survey:
    """Which conditions the cases of a test file cover. Only cases that pass count; run them first.

    Raises WorkflowError: the test file does not fit the workflow.
    """
    cases = passing(workflow, tests, derive=derive)
    every = mutations(workflow, derive=derive)
    survivors = tuple(mutant for mutant in every.found if not any(notices(case, scene, mutant) for case, scene in cases))
    blocks = {"Workflow": "", "Intent": "intents.", "Fact": "facts.", "Rule": "args.", "Selector": "args.select."}
    never = [NotCovered(blocks[kind] + field, why) for (kind, field), why in NOT_COVERED.items()]
    return Survey(tuple(every.found), survivors, (*never, *every.skipped))
