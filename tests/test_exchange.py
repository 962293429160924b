"""The caller's side: httpx and `agentgate exchange` against a served gate and a tool server, each a real process or server on loopback."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.errors import ConfigError
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.integrations.exchange import AskedFor, Credentials, ExchangeRefused, TokenEndpoint
from agentgate.integrations.httpx import GateAuth
from agentgate.token.signing import RunKey
from tests.authority import GATE, Key, web
from tests.founding import World
from tests.served import Process, in_thread, served
from tests.servers import Server, as_tool_server, redis_binary
from tests.test_service_founding import DEPLOY, settings
from tests.toolshop import Orders
from tests.upstream import CANARY, Bank

DEPLOYER = "https://deploy.acme.example"
TOOL, WORKFLOW = "cloud.assume-deploy-role", "ci.deploy"


class Sts(Bank):
    """A broker of the founding world's name and settings."""

    takes = frozenset({"role", "region"})


class Loopback(httpx.HTTPTransport):
    """Real HTTP to loopback, for hosts that only DNS would know."""

    def __init__(self, ports: dict[str, int]) -> None:
        super().__init__()
        self.ports, self.sent = ports, list[httpx.Request]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        request = httpx.Request(request.method, request.url, headers=request.headers, stream=request.stream, extensions=request.extensions)
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self.ports[request.url.host])
        return super().handle_request(request)


class AsyncLoopback(httpx.AsyncHTTPTransport):
    """See `Loopback`."""

    def __init__(self, ports: dict[str, int]) -> None:
        super().__init__()
        self.ports = ports

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request = httpx.Request(request.method, request.url, headers=request.headers, stream=request.stream, extensions=request.extensions)
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self.ports[request.url.host])
        return await super().handle_async_request(request)


class Stage:
    """A served gate, a tool server on the same store, and what its tool was given."""

    def __init__(self, world: World, gate: Process, tools: Orders, port: int) -> None:
        self.world, self.gate, self.tools = world, gate, tools
        self.ports = {"gate.acme.example": gate.port, "deploy.acme.example": port}
        self._runs = 20_000

    def job(self) -> str:
        """The token of a job of its own."""
        self._runs += 1
        return self.world.job(run_id=str(self._runs))

    def auth(self, **more: Any) -> GateAuth:
        job = more.pop("job", None) or self.job()
        return GateAuth(GATE, Credentials("shop-ci", lambda: job), **more)

    def client(self) -> httpx.Client:
        return httpx.Client(transport=Loopback(self.ports), trust_env=False)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("exchange")
    store = Server(redis_binary(), folder / "server", durable=True)
    try:
        with web() as web_:
            world = World(web_, folder)
            with served(folder, settings(world, folder, {}, store=store.url)) as gate:
                keys = gate.http.get("/oauth2/jwks").json()
                own: dict[str, Any] = {
                    "store": as_tool_server(store.url, DEPLOYER, "acme-eu"),
                    "audit": str(folder / "tool-audit"),
                    "brokers": {"aws-sts": Sts(expires_at=time.time() + 600)},
                }
                server = ToolServer.of(keys, issuer=GATE, tenants=["acme-eu"], audience=DEPLOYER, **own)
                server.route(TOOL, "POST", "/roles", args={"service": body(), "scopes": body()}, scope="deploy:assume")
                tools = Orders()
                tools.answer = {"role": "given"}
                with in_thread(RedeemMiddleware(tools, server)) as port:
                    yield Stage(world, gate, tools, port)
            world.gate.close()
    finally:
        store.stop()


# --- httpx ----------------------------------------------------------------------------------------------------------------------


def test_a_request_is_exchanged_shown_and_redeemed(stage: Stage) -> None:
    with stage.client() as http:
        ran = len(stage.tools.seen)
        answer = http.post(f"{DEPLOYER}/roles", json=DEPLOY, auth=stage.auth().call(TOOL, DEPLOY, workflow=WORKFLOW))
        assert (answer.status_code, answer.json()) == (200, {"role": "given"})
        assert [seen["args"] for seen in stage.tools.seen[ran:]] == [DEPLOY]


