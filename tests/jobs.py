"""Tests in several processes, each forked when all tests have been read.

Reading them takes a processor ten seconds. Workers that each read again (as pytest-xdist's do) cost that much each, so there could be few
of them, and processors were idle while tests waited for servers. Files are handed out in their order, to whoever has none. Every second
process begins with those that mostly wait for a time to pass, so that the others have the processors meanwhile. Tests that are marked
`deadline` come when all others have ended: few at a time, each with the bounds that it has alone. Those that are marked `alone` need
whole processors, and come last, one by one.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from selectors import EVENT_READ, DefaultSelector
from tempfile import TemporaryFile
from typing import Any

import pytest

FORK = multiprocessing.get_context("fork")
AT_A_TIME = 3  # so many tests of deadlines, which mostly wait: all of them together leave a processor idle
TOGETHER = 3  # so many of a file one after the other
WHOLE = 10**6
# Files whose tests mostly wait for a time to pass, longest first; and so many of each one after the other.
WAITING = {
    "conversation": 15,
    "hold_outlives": 15,
    "service_health": 4,
    "service_unproven": WHOLE,
    "service_workers": WHOLE,
    "service_shared_address": WHOLE,
    "stores_faults": WHOLE,
    "lying_servers": WHOLE,
    "faults": WHOLE,
}
File = list[pytest.Item]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--jobs", type=int, default=0, help="run files in so many processes at a time, and tests of deadlines at the end")


def pytest_configure(config: pytest.Config) -> None:
    """A process that forks has one thread (numpy's would start more)."""
    if config.getoption("jobs"):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """As pytest's own, where it is asked for."""
    jobs = session.config.getoption("jobs")
    if not jobs or session.testsfailed or session.config.option.collectonly or session.config.option.usepdb:
        return None
    session.config.pluginmanager.getplugin("terminalreporter").showfspath = False  # several files at a time
    numbered = [list(file) for _, file in groupby(session.items, lambda item: item.nodeid.partition("::")[0])]
    late, alone, waiting, computing = list[File](), list[File](), list[File](), list[File]()
    for file in numbered:
        name, rest = file[0].path.stem.removeprefix("test_"), file
        for mark, parts in (("deadline", late), ("alone", alone)):
            parts.extend(_parts([item for item in rest if item.get_closest_marker(mark)], TOGETHER))
            rest = [item for item in rest if not item.get_closest_marker(mark)]
        (waiting if name in WAITING else computing).extend(_parts(rest, WAITING.get(name, WHOLE)))
    _Lanes(session, computing, waiting).run(jobs)
    _Lanes(session, late, []).run(min(jobs, AT_A_TIME))
    _Lanes(session, alone, []).run(1)
    return True


def _parts(file: File, size: int) -> list[File]:
    return [file[at : at + size] for at in range(0, len(file), size)]


class _Lanes:
    """Processes that take file after file, as their parent sees them: every second one of the second list, while there are any."""

    def __init__(self, session: pytest.Session, first: list[File], second: list[File]) -> None:
        self._session, self._hook, self._files = session, session.config.hook, first + second
        numbers = list(range(len(self._files)))
        self._left = numbers[: len(first)], numbers[len(first) :]  # of each list
        self._ready, self._lines = DefaultSelector(), dict[Connection, ForkProcess]()
        self._list = dict[Connection, int]()  # that a process takes from
        self._at = dict[Connection, pytest.Item]()
        self._given = dict[Connection, int]()  # a file that was not begun
        self._begun = 0

    def run(self, count: int) -> None:
        """All tests of all files."""
        for place in range(min(count, len(self._files))):
            self._start(place % 2)
        while self._lines:
            for key, _ in self._ready.select():
                line: Any = key.fileobj
                try:
                    said = line.recv()
                except (EOFError, ConnectionResetError):
                    said = ("ended", None, [])
                self._hear(line, *said)
                if self._session.shouldfail or self._session.shouldstop:
                    for files in self._left:
                        files.clear()
                    for each in self._lines:
                        with suppress(OSError):
                            each.send(None)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)
        left = sum(map(len, self._files)) - self._begun
        if left and not self._session.shouldfail:
            self._session.shouldfail = f"{left} tests did not run, because a process ended before them"
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)

    def _take(self, which: int) -> int | None:
        """The next file of a list; if it has none, of the other one."""
        left = self._left[which] or self._left[1 - which]
        return left.pop(0) if left else None

    def _start(self, which: int) -> None:
        line, theirs = FORK.Pipe()
        process = FORK.Process(target=_work, args=(self._session, self._files, theirs))
        process.start()
        theirs.close()
        self._lines[line], self._list[line] = process, which
        self._ready.register(line, EVENT_READ)
        self._give(line)  # each has one before any has two

    def _give(self, line: Connection) -> None:
        given = self._take(self._list[line])
        if given is not None:
            self._given[line] = given
        with suppress(OSError):
            line.send(given)

    def _hear(self, line: Connection, what: str, said: Any, reports: list[Any]) -> None:
        for data in reports:
            report = self._hook.pytest_report_from_serializable(config=self._session.config, data=data)
            self._hook.pytest_runtest_logreport(report=report)
        if what == "next":
            self._give(line)
        elif what == "begin":
            file, number = said
            self._at[line], self._begun = self._files[file][number], self._begun + 1
            if self._given.get(line) == file:
                del self._given[line]
        elif what == "end":
            self._at.pop(line, None)
        elif what == "ended":
            self._end(line)

    def _end(self, line: Connection) -> None:
        """A process has said that it ends, or it fails the test that it was at, and another takes its place."""
        process, which = self._lines.pop(line), self._list.pop(line)
        self._ready.unregister(line)
        process.join()
        if line in self._at and not self._session.shouldfail:
            item, text = self._at.pop(line), f"the process of this test ended with {process.exitcode}"
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call", [], 0.0, 0.0, 0.0)
            self._hook.pytest_runtest_logreport(report=report)
            if line in self._given:
                self._left[which].insert(0, self._given.pop(line))
            if any(self._left):
                self._start(which)


