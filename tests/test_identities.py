"""Names of people, agents, groups and tenants: accepted in one form, and compared so that another spelling never gains anything."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from agentgate import Agent, AnswerRefused, Gate, RunRefused, StepUp, User
from agentgate.decision.hold import Approver, Hold, Question, check_approver, covered
from agentgate.errors import AgentGateError, IdentityRefused, WorkflowError
from agentgate.identity.proven import proven_agent, proven_user, restore_user
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.replay.evaluate import Episode
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.values import SceneError
from agentgate.values.request import person
from agentgate.workflow.model import StepUpRule
from tests.shop import ORDER, REFUND, WORKFLOW, looked_up, run_of

BAD: tuple[Any, ...] = (
    "",
    " ",
    None,
    5,
    b"lee",
    "\ud800",
    "lee\x00",
    "lee\n",
    "l\tee",
    " lee",
    "lee\u00a0",
    "lee\u200b",
    "lee\u3164",
    "lee\ufe0f",
    "lee\u202e",
    "Zoe\u0308",
    "x" * 513,
)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_name_in_no_accepted_form_makes_no_identity(name: Any) -> None:
    for make, field in (
        (lambda: User(name, tenant="acme"), "user.id"),
        (lambda: User("lee", tenant=name), "user.tenant"),
        (lambda: User("lee", tenant="acme", groups=["support", name]), "user.groups"),
        (lambda: Agent(name), "agent.id"),
        (lambda: proven_user(name, tenant="acme"), "user.id"),
        (lambda: proven_agent(name), "agent.id"),
        (lambda: restore_user({"id": name, "tenant": "acme", "groups": [], "identity": "proven"}), "user.id"),
    ):
        with pytest.raises(IdentityRefused) as refused:
            make()
        assert isinstance(refused.value, AgentGateError)
        assert refused.value.field == field
        assert str(refused.value).isascii()
        assert len(str(refused.value)) < 250


@pytest.mark.parametrize("groups", ["support", None, {"support": 1}, {"support"}])
def test_groups_are_a_list(groups: Any) -> None:
    """One text as groups would be a group for each of its letters."""
    with pytest.raises(IdentityRefused):
        User("lee", tenant="acme", groups=groups)


@pytest.mark.parametrize("name", ["lee", "Lee@acme.example", "auth0|5F7c", "Zoë", "李", "Lee Smith", "x" * 512, "https://issuer.example/9"])
def test_usual_names_are_kept_as_they_are(name: str) -> None:
    assert User(name, tenant="acme", groups=[name]).id == name
    assert Agent(name).id == name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lee@acme.example", "Lee@acme.example"),
        ("lee", "LEE"),
        ("lee", "@lee"),
        ("lee", "\uff4cee"),
        ("hans", "\u210bans"),
        ("straße", "STRASSE"),
        ("\u0130x", "i\u0307X"),
    ],
)
def test_two_spellings_of_one_person(one: str, other: str) -> None:
    assert person(one) == person(other)
    assert person(person(one)) == person(one)
    assert person(one) != person(one + "1")


@pytest.mark.parametrize("name", ["lee", "Lee", "LEE", "@lee", "\uff4cee", "bot", "Bot"])
def test_nobody_releases_their_own_call_in_another_spelling(gate: Gate, name: str) -> None:
    run = run_of(gate)
    looked_up(run)
    big = {**REFUND, "amount": "150.00"}
    held = run.authorize("payments.refund", big, tool_call_id="pay")
    with pytest.raises(AnswerRefused):
        gate.release(held.hold.id, tenant="acme", by=User(name, tenant="acme", groups=["leads"]))
    assert isinstance(run.authorize("payments.refund", big, tool_call_id="pay"), StepUp)


RULE = StepUpRule("big", 1, "pay", (), "leads", 2, ("requester",), 600, ())


QUESTION = Question("h", "acme", "pay v1", "pay", "write", (), "lee", "bot", (), (), (), 0.0, 9e9, "")


def hold_of(*approvers: str) -> Hold:
    made = tuple(Approver(name, "acme", ("leads",)) for name in approvers)
    return Hold("h", "acme", "run_1", "pay", "c", ("big",), {}, (), 9e9, QUESTION, approvers=made)


def test_two_spellings_of_one_approver_are_one_yes() -> None:
    assert not covered(RULE, hold_of("mona", "Mona", "@MONA"), User("lee", tenant="acme"), Agent("bot"))
    assert not covered(RULE, hold_of("mona", "Lee"), User("lee", tenant="acme"), Agent("bot"))
    assert covered(RULE, hold_of("mona", "kim"), User("lee", tenant="acme"), Agent("bot"))


def test_what_grants_is_compared_as_it_is_written(gate: Gate) -> None:
    """Whoever may create a group "Leads" is no lead, and a user of "ACME" is none of "acme"."""
    for by in (User("mona", tenant="acme", groups=["Leads"]), User("mona", tenant="ACME", groups=["leads"])):
        assert check_approver(RULE, by, None, Agent("bot"), "acme") is not None
    assert check_approver(RULE, User("mona", tenant="acme", groups=["leads"]), None, Agent("bot"), "acme") is None
    for user in (User("lee", tenant="acme", groups=["Support"]), User("lee", tenant="ACME", groups=["support"])):
        with pytest.raises(RunRefused):
            run_of(gate, user=user)


@pytest.mark.parametrize("group", ["support ", "Zoe\u0308", "x\u3164", "a\\nb"])
def test_a_group_that_no_user_can_have_does_not_load(group: str) -> None:
    for old in ("groups: [support]", "group: leads"):
        key = old.partition(":")[0]
        text = WORKFLOW.replace(old, f'{key}: ["{group}"]' if key == "groups" else f'{key}: "{group}"', 1)
        with pytest.raises(WorkflowError) as wrong:
            load_text(text, "w.yaml", {}, derive)
        assert ".group" in wrong.value.problems[0].field


def test_scenes_and_episodes_name_what_is_wrong() -> None:
    workflow = load_text(WORKFLOW, "w.yaml", {}, derive)
    for key, value in (("who.user.id", ""), ("who.user.tenant", "x\n"), ("who.user.groups", ["\u200b"]), ("who.agent.id", " ")):
        with pytest.raises(SceneError) as wrong:
            Scene.of(workflow, {"call": "orders.get", "prompt": "Refund ORD-10023344", "args": ORDER, key: value})
        assert key in str(wrong.value)
    own = WORKFLOW.replace("payee: {type: id, from: [orders.get.customer], sensitive: true}", "payee: {type: text, from: [user]}")
    with pytest.raises(SceneError, match=r"who\.user\.id"):
        Scene.of(load_text(own, "w.yaml", {}, derive), {"call": "payments.refund", "args": {**REFUND, "payee": "lee\n"}})
    episode = {
        "id": "e1",
        "suite": "s",
        "workflow": "w",
        "tenant": "acme",
        "user": "lee",
        "agent": "bot",
        "prompt": "p",
        "attack": None,
        "now": f"{date(2030, 6, 4)}T09:30:00+00:00",
        "steps": [{"tool": "t", "args": {}, "result": {}, "by": "user", "effect": "read", "destructive": False}],
    }
    assert Episode.model_validate(episode).user == "lee"
    for key, name in (("user", ""), ("agent", " "), ("tenant", "x\x00"), ("groups", ["\u3164"])):
        with pytest.raises(ValueError, match=key):
            Episode.model_validate({**episode, key: name})
