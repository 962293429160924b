"""One request to a pinned URL, and the bounded reading of its answer: key sets, brokers'
credentials, what somebody is told.

Rules: the host is resolved once, and what is connected to is an address that was looked at: a
name that also resolves to a private, loopback or link-local address is refused unless the
setting says otherwise (a server in your network is not read by an outsider's URL, and a second
resolution cannot differ). No redirect is followed, no proxy of the environment is asked, no
cookie is kept. An answer has at most `MAX_BYTES` and no content encoding (some kB of gzip are
some GB of text), and comes whole within its seconds, resolution included: then the connection
is shut, in whatever state it is, so a server that sends a byte now and then keeps no thread.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from agentgate.errors import KeysUnavailable
from agentgate.values.urls import is_secure

SECONDS = 2.0
MAX_BYTES = 256 * 1024
_OWN = frozenset({"accept-encoding", "connection", "host"})  # headers that are said here
_PORTS = {"https": 443, "http": 80}
# NAT64, and as IPv6 began
_WITH_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


class FetchedAnswer(NamedTuple):
    """What a server answered: its status, its headers, and the whole body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def fetch(url: str, *, private: bool) -> bytes:
    """The body of a 200 answer. Takes and raises otherwise what `ask` does."""
    answer = ask("GET", url, headers={"Accept": "application/json"}, private=private)
    if answer.status != 200:
        raise KeysUnavailable(
            "keys", f"{url}: status {answer.status}", "status 200 (no redirect is followed)"
        )
    return answer.body


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool) -> int:
    """The status of the answer to a POST; its body is not read. Takes and raises otherwise what
    `ask` does.
    """
    return ask("POST", url, body, headers, private=private, most=0).status


def ask(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    private: bool,
    seconds: float | None = None,
    most: int = MAX_BYTES,
    authorities: str | None = None,
) -> FetchedAnswer:
    """One request and its answer, of whatever status.

    Args:
        method: of the request.
        url: https; http only to a loopback host, and only with `private`.
        body: of the request.
        headers: of the request.
        private: addresses that are not globally reachable are allowed.
        seconds: until the whole answer is there; None: `SECONDS`.
        most: bytes of a body; 0: none is read.
        authorities: a file of the certificate authorities that count; None: the system's.

    Raises:
        KeysUnavailable: there is no such answer. Nothing of what was sent or answered is in its
            text.
    """
    exchange = _Exchange(url, private=private, seconds=seconds or SECONDS)
    sent = {name: value for name, value in (headers or {}).items() if name.lower() not in _OWN}
    thread = threading.Thread(
        target=exchange.run,
        args=(method, body, sent, most, authorities),
        daemon=True,
        name="agentgate-fetch",
    )
    thread.start()
    thread.join(exchange.seconds)
    return exchange.end()


class _Exchange:
    """One request, made in a thread that its caller stops waiting for."""

    def __init__(self, url: str, *, private: bool, seconds: float) -> None:
        self.url = url
        self.seconds = seconds
        self._private = private
        self._lock = threading.Lock()
        self._over = False
        self._socket: socket.socket | None = None
        self._answer: FetchedAnswer | KeysUnavailable = self._refused(
            f"no whole answer in {seconds:g} s", "an answer in time"
        )

    def run(
        self,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
        most: int,
        authorities: str | None,
    ) -> None:
        answer = self._answer
        try:
            self._connect(authorities)
            answer = self._exchanged(method, body, headers, most)
        except KeysUnavailable as error:
            answer = error
        except TimeoutError:  # the connection's seconds end when the answer's do
            pass
        # of the latter two, the text may be the server's
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer = self._refused(
                f"{type(error).__name__}: {error if isinstance(error, OSError) else 'no HTTP'}",
                "an answer",
            )
        with self._lock:
            if not self._over:
                self._answer = answer
            if self._socket:
                self._socket.close()

    def end(self) -> FetchedAnswer:
        """The answer. Where there is none yet, the connection is shut, and one that is being
        made is not used.

        Raises:
            KeysUnavailable.
        """
        with self._lock:
            self._over = True
            if self._socket:
                with suppress(OSError):  # not connected, or shut already
                    # an SSLSocket's own drops TLS first, and sends on in the clear
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        if isinstance(self._answer, KeysUnavailable):
            raise self._answer
        return self._answer

    def _connect(self, authorities: str | None) -> None:
        url = urlsplit(self.url)
        if not is_secure(url):
            raise self._refused("without TLS", "https (http on loopback only)")
        host = url.hostname or ""
        port = url.port or _PORTS[url.scheme]
        plain = socket.create_connection((self._address(host, port), port), self.seconds)
        self._hold(plain)
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=authorities)
            tls = context.wrap_socket(
                plain, server_hostname=host, do_handshake_on_connect=False
            )
            self._hold(tls)  # before the handshake, which may take as long as a body
            tls.do_handshake()

    def _hold(self, opened: socket.socket) -> None:
        with self._lock:
            self._socket = opened
            if self._over:
                raise TimeoutError

    def _exchanged(
        self, method: str, body: bytes | None, headers: Mapping[str, str], most: int
    ) -> FetchedAnswer:
        url = urlsplit(self.url)
        host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        port = "" if url.port in {None, _PORTS[url.scheme]} else f":{url.port}"
        connection = http.client.HTTPConnection(url.hostname or "")
        connection.sock = self._socket
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        own = {"Host": f"{host}{port}", "Accept-Encoding": "identity", "Connection": "close"}
        connection.request(method, path, body, {**headers, **own})
        with connection.getresponse() as answer:
            coded = [
                each
                for each in answer.headers.get_all("Content-Encoding", [])
                if each.strip().lower() != "identity"
            ]
            read = b"" if coded or not most else answer.read(most + 1)
            if most and (coded or answer.length or len(read) > most):
                raise self._refused(
                    "a larger or an encoded body, or a part of one",
                    f"at most {most} bytes, not compressed",
                )
            return FetchedAnswer(answer.status, answer.headers, read)

    def _refused(self, got: str, expected: str) -> KeysUnavailable:
        return KeysUnavailable("keys", f"{self.url}: {got}", expected, happened=got)

    def _address(self, host: str, port: int) -> str:
        found = [
            str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ]
        hidden = [address for address in found if not is_public(address)]
        if hidden and not self._private:
            raise self._refused(
                f"the private address {hidden[0]}",
                "a public address (private_addresses: true allows others)",
            )
        return found[0]


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable; one that stands for an IPv4 address (RFC
    4291, 3056, 6052) is as public as that.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:
            return False
        inside = (
            ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
            if any(ip in net for net in _WITH_IPV4)
            else None
        )
        ip = ip.ipv4_mapped or ip.sixtofour or inside or ip
    return ip.is_global and not ip.is_multicast
