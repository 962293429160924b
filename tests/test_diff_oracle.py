"""The diff against two oracles: the real engine over a finite grid of calls, and an SMT solver over every call there can be."""

from __future__ import annotations

from itertools import permutations

import pytest

from agentgate.diff import Finding, compare
from tests.diff_oracle_grid import calls, needs_less
from tests.diff_oracle_joint import cases, changed
from tests.diff_oracle_pairs import Pairs
from tests.diff_oracle_z3 import wider
from tests.effort import examples
from tests.generate import Generator

PAIRS_BY_FORCE = examples(600, 20)
PAIRS_BY_SOLVER = examples(3000, 60)
PAIRS_TOGETHER = examples(200)


def test_no_call_of_the_grid_that_needs_less_is_missed_on_random_pairs():
    pairs = Pairs(20271103)
    shown = 0
    for number in range(PAIRS_BY_FORCE):
        old, new = pairs.pair()
        found = next((case for case in calls(old, new) if needs_less(old, new, *case)), None)
        if found is not None:
            shown += 1
            diff = compare(old, new)
            assert [f for f in diff.wider if f.call], f"pair {number}: {found[1].args} needs less, and nothing is said"
            assert not diff.only_narrower
    assert shown > PAIRS_BY_FORCE // 3  # or the test says nothing


@pytest.mark.parametrize("seed", [20271125, 20271126])
def test_the_solver_agrees_on_random_pairs(seed):
    pairs = Pairs(seed)
    answers = []
    for number in range(PAIRS_BY_SOLVER // 2):
        old, new = pairs.pair()
        diff = compare(old, new)
        assert diff.read_yourself == (), f"pair {number}"
        answer = wider(old, new)
        answers.append(answer)
        assert any(f.call for f in diff.wider) is answer, f"pair {number}: the solver says {answer}; {[str(f) for f in diff.wider]}"
    assert 0.3 < sum(answers) / len(answers) < 0.7


def test_what_origins_must_meet_together_is_not_missed_on_random_pairs():
    generator = Generator(20271104)
    shown = 0
    for number in range(PAIRS_TOGETHER):
        old = generator.workflow()
        new = changed(generator, old)
        found = next((c for c in cases(generator, old, new, 24) if needs_less(old, new, c.run, c.call, c.around)), None)
        if found is not None:
            shown += 1
            diff = compare(old, new)
            assert [f for f in diff.wider if f.call], f"pair {number}: {found.call.args} needs less, and nothing is said"
            assert not diff.only_narrower
    assert shown > PAIRS_TOGETHER // 14


def test_the_two_ways_agree():
    """What is wider one way is narrower the other."""
    pairs = Pairs(7)
    for _ in range(examples(100, 40)):
        old, new = pairs.pair()
        for there, back in permutations((compare(old, new), compare(new, old))):
            without_order = {_counted(f) for f in back.wider if not f.call}  # wider both ways, so less in neither
            wider = {(f.tool, f.field) for f in there.wider if f.call or _counted(f) not in without_order}
            assert wider == {(f.tool, f.field) for f in back.narrower}


def _counted(finding: Finding) -> tuple[str, str]:
    return finding.tool, finding.field.partition(" per ")[0]
