"""Tokens bound to the certificate of whoever got them (RFC 8705 section 3), over real TLS: theirs alone passes, wherever it was stolen."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentgate.errors import ConfigError
from agentgate.identity.certificate import shown_certificate
from agentgate.identity.connection import Connection
from agentgate.identity.credential import X509_SVID
from agentgate.identity.settings import ProxySettings
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.integrations.asgi.received import ClientCertificates
from agentgate.integrations.client_key import ClientKey
from agentgate.service.tokens import DEFERRED
from tests.authority import jwks
from tests.served import JWT, Asking, Server, detail, in_thread, served
from tests.served_notes import NOTES, WORKFLOW, Notes, a_place, error_of
from tests.servers import as_tool_server, free_port
from tests.test_identity_svid import CA
from tests.test_service_svid import BOUND, HEADER, OIDC, WORKER, thumbprint
from tests.test_service_wire import answered_by, held
from tests.tls import certificate, mtls_front
from tests.toolshop import Orders

FORM = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
PROXIES = {"addresses": ["127.0.0.1"], "certificate": "pem"}


class Holder:
    """Somebody with a certificate and its key."""

    def __init__(self, folder: Path, ca: CA, name: str, uri: str = WORKER) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.pem = ca._signed(uri, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM).decode()
        self.file.write_bytes(self.pem.encode() + key.private_bytes(*FORM))
        self.thumbprint = thumbprint(self.pem)


class World:
    """A gate and a tool server, each behind a proxy that ends TLS; a worker with an SVID, another, and a client with a certificate."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.authority, ca = certificate(folder, "front"), CA()
        self.clients, self.key = folder / "clients.pem", ClientKey.made("server", folder / "server.pem")
        self.clients.write_bytes(ca.certificate.public_bytes(serialization.Encoding.PEM))
        ports = free_port(), free_port()
        fronts = [stack.enter_context(mtls_front(self.authority, port, self.clients, HEADER)) for port in ports]
        self.url, self.notes = (f"https://127.0.0.1:{port}" for port in fronts)
        text = WORKFLOW.replace("id: desk.notes", "id: desk.worker").replace(OIDC, f'{{spiffe: ["{WORKER}"]}}') + BOUND
        text = text.replace(NOTES, self.notes)
        self.place = stack.enter_context(a_place(folder, issuer=self.url, notes=self.notes, more=[text]))
        self.worker, self.other = Holder(folder, ca, "worker"), Holder(folder, ca, "other")
        self.client = Holder(folder, ca, "client", "https://partner.example")
        der = base64.b64encode(ca.certificate.public_bytes(serialization.Encoding.DER)).decode()
        (folder / "bundle.json").write_text(json.dumps({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [der]}]}))
        domain = {"bundle": str(folder / "bundle.json"), "audience": self.url, "tenants": ["acme"]}
        identity = {**self.place.settings["identity"], "trust_domains": {"acme.example": domain}, "proxies": PROXIES}
        keys = [*jwks(self.place.keys["server"])["keys"], *self.key.jwks()["keys"]]
        (folder / "server.json").write_text(json.dumps({"keys": keys}))
        clients = {
            **self.place.settings["clients"],
            "worker": {"role": "agent", "credential": WORKER, "tenants": ["acme"]},
            "partner": {"role": "agent", "certificates": [self.client.thumbprint], "tenants": ["acme"]},
        }
        settings = {**self.place.settings, "identity": identity, "clients": clients, "certificate_header": HEADER}
        self.gate = stack.enter_context(served(folder, {**settings, "listen": f"127.0.0.1:{ports[0]}"}))
        self.server = Server(self.gate, "server", self.place.keys["server"])
        self.orders = Orders()
        self.tools = self.tool_server(folder / "tool-audit", proxies=PROXIES, certificate_header=HEADER)
        stack.enter_context(in_thread(RedeemMiddleware(self.orders, self.tools), ports[1]))

    def tool_server(self, audit: Path, **more: Any) -> ToolServer:
        keys, store = self.gate.http.get("/oauth2/jwks").json(), as_tool_server(self.place.store.url, self.notes)
        made = ToolServer.of(keys, issuer=self.url, tenants=["acme"], audience=self.notes, store=store, audit=str(audit), **more)
        made.route("notes.write", "POST", "/notes", args={"text": body()}, scope="notes:write")
        return made

    def http(self, url: str, holder: Holder | None) -> httpx.Client:
        """A client that shows this certificate in TLS; None: it shows none."""
        context = ssl.create_default_context(cafile=self.authority)
        if holder is not None:
            context.load_cert_chain(holder.file)
        return httpx.Client(base_url=url, verify=context, trust_env=False, timeout=10)

    def asked(self, holder: Holder | None, call: str, text: str = "x", **more: Any) -> httpx.Response:
        """A worker's exchange without a proof, over TLS."""
        named = more.pop("named", holder.thumbprint if holder else "x" * 43)
        arguments = {"text": text, **more.pop("arguments", {})}
        form = Asking(self.gate).form(named, detail("notes.write", "desk.worker", arguments, tool_call_id=call), client_id="worker", **more)
        with self.http(self.url, holder) as http:
            return http.post("/oauth2/token", data={**form, "subject_token_type": X509_SVID})

    def token(self, holder: Holder, call: str) -> str:
        answer = self.asked(holder, call)
        assert answer.status_code == 200, (answer.text, self.gate.log()[-1])
        assert answer.json()["token_type"] == "Bearer"  # RFC 8705 section 3
        token = str(answer.json()["access_token"])
        assert claims(token)["cnf"] == {"x5t#S256": holder.thumbprint}
        return token

    def write(self, token: str, holder: Holder | None, text: str = "x", **headers: str) -> httpx.Response:
        with self.http(self.notes, holder) as http:
            return http.post("/notes", json={"text": text}, headers={"Authorization": f"Bearer {token}", **headers})


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("bound"), stack)


def refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json().get("error")) == (401, "invalid_token"), answer.text
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_a_workers_token_counts_with_its_own_certificate_alone(world: World) -> None:
    token, seen = world.token(world.worker, "alone"), len(world.orders.seen)
    spoofed = {HEADER: urllib.parse.quote(world.worker.pem)}
    refused(world.write(token, None))
    refused(world.write(token, world.other))  # of the same SPIFFE id, and under the same authority
    refused(world.write(token, None, **spoofed))  # the proxy takes a client's own header away
    refused(world.write(token, world.other, **spoofed))
    assert len(world.orders.seen) == seen
    assert world.write(token, world.worker).status_code == 200  # none of these burned it
    refused(world.write(token, world.worker))  # it was spent


def test_a_certificate_is_nothing_where_the_token_names_a_key(world: World) -> None:
    asking = Asking(world.gate)
    shown = {HEADER: urllib.parse.quote(world.worker.pem)}  # the gate's own port is reached as its proxy reaches it
    call = detail("notes.write", "desk.worker", {"text": "key"}, tool_call_id="key")
    form = {**asking.form(world.other.thumbprint, call, client_id="worker"), "subject_token_type": X509_SVID}
    assert error_of(asking.ask(form, shown)) == (400, "invalid_request")  # another certificate than the named one
    answer = asking.ask(form, {HEADER: urllib.parse.quote(world.other.pem)})
    assert answer.json()["token_type"] == "DPoP"
    token = answer.json()["access_token"]
    assert claims(token)["cnf"] == {"jkt": asking.key.thumbprint}
    refused(world.write(token, world.other, "key"))
    redeemed = world.server.redeem(token, "notes.write", {"text": "key"}, asking.key)
    assert redeemed.status_code == 200, redeemed.text


def test_a_tool_server_redeems_at_the_gate_with_the_certificate_it_saw(world: World) -> None:
    token = world.token(world.worker, "redeemed")
    asked = {"token": token, "tool": "notes.write", "arguments": {"text": "x"}}
    url = "https://tools.example/call"
    proof = {"dpop": Asking(world.gate).key.proof("POST", url, token=token), "method": "POST", "url": url}
    for more, expected in (
        ({}, (401, "certificate")),
        ({"certificate": world.other.thumbprint}, (401, "certificate")),
        ({"certificate": world.worker.thumbprint, "proof": proof}, (401, "proof_unbound")),
        ({"certificate": "short"}, (400, "invalid_request")),
        ({"certificate": None}, (400, "invalid_request")),
    ):
        assert error_of(world.server.post("/v1/redeem", {**asked, **more})) == expected
    form = {**world.server.asserted(), "token": token}
    said = world.gate.http.post("/oauth2/introspect", data=form).json()
    assert (said["active"], said["token_type"], said["cnf"]) == (True, "Bearer", {"x5t#S256": world.worker.thumbprint})
    assert world.server.post("/v1/redeem", {**asked, "certificate": world.worker.thumbprint}).status_code == 200


