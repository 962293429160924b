"""Changes made to look narrower: each needs a person less for some call, which the engine shows, and none is called only narrower."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentgate.decision.answer import Deny
from agentgate.diff import compare
from agentgate.diff.search import missing_rule
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.scenarios.scene import Scene
from agentgate.workflow.model import Workflow

PROMPT = "Please refund order ORD-10023344, it arrived broken"
TEXT = """
agentgate: workflow/v1
id: shop.refund
version: 1
title: Refund one named order
owners: [lee]
risk: high
expires: "2099-05-31"
tenants: [acme]
who: {{agent: {{in_process: true}}, for_user: {{same_tenant: true}}}}
intents:
  refund:
    asks_for: Give a customer money back for an order they name.
    words: [refund, reimburse]
    examples: ["{prompt}"]
tools:
  look:
    effect: {effect}
    needs: [refund]
    redeem: wrapper
    args: {{q: {{type: id, pattern: 'ORD-[0-9]+', from: [prompt]}}}}
    facts: {{{facts}}}
  pay:
    effect: write
    needs: [refund]
    redeem: wrapper
    args: {{{args}}}
{more}
"""


def load(
    *, args: str, facts: str = "owner: {type: id}", more: tuple[str, ...] = (), effect: str = "read", changed: tuple[str, str] = ("", "")
) -> Workflow:
    steps = "step_up:\n" + "\n".join(f"  - {{for: pay, {rule}}}" for rule in more) if more else ""
    text = TEXT.format(prompt=PROMPT, effect=effect, facts=facts, args=args, more=steps).lstrip()
    before, after = changed
    assert before in text
    return load_text(text.replace(before, after), "refund.yaml", {}, derive)


def needs_less(old: Workflow, new: Workflow, **base: Any) -> bool:
    """Whether the engine asks less of this very call under the new version."""
    scene = Scene.of(old, {"call": "pay", "prompt": PROMPT, **base})
    before, after = scene.decide(old), scene.decide(new)
    if isinstance(after, Deny):
        return False
    return isinstance(before, Deny) or missing_rule([h.rule for h in before.holds], [h.rule for h in after.holds]) is not None


FROM_LOOK = "id: ask, when: {payee: {origin: [look.owner]}}, approvers: {group: leads, count: 1}, timeout: 10m"


@pytest.mark.parametrize(
    "changed", [("owner: {type: id}", "owner: {type: id, pattern: 'cus_9.*'}"), ("owner: {type: id}", "owner: {type: id, trust: named}")]
)
def test_a_fact_that_counts_less_often_asks_less_often(changed):
    given: dict[str, Any] = {"args": "payee: {type: id, from: [model]}", "more": (FROM_LOOK,)}
    old, new = load(**given), load(**given, changed=changed)
    assert not compare(old, new).only_narrower
    earlier = {"look": {"q": "ORD-999"}} if "trust" in changed[1] else {}
    assert needs_less(old, new, args={"payee": "cus_1"}, facts={"look": {"owner": "cus_1"}}, earlier=earlier)


def test_a_read_that_becomes_a_write_asks_less_often():
    given: dict[str, Any] = {"args": "payee: {type: id, from: [model]}", "more": (FROM_LOOK,)}
    old, new = load(**given), load(**given, effect="write")
    assert not compare(old, new).only_narrower
    assert needs_less(old, new, args={"payee": "ORD-10023344"}, facts={"look": {"owner": "ORD-10023344"}})


LONG = "approvers: {group: leads, count: 1}, timeout: 20h, show: [payee]"
SHORT = "approvers: {group: leads, count: 1}, timeout: 10m, show: [payee, amount]"
PAY = "payee: {type: id, from: [model]}, amount: {type: number, min: '0', max: '500', from: [model]}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("id: ask, " + SHORT,), ("id: other, " + LONG,)),
        (("id: ask, " + SHORT,), ("id: other, " + SHORT.replace("10m", "11m"),)),
        (("id: ask, " + SHORT,), ("id: other, " + SHORT.replace(", amount", ""),)),
        (  # two rules change places
            ("id: a, when: {amount: {above: '10'}}, " + SHORT, "id: b, when: {amount: {above: '100'}}, " + LONG),
            ("id: a, when: {amount: {above: '100'}}, " + SHORT, "id: b, when: {amount: {above: '10'}}, " + LONG),
        ),
    ],
)
def test_a_laxer_rule_does_not_stand_in_for_another(old, new):
    one, other = load(args=PAY, more=old), load(args=PAY, more=new)
    assert not compare(one, other).only_narrower
    assert needs_less(one, other, args={"amount": "50"})


def test_a_rule_as_strict_under_another_name_stands_in():
    one, other = load(args=PAY, more=("id: ask, " + SHORT,)), load(args=PAY, more=("id: other, " + SHORT.replace("10m", "9m"),))
    assert compare(one, other).only_narrower


def test_what_keeps_out_the_requester_is_not_replaced_by_what_does_not():
    old = load(args=PAY, more=("id: ask, " + SHORT,)).tools["pay"].step_ups
    new = load(args=PAY, more=("id: other, " + SHORT,)).tools["pay"].step_ups
    assert old[0].exclude == ("requester",)
    assert missing_rule(old, new) is None
    assert missing_rule(old, [replace(new[0], exclude=())]) == old[0]
    assert missing_rule([replace(old[0], exclude=())], new) is None


ROWS = (
    "total: {type: money, currency: cur, path: 'rows[].total'}, cur: {type: text, path: 'rows[].cur'}, "
    "owner: {type: id, path: 'rows[].owner'}"
)


def test_a_bound_on_a_list_says_which_row():
    amounts = (
        "amounts: {type: money, currency: currency, min: '0.01', max: '500.00', max_items: 3, from: [look.total], at_most: look.total}"
    )
    args = amounts + ", currency: {in: [EUR], from: [model]}, payee: {type: id, from: [look.owner]}"
    old, new = load(args=args, facts=ROWS), load(args=args, facts=ROWS, changed=(", at_most: look.total", ""))
    assert not compare(old, new).only_narrower
    said = {"total": ["10.00", "5.00"], "cur": ["EUR", "EUR"], "owner": ["cus_A", "cus_B"]}
    assert needs_less(old, new, args={"amounts": ["10.00"], "currency": "EUR", "payee": "cus_B"}, facts={"look": said})


def test_a_selected_row_need_not_be_one_that_is_named():
    facts = "size: {type: number, path: 'rows[].size'}, name: {type: text, path: 'rows[].name'}, owner: {type: id, path: 'rows[].owner'"
    args = "payee: {type: id, from: [look.owner]}"
    given: dict[str, Any] = {
        "args": args,
        "changed": ("payee: {", "payee: {select: {of: look.owner, called: [file], largest: look.size}, "),
    }
    old, new = load(args=args, facts=facts + ", named_by: [name]}"), load(facts=facts + ", named_by: [name]}", **given)
    assert not compare(old, new).only_narrower
    assert compare(load(args=args, facts=facts + "}"), load(facts=facts + "}", **given)).only_narrower
    said = {"size": [1, 2], "name": ["zebra", "lion"], "owner": ["cus_A", "cus_B"]}
    prompt = f"{PROMPT}. Take the largest file."
    assert needs_less(old, new, prompt=prompt, args={"payee": "cus_B"}, facts={"look": said})


def test_a_selected_row_does_not_stand_for_another_source_beside_it():
    facts = "size: {type: number, path: 'rows[].size'}, owner: {type: id, path: 'rows[].owner'}"
    args = "payee: {type: id, from: [look.owner]}"
    select = "payee: {select: {of: look.owner, called: [file], largest: look.size}, type: id, from: [look.q]}"
    old, new = load(args=args, facts=facts), load(args=select, facts=facts)
    assert not compare(old, new).only_narrower
    assert needs_less(old, new, args={"payee": "ORD-10023344"}, facts={"look": {"size": [1, 2], "owner": ["cus_A", "cus_B"]}})


def test_a_structure_of_two_characters_hides_nothing():
    args = "body: {type: json, text: 1000, from: [model]}, amount: {type: number, min: '0', max: '500', from: [model]}"
    old, new = load(args=args), load(args=args.replace("1000", "3").replace("500", "500000"))
    assert not compare(old, new).only_narrower
    assert compare(load(args=args), load(args=args.replace("1000", "2"))).only_narrower
    assert needs_less(old, new, args={"body": {}, "amount": "501"})


def test_constants_that_crowd_out_the_example_hide_nothing():
    args = "reason: {text: 200, from: [model]}"
    ask = "approvers: {group: leads, count: 1}, timeout: 10m"
    rare = (f"id: ask, when: {{reason: {{in: [x, 'y', xx, yy]}}}}, {ask}", f"id: ask-2, when: {{reason: {{text: 1}}}}, {ask}")
    old, new = load(args=args, more=("id: ask, " + ask,)), load(args=args, more=rare)
    assert not compare(old, new).only_narrower
    assert needs_less(old, new, args={"reason": "because I say so"})
