"""Denials of a run, counted where every gate counts them: with the last that is left the run closes."""

from __future__ import annotations

from typing import Any, Literal

from agentgate.stores._op import MAX_AMOUNT, Op, checked_id, checked_number, prefix, reply, word


def count_denial(tenant: str, run: str, most: int) -> Op:
    """Count a denial of an open run; the one that makes them `most` closes it, as `close_run` does."""
    start, name = prefix(tenant), checked_id("run", run)
    return Op("count_denial", (f"{start}run:{name}", f"{start}calls:{name}"), (checked_number("most", most, 1, MAX_AMOUNT),), confirm=True)


def parse_count_denial(op: Op, raw: Any) -> Literal["ok", "missing", "closed", "spent"]:
    """`ok`; `spent`: that was the last one, and the run is closed now; `missing`, `closed`: it was, and nothing is counted."""
    return word(op, reply(op, raw, 1)[0], ("ok", "missing", "closed", "spent"))  # type: ignore[no-any-return]  # a member of that type
