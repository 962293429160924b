"""A WebAuthn assertion as a browser gives it (Web Authentication Level 3, section 5.1;
`PublicKeyCredential.toJSON()`), unverified.

Rules: of the credential only what is verified is kept; members that a later browser adds are
ignored, as the specification asks. What is kept has one encoding: canonical base64url, and no
JSON key twice where two readers could disagree on what was signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from agentgate.errors import CredentialRefused
from agentgate.identity.keys import strict_object
from agentgate.token.jws import unb64url
from agentgate.values.canonical import canonical
from agentgate.values.value_class import value_class

MAX_ASSERTION = 8 * 1024  # characters, whole and of each member
_SIGNED = ("clientDataJSON", "authenticatorData", "signature")


@value_class
class Assertion:
    """See the module; made by `parse`.

    Attributes:
        id: the credential's id, base64url.
        client_data: what the browser says of the page, the members of `clientDataJSON`.
        authenticator_data: the bytes that the authenticator signed before the digest of
            `clientDataJSON`.
        text: the whole as canonical JSON, with no more than is verified.
    """

    id: str
    client_data: Mapping[str, Any]
    authenticator_data: bytes
    text: str

    @classmethod
    def parse(cls, given: object) -> Self:
        """Read one.

        Args:
            given: JSON text, or the values that it stands for.

        Raises:
            CredentialRefused: too long, another form, or another encoding.
        """
        read = _members(given)
        response = read.get("response")
        signed = {
            name: response.get(name) if isinstance(response, Mapping) else None
            for name in _SIGNED
        }
        own = {"id": read.get("id"), "rawId": read.get("rawId")}
        data = {name: _bytes(name, value) for name, value in {**own, **signed}.items()}
        if read.get("type") != "public-key":
            raise CredentialRefused("assertion.type", read.get("type"), "public-key")
        client_data = strict_object(data["clientDataJSON"], "assertion.clientDataJSON")
        text = canonical({**own, "type": "public-key", "response": signed}).decode()
        return cls(str(own["id"]), client_data, data["authenticatorData"], text)


def _members(given: object) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if type(given) is not str or len(given) > MAX_ASSERTION:
        got = f"{len(given)} characters" if type(given) is str else type(given).__name__
        raise CredentialRefused(
            "assertion",
            got,
            f"a JSON object of at most {MAX_ASSERTION} characters, or its values",
        )
    return strict_object(given.encode("utf-8", "surrogatepass"), "assertion")


def _bytes(name: str, value: object) -> bytes:
    if type(value) is not str or not 0 < len(value) <= MAX_ASSERTION:
        got = f"{len(value)} characters" if type(value) is str else type(value).__name__
        raise CredentialRefused(
            f"assertion.{name}",
            got,
            f"text of at most {MAX_ASSERTION} characters, as toJSON() writes it",
        )
    try:
        return unb64url(value.encode("ascii"))
    except ValueError:
        raise CredentialRefused(
            f"assertion.{name}", "another encoding", "canonical base64url"
        ) from None
