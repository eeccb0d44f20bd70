"""``ingle quantize``: a GGUF file, or a checkpoint on its way to one, made smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.files import projector_beside
from .convert import checkpoint_name, convert_and_prove
from .display import emit_json, emit_table, human_size, note, progress_bar
from .options import THREADS, promise_options
from .promise import Asked, Order, fulfil, is_gguf, require_no_part_of

if TYPE_CHECKING:
    from ...quantize import Choices, Plan, Quantized

DEFAULT_TYPE = "Q4_K_M"
AUTO = "auto"


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

    A checkpoint is converted and proven first; the file in between is removed. Types and bytes are those of
    llama-quantize. With an importance matrix (see `ingle imatrix`) weights of large inputs are kept more exact, and
    the smallest types become possible.

    With --max-size, --bpw, --max-kld or --for each weight gets the type with which the whole loses least, found by
    trying them on the model. What is promised is measured on text that took no part in the choice, and refused with the
    nearest that can be had where it cannot be held.
    """
    from ...quantize import Choices, Override, plan, types, weight_type

    if list_types:
        _print_types(as_json)
        return
    if source is None:
        raise click.UsageError("name a SOURCE to quantize, or ask for --types")
    if (promise := asked.promise()) is not None:
        chosen_types = (type_name, *tensor_types, output_type, embedding_type)
        if any(chosen_types) or pure or requantize or imatrix == AUTO:
            raise click.UsageError("a promise chooses the types, and collects the importance matrix, by itself")
        fulfil(Order(source, promise, out, on, imatrix, threads, asked.plot, dry_run, as_json))
        return
    if (imatrix == AUTO) != (on is not None):
        raise click.UsageError("--imatrix auto and --on TEXT belong together")
    wanted = type_name or DEFAULT_TYPE
    kind = types.find(wanted) if imatrix else types.require_usable(wanted)
    choices = Choices(
        overrides=tuple(map(Override.parse, tensor_types)),
        output=weight_type(output_type) if output_type else None,
        embedding=weight_type(embedding_type) if embedding_type else None,
        pure=pure,
    )
    importance = Importance(imatrix, on, threads)
    if not is_gguf(source):
        if dry_run:
            raise click.UsageError(f"--dry-run needs a GGUF file; {source} would have to be converted first")
        target = out or Path(f"{checkpoint_name(source)}-{kind.name}.gguf")
        _print_done(_quantize_checkpoint(source, target, kind.name, choices, importance), as_json)
        return
    chosen = importance.added(choices, Path(source))
    planned = plan(Path(source), kind.name, requantize=requantize, choices=chosen)
    if dry_run:
        _print_plan(planned, as_json)
        return
    _print_done(_execute(planned, out or default_out(Path(source), kind.name), threads), as_json)


@dataclass(frozen=True, slots=True)
class Importance:
    """Where the importance matrix comes from: a file, a text to collect it on, or nowhere."""

    file: str | None
    on: Path | None
    threads: int | None

    def added(self, choices: Choices, model: Path) -> Choices:
        """``choices`` with the matrix for ``model``, collected first if it must be."""
        if self.file is None:
            return choices
        from ...quantize import Imatrix

        return replace(choices, imatrix=Imatrix.load(self._collected(model, self.on) if self.on else Path(self.file)))

    def _collected(self, model: Path, on: Path) -> Path:
        from ..measure.activations import kept
        from ..measure.wish import Wish

        with progress_bar() as progress:
            return kept(model, Wish(on, threads=self.threads), progress)


def default_out(source: Path, type_name: str) -> Path:
    """``model-F16.gguf`` → ``model-Q4_K_M.gguf``, beside the source."""
    from ...quantize.types import TYPES

    stem, dash, last = source.stem.rpartition("-")
    name = stem if dash and last.upper() in TYPES else source.stem
    return source.with_name(f"{name}-{type_name}.gguf")


def _quantize_checkpoint(source: str, out: Path, type_name: str, choices: Choices, importance: Importance) -> Quantized:
    """Convert, prove and quantize; the file in between lies beside ``out`` and goes with the work. A vision part stays
    as it is, and gets its place beside ``out``."""
    from ...quantize import plan
    from ..store.arrival import checkpoint_at

    converted = out.with_name(f".{out.name}.converted")
    vision = projector_beside(converted)
    try:
        with progress_bar() as progress, checkpoint_at(source, progress) as checkpoint:
            require_no_part_of(checkpoint.folder, out)
            convert_and_prove(checkpoint, converted, "auto", progress)
        planned = plan(converted, type_name, choices=importance.added(choices, converted))
        done = _execute(planned, out, importance.threads)
        if vision.exists():
            note(f"vision part: {vision.replace(projector_beside(out))}")
        return done
    finally:
        converted.unlink(missing_ok=True)
        vision.unlink(missing_ok=True)


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
    _note_fallbacks(len(planned.fallbacks), planned.type.name)
    _note_unweighted(planned.unweighted)


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
    _note_fallbacks(len(done.fallbacks), done.type)
    _note_unweighted(done.unweighted)


def _note_fallbacks(number: int, type_name: str) -> None:
    if number:
        note(
            f"{number} matrices have rows that do not divide into {type_name}'s blocks and got another type; see --json"
        )


def _note_unweighted(names: Sequence[str]) -> None:
    if names:
        note(f"{len(names)} weights are not in the importance matrix and were quantized without; see --json")


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
