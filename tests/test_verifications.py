"""Credentials that come back: their signature is verified once for a key set; everything else is judged each time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
import time_machine

from agentgate import JWTSVID, Deny, OIDCToken, Reason, RunRefused
from agentgate.errors import CredentialRefused
from agentgate.gate import open_run
from agentgate.gate.proving import OverHTTP
from agentgate.identity import keys as keys_of_issuers
from agentgate.identity.door import Identities
from agentgate.identity.keys import KeySource, Verifications
from agentgate.identity.signed import ExpectedClaims, verified
from agentgate.shell.drive import drive
from agentgate.token.dpop import DPoP
from tests.authority import GATE, Key, Web, claims_of, proven, web
from tests.founding import DOOR, PROD, World, shown
from tests.test_identity_door import ORDER, WORKFLOW, Desk, presented

ALONE = """intents: {none: "It works by itself."}
tools:
  refund: {effect: write, needs: none, redeem: wrapper, args: {order_id: {pattern: 'ORD-[0-9]{8}', from: [model]}}}
"""
OWN = WORKFLOW.partition("intents:")[0].replace("  for_user: {groups: [support], same_tenant: true}\n", "") + ALONE
AGENTS = "https://agents.example"


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The credentials whose signature PyJWT verified."""
    texts, decode = list[str](), jwt.decode

    def noted(text: str, *args: Any, **kwargs: Any) -> Any:
        texts.append(text)
        return decode(text, *args, **kwargs)

    monkeypatch.setattr(jwt, "decode", noted)
    return texts


@pytest.fixture
def served() -> Iterator[Web]:
    with web() as made:
        yield made


@pytest.fixture
def desk(served: Web, tmp_path: Path) -> Iterator[Desk]:
    """Two workflows in which an agent works by itself, and its own run is found by its credential."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "other.yaml").write_text(OWN.replace("id: desk.refund", "id: desk.other"))
    made = Desk(served, tmp_path, OWN)
    yield made
    made.gate.close()


def own_run(desk: Desk, text: str, workflow: str = "desk.refund", *, key: Key | None = None, **proof: Any) -> Any:
    """The run of a credential, as the exchange asks for it: each request has an object of its own."""
    given: dict[str, Any] = {}
    if key is not None:
        given["proof"] = DPoP(key.proof("POST", DOOR, token=text, **proof), method="POST", url=DOOR)
    return desk.gate.open_run(workflow, tenant="acme-eu", user=None, agent=OIDCToken(text, **given), prompt="", once=True)


def text_of(desk: Desk, **more: Any) -> str:
    return desk.agent(**more).reveal()


def returned(desk: Desk, text: str, **more: Any) -> Any:
    """The run of a credential whose signature is known from now on."""
    own_run(desk, text, **more)
    return own_run(desk, text, **more)


def source_of(desk: Desk) -> KeySource:
    return desk.gate._core.identities._issuers[AGENTS].source  # type: ignore[union-attr]


def read_again(desk: Desk, after: float = 400) -> None:
    """The issuer's keys are due to be read."""
    source = source_of(desk)
    source._read_at -= after
    source._next = 0.0


def refused(error: Any) -> set[str]:
    return {failure.field for failure in error.value.failures}


# --- how often ------------------------------------------------------------------------------------------------------------------
def test_what_founds_a_run_is_verified_and_what_comes_back_once_more(desk: Desk, verifications: list[str]) -> None:
    text, key = text_of(desk), Key("agent")
    runs = [own_run(desk, text, key=key).id for _ in range(100)]
    assert len(set(runs)) == 1
    assert verifications == [text, text]


def test_a_credential_that_came_back_founds_no_other_run_without_being_verified_whole(desk: Desk, verifications: list[str]) -> None:
    text = text_of(desk)
    returned(desk, text)
    other = own_run(desk, text, "desk.other")
    assert verifications == [text] * 3
    assert own_run(desk, text, "desk.other").id == other.id
    assert len(verifications) == 3


def test_who_presents_credentials_in_a_run_is_verified_once_and_who_goes_on_with_it_again(
    served: Web, tmp_path: Path, verifications: list[str]
) -> None:
    desk = Desk(served, tmp_path)
    run, user, agent = desk.run(), desk.user().reveal(), text_of(desk)
    verifications.clear()
    for _ in range(3):
        presented(desk.gate, run, OIDCToken(user), OIDCToken(agent))
    assert verifications == [user, agent]
    again = OIDCToken(user), OIDCToken(agent)
    drive(open_run.renew(desk.gate._core, run.state, user=again[0], agent=again[1]), desk.gate._store, desk.gate._audit)
    assert verifications[2:] == [user, agent]
    desk.gate.open_run("desk.refund", tenant="acme-eu", user=again[0], agent=again[1], prompt="Please refund order ORD-10023344")
    assert verifications[4:] == [user, agent]
    desk.gate.close()


