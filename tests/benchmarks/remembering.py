"""What a yes that is remembered is worth in a month, and to an attacker: ``python -m tests.benchmarks remembered [--days N]``.

Twenty users pay somebody four times a working day, each time in a run of its own; whom, is Zipf-distributed over forty payees of their own.
In one prompt of three they write the address; else the agent knows it ("pay the landlord") and nobody named it. Once a day something that
the agent reads tells it to pay another payee of the user's own than they meant, and twice a day an attacker.
Users say yes to what they meant and no to all else, but for one slip: one user, once, to the attacker. Of the whole the workflow takes at
most five payments a day of one user's agent.

``exact``: a yes is one exact call. ``confirmed``: it names in its run. ``remembered``: and in later ones, for 90 days. ``looked at``: the
same, and each user looks at the page of what is remembered once a week and forgets what they do not know.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from agentgate import Agent, Allow, Gate, StepUp, User
from tests.deadlines import LONG, set_call_seconds
from tests.workflows import workflow_text

USERS, PAYEES, A_DAY, WEEK = 20, 40, 4, 5  # a week of working days
VARIANTS = {"exact": "", "confirmed": ", confirmed", "remembered": ", confirmed, remembered", "looked at": ", confirmed, remembered"}
EVE, PROMPT = "eve@evil.example", "Pay 20 to {}"


def workflow_of(origins: str) -> str:
    """Payments whose payee may also have these origins."""
    kept = "\n    remember: {arg: to, for: 90d}" if "remembered" in origins else ""
    tools = f"""
  pay:
    effect: write
    needs: [pay]
    redeem: wrapper{kept}
    args:
      amount: {{type: number, min: "1", max: "100", from: [prompt]}}
      to: {{type: email, from: [prompt{origins}], unknown_origin: confirm}}
"""
    return workflow_text(
        "month",
        intents="{pay: {asks_for: Pay somebody., words: [pay], examples: [Pay 20 to kim@acme.example]}}",
        tools=tools,
        step_up="\n  - {id: whom, for: pay, when: {to: {origin: unknown}}, approvers: {user: true}, timeout: 10m}\n",
        limits="[{count: pay, max: 5, per: agent, every: 1d}]",
    )


class Month:
    """One month under one workflow: how often users were asked, and what the attacker got."""

    def __init__(self, gate: Gate, *, looks: bool) -> None:
        self.gate, self.looks, self.slips, self.found = gate, looks, 1, Counter[str]()

    def pay(self, user: User, day: int, words: str, to: str, *, meant: bool) -> str:
        """One payment in a run of its own: ``minted``, ``asked`` (and minted where the user says yes), or ``refused``."""
        agent = Agent(f"bot-of-{user.id}-on-{day}")  # whose day is over with it: what is measured has no clock
        run = self.gate.open_run("month", tenant="acme", user=user, agent=agent, prompt=PROMPT.format(words))
        args, asked = {"amount": 20, "to": to}, False
        answer = run.authorize("pay", args, tool_call_id="c1")
        if isinstance(answer, StepUp):
            asked, slips = True, to == EVE and user.id == "u7" and self.slips > 0
            self.slips -= slips
            if not meant and not slips:
                self.gate.refuse(answer.hold.id, tenant="acme", by=user)
                return "asked"
            self.gate.release(answer.hold.id, tenant="acme", by=user)
            answer = run.authorize("pay", args, tool_call_id="c1")
        if not isinstance(answer, Allow):
            return "refused"
        with run.redeem(answer.token, tool="pay", args=args):
            self.found["paid to the attacker"] += to == EVE
            self.found["paid to another of the user's own, unasked"] += not meant and to != EVE and not asked
        return "asked" if asked else "minted"

    def run(self, days: int) -> Counter[str]:
        """All of it."""
        chance = Random(7)  # noqa: S311 - chooses who pays whom
        users = [User(f"u{number}", tenant="acme") for number in range(USERS)]
        weights = [1 / rank for rank in range(1, PAYEES + 1)]
        for day in range(days):
            for user in users:
                known = [f"p{number}@{user.id}.example" for number in range(PAYEES)]
                for to in chance.choices(known, weights, k=A_DAY):
                    said = to if chance.random() < 1 / 3 else "somebody I know"
                    answer = self.pay(user, day, said, to, meant=True)
                    self.found["payments"] += 1
                    self.found["own questions"] += answer == "asked"
                    self.found["own payments refused"] += answer == "refused"
                self.pay(user, day, "somebody I know", chance.choices(known, weights)[0], meant=False)
                for _ in range(2):
                    attacked = self.pay(user, day, "somebody I know", EVE, meant=False)
                    self.found["questions about the attacker"] += attacked == "asked"
                    self.found["attacker refused by the limit"] += attacked == "refused"
                if self.looks and day % WEEK == WEEK - 1:
                    strange = [each.id for each in self.gate.remembered("acme", for_=user) if each.args["to"] not in known]
                    self.gate.forget("acme", strange, by=user)
        return self.found


def measure(days: int) -> dict[str, Counter[str]]:
    """Every variant's month."""
    found = {}
    for name, origins in VARIANTS.items():
        with TemporaryDirectory() as folder:
            (Path(folder) / "month.yaml").write_text(workflow_of(origins))
            settings: dict[str, Any] = {"audit": "memory://", "runs_per_hour": 100_000}
            with Gate.open_unsafe_unapproved(Path(folder), issuer="https://gate.example", **settings) as gate:
                found[name] = Month(gate, looks=name == "looked at").run(days)
    return found


def main(words: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks remembered", description=__doc__)
    parser.add_argument("--days", type=int, default=22, help="working days (%(default)s)")
    days = parser.parse_args(words).days
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    set_call_seconds(LONG)  # nothing is measured but answers
    found = measure(days)
    print(f"{USERS} users, {days} working days, {A_DAY} payments a day, {PAYEES} payees each")
    rows = list(dict.fromkeys(key for each in found.values() for key in each))
    for name in (*rows, "own questions of a user a week"):
        counts = [each["own questions"] * WEEK / days / USERS if name not in rows else each[name] for each in found.values()]
        print(f"{name:<44}" + "".join(f"{variant}: {count:<10.4g}" for variant, count in zip(found, counts, strict=True)))
    return 0
