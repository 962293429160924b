"""What no single call shows: limits, lifetimes, who answers and for how long, what a token is
valid for, facts that others trust.

Rules: each has its own order, and what is not provably at least as strict is wider. A limit
that counts differently (per whom, over which window) starts a new count, so it replaces no
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from operator import gt, lt, ne
from typing import Any

from agentgate.decision.origins.kinds import kind_of
from agentgate.diff.finding import REMOVED, Finding
from agentgate.diff.forms import alphabet, form
from agentgate.diff.language import Language, TooLarge
from agentgate.diff.table import by_id, kept, same
from agentgate.values.expression import Unreadable, parse
from agentgate.values.tables import read_table
from agentgate.values.times import duration
from agentgate.values.value_class import Names
from agentgate.workflow.model import ANY, Limit, StepUpRule, Tool, Upstream, Workflow, root
from agentgate.workflow.rule import USER, Fact, Source

_ASKED = (
    "a person would be asked less often: fewer values count as from there",
    "a person would be asked more often: more values count",
)
_ORDERS = read_table("agentgate.diff", "orders.toml")
_EXCEEDS: Mapping[str, Callable[[Any, Any], object]] = {
    "more": lt,
    "less": gt,
    "other": ne,
    "fewer": lambda old, new: set(old) - set(new),
    "further": lambda old, new: set(new) - set(old),
}
_CREDENTIALS = ("another credential", "a credential that grants less, or for less long")


_Effects = tuple[str, str]  # of the change, and of the change the other way round
# what became wider: its path, both values, the effects
_Wider = Iterator[tuple[str, object, object, _Effects]]


def _findings(
    tool: str,
    wider: _Wider,
    counts: str = "",
) -> Iterator[Finding]:
    """What became wider, of one tool (empty: of the workflow as a whole)."""
    for field, old, new, (effect, back) in wider:
        yield Finding(
            tool, field, str(old), str(new), effect, call=False, back=back, counts=counts
        )


def _would(count: str) -> _Effects:
    """The effects of counting, and of not counting: ``... would {}count ...``."""
    return count.replace("{}", ""), count.replace("{}", "not ")


def workflow(old: Workflow, new: Workflow) -> Iterator[Finding]:
    """What became wider that no single call shows."""
    yield from _findings("", _whole(old, new))
    for name, before, after in kept(old.tools, new.tools):
        yield from _findings(name, _granted(before, after))
        for limit in before.limits:
            yield from _limit(limit, after)
        yield from _findings(name, _inside(before, after))
        yield from _findings(name, _among_tools(old, new, name))


def _whole(old: Workflow, new: Workflow) -> _Wider:
    """What became wider in the workflow as a whole."""
    yield from _ordered(old.token, new.token)
    yield from _ordered(old, new)
    for name, before, after in kept(old.intents, new.intents):
        yield from _ordered(before, after, f"intents.{name}.")
        if after.reader and not before.reader:
            key, was = (
                ("unclear", before.unclear)
                if after.words
                else ("words", ", ".join(before.words))
            )
            effects = (
                "a model could find this request in words that are not listed",
                "only listed words would request it",
            )
            yield f"intents.{name}.{key}", was, "reader" if after.words else "", effects


def _ordered(
    old: Any,
    new: Any,
    place: str = "",
) -> _Wider:
    """What became wider of a value by the order of one of its fields, as ``orders.toml`` has
    it.
    """
    for row in _ORDERS[type(old).__name__]:
        name = row["field"]
        values = [getattr(old, name), getattr(new, name)]
        ranks = row.get("ranks")
        ranked = [ranks[value] for value in values] if ranks else values
        if _EXCEEDS[row["exceeds"]](*ranked):
            texts = row.get("texts", {})
            was, now = (
                duration(value)
                if type(value) is int
                else texts.get(str(value), _words(value) or row.get("empty", ""))
                for value in values
            )
            told = row.get("told", {})
            by_name = {"old": told.get(was), "new": told.get(now)}
            effects = row["effect"].format(**by_name), row["back"].format(**by_name)
            yield place + row.get("path", name), was, now, effects


def _among_tools(
    old: Workflow,
    new: Workflow,
    name: str,
) -> _Wider:
    """What became wider in one tool by what stands in others."""
    yield from _asked(old, new, name)
    yield from _named(old, new, name)
    for arg in _sized(old, new, name):
        effects = (
            "rows would count although the model chose how many",
            "rows would not count where the model chose how many",
        )
        yield f"args.{arg}.page_size", "", "true", effects
    yield from _joined(old, old.tools[name], new.tools[name])


def _asked(
    old: Workflow,
    new: Workflow,
    name: str,
) -> _Wider:
    """A step-up rule on a value's origin fires less often where fewer values count as having
    that origin.
    """
    for rule in old.tools[name].step_ups:
        for source in (
            s
            for when in rule.when
            for s in when.origin or ()
            if isinstance(s, Source) and kind_of(s).row_fact
        ):
            before = old.tools[source.tool]
            after = new.tools.get(source.tool)
            fact = after.facts.get(source.field) if after else None
            acts = before.effect == "read" and after and after.effect != "read"
            led = any([*_standing(new, old, t), *_sized(new, old, t)] for t in new.tools)
            fewer = fact and (fact.named or fact.named_by) and led
            if not fact or acts or fewer or any(_fact(fact, before.facts[source.field])):
                yield (
                    f"step_up.{rule.id}.when",
                    f"from {source}",
                    f"from {source}, where it counts",
                    _ASKED,
                )


def _named(
    old: Workflow,
    new: Workflow,
    name: str,
) -> _Wider:
    """More calls count as named by the user, where that makes facts count: trust extends to
    what counts as the user's words.
    """
    facts = kept(old.tools[name].facts, new.tools[name].facts)
    if any(
        (before.named and after.named) or (before.named_by and after.named_by)
        for _, before, after in facts
    ):
        for arg, source in _standing(old, new, name):
            effects = _would(
                f"a call with what {source} returned would {{}}count as named by the user"
            )
            yield (
                f"args.{arg}.from",
                "",
                f"{source}, which stands for the user's words",
                effects,
            )


def _standing(
    old: Workflow,
    new: Workflow,
    name: str,
) -> Iterator[tuple[str, Source]]:
    """The arguments of a tool, each with a fact it may come from that counts as the user's
    words in the new version only.
    """
    if name in old.tools and name in new.tools:
        before = old.tools[name].args
        for arg, rule in new.tools[name].args.items():
            for source in rule.sources:
                if _carries(new, source) and not (
                    arg in before and source in before[arg].sources and _carries(old, source)
                ):
                    yield arg, source


def _sized(
    old: Workflow,
    new: Workflow,
    name: str,
) -> Iterator[str]:
    """The arguments of a tool that are a page's size in the new version only."""
    if name in old.tools and name in new.tools:
        for arg, before, after in kept(old.tools[name].args, new.tools[name].args):
            if after.page_size and not before.page_size:
                yield arg


