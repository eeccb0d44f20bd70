"""``ingle classify``: the labels of texts."""

from __future__ import annotations

import click

from .display import emit_json, emit_table, progress_bar

MOST_SHOWN = 5


@click.command("classify", short_help="Say which labels fit a text.")
@click.argument("model")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; by default one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all labels, with scores and raw logits.")
def classify_command(model: str, texts: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """Say which labels of MODEL fit each TEXT, the most likely first.

    MODEL is a name, a checkpoint folder or a GGUF file, of a class ...ForSequenceClassification. A text that is longer
    than the model reads is refused, never cut.
    """
    from ..tasks.encoder import Encoder

    with progress_bar() as progress:
        encoder = Encoder.load(model, threads=threads, progress=progress)
    with encoder:
        results = encoder.classify(texts)
    ranked = [
        sorted(zip(result.labels, result.scores, result.logits, strict=True), key=lambda entry: -entry[1])
        for result in results
    ]
    if as_json:
        names = ("label", "score", "logit")
        emit_json([
            {"text": text, "labels": [dict(zip(names, entry, strict=True)) for entry in entries]}
            for text, entries in zip(texts, ranked, strict=True)
        ])  # fmt: skip
        return
    for text, entries in zip(texts, ranked, strict=True):
        click.echo(text)
        emit_table(("label", "score"), [(name, f"{score:.4f}") for name, score, _ in entries[:MOST_SHOWN]])
