"""The possible origins of one value, as atoms: the prompt, the user's own id, each fact or
argument of an earlier call that a rule names.

An atom holds of a value or not; sources that no rule distinguishes are one atom. `within` holds
the `at_most` bounds that the value respects: always those facts that it equals (a selected fact
equals its fact). `split`: the values that the call refers to come from different earlier calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from agentgate.diff.finding import ANSWERS, Status
from agentgate.diff.language import TooLarge
from agentgate.values.value_class import value_class
from agentgate.workflow.rule import MODEL, Rule, Source

Atoms = frozenset[Source]
_MAX_ATOMS = 8  # that the rules distinguish


@value_class
class Explanations:
    """One way in which a value can be explained."""

    atoms: Atoms
    within: frozenset[Source]
    split: bool = False


def ways(rules: Sequence[Rule | None], whens: Sequence[Rule]) -> list[Explanations]:
    """Every way in which a value can be explained that the rules of both versions and the
    step-up conditions distinguish.

    Raises TooLarge: too many different sources.
    """
    given = [r for r in rules if r]
    bounds = sorted({r.at_most for r in given if r.at_most}, key=str)
    lists = [r.sources for r in given] + [
        tuple(o for o in w.origin or () if isinstance(o, Source)) for w in whens
    ]
    groups: dict[tuple[object, ...], list[Source]] = {}
    for source in dict.fromkeys(s for sources in lists for s in sources if s != MODEL):
        alone = (
            str(source) if not source.tool else "",
            _fact_of(source),
            *(source == b for b in bounds),
        )
        groups.setdefault((alone, *(source in s for s in lists)), []).append(source)
    atoms = [members[0] for members in groups.values()]
    if len(atoms) + len(bounds) > _MAX_ATOMS:
        raise TooLarge
    splits = (False, True) if len({r.any_call for r in given}) > 1 else (False,)
    return list(_all(atoms, bounds, splits))


def _all(
    atoms: list[Source], bounds: list[Source], splits: tuple[bool, ...]
) -> Iterator[Explanations]:
    for split in splits:
        for held in product((False, True), repeat=len(atoms)):
            chosen = frozenset(a for a, yes in zip(atoms, held, strict=True) if yes)
            lacking = set(atoms) - chosen
            for bounded in product((True, False), repeat=len(bounds)):
                within = frozenset(b for b, yes in zip(bounds, bounded, strict=True) if yes)
                if all(b in within for b in bounds if b in chosen) and not any(
                    _fact_of(s) in lacking for s in chosen
                ):
                    yield Explanations(chosen, within, split)


def _fact_of(source: Source) -> Source | None:
    """The fact that a selected source equals, in one row of many."""
    return Source("fact", source.tool, source.field) if source.selector else None


def status(rule: Rule, elements: Sequence[Atoms], *, split: bool) -> Status:
    """What a rule's `from` decides about a value (for a list: about all its elements
    together).
    """
    if rule.free:
        return Status.FREE
    shared = frozenset.intersection(*elements)
    for source in rule.sources:
        if source in shared and (not source.tool or not split or rule.any_call):
            return Status.FREE
    if rule.any_call and all(any(s in atoms for s in rule.sources) for atoms in elements):
        return Status.FREE
    return ANSWERS[rule.unknown_origin]


def bounded(rule: Rule, origin: Explanations) -> bool:
    """Whether `at_most` holds."""
    return rule.at_most is None or (
        rule.at_most in origin.within and (rule.any_call or not origin.split)
    )


def has_origin(when: Rule, rule: Rule, atoms: Atoms) -> bool:
    """Whether a step-up condition's `origin` holds of one element."""
    unexplained = not any(source in atoms for source in rule.sources)
    return any(
        unexplained if origin in ("unknown", MODEL) else origin in atoms
        for origin in when.origin or ()
    )
