"""What is done between sending a script and reading its reply: the reply stays its caller's, and what fails releases nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate import Allow, Deny, Gate, Reason
from agentgate.audit import MemoryAudit
from agentgate.audit.entry import DraftedRecord, record_bytes
from agentgate.errors import AuditUnavailable, KeyRefused, StoreUnavailable
from agentgate.gate.minting import Minting, Release
from agentgate.stores import Op, open_async_store, open_store, ops
from agentgate.values.canonical import parse
from agentgate_conformance.stores import Blocking
from tests.servers import Server, redis_binary
from tests.shop import LEE, ORDER, REFUND, WORKFLOW, looked_up, opened, run_of

LIFE = 60_000  # ms
STORES: dict[str, Callable[[str], Any]] = {"blocking": open_store, "awaited": lambda url: Blocking(lambda: open_async_store(url))}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, redis_server: Server) -> Any:
    made = STORES[request.param](redis_server.url)
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """One that no other test keeps anything under."""
    return secrets.token_hex(8)


def keep(name: str, meanwhile: Callable[[], object] | None) -> Op[Any]:
    return ops.keep("acme", "deferred", name, name.encode(), ttl_ms=LIFE)._replace(meanwhile=meanwhile)


def soon() -> float:
    return time.monotonic() + 2.0


def kept(store: Any, name: str) -> Any:
    op = ops.kept("acme", "deferred", name)
    return op.parse(store.call(op, soon()))


def test_it_is_done_while_the_server_is_at_its_script(store: Any, redis_server: Server, name: str) -> None:
    other, found = open_store(redis_server.url), list[bytes | None]()

    def look() -> None:
        while (value := kept(other, name)) is None and time.monotonic() < until:
            time.sleep(0.001)
        found.append(value)

    store.call(keep(f"{name}-before", None), soon())  # its server knows the script
    until = soon() - 0.5
    op = keep(name, look)
    assert op.parse(store.call(op, soon())) == "ok"
    assert found == [name.encode()]  # before anybody read the reply
    other.close()


def test_it_is_done_once_however_often_something_is_sent(store: Any, redis_server: Server, name: str) -> None:
    done = list[None]()
    redis_server.command("SCRIPT", "FLUSH")  # so that the script is sent, loaded and sent again
    op = keep(name, lambda: done.append(None))
    assert op.parse(store.call(op, soon())) == "ok"
    assert done == [None]


def test_what_it_raises_is_raised_and_the_reply_is_nobody_elses(store: Any, name: str) -> None:
    def fail() -> NoReturn:
        raise KeyRefused("no key")

    store.call(keep(f"{name}-before", None), soon())  # as above
    with pytest.raises(KeyRefused):
        store.call(keep(name, fail), soon())
    assert kept(store, f"{name}-other") is None
    assert kept(store, name) == name.encode()  # it was carried out


def test_who_is_late_with_it_is_refused_in_time_and_the_reply_is_nobody_elses(store: Any, name: str) -> None:
    with pytest.raises(StoreUnavailable):
        store.call(keep(name, lambda: time.sleep(0.2)), time.monotonic() + 0.1)
    assert kept(store, f"{name}-other") is None


def test_a_record_that_cannot_be_made_is_a_refusal_whose_reservation_nobody_holds(tmp_path: Path, redis_server: Server) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW.replace("max: 2, per: run", "max: 1, per: run"), encoding="utf-8")
    with opened(tmp_path, store=redis_server.url) as gate:
        run = run_of(gate)
        looked = run.authorize("orders.get", ORDER, tool_call_id="c1")
        with run.redeem(looked.token, tool="orders.get", args=ORDER) as call:
            call.record_result({"total": "39.99", "currency": "EUR", "customer": "cus_1"})

        def fail(_: Mapping[str, Any]) -> NoReturn:
            raise KeyRefused("the auditor's key cannot be used")

        object.__setattr__(gate._core, "seal", fail)
        log = cast("MemoryAudit", gate._audit)
        before = len(log.records)
        refused = run.authorize("payments.refund", REFUND, tool_call_id="c2")
        assert isinstance(refused, Deny)
        assert [failure.reason for failure in refused.failures] == [Reason.STORE]
        assert [each["decision"] for each in log.records[before:]] == ["deny"]
        object.__setattr__(gate._core, "seal", lambda _: "sealed")
        other = run.authorize("payments.refund", REFUND, tool_call_id="c3")
        assert isinstance(other, Deny)
        assert Reason.LIMIT in {failure.reason for failure in other.failures}  # it is reserved, until its token's end
        again = run.authorize("payments.refund", REFUND, tool_call_id="c2")
        assert isinstance(again, Allow)  # the same call finds its reservation


LINEAGE = "0123456789" * 4
HISTORIES = st.sampled_from(("", f"{LINEAGE}.1 7", f"{LINEAGE}.1 8"))
ANSWERS = st.builds(
    ops.MintReply,
    st.just("ok"),
    st.sampled_from((LINEAGE, LINEAGE[::-1])),
    st.sampled_from(("", "spent")),
    history=HISTORIES,
    redemptions=HISTORIES,
    head=st.sampled_from((b"", b"{}")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


def shop_of(folder: Path, **more: Any) -> Gate:
    (folder / "w").mkdir(exist_ok=True)
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("max: 2, per: run", "max: 1, per: run"), encoding="utf-8")
    return opened(folder, **more)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One of its own: what is done to it is done to no other test."""
    made = Server(redis_binary(), tmp_path / "server")
    yield made
    made.stop()


def log_of(gate: Gate) -> MemoryAudit:
    return cast("MemoryAudit", gate._audit)


