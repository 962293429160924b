"""``agentgate explain``: why a call was, or would be, allowed, held or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentgate.audit.questions import event, find_story
from agentgate.cli.audit import ask, tell_state
from agentgate.cli.output import say_json, styled
from agentgate.errors import ConfigError
from agentgate.explain.explanation import Explanation, text_lines
from agentgate.explain.explanation import as_json as explanation_json
from agentgate.intents.lexical import derive
from agentgate.loading.source import find as find_source
from agentgate.review.report.past import (
    Alive,
    Record,
    answer,
    arguments,
    case_of,
    changes,
    decision_of,
    explain_record,
    stated,
    still_alive,
    version_of,
)
from agentgate.stores import open_store
from agentgate.workflow.model import Workflow

# of the lines of an explanation
_STYLES = dict(
    each.split(": ")
    for each in """allow: bold green
confirm: bold yellow
step_up: bold yellow
deny: bold red
failed: bold red
asks: bold yellow
met: green
allowed: cyan
unknown: red
pass: bold green""".splitlines()
)


def explain(  # noqa: PLR0917 - a command's options, given by name
    id: str = "",  # noqa: A002 - the word of the vocabulary
    audit: Path | None = None,
    workflows: Path | None = None,
    store: str | None = None,
    tenant: str = "",
    run: str = "",
    workflow: str | None = None,
    tool: str = "",
    args: str | None = None,
    prompt: list[str] | None = None,
    case: str = "",
    set_: list[str] | None = None,
    keys: list[Path] | None = None,
    cache: Path | None = None,
    as_json: bool = False,
) -> None:
    """Explain a decision: every condition, what it got and expected, where each value came
    from, what would pass, and whom to ask.
    """
    if bool(id) == (workflow is not None):
        raise ConfigError(
            "explain",
            "both" if id else "neither",
            "an ID with --audit, or --workflow with a call (see --help)",
        )
    if id:
        if not audit:
            raise ConfigError(
                "audit", "none", "--audit with the directory of the gate's audit log"
            )
        log, found = ask(
            [audit],
            keys,
            cache,
            lambda log: find_story(log, id, run, [tenant] if tenant else None),
        )
        story = [record for record in found if "tool_call_id" in record or "hold" in record]
        tell_state(log)  # records before a damage, and in other segments, still count
        decision = decision_of(story)
        version = version_of(decision, workflows) if workflows else None
        alive = _alive(store, decision, version)
        explanation = explain_record(
            decision, version, alive, None if args is None else arguments(args)
        )
    else:
        more = {**({"tenant": tenant} if tenant else {}), **changes(set_ or ())}
        more |= {"prompt": prompt} if prompt and case else {}
        story = []
        explanation = _asked(str(workflow), (tool, args, prompt or []), case, more)
    show(explanation, story, as_json=as_json)


def _asked(
    name: str, call: tuple[str, str | None, list[str]], case: str, more: dict[str, Any]
) -> Explanation:
    tool, args, prompts = call
    source = find_source(name)
    loaded = source.workflow()
    if case:
        if tool or args is not None:
            raise ConfigError(
                "case",
                case,
                "--case alone (change it with --set args.x=...), or --tool and --args",
            )
        return answer(case_of(source, loaded, case, more))
    if not tool:
        raise ConfigError(
            "tool",
            "none",
            f"--tool and --args, or --case NAME; tools of this workflow: {', '.join(loaded.tools)}",
        )
    return answer(stated(loaded, tool, arguments(args or "{}"), prompts, more))


def _alive(address: str | None, record: Record, version: Workflow | None) -> Alive | None:
    if address is None or not version:
        return None
    if address == "memory://":
        raise ConfigError(
            "store", address, "the store the gate uses; memory:// ends with the gate's process"
        )
    store = open_store(address)
    try:
        return still_alive(store, record, version, derive)
    finally:
        store.close()


# --- output -----------------------------------------------------------------------------------
def show(explanation: Explanation, story: Sequence[Record], *, as_json: bool) -> None:
    """Lines of text, coloured at a terminal, or JSON."""
    if as_json:
        events = [{"time": record.get("time"), "event": event(record)} for record in story]
        say_json({**explanation_json(explanation), "story": events})
        return
    styled(
        (line, _STYLES.get(kind, "dim" if kind else ""))
        for kind, line in text_lines(explanation)
    )
    styled((f"then: {event(record)}", "dim") for record in story)
