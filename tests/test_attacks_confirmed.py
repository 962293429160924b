"""A yes that names: a value that the user confirmed for an argument counts for it again, and every way to make it count for more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Deny, Gate, StepUp, User
from agentgate.decision.answer import RequiredHold
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.explain.asking import named_by_yes
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text

WORKFLOW = """
agentgate: workflow/v1
id: shop.pay
version: 1
title: Pay and look people up
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme, other]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents:
  pay:
    asks_for: Pay somebody.
    words: [pay, transfer]
    unclear: confirm
    examples: [Pay 20 to kim@acme.example]
tools:
  pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      amount: {type: number, min: "1", max: "1000", from: [prompt]}
      to: {type: email, from: [prompt, confirmed], unknown_origin: confirm}
      iban: {type: iban, from: [prompt, confirmed], unknown_origin: confirm, optional: true}
  tip:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      to: {type: email, from: [prompt, confirmed], unknown_origin: confirm}
  mail:
    effect: egress
    needs: [pay]
    redeem: wrapper
    args:
      to: {type: email, max_items: 10, from: [prompt, confirmed], unknown_origin: confirm}
      body: {text: 400, from: [model], entities: [prompt], unknown_origin: confirm}
  people.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {email: {type: email, from: [prompt, confirmed, people.get.boss], unknown_origin: confirm}}
    facts:
      boss: {type: email, trust: confirmed}
      secret: {type: email, trust: named}
  write:
    effect: write
    needs: [pay]
    redeem: wrapper
    args: {to: {type: email, from: [people.get.boss, people.get.secret]}}
step_up:
  - {id: whom, for: pay, when: {to: {origin: unknown}}, approvers: {user: true}, timeout: 10m}
  - {id: where, for: pay, when: {iban: {origin: unknown}}, approvers: {user: true}, timeout: 10m}
  - {id: what, for: pay, when: {intent: unclear}, approvers: {user: true}, timeout: 10m}
  - {id: tips, for: tip, when: {origin: unknown}, approvers: {user: true}, timeout: 10m}
  - {id: tipped, for: tip, when: {intent: unclear}, approvers: {user: true}, timeout: 10m}
  - {id: mails, for: mail, when: {origin: unknown}, approvers: {user: true}, timeout: 10m}
  - {id: mailed, for: mail, when: {intent: unclear}, approvers: {user: true}, timeout: 10m}
  - {id: reads, for: people.get, when: {origin: unknown}, approvers: {user: true}, timeout: 10m}
  - {id: writes, for: write, when: {intent: unclear}, approvers: {user: true}, timeout: 10m}
