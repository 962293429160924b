"""The reviewer's own SSH key, and the sentence that they type."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import typer

from agentgate.approvals import SshKey
from agentgate.approvals.writing import Signer, open_signer
from agentgate.cli.output import fail, say
from agentgate.errors import ConfigError, KeyRefused

MADE = "id_ed25519_agentgate"  # what init makes where there is no key
# as ssh looks for them; RSA and DSA are refused
NAMES = ("id_ed25519", "id_ecdsa", "id_ed25519_sk", "id_ecdsa_sk", MADE)
_PATIENCE = 10.0  # seconds for ssh-add to answer


def own_signer(key: Path | None) -> Signer:
    """The signer for the person's own key: the file they named, else the first usable key of
    ~/.ssh, else of ssh-agent.

    Raises KeyRefused: unreadable, or of a refused kind. ConfigError: there is none.
    """
    file = key or default_key()
    if not file:
        raise ConfigError(
            "key",
            "no SSH key in ~/.ssh or ssh-agent",
            "--key FILE (make one: ssh-keygen -t ed25519; RSA and DSA keys are refused)",
        )
    ask = partial(typer.prompt, f"Passphrase of {file}", hide_input=True, err=True)
    return open_signer(file, (lambda: str(ask()).encode()) if sys.stdin.isatty() else None)


def default_key() -> Path | None:
    """The person's own key file, or the public half of a key in ssh-agent; None without
    either.
    """
    folder = Path.home() / ".ssh"
    for name in NAMES:
        for file in (folder / name, folder / f"{name}.pub"):
            if file.is_file():
                return file
    return _in_agent()


def _in_agent() -> Path | None:
    """The first usable key of ssh-agent, its public half written where ssh-keygen can read
    it.
    """
    program = shutil.which("ssh-add")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - an exact program, no shell
            [program, "-L"],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in (
        done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else ()
    ):
        with suppress(KeyRefused):
            key = SshKey.from_line(line)
            folder = tempfile.mkdtemp()
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            file = Path(folder) / "agent.pub"
            file.write_text(f"{key.line}\n", "ascii")
            return file
    return None


def confirm(phrase: str, given: str | None) -> None:
    """Let the person type exactly this phrase, unless it was `given` as an option
    (``--accept``). Exits with 1 on anything else.
    """
    say("", f"To sign, type: {phrase}")
    if given is None:
        if not sys.stdin.isatty():
            fail(
                f"nobody is here to type it; a script says --accept '{phrase}'. Nothing was signed."
            )
        given = typer.prompt("", prompt_suffix="> ", default="", show_default=False, err=True)
    if given.strip() != phrase:
        fail(f"got '{given.strip()}', expected '{phrase}'. Nothing was signed.")
