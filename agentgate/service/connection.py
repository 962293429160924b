"""The connection that a request came on: its peer, and what configured proxies say of whoever
is behind them.
"""

from __future__ import annotations

from starlette.requests import Request

from agentgate.identity.certificate import shown_certificate
from agentgate.identity.connection import Connection
from agentgate.service.answer import malformed
from agentgate.service.settings import ServiceSettings


def connection_of(request: Request, settings: ServiceSettings) -> Connection:
    """Peer, `X-Forwarded-For` and, where settings name its header, the certificate that a proxy
    passed on.
    """
    peer = request.client.host if request.client is not None else ""
    name = settings.certificate_header
    passed = request.headers.getlist(name) if name else []
    if len(passed) > 1:
        raise malformed(str(name), "several", "one header")
    return Connection(
        peer, ",".join(request.headers.getlist("x-forwarded-for")), passed[0] if passed else ""
    )


def thumbprint_of(request: Request, settings: ServiceSettings) -> str | None:
    """SHA-256 thumbprint (base64url) of the client's certificate, by a configured proxy; None:
    no certificate counts.
    """
    return shown_certificate(connection_of(request, settings), settings.identity.proxies)
