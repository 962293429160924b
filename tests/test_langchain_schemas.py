"""Everyday schemas: a guarded tool takes what the raw tool takes, and does the same with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool, Tool, tool
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, create_model
from pydantic.dataclasses import dataclass as pydantic_dataclass
from structlog.testing import capture_logs

from agentgate.errors import CanonicalError, ConfigError
from agentgate.gate.gate import Gate
from agentgate.gate.run import Run
from agentgate.integrations.langchain import CallRefused, guard_tools, use_run
from agentgate.integrations.langchain.arguments import Arguments
from agentgate.values.request import Agent, User

PROMPT = "Please look up ORD-10023344 and #0042, and quote 12.50 EUR"


def opened(directory: Path, tool_name: str, args: str) -> Iterator[Run]:
    (directory / "any.yaml").write_text(f"""\
agentgate: workflow/v1
id: shop.any
version: 1
title: One tool
owners: [lee]
risk: low
expires: "2027-05-31"
tenants: [acme]
who: {{agent: {{in_process: true}}, for_user: {{same_tenant: true}}}}
intents: {{none: "Only looks; nothing here changes or sends anything."}}
tools:
  {tool_name}:
    effect: read
    needs: any
    redeem: wrapper
    args: {args}
""")
    with Gate.open_unsafe_unapproved(directory, issuer="https://gate.acme.example", audit="memory://") as gate:
        yield gate.open_run("shop.any", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("desk"), prompt=PROMPT)


def took(directory: Path, original: BaseTool, args: str, given: Any) -> tuple[Any, Any]:
    """What the raw tool answers, and what the guarded one does."""
    for run in opened(directory, original.name, args):
        (guarded,) = guard_tools([original])
        with use_run(run):
            answer = guarded.invoke(dict(given) if isinstance(given, dict) else given)
    return original.invoke(dict(given) if isinstance(given, dict) else given), answer


@tool("find")
def find(text: str, tags: list[str] = [], options: dict[str, int] = {}, limit: int = 3) -> str:  # noqa: B006 - as tools are written
    """Find."""
    return f"{text} {tags} {options} {limit}"


class Query(BaseModel):
    """A list that is made for each call."""

    text: str
    tags: list[str] = Field(default_factory=list)


def _query(text: str, tags: list[str]) -> str:
    return f"{text} {tags}"


made = StructuredTool.from_function(_query, name="find", description="Find.", args_schema=Query)


class Price(BaseModel):
    """An amount, and what it is in."""

    amount: Decimal
    currency: str


@tool("find")
def priced(order: str, price: Price) -> str:
    """Find."""
    return f"{order} {price!r}"


class Aliased(BaseModel):
    """Read under another name than the field's, which LangChain shows to the model all the same."""

    model_config = ConfigDict(populate_by_name=True)
    from_: str = Field(alias="from")
    sku: str = Field(default="", validation_alias=AliasChoices("SKU", "article"))


def _aliased(from_: str, sku: str) -> str:
    return f"{from_} {sku}"


aliased = StructuredTool.from_function(_aliased, name="find", description="Find.", args_schema=Aliased)


class Line(BaseModel):
    """Inside an argument, models are shown the alias."""

    sku: str = Field(alias="SKU")
    times: int = Field(default=1, serialization_alias="count")


@tool("find")
def lines(lines: list[Line]) -> str:
    """Find."""
    return repr(lines)


@pydantic_dataclass
class Part:
    """A dataclass with an alias."""

    no: Annotated[str, Field(alias="partNo")]


@tool("find")
def parts(part: Part) -> str:
    """Find."""
    return repr(part)


@tool("find")
def payload(payload: dict[str, Any]) -> str:
    """Find."""
    return str(payload)


@tool("find")
def numbered(number: str) -> str:
    """Find."""
    return number


def by_schema(key: str, **more: Any) -> BaseTool:
    schema = {"type": "object", "properties": {key: {"type": "string"}, **more}, "required": [key]}
    return StructuredTool(name="find", description="Find.", args_schema=schema, func=lambda **values: repr(sorted(values.items())))


