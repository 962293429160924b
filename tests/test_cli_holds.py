"""``agentgate holds``: an approver at a terminal, with their own SSH key, beside a gate that runs what reviewers approved."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from agentgate import Allow, Deny, Gate, StepUp
from agentgate.approvals.writing import Reviewer, ReviewRule, new_root, sign_root, statement, write_approval, write_index
from agentgate.audit import FileAudit, read_records
from agentgate.cli.main import app
from agentgate.review.report.theatre import rule_stats
from agentgate.token.signing import KeyRing
from tests.approvals_team import key
from tests.servers import Server
from tests.shop import BOSS, PROMPT, REFUND, WEEKDAY, WORKFLOW, looked_up, run_of

BIG = {**REFUND, "amount": "150.00"}


class Desk:
    """A gate over an approved workflow, and Mona of the leads with her key file."""

    def __init__(self, folder: Path, server: Server, tenant: str, **more: Any) -> None:
        self.folder, self.server, self.tenant = folder, server, tenant
        work = folder / "w"
        (work / "shop").mkdir(parents=True)
        (work / "shop" / "refund.yaml").write_text(WORKFLOW.lstrip().replace("tenants: [acme, other]", f"tenants: [acme, other, {tenant}]"))
        people = [Reviewer(name, (key(name).public_key,), ("leads",) if name == "mona" else ()) for name in ("mona", "kim", "dave")]
        every = {"low": 1, "medium": 1, "high": 1}
        self.root = new_root(work, people, expires="2099-01-01", rules=(ReviewRule("**", ("mona", "kim", "dave"), every),))
        sign_root(work, key("mona"))
        write_approval(work, statement(work, "shop/refund.yaml", signer=key("kim"), proposer="dave"), key("kim"))
        write_index(work, key("mona"))
        self.gate = Gate.open(
            work,
            root=self.root,
            issuer="https://gate.example",
            store=server.url,
            keys=folder / "keys",
            audit=str(folder / "audit"),
            clock=lambda: WEEKDAY,
            **more,
        )
        for name in ("mona", "kim", "eve"):
            private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
            encoding = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            (folder / name).write_bytes(private.private_bytes(*encoding))

    def held(self) -> tuple[Any, str]:
        run = run_of(self.gate)
        looked_up(run)
        answer = run.authorize("payments.refund", BIG, tool_call_id="pay")
        assert isinstance(answer, StepUp)
        return run, answer.hold.id

    def command(self, *words: str, tenant: str = "acme", answers: bool = False, who: str = "mona") -> Any:
        where = ["--store", self.server.url, "--tenant", tenant]
        if answers:
            where += ["--audit", str(self.folder / "mine"), "--workflows", str(self.folder / "w"), "--root", self.root]
            where += ["--key", str(self.folder / who)]
        return CliRunner().invoke(app, ["holds", *words, *where], env={"COLUMNS": "200"})


@pytest.fixture
def desk(tmp_path: Path, redis_server: Server) -> Iterator[Desk]:
    made = Desk(tmp_path, redis_server, "t-" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12])
    with made.gate:
        yield made


def test_an_approver_lists_shows_reveals_and_releases_one_call(desk: Desk) -> None:
    run, hold = desk.held()
    listed = desk.command("list")
    assert listed.exit_code == 0, listed.output
    assert f"{hold[:12]}  pending  payments.refund  lee  1 of leads" in listed.output
    shown = desk.command("show", hold[:12], "--workflows", str(desk.folder / "w"), "--root", desk.root)
    assert f'said      "{PROMPT}"' in shown.output
    assert "payee     (masked)" in shown.output
    done = desk.command("release", hold[:12], "--reveal", "--accept", f"release {hold[:12]}", answers=True)
    assert done.exit_code == 0, done.output
    assert "revealed  payee: cus_1" in done.output
    assert f"released: {hold}" in done.output
    answer = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(answer, Allow)
    kinds = [(r["type"], r["by"], r["channel"]) for r in read_records(desk.folder / "mine")]
    assert kinds == [("hold_revealed", "mona", "ssh"), ("hold_answer", "mona", "ssh")]
    assert json.loads(desk.command("show", hold, "--json").output)["state"] == "spent"


def two_held(desk: Desk) -> tuple[Any, list[str]]:
    run, first = desk.held()
    return run, sorted((first, run.authorize("payments.refund", BIG, tool_call_id="more").hold.id))


def phrase_of(shown: str) -> str:
    (line,) = (line for line in shown.splitlines() if line.startswith("To sign, type: "))
    return line.removeprefix("To sign, type: ")


def test_an_approver_is_shown_two_calls_whole_and_answers_them_with_one_signature(desk: Desk) -> None:
    run, holds = two_held(desk)
    shown = desk.command("release", *holds, answers=True).output
    assert all(f"digest    {hold}" in shown for hold in holds)
    assert "--- 2 of 2" in shown
    phrase = phrase_of(shown)
    assert phrase.startswith("release 2 holds ")
    done = desk.command("release", *(hold[:12] for hold in holds[::-1]), "--reveal", "--accept", phrase, answers=True)
    assert done.exit_code == 0, done.output
    assert done.output.count("revealed  payee: cus_1") == 2
    assert all(f"released: {hold}" in done.output for hold in holds)
    assert all(isinstance(run.authorize("payments.refund", BIG, tool_call_id=name), Allow) for name in ("pay", "more"))
    said = [r for r in read_records(desk.folder / "mine") if r["type"] == "hold_answer"]
    assert [r["together"]["holds"] for r in said] == [2, 2]
    assert said[0]["together"]["root"] == said[1]["together"]["root"]
    assert said[0]["together"]["root"].startswith(phrase.rpartition(" ")[2])


def test_of_two_calls_the_sentence_names_exactly_these_and_this_answer(desk: Desk) -> None:
    _, holds = two_held(desk)
    phrase = phrase_of(desk.command("release", *holds, answers=True).output)
    other = desk.held()[1]
    for words in (("refuse", *holds), ("release", holds[0]), ("release", holds[0], holds[0]), ("release", *holds, other), ("release",)):
        done = desk.command(*words, "--accept", phrase, answers=True)
        assert done.exit_code != 0, words
    desk.gate.release(holds[0], tenant="acme", by=BOSS)
    done = desk.command("release", *holds, "--accept", phrase, answers=True)
    assert done.exit_code == 1
    assert f"{holds[0][:12]}: released; answer the others without it" in done.output
    assert desk.gate.hold(holds[1], tenant="acme").state == "pending"


def test_an_approver_refuses(desk: Desk) -> None:
    run, hold = desk.held()
    assert desk.command("refuse", hold, "--accept", f"refuse {hold[:12]}", answers=True).exit_code == 0
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)
    assert f"{hold[:12]}  refused" in desk.command("list", "--state", "any").output


@pytest.mark.parametrize(("who", "code"), [("kim", "approver"), ("eve", "signature")])
def test_whoever_may_not_answer_changes_nothing(desk: Desk, who: str, code: str) -> None:
    """Kim is in the root and in no team; nobody knows Eve."""
    run, hold = desk.held()
    done = desk.command("release", hold, "--accept", f"release {hold[:12]}", answers=True, who=who)
    assert done.exit_code == 1
    assert code in done.output
    (record,) = read_records(desk.folder / "mine")
    if who == "eve":  # whom nobody proved: counted
        assert (record["type"], record["counts"]) == ("unproven", [["hold_answer_refused", code, 1]])
        (record,) = record["first"]
    assert (record["type"], record["code"]) == ("hold_answer_refused", code)
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), StepUp)


def test_nothing_is_signed_that_was_not_typed(desk: Desk) -> None:
    _, hold = desk.held()
    for accept in ((), ("--accept", "yes"), ("--accept", "release")):
        assert desk.command("release", hold, *accept, answers=True).exit_code == 1
    assert desk.gate.hold(hold, tenant="acme").state == "pending"


def test_a_beginning_that_names_no_hold_or_several_names_none(desk: Desk) -> None:
    _, hold = desk.held()
    for name in ("0" * 12, hold[:11], "x", hold[:11] + "x"):
        assert desk.command("show", name).exit_code == 1
    assert desk.command("show", hold, tenant="other").exit_code == 1


@pytest.mark.parametrize("forged", ["value", "seal"])
def test_a_question_that_no_gate_asked_is_refused_where_its_keys_are_at_hand(desk: Desk, forged: str) -> None:
    """Somebody who can write the store makes a call look like a small one: the digest that would be signed is still the large one's."""
    run, hold = desk.held()
    seals, accept = ("--keys", str(desk.folder / "keys")), ("--accept", f"release {hold[:12]}")
    for words, expected in ((("show", hold), "seal      not verified"), (("list",), "not verified"), (("show", hold, "--json"), "false")):
        assert expected in desk.command(*words).output
    for words, expected in (
        (("show", hold), "seal      verified: a gate with these keys asked this"),
        (("list",), "verified: a gate"),
        (("show", hold, "--json"), "true"),
    ):
        assert expected in desk.command(*words, *seals).output
    store, name = redis.Redis.from_url(desk.server.url), f"ag:{{acme}}:hold:{hold}"
    body: Any = json.loads(store.hget(name, "body"))  # type: ignore[arg-type]
    small = {"question": json.loads(json.dumps(body["question"]).replace("150.00", "1.50"))}
    store.hset(name, "body", json.dumps({**body, **(small if forged == "value" else {"seal": "\u00e9"})}))
    assert hold[:12] in desk.command("list").output
    assert "seal      not verified: as the store has it (--keys)" in desk.command("release", hold, answers=True).output
    assert hold[:12] not in desk.command("list", *seals).output
    assert hold[:12] not in desk.command("watch", "--every", "0.1", "--seconds", "0.2", *seals).output
    for done in (desk.command("show", hold, *seals), desk.command("release", hold, *accept, *seals, answers=True)):
        assert (done.exit_code, "no gate with these keys asked this" in done.output, "1.50" in done.output) == (1, True, False)
    assert desk.gate.hold(hold, tenant="acme").state == "pending"
    store.hset(name, "body", json.dumps(body))
    KeyRing.open(desk.folder / "other")
    assert desk.command("show", hold, "--keys", str(desk.folder / "other")).exit_code == 1
    assert desk.command("show", hold, "--keys", str(desk.folder / "nowhere")).exit_code == 1
    assert desk.command("release", hold, *accept, *seals, answers=True).exit_code == 0
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_what_happens_is_watched(desk: Desk) -> None:
    _, hold = desk.held()
    watched = desk.command("watch", "--every", "0.1", "--seconds", "0.3")
    assert watched.exit_code == 0
    assert f"{hold[:12]}  pending" in watched.output


