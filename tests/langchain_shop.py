"""A small shop for the LangChain tests: workflow, tools, a scripted model, and a real tool server on loopback."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool
from pydantic import PrivateAttr

from agentgate.errors import TokenRefused
from agentgate.gate.gate import Gate
from agentgate.gate.run import Run
from agentgate.integrations.langchain import call_token, definition_of, user_says
from agentgate.redemption.verifier import Verifier
from agentgate.token.dpop import DPoP
from agentgate.values.request import Agent, User

ISSUER = "https://gate.acme.example"
LEE = User("lee", tenant="acme", groups=["support"])
LEAD = User("kim", tenant="acme", groups=["leads"])
DESK = Agent("desk")
PROMPT = "Please refund order ORD-10023344, it arrived broken"
ORDER = "ORD-10023344"
DENIED = "agentgate: not_permitted"
REFUSED = "agentgate: refused"
INVALID = "agentgate: invalid_arguments"

WORKFLOW = """\
agentgate: workflow/v1
id: shop.refund
version: 1
title: Support refunds an order that the customer names
owners: [lee]
risk: low
expires: "2027-05-31"
tenants: [acme]
who: {{agent: {{in_process: true}}, for_user: {{same_tenant: true}}}}
intents:
  refund:
    asks_for: Give a customer money back for an order they name.
    words: [refund, reimburse, money back]
    unclear: deny
    examples:
      - Please refund order ORD-10023344, it arrived broken
      - Customer wants their money back for ORD-10023344
    counter_examples:
      - What is the status of ORD-10023344?
      - Refund all orders from last week
tools:
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {{order_id: {{type: id, pattern: 'ORD-[0-9]{{8}}', from: [prompt]}}}}
    facts:
      total: {{type: money, currency: currency}}
      currency: {{type: text}}
  notes.add:
    effect: write
    needs: [refund]
    redeem: wrapper
    args:
      order_id: {{type: id, pattern: 'ORD-[0-9]{{8}}', from: [prompt]}}
      text: {{text: 200, from: [model], entities: [prompt]}}
      times: {{min: "1", max: "3", from: [model], optional: true}}
  delegate:
    effect: read
    needs: any
    redeem: wrapper
    args: {{task: {{text: 200}}}}
  payments.refund:
    effect: write
    needs: [refund]
    audience: {audience}
    scope: [refunds:create]
    definition: {definition}
    redeem: server
    args:
      order_id: {{type: id, pattern: 'ORD-[0-9]{{8}}', from: [orders.get.order_id]}}
      amount: {{type: money, currency: currency, min: "0.01", max: "500.00", at_most: orders.get.total, from: [prompt, orders.get.total]}}
      currency: {{in: [EUR], from: [orders.get.currency]}}
step_up:
  - id: big-refund
    for: payments.refund
    when: {{amount: {{above: "100.00"}}}}
    approvers: {{group: leads, count: 1, not: [requester]}}
    timeout: 10m
    show: [order_id, amount, currency]
token: {{ttl: 60s, uses: 1, bound_to: [call, agent_key]}}
"""


class Script(BaseChatModel):
    """A chat model that says what it is told, in order; `seen` is what it was given."""

    answers: list[AIMessage]
    _seen: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _tools: list[Any] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "script"

    @property
    def seen(self) -> list[list[BaseMessage]]:
        """The messages of each call."""
        return self._seen

    @property
    def bound(self) -> list[Any]:
        """The tools of the last call."""
        return self._tools

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:  # noqa: ARG002 - the base class names it
        self._tools[:] = tools
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - the base class names it
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - as stop
        **kwargs: Any,  # noqa: ARG002 - as stop
    ) -> ChatResult:
        self._seen.append(list(messages))
        return ChatResult(generations=[ChatGeneration(message=self.answers.pop(0))])


def calls(*wanted: tuple[str, dict[str, Any]], ids: Sequence[str] = ()) -> AIMessage:
    """A model's answer that calls tools; ids default to ``<tool>-<n>``."""
    named = [
        {"name": name, "args": args, "id": ids[n] if ids else f"{name}-{n}", "type": "tool_call"} for n, (name, args) in enumerate(wanted)
    ]
    return AIMessage(content="", tool_calls=named)


def say(text: str = "done") -> AIMessage:
    """A model's last word."""
    return AIMessage(content=text)


def tool_messages(state: dict[str, Any]) -> list[ToolMessage]:
    """The tool messages of a graph's result."""
    return [m for m in state["messages"] if isinstance(m, ToolMessage)]


