"""What lets the user's words reach an object or a bound they do not spell out: `select` and `at_most`.

Rules: the rows belong to a read that nobody but the user steers, each is one object, and what is compared has one currency.
"""

from __future__ import annotations

from agentgate.decision.origin_kinds import kind_of
from agentgate.loading.blocks import ArgumentBlock, SelectBlock, SumBlock
from agentgate.loading.fact_rules import FactRules, comparable
from agentgate.loading.yaml_nodes import Path, shown
from agentgate.values.entities import NUMERIC
from agentgate.workflow.rule import Source
from agentgate.workflow.selector import IN_TIME, SELECTORS, Selector


class Reach:
    """Compiles these two words of one file."""

    __slots__ = ("document", "facts", "references", "share", "tools")

    def __init__(self, facts: FactRules) -> None:
        self.facts, self.document, self.references = facts, facts.document, facts.references
        self.share, self.tools = facts.share, facts.tools

    def at_most(self, block: ArgumentBlock, kind: str, path: Path) -> Source | None:
        """`at_most`: a fact of an earlier call, or the sum of one over its rows."""
        if block.at_most is None:
            return None
        total = isinstance(block.at_most, SumBlock)
        text = block.at_most.sum if isinstance(block.at_most, SumBlock) else block.at_most
        here = (*path, "at_most", "sum") if total else (*path, "at_most")
        source = self.references.source(text, here)
        if source is None:
            return None
        if not kind_of(source).row_fact:
            self.document.report(here, shown(text), "a fact: tool.fact (what an earlier call returned)")
            return None
        if (self.tools[source.tool].facts or {})[source.field].find == "any":
            self.document.report(here, f"{text}, find: any", "one value (the date and the reference of a text are numbers of it too)")
        if total:
            if not self.facts.one_row_each(source):
                expected = (
                    "a fact inside the one list of that tool's facts (elsewhere a value stands in several rows, and would count twice)"
                )
                self.document.report(here, text, expected)
            source = self.share(Source("sum", source.tool, source.field))
        bound, currency = self.references.typed(source)
        if kind not in NUMERIC or bound not in NUMERIC or (kind == "money") != (bound == "money"):
            self.document.report(here, f"{kind} at most {bound}", "money and money, or number and integer")
        elif bound == "money" and not currency:
            self.document.report(here, f"{text} without a currency", "currency: on that fact (money is never compared without)")
        return source

    def select(self, tool: str, block: SelectBlock, kind: str, path: Path) -> Source | None:
        """`select`: the object is a row of a read that nobody but the user steers, and each superlative compares one of its facts."""
        here, report = (*path, "select"), self.document.report
        source = self.references.source(block.of, (*here, "of"))
        if source is None:
            return None
        other, _ = self.references.typed(source)
        read = self.tools[source.tool]
        if not kind_of(source).row_fact or read.effect != "read":
            report((*here, "of"), shown(block.of), "a fact of a read: tool.fact")
            return None
        if not comparable(kind, other):
            report((*here, "of"), f"a {kind} from a {other}", f"a fact whose values can equal a {kind}")
        if not self.facts.one_row_each(source):
            report((*here, "of"), block.of, "a fact inside the one list of that tool's facts (each row must be one object)")
        for name, rule in read.args.items():
            self.references.noted(Source("arg", source.tool, name))  # kept, to know that the user alone chose the rows
            if rule.is_ is None and not rule.page_size and (rule.from_ is None or set(rule.from_) - {"prompt"}):
                expected = f"is:, page_size: or from: [prompt] on {source.tool}.{name} (who chooses the rows chooses the largest)"
                report((*here, "of"), f"{source.tool}, steered by {name}", expected)
        by = []
        for key, (words, _) in SELECTORS.items():
            text = getattr(block, key)
            if text is None:
                continue
            compared = self.references.source(text, (*here, key))
            if compared is None:
                continue
            if not kind_of(compared).row_fact or compared.tool != source.tool or not self.facts.one_row_each(compared):
                report((*here, key), shown(text), f"a fact of {source.tool}, in the same list as {source.field}")
                continue
            measure, currency = self.references.typed(compared)
            wanted = {"date", "datetime", "time"} if key in IN_TIME else NUMERIC
            if measure not in wanted:
                report((*here, key), f"{text}, a {measure}", "a fact of type " + ", ".join(sorted(wanted)) + f" ({words.split('|')[0]})")
            elif measure == "money" and not currency:
                report((*here, key), f"{text} without a currency", "currency: on that fact (money is never compared without)")
            by.append((key, compared.field))
        if all(getattr(block, key) is None for key in SELECTORS):
            report(here, "no superlative", "at least one of " + ", ".join(SELECTORS), key=True)
        return self.share(Source("select", source.tool, source.field, Selector(tool, tuple(block.called), tuple(by))))
