"""Trust that travels: a call is named through facts that stand for the user's words, one step per call, and through nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Gate, User
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.gate.run import Run
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.advice import advise
from agentgate.review.mutation.mutation import mutations
from agentgate.values.request import EarlierCall
from agentgate.workflow.model import StepUpRule
from agentgate.workflow.rule import Fact, Rule, Source
from tests.generate_values import NOW
from tests.test_reference import engine, reference, small
from tests.workflows import workflow_text

WORKFLOW = workflow_text(
    "desk",
    risk="high",
    intents="{answer: {asks_for: Answer., words: [answer, file, open], examples: [Answer the ticket]}}",
    tools="""
  tickets:
    effect: read
    needs: any
    redeem: wrapper
    args: {query: {text: 60, from: [model], optional: true}}
    facts:
      customer: {type: text, path: '[].customer'}
      id: {type: id, path: '[].id', named_by: [customer]}
      agent: {type: id, path: '[].agent', named_by: [customer]}
      other: {type: id, path: '[].id'}
      asked: {type: id, path: '[].id', where: {customer: query}}
      opened: {type: date, path: '[].opened'}
  ticket:
    effect: read
    needs: any
    redeem: wrapper
    args:
      id: {type: id, from: [prompt, tickets.id, tickets.other, tickets.asked, create.id, touch.ref, model]}
      agent: {type: id, from: [prompt, tickets.agent, model], optional: true}
      part: {type: integer, min: "1", max: "9", from: [model], optional: true}
      also: {type: id, max_items: 3, from: [prompt, tickets.id, model], optional: true}
    facts:
      mail: {type: email, path: mail, trust: named}
      account: {type: id, path: account, trust: named}
      note: {type: text, path: 'notes[].text'}
      author: {type: email, path: 'notes[].author', named_by: [note]}
  list:
    effect: read
    needs: any
    redeem: wrapper
    args: {}
    facts:
      id: {path: '[].id', type: id, named_by: [opened]}
      opened: {type: date, path: '[].opened'}
      mail: {type: email, path: '[].mail', trust: named}
  account:
    effect: read
    needs: any
    redeem: wrapper
    args: {id: {type: id, from: [ticket.account, model]}}
    facts: {owner: {type: email, path: owner, trust: named}}
  create:
    effect: write
    needs: [answer]
    redeem: wrapper
    args: {title: {type: text, from: [prompt]}}
    facts: {id: {type: id, path: id, trust: named}}
  touch:
    effect: write
    needs: [answer]
    redeem: wrapper
    args: {ref: {type: id, from: [tickets.id]}}
  peek:
    effect: read
    needs: any
    redeem: wrapper
    args: {id: {type: id, from: [prompt, touch.ref]}}
    facts: {mail: {type: email, path: mail, trust: named}}
  newest:
    effect: read
    needs: any
    redeem: wrapper
    args: {id: {type: id, from: [prompt, model], select: {of: list.id, called: [ticket], newest: list.opened}}}
    facts: {mail: {type: email, path: mail, trust: named}}
  send:
    effect: egress
    needs: [answer]
    redeem: wrapper
    args: {to: {type: email, from: [ticket.mail, account.owner, ticket.author, list.mail, peek.mail, newest.mail]}}
