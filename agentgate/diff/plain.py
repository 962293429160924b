"""What no single call shows: limits, lifetimes, who answers and for how long, what a token is
valid for, facts that others trust.

Rules: each has its own order, and what is not provably at least as strict is wider. A limit
that counts differently (per whom, over which window) starts a new count, so it replaces no
other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from agentgate.decision.origins.kinds import kind_of
from agentgate.diff.finding import REMOVED, Finding
from agentgate.diff.forms import alphabet, form
from agentgate.diff.language import Language, TooLarge
from agentgate.diff.table import ORDERS, in_both_versions, rules_by_id
from agentgate.values.expression import Unreadable, parse
from agentgate.values.times import duration
from agentgate.workflow.clauses.clause import Order
from agentgate.workflow.model import ANY, Limit, Tool, Upstream, Workflow, root
from agentgate.workflow.rule import USER, Fact, Source

_ASKED = (
    "a person would be asked less often: fewer values count as from there",
    "a person would be asked more often: more values count",
)
_CREDENTIALS = ("another credential", "a credential that grants less, or for less long")


_Effects = tuple[str, str]  # of the change, and of the change the other way round
# what became wider: its path, both values, the effects
_Wider = Iterator[tuple[str, object, object, _Effects]]


def _findings_of(
    tool: str,
    wider: _Wider,
    counts: str = "",
) -> Iterator[Finding]:
    """What became wider, of one tool (empty: of the workflow as a whole)."""
    for field, old, new, (effect, back) in wider:
        yield Finding(
            tool, field, str(old), str(new), effect, call=False, back=back, counts=counts
        )


def _effects_of_counting(count: str) -> _Effects:
    """The effects of counting, and of not counting: ``... would {}count ...``."""
    return count.replace("{}", ""), count.replace("{}", "not ")


def findings_without_call(
    old: Workflow,
    new: Workflow,
) -> Iterator[Finding]:
    """What became wider that no single call shows."""
    yield from _findings_of("", _wider_as_a_whole(old, new))
    for name, before, after in in_both_versions(old.tools, new.tools):
        yield from _findings_of(name, _wider_grants(before, after))
        for limit in before.limits:
            yield from _findings_of_limit(limit, after)
        wider = chain(
            _wider_inside(before, after),
            _wider_by_asking(old, new, before),
            _wider_by_naming(old, new, before, after),
            _wider_beside_others(old, before, after),
        )
        yield from _findings_of(name, wider)


def _wider_as_a_whole(old: Workflow, new: Workflow) -> _Wider:
    """What became wider in the workflow as a whole."""
    yield from _wider_by_order(old.token, new.token, "token.")
    yield from _wider_by_order(old, new)
    for name, before, after in in_both_versions(old.intents, new.intents):
        yield from _wider_by_order(before, after, f"intents.{name}.")
        if after.reader and not before.reader:
            effects = (
                "a model could find this request in words that are not listed",
                "only listed words would request it",
            )
            if after.words:
                yield f"intents.{name}.unclear", before.unclear, "reader", effects
            else:
                yield f"intents.{name}.words", ", ".join(before.words), "", effects


def _wider_by_order(
    old: Any,
    new: Any,
    place: str = "",
) -> _Wider:
    """What became wider of a value by the order of one of its fields."""
    for order in ORDERS[type(old).__name__]:
        if order.widens(old, new):
            before = getattr(old, order.field)
            after = getattr(new, order.field)
            was = _text_by_order(order, before)
            now = _text_by_order(order, after)
            told = {"old": order.told.get(was), "new": order.told.get(now)}
            if order.exceeds == "fewer":
                told["gone"] = ", ".join(name for name in before if name not in after)
            effects = (order.effect.format(**told), order.back.format(**told))
            yield place + (order.path or order.field), was, now, effects


def _text_by_order(
    order: Order,
    value: Any,
) -> str:
    """A value as the file writes it."""
    text = _words_of(value) or order.empty
    return order.texts.get(str(value), text)


def _wider_by_asking(
    old: Workflow,
    new: Workflow,
    tool: Tool,
) -> _Wider:
    """A step-up rule on a value's origin fires less often where fewer values count as having
    that origin.
    """
    for rule in tool.step_ups:
        origins = [origin for when in rule.when for origin in when.origin or ()]
        for source in origins:
            if not isinstance(source, Source) or not kind_of(source).row_fact:
                continue
            before = old.tools[source.tool]
            after = new.tools.get(source.tool)
            fact = after.facts.get(source.field) if after else None
            if (
                not fact
                or (before.effect == "read" and after and after.effect != "read")
                or (is_named(fact) and _counts_by_others(new, old))
                or any(_wider_fact(fact, before.facts[source.field]))
            ):
                yield (
                    f"step_up.{rule.id}.when",
                    f"from {source}",
                    f"from {source}, where it counts",
                    _ASKED,
                )


def _counts_by_others(old: Workflow, new: Workflow) -> bool:
    """Whether, by what stands in some tool, more calls count as named by the user."""
    return any(
        [*_sources_that_stand(old, new, before, after), *_sizes_of_pages(before, after)]
        for _, before, after in in_both_versions(old.tools, new.tools)
    )


def is_named(fact: Fact) -> bool:
    """Whether it counts only where the user named its source, or its row."""
    return fact.named or bool(fact.named_by)


def _wider_by_naming(
    old: Workflow,
    new: Workflow,
    before: Tool,
    after: Tool,
) -> _Wider:
    """More calls count as named by the user, where that makes facts count: trust extends to
    what counts as the user's words.
    """
    if any(
        (fact.named and other.named) or (fact.named_by and other.named_by)
        for _, fact, other in in_both_versions(before.facts, after.facts)
    ):
        for argument, source in _sources_that_stand(old, new, before, after):
            effects = _effects_of_counting(
                f"a call with what {source} returned would {{}}count as named by the user"
            )
            yield (
                f"args.{argument}.from",
                "",
                f"{source}, which stands for the user's words",
                effects,
            )
    for argument in _sizes_of_pages(before, after):
        effects = (
            "rows would count although the model chose how many",
            "rows would not count where the model chose how many",
        )
        yield f"args.{argument}.page_size", "", "true", effects


def _sources_that_stand(
    old: Workflow,
    new: Workflow,
    before: Tool,
    after: Tool,
) -> Iterator[tuple[str, Source]]:
    """The arguments of a tool, each with a fact it may come from that counts as the user's
    words in the new version only.
    """
    for argument, rule in after.args.items():
        known = before.args.get(argument)
        for source in rule.sources:
            listed = known is not None and source in known.sources
            stood = listed and _stands_for_user(old, source)
            if not stood and _stands_for_user(new, source):
                yield argument, source


def _sizes_of_pages(before: Tool, after: Tool) -> Iterator[str]:
    """The arguments of a tool that are a page's size in the new version only."""
    for argument, rule, other in in_both_versions(before.args, after.args):
        if other.page_size and not rule.page_size:
            yield argument


