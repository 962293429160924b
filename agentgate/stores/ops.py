"""Every operation on the state store, as pure pairs: a builder makes an `Op`, a parser reads the reply.

``parse_x(op, store.call(op, deadline))`` is the whole protocol. Nothing here has a clock or I/O.

| builder | parser |
|---|---|
| `open_run` | `parse_open_run` |
| `add_turn`, `close_run` | `parse_run_change` |
| `read_run` | `parse_read_run` |
| `mint` | `parse_mint` |
| `burn` | `parse_burn` |
| `record_result`, `record_outcome` | `parse_record` |
| `open_hold`, `read_hold` | `parse_hold` |
| `answer_hold` | `parse_answer_hold` |
| `list_holds` | `parse_list_holds` |
| `revoke` | `parse_revoke` |
| `raise_marks` | `parse_raise_marks` |
"""

from agentgate.stores._approval_ops import MAX_MARKS, parse_raise_marks, raise_marks
from agentgate.stores._call_ops import (
    BurnReply,
    BurnRequest,
    HoldTake,
    LimitTake,
    MintReply,
    MintRequest,
    Outcome,
    Subjects,
    burn,
    mint,
    parse_burn,
    parse_mint,
    parse_record,
    record_outcome,
    record_result,
    workflow_subject,
)
from agentgate.stores._hold_ops import (
    HoldRecord,
    HoldState,
    RevokedKind,
    answer_hold,
    list_holds,
    open_hold,
    parse_answer_hold,
    parse_hold,
    parse_list_holds,
    parse_revoke,
    read_hold,
    revoke,
)
from agentgate.stores._op import Op
from agentgate.stores._run_ops import (
    CallRecord,
    RunRecord,
    add_turn,
    close_run,
    open_run,
    parse_open_run,
    parse_read_run,
    parse_run_change,
    read_run,
)

__all__ = [
    "MAX_MARKS",
    "BurnReply",
    "BurnRequest",
    "CallRecord",
    "HoldRecord",
    "HoldState",
    "HoldTake",
    "LimitTake",
    "MintReply",
    "MintRequest",
    "Op",
    "Outcome",
    "RevokedKind",
    "RunRecord",
    "Subjects",
    "add_turn",
    "answer_hold",
    "burn",
    "close_run",
    "list_holds",
    "mint",
    "open_hold",
    "open_run",
    "parse_answer_hold",
    "parse_burn",
    "parse_hold",
    "parse_list_holds",
    "parse_mint",
    "parse_open_run",
    "parse_raise_marks",
    "parse_read_run",
    "parse_record",
    "parse_revoke",
    "parse_run_change",
    "raise_marks",
    "read_hold",
    "read_run",
    "record_outcome",
    "record_result",
    "revoke",
    "workflow_subject",
]
