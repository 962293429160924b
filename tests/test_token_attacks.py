"""Attacks on the form of a token: JOSE (steps 3 to 6) and the strict payload (step 7). Each is refused by its name."""

import hmac
from collections.abc import Callable
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from agentgate.errors import Refusal, TokenRefused
from agentgate.token.claims import MAX_HOPS
from agentgate.token.jws import b64url
from agentgate.token.mint import draft_token, payload
from agentgate.token.signing import KeyRing
from tests.sample_token import AUDIENCE, NOW, RUN_KEY, SIGNER, URL, accepted, body, detail, minted, sample, signed


def _refused(code: Refusal, ask: Callable[..., object], *args: Any, **settings: Any) -> TokenRefused:
    with pytest.raises(TokenRefused) as refused:
        ask(*args, **settings)
    assert refused.value.code is code, refused.value
    return refused.value


# --- (3) to (6): JOSE attacks, each by its name ------------------------------------------------------------------------


def _with_header(header: object, sign: Callable[[bytes], bytes] = SIGNER.sign) -> str:
    text = b64url(header if isinstance(header, bytes) else orjson.dumps(header)) + b"." + b64url(payload(sample()))
    return (text + b"." + b64url(sign(text))).decode()


_HEAD = {"alg": "ES256", "kid": SIGNER.kid, "typ": "at+jwt"}


def test_the_forged_header_would_be_accepted_if_it_were_the_real_one():
    assert accepted(_with_header(_HEAD)) == sample()


def test_alg_none_is_refused():
    for alg in ("none", "None", "NONE", "nOnE", ""):
        _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"alg": alg}))
        _refused(Refusal.FORM, accepted, _with_header(_HEAD | {"alg": alg}, lambda _text: b""))


def test_hmac_with_the_public_key_as_its_secret_is_refused():
    public = orjson.dumps(SIGNER.public_jwk())
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"alg": "HS256"}, lambda text: hmac.digest(public, text, "sha256")))


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "es256"])
def test_another_alg_under_the_known_kid_is_refused(alg):
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"alg": alg}))


@pytest.mark.parametrize("typ", ["JWT", "at+JWT", "application/at+jwt", "dpop+jwt", "", None])
def test_another_typ_is_refused(typ):
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"typ": typ}))


def test_a_header_without_typ_or_kid_is_refused():
    for name in _HEAD:
        _refused(Refusal.HEADER, accepted, _with_header({k: v for k, v in _HEAD.items() if k != name}))


@pytest.mark.parametrize(
    "kid", ["", "../../etc/passwd", "' OR 1=1 --", None, 5, RUN_KEY.jkt], ids=lambda kid: "thumbprint" if kid == RUN_KEY.jkt else str(kid)
)
def test_a_kid_of_the_attackers_choice_is_refused(kid):
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"kid": kid}))


_STRANGER = KeyRing.ephemeral().signer(NOW)


def test_a_stranger_who_signs_under_the_known_kid_is_refused():
    _refused(Refusal.SIGNATURE, accepted, _with_header(_HEAD, _STRANGER.sign))


def test_jwk_in_the_header_is_refused():
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"jwk": _STRANGER.public_jwk()}, _STRANGER.sign))


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_a_key_url_in_the_header_is_refused_and_nothing_is_fetched(name):
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {name: "https://evil.example/jwks"}, _STRANGER.sign))


def test_x5c_in_the_header_is_refused():
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"x5c": ["MIIB"]}))


def test_crit_in_the_header_is_refused():
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"crit": ["exp"], "exp": 1}))
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"crit": []}))


def test_b64_false_in_the_header_is_refused():
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"b64": False, "crit": ["b64"]}))


def test_zip_in_the_header_is_refused():
    _refused(Refusal.HEADER, accepted, _with_header(_HEAD | {"zip": "DEF"}))


def test_duplicate_keys_in_the_header_are_refused():
    doubled = orjson.dumps(_HEAD).replace(b'{"alg"', b'{"alg":"none","alg"')
    _refused(Refusal.HEADER, accepted, _with_header(doubled))


