"""``agentgate init``: from a stranger's own LangChain tools to an approved first workflow and a
guarded call, with one answer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from agentgate.approvals.writing import (
    Reviewer,
    Signer,
    new_root,
    statement,
    write_approval,
    write_index,
)
from agentgate.cli.new import LIFE, person_here, tell_facts
from agentgate.cli.output import (
    WORKFLOWS,
    fail,
    quiet,
    say,
    say_json,
    table,
)
from agentgate.cli.signing import MADE, default_key, own_signer
from agentgate.decision.answer import Allow, Deny, StepUp
from agentgate.errors import ConfigError
from agentgate.gate.gate import Gate
from agentgate.loading.yaml_nodes import inline
from agentgate.review.draft.draft import Draft, draft
from agentgate.review.draft.results import read_samples
from agentgate.review.draft.template import render
from agentgate.review.draft.toolset import UNSAID, from_langchain, import_tools
from agentgate.values.refusal import Failure, RunRefused
from agentgate.values.request import Agent, User
from agentgate.values.value_class import value_class

ROOT_LIFE = timedelta(days=365)
ISSUER = "https://gate.example"


@value_class
class Start:
    """The start: whose tools, which directory, for which tenant, by whom, the draft, what the
    host injects, what can only be awaited.
    """

    langchain: str
    directory: Path
    id: str
    tenant: str
    person: str
    made: Draft
    injected: Mapping[str, frozenset[str]]
    awaited: frozenset[str]

    @property
    def file(self) -> Path:
        """The workflow's file, below the directory."""
        return Path(*self.id.split(".")).with_suffix(".yaml")


def init(  # noqa: PLR0917 - a command's options, given by name
    langchain: str,
    results: Path | None = None,
    directory: Path = WORKFLOWS,
    id: str | None = None,  # noqa: A002 - as in new
    tenant: str = "local",
    name: str | None = None,
    key: Path | None = None,
    make_key: bool = False,
    *,
    yes: bool = False,
    as_json: bool = False,
) -> None:
    """Draft a workflow for your tools, approve it with your own SSH key, open a gate on it, and
    prove one guarded call.

    At first every tool can be called. What the user names may be read without asking; each act,
    and a read of what they did not name, asks the run's own user: you. Then narrow it. One
    answer signs it. The root is marked solo: one person approves their own changes, at low risk
    only, and gates say so at every start.
    """
    if (directory / "approvals").exists():
        fail(
            f"{directory / 'approvals'}: there already. To add a workflow: agentgate "
            "workflow new, then agentgate workflow approve."
        )
    module = [
        re.sub(r"[^A-Za-z0-9_-]", "-", part) for part in langchain.partition(":")[0].split(".")
    ]
    person = name or person_here()
    called = id or ".".join(module[-2:] if len(module) > 1 else ["first", *module])
    start = Start(
        langchain,
        directory,
        called,
        tenant,
        person,
        *_draft(langchain, called, tenant, person, results),
    )
    own = key or default_key()
    signer = own_signer(own) if own else None
    if not as_json:
        _plan(start, signer)
    _consent(yes=yes, make_key=make_key, found=signer is not None)
    if not signer:
        signer = own_signer(_new_key())
    digest, proof = _build(start, signer)
    if as_json:
        file = str(directory / start.file)
        lines, agent = paste(start, digest)
        say_json({"root": digest, "workflow": file, **proof, "paste": lines, "agent": agent})
    else:
        _tell_next(start, digest, proof)


def _tell_next(start: Start, digest: str, proof: Mapping[str, str]) -> None:
    """Print what was proved, the root, and what to do with them."""
    say("", *(f"{answer:<7}  {call}" for answer, call in proof.items() if call), "")
    say(
        f"root     {digest}",
        f"         pin it in your settings, not in {start.directory}: it is what a gate trusts",
        "",
    )
    lines, agent = paste(start, digest)
    say("Paste this, with something that your tool knows in both places of the example:", "")
    say(*lines)
    say("", "And for an agent (docs/langchain.md):", "")
    say(*agent)
    say(
        "",
        "keys will hold the gate's private keys: keep it out of git.",
        "The index holds for seven days: agentgate workflow index renews it.",
        f"Next: narrow {start.directory / start.file} (docs/workflows.md), raise its version, "
        f"then agentgate workflow approve {start.id}",
    )


