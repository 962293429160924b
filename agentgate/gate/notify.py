"""Tells people what becomes of holds: that a call waits, what was answered, that it expired or
was cancelled.

Who is told is a webhook or a command, each named by the setting `tell`. A webhook is one exact
URL, https, its certificate verified and its address looked at before it is connected to (none
that is private unless the setting says so), no redirect followed; its body is signed as
Standard Webhooks are (https://www.standardwebhooks.com: ``webhook-id``, ``webhook-timestamp``,
``webhook-signature``). A command gets the event on standard input; no shell reads it. An event
holds the question without the user's words, and no sensitive value: those are with the gate,
for whoever may answer.

The store is the queue (`agentgate.stores.ops.notification`), and what it says is told, whoever
wrote it: a gate, an approver's terminal, the deadline. Each hook has a thread that takes one
event at a time, at once after something happened in this process, else within a few seconds. An
event that is taken is this gate's to tell for `_LEASE` seconds, and told when the hook took it,
or says that it never will. Otherwise it is taken again, by any gate, as long as the store has
the hold. So nothing is lost with a process, and what is told twice (a gate ended after the hook
had it, and before it could note that) has the same id. No decision waits for any of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import field, replace
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from agentgate.errors import AgentGateError, ConfigError, KeysUnavailable
from agentgate.gate.holds.codec import event_from, hold_of, told_of
from agentgate.identity.fetch import post
from agentgate.shell.asking import Ask, connect
from agentgate.stores import AsyncStore, Store, ops
from agentgate.values.canonical import canonical, digest
from agentgate.values.urls import is_secure
from agentgate.values.value_class import Names, value_class

_COMMAND_SECONDS = 10.0
_LEAST_SECRET = 24
# and 5xx: the other statuses say that it will not become better
_AGAIN = frozenset({408, 425, 429})
TRIES = 5  # of one event in a row; between them 1, 2, 4, 8 seconds
_PAUSE = 1.0  # seconds before the second try
_LEASE = 60.0  # seconds; longer than all the tries
_EVERY = 2.0  # seconds between two looks at all tenants; more where there are many
_TURN = 20  # events of one tenant in a row, while others wait
_log = structlog.get_logger("agentgate.gate.notify")


class Hook(Protocol):
    """Who is told: a webhook or a command."""

    @property
    def name(self) -> str:
        """How the log names it; no secret."""

    @property
    def key(self) -> str:
        """What tells it from every other hook, for gates that share a store: a digest (hex)."""

    def send(self, id_: str, body: bytes) -> tuple[bool, str]:
        """Send one event. Returns whether it is done with (taken, or never will be), and what
        went wrong.
        """


@value_class
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
        secure = is_secure(url) and (url.scheme == "https" or self.private)
        if not secure or url.username is not None or url.fragment:
            loopback = "http only to loopback, with private=True; in settings, private_addresses = true"
            expected = f"an exact https URL without user or fragment ({loopback})"
            raise ConfigError("tell.url", self.url, expected)
        if type(self.secret) is not bytes or len(self.secret) < _LEAST_SECRET:
            expected = f"at least {_LEAST_SECRET} random bytes"
            raise ConfigError("tell.secret", type(self.secret).__name__, expected)

    @property
    def name(self) -> str:
        """Scheme and host."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.hostname}"

    @property
    def key(self) -> str:
        """See `Hook`: of the URL."""
        return digest(canonical(["webhook", self.url]))

    def send(self, id_: str, body: bytes) -> tuple[bool, str]:
        """See `Hook`."""
        now = str(int(time.time()))
        mac = hmac.digest(
            self.secret, b".".join((id_.encode(), now.encode(), body)), hashlib.sha256
        )
        signature = f"v1,{base64.b64encode(mac).decode()}"
        headers = {"webhook-id": id_, "webhook-timestamp": now, "webhook-signature": signature}
        headers["Content-Type"] = "application/json"
        try:
            status = post(self.url, body, headers, private=self.private)
        except KeysUnavailable as error:
            # many a webhook's path is its secret
            return False, f"{self.name}: {ascii(error.failures[0].data['happened'])[:240]}"
        if 200 <= status < 300:
            return True, ""
        return status < 500 and status not in _AGAIN, f"status {status}"


