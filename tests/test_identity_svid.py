"""SPIFFE ids by JWT-SVID and by X.509-SVID behind a proxy; attestations, hops and clients: what is forged, borrowed or out of place."""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authlib.oauth2.rfc7523 import private_key_jwt_sign
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey

from agentgate import JWTSVID, Agent, Connection, OIDCToken
from agentgate.errors import CredentialRefused, KeysUnavailable
from agentgate.identity.credential import X509SVID, Credential
from agentgate.identity.door import Identities
from agentgate.identity.settings import IdentitySettings
from tests.authority import GATE, Key, b64, claims_of, jwks, now, proven, web
from tests.founding import EXPORTER, PROD, World, dsse, shown

AGENT = PROD + "support-agent"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with web() as served:
        made = World(served, tmp_path_factory.mktemp("world"))
        yield made
        made.gate.close()


def agent(identities: Identities, credential: Any, tenant: str = "acme-eu", user: Any = None) -> Agent:
    return proven(identities.agent(credential, tenant, user, time.time())).who  # type: ignore[no-any-return]  # an Agent


@pytest.fixture(scope="module")
def identities(world: World) -> Identities:
    return Identities(IdentitySettings.of(world.settings))


# --- JWT-SVID ------------------------------------------------------------------------------------------------------------------------
def test_a_jwt_svid_proves_a_spiffe_id(world: World, identities: Identities) -> None:
    found = agent(identities, JWTSVID(world.svid(AGENT)))
    assert (found.id, found.spiffe, found.subject, found.identity, found.issuer) == (AGENT, AGENT, AGENT, "proven", "")


SVIDS: dict[str, Any] = {
    "of another trust domain": lambda w: w.svid("spiffe://other.example/a"),
    "of a domain that ends alike": lambda w: w.svid("spiffe://evil-acme.example/a"),
    "of a domain in other letters": lambda w: w.svid("spiffe://ACME.example/a"),
    "without a path": lambda w: w.svid("spiffe://acme.example"),
    "with an empty path": lambda w: w.svid("spiffe://acme.example/"),
    "longer than an id may be": lambda w: w.svid("spiffe://acme.example/" + "a" * 2048),
    "with a dot segment": lambda w: w.svid("spiffe://acme.example/a/../b"),
    "with a query": lambda w: w.svid("spiffe://acme.example/a?b"),
    "with a port": lambda w: w.svid("spiffe://acme.example:443/a"),
    "with a user": lambda w: w.svid("spiffe://x@acme.example/a"),
    "that is no spiffe id": lambda w: w.svid("https://acme.example/a"),
    "for another audience": lambda w: w.svid(AGENT, aud=["https://other.example"]),
    "for two audiences": lambda w: w.svid(AGENT, aud=[GATE, "https://other.example"]),
    "expired": lambda w: w.svid(AGENT, exp=now() - 60),
    "that lives for a day": lambda w: w.svid(AGENT, exp=now() + 86400),
    "that lives for a day and does not say since when": lambda w: w.spire.sign({"sub": AGENT, "aud": GATE, "exp": now() + 86400}),
    "by another key": lambda w: Key("spire", "RS256").sign({"sub": AGENT, "aud": GATE, "exp": now() + 60}),
    "with somebody who acts for it": lambda w: w.svid(AGENT, act={"sub": "spiffe://acme.example/broker"}),
    "that is a logout": lambda w: w.svid(AGENT, events={}),
    "of another type": lambda w: w.spire.sign({"sub": AGENT, "aud": GATE, "exp": now() + 60}, typ="at+jwt"),
}


@pytest.mark.parametrize("svid", SVIDS)
def test_an_svid_that_proves_nothing(world: World, identities: Identities, svid: str) -> None:
    with pytest.raises(CredentialRefused, match=r"agent\.spiffe"):
        agent(identities, JWTSVID(SVIDS[svid](world)))


def test_an_svid_counts_in_its_own_tenants_and_as_an_svid_only(world: World, identities: Identities) -> None:
    with pytest.raises(CredentialRefused, match="trust domain"):
        agent(identities, JWTSVID(world.svid(AGENT)), tenant="northwind")
    with pytest.raises(CredentialRefused, match="issuer"):
        agent(identities, OIDCToken(world.svid(AGENT)))
    with pytest.raises(CredentialRefused):
        agent(identities, JWTSVID(world.job()))


