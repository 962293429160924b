"""The wheel: what a user installs has all that the demo and the stores need, and no more than the package."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agentgate_demo.case import CASES
from tests.deadlines import python_path

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A directory with the wheel's contents, as an installer lays it out."""
    directory: Path = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site")
    return directory / "site"


def below(directory: Path) -> set[str]:
    """Files that are shipped: no caches, no hidden files, not the copied example."""
    paths = [path.relative_to(directory) for path in directory.rglob("*") if path.is_file()]
    return {str(path) for path in paths if not any(part.startswith((".", "__pycache__", "_examples")) for part in path.parts)}


def test_the_wheel_holds_the_whole_package(installed):
    assert below(installed / "agentgate") == below(ROOT / "agentgate")
    assert below(installed / "agentgate_conformance") == below(ROOT / "tests" / "conformance" / "agentgate_conformance")
    assert {"py.typed", "stores/scripts/mint.lua", "stores/scripts/burn.lua"} <= below(installed / "agentgate")


@pytest.mark.parametrize("name", ["workflows", "examples/_harness", *(f"examples/{place}" for place, _ in CASES.values())])
def test_the_wheel_holds_the_examples(installed, name):
    example = ROOT / name
    assert below(example)
    copied = installed / "agentgate" / "_examples" / example.name
    there = {p.relative_to(copied) for p in copied.rglob("*") if p.is_file()}
    assert {str(path) for path in there if "__pycache__" not in path.parts} == below(example)  # caches: it was run


def test_nothing_else_is_installed(installed):
    assert {path.name for path in installed.iterdir()} == {"agentgate", "agentgate_conformance", "agentgate_mediator-0.1.0.dist-info"}


SUITES = """
import importlib, warnings
for name, suite in (("stores", "StoreConformance"), ("derivers", "DeriverConformance")):
    suites = importlib.import_module(f"agentgate_conformance.{name}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        before = importlib.import_module(f"agentgate.testing.{name}")
    print(suites.__file__, [str(each.message) for each in said if each.category is DeprecationWarning])
    assert getattr(before, suite) is getattr(suites, suite)
"""


def test_the_suites_run_from_the_wheel_and_under_their_names_of_before(installed):
    environment = {**os.environ, "PYTHONPATH": python_path(str(installed))}
    done = subprocess.run([sys.executable, "-P", "-c", SUITES], env=environment, capture_output=True, text=True, check=False)
    told = [f"agentgate.testing.{name} is now agentgate_conformance.{name}" for name in ("stores", "derivers")]
    files = [installed / "agentgate_conformance" / f"{name}.py" for name in ("stores", "derivers")]
    assert done.stdout.splitlines() == [f"{file} {[said]}" for file, said in zip(files, told, strict=True)], done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    "case",
    [
        pytest.param([], id="the payment agent"),
        pytest.param(["ci"], id="a founding case", marks=pytest.mark.thorough("a wheel that runs one demo has what another needs")),
    ],
)
def test_the_demo_runs_from_the_wheel(installed, tmp_path, case):
    environment = {**os.environ, "PYTHONPATH": python_path(str(installed)), "COLUMNS": "160", "NO_COLOR": "1"}
    code = "import agentgate, sys; from agentgate.cli.main import app; print(agentgate.__file__, file=sys.stderr); app()"
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, "demo", *case],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert str(installed) in run.stderr
    assert run.stdout.strip()
