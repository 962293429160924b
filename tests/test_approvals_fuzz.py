"""Malformed trust files, statements and signatures: every one is a refusal that names file and reason, never a traceback.

And whatever is done to one file under approvals/, nothing but what was approved is ever in force.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgate.approvals import ApprovalRefused, Prover, load_approved, status
from agentgate.approvals.root import Root, distinct
from agentgate.approvals.version import Statement, first_difference
from agentgate.errors import AgentGateError
from agentgate.intents.lexical import derive
from agentgate.values.canonical import canonical, parse
from tests.approvals_team import ALICE, BOB, CAROL, ID, Team
from tests.effort import examples

FEW = settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def built() -> Iterator[Team]:
    """Version 1 by Alice and Bob, version 2 (narrower) by Carol, a rotated root, a revoked other workflow."""
    folder = Path(tempfile.mkdtemp())
    team = Team(folder)
    team.approve(ALICE, BOB)
    team.edit("version: 1", "version: 2")
    team.edit('"10.00", "20.00"', '"10.00"')
    team.approve(CAROL)
    team.new_root()
    team.revoke(3, workflow="shop.other")
    team.index()
    yield team
    shutil.rmtree(folder)


T = TypeVar("T")


def outcome(call: Callable[[], T]) -> tuple[T | None, AgentGateError | None]:
    """What a call returns, or the refusal it raises; anything else fails the test."""
    try:
        return call(), None
    except AgentGateError as error:
        return None, error


def approved_only(team: Team) -> None:
    """Load what lies there: a refusal, or exactly what reviewers approved."""
    known = {ID: 2, "index:serial": 1}
    loaded, error = outcome(lambda: load_approved(team.directory, team.root, derive=derive, now=team.now, known=known, prover=Prover()))
    if loaded is None:
        assert str(error)
        return
    for refused in loaded.refused:
        assert refused.data["file"]
        assert refused.field
        assert refused.got.isprintable()
    for workflow in loaded.workflows.values():
        assert (workflow.id, workflow.version) == (ID, 2)
        assert workflow.tools["payments.refund"].args["amount"].one_of == ("10.00",)
    _, error = outcome(lambda: status(team.directory, team.root, now=team.now))
    assert error is None or str(error)


def names(team: Team) -> list[str]:
    return sorted(p.relative_to(team.directory).as_posix() for p in team.directory.rglob("*") if p.is_file())


def changed(data: bytes, draw: st.DataObject) -> bytes:
    """One file's bytes after an accident or an attack."""
    at = draw.draw(st.integers(0, max(0, len(data) - 1)))
    match draw.draw(st.sampled_from(["byte", "cut", "double", "swap", "insert", "other", "empty"])):
        case "byte":
            return data[:at] + bytes([draw.draw(st.integers(0, 255))]) + data[at + 1 :]
        case "cut":
            return data[:at]
        case "double":
            return data + data
        case "swap":
            return data[at:] + data[:at]
        case "insert":
            return (
                data[:at]
                + draw.draw(st.sampled_from([b"1", b'"', b"\n", b"\x00", b"{}", b"true", b"null", b",", b"\xff", b"- a: b\n"]))
                + data[at:]
            )
        case "other":
            return draw.draw(st.binary(max_size=80))
        case _:
            return b""


@FEW
@given(st.data())
def test_one_changed_file_puts_nothing_else_in_force(built, data):
    name = data.draw(st.sampled_from(names(built)))
    place = built.directory / name
    before = place.read_bytes()
    place.write_bytes(changed(before, data))
    try:
        approved_only(built)
    finally:
        place.write_bytes(before)


@FEW
@given(st.data())
def test_one_file_in_the_place_of_another_puts_nothing_else_in_force(built, data):
    one, other = (built.directory / data.draw(st.sampled_from(names(built))) for _ in range(2))
    before = one.read_bytes()
    one.write_bytes(other.read_bytes())
    try:
        approved_only(built)
    finally:
        one.write_bytes(before)


@FEW
@given(st.data())
def test_a_missing_file_puts_nothing_else_in_force(built, data):
    place = built.directory / data.draw(st.sampled_from(names(built)))
    before = place.read_bytes()
    place.unlink()
    try:
        approved_only(built)
    finally:
        place.write_bytes(before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_no_statement_and_no_root(data):
    with pytest.raises(ApprovalRefused):
        Statement.parse(data, "a.json")
    with pytest.raises(ApprovalRefused):
        Root.parse(data, "root.yaml")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_statement_with_any_other_value_is_read_or_refused(built, data):
    value: Any = parse((built.approvals(f"{ID}/2/{CAROL}.json")).read_bytes())
    key = data.draw(st.sampled_from(sorted(value["predicate"])))
    value["predicate"][key] = data.draw(JSON)
    text, _ = outcome(lambda: canonical(value))
    if text is None:
        return
    said, error = outcome(lambda: Statement.parse(text, "a.json"))
    if said is not None:
        assert said.data == text  # what is read says what was written
    else:
        assert isinstance(error, ApprovalRefused)
        assert error.refused.data["file"] == "a.json"
        assert error.refused.field


@settings(deadline=None)
@given(JSON, JSON)
def test_the_first_difference_is_none_only_for_equal_values(one, other):
    field, got, expected = first_difference(one, other)
    assert field
    assert got.isprintable()
    assert expected.isprintable()


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from([b"1", b"2", b"3", b"4"])), max_size=12))
def test_never_more_signatures_count_than_people_or_keys(signed):
    count = distinct(signed)
    assert count <= min(len({person for person, _ in signed}), len({key for _, key in signed}))
    assert count == distinct(reversed(signed))
    assert bool(count) == bool(signed)