def test_a_trust_domain_proves_no_id_of_another(world: World, identities: Identities) -> None:
    """Whoever asks it: its bundle may be that of a bigger authority."""
    domain = identities._domains["acme.example"]
    with pytest.raises(CredentialRefused, match="an id of spiffe"):
        proven(domain.jwt(JWTSVID(world.svid("spiffe://other.example/a")), "acme-eu", time.time()))


def test_a_bundle_is_read_again_and_a_key_for_x509_signs_no_jwt(world: World, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.json"
    other = Key("next")
    bundle.write_text(json.dumps({"keys": [*jwks(world.spire, use="x509-svid")["keys"], *jwks(other, use="jwt-svid")["keys"]]}))
    settings = {"trust_domains": {"acme.example": {"bundle": str(bundle), "audience": GATE, "tenants": ["acme-eu"]}}}
    identities = Identities(IdentitySettings.of(settings))
    with pytest.raises(CredentialRefused, match="kid"):
        agent(identities, JWTSVID(world.svid(AGENT)))
    text = other.sign({"sub": AGENT, "aud": GATE, "exp": now() + 60})
    assert agent(identities, JWTSVID(text)).spiffe == AGENT
    bundle.write_text(json.dumps(jwks(world.spire, use="jwt-svid")))
    time.sleep(1.1)
    assert agent(identities, JWTSVID(world.svid(AGENT))).spiffe == AGENT
    with pytest.raises(CredentialRefused):
        agent(identities, JWTSVID(text))


# --- X.509-SVID ------------------------------------------------------------------------------------------------------------------------
class CA:
    """A SPIFFE authority of certificates."""

    def __init__(self, days: float = 1) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed("spiffe://acme.example", self.key.public_key(), ca=True, days=days)

    def _signed(
        self,
        uri: str | list[str],
        public: Any,
        *,
        ca: bool,
        days: float = 1,
        usage: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
        signs: bool | None = True,
    ) -> Any:
        started = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
        uris = [uri] if isinstance(uri, str) else uri
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SPIRE")])
        builder = x509.CertificateBuilder().issuer_name(name).subject_name(name if ca else x509.Name([])).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(started)
        builder = builder.not_valid_after(dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris]), critical=not ca)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        usages = x509.KeyUsage(bool(signs) and not ca, False, not signs, False, False, ca, ca, False, False)
        if signs is not None:  # else there is no such extension
            builder = builder.add_extension(usages, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def svid(self, uri: str | list[str], key: Any = None, **more: Any) -> str:
        made = self._signed(uri, (key or ec.generate_private_key(ec.SECP256R1())).public_key(), ca=False, **more)
        return str(made.public_bytes(serialization.Encoding.PEM).decode())


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


def behind(tmp_path: Path, ca: CA, **proxies: Any) -> Identities:
    der = base64.b64encode(ca.certificate.public_bytes(serialization.Encoding.DER)).decode()
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [der]}]}))
    domain = {"bundle": str(bundle), "audience": GATE, "tenants": ["acme-eu"]}
    given: dict[str, Any] = {"trust_domains": {"acme.example": domain}}
    if proxies:
        given["proxies"] = {"addresses": ["10.0.0.0/8"], **proxies}
    return Identities(IdentitySettings.of(given))


def passed_on(pem: str, peer: str = "10.1.1.1") -> X509SVID:
    return X509SVID(Connection(peer, certificate=urllib.parse.quote(pem)))


def by_envoy(pem: str, details: str = "Cert") -> X509SVID:
    """As Envoy writes it: a digest always, then what it is told to; a certificate's names as they are (`mutateXfccRequestHeader`)."""
    leaf = x509.load_pem_x509_certificate(pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier)
    passed = [f'{name}="{urllib.parse.quote(pem)}"' for name in details.split()]
    said = ["By=spiffe://acme.example/gate", f"Hash={leaf.fingerprint(hashes.SHA256()).hex()}", *passed, 'Subject=""']
    return X509SVID(Connection("10.1.1.1", certificate=";".join([*said, *(f"URI={name}" for name in names)])))


