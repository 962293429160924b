"""An X.509-SVID as the credential of an exchange: from a proxy that is named, with the certificate that is named, for its own client."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agentgate.identity.credential import X509_SVID
from tests.served import Asking, Process, Server, detail, served
from tests.served_notes import WORKFLOW, Place, a_place, error_of
from tests.test_identity_svid import CA

WORKER, OTHER = "spiffe://acme.example/worker", "spiffe://acme.example/other"
HEADER = "X-Client-Certificate"
OIDC = "{oidc: {issuer: https://login.acme.example, claims: {app: {is: notes}}}}"
BOUND = "token: {ttl: 60s, uses: 1, bound_to: [call, agent_key]}\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    text = WORKFLOW.replace("id: desk.notes", "id: desk.worker").replace(OIDC, f'{{spiffe: ["{WORKER}", "{OTHER}"]}}') + BOUND
    with a_place(tmp_path_factory.mktemp("svid"), more=[text]) as made:
        yield made


class Workers:
    """A trust domain of certificates, and a gate that knows one worker of it by its SPIFFE id."""

    def __init__(self, place: Place) -> None:
        self.ca = CA()
        der = base64.b64encode(self.ca.certificate.public_bytes(serialization.Encoding.DER)).decode()
        bundle = place.folder / "bundle.json"
        bundle.write_text(json.dumps({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [der]}]}))
        self.identity: dict[str, Any] = {
            **place.settings["identity"],
            "trust_domains": {"acme.example": {"bundle": str(bundle), "audience": place.issuer, "tenants": ["acme"]}},
            "proxies": {"addresses": ["127.0.0.1"], "certificate": "pem"},
        }
        clients = {**place.settings["clients"], "worker": {"role": "agent", "credential": WORKER, "tenants": ["acme"]}}
        self.settings = {**place.settings, "identity": self.identity, "clients": clients, "certificate_header": HEADER}


@pytest.fixture(scope="module")
def workers(place: Place) -> Workers:
    return Workers(place)


@pytest.fixture(scope="module")
def gate(place: Place, workers: Workers) -> Iterator[Process]:
    with served(place.folder, workers.settings) as process:
        yield process


def thumbprint(pem: str) -> str:
    made = x509.load_pem_x509_certificate(pem.encode())
    return base64.urlsafe_b64encode(made.fingerprint(hashes.SHA256())).rstrip(b"=").decode()


def ask(asking: Asking, pem: str | None, **more: Any) -> httpx.Response:
    """An exchange with this certificate, as a proxy passes it on; `named`: the one that the form names, if another."""
    named = more.pop("named", thumbprint(pem) if pem else "x" * 43)
    call, prove = more.pop("call", "call_1"), more.pop("prove", True)
    form = asking.form(named, detail("notes.write", "desk.worker", {"text": "x"}, tool_call_id=call), client_id="worker", **more)
    return asking.ask(form, {HEADER: urllib.parse.quote(pem)} if pem else {}, prove=prove)


def test_a_worker_exchanges_its_certificate_for_a_token_of_its_own_key(place: Place, gate: Process, workers: Workers) -> None:
    asking, pem = Asking(gate), workers.ca.svid(WORKER)
    answer = ask(asking, pem, subject_token_type=X509_SVID)
    assert answer.status_code == 200, (answer.text, gate.log()[-1])
    assert answer.json()["token_type"] == "DPoP"
    server = Server(gate, "server", place.keys["server"])
    redeemed = server.redeem(answer.json()["access_token"], "notes.write", {"text": "x"}, asking.key).json()
    assert (redeemed["client_id"], redeemed["act"]["sub"], redeemed["identity"]["agent"]) == (WORKER, WORKER, "proven")
    again = ask(asking, pem, subject_token_type=X509_SVID, call="call_2")  # the same certificate is the same run
    claims = json.loads(base64.urlsafe_b64decode(again.json()["access_token"].split(".")[1] + "=="))
    assert claims["authorization_details"][0]["run"] == redeemed["run"]


def test_a_certificate_that_is_not_that_of_the_connection_or_the_client_is_refused(gate: Process, workers: Workers) -> None:
    pem, another = workers.ca.svid(WORKER), workers.ca.svid(WORKER)
    for answer, expected in (
        (ask(Asking(gate), pem, subject_token_type=X509_SVID, named=thumbprint(another)), (400, "invalid_request")),
        (ask(Asking(gate), None, subject_token_type=X509_SVID), (400, "invalid_request")),
        (ask(Asking(gate), workers.ca.svid(OTHER), subject_token_type=X509_SVID), (401, "invalid_client")),
        (ask(Asking(gate), CA().svid(WORKER), subject_token_type=X509_SVID), (400, "invalid_request")),
        (ask(Asking(gate), pem), (400, "invalid_request")),  # its thumbprint is no token
    ):
        assert error_of(answer) == expected, gate.log()[-1]


def test_another_key_goes_on_in_no_run_of_the_certificate(gate: Process, workers: Workers) -> None:
    pem = workers.ca.svid(WORKER)
    assert ask(Asking(gate), pem, subject_token_type=X509_SVID).status_code == 200
    thief = Asking(gate)
    thief.key = type(thief.key)("thief")
    assert error_of(ask(thief, pem, subject_token_type=X509_SVID)) == (400, "invalid_dpop_proof")


@pytest.mark.parametrize("proxies", [{"addresses": ["10.0.0.0/8"], "certificate": "pem"}, {"addresses": ["127.0.0.1"]}])
def test_a_header_from_elsewhere_is_no_certificate(place: Place, workers: Workers, proxies: dict[str, Any]) -> None:
    identity = {**workers.identity, "proxies": proxies}
    settings = {**workers.settings, "identity": identity, "audit": str(place.folder / f"audit-{len(proxies)}")}
    if "certificate" not in proxies:
        settings.pop("certificate_header")
    with served(place.folder, settings) as gate:
        answer = ask(Asking(gate), workers.ca.svid(WORKER), subject_token_type=X509_SVID)
        assert error_of(answer) == (400, "invalid_request")
