"""Loading: the text of a workflow file becomes a `Workflow`, or every reason why not, each at
its line and column.

Three passes report all their findings together: the text (`yaml_nodes`), the shape (`blocks`),
the meaning (`compiler`). When the shape is wrong, the meaning is still checked with the wrong
parts repaired or left out, so that a misspelt key does not hide the rest; only the first
finding of a place counts. A file with a finding does not load. One exception: an example that
the installed deriver reads otherwise puts its intent of a signed definition in doubt, so that
an engine upgrade takes no signed workflow out of force.
"""

from __future__ import annotations

import copy
import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentgate.errors import CanonicalError, WorkflowError, problem_at
from agentgate.intents.deriver import Deriver, ask
from agentgate.loading.blocks import (
    WORDING,
    Block,
    Definition,
    RolesFile,
    block_in,
    is_collection,
    written_out,
)
from agentgate.loading.compiler import compiled
from agentgate.loading.site import Sharing, Site
from agentgate.loading.yaml_nodes import Document, Path, closest, did_you_mean, read_yaml, shown
from agentgate.values.canonical import canonical, digest
from agentgate.workflow.model import Doubt, Intent, Workflow

Derive = Deriver
Roles = Mapping[str, frozenset[str]]
B = TypeVar("B", bound=Block)

# What stands in for an unreadable required value while the rest of the file is looked at;
# chosen so that nothing else follows from it.
_STAND_INS: Mapping[str, Any] = WORDING["stand_ins"]
# what was expected, by the kind of pydantic's finding and with its context
_KINDS = WORDING["kinds"]


def load_text(
    text: str, file: str, roles: Roles, derive: Derive, *, share: Sharing | None = None
) -> Workflow:
    """Load one workflow.

    Args:
        text: content of the file.
        file: how messages and rules name it.
        roles: static roles by name (`parse_roles`); empty when no workflow names one.
        derive: the intent deriver; each example must come out present under it, and no
            counter-example.
        share: table of equal values, when many workflows are loaded.

    Returns:
        The frozen workflow with the digest of its definition, defaults written out.

    Raises:
        WorkflowError: with every problem, in the order of the file.
    """
    return load_document(read_yaml(text, file), roles, derive, share=share)


def load_document(
    document: Document,
    roles: Roles,
    derive: Derive,
    *,
    share: Sharing | None = None,
    signed: bool = False,
) -> Workflow:
    """Load one workflow from a document that was read: a YAML file, or the canonical JSON that
    reviewers signed (which has no lines).

    Arguments, return value and errors as `load_text`. With `signed`, reviewers signed this
    definition: an example that `derive` reads otherwise is then no error but a doubt
    (`Workflow.in_doubt`).
    """
    sharing = share or Sharing()
    definition = _shape(
        document, Definition, "a mapping that starts with agentgate: workflow/v1"
    )
    if not definition:
        repaired = _repaired(document)
        if repaired:
            _report_doubts(document, _meaning(document, repaired, roles, derive, sharing)[1])
        document.refuse()
        raise AssertionError("a shape that is refused has a finding")
    workflow, doubts = _meaning(document, definition, roles, derive, sharing)
    if signed:
        workflow = replace(workflow, in_doubt=doubts)
    else:
        _report_doubts(document, doubts)
    document.refuse()
    return workflow


def parse_roles(text: str, file: str) -> Roles:
    """The static roles (name -> scopes) of the text of a ``roles.yaml``; `file` is how messages
    name it.

    Raises:
        WorkflowError: it is wrong; then no workflow may be loaded.
    """
    found = read_block(
        read_yaml(text, file), RolesFile, "a mapping that starts with agentgate: roles/v1"
    )
    return {name: frozenset(scopes) for name, scopes in found.roles.items()}


def read_block(document: Document, block: type[B], expected: str) -> B:
    """A file that is one block; `expected`: what a message says of one that is no mapping.

    Raises:
        WorkflowError: with every problem of its shape.
    """
    found = _shape(document, block, expected)
    document.refuse()
    if not found:
        raise AssertionError("a shape that is refused has a finding")
    return found


