"""Spans: what is authorised, minted, redeemed and run, under the host's own; and nothing in them that a trace must not hold."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentgate import Agent, Allow, AsyncGate, Deny, StepUp, TokenRefused
from agentgate.errors import ConfigError
from agentgate.integrations.otel import OpenTelemetry
from agentgate.service.app import application
from agentgate.service.served import tracing as wanted_tracing
from agentgate.service.settings import ServiceSettings
from agentgate.shell.spans import spanned
from tests.served import in_thread
from tests.served_notes import GATE, Notes, a_place
from tests.shop import LEE, ORDER, PROMPT, REFUND, WEEKDAY, opened

CANARY = "canary-5f3a"


class Traces:
    """An SDK that keeps spans in memory."""

    def __init__(self) -> None:
        self.kept, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.tracer = provider.get_tracer("test")
        self.given = OpenTelemetry(self.tracer)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.kept.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def tree(self) -> dict[str, str]:
        """Each span's name -> its parent's."""
        names = {span.context.span_id: span.name for span in self.spans if span.context}
        return {span.name: names.get(span.parent.span_id, "?") if span.parent else "" for span in self.spans}

    def text(self) -> str:
        return "\n".join(span.to_json() for span in self.spans)


@pytest.fixture
def traces() -> Traces:
    return Traces()


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_call_is_authorised_minted_redeemed_and_run_in_spans_below_the_hosts(folder: Path, traces: Traces) -> None:
    with opened(folder, tracing=traces.given) as gate, traces.tracer.start_as_current_span("host"):
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        answer = run.authorize("orders.get", ORDER, tool_call_id="call_1")
        assert isinstance(answer, Allow)
        with run.redeem(answer.token, tool="orders.get", args=ORDER) as call, traces.tracer.start_as_current_span("the tool's own"):
            call.record_result({"total": "1.00"})
        assert trace.get_current_span().get_span_context().span_id == traces_current(traces)
    assert traces.tree() == {
        "mint orders.get": "authorize orders.get",
        "authorize orders.get": "host",
        "redeem orders.get": "host",
        "the tool's own": "execute_tool orders.get",
        "execute_tool orders.get": "host",
        "host": "",
    }
    ids = {
        "gen_ai.tool.name": "orders.get",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.agent.id": "bot",
        "gen_ai.workflow.name": "shop.refund",
        "security_rule.name": "shop.refund",
        "security_rule.version": "1",
    }
    assert said(traces.one("authorize orders.get")) == {**ids, "agentgate.decision": "allow"}
    assert said(traces.one("mint orders.get")) == {**ids, "agentgate.decision": "allow"}
    assert said(traces.one("redeem orders.get")) == ids
    assert said(traces.one("execute_tool orders.get")) == {**ids, "gen_ai.operation.name": "execute_tool"}
    assert all(span.status.status_code is trace.StatusCode.UNSET for span in traces.spans)


def traces_current(traces: Traces) -> int:
    """The span that is current again after a call: the host's, which has not ended."""
    (parent,) = {span.parent.span_id for span in traces.spans if span.parent and span.name.startswith("execute_tool")}
    return parent


def test_a_refusal_has_its_reason_and_a_held_call_none(folder: Path, traces: Traces) -> None:
    with opened(folder, tracing=traces.given) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert isinstance(run.authorize("payments.refund", REFUND), Deny)
        assert said(traces.one("authorize payments.refund"))["error.type"] == "at_most"
        looked = run.authorize("orders.get", ORDER, tool_call_id="a")
        assert isinstance(looked, Allow)
        with pytest.raises(TokenRefused):
            run.redeem(looked.token, tool="orders.get", args={"order_id": "ORD-99999999"})
        refused = traces.one("redeem orders.get")
        assert (said(refused), refused.status.status_code) == (
            {"gen_ai.tool.name": "orders.get", "error.type": "arguments"},
            trace.StatusCode.ERROR,
        )
        with run.redeem(looked.token, tool="orders.get", args=ORDER) as call:
            call.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1"})
        traces.kept.clear()
        held = run.authorize("payments.refund", {**REFUND, "amount": "150.00"})
        assert isinstance(held, StepUp)
        assert said(traces.one("mint payments.refund"))["agentgate.decision"] == "stepup"
        assert "error.type" not in said(traces.one("authorize payments.refund"))


def test_nothing_of_prompt_arguments_results_tokens_or_exceptions_is_in_a_span(folder: Path, traces: Traces) -> None:
    with opened(folder, tracing=traces.given) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=f"{PROMPT} {CANARY}")
        run.authorize(CANARY, {CANARY: CANARY})
        run.authorize("orders.get", {"order_id": CANARY, CANARY: CANARY})
        answer = run.authorize("orders.get", ORDER)
        assert isinstance(answer, Allow)
        text = answer.token.reveal()

        def tool() -> None:
            with run.redeem(answer.token, tool="orders.get", args=ORDER) as call:
                call.record_result({"total": CANARY})
                raise ValueError(CANARY)

        with pytest.raises(ValueError, match=CANARY):
            tool()
        with pytest.raises(TokenRefused):
            gate.verifier(gate.issuer, tenants=["acme"]).redeem(f"{CANARY}.x.y", tool="orders.get", args={"order_id": CANARY})
    assert said(traces.one("execute_tool orders.get"))["error.type"] == "ValueError"
    assert {span.name for span in traces.spans if "authorize" in span.name} == {"authorize unknown", "authorize orders.get"}
    shown = traces.text()
    assert len(traces.spans) >= 6
    assert not [part for part in (CANARY, *text.split("."), ORDER["order_id"], PROMPT) if part in shown]


