"""What the endpoints share: the gate, the settings, the clients and the limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from starlette.requests import Request

from agentgate.service.answer import RequestRefused
from agentgate.service.clients import Clients
from agentgate.service.connection import connection_of
from agentgate.service.limits import Rates
from agentgate.service.served import ServedGate
from agentgate.service.settings import ServiceSettings


@dataclass(slots=True)
class Service:
    """See the module. `ready`: it takes requests (not yet, or no longer, otherwise)."""

    settings: ServiceSettings
    gate: ServedGate
    clients: Clients = field(init=False)
    rates: Rates = field(init=False)
    ready: bool = True

    def __post_init__(self) -> None:
        self.clients = Clients(self.settings, self.url("/oauth2/token"))
        self.rates = Rates(self.settings.rate)

    def url(self, path: str) -> str:
        """An endpoint's URL, as callers know it."""
        return self.settings.issuer.rstrip("/") + path

    def take(self, request: Request, client: str | None) -> None:
        """Count a request of a client, or of an address where no client is known.

        Raises:
            RequestRefused: 429.
        """
        request.state.client = client or ""
        peer = self.gate.core.sources.network(connection_of(request, self.settings)) or ""
        wait = self.rates.take(f"client {client}" if client else f"peer {peer}")
        if wait:
            raise RequestRefused(429, "slow_down", headers={"Retry-After": str(math.ceil(wait))})