def test_a_certificate_behind_a_named_proxy_proves_a_spiffe_id(tmp_path: Path, ca: CA) -> None:
    pem = ca.svid(AGENT)
    found = agent(behind(tmp_path, ca, certificate="pem"), passed_on(pem))
    assert (found.spiffe, found.identity, found.key) == (AGENT, "proven", "")
    leaf = x509.load_pem_x509_certificate(pem.encode())
    assert found.boundary is not None
    assert found.boundary.key == b64(leaf.fingerprint(hashes.SHA256()))
    for details in ("Cert", "Chain", "Cert Chain"):
        assert agent(behind(tmp_path, ca, certificate="xfcc"), by_envoy(pem, details)).spiffe == AGENT


def test_what_a_certificate_proves_ends_with_it(tmp_path: Path, ca: CA) -> None:
    pem, identities = ca.svid(AGENT, days=0.5), behind(tmp_path, ca, certificate="pem")
    ends = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
    assert proven(identities.agent(passed_on(pem), "acme-eu", None, ends - 1)).expires_at == ends
    with pytest.raises(CredentialRefused, match=r"agent\.x509"):
        proven(identities.agent(passed_on(pem), "acme-eu", None, ends + 1))
    short = CA(days=0.25)  # an authority that ends before what it signed
    found = proven(behind(tmp_path, short, certificate="pem").agent(passed_on(short.svid(AGENT)), "acme-eu", None, time.time()))
    assert found.expires_at == short.certificate.not_valid_after_utc.timestamp()


def test_a_certificate_counts_in_the_tenants_of_its_trust_domain_only(tmp_path: Path, ca: CA) -> None:
    with pytest.raises(CredentialRefused, match="a trust domain of acme-eu"):
        proven(behind(tmp_path, ca, certificate="pem").agent(passed_on(ca.svid(AGENT)), "acme-uk", None, time.time()))


def test_a_certificate_in_a_header_counts_only_where_it_is_configured(tmp_path: Path, ca: CA) -> None:
    pem = ca.svid(AGENT)
    for identities in (behind(tmp_path, ca), Identities(IdentitySettings.of({"proxies": {"addresses": ["10.0.0.0/8"]}}))):
        with pytest.raises(CredentialRefused, match="no such header"):
            agent(identities, passed_on(pem))
    with pytest.raises(CredentialRefused, match="peer"):
        agent(behind(tmp_path, ca, certificate="pem"), passed_on(pem, "192.0.2.1"))
    with pytest.raises(CredentialRefused, match="peer"):
        agent(behind(tmp_path, ca, certificate="pem"), passed_on(pem, "nowhere"))


CERTIFICATES: dict[str, Any] = {
    "by another authority": lambda ca: CA().svid(AGENT),
    "expired": lambda ca: ca.svid(AGENT, days=-1),
    "of another trust domain": lambda ca: ca.svid("spiffe://other.example/a"),
    "with two ids": lambda ca: ca.svid([AGENT, EXPORTER]),
    "for servers only": lambda ca: ca.svid(AGENT, usage=ExtendedKeyUsageOID.SERVER_AUTH),
    "the authority's own": lambda ca: ca.certificate.public_bytes(serialization.Encoding.PEM).decode(),
    "of an RSA key of 1024 bits": lambda ca: ca.svid(AGENT, rsa.generate_private_key(65537, 1024)),  # noqa: S505 - it is to be refused
    "of an RSA key of 2040 bits": lambda ca: ca.svid(AGENT, rsa.generate_private_key(65537, 2040)),  # noqa: S505 - as above
    "to encipher keys only": lambda ca: ca.svid(AGENT, signs=False),
    "that does not say what its key is for": lambda ca: ca.svid(AGENT, signs=None),
    "nothing": lambda ca: "",
    "no certificate": lambda ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    "nine of them": lambda ca: "".join(ca.svid(AGENT) for _ in range(9)),
}


def test_an_rsa_key_of_2048_bits_is_enough(tmp_path: Path, ca: CA) -> None:
    pem = ca.svid(AGENT, rsa.generate_private_key(65537, 2048))
    assert agent(behind(tmp_path, ca, certificate="pem"), passed_on(pem)).spiffe == AGENT


