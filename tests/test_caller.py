"""Who calls and when: the same answer however often, and in whatever order, a run was decided on before."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.decide import CHECKS, OF_RUN, decide
from agentgate.identity.proven import proven_agent
from agentgate.values.refusal import Reason
from agentgate.values.request import Header, Posture
from agentgate.workflow.clauses.conditions import Network
from tests.benchmarks import world
from tests.effort import examples

DESK = world.Desk()
BERLIN_OPENS = datetime(2026, 11, 25, 7, 0, tzinfo=UTC)  # a Wednesday; 08:00 in Berlin
EDGES = (
    BERLIN_OPENS,
    BERLIN_OPENS + timedelta(hours=12),  # it closes
    datetime(2026, 11, 28, 0, 0, tzinfo=UTC),  # Saturday
    datetime(2026, 10, 25, 1, 0, tzinfo=UTC),  # clocks go back
    datetime(2032, 1, 1, 0, 0, tzinfo=UTC),  # the day after the workflow expired
)
near = st.builds(lambda edge, seconds: edge + timedelta(seconds=seconds), st.sampled_from(EDGES), st.floats(-700, 700))
steps = st.lists(
    st.tuples(st.integers(-130, 130), st.integers(0, 999_999), st.sampled_from(["prod", "prod", "prod", "test", None])), max_size=8
)


def opened(attested: datetime) -> Header:
    """A run's header of its own, whose workload was attested then."""
    known = DESK.state.header.agent
    agent = proven_agent(known.id, spiffe=known.spiffe, posture=Posture("release@acme.example", attested), via=known.via)
    return replace(DESK.state.header, agent=agent)


def both(header: Header, now: datetime, *, closed: bool = False, **changes: Any) -> list[Eligible | Deny]:
    """The answer to a run that was decided on before, and to one that was not."""
    known, around = replace(DESK.state, header=header, closed=closed), replace(world.around(), now=now, **changes)
    decide(DESK.workflow, known, DESK.call, world.around())
    return [decide(DESK.workflow, state, DESK.call, around) for state in (known, replace(known, header=replace(header)))]


@given(start=near, attested=st.integers(-5, 605), moves=steps)
@settings(max_examples=examples(300), deadline=None)
def test_a_decision_depends_on_no_decision_before_it(start, attested, moves):
    known = replace(DESK.state, header=opened(start - timedelta(seconds=attested)))
    for seconds, micro, environment in [(0, 0, "prod"), *moves]:
        around = replace(world.around(), now=start + timedelta(seconds=seconds, microseconds=micro), environment=environment)
        new = replace(known, header=replace(known.header))
        assert decide(DESK.workflow, known, DESK.call, around) == decide(DESK.workflow, new, DESK.call, around)


def passed() -> Header:
    header = opened(world.NOW)
    assert all(isinstance(answer, Eligible) for answer in both(header, world.NOW))
    return header


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"closed": True}, Reason.RUN_CLOSED),
        ({"environment": "test"}, Reason.ENVIRONMENT),
        ({"environment": None}, Reason.ENVIRONMENT),
    ],
)
def test_a_run_that_passed_is_refused_when_something_else_holds(changes, reason):
    for answer in both(passed(), world.NOW, **changes):
        assert isinstance(answer, Deny)
        assert answer.reasons == (reason,)


@pytest.mark.parametrize("later", [timedelta(seconds=601), timedelta(hours=12), timedelta(days=-1)])
def test_a_run_that_passed_is_asked_again_at_another_time(later):
    for answer in both(passed(), world.NOW + later):
        assert isinstance(answer, Deny)


def test_another_run_and_another_workflow_pass_nothing_by_this_one():
    header = passed()
    elsewhere = replace(DESK.workflow, tenants=("other",))
    around = world.around()
    for state, workflow in (
        (replace(DESK.state, header=replace(header, tenant="other")), DESK.workflow),
        (replace(DESK.state, header=header), elsewhere),
    ):
        answer = decide(workflow, state, DESK.call, around)
        assert isinstance(answer, Deny)
        assert Reason.TENANT in answer.reasons


def test_a_time_that_is_not_in_utc_is_asked_about_every_time():
    header = passed()
    local = world.NOW.astimezone(timezone(timedelta(hours=1)))
    assert both(header, local) == both(header, world.NOW)
    for answer in both(header, local + timedelta(hours=12)):
        assert isinstance(answer, Deny)


def test_the_last_minute_there_is_has_no_next_one():
    now = datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC)
    workflow = replace(DESK.workflow, expires=date.max, conditions=replace(DESK.workflow.conditions, hours=None))
    answer = decide(workflow, replace(DESK.state, header=opened(now)), DESK.call, replace(world.around(), now=now))
    assert isinstance(answer, Deny)
    assert answer.reasons == (Reason.SEQUENCE,)


@pytest.mark.parametrize(
    ("address", "inside"),
    [("10.1.2.3", True), ("office", True), ("fd00::1", True), ("11.1.2.3", False), ("10.1.0.0/16", False), ("", False), (None, False)],
)
def test_a_network_is_a_block_or_a_zone_by_name_and_the_text_of_a_block_is_nobodys_address(address, inside):
    assert Network(("10.1.0.0/16", "office", "fd00::/8"), 1).allows(address) is inside


@pytest.mark.parametrize("check", [check for check in CHECKS if check in OF_RUN], ids=lambda check: str(check.__name__))
def test_what_is_kept_of_a_run_that_passed_read_nothing_but_its_header_and_the_workflow(check):
    refusals: list[Any] = []
    check(SimpleNamespace(workflow=DESK.workflow, run=SimpleNamespace(header=passed()), deny=refusals.append))
    assert refusals == []


def test_a_run_that_was_refused_for_its_caller_is_refused_again():
    state, around = replace(DESK.state, header=replace(DESK.state.header, tenant="other")), world.around()
    fewer = tuple(check for check in CHECKS if check not in OF_RUN)
    for checks in (CHECKS, fewer, CHECKS):
        answer = decide(DESK.workflow, state, DESK.call, around, checks)
        assert isinstance(answer, Deny if checks is CHECKS else Eligible)
