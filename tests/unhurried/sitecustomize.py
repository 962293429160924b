"""Of every Python that a test starts (it is first on their PYTHONPATH): a call's deadline is as long as in the test itself.

Only the constant is another, and only there; the package has no setting for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_MODULE = "agentgate.shell.drive"


class _Unhurried:
    """Finds the one module that has the constant, and sets it when the module has run."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Setting(spec.loader.name, spec.loader.path)
        return spec


class _Setting(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["CALL_SECONDS"] = float(os.environ["TESTS_CALL_SECONDS"])


if "TESTS_CALL_SECONDS" in os.environ:
    sys.meta_path.insert(0, _Unhurried)
