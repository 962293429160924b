"""LangChain agent middleware: opens the run, and puts it where guarded tools find it.

Rules: only what the host vouches for in this very invoke counts as the user's (see `caller`),
each message as a turn of its own. Where it is not known who spoke, nothing counts and the log
says so (``turns_not_counted``); such words, and those of human messages in graph state, can
only take back. Graph state holds only the run's id, and the run it names is used only for the
tenant, user and agent that the runtime context proves again at every call. A nested agent's
"user" is a model: it works in the run of the agent that called it, if that is its user's, or in
one in which nobody said a word. List this middleware last, so that nothing edits a call after
it; the tools enforce again anyway.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NotRequired

import structlog
from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ModelRequest,
    PrivateStateAttr,
    TracePolicy,
    omit_payload,
)
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.prebuilt.tool_node import ToolCallRequest

from agentgate.errors import AgentGateError, ConfigError
from agentgate.identity.credential import AgentCredential
from agentgate.integrations.langchain.caller import callers_turns
from agentgate.integrations.langchain.calls import (
    HOST,
    INJECTED_FOR,
    RUN,
    Ask,
    Steps,
    adrive,
    drive,
    refusal,
)
from agentgate.integrations.langchain.guard import Host
from agentgate.integrations.langchain.identities import (
    Identity,
    Shown,
    identity_of,
    is_theirs,
    shown,
)
from agentgate.integrations.langchain.outcomes import add_no_run
from agentgate.integrations.langchain.talking_on import made_again, offer_again
from agentgate.integrations.langchain.task import SIBLINGS
from agentgate.integrations.langchain.tools import (
    forged_name,
    guard_tools,
    is_guarded,
    type_and_name,
)
from agentgate.integrations.langchain.turns import (
    Utterance,
    in_order,
    last_calls,
    last_human,
    marked_as_written,
    name_message,
    newer_than,
    said_before,
    texts_of,
    words_of,
)
from agentgate.shell.context import set_variables
from agentgate.values.refusal import NOT_SHOWN, Code, Failure, Reason, RunRefused
from agentgate.values.request import THREAD
from agentgate.values.visible import visible

_log = structlog.get_logger("agentgate.langchain")
UNREGISTERED = "a tool that nobody registered with the agent"
NO_MIDDLEWARE_RUN = (
    "no run: it was not opened (see run_not_opened or identity_unknown "
    "above), or it is not this user's or conversation's"
)
UNNAMED = " "  # which no gate takes
NO_CONVERSATION = (
    "history=True without conversation=: each invoke has a run of its own, in "
    "which no held call can be finished"
)
NO_HISTORY = "the user's messages before the newest ones; history=True counts them too"
MAX_RUNS = 10_000  # runs kept in this process; an older one is read from the store again
MAX_TOOLS = 1_000  # guarded copies kept of tools that were registered unguarded
# in the place of a run's id: that of the host, or of the agent that called this one
AROUND = "(around)"


class GateState(AgentState[Any]):
    """Adds the id of the run and the name of the last human message that it knows of: no secrets,
    neither input nor output of the graph.
    """

    agentgate_run: NotRequired[Annotated[str, PrivateStateAttr]]
    agentgate_heard: NotRequired[Annotated[str, PrivateStateAttr]]


@dataclass(frozen=True, slots=True, repr=False)
class _Open:
    """A run of this process: for whom it last went on, which conversation it belongs to, and
    which messages were read at its calls.
    """

    run: Any
    who: Shown | None
    thread: str | None
    read: set[str] = field(default_factory=set)


_CLOSED = {Reason.RUN_CLOSED, Reason.TOO_MANY_DENIALS, Reason.REVOKED}


def _is_closed(error: AgentGateError) -> bool:
    return isinstance(error, RunRefused) and any(
        failure.reason in _CLOSED for failure in error.failures
    )


class AgentGateMiddleware(AgentMiddleware[Any, Any, Any]):
    """Decides on every tool call of an agent built by `create_agent`.

    Args:
        gate: a `Gate`, or an `AsyncGate` for agents that are only invoked asynchronously.
        workflow: id of the workflow the agent's runs are opened under.
        identify: the runtime context (``invoke(..., context=...)``, to be passed again on
            resume) -> (tenant, user, agent), as `open_run` takes them: values of this process,
            or credentials. They are asked again at each invoke: who lost a group the workflow
            asks for does not go on with the run; a fresh credential of the same user or agent
            does. Whatever it raises is a refusal; on resume, where a refusal would use up the
            held call, a `ConfigError` out of the invoke.
        prompt: the runtime context -> the user's words of this invoke (None: they say nothing),
            for hosts that a server calls, or whose agent is part of another graph, tool or
            Runnable. Without it, what the caller passes in `user_says` are the user's words.
        history: take the earlier ones of that input for the user's too when a run is opened.
            For stateless callers, who pass a transcript that they keep themselves.
        ttl: the life of its runs in seconds, as `open_run` takes it.
        conversation: the runtime context -> the host's own id of the conversation, or
            ``"thread"``: the id of LangGraph's thread. By it the run is found again, in
            whichever process and without a checkpointer; where it is over, the user's next
            words open the one that follows, with its counts (docs/langchain.md). No id is a
            refusal; whatever it raises comes out of the invoke. None: of a thread a run that is
            full or over is followed while graph state names it, and for as long as it lived.
        inject: the runtime context -> values for arguments that the tools hide from the model
            (`InjectedToolArg`), as in `use_run`.

    Raises:
        ConfigError: `identify` cannot be called, `conversation` is neither, or the gate has no
            such workflow.
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
        ttl: int = 3600,
        conversation: Callable[[Any], str] | Literal["thread"] | None = None,
        inject: Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if not (conversation in {None, "thread"} or callable(conversation)):
            raise ConfigError(
                "conversation", conversation, 'a callable: runtime context -> id; or "thread"'
            )
        if history and conversation is None:
            _log.warning("holds_cannot_finish", workflow=workflow, reasons=[NO_CONVERSATION])
        if not callable(identify):
            raise ConfigError(
                "identify",
                type(identify).__name__,
                "a callable: runtime context -> (tenant, user, agent)",
            )
        loaded = sorted(known.id for known in gate.catalog)
        if workflow not in loaded:
            raise ConfigError(
                "workflow",
                workflow,
                f"the id of a workflow that the gate has loaded: {', '.join(loaded)}",
            )
        self.tools: Sequence[BaseTool] = []
        self._gate = gate
        self._workflow = workflow
        self._identify = identify
        self._prompt = prompt
        self._history = history
        self._inject = inject
        self._ttl = ttl
        self._conversation = conversation
        self._runs: OrderedDict[str, _Open] = OrderedDict()
        self._guarded: dict[int, tuple[BaseTool, BaseTool]] = {}

    # --- the run

    def before_agent(self, state: Any, runtime: Any) -> Any:
        """Open the run, or add what the user says now to the one this conversation has."""
        return drive(self._begin(state, runtime))

    async def abefore_agent(self, state: Any, runtime: Any) -> Any:
        """As `before_agent`."""
        return await adrive(self._begin(state, runtime))

    def _begin(self, state: Any, runtime: Any) -> Steps:
        identity = identity_of(self._identify, runtime.context)
        if (yield from self._around(identity)) is not None:
            return {"agentgate_run": AROUND}
        heard = {"agentgate_run": "", "agentgate_heard": last_human(state["messages"])}
        if isinstance(identity, str):
            _log.warning("identity_unknown", reasons=[identity])
            add_no_run(identity)
            return heard
        try:
            run = yield from self._told(state, runtime, identity)
        except AgentGateError as error:
            return heard | {"agentgate_run": self._not_opened(error, identity)}
        return (
            heard
            | {"agentgate_run": run}
            | ((yield from offer_again(self._runs[run].run, state["messages"])) if run else {})
        )

    def _told(self, state: Any, runtime: Any, identity: Identity) -> Steps:
        """The id of the run, in which stands what is said now; empty: there is none."""
        named = self._named(runtime)
        kept = yield from (
            self._resumed(named, identity, runtime)
            if named
            else self._known(state, runtime, identity)
        )
        said = self._said(state, runtime)
        if said is None:
            return ""
        agent_said = said_before(state["messages"])
        known = kept.run.state.spoken if kept is not None else ()
        # the run that follows has the counts of this one
        name = kept.run.header.conversation if kept is not None else named
        if kept is not None and not (name and kept.run.is_over):
            try:
                yield from _add(kept.run, words_of(said, known, history=False), agent_said)
            except AgentGateError as error:
                # by its denials, a revocation or its host; the thread stays with it
                if _is_closed(error):
                    raise
            else:
                return kept.run.id
        # what follows is new work
        words = words_of(said, known, history=self._history and not known)
        if not self._history and any(each.own and each.earlier for each in said):
            _log.warning("turns_not_counted", workflow=self._workflow, reasons=[NO_HISTORY])
        doubts = next((n for n, (counts, _) in enumerate(words) if counts), len(words))
        # of what the run that is over was asked for, something may wait
        if name and kept is not None:
            yield from _add(kept.run, words[:doubts])
        del words[:doubts]
        if not name and words and runtime.execution_info.thread_id is not None:
            name = THREAD + secrets.token_urlsafe(18)
        first, *later = words or [(True, "")]
        answered = "" if any(counts for counts, _ in later) else agent_said
        words_first = {"prompt": first[1], "agent_said": answered}
        opened = yield from self._open(
            identity, runtime, **words_first, ttl=self._ttl, conversation=name or None
        )
        yield from _add(opened.run, later, agent_said)
        return self._keep(opened).run.id

    def _open(self, identity: Identity, runtime: Any, **said: Any) -> Steps:
        """A run of theirs."""
        given = dict(zip(("tenant", "user", "agent"), identity, strict=True))
        run = yield Ask(self._gate.open_run, self._workflow, **given, **said)
        return _Open(run, shown(identity), runtime.execution_info.thread_id)

    def _not_opened(self, error: AgentGateError, identity: Identity) -> str:
        """Tell why there is no run; returns the id of one that is closed: its thread and
        conversation stay with it.
        """
        run = error.run if isinstance(error, RunRefused) and _is_closed(error) else ""
        _log.warning(
            "run_not_opened",
            workflow=self._workflow,
            tenant=identity[0],
            run=run,
            reasons=[visible(error)[:2000]],
        )
        add_no_run(error, run)
        return run

    def _named(self, runtime: Any) -> Any:
        """What the host says is the id of the conversation: a gate takes nothing but a name;
        empty: it was not asked to.
        """
        given = self._conversation
        if given is None:
            return ""
        return (
            runtime.execution_info.thread_id
            if isinstance(given, str)
            else given(runtime.context)
        ) or UNNAMED

    def _resumed(self, conversation: str, identity: Identity, runtime: Any) -> Steps:
        """The run of a conversation; None: it has none yet."""
        try:
            return self._keep(
                (yield from self._open(identity, runtime, prompt="", conversation=conversation))
            )
        except RunRefused as error:
            if {failure.reason for failure in error.failures} == {Reason.RUN_MISSING}:
                return None
            raise

    def _said(self, state: Any, runtime: Any) -> list[Utterance] | None:
        """What is said to this invoke, and what else may be the user's; None if the host's
        `prompt` failed.
        """
        new = newer_than(state["messages"], state.get("agentgate_heard", ""))
        if self._prompt is None:
            turns = callers_turns(get_config())
            if turns.uncounted:
                _log.warning(
                    "turns_not_counted", workflow=self._workflow, reasons=list(turns.uncounted)
                )
            return in_order(turns.said, new)
        try:
            words = self._prompt(runtime.context)
        except Exception as error:  # noqa: BLE001 - the host's function failed: no prompt, no run
            _log.warning(
                "run_not_opened",
                workflow=self._workflow,
                reasons=[f"prompt raised {type(error).__name__}"],
            )
            return None
        texts = [texts_of(message) for message in new]
        # where they are said; unknown: before all others
        at = max((n for n, each in enumerate(texts, 1) if words in each), default=0)
        others = [Utterance(tuple(text for text in each if text != words)) for each in texts]
        return [
            *others[:at],
            *([] if words is None else [Utterance((), (words,))]),
            *others[at:],
        ]

    def _around(self, identity: Identity | str) -> Steps:
        """The host's run, or that of the agent that called this one; None: there is none, or it
        is somebody else's.
        """
        run = RUN.get()
        if run is None or isinstance(identity, str):
            return run
        _, user, _ = identity
        try:
            if isinstance(user, AgentCredential):
                yield Ask(run.renew, user=user)
        except AgentGateError:
            return None
        return run if is_theirs(run.header, identity) else None

    def _known(
        self, state: Any, runtime: Any, identity: Identity, *, again: bool = True
    ) -> Steps:
        """The run that graph state names, if it is this identity's and this conversation's;
        `again`: what was shown before is proven.
        """
        name = state.get("agentgate_run") if isinstance(state, dict) else None
        if type(name) is not str or name in {"", AROUND}:
            return None
        tenant, user, agent = identity
        kept = self._runs.get(name)
        who = shown(identity)
        thread = runtime.execution_info.thread_id
        if kept and kept.thread != thread:
            return None
        if again or not kept:  # other processes may have gone on with it
            try:
                kept = _Open((yield Ask(self._gate.resume_run, tenant, name)), None, thread)
            except AgentGateError:
                return None
        if (own := kept.run.header.workflow) != self._workflow:
            if not again:
                return None
            expected = f"the thread's own, {own}"
            raise RunRefused(
                (Failure(Reason.RUN_CLOSED, "workflow", self._workflow, expected),), name
            )
        try:
            if again or kept.who != who or kept.run.is_over:
                yield Ask(kept.run.continue_for, tenant=tenant, user=user, agent=agent)
        except AgentGateError as error:
            if not _is_closed(error):
                _log.warning("identity_unknown", run=name, reasons=[visible(error)[:2000]])
                if not again:  # else a run of their own is opened
                    add_no_run(error, name)
                return None
        return self._keep(replace(kept, who=who))

    def _keep(self, opened: _Open) -> _Open:
        self._runs[opened.run.id] = opened
        while len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)
        return opened

    # --- the calls

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]
    ) -> Any:
        """Run the call in its run; the guarded tool decides."""
        run = drive(self._run_of(request))
        with self._bound(request, run) as ready:
            result = ready if isinstance(ready, ToolMessage) else handler(ready)
        return marked_as_written(result)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """As `wrap_tool_call`."""
        run = await adrive(self._run_of(request))
        with self._bound(request, run) as ready:
            result = ready if isinstance(ready, ToolMessage) else await handler(ready)
        return marked_as_written(result)

    def _run_of(self, request: ToolCallRequest) -> Steps:
        """The run that a call belongs to; None: it has none."""
        state = request.state
        identity = identity_of(self._identify, request.runtime.context)
        name = state.get("agentgate_run", AROUND) if isinstance(state, dict) else AROUND
        if name == AROUND:
            return (yield from self._around(identity))
        if isinstance(identity, str):
            _log.warning("identity_unknown", reasons=[identity])
            if name:  # resumed: the call must stay as it is
                expected = (
                    "the context of the first invoke, on resume too (context=...); "
                    "nothing ran, so resume again with it"
                )
                raise ConfigError("context", type(request.runtime.context).__name__, expected)
            return None
        kept = yield from self._known(state, request.runtime, identity, again=False)
        if not kept:
            return None
        new = [
            each
            for each in newer_than(state["messages"], state.get("agentgate_heard", ""))
            if name_message(each) not in kept.read
        ]
        try:
            yield from _add(
                kept.run,
                words_of([Utterance(texts_of(each)) for each in new], (), history=False),
            )
        except AgentGateError as error:
            _log.warning("turns_not_counted", run=kept.run.id, reasons=[visible(error)[:2000]])
            return None
        kept.read.update(map(name_message, new))
        return kept.run

    @contextmanager
    def _bound(
        self, request: ToolCallRequest, run: Any
    ) -> Iterator[ToolCallRequest | ToolMessage]:
        name = request.tool_call["name"]
        call_id = request.tool_call["id"]
        try:
            tool = self._guard(request.tool)
            host = self._host(run, request.runtime)
        except AgentGateError as error:
            yield _refused(Code.NOT_PERMITTED, name, call_id, str(error))
            return
        if tool is None or run is None or call_id is None:
            why = (
                UNREGISTERED
                if tool is None
                else NO_MIDDLEWARE_RUN
                if run is None
                else "a call without an id"
            )
            yield _refused(
                Code.NOT_PERMITTED,
                name,
                call_id,
                why,
                logged=NOT_SHOWN if tool is None else name,
            )
        # LangGraph would strip a forged value in silence
        elif forged := forged_name(tool, request.tool_call["args"]):
            yield _refused(Code.INVALID_ARGUMENTS, name, call_id, forged)
        else:
            with set_variables(
                (RUN, run),
                (HOST, host),
                (INJECTED_FOR, call_id),
                (SIBLINGS, last_calls(request.state)),
            ):
                yield request.override(tool=tool)

    def _host(self, run: Any, runtime: Any) -> Host | None:
        """What the host injects: of its context, or, in a run that it bound itself, what it
        said there.

        Raises:
            ConfigError: `inject` failed, or returned no mapping of names.
        """
        if self._inject is None:
            return HOST.get()
        try:
            values = self._inject(runtime.context)
        except Exception as error:
            raise ConfigError(
                "inject", f"{type(error).__name__} raised", "a mapping: argument name -> value"
            ) from error
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
            # tools made per request; guarding again is cheap
            if len(self._guarded) >= MAX_TOOLS:
                self._guarded.clear()
            known = self._guarded[id(tool)] = (tool, guard_tools(tool)[0])
        return known[1]

    # --- the tools that the model is offered

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        """Drop the provider's own tools, which run on its servers, where no gate can be.

        Raises:
            ConfigError, CanonicalError: a tool cannot be guarded.
        """
        return made_again(request.messages) or handler(self._offered(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """As `wrap_model_call`."""
        return made_again(request.messages) or await handler(self._offered(request))

    def _offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        offered: list[BaseTool | dict[str, Any]] = []
        for tool in request.tools:
            if isinstance(tool, dict):
                _log.warning(
                    "tool_not_offered",
                    tool=type_and_name(tool),
                    reasons=["a provider runs it; no gate can be inside it"],
                )
            else:
                self._guard(tool)
                offered.append(tool)
        return request.override(tools=offered)


def _refused(
    code: Code, name: str, call_id: str | None, why: str, logged: str = ""
) -> ToolMessage:
    return refusal(  # type: ignore[no-any-return]  # a message, since there is an id
        code, name=name, tool_call_id=call_id or "", why=why, logged=logged
    )


def _add(run: Any, words: list[tuple[bool, Any]], agent_said: str = "") -> Steps:
    """Add turns, and words that may be the user's, to a run; the last turn answers what the
    agent said.
    """
    last = max((n for n, (counts, _) in enumerate(words) if counts), default=-1)
    for n, (counts, text) in enumerate(words):
        if counts:
            yield Ask(run.add_turn, text, agent_said=agent_said if n == last else "")
        else:
            yield Ask(run.add_doubt, text)
