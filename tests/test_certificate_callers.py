"""Callers with a certificate (RFC 8705), over real TLS: httpx and `agentgate exchange`, known by it or bound to it, never without it."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.errors import ConfigError, KeyRefused
from agentgate.integrations.client_certificate import ClientCertificate
from agentgate.integrations.exchange import AskedFor, Credentials, ExchangeRefused, TokenEndpoint
from agentgate.integrations.httpx import GateAuth
from agentgate.token.signing import RunKey
from tests.test_certificate_bound import Holder, World, claims

TOOL = "notes.write"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        made = World(tmp_path_factory.mktemp("callers"), stack)
        for holder in (made.worker, made.other, made.client):
            holder.file.chmod(0o600)
        yield made


def shown(world: World, holder: Holder) -> ClientCertificate:
    return ClientCertificate.read(holder.file, authorities=world.authority)


def worker(world: World, certificate: ClientCertificate, call: str, **more: Any) -> httpx.Auth:
    """A workload's call: its X.509-SVID is all it has."""
    gate = GateAuth(world.url, Credentials("worker", subject=certificate), certificate=certificate, **more)
    return gate.call(TOOL, {"text": "x"}, workflow="desk.worker", tool_call_id=call)


def partner(world: World, certificate: ClientCertificate, call: str, *, client: str = "partner", **more: Any) -> httpx.Auth:
    """A partner's call: a token of its own issuer, and a certificate that the gate knows it by."""
    gate = GateAuth(world.url, Credentials(client, subject=world.place.token), certificate=certificate, **more)
    return gate.call(TOOL, {"text": "x"}, workflow="desk.notes", tool_call_id=call)


# --- httpx ------------------------------------------------------------------------------------------------------------------------
def test_a_workload_calls_with_its_certificate_and_without_a_proof(world: World) -> None:
    certificate, ran = shown(world, world.worker), len(world.orders.seen)
    once = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(verify=certificate.context, trust_env=False, limits=once) as http:
        answer = http.post(f"{world.notes}/notes", json={"text": "x"}, auth=worker(world, certificate, "svid"))
    assert answer.status_code == 200, (answer.text, world.gate.log()[-1])
    assert len(world.orders.seen) == ran + 1
    assert "DPoP" not in answer.request.headers
    scheme, _, token = answer.request.headers["Authorization"].partition(" ")
    assert (scheme, claims(token)["cnf"]) == ("Bearer", {"x5t#S256": world.worker.thumbprint})


async def test_it_is_the_same_awaited(world: World) -> None:
    certificate = shown(world, world.client)
    async with httpx.AsyncClient(verify=certificate.context, trust_env=False) as http:
        answer = await http.post(f"{world.notes}/notes", json={"text": "x"}, auth=partner(world, certificate, "awaited"))
    assert answer.status_code == 200, (answer.text, world.gate.log()[-1])
    assert claims(answer.request.headers["Authorization"].partition(" ")[2])["cnf"] == {"x5t#S256": world.client.thumbprint}


def test_a_client_known_by_its_certificate_may_bind_its_tokens_to_a_key(world: World) -> None:
    certificate = shown(world, world.client)
    with httpx.Client(verify=certificate.context, trust_env=False) as http:
        answer = http.post(f"{world.notes}/notes", json={"text": "x"}, auth=partner(world, certificate, "key", key=RunKey.generate()))
    assert answer.status_code == 200, (answer.text, world.gate.log()[-1])
    assert answer.request.headers["Authorization"].startswith("DPoP ")
    assert "DPoP" in answer.request.headers


def no_certificate(refused: pytest.ExceptionInfo[ExchangeRefused]) -> bool:
    return refused.value.error == "no_certificate" and "httpx.Client(verify=certificate.context)" in refused.value.description


def test_a_client_that_shows_no_certificate_or_another_is_told_which_is_missing(world: World) -> None:
    certificate, seen = shown(world, world.client), len(world.orders.seen)
    plain, other = ssl.create_default_context(cafile=world.authority), shown(world, world.other).context
    for context in (plain, other):
        for auth in (partner(world, certificate, "none"), partner(world, certificate, "none", key=RunKey.generate())):
            with httpx.Client(verify=context, trust_env=False) as http, pytest.raises(ExchangeRefused) as refused:
                http.post(f"{world.notes}/notes", json={"text": "x"}, auth=auth)
            assert no_certificate(refused), refused.value
    assert len(world.orders.seen) == seen


async def test_so_is_one_that_is_awaited(world: World) -> None:
    certificate = shown(world, world.client)
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=world.authority), trust_env=False) as http:
        with pytest.raises(ExchangeRefused) as refused:
            await http.post(f"{world.notes}/notes", json={"text": "x"}, auth=partner(world, certificate, "none"))
    assert no_certificate(refused), refused.value


