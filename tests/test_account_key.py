"""A service account's key: recorded with its first token, changed by the old key's signature or a person's word, never by whoever comes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from agentgate import Allow, Gate, Reason, User
from agentgate.cli.main import app
from agentgate.gate.account_key import STATEMENT
from agentgate.identity.proven import proven_agent
from agentgate.token.jws import b64url, compact, thumbprint
from agentgate.values.refusal import RunRefused
from agentgate.values.request import Boundary
from tests.authority import lasting
from tests.servers import Server, redis_binary

WORKFLOWS = Path(__file__).parent.parent / "workflows" / "identity"
ISSUER = "https://gate.example"
SPIFFE = "spiffe://acme.example/ns/billing/sa/exporter"
ARGS = {"account": "billing-exporter", "audience": "https://ledger.acme.example"}
DEFINITION = "sha256:46fdf43c8ba478412e60df902fbd5b3938542ab9c54345bee78def32d38cc4d5"


class Key:
    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url(self._key.public_key().public_bytes_raw()).decode()}
        self.name = thumbprint(self.jwk)

    def says(self, new: Key, typ: str = STATEMENT, **change: Any) -> str:
        claims = {"aud": ISSUER, "tenant": "acme-eu", "account": "exporter", "key": new.name, "iat": int(time.time()), **change}
        header = {"typ": typ, "alg": "EdDSA", "jwk": self.jwk}
        return compact(b64url(json.dumps(header).encode()), b64url(json.dumps(claims).encode()), self._key.sign)


def later() -> int:
    """When a statement is signed that counts although the key on record is of this second; a signer's clock may be 5 s ahead."""
    return int(time.time()) + 2


A, B, THIEF = Key(), Key(), Key()


def opened(store: str = "memory://", audit: str = "memory://", **more: Any) -> Gate:
    return Gate.open_unsafe_unapproved(WORKFLOWS, issuer=ISSUER, audit=audit, store=store, environment="prod", **more)


def asked(gate: Gate, key: Key) -> Any:
    agent = proven_agent("exporter", spiffe=SPIFFE, boundary=Boundary("eu-prod-1", "billing", "confidential", key.name))
    run = gate.open_run("identity.service-account-refresh", tenant="acme-eu", user=None, agent=lasting(agent), prompt="refresh")
    return run.authorize("identity.refresh", ARGS, definition=DEFINITION)


def refused(gate: Gate, key: Key) -> bool:
    answer = asked(gate, key)
    return not isinstance(answer, Allow) and answer.reasons[0] in {Reason.BOUNDARY, Reason.OUTCOME_UNKNOWN}


def test_the_old_key_signs_for_the_new_one_once() -> None:
    with opened() as gate:
        assert isinstance(asked(gate, A), Allow)
        assert refused(gate, B)
        statement = A.says(B, iat=later())
        assert gate.rotate_key(statement) == "exporter"
        assert isinstance(asked(gate, B), Allow)
        assert refused(gate, A)
        gate.rotate_key(B.says(A, iat=later() + 1))
        with pytest.raises(RunRefused, match="before the key was recorded"):
            gate.rotate_key(statement)  # although it says that it is signed later than now
        assert isinstance(asked(gate, A), Allow)


@pytest.mark.parametrize(
    "statement",
    [
        lambda: THIEF.says(THIEF, iat=later()),
        lambda: A.says(THIEF, typ="dpop+jwt", iat=later()),
        lambda: A.says(THIEF, aud="https://other.example", iat=later()),
        lambda: A.says(THIEF, account="importer", iat=later()),
        lambda: A.says(THIEF, tenant="acme-uk", iat=later()),
        lambda: A.says(THIEF, iat=int(time.time()) - 700),
        lambda: A.says(THIEF, iat=int(time.time()) + 60),
        lambda: A.says(THIEF, iat=True),
        lambda: A.says(THIEF, iat=str(later())),
        lambda: A.says(THIEF, iat=later() + 0.5),
        lambda: A.says(THIEF, iat=None),
        lambda: A.says(THIEF, account=["exporter"], iat=later()),
        lambda: A.says(THIEF, tenant=7, iat=later()),
        lambda: A.says(THIEF, key=None, iat=later()),
        lambda: A.says(THIEF, more=1, iat=later()),
        lambda: A.says(THIEF, iat=later())[:-4] + "AAAA",
        lambda: "x",
    ],
)
def test_a_statement_that_proves_nothing_changes_nothing(statement: Any) -> None:
    with opened() as gate:
        assert isinstance(asked(gate, A), Allow)
        with pytest.raises(RunRefused):
            gate.rotate_key(statement())
        assert refused(gate, THIEF)
        assert isinstance(asked(gate, A), Allow)


