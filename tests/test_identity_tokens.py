"""JWTs of configured issuers: what they prove, and every way in which one that was made up, altered or meant for others proves nothing."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate import OIDCToken
from agentgate.errors import ConfigError, CredentialRefused, KeysUnavailable
from agentgate.identity.door import Identities
from agentgate.identity.keys import KeySource
from agentgate.identity.settings import IdentitySettings
from agentgate.identity.signed import ExpectedClaims, verified
from agentgate.token.dpop import DPoP
from agentgate.values.request import Agent
from tests.authority import GATE, Authority, Key, Web, b64, claims_of, now, proven, web
from tests.founding import JOB

ISSUER = "https://issuer.example"
RSA, EC = Key("rsa", "RS256"), Key("ec")


class Issuer:
    """One issuer of users and agents with two keys, and what a gate believes of it."""

    def __init__(self, served: Web, **more: Any) -> None:
        self.settings = {
            "issuer": ISSUER,
            "keys": served.publish("/keys", RSA, EC),
            "private_addresses": True,
            "audience": GATE,
            "tenants": ["acme", "other"],
            "user": {"tenant": "tenant", "groups": ["realm", "roles"]},
            "agent": {},
            **more,
        }
        self.identities, self.people = self._proving("agent", "user"), self._proving("user", "agent")

    def _proving(self, block: str, other: str) -> Identities:
        """By this block of the two alone: a token of these tests is of either."""
        kept = {**self.settings, other: None} if self.settings[block] is not None else self.settings
        return Identities(IdentitySettings.of({"issuers": {"it": kept}}))

    def agent(self, text: str, tenant: str = "acme", **more: Any) -> Agent:
        return proven(self.identities.agent(OIDCToken(text, **more), tenant, None, time.time())).who  # type: ignore[no-any-return]  # an Agent

    def user(self, text: str) -> Any:
        return proven(self.people.user(OIDCToken(text), time.time()))


@pytest.fixture(scope="module")
def served() -> Iterator[Web]:
    with web() as made:
        yield made


@pytest.fixture(scope="module")
def issuer(served: Web) -> Issuer:
    return Issuer(served)


def said(**more: Any) -> dict[str, Any]:
    made = {**claims_of(ISSUER, "svc-1"), **more}
    return {name: value for name, value in made.items() if value is not ...}


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_tokens_of_a_real_authorization_server_prove_users_and_services(served: Web, alg: str) -> None:
    authority = Authority(served, "https://login.example", alg=alg, path=f"/{alg}")
    settings = {"issuer": authority.issuer, "keys": authority.keys_url, "user": {"tenant": "tenant", "groups": "groups"}}
    issuer = Issuer(served, **settings)
    user = issuer.user(authority.of_user("lee", tenant="acme", groups=["support"], amr=["pwd"]))
    assert (user.who.id, user.who.tenant, user.who.groups, user.who.amr) == ("lee", "acme", ("support",), ("pwd",))
    assert user.who.identity == "proven"
    assert 0 < user.expires_at - time.time() <= 600
    assert user.once
    agent = issuer.agent(authority.of_client("sync"))
    assert (agent.id, agent.issuer, agent.identity) == ("sync", authority.issuer, "proven")


def test_claims_become_id_tenant_and_groups_by_configuration(served: Web) -> None:
    mapped = {"id": "email", "tenant": "tid", "groups": ["realm", "roles"], "tenants": {"guid-1": "acme"}}
    issuer = Issuer(served, user=mapped)
    user = issuer.user(EC.sign(said(email="lee@acme.example", tid="guid-1", realm={"roles": ["a", "b"]}))).who
    assert (user.id, user.tenant, user.groups, user.subject) == ("lee@acme.example", "acme", ("a", "b"), "svc-1")
    for bad in ({"tid": "acme"}, {"tid": "guid-2"}, {"tid": ["guid-1"]}, {"email": ""}, {"email": ["lee"]}, {"email": "lee\u202e"}):
        with pytest.raises(CredentialRefused):
            issuer.user(EC.sign(said(**{"email": "lee@acme.example", "tid": "guid-1", **bad})))


@pytest.mark.parametrize("groups", ["admins", {"admins": 1}, ["a", 1], [["a"]], ["a"] * 501, ["a\u200b"]], ids=repr)
def test_groups_that_are_no_list_of_names_are_refused(issuer: Issuer, groups: Any) -> None:
    with pytest.raises(CredentialRefused, match="groups"):
        issuer.user(EC.sign(said(tenant="acme", realm={"roles": groups})))


# --- attacks ------------------------------------------------------------------------------------------------------------------
def hs256(kid: str, key: bytes, **header: Any) -> str:
    signed = f"{b64(json.dumps({'alg': 'HS256', 'kid': kid, 'typ': 'JWT', **header}).encode())}.{b64(json.dumps(said()).encode())}"
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), 'sha256'))}"


def header(**more: Any) -> dict[str, Any]:
    return {"alg": "ES256", "kid": "ec", "typ": "JWT", **more}


MINE = Key("ec")  # the attacker's, under the issuer's name


def with_header(text: str) -> str:
    return ".".join([b64(text.encode()), *EC.sign(said()).split(".")[1:]])


def with_payload(text: str) -> str:
    head, _, signature = EC.sign(said()).split(".")
    return f"{head}.{b64(text.encode())}.{signature}"


ATTACKS: dict[str, tuple[Callable[[], str], str]] = {
    "HS256 with the public key as secret": (lambda: hs256("rsa", RSA.pem), "alg"),
    "HS256 with the public JWK as secret": (lambda: hs256("ec", json.dumps(EC.jwk).encode()), "alg"),
    "no algorithm": (lambda: f"{b64(json.dumps(header(alg='none')).encode())}.{b64(json.dumps(said()).encode())}.", "got"),
    "no algorithm, with a signature": (lambda: EC.sign_raw(header(alg="none"), json.dumps(said())), "oidc.alg: got 'none'"),
    "no algorithm, in other letters": (lambda: EC.sign_raw(header(alg="nOnE"), json.dumps(said())), "alg"),
    "another algorithm of the same key": (lambda: jwt.encode(said(), RSA.private, "PS256", headers={"kid": "rsa"}), "alg"),
    "RS512 with a key for RS256": (lambda: jwt.encode(said(), RSA.private, "RS512", headers={"kid": "rsa"}), "alg"),
    "the algorithm of another key": (lambda: EC.sign_raw(header(kid="rsa"), json.dumps(said())), "alg"),
    "a key in the header": (lambda: MINE.sign(said(), jwk=MINE.jwk), "header"),
    "a key set in the header": (lambda: MINE.sign(said(), jku="https://evil.example/jwks"), "header"),
    "a certificate's address in the header": (lambda: MINE.sign(said(), x5u="https://evil.example/c"), "header"),
    "a certificate in the header": (lambda: MINE.sign(said(), x5c=["AAAA"]), "header"),
    "a critical extension": (lambda: EC.sign_raw(header(crit=["exp"], exp=1), json.dumps(said())), "header"),
    "an unencoded payload": (lambda: EC.sign_raw(header(b64=False, crit=["b64"]), json.dumps(said())), "header"),
    "a compressed payload": (lambda: EC.sign_raw(header(zip="DEF"), json.dumps(said())), "header"),
    "another key under the same name": (lambda: MINE.sign(said()), "signature"),
    "no name of a key": (lambda: EC.sign_raw({"alg": "ES256", "typ": "JWT"}, json.dumps(said())), "kid"),
    "a name that is a number": (lambda: EC.sign_raw(header(kid=7), json.dumps(said())), "kid"),
    "a name that is a list": (lambda: EC.sign_raw(header(kid=["ec"]), json.dumps(said())), "kid"),
    "a type that is a number": (lambda: EC.sign_raw(header(typ=7), json.dumps(said())), "typ"),
    "an unknown key": (lambda: EC.sign_raw(header(kid="other"), json.dumps(said())), "kid"),
    "a path as the key's name": (lambda: EC.sign_raw(header(kid="../../dev/null"), json.dumps(said())), "kid"),
    "expired": (lambda: EC.sign(said(exp=now() - 6, iat=now() - 60)), "exp"),
    "issued in the future": (lambda: EC.sign(said(iat=now() + 60)), "iat"),
    "not valid yet": (lambda: EC.sign(said(nbf=now() + 60)), "oidc.nbf:"),
    "no expiry": (lambda: EC.sign(said(exp=...)), "oidc.exp: got 'none'"),
    "no issue time": (lambda: EC.sign(said(iat=...)), "oidc.iat: got 'none'"),
    "no subject": (lambda: EC.sign(said(sub=...)), "oidc.sub: got 'none'"),
    "a subject that is a number": (lambda: EC.sign_raw(header(), json.dumps(said(sub=7))), "sub"),
    "an empty subject": (lambda: EC.sign(said(sub="")), "oidc.sub: got 'empty'"),
    "an expiry as text": (lambda: EC.sign_raw(header(), json.dumps(said(exp=str(now() + 60)))), "exp"),
    "an expiry that never comes": (lambda: EC.sign_raw(header(), re.sub('"exp": [0-9]+', '"exp": 1e999', json.dumps(said()))), "exp"),
    "an expiry that no clock can tell": (lambda: EC.sign_raw(header(), json.dumps(said(exp=10**400))), "exp"),
    "an expiry that is no number": (lambda: EC.sign_raw(header(), re.sub('"exp": [0-9]+', '"exp": NaN', json.dumps(said()))), "claims"),
    "a start as text": (lambda: EC.sign_raw(header(), json.dumps(said(nbf=str(now() - 60)))), "nbf"),
    "a start that is true": (lambda: EC.sign_raw(header(), json.dumps(said(nbf=True))), "nbf"),
    "a start before 1970": (lambda: EC.sign(said(nbf=-1)), "nbf"),
    "an end at its issue": (lambda: EC.sign(said(exp=now(), iat=now())), "lifetime"),
    "an end before its issue": (lambda: EC.sign(said(exp=now() - 2, iat=now())), "lifetime"),
    "an id that is a number": (lambda: EC.sign_raw(header(), json.dumps(said(jti=7))), "jti"),
    "an expiry that is true": (lambda: EC.sign_raw(header(), json.dumps(said(exp=True))), "exp"),
    "a lifetime of two days": (lambda: EC.sign(said(exp=now() + 2 * 86400)), "exp"),
    "for another audience": (lambda: EC.sign(said(aud="https://other.example")), "aud"),
    "for an audience that begins alike": (lambda: EC.sign(said(aud=GATE + ".evil.example")), "aud"),
    "for this audience and another": (lambda: EC.sign(said(aud=[GATE, "https://other.example"])), "aud"),
    "for no audience": (lambda: EC.sign(said(aud=...)), "oidc.aud: got 'none'"),
    "for an empty list": (lambda: EC.sign(said(aud=[])), "aud"),
    "by another issuer": (lambda: EC.sign(said(iss="https://evil.example")), "iss"),
    "by the issuer with a slash": (lambda: EC.sign(said(iss=ISSUER + "/")), "iss"),
    "by a list of issuers": (lambda: EC.sign_raw(header(), json.dumps(said(iss=[ISSUER]))), "iss"),
    "a claim twice": (lambda: EC.sign_raw(header(), json.dumps(said())[:-1] + ', "sub": "admin"}'), "claims"),
    "a claim twice inside": (
        lambda: EC.sign_raw(header(), json.dumps(said())[:-1] + ', "o": {"a": [], "a": ["admin"]}}'),
        "claims",
    ),
    "a header member twice": (
        lambda: with_header(json.dumps(header())[:-1] + ', "alg": "none"}'),
        "header",
    ),
    "another type of token": (lambda: EC.sign(said(), typ="logout+jwt"), "typ"),
    "a proof as a token": (lambda: EC.sign(said(), typ="dpop+jwt"), "typ"),
    "somebody acts in it": (lambda: EC.sign(said(act={"sub": "broker"})), "act"),
    "somebody may act in it": (lambda: EC.sign(said(may_act={"sub": "broker"})), "may_act"),
    "a claim changed": (lambda: with_payload(json.dumps(said(sub="admin"))), "signature"),
    "padding": (lambda: EC.sign(said()) + "=", "base64url"),
    "nothing": (lambda: "", "parts"),
    "four parts": (lambda: EC.sign(said()) + ".x", "parts"),
    "too long": (lambda: EC.sign(said(more="x" * 20_000)), "characters"),
    "no text of a token": (lambda: "ö.ö.ö", "ASCII"),
    "JSON instead": (lambda: json.dumps(said()), "parts"),
    "a payload that is a list": (lambda: EC.sign_raw(header(), "[1]"), "claims"),
    "a payload nested without end": (lambda: EC.sign_raw(header(), "[" * 6_000 + "]" * 6_000), "claims"),
    "a confirmation nobody knows": (lambda: EC.sign(said(cnf={"kid": "x"})), "cnf"),
    "a confirmation that is text": (lambda: EC.sign(said(cnf="x")), "cnf"),
    "a confirmation by no key": (lambda: EC.sign(said(cnf={"jkt": None})), "cnf"),
    "a confirmation by an empty certificate": (lambda: EC.sign(said(cnf={"x5t#S256": ""})), "cnf"),
    "bound to a key that is not shown": (lambda: EC.sign(said(cnf={"jkt": EC.thumbprint})), "proof"),
    "bound to a certificate that is not shown": (lambda: EC.sign(said(cnf={"x5t#S256": "AAAA"})), "cnf"),
}


def test_of_several_audiences_a_token_is_for_exactly_one(served: Web) -> None:
    both = Issuer(served, audience=[GATE, "agentgate"])
    for aud in (GATE, "agentgate", ["agentgate"]):
        assert both.agent(EC.sign(said(aud=aud))).subject == said()["sub"]
    for aud in ([GATE, "agentgate"], [GATE, GATE], ["agentgate", "https://other.example"], "https://other.example", GATE + "agentgate"):
        with pytest.raises(CredentialRefused, match="aud") as refused:
            both.agent(EC.sign(said(aud=aud)))
        assert refused.value.expected.startswith(f"{GATE} or agentgate")
    for wrong in ([], [""], [7]):
        with pytest.raises(ConfigError, match="audience"):
            Issuer(served, audience=wrong)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_token_that_proves_nothing(issuer: Issuer, attack: str) -> None:
    made, field = ATTACKS[attack]
    text = made()
    with pytest.raises(CredentialRefused) as refused:
        issuer.agent(text)
    assert not isinstance(refused.value, KeysUnavailable)
    assert field in str(refused.value), str(refused.value)
    assert str(refused.value).isascii()
    assert text not in str(refused.value) or not text


@pytest.mark.parametrize(
    ("claims", "field"),
    [
        ({"aud": ...}, "aud"),
        ({"aud": "https://other.example"}, "aud"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"sub": 7}, "sub"),
        ({"sub": ["admin"]}, "sub"),
        ({"jti": 7}, "jti"),
        ({"iat": 4_000_000_000, "exp": 4_000_000_600}, "iat"),
        ({"nbf": 4_000_000_000}, "nbf"),
        ({"iat": 1_700_000_000, "exp": 1_700_000_600}, "exp"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_claim_that_a_kind_of_credential_forgot_to_require_is_judged_where_it_is_said(
    served: Web, claims: dict[str, Any], field: str
) -> None:
    source = KeySource(served.publish("/keys", RSA, EC), private=True)
    expected = ExpectedClaims("kind", GATE, ISSUER, required=("exp",))
    text = EC.sign_raw(header(), json.dumps(said(**claims)))
    assert proven(verified(OIDCToken(EC.sign(said())), source, expected, time.time()))["sub"] == "svc-1"
    with pytest.raises(CredentialRefused, match=rf"kind\.{field}"):
        proven(verified(OIDCToken(text), source, expected, time.time()))


@given(st.integers(0, 10_000), st.integers(1, 63))
def test_no_character_of_a_token_can_be_another(issuer: Issuer, place: int, by: int) -> None:
    text = EC.sign(said())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place %= len(text)
    if text[place] != ".":
        changed = text[:place] + alphabet[(alphabet.index(text[place]) + by) % 64] + text[place + 1 :]
        with pytest.raises(CredentialRefused):
            issuer.agent(changed)


def test_an_honest_token_of_each_key_is_accepted(issuer: Issuer) -> None:
    for key in (RSA, EC):
        assert issuer.agent(key.sign(said(aud=[GATE]))).id == "svc-1"


def test_an_issuer_speaks_for_its_own_tenants_and_kinds_only(served: Web, issuer: Issuer) -> None:
    with pytest.raises(CredentialRefused, match="an issuer of acme, other"):
        issuer.agent(EC.sign(said()), tenant="stranger")
    with pytest.raises(CredentialRefused, match="tenant"):
        issuer.user(EC.sign(said(tenant="stranger")))
    people, services = Issuer(served, agent=None), Issuer(served, user=None)
    with pytest.raises(CredentialRefused, match="an issuer that proves agents"):
        people.agent(EC.sign(said()))
    with pytest.raises(CredentialRefused, match="an issuer that proves users"):
        services.user(EC.sign(said(tenant="acme")))


def test_required_claims_and_algorithms_narrow(served: Web) -> None:
    narrow = Issuer(served, required={"hd": "acme.example"}, algorithms=["ES256"], max_lifetime=700)
    assert narrow.agent(EC.sign(said(hd="acme.example"))).id == "svc-1"
    long = EC.sign(said(hd="acme.example", exp=now() + 800))
    other = (EC.sign(said(hd="evil.example")), EC.sign(said(hd=["acme.example"])), RSA.sign(said(hd="acme.example")))
    for text in (EC.sign(said()), long, *other):
        with pytest.raises(CredentialRefused):
            narrow.agent(text)


def test_only_text_numbers_and_booleans_are_claims_that_a_workflow_compares(issuer: Issuer) -> None:
    claims = issuer.agent(EC.sign(said(n=7, yes=True, l=["a"], o={"a": 1}, none=None, long="x" * 600, f=1.5))).claims
    assert {name: claims.get(name) for name in ("n", "yes", "l", "o", "none", "long", "f")} == {
        "n": "7",
        "yes": "true",
        **dict.fromkeys(("l", "o", "none", "long", "f")),
    }


@pytest.mark.parametrize(
    "said_so",
    [
        {"acr": 2, "amr": "mfa", "auth_time": str(now())},
        {"acr": ["gold"], "amr": ["mfa", 1], "auth_time": True},
        {"acr": {"value": "gold"}, "amr": {"mfa": True}, "auth_time": 1.5},
        {"acr": None, "amr": None, "auth_time": None},
    ],
    ids=["of other types", "lists", "tables", "nothing"],
)
def test_a_sign_in_that_is_told_in_another_form_is_unknown(issuer: Issuer, said_so: dict[str, Any]) -> None:
    """Read loosely, the text `mfa` would be the ways m, f and a, and an `acr` of any form would go on into the call's token."""
    who = issuer.user(EC.sign(said(tenant="acme", **said_so))).who
    assert (who.acr, who.amr, who.auth_time) == (None, (), None)


