"""``agentgate exchange``: one token for one call, for shells and CI steps. ``agentgate probe``: a
fixed list of attacks on your own tool server or gate, all of which must be refused.

Rules: credentials come from files, the environment or GitHub, never from the command line,
which others on the machine can read. The token goes to standard output or into a file that only
its owner reads; messages never show it. A probe sends the genuine request or exchange only with
``--spend``; a row that is not refused for its reason is exit code 1, and an error of the server
is no refusal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from agentgate.audit.writing import write_whole
from agentgate.cli.output import ERROR, LOOK, complain, fail, say, say_json, table
from agentgate.errors import ConfigError, KeyRefused
from agentgate.integrations.client_certificate import ClientCertificate
from agentgate.integrations.client_key import ClientKey, owned
from agentgate.integrations.exchange import (
    MAX_ANSWER,
    Answered,
    AskedFor,
    Credentials,
    ExchangedToken,
    ExchangeRefused,
    Pause,
    TokenEndpoint,
    Waiting,
    asking,
    check_secure,
    object_of,
    origin_of,
)
from agentgate.redemption.credential import Work
from agentgate.token.signing import RunKey
from agentgate.values.refusal import Code

try:
    import httpx

    from agentgate.testing.probe import (
        GenuineRequest,
        Verdict,
        carried_out,
        gate_attacks,
        tool_attacks,
    )
except ModuleNotFoundError:  # the rest of the command line works without the extra
    fail("httpx is not installed: pip install '.[httpx]' in the clone")

_FORMS = "file:PATH, env:NAME, github or github:AUDIENCE"
_SVID = "certificate"
_GITHUB_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
_GITHUB_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - the name of a variable
_MAX = 16 * 1024
_SECONDS = 10.0
_INTERRUPTED = 130  # 128 + SIGINT, as shells say it
_MEANS = {
    "invalid_client": "It does not know this --client, or not by this credential.",
    "credential": (
        "It does not believe the token of --subject (or what came with it), or the "
        "workflow wants somebody else."
    ),
    "proof": "Its key is another than the --key that came first with this credential, or none.",
    "not_permitted": (
        "Look at --workflow, --tool, --tenant, --run and the arguments: such a "
        "call is not permitted."
    ),
}
_LATER = (
    "A person must release it; ask again with the same --key or --certificate, --run "
    "and --call-id afterwards."
)


def exchange(
    gate: str,
    *,
    client: str,
    workflow: str,
    tool: str,
    args: str = "{}",
    subject: str = "github",
    actor: str | None = None,
    client_key: Path | None = None,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
    attestation: str | None = None,
    delegation: str | None = None,
    run: str | None = None,
    call_id: str | None = None,
    tenant: str | None = None,
    key: Path | None = None,
    request: str | None = None,
    out: Path | None = None,
    address: str | None = None,
    wait: bool = False,
) -> None:
    """Exchange a token of your own for a token for one call."""
    if not key and request is None and not certificate:
        expected = (
            "--key FILE or --certificate FILE, to prove the token's key later, or "
            "--for, to print the headers of the request"
        )
        raise ConfigError("key", None, expected)
    shown = _certificate(certificate, certificate_key)
    method, url = _request(request)
    arguments = arguments_of(args)
    who = Credentials(
        client,
        subject=_own("subject", subject, gate, shown),
        actor=None if actor is None else _own("actor", actor, gate, shown),
        client_assertion=partial(ClientKey.read(client, client_key).assertion, gate)
        if client_key
        else None,
        attestation=None if attestation is None else given("attestation", attestation, gate),
        delegation=None if delegation is None else given("delegation", delegation, gate),
    )
    endpoint = TokenEndpoint(
        gate, None if shown and not key else key_of(key), certificate=shown, address=address
    )
    token = _ask(
        endpoint,
        AskedFor(tool, workflow, arguments, run=run, tool_call_id=call_id, tenant=tenant),
        who,
        wait=wait,
    )
    lines = (
        [f"{name}: {value}" for name, value in token.headers(method, url).items()]
        if url
        else [token.reveal()]
    )
    if out:
        _write(out, ("\n".join(lines) + "\n").encode())
    else:
        say(*lines)


def _certificate(path: Path | None, key: Path | None) -> ClientCertificate | None:
    if not path and key:
        raise ConfigError("certificate", None, "--certificate FILE, beside --certificate-key")
    return ClientCertificate.read(path, key) if path else None


def _own(
    setting: str, where: str, gate: str, certificate: ClientCertificate | None
) -> Callable[[], str] | ClientCertificate:
    """As `given`; or the certificate itself, where it is the credential."""
    if where != _SVID:
        return given(setting, where, gate)
    if not certificate:
        raise ConfigError(setting, where, "--certificate FILE, an X.509-SVID")
    return certificate


def _request(text: str | None) -> tuple[str, str]:
    """Method and URL of ``--for``."""
    if text is None:
        return "", ""
    method, _, url = text.strip().partition(" ")
    if (
        not method.isalpha()
        or not method.isupper()
        or urlsplit(url.strip()).scheme not in {"http", "https"}
    ):
        raise ConfigError(
            "for", text, "a method and an absolute URL: POST https://tools.acme.example/x"
        )
    return method, url.strip()


def arguments_of(text: str) -> dict[str, Any]:
    """A JSON object that was given as text, as ``@PATH``, or as ``-`` for standard input."""
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = read_file("args", Path(text[1:])).decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if type(value) is not dict:
        raise ConfigError("args", text[:80], 'a JSON object, e.g. {"service": "shop-web"}')
    return value


def read_file(setting: str, path: Path) -> bytes:
    """The bytes of a file, or ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            setting, str(path), f"a file that can be read ({error.strerror})"
        ) from None


