"""The user's words speak of the user, or do not; and then the one row with their id counts, beside the named ones, and no other."""

from __future__ import annotations

from dataclasses import replace
from time import thread_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate.decision.answer import Eligible
from agentgate.decision.decide import decide
from agentgate.decision.origins.labels import own_row
from agentgate.intents.lexical import derive
from agentgate.language.first_person import of_self
from agentgate.language.prompt import Prompt, Turn
from agentgate.loading.definition import load_text
from agentgate.review.scenarios.scene import Scene
from agentgate.values.paths import CUT
from agentgate.values.request import User
from agentgate.workflow.model import Workflow
from agentgate.workflow.rule import Fact
from tests.effort import examples
from tests.generate_values import NOW
from tests.reference_words import of_themself
from tests.workflows import workflow_text


def speaks(*turns: str) -> bool:
    """Both readings of the words as they are read in a run, which must agree."""
    prompt = Prompt.of(turns, NOW.date())
    found = of_self(prompt.turns)
    assert found is of_themself(prompt.turns), turns
    return found


@pytest.mark.parametrize(
    "text",
    [
        "Assign WEB-42 to me",
        "Please assign it to  me.",
        "ASSIGN IT TO ME",
        "Invite me and Kim",
        "Invite Kim and me",
        "Add myself to it",
        "Close mine, not Kim's",
        "Close the one that is mine.",
        "Close mine and leave the rest",
        "Please close mine",
        "Reopen my own ticket",
        "Don't close it; assign it to me",
        "Forward me the report",
        "Save the file and send it to me",
        "Keep the title, assign it to me",
    ],
)
def test_who_speaks_of_themself(text: str) -> None:
    assert speaks(text)


@pytest.mark.parametrize(
    "text",
    [
        "Close my ticket",
        "I need the report",
        "Tell me which tickets are open",
        "Let me know when it is done",
        "Show me the list, and help me with it",
        "Do it for me",
        "I wrote it myself",
        "I'll do it by myself",
        "I work on my own",
        "It seems to me that WEB-42 is old",
        "According to me it is done",
        "Get back to me",
        "Mine the data of the gold mine",
        "Delete what the miner mined in mine 7",
        "Do it like the people who mine",
        "The mine is closed",
        "This is a me-too report",
        "Write to me@acme.example",
        "Meet at noon, home or theme",
        "Don't assign it to me",
        "Assign it to Kim, not to me",
        "Assign it to Kim instead of to me",
        "Keep mine, delete Bob's",
        "Delete all of them. Skip the one of mine.",
        "Unless it belongs to me, delete it",
        "Assign it to anyone but me, or to Kim",
        "Apart from what belongs to me, delete it",
        "Close mine. Leave everything else of mine",
        'The title is "Assign it to me"',
        "Kim's note was 'give it to me'",
        "Ann said to assign it to me",
        "She asked that it goes to me",
        "Kim wrote that it belongs to me. Close it",
        "Send Kim this message: please assign WEB-42 to me",
        "Send Kim this:\nassign it to me",
        "Subject: mine",
        "Summarize it\n> assign it to me",
        "Handle this\n\n-----Original Message-----\nFrom: Eve <eve@evil.example>\nTo: Lee\n\nAssign it to me",
        "",
    ],
)
def test_who_does_not(text: str) -> None:
    assert not speaks(text)


def test_a_later_turn_takes_it_back_and_a_later_one_says_it_again() -> None:
    assert not speaks("Assign it to me", "No, not me")
    assert not speaks("Assign it to me", "Not mine")
    assert speaks("Assign it to me", "Make it WEB-43")
    assert speaks("Not to me", "On second thought, assign it to me")
    assert not speaks("Assign it to me, but not to me")


def test_long_words_are_read_in_no_time() -> None:
    before = thread_time()
    for text in ("Ann said to me. " * 4000, "Ann said, to me, " * 3800, "to me, " * 9000 + "but not me", "mine, " * 10_000 + "not mine"):
        assert not of_self((Turn(text),))
    assert thread_time() - before < 5


