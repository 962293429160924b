"""Attacks on whose a thread is: another tenant, issuer, subject or key; a group or a claim that was lost; a stolen credential."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentgate import JWTSVID, Agent, Gate, OIDCToken, RunRefused, User
from agentgate.decision.hold import check_approver
from agentgate.identity.proven import proven_user
from agentgate.integrations.langchain import AgentGateMiddleware, user_says
from agentgate.integrations.langchain.identities import shown
from agentgate.token.dpop import DPoP
from agentgate.workflow.model import StepUpRule
from tests import langchain_shop
from tests.authority import Key, web
from tests.founding import shown as proof_of
from tests.langchain_shop import DENIED, LEAD, ORDER, PROMPT, Script, Shop, calls, say, tool_messages, tool_server
from tests.test_identity_door import WORKFLOW
from tests.test_identity_door import Desk as ProvenDesk

GET = ("orders.get", {"order_id": ORDER})
NOTE = ("notes.add", {"order_id": ORDER, "text": "broken"})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})
THREAD: Any = {"configurable": {"thread_id": "1"}}
LEE = User("lee", tenant="acme", groups=["support"])
DESK = Agent("desk")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    source = langchain_shop.WORKFLOW.replace("tenants: [acme]", "tenants: [acme, acme-uk]")
    monkeypatch.setattr(langchain_shop, "WORKFLOW", source.replace("{{same_tenant: true}}", "{{groups: [support]}}"))
    with tool_server() as served:
        yield Shop(tmp_path, served, total="150.00")


class Chat:
    """A conversation whose runtime context is (tenant, user, agent)."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.saver = shop, InMemorySaver()
        self.model = Script(answers=[])
        self.restart()

    def restart(self) -> None:
        """The host's process begins anew."""
        self.gated = AgentGateMiddleware(self.shop.gate, workflow="shop.refund", identify=lambda context: context)
        self.agent: Any = create_agent(self.model, self.shop.tools, middleware=[self.gated], context_schema=tuple, checkpointer=self.saver)

    def ask(self, who: Any, given: Any, *answers: Any, thread: Any = THREAD) -> Any:
        self.model.answers[:] = answers
        return self.agent.invoke(given, thread, context=who)


OTHERS: dict[str, Any] = {
    "another tenant": ("acme-uk", LEE, DESK),
    "a user of another tenant": ("acme", User("lee", tenant="acme-uk", groups=["support"]), DESK),
    "both of another tenant": ("acme-uk", User("lee", tenant="acme-uk", groups=["support"]), DESK),
    "another user": ("acme", User("kim", tenant="acme", groups=["support"]), DESK),
    "the user in other letters": ("acme", User("Lee", tenant="acme", groups=["support"]), DESK),
    "another agent": ("acme", LEE, Agent("desk-2")),
    "the user without the group": ("acme", User("lee", tenant="acme"), DESK),
    "the user in another group": ("acme", User("lee", tenant="acme", groups=["Support", "leads"]), DESK),
    "nobody": ("acme", None, DESK),
    "a proof that another run kept": ("acme", proven_user("lee", tenant="acme", groups=("support",)), DESK),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_nobody_else_goes_on_with_a_thread(shop: Shop, other: str, *, restarted: bool) -> None:
    chat = Chat(shop)
    chat.ask(("acme", LEE, DESK), {"messages": user_says(PROMPT)}, say())
    if restarted:
        chat.restart()
    out = chat.ask(OTHERS[other], {"messages": user_says("go ahead")}, calls(NOTE), say())
    assert tool_messages(out)[-1].status == "error"
    assert shop.ran == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_nobody_else_resumes_a_held_call(shop: Shop, other: str, *, restarted: bool) -> None:
    chat = Chat(shop)
    out = chat.ask(("acme", LEE, DESK), {"messages": user_says(PROMPT)}, calls(GET), calls(DEAR), say())
    shop.gate.release(out["__interrupt__"][0].value["hold"], tenant="acme", by=LEAD)
    if restarted:
        chat.restart()
    out = chat.ask(OTHERS[other], Command(resume=True), say())
    assert tool_messages(out)[-1].content == DENIED
    assert shop.server.paid == []


@pytest.mark.parametrize("restarted", [False, True])
def test_who_has_another_group_too_goes_on_and_it_counts_from_now_on(shop: Shop, *, restarted: bool) -> None:
    chat = Chat(shop)
    chat.ask(("acme", LEE, DESK), {"messages": user_says(PROMPT)}, say())
    if restarted:
        chat.restart()
    more = User("lee", tenant="acme", groups=["support", "leads"])
    out = chat.ask(("acme", more, DESK), {"messages": user_says("go ahead")}, calls(NOTE), say())
    assert tool_messages(out)[-1].status == "success"
    (kept,) = chat.gated._runs.values()
    assert shop.gate.resume_run("acme", kept.run.id).header.user == more
    out = chat.ask(("acme", User("lee", tenant="acme", groups=["leads"]), DESK), {"messages": user_says("more")}, calls(NOTE), say())
    assert tool_messages(out)[-1].status == "error"


def test_a_thread_of_another_process_is_not_taken_by_a_name_alone(shop: Shop) -> None:
    run = shop.gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt=PROMPT)
    for tenant, user, agent in OTHERS.values():
        with pytest.raises(RunRefused):
            shop.gate.resume_run("acme", run.id).continue_for(tenant=tenant, user=user, agent=agent)
    run.continue_for(tenant="acme", user=LEE, agent=DESK)
    run.close()
    with pytest.raises(RunRefused, match="run_closed"):
        run.continue_for(tenant="acme", user=LEE, agent=DESK)


