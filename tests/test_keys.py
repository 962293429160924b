import base64
import copy
import json
import multiprocessing
import os
import pickle
import shutil
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agentgate.errors import ConfigError, KeyRefused
from agentgate.token import signing as keys_module
from agentgate.token.jws import PublicKeys
from agentgate.token.signing import KEEP_RETIRED, PUBLISH_AHEAD, KeyRing, SigningKey

NOW = 1_800_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_what_a_key_signs_its_published_key_verifies(alg):
    ring = KeyRing.ephemeral(alg)
    signer = ring.signer(NOW)
    key = PublicKeys.from_jwks(ring.jwks(NOW))[signer.header]
    assert signer.alg == key.alg == alg
    assert signer.kid == key.kid
    assert key.verify(signer.sign(b"data"), b"data")
    assert not key.verify(signer.sign(b"data"), b"Data")


def test_a_directory_is_made_owner_only_and_keeps_its_keys(folder):
    old = os.umask(0)
    try:
        first = KeyRing.open(folder)
    finally:
        os.umask(old)
    assert _mode(folder) == 0o700
    assert [_mode(file) for file in folder.iterdir()] == [0o600]
    again = KeyRing.open(folder)
    assert again.signer(NOW).kid == first.signer(NOW).kid
    assert again.run_key("acme", "run_1").jkt == first.run_key("acme", "run_1").jkt


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o701])
def test_a_directory_that_others_can_enter_is_refused(folder, mode):
    KeyRing.open(folder)
    folder.chmod(mode)
    with pytest.raises(KeyRefused, match="expected a directory of this user with mode 0700"):
        KeyRing.open(folder)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_key_file_that_others_can_use_is_refused(folder, mode):
    KeyRing.open(folder)
    (folder / "ring.json").chmod(mode)
    with pytest.raises(KeyRefused, match="expected a file of this user with mode 0600"):
        KeyRing.open(folder)


def test_keys_of_another_user_are_refused(folder, monkeypatch):
    KeyRing.open(folder)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(KeyRefused, match=f"owner {own}; expected a directory of this user"):
        KeyRing.open(folder)


def test_another_algorithm_makes_no_keys(folder):
    with pytest.raises(ConfigError, match="alg"):
        KeyRing.open(folder, "RS256")  # type: ignore[arg-type]  # what a setting may say
    assert not folder.exists()


def test_a_key_file_that_is_a_link_is_refused(folder, tmp_path):
    KeyRing.open(folder)
    (folder / "ring.json").rename(tmp_path / "elsewhere.json")
    (folder / "ring.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(KeyRefused):
        KeyRing.open(folder)


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "keys").write_text("")
    with pytest.raises(KeyRefused):
        KeyRing.open(tmp_path / "keys")


def _damage(value, change):
    change(value)
    return orjson.dumps(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("secret"),
        lambda v: v.update(secret="AAAA"),
        lambda v: v.update(secret="!"),
        lambda v: v.update(keys=[]),
        lambda v: v.update(keys=5),
        lambda v: v["keys"][0].update(pkcs8="AAAA"),
        lambda v: v["keys"][0].update(signs_from="soon"),
        lambda v: v.update(agentgate="keys/v2"),
        lambda v: v["keys"].insert(0, v["keys"][0] | {"signs_from": NOW}),
    ],
)
def test_a_damaged_key_file_is_refused_and_never_replaced(folder, change):
    KeyRing.open(folder)
    file = folder / "ring.json"
    file.write_bytes(_damage(json.loads(file.read_bytes()), change))
    before = file.read_bytes()
    with pytest.raises(KeyRefused):
        KeyRing.open(folder)
    assert file.read_bytes() == before


def test_an_empty_key_file_is_refused_and_never_replaced(folder):
    KeyRing.open(folder)
    (folder / "ring.json").write_bytes(b"")
    with pytest.raises(KeyRefused):
        KeyRing.open(folder)