"""
LEE = User("lee", tenant="acme")
PROMPT = "Please pay 20 to the winner"
ANN, BOB, EVE = "ann@acme.example", "bob@acme.example", "eve@evil.example"
IBANS = "DE89370400440532013000", "GB82WEST12345698765432"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "pay.yaml").write_text(WORKFLOW)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as opened:
        yield opened


def run_of(gate: Gate, user: User = LEE) -> Any:
    return gate.open_run("shop.pay", tenant=user.tenant, user=user, agent=Agent("bot"), prompt=PROMPT)


class Talk:
    """One run, its calls numbered."""

    def __init__(self, gate: Gate, run: Any = None) -> None:
        self.gate, self.run, self.calls = gate, run or run_of(gate), 0

    def ask(self, tool: str, **args: Any) -> Any:
        self.calls += 1
        self.args = args
        return self.run.authorize(tool, args, tool_call_id=f"c{self.calls}")

    def asked(self, tool: str, **args: Any) -> bool:
        """Whether a person is asked, where the call is not refused for good."""
        answer = self.ask(tool, **args)
        assert not isinstance(answer, Deny), answer
        return isinstance(answer, StepUp)

    def yes(self, tool: str, *, done: bool = True, result: Any = None, by: User = LEE, **args: Any) -> Any:
        """The call, confirmed by the user and carried out."""
        held = self.ask(tool, **args)
        assert isinstance(held, StepUp), held
        self.gate.release(held.hold.id, tenant=self.run.tenant, by=by)
        if done:
            self.redeem(tool, self.run.authorize(tool, args, tool_call_id=f"c{self.calls}"), args, result)
        return held

    def redeem(self, tool: str, answer: Any, args: Any, result: Any = None) -> None:
        assert isinstance(answer, Allow), answer
        with self.run.redeem(answer.token, tool=tool, args=args) as call:
            if result is not None:
                call.record_result(result)


def test_a_confirmed_value_is_not_asked_about_again_and_the_question_says_so(gate: Gate) -> None:
    talk = Talk(gate)
    held = talk.yes("pay", amount=20, to=ANN)
    assert held.hold.question.endorses == ("to",)
    assert "Yes also lets the agent use this to for pay in this conversation" in str(held.hold.question)
    assert not talk.asked("pay", amount=20, to=ANN)
    found = talk.run.explain("pay", {"amount": 20, "to": ANN})
    assert "confirmed by the user" in str(found)
    assert talk.asked("pay", amount=20, to=EVE)


def test_it_counts_for_no_other_argument_tool_run_or_user(gate: Gate) -> None:
    talk = Talk(gate)
    talk.yes("pay", amount=20, to=ANN)
    assert talk.asked("tip", to=ANN)
    assert talk.asked("mail", to=[ANN], body="hi")
    assert Talk(gate).asked("pay", amount=20, to=ANN)
    assert Talk(gate, run_of(gate, User("kim", tenant="acme"))).asked("pay", amount=20, to=ANN)
    assert Talk(gate, run_of(gate, User("lee", tenant="other"))).asked("pay", amount=20, to=ANN)


def test_values_of_two_yeses_are_not_recombined(gate: Gate) -> None:
    talk = Talk(gate)
    talk.yes("pay", amount=20, to=ANN, iban=IBANS[0])
    talk.yes("pay", amount=20, to=BOB, iban=IBANS[1])
    assert not talk.asked("pay", amount=20, to=ANN, iban=IBANS[0])
    assert talk.asked("pay", amount=20, to=ANN, iban=IBANS[1])
    assert talk.asked("pay", amount=20, to=BOB, iban=IBANS[0])


def test_two_yeses_under_one_id_are_not_recombined(gate: Gate) -> None:
    """The agent chooses the id of a call, and may give it to several."""
    talk = Talk(gate)
    for to, iban in zip((ANN, BOB), IBANS, strict=True):
        talk.calls = 0
        talk.yes("pay", amount=20, to=to, iban=iban)
    assert not talk.asked("pay", amount=20, to=ANN, iban=IBANS[0])
    assert talk.asked("pay", amount=20, to=ANN, iban=IBANS[1])


def test_a_call_whose_yes_names_nothing_joins_no_values_of_others(gate: Gate) -> None:
    talk = Talk(gate)
    store: Any = gate._store
    talk.yes("pay", amount=20, to=ANN, iban=IBANS[0])
    talk.yes("pay", amount=20, to=BOB, iban=IBANS[1])
    held = talk.ask("pay", amount=20, to=ANN, iban=IBANS[1])
    key = f"ag:{{acme}}:hold:{held.hold.id}"
    store._client.hset(key, "body", json.dumps({**json.loads(store._client.hget(key, "body")), "seal": ""}))
    gate.release(held.hold.id, tenant="acme", by=LEE)
    talk.redeem("pay", talk.run.authorize("pay", talk.args, tool_call_id=f"c{talk.calls}"), talk.args)
    assert talk.asked("pay", amount=20, to=ANN, iban=IBANS[1])


def test_an_account_that_was_confirmed_for_one_person_is_payable_to_no_other(gate: Gate) -> None:
    """The user named both people, and said yes to the account of one."""
    words = f"Please pay 20 to {ANN}, pay 20 to {BOB}"
    talk = Talk(gate, gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=words))
    talk.yes("pay", amount=20, to=ANN, iban=IBANS[0])
    assert not talk.asked("pay", amount=20, to=ANN, iban=IBANS[0])
    assert talk.asked("pay", amount=20, to=BOB, iban=IBANS[0])


@pytest.mark.parametrize("rule", ["from: [prompt, confirmed]", "any_call: true, from: [prompt, confirmed, people.get.boss]"])
@pytest.mark.parametrize("to", [[ANN, BOB], [ANN] * 20 + [BOB], ["kim@acme.example", ANN, BOB]])
def test_a_list_of_values_of_two_yeses_is_asked_about(tmp_path: Path, to: list[str], rule: str) -> None:
    (tmp_path / "pay.yaml").write_text(WORKFLOW.replace("max_items: 10, from: [prompt, confirmed]", f"max_items: 30, {rule}"))
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        words = "Please pay 20 to kim@acme.example"
        talk = Talk(gate, gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=words))
        talk.yes("mail", to=[ANN], body="hi")
        talk.yes("mail", to=[BOB], body="hi")
        assert not talk.asked("mail", to=[ANN], body="hi")
        assert talk.asked("mail", to=to, body="hi")


def test_a_yes_to_a_list_names_that_list_and_none_of_its_values(gate: Gate) -> None:
    talk = Talk(gate)
    slipped = [*[f"p{n}@acme.example" for n in range(9)], EVE]
    assert talk.yes("mail", to=slipped, body="hi").hold.question.endorses == ("to",)
    for other in ([EVE], slipped[:1], slipped[:-1], slipped[1:], [*slipped[1:], ANN], [ANN, EVE]):
        assert talk.asked("mail", to=other, body="hi"), other
    assert not talk.asked("mail", to=slipped, body="other words")
    assert not talk.asked("mail", to=slipped[::-1], body="hi")
    talk.yes("mail", to=[ANN], body="hi")
    talk.yes("mail", to=[BOB], body="hi")
    assert not talk.asked("mail", to=[ANN], body="other words")
    assert talk.asked("mail", to=[ANN, BOB], body="hi")


def test_a_yes_to_several_rows_names_no_part_of_them(tmp_path: Path) -> None:
    parts = "max_items: 3, from: [prompt, confirmed], unknown_origin: confirm"
    rows = f"rows[].to: {{type: email, {parts}}}\n      rows[].iban: {{type: iban, {parts}}}"
    text = WORKFLOW.replace("to: {type: email, max_items: 10, from: [prompt, confirmed], unknown_origin: confirm}", rows)
    (tmp_path / "pay.yaml").write_text(text)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        talk, ann, bob = Talk(gate), {"to": ANN, "iban": IBANS[0]}, {"to": BOB, "iban": IBANS[1]}
        assert talk.yes("mail", rows=[ann, bob], body="hi").hold.question.endorses == ()
        swapped = [{**ann, "iban": bob["iban"]}, {**bob, "iban": ann["iban"]}]
        for other in ([ann, bob], swapped, [ann], [bob]):
            assert talk.asked("mail", rows=other, body="hi"), other
        assert talk.yes("mail", rows=[ann], body="hi").hold.question.endorses == ()
        assert talk.asked("mail", rows=[ann], body="other words")


def test_it_explains_no_entity_in_a_text_and_gives_no_intent(gate: Gate) -> None:
    talk = Talk(gate)
    talk.yes("mail", to=[ANN], body="hi")
    assert talk.asked("mail", to=[ANN], body=f"write to {ANN}")
    talk.run.add_turn("Do not pay or transfer anything")
    assert isinstance(talk.ask("mail", to=[ANN], body="hi"), Deny)


def test_what_the_question_did_not_show_as_open_is_not_named_by_a_yes(gate: Gate, tmp_path: Path) -> None:
    text = WORKFLOW.replace("{id: whom, for: pay, when", "{id: whom, for: pay, show: [amount], when").replace(
        "v1\nid: shop.pay", "v1\nid: shop.hidden"
    )
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "pay.yaml").write_text(text)
    with Gate.open_unsafe_unapproved(tmp_path / "w", issuer="https://gate.example", audit="memory://") as other:
        talk = Talk(other, other.open_run("shop.hidden", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT))
        assert talk.yes("pay", amount=20, to=ANN).hold.question.endorses == ()
        assert talk.asked("pay", amount=20, to=ANN)
    run = gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=f"Could somebody pay 20 to {ANN}?")
    talk = Talk(gate, run)
    answer = talk.ask("pay", amount=20, to=ANN)
    if isinstance(answer, StepUp):  # about the intent: the address was not open
        assert answer.hold.question.endorses == ()


BOSS = User("boss", tenant="acme", groups=["leads"])


def by_leads(endorses: str = "") -> str:
    """The workflow in which leads are asked about whom and which account, and their yes endorses this."""
    rules = [
        f"{{id: {of}, for: pay, when: {{{name}: {{origin: unknown}}}}, approvers: {{user: true}}"
        for of, name in (("whom", "to"), ("where", "iban"))
    ]
    text = WORKFLOW
    for rule in rules:
        assert rule in text
        text = text.replace(rule, rule.replace("{user: true}", f"{{group: leads}}{endorses}"))
    return text


def test_a_groups_yes_names_what_its_rule_endorses_and_marks_no_read(tmp_path: Path) -> None:
    reads = "{id: reads, for: people.get, when: {origin: unknown}, approvers: {user: true}"
    text = by_leads(", endorses: [to]").replace(reads, reads.replace("{user: true}", "{group: leads}, endorses: [email]"))
    (tmp_path / "pay.yaml").write_text(text)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        talk = Talk(gate)
        held = talk.yes("pay", by=BOSS, amount=20, to=ANN, iban=IBANS[0])
        assert held.hold.question.endorses == ("to",), "where is no part of what both rules endorse"
        assert "Yes also lets the agent use this to for pay in this conversation" in str(held.hold.question)
        assert talk.asked("pay", amount=20, to=ANN, iban=IBANS[0])
        talk.yes("pay", by=BOSS, amount=20, to=BOB)
        assert not talk.asked("pay", amount=20, to=BOB)
        talk.yes("people.get", by=BOSS, email=ANN, result={"boss": EVE, "secret": EVE})
        assert not talk.asked("people.get", email=ANN)
        assert isinstance(talk.ask("write", to=EVE), Deny), "a read rests on the user's own yes alone"


def test_what_a_question_said_counts_only_as_far_as_the_rules_that_ask_now_say_it() -> None:
    """A hold is opened under one version and spent under the next, in which nobody's yes names anything."""
    before, now = (load_text(by_leads(more), "w.yaml", {}, derive) for more in (", endorses: [to]", ""))
    first, later = (tuple(RequiredHold(rule, ()) for rule in each.tools["pay"].step_ups if rule.group) for each in (before, now))
    assert named_by_yes(first, ("to", "iban")) == ("to",)
    assert named_by_yes(later, ("to", "iban")) == ()
    assert named_by_yes((*first, *later), ("to", "iban")) == ()