def test_another_spelling_of_the_known_header_is_refused():
    same = orjson.dumps(_HEAD)
    for spelled in (same.replace(b":", b": "), same.replace(b"alg", b"\\u0061lg"), same + b" ", b"\xef\xbb\xbf" + same):
        _refused(Refusal.HEADER, accepted, _with_header(spelled))


def test_padding_is_refused():
    text = minted().reveal()
    for spelled in (text + "=", text + "==", text.replace(".", "==.", 1), text.replace(".", "=.")):
        with pytest.raises(TokenRefused):
            accepted(spelled)


def test_json_serialisation_is_refused():
    header, claims, signature = minted().reveal().split(".")
    flat = orjson.dumps({"payload": claims, "protected": header, "signature": signature}).decode()
    _refused(Refusal.FORM, accepted, flat)


def test_the_twin_signature_r_n_minus_s_changes_the_text_but_not_the_single_use_key():
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    token = minted()
    signing_input, _, last = token.reveal().rpartition(".")
    raw = jwt.utils.base64url_decode(last)
    twin = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    other = f"{signing_input}.{b64url(twin).decode()}"
    assert other != token.reveal()
    assert accepted(other).jti == token.jti
    assert accepted(other).binding == accepted(token.reveal()).binding


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda _raw: bytes(64),
            lambda raw: raw[:63],
            lambda raw: raw + b"\0",
            lambda raw: raw[:32] + bytes(32),
            lambda raw: bytes(32) + raw[32:],
        ),
        *(
            lambda _raw: b"\xff" * 64,
            lambda raw: raw[32:] + raw[:32],
            lambda raw: raw * 2,
            lambda _raw: bytes(31) + b"\1" + bytes(31) + b"\1",
        ),
    ],
)
def test_signatures_that_are_zero_too_long_or_turned_around_are_refused(make):
    signing_input, _, last = minted().reveal().rpartition(".")
    raw = jwt.utils.base64url_decode(last)
    _refused(Refusal.SIGNATURE, accepted, f"{signing_input}.{b64url(make(raw)).decode()}")


def test_a_der_signature_is_refused():
    signing_input, _, last = minted().reveal().rpartition(".")
    raw = jwt.utils.base64url_decode(last)
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    _refused(Refusal.SIGNATURE, accepted, f"{signing_input}.{b64url(der).decode()}")


def test_a_token_of_another_key_of_ours_under_its_own_header_is_refused():
    other = KeyRing.ephemeral().signer(NOW)
    _refused(Refusal.HEADER, accepted, draft_token(sample())(other).reveal())


def test_a_dpop_proof_is_no_token():
    _refused(Refusal.HEADER, accepted, RUN_KEY.proof("POST", URL, minted().reveal(), NOW))


def test_a_token_over_the_size_cap_is_refused_although_it_is_signed():
    _refused(Refusal.SIZE, accepted, minted(scope="s" * 8000).reveal())


# --- (7) strict payload: all of these are really signed by the issuer ---------------------------------------------------


def test_the_hand_made_payload_is_good_before_it_is_spoilt():
    assert accepted(signed(orjson.dumps(body()))) == sample()
    assert accepted(detail()) == sample()


