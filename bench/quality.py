"""What files of the same size lose: types chosen for a promise, against the mixtures of llama-quantize.

    python -m bench.quality model.gguf --on calibration.txt --judge heldout.txt

llama-quantize's files are made by `ingle quantize -t TYPE --imatrix`, whose tensors are the same bytes (a test holds
them to it), with an importance matrix of the whole calibration text. The others get that text alone, too, and exactly
as many bytes. Both are then measured on another text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ingle.quantize import Choices, Imatrix, quantize
from ingle.runtime.measure.activations import kept
from ingle.runtime.measure.measurement import measure
from ingle.runtime.measure.wish import Wish as Reading
from ingle.runtime.plot import Chart, Series, draw
from ingle.runtime.promise.bench import Wish
from ingle.runtime.promise.fulfil import decide
from ingle.runtime.promise.promise import Promise

KINDS = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K")


@dataclass(frozen=True)
class Pair:
    """Two files of one size, and what they lose: mean KL divergence in nats, and its standard error."""

    kind: str
    their_bytes: int
    our_bytes: int
    theirs: float
    theirs_error: float
    ours: float
    ours_error: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def compared(source: Path, kind: str, calibration: Path, judge: Path, out: Path, seconds: float) -> Pair:
    matrix = Imatrix.load(kept(source, Reading(calibration)))
    theirs = quantize(source, out / f"theirs-{kind}.gguf", kind, choices=Choices(matrix))
    found = decide(Wish(source, Promise(max_bytes=theirs.size_bytes), calibration, seconds=seconds))
    ours = out / f"ours-{kind}.gguf"
    found.blueprint.write(found.mix, ours, found.size_bytes)
    models = measure([theirs.path, ours], Reading(judge), against=source).models
    their, mine = (model.distance.kld for model in models if model.distance)
    return Pair(kind, theirs.size_bytes, found.size_bytes, their.value, their.error, mine.value, mine.error)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--on", type=Path, required=True, help="calibration: importance and choice of types")
    parser.add_argument("--judge", type=Path, required=True, help="another text, that both are measured on")
    parser.add_argument("--out", type=Path, default=Path("build/quality"))
    parser.add_argument("--seconds", type=float, default=240.0, help="of trials, for each size")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = []
    print("| size of | bytes | llama-quantize | chosen | ratio |\n|---|---|---|---|---|")
    for kind in options.kinds:
        pair = compared(options.source, kind, options.on, options.judge, options.out, options.seconds)
        pairs.append(pair)
        print(
            f"| {kind} | {pair.their_bytes:,} | {pair.theirs:.5f} ± {pair.theirs_error:.5f} "
            f"| {pair.ours:.5f} ± {pair.ours_error:.5f} | {pair.ratio:.2f} |",
            flush=True,
        )
    (options.out / "quality.json").write_text(json.dumps([asdict(pair) for pair in pairs], indent=1))
    if options.plot:
        _draw(options.plot, pairs)


def _draw(path: Path, pairs: Sequence[Pair]) -> None:
    theirs = Series("llama-quantize + imatrix", tuple((pair.their_bytes / 1e6, pair.theirs) for pair in pairs))
    ours = Series("ingle quantize --max-size", tuple((pair.our_bytes / 1e6, pair.ours) for pair in pairs))
    draw(path, Chart("Loss at equal size", "MB", "mean KL divergence", (theirs, ours)), {})


if __name__ == "__main__":
    main()
