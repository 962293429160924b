"""Software that nobody here wrote: clients that exchange and call, and libraries that verify what they got."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest
from joserfc import jwt as jose
from joserfc.errors import InvalidClaimError
from joserfc.jwk import KeySet

from agentgate.identity.keys import read_keys
from tests.abroad import ROOT, Abroad, abroad, node_in
from tests.served_notes import Notes

CLIENTS = ["openid-client", "oauth4webapi", "requests-oauth2client"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abroad]:
    with abroad(tmp_path_factory.mktemp("abroad")) as made:
        yield made


@pytest.mark.parametrize("package", CLIENTS)
def test_the_docs_program_gets_a_token_for_the_nonce_it_was_given_and_calls_with_it(world: Abroad, package: str, tmp_path: Path) -> None:
    before = len(world.exchanges())
    done = world.run(package, tmp_path)
    assert done.returncode == 0, (done.stderr, world.gate.log()[-2:])
    assert done.stdout.startswith("200 ")
    assert world.exchanges()[before:] == [(400, ""), (200, "")]  # asking for a nonce is no refusal
    assert world.orders.seen[-1]["args"] == {"text": "hello"}


def test_the_docs_make_a_key_whose_public_half_a_gate_reads(tmp_path: Path) -> None:
    (program,) = re.findall(r"```js\n// node keys.mjs\n(.*?)```", (ROOT / "docs" / "service.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "keys.mjs").write_text(program)
    subprocess.run([node_in(tmp_path), "keys.mjs"], cwd=tmp_path, check=True, timeout=60)
    public = (tmp_path / "agent-public.json").read_bytes()
    read_keys(public)
    own = json.loads((tmp_path / "agent.json").read_text())
    assert ("d" in own, b'"d"' in public, (tmp_path / "agent.json").stat().st_mode & 0o077) == (True, False, 0)
    signed = jwt.encode({"x": 1}, jwt.PyJWK(own).key, "ES256", {"kid": own["kid"]})
    assert jwt.decode(signed, jwt.PyJWKSet.from_json(public.decode()).keys[0].key, algorithms=["ES256"]) == {"x": 1}


@pytest.mark.parametrize("package", CLIENTS)
def test_it_reads_a_refusal(world: Abroad, package: str, tmp_path: Path) -> None:
    before = len(world.orders.seen)
    done = world.run(package, tmp_path, hello="x" * 41)
    assert done.returncode != 0
    assert ("not_permitted" in done.stderr, done.stdout, len(world.orders.seen)) == (True, "", before)
    assert world.exchanges()[-1] == (400, "invalid_authorization_details")


def test_pyjwt_and_joserfc_verify_a_token_from_the_published_keys(world: Abroad) -> None:
    issuer, notes = world.place.issuer, Notes(world.place, world.gate)
    text = notes.ask().json()["access_token"]
    trusting = ssl.create_default_context(cafile=world.authority)
    url = httpx.get(f"{issuer}/.well-known/oauth-authorization-server", verify=trusting, trust_env=False).json()["jwks_uri"]

    key = jwt.PyJWKClient(url, ssl_context=trusting).get_signing_key_from_jwt(text)
    read = jwt.decode_complete(text, key, algorithms=["ES256"], audience=world.notes, issuer=issuer)
    assert read["header"] == {"alg": "ES256", "kid": key.key_id, "typ": "at+jwt"}
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(text, key, algorithms=["ES256"], audience=issuer)

    keys = KeySet.import_key_set(httpx.get(url, verify=trusting, trust_env=False).json())
    again = jose.decode(text, keys, algorithms=["ES256"])

    def validate(audience: str) -> None:
        iss, aud = jose.ClaimsOption(essential=True, value=issuer), jose.ClaimsOption(essential=True, value=audience)
        jose.JWTClaimsRegistry(iss=iss, aud=aud, exp=jose.ClaimsOption(essential=True)).validate(again.claims)

    validate(world.notes)
    with pytest.raises(InvalidClaimError):
        validate(issuer)
    assert (again.header, again.claims) == (read["header"], read["payload"])

    claims = again.claims
    assert claims["cnf"] == {"jkt": notes.asking.key.thumbprint}
    assert 0 < claims["exp"] - time.time() <= 60
