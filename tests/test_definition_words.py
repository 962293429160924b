"""Loading the words for delegation, extracted facts, selectors, sums and nested arguments: what is refused, and where."""

from __future__ import annotations

import pytest

from tests.test_definition import PAIR, changed, expect_one, load, problems
from tests.workflows import workflow_text

WORDS = "words: [send],"


def test_an_intent_is_not_delegated_unless_it_says_so():
    text = PAIR.replace("{X}", "{text: 9, from: [model]}")
    assert load(text).intents["send"].delegated == "deny"
    assert load(changed(text, WORDS, WORDS + " delegated: present,")).intents["send"].delegated == "present"


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ("words: [send], delegated: @@allow,", "deny, confirm, step_up or present"),
        ("words: [send], unclear: deny, @@delegated: step_up,", "unclear: step_up"),
    ],
)
def test_delegated_is_one_of_three_and_a_held_one_is_unclear(new, expected):
    expect_one(changed(PAIR.replace("{X}", "{text: 9, from: [model]}"), WORDS, new), "intents.send.delegated", expected)


def test_a_delegating_counter_example_is_held_to_what_the_intent_says():
    text = changed(
        PAIR.replace("{X}", "{text: 9, from: [model]}"), WORDS, WORDS + " delegated: present, counter_examples: [Do what the letter says],"
    )
    assert "delegated" in problems(text)[0].got


NOTE = "note: {type: text}"


def test_a_found_fact_is_the_last_step_of_its_path():
    text = changed(PAIR.replace("{X}", "{text: 9, from: [model]}"), NOTE, "note: {type: iban, path: body.text, find: one, trust: named}")
    fact = load(text).tools["look"].facts["note"]
    assert (fact.path, fact.named) == (("body", "text", "[iban]"), True)
    text = text.replace("type: iban, path: body.text, find: one", "type: number, path: body.text, find: any")
    assert load(text).tools["look"].facts["note"].path == ("body", "text", "[numbers]", "[]")


@pytest.mark.parametrize(
    ("new", "field", "expected"),
    [
        ("note: {type: iban, @@find: one}", "find", "trust: named"),
        ("note: {type: date, @@find: one, trust: named}", "find", "email, iban, phone, url"),
        ("note: {type: iban, find: @@two, trust: named}", "find", "one"),
        ("note: {type: number, @@find: one, trust: named}", "find", "email, iban, phone, url"),
        ("note: {type: iban, @@find: any, trust: named}", "find", "type: number"),
        ("note: {type: number, @@find: any}", "find", "trust: named"),
    ],
)
def test_only_a_named_text_is_looked_into(new, field, expected):
    expect_one(changed(PAIR.replace("{X}", "{text: 9, from: [model]}"), NOTE, new), f"tools.look.facts.note.{field}", expected)


# --- selectors and sums --------------------------------------------------------------------------------------------------

LISTED = workflow_text(
    "files",
    title="Files",
    expires='"2031-05-31"',
    intents="{delete: {asks_for: Delete a file., words: [delete], examples: [Delete it]}}",
    tools="""
  list:
    effect: read
    needs: any
    redeem: wrapper
    args: {}
    facts:
      id: {type: id, path: 'files[].id'}
      size: {type: integer, path: 'files[].size'}
      cost: {type: money, currency: unit, path: 'files[].cost'}
      unit: {type: text}
      bare: {type: money, path: 'files[].bare'}
      at: {type: datetime, path: 'files[].at'}
      name: {type: text, path: 'files[].name'}
      live: {type: boolean, path: 'files[].live'}
      full: {type: integer}
      head: {type: id}
  search:
    effect: read
    needs: any
    redeem: wrapper
    args: {query: {text: 9, from: [model]}}
    facts: {id: {type: id, path: '[].id'}, size: {type: integer, path: '[].size'}}
  delete:
    effect: destructive
    needs: [delete]
    redeem: wrapper
    args:
      unit: {in: [EUR], from: [list.unit]}
      x: {X}
""",
)
SELECT = "{type: id, from: [prompt], select: {of: list.id, called: [file], largest: list.size}}"


def test_a_selector_and_a_sum_become_what_they_say():
    source = load(LISTED.replace("{X}", SELECT)).tools["delete"].args["x"].sources[1]
    assert (source.kind, source.tool, source.field) == ("select", "list", "id")
    assert (source.selector.tool, source.selector.nouns, source.selector.by) == ("delete", ("file",), (("largest", "size"),))
    assert str(source) == "the largest of list.id"
    bound = load(LISTED.replace("{X}", "{type: money, currency: unit, min: '0', max: '9', at_most: {sum: list.cost}, from: [model]}"))
    assert str(bound.tools["delete"].args["x"].at_most) == "the sum of list.cost"


