"""A support agent refunds what a user asked for: host, agent, tool servers and payment provider are processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

sys.path.append(str(Path(__file__).parents[1] / "_harness"))  # where `python run.py` finds it
from agentgate.testing import demo_approvals
from agentgate.values.refusal import Code
from agentgate_demo.case import FoundingCase
from agentgate_demo.key import Key
from agentgate_demo.process import HTTPAnswer, Process, post, retry_while_busy
from agentgate_demo.row import Expected, TableRow, refusal_row, relative
from agentgate_demo.show import perform
from agentgate_demo.stage import Asker, Stage, refusal_row_at

# Where the gate's decision clock stands: the workflow is for office hours, and an attestation counts for ten minutes.
OFFICE_HOURS = datetime(2025, 6, 3, 9, 30, tzinfo=UTC)  # a Tuesday, 11:30 in Berlin
AGENT, STOLEN = "spiffe://acme.example/ns/prod/sa/support-agent", "cus_Z0evilEvilEvi1"
SMALL = {"order_id": "ORD-10023344", "amount": "49.90", "currency": "EUR", "payee": "cus_Hn4mQz8Ls2WvXa"}
BIG = {"order_id": "ORD-10023377", "amount": "180.00", "currency": "EUR", "payee": "cus_B7kTr1Yd9PcEuJ"}
NODE = {"cluster": "eu-prod-1", "namespace": "prod", "node_pool": "agents", "image_signed_by": "release@acme.example"}
BOB, CAROL = "bob@demo.example", "carol@demo.example"  # both are support leads of the root of approvals
Step = dict[str, Any]


def look_up(order: str) -> Step:
    """What the scripted model proposes: to look the order up."""
    return {"name": "orders.get", "args": {"order_id": order}}


def refund(args: Mapping[str, Any], **changed: str) -> Step:
    """What the scripted model proposes: to refund it."""
    return {"name": "payments.refund", "args": {**args, **changed}}


def write_ssh_key(person: str, path: Path) -> Path:
    """The SSH key of a person of the demo's root, as a file that `agentgate holds` reads; returns the path."""
    key = Ed25519PrivateKey.from_private_bytes(demo_approvals.seed(person))
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path


