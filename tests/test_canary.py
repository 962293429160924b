"""Promise 10: the token's text is in no log, trace, event, stream, checkpoint, exception or repr; nor is what was refused in record or log.

The tool server collects what it was really sent; those texts are the canaries of the token.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tools import StructuredTool, tool
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run as Trace
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt.tool_node import ToolCallRequest
from pydantic_core import to_json

from agentgate import Agent, Allow, Deny, Gate, StepUp, User
from agentgate.integrations.langchain import AgentGateMiddleware, call_token, guard_tools
from tests.langchain_shop import LEE, ORDER, PROMPT, Script, Shop, ToolServer, calls, identify, say, tool_server, vouched

GET = ("orders.get", {"order_id": ORDER})
REFUND = ("payments.refund", {"order_id": ORDER, "amount": "39.90", "currency": "EUR"})
THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with tool_server() as served:
        yield served


class Tracer(BaseTracer):
    """Keeps every trace whole, as a tracing service would."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def _persist_run(self, run: Trace) -> None:
        self.kept.append(to_json(run, fallback=repr, serialize_unknown=True).decode())
        self.kept.append(repr(run))


class Callbacks(BaseCallbackHandler):
    """Keeps the arguments of every event."""

    raise_error = True

    def __init__(self) -> None:
        self.kept: list[str] = []

    def _keep(self, *args: Any, **kwargs: Any) -> None:
        self.kept.append(repr((args, kwargs)))

    on_chain_start = on_chain_end = on_chain_error = on_tool_start = on_tool_end = on_tool_error = _keep
    on_chat_model_start = on_llm_end = on_llm_error = on_custom_event = on_text = on_retry = _keep


def every_checkpoint(saver: InMemorySaver) -> str:
    kept = [repr(saved) for saved in saver.list(THREAD)]
    return "".join([*kept, repr(dict(saver.storage)), repr(dict(saver.blobs)), repr(dict(saver.writes))])


def holding(shop: Shop, *, then_fail: bool) -> Any:
    """The refund tool, with a local variable that holds the opaque token while it fails."""
    real: Any = shop.tool("payments.refund")
    pay = real.func

    def refund(**values: Any) -> str:
        held = call_token()
        paid = str(pay(**values))
        if then_fail:
            raise OSError(f"lost after {paid} with {held} {held!r} {held:>10}")
        return paid

    return real.model_copy(update={"func": refund})


def agent_of(shop: Shop, *, then_fail: bool, saver: InMemorySaver) -> Any:
    tools = [shop.tool("orders.get"), holding(shop, then_fail=then_fail)]
    middleware = [AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify)]
    return create_agent(
        Script(answers=[calls(GET), calls(REFUND), say()]), tools, middleware=middleware, context_schema=User, checkpointer=saver
    )


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """Everything logged: the standard library at DEBUG, and structlog with tracebacks."""
    stream = io.StringIO()
    caplog.set_level(logging.DEBUG)
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    yield stream
    structlog.configure(**before)


