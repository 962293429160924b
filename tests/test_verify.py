import random
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from agentgate.errors import AgentGateError, ConfigError, KeyRefused, Refusal, TokenRefused
from agentgate.token.claims import Claims, DPoP, check_authentication, check_call, check_proof
from agentgate.token.jws import PublicKeys
from agentgate.token.mint import binding, draft_token, payload
from agentgate.token.signing import KeyRing
from agentgate.values.canonical import canonical
from tests.effort import examples
from tests.sample_token import (
    AUDIENCE,
    DATA,
    ISSUER,
    KEYS,
    NOW,
    RING,
    RUN_KEY,
    SIGNER,
    TENANT,
    TOOL,
    URL,
    accepted,
    detail,
    minted,
    sample,
    signed,
)


def _refused(code: Refusal, ask: Callable[..., object], *args: Any, **settings: Any) -> TokenRefused:
    with pytest.raises(TokenRefused) as refused:
        ask(*args, **settings)
    assert refused.value.code is code, refused.value
    return refused.value


# --- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_a_minted_token_is_accepted_with_exactly_the_claims_it_was_minted_with(alg):
    ring = KeyRing.ephemeral(alg)
    claims = sample(auth_time=NOW - 9, acr="mfa", amr=("pin", "hwk"))
    found = accepted(draft_token(claims)(ring.signer(NOW)).reveal(), keys=PublicKeys.from_jwks(ring.jwks(NOW)))
    assert found == claims
    assert found.binding == binding(claims.call_digest, claims.aud, claims.cnf_jkt)
    assert found.scopes == {"refunds:create", "refunds:read"}


@pytest.mark.parametrize(
    "change",
    [
        *({"cnf_jkt": None}, {"releases": ()}, {"acr": "x"}, {"auth_time": 0}, {"amr": ("a",)}, {"act": {"sub": "a"}}, {"tool_digest": ""}),
        *(
            {"identity": {"agent": "proven"}},
            {"sub": "Zo\u00eb \u20ac"},
            {"amr": ("a",), "cnf_jkt": None},
            {"act": {"iss": "i", "sub": "a"}},
        ),
    ],
)
def test_every_optional_part_may_be_there_or_not(change):
    claims = sample(**change)
    assert accepted(draft_token(claims)(SIGNER).reveal()) == claims


def test_claims_are_built_by_check_token_only():
    found = accepted(minted().reveal())
    for attempt in (
        lambda: Claims(*sample()),
        lambda: Claims._make(sample()),
        lambda: found._replace(shared=sample(tenant="other").shared),
    ):
        with pytest.raises(TypeError):
            attempt()


# --- (8) and (9) ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", [ISSUER + "/", ISSUER.upper(), "https://evil.example", "", "http" + ISSUER[5:]])
def test_another_issuer_is_refused(issuer):
    _refused(Refusal.ISSUER, accepted, minted().reveal(), issuer=issuer)


@pytest.mark.parametrize("audience", [AUDIENCE + "/", AUDIENCE[:-1], "https://orders.acme.example", ""])
def test_a_token_for_another_server_is_refused(audience):
    _refused(Refusal.AUDIENCE, accepted, minted().reveal(), audience=audience)


@pytest.mark.parametrize("tenants", [["acme-us"], ["ACME-EU"], ["acme-eu2", "acme"], []])
def test_a_token_of_another_tenant_is_refused_and_no_tenants_means_none(tenants):
    _refused(Refusal.TENANT, accepted, minted().reveal(), tenants=tenants)


def test_a_tenant_whose_name_is_part_of_a_name_is_refused():
    _refused(Refusal.TENANT, accepted, minted(tenant="acme").reveal(), tenants=[TENANT])
    with pytest.raises(ConfigError):
        accepted(minted(tenant="acme").reveal(), tenants=TENANT)


