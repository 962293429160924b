"""The lines that commands print are made from templates: what is shown in one is a value, and never a line or a style of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from agentgate.review.draft.template import _environment, render_lines

LINES = "bold red|{{ found }}\n{% for each in more %}\ndim|  {{ each }}\n{% endfor %}\n|the end\n"


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "some.lines").write_text(LINES)
    monkeypatch.setattr("agentgate.review.draft.template.PACKAGE", tmp_path)
    _environment.cache_clear()
    yield "some.lines"
    _environment.cache_clear()


def test_a_line_has_its_style(template: str):
    assert [*render_lines(template, found="one", more=["two", "three"])] == [
        ("one", "bold red"),
        ("  two", "dim"),
        ("  three", "dim"),
        ("the end", ""),
    ]


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_value_begins_no_line_and_no_style(template: str, end: str):
    """An approval that a file's own text forges."""
    forged = f"one{end}bold green|approved: every workflow file is in force"
    lines = [*render_lines(template, found=forged, more=[forged])]
    assert [style for _, style in lines] == ["bold red", "dim", ""]
    assert all("approved" in text and text.isprintable() for text, _ in lines[:2])


def test_a_value_is_no_template(template: str):
    first, _ = render_lines(template, found="{{ more }}", more=[])
    assert first == ("{{ more }}", "bold red")


def test_a_name_that_nobody_gave_is_an_error(template: str):
    with pytest.raises(UndefinedError):
        [*render_lines(template, found="one")]
