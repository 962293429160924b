"""Trust files, below ``approvals/``: their reading and writing, their shapes, and why something
that reviewers signed is not in force (a closed list of names, each with file, field, what it
got, what was expected).

Rules: links are refused, sizes are capped, a file is written whole or not at all. A file is
YAML that all parsers agree on, or canonical JSON and nothing else, and a strict model of it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agentgate.audit.writing import write_whole
from agentgate.errors import CanonicalError, Failure, Refused, WorkflowError, place_of
from agentgate.loading.value_types import ToolDigest, check_form
from agentgate.loading.yaml_nodes import dotted, read_yaml, shown
from agentgate.values.canonical import canonical, digest
from agentgate.values.visible import visible

_LONGEST = 300


class ApprovalRefusal(StrEnum):
    """The names. Closed."""

    UNAPPROVED = "UNAPPROVED"  # the signatures do not reach the threshold
    TAMPERED = "TAMPERED"  # something differs from what was signed; the field says what
    EXPIRED = "EXPIRED"  # an approval, a key or the root has expired
    REVOKED = "REVOKED"  # a reviewer revoked this version
    ROLLBACK = "ROLLBACK"  # older than what was in force before
    STALE_INDEX = "STALE INDEX"  # the list of newest versions is absent, unsigned or too old
    WRONG_PLACE = "WRONG PLACE"  # not in the file it was approved for
    # not the pinned root, nor one its signers handed over to
    ROOT_NOT_TRUSTED = "ROOT NOT TRUSTED"
    MISSING = "MISSING"  # a signed file, or its signature, is not there


(
    UNAPPROVED,
    TAMPERED,
    EXPIRED,
    VERSION_REVOKED,
    ROLLBACK,
    STALE_INDEX,
    WRONG_PLACE,
    ROOT_NOT_TRUSTED,
    MISSING,
) = ApprovalRefusal


class ApprovalRefused(Refused):
    """A trust file, a signature or an approval was refused; `refused` says why."""

    @property
    def refused(self) -> Failure:
        """Why: `reason` is from the closed list; `data` has the file (as seen from the workflow
        directory), workflow and version.
        """
        return self.failures[0]


def refused(
    name: ApprovalRefusal,
    file: str,
    field: str,
    got: object,
    expected: str,
    *,
    workflow: str = "",
    version: int = 0,
) -> Failure:
    """One refusal; what came from a file (its name too) is made printable and short.

    Args:
        name: from the closed list.
        file: the file it is about, as seen from the workflow directory.
        field: dotted path or name of what was looked at.
        got: what the file says.
        expected: what would be accepted, and where it helps what to do next.
        workflow: id of the workflow that is refused; empty for a trust file (then nothing
            loads).
        version: version that is refused; 0 when it has none.
    """
    data = {"file": printable(file), "workflow": workflow, "version": version}
    return Failure(name, printable(field), printable(got), printable(expected), data=data)


def version_of(refusal: Failure) -> tuple[str, int]:
    """The workflow and the version that are refused."""
    return refusal.data["workflow"], refusal.data["version"]


def refuse(
    name: ApprovalRefusal, file: str, field: str, got: object, expected: str, **data: Any
) -> ApprovalRefused:
    """The exception for one refusal."""
    return ApprovalRefused.of(refused(name, file, field, got, expected).with_data(**data))


def printable(value: object) -> str:
    """A value as a message may show it: one printable line of at most 300 characters."""
    return visible(value if isinstance(value, str) else repr(value), _LONGEST)


APPROVALS = "approvals"
ROOT = "root.yaml"
SIGNERS = "allowed_signers"
INDEX = "index.json"
RENEWAL = "renewal.json"
REVOKED = "revoked.yaml"
DEFINITION = "definition.json"
MAX_BYTES = 256 * 1024

Kind = Literal["file", "folder", "link"]
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)


class Tree:
    """The ``approvals`` folder of one workflow directory."""

    __slots__ = ("_base", "directory")

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._base = os.path.join(directory, APPROVALS)  # noqa: PTH118 - joined for each of hundreds of files

    def read(self, name: str, missing: ApprovalRefusal, *, limit: int = MAX_BYTES) -> bytes:
        """The bytes of a file below ``approvals``, of at most `limit` bytes.

        Raises ApprovalRefused: absent (`missing`); a link, not a file, too large or unreadable
        (TAMPERED).
        """
        data = self.read_optional(name, limit=limit)
        if data is None:
            got = f"nothing in {os.path.abspath(self.directory)}"  # noqa: PTH100 - as it is written, links and all
            raise refuse(missing, f"{APPROVALS}/{name}", "file", got, "this file", absent=True)
        return data

    def read_optional(self, name: str, *, limit: int = MAX_BYTES) -> bytes | None:
        """The bytes of a file, or None when it does not exist. Raises TAMPERED as `read`."""
        try:
            handle = os.open(
                f"{self._base}/{name}",
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            got = (
                "a link"
                if error.errno == errno.ELOOP
                else error.strerror or type(error).__name__
            )
            raise refuse(
                TAMPERED,
                f"{APPROVALS}/{name}",
                "file",
                got,
                "a readable file (links are refused)",
            ) from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                got = (
                    f"{status.st_size} bytes"
                    if stat.S_ISREG(status.st_mode)
                    else "something else than a file"
                )
                raise refuse(
                    TAMPERED,
                    f"{APPROVALS}/{name}",
                    "file",
                    got,
                    f"a file of at most {limit} bytes",
                )
            return os.read(handle, status.st_size + 1)
        finally:
            os.close(handle)

    def names(self, folder: str = "") -> list[tuple[str, Kind]]:
        """The entries of a folder, sorted; none when it does not exist. Raises ApprovalRefused:
        a link, or unreadable (TAMPERED).
        """
        where = f"{self._base}/{folder}" if folder else self._base
        shown = f"{APPROVALS}/{folder}" if folder else APPROVALS
        try:
            if os.path.islink(where):  # noqa: PTH114 - as above
                raise _not_a_folder(shown, "a link")
            with os.scandir(where) as entries:
                return sorted(
                    (e.name, "link" if e.is_symlink() else "folder" if e.is_dir() else "file")
                    for e in entries
                )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise refuse(
                TAMPERED, shown, "folder", error.strerror or "an error", "a readable folder"
            ) from None

    def ids(self) -> list[str]:
        """The workflow ids that have a folder (or a link in its place)."""
        return [
            name
            for name, kind in self.names()
            if kind != "file" and name != "root" and _ID.fullmatch(name)
        ]

    def versions(self, id_: str) -> list[int]:
        """The stored versions of a workflow, newest first. Raises ApprovalRefused: a link or
        file in place of a folder (TAMPERED).
        """
        versions = []
        for name, kind in self.names(id_):
            if _VERSION.fullmatch(name):
                if kind != "folder":
                    raise _not_a_folder(f"{APPROVALS}/{id_}/{name}", f"a {kind}")
                versions.append(int(name))
        return sorted(versions, reverse=True)

    def write(self, name: str, data: bytes) -> Path:
        """Write a file whole or not at all, with its folders. Raises ApprovalRefused: not
        writable, or a link is in the way (TAMPERED).
        """
        path = Path(self._base) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (Path(self._base), path.parent):
                if folder.is_symlink():
                    raise _not_a_folder(str(folder), "a link")
            write_whole(path, data, mode=0o644, durable=False)
        except OSError as error:
            raise refuse(
                TAMPERED,
                f"{APPROVALS}/{name}",
                "file",
                error.strerror or "an error",
                "a writable folder",
            ) from None
        return path


def _not_a_folder(shown: str, got: str) -> ApprovalRefused:
    return refuse(TAMPERED, shown, "folder", got, "a folder (links are refused)")


def file_digest(data: bytes) -> str:
    """``sha256:...`` of a file's bytes."""
    return f"sha256:{digest(data)}"


