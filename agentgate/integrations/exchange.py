"""The caller's side of a token exchange (RFC 8693, RFC 9396; RFC 9449 or RFC 8705): the form
for one call, and what a gate answers.

Rules: one exchange is one call, and its token is for that call and that key or certificate
alone. An answer that is not for the call asked for, or not bound to the key that was proven or
the certificate that was shown, is refused. Neither token nor credential is in a representation,
an error or a log.

One token is asked for until there is an answer (`asking`): with the gate's nonce, and, where a
person must be asked, until they answered. Each request has credentials and an assertion of its own.
While a call waits, the gate is asked at its own interval, five seconds more after each `slow_down`
(RFC 8628 section 3.5), and less and less often while it does not answer, until the hold ends.
Nothing is asked after that. Whoever sends the requests may stop at any pause: the call stays held,
and no token is made. No I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import field, replace
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import orjson

from agentgate.errors import AgentGateError, ConfigError, TokenRefused
from agentgate.identity.credential import X509_SVID
from agentgate.integrations.client_certificate import ClientCertificate
from agentgate.token.dpop import target, token_hash
from agentgate.token.jws import split
from agentgate.token.mint import DETAIL_TYPE
from agentgate.token.signing import RunKey
from agentgate.values.urls import is_secure
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

Secret = Callable[[], str]  # what is asked for it when it is sent
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
JWT = "urn:ietf:params:oauth:token-type:jwt"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_ANSWER = 64 * 1024  # bytes


class ExchangeRefused(AgentGateError):
    """A gate gave no token.

    Attributes:
        status: of its answer; 0: the answer is none of a gate's.
        error: a code of RFC 6749 and its extensions.
        description: the gate's word for why, e.g. ``not_permitted`` or ``needs_approval``; may
            be empty.
    """

    def __init__(self, status: int, error: str, description: str = "") -> None:
        self.status = status
        self.error = visible(error)[:80]
        self.description = visible(description)[:200]
        super().__init__(
            f"the gate gave no token: {self.error}"
            + (f" ({self.description})" if self.description else "")
        )


@value_class
class AskedFor:
    """One call that a token is asked for.

    Attributes:
        tool, workflow, arguments: of the call.
        run: the run that a host opened; None: the workflow has no prompt, and the credential
            itself opens it.
        tool_call_id: of the runtime; None: the same act again is the same call.
        tenant: where the client serves several.
        resource, scope: checked by the gate where given (RFC 8707, RFC 6749 section 3.3).
    """

    tool: str
    workflow: str
    arguments: Mapping[str, Any]
    run: str | None = None
    tool_call_id: str | None = None
    tenant: str | None = None
    resource: str | None = None
    scope: str | None = None


@value_class
class Credentials:
    """Functions that return what proves who asks, fresh for each exchange; for an X.509-SVID,
    the certificate.

    Attributes:
        client_id: the client's name at the gate.
        subject: the user's token; without an `actor` the agent's own.
        actor: the agent's token, where it works for a user.
        client_assertion: a `private_key_jwt` (RFC 7523), where the client has a key at the gate
            (`ClientKey.assertion`). It counts once: it is called for each request.
        attestation: a signed statement about posture, where the workflow asks for one.
        delegation: the hops over which the work came, the first broker's first, with spaces
            between them.
    """

    client_id: str
    subject: Secret | ClientCertificate = field(repr=False)
    actor: Secret | ClientCertificate | None = field(default=None, repr=False)
    client_assertion: Secret | None = field(default=None, repr=False)
    attestation: Secret | None = field(default=None, repr=False)
    delegation: Secret | None = field(default=None, repr=False)

    def form(self) -> dict[str, str]:
        """The parameters that prove who asks."""
        form = {"client_id": self.client_id}
        for name, shown in (("subject", self.subject), ("actor", self.actor)):
            if isinstance(shown, ClientCertificate):
                form |= {f"{name}_token": shown.thumbprint, f"{name}_token_type": X509_SVID}
            elif shown:
                form |= {f"{name}_token": shown(), f"{name}_token_type": JWT}
        if self.client_assertion:
            form |= {
                "client_assertion": self.client_assertion(),
                "client_assertion_type": ASSERTION,
            }
        for name, said in (("attestation", self.attestation), ("delegation", self.delegation)):
            if said:
                form[name] = said()
        return form


@value_class
class ExchangedToken:
    """A token for one call; its text is in `reveal` and `headers` alone. `definition`: the
    tool's digest that it was decided for.
    """

    _open: Secret  # in a closure, as in `CallToken`
    _key: RunKey | None  # None: it is for a certificate
    audience: str
    definition: str = ""

    def reveal(self) -> str:
        """The JWT. Do not log, store or trace it."""
        return self._open()

    def headers(self, method: str, url: str) -> dict[str, str]:
        """The headers of one request to the server that the token is for.

        Raises:
            ExchangeRefused: the URL is another server's, or shows no certificate
                (`invalid_target`); nothing was sent.
        """
        if origin_of(url) != origin_of(self.audience):
            raise ExchangeRefused(
                0,
                "invalid_target",
                f"the token is for {origin_of(self.audience)}, the request goes to {origin_of(url)}",
            )
        text = self._open()
        if not self._key:  # as Bearer, without a proof (RFC 8705 section 3)
            if not origin_of(url).startswith("https:"):
                raise ExchangeRefused(
                    0,
                    "invalid_target",
                    f"the token is for a certificate, and {origin_of(url)} is asked without TLS",
                )
            return {"Authorization": f"Bearer {text}"}
        proof = self._key.proof_for(token_hash(text), method=method, url=url, now=time.time())
        return {"Authorization": f"DPoP {text}", "DPoP": proof}

    def __repr__(self) -> str:
        return f"<ExchangedToken for {self.audience}>"


class TokenEndpoint:
    """One gate's token endpoint, and the key or certificate whose tokens are asked for."""

    def __init__(
        self,
        gate: str,
        key: RunKey | None,
        *,
        certificate: ClientCertificate | None = None,
        address: str | None = None,
    ) -> None:
        """A gate by its issuer URL.

        Args:
            gate: its issuer.
            key: of the caller; each token is bound to it. None: to the certificate.
            certificate: of the caller; whoever sends the requests shows it in TLS.
            address: where the gate is reached, if not at its issuer (a tunnel, a side-car).

        Raises:
            ConfigError: a URL that is neither https nor loopback (with a certificate: not
                https): credentials are sent there; or neither key nor certificate.
        """
        check_gate(gate, address)
        if certificate and not origin_of(address or gate).startswith("https:"):
            raise ConfigError(
                "address" if address else "gate",
                address or gate,
                "https: a certificate is shown in TLS",
            )
        if not key and not certificate:
            raise ConfigError(
                "key", None, "a key, or a certificate, that the tokens are bound to"
            )
        self._key = key
        self.certificate = certificate
        self.audience = gate.removesuffix("/") + "/oauth2/token"
        self.url = (address or gate).removesuffix("/") + "/oauth2/token"
        self._nonce: str | None = None

    def form(
        self, asked: AskedFor, who: Credentials, *, deferred: bool = False
    ) -> dict[str, str]:
        """The parameters of one exchange; `deferred`: where a person must be asked, the gate
        shall answer with a code.
        """
        detail = {
            "type": DETAIL_TYPE,
            "identifier": asked.tool,
            "workflow": {"id": asked.workflow},
            "arguments": dict(asked.arguments),
        }
        detail |= {
            n: v
            for n in ("run", "tool_call_id", "tenant")
            if (v := getattr(asked, n)) is not None
        }
        form = {
            "grant_type": GRANT,
            **who.form(),
            "requested_token_type": ACCESS_TOKEN,
            "authorization_details": orjson.dumps([detail]).decode(),
            **({"completion_mode": "deferred"} if deferred else {}),
        }
        return form | {
            n: v for n in ("resource", "scope") if (v := getattr(asked, n)) is not None
        }

    def proof(self) -> dict[str, str]:
        """The header that proves the key to the endpoint; none for a certificate, which the
        connection shows.
        """
        return {"DPoP": self.proof_with()} if self._key else {}

    def proof_with(
        self,
        *,
        key: RunKey | None = None,
        method: str = "POST",
        url: str | None = None,
        nonce: str | None = None,
        now: float | None = None,
    ) -> str:
        """A proof for the endpoint; with something else in it, one that must be refused."""
        at = time.time() if now is None else now
        signer = key or self._key
        if not signer:
            raise ConfigError("key", None, "a key: a certificate signs no proof")
        return signer.proof_for(
            None, method=method, url=url or self.audience, now=at, nonce=nonce or self._nonce
        )

    def revocation(
        self, token: ExchangedToken, who: Credentials
    ) -> tuple[str, dict[str, str], dict[str, str]]:
        """URL, form and headers of the request that voids a token, by the client's own key at
        the gate or by the token's.
        """
        named = {"token": token.reveal(), "client_id": who.client_id}
        if who.client_assertion:
            named |= {
                "client_assertion": who.client_assertion(),
                "client_assertion_type": ASSERTION,
            }
        proof = (
            {"DPoP": self.proof_with(url=self.audience.removesuffix("token") + "revoke")}
            if self._key
            else {}
        )
        return self.url.removesuffix("token") + "revoke", named, proof

    def wants_nonce(self, status: int, headers: Mapping[str, str], data: bytes) -> bool:
        """Whether the gate asks for the same once more, with the nonce it gave (RFC 9449
        section 8).
        """
        nonce = headers.get("DPoP-Nonce")
        if nonce is not None and len(nonce) <= 512 and nonce.isascii() and nonce.isprintable():
            self._nonce = nonce
        return (
            status == 400
            and nonce is not None
            and object_of(data).get("error") == "use_dpop_nonce"
        )

    def token(self, status: int, data: bytes, asked: AskedFor) -> ExchangedToken:
        """The token of an answer.

        Raises:
            ExchangeRefused: the gate refused, or its token is not for this call and key, or
                certificate.
        """
        said = object_of(data)
        if status != 200:
            error = said.get("error")
            why = said.get("error_description", "")
            raise ExchangeRefused(
                status,
                error if type(error) is str else f"status {status}",
                why if type(why) is str else "",
            )
        text, kind, details, lasts = (
            said.get(n)
            for n in "access_token token_type authorization_details expires_in".split()
        )
        if (
            type(text) is not str
            or not text
            or not (text.isascii() and text.isprintable())
            or type(lasts) is not int
        ):
            raise ExchangeRefused(0, "invalid_answer", "no token in it")
        bound = "key" if self._key else "certificate"
        if str(kind).lower() != {"key": "dpop", "certificate": "bearer"}[bound]:
            raise ExchangeRefused(
                0, "invalid_answer", f"a token that is not bound to this {bound}"
            )
        if bound == "certificate" and not self._names_it(text):
            why = (
                "a token that is not bound to this certificate: what ends TLS in front of "
                "the gate did not pass it on"
            )
            raise ExchangeRefused(0, "invalid_answer", why)
        match details:
            case [{"identifier": asked.tool, "locations": [str(place)], **detail}]:
                definition = detail.get("tool_digest")
                return ExchangedToken(
                    lambda: text,
                    self._key,
                    place,
                    definition if type(definition) is str else "",
                )
        raise ExchangeRefused(0, "invalid_answer", "a token for another call")

    def _names_it(self, text: str) -> bool:
        """Whether a token says to count with the certificate alone: its type does not tell (RFC
        8705 section 3.1).
        """
        try:
            cnf = object_of(split(text).unverified_payload).get("cnf")
        except TokenRefused:
            return False
        return self.certificate is not None and cnf == {"x5t#S256": self.certificate.thumbprint}


