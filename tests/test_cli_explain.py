"""``agentgate explain``: decisions of a real gate by their ids, while the run lives and afterwards; calls given on the command line."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate import Agent, Allow, Deny, Gate, StepUp, User
from agentgate.audit import read_records
from agentgate.audit.questions import NotFound
from agentgate.cli.commands import HELP
from agentgate.cli.main import app
from agentgate.loading.blocks import written_out
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.report.past import decision_of
from agentgate.values.canonical import canonical, digest
from tests.servers import Server
from tests.test_explain import LOOKED_UP, NOW, REFUND, WORKFLOW
from tests.test_explain import PROMPT as ASKED

LEE = User("lee", tenant="acme", groups=["support"])
KIM = User("kim", tenant="acme", groups=["leads"])
LOOK = {"order_id": "ORD-10023344"}
SHIPPED = "workflows/payments/customer-refund.yaml"


@dataclass
class World:
    """A gate with a log and a store that outlive it."""

    root: Path
    store: str
    now: datetime = NOW

    def gate(self) -> Gate:
        return Gate.open_unsafe_unapproved(
            self.root / "w",
            issuer="https://gate.example",
            audit=str(self.root / "audit"),
            keys=self.root / "keys",
            store=self.store,
            clock=lambda: self.now,
            environment="prod",
        )

    def explain(self, *words: str, live: bool = True, known: bool = True) -> Any:
        where = [*(["--workflows", str(self.root / "w")] if known else []), *(["--store", self.store] if live else [])]
        log = ["--audit", str(self.root / "audit"), "--cache", str(self.root / "cache")]
        return CliRunner().invoke(app, ["explain", *words, *log, *where])

    def json(self, *words: str, **more: Any) -> dict[str, Any]:
        done = self.explain(*words, "--json", **more)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def records(self) -> list[dict[str, Any]]:
        return list(read_records(self.root / "audit"))


@pytest.fixture
def world(tmp_path: Path, redis_server: Server) -> World:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    redis_server.command("FLUSHALL")
    return World(tmp_path, redis_server.url)


def opened(gate: Gate, prompt: str = ASKED, **facts: Any) -> Any:
    run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt)
    answer = run.authorize("orders.get", LOOK, tool_call_id="look")
    assert isinstance(answer, Allow)
    with run.redeem(answer.token, tool="orders.get", args=LOOK) as call:
        call.record_result({**LOOKED_UP, **facts})
    return run


def condition(found: dict[str, Any], field: str, word: str) -> dict[str, Any]:
    (only,) = (c for c in found["conditions"] if (c["field"], c["condition"]) == (field, word))
    return dict(only)


# --- by id -------------------------------------------------------------------------------------------------------------------
def test_a_refusal_is_explained_in_full_while_the_run_lives(world: World) -> None:
    with world.gate() as gate:
        run = opened(gate)
        refused = run.authorize("payments.refund", {**REFUND, "amount": "99.00", "reason": "it is broken"}, tool_call_id="pay")
        assert isinstance(refused, Deny)
    found = world.json("pay")
    assert (found["decision"], found["code"], found["owners"]) == ("deny", "not_permitted", ["team:payments", "kim"])
    bound = condition(found, "args.amount", "at_most")
    assert (bound["verdict"], bound["got"]) == ("failed", "'99.00'")
    assert bound["rule"].endswith("w/refund.yaml:37")
    assert bound["would_pass_with"]["text"] == "amount at most 80.00 (orders.get.total of call look)"
    assert condition(found, "intent", "needs")["got"].startswith("refund present (word 'refund')")
    (order,) = condition(found, "args.order_id", "from")["origins"]
    assert (order["source"], order["call"]) == ("orders.get.order_id", "look")
    assert condition(found, "args.payee", "from")["origins"][0]["source"] == "orders.get.customer look"
    assert "payee" in found["notes"][0]
    assert [event["event"].split(" ", 2)[2] for event in found["story"]] == ["decided: deny"]


def test_a_redeemed_call_goes_by_its_txn_and_jti_and_tells_its_story(world: World) -> None:
    with world.gate() as gate:
        run = opened(gate)
        answer = run.authorize("payments.refund", {**REFUND, "reason": "it is broken"}, tool_call_id="pay")
        assert isinstance(answer, Allow)
        with run.redeem(answer.token, tool="payments.refund", args=REFUND | {"reason": "it is broken"}):
            pass
    (record,) = (r for r in world.records() if r["type"] == "decision" and r["tool"] == "payments.refund")
    found = world.json(record["txn"])
    assert (found["decision"], found["code"]) == ("allow", "")
    assert {c["verdict"] for c in found["conditions"]} == {"met", "not sent"}
    (amount,) = condition(found, "args.amount", "from")["origins"]
    assert (amount["words"], amount["turn"], amount["start"]) == ("39.99 EUR", 1, ASKED.index("39.99"))
    assert condition(found, "args.reason", "text")["got"] == "'it is broken'"
    assert [e["event"].split(" ", 2)[2] for e in found["story"]] == ["decided: allow", "its token was redeemed", "ended: done"]
    assert world.json(record["jti"])["conditions"] == found["conditions"]


def test_environment_and_definition_are_on_record_for_every_decision(world: World) -> None:
    pinned = "sha256:" + "ab" * 32
    text = WORKFLOW.replace("conditions:\n", "conditions:\n  environment: [stage, prod]\n")
    (world.root / "w" / "refund.yaml").write_text(text.replace("needs: any\n", f"needs: any\n    definition: {pinned}\n", 1))
    with world.gate() as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=ASKED)
        assert isinstance(run.authorize("orders.get", LOOK, tool_call_id="ok", definition=pinned), Allow)
        assert isinstance(run.authorize("orders.get", LOOK, tool_call_id="changed", definition="sha256:" + "cd" * 32), Deny)
    for live in (True, False):
        allowed, refused = world.json("ok", live=live), world.json("changed", live=live)
        assert {condition(found, "environment", "environment")["got"] for found in (allowed, refused)} == {"prod"}
        assert condition(allowed, "tools.orders.get.definition", "definition")["got"] == pinned
        assert condition(refused, "tools.orders.get.definition", "definition")["verdict"] == "failed"


def test_what_only_the_record_knows_of_an_origin_is_said_as_text_too(world: World, redis_server: Server) -> None:
    with world.gate() as gate:
        run = opened(gate)
        run.authorize("payments.refund", {**REFUND, "reason": "it is broken"}, tool_call_id="pay")
    by_log = ["explain", "pay", "--audit", str(world.root / "audit"), "--cache", str(world.root / "cache")]
    redis_server.command("FLUSHALL")
    for more in ([], ["--workflows", str(world.root / "w")]):
        done = CliRunner().invoke(app, [*by_log, *more])
        assert done.exit_code == 0, done.output
        assert "orders.get.customer of call look" in done.stdout
        assert "prompt: ''" not in done.stdout
        assert "()" not in done.stdout
    sent = done.stdout.partition("args (args): ")[2].partition(" | ")[0]
    assert {"order_id", "amount", "payee", "reason"} <= set(sent.split(", "))


def test_a_run_that_is_gone_leaves_the_record_and_says_what_is_only_a_digest(world: World, redis_server: Server) -> None:
    with world.gate() as gate:
        run = opened(gate)
        run.authorize("payments.refund", {**REFUND, "payee": "cus_evil", "reason": "a secret story"}, tool_call_id="pay")
    redis_server.command("FLUSHALL")
    found = world.json("pay")
    assert condition(found, "args.payee", "from")["verdict"] == "failed"
    assert condition(found, "args.amount", "from")["origins"][0]["source"] == "prompt"
    assert condition(found, "args.amount", "max")["got"] == "'39.99'"
    assert condition(found, "args.reason", "text")["got"].startswith("(digest ")
    assert "the run's record is gone" in found["notes"][0]
    assert "only a digest is known of: payee, reason" in found["notes"][1]
    text = world.explain("pay").output + world.explain("pay", live=False).output
    for secret in ("cus_evil", "secret story", "39.99 EUR"):
        assert secret not in text


def test_given_arguments_complete_the_picture_only_if_they_are_the_ones(world: World) -> None:
    args = {**REFUND, "payee": "cus_evil", "reason": "a secret story"}
    with world.gate() as gate:
        opened(gate).authorize("payments.refund", args, tool_call_id="pay")
    found = world.json("pay", "--args", json.dumps(args))
    assert condition(found, "args.reason", "text")["got"] == "'a secret story'"
    assert condition(found, "args.payee", "from")["would_pass_with"] == {
        "text": "payee (masked), as returned by orders.get (customer, call look)",
        "alone_enough": True,
    }
    assert "cus_evil" not in json.dumps(found)
    other = world.explain("pay", "--args", json.dumps({**args, "payee": "cus_4711"}))
    assert other.exit_code == 1
    assert "the ones this decision was made on" in other.output


def test_what_the_user_said_later_does_not_count(world: World) -> None:
    with world.gate() as gate:
        run = opened(gate, "Please refund order ORD-10023344")
        run.authorize("payments.refund", {**REFUND, "amount": "39.99"}, tool_call_id="pay")
        run.add_turn("39.99 EUR is fine, refund that")
        run.close()
    found = world.json("pay")
    assert condition(found, "args.amount", "from")["verdict"] == "failed"
    assert condition(found, "args.amount", "from")["origins"][0]["source"] == "unknown"
    assert condition(found, "run", "run")["verdict"] == "met"


def test_why_an_intent_is_absent_is_explained_and_not_recorded(world: World) -> None:
    with world.gate() as gate:
        opened(gate, "What about order ORD-10023344? Never refund it").authorize("payments.refund", REFUND, tool_call_id="pay")
    assert condition(world.json("pay"), "intent", "needs")["got"] == "absent; read again here: refund absent (denied: refund)"
    assert condition(world.json("pay", live=False), "intent", "needs")["got"] == "absent"
    assert "denied" not in json.dumps(world.records())


def test_a_held_call_goes_by_its_hold_and_tells_who_answered(world: World) -> None:
    with world.gate() as gate:
        run = opened(gate, total="150.00")
        held = run.authorize("payments.refund", {**REFUND, "amount": "150.00"}, tool_call_id="pay")
        assert isinstance(held, StepUp)
        found = world.json(held.hold.id)
        assert world.json(held.hold.id[:12]) == found  # as lists show it
        assert (found["decision"], found["code"]) == ("step_up", "needs_approval")
        asks = condition(found, "step_up.big", "step_up")
        assert (asks["verdict"], asks["would_pass_with"]["text"]) == ("asks", "a yes of 1 of leads, not the requester, within 600 s")
        gate.release(held.hold.id, tenant="acme", by=KIM)
        assert isinstance(run.authorize("payments.refund", {**REFUND, "amount": "150.00"}, tool_call_id="pay"), Allow)
    found = world.json(held.hold.id)
    assert found["decision"] == "allow"
    told = [event["event"].split(" ", 2)[2] for event in found["story"]]
    assert told == ["decided: step_up", "kim answered: release (then released)", "decided: allow"]


def test_the_hours_are_those_of_the_decision(world: World) -> None:
    world.now = NOW + timedelta(days=3)
    with world.gate() as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=ASKED)
        run.authorize("orders.get", LOOK, tool_call_id="look")
    found = world.json("look")
    assert condition(found, "hours", "hours")["would_pass_with"]["text"] == "a time in Mon-Fri 08:00-20:00 Europe/Berlin"


def test_a_limit_that_the_store_counted_is_a_row(world: World) -> None:
    with world.gate() as gate:
        run = opened(gate)
        for number in range(3):
            answer = run.authorize("payments.refund", REFUND, tool_call_id=f"pay{number}")
            if isinstance(answer, Allow):
                with run.redeem(answer.token, tool="payments.refund", args=REFUND):
                    pass
    limit = condition(world.json("pay2"), "limits", "limit 0")
    assert (limit["verdict"], limit["reasons"]) == ("failed", ["limit"])


def test_an_id_of_several_calls_asks_which(world: World) -> None:
    with world.gate() as gate:
        runs = [opened(gate), opened(gate)]
        for run in runs:
            run.authorize("payments.refund", {**REFUND, "payee": "x"}, tool_call_id="pay")
    done = world.explain("pay")
    assert done.exit_code == 1
    assert "names 2 calls" in done.output
    assert runs[0].id in done.output
    assert world.json("pay", "--run", runs[1].id)["decision"] == "deny"


def test_an_approved_version_is_found_whatever_this_engine_reads_in_its_examples(world: World) -> None:
    from agentgate.review.report.past import version_of

    value = written_out(read_yaml(WORKFLOW, "x").value)
    (name,) = value["intents"]
    value["intents"][name]["examples"].append("Hand it back to them")
    approved = world.root / "w" / "approvals" / "shop.refund" / "3" / "definition.json"
    approved.parent.mkdir(parents=True)
    approved.write_bytes(canonical(value))
    record = {"workflow": {"id": "shop.refund", "version": 3, "digest": "sha256:" + digest(canonical(value))}}
    found = version_of(record, world.root / "w")
    assert found is not None
    assert [doubt.index for doubt in found.in_doubt] == [len(value["intents"][name]["examples"]) - 1]


def test_an_older_version_is_found_where_it_was_approved(world: World) -> None:
    with world.gate() as gate:
        opened(gate).authorize("payments.refund", {**REFUND, "amount": "600.00"}, tool_call_id="pay")
    file = world.root / "w" / "refund.yaml"
    approved = world.root / "w" / "approvals" / "shop.refund" / "3" / "definition.json"
    approved.parent.mkdir(parents=True)
    approved.write_bytes(canonical(read_yaml(WORKFLOW, "x").value))
    file.write_text(WORKFLOW.replace("version: 3", "version: 4").replace('"500.00"', '"900.00"'))
    found = world.json("pay")
    assert found["file"].endswith("definition.json")
    assert condition(found, "args.amount", "max")["expected"] == "at most 500.00"
    shutil.rmtree(world.root / "w" / "approvals")
    bare = world.json("pay")
    assert "not at hand" in bare["notes"][0]
    assert {c["field"] for c in bare["conditions"] if c["verdict"] == "failed"} == {"args.amount"}
    assert bare["conditions"] == world.json("pay", known=False)["conditions"]


def test_an_unknown_id_and_a_missing_log_say_what_to_do(world: World) -> None:
    with world.gate() as gate:
        opened(gate)
    done = world.explain("nothing")
    assert done.exit_code == 1
    assert "expected the txn, jti, hold or tool_call_id" in done.output
    done = CliRunner().invoke(app, ["explain", "pay"])
    assert (done.exit_code, "--audit" in done.output) == (1, True)
    done = world.explain("look", "--store", "memory://", live=False)
    assert done.exit_code == 1
    assert "memory:// ends with" in done.output


def test_a_store_that_is_down_is_an_error_without_a_traceback(world: World) -> None:
    with world.gate() as gate:
        opened(gate)
    done = world.explain("look", "--store", "redis://127.0.0.1:1", live=False)
    assert done.exit_code == 1
    assert "Traceback" not in done.output


def test_what_stands_before_damage_is_still_explained(world: World) -> None:
    with world.gate() as gate:
        opened(gate).authorize("payments.refund", {**REFUND, "payee": "x"}, tool_call_id="pay")
    (log,) = (world.root / "audit").glob("*.jsonl")
    log.write_text(log.read_text() + "{}\n")
    with world.gate() as gate:
        opened(gate).authorize("payments.refund", {**REFUND, "payee": "x"}, tool_call_id="pay2")
    for name in ("pay", "pay2"):  # the second stands in a later segment
        done = world.explain(name)
        assert done.exit_code == 0
        assert (done.stderr.count("NOT WHOLE"), "got another form" in done.stderr) == (1, True)
        assert "FAILED args.payee" in done.output


@pytest.mark.parametrize(
    "change",
    [
        {"reasons": [{"reason": "new_reason"}, {"reason": "more", "field": "7"}]},
        {"decision": "maybe"},
        {"turns": -1, "calls": "x"},
        {"tool": "gone"},
        {"origins": {"gone": "prompt"}},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_record_of_another_make_is_explained_as_far_as_it_goes(world: World, change: dict[str, Any]) -> None:
    from agentgate.review.report.past import explain_record, version_of

    with world.gate() as gate:
        opened(gate).authorize("payments.refund", {**REFUND, "payee": "x"}, tool_call_id="pay")
    record = {**decision_of([each for each in world.records() if each.get("tool_call_id") == "pay"]), **change}
    for version in (None, version_of(record, world.root / "w")):
        assert explain_record(record, version, None).decision == "deny"


def test_a_call_without_a_decision_is_not_explained() -> None:
    with pytest.raises(NotFound):
        decision_of([{"type": "redemption", "txn": "t", "tenant": "a", "run": "r", "tool_call_id": "c"}])


# --- a call given here ---------------------------------------------------------------------------------------------------------
def asked(*words: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, ["explain", *words], env=env)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "refund.yaml"
    path.write_text(WORKFLOW)
    return str(path)


CALL = json.dumps({**REFUND, "amount": "99.00"})


def test_a_call_given_here_is_explained_with_what_nobody_said(file: str) -> None:
    done = asked(
        "--workflow", file, "--tool", "payments.refund", "--prompt", ASKED, "--args", CALL, "--set", "facts.orders.get.total=80.00"
    )
    assert done.exit_code == 0, done.output
    assert "FAILED args.amount (at_most)" in done.output
    assert "would pass with amount at most 80.00" in done.output
    assert "nobody said, so made up: tenant = acme" in done.output
    assert "notify" not in done.output.split("made up")[1]
    assert "ask: team:payments, kim" in done.output


def test_an_argument_that_is_not_given_is_missing(file: str) -> None:
    args = json.dumps({name: value for name, value in REFUND.items() if name != "payee"})
    done = asked("--workflow", file, "--tool", "payments.refund", "--prompt", ASKED, "--args", args, "--json")
    assert condition(json.loads(done.stdout), "args.payee", "required")["verdict"] == "failed"


@pytest.mark.parametrize("args", [{"notify": None}, {"reason": None}, {"payee": None}, {"not_declared": None}, {"reason": {"a": None}}])
def test_a_null_is_sent_as_it_is_given_and_refused_as_a_gate_refuses_it(file: str, args: dict[str, Any], tmp_path: Path) -> None:
    given = REFUND | args
    done = asked("--workflow", file, "--tool", "payments.refund", "--prompt", ASKED, "--args", json.dumps(given), "--json")
    found = json.loads(done.stdout)
    said = {reason for c in found["conditions"] for reason in c["reasons"] if c["verdict"] == "failed"}
    (tmp_path / "w").mkdir()
    shutil.move(file, tmp_path / "w")
    with World(tmp_path, "memory://").gate() as gate:
        answer = opened(gate).authorize("payments.refund", given)
    assert isinstance(answer, Deny)
    assert (found["decision"], said) == ("deny", set(map(str, answer.reasons)))


def test_what_is_set_beside_the_arguments_changes_them(file: str) -> None:
    args = json.dumps({**REFUND, "notify": None})
    done = asked("--workflow", file, "--tool", "payments.refund", "--prompt", ASKED, "--args", args, "--set", "args.notify=null", "--json")
    assert condition(json.loads(done.stdout), "args.notify", "type")["verdict"] == "not sent"
    done = asked("--workflow", file, "--tool", "payments.refund", "--prompt", ASKED, "--args", args, "--json")
    assert condition(json.loads(done.stdout), "args.notify", "type")["would_pass_with"]["text"].startswith("without notify")


def test_a_case_beside_the_workflow_is_explained_and_changed() -> None:
    found = json.loads(asked("--workflow", SHIPPED, "--case", "base", "--json").stdout)
    assert found["decision"] == "allow"
    found = json.loads(asked("--workflow", SHIPPED, "--case", "base", "--set", "args.amount=600.00", "--json").stdout)
    assert condition(found, "args.amount", "max")["would_pass_with"]["text"] == "amount at most 500.00"


def test_a_used_up_limit_of_a_case_is_a_row() -> None:
    done = asked("--workflow", SHIPPED, "--case", "base", "--set", "spent.run.payments.refund=1", "--json")
    failed = [c for c in json.loads(done.stdout)["conditions"] if c["verdict"] == "failed"]
    assert [c["reasons"] for c in failed] == [["limit"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "an ID with --audit, or --workflow"),
        (["id", "--workflow", SHIPPED], "an ID with --audit, or --workflow"),
        (["--workflow", "nowhere.yaml"], "a workflow file"),
        (["--workflow", SHIPPED], "tools of this workflow: orders.get, payments.refund"),
        (["--workflow", SHIPPED, "--tool", "payments.refund", "--args", "{"], "a JSON object"),
        (["--workflow", SHIPPED, "--tool", "payments.refund", "--args", "[1]"], "a JSON object"),
        (["--workflow", SHIPPED, "--tool", "payments.refund", "--set", "x"], "key=value"),
        (["--workflow", SHIPPED, "--tool", "payments.refund", "--set", "fact.x=1"], "an unknown key"),
        (["--workflow", SHIPPED, "--case", "bse"], "did you mean"),
        (["--workflow", SHIPPED, "--case", "base", "--tool", "orders.get"], "--case alone"),
    ],
)
def test_wrong_options_say_what_is_expected(words: list[str], said: str) -> None:
    done = asked(*words)
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_workflow_without_tests_has_no_cases(file: str) -> None:
    done = asked("--workflow", file, "--case", "base")
    assert done.exit_code == 1
    assert "a test file beside" in done.output


def test_an_unknown_tool_and_argument_are_explained(file: str) -> None:
    done = asked("--workflow", file, "--tool", "orders.gte", "--args", "{}", "--prompt", ASKED)
    assert "did you mean orders.get?" in done.output
    done = asked("--workflow", file, "--tool", "orders.get", "--args", '{"order_id": "ORD-10023344", "x": 1}', "--prompt", ASKED)
    assert "would pass with without x" in done.output


def test_a_terminal_gets_colours_and_nothing_of_a_value_reaches_it_raw(file: str) -> None:
    args = json.dumps({**REFUND, "reason": "\x1b]0;owned\x07 [red]x[/red]", "\x1b[31mx": 1})
    words = ["--workflow", file, "--tool", "payments.refund", "--prompt", ASKED, "--args", args]
    done = asked(*words, env={"FORCE_COLOR": "1", "COLUMNS": "220"})
    assert done.exit_code == 0, done.output
    assert "\x1b[" in done.output
    for raw in ("\x1b]0;", "\x07", "\x1b[31mx"):
        assert raw not in done.output
        assert raw not in asked(*words).output
    assert "[red]x[/red]" in done.output


def test_the_examples_of_the_help_run() -> None:
    for line in (line for line in HELP["explain"].examples.split("\n\n") if line.startswith("agentgate explain --workflow")):
        done = asked(*shlex.split(line)[2:])
        assert done.exit_code == 0, done.output
    assert "agentgate explain call_7" in asked("--help").output
