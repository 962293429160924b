"""Context variables that are set for a block."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any


class set_variables:  # noqa: N801 - used as a function
    """Set context variables in a block, and put back what they were. Each call enters several, so
    it is no generator.
    """

    __slots__ = ("_pairs", "_resets")

    def __init__(self, *pairs: tuple[ContextVar[Any], Any]) -> None:
        self._pairs = pairs

    def __enter__(self) -> None:
        self._resets = [var.set(value) for var, value in self._pairs]

    def __exit__(self, *_: object) -> None:
        for reset in self._resets:
            reset.var.reset(reset)
