"""Sample results of tools: which facts a draft declares of them, and which of these an argument
of another tool may come from, by their names and types.

Rules: a field is a fact where every sample that has it holds one plain, short value of one type
there; free text, texts of several lines and what is true or false are none, since nothing
should follow from them. The gate's own reading of results is asked whether it finds the fact.
No value of a sample gets into a draft. Samples are data, never instructions.

A read may take what any read returned. A tool that acts takes only what a read returned about
one thing (a row of a list is whichever the agent picks), and only of a read that the user alone
steers: one that counts only where they named all that it was asked for (`trust: named`), or one
of which everything else is fixed. Of a tool that writes only a new id counts, of one that sends
or deletes nothing. An amount is bounded by what was read, and an id beside it is that of the
same read. Each link is a guess for a reviewer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import orjson

from agentgate.errors import ConfigError
from agentgate.loading.definition import read_file
from agentgate.loading.yaml_nodes import did_you_mean
from agentgate.redemption.outcome import extract
from agentgate.review.draft.argument import IDS, SAMPLES, SIGNS, Argument, constant, guess
from agentgate.review.draft.toolset import NAMES, words_of
from agentgate.values.currencies import CURRENCIES
from agentgate.values.entities import NUMERIC, TOKENISED, normal, number
from agentgate.values.paths import EACH, VALUES
from agentgate.values.value_class import Json, Values, value_class
from agentgate.values.visible import visible
from agentgate.workflow.model import Effect

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
_TOLD = "iban email url datetime date time".split()  # types that a value's form tells
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
    def rule(self) -> Json:
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
    typed = dict[_Steps, str]()
    for steps, held in values.items():
        if (keys := _keys(steps)) and (kind := _type(keys[-1], held)):
            typed[steps] = kind
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
        used = {*taken, *names.values()}
        if name := next((n for n in tries if _NAME.fullmatch(n) and n not in used), ""):
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
        kind = typed[steps]
        currency = ""
        amount = not AMOUNTS.isdisjoint(words_of(_keys(steps)[-1]))
        if beside and amount and kind in {"integer", "number"}:
            kind = "money"
            currency = names[beside]
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


# --- what arguments may come from -------------------------------------------------------------
_VERBS = (
    frozenset[str]().union(
        *(NAMES[effect] for effect in ("read", "write", "egress", "destructive"))
    )
    - NAMES["nouns"]
)
_VAGUE = (
    frozenset(
        "name type kind status state date time number ref reference code key value title "
        "text note count".split()
    )
    | IDS
)
# of a person or thing, and so what that is called alone
_FORMS = frozenset("iban email mail phone url".split())
Words = tuple[str, ...]


@value_class
class Returned:
    """A tool with its facts, as another tool's arguments may take them."""

    tool: str
    effect: Effect
    facts: Mapping[str, FoundFact]
    args: Mapping[str, Argument]

    @property
    def acting(self) -> bool:
        """Whether it is no read."""
        return self.effect != "read"

    @property
    def steered(self) -> Literal["named", "fixed", ""]:
        """How the user alone steers it: by naming all of it, or by naming some where the rest
        is or can be fixed; empty: not alone.
        """
        named = [a for a in self.args.values() if (a.rule or {}).get("from") == ["prompt"]]
        rest = [a for a in self.args.values() if a not in named]
        if named and not any(a.always for a in rest):
            return "named"
        return (
            "fixed"
            if all("is" in (a.rule or {}) or a.default is not None for a in rest)
            else ""
        )

    @property
    def fixed(self) -> tuple[Argument, ...]:
        """Its arguments with those fixed to their defaults that the user does not name."""
        return tuple(
            replace(
                a,
                rule={**typed(a.default), "from": ["model"], "optional": True},
                note="only its default: the model would choose",
            )
            if a.default is not None and "is" not in (a.rule or {})
            else a
            for a in self.args.values()
        )


@value_class
class Linked:
    """The arguments of a tool, and the facts that they take by tool: all, and those that get
    `trust: named`.
    """

    args: tuple[Argument, ...]
    taken: frozenset[tuple[str, str]] = frozenset()
    named: frozenset[tuple[str, str]] = frozenset()