def _carries(workflow: Workflow, source: Source) -> bool:
    """Whether a source is a fact of a read that counts as the user's words."""
    tool = workflow.tools.get(source.tool) if source.kind == "fact" else None
    fact = tool.facts.get(source.field) if tool else None
    return bool(tool and fact and tool.effect == "read" and (fact.named or fact.named_by))


def _joined(
    workflow: Workflow,
    old: Tool,
    new: Tool,
) -> _Wider:
    """A rule can decide otherwise beside other arguments than alone: one call, one source."""
    for arg, before, after in kept(old.args, new.args):
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
            yield f"args.{arg}.at_most", before.at_most, after.at_most or "", effects
        for source in after.sources:
            read = workflow.tools.get(source.tool)
            fact = read.facts.get(source.field) if read else None
            if (
                source.kind == "select"
                and source not in before.sources
                and fact
                and fact.named_by
            ):
                effects = _would(
                    "a row that the user's words select and do not name would {}count"
                )
                yield f"args.{arg}.from", "", source, effects


def _granted(old: Tool, new: Tool) -> _Wider:
    """What a token of a tool is good for, and what its results are."""
    yield from _ordered(old, new)
    scopes = [t.scope or (t.name,) for t in (old, new)]
    if not set(scopes[1]) <= set(scopes[0]):
        yield (
            "scope",
            ", ".join(scopes[0]),
            ", ".join(scopes[1]),
            ("a token would grant more", "a token would grant less"),
        )