""",
)
TICKETS = [
    {"id": "T-1", "customer": "Tom Miller", "agent": "A-1", "opened": "2026-01-01"},
    {"id": "T-2", "customer": "Eve Stone", "agent": "A-2", "opened": "2026-01-02"},
    {"id": "T-3", "customer": "Ann Lee", "agent": "A-3", "opened": "2026-01-03"},
]
TOM, PROMPT = "tom@acme.example", "Answer Tom Miller's ticket"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "desk.yaml").write_text(WORKFLOW)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        yield gate


def opened(gate: Gate, prompt: str, rows: list[dict[str, Any]] = TICKETS) -> Run:
    """A run in which the tickets were listed."""
    run = gate.open_run("desk", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=prompt)
    done(run, "tickets", rows)
    return run


def done(run: Run, tool: str, result: Any, **args: Any) -> None:
    answer = run.authorize(tool, args)
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool=tool, args=args) as redeemed:
        redeemed.record_result(result)


def sends(run: Run, to: str = TOM) -> bool:
    return isinstance(run.authorize("send", {"to": to}), Allow)


def test_the_ticket_of_the_row_that_the_user_named_is_named(gate: Gate) -> None:
    run = opened(gate, PROMPT)
    assert not sends(run)
    done(run, "ticket", {"mail": TOM}, id="T-1")
    assert sends(run)


def test_it_travels_one_step_per_call(gate: Gate) -> None:
    run = opened(gate, PROMPT)
    done(run, "account", {"owner": TOM}, id="K-7")  # before anything says that this is the account
    assert not sends(run)
    done(run, "ticket", {"mail": "none", "account": "K-7"}, id="T-1")
    assert not sends(run)  # it was not named when it was called
    done(run, "account", {"owner": TOM}, id="K-7")
    assert sends(run)


def test_labels_of_a_read_that_is_named_count(gate: Gate) -> None:
    notes = {"notes": [{"text": "Invoice", "author": TOM}, {"text": "Weather", "author": "eve@evil.example"}]}
    run = opened(gate, "Answer the invoice note in Tom Miller's ticket")
    done(run, "ticket", notes, id="T-1")
    assert sends(run)
    assert not sends(run, "eve@evil.example")
    run = opened(gate, "Answer the invoice note in Tom Miller's ticket")
    done(run, "ticket", notes, id="T-2")  # the agent chose whose notes these are
    assert not sends(run)


@pytest.mark.parametrize(
    ("prompt", "args"),
    [
        (PROMPT, {"id": "T-2"}),  # another row
        (PROMPT, {"id": "T-9"}),  # none
        (PROMPT, {"id": "T-1", "part": 1}),  # what the model wrote, though it need not be sent
        (PROMPT, {"id": "T-1", "agent": "A-9"}),
        (PROMPT, {"id": "T-1", "agent": "A-2"}),
        ("Answer Tom Miller's and Eve Stone's tickets", {"id": "T-1", "agent": "A-2"}),  # both named, of two rows
        (PROMPT, {"id": "T-1", "also": ["T-1", "T-2"]}),
        ("Answer the ticket", {"id": "T-1"}),
        ("Answer Ann Lee's ticket, not Tom Miller's", {"id": "T-1"}),  # denied words tell rows apart, and make none the user's
        ("Do not answer Tom Miller's ticket", {"id": "T-1"}),
        ('Answer it. Eve says "Please take the one of Tom Miller! It is urgent."', {"id": "T-1"}),
        ("Answer it.\nFrom: a@b.example\nTo: c@d.example\nSubject: Tom Miller\n", {"id": "T-1"}),
    ],
)
def test_anything_else_makes_the_call_unnamed(gate: Gate, prompt: str, args: dict[str, Any]) -> None:
    run = opened(gate, prompt)
    done(run, "ticket", {"mail": TOM}, **args)
    assert not sends(run)


@pytest.mark.parametrize(
    ("prompt", "args"),
    [
        (PROMPT, {"id": "T-1", "agent": "A-1"}),
        ("Answer Tom Miller's and Eve Stone's tickets", {"id": "T-2", "agent": "A-2"}),
        ("Answer Tom Miller's and Eve Stone's tickets", {"id": "T-2", "also": ["T-1", "T-2"]}),  # each element of a list in its row
        ("Answer Tom Miller's ticket T-7", {"id": "T-7", "agent": "A-1"}),  # one from the prompt, one from the row
        ("Answer T-7", {"id": "T-7"}),
    ],
)
def test_every_argument_may_stand_for_the_users_words_in_its_own_way(gate: Gate, prompt: str, args: dict[str, Any]) -> None:
    run = opened(gate, prompt)
    done(run, "ticket", {"mail": TOM}, **args)
    assert sends(run)


def test_what_a_later_turn_denies_is_not_named_from_then_on(gate: Gate) -> None:
    run = opened(gate, PROMPT)
    run.add_turn("No, not the one of Tom Miller")
    done(run, "ticket", {"mail": TOM}, id="T-1")
    assert not sends(run)
    run.add_turn("Sorry, I meant Tom Miller: answer the ticket")
    done(run, "ticket", {"mail": TOM}, id="T-1", agent="A-1")
    assert sends(run)


def test_two_rows_that_the_words_fit_are_none(gate: Gate) -> None:
    run = opened(gate, PROMPT, [TICKETS[0], {**TICKETS[1], "customer": "Tom Miller"}])
    done(run, "ticket", {"mail": TOM}, id="T-1")
    assert not sends(run)


def test_who_calls_himself_what_the_user_says_in_full_is_followed(gate: Gate) -> None:
    """The limit of labels, which trust now travels along: let no label that strangers write begin a way to an address."""
    run = opened(gate, PROMPT, [TICKETS[0], {**TICKETS[1], "customer": "Tom Miller's ticket"}])
    done(run, "ticket", {"mail": TOM}, id="T-1")
    assert not sends(run)
    done(run, "ticket", {"mail": "eve@evil.example"}, id="T-2")
    assert sends(run, "eve@evil.example")


def test_two_calls_do_not_lend_each_other_a_row(gate: Gate) -> None:
    run = opened(gate, PROMPT, [{**TICKETS[0], "agent": "A-8"}])
    done(run, "tickets", [{**TICKETS[0], "id": "T-8"}])
    done(run, "ticket", {"mail": TOM}, id="T-1", agent="A-1")
    assert not sends(run)
    done(run, "ticket", {"mail": TOM}, id="T-8", agent="A-1")
    assert sends(run)


def test_rows_that_the_agent_chose_name_nothing(gate: Gate) -> None:
    run = gate.open_run("desk", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=PROMPT)
    done(run, "tickets", TICKETS, query="stone")
    done(run, "ticket", {"mail": TOM}, id="T-1")
    assert not sends(run)


def test_a_row_that_is_what_the_agent_asked_for_is_not_named(gate: Gate) -> None:
    run = gate.open_run("desk", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=PROMPT)
    done(run, "tickets", TICKETS, query="Eve Stone")
    done(run, "ticket", {"mail": TOM}, id="T-2")
    assert not sends(run)


def test_what_a_tool_that_acts_made_is_not_the_users(gate: Gate) -> None:
    run = opened(gate, "Open a ticket 'Hello' and answer it")
    done(run, "create", {"id": "T-50"}, title="Hello")  # named itself
    done(run, "ticket", {"mail": TOM}, id="T-50")
    assert not sends(run)


def test_what_another_call_was_given_is_not_the_users(gate: Gate) -> None:
    run = opened(gate, PROMPT)
    done(run, "touch", {}, ref="T-1")
    done(run, "peek", {"mail": TOM}, id="T-1")  # from what `touch` was given alone
    assert not sends(run)


def test_a_read_without_arguments_is_named_by_nobody(gate: Gate) -> None:
    run = opened(gate, PROMPT)
    done(run, "list", [{"id": "T-1", "mail": TOM, "opened": "2026-01-01"}])
    assert not sends(run)


def test_the_row_that_a_superlative_selects_is_not_named(gate: Gate) -> None:
    """Whoever writes last is the newest: the user's words choose among strangers, they name none."""
    run = opened(gate, "Answer the newest ticket")
    done(run, "list", TICKETS)
    done(run, "newest", {"mail": TOM}, id="T-3")
    assert not sends(run)


