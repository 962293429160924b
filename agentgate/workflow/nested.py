"""Arguments inside arguments: ``attachments[].file_id`` is one value for each element of the list `attachments`.

Rules: a rule names a leaf; every leaf of a structure has a rule, or the call is refused as with any unknown argument. A list's
leaves stand under one name in their order, and under a rule that is not optional every element has one. A key that looks like
a path is no path. A null under a rule with `nullable` is left out, and so is one in place of a structure of only such rules. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.workflow.model import Tool

EACH = "[]"
MAX_DEPTH = 16
MAX_STEP = 64  # characters of a step of a rule's name
_MAX_TOOLS = 4096
_roots: dict[int, tuple[Tool, Mapping[str, bool], frozenset[str]]] = {}  # an entry holds its tool, so an identity stays that tool's


def root(name: str) -> str:
    """The argument that a rule's name is in: ``attachments`` for ``attachments[].file_id``."""
    return name.partition(".")[0].removesuffix(EACH)


def _roots_of(tool: Tool) -> tuple[Tool, Mapping[str, bool], frozenset[str]]:
    """The arguments of a tool that are structures, by their own names; whether each of a structure's rules is `nullable`; its lists."""
    kept = _roots.get(id(tool))
    if kept is None:
        if len(_roots) >= _MAX_TOOLS:
            _roots.clear()
        found: dict[str, bool] = {}
        for name, rule in tool.args.items():
            if "." in name:
                found[root(name)] = found.get(root(name), True) and rule.nullable
        lists = {name[: at + len(EACH)] for name in tool.args for at in range(len(name)) if name.startswith(EACH, at)}
        kept = _roots[id(tool)] = (tool, found, frozenset(lists))
    return kept


def flat(tool: Tool, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments by the names of their rules: as they are where the tool has no structures.

    What has no rule keeps a name that no rule can have. An empty list where a list may stand names nothing; a null that counts as
    left out is not there.
    """
    _, roots, lists = _roots_of(tool)
    if not roots:
        return args if None not in args.values() else {n: v for n, v in args.items() if not (v is None and _nullable(tool, n))}
    found: dict[str, Any] = {}
    elements = dict.fromkeys(lists, 0)
    for name, value in args.items():
        if name in roots and value is None and roots[name]:
            continue
        if name in roots:
            _leaves(name, value, found, elements, 0)
        else:
            found[_plain(name)] = value
    for name, rule in tool.args.items():
        if not rule.optional and name in found and EACH in name and len(found[name]) != elements.get(_list_of(name)):
            del found[name]  # an element lacks it
        elif rule.nullable and name in found:
            if EACH in name:
                found[name] = [one for one in found[name] if one is not None] or None
            if found[name] is None:
                del found[name]
    return found


def emptied(name: str, args: Mapping[str, Any]) -> bool:
    """Whether a list of a structure that holds the leaves of a rule was sent and holds nothing, which may say "none of them"."""
    level: list[Any] = [args]
    for step in name.split(".") if "." in name else ():
        key = step.partition(EACH)[0]
        level = [outer[key] for outer in level if type(outer) is dict and key in outer]
        for _ in range(step.count(EACH)):
            lists = [value for value in level if type(value) is list]
            level = [inner for each in lists for inner in each]
            if lists and not level:
                return True
    return False


def _nullable(tool: Tool, name: str) -> bool:
    rule = tool.args.get(name)
    return rule is not None and rule.nullable


def _leaves(path: str, value: Any, found: dict[str, Any], elements: dict[str, int], depth: int) -> None:
    if type(value) is dict and value and depth < MAX_DEPTH:
        for key, inner in value.items():
            _leaves(f"{path}.{_plain(key)}", inner, found, elements, depth + 1)
    elif type(value) is list and (value or path + EACH in elements) and depth < MAX_DEPTH:
        elements[path + EACH] = elements.get(path + EACH, 0) + len(value)
        for inner in value:
            _leaves(path + EACH, inner, found, elements, depth + 1)
    elif EACH in path:
        found.setdefault(path, []).append(value)
    else:
        found[path] = value


def _plain(key: str) -> str:
    """A key as a step of a path; what looks like more than a step or is longer is quoted (and cut), which no rule's name is."""
    return repr(key[:MAX_STEP]) if len(key) > MAX_STEP or "." in key or "[" in key else key


def _list_of(name: str) -> str:
    return name[: name.rindex(EACH) + len(EACH)]