def test_statements_and_hops_are_verified_each_time(served: Web, tmp_path: Path, verifications: list[str]) -> None:
    world = World(served, tmp_path)
    name, key = PROD + "support-agent", Key("agent")
    svid, hop = world.svid(name), world.hop("orchestrator", name, "lee", exp=int(time.time()) + 600)
    user, attested = world.acme.of_user("lee", tenant="acme-eu", groups=["support-l1"]), world.attested(name, ago=30)

    def agent() -> JWTSVID:
        return JWTSVID(svid, attestation=attested, delegation=[hop], **shown(key, svid))

    run = world.gate.open_run(
        "payments.customer-refund", tenant="acme-eu", user=OIDCToken(user), agent=agent(), prompt="Please refund order ORD-10023344"
    )
    presented(world.gate, run, OIDCToken(user), agent())
    verifications.clear()
    presented(world.gate, run, OIDCToken(user), agent())
    assert verifications == [attested, hop]
    with pytest.raises(RunRefused), time_machine.travel(time.time() + 500, tick=True):  # attested too long ago
        presented(world.gate, run, OIDCToken(user), JWTSVID(svid, attestation=attested, delegation=[hop], **shown(key, svid)))
    world.gate.close()


# --- what is judged each time ------------------------------------------------------------------------------------------------------
def test_it_ends_when_it_says(desk: Desk) -> None:
    text = text_of(desk, life=60)
    returned(desk, text)
    with time_machine.travel(time.time() + 70, tick=True), pytest.raises(RunRefused) as error:
        own_run(desk, text)
    assert refused(error) == {"agent.oidc.exp"}


def test_it_does_not_begin_before_its_time_either(desk: Desk) -> None:
    """A clock that is set back."""
    text = text_of(desk)
    returned(desk, text)
    with time_machine.travel(time.time() - 60, tick=True), pytest.raises(RunRefused) as error:
        own_run(desk, text)
    assert refused(error) == {"agent.oidc.iat"}


def test_whoever_is_revoked_gets_nothing_by_what_is_kept(desk: Desk) -> None:
    text = text_of(desk)
    returned(desk, text)
    desk.gate.revoke("agent:desk-1", tenants=["acme-eu"], by="lee", reason="it left")
    answer = own_run(desk, text).authorize("refund", ORDER, tool_call_id="a")
    assert isinstance(answer, Deny)
    assert Reason.REVOKED in answer.reasons
    with pytest.raises(RunRefused) as error:
        own_run(desk, text, "desk.other")
    assert refused(error) == {"revocations"}


def test_a_key_that_is_gone_or_another_verifies_nothing_any_more(desk: Desk, served: Web, verifications: list[str]) -> None:
    text = text_of(desk)
    returned(desk, text)
    served.publish("/agents", Key("agents"))  # of the same name
    read_again(desk)
    with pytest.raises(RunRefused) as error:
        own_run(desk, text)
    assert refused(error) == {"agent.oidc.signature"}
    served.publish("/agents", Key("newer"))
    read_again(desk)
    with pytest.raises(RunRefused) as error:
        own_run(desk, text)
    assert refused(error) == {"agent.oidc.kid"}


def test_the_same_keys_read_again_change_nothing(desk: Desk, served: Web, verifications: list[str]) -> None:
    text = text_of(desk)
    returned(desk, text)
    asked = len(served.asked)
    read_again(desk)
    own_run(desk, text)
    assert (len(served.asked), len(verifications)) == (asked + 1, 2)


def test_keys_that_nobody_could_read_for_an_hour_prove_nothing_by_what_is_kept(desk: Desk, served: Web) -> None:
    text = text_of(desk)
    returned(desk, text)
    del served.paths["/agents"]
    read_again(desk, 4000)
    with pytest.raises(RunRefused) as error:
        own_run(desk, text)
    assert {failure.reason for failure in error.value.failures} == {Reason.KEYS}


def test_the_same_token_with_another_key_is_somebody_else(desk: Desk) -> None:
    text, key = text_of(desk), Key("agent")
    returned(desk, text, key=key)
    for thief in (Key("thief"), None):
        with pytest.raises(RunRefused) as error:
            own_run(desk, text, key=thief)
        assert refused(error) == {"agent.key"}
    with pytest.raises(RunRefused) as error:
        own_run(desk, text, key=key, iat=int(time.time()) - 900)  # a proof of then
    assert refused(error) == {"agent.oidc.proof.iat"}


def test_another_client_does_not_go_on_with_it(desk: Desk) -> None:
    text = text_of(desk)
    returned(desk, text)
    given: dict[str, Any] = {"tenant": "acme-eu", "user": None, "prompt": "", "ttl": 600, "once": True}
    steps = open_run.open_run(desk.gate._core, "desk.refund", agent=OIDCToken(text), over=OverHTTP(client="other"), **given)
    with pytest.raises(RunRefused) as error:
        drive(steps, desk.gate._store, desk.gate._audit)
    assert refused(error) == {"client"}


