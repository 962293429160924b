"""The token endpoint's exchange (RFC 8693 with RFC 9396 and RFC 9449): who asks, in which run,
for which call; then the gate decides.

Rules: in this order: (1) the form, (2) the client, (3) its role, (4) the call that is asked
for (`authorization_details`, RFC 9396, of type `DETAIL_TYPE`), (5) the proof of its key, with a
nonce (RFC 9449 section 8: a time and an HMAC over it, so that every instance with the gate's
keys accepts what another gave), (6) the credentials, which open the run (a workflow without
prompt) or prove to be those of the run that is named, (7) target and scope, (8) the decision. A
run of another tenant, client or workflow is as unknown as one that does not exist.

What a caller shows is unverified here: looked at to know which verifier judges it, and nothing
more.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from agentgate.errors import CredentialRefused, RequestRefused, TokenRefused
from agentgate.gate.proving import OverHTTP
from agentgate.gate.run import AsyncRun
from agentgate.identity.certificate import shown_certificate
from agentgate.identity.connection import Connection
from agentgate.identity.credential import (
    JWTSVID,
    X509_SVID,
    X509SVID,
    AgentCredential,
    Credential,
    OIDCToken,
)
from agentgate.identity.keys import strict_object
from agentgate.identity.settings import ProxySettings
from agentgate.identity.signed import read
from agentgate.identity.svid import chain_of
from agentgate.service.clients import Caller, connection_of, unknown
from agentgate.service.messages import checked_members, malformed, one_header, text
from agentgate.service.settings import ServiceSettings
from agentgate.service.state import Service
from agentgate.token.dpop import MAX_PROOF, DPoP
from agentgate.token.jws import split
from agentgate.token.mint import DETAIL_TYPE, CallToken, detail_of
from agentgate.token.signing import KeyRing
from agentgate.values.refusal import Failure, Reason
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Tool

LIFE = 300  # seconds
_NONCES = "dpop-nonce"  # no tenant: tenants' values are masked under keys of their own


def fresh(keys: KeyRing) -> str:
    """A nonce that counts from now on."""
    now = str(int(time.time()))
    return f"{now}.{keys.masked(_NONCES, now.encode())}"


def _counts(nonce: object, keys: KeyRing) -> bool:
    if type(nonce) is not str or not nonce.isascii() or len(nonce) > 64:
        return False
    at, _, mac = nonce.partition(".")
    if not at.isdigit() or len(at) > 12 or not -5 <= time.time() - int(at) <= LIFE:
        return False
    return hmac.compare_digest(mac, keys.masked(_NONCES, at.encode()))


def proof_of(header: str, method: str, url: str, keys: KeyRing) -> DPoP:
    """The proof as it came, which names a nonce of ours; nothing else of it is checked yet.

    Raises:
        RequestRefused: `invalid_dpop_proof`: no proof; `use_dpop_nonce`: another nonce or none.
    """
    try:
        payload = orjson.loads(split(header, MAX_PROOF).unverified_payload)
    except (TokenRefused, ValueError):
        raise RequestRefused(400, "invalid_dpop_proof", "proof") from None
    nonce = payload.get("nonce") if type(payload) is dict else None
    if not _counts(nonce, keys):
        raise RequestRefused(
            400, "use_dpop_nonce", "nonce", headers={"DPoP-Nonce": fresh(keys)}
        )
    return DPoP(header, method=method, url=url, nonce=nonce)


_ERROR = "invalid_authorization_details"
_REQUIRED = "type identifier workflow arguments"
_OPTIONAL = "locations actions tool_call_id run tenant"


@value_class
class AskedCall:
    """What is asked for. `run`, `tenant` and `tool_call_id` may be left out (None)."""

    tool: str
    arguments: Mapping[str, Any]
    workflow: str
    locations: tuple[str, ...]
    tool_call_id: str | None = None
    run: str | None = None
    tenant: str | None = None


def read_detail(data: str) -> AskedCall:
    """The call of a request's `authorization_details`: a list of exactly one.

    Raises:
        RequestRefused: `invalid_authorization_details`, naming the field.
    """
    try:
        read = strict_object(b'{"details":' + data.encode() + b"}", "authorization_details")
        listed = read["details"] if len(read) == 1 else None
    except (CredentialRefused, UnicodeEncodeError):
        listed = None
    if type(listed) is not list or len(listed) != 1:
        raise malformed("authorization_details", "something else", "a list of one call", _ERROR)
    detail = checked_members(listed[0], "authorization_details", _REQUIRED, _OPTIONAL, _ERROR)
    if detail["type"] != DETAIL_TYPE:
        raise malformed("authorization_details.type", "another", DETAIL_TYPE, _ERROR)
    if detail.get("actions", ["invoke"]) != ["invoke"]:
        raise malformed("authorization_details.actions", "another", '["invoke"]', _ERROR)
    workflow = checked_members(
        detail["workflow"],
        "authorization_details.workflow",
        "id",
        error=_ERROR,
    )
    if type(detail["arguments"]) is not dict:
        raise malformed(
            "authorization_details.arguments",
            type(detail["arguments"]).__name__,
            "an object",
            _ERROR,
        )
    locations = detail.get("locations", [])
    if type(locations) is not list or len(locations) > 1:
        raise malformed("authorization_details.locations", "several", "one tool server", _ERROR)
    named = {
        name: text(detail[name], f"authorization_details.{name}", _ERROR)
        for name in ("tool_call_id", "run", "tenant")
        if name in detail
    }
    return AskedCall(
        text(detail["identifier"], "authorization_details.identifier", _ERROR),
        detail["arguments"],
        text(workflow["id"], "authorization_details.workflow.id", _ERROR),
        tuple(text(each, "authorization_details.locations", _ERROR) for each in locations),
        **named,
    )


_TYPE = "urn:ietf:params:oauth:token-type:"


def user_credential(text: str, kind: str) -> OIDCToken:
    """A user's token. `kind`: its type, as the request names it.

    Raises:
        CredentialRefused: no JWT, or one of another type.
    """
    made = OIDCToken(text)
    _check_type(made, kind)
    return made


def _check_type(token: Credential, kind: str | None) -> None:
    """Refuse an access token that is shown as an ID token (RFC 9068 section 4), and the
    reverse; nothing else is believed of either yet.
    """
    form = read(token, "subject_token_type")
    typ = str(form.unverified_header.get("typ", "")).lower().removeprefix("application/")
    claims = form.unverified_claims
    if kind == f"{_TYPE}id_token" and typ == "at+jwt":
        raise CredentialRefused(
            "subject_token_type", kind, f"{_TYPE}access_token: its typ is {typ}"
        )
    if kind == f"{_TYPE}access_token" and (
        marks := claims.keys() & "nonce at_hash c_hash s_hash".split()
    ):
        raise CredentialRefused(
            "subject_token_type", kind, f"{_TYPE}id_token: it has {min(marks)}"
        )


def agent_credential(
    text: str, *, certificate: str = "", shown: str = "", **more: Any
) -> AgentCredential:
    """An agent's credential by its form: a JWT whose subject is a SPIFFE id, or another JWT.

    Args:
        text: the JWT.
        certificate: thumbprint of that by which its client was authenticated; empty: it was by
            other means.
        shown: thumbprint of that of the connection, which counts where the credential says to
            be bound to one; empty: none.
        more: as of `AgentCredential`.

    Raises:
        CredentialRefused: no JWT.
    """
    plain = Credential(text)
    unverified = read(plain, "agent").unverified_claims
    sub = unverified.get("sub")
    cnf = unverified.get("cnf")
    kind = JWTSVID if type(sub) is str and sub.startswith("spiffe://") else OIDCToken
    bound = type(cnf) is dict and "x5t#S256" in cnf
    made = kind(text, certificate=certificate or (shown if bound else ""), **more)
    made.unverified = plain.unverified
    return made


@value_class
class Shown:
    """What came with a request to the token endpoint, beside the form. `client`, `certificate`:
    as of `agent_credential`.
    """

    connection: Connection
    proof: DPoP | None
    client: str
    certificate: str

    def agent(self, text: str, kind: str | None, **brought: Any) -> AgentCredential:
        """The agent's credential of this type, with all that belongs to it. Its `certificate`
        is what its tokens are bound to. `brought`: of `brought_by`.

        Raises:
            CredentialRefused: no JWT.
        """
        if kind == X509_SVID:
            return X509SVID(self.connection, thumbprint=text, proof=self.proof, **brought)
        made = agent_credential(
            text,
            certificate=self.client,
            shown=self.certificate,
            at_token_endpoint=True,
            proof=self.proof,
            **brought,
        )
        _check_type(made, kind)
        return made


def unverified_name(agent: AgentCredential, proxies: ProxySettings | None) -> object:
    """The issuer of an agent's credential, or its SPIFFE id: what a client may be known by,
    once it is proven.

    Raises:
        CredentialRefused: it has none.
    """
    if isinstance(agent, X509SVID):
        return chain_of(agent, proxies).spiffe
    unverified = read(agent, "agent").unverified_claims
    return unverified.get("sub") if isinstance(agent, JWTSVID) else unverified.get("iss")


GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = f"{_TYPE}access_token"
# What these grants have no use for (RFC 6749, 7523, 7636, 9101, 9126, 9449 section 10), and a
# caller may rely on: not ignored
_UNSUPPORTED = set(
    (
        "client_secret code code_verifier redirect_uri refresh_token username password "
        "assertion response_type request request_uri dpop_jkt claims acr_values max_age "
        "requested_subject requested_issuer"
    ).split()
)
_TYPES = {ACCESS_TOKEN, f"{_TYPE}jwt", f"{_TYPE}id_token"}


@value_class
class ExchangeRequest:
    """One request, read and not yet believed. Without an actor, the subject is the agent
    itself.
    """

    caller: Caller
    asked: AskedCall
    subject: str
    actor: str | None
    targets: frozenset[str]
    scope: frozenset[str]
    brought: Mapping[str, Any]
    shown: Shown
    agents: str  # the type of the agent's own credential
    subject_type: str

    @property
    def tenant(self) -> str:
        """The tenant it is about, one of the client's."""
        return self.caller.tenant(self.asked.tenant)

    def agent(self) -> AgentCredential:
        """The agent's credential, with all that belongs to it."""
        text = self.subject if self.actor is None else self.actor
        return self.shown.agent(text, self.agents, **self.brought)

    def user(self) -> OIDCToken | None:
        """The user's token; None: the agent works for nobody."""
        return None if self.actor is None else user_credential(self.subject, self.subject_type)


