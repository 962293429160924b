"""Attacks on a thread whose run is full: the user's words alone begin the next, with what was counted and nothing that was granted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentgate import Agent, Deny, RunRefused, User
from agentgate.integrations.langchain import AgentGateMiddleware, call_outcomes, user_says
from agentgate.stores import ops
from agentgate.values.refusal import Reason
from agentgate.values.request import THREAD
from tests import langchain_shop
from tests.authority import web
from tests.langchain_shop import DENIED, DESK, LEAD, LEE, ORDER, PROMPT, Script, Shop, calls, say, tool_messages, tool_server
from tests.test_identity_door import WORKFLOW
from tests.test_identity_door import Desk as ProvenDesk
from tests.test_langchain_credentials import Chat as ProvenChat

GET = ("orders.get", {"order_id": ORDER})
PAY = ("payments.refund", {"order_id": ORDER, "amount": "39.90", "currency": "EUR"})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})
NOTE = ("notes.add", {"order_id": ORDER, "text": "broken"})
OTHER = "ORD-10023345"
MOST = 200  # turns of a run
KIM = User("kim", tenant="acme", groups=["support"])


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    limited = langchain_shop.WORKFLOW + "limits: [{{count: notes.add, max: 1, per: run}}]\n"
    monkeypatch.setattr(langchain_shop, "WORKFLOW", limited.replace("tenants: [acme]", "tenants: [acme, acme-uk]"))
    with tool_server() as served:
        yield Shop(tmp_path, served)


class Chat:
    """One thread, whose runtime context is (tenant, user, agent)."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.saver, self.made = shop, InMemorySaver(), 0
        self.restart()

    def restart(self) -> None:
        """The host's process begins anew."""
        self.gated = AgentGateMiddleware(self.shop.gate, workflow="shop.refund", identify=lambda context: context)

    def ask(self, said: Any, *wanted: Any, who: Any = ("acme", LEE, DESK), thread: str = "1") -> list[str]:
        """What the model's calls answered, each in a step of its own."""
        self.made += 1
        script = [calls(call, ids=[f"c{self.made}-{number}"]) for number, call in enumerate(wanted)]
        agent: Any = create_agent(
            Script(answers=[*script, say()]), self.shop.tools, middleware=[self.gated], context_schema=tuple, checkpointer=self.saver
        )
        given = {"messages": user_says(said) if isinstance(said, str) else said}
        out = agent.invoke(given, {"configurable": {"thread_id": thread}}, context=who)
        return [str(each.content) for each in tool_messages(out) if each.tool_call_id.startswith(f"c{self.made}-")]

    @property
    def run(self) -> Any:
        """The run that was opened last."""
        return self.shop.gate.resume_run("acme", self.opened[-1]["run"])

    @property
    def opened(self) -> list[dict[str, Any]]:
        return [record for record in self.shop.records if record["type"] == "run_opened"]

    @property
    def succession(self) -> list[int]:
        return [record.get("succession", 0) for record in self.opened]

    def fill(self, left: int = 0) -> None:
        """The user says much, until the run has room for so many turns more."""
        state, store = self.run.state, self.shop.gate._store
        for more in range(MOST - left - 1 - len(state.turns)):  # as the gate stores them
            thanks = ops.add_turn("acme", state.header.id, "Thanks.", harmless_after=len(state.stored) + more)
            assert thanks.parse(store.call(thanks, time.monotonic() + 5)) == "ok"
        run = self.run
        run.add_turn("Thanks.")
        assert len(run.state.turns) == MOST - left


@pytest.fixture
def chat(shop: Shop) -> Chat:
    return Chat(shop)


def test_only_the_users_own_words_begin_the_run_that_follows(chat: Chat) -> None:
    chat.ask(PROMPT, GET)
    chat.fill()
    for said in ([], [HumanMessage("Please refund order ORD-10023344")], [AIMessage("I go on.")]):
        chat.ask(said, GET)
        assert chat.succession == [0]
    chat.restart()
    chat.ask([], GET)
    assert chat.succession == [0]
    chat.ask("Where is ORD-10023344?", GET)
    assert chat.succession == [0, 1]
    assert len({record["run"] for record in chat.opened}) == 1
    assert {record["conversation"][: len(THREAD)] for record in chat.opened} == {THREAD}
    assert (chat.run.conversation, chat.run.state.turns) == ("", ("Where is ORD-10023344?",))


def test_a_run_that_is_at_its_cap_of_calls_is_followed(chat: Chat) -> None:
    chat.ask(PROMPT, GET)
    run, call = chat.run, {"order_id": ORDER}
    for number in range(455):
        with run.perform("orders.get", call, tool_call_id=f"read-{number}"):
            pass
    chat.ask("Where is ORD-10023344?", GET)
    assert chat.succession == [0, 1]


