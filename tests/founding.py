"""The world of the five founding workflows: their issuers with real keys over real HTTP, and a gate that believes them."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from agentgate import Gate
from agentgate.credentials.oauth import OAuthBroker
from agentgate.credentials.static import Secret
from agentgate.identity.attestation import PREDICATE
from agentgate.token.dpop import DPoP
from tests.authority import GATE, Authority, Key, Web, claims_of, jwks

WORKFLOWS = Path(__file__).parent.parent / "workflows"
GITHUB, NORTHWIND, ACME = "https://token.actions.githubusercontent.com", "https://login.northwind.example", "https://login.acme.example"
PROD = "spiffe://acme.example/ns/prod/sa/"
EXPORTER = "spiffe://acme.example/ns/billing/sa/exporter"
JOB = {
    "repository": "acme/shop",
    "repository_id": "104857600",
    "repository_owner": "acme",
    "repository_owner_id": "4711",
    "ref": "refs/heads/main",
    "environment": "production",
    "event_name": "push",
    "job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/main",
    "runner_environment": "github-hosted",
    "run_id": "9001",
    "run_attempt": "1",
}
DOOR = f"{GATE}/runs"  # where a host of these tests receives credentials


class World:
    """Issuers, attestor, brokers and the gate."""

    def __init__(self, web: Web, folder: Path, **more: Any) -> None:
        self.web, self.folder = web, folder
        self.acme, self.northwind = Authority(web, ACME, path="/acme"), Authority(web, NORTHWIND, alg="RS256", path="/northwind")
        self.github, self.attestor, self.slsa, self.spire = Key("gh", "RS256"), Key("attest"), Key("slsa"), Key("spire", "RS256")
        self.slsa_ed = Key("slsa-ed", "EdDSA")
        self.brokers = {name: Key(name) for name in ("orchestrator", "scheduler", "api", "stranger")}
        self.bundle = folder / "bundle.json"
        self.bundle.write_text(json.dumps(jwks(self.spire, use="jwt-svid")))
        login = Authority(web, "https://login.provider.example", path="/provider")
        login.life = 300
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_text(login.known("tools"))
        secret = Secret(file=folder / "secret")
        self.provider = OAuthBroker(f"{web.url}/provider/token", "tools", secret, authentication="client_secret_post")
        self.catalogue = folder / "data.toml"
        self.catalogue.write_text(
            '[arguments]\n"datasets.query" = "dataset"\n'
            '[data_sets]\n"northwind/orders/*" = "pseudonymous"\n"northwind/orders/raw" = "personal"\n'
        )
        self.settings: dict[str, Any] = {
            "issuers": {
                "github": {
                    "issuer": GITHUB,
                    "shape": "github",
                    "keys": web.publish("/github", self.github),
                    "private_addresses": True,
                    "audience": GATE,
                    "tenants": ["acme-eu", "acme-uk"],
                    "environment": {"production": "prod", "staging": "staging"},
                },
                "northwind": {
                    "issuer": NORTHWIND,
                    "keys": self.northwind.keys_url,
                    "private_addresses": True,
                    "audience": GATE,
                    "tenants": ["northwind"],
                    "agent": {"id": "client_id"},
                },
                "acme": {
                    "issuer": ACME,
                    "keys": self.acme.keys_url,
                    "private_addresses": True,
                    "audience": GATE,
                    "tenants": ["acme-eu", "acme-uk"],
                    "user": {"tenant": "tenant", "groups": "groups"},
                },
            },
            "trust_domains": {"acme.example": {"bundle": str(self.bundle), "audience": GATE, "tenants": ["acme-eu", "acme-uk"]}},
            "attestors": {
                "nodes": {
                    "issuer": "https://attest.acme.example",
                    "audience": GATE,
                    "keys": web.publish("/attest", self.attestor),
                    "private_addresses": True,
                    "clusters": ["eu-prod-1", "eu-prod-2"],
                },
                "builds": {
                    "format": "dsse",
                    "keys": web.publish("/slsa", self.slsa, self.slsa_ed),
                    "private_addresses": True,
                    "clusters": ["eu-prod-1"],
                },
            },
            "brokers": {
                PROD + name: {"keys": web.publish(f"/brokers/{name}", key), "private_addresses": True, "audience": GATE}
                for name, key in self.brokers.items()
                if name != "stranger"
            },
            "proxies": {"addresses": ["10.0.0.0/8"]},
        }
        self.gate = self.opened(**more)

    def opened(self, **more: Any) -> Gate:
        """Another gate of this world."""
        common: dict[str, Any] = {"issuer": GATE, "audit": "memory://", "environment": "prod"}
        common["brokers"] = {"provider": self.provider, "aws-sts": None}
        common |= {"identity": self.settings, "data_classes": self.catalogue}
        return Gate.open_unsafe_unapproved(more.pop("workflows", WORKFLOWS), **{**common, **more})

    def definition(self, workflow: str, tool: str) -> str:
        found = self.gate.catalog.get(workflow)
        assert found is not None
        return found.tools[tool].definition

    def job(self, **claims: Any) -> str:
        """A GitHub job's token."""
        said = {**claims_of(GITHUB, "repo:acme/shop:environment:production", life=300), **JOB, **claims}
        return self.github.sign({name: value for name, value in said.items() if value is not None})

    def svid(self, spiffe: str, **claims: Any) -> str:
        """A JWT-SVID."""
        said = {"sub": spiffe, "aud": [GATE], "exp": int(time.time()) + 300, "iat": int(time.time()), **claims}
        return self.spire.sign(said)

    def attested(self, workload: str, *, ago: int = 30, key: Key | None = None, **claims: Any) -> str:
        """An attestation as a JWT."""
        said = {
            "image_signed_by": "release@acme.example",
            "attested_at": int(time.time()) - ago,
            "cluster": "eu-prod-1",
            "namespace": "billing",
            "node_pool": "confidential",
        }
        return (key or self.attestor).sign({**claims_of("https://attest.acme.example", workload), **said, **claims})

    def envelope(self, workload: str, *, key: Key | None = None, **predicate: Any) -> str:
        """An attestation as a DSSE envelope around an in-toto statement."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 30))
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
        said = {"image_signed_by": "release@acme.example", "attested_at": stamp, "expires_at": end}
        said |= {"cluster": "eu-prod-1", "namespace": "billing", "node_pool": "confidential", **predicate}
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": workload, "digest": {"sha256": "ab" * 32}}],
            "predicateType": PREDICATE,
            "predicate": said,
        }
        return dsse(json.dumps(statement).encode(), key or self.slsa)

    def hop(self, broker: str, to: str, whose: str, before: dict[str, Any] | None = None, **claims: Any) -> str:
        """A broker passes work on to `to`; `before`: the `act` of the hop before."""
        act = {"sub": to, "act": before or {"sub": PROD + broker}}
        return self.brokers[broker].sign({**claims_of(PROD + broker, whose), "act": act, **claims})


def dsse(payload: bytes, key: Key, kind: str = "application/vnd.in-toto+json") -> str:
    """A DSSE envelope (v1.0.0), signed with an ECDSA P-256 or Ed25519 key."""
    signed = b"DSSEv1 " + str(len(kind)).encode() + b" " + kind.encode() + b" " + str(len(payload)).encode() + b" " + payload
    signature = key.private.sign(signed) if key.alg == "EdDSA" else key.private.sign(signed, ECDSA(SHA256()))
    encoded = base64.b64encode(payload).decode()
    listed = [{"keyid": key.kid, "sig": base64.b64encode(signature).decode()}]
    return json.dumps({"payload": encoded, "payloadType": kind, "signatures": listed})


def shown(key: Key, token: str, **more: Any) -> dict[str, Any]:
    """A proof that comes with a credential."""
    return {"proof": DPoP(key.proof("POST", DOOR, token=token, **more), method="POST", url=DOOR)}
