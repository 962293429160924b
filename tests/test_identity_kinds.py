"""One kind of signed text is no other: what proves a person proves no workload, and what was signed for something else proves nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agentgate import OIDCToken
from agentgate.errors import ConfigError, CredentialRefused
from agentgate.identity.door import Identities
from agentgate.identity.settings import IdentitySettings
from agentgate.service.exchange import user_credential
from tests.authority import GATE, Key, Web, claims_of, proven, web
from tests.founding import JOB
from tests.preloaded import run
from tests.served import toml
from tests.served_notes import LOGIN, NOTES, Notes, Place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import notes as notes  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.test_service_gitlab import JOB as GITLAB_JOB

ISSUER = "https://login.example"
KEY = Key("login")
SERVICE: dict[str, Any] = {"gty": "service"}  # what tells this issuer's services from its people


@pytest.fixture(scope="module")
def served() -> Iterator[Web]:
    with web() as made:
        made.publish("/keys", KEY)
        yield made


def settings(served: Web, **more: Any) -> dict[str, Any]:
    common = {"issuer": ISSUER, "keys": served.url + "/keys", "private_addresses": True, "audience": GATE, "tenants": ["acme"]}
    made = {**common, "user": {"tenant": "tenant"}, "agent": {"required": SERVICE}, **more}
    return {name: value for name, value in made.items() if value is not None}


def identities(served: Web, **more: Any) -> Identities:
    return Identities(IdentitySettings.of({"issuers": {"login": settings(served, **more)}}))


def token(header: dict[str, Any] | None = None, **more: Any) -> str:
    said = {**claims_of(ISSUER, "someone"), **more}
    return KEY.sign({name: value for name, value in said.items() if value is not ...}, **(header or {}))


def agent(who: Identities, text: str) -> Any:
    return proven(who.agent(OIDCToken(text), "acme", None, time.time())).who


def user(who: Identities, text: str) -> Any:
    return proven(who.user(OIDCToken(text), time.time())).who


# --- a person's token is no workload ------------------------------------------------------------------------------------------
SIGN_IN: dict[str, dict[str, Any]] = {
    "an ID token": {"nonce": "n-0S6", "auth_time": 1_700_000_000, "groups": ["leads"]},
    "asked for with a nonce": {"nonce": "n-0S6"},
    "an empty nonce": {"nonce": ""},
    "somebody logged in": {"auth_time": 1_700_000_000},
    "with a password": {"amr": ["pwd"]},
    "the digest of an access token": {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "the digest of a code": {"c_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "the digest of a state": {"s_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "a session": {"sid": "08a5019c"},
    "a session, as Keycloak called it": {"session_state": "08a5019c"},
    "an access token of a login": {"azp": "desk", "scope": "openid calls"},
    "scopes as a list": {"scp": ["calls", "openid"]},
    "Keycloak's ID token": {"typ": "ID"},
    "Cognito's ID token": {"token_use": "id"},
    "Entra's token of a user": {"idtyp": "user"},
    "Entra's first version": {"upn": "lee@acme.example", "unique_name": "lee@acme.example", "scp": "calls"},
    "Google's button, which asks for no nonce": {"azp": "1178", "email": "lee@acme.example", "hd": "acme.example", "picture": "https://x"},
    "somebody's first name": {"given_name": "Lee"},
    "somebody's last name": {"family_name": "Mun"},
    "Auth0, with a password": {"gty": "password"},
}


@pytest.mark.parametrize("marks", SIGN_IN)
@pytest.mark.parametrize("blocks", [{}, {"user": None, "agent": {}}], ids=["beside users", "of services alone"])
def test_what_shows_that_a_person_signed_in_is_no_agent(served: Web, marks: str, blocks: dict[str, Any]) -> None:
    who = identities(served, **blocks)
    with pytest.raises(CredentialRefused, match=r"agent\.oidc"):
        agent(who, token(**{**SERVICE, **SIGN_IN[marks]}))


@pytest.mark.parametrize("marks", ["asked for with a nonce", "somebody logged in", "a session"])
@pytest.mark.parametrize("job", ["github", "gitlab"])
def test_nor_a_job_of_an_issuer_that_people_log_in_at_too(served: Web, job: str, marks: str) -> None:
    said = {**(JOB if job == "github" else GITLAB_JOB), "sub": "job"}
    who = identities(served, shape=job, user=None, agent=None)
    assert agent(who, token(**said)).subject == "job"
    with pytest.raises(CredentialRefused, match=r"agent\.oidc"):
        agent(who, token(**said, **SIGN_IN[marks]))


@pytest.mark.parametrize(
    "claims",
    [
        {"azp": "sync", "acr": "1", "typ": "Bearer", "scope": "email profile", "preferred_username": "service-account-sync"},  # Keycloak
        {"idtyp": "app", "azp": "5f1c", "azpacr": "2", "oid": "5f1c", "roles": ["calls"]},  # Entra ID
        {"gty": "client-credentials", "azp": "sync", "scope": "calls"},  # Auth0
        {"azp": "1178", "email": "sync@acme.iam.gserviceaccount.com", "email_verified": True},  # Google Cloud
        {"kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "sync", "uid": "5f1c"}}},
        {"client_id": "sync", "scope": "calls", "cid": "sync", "scp": ["calls"]},  # RFC 9068, Okta
        {"azp": "5f1c", "appid": "5f1c", "oid": "5f1c", "xms_mirid": "/subscriptions/1", "ver": "1.0"},  # a managed identity of Entra ID
        {"aud": [GATE], "kubernetes.io": {"pod": {"name": "a", "uid": "b"}}, "nbf": 1_700_000_000},  # as a pod has it
        {"https://sts.amazonaws.com/": {"aws_account": "123456789012", "principal_id": "arn:aws:iam::123456789012:role/sync"}},
        {"client_id": "sync", "clientHost": "10.0.0.1", "clientAddress": "10.0.0.1", "azp": "sync", "acr": "1"},  # Keycloak 25
        {"namespace": "root", "azp": "sync", "groups": ["calls"]},  # Vault's identity tokens
    ],
    ids=["keycloak", "entra", "auth0", "google", "kubernetes", "rfc9068", "azure", "pod", "aws", "keycloak25", "vault"],
)
def test_services_are_agents_as_the_usual_servers_tell_of_them(served: Web, claims: dict[str, Any]) -> None:
    assert agent(identities(served, user=None, agent={}), token(**claims)).id == "someone"


# --- one issuer of users and agents ------------------------------------------------------------------------------------------------
def test_an_issuer_of_both_says_how_its_agents_are_told_from_its_users(served: Web) -> None:
    alike: list[dict[str, Any]] = [{}, {"id": "client_id"}, {"required": {}}, {"audience": GATE}]
    for each in alike:
        with pytest.raises(ConfigError) as refused:
            identities(served, agent=each)
        assert refused.value.setting == "identity.issuers.login.agent.required"
        assert "idtyp" in refused.value.expected
        assert "agent.audience" in refused.value.expected
    with pytest.raises(ConfigError, match=r"agent\.required"):
        identities(served, audience=[GATE, "agents"], agent={"audience": "agents"})


@pytest.mark.parametrize("apart", [{"required": SERVICE}, {"audience": "agents"}], ids=str)
def test_each_token_is_of_one_of_the_two(served: Web, apart: dict[str, Any]) -> None:
    who = identities(served, agent=apart)
    of_agent = token(**SERVICE, tenant="acme", aud="agents" if "audience" in apart else GATE)
    of_user = token(tenant="acme")
    assert agent(who, of_agent).id == user(who, of_user).id == "someone"
    with pytest.raises(CredentialRefused, match=r"user\.oidc"):
        user(who, of_agent)
    for wrong in (of_user, token(tenant="acme", gty="person"), token(tenant="acme", gty=["service"])):
        with pytest.raises(CredentialRefused, match=r"agent\.oidc"):
            agent(who, wrong)


@pytest.mark.parametrize(
    "claims",
    [
        {"idtyp": "app"},
        {"gty": "client-credentials"},
        {"clientHost": "10.0.0.1", "preferred_username": "service-account-sync"},
        {"clientAddress": "10.0.0.1"},
        {"kubernetes.io": {"namespace": "prod"}},
        {"client_id": "someone"},  # RFC 9068 section 2.2: no person was there
        {"azp": "someone"},
        {"cid": "someone"},
    ],
    ids=str,
)
def test_what_says_that_it_is_a_services_is_no_user(served: Web, claims: dict[str, Any]) -> None:
    who = identities(served, agent=None)
    assert user(who, token(tenant="acme", client_id="desk", azp="desk", cid="desk")).id == "someone"
    with pytest.raises(CredentialRefused, match=r"user\.oidc"):
        user(who, token(tenant="acme", **claims))


# --- other types --------------------------------------------------------------------------------------------------------------
OTHER_TYPES = (
    *("logout+jwt", "secevent+jwt", "dpop+jwt", "client-authentication+jwt", "token-introspection+jwt", "oauth-authz-req+jwt"),
    *("JARM+jwt", "vc+sd-jwt", "dc+sd-jwt", "kb+jwt", "JOSE", "entity-statement+jwt", "oauth-id-jag+jwt", "agentgate-key-rotation+jwt"),
)


@pytest.mark.parametrize("typ", OTHER_TYPES)
def test_a_text_of_another_type_is_nobody(served: Web, typ: str) -> None:
    who = identities(served)
    for spelled in (typ, f"application/{typ}", typ.upper()):
        for claims, prove in ((SERVICE, agent), ({"tenant": "acme"}, user)):
            with pytest.raises(CredentialRefused, match="typ"):
                prove(who, token({"typ": spelled}, **claims))


OTHERS: dict[str, dict[str, Any]] = {
    "a logout token": {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    "a security event": {"events": {}, "txn": "1"},
    "a security event about somebody": {"sub_id": {"format": "email", "email": "lee@acme.example"}},
    "an answer to an introspection": {"token_introspection": {"active": True}},
    "a verifiable credential": {"vc": {}},
    "a request to an authorization endpoint": {"response_type": "code"},
    "a proof of a key": {"htm": "POST", "htu": f"{GATE}/oauth2/token"},
    "a client's assertion": {"sub": ISSUER},
    "a call token": {"act": {"sub": "agent"}},
    "a hop": {"act": {"sub": "agent", "act": {"sub": "broker"}}},
    "Keycloak's refresh token": {"typ": "Refresh"},
    "Keycloak's offline token": {"typ": "Offline"},
    "Keycloak's logout token": {"typ": "Logout"},
    "an SVID": {"sub": "spiffe://acme.example/ns/a/sa/b"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_text_that_was_signed_for_something_else_is_nobody_under_a_usual_type(served: Web, other: str) -> None:
    who = identities(served)
    for claims, prove in ((SERVICE, agent), ({"tenant": "acme"}, user)):
        with pytest.raises(CredentialRefused, match="oidc"):
            prove(who, token(**{**claims, **OTHERS[other]}))


def test_an_attestors_statement_is_no_workload(served: Web) -> None:
    """By one issuer for one audience, the statement about a workload and the workload's own token look alike."""
    attestor = {"issuer": ISSUER, "keys": served.url + "/keys", "private_addresses": True, "clusters": ["c"]}
    for audience in (GATE, "agents"):
        with pytest.raises(ConfigError, match="attestors"):
            IdentitySettings.of(
                {
                    "issuers": {"login": settings(served, audience=[GATE, "other"], agent={"required": SERVICE, "audience": "agents"})},
                    "attestors": {"nodes": {**attestor, "audience": audience}},
                }
            )
    IdentitySettings.of({"issuers": {"login": settings(served)}, "attestors": {"nodes": {**attestor, "audience": "attestations"}}})