def watch_signing(gate: Gate) -> list[list[Any]]:
    """For each signature by the gate's key: what was on record before it."""
    signer, made = gate._core.keys.signer(time.time()), list[list[Any]]()
    sign = signer.sign

    def watched(data: bytes) -> bytes:
        made.append(log_of(gate).records)
        return sign(data)

    signer.sign = watched
    return made


def test_nothing_is_signed_before_the_record_and_nothing_at_all_where_the_script_refuses(tmp_path: Path, server: Server) -> None:
    with shop_of(tmp_path, store=server.url) as gate:
        made, run = watch_signing(gate), run_of(gate)
        looked_up(run)
        paid = run.authorize("payments.refund", REFUND, tool_call_id="c1")
        assert isinstance(paid, Allow)
        assert len(made) == 2
        assert [each["jti"] for each in made[-1] if each.get("decision") == "allow"][-1] == paid.token.jti
        before = len(log_of(gate).records)
        again = run.authorize("payments.refund", REFUND, tool_call_id="c2")
        assert isinstance(again, Deny)
        assert again.reasons == (Reason.LIMIT,)
        gate.revoke(f"user:{LEE.id}", tenants=["acme"], by="ops", reason="left")
        gone = run.authorize("orders.get", ORDER, tool_call_id="c3")
        assert isinstance(gone, Deny)
        assert gone.reasons == (Reason.REVOKED,)
        assert len(made) == 2
        assert "allow" not in [each.get("decision") for each in log_of(gate).records[before:]]


def test_in_another_lineage_than_was_read_the_token_and_its_record_say_the_new_one(tmp_path: Path, server: Server) -> None:
    with shop_of(tmp_path, store=server.url) as gate:
        run = run_of(gate)
        first = run.authorize("orders.get", ORDER, tool_call_id="c1")
        assert isinstance(first, Allow)
        with server.replica(tmp_path / "replica"):
            second = run.authorize("orders.get", ORDER, tool_call_id="c2")
        assert isinstance(second, Allow)
        assert second.token.claims.gen != first.token.claims.gen
        said = {each["jti"]: each["lineage"] for each in log_of(gate).records if each.get("decision") == "allow"}
        assert said == {each.token.jti: each.token.claims.gen for each in (first, second)}


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory, redis_server: Server) -> Any:
    """A gate, and a call on its way to a token."""
    found, of = list[Minting](), Minting.of

    def watched(*args: Any, **more: Any) -> Minting:
        found.append(of(*args, **more))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch, shop_of(tmp_path_factory.mktemp("shop"), store=redis_server.url) as gate:
        patch.setattr(Minting, "of", watched)
        assert isinstance(run_of(gate).authorize("orders.get", ORDER, tool_call_id="c1"), Allow)
        yield gate, found[0]


@given(likely=ANSWERS, settled=ANSWERS)
def test_what_is_said_is_what_the_script_answered_whatever_was_likely(drafting: Any, likely: ops.MintReply, settled: ops.MintReply) -> None:
    gate, minting = drafting
    minting.drafts.clear()
    minting.drafts.append(minting.draft(Release(), likely, b"[]"))
    drafted = minting.draft(Release(), settled, b"[]")
    minting.drafts.clear()
    anew = minting.draft(Release(), settled, b"[]")
    record = parse(record_bytes(drafted.record.body))
    assert {**record, "time": 0} == {**anew.record.body, "time": 0}
    assert record["lineage"] == settled.lineage
    assert (record.get("history", ""), record.get("redemptions", "")) == (settled.history, settled.redemptions)
    assert record.get("spent", False) == (settled.detail == "spent")
    signer = gate._core.keys.signer(minting.iat)
    assert drafted.sign(signer).claims == anew.sign(signer).claims
    assert drafted.sign(signer).reveal().rpartition(".")[0] == anew.sign(signer).reveal().rpartition(".")[0]
    assert drafted.sign(signer).claims.gen == settled.lineage


@given(st.dictionaries(st.text().filter(lambda name: name not in {"seq", "writer"}), JSON, max_size=4))
def test_the_bytes_of_a_record_are_those_of_what_it_says(said: dict[str, Any]) -> None:
    drafted = DraftedRecord(said)
    assert record_bytes(drafted) == drafted.data == record_bytes(said)
    assert dict(drafted) == parse(drafted.data)
    assert len(drafted) == len(parse(drafted.data))
    said["later"] = drafted.get("nested", [])
    assert "later" not in drafted


@pytest.mark.parametrize("said", [{"seq": 1}, {"writer": "w"}, {"a": object()}, {"a": "x" * 300_000}])
def test_a_record_that_cannot_be_written_has_no_bytes(said: dict[str, Any]) -> None:
    with pytest.raises(AuditUnavailable):
        DraftedRecord(said)


def test_a_redemption_says_the_count_that_the_store_answered_whatever_was_likely(tmp_path: Path, server: Server) -> None:
    more = {"store": server.url, "keys": tmp_path / "keys"}
    with shop_of(tmp_path, **more) as gate, shop_of(tmp_path, **more) as other:
        for turn in range(3):
            paying = list[Any]()
            for each in (gate, other):
                run = run_of(each)
                looked_up(run)
                answer = run.authorize("payments.refund", REFUND, tool_call_id="c1")
                assert isinstance(answer, Allow)
                paying.append((run, answer.token))
            for run, token in reversed(paying) if turn else paying:  # what one has counted, the other has not seen
                with run.redeem(token, tool="payments.refund", args=REFUND):
                    pass
        said = [
            each["redemptions"]
            for log in (gate, other)
            for each in log_of(log).records
            if "redemptions" in each and each["type"] == "redemption"
        ]
        assert sorted(int(each.split()[1]) for each in said) == [1, 2, 3, 4, 5, 6]
