"""A partner company reads its own orders: pseudonymous ones, from its own network, until its contract ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "_harness"))  # where `python run.py` finds it
from agentgate_demo.case import FoundingCase
from agentgate_demo.process import Process
from agentgate_demo.row import Expected, TableRow
from agentgate_demo.show import perform
from agentgate_demo.stage import Asker, Stage

TOOL = "datasets.query"
ORDERS = {"dataset": "northwind/orders/2026", "columns": ["order_ref", "sku", "quantity"]}
OFFICE = {"X-Forwarded-For": "203.0.113.9"}  # an address of Northwind, as the proxy in front of the gate passes it on
AFTER = "2031-07-01T00:00:00+00:00"  # the contract ends on 30 June
CALL = "400 invalid_authorization_details"


def scenes(stage: Stage) -> Iterator[TableRow]:
    """What the contract is about, then what it is not about."""
    who = Asker("northwind")

    def token(gate: Process, **claims: Any) -> str:
        claimed = {"sub": "northwind-order-sync", "client_id": "northwind-order-sync", "tenant": "northwind", **claims}
        return stage.keys["northwind"].sign({"iss": "https://login.northwind.example", "aud": gate.url, **claimed})

    def asked(expected: Expected, gate: Process = stage.gate, headers: dict[str, str] = OFFICE, **arguments: Any) -> TableRow:
        return stage.asked(expected, Asker("northwind"), token(gate), TOOL, {**ORDERS, **arguments}, gate=gate, headers=headers)

    answer = stage.exchange(who, token(stage.gate), TOOL, ORDERS, headers=OFFICE)
    yield stage.row(Expected("Northwind asks for its orders of 2026, from its own network", "allowed", "ok"), answer)
    call_token = answer.body.get("access_token", "")
    yield stage.use(Expected("It reads them", "allowed", "ok"), who, call_token, "/query", ORDERS)
    expected = Expected("The same token, for another column", "denied", "403 insufficient_scope", "insufficient_scope", "arguments_digest")
    yield stage.use(expected, who, call_token, "/query", {**ORDERS, "columns": ["customer_name"]})
    theirs = Expected("Another partner's orders", "denied", CALL, "argument_value", "args.dataset")
    yield asked(theirs, dataset="contoso/orders/2026")
    raw = Expected("Its own orders with customers' names: of class personal in the catalogue", "denied", CALL, "data_class", "data_class")
    yield asked(raw, dataset="northwind/orders/raw")
    name = Expected("A column that the contract does not list", "denied", CALL, "argument_value", "args.columns")
    yield asked(name, columns=["order_ref", "customer_name"])
    away = Expected("The same request from another network", "denied", CALL, "network", "network")
    yield asked(away, headers={"X-Forwarded-For": "198.51.100.7"})
    forged = Expected("From there, with a forged address of Northwind in front", "denied", CALL, "network", "network")
    yield asked(forged, headers={"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
    expected = Expected("A token that says another tenant", "denied", "400 invalid_request", "agent", "agent.oidc.claims.tenant")
    yield stage.asked(expected, Asker("northwind"), token(stage.gate, tenant="contoso"), TOOL, ORDERS, headers=OFFICE)
    with stage.served(AFTER, "later") as later:
        over = Expected("The right request, on 1 July 2031: the contract is over", "denied", CALL, "workflow_expired", "expires")
        yield asked(over, later)


CASE = FoundingCase(
    place=Path(__file__).parent,
    file="partners/northwind-orders.yaml",
    intro="A partner's system reads its orders from a table that all partners share. It shows a token of its own identity provider at "
    "POST /oauth2/token. Data set, columns, class of the data, network and the end of the contract are looked at; then a token for one "
    "query exists.",
    keys={"northwind": "RS256", "data": "ES256"},
    scenes=scenes,
    done=(1, "query of Northwind's own orders"),
    needs=("duckdb",),
)

if __name__ == "__main__":
    raise SystemExit(perform(CASE))
