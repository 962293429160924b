"""A run's record in the store, and what `decide` sees of it.

Rules: the header is written once; a record that cannot be read is `RunRefused`, never an empty run. Intents and entities are
derived from the turns and cached by (workflow digest, turns, day): the same words always read the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import lru_cache

from agentgate.identity.proven import agent_json, restore_agent, restore_user, user_json
from agentgate.intents.deriver import Deriver, ask
from agentgate.language.prompt import Prompt
from agentgate.stores.ops import RunRecord
from agentgate.values.canonical import canonical, parse
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Derived, EarlierCall, Header, RunState
from agentgate.workflow.model import Doubt, Intent, Workflow


def header_bytes(header: Header) -> bytes:
    """The stored form of a header."""
    return canonical(
        {
            "v": 1,
            "id": header.id,
            "tenant": header.tenant,
            "user": user_json(header.user),
            "agent": agent_json(header.agent),
            "workflow": header.workflow,
            "version": header.version,
            "digest": header.digest,
            "opened_at": header.opened_at,
            "expires_at": header.expires_at,
            "day": header.day,
        }
    )


@lru_cache(maxsize=1024)
def _header(data: bytes) -> Header:
    """The header in these bytes, one object for as long as they are read again and again: it is frozen."""
    kept = parse(data)
    if kept["v"] != 1:
        raise ValueError(f"header version {kept['v']!r}")
    return Header(
        id=kept["id"],
        tenant=kept["tenant"],
        user=restore_user(kept["user"]),
        agent=restore_agent(kept["agent"]),
        workflow=kept["workflow"],
        version=kept["version"],
        digest=kept["digest"],
        opened_at=float(kept["opened_at"]),
        expires_at=float(kept["expires_at"]),
        day=kept["day"],
    )


@lru_cache(maxsize=1024)
def read_prompt(turns: tuple[str, ...], today: date) -> Prompt:
    """The entities of a run's turns (cached)."""
    return Prompt.of(turns, today)


@lru_cache(maxsize=1024)
def _derived(
    derive: Deriver, _digest: str, intents: tuple[Intent, ...], in_doubt: tuple[Doubt, ...], turns: tuple[str, ...]
) -> Mapping[str, Derived]:
    answers = ask(derive, intents, turns)
    for doubt in in_doubt:
        if answers[doubt.intent].presence == "present":
            answers[doubt.intent] = Derived("unclear", f"this deriver reads an example of it otherwise: {doubt}")
    return answers


def derived(derive: Deriver, workflow: Workflow, turns: tuple[str, ...]) -> Mapping[str, Derived]:
    """What the turns say of every intent of the workflow: what a deriver leaves out is absent, a failing one is unclear.

    An intent in doubt (`Workflow.in_doubt`) is unclear at most.
    """
    return _derived(derive, workflow.digest, tuple(workflow.intents.values()), workflow.in_doubt, turns)


def missing(tenant: str, run: str, why: str = "no such run") -> RunRefused:
    """The refusal for a run that is not there or cannot be read."""
    return RunRefused((Failure(Reason.RUN_MISSING, "run", f"{tenant}/{run}: {why}", "an open run of this tenant"),))


def run_state(
    tenant: str, run: str, *, record: RunRecord | None, workflow: Workflow, derive: Deriver, known: RunState | None = None
) -> RunState:
    """The run as `decide` sees it: only redeemed calls, in the order of redemption.

    Args:
        tenant: tenant of the run.
        run: id of the run.
        record: what the store has.
        workflow: the workflow in force.
        derive: the intent deriver.
        known: the state whose revision the store was told, where the record holds only what changed since.

    Raises:
        RunRefused: missing or unreadable.
    """
    if record is None:
        raise missing(tenant, run)
    if record.since and known is None:
        raise missing(tenant, run, "only a part was read")
    try:
        header = _header(record.header)
        day = date.fromisoformat(header.day)
        calls = {call.digest: call for call in known.calls} if record.since and known is not None else {}
        for call in record.calls:
            if call.status == "redeemed":
                head = parse(call.head)
                rows = tuple(parse(call.facts)) if call.facts is not None else ()
                at, named = call.redeemed_at or 0.0, head["named"] is True
                calls[call.digest] = EarlierCall(head["tool_call_id"], head["tool"], head["args"], rows, named, at, call.digest)
    except (KeyError, TypeError, ValueError) as error:
        raise missing(tenant, run, f"unreadable ({type(error).__name__})") from error
    if header.tenant != tenant or header.id != run:
        raise missing(tenant, run, "the record is of another run")
    prompt = read_prompt(record.turns, day)
    ordered = tuple(sorted(calls.values(), key=_redemption))
    return RunState(header, record.turns, derived(derive, workflow, record.turns), prompt, ordered, record.revision, record.closed)


def _redemption(call: EarlierCall) -> tuple[float, str]:
    return call.redeemed_at, call.digest