def test_a_rule_that_endorses_more_is_wider_in_the_diff() -> None:
    without, more = (load_text(by_leads(each), "w.yaml", {}, derive) for each in ("", ", endorses: [to]"))
    assert {finding.field for finding in compare(without, more).wider} == {"step_up.whom.endorses", "step_up.where.endorses"}
    assert not compare(more, without).wider


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{group: leads}", "{group: leads}, endorses: [amount]", "whose from lists confirmed"),
        ("{group: leads}", "{group: leads}, endorses: [nobody]", "whose from lists confirmed"),
        (
            "{id: what, for: pay, when: {intent: unclear}, approvers: {user: true}",
            "{id: what, for: pay, when: {intent: unclear}, endorses: [to], approvers: {user: true}",
            "no endorses",
        ),
    ],
)
def test_endorses_names_what_a_yes_can_name(old: str, new: str, expected: str) -> None:
    text = by_leads()
    assert old in text
    with pytest.raises(WorkflowError, match=expected):
        load_text(text.replace(old, new), "w.yaml", {}, derive)


def test_a_groups_yes_names_nothing(tmp_path: Path) -> None:
    rule = "{id: whom, for: pay, when: {to: {origin: unknown}}, approvers: {user: true}"
    assert rule in WORKFLOW
    (tmp_path / "pay.yaml").write_text(WORKFLOW.replace(rule, rule.replace("{user: true}", "{group: leads}")))
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        talk = Talk(gate)
        held = talk.yes("pay", by=User("boss", tenant="acme", groups=["leads"]), amount=20, to=ANN)
        assert held.hold.question.endorses == ()
        assert talk.asked("pay", amount=20, to=ANN)


