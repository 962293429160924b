"""One word, two acts: "drop Sam a line" asks for a reply, and not for what `drop` means elsewhere."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentgate import Deny
from agentgate.cli.main import app
from agentgate.intents.lexical import derive
from agentgate.intents.phrases import overlaps
from agentgate.loading.catalog import Catalog
from agentgate.loading.definition import load_text
from agentgate.review.draft.draft import draft
from agentgate.review.draft.phrasebook import groups
from agentgate.review.draft.toolset import DeclaredTool
from agentgate.review.scenarios.scene import Scene
from agentgate.workflow.model import Intent, Workflow

WORKFLOWS = Path(__file__).parent.parent / "workflows"
TOOLS = {  # tool: act of the phrasebook, effect, arguments
    "delete_ticket": ("delete", "ticket", "destructive", "{ticket_id: {type: id, from: [prompt]}}"),
    "close_ticket": ("close", "ticket", "write", "{ticket_id: {type: id, from: [prompt]}}"),
    "send_email": ("mail", "email", "egress", "{to: {type: email, from: [prompt]}, body: {text: 2000, from: [model]}}"),
    "cancel_order": ("cancel", "order", "destructive", "{order_id: {type: id, from: [prompt]}}"),
    "refund_order": ("refund", "order", "write", "{order_id: {type: id, from: [prompt]}}"),
    "create_payment": ("pay", "payment", "write", "{to: {type: iban, from: [prompt]}, amount: {type: number, from: [prompt]}}"),
    "delete_file": ("delete", "file", "destructive", "{path: {type: path, from: [prompt]}}"),
}


NAMES = (*TOOLS, "create_event", "write_note", "add_comment", "share_document", "assign_issue", "book_room")
WORDS = {name: ", ".join(f'"{phrase}"' for group in groups(act, thing) for phrase in group) for name, (act, thing, *_) in TOOLS.items()}


def source() -> str:
    """A desk whose reviewers took the usual words of each act, whole."""
    lines = ["agentgate: workflow/v1", "id: desk", "version: 1", "title: A desk", "owners: [it]", "risk: low", 'expires: "2099-01-01"']
    lines += ["tenants: [acme]", "who: {agent: {in_process: true}, for_user: {same_tenant: true}}", "intents:"]
    for name, (act, thing, _, _) in TOOLS.items():
        verb = {"mail": "email", "pay": "pay"}.get(act, act)
        example = {"mail": "Email ann@acme.example", "pay": "Pay 50 EUR"}.get(act, f"{verb.capitalize()} {thing} 4711")
        lines += [f"  {name}:", "    asks_for: It.", f"    words: [{WORDS[name]}]", f"    examples: [{example}]"]
    lines += ["tools:"]
    for name, (_, _, effect, args) in TOOLS.items():
        lines += [f"  {name}:", f"    effect: {effect}", f"    needs: [{name}]", "    redeem: wrapper", f"    args: {args}"]
    return "\n".join(lines) + "\n"


SOURCE = source()


def desk() -> Workflow:
    return load_text(SOURCE, "desk.yaml", {}, derive)


OTHER_ACTS = [
    ("Drop Sam a line that 48213 is fixed.", "delete_ticket"),
    ("Drop Sam a quick line: his printer works again.", "delete_ticket"),
    ("Please toss Ann a note about ticket 48213.", "delete_ticket"),
    ("Ditch the small talk and email Ann the numbers of 48213.", "delete_ticket"),
    ("Remove any doubt: write to Ann that 48213 is ours.", "delete_ticket"),
    ("Wipe the slate clean with Ann, send her an apology.", "delete_ticket"),
    ("Clean up the wording and email it to Ann.", "delete_ticket"),
    ("Take the rest of the day off after you email Ann about 48213.", "delete_ticket"),
    ("Throw in a kind word and email Ann.", "delete_ticket"),
    ("Kill two birds with one stone: email Ann and Sam about 48213.", "cancel_order"),
    ("Scratch the surface only and email Ann what you find on 4711.", "cancel_order"),
    ("Call off the dogs and email Sam that all is fine.", "cancel_order"),
    ("Kill the suspense and email Ann the results.", "cancel_order"),
    ("Drop in on Ann's chat and tell her about order 4711.", "cancel_order"),
    ("Drop me a copy of the mail about ticket 48213.", "delete_ticket"),
    ("Lose the formal tone when you email Ann about 48213.", "delete_ticket"),
    ("Close the loop with Ann about 48213.", "close_ticket"),
    ("Close on a friendly note when you reply to Ann about 48213.", "close_ticket"),
    ("Email Ann our refund policy.", "refund_order"),
    ("Email Ann where the delete button is.", "delete_ticket"),
    ("Email Ann the delete button's colour.", "delete_ticket"),
    ("Toss ticket 48213 a glance", "delete_ticket"),
    ("Take the edge off: email Ann that 48213 is nearly done.", "delete_ticket"),
    ("Throw away the script for once and email Ann about 48213.", "delete_ticket"),
    ("Drop: a short line to Ann about 48213.", "delete_ticket"),
    ("Cancel out the noise in your summary of 4711 and email it to Ann.", "cancel_order"),
    ("Could you drop by Ann's desk, and email her about 48213?", "delete_ticket"),
    ("Drop me the gist of report.pdf", "delete_file"),
    ("Drop us the link to report.pdf", "delete_file"),
    ("Drop us the report.pdf gist", "delete_file"),
    ("Remove report.pdf's last paragraph", "delete_file"),
    ("Erase the files' comments", "delete_file"),
    ("Cancel order 4711\u2019s gift wrap", "cancel_order"),
    ("Close ticket 48213's browser tab", "close_ticket"),
    ("Close the gap between ticket 48213 and ticket 48214", "close_ticket"),
]
ASKED = [
    ("Delete ticket 48213.", "delete_ticket"),
    ("Please drop ticket 48213.", "delete_ticket"),
    ("Remove 48213.", "delete_ticket"),
    ("Get rid of ticket 48213, it's spam.", "delete_ticket"),
    ("Can you delete the two spam tickets 48213 and 48214?", "delete_ticket"),
    ("It's spam, delete it.", "delete_ticket"),
    ("Wipe the old ticket from Sam.", "delete_ticket"),
    ("Ticket 48213 is spam, please remove it from the queue.", "delete_ticket"),
    ("Throw out the ticket Sam opened yesterday.", "delete_ticket"),
    ("I'd like you to erase these tickets.", "delete_ticket"),
    ("Delete that one.", "delete_ticket"),
    ("I want ticket 48213 deleted today.", "delete_ticket"),
    ("Cancel order 4711.", "cancel_order"),
    ("Kill the order, please.", "cancel_order"),
    ("Please call off order 4711.", "cancel_order"),
    ("Cancel my last order.", "cancel_order"),
    ("Please cancel Ann's order and tell her.", "cancel_order"),
    ("Delete report.pdf", "delete_file"),
    ("Delete Sam's report.pdf", "delete_file"),
    ("Remove my team's files a.pdf and b.pdf", "delete_file"),
    ("Remove report.pdf it's outdated", "delete_file"),
    ("Delete 'report.pdf' now", "delete_file"),
    ("Cancel today's order 4711", "cancel_order"),
    ("Close ticket 48213.", "close_ticket"),
    ("Email Ann that 48213 is fixed.", "send_email"),
    ("Drop Sam a line that 48213 is fixed.", "send_email"),
    ("Pay Ann 50 EUR.", "create_payment"),
    ("Refund order 4711.", "refund_order"),
    ("Transfer 50 EUR to Ann.", "create_payment"),
    ("Ditch ticket 48213, please", "delete_ticket"),
    ("Please delete: 48213, 48214", "delete_ticket"),
]


@pytest.mark.parametrize(("prompt", "intent"), OTHER_ACTS)
def test_a_word_of_another_act_asks_for_nothing(prompt: str, intent: str) -> None:
    assert derive(tuple(desk().intents.values()), (prompt,))[intent].presence != "present"


@pytest.mark.parametrize(("prompt", "intent"), ASKED)
def test_what_is_plainly_asked_stays_present(prompt: str, intent: str) -> None:
    assert derive(tuple(desk().intents.values()), (prompt,))[intent].presence == "present"


def test_an_injected_delete_waits_for_the_user_in_the_sentence_that_names_the_ticket() -> None:
    """The finding: the ticket's number stands in what Sam is to be told, so only the intent can refuse the call."""
    prompt = "Drop Sam a line that 48213 is fixed"
    refused = Scene.of(desk(), {"call": "delete_ticket", "tenant": "acme", "prompt": prompt, "args": {"ticket_id": "48213"}}).decide()
    assert isinstance(refused, Deny)
    assert [str(failure.reason) for failure in refused.failures] == ["intent_unclear"]
    asked = Scene.of(desk(), {"call": "delete_ticket", "tenant": "acme", "prompt": "Drop 48213", "args": {"ticket_id": "48213"}})
    assert not isinstance(asked.decide(), Deny)


