"""Where an issuer's keys come from: a pinned URL or a file, cached, read again when they are
old or a key is unknown.

Rules: only public keys for asymmetric signatures, each with its one algorithm and a `kid` that
no other has; a set that holds a private or a secret key is refused whole. A set is read again
after `FRESH` seconds; where that fails, the last one is used for `USABLE` seconds and then
none. An unknown `kid` makes the set be read, but never more often than every `PAUSE` seconds,
and after failures less and less often (no storm on the issuer, whatever callers send). One
caller reads at a time; others go on with the keys they have, and who shows an unknown `kid`
meanwhile is told to come again: a slow issuer, and tokens that nobody signed, take one place of
a gate and not all. Where there are no keys yet, a few callers wait for the first ones
(`agentgate.shell.bound`), in threads of their own; others are told to come again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from agentgate.errors import CredentialRefused, KeyRefused, KeysUnavailable
from agentgate.identity.fetch import MAX_BYTES, SECONDS, fetch
from agentgate.shell.bound import OneReader
from agentgate.shell.step import Outside, OutsideFlow
from agentgate.token.jws import SECRET, PublicKey
from agentgate.token.regular_file import read_regular
from agentgate.values.canonical import strict_parse
from agentgate.values.value_class import value_class

ALGORITHMS = frozenset("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split())
# seconds
FRESH = 300.0
USABLE = 3600.0
PAUSE = 10.0
MAX_PAUSE = 320.0
FILE_FRESH = 1.0  # seconds
MAX_KEYS = 100
# of `Verifications`
MAX_SUBJECTS = 10_000
MAX_OF_ONE = 4
MIN_RSA = 2048  # bits
_BY_TYPE = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("EC", "P-521"): "ES512",
    ("OKP", "Ed25519"): "EdDSA",
}


def strict_object(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object in which no key occurs twice, at any depth.

    Raises:
        CredentialRefused: anything else.
    """
    try:
        value = strict_parse(data)
    except ValueError:
        value = None
    if type(value) is not dict:
        raise CredentialRefused(name, "something else, or a key twice", "a JSON object")
    return value


class Verifications:
    """Credentials whose signature a key of one key set verified: what was expected of them, and
    their digest.

    Rules: that they were signed is all that is known of them: times, key, run, settings and
    revocations are judged each time. It ends with the key set. Each subject has at most
    `MAX_OF_ONE`, the newest, so that nobody's tokens push out those of others; a further one
    than `MAX_SUBJECTS` takes the place of the one that was kept longest ago, which is then
    verified again.
    """

    __slots__ = ("_of",)

    def __init__(self) -> None:
        # each change of it is one step, for threads too
        self._of = OrderedDict[Hashable, tuple[Hashable, ...]]()

    def holds(self, subject: Hashable, name: Hashable) -> bool:
        """Whether a credential was verified before, and kept."""
        return name in self._of.get(subject, ())

    def keep(self, subject: Hashable, name: Hashable) -> None:
        """Keep a credential that was verified now."""
        self._of[subject] = (*self._of.pop(subject, ())[1 - MAX_OF_ONE :], name)
        if len(self._of) > MAX_SUBJECTS:
            self._of.popitem(last=False)


@value_class
class KeySet:
    """What a source held. `keys`: by `kid`; `roots`: X.509 authorities (base64 DER) of a SPIFFE
    bundle; `verifications`: by its keys.
    """

    keys: Mapping[str, jwt.PyJWK]
    roots: tuple[str, ...] = ()
    verifications: Verifications = field(default_factory=Verifications, compare=False)


def read_keys(data: bytes, *, spiffe: bool = False) -> KeySet:
    """Read a JWK set (RFC 7517), or a SPIFFE bundle: keys for other uses, of other types or
    without a name are left out.

    Raises:
        KeyRefused: no JWK set; a private, secret, weak or malformed key; a `kid` twice.
    """
    try:
        listed = strict_object(data, "keys").get("keys")
    except CredentialRefused as error:
        raise KeyRefused(f"key set: {error}") from None
    if (
        type(listed) is not list
        or len(listed) > MAX_KEYS
        or not all(type(each) is dict for each in listed)
    ):
        raise KeyRefused(f'key set: expected {{"keys": [...]}}, at most {MAX_KEYS}')
    if any(SECRET & each.keys() for each in listed):
        raise KeyRefused("key set: got a private or secret key, expected public ones only")
    use = "jwt-svid" if spiffe else "sig"
    keys = {}
    for each in listed:
        kid = each.get("kid")
        alg = each.get("alg", _BY_TYPE.get((each.get("kty"), each.get("crv"))))
        for_this = each.get("use", None if spiffe else use) == use and "verify" in each.get(
            "key_ops", ["verify"]
        )
        if type(kid) is not str or not kid or not for_this or alg not in ALGORITHMS:
            continue
        if kid in keys:
            raise KeyRefused(f"key {kid[:64]!r} is twice in the set")
        keys[kid] = _key(each, alg)
    chains = [each.get("x5c") for each in listed if spiffe and each.get("use") == "x509-svid"]
    return KeySet(
        keys,
        tuple(
            chain[0]
            for chain in chains
            if type(chain) is list and chain and type(chain[0]) is str
        ),
    )


