"""Whose passkeys these are: a file of public keys that the operator keeps, and assertions
verified by them (Web Authentication Level 3).

Rules: a person is who the file says, in the tenants and groups it says now; an assertion brings
no name. The relying party's id and the origins are settings, never taken from what is verified.
The authenticator must have verified its user, in a page of these origins that no other page
embeds. The counter of signatures is not looked at: passkeys that are synchronised always send
0, and what it would find, a second use of one assertion, cannot be: each challenge is used
once. The file is read again when it changes. While it cannot be read, or is wrong anywhere,
there are no passkeys.

Whoever likes sends an attestation object, so nothing of it is decoded before it is plain CBOR
(sections 6.5 and 6.1): a decoder obeys tags, some of which cost it minutes (35 is a regular
expression, which it compiles). WebAuthn has none: CTAP2's canonical form knows neither tags nor
indefinite lengths. No attestation is asked for, so no statement of one is looked at.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Field
from webauthn import verify_authentication_response, verify_registration_response
from webauthn.helpers import (
    bytes_to_base64url,
    decode_credential_public_key,
    decoded_public_key_to_cryptography,
    encode_cbor,
    parse_cbor,
)
from webauthn.helpers.decode_credential_public_key import DecodedOKPPublicKey

from agentgate.errors import (
    ConfigError,
    CredentialRefused,
    IdentityRefused,
    KeyRefused,
    KeysUnavailable,
)
from agentgate.identity.assertion import Assertion
from agentgate.identity.keys import MIN_RSA, strict_object
from agentgate.identity.proven import proven_user
from agentgate.identity.settings import Listed, Name, Names, PasskeySettings, SettingsBlock
from agentgate.token.jws import PublicKey, unb64url
from agentgate.token.regular_file import read_regular
from agentgate.values.request import User
from agentgate.values.value_class import value_class

# major types (RFC 8949 section 3.1)
_BYTES = 2
_ARRAY = 4
_TAG = 6
_ID = 53  # where the length of the credential's id stands
_NEW_KEY = 0x40
_EXTENSIONS = 0x80


def without_attestation(attested: bytes) -> bytes:
    """The same attestation object with the statement ``none`` (section 8.7).

    Raises:
        ValueError: it, or what it holds, is not plain CBOR. LookupError, TypeError: it has
            another form.
    """
    _check_ends(attested, 0, 1)
    data = parse_cbor(attested)["authData"]
    if type(data) is not bytes:
        raise TypeError("authData: expected bytes")
    flags = data[32]
    key = _ID + 2 + int.from_bytes(data[_ID : _ID + 2])
    _check_ends(
        data,
        key if flags & _NEW_KEY else 37,
        bool(flags & _NEW_KEY) + bool(flags & _EXTENSIONS),
    )
    return encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})


def _check_ends(data: bytes, at: int, items: int) -> None:
    """Refuse what is not exactly so many items of plain CBOR from `at` on. Raises ValueError,
    IndexError.
    """
    while items:
        kind = data[at] >> 5
        size = data[at] & 31
        at = at + 1
        items = items - 1
        if kind == _TAG or size > 27:
            raise ValueError("CBOR: a tag, or an indefinite length")
        if size > 23:
            width = 1 << (size - 24)
            size = int.from_bytes(data[at : at + width])
            at = at + width
        if kind in {_BYTES, _BYTES + 1}:
            at += size
        elif kind in {_ARRAY, _ARRAY + 1}:
            items += size * (kind - _ARRAY + 1)
        if items > len(data):
            raise ValueError("CBOR: more items than bytes")
    if at != len(data):
        raise ValueError("CBOR: another length")


FRESH = 1.0  # seconds
# bytes, rows, characters
MAX_FILE = 1024 * 1024
MAX_PASSKEYS = 2000
MAX_REGISTRATION = 32 * 1024
# bytes of authenticator data without extensions, of which none is asked for (section 6.1)
_KEY_DATA = 37


class Passkey(SettingsBlock):
    """A row of the file.

    Attributes:
        id: the credential's id, base64url.
        public_key: its COSE key (RFC 9052 section 7), base64url: ES256, EdDSA or RS256.
        user: whose it is; another passkey of the same person says the same groups.
        tenants: where they answer.
        groups: theirs, in these tenants.
        label: which device it is, for whoever keeps the file.
        zone: their time zone (IANA), in which the pages say times beside UTC.
    """

    id: Annotated[str, Field(min_length=1, max_length=1400)]
    public_key: Annotated[str, Field(min_length=1, max_length=1400)]
    user: Name
    tenants: Names
    groups: Listed = ()
    label: Annotated[str, Field(max_length=200)] = ""
    zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"


class _File(SettingsBlock):
    passkeys: Annotated[tuple[Passkey, ...], Field(strict=False, max_length=MAX_PASSKEYS)] = ()


class Registered(NamedTuple):
    """A new passkey: credential id and COSE key, both base64url, as a row of the file has
    them.
    """

    id: str
    public_key: str


@value_class
class _Known:
    """A row, read: the COSE key as bytes, who it is in each tenant, and their time zone."""

    key: bytes
    people: Mapping[str, User]
    zone: tzinfo


class Passkeys:
    """The passkeys of one gate. See the module.

    Attributes:
        rp_id: the relying party's id.
        origins: of the pages in which people answer.
    """

    def __init__(
        self,
        settings: PasskeySettings,
        issuer: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file.

        Args:
            settings: the operator's.
            issuer: the gate's URL.
            clock: monotonic seconds.

        Raises:
            ConfigError: a setting, or a row of the file, is wrong.
        """
        self.origins = settings.origins or (_origin_of(issuer),)
        self.rp_id = settings.rp_id or urlsplit(issuer).hostname or ""
        _check_place(self.rp_id, self.origins)
        self._file = settings.file
        self._clock = clock
        self._data = b""
        self._known = dict[str, _Known]()
        self._problem = ""
        self._take(self._bytes())
        self._read_at = clock()

    @classmethod
    def of(cls, given: PasskeySettings | Mapping[str, Any], issuer: str) -> Passkeys:
        """From what a host gives: the settings, or their values. Raises as the constructor."""
        if isinstance(given, Mapping):
            given = PasskeySettings.of_values(given, "passkeys")
        return cls(given, issuer)

    @property
    def due(self) -> bool:
        """Whether the file is to be looked at again."""
        return self._clock() - self._read_at >= FRESH

    def read(self) -> str:
        """Look at the file again; what is newly wrong with it."""
        before = self._problem
        try:
            data = self._bytes()
            if data != self._data or self._problem:
                self._take(data)
            self._problem = ""
        except ConfigError as error:
            self._known = {}
            self._problem = str(error)
        self._read_at = self._clock()
        return "" if self._problem == before else self._problem

    def names(self, tenant: str) -> bool:
        """Whether anybody of this tenant has one."""
        return any(tenant in each.people for each in self._known.values())

    def people(self, credential: str) -> Mapping[str, User]:
        """Whose this credential id is, proven, by tenant; empty: nobody's.

        Raises:
            KeysUnavailable: the file cannot be read.
        """
        known = self._of(credential)
        return known.people if known else {}

    def zone(self, credential: str) -> tzinfo:
        """The time zone of whoever has this credential id; nobody's is UTC."""
        known = self._of(credential)
        return known.zone if known else UTC

    def person(self, assertion: Assertion, challenge: bytes, tenant: str) -> User:
        """Who made this assertion over this challenge, proven.

        Args:
            assertion: read, unverified.
            challenge: bytes that were never asked for before.
            tenant: in which tenant they answer.

        Raises:
            KeysUnavailable: the file cannot be read. CredentialRefused: it proves nobody of
                this tenant.
        """
        # (1) whose it is
        known = self._of(assertion.id)
        if not known or tenant not in known.people:
            raise CredentialRefused(
                "assertion.id", assertion.id, f"a passkey of tenant {tenant} in {self._file}"
            )
        # (2) in a page of its own, without extensions: nobody asked for any
        _check_page(assertion.client_data, "assertion")
        if len(assertion.authenticator_data) != _KEY_DATA:
            got = f"{len(assertion.authenticator_data)} bytes"
            raise CredentialRefused(
                "assertion.authenticatorData", got, f"{_KEY_DATA}: no extension and no new key"
            )
        # (3) section 7.2: type, challenge, origin, relying party, presence and verification of
        # the user, signature
        try:
            verify_authentication_response(
                credential=assertion.text,
                expected_challenge=challenge,
                expected_rp_id=self.rp_id,
                expected_origin=list(self.origins),
                credential_public_key=known.key,
                credential_current_sign_count=0,  # any: see the module
                require_user_verification=True,
            )
        except Exception as error:  # noqa: BLE001 - whatever the library raises of what somebody sent, it proves nothing
            raise CredentialRefused(
                "assertion", str(error), "one over exactly this challenge, for this gate"
            ) from None
        return known.people[tenant]

    def registered(self, credential: str, challenge: bytes) -> Registered:
        """A new passkey (section 7.1), whose row an operator adds to the file. It makes nobody
        anybody.

        Args:
            credential: JSON text of what ``navigator.credentials.create`` returned.
            challenge: the bytes that it was asked with, never used before.

        Raises:
            CredentialRefused: it was not made for this gate, by these rules.
        """
        if type(credential) is not str or len(credential) > MAX_REGISTRATION:
            raise CredentialRefused(
                "registration",
                type(credential).__name__,
                f"JSON text of at most {MAX_REGISTRATION} characters",
            )
        read = strict_object(credential.encode("utf-8", "surrogatepass"), "registration")
        try:
            client_data = strict_object(
                unb64url(read["response"]["clientDataJSON"].encode("ascii")),
                "registration.clientDataJSON",
            )
            _check_page(client_data, "registration")
            attested = without_attestation(
                unb64url(read["response"]["attestationObject"].encode("ascii"))
            )
            made = verify_registration_response(
                credential={
                    **read,
                    "response": {
                        **read["response"],
                        "attestationObject": bytes_to_base64url(attested),
                    },
                },
                expected_challenge=challenge,
                expected_rp_id=self.rp_id,
                expected_origin=list(self.origins),
                require_user_verification=True,
            )
            _public_key(made.credential_public_key)
        except CredentialRefused:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise CredentialRefused(
                "registration",
                f"{type(error).__name__}: {error}",
                "a new passkey, made for this gate",
            ) from None
        return Registered(
            bytes_to_base64url(made.credential_id),
            bytes_to_base64url(made.credential_public_key),
        )

    def _of(self, credential: str) -> _Known | None:
        if self._problem:
            raise KeysUnavailable("passkeys", self._problem, "a file that can be read")
        return self._known.get(credential)

    def _bytes(self) -> bytes:
        try:
            return read_regular(self._file, links=True, most=MAX_FILE)
        except OSError as error:
            expected = f"a readable TOML file of at most {MAX_FILE} bytes ({error.strerror})"
            raise ConfigError("passkeys.file", str(self._file), expected) from None

    def _take(self, data: bytes) -> None:
        try:
            rows = _File.of_values(tomllib.loads(data.decode())).passkeys
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                "passkeys.file",
                str(self._file),
                f"a TOML file with [[passkeys]] ({str(error)[:200]})",
            ) from None
        self._data = data
        self._known = _rows(rows)


