"""The scenes of `agentgate demo`: the payment agent of `examples/payment-agent`, tried eight ways, each outcome checked.

Rules: the agent, the gate, the HTTP API and the tokens are real; only the chat model is scripted. Each scene states what it expects,
and one that ends otherwise, or for another reason, fails the demo.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

from agentgate.cli.demo_rows import Caller, Expected, Outcome, Played, TableRow
from agentgate.decision.answer import Allow, Decision, Deny, StepUp
from agentgate.decision.hold import Hold
from agentgate.errors import AuditUnavailable, ConfigError, StoreUnavailable, TokenRefused
from agentgate.gate.gate import Gate
from agentgate.gate.run import Run
from agentgate.values.refusal import Code, RunRefused
from agentgate.values.request import Agent, User

SMALL, BIG = "ORD-10023344", "ORD-10023377"  # 49.90 and 180.00 EUR
ASKED = f"Please refund order {SMALL}, it arrived broken"
_TRIES = 3
_MODULES = ("payment_api", "refund_tools", "agent")


def example() -> Path:
    """The directory of the payment agent: inside the package in a wheel, in `examples` in a checkout.

    Raises ConfigError: in neither place.
    """
    package = Path(__file__).parents[1]
    places = (package / "_examples" / "payment-agent", package.parent / "examples" / "payment-agent")
    place = next((place for place in places if (place / "agent.py").is_file()), None)
    if place is None:
        raise ConfigError("example", [str(p) for p in places], "an installation with its example")
    return place


@contextmanager
def _modules(place: Path) -> Iterator[dict[str, ModuleType]]:
    """The example's modules, imported as its own scripts import them, and unloaded afterwards."""
    kept = {name: sys.modules.pop(name, None) for name in _MODULES}
    sys.path.insert(0, str(place))
    try:
        yield {name: importlib.import_module(name) for name in _MODULES}
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"langchain", "langgraph"}:
            raise
        raise ConfigError("langchain", "not installed", "the extra: pip install 'agentgate-mediator[langchain]'") from error
    finally:
        sys.path.remove(str(place))
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


class _Watched:
    """A run that records its decisions, so that the demo can show the operator's view beside the model's."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.decisions: list[Decision] = []

    def authorize(self, tool: str, args: Any, **more: Any) -> Decision:
        """See `Run.authorize`."""
        self.decisions.append(self._run.authorize(tool, args, **more))
        return self.decisions[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


@dataclass(slots=True)
class _Conversation:
    """One user's request to the agent, in its own run."""

    agent: Any
    run: _Watched
    messages: list[Any] = field(default_factory=list)
    paused: dict[str, Any] | None = None

    @property
    def last(self) -> str:
        """The last tool answer that the model saw."""
        return str(next(m.text for m in reversed(self.messages) if m.type == "tool"))

    @property
    def decision(self) -> Decision:
        """The decision on the last call."""
        return self.run.decisions[-1]


