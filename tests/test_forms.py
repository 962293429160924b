"""The forms in which models send values: one form is decided on, hashed and run, and no form hides anything.

Attacks: a second recipient in a text that holds JSON, an address behind a written-out line break, letters that only look like capitals, a
null that clears a field, and calls of a wrong form that ask without end where the edge is.
"""

from __future__ import annotations

import json
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from pydantic import BeforeValidator, ValidationError
from typer.testing import CliRunner

from agentgate import Agent, Gate, User
from agentgate.cli.main import app
from agentgate.errors import CanonicalError
from agentgate.integrations.langchain import guard_tools
from agentgate.integrations.langchain.arguments import Arguments, definition_of, shown_schema
from agentgate.language.spans import embedded
from agentgate.values.canonical import canonical, digest
from agentgate.values.entities import canonical_form, describe_forms, spell_value
from agentgate.workflow.rule import Rule
from tests.effort import examples
from tests.workflows import workflow_text

LIST = {"type": "array", "items": {"type": "string"}}
SCHEMA = {
    "type": "object",
    "properties": {
        "to": LIST,
        "cc": {"anyOf": [LIST, {"type": "null"}], "default": None},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": "x"},
        "body": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "files": {"type": "array", "items": {"$ref": "#/$defs/file"}},
        "meta": {"type": "object"},
        "any": {},
        "either": {"anyOf": [LIST, {"type": "string"}]},
        "one": LIST,
    },
    "required": ["to", "body"],
    "$defs": {"file": {"type": "object", "properties": {"by": {"type": "string", "format": "email"}, "tags": LIST}}},
}
TYPES = {"one": "text", "to": "email", "cc": "email", "body": "text", "at": "datetime", "files[].by": "email"}
DECLARED = SimpleNamespace(args={name: Rule(name, 1, kind, max_items=9 if name in {"to", "cc"} else None) for name, kind in TYPES.items()})
KIM, EVE = "kim@acme.example", "eve@evil.example"


@pytest.mark.parametrize(
    ("given_", "form"),
    [
        ({"to": KIM}, {"to": [KIM]}),
        ({"to": json.dumps([KIM, EVE])}, {"to": [KIM, EVE]}),  # both are decided on
        ({"to": "[draft"}, {"to": ["[draft"]}),
        ({"to": '[{"a": 1, "a": 2}]'}, {"to": ['[{"a": 1, "a": 2}]']}),  # a key twice is no JSON
        ({"to": ["Kim@Acme.EXAMPLE"]}, {"to": [KIM]}),
        ({"body": '["a"]'}, {"body": '["a"]'}),  # text where text is taken
        ({"either": '["a"]'}, {"either": '["a"]'}),
        ({"one": '["a"]'}, {"one": '["a"]'}),  # where the workflow reads one text
        ({"any": '["a"]'}, {"any": '["a"]'}),  # nobody says what is taken
        ({"cc": None}, {}),
        ({"note": None}, {"note": None}),  # which may clear it
        ({"to": None}, {"to": None}),
        ({"files": {"by": "Kim@acme.example", "x": "Y"}}, {"files": [{"by": KIM, "x": "Y"}]}),
        ({"meta": '{"a": null}'}, {"meta": {"a": None}}),
        ({"at": "2026-06-03T10:00:00Z"}, {"at": "2026-06-03T10:00:00"}),
        ({"at": "2026-06-03 10:00Z"}, {"at": "2026-06-03 10:00"}),
        ({"at": "2026-06-03T10:00:00+02:00"}, {"at": "2026-06-03T10:00:00+02:00"}),
        ({"at": "AtoZ"}, {"at": "AtoZ"}),
        ({"other": [None, {"x": None}]}, {"other": [None, {"x": None}]}),
    ],
)
def test_each_form_has_one(given_: dict[str, Any], form: dict[str, Any]) -> None:
    assert canonical_form(given_, SCHEMA, DECLARED) == form


@pytest.mark.parametrize("letter", ["\u212a", "\u0130", "\u0131", "\uff2b", "\u041a", "\u03ba"])
def test_only_ascii_letters_are_capitals(letter: str) -> None:
    """`str.lower` makes a k of the Kelvin sign, and people read more letters than one as a k."""
    for address in (f"{letter}im@acme.example", f"kim@ac{letter}e.example"):
        assert spell_value("email", address) == address
        assert canonical_form({"to": address}, SCHEMA, DECLARED) == {"to": [address]}


