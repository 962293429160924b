"""A terminal of its own for what runs from here on: yes is said to the first question, and all that is shown there is printed."""

import os
import pty
import sys

answered = False


def read(fd: int) -> bytes:
    global answered  # noqa: PLW0603 - one command, one answer
    data = os.read(fd, 65536)
    if not answered and (b"Sign it? yes or no" in data or b"Type yes or no" in data):
        answered = True
        os.write(fd, b"y\n" if b"Sign it" in data else b"yes\n")
    return data


def at_terminal() -> None:
    """Returns at the terminal; the process that this was reads it, and ends as what runs there does."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as at a terminal
    pid, terminal = pty.fork()
    if pid:
        try:
            while data := read(terminal):
                os.write(1, data)
        except OSError:  # it has ended
            pass
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