def given(setting: str, where: str, gate: str) -> Callable[[], str]:
    """A function that reads a credential from where the caller says it is; read once, and
    checked at once.
    """
    kind, _, rest = where.partition(":")
    if kind == "file" and rest:
        text = read_file(setting, Path(rest)).decode("utf-8", "replace")
    elif kind == "env" and rest:
        text = os.environ.get(rest, "")
    elif kind == "github":
        text = _from_github(setting, rest or gate)
    else:
        # not what was given: it may be the credential itself
        raise ConfigError(setting, kind if rest else "another form", _FORMS)
    text = text.strip()
    if not text or len(text) > _MAX or not text.isascii() or not text.isprintable():
        raise ConfigError(
            setting,
            f"{kind}: nothing, or no token",
            f"a token of at most {_MAX} characters ({_FORMS})",
        )
    return lambda: text


def _from_github(setting: str, audience: str) -> str:
    """The job's own OIDC token; the job needs ``permissions: id-token: write``."""
    url = os.environ.get(_GITHUB_URL, "")
    bearer = os.environ.get(_GITHUB_TOKEN, "")
    if not url or not bearer:
        raise ConfigError(
            setting,
            f"no {_GITHUB_URL}",
            f"a GitHub job with permissions: id-token: write; elsewhere {_FORMS}",
        )
    asked = f"{url}&{urlencode({'audience': audience})}"
    answer = answered(
        "GET", asked, trust_env=True, headers={"Authorization": f"bearer {bearer}"}
    )
    value = object_of(answer.data).get("value") if answer.status == 200 else None
    if type(value) is not str:
        raise ExchangeRefused(answer.status, "no_subject", "GitHub gave no token")
    return value


def answered(
    method: str,
    url: str,
    *,
    trust_env: bool,
    certificate: ClientCertificate | None = None,
    **request: Any,
) -> Answered:
    """What a server answers: not encoded, at most `MAX_ANSWER` bytes, and whole within
    `_SECONDS`; then its connection is closed.

    Raises:
        ExchangeRefused: anything else.
    """
    # Twice: it is whoever waits that says it is late.
    http = httpx.Client(
        timeout=2 * _SECONDS,
        trust_env=trust_env,
        verify=certificate.context if certificate else True,
    )
    http.headers["Accept-Encoding"] = "identity"

    def read() -> Answered:
        data = bytearray()
        with http.stream(method, url, **request) as got:
            for chunk in got.iter_raw():
                data += chunk
                if (
                    len(data) > MAX_ANSWER
                    or got.headers.get("Content-Encoding", "identity").lower() != "identity"
                ):
                    raise httpx.DecodingError("")
        return Answered(got.status_code, got.headers, bytes(data))

    with http:
        work = Work(read, _SECONDS)
        if failed := work.in_time():
            raise ExchangeRefused(0, "unreachable", f"{origin_of(url)}: {failed}")
    answer: Answered = work.result
    return answer


