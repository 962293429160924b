"""A held call in a graph of one's own, where a resume runs the whole `ToolNode` again, and outside of any graph."""

from __future__ import annotations

import asyncio
import pickle
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentgate.decision.batch_answer import Together
from agentgate.errors import ConfigError, StepUpRequired
from agentgate.gate.gate import AsyncGate
from agentgate.gate.run import Run
from agentgate.integrations.langchain import AgentGateMiddleware, guard_tools, use_run, user_says
from agentgate.integrations.langchain.task import MAX_KEPT, in_task
from agentgate.values.request import User
from tests.langchain_shop import (
    DESK,
    ISSUER,
    LEAD,
    LEE,
    ORDER,
    PROMPT,
    REFUSED,
    Script,
    Shop,
    calls,
    identify,
    say,
    tool_messages,
    tool_server,
    vouched,
)

GET = ("orders.get", {"order_id": ORDER})
NOTE = ("notes.add", {"order_id": ORDER, "text": "broken"})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})
IN_THREAD = {"configurable": {"thread_id": "1"}}


class Desk(Shop):
    """A shop whose notes are numbered, and slow if awaited."""

    @property
    def note(self) -> BaseTool:
        """Adds a note."""

        async def slow(order_id: str, text: str, times: int = 1) -> dict[str, Any]:
            await asyncio.sleep(0.05)
            self.ran.append(("notes.add", {"order_id": order_id, "text": text, "times": times}))
            return {"note_id": f"N-{len(self.ran_names())}"}

        def add(order_id: str, text: str, times: int = 1) -> dict[str, Any]:
            return asyncio.run(slow(order_id, text, times))

        made: BaseTool = self.tool("notes.add").model_copy(update={"func": add, "coroutine": slow})
        return made

    def guarded(self, run: Any) -> list[BaseTool]:
        """All tools, for this run."""
        return guard_tools([self.tool("orders.get"), self.note, self.tool("payments.refund")], run=run)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    import tests.langchain_shop as of

    times = '      times: {{min: "1", max: "3", from: [model], optional: true}}\n'
    monkeypatch.setattr(of, "WORKFLOW", of.WORKFLOW.replace(times, times + "    facts: {{note_id: {{type: id}}}}\n"))
    with tool_server() as served:
        yield Desk(tmp_path, served, total="150.00")


def graph_of(tools: list[BaseTool], saver: InMemorySaver) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "tools")
    return graph.compile(checkpointer=saver)


def asking(*wanted: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"messages": [HumanMessage(PROMPT), calls(*wanted)]}


def held(out: dict[str, Any]) -> str:
    (interrupt,) = out["__interrupt__"]
    found: str = interrupt.value["hold"]
    return found


def read_first(desk: Desk, run: Run) -> None:
    """The order is read once, so that its facts are origins."""
    with run.redeem(run.authorize("orders.get", GET[1], tool_call_id="before").token, tool="orders.get", args=GET[1]) as call:  # type: ignore[union-attr]
        call.record_result({"total": "150.00", "currency": "EUR"})


