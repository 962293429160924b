"""What a guarded tool holds beside the tool itself, what it takes of the input that LangChain
hands it, and what others put into that.

Rules: only names that the tool hides from the model can be injected. A value that no JSON can
carry is no model's. Any other counts as injected if the middleware saw the call before
LangGraph's `ToolNode` replaced what the model sent, if it is the very object that a
`ToolRuntime` of this call holds in its graph state (`ToolNode` makes both), or if the host said
it (`use_run(run, inject=...)`). Whatever else stands under such a name is forged. Injected
values never enter the canonical bytes.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, get_origin

from langchain_core.tools import BaseTool, InjectedToolArg
from langchain_core.tools.base import get_all_basemodel_annotations
from pydantic import BaseModel, RootModel, create_model
from pydantic.json_schema import SkipJsonSchema

from agentgate.errors import CanonicalError, ConfigError
from agentgate.integrations.langchain.arguments import Arguments, definition_of
from agentgate.values.entities import describe_forms
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Tool

# under which ToolNode gives its ToolRuntime to a tool that takes graph state and no ToolRuntime
# of its own
WITNESS = "agentgate_runtime"
_JSON_TYPES = (str, int, float, bool, type(None), list, tuple, dict)


@dataclass(frozen=True, slots=True, repr=False)
class Host:
    """What the host injects into the calls of one run."""

    run: Any
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        values: Any = self.values
        if not isinstance(values, Mapping) or not all(type(name) is str for name in values):
            raise ConfigError(
                "inject", type(values).__name__, "a mapping: argument name -> value"
            )


def is_json(value: Any) -> bool:
    """Whether a model could have sent it."""
    return isinstance(value, _JSON_TYPES)


def _tool_node() -> Any:
    """LangGraph's module, where somebody has imported it; only then can it inject anything."""
    return sys.modules.get("langgraph.prebuilt.tool_node")


def _hints(tool: BaseTool) -> dict[str, Any]:
    """The annotations of a tool's arguments: of its function, and of its schema where that is a
    model.
    """
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
    hints: dict[str, Any] = {}
    with suppress(NameError, TypeError, AttributeError):  # LangGraph cannot read them either
        hints = (
            typing.get_type_hints(function, include_extras=True) if function is not None else {}
        )
    schema: Any = None if isinstance(tool.args_schema, dict) else tool.get_input_schema()
    if schema is not None and issubclass(schema, BaseModel):
        hints |= get_all_basemodel_annotations(schema)
    return hints


@value_class
class Injections:
    """What LangGraph's `ToolNode` puts into a tool's calls.

    Attributes:
        state: the arguments that it fills from graph state, and which field of it each takes;
            None: all of it.
        runtime: whether the tool takes a `ToolRuntime`.
    """

    state: Mapping[str, str | None]
    runtime: bool

    @classmethod
    def of(cls, tool: BaseTool) -> Injections:
        """Read them where `ToolNode` does: from the tool's schema and its function."""
        module = _tool_node()
        if module is None:
            return cls({}, runtime=False)
        state: dict[str, str | None] = {}
        runtime = False
        for name, hint in _hints(tool).items():
            marks = getattr(hint, "__metadata__", ())
            for mark in marks:
                if isinstance(mark, module.InjectedState):
                    state[name] = mark.field
                elif mark is module.InjectedState:
                    state[name] = None
            runtime = runtime or any(
                get_origin(each) is module.ToolRuntime or each is module.ToolRuntime
                for each in (hint, *marks)
            )
        return cls(state, runtime)

    def witnessed(self, schema: Any) -> Any:
        """The input schema by which `ToolNode` sees what to inject.

        Where a tool takes graph state and no `ToolRuntime`: with one more name, for
        `ToolNode`'s own. JSON schemas do not show it.
        """
        if (
            not self.state
            or self.runtime
            or not issubclass(schema, BaseModel)
            or issubclass(schema, RootModel)
        ):
            return schema
        mark = Annotated[Any, InjectedToolArg, _tool_node().ToolRuntime, SkipJsonSchema()]
        more: Any = {WITNESS: (mark, None)}
        return create_model(schema.__name__, __base__=schema, __doc__=schema.__doc__, **more)


def injects(tool: BaseTool) -> bool:
    """Whether LangGraph or the host injects anything into a tool's calls."""
    return bool(Arguments(tool).injected)


def hidden(tool: BaseTool) -> frozenset[str]:
    """The arguments that only a host can inject: hidden from the model, and nothing that
    LangGraph injects.
    """
    module = _tool_node()
    by_graph = (
        (module.InjectedState, module.InjectedStore, module.ToolRuntime)
        if module is not None
        else ()
    )
    found = set()
    for name, hint in _hints(tool).items():
        marks = getattr(hint, "__metadata__", ())
        ours = any(
            mark is InjectedToolArg or isinstance(mark, InjectedToolArg) for mark in marks
        )
        if ours and not any(isinstance(mark, by_graph) or mark in by_graph for mark in marks):
            found.add(name)
    return frozenset(found)