def key_of(path: Path | None) -> RunKey:
    """The key in a file; a new one is written into it, owner-only."""
    if not path:
        return RunKey.generate()
    if not path.exists():
        private = ec.generate_private_key(ec.SECP256R1())
        _write(
            path,
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            first=True,
        )
    try:
        loaded = load_pem_private_key(owned("key", path), None)
    except (ValueError, TypeError):
        raise KeyRefused(f"{path}: expected an unencrypted P-256 key as PEM") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(
        loaded.curve, ec.SECP256R1
    ):
        raise KeyRefused(f"{path}: got another kind of key, expected P-256")
    return RunKey(loaded)


def _ask(
    endpoint: TokenEndpoint, asked: AskedFor, who: Credentials, *, wait: bool
) -> ExchangedToken:
    waiting = []

    def told(one: Waiting) -> None:
        waiting.append(one)
        complain(one, "Ctrl-C stops waiting; the call stays held.", colour="yellow")

    steps = asking(endpoint, asked, who, told if wait else None)
    answer = None
    # else it is on this machine, and a proxy of the environment would read credentials
    secret = urlsplit(endpoint.url).scheme == "https"
    try:
        while True:
            ask = steps.send(answer)
            answer = None
            if isinstance(ask, Pause):
                time.sleep(ask.seconds)
                continue
            try:
                sent = {"data": dict(ask.form), "headers": dict(ask.headers)}
                answer = answered(
                    "POST",
                    endpoint.url,
                    trust_env=secret,
                    certificate=endpoint.certificate,
                    **sent,
                )
            except ExchangeRefused:
                if not waiting:  # a call that waits goes on waiting
                    raise
    except StopIteration as done:
        token: ExchangedToken = done.value
        return token
    except KeyboardInterrupt:
        complain("Stopped.", *([_LATER] if waiting else []), colour="yellow")
        raise typer.Exit(_INTERRUPTED) from None
    except ExchangeRefused as refused:
        if refused.description != Code.NEEDS_APPROVAL:
            means = _MEANS.get(refused.description) or _MEANS.get(refused.error)
            if refused.status == 0 or means is None:
                raise
            fail(refused, f"{means} Why exactly is in the gate's log.")
        complain(
            refused, _LATER, "With --wait this command waits for the answer.", colour="yellow"
        )
        raise typer.Exit(LOOK) from None


def _write(path: Path, data: bytes, *, first: bool = False) -> None:
    """Into a file of mode 0600 that is nobody else's; `first`: one that is there stays."""
    if path.is_symlink():
        raise ConfigError("out", str(path), "a file that can be written (no link)")
    try:
        write_whole(path, data, durable=False, first=first)
    except OSError as error:
        raise ConfigError(
            "out", str(path), f"a file that can be written ({error.strerror})"
        ) from None


