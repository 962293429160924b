"""DPoP nonces (RFC 9449 section 8): a time and an HMAC over it, so that every instance with the
gate's keys accepts what another gave.
"""

from __future__ import annotations

import hmac
import time

import orjson

from agentgate.errors import RequestRefused, TokenRefused
from agentgate.token.dpop import MAX_PROOF, DPoP
from agentgate.token.jws import split
from agentgate.token.keys import KeyRing

LIFE = 300  # seconds
_OWNER = "dpop-nonce"  # no tenant: tenants' values are masked under keys of their own


def fresh(keys: KeyRing) -> str:
    """A nonce that counts from now on."""
    now = str(int(time.time()))
    return f"{now}.{keys.masked(_OWNER, now.encode())}"


def _counts(nonce: object, keys: KeyRing) -> bool:
    if type(nonce) is not str or not nonce.isascii() or len(nonce) > 64:
        return False
    at, _, mac = nonce.partition(".")
    if not at.isdigit() or len(at) > 12 or not -5 <= time.time() - int(at) <= LIFE:
        return False
    return hmac.compare_digest(mac, keys.masked(_OWNER, at.encode()))


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
