"""A file that somebody else put there is no pipe to wait for, no device, no link to follow, and no secret of ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgate.approvals import opening
from agentgate.approvals._files import UNAPPROVED, Tree
from agentgate.approvals.narrowing import Prover
from agentgate.audit import verify
from agentgate.credentials.static import Secret
from agentgate.gate.call_context import DataClassFile
from agentgate.gate.holds.proof import fronts
from agentgate.identity.keys import KeySource
from agentgate.identity.passkeys import Passkeys
from agentgate.identity.settings import IdentitySettings
from agentgate.integrations.client_key import ClientKey
from agentgate.service.settings import NotifySettings, ServiceSettings
from agentgate.token.regular_file import read_regular
from agentgate.token.signing import KeyRing

# where a file is read -> its path below a folder, and what reads it
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "key ring": ("ring.json", lambda file: KeyRing.existing(file.parent)),
    "approvals in force": ("approvals.json", lambda file: opening.read_marks(file.parent)),
    "heads of audit logs": (f"{verify.FOLDER}/x.json", lambda file: verify.kept_heads(file.parent.parent)),
    "an approval": ("approvals/index.json", lambda file: Tree(file.parent.parent).read("index.json", UNAPPROVED)),
    "client key": ("client.pem", lambda file: ClientKey.read("c", file)),
    "upstream secret": ("secret", lambda file: Secret(file=file).read()),
    "webhook secret": ("secret", lambda file: NotifySettings(url="https://hooks.example/x", secret=file).hook()),
    "settings": ("gate.toml", ServiceSettings.of),
    "identity settings": ("identity.toml", IdentitySettings.of),
    "key set": ("jwks.json", lambda file: KeySource(str(file))._data()),
    "answer keys": ("answers.json", lambda file: fronts({"acme": file}, KeyRing.ephemeral())),
    "passkeys": ("passkeys.toml", lambda file: Passkeys.of({"file": str(file)}, "https://gate.example")),
    "data classes": ("data.toml", DataClassFile),
}
LINKED = {"settings", "identity settings", "key set", "answer keys", "passkeys", "data classes"}  # public: a mounted one may be a link


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def made(folder: Path, reader: str) -> Path:
    file = folder / READERS[reader][0]
    file.parent.mkdir(exist_ok=True)
    return file


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_not_waited_for(folder: Path, reader: str) -> None:
    file = made(folder, reader)
    os.mkfifo(file, 0o600)
    with pytest.raises(Exception, match=r"file|mode|0600|readable"):
        READERS[reader][1](file)


@pytest.mark.parametrize("reader", READERS)
def test_a_device_and_a_folder_are_no_files(folder: Path, reader: str) -> None:
    file = made(folder, reader)
    file.mkdir(0o700)
    with pytest.raises(Exception, match=r"file|mode|directory|0600|readable"):
        READERS[reader][1](file)
    if reader in LINKED:
        file.rmdir()
        file.symlink_to("/dev/zero")
        with pytest.raises(Exception, match=r"file|readable"):
            READERS[reader][1](file)


@pytest.mark.parametrize("reader", [name for name in READERS if name not in LINKED])
def test_a_link_is_not_followed_to_a_secret(folder: Path, reader: str) -> None:
    file = made(folder, reader)
    (folder / "real").write_text("a-secret-of-somebody-else")
    (folder / "real").chmod(0o600)
    file.symlink_to(folder / "real")
    with pytest.raises(Exception, match=r"link|symbolic|mode") as refused:
        READERS[reader][1](file)
    assert "of-somebody-else" not in str(refused.value)


def test_a_file_of_another_user_is_refused_by_root_too(folder: Path) -> None:
    with pytest.raises(OSError, match="owner" if os.geteuid() else "mode"):
        read_regular("/etc/passwd", forbidden=0o077)
    for reader in ("key ring", "approvals in force", "client key", "upstream secret", "webhook secret") if os.geteuid() == 0 else ():
        file = made(folder, reader)
        file.write_text("{}")
        file.chmod(0o600)
        os.chown(file, 65534, 65534)
        with pytest.raises(Exception, match=r"owner 65534|of this user"):
            READERS[reader][1](file)


def test_a_proof_of_narrowing_behind_a_pipe_is_proved_again(folder: Path) -> None:
    prover = Prover(kept=folder)
    os.mkfifo(folder / "narrowings.json", 0o600)
    assert prover._proved == set()


def test_what_is_read_is_what_was_checked_and_no_longer_than_said(folder: Path) -> None:
    (file := folder / "f").write_bytes(b"x" * 10)
    file.chmod(0o600)
    assert read_regular(file, forbidden=0o077, most=10) == b"x" * 10
    with pytest.raises(OSError, match="at most 9 bytes"):
        read_regular(file, most=9)
    file.chmod(0o620)
    assert read_regular(file)
    with pytest.raises(OSError, match="mode 0620"):
        read_regular(file, forbidden=0o022)
