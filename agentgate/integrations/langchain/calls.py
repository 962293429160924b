"""One call of a guarded LangChain tool, as steps that a blocking and an awaited driver carry
out.

Rules: every execution of a tool's body is decided on first, also when code calls `_run` itself;
the body runs from a parse of the canonical bytes that were decided on. No run, an unknown tool,
a name the model may not set, any error of the gate: refused. A refusal shows the model one
fixed code. The token reaches a tool through a ContextVar only, because state, config, metadata
and arguments are all traced or checkpointed somewhere.

For developers, every refusal is logged (structlog, warning ``call_refused``), by the gate or,
where a call never reached it, here; a held call as ``call_held`` with the hold's id. In
process, ``run.explain(tool_call_id=...)`` lists every condition, the origin of each value and
what would pass; `CallRefused` carries the `decision` and its `tool_call_id`. The model receives
none of it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import iscoroutinefunction
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Literal

import orjson
import structlog
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from pydantic_core import PydanticSerializationError, to_jsonable_python

from agentgate.decision.answer import Allow, Deny, StepUp
from agentgate.errors import (
    CallDenied,
    CanonicalError,
    ConfigError,
    NotDone,
    NotRecorded,
    ResultWithheld,
    TokenRefused,
)
from agentgate.gate.locking import bind_fence
from agentgate.gate.observer import Unenforced
from agentgate.integrations.langchain.caller import name_invoke
from agentgate.integrations.langchain.guard import Guard, Host
from agentgate.integrations.langchain.held import HeldInThread, ask_person, is_interrupt
from agentgate.integrations.langchain.outcomes import CallRefused, add_refusal
from agentgate.integrations.langchain.task import NO_TASK, TaskCall, Wait
from agentgate.redemption.credential import UpstreamCredential
from agentgate.shell.context import set_variables
from agentgate.shell.drive import in_a_thread
from agentgate.token.mint import CallToken
from agentgate.values.refusal import Code, misformed
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible
from agentgate.workflow.model import Tool

_log = structlog.get_logger("agentgate.langchain")
_AGAIN = re.compile(r"(.+)-again-(\d{1,3})", re.ASCII | re.DOTALL)
NO_RUN = (
    "no run: give guard_tools a run, or invoke inside use_run(run) or an agent with "
    "AgentGateMiddleware"
)


@dataclass(slots=True)
class ProposedCall:
    """What `run` or `arun` received, before LangChain validated it. Valid for one `_run` or
    `_arun`.

    Attributes:
        forged: why an argument may not come from the model; empty if every one may.
        call: the call in its task; of one that was made otherwise than through `run` or `arun`
            there is none.
        declared: the tool in the run's workflow, where it was made so and is in force.
        reached: LangChain took the arguments.
        in_thread: it runs in a thread of a pool, which the others of its step may need.
        begin: called when a call that waited for a thread has it.
    """

    tool: BaseTool
    tool_call_id: str | None
    forged: str
    call: TaskCall = NO_TASK
    declared: Tool | None = None
    reached: bool = False
    in_thread: bool = False
    begin: Callable[[], None] = lambda: None

    def reach(self) -> None:
        """LangChain took the arguments, and the call begins."""
        self.reached = True
        self.begin()


@dataclass(slots=True)
class Cleared:
    """An `_arun` that was decided on and may fall through to `_run` once, with these very
    values.
    """

    tool: BaseTool
    values: tuple[Any, ...]
    used: bool = False


RUN: ContextVar[Any] = ContextVar("agentgate_run", default=None)
TOKEN: ContextVar[CallToken | None] = ContextVar("agentgate_call_token", default=None)
KEY: ContextVar[str] = ContextVar("agentgate_idempotency_key", default="")
CREDENTIAL: ContextVar[UpstreamCredential | None] = ContextVar(
    "agentgate_upstream_credential", default=None
)
PROPOSAL: ContextVar[ProposedCall | None] = ContextVar("agentgate_proposal", default=None)
CLEARED: ContextVar[Cleared | None] = ContextVar("agentgate_cleared", default=None)
# the tool_call_id whose arguments the middleware saw before LangGraph stripped forged values
# and injected its own
INJECTED_FOR: ContextVar[str | None] = ContextVar("agentgate_injected_for", default=None)
HOST: ContextVar[Host | None] = ContextVar("agentgate_host", default=None)


def run_of(guard: Guard) -> Any:
    """The run in which a guarded tool is called; None: there is none."""
    return guard.run if guard.run is not None else RUN.get()


def attempt_of(tool_call_id: str | None) -> tuple[str, int]:
    """The id under which a call is decided, and how often it was made again after it was held
    (`talking_on`).
    """
    found = _AGAIN.fullmatch(tool_call_id or "")
    return (found[1], int(found[2])) if found else (tool_call_id or "", 0)


@value_class
class Execute:
    """Step: the tool's own body, with these arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