def _draft(
    langchain: str, id_: str, tenant: str, owner: str, results: Path | None
) -> tuple[Draft, Mapping[str, frozenset[str]], frozenset[str]]:
    """A draft, the arguments that the host injects into tools of it, and the tools that can
    only be awaited.
    """
    from agentgate.integrations.langchain.guard import hidden, injects  # noqa: PLC0415 - a fifth of a second that other commands do not need

    tools = import_tools(langchain)
    expires = (datetime.now(UTC) + LIFE).date()
    last = [t.name for t in tools if injects(t)]
    samples = read_samples(results, [t.name for t in tools]) if results else None
    made = draft(
        from_langchain(langchain),
        id=id_,
        source=langchain,
        owner=owner,
        expires=expires,
        tenant=tenant,
        settle=True,
        last=last,
        results=samples,
    )
    awaited = frozenset(
        t.name
        for t in tools
        if getattr(t, "coroutine", None) is not None and getattr(t, "func", None) is None
    )
    return made, {t.name: hidden(t) for t in tools}, awaited


def _plan(start: Start, signer: Signer | None) -> None:
    body = [
        (
            t.name,
            t.effect,
            "where you ask for it, and you confirm each call"
            if t.intent
            else "you confirm what you did not name"
            if t.questions(settle=True)
            else "freely",
            ", ".join(f"{a.name} {_short(a.rule)}" for a in t.decided) or "no arguments",
            ", ".join(a.name for a in t.undecided),
        )
        for t in start.made.tools
    ]
    say(f"{start.directory / start.file} would permit, and nothing else:", "")
    refused = any(row[-1] for row in body)  # mostly nothing is
    table(
        "bold:tool | cyan:effect | runs | with" + " | yellow:refused" * refused,
        [row[: 4 + refused] for row in body],
    )
    for tool in start.made.tools:
        if tool.why == UNSAID:
            only_reads = f'{tool.name}.metadata = {{"readOnlyHint": True}}'
            say(
                f"{tool.name}: {UNSAID}, so it counts as an act. If it only reads, say "
                f"{only_reads} and run this again."
            )
    tell_facts(start.made)
    for name in start.made.left_out:
        say("", f"left out   {name} (no workflow can hold its name)")
    say("", f"signed by  {start.person}, as the only reviewer (solo: low risk only)")
    if signer is not None:
        say(f"with       {signer.public_key.kind} {signer.public_key.fingerprint}")
    else:
        say(
            f"with       a new key: ~/.ssh/{MADE} would be made (no usable SSH key in ~/.ssh "
            "or ssh-agent; --key names another)"
        )


def _short(rule: Mapping[str, Any] | None) -> str:
    return inline(
        {
            key: value
            for key, value in (rule or {}).items()
            if key not in {"unknown_origin", "nullable"}
        }
    )


def _consent(*, yes: bool, make_key: bool, found: bool) -> None:
    """Ask for the one answer. Exits with 1 on anything but yes."""
    if yes:
        if not found and not make_key:
            fail(
                "no SSH key was found, and --yes alone makes none: --key FILE, or "
                f"--make-key for ~/.ssh/{MADE}. Nothing was written."
            )
        return
    if not sys.stdin.isatty():
        fail("nobody is here to answer; a script says --yes. Nothing was written.")
    if typer.prompt(
        "\nSign it? yes or no", default="", show_default=False, err=True
    ).strip().lower() not in {"y", "yes"}:
        fail("Nothing was written.")


def _new_key() -> Path:
    """A new Ed25519 key of the person's, without a passphrase, readable by them only, and its
    ``.pub``, which a team's root takes.
    """
    file = Path.home() / ".ssh" / MADE
    made = Ed25519PrivateKey.generate()
    data = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    file.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(
            "key", f"{file} ({error.strerror})", "a place for a new key, or --key FILE"
        ) from error
    with os.fdopen(handle, "wb") as out:
        out.write(data)
    file.with_name(f"{MADE}.pub").write_bytes(
        made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
    )
    return file