def test_a_token_that_names_its_key_counts_with_it_alone(desk: Desk) -> None:
    key = Key("agent")
    text = text_of(desk, cnf={"jkt": key.thumbprint})
    returned(desk, text, key=key)
    for thief in (Key("thief"), None):
        with pytest.raises(RunRefused) as error:
            own_run(desk, text, key=thief)
        assert refused(error) <= {"agent.oidc.proof", "agent.oidc.proof.jwk"}


def test_a_token_that_is_altered_is_another(desk: Desk, verifications: list[str]) -> None:
    text = text_of(desk)
    returned(desk, text)
    head, body, signature = text.split(".")
    for forged in (f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}.{text_of(desk).split('.')[2]}"):
        with pytest.raises(RunRefused) as error:
            own_run(desk, forged)
        assert refused(error) == {"agent.oidc.signature"}
    assert own_run(desk, text).id
    assert len(verifications) == 4


def test_settings_that_change_are_asked_again(desk: Desk, verifications: list[str]) -> None:
    text = text_of(desk)
    returned(desk, text)
    identities: Any = desk.gate._core.identities
    settings = desk.settings["issuers"]["agents"]
    identities.become(Identities.of({"issuers": {"agents": {**settings, "required": {"app": "till"}}}}))
    with pytest.raises(RunRefused) as error:
        own_run(desk, text)
    assert refused(error) == {"agent.oidc.app"}
    identities.become(Identities.of({"issuers": {"agents": settings}}))
    own_run(desk, text)
    assert len(verifications) == 4


def test_a_sign_in_grows_old_although_its_token_is_kept(served: Web, tmp_path: Path) -> None:
    source = WORKFLOW.replace(
        "for_user: {groups: [support], same_tenant: true}", "for_user: {groups: [support], same_tenant: true, max_age: 15m}"
    )
    desk = Desk(served, tmp_path, source)
    user, agent = desk.user(life=3600, auth_time=int(time.time())).reveal(), text_of(desk, life=3600)
    run = desk.run(user=OIDCToken(user), agent=OIDCToken(agent))
    for _ in range(2):
        presented(desk.gate, run, OIDCToken(user), OIDCToken(agent))
    with time_machine.travel(time.time() + 1000, tick=True), pytest.raises(RunRefused) as error:
        presented(desk.gate, run, OIDCToken(user), OIDCToken(agent))
    assert refused(error) == {"user.auth_time"}
    desk.gate.close()


# --- what is kept, and of whom -----------------------------------------------------------------------------------------------------
def test_for_another_audience_or_in_the_other_place_it_is_verified_whole(served: Web, verifications: list[str]) -> None:
    key = Key("agents")
    source = KeySource(served.publish("/k", key), private=True)
    expected, text = ExpectedClaims("agent.oidc", GATE, AGENTS), key.sign(claims_of(AGENTS, "desk-1"))

    def judge(asked: ExpectedClaims) -> OIDCToken:
        credential = OIDCToken(text)
        credential.returning = True
        proven(verified(credential, source, asked, time.time()))
        return credential

    judge(expected).keep()
    assert judge(expected).known
    assert not judge(replace(expected, what="user.oidc")).known
    assert not judge(replace(expected, algorithms=frozenset({"ES256"}))).known
    with pytest.raises(CredentialRefused, match="aud"):
        judge(replace(expected, audience="https://other.example"))
    with pytest.raises(CredentialRefused, match="iss"):
        judge(replace(expected, issuer="https://other.example"))
    assert len(verifications) == 5
    whole = OIDCToken(text)
    proven(verified(whole, source, expected, time.time()))  # by whoever does not say that it comes back
    assert (whole.known, len(verifications)) == (False, 6)


def test_what_proves_nothing_is_not_kept(desk: Desk) -> None:
    forged = Key("agents")
    source = source_of(desk)
    returned(desk, text_of(desk))
    for number in range(50):
        text = forged.sign(claims_of(AGENTS, f"desk-{number}", app="desk"))
        for _ in range(2):
            with pytest.raises(RunRefused):
                own_run(desk, text)
    good = text_of(desk, app="till")  # it is signed, and no workload of this workflow
    for _ in range(3):
        with pytest.raises(RunRefused):
            own_run(desk, good)
    assert [len(each) for each in source._set.verifications._of.values()] == [1]


def test_nobodys_credentials_push_out_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_of_issuers, "MAX_SUBJECTS", 3)
    kept = Verifications()
    kept.keep("honest", "own")
    for number in range(1000):
        kept.keep("flooding", number)
    assert kept.holds("honest", "own")
    assert [number for number in range(1000) if kept.holds("flooding", number)] == [996, 997, 998, 999]
    kept.keep("further", "own")
    assert kept.holds("honest", "own")
    kept.keep("one too many", "own")  # and there is room for who came back last
    assert [kept.holds(name, "own") for name in ("honest", "further", "one too many")] == [False, True, True]
    assert len(kept._of) == 3


def test_no_text_of_a_credential_is_kept(desk: Desk) -> None:
    text = text_of(desk)
    returned(desk, text)
    source = source_of(desk)
    assert text.rpartition(".")[2] not in repr(source._set.verifications._of)
