"""Lint: an id of the prompt beside values of a read that may be another object's, and the line that ties them."""

from __future__ import annotations

from typing import Any

import pytest

from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.advice import advise
from agentgate.values.refusal import Reason
from agentgate.values.request import EarlierCall
from tests.test_elements import PAYMENTS, case
from tests.test_reference import engine

ORDERS = (
    PAYMENTS[: PAYMENTS.index("tools:")]
    + """tools:
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {order_id: {type: id, from: [prompt]}}
    facts: {customer: {type: id}, total: {type: number}}
  people.find:
    effect: read
    needs: any
    redeem: wrapper
    args: {name: {text: 20, from: [prompt]}}
    facts: {customer: {type: id, path: '[].customer'}, team_id: {type: id, path: '[].team_id'}, id: {type: id, path: '[].id'}}
  pay.all:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      order_id: {type: id, from: [prompt]}
      payee: {type: id, from: [orders.get.customer]}
      amount: {type: number, min: 0, max: 9999, at_most: orders.get.total, from: [prompt, orders.get.total]}
"""
)
ARGS = "args: {order_id: {type: id, from: [prompt]}}"  # of orders.get
TIED = "order_id: {type: id, from: [orders.get.order_id]}\n      payee"
LOOSE = "order_id: {type: id, from: [prompt]}\n      payee"


def untied(*changes: tuple[str, str], text: str = ORDERS) -> list[tuple[str, str]]:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    found = advise(load_text(text, "w.yaml", {}, derive), read_yaml(text, "w.yaml"))
    return [(each.field, each.text) for each in found if each.text.startswith("nothing ties it")]


def test_an_id_of_the_prompt_beside_values_of_a_read_is_warned_about_with_the_line_that_ties_it() -> None:
    ((field, text),) = untied()
    assert field == "tools.pay.all.args.order_id.from"
    assert text.startswith("nothing ties it to payee and amount, which come from orders.get: they may be those of another object; ")
    assert text.endswith("; order_id: {from: [orders.get.order_id]} would tie it")
    assert untied((LOOSE, TIED)) == []


def test_the_line_does_tie_it() -> None:
    """Two orders in the prompt: the id of one, the payee and the amount of the other."""
    earlier = []
    for n in (1, 3):
        rows = ({"customer": f"cus_{n}", "total": 10**n},)
        earlier.append(EarlierCall(f"c{n}", "orders.get", {"order_id": f"ORD-{n}"}, rows, named=True, redeemed_at=1.0))
    prompt = "pay what is due for ORD-1 and ORD-3"

    def denied(args: dict[str, Any], text: str) -> frozenset[Reason]:
        return engine(case(args, *earlier, prompt=prompt, text=text)).denied

    mixed, honest = ({"order_id": "ORD-1", "payee": f"cus_{n}", "amount": 10**n} for n in (3, 1))
    assert denied(mixed, ORDERS) == denied(honest, ORDERS) == frozenset()
    assert denied(mixed, ORDERS.replace(LOOSE, TIED)) == {Reason.ONE_SOURCE}
    assert denied(honest, ORDERS.replace(LOOSE, TIED)) == frozenset()


@pytest.mark.parametrize(
    "argument",
    [
        "order_id: {type: id, from: [prompt, orders.get.order_id]}",
        "order_id: {type: id, from: [model]}",
        "order_id: {type: id, from: [people.find.id]}",
        "order_id: {from: [prompt]}",
        "id: {type: id, from: [prompt]}",
        "orders[].order_id: {type: id, max_items: 3, from: [prompt]}",
    ],
)
def test_whatever_the_read_did_not_look_up_is_tied_to_nothing(argument: str) -> None:
    read = (
        ARGS,
        "args: {order_id: {type: id, from: [prompt]}, more: {text: 9, from: [model], optional: true}}",
    )
    changes = [(LOOSE, argument + "\n      payee"), read]
    if argument.startswith("id:"):  # of an order, where the tool's name says so
        changes += [("  pay.all:\n", "  orders.pay:\n")]
    ((field, text),) = untied(*changes)
    assert field.endswith(f"{argument.partition(':')[0]}.from")
    assert text.endswith("{from: [orders.get.order_id]} would tie it")