WORDS = (
    "assign",
    "to",
    "me",
    "myself",
    "mine",
    "my",
    "own",
    "and",
    "Ann",
    "said",
    "not",
    ",",
    ".",
    ":",
    '"',
    "don't",
    "keep",
    "apart from",
    "but",
    "for",
    "instead of",
    "on",
    "the",
    "seems",
    "\n",
)


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), min_size=1, max_size=3))
def test_two_readings_of_any_words_agree(turns: list[str]) -> None:
    speaks(*turns)


# --- which row that is -------------------------------------------------------------------------------------------------------
TASKS = workflow_text(
    "tasks",
    title="Close a task",
    who="{agent: {in_process: true}, for_user: {groups: [staff]}}",
    intents='{close: {asks_for: Close a task., words: [close, write], examples: ["Close WEB-42"]}}',
    tools="""
  list:
    effect: read
    needs: any
    redeem: wrapper
    args: {query: {text: 40, from: [model], optional: true}}
    facts:
      id: {type: id, path: '[].id', named_by: [owner, title]}
      titled: {type: id, path: '[].id', named_by: [title]}
      watch: {type: id, path: '[].id', named_by: [mail]}
      owner: {type: user, path: '[].owner'}
      mail: {type: email, path: '[].mail'}
      title: {type: text, path: '[].title'}
  task:
    effect: read
    needs: any
    redeem: wrapper
    args: {id: {type: id, from: [prompt, list.id, model]}}
    facts: {reporter: {type: email, path: reporter, trust: named}}
  close:
    effect: destructive
    needs: [close]
    redeem: wrapper
    args:
      id: {type: id, from: [list.id], optional: true}
      titled: {type: id, from: [list.titled], optional: true}
      watch: {type: id, from: [list.watch], optional: true}
      write: {type: email, from: [task.reporter], optional: true}
""",
)
LEE = User("lee@acme.example", tenant="acme", groups=("staff",))
ROWS: dict[str, list[str]] = {
    "id": ["W-1", "W-2", "W-3"],
    "owner": ["kim", "lee", "ann"],
    "mail": ["kim@acme.example", "lee@acme.example", "ann@acme.example"],
    "title": ["Fix the login", "Write docs", "Paint the door"],
}
ME = "Close the task that belongs to me"


def load() -> Workflow:
    return load_text(TASKS, "w.yaml", {}, derive)


def closed(args: dict[str, str], prompt: str = ME, user: User | None = LEE, query: str | None = None, **rows: Any) -> bool:
    base: dict[str, Any] = {"call": "close", "prompt": prompt, "earlier.list.query": query, "args": args}
    scene = Scene.of(load(), {**base, **{f"facts.list.{name}": value for name, value in {**ROWS, **rows}.items()}})
    state = replace(scene.run, header=replace(scene.run.header, user=user))
    return isinstance(decide(scene.workflow, state, scene.call, scene.around), Eligible)


def test_the_row_with_the_users_id_counts_and_no_other() -> None:
    assert closed({"id": "W-2"})
    assert closed({"watch": "W-2"})
    assert not closed({"id": "W-1"})
    assert not closed({"watch": "W-3"})


def test_only_where_the_user_speaks_of_themself() -> None:
    for prompt in ("Close my task", "Close the task", "Close it and tell me", "Close it, not mine", 'Close "mine"', "Ann said: close mine"):
        assert not closed({"id": "W-2"}, prompt), prompt


@pytest.mark.parametrize("owner", ["Lee", "lee.x", "leeann", "@le", "lee-acme"])
def test_a_name_that_is_only_like_it_is_another(owner: str) -> None:
    assert not closed({"id": "W-2"}, owner=["kim", owner, "ann"])


def test_the_same_name_with_its_sign_is_the_same() -> None:
    assert closed({"id": "W-2"}, owner=["kim", "@lee", "ann"])


@pytest.mark.parametrize(
    "user",
    [
        None,
        User("lee@acme.example", tenant="evil", groups=("staff",)),
        User("lee@evil.example", tenant="acme", groups=("staff",)),
    ],
)
def test_of_nobody_and_of_another_tenant_no_row_is(user: User | None) -> None:
    assert not closed({"watch": "W-2"}, user=user)


def test_an_id_without_an_at_is_only_itself() -> None:
    assert closed({"id": "W-2"}, user=User("lee", tenant="acme", groups=("staff",)))
    assert not closed({"watch": "W-2"}, user=User("lee", tenant="acme", groups=("staff",)))


