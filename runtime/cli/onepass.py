"""A checkpoint quantized in one pass and proven, for ``ingle convert -t`` and ``ingle quantize CHECKPOINT``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.errors import IngleError
from ...convert.progress import Progress, Turns
from .display import emit_json, human_size, note, progress_bar
from .importance import Importance
from .items import note_items

if TYPE_CHECKING:
    from ...convert import Item
    from ...quantize import Choices, Plan
    from ...quantize.onepass import OnePass
    from ...quantize.proving import Plain
    from ..proof import Proof
    from ..store.checkpoint import Checkpoint
    from ..store.stages import Settled


@dataclass(frozen=True, slots=True)
class Order:
    """What to make of a checkpoint. dtype, clip: of the conversion; whatever_size: compare logits of a large model,
    too."""

    type: str
    choices: Choices
    dtype: str = "auto"
    clip: bool = False
    threads: int | None = None
    whatever_size: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint that was quantized, and what was found equal between the two."""

    onepass: OnePass
    proof: Proof

    def as_json(self) -> dict[str, Any]:
        done = asdict(self.onepass.conversion)
        for file in (done, done["projector"]):
            if file is not None:
                file["path"] = str(file["path"])
        quantized = asdict(self.onepass.quantized)
        chosen = ("type", "bits_per_weight", "fallbacks", "unweighted")
        return {
            **done,
            **{key: quantized[key] for key in chosen},
            "resumed_bytes": self.onepass.resumed_bytes,
            "proof": dict(self.proof),
        }

    def __str__(self) -> str:
        from ..proof import described

        done, vision = self.onepass.quantized, self.onepass.conversion.projector
        size = f"{human_size(done.size_bytes)} ({done.size_bytes:,} bytes), {done.bits_per_weight:.2f} bits per weight"
        before = ", before it was quantized" if self.proof.get("prompts") else ""
        text = f"{done.path}  {done.type}, {size}; proven equal: {described(self.proof)}{before}"
        return text + (f"\n{vision.path}  {human_size(vision.size_bytes)}, {vision.dtype}; vision" if vision else "")


def quantize_checkpoint(text: str, out: Path, order: Order, importance: Importance) -> Made:
    """Convert, quantize and prove the checkpoint that ``text`` names, with the importance matrix that was asked for.

    Raises: what finding, converting, quantizing and proving raise.
    """
    from ..settle import settle
    from ..store.arrival import checkpoint_at
    from ..store.stages import Settled, plainly

    with progress_bar() as progress, checkpoint_at(text, progress) as source:
        settled = Settled(source.folder, progress, settle)
        if importance.collects:
            with plainly(source, out, settled, progress, order.dtype.lower(), clip=order.clip) as model:
                chosen = importance.added(order.choices, model)
        else:
            chosen = importance.added(order.choices, None)
        return _quantize_and_prove(source, out, replace(order, choices=chosen), settled, progress)


def planned_checkpoint(text: str, order: Order, importance: Importance) -> Plan:
    """What :func:`quantize_checkpoint` would make, from headers and configs alone: no weight is fetched.

    Raises: what finding the checkpoint and planning raise.
    """
    from ..store.preview import checkpoint_preview

    if importance.collects:
        raise click.UsageError("--dry-run runs no model, as --imatrix auto must")
    with progress_bar() as progress, checkpoint_preview(text, progress) as folder:
        return _planned(folder, order, importance)


def _planned(folder: Path, order: Order, importance: Importance) -> Plan:
    from ...convert.origin import Origin
    from ...quantize import onepass
    from ..store.stages import version

    chosen = importance.added(order.choices, None)
    return onepass.preview(folder, order.type, dtype=order.dtype.lower(), choices=chosen, origin=Origin(version()))


def looked_at(folder: Path, order: Order, importance: Importance) -> Item:
    """The verdict of ``--check`` on a quantization."""
    from ...convert import Item

    try:
        planned = _planned(folder, order, importance)
    except IngleError as error:
        return Item("quantization", "fail", error.message, error.hint)
    size = f"about {human_size(planned.size_bytes)}, {planned.bits_per_weight:.2f} bits per weight"
    others = f"; {len(planned.fallbacks)} matrices get another type" if planned.fallbacks else ""
    return Item("quantization", "ok", f"{order.type}: {size}{others}")


def _quantize_and_prove(source: Checkpoint, out: Path, order: Order, settled: Settled, progress: Progress) -> Made:
    from ...quantize import onepass
    from ..proof import prove
    from ..store.stages import origin

    proofs: list[Proof] = []
    turns = Turns(source.after(progress))

    def check_equal(file: Path, plain: Plain) -> Proof:
        complete = source.complete()
        proofs.append(prove(complete, file, turns.second, whatever_size=order.whatever_size, plain=plain))
        return proofs[0]

    made = onepass.convert(
        source.folder,
        out,
        order.type,
        dtype=order.dtype.lower(),
        choices=order.choices,
        clip=order.clip,
        threads=order.threads,
        settle=settled,
        prove=check_equal,
        arrive=source.arrive,
        identity=source.identity,
        origin=origin(source),
        progress=turns.first,
    )
    return Made(made, proofs[0])


def print_made(made: Made, as_json: bool) -> None:
    """The outcome, and on stderr what was not as asked."""
    conversion, quantized = made.onepass.conversion, made.onepass.quantized
    if as_json:
        emit_json(made.as_json())
        return
    note_items(conversion.warnings)
    if clipped := sum(conversion.clipped.values()):
        note(f"warn: {clipped:,} values too large for f16 were stored as its largest, 65,504")
    if made.onepass.resumed_bytes:
        note(f"{human_size(made.onepass.resumed_bytes)} had been done by a run that was killed")
    click.echo(str(made))
    note_outcome(quantized.type, len(quantized.fallbacks), quantized.unweighted)


def note_outcome(type_name: str, fallbacks: int, unweighted: Sequence[str]) -> None:
    """What was not as asked, on stderr."""
    if fallbacks:
        note(
            f"{fallbacks} matrices have rows that do not divide into {type_name}'s blocks and got another type; "
            "see --json"
        )
    if unweighted:
        note(f"{len(unweighted)} weights are not in the importance matrix and were quantized without; see --json")
