"""The holds of whoever is signed in: the list, one with its question, several of a run; and
answers, each an assertion of its own.

Rules: what a person may not answer is 404, like what is not there. A session only reads: what
changes a hold is `WebAuthnAnswer`, over a nonce of the gate, by the passkey that signed in; the
gate's own methods judge it (`agentgate.gate.holds.answer`). A page or program of somebody's own
gets the list by the person's own token, and by nothing else: no run's or conversation's id, and
no client's assertion.

What is remembered of a person is a page with a button that forgets, and the same for a program
with their own token. Its form needs no script; it comes from that page (`check_page`), whose
address a browser tells it alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import tzinfo
from functools import partial
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from agentgate.decision.batch_answer import MOST, Together
from agentgate.decision.hold import Hold, moment
from agentgate.errors import CredentialRefused, KeysUnavailable, RequestRefused
from agentgate.explain.evidence import MASKED
from agentgate.gate.holds.codec import told_of
from agentgate.gate.holds.inbox import (
    LATELY,
    PAGE,
    Addressed,
    WaitingPage,
    addressed,
    addressed_in,
    addressed_one,
    order,
    person_of,
)
from agentgate.gate.holds.proof import refusal
from agentgate.identity.assertion import Assertion
from agentgate.identity.credential import OIDCToken
from agentgate.service.messages import (
    answered,
    answered_done,
    bearer,
    malformed,
    optional_text,
    read_form,
    text,
)
from agentgate.service.pages.rendering import HEADERS, WORDING, page
from agentgate.service.pages.session import (
    MAX_BODY,
    Reader,
    check_page,
    for_reader,
    passkeys_of,
    posted,
    reader_of,
    sent,
)
from agentgate.service.state import Service
from agentgate.token.jws import b64url
from agentgate.values.answers import Said, WebAuthnAnswer, webauthn_challenge
from agentgate.values.refusal import AnswerCode, AnswerRefused, Reason
from agentgate.values.request import User
from agentgate.values.visible import visible

REFUSED = WORDING["refused"]


def became(hold: Hold, zone: tzinfo) -> str:
    """What a hold's state means to a person; who said yes so far."""
    said = ", ".join(visible(each.id, 80) for each in hold.approvers)
    if hold.state != "pending":
        by = f" Yes from: {said}." if said else ""
        what = WORDING["states"][hold.state].format(until=moment(hold.expires_at, zone))
        return f"{what}{by}"
    return f"Waits for {hold.question.whom}, until {moment(hold.expires_at, zone)}." + (
        f" Yes so far from: {said}." if said else ""
    )


def answered_words(hold: Hold, zone: tzinfo) -> str:
    """The same just after an answer."""
    return (
        f"Your yes counts. {became(hold, zone)}"
        if hold.state == "pending"
        else became(hold, zone)
    )


_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PLACE = re.compile(r"\d{1,15}\.[0-9a-f]{64}", re.ASCII)
_FOR_ME = re.compile(rf"for=me(?:&after=({_PLACE.pattern}))?", re.ASCII)
_STATUS = {
    AnswerCode.MISSING: 404,
    AnswerCode.FORM: 400,
    AnswerCode.SIGNATURE: 400,
    AnswerCode.NONCE: 400,
}


@for_reader
async def waiting(request: Request, service: Service, reader: Reader) -> Response:
    """``GET /holds``: what waits for this person, a page of it (from the place ``after`` on),
    and what ended lately.
    """
    after = request.query_params.get("after", "")
    after = after if _PLACE.fullmatch(after) else ""
    core = service.core
    found: list[WaitingPage] = [
        await service.gate.drive(addressed(core, tenant, user, after))
        for tenant, user in reader.people.items()
    ]
    # what is beyond the end of one tenant's page comes after what that tenant still has
    until = min((each.next for each in found if each.next), key=order, default="")
    waits = sorted(
        (
            one
            for each in found
            for one in each.found
            if not until or order(one.place) <= order(until)
        ),
        key=_by_place,
    )
    wanted = request.query_params.get("for", "")[:80]
    waits = [
        each
        for each in waits
        if wanted.lower() in f"{each.hold.question.sentence} {each.hold.question.asker}".lower()
    ]
    if len(waits) > PAGE:
        waits, until = waits[:PAGE], waits[PAGE - 1].place
    ended = sorted(
        (one for each in found for one in each.ended), key=_by_deadline, reverse=True
    )[:LATELY]
    counts: dict[str, Any] = {
        "total": sum(each.total for each in found),
        "before": sum(each.before for each in found),
        "next": until,
        "after": after,
        "wanted": wanted,
    }
    return page(
        "holds.html",
        **_common(reader, service),
        pending=waits,
        over=ended,
        several=len(reader.people) > 1,
        **counts,
    )