def _stands_for_user(workflow: Workflow, source: Source) -> bool:
    """Whether a source is a fact of a read that counts as the user's words."""
    tool = workflow.tools.get(source.tool) if source.kind == "fact" else None
    fact = tool.facts.get(source.field) if tool else None
    read = tool is not None and tool.effect == "read"
    return read and fact is not None and is_named(fact)


def _wider_beside_others(
    workflow: Workflow,
    old: Tool,
    new: Tool,
) -> _Wider:
    """A rule can decide otherwise beside other arguments than alone: one call, one source."""
    for argument, before, after in in_both_versions(old.args, new.args):
        if (
            before.max_items is not None
            and before.at_most
            and not before.any_call
            and after.at_most != before.at_most
        ):
            effects = (
                "a row that does not bound it would count",
                "a row that does not bound it would not count",
            )
            yield f"args.{argument}.at_most", before.at_most, after.at_most or "", effects
        for source in after.sources:
            read = workflow.tools.get(source.tool)
            fact = read.facts.get(source.field) if read else None
            if (
                source.kind == "select"
                and source not in before.sources
                and fact
                and fact.named_by
            ):
                effects = _effects_of_counting(
                    "a row that the user's words select and do not name would {}count"
                )
                yield f"args.{argument}.from", "", source, effects


def _wider_grants(old: Tool, new: Tool) -> _Wider:
    """What a token of a tool is good for, and what its results are."""
    yield from _wider_by_order(old, new)
    before = old.scope or (old.name,)
    after = new.scope or (new.name,)
    if not set(after) <= set(before):
        effects = ("a token would grant more", "a token would grant less")
        yield "scope", ", ".join(before), ", ".join(after), effects


def _wider_inside(old: Tool, new: Tool) -> _Wider:
    """What became wider in one tool, beside its calls and its limits."""
    step_ups = rules_by_id(new.step_ups)
    for rule in old.step_ups:
        if other := step_ups.get(rule.id):
            yield from _wider_by_order(rule, other, f"step_up.{rule.id}.")
    yield from _wider_upstream(old.upstream, new.upstream)
    for argument, span in new.remember.items():
        if span > old.remember.get(argument, 0):
            effects = _effects_of_counting(
                "a value that the user confirmed would {}count in later runs, or for longer"
            )
            yield (
                f"remember.{argument}",
                duration(old.remember.get(argument)),
                duration(span),
                effects,
            )
    for argument, before, after in in_both_versions(old.args, new.args):
        if (
            before.named_first
            and not after.named_first
            and any(source.tool or source == USER for source in after.sources)
        ):
            effects = _effects_of_counting(
                "a value of elsewhere would {}count where the user named another"
            )
            yield f"args.{argument}.named_first", "true", "", effects
    for argument in sorted(_as_null(new) - _as_null(old)):
        if all(
            before.nullable
            for leaf, before, _ in in_both_versions(old.args, new.args)
            if root(leaf) == argument
        ):
            effects = (
                "null would count as left out: what is gone inside kept it from that",
                "null would not count as left out",
            )
            yield f"args.{argument}", "", "null", effects
    for _, one, another in in_both_versions(old.facts, new.facts):
        yield from _wider_fact(one, another)