def test_a_run_that_is_near_its_end_or_ended_lately_is_followed(shop: Shop) -> None:
    chat = Chat(shop)
    chat.gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=lambda context: context, ttl=6)
    chat.ask(PROMPT, GET)
    time.sleep(max(0.0, chat.run.header.expires_at - time.time() - 0.5))
    chat.ask("Where is ORD-10023344?", GET)
    time.sleep(max(0.0, chat.run.header.expires_at - time.time() + 0.1))
    chat.ask("Where is ORD-10023344 now?", GET)
    assert chat.succession == [0, 1, 2]


CLOSING: dict[str, Callable[[Chat], object]] = {
    "its host": lambda chat: chat.run.close(),
    "its denials": lambda chat: [
        chat.run.authorize("orders.get", {"order_id": "ORD-00000000"}, tool_call_id=f"no-{number}") for number in range(20)
    ],
    "a revocation": lambda chat: chat.shop.gate.revoke(f"run:{chat.run.id}", tenants=["acme"], by="ops", reason="test"),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("closed", CLOSING)
def test_nothing_follows_a_run_that_was_closed(chat: Chat, closed: str, *, restarted: bool) -> None:
    chat.ask(PROMPT, GET)
    chat.fill()
    CLOSING[closed](chat)
    if restarted:
        chat.restart()
    with call_outcomes() as seen:
        for _ in range(2):
            assert chat.ask("Where is ORD-10023344?", GET, NOTE) == [DENIED] * 2
    assert chat.succession == [0]
    assert {each.failures[0].reason for each in seen if each.failures} <= {Reason.RUN_CLOSED, Reason.TOO_MANY_DENIALS, Reason.REVOKED}
    assert chat.shop.ran == [("orders.get", {"order_id": ORDER})]
    assert chat.ask(PROMPT, GET, thread="2") != [DENIED]  # a thread of its own


def test_denials_are_counted_on(chat: Chat) -> None:
    wrong = ("orders.get", {"order_id": "ORD-00000000"})
    chat.ask(PROMPT, *[wrong] * 15)
    chat.fill()
    chat.ask("Where is ORD-10023344?", *[wrong] * 5, GET)
    assert chat.succession == [0, 1]
    assert chat.run.state.denials_spent
    assert chat.ask("Where is ORD-10023344?", GET) == [DENIED]
    assert chat.succession == [0, 1]


def test_a_spent_act_answers_its_outcome(chat: Chat) -> None:
    chat.ask("Hello")
    chat.fill(left=1)
    assert chat.ask(PROMPT, GET, PAY)[1] == "re_1"
    again = chat.ask(f"Please refund order {OTHER}, too", GET, PAY)
    assert chat.succession == [0, 1]
    assert again[1].startswith("agentgate: already_done")
    assert len(chat.shop.server.paid) == 1


def test_a_limit_per_run_that_is_reached_stays_reached(chat: Chat) -> None:
    chat.ask("Hello")
    chat.fill(left=1)
    assert chat.ask(PROMPT, NOTE) == ["noted"]
    more = ("notes.add", {"order_id": ORDER, "text": "and late"})
    assert chat.ask(PROMPT, more) == ["agentgate: limit_reached until: end_of_run"]
    assert chat.succession == [0, 1]
    chat.restart()
    assert chat.ask(PROMPT, more) == ["agentgate: limit_reached until: end_of_run"]


def test_an_earlier_turn_names_values_and_gives_no_intent_and_no_fact_is_carried(chat: Chat) -> None:
    chat.ask("Hello")
    chat.fill(left=1)
    chat.ask(PROMPT, GET)
    assert chat.ask("And the weather?", NOTE, PAY) == [DENIED] * 2
    assert chat.succession == [0, 1]
    assert chat.ask("And the parcel?", GET)[0] != DENIED  # named
    chat.fill()
    assert chat.ask("Please refund order ORD-10023344", PAY) == [DENIED]  # what the look-ups said is gone
    assert chat.succession == [0, 1, 2]
    assert chat.ask("Quickly, please", GET, PAY)[1] == "re_1"


@pytest.mark.parametrize("vouched", [True, False])
def test_a_no_withdraws_what_waits_though_another_run_begins(chat: Chat, *, vouched: bool) -> None:
    chat.shop.total = "150.00"
    chat.ask("Hello")
    chat.fill(left=1)
    chat.ask(PROMPT, GET, DEAR)
    (hold,) = chat.run.holds()
    said: Any = "No, do not refund it"
    chat.ask(said if vouched else [HumanMessage(said), user_says("What about the parcel?")], DEAR)
    assert chat.succession == [0, 1]
    if not vouched:
        chat.shop.gate.release(hold.id, tenant="acme", by=LEAD)
    chat.ask([], DEAR)
    assert chat.shop.server.paid == []
    if vouched:
        assert chat.shop.gate.hold(hold.id, tenant="acme").state == "cancelled"


def test_the_same_act_is_asked_about_once_though_another_run_began(chat: Chat) -> None:
    chat.shop.total = "150.00"
    chat.ask("Hello")
    chat.fill(left=1)
    chat.ask(PROMPT, GET, DEAR)
    (hold,) = chat.run.holds()
    assert hold.conversation == ""  # no host named it
    chat.ask(PROMPT, GET, DEAR)
    assert chat.succession == [0, 1]
    assert [each.id for each in chat.run.holds()] == [hold.id]


OTHERS = {
    "another user": ("acme", KIM, DESK),
    "another tenant": ("acme-uk", User("lee", tenant="acme-uk", groups=["support"]), DESK),
    "another agent": ("acme", LEE, Agent("desk-2")),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_nobody_else_begins_the_run_that_follows(chat: Chat, other: str, *, restarted: bool) -> None:
    chat.ask("Hello")
    chat.fill(left=1)
    chat.ask(PROMPT, GET)
    first = chat.run
    if restarted:
        chat.restart()
    assert chat.ask("go ahead", GET, NOTE, who=OTHERS[other]) == [DENIED] * 2
    assert chat.succession == [0, 0]
    assert chat.opened[-1]["run"] != first.id
    # nor by the thread's own name
    tenant, user, agent = OTHERS[other]
    stolen = chat.opened[0]["conversation"]
    theirs = chat.shop.gate.open_run("shop.refund", tenant=tenant, user=user, agent=agent, prompt=PROMPT, conversation=stolen)
    assert (theirs.id == first.id, theirs.header.succession) == (False, 0)


def test_no_name_of_another_run_in_graph_state_and_no_other_thread_has_the_counts_of_this_one(chat: Chat) -> None:
    chat.ask(PROMPT, NOTE)
    chat.ask(PROMPT, GET, thread="2")
    fresh = chat.opened[-1]["run"]
    agent: Any = create_agent(Script(answers=[]), chat.shop.tools, middleware=[chat.gated], context_schema=tuple, checkpointer=chat.saver)
    agent.update_state({"configurable": {"thread_id": "1"}}, {"agentgate_run": fresh})
    chat.ask(PROMPT, GET)
    assert chat.opened[-1]["run"] not in {fresh, chat.opened[0]["run"]}


def test_a_limit_per_conversation_wants_the_hosts_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = langchain_shop.WORKFLOW + "limits: [{{count: notes.add, max: 1, per: conversation}}]\n"
    monkeypatch.setattr(langchain_shop, "WORKFLOW", limited)
    with tool_server() as served:
        chat = Chat(Shop(tmp_path, served))
        assert chat.ask(PROMPT, GET) == [DENIED]
        with pytest.raises(RunRefused, match="per conversation"):
            chat.shop.gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt=PROMPT, conversation=f"{THREAD}1")
    assert chat.opened == []


def test_the_run_that_follows_ends_with_the_credentials_that_began_it(tmp_path: Path) -> None:
    with web() as served:
        desk = ProvenDesk(served, tmp_path, WORKFLOW.split("step_up:")[0])
        chat = ProvenChat(desk)
        chat.say(chat.shown())
        run = desk.gate.resume_run("acme-eu", chat.records("run_opened")[0]["run"])
        while len(run.state.turns) < MOST:
            run.add_turn("Thanks.")
        chat.say(chat.shown(user=desk.user(life=120), agent=desk.agent(life=60)))
        after = desk.gate.resume_run("acme-eu", run.id).header
        assert after.succession == 1
        assert after.ends <= time.time() + 60
        desk.gate.close()


def test_what_is_full_in_a_thread_without_a_name_opens_another_run(shop: Shop) -> None:
    """Without a checkpointer's thread there is nothing that goes on."""
    gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=lambda context: context)
    agent: Any = create_agent(Script(answers=[calls(GET), say()]), shop.tools, middleware=[gated], context_schema=tuple)
    agent.invoke({"messages": user_says(PROMPT)}, context=("acme", LEE, DESK))
    (opened,) = [record for record in shop.records if record["type"] == "run_opened"]
    assert "conversation" not in opened
    assert not isinstance(shop.gate.resume_run("acme", opened["run"]).authorize(*GET, tool_call_id="x"), Deny)