def text_of(data: bytes, file: str) -> str:
    """A trust file as text. Raises ApprovalRefused: not UTF-8 (TAMPERED)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise refuse(
            TAMPERED, file, "document", "bytes that are not UTF-8", "UTF-8 text"
        ) from None


M = TypeVar("M", bound="Shape")
V = TypeVar("V")

PERSON = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(?:@[A-Za-z0-9][A-Za-z0-9.-]{0,63})?", re.ASCII
)


# no coercion; unknown keys are errors
STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class Shape(BaseModel):
    """A mapping, strictly read."""

    model_config = STRICT


def _existing_day(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError('a day that exists, such as "2031-12-31"') from None
    return value


def _moment(value: str) -> str:
    seconds(value)
    return value


_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
# not "definition": that is the file beside the signatures
Person = Annotated[
    str,
    check_form(
        rf"(?!definition\Z){PERSON.pattern}",
        "a name such as alice@acme.example (letters, digits, . _ + -)",
    ),
]
Digest = ToolDigest
Fingerprint = Annotated[
    str, check_form(r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:... as ssh-keygen -l prints it")
]
Tenant = Annotated[
    str,
    check_form(r"[A-Za-z0-9._-]{1,64}", "an exact tenant name, 1 to 64 of A-Z a-z 0-9 . _ -"),
]
Team = Annotated[
    str,
    check_form(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a team name of letters, digits, '.', '_' or '-'"
    ),
]
Day = Annotated[
    str,
    check_form(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", 'a date in quotes, such as "2031-12-31"'),
    AfterValidator(_existing_day),
]
Moment = Annotated[str, AfterValidator(_moment)]
Id = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
VersionNumber = Annotated[int, Field(ge=1, le=10**9)]
Risk = Literal["low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high")


def end_of(day: str) -> float:
    """POSIX seconds at the end of a day, UTC."""
    return datetime.fromisoformat(f"{day}T23:59:59+00:00").timestamp() + 1


def seconds(moment: str) -> float:
    """POSIX seconds of ``2031-12-31T00:00:00Z``. Raises ValueError."""
    if _MOMENT.fullmatch(moment) is None:
        raise ValueError("a time such as 2031-12-31T00:00:00Z")
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        raise ValueError("a time that exists, such as 2031-12-31T00:00:00Z") from None


def moment(when: float) -> str:
    """The text of POSIX seconds, as statements and the index write times."""
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ}"


def from_yaml(model: type[M], text: str, file: str, name: ApprovalRefusal) -> M:
    """A trust file in YAML. Raises ApprovalRefused: under `name`, with the place of the first
    problem.
    """
    try:
        document = read_yaml(text, file)
        document.refuse()
    except WorkflowError as error:
        problem = error.problems[0]
        raise refuse(
            name, f"{file}:{place_of(problem)[0]}", problem.field, problem.got, problem.expected
        ) from None
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        path, got, expected = _first(error)
        raise refuse(
            name, f"{file}:{document.line(path)}", dotted(path), got, expected
        ) from None


def from_json(
    model: TypeAdapter[V],
    data: bytes,
    file: str,
    name: ApprovalRefusal,
    form: Callable[[Any], bytes] = canonical,
) -> V:
    """A document in canonical JSON: exactly the bytes that `form` makes of its value, so there
    is one reading of them.

    `form` is `canonical`, or `ascii_json` for a document of any size. Raises ApprovalRefused:
    under `name`.
    """
    json_value(data, file, name, form)
    try:
        return model.validate_json(data)
    except ValidationError as error:
        path, got, expected = _first(error)
        raise refuse(name, file, dotted(path), got, expected) from None


def ascii_json(value: Any) -> bytes:
    """RFC 8785 for ASCII values without fractions; other values come out as something else,
    which no signer writes.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def json_value(
    data: bytes, file: str, name: ApprovalRefusal, form: Callable[[Any], bytes] = canonical
) -> Any:
    """The value of canonical JSON; anything else is refused under `name`."""
    try:
        value = orjson.loads(data)
        same = form(value) == data and (form is canonical or data.isascii())
    except (orjson.JSONDecodeError, CanonicalError, RecursionError) as error:
        raise refuse(name, file, "document", str(error), "RFC 8785 JSON") from None
    if not same:
        raise refuse(
            name,
            file,
            "document",
            "JSON in another form",
            "RFC 8785 JSON (the one form that is signed)",
        )
    return value


def _first(error: ValidationError) -> tuple[tuple[str | int, ...], str, str]:
    first = error.errors(include_url=False)[0]
    path = tuple(part for part in first["loc"] if part != "[key]")
    if first["type"] == "missing":
        return path, "nothing", f"{path[-1]}: (required)"
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return path, "an unknown key", "a key of this format"
    return path, shown(first["input"]), first["msg"].removeprefix("Value error, ")
