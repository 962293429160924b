"""What became of a redeemed call, told later and by somebody else than who redeemed it here:
the tool server, over HTTP.

Rules: what is needed for that is kept beside the call's record, never the token. A report
counts once, for the redemption it is about (its `jti`), and of a result only the declared facts
are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.errors import CanonicalError, StoreUnavailable
from agentgate.redemption.facts import MAX_TOTAL, check_rows
from agentgate.redemption.records import Reportable, record_of
from agentgate.redemption.upstream import Redemption
from agentgate.shell.step import Flow
from agentgate.stores import ops
from agentgate.token.mint import WorkflowRef
from agentgate.values.canonical import canonical, parse
from agentgate.values.value_class import names_of

LIFE = 24 * 3600  # seconds in which a call can be reported on


def keep_for_report(done: Redemption) -> Flow:
    """Keep what a report will need.

    Raises (through the driver):
        StoreUnavailable.
    """
    names = [name for name in names_of(Reportable) if name not in {"facts", "workflow"}]
    claims = done.claims
    body = {
        "v": 1,
        **{name: getattr(claims, name) for name in names},
        "workflow": list(claims.workflow),
        "facts": done.head["facts"],
    }
    yield ops.keep(
        claims.tenant, "redeemed", claims.txn, canonical(body), ttl_ms=LIFE * 1000, replace=True
    )


def reportable(tenant: str, txn: str) -> Flow:
    """The redeemed call of this id, or None.

    Raises (through the driver):
        StoreUnavailable: also where what is kept cannot be read.
    """
    data = yield ops.kept(tenant, "redeemed", txn)
    if data is None:
        return None
    try:
        body = parse(data)
        if body.pop("v") != 1 or body["tenant"] != tenant:
            raise StoreUnavailable("redeemed call: of another version or tenant")
        return Reportable(
            **{"recorded_for": "", **body, "workflow": WorkflowRef(*body["workflow"])}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreUnavailable(f"redeemed call: unreadable ({type(error).__name__})") from error


def checked_facts(declared: Mapping[str, list[str]], rows: Any) -> bytes:
    """Facts that the tool's server read out of the result itself
    (`agentgate.redemption.facts.extract`), as the store keeps them.

    Raises:
        CanonicalError: rows of something else than the declared facts.
    """
    check_rows(declared, rows)
    if len(data := canonical(rows)) > MAX_TOTAL:
        raise CanonicalError("facts", f"{len(data)} bytes", f"at most {MAX_TOTAL} bytes")
    return data


def report_result(call: Reportable, facts: bytes) -> Flow:
    """Record facts. Returns what the store says of it (`agentgate.stores.ops.Recorded`)."""
    return (
        yield ops.record_result(
            call.tenant, call.run, call.call_digest, facts, audience=call.recorded_for
        )
    )


def report_outcome(call: Reportable, outcome: ops.Outcome, attempt: str = "") -> Flow:
    """Record how the call ended; with an `attempt` only if that redemption burned the token.
    Returns as `report_result`.
    """
    named = (call.tenant, call.run, call.call_digest, outcome, call.jti)
    answer = (
        yield ops.record_outcome(*named, audience=call.recorded_for, attempt=attempt)
    ).kind
    if answer == "ok":
        yield record_of(call, "outcome", outcome=outcome)
    return answer
