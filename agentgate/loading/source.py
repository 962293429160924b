"""Reading a workflow to review: a file on disk, or a file of a git revision (``REV:path``).

Rules: nothing in the repository is executed. Git runs only plumbing commands, without hooks,
filters, replacements, pagers, prompts or lazy fetching, and a revision is validated so that it
cannot be an option. A workflow's roles are those of the nearest ``roles.yaml`` above it, in the
same revision.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath

from agentgate.errors import ConfigError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import APPROVALS, ROLES, TESTS, roles_of, text_of, workflow_files
from agentgate.loading.definition import Roles, load_text, parse_roles, read_file, refused
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow

_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@{}^~+-]{0,199}", re.ASCII)
_ROLE = "narrower_than"  # the beginning of every key that names a role
_PATIENCE = 20.0  # seconds for one git command
_MAX = 1024 * 1024  # bytes of a file
_QUIET = (
    "--no-pager --no-replace-objects --literal-pathspecs -c core.fsmonitor=false "
    "-c core.hooksPath=/dev/null"
).split()
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}


@value_class
class WorkflowText:
    """The text of one workflow, with the files that belong to it.

    Attributes:
        name: as the caller named it.
        path: its path, in the revision or on disk.
        commit: full hash of the commit; empty for a file on disk.
        text: the file's text.
        tests: the text of the test file beside it; None: it has none.
        roles: the static roles above it.
        roles_from: the file that holds them; empty: there is none above it.
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
    """Read ``REV:path`` where the name has a colon, else a file of this path.

    A file whose own path has a colon is written ``./...``: a folder named ``main:workflows`` in
    a pull request must not pass for the main branch.

    Raises:
        ConfigError: it names neither, or git does not know it.
        WorkflowError: it cannot be read, or its ``roles.yaml`` is wrong.
    """
    revision, colon, inside = name.partition(":")
    if colon and not name.startswith(("./", "../", "/")):
        return in_git(revision, inside)
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            "workflow", name, "a workflow file, or REV:path such as main:workflows/refund.yaml"
        )
    return on_disk(path)


def on_disk(path: Path) -> WorkflowText:
    """A workflow file of a folder. Raises WorkflowError: it, its tests or the ``roles.yaml``
    above it cannot be read.
    """
    tests = path.with_name(f"{path.name.removesuffix('.yaml')}{TESTS}")
    roles = next((p / ROLES for p in path.absolute().parents if (p / ROLES).is_file()), None)
    return WorkflowText(
        str(path),
        str(path),
        "",
        read_file(path),
        text_of(tests, tests.parent) if tests.is_file() else None,
        roles_of(roles.parent) if roles is not None else {},
        str(roles or ""),
    )


def below(path: Path) -> tuple[WorkflowText, ...]:
    """The workflow file of this path, or every one below this folder.

    Raises:
        ConfigError: there is none. WorkflowError: as `on_disk`.
    """
    if path.is_file():
        return (on_disk(path),)
    workflows = tuple(on_disk(file) for file in workflow_files(path)) if path.is_dir() else ()
    if not workflows:
        raise ConfigError(
            "workflows",
            str(path),
            "a workflow file, or a folder with at least one *.yaml below it",
        )
    return workflows


def in_git(revision: str, path: str) -> WorkflowText:
    """A workflow of a commit. `path` is relative to the repository's root, or to this folder
    where it starts with ``./``.

    Raises:
        ConfigError: no such commit or file, or no valid name of a revision.
        WorkflowError: not UTF-8, or the ``roles.yaml`` above it is wrong.
    """
    at = commit_of(revision)
    inside = PurePosixPath(path)
    if path.startswith(("./", "../")):
        inside = PurePosixPath(os.path.normpath(prefix() + path))
    if (
        inside.is_absolute()
        or ".." in inside.parts
        or not inside.name
        or not path.isprintable()
    ):
        raise ConfigError(
            "path", path, "a path inside the repository, from its root (or ./ from here)"
        )
    text = blob(at, str(inside))
    if text is None:
        raise ConfigError(
            "workflow",
            f"{revision}:{path}",
            "a file of that commit (a path from the repository's root)",
        )
    tests = blob(at, str(inside.with_name(f"{inside.name.removesuffix('.yaml')}{TESTS}")))
    for folder in inside.parents:
        roles = blob(at, str(folder / ROLES))
        if roles is not None:
            roles_from = f"{revision}:{folder / ROLES}"
            return WorkflowText(
                f"{revision}:{path}",
                str(inside),
                at,
                text,
                tests,
                parse_roles(roles, roles_from),
                roles_from,
            )
    return WorkflowText(f"{revision}:{path}", str(inside), at, text, tests, {})


