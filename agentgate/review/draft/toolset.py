"""Real tools as their own code or server declares them: what a workflow can be drafted from.

Rules: a tool's name, description, schema and annotations are somebody's words, possibly a stranger's; they are read as data
and never obeyed. Only `from_langchain` runs code, and only the module that the developer names on the command line.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel

from agentgate.errors import CanonicalError, ConfigError
from agentgate.loading.definition import read_file
from agentgate.values.canonical import definition_digest
from agentgate.workflow.model import Effect

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

MAX_BYTES = 4 * 1024 * 1024
_HINTS = ("readOnlyHint", "destructiveHint", "openWorldHint")
_OBJECT = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeclaredTool:
    """One tool as declared.

    Attributes:
        schema: its JSON Schema of the arguments.
        definition: the ``sha256:...`` that a workflow pins.
        hints: MCP annotations that are true or false; absent ones are absent.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    definition: str
    hints: Mapping[str, bool]


def from_langchain(where: str) -> tuple[DeclaredTool, ...]:
    """The tools of a Python object. Imports the module, which runs its code.

    Args:
        where: ``package.module:tools``, a `BaseTool` or a list of them.

    Raises:
        ConfigError: no such object, its import fails, or it holds something else than LangChain tools.
    """
    from agentgate.integrations.langchain.arguments import definition_of  # noqa: PLC0415 - as below

    return tuple(
        DeclaredTool(tool.name, tool.description, _schema(tool), definition_of(tool), _hints(tool.metadata)) for tool in import_tools(where)
    )


def import_tools(where: str) -> list[BaseTool]:
    """The LangChain tools themselves; see `from_langchain`."""
    from langchain_core.tools import BaseTool  # noqa: PLC0415 - a fifth of a second that other commands do not need

    named = _OBJECT.fullmatch(where)
    if named is None:
        raise ConfigError("langchain", where, "package.module:tools, with the name of a list of LangChain tools")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does: the developer's own module beside them
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no part of our answer
            found: Any = importlib.import_module(named[1])
        for part in named[2].split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a foreign module raises
        raise ConfigError("langchain", where, f"a module that imports ({type(error).__name__}: {error})") from error
    tools = [found] if isinstance(found, BaseTool) else found
    if not isinstance(tools, (list, tuple)) or not tools or not all(isinstance(tool, BaseTool) for tool in tools):
        raise ConfigError("langchain", f"{where}, a {type(found).__name__}", "a list of LangChain tools (@tool, StructuredTool, BaseTool)")
    return list(tools)


def _schema(tool: BaseTool) -> Mapping[str, Any]:
    if isinstance(tool.args_schema, dict):
        return tool.args_schema
    shown: Any = tool.tool_call_schema
    schema: Mapping[str, Any] = shown.model_json_schema() if issubclass(shown, BaseModel) else shown.schema()
    return schema


def _hints(found: object) -> dict[str, bool]:
    return {name: found[name] for name in _HINTS if type(found.get(name)) is bool} if isinstance(found, Mapping) else {}


def from_mcp(path: Path) -> tuple[DeclaredTool, ...]:
    """The tools of a saved ``tools/list`` result (MCP 2025-06-18): the result, the whole JSON-RPC answer, or only the list.

    Raises:
        ConfigError: not such a file, or a tool in it without a name or an object schema.
        WorkflowError: the file cannot be read.
    """
    text = read_file(path)
    if len(text) > MAX_BYTES:
        raise ConfigError("mcp", f"{len(text)} characters", f"at most {MAX_BYTES}")
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError("mcp", str(path), f"JSON ({error})") from error
    if isinstance(found, dict):
        found = found.get("result", found)
    if isinstance(found, dict):
        found = found.get("tools")
    if not isinstance(found, list) or not found:
        raise ConfigError("mcp", str(path), "the result of tools/list: an object with a list 'tools' that is not empty")
    return tuple(_declared(each, index) for index, each in enumerate(found))