def test_an_agent_under_another_workflow_goes_on_in_no_run_of_the_same_thread(shop: Shop) -> None:
    """Else what the host lets the second agent do is what the first one may."""
    narrow = (
        (shop.directory / "refund.yaml").read_text().replace("id: shop.refund", "id: shop.look").replace("  notes.add:", "  notes.other:")
    )
    (shop.directory / "look.yaml").write_text(narrow)
    shop.gate.close()
    shop.gate = Gate.open_unsafe_unapproved(shop.directory, issuer=langchain_shop.ISSUER, audit="memory://")
    chat = Chat(shop)
    chat.ask(("acme", LEE, DESK), {"messages": user_says(PROMPT)}, say())
    looking = AgentGateMiddleware(shop.gate, workflow="shop.look", identify=lambda context: context)
    chat.agent = create_agent(chat.model, shop.tools, middleware=[looking], context_schema=tuple, checkpointer=chat.saver)
    for _ in range(2):
        out = chat.ask(("acme", LEE, DESK), {"messages": user_says(PROMPT)}, calls(NOTE), say())
        assert tool_messages(out)[-1].content == DENIED
    assert shop.ran == []
    chat.restart()  # the first agent has its run still
    (run,) = {message["run"] for message in shop.records if message["type"] == "run_opened"}
    chat.ask(("acme", LEE, DESK), {"messages": user_says(PROMPT)}, calls(NOTE), say())
    assert [*chat.gated._runs] == [run]
    assert shop.ran_names() == ["notes.add"]


# --- credentials -----------------------------------------------------------------------------------------------------------
class Proven:
    """An agent whose user and agent come with credentials."""

    def __init__(self, desk: ProvenDesk) -> None:
        self.desk, self.ran, self.saver = desk, list[str](), InMemorySaver()
        self.gated = AgentGateMiddleware(desk.gate, workflow="desk.refund", identify=lambda context: context)

    def ask(self, agent: Any, user: Any = None, said: str = PROMPT) -> str:
        @tool("refund")
        def refund(order_id: str) -> str:
            """Refund an order."""
            self.ran.append(order_id)
            return "refunded"

        script = Script(answers=[calls(("refund", {"order_id": ORDER}), ids=[f"c{len(self.ran)}"]), say()])
        built: Any = create_agent(script, [refund], middleware=[self.gated], context_schema=tuple, checkpointer=self.saver)
        context = ("acme-eu", user or self.desk.user(), agent)
        return str(tool_messages(built.invoke({"messages": user_says(said)}, THREAD, context=context))[-1].status)


