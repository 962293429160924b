"""YAML as plain values with places: what all readers agree on is read, everything else is refused at its line and column."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate.errors import WorkflowError
from agentgate.loading.yaml_nodes import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_SCALAR, did_you_mean, dotted, read_yaml, shown


def problems(text):
    try:
        return list(read_yaml(text, "f.yaml").problems)
    except WorkflowError as error:
        return list(error.problems)


def test_reads_text_whole_numbers_and_booleans_and_knows_every_place():
    document = read_yaml("a: 1\nb: {c: [x, '2'], d: true}\ne: |\n  NO\n  12:30\n", "f.yaml")
    assert document.problems == []
    assert document.value == {"a": 1, "b": {"c": ["x", "2"], "d": True}, "e": "NO\n12:30\n"}
    assert document.place(("b", "c", 1)) == (2, 12)
    assert document.place(("b", "c"), key=True) == (2, 5)
    assert document.line(("e",)) == 3
    assert document.place(("b", "nothing", "here")) == (2, 1)  # the nearest key around it
    assert document.place(("nothing",)) == (1, 1)


@pytest.mark.parametrize(
    "scalar",
    [
        "NO",
        "no",
        "No",
        "n",
        "y",
        "Y",
        "yes",
        "on",
        "Off",
        "TRUE",
        "True",
        "False",
        "null",
        "Null",
        "~",
        "=",
        "010",
        "0o17",
        "0x1F",
        "0b11",
        "1.0",
        ".5",
        "1.",
        "1e3",
        "1E+3",
        "1_000",
        "+1",
        "-0",
        "00",
        "-01",
        ".inf",
        "-.INF",
        ".nan",
        "12:30",
        "190:20:30",
        "2024-05-26",
        "2024-5-6",
        "2024-05-26T10:00:00Z",
    ],
)
def test_refuses_unquoted_scalars_that_readers_type_differently(scalar):
    (problem,) = problems(f"a:\n  - {scalar}\n")
    assert (problem.data["line"], problem.data["column"], problem.field) == (2, 5, "a[0]")
    assert problem.got == f"unquoted {scalar}"
    assert f'"{scalar}"' in problem.expected
    assert read_yaml(f"a: '{scalar}'", "f").value == {"a": scalar}


@pytest.mark.parametrize(
    "scalar", ["15m", "1d", "ORD-1", "10.0.0.1", "10.20.0.0/16", "a", "nobody", "sha256:00", "1-a", "mon", "v1.0", "-", "..."]
)
def test_reads_plain_text_that_only_looks_like_something(scalar):
    document = read_yaml(f'a: "{scalar}"\n' if scalar in {"-", "..."} else f"a: {scalar}\n", "f")
    assert not document.problems
    assert document.value == {"a": scalar}


@pytest.mark.parametrize(("scalar", "value"), [("0", 0), ("7", 7), ("-12", -12), ("999999999999999", 999999999999999)])
def test_reads_plain_whole_numbers(scalar, value):
    assert read_yaml(f"a: {scalar}", "f").value == {"a": value}


@pytest.mark.parametrize(
    ("text", "place", "got"),
    [
        ("a: 1\nb: 2\n  \na: 3\n", (4, 1), "the key 'a' again"),
        ("a: {b: 1, b: 2}\n", (1, 11), "the key 'b' again"),
        ('a: 1\n"a": 2\n', (2, 1), "the key 'a' again"),
        ("a: &x 1\n", (1, 4), "an anchor &x"),
        ("a: *x\n", (1, 4), "an alias *x"),
        ("a: &x [1]\nb: *x\n", (1, 4), "an anchor &x"),
        ("&k a: 1\n", (1, 1), "an anchor or tag on a key"),
        ("!!str a: 1\n", (1, 1), "an anchor or tag on a key"),
        ("a:\n  <<: {b: 1}\n", (2, 3), "a merge key <<"),
        ("a:\n  '<<': {b: 1}\n", (2, 3), "a merge key <<"),
        ("a: !!str 1\n", (1, 4), "a tag tag:yaml.org,2002:str"),
        ("a: ! x\n", (1, 4), "a tag !"),
        ("a: !python/object:os.system x\n", (1, 4), "a tag !python/object:os.system"),
        ("!!map {a: 1}\n", (1, 1), "a tag tag:yaml.org,2002:map"),
        ("a: 1\n---\nb: 2\n", (2, 1), "a second document"),
        ("%YAML 1.1\n---\na: 1\n", (1, 1), "a directive"),
        ("%TAG ! tag:x,2000:\n---\na: 1\n", (1, 1), "a directive"),
        ("", (1, 1), "an empty file"),
        ("# only a comment\n", (1, 1), "an empty file"),
        ("---\n", (2, 1), "an empty value"),
        ("a:\nb: 1\n", (1, 3), "an empty value"),
        ("? [a]\n: 1\n", (1, 3), "a key that is not text"),
        ("5: a\n", (1, 1), "the unquoted key 5"),
        ("true: a\n", (1, 1), "the unquoted key true"),
        ("on: a\n", (1, 1), "unquoted on"),
        ("a: [\n", (2, 1), "an error (did not find expected node content)"),
        ("a: b: c\n", (1, 5), "an error (mapping values are not allowed in this context)"),
        ("a: \tb\n", (1, 4), "the character U+0009"),
        ("a: b\u202ec\n", (1, 5), "the character U+202E"),
        ("# zero\u200bwidth\na: 1\n", (1, 7), "the character U+200B"),
        ("\ufeffa: 1\n", (1, 1), "the character U+FEFF"),
        ("a: \x00\n", (1, 4), "the character U+0000"),
        ("a: \udcff\n", (1, 4), "the character U+DCFF"),
        ("a: b\u2028c\n", (1, 5), "the character U+2028"),
        ('a: "\\u202e"\n', (1, 4), "'\\u202e'"),
        ('"\\e[31m": 1\n', (1, 1), "'\\x1b[31m'"),
        (f"a: {'x' * (MAX_SCALAR + 1)}\n", (1, 4), f"{MAX_SCALAR + 1} characters"),
        ("[" * (MAX_DEPTH + 1), (1, MAX_DEPTH + 1), f"nesting deeper than {MAX_DEPTH}"),
        ("{a: " * 100_00, (1, MAX_DEPTH * 4 + 1), f"nesting deeper than {MAX_DEPTH}"),
        (f"a: [{'b,' * MAX_NODES}]", (1, 2 * (MAX_NODES - 2) + 5), f"more than {MAX_NODES} values"),
        ("#" * (MAX_BYTES + 1), (1, 1), f"more than {MAX_BYTES} bytes"),
        ("#" + "é" * (MAX_BYTES // 2), (1, 1), f"more than {MAX_BYTES} bytes"),
    ],
)
def test_refuses_what_hides_something_at_its_place(text, place, got):
    first = problems(text)[0]
    assert ((first.data["line"], first.data["column"]), first.got) == (place, got)
    assert first.expected


def test_finds_every_problem_of_a_file_in_one_reading():
    found = problems("a: NO\na: 010\nb: &x 1\nc: *x\n'd': ~\n")
    assert [(p.data["line"], p.got) for p in found] == [
        (1, "unquoted NO"),
        (2, "the key 'a' again"),
        (2, "unquoted 010"),
        (3, "an anchor &x"),
        (4, "an alias *x"),
        (5, "unquoted ~"),
    ]


def test_a_billion_laughs_stays_small():
    text = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    assert all("an a" in p.got for p in problems(text))


def test_windows_line_ends_are_read_and_columns_stay_right():
    assert read_yaml("a: 1\r\nb: 'x'\r\n", "f").value == {"a": 1, "b": "x"}
    assert (problems("a: 1\r\nb: NO\r\n")[0].data["line"], problems("a: 1\r\nb: NO\r\n")[0].data["column"]) == (2, 4)


def test_messages_name_paths_as_a_reader_writes_them():
    assert dotted(("tools", "orders.get", "needs", 0)) == "tools.orders.get.needs[0]"
    assert dotted(()) == "document"
    assert shown([]) == "an empty list"
    assert shown({"a": 1}) == "a mapping"
    assert shown(True) == "true"
    assert len(shown("x" * 500)) == 60
    assert did_you_mean("refnd", ["refund", "read"]) == "did you mean 'refund'?"
    assert did_you_mean(3, ["refund"]) == ""


@settings(deadline=None)  # a shared machine pauses
@given(
    st.recursive(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)
        | st.integers(-(10**15) + 1, 10**15 - 1)
        | st.booleans(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1, max_size=8), inner, max_size=3
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_json_writes_is_read_back_the_same(value):
    import orjson

    document = read_yaml(orjson.dumps({"v": value}).decode(), "f")
    assert [p for p in document.problems if p.got != "nesting deeper than 12"] == [
        p for p in document.problems if p.got == "a merge key <<"
    ]
    if not document.problems:
        assert document.value == {"v": value}


@settings(deadline=None)  # a shared machine pauses
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    for problem in problems(text):
        assert problem.data["line"] >= 1
        assert problem.data["column"] >= 1
        assert str(problem).isprintable()
