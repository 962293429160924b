"""``agentgate workflow approve``, ``status``, ``index`` and ``revoke``: what is in force,
bringing a version into force, and ending it.

To approve: read what became wider, type that you accept it, sign with the SSH key you have.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from agentgate.approvals import (
    ApprovalRefused,
    Statement,
    WorkflowStatus,
    forecast,
    root_digest,
)
from agentgate.approvals import status as standing
from agentgate.approvals._files import moment
from agentgate.approvals.root import Root as TrustRoot
from agentgate.approvals.writing import (
    Signer,
    renew_index,
    statement,
    write_approval,
    write_index,
)
from agentgate.approvals.writing import revoke as write_revocation
from agentgate.approvals.writing.approval import Unsigned, find_workflow
from agentgate.cli.output import (
    WORKFLOWS,
    complain,
    exit_with,
    fail,
    note,
    print_report,
    say,
    say_json,
    table,
)
from agentgate.cli.signing import confirm, own_signer
from agentgate.errors import ConfigError
from agentgate.loading.catalog import AHEAD
from agentgate.loading.source import WorkflowText, on_disk
from agentgate.review.check.reports import run_suite
from agentgate.review.draft.draft import undecided
from agentgate.review.report.changes import Changes, as_json
from agentgate.review.report.comparison import DiffReport, base_of, told
from agentgate.review.report.signers import in_words, makers
from agentgate.values.request import author

ROOT_FILE = "approvals/root.yaml"


def approve(  # noqa: PLR0917 - a command's options, given by name
    workflow: str,
    directory: Path = WORKFLOWS,
    key: Path | None = None,
    root: str | None = None,
    proposer: str | None = None,
    until: str | None = None,
    accept: str | None = None,
    index: bool = True,
    as_json_: bool = False,
) -> None:
    """Sign one version of a workflow.

    It must load, its tests must hold, and nothing may be left to decide.
    You see what it permits beyond the version in force, and type that you accept it.
    Your signature is over the definition's digest: it survives rebase and squash,
    and ends with one changed value.
    """
    root_digest(directory)  # before anything is asked: without a root nobody signs
    signer = own_signer(key)
    source = on_disk(directory / find_workflow(directory, workflow).path)
    _ready(source)
    made = statement(
        directory,
        source.path,
        signer=signer,
        proposer=proposer or "unknown",
        root=root,
        not_after=_day(until, source.workflow().expires),
    )
    trusted = TrustRoot.parse((directory / ROOT_FILE).read_bytes(), ROOT_FILE)
    made_by = _made_by(Path(source.path), made, trusted, signer, proposer)
    made = made.made_by(*made_by)
    said = made.statement
    still = tuple(in_words(made.needs, () if trusted.solo else made_by))
    changes = told(made.old, made.workflow, still, base=base_of(source))
    about = (("made by", ", ".join(made_by)), ("compared with", made.baseline))
    changes = replace(changes, about=(*changes.about, *about))
    if not as_json_:
        say(f"{said.id} v{said.version}, {made.workflow.title}", "")
        print_report(DiffReport(changes, ""))
    confirm(phrase(changes, first=not made.old), accept)
    written = write_approval(directory, made, signer)
    now = _status(directory, root, said)
    renewed = index and now.missing == 0 and _index(directory, signer, root)
    if renewed:
        now = _status(directory, root, said)
    if as_json_:
        done = {
            "written": str(written),
            "signed": list(now.signed),
            "missing": now.missing,
            "can": list(now.can),
            "index": renewed,
        }
        say_json({**as_json(changes), **done})
    else:
        say("", f"signed as {said.signer}: {written}", *_standing(now, renewed=renewed))
        if author(said.signer) in {author(name) for name in made_by} and now.missing:
            say("your own signature does not count: you made the change")
    exit_with(look=now.refused)


def _ready(source: WorkflowText) -> None:
    """Exits with 1 unless it loads, its tests hold and nothing is undecided."""
    suite = run_suite(source)
    if not suite.results:
        fail(*suite.problems, "Nothing was signed.")
    if not suite.ok:
        complain(*suite.failures)
        fail("Its tests do not hold. Nothing was signed.")
    questions = undecided(source.text)
    if questions:
        complain(
            *(
                f"{source.path}:{line}:{column}: undecided: {text}"
                for line, column, text in questions
            )
        )
        fail(
            "A draft is not signed before each # DECIDE: is decided and its mark deleted. "
            "Nothing was signed."
        )


def _day(text: str | None, last: date) -> str | None:
    if text is None:
        return None
    today = datetime.now(UTC).date()
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError("until", text, "a day such as 2031-05-31") from error
    if not today <= day <= last:
        raise ConfigError(
            "until", text, f"a day from today, {today}, to the workflow's last, {last}"
        )
    return day.isoformat()


def _made_by(
    file: Path, made: Unsigned, root: TrustRoot, signer: Signer, proposer: str | None
) -> tuple[str, ...]:
    """Who made the change: whoever git names since the version in force, and --proposer; under
    a solo root the one person in it.
    """
    named = makers(file, made.statement.previous, root if root.shape.signed_commits else None)
    if root.shape.signed_commits and not named:
        raise ConfigError(
            "signed_commits",
            f"{file}, changed since its last commit",
            "a committed file, with every commit signed",
        )
    if proposer is not None:
        named = (proposer, *(name for name in named if name != proposer))
    if named:
        return named
    if not root.solo:
        raise ConfigError(
            "proposer",
            f"{file}, changed since its last commit",
            "a committed file, or --proposer NAME: who made the change",
        )
    return (str(root.person(signer.public_key)),)


def phrase(changes: Changes, *, first: bool) -> str:
    """The sentence to type: which version, and how much of it is new."""
    parts = [f"{changes.id} {changes.new}"]
    if first:
        parts.append("all of it")
    elif changes.wider:
        parts.append(f"{len(changes.wider)} wider")
    if changes.read_yourself:
        parts.append(f"{len(changes.read_yourself)} read")
    return ", ".join(parts)


def _status(directory: Path, root: str | None, said: Statement) -> WorkflowStatus:
    return next(
        each
        for each in standing(directory, root, only=directory / said.path)
        if each.id == said.id
    )


def _index(directory: Path, signer: Signer, root: str | None) -> bool:
    """Renew the index, where this person may."""
    try:
        write_index(directory, signer, root=root)
    except ApprovalRefused as error:
        complain(f"the index was not renewed: {error}", colour="yellow")
        return False
    return True


def _standing(now: WorkflowStatus, *, renewed: bool) -> list[str]:
    lines = [f"signatures: {', '.join(now.signed) or 'none'}"]
    if now.missing:
        lines.append(f"still needed: {now.missing} of {', '.join(now.can) or 'nobody'}")
    elif not renewed:
        lines.append(
            "complete; somebody of the root's roles.index renews the index: agentgate workflow index"
        )
    if not now.refused:
        lines.append(f"in force: v{now.in_force}")
    return lines


# --- what is in force, and ending it ----------------------------------------------------------
def status(
    directory: Path = WORKFLOWS,
    root: str | None = None,
    as_json: bool = False,
) -> None:
    """Say what is in force, who signed what, and how many signatures are missing."""
    statuses = standing(directory, root)
    digest = root_digest(directory)
    if as_json:
        say_json(
            {
                "root": digest,
                "pinned": root is not None,
                "workflows": [_json(each) for each in statuses],
            }
        )
    else:
        _tell(statuses)
        soon = dict.fromkeys(each.ends for each in statuses if each.ends)
        note(*(e for e in soon if e.at - time.time() <= AHEAD))
        say(
            "",
            "root "
            f"{digest}{'' if root else ' (as it lies there; a gate pins it: --root or AGENTGATE_ROOT)'}",
        )
    exit_with(look=any(each.refused for each in statuses))


def _tell(statuses: tuple[WorkflowStatus, ...]) -> None:
    body = []
    wrong = [e.refused for e in statuses if not e.id and e.refused]
    absent = any(refused.data.get("absent") for refused in wrong)
    for each in statuses:
        if not each.id:
            note(str(each.refused), colour="red")
            continue
        # the rule that asks for most; a proposer never counts
        need = max(each.needs, key=lambda n: n.needed - n.have, default=None)
        body.append(
            (
                each.id,
                f"v{each.version}" if each.version else "?",
                f"v{each.in_force}" if each.in_force else "none",
                datetime.fromtimestamp(each.until, UTC).date().isoformat()
                if each.until
                else "",
                f"{min(need.have, need.needed)} of {need.needed}"
                if need and need.needed
                else str(len(each.signed)),
                ", ".join(each.signed),
                ", ".join(each.can),
            )
        )
    if absent:
        note(
            "Next: agentgate workflow index, which writes what a new folder lacks; what was "
            "there before, restore from git."
        )
    table(
        "bold:workflow | file | green:in force | dim:until | signatures | by | can sign", body
    )
    for each in statuses:
        note(*([each.refused] if each.id and each.refused else []))
        if each.in_force not in {None, each.version} and not each.refused:
            note(
                f"{each.id} v{each.version} only observes: calls are decided under it too, and recorded"
            )
        note(*(f"does not count: {ignored}" for ignored in each.ignored))
        otherwise = "(this deriver reads it otherwise; the intent is unclear at most)"
        note(
            *(
                f"in doubt: {each.id} v{each.in_force}: {doubt} {otherwise}"
                for doubt in each.in_doubt
            )
        )


def _json(each: WorkflowStatus) -> dict[str, Any]:
    return {
        "id": each.id,
        "file": each.path,
        "version": each.version,
        "in_force": each.in_force,
        "until": datetime.fromtimestamp(each.until, UTC).isoformat() if each.until else None,
        "ends": {"what": each.ends.what, "at": each.ends.at} if each.ends else None,
        "signed": list(each.signed),
        "missing": each.missing,
        "can": list(each.can),
        "refused": str(each.refused) if each.refused else None,
        "ignored": [*map(str, each.ignored)],
        "in_doubt": [*map(str, each.in_doubt)],
    }


def index(
    directory: Path = WORKFLOWS,
    key: Path | None = None,
    root: str | None = None,
    *,
    anew: bool = False,
) -> None:
    """Sign the list of newest approved versions. Gates refuse one that is older than seven
    days.
    """
    written = write_index(directory, own_signer(key), root=root, anew=anew)
    say(f"wrote {written}")


def renew(
    directory: Path = WORKFLOWS, key: Path | None = None, root: str | None = None
) -> None:
    """Carry the index on for seven days, as somebody of the root's roles.renew (CI).

    What it lists stays as it was signed. Thirty days after somebody of roles.index signed it,
    they must sign the next one.
    """
    end, latest = renew_index(directory, own_signer(key), root=root)
    say(
        f"renewed until {moment(end)}; from {moment(latest)} on it takes somebody of "
        "roles.index: agentgate workflow index"
    )


def revoke(  # noqa: PLR0917 - a command's options, given by name
    workflow: str,
    reason: str,
    up_to: int | None = None,
    directory: Path = WORKFLOWS,
    key: Path | None = None,
    root: str | None = None,
    accept: str | None = None,
) -> None:
    """End a workflow's versions for good, signed in its approvals: one signature is enough, and
    gates refuse them from their next look on.

    To stop a version (or a user, an agent, a run...) at once in the state store, until it is
    lifted: agentgate revoke.
    """
    signer = own_signer(key)
    version = up_to or _newest(workflow, directory, root)
    say(
        f"revoking {workflow} up to v{version}: it is never undone (a higher version can be approved)"
    )
    then = forecast(directory, root=root, revoking=(workflow, version))
    say(
        *(
            f"in force afterwards: {f'v{after}' if after else 'nothing: every call of it is refused'}"
            for _, _, after in then
        )
    )
    confirm(f"revoke {workflow} up to v{version}", accept)
    written = write_revocation(
        directory, workflow, signer, version=version, reason=reason, root=root
    )
    say(f"wrote {written}: commit it, or copy it to where your gates read it")


def _newest(workflow: str, directory: Path, root: str | None) -> int:
    statuses = next((each for each in standing(directory, root) if each.id == workflow), None)
    version = max(statuses.in_force or 0, statuses.version) if statuses else 0
    if not version:
        fail(f"{workflow}: no such workflow in {directory}; say which version with --up-to")
    return version