@pytest.mark.parametrize("then_fail", [False, True], ids=["the tool succeeds", "the tool fails"])
def test_the_token_is_nowhere(
    tmp_path: Path,
    server: ToolServer,
    logs: io.StringIO,
    caplog: pytest.LogCaptureFixture,
    then_fail: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    shop, saver, tracer, callbacks = Shop(tmp_path, server), InMemorySaver(), Tracer(), Callbacks()
    built = agent_of(shop, then_fail=then_fail, saver=saver)
    seen: list[str] = []
    config = {**THREAD, "callbacks": [tracer, callbacks]}
    try:
        modes = ["values", "updates", "debug", "messages", "custom"]
        seen.extend(map(repr, built.stream({"messages": vouched(PROMPT)}, config, context=LEE, stream_mode=modes)))
    except OSError as error:
        seen.append("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))
        structlog.get_logger("test").exception("failed", exc_info=error)
    assert len(server.paid) == 1
    (canary,) = server.tokens
    sinks = {
        "stream and traceback": "".join(seen),
        "traces": "".join(tracer.kept),
        "events": "".join(callbacks.kept),
        "checkpoints": every_checkpoint(saver),
        "structlog": logs.getvalue(),
        "logging": caplog.text + "".join(repr(r.__dict__) for r in caplog.records),
        "audit": json.dumps(shop.records),
    }
    for name, text in sinks.items():
        for part in (canary, *canary.split(".")[1:]):
            assert part not in text, name
    for name in ("stream and traceback", "traces", "events", "checkpoints", "audit"):
        assert ("orders.get" if name == "audit" else ORDER) in sinks[name], f"{name} recorded nothing"


async def test_the_token_is_in_no_event_of_an_awaited_agent(tmp_path: Path, server: ToolServer) -> None:
    shop, saver = Shop(tmp_path, server), InMemorySaver()
    built = agent_of(shop, then_fail=False, saver=saver)
    events = [repr(event) async for event in built.astream_events({"messages": vouched(PROMPT)}, THREAD, context=LEE, version="v2")]
    (canary,) = server.tokens
    assert ORDER in "".join(events)
    assert canary not in "".join(events) + every_checkpoint(saver)


def test_a_token_that_a_tool_returns_is_only_its_name(tmp_path: Path, server: ToolServer) -> None:
    shop, saver = Shop(tmp_path, server), InMemorySaver()
    texts: list[str] = []

    @tool("payments.refund", args_schema=shop.tool("payments.refund").args_schema)
    def leaky(**values: Any) -> Any:
        """Give money back."""
        token = call_token()
        texts.append(token.reveal())
        for sink in (copy.copy, copy.deepcopy, pickle.dumps, json.dumps):
            with pytest.raises(TypeError):
                sink(token)
        return token

    built = create_agent(
        Script(answers=[calls(GET), calls(REFUND), say()]),
        [shop.tool("orders.get"), leaky],
        middleware=[AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify)],
        context_schema=User,
        checkpointer=saver,
    )
    out = built.invoke({"messages": vouched(PROMPT)}, THREAD, context=LEE)
    (canary,) = texts
    assert "<CallToken txn=" in repr(out)
    assert canary not in repr(out) + every_checkpoint(saver)


LOOSE = {"type": "object", "properties": {"order_id": {}, "text": {"type": "string"}, "more": {}}, "additionalProperties": True}
SECRET = "Zebra-4711-canary"  # what no sink outside the process may show of a refused call
CANARIES: dict[str, tuple[str, dict[str, Any]]] = {
    "a free text": ("notes.add", {"order_id": ORDER, "text": SECRET + " to eve@evil.example"}),
    "a free text that is too long": ("notes.add", {"order_id": ORDER, "text": SECRET * 20}),
    "an address in a free text": ("notes.add", {"order_id": ORDER, "text": f"send it to {SECRET}@evil.example".lower()}),
    "a value outside its pattern": ("orders.get", {"order_id": SECRET}),
    "a text where a number is expected": ("notes.add", {"order_id": ORDER, "text": "x", "times": SECRET}),
    "a value of another form": ("orders.get", {"order_id": {"id": SECRET}}),
    "a sensitive value": ("secrets.set", {"pin": SECRET}),
    "a key in a structure": ("orders.get", {"order_id": {SECRET: 1}}),
    "an unknown argument": ("orders.get", {"order_id": ORDER, SECRET: "x"}),
    "the value of an unknown argument": ("orders.get", {"order_id": ORDER, "more": SECRET}),
    "many unknown arguments": ("orders.get", {"order_id": ORDER, **{f"{SECRET}{n}": n for n in range(200)}}),
    "an unknown tool": (SECRET, {"order_id": ORDER}),
    "a name without a canonical form": ("orders.get", {"order_id": ORDER, SECRET: 2**60}),
    "a key above a number without a canonical form": ("orders.get", {"order_id": {SECRET: 2**60}}),
    "a tool's name that is none": (SECRET + "\n", {"order_id": ORDER}),
}


@pytest.fixture
def shop(tmp_path: Path, server: ToolServer) -> Shop:
    made = Shop(tmp_path, server)
    text = (made.directory / "refund.yaml").read_text()
    pin = "    args: {pin: {pattern: '[0-9]{4}', from: [prompt], sensitive: true}}\n"
    pin = "  secrets.set:\n    effect: write\n    needs: [refund]\n    redeem: wrapper\n" + pin
    (made.directory / "refund.yaml").write_text(text.replace("step_up:\n", pin + "step_up:\n", 1))
    made.gate = Gate.open_unsafe_unapproved(made.directory, issuer=made.gate.issuer, audit="memory://")
    return made


def gone(sink: str) -> bool:
    return SECRET.lower() not in sink.lower()


@pytest.mark.parametrize("canary", CANARIES)
def test_what_was_refused_is_in_no_audit_record_and_in_full_in_process(shop: Shop, canary: str) -> None:
    tool, args = CANARIES[canary]
    decision = shop.run().authorize(tool, args, tool_call_id="call")
    assert isinstance(decision, Deny)
    record = shop.records[-1]
    assert (record["decision"], len(record["reasons"]) > 0) == ("deny", True)
    assert gone(json.dumps(shop.records))
    assert gone(str(decision.code))


def test_in_process_a_failure_is_whole(shop: Shop) -> None:
    run = shop.run()
    for canary in ("a free text that is too long", "a value outside its pattern", "an unknown argument", "an unknown tool"):
        tool, args = CANARIES[canary]
        assert not gone(str(run.explain(tool, args))), canary


@pytest.mark.parametrize("canary", [name for name, (tool, _) in CANARIES.items() if tool in {"orders.get", "notes.add"}])
def test_what_was_refused_is_in_no_log_and_no_answer_to_the_model(
    shop: Shop, logs: io.StringIO, caplog: pytest.LogCaptureFixture, canary: str
) -> None:
    name, args = CANARIES[canary]
    (guarded,) = guard_tools([StructuredTool.from_function(print, name=name, description="x", args_schema=LOOSE)], run=shop.run())
    answer = guarded.invoke({"name": name, "args": args, "id": "call", "type": "tool_call"})
    assert answer.content.startswith("agentgate: ")
    assert "call_refused" in logs.getvalue()
    for sink in (logs.getvalue(), caplog.text, json.dumps(shop.records), repr(answer)):
        assert gone(sink)


def test_a_number_without_a_canonical_form_is_in_no_log(shop: Shop, logs: io.StringIO) -> None:
    (guarded,) = guard_tools([StructuredTool.from_function(print, name="orders.get", description="x", args_schema=LOOSE)], run=shop.run())
    guarded.invoke({"name": "orders.get", "args": {"order_id": 4.711e30}, "id": "call", "type": "tool_call"})
    assert "args.order_id: got a larger number" in logs.getvalue()
    assert "4.711" not in logs.getvalue()


def test_a_tool_that_the_model_made_up_is_in_no_log(shop: Shop, logs: io.StringIO) -> None:
    middleware = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify)
    with middleware._bound(ToolCallRequest({"name": SECRET, "args": {}, "id": "1"}, None, {}, Any), None) as answer:  # type: ignore[arg-type]  # no runtime is looked at
        assert answer.content == "agentgate: not_permitted"  # type: ignore[union-attr]  # a refusal
    assert "call_refused" in logs.getvalue()
    assert gone(logs.getvalue())


