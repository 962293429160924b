"""Where each argument of a call stands in a request: one segment of the path, one query
parameter, one member of the JSON body.

Rules: one request is one call. Every part of path, query and body is an argument that was
declared, stands there once and is read in one way, or the request is refused (RFC 6750 section
3.1, `invalid_request`). A number has one spelling. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from agentgate.errors import ConfigError
from agentgate.integrations.asgi.received import TOKEN_PARAMETER, malformed
from agentgate.values.canonical import canonical, strict_parse
from agentgate.values.value_class import value_class

Kind = type[str] | type[int] | type[bool]
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,15})").fullmatch
_BOOLS = {"true": True, "false": False}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}").fullmatch
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+").fullmatch
_MAX_FIELDS = 64


@value_class
class ArgumentSource:
    """Where one argument comes from. Made by `path`, `query` and `body`.

    Attributes:
        place: path, query or body.
        name: its name there; None: the argument's own.
        kind: str, int or bool: how a text of path or query is read. A body has types of its
            own.
    """

    place: Literal["path", "query", "body"]
    name: str | None = None
    kind: Kind = str


# of a place, each name there with its argument
Places = dict[str, dict[str, tuple[str, ArgumentSource]]]


def path(name: str | None = None, kind: Kind = str) -> ArgumentSource:
    """A ``{name}`` of the route's path."""
    return ArgumentSource("path", name, kind)


def query(name: str | None = None, kind: Kind = str) -> ArgumentSource:
    """A query parameter; one that is not sent is an argument that is not there."""
    return ArgumentSource("query", name, kind)


def body(name: str | None = None) -> ArgumentSource:
    """A member of the JSON object in the body; one that is not sent is an argument that is not
    there.
    """
    return ArgumentSource("body", name)


def _by_place(args: Mapping[str, ArgumentSource]) -> Places:
    """The arguments of a route by place, and by their names there."""
    by: Places = {"path": {}, "query": {}, "body": {}}
    for argument, source in args.items():
        name = argument if source.name is None else source.name
        if (
            type(source) is not ArgumentSource
            or source.place not in by
            or source.kind not in {str, int, bool}
        ):
            raise ConfigError(
                f"args.{argument}",
                source,
                "path(), query() or body(); a kind of str, int or bool",
            )
        if (
            not _NAME(name)
            or name in by[source.place]
            or (source.place != "body" and name == TOKEN_PARAMETER)
        ):
            raise ConfigError(f"args.{argument}", name, "a name of its own in that place")
        by[source.place][name] = (argument, source)
    return by


