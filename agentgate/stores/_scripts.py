"""The store's Lua scripts, read once, each behind the functions they share.

The lineage function is text in front of a script. Networked servers get ``scripts/_lineage.lua``, which asks the server; only
`agentgate.stores.memory` puts another in its place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FOLDER = files("agentgate.stores").joinpath("scripts")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's full text and its SHA-1, by which the server knows it (an address, not a protection)."""

    text: bytes
    sha: str


def _read(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text(encoding="ascii")


def assemble(name: str, lineage: str) -> Script:
    """The script `name` with `lineage` (Lua text defining that function) in front."""
    text = "\n".join((lineage, _read("_common"), _read(name))).encode("ascii")
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


@cache
def script(name: str) -> Script:
    """The script `name` as every networked server gets it."""
    return assemble(name, _read("_lineage"))