_GOOD = orjson.dumps(body())
SPOILT: dict[str, bytes] = {
    "duplicate keys, same value": _GOOD.replace(b'{"iss"', b'{"sub":"lee","iss"', 1),
    "duplicate keys, other tenant": _GOOD.replace(b'"tenant":', b'"tenant":"other","tenant":', 1),
    "duplicate keys at the end": _GOOD[:-1] + b',"aud":"' + AUDIENCE.encode() + b'"}',
    "duplicate keys inside": _GOOD.replace(b'"identifier":', b'"identifier":"payments.read","identifier":', 1),
    "an escaped key": _GOOD.replace(b'"aud"', b'"\\u0061ud"', 1),
    "an escaped duplicate key": _GOOD.replace(b'"aud":', b'"\\u0061ud":"x","aud":', 1),
    "an escaped value": _GOOD.replace(b'"lee"', b'"l\\u0065e"', 1),
    "an escaped slash": _GOOD.replace(b"https://", b"https:\\/\\/", 1),
    "white space": _GOOD.replace(b":", b": ", 1),
    "a line break behind": _GOOD + b"\n",
    "a byte order mark": b"\xef\xbb\xbf" + _GOOD,
    "UTF-16": _GOOD.decode().encode("utf-16-le"),
    "UTF-16 with a mark": _GOOD.decode().encode("utf-16"),
    "UTF-32": _GOOD.decode().encode("utf-32"),
    "Latin-1": _GOOD.replace(b"lee", "l\u00e9e".encode("latin-1")),
    "overlong UTF-8": _GOOD.replace(b"lee", b"l\xc1\xa5e"),
    "a surrogate in UTF-8": _GOOD.replace(b"lee", b"l\xed\xa0\x80e"),
    "a surrogate by escape": _GOOD.replace(b"lee", b"l\\ud800e"),
    "exp as a float": _GOOD.replace(b'"exp":1800000060', b'"exp":1800000060.0'),
    "exp in exponent form": _GOOD.replace(b'"exp":1800000060', b'"exp":180000006e1'),
    "exp with a leading zero": _GOOD.replace(b'"exp":1800000060', b'"exp":01800000060'),
    "NaN": _GOOD.replace(b'"exp":1800000060', b'"exp":NaN'),
    "names in another order": orjson.dumps(dict(sorted(body().items()))),
    "two objects": _GOOD + _GOOD,
    "a list": b"[" + _GOOD + b"]",
    "text": b'"x"',
    "null": b"null",
    "nothing but a brace": b"{",
    "deep nesting": b"[" * 2000 + b"]" * 2000,
    "a NUL behind": _GOOD + b"\0",
}


@pytest.mark.parametrize("data", SPOILT.values(), ids=SPOILT.keys())
def test_a_signed_payload_in_another_form_is_refused(data):
    assert data != _GOOD
    refused = _refused_any(signed(data))
    assert refused.code in {Refusal.PAYLOAD, Refusal.CLAIM}
    assert refused.code.http_status == 401


def _refused_any(text: str) -> TokenRefused:
    with pytest.raises(TokenRefused) as refused:
        accepted(text)
    return refused.value


@pytest.mark.parametrize("name", [name for name in body() if name != "cnf"])
def test_a_missing_claim_is_refused_by_name(name):
    rest = {key: value for key, value in body().items() if key != name}
    assert name in _refused(Refusal.CLAIM, accepted, signed(orjson.dumps(rest))).field


@pytest.mark.parametrize("name", [name for name in body()["authorization_details"][0] if name != "releases"])
def test_a_missing_detail_is_refused_by_name(name):
    value = body()
    del value["authorization_details"][0][name]
    assert name in _refused(Refusal.CLAIM, accepted, signed(orjson.dumps(value))).field


@pytest.mark.parametrize("name", [*body(), "auth_time", "acr", "amr"])
@pytest.mark.parametrize("value", [None, True, "", 5, -1, 1.5, 2**63, [], {}, ["x"], {"x": 1}, [[]]], ids=repr)
def test_a_claim_of_another_type_is_refused(name, value):
    good = {"iat": (5,), "exp": (5,), "auth_time": (5,), "amr": (["x"],)}
    if value in good.get(name, ()) and value is not True:
        value = "5"
    changed = body()
    changed.pop(name, None)
    order = [*body(), "auth_time", "acr", "amr"]
    changed = {key: (value if key == name else changed[key]) for key in order if key == name or key in changed}
    if name in {"iss", "sub", "aud", "client_id", "jti", "txn", "scope", "tenant", "gen", "acr"} and type(value) is str and value:
        value = 5
    _refused(Refusal.CLAIM, accepted, signed(orjson.dumps(changed)))


