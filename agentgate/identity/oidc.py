"""A JWT of a configured OIDC issuer proves a user, a service or a CI job.

Rules: the issuer is looked up in the settings; its keys are where they say, never where the
token points. An issuer proves only what its settings name (users, agents or jobs), only for its
own tenants. Claims become id, tenant and groups by configuration. A token of another kind is
refused (`agentgate.identity.signed`); where an issuer proves both, what its agents' tokens
have tells them from its users'.

Tokens of CI jobs prove an agent, the job, and never a user. What these issuers always say must be
there and be text, so that a token of another kind under the same issuer is no job; a workflow
names the claims that count, and each that it names must be there (`agentgate.decision.checks`). A
name that can be taken over by somebody else (a repository's, an owner's) is worth its id:
`UNLASTING` pairs them, and lint asks for the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.errors import CredentialRefused, IdentityRefused
from agentgate.identity.credential import AgentCredential
from agentgate.identity.keys import KeySource
from agentgate.identity.proven import Proven, proven_agent, proven_user
from agentgate.identity.settings import AgentClaims, IssuerSettings
from agentgate.identity.signed import (
    ExpectedClaims,
    SignedClaims,
    check_agent,
    check_user,
    proven_key,
    text_of,
    verified,
)
from agentgate.shell.step import OutsideFlow
from agentgate.values.request import Agent, User
from agentgate.values.value_class import value_class


@value_class
class CIShape:
    """What the tokens of one CI say.

    Attributes:
        required: claims that every job has, as text (names with spaces between).
        attempt: claims that tell one attempt of a job from every other.
    """

    required: str
    attempt: tuple[str, ...]

    def check(self, claims: SignedClaims, what: str) -> None:
        """Raise CredentialRefused where a required claim is missing or no text."""
        for name in self.required.split():
            text_of(claims, name, what)

    def once(self, claims: SignedClaims) -> str:
        """The attempt, as one text."""
        return ".".join(str(claims[name]) for name in self.attempt)

    def environment_of(
        self, claims: SignedClaims, known: Mapping[str, str] | None
    ) -> str | None:
        """The environment of workflows that the job's stands for. None: the settings say
        nothing; empty: the job has none that is known.
        """
        if known is None:
            return None
        value = claims.get("environment")
        return known.get(value, "") if type(value) is str else ""


SHAPES: Mapping[str, CIShape] = {
    # docs.github.com/actions/reference/security/oidc
    "github": CIShape(
        "repository repository_id repository_owner repository_owner_id ref event_name "
        "job_workflow_ref runner_environment run_id run_attempt",
        ("run_id", "run_attempt"),
    ),
    # docs.gitlab.com/ci/secrets/id_token_authentication: token payload
    "gitlab": CIShape(
        "project_id project_path namespace_id ref ref_type ref_protected pipeline_source job_id",
        ("job_id",),
    ),
}
# claim that can change hands -> the claim that cannot
UNLASTING: Mapping[str, str] = dict(
    each.split()
    for each in """repository repository_id
