import copy
import io
import json
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from agentgate.errors import CanonicalError, KeyRefused
from agentgate.token.mint import CallToken, binding, call_digest, draft_token, new_jti, payload
from agentgate.token.signing import KeyRing
from agentgate.values.canonical import canonical, digest
from tests.sample_token import AUDIENCE, ISSUER, NOW, RING, RUN_KEY, SIGNER, URL, accepted, minted, sample, signed


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_pyjwt_accepts_our_token_and_reads_the_same_claims(alg):
    ring = KeyRing.ephemeral(alg)
    text = draft_token(sample(iat=int(NOW), exp=4_000_000_000))(ring.signer(NOW)).reveal()
    keys = jwt.PyJWKSet.from_dict(ring.jwks(NOW))
    key = keys[jwt.get_unverified_header(text)["kid"]]
    claims = jwt.decode(text, key, algorithms=[alg], audience=AUDIENCE, issuer=ISSUER, options={"verify_iat": False})
    assert claims == json.loads(payload(sample(exp=4_000_000_000)))
    assert jwt.get_unverified_header(text) == {"alg": alg, "kid": ring.signer(NOW).kid, "typ": "at+jwt"}


def _joserfc_keys(ring: KeyRing) -> KeySet:
    published: Any = ring.jwks(NOW)
    return KeySet.import_key_set(published)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")  # the older name, which every verifier knows
@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_joserfc_accepts_our_token_and_reads_the_same_claims(alg):
    ring = KeyRing.ephemeral(alg)
    text = draft_token(sample())(ring.signer(NOW)).reveal()
    decoded = joserfc_jwt.decode(text, _joserfc_keys(ring), algorithms=["ES256", "Ed25519", "EdDSA"])
    assert decoded.claims == json.loads(payload(sample()))