@value_class
class Command:
    """A program that gets events on its standard input: `argv` as it is, no shell, for at most
    ten seconds.

    Exit code 75 (EX_TEMPFAIL of sysexits.h) asks for the event again. After any other, or no
    end in time, which are logged, the event counts as told.
    """

    argv: Names

    def __post_init__(self) -> None:
        words = self.argv if type(self.argv) is tuple else ()
        if not words or not all(type(word) is str and word for word in words):
            raise ConfigError(
                "tell.argv", self.argv, "a program and its arguments, as a tuple of texts"
            )

    @property
    def name(self) -> str:
        """The program."""
        return self.argv[0]

    @property
    def key(self) -> str:
        """See `Hook`: of the words."""
        return digest(canonical(["command", *self.argv]))

    def send(self, id_: str, body: bytes) -> tuple[bool, str]:  # noqa: ARG002 - of a webhook
        """See `Hook`."""
        try:
            done = subprocess.run(  # noqa: S603 - as configured, no shell
                self.argv,
                input=body,
                capture_output=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return True, type(error).__name__
        code = done.returncode
        return code != os.EX_TEMPFAIL, f"exit code {code}" if code else ""


class Notifier:
    """Tells every hook of one gate, each in a thread of its own.

    `pages`: the URL that a hold's id follows in an event, or empty.
    """

    def __init__(self, hooks: tuple[Hook, ...] = (), pages: str = "") -> None:
        self._hooks = hooks
        self._pages = pages
        self._ends = self._over = False
        self._changed = threading.Condition()
        self._woken: dict[str, set[str]] = {hook.key: set() for hook in hooks}
        self._threads: list[threading.Thread] = []

    def start(self, store: Store | AsyncStore, tenants: Callable[[], Collection[str]]) -> None:
        """Begin, with whatever is untold; `tenants`: whose holds there may be, now."""
        if not self._hooks:
            return
        ask = connect(store)
        for hook in self._hooks:
            given = (hook, ask, tenants)
            thread = threading.Thread(
                target=self._work, args=given, daemon=True, name="agentgate-tell"
            )
            self._threads.append(thread)
            thread.start()

    def wake(self, tenant: str) -> None:
        """Something happened to a hold of this tenant. Never waits, never raises."""
        if self._hooks:
            with self._changed:
                for woken in self._woken.values():
                    woken.add(tenant)
                self._changed.notify_all()

    def close(self, seconds: float = 2.0) -> None:
        """Tell what this process knows of, for so many seconds at most, and end."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _work(self, hook: Hook, ask: Ask, tenants: Callable[[], Collection[str]]) -> None:
        due = 0.0
        while True:
            with self._changed:
                left = max(0.0, due - time.monotonic())
                self._changed.wait_for(lambda: self._woken[hook.key] or self._ends, left)
                known, self._woken[hook.key] = self._woken[hook.key], set()
                if self._over or (self._ends and not known):
                    return
            if time.monotonic() >= due:
                known = known | set(tenants())
                due = time.monotonic() + max(_EVERY, len(known) / 100)
            for tenant in sorted(known):
                try:
                    if not self._notify_some(hook, ask, tenant):
                        with self._changed:
                            self._woken[hook.key].add(tenant)
                # what is untold stays so, and is looked for again
                except AgentGateError as error:
                    _log.warning(
                        "tell_delayed", hook=hook.name, tenant=tenant, problem=str(error)
                    )

    def _notify_some(self, hook: Hook, ask: Ask, tenant: str) -> bool:
        """Send a tenant's events, so many that no other's wait long. Returns whether that was
        all.
        """
        first = sent = 0
        while not self._over and sent < _TURN:
            found = ask(ops.take_notification(tenant, hook.key, int(_LEASE * 1000), first))
            if found == "none":
                return True
            if found == "more":
                first += ops.PAGE
                continue
            sent += 1
            if self._send(hook, *message(found, self._pages)):
                ask(ops.finish_notification(tenant, hook.key, found))
        return False

    def _send(self, hook: Hook, id_: str, body: bytes) -> bool:
        """Whether the hook is done with this event."""
        for tried in range(TRIES):
            try:
                done, wrong = hook.send(id_, body)
            except Exception as error:  # noqa: BLE001 - a hook that fails changes nothing, whatever it raises
                done = True
                wrong = type(error).__name__
            if wrong:
                _log.warning(
                    "tell_failed",
                    hook=hook.name,
                    id=id_,
                    tried=tried + 1,
                    of=TRIES,
                    problem=wrong,
                )
            if done:
                return True
            with self._changed:
                if tried == TRIES - 1 or self._changed.wait_for(
                    lambda: self._over, _PAUSE * 2**tried
                ):
                    return False
        return False


def message(found: ops.Notification, pages: str = "") -> tuple[str, bytes]:
    """An event's id, which is the same whoever tells it, and its body.

    Raises:
        StoreUnavailable: what the store keeps of it cannot be read.
    """
    hold = hold_of(found.hold)
    answered = found.what == "answered"
    number = found.number if answered else 0
    id_ = digest(canonical([hold.tenant, hold.id, found.at, found.what, number]))[:32]
    body = told_of(replace(hold, question=hold.question.without_words)) | {"type": found.what}
    body |= (
        event_from(found.event)
        if answered
        else {"state": "pending" if found.what == "held" else found.what}
    )
    if pages:
        body["page"] = f"{pages}{hold.id}"
    return f"msg_{id_}", canonical(body)
