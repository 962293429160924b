"""What the service reads of a request: once, capped, in time, in one form; whatever could be read in two ways is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from starlette.requests import Request

from agentgate.errors import RequestRefused
from agentgate.service import messages
from agentgate.service.messages import FORM, JSON, checked_members, one_header, optional_text, read_form, read_json, text


def request(
    body: bytes | Sequence[bytes], kind: str | None = FORM, *headers: tuple[str, str], query: str = "", pause: float = 0.0
) -> tuple[Request, list[str]]:
    """A request whose body comes in these parts; and what was done with its turn."""
    parts = [body] if isinstance(body, bytes) else list(body)
    sent, turns = [*([("content-type", kind)] if kind is not None else []), *headers], list[str]()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    class Turn:
        async def __call__(self, claimed: str = "") -> None:
            assert not claimed
            turns.append("taken" if not parts else "too early")

        def leave(self) -> None:
            """Whoever reads a body has no turn meanwhile."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent],
    }
    made = Request(scope, receive)
    made.state.turn, made.state.claimed = Turn(), ""
    return made, turns


async def refused(made: Request, *, json_too: bool = False, most: int = 100) -> tuple[int, str]:
    with pytest.raises(RequestRefused) as error:
        await (read_json(made, most, "a") if json_too else read_form(made, most))
    return error.value.status, error.value.error


async def test_a_form_and_an_object_are_read_and_the_turn_begins_when_they_are_here() -> None:
    for kind in (FORM, f"{FORM}; charset=utf-8", f'{FORM};charset="UTF-8"', FORM.upper()):
        made, turns = request([b"a=1&b=%C3", b"%A9&empty="], kind)
        assert (await read_form(made, 100), turns) == ({"a": "1", "b": "\u00e9"}, ["taken"])
    made, turns = request(b'{"a": 1}', JSON, ("content-encoding", "identity"))
    assert (await read_json(made, 100, "a"), turns) == ({"a": 1}, ["taken"])


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (lambda: request(b"a=1", query="a=2"), 400),
        (lambda: request(b"a=1", query="x"), 400),
        (lambda: request(b"a=1", None), 415),
        (lambda: request(b"a=1", JSON), 415),
        (lambda: request(b"a=1", "text/plain"), 415),
        (lambda: request(b"a=1", f"{FORM}; charset=utf-16"), 415),
        (lambda: request(b"a=1", f"{FORM}; boundary=x"), 415),
        (lambda: request(b"a=1", FORM, ("content-type", JSON)), 400),
        (lambda: request(b"a=1", FORM, ("content-type", FORM)), 400),
        (lambda: request(b"a=1", FORM, ("content-encoding", "gzip")), 415),
        (lambda: request(b"a=1", FORM, ("content-encoding", "identity"), ("content-encoding", "gzip")), 400),
        (lambda: request(b"a=" + b"x" * 149), 413),
        (lambda: request([b"a=" + b"x" * 80, b"x" * 80]), 413),
        (lambda: request(b"a=1&a=2"), 400),
        (lambda: request(b"a=1&a="), 400),
        (lambda: request(b"a=1&%61=2"), 400),
        (lambda: request(b"a"), 400),
        (lambda: request(b"a=%ff"), 400),
        *((lambda escape=escape: request(b"a=" + escape), 400) for escape in (b"%", b"%4", b"%zz", b"%+1", b"%1+", b"%\\x41", b"\\%4")),
        (lambda: request(b"a=1&&b=2"), 400),
        (lambda: request(b"a=\xc3\xa9"), 400),
        (lambda: request("&".join(f"{n}=" for n in range(33)).encode()), 400),
    ],
)
async def test_a_form_that_can_be_read_in_two_ways_is_refused(made: Any, status: int) -> None:
    refusing, turns = made()
    assert await refused(refusing, most=150) == (status, "invalid_request")
    assert turns in ([], ["taken"])


async def test_a_body_of_exactly_the_cap_is_read_and_one_that_is_late_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = request(b"a=" + b"x" * 98)
    assert len((await read_form(made, 100))["a"]) == 98
    monkeypatch.setattr(messages, "SECONDS", 0.05)
    made, turns = request([b"a=", b"1", b"2", b"3"], pause=0.02)
    assert (await refused(made), turns) == ((408, "invalid_request"), [])


@pytest.mark.parametrize(
    "value", ["\\x41", "\\u0041\\N{BULLET}", "100%", "%41", "a=b", "a+b c", "\u00e9\U0001f642", "\\", "\\%5c", "\r\n\0"]
)
async def test_every_text_comes_through_a_form_as_it_was(value: str) -> None:
    body = urlencode({"a": value, value: "b"}).encode()
    made, _ = request(body)
    assert await read_form(made, 1000) == {"a": value, value: "b"} == dict(parse_qsl(body.decode(), strict_parsing=True))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b'{"a":1,"a":2}', b'{"a":{"b":1,"b":2}}', b'{"a":1}x', b'{"a":NaN}', b"\xff", b'{"b":1}', b'{"a":1,"b":1}', b"{}"],
    ids=repr,
)
async def test_json_that_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    made, _ = request(body, JSON)
    assert await refused(made, json_too=True) == (400, "invalid_request")


def nested(levels: int, listed: bool = False) -> Any:  # noqa: FBT001, FBT002 - a row
    made: Any = 1
    for _ in range(levels):
        made = [made] if listed else {"a": made}
    return made


def test_an_object_has_the_members_it_must_have_no_others_and_a_depth() -> None:
    required, optional = "a", "b"
    for good in ({"a": 1}, {"a": 1, "b": 2}, nested(32), {"a": nested(31, listed=True)}):
        assert checked_members(good, "body", required, optional) is good
    assert checked_members({"a": 1, "c": 2}, "body", required, None) == {"a": 1, "c": 2}
    wrong: Any
    for wrong in (None, [], "a", 1, {}, {"b": 1}, {"a": 1, "c": 2}, {"a": 1, "\n": 2}, nested(33), {"a": nested(32, listed=True)}):
        with pytest.raises(RequestRefused) as error:
            checked_members(wrong, "body", required, optional)
        assert "\n" not in json.dumps(error.value.failures[0].got)


def test_text_is_text_and_null_is_no_way_of_leaving_it_out() -> None:
    assert (text("x", "a"), optional_text({"a": "x"}, "a"), optional_text({}, "a")) == ("x", "x", None)
    wrong: Any
    for wrong in ("", None, 7, ["x"], {"x": 1}, b"x", True):
        for read in (lambda value: text(value, "a"), lambda value: optional_text({"a": value}, "a")):
            with pytest.raises(RequestRefused):
                read(wrong)


def test_a_header_stands_there_once() -> None:
    one, _ = request(b"", None, ("dpop", "x"))
    several, _ = request(b"", None, ("dpop", "x"), ("dpop", "x"))
    assert (one_header(one, "DPoP"), one_header(one, "authorization")) == ("x", None)
    with pytest.raises(RequestRefused):
        one_header(several, "dpop")
