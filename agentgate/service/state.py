"""What the endpoints share: the gate, the settings, the clients and the limits."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from starlette.requests import Request

from agentgate.errors import RequestRefused
from agentgate.gate.core import Core
from agentgate.identity.connection import Peers, counted, inside, networks
from agentgate.identity.door import Identities
from agentgate.redemption.steps import Trust
from agentgate.service.clients import Caller, Clients, connection_of
from agentgate.service.health import Counts, Health
from agentgate.service.line import POLL_SECONDS, Rates, WaitingLine
from agentgate.service.messages import read_form
from agentgate.service.served import ServedGate
from agentgate.service.settings import Role, ServiceSettings
from agentgate.shell.bound import Refusals

# What is read again while the service runs. Anything else is of the gate, of its store and log,
# or of the server: it needs a restart.
LIVE = "clients identity certificate_header rate max_body".split()


def proxies_of(settings: ServiceSettings) -> tuple[Peers, ...]:
    """The configured proxies."""
    return (
        ()
        if settings.identity.proxies is None
        else networks(settings.identity.proxies.addresses)
    )


@dataclass(slots=True)
class Service:
    """See the module.

    `ready`: it takes requests (not yet, or no longer, otherwise). `reloading`: held by who
    reads anew, `reading_log`: by who asks the log.
    """

    settings: ServiceSettings
    gate: ServedGate
    clients: Clients = field(init=False)
    rates: Rates = field(init=False)
    polls: Rates = field(init=False)
    # nonces of one hold by one passkey; a hold keeps the newest 64
    asked: Rates = field(default_factory=lambda: Rates(1, burst=20))
    # challenges over which a passkey was made
    made: Rates = field(default_factory=lambda: Rates(1 / 600, burst=1))
    counts: Counts = field(init=False)
    health: Health = field(init=False)
    line: WaitingLine = field(default_factory=WaitingLine)
    health_line: WaitingLine = field(default_factory=lambda: WaitingLine(2))
    # of the log, for requests that nobody proved
    lines: Rates = field(default_factory=lambda: Rates(2, burst=300))
    untold: Refusals = field(default_factory=Refusals)  # those without a line
    ready: bool = True
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    reading_log: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.clients = Clients(self.settings, self.url("/oauth2/token"))
        self.rates = Rates(self.settings.rate)
        self.polls = Rates(1 / POLL_SECONDS, burst=1)
        self.counts = Counts(wanted=self.settings.metrics)
        if self.settings.metrics:
            self.gate.time_store(self.counts.count_operation)
        self.health = Health(self.gate, self.settings.audit, lambda: self.ready)

    def reread(self, settings: ServiceSettings) -> tuple[list[str], list[str]]:
        """Take up settings that can change while requests are answered (`LIVE`); returns their
        names, and of those that cannot.

        Raises:
            AgentGateError: keys, or what else they name, cannot be used; then nothing is taken
                up.
        """
        names = [
            name
            for name in type(settings).model_fields
            if getattr(settings, name) != getattr(self.settings, name)
        ]
        taken = [name for name in names if name in LIVE]
        left = [name for name in names if name not in LIVE]
        now = self.settings.model_copy(update={name: getattr(settings, name) for name in taken})
        clients = Clients(now, self.url("/oauth2/token"))
        identities = Identities.of(now.identity)
        if "identity" in taken and self.core.identities is not None:
            self.core.identities.become(identities)
        if "rate" in taken:
            self.rates = Rates(now.rate)
        self.settings = now
        self.clients = clients
        return taken, left

    @property
    def core(self) -> Core:
        """What the gate decides with."""
        return self.gate.core

    def url(self, path: str) -> str:
        """An endpoint's URL, as callers know it."""
        return self.settings.issuer.rstrip("/") + path

    def trust(self, caller: Caller, resource: str) -> Trust:
        """Whose tokens a tool server accepts for one of its resources. Credentials are its own
        business: there are no brokers here.
        """
        core = self.core
        return Trust(
            core.trusted,
            core.issuer,
            caller.settings.tenants,
            resource,
            history=core.history,
            tracing=core.tracing,
        )

    def take(self, request: Request, client: str) -> None:
        """Count a request of a client that is proven now.

        Raises:
            RequestRefused: 429.
        """
        request.state.client = client
        request.state.connection.proven = client
        if wait := self.rates.take(client):
            raise RequestRefused(
                429, "slow_down", headers={"Retry-After": str(math.ceil(wait))}
            )

    def take_proven(self, request: Request, caller: Caller) -> None:
        """`take` for a client that has proven itself already; one that is known by what it
        exchanges counts when that is proven.

        Raises:
            RequestRefused: 429.
        """
        if not caller.claimed:
            self.take(request, caller.id)

    async def caller(self, request: Request, role: Role) -> Caller:
        """The client that asks at one of our own endpoints, proven and counted.

        Raises:
            RequestRefused: `invalid_client`, another role, 429 or 503.
        """
        caller = await self.clients.by_header(request, self.gate, role)
        self.take(request, caller.id)
        return caller

    async def form(self, request: Request) -> tuple[dict[str, str], Caller]:
        """The parameters of a request to one of OAuth's endpoints, and its client.

        Raises:
            RequestRefused: as `read_form`, `Clients.by_form` and `take_proven`.
        """
        form = await read_form(request, self.settings.max_body)
        caller = await self.clients.by_form(form, request, self.gate)
        self.take_proven(request, caller)
        return form, caller

    def is_proxy(self, peer: str) -> bool:
        """Whether the other end of a connection is a configured proxy, which brings many
        callers.
        """
        return inside(peer, proxies_of(self.settings))

    def peer(self, request: Request) -> str:
        """The caller's address, or who is at the other end of the connection: a user of this
        machine, or a proxy that names nobody.
        """
        connection = connection_of(request, self.settings)
        return counted(self.core.sources.network(connection) or connection.peer)
