"""LangGraph's checkpoints in one SQLite file for all workers. Stands where `langgraph-checkpoint-sqlite` or -redis is in yours."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple

_TABLES = """
create table if not exists checkpoints (thread text, ns text, id text, parent text, form text, data blob, told_form text, told blob,
  primary key (thread, ns, id));
create table if not exists writes (thread text, ns text, id text, task text, number integer, channel text, form text, data blob,
  primary key (thread, ns, id, task, number));
"""


class SqliteThreads(BaseCheckpointSaver[int]):
    """A saver for graphs that are awaited."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        with self._db() as db:
            db.execute("pragma journal_mode = wal")
            db.executescript(_TABLES)

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as db, db:
            yield db

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:  # noqa: ARG002 - the base class names it
        """Keep a checkpoint."""
        place = config["configurable"]
        thread, ns = place["thread_id"], place.get("checkpoint_ns", "")
        row = (
            thread,
            ns,
            checkpoint["id"],
            place.get("checkpoint_id"),
            *self.serde.dumps_typed(checkpoint),
            *self.serde.dumps_typed(metadata),
        )

        def put() -> None:
            with self._db() as db:
                db.execute("insert or replace into checkpoints values (?, ?, ?, ?, ?, ?, ?, ?)", row)

        await asyncio.to_thread(put)
        return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:  # noqa: ARG002 - as above
        """Keep what a task wrote before its step was over."""
        place = config["configurable"]
        key = place["thread_id"], place.get("checkpoint_ns", ""), place["checkpoint_id"], task_id
        rows = [(*key, WRITES_IDX_MAP.get(name, n), name, *self.serde.dumps_typed(value)) for n, (name, value) in enumerate(writes)]

        def put() -> None:
            with self._db() as db:
                db.executemany("insert or replace into writes values (?, ?, ?, ?, ?, ?, ?, ?)", rows)

        await asyncio.to_thread(put)

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest of its thread."""
        return await asyncio.to_thread(self._get, config["configurable"])

    def _get(self, place: Any) -> CheckpointTuple | None:
        thread, ns, wanted = place["thread_id"], place.get("checkpoint_ns", ""), place.get("checkpoint_id")
        with self._db() as db:
            found = db.execute(
                "select id, parent, form, data, told_form, told from checkpoints where thread = ? and ns = ? and id = coalesce(?, id) "
                "order by id desc limit 1",
                (thread, ns, wanted),
            ).fetchone()
            if found is None:
                return None
            id_, parent, form, data, told_form, told = found
            writes = db.execute(
                "select task, channel, form, data from writes where thread = ? and ns = ? and id = ? order by task, number",
                (thread, ns, id_),
            ).fetchall()

        def named(name: str) -> Any:
            return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": name}}

        return CheckpointTuple(
            named(id_),
            self.serde.loads_typed((form, data)),
            self.serde.loads_typed((told_form, told)),
            named(parent) if parent else None,
            [(task, channel, self.serde.loads_typed((kind, value))) for task, channel, kind, value in writes],
        )

    async def alist(self, config: Any, **_: Any) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints of a thread; of this example nobody asks for more than the newest."""
        if (newest := await self.aget_tuple(config)) is not None:
            yield newest
