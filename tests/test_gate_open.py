"""Gate.open: what reviewers approved is enforced, refusals are named, and nothing old comes back: not by restart, store or disk."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import time_machine
from structlog.testing import capture_logs
from typer.testing import CliRunner

from agentgate import Agent, Allow, AsyncGate, Deny, Gate, Reason, StepUp, TokenRefused, User
from agentgate.approvals import ApprovalRefusal, ApprovalRefused, status
from agentgate.approvals.opening import Opening
from agentgate.audit import FileAudit, open_audit, read_records
from agentgate.cli.main import app
from agentgate.errors import (
    AgentGateError,
    AuditUnavailable,
    ConfigError,
    Refusal,
    StoreUnavailable,
    WorkflowError,
)
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.loading.definition import load_text
from agentgate.stores import open_store, ops
from agentgate.token.signing import KeyRing
from agentgate.values.refusal import RunRefused
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent
from tests.approvals_team import ALICE, BOB, CAROL, ID, Team
from tests.servers import Server

R = ApprovalRefusal
LEE = User("lee", tenant="acme", groups=["support"])
PROMPT = "Please refund order ORD-10023344"
REFUND = {"order_id": "ORD-10023344", "amount": "10.00"}


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team.signed(tmp_path)


def opened(team: Team, **more: Any) -> Gate:
    base = team.directory.parent
    given = {"root": team.root, "issuer": "https://gate.example", "keys": base / "keys", "audit": str(base / "audit")}
    return Gate.open(team.directory, **{**given, **more})


def running(team: Team, **more: Any) -> int | None:
    with opened(team, **more) as gate:
        found = gate.catalog.get(ID)
        return found.version if found is not None else None


def raised(team: Team, **more: Any) -> ApprovalRefused:
    with pytest.raises(ApprovalRefused) as error:
        opened(team, **more)
    return error.value


def widen(team: Team, version: int) -> None:
    team.edit(f"version: {version - 1}", f"version: {version}")
    team.edit('"20.00"', f'"20.00", "{version}0.50"')


def test_an_approved_workflow_mints(team):
    with opened(team) as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert isinstance(run.authorize("payments.refund", REFUND), Allow)
        assert isinstance(run.authorize("payments.refund", {**REFUND, "amount": "20.50"}), Deny)


# --- another engine than the one that reviewers had --------------------------------------------------------------------------
def later(intents: tuple[Intent, ...], turns: tuple[str, ...]) -> dict[str, Derived]:
    """A later deriver, which reads every sentence as the lexical one does but the signed example."""
    found = dict(derive(intents, turns))
    return found | {"refund": Derived("absent", "it arrived broken is a complaint")} if "broken" in turns[-1] else found


def everything(intents: tuple[Intent, ...], turns: tuple[str, ...]) -> dict[str, Derived]:
    """A later deriver that has become too generous."""
    return {intent.name: Derived("present", "sounds like it") for intent in intents}


DOUBT = "intents.refund.examples[0]: got absent (it arrived broken is a complaint), expected present"


def test_a_deriver_that_reads_a_signed_example_otherwise_takes_no_workflow_out_of_force(team):
    with pytest.raises(WorkflowError, match=r"examples\[0\]: got absent"):
        load_text(team.file.read_text(), "w", {}, later)  # unsigned, it is an error
    with capture_logs() as logs, opened(team, deriver=later) as gate:
        [workflow] = gate.catalog
        assert [str(doubt) for doubt in workflow.in_doubt] == [DOUBT]
        warned = [each for each in logs if each["event"] == "intent_in_doubt"]
        assert [(w["log_level"], w["workflow"], w["version"], w["intent"], w["problem"]) for w in warned] == [
            ("warning", ID, 1, "refund", DOUBT)
        ]
        gate.reload()
        assert [w.version for w in gate.catalog] == [1]
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert later((*workflow.intents.values(),), (PROMPT,))["refund"].presence == "present"
        assert run.intents["refund"].presence == "unclear"
        denied = run.authorize("payments.refund", REFUND)
        assert isinstance(denied, Deny)
        assert [failure.reason for failure in denied.failures] == [Reason.INTENT_UNCLEAR]
    with opened(team) as gate:  # the engine that reviewers had
        assert [workflow.in_doubt for workflow in gate.catalog] == [()]


def test_without_the_workflow_file_too(team):
    """The definition that was signed runs by itself."""
    team.file.write_text("what: [")
    with opened(team, deriver=later) as gate:
        assert [str(doubt) for workflow in gate.catalog for doubt in workflow.in_doubt] == [DOUBT]


def test_a_counter_example_that_comes_out_present_is_a_doubt_too(team):
    team.edit("version: 1", "version: 2")
    team.edit('arrived broken"]', 'arrived broken"]\n    counter_examples: ["What is the weather?"]')
    team.approve(ALICE, BOB)
    with opened(team, deriver=everything) as gate:
        [workflow] = gate.catalog
        assert [(doubt.key, doubt.index, doubt.expected) for doubt in workflow.in_doubt] == [("counter_examples", 0, "unclear or absent")]
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert run.intents["refund"].presence == "unclear"


def test_a_doubt_asks_the_person_whom_the_signed_workflow_asks_when_it_is_unclear(team):
    team.edit("version: 1", "version: 2")
    team.edit("    words: [refund", "    unclear: step_up\n    words: [refund")
    team.file.write_text(
        team.file.read_text() + "step_up:\n  - {id: ask, for: payments.refund, when: {amount: {in: ['20.00']}}, "
        "approvers: {group: leads}, timeout: 10m}\n"
    )
    team.approve(ALICE, BOB)
    with opened(team, deriver=later) as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert isinstance(run.authorize("payments.refund", REFUND), StepUp)
    with opened(team) as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert isinstance(run.authorize("payments.refund", REFUND), Allow)


def test_a_narrowing_that_one_person_signed_stays_in_force_under_a_later_deriver(team):
    team.edit("version: 1", "version: 2")
    team.edit('"10.00", "20.00"', '"10.00"')
    team.approve(CAROL)
    assert running(team) == 2
    shutil.rmtree(team.directory.parent / "keys")  # so that it is proved again
    assert running(team, deriver=later, store="memory://") == 2


def working_through(intents: tuple[Intent, ...], turns: tuple[str, ...]) -> dict[str, Derived]:
    """A later deriver, which takes working through a list for a delegation."""
    there = any("work through" in turn for turn in turns)
    said = {each.name: Derived("present" if there and each.delegated == "present" else "absent", "") for each in intents}
    return {name: said[name] if there else found for name, found in derive(intents, turns).items()}


def test_one_signature_lifts_no_doubt(team):
    """What only narrows needs one signature; a version that the doubt does not touch would make the intent present again."""
    team.edit("version: 1", "version: 2")
    team.edit("    examples:", '    delegated: present\n    counter_examples: ["Please work through the list from Ann"]\n    examples:')
    team.approve(ALICE, BOB)
    with opened(team, deriver=working_through) as gate:
        assert [len(w.in_doubt) for w in gate.catalog] == [1]
    team.edit("version: 2", "version: 3")
    team.edit("delegated: present", "delegated: deny")
    assert [need.needed for need in team.draft(CAROL).needs] == [1]
    assert [need.needed for need in team.draft(CAROL, derive=working_through).needs] == [2]
    team.approve(CAROL, index=False)
    [found] = status(team.directory, team.root, derive=working_through, now=team.now)
    assert (found.in_force, found.missing) == (2, 1)
    assert running(team, deriver=working_through) == 2
    team.approve(ALICE, index=False)
    assert running(team, deriver=working_through) == 3


def test_nobody_signs_what_the_installed_deriver_reads_otherwise(team):
    team.edit("version: 1", "version: 2")
    with pytest.raises(WorkflowError, match=r"examples\[0\]: got absent"):
        team.draft(CAROL, derive=later)


def test_the_status_of_a_workflow_names_its_doubts(team):
    [found] = status(team.directory, team.root, derive=later, now=team.now)
    assert (found.in_force, found.refused, [str(doubt) for doubt in found.in_doubt]) == (1, None, [DOUBT])
    [found] = status(team.directory, team.root, now=team.now)
    assert found.in_doubt == ()


async def test_the_awaited_gate_does_the_same(team):
    base = team.directory.parent
    async with await AsyncGate.open(
        team.directory, root=team.root, issuer="https://gate.example", keys=base / "keys", audit=str(base / "audit")
    ) as gate:
        run = await gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert isinstance(await run.authorize("payments.refund", REFUND), Allow)
        team.revoke(1)
        await gate.reload()
        assert gate.catalog.get(ID) is None
    with pytest.raises(ApprovalRefused):
        await AsyncGate.open(
            team.directory, root="sha256:" + "0" * 64, issuer="https://gate.example", keys=base / "keys", audit=str(base / "audit")
        )


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"audit": "memory://"}, "audit"),
        ({"keys": None}, "keys"),
        ({"root": ""}, "root"),
        ({"root": "sha256:abc"}, "root"),
        ({"root": None}, "root"),
        ({"issuer": "http://gate.example"}, "issuer"),
        ({"store": "elsewhere://"}, "store"),
    ],
)
def test_what_must_be_said_to_open(team, change, setting):
    with pytest.raises(ConfigError) as error:
        opened(team, **change)
    assert error.value.setting == setting


def all_that_is_needed(folder: Path) -> dict[str, Any]:
    return {"root": "sha256:" + "0" * 64, "issuer": "https://gate.example", "keys": folder / "keys", "audit": str(folder / "audit")}


@pytest.mark.parametrize("left_out", ["keys", "audit", "root", "issuer"])
def test_what_is_left_out_is_named_with_the_method_that_was_called(tmp_path, left_out):
    given = all_that_is_needed(tmp_path)
    del given[left_out]
    with pytest.raises(TypeError, match=f"^Gate.open: missing a required (keyword-only )?argument: '{left_out}'$"):
        Gate.open(tmp_path, **given)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ApprovalRefused, match=f"got nothing in {re.escape(str(tmp_path / 'nowhere'))}, expected this file"):
        Gate.open(tmp_path / "nowhere", **all_that_is_needed(tmp_path))


def test_nothing_approved_opens_no_gate(tmp_path):
    team = Team(tmp_path)
    team.index()
    with capture_logs() as logs, pytest.raises(ConfigError, match="at least one workflow"):
        opened(team)
    assert [entry["refusal"] for entry in logs if entry["event"] == "workflow_refused"] == ["UNAPPROVED"]


def test_a_refusal_is_logged_by_name_and_on_record(team):
    widen(team, 2)
    with capture_logs() as logs, opened(team) as gate:
        assert [w.version for w in gate.catalog] == [1]
    (entry,) = [each for each in logs if each["event"] == "workflow_refused"]
    assert (entry["refusal"], entry["workflow"], entry["version"], entry["in_force"]) == ("UNAPPROVED", ID, 2, 1)
    records = read_records(team.directory.parent / "audit")
    (record,) = [r for r in records if r["type"] == "workflows_loaded"]
    assert (record["root"], record["workflows"]) == (team.root, 1)
    assert record["refused"][0].startswith("UNAPPROVED: shop/refund.yaml")


def test_an_edited_file_is_refused_and_what_was_approved_runs(team):
    team.edit('"20.00"', '"20000.00"')
    with capture_logs() as logs, opened(team) as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        assert isinstance(run.authorize("payments.refund", REFUND), Allow)
        assert isinstance(run.authorize("payments.refund", {**REFUND, "amount": "20000.00"}), Deny)
    (entry,) = [each for each in logs if each["event"] == "workflow_refused"]
    assert (entry["refusal"], entry["in_force"]) == ("TAMPERED", 1)
    assert "tools.payments.refund.args.amount.in[1]" in entry["problem"]


@pytest.mark.parametrize(("mark", "event"), [({"solo": True, "people": {ALICE: [ALICE]}}, "root_solo"), ({"demo": True}, "root_demo")])
def test_a_solo_or_demo_root_is_warned_of_at_every_start(tmp_path, mark, event):
    team = Team(tmp_path, **mark)
    team.edit("risk: high", "risk: low")
    team.approve(ALICE, proposer=ALICE if "solo" in mark else CAROL)
    for _ in range(2):
        with capture_logs() as logs, opened(team):
            pass
        assert event in [each["event"] for each in logs]


def test_without_approvals_only_the_unsafe_opening_is_left_and_it_warns(team):
    shutil.rmtree(team.approvals())
    assert raised(team).refused.reason is R.ROOT_NOT_TRUSTED
    with capture_logs() as logs, Gate.open_unsafe_unapproved(team.directory, issuer="https://gate.example", audit="memory://") as gate:
        assert len(gate.catalog) == 1
        with pytest.raises(ConfigError, match="root"):
            gate.reload()
    assert "unsafe_unapproved" in [each["event"] for each in logs]


# --- nothing old comes back ----------------------------------------------------------------------------------------------------
def files(team: Team) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in team.directory.rglob("*") if p.is_file()}


def put_back(team: Team, old: dict[Path, bytes]) -> None:
    shutil.rmtree(team.directory)
    for path, data in old.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_the_whole_directory_of_before_is_a_rollback_by_what_is_on_disk(team):
    old = files(team)
    widen(team, 2)
    team.approve(ALICE, BOB)
    assert running(team) == 2
    put_back(team, old)
    assert raised(team).refused.reason is R.ROLLBACK


@pytest.fixture
def stored(redis_server: Server) -> Iterator[str]:
    """A store that several gates share, without what other tests revoked in it."""
    redis_server.command("FLUSHALL")
    yield redis_server.url
    redis_server.command("FLUSHALL")  # nor do others see what was revoked here


def test_the_whole_directory_of_before_is_a_rollback_by_what_is_in_the_store(team, stored):
    """Also for a new instance: other keys, another disk."""
    issuer = f"https://gate-{team.now}.example"
    old = files(team)
    widen(team, 2)
    team.approve(ALICE, BOB)
    assert running(team, store=stored, issuer=issuer) == 2
    put_back(team, old)
    fresh = {"keys": team.directory.parent / "other keys", "audit": str(team.directory.parent / "other audit")}
    assert raised(team, store=stored, issuer=issuer, **fresh).refused.reason is R.ROLLBACK
    assert running(team, store="memory://", **fresh) == 1  # a gate that knows neither cannot know


def test_an_old_version_under_a_new_index_does_not_come_back_either(team, stored):
    issuer = f"https://gate-{team.now}.example"
    first = files(team)
    widen(team, 2)
    team.approve(ALICE, BOB)
    assert running(team, store=stored, issuer=issuer) == 2
    put_back(team, first)
    team.now += 5
    team.index()  # somebody with the index key helps
    fresh = {"keys": team.directory.parent / "other keys", "audit": str(team.directory.parent / "other audit")}
    with pytest.raises(ConfigError, match="at least one workflow"):
        opened(team, store=stored, issuer=issuer, **fresh)


def test_what_another_gate_put_in_force_meanwhile_is_not_undercut(team, stored):
    issuer = f"https://gate-{team.now}.example"
    with opened(team, store=stored, issuer=issuer) as gate:
        store = open_store(stored)
        op = ops.raise_marks(issuer, {ID: 2})
        assert op.parse(store.call(op, time.monotonic() + 5)) == {ID: 2}
        store.close()
        gate.reload()
        assert gate.catalog.get(ID) is None


@pytest.fixture
def opening(team: Team) -> Iterator[Opening]:
    keys = team.directory.parent / "keys"
    keys.mkdir(mode=0o700)
    log = open_audit("memory://")
    yield Opening(team.directory, team.root, gate="https://gate.example", ring=KeyRing.ephemeral(), kept=keys, log=log, derive=derive)
    log.close()


@pytest.mark.parametrize("mark", ["root:version", "index:serial", "revoked:serial"])
def test_a_newer_trust_file_at_another_gate_refuses_this_loading(opening, mark):
    loaded = opening.load({})
    assert opening.settle(loaded, loaded.marks) == loaded
    with pytest.raises(ApprovalRefused, match="ROLLBACK"):
        opening.settle(loaded, {**loaded.marks, mark: loaded.marks[mark] + 1})


@pytest.mark.parametrize("mark", [ID, f"revoked:{ID}"])
def test_a_newer_version_or_revocation_at_another_gate_leaves_the_workflow_out(opening, mark):
    loaded = opening.load({})
    marks = {**loaded.marks, f"revoked:{ID}": 0}
    settled = opening.settle(replace(loaded, marks=marks), {**marks, mark: 9})
    assert settled.workflows == {}
    assert [(str(refused.reason), refused.data["workflow"]) for refused in settled.refused] == [("ROLLBACK", ID)]


def test_a_workflow_of_which_nobody_says_until_when_is_not_in_force(opening):
    workflows = opening.load({}).workflows
    assert Catalog(workflows, {}, dict.fromkeys(workflows, 1e12)).get(ID) is not None
    assert Catalog(workflows, {}, {}).get(ID) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"agentgate":"other","marks":{}}',
        b'{"agentgate":"marks/v1","marks":{"a":-1}}',
        b'{"agentgate":"marks/v1","marks":{"a":"1"}}',
    ],
)
def test_marks_that_cannot_be_read_open_no_gate(team, content):
    running(team)
    (team.directory.parent / "keys/approvals.json").write_bytes(content)
    error = raised(team)
    assert error.refused.reason is R.ROLLBACK
    assert "approvals.json" in error.refused.data["file"]


def test_marks_that_others_may_write_open_no_gate(team):
    running(team)
    (team.directory.parent / "keys/approvals.json").chmod(0o666)
    assert (raised(team).refused.reason, raised(team).refused.field) == (R.ROLLBACK, "file")


def test_marks_that_are_a_link_open_no_gate(team, tmp_path):
    running(team)
    place = team.directory.parent / "keys/approvals.json"
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert raised(team).refused.reason is R.ROLLBACK


def test_marks_only_rise(team):
    running(team)
    place = team.directory.parent / "keys/approvals.json"
    kept = orjson.loads(place.read_bytes())
    kept["marks"]["shop.other"] = 5
    place.write_bytes(orjson.dumps(kept))
    running(team)
    assert orjson.loads(place.read_bytes())["marks"]["shop.other"] == 5


def test_a_store_that_cannot_answer_opens_no_gate(team, tmp_path):
    with pytest.raises(StoreUnavailable):
        opened(team, store="unix:///nowhere/redis.sock")


def test_a_log_that_cannot_be_written_opens_no_gate(team):
    audit = team.directory.parent / "audit"
    audit.write_text("a file")
    with pytest.raises(AgentGateError):
        opened(team)


# --- while it runs -----------------------------------------------------------------------------------------------------------------
def test_a_new_version_comes_into_force_by_reload(team):
    with opened(team) as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        widen(team, 2)
        team.approve(ALICE, BOB)
        gate.reload()
        found = gate.catalog.get(ID)
        assert found is not None
        assert found.version == 2
        wider = {**REFUND, "amount": "20.50"}
        assert isinstance(run.authorize("payments.refund", wider), Deny)  # opened under version 1 (tests/test_versions.py)


class Held:
    """A deriver that waits, once it is told to, in the middle of a loading; the files are read then."""

    def __init__(self) -> None:
        self.wait, self.inside, self.go_on = False, threading.Event(), threading.Event()

    def __call__(self, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> dict[str, Derived]:
        if self.wait:
            self.wait = False
            self.inside.set()
            assert self.go_on.wait(20)
        return dict(derive(intents, turns))


def meanwhile(team: Team, held: Held, catalog: Catalog, reload: Callable[[], None]) -> None:
    """Two reloads at once, of which the first read its files before there was another version."""
    held.wait = True
    first, second = threading.Thread(target=reload), threading.Thread(target=reload)
    first.start()
    assert held.inside.wait(20)
    widen(team, 2)
    team.approve(ALICE, BOB)
    second.start()
    second.join(1)  # it waits for the first
    held.go_on.set()
    first.join()
    second.join()
    assert [workflow.version for workflow in catalog] == [2]


def test_of_two_reloads_at_once_the_later_reading_stays(team):
    held = Held()
    with opened(team, deriver=held) as gate:
        meanwhile(team, held, gate.catalog, gate.reload)


class Late:
    """A store whose second next answer is late: of a reload, the one after its files were read."""

    def __init__(self, store: Any) -> None:
        self._store, self._left, self.asked, self.go_on = store, 2, asyncio.Event(), asyncio.Event()

    async def call(self, op: Any, deadline: float) -> Any:
        answer = await self._store.call(op, deadline)
        self._left -= 1
        if not self._left:
            self.asked.set()
            await self.go_on.wait()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_of_two_awaited_reloads_at_once_the_later_reading_stays(team):
    base = team.directory.parent
    kept = {"root": team.root, "issuer": "https://gate.example", "keys": base / "keys", "audit": str(base / "audit")}
    async with await AsyncGate.open(team.directory, **kept) as gate:
        gate._store = late = Late(gate._store)
        first = asyncio.create_task(gate.reload())
        await late.asked.wait()
        widen(team, 2)
        team.approve(ALICE, BOB)
        second = asyncio.create_task(gate.reload())
        await asyncio.wait([second], timeout=1)  # it waits for the first
        late.go_on.set()
        await asyncio.gather(first, second, return_exceptions=True)
        assert [workflow.version for workflow in gate.catalog] == [2]


def test_a_revocation_comes_into_force_by_reload_and_stays_after_a_restart(team):
    with opened(team) as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        team.revoke(1)
        gate.reload()
        assert isinstance(run.authorize("payments.refund", REFUND), Deny)
        with pytest.raises(RunRefused):
            gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
    with pytest.raises(ConfigError):
        opened(team)


def test_a_revocation_seen_by_one_gate_ends_what_others_would_mint_and_accept(team, stored):
    """The other gate did not load again, and the token is out already: the store refuses both."""
    issuer = f"https://gate-{team.now}.example"
    with opened(team, store=stored, issuer=issuer) as one, opened(team, store=stored, issuer=issuer) as other:
        run = other.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        out = run.authorize("payments.refund", REFUND)
        assert isinstance(out, Allow)
        team.revoke(1)
        one.reload()
        assert other.catalog.get(ID) is not None
        refused = run.authorize("payments.refund", REFUND)
        assert isinstance(refused, Deny)
        assert [failure.reason for failure in refused.failures] == [Reason.REVOKED]
        with (
            pytest.raises(TokenRefused) as error,
            other.verifier(issuer, tenants=["acme"]).redeem(out.token.reveal(), tool="payments.refund", args=REFUND),
        ):
            pass
        assert error.value.code is Refusal.REVOKED


def test_a_failed_reload_leaves_what_was_in_force(team):
    with opened(team) as gate:
        team.approvals("root.yaml").write_text("nothing")
        with pytest.raises(ApprovalRefused):
            gate.reload()
        assert gate.catalog.get(ID) is not None


def test_an_approval_that_ends_while_the_gate_runs_ends_the_minting_and_says_so(team):
    """In a run of its last day, on a store of this process, whose clock is moved with it."""
    with time_machine.travel(team.now + 6.5 * 86400, tick=True), opened(team, store="memory://") as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT, ttl=24 * 3600)
        out = run.authorize("payments.refund", REFUND)
        assert isinstance(out, Allow)
        with time_machine.travel(team.now + 7 * 86400 + 10, tick=True):
            assert gate.catalog.get(ID) is None
            answers = [run.authorize("payments.refund", REFUND)]
            for do in (
                lambda: gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT),
                lambda: gate.resume_run("acme", run.id),
                lambda: run.add_turn("please"),
            ):
                with pytest.raises(RunRefused) as refused:
                    do()
                answers.append(Deny(refused.value.failures))
            for answer in answers:
                assert isinstance(answer, Deny)
                (why,) = answer.failures
                assert (why.reason, why.field) == (Reason.APPROVAL_EXPIRED, "approvals.index")
                assert "agentgate workflow index" in why.expected
            with pytest.raises(TokenRefused, match="the index ended at"):
                run.redeem(out.token, tool="payments.refund", args=REFUND)
            with pytest.raises(ApprovalRefused, match="STALE INDEX"):
                gate.reload()


def test_the_end_of_an_index_is_warned_of_from_half_time_on(team):
    def warned(days: float, do: Any) -> list[tuple[Any, Any]]:
        with time_machine.travel(team.now + days * 86400, tick=True), capture_logs() as logs:
            do()
        return [(entry["what"], entry["remedy"]) for entry in logs if entry["event"] == "approvals_end"]

    expected = [("index", "agentgate workflow index, and reload the gate")]
    with opened(team) as gate:
        run = gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT, ttl=24 * 3600)
        for days, found in ((0.0, []), (3.4, []), (3.6, expected), (3.61, []), (3.65, expected), (6.9, expected), (7.1, expected)):
            assert warned(days, lambda: run.authorize("payments.refund", REFUND)) == found, days
        assert warned(3.4, gate.reload) == []
        assert warned(3.6, gate.reload) == expected
        assert warned(3.62, lambda: run.authorize("payments.refund", REFUND)) == []
    assert warned(3.6, lambda: opened(team).close()) == expected
    with time_machine.travel(team.now + 3.6 * 86400, tick=True):
        shown = CliRunner().invoke(app, ["workflow", "status", "-d", str(team.directory), "--root", team.root])
    assert "the index ends at" in shown.stdout
    assert "agentgate workflow index" in shown.stdout
    assert "ends at" not in CliRunner().invoke(app, ["workflow", "status", "-d", str(team.directory), "--root", team.root]).stdout


def test_an_approval_that_ends_before_the_index_is_named_as_such(team):
    catalog = Catalog(dict.fromkeys([ID, "b", "c", "d"]), {}, {ID: 5.0, "b": 6.0, "c": 7.0, "d": 4e9}, {"index": 6.0, "root": 7.0})  # type: ignore[arg-type]  # only their ends count
    ended = {name: catalog.ended(name) for name in (ID, "b", "c", "d", "e")}
    assert {name: each and each.what for name, each in ended.items()} == {ID: "approval", "b": "index", "c": "root", "d": None, "e": None}
    assert [each.what for each in catalog.due()] == ["approval", "index", "root"]
    assert catalog.due() == ()


def test_a_kept_proof_needs_no_second_comparison(team):
    team.edit("version: 1", "version: 2")
    team.edit('"10.00", "20.00"', '"10.00"')
    team.approve(CAROL)
    assert running(team) == 2
    place = team.directory.parent / "keys/narrowings.json"
    assert len(orjson.loads(place.read_bytes())) == 1
    assert place.stat().st_mode & 0o077 == 0
    assert running(team) == 2


def test_a_gate_that_cannot_write_its_record_does_not_open(team, monkeypatch):
    def full(self: FileAudit, record: Any, deadline: float, **_: Any) -> None:
        raise AuditUnavailable("disk full")

    monkeypatch.setattr(FileAudit, "append", full)
    with pytest.raises(AuditUnavailable):
        opened(team)
