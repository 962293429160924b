"""Tables of texts that stand beside a module, as TOML: data, which decides nothing by itself."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any


def read_table(room: str, name: str) -> dict[str, Any]:
    """The table of this name in a room (``agentgate.diff``)."""
    return tomllib.loads(files(room).joinpath(name).read_text("utf-8"))