async def test_a_server_without_the_store_passes_it_on(world: World, tmp_path: Path) -> None:
    token = world.token(world.worker, "remote")
    remote = ToolServer.remote(
        world.url, world.key, tenants=["acme"], audience=world.notes, address=world.gate.base, proxies=PROXIES, certificate_header=HEADER
    )
    remote.route("notes.write", "POST", "/notes", args={"text": body()})
    async with remote.lifespan():
        for holder, status in ((world.other, 401), (world.worker, 200)):
            sent = {"Authorization": f"Bearer {token}", HEADER: urllib.parse.quote(holder.pem)}
            assert await posted(remote, "127.0.0.1", [*sent.items()]) == status


async def posted(server: ToolServer, peer: str, headers: list[tuple[str, str]]) -> int:
    """The status of a request from this address."""
    through = httpx.ASGITransport(RedeemMiddleware(Orders(), server), client=(peer, 1))
    async with httpx.AsyncClient(transport=through, base_url="http://x") as http:
        return (await http.post("/notes", json={"text": "x"}, headers=headers)).status_code


async def test_a_header_counts_from_the_configured_proxies_and_once(world: World, tmp_path: Path) -> None:
    token = world.token(world.worker, "header")
    sent = [("Authorization", f"Bearer {token}"), (HEADER, urllib.parse.quote(world.worker.pem))]
    elsewhere = world.tool_server(tmp_path / "a", proxies={**PROXIES, "addresses": ["10.0.0.0/8"]}, certificate_header=HEADER)
    nowhere = world.tool_server(tmp_path / "b")
    async with elsewhere.lifespan(), nowhere.lifespan():
        assert await posted(elsewhere, "127.0.0.1", sent) == 401
        assert await posted(nowhere, "127.0.0.1", sent) == 401
        assert await posted(elsewhere, "10.1.1.1", [*sent, sent[1]]) == 400
        for other in ("", "x", urllib.parse.quote("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")):
            assert await posted(elsewhere, "10.1.1.1", [sent[0], (HEADER, other)]) == 401
        assert await posted(elsewhere, "10.1.1.1", sent) == 200


def test_a_gate_refuses_two_headers_for_one_certificate(world: World) -> None:
    answer = world.gate.http.post("/oauth2/token", headers=[(HEADER, "a"), (HEADER, "b")])
    assert (answer.status_code, answer.json()["error_description"]) == (400, f"{HEADER.lower()}: expected one header")


def test_half_of_the_settings_is_refused(world: World, tmp_path: Path) -> None:
    for more in (
        {"proxies": PROXIES},
        {"certificate_header": HEADER},
        {"proxies": {"addresses": ["127.0.0.1"]}, "certificate_header": HEADER},
        {"proxies": PROXIES, "certificate_header": ""},
    ):
        with pytest.raises(ConfigError, match="certificate_header"):
            world.tool_server(tmp_path / "audit", **more)
    with pytest.raises(ConfigError, match=r"proxies\.certificate"):
        world.tool_server(tmp_path / "audit", proxies={**PROXIES, "certificate": "der"}, certificate_header=HEADER)


