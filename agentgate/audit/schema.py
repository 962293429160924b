"""The schema of audit records: which types there are, and the fields of each.
docs/audit-schema.md is made of it, and a test compares.

A field that every record of a type has stands as it is, one that it may have with a question
mark. New fields raise `VERSION`, which records have as ``v``; those of earlier versions have
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VERSION = 3

_OF_CALL = "run workflow user agent identity? tool? tool_call_id txn?"
_TYPES = f"""
decision | a gate decided on a call; of those with one `jti` the last counts | {_OF_CALL} decision arguments_digest reasons
  turns? calls? doubts? succession? origins? at? args? hidden? lengths? sealed? met? environment? data_class? network? definition? in_force?
  hold? rules? call_digest? intent? jti? lineage? releases? approver? approvals? limits? spent? history? redemptions? audience? would?
  performed?
observation | the version that only observes decided on a call that was answered | {_OF_CALL} decision observed would? reasons? unknown?
redemption | a call was redeemed: its tool runs now | {_OF_CALL} jti call_digest history? redemptions? audience? spent?
credential | an upstream credential was fetched for a redeemed call | {_OF_CALL} jti broker role expires_at
outcome | how a call ended | {_OF_CALL} jti? outcome why? missing? withheld? by? reason? call_digest? history? redemptions? audience?
hold_answer | a person answered a hold | {_OF_CALL} hold by by_identity channel proof answer state rules seconds together?
hold_answer_refused | an answer that does not count | run? hold by answer? code reasons txn? holds?
hold_revealed | a person was shown the sensitive values of a hold | {_OF_CALL} hold by by_identity channel rules together?
run_opened | a run was opened | run workflow user agent identity expires_at host? client? conversation? succession?
run_refused | a run was not opened, or a credential does not fit it | run? workflow? user agent identity? reasons host? client?
run_renewed | a run goes on with fresh credentials | run workflow user agent identity expires_at
turn_added | the user spoke again | run workflow user agent identity
run_closed | a run takes no more calls | run workflow user agent identity reasons?
run_withdrawn | the user took back what they asked for | run workflow user agent identity
revocation | somebody revokes | name by reason before? life? kind? workflows?
revocation_applied | it counts, in the store | name by reason before life history?
lifting | somebody lifts a revocation | name by reason
forgotten | what was remembered of a user is no more | user by count history?
key_change | a service account is to have another key | account issuer? key by reason?
key_changed | it has | account issuer? key by? reason? history?
history_reconciled | what a store had lost was written back | by replayed seen missing? reason?
workflows_loaded | which workflow versions are in force now | root marks workflows refused more revoked
unproven | refusals of callers whom nobody proved, in sum | since refused counts first
overloaded | how much was refused for the load | since refused at_once
discarded | records that became durable too late: nothing was issued for them | records
segment_lost | a segment went away or was changed under its writer | why head
log_lost | the seals of a log went away or back: another log begins | why origin size root
pruned | segments were removed after their time; and, a record for each history, up to where it was seen in them | before by removed seen?
"""

_FIELDS = """
type | text | what the record tells
v | count | the version of this schema
time | count or number | when it was written, POSIX seconds, by the clock of its writer
tenant | text | whose run or call it is
run | text | the run
workflow | object | id, version and digest of the workflow version that the run was opened with
user | text or null | who the agent works for; null: nobody
agent | text | the workload that calls
identity | object | how user and agent are known (`proven`, `in_process`); `via`, the brokers between them; `posture`, what attestation says
tool | text | the tool; of a name that the model made up, `(not shown)`
tool_call_id | text | the id that the runtime gave the call
txn | text | the call, from its decision to its outcome; the same across a step-up and a repetition
decision | text | `allow`, `deny`, `step_up` or `confirm`; `observed`: what only observes would refuse or hold it, and nobody does
arguments_digest | text | SHA-256 of the canonical arguments
args | object | declared arguments as they were sent; free text where its rule says `record: full` and no auditor's key is set
hidden | object | of arguments that no record shows: HMAC-SHA256 (128 bits) under a key of the tenant, from the key ring
lengths | object | of those that are text: how many characters
sealed | text | of all of those, without what is too long: the values, sealed to the auditor's key (HPKE), in base64
origins | object | where each argument came from: `prompt`, `model`, `unknown`, or a fact and its call
met | list or objects | keys of the conditions that held, as `agentgate explain` names them
reasons | objects | conditions that did not: reason, field, got, expected, rule (file and line)
turns | count | how many turns of the user were known
calls | count | how many redeemed calls of the run were known
doubts | count | how many words in doubt were known
succession | count | which run of its conversation it is, after so many others
conversation | text | the host's id of the conversation, or that of a thread
at | text | the decision time
environment | text | where the gate or the agent runs
data_class | text | of the data that the call asks for
network | text | from where it came
definition | text | digest of the tool's definition, as the integration read it
in_force | object | the other version that the call was decided under
hold | text | the hold: the digest of the call
rules | list or objects | ids of the step-up rules that ask
call_digest | text | SHA-256 of the call's binding terms and arguments
intent | text | which intent allowed it
jti | text | the token's id, or that of a call that needs none; never the token
lineage | text | the mint in the history of the store
releases | list or objects | the hold that was spent
approver | text | how those who said yes are known
approvals | objects | who said yes: id, how they are known, channel, and the proof, which anybody can check again
limits | objects | what it took of limits
spent | flag | it spent the release
performed | flag | no token leaves the process: it is redeemed next, and on record only where that must not be forgotten (no free read)
history | text | the count of the tenant's history in the store
redemptions | text | the count of the tool server's
audience | text | the tool server
broker | text | where the credential came from
role | text | of the credential
expires_at | count or number or null | when it ends, POSIX seconds
outcome | text | `done`, `failed`, `not_run` or `unknown`
why | text | what happened
missing | list or objects or text | what of the call is on no other record
withheld | flag | its result held the upstream credential, and was not passed on
by | text or object or null | who said so
by_identity | text or null | how they are known
channel | text | how they said it
proof | object or null | what shows it again: the signed answer, or the gate's seal on one that came unsigned
answer | text | `release`, `refuse` or `reveal`
state | text | of the hold, then
seconds | count or number or null | between question and answer
together | object | the holds that were answered together, and the root over them
code | text | why it does not count
holds | list or objects | the holds that it was for
host | text | the client that opened the run
client | text | the client that asked
name | text | of what is revoked: kind and name
reason | text or null | why, in a person's words
observed | object | the version that only observes
would | text | what it decides
unknown | text | why what it decides says little: `facts`, which only a run under it would have recorded, or the error that it raised
before | count or number or null | up to when
life | count | for how many seconds; 0: for good
kind | text or count | what is revoked
workflows | list or objects or count | the workflows
account | text | the service account
issuer | text | who proves it
key | text | thumbprint of the key
root | text or null | a root: of approvals, or of a tree
since | count or number or null | from when it counts
count | count | how much it was
counts | list or objects | rows of kind, field or code, client, address and number
first | list or objects | the first four, as they were
refused | list or objects or count | how many were refused; of workflows, which and why
marks | object | serials of what reviewers signed
more | count | how many more were refused
revoked | list or objects or count | versions that reviewers revoked
replayed | count or object | how many events were written back
seen | object or list or objects | up to where each history was seen; of `pruned`: one, by its name
at_once | count | how many may be under way
records | list or objects | their numbers in this segment
head | object | of the segment: bytes, digest, seq, time, writer
origin | text | the log
size | count | leaves of its tree
removed | list or objects | the segments, by their writers
"""


def record_types() -> dict[str, tuple[str, frozenset[str], frozenset[str]]]:
    """Of each type: what it tells, the fields it always has, and those that it may have."""
    found = {}
    for line in _TYPES.replace("\n  ", " ").strip().splitlines():
        name, told, fields = line.split(" | ")
        each = [*fields.split(), "type", "v", "time", "tenant?"]
        found[name] = (
            told,
            frozenset(f for f in each if f[-1] != "?"),
            frozenset(f[:-1] for f in each if f[-1] == "?"),
        )
    return found


def record_fields() -> dict[str, tuple[str, str]]:
    """Of each field: what kind of value it has, and what it means."""
    rows = [line.split(" | ", 2) for line in _FIELDS.strip().splitlines()]
    return {name: (kind, told) for name, kind, told in rows}


_KIND_OF = {name: kind for name, (kind, _) in record_fields().items()}
_KINDS = {
    str: "text",
    int: "count",
    float: "number",
    bool: "flag",
    dict: "object",
    type(None): "null",
}


def find_wrong(record: Mapping[str, Any]) -> str:
    """The first field of a record that has another kind of value; empty: there is none."""
    known = (name for name in record if name in _KIND_OF)
    return next(
        (name for name in known if _kind_of(record[name]) not in _KIND_OF[name].split(" or ")),
        "",
    )


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        return "objects" if all(isinstance(each, dict) for each in value) else "list"
    return _KINDS[type(value)]


_PAGE = """\
# Audit records

Version {version}, made from `agentgate/audit/schema.py`. Each line of a segment is
`{{"prev", "record", "seq", "writer"}}`; this is `record`. A field with a question mark may be absent.

| type | tells | fields |
|---|---|---|
{types}

A list may hold anything, objects are a list of them, a history is `EPOCH COUNT`, a number is also one with a fraction.

| field | kind | meaning |
|---|---|---|
{fields}"""


def schema_page() -> Iterator[str]:
    """The page of the docs."""
    types = []
    for name, (told, always, maybe) in record_types().items():
        listed = [f"`{each}`" for each in sorted(always - {"type", "v", "time"})] + [
            f"`{each}`?" for each in sorted(maybe)
        ]
        types.append(f"| `{name}` | {told} | {', '.join(listed)} |")
    fields = (
        f"| `{name}` | {kind} | {told} |" for name, (kind, told) in record_fields().items()
    )
    yield from _PAGE.format(
        version=VERSION, types="\n".join(types), fields="\n".join(fields)
    ).splitlines()
