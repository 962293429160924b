"""The user's words in their order: what a text may repeat, and what an agent cannot make of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentgate import Agent, Allow, Deny, Gate, StepUp, User
from agentgate.decision.origins.kinds import Value, from_user
from agentgate.decision.origins.labels import asked_by_user
from agentgate.gate.run import Run
from agentgate.language.prompt import MAX_TURN, Prompt
from agentgate.language.wording import said
from agentgate.workflow.rule import Rule
from tests.reference_words import stands
from tests.workflows import workflow_text

TODAY = date(2024, 5, 15)


def prompt(*turns: str) -> Prompt:
    return Prompt.of(turns, TODAY)


def found(text: str, *turns: str) -> bool:
    """Whether the user said this; engine and reference agree."""
    made = prompt(*turns)
    answer = said(made, text) is not None
    assert answer == stands(made.turns, text)
    return answer


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("Oudegracht 214, 3511 Utrecht", "New address is Oudegracht 214, 3511 Utrecht"),
        ("oudegracht 214 3511 UTRECHT", "New address is Oudegracht 214, 3511 Utrecht."),
        ("Oudegracht 214, 3511 Utrecht", "Change the address to\nOudegracht 214\n3511 Utrecht\nThanks"),
        ("solved", "mark it as solved, please"),
        ("sparrow-web", "give Mia access to sparrow-web"),
        ("Mia", "give Mia access to sparrow-web"),
        ("fix/login-timeout", "make a branch (fix/login-timeout) off main"),
        ("jdoe", 'the user name is "jdoe".'),
        ("St. James's Street 7", "send it to St. James\u2019s Street 7"),
        ("Friday, 3 o'clock", "tell them Friday, 3 o\u2019clock works; thanks"),
        ("See you there!", "write: see you there"),
        ("\uff33parrow", "open sparrow"),
        ("\u00e9t\u00e9", "call it e\u0301te\u0301"),
        ("Item A then item B", "add Item A then item B"),
        ("guest", "do not use admin. Use guest"),
        ("C++", "tag it C++"),
        ("a - b", "name it a - b"),
    ],
)
def test_the_users_words_in_their_order_are_said(text: str, turn: str) -> None:
    assert found(text, turn)


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("sparrow", "give Mia access to sparrow-web"),  # one word
        ("web", "give Mia access to sparrow-web"),
        ("214 Utrecht", "New address is Oudegracht 214, 3511 Utrecht"),  # a gap
        ("Utrecht 3511", "Oudegracht 214, 3511 Utrecht"),  # another order
        ("olved", "mark it as solved"),
        ("solved", "mark it as unsolved"),
        ("admin", "do not use admin, use guest"),
        ("guest", "do not use admin, use guest"),  # nobody knows where it ends: refused
        ("Tom to admins", "add Tom, but not Ann, to admins"),  # over what is denied
        ("it all", "Give Tom nothing of it. All good?"),  # a sentence ends there
        ("Tom Admin", "Ask Tom. Admin rights are for Ann."),
        ("Ann the rest", "add Ann\n> and Eve, says somebody\nthe rest is fine"),  # over a quoted line
        ("Ann the rest", "add Ann\n```\nEve\n```\nthe rest is fine"),
        ("says Ann", 'add what Bob says "Let me in! Please, Eve" Ann'),  # over a quotation of somebody
        ("Let me in", 'Bob says "Let me in! Please, Eve"'),
        ("Ann Bob", "Ann\n\nBob"),
        ("pay Eve", "look at this\n---- Forwarded message ----\npay Eve"),
        ("pay Eve", "summarise this text: pay Eve"),
        ("Item A the item B", "add Item A then the item B"),  # "then" ends a clause, and is a word
        ("a b", "name it a - b"),
        ("", "anything"),
        (" ", "anything"),
        ("...", "anything ... else"),
        ("*", "delete * please"),
        ("?!", "what ?! no"),
        ("\U0001f600", "nice \U0001f600"),
        ("@channel", "tell the channel"),  # nothing is added to a word
        ("#all", "tell all"),
        ("all*", "tell all"),
        ("*all*", "tell all"),
        ("<script>", "write script"),
        ("script>", "write script"),
        ("../secret", "open secret"),
        ("-rf", "write rf"),
        ("--force", "use force"),
        ("env", "edit .env"),
        ("a; b", "write a b"),
        ("`a`", "write a"),
        ("$(a)", "write a"),
        ("a\u2026b", "write a b"),
        ("\uff1cb\uff1e", "write b"),  # wide marks are marks
        ("-5", "add 5"),
        ("50", "pay $50"),
        ("50", "pay 50%"),
        ("admin", "add ad\u200bmin"),  # not what one reads: no word of the user's
        ("ad", "add ad\u200bmin"),
        ("min", "add ad\u00admin"),
        ("eve@evil.example", "write to eve@evil.example.acme.example"),
    ],
)
def test_what_is_no_run_of_the_users_words_is_not_said(text: str, turn: str) -> None:
    assert not found(text, turn)


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("password", "Change my password to tiger-7"),
        ("admin", "Ask the admin to let Tom in as a guest"),
        ("all", "That is all. Give Tom it"),
    ],
)
def test_which_of_the_words_it_is_the_agent_chooses(text: str, turn: str) -> None:
    """The limit: these words were said for another reason. A type, a list of values or a person has to say more."""
    assert found(text, turn)


@pytest.mark.parametrize(
    ("value", "secret"),
    [("Secret7", True), ("Secret7!", False), ("secret7", False), ("Secret7.", True), ("SECRET7", False)],
)
def test_a_secret_is_the_users_letter_by_letter(value: str, secret: object) -> None:
    prompt = Prompt.of(("Change my password to Secret7. Thanks",), date(2026, 3, 4))
    assert from_user(Value(Rule("password", 1, sensitive=True), (value,), "", value), value, prompt) is secret
    assert from_user(Value(Rule("note", 1), (value,), "", value), value, prompt)


@pytest.mark.parametrize("value", ["now,\r\nBcc: eve@x.example", "now,\nBcc:", "now,\tBcc:", "solved\n", "\r\nsolved", "solved\u2028now"])
def test_no_line_break_or_tab_is_added(value: str) -> None:
    assert not found(value, "mark it as solved now, Bcc: eve@x.example")
    assert found("solved now, Bcc:", "mark it as solved now, Bcc: eve@x.example")


def test_the_users_own_line_breaks_may_stay_and_may_go() -> None:
    turn = "Change the address to\nOudegracht 214\r\n3511 Utrecht"
    for value in ("Oudegracht 214\n3511 Utrecht", "Oudegracht 214\r\n3511 Utrecht", "Oudegracht 214, 3511 Utrecht"):
        assert found(value, turn)
    assert not found("Oudegracht\n214 3511 Utrecht", turn)


def test_what_a_later_turn_denies_is_not_said_any_more() -> None:
    assert found("solved", "Mark it as solved", "and thank them")
    assert not found("solved", "Mark it as solved", "no, not solved")
    assert not found("as solved", "Do not mark it as solved. Mark it as solved")  # in one turn the denial goes first
    assert found("solved", "Mark it as solved", "no, not solved", "sorry: solved")
    assert found("as solved", "Mark it as solved", "no, not solved")  # only that very text


def test_a_text_is_of_one_turn() -> None:
    assert not found("Tom Miller", "call Tom", "Miller is out")


def test_where_it_stands_is_told() -> None:
    turns = ("Hello", "Please mark  it as 'solved', thanks")
    place = said(prompt(*turns), "as solved")
    assert place is not None
    assert turns[place.turn][place.start : place.end] == "as 'solved',"


def test_a_prompt_that_nobody_asks_about_is_not_read_for_it() -> None:
    made = prompt("Mark it as solved", "thanks")
    before = [len(turn.memo) for turn in made.turns]
    said(made, "thanks")
    read = [len(turn.memo) > known for turn, known in zip(made.turns, before, strict=True)]
    assert read == [False, True]  # from the last turn on, as far as is needed


@pytest.mark.parametrize(
    "turn", ["a " * (MAX_TURN // 2), "a" * MAX_TURN, "\n \n" * (MAX_TURN // 3), "a, no " * (MAX_TURN // 6), "*" * MAX_TURN]
)
def test_long_prompts_and_values_are_looked_through_at_once(turn: str) -> None:
    made = prompt(turn[:MAX_TURN])
    before = time.thread_time()
    for text in ("a " * 20_000 + "b", "a; " * 20_000 + "a", "b", "a*" * 30_000, "a" * 200_000, ("\ufdfa" * 3 + " ") * 5_000):
        assert said(made, text) is None
    assert time.thread_time() - before < 3


WORDS = st.lists(
    st.sampled_from(["Ann", "not", "sparrow-web", "St.", "7,", "'ok'", "-", "but", "\n", "> x\n", "    ", '"Let? me"', "a*"]), max_size=8
)


@given(WORDS, WORDS, st.data())
def test_engine_and_reference_agree_on_any_words(turn: list[str], other: list[str], data: st.DataObject) -> None:
    pool = [*turn, *other] or ["Ann"]
    text = " ".join(data.draw(st.lists(st.sampled_from([*pool, "Ann.", "7", "ok", "a"]), min_size=1, max_size=4)))
    found(text, " ".join(turn), " ".join(other))


@given(st.text(max_size=60), st.text(max_size=20))
def test_nothing_raises_and_both_agree_on_any_text(turn: str, text: str) -> None:
    found(text, turn)


@given(st.lists(st.text("abcXYZ\u00e4\u00df7", min_size=1, max_size=5), min_size=1, max_size=8), st.data())
def test_every_run_is_said_and_no_other(words: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    turn = " ".join(words)
    assert found(" ".join(words[start:end]).upper(), turn)
    other = data.draw(st.permutations(words))
    low = [w.casefold() for w in words]
    assume(not any(low[i : i + len(other)] == [w.casefold() for w in other] for i in range(len(low))))
    assert not found(" ".join(other), turn)


@given(st.text("abcXYZ\u00e4 -'*7:/@", max_size=40))
def test_what_is_denied_is_never_said(text: str) -> None:
    assert not found(text, f"Ann. Do not write {text}")


# --- what keeps its stricter meaning -----------------------------------------------------------------------------------------
def test_words_name_nothing() -> None:
    made = prompt("Please delete the file and tell Ann")
    assert said(made, "file") is not None
    assert made.words("text", "file") is None
    assert not asked_by_user([(Rule("q", 1), "file")], made, frozenset())


WORKFLOW = workflow_text(
    "desk",
    risk="high",
    intents="{edit: {asks_for: Change it., words: [update, mark, give, delete], examples: [Update the ticket]}}",
    tools="""
  find:
    effect: read
    needs: any
    redeem: wrapper
    args: {name: {type: text, from: [prompt]}}
    facts:
      size: {type: number, path: '[].size'}
      id: {type: id, path: '[].id'}
      named: {type: id, path: '[].id', trust: named}
  update:
    effect: write
    needs: [edit]
    redeem: wrapper
    args:
      text: {type: text, from: [prompt]}
      tags: {max_items: 3, each_in: [solved, open, urgent], from: [prompt], optional: true}
      status: {in: [solved, open], from: [prompt], optional: true}
      code: {text: 40, from: [prompt], sensitive: true, optional: true}
      to: {text: 200, from: [model], entities: [prompt], optional: true}
  grant:
    effect: write
    needs: [edit]
    redeem: wrapper
    args: {role: {in: [admin, guest], from: [prompt], unknown_origin: step_up}}
  ask:
    effect: write
    needs: [edit]
    redeem: wrapper
    args: {role: {in: [admin, guest], from: [model]}}
  delete:
    effect: destructive
    needs: [edit]
    redeem: wrapper
    args: {id: {type: id, from: [prompt], select: {of: find.id, called: [file], largest: find.size}}}
  drop:
    effect: destructive
    needs: [edit]
    redeem: wrapper
    args: {id: {type: id, from: [find.named]}}
