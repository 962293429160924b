"""The connection that callers of an awaited store share: everybody gets their own reply, or a refusal in time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate.errors import StoreUnavailable
from agentgate.stores import AsyncStore, Op, open_async_store, ops
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._wire import Wire
from tests.servers import Server, redis_binary

KEPT = 60_000  # ms


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(redis_binary(), tmp_path / "own")
    yield server
    server.stop()


async def keep(store: AsyncStore, name: str, *, patience: float = 2.0) -> str:
    op = ops.keep("acme", "deferred", name, name.encode(), ttl_ms=KEPT)
    return op.parse(await store.call(op, time.monotonic() + patience))


async def kept(store: AsyncStore, name: str, *, patience: float = 2.0) -> bytes | None:
    op = ops.kept("acme", "deferred", name)
    return op.parse(await store.call(op, time.monotonic() + patience))


def clients(server: Server) -> int:
    """Connections that are open, without the one that asks."""
    return int(server.command("INFO", "clients").split("connected_clients:")[1].split()[0]) - 1


def run(work: Callable[[AsyncStore], Awaitable[None]], url: str) -> None:
    async def with_store() -> None:
        store = open_async_store(url)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(with_store())


class Peer:
    """A server that hands each chunk it reads to `answer`, and writes what that returns; None: it closes."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer, self.chunks, self.gone = answer, list[bytes](), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 20):
            self.chunks.append(chunk)
            data = self.answer(chunk)
            if data is None:
                break
            writer.write(data)
        writer.close()
        self.gone.set()

    def serve(self, work: Callable[[AsyncStore], Awaitable[None]]) -> None:
        async def both() -> None:
            listener = await asyncio.start_server(self, "127.0.0.1", 0)
            async with listener:
                store = open_async_store(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
                try:
                    await work(store)
                finally:
                    await store.close()
                    await self.gone.wait()

        asyncio.run(both())


def keys_of(chunk: bytes) -> list[bytes]:
    return [word for word in chunk.split(b"\r\n") if word.startswith(b"ag:")]


def replies(chunk: bytes) -> bytes:
    """What a server says to some `kept`: each its key, and the key again as its value."""
    return b"".join(b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(key), key) for key in keys_of(chunk))


