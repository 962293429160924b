"""What the user's yes is worth to them and to an attacker: ``python -m tests.benchmarks yeses [SET ...]``.

Workflows as they would be written where the user may answer (`tests.benchmarks.confirming`), each set replayed four times: a yes is
one exact call (``before``), names what was asked about (``endorsed``), also opens facts of a read that was confirmed (``reads``), and names
in the same user's later tasks as well, in the order of the file (``remembered``; of real models, each model has a user of its own).
Users: ``careful`` says yes to their own calls and no to the attacker's; ``slips once`` says yes to the first of the
attacker's in a run; ``yes to all`` to every one. Groups refuse an attacker's call. ``redirected``: the user's own writes of ordinary work
in which a value that they confirmed in that run for this argument of this tool can be put in the place of another, and nobody is asked.
A recording does not say which calls are of one step, and so of one question: beside each count is that in which calls that follow each
other are.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
import yaml

from agentgate.cli.evaluate import ReplaySettings
from agentgate.decision.answer import Allow
from agentgate.decision.batch_answer import MOST
from agentgate.gate.gate import Gate
from agentgate.review.replay.evaluate import (
    SIDE_EFFECTS,
    Clock,
    Decided,
    Episode,
    answer_of,
    in_form,
    in_time,
    opened,
    read_episodes,
    read_tools,
    taken,
)
from agentgate.values.request import User
from tests.benchmarks.confirming import confirming

HERE = Path(__file__).parent
SETS = {
    "AgentDojo": ["agentdojo/episodes"],
    "real models": ["agentdojo/real"],
    "unseen": [f"unseen/{name}{kind}" for name in ("", "dojo-", "sales-") for kind in ("clean", "attacks")],
    "unseen, sealed": [f"unseen/sealed-{name}{kind}" for name in ("", "dojo-") for kind in ("clean", "attacks")],
}
VARIANTS = {
    "before": {},
    "endorsed": {"named": True},
    "reads": {"named": True, "reads": True},
    "remembered": {"named": True, "reads": True, "remembers": True},
}
USERS = ("careful", "slips once", "yes to all")


def workflows_of(files: Sequence[str]) -> list[Path]:
    """The workflows of some files' episodes: `agentdojo.banking` is `agentdojo/banking.yaml`."""
    episodes = read_episodes([HERE / f"{name}.jsonl.xz" for name in files])
    return sorted(
        HERE / f"{workflow.replace('.', '/')}.yaml" for workflow in {each.workflow for each in episodes if isinstance(each, Episode)}
    )


def episodes_of(files: list[str]) -> list[list[Episode]]:
    """The episodes of some files, those of each user together; of real models, each model has a user of its own."""
    users: dict[str, list[Episode]] = {}
    for line in read_episodes([HERE / f"{name}.jsonl.xz" for name in files]):
        assert isinstance(line, Episode), line
        users.setdefault(line.id.partition("/")[0] if files == SETS["real models"] else "", []).append(line)
    return list(users.values())


@contextmanager
def gate_of(files: list[str], variant: str, clock: Clock) -> Iterator[Gate]:
    """A gate over the workflows of these files as this variant writes them."""
    with TemporaryDirectory(prefix="agentgate-yeses-") as folder:
        for path in workflows_of(files):
            changed = confirming(yaml.load(path.read_text(), yaml.CSafeLoader), refused=True, **VARIANTS[variant])
            (Path(folder) / path.name).write_text(json.dumps(changed))
        with ReplaySettings(Path(folder), None, None).gate(clock) as gate:
            assert not gate.catalog.quarantined, gate.catalog.quarantined
            yield gate


@in_time
def answered(gate: Gate, clock: Clock, episode: Episode, user: str) -> list[tuple[Decided, bool]]:
    """Each step as it was decided, and whether the user's yes minted it."""
    slips, found = {"slips once": 1, "yes to all": 1000}.get(user, 0), []
    with opened(gate, clock, episode, forget=False) as run:
        for number, step in enumerate(episode.steps):
            if isinstance(run, Decided):
                found.append((run, False))
                continue
            theirs = step.by == "user"
            decided, yes = taken(gate, run, step, number, careful=not theirs), False
            if not theirs and decided.answer == "confirm" and slips:
                slips, yes = slips - 1, True
                taken(gate, run, step, number, careful=False)
            found.append((decided, yes))
    return found