def _rows(rows: tuple[Passkey, ...]) -> dict[str, _Known]:
    """The rows by credential id. Raises ConfigError: a weak or unreadable key, one twice, a
    person in other groups than before.
    """
    found = {}
    keys = set()
    people: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, row in enumerate(rows):
        where = f"passkeys.{number}"
        try:
            zone = ZoneInfo(row.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"{where}.zone", row.zone, "a time zone, such as Europe/Berlin"
            ) from None
        try:
            _ = unb64url(row.id.encode("ascii"))
            key = unb64url(row.public_key.encode("ascii"))
            der = _public_key(key)
            who = {
                tenant: proven_user(row.user, tenant=tenant, groups=row.groups)
                for tenant in row.tenants
            }
        except KeyRefused as error:
            raise ConfigError(f"{where}.public_key", row.public_key[:40], str(error)) from None
        except IdentityRefused as error:
            raise ConfigError(
                f"{where}.user", error.got, f"{error.field}: {error.expected}"
            ) from None
        except ValueError:
            raise ConfigError(
                where, row.id[:40], "id and public_key in base64url, without padding"
            ) from None
        if row.id in found:
            raise ConfigError(f"{where}.id", row.id[:40], "each credential once")
        if der in keys:
            raise ConfigError(
                f"{where}.public_key",
                row.public_key[:40],
                "each key once: a key of two people is nobody's",
            )
        for tenant in row.tenants:
            if people.setdefault((tenant, row.user), row.groups) != row.groups:
                raise ConfigError(
                    f"{where}.groups",
                    list(row.groups),
                    f"those of {row.user}'s other passkeys in {tenant}",
                )
        keys.add(der)
        found[row.id] = _Known(key, who, zone)
    return found