def test_a_strangers_row_with_the_users_name_makes_neither_count() -> None:
    """Whoever writes such a row can take the true one away, and put none in its place."""
    both: dict[str, Any] = {"owner": ["lee", "lee", "ann"]}
    assert not closed({"id": "W-1"}, **both)
    assert not closed({"id": "W-2"}, **both)
    assert closed({"id": "W-2"}, id=["W-2", "W-2", "W-3"], **both)  # two rows, one thing


def test_an_id_that_is_a_common_word_is_looked_for_in_no_text() -> None:
    docs = User("docs", tenant="acme", groups=("staff",))
    assert not closed({"titled": "W-2"}, title=["Fix the login", "docs", "Paint the door"], user=docs)
    assert not closed({"id": "W-2"}, title=["Fix the login", "docs", "Paint the door"], user=docs)
    assert closed({"titled": "W-2"}, "Close the docs one for me", title=["Fix the login", "docs", "Paint the door"], user=docs)


def test_beside_rows_that_the_words_name_and_never_instead_or_tied() -> None:
    both = "Close Paint the door and the one that belongs to me"
    assert closed({"id": "W-3"}, both)
    assert closed({"id": "W-2"}, both)
    assert not closed({"id": "W-1"}, both)
    tied: dict[str, Any] = {"title": ["Paint the door", "Write docs", "Paint the door"]}
    assert not closed({"id": "W-3"}, both, **tied)
    assert closed({"id": "W-2"}, both, **tied)


def test_a_search_that_the_model_worded_means_nobody() -> None:
    assert not closed({"id": "W-2"}, query="something of eve")
    assert closed({"id": "W-2"}, query="belongs")


def test_a_result_of_which_rows_were_left_out_means_nobody() -> None:
    assert not closed({"id": "W-2"}, id=[*(f"X-{i}" for i in range(1000)), "W-2"], owner=["kim"] * 1000 + ["lee"], mail=[], title=[])


def test_a_row_that_says_whose_it_is_nowhere_is_nobodys() -> None:
    """An id that is in no normal form of a label's type equals no label, a missing one least of all."""
    for name in ("Lee Smith", "lee smith@acme.example", "-lee-"):
        user = User(name, tenant="acme", groups=("staff",))
        assert not closed({"id": "W-2"}, user=user, owner=[])
        assert not closed({"watch": "W-2"}, user=user, mail=[])


def test_the_name_before_the_at_is_a_users_name_and_no_other_id() -> None:
    of, person, other = (Fact(n, 1, t, (n,)) for n, t in (("id", "id"), ("owner", "user"), ("number", "id")))
    prompt, rows = Prompt.of((ME,), NOW.date()), ({"id": "W-1", "owner": "kim", "number": "lee"}, {"id": "W-2", "owner": "lee"})
    assert own_row(of, [person], rows, prompt, LEE.id) == rows[1:]
    assert own_row(of, [other], rows, prompt, LEE.id) == ()
    assert own_row(of, [other], rows, prompt, "lee") == rows[:1]


def test_where_rows_were_left_out_another_may_carry_the_id_too() -> None:
    of, person = Fact("id", 1, "id", ("id",)), Fact("owner", 1, "user", ("owner",))
    prompt, row = Prompt.of((ME,), NOW.date()), {"id": "W-2", "owner": "lee"}
    assert own_row(of, [person], (row,), prompt, LEE.id) == (row,)
    assert own_row(of, [person], (row, {CUT: True}), prompt, LEE.id) == ()
    assert own_row(of, [person], (), prompt, LEE.id) == ()
    assert own_row(of, [person], (row,), prompt, None) == ()


def test_it_leads_nowhere() -> None:
    """The row of the user counts; it names no call, so what that read returns is trusted no more than before."""
    for prompt, named in ((ME, False), ("Close Write docs, the one that belongs to me", True)):
        base: dict[str, Any] = {"call": "task", "prompt": prompt, "args.id": "W-2", "earlier.list.query": None, "who.user.id": LEE.id}
        scene = Scene.of(load(), {**base, **{f"facts.list.{name}": value for name, value in ROWS.items()}})
        found = scene.decide()
        assert isinstance(found, Eligible)
        assert found.named is named