@pytest.fixture
def proven(tmp_path: Path) -> Iterator[Proven]:
    with web() as served:
        desk = ProvenDesk(served, tmp_path, WORKFLOW.split("step_up:")[0])
        yield Proven(desk)
        desk.gate.close()


def bound_to(key: Key, desk: ProvenDesk) -> str:
    return desk.agent(cnf={"jkt": key.thumbprint}).reveal()


def test_a_stolen_token_goes_on_with_no_thread_without_the_proof_of_its_key(proven: Proven) -> None:
    key = Key("agent")
    text, user = bound_to(key, proven.desk), proven.desk.user()
    assert proven.ask(OIDCToken(text, **proof_of(key, text)), user) == "success"
    assert proven.ask(OIDCToken(text), user, "go ahead") == "error"
    assert proven.ask(OIDCToken(text, **proof_of(key, text)), user) == "success"
    assert proven.ask(OIDCToken(text, **proof_of(Key("thief"), text)), user, "go ahead") == "error"
    assert len(proven.ran) == 2


def test_a_lost_group_or_claim_ends_the_thread(proven: Proven) -> None:
    assert proven.ask(proven.desk.agent()) == "success"
    assert proven.ask(proven.desk.agent(), proven.desk.user(groups=["sales"]), "go ahead") == "error"
    assert proven.ask(proven.desk.agent()) == "success"
    assert proven.ask(proven.desk.agent(app="shop"), said="go ahead") == "error"


def test_what_is_shown_is_the_same_only_if_all_of_it_is() -> None:
    proof = DPoP("a", "POST", "https://x.example")
    ways: list[Any] = [
        OIDCToken("t"),
        JWTSVID("t"),
        OIDCToken("u"),
        OIDCToken("t", proof=proof),
        OIDCToken("t", proof=DPoP("b", "POST", "https://x.example")),
        OIDCToken("t", proof=DPoP("a", "GET", "https://x.example")),
        OIDCToken("t", proof=proof, at_token_endpoint=True),
        OIDCToken("t", certificate="c"),
        OIDCToken("t", attestation="a"),
        OIDCToken("t", delegation=["a"]),
        OIDCToken("t", delegation=["a", "b"]),
        DESK,
    ]
    assert len({shown(("acme", LEE, each))[2] for each in ways if each is not DESK}) == len(ways) - 1
    assert shown(("acme", OIDCToken("t"), DESK)) == shown(("acme", OIDCToken("t"), Agent("desk")))
    assert shown(("acme", OIDCToken("t"), DESK))[1] != "t"


# --- an answer by the run's own user ------------------------------------------------------------------------------------------
def test_the_user_of_another_issuer_confirms_nothing() -> None:
    rule = StepUpRule.__new__(StepUpRule)
    object.__setattr__(rule, "id", "yes")
    object.__setattr__(rule, "user", True)
    lee = proven_user("lee", tenant="acme", issuer="https://a.example", subject="s1")
    agent = Agent("desk")
    assert check_approver(rule, lee, lee, agent, "acme") is None
    for other in (
        proven_user("lee", tenant="acme", issuer="https://b.example", subject="s1"),
        proven_user("lee", tenant="acme", issuer="https://a.example", subject="s2"),
    ):
        assert check_approver(rule, other, lee, agent, "acme") is not None


def test_a_proof_of_a_key_that_was_shown_before_and_is_too_old_goes_on_with_nothing(proven: Proven) -> None:
    key, user = Key("agent"), proven.desk.user()
    text = bound_to(key, proven.desk)
    agent = OIDCToken(text, **proof_of(key, text))
    assert proven.ask(agent, user) == "success"
    with time_machine.travel(time.time() + 90, tick=True):
        assert proven.ask(agent, user, "go ahead") == "error"