def test_a_token_for_whoever_has_it_is_not_sent(world: World) -> None:
    """A client known by its credential alone: the gate binds its token to nothing."""
    certificate, seen = shown(world, world.client), len(world.orders.seen)
    with httpx.Client(verify=certificate.context, trust_env=False) as http, pytest.raises(ExchangeRefused) as refused:
        http.post(f"{world.notes}/notes", json={"text": "x"}, auth=partner(world, certificate, "plain", client="job"))
    assert (refused.value.error, "bound to this certificate" in refused.value.description) == ("invalid_answer", True)
    assert len(world.orders.seen) == seen


# --- what a gate may answer -------------------------------------------------------------------------------------------------------
def token(**said: Any) -> str:
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "ES256"}, said, "x"))


@pytest.mark.parametrize(
    ("kind", "cnf"),
    [
        ("DPoP", {"x5t#S256": "own"}),
        ("Bearer", {"x5t#S256": "another"}),
        ("Bearer", {"x5t#S256": "own", "jkt": "key"}),
        ("Bearer", {"jkt": "own"}),
        ("Bearer", {}),
        ("Bearer", None),
        ("Bearer", "no token"),
    ],
    ids=str,
)
def test_an_answer_that_is_not_bound_to_the_certificate_is_refused(world: World, kind: str, cnf: Any) -> None:
    certificate = shown(world, world.worker)
    endpoint, asked = TokenEndpoint(world.url, None, certificate=certificate), AskedFor(TOOL, "desk.worker", {})

    def answer(kind: str, text: str) -> bytes:
        detail = {"identifier": TOOL, "locations": [world.notes]}
        return json.dumps({"access_token": text, "token_type": kind, "expires_in": 60, "authorization_details": [detail]}).encode()

    own = {"x5t#S256": certificate.thumbprint}
    good = endpoint.token(200, answer("Bearer", token(cnf=own)), asked)
    assert good.headers("POST", f"{world.notes}/notes") == {"Authorization": f"Bearer {token(cnf=own)}"}
    if isinstance(cnf, dict):
        cnf = {name: certificate.thumbprint if value == "own" else value for name, value in cnf.items()}
    text = "a.b" if cnf == "no token" else token(cnf=cnf)
    with pytest.raises(ExchangeRefused, match="not bound to this certificate"):
        endpoint.token(200, answer(kind, text), asked)
    if kind == "DPoP":  # nor does a key's owner take a token for a certificate
        with pytest.raises(ExchangeRefused, match="not bound to this key"):
            TokenEndpoint(world.url, RunKey.generate(), certificate=certificate).token(200, answer("Bearer", token(cnf=own)), asked)


def test_a_token_for_a_certificate_is_not_sent_without_tls(world: World) -> None:
    endpoint, asked = TokenEndpoint(world.url, None, certificate=shown(world, world.worker)), AskedFor(TOOL, "desk.worker", {})
    detail = {"identifier": TOOL, "locations": ["http://127.0.0.1:1"]}
    text = token(cnf={"x5t#S256": world.worker.thumbprint})
    said = {"access_token": text, "token_type": "Bearer", "expires_in": 60, "authorization_details": [detail]}
    given = endpoint.token(200, json.dumps(said).encode(), asked)
    with pytest.raises(ExchangeRefused, match="without TLS"):
        given.headers("POST", "http://127.0.0.1:1/notes")


def test_a_certificate_is_shown_to_no_gate_without_tls(world: World) -> None:
    certificate = shown(world, world.worker)
    for given, setting in (({"gate": world.gate.base}, "gate"), ({"gate": world.url, "address": world.gate.base}, "address")):
        with pytest.raises(ConfigError, match=f"'{setting}'.*shown in TLS"):
            TokenEndpoint(given["gate"], None, certificate=certificate, address=given.get("address"))
    with pytest.raises(ConfigError, match="a key, or a certificate"):
        TokenEndpoint(world.url, None)
    with pytest.raises(ConfigError, match="signs no proof"):
        TokenEndpoint(world.url, None, certificate=certificate).proof_with()


# --- the files ----------------------------------------------------------------------------------------------------------------------
def test_a_certificate_comes_with_its_own_key_which_nobody_else_reads(world: World, tmp_path: Path) -> None:
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    pem.write_text(world.worker.pem)
    whole = world.worker.file.read_bytes()
    key.write_bytes(whole[len(world.worker.pem) :])
    key.chmod(0o600)
    assert ClientCertificate.read(pem, key).thumbprint == world.worker.thumbprint
    certificate = ClientCertificate.read(str(world.worker.file))
    assert repr(certificate) == f"<ClientCertificate {world.worker.thumbprint}>"
    with pytest.raises(TypeError):
        pickle.dumps(certificate)
    key.chmod(0o640)
    with pytest.raises(KeyRefused, match="others may read it"):
        ClientCertificate.read(pem, key)