def _inside(old: Tool, new: Tool) -> _Wider:
    """What became wider in one tool, beside its calls and its limits."""
    for _, rule, other in kept(by_id(old.step_ups), by_id(new.step_ups)):
        shown = rule.show or tuple(old.args), other.show or tuple(new.args)
        yield from _step_up(rule, other, shown)
    yield from _upstream(old.upstream, new.upstream)
    for arg, span in new.remember.items():
        if span > old.remember.get(arg, 0):
            effects = _would(
                "a value that the user confirmed would {}count in later runs, or for longer"
            )
            yield f"remember.{arg}", duration(old.remember.get(arg)), duration(span), effects
    for arg, before, after in kept(old.args, new.args):
        if (
            before.named_first
            and not after.named_first
            and any(s.tool or s == USER for s in after.sources)
        ):
            effects = _would("a value of elsewhere would {}count where the user named another")
            yield f"args.{arg}.named_first", "true", "", effects
    for arg in sorted(_as_null(new) - _as_null(old)):
        if all(
            before.nullable for leaf, before, _ in kept(old.args, new.args) if root(leaf) == arg
        ):
            effects = (
                "null would count as left out: what is gone inside kept it from that",
                "null would not count as left out",
            )
            yield f"args.{arg}", "", "null", effects
    for _, one, another in kept(old.facts, new.facts):
        yield from _fact(one, another)


def _as_null(tool: Tool) -> set[str]:
    """The structures that may be null as a whole."""
    inside = [rule for name, rule in tool.args.items() if "." in name]
    kept_by = {root(rule.name) for rule in inside if not rule.nullable}
    return {root(rule.name) for rule in inside} - kept_by


def _limit(limit: Limit, new: Tool) -> Iterator[Finding]:
    alike = [n for n in new.limits if (n.tool, n.argument) == (limit.tool, limit.argument)]
    count = replace(limit, line=0, maximum=0)
    same_count = [n for n in alike if replace(n, line=0, maximum=0) == count]
    if any(n.maximum <= limit.maximum for n in same_count):
        return
    what = "sum" if limit.argument else "count"
    of = (
        "any"
        if limit.tool == ANY
        else f"{limit.tool}.{limit.argument}"
        if limit.argument
        else limit.tool
    )
    after = min(same_count or alike[:1], key=lambda n: n.maximum, default=None)
    text = limit_text(after) if after else REMOVED
    more = "more would be granted in all" + (
        "" if same_count or not after else ": it counts anew, over another window"
    )
    effects = (more, "less would be granted in all")
    counts = f"limits.{what} {of}"
    wider = (f"{counts} per {limit.per}", limit_text(limit), text, effects)
    yield from _findings("" if limit.tool == ANY else new.name, iter([wider]), counts)


def limit_text(limit: Limit) -> str:
    """A limit as a reviewer reads it."""
    most = f"{limit.maximum / 10_000:.2f}" if limit.argument else str(limit.maximum)
    return f"{most} per {limit.per}" + (
        f" every {duration(limit.every)}" if limit.every else ""
    )


