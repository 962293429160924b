"""The wire: errors as the table says, hostile requests, what became of a token, calls that wait for a person."""

from __future__ import annotations

import base64
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest
import time_machine

from agentgate import Gate, OIDCToken
from agentgate.errors import RequestRefused
from agentgate.service.exchange import LIFE, fresh, proof_of
from agentgate.token.signing import KeyRing
from tests.authority import Key, claims_of, nonce_for
from tests.served import EXCHANGE, JWT, Asking, Party, Process, detail, served
from tests.served_notes import GATE, LOGIN, Notes, Place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import notes as notes  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture

ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_a_client_with_a_key_gets_a_token(notes: Notes) -> None:
    answer = notes.ask()
    assert answer.status_code == 200, (answer.text, notes.gate.log()[-1])
    token = answer.json()["access_token"]
    redeemed = notes.server.redeem(token, "notes.write", {"text": "hello"}, notes.asking.key)
    assert redeemed.json()["arguments"] == {"text": "hello"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grant_type": None}, (400, "invalid_request")),
        ({"grant_type": "client_credentials"}, (400, "unsupported_grant_type")),
        ({"subject_token": None}, (400, "invalid_request")),
        ({"subject_token": "x.y.z"}, (400, "invalid_request")),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, (400, "invalid_request")),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}, (400, "invalid_request")),
        ({"actor_token": "x"}, (400, "invalid_request")),
        ({"actor_token_type": JWT}, (400, "invalid_request")),  # an actor that got lost: the subject is not the agent itself
        ({"subject_token": "x" * 16_385}, (400, "invalid_request")),
        ({"completion_mode": "later"}, (400, "invalid_request")),
        ({"authorization_details": None}, (400, "invalid_request")),
        ({"authorization_details": "[]"}, (400, "invalid_authorization_details")),
        ({"authorization_details": "{"}, (400, "invalid_authorization_details")),
        ({"authorization_details": '[{"type":"a","type":"b"}]'}, (400, "invalid_authorization_details")),
        ({"authorization_details": '[],"more":1'}, (400, "invalid_authorization_details")),
        ({"authorization_details": "[" * 3000 + "]" * 3000}, (400, "invalid_authorization_details")),
        ({"of": {"type": "https://example.com/other"}}, (400, "invalid_authorization_details")),
        ({"of": {"tool_digest": "sha256:00"}}, (400, "invalid_authorization_details")),
        ({"of": {"tenant": "northwind"}}, (400, "invalid_authorization_details")),
        ({"of": {"run": "run_of_nobody"}}, (400, "invalid_authorization_details")),
        ({"of": {"workflow": {"id": "desk.other"}}}, (400, "invalid_authorization_details")),
        ({"of": {"identifier": "notes.delete"}}, (400, "invalid_authorization_details")),
        ({"of": {"identifier": "notes.local", "arguments": {}}}, (400, "invalid_target")),
        ({"of": {"locations": ["https://evil.example"]}}, (400, "invalid_target")),
        ({"resource": "https://evil.example"}, (400, "invalid_target")),
        ({"scope": "notes:write notes:admin"}, (400, "invalid_scope")),
        ({"arguments": {"text": "x" * 41}}, (400, "invalid_authorization_details")),
        ({"arguments": {"urgent": "yes"}}, (400, "access_denied")),
        ({"client_assertion": "x"}, (401, "invalid_client")),
        ({"client_assertion": None}, (401, "invalid_client")),
        ({"client_assertion_type": "urn:other"}, (401, "invalid_client")),
        ({"client_assertion_type": None}, (401, "invalid_client")),
        ({"client_assertion": None, "client_assertion_type": None}, (401, "invalid_client")),  # known by its name alone
        ({"client_id": "other"}, (401, "invalid_client")),
        ({"client_id": "nobody", "client_assertion": None, "client_assertion_type": None}, (401, "invalid_client")),
        ({"client_id": None, "client_assertion": None, "client_assertion_type": None}, (401, "invalid_client")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_each_error_is_the_one_of_the_table(notes: Notes, change: dict[str, Any], expected: tuple[int, str]) -> None:
    answer = notes.ask(**change)
    assert error_of(answer) == expected, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    line = notes.gate.log()[-1]
    assert (line["event"], line["error"], line["path"]) == ("refused", expected[1], "/oauth2/token")


def test_no_agent_opens_a_run_for_a_user(notes: Notes, place: Place) -> None:
    """Its host does, who heard the user: a user's token that got to an agent is no word of that user."""
    answer = notes.ask(actor_token=place.token(), actor_token_type=JWT)
    assert error_of(answer) == (400, "invalid_authorization_details")


def test_a_credential_of_another_kind_is_refused(notes: Notes, place: Place) -> None:
    old = place.token(exp=int(time.time()) - 60)
    for token in (place.token(aud="https://elsewhere.example"), old, place.token(app="else"), place.token()[:-4]):
        assert error_of(notes.ask(subject_token=token)) == (400, "invalid_request")
    forged = Key("login").sign({**claims_of(LOGIN, "notes-service"), "app": "notes"})
    assert error_of(notes.ask(subject_token=forged)) == (400, "invalid_request")


def test_an_assertion_counts_once_for_its_own_client_and_audience(notes: Notes, place: Place) -> None:
    notes.ask()
    form = notes.form()
    assert notes.asking.ask(form).status_code == 200
    assert error_of(notes.asking.ask({**form, "subject_token": place.token()})) == (401, "invalid_client")
    for claims in ({"aud": "https://elsewhere.example"}, {"sub": "desk"}, {"iss": "desk"}, {"exp": int(time.time()) - 60}, {"jti": None}):
        said = {**claims_of("notes", "notes", GATE, life=60), **claims}
        assertion = notes.client.key.sign({name: value for name, value in said.items() if value is not None})
        assert error_of(notes.ask(client_assertion=assertion)) == (401, "invalid_client"), claims
    at_the_url = notes.client.assertion(aud=f"{GATE}/oauth2/token")
    assert notes.ask(client_assertion=at_the_url).status_code == 200


def test_a_credential_is_one_run_of_one_client(notes: Notes, place: Place) -> None:
    token = place.token()
    first = notes.ask(subject_token=token).json()["authorization_details"][0]["run"]
    assert notes.ask("again", subject_token=token).json()["authorization_details"][0]["run"] == first
    other = Party(notes.gate, "other", place.keys["other"])
    assert error_of(notes.ask("again", subject_token=token, **other.asserted())) == (400, "invalid_request")
    assert notes.gate.log()[-1]["reasons"][0]["field"] == "client"


def test_a_second_form_of_a_signature_opens_no_second_run(notes: Notes, place: Place) -> None:
    """ECDSA (r, n - s) verifies, too: another text of the same credential."""
    said = {name: value for name, value in {**claims_of(LOGIN, "notes-service"), "app": "notes"}.items() if name != "jti"}
    token = place.login.sign(said)
    head, _, signature = token.rpartition(".")
    raw_bytes = base64.urlsafe_b64decode(signature + "==")
    flipped = raw_bytes[:32] + (ORDER_OF_P256 - int.from_bytes(raw_bytes[32:])).to_bytes(32)
    twin = f"{head}.{base64.urlsafe_b64encode(flipped).rstrip(b'=').decode()}"
    runs = {notes.ask(subject_token=each).json()["authorization_details"][0]["run"] for each in (token, twin)}
    assert (len(runs), token != twin) == (1, True)


def test_a_host_and_a_tool_server_get_no_tokens(notes: Notes, place: Place) -> None:
    for name in ("desk", "server"):
        assert error_of(notes.ask(**Party(notes.gate, name, place.keys[name]).asserted())) == (400, "unauthorized_client")


def test_dpop_is_checked_with_a_nonce_of_ours(notes: Notes) -> None:
    notes.ask()
    post, url = notes.gate.http.post, "/oauth2/token"

    def sent(**claims: Any) -> tuple[int, str]:
        return error_of(post(url, data=notes.form(), headers=notes.asking.proof(**claims)))

    answer = post(url, data=notes.form(), headers={"DPoP": notes.asking.key.proof("POST", f"{GATE}{url}")})
    assert (error_of(answer), bool(answer.headers["DPoP-Nonce"])) == ((400, "use_dpop_nonce"), True)
    at, _, mac = notes.asking.nonce.partition(".")
    for nonce in (f"{int(at) - 301}.{mac}", f"{at}.{mac[:-1]}0" if mac[-1] != "0" else f"{at}.{mac[:-1]}1", "x", f"{at}."):
        assert sent(nonce=nonce) == (400, "use_dpop_nonce")
    assert sent(htm="GET") == (400, "invalid_dpop_proof")
    assert sent(htu=f"{GATE}/oauth2/introspect") == (400, "invalid_dpop_proof")
    assert sent(iat=int(time.time()) - 120) == (400, "invalid_dpop_proof")
    assert sent(ath="x") == (400, "invalid_dpop_proof")
    assert error_of(post(url, data=notes.form(), headers={"DPoP": "x"})) == (400, "invalid_dpop_proof")
    several = [("DPoP", notes.asking.proof()["DPoP"]), ("DPoP", notes.asking.proof()["DPoP"])]
    assert error_of(post(url, data=notes.form(), headers=several)) == (400, "invalid_request")


def test_a_nonce_of_ours_counts_for_five_minutes() -> None:
    keys, key = KeyRing.ephemeral(), Key("dpop")
    with time_machine.travel(float(int(time.time())), tick=False) as clock:
        header = key.proof("POST", f"{GATE}/oauth2/token", nonce=fresh(keys))
        clock.shift(LIFE)
        assert proof_of(header, "POST", f"{GATE}/oauth2/token", keys).nonce
        clock.shift(1)
        with pytest.raises(RequestRefused) as refused:
            proof_of(header, "POST", f"{GATE}/oauth2/token", keys)
        assert refused.value.error == "use_dpop_nonce"
        with pytest.raises(RequestRefused):
            proof_of(key.proof("POST", GATE, nonce=fresh(KeyRing.ephemeral())), "POST", GATE, keys)


# --- hostile requests -----------------------------------------------------------------------------------------------------------
def test_requests_that_can_be_read_in_two_ways_are_refused(notes: Notes, place: Place) -> None:
    post, desk = notes.gate.http.post, Party(notes.gate, "desk", place.keys["desk"])
    form = "&".join(f"{name}={httpx.QueryParams({name: value})[name]}" for name, value in {"grant_type": EXCHANGE}.items())
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, headers, status in (
        (form + "&grant_type=x", kind, 400),
        (form + "&subject_token=a&subject_token=b", kind, 400),
        ("grant_type", kind, 400),
        ("a=%ff", kind, 400),
        ("&".join(f"a{n}=1" for n in range(40)), kind, 400),
        (form, {"Content-Type": "application/json"}, 415),
        (form, {}, 415),
        (form, {**kind, "Content-Encoding": "gzip"}, 415),
        ("a=" + "x" * 200_000, kind, 413),
    ):
        answer = post("/oauth2/token", content=body, headers=headers)
        assert error_of(answer) == (status, "invalid_request"), (body[:60], answer.text)
    assert error_of(post("/oauth2/token?grant_type=x", content=form, headers=kind)) == (400, "invalid_request")
    basic = {**kind, "Authorization": "Basic eDp5"}
    assert error_of(post("/oauth2/token", content=form, headers=basic)) == (401, "invalid_client")
    twice = {"Authorization": f"Bearer {desk.assertion()}", "Content-Type": "application/json"}
    assert error_of(post("/v1/runs", content='{"prompt":"a","prompt":"b"}', headers=twice)) == (400, "invalid_request")
    unsaid: dict[str, Any] = {"token": "x.y.z", "tool": "notes.write", "arguments": {}, "brokers": None}
    assert error_of(notes.server.post("/v1/redeem", unsaid)) == (400, "invalid_request")
    assert error_of(desk.post("/v1/runs/run_x/close", {"tenant": None})) == (400, "invalid_request")
    assert error_of(notes.gate.http.get("/oauth2/token")) == (405, "method_not_allowed")
    assert error_of(notes.gate.http.get("/nothing")) == (404, "not_found")
    assert notes.gate.http.get("/healthz", headers={"X-Long": "x" * 30_000}).status_code == 431


def raw(gate: Process, data: bytes, wait: float) -> bytes:
    """What a server answers to these bytes, until it closes the connection; b"" where it does so without a word."""
    with socket.create_connection(("127.0.0.1", gate.port), timeout=wait) as line:
        line.sendall(data)
        found = b""
        while chunk := line.recv(65536):
            found += chunk
        return found


def test_who_never_ends_a_head_or_a_body_is_disconnected(gate: Process) -> None:
    head = b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\n"
    body = head + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na="

    def ended(data: bytes) -> tuple[bytes, float]:
        began = time.monotonic()
        return raw(gate, data, 20), time.monotonic() - began

    with ThreadPoolExecutor(3) as pool:  # they wait at the same time
        nothing, half, slow = pool.map(ended, (b"", head + b"X-Slow: ", body))
    assert (nothing[0], half[0], b" 408 " in slow[0]) == (b"", b"", True)
    assert all(5 < seconds < 15 for _, seconds in (nothing, half))
    assert 4 < slow[1] < 15


def test_a_request_in_two_framings_is_refused(gate: Process) -> None:
    head = b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    both = head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert b" 200 " not in raw(gate, both, 10)
    twice = b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"
    assert b" 400 " in raw(gate, twice, 10)


def test_a_client_that_shows_a_header_beside_its_assertion_is_not_known(notes: Notes) -> None:
    """One way to be known in a request (RFC 6749 section 2.3): of two, which would count?"""
    form = notes.form("two ways")
    notes.asking.ask(form)
    answer = notes.asking.ask(form | notes.client.asserted(), {"Authorization": "Basic b3RoZXI6eA=="})
    assert error_of(answer) == (401, "invalid_client")
    assert notes.asking.ask(form | notes.client.asserted()).status_code == 200


# --- what became of a token -------------------------------------------------------------------------------------------------------
def test_introspection_tells_the_server_and_nobody_else(notes: Notes, place: Place) -> None:
    token = notes.ask("inspect").json()["access_token"]

    def active(**form: Any) -> httpx.Response:
        return notes.gate.http.post("/oauth2/introspect", data={"token": token, **notes.server.asserted(), **form})

    told = active().json()
    assert (told["active"], told["aud"], told["cnf"]) == (True, "https://notes.acme.example", {"jkt": notes.asking.key.thumbprint})
    assert active(token=token[:-2] + "xx").json() == {"active": False}
    assert error_of(active(**notes.client.asserted())) == (400, "unauthorized_client")
    assert notes.server.redeem(token, "notes.write", {"text": "inspect"}, notes.asking.key).status_code == 200
    assert active().json() == {"active": False}


def test_a_client_revokes_its_own_token_and_no_other(notes: Notes, place: Place) -> None:
    token = notes.ask("revoke").json()["access_token"]

    def revoke(party: Party) -> httpx.Response:
        return notes.gate.http.post("/oauth2/revoke", data={"token": token, **party.asserted()})

    assert revoke(Party(notes.gate, "other", place.keys["other"])).status_code == 200
    told = notes.gate.http.post("/oauth2/introspect", data={"token": token, **notes.server.asserted()}).json()
    assert told["active"] is True
    assert revoke(notes.client).status_code == 200
    assert notes.server.redeem(token, "notes.write", {"text": "revoke"}, notes.asking.key).json()["code"] == "revoked"
    assert error_of(revoke(notes.server)) == (400, "unauthorized_client")
    nobody = notes.gate.http.post("/oauth2/revoke", data={"token": token, "client_id": "job"})
    assert error_of(nobody) == (401, "invalid_client")


def test_a_spent_token_is_not_revoked(notes: Notes, place: Place) -> None:
    """It can do nothing any more; a revocation of each would only fill the store."""
    tokens = [notes.ask(text).json()["access_token"] for text in ("spent", "unspent")]
    assert notes.server.redeem(tokens[0], "notes.write", {"text": "spent"}, notes.asking.key).status_code == 200
    for token, written in zip(tokens, (0, 1), strict=True):
        assert notes.gate.http.post("/oauth2/revoke", data={"token": token, **notes.client.asserted()}).status_code == 200
        jti = jwt.decode(token, options={"verify_signature": False})["jti"]
        assert place.store.command("KEYS", f"*revoked:token:{jti}*").startswith(f"*{written}")


def test_a_client_without_keys_revokes_by_the_tokens_own_key_what_is_its_own(notes: Notes, place: Place) -> None:
    asking = Asking(notes.gate)
    own = asking.form(place.token(), detail("notes.write", "desk.notes", {"text": "by key"}), client_id="job")
    token = asking.ask(own).json()["access_token"]
    others = notes.ask("by key").json()["access_token"]

    def revoke(token: str, key: Key, url: str = f"{GATE}/oauth2/revoke") -> httpx.Response:
        proof = key.proof("POST", url, nonce=asking.nonce)
        return notes.gate.http.post("/oauth2/revoke", data={"token": token, "client_id": "job"}, headers={"DPoP": proof})

    def active(token: str) -> bool:
        told = notes.gate.http.post("/oauth2/introspect", data={"token": token, **notes.server.asserted()}).json()
        return bool(told["active"])

    assert error_of(revoke(token, Key("another"))) == (400, "invalid_dpop_proof")
    assert error_of(revoke(token, asking.key, f"{GATE}/oauth2/token")) == (400, "invalid_dpop_proof")
    assert revoke(others, notes.asking.key).status_code == 200  # of another client
    assert (active(token), active(others)) == (True, True)
    assert revoke(token, asking.key).status_code == 200
    assert (active(token), active(others)) == (False, True)


# --- a call that waits for a person -----------------------------------------------------------------------------------------------
DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"


def answered_by(place: Place, hold: str, *, release: bool) -> None:
    """A lead answers, at another gate over the same store."""
    common = {
        "root": place.root,
        "issuer": place.issuer,
        "keys": place.settings["keys"],
        "store": place.store.url,
        "identity": place.settings["identity"],
    }
    with Gate.open(place.workflows, audit=str(place.folder / "audit-2"), **common) as gate:
        said = {"tenant": "acme", "groups": ["leads"], "nonce": nonce_for(gate, hold, "acme", "release" if release else "refuse")}
        lead = OIDCToken(place.login.sign({**claims_of(LOGIN, "ana", place.issuer), **said}))
        (gate.release if release else gate.refuse)(hold, tenant="acme", by=lead)


def held(place: Place) -> str:
    """The hold that waits."""
    common = {
        "root": place.root,
        "issuer": place.issuer,
        "keys": place.settings["keys"],
        "store": place.store.url,
        "identity": place.settings["identity"],
    }
    with Gate.open(place.workflows, audit=str(place.folder / "audit-3"), **common) as gate:
        return max(gate.holds("acme"), key=lambda hold: hold.expires_at).id


def poll(notes: Notes, code: str, party: Party | None = None, asking: Asking | None = None, **more: str) -> httpx.Response:
    form = {"grant_type": DEFERRED, "deferral_code": code, **(party or notes.client).asserted(), **more}
    asking = asking or notes.asking
    asking.nonce = notes.asking.nonce
    return notes.gate.http.post("/oauth2/token", data=form, headers=asking.proof())


def test_a_call_that_waits_is_deferred_until_it_is_released(notes: Notes, place: Place) -> None:
    text = {"urgent": "yes"}
    answer = notes.ask("deferred", arguments=text, completion_mode="deferred")
    assert error_of(answer) == (400, "authorization_pending")
    code = answer.json()["deferral_code"]
    assert (0 < answer.json()["expires_in"] <= 600, answer.json()["interval"]) == (True, 5)
    assert error_of(poll(notes, code, Party(notes.gate, "other", place.keys["other"]))) == (400, "invalid_grant")
    assert error_of(poll(notes, code, asking=Asking(notes.gate, Key("thief")))) == (400, "invalid_dpop_proof")
    assert error_of(poll(notes, "made-up.acme")) == (400, "invalid_grant")
    assert error_of(poll(notes, code, scope="notes:write")) == (400, "invalid_request")  # it would narrow nothing
    assert error_of(poll(notes, code)) == (400, "authorization_pending")
    assert error_of(poll(notes, code)) == (400, "slow_down")
    answered_by(place, held(place), release=True)
    other = notes.ask("deferred, too", arguments=text, completion_mode="deferred").json()["deferral_code"]
    answered_by(place, held(place), release=True)

    def run(code: str, written: str) -> None:
        answer = poll(notes, code)
        assert answer.status_code == 200, (answer.text, notes.gate.log()[-1])
        redeemed = notes.server.redeem(answer.json()["access_token"], "notes.write", {"text": written, **text}, notes.asking.key)
        assert redeemed.status_code == 200, redeemed.text

    run(other, "deferred, too")
    time.sleep(5.1)  # the gate's pace, for both
    run(code, "deferred")
    assert error_of(poll(notes, other)) == (400, "access_denied")  # decided again: it ran


def test_a_code_of_a_tenant_that_its_client_is_no_more_of_is_none(notes: Notes, place: Place) -> None:
    code = notes.ask("moved", arguments={"urgent": "yes"}, completion_mode="deferred").json()["deferral_code"]
    clients = {**place.settings["clients"], "notes": {**place.settings["clients"]["notes"], "tenants": ["northwind"]}}
    with served(place.folder, {**place.settings, "clients": clients, "audit": str(place.folder / "audit-moved")}) as moved:
        moved_notes = Notes(place, moved)
        assert error_of(poll(moved_notes, code, asking=Asking(moved, notes.asking.key))) == (400, "invalid_grant")
        assert moved.log()[-1]["reasons"][0]["field"] == "deferral_code"
    for made_up in ("", ".", "x.", ".acme", "x.{acme}", "x.acme.acme", "x." + "a" * 300):
        assert error_of(poll(notes, made_up)) == (400, "invalid_grant"), made_up
    assert error_of(poll(notes, code)) == (400, "authorization_pending")


def test_who_is_known_by_a_credential_alone_waits_only_with_a_key(notes: Notes, place: Place) -> None:
    """Else whoever got hold of the code would be the client."""
    asked = detail("notes.write", "desk.notes", {"text": "job", "urgent": "yes"}, tool_call_id="job")
    form = notes.asking.form(place.token(), asked, client_id="job", completion_mode="deferred")
    assert error_of(notes.asking.ask(form, prove=False)) == (400, "access_denied")
    waiting = notes.asking.ask({**form, "subject_token": place.token()})
    assert error_of(waiting) == (400, "authorization_pending")
    code = {"grant_type": DEFERRED, "deferral_code": waiting.json()["deferral_code"], "client_id": "job"}
    assert error_of(notes.gate.http.post("/oauth2/token", data=code)) == (400, "invalid_dpop_proof")
    known = notes.form("its own key", arguments={"urgent": "yes"}, completion_mode="deferred")
    assert error_of(notes.asking.ask(known, prove=False)) == (400, "authorization_pending")


def test_a_call_that_a_person_refused_gets_no_token(notes: Notes, place: Place) -> None:
    answer = notes.ask("refused", arguments={"urgent": "yes"}, completion_mode="deferred")
    answered_by(place, held(place), release=False)
    assert error_of(poll(notes, answer.json()["deferral_code"])) == (400, "access_denied")
