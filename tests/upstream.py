"""A machine workflow whose tools need upstream credentials, for the tests of brokers: what it says of them is given by the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentgate import Agent, Allow, Code, Deny, Gate
from agentgate.redemption.credential import Redemption, UpstreamCredential

WORKFLOW = """\
agentgate: workflow/v1
id: shop.pay
version: 1
title: A job pays
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme]
who: {{agent: {{in_process: true}}}}
intents: {{none: "Nobody types anything here."}}
tools:
  pay:
    effect: write
    needs: none
    redeem: wrapper
    scope: [refunds:create]
    args: {{order: {{text: 40, from: [model]}}, more: {{text: 40, from: [model], optional: true}}}}
    facts: {{id: {{type: id}}}}
  look:
    effect: read
    needs: none
    redeem: wrapper
    scope: [refunds:create]
    args: {{order: {{text: 40, from: [model]}}}}
  remote:
    effect: write
    needs: none
    redeem: server
    audience: https://bank.example
    scope: [refunds:create]
    definition: sha256:{definition}
    args: {{order: {{text: 40, from: [model]}}}}
upstream:
  pay: {pay}
  look: {pay}
  remote: {pay}
"""
ROLES = """\
agentgate: roles/v1
roles:
  support: [refunds:create, refunds:read, orders:read]
  reader: [orders:read]
  writer: [refunds:create, refunds:read]
  same: [refunds:create, refunds:read, orders:read]
  other: [refunds:create, payouts:create]
"""
ORDER = {"order": "ORD-1"}
CANARY = "canary-c0ffee/4711+zebra="


class Bank:
    """A broker that gives out what it was told to, and remembers whom."""

    takes = frozenset({"role"})

    def __init__(self, secret: str = CANARY, **more: Any) -> None:
        self.secret, self.more, self.asked, self.given, self.ended = secret, more, list[Redemption](), list[UpstreamCredential](), 0

    def fetch(self, call: Redemption) -> UpstreamCredential:
        self.asked.append(call)
        self.given.append(UpstreamCredential({"key": self.secret}, **{"end": self._end, **self.more}))
        return self.given[-1]

    def _end(self) -> None:
        self.ended += 1


def written(folder: Path, pay: str) -> Path:
    (folder / "w").mkdir(exist_ok=True)
    (folder / "w" / "pay.yaml").write_text(WORKFLOW.format(pay=pay, definition="0" * 64))
    (folder / "w" / "roles.yaml").write_text(ROLES)
    return folder / "w"


def opened(folder: Path, brokers: Any, pay: str = "{broker: bank, role: writer}", **more: Any) -> Gate:
    given = {"issuer": "https://gate.example", "audit": "memory://", "brokers": brokers, **more}
    return Gate.open_unsafe_unapproved(written(folder, pay), **given)


def run_of(gate: Gate, agent: str = "bot") -> Any:
    return gate.open_run("shop.pay", tenant="acme", user=None, agent=Agent(agent), prompt="")


def allowed(run: Any, tool: str = "pay", call: str = "c1", args: Mapping[str, Any] = ORDER) -> Any:
    for _ in range(5):  # a machine that is busy with the servers of these tests may be late, which is a refusal
        answer = run.authorize(tool, args, tool_call_id=call, definition="sha256:" + "0" * 64 if tool == "remote" else "")
        if not isinstance(answer, Deny) or answer.code is not Code.UNAVAILABLE:
            break
    assert isinstance(answer, Allow), answer
    return answer.token


def redeemed(run: Any, tool: str = "pay", call: str = "c1", args: Mapping[str, Any] = ORDER) -> Any:
    return run.redeem(allowed(run, tool, call, args), tool=tool, args=args)


def records(gate: Gate) -> list[dict[str, Any]]:
    return gate._audit.records  # type: ignore[attr-defined, no-any-return]  # in memory