def test_a_row_of_a_list_is_tied_by_its_own_id() -> None:
    read = (
        "args: {order_id: {type: id, from: [prompt]}}\n    facts: {customer",
        "args: {}\n    facts: {id: {type: id, path: '[].id'}, customer",
    )
    rows = [("customer: {type: id}, total: {type: number}", "customer: {type: id, path: '[].c'}, total: {type: number, path: '[].t'}")]
    ((_, text),) = untied(read, *rows)
    assert text.endswith("order_id: {from: [orders.get.id]} would tie it")


def test_one_pattern_is_one_kind_of_object() -> None:
    read = (
        ARGS,
        "args: {number: {pattern: 'ORD-[0-9]', from: [prompt]}, of: {type: id, from: [prompt]}}",
    )
    ((_, text),) = untied(read, (LOOSE, "order: {pattern: 'ORD-[0-9]', from: [prompt]}\n      payee"))
    assert text.endswith("order: {from: [orders.get.number]} would tie it")
    assert untied(read, (LOOSE, "order: {pattern: 'ORD-[0-9]+', from: [prompt]}\n      payee")) == []


@pytest.mark.parametrize(
    "changes",
    [
        [("payee: {type: id, from: [orders.get.customer]}", "payee: {type: id, from: [orders.get.customer], any_call: true}")],
        [("payee: {type: id, from: [orders.get.customer]}", "payee: {type: id, from: [model]}")],
        [("payee: {type: id, from: [orders.get.customer]}", "payee: {type: id, from: [people.find.customer]}")],
        [(LOOSE, "team_id: {type: id, from: [prompt]}\n      payee"), ("[orders.get.customer]", "[people.find.customer]")],
        [(LOOSE, "id: {type: id, from: [prompt]}\n      payee")],
    ],
    ids=["any_call", "nothing taken", "of an object that the id does not name", "a value beside another object", "an id of something else"],
)
def test_other_ids_are_not_warned_about(changes: list[tuple[str, str]]) -> None:
    amount = ("at_most: orders.get.total, from: [prompt, orders.get.total]", "from: [prompt]")
    assert untied(*changes, amount) == []


def test_all_that_is_looked_up_by_names_the_object() -> None:
    read = (ARGS, "args: {slip: {type: id, from: [prompt]}}")
    loose = (LOOSE, "slip: {type: id, from: [prompt]}\n      payee")
    ((_, text),) = untied(read, loose)
    assert text.endswith("slip: {from: [orders.get.slip]} would tie it")
    assert untied((ARGS, "args: {slip: {type: id, from: [prompt]}, of: {type: id, from: [prompt]}}"), loose) == []


def test_what_the_model_may_write_anyway_and_a_new_id_are_no_values_of_a_read() -> None:
    payee = ("payee: {type: id, from: [orders.get.customer]}", "payee: {type: id, from: [orders.get.customer, model]}")
    assert untied(payee, ("at_most: orders.get.total, from: [prompt, orders.get.total]", "from: [prompt]")) == []
    acting = (
        "effect: read\n    needs: any\n    redeem: wrapper\n    " + ARGS,
        "effect: write\n    needs: [pay]\n    redeem: wrapper\n    " + ARGS,
    )
    amount = ("at_most: orders.get.total, from: [prompt, orders.get.total]", "from: [prompt]")
    assert untied(acting, amount) == []


def test_a_bound_is_a_value_of_the_read_too() -> None:
    payee = ("payee: {type: id, from: [orders.get.customer]}", "payee: {type: id, from: [prompt]}")
    ((_, text),) = untied(payee, ("from: [prompt, orders.get.total]", "from: [model]"))
    assert text.startswith("nothing ties it to amount, which comes from orders.get: ")