class _Teller:
    """A plugin that tells the parent of each report: of a failure at once, of others with what it says next."""

    def __init__(self, config: pytest.Config, line: Connection) -> None:
        self._config, self._line, self._reports = config, line, list[Any]()
        self._silent = config.option.durations is None and config.option.xmlpath is None

    def say(self, what: str, said: Any = None) -> None:
        """One message."""
        self._line.send((what, said, self._reports))
        self._reports.clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed or not self._silent:
            self._reports.append(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))
        if report.failed:
            self.say("failed")


def _numbers(line: Connection, teller: _Teller) -> Iterator[int]:
    """The files to run: the next is known before the last test of this one begins."""
    number = line.recv()
    while number is not None:
        yield number
        teller.say("next")
        number = line.recv()


def _work(session: pytest.Session, files: list[File], line: Connection) -> None:
    """In a process of its own: run what its parent says."""
    config, plugins = session.config, session.config.pluginmanager
    plugins.unregister(name="terminalreporter")
    captured: Any = plugins.getplugin("capturemanager")._global_capturing
    for each in (captured.out, captured.err):
        if each is not None:  # they write to the parent's file
            with TemporaryFile() as file:
                os.dup2(file.fileno(), each.tmpfile.fileno(), inheritable=False)
    teller = _Teller(config, line)
    plugins.register(teller)
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    folders = factory.getbasetemp()
    numbers = _numbers(line, teller)
    number = next(numbers, None)
    while number is not None:
        factory._basetemp = folders / str(number)  # a small folder is searched sooner
        factory._basetemp.mkdir(mode=0o700, exist_ok=True)
        tests, following = files[number], None
        for index, item in enumerate(tests):
            if line.poll():  # the run ends here
                session._setupstate.teardown_exact(None)
                break
            teller.say("begin", (number, index))
            if index + 1 < len(tests):
                after: pytest.Item | None = tests[index + 1]
            else:
                following = next(numbers, None)
                after = None if following is None else files[following][0]
            config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        number = following
    teller.say("end")
