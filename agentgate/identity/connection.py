"""The connection that a call came on, and whose address it has.

Rules: the address of the peer counts; what a proxy says of others counts only if the proxy's own address is configured, and then the
nearest address that is none of those. Anything unreadable is no address. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAX_FORWARDED = 64


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as the server sees it.

    Attributes:
        peer: address of the other end.
        forwarded: value of the ``X-Forwarded-For`` header; of several, joined by commas in their order.
        certificate: value of the header in which a proxy passes a client's certificate on.
    """

    peer: str
    forwarded: str = ""
    certificate: str = field(default="", repr=False)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and CIDR blocks as networks. Raises ValueError for anything else."""
    return tuple(map(ipaddress.ip_network, texts))


def inside(address: str | None, blocks: Iterable[Network]) -> bool:
    """Whether an address is in one of the blocks."""
    ip = None if address is None else _ip(address)
    return ip is not None and any(ip in block for block in blocks)


def caller(connection: Connection | None, proxies: tuple[Network, ...] = ()) -> str | None:
    """The caller's address; None: unknown."""
    if connection is None:
        return None
    listed = connection.forwarded.split(",") if connection.forwarded else []
    if len(listed) > _MAX_FORWARDED:
        return None
    address = _ip(connection.peer)
    while address is not None and listed and any(address in block for block in proxies):
        address = _ip(listed.pop().strip())
    return None if address is None else str(address)


@lru_cache(maxsize=4096)
def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