# --- what the request says that it is ---------------------------------------------------------------------------------------------
TYPE = "urn:ietf:params:oauth:token-type:"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("id_token", token({"typ": "at+jwt"})),
        ("id_token", token({"typ": "application/AT+JWT"})),
        ("access_token", token(nonce="n")),
        ("access_token", token(at_hash="h")),
        ("access_token", token(c_hash="h")),
        ("access_token", token(s_hash="h")),
    ],
    ids=["an access token", "an access token, spelled out", "an ID token", "one with at_hash", "one with c_hash", "one with s_hash"],
)
def test_a_token_is_of_the_type_that_the_request_names(kind: str, text: str) -> None:
    with pytest.raises(CredentialRefused, match="subject_token_type"):
        user_credential(text, TYPE + kind)
    assert user_credential(text, TYPE + "jwt").reveal() == text


# --- over HTTP --------------------------------------------------------------------------------------------------------------------
def person(place: Place, **more: Any) -> str:
    return place.login.sign({**claims_of(LOGIN, "lee", place.issuer), "tenant": "acme", "groups": [], **more})


def opened(notes: Notes, subject: str, **more: Any) -> httpx.Response:
    agent = notes.place.token()
    proof = notes.asking.key.proof("POST", f"{GATE}/v1/runs", token=agent)
    of = {"client_id": "notes", "token": agent, "proof": proof}
    return notes.host.post("/v1/runs", {"workflow": "desk.notes", "prompt": "", "subject_token": subject, "agent": of, **more})


