"""Proposed cases: each passes on the workflow, fails without its condition, and survives being written and read as YAML."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import inline, read_yaml
from agentgate.review.mutation.mutation import head_yaml, mutations, notices, propose, survey
from agentgate.review.scenarios import testfile
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import NamedCase, case_yaml, cases_yaml, read_tests, run_tests
from agentgate.workflow.model import Workflow
from tests.effort import examples
from tests.everything import CLAIMS, EVERYTHING, ROLES, STRUCTURES

ROOT = Path(__file__).parent.parent
SHIPPED = [w for folder in ("workflows", "examples/payment-agent/workflows") for w in Catalog.load(ROOT / folder, derive)]


def everything() -> Workflow:
    return load_text(EVERYTHING, "all.yaml", ROLES, derive)


@pytest.mark.parametrize(
    "workflow",
    [*SHIPPED, everything(), load_text(CLAIMS, "claims.yaml", ROLES, derive), load_text(STRUCTURES, "mail.yaml", ROLES, derive)],
    ids=lambda w: w.id,
)
def test_proposed_cases_written_and_read_again_pass_and_cover_every_condition(workflow):
    made = propose(workflow)
    assert [str(m) for m in made.left] == []
    text = head_yaml(workflow) + cases_yaml(p.case for p in made.found)
    tests = read_tests(text, "p.test.yaml")
    report = run_tests(workflow, tests)
    assert [(r.name, r.why) for r in report.failed] == []
    assert [str(m) for m in survey(workflow, tests).survivors] == []


def test_every_case_fails_on_each_condition_it_was_proposed_for():
    workflow = SHIPPED[-1]
    base = Scene.of(workflow, {})
    for proposal in propose(workflow).found:
        assert proposal.covers
        for mutant in proposal.covers:
            assert notices(proposal.case, base.set(proposal.case.changes), mutant), (proposal.case.name, str(mutant))


def test_nothing_is_proposed_where_nothing_is_missing():
    workflow = SHIPPED[0]
    made = propose(workflow, testfile.load_tests(testfile.tests_of(workflow.file)))
    assert made.found == ()
    assert made.left == ()


@settings(max_examples=examples(5, 2), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_cases_are_taken_away_the_missing_ones_are_proposed(data):
    workflow = data.draw(st.sampled_from(SHIPPED))
    tests = testfile.load_tests(testfile.tests_of(workflow.file))
    kept = tuple(case for case in tests.cases if data.draw(st.booleans()))
    less = dataclasses.replace(tests, cases=kept, places={})
    made = propose(workflow, less)
    assert made.left == ()
    cases = (*kept, *(p.case for p in made.found))
    assert len({case.name for case in cases}) == len(cases)
    assert survey(workflow, dataclasses.replace(less, cases=cases)).survivors == ()


def test_a_proposed_case_changes_as_little_as_it_can():
    cases = [p.case for p in propose(next(w for w in SHIPPED if w.id == "identity.service-account-refresh")).found]
    assert max(len(case.changes) for case in cases) == 2  # what is used up, and when
    assert sum(len(case.changes) for case in cases) <= len(cases) + 1


def test_pins_of_one_scene_are_one_case():
    grants = [p.case for p in propose(SHIPPED[0]).found if p.case.grants]
    assert len(grants) == 1
    assert set(grants[0].grants) >= {"ttl", "bound_to", "audience", "scope", "redeem", "mode", "upstream"}


# --- as YAML -------------------------------------------------------------------------------------------------------------------
printable = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], max_codepoint=0x2FFF), max_size=12).filter(str.isprintable)
keys = printable.filter(lambda key: key not in {"", "<<"})  # the reader refuses << as a key, quoted or not
values: Any = st.recursive(
    printable | st.integers(-(10**14), 10**14) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(300), deadline=None)
@given(values)
def test_a_value_written_in_flow_style_is_read_back_as_the_same_value(value):
    document = read_yaml(f"x: {inline(value)}\n", "x.yaml")
    assert document.problems == []
    assert document.value == {"x": value}


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "on",
        "12:30",
        "1.0",
        "2026-01-07",
        "~",
        "- a",
        "a: b",
        "a #b",
        "'",
        '"',
        "&a",
        "*a",
        "!a",
        "%a",
        "",
        " a",
        "[",
        "{}",
        "two\nlines",
    ],
)
def test_words_that_yaml_reads_as_something_else_are_quoted(text):
    document = read_yaml(f"x: {{key: {inline(text)}}}\n", "x.yaml")
    assert (document.problems, document.value) == ([], {"x": {"key": text}})


def test_what_is_left_out_stands_under_without():
    case = NamedCase("no payee", {"args.payee": None, "tenant": "acme"}, "deny", because=("payee",))
    assert case_yaml(case) == "  - {name: 'no payee', set: {tenant: acme}, without: [args.payee], expect: deny, because: payee}"


def test_a_mutant_that_nothing_tells_is_left_and_named():
    text = CLAIMS.replace("{in: [a, b],", "{in: [a, b], pattern: '[a-z]',")
    workflow = load_text(text, "claims.yaml", ROLES, derive)
    left = propose(workflow).left
    assert [m.path for m in left] == ["tools.jobs.run.args.queue.pattern"]  # both listed words have this form: the pattern says nothing
    assert left[0].path in {m.path for m in mutations(workflow).found}