def test_a_finished_sibling_is_not_run_again_and_its_result_is_still_there(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    built = graph_of(desk.guarded(run), InMemorySaver())
    out = built.invoke(asking(GET, NOTE, DEAR), IN_THREAD)
    assert sorted(desk.ran_names()) == ["notes.add", "orders.get"]
    desk.gate.release(held(out), tenant="acme", by=LEAD)
    out = built.invoke(Command(resume="approved"), IN_THREAD)
    assert sorted(desk.ran_names()) == ["notes.add", "orders.get", "payments.refund"]
    got, noted, paid = (m.content for m in tool_messages(out))
    assert '"total": "150.00"' in got
    assert str(noted).startswith('{"note_id": "N-')
    assert paid == "re_1"


async def test_an_awaited_sibling_is_not_lost_when_another_call_is_held(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    built = graph_of(desk.guarded(run), InMemorySaver())
    out = await built.ainvoke(asking(DEAR, NOTE, GET), IN_THREAD)
    assert sorted(desk.ran_names()) == ["notes.add", "orders.get"]
    assert [r["outcome"] for r in desk.records if r["type"] == "outcome"] == ["done"] * 3
    desk.gate.release(held(out), tenant="acme", by=LEAD)
    out = await built.ainvoke(Command(resume="approved"), IN_THREAD)
    assert sorted(desk.ran_names()) == ["notes.add", "orders.get", "payments.refund"]
    assert tool_messages(out)[0].content == "re_1"
    assert str(tool_messages(out)[1].content).startswith('{"note_id": "N-')


async def test_two_awaited_held_calls_are_both_open_before_the_graph_is_interrupted(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    built = graph_of(desk.guarded(run), InMemorySaver())
    out = await built.ainvoke(asking(DEAR, NOTE, DEAR), IN_THREAD)
    assert {h.tool_call_id for h in desk.gate.holds("acme")} == {"payments.refund-0", "payments.refund-2"}
    asked = Together.of(desk.gate.holds("acme", run=run.id))
    desk.gate.answer({hold.id: "release" for hold in asked.holds}, tenant="acme", by=LEAD)
    out = await built.ainvoke(Command(resume="approved"), IN_THREAD)
    assert {m.content for m in tool_messages(out)} > {"re_1", "re_2"}
    assert desk.ran_names().count("notes.add") == 1


def test_in_another_process_an_act_answers_its_facts_and_a_read_runs_again(desk: Desk) -> None:
    saver, run = InMemorySaver(), desk.run()
    read_first(desk, run)
    out = graph_of(desk.guarded(run), saver).invoke(asking(GET, NOTE, DEAR), IN_THREAD)
    desk.gate.release(held(out), tenant="acme", by=LEAD)
    elsewhere = desk.gate.resume_run("acme", run.id)
    out = graph_of(desk.guarded(elsewhere), saver).invoke(Command(resume="approved"), IN_THREAD)
    assert sorted(desk.ran_names()) == ["notes.add", "orders.get", "orders.get", "payments.refund"]
    got, noted, paid = tool_messages(out)
    assert '"total": "150.00"' in got.content
    assert (noted.status, noted.content[:38]) == ("success", 'agentgate: already_done {"note_id":"N-')
    assert paid.content == "re_1"


def test_a_refused_hold_leaves_the_siblings_results(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    built = graph_of(desk.guarded(run), InMemorySaver())
    out = built.invoke(asking(NOTE, DEAR), IN_THREAD)
    desk.gate.refuse(held(out), tenant="acme", by=LEAD)
    out = built.invoke(Command(resume="approved"), IN_THREAD)
    noted, paid = (m.content for m in tool_messages(out))
    assert str(noted).startswith('{"note_id": "N-')
    assert paid == REFUSED
    assert desk.ran_names() == ["notes.add"]


def test_a_kept_result_answers_only_the_same_call_of_the_same_task(desk: Desk) -> None:
    graph: Any = StateGraph(MessagesState)
    run = desk.run()
    tools = desk.guarded(run)
    again = AIMessage("", tool_calls=calls(GET).tool_calls, id="again")
    graph.add_node("tools", ToolNode(tools))
    graph.add_node("ask", lambda _: {"messages": [again]})
    graph.add_node("more", ToolNode(tools))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", "ask")
    graph.add_edge("ask", "more")
    graph.compile().invoke(asking(GET))
    assert desk.ran_names() == ["orders.get"] * 2  # a new step of the graph asks again, under the same id


async def test_a_call_held_inside_another_tool_does_not_wait_for_that_tool(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    inner = {each.name: each for each in desk.guarded(run)}

    @tool("delegate")
    async def delegate(task: str, runtime: ToolRuntime) -> Any:
        """Pay, from inside."""
        wanted = {"name": "payments.refund", "args": DEAR[1], "id": f"inner {task}", "type": "tool_call"}
        return (await inner["payments.refund"].ainvoke(wanted, runtime.config)).content

    built = graph_of([*guard_tools([delegate], run=run), inner["notes.add"]], InMemorySaver())
    out = await asyncio.wait_for(built.ainvoke(asking(("delegate", {"task": "x"}), NOTE), IN_THREAD), 20)
    assert desk.ran_names() == ["notes.add"]
    desk.gate.release(held(out), tenant="acme", by=LEAD)
    out = await asyncio.wait_for(built.ainvoke(Command(resume=1), IN_THREAD), 20)
    assert tool_messages(out)[0].content == "re_1"
    assert desk.ran_names() == ["notes.add", "payments.refund"]


async def test_an_awaited_sibling_is_not_lost_when_an_agent_inside_another_tool_is_interrupted(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    _, note, refund = desk.guarded(run)
    inner: Any = create_agent(Script(answers=[calls(DEAR), say("paid")]), [refund])

    @tool("delegate")
    async def delegate(task: str) -> str:
        """Ask another agent."""
        return str((await inner.ainvoke({"messages": task}))["messages"][-1].content)

    built = graph_of([*guard_tools([delegate], run=run), note], InMemorySaver())
    out = await built.ainvoke(asking(("delegate", {"task": "x"}), NOTE), IN_THREAD)
    assert desk.ran_names() == ["notes.add"]
    desk.gate.release(held(out), tenant="acme", by=LEAD)
    out = await built.ainvoke(Command(resume=1), IN_THREAD)
    assert tool_messages(out)[0].content == "paid"
    assert desk.ran_names() == ["notes.add", "payments.refund"]


async def test_an_awaited_gate_too_holds_a_call_when_its_siblings_are_done(desk: Desk) -> None:
    async with await AsyncGate.open_unsafe_unapproved(desk.directory, issuer=ISSUER, audit="memory://") as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt=PROMPT)
        get, note, refund = desk.guarded(run)
        await get.ainvoke(GET[1])
        built = graph_of([note, refund], InMemorySaver())
        out = await built.ainvoke(asking(DEAR, NOTE), IN_THREAD)
        assert desk.ran_names() == ["orders.get", "notes.add"]
        await gate.refuse(held(out), tenant="acme", by=LEAD)
        out = await built.ainvoke(Command(resume=1), IN_THREAD)
        assert [m.status for m in tool_messages(out)] == ["error", "success"]
        assert desk.ran_names() == ["orders.get", "notes.add"]


def test_a_subagents_held_call_interrupts_the_agent_above(desk: Desk) -> None:
    gated = AgentGateMiddleware(desk.gate, workflow="shop.refund", identify=identify)
    inner: Any = create_agent(Script(answers=[calls(GET), calls(DEAR), say("paid")]), desk.tools, middleware=[gated], context_schema=User)

    @tool("delegate")
    def delegate(task: str) -> str:
        """Ask another agent."""
        return str(inner.invoke({"messages": task}, context=LEE)["messages"][-1].content)

    outer: Any = create_agent(
        Script(answers=[calls(("delegate", {"task": "pay"})), say()]),
        [delegate],
        middleware=[AgentGateMiddleware(desk.gate, workflow="shop.refund", identify=identify)],
        context_schema=User,
        checkpointer=InMemorySaver(),
    )
    out = outer.invoke({"messages": vouched(PROMPT)}, IN_THREAD, context=LEE)
    desk.gate.release(held(out), tenant="acme", by=LEAD)
    out = outer.invoke(Command(resume=1), IN_THREAD, context=LEE)
    assert tool_messages(out)[0].content == "paid"
    assert desk.server.paid == [DEAR[1]]


def test_no_more_than_so_many_results_of_a_run_are_kept(desk: Desk) -> None:
    run, config = desk.run(), {"configurable": {"__pregel_task_id": "t"}}
    for n in range(MAX_KEPT + 1):
        with in_task(run, config, f"c{n}") as call:
            call.keep("orders.get", b"{}", n)
    for n, kept in ((0, (False, None)), (1, (True, 1)), (MAX_KEPT, (True, MAX_KEPT))):
        with in_task(run, config, f"c{n}") as call:
            assert call.kept("orders.get", b"{}") == kept
            assert call.kept("orders.get", b'{"a":1}') == call.kept("notes.add", b"{}") == (False, None)
    with in_task(desk.run(), config, "c1") as call:
        assert call.kept("orders.get", b"{}") == (False, None)
    with in_task(run, {"configurable": {"__pregel_task_id": "u"}}, "c1") as call:
        assert call.kept("orders.get", b"{}") == (False, None)


def test_the_lines_of_the_page_hold_release_and_resume(desk: Desk) -> None:
    page = (Path(__file__).parent.parent / "docs/langchain.md").read_text()
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "__interrupt__" in each)
    gated = AgentGateMiddleware(desk.gate, workflow="shop.refund", identify=identify)
    script = Script(answers=[calls(GET), calls(DEAR, DEAR), say()])
    agent: Any = create_agent(script, desk.tools, middleware=[gated], context_schema=User, checkpointer=InMemorySaver())
    names: dict[str, Any] = {
        "agent": agent,
        "thread": IN_THREAD,
        "context": LEE,
        "gate": desk.gate,
        "lead": LEAD,
        "Command": Command,
        "user_says": user_says,
    }
    exec(block, names)  # noqa: S102 - the page is ours
    assert {m.content for m in tool_messages(names["out"])[-2:]} == {"re_1", "re_2"}


def agent_of(desk: Desk, *answers: AIMessage) -> Any:
    gated = AgentGateMiddleware(desk.gate, workflow="shop.refund", identify=identify)
    script = Script(answers=[calls(GET), *answers, say()])
    return create_agent(script, desk.tools, middleware=[gated], context_schema=User, checkpointer=InMemorySaver())


def plain_agent_of(desk: Desk, *answers: AIMessage) -> Any:
    """Guarded tools, and no middleware."""
    script = Script(answers=[calls(GET), *answers, say()])
    return create_agent(script, desk.guarded(desk.run()), context_schema=User, checkpointer=InMemorySaver())


def node_of(desk: Desk, *_: AIMessage) -> Any:
    """A `ToolNode` of one's own, which handles every error: all calls are one task."""
    run = desk.run()
    read_first(desk, run)
    graph: Any = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(desk.guarded(run), handle_tool_errors=True))
    graph.add_edge(START, "tools")
    return graph.compile(checkpointer=InMemorySaver())


AGENTS = {"the middleware": agent_of, "guarded tools": plain_agent_of, "a node": node_of}


def given_to(built: str, made: AIMessage) -> dict[str, Any]:
    return {"messages": [HumanMessage(PROMPT), made] if built == "a node" else vouched(PROMPT)}


async def invoked(agent: Any, given: Any, *, awaited: bool) -> Any:
    return await agent.ainvoke(given, IN_THREAD, context=LEE) if awaited else agent.invoke(given, IN_THREAD, context=LEE)


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
@pytest.mark.parametrize("built", AGENTS)
async def test_held_calls_of_one_step_are_one_interrupt_and_each_has_its_own_answer(desk: Desk, built: str, *, awaited: bool) -> None:
    """Of the calls beside one that the user wants, one may be an attacker's: a yes to the first is none to the second."""
    made = calls(DEAR, NOTE, DEAR, DEAR)
    agent = AGENTS[built](desk, made)
    out = await invoked(agent, given_to(built, made), awaited=awaited)
    (asked,) = out["__interrupt__"]
    assert asked.value["type"] == "agentgate.questions"
    first, second, third = questions = asked.value["questions"]
    question = Together.of(desk.gate.holds("acme", run=asked.value["run"]))
    assert [hold.id for hold in question.holds] == [each["hold"] for each in questions]
    assert all(each["text"] in str(question) for each in questions)
    desk.gate.release(second["hold"], tenant="acme", by=LEAD)
    out = await invoked(agent, Command(resume={second["hold"]: "release"}), awaited=awaited)
    assert desk.ran_names().count("payments.refund") == 1
    (asked,) = out["__interrupt__"]
    assert [each["hold"] for each in asked.value["questions"]] == [first["hold"], third["hold"]]
    answers: Any = {first["hold"]: "refuse", third["hold"]: "release"}
    desk.gate.answer(answers, tenant="acme", by=LEAD)
    out = await invoked(agent, Command(resume=answers), awaited=awaited)
    assert "__interrupt__" not in out
    assert desk.ran_names().count("payments.refund") == 2
    assert desk.ran_names().count("notes.add") == 1
    assert [m.content for m in tool_messages(out)].count(REFUSED) == 1


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
@pytest.mark.parametrize("built", AGENTS)
async def test_one_yes_for_several_calls_is_refused_and_answers_none(desk: Desk, built: str, *, awaited: bool) -> None:
    made = calls(DEAR, DEAR)
    agent = AGENTS[built](desk, made)
    out = await invoked(agent, given_to(built, made), awaited=awaited)
    (asked,) = out["__interrupt__"]
    both = [each["hold"] for each in asked.value["questions"]]
    for resumed in ("yes", True, ["release", "release"], {"x": "yes"}, {"x": ["release"]}):
        with pytest.raises(ConfigError, match="a mapping from the id of each hold to its own answer") as refused:
            await invoked(agent, Command(resume=resumed), awaited=awaited)
        assert all(hold in str(refused.value) for hold in both)
    assert {desk.gate.hold(hold, tenant="acme").state for hold in both} == {"pending"}
    answers: Any = {both[0]: "release", both[1]: "refuse"}
    desk.gate.answer(answers, tenant="acme", by=LEAD)
    out = await invoked(agent, Command(resume=answers), awaited=awaited)
    assert "__interrupt__" not in out
    assert desk.ran_names().count("payments.refund") == 1


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
async def test_ten_calls_are_asked_about_at_once_and_the_rest_after_them(desk: Desk, *, awaited: bool) -> None:
    agent = agent_of(desk, calls(*[DEAR] * 12))
    out = await invoked(agent, {"messages": vouched(PROMPT)}, awaited=awaited)
    seen = []
    while "__interrupt__" in out:
        (asked,) = out["__interrupt__"]
        seen.append({each["hold"] for each in asked.value["questions"]})
        answers: Any = dict.fromkeys(seen[-1], "refuse")
        desk.gate.answer(answers, tenant="acme", by=LEAD)
        out = await invoked(agent, Command(resume=answers), awaited=awaited)
    assert sum(map(len, seen)) == len(set[str]().union(*seen)) == 12
    if awaited:  # else LangGraph has a thread for some of them only
        assert [len(each) for each in seen] == [10, 2]


def test_calls_that_are_answered_one_by_one_are_each_asked_about_until_then(desk: Desk) -> None:
    """More of them than LangGraph has threads for."""
    agent = agent_of(desk, calls(*[DEAR] * 12))
    out = agent.invoke({"messages": vouched(PROMPT)}, IN_THREAD, context=LEE)
    for answered in range(12):
        (asked,) = out["__interrupt__"]
        one, *_ = asked.value.get("questions", [asked.value])
        assert len(agent.get_state(IN_THREAD).interrupts) == 1, answered
        desk.gate.refuse(one["hold"], tenant="acme", by=LEAD)
        out = agent.invoke(Command(resume={one["hold"]: "refuse"}), IN_THREAD, context=LEE)
    assert "__interrupt__" not in out


def test_where_calls_run_one_after_the_other_each_is_asked_about_in_its_turn(desk: Desk) -> None:
    agent = agent_of(desk, calls(DEAR, NOTE, DEAR))
    thread = IN_THREAD | {"max_concurrency": 1}
    out = agent.invoke({"messages": vouched(PROMPT)}, thread, context=LEE)
    for paid in (1, 2):
        (asked,) = out["__interrupt__"]
        desk.gate.release(asked.value["hold"], tenant="acme", by=LEAD)
        out = agent.invoke(Command(resume={asked.value["hold"]: "release"}), thread, context=LEE)
        assert desk.ran_names().count("payments.refund") == paid
    assert "__interrupt__" not in out


def test_another_process_asks_again_for_what_is_left_in_one_interrupt(desk: Desk) -> None:
    saver, run = InMemorySaver(), desk.run()
    read_first(desk, run)
    out = graph_of(desk.guarded(run), saver).invoke(asking(DEAR, NOTE, DEAR), IN_THREAD)
    one, _ = (each["hold"] for each in out["__interrupt__"][0].value["questions"])
    elsewhere = graph_of(desk.guarded(desk.gate.resume_run("acme", run.id)), saver)
    with pytest.raises(ConfigError, match="to its own answer"):
        elsewhere.invoke(Command(resume="yes"), IN_THREAD)
    out = elsewhere.invoke(Command(resume={one: "release"}), IN_THREAD)  # which nobody did
    assert len(out["__interrupt__"][0].value["questions"]) == 2
    assert "payments.refund" not in desk.ran_names()


async def test_a_blocking_call_in_a_loop_waits_for_nothing_that_needs_the_loop(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    inner = {each.name: each for each in desk.guarded(run)}

    @tool("delegate")
    async def delegate(task: str, runtime: ToolRuntime) -> Any:
        """Pay, and hold the loop meanwhile."""
        await asyncio.sleep(0.01)  # the note has begun
        wanted = {"name": "payments.refund", "args": DEAR[1], "id": f"inner {task}", "type": "tool_call"}
        return inner["payments.refund"].invoke(wanted, runtime.config).content

    built = graph_of([delegate, inner["notes.add"]], InMemorySaver())
    out = await asyncio.wait_for(built.ainvoke(asking(("delegate", {"task": "x"}), NOTE), IN_THREAD), 20)
    desk.gate.release(held(out), tenant="acme", by=LEAD)
    out = await asyncio.wait_for(built.ainvoke(Command(resume=1), IN_THREAD), 20)
    assert tool_messages(out)[0].content == "re_1"


async def test_a_held_call_appears_in_a_stream(desk: Desk) -> None:
    gated = AgentGateMiddleware(desk.gate, workflow="shop.refund", identify=identify)
    script = Script(answers=[calls(GET), calls(DEAR), say()])
    agent: Any = create_agent(script, desk.tools, middleware=[gated], context_schema=User, checkpointer=InMemorySaver())
    updates = [each async for each in agent.astream({"messages": vouched(PROMPT)}, IN_THREAD, context=LEE, stream_mode="updates")]
    (asked,) = updates[-1]["__interrupt__"]
    desk.gate.release(asked.value["hold"], tenant="acme", by=LEAD)
    updates = [each async for each in agent.astream(Command(resume=1), IN_THREAD, context=LEE, stream_mode="updates")]
    assert updates[0]["tools"]["messages"][0].content == "re_1"


# --- without a graph --------------------------------------------------------------------------------------------------------
def test_outside_a_graph_the_error_says_what_the_interrupt_says_and_waits(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    refund = desk.guarded(run)[2]
    call = {"name": refund.name, "args": DEAR[1], "id": "c1", "type": "tool_call"}
    with pytest.raises(StepUpRequired) as required:
        refund.invoke(call)
    asks = required.value.asks
    amounts = [each["value"] for each in asks["question"]["arguments"] if each["name"] == "amount"]
    assert (asks["hold"], asks["whom"], amounts, asks["tenant"]) == (required.value.hold_id, "1 of leads", ["150.00"], "acme")
    assert required.value.wait(timeout=0.05).state == "pending"
    answer = threading.Timer(0.1, lambda: desk.gate.release(asks["hold"], tenant=asks["tenant"], by=LEAD))
    answer.start()
    assert required.value.wait(timeout=10).state == "released"
    answer.join()
    assert refund.invoke(call).content == "re_1"


async def test_outside_a_graph_an_awaited_call_waits_too(desk: Desk) -> None:
    async with await AsyncGate.open_unsafe_unapproved(desk.directory, issuer=ISSUER, audit="memory://") as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt=PROMPT)
        get, _, refund = desk.guarded(run)
        await get.ainvoke(GET[1])
        with pytest.raises(StepUpRequired) as required:
            await refund.ainvoke(DEAR[1])
        await gate.refuse(required.value.hold_id, tenant="acme", by=LEAD)
        assert (await required.value.wait()).state == "refused"


def test_the_error_can_be_sent_on_but_then_waits_for_nothing(desk: Desk) -> None:
    run = desk.run()
    read_first(desk, run)
    with pytest.raises(StepUpRequired) as required:
        desk.guarded(run)[2].invoke(DEAR[1])
    sent = pickle.loads(pickle.dumps(required.value))  # noqa: S301 - our own
    assert (sent.hold_id, sent.asks, str(sent)) == (required.value.hold_id, required.value.asks, "agentgate: needs_approval")
    with pytest.raises(ConfigError, match="an error without its run"):
        sent.wait()


# --- a ToolNode that handles every error ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("handles", [True, Exception, (Exception,), lambda error: f"handled {type(error).__name__}"])
@pytest.mark.parametrize("wrapped", ["the middleware", "a wrapper of the host's", "nothing"])
async def test_a_tool_node_that_handles_every_error_does_not_swallow_a_held_call(desk: Desk, handles: Any, wrapped: str) -> None:
    run = desk.run()
    read_first(desk, run)
    gated = AgentGateMiddleware(desk.gate, workflow="shop.refund", identify=identify)
    wrappers: dict[str, Any] = {
        "the middleware": {"wrap_tool_call": gated.wrap_tool_call, "awrap_tool_call": gated.awrap_tool_call},
        "a wrapper of the host's": {
            "wrap_tool_call": lambda request, run: run(request),
            "awrap_tool_call": lambda request, run: run(request),
        },
        "nothing": {},
    }
    for awaited in (False, True):
        tools = desk.tools if wrapped == "the middleware" else desk.guarded(run)
        graph: Any = StateGraph(MessagesState, context_schema=User)
        graph.add_node("tools", ToolNode(tools, handle_tool_errors=handles, **wrappers[wrapped]))
        graph.add_edge(START, "tools")
        built = graph.compile(checkpointer=InMemorySaver())
        dear = calls(DEAR, ids=[f"dear-{awaited}"])
        asked = {"messages": [HumanMessage(PROMPT), dear]}
        with use_run(run):
            out = await built.ainvoke(asked, IN_THREAD, context=LEE) if awaited else built.invoke(asked, IN_THREAD, context=LEE)
            desk.gate.release(held(out), tenant="acme", by=LEAD)
            again: Any = Command(resume=True)
            out = await built.ainvoke(again, IN_THREAD, context=LEE) if awaited else built.invoke(again, IN_THREAD, context=LEE)
        assert tool_messages(out)[-1].content == f"re_{1 + awaited}"
