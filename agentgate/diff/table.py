"""Every field of every value of a workflow, and how a difference in it is answered. A field without a row is read by a person.

CALLS: answered exactly, by the calls it lets through. LIST: answered by its own order (a longer life is wider). READ: put under
"read yourself" when it differs. NONE: says where something stands or follows from other fields; no difference on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from agentgate.values.patterns import Glob, Pattern
from agentgate.workflow.operators import OPERATORS

CALLS, LIST, READ, NONE = "calls", "list", "read", "none"

TABLE: Mapping[str, Mapping[str, str]] = {
    "Workflow": {
        **dict.fromkeys(("id", "title", "owners"), READ),
        **dict.fromkeys(("expires", "tenants", "agent", "for_user", "via", "conditions", "tools"), CALLS),
        **dict.fromkeys(("version", "risk", "token", "observe"), LIST),
        "intents": READ,
        **dict.fromkeys(("digest", "file", "tenants_line", "expires_line", "in_doubt"), NONE),
    },
    "Doubt": dict.fromkeys(("intent", "key", "index", "got"), NONE),
    "AgentRule": {
        "line": NONE,
        **dict.fromkeys(
            (
                "in_process",
                "spiffe",
                "oidc_issuer",
                "claims",
                "image_signed_by",
                "attested_within",
                "cluster",
                "namespace",
                "node_pool",
                "same_key_as_last_token",
            ),
            CALLS,
        ),
    },
    "ClaimRule": {"line": NONE, "name": CALLS, "one_of": CALLS},
    "UserRule": {"line": NONE, "groups": CALLS, "same_tenant": CALLS},
    "ViaRule": {"line": NONE, "max_hops": CALLS, "brokers": CALLS},
    "Conditions": {"line": NONE, **dict.fromkeys(("environment", "hours", "data_class", "network"), CALLS)},
    "Hours": {"line": NONE, "zone": READ, **dict.fromkeys(("days", "start", "end"), CALLS)},
    "Intent": {
        **dict.fromkeys(("name", "line"), NONE),
        "unclear": CALLS,
        **dict.fromkeys(("asks_for", "words", "examples", "counter_examples"), READ),
        **dict.fromkeys(("delegated", "unheard"), LIST),
    },
    "Tool": {
        **dict.fromkeys(("name", "line", "referenced", "structures", "dependencies", "asking", "grounded"), NONE),
        **dict.fromkeys(("needs", "definition", "args", "sequence", "step_ups"), CALLS),
        **dict.fromkeys(("effect", "audience", "scope", "limits", "upstream", "facts"), LIST),
        "redeem": READ,
    },
    "Rule": {
        **dict.fromkeys(("name", "line", "operators", "references", "calls", "alone", "free", "prompted", "said_as"), NONE),
        **dict.fromkeys((operator.field for operator in OPERATORS), CALLS),
        **dict.fromkeys("at_most max_items role role_scopes sources unknown_origin entities any_call optional nullable".split(), CALLS),
        **dict.fromkeys(("needs", "origin"), CALLS),
        **dict.fromkeys(("type", "currency", "sensitive"), READ),
        **dict.fromkeys(("named_first", "page_size"), LIST),
    },
    "Source": {**dict.fromkeys(("kind", "tool", "field", "selector"), CALLS), "key": NONE},
    "Selector": {**dict.fromkeys(("tool", "nouns", "by"), CALLS), "forms": NONE},
    "Fact": {
        **dict.fromkeys(("name", "line"), NONE),
        **dict.fromkeys(("type", "path", "currency"), READ),
        **dict.fromkeys(("named", "pattern", "named_by", "where"), LIST),
    },
    "Sequence": {"line": NONE, **dict.fromkeys(("before", "require", "within"), CALLS)},
    "Limit": {"line": NONE, **dict.fromkeys(("tool", "argument", "maximum", "per", "every"), LIST)},
    "StepUpRule": {
        **dict.fromkeys(("id", "line", "tool"), NONE),
        **dict.fromkeys(("when", "group", "count"), CALLS),
        **dict.fromkeys(("exclude", "timeout", "show"), LIST),
    },
    "Upstream": {"line": NONE, "broker": LIST, "settings": LIST},
    "TokenRule": {"ttl": LIST, "agent_key": LIST},
}


def bare(value: Any) -> Any:
    """A value without places (lines, files, digests), so that two that say the same are equal."""
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        rows = TABLE.get(name, {})
        return name, *(
            (f.name, bare(getattr(value, f.name))) for f in fields(value) if rows.get(f.name) != NONE or f.name in {"name", "id"}
        )
    if isinstance(value, Pattern | Glob):
        return type(value).__name__, value.source
    if isinstance(value, Mapping):
        return tuple(sorted((str(k), bare(v)) for k, v in value.items()))
    if isinstance(value, tuple):
        return tuple(bare(v) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"  # to Python, True equals 1
    return value


def same(old: Any, new: Any) -> bool:
    """True when two values say the same."""
    if old is new or type(old) is str or old is None:
        return type(old) is type(new) and bool(old == new)
    return bool(bare(old) == bare(new))


def unlisted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field without a row anywhere in a value, by its path, as text that can be compared."""
    if is_dataclass(value) and not isinstance(value, type):
        rows = TABLE.get(type(value).__name__, {})
        for field in fields(value):
            inner, here = getattr(value, field.name), f"{path}.{field.name}".lstrip(".")
            if field.name in rows:
                yield from unlisted(inner, here)
            else:
                yield here, bare(inner)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unlisted(inner, f"{path}.{key}")
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from unlisted(inner, f"{path}.{getattr(inner, 'id', index)}")


def to_read(old: Any, new: Any, path: str) -> Iterator[str]:
    """Paths of the fields of two values of one kind that differ and have no exact answer."""
    rows = TABLE.get(type(old).__name__, {})
    for field in fields(old):
        if rows.get(field.name, READ) == READ and not same(getattr(old, field.name), getattr(new, field.name)):
            yield f"{path}.{field.name}".lstrip(".")
