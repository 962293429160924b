"""Where a value came from: the prompt, the user's own id, a fact or argument of an earlier
redeemed call, a calculation, or the model.

Rules: the gate derives an origin and accepts none from anybody. Only `EarlierCall`s, calls of
this run that were minted and redeemed, count (`agentgate.decision.origins.earlier_calls`), and
what refers to calls of one tool is met by one of them (`agentgate.decision.origins.join`).
`any_call: true` takes an argument out of that: each element may come from any call and row.
`named_first`: where the user named any value of the type, nothing but the user's words is an
origin. A text is from the prompt also where it is some of the user's words in their order
(`agentgate.language.wording`). What is `computed` from such values by a calculation that the
user's words name belongs to no call. Values that the user `confirmed` are those of one yes,
also where that is `remembered`. None of these, nor the id of the run's user, names anything
(`agentgate.decision.origins.named_calls`). Pure.
"""

from __future__ import annotations

from agentgate.decision.origins.earlier_calls import Answer, Earlier, stands_for_words
from agentgate.decision.origins.join import explain, joined, within_some_call
from agentgate.decision.origins.kinds import kind_of, was_sent
from agentgate.decision.origins.named_calls import is_named
from agentgate.decision.origins.trace_result import Traced
from agentgate.decision.origins.value import Value, element, in_prompt, sources_of
from agentgate.values.entities import Key
from agentgate.values.paths import FINDABLE
from agentgate.workflow.rule import BY_YES, CONFIRMED, PROMPT, Rule, Sources

MAX_RECORDED = 20  # elements of a list whose origins are recorded


def came_from(value: Value, key: Key, sources: Sources, earlier: Earlier) -> bool:
    """True when one element of an argument has one of `sources`, in any call and row. The model
    explains nothing here.
    """
    return any(
        kind_of(source).explains(source, value, key, sources, earlier) for source in sources
    )


_BY_YES = {str(source) for source in BY_YES}
_OF_TYPE = {kind: Rule("", 0, kind) for kind in FINDABLE}


def in_some_call(kind: str, key: Key, sources: Sources, earlier: Earlier) -> bool:
    """True when an entity inside free text has one of the allowed origins, in any call and
    row.
    """
    return any(kind_of(source).free for source in sources) or came_from(
        Value(_OF_TYPE[kind], (key,), "", key), key, sources, earlier
    )


def trace(traced: Traced, values: dict[str, Value], earlier: Earlier, now: float) -> None:
    """Find whether the origins, bounds and required calls of one call can all hold together.

    Args:
        traced: the call, to which what is found is added.
        values: the arguments that are present and in normal form.
        earlier: the run's redeemed calls.
        now: decision time in POSIX seconds.
    """
    prompt = traced.prompt
    said = {}  # asked only where it matters
    pending: dict[str, Value] = {}  # what only an earlier call can explain
    by_yes: dict[str, list[str]] = {}  # what the user said yes to
    for name, value in values.items():
        rule = value.rule
        if rule.any_call and rule.at_most is not None and not within_some_call(value, earlier):
            traced.above(value)
        if rule.free:
            continue
        if rule.prompted:
            said[name] = in_prompt(value, prompt)
            if said[name]:
                traced.origins[name] = PROMPT.kind
                continue
        if rule.joint:
            pending[name] = value
            continue
        sources = sources_of(value, prompt)
        alone = (
            rule.alone
            if sources is rule.sources
            else tuple([source for source in rule.alone if source == PROMPT])
        )
        found = next(
            filter(None, (_explained(value, (source,), sources, earlier) for source in alone)),
            [],
        )
        if not found and rule.any_call:
            found = _explained(value, sources, sources, earlier)
        if found:
            traced.origins[name] = ", ".join(dict.fromkeys(found[:MAX_RECORDED]))
            for yes in _BY_YES & {each.partition(" ")[0] for each in found}:
                by_yes.setdefault(yes, []).append(name)
        elif rule.calls and sources is rule.sources and not rule.any_call:
            pending[name] = value
        else:
            traced.unexplained(value)
    for yes, names in by_yes.items():
        if not any(
            _in_one_yes(call, values, names) for call in earlier.yeses(yes, traced.tool.name)
        ):
            for name in names:  # as a part of this call nobody said yes to it
                traced.origins.pop(name, None)
                traced.unexplained(values[name])
    chosen = None if traced.failures else joined(traced, values, pending, earlier, now)
    if chosen is None:
        explain(values, pending, earlier, now, traced)
    else:
        traced.pending = pending
        traced.chosen = chosen
    traced.named = is_named(values, said, traced.args, prompt, earlier)


def rests_on_yes(values: dict[str, Value], earlier: Earlier) -> bool:
    """Whether every argument, of at least one, is named by the user, or a value that they
    confirmed, or such a read returned.
    """
    return bool(values) and all(
        _is_backed(value, key, earlier) for value in values.values() for key in value.keys
    )


def _is_backed(value: Value, key: Key, earlier: Earlier) -> bool:
    sources = [source for source in value.rule.sources if source.kind == CONFIRMED.kind]
    standing = [
        source for source in value.rule.sources if stands_for_words(source, earlier.tools)
    ]
    return (
        in_prompt(value._replace(keys=(key,)), earlier.prompt)
        or came_from(
            value,
            key,
            (
                *sources,
                *[s for s in standing if earlier.tools[s.tool].facts[s.field].confirmed],
            ),
            earlier,
        )
        or any(
            element(value, key) in call.said(source, standing=True)
            for source in standing
            for call in earlier.of(source.tool)
        )
    )


def _in_one_yes(call: Answer, values: dict[str, Value], confirmed: list[str]) -> bool:
    """Whether one call had all that is confirmed, and all else here that a yes can name: an
    account is one person's, and no other's.
    """
    return all(
        was_sent(call, value, key) and (name not in confirmed or name in call.endorsed)
        for name, value in values.items()
        if any(source.kind == CONFIRMED.kind for source in value.rule.sources)
        for key in value.keys
    )


def _explained(value: Value, given: Sources, sources: Sources, earlier: Earlier) -> list[str]:
    """How the record names the origin of each element of a value, which is one of the `given`;
    empty where one has none.
    """
    names = [
        next(
            filter(
                None,
                (
                    kind_of(source).explains(source, value, key, sources, earlier)
                    for source in given
                ),
            ),
            "",
        )
        for key in value.keys
    ]
    return names if all(names) else []
