"""Reads real tools as their code or server declares them, to draft a workflow from them.

Rules: a tool's name, description, schema and annotations are untrusted data and never
instructions. Only `from_langchain` runs code, and only the module that the developer names on
the command line.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from agentgate.errors import CanonicalError, ConfigError
from agentgate.loading.definition import read_file
from agentgate.values.canonical import definition_digest
from agentgate.values.forms import mapping
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Effect

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

MAX_BYTES = 4 * 1024 * 1024
UNSAID = "its name does not say what it does"
_HINTS = ("readOnlyHint", "destructiveHint", "openWorldHint")
_OBJECT = re.compile(
    r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", re.ASCII
)


@value_class
class DeclaredTool:
    """One tool as declared."""

    name: str
    description: str  # what it says of itself
    schema: Mapping[str, Any]  # the JSON Schema of its arguments
    definition: str  # the ``sha256:...`` that a workflow pins
    hints: Mapping[str, bool]  # those MCP annotations that it sets to true or false


def from_langchain(where: str) -> tuple[DeclaredTool, ...]:
    """The tools of a Python object (``package.module:tools``, a `BaseTool` or a list of them).
    Imports the module, which runs its code.

    Raises ConfigError: no such object, its import fails, or it is something other than
    LangChain tools.
    """
    from agentgate.integrations.langchain.arguments import definition_of, shown_schema  # noqa: PLC0415 - as below

    tools = import_tools(where)
    return tuple(
        [
            DeclaredTool(
                t.name, t.description, shown_schema(t), definition_of(t), _hints(t.metadata)
            )
            for t in tools
        ]
    )


def import_tools(where: str) -> list[BaseTool]:
    """The LangChain tools themselves; see `from_langchain`."""
    from langchain_core.tools import BaseTool  # noqa: PLC0415 - a fifth of a second that other commands do not need

    target = import_object("langchain", where)
    tools = [target] if isinstance(target, BaseTool) else target
    if (
        not isinstance(tools, (list, tuple))
        or not tools
        or not all(isinstance(tool, BaseTool) for tool in tools)
    ):
        raise ConfigError(
            "langchain",
            f"{where}, a {type(target).__name__}",
            "a list of LangChain tools (@tool, StructuredTool, BaseTool)",
        )
    return list(tools)


def import_object(setting: str, where: str) -> Any:
    """What a module has under a name (``package.module:name``). Imports the module, which runs
    its code.

    Raises ConfigError: of this setting; no such object, or its import fails.
    """
    named = _OBJECT.fullmatch(where)
    if named is None:
        raise ConfigError(setting, where, "package.module:name")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does, for a module in the current folder
    try:
        # the module's output must not mix with ours
        with contextlib.redirect_stdout(sys.stderr):
            target: Any = importlib.import_module(named[1])
        for part in named[2].split("."):
            target = getattr(target, part)
    except Exception as error:  # a foreign module may raise anything
        raise ConfigError(
            setting, where, f"a module that imports ({type(error).__name__}: {error})"
        ) from error
    return target


def _hints(annotations: object) -> dict[str, bool]:
    return (
        {name: annotations[name] for name in _HINTS if type(annotations.get(name)) is bool}
        if isinstance(annotations, Mapping)
        else {}
    )


def from_mcp(path: Path) -> tuple[DeclaredTool, ...]:
    """The tools of a saved ``tools/list`` result (MCP 2025-06-18): the result, the whole
    JSON-RPC response, or the list alone.

    Raises ConfigError: not such a file, or a tool without name or object schema. WorkflowError:
    the file cannot be read.
    """
    text = read_file(path)
    if len(text) > MAX_BYTES:
        raise ConfigError("mcp", f"{len(text)} characters", f"at most {MAX_BYTES}")
    try:
        tools = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError("mcp", str(path), f"JSON ({error})") from error
    if isinstance(tools, dict):
        tools = tools.get("result", tools)
    if isinstance(tools, dict):
        tools = tools.get("tools")
    if not isinstance(tools, list) or not tools:
        raise ConfigError(
            "mcp",
            str(path),
            "the result of tools/list: an object with a list 'tools' that is not empty",
        )
    return tuple(_declared(each, index) for index, each in enumerate(tools))


def _declared(each: Any, index: int) -> DeclaredTool:
    here = f"mcp.tools[{index}]"
    name = each.get("name") if isinstance(each, dict) else None
    if not isinstance(each, dict) or not isinstance(name, str) or not name:
        raise ConfigError(
            here,
            type(each).__name__ if not isinstance(each, dict) else "no name",
            "a tool with a name",
        )
    schema = each.get("inputSchema")
    description = each.get("description") or ""
    if not isinstance(schema, dict) or not isinstance(description, str):
        raise ConfigError(
            f"{here}.inputSchema",
            type(schema).__name__,
            "a JSON Schema object (and a description that is text)",
        )
    try:
        definition = definition_digest(name, description, schema)
    except CanonicalError as error:
        raise ConfigError(f"{here}.inputSchema", error.got, error.expected) from error
    return DeclaredTool(name, description, schema, definition, _hints(each.get("annotations")))


# --- what a tool does -------------------------------------------------------------------------
_LINES = (
    files("agentgate.review.draft")
    .joinpath("names.txt")
    .read_text("utf-8")
    .replace("\n  ", " ")
    .splitlines()
)
NAMES: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, _, words in (line.partition(": ") for line in _LINES if not line.startswith("#"))
}
_STRICT: tuple[Effect, ...] = ("read", "write", "egress", "destructive")
_VERBS: Mapping[Effect, frozenset[str]] = {effect: NAMES[effect] for effect in _STRICT}


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case: ``orders.getById`` -> orders, get, by, id."""
    return tuple(w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name))


