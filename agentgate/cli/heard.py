"""``agentgate workflow heard``: whose words each part of a prompt was taken for, and what each
intent of a workflow came out as.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentgate.cli.output import say_json, table
from agentgate.intents.lexical import derive
from agentgate.language.turn import MAX_TURN, Turn
from agentgate.loading.definition import read_file
from agentgate.loading.source import on_disk
from agentgate.review.scenarios.testfile import read_tests, tests_of
from agentgate.values.request import Presence, turn_text


def heard(
    file: Path,
    prompts: list[str],
    *,
    record: bool = False,
    as_json: bool = False,
) -> None:
    """Print what each part of a prompt was taken for, and what each intent came out as, with
    the words that decided.

    Parts are the user's own (a request, a question, a statement ...), or quoted, forwarded,
    pasted, reported, denied, or unsure: then they grant nothing and a person may be asked.
    """
    workflow = on_disk(file).workflow()
    intents = tuple(workflow.intents.values())
    answers = derive(intents, tuple(turn_text(prompt) for prompt in prompts))
    if record:
        _record(
            tests_of(file), prompts, {name: answer.presence for name, answer in answers.items()}
        )
    turns = [[*_parts(Turn(prompt[:MAX_TURN]))] for prompt in prompts]
    if as_json:
        say_json(
            {
                "turns": turns,
                "intents": {
                    name: {"presence": a.presence, "evidence": a.evidence}
                    for name, a in answers.items()
                },
            }
        )
        return
    parts = [
        (number, row["whose"], row["kind"], row["words"])
        for number, turn in enumerate(turns, 1)
        for row in turn
    ]
    table("dim:turn | cyan:whose | magenta:kind | words", parts)
    table(
        "bold:intent | bold cyan:came out as | why",
        [(name, a.presence, a.evidence) for name, a in answers.items()],
    )


def _record(file: Path, prompts: list[str], intents: Mapping[str, Presence]) -> None:
    """Append a case to the file's list `heard`, which is made where there is none. The file
    must load as tests, before and after.
    """
    text = read_file(file)
    read_tests(text, str(file))
    said = json.dumps(prompts if len(prompts) > 1 else prompts[0], ensure_ascii=False)
    case = (
        f"  - {{prompt: {said}, intents: "
        f"{{{', '.join(f'{name}: {presence}' for name, presence in intents.items())}}}}}\n"
    )
    text += "" if text.endswith("\n") else "\n"
    place = re.search(r"(?m)^heard:[ \t]*(?:#.*)?\n", text)
    text = (
        text[: place.end()] + case + text[place.end() :] if place else f"{text}\nheard:\n{case}"
    )
    read_tests(text, str(file))
    file.write_text(text, "utf-8")


def _parts(turn: Turn) -> Iterator[dict[str, Any]]:
    """The parts of one turn in order: whose words, what kind of clause, and the words."""
    found: list[tuple[int, int, str, str]] = [
        (part.start, part.end, part.whose, "") for part in turn.parts
    ]
    for clause in turn.clauses:
        pieces = turn.pieces_of(clause)
        found += [
            (
                piece.start,
                piece.end,
                "in doubt" if turn.doubted(piece.start) else "own",
                piece.kind,
            )
            for piece in pieces
        ]
        if not pieces and clause.voice != "said":
            found.append((clause.start, clause.end, clause.voice, ""))
    for start, end, whose, kind in sorted(found):
        words = " ".join(
            (turn.own if whose in {"own", "in doubt", "denied", "reported"} else turn.text)[
                start:end
            ].split()
        )
        if words:
            yield {"whose": whose, "kind": kind, "words": words}
