"""The store's Lua scripts, read once, each preceded by the shared functions that it uses: to
define one costs time in each call.

The last of these, `lineage`, is ``scripts/_lineage.lua``, which asks the server; only
`agentgate.stores.memory` replaces it. On a shard of a cluster ``scripts/_stay.lua`` follows it,
which tells a tenant that moved from one whose server failed over.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from agentgate.values.value_class import value_class

# Scripts on a call's way that touch keys which only the data names, or which their user may only
# read (ADR 38). All others declare every key (``scripts/_declare.lua``).
BUILDING = frozenset("burn live mint probe_user read_run recall record_outcome".split())
_UNDECLARED = "local declare = false"
_defined_in = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE).findall


@value_class
class Script:
    """A script's full text, the SHA-1 by which the server addresses it (no protection), and
    whether it may ask for more keys.
    """

    text: bytes
    sha: str
    asks: bool


def read_source(name: str) -> str:
    """Its Lua text, as it stands in its file."""
    return (
        files("agentgate.stores").joinpath("scripts", f"{name}.lua").read_text(encoding="ascii")
    )


@cache
def script(name: str) -> Script:
    """The script `name` for a server by itself."""
    return _assemble(name, _UNDECLARED, read_source("_lineage"))


@cache
def shard_script(name: str) -> Script:
    """The script `name` for a shard of a cluster."""
    return _assemble(
        name,
        _UNDECLARED if name in BUILDING else read_source("_declare"),
        f"{read_source('_lineage')}\n{read_source('_stay')}",
    )


def _assemble(name: str, declare: str, lineage: str) -> Script:
    code = read_source(name)
    for part in reversed((*read_source("_common").split("\n\n"), lineage)):
        if any(re.search(rf"\b{defined}\b", code) for defined in _defined_in(part)):
            code = f"{part}\n\n{code}"
    asks = declare != _UNDECLARED and "declare" in code
    if asks:
        code = f"{declare}\nreturn declaring(function()\n{code}\nend)"
    elif "declare" in code:
        code = f"{declare}\n\n{code}"
    text = code.encode("ascii")
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest(), asks)
