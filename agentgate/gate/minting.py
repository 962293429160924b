"""A call that its rules let through, on its way to a token: one value over which a gate holds,
reserves, records and signs.

Rules: it is built once, when the call was decided on; nothing that the store answers is part of
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from agentgate.audit.entry import DraftedRecord
from agentgate.decision.answer import Eligible
from agentgate.decision.case import Case
from agentgate.decision.origins.tracing import rests_on_yes
from agentgate.decision.versions import Versions
from agentgate.gate.core import decided, seen
from agentgate.gate.denial import deny
from agentgate.gate.holds.memory import memory_of
from agentgate.gate.locking import FENCES
from agentgate.gate.state import attempt_of, prompt_of
from agentgate.gate.view import TokenTemplate, View, template_of
from agentgate.redemption.credential import Redemption
from agentgate.redemption.steps import build_redemption
from agentgate.shell.step import Flow, Record
from agentgate.stores import history_name, ops
from agentgate.token.claims import MAX_LEEWAY
from agentgate.token.mint import CallToken, MintClaims, binding, draft_token, txn
from agentgate.token.signing import RunKey, SigningKey
from agentgate.values.canonical import canonical, digest, parse
from agentgate.values.refusal import Failure
from agentgate.values.request import Call, name_of
from agentgate.workflow.model import Tool

# seconds a single-use key outlives its token beyond what a verifier's clock may differ
_SPARE = 5
_SHORT = 2048  # bytes of arguments that a call's record keeps only to explain it


class Release(NamedTuple):
    """The release that a mint spends; empty: nobody was asked.

    Attributes:
        approver: how those who gave it are known: proven or in_process.
        approvals: their yes as it goes on record, with what shows it again.
        endorsed: the arguments whose values it endorses.
        remembers: those that later runs may use, too, and for how many seconds.
        own: the user's own yes is in it.
    """

    take: ops.HoldTake | None = None
    approver: str = ""
    approvals: tuple[Mapping[str, object], ...] = ()
    endorsed: tuple[str, ...] = ()
    remembers: Mapping[str, int] = MappingProxyType({})
    own: bool = False

    @property
    def holds(self) -> tuple[str, ...]:
        """The holds that are spent."""
        return (self.take.hold_id,) if self.take else ()


class Sender(NamedTuple):
    """What a token is bound to: a key, by its thumbprint, a certificate, or neither. `run_key`:
    that key, where this process has it.
    """

    jkt: str | None = None
    x5t: str | None = None
    run_key: RunKey | None = None


class MintDraft(NamedTuple):
    """What is said of a call that is minted.

    Attributes:
        settled: what the script answered, or is likely to.
        body: its audit record without that.
        record: its audit record.
        sign: makes its token, of a call that is on record.
    """

    settled: ops.MintReply
    body: Mapping[str, Any]
    record: Record
    sign: Callable[[SigningKey], CallToken]


class Minting(NamedTuple):
    """See the module.

    Attributes:
        view: the run's handle.
        versions, case, answer: what was decided, under which versions.
        template: what the call has in common with the others of its run to its tool.
        digest: its call digest.
        act: the same for every attempt at it in its run, under whatever id of the model's;
            empty: it only reads.
        named: what names it in all its records.
        limits: what it takes of each limit.
        jti, iat, ttl: of the token.
        acts: the tool does not only read.
        audience: under which the store records the call; empty in a run from before servers'
            records had keys of their own.
        revision: what it was decided on; without the other calls where they do not matter.
        drafts: what is said of it where the script answers what is likely, made while that
            runs.
        redeemed: likewise the redeemed call, by lineage and head.
    """

    view: View
    versions: Versions
    case: Case
    answer: Eligible
    template: TokenTemplate
    digest: str
    act: str
    named: Mapping[str, object]
    limits: tuple[ops.LimitTake, ...]
    jti: str
    iat: int
    ttl: int
    acts: bool
    audience: str
    revision: str
    drafts: list[MintDraft]
    redeemed: dict[tuple[str, bytes], Redemption]

    @classmethod
    def of(
        cls,
        view: View,
        versions: Versions,
        case: Case,
        answer: Eligible,
        *,
        jti: str,
        named: Mapping[str, object],
        apart: bool,
    ) -> Minting:
        """Of a call that was decided on, `apart` from all others or not."""
        workflow = case.workflow
        state = case.run
        call = case.call
        tool = workflow.tools[call.tool]
        now = int(time.time())
        header = state.header
        template = template_of(view.templates, view.core.issuer, header, workflow, tool)
        acts = tool.effect != "read"
        act = (
            digest(canonical([header.tenant, header.id, tool.name, call.arguments_digest]))
            if acts
            else ""
        )
        return cls(
            view=view,
            versions=versions,
            case=case,
            answer=answer,
            template=template,
            digest=template.digest(call),
            act=act,
            named=named,
            limits=tuple(
                [
                    template.take(reservation, len(state.turns))
                    for reservation in answer.reservations
                ]
            ),
            jti=jti,
            iat=now,
            ttl=min(workflow.token.ttl, int(header.ends) - now),
            acts=acts,
            audience=template.shared.aud if state.owned else "",
            revision=state.revision if not apart else ops.without_calls(state.revision),
            drafts=[],
            redeemed={},
        )

    @property
    def known(self) -> Mapping[str, object]:
        """What was known of the run and the call, for their records."""
        return seen(self.view.core, self.versions, self.case, self.digest, **self.named)

    @property
    def sender(self) -> Sender:
        """Who will send its token: by a key that was proven at the door, which only the agent has,
        or by the run's own, which is derived only for a call that is minted.

        Raises:
            KeyRefused: there is no key of the run.
        """
        view, tool = self.view, self.template.tool
        key = self.template.header.agent.key
        if tool.redeem == "server" and (key or view.certificate):
            return Sender(jkt=key) if key else Sender(x5t=view.certificate)
        # it leaves the process, of a read, too
        agent_key = self.case.workflow.token.agent_key
        if agent_key and (tool.effect != "read" or tool.redeem == "server"):
            return Sender(jkt=view.key.jkt, run_key=view.key)
        return Sender()

    @property
    def repeats(self) -> bool:
        """The run has this call already."""
        return self.digest in {earlier.digest for earlier in self.case.run.calls}

    @property
    def stays(self) -> bool:
        """Its permit would never leave this process, so it needs no token: nothing signs what
        it verifies itself.
        """
        tool = self.template.tool
        return (
            tool.redeem == "wrapper"
            and tool.upstream is None
            and self.sender.jkt is None
            and not self.repeats
        )

    def deny(self, failure: Failure) -> Flow:
        """Refuse it after all."""
        return deny(
            self.view.core, self.template.header, self.case.call, (failure,), self.known
        )

    def attempts(self) -> Flow:
        """The redeemed attempts at this act, by number: which of them is done, a cached state
        cannot tell.
        """
        state = self.case.run
        if self.act not in state.tried:
            return ()
        record: ops.RunRecord | None = yield ops.read_run(state.header.tenant, state.header.id)
        calls = record.calls if record else ()
        known = [
            (*attempt_of(parse(call.head)), call) for call in calls if call.status == "redeemed"
        ]
        return tuple([(number, call) for act, number, call in known if act == self.act])

    def spent(self) -> Flow:
        """What is known of this act where an earlier run of the conversation attempted it;
        empty: it was not, or the user asks for it anew.

        They do where words of this run alone name every value of it that they ever named.
        """
        run = self.case.run
        header = run.header
        tried = (yield from self.attempts()) if header.succession else ()
        before = {
            call.outcome
            for _, call in tried
            if parse(call.head).get("succession", 0) != header.succession
        }
        if not (before := before - {"failed", "not_run"}):
            return ""
        values = [
            (each.rule.said_as, key, each.currency)
            for each in self.case.values.values()
            for key in each.keys
        ]
        own = prompt_of(self.view.core.readings, header, (), run.turns, run.doubts)
        named = [each for each in values if run.prompt.words(*each) is not None]
        if named and all(own.words(*each) is not None for each in named):
            return ""
        return "already_redeemed" if before == {"done"} else "outcome_unknown"

    def key(self) -> Flow:
        """The idempotency key: another one where the last attempts are known to be done or to
        have failed.

        A failure says nothing of an attempt before it whose outcome is unknown: that may still
        have happened under its key.
        """
        tried = yield from self.attempts()
        last = max([number for number, _ in tried], default=1)
        ended = {call.outcome for number, call in tried if number == last}
        over = "done" in ended or ("failed" in ended and ended <= {"failed", "not_run"})
        return f"{self.act}-{last + over}"

    def head(self, release: Release, key: str) -> bytes:
        """What the call's record in the store says of it.

        Raises:
            CanonicalError: it is larger than a call may be.
        """
        template = self.template
        call = self.case.call
        head = {
            "tool": template.tool.name,
            "tool_call_id": call.id,
            "args": _recorded_args(template.tool, call, release.endorsed),
            "named": self.answer.named,
            "facts": template.facts,
            "txn": txn(self.digest),
            "read": not self.acts,
            **self._confirmed(release),
        }
        more = {
            "succession": template.header.succession,
            "key": key,
            "upstream": template.upstream,
        }
        return canonical(head | {name: value for name, value in more.items() if value})

    def _confirmed(self, release: Release) -> Mapping[str, Any]:
        """What a call's record keeps of a yes to it: the arguments that it endorses, and that a
        read rests on the user's own.
        """
        trusted = [fact for fact in self.template.tool.facts.values() if fact.confirmed]
        read = trusted and (release.own or rests_on_yes(self.case.values, self.case.earlier))
        yes = {"to": list(release.endorsed), "read": bool(read)}
        said = {name: value for name, value in yes.items() if value}
        return {"yes": {**said, "turns": len(self.case.run.turns)}} if said else {}

    def reserve(self, release: Release, head: bytes, *, redeems: bool = False) -> Flow:
        """The mint script: limits, the release, the call's record and the token's single-use
        key, or nothing of it.

        Where it `redeems` the call, too, there is no token.
        """
        core = self.view.core
        header = self.template.header
        boundary = header.agent.boundary
        name = history_name(header.tenant, self.audience)
        sent = core.history.seen(header.tenant)
        counted = core.history.seen(name)

        def draft_likely() -> None:
            lineage = self.revision.rpartition(".")[2]
            if redeems:
                claims = self.claims(release, lineage, head)
                self.redeemed[lineage, head] = build_redemption(
                    claims, self.case.call.data, head, core.tracing
                )
            else:
                likely = ops.MintReply("ok", lineage, history=sent, redemptions=counted)
                self.drafts.append(self.draft(release, likely, head))

        settled: ops.MintReply = yield ops.mint(
            ops.MintRequest(
                tenant=header.tenant,
                run=header.id,
                revision=self.revision,
                call_digest=self.digest,
                head=head,
                jti=self.jti,
                binding=""
                if redeems
                else binding(
                    self.digest, self.template.shared.aud, self.sender.jkt, self.sender.x5t
                ),
                ttl_ms=(self.ttl + MAX_LEEWAY + _SPARE) * 1000,
                read=not self.acts,
                subjects=self.template.subjects,
                limits=self.limits,
                hold=release.take,
                same_key=(name_of(header.agent.id, header.agent.issuer), boundary.key)
                if self.case.workflow.agent.same_key_as_last_token and boundary
                else None,
                history=sent,
                unspent=self.view.unspent.get(self.digest, ""),
                issued=core.issued.told(header.id, self.digest),
                audience=self.audience,
                redemptions=counted,
                attempt=self.jti if redeems else "",
                fence=FENCES.get().get(header.id, 0),
                memory=memory_of(core, self.case, self.digest, release.remembers)
                if release.remembers or self.case.run.remembered
                else None,
            ),
            draft_likely,
        )
        if settled.detail == "lost":
            core.issued.tell(header.id, self.digest, settled.history)
        else:
            core.history.see(header.tenant, sent, settled.history)
        core.history.see(name, counted, settled.redemptions)
        # where the store loses it, it may have been redeemed
        if self.acts and settled.kind == "ok":
            core.issued.add(header.id, self.digest)
        return settled

    def draft(self, release: Release, settled: ops.MintReply, head: bytes) -> MintDraft:
        """What is said of the call where this is what the script answered: as it was drafted,
        if it was for this answer.
        """
        known = self.drafts[-1] if self.drafts else None
        if known and known.settled == settled:
            return known
        body = known.body if known else self.record(release).body
        history = self.view.core.history
        record = {
            **body,
            "lineage": settled.lineage,
            **history.note(settled.redemptions, self.audience),
            **history.note(settled.history),
            **({"spent": True} if settled.detail == "spent" else {}),
        }
        claims = self.claims(release, settled.lineage, settled.head or head)
        return MintDraft(
            settled,
            body,
            Record(DraftedRecord(record)),
            draft_token(claims, self.sender.run_key),
        )

    def record(self, release: Release, **minted: object) -> Record:
        """The audit record of the mint, without what the script answers, or of the attempt to
        perform the call. What it takes of limits is for `agentgate store reconcile`; a
        sensitive amount is left out.
        """
        if release.approver:
            minted |= {"approver": release.approver, "approvals": release.approvals}
        if self.limits:
            args = self.template.tool.args
            minted["limits"] = [
                {
                    "key": take.key,
                    "amount": None
                    if (argument := taken.limit.argument) and args[argument].sensitive
                    else take.amount,
                    "every_ms": take.every_ms,
                    "for_run": take.for_run,
                }
                for take, taken in zip(self.limits, self.answer.reservations, strict=True)
            ]
        return decided(
            "allow",
            self.case.call,
            self.template.header,
            self.known,
            call_digest=self.digest,
            intent=self.answer.intent,
            jti=self.jti,
            **minted,
            releases=release.holds,
            reasons=(),
        )

    def claims(self, release: Release, lineage: str, head: bytes) -> MintClaims:
        """What is said of the call where it is redeemed."""
        sender = self.sender
        return self.template.claims(
            self.case.call,
            iat=self.iat,
            ttl=self.ttl,
            jti=self.jti,
            gen=lineage,
            intent=self.answer.intent,
            made=self.digest,
            cnf_jkt=sender.jkt,
            cnf_x5t=sender.x5t,
            releases=release.holds,
            approver=release.approver,
            head_digest=digest(head) if self.audience else "",
        )


def _recorded_args(tool: Tool, call: Call, endorsed: tuple[str, ...]) -> Mapping[str, Any]:
    """The arguments that a call's record keeps.

    All of an act with facts: its result counts as a new id only if the call itself did not
    contain it. Of other calls, what later ones may refer to, what the user's yes endorses, and
    for `explain` what is neither sensitive nor long.
    """
    if tool.effect != "read" and tool.facts:
        return call.args
    short = len(call.data) <= _SHORT
    return {
        n: v
        for n, v in call.args.items()
        if n in tool.referenced
        or n in endorsed
        or (short and n in tool.args and not tool.args[n].sensitive)
    }