def test_a_bundle_with_a_weak_key_proves_no_jwt(tmp_path: Path) -> None:
    weak = Key("weak", "RS256", 1024)
    (tmp_path / "bundle.json").write_text(json.dumps(jwks(weak, use="jwt-svid")))
    domain = {"bundle": str(tmp_path / "bundle.json"), "audience": GATE, "tenants": ["acme-eu"]}
    identities = Identities(IdentitySettings.of({"trust_domains": {"acme.example": domain}}))
    with pytest.raises(KeysUnavailable, match="1024 bits"):
        agent(identities, JWTSVID(Key("weak").sign({"sub": AGENT, "aud": GATE, "exp": now() + 60})))


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_a_certificate_that_proves_nothing(tmp_path: Path, ca: CA, certificate: str) -> None:
    with pytest.raises(CredentialRefused, match=r"agent\.(x509|spiffe)"):
        agent(behind(tmp_path, ca, certificate="pem"), passed_on(CERTIFICATES[certificate](ca)))


def test_a_second_proxys_element_is_not_taken_for_the_clients(tmp_path: Path, ca: CA) -> None:
    """A client that sends the header itself, through a proxy that appends: two elements, of which one is the client's invention."""
    quoted = urllib.parse.quote(ca.svid(AGENT))
    for value in (f'Hash=a;Cert="{quoted}",Hash=b;Cert="{quoted}"', f'Cert="{quoted}";X="y"', f'Cert="{quoted}" ', f"Cert={quoted},"):
        with pytest.raises(CredentialRefused):
            agent(behind(tmp_path, ca, certificate="xfcc"), X509SVID(Connection("10.1.1.1", certificate=value)))


@pytest.mark.parametrize("details", ["", "Chain", "Cert", "Cert Chain"])
@pytest.mark.parametrize("hashed", [False, True])
def test_a_certificate_inside_a_name_of_another_is_not_taken_for_it(tmp_path: Path, ca: CA, details: str, *, hashed: bool) -> None:
    """A certificate is no secret: one's own may hold another's in a name, in the form of the header's fields."""
    victim = ca.svid(AGENT)
    digest = x509.load_pem_x509_certificate(victim.encode()).fingerprint(hashes.SHA256()).hex()
    name = f"{AGENT};Cert={urllib.parse.quote(victim)}" + (f";Hash={digest}" if hashed else "")
    shown = by_envoy(CA().svid(name), details)
    assert f"URI={name}" in shown.connection.certificate
    with pytest.raises(CredentialRefused, match=r"agent\.x509"):
        agent(behind(tmp_path, ca, certificate="xfcc"), shown)


# --- attestations -----------------------------------------------------------------------------------------------------
def attested(world: World, identities: Identities, statement: str, spiffe: str = EXPORTER, **more: Any) -> Agent:
    return agent(identities, JWTSVID(world.svid(spiffe), attestation=statement, **more))


def test_both_forms_attest_the_same(world: World, identities: Identities) -> None:
    for statement in (world.attested(EXPORTER), world.envelope(EXPORTER), world.envelope(EXPORTER, key=world.slsa_ed)):
        found = attested(world, identities, statement)
        assert found.posture is not None
        assert found.boundary is not None
        assert found.posture.image_signed_by == "release@acme.example"
        assert (found.boundary.cluster, found.boundary.namespace, found.boundary.node_pool) == ("eu-prod-1", "billing", "confidential")
    for statement in (world.envelope(EXPORTER, attested_at=now() - 5), signatures(world, 3)):
        assert attested(world, identities, statement).posture is not None


def test_a_statement_may_name_the_key_that_the_workload_shows(world: World, identities: Identities) -> None:
    key, token = Key("exporter"), world.svid(EXPORTER)
    for shown_by, attested_with in ((key, key.thumbprint), (key, Key("x").thumbprint)):
        credential = JWTSVID(token, attestation=world.attested(EXPORTER, cnf={"jkt": attested_with}), **shown(shown_by, token))
        if attested_with == key.thumbprint:
            found = agent(identities, credential)
            assert found.boundary is not None
            assert found.boundary.key == found.key == key.thumbprint
        else:
            with pytest.raises(CredentialRefused, match="cnf"):
                agent(identities, credential)


def other_envelope(world: World, **changes: Any) -> str:
    envelope = json.loads(world.envelope(EXPORTER))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    return dsse(json.dumps({**statement, **changes}).encode(), world.slsa)


def changed_payload(world: World, key: Key | None = None) -> str:
    envelope = json.loads(world.envelope(EXPORTER, namespace="shop", key=key))
    return json.dumps({**envelope, "payload": json.loads(world.envelope(EXPORTER))["payload"]})


