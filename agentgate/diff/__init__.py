"""The diff that a reviewer reads: does any call need fewer releases under NEW than under OLD (a
refusal counts as infinitely many)?

`compare` answers for every possible call, not for samples: each field of a call is divided into
classes that no rule of either version distinguishes, and a search over the classes finds what
is newly allowed, or allowed with fewer releases. What no single call shows is compared by its
own order; what has no exact answer is listed for the reviewer to read, never silently taken as
equal. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from agentgate.diff import plain, surroundings, table, tools
from agentgate.diff.finding import ABSENT, NULL, REMOVED, Diff, Field, Finding
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.search import Asking, World
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.model import Tool, Workflow

# version of the proof: raise it whenever an answer can change, so that stored proofs are
# computed again
ENGINE = "6"

__all__ = ["ABSENT", "ENGINE", "NULL", "Diff", "Finding", "compare"]


def compare(old: Workflow, new: Workflow) -> Diff:
    """What calls a new version of a workflow permits that the approved one does not, and the
    other way round.

    Findings come worst first: what is no longer refused, what asks less, what grants more; then
    what is left to read.
    """
    read = dict(_differences_to_read(old, new))
    read.update(_differences_without_row(old, new))
    unanswered: list[str] = []
    budget = Budget()
    pairs = {}
    for name, after, before in table.in_both_versions(new.tools, old.tools):
        if not table.mean_the_same(
            _deciding_values(old, before),
            _deciding_values(new, after),
        ):
            pairs[name] = tools.worlds_of_tool(old, new, name, unanswered, budget)
    for path in unanswered:
        read.setdefault(path, (None, None))
    shared = list(surroundings.shared_fields(old, new))
    # the other direction is made of the same fields, the versions exchanged
    there = _Direction(old, new, shared, pairs, read, budget)
    # worst first: what needs no release, what still needs one, what no single call shows
    wide = _distinct_findings(
        sorted(there.wider(), key=lambda finding: (not finding.call, finding.asks))
    )
    # what has no order is wider both ways, and less in neither
    either = {_what_it_counts(finding) for finding in wide if not finding.call}
    narrow = _distinct_findings(
        _finding_backwards(finding)
        for finding in there.back().wider()
        if finding.call or _what_it_counts(finding) not in either
    )
    alike = dict(_rewritten_rules(old, new, (*wide, *narrow), tuple(read)))
    return Diff(
        wider=wide,
        narrower=narrow,
        read_yourself=tuple(read),
        same_calls=tuple(alike),
        differs={**read, **alike},
    )


def _what_it_counts(finding: Finding) -> tuple[str, str]:
    """What a finding is about; of a limit, what it counts, over whatever window."""
    return finding.tool, finding.counts or finding.field


def _rewritten_rules(
    old: Workflow,
    new: Workflow,
    findings: tuple[Finding, ...],
    read: Names,
) -> Iterator[_Difference]:
    """Arguments whose rules differ and allow the same calls: path, old and new rule."""
    for name, before, after in table.in_both_versions(old.tools, new.tools):
        fields = [finding.field + "." for finding in findings if finding.tool == name]
        for argument, rule, other in table.in_both_versions(before.args, after.args):
            path = f"tools.{name}.args.{argument}"
            told = any(field.startswith((f"args.{argument}.", "tool.")) for field in fields)
            left_to_read = any(each.startswith(path) for each in read)
            if not told and not left_to_read and not table.mean_the_same(rule, other):
                yield path, (rule, other)


def _deciding_values(workflow: Workflow, tool: Tool) -> object:
    """What decides a call to a tool, beside what all tools share."""
    intents = workflow.intents
    unclear = {
        need: intents[need].unclear if need in intents else None for need in tool.every_need
    }
    return tool, tuple(unclear.items()), not intents


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
    read: dict[str, _Values]
    budget: Budget

    def back(self) -> _Direction:
        """The other direction."""
        pairs = {
            name: [_swapped_fields(fields) for fields in worlds]
            for name, worlds in self.pairs.items()
        }
        return replace(
            self,
            old=self.new,
            new=self.old,
            shared=_swapped_fields(self.shared),
            pairs=pairs,
        )

    def wider(self) -> Iterator[Finding]:
        """What became wider in it."""
        shared = self.shared
        loosened = any(
            cell.old.status > cell.new.status for field in shared for cell in field.cells
        )
        for name, tool in self.new.tools.items():
            before = self.old.tools.get(name)
            asking = Asking((before or tool).step_ups, tool.step_ups)
            if before:
                fields = self.pairs.get(name, ())
                worlds = [World(name, shared, own, asking) for own in fields]
                yield from self._gained(name, worlds)
            else:
                worlds = self._callable(name, asking)
                for world in worlds[:1]:
                    yield world.added()
            if loosened:
                able = [world for world in worlds if world.callable]
                able = able or self._callable(name, asking)
                loosened = not able  # any tool shows what all share
                for world in able[:1]:
                    yield from world.refused_before()
        yield from plain.findings_without_call(self.old, self.new)

    def _gained(
        self,
        name: str,
        worlds: list[World],
    ) -> Iterator[Finding]:
        for world in worlds:
            try:
                yield from world.gained()
            except TooLarge:
                self.read.setdefault(f"tools.{name}.step_up", (None, None))

    def _callable(self, name: str, asking: Asking) -> list[World]:
        """The worlds in which some call to a tool of the new version is allowed, the tool taken
        as unchanged.
        """
        found = tools.worlds_of_tool(self.new, self.new, name, [], self.budget)
        worlds = [World(name, self.shared, fields, asking) for fields in found]
        return [world for world in worlds if world.callable]


def _swapped_fields(fields: Iterable[Field]) -> list[Field]:
    return [field.swapped() for field in fields]


# the old and the new value, None where a version has none; and where they stand
_Values = tuple[object, object]
_Difference = tuple[str, _Values]


def _differences_to_read(
    old: Workflow,
    new: Workflow,
) -> Iterator[_Difference]:
    """What differs and has no exact answer."""
    yield from table.differences_to_read(old, new)
    yield from _in_one_version(old.intents, new.intents, "intents")
    if new.version < old.version:
        yield "version", (old.version, new.version)
    for name, before, after in table.in_both_versions(old.tools, new.tools):
        effects = {before.effect, after.effect}
        if len(effects) > 1 and "read" not in effects:
            yield f"tools.{name}.effect", (before.effect, after.effect)
        # its rows hold other facts too
        facts = (*before.facts.values(), *after.facts.values())
        if any("[]" in fact.path for fact in facts):
            yield from _in_one_version(before.facts, after.facts, f"tools.{name}.facts")


def _in_one_version(
    old: Mapping[str, object],
    new: Mapping[str, object],
    path: str,
) -> Iterator[_Difference]:
    for name in (*old, *new):
        if (name in old) != (name in new):
            yield f"{path}.{name}", (old.get(name), new.get(name))


def _differences_without_row(
    old: Workflow,
    new: Workflow,
) -> Iterator[_Difference]:
    """Fields without a row in the table."""
    before = dict(table.fields_without_row(old))
    after = dict(table.fields_without_row(new))
    for path in dict.fromkeys((*before, *after)):
        if before.get(path) != after.get(path):
            yield path, (before.get(path), after.get(path))


def _finding_backwards(finding: Finding) -> Finding:
    """A finding of the comparison the other way round, in the words of this one."""
    old = "" if finding.new == REMOVED else finding.new
    gone = REMOVED if old and not finding.call else ""
    return replace(finding, old=old, new=finding.old or gone, effect=finding.back)


def _distinct_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    first: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        first.setdefault((finding.tool, finding.field), finding)
    return tuple(first.values())
