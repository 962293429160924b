"""Drafts from real tools: they load, they are narrow, and what nobody decided is refused by the engine itself."""

from __future__ import annotations

import json
import re
import string
import sys
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from agentgate.decision.answer import Deny, Eligible
from agentgate.errors import AgentGateError, ConfigError
from agentgate.integrations.langchain import definition_of
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import inline, read_yaml
from agentgate.review.draft.argument import argument
from agentgate.review.draft.draft import UNDECIDED, draft, undecided
from agentgate.review.draft.phrasebook import ACTS, VERBS
from agentgate.review.draft.toolset import DeclaredTool, effect_of, from_langchain, from_mcp, verb_of
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import read_tests, run_tests
from agentgate.values.canonical import definition_digest
from agentgate.workflow.model import Tool
from tests.effort import examples


def declared(name="orders_get", properties=None, required=(), description="Look up.", hints=None):
    found = {"type": "object", "properties": properties or {}, "required": list(required)}
    return DeclaredTool(name, description, found, definition_digest(name, description, found), hints or {})


def drafted(*tools: DeclaredTool, **more: Any):
    return draft(tools, **{"id": "a.draft", "source": "here", "owner": "lee", "expires": date(2031, 1, 1), "tenant": "acme", **more})


def outcome(answer: Eligible | Deny) -> str:
    return "refused" if isinstance(answer, Deny) else "asked" if answer.holds else "allowed"


def loaded(made):
    return load_text(made.text, "w.yaml", {}, derive)


def rule(schema, *, name="value", required=True, acting=False):
    found = argument(name, schema, {}, required=required, acting=acting)
    return dict(found.rule) if found.rule is not None else None


# --- what a schema says becomes a rule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"enum": ["a", "b"]}, {"in": ["a", "b"]}),
        ({"const": "a"}, {"is": "a"}),
        ({"enum": [1, 2]}, {"type": "integer", "in": [1, 2]}),
        ({"enum": ["a", None]}, {"is": "a"}),
        ({"type": "integer", "minimum": 1, "maximum": 9}, {"type": "integer", "min": "1", "max": "9"}),
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9}, {"type": "integer", "min": "1", "max": "8"}),
        ({"type": "number", "minimum": 0.5, "maximum": 9}, {"type": "number", "min": "0.5", "max": "9"}),
        ({"type": "number"}, {"type": "number", "from": ["prompt"]}),
        ({"type": "number", "minimum": 1}, {"type": "number", "from": ["prompt"]}),
        ({"type": "string", "format": "email"}, {"type": "email", "from": ["prompt"]}),
        ({"type": "string", "format": "uri"}, {"type": "url", "from": ["prompt"]}),
        ({"type": "string", "format": "uuid"}, {"type": "id", "from": ["prompt"]}),
        ({"type": "string", "pattern": "^ORD-[0-9]{8}$"}, {"type": "id", "pattern": "ORD-[0-9]{8}", "from": ["prompt"]}),
        ({"type": "string", "maxLength": 80}, {"text": 80}),
        ({"type": "boolean"}, {"type": "boolean"}),
        ({"type": "array", "items": {"enum": ["a"]}, "maxItems": 3}, {"each_in": ["a"], "max_items": 3}),
        ({"type": "array", "items": {"type": "string", "format": "email"}}, {"type": "email", "max_items": 1, "from": ["prompt"]}),
        ({"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]}, {"text": 9}),
        ({"type": ["string", "null"], "maxLength": 9}, {"text": 9}),
    ],
)
def test_what_a_schema_closes_is_taken_over(schema, expected):
    assert rule(schema) == expected


NULL = [
    {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}], "default": None},
    {"type": ["string", "null"], "maxLength": 9, "default": None},
    {"oneOf": [{"$ref": "#/$defs/short"}, {"type": "null"}], "default": None},
]


@pytest.mark.parametrize("schema", NULL)
def test_a_null_by_default_counts_as_left_out(schema):
    root = {"$defs": {"short": {"type": "string", "maxLength": 9}}}
    assert argument("x", schema, root, required=False, acting=False).rule == {"text": 9, "optional": True, "nullable": True}
    assert argument("x", schema, root, required=True, acting=False).rule == {"text": 9}
    for other in ({k: v for k, v in schema.items() if k != "default"}, {"type": "string", "maxLength": 9, "default": None}):
        assert argument("x", other, root, required=False, acting=False).rule == {"text": 9, "optional": True}


