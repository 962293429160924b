"""The upstream credential of a redeemed call: fetched for it alone, ended with it, refused in doubt; then the tool does not run."""

from __future__ import annotations

import copy
import json
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, AsyncGate, Deny, Gate, NotDone, Reason, TokenRefused, Verifier
from agentgate.errors import ConfigError, Refusal, ResultWithheld, UpstreamRefused
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.redemption import credential
from agentgate.redemption.credential import Redemption, UpstreamCredential
from tests.upstream import CANARY, ORDER, Bank, allowed, opened, records, redeemed, run_of, written

BOUNDED = "{broker: bank, role: strange, narrower_than: support}"


def again(run: Any, tool: str = "pay", call: str = "c1") -> Any:
    return run.authorize(tool, ORDER, tool_call_id=call)


def refused(run: Any, tool: str = "pay", call: str = "c1") -> TokenRefused:
    """A redemption that is refused for want of a credential; the call may run again."""
    with pytest.raises(TokenRefused) as error:
        redeemed(run, tool, call)
    assert error.value.code is Refusal.UPSTREAM
    assert error.value.code.http_status == 503
    assert CANARY not in str(error.value)
    assert error.value.__cause__ is None
    allowed(run, tool, call)  # not run, so it may be asked again
    return error.value


def test_a_redeemed_call_gets_its_credential_and_no_other_call_the_same(tmp_path: Path) -> None:
    bank = Bank()
    with opened(tmp_path, {"bank": bank}) as gate:
        run = run_of(gate)
        for name in ("c1", "c2"):
            with redeemed(run, call=name) as call:
                assert call.credential.reveal() == call.credential.reveal("key") == CANARY
                assert call.credential.parts == ("key",)
        assert [(each.claims.tool_call_id, each.args) for each in bank.asked] == [("c1", ORDER), ("c2", ORDER)]
        assert bank.given[0] is not bank.given[1]
        assert [r["role"] for r in records(gate) if r["type"] == "credential"] == ["writer", "writer"]


def test_a_credential_ends_with_its_call(tmp_path: Path) -> None:
    bank = Bank()
    with opened(tmp_path, {"bank": bank}) as gate:
        with redeemed(run_of(gate)) as call:
            kept = call.credential
            assert bank.ended == 0
        assert bank.ended == 1
        with pytest.raises(UpstreamRefused, match="over"):
            kept.reveal()


def test_a_credential_that_cannot_be_ended_is_logged_and_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise OSError(CANARY)

    with opened(tmp_path, {"bank": Bank(end=fails)}) as gate:
        with redeemed(run_of(gate)) as call:
            kept = call.credential
        said = "".join(capsys.readouterr())
        assert "not_ended" in said
        assert CANARY not in said
        with pytest.raises(UpstreamRefused):
            kept.reveal()


@pytest.mark.parametrize("sort", ["run", "agent", "workflow", "token"])
def test_after_a_revocation_no_broker_is_asked(tmp_path: Path, sort: str) -> None:
    bank = Bank()
    with opened(tmp_path, {"bank": bank}) as gate:
        run = run_of(gate)
        with redeemed(run):
            pass
        token = allowed(run, call="c2")
        name = {"run": f"run:{run.id}", "agent": "agent:bot", "workflow": "workflow:shop.pay@1", "token": f"token:{token.jti}"}[sort]
        gate.revoke(name, tenants=["acme"], by="ana", reason="test")
        with pytest.raises(TokenRefused) as error:
            run.redeem(token, tool="pay", args=ORDER)
        assert error.value.code is Refusal.REVOKED
        assert len(bank.asked) == 1


def test_a_token_that_is_refused_asks_no_broker(tmp_path: Path) -> None:
    bank = Bank()
    with opened(tmp_path, {"bank": bank}) as gate:
        run = run_of(gate)
        token = allowed(run)
        with pytest.raises(TokenRefused):
            run.redeem(token, tool="pay", args={"order": "ORD-2"})
        assert bank.asked == []
        run.redeem(token, tool="pay", args=ORDER)
        with pytest.raises(TokenRefused):
            run.redeem(token, tool="pay", args=ORDER)
        assert len(bank.asked) == 1


def _raises(error: BaseException) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


class Broken(Bank):
    """A broker whose `fetch` does what the test says."""

    def __init__(self, does: Callable[[], Any]) -> None:
        super().__init__()
        self.does = does

    def fetch(self, call: Redemption) -> UpstreamCredential:
        return self.does()  # type: ignore[no-any-return]  # what a broken broker returns


