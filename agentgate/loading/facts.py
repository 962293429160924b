"""Facts of a tool's result, from their blocks to frozen values; and `select` and `at_most`, by which the
user's words determine an object or a bound that they do not spell out. What is wrong is reported.

Rules: a fact is one value of one row; the facts that it refers to (`currency`, `named_by`,
`where`) are in the same row; a text is searched for an entity only where the user named its
source.

The rows of `select` belong to a read that only the user steers, each row is one object, and
compared money has one currency.
"""

from __future__ import annotations

from agentgate.decision.origins.kinds import kind_of
from agentgate.errors import CanonicalError
from agentgate.loading.blocks import FactBlock, SelectBlock, SumBlock
from agentgate.loading.site import Place, Site, argument_type, comparable
from agentgate.loading.yaml_nodes import did_you_mean, shown
from agentgate.values.entities import NUMERIC, TOKENISED
from agentgate.values.paths import EACH, FINDABLE, KEY, NUMBERS, VALUES
from agentgate.values.patterns import Pattern
from agentgate.workflow.model import counted
from agentgate.workflow.rule import CONFIRMED, IN_TIME, SELECTORS, Fact, Selector, Source

_NOT_TEXT = {*NUMERIC, "boolean"}
Steps = tuple[str, ...]


def compiled_fact(site: Site, tool: str, name: str, block: FactBlock, at: Place) -> Fact:
    """One declared field of a result."""
    if name in site.tools[tool].args:
        at.report_key(
            f"{name}, also an argument",
            f"another name ({tool}.{name} must mean one thing; path: says where it is)",
        )
    if block.currency:
        _currency(site, tool, block, block.currency, at["currency"])
    if block.type == "json":
        at["type"].report("json", "the type of one value (a fact is a scalar)")
    steps = _steps(block, name, at)
    if block.key:
        if steps[-2:] != (VALUES, EACH) or block.find:
            at["key"].report_key(
                "key of no value",
                "path: ending in .* without find (the fact is the key of each value there)",
            )
        if block.type in _NOT_TEXT:
            at["key"].report_key(
                f"a key as {block.type}", "a type of text (a key of an object is text)"
            )
        steps = (*steps, KEY)
    if block.trust == "confirmed" and block.type not in kind_of(CONFIRMED).types:
        expected = (
            f"a type whose value names one thing: {', '.join(sorted(kind_of(CONFIRMED).types))}"
        )
        at["trust"].report(f"confirmed on a {block.type}", expected)
    if block.find:
        _find(block, at["find"])
        steps = (*steps, f"[{block.type}]") if block.find == "one" else (*steps, NUMBERS, EACH)
    if block.named_by or block.where:
        _row(site, tool, block, _list(steps), at)
    return site.built(
        Fact,
        name,
        at.line,
        block.type,
        site.share(steps),
        block.currency or "",
        block.trust is not None,
        _pattern(block, at),
        site.share(tuple(block.named_by or ())),
        site.share(tuple((block.where or {}).items())),
        block.trust == "confirmed",
    )


def one_row_each(site: Site, source: Source) -> bool:
    """Whether each row of the tool's facts is one element of the list that this fact is in."""
    lists = _lists(site, source.tool)
    own = lists[source.field]
    return bool(own) and all(own[: len(each)] == each for each in lists.values())


def one_list(site: Site, tool: str) -> Steps | None:
    """The list whose elements the rows of a tool's results are; None where there is none
    (`agentgate.workflow.model.counted`).
    """
    return counted(_lists(site, tool).values())


def _currency(site: Site, tool: str, block: FactBlock, name: str, at: Place) -> None:
    sibling = site.facts(tool).get(name)
    if block.type != "money":
        at.report_key(f"currency on a {block.type}", "currency only on type money")
    elif not sibling:
        at.unknown(name, f"a fact of {tool}", site.facts(tool))
    elif sibling.type != "text":
        at.report(f"{name}, a {sibling.type}", "a fact of type text")


def _pattern(block: FactBlock, at: Place) -> Pattern | None:
    if not block.pattern:
        return None
    if block.type in _NOT_TEXT:
        at["pattern"].report_key(f"pattern on a {block.type}", "a pattern only on text")
    try:
        return Pattern.of(block.pattern)
    except CanonicalError as error:
        at["pattern"].report(error.got, error.expected)
        return None


