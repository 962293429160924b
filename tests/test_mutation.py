"""Mutation: every condition is dropped or loosened, and the tests beside every shipped workflow notice each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from time import thread_time
from typing import Any

import pytest

from agentgate import Agent, Allow, Deny, Gate, User
from agentgate.decision.answer import Eligible
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.loading.definition import load_text
from agentgate.review.mutation.mutation import NOT_COVERED, Survey, mutations, propose, survey
from agentgate.review.scenarios import testfile
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import TestFile, load_tests, read_tests
from agentgate.workflow import model, rule
from agentgate.workflow.clauses import conditions, who
from agentgate.workflow.model import Workflow
from tests.everything import CLAIMS, EVERYTHING, ROLES, STRUCTURES
from tests.test_attacks_confirmed import WORKFLOW as CONFIRMING
from tests.workflows import workflow_text

ROOT = Path(__file__).parent.parent
SHIPPED = [w for folder in ("workflows", "examples/payment-agent/workflows") for w in Catalog.load(ROOT / folder, derive)]


def shipped_tests(workflow: Workflow) -> TestFile:
    return load_tests(testfile.tests_of(workflow.file))


def load(text: str) -> Workflow:
    return load_text(text, "w.yaml", ROLES, derive)


# --- what is shipped ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workflow", SHIPPED, ids=lambda w: w.id)
def test_every_condition_of_every_shipped_workflow_has_a_case_that_would_miss_it(workflow):
    before = thread_time()
    found = survey(workflow, shipped_tests(workflow))
    assert thread_time() - before < 10
    assert list(map(str, found.survivors)) == []
    assert len(found.mutants) > 20


def without(tests: TestFile, *names: str) -> TestFile:
    assert set(names) <= {case.name for case in tests.cases}
    return dataclasses.replace(tests, cases=tuple(c for c in tests.cases if c.name not in names), places={})


def refund() -> Workflow:
    return next(w for w in SHIPPED if w.id == "payments.customer-refund" and w.version == 7)


ALIKE = pytest.mark.thorough("a condition of another clause, missed in the same way")


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (["a cent above five hundred"], "tools.payments.refund.args.amount.max"),
        (["a cent more than the day allows"], ""),  # "and for a whole day" says it too
        (["a cent more than the day allows", "and for a whole day"], "limits.tenant.payments.refund.amount.max"),
        (["looked up more than a quarter of an hour ago"], "sequence.payments.refund.within"),
        pytest.param(["a user of another tenant"], "who.for_user.same_tenant", marks=ALIKE),
        pytest.param(["a link in the reason"], "tools.payments.refund.args.reason.entities", marks=ALIKE),
        (
            ["the customer of another order", "one order's number with another's customer", "as much as another order cost"],
            "tools.payments.refund.args.payee.any_call",
        ),
        pytest.param(["on a Saturday"], "conditions.hours.days", marks=ALIKE),
        pytest.param(["another order tool than was reviewed"], "tools.orders.get.definition", marks=ALIKE),
        pytest.param(["a small refund goes through, with a token for this call only"], "token.ttl", marks=ALIKE),
        pytest.param(["more than one hundred asks a lead, who is not the requester"], "step_up.big-refund.approvers.not", marks=ALIKE),
    ],
)
def test_without_its_case_a_condition_survives(names, path):
    found = {mutant.path for mutant in survey(refund(), without(shipped_tests(refund()), *names)).survivors}
    assert path in found if path else not found


def test_a_survivor_says_where_it_stands_and_what_was_done():
    (found,) = survey(refund(), without(shipped_tests(refund()), "a cent above five hundred")).survivors
    assert str(found) == f"{refund().file}:{found.line}: tools.payments.refund.args.amount.max: 500.00 -> 500.01"
    assert 'max: "500.00"' in Path(refund().file).read_text().splitlines()[found.line - 1]


def test_a_case_that_does_not_hold_covers_nothing():
    tests = shipped_tests(refund())
    wrong = tuple(dataclasses.replace(c, because=("payee",)) if c.name == "outside production" else c for c in tests.cases)
    assert [m.path for m in survey(refund(), dataclasses.replace(tests, cases=wrong)).survivors] == ["conditions.environment"]


def test_what_no_case_can_cover_is_listed_with_the_reason():
    found: Survey = survey(refund(), shipped_tests(refund()))
    listed = {each.path: each.why for each in found.not_covered}
    assert {"title", "owners", "risk", "version", "intents.words"} <= set(listed)
    assert listed["tools.payments.refund.args.order_id.pattern"] == "implied: orders.get.order_id has the same"
    assert len([path for path in listed if path.startswith(("tools.", "intents.refund."))]) == 6


# --- nothing is left out -----------------------------------------------------------------------------------------------------
# What a value is about rather than a condition, and the parts of it that are loosened one by one.
SUBJECT = {
    "Workflow": "agent for_user via intents conditions tools token digest file in_doubt",
    "Doubt": "intent key index got",
    "AgentRule": "claims",
    "ClaimRule": "name",
    "Conditions": "hours",
    "Intent": "name objects reader timed",
    "Tool": "name args facts sequence limits upstream referenced unreferenced",
    "Rule": "name",
    "Fact": "name",
    "Source": "kind tool field selector",
    "Selector": "tool",
    "Sequence": "before",
    "Limit": "tool argument",
    "StepUpRule": "id tool when",
}


MODULES = (model, rule, who, conditions)


def classes() -> list[Any]:
    return [v for module in MODULES for v in vars(module).values() if isinstance(v, type) and dataclasses.is_dataclass(v)]


def structure_of(kind: Any) -> list[str]:
    """The fields of a class that are no conditions: its subject, lines of the file, and what it computes from its other fields."""
    computed = [f.name for f in dataclasses.fields(kind) if not f.init or f.name == "line" or f.name.endswith("_line")]
    return [*SUBJECT.get(kind.__name__, "").split(), *computed]


CONFIRMED = CONFIRMING.replace("iban, from: [prompt, confirmed]", "iban, from: [prompt]")  # one argument that a yes does not name


def test_a_yes_that_would_name_more_is_a_mutant_that_the_proposed_cases_notice():
    workflow = load(CONFIRMED)
    proposals = propose(workflow)
    covered = {(m.path, m.words) for each in proposals.found for m in each.covers}
    assert ("tools.pay.args.iban.from", "may also be confirmed") in covered
    assert ("tools.people.get.facts.secret.trust", "named -> confirmed") in covered
    assert ("tools.people.get.facts.boss.trust", "named -> always") in covered
    stated = [each.case.changes for each in proposals.found]
    assert any("yes.people.get" in changes for changes in stated), stated


def test_every_field_of_a_workflow_is_loosened_or_listed_as_not_covered():
    loosened = {m.of for text in (EVERYTHING, CLAIMS, STRUCTURES, CONFIRMED) for m in mutations(load(text)).found}
    structure = {(kind.__name__, field) for kind in classes() for field in structure_of(kind)}
    every = {(kind.__name__, field.name) for kind in classes() for field in dataclasses.fields(kind)}
    assert loosened | structure | set(NOT_COVERED) == every
    assert not loosened & set(NOT_COVERED)
    assert not loosened & structure
    assert not structure & set(NOT_COVERED)


@pytest.mark.parametrize("workflow", [*SHIPPED, load(EVERYTHING), load(CLAIMS)], ids=lambda w: w.id)
def test_a_mutant_differs_in_one_condition_and_still_fits_the_runs(workflow):
    for mutant in mutations(workflow).found:
        assert mutant.workflow != workflow or mutant.words == "any", mutant  # a list that everything is in equals the list
        assert (mutant.workflow.id, mutant.workflow.digest, mutant.workflow.file) == (workflow.id, workflow.digest, workflow.file)
        assert mutant.words
        assert mutant.name


# A type, a zone, a currency and what is done when it is unclear have no looser value: they are changed, and the base may notice.
CHANGED = ("type", "zone", "currency", "unclear")


@pytest.mark.parametrize("workflow", SHIPPED, ids=lambda w: w.id)
def test_a_mutant_is_looser_what_was_allowed_stays_allowed(workflow):
    for tool in workflow.tools:
        scene = Scene.of(workflow, {"call": tool})
        for mutant in mutations(workflow).found:
            if mutant.path.rpartition(".")[2] not in CHANGED and "when." not in mutant.path:
                assert isinstance(scene.decide(mutant.workflow), Eligible), mutant


# --- limits, as the store counts them ----------------------------------------------------------------------------------------
LIMITED = workflow_text(
    "shop.pay",
    intents='{none: "A machine."}',
    tools="""
  pay:
    effect: write
    needs: none
    redeem: wrapper
    args:
      amount: {type: money, currency: currency, min: "0.01", max: "100.00", from: [model]}
      currency: {in: [EUR, GBP], from: [model]}
