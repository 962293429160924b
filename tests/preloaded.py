"""`agentgate` as a real process that starts quickly: forked from one that has imported what a gate needs.

`Forked` is used as `subprocess.Popen` is. The process has the environment, the folder, the arguments and the files that it is given, and
memory, signals and sockets of its own; only its imports are done already. Tests of a start itself, or of several workers (each of which
is a new Python), start Python.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

ROOT = Path(__file__).parent.parent
# What a gate, a tool server, and an agent have imported when they have answered.
IMPORTS = """agentgate.cli.main agentgate.cli.serve agentgate.service.process agentgate.service.checking agentgate.stores.redis redis valkey
uvicorn.lifespan.on uvicorn.loops.auto prometheus_client.multiprocess prometheus_client.asgi opentelemetry.sdk.metrics time_machine
agentgate.integrations.asgi httpx agentgate.integrations.langchain langchain.agents""".split()


class Forked:
    """A process that runs Python code, forked by `Parent`: what tests use of `subprocess.Popen`."""

    def __init__(self, code: str, *argv: str, stdout: IO[bytes], stderr: IO[bytes], env: Mapping[str, str], cwd: Path) -> None:
        self._told, telling = socket.socketpair()
        with telling:
            asked = {"code": code, "argv": ["-c", *argv], "env": dict(env), "cwd": str(cwd)}
            parent().send(asked, [stdout.fileno(), stderr.fileno(), telling.fileno()])
        said = self._told.recv(32).split()
        self.pid = int(said[0])
        self.returncode = int(said[1]) if said[1:] else None  # it may have ended by now

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None: it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has one. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._told.recv(16))
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired("agentgate", timeout or 0) from None
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing, where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


class Parent:
    """The process that forks, started once: for a test run, or for each of its processes."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)  # several processes may ask on it, each in one message
        with theirs:
            command = [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        atexit.register(self.end)

    def send(self, asked: Mapping[str, Any], files: list[int]) -> None:
        """Ask for a process; `files`: its standard output and error, and where its pid and its exit code are told."""
        socket.send_fds(self._line, [json.dumps(asked).encode()], files)

    def end(self) -> None:
        """No more are asked for."""
        self._line.close()
        self._process.wait(timeout=20)


AGENTGATE = "from agentgate.cli.main import app; app()"


def run(*argv: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a command of ours ends with and says, in a minute."""
    return run_code(AGENTGATE, *argv, env=env, cwd=cwd)


def run_at_terminal(code: str, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What Python code shows at a terminal, where yes is said to its first question."""
    return run_code(f"from tests.type_yes import at_terminal\nat_terminal()\n{code}", *argv, env=env)


def run_code(code: str, *argv: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What Python code ends with and says, in a minute."""
    with TemporaryFile() as out, TemporaryFile() as err:
        process = Forked(code, *argv, stdout=out, stderr=err, env=env or os.environ, cwd=cwd or Path.cwd())
        ended = process.wait(60)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(argv, ended, out.read().decode(), err.read().decode())


_parents: list[Parent] = []


def parent() -> Parent:
    """That of this process."""
    if not _parents:
        _parents.append(Parent())
    return _parents[0]


def _fork(line: socket.socket) -> str:
    """Fork when asked to. Returns in each new process, with the code that it is to run; ends when nobody can ask any more."""
    while True:
        message, files, _, _ = socket.recv_fds(line, 1 << 20, 3)
        if not message:
            sys.exit()
        if os.fork() == 0:
            line.close()
            with socket.socket(fileno=files.pop()) as told:
                pid = os.fork()
                if pid:  # this one waits for it, and tells
                    _tell(told, pid, files)
            return _become(json.loads(message), files)
        for file in files:
            os.close(file)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _tell(told: socket.socket, pid: int, files: list[int]) -> None:
    for file in (0, 1, 2, *files):
        os.close(file)
    with suppress(OSError):  # nobody asks any more
        told.send(f"{pid} ".encode())
        told.send(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])} ".encode())
    os._exit(0)


def _become(asked: Mapping[str, Any], files: list[int]) -> str:
    for number, file in enumerate(files, 1):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv, sys.path[0] = asked["argv"], ""
    deadlines.set_call_seconds(float(os.environ.get("TESTS_CALL_SECONDS", deadlines.REAL)))
    code: str = asked["code"]
    return code


if __name__ == "__main__":
    from tests import deadlines

    for name in IMPORTS:
        import_module(name)
    gc.freeze()
    code = _fork(socket.socket(fileno=int(sys.argv[1])))
    exec(code, {"__name__": "__main__"})  # noqa: S102 - the test's own