def test_another_algorithm_is_refused_by_name(folder):
    other: Any = "HS256"
    for make in (lambda: KeyRing.open(folder, alg=other), lambda: KeyRing.ephemeral(other), lambda: SigningKey.generate(other)):
        with pytest.raises(ConfigError, match="ES256 or EdDSA"):
            make()


def test_a_new_key_is_published_at_once_and_signs_only_after_the_announcement(folder):
    ring = KeyRing.open(folder)
    old = ring.signer(NOW)
    new = ring.rotate(NOW)
    published = {key["kid"] for key in ring.jwks(NOW)["keys"]}
    assert published == {old.kid, new.kid}
    assert ring.signer(NOW + PUBLISH_AHEAD - 1).kid == old.kid
    assert ring.signer(NOW + PUBLISH_AHEAD).kid == new.kid


def test_a_retired_key_stays_published_until_its_last_token_is_dead_and_is_then_deleted(folder):
    ring = KeyRing.open(folder)
    old = ring.signer(NOW)
    new = ring.rotate(NOW)
    dead = NOW + PUBLISH_AHEAD + KEEP_RETIRED
    assert old.kid in {key["kid"] for key in ring.jwks(dead - 1)["keys"]}
    assert {key["kid"] for key in ring.jwks(dead)["keys"]} == {new.kid}
    assert KEEP_RETIRED >= 300 + 5 + 5  # longest token, leeway, margin
    ring.rotate(dead)
    assert len(json.loads((folder / "ring.json").read_bytes())["keys"]) == 2
    assert [_mode(file) for file in folder.iterdir()] == [0o600]


def test_a_withdrawn_key_neither_signs_nor_is_published_and_the_next_signs_at_once(folder):
    ring = KeyRing.open(folder)
    leaked, announced = ring.signer(NOW), ring.rotate(NOW)
    assert ring.withdraw(leaked.kid, NOW + 1).kid == announced.kid
    again = KeyRing.open(folder)
    assert [key["kid"] for key in again.jwks(NOW + 1)["keys"]] == [announced.kid]
    assert again.signer(NOW + 1).kid == announced.kid


def test_the_only_key_is_withdrawn_in_favour_of_a_new_one(folder):
    ring = KeyRing.open(folder, alg="EdDSA")
    leaked, runs = ring.signer(NOW), ring.run_key("acme", "run_1").jkt
    new = ring.withdraw(leaked.kid, NOW)
    assert (new.kid != leaked.kid, new.alg) == (True, "EdDSA")
    assert [key["kid"] for key in KeyRing.open(folder, alg="EdDSA").jwks(NOW)["keys"]] == [new.kid]
    assert ring.run_key("acme", "run_1").jkt == runs  # open runs go on


def test_a_key_still_published_is_withdrawn_and_the_signer_stays(folder):
    ring = KeyRing.open(folder)
    retired, signer = ring.signer(NOW), ring.rotate(NOW)
    now = NOW + PUBLISH_AHEAD + 1
    assert ring.withdraw(retired.kid, now).kid == signer.kid
    assert [key["kid"] for key in ring.jwks(now)["keys"]] == [signer.kid]


def test_a_withdrawal_that_cannot_be_written_is_refused(folder):
    ring = KeyRing.open(folder)
    leaked = ring.signer(NOW).kid
    shutil.rmtree(folder)
    with pytest.raises(KeyRefused, match="expected a directory that this user can write"):
        ring.withdraw(leaked, NOW)


def test_a_withdrawal_names_the_keys_there_are(folder):
    ring = KeyRing.open(folder)
    with pytest.raises(KeyRefused, match=ring.signer(NOW).kid):
        ring.withdraw("another", NOW)
    assert len(ring.jwks(NOW)["keys"]) == 1


def test_a_rotation_by_another_process_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(keys_module, "REFRESH", 0.0)
    ring = KeyRing.open(folder)
    new = KeyRing.open(folder).rotate(NOW)
    assert ring.signer(NOW + PUBLISH_AHEAD).kid == new.kid