def test_a_statement_that_somebody_kept_changes_nothing_after_ten_minutes() -> None:
    with opened() as gate, time_machine.travel(time.time(), tick=True) as clock:
        assert isinstance(asked(gate, A), Allow)
        kept = A.says(THIEF, iat=later())
        clock.shift(610)
        with pytest.raises(RunRefused, match="another time"):
            gate.rotate_key(kept)
        assert refused(gate, THIEF)


def test_a_person_releases_one_key_with_a_reason() -> None:
    with opened() as gate:
        assert isinstance(asked(gate, A), Allow)
        gate.revoke("user:Kim", tenants=["acme-eu"], by="ops", reason="left")
        own = [User(name, tenant="acme-eu") for name in ("ana", "exporter", "@EXPORTER", "kim")]
        for who, why in ((User("ana", tenant="other"), "lost"), (own[0], " "), *((each, "INC-1: node lost") for each in own[1:])):
            with pytest.raises(RunRefused):
                gate.release_key("exporter", tenant="acme-eu", key=B.name, by=who, reason=why)
        agent: Any = proven_agent("ana", spiffe=SPIFFE)
        for forms in (
            {"by": "ana"},
            {"by": agent},
            {"by": None},
            {"reason": None},
            {"reason": b"lost"},
            {"account": None},
            {"account": b"x"},
        ):
            given: dict[str, Any] = {"account": "exporter", "tenant": "acme-eu", "key": B.name, "by": own[0], "reason": "lost", **forms}
            with pytest.raises(RunRefused):
                gate.release_key(**given)
        assert refused(gate, B)
        gate.release_key("exporter", tenant="acme-eu", key=B.name, by=User("ana", tenant="acme-eu"), reason="INC-1: node lost")
        assert isinstance(asked(gate, B), Allow)
        assert refused(gate, THIEF)
        audit: Any = gate._audit
        told = [record for record in audit.records if record["type"] in {"key_change", "key_changed"}]
        assert [record["reason"] for record in told] == ["INC-1: node lost"] * 2


def test_after_a_flush_a_stolen_key_wins_nothing_even_where_the_loss_is_accepted(tmp_path: Path) -> None:
    server = Server(redis_binary(), tmp_path / "server")
    try:
        with opened(server.url, str(tmp_path / "gate"), keys=tmp_path / "keys") as gate:
            assert isinstance(asked(gate, A), Allow)
            gate.release_key("exporter", tenant="acme-eu", key=B.name, by=User("ana", tenant="acme-eu"), reason="rotated")
            server.command("FLUSHALL")
            assert refused(gate, THIEF)
            with pytest.raises(RunRefused, match="lost"):
                gate.rotate_key(B.says(THIEF))
        store = ["--store", server.url, "--audit", str(tmp_path / "gate")]
        done = CliRunner().invoke(app, ["store", "reconcile", *store, "--tenant", "acme-eu", "--json"])
        assert json.loads(done.stdout)[0]["state"] == "reconciled", done.output
        with opened(server.url, str(tmp_path / "gate"), keys=tmp_path / "keys") as gate:
            assert refused(gate, THIEF)
            assert isinstance(asked(gate, B), Allow)
            server.command("DEL", "ag:{acme-eu}:lastkey:exporter")  # an account whose record no log tells
            assert refused(gate, THIEF)
            assert refused(gate, B)
        named = ["--tenant", "acme-eu", "--account", "exporter", "--key", B.name, "--reason", "INC-2"]
        assert CliRunner().invoke(app, ["store", "release-key", *store, *named]).exit_code == 0
        with opened(server.url, str(tmp_path / "gate"), keys=tmp_path / "keys") as gate:
            assert isinstance(asked(gate, B), Allow)
            assert refused(gate, THIEF)
    finally:
        server.stop()
