"""Values as YAML that agentgate writes: on one line, so that `agentgate.loading.yaml_nodes` and
every other reader reads them back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentgate.loading.yaml_nodes import reads_as_text
from agentgate.values.entities import number

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.@/-]*", re.ASCII)


def inline(value: Any) -> str:
    """A value as YAML on one line, quoted where parsers would read it differently."""
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{inline(str(key))}: {inline(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    exact = number(value) if isinstance(value, float) else None
    # a workflow does not read 1e-05 as a number
    text = str(value) if exact is None else f"{exact:f}"
    if _PLAIN.fullmatch(text) and reads_as_text(text):
        return text
    if not text.isprintable():  # a line break, in a prompt
        return json.dumps(text, ensure_ascii=False)
    return "'" + text.replace("'", "''") + "'"