async def waiting_for(request: Request, service: Service) -> Response:
    """``GET /v1/holds?for=me``: a page of what waits for the person whose token comes along, of
    their login, for this gate.
    """
    asked = _FOR_ME.fullmatch(request.url.query)
    if asked is None:
        raise malformed("query", "another one", "for=me, and after= as next said")
    who = await prove_bearer(request, service)
    found: WaitingPage = await service.gate.drive(
        addressed(service.core, who.tenant, who, asked[1] or "")
    )
    holds = [told_of(each.hold) | {"risk": each.risk} for each in found.found]
    return answered({"holds": holds, "next": found.next, "total": found.total})


async def prove_bearer(request: Request, service: Service) -> User:
    """The person whose own token comes along. Raises RequestRefused: 401, 429."""
    try:
        who: User = await service.gate.drive(
            person_of(service.core, OIDCToken(bearer(request)))
        )
    except KeysUnavailable:
        raise
    except CredentialRefused as error:
        headers = {"WWW-Authenticate": "Bearer"}
        raise RequestRefused(
            401, "invalid_token", "", error.failure(reason=Reason.USER), headers=headers
        ) from None
    service.take(request, f"user {who.subject} of {who.issuer}")
    return who


@for_reader
async def show_next(_: Request, service: Service, reader: Reader) -> Response:
    """``GET /holds/next``: on to the hold with the earliest deadline, or to the list where none
    waits.
    """
    found = [
        await service.gate.drive(addressed(service.core, tenant, user))
        for tenant, user in reader.people.items()
    ]
    first = min((one for each in found for one in each.found), key=_by_place, default=None)
    return Response(
        status_code=303,
        headers={
            **HEADERS,
            "Location": f"/holds/{first.hold.id}" if first is not None else "/holds",
        },
    )


@for_reader
async def one(request: Request, service: Service, reader: Reader) -> Response:
    """``GET /holds/{hold}``: its question, and the buttons that answer it."""
    shown = await _one(service, reader, request.path_params["hold"])
    others = [
        each
        for each in await _of_run(service, reader, shown.hold)
        if each.hold.id != shown.hold.id
    ]
    return page(
        "hold.html", **_common(reader, service), shown=shown, others=len(others), most=MOST
    )


@for_reader
async def of_run(request: Request, service: Service, reader: Reader) -> Response:
    """``GET /holds/{hold}/run``: up to ten that wait in its run, answered by one signature."""
    first = await _one(service, reader, request.path_params["hold"])
    found = (await _of_run(service, reader, first.hold))[:MOST]
    every = [await _one(service, reader, each.hold.id) for each in found]
    return page("run.html", **_common(reader, service), shown=every, run=first.hold.run)


async def nonce(request: Request, service: Service) -> Response:
    """``POST /holds/nonce``: what this person's passkey signs to give these answers."""
    reader, body = await _signed_in(request, service, "answers")
    answers = _answers(body["answers"])
    # a cookie alone could use up those of others
    if any(service.asked.take(f"{reader.credential} {each}") for each in answers):
        raise RequestRefused(
            429,
            "slow_down",
            "Please wait a few seconds, then answer once more.",
            headers={"Retry-After": "1"},
        )
    holds = [(await _one(service, reader, each)).hold for each in answers]
    tenant = holds[0].tenant
    try:
        new = await service.gate.nonce(list(answers), tenant=tenant)
        stated = (
            Together.of(holds).statement(answers, new)
            if len(holds) > 1
            else holds[0].statement(answers[holds[0].id], new)
        )
    except AnswerRefused as error:
        raise _not_counted(error) from None
    signed = {
        "challenge": b64url(webauthn_challenge(stated)).decode(),
        "rp_id": passkeys_of(service).rp_id,
        "credential": reader.credential,
    }
    return answered({"nonce": new, **signed})


async def answer(request: Request, service: Service) -> Response:
    """``POST /holds/answers``: an assertion over exactly these answers; of each what became of
    it, in words.
    """
    reader, body = await _signed_in(request, service, "answers nonce assertion", "reason")
    answers = _answers(body["answers"])
    reason = (optional_text(body, "reason") or "")[:300]
    tenant, *_ = [(await _one(service, reader, each)).hold.tenant for each in answers]
    by = WebAuthnAnswer(text(body["nonce"], "nonce"), body["assertion"])
    try:
        _check_same(reader, body["assertion"])
        if "reveal" in answers.values():
            (hold_id,) = answers
            return answered(
                {"values": await service.gate.reveal(hold_id, tenant=tenant, by=by)}
            )
        became = await _given(service, tenant, answers, by, reason)
    except AnswerRefused as error:
        raise _not_counted(error) from None
    said = {
        n: REFUSED[each.code]
        if isinstance(each, AnswerRefused)
        else answered_words(each, reader.zone)
        for n, each in became.items()
    }
    return answered({"answered": said})


def _check_same(reader: Reader, assertion: object) -> None:
    """Refuse an answer by another passkey than the one that signed in. Raises AnswerRefused."""
    try:
        credential = Assertion.parse(assertion).id
    except CredentialRefused as error:
        raise refusal(AnswerCode.FORM, error.field, error.got, error.expected) from None
    if credential != reader.credential:
        raise refusal(
            AnswerCode.SIGNATURE, "assertion.id", credential[:40], "the passkey that signed in"
        )