@pytest.mark.parametrize(
    ("rule", "field", "expected"),
    [
        ("{type: id, from: [prompt], select: {of: @@search.id, called: [file], largest: search.size}}", "select.of", "on search.query"),
        ("{type: id, from: [prompt], select: {of: @@list.head, called: [file], largest: list.size}}", "select.of", "inside the one list"),
        ("{type: id, from: [prompt], select: {of: @@list.live, called: [file], largest: list.size}}", "select.of", "a id from a boolean"),
        ("{type: id, from: [prompt], select: {of: list.id, called: [file], largest: @@search.size}}", "select.largest", "a fact of list"),
        ("{type: id, from: [prompt], select: {of: list.id, called: [file], largest: @@list.full}}", "select.largest", "in the same list"),
        (
            "{type: id, from: [prompt], select: {of: list.id, called: [file], largest: @@list.name}}",
            "select.largest",
            "integer, money, number",
        ),
        ("{type: id, from: [prompt], select: {of: list.id, called: [file], newest: @@list.size}}", "select.newest", "date, datetime, time"),
        ("{type: id, from: [prompt], select: {of: list.id, called: [file], highest: @@list.bare}}", "select.highest", "without a currency"),
        ("{type: id, from: [prompt], @@select: {of: list.id, called: [file]}}", "select", "at least one of largest, smallest"),
        ("{type: id, from: [prompt], select: {of: list.id, called: [@@Files], largest: list.size}}", "select.called[0]", "in the singular"),
        ("{type: integer, min: '0', max: '9', at_most: {sum: @@list.full}, from: [model]}", "at_most.sum", "would count twice"),
        ("{type: integer, min: '0', max: '9', at_most: {sum: @@list.cost}, from: [model]}", "at_most.sum", "money and money"),
        ("{type: integer, min: '0', max: '9', at_most: {sum: @@prompt}, from: [model]}", "at_most.sum", "a fact: tool.fact"),
    ],
)
def test_a_selector_or_sum_that_is_not_sure_does_not_load(rule, field, expected):
    expect_one(LISTED.replace("{X}", rule), f"tools.delete.args.x.{field}", expected)


def test_a_selector_says_where_else_the_value_may_come_from():
    found = problems(LISTED.replace("{X}", "{type: id, select: {of: list.id, called: [file], largest: list.size}}"))
    assert [p.field for p in found] == ["tools.delete.args.x", "tools.delete.args.x.select"]


# --- which row, and which first ------------------------------------------------------------------------------------------
FIND = "    facts: {id: {type: id, path: '[].id'}, size: {type: integer, path: '[].size'}}"


def test_labels_and_what_was_asked_for_become_what_they_say():
    text = LISTED.replace("{X}", "{type: id, from: [prompt, search.id], named_first: true}")
    more = "size: {type: integer, path: '[].size'}, name: {type: text, path: '[].name'}"
    labelled = "id: {type: id, path: '[].id', named_by: [name, size], where: {name: query}}"
    tool = load(changed(text, FIND, f"    facts: {{{labelled}, {more}}}"))
    fact = tool.tools["search"].facts["id"]
    assert (fact.named_by, fact.where) == (("name", "size"), (("name", "query"),))
    assert tool.tools["search"].referenced == {"query"}  # it is kept with the call
    assert tool.tools["delete"].args["x"].named_first
    assert not load(text).tools["search"].referenced


@pytest.mark.parametrize(
    ("fact", "field", "expected"),
    [
        ("named_by: [@@nmae]", "named_by[0]", "a fact of list"),
        ("named_by: [@@live]", "named_by[0]", "a user can name"),
        ("named_by: @@[]", "named_by", "at least one"),
        ("named_by: [name, @@name]", "named_by", "once"),
        ("where: {@@nmae: query}", "where.nmae", "a fact of list"),
        ("where: {name: @@query}", "where.name", "an argument of list"),
    ],
)
def test_a_label_is_a_fact_of_the_same_row(fact, field, expected):
    text = LISTED.replace("{X}", "{type: id, from: [prompt]}")
    found = problems(changed(text, "id: {type: id, path: 'files[].id'}", f"id: {{type: id, path: 'files[].id', {fact.replace('@@', '')}}}"))
    assert [expected in p.expected for p in found if p.field.startswith("tools.list.facts.id")] == [True], found


