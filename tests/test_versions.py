"""A run under two versions of its workflow: gates that reload one by one, over one real store; and the rule itself, by its oracle."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from math import inf
from pathlib import Path
from typing import Any

import orjson
import pytest
import time_machine
from typer.testing import CliRunner

from agentgate import Agent, Allow, AnswerRefused, AsyncGate, Deny, Gate, Reason, StepUp, TokenRefused, User
from agentgate.approvals.opening import Other
from agentgate.approvals.writing import statement, write_approval, write_index
from agentgate.audit import MemoryAudit, read_records
from agentgate.cli.main import app
from agentgate.decision.answer import Deny as Refused
from agentgate.decision.answer import Eligible, Reservation
from agentgate.decision.versions import Versions, _together, judged
from agentgate.errors import Refusal as Code
from agentgate.gate.runs import InForce
from agentgate.intents.lexical import derive
from agentgate.shell.drive import drive
from agentgate.stores import ready_store
from agentgate.token.jws import split
from agentgate.values.refusal import RunRefused
from agentgate.values.request import Derived, Header
from agentgate.workflow.clauses.who import AgentRule, ClaimRule
from agentgate.workflow.model import Intent, Limit, StepUpRule, TokenRule, Upstream, Workflow
from agentgate.workflow.rule import Rule, Source
from tests.approvals_team import ALICE, BOB, CAROL, ID, PATH, Team, key
from tests.effort import examples
from tests.generate import Case, Generator
from tests.reference import Verdict
from tests.reference_versions import evaluate_both
from tests.servers import Server
from tests.shop import opened

LEE, BOSS, CHIEF = (User(n, tenant="acme", groups=[g]) for n, g in (("lee", "support"), ("boss", "leads"), ("chief", "chiefs")))
TOOL, ORDER = "payments.refund", "ORD-10023344"
ASKS = """step_up:
  - {id: ask, for: payments.refund, when: {amount: {in: ["20.00"]}}, approvers: {group: leads}, timeout: 10m}
"""
MORE = """step_up:
  - {id: ask, for: payments.refund, when: {amount: {in: ["20.00"]}}, approvers: {group: leads}, timeout: 10m}
  - {id: chief, for: payments.refund, when: {amount: {in: ["20.00"]}}, approvers: {group: chiefs}, timeout: 10m}
