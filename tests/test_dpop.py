import hashlib
import json
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from agentgate.errors import Refusal, TokenRefused
from agentgate.token.dpop import MAX_AGE, MAX_PROOF, DPoP, check_proof, target, token_hash
from agentgate.token.jws import PublicKey, b64url
from tests.sample_token import NOW, RUN_KEY, URL

TOKEN = "header.payload.signature"
ATH = token_hash(TOKEN)
CLIENT = ec.generate_private_key(ec.SECP256R1())
CLIENT_JWK: dict[str, Any] = {
    k: v for k, v in ECAlgorithm.to_jwk(CLIENT.public_key(), as_dict=True).items() if k in {"kty", "crv", "x", "y"}
}
JKT = PublicKey.from_jwk(CLIENT_JWK).kid


def _proof(claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None, key: Any = CLIENT, alg: str = "ES256") -> str:
    """A proof as a client of another make builds it (PyJWT), with changes; None removes."""
    body = {"jti": "a-1", "htm": "POST", "htu": URL, "iat": NOW, "ath": ATH} | (claims or {})
    head = {"typ": "dpop+jwt", "jwk": CLIENT_JWK} | (header or {})
    return jwt.encode({k: v for k, v in body.items() if v is not None}, key, alg, {k: v for k, v in head.items() if v is not None})


def _check(header: str, method: str = "POST", url: str = URL, **changes: Any) -> str:
    settings: dict[str, Any] = {"jkt": JKT, "ath": ATH} | changes
    return check_proof(DPoP(header, method, url, settings.pop("nonce", None)), settings.pop("now", NOW), **settings)


def _refused(header: str, field: str, **changes: Any) -> None:
    with pytest.raises(TokenRefused) as refused:
        _check(header, **changes)
    assert refused.value.code is Refusal.PROOF
    assert refused.value.code.error == "invalid_dpop_proof"
    assert refused.value.field == f"proof.{field}"


def test_a_proof_of_another_make_is_accepted_and_names_its_key():
    assert _check(_proof()) == JKT


def test_an_ed25519_proof_of_another_make_is_accepted():
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    assert _check(_proof(header={"jwk": jwk}, key=key, alg="EdDSA"), jkt=None) == PublicKey.from_jwk(jwk).kid


def test_pyjwt_accepts_our_proof_with_the_key_it_shows():
    text = RUN_KEY.proof("POST", URL + "?page=2#top", TOKEN, NOW + 0.7)
    header = jwt.get_unverified_header(text)
    assert header["typ"] == "dpop+jwt"
    claims = jwt.decode(text, jwt.PyJWK(header["jwk"], "ES256"), algorithms=["ES256"], options={"verify_iat": False})
    ath = urlsafe_b64encode(hashlib.sha256(TOKEN.encode()).digest()).rstrip(b"=").decode()
    assert {name: claims[name] for name in ("htm", "htu", "iat", "ath")} == {"htm": "POST", "htu": URL, "iat": NOW, "ath": ath}
    assert check_proof(DPoP(text, "POST", URL), NOW, jkt=RUN_KEY.jkt, ath=ATH) == RUN_KEY.jkt


def test_the_example_of_rfc_9449_is_accepted():
    # section 7.1, figure 12
    text = (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdC"
        "RnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwi"
        "aHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8y"
        "cjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSY"
        "oMxhAJpLjA"
    )
    found = check_proof(
        DPoP(text, "GET", "https://resource.example.org/protectedresource"),
        1562262618,
        jkt="0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
        ath="fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
    )
    assert found == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    "text",
    ["", "a", "a.b", "a.b.c.d", "..", f"{_proof()}, {_proof()}", _proof() + "==", _proof() + "\n", "A" * (MAX_PROOF + 1), "\u0430.b.c"],
)
def test_what_is_not_one_well_formed_jwt_is_refused(text):
    with pytest.raises(TokenRefused) as refused:
        _check(text)
    assert refused.value.code is Refusal.PROOF


@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat", "ath"])
def test_a_required_claim_that_is_missing_is_refused(name):
    _refused(_proof({name: None}), name)


