"""Runs a command at a terminal of its own and says yes to the first question; prints all that the command printed."""

import os
import pty
import sys

answered = False


def read(fd):
    global answered  # noqa: PLW0603 - one command, one answer
    data = os.read(fd, 65536)
    if not answered and (b"Sign it? yes or no" in data or b"Type yes or no" in data):
        answered = True
        os.write(fd, b"y\n" if b"Sign it" in data else b"yes\n")
    return data


sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read, lambda _: b"")))