def _as_null(tool: Tool) -> set[str]:
    """The structures that may be null as a whole."""
    inside = [rule for name, rule in tool.args.items() if "." in name]
    kept_by = {root(rule.name) for rule in inside if not rule.nullable}
    return {root(rule.name) for rule in inside} - kept_by


def _findings_of_limit(
    limit: Limit,
    new: Tool,
) -> Iterator[Finding]:
    if any(other.stands_for(limit) for other in new.limits):
        return
    alike = [other for other in new.limits if other.key == limit.key]
    after = min(alike, key=lambda other: other.counter != limit.counter, default=None)
    text = after.words if after else REMOVED
    more = "more would be granted in all"
    if after and after.counter != limit.counter:
        more += ": it counts anew, over another window"
    effects = (more, "less would be granted in all")
    counts = f"limits.{limit.key}"
    wider = (f"{counts} per {limit.per}", limit.words, text, effects)
    tool = "" if limit.tool == ANY else new.name
    yield from _findings_of(tool, iter([wider]), counts)


def _wider_upstream(
    old: Upstream | None,
    new: Upstream | None,
) -> _Wider:
    """Any other credential is wider, unless it is the same one for a shorter time, for fewer
    scopes, or bounded by a role.
    """
    if not new or new == old:
        return
    if not old:
        yield (
            "upstream",
            "",
            new.broker,
            ("the tool would be given a credential", "the tool would be given no credential"),
        )
        return
    if old.broker != new.broker:
        yield "upstream.broker", old.broker, new.broker, ("another broker's credential",) * 2
    scopes = {
        "role": (old.role_scopes, new.role_scopes),
        "narrower_than": (old.bound, new.bound),
    }
    for key in sorted({*old.settings, *new.settings, *scopes}):
        before = old.settings.get(key)
        after = new.settings.get(key)
        if before == after and key in scopes:  # the same role, of other scopes in roles.yaml
            before, after = (tuple(sorted(each)) for each in scopes[key])
        if not _grants_no_more(key, before, after):
            yield f"upstream.{key}", _words_of(before), _words_of(after), _CREDENTIALS


def _grants_no_more(
    key: str,
    before: Any,
    after: Any,
) -> bool:
    """Whether a setting is the same, names fewer, is shorter, or bounds what had no bound."""
    if isinstance(before, tuple) and isinstance(after, tuple):
        return set(after) <= set(before)
    if key == "duration" and before and after:
        return bool(after <= before)
    unbounded = key == "narrower_than" and before is None
    return unbounded or bool(before == after)


def _words_of(value: object) -> str:
    """A value as the file writes it."""
    if type(value) is int:
        return duration(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _wider_fact(old: Fact, new: Fact) -> _Wider:
    if old.named and (not new.named or new.confirmed > old.confirmed):
        effects = _effects_of_counting(
            "would {}count where the user did not name its source"
            + (", and confirmed it" if new.named else "")
        )
        yield f"facts.{old.name}.trust", _trust_words(old), _trust_words(new), effects
    if old.pattern and (not new.pattern or not _is_within(old, new)):
        after = new.pattern.source if new.pattern else ""
        effects = ("more values would count", "fewer values would count")
        yield f"facts.{old.name}.pattern", old.pattern.source, after, effects
    # another label can mean another row, a label less too
    if old.named_by and set(old.named_by) != set(new.named_by):
        effects = _effects_of_counting("rows that the user does not name would {}count")
        if new.named_by:
            effects = ("other rows would count as named", effects[1])
        was = ", ".join(old.named_by)
        now = ", ".join(new.named_by)
        yield f"facts.{old.name}.named_by", was, now, effects
    if not set(old.where) <= set(new.where):
        was, now = (
            ", ".join(f"{name}: {argument}" for name, argument in fact.where)
            for fact in (old, new)
        )
        effects = _effects_of_counting("rows that the call did not ask for would {}count")
        yield f"facts.{old.name}.where", was, now, effects


def _trust_words(fact: Fact) -> str:
    return "confirmed" if fact.confirmed else "named" if fact.named else ""


def _is_within(old: Fact, new: Fact) -> bool:
    """Whether every value of the new pattern meets the old one; False also when that cannot be
    told.
    """
    if not old.pattern or not new.pattern or old.type != new.type:
        return old.pattern is None
    before = old.pattern.source
    after = new.pattern.source
    if before == after:
        return True
    try:
        expressions = [form(new.type), parse(after), parse(before)]
        language = Language(expressions, alphabet(new.type))
        return language.texts(lambda matches: matches == (True, True, False)) is None
    except (Unreadable, TooLarge, RecursionError, KeyError):
        return False