class OwnTLS(H11Protocol):
    """uvicorn with ASGI's extension `tls`, which says whose certificate the connection has."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        chain, app = [ssl.DER_cert_to_PEM_cert(shown)] if shown else [], self.app
        tls = {"tls_version": 0x0304, "client_cert_chain": chain, "client_cert_error": None}

        async def with_tls(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "extensions": {**scope.get("extensions", {}), "tls": tls}}, receive, send)

        self.app = with_tls


def test_the_connection_itself_may_have_the_certificate(world: World, tmp_path: Path) -> None:
    token, port = world.token(world.worker, "own"), free_port()
    app, own = RedeemMiddleware(Orders(), world.tool_server(tmp_path / "audit")), world.authority.with_suffix(".key")
    tls: dict[str, Any] = {"ssl_certfile": world.authority, "ssl_keyfile": own, "ssl_ca_certs": str(world.clients)}
    with in_thread(app, port, http=OwnTLS, ssl_cert_reqs=ssl.CERT_OPTIONAL, **tls):
        sent = {"Authorization": f"Bearer {token}", HEADER: urllib.parse.quote(world.worker.pem)}
        for holder, status in ((None, 401), (world.other, 401), (world.worker, 200)):
            with world.http(f"https://127.0.0.1:{port}", holder) as http:
                assert http.post("/notes", json={"text": "x"}, headers=sent).status_code == status


def test_a_client_known_by_its_certificate_gets_tokens_for_it(world: World) -> None:
    call = detail("notes.write", "desk.notes", {"text": "x"}, tool_call_id="partner")
    form = Asking(world.gate).form(world.place.token(), call, client_id="partner", subject_token_type=JWT)
    with world.http(world.url, world.worker) as http:
        assert error_of(http.post("/oauth2/token", data=form)) == (401, "invalid_client")
    with world.http(world.url, world.client) as http:
        answer = http.post("/oauth2/token", data=form)
        assert answer.status_code == 200, (answer.text, world.gate.log()[-1])
        metadata = http.get("/.well-known/oauth-authorization-server").json()
    assert claims(answer.json()["access_token"])["cnf"] == {"x5t#S256": world.client.thumbprint}
    refused(world.write(answer.json()["access_token"], world.worker))
    assert world.write(answer.json()["access_token"], world.client).status_code == 200
    assert metadata["tls_client_certificate_bound_access_tokens"] is True
    assert "self_signed_tls_client_auth" in metadata["token_endpoint_auth_methods_supported"]


def test_a_credential_that_names_a_certificate_is_exchanged_with_it_alone(world: World) -> None:
    """A client with a key of its own, whose token is bound to the certificate of its workload; without such a token, it gets plain ones."""
    notes = Notes(world.place, world.gate)
    bound = world.place.token(cnf={"x5t#S256": world.worker.thumbprint})
    call = detail("notes.write", "desk.notes", {"text": "x"})
    for holder, credential, expected in (
        (world.other, bound, (400, "invalid_request")),
        (None, bound, (400, "invalid_request")),
        (world.worker, bound, {"x5t#S256": world.worker.thumbprint}),
        (world.worker, world.place.token(), None),
    ):
        with world.http(world.url, holder) as http:
            answer = http.post("/oauth2/token", data={**notes.asking.form(credential, call), **notes.client.asserted()})
        got: Any = claims(answer.json()["access_token"]).get("cnf") if answer.status_code == 200 else error_of(answer)
        assert got == expected, (answer.text, world.gate.log()[-1])


def test_who_waits_for_a_person_shows_the_same_certificate(world: World) -> None:
    waiting = world.asked(world.worker, "waits", arguments={"urgent": "yes"}, completion_mode="deferred")
    assert error_of(waiting) == (400, "authorization_pending"), world.gate.log()[-1]
    form = {"grant_type": DEFERRED, "deferral_code": waiting.json()["deferral_code"], "client_id": "worker"}

    def poll(holder: Holder | None) -> httpx.Response:
        with world.http(world.url, holder) as http:
            return http.post("/oauth2/token", data=form)

    store = world.place.store
    kept = [store.command("GET", key) for key in re.findall(r"ag:\S+", store.command("KEYS", "*deferred*"))]
    assert any('"v":2' in each and world.worker.thumbprint in each for each in kept), "a gate of before would ask for no certificate"
    assert error_of(poll(None)) == error_of(poll(world.other)) == (401, "invalid_client")
    assert error_of(poll(world.worker)) == (400, "authorization_pending")
    answered_by(world.place, held(world.place), release=True)
    time.sleep(5.1)  # the gate's pace
    answer = poll(world.worker)
    assert answer.status_code == 200, (answer.text, world.gate.log()[-1])
    assert claims(answer.json()["access_token"])["cnf"] == {"x5t#S256": world.worker.thumbprint}


def test_a_call_that_waited_is_bound_as_it_was_asked_whatever_credential_comes_for_it(world: World) -> None:
    notes, bound = Notes(world.place, world.gate), world.place.token(cnf={"x5t#S256": world.worker.thumbprint})
    call = detail("notes.write", "desk.notes", {"text": "x", "urgent": "yes"}, tool_call_id="plain")
    with world.http(world.url, world.worker) as http:
        form = {**notes.asking.form(bound, call), **notes.client.asserted(), "completion_mode": "deferred"}
        waiting = http.post("/oauth2/token", data=form)
        assert error_of(waiting) == (400, "authorization_pending"), world.gate.log()[-1]
        answered_by(world.place, held(world.place), release=True)
        code = {"grant_type": DEFERRED, "deferral_code": waiting.json()["deferral_code"]}
        plain = {"subject_token": world.place.token(), "subject_token_type": JWT}
        answer = http.post("/oauth2/token", data={**code, **plain, **notes.client.asserted()})
    assert answer.status_code == 200, (answer.text, world.gate.log()[-1])
    assert claims(answer.json()["access_token"])["cnf"] == {"x5t#S256": world.worker.thumbprint}


def test_a_worker_that_proves_neither_key_nor_certificate_gets_nothing(world: World) -> None:
    assert error_of(world.asked(None, "nothing")) == (400, "invalid_request")
    assert error_of(world.asked(world.other, "nothing", named=world.worker.thumbprint)) == (400, "invalid_request")


# --- whose certificate a connection has --------------------------------------------------------------------------------------------
class Seen(NamedTuple):
    """A request's connection: its peer, what the server says of its TLS, what the header says."""

    peer: str
    own: str = ""
    header: str = ""
    error: str | None = None


