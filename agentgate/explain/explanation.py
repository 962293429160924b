"""An explanation: every condition of a workflow with its verdict for one call, and the origin
of every value; as text and as JSON.

Rules: two texts. `agent` is the closed code that a model may see; all else is for a developer
or an operator and must never reach a model. No token; sensitive values masked; control
characters escaped. `agentgate.explain.verdicts` makes them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from agentgate.explain.evidence import Origin
from agentgate.explain.listing import Condition
from agentgate.explain.remedy import Remedy
from agentgate.values.refusal import Failure
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

Verdict = Literal["met", "failed", "asks", "not sent", "not reached", "at mint"]
"""Of a condition: it is met; it refuses the call; it asks a person; its optional argument was
left out; a condition before it failed; only the store knows, when it mints."""
Outcome = Literal["allow", "confirm", "step_up", "deny"]


@value_class
class Row:
    """One condition and what became of it."""

    condition: Condition
    verdict: Verdict
    # what was found, masked if sensitive; empty where nothing was checked. Of intents with the
    # evidence, which no `Failure` has
    got: str
    rule: str  # ``file:line`` of the rule, or empty
    origins: tuple[Origin, ...] = ()  # of an argument's value, one for each element of a list
    would_pass: Remedy | None = None  # of a row that failed or asks: what would make it hold
    # those of `agentgate.decision.decide` (or of the store) behind the verdict
    failures: tuple[Failure, ...] = ()

    @property
    def expected(self) -> str:
        """What would hold."""
        return self.condition.expected


@value_class
class Explanation:
    """Every condition that applies to one call."""

    # what the workflow decides; ``allow`` still needs what is known only to the store, at mint
    decision: Outcome
    code: str  # the closed code that the agent sees; empty for an allowed call
    tool: str
    tool_call_id: str
    workflow: str  # id and version; `digest` and `file` are the definition's
    digest: str
    file: str
    owners: tuple[str, ...]  # whom to ask about the rules
    rows: tuple[Row, ...]  # the conditions, in the order of the checks
    # changes of several rows with which the engine allows the whole call; None: none known
    together: Remedy | None = None
    notes: tuple[str, ...] = ()  # what this explanation could not know

    @property
    def agent(self) -> str:
        """All that the model is told; empty when the call is allowed."""
        return f"agentgate: {self.code}" if self.code else ""

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that refuse the call or ask for a person."""
        return tuple(row for row in self.rows if row.verdict in {"failed", "asks"})

    @property
    def owner(self) -> str:
        """Whom to ask."""
        return ", ".join(self.owners) or "nobody is named"

    def __str__(self) -> str:
        return "\n".join(line for _, line in text_lines(self))


# --- as text and as JSON ----------------------------------------------------------------------
def text_lines(shown: Explanation) -> Iterator[tuple[str, str]]:
    """The developer's text: what failed first and in full, then what is met; plain, one line
    each, behind what the line is of.

    That is the decision, a verdict, ``allowed`` or ``unknown`` of an origin, ``pass``,
    ``note``, or empty.
    """
    return ((kind, visible(line)) for kind, line in _lines(shown))


def _lines(shown: Explanation) -> Iterator[tuple[str, str]]:
    yield (
        shown.decision,
        f"{shown.decision.upper()}  {shown.tool}  {shown.workflow}"
        + (f" ({shown.file})" if shown.file else ""),
    )
    if shown.agent:
        yield "", f"the agent sees: {shown.agent}"
    for row in shown.failed:
        yield "", ""
        yield (
            row.verdict,
            f"{row.verdict.upper()} {row.condition.field} ({row.condition.word})"
            + (f"  {row.rule}" if row.rule else ""),
        )
        yield "", f"  got       {row.got}"
        yield "", f"  expected  {row.expected}"
        for origin in row.origins:
            yield (
                "allowed" if origin.allowed else "unknown",
                f"  origin    {origin.value}: {origin}",
            )
        if row.would_pass is not None:
            yield (
                "pass",
                f"  would pass with {row.would_pass.text}"
                + ("; then the whole call would" if row.would_pass.enough else ""),
            )
    if shown.together is not None:
        yield "", ""
        yield "pass", f"the whole call would pass with {shown.together.text}"
    yield "", ""
    for row in (row for row in shown.rows if row not in shown.failed):
        origins = f" | {'; '.join(map(str, row.origins))}" if row.origins else ""
        line = (
            f"{row.verdict:<11} {row.condition.field} ({row.condition.word}): "
            f"{row.got or '-'} | {row.expected}{origins}"
        )
        yield row.verdict, line + (f"  {row.rule}" if row.rule else "")
    yield from (("note", f"note: {note}") for note in shown.notes)
    yield "", f"ask: {shown.owner}"


def as_json(shown: Explanation) -> dict[str, Any]:
    """The explanation as JSON values."""
    names = ("decision", "code", "tool", "tool_call_id", "workflow", "digest", "file")
    rows = [
        {
            "field": row.condition.field,
            "condition": row.condition.word,
            "about": row.condition.about,
            "verdict": row.verdict,
            "got": row.got,
            "expected": row.expected,
            "rule": row.rule,
            "reasons": list(dict.fromkeys(str(f.reason) for f in row.failures)),
            "origins": [asdict(origin) for origin in row.origins],
            "would_pass_with": None
            if row.would_pass is None
            else {"text": row.would_pass.text, "alone_enough": row.would_pass.enough},
        }
        for row in shown.rows
    ]
    return {
        **{name: getattr(shown, name) for name in names},
        "owners": list(shown.owners),
        "conditions": rows,
        "would_pass_with": None if shown.together is None else shown.together.text,
        "notes": list(shown.notes),
    }
