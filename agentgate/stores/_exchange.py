"""What both stores of `agentgate.stores.redis` do, without I/O: one script, one round trip, one
deadline.

Rules: nothing is sent twice (a resent burn whose first reply was lost looks like a replay;
after NOSCRIPT nothing ran, so the script is loaded and sent again); a connection that failed,
timed out, returned an error or is out of step is closed, never reused (one that callers share:
after the last reply that somebody waits for); connecting counts against the same deadline, and
a reply after it is discarded. The system's resolver knows no deadline: give an address. A node
of a cluster that names another one has run nothing, so a redirection is followed, once.

A `Dialogue` yields one request after another, and is sent the reply to each.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from agentgate.errors import StoreUnavailable, Unconfirmed
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._health import (
    COVERAGE,
    KEPT,
    PROBE,
    Keeps,
    fields_of,
    heartbeat,
    judge,
    judge_role,
    keeps,
    version_of,
    weak_backlog,
    weak_file,
    weak_shard,
    weak_user,
)
from agentgate.stores._op import Arg, Op, spread
from agentgate.stores._resp import ServerError, pack
from agentgate.stores._scripts import BUILDING, script, shard_script

Dialogue = Generator[bytes, Any, Any]

_WAIT_LATE = 0.12  # seconds: a server ends a WAIT up to a tenth of a second late
# seconds between looks at what may change while a gate runs: its settings, its clock, or the
# server behind its address
LOOK_AGAIN = 5.0
_IDLE = 64  # connections kept for reuse
_ASKING = pack("ASKING")
_TRIPS = 8  # of one script: it is loaded, or names keys that it lacks; nothing ran
_redirection = re.compile(r"(MOVED|ASK) \d+ (\S*):(\d+)").fullmatch


def time_left(deadline: float) -> float:
    """Seconds until `deadline` (of `time.monotonic`); StoreUnavailable if none are left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise StoreUnavailable("the deadline has passed")
    return left


class Request(bytes):
    """A command whose caller has work to do before its reply is read."""

    meanwhile: Callable[[], object]


class Redirected(StoreUnavailable):
    """A node of a cluster says that another one has a slot (``MOVED slot host:port``, ``ASK
    slot host:port``). Nothing ran.
    """

    def __init__(self, endpoint: Endpoint, told: re.Match[str]) -> None:
        super().__init__(f"store {endpoint.name}: {told[0][:200]}")
        self.asking = told[1] == "ASK"
        self.host = told[2] or str(endpoint.options["host"])
        self.port = int(told[3])


def authenticate(endpoint: Endpoint) -> Dialogue:
    """On a new connection: AUTH and SELECT."""
    for command in endpoint.greeting:
        answer = yield pack(*command)
        if answer != b"OK":
            # a server that does not know the command goes on with the password
            told = str(answer).partition(",")[0][:200]
            raise StoreUnavailable(f"store {endpoint.name}: {command[0]} was answered {told}")


def greet(pool: Pool, then: Dialogue | tuple[()] = ()) -> Dialogue:
    """On a new connection, before `then`: `authenticate`; and a look, since another server may
    have taken the address over.
    """
    yield from authenticate(pool.endpoint)
    if pool.checked:
        yield from look_at_server(pool)
    return (yield from then)


def _refuse_error(endpoint: Endpoint, answer: Any) -> Any:
    if type(answer) is ServerError:
        raise StoreUnavailable(f"store {endpoint.name}: {answer[:200]}")
    return answer


def run_command(endpoint: Endpoint, request: bytes) -> Dialogue:
    """One plain command, packed; only for looking at the server itself."""
    return _refuse_error(endpoint, (yield request))


def _run_script(endpoint: Endpoint, op: Op[Any], *, asking: bool = False) -> Dialogue:
    sharded = endpoint.sharded
    code, keys = (
        (shard_script(op.script), spread(op.keys)) if sharded else (script(op.script), op.keys)
    )
    declared: tuple[Arg, ...] = keys
    args = (*op.args, len(keys)) if code.asks else op.args
    meanwhile = op.meanwhile
    for _ in range(_TRIPS):
        if asking:
            yield from run_command(endpoint, _ASKING)
        request = pack("EVALSHA", code.sha, len(declared), *declared, *args)
        if meanwhile is not None:  # once, however often it is sent
            request = Request(request)
            request.meanwhile = meanwhile
            meanwhile = None
        answer = yield request
        if type(answer) is ServerError and answer.startswith("NOSCRIPT"):
            yield from run_command(endpoint, pack("SCRIPT", "LOAD", code.text))
        elif code.asks and type(answer) is list and answer[:1] == [b"undeclared"]:
            declared += tuple(answer[1])
        else:
            break
    if sharded and type(answer) is ServerError and (redirection := _redirection(answer)):
        told = Redirected(endpoint, redirection)
        # it would not see the keys that it builds and that are not there yet
        if told.asking and op.script in BUILDING:
            raise StoreUnavailable(
                f"store {endpoint.name}: {answer[:200]}: the slot is being moved key by key, not as a whole"
            )
        raise told
    if (
        sharded
        and keys is not op.keys
        and type(answer) is list
        and answer[:1] == [keys[0].encode()]
    ):
        answer[0] = op.keys[0].encode()
    return _refuse_error(endpoint, answer)


