"""Who calls, for whom, when and where: the fields that all tools share, each as a finite set of
classes.

They are the fields that `agentgate.decision.decide` looks at, one at a time: one of them
suffices to refuse a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

from agentgate.diff.finding import Field, cell_of_statuses, field_of_cells, free_if
from agentgate.workflow.clauses.clause import OTHER, Distinct, WorkflowClause
from agentgate.workflow.clauses.table import clauses_of
from agentgate.workflow.model import Workflow

S = TypeVar("S")


def shared_fields(old: Workflow, new: Workflow) -> Iterator[Field]:
    """Every field that all tools share."""
    yield field_of_list(
        "tenants", "tenant", (old.tenants, new.tenants), "another-tenant", empty=False
    )
    ends = (old.expires, new.expires)
    next_days = [end + timedelta(days=1) for end in ends]
    days = sorted({*ends, *next_days})
    values = [Distinct(day, {"day": day}, str(day)) for day in days]
    yield field_of("expires", ends, values, lambda end, day: day <= end, str)
    yield from _clauses(clauses_of(old), clauses_of(new))


def _clauses(*versions: tuple[WorkflowClause, ...]) -> Iterator[Field]:
    """The fields that clauses look at; a version without a clause allows every value."""
    every = list(chain(*versions))
    barred = {clause.path for clause in every if clause.bars}
    for path in dict.fromkeys(clause.path for clause in every):
        sides = [[clause for clause in side if clause.path == path] for side in versions]
        stated = tuple(chain(*sides))
        head = stated[0].after
        values = list(stated[0].distinct(stated))
        if values and (head is None or head.path not in barred):
            yield field_of_conditions(path, sides, values)


def field_of_conditions(
    name: str,
    sides: Sequence[Sequence[Any]],
    values: Iterable[Distinct],
) -> Field:
    """A field by whether all conditions of a version allow a value (`allows`); their `words`
    are its text.
    """
    return field_of(
        name,
        sides,
        values,
        lambda side, value: all(condition.allows(value) for condition in side),
        lambda side: ", ".join(condition.words for condition in side),
    )


def field_of(
    name: str,
    sides: Sequence[S],
    values: Iterable[Distinct],
    holds: Callable[[S, Any], bool],
    said: Callable[[S], str],
) -> Field:
    """A field by whether each version's side of a condition holds of each class of values."""
    cells = []
    for value, scene, text in values:
        statuses = [free_if(holds(side, value)) for side in sides]
        cells.append(cell_of_statuses(statuses, name, scene, text))
    texts = [said(side) for side in sides]
    return field_of_cells(name, cells, {name: texts})


def field_of_list(
    name: str,
    key: str,
    sides: tuple[tuple[str, ...], ...],
    other: str,
    *,
    empty: bool = True,
) -> Field:
    """A value that must be one of a list; `other`: one that neither lists; `empty`: an empty
    list allows every value.
    """
    listed = dict.fromkeys(chain(*sides))
    values = [Distinct(value, {key: value}, value) for value in listed]
    values.append(Distinct(OTHER, {key: other}, OTHER))
    return field_of(
        name,
        sides,
        values,
        lambda side, value: value in side or (empty and not side),
        ", ".join,
    )
