"""The clause of `who.via`: the brokers between user and agent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any

from agentgate.values.refusal import Reason
from agentgate.values.value_class import value_class
from agentgate.workflow.clauses.clause import (
    EVERYTHING,
    STRANGER,
    Checks,
    Distinct,
    Loosening,
    Scene,
    Sides,
    Situation,
    WorkflowClause,
    check_of,
)


class BrokerChain(
    WorkflowClause, path="who.via", field="agent.via", scene="who.via", reason=Reason.HOPS
):
    """``via``: no more hops than allowed, and no fewer, through named brokers only.

    Hops are proven, but what a caller keeps to itself proves nothing: where work must come
    through a broker (RFC 8693 `act`), as few as none count against the caller, too.
    """

    names = ("max_hops", "min_hops", "brokers")
    form = "texts"
    value: tuple[int, int, tuple[str, ...]]  # the least, the most, the brokers

    def allows(self, value: Any) -> bool:
        least, most, brokers = self.value
        return least <= len(value) <= most and not [
            broker for broker in value if broker not in brokers
        ]

    def shown(self, case: Situation) -> str:
        via = case.run.header.agent.via
        return f"{len(via)} hops: {', '.join(via)}".removesuffix(": ")

    @property
    def expected(self) -> str:
        least, most, brokers = self.value
        fewest = f"at least {least} and " if least else ""
        return f"{fewest}at most {most} hops, through {', '.join(brokers)}"

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        """Lists of one broker suffice: a list is refused for its length or for one broker in
        it.
        """
        most = max(side.value[1] for side in sides)
        brokers = dict.fromkeys([broker for side in sides for broker in side.value[2]])
        chains = [[], *[[broker] * n for n in range(1, most + 1) for broker in brokers]]
        chains.append([STRANGER])
        return [
            Distinct(chain, {cls.scene: chain}, " > ".join(chain) or "direct")
            for chain in chains
        ]

    def loosened(self) -> Iterator[Loosening]:
        least, most, brokers = self.value
        if brokers:
            yield Loosening(
                f"{most} -> {most + 1}", "one hop too many", {"max_hops": most + 1}, "max_hops"
            )
            if least:
                yield Loosening(
                    f"{least} -> {least - 1}",
                    "one hop too few",
                    {"min_hops": least - 1},
                    "min_hops",
                )
            yield Loosening("any", "through a stranger", {"brokers": EVERYTHING}, "brokers")

    def sample(self, given: Scene) -> Scene:
        least, _, brokers = self.value
        return {self.scene: [brokers[0]] * least} if least else {}


class NoBrokers(BrokerChain):
    """Without ``via``: the user's agent itself."""

    expected = "no hop between user and agent"
    words = ""


VIA = (BrokerChain,)
NO_BROKERS = (check_of(NoBrokers((0, 0, ()), 0)),)


@value_class
class ViaRule:
    """Delegation: `min_hops` to `max_hops` brokers between user and agent, each one of
    `brokers`.

    Where none are required, a caller may leave all out.
    """

    line: int
    max_hops: int
    brokers: tuple[str, ...]
    min_hops: int = 0
    clauses: Checks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        chain = BrokerChain((self.min_hops, self.max_hops, self.brokers), self.line)
        object.__setattr__(self, "clauses", (check_of(chain),))
