"""Settings of the service that are wrong: the setting is named, with what stands there and the valid values, whatever is wrong with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgate.errors import ConfigError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.service.checking import look
from agentgate.service.served import ServedGate
from agentgate.service.settings import ServiceSettings
from tests.authority import Key
from tests.served import publish, toml
from tests.served_notes import WORKFLOW

LOGIN = "https://login.acme.example"
HEX = "d2:ec:93:14:f3:3f:dd:38:f8:c5:89:0f:b6:63:eb:60:73:09:72:63:e8:db:e0:93:67:c9:21:d9:bb:f2:13:46"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Settings that are right."""
    (tmp_path / "workflows" / "desk").mkdir(parents=True)
    (tmp_path / "workflows" / "desk" / "notes.yaml").write_text(WORKFLOW)
    keys = publish(tmp_path, Key("k"))
    login = {"issuer": LOGIN, "keys": keys, "audience": "https://gate.acme.example", "tenants": ["acme"], "agent": {}}
    return {
        "issuer": "http://localhost:8080",
        "workflows": str(tmp_path / "workflows"),
        "unsafe_unapproved": True,
        "store": "memory://",
        "keys": str(tmp_path / "keys"),
        "audit": str(tmp_path / "audit"),
        "listen": "127.0.0.1:0",
        "identity": {"issuers": {"login": login}},
        "clients": {
            "desk": {"role": "host", "keys": keys, "tenants": ["acme"]},
            "job": {"role": "agent", "credential": LOGIN, "tenants": ["acme"]},
        },
    }