def _at_once(path: str, flags: int) -> int:
    handle = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "something else than a file")
    return handle


def read_file(path: FilePath) -> str:
    """The text of a file.

    Raises:
        WorkflowError: not readable, no file (a device has no end, a pipe waits), or not UTF-8.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:
            return file.read().decode("utf-8")
    except OSError as error:
        raise refused(path, error.strerror or "an error", "a readable file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise refused(path, "bytes that are not UTF-8", "UTF-8 text", line=line) from error


def refused(
    file: FilePath | str, got: str, expected: str, field: str = "document", line: int = 1
) -> WorkflowError:
    """The error of one problem of a file as a whole."""
    return WorkflowError((problem_at(str(file), line, 1, field, got, expected),))


def _meaning(
    document: Document, definition: Definition, roles: Roles, derive: Derive, share: Sharing
) -> tuple[Workflow, tuple[Doubt, ...]]:
    try:
        digested = f"sha256:{digest(canonical(written_out(document.value), 'definition'))}"
    except CanonicalError as error:
        document.report((), error.got, error.expected)
        digested = ""
    workflow = compiled(Site(document, definition, roles, share), digested)
    if any(p.data.get("block") == ("intents",) for p in document.problems):
        return workflow, ()
    # the deriver, which need have no hash, outlives the table
    intents = tuple(workflow.intents.values())
    return workflow, share.memo((id(derive), intents), lambda: _doubts(intents, derive))


def _doubts(intents: tuple[Intent, ...], derive: Derive) -> tuple[Doubt, ...]:
    """The examples that the deriver reads otherwise than their author: words alone are not the
    answer.
    """
    doubts = []
    keys: tuple[Literal["examples", "counter_examples"], ...] = ("examples", "counter_examples")
    for intent in intents:
        for key in keys:
            for index, text in enumerate(getattr(intent, key)):
                derived = ask(derive, intents, (text,))[intent.name]
                # no reader here, or one that asks
                unread = not intent.words and derived.presence == "unclear"
                if not unread and (derived.presence == "present") is not (key == "examples"):
                    got = (
                        f"{derived.presence} ({derived.evidence})"
                        if derived.evidence
                        else derived.presence
                    )
                    doubts.append(Doubt(intent.name, key, index, got))
    return tuple(doubts)


def _report_doubts(document: Document, doubts: tuple[Doubt, ...]) -> None:
    for doubt in doubts:
        remedy = "another example" if doubt.key == "examples" else "another intent for it"
        document.report(
            ("intents", doubt.intent, doubt.key, doubt.index),
            doubt.got,
            f"{doubt.expected}: other words, or {remedy}",
        )


# --- shape ------------------------------------------------------------------------------------


def _shape(document: Document, block: type[B], expected: str) -> B | None:
    if not isinstance(document.value, dict):
        document.report((), shown(document.value), expected)
        document.refuse()
    try:
        return block.model_validate(document.value)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            _report(document, block, each)
        return None


def _report(document: Document, root: type[Block], error: ErrorDetails) -> None:
    """One pydantic finding as a place, what stands there, what may stand there and a hint."""
    kind = error["type"]
    context = error.get("ctx", {})
    on_key = "[key]" in error["loc"]
    path = tuple(part for part in error["loc"] if part != "[key]")
    if kind == "extra_forbidden":
        allowed, unused = _keys_at(root, document.value, path[:-1])
        document.report(
            path,
            "an unknown key",
            f"one of {', '.join(allowed)}",
            did_you_mean(path[-1], unused),
            key=True,
        )
    elif kind == "missing":
        if not _misspelt(document, root, path):  # else the unknown key beside it says so
            document.report(path, "nothing", f"{path[-1]}: (required)", key=True)
    else:
        value = path[-1] if on_key else error["input"]
        expected = _KINDS[kind].format(**context) if kind in _KINDS else error["msg"]
        hint = context.get("hint", "")
        if kind == "literal_error":
            expected = context["expected"].replace("'", "").replace("True", "true")
            hint = did_you_mean(value, expected.replace(" or ", ", ").split(", "))
        document.report(path, shown(value), expected, hint, key=on_key)


def _keys_at(root: type[Block], value: Any, path: Path) -> tuple[list[str], list[str]]:
    """The keys that the block at a path may have, and those of them that it does not have."""
    block = _block_at(root, path)
    present = _at(value, path)
    allowed = (
        [field.alias or name for name, field in block.model_fields.items()] if block else []
    )
    return allowed, [key for key in allowed if key not in present]


def _block_at(root: type[Block], path: Path) -> type[BaseModel] | None:
    """Which block stands at a path: names of a block's fields lead on; keys and indexes of a
    collection stay with its block.
    """
    block = root
    collection = False
    for part in path:
        if collection:
            collection = False
            continue
        field = next(
            (f for name, f in block.model_fields.items() if (f.alias or name) == part), None
        )
        found = block_in(field.annotation) if field else None
        if not field or not found:
            return None
        collection = is_collection(field.annotation)
        block = found
    return block


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _misspelt(document: Document, root: type[Block], path: Path) -> bool:
    """True when an unknown key of the same block looks like this missing one."""
    allowed, unused = _keys_at(root, document.value, path[:-1])
    return any(
        closest(key, unused) == path[-1]
        for key in _at(document.value, path[:-1])
        if key not in allowed
    )


def _repaired(document: Document) -> Definition | None:
    """The definition with misspelt keys renamed and unreadable parts left out, to find what
    else is wrong; None if it makes no sense.

    Nothing is found about a block whose part was left out, and nothing at all when a name is
    gone that others may refer to.
    """
    value = copy.deepcopy(document.value)
    renamed = set[Path]()
    for _ in range(8):
        try:
            return Definition.model_validate(value)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        for each in errors:  # what stood under a misspelt key
            if any(each["loc"][: len(path)] == path for path in renamed):
                _report(document, Definition, each)
        for each in (e for e in errors if e["type"] == "extra_forbidden"):
            renamed.add(_rename(document, value, each["loc"]))
        # the last one first: removing an element must not move those before it
        for each in sorted(
            (e for e in errors if e["type"] != "extra_forbidden"),
            key=lambda e: [str(p).zfill(6) for p in e["loc"]],
            reverse=True,
        ):
            if "[key]" in each["loc"] or _is_name(each["loc"]):
                return None
            if each["type"] != "missing":
                _pop(value, each["loc"])
            elif not _stand_in(value, each["loc"]):
                return None
        document.hushed |= {e["loc"][:-1] for e in errors if len(e["loc"]) > 1}
    return None


def _is_name(path: Path) -> bool:
    """True for what others refer to by name: tools, intents, arguments, facts, and the blocks
    that hold them.
    """
    return path[0] in {"tools", "intents"} and (
        len(path) <= 2 or (path[2] in {"args", "facts"} and len(path) <= 4)
    )


def _pop(value: Any, path: Path) -> Any:
    """What stands at a path, taken out; None when it or an outer part is gone."""
    try:
        return _at(value, path[:-1]).pop(path[-1])
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _stand_in(value: Any, path: Path) -> bool:
    """Put something readable where a required value is missing; False when nothing harmless can
    stand there.
    """
    parent = _at(value, path[:-1])
    if path[-1] not in parent and path[-1] in _STAND_INS:
        parent[path[-1]] = _STAND_INS[str(path[-1])]
    return path[-1] in parent


def _rename(document: Document, value: Any, path: Path) -> Path:
    """Put what stands under an unknown key under the one that was probably meant, if any; the
    new path.
    """
    _, unused = _keys_at(Definition, value, path[:-1])
    broken = _pop(value, path)
    key = closest(path[-1], unused)
    if not key:
        return path
    _at(value, path[:-1])[key] = broken
    _move(document, path, key)
    return (*path[:-1], key)


def _move(document: Document, old: Path, new: str) -> None:
    """Let the places under a misspelt key be found under the right one."""
    parent = document.node(old[:-1])
    node = document.node(old)
    if parent and parent.inside is not None and node:
        parent.inside[new] = node