# step: a method of the gate or run, which does I/O; a blocking one is awaited in a thread, an
# async one directly
Ask = partial[Any]
Steps = Generator[Ask | Execute | Wait, Any, Any]


def refusal(
    code: Code,
    *,
    name: str,
    tool_call_id: str | None,
    response_format: str = "content",
    why: str = "",
    decision: Deny | None = None,
    given_id: str = "",
    run: Any = None,
    logged: str = "",
    form: str = "",
    facts: Sequence[Mapping[str, Any]] = (),
) -> Any:
    """The result of a refused call: an error message for the model. The developer's log says
    why; the model is told nothing but the code.

    Args:
        code: the closed code.
        name: the tool's name.
        tool_call_id: the model's id of the call.
        response_format: the form of the result, as the tool declares it.
        why: what kept the call from the gate, where there is no `decision`.
        decision: what the gate decided.
        given_id: the id under which it decided.
        run: its run.
        logged: what the log calls the tool, where `name` may be the model's own word.
        form: of arguments of a wrong form, what the tool's own schema says; of a limit, until
            when it is reached.
        facts: of a call that is done, what it returned and the workflow declares.

    Raises:
        CallRefused: there is no `tool_call_id` to answer to.
    """
    if not decision:  # the gate has logged what it decided
        entry: dict[str, Any] = {
            "tool": logged or name,
            "tool_call_id": tool_call_id or given_id,
            "code": str(code),
        }
        if run is not None:
            entry |= {"run": run.id, "workflow": f"{run.header.workflow} v{run.header.version}"}
        _log.warning("call_refused", **entry, reasons=[visible(why)])
    artifact = add_refusal(
        code, decision, logged or name, tool_call_id or given_id, run or RUN.get()
    )
    if tool_call_id is None:
        raise CallRefused(code, decision, given_id)
    told = orjson.dumps(facts[0] if len(facts) == 1 else facts).decode() if facts else form
    said = f"{CallDenied(code)} {told}".rstrip()
    status: Literal["success", "error"] = "success" if facts else "error"
    message = ToolMessage(
        content=said, status=status, tool_call_id=tool_call_id, name=name, artifact=artifact
    )
    return (message, None) if response_format == "content_and_artifact" else message


def refusal_of(proposal: ProposedCall) -> partial[Any]:
    """`refusal` of a proposed call, for its code and why."""
    tool = proposal.tool
    return partial(
        refusal,
        name=tool.name,
        tool_call_id=proposal.tool_call_id,
        response_format=tool.response_format,
    )