@pytest.mark.parametrize(
    "does",
    [
        _raises(RuntimeError(CANARY)),
        _raises(KeyboardInterrupt(CANARY)),
        _raises(UpstreamRefused("upstream.bank", "403", "a credential")),
        lambda: None,
        lambda: CANARY,
        lambda: UpstreamCredential({}),
        lambda: UpstreamCredential({"key": "short"}),
        lambda: UpstreamCredential({"key": CANARY}, expires_at=time.time() - 1),
    ],
    ids=["raises", "interrupts", "refuses", "nothing", "text", "no secret", "a short secret", "expired"],
)
def test_without_a_credential_the_call_is_refused_and_was_not_run(tmp_path: Path, does: Callable[[], Any]) -> None:
    with opened(tmp_path, {"bank": Broken(does)}) as gate:
        refused(run_of(gate))
        assert [(r["outcome"], CANARY in r["why"]) for r in records(gate) if r["type"] == "outcome"] == [("not_run", False)]
        assert CANARY not in json.dumps(records(gate))


def test_what_a_broker_met_on_its_way_to_a_refusal_is_cut_off() -> None:
    def fetch() -> Any:
        try:
            return int(CANARY)
        except ValueError:
            raise UpstreamRefused("upstream.bank", "403", "a credential")  # noqa: B904 - its context holds the secret

    with pytest.raises(UpstreamRefused, match="403") as error:
        credential._Fetch(Broken(fetch), None, "upstream.bank").in_time()  # type: ignore[arg-type]  # the broker looks at no call
    assert error.value.__context__ is None
    assert not [frame for frame in traceback.extract_tb(error.value.__traceback__) if frame.name == "fetch"]


@pytest.mark.deadline
def test_a_broker_that_hangs_is_refused_in_time_and_what_it_gives_later_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential, "FETCH_SECONDS", 0.2)
    bank = Bank()

    class Slow(Bank):
        def fetch(self, call: Redemption) -> UpstreamCredential:
            time.sleep(0.5)
            return bank.fetch(call)

    with opened(tmp_path, {"bank": Slow()}) as gate:
        began = time.monotonic()
        with pytest.raises(TokenRefused, match=r"0\.2 s"):
            redeemed(run_of(gate))
        assert time.monotonic() - began < 0.5
        deadline = time.monotonic() + 5
        while not bank.ended and time.monotonic() < deadline:
            time.sleep(0.02)
        assert bank.ended == 1


@pytest.mark.deadline
def test_a_broker_may_take_longer_than_a_call_and_the_record_is_still_written(tmp_path: Path) -> None:
    class Slow(Bank):
        def fetch(self, call: Redemption) -> UpstreamCredential:
            time.sleep(0.6)
            return super().fetch(call)

    with opened(tmp_path, {"bank": Slow()}) as gate:
        run = run_of(gate)
        with redeemed(run) as call:
            assert call.credential.reveal() == CANARY
        answer = again(run)
        assert isinstance(answer, Deny)
        assert answer.reasons == (Reason.ALREADY_REDEEMED,)


def test_a_broker_known_by_name_only_lets_no_tool_of_this_process_run(tmp_path: Path) -> None:
    for number, brokers in enumerate(({"bank"}, {"bank": None})):
        (tmp_path / str(number)).mkdir()
        with opened(tmp_path / str(number), brokers) as gate:
            error = refused(run_of(gate))
            assert (error.field, error.got) == ("upstream.broker", "'bank'")


def test_a_tool_server_without_the_broker_burns_nothing_and_one_that_has_it_runs(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}) as gate:
        token, server = allowed(run_of(gate), "remote"), gate.verifier("https://bank.example", tenants=["acme"])
        misnamed = Verifier(replace(server._who, brokers={"banc": Bank()}), server._store, server._audit)
        for _ in range(2):
            with pytest.raises(TokenRefused) as error:
                misnamed.redeem(token.reveal(), tool="remote", args=ORDER)
            assert (error.value.code, error.value.got) == (Refusal.UPSTREAM, "'bank'")
        with server.redeem(token.reveal(), tool="remote", args=ORDER) as call:
            assert call.credential.reveal() == CANARY


def test_a_broker_nobody_configured_is_a_refusal_before_any_token(tmp_path: Path) -> None:
    with opened(tmp_path, {"vault": Bank()}) as gate:
        answer = again(run_of(gate))
        assert isinstance(answer, Deny)
        assert answer.reasons == (Reason.UPSTREAM,)


def test_a_setting_that_the_broker_does_not_read_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}, "{broker: bank, role: writer, region: eu-central-1}") as gate:
        assert "upstream.bank.region" in str(refused(run_of(gate)))


def part_of_one(**parts: Any) -> Any:
    """An object with these parts of a broker."""
    return type("Part", (), parts)()