async def test_it_is_the_same_awaited(stage: Stage) -> None:
    async with httpx.AsyncClient(transport=AsyncLoopback(stage.ports), trust_env=False) as http:
        answer = await http.post(f"{DEPLOYER}/roles", json=DEPLOY, auth=stage.auth().call(TOOL, DEPLOY, workflow=WORKFLOW))
        assert (answer.status_code, answer.json()) == (200, {"role": "given"})


def test_each_attempt_has_a_token_of_its_own_and_the_gate_lets_none_run_twice(stage: Stage) -> None:
    with stage.client() as http:
        call = stage.auth().call(TOOL, DEPLOY, workflow=WORKFLOW, tool_call_id="once")
        ran = len(stage.tools.seen)
        assert http.post(f"{DEPLOYER}/roles", json=DEPLOY, auth=call).status_code == 200
        with pytest.raises(ExchangeRefused) as refused:
            http.post(f"{DEPLOYER}/roles", json=DEPLOY, auth=call)
        assert (refused.value.error, refused.value.description) == ("access_denied", "already_done")
        assert len(stage.tools.seen) == ran + 1


def test_an_act_over_the_exchange_needs_a_store_that_keeps_everything(stage: Stage, tmp_path: Path) -> None:
    """The run of a credential that a store has lost would be opened again, by a gate that knows nothing of its acts."""
    store = Server(redis_binary(), tmp_path / "server")
    try:
        with served(tmp_path, settings(stage.world, tmp_path, {}, store=store.url)) as gate:
            with httpx.Client(transport=Loopback({**stage.ports, "gate.acme.example": gate.port})) as http:
                call = stage.auth().call(TOOL, DEPLOY, workflow=WORKFLOW)
                with pytest.raises(ExchangeRefused) as refused:
                    http.post(f"{DEPLOYER}/roles", json=DEPLOY, auth=call)
            assert "run_elsewhere" in gate.stderr.read_text()
    finally:
        store.stop()
    assert refused.value.error == "temporarily_unavailable"


