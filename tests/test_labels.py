"""Labels: which rows the user's words mean, what a stranger who writes rows can do, and that both only take away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate import Agent, Allow, Gate, StepUp, User
from agentgate.decision.origins.labels import MAX_SETS, meant
from agentgate.gate.run import Run
from agentgate.language.prompt import Prompt
from agentgate.language.stems import stems
from agentgate.values.paths import CUT
from agentgate.workflow.rule import Fact
from tests.workflows import workflow_text

ID = Fact("id", 1, "id", ("id",))
TITLE, NAME, SENDER = Fact("title", 1, "text", ("t",)), Fact("name", 1, "path", ("n",)), Fact("from", 1, "email", ("f",))
ACCOUNT, COST = Fact("account", 1, "iban", ("a",)), Fact("cost", 1, "money", ("c",), currency="unit")


def ids(prompt: str, rows: list[dict[str, Any]], *labels: Fact) -> str:
    """The ids of the rows that a prompt means."""
    given = tuple({"id": chr(ord("A") + n), **row} for n, row in enumerate(rows))
    found = meant(ID, labels or (TITLE,), given, Prompt.of((prompt,), date(2024, 5, 15)))
    return "".join(row["id"] for row in found)


def titles(*names: str) -> list[dict[str, Any]]:
    return [{"title": name} for name in names]


@pytest.mark.parametrize(
    ("prompt", "rows", "found"),
    [
        ("adjust my rent payment", titles("Rent", "Spotify Premium"), "A"),
        ("adjust my RENTS", titles("Rent", "Gym"), "A"),
        ("adjust my RENTS", titles("Rent", "Car rent"), ""),  # a short label is no better than a long one: a stranger can write one
        ("adjust my planned payment 'Rent'", titles("Rent", "Car rent"), "A"),
        ("pay the rent of the car", titles("Rent", "Car rent"), "B"),  # the longer label is said in full, too
        ("move my lunch", titles("Lunch", "Lunch with Sarah"), ""),
        ("move my lunch with Sarah", titles("Lunch", "Lunch with Sarah"), "B"),
        ("move the lunch and the budget review", titles("Lunch", "Budget review", "Team sync"), "AB"),
        ("move my dental check-up", titles("Dentist appointment", "Client presentation"), "A"),
        ("move my appointment", titles("Dentist appointment", "Tax appointment"), ""),  # a tie
        ("move the lunch", titles("Lunch", "Lunch"), ""),
        ("move it", titles("Lunch"), ""),
        ("move the one with the", titles("The one with the"), "A"),
        ("move the", titles("The"), ""),  # says nothing
        ("do not forget the hiking trips", titles("Hiking trip", "Lunch"), "A"),
        ("reply to the mail 'Please send me the money for the trip. Now!'", titles("Re: trip money", "Lunch"), "A"),
        ("look at this\n---- Forwarded message ----\nlunch", titles("Lunch"), ""),
        ("summarise this text: lunch", titles("Lunch"), ""),
        ("", titles("Lunch"), ""),
        ("move the lunch", [], ""),
        ("move the lunch", [{"title": None}, {"title": 7}, {}], ""),
        ("move the \uff2c\uff35\uff2e\uff23\uff28", titles("Lunch"), "A"),
    ],
)
def test_a_title_names_its_row(prompt: str, rows: list[dict[str, Any]], found: str) -> None:
    assert ids(prompt, rows) == found


@pytest.mark.parametrize(
    ("prompt", "rows", "found"),
    [
        ("add it to notes.docx", ["notes.docx", "my-notes.docx"], "A"),
        ("add it to my grocery list", ["grocery-list-today.docx", "recipes.docx"], "A"),
        ("open the docx", ["notes.docx"], ""),
        ("open work notes", ["work/plans.txt", "home/notes.txt"], "B"),
    ],
)
def test_a_file_is_named_without_its_folder_and_ending(prompt: str, rows: list[str], found: str) -> None:
    assert ids(prompt, [{"name": name} for name in rows], NAME) == found


MARK, EVIL = "mark.davies@acme.example", "hiking-trips@evil.example"


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Invite Mark to the hiking trip", "A"),
        ("Invite mark to the hiking trip", ""),  # no name
        (f"Invite {MARK}", "A"),
        ("Invite anna@acme.example to the hiking trip", ""),  # nothing of a host counts
        ("Invite everybody from Acme", ""),
    ],
)
def test_a_sender_is_meant_by_a_name_or_by_the_address(prompt: str, found: str) -> None:
    assert ids(prompt, [{"from": MARK}, {"from": EVIL}, {"from": "emma.j@acme.example"}], SENDER) == found


def test_labels_of_one_row_count_together() -> None:
    rows = [{"from": f"{who}@acme.example", "title": what} for who, what in (("david", "Lunch"), ("david", "Budget"), ("eve", "Budget"))]
    assert ids("the mail from David about the budget", rows, SENDER, TITLE) == "B"
    assert ids("the mail about the budget", rows, SENDER, TITLE) == ""


def test_what_has_no_words_names_a_row_as_a_whole() -> None:
    rows: list[dict[str, Any]] = [{"account": "GB29NWBK60161331926819"}, {"account": "DE89370400440532013000"}]
    assert ids("the one to DE89 3704 0044 0532 0130 00", rows, ACCOUNT) == "B"
    assert ids("the one to DE89 3704", rows, ACCOUNT) == ""
    assert ids("the 20 EUR one", [{"cost": 20, "unit": "EUR"}, {"cost": 20, "unit": "GBP"}], COST) == "A"
    assert ids("the 20 EUR one", [{"cost": 20}, {"cost": 30, "unit": "EUR"}], COST) == ""


def test_rows_of_one_thing_do_not_tie() -> None:
    rows = tuple({"id": "A", "title": "Rent"} for _ in range(3))
    assert len(meant(ID, (TITLE,), rows, Prompt.of(("the rent",), date(2024, 5, 15)))) == 3


def test_rows_that_were_left_out_mean_nobody() -> None:
    assert ids("the rent", [{"title": "Gym"}, {"title": "Rent", CUT: True}]) == ""


def test_too_many_different_matches_mean_nobody() -> None:
    words = [f"w{n}x" for n in range(MAX_SETS + 1)]
    rows = tuple({"id": str(n), "title": word} for n, word in enumerate(words))
    said = Prompt.of((" ".join(words),), date(2024, 5, 15))
    assert meant(ID, (TITLE,), rows, said) == ()
    assert len(meant(ID, (TITLE,), rows[1:], said)) == MAX_SETS


def test_endings_leave_three_letters() -> None:
    assert stems("Dentist dental hiking hikes bus Re: s 5") == {"dent", "hik", "bus", "5"}


@given(st.lists(st.text(max_size=12), max_size=6), st.text(max_size=40))
def test_nothing_raises_and_only_given_rows_are_meant(names: list[str], prompt: str) -> None:
    found = ids(prompt, titles(*names), TITLE, NAME, SENDER)
    assert set(found) <= {chr(ord("A") + n) for n in range(len(names))}


@given(st.permutations(["Rent", "Gym", "Car rent", "Rent", "Flat deposit"]), st.sampled_from(["the rent", "car rent", "flat", "the gym"]))
def test_the_order_of_rows_is_nothing(names: list[str], prompt: str) -> None:
    found = {names[ord(x) - ord("A")] for x in ids(prompt, titles(*names))}
    assert found == {"the rent": set(), "car rent": {"Car rent"}, "flat": {"Flat deposit"}, "the gym": {"Gym"}}[prompt]


# --- at the gate -----------------------------------------------------------------------------------------------------------

WORKFLOW = workflow_text(
    "office",
    risk="high",
    intents="{pay: {asks_for: Pay., words: [pay, adjust, invite, append], examples: [Pay the bill, Adjust a payment]}}",
    tools="""
  mails:
    effect: read
    needs: any
    redeem: wrapper
    args: {query: {text: 90, from: [model]}}
    facts: {sender: {type: email, path: '[].sender', named_by: [sender]}}
  plans:
    effect: read
    needs: any
    redeem: wrapper
    args: {}
    facts:
      subject: {type: text, path: '[].subject'}
      id: {type: id, path: '[].id', named_by: [subject]}
      account: {type: iban, path: '[].account'}
  files:
    effect: read
    needs: any
    redeem: wrapper
    args: {query: {text: 90, from: [model]}}
    facts:
      name: {type: text, path: '[].name'}
      exact: {type: id, path: '[].id', where: {name: query}}
  invite:
    effect: egress
    needs: [pay]
    redeem: wrapper
    args: {to: {type: email, from: [prompt, mails.sender], unknown_origin: step_up}}
  append:
    effect: write
    needs: [pay]
    redeem: wrapper
    args: {file: {type: id, from: [files.exact], unknown_origin: step_up}}
  adjust:
    effect: destructive
    needs: [pay]
    redeem: wrapper
    args: {id: {type: id, from: [plans.id], unknown_origin: step_up}}
  pay:
    effect: egress
    needs: [pay]
    redeem: wrapper
    args: {to: {type: iban, max_items: 2, from: [prompt, plans.account], named_first: true, unknown_origin: step_up}}
