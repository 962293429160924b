"""OpenSSH's ``allowed_signers`` (ssh-keygen(1), ALLOWED SIGNERS): which key speaks for whom,
for what, and when.

Rules: fails closed. Only the unambiguous part of the format is accepted: exact principals and
namespaces (no patterns), times in UTC (with ``Z``); ``cert-authority``, unknown options, RSA
and DSA refuse the file.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import inf

from agentgate.approvals._files import EXPIRED, PERSON, ROOT_NOT_TRUSTED, UNAPPROVED, refuse
from agentgate.approvals.sshsig import SshKey, from_words
from agentgate.errors import KeyRefused
from agentgate.values.value_class import value_class

_MAX_LINES = 2000
_KINDS = ("ssh-", "ecdsa-", "sk-", "rsa-")
_OPTIONS = re.compile(r'(?:[^" ]+|"[^"]*")*')  # up to the first space outside quotes
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,(?=[a-z])|$)', re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9._@-]+(?:,[A-Za-z0-9._@-]+)*", re.ASCII)
_TIME = re.compile(r"[0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?Z", re.ASCII)
_FORMS = {9: "%Y%m%dZ", 13: "%Y%m%d%H%MZ", 15: "%Y%m%d%H%M%SZ"}


@value_class
class Entry:
    """One line.

    Attributes:
        line: its number.
        people: exact principals.
        namespaces: what the key may sign; None: anything.
        after, before: POSIX seconds in which it is valid, [after, before).
    """

    line: int
    people: tuple[str, ...]
    key: SshKey
    namespaces: frozenset[str] | None
    after: float
    before: float


@value_class
class AllowedSigners:
    """A whole file. Build with `AllowedSigners.parse`."""

    file: str
    entries: tuple[Entry, ...]

    @classmethod
    def parse(cls, text: str, file: str) -> AllowedSigners:
        """Read the file. Raises ApprovalRefused: ROOT NOT TRUSTED, at the line that is not
        understood.
        """
        lines = text.split("\n")
        if len(lines) > _MAX_LINES:
            raise refuse(
                ROOT_NOT_TRUSTED,
                file,
                "document",
                f"{len(lines)} lines",
                f"at most {_MAX_LINES}",
            )
        entries = []
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    entries.append(_entry(line, number))
                except KeyRefused as error:
                    expected = "principals, options, kind and key as in ssh-keygen(1)"
                    raise refuse(
                        ROOT_NOT_TRUSTED, f"{file}:{number}", "line", str(error), expected
                    ) from None
        if not entries:
            raise refuse(ROOT_NOT_TRUSTED, file, "document", "no signer", "at least one line")
        return cls(file, tuple(entries))

    def until(self, person: str, key: SshKey, namespace: str, now: float) -> float:
        """Until when (POSIX seconds, may be infinite) this key speaks for this person in this
        namespace.

        Raises ApprovalRefused: UNAPPROVED when no line permits it, EXPIRED when one permits it
        at another time.
        """
        mine = [e for e in self.entries if person in e.people and e.key.blob == key.blob]
        if not mine:
            raise refuse(
                UNAPPROVED,
                self.file,
                person,
                f"no line with key {key.fingerprint}",
                "a line for this key",
            )
        fit = [e for e in mine if e.namespaces is None or namespace in e.namespaces]
        if not fit:
            got = ", ".join(sorted(mine[0].namespaces or ()))
            raise refuse(
                UNAPPROVED,
                f"{self.file}:{mine[0].line}",
                "namespaces",
                got,
                f"'{namespace}' among them",
            )
        current = [e.before for e in fit if e.after <= now < e.before]
        if not current:
            early = fit[0].after > now
            field, end = (
                ("valid-after", fit[0].after) if early else ("valid-before", fit[0].before)
            )
            got = datetime.fromtimestamp(end, UTC).strftime(_FORMS[15])
            raise refuse(
                EXPIRED,
                f"{self.file}:{fit[0].line}",
                field,
                got,
                f"a key of {person} that is valid now",
            )
        return max(current)


def _entry(line: str, number: int) -> Entry:
    if not line.isascii() or not line.replace("\t", " ").isprintable():
        raise KeyRefused("characters that cannot be seen, or are not ASCII")
    first, _, rest = line.strip().replace("\t", " ").partition(" ")
    people = tuple(first.split(","))
    for person in people:
        if PERSON.fullmatch(person) is None:
            raise KeyRefused(
                f"the principal {person[:60]!r}: an exact name is expected (no patterns, no quotes)"
            )
    rest = rest.strip()
    options = ""
    if not rest.startswith(_KINDS):  # refused kinds too, so that the message says which
        options = _OPTIONS.match(rest)[0]  # type: ignore[index]  # it matches the empty text too
        rest = rest.removeprefix(options)
        if not rest.startswith(" "):
            raise KeyRefused("no key: a kind and a key are expected")
    words = rest.split()
    if len(words) < 2:
        raise KeyRefused(
            f"{len(words)} words after the principals: a kind and a key are expected"
        )
    namespaces, after, before = _options(options)
    return Entry(number, people, from_words(*words[:2]), namespaces, after, before)


def _options(text: str) -> tuple[frozenset[str] | None, float, float]:
    options = {}
    at = 0
    while at < len(text):
        option = _OPTION.match(text, at)
        if option is None:
            raise KeyRefused(
                f'the option {text[at:][:60]!r}: namespaces="...", valid-after="..." or '
                'valid-before="..." is expected '
                "(RSA and DSA keys are refused)"
            )
        name = option[1]
        value = option[2]
        if (
            name in options
            or name not in {"namespaces", "valid-after", "valid-before"}
            or value is None
        ):
            what = (
                "twice"
                if name in options
                else "refused"
                if name == "cert-authority"
                else "unknown or without a value"
            )
            raise KeyRefused(
                f"the option {name[:60]!r}, {what}: namespaces, valid-after and valid-before "
                "are expected, once each"
            )
        options[name] = value
        at = option.end()
    namespaces = options.get("namespaces")
    if namespaces is not None and _NAMESPACE.fullmatch(namespaces) is None:
        raise KeyRefused(
            f"namespaces={namespaces[:60]!r}: exact names are expected (no patterns)"
        )
    after = _time(options["valid-after"]) if "valid-after" in options else -inf
    before = _time(options["valid-before"]) if "valid-before" in options else inf
    if after >= before:
        raise KeyRefused(
            "valid-after not before valid-before: a time in which the key is valid is expected"
        )
    return (frozenset(namespaces.split(",")) if namespaces is not None else None), after, before


def _time(text: str) -> float:
    wrong = KeyRefused(
        f"the time {text[:40]!r}: YYYYMMDDZ or YYYYMMDDHHMM[SS]Z is expected (without Z it "
        "would mean another moment on each machine)"
    )
    if _TIME.fullmatch(text) is None:
        raise wrong
    try:
        return datetime.strptime(text, _FORMS[len(text)]).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise wrong from None