def test_hundreds_at_once_share_one_connection_and_everybody_gets_their_own(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await keep(store, "first") == "ok"
        names = [f"n{number}" * (1 + number % 400) for number in range(400)]
        assert set(await asyncio.gather(*(keep(store, name) for name in names))) == {"ok"}
        assert await asyncio.gather(*(kept(store, name) for name in names)) == [name.encode() for name in names]
        assert clients(server) == 1

    run(work, server.url)


def test_what_callers_ask_at_once_goes_out_in_one_write() -> None:
    peer = Peer(replies)

    async def work(store: AsyncStore) -> None:
        await kept(store, "first")
        peer.chunks.clear()
        names = [f"n{number}" for number in range(20)]
        answers = await asyncio.gather(*(kept(store, name) for name in names))
        assert [len(keys_of(chunk)) for chunk in peer.chunks] == [20]
        assert answers == keys_of(peer.chunks[0])

    peer.serve(work)


@pytest.mark.deadline
def test_a_late_reply_reaches_nobody_though_others_wait_on_the_same_connection(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await asyncio.gather(*(keep(store, name) for name in "abc")) == ["ok"] * 3
        assert await kept(store, "a") == b"a"  # the script is known from here on
        server.pause()
        impatient = [asyncio.ensure_future(kept(store, "a", patience=0.1)) for _ in range(3)]
        patient = [asyncio.ensure_future(kept(store, name, patience=5)) for name in "bc"]
        began = time.monotonic()
        for each in impatient:
            with pytest.raises(StoreUnavailable, match="deadline"):
                await each
        assert time.monotonic() - began < 0.3
        server.resume()
        assert await asyncio.gather(*patient) == [b"b", b"c"]
        assert await kept(store, "c") == b"c"  # on a new connection: the late one is closed
        assert clients(server) == 1

    run(work, server.url)


@pytest.mark.deadline
def test_each_caller_has_their_own_deadline_in_whatever_order_they_came(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await kept(store, "a") is None
        server.pause()
        try:

            async def refused_after(patience: float) -> float:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await kept(store, "a", patience=patience)
                return time.monotonic() - began

            patience = [0.5, 0.1, 0.3, 0.2]
            took = await asyncio.gather(*map(refused_after, patience))
        finally:
            server.resume()
        assert all(given <= seconds < given + 0.2 for given, seconds in zip(patience, took, strict=True))

    run(work, server.url)


def test_a_caller_who_is_cancelled_takes_nobody_along(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await asyncio.gather(*(keep(store, name) for name in "abc")) == ["ok"] * 3
        server.pause()
        asked = [asyncio.ensure_future(kept(store, name, patience=5)) for name in "abc"]
        await asyncio.sleep(0.05)
        asked[0].cancel()
        server.resume()
        assert await asyncio.gather(*asked[1:]) == [b"b", b"c"]
        assert await kept(store, "a") == b"a"
        assert clients(server) == 1  # the same connection: nothing was wrong with it

    run(work, server.url)


@pytest.mark.deadline
def test_all_who_wait_on_a_connection_that_breaks_are_refused_at_once_and_nothing_is_sent_again(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await kept(store, "a") is None
        server.pause()
        asked = [asyncio.ensure_future(keep(store, name, patience=5)) for name in "abc"]
        await asyncio.sleep(0.05)
        server.kill()
        began = time.monotonic()
        for each in asked:
            with pytest.raises(StoreUnavailable, match=r"closed the connection|did not answer"):
                await each
        assert time.monotonic() - began < 1
        server.start()
        assert await asyncio.gather(*(kept(store, name) for name in "abc")) == [None] * 3

    run(work, server.url)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda chunk: replies(chunk) + b"*2\r\n$1\r\nx\r\n$1\r\nx\r\n", "out of step"),
        (lambda chunk: replies(chunk)[:-2] + b"xx", "does not speak RESP2"),
        (lambda _: None, "closed the connection"),
    ],
    ids=["a reply too many", "a reply without its end", "an end"],
)
def test_nobody_is_answered_by_a_server_that_is_out_of_step(answer: Callable[[bytes], bytes | None], text: str) -> None:
    peer = Peer(replies)

    async def work(store: AsyncStore) -> None:
        await kept(store, "first")
        peer.answer = answer
        asked: list[Any] = await asyncio.gather(*(kept(store, name) for name in "abc"), return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) and text in str(each) for each in asked)

    peer.serve(work)


def test_replies_in_another_order_are_no_answers() -> None:
    def reversed_replies(chunk: bytes) -> bytes:
        return b"".join(replies(key + b"\r\n") for key in reversed(keys_of(chunk)))

    peer = Peer(replies)

    async def work(store: AsyncStore) -> None:
        await kept(store, "first")
        peer.answer = reversed_replies
        asked: list[Any] = await asyncio.gather(*(kept(store, name) for name in "ab"), return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) and "something else" in str(each) for each in asked)

    peer.serve(work)


