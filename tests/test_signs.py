"""A channel with or without its `#`, a user with or without its `@`: one value, wherever it comes from and whatever is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from agentgate import Agent, Allow, Deny, Gate, Reason, User
from agentgate.gate.run import Run
from tests.workflows import workflow_text

WORKFLOW = workflow_text(
    "chat",
    risk="high",
    intents="{post: {asks_for: Post a message., words: [post, invite], examples: [Post it in the sales channel, Invite Kim]}}",
    tools="""
  find:
    effect: read
    needs: any
    redeem: wrapper
    args: {called: {type: channel, from: [model]}}
    facts: {name: {type: channel, path: '[].name', where: {name: called}}, owner: {type: user, path: '[].owner'}}
  post:
    effect: egress
    needs: [post]
    redeem: wrapper
    args: {channel: {type: channel, from: [prompt, find.name]}, to: {type: user, from: [prompt, find.owner], optional: true}}
  announce:
    effect: egress
    needs: [post]
    redeem: wrapper
    args: {channel: {type: channel, in: ["#general", ops], from: [model]}, like: {type: channel, pattern: "eng-.*", from: [model]}}
""",
)
NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)
SIGNS = ("", "#")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "chat.yaml").write_text(WORKFLOW)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", clock=lambda: NOW) as gate:
        yield gate


def opened(gate: Gate, prompt: str) -> Run:
    return gate.open_run("chat", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=prompt)


@pytest.mark.parametrize("prompt", ["Post it in #sales and invite @kim", "Post it in the sales channel and invite @kim"])
def test_what_the_user_names_is_named_in_either_form(gate: Gate, prompt: str) -> None:
    run = opened(gate, prompt)
    for number, (sign, at) in enumerate(product(SIGNS, ("", "@"))):
        assert isinstance(run.authorize("post", {"channel": f"{sign}sales", "to": f"{at}kim"}, tool_call_id=f"c{number}"), Allow)
        for other in ({"channel": f"{sign}random"}, {"channel": f"{sign}kim"}, {"channel": "#sales", "to": f"{at}eve"}):
            answer = run.authorize("post", other, tool_call_id=f"o{number}{len(other)}{other['channel']}")
            assert isinstance(answer, Deny)
            assert set(answer.reasons) == {Reason.ARGUMENT_ORIGIN}


@pytest.mark.parametrize("sign", SIGNS)
def test_what_the_user_denies_is_denied_in_either_form(gate: Gate, sign: str) -> None:
    run = opened(gate, "Post it in #ops, but not in #sales")
    assert isinstance(run.authorize("post", {"channel": f"{sign}ops"}, tool_call_id="a"), Allow)
    assert isinstance(run.authorize("post", {"channel": f"{sign}sales"}, tool_call_id="b"), Deny)


@pytest.mark.parametrize(("asked", "had", "sent"), list(product(SIGNS, repeat=3)))
def test_a_fact_is_the_same_in_either_form(gate: Gate, asked: str, had: str, sent: str) -> None:
    run = opened(gate, "Post it where we always do")
    looked = run.authorize("find", args := {"called": f"{asked}ops"}, tool_call_id="look")
    assert isinstance(looked, Allow)
    with run.redeem(looked.token, tool="find", args=args) as redeemed:
        redeemed.record_result([{"name": f"{had}ops", "owner": "@kim" if had else "kim"}, {"name": f"{had}evil", "owner": "eve"}])
    good = {"channel": f"{sent}ops", "to": "@kim" if sent else "kim"}
    assert isinstance(run.authorize("post", good, tool_call_id="a"), Allow)
    assert isinstance(run.authorize("post", {"channel": f"{sent}evil"}, tool_call_id="b"), Deny)
    assert isinstance(run.authorize("post", {**good, "to": "eve"}, tool_call_id="c"), Deny)  # the owner of the other row


@pytest.mark.parametrize("sign", SIGNS)
def test_an_operator_reads_the_name_without_its_sign(gate: Gate, sign: str) -> None:
    run = opened(gate, "Post it")
    for name in ("general", "ops"):
        assert isinstance(run.authorize("announce", {"channel": sign + name, "like": f"{sign}eng-web"}, tool_call_id=name), Allow)
    for channel, like in (("sales", "eng-web"), ("general", "xeng-web")):
        assert isinstance(run.authorize("announce", {"channel": sign + channel, "like": sign + like}, tool_call_id=channel + like), Deny)


@pytest.mark.parametrize("form", ["##ops", "@ops", "# ops", "\uff03ops", "#ops\n", "#", ""])
def test_another_form_is_refused(gate: Gate, form: str) -> None:
    answer = opened(gate, "Post it in #ops").authorize("post", {"channel": form}, tool_call_id="a")
    assert isinstance(answer, Deny)
    assert Reason.ARGUMENT_FORM in answer.reasons