def test_settings_that_would_loosen_a_check_are_refused():
    for change in ({"leeway": 6}, {"leeway": -1}, {"max_lifetime": 301}, {"max_lifetime": 0}, {"leeway": float("nan")}):
        with pytest.raises(ConfigError):
            accepted(minted().reveal(), **change)


def test_expiry_has_five_seconds_of_leeway_and_no_more():
    assert accepted(minted().reveal(), now=NOW + 64.9)
    for now in (NOW + 65, NOW + 66, 2**40, float("inf"), float("nan")):
        _refused(Refusal.EXPIRED, accepted, minted().reveal(), now=now)
    _refused(Refusal.EXPIRED, accepted, minted().reveal(), now=NOW + 60, leeway=0)


def test_a_token_from_the_future_is_refused_beyond_five_seconds():
    assert accepted(minted().reveal(), now=NOW - 5)
    for now in (NOW - 5.1, 0, float("-inf")):
        _refused(Refusal.NOT_YET, accepted, minted().reveal(), now=now)


def test_a_lifetime_beyond_the_most_or_below_a_second_is_refused():
    assert accepted(minted(exp=NOW + 300).reveal())
    _refused(Refusal.LIFETIME, accepted, minted(exp=NOW + 301).reveal())
    _refused(Refusal.LIFETIME, accepted, minted(exp=NOW + 61).reveal(), max_lifetime=60)
    _refused(Refusal.LIFETIME, accepted, minted(exp=NOW).reveal())
    _refused(Refusal.LIFETIME, accepted, minted(exp=NOW, iat=NOW + 2).reveal())


# --- (10) sender ---------------------------------------------------------------------------------------------------------


def _proof(text: str, method: str = "POST", url: str = URL) -> DPoP:
    return DPoP(RUN_KEY.proof(method, url, text, NOW), "POST", URL)


def test_a_bound_token_with_its_proof_is_accepted_and_an_unbound_one_without():
    text, plain = minted().reveal(), minted(cnf_jkt=None).reveal()
    check_proof(accepted(text), text, _proof(text), NOW)
    check_proof(accepted(plain), plain, None, NOW)


def test_a_bound_token_sent_as_a_plain_bearer_token_is_refused_as_invalid_token():
    text = minted().reveal()
    refused = _refused(Refusal.PROOF_MISSING, check_proof, accepted(text), text, None, NOW)
    assert (refused.code.http_status, refused.code.error) == (401, "invalid_token")


def test_a_proof_beside_a_token_that_names_no_key_is_refused():
    text = minted(cnf_jkt=None).reveal()
    _refused(Refusal.PROOF_UNBOUND, check_proof, accepted(text), text, _proof(text), NOW)


def test_a_proof_by_another_run_for_another_token_request_or_time_is_refused():
    text = minted().reveal()
    claims = accepted(text)
    stolen = DPoP(RING.run_key(TENANT, "run_2").proof("POST", URL, text, NOW), "POST", URL)
    for proof in (stolen, _proof(minted(jti="B" * 22).reveal()), _proof(text, method="GET"), _proof(text, url=URL + "x")):
        _refused(Refusal.PROOF, check_proof, claims, text, proof, NOW)
    _refused(Refusal.PROOF, check_proof, claims, text, _proof(text), NOW + 66)


X5T = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"  # RFC 8705 section 3.1
OTHER = "A" + X5T[1:]


def test_a_token_for_a_certificate_needs_exactly_that_one_and_no_proof() -> None:
    text = minted(cnf_jkt=None, cnf_x5t=X5T).reveal()
    claims = accepted(text)
    assert (claims.cnf_jkt, claims.cnf_x5t) == (None, X5T)
    check_proof(claims, text, None, NOW, certificate=X5T)
    unlike: list[Any] = [None, "", OTHER, X5T + "A", X5T[:-1], X5T.lower(), "\ud800", 7]
    for shown in unlike:
        refused = _refused(Refusal.CERTIFICATE, check_proof, claims, text, None, NOW, certificate=shown)
        assert (refused.code.http_status, refused.code.error) == (401, "invalid_token")
    _refused(Refusal.CERTIFICATE, check_proof, claims, text, _proof(text), NOW)
    _refused(Refusal.PROOF_UNBOUND, check_proof, claims, text, _proof(text), NOW, certificate=X5T)


