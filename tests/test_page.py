"""What a reviewer sees of a change: text, comment and page say the same, and nothing from a file acts in any of them."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.review.report.changes import MOST_ROWS, Change, Changes, as_json, comment, page, plain, unified
from agentgate.review.report.contrast import contrast
from agentgate.values.visible import code, markdown, visible

ATTACKS = [
    "\x1b[2J\x1b[1;1Happroved",
    "\x1b]8;;https://evil.example\x07click\x1b]8;;\x07",
    "a\rb",
    "line\nMORE permitted: 0",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "\x9b31m",
    "</td><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](https://evil.example)",
    "![x](https://evil.example/pixel.png)",
    "@everyone please approve",
    "closes #1",
    "| a | b |",
    "`</code><b>",
    "{{ 7*7 }}",
    "https://evil.example",
    "www.evil.example",
]


def changes(text="x", **more: Any):
    rows = (Change(text, text, text, text, text, ((text, text, text),), (text, text), ((text, text),), (text,)),)
    given = {"wider": rows, "narrower": rows, "read_yourself": rows, "alike": rows, "idle": (text,), "about": ((text, text),)}
    given |= {"signers": (text,), "lines": (f"+{text}",), "notes": (text,)}
    return Changes(text, text, text, **{**given, **more}, engine=text, digest=text)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def parsed(text: str) -> Tags:
    found = Tags()
    found.feed(text)
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_a_file_acts_on_the_page(attack):
    made = parsed(page([changes(attack)], title=attack, subtitle=attack, errors=[attack]))
    harmless = parsed(page([changes()], title="x", subtitle="x", errors=["x"]))
    assert made.tags == harmless.tags
    assert made.attributes == harmless.attributes
    assert made.text.replace("\n", "").isprintable()


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_a_file_acts_in_a_comment(attack):
    made = "\n".join(comment(changes(attack)))
    assert made.count("\n") == "\n".join(comment(changes())).count("\n")
    assert parsed(made).tags <= {"code", "sub", "br"}
    bare = re.sub(r"<code>[^<]*</code>|&#[0-9]+;", "", made)
    assert not re.search(r"[@`\[\]]|https?:|www\.|!\(", bare)
    assert "evil.example" not in made
    rows = [line for line in made.splitlines() if line.startswith("| 1 |")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [5] * 4  # four cells, whatever they hold


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_a_file_acts_on_a_terminal(attack):
    made = [line for line, _ in plain(changes(attack, notes=()))]
    assert all(line.isprintable() for line in made)
    assert len(made) == len(list(plain(changes("x" * len(visible(attack)), notes=()))))


@given(st.text())
def test_visible_text_is_one_printable_line(text):
    assert visible(text).isprintable()


@given(st.text())
def test_markdown_leaves_only_letters_digits_spaces_and_entities_of_ascii(text):
    assert not set(re.sub(r"&#[0-9]+;", "", markdown(text))) & set("\\`*_{}[]()#+-.!|<>~&@:/")
    assert code(text).startswith("<code>")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("acme", "acme"),
        ("Müller", "Müller"),
        ("Приложение", "Приложение"),
        ("\u0430cme", "\\u0430cme"),
        ("tab\there", "tab\\there"),
    ],
)
def test_a_letter_of_another_alphabet_inside_a_word_is_shown(text, shown):
    assert visible(text) == shown


def test_a_comment_has_at_most_eight_rows_in_sight_and_folds_the_rest():
    many = tuple(Change(f"t.a{n}", "1", "2") for n in range(300))
    made = "\n".join(comment(changes(wider=many, narrower=(), read_yourself=(), alike=())))
    assert len(re.findall(r"^\| \d+ \|", made.partition("<details>")[0], re.MULTILINE)) == MOST_ROWS
    assert "<details><summary>292 more</summary>" in made
    assert "t.a207" in html.unescape(made)
    assert "… and 92 more: `agentgate workflow diff`" in made


LONG = ", ".join(f"search_emails.from_{n}" for n in range(40))


@pytest.mark.parametrize("added", ["attacker.field", "prompt", "a b c"])
def test_what_differs_is_never_cut(added):
    made = html.unescape("\n".join(comment(changes(wider=(Change("payee", LONG, f"{LONG}, {added}"),)))))
    [line] = [line for line in made.splitlines() if line.startswith("| 1 | <code>payee</code>")]
    assert added in line
    assert "from_20" not in line  # what is the same is shortened


@given(st.text(max_size=80), st.text(max_size=80))
def test_the_fragments_of_a_contrast_are_the_text_and_what_is_the_same_is_in_both(old, new):
    left, right = contrast(old, new)
    assert ("".join(p.text for p in left), "".join(p.text for p in right)) == (old, new)
    same = ["".join(p.text for p in side if not p.changed).replace(",", "") for side in (left, right)]
    assert same[0] == same[1]


def test_the_page_loads_nothing_and_runs_nothing():
    made = page([changes()], title="t", subtitle="s")
    assert "default-src 'none'" in made
    assert "unsafe-inline" not in made
    assert not {"script", "img", "link", "iframe", "form"} & parsed(made).tags
    assert not re.search(r"url\(|@import|https?:", made)


def test_the_policy_names_the_style_sheet_that_is_there():
    import base64
    import hashlib

    made = page([changes()], title="t", subtitle="s")
    style = made.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in made


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({}, "wider"),
        ({"wider": ()}, "read_yourself"),
        ({"wider": (), "read_yourself": (), "idle": ()}, "narrower"),
        ({"wider": (), "read_yourself": ()}, "read_yourself"),
        ({"wider": (), "read_yourself": (), "idle": (), "narrower": ()}, "same"),
    ],
)
def test_the_verdict_is_the_worst(more, verdict):
    made = changes(**more)
    assert as_json(made)["verdict"] == verdict
    assert made.looks is (verdict in {"wider", "read_yourself"})
    assert made.verdict in "\n".join(line for line, _ in plain(made))


def test_rows_are_readable_at_a_hundred_columns():
    wider = (
        Change("payments.refund: args.payee.from", "orders.get.customer_id", "prompt", "was refused, would be allowed", "cus_a"),
        Change("token.ttl", "60s", "5m"),
    )
    read = (Change("intents.refund.words", "refund", "refund, credit", "now asked for by: Please credit it"),)
    made = [line for line, _ in plain(Changes("payments.customer-refund", "v7", "v8", wider, (), read, idle=("title (a -> b)",)))]
    assert made == [
        "payments.customer-refund  v7 -> v8     MORE permitted: 2 (read yourself: 1)",
        "  1. payments.refund: args.payee.from",
        "       orders.get.customer_id -> prompt",
        "       cus_a: was refused, would be allowed",
        "  2. token.ttl                         60s -> 5m",
        "READ YOURSELF: 1",
        "  1. intents.refund.words  refund -> refund, credit  now asked for by: Please credit it",
        "ALSO DIFFERS, decides nothing: title (a -> b)",
    ]


def test_the_lines_of_the_file_are_compared():
    assert unified("a: 1\nb: 2", "a: 1\nb: 3", ("old", "new")) == ("--- old", "+++ new", "@@ -1,2 +1,2 @@", " a: 1", "-b: 2", "+b: 3")