def linked(tool: Returned, origins: Sequence[Returned], *, settle: bool) -> Linked:
    """The arguments of a tool with the facts of others that they may come from.

    `settle`: of a start, in which nothing is bounded, tied or fixed: its user is asked instead.
    """
    usable = {"named"} if settle else {"named", "fixed"}
    taken = set()
    named = set()
    out = list(tool.args.values())
    acting = tool.acting
    others = [origin for origin in origins if origin is not tool]
    for index, a in enumerate(out):
        for origin, fact in _matches(tool.tool, a, others):
            if (
                acting
                and origin.effect == "read"
                and (fact.listed or origin.steered not in usable)
            ):
                continue
            if made := _from(out[index], origin, fact):
                out[index] = made
                taken.add((origin.tool, fact.name))
                if acting and origin.steered == "named" and origin.effect == "read":
                    named.add((origin.tool, fact.name))
    if acting:
        for origin in others:
            if (
                origin.effect == "read"
                and origin.steered in usable
                and (bound := _bounded(tool.tool, out, origin, settle=settle))
            ):
                taken |= bound
                named |= bound if origin.steered == "named" else set()
    return Linked(tuple(map(_explained, out)), frozenset(taken), frozenset(named))


def _explained(a: Argument) -> Argument:
    """With a question about who can write what it may come from."""
    places = [text for text in (a.rule or {}).get("from", ()) if "." in text]
    return a if not places or a.note else replace(a, note=f"who can write {', '.join(places)}?")


def declared_fact(
    fact: FoundFact, beside: Mapping[str, FoundFact], *, named: bool
) -> tuple[Values, str]:
    """A fact as the workflow declares it, and what a reviewer should know of it. `beside`: all
    facts of its tool.
    """
    rows = [
        f
        for f in beside.values()
        if f.listed and f.path.rpartition(".")[0] == fact.path.rpartition(".")[0]
    ]
    labels = [f.name for f in rows if f.type == "text"]
    note = (
        f"any row counts; with named_by: [{labels[0]}] only the one that the user names"
        if fact.type == "id" and labels
        else ""
    )
    return {**fact.rule, **({"trust": "named"} if named else {})}, note


def stated(a: Argument) -> Argument:
    """An argument of a read that others refer to: where its value may come from has to be
    said.
    """
    if a.rule is None or "from" in a.rule:
        return a
    last = {key: value for key, value in a.rule.items() if key in {"optional", "nullable"}}
    return replace(
        a,
        rule={
            **{key: value for key, value in a.rule.items() if key not in last},
            "from": ["model"],
            **last,
        },
    )


# --- by name ----------------------------------------------------------------------------------
def _matches(
    tool: str, a: Argument, origins: Sequence[Returned]
) -> Iterator[tuple[Returned, FoundFact]]:
    wanted = _called(a.name, tool)
    for origin in origins:
        for fact in origin.facts.values():
            new = origin.effect == "write" and fact.type == "id" and not fact.listed
            if wanted & _called(fact.path, origin.tool) and (origin.effect == "read" or new):
                yield origin, fact


def _called(path: str, tool: str) -> frozenset[Words]:
    """What a value may be called: by its own name, unless that says nothing alone, with what it
    is in, and with what the tool is about.
    """
    *outer, last = [step for step in path.replace("[]", "").split(".") if step != "*"] or [""]
    own = _single(words_of(last))
    of = _single(words_of(outer[-1])) if outer else about(tool)
    whole = {
        own,
        (*of, *own),
        *([of] if outer and own and (own[-1] in _FORMS or own[-1] in _VAGUE) else []),
    }
    return frozenset(
        words for words in whole if len(words) > 1 or (words and words[0] not in _VAGUE)
    )


def about(tool: str) -> Words:
    """The things in a tool's name: ``order`` of ``orders_get``."""
    return _single(
        tuple(
            w
            for w in words_of(tool)
            if w not in _VERBS and w not in "by for of to all my".split()
        )
    )


def _single(words: Words) -> Words:
    return tuple(
        w[:-3] + "y"
        if w.endswith("ies")
        else w[:-1]
        if w.endswith("s") and not w.endswith(("ss", "us"))
        else w
        for w in words
    )


