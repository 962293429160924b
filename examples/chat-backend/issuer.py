"""The login: an OpenID provider on loopback whose people need no password. Stands where your identity provider is."""

from __future__ import annotations

import html
import os
import secrets
import time
from urllib.parse import urlencode

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

URL = f"http://127.0.0.1:{os.environ['PORT']}"
LIFE = 3600  # seconds
PEOPLE = {"lee": ["customers"], "ann": ["customers"], "kim": ["leads"]}  # and their groups
KEY, CODES = ec.generate_private_key(ec.SECP256R1()), dict[str, dict[str, str]]()


async def configuration(_: Request) -> Response:
    """``/.well-known/openid-configuration``."""
    ends = {
        name: f"{URL}/{path}" for name, path in (("authorization_endpoint", "authorize"), ("token_endpoint", "token"), ("jwks_uri", "jwks"))
    }
    return JSONResponse({"issuer": URL, **ends, "id_token_signing_alg_values_supported": ["ES256"]})


async def authorize(request: Request) -> Response:
    """Who are you? What is signed in for is part of the question: an answer to a held call wants a login of its own."""
    if request.method == "GET":
        asked = html.escape(request.url.query)
        buttons = "".join(f'<p><button name="who" value="{who}">{who} ({groups[0]})</button></p>' for who, groups in PEOPLE.items())
        return HTMLResponse(
            '<!doctype html><meta name="viewport" content="width=device-width"><title>Sign in</title><h1>Who are you?</h1>'
            f'<form method="post" action="?{asked}">{buttons}</form>'
        )
    who, asked_for = str((await request.form())["who"]), request.query_params
    CODES[code := secrets.token_urlsafe(24)] = {"who": who, **asked_for}
    return RedirectResponse(f"{asked_for['redirect_uri']}?{urlencode({'code': code, 'state': asked_for['state']})}", 303)


async def token(request: Request) -> Response:
    """A code becomes an ID token, once."""
    form = await request.form()
    known = CODES.pop(str(form["code"]), None)
    if known is None or known["redirect_uri"] != form["redirect_uri"]:
        return JSONResponse({"error": "invalid_grant"}, 400)
    times = {"iat": int(time.time()), "exp": int(time.time()) + LIFE, "jti": secrets.token_urlsafe(12)}
    claims = {"iss": URL, "aud": known["client_id"], "sub": known["who"], "nonce": known["nonce"], **times}
    made = jwt.encode({**claims, "tenant": "acme", "groups": PEOPLE[known["who"]]}, KEY, "ES256", {"kid": "login"})
    return JSONResponse({"access_token": secrets.token_urlsafe(24), "token_type": "Bearer", "expires_in": LIFE, "id_token": made})


async def jwks(_: Request) -> Response:
    """Its public key."""
    public = ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    return JSONResponse({"keys": [{**public, "kid": "login", "alg": "ES256", "use": "sig"}]})


ROUTES = [
    Route("/.well-known/openid-configuration", configuration),
    Route("/authorize", authorize, methods=["GET", "POST"]),
    Route("/token", token, methods=["POST"]),
    Route("/jwks", jwks),
]

if __name__ == "__main__":
    uvicorn.run(Starlette(routes=ROUTES), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