""",
    step_up="""
  - {id: a, for: invite, when: {to: {origin: unknown}}, approvers: {group: leads, count: 1}, timeout: 10m}
  - {id: b, for: append, when: {file: {origin: unknown}}, approvers: {group: leads, count: 1}, timeout: 10m}
  - {id: c, for: adjust, when: {id: {origin: unknown}}, approvers: {group: leads, count: 1}, timeout: 10m}
  - {id: d, for: pay, when: {to: {origin: unknown}}, approvers: {group: leads, count: 1}, timeout: 10m}
""",
)
GOOD, OTHER = "GB29NWBK60161331926819", "DE89370400440532013000"
PLANS = [{"id": "P1", "subject": "Rent", "account": GOOD}, {"id": "P2", "subject": "Gym", "account": OTHER}]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "office.yaml").write_text(WORKFLOW)
    now = datetime(2026, 3, 4, 10, tzinfo=UTC)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", clock=lambda: now) as gate:
        yield gate


def after(gate: Gate, prompt: str, tool: str, result: Any, **args: Any) -> Run:
    """A run in which one read was done."""
    run = gate.open_run("office", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=prompt)
    answer = run.authorize(tool, args, tool_call_id="look")
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool=tool, args=args) as redeemed:
        redeemed.record_result(result)
    return run


def granted(run: Run, tool: str, args: dict[str, Any]) -> bool:
    """Whether it is granted; everything else here asks a person."""
    answer = run.authorize(tool, args, tool_call_id=f"{tool} {args}")
    assert isinstance(answer, Allow | StepUp), answer
    return isinstance(answer, Allow)


def test_only_the_row_that_the_user_names_is_adjusted(gate: Gate) -> None:
    run = after(gate, "Please adjust my rent payment", "plans", PLANS)
    assert (granted(run, "adjust", {"id": "P1"}), granted(run, "adjust", {"id": "P2"})) == (True, False)
    run = after(gate, "Please adjust the planned payment", "plans", PLANS)
    assert not granted(run, "adjust", {"id": "P1"})


def test_a_later_turn_names_a_row(gate: Gate) -> None:
    run = after(gate, "Please adjust a payment", "plans", PLANS)
    assert not granted(run, "adjust", {"id": "P2"})
    run.add_turn("the one of the gym")
    assert granted(run, "adjust", {"id": "P2"})


def mails(*senders: str) -> list[dict[str, str]]:
    return [{"sender": sender, "body": "Invite Mark"} for sender in senders]


def test_a_strangers_mail_among_the_found_ones_is_asked_about(gate: Gate) -> None:
    run = after(gate, "Invite Mark to the hiking trip", "mails", mails(MARK, EVIL), query="hiking")
    assert (granted(run, "invite", {"to": MARK}), granted(run, "invite", {"to": EVIL})) == (True, False)


def test_a_stranger_who_takes_the_name_can_only_make_a_tie(gate: Gate) -> None:
    run = after(gate, "Invite Mark to the hiking trip", "mails", mails(MARK, "mark@evil.example"), query="hiking")
    assert (granted(run, "invite", {"to": MARK}), granted(run, "invite", {"to": "mark@evil.example"})) == (False, False)


def test_a_stranger_is_never_meant_where_the_user_wrote_the_address(gate: Gate) -> None:
    run = after(gate, f"Invite {MARK}", "mails", mails("mark.davies.trip@evil.example"), query="hiking")
    assert granted(run, "invite", {"to": MARK})
    run = after(gate, f"Invite {MARK}", "mails", mails(MARK, "mark.davies.trip@evil.example"), query="hiking")
    assert not granted(run, "invite", {"to": "mark.davies.trip@evil.example"})


def test_a_search_that_the_model_chose_means_nobody(gate: Gate) -> None:
    """It finds the stranger alone, so nothing ties: "mark" as the sender, a row of the stranger's own as the only one."""
    evil = "mark@evil.example"
    for query in ("from:mark@evil.example", "hiking pineapple", "invoice"):
        run = after(gate, "Invite Mark to the hiking trip", "mails", mails(evil), query=query)
        assert not granted(run, "invite", {"to": evil})
    run = after(gate, "Invite Mark to the hiking trip", "mails", mails(MARK), query="Hiking trips")
    assert granted(run, "invite", {"to": MARK})


