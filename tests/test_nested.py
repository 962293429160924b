"""Arguments inside arguments: every leaf has a rule, every element its leaves, and no key passes for a path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.workflow.model import MAX_DEPTH, Tool, flat
from agentgate.workflow.rule import Rule

RULES = (
    Rule("to", 1),
    Rule("files[].id", 2, max_items=3),
    Rule("files[].note", 3, max_items=3, optional=True),
    Rule("files[].tags[]", 4, max_items=9, optional=True),
    Rule("filter.since", 5, optional=True),
)
TOOL = Tool("send", 1, "egress", ("send",), "", (), "", "wrapper", {rule.name: rule for rule in RULES}, {})
PLAIN = Tool("send", 1, "egress", ("send",), "", (), "", "wrapper", {"to": Rule("to", 1)}, {})


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"to": "a"}, {"to": "a"}),
        ({"files": [{"id": 1}, {"id": 2, "note": "x"}]}, {"files[].id": [1, 2], "files[].note": ["x"]}),
        ({"files": [{"id": 1, "tags": ["a", "b"]}, {"id": 2, "tags": ["c"]}]}, {"files[].id": [1, 2], "files[].tags[]": ["a", "b", "c"]}),
        ({"filter": {"since": "2024-05-01"}}, {"filter.since": "2024-05-01"}),
        ({"files": []}, {}),
        ({"files": [{"id": 1, "tags": []}]}, {"files[].id": [1]}),
        ({"files": [{"id": 1}, {"note": "x"}]}, {"files[].note": ["x"]}),
        ({"files": [{"id": {"a": 1}}]}, {"files[].id.a": [1]}),
        ({"files": {"id": 1}}, {"files.id": 1}),
        ({"files": "x"}, {"files": "x"}),
        ({"files": [{}]}, {"files[]": [{}]}),
        ({"files": [[{"id": 1}]]}, {"files[][].id": [1]}),
        ({"files[].id": [1]}, {"'files[].id'": [1]}),
        ({"filter.since": 1}, {"'filter.since'": 1}),
        ({"filter": {"since.x": 1}}, {"filter.'since.x'": 1}),
    ],
    ids=[
        "a plain one",
        "a list of objects",
        "a list in a list",
        "an object",
        "an empty list",
        "an empty inner list",
        "an element lacks what is not optional",
        "an object where a value stands",
        "an object where a list stands",
        "a value where a list stands",
        "an empty element",
        "a list more",
        "a key that is a path",
        "a key that is a path of an object",
        "an inner key that looks like a path",
    ],
)
def test_leaves_stand_under_the_name_of_their_rule(args: dict[str, Any], found: dict[str, Any]) -> None:
    assert flat(TOOL, args) == found


def test_a_tool_without_structures_keeps_its_arguments() -> None:
    args = {"to": "a", "files": [1]}
    assert flat(PLAIN, args) is args


def test_a_structure_deeper_than_the_limit_is_a_leaf_without_a_rule() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH + 5):
        value = {"a": value}
    assert not set(flat(TOOL, {"filter": value})) & set(TOOL.args)


@given(
    st.dictionaries(
        st.sampled_from(["to", "files", "filter", "files[].id", "x"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["id", "note", "tags", "since", "a.b", "[]"]), inner, max_size=3)
            ),
            max_leaves=12,
        ),
    )
)
def test_nothing_is_lost_but_empty_lists(args: dict[str, Any]) -> None:
    def scalars(value: Any) -> list[Any]:
        if isinstance(value, dict) and value:
            return [s for inner in value.values() for s in scalars(inner)]
        if isinstance(value, list):
            return [s for inner in value for s in scalars(inner)]
        return [value]

    optional = Tool(
        "send", 1, "egress", ("send",), "", (), "", "wrapper", {n: Rule(n, 1, optional=True, max_items=3) for n in TOOL.args}, {}
    )
    found = flat(optional, args)
    given_in = [repr(s) for value in args.values() for s in scalars(value)]
    assert sorted(repr(s) for value in found.values() for s in scalars(value)) == sorted(given_in)
