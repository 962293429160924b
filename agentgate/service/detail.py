"""The one call that a token request is about: `authorization_details` (RFC 9396) of type
`DETAIL_TYPE`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentgate.errors import CredentialRefused
from agentgate.identity.keys import strict_object
from agentgate.service.answer import malformed
from agentgate.service.reading import checked_members, text
from agentgate.token.mint import DETAIL_TYPE
from agentgate.values.value_class import value_class

_ERROR = "invalid_authorization_details"
_REQUIRED = frozenset({"type", "identifier", "workflow", "arguments"})
_OPTIONAL = frozenset({"locations", "actions", "tool_call_id", "run", "tenant"})


@value_class
class AskedCall:
    """What is asked for. `run`, `tenant` and `tool_call_id` may be left out (None)."""

    tool: str
    arguments: Mapping[str, Any]
    workflow: str
    locations: tuple[str, ...]
    tool_call_id: str | None
    run: str | None
    tenant: str | None


def read_detail(data: str) -> AskedCall:
    """The call of a request's `authorization_details`: a list of exactly one.

    Raises:
        RequestRefused: `invalid_authorization_details`, naming the field.
    """
    try:
        read = strict_object(b'{"details":' + data.encode() + b"}", "authorization_details")
        listed = read["details"] if len(read) == 1 else None
    except (CredentialRefused, UnicodeEncodeError):
        listed = None
    if type(listed) is not list or len(listed) != 1:
        raise malformed("authorization_details", "something else", "a list of one call", _ERROR)
    detail = checked_members(listed[0], "authorization_details", _REQUIRED, _OPTIONAL, _ERROR)
    if detail["type"] != DETAIL_TYPE:
        raise malformed("authorization_details.type", "another", DETAIL_TYPE, _ERROR)
    if detail.get("actions", ["invoke"]) != ["invoke"]:
        raise malformed(
            "authorization_details.actions", "another", json.dumps(["invoke"]), _ERROR
        )
    workflow = checked_members(
        detail["workflow"],
        "authorization_details.workflow",
        frozenset({"id"}),
        frozenset(),
        _ERROR,
    )
    if type(detail["arguments"]) is not dict:
        raise malformed(
            "authorization_details.arguments",
            type(detail["arguments"]).__name__,
            "an object",
            _ERROR,
        )
    locations = detail.get("locations", [])
    if type(locations) is not list or len(locations) > 1:
        raise malformed("authorization_details.locations", "several", "one tool server", _ERROR)
    named = {
        name: text(detail[name], f"authorization_details.{name}", _ERROR)
        for name in ("tool_call_id", "run", "tenant")
        if name in detail
    }
    return AskedCall(
        text(detail["identifier"], "authorization_details.identifier", _ERROR),
        detail["arguments"],
        text(workflow["id"], "authorization_details.workflow.id", _ERROR),
        tuple(text(each, "authorization_details.locations", _ERROR) for each in locations),
        named.get("tool_call_id"),
        named.get("run"),
        named.get("tenant"),
    )