def test_a_key_file_that_becomes_readable_to_others_stops_the_signer(folder, monkeypatch):
    monkeypatch.setattr(keys_module, "REFRESH", 0.0)
    ring = KeyRing.open(folder)
    (folder / "ring.json").chmod(0o644)
    with pytest.raises(KeyRefused):
        ring.signer(NOW)
    (folder / "ring.json").unlink()
    with pytest.raises(KeyRefused):
        ring.signer(NOW)


def test_a_directory_that_others_can_enter_later_stops_the_signer(folder, monkeypatch):
    monkeypatch.setattr(keys_module, "REFRESH", 0.0)
    ring = KeyRing.open(folder)
    folder.chmod(0o750)
    with pytest.raises(KeyRefused, match="mode 0700"):
        ring.signer(NOW)


def test_a_rotation_keeps_the_key_that_another_process_added(folder):
    ring = KeyRing.open(folder)
    other = KeyRing.open(folder).rotate(NOW)
    ring.rotate(NOW)
    assert other.kid in {key["kid"] for key in KeyRing.open(folder).jwks(NOW)["keys"]}


def test_a_key_on_another_curve_is_refused(folder):
    KeyRing.open(folder)
    file = folder / "ring.json"
    value = json.loads(file.read_bytes())
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    value["keys"][0]["pkcs8"] = base64.b64encode(other).decode()
    file.write_bytes(orjson.dumps(value))
    with pytest.raises(KeyRefused, match="expected P-256 or Ed25519"):
        KeyRing.open(folder)


def test_opening_with_another_algorithm_adds_a_key_of_it_by_rotation(folder):
    KeyRing.open(folder)
    ring = KeyRing.open(folder, alg="EdDSA", clock=lambda: NOW)
    assert ring.signer(NOW).alg == "ES256"
    assert ring.signer(NOW + PUBLISH_AHEAD).alg == "EdDSA"
    assert KeyRing.open(folder, alg="EdDSA", clock=lambda: NOW).signer(NOW + PUBLISH_AHEAD).kid == ring.signer(NOW + PUBLISH_AHEAD).kid


def test_a_clock_before_every_key_signs_nothing(folder):
    ring = KeyRing.open(folder)
    ring.rotate(NOW)
    ring.rotate(NOW + PUBLISH_AHEAD + KEEP_RETIRED + 1)
    with pytest.raises(KeyRefused, match="clock"):
        ring.signer(NOW - 1)
    with pytest.raises(KeyRefused, match="clock"):
        ring.signer(float("nan"))


def _open(path: str, kids) -> None:
    kids.put(KeyRing.open(path).signer(NOW).kid)


def test_processes_that_start_together_agree_on_one_first_key(folder):
    context = multiprocessing.get_context("fork")
    kids = context.SimpleQueue()
    workers = [context.Process(target=_open, args=(str(folder), kids)) for _ in range(6)]
    for worker in workers:
        worker.start()
    found = {kids.get() for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1


def test_run_keys_differ_by_ring_tenant_and_run_also_where_the_names_run_together():
    ring = KeyRing.ephemeral()
    jkts = {ring.run_key(tenant, run).jkt for tenant, run in (("a", "bc"), ("ab", "c"), ("a", "b"), ('a","b', "c"), ("a", 'b","c'))}
    assert len(jkts) == 5
    assert ring.run_key("a", "b").jkt != KeyRing.ephemeral().run_key("a", "b").jkt


def test_secrets_are_in_no_repr_copy_or_pickle(folder):
    ring = KeyRing.open(folder)
    stored = json.loads((folder / "ring.json").read_bytes())
    texts = [repr(ring), repr(ring._contents), repr(ring.signer(NOW)), repr(ring.run_key("a", "b"))]
    for secret in (stored["secret"], stored["keys"][0]["pkcs8"], repr(ring._contents.secret)):
        assert not any(secret in text for text in texts)
    for thing in (ring, ring.signer(NOW), ring.run_key("a", "b")):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                attempt(thing)
    assert "d" not in ring.signer(NOW).public_jwk()
