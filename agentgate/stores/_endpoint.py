"""The address of a store: a redis://, rediss:// or unix:// URL with its options; valkey is read
as redis.

``redis+sentinel://host:port,host:port/service`` names Sentinels, which are asked for the
primary, ``redis+cluster://host:port,host:port`` nodes of a cluster, which are asked whose slots
are whose (`agentgate.stores._topology`). With ``rediss`` each connection is TLS.

Besides redis-py's own URL options (TLS files, `db`, ...) there is ``replicas=N``: how many
replicas must confirm a write that has to survive a failover. Options that would change
timeouts, retries or decoding are refused: one deadline governs a call.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.backoff import NoBackoff
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

from agentgate.errors import ConfigError
from agentgate.values.value_class import Json, Names, value_class

_TLS_OPTIONS = (
    "ssl_ca_certs ssl_ca_data ssl_ca_path ssl_certfile ssl_check_hostname "
    "ssl_keyfile ssl_min_version"
)
_KINDS = {UnixDomainSocketConnection: "unix", SSLConnection: "tls"}
_COMMON = frozenset(f"replicas socket_keepalive {_TLS_OPTIONS}".split())
_OPTIONS = {
    "": _COMMON | {"db"},
    "sentinel": _COMMON | {"db", "sentinel_username", "sentinel_password"},
    "cluster": _COMMON | {"service"},
}
_scheme = re.compile(r"(?:redis|valkey)(s?)(?:\+(sentinel|cluster))?").fullmatch
_EXPECTED = (
    "redis://, rediss:// or unix://, redis+sentinel://host:port,host:port/service or "
    "redis+cluster://host:port,host:port, "
    "with valid options, / ? # @ % of a password as %2F %3F %23 %40 %25"
)
_UNSHOWN = "(not shown)"


def _no_handshake(_connection: Any) -> None:
    """Replaces redis-py's greeting: ours is sent under the exact deadline."""


