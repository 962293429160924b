"""The data service: columns of one year's orders, from a DuckDB table that all partners share."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

import duckdb
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.redemption.verifier import AsyncRedeemedCall
from agentgate.service.process import log_to_stderr

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


async def answer(request: Request) -> JSONResponse:
    """The route: the middleware has redeemed the token of this request, and what runs are the arguments that were decided on."""
    return JSONResponse(await run_in_threadpool(query, request.scope["agentgate.call"]))


async def healthz(_: Request) -> JSONResponse:
    """Whether it has started."""
    return JSONResponse({"ok": True})


def build_app() -> Starlette:
    """`RedeemMiddleware` in front of one route. Its tokens are the gate's, by its key set and over its store."""
    gate, state = os.environ["GATE"], os.environ["STATE"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{gate}/oauth2/jwks") as got:
        keys = json.load(got)
    where = {"store": f"embedded://{state}/gate/store", "audit": f"{state}/datasets.query-audit"}
    server = ToolServer.of(keys, issuer=gate, audience="https://data.acme.example", tenants=["northwind"], **where)
    server.route("datasets.query", "POST", "/query", args={name: body() for name in ("dataset", "columns", "day")})
    guard = Middleware(RedeemMiddleware, server=server, open_paths=["/healthz"])
    routes = [Route("/query", answer, methods=["POST"]), Route("/healthz", healthz)]
    return Starlette(routes=routes, middleware=[guard])


if __name__ == "__main__":
    log_to_stderr()
    uvicorn.run(build_app(), host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)