def field_of(notes: Notes) -> str:
    return str(notes.gate.log()[-1]["reasons"][0]["field"])


def test_what_is_no_agents_credential_is_exchanged_for_nothing(notes: Notes, place: Place) -> None:
    assert notes.ask().status_code == 200
    call_token = notes.ask("again").json()["access_token"]
    shown = {
        "nonce": person(place, app="notes", nonce="n-0S6", auth_time=1),
        "app": person(place),
        "iss": notes.client.assertion(),
        "agent.oidc.iss": call_token,
        "typ": place.login.sign(claims_of(LOGIN, "notes-service", app="notes"), typ="logout+jwt"),
        "header": notes.asking.key.proof("POST", f"{GATE}/oauth2/token"),
    }
    for field, text in shown.items():
        answer = notes.ask("other", subject_token=text)
        assert error_of(answer)[1] in {"invalid_request", "invalid_client"}, (field, answer.text)
        assert field_of(notes).endswith(field), (field, field_of(notes))


def test_the_type_that_a_request_names_is_the_tokens(notes: Notes, place: Place) -> None:
    access = place.login.sign({**claims_of(LOGIN, "notes-service"), "app": "notes"}, typ="at+jwt")
    assert error_of(notes.ask(subject_token=access, subject_token_type=TYPE + "id_token")) == (400, "invalid_request")
    assert field_of(notes) == "subject_token_type"
    assert notes.ask("typed", subject_token=access, subject_token_type=TYPE + "access_token").status_code == 200
    for user in (person(place, nonce="n"), person(place, at_hash="h")):
        of = {"actor_token": access, "actor_token_type": TYPE + "jwt", "subject_token_type": TYPE + "access_token", "of": {"run": "r"}}
        assert error_of(notes.ask(subject_token=user, **of)) == (400, "invalid_request")
        assert field_of(notes) == "subject_token_type"


