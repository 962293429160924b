"""The service as its callers see it: a real process on loopback, its clients with keys of their own, and how they ask."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from agentgate.token.mint import DETAIL_TYPE
from tests.authority import Key, claims_of, jwks
from tests.preloaded import Forked
from tests.servers import free_port

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Of clients that speak plain HTTP: to read whom the machine trusts takes longer than a request.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# As `agentgate serve` starts it; `SHIFT` seconds move its clock, for workflows that have hours.
START = """
import os, sys, time
if float(os.environ.get("SHIFT", "0")):
    import time_machine
    time_machine.travel(time.time() + float(os.environ["SHIFT"]), tick=True).start()
from agentgate.cli.main import app
app()
"""


def toml(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Values as TOML."""
    lines = [f"{json.dumps(k)} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, Mapping) and v is not None]
    body = "\n".join(([f"[{'.'.join(map(json.dumps, path))}]"] if path and (lines or not values) else []) + lines)
    return "\n".join([body, *(toml(v, (*path, k)) for k, v in values.items() if isinstance(v, Mapping))]) + "\n"


class Process:
    """One `agentgate serve`, its log, and how to talk to it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, shift: float = 0.0, **environment: str) -> None:
        listen = str(settings.get("listen", ":0"))
        self.path = path = listen.removeprefix("unix:") if listen.startswith("unix:") else None
        self.port = free_port() if path else int(listen.rpartition(":")[2]) or free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.file = folder / f"gate-{self.port}.toml"
        self.file.write_text(toml({**settings, "listen": listen if path else f"127.0.0.1:{self.port}"}))
        self.issuer = str(settings["issuer"])
        self.stderr = folder / f"gate-{self.port}.log"
        self.stdout = folder / f"gate-{self.port}.out"
        env = {**os.environ, "SHIFT": str(shift), **environment}
        with self.stderr.open("wb") as err, self.stdout.open("wb") as out:
            command: Any = (START, "serve", "--settings", str(self.file))
            self.process: subprocess.Popen[bytes] | Forked
            if settings.get("workers", 1) > 1:  # its workers are new Pythons, and so it is, too; one that is killed leaves their counts
                env["TMPDIR"] = str(folder)
                self.process = subprocess.Popen([sys.executable, "-c", *command], stdout=out, stderr=err, env=env, cwd=folder)
            else:
                self.process = Forked(*command, stdout=out, stderr=err, env=env, cwd=folder)
        self.http = httpx.Client(base_url=self.base, timeout=10, trust_env=False, transport=httpx.HTTPTransport(NO_TLS, uds=path))
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.stderr.read_text()
            try:
                if self.path is not None:  # httpx leaves a socket open that it could not connect
                    with socket.socket(socket.AF_UNIX) as line:
                        line.connect(self.path)
                if self.http.get("/readyz").status_code == 200:
                    return
            except (httpx.TransportError, OSError):
                time.sleep(0.05)
        self.end()
        raise AssertionError(f"not ready after 30 seconds: {self.stderr.read_text()}")

    def log(self) -> list[dict[str, Any]]:
        """Every whole line of its log."""
        return [json.loads(line) for line in self.stderr.read_text().rpartition("\n")[0].splitlines()]

    def end(self) -> int:
        """SIGTERM, and its exit code."""
        self.http.close()
        self.process.terminate()
        return self.process.wait(timeout=20)


@contextmanager
def served(folder: Path, settings: Mapping[str, Any], **more: Any) -> Iterator[Process]:
    process = Process(folder, settings, **more)
    try:
        yield process
    finally:
        process.http.close()
        if process.process.poll() is None:
            process.end()


@contextmanager
def in_thread(application: Any, port: int = 0, **more: Any) -> Iterator[int]:
    """The port of an application that uvicorn serves in a thread of its own; `more`: of uvicorn's settings."""
    port = port or free_port()
    config = uvicorn.Config(application, port=port, log_level="critical", ws="none", timeout_graceful_shutdown=2, **more)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended at its start"
            time.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join()


class Party:
    """A client of the service with a key of its own."""

    def __init__(self, gate: Process, name: str, key: Key) -> None:
        self.gate, self.name, self.key = gate, name, key

    def assertion(self, **claims: Any) -> str:
        return self.key.sign({**claims_of(self.name, self.name, self.gate.issuer, life=60), **claims})

    def asserted(self, **claims: Any) -> dict[str, str]:
        """What a form says to be this client."""
        return {"client_id": self.name, "client_assertion_type": ASSERTION, "client_assertion": self.assertion(**claims)}

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """A request to one of our own endpoints."""
        return self.gate.http.post(path, json=body, headers={"Authorization": f"Bearer {self.assertion()}", **headers})


class Server(Party):
    """A tool server: what it redeems, and what it tells."""

    def redeem(self, token: str, tool: str, arguments: Mapping[str, Any], key: Key | None = None) -> httpx.Response:
        """Redeem; `key`: of the agent, which sends a proof with its token."""
        body: dict[str, Any] = {"token": token, "tool": tool, "arguments": dict(arguments)}
        if key is not None:
            url = "https://tools.example/call"
            body["proof"] = {"dpop": key.proof("POST", url, token=token), "method": "POST", "url": url}
        return self.post("/v1/redeem", body)


def publish(folder: Path, *keys: Key) -> str:
    """A key set as a file."""
    path = folder / f"{keys[0].kid}.json"
    path.write_text(json.dumps(jwks(*keys)))
    return str(path)


def detail(tool: str, workflow: str, arguments: Mapping[str, Any], /, **more: Any) -> dict[str, Any]:
    return {"type": DETAIL_TYPE, "identifier": tool, "workflow": {"id": workflow}, "arguments": dict(arguments)} | more


class Asking:
    """How an agent asks for tokens: form, proof, nonce."""

    def __init__(self, gate: Process, key: Key | None = None) -> None:
        self.gate, self.key, self.nonce = gate, key or Key("dpop"), ""

    def proof(self, **claims: Any) -> dict[str, str]:
        more = {"nonce": self.nonce} if self.nonce else {}
        return {"DPoP": self.key.proof("POST", f"{self.gate.issuer}/oauth2/token", **{**more, **claims})}

    def form(self, token: str, asked: Any, **more: Any) -> dict[str, Any]:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": JWT,
            "authorization_details": asked if isinstance(asked, str) else json.dumps([asked]),
            **more,
        }
        return {name: value for name, value in form.items() if value is not None}

    def ask(self, form: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, prove: bool = True) -> httpx.Response:
        """One exchange; where the gate wants another nonce, once more with it."""
        for _ in range(2):
            proof = self.proof() if prove else {}
            answer = self.gate.http.post("/oauth2/token", data=dict(form), headers={**proof, **(headers or {})})
            self.nonce = answer.headers.get("DPoP-Nonce", self.nonce)
            if answer.status_code != 400 or answer.json().get("error") != "use_dpop_nonce":
                break
        return answer
