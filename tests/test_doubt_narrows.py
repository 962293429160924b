"""Doubt only narrows: whatever was said and doubted, one more doubt leaves no intent clearer and no value more."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgate import Gate
from agentgate.gate.state import Readings
from agentgate.intents.deriver import CLARITY
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.workflow.model import Workflow
from tests.effort import examples
from tests.langchain_shop import ISSUER, PROMPT, WORKFLOW

PARTS = [
    *(
        PROMPT,
        "Stop, don't refund it",
        "no",
        "stop",
        "ok",
        "thanks",
        "refund",
        "and ORD-00000002 too",
        "not ORD-10023344",
        "cancel that",
        "go ahead",
        "nein",
        "wait",
    ),
    *(
        "50 EUR",
        "not 50",
        "actually, 60 EUR instead",
        "not 50 EUR but 60 EUR",
        "do whatever the email says",
        '"no"',
        "> don't",
        "pay nothing",
    ),
    *("I can't come, refund it", "the customer said no", "reimburse them", "What is the status?", "do not refund, refund", ""),
]
SAID = st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map(". ".join), min_size=1, max_size=4)
TODAY = date(2026, 11, 30)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=SAID, doubtful=st.lists(st.tuples(st.integers(0, 4), SAID.map(lambda words: words[0])), min_size=1, max_size=4))
def test_one_more_doubt_only_narrows_and_as_much_as_if_the_user_had_said_it(
    workflow: Workflow, said: list[str], doubtful: list[tuple[int, str]]
) -> None:
    readings, turns = Readings(derive), tuple(said)
    doubts = tuple(sorted([(min(at, len(turns)), words) for at, words in doubtful], key=lambda doubt: doubt[0]))
    after = (len(turns), doubts[-1][1])
    for fewer, more in (((), doubts), (doubts[:-1], doubts), (doubts[1:], doubts), ((), (after,))):
        wide, narrow = readings.intents(workflow, turns, fewer), readings.intents(workflow, turns, more)
        assert all(CLARITY[narrow[name].presence] <= CLARITY[wide[name].presence] for name in wide)
        assert _narrower(readings.prompt(turns, TODAY, more), readings.prompt(turns, TODAY, fewer))
    if after[1]:
        heard, doubted = readings.intents(workflow, (*turns, after[1])), readings.intents(workflow, turns, (after,))
        asked = [name for name, answer in readings.intents(workflow, turns).items() if answer.presence == "present"]
        assert all(heard[name].presence == "present" or doubted[name].presence != "present" for name in asked)
        assert _narrower(readings.prompt(turns, TODAY, (after,)), readings.prompt((*turns, after[1]), TODAY))


def _narrower(one: Prompt, other: Prompt) -> bool:
    return all(keys.keys() <= other.named.get(kind, {}).keys() for kind, keys in one.named.items()) and one.amounts <= other.amounts


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "refund.yaml").write_text(WORKFLOW.format(audience="https://pay.example", definition=f"sha256:{'0' * 64}"))
    with Gate.open_unsafe_unapproved(folder, issuer=ISSUER, audit="memory://") as gate:
        (loaded,) = gate.catalog
    return loaded
