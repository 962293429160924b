"""What an auditor finds in the records of a call, allowed, held or refused, and what they never find; and the page that describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agentgate import Agent, Allow, Deny, Gate, StepUp, User
from agentgate.audit import MemoryAudit
from agentgate.audit.auditor import make_sealer, unseal_values
from agentgate.audit.entry import record_bytes
from agentgate.audit.schema import VERSION, find_wrong, record_fields, record_types, schema_page
from agentgate.decision.versions import Versions
from agentgate.diff import compare
from agentgate.errors import KeyRefused, WorkflowError
from agentgate.gate.core import _most_of
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.redemption.verifier import RedeemedCall
from agentgate.values.request import Posture
from agentgate.workflow.rule import Rule
from tests.authority import lasting
from tests.shop import LEE, ORDER, WORKFLOW

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)
PROMPT = "Please refund order ORD-10023344, it arrived broken"
REFUND = {"order_id": "ORD-10023344", "amount": "39.90", "currency": "EUR"}
LEADER = User("ana", tenant="acme", groups=["leads"])


def auditor(folder: Path) -> tuple[Path, Path]:
    """A key pair: public, private."""
    key = X25519PrivateKey.generate()
    (folder / "auditor.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    private = folder / "auditor.key"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "auditor.pub", private


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "w").mkdir()
    text = WORKFLOW.replace("payee: {type: id", "reason: {text: 200, from: [model]}\n      payee: {type: id")
    (tmp_path / "w" / "refund.yaml").write_text(text)
    public, _ = auditor(tmp_path)
    with Gate.open_unsafe_unapproved(
        tmp_path / "w", issuer="https://gate.example", audit="memory://", clock=lambda: NOW, auditor=public
    ) as opened:
        yield opened


def records(gate: Gate) -> list[dict[str, Any]]:
    log = gate._audit
    assert isinstance(log, MemoryAudit)
    return log.records


def story(gate: Gate, amount: str = "39.90") -> dict[str, Any]:
    """A refund in a run of its own; its decision as it is on record."""
    run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
    look = run.authorize("orders.get", ORDER, tool_call_id="look")
    assert isinstance(look, Allow)
    with run.redeem(look.token, tool="orders.get", args=ORDER) as call:
        call.record_result(
            {"total": "400.00" if amount == "450.00" else amount, "currency": "EUR", "customer": "cus_8", "order_id": "ORD-10023344"}
        )
    args = {**REFUND, "amount": amount, "payee": "cus_8", "reason": "a secret story"}
    answer = run.authorize("payments.refund", args, tool_call_id="pay")
    if isinstance(answer, StepUp):
        assert records(gate)[-1]["decision"] == "step_up"
        gate.release(answer.hold.id, tenant="acme", by=LEADER)
        answer = run.authorize("payments.refund", args, tool_call_id="pay")
    if isinstance(answer, Allow):
        with run.redeem(answer.token, tool="payments.refund", args=args):
            pass
    return next(each for each in reversed(records(gate)) if each["type"] == "decision")


def test_what_was_allowed_is_on_record_with_its_values_their_origins_and_the_conditions_that_held(gate: Gate, tmp_path: Path) -> None:
    decision = story(gate)
    assert decision["decision"] == "allow"
    assert decision["args"] == REFUND
    assert (set(decision["hidden"]), decision["lengths"]) == ({"payee", "reason"}, {"payee": 5, "reason": 14})
    assert decision["origins"]["amount"] == "unknown" or decision["origins"]["amount"]
    assert {"args.amount at_most", "args.order_id from"} <= {*decision["met"]}
    assert decision["reasons"] == []
    assert (decision["workflow"]["version"], decision["workflow"]["digest"][:7]) == (1, "sha256:")
    assert unseal_values(decision["sealed"], tmp_path / "auditor.key") == {"payee": "cus_8", "reason": "a secret story"}


def test_a_refusal_has_what_was_met_and_what_was_not_with_what_it_got(gate: Gate) -> None:
    decision = story(gate, "450.00")
    assert decision["decision"] == "deny"
    assert [(each["field"], each["got"]) for each in decision["reasons"]]
    assert "txn" in decision
    failed = {each["condition"] for each in decision["reasons"] if "condition" in each}
    assert decision["met"]
    assert not failed & {*decision["met"]}


def test_a_yes_is_on_record_with_its_proof_and_one_txn_goes_through_all(gate: Gate) -> None:
    decision = story(gate, "150.00")
    (yes,) = decision["approvals"]
    assert (decision["decision"], yes["by"], yes["channel"]) == ("allow", "ana", "in_process")
    assert yes["proof"]
    about = [each for each in records(gate) if each.get("txn") == decision["txn"]]
    assert [each["type"] for each in about] == ["decision", "hold_answer", "decision", "redemption", "outcome"]
    answer = about[1]
    assert answer["proof"] == yes["proof"]


def test_who_is_on_record_with_the_hops_between_and_what_attestation_says_whatever_was_decided(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    who = "who: {agent: {spiffe: ['spiffe://acme/bot']}, via: {brokers: [desk, hub], max_hops: 2}, for_user: {same_tenant: true}}"
    text = re.sub(r"who: .*", who, WORKFLOW)
    (tmp_path / "w" / "refund.yaml").write_text(text)
    posture = Posture("release@acme", NOW)
    agent = proven_agent("bot", spiffe="spiffe://acme/bot", via=("desk", "hub"), posture=posture)
    with Gate.open_unsafe_unapproved(tmp_path / "w", issuer="https://gate.example", audit="memory://", clock=lambda: NOW) as opened:
        lee = lasting(proven_user("lee", tenant="acme", groups=("support",)))
        run = opened.open_run("shop.refund", tenant="acme", user=lee, agent=lasting(agent), prompt=PROMPT)
        assert isinstance(run.authorize("orders.get", ORDER, tool_call_id="look"), Allow)
        assert isinstance(run.authorize("orders.get", {"order_id": "ORD-99999999"}, tool_call_id="other"), Deny)
        assert isinstance(run.authorize("nothing", {}, tool_call_id="none"), Deny)
        found = records(opened)
    expected = {
        "user": "proven",
        "agent": "proven",
        "via": ["desk", "hub"],
        "posture": {"image_signed_by": "release@acme", "attested_at": NOW.isoformat()},
    }
    assert [each["type"] for each in found] == ["run_opened", "decision", "decision", "decision"]
    for each in found:
        assert (each["user"], each["agent"], each["identity"]) == ("lee", "bot", expected)
        assert each["workflow"].keys() == {"id", "version", "digest"}


def test_every_record_is_of_its_type(gate: Gate) -> None:
    for amount in ("39.90", "150.00", "450.00"):
        story(gate, amount)
    run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
    assert isinstance(run.authorize("nothing", {}), Deny)
    run.add_turn("And refund ORD-10023345")
    run.close()
    gate.revoke("user:lee", tenants=["acme"], by="ops", reason="test")
    seen = set()
    for record in records(gate):
        check(record)
        seen.add(record["type"])
    assert seen >= {"run_opened", "decision", "redemption", "outcome", "hold_answer", "turn_added", "run_closed", "revocation"}


def check(record: dict[str, Any]) -> None:
    """A record is what the schema says of its type."""
    _, always, maybe = record_types()[record["type"]]
    names = record.keys() - {"writer", "seq"}
    assert names >= always, (record["type"], always - names)
    assert names <= always | maybe, (record["type"], names - always - maybe)
    assert record["v"] == VERSION
    assert not find_wrong(json.loads(json.dumps(record)))


def test_every_type_that_the_package_writes_is_described_and_every_field() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "agentgate").rglob("*.py"))
    written = {*re.findall(r'(?:stamp|record_of)\(\s*(?:(?:claims|call|done\.claims),\s*)?"(\w+)"', source), "decision"}
    assert written >= {"run_opened", "redemption", "outcome", "credential"}
    assert written <= record_types().keys()
    named = set().union(*(always | maybe for _, always, maybe in record_types().values()))
    assert named <= record_fields().keys()
    assert {*record_fields()} <= named


def test_the_page_is_what_the_schema_says() -> None:
    assert (ROOT / "docs" / "audit-schema.md").read_text() == "\n".join(schema_page()) + "\n"


def test_no_prompt_no_token_and_no_hidden_value_is_in_any_record(gate: Gate) -> None:
    for amount in ("39.90", "150.00", "450.00"):
        story(gate, amount)
    text = json.dumps(records(gate))
    for canary in ("arrived broken", "a secret story", "cus_8", "eyJ", "Please refund"):
        assert canary not in text, canary
    assert "ORD-10023344" in text


def test_only_the_auditor_opens_what_is_sealed(tmp_path: Path) -> None:
    public, private = auditor(tmp_path)
    sealed = make_sealer(public)({"a": "b"})
    assert unseal_values(sealed, private) == {"a": "b"}
    (tmp_path / "other").mkdir()
    _, other = auditor(tmp_path / "other")
    for key, data in ((other, sealed), (private, sealed[:-8] + "AAAAAAA="), (private, "?")):
        with pytest.raises(KeyRefused):
            unseal_values(data, key)
    private.chmod(0o644)
    with pytest.raises(KeyRefused):
        unseal_values(sealed, private)
    for wrong in (private, tmp_path / "none"):
        with pytest.raises(KeyRefused):
            make_sealer(wrong)


def test_a_record_without_a_type_stays_as_it_is() -> None:
    assert record_bytes({"id": 1}) == b'{"id":1}'
    assert record_bytes({"type": "x"}) == b'{"type":"x","v":3}'


RECORDS = ROOT / "tests" / "vectors" / "call-records.jsonl"
# What is another in each run: ids, times, digests, marks, what is sealed; and where the workflow lies.
VARYING = (
    (r"\b(run|txn)_[\w-]{24,32}", r"\1_*"),
    (r"\b[0-9a-f]{32,64}\b(\.\d+ \d+)?", "*"),
    (r'("(?:time|expires_at|seconds)":)[\d.]+', r"\g<1>0"),
    (r'("sealed":)"[^"]+"', r'\1"*"'),
    (r'"[^"]*/refund.yaml:', '"refund.yaml:'),
)


def test_the_records_of_a_call_keep_their_bytes(gate: Gate) -> None:
    for amount in ("39.90", "150.00", "450.00"):
        story(gate, amount)
    run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
    assert isinstance(run.authorize("nothing", {}, tool_call_id="none"), Deny)
    performed = run.perform("orders.get", ORDER, tool_call_id="look")
    assert isinstance(performed, RedeemedCall)
    with performed:
        performed.record_result({"total": "39.90", "currency": "EUR", "customer": "cus_8"})
    again = run.perform("orders.get", ORDER, tool_call_id="again")
    assert isinstance(again, RedeemedCall)
    with again:
        pass
    log = gate._audit
    assert isinstance(log, MemoryAudit)
    text = "".join(f"{data.decode()}\n" for _, data in log._kept)
    for varying, fixed in VARYING:
        text = re.sub(varying, fixed, text)
    assert text == RECORDS.read_text(), "a record's bytes changed: auditors read them, so is that meant?"


def test_a_refusal_is_on_record_however_much_is_sealed(gate: Gate, tmp_path: Path) -> None:
    run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
    for name, text, sealed in (("a", "x" * 230_000, False), ("b", "x" * 60_000, False), ("c", "x" * 30_000, True)):
        answer = run.authorize("payments.refund", {**REFUND, "payee": "cus_8", "reason": text}, tool_call_id=name)
        assert isinstance(answer, Deny)
        record = records(gate)[-1]
        assert (record["type"], record["tool_call_id"], record["lengths"]["reason"]) == ("decision", name, len(text))
        told = unseal_values(record["sealed"], tmp_path / "auditor.key")
        assert (told["payee"], told.get("reason") == text) == ("cus_8", sealed)


FULL = WORKFLOW.replace(
    "payee: {type: id",
    "reason: {text: 20000, from: [model], record: full}\n      more: {type: json, text: 9000, from: [model], record: full, optional: true}"
    "\n      note: {text: 200, from: [model], optional: true}\n      payee: {type: id",
)


@pytest.mark.parametrize("sealed", [False, True])
def test_text_is_on_record_where_the_file_says_so(tmp_path: Path, *, sealed: bool) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(FULL)
    public, private = auditor(tmp_path)
    common: dict[str, Any] = {"issuer": "https://gate.example", "audit": "memory://", "clock": lambda: NOW}
    with Gate.open_unsafe_unapproved(tmp_path / "w", **common, auditor=public if sealed else None) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        common_args = {**REFUND, "payee": "cus_8", "note": "a secret note"}
        for number, (reason, more, fitting) in enumerate(
            (
                ("It {broke}\n" * 200, {"a": [1, "b"]}, {"reason", "more"}),
                ("\u6587" * 19_000, {"a": 1}, {"more"}),  # more than half of what a record has room for
                ("x" * 20_001, ["x" * 9001], set()),  # refused for its length: it may be anything
            )
        ):
            run.authorize("payments.refund", {**common_args, "reason": reason, "more": more}, tool_call_id=f"c{number}")
            record = records(gate)[-1]
            values = {"reason": reason, "more": more, "note": "a secret note", "payee": "cus_8"}
            shown = set() if sealed else fitting
            assert {name: value for name, value in record["args"].items() if name in values} == {name: values[name] for name in shown}
            assert record["hidden"].keys() == values.keys() - shown
            assert "a secret note" not in json.dumps(record)
            if sealed and number == 0:
                assert unseal_values(record["sealed"], private) == values


@pytest.mark.parametrize("depth", range(28, 32))
def test_a_refusal_is_on_record_however_deep_what_it_shows(tmp_path: Path, depth: int) -> None:
    """A call may be as deep as anything with a canonical form; in its record it lies deeper."""
    (tmp_path / "refund.yaml").write_text(FULL)
    more: Any = "x"
    for _ in range(depth):
        more = [more]
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", clock=lambda: NOW) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        answer = run.authorize("payments.refund", {**REFUND, "reason": "r", "more": more}, tool_call_id="deep")
        assert isinstance(answer, Deny)
        record = records(gate)[-1]
    assert (record["type"], record["tool_call_id"], "more" in record["args"]) == ("decision", "deep", depth < 30)


@pytest.mark.parametrize(
    ("old", "new", "got"),
    [
        ("reason: {text: 20000, from: [model]", "reason: {text: 20000, from: [model], sensitive: true", "record: full beside sensitive"),
        ("reason: {text: 20000, from: [model]", "reason: {type: id, from: [model]", "record on a id"),
        ("      reason: {text", "      inner.reason: {text", "record: full inside a structure"),
        ("20000, from: [model], record: full", "20000, from: [model], record: all", "record"),
    ],
)
def test_what_may_not_be_recorded_in_full_is_refused_when_the_file_is_read(old: str, new: str, got: str) -> None:
    load_text(FULL, "refund.yaml", {}, derive)
    with pytest.raises(WorkflowError, match=got):
        load_text(FULL.replace(old, new), "refund.yaml", {}, derive)


def test_a_reviewer_is_told_what_is_recorded_in_full_from_now_on() -> None:
    before = FULL.replace("from: [model], record: full}", "from: [model]}")
    old, new = (load_text(each, "refund.yaml", {}, derive) for each in (before, FULL))
    found = compare(old, new)
    assert [*found.read_yourself] == ["tools.payments.refund.args.reason.record"]
    assert (found.wider, found.narrower) == ((), ())


def test_what_holds_or_is_in_a_sensitive_value_of_the_other_version_is_masked_too() -> None:
    whole = "more: {type: json, text: 9000, from: [model], record: full, optional: true}"
    inside = (
        "more.pin: {type: id, from: [model], optional: true, sensitive: true}\n      more.day: {type: id, from: [model], optional: true}"
    )
    listed = inside.replace("more.", "more[].").replace("{type", "{max_items: 9, type")
    one, *others = (load_text(FULL.replace(whole, each), "refund.yaml", {}, derive) for each in (whole, inside, listed))
    for other in others:
        for versions in (Versions(one, replace(other, version=2)), Versions(other, replace(one, version=2))):
            rules = {name: rule for each in versions.each for name, rule in each.tools["payments.refund"].args.items()}
            assert rules["more"].sensitive
            assert not any(rule.sensitive for name, rule in rules.items() if name.endswith("day"))
    closed = load_text(FULL.replace(whole, whole.replace("record: full", "sensitive: true")), "refund.yaml", {}, derive)
    masked = Versions(others[0], replace(closed, version=2)).opened.tools["payments.refund"].args
    assert masked["more.day"].sensitive
    assert not masked["reason"].sensitive


def test_what_the_version_in_force_calls_sensitive_is_not_recorded_in_full() -> None:
    text = Rule("reason", 1, record="full", text=200)
    assert (_most_of([text], 9000), _most_of([replace(text, sensitive=True)], 9000)) == (9000, 0)
