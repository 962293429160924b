"""Where secrets may be sent: wherever a URL is set, https or loopback, and nothing that only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from agentgate import Gate
from agentgate.credentials.oauth import OAuthBroker
from agentgate.credentials.static import Secret
from agentgate.credentials.vault import VaultBroker
from agentgate.errors import ConfigError
from agentgate.gate.notify import Webhook
from agentgate.identity.settings import IssuerSettings
from agentgate.integrations.exchange import check_secure
from agentgate.values.urls import is_secure

SET: dict[str, Callable[[str], object]] = {
    "an issuer's keys": lambda url: IssuerSettings.model_validate(
        {"issuer": "https://x.example", "keys": url, "audience": "x", "tenants": ["acme"], "shape": "github", "private_addresses": True}
    ),
    "a token endpoint": lambda url: OAuthBroker(url, "client", Secret(env="X")),
    "a vault": lambda url: VaultBroker(url, Secret(env="X")),
    "a webhook": lambda url: Webhook(url, b"x" * 24, private=True),
    "a gate's issuer": lambda url: Gate.open_unsafe_unapproved(
        "workflows", issuer=url, keys="nowhere", store="memory://", audit="memory://"
    ),
    "a gate that is asked": lambda url: check_secure("gate", url),
}


@pytest.mark.parametrize("place", SET)
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.evil.example/", "http://localhost.evil.example/", "http://10.0.0.1/", "ftp://localhost/", "https:///x"]
)
def test_a_secret_goes_nowhere_else(place: str, url: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=r"https URL|https \(http "):
        SET[place](url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8200/", "http://localhost/", "http://[::1]:1/", "https://acme.example/"])
@pytest.mark.parametrize("place", [name for name in SET if name != "a gate's issuer"])
def test_tls_and_loopback_are_taken(place: str, url: str) -> None:
    SET[place](url)


def test_what_is_secure() -> None:
    here = ("127.0.0.1", "[::1]", "localhost")
    taken = {f"{scheme}://{host}" for scheme in ("https", "http") for host in here} | {"https://acme.example"}
    asked = {f"{scheme}://{host}" for scheme in ("https", "http", "", "ws") for host in ("acme.example", *here, "")}
    assert {each for each in asked if is_secure(urlsplit(each))} == taken
