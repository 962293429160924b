"""``agentgate probe``: a fixed list of attacks on your own tool server or gate, all of which
must be refused.

Rules: the genuine request or exchange is sent only with ``--spend``. A row that is not refused
for its reason is exit code 1; an error of the server is no refusal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import httpx
import typer
from typer import Option

from agentgate.cli.exchange import answered, arguments_of, given, key_of, read_file
from agentgate.cli.output import ERROR, Json, complain, fail, rows, say, say_json
from agentgate.errors import ConfigError
from agentgate.integrations.exchange import (
    AskedFor,
    Credentials,
    ExchangeRefused,
    TokenEndpoint,
    check_secure,
    origin_of,
)
from agentgate.testing.probe import (
    GenuineRequest,
    Verdict,
    carried_out,
    gate_attacks,
    tool_attacks,
)


def probe(
    url: str,
    *,
    token: Path | None = None,
    key: Path | None = None,
    method: Annotated[str, Option("--method", "-X")] = "POST",
    body: str | None = None,
    client: str | None = None,
    workflow: Annotated[str, Option("--workflow", "-w")] = "",
    tool: Annotated[str, Option("--tool", "-t")] = "",
    tenant: str | None = None,
    args: Annotated[str, Option("--args", "-a")] = "{}",
    subject: str = "github",
    address: str | None = None,
    spend: bool = False,
    as_json: Json = False,
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
        fail(f"{url}: cannot be probed: {type(error).__name__}")
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
        rows(["attack", "", "status", "expected"], cells)
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