def _build(start: Start, signer: Signer) -> tuple[str, Mapping[str, str]]:
    """Make everything in a temporary directory, prove it with a gate, and only then copy it to
    its place. Returns the root's digest, and each call by its answer.
    """
    directory = start.directory
    file = start.file
    made = start.made
    person = start.person
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "workflows"
        for name, text in ((file, made.text), (file.with_suffix(".test.yaml"), made.tests)):
            if (directory / name).exists():
                fail(
                    f"{directory / name}: there already. Nothing was written; --id names another workflow."
                )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
        digest = new_root(
            folder,
            [Reviewer(person, (signer.public_key,))],
            expires=(datetime.now(UTC) + ROOT_LIFE).date().isoformat(),
            solo=True,
            signer=signer,
        )
        write_approval(
            folder,
            statement(folder, file.as_posix(), signer=signer, proposer=person, root=digest),
            signer,
        )
        write_index(folder, signer, root=digest)
        calls = _prove(start, digest, folder, Path(scratch))
        try:
            shutil.copytree(folder, directory, dirs_exist_ok=True)
        except OSError as error:
            raise ConfigError(
                "directory", f"{directory} ({error})", "a folder that can be written"
            ) from error
    return digest, dict(zip(("allowed", "asked", "refused"), calls, strict=True))


def _prove(start: Start, digest: str, folder: Path, scratch: Path) -> tuple[str, str, str]:
    """Open a gate on the signed workflow; the example call must be minted and redeemed once,
    with the user's yes where it asks.

    Returns the call that was allowed, when the user is asked (or empty), and the one that was
    refused, in words.
    """
    quiet()
    made = start.made
    tenant = start.tenant
    tool = made.example.declared
    args = made.example.call
    shown = f"{tool.name} {json.dumps(args)}"
    with Gate.open(
        folder, root=digest, issuer=ISSUER, keys=scratch / "keys", audit=str(scratch / "audit")
    ) as gate:
        [workflow] = gate.catalog
        user = User("you", tenant=tenant)
        open_run = partial(gate.open_run, workflow.id, user=user, agent=Agent("assistant"))
        run = open_run(tenant=tenant, prompt=made.prompt)
        ask = partial(
            run.authorize, tool.name, args, tool_call_id="example", definition=tool.definition
        )
        answer = ask()
        yes = ""
        if isinstance(answer, StepUp):
            gate.release(answer.hold.id, tenant=tenant, by=user)
            yes = ", after your yes"
            answer = ask()
        if not isinstance(answer, Allow):
            raise ConfigError(
                "proof", "; ".join(map(str, answer.failures)), "the example call, minted"
            )
        with run.redeem(answer.token, tool=tool.name, args=args):
            allowed = f"{shown}  when the user says: {made.prompt}{yes}"
        asked = ""
        other = open_run(tenant=tenant, prompt="Good morning")
        said = other.authorize(tool.name, args, definition=tool.definition)
        if isinstance(said, Deny):
            return (
                allowed,
                asked,
                f"the same when the user says: Good morning  ({_why(said.failures[0])})",
            )
        if isinstance(said, StepUp) and said.failures:
            asked = f"the same when the user says: Good morning  ({_why(said.failures[0])})"
        try:
            open_run(tenant=f"not-{tenant}", prompt=made.prompt)
        except RunRefused as refused:
            return allowed, asked, f"the same for another tenant  ({_why(refused.failures[0])})"
    raise ConfigError("proof", "a call for another tenant, allowed", "a refusal")


def _why(failure: Failure) -> str:
    return f"{failure.field}: got {failure.got}, expected {failure.expected}"


def paste(start: Start, digest: str) -> Iterator[list[str]]:
    """The lines that open a gate on the new workflow, guard the tools and call the example; and
    those that make an agent of the tools.
    """
    module, _, tools = start.langchain.partition(":")
    name = start.made.example.name
    hosts = frozenset().union(*start.injected.values())
    common = {
        "id": start.id,
        "tenant": start.tenant,
        "module": module,
        "tools": tools,
        "issuer": ISSUER,
        "digest": digest,
    }
    example = {
        "directory": str(start.directory),
        "prompt": start.made.prompt,
        "example": name,
        "call": repr(start.made.example.call),
    }
    for file, awaited, injected in (
        ("first-call", name in start.awaited, start.injected[name]),
        ("agent", bool(start.awaited), hosts),
    ):
        values = ", ".join(f'"{each}": ...' for each in sorted(injected))
        given = {"awaited": awaited, "injected": f"{{{values}}}" if values else ""}
        yield render(f"cli/templates/{file}.py.j2", **common, **example, **given).splitlines()
