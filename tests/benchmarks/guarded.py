"""The row of a guarded LangChain tool against the tool itself."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from langchain_core.tools import BaseTool, tool

from agentgate.gate.gate import Gate
from agentgate.gate.run import Run
from agentgate.gate.settings import MOST
from agentgate.integrations.langchain import guard_tools, use_run
from agentgate.values.request import Agent, User
from tests.benchmarks import world
from tests.benchmarks.row import Measuring, Scale, compared
from tests.benchmarks.sidebyside import Pair
from tests.servers import Server, redis_binary

LOOKUP = """\
agentgate: workflow/v1
id: support.order-status
version: 1
title: Assistant looks up an order that the customer names
owners: [lee]
risk: low
expires: "2031-12-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents: {none: "Only looks; nothing here changes or sends anything."}
tools:
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}
    facts: {status: {type: text}}
"""


def looking_up() -> BaseTool:
    """The tool by itself."""

    @tool("orders.get")
    def look_up(order_id: str) -> dict[str, str]:
        """Look up an order."""
        return {"order_id": order_id, "status": "delivered"}

    made: BaseTool = look_up
    return made


def langchain(scale: Scale) -> Measuring:
    """A guarded tool's `invoke` against the tool's own."""
    look_up = looking_up()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentgate-bench-")))
        server = Server(redis_binary(), folder / "redis")
        stack.callback(server.stop)
        (folder / "workflows").mkdir()
        (folder / "workflows" / "status.yaml").write_text(LOOKUP, encoding="utf-8")
        gate = stack.enter_context(
            Gate.open_unsafe_unapproved(folder / "workflows", issuer=world.ISSUER, audit="memory://", store=server.url, **MOST)
        )
        (guarded,) = guard_tools([look_up])
        runs: list[Run] = []

        def prepare() -> None:
            user, desk = User("lee", tenant="acme"), Agent("desk")
            run = gate.open_run("support.order-status", tenant="acme", user=user, agent=desk, prompt="What is the status of ORD-10023344?")
            runs[:] = [run]

        def invoke() -> None:
            with use_run(runs[0]):
                guarded.invoke(dict(world.LOOKED_UP))

        pair = Pair(
            invoke,
            lambda: look_up.invoke(dict(world.LOOKED_UP)),
            scale.trips // 3,
            prepare=prepare,
        )
        note = "tool.invoke: decide, mint, redeem, run the tool, record its facts and outcome; Redis over TCP, audit memory://"
        return [(yield from compared("langchain", pair, "the unguarded tool's invoke", None, note))]
