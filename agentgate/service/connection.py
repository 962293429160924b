"""The connection that a request came on: its peer, and what configured proxies say of whoever is behind them."""

from __future__ import annotations

import re
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from starlette.requests import Request

from agentgate.identity.connection import Connection, inside, networks
from agentgate.service.answer import malformed
from agentgate.service.settings import ServiceSettings
from agentgate.token.jws import b64url

_CERTIFICATE = re.compile(r'Cert="([^"]*)"')  # envoyproxy.io: x-forwarded-client-cert


def connection_of(request: Request, settings: ServiceSettings) -> Connection:
    """Peer, `X-Forwarded-For` and, where settings name its header, the certificate that a proxy passed on."""
    peer = request.client.host if request.client is not None else ""
    name = settings.certificate_header
    passed = request.headers.getlist(name) if name else []
    if len(passed) > 1:
        raise malformed(str(name), "several", "one header")
    return Connection(peer, ",".join(request.headers.getlist("x-forwarded-for")), passed[0] if passed else "")


def thumbprint_of(request: Request, settings: ServiceSettings) -> str | None:
    """SHA-256 thumbprint (base64url) of the client's certificate, by a configured proxy; None: no certificate counts."""
    proxies = settings.identity.proxies
    if proxies is None or settings.certificate_header is None:
        return None
    connection = connection_of(request, settings)
    if not connection.certificate or not inside(connection.peer, networks(proxies.addresses)):
        return None
    value = connection.certificate
    if proxies.certificate == "xfcc":
        elements = _CERTIFICATE.findall(value)
        value = elements[0] if len(elements) == 1 and "," not in value else ""
    try:
        leaf = x509.load_pem_x509_certificate(unquote(value).encode())
    except ValueError:
        return None
    return b64url(leaf.fingerprint(SHA256())).decode()
