"""The diff that a reviewer reads: does any call need fewer releases under NEW than under OLD (a
refusal counts as infinitely many)?

`compare` answers for every possible call, not for samples: each field of a call is divided into
classes that no rule of either version distinguishes, and a search over the classes finds what
is newly allowed, or allowed with fewer releases. What no single call shows is compared by its
own order; what has no exact answer is listed for the reviewer to read, never silently taken as
equal. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from agentgate.diff import plain, surroundings, table, tools
from agentgate.diff.finding import ABSENT, NULL, REMOVED, Diff, Field, Finding
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.search import Asking, World
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.model import Tool, Workflow

# version of the proof: raise it whenever an answer can change, so that stored proofs are
# computed again
ENGINE = "5"

__all__ = ["ABSENT", "ENGINE", "NULL", "Diff", "Finding", "compare"]


def compare(old: Workflow, new: Workflow) -> Diff:
    """What calls a new version of a workflow permits that the approved one does not, and the
    other way round.

    Findings come worst first: what is no longer refused, what asks less, what grants more; then
    what is left to read.
    """
    read = {path: (one, other) for path, one, other in (*_read(old, new), *_unlisted(old, new))}
    unanswered: list[str] = []
    budget = Budget()
    pairs = {
        name: tools.worlds(old, new, name, unanswered, budget)
        for name in new.tools
        if name in old.tools and not table.same(*_deciding(old, new, name))
    }
    for path in unanswered:
        read.setdefault(path, (None, None))
    shared = list(surroundings.fields(old, new))
    # the other direction is made of the same fields, the versions exchanged
    there = _Direction(old, new, shared, pairs, read, budget)
    # worst first: what needs no release, what still needs one, what no single call shows
    wide = _distinct(sorted(there.wider(), key=lambda f: (not f.call, f.asks)))
    # what has no order is wider both ways, and less in neither
    either = {_counted(f) for f in wide if not f.call}
    narrow = _distinct(
        _backwards(f) for f in there.back().wider() if f.call or _counted(f) not in either
    )
    differing = (*wide, *narrow)
    alike = {
        path: (one, other) for path, one, other in _same_calls(old, new, differing, tuple(read))
    }
    return Diff(wide, narrow, tuple(read), tuple(alike), {**read, **alike})


def _counted(finding: Finding) -> tuple[str, str]:
    """What a finding is about; of a limit, what it counts, over whatever window."""
    return finding.tool, finding.counts or finding.field


def _same_calls(
    old: Workflow, new: Workflow, findings: tuple[Finding, ...], read: Names
) -> Iterator[tuple[str, object, object]]:
    """Arguments whose rules differ and allow the same calls: path, old and new rule."""
    for name, one, another in table.kept(old.tools, new.tools):
        for arg, rule, other in table.kept(one.args, another.args):
            path = f"tools.{name}.args.{arg}"
            told = any(
                f.tool == name and (f.field + ".").startswith((f"args.{arg}.", "tool."))
                for f in findings
            )
            if (
                not table.same(rule, other)
                and not told
                and not any(p.startswith(path) for p in read)
            ):
                yield path, rule, other


def _deciding(
    old: Workflow,
    new: Workflow,
    name: str,
) -> tuple[object, object]:
    """What decides a call to a tool, beside what all tools share."""

    def of(workflow: Workflow, tool: Tool) -> object:
        intents = tuple(
            (n, workflow.intents[n].unclear if n in workflow.intents else None)
            for n in tool.every_need
        )
        return tool, intents, not workflow.intents

    return of(old, old.tools[name]), of(new, new.tools[name])


@value_class
class _Direction:
    """One direction of a comparison.

    Attributes:
        shared, pairs: the fields that all tools share, and of each tool that differs its own by
            worlds.
        read: what is left to read, by its path; more is added here.
    """

    old: Workflow
    new: Workflow
    shared: list[Field]
    pairs: Mapping[str, list[list[Field]]]
    read: dict[str, tuple[object, object]]
    budget: Budget

    def back(self) -> _Direction:
        """The other direction."""
        pairs = {
            name: [[f.swapped() for f in fields] for fields in worlds]
            for name, worlds in self.pairs.items()
        }
        shared = [f.swapped() for f in self.shared]
        return replace(self, old=self.new, new=self.old, shared=shared, pairs=pairs)

    def wider(self) -> Iterator[Finding]:
        """What became wider in it."""
        shared = self.shared
        loosened = any(c.old.status > c.new.status for f in shared for c in f.cells)
        for name, tool in self.new.tools.items():
            before = self.old.tools.get(name)
            asking = Asking(before.step_ups if before else tool.step_ups, tool.step_ups)
            worlds = [World(name, shared, own, asking) for own in self.pairs.get(name, ())]
            if before:
                yield from self._gained(name, worlds)
            else:
                worlds = self._callable(name, asking)
                yield from [world.added() for world in worlds[:1]]
            if loosened:
                able = [world for world in worlds if world.callable]
                able = able or self._callable(name, asking)
                loosened = not able  # any tool shows what all share
                for world in able[:1]:
                    yield from world.refused_before()
        yield from plain.workflow(self.old, self.new)

    def _gained(self, name: str, worlds: list[World]) -> Iterator[Finding]:
        for world in worlds:
            try:
                yield from world.gained()
            except TooLarge:
                self.read.setdefault(f"tools.{name}.step_up", (None, None))

    def _callable(self, name: str, asking: Asking) -> list[World]:
        """The worlds in which some call to a tool of the new version is allowed, the tool taken
        as unchanged.
        """
        found = tools.worlds(self.new, self.new, name, [], self.budget)
        worlds = [World(name, self.shared, fields, asking) for fields in found]
        return [world for world in worlds if world.callable]


# path, old and new value; None where a version has none
_Differs = Iterator[tuple[str, object, object]]


def _read(old: Workflow, new: Workflow) -> _Differs:
    """What differs and has no exact answer."""
    yield from table.to_read(old, new)
    yield from _in_one(old.intents, new.intents, "intents")
    if new.version < old.version:
        yield "version", old.version, new.version
    for name, before, after in table.kept(old.tools, new.tools):
        if "read" not in {before.effect, after.effect} and before.effect != after.effect:
            yield f"tools.{name}.effect", before.effect, after.effect
        # its rows hold other facts too
        if any("[]" in fact.path for tool in (before, after) for fact in tool.facts.values()):
            yield from _in_one(before.facts, after.facts, f"tools.{name}.facts")


def _in_one(
    old: Mapping[str, object],
    new: Mapping[str, object],
    path: str,
) -> _Differs:
    return (
        (f"{path}.{name}", old.get(name), new.get(name))
        for name in (*old, *new)
        if (name in old) != (name in new)
    )


def _unlisted(old: Workflow, new: Workflow) -> _Differs:
    """Fields without a row in the table."""
    before = dict(table.unlisted(old))
    after = dict(table.unlisted(new))
    paths = dict.fromkeys((*before, *after))
    yield from (
        (path, before.get(path), after.get(path))
        for path in paths
        if before.get(path) != after.get(path)
    )


def _backwards(finding: Finding) -> Finding:
    """A finding of the comparison the other way round, in the words of this one."""
    old = "" if finding.new == REMOVED else finding.new
    return replace(
        finding,
        old=old,
        new=finding.old or (REMOVED if old and not finding.call else ""),
        effect=finding.back,
    )


def _distinct(findings: Iterator[Finding] | list[Finding]) -> tuple[Finding, ...]:
    first: dict[tuple[str, str], Finding] = {}
    for each in findings:
        first.setdefault((each.tool, each.field), each)
    return tuple(first.values())
