"""Sample results become facts and origins of a draft: narrow, loadable, and without a value of any sample in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

from agentgate.decision.answer import Deny, Eligible
from agentgate.errors import ConfigError
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.draft.draft import Draft, draft
from agentgate.review.draft.results import facts_of, read_samples
from agentgate.review.draft.toolset import DeclaredTool
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import read_tests, run_tests

TEXT, CODE = {"type": "string"}, {"type": "string", "description": "An IBAN."}
LANG = {"enum": ["en", "de"], "default": "en"}
MONEY = {"type": "object", "properties": {"amount": {"type": "number"}, "currency": TEXT}, "required": ["amount", "currency"]}
ORDER = {
    "order_id": "ORD-7788",
    "total": 49.9,
    "currency": "EUR",
    "note": "Left at the door.\nThanks",
    "paid": True,
    "payee": {"iban": "GB82WEST12345698765432", "name": "Robin Sample"},
}
FOUND = {"orders": [{"id": "ORD-7788", "title": "Garden hose", "customer": {"email": "robin@sample.example"}}]}
RESULTS = {"search_orders": (FOUND,), "get_order": (ORDER,), "refund_order": ({"refund_id": "RF-7", "status": "done"},)}


def tool(name: str, required: int = 9, **properties: Any) -> DeclaredTool:
    schema = {"type": "object", "properties": properties, "required": list(properties)[:required]}
    return DeclaredTool(name, f"{name}.", schema, "sha256:" + "0" * 64, {})


SEARCH, GET = tool("search_orders", word={"enum": ["hose"]}), tool("get_order", order_id=TEXT)
REFUND = tool("refund_order", order_id=TEXT, money=MONEY, payee=CODE)


def drafted(*tools: DeclaredTool, results: Mapping[str, Any] = RESULTS, settle: bool = False) -> Draft:
    return draft(tools, id="a.b", source="x", owner="lee", expires=date(2031, 1, 1), tenant="acme", results=results, settle=settle)


def loaded(made: Draft) -> Any:
    workflow = load_text(made.text, "w.yaml", {}, derive)
    assert run_tests(workflow, read_tests(made.tests, "w.test.yaml")).failed == ()
    return workflow


def sources(workflow: Any, name: str, argument: str) -> list[str]:
    return [str(source) for source in workflow.tools[name].args[argument].sources]


def test_what_samples_hold_become_facts_with_paths_and_types_and_no_value_of_them_is_written() -> None:
    made = drafted(SEARCH, GET, REFUND)
    assert [(f.name, f.type, f.path) for f in facts_of((FOUND,), ())] == [
        ("id", "id", "orders[].id"),
        ("title", "text", "orders[].title"),
        ("customer_email", "email", "orders[].customer.email"),
    ]
    facts = loaded(made).tools["get_order"].facts
    assert {name: (f.type, f.currency) for name, f in facts.items()} == {
        "total": ("money", "currency"),
        "currency": ("text", ""),
        "payee_iban": ("iban", ""),
        "payee_name": ("text", ""),
    }
    for value in ("ORD-7788", "49.9", "GB82WEST", "Robin", "robin@", "Garden", "RF-7"):
        assert value not in made.text + made.tests


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (({"a": 1}, {"a": "x"}), []),  # of two types
        (({"a": None}, {"a": 3}), [("a", "integer", "a")]),
        (({"cards": {"c_1": {"brand": "visa"}, "c_2": {"brand": "amex"}}},), [("brand", "text", "cards.*.brand")]),
        (({"at": "2031-03-04T10:00:00Z", "on": "2031-03-04"},), [("at", "text", "at"), ("on", "date", "on")]),
        (("plain text",), []),
        (('{"id": "A-1"}',), []),  # JSON as text is not read
        (([{"sku": "AB-1"}, {"sku": "AB-2"}],), [("sku", "id", "[].sku")]),
        (({"x.y": "A-1", "x[]": "A-1", "*": "A-1", "é": "A-1"},), []),  # no path can name them
        (({"id": "A-1", "ok": True, "long": "x" * 81},), [("id", "id", "id")]),
        (({"a": {"id": 7}, "b": {"id": 8}},), [("a_id", "id", "a.id"), ("b_id", "id", "b.id")]),
    ],
)
def test_only_plain_short_values_of_one_type_are_facts(samples: tuple[Any, ...], expected: list[Any]) -> None:
    assert [(f.name, f.type, f.path) for f in facts_of(samples, ())] == expected


def test_a_field_called_like_an_argument_is_that_argument_but_in_a_list_it_is_a_row() -> None:
    assert facts_of(({"name": "Ada"},), ["name"]) == ()
    [(fact)] = facts_of(([{"name": "Ada"}],), ["name"])
    assert (fact.name, fact.path) == ("result_name", "[].name")


def test_an_act_takes_the_object_that_the_user_named_and_no_more_than_it_says() -> None:
    workflow = loaded(drafted(SEARCH, GET, REFUND))
    assert sources(workflow, "get_order", "order_id") == ["prompt", "search_orders.id", "confirmed"]
    assert sources(workflow, "refund_order", "order_id") == ["get_order.order_id"]
    assert sources(workflow, "refund_order", "payee") == ["prompt", "get_order.payee_iban", "confirmed"]
    assert all(workflow.tools["get_order"].facts[name].named for name in ("total", "currency", "payee_iban"))
    base = {"call": "refund_order", "prompt": "Please undecided refund_order A-1", "earlier": {"get_order": {"order_id": "A-1"}}}
    facts = {"get_order": {"total": "20", "currency": "EUR", "payee_iban": "GB82WEST12345698765432"}}
    args = {"order_id": "A-1", "money": {"amount": 20, "currency": "EUR"}, "payee": "GB82WEST12345698765432"}
    allowed = Scene.of(workflow, {**base, "facts": facts, "args": args})
    assert isinstance(allowed.decide(), Eligible)
    for other in ({"args.payee": "DE89370400440532013000"}, {"args.order_id": "A-2"}):
        asked = allowed.set(other).decide()
        assert isinstance(asked, Eligible)
        assert [hold.rule.user for hold in asked.holds] == [True]  # what the user did not name, they are asked about
    refused: tuple[dict[str, object], ...] = (
        {"args.money.amount": 20.5},
        {"prompt": "Please undecided refund_order"},  # an order that only the agent chose
        {"args.money.currency": "GBP"},
    )
    for change in refused:
        assert isinstance(allowed.set(change).decide(), Deny), change


def test_a_read_that_the_model_would_steer_is_fixed_or_nothing_is_taken_of_it() -> None:
    fixed = loaded(drafted(SEARCH, tool("get_order", 1, order_id=TEXT, lang=LANG), REFUND))
    assert fixed.tools["get_order"].args["lang"].equals == ("en",)
    assert sources(fixed, "get_order", "order_id") == ["prompt", "confirmed"]
    assert not any(fact.named for fact in fixed.tools["get_order"].facts.values())
    assert sources(fixed, "refund_order", "order_id") == ["get_order.order_id"]
    free = loaded(drafted(SEARCH, tool("get_order", order_id=TEXT, lang={"enum": ["en", "de"]}), REFUND))
    assert sources(free, "refund_order", "order_id") == ["prompt"]
    assert "money.amount" not in free.tools["refund_order"].args  # how much at most is the reviewer's to say


def test_an_act_takes_no_row_of_a_list_and_of_another_act_only_its_new_id() -> None:
    results = {"list_drafts": ([{"draft_id": "D-1"}],), "create_draft": ({"draft_id": "D-2", "reviewer": "kim@acme.example"},)}
    tools = (tool("list_drafts"), tool("create_draft"), tool("send_draft", draft_id=TEXT, reviewer={"type": "string", "format": "email"}))
    workflow = loaded(drafted(*tools, results=results))
    assert sources(workflow, "send_draft", "draft_id") == ["prompt", "create_draft.draft_id"]
    assert sources(workflow, "send_draft", "reviewer") == ["prompt", "confirmed"]
    assert list(workflow.tools["create_draft"].facts) == ["draft_id"]


def test_nothing_comes_from_what_was_sent_out_or_searched_on_the_web_and_no_list_from_what_writes() -> None:
    rows = ([{"draft_id": "D-1"}],)
    one = ({"draft_id": "D-1"},)
    for name, results in (("web_search_draft", one), ("send_draft", one), ("delete_draft", one), ("create_drafts", rows)):
        workflow = loaded(drafted(tool(name), tool("update_draft", draft_id=TEXT), results={name: results}))
        assert sources(workflow, "update_draft", "draft_id") == ["prompt"], name


def test_a_start_takes_what_was_found_and_bounds_nothing() -> None:
    workflow = loaded(drafted(SEARCH, tool("get_order", 1, order_id=TEXT, lang=LANG), REFUND, settle=True))
    assert workflow.tools["get_order"].args["lang"].equals is None
    assert sources(workflow, "get_order", "order_id") == ["prompt", "search_orders.id", "confirmed"]
    assert all(rule.at_most is None for rule in workflow.tools["refund_order"].args.values())
    found = {
        "call": "get_order",
        "prompt": "Which hose did I order?",
        "facts": {"search_orders": {"id": "A-1"}},
        "args": {"order_id": "A-1"},
    }
    answer = Scene.of(workflow, found).decide()
    assert isinstance(answer, Eligible)
    assert answer.holds == ()
    assert isinstance(Scene.of(workflow, found).set({"args.order_id": "A-2"}).decide(), Eligible)  # asked, not refused


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"get_order": ORDER}),
        json.dumps([{"tool": "get_order", "result": ORDER, "args": {"order_id": "A-1"}}]),
        json.dumps({"tool": "get_order", "result": ORDER}) + "\n\n" + json.dumps({"steps": [{"tool": "get_order", "result": ORDER}]}),
    ],
)
def test_samples_are_read_as_recorded_calls_episodes_or_by_tool(tmp_path: Any, text: str) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    assert set(read_samples(tmp_path / "r.jsonl", ["get_order"])) == {"get_order"}


def test_of_an_mcp_servers_result_the_structured_content_is_read_and_never_its_text(tmp_path: Any) -> None:
    text = {"content": [{"type": "text", "text": '{"id": "A-1"}'}], "isError": False}
    (tmp_path / "r.json").write_text(json.dumps([{"tool": "get", "result": {**text, "structuredContent": {"id": "A-1"}}}, {"get": text}]))
    assert read_samples(tmp_path / "r.json", ["get"]) == {"get": ({"id": "A-1"}, None)}
    own = {"content": [{"id": "A-1"}]}
    (tmp_path / "r.json").write_text(json.dumps({"get": own}))
    assert read_samples(tmp_path / "r.json", ["get"]) == {"get": (own,)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"get_ordr": {}}', "did you mean 'get_order'"),
        ('{"tool": "get_order"}', "'result\": what the tool returned".replace("'", '"')),
        ('{"get_order": 1}\n{"get_order"', "r.jsonl:2"),
        ("[1]", "an object"),
        ("[]", "without a result"),
    ],
)
def test_a_file_of_something_else_is_named_with_its_place(tmp_path: Any, text: str, says: str) -> None:
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_samples(tmp_path / "r.jsonl", ["get_order"])
    assert says in str(caught.value)
