"""A client of a gate that has a key of its own: `private_key_jwt` (RFC 7523 section 3), a fresh
assertion for each request.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn, Self

from agentgate.audit.writing import write_whole
from agentgate.errors import ConfigError, KeyRefused
from agentgate.token.regular_file import read_regular
from agentgate.token.signing import SigningKey, sign_jwt

LIFETIME = 60  # seconds
_OWN = "client key"  # as settings name it


class ClientKey:
    """A client's name at a gate and its private key. The gate's settings have the public one
    (`jwks`).

    Attributes:
        client_id: the client's name in the gate's settings.
    """

    __slots__ = ("_key", "client_id")

    def __init__(self, client_id: str, key: SigningKey) -> None:
        self.client_id = client_id
        self._key = key

    @classmethod
    def read(cls, client_id: str, path: Path | str) -> Self:
        """The key in a file: P-256 or Ed25519, PEM, which only its owner may read.

        Raises:
            ConfigError: there is no such file. KeyRefused: others may read it, or it holds
                another key.
        """
        return cls(client_id, SigningKey.from_pem(owned(_OWN, Path(path))))

    @classmethod
    def made(cls, client_id: str, path: Path | str) -> Self:
        """The key in a file; a new P-256 key is written into it, for its owner only, if it is
        not there.

        Raises:
            ConfigError: it cannot be written. KeyRefused: as `read`.
        """
        try:
            if not Path(path).exists():
                write_whole(Path(path), SigningKey.generate().pem(), first=True)
        except OSError as error:
            raise ConfigError(
                _OWN, str(path), f"a file that can be written ({error.strerror})"
            ) from None
        return cls.read(client_id, path)

    def assertion(self, gate: str) -> str:
        """An assertion for one request to the gate with this issuer URL."""
        now = int(time.time())
        said = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": gate,
            "iat": now,
            "exp": now + LIFETIME,
        }
        return sign_jwt(self._key, said)

    def jwks(self) -> dict[str, Any]:
        """The public key set (RFC 7517) for the gate's settings."""
        return {"keys": [self._key.public_jwk()]}

    def __repr__(self) -> str:
        return f"<ClientKey {self.client_id} {self._key.kid}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client's key is neither copied nor pickled")


def owned(setting: str, path: Path) -> bytes:
    """The bytes of a file that only its owner may read.

    Raises:
        ConfigError: there is none. KeyRefused: others may read it.
    """
    try:
        return read_regular(path, forbidden=0o077)
    except OSError as error:
        if not error.errno:
            raise KeyRefused(
                f"{path}: others may read it, or it is no file of yours ({error.strerror}); "
                f"chmod 600 {path}, or make a new one"
            ) from None
        made = "; agentgate keys client makes one" if setting == _OWN else ""
        raise ConfigError(
            setting, str(path), f"a file that can be read ({error.strerror}){made}"
        ) from None
