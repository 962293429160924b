"""rediss://: the server proves its name with a certificate of the configured authority, or nothing is sent."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentgate.errors import StoreUnavailable
from agentgate.stores import open_async_store, open_store
from agentgate.testing import Blocking
from agentgate.testing._book import Book
from tests.servers import free_port, redis_binary


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


@pytest.fixture
def url(tmp_path, address):
    """A TLS server whose certificate names `address`; its URL without an authority."""
    path, port = certificate(tmp_path, "server", address), free_port()
    files = f"--tls-cert-file {path} --tls-key-file {path.with_suffix('.key')}"
    words = f"--port 0 --bind 127.0.0.1 --tls-port {port} --tls-auth-clients no {files}"
    process = subprocess.Popen(
        [redis_binary(), *words.split(), "--tls-ca-cert-file", str(path), "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    yield f"rediss://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.mark.parametrize("opened", [open_store, lambda url: Blocking(lambda: open_async_store(url))], ids=["sync", "async"])
def test_a_server_is_believed_only_with_a_certificate_for_its_address(url, address, opened, tmp_path):
    store = opened(f"{url}?ssl_ca_certs={tmp_path / 'server.crt'}")
    if address == "127.0.0.1":
        _until_it_answers(store)
        book = Book(store)
        assert book.burn(book.minted()[1]).kind == "ok"
    else:
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            _until_it_answers(store)
    store.close()


@pytest.mark.parametrize("address", ["127.0.0.1"], indirect=True)
def test_a_certificate_of_another_authority_is_refused(url, tmp_path):
    other = certificate(tmp_path, "other", "127.0.0.1")
    for query in ("", f"?ssl_ca_certs={other}"):
        store = open_store(url + query)
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            _until_it_answers(store)
        store.close()


def _until_it_answers(store):
    """Check, again while the server is still starting."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return store.check()
        except StoreUnavailable as error:
            if "onnect" not in str(error) or "certificate" in str(error).lower() or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