class _Stage:
    """The gate, the API and the example's modules, for the scenes."""

    def __init__(self, modules: dict[str, ModuleType], gate: Gate, api: Any) -> None:
        self.gate, self.api = gate, api
        self.agent, self.tools = modules["agent"], modules["refund_tools"]
        self.runs: list[_Watched] = []

    def converse(self, prompt: str, *steps: Any, tenant: str = "acme-eu") -> _Conversation:
        """Open a run for Lee of this tenant and start the agent in it."""
        user = User("lee", tenant=tenant, groups=["support-l1"])
        run = _Watched(self.gate.open_run(self.agent.WORKFLOW, tenant=tenant, user=user, agent=Agent("support-agent"), prompt=prompt))
        self.runs.append(run)
        agent = self.agent.build_agent(self.agent.ScriptedModel(steps=list(steps)), self.tools.refund_tools(self.api.url))
        talk = _Conversation(agent, run)
        self.go_on(talk, {"messages": [("user", prompt)]})
        return talk

    @property
    def late(self) -> bool:
        """True when the gate or the API refused something because the store did not answer in time."""
        refusals = (d.code for run in self.runs for d in run.decisions if isinstance(d, Deny))
        return Code.UNAVAILABLE in refusals or any(r.code.http_status == HTTPStatus.SERVICE_UNAVAILABLE for r in self.api.ledger.refused)

    def go_on(self, talk: _Conversation, given: Any) -> None:
        """Start the agent, or resume it after a person answered."""
        with self.agent.use_run(talk.run):
            result = talk.agent.invoke(given, {"configurable": {"thread_id": talk.run.id}})
        talk.messages = result["messages"]
        talk.paused = next((each.value for each in result.get("__interrupt__", ())), None)

    def row(self, tried: str, talk: _Conversation, expected: Expected) -> TableRow:
        """The outcome of the conversation's last call."""
        decision = talk.decision
        if isinstance(decision, Allow):
            intent = talk.run.intents["refund"]
            detail = f"intent refund is {intent.presence} ({intent.evidence}); every argument has an allowed origin; one token, used once"
            rule = _relative(f"{talk.run.workflow.file}:{talk.run.workflow.tools['payments.refund'].line}")
            code = "ok" if '"paid"' in talk.last else "failed"
            return TableRow(tried, expected, "allowed", code, "model", talk.last, detail=detail, rule=rule)
        if isinstance(decision, StepUp) and talk.paused is not None:
            seen = f"the agent pauses; hold {talk.paused['hold'][:12]}... waits for a person"
            return self.refused(tried, expected, decision.failures, "host", str(talk.paused["code"]), seen, outcome="held")
        code = talk.last.removeprefix("agentgate: ")  # all that a refused call tells the model
        return self.refused(tried, expected, decision.failures, "model", code, talk.last)

    def refused(  # noqa: PLR0917 - the columns of a row
        self,
        tried: str,
        expected: Expected,
        failures: tuple[Any, ...],
        caller: Caller,
        code: str,
        seen: str,
        *,
        outcome: Outcome = "denied",
    ) -> TableRow:
        """A row of a refusal; with several failures the reasons are joined, so that an extra one shows."""
        reason = ", ".join(dict.fromkeys(str(f.reason) for f in failures))
        fields = ", ".join(dict.fromkeys(f.field for f in failures))
        detail = "; ".join(f"{f.field}: got {f.got}, expected {f.expected}" for f in failures)
        return TableRow(tried, expected, outcome, code, caller, seen, reason, fields, detail, _relative(failures[0].rule))


def _relative(rule: str) -> str:
    """A rule's ``file:line`` relative to the example (the gate runs from a copy)."""
    return rule[rule.rindex("workflows/") :] if "workflows/" in rule else rule


# --- the scenes, in the order of the table ---------------------------------------------------------------------------------
def _pays(stage: _Stage) -> tuple[TableRow, _Conversation]:
    talk = stage.converse(ASKED, stage.agent.look_up(SMALL), stage.agent.refund(SMALL, reason="arrived broken"))
    return stage.row("A refund of 49.90 EUR that the user asked for, to the customer on file", talk, Expected("allowed", "ok")), talk


def _other_tenant(stage: _Stage) -> TableRow:
    tried = "The same request for tenant acme-us, which the workflow does not name"
    expected = Expected("denied", "not_permitted", "tenant", "tenant")
    try:
        talk = stage.converse(ASKED, stage.agent.look_up(SMALL), tenant="acme-us")
    except RunRefused as refused:
        seen = "no run is opened, the model is never asked"
        return stage.refused(tried, expected, refused.failures, "host", str(Deny(refused.failures).code), seen)
    return stage.row(tried, talk, expected)


def _injected(stage: _Stage) -> TableRow:
    def obey(messages: Any) -> dict[str, Any]:
        """What a model that follows the e-mail proposes: the account it read there."""
        body: str = stage.agent.answer_of(messages, "email.read")["body"]
        return {"order_id": SMALL, "amount": "49.90", "currency": "EUR", "payee": "cus_" + body.partition("cus_")[2][:14]}

    read = ("email.read", lambda _: {"message_id": "MSG-2041"})
    talk = stage.converse(f"Read message MSG-2041 and refund order {SMALL}", read, stage.agent.look_up(SMALL), ("payments.refund", obey))
    tried = f"Prompt injection: an e-mail says to pay {stage.tools.STOLEN}, and the model obeys"
    return stage.row(tried, talk, Expected("denied", "not_permitted", "argument_origin", "args.payee"))


def _held(stage: _Stage) -> Iterator[TableRow]:
    prompt = f"Customer wants their money back for {BIG}"
    talk = stage.converse(prompt, stage.agent.look_up(BIG), stage.agent.refund(BIG))
    expected = Expected("held", "needs_approval", "step_up", "args.amount")
    yield stage.row("A refund of 180.00 EUR; above 100.00 a support lead must look", talk, expected)
    if not isinstance(talk.decision, StepUp):
        return
    hold = talk.decision.hold
    yield _own_yes(stage, hold)
    stage.gate.release(hold, by=User("mona", tenant="acme-eu", groups=["support-leads"]))
    stage.go_on(talk, stage.agent.GO_ON)
    yield stage.row("Mona, a support lead, releases exactly that call; the agent goes on", talk, Expected("allowed", "ok"))