def test_an_error_is_its_callers_alone_and_the_connection_is_not_used_again(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await keep(store, "a") == "ok"
        server.pause()
        broken = Op("kept", lambda *_: None, ("ag:{acme}:deferred:list",))
        asked = [asyncio.ensure_future(kept(store, "a")), asyncio.ensure_future(store.call(broken, time.monotonic() + 2))]
        asked.append(asyncio.ensure_future(kept(store, "a")))
        await asyncio.sleep(0.05)
        server.resume()
        one, error, other = await asyncio.gather(*asked, return_exceptions=True)
        assert one == other == b"a"
        assert isinstance(error, StoreUnavailable)
        assert "WRONGTYPE" in str(error)
        before = server.command("INFO", "stats").split("total_connections_received:")[1].split()[0]
        assert await kept(store, "a") == b"a"
        after = server.command("INFO", "stats").split("total_connections_received:")[1].split()[0]
        assert int(after) - int(before) == 2  # the store's new one, and the one that asks
        assert clients(server) == 1

    server.command("RPUSH", "ag:{acme}:deferred:list", "x")
    run(work, server.url)


@pytest.mark.deadline
def test_an_error_of_one_caller_ends_no_other_between_two_of_their_requests() -> None:
    """Both replies come at once, and who has the error goes on first; the other still has to load its script."""
    known: list[bytes] = []

    def answer(chunk: bytes) -> bytes:
        if b"LOAD" in chunk:
            known.append(chunk)
            return b"$2\r\nok\r\n"
        return replies(chunk) if known else b"-ERR no\r\n-NOSCRIPT load it\r\n"

    async def work(store: AsyncStore) -> None:
        failed, loaded = await asyncio.gather(kept(store, "bad"), kept(store, "good"), return_exceptions=True)
        assert isinstance(failed, StoreUnavailable)
        assert loaded == keys_of(peer.chunks[-1])[0]

    peer = Peer(answer)
    peer.serve(work)


def test_a_write_that_waits_for_replicas_keeps_nobody_else(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await kept(store, "a") is None
        waiting = asyncio.ensure_future(keep(store, "a", patience=1.0))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await kept(store, "a") == b"a"
        assert time.monotonic() - began < 0.5
        assert not waiting.done()
        with pytest.raises(StoreUnavailable, match="not confirmed"):
            await waiting

    run(work, server.url + "?replicas=1")


def test_a_connection_that_was_late_is_closed_though_its_server_never_answers_again() -> None:
    peer = Peer(replies)

    async def work(store: AsyncStore) -> None:
        await kept(store, "first")
        peer.answer = lambda _: b""
        waiting = asyncio.ensure_future(kept(store, "b", patience=0.4))
        with pytest.raises(StoreUnavailable, match="deadline"):
            await kept(store, "a", patience=0.1)
        assert not peer.gone.is_set()  # somebody waits on it still
        waiting.cancel()
        await asyncio.wait_for(peer.gone.wait(), 2)

    peer.serve(work)


def test_what_is_asked_on_a_closed_connection_is_refused_at_once(server: Server) -> None:
    async def work() -> None:
        wire = await Wire.open(Endpoint.of(server.url))
        wire.discard()
        await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable, match="was closed"):
            await asyncio.wait_for(wire.ask(b"PING", time.monotonic() + 60), 5)

    asyncio.run(work())


def test_a_store_that_was_closed_leaves_no_connection_though_somebody_waited(server: Server) -> None:
    async def work() -> None:
        store = open_async_store(server.url)
        assert await kept(store, "a") is None
        server.pause()
        asked = asyncio.ensure_future(kept(store, "a", patience=5))
        await asyncio.sleep(0.05)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await kept(store, "a")
        server.resume()
        assert await asked is None
        await asyncio.sleep(0.05)
        assert clients(server) == 0

    asyncio.run(work())


def test_a_forked_child_asks_on_a_connection_of_its_own_though_it_has_its_parents_loop(server: Server) -> None:
    loop, store = asyncio.new_event_loop(), open_async_store(server.url)
    try:
        loop.run_until_complete(keep(store, "before"))
        child = os.fork()
        if child == 0:
            found = loop.run_until_complete(kept(store, "before"))
            os._exit(0 if found == b"before" and clients(server) == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        loop.run_until_complete(store.close())
        loop.close()


def test_a_store_that_is_closed_while_it_connects_keeps_no_connection(server: Server) -> None:
    async def work() -> None:
        store = open_async_store(f"{server.url}/1")  # whose greeting waits for the server
        server.pause()
        asked = asyncio.ensure_future(kept(store, "a", patience=5))
        await asyncio.sleep(0.05)
        await store.close()
        server.resume()
        with pytest.raises(StoreUnavailable, match="closed"):
            await asked
        await asyncio.sleep(0.05)
        assert clients(server) == 0

    asyncio.run(work())


def test_many_who_connect_at_once_leave_one_connection(server: Server) -> None:
    async def work(store: AsyncStore) -> None:
        assert await asyncio.gather(*(keep(store, str(number)) for number in range(20))) == ["ok"] * 20
        await asyncio.sleep(0.05)
        assert clients(server) == 1

    run(work, f"{server.url}/1")
