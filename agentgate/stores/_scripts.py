"""The store's Lua scripts, read once, each preceded by the functions they share.

The first of these, `lineage`, is ``scripts/_lineage.lua``, which asks the server; only `agentgate.stores.memory` replaces it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FOLDER = files("agentgate.stores").joinpath("scripts")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's full text, and the SHA-1 by which the server addresses it (no protection)."""

    text: bytes
    sha: str


def _source(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text(encoding="ascii")


def assemble(name: str, lineage: str) -> Script:
    """The script `name`, preceded by `lineage` (Lua text that defines this function)."""
    text = "\n".join((lineage, _source("_common"), _source(name))).encode("ascii")
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


@cache
def script(name: str) -> Script:
    """The script `name` for any server."""
    return assemble(name, _source("_lineage"))
