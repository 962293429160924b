"""The developer's side: `run.explain`, what is logged, what a refusal carries, and what never reaches the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from langchain.agents import create_agent
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, field_serializer
from structlog.testing import capture_logs

from agentgate import Agent, Allow, AsyncGate, Deny, Gate, Reason, StepUp, User
from agentgate.errors import ConfigError
from agentgate.explain.evidence import MASKED
from agentgate.integrations.langchain import AgentGateMiddleware, CallRefused, guard_tools, use_run, user_says
from agentgate.loading.catalog import Catalog
from tests.langchain_shop import LEE as SHOPPER
from tests.langchain_shop import ORDER, PROMPT, Script, Shop, ToolServer, calls, identify, say, tool_messages, tool_server
from tests.test_explain import LOOKED_UP, NOW, REFUND, WORKFLOW, row, way
from tests.test_explain import PROMPT as ASKED

LEE = User("lee", tenant="acme", groups=["support"])
LOOK = {"order_id": "ORD-10023344"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def gate(folder: Path) -> Iterator[Gate]:
    with Gate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: NOW) as gate:
        yield gate


def opened(gate: Gate, prompt: str = ASKED, **facts: Any) -> Any:
    run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt)
    answer = run.authorize("orders.get", LOOK, tool_call_id="look")
    assert isinstance(answer, Allow)
    with run.redeem(answer.token, tool="orders.get", args=LOOK) as call:
        call.record_result({**LOOKED_UP, **facts})
    return run


def records(gate: Gate) -> list[dict[str, Any]]:
    log: Any = gate._audit
    kept: list[dict[str, Any]] = log.records
    return kept


# --- run.explain -----------------------------------------------------------------------------------------------------------
def test_a_refused_call_is_explained_by_its_id(gate: Gate) -> None:
    run = opened(gate)
    assert isinstance(run.authorize("payments.refund", {**REFUND, "amount": "99.00"}, tool_call_id="pay"), Deny)
    found = run.explain(tool_call_id="pay")
    assert (found.decision, found.tool_call_id, found.agent) == ("deny", "pay", "agentgate: not_permitted")
    assert way(found, "args.amount", "at_most") == "amount at most 80.00 (orders.get.total of call look)"
    assert run.refusal("pay").reasons == (Reason.AT_MOST, Reason.ARGUMENT_ORIGIN)


def test_explaining_mints_nothing_and_records_nothing(gate: Gate) -> None:
    run = opened(gate)
    before = len(records(gate))
    found = run.explain("payments.refund", REFUND)
    assert (found.decision, len(records(gate))) == ("allow", before)
    assert "token" not in str(found).lower()


def test_what_the_store_refused_is_a_row(gate: Gate) -> None:
    run = opened(gate)
    answer = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(answer, Allow)
    with run.redeem(answer.token, tool="payments.refund", args=REFUND):
        pass
    assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="pay"), Deny)
    found = run.explain(tool_call_id="pay")
    assert (found.decision, found.agent) == ("deny", "agentgate: already_done")
    assert row(found, "call", "once").verdict == "failed"


def test_a_held_call_names_its_hold_and_whom_to_ask(gate: Gate) -> None:
    run = opened(gate, total="150.00")
    held = run.authorize("payments.refund", {**REFUND, "amount": "150.00"}, tool_call_id="pay")
    assert isinstance(held, StepUp)
    found = run.explain(tool_call_id="pay")
    assert found.decision == "step_up"
    assert held.hold.id in found.notes[0]
    assert way(found, "step_up.big", "step_up") == "a yes of 1 of leads, not the requester, within 600 s"


def test_a_call_nobody_made_here_is_named_as_such(gate: Gate) -> None:
    run = opened(gate)
    with pytest.raises(ConfigError, match="refused lately"):
        run.explain(tool_call_id="other")
    with pytest.raises(ConfigError, match="refused lately"):
        run.explain("payments.refund")
    assert isinstance(run.authorize("payments.refund", {**REFUND, "payee": "cus_evil"}, tool_call_id="pay"), Deny)
    with pytest.raises(ConfigError, match="refused lately"):
        run.explain("orders.get", tool_call_id="pay")  # that was a call of another tool


def test_arguments_without_a_canonical_form_are_explained_as_such(gate: Gate) -> None:
    found = opened(gate).explain("payments.refund", {"amount": float("nan")})
    assert (found.decision, found.agent) == ("deny", "agentgate: not_permitted")
    assert any(r.failures and r.failures[0].reason is Reason.INPUT for r in found.failed)


def test_only_the_newest_refusals_are_remembered(folder: Path) -> None:
    with Gate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: NOW, denials_per_run=100
    ) as gate:
        run = opened(gate)
        for number in range(40):
            run.authorize("payments.refund", {**REFUND, "payee": f"x{number}"}, tool_call_id=f"c{number}")
    assert run.refusal("c0") is None
    assert run.refusal("c39") is not None


async def test_an_awaited_run_explains_too(folder: Path) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: NOW
    ) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=ASKED)
        assert isinstance(await run.authorize("payments.refund", REFUND, tool_call_id="pay"), Deny)
        found = await run.explain(tool_call_id="pay")
        assert way(found, "payments.refund", "require 0") == "orders.get redeemed first, at most 900 s before"


# --- the decision's record -------------------------------------------------------------------------------------------------
def test_a_record_says_where_each_value_came_from(gate: Gate) -> None:
    run = opened(gate)
    run.authorize("payments.refund", {**REFUND, "reason": "it broke"}, tool_call_id="pay")
    record = records(gate)[-1]
    assert record["origins"] == {
        "order_id": "orders.get.order_id look",
        "amount": "prompt",
        "currency": "orders.get.currency look",
        "payee": "orders.get.customer look",
        "reason": "model",
    }
    assert (record["turns"], record["calls"]) == (1, 1)
    assert record["args"] == {"order_id": "ORD-10023344", "amount": "39.99", "currency": "EUR"}
    assert (set(record["hidden"]), record["lengths"]) == ({"payee", "reason"}, {"payee": 8, "reason": 8})


def test_a_refusals_record_holds_its_values_and_hides_the_sensitive_and_the_free_ones(gate: Gate) -> None:
    run = opened(gate)
    run.authorize("payments.refund", {**REFUND, "payee": "cus_evil", "reason": "a secret story"}, tool_call_id="pay")
    run.authorize("payments.refund", {**REFUND, "payee": "cus_evil", "amount": "1.00"}, tool_call_id="pay2")
    first, second = records(gate)[-2:]
    assert first["args"] == {"order_id": "ORD-10023344", "amount": "39.99", "currency": "EUR"}
    assert set(first["hidden"]) == {"payee", "reason"}
    assert first["hidden"]["payee"] == second["hidden"]["payee"]
    assert first["origins"]["payee"] == "unknown"
    assert first["at"] == NOW.isoformat()
    text = json.dumps(records(gate))
    assert "cus_evil" not in text
    assert "secret story" not in text


def test_a_structure_and_what_is_long_are_hidden(folder: Path) -> None:
    text = WORKFLOW.replace(
        "order_id: {type: id, from: [orders.get.order_id]}",
        "order_id: {type: id, from: [orders.get.order_id]}\n      items: {type: json, text: 900, from: [model], optional: true}",
    )
    (folder / "w" / "refund.yaml").write_text(text)
    with Gate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: NOW) as gate:
        run = opened(gate)
        run.authorize("payments.refund", {**REFUND, "order_id": {"secret": "story"}, "payee": ["x"]}, tool_call_id="a")
        run.authorize("payments.refund", {**REFUND, "order_id": ["x" * 600], "items": {"secret": "story"}}, tool_call_id="b")
        first, second = records(gate)[-2:]
    assert set(first["hidden"]) == {"order_id", "payee"}
    assert {"order_id", "items"} <= set(second["hidden"])
    assert "story" not in json.dumps([first["args"], second["args"]])


def test_the_hash_of_a_hidden_value_is_the_tenants_and_the_rings(gate: Gate, folder: Path) -> None:
    ring = gate._core.keys
    assert ring.masked("acme", b"x") == ring.masked("acme", b"x")
    assert len({ring.masked("acme", b"x"), ring.masked("other", b"x"), ring.masked("acme", b"y")}) == 3
    with Gate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://") as other:
        assert other._core.keys.masked("acme", b"x") != ring.masked("acme", b"x")


# --- LangChain -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def server() -> Iterator[ToolServer]:
    with tool_server() as served:
        yield served


@pytest.fixture
def shop(tmp_path: Path, server: ToolServer) -> Shop:
    return Shop(tmp_path, server)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    before = structlog.get_config()
    structlog.configure(cache_logger_on_first_use=False)
    with capture_logs() as kept:
        yield kept
    structlog.configure(**before)


def built(shop: Shop, *answers: Any, **more: Any) -> Any:
    middleware = [AgentGateMiddleware(shop.gate, workflow="shop.refund", **{"identify": identify, **more})]
    return create_agent(Script(answers=list(answers)), shop.tools, middleware=middleware, context_schema=User)


def test_a_refused_tool_call_tells_the_developer_and_not_the_model(shop: Shop, logs: list[Any]) -> None:
    out = built(shop, calls(("orders.get", {"order_id": "ORD-99999999"})), say()).invoke({"messages": user_says(PROMPT)}, context=SHOPPER)
    (told,) = (entry for entry in logs if entry["event"] == "call_refused")
    assert (told["log_level"], told["tool"], told["tool_call_id"], told["owners"]) == ("warning", "orders.get", "orders.get-0", "lee")
    assert told["reasons"][0].startswith("argument_origin: args.order_id: got (not shown), expected a value from prompt [")
    (message,) = tool_messages(out)
    assert message.content == "agentgate: not_permitted"
    everything = repr(out)
    for teaching in ("argument_origin", "expected a value", "refund.yaml", "would pass"):
        assert teaching not in everything


def test_a_refusal_without_an_id_carries_the_decision_for_the_host_only(shop: Shop, logs: list[Any]) -> None:
    run = shop.run()
    (get,) = guard_tools([shop.tool("orders.get")], run=run)
    with pytest.raises(CallRefused) as refused:
        get.invoke({"order_id": "ORD-99999999"})
    error = refused.value
    assert (str(error), error.code) == ("agentgate: not_permitted", "not_permitted")
    assert "ORD-99999999" not in repr(error)
    assert error.decision is not None
    assert error.decision.reasons == (Reason.ARGUMENT_ORIGIN,)
    assert (
        way(run.explain(tool_call_id=error.tool_call_id), "args.order_id", "from") == f"order_id {ORDER}, as the user wrote it ('{ORDER}')"
    )


def test_a_tool_without_a_run_says_how_to_give_it_one(shop: Shop, logs: list[Any]) -> None:
    (get,) = guard_tools([shop.tool("orders.get")])
    with pytest.raises(CallRefused) as refused:
        get.invoke({"order_id": ORDER})
    assert refused.value.decision is None
    assert "use_run" in logs[-1]["reasons"][0]


@pytest.mark.parametrize(
    ("more", "event"),
    [
        ({"identify": lambda _: 1 / 0}, "identity_unknown"),
        ({"identify": lambda _: ("acme", "lee", "bot")}, "identity_unknown"),
        ({"identify": lambda _: SHOPPER}, "got User; identify must return (tenant text, User"),
        ({"identify": lambda _: ("acme", SHOPPER)}, "got str, User; identify must return (tenant text, User"),
        ({"prompt": lambda _: 1 / 0}, "run_not_opened"),
        ({"identify": lambda _: ("evil", SHOPPER, identify(SHOPPER)[2])}, "run_not_opened"),
    ],
)
def test_what_kept_a_run_from_opening_is_logged(shop: Shop, logs: list[Any], more: dict[str, Any], event: str) -> None:
    out = built(shop, calls(("orders.get", {"order_id": ORDER})), say(), **more).invoke({"messages": user_says(PROMPT)}, context=SHOPPER)
    assert event in str([(entry["event"], entry.get("reasons")) for entry in logs])
    assert tool_messages(out)[0].content == "agentgate: not_permitted"


def test_a_forged_argument_is_logged_as_such(shop: Shop, logs: list[Any]) -> None:
    (get,) = guard_tools([shop.tool("orders.get")], run=shop.run())
    with pytest.raises(CallRefused):
        get.invoke({"order_id": ORDER, "tenant": "evil"})
    expected = "an argument that the model may not set: got a name that the tool does not have, expected only order_id"
    assert logs[-1]["reasons"] == [expected]


def test_a_value_outside_a_json_schema_is_logged_with_its_argument_and_rule_and_without_the_value(shop: Shop, logs: list[Any]) -> None:
    schema = {"type": "object", "properties": {"order_id": {"type": "string", "maxLength": 12}}}
    get = StructuredTool(name="orders.get", description="Look.", args_schema=schema, func=lambda order_id: order_id)
    (guarded,) = guard_tools([get], run=shop.run())
    with pytest.raises(CallRefused):
        guarded.invoke({"order_id": "ORD-10023344-secret"})
    (reason,) = logs[-1]["reasons"]
    assert reason == "args.order_id: got a value outside the tool's JSON Schema, expected what it says at properties/order_id/maxLength"


def test_a_value_that_its_json_form_does_not_give_back_is_logged_with_its_argument(shop: Shop, logs: list[Any]) -> None:
    class Order(BaseModel):
        order_id: str

        @field_serializer("order_id")
        def as_number(self, order_id: str) -> int:
            return len(order_id)

    get = StructuredTool(name="orders.get", description="Look.", args_schema=Order, func=lambda order_id: order_id)
    (guarded,) = guard_tools(get, run=shop.run())
    with pytest.raises(CallRefused):
        guarded.invoke({"order_id": ORDER})
    (reason,) = logs[-1]["reasons"]
    assert reason.startswith("args.order_id: got a value that its own JSON form does not give back")


def test_a_held_call_is_logged_with_its_hold(tmp_path: Path, server: ToolServer, logs: list[Any]) -> None:
    shop = Shop(tmp_path, server, total="150.00")
    refund = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})
    middleware = [AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify)]
    script = Script(answers=[calls(("orders.get", {"order_id": ORDER})), calls(refund), say()])
    agent: Any = create_agent(script, shop.tools, middleware=middleware, context_schema=User, checkpointer=InMemorySaver())
    out = agent.invoke({"messages": user_says(PROMPT)}, {"configurable": {"thread_id": "1"}}, context=SHOPPER)
    (told,) = (entry for entry in logs if entry["event"] == "call_held")
    assert told["hold"] == out["__interrupt__"][0].value["hold"]
    assert told["rules"] == ["big-refund"]


def test_a_gone_workflow_still_refuses_with_a_code(shop: Shop, logs: list[Any]) -> None:
    run = shop.run()
    (get,) = guard_tools([shop.tool("orders.get")], run=run)
    shop.gate.catalog.become(Catalog({}, {}))
    with pytest.raises(CallRefused), use_run(run):
        get.invoke({"order_id": ORDER})
    assert "workflow_changed" in logs[-1]["reasons"][0]


def test_a_sensitive_value_is_in_no_log(shop: Shop, gate: Gate, logs: list[Any]) -> None:
    run = opened(gate)
    run.authorize("payments.refund", {**REFUND, "payee": "cus_evil"}, tool_call_id="pay")
    assert MASKED in str(run.explain(tool_call_id="pay"))
    assert "cus_evil" not in repr(run.refusal("pay")) + str(run.explain(tool_call_id="pay"))