bare = Tool(name="find", description="Find.", func=str.upper)
FIND = (
    "{text: {text: 20}, tags: {text: 20, max_items: 3, optional: true}, options: {type: json, text: 99, optional: true}, "
    "limit: {type: integer, min: '3', max: '4'}}"
)
MONEY = (
    "{order: {type: id, from: [prompt]}, price.amount: {type: money, currency: price.currency, min: '0.01', max: '99', from: [prompt]}, "
    "price.currency: {in: [EUR, USD]}}"
)
LISTED = {"tags": {"type": "array", "items": {"type": "string"}, "default": []}}
TAKEN: dict[str, tuple[BaseTool, str, Any]] = {
    "a list and an object with an empty default, left out": (find, FIND, {"text": "a"}),
    "the same, sent empty": (find, FIND, {"text": "a", "tags": [], "options": {}}),
    "the same, sent": (find, FIND, {"text": "a", "tags": ["x"], "options": {"y": 1}, "limit": "4"}),
    "one text for a tool with more arguments": (find, FIND, "a"),
    "a list that is made for each call": (made, "{text: {text: 20}, tags: {text: 20, max_items: 3, optional: true}}", {"text": "a"}),
    "an empty default in a JSON Schema": (by_schema("a", **LISTED), "{a: {text: 9}}", {"a": "x"}),
    "money in an argument": (priced, MONEY, {"order": "ORD-10023344", "price": {"amount": "12.50", "currency": "EUR"}}),
    "an alias": (aliased, "{from_: {text: 9}, sku: {text: 9, optional: true}}", {"from": "a", "SKU": "b"}),
    "a choice of aliases": (aliased, "{from_: {text: 9}, sku: {text: 9, optional: true}}", {"from": "a", "article": "b"}),
    "a field's own name": (aliased, "{from_: {text: 9}, sku: {text: 9, optional: true}}", {"from_": "a"}),
    "an alias inside": (
        lines,
        "{'lines[].SKU': {text: 9, max_items: 3}, 'lines[].times': {type: integer, max_items: 3}}",
        {"lines": [{"SKU": "a"}]},
    ),
    "an alias in a dataclass": (parts, "{part.partNo: {text: 9}}", {"part": {"partNo": "a"}}),
    "an object": (payload, "{payload: {type: json, text: 99}}", {"payload": {"": 1, "@id": 2, "a b": [3], "größe": {}}}),
    "leading zeros and a sign": (numbered, "{number: {type: id, from: [prompt]}}", {"number": "0042"}),
    "a bare tool's own name": (bare, "{tool_input: {text: 9}}", {"tool_input": "a"}),
    "a bare tool's text": (bare, "{tool_input: {text: 9}}", "a"),
    "a bare tool under any name": (bare, "{tool_input: {text: 9}}", {"query": "a"}),
    **{
        f"the key {key}": (by_schema(key), f"{{{key!r}: {{text: 9}}}}", {key: "a"})
        for key in ("$filter", "@type", "2fa", "X-Id", "a/b", "in")
    },
}


@pytest.mark.parametrize(("original", "args", "given"), TAKEN.values(), ids=TAKEN)
def test_a_guarded_tool_takes_what_the_raw_tool_takes(tmp_path: Path, original: BaseTool, args: str, given: Any) -> None:
    raw, guarded = took(tmp_path, original, args, given)
    assert guarded == raw


REFUSED: dict[str, tuple[BaseTool, str, Any, str]] = {
    "money in another currency": (
        priced,
        MONEY,
        {"order": "ORD-10023344", "price": {"amount": "12.50", "currency": "USD"}},
        "price.amount",
    ),
    "a number without its zeros": (numbered, "{number: {type: id, from: [prompt]}}", {"number": "42"}, "number"),
    "a sign before an id": (numbered, "{number: {type: id, from: [prompt]}}", {"number": "#0042"}, "id in normal form (42, without #)"),
    "a default that says something": (find, "{text: {text: 20}}", {"text": "a"}, "args: got an argument"),
    "two names for a bare tool": (
        bare,
        "{tool_input: {text: 9}}",
        {"tool_input": "a", "more": "b"},
        "an argument that the model may not set",
    ),
}