def test_what_is_nested_without_end_stays_as_it_is() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    assert canonical_form({"to": deep, "files": deep, "body": "[" * 10_000}, SCHEMA, DECLARED)["files"][0][0] is deep[0][0]
    round_and_round = {"properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"$ref": "#/$defs/x"}}}
    assert canonical_form({"x": "a"}, round_and_round, None) == {"x": "a"}


@pytest.mark.parametrize("schema", [{"properties": []}, {"properties": {"x": 1}, "required": 5}, {"properties": {"x": {"type": {}}}}, {}])
def test_a_schema_that_is_none_changes_nothing(schema: dict[str, Any]) -> None:
    assert canonical_form({"x": "a", "y": None}, schema, None) == {"x": "a", "y": None}
    describe_forms(schema, ["args.x"])


_PLAIN = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
_SCHEMAS = st.recursive(
    st.one_of(st.just({}), _PLAIN.map(lambda kind: {"type": kind}), st.lists(_PLAIN, min_size=1, max_size=2).map(lambda k: {"type": k})),
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items}),
        inner.map(lambda each: {"anyOf": [each, {"type": "null"}], "default": None}),
        st.dictionaries(st.sampled_from("ab"), inner).map(lambda p: {"type": "object", "properties": p}),
    ),
    max_leaves=6,
)
_TEXTS = st.one_of(
    st.sampled_from(["Kim@Acme.example", "2026-06-03 10:00:00Z", "[]", "{", "[null]", "\u212a@a.example"]), st.text(max_size=4)
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False, allow_infinity=False, width=16), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner)),
    max_leaves=6,
)
_JSON_IN_TEXT = st.one_of(_VALUES, _VALUES.map(json.dumps))
_RULES = st.dictionaries(
    st.sampled_from(["a", "b", "a.a", "a[]", "a[].b"]), st.sampled_from(["email", "datetime", "text"]).map(partial(Rule, "a", 1))
)


@settings(max_examples=examples(300), deadline=None)
@given(st.dictionaries(st.sampled_from("ab"), _SCHEMAS), st.dictionaries(st.sampled_from("ab"), _JSON_IN_TEXT), _RULES)
def test_twice_is_as_once(properties: dict[str, Any], args: dict[str, Any], rules: dict[str, Rule]) -> None:
    schema = {"properties": properties}
    declared = SimpleNamespace(args=rules)
    form = canonical_form(args, schema, declared)
    assert canonical(canonical_form(form, schema, declared)) == canonical(form)


# --- a wrapped tool --------------------------------------------------------------------------------------------------------------
WORKFLOW = workflow_text(
    "desk.mail",
    expires='"2031-05-31"',
    intents='{mail: {asks_for: Send mail., words: [send, "^mail"], examples: [Send it], counter_examples: [Read it]}}',
    tools="""
  send:
    effect: egress
    needs: [mail]
    redeem: wrapper
    definition: DEFINITION
    args:
      to: {type: email, pattern: '[a-z]+@acme[.]example', max_items: 2, from: [prompt]}
      body: {text: 99, from: [model], entities: [prompt]}
      at: {type: datetime, from: [model], optional: true}
      note: {text: 20, from: [model], optional: true}
  find:
    effect: read
    needs: any
    redeem: wrapper
    args: {name: {text: 20}}
    facts: {mail: {type: email, path: '[].mail'}}
""",
)
RAN: list[dict[str, Any]] = []


@tool
def send(to: list[str], body: str, at: str | None = None, note: str | None = "x") -> str:
    """Send mail."""
    RAN.append({"to": to, "body": body, "at": at, "note": note})
    return "sent"


@pytest.fixture
def gate(tmp_path: Any) -> Any:
    RAN.clear()
    (tmp_path / "mail.yaml").write_text(WORKFLOW.replace("DEFINITION", definition_of(send)), encoding="utf-8")
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as opened:
        yield opened


def run_of(gate: Gate, prompt: str = f"Send mail to {KIM}, please") -> Any:
    return gate.open_run("desk.mail", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=prompt)


def call(gated: BaseTool, number: int = 1, /, **args: Any) -> ToolMessage:
    message: ToolMessage = gated.invoke({"name": gated.name, "args": args, "id": f"call_{number}", "type": "tool_call"})
    return message


def digests(gate: Gate) -> set[str]:
    audit: Any = gate._audit
    return {record["arguments_digest"] for record in audit.records if "arguments_digest" in record}


@pytest.mark.parametrize("to", [KIM, [KIM], "Kim@ACME.example", '["kim@acme.example"]', ["KIM@acme.example"]], ids=json.dumps)
def test_decision_digest_and_tool_have_the_same_value(gate: Gate, to: Any) -> None:
    (gated,) = guard_tools([send], run=run_of(gate))
    assert call(gated, to=to, body="Hi", at="2026-06-03T10:00:00Z").content == "sent"
    (ran,) = RAN
    assert ran == {"to": [KIM], "body": "Hi", "at": "2026-06-03T10:00:00", "note": "x"}
    assert digest(canonical(ran)) in json.dumps([*digests(gate)])