""",
    limits="""
  - {count: pay, max: 3, per: run}
  - {sum: pay.amount, max: "100.00", per: tenant, every: 1d}
""",
)


@pytest.mark.parametrize("amounts", [["60.00", "40.00"], ["60.00", "40.01"], ["1.00", "1.00", "1.00", "1.00"], ["99.99", "0.01", "0.01"]])
def test_limits_in_a_scene_refuse_where_the_store_refuses(amounts, tmp_path):
    (tmp_path / "w.yaml").write_text(LIMITED)
    workflow = load(LIMITED)
    gate = Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://")
    run = gate.open_run("shop.pay", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("a"), prompt="")
    spent, count = 0, 0
    for index, amount in enumerate(amounts):
        args: dict[str, Any] = {"amount": amount, "currency": "EUR"}
        scene = Scene.of(workflow, {"args": args, "spent": {"run.pay": count, "tenant.pay.amount": f"{spent / 100:.2f}"}})
        real, told = run.authorize("pay", args, tool_call_id=f"c{index}"), scene.decide()
        assert isinstance(real, Allow) is isinstance(told, Eligible)
        if isinstance(real, Allow):
            spent, count = spent + round(float(amount) * 100), count + 1
        else:
            assert isinstance(real, Deny)
            assert isinstance(told, Deny)
            assert real.reasons == told.reasons
    gate.close()


def test_cases_of_another_workflow_are_refused():
    with pytest.raises(WorkflowError, match="the workflow beside it"):
        survey(refund(), read_tests("workflow: other.one\nbase: {}\ncases: []\n", "t.yaml"))


def test_a_scene_that_was_decided_before_answers_a_mutant_like_a_new_one():
    cases = [(case, scene) for case, scene in testfile.scenes(refund(), shipped_tests(refund())) if "origin" in str(case.changes)][:6]
    for _, scene in cases:
        for mutant in mutations(refund()).found:
            fresh = Scene(scene.workflow, scene.values, scene.filled)
            assert scene.decide(mutant.workflow) == fresh.decide(mutant.workflow), mutant