def changed(given: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
    name, _, below = place.partition(".")
    return {**given, name: changed(given.get(name, {}), below, value) if below else value}


def settings(folder: Path, given: Mapping[str, Any]) -> ServiceSettings:
    (file := folder / "gate.toml").write_text(toml(given))
    return ServiceSettings.of(file)


@pytest.mark.parametrize(
    "case",
    [
        ("environment", 7, "environment", "text"),
        ("environment", "", "environment", "text, not empty"),
        ("rate", True, "rate", "a whole number"),
        ("rate", 1.5, "rate", "a whole number"),
        ("workers", "two", "workers", "a whole number"),
        ("shared_runs", "maybe", "shared_runs", "true or false"),
        ("brokers", "aws-sts", "brokers", "a list"),
        ("clients", ["a"], "clients", "a table"),
        ("clients", {}, "clients", "a table [clients.NAME] for each client"),
        ("clients.desk", "host", "clients.desk", "a table"),
        ("clients.desk.tenants", [], "clients.desk.tenants", "one or more"),
        ("clients.desk.tenants", "acme", "clients.desk.tenants", "a list"),
        ("clients.desk.certificates", [HEX], "clients.desk.certificates.0", "SHA-256 of the certificate in base64url"),
        ("alg", "RS256", "alg", "'ES256' or 'EdDSA'"),
        ("identity.issuers.login.shape", "gitea", "identity.issuers.login.shape", "'oidc', 'github' or 'gitlab'"),
        ("identity.issuers.login.audience", [], "identity.issuers.login.audience", "text"),
        ("identity.issuers.login.user", {"groups": 5, "tenant": "t"}, "identity.issuers.login.user.groups", "text"),
        ("identity.issuers.login.algorithms", ["none"], "identity.issuers.login.algorithms", "of ES256, ES384, ES512"),
        ("identity.issuers.login.algorithms", ["HS256"], "identity.issuers.login.algorithms", "of ES256, ES384, ES512"),
        (
            "identity.issuers.login.keys",
            "http://127.0.0.1/k",
            "identity.issuers.login.private_addresses",
            "true, since http is for loopback",
        ),
        ("identity.issuers.login.agent", {"name": "x"}, "identity.issuers.login.agent.name", "one of id"),
        ("identity.proxies", {"addresses": ["10.0.0.300"]}, "identity.proxies.addresses", "IP addresses, networks such as 10.0.0.0/8"),
        ("identity.proxies", {"addresses": []}, "identity.proxies.addresses", "one or more"),
        ("tell", {"leads": {"url": "https://h.example", "secret": "/nowhere"}}, "tell.leads.secret", "a file with whsec_"),
        ("workflows", "/nowhere", "workflows", "a directory with workflows"),
        ("keys", "gate.toml", "keys", "a directory of keys"),
        ("audit", "gate.toml", "audit", "a directory that this user can write"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_with_the_valid_values(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, Any, str, str]
) -> None:
    place, value, named, expected = case
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as wrong:
        asyncio.run(opened(settings(tmp_path, changed(given, place, value))))
    assert (wrong.value.setting, expected in wrong.value.expected) == (named, True), str(wrong.value)


async def opened(read: ServiceSettings) -> None:
    await (await ServedGate.of(read)).close()


def test_an_issuer_twice_is_named(given: dict[str, Any], tmp_path: Path) -> None:
    twice = changed(given, "identity.issuers.two", given["identity"]["issuers"]["login"])
    with pytest.raises(ConfigError, match=r"'identity\.issuers': got 'login, two', expected each issuer once"):
        settings(tmp_path, twice)


def test_a_variable_that_should_hold_json_is_named_and_not_shown(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTGATE_CLIENTS", "{s3cret")
    with pytest.raises(ConfigError, match=r"'AGENTGATE_CLIENTS': got '\(not shown\)', expected JSON") as wrong:
        settings(tmp_path, given)
    assert "s3cret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("clients.job.credential", "https://other.example", "clients.job.credential: https://other.example is of no [identity.issuers"),
        ("clients.job.credential", "spiffe://acme.example/job", "clients.job.credential: spiffe://acme.example/job is of no"),
        ("listen", "unix:/nowhere/at/all.sock", "listen: /nowhere/at is no directory"),
        ("listen", "[2001:db8::1]:80", "listen: [2001:db8::1] is no address of this machine"),
    ],
)
def test_what_can_never_work_here_is_told(given: dict[str, Any], tmp_path: Path, place: str, value: str, told: str) -> None:
    assert look(settings(tmp_path, given), ()) == []
    unsafe = (
        {"unsafe_unapproved": True}
        if place != "listen" or "unix" in value
        else {"unsafe_unapproved": False, "root": "x", "store": "redis://x"}
    )
    read = settings(tmp_path, {**changed(given, place, value), **unsafe})
    assert any(each.startswith(told) for each in look(read.model_copy(update={"store": "memory://"}), ()))


def test_a_variable_that_is_no_setting_is_told(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGATE_IDENTITY__ISSUERS__LOGIN__TENANTS", json.dumps(["acme"]))
    monkeypatch.setenv("AGENTGATE_TENANT", "acme")  # of other commands
    assert look(settings(tmp_path, given), ()) == []
    monkeypatch.setenv("AGENTGATE_WORKRES", "4")
    (told,) = look(settings(tmp_path, given), ())
    assert told.startswith("AGENTGATE_WORKRES: no setting; there are AGENTGATE_ACCESS_REQUEST, ")


def test_what_the_founding_workflows_ask_for_and_these_settings_lack_is_told(given: dict[str, Any], tmp_path: Path) -> None:
    catalog = Catalog.load(Path(__file__).parent.parent / "workflows", derive)
    told = look(settings(tmp_path, given), tuple(catalog))
    (tmp_path / "data.toml").write_text("[arguments]\n[data_sets]\n")
    attestor = {"issuer": "https://a.example", "audience": "x", "clusters": ["c"], "keys": given["clients"]["desk"]["keys"]}
    more = changed({**given, "data_classes": str(tmp_path / "data.toml")}, "identity.attestors", {"a": attestor})
    lacked = set(told) - set(look(settings(tmp_path, more), tuple(catalog)))
    assert {each.partition(": ")[2] for each in lacked} == {
        "conditions.data_class: there is no setting 'data_classes'",
        "who.agent is attested, and there is no [identity.attestors.NAME]",
    }
