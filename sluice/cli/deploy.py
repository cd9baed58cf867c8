"""`sluice deploy kubernetes`: what contracts and tasks need on a cluster, as files for `kubectl apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sluice.stack.kubernetes import Document

app = typer.Typer(no_args_is_help=True)
HEADER = "# Made by `sluice deploy kubernetes`: change the contract and make it anew.\n"


@app.callback()
def _group() -> None:
    """Files for another machine, or for many."""


@app.command()
def kubernetes(
    contracts: Annotated[list[str], typer.Argument(help="Contract files, or names of shipped ones.")],
    output: Annotated[Path, typer.Option(help="Folder to write to; files of the same name are replaced.")],
    task: Annotated[
        list[str] | None, typer.Option(help="A task that learns from them; may be repeated.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Where all of it lives.")] = "sluice",
    image: Annotated[str, typer.Option(help="Image with the extra `share` (Dockerfile).")] = "sluice:0.1.0",
    registry_url: Annotated[
        str, typer.Option(help="The schema registry, as workers reach it.")
    ] = "http://registry:8081",
    disk: Annotated[str, typer.Option(help="Disk of each broker.")] = "100Gi",
    storage_class: Annotated[str | None, typer.Option(help="Of the brokers' disks.")] = None,
    keys_storage_class: Annotated[
        str | None, typer.Option(help="Of the noise keys' volume: ReadWriteMany, with file locks.")
    ] = None,
) -> None:
    """Write Strimzi's Kafka with its topics and users, and the share role scaled by KEDA, as YAML."""
    from rich.console import Console

    from schemas.contract import load
    from schemas.errors import ConfigurationError
    from sluice.cli.train import find_task
    from sluice.stack.kubernetes import Place, files

    found = [(load(each), _text(each)) for each in contracts]
    tasks = [(spec.task, spec.contracts) for spec in map(find_task, task or [])]
    made = files(found, tasks, Place(namespace, image, registry_url, disk, storage_class, keys_storage_class))
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, documents in made.items():
            (output / name).write_text(HEADER + text_of(documents), encoding="utf-8")
    except OSError as problem:
        raise ConfigurationError(
            f"Cannot write to {output}: {problem.strerror}.", "Name another folder with --output."
        ) from None
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    count = sum(map(len, made.values()))
    console.print(f"{count} resources in {len(made)} files of {output}", markup=False)


def _text(contract: str) -> str:
    """The text of a contract that has been loaded."""
    from schemas.contract import EXAMPLES

    file = Path(contract).expanduser()
    return (file if file.is_file() else EXAMPLES / f"{contract}.yaml").read_text(encoding="utf-8")


def text_of(documents: list[Document]) -> str:
    """YAML of the documents, in the order of their keys; a text of several lines stays readable."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return "".join(
        "---\n" + yaml.dump(each, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
        for each in documents
    )
