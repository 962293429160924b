"""``agentgate keys``: rotation publishes before it signs, and private keys stay private."""

from __future__ import annotations

import json
import time
from pathlib import Path

from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.gate.account_key import STATEMENT
from agentgate.token.dpop import signed_by_shown_key
from agentgate.token.signing import PUBLISH_AHEAD, KeyRing, SigningKey


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


def test_a_name_that_begins_with_a_dash_is_a_name(tmp_path: Path) -> None:
    KeyRing.open(tmp_path / "keys")
    done = CliRunner().invoke(app, ["keys", "withdraw", str(tmp_path / "keys"), "-7absent"])
    assert (done.exit_code, "-7absent" in done.output) == (1, True), done.output


def test_a_withdrawn_key_is_published_no_more(tmp_path: Path) -> None:
    leaked = KeyRing.open(tmp_path / "keys").signer(time.time()).kid
    done = CliRunner().invoke(app, ["keys", "withdraw", str(tmp_path / "keys"), leaked])
    assert (done.exit_code, "agentgate revoke" in done.output) == (0, True), done.output
    published = json.loads(CliRunner().invoke(app, ["keys", "jwks", str(tmp_path / "keys")]).output)["keys"]
    assert (len(published), published[0]["kid"] != leaked) == (1, True)
    assert CliRunner().invoke(app, ["keys", "withdraw", str(tmp_path / "keys"), leaked]).exit_code == 1


def test_an_accounts_old_key_signs_for_its_next_one(tmp_path: Path) -> None:
    for alg in ("ES256", "EdDSA"):
        old, new = SigningKey.generate(alg), tmp_path / f"{alg}-new.pem"
        (kept := tmp_path / f"{alg}.pem").write_bytes(old.pem())
        kept.chmod(0o600)
        words = ["keys", "account", str(kept), str(new), "--gate", "https://gate.example", "--tenant", "acme", "--account", "exporter"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        shown, claims = signed_by_shown_key(done.stdout.strip(), STATEMENT)
        key = SigningKey.from_pem(new.read_bytes()).kid
        assert (shown, abs(claims.pop("iat") - time.time()) < 60) == (old.kid, True)
        assert claims == {"aud": "https://gate.example", "tenant": "acme", "account": "exporter", "key": key}
        assert new.stat().st_mode & 0o077 == 0
        again = CliRunner().invoke(app, words).stdout.strip()
        assert signed_by_shown_key(again, STATEMENT)[1]["key"] == key  # the one that was made
        kept.chmod(0o644)
        assert CliRunner().invoke(app, words).exit_code == 1


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
