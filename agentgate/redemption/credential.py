"""The upstream credential of a redeemed call: fetched for this call, given to the tool, ended
with it.

Rules: a broker is asked with a `Redemption`, which only the verifier builds, so for nothing
else. Every redeemed call gets a credential of its own; none is kept for another, so none
outlives the decision it was fetched for, and a revocation has none to drop. Nothing shows a
secret but `reveal`; what a tool returned or raised is looked through for it before anybody else
sees it. What a broker raises is not shown, since it may hold a secret. A credential that cannot
be had in time, that lives longer than the workflow says or is not narrower than the role it
must be narrower than is a refusal: the tool does not run.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, Protocol

from agentgate.errors import ConfigError, NotDone, ResultWithheld, UpstreamRefused
from agentgate.shell.spans import Tracing
from agentgate.shell.step import Outside, Receive, Step
from agentgate.stores import ops
from agentgate.token.mint import MintClaims
from agentgate.values.canonical import parse
from agentgate.values.leaks import SHORTEST, holds
from agentgate.values.value_class import Json, Values, value_class


class UpstreamCredential:
    """A real credential: no text form, no pickle, no copy, no attribute with a secret; `reveal`
    works until its call is over.
    """

    __slots__ = ("_end", "_open", "_secret", "expires_at", "parts", "scopes")

    def __init__(
        self,
        secret: Mapping[str, str],
        *,
        public: Mapping[str, str] | None = None,
        expires_at: float | None = None,
        scopes: Collection[str] | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        """Built by brokers.

        Args:
            secret: its secret parts by name, each of at least 8 characters.
            public: parts that are no secret, such as a user name.
            expires_at: POSIX seconds; None: it has no end.
            scopes: what it may do, in the words of roles.yaml; None: unknown.
            end: ends it at its issuer, when the call is over.

        Raises:
            UpstreamRefused: no secret part, or one that is too short to be told from other
                text.
        """
        if not secret or any(
            type(part) is not str or len(part) < SHORTEST for part in secret.values()
        ):
            raise UpstreamRefused(
                "upstream",
                "no secret, or a short one",
                f"secrets of at least {SHORTEST} characters",
            )
        self._open = _sealed({**(public or {}), **secret})
        self._secret = _sealed(dict(secret))
        self.parts = (*(public or {}), *secret)
        self.expires_at = expires_at
        self.scopes = None if scopes is None else frozenset(scopes)
        self._end = end

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("UpstreamCredential is final")

    def reveal(self, part: str = "") -> str:
        """One part; without a name, the only secret. Give it to the upstream system; do not
        log, store, trace or return it.

        Raises:
            LookupError: there is no such part, or several secrets and no name.
            UpstreamRefused: its call is over, or it has expired.
        """
        if self.expires_at is not None and time.time() >= self.expires_at:
            raise UpstreamRefused("upstream", "expired", "a credential that lives")
        secret = self._secret()
        known = self._open()
        if not part and len(secret) == 1:
            return next(iter(secret.values()))
        if part not in known:
            raise LookupError(f"no part {part!r}; expected one of {', '.join(known)}")
        return known[part]

    def is_in(self, value: Any) -> bool:
        """Whether a value holds a secret part of it (`agentgate.values.leaks`)."""
        return holds(value, self._secret().values())

    def check_result(self, result: Any) -> None:
        """Nothing that holds it is given to anybody.

        Raises:
            ResultWithheld: what the tool returned does.
        """
        if self.is_in(result):
            raise ResultWithheld

    def close(self) -> Callable[[], None] | None:
        """Forget it: nobody who still holds this object can reveal it. Returns what ends it at
        its issuer.
        """
        self._open = self._secret = _over
        end = self._end
        self._end = None
        return end

    def __repr__(self) -> str:
        return f"<UpstreamCredential {', '.join(self.parts)}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    # copy, deepcopy and every pickle protocol call it first
    def __getstate__(self) -> NoReturn:
        raise TypeError("an upstream credential is neither copied nor pickled")


def showable(credential: UpstreamCredential, error: BaseException) -> BaseException:
    """What a tool raised, or what stands for it if the credential is in it. The tool's frames
    forget their locals.
    """
    # handled here and now, so no frame that it went through is a suspended generator, which
    # clearing ends
    if sys.exc_info()[1] is error:
        _clear(error)
    if isinstance(error, ResultWithheld) or not credential.is_in(error):
        return error
    kind = type(error).__name__
    return (
        NotDone(f"{kind} (its text held the upstream credential)")
        if isinstance(error, NotDone)
        else ResultWithheld(kind)
    )


def _clear(error: BaseException) -> None:
    """The frames of an error and of those it came from forget their locals, where they have
    ended.
    """
    waiting = [error]
    seen = list[BaseException]()
    while waiting:
        each = waiting.pop()
        if not any(each is known for known in seen):
            seen.append(each)
            traceback.clear_frames(each.__traceback__)
            waiting += [
                linked for linked in (each.__cause__, each.__context__) if linked is not None
            ]


def _sealed(parts: Mapping[str, str]) -> Callable[[], Mapping[str, str]]:
    return lambda: parts


def _over() -> NoReturn:
    raise UpstreamRefused(
        "upstream", "a credential whose call is over", "one of a call that runs"
    )


def raise_instead(shown: BaseException | None, error: BaseException | None) -> None:
    """Raise what stands for an error, with no way back to it."""
    if shown is None or shown is error:
        return
    try:
        raise shown
    except type(shown) as bare:
        bare.__context__ = None  # what the tool raised
        raise


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
    settings: Values
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


class QueuedEnd(NamedTuple):
    """How a read ended, as the store was told; its reply is read later."""

    done: Redemption
    outcome: ops.Outcome
    step: Receive


EndQueue = dict[str, QueuedEnd]  # by run, the oldest first


@dataclass(slots=True)
class Redemption:
    """What a redemption proved, and what became of its call.

    Attributes:
        claims, data, head: what was minted or verified, the canonical arguments, the head of
            the call's record.
        ended: whether the call has ended.
        ends: told how it ended, by its gate in this process: its `facts` then wait for its
            outcome, to go on record together; or None.
        queue: where its end waits for the store's reply, with those of its gate's other calls;
            None: whoever ends it does.
        missing: what could not be recorded of it -> why.
        credential: the upstream credential, if the workflow names one.
        tracing: where spans go; None: nowhere.
    """

    claims: MintClaims
    data: bytes
    head: Values
    ended: bool = False
    ends: Callable[[ops.OutcomeReply, ops.Outcome, bytes], None] | None = field(
        default=None, repr=False
    )
    facts: bytes = b""
    queue: EndQueue | None = field(default=None, repr=False)
    missing: dict[str, str] = field(default_factory=dict)
    credential: UpstreamCredential | None = field(default=None, repr=False)
    tracing: Tracing | None = field(default=None, repr=False)

    @property
    def args(self) -> Json:
        """A fresh copy of the arguments that were decided on."""
        fresh: Json = parse(self.data)
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