def test_a_yes_whose_call_did_not_run_names_nothing(gate: Gate) -> None:
    talk = Talk(gate)
    talk.yes("pay", done=False, amount=20, to=ANN)
    assert talk.asked("pay", amount=20, to=ANN)


def test_a_no_a_withdrawal_and_the_end_of_the_run_end_it(gate: Gate) -> None:
    talk = Talk(gate)
    talk.yes("pay", amount=20, to=ANN)
    talk.run.add_turn("thanks")
    assert not talk.asked("pay", amount=20, to=ANN)
    talk.run.add_turn("No, stop that")
    talk.run.add_turn(PROMPT)
    assert talk.ask("pay", amount=20, to=ANN).hold.question.endorses == ("to",)  # the address is open again
    denied = Talk(gate)
    denied.yes("pay", amount=20, to=ANN)
    denied.run.add_turn("Don't use that address, please pay 20 to the winner")  # a no to the value, and none to the act
    assert denied.ask("pay", amount=20, to=ANN).hold.question.endorses == ("to",)
    doubted = Talk(gate)
    doubted.yes("pay", amount=20, to=ANN)
    doubted.run.add_doubt("stop, do not pay that")  # perhaps the user's
    assert doubted.ask("pay", amount=20, to=ANN).hold.question.endorses == ("to",)
    closed = Talk(gate)
    closed.yes("pay", amount=20, to=ANN)
    closed.run.close()
    assert isinstance(closed.ask("pay", amount=20, to=ANN), Deny)


