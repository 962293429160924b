"""What a command found, as one value; text, JSON, Markdown and HTML are made from it, none
knows more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Protocol

from agentgate.values.value_class import value_class

Line = tuple[str, str]  # a line of text, and its style at a terminal


class ExitStatus(IntEnum):
    """The exit status of a command: 1 is every error, so no script takes one for an answer."""

    YES = 0
    ERROR = 1
    LOOK = 2  # a person must look
    WIDER = 3  # approved, and more is permitted than before


@value_class
class Table:
    """Rows under a head. `styles`: of columns, at a terminal. `lines`: what a pipe gets
    instead.
    """

    head: Sequence[str]
    body: Sequence[Sequence[object]]
    styles: Sequence[str] = ()
    lines: Sequence[object] = ()


class TextReport(Protocol):
    """What a command found, for a person at a terminal."""

    @property
    def status(self) -> ExitStatus:
        """The exit status."""

    def text(self, width: int) -> Iterator[Line | Table]:
        """For a terminal or a pipe, so many columns wide."""


class Report(TextReport, Protocol):
    """What a command found."""

    def to_json(self) -> Any:
        """For a program."""


class ReviewReport(Report, Protocol):
    """What a command found that reviewers read elsewhere, too."""

    def to_markdown(self) -> Iterator[str]:
        """A comment for a pull request."""

    def to_html(self) -> str:
        """One self-contained page."""


def in_number(number: int, noun: str) -> str:
    """``1 error``, ``2 errors``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
