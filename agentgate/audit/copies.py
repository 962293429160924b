"""Copies of the newest checkpoint, where a writer of the log's directory cannot change them.

Rules: each place has a thread of its own, and nothing waits for it; what cannot be sent is
tried again with the next checkpoint, or after a few seconds, and is told (`Copies.problems`). A
copy is replaced only by one of a larger tree. Whoever keeps one checks it, or not: what counts
is that an auditor finds it (``agentgate audit verify --checkpoint``).
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from agentgate.audit.tree import (
    Checkpoint,
    NoteVerifier,
    read_checkpoint,
    seal_files,
    sealed_leaves,
    sealed_lines,
)
from agentgate.audit.writing import write_whole
from agentgate.errors import AgentGateError, ConfigError
from agentgate.values.merkle import RightEdge, consistency, root
from agentgate.values.urls import is_secure

_SECONDS = 5.0
_AGAIN = 5.0


class CopyPlace(NamedTuple):
    """Where copies are kept.

    Attributes:
        name: how the log names it.
        send: keeps a copy of a note, of the log in a directory; raises OSError, ValueError,
            AgentGateError where it does not.
        shared: others put theirs there, which are looked at again and again.
    """

    name: str
    send: Callable[[str, Path], object]
    shared: bool = False


def write_copy(folder: Path, note: str) -> None:
    """Keep a copy in a directory. Raises OSError: it is not kept, or another is that
    contradicts it.
    """
    found = read_checkpoint(note)
    file = folder / f"{found.origin.rpartition('/')[2]}.checkpoint"
    if file.exists():
        check_grown(file.read_text("utf-8"), found)
    write_whole(file, note.encode(), mode=0o644)


class WitnessPlace:
    """A witness, which cosigns a checkpoint that goes on from the one before it
    (https://c2sp.org/tlog-witness).

    What it cosigned lies beside the seals, as ``LOG.cosigned``.
    """

    def __init__(self, url: str, verifier: NoteVerifier) -> None:
        self._url = f"{url.rstrip('/')}/add-checkpoint"
        self._verifier = verifier
        self._cosigned = 0

    def cosign(self, note: str, directory: Path) -> None:
        """See `CopyPlace.send`."""
        newest = read_checkpoint(note)
        for _ in range(2):
            body = f"old {self._cosigned}\n{_proof(directory, newest, self._cosigned)}\n{note}"
            try:
                lines = post_bytes(self._url, body.encode()).decode()
                break
            except urllib.error.HTTPError as error:
                if error.code != 409:
                    raise
                known = int(error.read(100))  # by another process
                if not 0 <= known <= newest.size:
                    raise OSError(
                        f"knows {known} leaves of this log, which has {newest.size}"
                    ) from error
                self._cosigned = known
        else:
            raise OSError("another process was before us")
        if not self._verifier.signed(note + lines):
            raise OSError("answered without its cosignature")
        self._cosigned = newest.size
        write_copy(directory, note + lines)


def _proof(directory: Path, newest: Checkpoint, old: int) -> str:
    """The lines that show that the tree of a log begins with that of its first `old` leaves."""
    if not old:
        return ""
    edge = RightEdge()
    after = list[bytes]()
    for path in seal_files(directory)[newest.origin]:
        for line in sealed_lines(path):
            for leaf in sealed_leaves(line.data, first=line.number == 1):
                if edge.size < old:
                    edge.add(leaf)
                else:
                    after.append(leaf)
    known = dict[tuple[int, int], bytes]()
    start = 0
    for each in edge.roots:
        end = start + (1 << ((old - start).bit_length() - 1))
        known[start, end], start = each, end

    def root_of(first: int, end: int) -> bytes:
        return root(after[first - old : end - old]) if first >= old else known[first, end]

    return "".join(
        f"{b64encode(each).decode()}\n" for each in consistency(old, newest.size, root_of)
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:  # the error that it is
        return None


def post_bytes(url: str, body: bytes) -> bytes:
    """What an endpoint answers. Raises OSError: nothing, or an error. No redirect is followed,
    no proxy of the environment is asked.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    request = urllib.request.Request(url, body, method="POST")  # noqa: S310 - `place_of`
    with opener.open(request, timeout=_SECONDS) as answer:
        return bytes(answer.read(10_000))


def check_grown(kept: str, newest: Checkpoint) -> None:
    """Check that a checkpoint that is kept elsewhere goes before this one. Raises OSError: the
    log went back, or is another.
    """
    known = read_checkpoint(kept)
    if known.origin == newest.origin and (
        known.size > newest.size or (known.size == newest.size and known.root != newest.root)
    ):
        raise OSError(
            f"has a checkpoint of {known.size} leaves that this log of {newest.size} does not continue"
        )


def place_of(value: str) -> CopyPlace:
    """Where copies go: a directory, a URL, or a witness (``VERIFIER_KEY URL``).

    Raises:
        ConfigError: none of these.
    """
    key, _, url = value.rpartition(" ") if type(value) is str else ("", "", "")
    if "://" not in url:
        path = Path(url)
        if url and value == url and path.is_dir():
            return CopyPlace(value, lambda note, _: write_copy(path, note))
        raise ConfigError(
            "checkpoints",
            value,
            "an existing directory, an https URL, or a witness: its verifier key and its URL",
        )
    if not is_secure(urlsplit(url)):
        raise ConfigError("checkpoints", url, "https (http only to loopback)")
    send = (
        WitnessPlace(url, NoteVerifier.parse(key)).cosign
        if key
        else lambda note, _: post_bytes(url, note.encode())
    )
    return CopyPlace(url, send)


class Copies:
    """The threads that keep copies of one log's checkpoints up to date, one for each place:
    none waits for another's.

    Attributes:
        problems: what is wrong with a place now, by its name.
    """

    def __init__(self, directory: Path, places: tuple[CopyPlace, ...] = ()) -> None:
        self._directory = directory
        self._new = list(places)
        self.problems: dict[str, str] = {}
        self._note = ""
        self._sent = dict[str, str]()
        self._over = False
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def add(self, place: CopyPlace) -> None:
        """Keep copies there, too."""
        with self._changed:
            self._new.append(place)
        self.tell(self._note)

    def tell(self, note: str) -> None:
        """There is a newer checkpoint. Never waits, never raises."""
        with self._changed:
            self._note = note
            while note and self._new:
                work = threading.Thread(
                    target=self._work,
                    args=(self._new.pop(),),
                    name="agentgate-checkpoints",
                    daemon=True,
                )
                self._threads.append(work)
                work.start()
            self._changed.notify_all()

    def close(self, seconds: float = 2.0) -> None:
        """Send the newest, for so many seconds at most, and end."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, place: CopyPlace) -> None:
        over = False
        while not over:
            with self._changed:
                idle = not self._changed.wait_for(lambda: self._has_work(place), _AGAIN)
                note = self._note
                over = self._over
            if self._sent.get(place.name) != note or (idle and place.shared):
                self._send(place, note)

    def _has_work(self, place: CopyPlace) -> bool:
        return self._over or (
            self._sent.get(place.name) != self._note and place.name not in self.problems
        )

    def _send(self, place: CopyPlace, note: str) -> None:
        try:
            place.send(note, self._directory)
        except (OSError, ValueError, AgentGateError) as error:
            if place.name not in self.problems:
                import structlog  # noqa: PLC0415 - who only reads a log starts without it

                log = structlog.get_logger("agentgate.audit.copies")
                log.warning("checkpoint_not_kept", place=place.name, problem=str(error)[:300])
            self.problems[place.name] = str(error)[:300]
        else:
            self._sent[place.name] = note
            self.problems.pop(place.name, None)


def store_place(keep: Callable[[Checkpoint, str], str]) -> CopyPlace:
    """The state store, which all gates of it compare. `keep` keeps a note there, and answers
    the one that is there after that.
    """

    def send(note: str, _: Path) -> None:
        newest = read_checkpoint(note)
        check_grown(keep(newest, note), newest)

    return CopyPlace("state store", send, shared=True)
