"""``GET /openapi.json``: the endpoints as an OpenAPI 3.1 document. The tests hold the service
to each line of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.loading.yaml_nodes import read_yaml
from agentgate.service.answer import answered
from agentgate.service.state import Service

_FILE = Path(__file__).with_name("openapi.yaml")


@cache
def read_document() -> Mapping[str, Any]:
    """The document as it stands in its file: it names no server."""
    document: Mapping[str, Any] = read_yaml(_FILE.read_text("utf-8"), _FILE.name).value
    return document


async def openapi(_: Request, service: Service) -> Response:
    """The document of this gate."""
    return answered({**read_document(), "servers": [{"url": service.settings.issuer}]})