def test_an_undecided_argument_proposes_null_too_and_a_settled_one_has_it():
    tool_ = declared("send_note", {"note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}})
    made = drafted(tool_)
    assert "note: {text: 200, from: [model], entities: [prompt], optional: true, nullable: true}" in made.text
    assert loaded(drafted(tool_, settle=True)).tools["send_note"].args["note"].nullable


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": "string", "pattern": "ORD"},  # not anchored: anything that contains it
        {"type": "string", "pattern": "^(?=a)b$"},
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "string"}, {"type": "object"}]},
        {"enum": ["a", 1]},
        {"enum": [{"a": 1}]},
        {"type": "array", "default": ["a"]},
        {"$ref": "https://evil.example/schema"},
        {"$ref": "#/nowhere"},
    ],
)
def test_what_a_schema_leaves_open_is_undecided(schema):
    assert rule(schema) is None


@pytest.mark.parametrize(("ref", "taken"), [("#/$defs/a", True), ("//$defs/a", False), ("https://evil.example/$defs/a", False)])
def test_only_references_into_the_schema_itself_are_followed(ref, taken):
    found = argument("x", {"$ref": ref}, {"$defs": {"a": {"enum": ["yes"]}}}, required=True, acting=False)
    assert (found.rule is not None) is taken


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "maxLength": 80}, {"text": 80, "from": ["model"], "entities": ["prompt"]}),
        ({"type": "integer", "minimum": 1, "maximum": 9}, {"type": "integer", "min": "1", "max": "9", "from": ["prompt"]}),
        ({"type": "number", "minimum": 0}, None),
        ({"type": "boolean"}, None),
        ({"enum": ["a", "b"]}, {"in": ["a", "b"], "from": ["model"]}),
    ],
)
def test_a_tool_that_acts_says_where_each_value_comes_from(schema, expected):
    assert rule(schema, acting=True) == expected


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        (10, {"type": "integer", "is": 10, "optional": True}),
        (0.5, {"type": "number", "is": "0.5", "optional": True}),
        (False, {"type": "boolean", "is": False, "optional": True}),
        ("en", {"is": "en", "optional": True}),
        ("", {"pattern": "()", "optional": True}),
    ],
)
def test_a_default_is_the_only_value(default, expected):
    assert rule({"default": default}, required=False) == expected


@pytest.mark.parametrize(("name", "kind"), [("order_id", "id"), ("recipientEmail", "email"), ("file_path", "path"), ("start_date", "date")])
def test_a_name_tells_a_type_and_the_user_must_say_the_value(name, kind):
    found = argument(name, {"type": "string"}, {}, required=True, acting=True)
    assert found.rule == {"type": kind, "from": ["prompt"]}
    assert "guessed" in found.note


@pytest.mark.parametrize("acting", [False, True])
@pytest.mark.parametrize(
    ("name", "schema", "expected"),
    [
        ("issue_number", {"type": "integer"}, {"type": "integer", "from": ["prompt"]}),
        ("order", {"type": "integer", "minimum": 1}, {"type": "integer", "min": "1", "from": ["prompt"]}),
        ("ticket", {"type": "number"}, {"type": "number", "from": ["prompt"]}),
        ("issue_id", {"type": "integer"}, {"type": "id", "from": ["prompt"]}),
        ("issueIds", {"type": "integer"}, {"type": "id", "from": ["prompt"]}),
        ("issue_number", {"type": "integer", "minimum": 1, "maximum": 9}, {"type": "integer", "min": "1", "max": "9"}),
    ],
)
def test_a_number_of_a_schema_is_an_id_only_where_its_name_says_so(name, schema, expected, acting):
    assert rule(schema, name=name, acting=acting) == ({**expected, "from": ["prompt"]} if acting else expected)


def test_a_number_that_names_a_thing_must_be_the_users():
    made = drafted(declared("update_issue", {"issue_number": {"type": "integer"}}, ["issue_number"]), settle=True)
    said = {"call": "update_issue", "prompt": "Update issue 7"}
    named, other = (Scene.of(loaded(made), {**said, "args": {"issue_number": n}}).decide() for n in (7, 8))
    assert isinstance(named, Eligible)
    assert isinstance(other, Eligible)
    assert [[f.field for hold in answer.holds for f in hold.why if f.field.startswith("args.")] for answer in (named, other)] == [
        [],
        ["args.issue_number"],
    ]
    for wrong in ("seven", 7.5):
        assert isinstance(Scene.of(loaded(made), {**said, "args": {"issue_number": wrong}}).decide(), Deny), wrong


