"""`agentgate probe` against real processes: all is refused as they are; with any one check taken out of their verifier it says so."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import tests.served
from agentgate.cli.main import app
from tests.authority import GATE, web
from tests.founding import World
from tests.preloaded import Forked
from tests.served import Process, served
from tests.servers import Server, as_tool_server, free_port, redis_binary
from tests.test_exchange import DEPLOYER, TOOL, WORKFLOW
from tests.test_service_founding import DEPLOY, settings

ROOT = Path(__file__).parent.parent
TOOL_SERVER = """
import json, os, sys
import uvicorn
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from tests.test_exchange import Sts
from tests.toolshop import Orders
import time
jwks, store, audit, port = sys.argv[1:]
server = ToolServer.of(json.load(open(jwks)), issuer="https://gate.acme.example", tenants=["acme-eu"], audience="https://deploy.acme.example",
                       store=store, audit=audit, brokers={"aws-sts": Sts(expires_at=time.time() + 600)})
server.route("cloud.assume-deploy-role", "POST", "/roles", args={"service": body(), "scopes": body()})
uvicorn.run(RedeemMiddleware(Orders(), server), port=int(port), log_level="critical", ws="none")
"""
# What is taken out of a tool server's verifier -> an attack that must be found to pass, or not to be refused for its reason.
WEAK = {
    "its signature": (
        """
from agentgate.token import jws, claims
claims.jws.verify = lambda text, keys: jws.split(text).unverified_payload
""",
        "alg none, signature kept",
    ),
    "its proof": ("import agentgate.redemption.steps as v\nv.check_proof = lambda *_: None", "no proof"),
    "its call": ("import agentgate.redemption.steps as v\nv.check_call = lambda *_: None", "argument service changed"),
    "its burn": (
        """
from agentgate.stores.ops import call
real, kept = call._burned, []
def read(*parts):
    kept.append(real(*parts))
    return kept[0]
call._burned = read
""",
        "replayed",
    ),
    "keys that stand twice": (
        "import json\nfrom agentgate.values import canonical\ncanonical._STRICT = json.JSONDecoder()",
        "a member twice",
    ),
    "its cap": (
        """
from agentgate.integrations.asgi import received, server
server.read_body = lambda receive, _: received.read_body(receive, 9 << 20)
received.RequestHead.check_body = lambda *_, **__: None
""",
        "a huge body",
    ),
    "its query": ("from agentgate.integrations.asgi import received\nreceived.names_token = lambda _: False", "token in the query"),
    "its headers": ("from agentgate.integrations.asgi import received\nreceived._REPLACING = frozenset()", "method in a header"),
}
WEAK_GATE = {
    "its subject's signature": ("import jwt.api_jws as j\nj.PyJWS._verify_signature = lambda *_, **__: None", "subject: signature changed"),
    "its proof": (
        """