@pytest.mark.parametrize(
    ("seen", "whose"),
    [
        (Seen("10.0.0.1", header="header"), "header"),
        (Seen("10.0.0.1", own="proxy", header="header"), "header"),
        (Seen("10.0.0.1", own="proxy"), None),
        (Seen("192.0.2.1", header="header"), None),
        (Seen("192.0.2.1", own="own", header="header"), "own"),
        (Seen("192.0.2.1", own="own", error="unknown authority"), None),
        (Seen("", header="header"), None),
    ],
    ids=str,
)
def test_whose_certificate_counts(seen: Seen, whose: str | None) -> None:
    ca = CA()
    pems = {name: ca.svid(WORKER) for name in ("own", "proxy", "header")}
    chain = [pems[seen.own]] if seen.own else []
    headers = [(HEADER.lower().encode(), urllib.parse.quote(pems[seen.header]).encode())] if seen.header else []
    tls = {"client_cert_chain": chain, "client_cert_error": seen.error}
    scope = {"client": (seen.peer, 1) if seen.peer else None, "headers": headers, "extensions": {"tls": tls}}
    found = ClientCertificates({"addresses": ["10.0.0.0/8"], "certificate": "pem"}, HEADER).shown(scope)
    assert found == (thumbprint(pems[whose]) if whose else None)


def test_a_certificate_in_a_header_counts_from_proxies_that_pass_them_on_in_one_form() -> None:
    pem = CA().svid(WORKER)
    quoted, proxies = urllib.parse.quote(pem), {"addresses": ("10.0.0.0/8",)}
    said = "Hash=" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    for peer, value, form, counts in (
        ("10.0.0.1", quoted, "pem", True),
        ("10.0.0.1", f'{said};Cert="{quoted}";URI={WORKER};URI=x', "xfcc", True),
        ("10.0.0.1", f'{said};Cert="{quoted}",{said};Cert="{quoted}"', "xfcc", False),
        ("10.0.0.1", f'{said};Cert="{quoted}";Cert="{quoted}"', "xfcc", False),
        ("10.0.0.1", f'{said};{said};Cert="{quoted}"', "xfcc", False),
        ("10.0.0.1", f'Hash=a;Chain="a";URI=x;Cert={quoted}', "xfcc", False),
        ("10.0.0.1", f'Cert="{quoted}"', "xfcc", False),
        ("10.0.0.1", f"{said};Cert=a", "xfcc", False),
        ("10.0.0.1", quoted, "xfcc", False),
        ("10.0.0.1", f"{quoted},{quoted}", "pem", False),
        ("10.0.0.1", quoted, None, False),
        ("192.0.2.1", quoted, "pem", False),
        ("", quoted, "pem", False),
    ):
        found = shown_certificate(Connection(peer, certificate=value), ProxySettings.model_validate({**proxies, "certificate": form}))
        assert found == (thumbprint(pem) if counts else None), (peer, form)
    assert shown_certificate(Connection("10.0.0.1", certificate=quoted), None) is None
