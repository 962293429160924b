"""``agentgate keys``: rotation publishes before it signs, and private keys stay private."""

from __future__ import annotations

import json
import time
from pathlib import Path

from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.token.keys import PUBLISH_AHEAD, KeyRing


def test_rotate_publishes_now_and_signs_later(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", alg="EdDSA")
    first = ring.signer(time.time()).kid
    done = CliRunner().invoke(app, ["keys", "rotate", str(tmp_path / "keys")])
    assert done.exit_code == 0, done.output
    published = json.loads(CliRunner().invoke(app, ["keys", "jwks", str(tmp_path / "keys")]).output)["keys"]
    assert len(published) == 2
    assert all(set(key) == {"kty", "crv", "x", "kid", "alg", "use"} for key in published)
    again = KeyRing.existing(tmp_path / "keys")
    assert again.signer(time.time()).kid == first
    assert again.signer(time.time() + PUBLISH_AHEAD + 1).kid != first


def test_a_withdrawn_key_is_published_no_more(tmp_path: Path) -> None:
    leaked = KeyRing.open(tmp_path / "keys").signer(time.time()).kid
    done = CliRunner().invoke(app, ["keys", "withdraw", str(tmp_path / "keys"), leaked])
    assert (done.exit_code, "agentgate revoke" in done.output) == (0, True), done.output
    published = json.loads(CliRunner().invoke(app, ["keys", "jwks", str(tmp_path / "keys")]).output)["keys"]
    assert (len(published), published[0]["kid"] != leaked) == (1, True)
    assert CliRunner().invoke(app, ["keys", "withdraw", str(tmp_path / "keys"), leaked]).exit_code == 1


def test_keys_others_may_read_are_refused(tmp_path: Path) -> None:
    KeyRing.open(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o755)
    done = CliRunner().invoke(app, ["keys", "jwks", str(tmp_path / "keys")])
    assert done.exit_code == 1
    assert "0700" in done.output


def test_a_directory_without_keys_is_not_made_into_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert CliRunner().invoke(app, ["keys", "jwks", str(tmp_path)]).exit_code == 1
    assert not list(tmp_path.iterdir())


def test_a_clients_key_is_made_once_and_only_its_public_half_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "deploy.pem"
    first, again = (CliRunner().invoke(app, ["keys", "client", str(file)]) for _ in range(2))
    assert (first.exit_code, first.output) == (0, again.output)
    assert set(json.loads(first.output)["keys"][0]) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    refused = CliRunner().invoke(app, ["keys", "client", str(file)])
    assert (refused.exit_code, "chmod 600" in refused.output) == (1, True)
    assert CliRunner().invoke(app, ["keys", "client", str(tmp_path / "none" / "x.pem")]).exit_code == 1