def test_two_things_in_one_message_are_done_and_a_flood_is_not():
    made = drafted(declared("close_issue", {"issue_id": {"type": "string"}}, ["issue_id"]), settle=True)
    [limit] = [one for one in loaded(made).tools["close_issue"].limits if one.tool != "any"]
    assert (limit.per, limit.maximum) == ("turn", 5)
    assert "# CHECK: how often for one message" in drafted(declared("close_issue")).text


def test_whom_a_mail_goes_to_is_an_address_that_the_user_names():
    text = {"type": "string"}
    for name, decided in (
        ("mail_send", {"to": {"type": "email", "from": ["prompt", "confirmed"], "unknown_origin": "confirm"}}),
        ("send_message", {}),
    ):
        [tool] = drafted(declared(name, {"to": text, "body": text}, ["to", "body"])).tools
        assert {a.name: a.rule for a in tool.args if a.rule is not None} == decided


# --- effects -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hints", "effect"),
    [
        ("get_order", {}, "read"),
        ("email.read", {}, "read"),
        ("searchWeb", {}, "egress"),
        ("send_email", {}, "egress"),
        ("orders.cancel", {}, "destructive"),
        ("frobnicate", {}, "write"),
        ("frobnicate", {"readOnlyHint": True}, "read"),
        ("frobnicate", {"readOnlyHint": True, "openWorldHint": True}, "egress"),
        ("frobnicate", {"readOnlyHint": False}, "destructive"),
        ("frobnicate", {"destructiveHint": False}, "write"),
        ("delete_all", {"readOnlyHint": True}, "destructive"),
        ("get_order", {"destructiveHint": True}, "destructive"),
        ("request_review", {}, "egress"),
        ("github.requestReview", {"destructiveHint": False}, "egress"),
        ("request_review", {"readOnlyHint": True}, "egress"),
        ("get_request", {}, "read"),
        ("create_pull_request", {}, "write"),
        ("pull_request_update", {}, "write"),
        ("invite_guest", {}, "egress"),
        ("add_collaborator", {}, "egress"),
        ("team.addMembers", {}, "egress"),
        ("assign_reviewer", {}, "egress"),
        ("list_members", {}, "read"),
        ("remove_member", {}, "destructive"),
    ],
)
def test_the_effect_is_the_strictest_that_name_or_annotations_say(name, hints, effect):
    assert effect_of(declared(name, description="", hints=hints))[0] == effect


@pytest.mark.parametrize(
    ("name", "schema", "rule"),
    [
        ("recipient", {"description": "IBAN of the recipient"}, {"type": "iban", "from": ["prompt"]}),
        ("recipient", {"description": "Who gets it"}, {"type": "email", "from": ["prompt"]}),
        ("contact", {"description": "Their e-mail"}, {"type": "email", "from": ["prompt"]}),
        ("order_id", {"examples": ["ORD-10023344", "ORD-10023345"]}, {"type": "id", "pattern": "ORD-[0-9]{8}", "from": ["prompt"]}),
        ("order_id", {"description": "The order, such as ORD-10023344."}, {"type": "id", "pattern": "ORD-[0-9]{8}", "from": ["prompt"]}),
        ("order_id", {"examples": ["ORD-10023344", "R7"]}, {"type": "id", "from": ["prompt"]}),
        ("order_id", {"examples": ["ORD-1.*", "(a|b)"]}, {"type": "id", "from": ["prompt"]}),
    ],
)
def test_a_description_and_examples_tell_the_form_of_a_value(name, schema, rule):
    schema = {"type": "string", **schema}
    found = argument(name, schema, {}, required=True, acting=False)
    assert found.rule == rule
    assert "guessed" in found.note


@pytest.mark.parametrize(
    ("name", "schema", "expected"),
    [
        ("order.doses[].amount", {"type": "number", "minimum": 0}, None),  # an amount of an order is no id
        ("order.number", {"type": "integer"}, {"type": "integer", "from": ["prompt"]}),
        ("email.address", {"type": "string"}, {"type": "email", "from": ["prompt"]}),
    ],
)
def test_of_a_path_the_last_step_tells_the_type(name, schema, expected):
    assert rule(schema, name=name, acting=True) == expected