from agentgate.identity import signed
from agentgate.token import dpop, jws
signed.check_proof = lambda proof, now, *, jkt, ath: dpop._header_jwk(jws.split(proof.header).header)[1]
""",
        "proof for another URL",
    ),
}


class Stage:
    """A served gate and its world, on a store that tool servers share."""

    def __init__(self, folder: Path, world: World, gate: Process, store: str) -> None:
        self.folder, self.world, self.gate, self.store = folder, world, gate, store
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(gate.http.get("/oauth2/jwks").text)
        self._runs = 30_000

    def job(self) -> str:
        self._runs += 1
        return self.world.job(run_id=str(self._runs))

    def token(self, folder: Path) -> list[str]:
        """Options for a fresh token and its key."""
        own = [
            "--client",
            "shop-ci",
            "-w",
            WORKFLOW,
            "-t",
            TOOL,
            "-a",
            json.dumps(DEPLOY),
            "--address",
            self.gate.base,
            "--subject",
            "env:JOB",
        ]
        files = ["--key", str(folder / "k.pem"), "--out", str(folder / "token")]
        done = CliRunner().invoke(app, ["exchange", GATE, *own, *files], env={"JOB": self.job()})
        assert done.exit_code == 0, done.output
        return ["--token", str(folder / "token"), "--key", str(folder / "k.pem"), "--body", json.dumps(DEPLOY)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("probe")
    store = Server(redis_binary(), folder / "server", durable=True)
    try:
        with web() as web_:
            world = World(web_, folder)
            with served(folder, settings(world, folder, {}, store=store.url)) as gate:
                yield Stage(folder, world, gate, store.url)
            world.gate.close()
    finally:
        store.stop()


@contextmanager
def tool_server(stage: Stage, folder: Path, weakened: str = "") -> Iterator[str]:
    """The address of a tool server in a process of its own, with something taken out of it."""
    port = free_port()
    given = [str(stage.jwks), as_tool_server(stage.store, "https://deploy.acme.example", "acme-eu"), str(folder / "audit"), str(port)]
    with (folder / "log").open("wb") as log:
        process = Forked(weakened + "\n" + TOOL_SERVER, *given, env=os.environ, cwd=ROOT, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None
            try:
                httpx.get(base, trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield base
    finally:
        process.terminate()
        process.wait(timeout=20)


def probed(url: str, *more: str, **env: str) -> tuple[int, dict[str, Any], Any]:
    """Exit code, verdicts by attack, and the whole."""
    done = CliRunner().invoke(app, ["probe", url, *more, "--json"], env=env)
    said = json.loads(done.stdout) if done.stdout else {"rows": []}
    return done.exit_code, {row["attack"]: row["verdict"] for row in said["rows"]}, done


def test_a_tool_server_refuses_every_attack_runs_the_request_once_and_refuses_its_replay(stage: Stage, tmp_path: Path) -> None:
    with tool_server(stage, tmp_path) as base:
        code, verdicts, done = probed(f"{DEPLOYER}/roles", *stage.token(tmp_path), "--address", base, "--spend")
    assert code == 0, done.output
    assert len(verdicts) >= 45
    assert {name for name, verdict in verdicts.items() if verdict != "refused"} == {"the request itself"}
    assert verdicts["the request itself"] == "as expected"


@pytest.mark.parametrize("what", WEAK)
def test_a_tool_server_without_one_check_is_found(stage: Stage, tmp_path: Path, what: str) -> None:
    weakened, attack = WEAK[what]
    with tool_server(stage, tmp_path, weakened) as base:
        code, verdicts, done = probed(f"{DEPLOYER}/roles", *stage.token(tmp_path), "--address", base, "--spend")
    assert (code, verdicts[attack] != "refused") == (1, True), done.output
    assert f"{attack}: got" in done.stderr


def asked(stage: Stage, gate: Process, folder: Path, *more: str) -> tuple[int, dict[str, Any], Any]:
    own = [
        "--client",
        "shop-ci",
        "-w",
        WORKFLOW,
        "-t",
        TOOL,
        "-a",
        json.dumps(DEPLOY),
        "--subject",
        "env:JOB",
        "--key",
        str(folder / "k.pem"),
    ]
    return probed(GATE, "--address", gate.base, *own, *more, JOB=stage.job())


def test_a_gate_refuses_every_attack_and_grants_the_exchange_to_its_own_key_alone(stage: Stage, tmp_path: Path) -> None:
    code, verdicts, done = asked(stage, stage.gate, tmp_path, "--spend")
    assert code == 0, done.output
    assert len(verdicts) >= 50
    assert {name for name, verdict in verdicts.items() if verdict != "refused"} == {"the exchange itself"}
    assert verdicts["the same credential with another key"] == "refused"


def test_a_gate_whose_client_serves_several_tenants_is_probed_for_one(stage: Stage, tmp_path: Path) -> None:
    given = settings(stage.world, tmp_path, {})
    given["clients"]["shop-ci"]["tenants"] = ["acme-eu", "acme-uk"]
    given["identity"]["issuers"]["github"]["tenants"] = ["acme-eu", "acme-uk"]
    with served(tmp_path, given) as gate:
        code, verdicts, done = asked(stage, gate, tmp_path, "--tenant", "acme-eu", "--spend")
        assert (code, verdicts["the exchange itself"]) == (0, "as expected"), done.stderr
        code, verdicts, done = asked(stage, gate, tmp_path, "--spend")
    assert (code, verdicts["the exchange itself"] == "as expected") == (1, False), done.stderr


def test_without_a_credential_it_tries_what_anybody_can_send_and_says_so(stage: Stage) -> None:
    done = CliRunner().invoke(app, ["probe", GATE, "--address", stage.gate.base])
    assert done.exit_code == 0, done.output
    assert re.search(r"^(\d+) of \1 hold$", done.stdout, re.MULTILINE)
    assert "Only what anybody can send was tried" in done.stderr


@pytest.mark.parametrize("what", WEAK_GATE)
def test_a_gate_without_one_check_is_found(stage: Stage, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weakened, attack = WEAK_GATE[what]
    monkeypatch.setattr(tests.served, "START", weakened + "\n" + tests.served.START)
    with served(tmp_path, settings(stage.world, tmp_path, {})) as gate:
        code, verdicts, done = asked(stage, gate, tmp_path)
    assert (code, verdicts[attack]) == (1, "passed"), done.output
    assert f"{attack}: got 200" in done.stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--spend",), "--client"),
        (("--token", "token"), "--key"),
        (("--address", "http://127.0.0.1:1"), "cannot be probed"),
        (("--address", "http://gate.example"), "https"),
        (("--client", "shop-ci", "--subject", "x.secret.y"), "file:PATH"),
    ],
)
def test_what_cannot_be_probed_is_named(more: tuple[str, ...], says: str) -> None:
    code, verdicts, done = probed(GATE, *more)
    assert (code, verdicts) == (1, {})
    assert says in done.stderr
    assert "secret" not in done.stderr


def test_a_server_that_protects_nothing_is_not_taken_for_one_that_refuses(stage: Stage, tmp_path: Path) -> None:
    own = stage.token(tmp_path)
    code, verdicts, _ = probed(f"{GATE}/nowhere", *own, "--address", stage.gate.base)  # everything is 404
    assert (code, verdicts["no token"], verdicts["argument service changed"]) == (1, "unclear", "unclear")
