"""LangChain tools that enforce the gate's decision inside themselves, on validated arguments.

Rules: a guarded tool is a copy whose class is a subclass of the tool's own, so schema,
callbacks, error handling and response format stay the same. Its body cannot be reached around
the decision, except by a host that calls `tool.func` itself: the gate does not see that
function. What leads to the body (`invoke`, `run`, ...) must be LangChain's own, else it could
be the body; a tool that replaces it is refused. The methods that decide are properties, so no
attribute of a guarded tool hides them. An `_arun` that falls through to `_run` is decided on
once; a tool that calls itself is decided on again.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from inspect import getattr_static
from types import FunctionType, MethodType
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, Tool
from pydantic import (
    PrivateAttr,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    ValidationError,
)
from pydantic.v1 import ValidationError as ValidationErrorV1

from agentgate.errors import ConfigError
from agentgate.integrations.langchain.arguments import Arguments
from agentgate.integrations.langchain.calls import (
    CLEARED,
    CREDENTIAL,
    HOST,
    INJECTED_FOR,
    KEY,
    PROPOSAL,
    RUN,
    TOKEN,
    Cleared,
    Execute,
    ProposedCall,
    adrive,
    drive,
    locked_steps,
    refusal_of,
    run_of,
)
from agentgate.integrations.langchain.guard import Guard, Host, Injections
from agentgate.integrations.langchain.one_thread import in_one_thread, queue_call
from agentgate.integrations.langchain.task import in_task
from agentgate.redemption.credential import UpstreamCredential
from agentgate.shell.context import set_variables
from agentgate.token.mint import CallToken
from agentgate.values.refusal import Code, RunRefused
from agentgate.workflow.model import Tool as Declared

T = TypeVar("T")
# LangChain fills these; `FILTERED_ARGS` in langchain-core
_FRAMEWORK = frozenset({"run_manager", "callbacks"})
# every way to execute a tool; LangChain's own lead to `_run` or `_arun`, where the decision is
_ENTRY_POINTS = frozenset(
    "invoke ainvoke run arun batch abatch batch_as_completed abatch_as_completed stream astream "
    "astream_log stream_events astream_events transform atransform __call__ "
    "__getattribute__".split()
)


def guard_tools(tools: BaseTool | Sequence[BaseTool], *, run: Any = None) -> list[BaseTool]:
    """Copies of the tools that run only calls the gate allowed.

    Args:
        tools: any `BaseTool`s, sync or async, or a single one. Their names are the workflow's
            tool names.
        run: an open `Run` or `AsyncRun`; without it, the run of `use_run` or of
            `AgentGateMiddleware` is used.

    Raises:
        ConfigError: something is not a `BaseTool` (a callable, what `bind` returns, a
            provider's own tool), has its body elsewhere than in `_run` or `_arun`, is guarded
            already, or has an unusable schema.
        CanonicalError: a schema has no canonical form, so its definition has no digest.
    """
    return [_guarded(tool, run) for tool in (tools if isinstance(tools, Sequence) else [tools])]


def is_guarded(tool: object) -> bool:
    """True for what `guard_tools` returned."""
    return isinstance(tool, BaseTool) and isinstance(getattr(tool, "_agentgate", None), Guard)


def forged_name(tool: BaseTool, given: Mapping[str, Any]) -> str:
    """Why a guarded tool's raw arguments hold a name that the model may not set; empty if they
    hold none.
    """
    arguments = _guard_of(tool).arguments
    return next(
        (arguments.not_the_models(name) for name in given if name not in arguments.spellings),
        "",
    )


def call_token() -> CallToken:
    """The token of the call being executed, inside a tool with ``redeem: server``.

    Raises:
        LookupError: not inside such a tool.
    """
    return _current(
        TOKEN.get(), "call token", "a guarded tool whose workflow says 'redeem: server'"
    )


def idempotency_key() -> str:
    """The key of the act being executed, for the ``Idempotency-Key`` header of what the tool
    calls.

    It is the same for each attempt at this act, under whatever id of the model's, until one is
    done or failed.

    Raises:
        LookupError: not inside a guarded tool that acts.
    """
    return _current(KEY.get(), "idempotency key", "a guarded tool that does not only read")


def upstream_credential() -> UpstreamCredential:
    """The real credential of the call being executed, inside a tool with ``redeem: wrapper``
    whose workflow has an ``upstream:`` for it.

    Raises:
        LookupError: not inside such a tool.
    """
    who = "a tool with 'redeem: wrapper' and an 'upstream:'"
    return _current(CREDENTIAL.get(), "upstream credential", who)


def _current(value: T | None, what: str, who: str) -> T:
    if not value:
        raise LookupError(f"no {what} here: only {who} has one, while it runs")
    return value


def use_run(run: Any, *, inject: Mapping[str, Any] | None = None) -> set_variables:
    """Bind a `Run` or `AsyncRun` to the current context, for guarded tools that were given
    none.

    Args:
        run: the run.
        inject: values for arguments that the tools hide from the model (`InjectedToolArg`), by
            name, in the calls of this run; each tool takes those that it has. What a model
            sends under such a name is refused, and so is a tool that shows the name to the
            model.

    Raises:
        ConfigError: `inject` is no mapping of names.
    """
    return set_variables((RUN, run), (HOST, None if inject is None else Host(run, inject)))


def _guard_of(tool: Any) -> Guard:
    guard: Guard = tool.__pydantic_private__["_agentgate"]  # declared in the generated class
    return guard


def type_and_name(tool: Any) -> str:
    """What a message calls something that may be no tool at all."""
    name = (
        tool.get("name") or tool.get("type")
        if isinstance(tool, dict)
        else getattr(tool, "name", None)
    )
    return f"{type(tool).__name__} '{name}'" if name else type(tool).__name__


def _replaced(tool: BaseTool) -> list[str]:
    """Methods, other than those that a tool implements, that are not LangChain's own; on an
    instance, none may be replaced at all.
    """
    own = (BaseTool, StructuredTool, Tool)
    by_class = {
        n
        for n in _ENTRY_POINTS
        if not any(
            getattr_static(type(tool), n, None) is getattr_static(base, n, None) for base in own
        )
    }
    by_instance = vars(tool).keys() & (_ENTRY_POINTS | {"_run", "_arun"})
    return sorted(by_class | by_instance)


def _guarded(tool: BaseTool, run: Any) -> BaseTool:
    if not isinstance(tool, BaseTool):
        expected = (
            "LangChain tools (of a function @tool makes one; in tools that a provider "
            "runs no gate can be)"
        )
        raise ConfigError("tools", type_and_name(tool), expected)
    if replaced := _replaced(tool):
        raise ConfigError(
            "tools",
            f"{type_and_name(tool)}, which replaces {', '.join(replaced)}",
            "tools whose body is in _run or _arun",
        )
    bodies = (
        getattr(tool, "func", None),
        getattr(tool, "coroutine", None),
        tool._run,  # noqa: SLF001 - what a tool implements
        tool._arun,  # noqa: SLF001 - what a tool implements
    )
    if any(
        inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body) for body in bodies
    ):
        raise ConfigError(
            "tools",
            f"'{tool.name}', which yields",
            "tools that return their result: of one that yields nothing has run by then",
        )
    if is_guarded(tool):
        raise ConfigError(
            "tools",
            f"'{tool.name}', which is guarded already",
            "tools that are not guarded yet",
        )
    try:
        guard = _make_guard(tool, run)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        got = (
            f"the schema of '{tool.name}', which pydantic cannot build ({type(error).__name__})"
        )
        raise ConfigError(
            "args_schema", got, "a schema whose types are all defined when the tool is guarded"
        ) from error
    if taken := sorted(guard.framework & guard.arguments.spellings):
        raise ConfigError(
            "args_schema",
            f"'{tool.name}' with {taken}",
            "names that LangChain does not fill itself",
        )
    guard.definition(tool)
    copied: Any = _copied(tool, _copy)
    object.__setattr__(copied, "__class__", _guarded_class(type(tool)))
    copied._agentgate = guard  # noqa: SLF001 - declared in the generated class
    guarded: BaseTool = copied
    return guarded


def _make_guard(tool: BaseTool, run: Any) -> Guard:
    """What a guarded tool holds. Raises as `Arguments`."""
    arguments = Arguments(tool)
    names = dict.fromkeys(_FRAMEWORK | arguments.injected)
    traced = tool._filter_injected_args(names)  # noqa: SLF001 - what LangChain works out on every call
    return Guard(
        arguments,
        run,
        _FRAMEWORK | _config_names(type(tool)),
        Injections.of(tool),
        names.keys() - traced.keys(),
    )


def _config_names(base: type[BaseTool]) -> frozenset[str]:
    """Names of the parameters of `_run` and `_arun` that LangChain fills with the
    `RunnableConfig`.
    """
    names: set[str] = set()
    for method in (base._run, base._arun):  # noqa: SLF001 - the two methods a tool implements
        # LangChain cannot read them either and fills nothing
        with suppress(NameError, TypeError, AttributeError):
            hints = typing.get_type_hints(method)
            names.update(n for n, hint in hints.items() if hint is RunnableConfig)
    return frozenset(names)


@functools.cache
def _guarded_class(base: Any) -> type[BaseTool]:
    """A subclass of the tool's own class that decides before every execution."""
    base_run, base_arun = base._run, base._arun  # noqa: SLF001 - the two methods a tool implements

    # LangChain reads from the signatures whether to pass config and run_manager: hence
    # functools.wraps
    @functools.wraps(base_run)
    def _run(self: Any, *args: Any, **kwargs: Any) -> Any:
        cleared = CLEARED.get()
        if (
            cleared
            and cleared.tool is self
            and not cleared.used
            and _same(cleared.values, _values(args, kwargs))
        ):
            cleared.used = True
            return base_run(self, *args, **kwargs)
        if base_run in {StructuredTool._run, Tool._run} and self.func is None:  # noqa: SLF001 - no token for what cannot run
            raise NotImplementedError(
                f"{self.name} is async only: await ainvoke; nothing was decided, and no token was minted"
            )
        return drive(
            locked_steps(self, _guard_of(self), args, kwargs),
            lambda step: base_run(self, *step.args, **step.kwargs),
        )

    # BaseTool._arun shows neither parameter and hands both on to _run
    @functools.wraps(base_run if base_arun is BaseTool._arun else base_arun)  # noqa: SLF001
    async def _arun(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _runs_in_thread(self, base_arun) and (proposal := queue_call(_guard_of(self), self)):
            # it leads to `_run`
            return await in_one_thread(proposal, base_arun(self, *args, **kwargs))

        async def execute(step: Execute) -> Any:
            with set_variables((CLEARED, Cleared(self, _values(step.args, step.kwargs)))):
                return await base_arun(self, *step.args, **step.kwargs)

        return await adrive(locked_steps(self, _guard_of(self), args, kwargs), execute)

    def _filter_injected_args(self: Any, tool_input: dict[str, Any]) -> dict[str, Any]:
        untraced = _guard_of(self).untraced
        return {n: v for n, v in tool_input.items() if n not in untraced}

    @functools.wraps(base.get_input_schema)
    def get_input_schema(self: Any, *args: Any, **kwargs: Any) -> Any:
        schema = base.get_input_schema(self, *args, **kwargs)
        return _guard_of(self).injections.witnessed(schema)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: ARG001, N807 - pickle names it
        return _guarded_again, (_unguarded(self, base),)

    namespace = {
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "__annotations__": {"_agentgate": Any},
        "_agentgate": PrivateAttr(default=None),
        "_run": _method(_run),
        "_arun": _method(_arun),
        **_make_run_methods(base),
        "get_input_schema": get_input_schema,
        "__reduce_ex__": __reduce_ex__,
        # StructuredTool and Tool run a sync function's whole `invoke` in a thread, where an
        # AsyncRun cannot be awaited; BaseTool's own way sends only the function there.
        "ainvoke": BaseTool.ainvoke,
    }
    if base._filter_injected_args is BaseTool._filter_injected_args:  # noqa: SLF001 - as above
        namespace["_filter_injected_args"] = _filter_injected_args
    made: type[BaseTool] = type(base)(base.__name__, (base,), namespace)
    return made


def _make_run_methods(base: Any) -> dict[str, property]:
    """`run` and `arun`, which note what they receive before LangChain validates it."""

    @functools.wraps(base.run)
    def run(self: Any, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with _proposed(self, tool_input, kwargs) as (proposal, ready):
            try:
                return base.run(self, ready, *args, **kwargs)
            except (ValidationError, ValidationErrorV1) as error:
                return _refuse_form(proposal, error)

    @functools.wraps(base.arun)
    async def arun(self: Any, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with _proposed(self, tool_input, kwargs) as (proposal, ready):
            try:
                return await base.arun(self, ready, *args, **kwargs)
            except (ValidationError, ValidationErrorV1) as error:
                return _refuse_form(proposal, error)

    return {"run": _method(run), "arun": _method(arun)}


def _runs_in_thread(tool: Any, base_arun: Any) -> bool:
    """Whether LangChain runs the function of an awaited call in a thread."""
    return base_arun is BaseTool._arun or (  # noqa: SLF001
        base_arun in {StructuredTool._arun, Tool._arun} and tool.coroutine is None  # noqa: SLF001
    )


def _unguarded(tool: Any, base: Any) -> BaseTool:
    """A copy of the tool as it was, to be pickled in its place; what it is guarded with cannot
    be sent anywhere.

    Raises:
        ConfigError: it is bound to a run.
    """
    if _guard_of(tool).run is not None:
        raise ConfigError(
            "pickle",
            f"'{tool.name}', which is bound to a run",
            "a tool guarded without run=, in use_run(run) where it runs",
        )
    raw: Any = _copied(tool, _original)
    object.__setattr__(raw, "__class__", base)
    raw.__pydantic_private__ = {
        name: value for name, value in raw.__pydantic_private__.items() if name != "_agentgate"
    }
    unguarded: BaseTool = raw
    return unguarded


def _guarded_again(tool: BaseTool) -> BaseTool:
    return guard_tools(tool)[0]


def _method(function: Any) -> property:
    """A method that an attribute of the instance cannot hide."""
    _read(function)
    # of a tool that has a function LangChain only asks which parameter takes the config
    if function.__wrapped__ in {StructuredTool._run, StructuredTool._arun}:  # noqa: SLF001
        hints = function.__annotations__
        function.__annotations__ = {n: h for n, h in hints.items() if h is RunnableConfig}
    return property(lambda self: MethodType(function, self))


def _read(function: Any) -> Any:
    """The function, with its annotations and its signature as LangChain reads them on every
    call.
    """
    # LangChain cannot read them either and fills nothing
    with suppress(NameError, TypeError, AttributeError):
        function.__annotations__ = typing.get_type_hints(function, include_extras=True)
        function.__signature__ = inspect.signature(function)
    return function


def _copied(tool: Any, change: Callable[[FunctionType], Any]) -> Any:
    """A copy of a tool, with what `change` makes of each function that it runs."""
    return tool.model_copy(
        update={
            name: change(body)
            for name in ("func", "coroutine")
            if isinstance(body := getattr(tool, name, None), FunctionType)
        }
    )


def _copy(body: FunctionType) -> Any:
    """A function of its own that runs the same, so that the host's stays as it is."""
    copied = FunctionType(
        body.__code__, body.__globals__, body.__name__, body.__defaults__, body.__closure__
    )
    copied.__kwdefaults__ = body.__kwdefaults__
    return _read(functools.update_wrapper(copied, body))


def _original(body: FunctionType) -> Any:
    """The host's function, of a copy of it."""
    inner = getattr(body, "__wrapped__", None)
    return inner if getattr(inner, "__code__", None) is body.__code__ else body


@contextmanager
def _proposed(
    tool: Any, tool_input: Any, kwargs: Mapping[str, Any]
) -> Iterator[tuple[ProposedCall, Any]]:
    """What `run` or `arun` goes on with, while it is known what it received."""
    guard = _guard_of(tool)
    host = HOST.get()
    tool_call_id = kwargs.get("tool_call_id")
    trusted = tool_call_id is not None and INJECTED_FOR.get() == tool_call_id
    run = run_of(guard)
    ours = host if host and host.run is run else None
    declared: Declared | None = None
    with suppress(RunRefused):  # `authorize` says why
        declared = run.workflow.tools.get(tool.name) if run is not None else None
    if isinstance(tool_input, dict):
        tool_input = guard.arguments.in_form(tool_input, declared)
    ready, forged = guard.received(tool_input, tool_call_id, ours, trusted=trusted)
    with in_task(run, kwargs.get("config"), tool_call_id) as call:
        proposal = ProposedCall(tool, tool_call_id, forged, call, declared)
        with set_variables((PROPOSAL, proposal), (INJECTED_FOR, None), (CLEARED, None)):
            yield proposal, ready


def _refuse_form(proposal: ProposedCall, error: ValidationError | ValidationErrorV1) -> Any:
    """The result of arguments that the tool's own schema refused, where the workflow pins it;
    else LangChain's error, as ever.

    Raises the error, too, where the tool's body raised it.
    """
    fields = [f"args.{each['loc'][0]}" for each in error.errors() if each["loc"]]
    form = (
        ""
        if proposal.reached
        else _guard_of(proposal.tool).form_of(fields, proposal.tool, proposal.declared)
    )
    if not form:
        raise error
    return refusal_of(proposal)(
        Code.INVALID_ARGUMENTS, why=f"args: got another form, expected {form}", form=form
    )


def _values(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*args, *(kwargs[name] for name in sorted(kwargs) if name not in _FRAMEWORK))


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