def _public_key(cose: bytes) -> bytes:
    """The DER (SubjectPublicKeyInfo) of a COSE key that may count. Raises KeyRefused:
    unreadable, weak, or of another algorithm.
    """
    expected = (
        f"a COSE key: ES256 on P-256, EdDSA on Ed25519, or RS256 of at least {MIN_RSA} bits"
    )
    try:
        decoded = decode_credential_public_key(cose)
        key = decoded_public_key_to_cryptography(decoded)
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:  # noqa: BLE001 - whatever the library raises of a key that is none
        raise KeyRefused(f"{expected} ({type(error).__name__})") from None
    # a map: no raw point of U2F, which names no algorithm
    kind = (decoded.alg, getattr(decoded, "crv", None), cose[0] & 0xE0)
    if isinstance(key, RSAPublicKey):
        if kind != (-257, None, 0xA0) or key.key_size < MIN_RSA:
            raise KeyRefused(
                f"{expected}, got RSA of {key.key_size} bits, algorithm {str(decoded.alg)[:40]}"
            )
    elif kind not in {(-7, 1, 0xA0), (-8, 6, 0xA0)}:
        raise KeyRefused(f"{expected}, got algorithm {str(decoded.alg)[:40]}")
    if isinstance(decoded, DecodedOKPPublicKey):
        # no point of small order
        PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": bytes_to_base64url(decoded.x)})
    return der


