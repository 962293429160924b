"""Static secrets: from a file that only this user reads, the environment, or the keyring; read anew for every call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import pytest

from agentgate import TokenRefused
from agentgate.credentials.static import Secret, StaticBroker
from agentgate.errors import ConfigError, UpstreamRefused
from tests.upstream import CANARY, opened, redeemed, run_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "key"
    made.write_text(CANARY + "\n")
    made.chmod(0o600)
    return made


def test_the_role_of_the_workflow_picks_the_secret(tmp_path: Path, file: Path) -> None:
    broker = StaticBroker({"writer": Secret(file=file), "other": Secret(env="OTHER")})
    with opened(tmp_path, {"bank": broker}) as gate:
        run = run_of(gate)
        with redeemed(run) as call:
            assert call.credential.reveal() == CANARY
        file.write_text("rotated-since")
        with redeemed(run, call="c2") as call:
            assert call.credential.reveal() == "rotated-since"


def test_a_role_without_a_secret_is_refused(tmp_path: Path, file: Path) -> None:
    with opened(tmp_path, {"bank": StaticBroker({"reader": Secret(file=file)})}) as gate, pytest.raises(TokenRefused, match="writer"):
        redeemed(run_of(gate))


def test_a_role_is_required(tmp_path: Path, file: Path) -> None:
    gate = opened(tmp_path, {"bank": StaticBroker({"writer": Secret(file=file)})}, "{broker: bank}")
    with gate, pytest.raises(TokenRefused, match=r"upstream\.bank\.role"):
        redeemed(run_of(gate))


def test_its_scopes_are_said_with_the_secret(tmp_path: Path, file: Path) -> None:
    for scopes, passes in ((["refunds:create"], True), (["refunds:create", "payouts:create"], False), (None, False)):
        broker = StaticBroker({"strange": Secret(file=file, scopes=scopes)})
        with opened(tmp_path, {"bank": broker}, "{broker: bank, role: strange, narrower_than: support}") as gate:
            if passes:
                redeemed(run_of(gate))
            else:
                with pytest.raises(TokenRefused, match="narrower_than"):
                    redeemed(run_of(gate))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_file_that_others_can_reach_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UpstreamRefused, match="0600") as error:
        Secret(file=file).read()
    assert CANARY not in str(error.value)


def test_a_link_a_folder_a_pipe_and_a_missing_file_are_refused(tmp_path: Path, file: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "folder", "pipe", "missing"):
        with pytest.raises(UpstreamRefused, match=name):
            Secret(file=tmp_path / name).read()


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe\xfd" * 8, b"x" * 70_000], ids=["empty", "blank", "no text", "too large"])
def test_a_file_without_a_usable_secret_is_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(UpstreamRefused):
        Secret(file=file).read()


def test_a_file_of_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(UpstreamRefused, match=f"owner {own}"):
        Secret(file=file).read()


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANK_KEY", CANARY)
    assert Secret(env="BANK_KEY").read() == CANARY
    monkeypatch.delenv("BANK_KEY")
    with pytest.raises(UpstreamRefused):
        Secret(env="BANK_KEY").read()


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory, by keyring's own protocol."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept = {("bank", "refunds"): CANARY}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    made = Ring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.mark.usefixtures("ring")
def test_the_keyring() -> None:
    assert Secret(keyring=("bank", "refunds")).read() == CANARY
    with pytest.raises(UpstreamRefused):
        Secret(keyring=("bank", "nobody")).read()


def test_a_secret_is_in_exactly_one_place() -> None:
    for made in (Secret, lambda: Secret(file="a", env="B"), lambda: Secret(env="B", scopes="refunds:create")):
        with pytest.raises(ConfigError):
            made()