"""


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team.signed(tmp_path)


class Gates:
    """Instances of one gate: one store, one key set, an audit log each."""

    def __init__(self, team: Team, url: str, stack: ExitStack) -> None:
        self.team, self._given = team, {"root": team.root, "issuer": f"https://gate-{team.now}.example", "store": url, "shared_runs": True}
        self._stack, self._count = stack, 0

    def open(self, directory: Path | None = None, **more: Any) -> Gate:
        self._count += 1
        base = self.team.directory.parent
        given = {"keys": base / "keys", "audit": str(base / f"audit{self._count}"), **self._given, **more}
        return self._stack.enter_context(Gate.open(directory or self.team.directory, **given))

    def records(self, number: int, kind: str) -> list[dict[str, Any]]:
        return [dict(r) for r in read_records(self.team.directory.parent / f"audit{number}") if r["type"] == kind]


@pytest.fixture
def gates(team: Team, redis_server: Server) -> Iterator[Gates]:
    redis_server.command("FLUSHALL")
    with ExitStack() as stack:
        yield Gates(team, redis_server.url, stack)
    redis_server.command("FLUSHALL")  # nor do others see what was revoked here


def opened_run(gate: Gate) -> Any:
    return gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=f"Please refund order {ORDER}")


def pay(run: Any, amount: str = "10.00", call: str = "call_1") -> Any:
    return run.authorize(TOOL, {"order_id": ORDER, "amount": amount}, tool_call_id=call)


def change(team: Team, *edits: tuple[str, str], version: int = 2, more: str = "", people: tuple[str, ...] = (ALICE, BOB)) -> None:
    """The next version, signed."""
    team.edit(f"version: {version - 1}", f"version: {version}")
    for old, new in edits:
        team.edit(old, new)
    team.file.write_text(team.file.read_text() + more)
    team.approve(*people)


WIDER = (('"20.00"', '"20.00", "30.00"'),)
NARROWER = (('"10.00", "20.00"', '"10.00"'),)


def ended(answer: Any) -> str:
    """What is said of the versions, where the run ended with this answer."""
    assert isinstance(answer, Deny), answer
    (said,) = [f for f in answer.failures if f.reason is Reason.TWO_VERSIONS]
    return said.got


# --- what counts, and until when --------------------------------------------------------------------------------------------------
def found_as(gate: Gate, workflow: Workflow, *, until: float = inf, newest: bool = True) -> tuple[InForce, Header]:
    """What is in force at a gate whose directory now says this of the version of a run."""
    header = gate.open_run(workflow.id, tenant="acme", user=LEE, agent=Agent("bot"), prompt="x").header
    header = replace(header, version=workflow.version, digest=workflow.digest)
    return InForce(gate._core.catalog, lambda _id, _version: Other(workflow, until, newest)), header


def asked(steps: Any) -> Any:
    return drive(steps, ready_store("memory://"), MemoryAudit())


def test_another_definition_under_the_number_in_force_decides_nothing(folder: Path) -> None:
    with opened(folder) as gate:
        (current,) = gate._core.catalog
        in_force, header = found_as(gate, replace(current, digest="sha256:other"))
        with pytest.raises(RunRefused) as refused:
            asked(in_force.of(header))
        assert [failure.reason for failure in refused.value.failures] == [Reason.WORKFLOW_CHANGED]
        in_force, header = found_as(gate, replace(current, version=current.version + 1, digest="sha256:newer"))
        assert asked(in_force.of(header)).minted.digest == "sha256:newer"


def test_a_run_whose_workflow_is_here_no_more_is_decided_by_nothing(folder: Path) -> None:
    with opened(folder) as gate:
        (current,) = gate._core.catalog
        in_force, header = found_as(gate, current)
        gone = replace(header, workflow="shop.gone", digest="sha256:gone")
        with pytest.raises(RunRefused) as refused:
            asked(in_force.of(gone))
        assert [failure.reason for failure in refused.value.failures] == [Reason.WORKFLOW_CHANGED]
        assert in_force.known(gone) is None


def test_what_an_earlier_version_was_found_to_be_ends_with_its_approval(folder: Path) -> None:
    with opened(folder) as gate:
        (current,) = gate._core.catalog
        in_force, header = found_as(gate, replace(current, version=0, digest="sha256:old"), until=time.time() + 100, newest=False)
        assert in_force.known(header) is None
        assert asked(in_force.of(header)).newer is not None
        known = in_force.known(header)
        assert known is not None
        assert [each.version for each in known.each] == [0, current.version]
        with time_machine.travel(time.time() + 101):
            assert in_force.known(header) is None


@pytest.mark.parametrize("name", [["shop.refund"], {}, None, 7, b"shop.refund"], ids=repr)
def test_a_name_that_is_no_text_names_no_workflow(team: Team, name: Any) -> None:
    team.approve(ALICE, BOB)
    given: dict[str, Any] = {
        "issuer": "https://gate.example",
        "keys": team.directory.parent / "k",
        "audit": str(team.directory.parent / "a"),
    }
    with Gate.open(team.directory, root=team.root, **given) as gate, pytest.raises(RunRefused) as refused:
        gate.open_run(name, tenant="acme", user=LEE, agent=Agent("bot"), prompt="x")
    assert [failure.reason for failure in refused.value.failures] == [Reason.WORKFLOW_UNKNOWN]


# --- a rolling reload ------------------------------------------------------------------------------------------------------
def test_gates_on_two_versions_share_a_run_and_neither_refuses_what_the_other_did(team, gates):
    old = gates.open()
    run = opened_run(old)
    change(team, *WIDER)
    new = gates.open()
    assert [gate.catalog.get(ID).version for gate in (old, new)] == [1, 2]
    there = new.resume_run("acme", run.id)
    mine, theirs = pay(run, call="a"), pay(there, call="b")
    there.redeem(mine.token, tool=TOOL, args={"order_id": ORDER, "amount": "10.00"}).__enter__()
    run.redeem(theirs.token, tool=TOOL, args={"order_id": ORDER, "amount": "10.00"}).__enter__()
    for handle in (run, there):  # the same call is the same call at either
        for call in ("a", "b"):
            assert {Reason.ALREADY_REDEEMED, Reason.OUTCOME_UNKNOWN} & set(pay(handle, call=call).reasons)
    (allowed,) = [r for r in gates.records(2, "decision") if r["decision"] == "allow"]
    newer = new.catalog.get(ID)
    assert allowed["workflow"]["version"] == 1
    assert allowed["in_force"] == {"version": 2, "digest": newer.digest}
    old.reload()
    assert isinstance(pay(run, call="c"), Allow)


async def test_awaited_it_is_the_same(team, gates):
    run = opened_run(gates.open())
    change(team, *NARROWER)
    base = team.directory.parent
    async with await AsyncGate.open(team.directory, keys=base / "keys", audit=str(base / "audit9"), **gates._given) as gate:
        there = await gate.resume_run("acme", run.id)
        assert isinstance(await pay(there), Allow)
        assert ended(await pay(there, "20.00", "b")) == "version 1 allows it, version 2 refuses it"


def test_a_wider_version_widens_no_open_run_which_ends_there(team, gates):
    gate = gates.open()
    run = opened_run(gate)
    token = pay(run).token
    change(team, *WIDER)
    gate.reload()
    answer = pay(run, "30.00", "b")
    assert ended(answer) == "version 1 refuses it, version 2 allows it"
    assert {Reason.ARGUMENT_VALUE, Reason.TWO_VERSIONS} == set(answer.reasons)
    (closed,) = gates.records(1, "run_closed")
    assert closed["reasons"][0]["reason"] == "two_versions"
    assert set(pay(run, call="c").reasons) == {Reason.RUN_CLOSED}
    with pytest.raises(TokenRefused) as refused:  # what it had minted ends with it
        run.redeem(token, tool=TOOL, args={"order_id": ORDER, "amount": "10.00"})
    assert refused.value.code is Code.REVOKED
    assert isinstance(pay(opened_run(gate), "30.00"), Allow)


def test_a_narrower_version_bites_at_once_and_ends_the_run_at_every_gate(team, gates):
    old = gates.open()
    run = opened_run(old)
    change(team, *NARROWER, people=(CAROL,))
    new = gates.open()
    assert ended(pay(new.resume_run("acme", run.id), "20.00")) == "version 1 allows it, version 2 refuses it"
    assert set(pay(run, call="b").reasons) == {Reason.RUN_CLOSED}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("    redeem: wrapper", "    redeem: wrapper\n    scope: [refunds:all]"), "other terms: scope"),
        (("    redeem: wrapper", "    redeem: wrapper\n    audience: https://pay.example"), "other terms: audience"),
        (("effect: write", "effect: destructive"), "other terms: effect"),
        (("    args:", "    facts: {paid: {type: text}}\n    args:"), "other terms: facts"),
        (("payments.refund:", "payments.pay_back:"), "version 1 allows it, version 2 refuses it"),
        (("groups: [support]", "groups: [leads]"), "version 1 allows it, version 2 refuses it"),
        (("words: [refund, reimburse]", "words: [reimburse]"), "version 1 allows it, version 2 refuses it"),
    ],
)
def test_what_no_token_can_be_at_once_passes_neither_version(team, gates, edit, said):
    gate = gates.open()
    run = opened_run(gate)
    if edit[0].startswith("words"):
        edit = edit[0], edit[1] + '\n    counter_examples: ["Please refund order ORD-10023344"]'
        team.edit('examples: ["Please refund', 'examples: ["Please reimburse')
    change(team, edit)
    gate.reload()
    assert ended(pay(run)) == said


LOOK = """  orders.read:
    effect: read
    needs: [any]
    redeem: wrapper
    args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}
    facts: {due: {type: text, path: note.due}}