def test_an_in_process_store_has_no_holds_of_a_gate() -> None:
    done = CliRunner().invoke(app, ["holds", "list", "--store", "memory://", "--tenant", "acme"])
    assert done.exit_code == 1
    assert "memory://" in done.output


def test_a_yes_at_the_gate_and_one_at_a_terminal_are_two(tmp_path: Path, redis_server: Server) -> None:
    """The terminal cannot tell that the other yes is proven; the gate can."""
    two = WORKFLOW.replace("count: 1, not", "count: 2, not")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_cli_holds.WORKFLOW", two)
        desk = Desk(tmp_path, redis_server, "t-two")
    with desk.gate:
        run, hold = desk.held()
        assert desk.gate.release(hold, tenant="acme", by=BOSS).state == "pending"
        done = desk.command("release", hold, "--accept", f"release {hold[:12]}", answers=True)
        assert done.exit_code == 0, done.output
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
        assert desk.gate.hold(hold, tenant="acme").state == "spent"


# --- what the answers say ---------------------------------------------------------------------------------------------------
def answers_of(
    rule: str, count: int, *, no: int = 0, seconds: float = 1.0, reason: str = "step_up", field: str = "args.amount"
) -> list[Any]:
    named = {"workflow": {"id": "shop.refund"}, "rules": [rule]}
    asked = [{"type": "decision", "decision": "step_up", **named, "reasons": [{"reason": reason, "field": field}]}] * count
    said = [{"type": "hold_answer", **named, "answer": "refuse" if n < no else "release", "seconds": seconds} for n in range(count)]
    return asked + said


