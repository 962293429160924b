"""A finite grid of calls for the small workflows, decided by the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from typing import Any

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.decide import decide
from agentgate.diff.search import missing_rule
from agentgate.language.prompt import Prompt
from agentgate.values.canonical import canonical, parse
from agentgate.values.request import Agent, Call, Derived, EarlierCall, Header, Posture, RunState, Surroundings, User
from agentgate.workflow.model import Workflow
from tests.diff_oracle_pairs import DIGESTS
from tests.generate_values import put

NOW = datetime(2027, 3, 10, 10, 30, tzinfo=UTC)  # a Wednesday
ABSENT = object()
VALUES: dict[str, tuple[Any, ...]] = {
    "amount": ("20", "39.99", "40", "0.01", "100", "100.01", "500", None, ABSENT),
    "currency": ("EUR",),
    "payee": ("cus_A1", "cus_B2", "cus_C1", "CUS_A1", "cus_Ax", None, ABSENT),
    "mail": ("bob@acme.example", "ann@acme.example", "bob@evil.example", None, ABSENT),
    "mails": (["bob@acme.example"], ["bob@acme.example", "ann@acme.example"], ["bob@evil.example"], ["bob@acme.example"] * 3, None, ABSENT),
    "scopes": (
        ["read"],
        ["read", "list"],
        ["read", "write", "list"],
        ["admin"],
        ["write", "write"],
        ["read", "list", "write", "admin"],
        None,
        ABSENT,
    ),
    "note": ("fix", "hello there", "to bob@acme.example", "to eve@x.example", "two\nlines", "y" * 6, "y" * 21, None, ABSENT),
    "path": ("docs/a.txt", "docs/sub/b.txt", "other/a.txt", "docs/b", None, ABSENT),
    "count": (0, 1, 5, 7, 11, 20, None, ABSENT),
    "flag": (True, False, None, ABSENT),
}
ROW = {"total": "40", "currency": "EUR", "owner": "cus_A1", "mail": "bob@acme.example"}
POOR = {**ROW, "total": "1", "owner": "cus_C1", "mail": "bob@evil.example"}
PROMPTS = (
    "refund half of it",
    "refund 20 EUR, 40 EUR, 100.01 EUR for cus_A1 and cus_B2, tell bob@acme.example and bob@evil.example, file docs/a.txt, other/a.txt",
)


@cache
def _prompt(text: str) -> Prompt:
    return Prompt.of((text,), NOW.date())


def _earlier(ago: int, *rows: tuple[str, dict[str, Any]]) -> tuple[EarlierCall, ...]:
    return tuple(EarlierCall(f"c{i}", tool, {}, (row,), False, NOW.timestamp() - ago) for i, (tool, row) in enumerate(rows))


WORLDS = (
    (PROMPTS[0], ()),
    (PROMPTS[1], ()),
    (PROMPTS[0], _earlier(1, ("look", ROW))),
    (PROMPTS[1], _earlier(1, ("look", POOR))),
    (PROMPTS[0], _earlier(1, ("find", {"owner": "cus_B2"}), ("look", ROW), ("look", POOR))),
    (PROMPTS[1], _earlier(600, ("look", ROW))),
    (PROMPTS[1], _earlier(2000, ("look", ROW))),
)
_USUAL: dict[str, Any] = {
    "tenant": "acme",
    "user": ("proven", "acme", ("support", "leads")),
    "agent": ("proven", "spiffe://acme/a", 10),
    "signed_in": ("mfa", 10),
    "via": (),
    "around": (NOW, "prod", "10.1.0.1", ("vault",)),
    "intents": ("present", "present"),
    "definition": DIGESTS[0],
}
OTHERS: dict[str, tuple[Any, ...]] = {
    "tenant": ("globex",),
    "user": (None, ("in_process", "acme", ("leads",)), ("proven", "globex", ("support",)), ("proven", "acme", ())),
    "agent": (
        ("proven", "spiffe://acme/b", 10),
        ("in_process", "", 10),
        ("proven", "spiffe://acme/a", 300),
        ("proven", "spiffe://acme/a", None),
    ),
    "signed_in": (("phr", 10), ("mfa", 61), ("mfa", 901), ("pwd", 0), (None, None)),
    "via": (("b1",), ("b2",), ("b1", "b1"), ("b2", "b2"), ("b3",)),
    "around": (
        *(
            (NOW + timedelta(days=d, minutes=m), "prod", "10.1.0.1", ("vault",))
            for d, m in ((1, 0), (3, 0), (0, 600), (0, 809), (-1, 815), (90, 0))
        ),
        *(
            (NOW, "test", "10.1.0.1", ("vault",)),
            (NOW, "prod", "10.2.0.1", ("vault",)),
            (NOW, "prod", "partner", ()),
            (NOW, None, "11.0.0.1", ()),
        ),
    ),
    "intents": tuple(p for p in product(("present", "unclear", "absent"), repeat=2) if p != ("present", "present")),
    "definition": ("", DIGESTS[1]),
}


def calls(old: Workflow, new: Workflow) -> Iterator[tuple[RunState, Call, Surroundings]]:
    """Every combination of arguments and worlds in the usual place, and every other place for a few of them."""
    names = list(dict.fromkeys((*old.tools["act"].args, *new.tools["act"].args)))
    every = [dict(zip(names, chosen, strict=True)) for chosen in product(*(VALUES[n] for n in names))]
    usual = _usual(new)
    for args, world in product(every, WORLDS):
        yield _case(new, args, world, usual)
    allowed = [a for a in every if any(isinstance(decide(new, *_case(new, a, w, usual)), Eligible) for w in WORLDS[4:5])][:2] or every[:1]
    for key, values in OTHERS.items():
        for value, args, world in product(values, allowed, (WORLDS[4], WORLDS[5])):
            yield _case(new, args, world, {**usual, key: value})


def _usual(new: Workflow) -> dict[str, Any]:
    """The usual place, moved to where the new version allows something."""
    usual = dict(_USUAL)
    usual["tenant"] = new.tenants[0]
    usual["user"] = ("proven", new.tenants[0], ("support", "leads")) if new.for_user is not None else None
    if new.for_user is not None and new.for_user.acr:
        usual["signed_in"] = (new.for_user.acr[0], 10)
    if new.agent.spiffe:
        usual["agent"] = ("proven", new.agent.spiffe[0], 10)
    hours, environment = new.conditions.hours, new.conditions.environment or ("prod",)
    now = NOW
    if hours is not None:
        now = next((m for m in (NOW + timedelta(minutes=15 * i) for i in range(672)) if _open(new, m)), NOW)
    if now.date() > new.expires:
        now -= timedelta(days=7)
    network = next((n for n in ("10.1.0.1", "10.2.0.1", "partner") if _reaches(new, n)), "10.1.0.1")
    usual["around"] = (now, environment[0], network, ("vault",))
    usual["definition"] = new.tools["act"].definition
    return usual


def _open(workflow: Workflow, moment: datetime) -> bool:
    return "hours" not in _refusals(workflow, Surroundings(moment, "prod", None, "partner"))


def _reaches(workflow: Workflow, network: str) -> bool:
    return "network" not in _refusals(workflow, Surroundings(NOW, "prod", None, network))


def _refusals(workflow: Workflow, around: Surroundings) -> set[str]:
    run, call, _ = _case(workflow, {}, WORLDS[0], _USUAL)
    answer = decide(workflow, run, call, around)
    return {f.reason.value for f in answer.failures} if isinstance(answer, Deny) else set()


def _case(workflow: Workflow, args: dict[str, Any], world: tuple[str, Any], place: dict[str, Any]) -> tuple[RunState, Call, Surroundings]:
    text, earlier = world
    identity, spiffe, age = place["agent"]
    now, environment, network, brokers = place["around"]
    agent = Agent("agent-1")
    posture = None if age is None else Posture("release", now - timedelta(seconds=age))
    put(agent, identity=identity, spiffe=spiffe, via=place["via"], posture=posture)
    user = None
    if place["user"] is not None:
        known, tenant, groups = place["user"]
        user = User("bob@acme.example", tenant=tenant, groups=groups)
        acr, ago = place["signed_in"]
        put(user, identity=known, acr=acr, auth_time=None if ago is None else int(now.timestamp()) - ago)
    header = Header("run-1", place["tenant"], user, agent, workflow.id, workflow.version, workflow.digest, 0.0, 9e9)
    moved = now.timestamp() - NOW.timestamp()
    shifted = earlier if not moved else tuple(EarlierCall(c.id, c.tool, c.args, c.rows, c.named, c.redeemed_at + moved) for c in earlier)
    intents = {n: Derived(p) for n, p in zip(("refund", "notify"), place["intents"], strict=True)}
    run = RunState(header, (text,), intents, _prompt(text), shifted, "1")
    data = canonical({k: v for k, v in args.items() if v is not ABSENT})
    return (
        run,
        Call("act", "call_1", data, parse(data), place["definition"]),
        Surroundings(now, environment, None, network, frozenset(brokers)),
    )


def needs_less(old: Workflow, new: Workflow, run: RunState, call: Call, around: Surroundings) -> bool:
    """Whether this call needs fewer releases under the new version."""
    after = decide(new, run, call, around)
    if isinstance(after, Deny):
        return False
    before = decide(old, RunState(run.header, run.turns, run.intents, run.prompt, run.calls, run.revision), call, around)
    return isinstance(before, Deny) or missing_rule([h.rule for h in before.holds], [h.rule for h in after.holds]) is not None