"""


def test_what_was_read_on_other_terms_is_no_fact_under_the_newer_version(team, gates):
    """Reviewers who take a fact from another field take it from there in open runs, too."""
    change(team, ('{in: ["10.00", "20.00"], from: [model]}', "{type: text, from: [orders.read.due]}"), more=LOOK)
    gate = gates.open()
    run, order = opened_run(gate), {"order_id": ORDER}
    read = run.authorize("orders.read", order, tool_call_id="r")
    with run.redeem(read.token, tool="orders.read", args=order) as call:
        call.record_result({"note": {"due": "99.00"}, "ledger": {"due": "10.00"}})
    change(team, ("path: note.due", "path: ledger.due"), version=3)
    gate.reload()
    assert run.explain(TOOL, {"order_id": ORDER, "amount": "99.00"}).decision == "deny"
    assert ended(pay(run, "99.00")) == "version 2 allows it, version 3 refuses it"


def test_the_stricter_terms_of_both_count(team, gates):
    """The shorter life, the key of an act, the masked value; whichever version says so."""
    gate = gates.open()
    run = opened_run(gate)
    change(team, ("from: [prompt]}", "from: [prompt], sensitive: true}"), more="token: {ttl: 20s, uses: 1, bound_to: [call, agent_key]}\n")
    gate.reload()
    answer = pay(run)
    assert isinstance(answer, Allow)
    claims = orjson.loads(split(answer.token.reveal()).unverified_payload)
    assert (claims["exp"] - claims["iat"], claims["authorization_details"][0]["workflow"]["version"]) == (20, 1)
    assert "cnf" in claims
    ended(pay(run, "30.00", "b"))
    shown = gates.records(1, "decision")[-1]
    assert "order_id" in shown["hidden"]
    assert "order_id" not in shown["args"]


def test_a_limit_of_both_versions_is_one_count_with_the_lower_bound(team, gates):
    team.file.write_text(team.file.read_text() + "limits: [{count: payments.refund, max: 3, per: run}]\n")
    change(team)
    gate = gates.open()
    run = opened_run(gate)
    assert isinstance(pay(run, call="a"), Allow)
    change(team, ("max: 3", "max: 2"), version=3)
    gate.reload()
    assert isinstance(pay(run, call="b"), Allow)
    answer = pay(run, call="c")
    assert set(answer.reasons) == {Reason.LIMIT}
    assert "at most 2 per run" in str(answer.failures[0])
    assert isinstance(pay(run, call="b"), Allow)  # used up is used up; the run goes on


def test_a_bound_that_was_raised_is_raised_for_no_open_run(team, gates):
    team.file.write_text(team.file.read_text() + "limits: [{count: payments.refund, max: 1, per: run}]\n")
    change(team)
    gate = gates.open()
    run = opened_run(gate)
    change(team, ("max: 1", "max: 9"), version=3)
    gate.reload()
    assert isinstance(pay(run, call="a"), Allow)
    assert set(pay(run, call="b").reasons) == {Reason.LIMIT}


def test_what_a_newer_version_asks_of_the_surroundings_is_looked_up(team, gates):
    gate = gates.open(data_classes=lambda tool, args: "public")
    run = opened_run(gate)
    change(team, more="conditions: {data_class: [public]}\n")
    gate.reload()
    assert isinstance(pay(run), Allow)


def fickle(intents: tuple[Intent, ...], turns: tuple[str, ...]) -> dict[str, Derived]:
    """A deriver that hears nothing of what version 2 calls a refund once the user has said more."""
    found = dict(derive(intents, turns))
    return found | {"refund": Derived("absent")} if len(turns) > 1 and any("repay" in each.words for each in intents) else found


def test_what_is_less_clear_under_the_newer_version_alone_is_taken_back(team, gates):
    gate = gates.open(deriver=fickle)
    run = opened_run(gate)
    change(team, ("words: [refund, reimburse]", "words: [refund, reimburse, repay]"))
    gate.reload()
    token = pay(run).token
    run.add_turn("Thank you")
    with pytest.raises(TokenRefused):
        run.redeem(token, tool=TOOL, args={"order_id": ORDER, "amount": "10.00"})


def test_what_takes_back_under_either_version_takes_back(team, gates):
    gate = gates.open()
    run = opened_run(gate)
    token = pay(run).token
    change(team, ("words: [refund, reimburse]", "words: [refund, reimburse]\n    unheard: deny"))
    gate.reload()
    run.add_turn("No, stop, do not refund it")
    with pytest.raises(TokenRefused):
        run.redeem(token, tool=TOOL, args={"order_id": ORDER, "amount": "10.00"})


# --- people ----------------------------------------------------------------------------------------------------------------
def held(team: Team, gates: Gates, more: str = ASKS) -> tuple[Gate, Any, Any]:
    change(team, more=more)
    gate = gates.open()
    run = opened_run(gate)
    answer = pay(run, "20.00")
    assert isinstance(answer, StepUp)
    return gate, run, answer.hold


def test_a_held_call_is_released_and_minted_under_a_later_version_that_asks_the_same(team, gates):
    gate, run, hold = held(team, gates)
    change(team, ('"10.00", "20.00"', '"10.00", "20.00", "40.00"'), version=3)
    gate.reload()
    assert gate.release(hold.id, tenant="acme", by=BOSS).state == "released"
    assert isinstance(pay(run, "20.00"), Allow)


SHOWN = ASKS.replace("timeout", "show: [order_id, amount], timeout")


@pytest.mark.parametrize("edits", [(SHOWN, SHOWN.replace("10m", "9m")), (SHOWN, SHOWN.replace("[order_id, amount]", "[amount]"))])
def test_a_yes_is_for_as_long_and_to_as_much_as_was_asked(team, gates, edits):
    gate, run, hold = held(team, gates, SHOWN)
    gate.release(hold.id, tenant="acme", by=BOSS)
    change(team, edits, version=3)
    gate.reload()
    assert set(pay(run, "20.00").reasons) == {Reason.STEP_UP}
    assert pay(run, "20.00", "b").hold.rules == ("ask", "ask@3")


PLAIN, SECRET = "from: [model]}", "from: [model], sensitive: true}"


@pytest.mark.parametrize("edits", [(PLAIN, SECRET), (SECRET, PLAIN)])
def test_what_either_version_calls_sensitive_is_shown_to_nobody(team, gates, edits):
    """Not in the question, which webhooks are told; not in why it is asked; not in the audit log."""
    team.edit(PLAIN, edits[0])
    gate, run, _ = held(team, gates)
    assert ("20.00" in str(gates.records(1, "decision")[-1])) == (edits[0] == PLAIN)
    change(team, edits, version=3)
    gate.reload()
    hold = pay(run, "20.00", "b").hold
    assert "it asks about some values of amount, which are not shown" in str(hold)
    assert "20.00" not in str(hold)
    assert "20.00" not in str(gates.records(1, "decision")[-1])


@pytest.mark.parametrize("edits", [(("group: leads", "group: chiefs"),), (("group: leads", "group: leads, count: 2"),), ((ASKS, MORE),)])
def test_a_yes_to_the_rules_of_one_version_is_none_to_those_of_another(team, gates, edits):
    """Neither a yes given before the change, nor one given after it to what was asked before."""
    gate, run, hold = held(team, gates)
    gate.release(hold.id, tenant="acme", by=BOSS)
    change(team, *edits, version=3)
    gate.reload()
    answer = pay(run, "20.00")
    assert set(answer.reasons) == {Reason.STEP_UP}
    assert isinstance(pay(run, call="b"), Allow)  # a person is missing, no version refused
    again = pay(run, "20.00", "c")
    assert isinstance(again, StepUp)
    assert "ask" in again.hold.rules
    assert len(again.hold.rules) == 2
    gate.release(again.hold.id, tenant="acme", by=BOSS)
    assert isinstance(pay(run, "20.00", "c"), StepUp)
    gate.release(again.hold.id, tenant="acme", by=CHIEF if "chiefs" in str(edits) else User("second", tenant="acme", groups=["leads"]))
    assert isinstance(pay(run, "20.00", "c"), Allow)


def test_who_may_no_longer_be_asked_is_still_asked_by_an_open_run(team, gates):
    gate, run, hold = held(team, gates)
    change(team, (ASKS, ""), version=3)
    gate.reload()
    assert isinstance(pay(run, "20.00"), StepUp)
    gate.release(hold.id, tenant="acme", by=BOSS)
    assert isinstance(pay(run, "20.00"), Allow)


def test_a_hold_whose_rules_another_version_named_is_answered_where_they_are_known(team, gates):
    """And at a gate that loaded neither, or another one meanwhile, it is not."""
    old = gates.open()
    run = opened_run(old)
    change(team, more=ASKS)
    new = gates.open()
    hold = pay(new.resume_run("acme", run.id), "20.00").hold
    assert hold.rules == ("ask@2",)
    with pytest.raises(AnswerRefused) as refused:
        old.release(hold.id, tenant="acme", by=BOSS)
    assert refused.value.code == "workflow"
    change(team, ("group: leads", "group: chiefs"), version=3)
    new.reload()
    with pytest.raises(AnswerRefused) as refused:
        new.release(hold.id, tenant="acme", by=BOSS)
    assert refused.value.code == "workflow"


# --- which versions count --------------------------------------------------------------------------------------------------
def test_a_revoked_version_ends_at_once_also_at_a_gate_that_did_not_reload(team, gates):
    old = gates.open()
    run, token = (run := opened_run(old)), pay(run, call="a").token
    change(team, *WIDER)
    new = gates.open()
    there = new.resume_run("acme", run.id)
    assert isinstance(pay(there, call="b"), Allow)
    team.revoke(1)
    new.reload()
    assert set(pay(there, call="c").reasons) == {Reason.WORKFLOW_CHANGED}
    assert "REVOKED" in str(pay(there, call="c").failures[0])
    assert set(pay(run, call="d").reasons) == {Reason.REVOKED}
    with pytest.raises(TokenRefused) as refused:
        run.redeem(token, tool=TOOL, args={"order_id": ORDER, "amount": "10.00"})
    assert refused.value.code is Code.REVOKED


def test_another_definition_of_the_same_number_is_another_version(team, gates, tmp_path):
    """Of other reviewers, with a root of their own, over the same store."""
    (tmp_path / "others").mkdir()
    others = Team(tmp_path / "others", people={ALICE: ["x"], BOB: ["y"], CAROL: ["z"]}, signers=("x",))
    others.edit('"20.00"', '"90.00"')
    for name in ("x", "y"):
        write_approval(others.directory, statement(others.directory, PATH, signer=key(name), proposer=CAROL, now=others.now), key(name))
    write_index(others.directory, key("x"), now=others.now)
    run = opened_run(gates.open(others.directory, root=others.root, keys=tmp_path / "k", issuer="https://other.example"))
    here = gates.open().resume_run("acme", run.id)
    assert set(pay(here).reasons) == {Reason.WORKFLOW_CHANGED}
    change(team, *WIDER)
    there = gates.open().resume_run("acme", run.id)
    assert set(pay(there, call="b").reasons) == {Reason.WORKFLOW_CHANGED}


@pytest.mark.parametrize("harm", ["removed", "edited", "unsigned"])
def test_a_version_that_is_not_what_was_signed_decides_nothing_and_ends_no_run(team, gates, harm):
    gate = gates.open()
    run = opened_run(gate)
    change(team, *WIDER)
    gate.reload()
    folder, kept = team.approvals(f"{ID}/1"), team.directory.parent / "kept"
    shutil.copytree(folder, kept)
    if harm == "removed":
        shutil.rmtree(folder)
    elif harm == "edited":
        file = folder / "definition.json"
        file.write_text(file.read_text().replace("20.00", "90.00"))
    else:
        (folder / f"{BOB}.sig").unlink()
    assert set(pay(run, "20.00").reasons) == {Reason.WORKFLOW_CHANGED}
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
    with time_machine.travel(time.time() + 6, tick=True):
        assert isinstance(pay(run, "20.00", "b"), Allow)


def test_what_was_found_of_a_version_ends_with_its_approval(team, gates, monkeypatch):
    gate = gates.open()
    run = opened_run(gate)
    change(team, *WIDER)
    gate.reload()
    assert isinstance(pay(run, call="a"), Allow)
    key = next(k for k in gate.catalog.others if k[0] != k[1])
    found, _ = gate.catalog.others[key]
    gate.catalog.others[key] = found, time.time() - 1
    shutil.rmtree(team.approvals(f"{ID}/1"))
    assert set(pay(run, call="b").reasons) == {Reason.WORKFLOW_CHANGED}


def test_a_gate_behind_goes_on_with_a_newer_run_if_its_own_directory_has_that_version_signed(team, gates):
    elsewhere = team.directory.parent / "elsewhere"
    shutil.copytree(team.directory, elsewhere)
    beside, apart = gates.open(), gates.open(elsewhere)
    change(team, *WIDER)
    run = opened_run(gates.open())
    assert isinstance(pay(run, "30.00", "a"), Allow)
    assert isinstance(pay(beside.resume_run("acme", run.id), "30.00", "b"), Allow)
    answer = pay(apart.resume_run("acme", run.id), call="c")
    assert set(answer.reasons) == {Reason.WORKFLOW_CHANGED}
    assert isinstance(pay(run, call="d"), Allow)  # it goes on where its version is known
    change(team, ('"30.00"', '"31.00"'), version=3)
    behind = pay(apart.resume_run("acme", run.id), call="e")
    assert set(behind.reasons) == {Reason.WORKFLOW_CHANGED}


def test_a_gate_behind_does_not_decide_under_a_version_that_is_itself_out_of_force(team, gates):
    beside = gates.open()
    change(team, *WIDER)
    run = opened_run(gates.open())
    change(team, ('"30.00"', '"31.00"'), version=3)
    answer = pay(beside.resume_run("acme", run.id), "30.00")
    assert set(answer.reasons) == {Reason.WORKFLOW_CHANGED}
    assert "reload" in str(answer.failures[0])


def test_it_is_explained_by_the_version_that_refuses(team, gates):
    gate = gates.open()
    run = opened_run(gate)
    change(team, *NARROWER, people=(CAROL,))
    gate.reload()
    told = run.explain(TOOL, {"order_id": ORDER, "amount": "20.00"})
    assert (told.decision, told.workflow) == ("deny", f"{ID} v2")
    assert any("version 1" in note and "version 2" in note for note in told.notes)
    assert run.explain(TOOL, {"order_id": ORDER, "amount": "10.00"}).decision == "allow"
    ended(pay(run, "20.00"))
    base = team.directory.parent
    later = CliRunner().invoke(app, ["explain", "call_1", "--audit", str(base / "audit1"), "--workflows", str(team.directory)])
    assert "version 1 allows it, version 2 refuses it" in later.output
    assert "a new run, opened under the version" in later.output


# --- the rule itself ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("turned", [False, True])
def test_a_call_is_minted_by_the_stricter_terms_whichever_version_says_them(turned):
    """And of a fresh credential those claims are kept that either compares."""
    plain = Generator(5).workflow()
    tool = replace(plain.tools["pay"], referenced=frozenset())
    one = replace(plain, agent=AgentRule(1, in_process=True), token=TokenRule(60), tools={"pay": tool})
    strict = AgentRule(1, claims=(ClaimRule("ref", 1, ("main",)),), same_key_as_last_token=True)
    other = replace(one, agent=strict, token=TokenRule(20, agent_key=True), tools={"pay": replace(tool, referenced=frozenset({"id"}))})
    minted = Versions(*((other, one) if turned else (one, other))).minted
    assert (minted.agent.in_process, minted.agent.same_key_as_last_token, minted.token) == (False, True, TokenRule(20, agent_key=True))
    assert [claim.name for claim in minted.agent.claims] == ["ref"]
    assert minted.tools["pay"].referenced == {"id"}


ASKED = StepUpRule("ask", 1, "pay", (), "leads", 1, ("requester",), 600, ("id",))
ASKED_OTHERWISE: dict[str, Any] = {
    "group": "chiefs",
    "count": 2,
    "exclude": (),
    "timeout": 601,
    "show": (),
    "user": True,
    "endorses": ("id",),
}


def _asking(rule: StepUpRule) -> Workflow:
    tool = replace(Generator(5).workflow().tools["pay"], step_ups=(rule,), args={name: Rule(name, 1) for name in ("id", "note")})
    return replace(Generator(5).workflow(), tools={"pay": tool})


@pytest.mark.parametrize("name", [each.name for each in fields(StepUpRule) if each.name not in {"id", "line", "tool", "when", "left_open"}])
def test_a_rule_that_asks_otherwise_is_a_rule_of_its_own_whichever_key_says_so(name):
    newer = replace(_asking(replace(ASKED, line=9, **{name: ASKED_OTHERWISE[name]})), version=7)
    asked = Versions(_asking(ASKED), newer).minted.tools["pay"].step_ups
    assert [rule.id for rule in asked] == ["ask", "ask@7"]


def test_a_rule_that_asks_for_another_reason_is_shown_as_the_older_one():
    newer = replace(_asking(replace(ASKED, line=9, when=(Rule("note", 1),), left_open=("intent",))), version=7)
    assert Versions(_asking(ASKED), newer).minted.tools["pay"].step_ups == (ASKED,)


# --- its oracle ------------------------------------------------------------
def variant(rng: Any, workflow: Workflow) -> Workflow:
    """A later version: up to three changes of what it says of its tools, narrower or wider."""
    tools = dict(workflow.tools)
    for _ in range(rng.randint(0, 3)):
        tool = tools["pay"]
        name = rng.choice(sorted(tool.args)) if tool.args else ""
        rule = tool.args.get(name)
        options: list[Any] = [
            {"limits": ()},
            {"limits": tuple(replace(limit, maximum=limit.maximum + rng.choice((-1, 1))) for limit in tool.limits)},
            {"limits": (*tool.limits, Limit(900 + len(tool.limits), "pay", "", 3, "agent", 60 + len(tool.limits)))},
            {"step_ups": ()},
            {"step_ups": tuple(replace(step, when=(), line=step.line + 500) for step in tool.step_ups)},
            {"step_ups": tuple(replace(step, group="chiefs", user=False) for step in tool.step_ups)},
            {"step_ups": (*tool.step_ups, StepUpRule("later", 901, "pay", (), "chiefs", 1, (), 60, ()))},
            {"audience": "https://elsewhere.example"},
            {"scope": ("more",)},
            {"effect": "egress"},
            {"redeem": "wrapper" if tool.redeem == "server" else "server"},
            {"upstream": None if tool.upstream is not None else Upstream(3, "vault", {})},
            {"needs": ("any",)},
        ]
        if rule is not None:
            changed = rng.choice(
                ({"optional": True}, {"sources": (Source("model"),)}, {"sources": (Source("prompt"),)}, {"sensitive": True})
            )
            options += [{"args": {**tool.args, name: replace(rule, **changed)}}] * 4
        tools["pay"] = replace(tool, **rng.choice(options))
    return replace(workflow, tools=tools, version=workflow.version + 1, digest="sha256:" + "e" * 64)


def test_of_two_amounts_under_one_bound_the_greater_counts():
    limit = Limit(1, "pay", "amount", 10, "run", None)
    small, great = (Eligible((Reservation(limit, amount, "EUR"),), (), "", named=True) for amount in (3, 5))
    for one, other in ((small, great), (great, small)):
        assert [each.amount for each in _together(one, other, {}).reservations] == [5]


def both(case: Case, versions: Versions, told: Any) -> Verdict:
    found, answer = judged(versions, case.run, case.call, case.around, told)
    if isinstance(answer, Refused):
        return Verdict(frozenset(answer.reasons))
    assert found.workflow is versions.minted
    taken = frozenset((r.limit.maximum, r.amount, r.currency) for r in answer.reservations)
    return Verdict(frozenset(), frozenset(hold.rule.id for hold in answer.holds), answer.named, taken, answer.intent)


def test_the_rule_agrees_with_its_oracle_for_changes_of_every_kind():
    generator, reached = Generator(20270607), Counter[str]()
    for case in generator.cases(examples(2000, 500)):
        newer = variant(generator.rng, case.workflow)
        intents = {name: Derived(generator.rng.choice(("present", "present", "unclear", "absent"))) for name in newer.intents}
        told = lambda workflow, turns, doubts, user, intents=intents: intents  # noqa: E731 - of this case
        expected = evaluate_both((case.workflow, newer), intents, case.run, case.call, case.around)
        assert both(case, Versions(case.workflow, newer), told) == expected
        reached["denied" if expected.denied else "held" if expected.holds else "allowed"] += 1
        reached["other terms"] += expected.denied == {Reason.TWO_VERSIONS}
        reached["a rule of the newer version"] += any("@" in rule for rule in expected.holds)
    assert min(reached.values()) >= examples(10, 2), reached


def test_a_run_from_before_a_hop_was_required_goes_on_nowhere(team: Team, gates: Gates) -> None:
    """It was opened when nobody asked for a hop: the version in force now does, also where the run is resumed."""
    gate = gates.open()
    run = opened_run(gate)
    assert isinstance(pay(run), Allow)
    change(team, ("who: {", "who: {via: {min_hops: 1, max_hops: 1, brokers: [api]}, "))
    gate.reload()
    for number, each in enumerate((run, gate.resume_run("acme", run.id))):
        answer = pay(each, call=f"call_{number + 2}")
        assert isinstance(answer, Deny)
        assert "agent.via" in {failure.field for failure in answer.failures}
    with pytest.raises(RunRefused):
        opened_run(gate)