def signatures(world: World, before: int) -> str:
    """An envelope with so many signatures by nobody before the right one."""
    envelope = json.loads(world.envelope(EXPORTER))
    return json.dumps({**envelope, "signatures": [{"keyid": str(n), "sig": "AAAA"} for n in range(before)] + envelope["signatures"]})


STATEMENTS: dict[str, Any] = {
    "about another workload": lambda w: w.envelope(AGENT),
    "about another workload, as a JWT": lambda w: w.attested(AGENT),
    "by nobody": lambda w: w.envelope(EXPORTER, key=Key("slsa")),
    "by nobody, by Ed25519": lambda w: w.envelope(EXPORTER, key=Key("slsa-ed", "EdDSA")),
    "by a key of another attestor": lambda w: w.envelope(EXPORTER, key=w.attestor),
    "by a broker": lambda w: w.envelope(EXPORTER, key=w.brokers["orchestrator"]),
    "about a cluster of somebody else": lambda w: w.envelope(EXPORTER, cluster="eu-prod-2"),
    "that has ended": lambda w: w.envelope(EXPORTER, expires_at="2020-01-01T00:00:00Z"),
    "that never ends": lambda w: w.envelope(EXPORTER, expires_at=None),
    "from the future": lambda w: w.envelope(EXPORTER, attested_at=now() + 60),
    "from the future, as a JWT": lambda w: w.attested(EXPORTER, ago=-60),
    "without a time zone": lambda w: w.envelope(EXPORTER, attested_at=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now() - 30))),
    "before all times": lambda w: w.attested(EXPORTER, attested_at=-(2**60)),
    "with a predicate that is a list": lambda w: other_envelope(w, predicate=[]),
    "about an object": lambda w: other_envelope(w, subject={"0": EXPORTER}),
    "about a text": lambda w: other_envelope(w, subject=[EXPORTER]),
    "with many signatures": lambda w: signatures(w, 4),
    "with signatures of another form": lambda w: json.dumps({**json.loads(w.envelope(EXPORTER)), "signatures": {"keyid": "slsa"}}),
    "at a time that is true": lambda w: w.envelope(EXPORTER, attested_at=True),
    "without a signer": lambda w: w.envelope(EXPORTER, image_signed_by=None),
    "with another payload than was signed": changed_payload,
    "with another payload than was signed by Ed25519": lambda w: changed_payload(w, w.slsa_ed),
    "of another type": lambda w: dsse(b"{}", w.slsa, "application/json"),
    "with another predicate": lambda w: other_envelope(w, predicateType="https://slsa.dev/provenance/v1"),
    "of another statement version": lambda w: other_envelope(w, _type="https://in-toto.io/Statement/v0.1"),
    "about two workloads": lambda w: other_envelope(w, subject=[{"name": EXPORTER}, {"name": AGENT}]),
    "about nothing": lambda w: other_envelope(w, subject=[]),
    "without signatures": lambda w: json.dumps({**json.loads(w.envelope(EXPORTER)), "signatures": []}),
    "with a signature of no form": lambda w: json.dumps(
        {**json.loads(w.envelope(EXPORTER)), "signatures": [{"keyid": "slsa", "sig": "!"}]}
    ),
    "with a member twice": lambda w: w.envelope(EXPORTER)[:-1] + ', "payloadType": "x"}',
    "too long": lambda w: w.envelope(EXPORTER, more="x" * 20_000),
    "that is no envelope": lambda w: "{}",
    "that is no JSON": lambda w: "{",
    "by an unknown issuer": lambda w: w.attested(EXPORTER, iss="https://evil.example"),
    "for another audience": lambda w: w.attested(EXPORTER, aud="https://other.example"),
    "with a key that was not shown": lambda w: w.attested(EXPORTER, cnf={"jkt": "abc"}),
    "with a confirmation by no key": lambda w: w.attested(EXPORTER, cnf={"jkt": ""}),
    "with a confirmation that is text": lambda w: w.attested(EXPORTER, cnf="abc"),
    "with a confirmation nobody knows": lambda w: w.attested(EXPORTER, cnf={"kid": "abc"}),
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_that_proves_nothing(world: World, identities: Identities, statement: str) -> None:
    with pytest.raises(CredentialRefused, match=r"agent\.posture"):
        attested(world, identities, STATEMENTS[statement](world))