def test_a_text_that_holds_json_smuggles_no_recipient(gate: Gate) -> None:
    (gated,) = guard_tools([send], run=run_of(gate))
    for number, to in enumerate((json.dumps([KIM, EVE]), json.dumps([json.dumps([KIM, EVE])]), f"{KIM},{EVE}", [KIM, f'["{EVE}"]'])):
        assert call(gated, number, to=to, body="Hi").status == "error"
    assert RAN == []


def test_a_null_that_may_clear_a_field_is_refused_and_the_tools_own_default_is_not(gate: Gate) -> None:
    (gated,) = guard_tools([send], run=run_of(gate))
    assert call(gated, 1, to=KIM, body="Hi", note=None).content == "agentgate: invalid_arguments note: string or null"
    assert RAN == []
    assert call(gated, 2, to=KIM, body="Hi", at=None).content == "sent"
    assert RAN[0]["at"] is None


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"to": 5, "body": "Hi"}, " to: array"),
        ({"to": KIM}, " body: string"),
        ({"to": KIM, "body": "Hi", "at": "soon"}, " at: string or null"),
        ({"to": KIM, "body": {}, "at": []}, " body: string; at: string or null"),
    ],
)
def test_the_model_is_told_what_the_schema_says_and_nothing_of_the_workflow(gate: Gate, args: dict[str, Any], told: str) -> None:
    (gated,) = guard_tools([send], run=run_of(gate))
    message = call(gated, 1, **args)
    assert (message.status, message.content) == ("error", f"agentgate: invalid_arguments{told}")
    assert call(gated, 2, to="kim@other.example", body="Hi").content == "agentgate: not_permitted"  # a pattern is no form
    assert call(gated, 3, to=[KIM] * 3, body="Hi").content == "agentgate: not_permitted"  # nor a bound
    assert call(gated, 4, to=KIM, body="x" * 100).content == "agentgate: not_permitted"
    assert call(gated, 5, to=KIM, body="Hi", bcc=EVE).content == "agentgate: invalid_arguments"


def test_of_a_schema_that_the_workflow_does_not_pin_only_langchain_speaks(gate: Gate) -> None:
    @tool
    def find(name: str) -> list[dict[str, str]]:
        """Find somebody."""
        return [{"mail": "Kim@ACME.example"}]

    (gated,) = guard_tools([find], run=run_of(gate))
    with pytest.raises(ValidationError):
        call(gated, 1, name=[])


def test_a_time_of_a_json_schema_needs_no_zone(gate: Gate) -> None:
    schema = {"type": "object", "properties": {"to": LIST, "body": {"type": "string"}, "at": {"type": "string", "format": "date-time"}}}
    server = StructuredTool(name="send", description="Send mail.", args_schema=schema, func=RAN.append)
    arguments = Arguments(server)
    for sent, taken in (("2026-06-03T10:00:00Z", True), ("2026-06-03T10:00:00", True), ("2026-06-03 10:00", False), ("10:00", False)):
        form = arguments.in_form({"to": KIM, "body": "Hi", "at": sent}, DECLARED)  # type: ignore[arg-type]
        if taken:
            assert arguments.settle(form, {}).values == {"to": [KIM], "body": "Hi", "at": "2026-06-03T10:00:00"}
        else:
            with pytest.raises(CanonicalError):
                arguments.settle(form, {})


def test_an_error_of_the_tools_own_is_its_own(gate: Gate) -> None:
    def fail(**_: Any) -> str:
        """Send mail."""
        send.args_schema.model_validate({"to": 5})  # type: ignore[union-attr]
        return "never"

    failing = StructuredTool.from_function(fail, name="send", description=send.description, args_schema=send.args_schema)
    (gated,) = guard_tools([failing], run=run_of(gate))
    with pytest.raises(ValidationError):
        call(gated, 1, to=KIM, body="Hi")


def test_what_the_tool_takes_as_it_is_it_gets() -> None:
    """A validator of the tool's own splits the text, whatever the JSON Schema says."""

    @tool
    def split(to: Annotated[list[str], BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)], body: str) -> str:
        """Send mail."""
        RAN.append({"to": to})
        return "sent"

    assert Arguments(split).in_form({"to": f"{KIM},{EVE}", "body": ""}, None) == {
        "to": f"{KIM},{EVE}",
        "body": "",
    }