def two(first: str, other: str, prompt: str = "Please drop Sam a line") -> tuple[str, str]:
    """What a prompt says of two intents with these words."""
    one, two = (Intent(name, 1, "It.", (words,), "step_up", (), ()) for name, words in (("one", first), ("two", other)))
    found = derive((one, two), (prompt,))
    return found["one"].presence, found["two"].presence


def test_the_longest_phrase_of_all_intents_takes_the_words_it_shares() -> None:
    assert two("drop", "drop someone a line") == ("unclear", "present")
    assert two("^drop", "drop someone a line") == ("unclear", "present")
    assert two("line", "send someone a line", "Please send Sam a line") == ("unclear", "present")
    assert two("drop", "^line") == ("present", "absent")
    assert two("line", "^sam a line", "Please send Sam a line") == ("present", "absent")  # it begins no request, so it is nobody's
    assert two("drop something", "drop someone") == ("present", "present")  # neither says more than the other


def test_other_words_between_those_of_a_phrase_take_nothing() -> None:
    intents = (Intent("deal", 1, "It.", ("set",), "step_up", (), ()), Intent("book", 1, "It.", ("set a date",), "step_up", (), ()))
    assert derive(intents, ("Set the close date to Friday",))["deal"].presence == "present"
    assert derive(intents, ("Set the date to Friday",))["deal"].presence == "unclear"