@dataclass
class ToolServer:
    """What the tool server of the payments did and saw."""

    url: str = ""
    verifier: Verifier | None = None
    paid: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list, repr=False)
    break_next: int = 0

    def pay(self, authorization: str, proof: str, args: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Redeem and pay."""
        scheme, _, text = authorization.partition(" ")
        if self.break_next:
            self.break_next -= 1
            return 500, {"error": "try again"}
        self.tokens.append(text)
        if self.verifier is None or scheme != "DPoP":
            return 401, {"error": "no DPoP token"}
        try:
            with self.verifier.redeem(text, tool="payments.refund", args=args, proof=DPoP(proof, method="POST", url=self.url)) as call:
                self.paid.append(call.args)
                return 200, call.record_result({"refund_id": f"re_{len(self.paid)}"})
        except TokenRefused as error:
            self.refused.append(str(error.code))
            return error.code.http_status, {"error": error.code.error}


@contextmanager
def tool_server() -> Iterator[ToolServer]:
    """A payments server on loopback, in a thread."""
    served = ToolServer()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            args = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = served.pay(self.headers.get("Authorization", ""), self.headers.get("DPoP", ""), args)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/refunds"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


_MADE = dict[str, BaseTool]()


def _tool(name: str) -> Callable[[Callable[..., Any]], BaseTool]:
    """As LangChain's; what it makes of the signature is made once for all shops."""

    def made(run: Callable[..., Any]) -> BaseTool:
        if name not in _MADE:
            _MADE[name] = tool(name)(run)
        return _MADE[name].model_copy(update={"func": run})

    return made


class Shop:
    """Tools with their workflow and gate. `ran` holds every execution of a tool's body."""

    def __init__(self, directory: Path, server: ToolServer, total: str = "39.90") -> None:
        self.ran: list[tuple[str, dict[str, Any]]] = []
        self.server = server
        self.total = total
        self.order_note = ""
        self.tools = self._tools()
        self.directory = directory / "workflows"
        self.directory.mkdir()
        definition = definition_of(self.tool("payments.refund"))
        (self.directory / "refund.yaml").write_text(WORKFLOW.format(audience=server.url, definition=definition))
        self.gate = Gate.open_unsafe_unapproved(self.directory, issuer=ISSUER, audit="memory://")
        server.verifier = self.gate.verifier(server.url, tenants=["acme"])

    def tool(self, name: str) -> BaseTool:
        """The unguarded tool of this name."""
        return next(t for t in self.tools if t.name == name)

    def run(self, prompt: str = PROMPT) -> Run:
        """A run of Lee's."""
        return self.gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt=prompt)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The gate's audit records."""
        log: Any = self.gate._audit
        kept: list[dict[str, Any]] = log.records
        return kept

    def decisions(self, tool: str) -> list[str]:
        """Decisions on a tool's calls, in order."""
        return [r["decision"] for r in self.records if r["type"] == "decision" and r["tool"] == tool]

    def ran_names(self) -> list[str]:
        """Names of the executed tools."""
        return [name for name, _ in self.ran]

    def _tools(self) -> list[BaseTool]:
        shop = self

        @_tool("orders.get")
        def get(order_id: str) -> dict[str, Any]:
            """Look an order up."""
            shop.ran.append(("orders.get", {"order_id": order_id}))
            return {"order_id": order_id, "total": shop.total, "currency": "EUR", "note": shop.order_note}

        @_tool("notes.add")
        def note(order_id: str, text: str, times: int = 1) -> str:
            """Write a note."""
            shop.ran.append(("notes.add", {"order_id": order_id, "text": text, "times": times}))
            return "noted"

        @_tool("payments.refund")
        def refund(order_id: str, amount: Decimal, currency: str) -> str:
            """Give money back."""
            shop.ran.append(("payments.refund", {"order_id": order_id, "amount": amount, "currency": currency}))
            body = {"order_id": order_id, "amount": str(amount), "currency": currency}
            headers = {**call_token().headers("POST", shop.server.url), "Content-Type": "application/json"}
            request = urllib.request.Request(shop.server.url, json.dumps(body).encode(), headers)  # noqa: S310 - loopback
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                    return str(json.loads(answer.read())["refund_id"])
            except urllib.error.HTTPError as error:
                with error:
                    raise RuntimeError(f"the server answered {error.code}") from None

        return [get, note, refund]


def identify(context: Any) -> tuple[str, User | None, Agent]:
    """The runtime context of these tests is the user."""
    if not isinstance(context, User):
        raise TypeError("no user in the runtime context")
    return "acme", context, DESK


def vouched(messages: Any) -> Any:
    """An invoke's messages, each human one vouched for by the host."""
    if not isinstance(messages, list):
        return user_says(messages)
    return [user_says(each) if isinstance(convert_to_messages([each])[0], HumanMessage) else each for each in messages]
