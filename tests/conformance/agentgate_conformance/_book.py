"""One run in a store, and short names for what the conformance suite does with it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from agentgate.stores import AsyncStore, Keeps, Op, Store, Where, ops

T = TypeVar("T")

PATIENCE = 5.0  # seconds; these tests require right answers, not fast ones
AUDIENCE = "https://payments.acme.example"
WHO = ops.Subjects(agent="runtime-1", user="lee", tool="payments.refund", workflow=ops.workflow_subject("payments.refund", 3))


class Blocking:
    """An `AsyncStore` on an event loop in a thread of its own, called like a `Store`."""

    def __init__(self, opened: Callable[[], AsyncStore]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._store = opened()

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE * 4)

    def call(self, op: Op[Any], deadline: float) -> Any:
        return self._wait(self._store.call(op, deadline))

    @property
    def heartbeat(self) -> float | None:
        return self._store.heartbeat

    @property
    def keeps(self) -> Keeps:
        return self._store.keeps

    @property
    def where(self) -> Where:
        return self._store.where

    def check(self) -> Any:
        return self._wait(self._store.check())

    def close(self) -> None:
        self._wait(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def ask(store: Store, op: Op[T]) -> T:
    """What the store answers to one operation."""
    return op.parse(store.call(op, time.monotonic() + PATIENCE))


class Book:
    """One run in a tenant of its own. Each method sends the operation of its name."""

    def __init__(self, store: Store, tenant: str = "", run: str = "run_1") -> None:
        self.store, self.tenant, self.run = store, tenant or f"t-{secrets.token_hex(6)}", run
        self.burned: dict[str, str] = {}  # call digest -> the token that was burned last
        op = ops.open_run(self.tenant, run, b'{"id":"run_1"}', "Please refund ORD-10023344", 600_000, whose="lee", most=1000)
        opened = self.ask(op)
        assert opened.kind == "ok"
        assert opened.run is not None
        self.began = int(opened.run.revision.partition(".")[0])

    def ask(self, op: Op[T]) -> T:
        return ask(self.store, op)

    def send(self, op: Op[Any]) -> Any:
        """The raw reply to one operation."""
        return self.store.call(op, time.monotonic() + PATIENCE)

    def read(self, known: str = "") -> ops.RunRecord:
        """The run as it is now; of its calls, those that changed after the revision `known`."""
        record = self.ask(ops.read_run(self.tenant, self.run, known))
        assert record is not None
        return record

    def request(self, call: int = 1, **changes: Any) -> ops.MintRequest:
        """A mint of call number `call` on the run as it is now."""
        digest = f"{call:064x}"
        revision = changes.pop("revision", None) or self.read().revision
        head, jti = b'{"tool":"payments.refund"}', secrets.token_hex(16)
        request = ops.MintRequest(self.tenant, self.run, revision, digest, head, jti, digest[::-1], 60_000, False, WHO, audience=AUDIENCE)
        return request._replace(**changes)

    def mint(self, request: ops.MintRequest) -> ops.MintReply:
        return self.ask(ops.mint(request))

    def minted(self, call: int = 1, **changes: Any) -> tuple[ops.MintRequest, ops.BurnRequest]:
        """A mint that must succeed, and the burn of its token."""
        request = self.request(call, **changes)
        reply = self.mint(request)
        assert reply.kind == "ok", reply
        return request, self.burning(request, reply.lineage)

    def burning(self, request: ops.MintRequest, gen: str) -> ops.BurnRequest:
        """The burn of a token minted by `request` in lineage `gen`."""
        call = (request.tenant, request.jti, gen, request.binding, request.run, request.call_digest, request.subjects)
        return ops.BurnRequest(*call, audience=request.audience)

    def refused(self, call: int = 1, **changes: Any) -> tuple[str, str]:
        """A mint that must not succeed: kind and detail of its reply."""
        reply = self.mint(self.request(call, **changes))
        assert reply.kind != "ok"
        return reply.kind, reply.detail

    def burn(self, request: ops.BurnRequest) -> ops.BurnReply:
        reply = self.ask(ops.burn(request))
        if reply.kind == "ok":
            self.burned[request.call_digest] = request.jti
        return reply

    def result(self, call: int, facts: bytes = b"[]") -> str:
        return self.ask(ops.record_result(self.tenant, self.run, f"{call:064x}", facts, audience=AUDIENCE))

    def outcome(self, call: int, outcome: ops.Outcome, jti: str = "", attempt: str = "") -> str:
        """Report how a call ended, as the redemption by `jti` (left out: its last), or only as that `attempt`."""
        digest = f"{call:064x}"
        jti = jti or self.burned.get(digest, "none")
        return self.ask(ops.record_outcome(self.tenant, self.run, digest, outcome, jti, audience=AUDIENCE, attempt=attempt)).kind

    def hold(self, hold_id: str = "hold_1", answer_ms: int = 300_000) -> ops.HoldRecord:
        """Open a hold, or read the existing one."""
        record = self.held(hold_id, 1000, answer_ms)
        assert record is not None
        return record

    def held(self, hold_id: str, most: int, answer_ms: int = 60_000) -> ops.HoldRecord | None:
        """Open a hold where no more than `most` of the run are open; None: too many are."""
        act = hashlib.sha256(hold_id.encode()).hexdigest()
        return self.ask(self.opening(hold_id, act=act, ttl_ms=600_000, answer_ms=answer_ms, most=most))

    def opening(self, hold_id: str, **more: Any) -> Op[ops.HoldRecord | None]:
        """The operation that opens a hold, of lee, which asks the group leads where nothing else is said."""
        given = {
            "audience": AUDIENCE,
            "act": "a" * 64,
            "ttl_ms": 60_000,
            "answer_ms": 60_000,
            "most": 1000,
            "whose": "user lee",
            "most_own": 1000,
        }
        return ops.open_hold(self.tenant, self.run, hold_id, b"{}", **{**given, "asks": [("group", "leads")], **more})

    def answer(self, revision: str, state: ops.HoldState, hold_id: str = "hold_1") -> str:
        return self.ask(ops.answer_hold(self.tenant, hold_id, revision, b'{"by":"ana"}', state))

    def released(self, hold_id: str = "hold_1") -> ops.HoldTake:
        """Open and release a hold."""
        assert self.answer(self.hold(hold_id).revision, "released", hold_id) == "ok"
        return ops.HoldTake(hold_id, self.hold(hold_id).revision)

    def revoke(self, kind: ops.RevokedKind, subject: str, before_ms: int = 0, **more: Any) -> ops.RevokeReply:
        return self.ask(ops.revoke(self.tenant, kind, subject, before_ms=before_ms, **more))

    def lift(self, kind: ops.RevokedKind, subject: str) -> str:
        return self.ask(ops.lift(self.tenant, kind, subject))

    def revocations(self) -> dict[str, ops.RevocationRecord]:
        """What is revoked, by name."""
        total, page = self.ask(ops.list_revocations(self.tenant))
        assert total == len(page)
        return {record.name: record for record in page}


class Suite:
    """What each part of the suite has: a run of its own for every test, and racers."""

    racers = 8
    tokens = 50

    @pytest.fixture
    def book(self, store: Store) -> Book:
        return Book(store)

    def race(self, work: Callable[[Any], T], given: Iterable[Any] | None = None) -> list[T]:
        """What `work` answers to each that is given (left out: one a racer), asked by all racers at once."""
        with ThreadPoolExecutor(self.racers) as pool:
            return list(pool.map(work, range(self.racers) if given is None else given))
