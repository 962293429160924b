"""The rows of a chat backend: an awaited agent with the middleware, an `AsyncGate` and a durable audit log, beside the same agent without.

What is timed is a step of the graph in which one tool is called: from a model's answer until the next question to it. The model is a script
that answers at once. A row is what the gate adds to such a step, at the median and at the 99th of a hundred, alone and with eight
conversations at once.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import PrivateAttr

from agentgate.gate.gate import AsyncGate
from agentgate.gate.settings import MOST
from agentgate.integrations.langchain import AgentGateMiddleware, user_says
from agentgate.values.request import Agent, User
from tests.benchmarks import world
from tests.benchmarks.guarded import LOOKUP, look_up
from tests.benchmarks.row import Measuring, Row, Scale
from tests.servers import Server, redis_binary

STEPS, AT_ONCE = 10, 8
_SAID = "What is the status of ORD-10023344?"


class _Stepping(BaseChatModel):
    """Calls the tool so many times, one after another, and notes when it is asked and when it has answered."""

    _took: list[float] = PrivateAttr(default_factory=list)
    _answered: float = PrivateAttr(default=0.0)
    _asked: int = PrivateAttr(default=0)

    @property
    def _llm_type(self) -> str:
        return "stepping"

    @property
    def took(self) -> list[float]:
        """Seconds of each step."""
        return self._took

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:  # noqa: ARG002 - the base class names it
        if self._asked:
            self._took.append(time.perf_counter() - self._answered)
        self._asked += 1
        wanted = [{"name": "orders.get", "args": dict(world.LOOKED_UP), "id": f"call_{self._asked}", "type": "tool_call"}]
        message = AIMessage("", tool_calls=wanted) if self._asked <= STEPS else AIMessage("done")
        self._answered = time.perf_counter()
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


async def _steps(tool: BaseTool, gate: AsyncGate | None, at_once: int) -> list[float]:
    """The steps of so many conversations at once, of one message each."""

    async def chat(number: int) -> list[float]:
        model, user = _Stepping(), User(f"lee-{number}", tenant="acme")
        gated = [] if gate is None else [AgentGateMiddleware(gate, workflow="support.order-status", identify=_identify)]
        made: Any = create_agent(model, [tool], middleware=gated, context_schema=User, checkpointer=InMemorySaver())
        await made.ainvoke({"messages": user_says(_SAID)}, {"configurable": {"thread_id": str(number)}}, context=user)
        return model.took

    return [took for each in await asyncio.gather(*map(chat, range(at_once))) for took in each]


def _identify(user: User) -> tuple[str, User, Agent]:
    return "acme", user, Agent("desk")


def chat(scale: Scale) -> Measuring:
    """What the gate adds to a step, by how many conversations are at once."""
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentgate-bench-")))
        server = Server(redis_binary(), folder / "redis", durable=True)
        stack.callback(server.stop)
        (folder / "workflows").mkdir()
        (folder / "workflows" / "status.yaml").write_text(LOOKUP, encoding="utf-8")
        loop = stack.enter_context(asyncio.Runner())
        where: dict[str, Any] = {"audit": str(folder / "audit"), "keys": folder / "keys", "store": server.url}
        opening = AsyncGate.open_unsafe_unapproved(folder / "workflows", issuer=world.ISSUER, **where, **MOST)
        gate = loop.run(opening)
        stack.callback(lambda: loop.run(gate.close()))
        for at_once in (1, AT_ONCE):
            measured: list[float] = []
            baseline: list[float] = []
            loop.run(_steps(look_up, gate, at_once))  # caches and connections
            for _ in range(rounds_of(scale)):
                baseline += loop.run(_steps(look_up, None, at_once))
                measured += loop.run(_steps(look_up, gate, at_once))
                yield
            rows += _rows(measured, baseline, at_once)
    return rows


def rounds_of(scale: Scale) -> int:
    """Rounds for each number of conversations."""
    return max(2, scale.trips // 50)


def _rows(measured: Sequence[float], baseline: Sequence[float], at_once: int) -> list[Row]:
    found = []
    for name, of in (("p50", median), ("p99", lambda values: quantiles(values, n=100)[98])):
        with_gate, without = of(measured) * 1e6, of(baseline) * 1e6
        note = f"what the middleware adds to a step with one tool call, {name}, {at_once} at once; durable Redis over TCP and audit log"
        named = f"chat_{name}" + (f"_{at_once}" if at_once > 1 else "")
        found.append(Row(named, with_gate, "the same step without it", without, with_gate - without, "us", None, True, note))
    return found