@pytest.mark.parametrize(
    ("first", "then"),
    [(PROMPT, "If Kim agrees, pay 20 to the winner"), ("Maybe pay 20 to the winner", "Pay only after I come back")],
)
def test_a_yes_that_ended_does_not_count_again_for_a_gate_that_did_not_see_it_end(gate: Gate, first: str, then: str) -> None:
    """No word says no, and so only the intent tells that it was taken back; asked for again, it is as clear as it was."""
    talk = Talk(gate, gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=first))
    talk.yes("pay", amount=20, to=ANN)
    for turn in (PROMPT, then, PROMPT):
        talk.run.add_turn(turn)
    talk.run = gate.resume_run("acme", talk.run.id)
    assert talk.ask("pay", amount=20, to=ANN).hold.question.endorses == ("to",)


def test_a_yes_that_somebody_wrote_into_the_store_names_nothing(gate: Gate) -> None:
    talk = Talk(gate)
    held = talk.ask("pay", amount=20, to=ANN, iban=IBANS[0])
    store: Any = gate._store
    key = f"ag:{{acme}}:hold:{held.hold.id}"
    body = json.loads(store._client.hget(key, "body"))
    body["question"]["endorses"] = [*body["question"].get("endorses", ()), "amount"]
    store._client.hset(key, "body", json.dumps(body))
    gate.release(held.hold.id, tenant="acme", by=LEE)
    talk.redeem("pay", talk.run.authorize("pay", talk.args, tool_call_id="c1"), talk.args)
    assert talk.asked("pay", amount=20, to=ANN, iban=IBANS[0])  # the seal is broken: a yes to one exact call


def test_a_confirmed_read_gives_what_its_facts_say_and_never_the_users_words(gate: Gate) -> None:
    talk = Talk(gate)
    talk.yes("people.get", email=EVE, result={"boss": BOB, "secret": "s@evil.example"})
    assert not talk.asked("write", to=BOB)
    assert isinstance(talk.ask("write", to="s@evil.example"), Deny)  # trust: named: nobody named that read
    answer = talk.ask("people.get", email=BOB)  # a read that rests on it
    talk.redeem("people.get", answer, {"email": BOB}, {"boss": "top@evil.example", "secret": "t@evil.example"})
    assert not talk.asked("write", to="top@evil.example")
    assert isinstance(talk.ask("write", to="t@evil.example"), Deny)


def test_a_read_that_nobody_confirmed_gives_nothing(gate: Gate) -> None:
    talk = Talk(gate)
    assert isinstance(talk.ask("write", to=BOB), Deny)


