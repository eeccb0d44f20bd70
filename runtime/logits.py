"""The second half of a proof: what llama.cpp computes from a converted file, and what the checkpoint computes.

The logits of a few prompts of random tokens, against those of :mod:`.reference`. That is done for small models of the
classes that the reference knows, and for large ones when it is asked for; of all others the verdict says why not. It
runs in a child process, because a wrong file can end the process that loads it.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..convert import gguf
from ..convert.errors import LoadFailed, UnsupportedModel, VerificationFailed
from . import confined

if TYPE_CHECKING:
    from .reference import Reference

MOST_SECONDS = 3600
NUM_PROMPTS, PROMPT_TOKENS = 8, 24
SMALL_PARAMETERS = 400_000_000
Array = NDArray[np.float32]
# The most that the logits may be off, as a share of their spread: what rounding weights and activations to the type
# leaves. A wrong order of rows, a wrong scale or a wrong angle leaves about 1.
BOUNDS = {"F32": 5e-3, "F16": 5e-2, "BF16": 1e-1, "Q8_0": 2e-1}


@dataclass(frozen=True, slots=True)
class Logits:
    """prompts: how many were computed by both. difference: the root mean square of the largest difference of any of
    them, as a share of the spread of the reference's logits. not_compared: why there were none."""

    prompts: int = 0
    difference: float = 0.0
    not_compared: str = ""


def prove_logits(checkpoint: Path, file: Path, *, whatever_size: bool = False) -> Logits:
    """Compare ``file`` with ``checkpoint``. ``whatever_size``: large models too, which takes time.

    Raises:
        VerificationFailed: they differ, or llama.cpp cannot load the file or dies of it.
        BadCheckpoint, BadGGUF: one of the two cannot be read at all.
    """
    arguments = (str(checkpoint), str(int(whatever_size)))
    return Logits(**confined.run(f"{__name__}:serve", file, *arguments, most_s=MOST_SECONDS))


def serve() -> None:
    """The child: its arguments are the file, the checkpoint, and whether its size does not matter."""
    file, checkpoint, whatever_size = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1"
    confined.report(lambda _: asdict(compare(checkpoint, file, whatever_size=whatever_size)))


def compare(checkpoint: Path, file: Path, *, whatever_size: bool) -> Logits:
    """The comparison itself, in this process."""
    try:
        reference = _reference(checkpoint, whatever_size=whatever_size)
        prompts = random_prompts(reference)
        theirs = reference.logits(prompts)
    except UnsupportedModel as unsupported:
        return Logits(not_compared=unsupported.message)
    kind = stored_type(file)
    worst = max(map(relative, computed(file, prompts), theirs))
    if not worst <= BOUNDS[kind]:
        raise VerificationFailed(
            f"the logits of {len(prompts)} prompts differ by {worst:.2g} of their spread, "
            f"where {BOUNDS[kind]:g} is the most that {kind} explains",
            hint="the file would answer otherwise than the checkpoint; it is not kept. Please report the checkpoint",
        )
    return Logits(len(prompts), float(f"{worst:.2g}"))


def not_compared(checkpoint: Path, *, whatever_size: bool) -> str:
    """Why the logits of a checkpoint are not compared; empty where they are. Reads headers only."""
    try:
        _reference(checkpoint, whatever_size=whatever_size)
    except UnsupportedModel as unsupported:
        return unsupported.message
    return ""


def _reference(checkpoint: Path, *, whatever_size: bool) -> Reference:
    """Raises :class:`UnsupportedModel` for what is not compared."""
    from .reference import Reference

    reference = Reference(checkpoint)
    if reference.num_parameters > SMALL_PARAMETERS and not whatever_size:
        raise UnsupportedModel("the model is large; --prove compares them all the same")
    return reference


def random_prompts(reference: Reference) -> list[list[int]]:
    """The same for each vocabulary, and short enough for every window."""
    draw, length = np.random.default_rng(0), min(PROMPT_TOKENS, reference.longest)
    drawn = draw.integers(0, reference.vocab_size, (NUM_PROMPTS, length))
    return [[int(token) for token in prompt] for prompt in drawn]


def relative(ours: Array, theirs: Array) -> float:
    """The root mean square of the difference, over that of ``theirs`` around their mean."""
    return float(np.sqrt(np.square(ours - theirs).mean() / np.square(theirs - theirs.mean()).mean()))


def stored_type(file: Path) -> str:
    """The coarsest type that the file's tensors are in."""
    kinds = {info.type.name for info in gguf.read(file).tensors.values()}
    return next(kind for kind in reversed(BOUNDS) if kind in kinds)


def computed(file: Path, prompts: list[list[int]]) -> list[Array]:
    """llama.cpp's logits behind the last token of each prompt."""
    from .llama.context import Context, ContextOptions, Rows
    from .llama.model import NativeModel
    from .machine import thread_count

    try:
        model = NativeModel(file)
    except LoadFailed as error:
        raise VerificationFailed(error.message, hint="the converted file is wrong; please report it") from error
    cells, threads = sum(map(len, prompts)), thread_count()
    options = ContextOptions(
        cells=cells,
        sequences=len(prompts),
        rows=cells,
        threads=threads,
        threads_prefill=threads,
        kv_type="f32",
        flash_attention="off",
    )
    context = Context(model, options)
    rows = [Rows(slot=slot, start=0, tokens=prompt, output=True) for slot, prompt in enumerate(prompts)]
    places = context.decode(rows)
    found = [context.logits(places[row.slot]).copy() for row in rows]
    context.close()
    model.close()
    return found