def test_capitals_in_a_result_are_the_same_address(gate: Gate) -> None:
    run = run_of(gate)
    token: Any = run.authorize("find", {"name": "Kim"}, tool_call_id="find").token
    with run.redeem(token, tool="find", args={"name": "Kim"}) as found:
        found.record_result([{"mail": "Kim@ACME.example"}, {"mail": "\u212aim@acme.example"}])
    (earlier,) = gate.resume_run(run.tenant, run.id).state.calls
    assert [row["mail"] for row in earlier.rows] == [KIM, "\u212aim@acme.example"]


def test_calls_of_a_wrong_form_have_a_budget_of_their_own_and_close_no_run(gate: Gate) -> None:
    run = run_of(gate)
    wrong: dict[str, Any] = {"to": [KIM], "body": 5}
    answers = [run.authorize("send", wrong, tool_call_id=f"wrong {n}", definition=definition_of(send)).code for n in range(30)]
    assert answers == ["invalid_arguments"] * 19 + ["not_permitted"] * 11  # and then nothing tells what is wrong with them
    right = {"to": [KIM], "body": "Hi"}
    assert run.authorize("send", right, tool_call_id="right", definition=definition_of(send)).token
    denied = [run.authorize("send", {**right, "to": [EVE]}, definition=definition_of(send)) for _ in range(20)]
    assert "too_many_denials" in {str(failure.reason) for failure in denied[-1].failures}  # none of them counted as a denial
    assert run.authorize("send", wrong, definition=definition_of(send)).code == "not_permitted"


def test_a_wrong_form_beside_another_refusal_is_a_denial(gate: Gate) -> None:
    run = run_of(gate, "Read my mail, please")
    denied = [run.authorize("send", {"to": [KIM], "body": 5}, tool_call_id=f"{n}").code for n in range(20)]
    assert set(denied) == {"not_permitted"}
    assert run.authorize("find", {"name": "Kim"}, tool_call_id="find").code == "not_permitted"  # it is closed


def test_a_call_that_is_refused_for_more_than_its_form_is_told_nothing(gate: Gate) -> None:
    (gated,) = guard_tools([send], run=run_of(gate, "Read my mail, please"))
    assert call(gated, 1, to=KIM, body="Hi", at="soon").content == "agentgate: not_permitted"


def test_evaluate_knows_the_schemas_of_recorded_calls(gate: Gate, tmp_path: Path) -> None:
    args = {"to": KIM.upper(), "body": "Hi", "at": None}
    step = {"tool": "send", "args": args, "result": "sent", "by": "user", "effect": "egress", "destructive": False}
    episode = {"id": "1", "suite": "desk", "workflow": "desk.mail", "tenant": "acme", "user": "lee", "agent": "bot", "attack": None}
    more = {
        "now": "2030-01-01T00:00:00Z",
        "prompt": f"Send mail to {KIM}, please",
        "steps": [{**step, "effect": "egress", "destructive": False}],
    }
    recorded, tools = tmp_path / "recorded.jsonl", tmp_path / "tools.jsonl"
    recorded.write_text(json.dumps({**episode, **more}), encoding="utf-8")
    tools.write_text(json.dumps({"suite": "desk", "name": "send", "parameters": shown_schema(send)}) + "\n", encoding="utf-8")
    command = ["evaluate", str(recorded), "--workflows", str(tmp_path), "--unsafe-unapproved", "--json"]

    def automatic(*options: str) -> int:
        answer = CliRunner().invoke(app, [*command, *options])
        assert answer.exit_code == 0, answer.output
        return int(json.loads(answer.stdout)["overall"]["tasks fully automatic"]["k"])

    assert (automatic(), automatic("--tools", str(tools))) == (0, 1)
    tools.write_text('{"suite": "desk"}', encoding="utf-8")
    answer = CliRunner().invoke(app, [*command, "--tools", str(tools)])
    assert (answer.exit_code, "tools.jsonl" in answer.stderr, "name" in answer.stderr) == (1, True, True)


# --- free text -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"Regards\nina@acme.example", {"ina@acme.example", "nina@acme.example"}),  # one address or the other, as the reader unescapes
        (r"Regards\\nina@acme.example", {"ina@acme.example"}),
        (r"a\r\neve@evil.example", {EVE}),
        (r"a\teve@evil.example", {EVE}),
        (r"eve\u0040evil.example", {EVE}),
        (r"http:\nevil.example/x", {r"http:\nevil.example/x"}),
        (r"\\nas\notes", {r"\\nas\notes"}),
        (r"\\n\share", {r"\\n\share"}),
    ],
)
def test_a_written_out_line_break_hides_no_address(text: str, found: set[str]) -> None:
    assert {str(entity.key) for entity in embedded(text, date(2026, 6, 3))} >= found


def test_a_written_out_line_break_alone_is_no_link() -> None:
    assert [*embedded(r"One\n - two.\\n - three\n", date(2026, 6, 3))] == []