async def test_calls_at_once_have_spans_of_their_own(folder: Path, traces: Traces) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer=GATE, audit="memory://", clock=lambda: WEEKDAY, tracing=traces.given
    ) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)

        async def one(name: str) -> None:
            with traces.tracer.start_as_current_span(name):
                answer = await run.authorize("orders.get", ORDER, tool_call_id=name)
                assert isinstance(answer, Allow)
                async with await run.redeem(answer.token, tool="orders.get", args=ORDER):
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(one(f"host-{n}") for n in range(5)))
    hosts = {span.context.span_id: span.name for span in traces.spans if span.context and span.name.startswith("host-")}
    calls = [span for span in traces.spans if span.name in {"authorize orders.get", "execute_tool orders.get"}]
    assert len(calls) == 10
    assert all(span.parent and hosts[span.parent.span_id] == said(span)["gen_ai.tool.call.id"] for span in calls)


def test_a_flow_that_is_given_up_ends_its_span_and_leaves_the_hosts_current(traces: Traces) -> None:
    def flow() -> Any:
        yield "a step"

    before = trace.get_current_span()
    steps = spanned(traces.given, "redeem x", {}, flow(), lambda _: ({}, ""))
    next(steps)
    assert trace.get_current_span() is not before
    steps.close()
    assert (said(traces.one("redeem x")), trace.get_current_span()) == ({"error.type": "cancelled"}, before)


# --- the service ------------------------------------------------------------------------------------------------------------------


class Local:
    """A gate served by a thread of this process, as its clients see it."""

    def __init__(self, port: int) -> None:
        self.issuer, self.http = GATE, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)


@pytest.fixture
def notes(tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notes]:
    monkeypatch.setattr("agentgate.integrations.otel.trace.get_tracer", lambda _: traces.tracer)
    with a_place(tmp_path) as place, in_thread(application(ServiceSettings(**place.settings, traces=True))) as port:
        local: Any = Local(port)
        yield Notes(place, local)
        local.http.close()


def test_a_request_is_a_server_span_below_the_callers_and_holds_no_header_query_or_body(notes: Notes, traces: Traces) -> None:
    caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": f"k={CANARY}", "X-Odd": CANARY}
    notes.ask()
    traces.kept.clear()
    answer = notes.asking.ask(notes.form(CANARY), caller)
    token = answer.json()["access_token"]
    redeemed = notes.server.post("/v1/redeem", {"token": token, "tool": "notes.write", "arguments": {"text": CANARY}}, **caller)
    assert redeemed.status_code == 401  # its proof is missing
    notes.server.post("/v1/redeem", {"token": token, "tool": CANARY, "arguments": {}}, **caller)
    notes.gate.http.post(f"/v1/calls/{CANARY}/outcome?{CANARY}", content=CANARY, headers={"Authorization": f"Bearer {CANARY}"})
    notes.gate.http.get(f"/{CANARY}")
    assert traces.tree() == {
        "mint notes.write": "authorize notes.write",
        "authorize notes.write": "POST /oauth2/token",
        "POST /oauth2/token": "?",
        "redeem notes.write": "POST /v1/redeem",
        "redeem unknown": "POST /v1/redeem",
        "POST /v1/redeem": "?",
        "POST /v1/calls/{txn}/outcome": "",
        "GET (none)": "",
    }
    served = traces.one("POST /oauth2/token")
    assert served.parent is not None
    assert (f"{served.parent.trace_id:x}", f"{served.parent.span_id:x}") == ("af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert (served.kind, said(served)) == (
        trace.SpanKind.SERVER,
        {"http.request.method": "POST", "http.route": "/oauth2/token", "http.response.status_code": 200},
    )
    assert [said(span)["error.type"] for span in traces.spans if span.name == "POST /v1/redeem"] == ["proof_missing"] * 2
    shown = traces.text()
    assert not [part for part in (CANARY, *token.split(".")) if part in shown]


def test_without_traces_no_span_is_made_and_opentelemetry_is_not_imported() -> None:
    code = "import sys, agentgate.gate.gate, agentgate.redemption.verifier; assert 'opentelemetry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert wanted_tracing(wanted=False) is None


def test_traces_without_the_extra_are_a_setting_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "agentgate.integrations.otel", None)
    with pytest.raises(ConfigError, match=r"\.\[otel\]"):
        wanted_tracing(wanted=True)
