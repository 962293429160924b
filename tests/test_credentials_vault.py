"""Vault's and OpenBao's credentials from a real OpenBao server: one token of one policy for one call, revoked when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import pytest

from agentgate import TokenRefused
from agentgate.credentials.static import Secret
from agentgate.credentials.vault import VaultBroker
from agentgate.errors import ConfigError, Refusal
from tests.bao import Bao, bao
from tests.upstream import CANARY, opened, redeemed, run_of

READ = "{broker: bank, role: writer, path: secret/data/bank}"
OWN = 'path "secret/data/bank" { capabilities = ["read"] }\npath "secret/data/odd" { capabilities = ["read"] }'

MAKER = "".join(f'path "auth/token/{name}" {{ capabilities = ["update"] }}\n' for name in ("create", "revoke-accessor"))


@pytest.fixture(scope="module")
def server() -> Iterator[Bao]:
    with bao() as made:
        policies = made.operator.sys
        policies.create_or_update_policy("writer", OWN)
        policies.create_or_update_policy("reader", 'path "secret/data/other" { capabilities = ["read"] }')
        policies.create_or_update_policy("strange", OWN)
        policies.create_or_update_policy(
            "maker", "".join(f'path "auth/token/{name}" {{ capabilities = ["update"] }}\n' for name in ("create", "revoke-accessor"))
        )
        secrets = made.operator.secrets.kv.v2
        secrets.create_or_update_secret("bank", {"username": "refunds", "password": CANARY})
        secrets.create_or_update_secret("odd", {"n": 7})
        yield made


@pytest.fixture
def broker(server: Bao, tmp_path: Path) -> VaultBroker:
    """Its own token may make tokens and has what it hands out; it is no root token."""
    own = server.operator.auth.token.create(policies=["maker", "writer", "strange"])["auth"]["client_token"]
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text(own)
    return VaultBroker(server.url, Secret(file=tmp_path / "token"), scopes={"strange": ["refunds:create"]})


def why(folder: Path, broker: VaultBroker, pay: str) -> str:
    with opened(folder, {"bank": broker}, pay) as gate, pytest.raises(TokenRefused) as error:
        redeemed(run_of(gate))
    assert error.value.code is Refusal.UPSTREAM
    assert CANARY not in str(error.value)
    return str(error.value)


def accessors(server: Bao) -> set[str]:
    return set(server.operator.list("auth/token/accessors")["data"]["keys"])


def test_a_secret_is_read_with_a_token_of_the_calls_role(tmp_path: Path, server: Bao, broker: VaultBroker) -> None:
    before = accessors(server)
    with opened(tmp_path, {"bank": broker}, READ) as gate:
        with redeemed(run_of(gate)) as call:
            assert (call.credential.reveal(), call.credential.reveal("username")) == (CANARY, "refunds")
            (accessor,) = accessors(server) - before
            made = server.operator.auth.token.lookup_accessor(accessor)["data"]
            assert (made["policies"], made["renewable"], made["explicit_max_ttl"]) == (["writer"], False, 300)
            assert (made["meta"]["tenant"], made["meta"]["txn"], made["meta"]["agent"]) == ("acme", call.txn, "bot")
        assert accessors(server) == before


def test_without_a_path_the_token_is_the_credential_until_the_call_is_over(tmp_path: Path, server: Bao, broker: VaultBroker) -> None:
    with opened(tmp_path, {"bank": broker}, "{broker: bank, role: writer, duration: 60s}") as gate, redeemed(run_of(gate)) as call:
        token = call.credential.reveal()
        client = hvac.Client(server.url, token=token)
        assert client.read("secret/data/bank")["data"]["data"]["password"] == CANARY
        with pytest.raises(hvac.exceptions.Forbidden):
            client.read("secret/data/other")
        assert server.operator.auth.token.lookup(token)["data"]["ttl"] <= 60
    with pytest.raises(hvac.exceptions.Forbidden):
        client.read("secret/data/bank")


@pytest.mark.parametrize(
    ("pay", "expected"),
    [
        ("{broker: bank, role: reader, path: secret/data/bank}", "InvalidRequest"),
        ("{broker: bank, role: root, path: secret/data/bank}", "InvalidRequest"),
        ("{broker: bank, role: writer, path: secret/data/other}", "Forbidden"),
        ("{broker: bank, role: writer, path: secret/data/odd}", "texts"),
        ("{broker: bank, role: writer, path: secret/../sys/mounts}", "path"),
        ("{broker: bank, role: writer, path: /sys/mounts}", "path"),
        ("{broker: bank, path: secret/data/bank}", "role"),
        ("{broker: bank, role: writer, region: eu-central-1}", "region"),
    ],
    ids=["a policy that the broker lacks", "root", "another secret", "no texts", "out of its path", "a root path", "no role", "a setting"],
)
def test_what_the_role_may_not_is_refused_and_leaves_no_token(
    tmp_path: Path, server: Bao, broker: VaultBroker, pay: str, expected: str
) -> None:
    before = accessors(server)
    assert expected in why(tmp_path, broker, pay)
    assert accessors(server) == before


def test_narrower_than_takes_the_scopes_that_the_operator_says(tmp_path: Path, server: Bao, broker: VaultBroker) -> None:
    bounded = "{broker: bank, role: strange, path: secret/data/bank, narrower_than: support}"
    with opened(tmp_path, {"bank": broker}, bounded) as gate, redeemed(run_of(gate)) as call:
        assert call.credential.scopes == {"refunds:create"}
    before = accessors(server)
    unknown = VaultBroker(broker.url, broker.token)
    assert "narrower_than" in why(tmp_path, unknown, bounded)
    assert accessors(server) == before


def test_policies_that_come_with_the_brokers_identity_are_refused(tmp_path: Path, server: Bao, broker: VaultBroker) -> None:
    """A token made by one with an entity has the entity's policies too, whatever policies it was made with."""
    operator = server.operator
    operator.sys.enable_auth_method("approle")
    operator.auth.approle.create_or_update_approle("tools", token_policies=["maker", "writer"])
    role = operator.auth.approle.read_role_id("tools")["data"]["role_id"]
    secret = operator.auth.approle.generate_secret_id("tools")["data"]["secret_id"]
    accessor = operator.sys.list_auth_methods()["data"]["approle/"]["accessor"]
    entity = operator.secrets.identity.create_or_update_entity("tools", policies=["reader"])["data"]["id"]
    operator.secrets.identity.create_or_update_entity_alias(role, entity, accessor)
    (tmp_path / "token").write_text(hvac.Client(server.url).auth.approle.login(role, secret)["auth"]["client_token"])
    before = accessors(server)
    assert "reader, writer" in why(tmp_path, broker, READ)
    assert accessors(server) == before


def test_a_wrong_token_and_no_server_are_refused(tmp_path: Path, server: Bao, broker: VaultBroker) -> None:
    (tmp_path / "token").write_text("s.another-token")
    assert "Forbidden" in why(tmp_path, broker, READ)
    assert "ConnectionRefusedError" in why(tmp_path, VaultBroker("http://127.0.0.1:9", broker.token), READ)
    assert accessors(server)


def test_nothing_of_it_is_logged(tmp_path: Path, broker: VaultBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with opened(tmp_path, {"bank": broker}, READ) as gate, redeemed(run_of(gate)) as call:
        assert call.credential.reveal() == CANARY
    said = caplog.text + "".join(repr(r.__dict__) for r in caplog.records)
    assert CANARY not in said
    assert (tmp_path / "token").read_text() not in said


@pytest.mark.parametrize("url", ["http://vault.example", "vault.example", ""])
def test_the_address_is_https(url: str, broker: Any) -> None:
    with pytest.raises(ConfigError):
        VaultBroker(url, broker.token)