def read_exchange(
    form: Mapping[str, str], request: Request, service: Service, caller: Caller
) -> ExchangeRequest:
    """Steps 4 and 5, and the form of the rest.

    Raises:
        RequestRefused.
    """
    agents = checked_types(form)
    if "authorization_details" not in form:
        raise malformed("authorization_details", "none", "one")
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise malformed("requested_token_type", form["requested_token_type"][:80], ACCESS_TOKEN)
    return ExchangeRequest(
        caller=caller,
        asked=read_detail(form["authorization_details"]),
        subject=form["subject_token"],
        actor=form.get("actor_token"),
        targets=frozenset(form[name] for name in ("resource", "audience") if name in form),
        scope=frozenset(form.get("scope", "").split()),
        brought=brought_by(form),
        shown=shown_with(request, service, caller, "/oauth2/token"),
        agents=form[agents],
        subject_type=form["subject_token_type"],
    )


def brought_by(form: Mapping[str, str]) -> dict[str, Any]:
    """What comes beside an agent's credential."""
    return {
        "attestation": form.get("attestation"),
        "delegation": tuple(form.get("delegation", "").split()),
    }


def shown_with(request: Request, service: Service, caller: Caller, path: str) -> Shown:
    """Step 5: what came with a request to the token endpoint at this path.

    Raises:
        RequestRefused: a proof without a nonce of ours, or no proof at all.
    """
    header = one_header(request, "dpop")
    proof = None
    if header is not None:
        proof = proof_of(header, "POST", service.url(path), service.core.keys)
    connection = connection_of(request, service.settings)
    return Shown(
        connection,
        proof,
        caller.certificate,
        shown_certificate(connection, service.settings.identity.proxies) or "",
    )


