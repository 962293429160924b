"""The decision can be read on one page, and what must be right for every promise stays small."""

from __future__ import annotations

import re

from agentgate.decision import decide
from tests.form import measure
from tests.test_layers import MODULES, ROOT, room

ROOMS = ("decision", "token", "redemption")
MOST = 43_000  # tokens of code; SECURITY.md says the size
CHECKS = "workflow"  # its classes check single keys and operators
MOST_WITH_CHECKS = 57_000


def test_the_decision_is_on_one_page():
    assert len(MODULES["decision.decide"].read_text().splitlines()) <= 120


def test_every_rule_is_on_the_page_with_its_words():
    written = {
        name
        for m, path in MODULES.items()
        if room(m) == "decision"
        for name in re.findall(r"^def (check_\w+)\(case: Case\)", path.read_text(), re.MULTILINE)
    }
    assert written == {check.__name__ for check in decide.RULES}
    assert all(re.fullmatch(r"[A-Z][^.]+\.", rule) for rule in decide.RULES.values())


def size_of(*rooms: str) -> int:
    return sum(measure(path.read_text()).tokens for m, path in MODULES.items() if room(m) in rooms)


def test_the_trusted_base_is_as_small_as_it_is_said_to_be():
    text = (ROOT / "SECURITY.md").read_text().replace("\n", " ")
    said = re.search(r"trusted base\*\*[^.]*?([0-9]+),000 tokens[^.]*?at most ([0-9]+),000 with that whole room", text)
    assert said is not None
    assert size_of(*ROOMS) <= int(said[1]) * 1000 <= MOST
    assert size_of(*ROOMS, CHECKS) <= int(said[2]) * 1000 <= MOST_WITH_CHECKS
