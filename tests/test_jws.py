import hashlib
import hmac
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentgate.errors import KeyRefused, Refusal, TokenRefused
from agentgate.token.jws import PublicKey, PublicKeys, Split, b64url, split, unb64url, verify
from agentgate.token.signing import KeyRing
from tests.sample_token import KEYS, SIGNER, minted, signed

VECTORS = Path(__file__).parent / "vectors"
JWS = json.loads((VECTORS / "wycheproof-jws.json").read_bytes())["testGroups"]
ED25519 = json.loads((VECTORS / "wycheproof-ed25519.json").read_bytes())["testGroups"]
MISLABELLED_INVALID = {367, 370}  # the bytes of the valid 357
MISLABELLED_VALID = {372, 373}  # contain "?"


def _vectors(*groups: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(group, test) for group in JWS if group["comment"] in groups for test in group["tests"]]


def _es256_accepts(group: dict[str, Any], text: str) -> bool:
    """Verdict on a vector when its group's header is the one that this issuer writes."""
    valid = next(test["jws"] for test in JWS[1]["tests"] if test["result"] == "valid")
    try:
        keys = PublicKeys({valid.split(".")[0].encode(): PublicKey.from_jwk(group["public"])})
        verify(text, keys)
    except (TokenRefused, KeyRefused):
        return False
    return True


@pytest.mark.parametrize(
    ("group", "test"),
    _vectors("es256", "SpecialCaseEs256", "ec_key_for_encryption"),
    ids=lambda value: f"{value['tcId']}-{value['comment']}" if "tcId" in value else "",
)
def test_every_es256_vector_of_wycheproof_has_its_verdict(group, test):
    assert _es256_accepts(group, test["jws"]) == (test["result"] == "valid")


def _hs256_accepts(key: bytes, headers: set[bytes], text: str) -> bool:
    """The codec's verdict with a MAC in place of the signature, which no key of this package can be."""
    try:
        parts: Split = split(text)
    except TokenRefused:
        return False
    return parts.header in headers and hmac.compare_digest(hmac.digest(key, parts.signed, "sha256"), parts.signature)


def test_the_codec_gives_every_base64_vector_its_verdict_but_for_the_four_mislabelled_ones():
    group = next(group for group in JWS if group["comment"] == "base64")
    key = unb64url(group["private"]["k"].encode())
    headers = {test["jws"].split(".")[0].encode() for test in group["tests"] if test["tcId"] in {357, 376, 377}}
    for test in group["tests"]:
        accepts = _hs256_accepts(key, headers, test["jws"])
        number = test["tcId"]
        expected = number in MISLABELLED_INVALID or (test["result"] == "valid" and number not in MISLABELLED_VALID)
        assert accepts == expected, (number, test["comment"])
    same = {test["tcId"]: test["jws"] for test in group["tests"]}
    assert same[367] == same[370] == same[357]
    assert all("?" in same[number] for number in MISLABELLED_VALID)


def test_rsa_hmac_and_es512_keys_are_refused_when_loaded_so_none_of_their_vectors_is_accepted():
    refused_valid: dict[str, list[int]] = {}
    for group in JWS:
        jwk = group.get("public", group.get("private"))
        if jwk.get("crv") == "P-256" and "alg" in jwk:
            continue
        with pytest.raises(KeyRefused):
            PublicKey.from_jwk(jwk)
        refused_valid.setdefault(group["comment"], []).extend(t["tcId"] for t in group["tests"] if t["result"] == "valid")
    # refused although labelled valid, because there is one signature algorithm per key and these are not among the two
    assert {name for name, numbers in refused_valid.items() if numbers} == {
        *("hs256", "rs256", "rs384", "rs512", "ps256", "ps384", "ps512"),
        *("rfc7520", "rfc7520WithKeyOps", "base64"),
    }


def test_every_ed25519_vector_of_wycheproof_has_its_verdict():
    count = 0
    for group in ED25519:
        public = bytes.fromhex(group["publicKey"]["pk"])
        key = PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(public).decode()})
        for test in group["tests"]:
            accepts = key.verify(bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))
            assert accepts == (test["result"] == "valid"), (test["tcId"], test["comment"])
            count += 1
    assert count == 151