class RouteShape:
    """One route: its method, its path as segments, and the arguments by place."""

    def __init__(self, method: str, template: str, args: Mapping[str, ArgumentSource]) -> None:
        """Raises ConfigError: a path or a source that could not be matched in one way only."""
        if method not in "GET POST PUT PATCH DELETE".split():
            raise ConfigError("method", method, "GET, POST, PUT, PATCH or DELETE")
        if (
            not template.startswith("/")
            or "//" in template
            or (template.endswith("/") and template != "/")
        ):
            raise ConfigError(
                "path", template, "/segments, {names} among them, no / at the end"
            )
        self.method = method
        self.template = template
        self._segments = tuple(
            (s[1:-1], True) if s[:1] + s[-1:] == "{}" else (s, False)
            for s in template[1:].split("/")
        )  # a hole?
        holes, literal = (
            [text for text, hole in self._segments if hole is wanted]
            for wanted in (True, False)
        )
        if any(not _SEGMENT(segment) for segment in literal if template != "/") or {
            ".",
            "..",
        } & {*literal}:
            raise ConfigError(
                "path",
                template,
                "segments in characters that need no escape; {name} alone in its segment",
            )
        self._by = _by_place(args)
        if sorted(holes) != sorted(self._by["path"]):
            raise ConfigError(
                "path",
                template,
                f"each of {{{'}, {'.join(sorted(self._by['path']))}}} once, and no others",
            )
        if self._by["body"] and method == "GET":
            raise ConfigError("args", "a body", "none with GET (RFC 9110 section 9.3.1)")

    @property
    def has_body(self) -> bool:
        """Whether an argument comes from the body."""
        return bool(self._by["body"])

    def matches(self, raw_path: str) -> Mapping[str, str] | None:
        """The still encoded segments of a path that is this route's; None: another route's."""
        parts = raw_path[1:].split("/")
        if not raw_path.startswith("/") or len(parts) != len(self._segments):
            return None
        found = {}
        for (text, hole), part in zip(self._segments, parts, strict=True):
            if hole:
                found[text] = part
            elif text != part:
                return None
        return found

    def overlaps(self, other: RouteShape) -> bool:
        """Whether a request may be of both routes."""
        pairs = zip(self._segments, other._segments, strict=False)
        same = len(self._segments) == len(other._segments) and self.method == other.method
        return same and all(one == another or one[1] or another[1] for one, another in pairs)

    def arguments(
        self, segments: Mapping[str, str], query_string: str, data: bytes
    ) -> dict[str, Any]:
        """The arguments of the call that a request is.

        Raises:
            RequestRefused: it is none, or more than one.
        """
        args = {}
        for name, segment in segments.items():
            argument, source = self._by["path"][name]
            args[argument] = _read(_segment(segment, name), source, f"path.{name}")
        for name, value in _pairs(query_string):
            if name not in self._by["query"]:
                raise malformed("query", name, "only parameters of this route")
            argument, source = self._by["query"][name]
            if argument in args:
                raise malformed(f"query.{name}", "several", "one")
            args[argument] = _read(value, source, f"query.{name}")
        if self.has_body:
            for name, value in _object(data).items():
                if name not in self._by["body"]:
                    raise malformed("body", name, "only members of this route")
                args[self._by["body"][name][0]] = value
        elif data:
            raise malformed(
                "body",
                f"{len(data)} bytes",
                "none: no argument of this route comes from the body",
            )
        return args

    def rendered(self, args: Mapping[str, Any]) -> tuple[str, str, bytes]:
        """Path, query string and body of exactly these arguments, in one form: what the
        application is given.
        """

        def values(place: str) -> dict[str, Any]:
            return {
                name: args[argument]
                for name, (argument, _) in self._by[place].items()
                if argument in args
            }

        def texts(place: str) -> dict[str, str]:
            return {
                name: ("false", "true")[value] if type(value) is bool else str(value)
                for name, value in values(place).items()
            }

        filled = texts("path")
        parts = [
            quote(filled[text], safe="") if hole else text for text, hole in self._segments
        ]
        return (
            "/" + "/".join(parts),
            urlencode(texts("query"), quote_via=quote),
            canonical(values("body")) if self.has_body else b"",
        )


def _segment(text: str, name: str) -> str:
    """One path segment, decoded once. What decodes to a separator, a dot segment or a control
    character reads in two ways.
    """
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        decoded = ""
    if (
        not decoded
        or decoded in {".", ".."}
        or any(c in "/\\%" for c in decoded)
        or not decoded.isprintable()
    ):
        raise malformed(
            f"path.{name}",
            "empty, a separator, a dot segment or a control character",
            "one segment of text in UTF-8",
        )
    return decoded


def _pairs(query_string: str) -> list[tuple[str, str]]:
    if not query_string:
        return []
    try:
        pairs = parse_qsl(
            query_string,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise malformed(
            "query", "something else", "name=value, joined by &, in UTF-8"
        ) from None
    if any(not value.isprintable() for _, value in pairs):
        raise malformed("query", "a control character", "text")
    return pairs


def _read(text: str, source: ArgumentSource, field: str) -> str | int | bool:
    if source.kind is int:
        if not _INT(text) or text == "-0":
            raise malformed(field, text, "an integer, without leading zeros or sign +")
        return int(text)
    if source.kind is bool:
        if text not in _BOOLS:
            raise malformed(field, text, "true or false")
        return _BOOLS[text]
    return text


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = strict_parse(data)
    except ValueError:
        value = None
    if type(value) is not dict:
        raise malformed("body", "something else", "a JSON object in UTF-8 without a key twice")
    return value
