"""rediss://: the server proves its name with a certificate of the configured authority, or nothing is sent."""

from __future__ import annotations

import pytest

from agentgate.errors import StoreUnavailable
from agentgate.stores import open_async_store, open_store
from agentgate_conformance._book import Book
from agentgate_conformance.stores import Blocking
from tests.tls import certificate, tls_front


@pytest.fixture(params=["127.0.0.1", "192.0.2.7"])
def address(request):
    return request.param


@pytest.fixture
def url(tmp_path, address, redis_server):
    """A TLS server whose certificate names `address`; its URL without an authority."""
    with tls_front(certificate(tmp_path, "server", address), redis_server.port) as port:
        yield f"rediss://127.0.0.1:{port}/0"


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
