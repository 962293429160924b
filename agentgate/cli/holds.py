"""``agentgate holds`` and ``remembered``: the calls that wait for people: list, show, answer with
one's own SSH key, watch, and what the answers say.

It works beside the gates, on their store. Whoever answers needs no key of a gate: the answer is
their signature, which the gate verifies again before it mints. Answers are on record in an
audit directory of this machine before they count. What is shown is what the store says, and
every question says so, unless the gates' keys are at hand (`--keys`): then only questions that
they asked are shown and answered.

What a user's own yeses let later runs of theirs use again is listed and forgotten here, too; a
person does the same for themselves on the gate's pages, or by their own token over HTTP.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from agentgate.approvals import load_approved, root_digest
from agentgate.approvals.root import Signers
from agentgate.approvals.sshsig import HOLD_NAMESPACE
from agentgate.audit import AuditLog, FileAudit, MemoryAudit, remembered
from agentgate.audit.segment import read_typed
from agentgate.cli.output import (
    WORKFLOWS,
    exit_with,
    fail,
    note,
    pairs,
    quiet,
    say,
    say_json,
    table,
)
from agentgate.cli.signing import confirm, own_signer
from agentgate.decision.batch_answer import Together
from agentgate.decision.hold import Hold, as_json, moment, rows_of
from agentgate.gate.call_context import Sources
from agentgate.gate.core import Allowances, Core
from agentgate.gate.holds import answer as answering
from agentgate.gate.holds.memory import forget_memory, recall_memory
from agentgate.gate.holds.proof import Answerers
from agentgate.identity.connection import caller
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.review.report.theatre import ENOUGH, rule_stats
from agentgate.shell.bound import Bound
from agentgate.shell.drive import drive
from agentgate.shell.step import Flow
from agentgate.stores import Store, ready_store
from agentgate.stores._op import History
from agentgate.token.signing import KeyRing
from agentgate.values.answers import Said, SSHAnswer
from agentgate.values.refusal import AnswerRefused
from agentgate.values.value_class import value_class

_NOBODY = "https://nobody.invalid"  # no gate
_SHORT = 12  # characters of an id in a list; as many, or more, name a hold


@value_class
class _Desk:
    """What one command works with: a store, a log, and the workflows in force and the gates'
    seals, where they are at hand.
    """

    store: Store
    log: AuditLog
    core: Core | None
    seals: Answerers | None

    @property
    def seal(self) -> str:
        """What is known of a question that is shown."""
        return (
            "verified: a gate with these keys asked this"
            if self.seals
            else "not verified: as the store has it (--keys)"
        )

    def run(self, flow: Flow) -> Any:
        """Carry out one flow."""
        return drive(flow, self.store, self.log)

    def listed(self, tenant: str, state: str | None) -> tuple[Hold, ...]:
        """The holds of a tenant; with the gates' keys, those that they asked about."""
        found: tuple[Hold, ...] = self.run(answering.many(tenant, None, state))
        return tuple(hold for hold in found if not self.seals or self.seals.asked(hold))

    def hold(self, tenant: str, name: str) -> Hold:
        """The hold of this id, or of the one id that begins with it."""
        if _SHORT <= len(name) < 64:
            fit = [hold.id for hold in self.listed(tenant, None) if hold.id.startswith(name)]
            if len(fit) != 1:
                fail(
                    f"got {name}, expected the beginning of exactly one hold's id of tenant "
                    f"{tenant} (so begin {len(fit)})"
                )
            name = fit[0]
        found: Hold = self.run(
            answering.shown(self.core, tenant, name)
            if self.core
            else answering.one(tenant, name)
        )
        if self.seals and not self.seals.asked(found):
            fail(
                f"{found.id}: no gate with these keys asked this: whoever can write the "
                "store may have. Do not answer it"
            )
        return found


@contextmanager
def open_desk(
    store: str,
    keys: Path | None,
    audit: Path | None = None,
    workflows: Path | None = None,
    root: str | None = None,
) -> Iterator[_Desk]:
    """A desk on a store, until the command is over."""
    quiet()
    if store == "memory://":
        fail("--store memory:// is this process's own: no gate's holds are in it")
    with ExitStack() as stack:
        opened = ready_store(store)
        stack.callback(opened.close)
        log = FileAudit(audit) if audit else MemoryAudit()
        stack.callback(log.close)
        seals = Answerers(KeyRing.existing(keys), _NOBODY, {}, lambda: None) if keys else None
        core = _core(workflows, root) if workflows else None
        if core:
            stack.callback(Bound(unproven=core.unproven).tell_rest, log)
        yield _Desk(opened, log, core, seals)


