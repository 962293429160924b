"""One run in a store, and short names for what the conformance suite does with it."""
# ruff: noqa: S101 - assert is what a test does

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from agentgate.stores import AsyncStore, Store, ops

PATIENCE = 5.0  # seconds; these tests ask for right answers, not for fast ones
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

    def call(self, op: ops.Op, deadline: float) -> Any:
        """Run one operation."""
        return self._wait(self._store.call(op, deadline))

    def check(self) -> None:
        """Refuse an unusable store."""
        self._wait(self._store.check())

    def close(self) -> None:
        """Close the store, then its loop."""
        self._wait(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Book:
    """One run in a tenant of its own, and short names for what tests do with it."""

    def __init__(self, store: Store, tenant: str = "", run: str = "run_1") -> None:
        self.store, self.tenant, self.run = store, tenant or f"t-{secrets.token_hex(6)}", run
        op = ops.open_run(self.tenant, run, b'{"id":"run_1"}', "Please refund ORD-10023344", 600_000)
        assert ops.parse_open_run(op, self.send(op)) == "ok"

    def send(self, op: ops.Op) -> Any:
        """The raw reply to one operation."""
        return self.store.call(op, time.monotonic() + PATIENCE)

    def read(self, known: str = "") -> ops.RunRecord:
        """The run as it is now; of its calls, what changed after the revision `known`."""
        op = ops.read_run(self.tenant, self.run, known)
        record = ops.parse_read_run(op, self.send(op))
        assert record is not None
        return record

    def request(self, call: int = 1, **changes: Any) -> ops.MintRequest:
        """A mint of call number `call` on the run as it is now."""
        digest = f"{call:064x}"
        revision = changes.pop("revision", None) or self.read().revision
        asked = ops.MintRequest(
            self.tenant, self.run, revision, digest, b'{"tool":"payments.refund"}', secrets.token_hex(16), digest[::-1], 60_000, False, WHO
        )
        return asked._replace(**changes)

    def mint(self, request: ops.MintRequest) -> ops.MintReply:
        """Send a mint."""
        op = ops.mint(request)
        return ops.parse_mint(op, self.send(op))

    def minted(self, call: int = 1, **changes: Any) -> tuple[ops.MintRequest, ops.BurnRequest]:
        """A mint that must succeed, and the burn of its token."""
        request = self.request(call, **changes)
        reply = self.mint(request)
        assert reply.kind == "ok", reply
        return request, self.burning(request, reply.lineage)

    def burning(self, request: ops.MintRequest, gen: str) -> ops.BurnRequest:
        """The burn of a token minted by `request` in lineage `gen`."""
        return ops.BurnRequest(request.tenant, request.jti, gen, request.binding, request.run, request.call_digest, request.subjects)

    def burn(self, request: ops.BurnRequest) -> ops.BurnReply:
        """Send a burn."""
        op = ops.burn(request)
        return ops.parse_burn(op, self.send(op))

    def result(self, call: int, facts: bytes = b"[]") -> str:
        """Record facts."""
        op = ops.record_result(self.tenant, self.run, f"{call:064x}", facts)
        return ops.parse_record(op, self.send(op))

    def outcome(self, call: int, outcome: ops.Outcome) -> str:
        """Record an outcome."""
        op = ops.record_outcome(self.tenant, self.run, f"{call:064x}", outcome)
        return ops.parse_record(op, self.send(op))

    def hold(self, hold_id: str = "hold_1") -> ops.HoldRecord:
        """Open a hold, or get the existing one."""
        op = ops.open_hold(self.tenant, hold_id, b"{}", 600_000)
        record = ops.parse_hold(op, self.send(op))
        assert record is not None
        return record

    def answer(self, revision: str, state: ops.HoldState, hold_id: str = "hold_1") -> str:
        """Answer a hold."""
        op = ops.answer_hold(self.tenant, hold_id, revision, b'{"by":"ana"}', state)
        return ops.parse_answer_hold(op, self.send(op))

    def released(self, hold_id: str = "hold_1") -> ops.HoldTake:
        """Open and release a hold."""
        assert self.answer(self.hold(hold_id).revision, "released", hold_id) == "ok"
        return ops.HoldTake(hold_id, self.hold(hold_id).revision)

    def revoke(self, kind: ops.RevokedKind, subject: str, before_ms: int = 0) -> None:
        """Revoke a subject."""
        op = ops.revoke(self.tenant, kind, subject, before_ms=before_ms)
        assert ops.parse_revoke(op, self.send(op)) == "ok"
