"""``agentgate root``: a team's root (who reviews what, with which keys) from a draft that a
person edits to the last signature.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agentgate.approvals import ApprovalRefusal, ApprovalRefused, forecast
from agentgate.approvals._files import RISKS, ROOT, SIGNERS, Tree, text_of
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.root import Root as TrustRoot
from agentgate.approvals.writing import new_root, sign_root
from agentgate.cli.output import (
    WORKFLOWS,
    complain,
    exit_with,
    fail,
    note,
    rows,
    say,
    say_json,
    table,
)
from agentgate.cli.signing import confirm, own_signer
from agentgate.errors import ConfigError
from agentgate.loading.definition import read_file
from agentgate.review.root.files import (
    RootDraft,
    RootStanding,
    allowed_in,
    drop_unfinished,
    first_draft,
    from_root,
    hand_over,
    people_in,
    person_of,
    publish,
    read_draft,
    scratch_copy,
    standing,
    trust_files,
    warnings,
    with_people,
    written,
)

LIFE = timedelta(days=365)
OUT = Path("root-draft.yaml")


def draft(
    person: list[str] | None = None,
    allowed_signers: Path | None = None,
    out: Path = OUT,
    directory: Path = WORKFLOWS,
) -> None:
    """Write a draft to edit: of a first root, or of the next one where a root is there.

    It holds names, public keys, teams, rules and the last day. Nothing is signed, and nothing
    in the workflow directory is touched.
    """
    now = datetime.now(UTC)
    people = [person_of(text) for text in person or ()]
    notes: tuple[str, ...] = ()
    if allowed_signers:
        listed, notes = people_in(
            AllowedSigners.parse(read_file(allowed_signers), str(allowed_signers)),
            now.timestamp(),
        )
        people += listed
    expires = (now + LIFE).date().isoformat()
    old = _present(directory, expires, now.timestamp())
    made = with_people(old, people, notes) if old else first_draft(people, expires, notes)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(written(made, str(out)))
    except OSError as error:
        raise ConfigError(
            "out",
            f"{out} ({error.strerror})",
            "a new file in a folder that can be written (--out)",
        ) from error
    what = (
        f"version {standing(directory).root.version + 1}, from the root in {directory}"
        if old
        else "a first root"
    )
    say(
        f"wrote {out}: {what}, {len(made.people)} "
        f"{'person' if len(made.people) == 1 else 'people'}, until {made.expires}"
    )
    for line in made.notes:
        note(f"check: {line}")
    say("Edit it, then:", f"  agentgate root new --from {out}{_directory(directory)}")


def new(
    from_: Path,
    directory: Path = WORKFLOWS,
    key: Path | None = None,
    sign_it: bool = True,
    *,
    replace: bool = False,
    accept: str | None = None,
    as_json: bool = False,
) -> None:
    """Complete a draft to a root, show it, and sign it with the SSH key you have (a file,
    ssh-agent or a FIDO token).

    An earlier root is kept with its signatures, so that gates which pin it follow. Until enough
    people signed, gates refuse the directory: do this on a branch, and merge what is complete.
    """
    said = read_draft(from_)
    signer = own_signer(key) if sign_it else None
    with scratch_copy(directory) as folder:
        drop_unfinished(folder, replace=replace)
        old = (
            (standing(folder).root, allowed_in(Tree(folder)))
            if ROOT in trust_files(Tree(folder))
            else None
        )
        new_root(
            folder,
            said.people,
            expires=said.expires,
            rules=said.rules,
            roles=said.roles,
            threshold=said.threshold,
            solo=said.solo,
            demo=said.demo,
            signed_commits=said.signed_commits,
        )
        made = standing(folder)
        made.refuse_unsignable()
        if signer:
            made.signer(signer.public_key)
        if old and not as_json:
            _falls(directory, made.root, allowed_in(Tree(folder)))
        _accepted(made, accept, as_json=as_json)
        again = hand_over(folder, old, made.root, signer, time.time()) if old else ()
        if signer:
            sign_root(folder, signer)
        publish(folder, directory, again)
    state = standing(directory)
    if again and not as_json:
        say(
            "signed again, since who signed it is not in this root any more: "
            f"{', '.join(n for n in again if not n.endswith('.sig'))}"
        )
    _tell(state, directory, as_json=as_json)


def _falls(directory: Path, root: TrustRoot, allowed: AllowedSigners) -> None:
    """Warn of what falls out of force under this root: signatures of people or keys that it
    does not name.
    """
    try:
        changed = forecast(directory, under=(root, allowed))
    except ApprovalRefused:  # the root that lies there is not complete: nothing is in force
        return
    for id_, before, after in changed:
        then = f"v{after}" if after else "nothing"
        note(
            f"under this root {id_} v{before} is not in force any more, but {then}: sign it "
            f"anew (agentgate workflow approve {id_})"
        )


def sign(
    directory: Path = WORKFLOWS,
    key: Path | None = None,
    accept: str | None = None,
    as_json: bool = False,
) -> None:
    """Add your signature to the root that lies there: as one of its own signers, or as one of
    the root before it.

    You see who and what it names, and what it changes, and type that you accept it.
    """
    signer = own_signer(key)
    with scratch_copy(directory) as folder:
        made = standing(folder)
        if made.wrong:
            fail(*made.wrong, "Nothing was signed.")
        made.signer(signer.public_key)
        _accepted(made, accept, as_json=as_json)
        written = sign_root(folder, signer)
        Tree(directory).write(written.name, written.read_bytes())
    state = standing(directory)
    _tell(state, directory, as_json=as_json)


def show(directory: Path = WORKFLOWS, root: str | None = None, as_json: bool = False) -> None:
    """Show people, keys, rules and signatures, who must still sign, and what deserves a second
    look.
    """
    now = time.time()
    state = standing(directory, root, now)
    if as_json:
        say_json(_json(state, now))
    else:
        _show(state, now)
        say("", *_signatures(state, directory), f"root {state.root.digest}")
    exit_with(look=not _holds(state, now))


def digest(directory: Path = WORKFLOWS) -> None:
    """Print the digest that gates pin. Put it into their settings, never into the workflow
    directory.
    """
    now = time.time()
    state = standing(directory)
    say(state.root.digest)
    if not _holds(state, now):
        complain(
            *state.wrong, *_missing(state, directory), *warnings(state, now), colour="yellow"
        )
        exit_with(look=True)


# --- the words --------------------------------------------------------------------------------
def _present(directory: Path, expires: str, now: float) -> RootDraft | None:
    """The present root as a draft of the next one; None without one."""
    tree = Tree(directory)
    if ROOT not in trust_files(tree):
        return None
    state = standing(directory)
    if state.wrong:
        fail(*state.wrong, "Nothing was written.")
    return from_root(
        state.root.shape,
        text_of(tree.read(SIGNERS, ApprovalRefusal.ROOT_NOT_TRUSTED), SIGNERS),
        expires,
        now,
    )


def _accepted(made: RootStanding, accept: str | None, *, as_json: bool) -> None:
    """Show the root and let the person type that they accept it. Exits with 1 on anything
    else.
    """
    if not as_json:
        _show(made, time.time())
    counted, one, more = (
        (made.changes, "change", "changes")
        if made.before
        else (made.root.shape.people, "person", "people")
    )
    confirm(
        f"root v{made.root.version}, {len(counted)} {one if len(counted) == 1 else more}",
        accept,
    )


def _show(state: RootStanding, now: float) -> None:
    root = state.root
    shape = state.root.shape
    say(
        f"root v{root.version}, until {shape.expires}, signed by {shape.threshold} of "
        f"{', '.join(root.roles['root'])}",
        "",
    )
    table(
        "bold:person | teams | answers in | dim:key | cyan:fingerprint | signs | green:signed",
        [
            (
                name if at == 0 else "",
                ", ".join(person.teams or ()) if at == 0 else "",
                ("every tenant" if person.tenants is None else ", ".join(person.tenants))
                if at == 0
                else "",
                state.keys[key].kind if key in state.keys else "unknown",
                key,
                ", ".join(role for role, people in root.roles.items() if name in people)
                if at == 0
                else "",
                "yes" if name in state.signed and at == 0 else "",
            )
            for name, person in shape.people.items()
            for at, key in enumerate(person.keys)
        ],
    )
    say("")
    rows(
        ("path", "reviewed by", *RISKS),
        [
            (r.path, ", ".join(r.by), *(r.counts.get(risk, "nobody") for risk in RISKS))
            for r in shape.reviews
        ],
        styles=("bold", "", "cyan", "cyan", "cyan"),
    )
    if state.before:
        say(
            "",
            f"Otherwise than version {root.version - 1}:{'' if state.changes else ' nothing'}",
        )
        note(*(f"  {line}" for line in state.changes))
    note(*state.wrong, colour="red")
    note(*(f"look: {line}" for line in warnings(state, now)))


def _signatures(state: RootStanding, directory: Path) -> list[str]:
    lines = [
        f"signatures for version {s.version}: {s.have} of {s.needed} ({', '.join(s.signed) or 'none'})"
        for s in state.sides
    ]
    return lines + _missing(state, directory)


def _missing(state: RootStanding, directory: Path) -> list[str]:
    return [
        f"still needed for version {side.version}: {side.missing} of "
        f"{', '.join(side.can) or 'nobody'}, with: "
        f"agentgate root sign{_directory(directory)}"
        for side in state.sides
        if side.missing
    ]


def _directory(directory: Path) -> str:
    return "" if directory == WORKFLOWS else f" -d {directory}"


def _tell(state: RootStanding, directory: Path, *, as_json: bool) -> None:
    now = time.time()
    if as_json:
        say_json(_json(state, now))
    else:
        complain(*state.wrong)
        say("", *_signatures(state, directory))
        if not state.complete:
            say(
                "Commit approvals/ on a branch and have them sign there; until then gates refuse it."
            )
        elif not state.before:
            say(
                f"complete. Gates pin it, in their settings: {state.root.digest}",
                "Next: agentgate workflow approve, agentgate workflow index",
            )
        else:
            say(
                f"complete. Gates that pin an earlier root follow; new ones pin {state.root.digest}",
                "Next: agentgate workflow status (signatures of who left no longer count), "
                "agentgate workflow index",
            )
    exit_with(look=not state.complete)


def _holds(state: RootStanding, now: float) -> bool:
    return state.complete and now < state.root.until


def _json(state: RootStanding, now: float) -> dict[str, Any]:
    root = state.root
    shape = state.root.shape
    return {
        "digest": root.digest,
        **shape.model_dump(
            include=set("version expires threshold solo demo signed_commits".split())
        ),
        "people": [
            {
                "name": name,
                "teams": person.teams or [],
                "tenants": person.tenants,
                "keys": [
                    {"fingerprint": k, "kind": state.keys[k].kind if k in state.keys else None}
                    for k in person.keys
                ],
                "roles": [role for role, people in root.roles.items() if name in people],
            }
            for name, person in shape.people.items()
        ],
        "reviews": [r.model_dump(exclude_none=True) for r in shape.reviews],
        "signatures": [asdict(side) for side in state.sides],
        "changes": list(state.changes),
        "complete": state.complete,
        "wrong": list(state.wrong),
        "warnings": list(warnings(state, now)),
    }