def test_a_rule_that_nobody_judges_is_named_as_theatre_with_what_would_do_instead() -> None:
    records = [
        *answers_of("fast", 60),
        *answers_of("slow", 30, seconds=40.0),
        *answers_of("refused", 40, no=1),
        *answers_of("few", 19),
        *answers_of("origin", 25, reason="argument_origin", field="args.payee"),
        *answers_of("words", 25, reason="intent_unclear", field="intent"),
        *answers_of("always", 25, field="step_up.always"),
        *answers_of("link", 25, reason="entity_origin", field="args.note"),
        *answers_of("other", 25, reason="role", field="x"),
        {"type": "run_opened", "workflow": {"id": "shop.refund"}},
    ]
    found = {each.rule: each for each in rule_stats(records)}
    assert [name for name, each in found.items() if each.instead] == ["fast", "always", "link", "origin", "other", "words"]
    assert (found["refused"].rate, found["slow"].seconds) == (39 / 40, 40.0)
    assert "`from`" in found["origin"].instead
    assert "args.payee" in found["origin"].instead
    assert "`words`" in found["words"].instead
    assert "every call" in found["always"].instead
    assert next(iter(found)) == "fast"


def test_stats_are_read_from_a_gates_log(desk: Desk) -> None:
    for _ in range(3):
        _, hold = desk.held()
        desk.gate.release(hold, tenant="acme", by=BOSS)
    done = CliRunner().invoke(app, ["holds", "stats", "--audit", str(desk.folder / "audit"), "--json"])
    assert done.exit_code == 0
    (row,) = json.loads(done.output)
    assert (row["rule"], row["answered"], row["rate"], row["instead"]) == ("big", 3, 1.0, "")
    assert 0 <= row["seconds"] < 60
    plain = CliRunner().invoke(app, ["holds", "stats", "--audit", str(desk.folder / "audit")])
    assert "big" in plain.output


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rules": "big"}, "rules 'big'"),
        ({"seconds": "soon"}, "seconds 'soon'"),
        ({"workflow": [5]}, "workflow [5]"),
        ({"reasons": [5]}, "reasons [5]"),
        ({"workflow": None}, "workflow None"),
        ({}, "no workflow"),
    ],
)
def test_a_record_with_another_kind_of_value_is_named_and_not_counted(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    log = FileAudit(tmp_path / "audit")
    log.append({"type": "hold_answer", "time": 1.0, "rules": ["big"], "answer": "release", "seconds": 1, **change}, time.monotonic() + 5)
    log.close()
    done = CliRunner().invoke(app, ["holds", "stats", "--audit", str(tmp_path / "audit")])
    assert (done.exit_code, f":1: got {named}, expected what docs/audit-schema.md" in done.stderr) == (1, True), done.output


def test_the_list_has_every_hold_however_many_there_are(desk: Desk) -> None:
    _, first = desk.held()
    store: Any = redis.Redis.from_url(desk.server.url)
    kept, line, many = store.hgetall(f"ag:{{acme}}:hold:{first}"), store.pipeline(), [f"{n:064x}" for n in range(1200)]
    index = "ag:{acme}:holds:all"
    forget = store.zscore(index, first)
    for each in many:
        line.hset(f"ag:{{acme}}:hold:{each}", mapping={**kept, "body": kept[b"body"].replace(first.encode(), each.encode())})
        line.zadd(index, {each: forget + 1})
    line.execute()
    listed = [each["hold"] for each in json.loads(desk.command("list", "--json").stdout)]
    assert {*listed} >= {first, *many}
    assert first in {hold.id for hold in desk.gate.holds("acme")}
    store.zrem(index, *many)
    store.delete(*(f"ag:{{acme}}:hold:{each}" for each in many))