def _core(workflows: Path, root: str | None) -> Core:
    """The workflows in force and the root's people. It has no key of a gate, so it mints
    nothing.
    """
    loaded = load_approved(
        workflows, root or root_digest(workflows), derive=derive, now=time.time()
    )
    ring = KeyRing.ephemeral()
    signers = Signers(loaded.root, loaded.allowed)
    catalog = Catalog(loaded.workflows, loaded.broken, loaded.until)
    return Core(
        catalog=catalog,
        keys=ring,
        issuer=_NOBODY,
        derive=derive,
        clock=lambda: datetime.now(UTC),
        sources=Sources(None, caller),
        brokers={},
        history=History(lasting=False),
        answerers=Answerers(ring, _NOBODY, {}, lambda: signers),
        budgets=Allowances(1, 1, 1),
    )


def list_(
    store: str,
    tenant: str,
    state: str = "pending",
    keys: Path | None = None,
    as_json: bool = False,
) -> None:
    """List a tenant's holds, the earliest deadline first."""
    with open_desk(store, keys) as desk:
        found = desk.listed(tenant, None if state == "any" else state)
    if as_json:
        say_json([_json(hold, desk) for hold in found])
        return
    table(
        "bold:hold | state | call | for | asks | dim:until | dim:run",
        [_row(hold) for hold in found],
    )
    note(f"no hold of tenant {tenant} is {state}" if not found else desk.seal)


def _row(hold: Hold) -> tuple[str, ...]:
    return (
        hold.id[:_SHORT],
        hold.state,
        hold.tool,
        hold.question.requester,
        hold.question.whom,
        moment(hold.expires_at),
        hold.run[:_SHORT],
    )


def _json(hold: Hold, desk: _Desk) -> dict[str, Any]:
    return {
        "hold": hold.id,
        "state": hold.state,
        "run": hold.run,
        "released_by": [a.id for a in hold.approvers],
        "verified": desk.seals is not None,
        "question": as_json(hold.question),
    }


def show(
    id: str,  # noqa: A002 - the word of the vocabulary
    *,
    store: str,
    tenant: str,
    workflows: Path | None = None,
    root: str | None = None,
    keys: Path | None = None,
    as_json: bool = False,
) -> None:
    """Show one held call as whoever must judge it sees it."""
    with open_desk(store, keys, None, workflows, root) as desk:
        hold = desk.hold(tenant, id)
    if as_json:
        say_json(_json(hold, desk))
    else:
        _tell(hold, desk)


def _tell(hold: Hold, desk: _Desk, revealed: dict[str, str] | None = None) -> None:
    said = f", a yes of {', '.join(a.id for a in hold.approvers)}" if hold.approvers else ""
    lines = [("state", f"{hold.state}{said}"), *rows_of(hold.question), ("seal", desk.seal)]
    lines += [("revealed", f"{name}: {value}") for name, value in (revealed or {}).items()]
    pairs((label, line, "bold" if label in {"call", "until"} else "") for label, line in lines)


def _answering(said: Said, meaning: str) -> Callable[..., None]:
    """The command by which somebody says yes, or no."""

    def answer(
        ids: list[str],
        *,
        store: str,
        tenant: str,
        audit: Path,
        workflows: Path = WORKFLOWS,
        root: str | None = None,
        key: Path | None = None,
        keys: Path | None = None,
        reveal: bool = False,
        accept: str | None = None,
    ) -> None:
        with open_desk(store, keys, audit, workflows, root) as desk:
            signer = own_signer(key)
            asked = Together.of([desk.hold(tenant, name) for name in ids])
            core = desk.core
            holds = asked.holds
            assert core  # noqa: S101 - as opened

            def signed(what: Said, hold: Hold) -> Any:
                nonce = desk.run(answering.nonce(tenant, (hold.id,)))
                given = SSHAnswer(
                    nonce, signer.sign(hold.statement(what, nonce), HOLD_NAMESPACE)
                )
                return desk.run(answering.answer(core, tenant, hold.id, given, what))

            for number, hold in enumerate(holds, 1):
                if len(holds) > 1:
                    _check_open(hold, said)
                    say(f"--- {number} of {len(holds)}")
                _tell(hold, desk, signed("reveal", hold) if reveal else None)
            if len(holds) == 1:
                confirm(f"{said} {holds[0].id[:_SHORT]}", accept)
                answered: dict[str, Hold | AnswerRefused] = {
                    holds[0].id: signed(said, holds[0])
                }
            else:
                confirm(f"{said} {len(holds)} holds {asked.root(said).hex()[:_SHORT]}", accept)
                every = [hold.id for hold in holds]
                nonce = desk.run(answering.nonce(tenant, every))
                given = SSHAnswer(
                    nonce, signer.sign(asked.statement(said, nonce), HOLD_NAMESPACE)
                )
                answered = desk.run(
                    answering.several(core, tenant, dict.fromkeys(every, said), given)
                )
        for name, each in answered.items():
            if isinstance(each, AnswerRefused):
                note(f"not answered: {name}: {each}")
            else:
                say(
                    f"{each.state}{' (a rule wants more approvers)' if each.state == 'pending' else ''}: "
                    f"{name}"
                )
        if any(isinstance(each, AnswerRefused) for each in answered.values()):
            raise typer.Exit(1)

    answer.__doc__ = meaning
    return answer


