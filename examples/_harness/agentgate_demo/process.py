"""A server of a founding case as a process on loopback, and requests to it by urllib, as any client would send them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any

from agentgate.errors import ConfigError, StoreUnavailable

_START_SECONDS, _TRIES = 60, 5
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback goes through no proxy


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """An answer over HTTP."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """``ok``, or the status and the closed error."""
        said = self.body.get("error", self.body.get("code", ""))  # OAuth's errors, and problems (RFC 9457)
        return "ok" if self.status in {HTTPStatus.OK, HTTPStatus.CREATED} else f"{self.status} {said}".strip()


def post(url: str, data: bytes, headers: Mapping[str, str]) -> HTTPAnswer:
    """One POST."""
    try:
        with _OPENER.open(urllib.request.Request(url, data, dict(headers)), timeout=30) as got:  # noqa: S310 - a URL of this stage
            return HTTPAnswer(got.status, json.loads(got.read()), _lower(got.headers))
    except urllib.error.HTTPError as error:
        with error:
            return HTTPAnswer(error.code, json.loads(error.read() or b"{}"), _lower(error.headers))


def get(url: str) -> Any:
    """The JSON that one GET answers."""
    with _OPENER.open(url, timeout=30) as got:
        return json.loads(got.read())


def retry_while_busy(once: Callable[[], HTTPAnswer]) -> HTTPAnswer:
    """The answer; asked for again while it is 503: a gate decides nothing when its store does not answer within 300 ms."""
    for _ in range(_TRIES):
        if (answer := once()).status != HTTPStatus.SERVICE_UNAVAILABLE:
            return answer
        time.sleep(1)
    raise StoreUnavailable("demo: this machine is too busy: no answer within 300 ms, several times over; try again later")


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Process:
    """A server on loopback, with its log as JSON lines."""

    def __init__(self, command: list[str], url: str, log: Path, ready: str, **environment: str) -> None:
        """Start it. It answers at `url` after `ready`, which asks for the path of that name."""
        self.url, self._log, self._path = url, log, ready
        with log.open("wb") as out:
            env = {**os.environ, **environment}
            self._process = subprocess.Popen(command, stderr=out, stdout=out, cwd=log.parent, env=env)  # noqa: S603 - ours

    def ready(self) -> None:
        """Wait until it answers. Raises ConfigError: it does not start."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers(self.url + self._path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise ConfigError("demo", self._log.read_text("utf-8")[-2000:], f"a {self._log.stem} that starts")
            time.sleep(0.05)

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            with _OPENER.open(url, timeout=5):
                return True
        except OSError:
            return False

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines() if line.startswith("{")]

    def kill(self) -> None:
        """End it as a machine that fails does."""
        self._process.kill()
        self._process.wait(timeout=30)

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(timeout=30)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
