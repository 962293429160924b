"""The tool server: an orders and payments API on loopback that executes nothing without a call token.

Rules: the token is checked against the request really received, then burned, then the call runs, and only from the arguments
that were decided on. The API knows its own URLs and never reads them from the request. It holds no workflow and decides
nothing: what may happen was decided before the token existed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Self

from agentgate.errors import Refusal, TokenRefused
from agentgate.redemption.verifier import RedeemedCall, Verifier
from agentgate.token.dpop import DPoP

ORDERS, PAYMENTS = "https://orders.acme.example", "https://payments.acme.example"  # who this API is: the audience of its tokens
MAX_BODY = 64 * 1024

_FIELDS = ("order_id", "total", "currency", "customer_id", "status")
_ORDERS: Mapping[str, Mapping[str, str]] = {
    row[0]: dict(zip(_FIELDS, row, strict=True))
    for row in (
        ("ORD-10023344", "49.90", "EUR", "cus_Hn4mQz8Ls2WvXa", "delivered"),
        ("ORD-10023377", "180.00", "EUR", "cus_B7kTr1Yd9PcEuJ", "delivered"),
    )
}
CUSTOMERS: Mapping[str, str] = {number: order["customer_id"] for number, order in _ORDERS.items()}


class UnknownOrderError(Exception):
    """There is no such order."""


@dataclass(slots=True)
class Ledger:
    """What really happened: refunds paid, and tokens refused with the reason an operator reads."""

    paid: list[dict[str, str]] = field(default_factory=list)
    refused: list[TokenRefused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Route:
    """One tool of this API: its name, who checks its tokens, what a caller without one is told (RFC 6750, RFC 9449)."""

    tool: str
    verifier: Verifier
    challenge: str


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that names no key twice: readers disagree on which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


class PaymentApi(ThreadingTCPServer):
    """The API on a free port of 127.0.0.1; a context manager that serves from a thread of its own.

    Args:
        orders: verifier for the audience `ORDERS`.
        payments: verifier for the audience `PAYMENTS`.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *, orders: Verifier, payments: Verifier) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.ledger = Ledger()
        self.routes = {
            "/orders": Route("orders.get", orders, 'Bearer scope="orders:read"'),
            "/refunds": Route("payments.refund", payments, 'DPoP algs="ES256", scope="refunds:create"'),
        }
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="payment-api", daemon=True)

    def execute(self, call: RedeemedCall) -> Mapping[str, str]:
        """Do what a redeemed call says, from its own arguments.

        Raises:
            UnknownOrderError: nothing was done.
        """
        args = call.args
        order = _ORDERS.get(args["order_id"])
        if order is None:
            raise UnknownOrderError(args["order_id"])
        if call.claims.tool == "orders.get":
            return order
        refund_id = f"re_{call.txn[4:16]}"
        self.ledger.paid.append({"refund_id": refund_id, **{name: args[name] for name in ("order_id", "amount", "currency", "payee")}})
        return {"refund_id": refund_id, "status": "paid"}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Request(BaseHTTPRequestHandler):
    """One request: credential, body, redeem, execute, in this order."""

    server: PaymentApi
    timeout = 10.0

    def do_POST(self) -> None:
        try:
            args = self._body()
        except ValueError:
            self._answer(400, {"error": "invalid_request"})
            return
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            self._answer(404, {"error": "not_found"})
            return
        try:
            token, proof = self._credential()
            redeemed = route.verifier.redeem(token, tool=route.tool, args=args, proof=proof)
        except TokenRefused as refused:
            self.server.ledger.refused.append(refused)
            self._refuse(route, refused.code)
            return
        try:
            with redeemed as call:  # leaving it reports the outcome: done, or failed after an exception
                result = call.record_result(self.server.execute(call))  # and the declared facts, once
        except UnknownOrderError:
            self._answer(404, {"error": "unknown_order"})
            return
        self._answer(200, result)

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length", ""))
        if not 0 < length <= MAX_BODY:
            raise ValueError("length")
        args = json.loads(self.rfile.read(length), object_pairs_hook=_without_repeats)
        if type(args) is not dict:
            raise ValueError("not an object")
        return args

    def _credential(self) -> tuple[str, DPoP | None]:
        """The one token of the request, and its proof where it is sent as DPoP.

        Raises:
            TokenRefused: none, two, or a DPoP token without exactly one proof.
        """
        sent = self.headers.get_all("Authorization", [])
        if len(sent) > 1 or "?" in self.path:
            raise TokenRefused(Refusal.TWO_METHODS, "Authorization", f"{len(sent)} of them, or a query", "one header, no query")
        scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
        if scheme.lower() not in {"bearer", "dpop"} or not token:
            raise TokenRefused(Refusal.NO_CREDENTIAL, "Authorization", scheme or "no credential", "a call token")
        if scheme.lower() == "bearer":
            return token, None
        proofs = self.headers.get_all("DPoP", [])
        if len(proofs) != 1:
            raise TokenRefused(Refusal.PROOF, "DPoP", f"{len(proofs)} proofs", "exactly one (RFC 9449 section 4.3)")
        return token, DPoP(proofs[0], method="POST", url=self.server.url + self.path)

    def _refuse(self, route: Route, code: Refusal) -> None:
        extra = {}
        if code.http_status == HTTPStatus.SERVICE_UNAVAILABLE:  # nothing was decided: the same call may be tried again
            extra["Retry-After"] = "1"
        else:
            extra["WWW-Authenticate"] = f'{route.challenge}, error="{code.error}"' if code.error else route.challenge
        self._answer(code.http_status, {"error": code.error} if code.error else {}, extra)

    def _answer(self, status: int, body: Mapping[str, Any], extra: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        always = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Cache-Control": "no-store"}
        for name, value in {**always, **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of http.server
        """No access log: the ledger and the gate's audit log say more."""
