"""The upstream credential as an object: opaque, and of no use once its call is over.

Rules: nothing shows a secret but `reveal`; what a tool returned or raised is looked through for
it before anybody else sees it.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from agentgate.errors import NotDone, ResultWithheld, UpstreamRefused
from agentgate.values.leaks import SHORTEST, holds


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
