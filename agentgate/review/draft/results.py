"""Sample results of tools: which facts a draft declares of them.

Rules: a field is a fact where every sample that has it holds one plain, short value of one type
there; free text, texts of several lines and what is true or false are none, since nothing
should follow from them. The gate's own reading of results is asked whether it finds the fact.
No value of a sample gets into a draft. Samples are data, never instructions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from agentgate.errors import ConfigError
from agentgate.loading.definition import read_file
from agentgate.loading.yaml_nodes import did_you_mean
from agentgate.redemption.facts import extract
from agentgate.review.draft.argument import IDS, guess
from agentgate.review.draft.toolset import words_of
from agentgate.values.currencies import CURRENCIES
from agentgate.values.entities import normal, number
from agentgate.values.paths import EACH, VALUES
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

MAX_BYTES = 16 * 1024 * 1024
MAX_FACTS = 30  # of one tool
MAX_DEPTH = 6
MAX_LABEL = 80  # characters of a text that names something
AMOUNTS = frozenset(
    "amount total price sum balance due cost fee paid owed refund value".split()
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_KEY = re.compile(r"[^\[\]{}*.\x00-\x1f\x7f-\U0010ffff]{1,64}")  # that a path can hold
_CODE = re.compile(r"(?=.*[0-9])[A-Za-z0-9]+(?:[-_/#][A-Za-z0-9]+)*", re.ASCII)
_TOLD = ("iban", "email", "url", "datetime", "date", "time")  # types that a value's form tells
_NAMED = frozenset({"phone", "path", "domain"})  # that only form and name together tell
_Steps = tuple[str, ...]
_CALL_RESULT = frozenset({"content", "structuredContent", "isError", "_meta"})
Samples = Mapping[str, tuple[Any, ...]]


@value_class
class FoundFact:
    """One fact of a tool's results: its name, type, path, the fact that holds its currency;
    `listed`: there may be several rows.
    """

    name: str
    type: str
    path: str
    currency: str = ""
    listed: bool = False

    @property
    def rule(self) -> dict[str, Any]:
        """As a workflow writes it."""
        path = {"path": self.path} if self.path != self.name else {}
        return {
            "type": self.type,
            **path,
            **({"currency": self.currency} if self.currency else {}),
        }


# --- reading ----------------------------------------------------------------------------------
def read_samples(path: Path, tools: Collection[str]) -> Samples:
    """The sample results of tools: JSON or JSON lines.

    Each is ``{"tool": name, "result": value}`` (a recorded call), ``{"steps": [...]}`` with
    such calls (a recorded episode), or ``{name: value, ...}`` with names of tools. A result is
    what the gate reads: what the tool returns as JSON, of a tool with an artifact the artifact,
    of a tool of an MCP server (a ``tools/call`` result) its `structuredContent`.

    Raises ConfigError: not such a file, or a name that no tool has. WorkflowError: the file
    cannot be read.
    """
    text = read_file(path)
    if len(text) > MAX_BYTES:
        raise ConfigError("results", f"{len(text)} characters", f"at most {MAX_BYTES}")
    found: dict[str, list[Any]] = {}
    for place, value in _documents(path, text):
        for name, result in _calls(place, value, tools):
            found.setdefault(name, []).append(result)
    if not found:
        raise ConfigError(
            "results",
            f"{path} without a result",
            '{"tool": name, "result": value} in each line, or {name: value, ...}',
        )
    return {name: tuple(results) for name, results in found.items()}


def _documents(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        whole = orjson.loads(text)
    except orjson.JSONDecodeError:
        for index, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield f"{path}:{index}", orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise ConfigError(
                        "results",
                        f"{path}:{index}",
                        f"JSON, or one JSON object in each line ({error})",
                    ) from error
    else:
        yield from (
            ((f"{path}[{i}]", each) for i, each in enumerate(whole))
            if isinstance(whole, list)
            else [(str(path), whole)]
        )


def _calls(place: str, value: Any, tools: Collection[str]) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise ConfigError(
            "results",
            f"{place}, a {type(value).__name__}",
            'an object: {"tool": name, "result": value}',
        )
    if isinstance(value.get("steps"), list):
        for index, step in enumerate(value["steps"]):
            yield from _calls(f"{place}.steps[{index}]", step, tools)
        return
    recorded = isinstance(value.get("tool"), str) and "tool" not in tools
    if recorded and "result" not in value:
        raise ConfigError(
            "results", f"{place} without a result", '"result": what the tool returned'
        )
    for name, result in ((value["tool"], value["result"]),) if recorded else value.items():
        if name not in tools:
            hint = did_you_mean(name, tools)
            raise ConfigError(
                "results",
                f"{place}: {visible(name, 80)!r}",
                "a tool: " + ", ".join(tools) + (f" ({hint})" if hint else ""),
            )
        yield name, _structured(result)


def _structured(result: Any) -> Any:
    """What is read of a ``tools/call`` result (MCP 2025-06-18): never its text. Anything else
    is itself.
    """
    blocks = (
        result.get("content")
        if isinstance(result, dict) and result.keys() <= _CALL_RESULT
        else None
    )
    spoken = isinstance(blocks, list) and all(
        isinstance(block, dict) and isinstance(block.get("type"), str) for block in blocks
    )
    return result.get("structuredContent") if spoken else result


# --- facts ------------------------------------------------------------------------------------
def facts_of(samples: Sequence[Any], taken: Collection[str]) -> tuple[FoundFact, ...]:
    """The facts of a tool's results; `taken`: names that facts may not have (the tool's
    arguments).
    """
    values: dict[_Steps, list[Any]] = {}
    for sample in samples:
        for steps, value in _leaves(sample, (), MAX_DEPTH):
            values.setdefault(steps, []).append(value)
    typed = {
        steps: kind
        for steps, held in values.items()
        if _keys(steps) and (kind := _type(_keys(steps)[-1], held)) is not None
    }
    names: dict[_Steps, str] = {}
    for steps in list(typed)[:MAX_FACTS]:
        *_, last = keys = _keys(steps)
        if len(steps) == 1 and last in taken:
            continue  # it is what the call was asked for, and an origin as that
        near = "_".join(keys[-2:])
        tries = (
            *((near, last) if steps[-2:-1] and steps[-2] != EACH else (last, near)),
            "_".join(keys),
            f"result_{last}",
        )
        name = next(
            (
                n
                for n in tries
                if _NAME.fullmatch(n) and n not in taken and n not in names.values()
            ),
            None,
        )
        if name is not None:
            names[steps] = name
    currencies = {
        steps[:-1]: steps
        for steps in names
        if _keys(steps)[-1].lower().endswith("currency")
        and all(type(v) is str and CURRENCIES.get(v.lower()) == v for v in values[steps])
    }
    found = []
    for steps, name in names.items():
        beside = currencies.get(steps[:-1])
        money = (
            beside is not None
            and typed[steps] in {"integer", "number"}
            and not AMOUNTS.isdisjoint(words_of(_keys(steps)[-1]))
        )
        kind, currency = (
            ("money", names[beside]) if money and beside is not None else (typed[steps], "")
        )
        fact = FoundFact(name, kind, _written(steps), currency, EACH in steps)
        if any(
            normal(kind, row[name]) is not None
            for each in samples
            for row in extract({name: steps}, each)
            if name in row
        ):
            found.append(fact)
    return tuple(found)


def _leaves(value: Any, steps: _Steps, depth: int) -> Iterator[tuple[_Steps, Any]]:
    if isinstance(value, dict) and depth:
        if value and all(
            isinstance(inner, dict) and any(c.isdigit() for c in key)
            for key, inner in value.items()
        ):
            for inner in value.values():  # its keys are data
                yield from _leaves(inner, (*steps, VALUES, EACH), depth - 1)
            return
        for key, inner in value.items():
            if _KEY.fullmatch(key):
                yield from _leaves(inner, (*steps, key), depth - 1)
    elif isinstance(value, list) and depth:
        for inner in value:
            yield from _leaves(inner, (*steps, EACH), depth - 1)
    elif value is not None and not isinstance(value, dict | list):
        yield steps, value


def _keys(steps: _Steps) -> list[str]:
    return [step for step in steps if step not in {EACH, VALUES}]


def _written(steps: _Steps) -> str:
    """A path as a workflow writes it: ``orders[].lines.*.sku``."""
    text = ""
    for step, before in zip(steps, ("", *steps), strict=False):
        if step == EACH:
            text += "" if before == VALUES else EACH
        else:
            text += ("." if text else "") + ("*" if step == VALUES else step)
    return text


def _type(key: str, held: Sequence[Any]) -> str | None:
    """The one type of all values of a field; None where they have none that a fact should
    have.
    """
    named = guess(key)
    if all(type(value) in {int, float} for value in held):
        whole = all(type(value) is int for value in held)
        return (
            "id"
            if whole and words_of(key)[-1:] and words_of(key)[-1] in IDS
            else "integer"
            if whole
            else "number"
        )
    if not all(type(value) is str and value for value in held):
        return None
    if all(number(value) is not None for value in held) and not AMOUNTS.isdisjoint(
        words_of(key)
    ):
        return "number"
    for kind in _TOLD:
        if all(normal(kind, value) is not None for value in held):
            return kind
    if named in _NAMED and all(normal(named, value) is not None for value in held):
        return named
    if all(_CODE.fullmatch(value) for value in held) and (
        named == "id" or all(any(c.isalpha() for c in value) for value in held)
    ):
        return "id"
    short = all(
        len(value) <= MAX_LABEL and value.isprintable() and normal("text", value) is not None
        for value in held
    )
    return "text" if short else None
