"""The schema of audit records: which types there are, and the fields of each.
docs/audit-schema.md is made of it, and a test compares.

A field that every record of a type has stands as it is, one that it may have with a question
mark. New fields raise `VERSION`, which records have as ``v``; those of earlier versions have
none.
"""

from __future__ import annotations

from collections.abc import Iterator

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
type | what the record tells
v | the version of this schema
time | when it was written, POSIX seconds, by the clock of its writer
tenant | whose run or call it is
run | the run
workflow | id, version and digest of the workflow version that the run was opened with
user | who the agent works for; null: nobody
agent | the workload that calls
identity | how user and agent are known (`proven`, `in_process`); `via`, the brokers between them; `posture`, what attestation says
tool | the tool; of a name that the model made up, `(not shown)`
tool_call_id | the id that the runtime gave the call
txn | the call, from its decision to its outcome; the same across a step-up and a repetition
decision | `allow`, `deny`, `step_up` or `confirm`; `observed`: what only observes would refuse or hold it, and nobody does
arguments_digest | SHA-256 of the canonical arguments
args | declared arguments as they were sent; free text where its rule says `record: full` and no auditor's key is set
hidden | of arguments that no record shows: HMAC-SHA256 (128 bits) under a key of the tenant, from the key ring
lengths | of those that are text: how many characters
sealed | of all of those, without what is too long: the values, sealed to the auditor's key (HPKE), in base64
origins | where each argument came from: `prompt`, `model`, `unknown`, or a fact and its call
met | keys of the conditions that held, as `agentgate explain` names them
reasons | conditions that did not: reason, field, got, expected, rule (file and line)
turns | how many turns of the user were known
calls | how many redeemed calls of the run were known
doubts | how many words in doubt were known
succession | which run of its conversation it is, after so many others
conversation | the host's id of the conversation
at | the decision time
environment | where the gate or the agent runs
data_class | of the data that the call asks for
network | from where it came
definition | digest of the tool's definition, as the integration read it
in_force | the other version that the call was decided under
hold | the hold: the digest of the call
rules | ids of the step-up rules that ask
call_digest | SHA-256 of the call's binding terms and arguments
intent | which intent allowed it
jti | the token's id, or that of a call that needs none; never the token
lineage | the mint in the history of the store
releases | the hold that was spent
approver | how those who said yes are known
approvals | who said yes: id, how they are known, channel, and the proof, which anybody can check again
limits | what it took of limits
spent | it spent the release
performed | no token leaves the process: it is redeemed next, and on record only where that must not be forgotten (no free read)
history | the count of the tenant's history in the store
redemptions | the count of the tool server's
audience | the tool server
broker | where the credential came from
role | of the credential
expires_at | when it ends, POSIX seconds
outcome | `done`, `failed`, `not_run` or `unknown`
why | what happened
missing | what of the call is on no other record
withheld | its result held the upstream credential, and was not passed on
by | who said so
by_identity | how they are known
channel | how they said it
proof | what shows it again: the signed answer, or the gate's seal on one that came unsigned
answer | `release`, `refuse` or `reveal`
state | of the hold, then
seconds | between question and answer
together | the holds that were answered together, and the root over them
code | why it does not count
holds | the holds that it was for
host | the client that opened the run
client | the client that asked
name | of what is revoked: kind and name
reason | why, in a person's words
observed | the version that only observes
would | what it decides
unknown | why what it decides says little: `facts`, which only a run under it would have recorded, or the error that it raised
before | up to when
life | for how many seconds; 0: for good
kind | what is revoked
workflows | the workflows
account | the service account
issuer | who proves it
key | thumbprint of the key
root | a root: of approvals, or of a tree
since | from when it counts
counts | rows of kind, field or code, client, address and number
first | the first four, as they were
refused | how many were refused; of workflows, which and why
marks | serials of what reviewers signed
more | how many more were refused
revoked | versions that reviewers revoked
replayed | how many events were written back
seen | up to where each history was seen; of `pruned`: one, by its name
at_once | how many may be under way
records | their numbers in this segment
head | of the segment: bytes, digest, seq, time, writer
origin | the log
size | leaves of its tree
removed | the segments, by their writers
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


def record_fields() -> dict[str, str]:
    """What each field means."""
    return dict(line.split(" | ", 1) for line in _FIELDS.strip().splitlines())


def schema_page() -> Iterator[str]:
    """The page of the docs."""
    yield from (
        "# Audit records",
        "",
        f"Version {VERSION}, made from `agentgate/audit/schema.py`. Each line of a segment is",
    )
    yield (
        '`{"prev", "record", "seq", "writer"}`; this is `record`. A field with a question '
        "mark may be absent."
    )
    yield from ("", "| type | tells | fields |", "|---|---|---|")
    for name, (told, always, maybe) in record_types().items():
        listed = [f"`{each}`" for each in sorted(always - {"type", "v", "time"})] + [
            f"`{each}`?" for each in sorted(maybe)
        ]
        yield f"| `{name}` | {told} | {', '.join(listed)} |"
    yield from (
        "",
        "| field | meaning |",
        "|---|---|",
        *(f"| `{name}` | {told} |" for name, told in record_fields().items()),
    )
