"""``agentgate evaluate``: what a set of workflows lets through of recorded traffic, before
anybody approves them.

Many episodes are replayed on all processors, where no run can see another; results keep the
order of the episodes and are the same either way. Where a workflow keeps state across runs (a
limit per agent or tenant, the key of the last token), one gate decides all.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from agentgate.cli.output import (
    complain,
    fail,
    progress,
    quiet,
    rows,
    say,
    say_json,
    styled,
    table,
)
from agentgate.errors import AgentGateError
from agentgate.gate.gate import Gate
from agentgate.gate.settings import MOST
from agentgate.intents.combined import Combined
from agentgate.intents.deriver import Deriver
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.review.draft.toolset import import_object
from agentgate.review.replay.deputy import TARGETS, Kind, Tally, confused_deputy
from agentgate.review.replay.evaluate import (
    ASKED,
    SHARES,
    SIDE_EFFECTS,
    Clock,
    Decided,
    Episode,
    EpisodeUnreadable,
    Failed,
    Schemas,
    Score,
    as_json,
    in_form,
    lines,
    read_episodes,
    read_tools,
    replay,
    unendorsed,
    wilson,
)
from agentgate.review.replay.evaluate import failed as failed_of
from agentgate.values.value_class import value_class

Scores = dict[str, Score]

Tallies = dict[Kind, Tally]


def evaluate(
    episodes: list[Path],
    workflows: Path,
    root: str | None = None,
    *,
    unsafe_unapproved: bool = False,
    environment: str | None = None,
    deputy: bool = False,
    failed: bool = False,
    tools: Path | None = None,
    decisions: Path | None = None,
    answers: Path | None = None,
    record: Path | None = None,
    no_endorse: bool = False,
    model: str | None = None,
    json_: bool = False,
) -> None:
    """Replay recorded episodes through a real gate (in memory) and count what passes, is held
    and is refused.

    Clean episodes show what people would notice; attack episodes show what an obedient, tricked
    agent would get.
    """
    if not unsafe_unapproved and root is None:
        fail(
            "Say what to evaluate: --root sha256:... for the versions in force (agentgate "
            "root digest prints it), or "
            "--unsafe-unapproved for workflows as they lie there."
        )
    quiet()
    clock = Clock()
    tallies: Tallies = {kind: Tally() for kind in TARGETS} if deputy else {}
    listed: list[Failed] | None = [] if failed else None
    try:
        schemas = read_tools(tools) if tools else {}
    except ValueError as error:
        fail(f"{tools}: {error}")
    opening = ReplaySettings(
        workflows,
        None if unsafe_unapproved else root,
        environment,
        answers,
        _reading(record, model, answers),
        endorse=not no_endorse,
    )
    with opening.gate(clock) as gate:
        complain(
            *(
                f"in doubt: {w.id} v{w.version}: {doubt}"
                for w in gate.catalog
                for doubt in w.in_doubt
            ),
            colour="yellow",
        )
        scores, bad = _replay_all(
            gate, clock, episodes, decisions, tallies, listed, opening, schemas
        )
    complain(*bad)
    _tell(scores, tallies, listed, as_json_=json_)
    raise typer.Exit(1 if bad else 0)


def _reading(
    record: Path | None, model: str | None, answers: Path | None
) -> tuple[Path, str] | None:
    """Where the answers of which model are written, if of any."""
    if (record is None) is not (model is None) or (record and answers):
        fail("Give --record and --model together, or --answers alone.")
    return (record, model) if record and model is not None else None


def _tell(
    scores: Scores, tallies: Tallies, listed: list[Failed] | None, *, as_json_: bool
) -> None:
    """Print the counts, and what was asked for beside them."""
    if as_json_:
        counts: dict[str, Any] = {name: _json(score) for name, score in scores.items()}
        counts |= {"confused deputy": _deputy_json(tallies)} if tallies else {}
        counts |= {"failed": [as_json(each) for each in listed]} if listed is not None else {}
        say_json(counts)
    elif scores:
        _table(scores)
        if listed is not None:
            _list(listed)
        if tallies:
            _deputy_table(tallies)


def _replay_all(  # noqa: PLR0917 - one step of the command, with what it was given
    gate: Gate,
    clock: Clock,
    files: list[Path],
    decisions: Path | None,
    tallies: Tallies,
    listed: list[Failed] | None,
    opening: ReplaySettings,
    tools: Schemas,
) -> tuple[Scores, list[EpisodeUnreadable]]:
    read = list(read_episodes(files))
    episodes = [
        in_form(line, tools, gate.catalog.get(line.workflow))
        for line in read
        if isinstance(line, Episode)
    ]
    bad = [line for line in read if not isinstance(line, Episode)]
    scores: Scores = {}
    with decisions.open("w", encoding="utf-8") if decisions else nullcontext() as out:
        replayed = replays(episodes, gate, clock, opening, deputy=bool(tallies))
        shown = progress(replayed, len(episodes), "replaying")
        for line, (decided, made) in zip(episodes, shown, strict=True):
            writes = any(step.effect in SIDE_EFFECTS for step in line.steps)
            for name in (line.suite, *["that write"] * writes, "overall"):
                scores.setdefault(name, Score()).add(line, decided)
            if listed is not None and (
                one_failed := failed_of(gate.catalog.get(line.workflow), line, decided)
            ):
                listed.append(one_failed)
            for kind, tally in made.items():
                tallies[kind].join(tally)
            if out:
                for number, one in enumerate(decided):
                    step = {
                        "episode": line.id,
                        "step": number,
                        "decision": one.answer,
                        "reasons": one.reasons,
                    }
                    out.write(json.dumps(step) + "\n")
    return {
        name: scores[name]
        for name in sorted(scores, key=lambda n: (n == "overall", n == "that write", n))
    }, bad


def _list(listed: list[Failed]) -> None:
    """Every episode with its failed steps: coloured at a terminal, plain lines elsewhere."""
    say(
        "",
        "What was held or refused of ordinary work, and minted of attacker writes"
        + ("" if listed else ": nothing"),
    )
    for each in listed:
        say("")
        styled(lines(each))


def _json(score: Score) -> dict[str, Any]:
    return {
        **{name: _share_json(*score.share(name)) for name in SHARES},
        **{name: score.average(name) for name in ASKED},
        "reasons": score.reasons.most_common(10),
    }


def _share_json(k: int, n: int) -> dict[str, Any]:
    return {"k": k, "n": n, "share": k / n if n else None, "wilson95": wilson(k, n)}


def _share(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k}/{n}  {100 * k / n:.1f}% [{100 * low:.1f}, {100 * high:.1f}]" if n else "-"


def _deputy_json(tallies: Tallies) -> dict[str, Any]:
    return {
        kind: {
            "minted": _share_json(tally.minted, tally.total),
            "target": TARGETS[kind],
            "held": tally.held,
            "refused": tally.refused,
            "why": [
                {"tool": t, "argument": a, "stood": p, "origin": o, "count": n}
                for (t, a, p, o), n in tally.ranked()
            ],
            "stopped": [
                {"answer": answer, "tool": t, "argument": a, "reason": reason, "count": n}
                for (answer, t, a, reason), n in tally.stopped.most_common()
            ],
        }
        for kind, tally in tallies.items()
    }


def _deputy_table(tallies: Tallies) -> None:
    say("", "Confused deputy: ordinary writes", "")
    body = [
        (k, _share(t.minted, t.total), f"{100 * TARGETS[k]:.0f}%", t.held, t.refused)
        for k, t in tallies.items()
    ]
    table(
        "bold:its destination or object exchanged for | minted | at most | held | refused", body
    )
    why = [
        (f"{t}.{a}", place, origin, n)
        for tally in tallies.values()
        for (t, a, place, origin), n in tally.ranked()[:10]
    ]
    _more("minted | where the value stood | the origin it was taken to have | count", why)
    stopped = sum(
        (tally.stopped for tally in tallies.values()), Counter[tuple[str, str, str, str]]()
    )
    held = [
        (f"{answer} {t}.{a}", reason, n)
        for (answer, t, a, reason), n in stopped.most_common(10)
    ]
    _more(
        "held or refused (one with several reasons counts under each) | reason | count",
        held,
    )


def _table(scores: Scores) -> None:
    say("Replayed through a real gate (shares with their 95% interval)", "")
    body = [
        (name, *(_share(*score.share(name)) for score in scores.values())) for name in SHARES
    ]
    for name in ASKED:
        averages = [score.average(name) for score in scores.values()]
        body.append((name, *("-" if each is None else f"{each:.2f}" for each in averages)))
    rows(("", *scores), body, styles=("bold",))
    reasons = list(scores.values())[-1].reasons.most_common(10) if scores else []
    _more("steps of ordinary work that were held or refused | count", reasons)


def _more(columns: str, body: Sequence[Sequence[object]]) -> None:
    """One more table, set off from the one before, where it has a row."""
    if body:
        say("")
        table(f"bold:{columns}", body)


# --- many episodes ----------------------------------------------------------------------------
MANY = 400  # episodes from which starting processes costs less than it saves
_CHUNK = 25
Replayed = tuple[list[Decided], dict[Kind, Tally]]


@value_class
class ReplaySettings:
    """How to open a gate for a replay; `root` None: the present files, without signatures;
    `endorse` False: a yes names nothing.
    """

    workflows: Path
    root: str | None
    environment: str | None
    answers: Path | None = None
    record: tuple[Path, str] | None = None
    endorse: bool = True

    def _deriver(self) -> dict[str, Deriver]:
        """The gate's setting: the words, and behind them what a model read, or reads now."""
        if not self.answers and self.record is None:
            return {}
        from agentgate.review.replay.reader import RecordedReader, RecordingReader  # noqa: PLC0415 - it imports langchain-core

        if self.answers:
            return {"deriver": Combined(derive, RecordedReader(self.answers))}
        file, model = self.record or (Path(), "")
        return {
            "deriver": Combined(derive, RecordingReader(import_object("model", model), file))
        }

    @contextmanager
    def gate(self, clock: Clock) -> Iterator[Gate]:
        """A gate whose state, keys and log end with the replay. Its budgets are as large as
        they may be: episodes are no live run.
        """
        common: Any = {
            "issuer": "https://gate.invalid",
            "environment": self.environment,
            "clock": clock,
            **self._deriver(),
            **MOST,
        }
        with ExitStack() as stack:
            if self.root is None:
                gate = Gate.open_unsafe_unapproved(self.workflows, audit="memory://", **common)
            else:
                folder = Path(
                    stack.enter_context(TemporaryDirectory(prefix="agentgate-evaluate-"))
                )
                gate = Gate.open(
                    self.workflows,
                    root=self.root,
                    keys=folder / "keys",
                    audit=str(folder / "audit"),
                    **common,
                )
            if not self.endorse:
                gate.catalog.become(
                    Catalog(
                        {each.id: unendorsed(each) for each in gate.catalog},
                        gate.catalog.quarantined,
                    )
                )
            yield stack.enter_context(gate)


