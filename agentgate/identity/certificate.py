"""The certificate that a client showed in TLS, as a trusted proxy passes it on, and its
thumbprint (RFC 8705 section 3.1).

Rules: a header counts from the addresses of configured proxies only, in the one configured
form, and with one client in it. Of Envoy's, the certificate is the one whose digest it says: it
copies names out of a certificate unescaped, so a client's may look like further fields
(`mutateXfccRequestHeader` in Envoy's source). Pure.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from agentgate.identity.connection import Connection, inside, networks
from agentgate.identity.settings import ProxySettings
from agentgate.token.jws import b64url

_XFCC_FIELD = re.compile(r'(By|Hash|Cert|Chain|Subject|URI|DNS)=("[^"]*"|[^",;]*)')
# one element: a second proxy would have added one
_XFCC = re.compile(rf"{_XFCC_FIELD.pattern}(?:;{_XFCC_FIELD.pattern})*")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def passed_on(value: str, form: Literal["xfcc", "pem"]) -> list[str]:
    """The certificates in a proxy's header, as PEM, the client's own first; none: it holds
    something else.
    """
    if form == "xfcc":  # envoyproxy.io: x-forwarded-client-cert
        return _of_envoy(value)
    if "," in value:  # several headers, joined: one of them may be the client's own
        return []
    return _PEM.findall(unquote(value))


def _of_envoy(value: str) -> list[str]:
    found = _XFCC_FIELD.findall(value) if _XFCC.fullmatch(value) else []
    fields = dict(found)
    named = [name for name, _ in found]
    if any(named.count(name) > 1 for name in ("Hash", "Cert", "Chain")):
        return []
    pems: list[str] = _PEM.findall(
        unquote(fields.get("Cert", "").strip('"') + fields.get("Chain", "").strip('"'))
    )
    return pems if pems and _digest(pems[0]) == fields.get("Hash", "").lower() else []


def _digest(pem: str) -> str | None:
    """The SHA-256 of a certificate's DER form in hex; None: it is none."""
    try:
        return x509.load_pem_x509_certificate(pem.encode()).fingerprint(SHA256()).hex()
    except ValueError:
        return None


def thumbprint(certificate: x509.Certificate) -> str:
    """`x5t#S256`: base64url SHA-256 of the certificate's DER form (RFC 8705 section 3.1)."""
    return b64url(certificate.fingerprint(SHA256())).decode()


def thumbprint_of(pem: str) -> str | None:
    """`thumbprint` of a certificate as PEM; None: it is none."""
    try:
        return thumbprint(x509.load_pem_x509_certificate(pem.encode()))
    except ValueError:
        return None


def shown_certificate(connection: Connection, proxies: ProxySettings | None) -> str | None:
    """Thumbprint of the certificate that a configured proxy passed on; None: none counts
    here.
    """
    if (
        not proxies
        or proxies.certificate is None
        or not inside(connection.peer, networks(proxies.addresses))
    ):
        return None
    pems = passed_on(connection.certificate, proxies.certificate)
    return thumbprint_of(pems[0]) if pems else None