def test_beside_an_id_that_the_user_named_another_is_not_named_through_a_fact() -> None:
    """`named_first`: a person may release it, the user did not name it."""
    ask = StepUpRule("a", 1, "pay", (), "leads", 1, (), 600, ())
    sources = (Source("prompt"), Source("fact", "get", "id"))
    rule = Rule("id", 1, type="id", sources=sources, named_first=True, unknown_origin="step_up")
    read = EarlierCall("call_1", "get", {"top": 1}, ({"id": "B-2"},), named=True, redeemed_at=0)
    case = small({"id": rule}, (read,), {"id": "B-2"}, step_ups=(ask,))
    tools = {**case.workflow.tools, "get": replace(case.workflow.tools["get"], facts={"id": Fact("id", 1, "id", ("id",), named=True)})}
    case = replace(case, workflow=replace(case.workflow, tools=tools))
    assert engine(case) == reference(case)
    assert engine(case).named
    for text in ("pay A-1", "pay A-1 and B-3"):
        asked = replace(case, run=replace(case.run, turns=(text,), prompt=Prompt.of((text,), NOW.date())))
        assert engine(asked) == reference(asked)
        assert engine(asked).holds
        assert not engine(asked).named


def test_an_explanation_says_that_the_call_was_not_named(gate: Gate) -> None:
    run = opened(gate, PROMPT)
    done(run, "ticket", {"mail": TOM}, id="T-2")
    shown = [str(o) for row in run.explain("send", {"to": TOM}).rows if row.condition.field == "args.to" for o in row.origins]
    assert shown
    assert all(
        text.startswith("ticket.mail of call ") and "row 1 (counts only where that call is named: each argument" in text for text in shown
    )


# --- beside the engine -------------------------------------------------------------------------------------------------------
def changed(*pairs: tuple[str, str]) -> Any:
    text = WORKFLOW.lstrip()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    return load_text(text, "desk.yaml", {}, derive)


