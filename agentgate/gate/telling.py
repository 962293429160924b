"""Who is told of holds: a webhook or a command, each named by the setting `tell`; `agentgate.gate.teller` tells them.

Rules: a webhook is one exact URL, https, its certificate verified and its address looked at before it is connected to (none that is
private unless the setting says so), no redirect followed; its body is signed as Standard Webhooks
are (https://www.standardwebhooks.com: ``webhook-id``, ``webhook-timestamp``, ``webhook-signature``). A command gets the event on standard
input; no shell reads it.
An event holds the question without the user's words, and no sensitive value: those are with the gate, for whoever may answer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from agentgate.errors import ConfigError, KeysUnavailable
from agentgate.identity.fetch import post
from agentgate.values.canonical import canonical, digest
from agentgate.values.urls import is_secure

_COMMAND_SECONDS, _LEAST_SECRET = 10.0, 24
_AGAIN = frozenset({408, 425, 429})  # and 5xx: the other statuses say that it will not become better


class Hook(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """How the log names it; no secret."""

    @property
    def key(self) -> str:
        """What tells it from every other hook, for gates that share a store: a digest (hex)."""

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
        secure = is_secure(url.scheme, url.hostname) and (url.scheme == "https" or self.private)
        if not secure or url.username is not None or url.fragment:
            loopback = "http only to loopback, with private=True; in settings, private_addresses = true"
            raise ConfigError("tell.url", self.url, f"an exact https URL without user or fragment ({loopback})")
        if type(self.secret) is not bytes or len(self.secret) < _LEAST_SECRET:
            raise ConfigError("tell.secret", type(self.secret).__name__, f"at least {_LEAST_SECRET} random bytes")

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
        mac = hmac.digest(self.secret, b".".join((id_.encode(), now.encode(), body)), hashlib.sha256)
        signed = {"webhook-id": id_, "webhook-timestamp": now, "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}
        try:
            status = post(self.url, body, {"Content-Type": "application/json", **signed}, private=self.private)
        except KeysUnavailable as error:
            return False, f"{self.name}: {ascii(error.failures[0].data['happened'])[:240]}"  # many a webhook's path is its secret
        told = 200 <= status < 300
        return told or (status < 500 and status not in _AGAIN), "" if told else f"status {status}"


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is told on its standard input; `argv` is run as it is, without a shell, for at most ten seconds.

    Exit code 75 (EX_TEMPFAIL of sysexits.h) asks to be told again; any other, or no end in time, is logged, and it was told.
    """

    argv: tuple[str, ...]

    def __post_init__(self) -> None:
        if type(self.argv) is not tuple or not self.argv or not all(type(word) is str and word for word in self.argv):
            raise ConfigError("tell.argv", self.argv, "a program and its arguments, as a tuple of texts")

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
            done = subprocess.run(self.argv, input=body, capture_output=True, timeout=_COMMAND_SECONDS, check=False)  # noqa: S603 - as configured, no shell
        except (OSError, subprocess.TimeoutExpired) as error:
            return True, type(error).__name__
        return done.returncode != os.EX_TEMPFAIL, "" if done.returncode == 0 else f"exit code {done.returncode}"
