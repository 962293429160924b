"""Pages as answers: templates that escape everything, and the headers under which a browser
runs nothing but our one script.

Rules: no page has a script or a style in it, none may be framed, cached, or send its address
along.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import orjson
from starlette.requests import Request
from starlette.responses import Response

from agentgate.decision.hold import moment
from agentgate.errors import RequestRefused
from agentgate.service.state import Service

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
    "data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_ASSETS = {"pages.css": "text/css", "pages.js": "text/javascript"}
# what the pages say: of a refusal, of a hold's state, of an answer that does not count
WORDING: Mapping[str, Mapping[str, Any]] = orjson.loads((_HERE / "wording.json").read_bytes())


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["moment"] = moment
    made.filters["iso"] = lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat()
    return made


def page(name: str, status: int = 200, **values: Any) -> Response:
    """A page from its template."""
    return Response(
        _templates().get_template(name).render(values), status, HEADERS, media_type="text/html"
    )


def error_page(refused: RequestRefused, root: str) -> Response:
    """A refusal for whoever looks at a page; `root`: where its other pages are."""
    errors = WORDING["errors"]
    title, text = errors.get(str(refused.status), errors[""])
    answer = page(
        "error.html",
        refused.status,
        title=title,
        text=text,
        again=refused.status == 503,
        why=refused.description,
        root=root,
    )
    answer.headers.update(refused.headers)
    return answer


async def asset(request: Request, _: Service) -> Response:
    """``GET /holds/pages.css`` and ``/holds/pages.js``, and both under ``/audit``."""
    name = request.url.path.rpartition("/")[2]
    return Response(
        (_HERE / "assets" / name).read_bytes(), 200, HEADERS, media_type=_ASSETS[name]
    )
