"""An argument of a call as it is compared."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentgate.values.entities import Key
from agentgate.workflow.model import Rule


class Value(NamedTuple):
    """An argument in normal form: its rule, the keys of its elements (one for a single value), its currency, and the value as given."""

    rule: Rule
    keys: tuple[Key, ...]
    currency: str
    raw: Any

    @property
    def shown(self) -> str:
        """The value for an operator; a sensitive one is masked."""
        return "(masked)" if self.rule.sensitive else repr(self.raw)[:200]
