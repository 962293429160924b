"""Rows of many workflows: deciding among them, and what loading them costs."""

from __future__ import annotations

import gc
import random
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it has no types

from agentgate.decision.answer import Eligible
from agentgate.decision.decide import decide
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from tests.benchmarks import world
from tests.benchmarks.row import KB, MS, Measuring, Row, Scale, compared
from tests.benchmarks.sidebyside import Pair, Work


def _write(folder: Path, count: int) -> None:
    source = world.text()
    (folder / "roles.yaml").write_bytes(world.ROLES.read_bytes())
    for index in range(count):
        part = folder / f"{index // 1000:04}"
        if index % 1000 == 0:
            part.mkdir()
        (part / f"{index:06}.yaml").write_text(world.renamed(source, f"payments.refund-{index:06}"), encoding="utf-8")


def _rss() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _deciding(catalog: Catalog, runs: int) -> Work:
    """Look a workflow up by id and decide a refund in it; runs spread over the catalogue, in a shuffled order."""
    rng = random.Random(7)  # noqa: S311 - an order, not a secret
    ids = [workflow.id for workflow in catalog]
    chosen = [ids[index * len(ids) // runs] for index in range(runs)]
    states = []
    for name in chosen:
        workflow = catalog.get(name)
        if workflow is None:
            raise ValueError(f"workflow {name} is not loaded")
        states.append(world.state(workflow))
    rng.shuffle(states)
    desk = world.Desk()
    place = [0]

    def work() -> None:
        state = states[place[0]]
        place[0] = (place[0] + 1) % len(states)
        workflow = catalog.get(state.header.workflow)
        if workflow is None or not isinstance(decide(workflow, state, desk.call, desk.around()), Eligible):
            raise ValueError("the benchmark's call is refused")

    return work


def flat(scale: Scale) -> Measuring:
    """Deciding among many workflows against among few; what loading them costs."""
    with tempfile.TemporaryDirectory(prefix="agentgate-bench-") as name:
        few, many = Path(name, "few"), Path(name, "many")
        for folder, count in ((few, scale.few), (many, scale.many)):
            folder.mkdir()
            _write(folder, count)
            yield
        small = Catalog.load(few, derive)  # imports, the interpreter's own memory, and what all workflows share
        before, start = _rss(), time.process_time()
        large = Catalog.load(many, derive)
        seconds, grown = time.process_time() - start, _rss() - before
        if len(small) != scale.few or len(large) != scale.many:
            raise ValueError(f"workflows did not load: {[str(e) for e in [*small.quarantined.values(), *large.quarantined.values()][:1]]}")
        yield
        pair = Pair(_deciding(large, scale.runs), _deciding(small, scale.runs), scale.rounds)
        note = f"look up and decide in {scale.runs} runs: {scale.many} workflows against {scale.few}"
        row = yield from compared("flat", pair, f"the same with {scale.few} workflows", 1.3, note)
        per = seconds / scale.many * 1e6
        size = grown / scale.many
        note = f"CPU time of reading, parsing and checking one file of {scale.many} full payment workflows with different ids"
        load = Row("load", per, "", None, per, "us", MS, False, note)
        memory = Row("memory", None, "", None, size, "B", 8.0 * KB, False, f"growth of the process (RSS) per workflow, {scale.many} loaded")
        return [row, load, memory]
