"""``agentgate demo``: the examples, each tried in every way that must be refused, by the
harness beside them.

Rules: every row shows what happened, and is compared with the expected outcome; one wrong row,
or something done that should not be, exits with 1. Nothing leaves loopback.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from agentgate.cli.output import say
from agentgate.errors import ConfigError


def demo(
    name: str = "first-look",
    *,
    as_json: bool = False,
    list_cases: bool = False,
) -> None:
    """Run a guarded case: what is minted, refused, held, and why.

    Without a name, the first look: a LangChain agent with a scripted model, the
    gate in the same process, an HTTP API on loopback. The cases: a served gate,
    tool servers and their callers as processes. Keys for this run only. Every
    outcome is checked: what happened, and for which reason.
    """
    cases = import_harness("case")
    show = import_harness("show")
    if list_cases:
        say(*cases.describe())
        return
    case = cases.load_case(name)
    raise typer.Exit(show.perform(case, as_json=as_json))


def import_harness(module: str) -> Any:
    """A module of the demo's harness: of the examples in a wheel, or of those in a clone.

    Raises:
        ConfigError: this installation has no examples.
    """
    package = Path(__file__).parents[1]
    places = [package / "_examples" / "_harness", package.parent / "examples" / "_harness"]
    place = next((place for place in places if place.is_dir()), None)
    if not place:
        raise ConfigError(
            "example", [str(p) for p in places], "an installation with its examples"
        )
    if str(place) not in sys.path:
        sys.path.append(str(place))
    return import_module(f"agentgate_demo.{module}")