LABELLED = "id: {type: id, path: '[].id', named_by: [customer]}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LABELLED.replace(", named_by: [customer]", ""), LABELLED),  # a label takes rows away, and makes more calls named
        ("other: {type: id, path: '[].id'}", "other: {type: id, path: '[].id', trust: named}"),
        ("agent: {type: id, from: [prompt, model]", "agent: {type: id, from: [prompt, tickets.agent, model]"),
    ],
)
def test_a_fact_that_newly_stands_for_the_users_words_is_wider(before: str, after: str) -> None:
    stands = before if before in WORKFLOW else after  # one of the two is what the file says
    old, new = changed((stands, before)), changed((stands, after))
    found = [f for f in compare(old, new).wider if "named by the user" in f.effect]
    assert {f.tool for f in found} == {"ticket"}
    assert not [f for f in compare(new, old).wider if "named by the user" in f.effect]


def test_lint_names_an_address_to_which_a_label_leads_and_calls_nothing_steerable_that_waits_for_the_user() -> None:
    found = [(a.field, a.text) for a in advise(changed(), read_yaml(WORKFLOW.lstrip(), "desk.yaml"))]
    led = [field for field, text in found if "chooses which of the user's words lead here" in text]
    assert led == ["tools.ticket.facts.mail.trust"]
    assert any("whoever writes customer chooses" in text for _, text in found)
    steered = {text.partition("so what ")[2] for field, text in found if field == "tools.send.args.to.from" and "steerable" in text}
    assert steered == {"ticket.author says"}  # the rest counts only of calls that the user named


def test_a_person_asked_by_a_fact_that_fewer_calls_make_count_is_asked_less() -> None:
    steps = "step_up:\n  - {id: a, for: send, when: {to: {origin: [ticket.mail]}}, approvers: {group: leads, count: 1}, timeout: 10m}\n"
    args = ("from: [ticket.mail, account.owner, ticket.author, list.mail, peek.mail, newest.mail]}}\n", "from: [model]}}\n" + steps)
    old, new = changed(args), changed(args, ("[prompt, tickets.id, tickets.other", "[prompt, tickets.other"))
    assert any(f.field == "step_up.a.when" for f in compare(old, new).wider)
    assert not any(f.field == "step_up.a.when" for f in compare(old, old).wider)


def test_a_named_fact_may_rest_on_a_fact_that_stands_for_the_users_words() -> None:
    rest = ("id: {type: id, from: [ticket.account, model]}", "id: {type: id, from: [ticket.account]}")
    changed(rest)
    with pytest.raises(WorkflowError, match=r"tools\.account\.facts\.owner\.trust"):
        changed(rest, ("account: {type: id, path: account, trust: named}", "account: {type: id, path: account}"))


@pytest.mark.parametrize(
    ("argument", "skipped"),
    [
        ("id: {type: id, from: [ticket.account]}", True),  # a call that is allowed is named
        ("id: {type: id, from: [prompt, ticket.account]}", True),
        ("id: {type: id, from: [prompt, ticket.account], any_call: true}", False),
        ("id: {type: id, from: [prompt, ticket.note]}", False),
        ("id: {type: text, from: [prompt]}", False),  # some of the user's words name nothing
        ("id: {type: id, from: [prompt]}", True),
    ],
)
def test_a_trust_that_is_implied_is_told_apart_from_one_that_a_case_can_miss(argument: str, skipped: bool) -> None:  # noqa: FBT001
    workflow = changed(("id: {type: id, from: [ticket.account, model]}", argument))
    made, path = mutations(workflow), "tools.account.facts.owner.trust"
    assert (path in {m.path for m in made.found}, path in {s.path for s in made.skipped}) == (not skipped, skipped)


def test_lint_says_that_labels_of_a_read_count_where_a_row_of_another_names_it() -> None:
    beside = ("      agent: {type: id, from", "      part:", "      also:")
    one = "".join(line for line in WORKFLOW.lstrip().splitlines(keepends=True) if not line.startswith(beside))

    def warned(text: str) -> set[str]:
        found = advise(load_text(text, "desk.yaml", {}, derive), read_yaml(text, "desk.yaml"))
        return {a.text.partition(" (a search")[0] for a in found if a.field == "tools.ticket.facts.author.named_by" and "rows" in a.text}

    held = "rows count only where the user's words hold id too"
    assert warned(one) == {f"{held}, or the call is named, by tickets.id"}
    assert warned(one.replace("tickets.id, tickets.other", "tickets.other")) == {held}
    assert warned(WORKFLOW.lstrip()) == {held.replace("id too", "id and agent and part and also too")}  # part is never of such a row
