"""Signing in at an OpenID provider, by authlib: as in any backend."""

from __future__ import annotations

from typing import Any

from authlib.integrations.starlette_client import OAuth, OAuthError
from settings import LOGIN
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_provider: Any = OAuth().register(
    "login", client_id="chat", client_kwargs={"scope": "openid"}, server_metadata_url=f"{LOGIN}/.well-known/openid-configuration"
)


async def ask(request: Request, answer: tuple[str, str] = ("", ""), **more: str) -> Response:
    """To the provider. `answer`: to which hold what is said by it; `nonce`: what its ID token shall be good for."""
    request.session["answer"] = answer
    to: Response = await _provider.authorize_redirect(request, str(request.url_for("callback")), **more)
    return to


async def id_token(request: Request) -> str:
    """The ID token with which somebody comes back, for what this very browser asked. Raises HTTPException: it did not ask."""
    try:
        return str((await _provider.authorize_access_token(request))["id_token"])
    except OAuthError as error:
        raise HTTPException(400, f"Please sign in again: {error.error}") from None
