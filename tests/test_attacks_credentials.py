"""The upstream credential is in no sink of the agent's process; what a tool gives away by accident is noticed and withheld."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import traceback
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import CellType
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from agentgate import AsyncGate, Gate, NotDone
from agentgate.errors import UpstreamRefused
from agentgate.integrations.langchain import guard_tools, upstream_credential
from agentgate.redemption.credential import UpstreamCredential
from agentgate.values.leaks import MAX_PARTS, forms, holds
from tests.langchain_shop import Script, calls, say
from tests.test_canary import THREAD, Callbacks, Tracer, every_checkpoint, logs
from tests.upstream import CANARY, Bank, opened, records, run_of, written

__all__ = ["logs"]  # a fixture
CALL = {"name": "pay", "args": {"order": "ORD-1"}, "id": "c1", "type": "tool_call"}


def tool(body: Callable[..., Any], name: str = "pay") -> BaseTool:
    schema = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
    return StructuredTool.from_function(body, name=name, description="Pay.", args_schema=schema)


def pays(order: str) -> dict[str, str]:
    """A careful tool: the bank's API gets the credential, and nobody else."""
    sent = {"Authorization": f"Bearer {upstream_credential().reveal()}"}
    return {"id": f"re_{len(sent['Authorization'])}", "order": order}


def invoked(gate: Gate, body: Callable[..., Any], name: str = "pay") -> Any:
    (guarded,) = guard_tools(tool(body, name), run=run_of(gate))
    return guarded.invoke({**CALL, "name": name})


def outcome(gate: Gate) -> tuple[str, bool]:
    (found,) = [r for r in records(gate) if r["type"] == "outcome"]
    return found["outcome"], found.get("withheld", False)


# the sinks


def fails(order: str) -> str:
    held = upstream_credential().reveal()
    raise OSError(f"the bank is closed for {order} ({len(held)})")


@pytest.mark.parametrize("body", [pays, fails], ids=["the tool succeeds", "the tool fails"])
def test_the_credential_is_in_no_sink(tmp_path: Path, logs: Any, caplog: pytest.LogCaptureFixture, body: Any) -> None:
    saver, tracer, callbacks, bank = InMemorySaver(), Tracer(), Callbacks(), Bank()
    with opened(tmp_path, {"bank": bank}) as gate:
        run = run_of(gate)
        answers = [calls(("pay", {"order": "ORD-1"})), say()]
        agent = create_agent(Script(answers=answers), guard_tools([tool(body)], run=run), checkpointer=saver)
        seen: list[str] = []
        ended = None
        config: Any = {**THREAD, "callbacks": [tracer, callbacks]}
        try:
            modes: Any = ["values", "updates", "debug", "messages", "custom"]
            seen.extend(map(repr, agent.stream({"messages": [HumanMessage("pay")]}, config, stream_mode=modes)))
        except OSError as error:
            ended = type(error).__name__
            seen.append("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))
            seen.append(repr(error.__traceback__))
            structlog.get_logger("test").exception("failed", exc_info=error)
            logging.getLogger("test").exception("failed", exc_info=error)
        assert (len(bank.asked), ended) == (1, None if body is pays else "OSError")
        state = "".join(map(repr, (run, vars(run), run._view, run._redeemed, gate._core, vars(gate), gate._core.brokers)))
        sinks = {
            "stream and traceback": "".join(seen),
            "traces": "".join(tracer.kept),
            "events": "".join(callbacks.kept),
            "checkpoints": every_checkpoint(saver),
            "structlog": logs.getvalue(),
            "logging": caplog.text + "".join(repr(r.__dict__) for r in caplog.records),
            "audit": json.dumps(records(gate)),
            "the run's and the gate's state": state,
        }
        for name, text in sinks.items():
            for form in forms(CANARY):
                assert form not in text, name
        for name in ("stream and traceback", "traces", "events", "checkpoints"):
            assert "ORD-1" in sinks[name], f"{name} recorded nothing"
        with pytest.raises(UpstreamRefused):
            bank.given[0].reveal()


def test_the_agents_process_keeps_nothing_of_it(tmp_path: Path) -> None:
    """A search of all that the garbage collector knows, as a memory dump would be searched: strings in containers, closures and frames."""
    import gc

    class Fresh(Bank):
        def fetch(self, call: Any) -> UpstreamCredential:
            return UpstreamCredential({"key": f"canary-in-memory-{call.claims.jti}"})

    with opened(tmp_path, {"bank": Fresh()}) as gate:
        seen: list[int] = []

        def pay(order: str) -> str:
            seen.append(len(upstream_credential().reveal()))
            return order

        assert invoked(gate, pay).content == "ORD-1"
        gc.collect()
        found = [type(each).__name__ for each in gc.get_objects() for part in _texts(each) if part.startswith("canary-in-" + "memory-")]
        assert (seen, found) == ([len("canary-in-memory-") + 32], [])


def _texts(each: Any) -> list[str]:
    inside: list[Any] = []
    with suppress(ValueError):  # an empty cell
        inside = [each.cell_contents] if type(each) is CellType else []
    inside += each.values() if type(each) is dict else each if type(each) in {list, tuple} else []
    return [part for part in inside if type(part) is str]


def test_outside_of_the_tool_there_is_none(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}) as gate:
        kept: list[UpstreamCredential] = []

        def pay(order: str) -> str:
            kept.append(upstream_credential())
            return order

        invoked(gate, pay)
        with pytest.raises(LookupError):
            upstream_credential()
        with pytest.raises(UpstreamRefused):
            kept[0].reveal()