def test_what_is_no_certificate_with_its_key_is_named(world: World, tmp_path: Path) -> None:
    own, plain = tmp_path / "own.pem", tmp_path / "plain.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    form, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    own.write_bytes(private.private_bytes(form, pkcs8, serialization.NoEncryption()))
    locked = tmp_path / "locked.pem"
    locked.write_bytes(world.worker.pem.encode() + private.private_bytes(form, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    plain.write_text(world.worker.pem)
    for path in (own, locked, plain):
        path.chmod(0o600)
    for pem, key in ((own, None), (plain, None), (plain, own), (locked, None), (own, world.worker.file)):
        with pytest.raises(KeyRefused, match="expected a certificate as PEM"):
            ClientCertificate.read(pem, key)
    for pem, key in ((tmp_path / "none.pem", None), (tmp_path / "none.pem", own), (plain, tmp_path / "none.pem")):
        with pytest.raises(ConfigError, match=r"none\.pem.*a file that can be read"):
            ClientCertificate.read(pem, key)
    for authorities in (tmp_path / "none.pem", own):
        with pytest.raises(ConfigError, match="authorities"):
            ClientCertificate.read(world.worker.file, authorities=authorities)


# --- agentgate exchange -------------------------------------------------------------------------------------------------------------
def command(world: World, *more: str, client: str = "worker", workflow: str = "desk.worker", **environment: str) -> Any:
    given = ["--client", client, "-w", workflow, "-t", TOOL, "-a", '{"text": "x"}', *more]
    return CliRunner().invoke(app, ["exchange", world.url, *given], env={"SSL_CERT_FILE": str(world.authority), **environment})


def sent(world: World, headers: str, *more: str) -> str:
    """The status of the request that a shell sends with these headers."""
    url = f"{world.notes}/notes"
    asked = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", str(world.authority), "--noproxy", "*", "--json", '{"text": "x"}']
    curl = shutil.which("curl")
    assert curl is not None
    return subprocess.run([curl, *asked, "-H", "@-", *more, url], input=headers, text=True, capture_output=True, check=False).stdout


def test_a_shell_exchanges_and_sends_with_a_certificate(world: World) -> None:
    certificate = ["--certificate", str(world.worker.file)]
    done = command(world, "--subject", "certificate", *certificate, "--call-id", "shell", "--for", f"POST {world.notes}/notes")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Authorization: Bearer ")
    assert len(done.stdout.splitlines()) == 1
    assert sent(world, done.stdout) == "401"
    assert sent(world, done.stdout, "--cert", str(world.other.file)) == "401"
    assert sent(world, done.stdout, "--cert", str(world.worker.file)) == "200"


def test_a_partner_in_a_shell_is_known_by_its_certificate(world: World, tmp_path: Path) -> None:
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    pem.write_text(world.client.pem)
    key.write_bytes(world.client.file.read_bytes()[len(world.client.pem) :])
    key.chmod(0o600)
    given = ["--subject", "env:JOB", "--certificate", str(pem), "--certificate-key", str(key)]
    as_partner = {"client": "partner", "workflow": "desk.notes"}
    done = command(world, *given, "--call-id", "bound", **as_partner, JOB=world.place.token())
    assert (done.exit_code, claims(done.stdout)["cnf"]) == (0, {"x5t#S256": world.client.thumbprint}), done.output
    done = command(world, *given, "--key", str(tmp_path / "k.pem"), **as_partner, JOB=world.place.token())
    assert (done.exit_code, list(claims(done.stdout)["cnf"])) == (0, ["jkt"]), done.output
    without = command(world, "--subject", "env:JOB", "--key", str(tmp_path / "k.pem"), **as_partner, JOB=world.place.token())
    assert (without.exit_code, without.stdout, "invalid_client" in without.stderr) == (1, "", True)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--subject", "certificate", "--key", "k.pem"), "--certificate FILE, an X.509-SVID"),
        (("--subject", "env:JOB", "--key", "k.pem", "--certificate-key", "k.pem"), "--certificate FILE, beside --certificate-key"),
        (("--subject", "env:JOB"), "--certificate FILE"),
        (("--subject", "certificate", "--certificate", "nowhere.pem"), "nowhere.pem"),
    ],
)
def test_what_is_missing_is_named(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(world, *more, JOB=world.place.token())
    assert (done.exit_code, done.stdout) == (1, "")
    assert says in " ".join(done.stderr.split())


def test_a_token_that_the_gate_bound_to_nothing_is_not_printed(world: World) -> None:
    given = ["--subject", "env:JOB", "--certificate", str(world.client.file)]
    done = command(world, *given, client="job", workflow="desk.notes", JOB=world.place.token())
    assert (done.exit_code, done.stdout, "not bound to this certificate" in done.stderr) == (1, "", True)