def lend_roles(
    old: WorkflowText, new: WorkflowText
) -> tuple[WorkflowText, WorkflowText, tuple[str, ...]]:
    """Both sides, where a file on disk that names a role and has no ``roles.yaml`` above it
    uses the other side's roles.

    A side from git never borrows: a role that its own commit does not have did not exist.

    Returns:
        Both sides, and a note for each that borrowed.
    """
    notes = []

    def lent(to: WorkflowText, other: WorkflowText) -> WorkflowText:
        if to.commit or to.roles_from or not other.roles_from or _ROLE not in to.text:
            return to
        notes.append(
            f"{to.name} lies in no workflow folder: its roles are read as in {other.roles_from}"
        )
        return replace(to, roles=other.roles)

    return lent(old, new), lent(new, old), tuple(notes)


def commit_of(revision: str) -> str:
    """The full hash of the commit that a revision names.

    Raises:
        ConfigError: no valid name of a revision, or none that git knows.
    """
    if not _REVISION.fullmatch(revision):
        raise ConfigError(
            "revision",
            revision,
            "a branch, tag or commit (letters, digits and . _ / @ { } ^ ~ + -, not - first)",
        )
    commit = ask(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if commit is None or not re.fullmatch(rb"[0-9a-f]{40,64}\n", commit):
        raise ConfigError(
            "revision",
            revision,
            "a commit of this repository (fetch it first, or check its spelling)",
        )
    return commit.decode().strip()


def blob(commit: str, path: str) -> str | None:
    """The text of a file of a commit; None where the commit has no such file.

    Raises:
        WorkflowError: too large or not UTF-8.
    """
    data = ask("cat-file", "blob", f"{commit}:{path}")
    if data is None:
        return None
    if len(data) > _MAX:
        raise refused(path, f"{len(data)} bytes", f"at most {_MAX}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(path, "bytes that are not UTF-8", "UTF-8 text") from error


def files_of(commit: str, folder: str) -> tuple[str, ...]:
    """Paths of the workflow files below a folder of a commit (as `catalog.workflow_files` finds
    them on disk).
    """
    listed = ask(
        "ls-tree",
        "-r",
        "-z",
        "--name-only",
        "--full-tree",
        commit,
        "--",
        f"{folder.rstrip('/')}/" if folder != "." else ".",
    )
    names = (listed or b"").decode("utf-8", "replace").split("\0")
    root = PurePosixPath(folder)

    def is_workflow(path: PurePosixPath) -> bool:
        return path != root / ROLES and not path.is_relative_to(root / APPROVALS)

    return tuple(
        n
        for n in names
        if n.endswith(".yaml") and not n.endswith(TESTS) and is_workflow(PurePosixPath(n))
    )


def prefix() -> str:
    """This folder's path in its repository: ``""`` at the root, else ``sub/folder/``."""
    folder = ask("rev-parse", "--show-prefix")
    if folder is None:
        raise ConfigError(
            "git", "rev-parse --show-prefix", "a git repository here (or name two files)"
        )
    return folder.decode("utf-8", "replace").strip()


def ask(*question: str) -> bytes | None:
    """The output of a git command; None where it fails.

    Raises:
        ConfigError: no git is installed, or it does not answer in time.
    """
    program = shutil.which("git")
    if program is None:
        raise ConfigError("git", "none on PATH", "git, for REV:path (or name two files)")
    try:
        done = subprocess.run(  # noqa: S603 - an exact program without a shell; every name in it was validated
            [program, *_QUIET, *question],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            env={**os.environ, **_ENVIRONMENT},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            "git", type(error).__name__, f"an answer within {_PATIENCE:.0f} s"
        ) from error
    return done.stdout if done.returncode == 0 else None
