"""rediss://: the server proves its name with a certificate of the configured authority, or nothing is sent."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import socketserver
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentgate.errors import StoreUnavailable
from agentgate.stores import open_async_store, open_store
from agentgate.testing import Blocking
from agentgate.testing._book import Book


def certificate(folder, name, address):
    """Write NAME.crt and NAME.key, self-signed for an IP address; the certificate's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.crt"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.with_suffix(".key").write_bytes(key.private_bytes(*form))
    return path


@pytest.fixture(params=["127.0.0.1", "192.0.2.7"])
def address(request):
    return request.param


class Terminator(socketserver.ThreadingTCPServer):
    """TLS in front of a plain server, as a TLS-terminating proxy does it (a server's own build may lack TLS)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, certificate, upstream) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.upstream = upstream
        super().__init__(("127.0.0.1", 0), Relay)


class Relay(socketserver.BaseRequestHandler):
    """One connection: handshake, then bytes both ways until one side ends."""

    server: Terminator

    def handle(self):
        try:
            client = self.server.context.wrap_socket(self.request, server_side=True)
        except OSError:  # the client did not believe the certificate
            return
        with client, socket.create_connection(("127.0.0.1", self.server.upstream)) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join(2)


def _pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def url(tmp_path, address, redis_server):
    """A TLS server whose certificate names `address`; its URL without an authority."""
    with Terminator(certificate(tmp_path, "server", address), redis_server.port) as relay:
        thread = threading.Thread(target=relay.serve_forever, args=(0.02,))
        thread.start()
        yield f"rediss://127.0.0.1:{relay.server_address[1]}/0"
        relay.shutdown()
        thread.join()


@pytest.mark.parametrize("opened", [open_store, lambda url: Blocking(lambda: open_async_store(url))], ids=["sync", "async"])
def test_a_server_is_believed_only_with_a_certificate_for_its_address(url, address, opened, tmp_path):
    store = opened(f"{url}?ssl_ca_certs={tmp_path / 'server.crt'}")
    if address == "127.0.0.1":
        store.check()
        book = Book(store)
        assert book.burn(book.minted()[1]).kind == "ok"
    else:
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            store.check()
    store.close()


@pytest.mark.parametrize("address", ["127.0.0.1"], indirect=True)
def test_a_certificate_of_another_authority_is_refused(url, tmp_path):
    other = certificate(tmp_path, "other", "127.0.0.1")
    for query in ("", f"?ssl_ca_certs={other}"):
        store = open_store(url + query)
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            store.check()
        store.close()