def runtime_in(given: Mapping[str, Any], tool_call_id: str | None) -> Any:
    """The `ToolRuntime` that `ToolNode` made for this call; None if there is none."""
    module = _tool_node()
    if module is None or tool_call_id is None:
        return None
    made = (value for value in given.values() if isinstance(value, module.ToolRuntime))
    return next((runtime for runtime in made if runtime.tool_call_id == tool_call_id), None)


def from_state(value: Any, field: str | None, runtime: Any) -> bool:
    """Whether a value is what `ToolNode` takes from this runtime's graph state: the same
    object, not an equal one.
    """
    state = runtime.state
    if isinstance(state, list):  # ToolNode wraps messages that are all of the state
        if value is state:
            return True
        return (
            field is None
            and type(value) is dict
            and len(value) == 1
            and next(iter(value.values())) is state
        )
    if field is None:
        return value is state
    return value is (
        state.get(field, runtime) if isinstance(state, dict) else getattr(state, field, runtime)
    )


@dataclass(slots=True, repr=False)
class Guard:
    """What a guarded tool holds.

    Attributes:
        arguments: what the model may set.
        run: the run it was bound to, if any.
        framework: the parameters that LangChain itself fills.
        injections: what `ToolNode` puts into its calls.
        untraced: the names that no callback is shown.
    """

    arguments: Arguments
    run: Any
    framework: frozenset[str]
    injections: Injections
    untraced: set[str]
    _definition: tuple[Any, str] = (None, "")

    def definition(self, tool: BaseTool) -> str:
        """The tool's digest as it is now: a description or schema exchanged after wrapping
        changes it (rug pull).
        """
        if isinstance(tool.args_schema, dict):
            return definition_of(tool)
        key = (tool.name, tool.description, tool.args_schema)
        if self._definition[0] != key:
            self._definition = (key, definition_of(tool))
        return self._definition[1]

    def form_of(self, fields: Iterable[str], tool: BaseTool, declared: Tool | None) -> str:
        """What a model is told of arguments in a wrong form: what their schema says, where the
        workflow pins it.
        """
        pinned = declared is not None and declared.definition == self.definition(tool)
        return describe_forms(self.arguments.shape, fields) if pinned else ""

    def positional(self, args: tuple[Any, ...]) -> dict[str, Any]:
        """A text input, which LangChain passes by position, under the name of the argument it
        fills.

        Raises:
            CanonicalError: more than one value, or no argument that text may fill.
        """
        if not args:
            return {}
        if len(args) > 1 or not self.arguments.text:
            raise CanonicalError(
                "args",
                f"{len(args)} values by position",
                "one text, for the first argument the model may set",
            )
        return {self.arguments.text: args[0]}

    def forged(self, given: Mapping[str, Any], *, trusted: bool, runtime: Any = None) -> str:
        """Why a name or an injected value may come from the model and must not; empty if
        nothing may.

        Args:
            given: the names and values.
            trusted: the middleware saw what the model sent, and `ToolNode` replaced it.
            runtime: the `ToolRuntime` of this call, which vouches for its own state.
        """
        if self.arguments.bare and len(given) == 1:
            return ""
        for name, value in given.items():
            if name in self.arguments.spellings:
                continue
            if name not in self.arguments.injected:
                return self.arguments.not_the_models(name)
            if trusted or not is_json(value):
                continue
            state = self.injections.state
            if (
                runtime is None
                or name not in state
                or not from_state(value, state[name], runtime)
            ):
                return self.arguments.not_the_models(name)
        return ""

    def received(
        self, given: Any, tool_call_id: str | None, host: Host | None, *, trusted: bool
    ) -> tuple[Any, str]:
        """The input of `run` or `arun` as LangChain gets it, with what the host injects, and
        why it may be forged (or empty).
        """
        if isinstance(given, dict):
            runtime = runtime_in(given, tool_call_id)
            if runtime is not None and given.get(WITNESS) is runtime:
                given = {name: value for name, value in given.items() if name != WITNESS}
            if forged := self.forged(given, trusted=trusted, runtime=runtime):
                return given, forged
        values = host.values if host else {}
        if shown := sorted(values.keys() & self.arguments.spellings):
            return given, self.arguments.shown(shown[0])
        injected = {n: v for n, v in values.items() if n in self.arguments.injected}
        if injected and self.arguments.text and not isinstance(given, dict):
            given = {self.arguments.text: given}
        return ({**given, **injected} if isinstance(given, dict) else given), ""