@pytest.mark.parametrize(
    "brokers",
    [
        {"bank": object()},
        {1: Bank()},
        [Bank()],
        {"bank": Bank},
        {"bank": part_of_one(takes=frozenset({"role"}))},
        {"bank": part_of_one(takes=frozenset({"role"}), fetch="fetch")},
        {"bank": part_of_one(fetch=lambda _: None)},
        {"bank": part_of_one(fetch=lambda _: None, takes={"role"})},
        {"bank": part_of_one(fetch=lambda _: None, takes="role")},
    ],
    ids=[
        "none",
        "no name",
        "a list",
        "a class",
        "fetches nothing",
        "fetches by a text",
        "no settings",
        "settings that it can change",
        "a text of settings",
    ],
)
def test_what_is_no_broker_is_refused_at_the_start(tmp_path: Path, brokers: Any) -> None:
    with pytest.raises(ConfigError, match="brokers"):
        opened(tmp_path, brokers)


def test_a_tool_server_fetches_the_credential_of_the_call_it_redeemed(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}) as gate:
        token, server = allowed(run_of(gate), "remote"), gate.verifier("https://bank.example", tenants=["acme"])
        with server.redeem(token.reveal(), tool="remote", args=ORDER) as call:
            assert call.credential.reveal() == CANARY


def test_what_no_workflow_says_is_asked_of_no_broker(tmp_path: Path) -> None:
    bank = Bank()
    with opened(tmp_path, {"bank": bank}) as gate:
        with redeemed(run_of(gate)):
            pass
        (call,) = bank.asked
    for settings in ({}, {"role": ""}, {"role": 7}, {"role": ["writer"]}):
        with pytest.raises(UpstreamRefused, match=r"upstream\.bank\.role"):
            _ = replace(call.wanted, settings=settings).role
    with pytest.raises(UpstreamRefused, match="an upstream block for pay in its workflow"):
        _ = replace(call, head={**call.head, "upstream": None}).wanted
    for brokers in ({}, {"banc": bank}):
        with pytest.raises(UpstreamRefused, match=r"upstream\.bank"):
            next(credential.fetch(brokers, call, call.wanted))
    assert bank.asked == [call]


async def test_an_awaited_call_gets_and_ends_its_credential(tmp_path: Path) -> None:
    bank = Bank()
    workflows = written(tmp_path, "{broker: bank, role: writer}")
    async with await AsyncGate.open_unsafe_unapproved(
        workflows, issuer="https://gate.example", audit="memory://", brokers={"bank": bank}
    ) as gate:
        run = await gate.open_run("shop.pay", tenant="acme", user=None, agent=Agent("bot"), prompt="")
        answer: Any = await run.authorize("pay", ORDER, tool_call_id="c1")
        with pytest.raises(ResultWithheld) as error:
            async with await run.redeem(answer.token, tool="pay", args=ORDER) as call:
                raise OSError(call.credential.reveal())
        assert CANARY not in repr(error.value)
        assert error.value.__context__ is None
        assert bank.ended == 1


def test_a_call_without_an_upstream_block_has_no_credential(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    workflow = written(tmp_path, "{broker: bank}") / "pay.yaml"
    workflow.write_text(workflow.read_text().split("upstream:")[0])
    gate = Gate.open_unsafe_unapproved(tmp_path / "w", issuer="https://gate.example", audit="memory://")
    with gate, redeemed(run_of(gate)) as call:
        with pytest.raises(ConfigError, match="an upstream block for pay"):
            _ = call.credential
        assert call.record_result({"id": CANARY}) == {"id": CANARY}


# narrower_than and duration


def test_a_role_that_is_not_narrower_is_refused_when_the_file_is_loaded(tmp_path: Path) -> None:
    for role, loads in (("writer", True), ("same", False), ("other", False), ("unheard", True)):
        catalog = Catalog.load(written(tmp_path, f"{{broker: bank, role: {role}, narrower_than: support}}"), derive)
        assert bool(catalog) is loads, role
        if not loads:
            assert "a strict subset of role support" in "".join(map(str, catalog.quarantined.values()))


@pytest.mark.parametrize(
    ("scopes", "passes"),
    [
        (("refunds:create",), True),
        (("refunds:create", "refunds:read", "orders:read"), False),
        (("refunds:create", "payouts:create"), False),
        ((), False),
        (None, False),
    ],
    ids=["narrower", "equal", "another scope", "no scope", "unknown"],
)
def test_a_role_that_only_the_broker_knows_is_compared_when_it_is_fetched(tmp_path: Path, scopes: Any, passes: bool) -> None:  # noqa: FBT001 - a row
    bank = Bank(scopes=scopes)
    with opened(tmp_path, {"bank": bank}, BOUNDED) as gate:
        if passes:
            assert redeemed(run_of(gate)).credential.scopes == {"refunds:create"}
        else:
            assert "narrower_than" in str(refused(run_of(gate)))
            assert bank.ended == 1


def test_what_the_broker_says_counts_more_than_roles_yaml(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank(scopes=("payouts:create",))}, "{broker: bank, role: writer, narrower_than: support}") as gate:
        refused(run_of(gate))