release = _answering(
    "release", "Say yes to held calls, signed with your SSH key: each may run once."
)
refuse = _answering(
    "refuse",
    "Say no to held calls, signed with your SSH key; also to released ones that did not run yet.",
)


def _check_open(hold: Hold, said: Said) -> None:
    """Nobody is shown several calls to be told, after they signed, that one of them was over
    before.
    """
    if hold.state != "pending" and not (hold.state == "released" and said == "refuse"):
        fail(f"{hold.id[:_SHORT]}: {hold.state}; answer the others without it")


def watch(
    store: str,
    tenant: str,
    keys: Path | None = None,
    every: float = 2.0,
    seconds: float = 0.0,
) -> None:
    """Print every new hold of a tenant, and every change of its state, as it happens."""
    known: dict[str, str] = {}
    end = time.monotonic() + seconds if seconds else float("inf")
    with open_desk(store, keys) as desk, suppress(KeyboardInterrupt):
        while True:
            for hold in desk.listed(tenant, None):
                if known.get(hold.id) != hold.state and (
                    hold.id in known or hold.state == "pending"
                ):
                    say(f"{datetime.now(UTC):%H:%M:%S}  {'  '.join(_row(hold))}")
                known[hold.id] = hold.state
            if time.monotonic() >= end:
                break
            time.sleep(min(every, max(0.0, end - time.monotonic())))


def stats(
    audit: list[Path],
    as_json: bool = False,
) -> None:
    """Say of each rule how often and how fast its holds are released, and which of them nobody
    really judges.
    """
    quiet()
    found = rule_stats(read_typed(audit, ("hold_answer", "decision")))
    if as_json:
        names = "workflow rule answered released seconds instead".split()
        say_json(
            [
                {name: getattr(each, name) for name in names} | {"rate": each.rate}
                for each in found
            ]
        )
    else:
        took = ["?" if each.seconds is None else f"{each.seconds:.1f} s" for each in found]
        body = [
            (
                each.workflow,
                each.rule,
                each.answered,
                f"{each.rate:.0%}",
                seconds,
                "theatre" if each.instead else "",
            )
            for each, seconds in zip(found, took, strict=True)
        ]
        table("workflow | bold:rule | answers | released | median | ", body)
        note(
            *(
                f"{e.workflow}, rule {e.rule} is theatre: nobody looks. Instead: {e.instead}"
                for e in found
                if e.instead
            )
        )
        if not found:
            note(f"no answer is on record (a rule is judged from {ENOUGH} answers on)")
    exit_with(look=any(each.instead for each in found))


def list_remembered(
    store: str, tenant: str, user: str, keys: Path | None = None, as_json: bool = False
) -> None:
    """List what is remembered of a user, the oldest first."""
    with open_desk(store, keys) as desk:
        ring = desk.seals.keys if desk.seals else None
        found = [
            each.told | {"issuer": each.who[1]}
            for each in desk.run(recall_memory(History(), ring, tenant, user))
        ]
    if as_json:
        say_json(found)
        return
    body = [
        (
            each["id"][:_SHORT],
            each["tool"],
            "  ".join(f"{name} {value}" for name, value in each["args"].items()),
            moment(max(each["until"].values())),
            moment(each["since"]),
            each["workflow"],
            each["issuer"] or "(the host)",
        )
        for each in found
    ]
    table("bold:id | tool | values | until | since | workflow | issuer", body)
    if not found:
        note(f"nothing is remembered of {user} in tenant {tenant}")


def forget_(
    store: str,
    tenant: str,
    user: str,
    audit: Path,
    ids: list[str] | None = None,
) -> None:
    """Forget some of what is remembered of a user, or all. What they were asked before is not
    remembered, either.
    """
    with open_desk(store, None, audit) as desk:
        known = [each.id for each in desk.run(recall_memory(History(), None, tenant, user))]
        places = [
            place
            for place in known
            if place.startswith(tuple(each for each in ids or () if len(each) >= _SHORT))
        ]
        if len(places) < len(ids or ()):
            fail(
                f"expected ids of what is remembered of {user} (agentgate remembered list), "
                f"each with {_SHORT} characters or more"
            )
        steps = forget_memory(
            History(remembered(audit)), tenant, user, places, getpass.getuser()
        )
        say(f"forgotten: {desk.run(steps)} of {len(known)}")
