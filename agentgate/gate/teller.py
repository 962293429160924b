"""Tells hooks (`agentgate.gate.telling`) what becomes of holds: that a call waits, what was answered, that it expired or was cancelled.

Rules: the store is the queue (`agentgate.stores._telling`), and what it says is told, whoever wrote it: a gate, an approver's terminal, the
deadline. Each hook has a thread that takes one event at a time, at once after something happened in this process, else within a few
seconds. An event that is taken is this gate's to tell for `_LEASE` seconds, and told when the hook took it, or says that it never will.
Otherwise it is taken again, by any gate, as long as the store has the hold. So nothing is lost with a process, and what is told twice (a
gate ended after the hook had it, and before it could note that) has the same id. No decision waits for any of it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import structlog

from agentgate.decision.question import as_json
from agentgate.errors import AgentGateError, StoreUnavailable
from agentgate.gate.kept import event_from, hold_of
from agentgate.gate.telling import Hook
from agentgate.stores import AsyncStore, Op, Store, ops
from agentgate.values.canonical import canonical, digest

TRIES = 5  # of one event in a row; between them 1, 2, 4, 8 seconds
_PAUSE = 1.0  # seconds before the second try
_LEASE = 60.0  # seconds; longer than all the tries
_EVERY = 2.0  # seconds between two looks at all tenants; more where there are many
_ANSWER = 1.0  # seconds for the store
_TURN = 20  # events of one tenant in a row, while others wait
_log = structlog.get_logger("agentgate.gate.teller")

Ask = Callable[[Op[Any]], Any]


class Teller:
    """Tells every hook of one gate, each in a thread of its own; `pages`: the URL that a hold's id follows, or empty."""

    def __init__(self, hooks: tuple[Hook, ...] = (), pages: str = "") -> None:
        self._hooks, self._pages = hooks, pages
        self._ends = self._over = False
        self._changed = threading.Condition()
        self._woken: dict[str, set[str]] = {hook.key: set() for hook in hooks}
        self._threads: list[threading.Thread] = []

    def start(self, store: Store | AsyncStore, tenants: Callable[[], Collection[str]]) -> None:
        """Begin, with whatever is untold; `tenants`: whose holds there may be, now."""
        ask = asking(store) if self._hooks else None
        for hook in self._hooks if ask is not None else ():
            thread = threading.Thread(target=self._work, args=(hook, ask, tenants), daemon=True, name="agentgate-tell")
            self._threads.append(thread)
            thread.start()

    def wake(self, tenant: str) -> None:
        """Something happened to a hold of this tenant. Never waits, never raises."""
        if self._hooks:
            with self._changed:
                for woken in self._woken.values():
                    woken.add(tenant)
                self._changed.notify_all()

    def close(self, seconds: float = 2.0) -> None:
        """Tell what this process knows of, for so many seconds at most, and end."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _work(self, hook: Hook, ask: Ask, tenants: Callable[[], Collection[str]]) -> None:
        due = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._woken[hook.key] or self._ends, max(0.0, due - time.monotonic()))
                known, self._woken[hook.key] = self._woken[hook.key], set()
                if self._over or (self._ends and not known):
                    return
            if time.monotonic() >= due:
                known = known | set(tenants())
                due = time.monotonic() + max(_EVERY, len(known) / 100)
            for tenant in sorted(known):
                try:
                    if not self._tell_some(hook, ask, tenant):
                        with self._changed:
                            self._woken[hook.key].add(tenant)
                except AgentGateError as error:  # what is untold stays so, and is looked for again
                    _log.warning("tell_delayed", hook=hook.name, tenant=tenant, problem=str(error))

    def _tell_some(self, hook: Hook, ask: Ask, tenant: str) -> bool:
        """Tell a tenant's events, so many that no other's wait long. Whether that was all."""
        first = told = 0
        while not self._over and told < _TURN:
            found = ask(ops.untold_hold(tenant, hook.key, int(_LEASE * 1000), first))
            if found == "none":
                return True
            if found == "more":
                first += ops.PAGE
                continue
            told += 1
            if self._send(hook, *message(found, self._pages)):
                ask(ops.told_hold(tenant, hook.key, found))
        return False

    def _send(self, hook: Hook, id_: str, body: bytes) -> bool:
        """Whether the hook is done with this event."""
        for tried in range(TRIES):
            try:
                done, wrong = hook.send(id_, body)
            except Exception as error:  # noqa: BLE001 - a hook that fails changes nothing, whatever it raises
                done, wrong = True, type(error).__name__
            if wrong:
                _log.warning("tell_failed", hook=hook.name, id=id_, tried=tried + 1, of=TRIES, problem=wrong)
            if done:
                return True
            with self._changed:
                if tried == TRIES - 1 or self._changed.wait_for(lambda: self._over, _PAUSE * 2**tried):
                    return False
        return False


def asking(store: Store | AsyncStore) -> Ask:
    """How a thread asks a store; an awaited one on the event loop that runs now.

    Raises (what is returned):
        StoreUnavailable.
    """
    call: Callable[[Op[Any], float], Any] = store.call
    if not inspect.iscoroutinefunction(call):
        return lambda op: op.parse(call(op, time.monotonic() + _ANSWER))
    loop = asyncio.get_running_loop()

    def ask(op: Op[Any]) -> Any:
        if loop.is_closed():
            raise StoreUnavailable("the event loop of this gate is closed")
        asked = asyncio.run_coroutine_threadsafe(call(op, time.monotonic() + _ANSWER), loop)
        try:
            return op.parse(asked.result(2 * _ANSWER))
        except (TimeoutError, asyncio.CancelledError) as error:
            asked.cancel()
            raise StoreUnavailable("the event loop of this gate does not run") from error

    return ask


def message(untold: ops.Untold, pages: str = "") -> tuple[str, bytes]:
    """An event's id, which is the same whoever tells it, and its body.

    Raises:
        StoreUnavailable: what the store keeps of it cannot be read.
    """
    hold, number = hold_of(untold.hold), untold.number
    state = "pending" if untold.what == "held" else untold.what
    more = event_from(untold.event) if untold.what == "answered" else {"state": state}
    id_ = digest(canonical([hold.tenant, hold.id, untold.at, untold.what, number if untold.what == "answered" else 0]))[:32]
    question = as_json(hold.question.without_words)
    plain = {"hold": hold.id, "tenant": hold.tenant, "run": hold.run, "tool": hold.tool, "until": hold.expires_at}
    plain |= {"page": f"{pages}{hold.id}"} if pages else {}
    return f"msg_{id_}", canonical({**more, "type": untold.what, **plain, "question": question})