def test_a_statement_ends_with_its_own_end(world: World, identities: Identities) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 40))
    credential = JWTSVID(world.svid(EXPORTER), attestation=world.envelope(EXPORTER, expires_at=soon))
    assert proven(identities.agent(credential, "acme-eu", None, time.time())).expires_at <= time.time() + 41


# --- hops -------------------------------------------------------------------------------------------------------------
def act(*actors: str) -> dict[str, Any]:
    """Who acts now, with those before nested inside."""
    return {"sub": actors[0], "act": act(*actors[1:])} if actors[1:] else {"sub": actors[0]}


SCHEDULER, API, ORCHESTRATOR = (PROD + name for name in ("scheduler", "api", "orchestrator"))


def signed(world: World, broker: str, *actors: str, whose: str = SCHEDULER, **more: Any) -> str:
    said = {**claims_of(PROD + broker, whose), "act": act(*actors), **more}
    return world.brokers[broker].sign({name: value for name, value in said.items() if value is not None})


FIRST = (API, SCHEDULER)
SECOND = (ORCHESTRATOR, API, SCHEDULER)
CHAINS: dict[str, Any] = {
    "an act forged by a non-broker": lambda w: [signed(w, "scheduler", *FIRST), signed(w, "stranger", *SECOND, iss=API)],
    "signed by a stranger": lambda w: [signed(w, "stranger", ORCHESTRATOR, PROD + "stranger", whose=PROD + "stranger")],
    "the hop of another broker": lambda w: [signed(w, "scheduler", *FIRST), signed(w, "scheduler", *SECOND)],
    "a hop left out": lambda w: [signed(w, "api", *SECOND)],
    "a hop invented": lambda w: [signed(w, "api", ORCHESTRATOR, API, SCHEDULER, whose=API)],
    "another one before": lambda w: [signed(w, "scheduler", *FIRST), signed(w, "api", ORCHESTRATOR, API, PROD + "other")],
    "for another agent": lambda w: [signed(w, "scheduler", *FIRST), signed(w, "api", PROD + "other", API, SCHEDULER)],
    "not to the end": lambda w: [signed(w, "scheduler", *FIRST)],
    "passed to somebody else than signs next": lambda w: [
        signed(w, "scheduler", PROD + "x", SCHEDULER),
        signed(w, "api", ORCHESTRATOR, PROD + "x", SCHEDULER),
    ],
    "somebody else's work": lambda w: [signed(w, "scheduler", *FIRST), signed(w, "api", *SECOND, whose="kim")],
    "an expired hop": lambda w: [signed(w, "scheduler", *FIRST, exp=now() - 60), signed(w, "api", *SECOND)],
    "a hop that lives for a day": lambda w: [signed(w, "scheduler", *FIRST, exp=now() + 86_000), signed(w, "api", *SECOND)],
    "a hop to nobody": lambda w: [signed(w, "scheduler", "", SCHEDULER), signed(w, "api", ORCHESTRATOR, "", SCHEDULER)],
    "a hop to several": lambda w: [signed(w, "scheduler", *FIRST, act={"sub": [API], "act": act(SCHEDULER)}), signed(w, "api", *SECOND)],
    "a last hop to several": lambda w: [signed(w, "scheduler", *FIRST, act={"sub": [ORCHESTRATOR], "act": act(SCHEDULER)})],
    "a hop for another audience": lambda w: [signed(w, "scheduler", *FIRST, aud="https://x"), signed(w, "api", *SECOND)],
    "a hop without act": lambda w: [signed(w, "scheduler", *FIRST), signed(w, "api", *SECOND, act=None)],
    "an act that is text": lambda w: [signed(w, "scheduler", *FIRST, act="api")],
    "an act with more in it": lambda w: [signed(w, "scheduler", *FIRST), signed(w, "api", *SECOND, act={**act(*SECOND), "role": "admin"})],
    "a hop twice": lambda w: [signed(w, "scheduler", *FIRST)] * 2,
    "nine hops": lambda w: [signed(w, "scheduler", *FIRST)] * 9,
    "no JWT": lambda w: ["x"],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_hops_that_are_not_proven(world: World, identities: Identities, chain: str) -> None:
    with pytest.raises(CredentialRefused, match=r"agent\.via"):
        agent(identities, JWTSVID(world.svid(ORCHESTRATOR), delegation=CHAINS[chain](world)))


def test_hops_have_an_end(world: World, identities: Identities) -> None:
    """A workflow allows eight at most; each costs a signature."""
    actors, hops = [SCHEDULER], list[str]()
    for n in range(9):
        actors.insert(0, (API, SCHEDULER)[n % 2])
        hops.append(signed(world, ("scheduler", "api")[n % 2], *actors))
    assert len(agent(identities, JWTSVID(world.svid(SCHEDULER), delegation=hops[:8])).via) == 8
    with pytest.raises(CredentialRefused, match="at most 8"):
        agent(identities, JWTSVID(world.svid(API), delegation=hops))


def test_each_hop_is_proven_by_the_broker_that_signed_it(world: World, identities: Identities) -> None:
    hops = [signed(world, "scheduler", *FIRST, exp=now() + 50), signed(world, "api", *SECOND)]
    found = proven(identities.agent(JWTSVID(world.svid(ORCHESTRATOR), delegation=hops), "acme-eu", None, time.time()))
    assert found.who.via == (SCHEDULER, API)
    assert found.expires_at <= time.time() + 51, "it ends with the first of its hops"


def test_a_user_comes_with_an_oidc_token(world: World, identities: Identities) -> None:
    text = world.acme.of_user("lee", tenant="acme-eu")
    assert proven(identities.user(OIDCToken(text), time.time())).who.id == "lee"
    for other in (JWTSVID(text), Credential(text), text):
        with pytest.raises(CredentialRefused, match="an OIDCToken"):
            proven(identities.user(other, time.time()))
        with pytest.raises(CredentialRefused):
            proven(identities.agent(other, "acme-eu", None, time.time()))


def test_hops_and_attestations_are_the_agents(world: World, identities: Identities) -> None:
    for more in ({"delegation": ["x"]}, {"attestation": "x"}):
        user = OIDCToken(world.acme.of_user("lee", tenant="acme-eu"), **more)
        with pytest.raises(CredentialRefused, match="those of the agent"):
            proven(identities.user(user, time.time()))


# --- clients ----------------------------------------------------------------------------------------------------------
TOKEN_URL = f"{GATE}/oauth2/token"


@pytest.fixture(scope="module")
def clients(world: World) -> tuple[Identities, Key]:
    key = Key("client")
    given = {"keys": world.web.publish("/client", key), "private_addresses": True, "audience": TOKEN_URL, "tenants": ["acme-eu"]}
    mtls = {"certificates": ["thumb-1", "thumb-2"], "audience": TOKEN_URL, "tenants": ["northwind"]}
    return Identities(IdentitySettings.of({"clients": {"host-1": given, "host-2": mtls}})), key


def assertion(key: Key, client: str = "host-1", **claims: Any) -> str:
    """A client assertion by authlib."""
    pem = key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made = ECKey.import_key(pem)
    return str(private_key_jwt_sign(made, client, TOKEN_URL, alg="ES256", header={"kid": key.kid}, claims=claims or None))


def test_a_client_authenticates_by_its_key(clients: tuple[Identities, Key]) -> None:
    identities, key = clients
    found = proven(identities.client("host-1").assertion(Credential(assertion(key)), time.time()))
    assert (found.id, found.tenants) == ("host-1", ("acme-eu",))
    assert found.jti
    assert found.expires_at > time.time()


@pytest.mark.parametrize(
    "claims", [{"sub": "host-2"}, {"iss": "host-2"}, {"aud": GATE}, {"exp": 2**40}, {"exp": 5}, {"jti": ""}, {"jti": 7}], ids=str
)
def test_an_assertion_that_proves_no_client(clients: tuple[Identities, Key], claims: dict[str, Any]) -> None:
    identities, key = clients
    with pytest.raises(CredentialRefused, match="client"):
        proven(identities.client("host-1").assertion(Credential(assertion(key, **claims)), time.time()))


def test_an_assertion_by_another_key_too_long_of_another_type_or_for_a_client_with_certificates(clients: tuple[Identities, Key]) -> None:
    identities, key = clients
    with pytest.raises(CredentialRefused, match="signature"):
        proven(identities.client("host-1").assertion(Credential(assertion(Key("client"))), time.time()))
    said = claims_of("host-1", "host-1", TOKEN_URL)
    for text, field in ((key.sign({**said, "exp": now() + 7200}), "exp"), (key.sign(said, typ="at+jwt"), "typ")):
        with pytest.raises(CredentialRefused, match=rf"client\.{field}"):
            proven(identities.client("host-1").assertion(Credential(text), time.time()))
    with pytest.raises(CredentialRefused, match="no keys"):
        proven(identities.client("host-2").assertion(Credential(assertion(key, "host-2")), time.time()))
    with pytest.raises(CredentialRefused, match="a configured client"):
        identities.client("host-3")


def test_a_client_authenticates_by_a_certificate_of_its_own(clients: tuple[Identities, Key]) -> None:
    identities, _ = clients
    assert identities.client("host-2").certificate("thumb-2").tenants == ("northwind",)
    for client, thumbprint in (("host-2", "thumb-3"), ("host-2", ""), ("host-1", "thumb-1"), ("host-1", "")):
        with pytest.raises(CredentialRefused, match="certificate"):
            identities.client(client).certificate(thumbprint)


# --- whose subjects --------------------------------------------------------------------------------------------------------------
def two_issuers(world: World, **more: Any) -> Any:
    """Another issuer of agents and one of users, each with a subject that somebody of the first has, too."""
    settings = json.loads(json.dumps(world.settings))
    common = {"audience": GATE, "private_addresses": True, "tenants": ["acme-eu"], "keys": settings["issuers"]["acme"]["keys"]}
    settings["issuers"] = {
        "one": {**common, "issuer": "https://one.example", "agent": {}},
        "two": {**common, "issuer": "https://two.example", "agent": {}},
        "people": {**common, "issuer": "https://people.example", "user": {"tenant": "tenant"}},
        "others": {**common, "issuer": "https://others.example", "user": {"tenant": "tenant"}},
    }
    for kind in ("attestors", "brokers"):
        for each in settings[kind].values():
            each.update(more)
    return Identities(IdentitySettings.of(settings))


def by(world: World, issuer: str, subject: str, **more: Any) -> OIDCToken:
    return OIDCToken(world.acme.key.sign(claims_of(issuer, subject, tenant="acme-eu")), **more)


ALL = ["https://one.example", "https://people.example"]


@pytest.mark.parametrize("statement", ["attested", "envelope"])
def test_a_statement_is_about_a_workload_of_its_attestors_issuers(world: World, statement: str) -> None:
    said = getattr(world, statement)("exporter")
    for identities in (
        two_issuers(world),
        two_issuers(world, issuers=["https://two.example"]),
        two_issuers(world, issuers=["https://people.example"]),
    ):
        with pytest.raises(CredentialRefused, match=r"agent\.posture\.sub\.issuer"):
            agent(identities, by(world, "https://one.example", "exporter", attestation=said))
    identities = two_issuers(world, issuers=ALL)
    assert agent(identities, by(world, "https://one.example", "exporter", attestation=said)).posture is not None
    with pytest.raises(CredentialRefused, match="issuer"):
        agent(identities, by(world, "https://two.example", "exporter", attestation=said))


def test_a_hop_is_of_a_user_and_to_an_agent_of_its_brokers_issuers(world: World) -> None:
    def passed(identities: Identities, by_agent: str, by_user: str) -> Agent:
        user = proven(identities.user(by(world, by_user, "lee"), time.time())).who
        hop = world.hop("scheduler", "worker", "lee")
        return agent(identities, by(world, by_agent, "worker", delegation=[hop]), user=user)

    identities = two_issuers(world, issuers=ALL)
    assert passed(identities, *ALL).via == (SCHEDULER,)
    for who in (("https://two.example", ALL[1]), (ALL[0], "https://others.example")):
        with pytest.raises(CredentialRefused, match=r"agent\.via\.issuer"):
            passed(identities, *who)
    with pytest.raises(CredentialRefused, match=r"agent\.via\.issuer"):
        passed(two_issuers(world), *ALL)


def test_a_broker_passes_on_the_work_of_its_tenants_only(world: World) -> None:
    settings = json.loads(json.dumps(world.settings))
    for each in settings["brokers"].values():
        each["tenants"] = ["acme-uk"]
    hops = [signed(world, "scheduler", *FIRST), signed(world, "api", *SECOND)]
    identities = Identities(IdentitySettings.of(settings))
    credential = JWTSVID(world.svid(ORCHESTRATOR), delegation=hops)
    assert agent(identities, credential, "acme-uk").via == (SCHEDULER, API)
    with pytest.raises(CredentialRefused, match=r"agent\.via\.tenant"):
        agent(identities, credential, "acme-eu")