@pytest.mark.parametrize("name", list(body()["authorization_details"][0]))
@pytest.mark.parametrize("value", [None, True, 5, 1.5, [], {}, [5], {"x": 1}, [[]]], ids=repr)
def test_a_detail_of_another_type_is_refused(name, value):
    refused = _refused_any(detail(**{name: value}))
    assert refused.code is (Refusal.LOCATION if name == "locations" else Refusal.CLAIM)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "https://agentgate.dev/rar/tool-call/v2"},
        {"actions": ["read"]},
        {"actions": ["invoke", "invoke"]},
        {"identifier": ""},
        {"run": ""},
        {"workflow": {"id": "w", "version": "7", "digest": "d"}},
        {"workflow": {"id": "w", "version": True, "digest": "d"}},
        {"workflow": {"id": "w", "version": 7}},
        {"workflow": {"id": "w", "version": 7, "digest": "d", "mode": "observe"}},
        {"workflow": {"id": "", "version": 7, "digest": "d"}},
        {"arguments_digest": {"alg": "sha-1", "c14n": "jcs", "value": sample().arguments_digest}},
        {"arguments_digest": {"alg": "sha-256", "c14n": "none", "value": sample().arguments_digest}},
        {"arguments_digest": {"alg": "sha-256", "c14n": "jcs", "value": sample().arguments_digest.upper()}},
        {"arguments_digest": {"alg": "sha-256", "c14n": "jcs", "value": ""}},
        {"arguments_digest": {"alg": "sha-256", "c14n": "jcs", "value": sample().arguments_digest[:-1]}},
        {"call_digest": "0" * 63},
        {"call_digest": "g" * 64},
        {"identity": {}},
        {"identity": {"agent": "unproven"}},
        {"identity": {"agent": "proven", "tenant": "proven"}},
        {"identity": {"agent": ["proven"]}},
        {"identity": {"user": "proven"}},
        {"releases": [""]},
        {"amount": "1.00"},
    ],
    ids=str,
)
def test_a_detail_with_another_value_is_refused(change):
    assert _refused_any(detail(**change)).code is Refusal.CLAIM


@pytest.mark.parametrize(
    "change",
    [
        {"exp": str(NOW + 60)},
        {"iat": -1},
        {"exp": 2**53},
        {"jti": "short"},
        {"jti": "A" * 21},
        {"jti": "A" * 129},
        {"jti": "A" * 22 + "\n"},
        {"jti": "A" * 22 + ":*"},
        {"gen": "0" * 39},
        {"gen": "?" * 40},
        {"gen": "A" * 40},
        {"cnf": {}},
        {"cnf": {"jkt": "short"}},
        {"cnf": {"jkt": RUN_KEY.jkt, "jwk": {}}},
        {"cnf": {"x5t#S256": RUN_KEY.jkt, "jkt": RUN_KEY.jkt}},
        {"cnf": {"x5t#S256": None}},
        {"cnf": {"x5t": RUN_KEY.jkt}},
        {"cnf": {"jkt": [RUN_KEY.jkt]}},
        {"act": {}},
        {"act": {"sub": ""}},
        {"act": {"sub": 5}},
        {"act": {"sub": "a", "act": None}},
        {"act": {"sub": "a", "act": []}},
        {"act": {"sub": "a", "client_id": "b"}},
        {"aud": [AUDIENCE]},
        {"nbf": NOW},
        {"authorization_details": []},
        {"authorization_details": body()["authorization_details"] * 2},
    ],
    ids=lambda change: str(change).replace(RUN_KEY.jkt, "thumbprint")[:60],
)
def test_a_claim_with_another_value_is_refused(change):
    assert _refused_any(signed(orjson.dumps(body(**change)))).code is Refusal.CLAIM


def test_delegation_deeper_than_the_limit_is_refused():
    act: dict[str, Any] = {"sub": "a"}
    for _ in range(MAX_HOPS - 1):
        act = {"sub": "a", "act": act}
    assert accepted(signed(orjson.dumps(body(act=act)))).act == act
    assert _refused_any(signed(orjson.dumps(body(act={"sub": "a", "act": act})))).code is Refusal.CLAIM
