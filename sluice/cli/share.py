"""`sluice share`: run one worker of a contract's share group, in the foreground."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer

if TYPE_CHECKING:
    from streams.agents.share import ShareAgent

STATUS_SECONDS = 5.0


def share(
    contract: Annotated[str, typer.Argument(help="A contract file, or the name of a shipped one.")],
    home: Annotated[Path | None, typer.Option(help="Folder of keys, secrets and stack.json.")] = None,
    slot: Annotated[
        int | None,
        typer.Option(min=0, max=63, help="Which worker of this machine; default the first free one."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=200_000, help="At most so many records a transaction.")
    ] = None,
    opening: Annotated[
        bool, typer.Option("--open/--no-open", help="Open topics, rights and schemas first, as admin.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Log as JSON lines, the counts at the end too.")
    ] = False,
) -> None:
    """Run the share agent: raw in, privatized out. SIGTERM or Ctrl-C commits what is in hand and stops.

    Ends with 2 where a partition was torn, and says which; `sluice doctor` explains.
    """
    import time
    from dataclasses import replace

    from schemas.contract import load
    from sluice import settings
    from sluice.cli.opening import open_contract
    from sluice.stack.runs import running
    from streams.kafka.slots import Slot

    found = load(contract)
    here = settings.load(home=home)
    _log(as_json, here.home)
    connection = here.connection("share")
    with (
        Slot(here.home, f"share.{found.contract}", slot) as held,
        running(here.home, "share", found.contract),
    ):
        if opening:
            open_contract(here, found)
        from streams.agents.app import run
        from streams.agents.share import ShareAgent
        from streams.kafka.transaction import DEFAULTS

        tuning = DEFAULTS if batch is None else replace(DEFAULTS, batch_records=batch)
        agent = ShareAgent(found, connection, here.home, held.identity, int(time.time() * 1000), tuning)
        run(agent.app, lambda: _watch(agent, found.contract))
    if as_json:
        typer.echo(json.dumps({"contract": found.contract, **agent.counts.plain()}))
    for error in agent.kafka.stopped.values():  # the others went on to the end, but all is not well
        raise error


async def _watch(agent: ShareAgent, name: str) -> None:
    """One line whenever the counts have moved, at most every five seconds, until the pipe ends."""
    import asyncio
    import time

    import structlog

    log = structlog.get_logger("sluice.share")
    ended = asyncio.ensure_future(agent.ended())
    log.info("sharing", contract=name)
    seen, events, at = agent.counts, agent.events_here, time.monotonic()
    try:
        while not ended.done():
            await asyncio.wait([ended], timeout=STATUS_SECONDS)
            counts, here, now = agent.counts, agent.events_here, time.monotonic()
            if counts != seen:
                log.info(
                    "shared",
                    contract=name,
                    events=counts.events,
                    shared=counts.shared,
                    denied=sum(counts.denied.values()),
                    rejected=sum(counts.rejected.values()),
                    per_second=max(0, round((here - events) / (now - at))),
                    **(
                        {"stopped": [str(each) for each in stopped]}
                        if (stopped := agent.kafka.stopped)
                        else {}
                    ),
                )
                seen = counts
            events, at = here, now
        ended.result()
    finally:
        ended.cancel()


def _log(as_json: bool, home: Path) -> None:
    """Structured lines on standard error."""
    import logging
    import sys

    import structlog

    from sluice.cli.away import Away
    from sluice.cli.screen import Forgiving

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    coloured = sys.stderr.isatty()
    last: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=coloured)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            Away(home),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Forgiving(sys.stderr))),
    )
