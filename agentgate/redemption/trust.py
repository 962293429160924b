"""Whom a verifier trusts: the parsed key set of its gate, and the settings of one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from agentgate.audit import remembered
from agentgate.errors import ConfigError, Refusal, TokenRefused
from agentgate.redemption.upstream import UpstreamBroker, Work, checked_brokers
from agentgate.shell.bound import AT_ONCE, MOST_AT_ONCE, checked_at_once
from agentgate.shell.reader import OneReader
from agentgate.shell.spans import Tracing
from agentgate.shell.step import Outside
from agentgate.stores.history import History
from agentgate.token.jws import PublicKeys
from agentgate.values.value_class import value_class

Jwks = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
_REFRESH = 5.0  # seconds between looks at a changing key set
_PAUSE = 1.0  # seconds, after a function that returned none
KEY_SECONDS = 2.0  # in which a function must return one


@dataclass(slots=True)
class TrustedKeys:
    """A gate's key set, parsed once, and again only where it changed. All that believe one gate
    in one process share it.

    Attributes:
        jwks: the gate's key set, or a function that returns the newest one (key rotation).
        fetched: the function of `jwks` may wait for somebody: it is asked apart, one caller at
            a time, and no longer than `KEY_SECONDS`.
    """

    jwks: Jwks
    fetched: bool = False
    _text: str = ""
    _keys: PublicKeys | None = None
    _looked: float = 0.0
    _asked: float = 0.0
    _problem: str = "being asked for"
    # without keys none of them goes on
    _reader: OneReader = field(default_factory=lambda: OneReader(MOST_AT_ONCE), repr=False)

    def _due(self) -> bool:
        return self._keys is None or (
            callable(self.jwks) and time.monotonic() - self._looked > _REFRESH
        )

    def parsed(self) -> PublicKeys:
        """The key set; a function is called again after a few seconds.

        Raises:
            KeyRefused: an unusable key. Whatever the function raises.
        """
        if self._keys is None or self._due():
            given = self.jwks() if callable(self.jwks) else self.jwks
            # whoever gave it may change it and give it again
            text = json.dumps(given, default=dict)
            if self._keys is None or text != self._text:
                self._keys = PublicKeys.from_jwks(given)
                self._text = text
            self._looked = time.monotonic()
        return self._keys

    def trusted(self) -> PublicKeys:
        """`parsed`, or TokenRefused when the newest set is not available: an old one may hold a
        key that was withdrawn.
        """
        try:
            return self.parsed()
        except Exception as error:  # noqa: BLE001 - the host's function: whatever it raises, no token is accepted
            raise TokenRefused(
                Refusal.NO_KEYS, "jwks", type(error).__name__, "the gate's key set"
            ) from None

    def newest(self) -> Generator[Outside, Any, PublicKeys]:
        """`trusted`; a function that may wait is asked apart, so that no event loop stands
        still.

        Raises:
            TokenRefused: as `trusted`, or the function did not answer in time.
        """
        if self.fetched and self._due():
            yield Outside(
                lambda: self._reader.read(self._ask, self._worth_asking, wait=True),
                KEY_SECONDS,
                own_thread=True,
            )
            if self._due():
                raise TokenRefused(Refusal.NO_KEYS, "jwks", self._problem, "the gate's key set")
        return self.trusted()

    def _worth_asking(self) -> bool:
        return self._due() and time.monotonic() - self._asked > _PAUSE

    def _ask(self) -> None:
        self._problem = Work(self.parsed, KEY_SECONDS).in_time()
        self._asked = time.monotonic()


@value_class
class Trust:
    """Whose tokens a verifier accepts, and which server it is. Nothing here has a default.

    Attributes:
        keys: the gate's.
        history: what this process saw of its tenants' histories.
        brokers: where upstream credentials come from, by the names that workflows use.
        tracing: where spans go; None: nowhere.
        acr_values, max_age: how, and how many seconds ago at most, the user must have signed in
            (RFC 9470); empty, None: anyhow, ever.
    """

    keys: TrustedKeys
    issuer: str
    tenants: tuple[str, ...]
    audience: str
    history: History = field(default_factory=History)
    brokers: Mapping[str, UpstreamBroker] = field(default_factory=dict, repr=False)
    tracing: Tracing | None = None
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None


def check_served(
    tenants: Sequence[str], acr_values: Sequence[str], max_age: int | None
) -> None:
    """Check whom a tool server serves.

    Raises:
        ConfigError: a setting that would serve others.
    """
    if (
        isinstance(tenants, str)
        or not tenants
        or not all(type(t) is str and t for t in tenants)
    ):
        raise ConfigError("tenants", tenants, "a list of exact tenant names")
    if isinstance(acr_values, str) or not all(
        type(acr) is str and acr and not {*acr} & {*' "'} for acr in acr_values
    ):
        raise ConfigError(
            "acr_values", acr_values, "a list of acr values without spaces and quotation marks"
        )
    if max_age is not None and (type(max_age) is not int or max_age < 1):
        raise ConfigError("max_age", max_age, "seconds, 1 or more, or None")


@value_class
class VerifierSettings:
    """Settings of a verifier; none but the last seven has a default.

    Args:
        jwks: the gate's key set (RFC 7517), or a function that returns the newest.
        issuer: the gate's exact `iss`.
        tenants: exact tenant names this server serves.
        audience: this server's resource URL, the exact `aud`.
        store: the gate's state store (redis://, rediss://, unix://, redis+sentinel://,
            redis+cluster://, embedded://).
        audit: directory of this process's audit log.
        at_once: how many redemptions are under way at once; more are refused at once.
        heads: the directory, outside `audit`, of the key that seals the log, for ``agentgate
            audit verify --keys``; None: none does.
        checkpoints: as of a gate (`agentgate.gate.settings`).
        brokers: upstream brokers (`agentgate.credentials`) by name; a call whose workflow names
            another is refused.
        tracing: where spans go, such as `agentgate.integrations.otel.OpenTelemetry()`; None:
            none are made.
        acr_values: how the user must have signed in, one of these `acr` (RFC 9470); empty:
            anyhow. A token that does not say is refused.
        max_age: how many seconds ago at most; None: ever.
    """

    jwks: Jwks
    _: KW_ONLY
    issuer: str
    tenants: Sequence[str]
    audience: str
    store: str = field(repr=False)  # its URL may hold a password
    audit: str
    at_once: int = AT_ONCE
    heads: str | None = None
    brokers: Mapping[str, UpstreamBroker] = field(default_factory=dict, repr=False)
    tracing: Tracing | None = None
    acr_values: Sequence[str] = ()
    max_age: int | None = None
    checkpoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_at_once(self.at_once)
        for name, value in (("issuer", self.issuer), ("audience", self.audience)):
            if type(value) is not str or not value:
                raise ConfigError(name, value, "a URL")
        check_served(self.tenants, self.acr_values, self.max_age)
        checked_brokers(self.brokers)
        for name, value in (("audit", self.audit), ("store", self.store)):
            if type(value) is not str or value.startswith("memory:"):
                raise ConfigError(
                    name,
                    value if type(value) is str else type(value).__name__,
                    "what another process can share; in one process use gate.verifier(audience)",
                )

    @property
    def serving(self) -> tuple[str, Sequence[str]]:
        """Whose calls this server redeems: its audience and its tenants."""
        return self.audience, self.tenants

    def trust(self) -> Trust:
        """Whom the verifier trusts.

        Raises:
            KeyRefused: the key set holds an unusable key. AuditUnavailable: the audit log
                cannot be read.
        """
        keys = TrustedKeys(self.jwks, fetched=callable(self.jwks))
        keys.parsed()
        return Trust(
            keys,
            issuer=self.issuer,
            tenants=tuple(self.tenants),
            audience=self.audience,
            history=History(remembered(self.audit)),
            brokers=self.brokers,
            tracing=self.tracing,
            acr_values=tuple(self.acr_values),
            max_age=self.max_age,
        )
