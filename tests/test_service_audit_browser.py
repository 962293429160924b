"""The audit log's pages in a real Chromium: with scripts and without, on a phone and a desk, light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.abroad import PACKAGES
from tests.browser import SCREENS, Browser, Tab, browser
from tests.test_service_audit import Audited, place

__all__ = ["place"]
AXE = PACKAGES / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def certified(tab: Tab, place: Audited) -> None:
    """As a proxy that passes the auditor's certificate on."""
    tab.send("Network.setExtraHTTPHeaders", headers=place.header)


def test_an_auditor_filters_reads_a_story_and_the_workflow_without_scripts(chromium: Browser, place: Audited) -> None:
    with chromium.tab(scripts=False) as tab:
        certified(tab, place)
        tab.open(f"{place.desk.origin}/audit")
        text = tab.until("Audit log")
        assert "Verified against the seals" in text
        tab.type("input[name=user]", "lee")
        tab.run("document.querySelector('select[name=decision]').value = 'allow'")
        tab.click(".filters button")
        tab.until("1 decision")
        tab.click(".log tbody th a")
        assert "mona answered: release" in tab.until("Its story")
        tab.click("dl a")
        assert "Tidy up files that somebody names" in tab.until("This is the version that decided")
        tab.click(".back a")
        tab.until("Its story")
        tab.click(".back a")
        tab.until("Verified against the seals")


def test_somebody_of_the_auditors_group_signs_in_with_a_passkey_and_out(chromium: Browser, place: Audited) -> None:
    with chromium.tab() as tab:
        tab.authenticator(place.desk.people["mona"])
        tab.open(f"{place.desk.origin}/audit?decision=allow")
        tab.click("[data-do=sign-in]")
        text = tab.until("signed in as mona")
        assert "files.delete" in text
        assert "refused: " not in text
        tab.click("[data-do=sign-out]")
        tab.until("For auditors")
        assert tab.logged() == []


@pytest.mark.thorough("how pages look; what is on them is tested with and without scripts")
@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_pages_fit_and_axe_finds_nothing_serious(chromium: Browser, place: Audited, width: int, dark: Any, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("PICTURES", tmp_path))
    with chromium.tab() as tab:
        tab.send("Page.setBypassCSP", enabled=True)  # our policy runs no script but ours
        for name, path in (
            ("sign-in", "/audit"),
            ("list", "/audit?since=7d"),
            ("none", "/audit?user=nobody"),
            ("allowed", "/audit/call-1"),
            ("refused", "/audit/call-2"),
            ("workflow", "/audit/call-2/workflow"),
            ("missing", "/audit/call-99"),
            ("wrong", "/audit?since=yesterday"),
        ):
            if name == "list":
                certified(tab, place)
            tab.open(f"{place.desk.origin}{path}")
            tab.picture(pictures / f"{name}-{width}-{'dark' if dark else 'light'}.png", width=width, dark=dark, height=844)
            assert tab.run("document.documentElement.scrollWidth <= innerWidth"), path
            if AXE.exists():
                tab.run(AXE.read_text())
                found = tab.run("axe.run().then(found => found.violations.map(e => [e.impact, e.id, e.nodes.map(n => n.html)]))")
                assert [each for each in found if each[0] in {"serious", "critical"}] == [], path
