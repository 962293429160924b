"""Every operation on the state store, as a value (`agentgate.stores._op.Op`) that says how its
reply is read.

``op.parse(store.call(op, deadline))`` is the whole protocol, without a clock or I/O. What makes
an operation raises NameRefused if an argument is malformed; `Op.parse` raises StoreUnavailable
if the reply is not this operation's, holds an unknown word, or cannot be read.

Keys, under ``ag:{tenant}:``: a run is the hash ``run:{run}`` (`header`, `rev`, `closed`,
`turns`, `turn:1`...). What was minted in it for an audience is the hash
``mints:{audience}:{run}``, and what became of that ``burns:{audience}:{run}``, which that tool
server's store user may write, and nothing else but its tokens (``token:{audience}:{jti}``) and
``history:{audience}`` (docs/state.md). A hold is the hash ``hold:{id}`` (`state`, `body`,
`rev`, `call`); `agentgate.stores.ops.revocation` tells of revocations. The hash ``history``
counts what a tenant must never lose (see ``scripts/_common.lua``). The marks of a gate belong
to no tenant: one hash for each gate's URL, under a hash tag of its own, and so are the
checkpoints of audit logs (`agentgate.stores.ops.marks`).
"""

from __future__ import annotations

from agentgate.stores._op import (
    Acting,
    BurnReply,
    BurnRequest,
    CallRecord,
    HoldList,
    HoldRecord,
    HoldState,
    HoldTake,
    LimitTake,
    Memory,
    MintReply,
    MintRequest,
    OpenReply,
    Outcome,
    OutcomeReply,
    Recorded,
    RevokedKind,
    RunRecord,
    Subjects,
    workflow_subject,
)
from agentgate.stores.ops.account_key import ChangeReply, change_key
from agentgate.stores.ops.call import (
    MAX_LIMITS,
    Living,
    burn,
    live,
    mint,
    record_outcome,
    record_result,
    without_calls,
)
from agentgate.stores.ops.hold import (
    COOLING,
    answer_hold,
    count_holds,
    ended_holds,
    list_holds,
    nonce_hold,
    old_holds,
    open_hold,
    read_hold,
    read_limits,
    reveal_hold,
    take_nonce,
    waiting_call,
    waiting_holds,
)
from agentgate.stores.ops.hold import PAGE as WAITING
from agentgate.stores.ops.marks import MAX_MARKS, keep_checkpoint, raise_marks, read_checkpoints
from agentgate.stores.ops.memory import forget_memory, memory_key, recall_memory
from agentgate.stores.ops.notification import (
    PAGE,
    Notification,
    finish_notification,
    take_notification,
)
from agentgate.stores.ops.revocation import (
    REVOKED_KINDS,
    RevocationRecord,
    RevokeReply,
    lift,
    list_revocations,
    revocation_name,
    revocations_of_memory,
    revoke,
    revoked,
)
from agentgate.stores.ops.run import (
    Changed,
    Counted,
    add_turn,
    close_run,
    count_denial,
    lock_run,
    open_run,
    read_run,
    renew_run,
    succeed_run,
)
from agentgate.stores.ops.ttl_values import keep, kept
