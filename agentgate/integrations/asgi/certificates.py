"""Which certificate a request's client showed in TLS: that of the connection itself, or the one
that a configured proxy passed on.

Rules: a header counts from the configured proxies alone; from any other address it is nothing.
What the server says of the connection is ASGI's extension ``tls``, which no request can write.
Where a proxy is the other end, its own certificate is not the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentgate.errors import ConfigError
from agentgate.identity.certificate import shown_certificate, thumbprint_of
from agentgate.identity.connection import Connection, inside, networks
from agentgate.identity.settings import ProxySettings, wrong_setting
from agentgate.integrations.asgi.received import Scope
from agentgate.integrations.asgi.sources import malformed


class ClientCertificates:
    """See the module."""

    def __init__(
        self, proxies: ProxySettings | Mapping[str, Any] | None, header: str | None
    ) -> None:
        """Proxies (``{"addresses": [...], "certificate": "pem"}``) and the header of theirs;
        None: the connection's own alone counts.

        Raises:
            ConfigError: one without the other, or no such setting.
        """
        try:
            self._proxies = None if proxies is None else ProxySettings.model_validate(proxies)
        except ValidationError as error:
            raise wrong_setting(error, ProxySettings, "proxies") from None
        if (header is None) != (
            self._proxies is None or self._proxies.certificate is None
        ) or header == "":
            raise ConfigError(
                "certificate_header",
                header,
                "the header's name, and proxies with addresses and certificate; or neither",
            )
        self._header = None if header is None else header.lower().encode()

    @property
    def passed_on(self) -> bool:
        """Whether proxies are configured that pass certificates on."""
        return self._header is not None

    def shown(self, scope: Scope) -> str | None:
        """SHA-256 thumbprint (base64url) of the certificate; None: none counts.

        Raises:
            RequestRefused: 400: a proxy's header twice.
        """
        peer = (scope.get("client") or ("",))[0]
        if not self._proxies or not inside(peer, networks(self._proxies.addresses)):
            tls = (scope.get("extensions") or {}).get("tls") or {}
            chain = list(tls.get("client_cert_chain") or ())
            return (
                thumbprint_of(chain[0]) if chain and not tls.get("client_cert_error") else None
            )
        values = [value for name, value in scope["headers"] if name.lower() == self._header]
        if len(values) > 1:
            raise malformed("certificate_header", "several", "one header, by the proxy")
        return (
            shown_certificate(
                Connection(peer, certificate=values[0].decode("latin-1")), self._proxies
            )
            if values
            else None
        )
