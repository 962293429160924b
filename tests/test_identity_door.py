"""Credentials at the gate's door: a run ends with the first of them, goes on with fresh ones of the same, and keeps nothing of any."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import re
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import time_machine

from agentgate import JWTSVID, Agent, Allow, AsyncGate, Connection, Deny, Gate, OIDCToken, Reason, RunRefused, SSHAnswer, StepUp, User
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.root import Root, Signers
from agentgate.approvals.sshsig import HOLD_NAMESPACE
from agentgate.approvals.writing import KeySigner
from agentgate.approvals.writing.trust import Reviewer, new_root
from agentgate.errors import ConfigError
from agentgate.gate import open_run, proving
from agentgate.gate.call_context import DataClassFile
from agentgate.identity.proven import Proven, proven_user
from agentgate.identity.settings import IdentitySettings
from agentgate.shell.drive import drive
from agentgate.values.answers import nonce_claim
from agentgate.values.refusal import AnswerCode, AnswerRefused, Code, code_of
from tests.authority import GATE, Key, Web, claims_of, lasting, nonce_for, now, slowly, web
from tests.founding import GITHUB, PROD, World, shown
from tests.shop import refusals

WORKFLOW = """
agentgate: workflow/v1
id: desk.refund
version: 1
title: Refund an order
owners: [lee]
risk: high
expires: "2099-05-31"
tenants: [acme-eu, acme-uk]
who:
  agent: {oidc: {issuer: https://agents.example, claims: {app: {is: desk}}}}
  for_user: {groups: [support], same_tenant: true}
intents:
  refund:
    asks_for: Give a customer money back.
    words: [refund]
    examples: ["Please refund order ORD-10023344"]
    counter_examples: ["Where is order ORD-10023344?"]
tools:
  refund:
    effect: write
    needs: [refund]
    redeem: wrapper
    args: {order_id: {pattern: 'ORD-[0-9]{8}', from: [prompt]}}
step_up:
  - {id: lead, for: refund, approvers: {group: leads, count: 1, not: [requester]}, timeout: 2d, show: [order_id]}
"""
PROMPT = "Please refund order ORD-10023344"
ORDER = {"order_id": "ORD-10023344"}


class Desk:
    """An issuer of users and agents, and a gate."""

    def __init__(self, served: Web, folder: Path, source: str = WORKFLOW, **more: Any) -> None:
        self.people, self.agents = Key("people"), Key("agents")
        self.folder = folder
        (folder / "w").mkdir(exist_ok=True)
        (folder / "w" / "refund.yaml").write_text(source)
        common = {"private_addresses": True, "audience": GATE, "tenants": ["acme-eu", "acme-uk"]}
        people, agents = served.publish("/people", self.people), served.publish("/agents", self.agents)
        user = {"tenant": "tenant", "groups": "groups"}
        self.settings = {
            "issuers": {
                "people": {"issuer": "https://people.example", "keys": people, "user": user, **common},
                "agents": {"issuer": "https://agents.example", "keys": agents, "agent": {}, **common},
            }
        }
        self.given: dict[str, Any] = {"issuer": GATE, "audit": "memory://", "identity": self.settings, **more}
        self.gate = Gate.open_unsafe_unapproved(folder / "w", **self.given)

    def user(self, name: str = "lee", life: int = 600, **more: Any) -> OIDCToken:
        said = {"tenant": "acme-eu", "groups": ["support"], **more}
        return OIDCToken(self.people.sign(claims_of("https://people.example", name, life=life, **said)))

    def answer(self, name: str, held: Any, **more: Any) -> OIDCToken:
        """A token that was asked for with the nonce of a yes to this held call."""
        return self.user(name, nonce=nonce_for(self.gate, held.hold.id, "acme-eu"), **more)

    def agent(self, name: str = "desk-1", life: int = 600, **more: Any) -> OIDCToken:
        return OIDCToken(self.agents.sign(claims_of("https://agents.example", name, life=life, **{"app": "desk", **more})))

    def run(self, **given: Any) -> Any:
        common = {"tenant": "acme-eu", "user": self.user(), "agent": self.agent(), "prompt": PROMPT}
        return self.gate.open_run("desk.refund", **{**common, **given})

    @property
    def records(self) -> list[Any]:
        return list(self.gate._audit.records)  # type: ignore[attr-defined]  # in memory


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with web() as served:
        made = Desk(served, tmp_path)
        yield made
        made.gate.close()


def reasons(answer: Any) -> set[Reason]:
    assert isinstance(answer, Deny), answer
    return {failure.reason for failure in answer.failures}


# --- how long --------------------------------------------------------------------------------------------------------------------
def test_a_run_ends_with_the_first_of_its_credentials(desk: Desk) -> None:
    run = desk.run(agent=desk.agent(life=120), user=desk.user(life=600), ttl=86400)
    assert run.header.ends <= time.time() + 120
    assert desk.records[-1]["expires_at"] == run.header.ends
    answer = run.authorize("refund", ORDER, tool_call_id="a")
    assert isinstance(answer, StepUp)
    with time_machine.travel(time.time() + 121, tick=True):
        assert reasons(run.authorize("refund", ORDER, tool_call_id="a")) == {Reason.RUN_EXPIRED}
        other = desk.gate.resume_run("acme-eu", run.id)
        assert reasons(other.authorize("refund", ORDER, tool_call_id="a")) == {Reason.RUN_EXPIRED}


def test_what_a_run_kept_of_a_proof_opens_no_other_run(desk: Desk) -> None:
    """It would be proven for ever: nothing of it says when the credential ended."""
    header = desk.run(agent=desk.agent(life=20)).header
    given: list[dict[str, Any]] = [{"user": header.user}, {"agent": header.agent}, {"agent": Proven(header.agent, 0.0)}]
    later = time.time() + 60
    given += [{"user": Proven(header.agent, later)}, {"agent": Proven(header.user, later)}]  # nor is one the other
    for each in given:
        with pytest.raises(RunRefused, match="somebody proven for another run"):
            desk.run(ttl=86400, **each)


def test_a_run_of_a_credential_has_no_workflow_with_intents(tmp_path: Path) -> None:
    """Nobody asks for anything in it, so it could be found again by somebody else's job."""
    source = WORKFLOW.replace("  for_user: {groups: [support], same_tenant: true}\n", "").replace(", not: [requester]", "")
    with web() as served:
        desk = Desk(served, tmp_path, source)
        with pytest.raises(RunRefused, match="once"):
            desk.run(user=None, prompt="", once=True)
        desk.gate.close()


def test_a_run_of_a_credential_is_asked_for_by_nobody(tmp_path: Path) -> None:
    """Whoever shows the credential again finds it: with somebody's words in it, or for somebody, it would be theirs."""
    alone = """intents: {none: "It works by itself."}
tools:
  refund: {effect: write, needs: none, redeem: wrapper, args: {order_id: {pattern: 'ORD-[0-9]{8}', from: [model]}}}
"""
    who = WORKFLOW.partition("intents:")[0]
    with web() as served:
        desk = Desk(served, tmp_path, who.replace("  for_user: {groups: [support], same_tenant: true}\n", "") + alone)
        once: dict[str, Any] = {"user": None, "prompt": "", "once": True}
        agent = desk.agent()
        found = desk.run(agent=agent, **once)
        assert desk.run(agent=agent, **once).id == found.id
        given: dict[str, Any]
        for given in (
            {"prompt": "Refund it"},
            {"user": desk.user()},
            {"user": lasting(proven_user("lee", tenant="acme-eu"))},
            {"agent": Agent("bot")},
        ):
            with pytest.raises(RunRefused, match="a run that somebody asks for"):
                desk.run(**{**once, "agent": desk.agent(), **given})
        desk.gate.close()


def test_a_token_ends_with_the_credential(desk: Desk) -> None:
    run = desk.run(agent=desk.agent(life=20))
    held = run.authorize("refund", ORDER, tool_call_id="a")
    desk.gate.release(held.hold.id, tenant="acme-eu", by=desk.answer("kim", held, groups=["leads"]))
    answer = run.authorize("refund", ORDER, tool_call_id="a")
    assert isinstance(answer, Allow)
    assert answer.token.expires_at <= run.header.agent_until


def test_a_renewed_run_goes_on_where_a_person_answered_meanwhile(desk: Desk) -> None:
    """A hold may wait for days; no credential lives that long."""
    run = desk.run(ttl=3 * 86400)
    held = run.authorize("refund", ORDER, tool_call_id="a")
    assert isinstance(held, StepUp)
    with time_machine.travel(time.time() + 86400, tick=True):
        desk.gate.release(held.hold.id, tenant="acme-eu", by=desk.answer("kim", held, groups=["leads"]))
        assert reasons(run.authorize("refund", ORDER, tool_call_id="a")) == {Reason.RUN_EXPIRED}
        other = desk.gate.resume_run("acme-eu", run.id)
        other.renew(agent=desk.agent())
        assert reasons(run.authorize("refund", ORDER, tool_call_id="a")) == {Reason.RUN_EXPIRED}, "the user's credential has ended, too"
        other.renew(user=desk.user())
        assert isinstance(run.authorize("refund", ORDER, tool_call_id="a"), Allow), "this handle sees what another renewed"
        assert desk.records[-1]["identity"] == {"user": "proven", "agent": "proven"}
        assert [record["type"] for record in desk.records].count("run_renewed") == 2


OTHERS = {
    "another agent": lambda d: {"agent": d.agent("desk-2")},
    "an agent of another app": lambda d: {"agent": d.agent(app="shop")},
    "an agent by a user's issuer": lambda d: {"agent": d.user()},
    "another user": lambda d: {"user": d.user("kim")},
    "the user in another tenant": lambda d: {"user": d.user(tenant="acme-uk")},
    "the user without the group": lambda d: {"user": d.user(groups=["sales"])},
    "a user by an agent's issuer": lambda d: {"user": d.agent()},
    "an expired credential": lambda d: {"user": d.user(life=-60)},
    "an agent with a key, where there was none": lambda d: {"agent": with_key(d)},
    "a user in process": lambda d: {"user": User("lee", tenant="acme-eu", groups=["support"])},
    "an agent in process": lambda d: {"agent": Agent("desk-1")},
}


def with_key(desk: Desk) -> OIDCToken:
    text = desk.agent().reveal()
    return OIDCToken(text, **shown(Key("own"), text))


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_is_renewed_for_nobody_else(desk: Desk, other: str) -> None:
    run = desk.run()
    before = run.header
    with pytest.raises(RunRefused) as refused:
        run.renew(**OTHERS[other](desk))
    assert (refused.value.failures[0].reason is Reason.INPUT) == ("in process" in other)
    assert desk.gate.resume_run("acme-eu", run.id).header == before


@pytest.mark.parametrize(
    ("who", "name"),
    [
        *(("agent", name) for name in ("issuer", "subject", "id", "key")),
        *(("user", name) for name in ("issuer", "subject", "id", "tenant")),
    ],
)
def test_each_thing_that_tells_a_credential_from_the_first_does_so_alone(desk: Desk, who: str, name: str) -> None:
    header = desk.run().header
    other = copy.copy(getattr(header, who))
    object.__setattr__(other, name, "another")
    assert [failure.field for failure in open_run._another(header, replace(header, **{who: other}))] == [f"{who}.{name}"]


def test_a_user_who_comes_or_goes_is_another(desk: Desk) -> None:
    header = desk.run().header
    alone = replace(header, user=None)
    for before, after in ((header, alone), (alone, header)):
        assert [failure.field for failure in open_run._another(before, after)] == ["user"]
    assert open_run._another(header, header) == open_run._another(alone, alone) == ()


def test_a_run_that_is_over_or_was_opened_in_process_is_not_renewed(desk: Desk) -> None:
    run = desk.run()
    run.close()
    with pytest.raises(RunRefused, match="run_closed"):
        run.renew(agent=desk.agent())
    (desk.folder / "w" / "refund.yaml").write_text(
        WORKFLOW.replace("{oidc: {issuer: https://agents.example, claims: {app: {is: desk}}}}", "{in_process: true}")
    )
    with Gate.open_unsafe_unapproved(desk.folder / "w", **desk.given) as gate:
        lee = User("lee", tenant="acme-eu", groups=["support"])
        run = gate.open_run("desk.refund", tenant="acme-eu", user=lee, agent=Agent("desk"), prompt=PROMPT)
        with pytest.raises(RunRefused, match="in process"):
            run.renew(user=desk.user())
        with pytest.raises(RunRefused, match="ttl"):
            gate.open_run("desk.refund", tenant="acme-eu", user=lee, agent=Agent("desk"), prompt=PROMPT, ttl=86401)
        mixed = gate.open_run("desk.refund", tenant="acme-eu", user=desk.user(life=60), agent=Agent("desk"), prompt=PROMPT)
        assert mixed.header.ends <= time.time() + 60
        mixed.renew(user=desk.user(life=300))
        assert time.time() + 200 < mixed.header.ends


def test_a_run_that_is_gone_is_not_renewed(desk: Desk) -> None:
    run = desk.run(ttl=1)
    time.sleep(1.2)
    with pytest.raises(RunRefused, match="run_missing"):
        run.renew(agent=desk.agent())


def test_parallel_turns_and_renewals_lose_nothing(desk: Desk) -> None:
    run = desk.run()
    other = desk.gate.resume_run("acme-eu", run.id)
    other.add_turn("it is urgent")
    run.renew(agent=desk.agent(life=900))
    last = desk.gate.resume_run("acme-eu", run.id)
    assert len(last._view.state.turns) == 2
    assert last.header.agent_until > time.time() + 800


# --- nothing proven, nothing opened ------------------------------------------------------------------------------------------------
def test_a_gate_without_settings_takes_no_credential(desk: Desk) -> None:
    with (
        Gate.open_unsafe_unapproved(desk.folder / "w", **{**desk.given, "identity": None}) as gate,
        pytest.raises(RunRefused, match="identity"),
    ):
        gate.open_run("desk.refund", tenant="acme-eu", user=desk.user(), agent=desk.agent(), prompt=PROMPT)


def test_what_a_host_builds_itself_is_never_proven(desk: Desk) -> None:
    with pytest.raises(RunRefused) as refused:
        desk.run(user=User("lee", tenant="acme-eu", groups=["support"]), agent=Agent("desk-1"))
    assert {failure.reason for failure in refused.value.failures} == {Reason.AGENT, Reason.USER}


@pytest.mark.parametrize("given", [{"agent": "desk"}, {"user": "lee"}, {"agent": None}, {"tenant": None}])
def test_what_is_no_credential_opens_nothing(desk: Desk, given: Any) -> None:
    with pytest.raises(RunRefused, match="input"):
        desk.run(**given)


@pytest.mark.parametrize("text", [None, b"x", 7])
def test_a_credential_is_text(text: Any) -> None:
    with pytest.raises(ConfigError, match="credential"):
        OIDCToken(text)


def test_keys_that_cannot_be_had_are_no_denial_but_unavailable(desk: Desk) -> None:
    desk.settings["issuers"]["agents"]["keys"] = "/nowhere/keys.json"
    with Gate.open_unsafe_unapproved(desk.folder / "w", **desk.given) as gate, pytest.raises(RunRefused) as refused:
        gate.open_run("desk.refund", tenant="acme-eu", user=desk.user(), agent=desk.agent(), prompt=PROMPT)
    (failure,) = refused.value.failures
    assert (failure.reason, code_of([failure])) == (Reason.KEYS, Code.UNAVAILABLE)


def test_a_refused_credential_is_on_record_with_field_got_and_expected(desk: Desk) -> None:
    with pytest.raises(RunRefused):
        desk.run(agent=OIDCToken(desk.agents.sign(claims_of("https://agents.example", "desk-1", "https://other.example"))))
    record = refusals(desk.gate)[-1]
    assert (record["type"], record["tenant"], record["workflow"]["id"], record["agent"]) == ("run_refused", "acme-eu", "desk.refund", None)
    (reason,) = record["reasons"]
    expected = {"reason": "agent", "field": "agent.oidc.aud", "got": "'https://other.example'", "expected": GATE}
    assert {name: reason[name] for name in expected} == expected


MINE = WORKFLOW.replace("{group: leads, count: 1, not: [requester]}", "{user: true}")


def test_what_opened_a_run_confirms_nothing_in_it(desk: Desk) -> None:
    """The host and the agent have it: neither the user's token nor what was proven by it is their yes."""
    (desk.folder / "w" / "refund.yaml").write_text(MINE)
    with Gate.open_unsafe_unapproved(desk.folder / "w", **desk.given) as gate:
        token = desk.user()
        run = gate.open_run("desk.refund", tenant="acme-eu", user=token, agent=desk.agent(), prompt=PROMPT)
        held = run.authorize("refund", ORDER, tool_call_id="a")
        assert isinstance(held, StepUp)
        assert held.confirm
        given: tuple[Any, ...] = (token, run.header.user)
        for by in given:
            for answer in (gate.release, gate.refuse, gate.reveal):
                with pytest.raises(AnswerRefused) as refused:
                    answer(held.hold.id, tenant="acme-eu", by=by)
                assert refused.value.code == AnswerCode.UNPROVEN
        assert isinstance(run.authorize("refund", ORDER, tool_call_id="a"), StepUp)
        gate.release(held.hold.id, tenant="acme-eu", by=desk.user(nonce=nonce_for(gate, held.hold.id, "acme-eu")))
        assert isinstance(run.authorize("refund", ORDER, tool_call_id="a"), Allow)


def test_whoever_has_the_users_name_elsewhere_confirms_nothing(desk: Desk, tmp_path: Path) -> None:
    """Another issuer's lee, another account's, and the lee of the root, who may be of another tenant: one id, and not the person."""
    (desk.folder / "w" / "refund.yaml").write_text(MINE)
    people = desk.settings["issuers"]["people"]
    desk.settings["issuers"]["partner"] = {**people, "issuer": "https://partner.example"}
    with Gate.open_unsafe_unapproved(desk.folder / "w", **desk.given) as gate:
        signer = KeySigner.from_seed(b"k" * 32)
        new_root(tmp_path, [Reviewer("lee", (signer.public_key,))], expires="2099-01-01", threshold=1, signer=signer)
        root = Root.parse((tmp_path / "approvals" / "root.yaml").read_bytes(), "root.yaml")
        signers = Signers(root, AllowedSigners.parse((tmp_path / "approvals" / "allowed_signers").read_text(), "x"))
        gate._core.answerers.signers = lambda: signers
        run = gate.open_run("desk.refund", tenant="acme-eu", user=desk.user(), agent=desk.agent(), prompt=PROMPT)
        held = run.authorize("refund", ORDER, tool_call_id="a")
        assert isinstance(held, StepUp)
        said: dict[str, Any] = {"tenant": "acme-eu", "groups": ["support"], "nonce": nonce_for(gate, held.hold.id, "acme-eu")}
        nonce = gate.nonce(held.hold.id, tenant="acme-eu")
        namesake = proven_user("lee", tenant="acme-eu", groups=("support",), issuer="https://people.example", subject="another account")
        by_others: tuple[Any, ...] = (
            OIDCToken(desk.people.sign(claims_of("https://partner.example", "lee", **said))),
            SSHAnswer(nonce, signer.sign(held.hold.statement("release", nonce), HOLD_NAMESPACE)),
            lasting(namesake, nonce_for(gate, held.hold.id, "acme-eu")),
        )
        for by in by_others:
            with pytest.raises(AnswerRefused) as refused:
                gate.release(held.hold.id, tenant="acme-eu", by=by)
            assert refused.value.code == AnswerCode.APPROVER
        own = desk.user(nonce=nonce_for(gate, held.hold.id, "acme-eu"))
        assert gate.release(held.hold.id, tenant="acme-eu", by=own).state == "released"


def test_an_answer_to_a_hold_is_proven(desk: Desk) -> None:
    held, other = (desk.run().authorize("refund", ORDER) for _ in range(2))
    for by in (
        User("kim", tenant="acme-eu", groups=["leads"]),
        desk.answer("kim", held, groups=["support"]),
        desk.answer("kim", held, tenant="acme-uk", groups=["leads"]),
        desk.answer("lee", held, groups=["leads"]),
        desk.user("kim", groups=["leads"]),
        desk.user("kim", groups=["leads"], nonce=desk.gate.nonce(held.hold.id, tenant="acme-eu")),
        desk.user("kim", groups=["leads"], nonce=nonce_for(desk.gate, held.hold.id, "acme-eu", "refuse")),
        desk.user("kim", groups=["leads"], nonce=nonce_for(desk.gate, other.hold.id, "acme-eu")),
        desk.user("kim", groups=["leads"], nonce=nonce_claim(held.hold.statement("release", "never-given"))),
        desk.user("kim", groups=["leads"], nonce=7),
        desk.agent("kim", groups=["leads"], tenant="acme-eu"),
        OIDCToken("x.y.z"),
    ):
        with pytest.raises(AnswerRefused) as refused:
            desk.gate.release(held.hold.id, tenant="acme-eu", by=by)
        assert refused.value.code in {AnswerCode.UNPROVEN, AnswerCode.APPROVER, AnswerCode.NONCE}
        assert refusals(desk.gate)[-1]["type"] == "hold_answer_refused"
    assert desk.gate.release(held.hold.id, tenant="acme-eu", by=desk.answer("kim", held, groups=["leads"])).state == "released"


# --- what is kept ------------------------------------------------------------------------------------------------------------------
class Through:
    """A run whose work came to its agent through a broker, attested, for half a minute."""

    def __init__(self, world: World, seconds: int | None = 20) -> None:
        self.world, self.name, self.key = world, PROD + "support-agent", Key("agent")
        agent = self.agent() if seconds is None else self.agent(self.hop(seconds))
        self.run = world.gate.open_run("payments.customer-refund", tenant="acme-eu", user=self.user(), agent=agent, prompt=PROMPT)

    def user(self, name: str = "lee", **more: Any) -> OIDCToken:
        return OIDCToken(self.world.acme.of_user(name, tenant="acme-eu", groups=["support-l1"], **more))

    def hop(self, seconds: int = 600, broker: str = "orchestrator") -> str:
        return self.world.hop(broker, self.name, "lee", exp=now() + seconds)

    def agent(self, *hops: str, ago: int | None = 30, key: Key | None = None) -> JWTSVID:
        svid = self.world.svid(self.name)
        statement = None if ago is None else self.world.attested(self.name, ago=ago)
        return JWTSVID(svid, attestation=statement, delegation=list(hops), **shown(key or self.key, svid))

    def presented(self, agent: JWTSVID, **user: Any) -> Any:
        return presented(self.world.gate, self.run, self.user(**user), agent)


def presented(gate: Gate, run: Any, user: Any, agent: Any, over: proving.OverHTTP = proving.IN_PROCESS) -> Any:
    """The state of a run in which somebody calls with these credentials."""
    return drive(open_run.present(gate._core, run.state, user=user, agent=agent, over=over), gate._store, gate._audit)


@pytest.fixture
def through(tmp_path: Path) -> Iterator[Through]:
    with web() as served:
        made = Through(World(served, tmp_path))
        yield made
        made.world.gate.close()


def test_a_run_that_came_through_a_broker_goes_on_as_long_as_the_broker_says(through: Through) -> None:
    """Whoever leaves the hop out would go on after its end, and nothing would say any more through whom the work came."""
    run, via = through.run, (PROD + "orchestrator",)
    end = run.header.ends
    assert (run.header.agent.via, end <= time.time() + 20) == (via, True)
    with pytest.raises(RunRefused) as refused:
        run.renew(agent=through.agent())
    assert [(f.reason, f.field) for f in refused.value.failures] == [(Reason.HOPS, "agent.via")]
    shown_less = through.presented(through.agent()).header  # it calls in its own run, and the run does not go on with that
    assert (shown_less.agent.via, shown_less.ends) == (via, end)
    run.renew(agent=through.agent(through.hop()))
    assert (run.header.agent.via, run.header.ends > end) == (via, True)


def test_what_was_attested_at_the_opening_ends_with_its_statement(through: Through) -> None:
    end = through.run.header.ends
    state = through.presented(through.agent(through.hop(), ago=None))
    assert (state.header.ends, state.header.agent.posture) == (end, through.run.header.agent.posture)
    assert through.presented(through.agent(through.hop())).header.ends > end


def test_a_user_who_signed_in_again_is_taken_up_without_the_hop_of_the_agent(through: Through) -> None:
    for made in (through, Through(through.world, 600)):
        run = made.run
        state = made.presented(made.agent(), amr=["mfa"])
        assert state.header.user.amr == ("mfa",)
        assert (state.header.agent.via, state.header.agent_until) == (run.header.agent.via, run.header.agent_until)


def test_who_calls_in_a_run_is_who_it_was_opened_for(through: Through) -> None:
    """Far from its end, where nothing is renewed."""
    made = Through(through.world, 600)
    gate, run, user = made.world.gate, made.run, made.user()
    for field, agent, whose, over in (
        ("user.subject", made.agent(), made.user("eve"), proving.IN_PROCESS),
        ("user", made.agent(), None, proving.IN_PROCESS),
        ("agent.key", made.agent(made.hop(), key=Key("thief")), user, proving.IN_PROCESS),
        ("client", made.agent(made.hop()), user, proving.OverHTTP(client="other")),
    ):
        with pytest.raises(RunRefused) as refused:
            presented(gate, run, whose, agent, over)
        assert field in {failure.field for failure in refused.value.failures}
    assert presented(gate, run, user, made.agent(made.hop(200))) is run.state


def test_a_refused_credential_says_of_whom_it_was(through: Through) -> None:
    """Its reason is that of the part that was shown, however the field is worded."""
    made, another = Through(through.world, 600), through.world.attested(PROD + "another", ago=30)
    svid = made.world.svid(made.name)
    stolen = JWTSVID(svid, attestation=another, delegation=[made.hop()], **shown(made.key, svid))
    for agent, user, reason in (
        (made.agent(made.hop()), OIDCToken("x.y.z"), Reason.USER),
        (made.agent(made.hop(-60)), made.user(), Reason.HOPS),
        (stolen, made.user(), Reason.POSTURE),
        (JWTSVID("x.y.z"), made.user(), Reason.AGENT),
    ):
        with pytest.raises(RunRefused) as refused:
            presented(made.world.gate, made.run, user, agent)
        assert [failure.reason for failure in refused.value.failures] == [reason], refused.value


def test_who_calls_in_a_run_is_judged_by_its_workflow_each_time(through: Through) -> None:
    made = Through(through.world, None)
    for agent, field in (
        (made.agent(made.hop(broker="api")), "agent.via"),  # of a broker that the workflow does not name
        (made.agent(ago=9999), "agent.posture.attested_at"),
    ):
        with pytest.raises(RunRefused) as refused:
            presented(made.world.gate, made.run, made.user(), agent)
        assert [failure.field for failure in refused.value.failures] == [field]


def test_whoever_calls_near_the_end_of_a_run_goes_on_with_it(desk: Desk) -> None:
    run = desk.run(agent=desk.agent(life=20))
    assert presented(desk.gate, run, desk.user(), desk.agent()).header.ends > run.header.ends


def test_of_the_claims_a_run_keeps_those_that_its_workflow_compares(desk: Desk) -> None:
    run = desk.run(agent=desk.agent(email="lee@acme.example", phone="1"))
    assert run.header.agent.claims == {"app": "desk"}


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "authlib")  # the tests' own authorization server logs what it issues
    structlog.configure(
        processors=[structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    yield stream
    structlog.reset_defaults()


class Seen:
    """A store that keeps all that it was sent."""

    def __init__(self, store: Any) -> None:
        self.store, self.sent = store, list[str]()

    def call(self, op: Any, deadline: float) -> Any:
        self.sent.append(repr(op))
        return self.store.call(op, deadline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def refused_in_full(gate: Gate, each: dict[str, Any]) -> str:
    """The traceback of a refused run with every local variable on its way; logged, too."""
    try:
        gate.open_run("payments.customer-refund", **each)
    except RunRefused as error:
        structlog.get_logger("test").exception("refused", exc_info=error, given=each)
        logging.getLogger("test").exception("refused %r", each, exc_info=error)
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    pytest.fail("it opened")


def test_a_credential_is_nowhere(tmp_path: Path, logs: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    with web() as served:
        world = World(served, tmp_path)
        gate = world.gate
        gate._store = store = Seen(gate._store)
        name, key = PROD + "support-agent", Key("agent")
        canaries, sinks = list[str](), list[str]()

        def given(**changed: Any) -> dict[str, Any]:
            svid, user = world.svid(name), world.acme.of_user("lee", **{"tenant": "acme-eu", "groups": ["support-l1"], **changed})
            attestation, hop = world.attested(name), world.hop("orchestrator", name, "lee")
            proof = shown(key, svid)
            canaries.extend([svid, user, attestation, hop, proof["proof"].header])
            agent = JWTSVID(svid, attestation=attestation, delegation=[hop], **proof)
            return {"user": OIDCToken(user), "agent": agent, "tenant": "acme-eu", "prompt": "Please refund order ORD-10023344"}

        run = gate.open_run("payments.customer-refund", **given())
        run.authorize("orders.get", ORDER, tool_call_id="a")
        run.renew(**{who: value for who, value in given().items() if who in {"user", "agent"}})
        bad = [given(groups=["sales"]), given(tenant="northwind")]
        for changed in ({"delegation": [world.hop("stranger", name, "lee")]}, {"attestation": world.attested(name, ago=9999)}):
            svid = world.svid(name)
            canaries.extend([svid, *map(str, changed.get("delegation", [])), str(changed.get("attestation", "canary-less"))])
            bad.append({**given(), "agent": JWTSVID(svid, **changed)})
        forged = Key("spire", "RS256").sign({"sub": name, "aud": GATE, "exp": now() + 60})
        long, unreadable = world.svid(name, more="x" * 20_000), world.svid(name)[:-3] + "!!!"
        canaries.extend([forged, long, unreadable])
        bad += [{**given(), "agent": JWTSVID(text)} for text in (forged, long, unreadable)]
        for each in bad:
            sinks.extend([refused_in_full(gate, each), repr(each), str(each)])
        for value in (OIDCToken("canary"), JWTSVID("canary")):
            for sink in (copy.copy, copy.deepcopy, pickle.dumps, json.dumps):
                with pytest.raises(TypeError):
                    sink(value)
            assert "canary" not in repr(value) + str(vars(value) if hasattr(value, "__dict__") else "")
        sinks += [logs.getvalue(), caplog.text, json.dumps(list(gate._audit.records)), *store.sent, repr(run.header)]  # type: ignore[attr-defined]  # in memory
        assert "spiffe://acme.example" in "".join(sinks), "the sinks hold nothing"
        assert "sub" in logs.getvalue()
        for canary in canaries:
            for part in {canary, *canary.split(".")[1:]} - {"canary-less"}:
                if len(part) > 20:
                    assert not [sink[max(0, sink.index(part) - 300) : sink.index(part) + 20] for sink in sinks if part in sink]
        gate.close()


# --- awaited -------------------------------------------------------------------------------------------------------------------------
async def test_an_awaited_gate_proves_the_same_and_waits_for_keys_in_a_thread(tmp_path: Path) -> None:
    with web() as served:
        world = World(served, tmp_path)
        common: dict[str, Any] = {"issuer": GATE, "audit": "memory://", "environment": "prod", "identity": world.settings}
        gate = await AsyncGate.open_unsafe_unapproved(Path(__file__).parent.parent / "workflows", brokers=frozenset({"aws-sts"}), **common)
        async with gate:
            run = await gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=OIDCToken(world.job()), prompt="")
            tool, args = "cloud.assume-deploy-role", {"service": "shop-web", "scopes": ["ecr:PutImage"]}
            definition = world.definition("ci.deploy", tool)
            assert isinstance(await run.authorize(tool, args, definition=definition, connection=Connection("10.0.0.1")), Allow)
            await run.renew(agent=OIDCToken(world.job()))
            with pytest.raises(RunRefused):
                await gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=OIDCToken(world.job(ref="refs/x")), prompt="")
        world.gate.close()


@pytest.mark.deadline
def test_slow_keys_take_their_own_time_and_not_the_calls(desk: Desk) -> None:
    """A first fetch of half a second would otherwise end every call's deadline of 0.29 s."""
    with web() as served:
        slow = served.publish("/agents", desk.agents)
        answer = served.paths["/agents"]
        served.paths["/agents"] = slowly(0.5, answer)
        desk.settings["issuers"]["agents"]["keys"] = slow
        with Gate.open_unsafe_unapproved(desk.folder / "w", **desk.given) as gate:
            gate.open_run("desk.refund", tenant="acme-eu", user=desk.user(), agent=desk.agent(), prompt=PROMPT)


# --- settings ------------------------------------------------------------------------------------------------------------------------
TOML = """
[identity.issuers.github]
issuer = "https://token.actions.githubusercontent.com"
shape = "github"
keys = "https://token.actions.githubusercontent.com/.well-known/jwks"
audience = "https://gate.acme.example"
tenants = ["acme-eu"]
environment = {production = "prod"}

[identity.trust_domains."acme.example"]
bundle = "bundle.json"
audience = "https://gate.acme.example"
tenants = ["acme-eu"]
"""


def test_settings_come_from_a_file_or_from_values(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(TOML)
    whole = IdentitySettings.of(path)
    path.write_text(TOML.replace("identity.", ""))
    assert IdentitySettings.of(str(path)) == whole
    assert IdentitySettings.of(whole) is whole
    assert whole.issuers["github"].tenants == ("acme-eu",)


def issuer(**more: Any) -> dict[str, Any]:
    made = {"issuer": GITHUB, "keys": "https://x.example/k", "audience": GATE, "tenants": ["a"], "agent": {}, **more}
    return {"issuers": {"it": {name: value for name, value in made.items() if value is not ...}}}


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        (issuer(audience=...), "identity.issuers.it.audience"),
        (issuer(tenants=...), "identity.issuers.it.tenants"),
        (issuer(tenants=[]), "identity.issuers.it.tenants"),
        (issuer(tenants="a"), "identity.issuers.it.tenants"),
        (issuer(keys="http://x.example/k"), "identity.issuers.it.keys"),
        (issuer(keys="http://127.0.0.1/k"), "identity.issuers.it"),
        (issuer(keys="ftp://x.example/k"), "identity.issuers.it.keys"),
        (issuer(keys="https://u:p@x.example/k"), "identity.issuers.it.keys"),
        (issuer(agent=...), "identity.issuers.it"),
        (issuer(shape="github"), "identity.issuers.it"),
        (issuer(shape="jenkins"), "identity.issuers.it.shape"),
        (issuer(environment={"a": "b"}), "identity.issuers.it"),
        (issuer(algorithms=["HS256"]), "identity.issuers.it"),
        (issuer(algorithms=["none"]), "identity.issuers.it"),
        (issuer(audienc="x"), "identity.issuers.it.audienc"),
        (issuer(max_lifetime="1h"), "identity.issuers.it.max_lifetime"),
        (issuer(private_addresses="yes"), "identity.issuers.it.private_addresses"),
        ({"issuers": {"a": issuer()["issuers"]["it"], "b": issuer()["issuers"]["it"]}}, "identity"),
        ({"attestors": {"a": {"keys": "k", "clusters": []}}}, "identity.attestors.a"),
        ({"attestors": {"a": {"keys": "k", "clusters": ["c"]}}}, "identity.attestors.a"),
        ({"attestors": {"a": {"keys": "k", "clusters": ["c"], "format": "dsse", "issuer": "x"}}}, "identity.attestors.a"),
        ({"clients": {"a": {"audience": GATE, "tenants": ["t"]}}}, "identity.clients.a"),
        ({"proxies": {"addresses": ["everywhere"]}}, "identity.proxies.addresses"),
        ({"proxies": {"addresses": ["10.0.0.1/8"]}}, "identity.proxies.addresses"),
        ({"issuer": {}}, "identity.issuer"),
        ("/nowhere.toml", "identity"),
    ],
)
def test_a_wrong_setting_is_named(given: Any, setting: str) -> None:
    with pytest.raises(ConfigError) as refused:
        IdentitySettings.of(given)
    assert refused.value.setting.startswith(setting)
    assert "Value error" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"issuer": {}}, "issuers, trust_domains, attestors, brokers, clients, proxies"),
        (issuer(audienc="x"), "issuer, audience, tenants"),
        (issuer(user={"tenant": "t", "group": "g"}), "one of id, tenant, groups, tenants"),
        ({"proxies": {"addresses": ["10.0.0.0/8"], "header": "x"}}, "one of addresses, certificate"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_known_ones(given: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match="an unknown setting") as refused:
        IdentitySettings.of(given)
    assert expected in refused.value.expected


@pytest.mark.parametrize(("name", "given"), [("identity", 7), ("data_classes", 7), ("data_classes", "/nowhere.toml")])
def test_a_wrong_setting_of_the_gate_is_named(desk: Desk, name: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Gate.open_unsafe_unapproved(desk.folder / "w", **{**desk.given, name: given})


MORE = "[arguments]\na='b'\n[data_sets]\na = 'c'\n[data_set]\na = 'd'"


@pytest.mark.parametrize(
    "text", ["", "x = 1", "[arguments]\n[data_sets]\na = 'b'", "[arguments]\na='b'\n[data_sets]\na = 1", "[arguments", MORE]
)
def test_a_catalogue_of_another_form_opens_no_gate(desk: Desk, text: str) -> None:
    path = desk.folder / "data.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="data_classes"):
        Gate.open_unsafe_unapproved(desk.folder / "w", **{**desk.given, "data_classes": path})


def test_the_settings_in_the_documentation_load(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "identity.md").read_text()
    blocks = re.findall(r"^( *)```toml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    named: dict[str, Any] = {}
    for indent, block in blocks:
        path = tmp_path / "block.toml"
        path.write_text("".join(line.removeprefix(indent) for line in block.splitlines(keepends=True)))
        if "[data_sets]" in block:
            assert DataClassFile(path)("datasets.query", {"dataset": "northwind/orders/2026"}) == "pseudonymous"
        else:
            settings = IdentitySettings.of(path)
            named |= {name: value for name, value in settings if value}
    assert set(named) == {"issuers", "trust_domains", "proxies", "attestors"}
