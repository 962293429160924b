"""RESP2, the protocol of Redis and Valkey: one request to bytes, one reply from bytes. Pure.

redis-py opens and encrypts connections. Its reader (8.1) would restart the timeout with each
read, drop a bulk string's last two bytes unseen and keep what follows a reply; under our
deadline it burns as fast (131 to 130 us), but reads a run slower (1.6 to 1.3 ms). Source: the
RESP specification, https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from typing import Any

from agentgate.errors import StoreUnavailable

MAX_REPLY = 64 * 1024 * 1024
_BULK, _ARRAY, _INTEGER, _STRING, _ERROR = b"$*:+-"


class ServerError(str):
    """An error reply, e.g. ``READONLY You can't write against a read only replica``."""

    __slots__ = ()


MORE = object()  # the reply is not complete yet: read on


def pack(*args: str | bytes | int) -> bytes:
    """One command as an array of bulk strings."""
    values = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    bulks = [b"$%d\r\n%b\r\n" % (len(value), value) for value in values]
    return b"*%d\r\n%b" % (len(values), b"".join(bulks))


class Reply:
    """Replies, fed chunk by chunk; every byte is looked at once."""

    __slots__ = ("_buffer", "_unfilled")

    def __init__(self) -> None:
        self._buffer = b""
        # arrays that are not full yet, outermost first
        self._unfilled: list[tuple[list[Any], int]] = []

    def feed(self, chunk: bytes) -> Any:
        """Take what was read after one request; its reply (int, bytes, None, `ServerError` or a
        list of these), or `MORE`.

        Raises:
            StoreUnavailable: nothing was read (the connection was closed); not RESP2; or bytes
                follow the reply, which belong to another request: the connection is out of
                step.
        """
        if not chunk:
            raise StoreUnavailable("the store closed the connection")
        values = self.each(chunk)
        if values and (len(values) > 1 or self._buffer):
            raise StoreUnavailable("bytes follow the reply: the connection is out of step")
        return values[0] if values else MORE

    def each(self, chunk: bytes) -> list[Any]:
        """Take what was read after any number of requests; the replies that are complete now.

        Raises:
            StoreUnavailable: not RESP2.
        """
        if not self._buffer and not self._unfilled:
            head, *lines = chunk.split(b"\r\n")
            texts = lines[1::2]
            # most replies are texts without line ends, which are packed as a command is
            if head == b"*%d" % len(texts) and chunk == pack(*texts):
                return [texts]
        buffer = self._buffer + chunk
        start = 0
        values = []
        try:
            while start < len(buffer):
                value, start = self._read(buffer, start)
                if value is MORE:
                    break
                values.append(value)
        except ValueError as error:
            raise StoreUnavailable(f"the server does not speak RESP2: {error}") from error
        self._buffer = buffer[start:]
        if len(self._buffer) > MAX_REPLY:
            raise StoreUnavailable("a reply beyond 64 MiB")
        return values

    def _read(self, buffer: bytes, start: int) -> tuple[Any, int]:
        """The complete value that begins, or goes on, at `start`, or `MORE`; and up to where
        the buffer was used.
        """
        unfilled = self._unfilled
        while (end := buffer.find(b"\r\n", start)) >= 0:
            kind = buffer[start]
            line = buffer[start + 1 : end]
            after = end + 2
            value: Any
            if kind == _BULK:
                value = None
                size = int(line)
                if size >= 0:
                    after += size + 2
                    if len(buffer) < after:
                        break
                    if buffer[after - 2 : after] != b"\r\n":
                        raise ValueError("a bulk string without its end")
                    value = buffer[end + 2 : after - 2]
            elif kind == _ARRAY:
                count = int(line)
                if count > 0:
                    unfilled.append(([], count))
                    start = after
                    continue
                value = [] if count == 0 else None
            elif kind == _INTEGER:
                value = int(line)
            elif kind == _STRING:
                value = line
            elif kind == _ERROR:
                value = ServerError(line.decode("utf-8", "replace"))
            else:
                raise ValueError(f"unknown type {chr(kind)!r}")
            start = after
            while unfilled:
                items, count = unfilled[-1]
                items.append(value)
                if len(items) < count:
                    break
                value = unfilled.pop()[0]
            else:
                return value, start
        return MORE, start
