"""What a call takes of its limits; whether that much is left, the mint script says."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

from agentgate.decision.answer import Reservation
from agentgate.decision.case import Case
from agentgate.values.entities import NUMERIC
from agentgate.values.refusal import Reason

SCALE = 10_000  # sums are kept in units of 10^-4
_NOTHING = Decimal()
# as `Value` in `agentgate.decision.arguments`
_reservation = partial(tuple.__new__, Reservation)


def reservations(case: Case) -> tuple[Reservation, ...]:
    """What each limit on this tool takes: one for a count, the amount for a sum; what cannot be
    summed is denied.
    """
    taken = []
    for index, limit in enumerate(case.tool.limits if case.tool is not None else ()):
        if not limit.argument:
            taken.append(_reservation((limit, 1, "")))
            continue
        value = case.values.get(limit.argument)
        got = "nothing to count"
        expected = "a number: a limit sums it (an omitted amount must not slip past it)"
        if value is not None and value.rule.type in NUMERIC:
            keys = [key for key in value.keys if isinstance(key, Decimal)]
            total = (keys[0] if len(keys) == 1 else sum(keys, _NOTHING)) * SCALE
            amount = int(total)
            if amount == total and amount >= 0:
                taken.append(_reservation((limit, amount, value.currency)))
                continue
            got = value.shown
            expected = "not negative, at most 4 decimals: a limit sums it"
        case.deny_argument(
            Reason.LIMIT, limit.argument, got, expected, limit.line, f"limits limit {index}"
        )
    return tuple(taken)