def verb_of(name: str) -> str:
    """The verb of a tool's name, or its last word."""
    words = words_of(name)
    if _asks(words):
        return "request"
    known = [
        w
        for effect in reversed(_STRICT)
        for w in words
        if w in _VERBS[effect] - NAMES["things"]
    ]
    return known[0] if known else words[-1] if words else name.lower()


def _asks(words: tuple[str, ...]) -> bool:
    """Whether "request" is the verb of a name (``request_review``) and not its object
    (``get_request``, ``merge_pull_request``).
    """
    at = words.index("request") if "request" in words else -1
    before = words[: max(at, 0)]
    return (
        at >= 0
        and before[-1:] not in {("pull",), ("merge",)}
        and not any(w in known for w in before for known in _VERBS.values())
    )


def effect_of(tool: DeclaredTool) -> tuple[Effect, str]:
    """A tool's probable effect, and why: the strictest that its name or its annotations
    suggest.

    Annotations are the server's claims about itself (MCP: untrusted unless the server is), so
    they never make a name milder.
    """
    words = words_of(tool.name)
    # beside a verb of reading these are nouns: email.read, get_order
    if any(w in _VERBS["read"] for w in words):
        words = tuple(w for w in words if w not in NAMES["nouns"])
    hits: Iterator[tuple[Effect, str]] = (
        (effect, w) for effect in reversed(_STRICT) for w in words if w in _VERBS[effect]
    )
    named, hit = next(hits, (None, ""))
    why = f"its name says '{hit}'"
    if named in {None, "write"}:
        people = (
            next((w for w in words if w in NAMES["people"]), None)
            if named is not None
            else None
        )
        if _asks(words) or people is not None:
            named = "egress"
            why = f"its name says '{people or 'request'}': somebody else hears of it, or is let in"
    arguments = {w for name in mapping(tool.schema.get("properties")) for w in words_of(name)}
    if named == "read" and arguments & {"url", "uri", "webhook", "endpoint"}:
        named = "egress"
        why = "it reads from an address that the caller gives"
    if named is None and (begins := words_of(tool.description.strip()[:40])[:1]):
        named = next(
            (
                effect
                for effect in reversed(_STRICT)
                if begins[0] in _VERBS[effect] - NAMES["things"]
            ),
            None,
        )
        why = f"its description begins with '{begins[0]}'"
    hinted = _hinted(tool.hints)
    if hinted is None:
        return (named, why) if named is not None else ("write", UNSAID)
    if named is None or _STRICT.index(hinted) >= _STRICT.index(named):
        return hinted, "its annotations say so"
    return named, f"{why}, though its annotations say {hinted}"


def _hinted(hints: Mapping[str, bool]) -> Effect | None:
    read_only, destructive, open_world = (hints.get(name) for name in _HINTS)
    if read_only is True:
        return "egress" if open_world is True else "read"
    if read_only is False or destructive is not None:
        if destructive is not False:  # the protocol's default
            return "destructive"
        return "egress" if open_world is True else "write"
    return None