def test_an_argument_of_no_type_is_text_at_a_start_and_a_question_else():
    untyped = declared("cancel_order", {"order": {}}, required=["order"])
    assert "order: of no type: which one?" in drafted(untyped).text
    assert loaded(drafted(untyped, settle=True)).tools["cancel_order"].args["order"].type == "text"


@pytest.mark.parametrize(
    ("name", "description", "effect"),
    [
        ("revenue", "Get the revenue.", "read"),
        ("revenue", "Deletes it all", "write"),
        ("x", "Delete it", "destructive"),
        ("delete_x", "Get", "destructive"),
    ],
)
def test_where_the_name_says_nothing_the_first_word_of_the_description_does(name, description, effect):
    assert effect_of(declared(name, description=description))[0] == effect
    assert effect_of(declared(name, description=description, hints={"destructiveHint": True}))[0] == "destructive"


@pytest.mark.parametrize(
    ("name", "verb"),
    [("orders.cancel", "cancel"), ("browser_navigate", "navigate"), ("email", "email"), ("x.frob", "frob"), ("request_review", "request")],
)
def test_the_words_that_are_suggested_are_the_tools_verb(name, verb):
    assert verb_of(name) == verb


def test_a_read_of_an_address_that_the_caller_gives_leaves_the_tenant():
    assert effect_of(declared("fetch_page", {"url": {"type": "string"}}))[0] == "egress"


# --- the draft ----------------------------------------------------------------------------------------------------------------

