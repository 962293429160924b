"""The address of a server: a redis://, rediss:// or unix:// URL with its options.

Besides redis-py's own URL options (TLS files, `db`, ...) there is ``replicas=N``: how many replicas must confirm a write that has to
survive a failover. Options that would change timeouts, retries or decoding are refused: one deadline governs a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.backoff import NoBackoff
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

from agentgate.errors import ConfigError

_TLS_OPTIONS = "ssl_ca_certs ssl_ca_data ssl_ca_path ssl_certfile ssl_check_hostname ssl_keyfile ssl_min_version"
_KINDS = {UnixDomainSocketConnection: "unix", SSLConnection: "tls"}
_OPTIONS = frozenset(f"db replicas socket_keepalive {_TLS_OPTIONS}".split())
_UNSHOWN = "(not shown)"


def _no_handshake(_connection: Any) -> None:
    """Replaces redis-py's greeting: ours is sent under the exact deadline."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed store URL.

    Attributes:
        name: host:port or path, for messages; never the password.
        kind: `tcp`, `tls` or `unix`.
        options: arguments of redis-py's connection class.
        greeting: commands to send on a new connection (AUTH, SELECT).
        replicas: how many replicas must confirm a write that has to survive a failover.
    """

    name: str
    kind: str
    options: dict[str, Any]
    greeting: tuple[tuple[str, ...], ...]
    replicas: int

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """Parse a URL.

        Raises:
            ConfigError: it is malformed, or carries an option that is unknown or would weaken a call.
        """
        expected = "redis://, rediss:// or unix:// with valid options, / ? # @ % of a password as %2F %3F %23 %40 %25"
        try:
            parts = urlsplit(url)
        except ValueError:  # as below
            raise ConfigError("store", _UNSHOWN, expected) from None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        for option in sorted(query.keys() - _OPTIONS):
            raise ConfigError(
                "store", f"option {option if option.isidentifier() else _UNSHOWN}", "only the options " + ", ".join(sorted(_OPTIONS))
            )
        replicas = query.pop("replicas", "0")
        if not (replicas.isascii() and replicas.isdigit() and len(replicas) <= 2):
            raise ConfigError("store", f"replicas={replicas}", "replicas as a number from 0 to 99")
        try:
            options = parse_url(f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(query)}")  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        except ValueError:  # its text, and any part of the address, may be of a password that was not escaped
            raise ConfigError("store", _UNSHOWN, expected) from None
        kind = _KINDS.get(options.pop("connection_class", None), "tcp")
        username, password, db = options.pop("username", None), options.pop("password", None), options.pop("db", 0)
        greeting: list[tuple[str, ...]] = []
        if password:
            greeting.append(("AUTH", username, password) if username else ("AUTH", password))
        if db:
            greeting.append(("SELECT", str(db)))
        name = options["path"] if kind == "unix" else f"{options.setdefault('host', 'localhost')}:{options.setdefault('port', 6379)}"
        options |= {"protocol": 2, "retry": Retry(NoBackoff(), 0), "health_check_interval": 0, "redis_connect_func": _no_handshake}
        return cls(name, kind, options, tuple(greeting), replicas=int(replicas))
