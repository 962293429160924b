"""How and when a user signed in (RFC 9470): a workflow that asks for it, over HTTP and in process, and a tool server that does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine

from agentgate import Agent, Allow, Deny, Gate, Reason, RunRefused, TokenRefused, User
from agentgate.errors import ConfigError, Refusal
from agentgate.integrations.asgi.received import challenged, of_token
from agentgate.integrations.client_key import ClientKey
from agentgate.integrations.redeemer import GateRedeemer
from agentgate.redemption.steps import VerifierSettings
from agentgate.token.dpop import DPoP
from agentgate.token.signing import SigningKey
from tests.authority import web
from tests.served import JWT, Process
from tests.served_notes import GATE, WORKFLOW, Notes, Place, a_place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.servers import as_tool_server
from tests.test_identity_door import ORDER, Desk
from tests.test_identity_door import WORKFLOW as REFUND

ASKED = "for_user: {acr: [mfa, phr], max_age: 15m}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with web() as pages:
        desk = Desk(pages, tmp_path)
        desk.gate.close()
        text = REFUND.partition("step_up:")[0].replace("groups: [support],", "groups: [support], acr: [mfa, phr], max_age: 15m,")
        (tmp_path / "w" / "refund.yaml").write_text(text)
        desk.gate = Gate.open_unsafe_unapproved(tmp_path / "w", **desk.given)
        yield desk
        desk.gate.close()


def signed_in(ago: int, acr: str | None = "mfa") -> dict[str, Any]:
    return {"auth_time": int(time.time()) - ago, **({"acr": acr} if acr is not None else {})}


def test_who_signed_in_so_and_lately_gets_a_token_that_says_it(desk: Desk) -> None:
    answer = desk.run(user=desk.user(**signed_in(890))).authorize("refund", ORDER)
    assert isinstance(answer, Allow)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (lambda: signed_in(10, "pwd"), ['acr_values="mfa phr"']),
        (lambda: signed_in(10, None), ['acr_values="mfa phr"']),
        (lambda: signed_in(910), ["max_age=900"]),
        (lambda: signed_in(-60), ["max_age=900"]),
        (lambda: {"acr": "mfa"}, ["max_age=900"]),
        (lambda: {"acr": "mfa", "auth_time": str(int(time.time()))}, ["max_age=900"]),
        (dict, ['acr_values="mfa phr"', "max_age=900"]),
    ],
    ids=["weaker", "unsaid", "long ago", "in the future", "no time", "a time as text", "nothing"],
)
def test_a_weak_or_old_sign_in_opens_no_run_and_is_told_what_would(desk: Desk, said: Any, expected: list[str]) -> None:
    with pytest.raises(RunRefused) as refused:
        desk.run(user=desk.user(**said()))
    assert {f.reason for f in refused.value.failures} == {Reason.AUTHENTICATION}
    assert [f.expected for f in refused.value.failures] == expected


def test_a_sign_in_that_gets_old_in_a_run_is_not_enough_until_the_user_signed_in_again(desk: Desk) -> None:
    run = desk.run(user=desk.user(life=3000, **signed_in(800)), agent=desk.agent(life=3000))
    with time_machine.travel(time.time() + 200, tick=True):
        denied = run.authorize("refund", ORDER)
        assert isinstance(denied, Deny)
        assert set(denied.reasons) == {Reason.AUTHENTICATION}
        with pytest.raises(RunRefused):
            run.renew(user=desk.user(**signed_in(910)))
        run.renew(user=desk.user(**signed_in(0)))
        assert isinstance(run.authorize("refund", ORDER), Allow)


def test_a_hosts_word_says_nothing_of_how_a_user_signed_in(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    text = REFUND.partition("step_up:")[0].replace(
        "{oidc: {issuer: https://agents.example, claims: {app: {is: desk}}}}", "{in_process: true}"
    )
    (tmp_path / "w" / "refund.yaml").write_text(text.replace("groups: [support],", "acr: [mfa],"))
    with Gate.open_unsafe_unapproved(tmp_path / "w", issuer=GATE, audit="memory://") as gate, pytest.raises(RunRefused) as refused:
        gate.open_run(
            "desk.refund", tenant="acme-eu", user=User("lee", tenant="acme-eu"), agent=Agent("host"), prompt="Please refund order ORD-1"
        )
    assert {f.reason for f in refused.value.failures} == {Reason.AUTHENTICATION}


# --- over HTTP -----------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    text = WORKFLOW.replace("id: desk.notes", "id: desk.signed-in").replace("{app: {is: notes}}}}}", "{app: {is: notes}}}}, " + ASKED + "}")
    with a_place(tmp_path_factory.mktemp("signed-in"), more=[text]) as made:
        yield made


def user(place: Place, **said: Any) -> str:
    return place.token(**{"sub": "lee", "app": "desk", "tenant": "acme", "groups": [], **said})


def opening(notes: Notes, subject: str) -> httpx.Response:
    agent = notes.place.token()
    proof = notes.asking.key.proof("POST", f"{GATE}/v1/runs", token=agent)
    of = {"client_id": "notes", "token": agent, "proof": proof}
    return notes.host.post("/v1/runs", {"workflow": "desk.signed-in", "prompt": "", "subject_token": subject, "agent": of})


def asked(notes: Notes, run: str, subject: str) -> httpx.Response:
    of = {"workflow": {"id": "desk.signed-in"}, "run": run}
    return notes.ask(subject_token=subject, actor_token=notes.place.token(), actor_token_type=JWT, of=of)


def test_the_error_is_that_of_rfc_9470_with_what_is_missing(place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    weak = opening(notes, user(place, **signed_in(10, "pwd")))
    assert error_of(weak) == (400, "insufficient_user_authentication")
    assert {name: weak.json().get(name) for name in ("acr_values", "max_age")} == {"acr_values": "mfa phr", "max_age": None}
    run = opening(notes, user(place, **signed_in(10))).json()["run"]
    old = asked(notes, run, user(place, **signed_in(901)))
    assert error_of(old) == (400, "insufficient_user_authentication")
    assert (old.json().get("acr_values"), old.json()["max_age"]) == (None, 900)
    both = asked(notes, run, user(place))
    assert (both.json()["acr_values"], both.json()["max_age"]) == ("mfa phr", 900)
    assert gate.log()[-1]["reasons"][0]["reason"] == "authentication"


def test_a_user_who_signed_in_again_goes_on_in_the_same_run_and_the_token_says_how(place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    run = opening(notes, user(place, **signed_in(600))).json()["run"]
    later = int(time.time())
    answer = asked(notes, run, user(place, acr="phr", auth_time=later))
    assert answer.status_code == 200, (answer.text, gate.log()[-1])
    redeemed = notes.server.redeem(answer.json()["access_token"], "notes.write", {"text": "hello"}, notes.asking.key).json()
    assert (redeemed["acr"], redeemed["auth_time"]) == ("phr", later)


# --- a tool server that asks for more than the workflow ------------------------------------------------------------------------
def test_a_tool_server_that_asks_for_more_burns_nothing(place: Place, gate: Process) -> None:
    from agentgate import Verifier

    notes = Notes(place, gate)
    run = opening(notes, user(place, **signed_in(600))).json()["run"]
    token = asked(notes, run, user(place, **signed_in(600))).json()["access_token"]
    url = "https://notes.acme.example/write"
    trusted: dict[str, Any] = {
        "issuer": GATE,
        "tenants": ["acme"],
        "audience": "https://notes.acme.example",
        "store": as_tool_server(place.store.url, "https://notes.acme.example"),
    }
    keys = gate.http.get("/oauth2/jwks").json()

    def redeemed(**more: Any) -> Any:
        proof = DPoP(notes.asking.key.proof("POST", url, token=token), method="POST", url=url)
        with closing(Verifier.open(keys, **trusted, audit=str(place.folder / "server"), **more)) as verifier:
            return verifier.redeem(token, tool="notes.write", args={"text": "hello"}, proof=proof)

    asking: list[tuple[dict[str, Any], str]] = [({"acr_values": ["phr"]}, 'acr_values="phr"'), ({"max_age": 300}, "max_age=300")]
    for wanted, expected in asking:
        with pytest.raises(TokenRefused) as refused:
            redeemed(**wanted)
        assert (refused.value.code, refused.value.expected) == (Refusal.AUTHENTICATION, expected)
        answer = challenged(of_token(refused.value), scheme="Bearer", scope="", metadata="https://a.example/m")
        assert f", {expected}, " in answer.headers["WWW-Authenticate"]
    assert redeemed(acr_values=["mfa", "phr"], max_age=900).claims.acr == "mfa"


async def test_so_does_one_that_redeems_at_its_gate(place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    run = opening(notes, user(place, **signed_in(600))).json()["run"]
    token = asked(notes, run, user(place, **signed_in(600))).json()["access_token"]
    key, url = ClientKey("server", SigningKey.generate()), "https://notes.acme.example/write"
    redeemer = await GateRedeemer(GATE, key, tenants=["acme"], audience=url[:-6], address=gate.base, acr_values=["phr"]).open()
    proof = DPoP(notes.asking.key.proof("POST", url, token=token), method="POST", url=url)
    with pytest.raises(TokenRefused) as refused:
        await redeemer.redeem(token, tool="notes.write", args={"text": "hello"}, proof=proof)
    await redeemer.close()
    assert (refused.value.code, refused.value.expected) == (Refusal.AUTHENTICATION, 'acr_values="phr"')
    assert notes.server.redeem(token, "notes.write", {"text": "hello"}, notes.asking.key).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("acr_values", "mfa"),
        ("acr_values", ['a" b']),
        ("acr_values", ["a b"]),
        ("acr_values", ['a"b']),
        ("acr_values", [""]),
        ("acr_values", [7]),
        ("acr_values", [("mfa",)]),
        ("max_age", 0),
        ("max_age", "900"),
        ("max_age", True),
        ("tenants", [7]),
        ("tenants", [("acme",)]),
        ("tenants", ["acme", None]),
    ],
)
def test_a_requirement_of_another_form_opens_no_verifier(name: str, value: Any) -> None:
    given: dict[str, Any] = {"issuer": GATE, "tenants": ["acme"], "audience": "https://a.example", "store": "redis://a", "audit": "/a"}
    with pytest.raises(ConfigError, match=name):
        VerifierSettings({}, **{**given, name: value})


def test_a_challenge_names_what_is_missing() -> None:
    wording = 'another", scope="all'  # which no header repeats
    refused = of_token(TokenRefused(Refusal.AUTHENTICATION, "acr", "'pwd'", wording, acr_values="mfa phr"))
    answer = challenged(refused, scheme="Bearer", scope="x", metadata="https://a.example/m")
    expected = 'Bearer error="insufficient_user_authentication", acr_values="mfa phr", resource_metadata="https://a.example/m"'
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, expected)
    old = of_token(TokenRefused(Refusal.AUTHENTICATION, "auth_time", "None", wording, max_age=900))
    assert ", max_age=900, " in challenged(old, scheme="DPoP", scope="", metadata="https://a.example/m").headers["WWW-Authenticate"]
