"""fakeredis looks for a script's global variables before each command, which takes a fifth of a call to a store in memory.

Here it counts them, and looks where they are more or fewer than they were: what it refuses is the same.
"""

from __future__ import annotations

from typing import Any

from fakeredis.commands_mixins import scripting_mixin

_COUNT = "function() local found = 0 for _ in pairs(_G) do found = found + 1 end return found end"
_check = scripting_mixin._check_for_lua_globals


def _count_and_check(lua_runtime: Any, expected_globals: set[Any]) -> None:
    own = lua_runtime.globals()[b"redis"]
    count = own[b"count_globals"]
    if count is None:
        count = own[b"count_globals"] = lua_runtime.eval(_COUNT)
    if count() != len(expected_globals):
        _check(lua_runtime, expected_globals)


def count_globals() -> None:
    """From now on, in this process."""
    scripting_mixin._check_for_lua_globals = _count_and_check