# y coordinates of the points whose order divides 8, and their encodings that are not canonical
_ORDER_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
_ORDER_8B = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
SMALL_ORDER = {
    "identity": "01" + "00" * 31,
    "order 2": "ec" + "ff" * 30 + "7f",
    "order 4": "00" * 32,
    "order 4, other sign": "00" * 31 + "80",
    "order 8": _ORDER_8,
    "order 8, other sign": _ORDER_8[:-2] + "fa",
    "order 8, second": _ORDER_8B,
    "order 8, second, other sign": _ORDER_8B[:-2] + "85",
    "identity with a sign": "01" + "00" * 30 + "80",
    "order 2 with a sign": "ec" + "ff" * 31,
    "p, not canonical": "ed" + "ff" * 30 + "7f",
    "p + 1, not canonical": "ee" + "ff" * 30 + "7f",
    "2^255 - 1, not canonical": "ff" * 32,
    "off the curve": "02" + "00" * 31,
}


@pytest.mark.parametrize("point", SMALL_ORDER.values(), ids=SMALL_ORDER.keys())
def test_small_order_and_off_curve_ed25519_keys_are_refused_when_loaded(point):
    raw = bytes.fromhex(point)
    Ed25519PublicKey.from_public_bytes(raw)  # the library itself takes it
    with pytest.raises(KeyRefused, match="small order"):
        PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(raw).decode()})


def test_a_thousand_real_ed25519_keys_are_not_taken_for_small_order():
    rng = random.Random(7)  # noqa: S311 - reproducible
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    for _ in range(1000):
        raw = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)).public_key().public_bytes_raw()
        assert PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(raw).decode()}).alg == "EdDSA"


_GOOD = SIGNER.public_jwk()
BAD_KEYS: dict[str, dict[str, Any]] = {
    "private": _GOOD | {"d": _GOOD["x"]},
    "symmetric": {"kty": "oct", "k": "AAAA", "alg": "HS256"},
    "RSA": {"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS256"},
    "another curve": _GOOD | {"crv": "P-384"},
    "secp256k1": _GOOD | {"crv": "secp256k1"},
    "another alg": _GOOD | {"alg": "HS256"},
    "for encryption": _GOOD | {"use": "enc"},
    "for encryption by key_ops": _GOOD | {"key_ops": ["encrypt"]},
    "off the curve": _GOOD | {"y": _GOOD["x"]},
    "x with padding": _GOOD | {"x": _GOOD["x"] + "="},
    "x with a zero before it": _GOOD | {"x": b64url(b"\0" + unb64url(_GOOD["x"].encode())).decode()},
    "x too short": _GOOD | {"x": "AAAA"},
    "x missing": {name: value for name, value in _GOOD.items() if name != "x"},
    "x a number": _GOOD | {"x": 5},
    "x not ASCII": _GOOD | {"x": "ä" * 43},
    "kid of another key": _GOOD | {"kid": "kid-1"},
    "kid missing": {name: value for name, value in _GOOD.items() if name != "kid"},
    "alg missing": {name: value for name, value in _GOOD.items() if name != "alg"},
}


