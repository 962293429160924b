"""A chat backend: FastAPI and LangGraph, whose calls an `AsyncGate` decides on, in as many workers as you like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs
from uuid import uuid4

import jwt
from desk import TOOLS
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from langchain.agents import create_agent
from login import ask, id_token
from page import render
from scripted_model import ScriptedModel
from settings import GATE, SECRET, STATE
from starlette.middleware.sessions import SessionMiddleware
from threads import SqliteThreads

from agentgate import Agent, AsyncGate
from agentgate.errors import AuditUnavailable, CredentialRefused, Overloaded, StoreUnavailable
from agentgate.identity.credential import OIDCToken
from agentgate.integrations.langchain import AgentGateMiddleware, call_outcomes, user_says
from agentgate.values.answers import nonce_claim
from agentgate.values.refusal import AnswerRefused, RunRefused

TENANT = "acme"


@dataclass(frozen=True)
class Person:
    """Who is signed in, and what waits for their answer; the runtime context of each invoke."""

    token: str
    id: str
    holds: tuple[Any, ...]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One gate and one agent for each worker."""
    async with await AsyncGate.open(**GATE) as app.state.gate:
        model = ScriptedModel()  # a real one: langchain.chat_models.init_chat_model("anthropic:claude-sonnet-4-5")
        named: dict[str, Any] = {"workflow": "desk.chat", "conversation": "thread", "ttl": 24 * 3600}
        gated = AgentGateMiddleware(app.state.gate, **named, identify=lambda me: (TENANT, OIDCToken(me.token), Agent("desk")))
        saver = SqliteThreads(STATE / "threads.sqlite")
        app.state.agent = create_agent(model, TOOLS, middleware=[gated], context_schema=Person, checkpointer=saver)
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key=SECRET, same_site="lax")  # behind TLS: https_only=True
app.add_route("/login", ask)


@app.exception_handler(StoreUnavailable)
@app.exception_handler(AuditUnavailable)
@app.exception_handler(Overloaded)
@app.exception_handler(RunRefused)  # somebody else goes on with the same conversation just now
async def not_now(*_: Any) -> Response:
    """Nothing was decided, and nothing ran."""
    return Response("Something does not answer at the moment. Please load this page again.", 503, {"Retry-After": "2"})


async def signed_in(request: Request) -> Person:
    """Whoever's token stands in the session, if it proves them still."""
    token = request.session.get("token", "")
    try:
        holds = await request.app.state.gate.holds(TENANT, for_=OIDCToken(token))
    except CredentialRefused:
        raise HTTPException(303, headers={"Location": "/login"}) from None
    return Person(token, jwt.decode(token, options={"verify_signature": False})["sub"], holds)


Me = Annotated[Person, Depends(signed_in)]


def thread_of(request: Request, me: Person) -> dict[str, Any]:
    """The conversation of this session; no session leads into another person's."""
    return {"configurable": {"thread_id": f"{me.id} {request.session.setdefault('conversation', uuid4().hex)}"}}


async def field(request: Request, name: str) -> str:
    """What a form says."""
    return parse_qs((await request.body()).decode()).get(name, [""])[0]


@app.get("/")
async def show(request: Request, me: Me) -> Response:
    """The conversation, what waits in it, and what waits for this person."""
    values = (await request.app.state.agent.aget_state(thread_of(request, me))).values
    run = values.get("agentgate_run")
    waits = await request.app.state.gate.holds(TENANT, run=run, state=None) if run else ()
    return render(me, values.get("messages", []), waits, request.session.pop("told", []))


@app.post("/chat")
async def chat(request: Request, me: Me) -> Response:
    """The user's next words, or none: then only what was answered goes on."""
    text = await field(request, "text")
    said = {"messages": user_says(text) if text else []}
    with call_outcomes() as seen:
        await request.app.state.agent.ainvoke(said, thread_of(request, me), context=me)
    request.session["told"] = [[each.status, each.until] for each in seen]
    return RedirectResponse("/login" if any(each.status == 401 for each in seen) else "/", 303)


@app.post("/holds/{hold_id}")
async def judge(hold_id: str, request: Request, me: Me) -> Response:
    """A yes or no: a login of its own, whose token is good for exactly this answer."""
    said = await field(request, "say")
    hold = next((each for each in me.holds if each.id == hold_id), None)
    if hold is None or said not in {"release", "refuse"}:
        raise HTTPException(404)
    nonce = await request.app.state.gate.nonce(hold_id, tenant=TENANT)
    return await ask(request, (hold_id, said), nonce=nonce_claim(hold.statement(said, nonce)))


@app.get("/callback")
async def callback(request: Request) -> Response:
    """Back from the login: signed in, or with an answer to a held call."""
    request.session["token"] = token = await id_token(request)
    (hold_id, said), gate = request.session.pop("answer"), request.app.state.gate
    try:
        if said:
            await (gate.release if said == "release" else gate.refuse)(hold_id, tenant=TENANT, by=OIDCToken(token))
    except AnswerRefused as refused:
        request.session["told"] = [[str(refused.code), ""]]
    return RedirectResponse("/", 303)
