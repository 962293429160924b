"""Mutation of a workflow: drop or loosen each condition, and list those that no case would miss.

Rules: every field of a workflow's values is either loosened here or stands in `NOT_COVERED` with the reason; a mutant is noticed
when one case that holds on the workflow does not hold on it. Equal outcomes mean that the case says nothing about the condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive as lexical
from agentgate.review.mutation.arguments import ArgumentMutants
from agentgate.review.mutation.clauses import ClauseMutants
from agentgate.review.mutation.conditions import ConditionMutants
from agentgate.review.mutation.mutant import Mutant, Mutations, NotCovered
from agentgate.review.mutation.who import Frame
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import NamedCase, TestFile, mismatch, passing
from agentgate.workflow.model import Workflow

# What no case can cover, by the class and field of `agentgate.workflow.model`: the whole list, with the reason. A field that is neither
# loosened nor here fails a test.
NOT_COVERED: Mapping[tuple[str, str], str] = {
    ("Workflow", "id"): "the name: another name is another workflow",
    ("Workflow", "version"): "the number: approvals see that it rises",
    ("Workflow", "title"): "for people: nothing is decided by it",
    ("Workflow", "owners"): "for people: nothing is decided by it",
    ("Workflow", "risk"): "decides how many reviewers sign, not what a call may do",
    ("Intent", "asks_for"): "for people: nothing is decided by it",
    (
        "Intent",
        "words",
    ): "a word more cannot be known from cases: read them; examples and counter-examples are checked whenever the file loads",
    ("Intent", "examples"): "as words",
    ("Fact", "type"): "how a result is read: another type reads other values, none of them looser",
    ("Fact", "path"): "as type",
    ("Fact", "currency"): "as type",
    ("Rule", "role_scopes"): "stands in roles.yaml",
    ("Selector", "nouns"): "as an intent's words",
    ("Selector", "by"): "as an intent's words",
}
# What a rule is about rather than a condition, and what is made of the parts that are loosened one by one.
STRUCTURE: Mapping[str, str] = {
    "Workflow": "agent for_user via intents conditions tools token digest file tenants_line expires_line",
    "AgentRule": "line claims",
    "ClaimRule": "name line",
    "UserRule": "line",
    "ViaRule": "line",
    "Hours": "line",
    "Conditions": "line hours",
    "Intent": "name line",
    "Tool": "name line args facts sequence limits upstream referenced dependencies asking grounded",
    "Rule": "name line operators references calls alone free prompted said_as",
    "Fact": "name line",
    "Source": "kind tool field selector key",
    "Selector": "tool forms",
    "Sequence": "line before",
    "Limit": "line tool argument",
    "StepUpRule": "id line tool when",
    "Upstream": "line",
}


@dataclass(frozen=True, slots=True)
class Survey:
    """What a test file covers.

    Attributes:
        mutants: all of them.
        survivors: those that no case misses.
        not_covered: what no case can cover, with the reason.
    """

    mutants: tuple[Mutant, ...]
    survivors: tuple[Mutant, ...]
    not_covered: tuple[NotCovered, ...]


def mutations(workflow: Workflow, *, derive: Deriver = lexical, base: Scene | None = None) -> Mutations:
    """Every condition of a workflow dropped, or loosened by its smallest step, in the order of the blocks; and what cannot be told.

    Args:
        workflow: the workflow.
        derive: the intent deriver.
        base: the scene that tries start from; None: one filled from the workflow.
    """
    found = Mutations(workflow, derive, base)
    frame, clauses, arguments, conditions = Frame(found), ClauseMutants(found), ArgumentMutants(found), ConditionMutants(found)
    frame.whole()
    frame.who()
    frame.conditions()
    for intent in workflow.intents.values():
        clauses.intent(intent)
    for tool in workflow.tools.values():
        clauses.tool(tool)
        for rule in tool.args.values():
            arguments.argument(tool, rule)
        for fact in tool.facts.values():
            conditions.fact(tool, fact)
    clauses.limits()
    return found


def mutants(workflow: Workflow, *, derive: Deriver = lexical) -> tuple[Mutant, ...]:
    """Every condition of a workflow dropped, or loosened by its smallest step, in the order of the blocks."""
    return tuple(mutations(workflow, derive=derive).found)


def misses(made: Sequence[tuple[NamedCase, Scene]], mutant: Mutant) -> bool:
    """Whether one of the cases would notice the mutant."""
    return any(notices(case, scene, mutant) for case, scene in made)


def notices(case: NamedCase, scene: Scene, mutant: Mutant) -> bool:
    """Whether this case fails on the mutant."""
    return bool(mismatch(mutant.workflow, case, scene, scene.decide(mutant.workflow)))


def survey(workflow: Workflow, tests: TestFile, *, derive: Deriver = lexical) -> Survey:
    """Which conditions the cases of a test file cover.

    Only cases that pass count; run them first.

    Raises:
        WorkflowError: the test file does not fit the workflow.
    """
    made = passing(workflow, tests, derive=derive)
    every = mutations(workflow, derive=derive)
    left = tuple(mutant for mutant in every.found if not misses(made, mutant))
    return Survey(tuple(every.found), left, (*_never(), *every.skipped))


def _never() -> tuple[NotCovered, ...]:
    names = {"Workflow": "", "Intent": "intents.", "Fact": "facts.", "Rule": "args.", "Selector": "args.select."}
    return tuple(NotCovered(names[kind] + field, why) for (kind, field), why in NOT_COVERED.items())


def survivors(workflow: Workflow, tests: TestFile, *, derive: Deriver = lexical) -> tuple[Mutant, ...]:
    """The mutants that no case would miss. Raises as `survey`."""
    return survey(workflow, tests, derive=derive).survivors