def probe(
    url: str,
    *,
    token: Path | None = None,
    key: Path | None = None,
    method: str = "POST",
    body: str | None = None,
    client: str | None = None,
    workflow: str = "",
    tool: str = "",
    tenant: str | None = None,
    args: str = "{}",
    subject: str = "github",
    address: str | None = None,
    spend: bool = False,
    as_json: bool = False,
) -> None:
    """Attack your own tool server or gate over HTTP; everything must be refused."""
    try:
        with httpx.Client(trust_env=False) as http:
            if token:
                reached = _reached(url, address)
                genuine = _genuine(url, method, token=token, key=key, body=body)
                verdicts = list(carried_out(tool_attacks(genuine, spend=spend), http, reached))
            else:
                endpoint = TokenEndpoint(url, key_of(key), address=address)
                if client is None and spend:
                    raise ConfigError(
                        "spend",
                        True,
                        "--client, --workflow, --tool and --subject: something to ask for",
                    )
                who = Credentials(
                    client or "probe",
                    given("subject", subject, url) if client else lambda: _NOBODY,
                )
                form = endpoint.form(
                    AskedFor(tool, workflow, arguments_of(args), tenant=tenant), who
                )
                base = _warmed(endpoint, form)
                attacks = gate_attacks(
                    base, form, endpoint.proof_with, genuine=client is not None, spend=spend
                )
                verdicts = list(carried_out(attacks, http))
    except (httpx.HTTPError, ExchangeRefused) as error:
        fail(f"{url}: cannot be probed: {error}")
    _tell(
        verdicts, as_json=as_json, spend=spend, genuine=token is not None or client is not None
    )


def _genuine(
    url: str, method: str, *, token: Path, key: Path | None, body: str | None
) -> GenuineRequest:
    if not key or not key.exists():
        raise ConfigError(
            "key",
            str(key),
            "the key that the token is bound to: --key, as given to agentgate exchange",
        )
    content = b"" if body is None else json.dumps(arguments_of(body)).encode()
    text = read_file("token", token).decode("ascii", "replace").strip()
    if text.count(".") != 2:
        raise ConfigError(
            "token", str(token), "a file with the token alone (agentgate exchange --out)"
        )
    return GenuineRequest(method, url, content, text, key_of(key))


def _warmed(endpoint: TokenEndpoint, form: dict[str, str]) -> str:
    """Where the gate is; by a first request, which no nonce was given for, it gives one."""
    answer = answered(
        "POST", endpoint.url, trust_env=False, data=form, headers=endpoint.proof()
    )
    if answer.status not in {400, 401}:
        raise ConfigError(
            "url",
            f"{answer.status} from {endpoint.url}",
            "a gate's issuer; a tool server is probed with --token and --key",
        )
    endpoint.wants_nonce(answer.status, answer.headers, answer.data)
    return endpoint.url.removesuffix("/oauth2/token")


_UNBOUND = (
    "No proof was asked for: this workflow does not say token: {bound_to: [call, "
    "agent_key]}, so the credential alone gets tokens. "
    "It went without a key now, and the gate refuses it with one from here on."
)


_NOBODY = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJwcm9iZSJ9.AAAA"


def _reached(url: str, address: str | None) -> Callable[[str], str]:
    """Where a URL of the server is reached."""
    check_secure("url", url)
    if address is None:
        return str
    check_secure("address", address)
    return lambda other: address.removesuffix("/") + other.removeprefix(origin_of(url))


def _tell(verdicts: list[Verdict], *, as_json: bool, spend: bool, genuine: bool) -> None:
    bad = [each for each in verdicts if not each.holds]
    if as_json:
        said = [
            {
                "attack": v.name,
                "status": v.status,
                "expected": list(v.expected),
                "verdict": v.word.lower(),
            }
            for v in verdicts
        ]
        say_json({"refused_all": not bad, "genuine_sent": spend, "rows": said})
    else:
        cells = [
            (v.name, v.word, str(v.status or "closed"), " or ".join(map(str, v.expected)))
            for v in verdicts
        ]
        table("attack |  | status | expected", cells)
        say(f"{len(verdicts) - len(bad)} of {len(verdicts)} hold")
    if not genuine:
        complain(
            "Only what anybody can send was tried: with --client, --workflow, --tool and "
            "--subject it goes further.",
            colour="yellow",
        )
    elif not spend:
        complain(
            "The genuine request was not sent: only --spend shows that it would pass, and "
            "that a replay is refused.",
            colour="yellow",
        )
    if any(each.keyless and each.status == 200 for each in bad):
        complain(_UNBOUND, colour="yellow")
    if bad:
        for each in bad:
            complain(
                f"{each.name}: got {each.status or 'a closed connection'}, expected "
                f"{' or '.join(map(str, each.expected))}"
            )
        raise typer.Exit(ERROR)
