"""Attacks that a tool server and a gate must refuse, over HTTP, for their operators (`agentgate
probe`).

Rules: the list is fixed. Each row is one request, made from a genuine one by one change, and
the statuses that refuse it for that change; any other answer is not a refusal, an error of the
server too. No row follows a redirect. Rows that can be answered only after the genuine request
ran come last, and only where that is asked for.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import orjson

from agentgate.token.dpop import PROOF_TYPE
from agentgate.token.jws import b64url, unb64url
from agentgate.token.signing import RunKey, SigningKey
from agentgate.values.value_class import value_class

_SECONDS = 15.0
_HUGE = 2 * 1024 * 1024
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
Headers = tuple[tuple[str, str], ...]


@value_class
class Sent:
    """One request. `headers` in order, so that one can be there twice; `chunked`: without a
    length.
    """

    method: str
    url: str
    headers: Headers = field(repr=False)
    content: bytes = field(default=b"", repr=False)
    chunked: bool = False

    def having(self, **named: str | None) -> Sent:
        """With headers replaced (``content_type=...``), or left out (None)."""
        names = {name.replace("_", "-").lower(): value for name, value in named.items()}
        kept = tuple((name, value) for name, value in self.headers if name.lower() not in names)
        return replace(
            self,
            headers=(
                *kept,
                *((name, value) for name, value in names.items() if value is not None),
            ),
        )

    def also(self, name: str, value: str) -> Sent:
        """With one header more, be it there already."""
        return replace(self, headers=(*self.headers, (name, value)))


@value_class
class Probe:
    """One attack: its name, its request, and the statuses that refuse it.

    Attributes:
        refused: 200 for the genuine request, which must pass.
        keyless: it passes at a gate whose workflow binds tokens to no key.
    """

    name: str
    sent: Sent
    refused: frozenset[int]
    keyless: bool = False


@value_class
class Verdict:
    """What became of one attack. `status` 0: the connection was closed."""

    name: str
    status: int
    expected: tuple[int, ...]
    holds: bool
    keyless: bool = False

    @property
    def word(self) -> str:
        """refused, passed, or unclear: another answer than a refusal for this reason."""
        if self.holds:
            return "as expected" if 200 in self.expected else "refused"
        if 200 <= self.status < 400 and 200 not in self.expected:
            return "PASSED"
        return "unclear"


def carried_out(
    probes: Sequence[Probe], http: httpx.Client, reached: Callable[[str], str] = str
) -> Iterator[Verdict]:
    """Send them one after the other; `reached` says where a URL is reached.

    Raises:
        httpx.HTTPError: the server cannot be reached.
    """
    for probe in probes:
        status = _status(replace(probe.sent, url=reached(probe.sent.url)), http)
        # an endless body is cut off, perhaps before the answer arrives
        closed = status == 0 and probe.sent.chunked
        expected = tuple(sorted(probe.refused))
        passes = 200 in expected and 200 <= status < 300
        holds = closed or passes or status in expected
        yield Verdict(probe.name, status, expected, holds, probe.keyless)


def _status(sent: Sent, http: httpx.Client) -> int:
    content: Any = (
        (sent.content[at : at + 65536] for at in range(0, len(sent.content), 65536))
        if sent.chunked
        else sent.content
    )
    request = http.build_request(
        sent.method, sent.url, headers=list(sent.headers), content=content, timeout=_SECONDS
    )
    try:
        answer = http.send(request, stream=True, follow_redirects=False)
    except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
        return 0
    answer.close()  # its body says nothing here
    return answer.status_code


def _rows(attacks: Mapping[str, Sent]) -> Iterator[Probe]:
    """Of ``400 403: name``; `keyless` in front of the statuses where it is."""
    for row, sent in attacks.items():
        told, _, name = row.partition(": ")
        statuses = told.removeprefix("keyless ")
        yield Probe(name, sent, frozenset(map(int, statuses.split())), statuses != told)


# --- a tool server ----------------------------------------------------------------------------


@value_class
class GenuineRequest:
    """The request that a tool server would execute: with an unspent token, and the key it is
    bound to.
    """

    method: str
    url: str
    content: bytes
    token: str = field(repr=False)
    key: RunKey = field(repr=False)

    def sent(self, **more: Any) -> Sent:
        """The request with a proof; `token`, `key`, `method` and `url` of the proof may be
        others.
        """
        token = more.get("token", self.token)
        key = more.get("key", self.key)
        proof = key.proof(
            more.get("method", self.method),
            more.get("url", self.url),
            token,
            more.get("now", time.time()),
        )
        own = (("Content-Type", JSON),) if self.content else ()
        return Sent(
            self.method,
            self.url,
            (("Authorization", f"DPoP {token}"), ("DPoP", proof), *own),
            self.content,
        )


def tool_attacks(genuine: GenuineRequest, *, spend: bool) -> list[Probe]:
    """The attacks on a tool server; with `spend`, at the end, the genuine request (its tool
    runs) and its replay.
    """
    sent = genuine.sent()
    other = genuine.url.rpartition("/")[0] + "/probe"
    query = "&" if urlsplit(genuine.url).query else "?"
    attacks = {
        "401: no token": sent.having(authorization=None, dpop=None),
        "401: no proof": sent.having(dpop=None),
        "401: sent as a bearer token": sent.having(
            authorization=f"Bearer {genuine.token}", dpop=None
        ),
        "400: token in the query": replace(
            sent, url=f"{genuine.url}{query}access_token={genuine.token}"
        ).having(authorization=None),
        "400: two tokens": sent.also("Authorization", f"Bearer {genuine.token}"),
        "400 401: two proofs": _twice(sent),
        **_forgeries(genuine, sent),
        "400 403: a parameter more": replace(sent, url=f"{genuine.url}{query}probe=1"),
        "400 403: a parameter twice": replace(sent, url=f"{genuine.url}{query}probe=1&probe=2"),
        "401 403 404 405: another method": replace(
            genuine.sent(method="OPTIONS"), method="OPTIONS"
        ),
        "401 403 404 405: HEAD": replace(
            genuine.sent(method="HEAD"), method="HEAD", content=b""
        ),
        "400 403: method in a header": sent.also("X-HTTP-Method-Override", "DELETE"),
        "400 403: path in a header": sent.also("X-Original-URL", "/"),
        **_oversized(sent, b" " * _HUGE + genuine.content),
        **_bodies(genuine, sent),
        "400 403 404: another path": replace(genuine.sent(url=other), url=other),
    }
    if spend:
        attacks |= {
            "200: the request itself": sent,
            "401: replayed": sent,
            "401: replayed with a fresh proof": genuine.sent(),
        }
    return list(_rows(attacks))


def _forgeries(genuine: GenuineRequest, sent: Sent) -> dict[str, Sent]:
    """The genuine request with a forged token, or with a proof of something else."""
    of_another = genuine.key.proof(genuine.method, genuine.url, "a.b.c", time.time())
    unsigned = _unsigned(dict(sent.headers)["DPoP"], PROOF_TYPE)
    return {
        **{
            f"401: {name}": genuine.sent(token=token)
            for name, token in forged(genuine.token).items()
        },
        "401: proof of another key": genuine.sent(key=RunKey.generate()),
        "401: proof for another method": genuine.sent(method="PATCH"),
        "401: proof for another URL": genuine.sent(url=genuine.url.rstrip("/") + "/x"),
        "401: proof of an hour ago": genuine.sent(now=time.time() - 3600),
        "401: proof of another token": sent.having(dpop=of_another),
        "401: proof with alg none": sent.having(dpop=unsigned),
    }


def _bodies(genuine: GenuineRequest, sent: Sent) -> dict[str, Sent]:
    value = orjson.loads(genuine.content) if genuine.content else {}
    if type(value) is not dict or not value:
        body = replace(sent.having(content_type=JSON), content=b'{"probe":1}')
        return {"400 403: a body where none belongs": body}
    name, first = next(iter(value.items()))
    twice = genuine.content.rstrip()[:-1] + b"," + orjson.dumps({name: first})[1:]
    form = urlencode(value).encode()

    def carrying(body: Mapping[str, Any]) -> Sent:
        return replace(sent, content=orjson.dumps(body))

    return {
        **{
            f"403: argument {key} changed": carrying({**value, key: _changed(given)})
            for key, given in value.items()
        },
        "400 403: an argument less": carrying(
            {key: given for key, given in value.items() if key != name}
        ),
        "400 403: a member more": carrying({**value, "probe": 1}),
        "400: a member twice": replace(sent, content=twice),
        "400: no JSON": replace(sent, content=b"{"),
        "400 415: as text/plain": sent.having(content_type="text/plain"),
        "400 415: as a form": replace(sent.having(content_type=FORM), content=form),
        **_compressed(sent),
    }


def _oversized(sent: Sent, huge: bytes) -> dict[str, Sent]:
    """More than any server should read: a body, told or not, and headers."""
    headers = tuple((f"X-Probe-{n}", "1") for n in range(100))
    return {
        "400 413: a huge body": replace(sent, content=huge),
        "400 413: a huge body without length": replace(sent, content=huge, chunked=True),
        "400 431: a hundred headers": replace(sent, headers=(*sent.headers, *headers)),
    }


def _compressed(sent: Sent) -> dict[str, Sent]:
    packed = gzip.compress(sent.content)
    return {
        "400 415: compressed": replace(sent.having(content_encoding="gzip"), content=packed)
    }


def _twice(sent: Sent) -> Sent:
    return sent.also("DPoP", dict(sent.headers)["DPoP"])


def _changed(value: Any) -> Any:
    if type(value) is str:
        return value + "0"
    return (
        value + 1
        if type(value) in {int, float}
        else not value
        if type(value) is bool
        else [value]
    )


# --- forged tokens ----------------------------------------------------------------------------


def forged(token: str) -> dict[str, str]:
    """A JWT with its signature broken, its algorithm exchanged, its claims changed; by name."""
    header, payload, signature = token.split(".")
    head = orjson.loads(unb64url(header.encode()))
    claims = orjson.loads(unb64url(payload.encode()))
    own = SigningKey.generate()
    symmetric = _encoded({**head, "alg": "HS256"}) + "." + payload
    mac = b64url(
        hmac.new(str(head.get("kid", "")).encode(), symmetric.encode(), hashlib.sha256).digest()
    ).decode()
    mine = {
        "typ": head.get("typ", "JWT"),
        "alg": "ES256",
        "kid": head.get("kid", ""),
        "jwk": own.public_jwk(),
    }
    changes = {
        "aud": "https://probe.example",
        "iss": "https://probe.example",
        "exp": int(time.time()) + 86400,
        "sub": "probe",
    }
    unsigned = _encoded({**head, "alg": "none"})
    other = ("B" if signature[0] == "A" else "A") + signature[1:]
    changed = {
        f"{name} changed": f"{header}.{_encoded({**claims, name: value})}.{signature}"
        for name, value in changes.items()
    }
    return {
        "alg none": f"{unsigned}.{payload}.",
        "alg none, signature kept": f"{unsigned}.{payload}.{signature}",
        "HS256 by a public value": f"{symmetric}.{mac}",
        "signature changed": f"{header}.{payload}.{other}",
        "no signature": f"{header}.{payload}.",
        **changed,
        "signed by a key of its own header": _signed(own, mine, payload),
        "signed by another key": _signed(own, head, payload),
        "token padded": f"{token}=",
    }


def _encoded(value: Mapping[str, Any]) -> str:
    return b64url(orjson.dumps(value)).decode()


def _signed(key: SigningKey, header: Mapping[str, Any], payload: str) -> str:
    signed = _encoded(header) + "." + payload
    return f"{signed}.{b64url(key.sign(signed.encode())).decode()}"


def _unsigned(jwt: str, typ: str) -> str:
    header, payload, _ = jwt.split(".")
    return (
        _encoded({**orjson.loads(unb64url(header.encode())), "alg": "none", "typ": typ})
        + f".{payload}."
    )


# --- a gate -----------------------------------------------------------------------------------


@value_class
class TokenRequest:
    """A form for a gate's token endpoint, and what makes a proof for it: ``proof(key=...,
    url=..., method=..., nonce=...)``, each of them optional.
    """

    address: str
    form: Mapping[str, str] = field(repr=False)
    proof: Callable[..., str]

    def sent(self, *, header: str = "", encoded: str = "", **changes: str | None) -> Sent:
        """The request with a fresh proof, or another `header`, and with parameters changed, or
        left out (None); or with another body.
        """
        fields = {
            name: value for name, value in {**self.form, **changes}.items() if value is not None
        }
        headers = (("Content-Type", FORM), ("DPoP", header or self.proof()))
        content = (encoded or urlencode(fields)).encode()
        return Sent("POST", self.address + "/oauth2/token", headers, content)


def gate_attacks(
    address: str,
    form: Mapping[str, str],
    proof: Callable[..., str],
    *,
    genuine: bool,
    spend: bool,
) -> list[Probe]:
    """The attacks on a gate's token endpoint. With a `genuine` form each is that form with one
    change; without, what anybody can send. `proof`: as of `TokenRequest`.
    """
    request = TokenRequest(address, form, proof)
    sent = request.sent()
    attacks = _by_anybody(request, sent)
    if genuine:
        attacks |= _changed_proofs(request, sent) | _changed_calls(request)
    if genuine and spend:
        other = request.sent(header=proof(key=RunKey.generate()))
        attacks |= {
            "200: the exchange itself": sent,
            "400: the same credential with another key": other,
        }
    return list(_rows(attacks))


def _by_anybody(request: TokenRequest, sent: Sent) -> dict[str, Sent]:
    """What is no form, or one that can be read in two ways; who asks as somebody else, or as
    nobody.
    """
    form = request.form
    whole = sent.content.decode()
    in_query = f"{sent.url}?{whole}"
    grant_twice = f"{whole}&grant_type={form['grant_type']}"
    as_json = replace(sent.having(content_type=JSON), content=orjson.dumps(dict(form)))
    assertion = _assertion(form["client_id"], request.address)
    return {
        "400 401: nothing": replace(sent, content=b""),
        "400 404 405: GET": Sent("GET", in_query, ()),
        "400 401: parameters in the query": replace(sent, url=in_query, content=b""),
        "400: a parameter twice": request.sent(encoded=grant_twice),
        "400: the subject twice": request.sent(encoded=f"{whole}&subject_token=x"),
        "400 415: as JSON": as_json,
        **_compressed(sent),
        **_oversized(sent, sent.content + b"&x=" + b"x" * _HUGE),
        "400 401: an unknown client": request.sent(client_id="probe"),
        "400 401: no client": request.sent(client_id=None),
        "400 401: another grant": request.sent(grant_type="client_credentials"),
        "400 401: no subject": request.sent(subject_token=None),
        "400 401: an assertion that nobody signed": request.sent(**assertion),
        **{
            f"400 401: subject: {name}": request.sent(subject_token=token)
            for name, token in forged(form["subject_token"]).items()
        },
        **_without_client(request.address),
    }


def _without_client(address: str) -> dict[str, Sent]:
    kinds = {
        "/v1/runs": JSON,
        "/v1/redeem": JSON,
        "/oauth2/introspect": FORM,
        "/oauth2/revoke": FORM,
        "/events": JSON,
    }
    return {
        f"400 401 403 404 405 415: {path} without a client": Sent(
            "POST", address + path, (("Content-Type", kind),), b"{}"
        )
        for path, kind in kinds.items()
    }


def _changed_proofs(request: TokenRequest, sent: Sent) -> dict[str, Sent]:
    """The genuine form without a proof, or with one of something else."""
    proof = request.proof
    elsewhere = proof(url="https://probe.example/oauth2/token")
    return {
        "keyless 400: no proof": sent.having(dpop=None),
        "400: proof for another URL": request.sent(header=elsewhere),
        "400: proof for another method": request.sent(header=proof(method="GET")),
        "400: proof of an hour ago": request.sent(header=proof(now=time.time() - 3600)),
        "400: proof with alg none": request.sent(header=_unsigned(proof(), PROOF_TYPE)),
        "400: proof with a nonce of its own": request.sent(header=proof(nonce="1.probe")),
        "400: two proofs": _twice(sent),
    }


def _changed_calls(request: TokenRequest) -> dict[str, Sent]:
    """The genuine form for another call, or for none that can be read in one way."""
    details = request.form["authorization_details"]
    (detail,) = orjson.loads(details)

    def asking(*calls: Mapping[str, Any]) -> Sent:
        return request.sent(authorization_details=orjson.dumps(calls).decode())

    return {
        "400: two calls": asking(detail, detail),
        "400: a member twice": request.sent(
            authorization_details='[{"identifier":"probe",' + details.lstrip(" [{")
        ),
        "400: an unknown member": asking({**detail, "probe": 1}),
        "400: an unknown tool": asking({**detail, "identifier": "probe"}),
        "400: another workflow": asking({**detail, "workflow": {"id": "probe"}}),
        "400: another tenant": asking({**detail, "tenant": "probe"}),
        "400: a run of somebody else": asking({**detail, "run": "run_probe"}),
        "400: a broader scope": request.sent(scope="probe:everything"),
        "400: another target": request.sent(resource="https://probe.example"),
    }


def _assertion(client: str, address: str) -> dict[str, str]:
    claims = {
        "iss": client,
        "sub": client,
        "aud": address,
        "iat": int(time.time()),
        "exp": int(time.time()) + 60,
        "jti": "probe",
    }
    text = _encoded({"alg": "none", "typ": "JWT"}) + "." + _encoded(claims) + "."
    return {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": text,
    }