def test_a_nested_tool_sees_no_credential_of_the_tool_around_it(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}):
        seen: list[str] = []

        def inner(order: str) -> str:
            try:
                upstream_credential()
            except LookupError:
                seen.append("none")
            return order

        remote = tool(inner, "remote")
        text = (tmp_path / "w" / "pay.yaml").read_text()
        from agentgate.integrations.langchain import definition_of

        (tmp_path / "w" / "pay.yaml").write_text(text.replace("sha256:" + "0" * 64, definition_of(remote)))
        gate = Gate.open_unsafe_unapproved(tmp_path / "w", issuer="https://gate.example", audit="memory://", brokers={"bank": Bank()})
        run = run_of(gate)
        (guarded,) = guard_tools(remote, run=run)

        def outer(order: str) -> str:
            upstream_credential()
            guarded.invoke({**CALL, "name": "remote", "id": "inner"})
            return order

        (around,) = guard_tools(tool(outer), run=run)
        assert around.invoke(CALL).content == "ORD-1"
        assert seen == ["none"]


async def test_an_awaited_tool_gets_its_credential_and_its_leak_is_withheld(tmp_path: Path) -> None:
    from agentgate import Agent

    bank = Bank()
    given: Any = {"issuer": "https://gate.example", "audit": "memory://", "brokers": {"bank": bank}}
    async with await AsyncGate.open_unsafe_unapproved(written(tmp_path, "{broker: bank, role: writer}"), **given) as gate:
        run = await gate.open_run("shop.pay", tenant="acme", user=None, agent=Agent("bot"), prompt="")

        async def pay(order: str) -> str:
            return f"{order} {upstream_credential().reveal()}"

        schema = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
        (guarded,) = guard_tools(StructuredTool.from_function(coroutine=pay, name="pay", description="Pay.", args_schema=schema), run=run)
        answer = await guarded.ainvoke(CALL)
        assert answer.content == "agentgate: already_done"
        assert bank.ended == 1


# no credential, no tool


def test_without_a_credential_the_tool_does_not_run(tmp_path: Path) -> None:
    ran: list[str] = []
    with opened(tmp_path, {"bank": None}) as gate:
        assert invoked(gate, ran.append).content == "agentgate: unavailable"
        assert ran == []
        assert {each["type"] for each in records(gate)} & {"redemption", "outcome"} == set()  # its token is not even burned


# a tool that returns it


class Paid(BaseModel):
    debug: Any


@dataclass
class Receipt:
    note: Any


class Odd:
    __slots__ = ("_note",)

    def __init__(self, note: Any) -> None:
        self._note = note


class Says:
    def __init__(self, note: str) -> None:
        self._say = lambda: note

    def __str__(self) -> str:
        return self._say()


RETURNS: dict[str, Callable[[str], Any]] = {
    "as it is": lambda s: s,
    "inside a text": lambda s: f"curl -H 'Authorization: Bearer {s}' https://bank.example",
    "deep inside": lambda s: {"a": [{"b": ({"c": [s]},)}]},
    "as a key": lambda s: {"a": {s: 1}},
    "in a set": lambda s: {"x", s},
    "as bytes": lambda s: {"raw": s.encode()},
    "in JSON": lambda s: json.dumps({"headers": {"x": s}}),
    "in base64": lambda s: base64.b64encode(s.encode()).decode(),
    "in base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
    "in a Basic header": lambda s: "Basic " + base64.b64encode(f"lee:{s}".encode()).decode(),
    "in base64 with lines": lambda s: base64.encodebytes(("x" * 70 + s + "y" * 70).encode()).decode(),
    "in a URL": lambda s: "https://bank.example/?" + urllib.parse.urlencode({"key": s}),
    "in a path": lambda s: "https://bank.example/" + urllib.parse.quote(s, safe=""),
    "percent-encoded in lower case": lambda s: urllib.parse.quote(s, safe="").lower() if s.islower() else urllib.parse.quote(s, safe=""),
    "in hexadecimal": lambda s: s.encode().hex(),
    "in a model": lambda s: Paid(debug={"k": s}),
    "in a dataclass": lambda s: Receipt([s]),
    "in slots": Odd,
    "in its text form": Says,
    "in an exception": lambda s: {"error": ValueError(f"bad key {s}")},
    "in a message": lambda s: ToolMessage(content="ok", artifact={"key": s}, tool_call_id="c1"),
    "in an HTTP response": lambda s: httpx.Response(200, request=httpx.Request("GET", "https://b.example", headers={"X": s})),
}