def _find(block: FactBlock, at: Place) -> None:
    """`find`: the one entity of the fact's type in a text, or any number in it."""
    if block.find == "any" and block.type != "number":
        expected = "type: number (of addresses, a text that others add to may hold theirs)"
        at.report_key(f"find: any on a {block.type}", expected)
    if block.find == "one" and block.type not in FINDABLE:
        at.report_key(
            f"find on a {block.type}",
            f"a type that is told apart in any text: {', '.join(sorted(FINDABLE))}",
        )
    if block.trust != "named":
        expected = (
            "trust: named (text is anybody's: only a source that the user named is looked into)"
        )
        at.report_key("find without trust", expected)


def _row(site: Site, tool: str, block: FactBlock, own: Steps, at: Place) -> None:
    """`named_by` and `where`: facts of the same row (`own`: its list), and the arguments of
    that call which they must equal.
    """
    facts = site.facts(tool)
    args = site.tools[tool].args
    lists = _lists(site, tool)
    for argument in args if block.named_by else ():  # kept, to know who chose the rows
        site.noted(Source("arg", tool, argument))
    labels = [
        (name, at["named_by", index], True) for index, name in enumerate(block.named_by or ())
    ]
    labels += [(name, at["where", name], False) for name in block.where or ()]
    for name, here, names_row in labels:
        if name not in facts:
            here.unknown(name, f"a fact of {tool}", facts)
        elif own[: len(lists[name])] != lists[name]:
            here.report(
                f"{name}, of another list",
                "a fact of the same row: in the same list, or outside of it",
            )
        elif names_row and facts[name].type not in TOKENISED:
            here.report(
                f"{name}, a {facts[name].type}",
                f"a fact whose value a user can name: {', '.join(sorted(TOKENISED))}",
            )
    for name, argument in (block.where or {}).items():
        asked = args.get(argument)
        here = at["where", name]
        if not asked or "." in argument or asked.max_items:
            hint = "" if asked else did_you_mean(argument, args)
            here.report(shown(argument), f"an argument of {tool} that is one value", hint)
        elif name in facts and not comparable(facts[name].type, argument_type(asked)):
            here.report(
                f"a {facts[name].type} like a {argument_type(asked)}",
                "an argument whose values can equal the fact's",
            )
        else:
            site.noted(Source("arg", tool, argument))


def _lists(site: Site, tool: str) -> dict[str, Steps]:
    """The list that each fact of a tool is in; empty where it is in none."""
    lists = {}
    at = site.root["tools", tool, "facts"]
    for name, block in site.facts(tool).items():
        steps = _steps(block, name, at[name])
        lists[name] = (*steps, NUMBERS, EACH) if block.find == "any" else _list(steps)
    return lists


def _list(steps: Steps) -> Steps:
    """The part of a path up to its last list; empty where there is none."""
    return steps[: len(steps) - steps[::-1].index(EACH)] if EACH in steps else ()


def _steps(block: FactBlock, name: str, at: Place) -> Steps:
    """``transactions[].recipient`` as keys; ``[]`` walks a list, ``*`` an object's values;
    ``.`` is the result itself.
    """
    text = name if block.path is None else block.path
    if text == ".":
        return ()
    steps = []
    for index, part in enumerate(text.split(".")):
        key = part.rstrip("[]")
        lists = part[len(key) :]
        plain = key == "*" or not set("[]{}*") & set(key)
        good = (key or (index == 0 and lists)) and key.isascii() and key.isprintable() and plain
        if not good or lists.replace(EACH, ""):
            at["path"].report(
                shown(text),
                "keys joined by dots, [] after a list, * alone for each value of an object: "
                "orders[].lines.*.sku",
            )
            return ()
        steps += [VALUES, EACH] if key == "*" else [key] if key else []
        steps += [EACH] * (len(lists) // len(EACH))
    return tuple(steps)


_TIMES = frozenset({"date", "datetime", "time"})


def read_bound(site: Site, stated: str | SumBlock, kind: str, at: Place) -> Source | None:
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


def read_select(
    site: Site, tool: str, block: SelectBlock, kind: str, at: Place
) -> Source | None:
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