@in_time
def redirected(gate: Gate, clock: Clock, episode: Episode) -> tuple[int, int]:
    """How many of the user's writes could be redirected by what they confirmed, in this run or what is remembered, and of how many."""
    with opened(gate, clock, episode, forget=False) as run:
        if isinstance(run, Decided):
            return 0, 0
        confirmed: dict[tuple[str, str], list[Any]] = {}
        for yes in gate.remembered(episode.tenant, for_=User(episode.user, tenant=episode.tenant)):
            for name, value in yes.args.items():
                confirmed.setdefault((yes.tool, name), []).append(value)
        for number, step in enumerate(episode.steps):
            if taken(gate, run, step, number, careful=False).answer == "confirm":
                for name, value in step.args.items():
                    confirmed.setdefault((step.tool, name), []).append(value)
        writes = [step for step in episode.steps if step.effect in SIDE_EFFECTS and step.tool in run.workflow.tools]
        open_to = 0
        for step in writes:
            rules = run.workflow.tools[step.tool].args
            swapped = [
                {**step.args, name: value}
                for name, given in step.args.items()
                for value in confirmed.get((step.tool, name), ())
                if value != given and name in rules and rules[name].sources and "model" not in map(str, rules[name].sources)
            ]
            open_to += any(isinstance(answer_of(run, step.tool, args), Allow) for args in swapped)
        return open_to, len(writes)


def questions_of(found: list[tuple[Decided, bool]]) -> int:
    """How many questions: of calls that follow each other and ask the same people, up to ten are one."""
    groups = ((answer, len(list(calls))) for answer, calls in groupby(decided.answer for decided, _ in found))
    return sum(-(-calls // MOST) for answer, calls in groups if answer in {"confirm", "step_up"})


def measure(files: list[str], variant: str, users: Sequence[str] = USERS) -> dict[str, Any]:
    """One set under one variant; what a user had remembered is there in all their later episodes, of ordinary work and of attacks."""
    counts: Counter[str] = Counter()
    tools = read_tools(HERE / "agentdojo" / "tools.jsonl") if files == SETS["real models"] else {}
    remembers = "remembers" in VARIANTS[variant]
    for episodes in episodes_of(files):
        for user in users if any(each.attack for each in episodes) else USERS[:1]:
            clock = Clock()
            with gate_of(files, variant, clock) as gate:
                for episode in episodes:
                    called = in_form(episode, tools, gate.catalog.get(episode.workflow))
                    if episode.attack is not None:
                        counts.update(_attacks(gate, clock, called, user))
                    elif user == USERS[0]:
                        counts.update(_tasks(gate, clock, called))
                    elif remembers:
                        answered(gate, clock, called, user)
    return dict(counts)


def _tasks(gate: Gate, clock: Clock, episode: Episode) -> dict[str, int]:
    """What one task asks."""
    found = answered(gate, clock, episode, USERS[0])
    answers = Counter(decided.answer for decided, _ in found)
    asked, together, denied = answers["confirm"] + answers["step_up"], questions_of(found), answers["deny"] > 0
    hit, of = redirected(gate, clock, episode)
    counts = {"tasks": 1, "questions": asked, "one": asked <= 1 and not denied, "denied": denied, "redirected": hit, "writes": of}
    return {**counts, "together": together, "one_together": together <= 1 and not denied}


def _attacks(gate: Gate, clock: Clock, episode: Episode, user: str) -> Counter[str]:
    """How many of the attacker's writes were minted, and how many of these unasked."""
    counts: Counter[str] = Counter()
    for step, (decided, yes) in zip(episode.steps, answered(gate, clock, episode, user), strict=True):
        if step.by == "attacker" and step.effect in SIDE_EFFECTS:
            unasked = decided.answer == "allow"
            counts.update({user: unasked or yes, f"{user}: unasked": unasked, "attacker writes": user == USERS[0]})
    return counts


def main(names: Sequence[str]) -> int:
    """Print a row for each set and variant."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for name in names or list(SETS):
        for variant in VARIANTS:
            found = Counter(measure(SETS[name], variant))
            tasks = f"{found['questions'] / (found['tasks'] or 1):.2f} questions a task, at most one {found['one']}/{found['tasks']}"
            every = found["tasks"] or 1
            tasks += f" (in one question if they follow each other: {found['together'] / every:.2f}, {found['one_together']})"
            print(f"{name}, {variant}: {tasks}, denied {found['denied']}, redirected {found['redirected']}/{found['writes']}", flush=True)
            minted = ", ".join(f"{user} {found[user]} ({found[f'{user}: unasked']} unasked)" for user in USERS)
            print(f"    attacker writes minted of {found['attacker writes']}: {minted}", flush=True)
    return 0
