"""``ingle quantize``: a GGUF file, or a checkpoint on its way to one, made smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .convert import checkpoint_name
from .display import emit_json, emit_table, human_size, note, progress_bar
from .importance import AUTO, Importance
from .onepass import Order, note_outcome, planned_checkpoint, print_made, quantize_checkpoint
from .options import THREADS, promise_options
from .promise import Asked, fulfil, is_gguf
from .promise import Order as PromiseOrder

if TYPE_CHECKING:
    from ...quantize import Plan, Quantized

DEFAULT_TYPE = "Q4_K_M"


@click.command("quantize", short_help="Make a GGUF file smaller.")
@click.argument("source", required=False)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="File to write. [default: named after SOURCE and type]"
)
@click.option("-t", "--type", "type_name", help=f"Quantization type.  [default: {DEFAULT_TYPE}]")
@promise_options
@click.option("--types", "list_types", is_flag=True, help="List the types, and what to expect of each.")
@click.option("--imatrix", metavar="FILE|auto", help="Importance matrix; auto collects one on the text of --on.")
@click.option(
    "--on",
    type=click.Path(path_type=Path),
    help="What --imatrix auto or a promise reads: a text, or .jsonl of prompts.",
)
@click.option(
    "--tensor-type",
    "tensor_types",
    metavar="REGEX=TYPE",
    multiple=True,
    help="Type of the weights named so; repeatable.",
)
@click.option("--output-type", metavar="TYPE", help="Type of the output matrix.")
@click.option("--embedding-type", metavar="TYPE", help="Type of the token embedding.")
@click.option("--pure", is_flag=True, help="Give no weight more bits than TYPE says.")
@click.option("--threads", type=THREADS, help="CPU threads. [default: all]")
@click.option("--requantize", is_flag=True, help="Accept a source that is quantized already, and the double loss.")
@click.option("--dry-run", is_flag=True, help="Print the size of the outcome; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quantize_command(
    source: str | None,
    out: Path | None,
    asked: Asked,
    type_name: str | None,
    list_types: bool,
    imatrix: str | None,
    on: Path | None,
    tensor_types: tuple[str, ...],
    output_type: str | None,
    embedding_type: str | None,
    pure: bool,
    threads: int | None,
    requantize: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize SOURCE: a GGUF file, a checkpoint folder or a hub id.

    A checkpoint is converted, quantized and proven in one pass, without a file in between; run again after it was
    killed, it goes on from there. Types and bytes are those of llama-quantize. With an importance matrix (see
    `ingle imatrix`) weights of large inputs are kept more exact, and the smallest types become possible.

    With --max-size, --bpw, --max-kld or --for each weight gets the type with which the whole loses least, found by
    trying them on the model. What is promised is measured on text that took no part in the choice, and refused with the
    nearest that can be had where it cannot be held.
    """
    from ...quantize import Choices, Override, plan, require_other_file, types, weight_type

    if list_types:
        _print_types(as_json)
        return
    if source is None:
        raise click.UsageError("name a SOURCE to quantize, or ask for --types")
    if (promise := asked.promise()) is not None:
        chosen_types = (type_name, *tensor_types, output_type, embedding_type)
        if any(chosen_types) or pure or requantize or imatrix == AUTO:
            raise click.UsageError("a promise chooses the types, and collects the importance matrix, by itself")
        fulfil(PromiseOrder(source, promise, out, on, imatrix, threads, asked.plot, dry_run, as_json))
        return
    importance = Importance(imatrix, on, threads)
    wanted = type_name or DEFAULT_TYPE
    kind = types.find(wanted) if imatrix else types.require_usable(wanted)
    choices = Choices(
        overrides=tuple(map(Override.parse, tensor_types)),
        output=weight_type(output_type) if output_type else None,
        embedding=weight_type(embedding_type) if embedding_type else None,
        pure=pure,
    )
    if not is_gguf(source):
        order = Order(kind.name, choices, threads=threads)
        if dry_run:
            _print_plan(planned_checkpoint(source, order, importance), as_json)
            return
        target = out or Path(f"{checkpoint_name(source)}-{kind.name}.gguf")
        print_made(quantize_checkpoint(source, target, order, importance), as_json)
        return
    target = out or default_out(Path(source), kind.name)
    if not dry_run:
        require_other_file(Path(source), target)
    planned = plan(Path(source), kind.name, requantize=requantize, choices=importance.added(choices, Path(source)))
    if dry_run:
        _print_plan(planned, as_json)
        return
    _print_done(_execute(planned, target, threads), as_json)


def default_out(source: Path, type_name: str) -> Path:
    """``model-F16.gguf`` → ``model-Q4_K_M.gguf``, beside the source."""
    from ...quantize.types import TYPES

    stem, dash, last = source.stem.rpartition("-")
    name = stem if dash and last.upper() in TYPES else source.stem
    return source.with_name(f"{name}-{type_name}.gguf")


def _execute(planned: Plan, out: Path, threads: int | None) -> Quantized:
    from ...quantize import execute

    note(f"{planned.type.name}: {_size(planned.size_bytes, planned.bits_per_weight)} to be written to {out}")
    with progress_bar() as progress:
        return execute(planned, out, threads=threads, progress=progress)


def _print_plan(planned: Plan, as_json: bool) -> None:
    if as_json:
        emit_json(_plan_fields(planned))
        return
    size = _size(planned.size_bytes, planned.bits_per_weight)
    click.echo(f"{planned.type.name}  {size}, from {human_size(planned.source.size_bytes)}")
    note_outcome(planned.type.name, len(planned.fallbacks), planned.unweighted)


def _plan_fields(planned: Plan) -> Mapping[str, Any]:
    return {
        "type": planned.type.name,
        "source_bytes": planned.source.size_bytes,
        "size_bytes": planned.size_bytes,
        "bits_per_weight": planned.bits_per_weight,
        "tensors": {name: element.name for name, element in planned.tensors.items()},
        "fallbacks": [asdict(fallback) for fallback in planned.fallbacks],
        "unweighted": list(planned.unweighted),
    }


def _print_done(done: Quantized, as_json: bool) -> None:
    if as_json:
        emit_json({**asdict(done), "path": str(done.path)})
        return
    click.echo(f"{done.path}  {_size(done.size_bytes, done.bits_per_weight)}")
    note_outcome(done.type, len(done.fallbacks), done.unweighted)


def _size(size_bytes: int, bits_per_weight: float) -> str:
    return f"{human_size(size_bytes)} ({size_bytes:,} bytes), {bits_per_weight:.2f} bits per weight"


def _print_types(as_json: bool) -> None:
    from ...quantize.types import TYPES

    if as_json:
        emit_json(
            [{**asdict(kind), "tensor_type": kind.tensor_type.name, "bits": kind.bits} for kind in TYPES.values()]
        )
        return
    rows = [
        (kind.name, f"{kind.bits:.2f}", f"{kind.bits_8b:.2f}", "imatrix" if kind.needs_imatrix else "", kind.about)
        for kind in TYPES.values()
    ]
    emit_table(("TYPE", "BITS", "8B FILE", "NEEDS", "WHAT TO EXPECT"), rows)
    click.echo(
        "\nBITS: bits per weight of most matrices. 8B FILE: the average over a whole Llama 3 8B, embeddings and output"
        "\nincluded; smaller models end higher. `ingle quantize FILE -t TYPE --dry-run` gives the exact size of a file."
    )
