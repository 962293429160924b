"""How much work tests do: all of it, or, with `--quick`, what every commit gets.

Quick tests try fewer examples and leave out what is marked `thorough`, with its reason: mostly the same tests once more, on another server
or of more cases. Nothing else differs, and continuous integration does all of it.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_quick = False
# Wall time is that of a busy machine: where reading must not take long, a test counts processor time (tests/linear.py).
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def set_quick() -> None:
    """From now on, before any test is read."""
    global _quick  # noqa: PLW0603 - of a whole run
    _quick = True
    settings.register_profile("quick", settings.get_profile("tests"), max_examples=examples(100))
    settings.load_profile("quick")


def examples(count: int, few: int | None = None) -> int:
    """So many examples, or quickly `few`: without that, a tenth of them."""
    return (few or max(10, count // 10)) if _quick else count
