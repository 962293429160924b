"""Who calls, for whom, when and where: the fields that all tools share, each as a finite set of
classes.

They are the fields that `agentgate.decision.decide` looks at, one at a time: one of them
suffices to refuse a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from agentgate.diff.finding import Field, cell, field, free_if
from agentgate.workflow.clauses.clause import OTHER, Distinct, WorkflowClause
from agentgate.workflow.clauses.table import clauses_of
from agentgate.workflow.model import Workflow

S = TypeVar("S")


def fields(old: Workflow, new: Workflow) -> Iterator[Field]:
    """Every field that all tools share."""
    yield one_of("tenants", "tenant", (old.tenants, new.tenants), "another-tenant", empty=False)
    ends = old.expires, new.expires
    days = {end + timedelta(days=more) for end in ends for more in (0, 1)}
    values = [Distinct(day, {"day": day}, str(day)) for day in sorted(days)]
    yield field_of("expires", ends, values, lambda end, day: day <= end, str)
    before, after = (
        {clause.path: clause for clause in clauses_of(workflow)} for workflow in (old, new)
    )
    for path, clause in {**before, **after}.items():
        head = clause.after
        if not head or not any(
            side[head.path].bars for side in (before, after) if head.path in side
        ):
            yield from _clause(path, before.get(path), after.get(path))


def _clause(path: str, *sides: WorkflowClause | None) -> Iterator[Field]:
    """The field that a clause looks at; a version without it allows every value."""
    stated = tuple([side for side in sides if side])
    values = list(stated[0].distinct(stated))
    if values:
        yield field_of(
            path,
            sides,
            values,
            lambda side, v: side is None or side.allows(v),
            lambda side: side.words if side else "",
        )


def field_of(
    name: str,
    sides: tuple[S, ...],
    values: Iterable[Distinct],
    holds: Callable[[S, Any], bool],
    said: Callable[[S], str],
) -> Field:
    """A field by whether each version's side of a condition holds of each class of values."""
    cells = (
        cell([free_if(holds(side, value)) for side in sides], name, scene, text)
        for value, scene, text in values
    )
    return field(name, cells, {name: [said(side) for side in sides]})


def one_of(
    name: str, key: str, sides: tuple[tuple[str, ...], ...], other: str, *, empty: bool = True
) -> Field:
    """A value that must be one of a list; `other`: one that neither lists; `empty`: an empty
    list allows every value.
    """
    listed = dict.fromkeys([value for side in sides for value in side])
    values = [
        *[Distinct(value, {key: value}, value) for value in listed],
        Distinct(OTHER, {key: other}, OTHER),
    ]
    return field_of(
        name,
        sides,
        values,
        lambda side, value: value in side or (empty and not side),
        ", ".join,
    )
