"""``agentgate serve``: the gate over HTTP, from one settings file; a check of that file; or a
whole gate of its own, to try it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentgate.cli.output import complain, fail, note, quiet, say
from agentgate.loading.catalog import AHEAD

if TYPE_CHECKING:
    from agentgate.service.settings import ServiceSettings


def serve(
    settings: Path | None = None,
    trying: Path | None = None,
    *,
    check: bool = False,
) -> None:
    """Serve the gate over HTTP: tokens for exchange, runs for hosts, redemption for tool
    servers.
    """
    if trying and (settings or check):
        fail("--try makes its own settings: leave --settings and --check out")
    try:
        from agentgate.service import process  # noqa: PLC0415 - packages of the extra
        from agentgate.service.health import Counts  # noqa: PLC0415 - as above
        from agentgate.service.settings import ServiceSettings  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed: pip install '.[service]' in the clone")
    if check:
        quiet()
        read = ServiceSettings.of(settings)
        read.hooks()
        Counts(wanted=read.metrics)
        asyncio.run(_look(read.model_copy(update={"tell": {}})))  # a check tells nobody
        return
    if trying:
        from agentgate.service.trying import made  # noqa: PLC0415 - only here

        settings, told = made(trying)
        complain(*told, colour="")  # standard output stays empty while a gate serves
    raise typer.Exit(process.serve(ServiceSettings.of(settings), file=settings))


async def _look(settings: ServiceSettings) -> None:
    from agentgate.service.checking import look  # noqa: PLC0415 - as above
    from agentgate.service.served import ServedGate  # noqa: PLC0415 - as above

    gate: Any = await ServedGate.of(settings)
    try:
        found = await asyncio.to_thread(look, settings, tuple(gate.catalog))
        found += map(str, gate.catalog.endings(AHEAD))
        where = f", store {gate.store.where.told}" if gate.store.where.told else ""
    finally:
        await gate.close()
    say(
        f"complete: {len(gate.catalog)} workflows in force, {len(settings.clients)} clients, "
        f"issuer {settings.issuer}{where}"
    )
    note(*(f"look: {each}" for each in found))
