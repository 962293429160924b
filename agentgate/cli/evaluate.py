"""``agentgate evaluate``: what a set of workflows lets through of recorded traffic, before anybody approves them."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from agentgate.errors import AgentGateError
from agentgate.gate import Gate
from agentgate.review.evaluate import Clock, Episode, Score, Unreadable, read_episodes, replay, wilson

EXAMPLES = (
    "Examples:\n\n"
    "agentgate evaluate recorded.jsonl --workflows workflows/ --unsafe-unapproved\n\n"
    "agentgate evaluate *.jsonl --workflows workflows/ --unsafe-unapproved --decisions decisions.jsonl --json\n\n"
    "Exit codes: 0 all lines replayed, 1 some line was no episode or the workflows do not load."
)


def evaluate(  # noqa: PLR0917 - a command's options, given by name
    episodes: Annotated[
        list[Path], typer.Argument(help="JSON-lines files of recorded episodes (format: docs/workflows.md).", exists=True, dir_okay=False)
    ],
    workflows: Annotated[Path, typer.Option(help="Directory of the workflows that the episodes name.", exists=True, file_okay=False)],
    unsafe_unapproved: Annotated[
        bool, typer.Option("--unsafe-unapproved", help="Use workflows as they lie there, without signatures.")
    ] = False,
    environment: Annotated[str | None, typer.Option(help="Where the traffic ran, for workflows with conditions.environment.")] = None,
    decisions: Annotated[Path | None, typer.Option(help="Write one line per step here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay recorded episodes through a real gate (in memory) and count what passes, is held and is refused.

    Clean episodes show what people would notice; attack episodes show what an obedient, tricked agent would get.
    """
    errors = Console(stderr=True, highlight=False)
    if not unsafe_unapproved:
        errors.print("[red]These workflows carry no approvals: say --unsafe-unapproved to evaluate them as they lie there.[/]")
        raise typer.Exit(1)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
    clock = Clock()
    try:
        gate = Gate.open_unsafe_unapproved(
            workflows, issuer="https://gate.invalid", audit="memory://", environment=environment, clock=clock
        )
        scores, bad = _replay_all(gate, clock, episodes, decisions, errors)
    except AgentGateError as error:
        errors.print(f"[red]{error}[/]", soft_wrap=True)
        raise typer.Exit(1) from None
    for line in bad:
        errors.print(f"[red]{line}[/]", soft_wrap=True)
    if as_json:
        typer.echo(json.dumps({name: _json(score) for name, score in scores.items()}, indent=2))
    elif scores:
        _table(scores)
    raise typer.Exit(1 if bad else 0)


def _replay_all(
    gate: Gate, clock: Clock, files: list[Path], decisions: Path | None, errors: Console
) -> tuple[dict[str, Score], list[Unreadable]]:
    lines = list(read_episodes(files))
    scores: dict[str, Score] = {}
    bad: list[Unreadable] = []
    out = decisions.open("w", encoding="utf-8") if decisions else None
    try:
        for line in track(lines, "replaying", console=errors, transient=True, disable=not errors.is_terminal):
            if not isinstance(line, Episode):
                bad.append(line)
                continue
            decided = replay(gate, clock, line)
            for name in (line.suite, "overall"):
                scores.setdefault(name, Score()).add(line, decided)
            for number, one in enumerate(decided) if out else ():
                out.write(json.dumps({"episode": line.id, "step": number, "decision": one.answer, "reasons": list(one.reasons)}) + "\n")  # type: ignore[union-attr]  # only iterated with a file
    finally:
        if out:
            out.close()
    return {name: scores[name] for name in sorted(scores, key=lambda n: (n == "overall", n))}, bad


def _json(score: Score) -> dict[str, Any]:
    shares = {name: {"k": k, "n": n, "share": k / n if n else None, "wilson95": wilson(k, n)} for name, (k, n) in score.shares().items()}
    return {**shares, "step-ups per task": score.step_ups / score.clean if score.clean else None, "reasons": score.reasons.most_common(10)}


def _table(scores: dict[str, Score]) -> None:
    table = Table("", *scores, title="Replayed through a real gate")
    for name in Score().shares():
        cells = []
        for score in scores.values():
            k, n = score.shares()[name]
            low, high = wilson(k, n)
            cells.append(f"{k}/{n}  {100 * k / n:.1f}% [{100 * low:.1f}, {100 * high:.1f}]" if n else "-")
        table.add_row(name, *cells)
    table.add_row("step-ups per task", *(f"{s.step_ups / s.clean:.2f}" if s.clean else "-" for s in scores.values()))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    reasons = Table("clean steps held or refused", "count", title="Top reasons")
    for reason, count in list(scores.values())[-1].reasons.most_common(10) if scores else ():
        reasons.add_row(reason, str(count))
    console.print(reasons)
