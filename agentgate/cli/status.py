"""``agentgate workflow status``, ``index`` and ``revoke``: what is in force, and ending it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from agentgate.approvals import WorkflowStatus, root_digest, write_index
from agentgate.approvals import revoke as write_revocation
from agentgate.approvals import status as standing
from agentgate.cli.output import LOOK, YES, fail, note, refusing, rows, say, say_json
from agentgate.cli.signing import Accept, Directory, Json, Key, Root, confirm, own_signer


def status(
    directory: Directory = Path("workflows"),
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Say what is in force, who signed what, and how many signatures are missing."""
    with refusing():
        statuses = standing(directory, root)
        digest = root_digest(directory)
    if as_json:
        say_json({"root": digest, "pinned": root is not None, "workflows": [_json(each) for each in statuses]})
    else:
        _tell(statuses)
        say("", f"root {digest}" + ("" if root else " (as it lies there; a gate pins it: --root or AGENTGATE_ROOT)"))
    raise typer.Exit(LOOK if any(each.refused is not None for each in statuses) else YES)


def _tell(statuses: tuple[WorkflowStatus, ...]) -> None:
    body = []
    absent = [e.refused for e in statuses if not e.id and e.refused is not None and (e.refused.field, e.refused.got) == ("file", "nothing")]
    for each in statuses:
        if not each.id:
            note(str(each.refused), colour="red")
            continue
        need = max(each.needs, key=lambda n: n.needed - n.have, default=None)  # the rule that asks for most; a proposer never counts
        body.append(
            (
                each.id,
                f"v{each.version}" if each.version else "?",
                f"v{each.in_force}" if each.in_force is not None else "none",
                datetime.fromtimestamp(each.until, UTC).date().isoformat() if each.until else "",
                f"{min(need.have, need.needed)} of {need.needed}" if need is not None and need.needed else str(len(each.signed)),
                ", ".join(each.signed),
                ", ".join(each.can),
            )
        )
    if absent:
        note("Next: agentgate workflow index, which writes what a new folder lacks; what was there before, restore from git.")
    rows(("workflow", "file", "in force", "until", "signatures", "by", "can sign"), body, styles=("bold", "", "green", "dim"))
    for each in statuses:
        note(*([each.refused] if each.id and each.refused is not None else []))
        note(*(f"does not count: {ignored}" for ignored in each.ignored))
        otherwise = "(this deriver reads it otherwise; the intent is unclear at most)"
        note(*(f"in doubt: {each.id} v{each.in_force}: {doubt} {otherwise}" for doubt in each.in_doubt))


def _json(each: WorkflowStatus) -> dict[str, Any]:
    return {
        "id": each.id,
        "file": each.path,
        "version": each.version,
        "in_force": each.in_force,
        "until": datetime.fromtimestamp(each.until, UTC).isoformat() if each.until else None,
        "signed": list(each.signed),
        "missing": each.missing,
        "can": list(each.can),
        "refused": str(each.refused) if each.refused else None,
        "ignored": [*map(str, each.ignored)],
        "in_doubt": [*map(str, each.in_doubt)],
    }


def index(
    directory: Directory = Path("workflows"),
    key: Key = None,
    root: Root = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Go on without the last index, which is missing or bad: first see why, and what was in force.")
    ] = False,
) -> None:
    """Sign the list of newest approved versions. Gates refuse one that is older than seven days."""
    with refusing():
        written = write_index(directory, own_signer(key), root=root, anew=anew)
    say(f"wrote {written}")


def revoke(  # noqa: PLR0917 - a command's options, given by name
    workflow: Annotated[str, typer.Argument(help="The workflow's id.")],
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")],
    up_to: Annotated[int | None, typer.Option(min=1, help="The highest version that ends; left out: the one in force.")] = None,
    directory: Directory = Path("workflows"),
    key: Key = None,
    root: Root = None,
    accept: Accept = None,
) -> None:
    """End a workflow's versions, for good: one signature is enough, and gates refuse them from their next look on."""
    with refusing():
        signer = own_signer(key)
        version = up_to if up_to is not None else _newest(workflow, directory, root)
        say(f"revoking {workflow} up to v{version}: it is never undone (a higher version can be approved)")
        confirm(f"revoke {workflow} up to v{version}", accept, "--accept")
        written = write_revocation(directory, workflow, signer, version=version, reason=reason, root=root)
    say(f"wrote {written}: commit it, or copy it to where your gates read it")


def _newest(workflow: str, directory: Path, root: str | None) -> int:
    statuses = next((each for each in standing(directory, root) if each.id == workflow), None)
    version = max(statuses.in_force or 0, statuses.version) if statuses is not None else 0
    if not version:
        fail(f"{workflow}: no such workflow in {directory}; say which version with --up-to")
    return version
