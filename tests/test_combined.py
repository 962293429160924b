"""Several derivers as one: never above any of them, and a gate with more of them permits no more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.decision.answer import Allow, Deny, StepUp
from agentgate.errors import ConfigError
from agentgate.gate.gate import Gate
from agentgate.intents.combined import Combined
from agentgate.intents.deriver import CLARITY, Deriver, ask
from agentgate.intents.lexical import derive
from agentgate.values.request import Agent, Derived
from agentgate.workflow.model import Intent
from agentgate_conformance.derivers import REFUND, VOCABULARY
from tests.shop import LEE, WEEKDAY, WORKFLOW, looked_up
from tests.shop import REFUND as CALL

PRESENCES = st.sampled_from(["absent", "unclear", "present"])
ANSWERS = st.dictionaries(st.sampled_from(["refund", "change_address", "admin"]), st.builds(Derived, PRESENCES))


def says(answer: Any) -> Deriver:
    def deriver(_intents: tuple[Intent, ...], _turns: tuple[str, ...]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return deriver


MEMBERS = st.one_of(ANSWERS, st.just(RuntimeError("away")), st.none()).map(says)


def clarity(deriver: Deriver) -> dict[str, int]:
    return {name: CLARITY[answer.presence] for name, answer in ask(deriver, VOCABULARY, ("refund it",)).items()}


@given(st.lists(MEMBERS, min_size=2, max_size=4))
def test_it_is_exactly_the_least_of_its_members(members: list[Deriver]) -> None:
    each = [clarity(member) for member in members]
    assert clarity(Combined(*members)) == {name: min(one[name] for one in each) for name in each[0]}


@given(st.lists(MEMBERS, min_size=2, max_size=4), MEMBERS)
def test_one_more_member_only_narrows(members: list[Deriver], more: Deriver) -> None:
    before, after = clarity(Combined(*members)), clarity(Combined(*members, more))
    assert all(after[name] <= before[name] for name in before)


@given(st.permutations([says({"refund": Derived("present")}), says({"refund": Derived("unclear")}), says(OSError()), derive]))
def test_the_order_changes_no_presence(members: list[Deriver]) -> None:
    assert clarity(Combined(*members)) == {"refund": CLARITY["unclear"], "change_address": CLARITY["absent"]}


def test_the_evidence_is_of_the_member_that_decided() -> None:
    doubtful = says({"refund": Derived("unclear", "I am not sure")})
    assert ask(Combined(derive, doubtful), VOCABULARY, ("Please refund order ORD-1",))["refund"].evidence == "I am not sure"
    sure = says({"refund": Derived("present", "sure")})
    assert ask(Combined(derive, sure), VOCABULARY, ("Please refund order ORD-1",))["refund"].evidence.startswith("word 'refund'")


def test_nobody_is_asked_when_nothing_is_left_to_narrow() -> None:
    asked = []

    def costly(_intents: Any, turns: tuple[str, ...]) -> Mapping[str, Derived]:
        asked.append(turns)
        return {"refund": Derived("present")}

    combined = Combined(derive, costly)
    assert combined((REFUND,), ("Where is my lamp?",))["refund"].presence == "absent"
    assert not asked
    assert combined((REFUND,), ("Please refund order ORD-1",))["refund"].presence == "present"
    assert len(asked) == 1


PERMISSION = {Deny: 0, StepUp: 1, Allow: 2}


@pytest.mark.parametrize("answer", [Derived("present"), Derived("unclear"), Derived("absent"), None, "present", OSError()], ids=repr)
@pytest.mark.parametrize(
    "prompt",
    [
        "Please refund 39.99 EUR for order ORD-10023344, it arrived broken",
        "Refund all orders from this week, ORD-10023344 first",
        "Where is order ORD-10023344?",
    ],
)
def test_a_gate_with_one_more_deriver_permits_no_more(tmp_path: Path, prompt: str, answer: Any) -> None:
    """It never turns a refusal into a permission, nor a question to a person into none."""
    (tmp_path / "refund.yaml").write_text(WORKFLOW)
    ready = False

    def more(intents: tuple[Intent, ...], turns: tuple[str, ...]) -> Any:
        if not ready:  # while the workflow's examples are read
            return derive(intents, turns)
        return says({"refund": answer})(intents, turns) if not isinstance(answer, Exception) else says(answer)(intents, turns)

    permitted = []
    for deriver in (derive, Combined(derive, more)):
        ready = False
        with Gate.open_unsafe_unapproved(
            tmp_path, issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY, deriver=deriver
        ) as gate:
            ready = True
            run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt)
            looked_up(run)
            permitted.append(PERMISSION[type(run.authorize("payments.refund", CALL))])
    assert permitted[1] <= permitted[0]


def test_two_of_the_same_members_are_equal() -> None:
    assert Combined(derive, derive) == Combined(derive, derive)
    assert hash(Combined(derive, derive)) == hash(Combined(derive, derive))
    assert Combined(derive, derive) != Combined(derive, derive, derive)


@pytest.mark.parametrize("members", [(derive,), (derive, None), ("lexical", derive)])
def test_what_is_no_combination_is_refused(members: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError):
        Combined(*members)
