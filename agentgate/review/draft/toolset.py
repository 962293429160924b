"""Reads real tools as their code or server declares them, and of their JSON Schemas the
arguments, to draft a workflow from them.

Rules: a tool's name, description, schema and annotations are untrusted data and never
instructions. Only `from_langchain` runs code, and only the module that the developer names on
the command line. Arguments are named as a workflow names them, of a structured one its leaves.
No remote reference is followed, and a chain of references ends after `MAX_REF`. A schema with
several alternatives, other than null, counts as empty. An object becomes its fields
(``to.email``), a list of objects the fields of its elements (``files[].id``), and a list inside
either its elements (``filter.tags[]``); a list of plain values at the top keeps its name. What
is deeper than `MAX_DEPTH`, a list in a list, and an object with a default stay whole: no
workflow can describe them, so they are undecided.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from agentgate.errors import CanonicalError, ConfigError
from agentgate.loading.definition import read_file
from agentgate.values.canonical import definition_digest
from agentgate.values.entities import choices, mapping, number
from agentgate.values.paths import EACH
from agentgate.values.patterns import Pattern
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.model import Effect

Schema = Mapping[str, Any]
MAX_DEPTH = 3  # structures in structures
_MOST = 1000  # values of one argument, as in a workflow
# that a workflow can declare
_NAME = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_$@:/-]{0,63}", re.ASCII)


def resolve(schema: Any, root: Schema) -> Schema:
    """A schema with local references followed and "or null" removed; only its default and title
    where it has alternatives or is none.
    """
    kept = {key: value for key, value in mapping(schema).items() if key in {"default", "title"}}
    taken = [choice for choice in choices(schema, root) if choice.get("type") != "null"]
    kinds = [choice.get("type") for choice in taken]
    if kinds in (["number", "string"], ["integer", "string"]) and "format" not in taken[1]:
        taken = taken[:1]  # a Decimal: pydantic accepts text too
    return {**taken[0], **kept} if len(taken) == 1 else kept


def null_by_default(schema: Any, root: Schema) -> bool:
    """Whether a schema accepts null and null is its default: a model that does not use the
    argument may then send null.
    """
    accepted = [choice.get("type") for choice in choices(schema, root)]
    return resolve(schema, root).get("default", "") is None and "null" in accepted


def bound(inclusive: Any, exclusive: Any, step: int | None) -> Decimal | None:
    """One end of a range, exact; None where a workflow cannot state it. `step`: from an
    exclusive end to the last value; None: none.
    """
    if exclusive is None:
        return number(inclusive) if type(inclusive) in {int, float} else None
    end = number(exclusive) if type(exclusive) in {int, float} else None
    return (
        end + step
        if end is not None and step is not None and end == end.to_integral_value()
        else None
    )


def whole_pattern(pattern: Any) -> str | None:
    """A schema's pattern as a whole-value one; None when it is not anchored at both ends or no
    RE2 (the schema still checks it).
    """
    if (
        type(pattern) is not str
        or not pattern.startswith("^")
        or not pattern.endswith("$")
        or pattern.endswith("\\$")
    ):
        return None
    inner = pattern[1:-1]
    whole = f"(?:{inner})" if "|" in inner else inner
    try:
        return Pattern.of(whole).source if whole and whole.isprintable() else None
    except CanonicalError:
        return None


@value_class
class Leaf:
    """One argument."""

    name: str  # its path
    schema: Any  # of its values; of a leaf inside a list, a list of them
    required: bool  # every call that the schema permits has it
    plain: bool = True  # a workflow can declare each step of the path


def leaves(schema: Schema) -> Iterator[Leaf]:
    """Every argument of an input schema, in its order."""
    yield from _inside("", schema, schema, required=True, most=0)


def _inside(
    prefix: str, schema: Schema, root: Schema, *, required: bool, most: int
) -> Iterator[Leaf]:
    """The properties of an object. `most`: inside a list, how many values one name has in all;
    else 0.
    """
    must = schema.get("required")
    for name, inner in mapping(schema.get("properties")).items():
        path = f"{prefix}{name}"
        needed = required and isinstance(must, list) and name in must
        resolved = resolve(inner, root)
        default = resolved.get("default")
        if not _NAME.fullmatch(str(name)):
            yield Leaf(path, inner, needed, plain=False)
            continue
        deeper = path.count(".") < MAX_DEPTH
        element = (
            resolve(resolved.get("items"), root) if resolved.get("type") == "array" else {}
        )
        if _is_object(resolved) and default is None and deeper:
            yield from _inside(f"{path}.", resolved, root, required=needed, most=most)
        elif _is_object(element) and default in (None, []) and deeper:
            yield from _inside(
                f"{path}{EACH}.", element, root, required=needed, most=_times(most, resolved)
            )
        elif element and prefix and default is None and element.get("type") != "array":
            yield Leaf(
                f"{path}{EACH}", _list(resolved["items"], _times(most, resolved)), needed
            )
        elif most:
            yield Leaf(
                path,
                _list(
                    {"const": default} if default is not None and not needed else inner, most
                ),
                needed,
            )
        else:
            yield Leaf(path, inner, needed)


def _is_object(schema: Schema) -> bool:
    return bool(mapping(schema.get("properties")))


def _times(most: int, schema: Schema) -> int:
    """How many values there are where each of `most` elements holds a list; a list without a
    maximum counts as one value.
    """
    longest = schema.get("maxItems")
    return min(_MOST, max(1, most) * (longest if type(longest) is int and longest >= 1 else 1))


def _list(element: Any, most: int) -> Schema:
    return {"type": "array", "items": element, "maxItems": most}


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
    schema: Schema  # the JSON Schema of its arguments
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
        DeclaredTool(
            t.name, t.description, shown_schema(t), definition_of(t), _hints(t.metadata)
        )
        for t in tools
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
    if not named:
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


def words_of(name: str) -> Names:
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


def _asks(words: Names) -> bool:
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
        people = next((w for w in words if w in NAMES["people"]), None) if named else None
        if _asks(words) or people is not None:
            named = "egress"
            why = f"its name says '{people or 'request'}': somebody else hears of it, or is let in"
    arguments = {w for name in mapping(tool.schema.get("properties")) for w in words_of(name)}
    if named == "read" and arguments & {"url", "uri", "webhook", "endpoint"}:
        named = "egress"
        why = "it reads from an address that the caller gives"
    if not named and (begins := words_of(tool.description.strip()[:40])[:1]):
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
    if not hinted:
        return (named, why) if named else ("write", UNSAID)
    if not named or _STRICT.index(hinted) >= _STRICT.index(named):
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
