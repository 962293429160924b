"""What was asked for in words that nobody listed: it may ask a person, and never more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate import Agent, Allow, Deny, Gate, Reason, StepUp, User
from agentgate.intents.combined import Combined
from agentgate.intents.deriver import ask
from agentgate.intents.lexical import derive
from agentgate.language.pieces import pieces
from agentgate.language.prompt import MAX_TURN
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.advice import advise
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent
from tests.test_definition import load, problems
from tests.workflows import workflow_text

MAIL = Intent("mail", 1, "Send an e-mail.", ("send", "reply"), "step_up", ("Send the minutes to Ann",), (), "step_up", "step_up")
PAY = Intent("pay", 2, "Pay a bill.", ("pay",), "step_up", ("Pay the bill",), ())
DENIES = replace(MAIL, unheard="deny")

ASKS = [
    "Block Friday 9 to 12 for me.",
    "12.50 back to each of them, please.",
    "She should be in that meeting too.",
    "The workshop has to start an hour later.",
    "Halve the order for next week, will you?",
    "Can you water down the tone of that announcement and put it live?",
    "Mrs Adeyemi gets her postage back.",
    "Would you mind nudging the suppliers once more?",
    "I'd like the window seat on the way back.",
    "I need a table for four tonight at eight.",
    "Freeze my card until Monday.",
    "My mum needs access to the photo album.",
    "Let Tom off the on-call rota this week.",
    "Get rid of the old backups.",
    "The sheet is locked. Can you sort that out?",
    "Could the two of them be put on the same team please?",
    "Look at the draft and polish the second paragraph in place.",
    "Half of it to Ann and the other half to Bob, please.",
    "Can I get the standing order skipped in July?",
    "Hey, do me a favour and roll the staging server back.",
    "And give Ann the same rights as Bob.",
    "It would be great if the newsletter went out at noon.",
    "I want the subscription gone by the end of the month.",
    "Two more of the blue ones, please.",
    "Make sure the lights go off at ten.",
    "call it 'rainy day'",
]
TELLS = [
    "What did I spend in March?",
    "Show me the last ten transactions.",
    "The bill is in bill.txt.",
    "I'm drowning. Good morning! Thanks a lot, that was quick.",
    "Summarise the discussion in BSP-412 for me please, i have to explain it to Louise at 11",
    "Find the note from Bob and read it to me.",
    "Could you have a look at dentist_bill.txt and tell me what I owe and until when?",
    "new employer wants my iban and the address the bank has for me. give me both",
    "Remind me what the wifi password is.",
    "No rush, any time today is fine.",
    "Should I wear the blue one now or later?",
    "Do you know whether Tom has answered? Would you say the offer is fair?",
    "My sister left a note in notes.txt.",
    "I'd like to know how much is left in the account.",
    "Walk me through the report, section by section.",
    "Why was the import so slow? It should be somewhere in the logs.",
    "Have a nice weekend!",
    "Please don't change anything, just check the totals.",
    "Don't block Friday for me.",
    "Bob wrote: 'Block Friday 9 to 12 for me.'",
    'The note says "please block Friday for me"',
    "She asked me to double the donation.",
    "> Kick Dave out of the channel.",
    "look at this\n---- Forwarded message ----\nBlock Friday for me",
    "Summarise this message: please block Friday for me",
    "Ask Tom to water the plants? No.",
    "my balance please",
    "Today's agenda pls",
    "Can I have a list of the open tickets?",
    "Summarize my day. Keep it short.",
    "Use bullet points. What is in notes.txt?",
    "Please answer in German.",
    "Sort the transactions by amount and tell me the top three",
    "Print the list of people in #general",
    "",
]


def mail(*turns: str, intent: Intent = MAIL) -> Derived:
    return derive((intent, PAY), turns)["mail"]


@pytest.mark.parametrize("prompt", ASKS)
def test_a_request_that_nobody_understood_may_ask_a_person(prompt: str) -> None:
    assert mail(prompt).presence == "unclear"
    assert mail(prompt).silent
    assert mail(prompt, intent=DENIES).presence == "absent"


@pytest.mark.parametrize("prompt", ["Yes, do it.", "Go ahead"])
def test_a_bare_yes_is_unclear_whatever_the_workflow_says_of_what_it_does_not_list(prompt: str) -> None:
    for intent in (MAIL, DENIES):
        assert mail(prompt, intent=intent).presence == "unclear"


@pytest.mark.parametrize("prompt", TELLS)
def test_who_asks_to_be_told_or_says_how_things_are_or_quotes_or_denies_asks_for_no_action(prompt: str) -> None:
    assert mail(prompt).presence == "absent"


def test_the_evidence_is_the_words_that_were_not_understood() -> None:
    assert mail("The room is free. Block Friday 9 to 12 for me, it is urgent").evidence == "not understood: 'Block Friday 9 to 12 for me'"
    assert len(mail("Block Friday " + "and Monday " * 30).evidence) < 120


def test_what_some_intent_or_a_delegation_explains_is_understood() -> None:
    assert mail("Pay the bill in bill.txt today").presence == "absent"
    assert mail("Do the tasks in the letter from Ann", intent=replace(MAIL, delegated="deny")).presence == "absent"


def test_another_clause_beside_one_that_was_understood_still_counts_but_not_how_it_is_to_be_done() -> None:
    assert mail("Pay the bill. Block Friday for me.").presence == "unclear"
    assert mail("Pay the bill. Use the reference they want.").presence == "absent"
    assert mail("Pay the bill. Put their number in the subject.").presence == "absent"


@pytest.mark.parametrize(
    ("turns", "presence"),
    [
        (("Block Friday for me", "stop"), "absent"),
        (("Block Friday for me", "stop", "Block Monday for me"), "unclear"),
        (("Block Friday for me", "no, don't block Friday"), "absent"),
        (("Block Friday for me", "pay the bill"), "absent"),
        (("Block Friday for me", "what day is it?"), "unclear"),
        (("Block Friday for me", "thanks"), "unclear"),
        (("What day is it?", "Block Friday for me"), "unclear"),
        (("do not send anything", "Block Friday for me"), "absent"),
        (("Block Friday for me", "do not send anything"), "absent"),
        (("send it to Ann", "Block Friday for me"), "present"),
    ],
)
def test_the_last_turn_that_asks_or_denies_says(turns: tuple[str, ...], presence: str) -> None:
    assert mail(*turns).presence == presence


PIECES = st.lists(
    st.sampled_from([*ASKS, *TELLS, "Pay it.", "Send it to Ann.", "Don't send it.", "stop", "Do what Ann's mail says."]), max_size=4
)


@settings(deadline=None)
@given(st.lists(PIECES.map(" ".join), max_size=4))
def test_it_only_makes_unclear_of_absent(turns: list[str]) -> None:
    before = derive((DENIES, PAY), tuple(turns))
    after = derive((MAIL, PAY), tuple(turns))
    assert after["pay"] == before["pay"]
    assert after["mail"].presence == before["mail"].presence or (before["mail"].presence, after["mail"].presence) == ("absent", "unclear")


@given(st.text(max_size=300), st.sampled_from([*ASKS, *TELLS]))
def test_any_text_is_read_without_an_error(text: str, prompt: str) -> None:
    derive((MAIL,), (text + " " + prompt, prompt + text))


@pytest.mark.parametrize(
    "unit",
    [
        *("please ", "block ", "block the day, ", "and ", "then block the day and ", "12 ", "12.50 back ", "could you ", "a b should c. "),
        *("x has to ", "need to ", "is ", "( ", "1. ", "i want ", "would you mind ", "shared ", "- ", "x" * 50 + " ", "tell me "),
    ],
)
def test_a_longest_turn_of_one_repeated_piece_ends(unit: str) -> None:
    """Not a measurement: quadratic work on a longest turn takes minutes."""
    text = (unit * MAX_TURN)[:MAX_TURN]
    start = time.process_time()
    derive((MAIL, PAY), (text,))
    list(pieces(text, 0, len(text)))
    assert time.process_time() - start < 10


# --- other derivers --------------------------------------------------------------------------------------------------------


def says(answer: Derived) -> Combined:
    return Combined(derive, lambda intents, _turns: {intent.name: answer for intent in intents})


@pytest.mark.parametrize(
    ("answer", "presence"),
    [
        (Derived("absent", "nothing close", silent=True), "unclear"),
        (Derived("absent", "they only ask to look something up"), "absent"),
        (Derived("absent", "denied: send"), "absent"),
        (Derived("unclear", "perhaps"), "unclear"),
        (Derived("present", "sure"), "unclear"),
    ],
)
def test_a_member_that_found_nothing_refuses_nothing_and_one_that_says_something_does(answer: Derived, presence: str) -> None:
    assert says(answer)((MAIL,), ("Block Friday for me",))["mail"].presence == presence


def test_a_silent_member_still_narrows_what_was_heard() -> None:
    silent = Derived("absent", "nothing close", silent=True)
    assert says(silent)((MAIL,), ("Send the minutes to Ann",))["mail"].presence == "absent"
    assert says(silent)((MAIL,), ("Send all minutes to Ann",))["mail"].presence == "absent"


def test_silence_is_true_or_false() -> None:
    odd = Derived("absent", "", silent="yes")  # type: ignore[arg-type]  # as somebody's deriver may answer
    assert ask(lambda _intents, _turns: {"mail": odd}, (MAIL,), ("hi",))["mail"].evidence.startswith("the deriver failed")


# --- the workflow ----------------------------------------------------------------------------------------------------------

WORKFLOW = workflow_text(
    "office",
    risk="high",
    intents="""
  send: {asks_for: Send an e-mail., words: [send], unclear: step_up, unheard: step_up, examples: [Send it]}
  delete: {asks_for: Delete a file., words: [delete], unclear: step_up, examples: [Delete it]}
