"""The surroundings of one call, from sources that are not the caller: where it came from, what
data it touches, which environment it is in.

Rules: they are the call's, not the gate's. A source that is absent, fails or does not know
answers None, and a workflow that asks refuses.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from agentgate.errors import CanonicalError, ConfigError
from agentgate.identity.connection import Connection
from agentgate.token.regular_file import read_text
from agentgate.values.patterns import Glob
from agentgate.values.value_class import Values, value_class

_log = structlog.get_logger("agentgate.gate.call_context")


class DataClasses(Protocol):
    """The catalogue of data. It may take some milliseconds; the call's deadline goes on
    meanwhile.
    """

    def __call__(self, tool: str, args: Values) -> str | None:
        """The class of the data that a call touches, by the data set it names; None:
        unknown.
        """


@value_class
class Sources:
    """What fills `Surroundings` for each call.

    Attributes:
        environment: the deployment's, which counts where the issuer of the agent's job names
            none; None: unknown.
        network: the address, or the name of a zone, that a connection comes from; None:
            unknown.
        data_class: None: there is no catalogue.
    """

    environment: str | None
    network: Callable[[Connection], str | None]
    data_class: DataClasses | None = None

    def class_of(self, tool: str, args: Values) -> str | None:
        """The data class of a call; a catalogue that fails knows nothing."""
        if self.data_class is None:
            return None
        try:
            answer = self.data_class(tool, args)
        except Exception as error:  # noqa: BLE001 - somebody else's code: whatever it raises, the class is unknown, and that refuses
            _log.warning("data_class_unknown", tool=tool, error=type(error).__name__)
            return None
        return answer if type(answer) is str and answer else None


class DataClassFile:
    """A catalogue in a TOML file, read again when it changes.

        [arguments] # which argument of a tool names the data set "datasets.query" = "dataset"
        [data_sets] # data set -> class; * stops at a slash "northwind/orders/*" =
        "pseudonymous"

    An exact name counts before patterns; patterns that disagree, and everything that is not
    listed, are unknown.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read, or holds something else.
        """
        self._path = Path(path)
        self._looked = 0.0
        self._stamp = self._stat()
        self._read = self._load()

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigError(
                "data_classes",
                str(self._path),
                f"a readable TOML file ({type(error).__name__})",
            ) from None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        expected = 'a TOML file with [arguments] (tool = "argument") and [data_sets] ("name" = "class")'
        try:
            read = tomllib.loads(read_text(self._path))
        except (OSError, ValueError) as error:
            raise ConfigError(
                "data_classes", str(self._path), f"{expected} ({error})"
            ) from None
        arguments = read.get("arguments")
        listed = read.get("data_sets")
        tables = [
            each
            for each in (arguments, listed)
            if type(each) is dict and each and all(type(v) is str and v for v in each.values())
        ]
        if len(tables) != 2 or read.keys() != {"arguments", "data_sets"}:
            raise ConfigError("data_classes", ", ".join(map(str, read)) or "nothing", expected)
        return tables[0], tables[1]

    def __call__(self, tool: str, args: Values) -> str | None:
        """See `DataClasses`.

        Raises:
            ConfigError: the file changed and can no longer be read.
        """
        if time.monotonic() - self._looked > 1:
            stamp = self._stat()
            if stamp != self._stamp:
                self._read = self._load()
                self._stamp = stamp
            self._looked = time.monotonic()
        arguments, listed = self._read
        name = args.get(arguments.get(tool, ""))
        if type(name) is not str:
            return None
        if name in listed:
            return listed[name]
        found = {
            kind
            for pattern, kind in listed.items()
            if "*" in pattern and _matches(pattern, name)
        }
        return found.pop() if len(found) == 1 else None


def _matches(pattern: str, name: str) -> bool:
    try:
        return Glob.of(pattern).matches(name)
    except CanonicalError:
        return False


def data_classes(
    given: Callable[..., str | None] | str | os.PathLike[str] | None,
) -> DataClasses | None:
    """The catalogue of a gate's settings.

    Raises:
        ConfigError: as `DataClassFile`.
    """
    return DataClassFile(given) if isinstance(given, str | os.PathLike) else given
