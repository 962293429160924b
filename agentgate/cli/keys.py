"""``agentgate keys``: look at, rotate and publish a gate's signing keys."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agentgate.errors import AgentGateError
from agentgate.token.keys import PUBLISH_AHEAD, KeyRing

EXAMPLES = (
    "Examples:\n\n"
    "agentgate keys rotate keys/      # publish a new key now, sign with it in ten minutes\n\n"
    "agentgate keys jwks keys/ > jwks.json      # what verifiers need"
)
Directory = Annotated[
    Path, typer.Argument(help="The gate's key directory (owner-only); opening a gate with keys= makes it.", file_okay=False)
]
app = typer.Typer(help="Signing keys: publish, rotate.", no_args_is_help=True, epilog=EXAMPLES)


def _open(directory: Path) -> KeyRing:
    try:
        return KeyRing.existing(directory)
    except AgentGateError as error:
        Console(stderr=True, highlight=False).print(f"[red]{error}[/]")
        raise typer.Exit(1) from None


@app.command(epilog=EXAMPLES)
def jwks(directory: Directory) -> None:
    """Print the public key set (RFC 7517): every key that signs, will sign, or signed a token that may still live."""
    typer.echo(json.dumps(_open(directory).jwks(time.time()), indent=2))


@app.command(epilog=EXAMPLES)
def rotate(directory: Directory) -> None:
    """Add a signing key. It is published at once and signs only after verifiers had time to fetch it."""
    key = _open(directory).rotate(time.time())
    typer.echo(f"{key.kid} ({key.alg}) is published now and signs in {PUBLISH_AHEAD / 60:.0f} minutes")