def replays(
    episodes: Sequence[Episode],
    gate: Gate,
    clock: Clock,
    opening: ReplaySettings,
    *,
    deputy: bool,
) -> Iterator[Replayed]:
    """Replay each episode, and with `deputy` its confused-deputy mutants, in their order.

    Raises AgentGateError: as `agentgate.review.replay.evaluate.replay`; or a process ended
    before its episodes.
    """
    processors = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
    if (
        len(episodes) < MANY
        or processors < 2
        or opening.record is not None
        or _remembers(gate, episodes)
    ):
        for episode in episodes:
            yield _replayed(gate, clock, episode, deputy=deputy)
        return
    try:
        with ProcessPoolExecutor(
            processors, get_context("spawn"), _open, (opening, deputy)
        ) as pool:
            yield from pool.map(_in_process, episodes, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise AgentGateError(f"a process that replayed episodes ended: {error}") from error


def _replayed(gate: Gate, clock: Clock, episode: Episode, *, deputy: bool) -> Replayed:
    decided = replay(gate, clock, episode)
    tallies: dict[Kind, Tally] = {kind: Tally() for kind in TARGETS} if deputy else {}
    if deputy:
        confused_deputy(gate, clock, episode, tallies)
    return decided, tallies


def _remembers(gate: Gate, episodes: Sequence[Episode]) -> bool:
    """Whether a run of these workflows can see what another did."""
    named = {episode.workflow for episode in episodes}
    workflows = [workflow for name in named if (workflow := gate.catalog.get(name))]
    return any(
        workflow.agent.same_key_as_last_token
        or any(not limit.is_of_run for tool in workflow.tools.values() for limit in tool.limits)
        for workflow in workflows
    )


# --- in a process of its own ------------------------------------------------------------------
_own: dict[str, Any] = {}


def _open(opening: ReplaySettings, deputy: bool) -> None:
    quiet(logging.CRITICAL)  # the first gate has logged everything about the workflows
    stack = ExitStack()
    clock = Clock()
    _own.update(
        stack=stack, clock=clock, gate=stack.enter_context(opening.gate(clock)), deputy=deputy
    )


def _in_process(episode: Episode) -> Replayed:
    return _replayed(_own["gate"], _own["clock"], episode, deputy=_own["deputy"])