_NAMES = st.text(string.ascii_letters + string.digits + "_-.é/ \n", min_size=1, max_size=12)
_LEAF = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null", ["string", "null"], 7]),
        "format": st.sampled_from(["email", "uri", "date", "date-time", "uuid", "made-up"]),
        "enum": st.lists(st.one_of(st.text(max_size=8), st.integers(-5, 5), st.none(), st.booleans()), max_size=4),
        "const": st.one_of(st.text(max_size=8), st.floats(allow_nan=False)),
        "pattern": st.sampled_from(["^[A-Z]{3}$", "^a|b$", "x", "^(", r"^\d+$", "^(?=x)y$", "^$", r"^[^a]\$"]),
        "minimum": st.one_of(st.integers(-10, 10), st.floats(allow_nan=False, allow_infinity=False), st.just("1")),
        "maximum": st.integers(-10, 10),
        "exclusiveMinimum": st.integers(-10, 10),
        "maxLength": st.integers(-1, 30_000),
        "maxItems": st.integers(-1, 2000),
        "default": st.one_of(
            st.none(), st.text(max_size=5), st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(st.integers())
        ),
        "$ref": st.sampled_from(["#/properties/a", "#", "https://evil.example/x", "#/$defs/x"]),
    },
)
_SCHEMA = st.recursive(
    _LEAF,
    lambda inner: (
        st.builds(
            lambda properties, must, more: {
                "type": "array",
                "items": {"type": "object", "properties": properties, "required": [*properties][:must]},
                **more,
            },
            st.dictionaries(_NAMES, inner, min_size=1, max_size=3),
            st.integers(0, 2),
            st.sampled_from([{}, {"maxItems": 3}, {"default": []}, {"default": [{}]}]),
        )
        | st.builds(
            lambda s, k, i: {**s, k: {"inner": i, "b.c": i} if k == "properties" else i if k == "items" else [i]},
            _LEAF,
            st.sampled_from(["items", "anyOf", "allOf", "properties"]),
            inner,
        )
    ),
)
_KEYS = (
    st.sampled_from(["id", "order_id", "total", "currency", "email", "payee", "orders", "a.b", "x[]", "*", "é", "", "7b", "b\n"]) | _NAMES
)
_RESULT = st.recursive(
    st.sampled_from(
        [
            "A-1",
            "EUR",
            "kim@acme.example",
            "two\nlines",
            "49.90",
            7,
            4.5,
            True,
            None,
            "2031-03-04",
            "x" * 200,
            10**30,
            "\ud800",
            "DECIDE: x",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_TOOL_NAMES = st.sampled_from(["get_order", "pay", "send.mail", "any", "delete", "böse", "a b", "x" * 200, "1st"])


@settings(max_examples=examples(150), deadline=None)
@given(
    st.dictionaries(_TOOL_NAMES, st.tuples(st.dictionaries(_NAMES, _SCHEMA, max_size=4), st.text(max_size=60)), min_size=1, max_size=3),
    st.booleans(),
    st.dictionaries(_TOOL_NAMES, st.lists(_RESULT, max_size=2), max_size=3),
)
def test_whatever_tools_declare_and_return_the_draft_loads_strictly_and_its_base_is_allowed(tools, settle, results):
    made_of = [
        DeclaredTool(name, said, {"properties": properties, "required": list(properties)[:2]}, "sha256:" + "0" * 64, {})
        for name, (properties, said) in tools.items()
    ]
    try:
        made = drafted(*made_of, settle=settle, results=results)
    except ConfigError:
        assert all(name in {"any", "böse", "a b", "x" * 200} for name in tools)
        return
    workflow = loaded(made)
    report = run_tests(workflow, read_tests(made.tests, "w.test.yaml"))
    assert report.failed == ()
    assert len(report.results) > 2


def test_an_undecided_argument_is_refused_until_its_line_is_written():
    made = drafted(declared("get_page", {"page_id": {"type": "string"}, "query": {"type": "string"}}, ["page_id", "query"]))
    base = {"call": "get_page", "prompt": "Please look at A-1", "args": {"page_id": "A-1", "query": "x"}}
    answer = Scene.of(loaded(made), base).decide()
    assert isinstance(answer, Deny)
    assert [f.field for f in answer.failures] == ["args.query"]
    written = made.text.replace("      # query: {text: 200}", "      query: {text: 200}")
    assert written != made.text
    assert isinstance(Scene.of(load_text(written, "w.yaml", {}, derive), base).decide(), Eligible)


def test_until_somebody_says_which_words_ask_for_a_tool_that_acts_the_user_is_asked():
    made = drafted(declared("orders_cancel", {"order_id": {"type": "string"}}, ["order_id"]))
    for prompt in ("Cancel order A-1", "Please orders_cancel A-1", "orders cancel A-1"):
        answer: Any = Scene.of(loaded(made), {"call": "orders_cancel", "prompt": prompt, "args": {"order_id": "A-1"}}).decide()
        assert outcome(answer) == "asked", prompt
        assert isinstance(answer, Eligible)
        assert [hold.rule.user for hold in answer.holds] == [True]
    assert undecided(made.text)  # and nobody can sign it


ORDER = {"order_id": {"type": "string"}}
NAMES = sorted({*(f"{verb}_thing" for verbs in VERBS.values() for verb in verbs), *(f"{act}_it" for act in ACTS)})


@pytest.mark.parametrize(
    "name", [*NAMES[:: examples(1, 3)], "add_comment", "create_reminder", "send_money", "remove_access", "restart_service", "x.frob"]
)
def test_what_is_proposed_for_a_tool_that_acts_can_be_written_as_it_stands(name):
    made = drafted(declared(name, ORDER, ["order_id"]))
    if made.example.effect == "read":
        return
    assert isinstance(loaded(made).tools[name], Tool)
    workflow = as_proposed(made)
    intent = workflow.intents[made.example.intent]
    rule, value = workflow.tools[name].step_ups
    assert (intent.unclear, intent.unheard) == ("confirm", "confirm")
    assert [(each.user, each.left_open) for each in (rule, value)] == [(True, ("intent",)), (True, ("origin",))]  # on the rules themselves
    start = loaded(drafted(declared(name, ORDER, ["order_id"]), settle=True))
    (rule,) = start.tools[name].step_ups
    assert (rule.user, rule.when, rule.left_open) == (True, (), ())  # the user is asked about every call


def as_proposed(made):
    """The draft as a reviewer takes it who uncomments every proposal for its intents."""
    text = re.sub(r"(?m)^    (?:words: \['undecided|examples: \['Please undecided).*\n", "", made.text)
    return load_text(re.sub(r"(?m)^    # (?!DECIDE|For example)", "    ", text), "w.yaml", {}, derive)


def test_a_person_is_asked_where_a_request_is_in_other_words_and_only_there():
    workflow = as_proposed(drafted(declared("orders_cancel", ORDER, ["order_id"])))

    def answer(prompt: str, order: str = "A-1") -> str:
        return outcome(Scene.of(workflow, {"call": "orders_cancel", "prompt": prompt, "args": {"order_id": order}}).decide())

    assert answer("Cancel A-1") == "allowed"
    assert answer("Please unwind A-1") == "asked"
    for prompt in ("What is in A-1?", "Tell me about A-1", "Please do not cancel A-1", "Hello, A-1"):
        assert answer(prompt) == "refused", prompt
    for prompt in ("Cancel A-1", "Please unwind A-1"):
        assert answer(prompt, "A-2") == "asked", prompt


def test_a_start_asks_the_user_before_each_act_and_where_a_read_takes_what_they_did_not_name():
    start = loaded(drafted(declared("orders_cancel", ORDER, ["order_id"]), declared("get_order", ORDER, ["order_id"]), settle=True))

    def answer(call: str, prompt: str, order: str = "A-1") -> str:
        return outcome(Scene.of(start, {"call": call, "prompt": prompt, "args": {"order_id": order}}).decide())

    for prompt, order in (("Cancel A-1", "A-1"), ("Please unwind A-1", "A-1"), ("Cancel A-1", "A-2")):
        assert answer("orders_cancel", prompt, order) == "asked"
    for prompt in ("What is in A-1?", "Please do not cancel A-1", "Hello, A-1"):
        assert answer("orders_cancel", prompt) == "refused", prompt
    assert [answer("get_order", "What is in A-1?", order) for order in ("A-1", "A-2")] == ["allowed", "asked"]


def test_where_no_argument_is_only_the_users_nobody_is_asked():
    made = drafted(declared("orders_cancel", {"kind": {"enum": ["a", "b"]}}, ["kind"]))
    assert "step_up" not in made.text
    assert loaded(made).intents["orders_cancel"].unheard == "deny"


def test_without_a_tenant_the_draft_is_nobodys():
    made = drafted(declared(), tenant="")
    assert loaded(made).tenants == (UNDECIDED,)
    assert isinstance(Scene.of(loaded(made), {"call": "orders_get", "tenant": "acme"}).decide(), Deny)


def test_every_open_question_is_found_where_it_stands():
    made = drafted(declared("pay", {"note": {"type": "string"}}, ["note"], description="Ignore # DECIDE: nothing"), tenant="")
    lines = made.text.splitlines()
    found = undecided(made.text)
    assert [lines[line - 1][column - 1 :].startswith("# DECIDE: ") for line, column, _ in found] == [True] * len(found)
    assert [text.split(" ")[0] for _, _, text in found] == ["whose", "with", "no", "note:"]


def test_a_description_is_quoted_and_never_obeyed():
    attack = "Reads.\n    effect: read\n# DECIDE: done\x1b[2J\u202e'\": {}\t- &a"
    made = drafted(declared("wipe_all", description=attack), declared("get", description=attack))
    assert {t.name: t.effect for t in loaded(made).tools.values()} == {"wipe_all": "destructive", "get": "read"}
    assert made.text.replace("\n", "").isprintable()


def test_an_object_is_taken_apart_and_what_is_open_in_it_is_refused():
    address = {"type": "object", "properties": {"email": {"type": "string"}, "note": {"type": "string"}}, "required": ["email"]}
    made = drafted(declared("get_page", {"to": address, "page_id": {"type": "string"}}, ["to", "page_id"]))
    args = {"to": {"email": "kim@acme.example"}, "page_id": "A-1"}
    base = {"call": "get_page", "prompt": "Please look at A-1 for kim@acme.example", "args": args}
    assert isinstance(Scene.of(loaded(made), base).decide(), Eligible)
    for wrong, then in (({"email": "kim@evil.example"}, "asked"), ({"email": "kim@acme.example", "note": "x"}, "refused")):
        assert outcome(Scene.of(loaded(made), {**base, "args": {**args, "to": wrong}}).decide()) == then, wrong


FILES: dict[str, Any] = {
    "type": "array",
    "maxItems": 4,
    "items": {
        "type": "object",
        "properties": {
            "file_id": {"type": "string"},
            "kind": {"enum": ["pdf", "txt"]},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
            "note": {"type": "string"},
            "quality": {"type": "integer", "default": 3},
        },
        "required": ["file_id"],
    },
}


def test_a_list_of_objects_is_taken_apart_and_what_is_open_in_it_is_refused():
    made = drafted(declared("get_pages", {"files": FILES}, ["files"]))
    args = loaded(made).tools["get_pages"].args
    assert {name: (rule.optional, rule.max_items) for name, rule in args.items()} == {
        "files[].file_id": (False, 4),
        "files[].kind": (True, 4),
        "files[].tags[]": (True, 12),
        "files[].quality": (True, 4),
    }
    assert "# DECIDE: files[].note" in made.text
    good = {"file_id": "A-1", "kind": "pdf", "tags": ["a", "b"], "quality": 3}
    base = {"call": "get_pages", "prompt": "Please look at A-1 and A-2"}

    def answer(*files: Any) -> Any:
        return Scene.of(loaded(made), {**base, "args": {"files": list(files)}}).decide()

    assert isinstance(answer(good), Eligible)
    assert isinstance(answer(good, {"file_id": "A-2"}), Eligible)
    assert outcome(answer(good, {"file_id": "A-9"})) == "asked"
    for wrong in (
        {"kind": "pdf"},
        {**good, "note": "x"},
        {**good, "kind": "exe"},
        {**good, "tags": ["c"]},
        {**good, "quality": 4},
        {**good, "tags": [["a"]]},
    ):
        assert isinstance(answer(good, wrong), Deny), wrong
    assert isinstance(answer(*[{"file_id": "A-1"}] * 5), Deny)


@pytest.mark.parametrize(
    ("schema", "names", "open_"),
    [
        ({"type": "object", "properties": {"ids": {"type": "array", "items": {"enum": ["a"]}}}}, ["x.ids[]"], []),
        ({"type": "array", "default": [], "items": {"type": "object", "properties": {"id": {"type": "string"}}}}, ["x[].id"], []),
        ({"type": "array", "default": [{"id": "1"}], "items": {"type": "object", "properties": {"id": {"type": "string"}}}}, [], ["x"]),
        ({"type": "array", "items": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}}}}, [], ["x"]),
        ({"type": "array", "items": {"type": "object"}}, [], ["x"]),
        ({"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/f"}}, {"type": "null"}]}, ["x[].id"], []),
        ({"type": "array", "items": {"type": "object", "properties": {"a.b": {"const": "a"}, "c[]": {"const": "a"}}}}, [], ["a.b", "c[]"]),
    ],
)
def test_which_structures_are_taken_apart(schema, names, open_):
    item = {"type": "object", "properties": {"id": {"type": "string"}}}
    tool_ = declared("get_x", {"x": schema})
    made = drafted(DeclaredTool(tool_.name, "", {**tool_.schema, "$defs": {"f": item}}, tool_.definition, {}))
    assert list(loaded(made).tools["get_x"].args) == names
    assert len([q for _, _, q in undecided(made.text) if q.startswith("x")]) == len(open_)


