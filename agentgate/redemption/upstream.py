"""The upstream credential of a redeemed call: fetched for this call, given to the tool, ended
with it.

Rules: a broker is asked with a `Redemption`, which only the verifier builds, so for nothing
else. Every redeemed call gets a credential of its own; none is kept for another, so none
outlives the decision it was fetched for, and a revocation has none to drop. What a broker
raises is not shown, since it may hold a secret. A credential that cannot be had in time, that
lives longer than the workflow says or is not narrower than the role it must be narrower than is
a refusal: the tool does not run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentgate.errors import ConfigError, UpstreamRefused
from agentgate.redemption.credential import UpstreamCredential
from agentgate.shell.spans import Tracing
from agentgate.shell.step import Outside, Step
from agentgate.stores import ops
from agentgate.token.mint import MintClaims
from agentgate.values.canonical import parse
from agentgate.values.value_class import value_class

FETCH_SECONDS = 5.0  # a broker's whole answer
END_SECONDS = 2.0  # to end a credential when its call is over
_LEEWAY = 5.0  # seconds between clocks
# settings that are checked here, whatever the broker
_BOUNDS = frozenset({"narrower_than", "duration"})


@value_class
class Asked:
    """What the workflow says of the credential (its `upstream:` block), as the gate wrote it
    into the call's record.

    Attributes:
        settings: `role`, `path`, `scopes` and so on.
        role_scopes: what `role` may do, where roles.yaml knows it.
        bound: what the role named by `narrower_than` may do; empty: none is named.
    """

    broker: str
    settings: Mapping[str, Any]
    role_scopes: frozenset[str]
    bound: frozenset[str]

    @property
    def role(self) -> str:
        """The upstream role.

        Raises:
            UpstreamRefused: the workflow names none.
        """
        role = self.settings.get("role")
        if type(role) is not str or not role:
            raise UpstreamRefused(
                f"upstream.{self.broker}.role", role, "a role in the workflow's upstream block"
            )
        return role


@dataclass(slots=True)
class Redemption:
    """What a redemption proved, and what became of its call.

    Attributes:
        claims, data, head: what was minted or verified, the canonical arguments, the head of
            the call's record.
        ended: whether the call has ended.
        ends: told how it ended, by its gate in this process: its `facts` then wait for its
            outcome, to go on record together; or None.
        missing: what could not be recorded of it -> why.
        credential: the upstream credential, if the workflow names one.
        tracing: where spans go; None: nowhere.
    """

    claims: MintClaims
    data: bytes
    head: Mapping[str, Any]
    ended: bool = False
    ends: Callable[[ops.OutcomeReply, ops.Outcome, bytes], None] | None = field(
        default=None, repr=False
    )
    facts: bytes = b""
    missing: dict[str, str] = field(default_factory=dict)
    credential: UpstreamCredential | None = field(default=None, repr=False)
    tracing: Tracing | None = field(default=None, repr=False)

    @property
    def args(self) -> dict[str, Any]:
        """A fresh copy of the arguments that were decided on."""
        fresh: dict[str, Any] = parse(self.data)
        return fresh

    @property
    def asked(self) -> Asked | None:
        """The upstream credential that the workflow wants for this call; None: none.

        Raises:
            KeyError, TypeError: an unreadable record.
        """
        said = self.head.get("upstream")
        if said is None:
            return None
        return Asked(
            said["broker"],
            said["settings"],
            frozenset(said["role_scopes"]),
            frozenset(said["bound"]),
        )

    @property
    def wanted(self) -> Asked:
        """`asked`, for a broker.

        Raises:
            UpstreamRefused: the workflow wants none for this call.
        """
        asked = self.asked
        if asked is None:
            raise UpstreamRefused(
                "upstream", None, f"an upstream block for {self.claims.tool} in its workflow"
            )
        return asked


class UpstreamBroker(Protocol):
    """Exchanges a redeemed call for the real credential.

    Attributes:
        takes: the settings of an `upstream:` block that it reads; any other is refused.
        tenants: it may have these, the only ones whose calls it is asked for; None, or left
            out: those of the tool server.
    """

    @property
    def takes(self) -> frozenset[str]:
        """See the class."""

    def fetch(self, call: Redemption) -> UpstreamCredential:
        """A credential for this call alone. Anything raised is a refusal; only the text of an
        UpstreamRefused is shown to operators.
        """


def is_broker(value: object) -> bool:
    """Whether a value can be asked as a `UpstreamBroker`."""
    tenants = getattr(value, "tenants", None)
    listed = tenants is None or (
        isinstance(tenants, list | tuple | set | frozenset) and len(tenants) > 0
    )
    return (
        listed
        and not isinstance(value, type)
        and isinstance(getattr(value, "takes", None), frozenset)
        and callable(getattr(value, "fetch", None))
    )


def checked_brokers(brokers: object) -> None:
    """Names and their brokers.

    Raises:
        ConfigError: something else.
    """
    if not isinstance(brokers, Mapping) or not all(
        type(name) is str and is_broker(each) for name, each in brokers.items()
    ):
        got = (
            sorted(map(str, brokers))
            if isinstance(brokers, Mapping)
            else type(brokers).__name__
        )
        raise ConfigError("brokers", got, "a mapping: name -> broker (agentgate.credentials)")


def fetch(
    brokers: Mapping[str, UpstreamBroker], call: Redemption, asked: Asked
) -> Generator[Step, Any, UpstreamCredential]:
    """The credential of a redeemed call.

    Raises:
        UpstreamRefused: and nothing else.
    """
    where = f"upstream.{asked.broker}"
    broker = brokers.get(asked.broker)
    if broker is None:
        raise UpstreamRefused(
            where,
            "no broker of this name here",
            "one in `brokers` of whoever redeems: the verifier, or the gate",
        )
    tenants = getattr(broker, "tenants", None)
    if tenants is not None and call.claims.tenant not in tenants:
        raise UpstreamRefused(
            f"{where}.tenants", call.claims.tenant, "one of " + ", ".join(sorted(tenants))
        )
    if unknown := asked.settings.keys() - broker.takes - _BOUNDS:
        raise UpstreamRefused(
            f"{where}.{min(unknown)}",
            "a setting that this broker does not read",
            ", ".join(sorted(broker.takes)),
        )
    got = yield Outside(_Fetch(broker, call, where).in_time, FETCH_SECONDS)
    try:
        _check(where, asked, got)
    except UpstreamRefused:
        yield from ended(got)
        raise
    credential: UpstreamCredential = got
    return credential


def ended(credential: UpstreamCredential) -> Generator[Step, Any, str]:
    """Forget a credential, and end it at its issuer where that can be done. Returns why that
    failed; empty if it did not.
    """
    end = credential.close()
    if end is None:
        return ""
    failed: str = yield Outside(Work(end, END_SECONDS).in_time, END_SECONDS)
    return failed


def _check(where: str, asked: Asked, got: UpstreamCredential) -> None:
    """It lives, no longer than the workflow says, and is strictly narrower than what it must be
    narrower than.
    """
    now = time.time()
    longest = asked.settings.get("duration")
    if got.expires_at is not None and got.expires_at <= now:
        raise UpstreamRefused(where, "an expired credential", "one that lives")
    if longest is not None and (
        got.expires_at is None or got.expires_at > now + longest + _LEEWAY
    ):
        left = "no end" if got.expires_at is None else f"{got.expires_at - now:.0f} s"
        raise UpstreamRefused(f"{where}.duration", left, f"at most {longest} s")
    scopes = got.scopes if got.scopes is not None else asked.role_scopes
    if "narrower_than" in asked.settings and not (scopes and scopes < asked.bound):
        shown = (
            ", ".join(sorted(scopes))
            or "unknown scopes (say them in roles.yaml or to the broker)"
        )
        raise UpstreamRefused(
            f"{where}.narrower_than",
            shown,
            "a strict subset of: " + ", ".join(sorted(asked.bound)),
        )


class Work:
    """Work in a thread that its caller stops waiting for, after some seconds."""

    def __init__(self, work: Callable[[], Any], seconds: float) -> None:
        self._work = work
        self.seconds = seconds
        self._lock = threading.Lock()
        self._late = False
        self.result: Any = None
        self.error = ""
        self.refused: UpstreamRefused | None = None

    def in_time(self) -> str:
        """Why it failed; empty if it did not."""
        thread = threading.Thread(target=self._run, daemon=True, name="agentgate-upstream")
        thread.start()
        thread.join(self.seconds)
        with self._lock:
            self._late = self.result is None and not self.error
            return f"no whole answer in {self.seconds:g} s" if self._late else self.error

    def _run(self) -> None:
        try:
            result = self._work()
            error = ""
        except UpstreamRefused as refused:
            # its frames and what it came from may hold a secret
            self.refused = refused.with_traceback(None)
            refused.__cause__ = refused.__context__ = None
            result = None
            error = str(refused)
        except BaseException as raised:  # noqa: BLE001 - its text may hold a secret
            result = None
            error = type(raised).__name__
        with self._lock:
            if not self._late:
                self.result = result if result is not None else not error
                self.error = error
                return
        if isinstance(result, UpstreamCredential) and (end := result.close()):
            with suppress(Exception):  # nobody waits for it
                end()


class _Fetch(Work):
    """A broker's answer, or why there is none."""

    def __init__(self, broker: UpstreamBroker, call: Redemption, where: str) -> None:
        super().__init__(lambda: broker.fetch(call), FETCH_SECONDS)
        self._where = where

    def in_time(self) -> Any:
        failed = super().in_time()
        if failed and self.refused is not None:
            raise self.refused
        if failed:
            raise UpstreamRefused(self._where, failed, "a credential")
        if type(self.result) is not UpstreamCredential:
            raise UpstreamRefused(
                self._where, type(self.result).__name__, "an UpstreamCredential"
            )
        return self.result
