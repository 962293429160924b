"""The data service: columns of one year's orders, from a DuckDB table that all partners share."""

from __future__ import annotations

from typing import Any

import duckdb

from agentgate.cli.demo_tool import serve_tool
from agentgate.redemption.verifier import AsyncRedeemedCall

DATA = duckdb.connect()
DATA.execute("CREATE TABLE orders (partner TEXT, order_ref TEXT, day DATE, sku TEXT, quantity INT, region TEXT, customer_name TEXT)")
DATA.execute(
    """INSERT INTO orders
    SELECT ['northwind', 'contoso'][1 + i % 2], 'ORD-' || (70000 + i), DATE '2025-11-01' + CAST(i AS INT),
           'SKU-' || (100 + i % 7), 1 + i % 4, ['north', 'south'][1 + i % 2], 'Customer ' || i
    FROM range(200) AS orders(i)"""
)
COLUMNS = {"order_ref", "day", "sku", "quantity", "region"}


def query(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call; the tenant is the token's, never the request's."""
    args = call.args
    columns = [name for name in args["columns"] if name in COLUMNS]
    wanted = [call.claims.tenant, int(args["dataset"].rpartition("/")[2])]
    where = "partner = ? AND year(day) = ?"
    if "day" in args:
        where, wanted = f"{where} AND day = CAST(? AS DATE)", [*wanted, args["day"]]
    found = DATA.execute(f"SELECT {', '.join(columns)} FROM orders WHERE {where} ORDER BY day", wanted).fetchall()  # noqa: S608 - of COLUMNS
    return {"rows": len(found), "first": dict(zip(columns, map(str, found[0]), strict=True)) if found else None}


if __name__ == "__main__":
    args = ["dataset", "columns", "day"]
    serve_tool("datasets.query", "/query", args, audience="https://data.acme.example", tenants=["northwind"], run=query)
