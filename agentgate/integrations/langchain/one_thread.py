"""An awaited call of a synchronous tool under a blocking gate: one thread decides on it,
carries it out and records it.

Rules: a call has its place before it waits for the thread, so what a gate cannot do is refused
at once, however long the queue for threads is. A held call gives its thread back before it
waits for the others of its task: they may need it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from langchain_core.tools import BaseTool

from agentgate.integrations.langchain.calls import PROPOSAL, ProposedCall, adrive, run_of
from agentgate.integrations.langchain.guard import Guard
from agentgate.integrations.langchain.held import HeldInThread, is_interrupt
from agentgate.shell.drive import queue_for_thread


def queue_call(guard: Guard, tool: BaseTool) -> ProposedCall | None:
    """The proposed call, with a place while it waits for the one thread in which it is decided
    on, carried out and recorded.

    None: the gate is awaited, or has no place; or it is not LangChain that calls. Then each
    step finds its own way.
    """
    proposal = PROPOSAL.get()
    run = run_of(guard)
    if (
        run is None
        or not proposal
        or proposal.tool is not tool
        or (leave := queue_for_thread(run.authorize)) is None
    ):
        return None
    proposal.begin = leave
    proposal.in_thread = True
    return proposal


async def in_one_thread(proposal: ProposedCall, work: Awaitable[Any]) -> Any:
    """The result of a queued call. One that is held waits for the others of its task here, and
    keeps no thread from them.
    """
    try:
        return await work
    except HeldInThread as held:
        return await adrive(held.asking)
    except BaseException as error:
        if is_interrupt(error):
            await adrive(proposal.call.alone())
        raise
    finally:
        proposal.begin()
