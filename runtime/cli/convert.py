"""``ingle convert``: a checkpoint becomes a GGUF file, proven equal before it has its name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.progress import Progress
from .convert_adapter import convert_adapter, find_adapter
from .display import emit_json, human_size, note, progress_bar
from .importance import Importance
from .items import note_items, print_report
from .onepass import Order, looked_at, print_made, quantize_checkpoint

if TYPE_CHECKING:
    from ...convert import Conversion, Report
    from ..proof import Proof
    from ..store.checkpoint import Checkpoint

DTYPES = ("auto", "f32", "f16", "bf16", "q8_0")
CHECK_FAILED_EXIT_CODE = 2


@dataclass(frozen=True, slots=True)
class Proven:
    """A conversion, and what was found equal between the checkpoint and it."""

    conversion: Conversion
    proof: Proof

    def as_json(self) -> dict[str, Any]:
        done = asdict(self.conversion)
        for file in (done, done["projector"]):
            if file is not None:
                file["path"] = str(file["path"])
        return {**done, "proof": dict(self.proof)}

    def __str__(self) -> str:
        from ..proof import described

        done, vision = self.conversion, self.conversion.projector
        size = f"{human_size(done.size_bytes)}, {done.dtype}"
        text = f"{done.path}  {size}; proven equal: {described(self.proof)}"
        return text + (f"\n{vision.path}  {human_size(vision.size_bytes)}, {vision.dtype}; vision" if vision else "")


@click.command("convert", short_help="Turn a Hugging Face checkpoint into a proven GGUF file.")
@click.argument("checkpoint")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write. [default: NAME.gguf, here]")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES, case_sensitive=False),
    default="auto",
    show_default=True,
    help="Element type of the matrices; auto keeps the checkpoint's own.",
)
@click.option("-t", "--type", "type_name", help="Quantize to this type in the same pass.")
@click.option("--imatrix", metavar="FILE|auto", help="Importance matrix for -t; auto collects one on the text of --on.")
@click.option("--on", type=click.Path(path_type=Path), help="What --imatrix auto reads: a text, or .jsonl of prompts.")
@click.option(
    "--base",
    help="The model that an adapter belongs to: a folder, a hub id, or a GGUF file. [default: the one it names itself]",
)
@click.option("--check", is_flag=True, help="Only look at headers and configs, and give a verdict per item.")
@click.option("--clip", is_flag=True, help="Store values too large for f16 as its largest, instead of refusing them.")
@click.option("--prove", "whatever_size", is_flag=True, help="Compare logits even of a model that is not small.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def convert_command(
    context: click.Context,
    checkpoint: str,
    out: Path | None,
    dtype: str,
    type_name: str | None,
    imatrix: str | None,
    on: Path | None,
    base: str | None,
    check: bool,
    clip: bool,
    whatever_size: bool,
    as_json: bool,
) -> None:
    """Convert CHECKPOINT, a save_pretrained folder or a hub id, to GGUF.

    The file is compared with the checkpoint before it gets its name: token ids of thousands of texts, the chat
    template, and the logits of eight prompts, of models up to 400 million parameters that ingle can compute by itself
    (Llama, Mistral, Qwen 2 and 3, SmolLM3, OLMo 2, Gemma 1 to 3; with --prove, of any size). The vision part of a model
    becomes a second file beside it, NAME-mmproj.gguf. With --check nothing is written, and of a hub id no weights are
    fetched; exit code 2 says that it could not be converted.

    With -t the file is quantized as it is written: the bytes are those of a conversion to --dtype that `ingle quantize`
    then made smaller, without that file. Run again after it was killed, it goes on from there.

    CHECKPOINT may be a LoRA adapter of PEFT as well. Its GGUF is compared with PEFT's merge, and loaded by llama.cpp
    beside its base, of which configs and headers are enough. `ingle run BASE --lora FILE` uses it.
    """
    from ..store.arrival import checkpoint_at

    importance = Importance(imatrix, on, None)
    if imatrix and not type_name:
        raise click.UsageError("--imatrix belongs to -t TYPE: a conversion alone weighs nothing")
    order = _order(type_name, dtype, imatrix, clip=clip, whatever_size=whatever_size) if type_name else None
    out = out or default_out(checkpoint, order.type if order else "")
    with progress_bar() as progress:
        adapter = find_adapter(checkpoint, base, progress)
    if adapter:
        if order:
            raise click.UsageError("an adapter is not quantized: leave -t out, and choose --dtype")
        ok = convert_adapter(adapter, base, out, dtype, check=check, as_json=as_json)
        context.exit(0 if ok else CHECK_FAILED_EXIT_CODE)
    if check:
        report = _looked_at(checkpoint, dtype, order, importance)
        print_report(report, as_json)
        context.exit(0 if report.ok else CHECK_FAILED_EXIT_CODE)
    if order:
        print_made(quantize_checkpoint(checkpoint, out, order, importance), as_json)
        return
    with progress_bar() as progress, checkpoint_at(checkpoint, progress) as source:
        proven = convert_and_prove(source, out, dtype, progress, clip=clip, whatever_size=whatever_size)
    if as_json:
        emit_json(proven.as_json())
    else:
        note_items(proven.conversion.warnings)
        if clipped := sum(proven.conversion.clipped.values()):
            note(f"warn: {clipped:,} values too large for f16 were stored as its largest, 65,504")
        click.echo(str(proven))


def convert_and_prove(
    source: Checkpoint, out: Path, dtype: str, progress: Progress, *, clip: bool = False, whatever_size: bool = False
) -> Proven:
    """Convert ``source``; the file appears at ``out`` only if the proof holds.

    Raises: what ``convert`` and ``prove`` raise.
    """
    from ...convert import convert
    from ..proof import prove
    from ..settle import settle
    from ..store.stages import origin

    proofs: list[Proof] = []

    def check_equal(file: Path) -> Proof:
        proofs.append(prove(source.complete(), file, progress, whatever_size=whatever_size))
        return proofs[0]

    conversion = convert(
        source.folder,
        out,
        dtype.lower(),
        clip=clip,
        settle=lambda found: settle(source.folder, found, progress),
        prove=check_equal,
        arrive=source.arrive,
        origin=origin(source),
        progress=source.after(progress),
    )
    return Proven(conversion, proofs[0])


def _order(type_name: str, dtype: str, imatrix: str | None, *, clip: bool, whatever_size: bool) -> Order:
    from ...quantize import Choices, types

    kind = types.find(type_name) if imatrix else types.require_usable(type_name)
    return Order(kind.name, Choices(), dtype, clip=clip, whatever_size=whatever_size)


def default_out(checkpoint: str, type_name: str = "") -> Path:
    return Path("-".join(filter(None, (checkpoint_name(checkpoint), type_name))) + ".gguf")


def checkpoint_name(checkpoint: str) -> str:
    """The last part of a folder or hub id, without its revision: ``org/name@main`` → ``name``."""
    path = Path(checkpoint)
    return path.resolve().name if path.is_dir() else path.name.partition("@")[0]


def _looked_at(checkpoint: str, dtype: str, order: Order | None, importance: Importance) -> Report:
    from ...convert import Report, check
    from ..store.preview import checkpoint_preview

    if importance.collects:
        raise click.UsageError("--check runs no model, as --imatrix auto must")
    with progress_bar() as progress, checkpoint_preview(checkpoint, progress) as folder:
        report = check(folder, dtype.lower())
        if order is None or not report.ok:
            return report
        return Report((*report.items, looked_at(folder, order, importance)))