@pytest.mark.parametrize("jwk", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_key_set_with_an_unusable_key_is_refused_whole(jwk):
    with pytest.raises(KeyRefused):
        PublicKeys.from_jwks({"keys": [*KeyRing.ephemeral().jwks(0)["keys"], jwk]})


@pytest.mark.parametrize("pad", [b"\0", b"\0\0"])
def test_a_coordinate_with_zeros_before_it_would_be_the_same_key_under_another_thumbprint_and_is_refused(pad):
    longer = b64url(pad + unb64url(_GOOD["x"].encode())).decode()
    with pytest.raises(KeyRefused, match="expected 32"):
        PublicKey.from_jwk({name: longer if name == "x" else _GOOD[name] for name in ("kty", "crv", "x", "y")})


@pytest.mark.parametrize("jwks", [None, [], {}, {"keys": "x"}, {"keys": {}}, {"keys": [None]}, {"keys": [_GOOD, _GOOD]}])
def test_what_is_not_a_key_set_is_refused(jwks):
    with pytest.raises(KeyRefused):
        PublicKeys.from_jwks(jwks)


def test_a_key_set_maps_the_whole_header_to_its_key_and_ignores_unknown_members():
    keys = PublicKeys.from_jwks({"keys": [_GOOD | {"x-note": "published by tests"}]})
    assert list(keys) == [SIGNER.header]
    assert repr(keys[SIGNER.header]) == f"PublicKey(ES256, {SIGNER.kid})"


def test_no_keys_is_its_own_refusal_since_it_is_not_the_tokens_fault():
    with pytest.raises(TokenRefused) as refused:
        verify(minted().reveal(), PublicKeys({}))
    assert refused.value.code is Refusal.NO_KEYS
    assert refused.value.code.http_status == 503


def test_base64url_decodes_only_what_the_encoder_writes():
    rng = random.Random(11)  # noqa: S311 - reproducible
    alphabet = b"AQgw-_89=+/ \n.z"
    for _ in range(20_000):
        segment = bytes(rng.choice(alphabet) for _ in range(rng.randrange(9)))
        try:
            data = unb64url(segment)
        except ValueError:
            continue
        assert b64url(data) == segment
    for size in range(70):
        data = rng.randbytes(size)
        assert unb64url(b64url(data)) == data


MUTATIONS: dict[str, Callable[[str], str]] = {
    "four parts": lambda text: text + ".AA",
    "two parts": lambda text: text.rpartition(".")[0],
    "no signature": lambda text: text.rpartition(".")[0] + ".",
    "empty": lambda _text: "",
    "padding behind the signature": lambda text: text + "==",
    "padding behind the payload": lambda text: text.replace(".", "=.", 2).replace("=.", ".", 1),
    "standard alphabet": lambda text: text[:-1] + "+",
    "a line break": lambda text: text + "\n",
    "a space before": lambda text: " " + text,
    "a NUL": lambda text: text + "\0",
    "a letter that looks like a": lambda text: text.replace("a", "\u0430", 1),
    "full-width digits": lambda text: text[:-1] + "\uff11",
    "an unpaired surrogate": lambda text: text + "\ud800",
    "stray bits in the signature": lambda text: text[:-1] + chr(ord(text[-1]) + 1),
}


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_another_spelling_of_a_token_is_refused_for_its_form(mutate):
    with pytest.raises(TokenRefused) as refused:
        verify(mutate(minted().reveal()), KEYS)
    assert refused.value.code in {Refusal.FORM, Refusal.HEADER}


def test_stray_bits_in_the_payload_are_refused_even_when_signed_for():
    text = signed(b"ab").split(".")
    text[1] = text[1][:-1] + chr(ord(text[1][-1]) + 1)
    signing_input = f"{text[0]}.{text[1]}".encode()
    with pytest.raises(TokenRefused, match="form"):
        verify(f"{text[0]}.{text[1]}.{b64url(SIGNER.sign(signing_input)).decode()}", KEYS)


def test_a_token_of_32_mebibytes_is_refused_by_its_length_alone():
    with pytest.raises(TokenRefused) as refused:
        verify("A" * (32 * 1024 * 1024), KEYS)
    assert refused.value.code is Refusal.SIZE


@pytest.mark.parametrize("value", [None, b"a.b.c", 5, ["a.b.c"]])
def test_a_token_that_is_not_text_is_refused(value):
    with pytest.raises(TokenRefused, match="form"):
        verify(value, KEYS)


def test_signatures_with_leading_zeros_survive_both_encodings():
    seen = 0
    for number in range(3000):
        data = hashlib.sha256(str(number).encode()).digest()
        signature = SIGNER.sign(data)
        if signature[0] == 0 or signature[32] == 0:
            assert KEYS[SIGNER.header].verify(signature, data)
            seen += 1
        assert len(signature) == 64
    assert seen
