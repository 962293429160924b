"""The threat model names files and tests: each of them exists, so that no promise outlives its test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/threats.md").read_text("utf-8")
TESTS = sorted(set(re.findall(r"`(tests/\w+\.py(?:::\w+)?)`", PAGE)))
FILES = sorted(set(re.findall(r"`((?!tests/)[a-z_]+/(?:[a-z_]+\.py)?)`", PAGE)))


@pytest.mark.parametrize("named", TESTS)
def test_a_named_test_exists(named: str) -> None:
    file, _, name = named.partition("::")
    text = (ROOT / file).read_text("utf-8")
    assert not name or re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE)


@pytest.mark.parametrize("named", FILES)
def test_a_named_file_exists(named: str) -> None:
    assert (ROOT / "agentgate" / named).exists()


def test_the_page_names_many() -> None:
    assert len(TESTS) > 30
    assert len(FILES) > 5