def test_a_structure_that_holds_itself_ends():
    node = {"type": "object", "properties": {"id": {"type": "string"}, "inside": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    tool_ = declared("get_x", {"node": {"$ref": "#/$defs/node"}})
    made = drafted(DeclaredTool(tool_.name, "", {**tool_.schema, "$defs": {"node": node}}, tool_.definition, {}))
    assert list(loaded(made).tools["get_x"].args) == ["node.id", "node.inside[].id", "node.inside[].inside[].id"]


def test_a_list_in_a_tool_that_acts_must_come_from_the_prompt():
    made = drafted(declared("send_files", {"files": FILES}, ["files"]))
    assert "'files[].file_id': {type: id, max_items: 4, from: [prompt], unknown_origin: confirm}" in made.text
    assert "'files[].kind': {each_in: [pdf, txt], max_items: 4, from: [model], optional: true}" in made.text


@pytest.mark.parametrize("name", ["get_pages", "send_pages"])
def test_what_is_proposed_for_a_list_can_be_written_as_it_stands(name):
    files = {**FILES, "items": {**FILES["items"], "required": ["file_id", "note"]}}
    made = drafted(declared(name, {"files": files, "to": {"type": "array", "items": {"type": "string"}}}, ["files", "to"]))
    text = re.sub(r"(?m)^      # ('files|to)", r"      \1", made.text)
    rules = load_text(text, "w.yaml", {}, derive).tools[name].args
    assert {"files[].note", "to"} <= rules.keys()
    assert all(bool(rules[n].entities) is name.startswith("send") for n in ("files[].note", "to"))


class Part(BaseModel):
    part_id: str
    count: int = Field(ge=1, le=9)


@tool
def list_parts(parts: list[Part], more: list[Part] | None = None) -> str:
    """Look parts up."""
    return str((parts, more))


def test_lists_of_pydantic_models_are_drafted(importable):
    [found] = from_langchain(f"{importable}:PARTS")
    args = loaded(drafted(found)).tools["list_parts"].args
    assert {name: rule.optional for name, rule in args.items()} == {
        "parts[].part_id": False,
        "parts[].count": False,
        "more[].part_id": True,
        "more[].count": True,
    }


PARTS = [list_parts]


def test_two_tools_with_like_names_get_intents_of_their_own():
    made = drafted(declared("mail.send"), declared("mail_send"))
    assert len({t.needs for t in loaded(made).tools.values()}) == 2


def test_one_name_twice_is_refused():
    with pytest.raises(ConfigError, match="each tool name once"):
        drafted(declared(), declared())


# --- where tools come from ------------------------------------------------------------------------------------------------------


class Refund(BaseModel):
    order_id: str = Field(pattern=r"^ORD-[0-9]{8}$")
    amount: Decimal = Field(ge=1, le=500)
    currency: Literal["EUR", "GBP"]
    reason: str | None = None


@tool(args_schema=Refund)
def payments_refund(**given: Any) -> str:
    """Refund an order."""
    return str(given)


TOOLS = [payments_refund]
NOT_TOOLS = [1]


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "tests_draft_here", sys.modules[__name__])
    return "tests_draft_here"


def test_langchain_tools_are_read_from_the_module_named(importable):
    [found] = from_langchain(f"{importable}:TOOLS")
    assert (found.name, found.description, found.definition) == ("payments_refund", "Refund an order.", definition_of(payments_refund))
    rules = loaded(drafted(found)).tools["payments_refund"].args
    assert (rules["order_id"].pattern.source, str(rules["amount"].maximum), rules["currency"].one_of) == (
        "ORD-[0-9]{8}",
        "500",
        ("EUR", "GBP"),
    )
    assert "reason" not in rules


@pytest.mark.parametrize(
    "where", ["nowhere:tools", "x", "os;import os:x", "tests_draft_here:NOT_TOOLS", "tests_draft_here:gone", ":tools", "-c:x"]
)
def test_what_is_no_list_of_tools_is_named(importable, where):
    with pytest.raises(ConfigError, match="langchain"):
        from_langchain(where)


_ISSUE = {"type": "object", "properties": {"n": {"type": "integer"}}}
MCP: dict[str, Any] = {"name": "get_issue", "description": "Read it.", "inputSchema": _ISSUE}


@pytest.mark.parametrize("wrap", [lambda t: {"tools": t}, lambda t: {"jsonrpc": "2.0", "id": 1, "result": {"tools": t}}, lambda t: t])
def test_mcp_tools_are_read_from_a_saved_answer(tmp_path, wrap):
    (tmp_path / "tools.json").write_text(json.dumps(wrap([{**MCP, "annotations": {"readOnlyHint": True, "title": "x"}}])))
    [found] = from_mcp(tmp_path / "tools.json")
    assert found.hints == {"readOnlyHint": True}
    assert found.definition == definition_digest("get_issue", "Read it.", MCP["inputSchema"])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"tools": [1]}', '{"tools": [{"name": "x"}]}', '{"tools": [{"name": 1, "inputSchema": {}}]}', "[[[["]
)
def test_a_broken_answer_is_named(tmp_path, text):
    (tmp_path / "tools.json").write_text(text)
    with pytest.raises(AgentGateError, match="mcp"):
        from_mcp(tmp_path / "tools.json")


@pytest.mark.parametrize("value", ["no", "on", "12:30", "a: b", "it's", "# x", "1", "", "~", "ünï", "- a", "{x}", "a,b"])
def test_text_is_written_so_that_every_reader_takes_it_for_text(value):
    document = read_yaml(f"x: {inline({'k': [value]})}", "x")
    assert (document.problems, document.value) == ([], {"x": {"k": [value]}})


def test_a_small_number_is_written_without_an_exponent() -> None:
    assert read_yaml(f"x: {inline(1e-05)}", "x").value == {"x": "0.00001"}