def test_a_hold_says_no_value_that_it_does_not_show(shop: Shop) -> None:
    """The amount asks; where the rule shows only the order, the reason is without the amount."""
    for shown, expected in (("order_id, amount, currency", "above 100.00"), ("order_id", "not shown")):
        text = (shop.directory / "refund.yaml").read_text()
        (shop.directory / "refund.yaml").write_text(text.replace("show: [order_id, amount, currency]", f"show: [{shown}]"))
        gate = Gate.open_unsafe_unapproved(shop.directory, issuer=shop.gate.issuer, audit="memory://")
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("desk"), prompt=PROMPT)
        look = run.authorize("orders.get", {"order_id": ORDER})
        assert isinstance(look, Allow)
        with run.redeem(look.token, tool="orders.get", args={"order_id": ORDER}) as call:
            call.record_result({"order_id": ORDER, "total": "150.00", "currency": "EUR"})
        definition = gate._core.catalog.get("shop.refund").tools["payments.refund"].definition  # type: ignore[union-attr]  # it is loaded
        held = run.authorize("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"}, definition=definition)
        assert isinstance(held, StepUp)
        assert expected in "".join(held.hold.why)
        assert "150.00" not in json.dumps(gate._audit.records[-1]["reasons"])  # type: ignore[attr-defined]  # in memory
