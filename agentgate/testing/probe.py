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
        control: the genuine request, which must pass.
        keyless: it passes at a gate whose workflow binds tokens to no key.
    """

    name: str
    sent: Sent
    refused: frozenset[int]
    control: bool = False
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
            return "refused" if 200 not in self.expected else "as expected"
        return "PASSED" if 200 <= self.status < 400 and 200 not in self.expected else "unclear"


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
        holds = closed or (200 <= status < 300 if probe.control else status in probe.refused)
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


def _row(name: str, sent: Sent, *refused: int) -> Probe:
    return Probe(name, sent, frozenset(refused))


def _rows(attacks: Mapping[str, Sent], *refused: int) -> list[Probe]:
    return [_row(name, sent, *refused) for name, sent in attacks.items()]


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
    rows = [
        _row("no token", sent.having(authorization=None, dpop=None), 401),
        _row("no proof", sent.having(dpop=None), 401),
        _row(
            "sent as a bearer token",
            sent.having(authorization=f"Bearer {genuine.token}", dpop=None),
            401,
        ),
        _row(
            "token in the query",
            replace(sent, url=f"{genuine.url}{query}access_token={genuine.token}").having(
                authorization=None
            ),
            400,
        ),
        _row("two tokens", sent.also("Authorization", f"Bearer {genuine.token}"), 400),
        _row("two proofs", sent.also("DPoP", dict(sent.headers)["DPoP"]), 400, 401),
        *_rows(_forgeries(genuine, sent), 401),
        _row("a parameter more", replace(sent, url=f"{genuine.url}{query}probe=1"), 400, 403),
        _row(
            "a parameter twice",
            replace(sent, url=f"{genuine.url}{query}probe=1&probe=2"),
            400,
            403,
        ),
        _row(
            "another method",
            replace(genuine.sent(method="OPTIONS"), method="OPTIONS"),
            401,
            403,
            404,
            405,
        ),
        _row(
            "HEAD",
            replace(genuine.sent(method="HEAD"), method="HEAD", content=b""),
            401,
            403,
            404,
            405,
        ),
        _row("method in a header", sent.also("X-HTTP-Method-Override", "DELETE"), 400, 403),
        _row("path in a header", sent.also("X-Original-URL", "/"), 400, 403),
        *_oversized(sent, b" " * _HUGE + genuine.content),
        *_bodies(genuine, sent),
        _row("another path", replace(genuine.sent(url=other), url=other), 400, 403, 404),
    ]
    if spend:
        rows += [
            Probe("the request itself", sent, frozenset({200}), control=True),
            _row("replayed", sent, 401),
            _row("replayed with a fresh proof", genuine.sent(), 401),
        ]
    return rows


def _forgeries(genuine: GenuineRequest, sent: Sent) -> dict[str, Sent]:
    """The genuine request with a forged token, or with a proof of something else."""
    tokens = forged(genuine.token)
    of_another = genuine.key.proof(genuine.method, genuine.url, "a.b.c", time.time())
    unsigned = _unsigned(dict(sent.headers)["DPoP"], PROOF_TYPE)
    return {
        **{name: genuine.sent(token=token) for name, token in tokens.items()},
        "proof of another key": genuine.sent(key=RunKey.generate()),
        "proof for another method": genuine.sent(method="PATCH"),
        "proof for another URL": genuine.sent(url=genuine.url.rstrip("/") + "/x"),
        "proof of an hour ago": genuine.sent(now=time.time() - 3600),
        "proof of another token": sent.having(dpop=of_another),
        "proof with alg none": sent.having(dpop=unsigned),
    }


def _bodies(genuine: GenuineRequest, sent: Sent) -> list[Probe]:
    value = orjson.loads(genuine.content) if genuine.content else {}
    if type(value) is not dict or not value:
        return [
            _row(
                "a body where none belongs",
                replace(sent.having(content_type=JSON), content=b'{"probe":1}'),
                400,
                403,
            )
        ]
    name, first = next(iter(value.items()))
    twice = genuine.content.rstrip()[:-1] + b"," + orjson.dumps({name: first})[1:]

    def carrying(body: Mapping[str, Any]) -> Sent:
        return replace(sent, content=orjson.dumps(body))

    changed = {
        f"argument {key} changed": carrying({**value, key: _changed(value[key])})
        for key in value
    }
    less = {key: given for key, given in value.items() if key != name}
    return [
        *_rows(changed, 403),
        _row("an argument less", carrying(less), 400, 403),
        _row("a member more", carrying({**value, "probe": 1}), 400, 403),
        _row("a member twice", replace(sent, content=twice), 400),
        _row("no JSON", replace(sent, content=b"{"), 400),
        _row("as text/plain", sent.having(content_type="text/plain"), 400, 415),
        _row(
            "as a form",
            replace(sent.having(content_type=FORM), content=urlencode(value).encode()),
            400,
            415,
        ),
        _compressed(sent),
    ]


def _oversized(sent: Sent, huge: bytes) -> list[Probe]:
    """More than any server should read: a body, told or not, and headers."""
    headers = tuple((f"X-Probe-{n}", "1") for n in range(100))
    return [
        _row("a huge body", replace(sent, content=huge), 400, 413),
        _row("a huge body without length", replace(sent, content=huge, chunked=True), 400, 413),
        _row("a hundred headers", replace(sent, headers=(*sent.headers, *headers)), 400, 431),
    ]


def _compressed(sent: Sent) -> Probe:
    return _row(
        "compressed",
        replace(sent.having(content_encoding="gzip"), content=gzip.compress(sent.content)),
        400,
        415,
    )


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
        fields = {k: v for k, v in {**self.form, **changes}.items() if v is not None}
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
    rows = _by_anybody(request, sent)
    if genuine:
        rows += [*_changed_proofs(request, sent), *_rows(_changed_calls(request), 400)]
    if genuine and spend:
        rows += [
            Probe("the exchange itself", sent, frozenset({200}), control=True),
            _row(
                "the same credential with another key",
                request.sent(header=proof(key=RunKey.generate())),
                400,
            ),
        ]
    return rows


def _by_anybody(request: TokenRequest, sent: Sent) -> list[Probe]:
    """What is no form, or one that can be read in two ways; who asks as somebody else, or as
    nobody.
    """
    form = request.form
    whole = sent.content.decode()
    in_query = f"{sent.url}?{whole}"
    grant_twice = f"{whole}&grant_type={form['grant_type']}"
    as_json = replace(sent.having(content_type=JSON), content=orjson.dumps(dict(form)))
    assertion = _assertion(form["client_id"], request.address)
    strangers = {
        "an unknown client": request.sent(client_id="probe"),
        "no client": request.sent(client_id=None),
        "another grant": request.sent(grant_type="client_credentials"),
        "no subject": request.sent(subject_token=None),
        "an assertion that nobody signed": request.sent(**assertion),
        **{
            f"subject: {name}": request.sent(subject_token=token)
            for name, token in forged(form["subject_token"]).items()
        },
    }
    return [
        _row("nothing", replace(sent, content=b""), 400, 401),
        _row("GET", Sent("GET", in_query, ()), 400, 404, 405),
        _row("parameters in the query", replace(sent, url=in_query, content=b""), 400, 401),
        _row("a parameter twice", request.sent(encoded=grant_twice), 400),
        _row("the subject twice", request.sent(encoded=f"{whole}&subject_token=x"), 400),
        _row("as JSON", as_json, 400, 415),
        _compressed(sent),
        *_oversized(sent, sent.content + b"&x=" + b"x" * _HUGE),
        *_rows(strangers, 400, 401),
        *_rows(_without_client(request.address), 400, 401, 403, 404, 405, 415),
    ]


def _without_client(address: str) -> dict[str, Sent]:
    kinds = {
        "/v1/runs": JSON,
        "/v1/redeem": JSON,
        "/oauth2/introspect": FORM,
        "/oauth2/revoke": FORM,
        "/events": JSON,
    }
    return {
        f"{path} without a client": Sent(
            "POST", address + path, (("Content-Type", kind),), b"{}"
        )
        for path, kind in kinds.items()
    }


def _changed_proofs(request: TokenRequest, sent: Sent) -> list[Probe]:
    """The genuine form without a proof, or with one of something else."""
    proof = request.proof
    others = {
        "proof for another URL": proof(url="https://probe.example/oauth2/token"),
        "proof for another method": proof(method="GET"),
        "proof of an hour ago": proof(now=time.time() - 3600),
        "proof with alg none": _unsigned(proof(), PROOF_TYPE),
        "proof with a nonce of its own": proof(nonce="1.probe"),
    }
    return [
        replace(_row("no proof", sent.having(dpop=None), 400), keyless=True),
        *_rows({name: request.sent(header=other) for name, other in others.items()}, 400),
        _row("two proofs", sent.also("DPoP", dict(sent.headers)["DPoP"]), 400),
    ]


def _changed_calls(request: TokenRequest) -> dict[str, Sent]:
    """The genuine form for another call, or for none that can be read in one way."""
    details = request.form["authorization_details"]
    (detail,) = orjson.loads(details)

    def asking(*calls: Mapping[str, Any]) -> Sent:
        return request.sent(authorization_details=orjson.dumps(calls).decode())

    return {
        "two calls": asking(detail, detail),
        "a member twice": request.sent(
            authorization_details='[{"identifier":"probe",' + details.lstrip(" [{")
        ),
        "an unknown member": asking({**detail, "probe": 1}),
        "an unknown tool": asking({**detail, "identifier": "probe"}),
        "another workflow": asking({**detail, "workflow": {"id": "probe"}}),
        "another tenant": asking({**detail, "tenant": "probe"}),
        "a run of somebody else": asking({**detail, "run": "run_probe"}),
        "a broader scope": request.sent(scope="probe:everything"),
        "another target": request.sent(resource="https://probe.example"),
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