def checked_types(form: Mapping[str, str]) -> str:
    """The parameter that says of which type the agent's own credential is.

    Raises:
        RequestRefused: no credential, one without a type, or a type that it may not have.
    """
    check_supported(form)
    for name in ("subject_token", "subject_token_type"):
        if name not in form:
            raise malformed(name, "none", "one")
    if ("actor_token" in form) != ("actor_token_type" in form):
        raise malformed("actor_token_type", "none", "one, with an actor_token")
    agents = "subject_token_type" if "actor_token" not in form else "actor_token_type"
    for name in ("subject_token_type", "actor_token_type"):
        types = {*_TYPES, X509_SVID} if name == agents else _TYPES
        if form.get(name, ACCESS_TOKEN) not in types:
            raise malformed(name, form[name][:80], " or ".join(sorted(types)))
    return agents


def check_supported(form: Mapping[str, str], *others: str) -> None:
    """Raise RequestRefused for a parameter that would change nothing; `others`: further ones
    that this grant has no use for.
    """
    for name in sorted(form.keys() & {*_UNSUPPORTED, *others}):
        raise malformed(name, "one", "none: it would change nothing here")


async def proven_run(
    asked: ExchangeRequest, request: Request, service: Service
) -> tuple[AsyncRun, Tool | None]:
    """Steps 6 and 7: run and tool. The line that is logged of `request` names the run from when
    it is known.

    Raises:
        RequestRefused, RunRefused, CredentialRefused.
    """
    gate = service.gate
    workflow = gate.core.workflow(asked.asked.workflow)
    agent = asked.agent()
    user = asked.user()
    if workflow.token.agent_key and asked.shown.proof is None and not agent.certificate:
        failure = Failure(
            Reason.AGENT,
            "proof",
            "none",
            "a proof of the agent's key, or a certificate that proves it",
        )
        raise RequestRefused(400, "invalid_dpop_proof", "proof", failure)
    check_known_by_it(asked.caller, agent, service.settings)
    over = OverHTTP(client=asked.caller.id, address=request.state.peer)
    if asked.asked.run is None:
        if workflow.intents or user is not None:
            raise _not_permitted(
                "authorization_details.run",
                "none",
                "the run that a host opened: this workflow works from a prompt, or for a user",
            )
        run = await gate.own_run(workflow.id, tenant=asked.tenant, agent=agent, over=over)
        request.state.run = run.id
    else:
        run = await gate.resume_run(asked.tenant, asked.asked.run)
        request.state.run, header = run.id, run.header
        if header.client != asked.caller.id or header.workflow != workflow.id:
            raise _not_permitted("run", header.id, "a run of this client and workflow")
        run = await gate.presented(run, user=user, agent=agent, over=over)
    tool = run.workflow.tools.get(asked.asked.tool)
    if tool is not None:
        _check_target(asked, tool)
    return run, tool


