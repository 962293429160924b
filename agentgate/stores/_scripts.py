"""The store's Lua scripts, read once, each preceded by the shared functions that it uses: to define one costs time in each call.

The first of these, `lineage`, is ``scripts/_lineage.lua``, which asks the server; only `agentgate.stores.memory` replaces it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FOLDER = files("agentgate.stores").joinpath("scripts")
_defined_in = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE).findall


@dataclass(frozen=True, slots=True)
class Script:
    """A script's full text, and the SHA-1 by which the server addresses it (no protection)."""

    text: bytes
    sha: str


def _source(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text(encoding="ascii")


def assemble(name: str, lineage: str) -> Script:
    """The script `name`, preceded by what it uses of `lineage` (Lua text that defines this function) and of ``_common.lua``."""
    code = _source(name)
    for part in reversed((lineage, *_source("_common").split("\n\n"))):
        if any(re.search(rf"\b{defined}\b", code) for defined in _defined_in(part)):
            code = f"{part}\n\n{code}"
    text = code.encode("ascii")
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


@cache
def script(name: str) -> Script:
    """The script `name` for any server."""
    return assemble(name, _source("_lineage"))