def test_a_role_of_roles_yaml_needs_no_word_of_the_broker(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}, "{broker: bank, role: writer, narrower_than: support}") as gate:
        assert redeemed(run_of(gate)).credential.reveal() == CANARY


@pytest.mark.parametrize(("lives", "passes"), [(60, True), (900, False), (None, False)], ids=["shorter", "longer", "no end"])
def test_a_credential_that_lives_longer_than_the_workflow_says_is_refused(tmp_path: Path, lives: int | None, passes: bool) -> None:  # noqa: FBT001 - a row
    bank = Bank(expires_at=None if lives is None else time.time() + lives)
    with opened(tmp_path, {"bank": bank}, "{broker: bank, role: writer, duration: 60s}") as gate:
        if passes:
            redeemed(run_of(gate))
        else:
            assert "duration" in str(refused(run_of(gate)))


# the object


def test_a_credential_is_opaque() -> None:
    made = UpstreamCredential({"password": CANARY}, public={"username": "lee"})
    assert (made.reveal(), made.reveal("username"), made.parts) == (CANARY, "lee", ("username", "password"))
    for text in (
        repr(made),
        str(made),
        f"{made:>60}",
        repr([made]),
        repr({name: getattr(made, name) for name in UpstreamCredential.__slots__}),
    ):
        assert CANARY not in text
    for sink in (copy.copy, copy.deepcopy, pickle.dumps, json.dumps):
        with pytest.raises(TypeError):
            sink(made)
    with pytest.raises(LookupError):
        made.reveal("token")
    with pytest.raises(TypeError):
        type("Mine", (UpstreamCredential,), {})
    with pytest.raises(LookupError):
        UpstreamCredential({"one": CANARY, "two": CANARY}).reveal()
    other: Any
    for other in ({}, {"key": "short"}, {"key": CANARY, "more": ""}, {"key": CANARY.encode()}, {"key": [CANARY] * 8}, {"key": None}):
        with pytest.raises(UpstreamRefused):  # in which a result would be looked through for nothing
            UpstreamCredential(other)


def test_an_expired_credential_is_not_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = UpstreamCredential({"key": CANARY}, expires_at=time.time() + 30)
    assert made.reveal() == CANARY
    later = time.time() + 31
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(UpstreamRefused, match="expired"):
        made.reveal()


# what a tool server's tool returns and raises


def test_a_result_that_holds_the_credential_is_withheld_and_the_call_is_done(tmp_path: Path) -> None:
    with opened(tmp_path, {"bank": Bank()}) as gate:
        run = run_of(gate)
        with pytest.raises(ResultWithheld), redeemed(run) as call:
            call.record_result({"id": "1", "debug": [{"headers": {"Authorization": f"Bearer {call.credential.reveal()}"}}]})
        assert again(run).reasons == (Reason.ALREADY_REDEEMED,)
        (outcome,) = [r for r in records(gate) if r["type"] == "outcome"]
        assert (outcome["outcome"], outcome["withheld"]) == ("done", True)


@pytest.mark.parametrize(("raised", "then"), [(OSError, Reason.OUTCOME_UNKNOWN), (NotDone, None)], ids=["an error", "nothing happened"])
def test_an_exception_that_holds_the_credential_is_replaced(tmp_path: Path, raised: type[Exception], then: Reason | None) -> None:
    with opened(tmp_path, {"bank": Bank()}) as gate:
        run = run_of(gate)
        with pytest.raises((ResultWithheld, NotDone)) as error, redeemed(run) as call:
            raise raised("outer") from ValueError("inner " + call.credential.reveal())
        assert raised.__name__ in str(error.value)
        assert error.value.__cause__ is None
        assert error.value.__context__ is None
        answer = again(run)
        assert (answer.reasons if isinstance(answer, Deny) else None) == (None if then is None else (then,))


def test_an_exception_without_the_credential_goes_through_as_it_is(tmp_path: Path) -> None:
    seen = OSError("the bank is closed")
    with opened(tmp_path, {"bank": Bank()}) as gate, pytest.raises(OSError, match="closed") as error, redeemed(run_of(gate)):
        raise seen
    assert error.value is seen


def test_frames_of_the_tool_forget_the_credential(tmp_path: Path) -> None:
    def tool(secret: str) -> None:
        held = {"Authorization": secret}
        raise OSError(str(len(held)))

    with opened(tmp_path, {"bank": Bank()}) as gate, pytest.raises(OSError, match="1") as error, redeemed(run_of(gate)) as call:
        tool(call.credential.reveal())
    frame = error.value.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_name != "tool":
        frame = frame.tb_next
    assert frame is not None
    assert frame.tb_frame.f_locals == {}