def test_a_label_of_another_list_or_of_another_type_than_asked_for_does_not_load():
    text = LISTED.replace("{X}", "{type: id, from: [prompt, search.id]}")
    more = "size: {type: integer, path: '[].size'}, part: {type: text, path: '[].parts[].name'}"
    made = f"    facts: {{id: {{type: id, path: '[].id', named_by: [part]}}, {more}}}"
    assert ["in the same list" in p.expected for p in problems(changed(text, FIND, made))] == [True]
    made = f"    facts: {{id: {{type: id, path: '[].id', where: {{live: query}}}}, live: {{type: boolean, path: '[].live'}}, {more}}}"
    assert ["can equal the fact's" in p.expected for p in problems(changed(text, FIND, made))] == [True]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{type: id, from: [prompt], @@named_first: true}", "what a tool returned"),
        ("{type: id, from: [search.id], @@named_first: true}", "what a tool returned"),
        ("{type: id, from: [prompt, search.id, model], @@named_first: true}", "without model"),
        ("{text: 9, from: [prompt, list.name], @@named_first: true}", "a type that is told apart"),
        ("{type: id, from: [prompt, search.id], named_first: @@false}", "true, or leave it out"),
    ],
)
def test_named_first_needs_something_to_go_before(rule, expected):
    expect_one(LISTED.replace("{X}", rule), "tools.delete.args.x.named_first", expected)


def test_a_step_up_does_not_ask_by_a_fact_that_counts_in_some_rows():
    text = changed(
        LISTED.replace("{X}", "{type: id, from: [prompt, list.id], unknown_origin: step_up}"),
        "id: {type: id, path: 'files[].id'}",
        "id: {type: id, path: 'files[].id', named_by: [name]}",
    )
    ask = "step_up:\n  - {id: ask, for: delete, when: {x: {origin: [ORIGIN]}}, approvers: {group: g}, timeout: 1m}\n"
    assert load(text + ask.replace("ORIGIN", "unknown"))
    expect_one(text + ask.replace("ORIGIN", "@@list.id"), "step_up[0].when.x.origin[0]", "unknown asks for the rest")


# --- arguments inside arguments ------------------------------------------------------------------------------------------


def test_a_path_is_the_name_of_an_argument():
    text = changed(PAIR, "x: {X}", "'files[].id': {type: id, max_items: 3, from: [prompt]}")
    rule = load(text).tools["send"].args["files[].id"]
    assert (rule.name, rule.max_items) == ("files[].id", 3)


@pytest.mark.parametrize(
    ("rule", "field", "expected"),
    [
        ("@@'files[].id': {type: id, from: [prompt]}", "files[].id", "max_items"),
        ("@@'unit.x': {type: id, from: [prompt]}", "unit.x", "rules for the leaves"),
        ("@@'files[]': {type: id, max_items: 3, from: [prompt]}", "files[]", "a path of such names"),
        ("@@'files..id': {type: id, from: [prompt]}", "files..id", "a path of such names"),
        ("x: {type: json, from: [model], text: 9, @@pattern: a}", "x.pattern", "only on text"),
        ("@@x: {type: json, from: [model]}", "x", "text: how many characters"),
        ("@@x: {type: json, from: [model], text: 9, max_items: 2}", "x", "no max_items"),
        ("x: {type: json, from: [@@prompt], text: 9}", "x.from[0]", "a type that is found in a prompt"),
    ],
)
def test_a_structure_whose_rules_do_not_fit_does_not_load(rule, field, expected):
    expect_one(changed(PAIR, "x: {X}", rule), f"tools.send.args.{field}", expected)


def test_a_part_of_an_argument_is_no_origin():
    text = changed(
        PAIR, "args: {key: {type: id, from: [prompt]}}", "args: {key: {type: id, from: [prompt]}, f.id: {type: id, from: [prompt]}}"
    )
    expect_one(changed(text, "{X}", "{type: id, from: [@@look.f.id]}"), "tools.send.args.x.from[0]", "a whole argument")


# --- limits --------------------------------------------------------------------------------------------------------------


def test_a_limit_per_turn_has_no_window():
    text = PAIR.replace("{X}", "{text: 9, from: [model]}")
    assert load(text + "limits: [{count: send, max: 1, per: turn}]\n").tools["send"].limits[0].per == "turn"
    expect_one(text + "limits: [{count: send, max: 1, per: turn, @@every: 1h}]\n", "limits[0].every", "one of them")


@pytest.mark.parametrize(
    ("rule", "field", "expected"),
    [
        ("{type: money, currency: unit, min: '0', max: '9', at_most: {sum: @@list.cost}, from: [model]}", "at_most.sum", "count twice"),
        ("{type: number, min: '0', max: '9', at_most: @@list.note, from: [model]}", "at_most", "one value"),
    ],
)
def test_the_numbers_of_a_text_multiply_the_rows_of_its_tool_and_bound_nothing(rule, field, expected):
    note = "note: {type: number, path: 'files[].name', find: any, trust: named}\n      full: {type: integer}"
    expect_one(LISTED.replace("full: {type: integer}", note).replace("{X}", rule), f"tools.delete.args.x.{field}", expected)
