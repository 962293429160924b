"""``agentgate workflow new`` and ``words``: a first workflow and its tests, from real tools;
how people ask for what tools do.
"""

from __future__ import annotations

import getpass
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agentgate.cli.output import fail, say, say_json, table
from agentgate.errors import ConfigError
from agentgate.loading.source import ask
from agentgate.review.draft.draft import Draft, draft, undecided
from agentgate.review.draft.phrasebook import ACTS, act_of, groups, listed
from agentgate.review.draft.results import read_samples
from agentgate.review.draft.toolset import from_langchain, from_mcp

LIFE = timedelta(days=180)


def new(  # noqa: PLR0917 - a command's options, given by name
    id: str,  # noqa: A002 - the word of the vocabulary
    langchain: str | None = None,
    mcp: Path | None = None,
    results: Path | None = None,
    out: Path | None = None,
    tenant: str = "",
    owner: str | None = None,
    as_json: bool = False,
) -> None:
    """Draft a workflow for tools you have, as narrow as can be said, and a test file beside it.

    What nobody has decided yet is marked # DECIDE: in the file and refused until then; # CHECK:
    marks a guess.
    """
    if (langchain is None) == (mcp is None):
        raise ConfigError(
            "tools",
            "both" if mcp else "none",
            "exactly one of --langchain package.module:tools and --mcp tools.json",
        )
    declared = from_langchain(langchain) if langchain is not None else from_mcp(mcp or Path())
    source = langchain or str(mcp)
    until = (datetime.now(UTC) + LIFE).date()
    samples = read_samples(results, [tool.name for tool in declared]) if results else None
    made = draft(
        declared,
        id=id,
        source=source,
        owner=owner or person_here(),
        expires=until,
        tenant=tenant,
        results=samples,
    )
    path = out or Path("workflows", *id.split(".")).with_suffix(".yaml")
    tests = write(made, path)
    if as_json:
        say_json(_json(made, path, tests))
    else:
        _tell(made, path, tests)


def person_here() -> str:
    """Git's address, or the account's name."""
    address = (
        (ask("config", "user.email") or b"").decode("utf-8", "replace").strip()
        if shutil.which("git")
        else ""
    )
    return address or re.sub(r"[^A-Za-z0-9._-]", "-", getpass.getuser())


def write(made: Draft, path: Path) -> Path:
    """Write both files, or neither; returns the tests' path. Exits with 1 where one exists
    already.
    """
    tests = path.with_name(f"{path.stem}.test.yaml")
    if path.suffix != ".yaml" or path.name.endswith(".test.yaml"):
        raise ConfigError(
            "out", str(path), "a file name that ends in .yaml (and not in .test.yaml)"
        )
    there = [str(p) for p in (path, tests) if p.exists() or p.is_symlink()]
    if there:
        fail(
            f"{' and '.join(there)}: there already. Nothing was written; name another file "
            "with --out, or move that one away."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, text in ((path, made.text), (tests, made.tests)):
            with file.open("x", encoding="utf-8") as handle:
                handle.write(text)
    except OSError as error:
        raise ConfigError(
            "out", f"{path} ({error.strerror})", "a folder that can be written"
        ) from error
    return tests


def _json(made: Draft, path: Path, tests: Path) -> dict[str, object]:
    return {
        "workflow": str(path),
        "tests": str(tests),
        "tools": [
            {
                "name": t.declared.name,
                "effect": t.effect,
                "because": t.why,
                "decided": [a.name for a in t.decided],
                "undecided": [a.name for a in t.undecided],
                "facts": list(t.facts),
            }
            for t in made.tools
        ],
        "left_out": list(made.left_out),
        "decide": [
            {"line": line, "column": column, "question": text}
            for line, column, text in undecided(made.text)
        ],
    }


def tell_facts(made: Draft) -> None:
    """What was read out of sample results."""
    for tool in made.tools:
        if tool.sampled:
            without = (
                "none: text is not read; return an object, or content_and_artifact"
                if tool.effect == "read"
                else "none: no new id"
            )
            say(f"facts of {tool.name}: {', '.join(tool.facts) or without}")


def _tell(made: Draft, path: Path, tests: Path) -> None:
    left = {
        t.name: ["its words"] * bool(t.intent) + [a.name for a in t.undecided]
        for t in made.tools
    }
    body = [(t.name, t.effect, t.why, ", ".join(left[t.name]) or "nothing") for t in made.tools]
    table("bold:tool | cyan:effect | dim:because | yellow:to decide", body)
    tell_facts(made)
    for name in made.left_out:
        say(f"left out: {name} (no workflow can hold its name)")
    say("", f"wrote {path}", f"wrote {tests}", "")
    questions = undecided(made.text)
    if questions:
        say(
            f"{len(questions)} to decide (each is refused until then), at the lines marked # DECIDE:"
        )
        say(
            *(
                f"  {path}:{line}: {text.partition(' Until then ')[0]}"
                for line, _, text in questions
            ),
            "",
        )
    say("Next:", f"  agentgate workflow lint {path}", f"  agentgate workflow test -v {path}")


# --- the usual words --------------------------------------------------------------------------
def words(
    acts: list[str] | None = None,
    thing: str = "",
) -> None:
    """Print the usual English words for an act, as the `words` of an intent.

    They are proposals: what counts is what stands in the workflow that reviewers sign. Leave
    out what would grant too much there ("make it", "set"; a line is a group), add what your
    people say.
    """
    if not acts:
        say(", ".join(ACTS))
        return
    for name in acts:
        act = act_of(name.lower())
        if act is None:
            fail(f"no usual words for {name!r}, expected one of {', '.join(ACTS)}")
        say(*listed(groups(act, thing.lower())))
