"""One request to a pinned URL: a GET for key sets, a POST for what somebody is told.

Rules: the host is resolved once, and what is connected to is an address that was looked at: a name that also resolves to a private,
loopback or link-local address is refused unless the setting says otherwise (a server in your network is not read by an outsider's URL, and
a second resolution cannot differ). No redirect is followed, no proxy of the environment is asked, no cookie is kept; all of it, resolution
included, ends after `SECONDS`.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from agentgate.errors import KeysUnavailable

SECONDS = 2.0
MAX_BYTES = 256 * 1024
_PORTS = {"https": 443, "http": 80}
_WITH_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))  # NAT64, and as IPv6 began


def fetch(url: str, *, private: bool) -> bytes:
    """The body of a 200 answer.

    Args:
        url: https; http only to a loopback host, and only with `private`.
        private: addresses that are not globally reachable are allowed.

    Raises:
        KeysUnavailable: anything else.
    """
    return _answer(_Exchange(url, private=private))


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool) -> int:
    """The status of the answer to a POST. Takes and raises otherwise what `fetch` does."""
    exchange = _Exchange(url, private=private, body=body, headers=headers)
    _answer(exchange)
    return exchange.status


def _answer(exchange: _Exchange) -> bytes:
    thread = threading.Thread(target=exchange.run, daemon=True, name="agentgate-fetch")
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        exchange.end()
        raise KeysUnavailable("keys", f"{exchange.url}: no whole answer in {SECONDS:g} s", "an answer in time")
    if isinstance(exchange.answer, KeysUnavailable):
        raise exchange.answer
    return exchange.answer


class _Exchange:
    """One request, made in a thread that its caller stops waiting for."""

    def __init__(self, url: str, *, private: bool, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.url, self._private, self._body, self._headers = url, private, body, dict(headers or {"Accept": "application/json"})
        self.status = 0
        self._socket: socket.socket | None = None
        self.answer: bytes | KeysUnavailable = KeysUnavailable("keys", url, "an answer")

    def run(self) -> None:
        try:
            self.answer = self._get()
        except KeysUnavailable as error:
            self.answer = error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.answer = self._refused(f"{type(error).__name__}: {error}", "an answer")
        finally:
            self.end()

    def end(self) -> None:
        """Shut the connection: a server that sends a byte now and then keeps nobody."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # not connected, or already shut
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _refused(self, got: str, expected: str) -> KeysUnavailable:
        return KeysUnavailable("keys", f"{self.url}: {got}", expected)

    def _get(self) -> bytes:
        url = urlsplit(self.url)
        host, port = url.hostname or "", url.port or _PORTS[url.scheme]
        self._socket = socket.create_connection((self._address(host, port), port), SECONDS)
        if url.scheme == "https":
            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = self._socket
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        method, plain = "GET" if self._body is None else "POST", {"Accept-Encoding": "identity", "Connection": "close"}
        connection.request(method, path, self._body, self._headers | plain)
        with connection.getresponse() as answer:
            self.status = answer.status
            if self._body is not None:
                return b""
            if answer.status != 200:
                raise self._refused(f"status {answer.status}", "status 200 (no redirect is followed)")
            body = answer.read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES or answer.getheader("Content-Encoding", "identity") != "identity":
                raise self._refused("a larger or an encoded body", f"at most {MAX_BYTES} bytes, not compressed")
            return body

    def _address(self, host: str, port: int) -> str:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        hidden = [address for address in found if not is_public(address)]
        if hidden and not self._private:
            raise self._refused(f"the private address {hidden[0]}", "a public address (private_addresses: true allows others)")
        return found[0]


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable; one that stands for an IPv4 address (RFC 4291, 3056, 6052) is as public as that."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:
            return False
        inside = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if any(ip in net for net in _WITH_IPV4) else None
        ip = ip.ipv4_mapped or ip.sixtofour or inside or ip
    return ip.is_global and not ip.is_multicast
