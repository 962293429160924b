"""Patterns as languages: read as RE2 reads them, and never half read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from agentgate.diff import forms
from agentgate.diff.language import MAX_STATES, Language, TooLarge
from agentgate.errors import CanonicalError
from agentgate.values.characters import Ranges, inside
from agentgate.values.entities import _FORMS, TYPES, normal
from agentgate.values.expression import ANYTHING, Expression, Not, Unreadable, literal, parse
from agentgate.values.patterns import Glob, Pattern
from agentgate.workflow.operators import Globs
from tests.effort import examples

ALPHABET = "abcAZk09_-./@ \n\u017f\u212aé"
_CLASS = st.sampled_from(
    [
        "[abc]",
        "[^a]",
        "[a-z]",
        "[^a-z0-9]",
        "[]a]",
        "[^]a]",
        "[a-]",
        "[[:digit:]x]",
        "[[:^alpha:]]",
        r"[\w-]",
        r"[\d.]",
        r"[^\s]",
        r"[\x41-\x{5a}]",
    ]
)
_ONE = st.sampled_from(
    [
        "a",
        "b",
        "k",
        "S",
        "9",
        ".",
        "_",
        "-",
        r"\.",
        r"\d",
        r"\W",
        r"\s",
        r"\S",
        r"\n",
        r"\x61",
        r"\x{212a}",
        r"\Qa.\E",
        r"\Q\E",
        r"\141",
        r"\-",
        "é",
        "{",
        "a{,2}",
        "]",
        "",
    ]
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{2,}", "{0,1}?"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
        inner.map(lambda p: f"(?i:{p})"),
        inner.map(lambda p: f"(?s:{p})"),
        inner.map(lambda p: f"(?P<name>{p})"),
        inner.map(lambda p: f"((?is){p})"),
        inner.map(lambda p: f"(?i)(?-i:{p}){p}"),
    )


PATTERNS = st.recursive(st.one_of(_ONE, _CLASS), _compound, max_leaves=6)
TEXTS = st.text(ALPHABET, max_size=6)


def members(expression: Expression, texts: Iterable[str], alphabet: Ranges) -> set[str]:
    """The texts that are in a language."""
    language = Language([expression], alphabet)
    return {text for text in texts if all(inside(alphabet, ord(character)) for character in text) and matches(language, text)}


def matches(language: Language, text: str) -> bool:
    state = language.start
    masks = language._masks
    for character in text:
        held = [inside(ranges, ord(character)) for ranges in masks]
        atom = next(a for a in range(len(language.letters)) if [bool(mask >> a & 1) for mask in masks.values()] == held)
        state = tuple([language.derived(term, atom) for term in state])
    return state[0].nullable


def holds(source: str, text: str) -> bool:
    return text in members(parse(source), [text], ((0, 0xD7FF), (0xE000, 0x10FFFF)))


@settings(max_examples=examples(400), deadline=None)
@given(PATTERNS, TEXTS)
@example("(?i)k", "\u212a")
@example("(?i:[^s])", "\u017f")
@example("[^a]", "\n")
@example("a|b", "ab")
def test_a_pattern_means_what_re2_means(source, text):
    try:
        pattern = Pattern.of(source)
    except CanonicalError:
        assume(False)
    try:
        found = holds(source, text)
    except Unreadable:
        assume(False)
    assert found is pattern.matches(text)


@settings(max_examples=examples(150), deadline=None)
@given(PATTERNS, PATTERNS)
def test_the_text_shown_for_a_combination_is_in_it(one, other):
    try:
        patterns = Pattern.of(one), Pattern.of(other)
        language = Language([parse(one), parse(other)], forms.alphabet("text"))
    except (CanonicalError, Unreadable):
        assume(False)
    for vector, text in language.vectors().items():
        assert tuple(p.matches(text) for p in patterns) == vector


@pytest.mark.parametrize(
    "source", [r"\p{Greek}", r"\pL+", "(?i)é", r"\C", "(?m:a)", r"[[:nope:]]", "(?i:[à-ü])", "a" * 10 + "(" * 101 + ")" * 101]
)
def test_what_cannot_be_read_exactly_is_not_read(source):
    with pytest.raises(Unreadable):
        parse(source)


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        ("ORD-[0-9]{8}", "ORD-[0-9]{7,8}", "ORD-0000000"),
        (r"[a-z]+@acme\.example", "[a-z]+@acme.example", "a@acmeaexample"),
        ("cus_[A-Z]", "(?i:cus_[a-z])", "cus_a"),
        ("docs/[^/]*", "docs/(?s:.*)", "docs//"),
        ("a{1,3}", "a{1,4}", "aaaa"),
    ],
)
def test_the_shortest_text_of_a_difference_is_found(one, other, text):
    found = Language([parse(one), parse(other)], forms.alphabet("text")).texts(lambda v: v[1] and not v[0])
    assert found == text
    assert Language([parse(one), parse(other)], forms.alphabet("text")).texts(lambda v: v[0] and not v[1]) is None


def test_a_length_is_part_of_the_question():
    language = Language([parse("(?:ab)*"), parse("(?s:.{0,199})")], forms.alphabet("text"))
    assert {vector: len(text) for vector, text in language.vectors().items()} == {
        (True, True): 0,
        (False, True): 1,
        (True, False): 200,
        (False, False): 200,
    }


def test_a_question_with_too_many_states_has_no_answer():
    with pytest.raises(TooLarge):
        Language([parse("(?:a|b)*a(?:a|b){16}")], forms.alphabet("text")).vectors()
    assert MAX_STATES <= 2**16


def test_nothing_and_everything():
    assert Language([Not(ANYTHING)], forms.alphabet("text")).texts(lambda v: v[0]) is None
    assert Language([ANYTHING], forms.alphabet("text")).texts(lambda v: not v[0]) is None


TEXT_TYPES = sorted(TYPES - {"boolean", "money", "number", "integer", "json"})
_NEAR = {
    "email": "bob@acme.example",
    "iban": "DE89370400440532013000",
    "url": "https://www.acme.example:80/a?b",
    "domain": "a-b.acme.example",
    "user": "bob.b",
    "channel": "general-1",
    "path": "/a/.b/c d/..e",
    "phone": "+4915112345678",
    "id": "ORD-1:2/3",
    "date": "2024-02-29",
    "time": "23:59",
    "datetime": "2024-02-29T23:59:59",
    "text": "any text",
}


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_a_types_form_is_the_engines(kind):
    """Every text within one change of a good one is in the form exactly if the engine finds it in normal form."""
    good = _NEAR[kind]
    near = {good[:i] + c + good[i + j :] for i in range(len(good) + 1) for c in ("", *"aZ0.-@/:+# w\u00e9\x07") for j in (0, 1)}
    near |= {"", ".", "..", "www.acme.example", "http://a", "0000-01-01", "2023-02-29", "1900-02-29", "2000-02-29", "a/../b", "/a", "a//b"}
    assert members(forms.form(kind), near, forms.alphabet(kind)) == {text for text in near if normal(kind, text) == text}


def test_every_day_of_a_leap_and_a_common_year_is_a_date():
    near = [f"{y:04}-{m:02}-{d:02}" for y in (2023, 2024) for m in range(14) for d in range(33)]
    assert len(members(forms.form("date"), near, forms.alphabet("date"))) == (date(2025, 1, 1) - date(2023, 1, 1)).days


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "/", "*", "**", ".", ".."]), min_size=1, max_size=5).map("".join), st.text("ab/.", max_size=6))
def test_a_glob_means_what_the_engine_means(source, text):
    assume("***" not in source)
    glob = Glob(source)
    found = (
        Language([forms.language(*Globs(glob).language), literal(text)], forms.alphabet("text")).texts(lambda v: v[0] and v[1]) is not None
    )
    assert found is glob.matches(text)


def test_a_forms_copy_follows_the_engines():
    """The engine's own expressions, where they can be read here; the one with a look-ahead is compared by the texts above."""
    for kind, engine in _FORMS.items():
        if kind != "url":
            key = engine.pattern.removeprefix({"user": "@?", "channel": "#?"}.get(kind, ""))  # operators see a name without its sign
            language = Language([parse(key), parse(forms._FORMS[kind])], forms.alphabet(kind))
            assert language.texts(lambda v: v[0] != v[1]) is None, kind
    assert re.escape("(?=") in re.escape(_FORMS["url"].pattern)
