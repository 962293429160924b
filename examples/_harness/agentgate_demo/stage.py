"""The stage of the founding cases: a served gate, a tool server and the issuers around them, as real processes on loopback.

Rules: callers ask over HTTP and read what is answered; what the operator sees is read from the log of the process that refused. Each case
is a directory (`demo_case`). Keys are made for one performance and end with it; the workflows' approvals are by demo keys.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import jwt

from agentgate.gate.gate import Gate
from agentgate.testing import demo_approvals
from agentgate.token.mint import DETAIL_TYPE
from agentgate_demo.key import Key, KeySets
from agentgate_demo.process import HTTPAnswer, Process, free_port, get, post, retry_while_busy
from agentgate_demo.row import Caller, Expected, TableRow, refusal_row

_TOKEN = "/oauth2/token"  # noqa: S105 - a path
_GRANT, _JWT = "urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:token-type:jwt"
# As `agentgate serve`, but the decision clock stands at argv[2].
_AT = """
import sys
from datetime import datetime
from agentgate.service import process
from agentgate.service.settings import ServiceSettings
sys.exit(process.serve(ServiceSettings.of(sys.argv[1]), clock=lambda: datetime.fromisoformat(sys.argv[2])))
"""


@dataclass
class Asker:
    """Who asks for tokens: its client name at the gate, a key of its own, the nonce it was given."""

    client: str
    key: Key = field(default_factory=lambda: Key("caller"))
    nonce: str = ""


class Stage:
    """One performance of a case."""

    def __init__(self, place: Path, folder: Path, *, workflows: Path, file: str, keys: Mapping[str, Key], published: KeySets,
                 tools: Sequence[str] = ("tool",), others: Sequence[str] = (), at: str = "") -> None:  # fmt: skip
        """Make it, for the example at `place` with the workflow in `file` below `workflows`; `folder`: where it may write.

        `tools` are its tool servers, each a script of this name; rows are about the last. `others` are scripts, too: what the tool servers
        ask; their URLs are in the environment, under their names in capitals. `at`: where the gate's decision clock stands; empty: now.
        """
        self.folder, self.keys, self.published = folder, keys, published
        self._place, self._file, self._tools, self._others, self._at = place, file, tools, others, at
        self.done: list[dict[str, Any]] = []
        self._workflows = folder / "workflows"
        shutil.copytree(workflows, self._workflows)
        self.root = demo_approvals.prepare(self._workflows)
        self._id = next(line.partition(" ")[2] for line in self._lines() if line.startswith("id: "))
        self.gate: Process
        self.servers: dict[str, Process] = {}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Gate and tool servers, while the case plays."""
        with ExitStack() as stack:
            others = {name.upper(): self._script(stack, name).url for name in self._others}
            self.gate = stack.enter_context(self.served(self._at))
            for name in self._others:
                self.servers[name].ready()
            for name in self._tools:
                self._script(stack, name, GATE=self.gate.url, **others)
            for name in self._tools:
                self.servers[name].ready()
            yield

    def _script(self, stack: ExitStack, name: str, **environment: str) -> Process:
        """A server of the example, started."""
        port = free_port()
        env = {"PORT": str(port), "STATE": str(self.folder), **environment}
        command, log = [sys.executable, str(self._place / f"{name}.py")], self.folder / f"{name}.log"
        made = self.servers[name] = Process(command, f"http://127.0.0.1:{port}", log, "/healthz", **env)
        stack.callback(made.end)
        return made

    @property
    def tool(self) -> Process:
        """The tool server that rows are about."""
        return self.servers[self._tools[-1]]

    @contextmanager
    def served(self, at: str = "", name: str = "gate") -> Iterator[Process]:
        """A gate of this case: `agentgate serve`, as its `gate.toml` says; `at`: where its decision clock stands."""
        port = free_port()
        url, state = f"http://127.0.0.1:{port}", self.folder / name
        state.mkdir()
        template = Template((self._place / "gate.toml").read_text("utf-8"))
        names = {"gate": url, "port": port, "root": self.root, "state": state, "workflows": self._workflows}
        settings = state / "gate.toml"
        settings.write_text(template.substitute(names, example=self._place, published=self.published.url), "utf-8")
        command = [sys.executable, "-m", "agentgate", "serve", "--settings", str(settings)]
        gate = Process([sys.executable, "-c", _AT, str(settings), at] if at else command, url, state / "gate.log", "/readyz")
        try:
            gate.ready()
            yield gate
        finally:
            gate.end()

    @contextmanager
    def beside(self) -> Iterator[Gate]:
        """A gate of this process on the same store and keys: what its host calls, not its callers."""
        state = self.folder / "gate"
        where: dict[str, Any] = {"keys": state / "keys", "store": f"embedded://{state}/store", "audit": str(self.folder / "host-audit")}
        with Gate.open(self._workflows, root=self.root, issuer=self.gate.url, brokers={"provider", "aws-sts"}, **where) as gate:
            yield gate

    def exchange(self, caller: Asker, token: str, tool: str, arguments: Mapping[str, Any], *, gate: Process | None = None,
                 headers: Mapping[str, str] | None = None, tenant: str = "", run: str = "", prove: bool = True,
                 **form: str) -> HTTPAnswer:  # fmt: skip
        """Ask for a token for one call, as any HTTP client would; once more where the gate wants another nonce."""
        url = f"{(gate or self.gate).url}/oauth2/token"
        detail = {"type": DETAIL_TYPE, "identifier": tool, "workflow": {"id": self._id}, "arguments": arguments}
        detail |= {name: value for name, value in (("tenant", tenant), ("run", run)) if value}
        asked = {"grant_type": _GRANT, "client_id": caller.client, "subject_token": token, "subject_token_type": _JWT}
        body = urllib.parse.urlencode({**asked, "authorization_details": json.dumps([detail]), **form}).encode()

        def once() -> HTTPAnswer:
            proof = {"DPoP": caller.key.proof(url, nonce=caller.nonce)} if prove else {}
            answer = post(url, body, {"Content-Type": "application/x-www-form-urlencoded", **proof, **(headers or {})})
            caller.nonce = answer.headers.get("dpop-nonce") or caller.nonce
            return once() if answer.body.get("error") == "use_dpop_nonce" else answer

        return retry_while_busy(once)

    def asked(self, expected: Expected, caller: Asker, token: str, tool: str, arguments: Mapping[str, Any], **more: Any) -> TableRow:
        """A row: this exchange, as the caller and the operator see it."""
        return self.row(expected, self.exchange(caller, token, tool, arguments, **more), more.get("gate"))

    def row(self, expected: Expected, answer: HTTPAnswer, gate: Process | None = None, path: str = _TOKEN) -> TableRow:
        """A row of an exchange that was answered, or of another request to the gate (`path`)."""
        line = self.last(gate, path)
        if answer.code == "ok":
            said, body = answer.body["authorization_details"][0], answer.body
            seen = f"ok: one {body['token_type']} token for {body['expires_in']} s, scope {body['scope']}, for {said['identifier']}"
            claims = jwt.decode(body["access_token"], options={"verify_signature": False})  # only to be shown
            detail = f"{claims.get('act', claims)['sub']}, proven by its own credential; one token for exactly this call, in {line['run']}"
            return TableRow(expected, "allowed", "ok", "client", seen, detail=detail, rule=self.line(said["identifier"]))
        said = {name: value for name, value in answer.body.items() if name not in {"type", "title", "status"}}
        return refusal_row(expected, line["reasons"], "client" if path == _TOKEN else "host", answer.code, json.dumps(said))

    def last(self, gate: Process | None = None, path: str = _TOKEN) -> dict[str, Any]:
        """The newest line of a gate's log about a request to this path."""
        return next(each for each in reversed((gate or self.gate).lines()) if each.get("path") == path)

    def server(self, name: str, path: str) -> Any:
        """What one of its servers answers to a GET."""
        return get(self.servers[name].url + path)

    def use(self, expected: Expected, caller: Asker, token: str, path: str, arguments: Mapping[str, Any]) -> TableRow:
        """A row: the call itself, at the tool server, with this token and a fresh proof."""
        audience = jwt.decode(token, options={"verify_signature": False})["aud"] if token else ""  # the URL that clients know it by

        def shown() -> dict[str, str]:
            return {"Authorization": f"DPoP {token}", "DPoP": caller.key.proof(audience + path, token=token)} if token else {}

        return self.sent(expected, path, arguments, shown)

    def sent(self, expected: Expected, path: str, arguments: Mapping[str, Any], shown: Callable[[], Mapping[str, str]]) -> TableRow:
        """A row: the call itself, at the tool server, with these headers."""
        data = json.dumps(arguments).encode()
        answer = retry_while_busy(lambda: post(self.tool.url + path, data, {"Content-Type": "application/json", **shown()}))
        if answer.code == "ok":
            self.done.append(answer.body)
            brief = {k: f"{v[:24]}..." if isinstance(v, str) and len(v) > 100 else v for k, v in answer.body.items()}
            return TableRow(
                expected, "allowed", "ok", "client", f"ok: {json.dumps(brief)}", detail="the token is burned; the call ran once"
            )
        seen = "WWW-Authenticate: " + re.sub(r',? resource_metadata="[^"]*"', "", answer.headers.get("www-authenticate", ""))
        return refusal_row_at(expected, self.tool, "client", answer.code, seen)

    def _lines(self) -> list[str]:
        return (self._workflows / self._file).read_text("utf-8").splitlines()

    def line(self, tool: str) -> str:
        """Where a tool is in the workflow, as rows name it."""
        return f"workflows/{self._file}:{next(n for n, line in enumerate(self._lines(), 1) if line.strip() == f'{tool}:')}"


def refusal_row_at(expected: Expected, server: Process, caller: Caller, code: str, seen: str) -> TableRow:
    """A row of what a tool server refused last."""
    line = next(each for each in reversed(server.lines()) if each["event"] == "request_refused")
    return refusal_row(expected, [{**line, "reason": line["error"]}], caller, code, seen)