def test_the_wire_form_is_exactly_the_documented_one():
    value = json.loads(payload(sample(auth_time=NOW - 5, acr="mfa", amr=("hwk", "pin"))))
    (detail,) = value["authorization_details"]
    assert list(value) == [
        *("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "txn", "scope", "authorization_details", "act", "tenant", "gen"),
        *("cnf", "auth_time", "acr", "amr"),
    ]
    assert detail["type"] == "https://agentgate.dev/rar/tool-call/v1"
    assert detail["locations"] == [value["aud"]]
    assert detail["actions"] == ["invoke"]
    assert detail["arguments_digest"] == {"alg": "sha-256", "c14n": "jcs", "value": sample().arguments_digest}
    assert detail["workflow"] == {"id": "payments.customer-refund", "version": 7, "digest": "sha256:" + "a" * 64}
    assert value["cnf"] == {"jkt": RUN_KEY.jkt}
    assert detail["releases"] == ["hold_1"]


VECTORS = json.loads((Path(__file__).parent / "vectors" / "token-payloads.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS)
def test_a_token_says_what_it_always_said_and_is_read_as_that(vector):
    claims = sample(**{name: tuple(value) if isinstance(value, list) else value for name, value in vector["changes"].items()})
    assert payload(claims) == vector["payload"].encode()
    assert accepted(signed(vector["payload"].encode()))._asdict() == claims._asdict()


def test_what_is_not_there_is_left_out_and_not_null():
    value = json.loads(payload(sample(cnf_jkt=None, releases=())))
    assert not {"cnf", "auth_time", "acr", "amr"} & value.keys()
    assert "releases" not in value["authorization_details"][0]


def test_an_unpaired_surrogate_is_no_claim():
    with pytest.raises(CanonicalError):
        payload(sample(sub="\ud800"))
    with pytest.raises(CanonicalError):
        call_digest(**FIELDS | {"user": "\ud800"})


_TEXTS = ("tenant", "run", "tool_call_id", "agent", "user", "tool", "audience", "definition", "workflow_digest")
FIELDS: dict[str, Any] = dict.fromkeys(_TEXTS, "x") | {"data": b'{"a":1}'}
_text = st.text(max_size=20)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(_text, min_size=9, max_size=9), st.dictionaries(_text, _text | st.integers(-99, 99), max_size=4))
def test_the_call_digest_is_that_of_the_canonical_object(texts, args):
    fields: dict[str, Any] = dict(zip(_TEXTS, texts, strict=True))
    whole = {"tool_definition" if name == "definition" else name: text for name, text in fields.items()} | {"arguments": args}
    assert call_digest(**fields, data=canonical(args)) == digest(canonical(whole))


def test_every_field_changes_the_call_digest():
    changes = [{name: b'{"a":2}' if name == "data" else "y"} for name in FIELDS]
    assert len({call_digest(**FIELDS | changed) for changed in ({}, *changes)}) == 11


def test_every_part_changes_the_binding_and_no_key_is_not_an_empty_key():
    variants = (("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", None), ("a", "b", ""), ("a", "b", "null"))
    assert len({binding(*variant) for variant in variants}) == 6


def test_identifiers_are_128_random_bits():
    found = {new_jti() for _ in range(1000)}
    assert len(found) == 1000
    assert all(len(bytes.fromhex(jti)) == 16 for jti in found)  # base64url may begin with "-", which a command takes for an option


def test_a_run_key_that_the_claims_do_not_name_is_refused():
    with pytest.raises(KeyRefused):
        draft_token(sample(cnf_jkt=None), RUN_KEY)
    with pytest.raises(KeyRefused):
        draft_token(sample(), RING.run_key("acme-eu", "run_2"))


def test_claims_of_two_senders_are_refused():
    with pytest.raises(KeyRefused, match="one of them"):
        draft_token(sample(cnf_x5t="t" * 43), RUN_KEY)


def test_headers_of_a_bound_token_carry_its_proof_and_of_an_unbound_one_say_bearer():
    bound = minted()
    headers = bound.headers("POST", URL, NOW)
    assert headers["Authorization"] == f"DPoP {bound.reveal()}"
    assert jwt.get_unverified_header(headers["DPoP"])["typ"] == "dpop+jwt"
    plain = minted(cnf_jkt=None)
    assert plain.headers("POST", URL) == {"Authorization": f"Bearer {plain.reveal()}"}


def test_a_token_bound_to_a_clients_own_key_is_not_sent_without_its_proof():
    token = draft_token(sample(cnf_jkt="A" * 43))(SIGNER)
    with pytest.raises(KeyRefused):
        token.headers("POST", URL, NOW)
    assert token.reveal().count(".") == 2


def test_a_token_says_what_it_is_without_its_text():
    token = minted()
    assert (token.txn, token.jti, token.expires_at) == ("txn_1", sample().jti, NOW + 60.0)


# --- the canary: where a token's text must never turn up ---------------------------------------------------------------


def _leaks(token: CallToken, text: str) -> bool:
    """Whether any part of the token that is worth having stands in `text`."""
    _, body, signature = token.reveal().split(".")
    return signature in text or body in text


def test_the_canary_would_be_seen():
    token = minted()
    assert _leaks(token, token.reveal())


@pytest.mark.parametrize(
    "show",
    [
        *(repr, str, ascii, format, lambda t: f"{t!s:>40} {t}", lambda t: "%s %r" % (t, t)),  # noqa: UP031 - that spelling is the point
        *(lambda t: repr([t]), lambda t: repr({"token": t}), pretty_repr, lambda t: repr(dir(t))),
        lambda t: repr({name: getattr(t, name) for name in dir(t)}),
        lambda t: repr([getattr(t, slot) for slot in type(t).__slots__]),
        lambda t: json.dumps({"token": t}, default=repr),
        lambda t: orjson.dumps({"token": t}, default=repr).decode(),
    ],
)
def test_no_text_form_of_a_token_shows_it(show):
    token = minted()
    assert not _leaks(token, show(token))
    assert "<CallToken txn=txn_1>" in repr(token)


@pytest.mark.parametrize(
    "attempt",
    [
        *(pickle.dumps, copy.copy, copy.deepcopy, json.dumps, orjson.dumps, vars, list, bytes),
        *(
            lambda t: [pickle.dumps({"t": t}, protocol=p) for p in (0, 1)],
            lambda t: copy.deepcopy([t]),
            lambda t: t.__getstate__(),
            lambda t: t.__reduce__(),
        ),
        lambda t: t + "",
    ],
)
def test_a_token_is_neither_copied_nor_serialised(attempt):
    with pytest.raises(TypeError):
        attempt(minted())


def test_nobody_derives_a_token_type_that_shows_itself():
    with pytest.raises(TypeError):
        type("Loud", (CallToken,), {})


def _fail(token: CallToken) -> None:
    held = {"token": token, "list": [token]}
    token.headers("POST", "not a url", NOW)
    raise AssertionError(held)


def _failure(token: CallToken) -> BaseException:
    try:
        _fail(token)
    except ValueError as error:
        return error
    raise AssertionError("the URL was accepted")


def test_no_traceback_with_locals_shows_a_token():
    token = minted()
    error = _failure(token)
    plain = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    out = io.StringIO()
    shown = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True, locals_max_string=100_000)
    Console(file=out, width=4000).print(shown)
    for text in (plain, out.getvalue()):
        assert "CallToken" in text
        assert not _leaks(token, text)


def test_no_structlog_output_shows_a_token():
    token = minted()
    show = structlog.tracebacks.ExceptionDictTransformer(show_locals=True, locals_max_string=100_000)
    processors = structlog.processors
    renderers: list[Any] = [processors.JSONRenderer(), processors.KeyValueRenderer(), processors.LogfmtRenderer()]
    try:
        _fail(token)
    except ValueError:
        for renderer in renderers:
            event: Any = {"event": "failed", "token": token, "tokens": repr([token]), "exc_info": sys.exc_info()}
            event = structlog.processors.ExceptionRenderer(show)(None, "error", event)
            event["exception"] = repr(event["exception"])
            text = str(renderer(None, "error", event))
            assert "CallToken" in text
            assert not _leaks(token, text)


def test_a_proof_that_fails_leaves_no_token_in_the_locals():
    token = minted()
    text = token.reveal()
    with pytest.raises(ValueError, match="absolute") as caught:
        RUN_KEY.proof("POST", "not a url", text, NOW)
    inner = caught.value.__traceback__
    assert inner is not None
    shown = "".join(traceback.TracebackException(type(caught.value), caught.value, inner.tb_next, capture_locals=True).format())
    assert "proof_for" in shown
    assert not _leaks(token, shown)
