"""The authenticator data of a new passkey, out of its attestation object (Web Authentication
Level 3, sections 6.5 and 6.1).

Rules: whoever likes sends one, so nothing of it is decoded before it is plain CBOR: a decoder
obeys tags, some of which cost it minutes (35 is a regular expression, which it compiles).
WebAuthn has none: CTAP2's canonical form knows neither tags nor indefinite lengths. No
attestation is asked for, so no statement of one is looked at.
"""

from __future__ import annotations

from webauthn.helpers import encode_cbor, parse_cbor

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
