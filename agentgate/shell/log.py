"""Where this package logs while its host has not said: standard error, one line an event; as
JSON where that is no terminal.

Rules: standard output is never written to, since a host that speaks MCP over it would break
(Model Context Protocol, stdio transport). A host that has configured structlog keeps its
configuration.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO

import structlog

from agentgate.values.visible import visible


class _Stderr:
    """Standard error as it is at each line: whoever replaces it, a test or a host, is
    followed.
    """

    def write(self, text: str) -> None:
        # closed, or it cannot show a character: no reason to fail a call (the audit log has it)
        with suppress(OSError, ValueError):
            if sys.stderr is not None:  # a process that was started without one
                sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()


def ready() -> None:
    """Configure structlog, unless that is done. Gates and verifiers call it when they are
    opened.
    """
    if not structlog.is_configured():
        configure(logging.NOTSET)


def configure(level: int) -> None:
    """Log from this level on."""
    stream: TextIO = _Stderr()  # type: ignore[assignment]  # a logger only writes and flushes
    terminal = sys.stderr is not None and sys.stderr.isatty()
    plain = (
        [_make_visible, structlog.dev.ConsoleRenderer(colors=True)]
        if terminal
        else [structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *plain,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # a line in one write: threads share the stream
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def _make_visible(_: Any, __: str, event: Any) -> Any:
    """A terminal would obey what a caller or a server wrote."""
    return {name: visible(value) for name, value in event.items()}