def test_a_token_that_is_not_valid_any_more_is_minted_again_once(stage: Stage) -> None:
    transport = Loopback(stage.ports)
    tokens: list[str] = []

    class Losing(httpx.BaseTransport):
        """The first request to the tool arrives with a token that somebody else asked anew: it is void."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.host == "deploy.acme.example":
                tokens.append(request.headers["Authorization"])
                if len(tokens) == 1:  # the same call, authorised again: this deletes the unburned token
                    with httpx.Client(transport=transport) as other:
                        endpoint = TokenEndpoint(GATE, key)
                        for _ in range(2):
                            form = endpoint.form(
                                AskedFor(TOOL, WORKFLOW, DEPLOY, tool_call_id="again"), Credentials("shop-ci", lambda: job)
                            )
                            answer = other.post(endpoint.url, data=form, headers=endpoint.proof())
                            if not endpoint.wants_nonce(answer.status_code, answer.headers, answer.content):
                                break
                        assert answer.status_code == 200
            return transport.handle_request(request)

    key, job = RunKey.generate(), stage.job()
    ran = len(stage.tools.seen)
    with httpx.Client(transport=Losing()) as http:
        call = stage.auth(key=key, job=job).call(TOOL, DEPLOY, workflow=WORKFLOW, tool_call_id="again")
        assert http.post(f"{DEPLOYER}/roles", json=DEPLOY, auth=call).status_code == 200
    transport.close()
    assert len(tokens) == len(set(tokens)) == 2
    assert len(stage.tools.seen) == ran + 1


def test_the_token_goes_nowhere_else(stage: Stage) -> None:
    transport = Loopback({**stage.ports, "evil.example": 1})
    with httpx.Client(transport=transport) as http, pytest.raises(ExchangeRefused) as refused:
        http.post("https://evil.example/roles", json=DEPLOY, auth=stage.auth().call(TOOL, DEPLOY, workflow=WORKFLOW))
    assert refused.value.error == "invalid_target"
    assert {request.url.host for request in transport.sent} == {"gate.acme.example"}


def test_other_arguments_than_those_of_the_token_are_refused(stage: Stage) -> None:
    with stage.client() as http:
        ran = len(stage.tools.seen)
        call = stage.auth().call(TOOL, DEPLOY, workflow=WORKFLOW)
        answer = http.post(f"{DEPLOYER}/roles", json={**DEPLOY, "service": "shop-api"}, auth=call)
        assert (answer.status_code, len(stage.tools.seen)) == (403, ran)


@pytest.mark.parametrize(
    "gate", ["http://gate.acme.example", "https://gate.acme.example/x", "gate.acme.example", "https://u@gate.example", ""]
)
def test_credentials_go_to_no_other_address_than_a_gates(gate: str) -> None:
    for given in ({"gate": gate}, {"gate": GATE, "address": gate or "x"}):
        with pytest.raises(ConfigError):
            TokenEndpoint(given["gate"], RunKey.generate(), address=given.get("address"))


@pytest.mark.parametrize(
    "change",
    [
        {"token_type": "Bearer"},
        {"token_type": None},
        {"access_token": ""},
        {"access_token": "a.b.c\nX-User: admin"},  # `agentgate exchange --for` writes it as a line for curl
        {"expires_in": "60"},
        {"authorization_details": [{"identifier": "other", "locations": [DEPLOYER]}]},
        {"authorization_details": [{"identifier": TOOL, "locations": [DEPLOYER, "https://evil.example"]}]},
        {"authorization_details": []},
    ],
)
def test_an_answer_that_is_not_for_this_call_and_key_is_refused(change: dict[str, Any]) -> None:
    good = {
        "access_token": "a.b.c",
        "token_type": "DPoP",
        "expires_in": 60,
        "authorization_details": [{"identifier": TOOL, "locations": [DEPLOYER]}],
    }
    endpoint, asked = TokenEndpoint(GATE, RunKey.generate()), AskedFor(TOOL, WORKFLOW, DEPLOY)
    assert endpoint.token(200, json.dumps(good).encode(), asked).reveal() == "a.b.c"
    for data in (json.dumps(good | change).encode(), b"", b"[]", b" " * 70_000 + json.dumps(good).encode()):
        with pytest.raises(ExchangeRefused):
            endpoint.token(200, data, asked)


def test_no_representation_shows_a_credential() -> None:
    who = Credentials("shop-ci", lambda: "secret-subject", actor=lambda: "secret-actor")
    token = TokenEndpoint(GATE, RunKey.generate()).token(
        200,
        json.dumps(
            {
                "access_token": "secret-token",
                "token_type": "DPoP",
                "expires_in": 60,
                "authorization_details": [{"identifier": TOOL, "locations": [DEPLOYER]}],
            }
        ).encode(),
        AskedFor(TOOL, WORKFLOW, DEPLOY),
    )
    assert "secret" not in repr(who) + repr(token) + str(token)


# --- the upstream credential ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "media", "status"),
    [
        ({"role": f"given by {CANARY}"}, "application/json", 200),
        (json.dumps({"role": CANARY}).replace("canary", "\\u0063anary").encode(), "application/json", 200),
        (f"key: {CANARY}".encode(), "text/plain", 200),
        (f"key: {CANARY}".encode(), "text/plain", 500),
        (b" " * 2_000_000 + CANARY.encode(), "text/plain", 200),
        (b" " * 17_000_000, "text/plain", 200),
        (b"x", f"text/plain; charset={CANARY}", 200),
        (RuntimeError(f"refused for {CANARY}"), "text/plain", 200),
    ],
    ids=["JSON", "escaped JSON", "text", "an error", "far behind", "too long to look into", "a header", "an exception"],
)
def test_an_answer_with_the_upstream_credential_in_it_is_withheld(stage: Stage, answer: Any, media: str, status: int) -> None:
    usual = stage.tools.answer, stage.tools.media, stage.tools.status
    stage.tools.answer, stage.tools.media, stage.tools.status = answer, media, status
    try:
        with stage.client() as http:
            ran = len(stage.tools.seen)
            got = http.post(f"{DEPLOYER}/roles", json=DEPLOY, auth=stage.auth().call(TOOL, DEPLOY, workflow=WORKFLOW))
    finally:
        stage.tools.answer, stage.tools.media, stage.tools.status = usual
    assert got.status_code == 502
    assert CANARY not in got.text + str(got.headers)
    assert len(got.content) < 1000
    assert len(stage.tools.seen) == ran + 1
    assert "accept-encoding" not in stage.tools.seen[-1]["headers"]


# --- agentgate exchange -----------------------------------------------------------------------------------------------------------


def command(stage: Stage, *more: str, args: Any = DEPLOY, **environment: str) -> Any:
    given = ["--client", "shop-ci", "-w", WORKFLOW, "-t", TOOL, "-a", json.dumps(args), "--address", stage.gate.base, *more]
    return CliRunner().invoke(app, ["exchange", GATE, *given], env=environment)


def test_a_shell_gets_the_headers_of_one_request(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "job").write_text(stage.job() + "\n")
    done = command(stage, "--subject", f"file:{tmp_path / 'job'}", "--key", str(tmp_path / "k.pem"), "--for", f"POST {DEPLOYER}/roles")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"Authorization: DPoP [\w.-]+\nDPoP: [\w.-]+\n", done.stdout)
    headers = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    ran = len(stage.tools.seen)
    with stage.client() as http:
        assert http.post(f"{DEPLOYER}/roles", json=DEPLOY, headers=headers).status_code == 200
    assert len(stage.tools.seen) == ran + 1


def test_credentials_for_a_gate_on_loopback_go_to_no_proxy(stage: Stage, tmp_path: Path) -> None:
    """It would read them; the one that is named here does not exist."""
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    done = command(stage, "--subject", "env:JOB", "--key", str(tmp_path / "k.pem"), JOB=stage.job(), **proxies)
    assert done.exit_code == 0, done.output


def test_a_file_and_the_key_are_their_owners_alone(stage: Stage, tmp_path: Path) -> None:
    key, out = tmp_path / "k.pem", tmp_path / "token"
    out.write_text("older")
    out.chmod(0o644)
    job = stage.job()
    for _ in range(2):  # the same key, so the same job may ask again
        done = command(stage, "--subject", "env:JOB", "--key", str(key), "--out", str(out), JOB=job)
        assert (done.exit_code, done.output) == (0, "")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (key, out)} == {0o600}
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", out.read_text())
    other = command(stage, "--subject", "env:JOB", "--key", str(tmp_path / "thief.pem"), JOB=job)
    assert (other.exit_code, other.stdout) == (1, "")
    assert "invalid_dpop_proof" in other.stderr
    key.chmod(0o644)
    readable = command(stage, "--subject", "env:JOB", "--key", str(key), JOB=job)
    assert (readable.exit_code, "chmod 600" in readable.stderr) == (1, True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    linked = command(stage, "--subject", "env:JOB", "--key", str(tmp_path / "k2.pem"), "--out", str(tmp_path / "link"), JOB=stage.job())
    assert (linked.exit_code, (tmp_path / "elsewhere").exists()) == (1, False)


@contextmanager
def github(job: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """GitHub's endpoint for a job's token, and what it was asked."""
    asked: list[tuple[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200 if self.headers["Authorization"] == "bearer right" else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"value": job}).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token?api-version=2.0", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_github_job_asks_for_its_own_token(stage: Stage, tmp_path: Path) -> None:
    with github(stage.job()) as (url, asked):
        given = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "right"}
        done = command(stage, "--key", str(tmp_path / "k.pem"), **given)
        assert done.exit_code == 0, done.output
        assert asked == [("/token?api-version=2.0&audience=https%3A%2F%2Fgate.acme.example", "bearer right")]
        wrong = command(stage, "--key", str(tmp_path / "k.pem"), **{**given, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "wrong-secret"})
        assert (wrong.exit_code, wrong.stdout, "wrong-secret" in wrong.stderr) == (1, "", False)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--subject", "eyJhbGciOi.secret.x"), "file:PATH, env:NAME"),
        (("--subject", "file:/nowhere"), "/nowhere"),
        (("--subject", "env:NOTHING"), "subject"),
        (("--subject", "github"), "id-token: write"),
        (("--subject", "env:BAD"), "subject"),
        (("--subject", "env:JOB", "-a", "[]"), "a JSON object"),
        (("--subject", "env:JOB", "--for", "roles"), "a method and an absolute URL"),
        (("--subject", "env:JOB", "--address", "http://gate.acme.example"), "https"),
        (("--subject", "env:JOB", "--address", "http://127.0.0.1:1"), "unreachable"),
    ],
)
def test_what_is_missing_is_named_and_no_credential_shown(stage: Stage, tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    done = command(stage, "--key", str(tmp_path / "k.pem"), *more, JOB="a.secret.b", BAD="two\nlines")
    assert (done.exit_code, done.stdout) == (1, "")
    assert says in done.stderr
    assert "secret" not in done.stderr


def test_a_refusal_is_the_gates_word_and_exit_code_1(stage: Stage, tmp_path: Path) -> None:
    job = stage.job()
    done = command(stage, "--subject", "env:JOB", "--key", str(tmp_path / "k.pem"), args={**DEPLOY, "scopes": ["ecs:*"]}, JOB=job)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "invalid_authorization_details (not_permitted)\nLook at --workflow, --tool" in done.stderr
    assert job not in done.stderr
    forged = command(stage, "--subject", "env:JOB", "--key", str(tmp_path / "k2.pem"), JOB=Key("gh", "RS256").sign({"iss": "x"}))
    assert (forged.exit_code, "invalid_client\nIt does not know this --client" in forged.stderr) == (1, True)
    hops = command(
        stage, "--subject", "env:JOB", "--delegation", "env:HOPS", "--key", str(tmp_path / "k3.pem"), JOB=stage.job(), HOPS="a.b.c d.e.f"
    )
    assert "invalid_request (credential)\nIt does not believe the token" in hops.stderr
    assert stage.gate.log()[-1]["reasons"][0]["field"].startswith("agent.via")  # both were sent, and are nobody's word


class Holding(BaseHTTPRequestHandler):
    """A gate that holds every call."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b'{"error": "access_denied", "error_description": "needs_approval"}')

    def log_message(self, *_: Any) -> None: ...


