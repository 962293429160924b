"""Arguments inside arguments: ``attachments[].file_id`` is one value for each element of the
list `attachments`.

Rules: a rule names a leaf; every leaf of a structure has a rule, or the call is refused like
one with any unknown argument. The leaves of a list share one name, in their order, and under a
rule that is not optional every element has one. A key that looks like a path is no path. A null
under a `nullable` rule counts as left out, as does one in place of a structure whose rules are
all `nullable`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from agentgate.values.paths import EACH
from agentgate.workflow.rule import Rule

MAX_DEPTH = 16
MAX_STEP = 64  # characters of a step of a rule's name


class Structures(NamedTuple):
    """The arguments of a tool that are structures, worked out when the workflow is loaded.

    Attributes:
        roots: names of these arguments.
        nullable: those of them whose rules are all `nullable`.
        lists: every list that a rule's name walks, by its path: ``attachments[]``.
    """

    roots: frozenset[str] = frozenset()
    nullable: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()


class Structured(Protocol):
    """What this module reads of a tool."""

    @property
    def args(self) -> Mapping[str, Rule]:
        """The rules, by name."""

    @property
    def structures(self) -> Structures:
        """`structures` of these rules."""


_NO_STRUCTURES = Structures()


def root(name: str) -> str:
    """The argument that a rule's name is in: ``attachments`` for ``attachments[].file_id``."""
    return name.partition(".")[0].removesuffix(EACH)


def structures(rules: Mapping[str, Rule]) -> Structures:
    """Which arguments are structures, by the names of the rules."""
    roots = frozenset(root(name) for name in rules if "." in name)
    if not roots:
        return _NO_STRUCTURES
    required = {root(name) for name, rule in rules.items() if "." in name and not rule.nullable}
    lists = {
        name[: at + len(EACH)]
        for name in rules
        for at in range(len(name))
        if name.startswith(EACH, at)
    }
    return Structures(roots, roots - required, frozenset(lists))


def flat(tool: Structured, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments by the names of their rules: unchanged where the tool has no structures.

    What has no rule gets a name that no rule can have. An empty list where a list may be names
    nothing; a null that counts as left out is dropped.
    """
    roots, nullable, lists = tool.structures
    if not roots:
        return (
            args
            if None not in args.values()
            else {n: v for n, v in args.items() if not (v is None and _nullable(tool, n))}
        )
    leaves = {}
    counted = dict.fromkeys(lists, 0)
    for name, value in args.items():
        if name not in roots:
            leaves[_plain(name)] = value
        elif value is not None or name not in nullable:
            _leaves(name, value, leaves, counted, 0)
    for name, rule in tool.args.items():
        if (
            not rule.optional
            and name in leaves
            and EACH in name
            and len(leaves[name]) != counted.get(list_of(name))
        ):
            del leaves[name]  # an element lacks it
        elif rule.nullable and name in leaves:
            if EACH in name:
                leaves[name] = [one for one in leaves[name] if one is not None] or None
            if leaves[name] is None:
                del leaves[name]
    return leaves


def emptied(name: str, args: Mapping[str, Any]) -> bool:
    """Whether the call sends an empty list where a rule's leaves would be, which may mean "none
    of them".
    """
    level: list[Any] = [args]
    for step in name.split(".") if "." in name else ():
        level = _under(step, level)
        for _ in range(step.count(EACH)):
            lists = [value for value in level if type(value) is list]
            level = [inner for each in lists for inner in each]
            if lists and not level:
                return True
    return False


def list_of(name: str) -> str:
    """The list whose elements hold the leaf of this name: ``payments[]`` for ``payments[].to``;
    for a whole argument its own name.
    """
    return name[: name.rindex(EACH) + len(EACH)] if EACH in name else name


def elements(
    path: str, leaves: Iterable[str], args: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Each element of a list in a call's arguments: its leaves by the names of their rules,
    without those it does not send.

    Args:
        path: the list, as `list_of` names it.
        leaves: names of rules whose list it is.
        args: the arguments as sent.
    """
    level: list[Any] = [args]
    for step in path.split("."):
        level = _under(step, level)
        for _ in range(step.count(EACH)):
            level = [inner for value in level if type(value) is list for inner in value]
    steps = {name: name[len(path) + 1 :].split(".") for name in leaves}
    for element in level:
        found = {}
        for name, keys in steps.items():
            inside = [element]
            for key in keys:
                inside = _under(key, inside)
            if inside and inside[0] is not None:
                found[name] = inside[0]
        yield found


def _under(step: str, level: list[Any]) -> list[Any]:
    """What the objects among these values hold under the key of a step."""
    key = step.partition(EACH)[0]
    return [outer[key] for outer in level if type(outer) is dict and key in outer]


def _nullable(tool: Structured, name: str) -> bool:
    rule = tool.args.get(name)
    return rule is not None and rule.nullable


def _leaves(
    path: str, value: Any, leaves: dict[str, Any], counted: dict[str, int], depth: int
) -> None:
    if type(value) is dict and value and depth < MAX_DEPTH:
        for key, inner in value.items():
            _leaves(f"{path}.{_plain(key)}", inner, leaves, counted, depth + 1)
    elif type(value) is list and (value or path + EACH in counted) and depth < MAX_DEPTH:
        counted[path + EACH] = counted.get(path + EACH, 0) + len(value)
        for inner in value:
            _leaves(path + EACH, inner, leaves, counted, depth + 1)
    elif EACH in path:
        leaves.setdefault(path, []).append(value)
    else:
        leaves[path] = value


def _plain(key: str) -> str:
    """A key as one step of a path; a longer one, or one that looks like several steps, is
    quoted (and cut), as no rule's name is.
    """
    return repr(key[:MAX_STEP]) if len(key) > MAX_STEP or "." in key or "[" in key else key
