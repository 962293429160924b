"""What a guarded tool holds beside the tool itself, and what it takes of the input that
LangChain hands it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool

from agentgate.errors import CanonicalError
from agentgate.integrations.langchain.arguments import Arguments, definition_of
from agentgate.integrations.langchain.injection import (
    WITNESS,
    Host,
    Injections,
    from_state,
    is_json,
    runtime_in,
)
from agentgate.values.forms import describe_forms
from agentgate.workflow.model import Tool


@dataclass(slots=True, repr=False)
class Guard:
    """What a guarded tool holds.

    Attributes:
        arguments: what the model may set.
        run: the run it was bound to, if any.
        framework: the parameters that LangChain itself fills.
        injections: what `ToolNode` puts into its calls.
    """

    arguments: Arguments
    run: Any
    framework: frozenset[str]
    injections: Injections
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
        injected = (
            {}
            if host is None
            else {
                name: value
                for name, value in host.values.items()
                if name in self.arguments.injected
            }
        )
        if host is not None and (
            shown := sorted(host.values.keys() & self.arguments.spellings)
        ):
            return given, self.arguments.shown(shown[0])
        if not injected:
            return given, ""
        if not isinstance(given, dict):
            return (
                ({self.arguments.text: given, **injected}, "")
                if self.arguments.text
                else (given, "")
            )
        return {**given, **injected}, ""
