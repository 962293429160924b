"""Tests in several processes: none is lost, a failure is one, and so is a process that ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deadlines import python_path

ROOT = Path(__file__).parent.parent
GOOD = "import os, time, pytest\ndef test_passes(tmp_path):\n    print('heard by nobody')\n"
DEADLINE = "@pytest.mark.deadline\ndef test_late():\n    from pathlib import Path\n    assert Path('ended').exists()\n"
ENDS = "def test_ends():\n    time.sleep(0.5)\n    open('ended', 'w').close()\n"


def run(folder: Path, *options: str, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n deadline\n alone\n")
    command = [sys.executable, "-m", "pytest", "-q", *"-p tests.jobs -p no:cacheprovider --jobs=2".split(), *options]
    env = {"PYTHONPATH": python_path(str(ROOT)), "PATH": "/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "heard by nobody" not in ended.stdout
    return ended


def test_every_test_of_every_file_runs_once_and_those_of_deadlines_last(tmp_path: Path) -> None:
    ended = run(tmp_path, a=GOOD + DEADLINE, b=GOOD + ENDS, c=GOOD + GOOD.replace("passes", "too"))
    assert (ended.returncode, re.search(r"\d.* passed in", ended.stdout)[0]) == (0, "6 passed in"), ended.stdout  # type: ignore[index]


def test_those_that_need_whole_processors_come_last_one_by_one(tmp_path: Path) -> None:
    late = "@pytest.mark.deadline\ndef test_late():\n    time.sleep(0.5)\n    open('late', 'w').close()\n"
    body = "assert os.path.exists('late')\n    os.mkdir('one')\n    time.sleep(0.5)\n    os.rmdir('one')\n"
    alone = f"@pytest.mark.alone\ndef test_alone():\n    {body}"
    ended = run(tmp_path, a=GOOD + alone, b=GOOD + late, c=GOOD + alone)
    assert (ended.returncode, "6 passed" in ended.stdout) == (0, True), ended.stdout


def test_of_two_processes_one_begins_with_a_file_that_waits(tmp_path: Path) -> None:
    head = "import time\nfrom pathlib import Path\n"
    waits = "def test_waits():\n    until = time.time() + 20\n    while not Path('begun').exists():\n        assert time.time() < until\n"
    ended = run(tmp_path, a=head + waits, b=head + waits, faults=head + "def test_begins():\n    Path('begun').touch()\n")
    assert (ended.returncode, "3 passed" in ended.stdout) == (0, True), ended.stdout


BAD = {
    "assert 1 == 2": "assert 1 == 2",
    "os._exit(0)": "the process of this test ended with 0",
    "os.kill(os.getpid(), 9)": "the process of this test ended with -9",
    "raise SystemExit(0)": "SystemExit",
}


@pytest.mark.parametrize("mark", ["", "@pytest.mark.deadline\n"], ids=["beside others", "alone"])
def test_a_test_that_fails_or_takes_its_process_with_it_fails_the_run(tmp_path: Path, mark: str) -> None:
    files = {f"bad{number}": GOOD + f"{mark}def test_bad{number}():\n    {body}\n" for number, body in enumerate(BAD)}
    ended = run(tmp_path, **files, last=GOOD)
    assert (ended.returncode, "4 failed, 5 passed" in ended.stdout) == (1, True), ended.stdout
    for number, told in enumerate(BAD.values()):
        assert f"FAILED test_bad{number}.py::test_bad{number}" in ended.stdout
        assert told in ended.stdout


def test_a_fixture_that_fails_at_its_end_fails_the_run(tmp_path: Path) -> None:
    bad = "@pytest.fixture(scope='session')\ndef left():\n    yield\n    assert False\ndef test_last(left):\n    pass\n"
    ended = run(tmp_path, a=GOOD + bad)
    assert (ended.returncode, "2 passed, 1 error" in ended.stdout) == (1, True), ended.stdout


def test_it_ends_at_the_first_failure_where_that_is_asked_for(tmp_path: Path) -> None:
    slow = GOOD + "def test_slow():\n    time.sleep(1)\ndef test_after():\n    open('after', 'w').close()\n"
    ended = run(tmp_path, "-x", a=GOOD + "def test_bad():\n    assert False\n", b=slow, c=slow)
    assert (ended.returncode, "1 failed" in ended.stdout) == (1, True), ended.stdout
    assert not (tmp_path / "after").exists()


def test_what_a_process_left_behind_it_is_counted(tmp_path: Path) -> None:
    ended = run(tmp_path, a="import os\ndef test_bad():\n    os._exit(0)\n" + GOOD + GOOD.replace("passes", "too"), b=GOOD)
    assert (ended.returncode, "2 tests did not run" in ended.stdout, "1 failed, 1 passed" in ended.stdout) == (1, True, True), ended.stdout


def test_what_one_test_prints_is_told_of_no_other(tmp_path: Path) -> None:
    head = "import time\nfrom pathlib import Path\n"
    waits = "def test_a():\n    print('of a', flush=True)\n    while not Path('b').exists():\n        time.sleep(0.01)\n    assert False\n"
    prints = "def test_b():\n    print('of b', flush=True)\n    Path('b').touch()\n    time.sleep(1)\n"
    ended = run(tmp_path, a=head + waits, b=head + prints)
    assert ("of a" in ended.stdout, "of b" in ended.stdout) == (True, False), ended.stdout
