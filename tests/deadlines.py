"""How long a call may take in tests.

A call's deadline is 0.29 s (`agentgate.shell.drive.CALL_SECONDS`), and a busy machine would break any test with it. So calls have
`LONG` here, in this process and in those that tests start. Tests of the deadline itself are marked `deadline`: they have the real one,
and run at the end, a few at a time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agentgate.shell import drive

REAL, LONG = drive.CALL_SECONDS, 5.0
_SPARE = 0.05  # as `gate.flow.LATE` has it
_UNHURRIED = str(Path(__file__).parent / "unhurried")


def set_call_seconds(seconds: float) -> None:
    """What a call has from now on: here, and in processes that are started from now on."""
    os.environ["TESTS_CALL_SECONDS"] = str(seconds)
    drive.CALL_SECONDS = seconds
    for name, constant, value in (
        ("gate.flow", "LATE", seconds - _SPARE),
        ("service.served", "CALL_SECONDS", seconds),
        ("gate.observer", "CALL_SECONDS", seconds),
    ):
        module = sys.modules.get(f"agentgate.{name}")  # one that is imported later takes it from `drive`
        if module is not None:
            setattr(module, constant, value)


def python_path(*more: str) -> str:
    """PYTHONPATH of a process that a test starts."""
    return os.pathsep.join([_UNHURRIED, *more])