@pytest.mark.parametrize(("words", "counts"), [("for Mallory Smith", True), ("but do not ask Mallory Smith", False)])
def test_a_read_of_whom_the_user_denied_rests_on_no_yes(tmp_path: Path, words: str, *, counts: bool) -> None:
    """Denied words tell rows apart, and make none the user's."""
    book = "args: {}, facts: {name: {type: text, path: '[].name'}, email: {type: email, path: '[].email', named_by: [name]}}}"
    text = WORKFLOW.replace("people.get.boss], unknown", "people.get.boss, book.email], unknown")
    text = text.replace("tools:\n", f"tools:\n  book: {{effect: read, needs: any, redeem: wrapper, {book}\n")
    (tmp_path / "pay.yaml").write_text(text)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        prompt = f"{PROMPT}, {words}"
        talk = Talk(gate, gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt))
        people = [{"name": "Mallory Smith", "email": EVE}, {"name": "Ann Lee", "email": ANN}]
        talk.redeem("book", talk.ask("book"), {}, people)
        talk.redeem("people.get", talk.ask("people.get", email=EVE), {"email": EVE}, {"boss": BOB, "secret": BOB})
        assert isinstance(talk.ask("write", to=BOB), Allow) is counts


def test_a_read_that_asks_for_nothing_rests_on_no_yes(tmp_path: Path) -> None:
    """Nothing is asked for in it, and so nobody said yes to anything: what it returns is whatever somebody put there."""
    email = "email: {type: email, from: [prompt, confirmed, people.get.boss], unknown_origin: confirm}"
    assert email in WORKFLOW
    (tmp_path / "pay.yaml").write_text(WORKFLOW.replace(email, email.replace("}", ", optional: true}")))
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        talk = Talk(gate)
        talk.redeem("people.get", talk.ask("people.get"), {}, {"boss": EVE, "secret": EVE})
        assert isinstance(talk.ask("write", to=EVE), Deny)


def test_a_read_that_is_asked_for_some_of_the_users_words_rests_on_no_yes(tmp_path: Path) -> None:
    """The words are the user's; which of them are looked for is the model's choice, and nobody said yes to it."""
    email = "email: {type: email, from: [prompt, confirmed, people.get.boss], unknown_origin: confirm}"
    assert email in WORKFLOW
    (tmp_path / "pay.yaml").write_text(WORKFLOW.replace(email, "email: {type: text, from: [prompt], unknown_origin: confirm}"))
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        talk, args = Talk(gate), {"email": "to the"}
        talk.redeem("people.get", talk.ask("people.get", **args), args, {"boss": EVE, "secret": EVE})
        assert isinstance(talk.ask("write", to=EVE), Deny)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            'amount: {type: number, min: "1", max: "1000", from: [prompt]}',
            'amount: {type: number, min: "1", max: "1000", from: [prompt, confirmed], unknown_origin: confirm}',
            "confirmed",
        ),
        (
            "effect: write\n    needs: [pay]\n    redeem: wrapper\n    args:\n      to:",
            "effect: destructive\n    needs: [pay]\n    redeem: wrapper\n    args:\n      to:",
            "destructive",
        ),
        ("from: [prompt, confirmed], unknown_origin: confirm, optional: true", "from: [prompt, confirmed], optional: true", "confirmed"),
        ("unknown_origin: confirm, optional: true", "unknown_origin: confirm, optional: true, sensitive: true", "confirmed"),
        ("entities: [prompt]", "entities: [prompt, confirmed]", "confirmed"),
        ("boss: {type: email, trust: confirmed}", "boss: {type: number, trust: confirmed}", "confirmed"),
        ("boss: {type: email, trust: confirmed}", "boss: {type: email, trust: confirmed, find: one}", "find"),
        ("write:\n    effect: write", "write:\n    effect: destructive", "confirmed"),
    ],
)
def test_what_no_yes_may_name_does_not_load(old: str, new: str, why: str) -> None:
    assert old in WORKFLOW
    load_text(WORKFLOW, "w.yaml", {}, derive)
    with pytest.raises(WorkflowError, match=why):
        load_text(WORKFLOW.replace(old, new), "w.yaml", {}, derive)