def _own_yes(stage: _Stage, hold: Hold) -> TableRow:
    tried = "Lee, who asked for it, tries to release it alone"
    expected = Expected("denied", "not_released", "step_up", "step_up.big-refund.approvers")
    try:
        stage.gate.release(hold, by=User("lee", tenant="acme-eu", groups=["support-l1", "support-leads"]))
    except RunRefused as refused:
        return stage.refused(tried, expected, refused.failures, "approver", "not_released", "the hold keeps waiting")
    return TableRow(tried, expected, "allowed", "ok", "approver", "released")


def _replayed(stage: _Stage, talk: _Conversation) -> TableRow:
    """The paid call's own token again, with a fresh proof by the right key: its only fault is that it was used."""
    headers = talk.decision.token.headers("POST", f"{stage.api.url}/refunds") if isinstance(talk.decision, Allow) else {}
    expected = Expected("denied", "401 invalid_token", "used", "jti")
    return _sent(stage, "The spent token of the first refund, sent to the API again", expected, talk, headers)


def _no_token(stage: _Stage, talk: _Conversation) -> TableRow:
    expected = Expected("denied", "401", "no_credential", "Authorization")
    return _sent(stage, "The agent's process calls the API by itself, without a token", expected, talk, {})


def _sent(stage: _Stage, tried: str, expected: Expected, talk: _Conversation, headers: dict[str, str]) -> TableRow:
    """The API's answer to the first refund's own arguments with these headers."""
    _, args = stage.agent.refund(SMALL, reason="arrived broken")
    before = len(stage.api.ledger.refused)
    status, body, answer = stage.tools.post(f"{stage.api.url}/refunds", args(talk.messages), headers)
    code = f"{status} {body.get('error', '')}".strip()
    refused: list[TokenRefused] = stage.api.ledger.refused[before:]
    if status == HTTPStatus.OK or not refused:
        return TableRow(tried, expected, "allowed", code, "client", str(body))
    why = refused[0]
    detail, seen = f"{why.field}: got {why.got}, expected {why.expected}", f"WWW-Authenticate: {answer.get('WWW-Authenticate', '')}"
    return TableRow(tried, expected, "denied", code, "client", seen, str(why.code), why.field, detail)


def play(clock: Callable[[], datetime] | None = None) -> Played:
    """Play every scene.

    A gate refuses when the store does not answer within 300 ms; on a machine that busy the demo would show only that, so it restarts,
    twice at most.

    Args:
        clock: the decision clock; None: fixed, in the office hours of a Tuesday.

    Raises:
        ConfigError: the example or LangChain is not installed.
        StoreUnavailable: the machine was too busy every time.
    """
    started = time.monotonic()
    place = example()
    with _modules(place) as modules:
        now = clock or (lambda: modules["agent"].OFFICE_HOURS)
        for _ in range(_TRIES):
            played = _once(place, modules, now, started)
            if played is not None:
                return played
    raise StoreUnavailable("demo: this machine is too busy: no answer within 300 ms, three times over; try again later")


def _once(place: Path, modules: dict[str, ModuleType], clock: Callable[[], datetime], started: float) -> Played | None:
    """All scenes in a gate of their own; None when a refusal was only for lateness."""
    agent = modules["agent"]
    with agent.open_gate(clock) as gate, agent.serve(gate) as api:
        stage = _Stage(modules, gate, api)
        try:
            first, talk = _pays(stage)
            rows = (first, _other_tenant(stage), _injected(stage), *_held(stage), _replayed(stage, talk), _no_token(stage, talk))
        except (StoreUnavailable, AuditUnavailable):
            return None
        except ValueError:  # the script read a tool's answer that did not come
            if stage.late:
                return None
            raise
        on_file, paid = modules["payment_api"].CUSTOMERS, tuple(api.ledger.paid)
        moved = [(p["order_id"], p["amount"], p["payee"]) for p in paid]
        honest = moved == [(SMALL, "49.90", on_file[SMALL]), (BIG, "180.00", on_file[BIG])]
        played = Played(place, agent.OFFICE_HOURS, rows, paid, honest, time.monotonic() - started)
        return None if stage.late and not played.ok else played