def _step_up(
    old: StepUpRule,
    new: StepUpRule,
    shown: tuple[Names, Names],
) -> _Wider:
    name = f"step_up.{old.id}"
    yield from _ordered(old, new, f"{name}.")
    hidden = [s for s in shown[0] if s not in shown[1]]
    if hidden:
        effects = (
            f"the approver would not see {', '.join(hidden)}",
            f"the approver would also see {', '.join(hidden)}",
        )
        yield f"{name}.show", ", ".join(shown[0]), ", ".join(shown[1]), effects


def _upstream(old: Upstream | None, new: Upstream | None) -> _Wider:
    """Any other credential is wider, unless it is the same one for a shorter time, for fewer
    scopes, or bounded by a role.
    """
    if not new or same(old, new):
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
    for key in sorted({*old.settings, *new.settings}):
        before = old.settings.get(key)
        after = new.settings.get(key)
        fewer = (
            isinstance(before, tuple) and isinstance(after, tuple) and set(after) <= set(before)
        )
        shorter = (
            key == "duration"
            and isinstance(before, int)
            and isinstance(after, int)
            and after <= before
        )
        bounded = key == "narrower_than" and before is None
        if before != after and not (fewer or shorter or bounded):
            was, now = (
                duration(each) if key == "duration" and isinstance(each, int) else _words(each)
                for each in (before, after)
            )
            yield f"upstream.{key}", was, now, _CREDENTIALS
    for key, less, more in (
        ("role", old.role_scopes, new.role_scopes),
        ("narrower_than", old.bound, new.bound),
    ):
        # the same role, of other scopes in roles.yaml
        if old.settings.get(key) == new.settings.get(key) and not more <= less:
            yield (
                f"upstream.{key}",
                _words(tuple(sorted(less))),
                _words(tuple(sorted(more))),
                _CREDENTIALS,
            )


def _words(value: object) -> str:
    return (
        ""
        if value is None
        else ", ".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
    )


def _fact(old: Fact, new: Fact) -> _Wider:
    if old.named and (not new.named or new.confirmed > old.confirmed):
        effects = _would(
            "would {}count where the user did not name its source"
            + (", and confirmed it" if new.named else "")
        )
        yield f"facts.{old.name}.trust", _trust(old), _trust(new), effects
    if old.pattern and (not new.pattern or not _within(old, new)):
        after = new.pattern.source if new.pattern else ""
        yield (
            f"facts.{old.name}.pattern",
            old.pattern.source,
            after,
            ("more values would count", "fewer values would count"),
        )
    # another label can mean another row, a label less too
    if old.named_by and set(old.named_by) != set(new.named_by):
        others = (
            "rows that the user does not name would count"
            if not new.named_by
            else "other rows would count as named"
        )
        fewer = "rows that the user does not name would not count"
        yield (
            f"facts.{old.name}.named_by",
            ", ".join(old.named_by),
            ", ".join(new.named_by),
            (others, fewer),
        )
    if not set(old.where) <= set(new.where):
        said = [
            ", ".join(f"{fact}: {argument}" for fact, argument in f.where) for f in (old, new)
        ]
        effects = _would("rows that the call did not ask for would {}count")
        yield f"facts.{old.name}.where", said[0], said[1], effects


def _trust(fact: Fact) -> str:
    return "confirmed" if fact.confirmed else "named" if fact.named else ""


def _within(old: Fact, new: Fact) -> bool:
    """Whether every value of the new pattern meets the old one; False also when that cannot be
    told.
    """
    if not old.pattern or not new.pattern or old.type != new.type:
        return old.pattern is None
    if old.pattern.source == new.pattern.source:
        return True
    try:
        language = Language(
            [form(new.type), parse(new.pattern.source), parse(old.pattern.source)],
            alphabet(new.type),
        )
        return language.texts(lambda v: v[0] and v[1] and not v[2]) is None
    except (Unreadable, TooLarge, RecursionError, KeyError):
        return False
