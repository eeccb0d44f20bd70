"""``ingle push``: models to a repository of the hub, with a card that is written from their receipts."""

from __future__ import annotations

from pathlib import Path

import click

from .display import emit_json, human_size, note, progress_bar


@click.command("push", short_help="Upload models to the hub, with a card.")
@click.argument("repository")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--plot", "plots", type=click.Path(path_type=Path), multiple=True, help="A picture for the card; repeatable."
)
@click.option("--private", is_flag=True, help="Make the repository private, if it has to be made.")
@click.option("--replace-card", is_flag=True, help="Replace a README.md that somebody else wrote.")
@click.option("--dry-run", is_flag=True, help="Print the card, and upload nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def push_command(
    repository: str,
    models: tuple[str, ...],
    plots: tuple[Path, ...],
    private: bool,
    replace_card: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Upload each MODEL, a kept one or a GGUF file, to REPOSITORY (org/name) of the hub, in one commit.

    Bytes are checked against the receipt first. The card, README.md, is written from the receipts of these models and
    of those that were pushed there before: source and revision, types, proof, importance matrix, and the figures that
    `ingle measure --record` kept. The token is that of HF_TOKEN or `hf auth login`.
    """
    from ..store.publication import Publication

    with progress_bar() as progress:
        publication = Publication.of(repository, models, plots, progress)
        if dry_run:
            click.echo(publication.card(()), nl=False)
            return
        address = publication.push(private=private, replace_card=replace_card)
    if as_json:
        emit_json({"commit": address, "files": [upload.name for upload in publication.uploads]})
        return
    for upload in publication.uploads:
        if isinstance(upload.content, Path):
            note(f"{upload.name}  {human_size(upload.content.stat().st_size)}")
    click.echo(address)