@value_class
class Endpoint:
    """A parsed store URL.

    Attributes:
        name: host:port or path, for messages; never the password.
        kind: `tcp`, `tls` or `unix`.
        options: arguments of redis-py's connection class.
        greeting: commands to send on a new connection (AUTH, SELECT).
        replicas: how many replicas must confirm a write that has to survive a failover.
        guides: the Sentinels, or the nodes of a cluster, that tell where a primary is; none: it
            is this server.
        service: under which name the Sentinels know it.
        sharded: whether it is a cluster.
        managed: whose word counts for what cannot be looked at; empty: nobody's.
    """

    name: str
    kind: str
    options: Json
    greeting: tuple[Names, ...]
    replicas: int
    guides: tuple[Endpoint, ...] = ()
    service: str = ""
    sharded: bool = False
    managed: str = ""

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    def at(self, host: str, port: int) -> Endpoint:
        """The server at an address that a guide told."""
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return replace(self, name=shown, options={**self.options, "host": host, "port": port})

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """Parse a URL.

        Raises:
            ConfigError: it is malformed, or carries an option that is unknown or would weaken a
                call.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # as below
            raise ConfigError("store", _UNSHOWN, _EXPECTED) from None
        # of a password; what is before it looks like an address
        if "@" in parts.path or parts.fragment:
            raise ConfigError("store", _UNSHOWN, _EXPECTED)
        scheme = _scheme(parts.scheme)
        way = (scheme and scheme[2]) or ""
        query = _options(parts.query, way)
        guard = {name: query.pop(f"sentinel_{name}", "") for name in ("username", "password")}
        replicas = int(query.pop("replicas", "0"))
        managed = query.pop("service", "")
        plain = f"redis{scheme[1]}" if scheme else parts.scheme
        user, at, hosts = parts.netloc.rpartition("@")
        service = unquote(parts.path[1:]) if way == "sentinel" else ""
        if way and (
            not all(hosts.split(","))
            or bool(service) != (way == "sentinel")
            or (parts.path not in {"", "/"} and not service)
        ):
            raise ConfigError("store", _UNSHOWN, _EXPECTED)
        path = "" if way else parts.path
        rest = f"{path}?{urlencode(query)}"
        found = [
            _server(f"{plain}://{user}{at}{host}{rest}", replicas)
            for host in (hosts.split(",") if way else [hosts])
        ]
        if not way:
            return found[0]
        guides = (
            tuple(replace(each, greeting=_auth(**guard)) for each in found)
            if service
            else tuple(found)
        )
        shared = replace(
            found[0],
            name=",".join(each.name for each in found),
            guides=guides,
            service=service,
            sharded=not service,
        )
        return (
            replace(shared, managed=_checked_managed(managed, shared, query))
            if managed
            else shared
        )


def _options(text: str, way: str) -> dict[str, str]:
    query = dict(parse_qsl(text, keep_blank_values=True))
    known = _OPTIONS[way]
    for option in sorted(query.keys() - known):
        got = f"option {option if option.isidentifier() else _UNSHOWN}"
        raise ConfigError("store", got, "only the options " + ", ".join(sorted(known)))
    replicas = query.get("replicas", "0")
    if not (replicas.isascii() and replicas.isdigit() and len(replicas) <= 2):
        raise ConfigError("store", f"replicas={replicas}", "replicas as a number from 0 to 99")
    return query


def _auth(username: str | None, password: str | None) -> tuple[Names, ...]:
    if not password:
        return ()
    return (("AUTH", username, password) if username else ("AUTH", password),)


def _server(url: str, replicas: int) -> Endpoint:
    """One server, by redis-py's own reading of its URL."""
    try:
        options = parse_url(url)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    # its text, and any part of the address, may be of a password that was not escaped
    except ValueError:
        raise ConfigError("store", _UNSHOWN, _EXPECTED) from None
    kind = _KINDS.get(options.pop("connection_class", None), "tcp")
    username = options.pop("username", None)
    password = options.pop("password", None)
    db = options.pop("db", 0)
    greeting = (*_auth(username, password), *((("SELECT", str(db)),) if db else ()))
    name = (
        options["path"]
        if kind == "unix"
        else f"{options.setdefault('host', 'localhost')}:{options.setdefault('port', 6379)}"
    )
    options |= {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "redis_connect_func": _no_handshake,
    }
    return Endpoint(name, kind, options, greeting, replicas=replicas)


# --- services whose engine cannot be looked at ------------------------------------------------
MEMORYDB = "memorydb"
_of_memorydb = re.compile(
    r"[a-z0-9.-]+\.memorydb\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?"
).fullmatch


def proves_service(endpoint: Endpoint) -> bool:
    """Whether a TLS connection to it proves the managed service's own domain."""
    return (
        endpoint.kind == "tls"
        and _of_memorydb(str(endpoint.options["host"]).lower()) is not None
    )


def _checked_managed(managed: str, endpoint: Endpoint, query: dict[str, str]) -> str:
    """A managed service counts where TLS, by the system's own authorities, proves each of its
    names; ConfigError elsewhere.
    """
    if managed != MEMORYDB:
        raise ConfigError(
            "store",
            f"service={managed[:40]}",
            f"service={MEMORYDB}: what another service keeps cannot be looked at",
        )
    own = {
        name
        for name in query
        if name.startswith("ssl_")
        and name not in {"ssl_certfile", "ssl_keyfile", "ssl_min_version"}
    }
    if own or endpoint.replicas or not all(map(proves_service, endpoint.guides)):
        expected = (
            "rediss+cluster:// with names under memorydb.REGION.amazonaws.com only, which "
            "TLS proves by the system's authorities: "
            "no ssl_ca_*, no ssl_check_hostname, no replicas"
        )
        raise ConfigError(
            "store",
            f"service={MEMORYDB} with {', '.join(sorted(own)) or endpoint.name}",
            expected,
        )
    return managed