def run_op(pool: Pool, op: Op[Any], deadline: float, *, asking: bool = False) -> Dialogue:
    """One operation's script; with `Op.confirm`, then WAIT until all configured replicas have
    the write (it is applied either way).

    A server that was looked at `LOOK_AGAIN` seconds ago is looked at first. `asking`: another
    node has said that this one is to be asked.
    """
    endpoint = pool.endpoint
    if time.monotonic() - pool.looked > LOOK_AGAIN:
        yield from look_at_server(pool)
    answer = yield from _run_script(endpoint, op, asking=asking)
    if op.confirm and endpoint.replicas:
        patience = max(1, int((time_left(deadline) - _WAIT_LATE) * 1000))
        confirmed = yield pack("WAIT", endpoint.replicas, patience)
        if type(confirmed) is not int or confirmed < endpoint.replicas:
            raise Unconfirmed(
                f"store {endpoint.name}: applied, not confirmed: {confirmed} of "
                f"{endpoint.replicas} replicas have it"
            )
    return answer


def look_at_server(pool: Pool) -> Dialogue:
    """Refuse a server that cannot keep the promises now; INFO, what it says of its file, and
    what is weak about the rest.

    A server that once did not keep what it acknowledged has lost it for this process: `keeps`
    does not rise again.
    """
    endpoint = pool.endpoint
    info = yield from run_command(endpoint, pack("INFO"))
    judge_role(info)
    lag = (yield pack("CONFIG", "GET", "min-replicas-max-lag")) if endpoint.replicas else None
    config = yield KEPT
    before = time.time()
    probe = yield from _run_script(endpoint, PROBE)
    weaknesses = judge(endpoint, info, probe, before, time.time())
    if endpoint.replicas:
        pool.heartbeat = heartbeat(lag)
    if pool.keeps != "no":
        pool.keeps = keeps(endpoint, info, config)
    pool.version = version_of(fields_of(info))
    pool.looked = time.monotonic()
    return info, config, weaknesses


def check_server(pool: Pool) -> Dialogue:
    """Refuse a server that cannot keep the promises, or return its weaknesses; see
    `agentgate.stores._health`.
    """
    endpoint = pool.endpoint
    who = yield pack("ACL", "WHOAMI")
    info, config, weaknesses = yield from look_at_server(pool)
    if not pool.checked:
        pool.keeps = keeps(endpoint, info, config)
        pool.checked = True
    found = (
        weak_file(endpoint, info, config)
        + weak_backlog(endpoint, info, config)
        + weaknesses
        + weak_user(endpoint, who)
    )
    if not endpoint.sharded:
        return found
    cluster = yield pack("CLUSTER", "INFO")
    if type(cluster) is bytes and (state := fields_of(cluster).get("cluster_state")) != "ok":
        raise StoreUnavailable(
            f"store {endpoint.name}: the cluster_state of setting 'store': got {state!r}, expected 'ok'"
        )
    coverage = yield pack("CONFIG", "GET", COVERAGE)
    moves = yield pack(
        "CLUSTER",
        *("GETSLOTMIGRATIONS",)
        if pool.version[0] == "valkey"
        else ("MIGRATION", "STATUS", "ALL"),
    )
    return found + (() if endpoint.managed else weak_shard(coverage, moves))


class Pool:
    """The idle connections to one server: objects with `usable()` (of this process or event
    loop, open, nothing unread) and `discard()`.
    """

    def __init__(self, endpoint: Endpoint, *, judged: bool = False) -> None:
        self.endpoint = endpoint
        # see `agentgate.stores.Store`; learnt by `check_server`
        self.heartbeat: float | None = None if endpoint.replicas else 0.0
        # as above; nothing was acknowledged before the first look
        self.keeps: Keeps = "yes" if judged else "no"
        self.checked = judged  # whether it is looked at on each new connection
        self.looked = time.monotonic()  # when the server was looked at last
        self.version: tuple[str, tuple[int, ...]] = ("", ())  # its kind, and the numbers
        self.known = set[str]()  # scripts that were sent before
        self.shared: Any = None  # the connection that all callers of an awaited store share
        self._idle: deque[Any] = deque()
        self._closed = False

    def check_open(self) -> None:
        """StoreUnavailable once it is closed."""
        if self._closed:
            raise StoreUnavailable(f"store {self.endpoint.name}: closed")

    def take(self) -> Any | None:
        """An idle connection that is usable; None: open one."""
        self.check_open()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.usable():
                return connection
            connection.discard()

    def give_back(self, connection: Any) -> None:
        """Keep a connection whose dialogue ended with an answer. One that raised must be
        discarded instead.
        """
        if len(self._idle) < _IDLE and not self._closed:
            self._idle.append(connection)
        else:
            connection.discard()

    def drop(self) -> None:
        """Close all idle connections, and the shared one after the last reply that somebody
        waits for.
        """
        with suppress(IndexError):
            while True:
                self._idle.pop().discard()
        if self.shared is not None:
            self.shared.retire()

    def close(self) -> None:
        """`drop` them; every later `take` is refused."""
        self._closed = True
        self.drop()