@pytest.mark.parametrize("how", RETURNS)
def test_a_result_that_holds_the_credential_is_withheld(tmp_path: Path, how: str, logs: Any) -> None:
    with opened(tmp_path, {"bank": Bank()}) as gate:
        answer = invoked(gate, lambda order: RETURNS[how](upstream_credential().reveal()))
        closed = {"type": "agentgate.refused", "code": "already_done", "hold": "", "until": ""}
        assert (answer.content, answer.status, answer.artifact) == ("agentgate: already_done", "error", closed)
        assert outcome(gate) == ("done", True)
        assert "holds its upstream credential" in logs.getvalue()
        for sink in (repr(answer), logs.getvalue(), json.dumps(records(gate))):
            assert not holds(sink, [CANARY])


@pytest.mark.parametrize(
    "value", ["ORD-1", {"id": "re_1", "n": [1, 2.5, None, True]}, b"\xff\x00", Paid(debug=1), CANARY[:-1], [CANARY[1:]]], ids=repr
)
def test_a_result_without_it_goes_through(value: Any) -> None:
    assert not holds(value, [CANARY])


def test_what_cannot_be_looked_through_counts_as_holding_it() -> None:
    assert holds([[i] for i in range(MAX_PARTS)], [CANARY])
    circle: list[Any] = []
    circle.append(circle)
    assert not holds(circle, [CANARY])


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=60), st.binary(max_size=9), st.binary(max_size=9))
def test_a_secret_is_found_wherever_it_begins_in_base64(secret: str, before: bytes, behind: bytes) -> None:
    text = base64.b64encode(before + secret.encode() + behind).decode()
    assert holds({"a": [text]}, [secret])
    assert holds(urllib.parse.quote(secret, safe=""), [secret])
    assert holds(urllib.parse.quote_plus(secret), [secret]) or " " in secret
    assert holds(json.dumps([secret]), [secret])
    assert holds(repr([secret]), [secret])


# a tool that raises it


def http_error(secret: str) -> Exception:
    request = httpx.Request("POST", "https://bank.example", headers={"Authorization": f"Bearer {secret}"})
    return httpx.HTTPStatusError("401", request=request, response=httpx.Response(401, request=request))


def noted(secret: str) -> Exception:
    error = OSError("failed")
    error.add_note(secret)
    return error


RAISES: dict[str, Callable[[str], BaseException]] = {
    "in its text": lambda s: OSError(f"bad key {s}"),
    "in its request": http_error,
    "in a note": noted,
    "in a group": lambda s: ExceptionGroup("several", [ValueError(s), OSError()]),
    "in a tool's own error": lambda s: ToolException(f"bad key {s}"),
    "in an interrupt": KeyboardInterrupt,
}


@pytest.mark.parametrize("how", RAISES)
def test_an_exception_that_holds_the_credential_reaches_nobody(tmp_path: Path, how: str, logs: Any) -> None:
    def pay(order: str) -> str:
        raise RAISES[how](upstream_credential().reveal())

    with opened(tmp_path, {"bank": Bank()}) as gate:
        answer = invoked(gate, pay)
        assert (answer.content, answer.status) == ("agentgate: outcome_unknown", "error")
        assert outcome(gate) == ("unknown", True)
        for sink in (repr(answer), logs.getvalue(), json.dumps(records(gate))):
            assert not holds(sink, [CANARY])


def test_a_cause_that_holds_it_is_cut_off(tmp_path: Path) -> None:
    def pay(order: str) -> str:
        try:
            return str(int(upstream_credential().reveal()))  # ValueError, with the text in it
        except ValueError:
            raise OSError("closed")  # noqa: B904 - its context is the leak

    with opened(tmp_path, {"bank": Bank()}) as gate:
        assert invoked(gate, pay).content == "agentgate: outcome_unknown"


def test_nothing_happened_stays_so(tmp_path: Path) -> None:
    def pay(order: str) -> str:
        raise NotDone(f"declined {upstream_credential().reveal()}")

    with opened(tmp_path, {"bank": Bank()}) as gate:
        assert invoked(gate, pay).content == "agentgate: failed"
        (found,) = [r for r in records(gate) if r["type"] == "outcome"]
        assert found["outcome"] == "failed"


def test_an_opaque_credential_that_a_tool_returns_is_only_its_name(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}) as gate:
        answer = invoked(gate, lambda order: upstream_credential())
        assert "UpstreamCredential key" in answer.content
        assert not holds(pickle.dumps(answer), [CANARY])
