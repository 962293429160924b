"""`select` and `at_most`: how the user's words determine an object or a bound that they do not
spell out.

Rules: the rows belong to a read that only the user steers, each row is one object, and compared
money has one currency.
"""

from __future__ import annotations

from agentgate.decision.origins.kinds import kind_of
from agentgate.loading.blocks import SelectBlock, SumBlock
from agentgate.loading.facts import one_row_each
from agentgate.loading.site import Place, Site, comparable
from agentgate.loading.yaml_nodes import shown
from agentgate.values.entities import NUMERIC
from agentgate.workflow.rule import Source
from agentgate.workflow.selector import IN_TIME, SELECTORS, Selector

_TIMES = frozenset({"date", "datetime", "time"})


def bound(site: Site, stated: str | SumBlock, kind: str, at: Place) -> Source | None:
    """`at_most`: a fact of an earlier call, or the sum of one over its rows."""
    text = stated if isinstance(stated, str) else stated.sum
    at = at if isinstance(stated, str) else at["sum"]
    source = site.source(text, at)
    if not source:
        return None
    fact = site.fact(source)
    if not fact:
        at.report(shown(text), "a fact: tool.fact (what an earlier call returned)")
        return None
    if fact.find == "any":
        at.report(
            f"{text}, find: any",
            "one value (the date and the reference of a text are numbers of it too)",
        )
    if isinstance(stated, SumBlock):
        if not one_row_each(site, source):
            once = "elsewhere a value stands in several rows, and would count twice"
            at.report(text, f"a fact inside the one list of that tool's facts ({once})")
        source = site.built(Source, "sum", source.tool, source.field)
    if (
        kind not in NUMERIC
        or fact.type not in NUMERIC
        or (kind == "money") != (fact.type == "money")
    ):
        at.report(f"{kind} at most {fact.type}", "money and money, or number and integer")
    elif fact.type == "money" and not fact.currency:
        at.report(
            f"{text} without a currency",
            "currency: on that fact (money is never compared without)",
        )
    return source


def selected(site: Site, tool: str, block: SelectBlock, kind: str, at: Place) -> Source | None:
    """`select`: the object is a row of a read that only the user steers, and each superlative
    compares one of its facts.
    """
    of = at["of"]
    source = site.source(block.of, of)
    if not source:
        return None
    read = site.tools[source.tool]
    fact = site.fact(source)
    if not fact or read.effect != "read":
        of.report(shown(block.of), "a fact of a read: tool.fact")
        return None
    if not comparable(kind, fact.type):
        of.report(f"a {kind} from a {fact.type}", f"a fact whose values can equal a {kind}")
    if not one_row_each(site, source):
        of.report(
            block.of,
            "a fact inside the one list of that tool's facts (each row must be one object)",
        )
    for name, rule in read.args.items():
        # kept, to know that the user alone chose the rows
        site.noted(Source("arg", source.tool, name))
        if (
            rule.is_ is None
            and not rule.page_size
            and (not rule.from_ or set(rule.from_) - {"prompt"})
        ):
            expected = (
                f"is:, page_size: or from: [prompt] on {source.tool}.{name} (who "
                "chooses the rows chooses the largest)"
            )
            of.report(f"{source.tool}, steered by {name}", expected)
    superlatives = {key: text for key in SELECTORS if (text := getattr(block, key)) is not None}
    if not superlatives:
        at.report_key("no superlative", f"at least one of {', '.join(SELECTORS)}")
    measures = [
        (key, _measure(site, source, key, text, at[key])) for key, text in superlatives.items()
    ]
    by = tuple((key, field) for key, field in measures if field)
    return site.built(
        Source, "select", source.tool, source.field, Selector(tool, tuple(block.called), by)
    )


def _measure(site: Site, source: Source, key: str, text: str, at: Place) -> str:
    """The fact that a superlative compares, or empty after reporting why there is none."""
    compared = site.source(text, at)
    if not compared:
        return ""
    if (
        not kind_of(compared).row_fact
        or compared.tool != source.tool
        or not one_row_each(site, compared)
    ):
        at.report(shown(text), f"a fact of {source.tool}, in the same list as {source.field}")
        return ""
    measure, currency = site.typed(compared)
    wanted = _TIMES if key in IN_TIME else NUMERIC
    if measure not in wanted:
        at.report(
            f"{text}, a {measure}",
            f"a fact of type {', '.join(sorted(wanted))} ({SELECTORS[key][0].split('|')[0]})",
        )
    elif measure == "money" and not currency:
        at.report(
            f"{text} without a currency",
            "currency: on that fact (money is never compared without)",
        )
    return compared.field