def _check_page(client_data: Mapping[str, Any], name: str) -> None:
    """Refuse a page that another one embeds (section 5.8.1). Raises CredentialRefused."""
    if client_data.get("crossOrigin", False) is not False or "topOrigin" in client_data:
        got = client_data.get("topOrigin", client_data.get("crossOrigin"))
        raise CredentialRefused(
            f"{name}.crossOrigin", got, "false: a page that no page of another origin embeds"
        )


def _origin_of(issuer: str) -> str:
    """The origin of a URL (RFC 6454 section 6.2); of one whose port is none, nothing."""
    url = urlsplit(issuer)
    try:
        port = (
            "" if url.port in {None, 443 if url.scheme == "https" else 80} else f":{url.port}"
        )
    except ValueError:
        return ""
    return f"{url.scheme}://{url.hostname}{port}"


def _check_place(rp_id: str, origins: tuple[str, ...]) -> None:
    """The relying party's id must be the domain of every origin, or one above it (section
    5.1.4.1). Raises ConfigError.
    """
    labels = rp_id.split(".")
    if labels[-1].isdigit() or not all(
        each and each.replace("-", "").isalnum() and each.isascii() and each == each.lower()
        for each in labels
    ):
        raise ConfigError(
            "passkeys.rp_id", rp_id, "a domain in lower case: WebAuthn takes no IP address"
        )
    for number, origin in enumerate(origins):
        url = urlsplit(origin)
        host = url.hostname or ""
        safe = url.scheme == "https" or (url.scheme == "http" and host == "localhost")
        if (
            not safe
            or origin != _origin_of(origin)
            or (host != rp_id and not host.endswith(f".{rp_id}"))
        ):
            expected = (
                f"https://HOST[:PORT] of {rp_id} or a domain below it, as a browser "
                "writes it (http only of localhost)"
            )
            raise ConfigError(f"passkeys.origins.{number}", origin, expected)