def check_gate(gate: str, address: str | None) -> None:
    """A gate's issuer, and where it is reached, are URLs that tokens may be sent to, without a
    path. Raises ConfigError.
    """
    for setting, url in (("gate", gate), ("address", address or gate)):
        if check_secure(setting, url).path != "/":
            raise ConfigError(
                setting, url, "the gate's issuer, without path: https://gate.acme.example"
            )


def check_secure(setting: str, url: str) -> SplitResult:
    """The parts of a URL that tokens may be sent to: https, or loopback.

    Raises:
        ConfigError: another one.
    """
    try:
        parts = urlsplit(target(url))
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(setting, url, "an absolute https URL") from None
    if not is_secure(parts):
        raise ConfigError(setting, url, "https (http on loopback only)")
    return parts


def origin_of(url: str) -> str:
    """Scheme, host and port; empty: not an absolute http(s) URL."""
    try:
        parts = urlsplit(target(url))
    except (ValueError, TypeError, AttributeError):
        return ""
    return f"{parts.scheme}://{parts.netloc}"


def object_of(data: bytes) -> dict[str, Any]:
    """The JSON object that a gate answered; empty: it is none."""
    try:
        value = orjson.loads(data) if len(data) <= MAX_ANSWER else None
    except ValueError:
        value = None
    return value if type(value) is dict else {}


DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"
# seconds; RFC 8628 section 3.2
INTERVAL = 5
MAX_INTERVAL = 60
MORE = 5
MAX_WAIT = 30 * 24 * 3600  # seconds
_MAX_CODE = 512


@value_class
class Waiting:
    """A call that waits for a person.

    Attributes:
        code: what the gate is asked with; whoever has it also needs the client's key.
        interval: seconds between two questions.
        until: POSIX seconds; the time to answer ends.
        hold: the hold's id, as ``agentgate holds`` shows it; may be empty.
        whom: whose yes it waits for, in words; may be empty.
    """

    code: str = field(repr=False)
    interval: float
    until: float
    hold: str
    whom: str

    def __str__(self) -> str:
        who = f"{self.whom} may answer" if self.whom else "a person must answer"
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.until))
        return f"waiting: {who} until {until}" + (
            f" (agentgate holds show {self.hold[:12]})" if self.hold else ""
        )


class Pause(NamedTuple):
    """Seconds to wait before the next request."""

    seconds: float


class Ask(NamedTuple):
    """One request to the token endpoint: its form and its headers."""

    form: Mapping[str, str]
    headers: Mapping[str, str]


class Answered(NamedTuple):
    """What came back. Status 0: nothing did."""

    status: int
    headers: Mapping[str, str] = {}
    data: bytes = b""