def locked_steps(
    tool: Any, guard: Guard, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Steps:
    """`steps`; an act of a conversation under its lock, which the calls of one invoke share:
    other resumes wait until it is over.
    """
    proposal = PROPOSAL.get()
    run = run_of(guard)
    call = steps(tool, guard, args, kwargs)
    declared = proposal.declared if proposal else None
    if not declared or declared.effect == "read" or not run.conversation:
        return (yield from call)
    holder = name_invoke()
    with bind_fence(run.id, (yield Ask(run.take_lock, holder))):
        try:
            return (yield from call)
        finally:
            yield Ask(run.give_lock, holder)


def steps(tool: Any, guard: Guard, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Steps:
    """One call: (1) canonical arguments, (2) decision, (3) execution. Returns the tool's
    result, or that of its refusal.
    """
    proposal = PROPOSAL.get()
    if not proposal or proposal.tool is not tool:  # `_run` called by code, not through `run`
        given = {n: v for n, v in kwargs.items() if n not in guard.framework}
        proposal = ProposedCall(tool, None, guard.forged(given, trusted=False))
    proposal.reach()
    refused = refusal_of(proposal)

    # (1) what the model may set, as canonical bytes; the tool will run from these
    if proposal.forged:
        return refused(Code.INVALID_ARGUMENTS, why=proposal.forged)
    run = run_of(guard)
    if run is None:
        return refused(Code.NOT_PERMITTED, why=NO_RUN)
    framework = {n: v for n, v in kwargs.items() if n in guard.framework}
    injected = {n: v for n, v in kwargs.items() if n in guard.arguments.injected}
    named = {n: v for n, v in kwargs.items() if n not in framework and n not in injected}
    try:
        first = guard.positional(args)
        settled = guard.arguments.settle({**first, **named}, injected, incomplete=bool(first))
        definition = guard.definition(tool)
    except CanonicalError as error:
        why = guard.arguments.unreadable(error)
        form = guard.form_of([error.field], tool, proposal.declared)
        return refused(Code.INVALID_ARGUMENTS, why=why, run=run, form=form)

    done, result = proposal.call.kept(tool.name, settled.decided.data)
    if done:
        return result

    # (2) decided anew at every execution: a resume value or an earlier answer has no effect
    call_id = (
        run.call_id(tool.name, settled.decided)
        if proposal.tool_call_id is None
        else attempt_of(proposal.tool_call_id)[0]
    )
    try:
        decision = yield Ask(
            run.perform, tool.name, settled.decided, tool_call_id=call_id, definition=definition
        )
    except TokenRefused as error:
        code = Code.UNAVAILABLE if error.code.http_status == 503 else Code.NOT_PERMITTED
        return refused(code, why=f"allowed, but its token was not redeemed: {error}", run=run)
    if isinstance(decision, StepUp):
        yield from _hold(proposal, run, decision, call_id)
    if isinstance(decision, Deny) and not isinstance(decision, Unenforced):
        facts = yield from _read_facts(tool.name, run, decision, call_id)
        form = (
            f"until: {decision.until}"
            if decision.until
            else guard.form_of(misformed(decision.failures), tool, proposal.declared)
        )
        return refused(
            decision.code, decision=decision, given_id=call_id, run=run, facts=facts, form=form
        )

    # (3) run from the decided bytes
    values = dict(settled.values)
    execute = Execute(
        tuple(values.pop(name) for name in first), {**values, **injected, **framework}
    )
    result = yield from _carry_out(proposal, run, decision, execute)
    proposal.call.keep(tool.name, settled.decided.data, result)
    return result


def _read_facts(tool: str, run: Any, decision: Deny, call_id: str) -> Steps:
    """What a call returned that is done already; nothing of a read, which can be made again."""
    known = run.workflow.tools.get(tool) if decision.code == Code.ALREADY_DONE else None
    if known is None or known.effect == "read":
        return ()
    return (yield Ask(run.facts, call_id))


def _carry_out(proposal: ProposedCall, run: Any, decision: Any, execute: Execute) -> Steps:
    """Run an allowed call; exactly one side redeems, by the workflow it was decided under."""
    token = decision.token if isinstance(decision, Allow) else None
    runs_here = not isinstance(decision, Allow | Unenforced)
    key = "" if runs_here and not decision.acts else decision.idempotency_key
    upstream = decision.credential if runs_here and decision.has_credential else None
    with set_variables(
        (PROPOSAL, None), (RUN, run), (TOKEN, token), (KEY, key), (CREDENTIAL, upstream)
    ):
        if runs_here:
            return (yield from _redeemed(proposal, decision, execute))
        return (yield from _executed(execute, proposal))


def _hold(proposal: ProposedCall, run: Any, decision: StepUp, call_id: str) -> Steps:
    """Log a held call, and ask the person whom it waits for."""
    tool = proposal.tool.name
    _log.info(
        "call_held",
        tool=tool,
        tool_call_id=call_id,
        run=run.id,
        hold=decision.hold.id,
        rules=list(decision.hold.rules),
    )
    asking = ask_person(decision, run, tool, proposal.call)
    if proposal.in_thread:
        raise HeldInThread(asking)
    yield from asking


def _executed(execute: Execute, proposal: ProposedCall) -> Steps:
    """Run the tool's body; where a graph inside it is interrupted, this call waits as a held
    one does. What is yet to run is no result.
    """
    try:
        result = yield execute
    except BaseException as error:
        if is_interrupt(error) and not proposal.in_thread:
            yield from proposal.call.alone()
        raise
    if isinstance(result, GeneratorType | AsyncGeneratorType | CoroutineType):
        if not isinstance(result, AsyncGeneratorType):
            result.close()
        raise TypeError(
            f"the tool returned a {type(result).__name__}, which is yet to run: it must return its result"
        )
    return result


def _redeemed(proposal: ProposedCall, redeemed: Any, execute: Execute) -> Steps:
    """Run a redeemed call; record the facts of its result and its outcome."""
    leave = redeemed.__aexit__ if hasattr(redeemed, "__aexit__") else redeemed.__exit__
    try:
        result = yield from _executed(execute, proposal)
        if redeemed.has_credential:
            yield Ask(redeemed.check_result, result)
    except ResultWithheld as error:
        yield Ask(leave, type(error), error, None)
        return refusal_of(proposal)(Code.ALREADY_DONE, why=str(error))
    except BaseException as error:
        if (shown := redeemed.showable(error)) is error:
            yield Ask(leave, type(error), error, error.__traceback__)
            raise
        yield Ask(leave, type(shown), shown, None)
        code = Code.FAILED if isinstance(shown, NotDone) else Code.OUTCOME_UNKNOWN
        return refusal_of(proposal)(code, why=str(shown))
    if redeemed.has_facts:
        yield Ask(redeemed.record_result, _facts_in(proposal.tool, result))
    with suppress(NotRecorded):  # it is logged; the tool ran, and its result is true
        yield Ask(leave, None, None, None)
    return result


def _facts_in(tool: BaseTool, result: Any) -> Any:
    """The part of a tool's result that facts are read from, as JSON values: the artifact if it
    has one, never parsed text.
    """
    if (
        tool.response_format == "content_and_artifact"
        and isinstance(result, tuple)
        and len(result) == 2
    ):
        result = result[1] if result[1] is not None else result[0]
    elif isinstance(result, ToolMessage):
        result = result.artifact if result.artifact is not None else result.content
    try:
        return to_jsonable_python(result)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError):
        return None  # no JSON form, no facts: later calls may use less


def drive(call: Steps, execute: Callable[[Execute], Any] | None = None) -> Any:
    """Carry out steps in this thread.

    Raises:
        ConfigError: a run or gate that must be awaited.
    """
    try:
        step = next(call)
        while True:
            try:
                answer = _block(step, execute)
            except BaseException as error:  # noqa: BLE001 - handed to the steps, which raise it again
                step = call.throw(error)
            else:
                step = call.send(answer)
    except StopIteration as done:
        return done.value


def _block(step: Ask | Execute | Wait, execute: Callable[[Execute], Any] | None) -> Any:
    if isinstance(step, Execute):
        return execute(step) if execute else None
    if isinstance(step, Wait):
        return step.block()
    if _is_awaited(getattr(step.func, "__func__", step.func)):
        raise ConfigError(
            "run",
            "an AsyncRun or AsyncGate in a blocking call",
            "a Run and Gate, or an awaited call of the tool",
        )
    return step()


# of a method's function: a method would keep its run
_is_awaited = lru_cache(maxsize=64)(iscoroutinefunction)


async def adrive(
    call: Steps, execute: Callable[[Execute], Awaitable[Any]] | None = None
) -> Any:
    """Carry out steps in this task."""
    try:
        step = next(call)
        while True:
            try:
                answer = await _await(step, execute)
            except BaseException as error:  # noqa: BLE001 - handed to the steps, which raise it again
                step = call.throw(error)
            else:
                step = call.send(answer)
    except StopIteration as done:
        return done.value


async def _await(
    step: Ask | Execute | Wait, execute: Callable[[Execute], Awaitable[Any]] | None
) -> Any:
    if isinstance(step, Execute):
        return await execute(step) if execute else None
    if isinstance(step, Wait):
        return await step.wait()
    if _is_awaited(getattr(step.func, "__func__", step.func)):
        return await step()
    return await in_a_thread(step.func, *step.args, **step.keywords)