# --- rules ------------------------------------------------------------------------------------
def _from(a: Argument, origin: Returned, fact: FoundFact) -> Argument | None:
    """The argument with one more origin; None where it cannot have it."""
    source = f"{origin.tool}.{fact.name}"
    rule = a.rule
    if rule is None:  # free text, of which the results tell the type
        if fact.type in {"text", *NUMERIC} or not a.open or fact.type not in TOKENISED:
            return None
        first, second = SAMPLES[fact.type]
        made = {"type": fact.type, "from": ["prompt", source], **a.left_out}
        spoken = (
            first.replace("T", " ")
            if fact.type == "datetime"
            else SIGNS.get(fact.type, "") + first
        )
        return replace(
            a,
            rule=made,
            note="",
            proposal="",
            samples=(first, second),
            spoken=spoken,
            open=False,
        )
    sources = rule.get("from", [])
    if (
        "prompt" not in sources
        or source in sources
        or rule.get("type", "text") != fact.type
        or fact.type in NUMERIC
    ):
        return None
    return replace(a, rule={**rule, "from": [*sources, source]}, note="")


def _find_amount(origin: Returned) -> FoundFact | None:
    """The amount that a read returned, a total before others."""
    amounts = (
        f
        for f in origin.facts.values()
        if not f.listed and f.type in NUMERIC and not AMOUNTS.isdisjoint(words_of(f.path))
    )
    return min(
        amounts, key=lambda f: {"total", "amount"}.isdisjoint(words_of(f.path)), default=None
    )


def _bounded(
    tool: str, args: list[Argument], origin: Returned, *, settle: bool
) -> set[tuple[str, str]]:
    """Bound the amount of a tool that acts by what a read returned of the same thing, and tie
    that thing's id to that read.
    """
    tie = _tie(tool, args, origin)
    about_it = set(about(tool)) & set(about(origin.tool))
    at = next(
        (
            i
            for i, a in enumerate(args)
            if a.rule is None and a.number and not AMOUNTS.isdisjoint(words_of(a.name))
        ),
        None,
    )
    fact = _find_amount(origin)
    if at is None or not fact or not (tie or about_it):
        return set()
    a = args[at]
    source = f"{origin.tool}.{fact.name}"
    kind = fact.type
    found = {(origin.tool, fact.name)}
    beside = next((i for i, b in enumerate(args) if _currency_of(a, b)), None)
    spoken = "20"
    currency = Json()
    if kind == "money":
        if beside is None:
            args[at] = replace(
                a, note=f"how much at most? {source} has a currency, and this tool names none"
            )
            return set()
        code = f"{origin.tool}.{fact.currency}"
        found.add((origin.tool, fact.currency))
        args[beside] = replace(
            args[beside],
            rule={"from": [code]},
            note=f"the currency of {source}",
            proposal="",
            samples=("EUR", None),
            open=False,
        )
        spoken = "20 EUR"
        currency = {"currency": args[beside].name}
    else:
        kind = a.number
    bound = {} if settle else {"at_most": source}
    rule = {"type": kind, **currency, **bound, "from": ["prompt", source], **a.left_out}
    note = f"no more than {source}; and how much in any case? (min, max)"
    args[at] = replace(a, rule=rule, note=note, proposal="", samples=(20, 21), spoken=spoken)
    for index, name in tie.items() if not settle else ():
        rule = {**(args[index].rule or {}), "from": [f"{origin.tool}.{name}"]}
        args[index] = replace(
            args[index],
            rule=rule,
            note=f"what {origin.tool} was asked for, so all of it is of one call",
        )
    return found


def _tie(tool: str, args: Sequence[Argument], origin: Returned) -> dict[int, str]:
    """The arguments that name what the read was asked for, by the read's own."""
    found = {}
    for index, a in enumerate(args):
        for name, other in origin.args.items():
            same = _called(a.name, tool) & _called(name, origin.tool)
            if (
                same
                and a.always
                and other.always
                and (a.rule or {}).get("type") == (other.rule or {}).get("type", "") != ""
            ):
                found[index] = name
    return found


def _currency_of(amount: Argument, other: Argument) -> bool:
    """Whether another argument holds the currency of an amount: beside it, free text, always
    sent.
    """
    where = amount.name.rpartition(".")[0]
    here = other.name.rpartition(".")
    return (
        where == here[0]
        and words_of(here[2])[-1:] == ("currency",)
        and other.rule is None
        and other.open
        and other.always
    )


def typed(value: Any) -> Json:
    """A rule that allows exactly one value."""
    kind, shown = constant(value)
    return {**({"type": kind} if kind != "text" else {}), "is": shown}
