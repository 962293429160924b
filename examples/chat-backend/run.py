"""Two workers of the backend, its users and a manager, each with a browser of their own: what runs, what waits, and what is refused."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "_harness"))
import httpx

from agentgate.errors import StoreUnavailable
from agentgate.stores.embedded import Server
from agentgate.testing import demo_approvals
from agentgate_demo.case import check_installed
from agentgate_demo.process import Process, free_port
from agentgate_demo.row import Caller, Expected, Outcome, Played, TableRow, agentgate_command
from agentgate_demo.show import perform

PLACE = Path(__file__).parent
NEEDS = ("fastapi", "jinja2", "authlib", "itsdangerous", "langgraph", "httpx")
BUSY = "demo: this machine is too busy: no answer within 300 ms, several times over; try again later"
SMALL, BIG, HUGE = "ORD-10023344", "ORD-10023377", "ORD-10023388"


@dataclass
class Backend:
    """What runs: the login, and the workers of the backend, over one store and one directory."""

    state: Path
    login: Process
    environment: dict[str, str]
    workers: list[Process] = field(default_factory=list)

    @classmethod
    @contextmanager
    def running(cls, workers: int = 2, *options: str) -> Iterator[Backend]:
        """Start all of it; each worker is a process with a port of its own."""
        with tempfile.TemporaryDirectory(prefix="agentgate-chat-") as folder, ExitStack() as stack:
            state = Path(folder)
            shutil.copytree(PLACE / "workflows", state / "workflows")
            store = Server(f"embedded://{state}/store")
            stack.callback(store.stop)
            port = free_port()
            login = Process(
                [sys.executable, str(PLACE / "issuer.py")], f"http://127.0.0.1:{port}", state / "login.log", "/jwks", PORT=str(port)
            )
            stack.callback(login.end)
            login.ready()
            environment = {
                "STATE": str(state),
                "STORE": store.url,
                "LOGIN": login.url,
                "SECRET": secrets.token_urlsafe(32),
                "URL": "https://chat.acme.example",
                "WORKFLOWS": str(state / "workflows"),
                "ROOT": demo_approvals.prepare(state / "workflows"),
                "PYTHONPATH": os.pathsep.join([str(PLACE), os.environ.get("PYTHONPATH", "")]),
            }
            backend = cls(state, login, environment)
            stack.callback(backend.end)
            for _ in range(workers):
                backend.start(free_port(), options)
            for worker in backend.workers:
                worker.ready()
            yield backend

    def start(self, port: int, options: Sequence[str] = ()) -> Process:
        """One more worker: `uvicorn app:app`."""
        command = [sys.executable, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", str(port), "--no-access-log", *options]
        log = self.state / f"worker-{len(self.workers) + 1}.log"
        self.workers.append(Process(command, f"http://127.0.0.1:{port}", log, "/docs", **self.environment))
        return self.workers[-1]

    def end(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.end()


class Visitor:
    """A person with a browser: cookies, links and forms, no script."""

    def __init__(self, name: str, worker: Process) -> None:
        self.name, self.worker = name, worker
        once = httpx.Limits(max_keepalive_connections=0)  # a worker may be killed, or close what is idle
        self.http = httpx.Client(follow_redirects=True, timeout=30, trust_env=False, limits=once)
        self.page = ""
        self.sign_in(self.http.get(f"{worker.url}/login"))

    def sign_in(self, asked: httpx.Response) -> httpx.Response:
        """Say at the login who they are, and come back."""
        answer = self.http.post(asked.url, data={"who": self.name})
        self.page = answer.text
        return answer

    def say(self, text: str = "") -> str:
        """Say something, or only look again; returns what the assistant said last."""
        self.page = self.send("POST", "/chat", **({"text": text} if text else {})).text
        if "try again in a moment" in self.heard:
            raise StoreUnavailable(BUSY)
        return self.heard

    def send(self, method: str, path: str, **data: str) -> httpx.Response:
        """A request, and again while it is answered 503: a gate decides nothing when its store does not answer within 300 ms."""
        for _ in range(5):
            answer = self.http.request(method, f"{self.worker.url}{path}", data=data)
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return answer
            time.sleep(1)
        raise StoreUnavailable(BUSY)

    @property
    def heard(self) -> str:
        """What the assistant said last."""
        return self._last('<li class="ai">(.*?)</li>')

    @property
    def waits(self) -> str:
        """What the page says of a call that waits."""
        return " ".join(self._last('<section id="pending">.*?<p>(.*?)</p>').split())

    def _last(self, form: str) -> str:
        return html.unescape((re.findall(form, self.page, re.DOTALL) or [""])[-1]).strip()

    def look(self) -> str:
        """Load the page again."""
        self.page = self.send("GET", "/").text
        return self.page

    @property
    def holds(self) -> list[str]:
        """The ids of what waits for their answer, as their page has them."""
        return re.findall(r'action="/holds/([0-9a-f]{64})"', self.page)

    def answer(self, hold: str, say: str = "release") -> httpx.Response:
        """Press a button of a held call, and sign in for it."""
        asked = self.send("POST", f"/holds/{hold}", say=say)
        return self.sign_in(asked) if asked.status_code == 200 else asked


@dataclass
class Desk:
    """The backend while it is played."""

    backend: Backend

    @property
    def paid(self) -> list[Any]:
        """Refunds that were made."""
        books = self.backend.state / "paid.jsonl"
        return [json.loads(line) for line in books.read_text().splitlines()] if books.exists() else []

    def row(
        self, tried: str, outcome: Outcome, code: str, seen: str, *, right: bool, caller: Caller = "client", detail: str = ""
    ) -> TableRow:
        """A row; where it did not end as it must, its code is another one."""
        operator = detail or f"{len(self.paid)} refunded so far"
        return TableRow(Expected(tried, outcome, code), outcome, code if right else f"not {code}", caller, seen, detail=operator)

    def scenes(self) -> Iterator[TableRow]:
        """All of it, in order."""
        one, two = self.backend.workers
        visitors = [Visitor(name, worker) for name, worker in (("lee", one), ("ann", two), ("kim", two))]
        yield from self._played(*visitors)
        for visitor in visitors:
            visitor.http.close()

    def _played(self, lee: Visitor, ann: Visitor, kim: Visitor) -> Iterator[TableRow]:

        said = ann.say(f"Please refund order {SMALL}, it arrived broken")
        yield self.row("Ann asks for a small refund", "allowed", "ok", said, right="refunded 49.90 EUR" in said and len(self.paid) == 1)

        lee.say(f"Please refund order {BIG}, it arrived broken")
        held = "Waits for 1 of leads" in lee.waits
        yield self.row("Lee asks for 180.00 EUR; above 100.00 a lead must look", "held", "needs_approval", lee.waits, right=held)

        kim.look()
        (hold,) = kim.holds
        tried = "Lee finds nothing that waits for his own answer, and cannot give one"
        yield self.row(
            tried, "denied", "404", f"{lee.answer(hold).status_code}", right=not lee.holds and lee.answer(hold).status_code == 404
        )

        said = lee.say("Any news on my refund?")
        tried = "Lee talks on while it waits; the model was told for whom"
        yield self.row(
            tried, "held", "needs_approval", said, right=said.startswith("Your refund still waits for 1 of leads"), caller="model"
        )

        kim.answer(hold)
        tried = "Kim, a lead, signs in for exactly this yes; her request runs nobody's agent"
        yield self.row(tried, "allowed", "ok", "nothing waits for kim now", right=not kim.holds and len(self.paid) == 1, caller="approver")

        lee.worker.kill()
        lee.worker = kim.worker
        said = lee.say()
        right = "refunded 180.00 EUR" in said and [each["amount"] for each in self.paid] == ["49.90", "180.00"]
        yield self.row(
            "Lee's worker is killed; his page asks the other one, in whose hands the call runs, once", "allowed", "ok", said, right=right
        )

        lee.say(f"Please refund order {HUGE}, too")
        kim.look()
        (hold,) = kim.holds
        said = lee.say("I meant 50.00 EUR")
        kim.look()
        right = kim.answer(hold).status_code == 404 and "refunded 50.00 EUR" in said
        tried = "Lee wants less than what waits: it is withdrawn, nobody can release it any more, and the changed act is judged anew"
        yield self.row(tried, "allowed", "ok", said, right=right and len(self.paid) == 3)

        ann.say(f"Maybe refund order {SMALL}")
        ann.look()
        asked = ann.holds
        ann.answer(asked[0])
        said = ann.say()
        tried = "Ann's wish is unclear, so her own page asks her; her yes lets exactly that call run"
        yield self.row(tried, "allowed", "ok", said, right="refunded 49.90 EUR" in said and len(self.paid) == 4)

        ann.say(f"Please refund order {BIG}")
        kim.look()
        kim.answer(kim.holds[0], "refuse")
        said = ann.say("And?")
        yield self.row(
            "Kim says no; Ann's assistant learns it at her next word", "denied", "refused", said, right="said no" in said, caller="model"
        )


class ChatCase:
    """The chat backend, as `agentgate demo chat` plays it."""

    def play(self) -> Played:
        """Play every scene. Raises NotInstalled; ConfigError: a process does not start."""
        check_installed(NEEDS)
        started = time.monotonic()
        with Backend.running() as backend:
            desk = Desk(backend)
            rows = tuple(desk.scenes())
            paid = desk.paid
        return Played(
            "A chat backend of FastAPI and LangGraph in two workers, over one store and one file of checkpoints. Users and a manager sign "
            "in at an OpenID provider. All of it are processes on loopback; a script stands in the model's place.",
            rows,
            len(paid) == 4 and len({each["key"] for each in paid}) == 4,
            "Money that moved: 4 refunds, each once.",
            f"{len(paid)} refunds; expected 4, each under a key of its own.",
            (
                ("try it in a browser", f"{sys.executable} {PLACE / 'run.py'} serve"),
                ("read the glue", f"less {PLACE / 'app.py'}"),
                (
                    "see what its workflow's tests pin down",
                    f"{agentgate_command()} workflow test -v {PLACE / 'workflows' / 'desk-chat.yaml'}",
                ),
                ("build your own, step by step", "less docs/backend.md"),
            ),
            {"paid": paid},
            time.monotonic() - started,
        )


CASE = ChatCase()


def serve() -> None:
    """The same to try in a browser: the login, the store and two workers on one port, until Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal ends them all, too
        signal.signal(number, signal.default_int_handler)
    with Backend.running(1, "--workers", "2") as backend, suppress(KeyboardInterrupt):
        print(f"{backend.workers[0].url}  (lee and ann are customers, kim is a lead; state in {backend.state})", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    raise SystemExit(serve() if sys.argv[1:] == ["serve"] else perform(CASE))