@pytest.mark.parametrize(("name", "value"), [("jti", ""), ("jti", 5), ("jti", "x" * 2100), ("htm", ["POST"]), ("htu", 1)])
def test_a_claim_of_another_type_is_refused(name, value):
    _refused(_proof({name: value}), name)


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "DPOP+JWT", "application/dpop+jwt"])
def test_another_typ_is_refused(typ):
    _refused(_proof(header={"typ": typ}), "typ")


def test_no_typ_no_jwk_or_a_further_header_is_refused():
    _refused(_proof(header={"jwk": None}), "header")
    _refused(_raw({"alg": "ES256", "jwk": CLIENT_JWK}), "header")
    _refused(_raw(_head(typ="")), "typ")
    for name in ("kid", "crit", "x5u", "jku", "b64"):
        value: Any = [] if name == "crit" else "x"
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": CLIENT_JWK, name: value}
        _refused(_raw(head), "header")


def _raw(header: Any, claims: Any = None) -> str:
    """Any header and claims (bytes: as they are), really signed by the client's key."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims if claims is not None else _body())]
    signed = b".".join(b64url(part) for part in parts)
    return (signed + b"." + b64url(jwt.algorithms.ECAlgorithm(ECAlgorithm.SHA256).sign(signed, CLIENT))).decode()


def _body(**changes: Any) -> dict[str, Any]:
    return {"jti": "a-1", "htm": "POST", "htu": URL, "iat": NOW, "ath": ATH} | changes


def _head(**changes: Any) -> dict[str, Any]:
    return {"typ": "dpop+jwt", "alg": "ES256", "jwk": CLIENT_JWK} | changes


def test_the_hand_made_proof_is_good_before_it_is_spoilt():
    assert _check(_raw(_head())) == JKT
    assert _check(_raw(json.dumps(_head(), indent=2).encode(), json.dumps(_body(), indent=2).encode())) == JKT


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "ES384", "ES256K", "", 5, None, ["ES256"]])
def test_another_alg_is_refused(alg):
    _refused(_raw(_head(alg=alg)), "alg")


def test_an_alg_that_is_not_its_keys_is_refused():
    _refused(_raw(_head(alg="EdDSA")), "jwk")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"d": CLIENT_JWK["x"]}, "jwk"),
        ({"kty": "RSA"}, "jwk"),
        ({"crv": "P-384"}, "jwk"),
        ({"x": 5}, "jwk"),
        ({"y": CLIENT_JWK["x"]}, "jwk"),
        ({"x": CLIENT_JWK["x"] + "="}, "jwk"),
        ({"use": "enc"}, "jwk"),
        ({"alg": "ES384"}, "jwk"),
    ],
)
def test_a_private_or_unusable_key_is_refused(change, field):
    _refused(_raw(_head(jwk=CLIENT_JWK | change)), field, jkt=None)


def test_a_small_order_key_proves_nothing():
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url(b"\1" + bytes(31)).decode()}
    signed = b64url(json.dumps({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk}).encode()) + b"." + b64url(json.dumps(_body()).encode())
    forged = b"\1" + bytes(63)  # R the identity, S zero: good for every message under such a key
    ed25519.Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31)).verify(forged, signed)
    _refused((signed + b"." + b64url(forged)).decode(), "jwk", jkt=None)


def test_the_key_of_another_client_is_refused():
    other = ec.generate_private_key(ec.SECP256R1())
    _refused(_proof(header={"jwk": ECAlgorithm.to_jwk(other.public_key(), as_dict=True)}, key=other), "jwk")


def test_a_signature_by_a_key_that_is_not_the_shown_one_is_refused():
    _refused(_proof(key=ec.generate_private_key(ec.SECP256R1())), "signature")
    text = _proof()
    _refused(text[:-4] + ("AAAA" if text[-4:] != "AAAA" else "BBBA"), "signature")


@pytest.mark.parametrize("claims", [b'{"jti":"a","jti":"a"}', b"[]", b"\xff\xfe{\0}\0", b"{", b"", b'{"a":{"b":1,"b":2}}', b"[" * 3000])
def test_a_payload_that_is_no_object_or_says_a_thing_twice_is_refused(claims):
    with pytest.raises(TokenRefused) as refused:
        _check(_raw(_head(), claims))
    assert refused.value.code is Refusal.PROOF


def test_a_claim_said_twice_is_refused_even_beside_white_space():
    spoilt = json.dumps(_body()).replace('"htm": "POST"', '"htm": "GET", "h\\u0074m": "POST"').encode()
    _refused(_raw(_head(), spoilt), "payload")
    _refused(_raw(json.dumps(_head()).replace('"typ"', '"alg": "none", "typ"').encode()), "header")


@pytest.mark.parametrize("method", ["GET", "post", "POST ", "PUT"])
def test_another_method_is_refused(method):
    _refused(_proof({"htm": method}), "htm")
    _refused(_proof(), "htm", method=method)


@pytest.mark.parametrize(
    "htu",
    [
        *("https://payments.acme.example/", "https://payments.acme.example/mcp/", "https://payments.acme.example/MCP"),
        *("http://payments.acme.example/mcp", "https://payments.acme.example:8443/mcp", "https://payments.acme.example.evil.example/mcp"),
        *(
            "https://payments.acme.example@evil.example/mcp",
            "https://user@payments.acme.example/mcp",
            "https://user:pass@payments.acme.example/mcp",
            "https://evil.example/https://payments.acme.example/mcp",
            "/mcp",
            "mcp",
            "urn:x",
        ),
        *(
            "https://payments.acme.example/a/../mcp",
            "https://payments.acme.example/%2e/mcp",
            "https://payments.acme.example/m%2Fcp",
            "https://[::1",
        ),
        *(
            "https://payments.acme.example:99999/mcp",
            "https://payments.acme.example/mcp\n",
            " https://payments.acme.example/mcp",
            "//payments.acme.example/mcp",
        ),
    ],
)
def test_another_url_is_refused(htu):
    _refused(_proof({"htu": htu}), "htu")


@pytest.mark.parametrize(
    "htu",
    [
        *("https://payments.acme.example/mcp?tool=x", "https://payments.acme.example/mcp#top", "HTTPS://Payments.ACME.example/mcp"),
        *("https://payments.acme.example:443/mcp", "https://payments.acme.example/%6Dcp"),
    ],
)
def test_another_spelling_of_the_same_url_is_accepted(htu):
    assert _check(_proof({"htu": htu})) == JKT
    assert _check(_proof(), url=htu) == JKT


def test_normal_forms_of_urls():
    assert target("HTTP://[2001:DB8::1]:80") == "http://[2001:db8::1]/"
    assert target("https://a.example:8443/%7euser/%2f?q#f") == "https://a.example:8443/~user/%2F"


def test_a_url_of_this_server_that_is_not_absolute_refuses_every_proof():
    _refused(_proof(), "htu", url="/mcp")


@pytest.mark.parametrize("iat", [NOW - MAX_AGE - 6, NOW + 6, 0, -1, float(NOW), str(NOW), True, 2**70])
def test_a_proof_of_another_time_is_refused(iat):
    _refused(_raw(_head(), _body(iat=iat)), "iat")


def test_a_proof_at_the_edge_of_its_window_is_accepted_and_a_clock_that_is_no_number_refuses():
    assert _check(_proof({"iat": NOW - MAX_AGE - 5})) == JKT
    assert _check(_proof({"iat": NOW + 5})) == JKT
    _refused(_proof(), "iat", now=float("nan"))


@pytest.mark.parametrize("ath", [token_hash("other.to.ken"), "", ATH + "=", ATH.lower(), 5, None])
def test_a_proof_for_another_token_is_refused(ath):
    _refused(_raw(_head(), _body(ath=ath)), "ath")


def test_a_proof_that_names_a_token_where_none_came_along_is_refused():
    _refused(_proof(), "ath", ath=None)
    assert _check(_proof({"ath": None}), ath=None, jkt=None) == JKT


def test_the_nonce_this_server_gave_is_required_and_no_other_is_taken():
    assert _check(_proof({"nonce": "n-1"}), nonce="n-1") == JKT
    for text, nonce in ((_proof(), "n-1"), (_proof({"nonce": "n-0"}), "n-1"), (_proof({"nonce": "n-1"}), None)):
        _refused(text, "nonce", nonce=nonce)


def test_a_proof_shows_itself_in_no_repr():
    text = _proof()
    assert text.split(".")[2] not in repr(DPoP(text, "POST", URL))