def _key(jwk: dict[str, Any], alg: str) -> jwt.PyJWK:
    try:
        key = jwt.PyJWK(jwk, alg)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise KeyRefused(
            f"key {jwk['kid'][:64]!r}: unusable ({type(error).__name__})"
        ) from None
    if jwk.get("crv") == "Ed25519":
        PublicKey.from_jwk(jwk)  # refuses points of small order, which pyca loads
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA:
        raise KeyRefused(
            f"key {jwk['kid'][:64]!r}: got {key.key.key_size} bits, expected at least {MIN_RSA}"
        )
    return key


class KeySource:
    """The keys at one place. See the module.

    Args:
        where: an https URL or the path of a file.
        private: a URL may lead to addresses that are not public.
        spiffe: the set is a SPIFFE bundle.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        where: str,
        *,
        private: bool = False,
        spiffe: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.where = where
        self._private = private
        self._spiffe = spiffe
        self._clock = clock
        self._remote = "://" in where
        self._set = KeySet({})
        self._problem = "never read"
        self._text: bytes | None = None  # of the set
        self._read_at = self._next = float("-inf")
        self._pause = 0.0
        self._reader = OneReader()

    def _known(self, kid: str) -> bool:
        """Whether there is such a key, or any set where none is named."""
        return (not kid or kid in self._set.keys) and self._clock() - self._read_at < USABLE

    def _due(self, kid: str) -> bool:
        now = self._clock()
        fresh = now - self._read_at < (FRESH if self._remote else FILE_FRESH)
        return now >= self._next and not (fresh and self._known(kid))

    def read(self, kid: str = "") -> None:
        """Read the keys again, unless somebody else does or it was tried lately; a failure
        keeps what there is.
        """
        self._reader.read(self._read, lambda: self._due(kid), wait=not self._known(""))

    def _read(self) -> None:
        pause = PAUSE if self._remote else FILE_FRESH
        try:
            text = self._data()
            if text != self._text:
                self._set = read_keys(text, spiffe=self._spiffe)
                self._text = text
        except (KeyRefused, KeysUnavailable, OSError) as error:
            self._problem = f"{type(error).__name__}: {error}"[:300]
            self._pause = min(MAX_PAUSE, max(pause, 2 * self._pause))
        else:
            self._read_at = self._clock()
            self._pause = pause
        self._next = self._clock() + self._pause

    def _data(self) -> bytes:
        if self._remote:
            return fetch(self.where, private=self._private)
        return read_regular(self.where, links=True, most=MAX_BYTES)

    def held(self, kid: str = "") -> OutsideFlow[KeySet]:
        """The keys, read again first where that is due.

        Raises:
            KeysUnavailable: there are none, or none that may still be used.
        """
        if self._due(kid):
            yield Outside(lambda: self.read(kid), 2 * SECONDS, own_thread=True)
        if self._clock() - self._read_at >= USABLE:
            problem = "being read" if self._reader.reading else self._problem
            raise KeysUnavailable(
                "keys", f"{self.where}: {problem}", "a key set that can be read"
            )
        return self._set

    def key(self, kid: str) -> OutsideFlow[tuple[jwt.PyJWK, Verifications]]:
        """The key of this name, and what the keys of its set verified.

        Raises:
            KeysUnavailable: as `held`. CredentialRefused: there is no such key.
        """
        held = yield from self.held(kid)
        found = held.keys.get(kid)
        if not found and self._reader.reading:
            raise KeysUnavailable(
                "keys", f"{self.where}: being read again", "another try in a moment"
            )
        if not found:
            raise CredentialRefused("kid", kid, f"a key that {self.where} publishes")
        return found, held.verifications