class Desk:
    """The host: it has the users' tokens and their words, and opens runs; it can exchange nothing."""

    def __init__(self, stage: Stage, agent: subprocess.Popen[str]) -> None:
        self.stage, self._agent = stage, agent

    def user_token(self, key: Key | None = None, tenant: str = "acme-eu") -> str:
        """The user's token, as the login of ACME issues it; `key`: whoever signs it instead."""
        claims = {"iss": "https://login.acme.example", "sub": BOB, "aud": self.stage.gate.url, "tenant": tenant, "groups": ["support-l1"]}
        return (key or self.stage.keys["acme"]).sign(claims)

    def ask(self, **message: Any) -> dict[str, Any]:
        """One line to the agent's process, and its answer."""
        assert self._agent.stdin is not None and self._agent.stdout is not None  # noqa: PT018, S101 - pipes
        self._agent.stdin.write(json.dumps(message) + "\n")
        self._agent.stdin.flush()
        answer: dict[str, Any] = json.loads(self._agent.stdout.readline() or '{"seen": "the agent ended", "waits": false}')
        return answer

    def open(self, prompt: Any, token: str, tenant: str = "acme-eu") -> HTTPAnswer:
        """``POST /v1/runs``: for the user of this token, and the agent that introduced itself."""
        gate = self.stage.gate.url
        attested: dict[str, Any] = {"iss": "https://attest.acme.example", "sub": AGENT, "aud": gate, **NODE}
        attested["attested_at"] = int(OFFICE_HOURS.timestamp())
        agent = {**self.ask(introduce=f"{gate}/v1/runs"), "attestation": self.stage.keys["attest"].sign(attested)}
        body = {"workflow": "payments.customer-refund", "tenant": tenant, "prompt": prompt, "subject_token": token, "agent": agent}
        now = int(time.time())
        assertion = self.stage.keys["desk"].sign({"iss": "desk", "sub": "desk", "aud": gate, "iat": now, "exp": now + 60})
        headers = {"Authorization": f"Bearer {assertion}", "Content-Type": "application/json"}
        return retry_while_busy(lambda: post(f"{gate}/v1/runs", json.dumps(body).encode(), headers))

    def converse(self, prompt: str, *script: Step) -> tuple[str, dict[str, Any]]:
        """A run for the user's words, and the agent in it: its id, and what the agent tells."""
        token = self.user_token()
        run = self.open(prompt, token).body["run"]
        return run, self.ask(run=run, tenant="acme-eu", user_token=token, prompt=prompt, script=script)

    def holds(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``agentgate holds``, as a person runs it beside the gates."""
        store = ["--store", f"embedded://{self.stage.folder}/gate/store", "--tenant", "acme-eu"]
        command = [sys.executable, "-m", "agentgate", "holds", *words, *store]
        for _ in range(3):  # a machine may be too busy for its store to answer in time
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)  # noqa: S603 - ours
            if "store" not in done.stderr:
                break
        return done

    def release(self, hold: str, person: str) -> subprocess.CompletedProcess[str]:
        """A person says yes, signed with their SSH key."""
        folder = self.stage.folder
        key = write_ssh_key(person, folder / f"{person}.key")
        where = ["--workflows", str(folder / "workflows"), "--root", self.stage.root, "--audit", str(folder / "people")]
        return self.holds("release", hold, *where, "--key", str(key), "--accept", f"release {hold[:12]}")

    def told(self, expected: Expected, seen: str, *, tool: str = "", detail: str = "", server: Process | None = None) -> TableRow:
        """A row: what an agent's model saw of its last call, and why.

        Args:
            expected: of the row.
            seen: by the model.
            tool: whose call it was, where it is allowed.
            detail: what the operator sees of an allowed call.
            server: the tool server that refused it; None: the gate.
        """
        if server is not None:
            return refusal_row_at(expected, server, "model", seen.rpartition(" ")[2], seen)
        line = self.stage.last()
        if "reasons" not in line:
            return TableRow(
                expected, "allowed", "ok" if seen.startswith("{") else seen, "model", seen, detail=detail, rule=self.stage.line(tool)
            )
        code = seen.removeprefix("agentgate: ")
        return refusal_row(expected, line["reasons"], "model", code, seen, outcome="held" if code == Code.NEEDS_APPROVAL else "denied")

    @staticmethod
    def command(expected: Expected, done: subprocess.CompletedProcess[str]) -> TableRow:
        """A row: what a person who answers a hold at the terminal was told (``code: reason: field: why [rule]``)."""
        said = done.stderr.strip()
        found = re.fullmatch(r"(\w+): (\w+): (\S+): (.*) \[(.*)\]", said)
        if done.returncode == 0 or found is None:
            return TableRow(expected, "denied" if done.returncode else "allowed", said or "ok", "approver", said)
        code, reason, field, why, rule = found.groups()
        return TableRow(expected, "denied", code, "approver", "the hold keeps waiting", reason, field, f"{field}: {why}", relative(rule))


@contextmanager
def agent_of(stage: Stage) -> Iterator[subprocess.Popen[str]]:
    """The agent's process. Its SVID is in a file, as SPIRE's helper or Kubernetes would keep it."""
    svid = stage.folder / "svid.jwt"
    svid.write_text(stage.keys["spire"].sign({"sub": AGENT, "aud": [stage.gate.url]}))
    urls = {"GATE": stage.gate.url, "ORDERS": stage.servers["orders"].url, "PAYMENTS": stage.servers["payments"].url}
    command = [sys.executable, str(Path(__file__).with_name("agent.py"))]
    with (stage.folder / "agent.log").open("wb") as log:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        process = subprocess.Popen(command, **pipes, env={**os.environ, **urls, "SVID": str(svid)})  # noqa: S603 - ours
    try:
        yield process
    finally:
        process.communicate(timeout=30)  # end of its input: it ends


def books(stage: Stage) -> dict[str, Any]:
    """What the provider paid, and the tokens that it issued."""
    found: dict[str, Any] = stage.server("provider", "/books")
    return found


def scenes(stage: Stage) -> Iterator[TableRow]:
    """What the user asked for, then what others want."""
    with agent_of(stage) as process:
        desk = Desk(stage, process)
        asked = "Please refund order ORD-10023344, it arrived broken"
        expected = Expected("Bob asks; the host opens a run with Bob's own token; the agent refunds 49.90 EUR", "allowed", "ok")
        run, told = desk.converse(asked, look_up("ORD-10023344"), refund(SMALL, reason="arrived broken"))
        yield desk.told(expected, told["seen"], tool="payments.refund", detail=fetched(stage))
        yield from _others(desk)
        tried = f"Prompt injection: an e-mail says to pay {STOLEN}, and the model obeys"
        mail = {"name": "email.read", "args": {"message_id": "MSG-2041"}}
        _, told = desk.converse(asked, mail, look_up("ORD-10023344"), refund(SMALL, payee=STOLEN))
        yield desk.told(Expected(tried, "denied", "not_permitted", "argument_origin", "args.payee"), told["seen"])
        yield from _held(desk)
        svid = (stage.folder / "svid.jwt").read_text()
        actor = {"actor_token": svid, "actor_token_type": "urn:ietf:params:oauth:token-type:jwt"}
        expected = Expected(
            "Another process has Bob's token, the agent's SVID and its own key",
            "denied",
            "400 invalid_dpop_proof",
            "agent",
            "agent.key",
        )
        thief = Asker("support-agent", Key("thief"))
        yield stage.asked(
            expected, thief, desk.user_token(), "orders.get", {"order_id": "ORD-10023344"}, run=run, tenant="acme-eu", **actor
        )
        expected = Expected("The agent's process calls the payment API by itself, without a token", "denied", "401", "", "authorization")
        yield stage.use(expected, thief, "", "/refunds", SMALL)
        paid = books(stage)["paid"]
        stage.done.extend(each for each in paid if {name: each[name] for name in SMALL} in (SMALL, BIG))
        if len(stage.done) != len(paid):  # somebody else was paid, or another amount
            stage.done.clear()
        stage.servers["provider"].end()
        expected = Expected("The provider gives no credential any more", "denied", "503", "", "token_endpoint")
        _, told = desk.converse(asked, look_up("ORD-10023344"))
        yield desk.told(expected, told["seen"], server=stage.servers["orders"])


def _others(desk: Desk) -> Iterator[TableRow]:
    """Runs that the host may not open."""
    asked = "Please refund order ORD-10023344"
    expected = Expected(
        "The host opens a run for Bob with a token that Bob's login did not sign",
        "denied",
        "400 invalid_request",
        "user",
        "user.oidc.signature",
    )
    yield desk.stage.row(expected, desk.open(asked, desk.user_token(Key("acme", "RS256"))), path="/v1/runs")
    expected = Expected(
        "A run for tenant acme-us, which the workflow does not name", "denied", "400 invalid_authorization_details", "tenant", "tenant"
    )
    yield desk.stage.row(expected, desk.open(asked, desk.user_token(tenant="acme-us"), "acme-us"), path="/v1/runs")


def _held(desk: Desk) -> Iterator[TableRow]:
    """A refund that a person must look at."""
    run, told = desk.converse("Customer wants their money back for ORD-10023377", look_up("ORD-10023377"), refund(BIG))
    tried = "A refund of 180.00 EUR; above 100.00 a support lead must look"
    seen = "agentgate: needs_approval" if told["waits"] else told["seen"]
    yield desk.told(Expected(tried, "held", "needs_approval", "step_up", "args.amount"), seen)
    hold = next((each["hold"] for each in json.loads(desk.holds("list", "--json").stdout)), "")
    expected = Expected(
        "Bob, who asked for it and is a support lead, signs the release", "denied", "approver", "step_up", "step_up.big-refund.approvers"
    )
    yield desk.command(expected, desk.release(hold, BOB))
    released = desk.release(hold, CAROL)
    told = desk.ask(go_on=run)
    tried = "Carol signs exactly that call with her SSH key (agentgate holds release); the agent goes on"
    detail = f"{released.stdout.splitlines()[-1] if released.stdout else released.stderr}; {fetched(desk.stage)}"
    yield desk.told(Expected(tried, "allowed", "ok"), told["seen"], tool="payments.refund", detail=detail)


def fetched(stage: Stage) -> str:
    """What became of the provider's tokens."""
    tokens = books(stage)["tokens"]
    return f"the tool servers fetched {tokens['issued']} tokens of the provider so far, one a call; {tokens['live']} of them still count"


CASE = FoundingCase(
    place=Path(__file__).parent,
    file="payments/customer-refund.yaml",
    intro="A support agent refunds orders. The host opens a run with the user's own token and words; the agent, a LangChain process with "
    "its own key, exchanges at POST /oauth2/token for every single call; orders API and payment API redeem, and fetch the payment "
    "provider's token for that call. The decision clock stands at a Tuesday, 11:30 in Berlin, for the workflow's office hours.",
    keys={name: "RS256" if name in {"acme", "spire"} else "ES256" for name in ("acme", "spire", "attest", "desk", "orders", "payments")},
    scenes=scenes,
    done=(2, "refund"),
    tools=("orders", "payments"),
    others=("provider",),
    at=OFFICE_HOURS.isoformat(),
    needs=("authlib", "httpx", "httpx2", "langchain"),
)

if __name__ == "__main__":
    raise SystemExit(perform(CASE))
