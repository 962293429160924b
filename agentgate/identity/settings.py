"""What a gate believes of credentials: one frozen object, from Python values, a mapping or a
TOML file. ``docs/identity.md`` explains it.

Rules: nothing is believed by default; every issuer, trust domain, attestor, broker and client
is named, with its keys, the exact audience and the tenants it may speak for. Unknown names are
refused. Nothing here is secret.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from agentgate.errors import ConfigError
from agentgate.identity.connection import networks
from agentgate.identity.keys import ALGORITHMS
from agentgate.token.regular_file import read_text
from agentgate.values.urls import is_secure


class WrongValue(ValueError):
    """What is expected of a setting, found out where its block is checked as a whole. `within`:
    its name below that block.
    """

    def __init__(self, expected: str, *within: str) -> None:
        self.within = within
        super().__init__(expected)


def _place(value: str) -> str:
    url = urlsplit(value)
    if "://" not in value:
        return value
    if not is_secure(url) or url.username is not None or url.fragment:
        raise ValueError("an https URL (http only on loopback), or the path of a file")
    return value


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        networks(values)
    except ValueError:
        raise ValueError("IP addresses, networks such as 10.0.0.0/8, or unix:UID") from None
    return values


Name = Annotated[str, Field(min_length=1, max_length=512)]
Listed = Annotated[tuple[Name, ...], Field(strict=False)]
Names = Annotated[Listed, Field(min_length=1)]
OneOrSeveral = Name | Annotated[Names, Field(max_length=8)]
Place = Annotated[Name, AfterValidator(_place)]
Claim = OneOrSeveral
Seconds = Annotated[int, Field(ge=1, le=7 * 24 * 3600)]


class SettingsBlock(BaseModel):
    """A table of settings: strict, and nothing unknown in it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def of_values(cls, given: object, *above: str) -> Self:
        """From values that somebody gave. Raises ConfigError as `wrong_setting` makes it."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise wrong_setting(error, cls, *above) from None


class _Keyed(SettingsBlock):
    """Keys at one place.

    `keys`: an https URL that is pinned here (never taken from a credential), or a file.
    `private_addresses`: the URL may lead into your own network.
    """

    keys: Place
    private_addresses: bool = False

    @model_validator(mode="after")
    def _loopback_is_private(self) -> Self:
        if urlsplit(self.keys).scheme == "http" and not self.private_addresses:
            raise WrongValue("true, since http is for loopback only", "private_addresses")
        return self


class UserClaims(SettingsBlock):
    """Which claims say who a user is. A claim's name, or the path to it (``["realm_access",
    "roles"]``).

    `tenants` translates what the tenant claim says; then nothing else is a tenant.
    """

    id: Claim = "sub"
    tenant: Claim
    groups: Claim | None = None
    tenants: dict[Name, Name] | None = None


class AgentClaims(SettingsBlock):
    """Which claim says who an agent is, and what tells its tokens from those of the issuer's
    users.

    `required`: claims that must have exactly this value; a token that has all of them is no
    user's. `audience`: of agents' tokens alone.
    """

    id: Claim = "sub"
    required: dict[Name, Name] = {}
    audience: Name | None = None


class IssuerSettings(_Keyed):
    """An OIDC issuer. It proves users, agents or both: whichever of the two blocks stands here;
    a CI issuer proves jobs.

    `audience`: the exact one; of several, a token is for exactly one. `tenants`: the only
    tenants it may speak for. `environment`: for a CI issuer, the job's environment claim -> an
    environment of workflows. `required`: further claims that must have exactly this value.
    """

    issuer: Name
    audience: OneOrSeveral
    tenants: Names
    shape: Literal["oidc", "github", "gitlab"] = "oidc"
    user: UserClaims | None = None
    agent: AgentClaims | None = None
    required: dict[Name, Name] = {}
    environment: dict[Name, Name] | None = None
    algorithms: Names = tuple(sorted(ALGORITHMS))
    max_lifetime: Seconds = 24 * 3600

    @property
    def audiences(self) -> frozenset[str]:
        """Of its users' tokens, and of its agents' where these have none of their own."""
        return frozenset((self.audience,) if isinstance(self.audience, str) else self.audience)

    @model_validator(mode="after")
    def _proves_somebody(self) -> Self:
        if self.shape == "oidc" and not self.user and not self.agent:
            raise ValueError("a block user or agent: whom this issuer proves")
        if self.shape != "oidc" and (self.user or self.agent):
            raise ValueError("no block user or agent: a CI issuer proves its jobs")
        if self.shape == "oidc" and self.environment is not None:
            raise ValueError("no environment: only CI jobs have one")
        both = self.agent if self.user else None
        if (
            both
            and not both.required
            and (both.audience is None or both.audience in self.audiences)
        ):
            told = '{idtyp = "app"} or {gty = "client-credentials"}'
            expected = (
                f"claims that its tokens have and no user's, such as {told}; or "
                "agent.audience: one of their own"
            )
            raise WrongValue(expected, "agent", "required")
        if not set(self.algorithms) <= ALGORITHMS:
            raise WrongValue(f"of {', '.join(sorted(ALGORITHMS))}", "algorithms")
        return self


class TrustDomainSettings(SettingsBlock):
    """A SPIFFE trust domain. `bundle`: file with its bundle (JWK set), read again when it
    changes.
    """

    bundle: Place
    audience: Name
    tenants: Names
    max_lifetime: Seconds = 3600
    private_addresses: bool = False


class AttestorSettings(_Keyed):
    """Who may attest workloads. `clusters`: the only clusters it may speak for. `issuer`,
    `audience`: of a JWT; DSSE has neither.

    `issuers`: whose subjects it names, by their `issuer`; left out: those of the only one that
    proves agents. A SPIFFE id names its own.
    """

    format: Literal["jwt", "dsse"] = "jwt"
    issuer: Name | None = None
    audience: Name | None = None
    clusters: Names
    issuers: Names | None = None
    max_lifetime: Seconds = 24 * 3600

    @model_validator(mode="after")
    def _named(self) -> Self:
        stated = {self.issuer is not None, self.audience is not None}
        if stated != {self.format == "jwt"}:
            raise ValueError("issuer and audience, for format: jwt and for no other")
        return self


class BrokerSettings(_Keyed):
    """A service that passes work on and signs what it passed to whom. Its name is the id that
    workflows list under `via.brokers`.

    `issuers`: as of an attestor, for users as for agents. `tenants`: the only ones whose work
    it may pass on; left out: all.
    """

    audience: Name
    issuers: Names | None = None
    tenants: Names | None = None
    max_lifetime: Seconds = 3600


class ClientSettings(SettingsBlock):
    """A client that authenticates itself: by `private_key_jwt` with `keys`, or by mTLS with one
    of `certificates` (SHA-256 thumbprints).
    """

    keys: Place | None = None
    certificates: Listed = ()
    audience: OneOrSeveral
    tenants: Names
    private_addresses: bool = False

    @model_validator(mode="after")
    def _authenticates(self) -> Self:
        if self.keys is None and not self.certificates:
            raise ValueError("keys or certificates")
        return self


class ProxySettings(SettingsBlock):
    """Proxies whose word about the caller counts. `certificate`: they pass client certificates
    on, in this form; absent: they do not.
    """

    addresses: Annotated[Names, AfterValidator(_networks)]
    certificate: Literal["xfcc", "pem"] | None = None


class PasskeySettings(SettingsBlock):
    """Whose passkeys answer held calls, and in which pages (`agentgate.identity.passkeys`).

    `file`: TOML, a table ``[[passkeys]]`` for each. `rp_id`: the relying party's id, a domain;
    left out: the host of the gate's URL. `origins`: exactly those of the pages in which people
    answer; left out: that of the gate's URL.
    """

    file: Annotated[Path, Field(strict=False)]
    rp_id: Name | None = None
    origins: Annotated[Listed, Field(max_length=20)] = ()


class IdentitySettings(SettingsBlock):
    """See the module."""

    issuers: dict[Name, IssuerSettings] = {}
    trust_domains: dict[Name, TrustDomainSettings] = {}
    attestors: dict[Name, AttestorSettings] = {}
    brokers: dict[Name, BrokerSettings] = {}
    clients: dict[Name, ClientSettings] = {}
    proxies: ProxySettings | None = None

    @model_validator(mode="after")
    def _each_issuer_once(self) -> Self:
        for kind in ("issuers", "attestors"):
            named = [
                each.issuer for each in getattr(self, kind).values() if each.issuer is not None
            ]
            if len(named) != len(set(named)):
                raise WrongValue(
                    "each issuer once (for another audience, open another gate)", kind
                )
        for each in self.issuers.values():
            taken = each.audiences | {each.agent and each.agent.audience}
            if any(
                attestor.issuer == each.issuer and attestor.audience in taken
                for attestor in self.attestors.values()
            ):
                expected = (
                    f"another audience than for the tokens of {each.issuer}: a "
                    "statement about a workload is no token"
                )
                raise WrongValue(expected, "attestors")
        return self

    @classmethod
    def of(cls, given: IdentityGiven) -> IdentitySettings:
        """From what a host gives: the object, its values, or a TOML file, whole or under
        ``[identity]``.

        Raises:
            ConfigError: names the setting, what it was and what is expected.
        """
        if isinstance(given, IdentitySettings):
            return given
        if not isinstance(given, Mapping):
            try:
                read = tomllib.loads(read_text(Path(given)))
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError(
                    "identity", str(given), f"a readable TOML file ({error})"
                ) from None
            given = read.get("identity", read)
        return cls.of_values(given, "identity")


def wrong_setting(error: ValidationError, block: type[BaseModel], *above: str) -> ConfigError:
    """The first problem, with what stands there and what is expected; a name that is unknown
    before one that is missing.

    `above`: the names that the block stands under.
    """
    problems = error.errors(include_url=False)
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    place = tuple(part for part in first["loc"] if not _of_a_union(part))
    got = first["input"]
    cause = first.get("ctx", {}).get("error")
    expected = _FORMS.get(first["type"]) or (
        str(cause) if cause else first["msg"].removeprefix("Input should be ")
    )
    if isinstance(cause, WrongValue):
        place = (*place, *cause.within)
        for part in cause.within:
            got = got.get(part) if isinstance(got, Mapping) else None
    if first["type"] == "missing":
        got = None
        expected = "a value"
    elif first["type"] == "extra_forbidden":
        got = "an unknown setting"
        expected = f"one of {', '.join(_names(block, place[:-1]))}"
    if isinstance(got, Mapping):
        got = ", ".join(map(str, got)) or "nothing"
    return ConfigError(
        ".".join((*above, *map(str, place))), got, expected, name=place[-1] if place else ""
    )


_FORMS = tomllib.loads(read_text(Path(__file__).with_name("forms.toml")))


def _of_a_union(part: str | int) -> bool:
    """Whether this is pydantic's name for one of several forms, and no setting's."""
    return isinstance(part, str) and (
        part == "constrained-str" or part.startswith(("tuple[", "function-"))
    )


def _names(block: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The settings that may stand at a place: below a block's name stand those of its kind."""
    for part in place:
        if part in block.model_fields:  # else it is a name that the operator chose
            kind = block.model_fields[str(part)].annotation
            blocks = [
                each
                for each in (kind, *get_args(kind))
                if isinstance(each, type) and issubclass(each, BaseModel)
            ]
            if not blocks:  # a value: nothing stands below it
                return []
            block = blocks[0]
    return list(block.model_fields)


IdentityGiven = IdentitySettings | Mapping[str, Any] | str | os.PathLike[str]
