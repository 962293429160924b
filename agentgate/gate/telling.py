"""Telling people: a webhook or a command learns that a call waits, and what was answered.

Rules: the setting `tell` names each. Nothing waits for them: an event is put into a queue of its own for each, and dropped, with a line in
the log, where that is full; a hook that fails is logged and changes nothing. A webhook is one exact URL, https, its address looked at
before it is connected to (none that is private unless the setting says so), no redirect followed; its body is signed as Standard Webhooks
are (https://www.standardwebhooks.com: ``webhook-id``, ``webhook-timestamp``, ``webhook-signature``), and it is sent again a few times
under the same id. A command gets the event on standard input; no shell reads it.
An event holds the question without the user's words, and no sensitive value: those are with the gate, for whoever may answer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import structlog

from agentgate.decision.hold import Hold
from agentgate.decision.question import as_json
from agentgate.errors import ConfigError, KeysUnavailable
from agentgate.identity.fetch import post
from agentgate.values.canonical import canonical

TRIES = 5  # of one event; between them 1, 2, 4, 8 seconds
_PAUSE = 1.0  # seconds before the second try
_WAITING, _COMMAND_SECONDS, _LEAST_SECRET = 1000, 10.0, 24
_AGAIN = frozenset({408, 425, 429})  # and 5xx: the other statuses say that it will not become better
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_log = structlog.get_logger("agentgate.gate.telling")

Event = Mapping[str, Any]


class Hook(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """How the log names it; no secret."""

    def send(self, id_: str, body: bytes) -> tuple[bool, str]:
        """Send one event. Whether it is done with (True: told, or it will never be), and what went wrong."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that is told, with a signed body.

    Attributes:
        url: exact, https; http only to loopback, with `private`.
        secret: at least 24 random bytes, shared with the receiver.
        private: its address may be private, loopback or link-local.
    """

    url: str
    secret: bytes = field(repr=False)
    private: bool = False

    def __post_init__(self) -> None:
        url = urlsplit(self.url) if type(self.url) is str else urlsplit("")
        plain = url.scheme == "http" and self.private and url.hostname in _LOOPBACK
        if not (url.scheme == "https" or plain) or not url.hostname or url.username is not None or url.fragment:
            raise ConfigError(
                "tell.url", self.url, "an exact https URL without user or fragment (http only to loopback, with private=True)"
            )
        if type(self.secret) is not bytes or len(self.secret) < _LEAST_SECRET:
            raise ConfigError("tell.secret", type(self.secret).__name__, f"at least {_LEAST_SECRET} random bytes")

    @property
    def name(self) -> str:
        """Scheme and host."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.hostname}"

    def send(self, id_: str, body: bytes) -> tuple[bool, str]:
        """See `Hook`."""
        now = str(int(time.time()))
        mac = hmac.digest(self.secret, b".".join((id_.encode(), now.encode(), body)), hashlib.sha256)
        signed = {"webhook-id": id_, "webhook-timestamp": now, "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}
        try:
            status = post(self.url, body, {"Content-Type": "application/json", **signed}, private=self.private)
        except KeysUnavailable as error:
            return False, error.got
        told = 200 <= status < 300
        return told or (status < 500 and status not in _AGAIN), "" if told else f"status {status}"


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is told on its standard input; `argv` is run as it is, without a shell, for at most ten seconds."""

    argv: tuple[str, ...]

    def __post_init__(self) -> None:
        if type(self.argv) is not tuple or not self.argv or not all(type(word) is str and word for word in self.argv):
            raise ConfigError("tell.argv", self.argv, "a program and its arguments, as a tuple of texts")

    @property
    def name(self) -> str:
        """The program."""
        return self.argv[0]

    def send(self, id_: str, body: bytes) -> tuple[bool, str]:  # noqa: ARG002 - of a webhook
        """See `Hook`."""
        try:
            done = subprocess.run(self.argv, input=body, capture_output=True, timeout=_COMMAND_SECONDS, check=False)  # noqa: S603 - as configured, no shell
        except (OSError, subprocess.TimeoutExpired) as error:
            return True, type(error).__name__
        return True, "" if done.returncode == 0 else f"exit code {done.returncode}"


class Teller:
    """Tells every hook of one gate, each in a thread of its own."""

    def __init__(self, hooks: tuple[Webhook | Command, ...]) -> None:
        self._over = threading.Event()
        self._queues: list[queue.Queue[tuple[str, bytes]]] = []
        self._threads: list[threading.Thread] = []
        for hook in hooks:
            waiting: queue.Queue[tuple[str, bytes]] = queue.Queue(_WAITING)
            thread = threading.Thread(target=self._work, args=(hook, waiting), daemon=True, name="agentgate-tell")
            self._queues.append(waiting)
            self._threads.append(thread)
            thread.start()

    def tell(self, kind: Literal["held", "answered"], hold: Hold, **more: Any) -> None:
        """Put an event into each queue; never waits, never raises."""
        if not self._queues:
            return
        body, id_ = canonical(event_of(kind, hold, **more)), f"msg_{secrets.token_urlsafe(18)}"
        for waiting in self._queues:
            try:
                waiting.put_nowait((id_, body))
            except queue.Full:
                _log.warning("tell_dropped", type=kind, hold=hold.id)

    def close(self, seconds: float = 2.0) -> None:
        """Tell what waits, for so many seconds at most, and end."""
        end = time.monotonic() + seconds
        while any(q.unfinished_tasks for q in self._queues) and time.monotonic() < end:
            time.sleep(0.01)
        self._over.set()

    def _work(self, hook: Hook, waiting: queue.Queue[tuple[str, bytes]]) -> None:
        while not self._over.is_set():
            try:
                id_, body = waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            self._send(hook, id_, body)
            waiting.task_done()

    def _send(self, hook: Hook, id_: str, body: bytes) -> None:
        for tried in range(TRIES):
            try:
                done, wrong = hook.send(id_, body)
            except Exception as error:  # noqa: BLE001 - a hook that fails changes nothing, whatever it raises
                done, wrong = True, type(error).__name__
            if not wrong:
                return
            _log.warning("tell_failed", hook=hook.name, id=id_, tried=tried + 1, of=TRIES, problem=wrong)
            if done or tried == TRIES - 1 or self._over.wait(_PAUSE * 2**tried):
                return


def event_of(kind: str, hold: Hold, **more: Any) -> Event:
    """What is told of a hold."""
    question = None if hold.question is None else as_json(replace(hold.question, words=()))
    plain = {"hold": hold.id, "tenant": hold.tenant, "run": hold.run, "tool": hold.tool, "state": hold.state, "until": hold.expires_at}
    return {"type": kind, **plain, **more, "question": question}
