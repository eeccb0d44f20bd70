"""``ingle embed``: texts as vectors."""

from __future__ import annotations

import json

import click

from .display import emit_json, progress_bar


@click.command("embed", short_help="Turn texts into vectors.")
@click.argument("model")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--prompt", default="", help="The name of one of the model's prompts, put before each text.")
@click.option("--pooling", type=click.Choice(["first", "last", "mean", "max"]), help="Instead of what the file says.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; by default one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the texts.")
def embed_command(
    model: str, texts: tuple[str, ...], prompt: str, pooling: str | None, threads: int | None, as_json: bool
) -> None:
    """Print the embedding of each TEXT, one JSON array per line.

    MODEL is a name, a checkpoint folder or a GGUF file. A text that is longer than the model reads is refused, never
    cut.
    """
    from ..tasks.encoder import Encoder

    with progress_bar() as progress:
        encoder = Encoder.load(model, threads=threads, progress=progress)
    with encoder:
        rows = encoder.embed(texts, prompt=prompt, pooling=pooling).tolist()
    if as_json:
        emit_json([{"text": text, "embedding": row} for text, row in zip(texts, rows, strict=True)])
        return
    for row in rows:
        click.echo(json.dumps(row))