def test_a_certificate_is_nothing_to_other_tokens() -> None:
    text, plain = minted().reveal(), minted(cnf_jkt=None).reveal()
    _refused(Refusal.PROOF_MISSING, check_proof, accepted(text), text, None, NOW, certificate=RUN_KEY.jkt)
    check_proof(accepted(text), text, _proof(text), NOW, certificate=X5T)
    check_proof(accepted(plain), plain, None, NOW, certificate=X5T)


def test_a_token_has_one_sender_and_the_store_knows_which() -> None:
    with pytest.raises(KeyRefused, match="a key and a certificate"):
        minted(cnf_x5t=X5T)
    named: list[dict[str, Any]] = [{"cnf_x5t": X5T}, {"cnf_x5t": OTHER}, {}, {"cnf_jkt": X5T}]
    assert len({accepted(minted(**{"cnf_jkt": None, **each}).reveal()).binding for each in named}) == 4


# --- (11) and (12) -------------------------------------------------------------------------------------------------------


def test_the_call_that_was_decided_on_is_accepted():
    check_call(accepted(minted().reveal()), TOOL, DATA, scopes=("refunds:create",))


@pytest.mark.parametrize("tool", ["payments.refunds", "Payments.refund", "payments.refund ", "p\u0430yments.refund", ""])
def test_another_tool_is_refused(tool):
    refused = _refused(Refusal.TOOL, check_call, accepted(minted().reveal()), tool, DATA)
    assert (refused.code.http_status, refused.code.error) == (403, "insufficient_scope")


@pytest.mark.parametrize("data", [b"", b"{}", DATA + b" ", DATA.replace(b"120.00", b"120.01"), canonical({"order_id": "ORD-10023344"})])
def test_other_arguments_are_refused_and_not_shown(data):
    refused = _refused(Refusal.ARGUMENTS, check_call, accepted(minted().reveal()), TOOL, data)
    assert "ORD-" not in str(refused)


def test_a_scope_that_was_not_granted_is_refused():
    for scopes in (("refunds",), ("refunds:create", "refunds:delete"), ("",)):
        _refused(Refusal.SCOPE, check_call, accepted(minted().reveal()), TOOL, DATA, scopes=scopes)


@pytest.mark.parametrize("locations", [[], ["https://evil.example"], [AUDIENCE, "https://evil.example"], AUDIENCE, [AUDIENCE + "/"]])
def test_a_call_at_another_location_is_refused(locations):
    refused = _refused(Refusal.LOCATION, accepted, detail(locations=locations))
    assert refused.code.http_status == 403


def test_authentication_that_is_weak_old_or_unknown_is_refused():
    strong = accepted(minted(acr="mfa", auth_time=NOW - 100).reveal())
    check_authentication(strong, NOW, acr_values=("mfa",), max_age=100)
    check_authentication(accepted(minted().reveal()), NOW)
    for claims, wanted in (
        (strong, {"acr_values": ("hwk",)}),
        (strong, {"max_age": 99}),
        (accepted(minted().reveal()), {"acr_values": ("mfa",)}),
        (accepted(minted().reveal()), {"max_age": 10**9}),
    ):
        refused = _refused(Refusal.AUTHENTICATION, check_authentication, claims, NOW, **wanted)
        assert refused.code.error == "insufficient_user_authentication"


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", Refusal)
def test_every_refusal_has_a_status_and_an_error_of_the_standards(code):
    errors = {"", "invalid_request", "invalid_token", "insufficient_scope", "invalid_dpop_proof", "insufficient_user_authentication"}
    assert code.http_status in {400, 401, 403, 503}
    assert code.error in errors
    assert (code.http_status == 503) <= (code.error == "")
    assert (code.http_status == 403) == (code.error == "insufficient_scope")