Steps = Generator[Ask | Pause, Answered | None, ExchangedToken]


def asking(
    endpoint: TokenEndpoint,
    asked: AskedFor,
    who: Credentials,
    waits: Callable[[Waiting], None] | None = None,
) -> Steps:
    """The requests of one token; each `Ask` is sent an `Answered`, each `Pause` None.

    Args:
        endpoint: of the gate.
        asked: the call.
        who: what proves who asks.
        waits: told once, when the call waits for a person; None: such a call is refused at
            once.

    Raises:
        ExchangeRefused: there is no token; `expired_token`: nobody answered in time.
    """
    answer = yield from _sent(
        endpoint, lambda: endpoint.form(asked, who, deferred=waits is not None)
    )
    waiting = _waiting(answer, time.time())
    if not waits or not waiting:
        return endpoint.token(answer.status, answer.data, asked)
    waits(waiting)
    pause = waiting.interval
    while time.time() < waiting.until:
        yield Pause(min(pause, max(1.0, waiting.until - time.time())))
        code = waiting.code
        answer = yield from _sent(
            endpoint,
            lambda: {"grant_type": DEFERRED, "deferral_code": code, **who.form()},  # noqa: B023 - used at once
        )
        error = object_of(answer.data).get("error")
        if answer.status in {0, 429} or answer.status >= 500:
            pause = min(2 * pause, MAX_INTERVAL)
        elif answer.status == 400 and error == "slow_down":
            pause = min(pause + MORE, MAX_INTERVAL)
        elif again := _waiting(answer, time.time()):
            waiting = replace(waiting, code=again.code)
            pause = max(pause, again.interval)
        else:
            return endpoint.token(answer.status, answer.data, asked)
    raise ExchangeRefused(0, "expired_token", "nobody answered in time")


def _sent(
    endpoint: TokenEndpoint, form: Callable[[], Mapping[str, str]]
) -> Generator[Ask | Pause, Answered | None, Answered]:
    """The answer to a form, asked once more where the gate wants its nonce in the proof."""
    for last in (False, True):
        answer = (yield Ask(form(), endpoint.proof())) or Answered(0)
        if last or not endpoint.wants_nonce(answer.status, answer.headers, answer.data):
            break
    return answer


def _waiting(answer: Answered, now: float) -> Waiting | None:
    """What an answer says of a call that waits; None: it says something else."""
    match object_of(answer.data):
        case {
            "error": "authorization_pending",
            "deferral_code": str(code),
            "expires_in": int(left),
            **said,
        } if (
            answer.status == 400
            and 0 < len(code) <= _MAX_CODE
            and code.isascii()
            and code.isprintable()
            and type(left) is int
            and 0 < left <= MAX_WAIT
        ):
            every = said.get("interval")
            every = every if type(every) is int and 0 < every <= MAX_INTERVAL else INTERVAL
            hold = said.get("hold")
            told = hold if type(hold) is dict else {}
            name, whom = (
                visible(value)[:200] if type(value := told.get(each)) is str else ""
                for each in ("id", "whom")
            )
            return Waiting(code, float(every), now + left, name, whom)
    return None
