"""Where a workflow to review is read from: a file, or a file as a git revision has it (``REV:path``).

Rules: nothing of the repository is executed. Git is asked two plumbing questions (which commit, which bytes), with the revision
checked so that it cannot be an option, without hooks, filters, replacements, pagers, prompts or lazy fetching. The roles that
a workflow names are those that lie above it in the same revision.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from agentgate.errors import ConfigError, Problem, WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import ROLES, TESTS, text_of, workflow_files
from agentgate.loading.definition import Roles, load_text, parse_roles, read_file
from agentgate.workflow.model import Workflow

_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@{}^~+-]{0,199}", re.ASCII)
_ROLE = "narrower_than"  # what every key that names a role begins with
_PATIENCE = 20.0  # seconds for one question to git
_MAX = 1024 * 1024
_QUIET = ("--no-pager", "--no-replace-objects", "--literal-pathspecs", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class WorkflowText:
    """One workflow as found.

    Attributes:
        name: how the person named it.
        path: its path, in the revision or on disk.
        commit: full hash of the commit, or empty for a file on disk.
        text: the file's text.
        tests: the text of the test file beside it, or None where there is none.
        roles: the static roles above it.
        roles_from: the file they are from; empty: none lies above it.
    """

    name: str
    path: str
    commit: str
    text: str
    tests: str | None
    roles: Roles
    roles_from: str = ""

    def workflow(self) -> Workflow:
        """Load it. Raises WorkflowError with every problem."""
        return load_text(self.text, self.name, self.roles, derive)


def find(name: str) -> WorkflowText:
    """``REV:path`` where there is a colon, else a file's path.

    A file whose own path has a colon is written ``./...``: a folder named ``main:workflows`` in a pull request must not stand in
    for the main branch.

    Raises:
        ConfigError: neither, or git does not know it.
        WorkflowError: it cannot be read, or its ``roles.yaml`` is wrong.
    """
    revision, colon, inside = name.partition(":")
    if colon and not name.startswith(("./", "../", "/")):
        return in_git(revision, inside)
    path = Path(name)
    if not path.is_file():
        raise ConfigError("workflow", name, "a workflow file, or REV:path such as main:workflows/refund.yaml")
    return on_disk(path)


def on_disk(path: Path) -> WorkflowText:
    """A workflow file of a folder. Raises WorkflowError: it, its tests or the ``roles.yaml`` above it cannot be read."""
    tests = path.with_name(path.name.removesuffix(".yaml") + TESTS)
    roles = next((p / ROLES for p in path.absolute().parents if (p / ROLES).is_file()), None)
    return WorkflowText(
        str(path),
        str(path),
        "",
        read_file(path),
        text_of(tests, tests.parent) if tests.is_file() else None,
        parse_roles(text_of(roles, roles.parent), str(roles)) if roles is not None else {},
        str(roles) if roles is not None else "",
    )


def below(path: Path) -> tuple[WorkflowText, ...]:
    """The workflow file of this path, or every one below this folder.

    Raises:
        ConfigError: there is none. WorkflowError: as `on_disk`.
    """
    if path.is_file():
        return (on_disk(path),)
    found = tuple(on_disk(file) for file in workflow_files(path)) if path.is_dir() else ()
    if not found:
        raise ConfigError("workflows", str(path), "a workflow file, or a folder with at least one *.yaml below it")
    return found


def in_git(revision: str, path: str) -> WorkflowText:
    """A file of a commit. `path` is from the repository's root, or from here where it starts with ``./``.

    Raises:
        ConfigError: no such commit or file, or not a revision's name.
        WorkflowError: not UTF-8, or the ``roles.yaml`` above it is wrong.
    """
    at = commit_of(revision)
    inside = PurePosixPath(path)
    if path.startswith(("./", "../")):
        inside = PurePosixPath(os.path.normpath(_git("rev-parse", "--show-prefix").decode("utf-8", "replace").strip() + path))
    if inside.is_absolute() or ".." in inside.parts or not inside.name or not path.isprintable():
        raise ConfigError("path", path, "a path inside the repository, from its root (or ./ from here)")
    text = blob(at, str(inside))
    if text is None:
        raise ConfigError("workflow", f"{revision}:{path}", "a file of that commit (a path from the repository's root)")
    tests = blob(at, str(inside.with_name(inside.name.removesuffix(".yaml") + TESTS)))
    roles, roles_from = dict[str, frozenset[str]](), ""
    for folder in inside.parents:
        found = blob(at, str(folder / ROLES))
        if found is not None:
            roles_from = f"{revision}:{folder / ROLES}"
            roles = dict(parse_roles(found, roles_from))
            break
    return WorkflowText(f"{revision}:{path}", str(inside), at, text, tests, roles, roles_from)


def lend_roles(old: WorkflowText, new: WorkflowText) -> tuple[WorkflowText, WorkflowText, tuple[str, ...]]:
    """The two sides; a file on disk that lies in no workflow folder and names a role reads it as the other side does.

    A side from git never borrows: there, a role that is not in its own commit was not there.

    Returns:
        Both sides, and what was borrowed in words.
    """
    notes = []

    def lent(to: WorkflowText, other: WorkflowText) -> WorkflowText:
        if to.commit or to.roles_from or not other.roles_from or _ROLE not in to.text:
            return to
        notes.append(f"{to.name} lies in no workflow folder: its roles are read as in {other.roles_from}")
        return replace(to, roles=other.roles)

    return lent(old, new), lent(new, old), tuple(notes)


def commit_of(revision: str) -> str:
    """The full hash of the commit that a revision names.

    Raises:
        ConfigError: nothing that can be a revision, or none that git knows.
    """
    if not _REVISION.fullmatch(revision):
        raise ConfigError("revision", revision, "a branch, tag or commit (letters, digits and . _ / @ { } ^ ~ + -, not - first)")
    found = ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found is None or not re.fullmatch(rb"[0-9a-f]{40,64}\n", found):
        raise ConfigError("revision", revision, "a commit of this repository (fetch it first, or check its spelling)")
    return found.decode().strip()


def blob(commit: str, path: str) -> str | None:
    """The text of a file of a commit; None where there is none (or it is a folder).

    Raises:
        WorkflowError: too large or not UTF-8.
    """
    data = ask("cat-file", "blob", f"{commit}:{path}")
    if data is None:
        return None
    try:
        if len(data) > _MAX:
            raise WorkflowError((Problem(path, 1, 1, "document", f"{len(data)} bytes", f"at most {_MAX}"),))
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkflowError((Problem(path, 1, 1, "document", "bytes that are not UTF-8", "UTF-8 text"),)) from error


def files_of(commit: str, folder: str) -> tuple[str, ...]:
    """Paths of the workflow files below a folder of a commit (as `catalog.workflow_files` finds them on disk)."""
    found = ask("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, "--", f"{folder.rstrip('/')}/" if folder != "." else ".")
    names = [name for name in (found or b"").decode("utf-8", "replace").split("\0") if name.endswith(".yaml")]
    root = PurePosixPath(folder)
    return tuple(
        name
        for name in names
        if not name.endswith(TESTS) and PurePosixPath(name) != root / ROLES and not PurePosixPath(name).is_relative_to(root / "approvals")
    )


def prefix() -> str:
    """Where this folder lies in its repository: ``""`` at the top, else ``sub/folder/``."""
    return _git("rev-parse", "--show-prefix").decode("utf-8", "replace").strip()


def _git(*question: str) -> bytes:
    found = ask(*question)
    if found is None:
        raise ConfigError("git", " ".join(question[:2]), "a git repository here (or name two files)")
    return found


def ask(*question: str) -> bytes | None:
    """What git answers; None where it says no."""
    program = shutil.which("git")
    if program is None:
        raise ConfigError("git", "none on PATH", "git, for REV:path (or name two files)")
    try:
        done = subprocess.run(  # noqa: S603 - an exact program without a shell; every name in it was checked
            [program, *_QUIET, *question],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            env={**os.environ, **_ENVIRONMENT},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError("git", type(error).__name__, f"an answer within {_PATIENCE:.0f} s") from error
    return done.stdout if done.returncode == 0 else None
