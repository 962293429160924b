"""What a served gate is started with: one frozen object, from one TOML file and the environment
(``docs/service.md``).

Rules: unknown names are refused; a variable ``AGENTGATE_STORE`` stands over ``store`` in the
file. Hosts, agents and tool servers are clients of their own, each with its own way to
authenticate. Nothing is unsafe by default: a gate whose workflows nobody signed says so, in its
settings, and listens on loopback only.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from agentgate.errors import ConfigError
from agentgate.gate.notify import Command, Webhook
from agentgate.identity.settings import (
    IdentitySettings,
    Listed,
    Name,
    Names,
    PasskeySettings,
    Place,
    SettingsBlock,
    WrongValue,
    wrong_setting,
)
from agentgate.token.jws import Alg
from agentgate.token.regular_file import read_regular, read_text

Role = Literal["host", "agent", "tool_server", "auditor"]
_SECRET = "whsec_"  # noqa: S105 - how one begins
_NEEDED = {
    "issuer": "the URL that callers know the gate by, e.g. https://gate.acme.example",
    "workflows": "the directory of the workflow files",
    "keys": "the directory of the gate's keys, made if it is not there",
    "store": (
        "embedded:///absolute/path, redis://, rediss://, unix://, redis+sentinel:// or "
        "redis+cluster://"
    ),
    "audit": "the directory of the audit log, made if it is not there",
}
_WHOLE = (
    "max_body rate connections workers runs_per_hour denials_per_run open_holds_per_run".split()
)
_THUMBPRINT = (
    "the SHA-256 of the certificate in base64url "
    "(openssl x509 -in FILE -outform der | openssl dgst -sha256 -binary | basenc --base64url | tr -d =)"
)


def _thumbprint(value: str) -> str:
    # in hex, as openssl prints it, it would be that of no certificate
    if not re.fullmatch("[A-Za-z0-9_-]{43}", value):
        raise ValueError(_THUMBPRINT)
    return value


Thumbprint = Annotated[Name, AfterValidator(_thumbprint)]
_ROLES = (
    "host (opens runs), agent (asks for tokens), tool_server (redeems them) or auditor "
    "(reads the audit log)"
)


class Served(SettingsBlock):
    """A client of the service. How it authenticates: `keys` (private_key_jwt), `certificates`
    (mTLS), its own `credential`, or a `group`.

    Attributes:
        role: what it may do.
        tenants: the only tenants it may act in.
        keys: file or pinned URL with its public keys (JWK set).
        certificates: SHA-256 thumbprints (base64url) of its certificates.
        credential: of an agent that has nothing but what it exchanges: the one issuer of its
            tokens, or its SPIFFE id.
        group: of an auditor: people in it read the pages with their `passkeys`.
        resources: of a tool server: its URLs, the `aud` of its tokens.
        definitions: of a tool server: its tools and the digests of their definitions, as it
            declares them.
        private_addresses: the URL of `keys` may lead into your own network.
    """

    role: Role
    tenants: Names
    keys: Place | None = None
    certificates: Annotated[tuple[Thumbprint, ...], Field(strict=False)] = ()
    credential: Name | None = None
    group: Name | None = None
    resources: Listed = ()
    definitions: dict[Name, Name] = Field(default_factory=dict)
    private_addresses: bool = False

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if (
            self.keys is None
            and not self.certificates
            and self.credential is None
            and self.group is None
        ):
            raise ValueError(
                "keys, certificates or, for an agent, credential, for an auditor, group: how "
                "it authenticates"
            )
        if self.group is not None and self.role != "auditor":
            raise ValueError(
                "keys, certificates or credential (only an auditor is known by a group of its people)"
            )
        if self.credential is not None and self.role != "agent":
            raise ValueError(
                "keys or certificates (only an agent is known by the credential it exchanges)"
            )
        if (self.role == "tool_server") != bool(self.resources):
            raise ValueError(
                "resources, for a tool_server and for no other: the URLs that its tokens are for"
            )
        if self.definitions and self.role != "tool_server":
            raise ValueError(
                "definitions for a tool_server only: an agent does not say what a tool is"
            )
        return self


class NotifySettings(SettingsBlock):
    """Who learns what becomes of held calls: a webhook, or a command.

    Attributes:
        url: exact; with `secret`, the file of its secret (``whsec_`` and base64, as Standard
            Webhooks write it).
        private_addresses: the URL may lead into your own network.
        command: a program and its arguments, no shell.
    """

    url: Name | None = None
    secret: Annotated[Path, Field(strict=False)] | None = None
    private_addresses: bool = False
    command: Listed = ()

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.command) == (self.url is not None) or (self.secret is None) != (
            self.url is None
        ):
            raise ValueError("url and secret (a webhook), or command")
        return self

    def hook(self) -> Webhook | Command:
        """Build the hook. Raises ConfigError: a setting, or the file of the secret, is
        wrong.
        """
        if self.url is None or self.secret is None:
            return Command(self.command)
        try:
            text = read_regular(self.secret, forbidden=0o022).decode("ascii").strip()
            secret = (
                base64.b64decode(text.removeprefix(_SECRET), validate=True)
                if text.startswith(_SECRET)
                else b""
            )
        except (OSError, ValueError):
            secret = b""
        if not secret:
            expected = (
                f'a file with {_SECRET} and base64 (echo "{_SECRET}$(openssl rand '
                '-base64 32)"), of this user, no link'
            )
            raise ConfigError("tell.secret", str(self.secret), expected)
        return Webhook(self.url, secret, private=self.private_addresses)


class ServiceSettings(BaseSettings):
    """See the module.

    Attributes:
        issuer: the URL that callers know: `iss` of tokens, and the start of every endpoint's
            URL. No path.
        workflows, root, keys, store, audit, environment, brokers, alg, data_classes,
            answer_keys, passkeys: as of `Gate.open`.
        unsafe_unapproved: enforce workflows that nobody signed, instead of a `root`; on
            loopback only.
        listen: ``address:port``, or ``unix:/path``; TLS is ended in front of it.
        certificate_header: the header in which `identity.proxies` pass on a client's
            certificate; absent: none counts.
        deferred: take `completion_mode=deferred` (a draft: Deferred Token Response).
        access_request: an evaluation that says no because a person must be asked says how to
            ask (a draft: `agentgate.service.authzen`).
        metrics: serve /metrics for Prometheus (extra `prometheus`); to whoever reaches the
            service.
        traces: spans by OpenTelemetry (extra `otel`), to wherever its SDK sends them.
        max_body: bytes of a request's body.
        rate: requests a second of one client (and of one address), on average; ten times as
            many at once.
        tell: name -> who learns what becomes of held calls.
        runs_per_hour, denials_per_run, open_holds_per_run: as of `Gate.open`.
        shared_runs: as of `Gate.open`; left out: whether there are several workers.
        checkpoints, auditor: as of `Gate.open`.
        connections: at the same time, of each worker; others wait for a place, or are answered
            503.
        workers: processes that share the address; rates and connections are those of each.
    """

    model_config = SettingsConfigDict(
        env_prefix="AGENTGATE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    issuer: Name
    workflows: Path
    root: Name | None = None
    unsafe_unapproved: bool = False
    keys: Path
    store: Annotated[str, Field(repr=False, min_length=1)]
    audit: Path
    environment: Name | None = None
    brokers: frozenset[Name] = frozenset()
    alg: Alg = "ES256"
    data_classes: Path | None = None
    identity: IdentitySettings = IdentitySettings()
    clients: dict[Name, Served] = {}
    listen: str = "127.0.0.1:8080"
    certificate_header: Name | None = None
    deferred: bool = False
    access_request: bool = False
    metrics: bool = False
    traces: bool = False
    max_body: Annotated[int, Field(ge=1024, le=1024 * 1024)] = 128 * 1024
    rate: Annotated[int, Field(ge=1, le=100_000)] = 50
    answer_keys: dict[Name, Path] = {}
    passkeys: PasskeySettings | None = None
    tell: dict[Name, NotifySettings] = {}
    runs_per_hour: int | None = None
    denials_per_run: int | None = None
    open_holds_per_run: int | None = None
    shared_runs: bool | None = None
    checkpoints: tuple[Name, ...] = ()
    auditor: Path | None = None
    connections: Annotated[int, Field(ge=1)] = 512
    workers: Annotated[int, Field(ge=1, le=64)] = 1

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings gives them by name
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above: no file is read that nobody named
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then the file."""
        return EnvSettingsSource(settings_cls), init_settings

    @model_validator(mode="after")
    def _fits(self) -> Self:
        url = urlsplit(self.issuer)
        if (
            url.scheme not in {"https", "http"}
            or not url.hostname
            or url.path
            or url.query
            or url.fragment
            or url.username is not None
        ):
            raise WrongValue(
                "an https URL without path, e.g. https://gate.acme.example", "issuer"
            )
        if (self.root is None) != self.unsafe_unapproved:
            raise WrongValue(
                "the digest of your root of approvals (or unsafe_unapproved = true, on loopback)",
                "root",
            )
        if self.unsafe_unapproved and not self.loopback:
            raise WrongValue("a loopback address, where unsafe_unapproved is true", "listen")
        if self.store == "memory://" and not self.unsafe_unapproved:
            shared = (
                "embedded:///absolute/path, redis://, rediss://, unix://, "
                "redis+sentinel:// or redis+cluster://"
            )
            raise WrongValue(f"{shared} (memory:// forgets with the process)", "store")
        if self.workers > 1 and self.store.startswith("embedded:"):
            raise WrongValue(
                "1 with an embedded store, which ends with its process (or redis://, rediss://, unix://)",
                "workers",
            )
        if self.workers > 1 and self.store == "memory://":
            raise WrongValue("1 with memory://, which each process has for itself", "workers")
        if self.access_request and not self.deferred:
            raise WrongValue(
                "false, or deferred = true: by a deferred token request a person is asked",
                "access_request",
            )
        if not self.clients and self.passkeys is None:
            raise WrongValue(
                "a table [clients.NAME] for each client (none where [passkeys] alone let "
                "people answer holds)",
                "clients",
            )
        if self.identity.clients:
            raise WrongValue(
                "none; clients of the service stand under clients.NAME, with their role",
                "identity",
                "clients",
            )
        if self.certificate_header is not None and (
            self.identity.proxies is None or self.identity.proxies.certificate is None
        ):
            raise WrongValue(
                "none, or identity.proxies with addresses and certificate", "certificate_header"
            )
        resources = [each for client in self.clients.values() for each in client.resources]
        if len(resources) != len(set(resources)):
            raise WrongValue("each resource belongs to one tool_server", "clients")
        return self

    @field_validator(*_WHOLE, mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if type(value) is bool:  # which is a number to Python
            raise ValueError("a whole number")
        return value

    @field_validator("listen")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not value.startswith("unix:/") and not (
            host and port.isdigit() and int(port) < 65536
        ):
            raise ValueError("address:port, or unix:/path")
        return value

    def hooks(self) -> tuple[Webhook | Command, ...]:
        """Who is told. Raises ConfigError: one of them, or a secret's file, is wrong."""
        found = []
        for name, told in self.tell.items():
            try:
                found.append(told.hook())
            except ConfigError as error:
                raise ConfigError(
                    f"tell.{name}.{error.setting.rpartition('.')[2]}", error.got, error.expected
                ) from None
        return tuple(found)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the service."""
        host = self.listen.rpartition(":")[0].strip("[]")
        try:
            return self.listen.startswith("unix:") or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @classmethod
    def of(cls, file: str | os.PathLike[str] | None) -> ServiceSettings:
        """Settings from a TOML file (None: from the environment alone).

        Raises:
            ConfigError: names the setting, what it was and what is expected.
        """
        read: dict[str, Any] = {}
        if file is not None:
            try:
                read = tomllib.loads(read_text(Path(file)))
            except (OSError, ValueError) as error:
                raise ConfigError(
                    "--settings", str(file), f"a readable TOML file ({error})"
                ) from None
        try:
            return cls(**read)
        except SettingsError as error:  # a variable that should hold JSON
            name = re.search('"([^"]+)"', str(error))
            raise ConfigError(
                f"AGENTGATE_{name[1].upper()}" if name else "AGENTGATE_...",
                "(not shown)",
                "JSON",
            ) from None
        except ValidationError as error:
            wrong = wrong_setting(error, cls)
            got = (
                "(not shown)"
                if wrong.setting == "store" and wrong.got is not None
                else wrong.got
            )
            expected = _ROLES if wrong.failures[0].data["name"] == "role" else wrong.expected
            if got is None and wrong.setting in _NEEDED:
                expected = _NEEDED[wrong.setting] + (
                    "; or name a file with --settings" if file is None else ""
                )
            raise ConfigError(wrong.setting, got, expected) from None
        except TypeError as error:  # a key that is no name of Python's
            raise ConfigError(str(file), "a key of another form", str(error)) from None
