"""``agentgate workflow words``: how people ask for what tools do, ready to be pasted into an intent and cut down."""

from __future__ import annotations

from typing import Annotated

import typer

from agentgate.cli.output import fail, say
from agentgate.review.draft.phrasebook import ACTS, act_of, groups, listed


def words(
    acts: Annotated[list[str] | None, typer.Argument(help="What the tool does: delete, share, pay ...", show_default=False)] = None,
    thing: Annotated[str, typer.Option("--thing", help="What it acts on, for phrases that name it: event, file, invoice.")] = "",
) -> None:
    """Print the usual English words for an act, as the `words` of an intent.

    They are proposals: what counts is what stands in the workflow that reviewers sign. Leave out what would grant too much
    there ("make it", "set"; a line is a group), add what your people say.
    """
    if not acts:
        say(", ".join(ACTS))
        return
    for name in acts:
        act = act_of(name.lower())
        if act is None:
            fail(f"no usual words for {name!r}, expected one of {', '.join(ACTS)}")
        say(*listed(groups(act, thing.lower())))
