"""LangChain agent middleware: opens the run, and puts it where guarded tools find it.

Rules: only what the caller passed to this very invoke counts as the user's (see `turns`), each message as a turn of its own; messages in
graph state never do, whoever wrote them. Where it is not known who spoke, nothing new counts and the log says so (``turns_not_counted``).
Graph state holds only the run's id, and the run it names is used only for the tenant, user and agent that the runtime context proves again
at every call. A nested agent's "user" is a model: it works in the run of the agent that called it, or in one in which nobody said a word.
List this middleware last, so that nothing edits a call after it; the tools enforce again anyway.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired

import structlog
from langchain.agents.middleware.types import AgentMiddleware, AgentState, ModelRequest, PrivateStateAttr, TracePolicy, omit_payload
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from agentgate.errors import AgentGateError, ConfigError
from agentgate.identity.credential import AgentCredential, OIDCToken
from agentgate.integrations.langchain.calls import HOST, INJECTED_FOR, RUN, Ask, Steps, adrive, bound, drive, refusal
from agentgate.integrations.langchain.injection import Host
from agentgate.integrations.langchain.tools import forged_name, guard_tools, is_guarded, type_and_name
from agentgate.integrations.langchain.turns import Turns, callers_turns, marked_as_written
from agentgate.values.refusal import NOT_SHOWN, Code
from agentgate.values.request import Agent, User
from agentgate.values.visible import visible

_log = structlog.get_logger("agentgate.langchain")
UNREGISTERED = "a tool that nobody registered with the agent"
NO_MIDDLEWARE_RUN = "no run: it was not opened (see run_not_opened or identity_unknown above), or it is not this user's or conversation's"
NO_HISTORY = "user messages before the newest ones; history=True takes them for the user's too"
MAX_RUNS = 10_000  # runs kept in this process; an older one is read from the store again
MAX_TOOLS = 1_000  # guarded copies kept of tools that were registered unguarded

Identity = tuple[str, User | OIDCToken | None, Agent | AgentCredential]


class GateState(AgentState[Any]):
    """Adds the id of the run: no secret, neither input nor output of the graph."""

    agentgate_run: NotRequired[Annotated[str, PrivateStateAttr]]


@dataclass(frozen=True, slots=True, repr=False)
class _Open:
    """A run of this process: whose it is, and which conversation it belongs to."""

    run: Any
    who: tuple[str, str, str]
    thread: str | None


class AgentGateMiddleware(AgentMiddleware[Any, Any, Any]):
    """Decides on every tool call of an agent built by `create_agent`.

    Args:
        gate: a `Gate`, or an `AsyncGate` for agents that are only invoked asynchronously.
        workflow: id of the workflow the agent's runs are opened under.
        identify: the runtime context (``invoke(..., context=...)``, to be passed again on resume) -> (tenant, user, agent), as `open_run`
            takes them: values of this process, or credentials. A fresh credential of the same user or agent goes on with the run.
            Whatever it raises is a refusal; on resume, where a refusal would use up the held call, a `ConfigError` out of the invoke.
        prompt: the runtime context -> the user's words, for hosts whose agent is part of another graph, tool or Runnable; None: the user's
            words are the newest human messages that the caller passes to the invoke.
        history: take the earlier human messages of that input for the user's too when a run is opened. For stateless callers, who pass a
            transcript that they keep themselves.
        inject: the runtime context -> values for arguments that the tools hide from the model (`InjectedToolArg`), as in `use_run`.

    Raises:
        ConfigError: `identify` cannot be called, or the gate has no such workflow.
    """

    state_schema = GateState
    trace_policy = TracePolicy(process_inputs=omit_payload)

    def __init__(
        self,
        gate: Any,
        *,
        workflow: str,
        identify: Callable[[Any], Identity],
        prompt: Callable[[Any], Any] | None = None,
        history: bool = False,
        inject: Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if not callable(identify):
            raise ConfigError("identify", type(identify).__name__, "a callable: runtime context -> (tenant, user, agent)")
        loaded = sorted(known.id for known in gate.catalog)
        if workflow not in loaded:
            raise ConfigError("workflow", workflow, f"the id of a workflow that the gate has loaded: {', '.join(loaded)}")
        self.tools: Sequence[BaseTool] = []
        self._gate, self._workflow, self._identify, self._prompt = gate, workflow, identify, prompt
        self._history, self._inject = history, inject
        self._runs: OrderedDict[str, _Open] = OrderedDict()
        self._guarded: dict[int, tuple[BaseTool, BaseTool]] = {}

    # --- the run

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Open the run, or add the newest messages to the one this conversation has."""
        update: dict[str, Any] | None = drive(self._begin(state, runtime))
        return update

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """As `before_agent`."""
        update: dict[str, Any] | None = await adrive(self._begin(state, runtime))
        return update

    def _begin(self, state: Any, runtime: Any) -> Steps:
        if RUN.get() is not None:
            return None  # the host's run, or that of the agent that called this one
        identity = self._who(runtime)
        if identity is None:
            return {"agentgate_run": ""}
        kept = yield from self._known(state, runtime, identity)
        said = self._said(runtime, new=kept is None)
        if said is None:
            return {"agentgate_run": ""}
        if kept is not None:
            try:
                for turn in said.newest:
                    yield Ask(kept.run.add_turn, turn)
            except AgentGateError:
                kept = None  # closed or expired: what follows is new work
        if kept is None:
            tenant, user, agent = identity
            turns = [*(said.earlier if self._history else ()), *said.newest]
            first, *later = turns or [""]
            try:
                run = yield Ask(self._gate.open_run, self._workflow, tenant=tenant, user=user, agent=agent, prompt=first)
                for turn in later:
                    yield Ask(run.add_turn, turn)
            except AgentGateError as error:
                _log.warning("run_not_opened", workflow=self._workflow, tenant=tenant, reasons=[visible(error)[:2000]])
                return {"agentgate_run": ""}
            kept = self._keep(_Open(run, _key(identity), runtime.execution_info.thread_id))
        return {"agentgate_run": kept.run.id}

    def _said(self, runtime: Any, *, new: bool) -> Turns | None:
        """What the user says to this invoke, which opens a `new` run or not; None if the host's `prompt` failed."""
        if self._prompt is not None:
            try:
                return Turns((self._prompt(runtime.context),))
            except Exception as error:  # noqa: BLE001 - the host's function failed: no prompt, no run
                _log.warning("run_not_opened", workflow=self._workflow, reasons=[f"prompt raised {type(error).__name__}"])
                return None
        said = callers_turns(get_config())
        reasons = list(said.uncounted)
        if new and said.earlier and not self._history:
            reasons.append(NO_HISTORY)
        if reasons:
            _log.warning("turns_not_counted", workflow=self._workflow, reasons=reasons)
        return said

    def _who(self, runtime: Any) -> Identity | None:
        identify: Callable[[Any], Any] = self._identify
        try:
            given = identify(runtime.context)
        except Exception as error:  # noqa: BLE001 - the host's function failed (no context on resume, say): no identity is proven
            _log.warning("identity_unknown", reasons=[f"identify raised {type(error).__name__}: nobody is proven, so no tool runs"])
            return None
        match given:
            case [tenant, User() | OIDCToken() | None as user, agent] if type(tenant) is str and isinstance(agent, Agent | AgentCredential):
                return tenant, user, agent
        got = ", ".join(type(each).__name__ for each in (given if isinstance(given, tuple | list) else (given,)))
        expected = "identify must return (tenant text, User or OIDCToken or None, Agent or a credential of one)"
        _log.warning("identity_unknown", reasons=[f"got {got}; {expected}"])
        return None

    def _known(self, state: Any, runtime: Any, identity: Identity) -> Steps:
        """The run that graph state names, if it is this identity's and this conversation's."""
        name = state.get("agentgate_run") if isinstance(state, dict) else None
        if type(name) is not str or not name:
            return None
        kept = self._runs.get(name)
        if kept is None:
            try:
                run = yield Ask(self._gate.resume_run, identity[0], name)
            except AgentGateError:
                return None
            header = run.header
            proven = header.user_until or header.agent_until  # opened with credentials: then no word of the host says whose it is
            whose = ("", "", "") if proven else _key((header.tenant, header.user, header.agent))
            kept = self._keep(_Open(run, whose, runtime.execution_info.thread_id))
        if kept.thread != runtime.execution_info.thread_id:
            return None
        return kept if kept.who == _key(identity) else (yield from self._proven(kept, identity))

    def _proven(self, kept: _Open, identity: Identity) -> Steps:
        """The run, if credentials that were not shown in it yet are of its user and agent."""
        (tenant, *who), header = identity, kept.run.header
        shown = {name: each for name, each in zip(("user", "agent"), who, strict=True) if isinstance(each, AgentCredential)}
        given = {"user": (who[0], header.user, header.user_until), "agent": (who[1], header.agent, header.agent_until)}
        same = all(not until and _id(each) == _id(known) for name, (each, known, until) in given.items() if name not in shown)
        if not shown or not same or tenant != header.tenant:
            return None
        try:
            yield Ask(kept.run.renew, **shown)
        except AgentGateError as error:
            _log.warning("identity_unknown", run=header.id, reasons=[visible(error)[:2000]])
            return None
        return self._keep(replace(kept, who=_key(identity)))

    def _keep(self, opened: _Open) -> _Open:
        self._runs[opened.run.id] = opened
        while len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)
        return opened

    # --- the calls

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Run the call in its run; the guarded tool decides."""
        kept = drive(self._call(request))
        with self._bound(request, kept) as ready:
            if isinstance(ready, ToolMessage):
                return ready
            result = handler(ready)
        marked: ToolMessage | Command[Any] = marked_as_written(result)
        return marked

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """As `wrap_tool_call`."""
        kept = await adrive(self._call(request))
        with self._bound(request, kept) as ready:
            if isinstance(ready, ToolMessage):
                return ready
            result = await handler(ready)
        marked: ToolMessage | Command[Any] = marked_as_written(result)
        return marked

    def _call(self, request: ToolCallRequest) -> Steps:
        if RUN.get() is not None:
            return None
        identity = self._who(request.runtime)
        if identity is not None:
            return (yield from self._known(request.state, request.runtime, identity))
        if isinstance(request.state, dict) and request.state.get("agentgate_run"):  # resumed: the call must stay as it is
            expected = "the context of the first invoke, on resume too (context=...); nothing ran, so resume again with it"
            raise ConfigError("context", type(request.runtime.context).__name__, expected)
        return None

    @contextmanager
    def _bound(self, request: ToolCallRequest, kept: _Open | None) -> Iterator[ToolCallRequest | ToolMessage]:
        name, call_id = request.tool_call["name"], request.tool_call["id"]
        run = RUN.get() if kept is None else kept.run
        try:
            tool = self._guard(request.tool)
            host = self._host(run, request.runtime)
        except AgentGateError as error:
            yield _refused(Code.NOT_PERMITTED, name, call_id, str(error))
            return
        if tool is None or run is None or call_id is None:
            why = UNREGISTERED if tool is None else NO_MIDDLEWARE_RUN if run is None else "a call without an id"
            yield _refused(Code.NOT_PERMITTED, name, call_id, why, logged=NOT_SHOWN if tool is None else name)
        elif forged := forged_name(tool, request.tool_call["args"]):  # LangGraph would strip a forged value in silence
            yield _refused(Code.INVALID_ARGUMENTS, name, call_id, forged)
        else:
            with bound((RUN, run), (HOST, host), (INJECTED_FOR, call_id)):
                yield request.override(tool=tool)

    def _host(self, run: Any, runtime: Any) -> Host | None:
        """What the host injects: of its context, or, in a run that it bound itself, what it said there.

        Raises:
            ConfigError: `inject` failed, or returned no mapping of names.
        """
        if self._inject is None:
            return HOST.get()
        try:
            values = self._inject(runtime.context)
        except Exception as error:
            raise ConfigError("inject", f"{type(error).__name__} raised", "a mapping: argument name -> value") from error
        return Host(run, values)

    def _guard(self, tool: BaseTool | None) -> BaseTool | None:
        """The tool itself if it is guarded, else its guarded copy.

        Raises:
            ConfigError, CanonicalError: it cannot be guarded.
        """
        if tool is None or is_guarded(tool):
            return tool
        known = self._guarded.get(id(tool))
        if known is None:
            if len(self._guarded) >= MAX_TOOLS:  # tools made per request; guarding again is cheap
                self._guarded.clear()
            known = self._guarded[id(tool)] = (tool, guard_tools(tool)[0])
        return known[1]

    # --- the tools that the model is offered

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Drop the provider's own tools, which run on its servers, where no gate can be.

        Raises:
            ConfigError, CanonicalError: a tool cannot be guarded.
        """
        return handler(self._offered(request))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]) -> Any:
        """As `wrap_model_call`."""
        return await handler(self._offered(request))

    def _offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        offered: list[BaseTool | dict[str, Any]] = []
        for tool in request.tools:
            if isinstance(tool, dict):
                _log.warning("tool_not_offered", tool=type_and_name(tool), reasons=["a provider runs it; no gate can be inside it"])
            else:
                self._guard(tool)
                offered.append(tool)
        return request.override(tools=offered)


def _refused(code: Code, name: str, call_id: str | None, why: str, logged: str = "") -> ToolMessage:
    message: ToolMessage = refusal(code, name=name, tool_call_id=call_id or "", why=why, logged=logged)
    return message


def _key(identity: Identity) -> tuple[str, str, str]:
    tenant, user, agent = identity
    return tenant, _id(user), _id(agent)


def _id(who: User | Agent | AgentCredential | None) -> str:
    """Who somebody is, or which credential they showed: never its text."""
    if isinstance(who, AgentCredential):
        return f"{type(who).__name__} {hashlib.sha256(who.reveal().encode()).hexdigest()}"
    return who.id if who is not None else ""
