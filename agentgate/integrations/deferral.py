"""One token, asked for until there is an answer: with the gate's nonce, and, where a person
must be asked, until they answered.

Rules: each request has credentials and an assertion of its own. While a call waits, the gate is
asked at its own interval, five seconds more after each `slow_down` (RFC 8628 section 3.5), and
less and less often while it does not answer, until the hold ends. Nothing is asked after that.
Whoever sends the requests may stop at any pause: the call stays held, and no token is made. No
I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import field, replace
from typing import Any, NamedTuple

from agentgate.integrations.exchange import (
    AskedFor,
    Credentials,
    ExchangedToken,
    ExchangeRefused,
    TokenEndpoint,
    object_of,
)
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

GRANT = "urn:ietf:params:oauth:grant-type:deferred"
# seconds; RFC 8628 section 3.2
INTERVAL = 5
MAX_INTERVAL = 60
MORE = 5
MAX_WAIT = 30 * 24 * 3600  # seconds
_MAX_CODE = 512


@value_class
class Waiting:
    """A call that waits for a person.

    Attributes:
        code: what the gate is asked with; whoever has it also needs the client's key.
        interval: seconds between two questions.
        until: POSIX seconds; the time to answer ends.
        hold: the hold's id, as ``agentgate holds`` shows it; may be empty.
        whom: whose yes it waits for, in words; may be empty.
    """

    code: str = field(repr=False)
    interval: float
    until: float
    hold: str
    whom: str

    def __str__(self) -> str:
        who = f"{self.whom} may answer" if self.whom else "a person must answer"
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.until))
        return f"waiting: {who} until {until}" + (
            f" (agentgate holds show {self.hold[:12]})" if self.hold else ""
        )


class Pause(NamedTuple):
    """Seconds to wait before the next request."""

    seconds: float


class Ask(NamedTuple):
    """One request to the token endpoint: its form and its headers."""

    form: Mapping[str, str]
    headers: Mapping[str, str]


class Answered(NamedTuple):
    """What came back. Status 0: nothing did."""

    status: int
    headers: Mapping[str, str] = {}
    data: bytes = b""


Steps = Generator[Ask | Pause, Answered | None, ExchangedToken]


def asking(
    endpoint: TokenEndpoint,
    asked: AskedFor,
    who: Credentials,
    waits: Callable[[Waiting], None] | None = None,
) -> Steps:
    """The requests of one token; each `Ask` is sent an `Answered`, each `Pause` None.

    Args:
        endpoint: of the gate.
        asked: the call.
        who: what proves who asks.
        waits: told once, when the call waits for a person; None: such a call is refused at
            once.

    Raises:
        ExchangeRefused: there is no token; `expired_token`: nobody answered in time.
    """
    answer = yield from _sent(
        endpoint, lambda: endpoint.form(asked, who, deferred=waits is not None)
    )
    waiting = _waiting(answer, time.time())
    if not waits or not waiting:
        return endpoint.token(answer.status, answer.data, asked)
    waits(waiting)
    pause = waiting.interval
    while time.time() < waiting.until:
        yield Pause(min(pause, max(1.0, waiting.until - time.time())))
        code = waiting.code
        answer = yield from _sent(
            endpoint,
            lambda: {"grant_type": GRANT, "deferral_code": code, **who.form()},  # noqa: B023 - used at once
        )
        error = object_of(answer.data).get("error")
        if answer.status in {0, 429} or answer.status >= 500:
            pause = min(2 * pause, MAX_INTERVAL)
        elif answer.status == 400 and error == "slow_down":
            pause = min(pause + MORE, MAX_INTERVAL)
        elif again := _waiting(answer, time.time()):
            waiting = replace(waiting, code=again.code)
            pause = max(pause, again.interval)
        else:
            return endpoint.token(answer.status, answer.data, asked)
    raise ExchangeRefused(0, "expired_token", "nobody answered in time")


def _sent(
    endpoint: TokenEndpoint, form: Callable[[], Mapping[str, str]]
) -> Generator[Ask | Pause, Answered | None, Answered]:
    """The answer to a form, asked once more where the gate wants its nonce in the proof."""
    for last in (False, True):
        answer = (yield Ask(form(), endpoint.proof())) or Answered(0)
        if last or not endpoint.wants_nonce(answer.status, answer.headers, answer.data):
            break
    return answer


def _waiting(answer: Answered, now: float) -> Waiting | None:
    """What an answer says of a call that waits; None: it says something else."""
    said: Mapping[str, Any] = object_of(answer.data) if answer.status == 400 else {}
    code, left, interval, hold = (
        said.get(name) for name in ("deferral_code", "expires_in", "interval", "hold")
    )
    if said.get("error") != "authorization_pending":
        return None
    if (
        type(code) is not str
        or not 0 < len(code) <= _MAX_CODE
        or not code.isascii()
        or not code.isprintable()
    ):
        return None
    if type(left) is not int or not 0 < left <= MAX_WAIT:
        return None
    every = (
        float(interval)
        if type(interval) is int and 0 < interval <= MAX_INTERVAL
        else float(INTERVAL)
    )
    told = hold if type(hold) is dict else {}
    name, whom = (
        visible(value)[:200] if type(value := told.get(each)) is str else ""
        for each in ("id", "whom")
    )
    return Waiting(code, every, now + left, name, whom)