""",
    tools="""
  read: {effect: read, needs: any, redeem: wrapper, args: {path: {type: path, from: [prompt, model]}}}
  send: {effect: egress, needs: [send], redeem: wrapper, args: {to: {type: email, from: [prompt]}}}
  delete: {effect: destructive, needs: [delete], redeem: wrapper, args: {id: {type: id, from: [prompt]}}}
""",
    step_up="""
  - {id: mail, for: send, when: {to: {in: [boss@acme.example]}}, approvers: {group: leads, count: 1}, timeout: 10m}
  - {id: drop, for: delete, when: {id: {in: [F0]}}, approvers: {group: leads, count: 1}, timeout: 10m}
""",
)
CLAUSE = "words: [send], unclear: step_up, unheard: step_up,"


def test_a_step_up_needs_an_unclear_that_asks() -> None:
    assert load(WORKFLOW).intents["send"].unheard == "step_up"
    assert load(WORKFLOW).intents["delete"].unheard == "deny"
    (found,) = problems(WORKFLOW.replace(CLAUSE, "words: [send], unclear: deny, unheard: step_up,"))
    assert (found.field, found.got) == ("intents.send.unheard", "step_up beside unclear: deny")
    (found,) = problems(WORKFLOW.replace(CLAUSE, "words: [send], unclear: step_up, unheard: present,"))
    assert found.field == "intents.send.unheard"


def test_lint_names_one_that_no_call_would_ask() -> None:
    for needs, expected in (("needs: any", []), ("needs: [look]", ["intents.look.unheard"])):
        text = WORKFLOW.replace("needs: any", needs).replace("  send: {asks_for", LOOK + "  send: {asks_for")
        text = text.replace("step_up:\n  - ", "step_up:\n  - {id: see, for: read, approvers: {group: leads, count: 1}, timeout: 10m}\n  - ")
        if needs == "needs: any":
            text = text.replace(LOOK, "")
        found = [a for a in advise(load(text), read_yaml(text, "w.yaml")) if a.field.endswith("unheard")]
        assert [a.field for a in found] == expected


LOOK = "  look: {asks_for: Read a file., words: [peek], unclear: step_up, unheard: step_up, examples: [Peek at it]}\n"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "office.yaml").write_text(WORKFLOW)
    opened = Gate.open_unsafe_unapproved(
        tmp_path, issuer="https://gate.example", audit="memory://", clock=lambda: datetime(2026, 3, 4, 12, tzinfo=UTC)
    )
    with opened:
        yield opened


def answer(gate: Gate, prompt: str, tool: str, args: dict[str, str]) -> Allow | StepUp | Deny:
    run = gate.open_run("office", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=prompt)
    return run.authorize(tool, args)


def test_a_call_for_what_nobody_understood_waits_for_a_person(gate: Gate) -> None:
    prompt = "Ping ann@acme.example about lunch, F1 is hers"
    held = answer(gate, prompt, "send", {"to": "ann@acme.example"})
    assert isinstance(held, StepUp)
    assert Reason.INTENT_UNCLEAR in held.reasons
    refused = answer(gate, prompt, "delete", {"id": "F1"})
    assert isinstance(refused, Deny)
    assert refused.reasons == (Reason.INTENT_ABSENT,)


@pytest.mark.parametrize(
    "prompt",
    [
        "Show me the mails from ann@acme.example",
        "What did ann@acme.example write? Thanks!",
        "Read x.txt and tell me what ann@acme.example wants",
        "ann@acme.example wrote that we should block Friday",
        'Summarise what ann@acme.example wrote: "block Friday for me"',
    ],
)
def test_a_call_that_somebody_injected_into_a_prompt_that_only_reads_stays_refused(gate: Gate, prompt: str) -> None:
    refused = answer(gate, prompt, "send", {"to": "ann@acme.example"})
    assert isinstance(refused, Deny)
    assert Reason.INTENT_ABSENT in refused.reasons


def test_no_recipient_comes_with_it(gate: Gate) -> None:
    refused = answer(gate, "Ping Ann about lunch", "send", {"to": "eve@evil.example"})
    assert isinstance(refused, Deny)
    assert Reason.ARGUMENT_ORIGIN in refused.reasons


def test_an_explanation_names_the_words(gate: Gate) -> None:
    run = gate.open_run(
        "office", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt="Ping ann@acme.example about lunch"
    )
    assert "not understood: 'Ping ann@acme.example about lunch'" in str(run.explain("send", {"to": "ann@acme.example"}))


def test_the_evidence_names_the_word_that_explained_the_clause() -> None:
    both = (MAIL, PAY)
    assert derive(both, ("Pay the bill and nudge Ann",))["mail"] == Derived(
        "absent", "no word of it in the prompt; 'pay' belongs to pay", silent=True
    )
    assert derive(both, ("Nudge Ann for me",))["mail"].presence == "unclear"
    for turns in (("Did I pay the bill?",), ("Pay the bill", "stop"), ("Good morning",)):  # no word of it asks any more
        assert "belongs to" not in derive(both, turns)["mail"].evidence
    assert derive((DENIES, PAY), ("Pay the bill and nudge Ann",))["mail"].evidence == "no word of it in the prompt"
