"""A caller's certificate, shown in TLS: it proves the client (RFC 8705 section 2), and tokens
are bound to it (section 3).

Rules: a token for a certificate goes over connections that show that one, and over no others. A
renewed certificate is a new object, on connections of its own.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn, Self

from agentgate.errors import ConfigError, KeyRefused
from agentgate.identity.certificate import thumbprint_of
from agentgate.integrations.client_key import owned
from agentgate.token.regular_file import read_regular
from agentgate.values.value_class import value_class


@value_class
class ClientCertificate:
    """A certificate and its private key, as a context of TLS.

    Attributes:
        context: for the client that sends the requests:
            ``httpx.Client(verify=certificate.context)``.
        thumbprint: SHA-256 of the certificate, base64url (`x5t#S256`).
    """

    context: ssl.SSLContext
    thumbprint: str

    @classmethod
    def read(
        cls,
        path: Path | str,
        key: Path | str | None = None,
        *,
        authorities: Path | str | None = None,
    ) -> Self:
        """The certificate in a PEM file, its own first, and its private key, which only its
        owner may read.

        Args:
            path: of the certificate.
            key: of its private key; None: it is in the same file.
            authorities: a PEM file: who vouches for the gate and the tool servers; None: whom
                this system trusts.

        Raises:
            ConfigError: a file cannot be read. KeyRefused: others may read the key, or it is
                not the certificate's.
        """
        owned("certificate key", Path(key or path))
        try:
            context = ssl.create_default_context(cafile=authorities)
        except (OSError, ValueError) as error:
            raise ConfigError(
                "authorities",
                str(authorities),
                f"a file of certificates as PEM ({type(error).__name__})",
            ) from None
        try:
            context.load_cert_chain(path, key, password="")  # a passphrase is asked of nobody
            thumbprint = thumbprint_of(
                read_regular(path, links=True).decode("ascii", "replace")
            )
        except FileNotFoundError:
            raise ConfigError("certificate", str(path), "a file that can be read") from None
        except (OSError, ValueError):  # what OpenSSL says of it is not for people
            thumbprint = None
        if thumbprint is None:
            raise KeyRefused(
                f"{path}: expected a certificate as PEM, and {key or 'in the same file'} its "
                "private key, unencrypted"
            )
        return cls(context, thumbprint)

    def __repr__(self) -> str:
        return f"<ClientCertificate {self.thumbprint}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client's certificate is neither copied nor pickled")
