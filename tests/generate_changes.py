"""Single changes to a call that was built to be allowed: each moves one thing over (or just up to) a line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

from agentgate.values.request import Agent, Boundary, Derived, Posture, RunState, Surroundings, User
from agentgate.workflow.model import Workflow
from tests.generate_values import ARGUMENTS, DIGEST, NOW, OTHER_DIGEST, put, values_of


@dataclass
class Asked:
    """A case while it is being changed."""

    workflow: Workflow
    run: RunState
    tool: str
    args: dict[str, Any]
    definition: str
    around: Surroundings


# --- single changes ----------------------------------------------------------------------------------------------------
def _header(asked: Asked, **values: Any) -> None:
    asked.run = replace(asked.run, header=replace(asked.run.header, **values))


def _agent(asked: Asked, **values: Any) -> None:
    old = asked.run.header.agent
    agent = Agent(old.id)
    kept = {name: getattr(old, name) for name in ("spiffe", "issuer", "claims", "posture", "boundary", "via", "identity")}
    put(agent, **{**kept, **values})
    _header(asked, agent=agent)


def _change_tenant(rng: Random, asked: Asked) -> None:
    _header(asked, tenant=rng.choice(("acme-uk", "acme-", "ACME")))


def _change_agent(rng: Random, asked: Asked) -> None:
    old = asked.run.header.agent
    claims = dict(old.claims)
    if claims:
        claims["ref"] = "main2"
    missing = {k: v for k, v in old.claims.items() if k != "repository"}
    options: list[dict[str, Any]] = [
        {"spiffe": "spiffe://acme/c"},
        {"spiffe": "spiffe://acme/a/x"},
        {"issuer": "https://ci.example.evil"},
        {"claims": claims},
        {"claims": missing},
    ]
    if not asked.workflow.agent.in_process:
        options.append({"identity": "in_process"})
    _agent(asked, **rng.choice(options))


def _change_user(rng: Random, asked: Asked) -> None:
    user = rng.choice(
        (None, User("lee", tenant="acme", groups=("support",)), User("lee", tenant="evil", groups=("leads",)), User("lee", tenant="acme"))
    )
    if user is not None and rng.random() < 0.7:
        put(user, identity="proven")
    asks = asked.workflow.for_user
    if user is not None and asks is not None and asked.run.header.user is not None and (asks.acr or asks.max_age):
        known = asked.run.header.user
        user = User(known.id, tenant=known.tenant, groups=known.groups)
        times = [int(NOW.timestamp()) - ago for ago in (900, 901, -5, -6)]
        put(user, identity=known.identity, acr=rng.choice((None, "mfa", "pwd")), auth_time=rng.choice((None, *times)))
    _header(asked, user=user)


def _change_via(rng: Random, asked: Asked) -> None:
    _agent(asked, via=rng.choice((("broker-1",), ("broker-2", "broker-1"), ("broker-1",) * 3, ("stranger",), ("broker-1", "stranger"))))


def _change_posture(rng: Random, asked: Asked) -> None:
    seconds = rng.choice((600, 601, -1, 0))
    _agent(asked, posture=rng.choice((None, Posture("dev@acme", NOW), Posture("release@acme", NOW - timedelta(seconds=seconds)))))


def _change_boundary(rng: Random, asked: Asked) -> None:
    options = (
        None,
        Boundary("c9", "prod", "pool-1", "thumb"),
        Boundary("c1", "dev", "pool-1", "thumb"),
        Boundary("c1", "prod", "pool-2", "thumb"),
        Boundary("c2", "prod", "pool-1", ""),
    )
    _agent(asked, boundary=rng.choice(options))


def _change_around(rng: Random, asked: Asked) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"environment": None},
        {"environment": "dev"},
        {"data_class": None},
        {"data_class": "personal"},
        {"network": None},
        {"network": "office"},
        {"network": "10.1.2.3"},
        {"network": "11.1.2.3"},
        {"brokers": frozenset()},
        {"brokers": frozenset({"aws"})},
        {"now": asked.around.now + timedelta(days=rng.choice((1, 1, 82, 83)))},
        {"now": asked.around.now + timedelta(hours=rng.choice((-3, 9, 10, 13, 14)))},
    )
    asked.around = replace(asked.around, **rng.choice(changes))


def _change_run(rng: Random, asked: Asked) -> None:
    change = rng.choice(("closed", "digest", "workflow", "intents", "calls"))
    if change == "closed":
        asked.run = replace(asked.run, closed=True)
    elif change == "digest":
        _header(asked, digest=OTHER_DIGEST)
    elif change == "workflow":
        _header(asked, workflow="payments.other")
    elif change == "intents":
        asked.run = replace(
            asked.run,
            intents={name: Derived(rng.choice(("present", "unclear", "absent"))) for name in asked.run.intents if rng.random() < 0.9},
        )
    else:
        asked.run = replace(asked.run, calls=tuple(call for call in asked.run.calls if rng.random() < 0.6))


def _change_tool(rng: Random, asked: Asked) -> None:
    if rng.random() < 0.3:
        asked.tool = rng.choice(("pay ", "refund", "orders.get.x"))
    else:
        asked.definition = rng.choice(("", OTHER_DIGEST, DIGEST.upper()))


def _change_form(rng: Random, asked: Asked) -> None:
    name = rng.choice(sorted(asked.args) or ["extra"])
    change = rng.choice(("drop", "extra", "null", "list", "empty", "type", "case"))
    if change == "drop":
        asked.args.pop(name, None)
    elif change == "extra":
        asked.args[rng.choice(("Order_id", "tenant", "payee2"))] = "x"
    elif change == "null":
        asked.args[name] = None
    elif change == "list":
        value = asked.args.get(name)
        asked.args[name] = value[0] if type(value) is list and value else [value]
    elif change == "empty":
        asked.args[name] = []
    elif change == "type":
        asked.args[name] = rng.choice((True, 1, "1_000", 1.5, {"a": 1}, "\u2460", ["\u202e"], "", " x"))
    else:
        value = asked.args.get(name)
        asked.args[name] = value.upper() if type(value) is str else value


def _change_value(rng: Random, asked: Asked) -> None:
    names = sorted(set(asked.args) & ARGUMENTS)
    if not names:
        return
    name = rng.choice(names)
    extra: dict[str, tuple[Any, ...]] = {
        "order_id": ("ORD-10011", "xORD-1001"),
        "amount": ("0.00", "0.009", "0.01001", "-5", "500.01", 100.01),
        "amounts": ("0.00001", "500.01"),
        "currency": ("USD", "eur"),
        "path": ("docs/../other/c.txt", "docs/sub/x/y.txt"),
        "count": (0, 1, 20, 21, 1.5),
        "reason": ("x" * 20, "x" * 21, "x" * 200, "x" * 201, "bell\x07"),
    }
    pool = [
        str(v) if type(v) is Decimal and name in {"amount", "amounts"} else int(v) if type(v) is Decimal else v for v in values_of(name)
    ]
    value = rng.choice([*pool, *extra.get(name, ())])
    old = asked.args[name]
    if type(old) is list:
        change = rng.choice(("append", "replace", "repeat"))
        asked.args[name] = {"append": [*old, value], "replace": [*old[:-1], value], "repeat": [*old, *old]}[change]
    else:
        asked.args[name] = value


CHANGES = (
    _change_tenant,
    _change_agent,
    _change_user,
    _change_via,
    _change_posture,
    _change_boundary,
    _change_around,
    _change_around,
    _change_run,
    _change_run,
    _change_tool,
    _change_form,
    _change_form,
    _change_value,
    _change_value,
    _change_value,
    _change_value,
)
