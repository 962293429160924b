"""Which client asks: one of the settings, by an assertion of its own key, by its certificate,
or by the credential that it exchanges; and on which connection: its peer, and what configured
proxies say of whoever is behind them.

Rules: an assertion counts once, for every instance on the same store. Whoever is not known, or
has another role, learns `invalid_client` and nothing else. A client acts in its own tenants
only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from agentgate.errors import CredentialRefused, KeysUnavailable, RequestRefused
from agentgate.identity.certificate import shown_certificate
from agentgate.identity.connection import Connection
from agentgate.identity.credential import Credential
from agentgate.identity.door import Client, ProvenClient
from agentgate.identity.keys import KeySource
from agentgate.identity.settings import ClientSettings
from agentgate.identity.signed import LEEWAY, read
from agentgate.service.messages import bearer, one_header, unavailable
from agentgate.service.served import ServedGate
from agentgate.service.settings import Role, Served, ServiceSettings
from agentgate.stores import ops
from agentgate.values.refusal import Failure, Reason
from agentgate.values.value_class import value_class


def connection_of(request: Request, settings: ServiceSettings) -> Connection:
    """Peer, `X-Forwarded-For` and, where settings name its header, the certificate that a proxy
    passed on.
    """
    peer = request.client.host if request.client is not None else ""
    name = settings.certificate_header
    passed = one_header(request, name) if name else None
    return Connection(peer, ",".join(request.headers.getlist("x-forwarded-for")), passed or "")


def thumbprint_of(request: Request, settings: ServiceSettings) -> str | None:
    """SHA-256 thumbprint (base64url) of the client's certificate, by a configured proxy; None:
    no certificate counts.
    """
    return shown_certificate(connection_of(request, settings), settings.identity.proxies)


ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# no tenant: a client has several, and instances may list them otherwise, or others after a
# reload
_OWNER = "service-clients"


@value_class
class Caller:
    """A client that is known.

    Attributes:
        claimed: by its word, until the credential that it exchanges is proven
            (`Served.credential`).
        certificate: thumbprint of the one by which it authenticated; empty: by other means.
    """

    id: str
    settings: Served
    claimed: bool = False
    certificate: str = ""

    def tenant(self, named: object) -> str:
        """The tenant a request is about: the named one, if it is the client's; else the
        client's only one.
        """
        own = self.settings.tenants
        tenant = named if named is not None else own[0] if len(own) == 1 else None
        if type(tenant) is not str or tenant not in own:
            got = "none" if named is None else str(named)[:64]
            failure = Failure(Reason.TENANT, "tenant", got, f"of {self.id}: {', '.join(own)}")
            raise RequestRefused(400, "invalid_authorization_details", "not_permitted", failure)
        return tenant


def unknown(field: str, got: str, expected: str) -> RequestRefused:
    """A client that is not known here."""
    return RequestRefused(
        401,
        "invalid_client",
        "",
        Failure(Reason.AGENT, field, got, expected),
        headers={"WWW-Authenticate": "Bearer"},
    )


class Clients:
    """The clients of the settings, and how each is known."""

    def __init__(self, settings: ServiceSettings, token_url: str) -> None:
        self._settings = settings
        audiences = (settings.issuer, token_url)
        self._known = {
            name: _client(name, each, audiences)
            for name, each in settings.clients.items()
            if each.keys is not None or each.certificates
        }

    async def by_form(
        self, form: Mapping[str, str], request: Request, gate: ServedGate
    ) -> Caller:
        """The client of a request to one of OAuth's endpoints (RFC 7521 section 4.2).

        Raises:
            RequestRefused: `invalid_client`, or 503.
        """
        if one_header(request, "authorization") is not None:
            raise unknown(
                "authorization",
                "a header",
                "a client_assertion: no other method is offered here",
            )
        assertion = form.get("client_assertion")
        kind = form.get("client_assertion_type")
        if kind != (assertion and ASSERTION):
            raise unknown(
                "client_assertion_type", str(kind)[:80], f"{ASSERTION}, with a client_assertion"
            )
        if assertion is not None:
            return await self._asserted(Credential(assertion), form.get("client_id"), gate)
        name = form.get("client_id")
        if name is None:
            raise unknown("client_id", "none", "a client, and its client_assertion")
        settings = self._settings.clients.get(name)
        if settings is not None and settings.credential is not None:
            return Caller(name, settings, claimed=True)
        return self._certified(name, request)

    async def by_header(self, request: Request, gate: ServedGate, role: Role) -> Caller:
        """The client of a request to one of our own endpoints: its assertion stands in
        ``Authorization: Bearer``.

        Raises:
            RequestRefused: `invalid_client`, or 503.
        """
        named = one_header(request, "agentgate-client") or ""
        credential = None
        if assertion := bearer(request):
            credential = Credential(assertion)
            named = _unverified_name(credential)
        state = request.state
        state.claimed = named if named in self._settings.clients else ""
        await state.turn(state.claimed)
        caller = (
            self._certified(named, request)
            if credential is None
            else await self._asserted(credential, None, gate)
        )
        if caller.settings.role != role:
            raise RequestRefused(
                403,
                "wrong_role",
                "",
                Failure(Reason.AGENT, "client.role", caller.settings.role, role),
            )
        return caller

    def _certified(self, name: str, request: Request) -> Caller:
        thumbprint = thumbprint_of(request, self._settings)
        known = self._known.get(name)
        if name and known is None:
            raise unknown(
                "client",
                repr(name[:80]),
                "a client of the settings, by its assertion or its certificate",
            )
        if known is None or thumbprint is None:
            raise unknown(
                "client",
                "no assertion, and no certificate",
                "a client_assertion, or a certificate passed on by a proxy",
            )
        try:
            known.certificate(thumbprint)
        except CredentialRefused as error:
            raise unknown(error.field, error.got, error.expected) from None
        return Caller(name, self._settings.clients[name], certificate=thumbprint)

    async def _asserted(
        self, credential: Credential, named: str | None, gate: ServedGate
    ) -> Caller:
        try:
            unverified: Mapping[str, Any] = read(credential, "client").unverified_claims
            name = unverified.get("sub")
            known = self._known.get(name) if type(name) is str else None
            if known is None or named not in {None, name}:
                raise CredentialRefused(  # noqa: TRY301
                    "client.sub", name, "a configured client, named alike in client_id"
                )
            proven: ProvenClient = await gate.drive(known.assertion(credential, time.time()))
        except KeysUnavailable as error:
            raise unavailable(error.failure(reason=Reason.KEYS)) from None
        except CredentialRefused as error:
            raise unknown(error.field, error.got, error.expected) from None
        await self._once(proven, gate)
        return Caller(proven.id, self._settings.clients[proven.id])

    @staticmethod
    async def _once(proven: ProvenClient, gate: ServedGate) -> None:
        left = int((proven.expires_at - time.time() + 2 * LEEWAY) * 1000)
        op = ops.keep(
            _OWNER, "assertion", f"{proven.id}\n{proven.jti}", b"1", ttl_ms=max(left, 1000)
        )
        if await gate.ask(op) != "ok":
            raise unknown(
                "client.jti", "one that was used", "a fresh assertion for each request"
            )


def _unverified_name(credential: Credential) -> str:
    """Who an assertion says its client is; empty: it does not."""
    try:
        return str(read(credential, "client").unverified_claims.get("sub"))
    except CredentialRefused:
        return ""


def _client(name: str, settings: Served, audience: tuple[str, ...]) -> Client:
    given = ClientSettings(
        keys=settings.keys,
        certificates=settings.certificates,
        audience=audience,
        tenants=settings.tenants,
        private_addresses=settings.private_addresses,
    )
    return Client(
        name,
        given,
        None
        if settings.keys is None
        else KeySource(settings.keys, private=settings.private_addresses),
    )
