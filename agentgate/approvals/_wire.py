"""The SSH wire encoding (RFC 4251 section 5), as far as keys and signatures need it. Strict:
every byte is accounted for.
"""

from __future__ import annotations

from agentgate.errors import KeyRefused

MAX_STRING = 16 * 1024


def string(data: bytes) -> bytes:
    """A `string`: four bytes of length, then the bytes."""
    return len(data).to_bytes(4) + data


def mpint(number: int) -> bytes:
    """A positive `mpint`: the shortest two's complement form."""
    return string(number.to_bytes(number.bit_length() // 8 + 1))


class WireReader:
    """Reads one blob from its start; a short, long or non-canonical encoding is KeyRefused."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def take(self, size: int, field: str) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if size > MAX_STRING or end > len(self._data):
            raise KeyRefused(
                f"{self._what}: {field}: got {len(self._data) - self._at} bytes, expected "
                f"{min(size, MAX_STRING + 1)}"
            )
        out = self._data[self._at : end]
        self._at = end
        return out

    def uint32(self, field: str) -> int:
        """A `uint32`."""
        return int.from_bytes(self.take(4, field))

    def string(self, field: str) -> bytes:
        """A `string`."""
        return self.take(self.uint32(field), field)

    def text(self, field: str) -> str:
        """A `string` that is printable ASCII."""
        data = self.string(field)
        if not data.isascii() or not data.decode("ascii").isprintable():
            raise KeyRefused(
                f"{self._what}: {field}: got {data[:40]!r}, expected printable ASCII"
            )
        return data.decode("ascii")

    def mpint(self, field: str) -> int:
        """An `mpint` above zero, in its shortest form."""
        data = self.string(field)
        number = int.from_bytes(data)
        if not data or data[0] & 0x80 or number == 0 or string(data) != mpint(number):
            raise KeyRefused(
                f"{self._what}: {field}: got a number that is not positive or not in "
                "shortest form, expected an mpint"
            )
        return number

    def end(self) -> None:
        """Check that nothing follows."""
        if self._at != len(self._data):
            raise KeyRefused(
                f"{self._what}: got {len(self._data) - self._at} bytes after its end, expected none"
            )