async def _given(
    service: Service, tenant: str, answers: Mapping[str, Said], by: WebAuthnAnswer, reason: str
) -> Mapping[str, Hold | AnswerRefused]:
    if len(answers) > 1:
        several: Mapping[str, Hold | AnswerRefused] = await service.gate.answer(
            dict(answers), tenant=tenant, by=by
        )
        return several
    ((hold_id, said),) = answers.items()
    if said == "release":
        return {hold_id: await service.gate.release(hold_id, tenant=tenant, by=by)}
    return {hold_id: await service.gate.refuse(hold_id, tenant=tenant, by=by, reason=reason)}


def _not_counted(error: AnswerRefused) -> RequestRefused:
    return RequestRefused(
        _STATUS.get(error.code, 409), str(error.code), REFUSED[error.code], *error.failures
    )


def _answers(given: object) -> dict[str, Said]:
    """What is said to which hold: each released or refused, or one revealed."""
    said = given if type(given) is dict and 1 <= len(given) <= MOST else {}
    known = {"release", "refuse"} if len(said) != 1 else {"release", "refuse", "reveal"}
    if not said or not all(
        _ID.fullmatch(name) and type(value) is str and value in known
        for name, value in said.items()
    ):
        raise malformed(
            "answers",
            "something else",
            f"1 to {MOST} ids, each with release or refuse (or one with reveal)",
        )
    return cast("dict[str, Said]", said)


async def _signed_in(
    request: Request, service: Service, required: str, optional: str = ""
) -> tuple[Reader, dict[str, Any]]:
    """Who posts, and what: nobody has a turn before their body is here."""
    found = sent(request, service)
    body = await posted(request, service, required, optional) if found is not None else {}
    reader = await reader_of(service, found)
    if reader is None:
        raise RequestRefused(
            401,
            "signed_out",
            "You are signed out. Load the page again and sign in; then answer once more.",
        )
    return reader, body


async def _one(service: Service, reader: Reader, hold_id: str) -> Addressed:
    """A hold of one of their tenants, which they may answer. Raises RequestRefused: 404."""
    for tenant, user in reader.people.items() if _ID.fullmatch(hold_id) else ():
        try:
            found: Addressed = await service.gate.drive(
                addressed_one(service.core, tenant, hold_id, user)
            )
        except AnswerRefused:
            continue
        return found
    raise RequestRefused(404, str(AnswerCode.MISSING), REFUSED[AnswerCode.MISSING])


async def _of_run(service: Service, reader: Reader, hold: Hold) -> list[Addressed]:
    """Those of its run that wait for this person, the earliest deadline first."""
    found = await service.gate.drive(
        addressed_in(service.core, hold.tenant, reader.people[hold.tenant], hold.run)
    )
    return list(found)


def _by_deadline(each: Addressed) -> tuple[float, str]:
    return each.hold.expires_at, each.hold.id


def _by_place(each: Addressed) -> tuple[int, str]:
    return order(each.place)


def _common(reader: Reader, service: Service) -> dict[str, Any]:
    return {
        "reader": reader,
        "origins": passkeys_of(service).origins,
        "became": partial(became, zone=reader.zone),
        "zone": reader.zone,
        "masked": MASKED,
        "now": time.time(),
    }


@for_reader
async def show_remembered(_: Request, service: Service, reader: Reader) -> Response:
    """``GET /holds/remembered``: what is remembered of whoever is signed in."""
    found = [
        (tenant, each)
        for tenant, who in reader.people.items()
        for each in await service.gate.remembered(tenant, for_=who)
    ]
    answer = page(
        "remembered.html",
        reader=reader,
        origins=passkeys_of(service).origins,
        zone=reader.zone,
        found=found,
    )
    answer.headers["Referrer-Policy"] = "same-origin"  # else the form would not tell its origin
    return answer


async def forget_remembered(request: Request, service: Service) -> Response:
    """``POST /holds/remembered``: what is forgotten, by its `id`; then the page again."""
    check_page(request, service)
    session, form = sent(request, service), await read_form(request, MAX_BODY)
    reader = await reader_of(service, session)
    for tenant, who in reader.people.items() if reader is not None else ():
        await service.gate.forget(tenant, (form.get("id", ""),), by=who)
    return Response(status_code=303, headers={**HEADERS, "Location": "/holds/remembered"})


async def list_own(request: Request, service: Service) -> Response:
    """``GET /v1/remembered?for=me``: what is remembered of the person whose token comes
    along.
    """
    if request.url.query != "for=me":
        raise malformed("query", "another one", "for=me")
    who = await prove_bearer(request, service)
    return answered(
        {
            "remembered": [
                each.told for each in await service.gate.remembered(who.tenant, for_=who)
            ]
        }
    )


async def forget_own(request: Request, service: Service) -> Response:
    """``DELETE /v1/remembered/{id}``: it is forgotten, by that person's token."""
    who = await prove_bearer(request, service)
    if not await service.gate.forget(who.tenant, (request.path_params["id"],), by=who):
        raise RequestRefused(404, "not_found")
    return answered_done()
