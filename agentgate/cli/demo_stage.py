"""The stage of the founding cases: a served gate, a tool server and the issuers around them, as real processes on loopback.

Rules: callers ask over HTTP and read what is answered; what the operator sees is read from the log of the process that refused. Each case
is a directory (`demo_case`). Keys are made for one performance and end with it; the workflows' approvals are by demo keys.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Any

import jwt

from agentgate.cli.demo_key import Key
from agentgate.cli.demo_row import Expected, TableRow
from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.gate.gate import Gate
from agentgate.testing import demo_approvals
from agentgate.token.mint import DETAIL_TYPE

_START_SECONDS, _TRIES = 60, 5
_GRANT, _JWT = "urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:token-type:jwt"
# As `agentgate serve`, but the decision clock stands at argv[2].
_AT = """
import sys
from datetime import datetime
from agentgate.service import process
from agentgate.service.settings import ServiceSettings
sys.exit(process.serve(ServiceSettings.of(sys.argv[1]), clock=lambda: datetime.fromisoformat(sys.argv[2])))
"""


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """An answer over HTTP."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """``ok``, or the status and the closed error."""
        return "ok" if self.status == HTTPStatus.OK else f"{self.status} {self.body.get('error', '')}".strip()


def _post(url: str, data: bytes, headers: Mapping[str, str]) -> HTTPAnswer:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback goes through no proxy
    try:
        with opener.open(urllib.request.Request(url, data, dict(headers)), timeout=30) as got:  # noqa: S310 - a URL of this stage
            return HTTPAnswer(got.status, json.loads(got.read()), _lower(got.headers))
    except urllib.error.HTTPError as error:
        with error:
            return HTTPAnswer(error.code, json.loads(error.read() or b"{}"), _lower(error.headers))


def _patiently(once: Callable[[], HTTPAnswer]) -> HTTPAnswer:
    """The answer; asked for again while it is 503: a gate decides nothing when its store does not answer within 300 ms."""
    for _ in range(_TRIES):
        if (answer := once()).status != HTTPStatus.SERVICE_UNAVAILABLE:
            return answer
        time.sleep(1)
    raise StoreUnavailable("demo: this machine is too busy: no answer within 300 ms, several times over; try again later")


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Process:
    """A server on loopback, with its log as JSON lines."""

    def __init__(self, command: list[str], url: str, log: Path, ready: str, **environment: str) -> None:
        self.url, self._log = url, log
        with log.open("wb") as out:
            env = {**os.environ, **environment}
            self._process = subprocess.Popen(command, stderr=out, stdout=out, cwd=log.parent, env=env)  # noqa: S603 - ours
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers(url + ready):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise ConfigError("demo", log.read_text("utf-8")[-2000:], f"a {log.stem} that starts")
            time.sleep(0.05)

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
                return True
        except OSError:
            return False

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines() if line.startswith("{")]

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(timeout=30)


@dataclass
class Asker:
    """Who asks for tokens: its client name at the gate, a key of its own, the nonce it was given."""

    client: str
    key: Key = field(default_factory=lambda: Key("caller"))
    nonce: str = ""


class Stage:
    """One performance of a case."""

    def __init__(self, place: Path, folder: Path, *, workflows: Path, file: str, keys: Mapping[str, Key], published: str) -> None:
        """Make it, for the example at `place` with the workflow in `file` below `workflows`; `folder`: where it may write."""
        self.folder, self.keys = folder, keys
        self._place, self._file = place, file
        self.done: list[dict[str, Any]] = []
        self._published = published
        self._workflows = folder / "workflows"
        shutil.copytree(workflows, self._workflows)
        self._root = demo_approvals.prepare(self._workflows)
        self._id = next(line.partition(" ")[2] for line in self._lines() if line.startswith("id: "))
        self.gate: Process
        self.tool: Process

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Gate and tool server, while the case plays."""
        with ExitStack() as stack:
            self.gate = stack.enter_context(self.served())
            port = _free_port()
            url, env = f"http://127.0.0.1:{port}", {"GATE": self.gate.url, "PORT": str(port), "STATE": str(self.folder)}
            command = [sys.executable, str(self._place / "tool.py")]
            self.tool = Process(command, url, self.folder / "tool.log", "/healthz", **env)
            stack.callback(self.tool.end)
            yield

    @contextmanager
    def served(self, at: str = "", name: str = "gate") -> Iterator[Process]:
        """A gate of this case: `agentgate serve`, as its `gate.toml` says; `at`: where its decision clock stands."""
        port = _free_port()
        url, state = f"http://127.0.0.1:{port}", self.folder / name
        state.mkdir()
        template = Template((self._place / "gate.toml").read_text("utf-8"))
        names = {"gate": url, "port": port, "root": self._root, "state": state, "workflows": self._workflows}
        settings = state / "gate.toml"
        settings.write_text(template.substitute(names, example=self._place, published=self._published), "utf-8")
        command = [sys.executable, "-m", "agentgate", "serve", "--settings", str(settings)]
        gate = Process([sys.executable, "-c", _AT, str(settings), at] if at else command, url, state / "gate.log", "/readyz")
        try:
            yield gate
        finally:
            gate.end()

    @contextmanager
    def beside(self) -> Iterator[Gate]:
        """A gate of this process on the same store and keys: what its host calls, not its callers."""
        state = self.folder / "gate"
        where: dict[str, Any] = {"keys": state / "keys", "store": f"embedded://{state}/store", "audit": str(self.folder / "host-audit")}
        with Gate.open(self._workflows, root=self._root, issuer=self.gate.url, brokers={"vault", "aws-sts"}, **where) as gate:
            yield gate

    def exchange(self, caller: Asker, token: str, tool: str, arguments: Mapping[str, Any], *, gate: Process | None = None,
                 headers: Mapping[str, str] | None = None, tenant: str = "", prove: bool = True, **form: str) -> HTTPAnswer:  # fmt: skip
        """Ask for a token for one call, as any HTTP client would; once more where the gate wants another nonce."""
        url = f"{(gate or self.gate).url}/oauth2/token"
        detail = {"type": DETAIL_TYPE, "identifier": tool, "workflow": {"id": self._id}, "arguments": arguments}
        detail |= {"tenant": tenant} if tenant else {}
        asked = {"grant_type": _GRANT, "client_id": caller.client, "subject_token": token, "subject_token_type": _JWT}
        body = urllib.parse.urlencode({**asked, "authorization_details": json.dumps([detail]), **form}).encode()

        def once() -> HTTPAnswer:
            proof = {"DPoP": caller.key.proof(url, nonce=caller.nonce)} if prove else {}
            answer = _post(url, body, {"Content-Type": "application/x-www-form-urlencoded", **proof, **(headers or {})})
            caller.nonce = answer.headers.get("dpop-nonce") or caller.nonce
            return once() if answer.body.get("error") == "use_dpop_nonce" else answer

        return _patiently(once)

    def asked(self, expected: Expected, caller: Asker, token: str, tool: str, arguments: Mapping[str, Any], **more: Any) -> TableRow:
        """A row: this exchange, as the caller and the operator see it."""
        return self.row(expected, self.exchange(caller, token, tool, arguments, **more), more.get("gate"))

    def row(self, expected: Expected, answer: HTTPAnswer, gate: Process | None = None) -> TableRow:
        """A row of an exchange that was answered."""
        line = next(each for each in reversed((gate or self.gate).lines()) if each.get("path") == "/oauth2/token")
        if answer.code == "ok":
            said, body = answer.body["authorization_details"][0], answer.body
            seen = f"ok: one {body['token_type']} token for {body['expires_in']} s, scope {body['scope']}, for {said['identifier']}"
            claims = jwt.decode(body["access_token"], options={"verify_signature": False})  # only to be shown
            detail = f"{claims.get('act', claims)['sub']}, proven by its own credential; one token for exactly this call, in {line['run']}"
            return TableRow(expected, "allowed", "ok", "client", seen, detail=detail, rule=self._line(said["identifier"]))
        reasons = line["reasons"]
        detail = "; ".join(f"{each['field']}: got {each['got']}, expected {each['expected']}" for each in reasons)
        found = [", ".join(dict.fromkeys(each[name] for each in reasons)) for name in ("reason", "field")]
        return TableRow(
            expected, "denied", answer.code, "client", json.dumps(answer.body), found[0], found[1], detail, _relative(reasons[0]["rule"])
        )

    def use(self, expected: Expected, caller: Asker, token: str, path: str, arguments: Mapping[str, Any]) -> TableRow:
        """A row: the call itself, at the tool server, with this token and a fresh proof."""
        url = self.tool.url + path

        def once() -> HTTPAnswer:
            proof = {"Authorization": f"DPoP {token}", "DPoP": caller.key.proof(url, token=token)} if token else {}
            return _post(url, json.dumps(arguments).encode(), {"Content-Type": "application/json", **proof})

        answer = _patiently(once)
        if answer.code == "ok":
            self.done.append(answer.body)
            brief = {k: f"{v[:24]}..." if isinstance(v, str) and len(v) > 60 else v for k, v in answer.body.items()}
            return TableRow(
                expected, "allowed", "ok", "client", f"ok: {json.dumps(brief)}", detail="the token is burned; the call ran once"
            )
        line = next(each for each in reversed(self.tool.lines()) if each["event"] == "request_refused")
        detail = f"{line['field']}: got {line['got']}, expected {line['expected']}"
        seen = "WWW-Authenticate: " + re.sub(r',? resource_metadata="[^"]*"', "", answer.headers.get("www-authenticate", ""))
        return TableRow(expected, "denied", answer.code, "client", seen, line["error"], line["field"], detail)

    def _lines(self) -> list[str]:
        return (self._workflows / self._file).read_text("utf-8").splitlines()

    def _line(self, tool: str) -> str:
        return f"workflows/{self._file}:{next(n for n, line in enumerate(self._lines(), 1) if line.strip() == f'{tool}:')}"


def _relative(rule: str) -> str:
    return rule[rule.rindex("workflows/") :] if "workflows/" in rule else rule


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