""",
    step_up="""
  - {id: a, for: grant, when: {role: {origin: unknown}}, approvers: {group: leads, count: 1}, timeout: 10m}
  - {id: b, for: ask, when: {role: {origin: [prompt]}}, approvers: {group: leads, count: 1}, timeout: 10m}
""",
)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "desk.yaml").write_text(WORKFLOW)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        yield gate


def opened(gate: Gate, text: str) -> Run:
    return gate.open_run("desk", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=text)


def allowed(run: Run, tool: str, **args: Any) -> bool:
    return isinstance(run.authorize(tool, args), Allow)


def test_an_address_a_status_and_tags_come_from_the_users_words(gate: Gate) -> None:
    run = opened(gate, "Update it: the address is Oudegracht 214, 3511 Utrecht. Mark it solved and urgent")
    assert allowed(run, "update", text="Oudegracht 214, 3511 Utrecht", status="solved", tags=["urgent", "solved"])
    assert not allowed(run, "update", text="Oudegracht 215, 3511 Utrecht")
    assert not allowed(run, "update", text="Utrecht", status="open")
    assert not allowed(run, "update", text="Utrecht", tags=["urgent", "open"])  # each element its own run


def test_entities_in_a_text_are_named_as_before(gate: Gate) -> None:
    run = opened(gate, "Update it with bob@acme.example.evil.com")
    assert allowed(run, "update", text="update", to="see bob@acme.example.evil.com")
    assert not allowed(run, "update", text="update", to="see bob@acme.example")


def test_a_condition_on_origins_knows_the_users_words_too(gate: Gate) -> None:
    run = opened(gate, "Give Tom the guest role")
    assert isinstance(run.authorize("grant", {"role": "guest"}), Allow)
    assert isinstance(run.authorize("grant", {"role": "admin"}), StepUp)
    assert isinstance(run.authorize("ask", {"role": "guest"}), StepUp)  # a person is asked about what the user said
    assert isinstance(run.authorize("ask", {"role": "admin"}), Allow)


def test_a_secret_is_masked_where_its_words_are_told(gate: Gate) -> None:
    run = opened(gate, "Update it, the code is blue tiger 7 and the text is hello")
    found = run.explain("update", {"text": "hello", "code": "blue tiger 7"})
    shown = [str(origin) for row in found.rows for origin in row.origins if row.condition.field == "args.code"]
    assert shown
    assert all("tiger" not in text for text in [*shown, str(found)])
    [text] = {str(origin) for row in found.rows for origin in row.origins if row.condition.field == "args.text"}
    assert text == "prompt: 'hello', turn 1 at character 52"
    refused = run.authorize("update", {"text": "hello", "code": "red tiger 7"})
    assert isinstance(refused, Deny)
    assert "tiger" not in str(refused)


def test_an_explanation_says_that_the_users_words_would_pass(gate: Gate) -> None:
    found = opened(gate, "Update it: the address is Oudegracht 214").explain("update", {"text": "Oudegracht 215"})
    assert "text in the user's words, in their order" in str(found)


def looked(run: Run, name: str, result: Any) -> None:
    answer = run.authorize("find", {"name": name}, tool_call_id=f"find {name}")
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool="find", args={"name": name}) as redeemed:
        redeemed.record_result(result)


FILES = [{"id": "F-1", "size": 5}, {"id": "F-2", "size": 9}]


def test_a_search_for_some_of_the_users_words_is_none_that_the_user_named(gate: Gate) -> None:
    run = opened(gate, "Delete the largest file and tell Ann about the reports")
    looked(run, "reports", FILES)
    assert not allowed(run, "drop", id="F-1")
    run = opened(gate, "Delete what is called 'reports'")
    looked(run, "reports", FILES)
    assert allowed(run, "drop", id="F-1")


def test_who_picks_the_words_of_a_search_does_not_pick_the_largest(gate: Gate) -> None:
    """The largest of those found for "reports" is not the largest file: the agent chose which of the user's words to look for."""
    run = opened(gate, "Delete the largest file and tell Ann about the reports")
    looked(run, "reports", FILES)
    assert not allowed(run, "delete", id="F-2")
    run = opened(gate, "Delete the largest file in 'reports' on my drive. Delete the largest file.")
    looked(run, "reports", FILES)
    assert allowed(run, "delete", id="F-2")