def definition_of(settings: ServiceSettings, tool: Tool | None) -> str:
    """The digest of a tool's definition, as the settings have it from its server; never as an
    agent says.
    """
    if tool is None:
        return ""
    return next(
        (
            c.definitions.get(tool.name, "")
            for c in settings.clients.values()
            if tool.audience in c.resources
        ),
        "",
    )


def check_known_by_it(
    caller: Caller, agent: AgentCredential, settings: ServiceSettings
) -> None:
    """A client that is known by its credential comes with one of its own issuer; what is
    compared here is verified next.
    """
    if caller.settings.role != "agent":
        raise RequestRefused(
            400,
            "unauthorized_client",
            "",
            Failure(Reason.AGENT, "client.role", caller.settings.role, "agent"),
        )
    if caller.settings.credential is None:
        return
    own = unverified_name(agent, settings.identity.proxies)
    if own != caller.settings.credential:
        raise unknown("client.credential", str(own)[:80], caller.settings.credential)


def _check_target(asked: ExchangeRequest, tool: Tool) -> None:
    """Step 7: exactly the target and the scope of the tool's rule (RFC 8693 section 2.2.2, RFC
    8707 section 2).
    """
    if tool.redeem != "server":
        raise RequestRefused(
            400,
            "invalid_target",
            "",
            Failure(Reason.TOOL_UNKNOWN, "tool", tool.name, "one that a tool server redeems"),
        )
    named = asked.targets | {*asked.asked.locations}
    if named - {tool.audience}:
        got = ", ".join(sorted(named))[:200]
        raise RequestRefused(
            400, "invalid_target", "", Failure(Reason.INPUT, "resource", got, tool.audience)
        )
    if asked.scope and asked.scope != frozenset(tool.scope or (tool.name,)):
        raise RequestRefused(
            400,
            "invalid_scope",
            "",
            Failure(
                Reason.INPUT, "scope", " ".join(sorted(asked.scope))[:200], " ".join(tool.scope)
            ),
        )


def _not_permitted(field: str, got: str, expected: str) -> RequestRefused:
    failure = Failure(Reason.RUN_MISSING, field, got, expected)
    return RequestRefused(400, "invalid_authorization_details", "not_permitted", failure)


def success(token: CallToken) -> dict[str, Any]:
    """RFC 8693 section 2.2.1 with RFC 9396 section 7."""
    claims = token.claims
    return {
        "access_token": token.reveal(),
        "issued_token_type": ACCESS_TOKEN,
        # one for a certificate is sent as Bearer (RFC 8705 section 3)
        "token_type": "Bearer" if claims.cnf_jkt is None else "DPoP",
        "expires_in": max(1, int(claims.exp - time.time())),
        "scope": claims.shared.scope,
        "authorization_details": (detail_of(claims),),
    }