def test_nothing_but_a_persons_token_opens_a_run_for_a_person(notes: Notes, place: Place) -> None:
    spiffe = person(place, sub="spiffe://acme.example/ns/a/sa/b")
    for text in (place.token(tenant="acme"), notes.client.assertion(), notes.host.assertion(), spiffe, notes.ask().json()["access_token"]):
        assert error_of(opened(notes, text)) == (400, "invalid_request")
        assert field_of(notes).startswith("user.oidc"), field_of(notes)


def test_a_persons_token_is_no_hosts_credential(notes: Notes, place: Place) -> None:
    for text in (person(place), person(place, sub="desk"), place.login.sign(claims_of("desk", "desk", place.issuer)), place.token()):
        answer = notes.gate.http.post("/v1/runs", json={}, headers={"Authorization": f"Bearer {text}"})
        assert error_of(answer) == (401, "invalid_client")


@pytest.mark.parametrize("name", ["audience", "resource"])
def test_a_target_that_is_not_the_tools_is_refused(notes: Notes, name: str) -> None:
    assert notes.ask(f"for {name}", **{name: NOTES}).status_code == 200
    for other in (GATE, "https://evil.example", NOTES + "/", "notes"):
        assert error_of(notes.ask("elsewhere", **{name: other})) == (400, "invalid_target")
        assert error_of(notes.ask("elsewhere", **{"resource": NOTES, "audience": NOTES, name: other})) == (400, "invalid_target")


UNSUPPORTED = ("client_secret", "refresh_token", "code", "username", "assertion", "dpop_jkt", "request", "claims", "requested_issuer")


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_parameter_of_another_grant_is_not_ignored(notes: Notes, name: str) -> None:
    answer = notes.ask("more", **{name: "x"})
    assert error_of(answer) == (400, "invalid_request")
    assert answer.json()["error_description"].startswith(f"{name}: expected none")
    assert notes.ask("more", some_extension="x").status_code == 200, "RFC 6749 section 3.2: what nobody knows is ignored"


@pytest.mark.parametrize("name", ["authorization_details", "audience", "resource", "scope", "client_secret"])
def test_nor_when_the_token_is_asked_for_again(notes: Notes, name: str) -> None:
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:deferred", "deferral_code": "x.acme", name: "x", **notes.client.asserted()}
    answer = notes.gate.http.post("/oauth2/token", data=form, headers=notes.asking.proof())
    assert answer.json()["error_description"].startswith(f"{name}: expected none")


def test_a_gate_that_cannot_tell_agents_from_users_does_not_start(place: Place) -> None:
    issuers = {"login": {**place.settings["identity"]["issuers"]["login"], "agent": {}}}
    (file := place.folder / "alike.toml").write_text(toml({**place.settings, "identity": {"issuers": issuers}}))
    for words in (["--check"], []):
        done = run("serve", "--settings", str(file), *words)
        assert done.returncode == 1
        assert "'identity.issuers.login.agent.required'" in done.stderr
        assert "idtyp" in done.stderr


@pytest.mark.parametrize("other", [name for name, claims in OTHERS.items() if not {"sub", "typ"} & claims.keys()])
def test_what_a_client_signed_for_something_else_is_no_assertion_of_it(notes: Notes, other: str) -> None:
    """A broker's hop without a user has its own name as `iss` and `sub`, is for the gate, and is in the hands of whoever comes next."""
    assert notes.ask().status_code == 200
    for typ in ("JWT", "client-authentication+jwt"):
        text = notes.client.key.sign({**claims_of("notes", "notes", GATE, life=60), **OTHERS[other]}, typ=typ)
        assert error_of(notes.ask(client_assertion=text)) == (401, "invalid_client")
        bearer = {"Authorization": f"Bearer {text}"}
        assert error_of(notes.gate.http.post("/access/v1/evaluation", json={}, headers=bearer)) == (401, "invalid_client")