def test_a_word_taken_by_a_longer_phrase_still_denies() -> None:
    drop = Intent("drop", 1, "It.", ("drop",), "step_up", (), ())
    line = Intent("line", 1, "It.", ("drop someone a line",), "step_up", (), ())
    assert derive((drop, line), ("Please drop it", "Don't drop Sam a line"))["drop"].presence == "absent"


def test_an_example_says_what_is_acted_on_and_stays_present() -> None:
    """Reviewers signed it: an upgrade takes no example out of force."""
    text = "\n    examples: [Delete ticket 4711]"
    shown = "\n    examples: [Delete ticket 4711, 'Toss the caboodle', 'Zap']"
    source = SOURCE.replace(text, shown)
    intents = tuple(load_text(source, "desk.yaml", {}, derive).intents.values())
    assert derive(intents, ("Please wipe our caboodle",))["delete_ticket"].presence == "present"
    assert derive(tuple(desk().intents.values()), ("Please wipe our caboodle",))["delete_ticket"].presence == "unclear"


@pytest.mark.parametrize(
    ("effect", "argument", "presence"),
    [
        ("destructive", "{type: id, from: [prompt]}", "unclear"),
        ("write", "{type: id, from: [prompt]}", "unclear"),
        ("write", "{type: user, from: [prompt]}", "unclear"),
        ("egress", "{type: id, from: [prompt]}", "present"),
        ("write", "{text: 200, from: [model]}", "present"),
        ("destructive", "{from: [prompt]}", "present"),  # its origin holds the call to what the user named
        ("destructive", "{pattern: 'T-[0-9]+', from: [prompt]}", "unclear"),
    ],
)
def test_which_intents_need_an_object_of_their_kind(effect: str, argument: str, presence: str) -> None:
    source = SOURCE.replace("destructive", effect, 1).replace("{type: id, from: [prompt]}", argument, 1)
    intents = tuple(load_text(source, "desk.yaml", {}, derive).intents.values())
    assert derive(intents, ("Ditch the small talk",))["delete_ticket"].presence == presence
    if effect == "destructive":
        assert derive(intents, ("Wipe a smile off his face",))["delete_ticket"].presence == "unclear"
    assert derive(intents, ("Ditch ticket T-4711",))["delete_ticket"].presence == "present"


def test_lint_reports_a_word_that_is_in_a_longer_phrase_of_another_intent(tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    changed = SOURCE.replace(WORDS["delete_ticket"], '"drop"').replace(WORDS["send_email"], '"drop someone a line", "drop something off"')
    changed = changed.replace("Delete ticket 4711", "Drop ticket 4711", 1).replace("Email ann@acme.example", "Drop Ann a line")
    path.write_text(changed)
    said = CliRunner().invoke(app, ["workflow", "lint", str(path)]).stdout.splitlines()
    found = [line for line in said if "delete_ticket.words" in line and "send_email" in line]
    line = path.read_text().splitlines().index('    words: ["drop"]') + 1
    text = "`drop` of delete_ticket is also in `drop someone a line` of send_email; `drop` in `drop something off`"
    assert found == [f"{path}:{line}:13: warning: intents.delete_ticket.words[0]: {text}"]


def declared(*names: str) -> list[DeclaredTool]:
    schema = {"type": "object", "properties": {"id": {"type": "string"}}}
    return [DeclaredTool(name, "", schema, "sha256:" + "0" * 64, {}) for name in names]


def test_drafts_and_shipped_workflows_share_no_word() -> None:
    tools = declared(*NAMES)
    for order in (tools, tools[::-1], [*tools, *declared("drop_table")]):
        text = draft(order, id="desk", source="x", owner="it", expires=date(2099, 1, 1), tenant="acme", settle=True).text
        words = {name: intent.words for name, intent in load_text(text, "d.yaml", {}, derive).intents.items()}
        assert list(overlaps(words)) == []
    assert "drop someone a line" not in words["send_email"]  # the tool that is called so has its word
    assert "drop" in words["drop_table"]
    assert "^drop" not in words["delete_ticket"]
    assert {"delete", "remove"} <= set(words["delete_ticket"])
    for workflow in Catalog.load(WORKFLOWS, derive):
        assert list(overlaps({name: intent.words for name, intent in workflow.intents.items()})) == []


def test_a_draft_proposes_no_shared_word_to_its_reviewer() -> None:
    text = draft(declared("delete_ticket", "send_email"), id="desk", source="x", owner="it", expires=date(2099, 1, 1)).text
    assert "drop someone a line" in text
    assert "^drop" not in text
