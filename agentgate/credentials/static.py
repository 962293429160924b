"""Secrets that somebody else rotates: from a file, the environment or the system's keyring,
read anew for every call.

Rules: a file must be a regular one of this user, readable by nobody else; a link is not
followed. The environment is inherited by every program that this process starts, and readable
by all code in it: for a tool that runs in the agent's process, take a file that only another
user can read, and a tool server. What is read is the text without white space around it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY

from agentgate.errors import ConfigError, UpstreamRefused
from agentgate.redemption.credential import Redemption, UpstreamCredential
from agentgate.token.regular_file import read_regular
from agentgate.values.value_class import value_class

_MAX = 64 * 1024  # bytes of a secret


@value_class
class Secret:
    """Where one secret is; exactly one of the three.

    Attributes:
        file: path of a file, owner-only.
        env: name of an environment variable.
        keyring: service and user name in the system's keyring (extra ``[keyring]``).
        scopes: what it may do, in the words of roles.yaml; None: unknown.
    """

    _: KW_ONLY
    file: str | os.PathLike[str] | None = None
    env: str | None = None
    keyring: tuple[str, str] | None = None
    scopes: Collection[str] | None = None

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.file, self.env, self.keyring)) != 1:
            raise ConfigError(
                "secret", "none or several of file, env, keyring", "exactly one of them"
            )
        if isinstance(self.scopes, str):
            raise ConfigError("secret.scopes", self.scopes, "a list of scopes")

    def read(self) -> str:
        """The secret.

        Raises:
            UpstreamRefused: missing, empty, or readable by others.
        """
        if self.file is not None:
            text = _read_file(os.fspath(self.file))
        elif self.env is not None:
            text = os.environ.get(self.env, "")
        else:
            text = _read_keyring(*(self.keyring or ("", "")))
        if not (text := text.strip()):
            raise UpstreamRefused("secret", "nothing", "a secret")
        return text


def _read_file(file: str) -> str:
    try:
        return read_regular(file, forbidden=0o077, most=_MAX).decode()
    except OSError as error:
        raise UpstreamRefused(
            f"secret.file {file}",
            error.strerror,
            "a readable file of this user with mode 0600 (no link)",
        ) from None
    except UnicodeDecodeError:
        raise UpstreamRefused(
            f"secret.file {file}", "bytes that are no text", "UTF-8"
        ) from None


def _read_keyring(service: str, user: str) -> str:
    try:
        import keyring  # noqa: PLC0415 - an extra
    except ImportError:
        raise UpstreamRefused(
            "secret.keyring", "no package keyring", "the extra [keyring]"
        ) from None
    return keyring.get_password(service, user) or ""


@value_class
class StaticBroker:
    """The secrets of some roles: ``upstream: {payments.refund: {broker: NAME, role: ROLE}}``.

    Attributes:
        secrets: role -> where its secret is.
        tenants: the only ones for whose calls it is asked; None: those of the tool server.
    """

    secrets: Mapping[str, Secret]
    tenants: Collection[str] | None = None
    takes = frozenset({"role"})

    def fetch(self, call: Redemption) -> UpstreamCredential:
        """The secret of the role that the call's workflow names; it has no end.

        Raises:
            UpstreamRefused: no such role here, or its secret cannot be read.
        """
        role = call.wanted.role
        secret = self.secrets.get(role)
        if not secret:
            raise UpstreamRefused(
                "upstream.role", role, f"one of {', '.join(sorted(self.secrets))}"
            )
        return UpstreamCredential({"secret": secret.read()}, scopes=secret.scopes)
