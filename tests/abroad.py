"""A served gate and a guarded tool server as strangers meet them: behind TLS, with the programs of docs/service.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from tests.authority import Key
from tests.served import Process, in_thread, served
from tests.served_notes import GATE, NOTES, Place, a_place
from tests.servers import as_tool_server, free_port
from tests.tls import certificate, tls_front
from tests.toolshop import Orders

ROOT = Path(__file__).parent.parent
NODE = 20  # the oldest major version that the packages below run on
PACKAGES = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentgate-tests" / "node_modules"
)  # the Makefile's NODE_CACHE


def node_in(folder: Path) -> str:
    """The node to run scripts in this folder with, the packages beside them; where there is none, the test is skipped and says why."""
    node = shutil.which("node")
    said = "" if node is None else subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if node is None or int(said.lstrip("v").partition(".")[0]) < NODE:
        pytest.skip(
            f"node is {said.strip() or 'not installed'}; this test needs node >= {NODE} and npm (Debian: apt-get install nodejs npm)"
        )
    missing = [name for name in ("openid-client", "oauth4webapi", "oidc-provider") if not (PACKAGES / name / "package.json").exists()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not in {PACKAGES}: make test installs them (it needs npm and its registry)")
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(PACKAGES)
    return node


def private_jwk(key: Key) -> str:
    """A client's key as its file has it."""
    private = json.loads(jwt.get_algorithm_by_name(key.alg).to_jwk(key.private))
    return json.dumps({**private, "kid": key.kid, "alg": key.alg, "use": "sig"})


class Abroad:
    """The gate, the tool server, and their URLs as everybody knows them."""

    def __init__(self, place: Place, gate: Process, orders: Orders, authority: Path, notes: str) -> None:
        self.place, self.gate, self.orders, self.authority, self.notes = place, gate, orders, authority, notes

    def run(self, package: str, folder: Path, **change: str) -> subprocess.CompletedProcess[str]:
        """The docs' program with this package, in a folder with its two files; `change`: of words in it."""
        text = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
        ((language, program),) = re.findall(rf"```(js|python)\n(?:# |// )(?:npm|pip) install {package}\n(.*?)```", text, re.DOTALL)
        for old, new in {GATE: self.place.issuer, NOTES: self.notes, **change}.items():
            assert old in program
            program = program.replace(old, new)
        (folder / "agent.json").write_text(private_jwk(self.place.keys["notes"]))
        (folder / "job.jwt").write_text(self.place.token())
        file = folder / ("program.mjs" if language == "js" else "program.py")
        file.write_text(program)
        command = [node_in(folder) if language == "js" else sys.executable, str(file)]
        trusted = {"NODE_EXTRA_CA_CERTS": str(self.authority), "REQUESTS_CA_BUNDLE": str(self.authority)}
        env = {**{name: value for name, value in os.environ.items() if "proxy" not in name.lower()}, **trusted}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)

    def exchanges(self) -> list[tuple[int, str]]:
        """Status and error of each token request so far."""
        lines: list[Mapping[str, Any]] = [line for line in self.gate.log() if line.get("path") == "/oauth2/token"]
        return [(line["status"], line.get("error", "")) for line in lines]


@contextmanager
def abroad(folder: Path) -> Iterator[Abroad]:
    """See `Abroad`."""
    with ExitStack() as stack:
        authority, gate_port, tool_port = certificate(folder, "front"), free_port(), free_port()
        gate_url, notes = (f"https://127.0.0.1:{stack.enter_context(tls_front(authority, port))}" for port in (gate_port, tool_port))
        place = stack.enter_context(a_place(folder, issuer=gate_url, notes=notes))
        gate = stack.enter_context(served(folder, {**place.settings, "listen": f"127.0.0.1:{gate_port}"}))
        keys = gate.http.get("/oauth2/jwks").json()
        server = ToolServer.of(
            keys,
            issuer=gate_url,
            tenants=["acme"],
            audience=notes,
            store=as_tool_server(place.store.url, notes),
            audit=str(folder / "tool-audit"),
        )
        server.route("notes.write", "POST", "/notes", args={"text": body()}, scope="notes:write")
        orders = Orders()
        stack.enter_context(in_thread(RedeemMiddleware(orders, server), tool_port))
        yield Abroad(place, gate, orders, authority, notes)