repository_owner repository_owner_id
project_path project_id
namespace_path namespace_id
user_login user_id""".splitlines()
)


MAX_CLAIMS = 100
MAX_CLAIM = 512
MAX_GROUPS = 500


@value_class
class Issuer:
    """One configured issuer and its keys."""

    settings: IssuerSettings
    source: KeySource

    def agent(
        self, credential: AgentCredential, tenant: str, now: float
    ) -> OutsideFlow[Proven[Agent]]:
        """Prove an agent. `tenant`: of the run; `now`: POSIX seconds.

        Raises:
            CredentialRefused, KeysUnavailable.
        """
        what = "agent.oidc"
        settings = self.settings
        if not settings.agent and settings.shape == "oidc":
            raise CredentialRefused(
                f"{what}.iss", settings.issuer, "an issuer that proves agents"
            )
        own = settings.agent or AgentClaims()
        claims = yield from self._claims(
            credential, what, own.audience or settings.audience, now
        )
        check_agent(claims, what)
        for claim, value in own.required.items():
            if claims.get(claim) != value:
                raise CredentialRefused(f"{what}.{claim}", claims.get(claim), value)
        if tenant not in settings.tenants:
            raise CredentialRefused(
                f"{what}.iss",
                f"{settings.issuer} for tenant {tenant}",
                f"an issuer of {', '.join(settings.tenants)}",
            )
        once = str(claims.get("jti", ""))
        environment = None
        if settings.shape != "oidc":
            shape = SHAPES[settings.shape]
            shape.check(claims, what)
            once = shape.once(claims)
            environment = shape.environment_of(claims, settings.environment)
        key = proven_key(credential, claims, what, now)
        name = at(claims, own.id, f"{what}.id")
        try:
            agent = proven_agent(
                name,
                issuer=settings.issuer,
                subject=claims["sub"],
                claims=texts(claims),
                key=key if credential.proof else "",
                environment=environment,
            )
        except IdentityRefused as error:
            raise CredentialRefused.of(error.failure(field=f"{what}.{error.field}")) from None
        return Proven(agent, float(claims["exp"]), once, key)

    def user(self, credential: AgentCredential, now: float) -> OutsideFlow[Proven[User]]:
        """Prove a user. `now`: POSIX seconds.

        Raises:
            CredentialRefused, KeysUnavailable.
        """
        what = "user.oidc"
        settings = self.settings
        mapped = self.settings.user
        if not mapped:
            raise CredentialRefused(
                f"{what}.iss", settings.issuer, "an issuer that proves users"
            )
        claims = yield from self._claims(credential, what, settings.audience, now)
        check_user(claims, what)
        agents = settings.agent.required if settings.agent else {}
        if agents and all(claims.get(name) == value for name, value in agents.items()):
            raise CredentialRefused(
                f"{what}.{min(agents)}",
                agents[min(agents)],
                "a token without what marks an agent's (agent.required)",
            )
        proven_key(credential, claims, what, now)
        tenant = at(claims, mapped.tenant, f"{what}.tenant")
        if mapped.tenants is not None:
            tenant = mapped.tenants.get(tenant, "")
        if tenant not in settings.tenants:
            raise CredentialRefused(
                f"{what}.tenant",
                tenant or "one without a translation",
                f"one of {', '.join(settings.tenants)}",
            )
        groups = [] if mapped.groups is None else _value(claims, mapped.groups)
        if groups is None:
            groups = []
        if type(groups) is not list or len(groups) > MAX_GROUPS:  # what is in it, `User` checks
            raise CredentialRefused(
                f"{what}.groups", type(groups).__name__, f"a list of at most {MAX_GROUPS} names"
            )
        at_time = claims.get("auth_time")
        acr = claims.get("acr")
        amr = claims.get("amr")
        try:
            user = proven_user(
                at(claims, mapped.id, f"{what}.id"),
                tenant=tenant,
                groups=tuple(groups),
                issuer=settings.issuer,
                subject=claims["sub"],
                auth_time=at_time if type(at_time) is int else None,
                acr=acr if type(acr) is str else None,
                amr=tuple(amr)
                if type(amr) is list and all(type(each) is str for each in amr)
                else (),
            )
        except IdentityRefused as error:
            raise CredentialRefused.of(error.failure(field=f"{what}.{error.field}")) from None
        nonce = claims.get("nonce")
        return Proven(
            user,
            float(claims["exp"]),
            str(claims.get("jti", "")),
            nonce=nonce if type(nonce) is str else "",
        )

    def _claims(
        self,
        credential: AgentCredential,
        what: str,
        audience: str | tuple[str, ...],
        now: float,
    ) -> OutsideFlow[SignedClaims]:
        settings = self.settings
        algorithms = frozenset(settings.algorithms)
        expected = ExpectedClaims(
            what,
            audience,
            settings.issuer,
            algorithms=algorithms,
            max_lifetime=settings.max_lifetime,
        )
        claims = yield from verified(credential, self.source, expected, now)
        text_of(claims, "sub", what)
        for name, value in settings.required.items():
            if claims.get(name) != value:
                raise CredentialRefused(f"{what}.{name}", claims.get(name), value)
        return claims


def _value(claims: SignedClaims, path: str | tuple[str, ...]) -> Any:
    value: Any = claims
    for name in (path,) if isinstance(path, str) else path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def at(claims: SignedClaims, path: str | tuple[str, ...], what: str) -> str:
    """A claim at its path, which must be text.

    Raises:
        CredentialRefused: missing, or anything else.
    """
    value = _value(claims, path)
    if type(value) is not str:
        raise CredentialRefused(
            what, "none" if value is None else type(value).__name__, f"text in claim {path}"
        )
    return value


def texts(claims: SignedClaims) -> dict[str, str]:
    """The claims that a workflow may compare: text, and whole numbers and booleans as text;
    nothing long, no lists, no objects.
    """
    found = {}
    for name, value in list(claims.items())[:MAX_CLAIMS]:
        text = (
            value
            if type(value) is str
            else str(value).lower()
            if type(value) in {int, bool}
            else None
        )
        if text is not None and len(text) <= MAX_CLAIM and len(name) <= MAX_CLAIM:
            found[name] = text
    return found