def test_a_call_that_waits_for_a_person_is_exit_code_2(stage: Stage, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Holding)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    done = command(stage, "--subject", "env:JOB", "--key", str(tmp_path / "k.pem"), "--address", address, JOB="a.b.c")
    server.shutdown()
    thread.join()
    server.server_close()
    assert (done.exit_code, done.stdout, "A person must release it" in done.stderr) == (2, "", True)


def test_without_a_key_or_a_request_a_token_would_be_of_no_use(stage: Stage) -> None:
    done = command(stage, "--subject", "env:JOB", JOB="a.b.c")
    assert (done.exit_code, "--key FILE" in done.stderr) == (1, True)


def test_the_github_action_gets_the_headers_of_a_request(stage: Stage, tmp_path: Path) -> None:
    action = yaml.safe_load((Path(__file__).parent.parent / "examples" / "github-action" / "action.yml").read_text())
    (step,) = action["runs"]["steps"]
    assert set(re.findall(r"inputs\.(\w+)", json.dumps(step["env"]))) == set(action["inputs"])
    assert "${{" not in step["run"]  # an input that is put into the script's text is run
    (tmp_path / "agentgate").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agentgate "$@" --address "{stage.gate.base}"\n')
    (tmp_path / "agentgate").chmod(0o755)
    with github(stage.job()) as (url, _):
        inputs = {"GATE": GATE, "CLIENT": "shop-ci", "WORKFLOW": WORKFLOW, "TOOL": TOOL, "ARGUMENTS": json.dumps(DEPLOY)}
        given = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "right", "RUNNER_TEMP": str(tmp_path)}
        own = {"REQUEST": f"POST {DEPLOYER}/roles", "GITHUB_OUTPUT": str(tmp_path / "output")}
        env = {**os.environ, **inputs, **given, **own, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        assert set(step["env"]) == {*inputs, "REQUEST"}
        done = subprocess.run(["bash", "-c", step["run"]], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    name, _, path = (tmp_path / "output").read_text().strip().partition("=")
    headers = dict(line.split(": ", 1) for line in Path(path).read_text().splitlines())
    with stage.client() as http:
        assert (name, http.post(f"{DEPLOYER}/roles", json=DEPLOY, headers=headers).status_code) == ("headers", 200)
