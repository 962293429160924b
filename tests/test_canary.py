"""Promise 10: the token's text is in no log, trace, event, stream, checkpoint, exception or repr.

The tool server collects what it was really sent; those texts are the canaries.
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
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run as Trace
from langgraph.checkpoint.memory import InMemorySaver
from pydantic_core import to_json

from agentgate.integrations.langchain import AgentGateMiddleware, call_token
from agentgate.values.request import User
from tests.langchain_shop import LEE, ORDER, PROMPT, Script, Shop, ToolServer, calls, identify, say, tool_server

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
        seen.extend(map(repr, built.stream({"messages": [HumanMessage(PROMPT)]}, config, context=LEE, stream_mode=modes)))
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
    events = [repr(event) async for event in built.astream_events({"messages": [HumanMessage(PROMPT)]}, THREAD, context=LEE, version="v2")]
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
    out = built.invoke({"messages": [HumanMessage(PROMPT)]}, THREAD, context=LEE)
    (canary,) = texts
    assert "<CallToken txn=" in repr(out)
    assert canary not in repr(out) + every_checkpoint(saver)
