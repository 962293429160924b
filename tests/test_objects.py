"""Facts of an object's values (`products.*.id`) and keys (`key: true`): through the gate, the diff and the mutants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Deny, Gate, User
from agentgate.diff import compare
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.redemption.outcome import extract
from agentgate.review.mutation.mutation import survey
from agentgate.review.scenarios.scene import Scene, result
from agentgate.review.scenarios.testfile import load_tests, run_tests
from agentgate.workflow.model import Workflow
from tests.workflows import workflow_text

WORKFLOW = workflow_text(
    "shop.pay",
    intents="""
  pay:
    asks_for: Pay an order.
    words: [pay, settle]
    examples: ["Please pay order ORD-10023344"]
""",
    tools="""
  users.get:
    effect: read
    needs: any
    redeem: wrapper
    facts:
      method: {type: id, path: 'payment_methods.*', key: true}
      limit: {type: number, path: 'payment_methods.*.limit'}
      owner: {type: id, path: 'payment_methods.*.owner'}
  orders.pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      order: {type: id, from: [prompt]}
      method: {type: id, from: [users.get.method]}
      owner: {type: id, from: [users.get.owner]}
      amount: {type: number, min: "1", max: "900", at_most: users.get.limit, from: [model]}
""",
)
USER = {"payment_methods": {"credit_card_9991": {"limit": 50, "owner": "lee"}, "paypal/7": {"limit": 900, "owner": "eve"}}}
PAY = {"order": "ORD-10023344", "method": "credit_card_9991", "owner": "lee", "amount": "20"}


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "pay.yaml").write_text(WORKFLOW)
    found = Catalog.load(tmp_path / "w", derive=derive).get("shop.pay")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        ({}, True),
        ({"method": "paypal/7", "owner": "eve", "amount": "800"}, True),
        ({"owner": "eve"}, False),  # another key's owner
        ({"amount": "60"}, False),  # another key's limit
        ({"method": "payment_methods"}, False),
        ({"method": "limit"}, False),
        ({"method": "bank_1"}, False),
    ],
)
def test_what_belongs_to_one_key_belongs_together(workflow: Workflow, tmp_path: Path, args: dict[str, Any], *, allowed: bool) -> None:
    with Gate.open_unsafe_unapproved(tmp_path / "w", issuer="https://gate.example", audit="memory://") as gate:
        lee = User("lee", tenant="acme")
        run = gate.open_run("shop.pay", tenant="acme", user=lee, agent=Agent("bot"), prompt="Please pay order ORD-10023344")
        look = run.authorize("users.get", {}, tool_call_id="look")
        assert isinstance(look, Allow)
        with run.redeem(look.token, tool="users.get", args={}) as call:
            call.record_result(USER)
        assert isinstance(run.authorize("orders.pay", {**PAY, **args}, tool_call_id="pay"), Allow if allowed else Deny)


def test_what_is_found_in_a_value_of_an_object() -> None:
    result = {"notes": {"a": "pay to DE89370400440532013000", "b": "nothing here", "c": 7}}
    assert extract({"iban": ("notes", "[values]", "[]", "[iban]")}, result) == ({"iban": "DE89370400440532013000"},)


def test_another_path_is_for_a_person_to_read(workflow: Workflow) -> None:
    tool = workflow.tools["users.get"]
    fact = replace(tool.facts["owner"], path=("payment_methods", "[values]", "[]", "note"))
    other = replace(workflow, version=2, tools={**workflow.tools, "users.get": replace(tool, facts={**tool.facts, "owner": fact})})
    assert any(path.endswith("facts.owner.path") for path in compare(workflow, other).read_yourself)


def test_a_scene_puts_keys_and_values_where_a_result_has_them(workflow: Workflow) -> None:
    stated = {"facts.users.get.method": ["a", "b"], "facts.users.get.limit": [5, 900], "facts.users.get.owner": ["lee", "eve"]}
    scene = Scene.of(workflow, {"call": "orders.pay", "args.amount": "6", **stated})
    assert result(workflow.tools["users.get"], scene.values, "users.get") == {
        "payment_methods": {"a": {"limit": 5, "owner": "lee"}, "b": {"limit": 900, "owner": "eve"}}
    }


TESTS = """
workflow: shop.pay
base: {call: orders.pay, prompt: "Please pay order ORD-10023344", args: {order: ORD-10023344, method: card-1, owner: lee, amount: "20"},
  facts: {users.get: {method: [card-1, card-2], limit: [50, 900], owner: [lee, eve]}}}
cases:
  - {name: the card on file, expect: allow}
  - {name: the owner of another card, set: {args.owner: eve}, expect: deny, because: owner}
  - {name: the limit of another card, set: {args.amount: "60"}, expect: deny, because: [method, owner]}
  - {name: a card that is not on file, set: {args.method: card-3}, expect: deny, because: method}
"""


def test_a_test_file_states_them_as_lists(workflow: Workflow, tmp_path: Path) -> None:
    path = tmp_path / "w" / "pay.test.yaml"
    path.write_text(TESTS)
    report = run_tests(workflow, load_tests(path))
    assert [str(result) for result in report.results if not result.passed] == []
    dropped = {(mutant.path, mutant.words) for mutant in survey(workflow, load_tests(path)).survivors}
    assert not {("tools.orders.pay.args.method.from", "dropped"), ("tools.orders.pay.args.owner.from", "dropped")} & dropped