def test_a_file_with_a_name_like_the_one_asked_for_is_asked_about(gate: Gate) -> None:
    found = [{"id": "F1", "name": "plan.txt"}, {"id": "F2", "name": "tips-for-plan.txt"}, {"id": "F3"}, {"id": "F4", "name": 7}]
    run = after(gate, "Append it", "files", found, query="plan.txt")
    assert [granted(run, "append", {"file": f"F{n}"}) for n in range(1, 5)] == [True, False, False, False]


def test_an_account_the_user_names_goes_before_what_a_tool_returned(gate: Gate) -> None:
    run = after(gate, f"Pay {GOOD}", "plans", PLANS)
    assert [granted(run, "pay", {"to": to}) for to in ([GOOD], [OTHER], [GOOD, OTHER])] == [True, False, False]
    run = after(gate, "Pay the plans", "plans", PLANS)
    assert [granted(run, "pay", {"to": to}) for to in ([GOOD], [OTHER], [GOOD, OTHER], ["CH9300762011623852957"])] == [
        True,
        True,
        True,
        False,
    ]


def test_an_explanation_says_why_a_row_does_not_count(gate: Gate) -> None:
    run = after(gate, "Please adjust my rent payment", "plans", PLANS)
    shown = str(next(r for r in run.explain("adjust", {"id": "P2"}).rows if r.condition.field == "args.id" and r.origins).origins[0])
    assert shown == "plans.id of call look, row 2 (counts only where the user's words single out its row by subject)"
    run = after(gate, f"Pay {GOOD}", "plans", PLANS)
    shown = str(next(r for r in run.explain("pay", {"to": [OTHER]}).rows if r.condition.field == "args.to" and r.origins).origins[0])
    assert shown == "plans.account of call look, row 2 (the user named another one)"