@pytest.mark.parametrize(("original", "args", "given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_the_workflow_does_not_say_is_refused(tmp_path: Path, original: BaseTool, args: str, given: Any, said: str) -> None:
    for run in opened(tmp_path, original.name, args):
        with use_run(run), capture_logs() as logs, pytest.raises((CallRefused, Exception)) as refused:
            guard_tools([original])[0].invoke(given)
        if original is not bare:  # LangChain itself refuses what a bare tool cannot take
            assert isinstance(refused.value, CallRefused)
            assert said in str(logs)


def test_names_inside_arguments_are_those_that_the_model_is_shown() -> None:
    settled = Arguments(lines).settle({"lines": [Line(SKU="a")]}, {})
    assert settled.decided.data == b'{"lines":[{"SKU":"a","times":1}]}'
    assert settled.values == {"lines": [Line(SKU="a")]}
    shown = lines.tool_call_schema.model_json_schema()  # type: ignore[union-attr]
    assert set(shown["$defs"]["Line"]["properties"]) == {"SKU", "times"}


def test_an_alias_that_is_another_field_is_refused_when_guarded() -> None:
    class Swapped(BaseModel):
        one: str = Field(alias="two")
        two: str = Field(alias="one")

    swapped = StructuredTool.from_function(lambda one, two: one + two, name="find", description="Find.", args_schema=Swapped)
    with pytest.raises(ConfigError, match="a field whose alias is another field"):
        guard_tools([swapped])


@dataclass
class Plain:
    """A dataclass of the standard library."""

    tags: list[str]


def test_an_empty_list_that_is_required_is_not_left_out() -> None:
    @tool("find")
    def find_all(tags: list[str], plain: Plain) -> str:
        """Find."""
        return str(tags)

    settled = Arguments(find_all).settle({"tags": [], "plain": Plain([])}, {})
    assert settled.decided.data == b'{"plain":{"tags":[]},"tags":[]}'


class Unfinished(BaseModel):
    """Names a type that is nowhere."""

    what: Nowhere  # type: ignore[name-defined] # noqa: F821 - that is the point


_numbers = count()
DRIFTING: dict[str, tuple[Any, Any]] = {
    "another type, though it is equal": (bool, 1),
    "another type inside": (list[bool], [1]),
    "a form that grows": (Annotated[str, PlainSerializer(lambda text: text + "!")], "broken"),
    "another form each time": (
        Annotated[str, BeforeValidator(lambda text: text.split(":")[-1]), PlainSerializer(lambda text: f"{next(_numbers)}:{text}")],
        "broken",
    ),
}


@pytest.mark.parametrize(("kind", "given"), DRIFTING.values(), ids=DRIFTING)
def test_what_would_run_as_another_value_than_was_decided_on_is_refused(kind: Any, given: Any) -> None:
    made = StructuredTool.from_function(
        lambda value: value, name="notes.add", description="Write.", args_schema=create_model("Note", value=(kind, ...))
    )
    with pytest.raises(CanonicalError, match="change when validated again"):
        Arguments(made).settle({"value": given}, {})


def test_what_is_decided_on_and_would_not_reach_the_tool_is_refused() -> None:
    loose = create_model("Loose", __config__=ConfigDict(extra="allow"), text=(str, ...))
    made = StructuredTool.from_function(lambda text: text, name="notes.add", description="Write.", args_schema=loose)
    assert Arguments(made).settle({"text": "hi"}, {}).values == {"text": "hi"}
    with pytest.raises(CanonicalError, match="change when validated again"):
        Arguments(made).settle({"text": "hi", "to": "eve"}, {})


def test_a_guarded_function_runs_the_same_code_and_the_hosts_own_stays_as_it_is() -> None:
    mark = "!"

    @tool
    def note(text: str, *, end: str = "?") -> str:
        """Write."""
        return text + end + mark

    given: Any = note
    (guarded,) = guard_tools([given])
    assert given.func.__annotations__ == {"text": "str", "end": "str", "return": "str"}
    made: Any = guarded
    assert made.func.__annotations__ == {"text": str, "end": str, "return": str}
    assert made.func.__wrapped__ is given.func
    assert made.func("broken") == given.func("broken") == "broken?!"


def test_what_has_a_serializer_is_dumped_by_it() -> None:
    dumped: list[str] = []

    def dump(text: str) -> str:
        dumped.append(text)
        return text

    schema = create_model("Note", text=(Annotated[str, PlainSerializer(dump)], ...), times=(int | None, None))
    made = StructuredTool.from_function(lambda **_: "", name="notes.add", description="Write.", args_schema=schema)
    settled = Arguments(made).settle({"text": "broken", "times": None}, {})
    assert (settled.decided.data, settled.values) == (b'{"text":"broken"}', {"text": "broken", "times": None})
    assert dumped == ["broken", "broken"]  # what was given, and what the tool runs with


def test_a_schema_with_a_type_that_is_not_defined_is_refused_by_name() -> None:
    unfinished = StructuredTool(name="find", description="Find.", args_schema=Unfinished, func=str)
    with pytest.raises(ConfigError, match="the schema of 'find', which pydantic cannot build"):
        guard_tools([unfinished])
