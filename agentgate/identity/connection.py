"""The connection that a call came on, and whose address it has.

Rules: the address of the peer counts; what a proxy says of others counts only if the proxy's
own address is configured, and then the nearest address that is none of those. Over a Unix
socket the peer has none: it is ``unix:`` and the user id that the kernel says it has, so that a
proxy can be named there, too. Anything unreadable is no address. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import field
from functools import lru_cache

from agentgate.values.value_class import Names, value_class

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Peers = Network | str  # of a text: the one peer ``unix:UID``
# 65534: whoever the kernel has no id for in this user namespace
_UNIX = re.compile(r"unix:(?!65534$)(?:0|[1-9][0-9]{0,9})", re.ASCII)
_MAX_FORWARDED = 64


@value_class
class Connection:
    """A connection as the server sees it.

    Attributes:
        peer: address of the other end; ``unix:UID`` over a Unix socket.
        forwarded: value of the ``X-Forwarded-For`` header; of several, joined by commas in
            their order.
        certificate: value of the header in which a proxy passes a client's certificate on.
    """

    peer: str
    forwarded: str = ""
    certificate: str = field(default="", repr=False)


@lru_cache(maxsize=64)  # asked for each peer, of which a flood has many
def networks(texts: Names) -> tuple[Peers, ...]:
    """Addresses, CIDR blocks, and ``unix:UID``. Raises ValueError for anything else."""
    return tuple(
        text if _UNIX.fullmatch(text) else ipaddress.ip_network(text) for text in texts
    )


def inside(address: str | None, blocks: Iterable[Peers]) -> bool:
    """Whether an address is in one of the blocks, or the peer over a Unix socket is one of
    them.
    """
    ip = None if address is None else _ip(address)
    return any(
        address == block if not ip or isinstance(block, str) else ip in block
        for block in blocks
    )


def counted(address: str) -> str:
    """As whom an address is counted: of IPv6 the /64, of which one subscriber has 2^64
    addresses to ask from; anything else by itself.
    """
    ip = _ip(address)
    return (
        address
        if not ip or ip.version == 4
        else str(ipaddress.ip_network((ip, 64), strict=False))
    )


def caller(connection: Connection | None, proxies: tuple[Peers, ...] = ()) -> str | None:
    """The caller's address; None: unknown."""
    if not connection:
        return None
    listed = connection.forwarded.split(",") if connection.forwarded else []
    if len(listed) > _MAX_FORWARDED:
        return None
    address = connection.peer
    while listed and inside(address, proxies):
        address = listed.pop().strip()
        if address.startswith("unix:"):  # only the kernel says so
            return None
    ip = _ip(address)
    return str(ip) if ip else None


@lru_cache(maxsize=4096)
def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
