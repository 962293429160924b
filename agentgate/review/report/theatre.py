"""What people's answers to holds say of each rule that asked: how often it was released, how
fast, and whether anybody looked.

A rule whose holds are nearly always released within seconds protects nothing and tires the
people who are asked: it is named as theatre, with what would make the question unnecessary.
Read from audit records; decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from agentgate.values.value_class import value_class

Record = Mapping[str, Any]

_Pair = tuple[str, str]  # a workflow and its rule; a reason and its field

# share of releases, seconds, and answers below which nothing is said of a rule
RELEASED = 0.98
FAST = 5.0
ENOUGH = 20

_INSTEAD = {  # the reason that asked most often -> what would make the question unnecessary
    "argument_origin": (
        "give {field} an origin that explains it (`from`), such as the fact "
        "of a read that the user names"
    ),
    "entity_origin": "let {field} hold only addresses and links with an origin (`entities`)",
    "intent_unclear": "teach the intent the words people use (`words`, `agentgate workflow words`)",
    "step_up": "narrow the rule's `when` to what people refuse, and let a limit or `max` bound the rest",
}


@value_class
class RuleStats:
    """The answers to one rule of one workflow.

    Attributes:
        answered: how many answers there were, of which `released` a yes.
        seconds: median from the question to the answer; None: not on record.
        instead: what would make the question unnecessary, of a rule that is theatre; else
            empty.
    """

    workflow: str
    rule: str
    answered: int
    released: int
    seconds: float | None
    instead: str = ""

    @property
    def rate(self) -> float:
        """The share of yes, 0 to 1."""
        return self.released / self.answered


def rule_stats(records: Iterable[Record]) -> tuple[RuleStats, ...]:
    """The rules that asked, those with most answers first."""
    said: dict[_Pair, list[tuple[bool, float | None]]] = {}
    why: dict[_Pair, Counter[_Pair]] = {}
    for record in records:
        workflow = str(record["workflow"].get("id"))
        kind = record["type"]
        for rule in record.get("rules", ()):
            key = (workflow, str(rule))
            if kind == "hold_answer":
                took = record.get("seconds")
                said.setdefault(key, []).append(
                    (
                        record.get("answer") == "release",
                        float(took) if took is not None else None,
                    )
                )
            elif kind == "decision":
                asked = [
                    (str(r.get("reason")), str(r.get("field")))
                    for r in record.get("reasons", ())
                ]
                why.setdefault(key, Counter()).update(asked)
    found = [_of(*key, answers, why.get(key, Counter())) for key, answers in said.items()]
    return tuple(sorted(found, key=lambda each: (-each.answered, each.workflow, each.rule)))


def _of(
    workflow: str,
    rule: str,
    answers: list[tuple[bool, float | None]],
    why: Counter[_Pair],
) -> RuleStats:
    released = sum(yes for yes, _ in answers)
    times = [took for _, took in answers if took is not None]
    seconds = median(times) if times else None
    theatre = (
        len(answers) >= ENOUGH
        and released / len(answers) > RELEASED
        and seconds is not None
        and seconds < FAST
    )
    return RuleStats(
        workflow, rule, len(answers), released, seconds, _instead(why) if theatre else ""
    )


def _instead(why: Counter[_Pair]) -> str:
    for (reason, field), _ in why.most_common():
        if field.startswith("step_up.") and reason == "step_up":
            return "give the rule a `when`: it asks for every call"
        if reason in _INSTEAD:
            return _INSTEAD[reason].format(field=field)
    return "narrow the rule's `when` to what people refuse"
