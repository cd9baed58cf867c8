"""sluice contract new | check | try: write a contract, read its promise, see what would leave. No Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import ConfigurationError, ContractError
from sluice.cli import interview, screen

app = typer.Typer(no_args_is_help=True, help="Write and judge a contract.")
Named = Annotated[str, typer.Argument(help="A contract file, or the name of a shipped one.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


@app.command()
def check(contract: Named, json: AsJson = False) -> None:
    """Print what a contract promises; refuse what cannot be promised."""
    from rich.console import Console
    from rich.table import Table

    from schemas.contract import load
    from sluice.contracts import promise
    from streams.privacy.plan import Plan

    loaded = load(contract)
    Plan.of(loaded)  # builds and proves every table
    unread, trouble = _not_read(loaded)
    if json:
        typer.echo(_json({**promise.report(loaded, unread), "source": trouble or "found"}))
        return
    console = Console(highlight=False)
    title = f"{loaded.contract} {loaded.version} of {loaded.owner}"
    about = f"{title}: {loaded.about}" if loaded.about else title
    console.print(screen.shown(about), markup=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for line in promise.lines(loaded):
        table.add_row(line.word, _escaped(line.text))
    if unread:
        table.add_row(
            "NOT READ", _escaped(", ".join(unread) + ": columns of the source that no field names.")
        )
    if trouble:
        table.add_row("SOURCE", _escaped(trouble))
    for warning in loaded.warnings:
        table.add_row("[yellow]WARNING[/]", _escaped(warning))
    console.print(table)


@app.command("try")
def try_(
    contract: Named,
    source: Annotated[
        Path | None, typer.Option(help="Another file instead of the contract's source.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=200_000, help="Rows to read.")] = 20_000,
    json: AsJson = False,
) -> None:
    """Ten rows raw beside shared, the promise in one sentence, and what the noise costs a forecast."""
    import secrets

    from schemas.contract import load
    from sluice.contracts import promise, trial

    loaded = load(contract)
    result = trial.run(loaded, secrets.token_bytes(32), limit=rows, source=source)
    said = promise.sentence(loaded)
    if json:
        typer.echo(
            _json(
                {
                    "contract": loaded.contract,
                    "promise": said,
                    "events": result.events,
                    "shared": result.shared,
                    "denied": result.denied,
                    "rejected": sum(result.rejected.values()),
                    "rejected_by_reason": result.rejected,
                    "clash": result.clash,
                    "loss": [one.as_json() for one in result.losses],
                    "rows": [{"raw": raw, "shared": shared} for raw, shared in result.pairs],
                }
            )
        )
        return
    _show(result, said)


def _show(result: Any, said: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(
        "raw: stays here", "shared: leaves", title="The first rows, with keys that are thrown away now"
    )
    for raw, shared in result.pairs:
        right = _words(shared) if shared is not None else "[dim]denied or rejected[/]"
        table.add_row(_words(raw), right)
    console.print(table)
    told = ", ".join(f"{count} denied ({why})" for why, count in result.denied.items())
    refused = ", ".join(f"{count} rejected ({why})" for why, count in result.rejected.items())
    console.print(
        f"{result.events:,} events: {result.shared:,} shared, {told or '0 denied'}, {refused or '0 rejected'}."
    )
    if result.clash:
        console.print(screen.shown(f"WARNING {result.clash}"), markup=False)
    console.print(screen.shown(said), markup=False)
    for one in result.losses:
        console.print(
            f"{one.field}: a plain seasonal autoregression, fed with what is shared and scored on the truth, errs by "
            f"{one.mae_shared:.3g} instead of {one.mae_truth:.3g} ({one.more:+.1%}; the last value alone: "
            f"{one.mae_persistence:.3g}; {one.steps:,} steps). Computed from raw values: keep it on this side.",
            markup=False,
        )
    if not result.losses:
        console.print("No forecast loss: no series of numbers here is long enough (300 steps).")


@app.command()
def new(
    source: Annotated[Path, typer.Argument(help="A .csv, .jsonl or .parquet file.")],
    out: Annotated[Path | None, typer.Option(help="The contract to write; default NAME.yaml here.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set, e.g. traffic.counts.")] = None,
    owner: Annotated[str, typer.Option(help="Who offers it: a DID or an address.")] = "did:web:owner.example",
    key: Annotated[
        list[str] | None, typer.Option(help="Column of the public key; - where it is one series.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column of the event time.")] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone where the times do not say.")] = None,
    grid: Annotated[str, typer.Option(help="Public time grid, e.g. 5min; default as the data's.")] = "",
    protects: Annotated[str | None, typer.Option(help="Who must stay hidden, in one word.")] = None,
    unit: Annotated[str | None, typer.Option(help="Column that names that one; - where none does.")] = None,
    most: Annotated[
        int | None, typer.Option("--max", min=1, help="Most records one adds to in a day.")
    ] = None,
    basis: Annotated[str | None, typer.Option(help="Why none adds to more, where no column says.")] = None,
    attested_by: Annotated[str | None, typer.Option(help="Who vouches for that.")] = None,
    private: Annotated[
        list[str] | None, typer.Option(help="COLUMN:MIN:MAX[:PER_UNIT], bounds from knowledge. Repeat.")
    ] = None,
    public: Annotated[list[str] | None, typer.Option(help="A column to share as it is. Repeat.")] = None,
    epsilon: Annotated[str, typer.Option(help="All that is shared about one in one day.")] = "1.0",
    purpose: Annotated[str, typer.Option(help="What the data may be used for.")] = "research",
    kind: Annotated[str | None, typer.Option(help="csv, jsonl or parquet.")] = None,
    delimiter: Annotated[str, typer.Option(help="Of a CSV file.")] = ",",
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Ask nothing: every answer is a flag.")
    ] = False,
) -> None:
    """Ask five questions about a source and write a contract that passes check."""
    import secrets
    from decimal import Decimal, InvalidOperation

    from schemas.contract import parse
    from sluice.contracts import draft, guess, trial

    if key and len(key) > 1:
        raise ConfigurationError(
            "A key is one column.",
            "Where more columns tell the series apart together, make one column of them in the source (site and "
            "lane: site-lane) and name it with --key.",
        )
    try:
        amount = Decimal(epsilon)
    except InvalidOperation:
        raise ConfigurationError("Not a number.", "--epsilon takes a number.") from None
    kind = kind or guess.kind_of(source)
    name = name or guess.field_name(source.stem, []).replace("_", "-")
    target = out or Path(f"{name}.yaml")
    columns = guess.look(source, kind, delimiter)
    ask, checks = interview.Asker(no_input), interview.Checks(columns)
    times = [c.title for c in columns if c.type == "timestamp"]
    words = [c.title for c in columns if c.type == "string" and not c.numeric and 1 < c.distinct <= 1_000]
    if not no_input:
        _not_there(target)
        typer.echo(
            "Columns: " + "; ".join(f"{screen.line(c.title)} ({c.numeric or c.type})" for c in columns)
        )
        if not times and time is None:
            raise ConfigurationError(
                "No column of the source holds times that can be read.",
                "Write the times as ISO 8601, e.g. 2024-05-31T08:00:00Z.",
            )
    for one in private or ():
        checks.bounds(one)
    for one in public or ():
        draft.find(columns, one)
    series = ask(
        key[0] if key else None,
        "--key",
        "1. Which column is the public key (a place, a device)? - for one series",
        [*words, "-"][0],
        checks.column,
    )
    asked = "2. Which column is the event time?"
    time = ask(time, "--time", asked, times[0] if times else None, checks.time)
    if not draft.find(columns, time).zoned:
        zone = ask(zone, "--zone", "   In which time zone?", "UTC", interview.zone)
    asked = "3. Who must stay hidden, in one word (vehicle, patient)?"
    protects = interview.slug(ask(protects, "--protects", asked, None, interview.word))
    unit = ask(unit, "--unit", f"4. Which column names the {protects}? - for none", "-", checks.column)
    asked = f"   Most records one {protects} adds to in a day?"
    count = ask(str(most) if most else None, "--max", asked, None, interview.number)
    if unit == draft.CONSTANT:
        basis = ask(basis, "--basis", "   Why can it not be more?", None, interview.said)
        attested_by = ask(attested_by, "--attested-by", "   Who vouches for that?", None, interview.said)
    asked = "5. Which columns are private, COLUMN:MIN:MAX[:PER_UNIT], with a blank between?"
    bounds = private or interview.split(ask(None, "--private", asked, None, checks.private))
    answers = draft.Answers(
        name=name, owner=owner, key=series, time=time, protects=protects, unit=unit, most=int(count),
        private=tuple(draft.Bounds.of(one) for one in bounds if one), public=tuple(public or ()), basis=basis or "",
        attested_by=attested_by or "", epsilon=amount, zone=zone or "", grid=grid, purpose=purpose,
    )  # fmt: skip
    text = draft.text(answers, columns, source, kind, target.parent, delimiter)
    _not_there(target)
    contract = parse(text, target.parent.resolve(), str(target))
    target.write_text(text, encoding="utf-8")
    for said in draft.odd(answers, columns):
        typer.echo(f"note: {screen.line(said)}")
    try:
        clash = trial.clash(contract, *trial.decide(contract, secrets.token_bytes(32), guess.SAMPLE))
    except (ConfigurationError, ContractError):
        clash = ""  # the contract is good, and `try` says what its source lacks
    if clash:
        typer.echo(f"WARNING {screen.line(clash)}")
    typer.echo(f"Wrote {target}. Next: sluice contract check {target}; sluice contract try {target}")


def _not_there(target: Path) -> None:
    if target.exists():
        raise ConfigurationError(f"{target} exists.", "Name another file with --out, or remove it.")


def _not_read(contract: Any) -> tuple[list[str] | None, str]:
    """Columns of the source that no field names, and what kept us from looking."""
    from sluice.contracts import rows

    try:
        titles = rows.header(contract)
    except (ConfigurationError, ContractError) as problem:
        return None, f"{problem.message} Its columns were not compared."
    named = {field.column for field in contract.event.fields.values()}
    return [title for title in titles if title not in named], ""


def _json(value: object) -> str:
    import json

    return json.dumps(value, indent=2, default=str)


def _words(record: dict[str, Any]) -> str:
    return _escaped("  ".join(f"{name}={value}" for name, value in record.items()))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(screen.shown(text))