def test_a_refusal_keeps_its_evidence_and_no_frame_of_it_shows_the_token():
    text = minted().reveal()
    attempts: list[Callable[[], object]] = [
        lambda: accepted(text[:-1] + ("A" if text[-1] != "A" else "Q")),
        lambda: accepted(text, issuer="https://evil.example"),
        lambda: accepted(text + "="),
        lambda: check_proof(accepted(text), text, None, NOW),
        lambda: check_proof(accepted(text), text, DPoP("x", "POST", URL), NOW),
    ]
    for attempt in attempts:
        with pytest.raises(TokenRefused) as caught:
            attempt()
        assert isinstance(caught.value, AgentGateError)
        frames = [each for each in traceback.walk_tb(caught.value.__traceback__) if each[0].f_globals["__name__"].startswith("agentgate.")]
        assert frames
        shown = repr([frame.f_locals for frame, _ in frames]) + str(caught.value) + repr(caught.value)
        assert text.split(".")[1] not in shown
        assert text.split(".")[2][:80] not in shown
        assert caught.value.__context__ is None or caught.value.__suppress_context__


# --- 200,000 mutations ---------------------------------------------------------------------------------------------------

SEED = 20_260_601
_ANY = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0"{}\u00e9\u0430\ud800'


def _mutated(rng: random.Random, text: str) -> str:
    """One random change, more often near the seams; about two in five keep the form and reach the signature check."""
    at = rng.randrange(len(text))
    kind = rng.randrange(8)
    if kind == 0:
        return text[:at] + rng.choice(_ANY) + text[at + 1 :]
    if kind == 1:
        return text[:at] + rng.choice(_ANY) + text[at:]
    if kind == 2:
        return text[:at] + text[at + rng.randrange(1, 5) :]
    if kind == 3:
        return text[:at]
    if kind == 4:
        return text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
    if kind == 5:
        parts = text.split(".")
        rng.shuffle(parts)
        return ".".join(parts)
    if kind == 6:
        part = rng.randrange(3)
        parts = text.split(".")
        place = rng.randrange(len(parts[part]))
        parts[part] = parts[part][:place] + rng.choice(_ANY[:64]) + parts[part][place + 1 :]
        return ".".join(parts)
    return text[:at] + text[at:].swapcase()


def test_random_mutations_of_a_good_token_are_all_refused():
    print(f"seed {SEED}")
    rng = random.Random(SEED)  # noqa: S311 - reproducible
    text = minted().reveal()
    assert accepted(text)
    codes: dict[Refusal, int] = {}
    count = 0
    while count < examples(200_000):
        changed = _mutated(rng, text)
        if changed == text:
            continue
        count += 1
        try:
            accepted(changed)
        except TokenRefused as refused:
            codes[refused.code] = codes.get(refused.code, 0) + 1
        else:
            raise AssertionError(changed)
    print(codes)
    assert set(codes) == {Refusal.FORM, Refusal.HEADER, Refusal.SIGNATURE}
    assert min(codes.values()) > count // 20


def test_2_000_random_mutations_of_a_signed_payload_raise_nothing_but_a_refusal():
    rng = random.Random(SEED)  # noqa: S311 - reproducible
    same = sample()
    good = payload(same)
    for _ in range(2_000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.choice([b"", b'"', b"0", b"{", b"[", b"null", b"\xff", b"\\", rng.randbytes(1)])
        try:
            found = accepted(signed(bytes(data)))
        except TokenRefused:
            continue
        assert payload(found) == bytes(data)  # what is accepted is in the issuer's form, whatever it now says
        assert (found == same) == (bytes(data) == good)
        assert KEYS