def _declared(each: Any, index: int) -> DeclaredTool:
    here = f"mcp.tools[{index}]"
    name = each.get("name") if isinstance(each, dict) else None
    if not isinstance(each, dict) or not isinstance(name, str) or not name:
        raise ConfigError(here, type(each).__name__ if not isinstance(each, dict) else "no name", "a tool with a name")
    schema, description = each.get("inputSchema"), each.get("description") or ""
    if not isinstance(schema, dict) or not isinstance(description, str):
        raise ConfigError(f"{here}.inputSchema", type(schema).__name__, "a JSON Schema object (and a description that is text)")
    try:
        definition = definition_digest(name, description, schema)
    except CanonicalError as error:
        raise ConfigError(f"{here}.inputSchema", error.got, error.expected) from error
    return DeclaredTool(name, description, schema, definition, _hints(each.get("annotations")))


# --- what a tool does -------------------------------------------------------------------------------------------------------
_VERBS: Mapping[Effect, frozenset[str]] = {
    "destructive": frozenset(
        "delete remove drop cancel purge erase wipe overwrite destroy terminate revoke truncate reset clear kill uninstall archive".split()
    ),
    "egress": frozenset(
        "send post publish share forward reply notify upload export tweet email mail message invite call browse navigate crawl scrape "
        "web internet online http https url webhook google bing browser sms dm".split()
    ),
    "write": frozenset(
        "write create add update set put insert edit change make pay refund transfer book schedule order buy move rename assign approve "
        "run execute start stop submit sign grant close open upsert merge commit push apply append save store modify replace move".split()
    ),
    "read": frozenset(
        "get list read search find lookup look show fetch describe count check query view status retrieve select load".split()
    ),
}
_PEOPLE = frozenset(  # whom a tool that writes lets in or notifies
    "collaborator collaborators member members reviewer reviewers participant participants attendee attendees guest guests "
    "subscriber subscribers follower followers watcher watchers".split()
)
_THINGS = frozenset("email mail message web internet online http https url webhook google bing browser sms dm".split())
_NOUNS = frozenset("email mail message order book invite store tweet sms archive call post commit export upload".split())
_STRICT: tuple[Effect, ...] = ("read", "write", "egress", "destructive")


def words_of(name: str) -> tuple[str, ...]:
    """A name's words in lower case: ``orders.getById`` -> orders, get, by, id."""
    return tuple(w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name))


def verb_of(name: str) -> str:
    """The word of a tool's name that says what it does, or its last word."""
    words = words_of(name)
    if _asks(words):
        return "request"
    known = [w for effect in reversed(_STRICT) for w in words if w in _VERBS[effect] - _THINGS]
    return known[0] if known else words[-1] if words else name.lower()


def _asks(words: tuple[str, ...]) -> bool:
    """Whether "request" is what a tool does (``request_review``), and not a thing (``get_request``, ``merge_pull_request``)."""
    at = words.index("request") if "request" in words else -1
    return (
        at >= 0
        and words[at - 1 : at] not in {("pull",), ("merge",)}
        and not any(w in known for w in words[:at] for known in _VERBS.values())
    )


def effect_of(tool: DeclaredTool) -> tuple[Effect, str]:
    """What a tool probably does, and why one thinks so: the strictest that its name or its annotations say.

    Annotations are hints by the server about itself (MCP: untrusted unless the server is), so they never make a name milder.
    """
    words = words_of(tool.name)
    if any(w in _VERBS["read"] for w in words):  # what is read is then a noun: email.read, get_order
        words = tuple(w for w in words if w not in _NOUNS)
    named, why = None, ""
    for effect in reversed(_STRICT):
        hit = next((w for w in words if w in _VERBS[effect]), None)
        if hit is not None:
            named, why = effect, f"its name says '{hit}'"
            break
    if named in {None, "write"}:
        people = next((w for w in words if w in _PEOPLE), None) if named is not None else None
        if _asks(words) or people is not None:
            named, why = "egress", f"its name says '{people or 'request'}': somebody else hears of it, or is let in"
    arguments = {w for name in _properties(tool.schema) for w in words_of(name)}
    if named == "read" and arguments & {"url", "uri", "webhook", "endpoint"}:
        named, why = "egress", "it reads from an address that the caller gives"
    hinted = _hinted(tool.hints)
    if hinted is None:
        return (named, why) if named is not None else ("write", "its name does not say what it does")
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


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}