def test_a_list_of_claims_has_an_end(issuer: Issuer) -> None:
    assert len(issuer.agent(EC.sign(said(**{f"c{n}": "x" for n in range(300)}))).claims) <= 100


def test_a_job_runs_in_the_environment_that_the_settings_make_of_its_own(served: Web) -> None:
    def runs_in(environment: Any, known: dict[str, str] | None) -> str | None:
        issuer = Issuer(served, shape="github", user=None, agent=None, environment=known)
        return issuer.agent(EC.sign(said(**{**JOB, "environment": environment}))).environment

    known = {"production": "prod"}
    assert runs_in("production", known) == "prod"
    for unknown in ("prod", "staging", ["production"], None, ...):  # whoever may name an environment might name it "prod"
        assert runs_in(unknown, known) == ""
    assert runs_in("staging", None) is None, "settings that say nothing of environments leave the gate's own"


# --- the key behind it -----------------------------------------------------------------------------------------------------------
def test_a_bound_token_counts_with_its_key_or_certificate(issuer: Issuer) -> None:
    key, url = Key("agent"), f"{GATE}/oauth2/token"
    bound = EC.sign(said(cnf={"jkt": key.thumbprint}))
    assert issuer.agent(bound, proof=DPoP(key.proof("POST", url, token=bound), "POST", url)).key == key.thumbprint
    assert issuer.agent(bound, proof=DPoP(key.proof("POST", url), "POST", url), at_token_endpoint=True).key == key.thumbprint
    bad = {
        "of another key": Key("thief").proof("POST", url, token=bound),
        "for another token": key.proof("POST", url, token=bound + "x"),
        "that names no token": key.proof("POST", url),
        "for another URL": key.proof("POST", url + "/x", token=bound),
        "for another method": key.proof("GET", url, token=bound),
        "that is old": key.proof("POST", url, token=bound, iat=now() - 70),
    }
    for text in bad.values():
        with pytest.raises(CredentialRefused, match="proof"):
            issuer.agent(bound, proof=DPoP(text, "POST", url))
    certified = EC.sign(said(cnf={"x5t#S256": "abc"}))
    assert issuer.agent(certified, certificate="abc").key == ""
    with pytest.raises(CredentialRefused, match="cnf"):
        issuer.agent(certified, certificate="abd")


@pytest.mark.parametrize(
    ("cnf", "field"), [({"jkt": EC.thumbprint}, "proof"), ({"x5t#S256": "abc"}, "cnf")], ids=["of a key", "of a certificate"]
)
def test_a_stolen_token_of_a_user_counts_no_more_than_one_of_an_agent(issuer: Issuer, cnf: dict[str, str], field: str) -> None:
    with pytest.raises(CredentialRefused, match=field):
        issuer.user(EC.sign(said(tenant="acme", cnf=cnf)))


def test_base64_that_decodes_alike_is_another_token(issuer: Issuer) -> None:
    """A lenient decoder takes trailing bits and standard letters; then one token has many texts, and a list of used ones has holes."""
    head, body, signature = EC.sign(said()).split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = last.index(signature[-1])
    stray = signature[:-1] + last[place ^ 1]
    assert base64.urlsafe_b64decode(stray + "==") == base64.urlsafe_b64decode(signature + "==")
    with pytest.raises(CredentialRefused):
        issuer.agent(f"{head}.{body}.{stray}")
