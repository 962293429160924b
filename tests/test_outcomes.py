"""What is answered when a call comes again: what is known of it, and only that. Acts run again only where nothing happened."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agentgate import Allow, Code, Gate, NotDone, Reason, TokenRefused
from agentgate.audit import FileAudit
from agentgate.errors import Refusal
from agentgate.gate.run import Run
from agentgate.integrations.langchain import guard_tools
from agentgate.stores import server_id
from tests.preloaded import run_code
from tests.servers import Server, redis_binary
from tests.shop import ORDER, REFUND, looked_up, opened, reasons, run_of


def token(run: Any, call: str = "pay") -> Any:
    answer = run.authorize("payments.refund", REFUND, tool_call_id=call)
    assert isinstance(answer, Allow), answer
    return answer.token


def refund(run: Any, error: BaseException | None = None, call: str = "pay") -> None:
    """A refund whose tool raises `error`."""
    with suppress(BaseException), run.redeem(token(run, call), tool="payments.refund", args=REFUND):
        if error is not None:
            raise error


def again(run: Any, call: str = "pay") -> set[Reason]:
    return reasons(run.authorize("payments.refund", REFUND, tool_call_id=call))


# acts


@pytest.mark.parametrize("error", [RuntimeError("5xx"), TimeoutError(), KeyboardInterrupt(), ValueError()], ids=lambda e: type(e).__name__)
def test_an_act_that_raised_is_unknown(gate: Gate, error: BaseException) -> None:
    run = run_of(gate)
    looked_up(run)
    refund(run, error)
    assert again(run) == {Reason.OUTCOME_UNKNOWN}
    denied = run.refusal("pay")
    assert denied is not None
    assert denied.code is Code.OUTCOME_UNKNOWN


def test_an_act_that_says_that_nothing_happened_runs_again_until_it_is_done(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    for _ in range(5):
        refund(run, NotDone("the card was declined"))
    refund(run)
    assert again(run) == {Reason.ALREADY_REDEEMED}


def test_an_act_that_did_not_happen_is_no_earlier_call(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    watching = gate.resume_run(run.tenant, run.id)
    with suppress(NotDone), run.redeem(token(run), tool="payments.refund", args=REFUND):
        watching.add_turn("and then?")
        assert [call.tool for call in watching._view.state.calls] == ["orders.get", "payments.refund"]
        raise NotDone
    watching.add_turn("well?")
    for handle in (watching, gate.resume_run(run.tenant, run.id)):
        assert [call.tool for call in handle._view.state.calls] == ["orders.get"]


def test_a_call_that_still_runs_is_unknown(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    with run.redeem(token(run), tool="payments.refund", args=REFUND):
        assert again(run) == {Reason.OUTCOME_UNKNOWN}
    assert again(run) == {Reason.ALREADY_REDEEMED}


def test_a_report_of_an_earlier_attempt_says_nothing_of_the_next(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    first = run.redeem(token(run), tool="payments.refund", args=REFUND)
    first.__exit__(NotDone, NotDone(), None)
    with run.redeem(token(run), tool="payments.refund", args=REFUND):
        first.__exit__(NotDone, NotDone(), None)
        assert again(run) == {Reason.OUTCOME_UNKNOWN}


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.shop import REFUND, opened
folder, run = Path(sys.argv[1]), sys.argv[2]
gate = opened(folder, keys=folder / "keys", audit=str(folder / "child"), store=sys.argv[3])
run = gate.resume_run("acme", run)
with run.redeem(run.authorize("payments.refund", REFUND, tool_call_id="pay").token, tool="payments.refund", args=REFUND):
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_tool_that_was_terminated_leaves_its_act_unknown(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server", durable=True)
    try:
        with opened(folder, keys=folder / "keys", audit=str(folder / "audit"), store=server.url) as gate:
            run = run_of(gate)
            looked_up(run)
            done = run_code(KILLED, str(folder), run.id, server.url)
            assert done.returncode == -15
            assert again(run) == {Reason.OUTCOME_UNKNOWN}
    finally:
        server.stop()


# refused between burn and tool


def test_a_full_audit_log_leaves_a_call_that_may_run(folder: Path) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with opened(folder) as gate:
        run = run_of(gate)
        looked_up(run)
        broken = Run(run._view, gate._store, FileAudit(folder / "full", sync=full))
        with pytest.raises(TokenRefused) as refused:
            broken.redeem(token(run), tool="payments.refund", args=REFUND)
        assert refused.value.code is Refusal.AUDIT
        refund(run)
        assert again(run) == {Reason.ALREADY_REDEEMED}


class Proxy:
    """Between a client and a server; when told to, it carries out one burn and keeps the reply to itself, for a while with an open line."""

    def __init__(self, port: int, hold: float = 0.0) -> None:
        self.swallow, self._hold = False, hold
        self._port, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            while data := client.recv(65536):
                server.sendall(data)
                reply = server.recv(65536)
                if self.swallow and b":token:" in data:
                    self.swallow = False
                    time.sleep(self._hold)
                    return
                client.sendall(reply)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.deadline
@pytest.mark.parametrize("hold", [0.0, 1.0], ids=["lost", "late"])
def test_a_burn_whose_reply_was_lost_leaves_a_call_that_may_run(folder: Path, hold: float) -> None:
    server = Server(redis_binary(), folder / "server")
    proxy = Proxy(server.port, hold)
    try:
        with opened(folder, store=proxy.url) as gate:
            run = run_of(gate)
            looked_up(run)
            refused = token(run)
            proxy.swallow = True
            with pytest.raises(TokenRefused) as caught:
                run.redeem(refused, tool="payments.refund", args=REFUND)
            assert (caught.value.code, proxy.swallow) == (Refusal.STORE, False)
            assert ":1" in server.command("EXISTS", f"ag:{{acme}}:burns:{server_id(gate.issuer)}:{run.id}")
            refund(run)
            assert again(run) == {Reason.ALREADY_REDEEMED}
    finally:
        proxy.close()
        server.stop()


# reads


def test_a_failed_read_runs_again_and_its_facts_count(gate: Gate) -> None:
    run = run_of(gate)
    for _ in range(3):
        read = run.authorize("orders.get", ORDER, tool_call_id="look").token
        with pytest.raises(RuntimeError), run.redeem(read, tool="orders.get", args=ORDER):
            raise RuntimeError
        assert again(run, "early") >= {Reason.SEQUENCE}  # a failed read is no read
    looked_up(run)
    refund(run)


def test_a_read_answers_as_what_it_is_after_three_more(gate: Gate) -> None:
    for raised, answer, code in ((None, Reason.ALREADY_REDEEMED, Code.ALREADY_DONE), (ValueError, Reason.FAILED, Code.FAILED)):
        run = run_of(gate)
        for _ in range(4):
            with (
                suppress(ValueError),
                run.redeem(run.authorize("orders.get", ORDER, tool_call_id="x").token, tool="orders.get", args=ORDER),
            ):
                if raised:
                    raise raised
        denied = run.authorize("orders.get", ORDER, tool_call_id="x")
        assert (reasons(denied), denied.code) == ({answer}, code)


def test_a_read_that_was_interrupted_is_not_known_to_have_failed(gate: Gate) -> None:
    run = run_of(gate)
    for raised in (KeyboardInterrupt, SystemExit, GeneratorExit):
        read = run.authorize("orders.get", ORDER, tool_call_id=raised.__name__).token
        with pytest.raises(raised), run.redeem(read, tool="orders.get", args=ORDER):
            raise raised
    log: Any = gate._audit
    assert [r["outcome"] for r in log.records if r["type"] == "outcome"] == ["unknown"] * 3


def test_the_first_facts_stand(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run, "50.00")
    looked_up(run, "150.00")  # the same call again, answered otherwise
    (call,) = gate.resume_run(run.tenant, run.id)._view.state.calls
    assert [row["total"] for row in call.rows] == ["50.00"]


# without an id


def test_the_same_act_in_the_same_turn_is_the_same_call(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    answer = run.authorize("payments.refund", REFUND)
    assert isinstance(answer, Allow)
    with run.redeem(answer.token, tool="payments.refund", args=dict(reversed(REFUND.items()))):
        pass
    assert reasons(run.authorize("payments.refund", dict(reversed(REFUND.items())))) == {Reason.ALREADY_REDEEMED}
    assert reasons(run.authorize("payments.refund", {**REFUND, "amount": "39.98"})) == {Reason.ARGUMENT_ORIGIN}  # another call
    run.add_turn("Please refund 39.99 EUR for order ORD-10023344 once more")
    assert isinstance(run.authorize("payments.refund", REFUND), Allow)
    assert run.call_id("orders.get", ORDER) != run.call_id("orders.get", ORDER)


@pytest.mark.parametrize("args", [{"x": object()}, {1: 2}, [1], "text"])
def test_an_act_without_id_and_canonical_form_is_refused(gate: Gate, args: Any) -> None:
    assert reasons(run_of(gate).authorize("payments.refund", args)) == {Reason.INPUT}


@pytest.mark.parametrize(
    ("raised", "ran", "code"), [(NotDone("declined"), 3, ""), (ValueError("boom"), 1, "outcome_unknown"), (None, 1, "already_done")]
)
def test_a_langchain_tool_called_again_without_an_id(gate: Gate, raised: Exception | None, ran: int, code: str) -> None:
    done = []

    def pay(order_id: str, amount: str, currency: str, payee: str) -> str:
        """Refund an order."""
        done.append(amount)
        if raised is not None:
            raise raised
        return "paid"

    run = run_of(gate)
    looked_up(run)
    (guarded,) = guard_tools([tool("payments.refund")(pay)], run=run)
    answers: list[Exception | str] = []
    call: Callable[[Any], Any] = guarded.invoke
    for _ in range(3):
        try:
            answers.append(call(REFUND))
        except Exception as error:  # noqa: BLE001 - looked at below
            answers.append(error)
    assert len(done) == ran
    if code:
        assert code in str(answers[-1])
    else:
        assert [type(each) for each in answers] == [NotDone] * 3
