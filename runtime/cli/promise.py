"""``ingle quantize --max-size`` and the like: types chosen so that a promise holds, and what was chosen, explained."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.errors import InputError
from .display import emit_fields, emit_json, emit_table, human_size, note, progress_bar

if TYPE_CHECKING:
    from ...convert.progress import Progress
    from ..promise.fulfil import Decision
    from ..promise.promise import Goal, Promise

THIS_MACHINE = "this-machine"
ROLE = re.compile(r"^blk\.\d+\.(.+)\.weight$")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that promise something; none is given where a type is asked for."""

    max_size: str | None = None
    bpw: float | None = None
    max_kld: float | None = None
    machine: str | None = None
    ctx: int | None = None
    goal: Goal = "quality"
    plot: Path | None = None

    def promise(self) -> Promise | None:
        """Raises :class:`InputError` for numbers that promise nothing, :class:`click.UsageError` for lone options."""
        from ..machine import available_memory_bytes
        from ..promise.promise import Promise, parse_size

        if self.ctx is not None and self.machine is None:
            raise click.UsageError("--ctx belongs to --for this-machine")
        if all(one is None for one in (self.max_size, self.bpw, self.max_kld, self.machine)):
            if self.goal != "quality" or self.plot is not None:
                raise click.UsageError("--goal and --plot belong to --max-size, --bpw, --max-kld or --for")
            return None
        return Promise(
            max_bytes=parse_size(self.max_size) if self.max_size is not None else None,
            max_bits_per_weight=self.bpw,
            max_kld=self.max_kld,
            memory_bytes=available_memory_bytes() if self.machine else None,
            context_length=self.ctx,
            goal=self.goal,
        )


@dataclass(frozen=True, slots=True)
class Order:
    """What to make under a promise, and where to. out: None where the file is named after the source."""

    source: str
    promise: Promise
    out: Path | None
    on: Path | None
    imatrix: str | None
    threads: int | None
    plot: Path | None
    dry_run: bool
    as_json: bool


def fulfil(order: Order) -> None:
    """Choose, write and explain."""
    from ...quantize.imatrix import Imatrix
    from ..plot import require_png
    from ..promise.bench import Wish
    from ..promise.fulfil import decide

    if order.plot is not None:
        require_png(order.plot)
    matrix = Imatrix.load(Path(order.imatrix)) if order.imatrix else None
    with progress_bar() as progress, _source(order, progress) as source:
        found = decide(Wish(source, order.promise, order.on, matrix, order.threads), progress)
        path = None if order.dry_run else order.out or _named(order.source, found)
        if path is not None:
            found.blueprint.write(found.mix, path, found.size_bytes, progress)
    if order.plot is not None:
        _draw(found, order.plot)
    if order.as_json:
        emit_json(_record(found, path))
    else:
        _print(found, path)


@contextmanager
def _source(order: Order, progress: Progress) -> Iterator[Path]:
    """The GGUF file to start from. A checkpoint is converted into one that goes with the work."""
    if is_gguf(order.source):
        yield Path(order.source)
        return
    from ..store.arrival import checkpoint_at
    from .convert import convert_and_prove

    with tempfile.TemporaryDirectory(prefix=".ingle-", dir=order.out.parent if order.out else None) as folder:
        converted = Path(folder, "converted.gguf")
        with checkpoint_at(order.source, progress) as checkpoint:
            if order.out:
                require_no_part_of(checkpoint.folder, order.out)
            convert_and_prove(checkpoint, converted, "auto", progress)
        yield converted


def _named(source: str, found: Decision) -> Path:
    """``model-F16.gguf`` at 4.52 bits per weight: ``model-F16-4.52bpw.gguf``, beside it; of a checkpoint, here."""
    from .convert import checkpoint_name

    ending = f"-{found.bits_per_weight:.2f}bpw.gguf"
    if is_gguf(source):
        return Path(source).with_name(Path(source).stem + ending)
    return Path(checkpoint_name(source) + ending)


def is_gguf(source: str) -> bool:
    return source.lower().endswith(".gguf") or Path(source).is_file()


def require_no_part_of(checkpoint: Path, out: Path) -> None:
    """Raise :class:`InputError` where ``out`` is a file that is read."""
    if out.exists() and any(out.samefile(file) for file in checkpoint.iterdir() if file.suffix != ".gguf"):
        raise InputError(f"{out} is a file of the checkpoint", hint="name another file to write")


def _print(found: Decision, path: Path | None) -> None:
    size = f"{human_size(found.size_bytes)} ({found.size_bytes:,} bytes), {found.bits_per_weight:.2f} bits per weight"
    far = found.distance
    lines = {
        "file": f"{path or 'none: --dry-run'}",
        "size": size,
        "promise": "; ".join(_promises(found)),
        "KL divergence": f"{far.kld.value:.5f} ± {far.kld.error:.5f} in the mean, {far.kld_99:.5f} 99 %",
        "same top": f"{far.same_top.value:.2%}",
        "measured on": f"{found.judged:,} tokens of {found.on} that took no part in the choice",
    }
    emit_fields(lines)
    click.echo()
    emit_table(("WEIGHTS", "TYPES", "SIZE", "LOSS"), list(_roles(found)))
    click.echo()
    emit_table(("SIZE", "BITS", "KLD", *(("SPEED",) if found.seconds else ()), ""), list(_front(found)))
    note("LOSS: share of the KL divergence, estimated. Below: what other sizes would lose, estimated.")


def _promises(found: Decision) -> Iterable[str]:
    if found.bound:
        yield f"{found.bound}: held"
    most = found.wish.promise.max_kld
    if most is not None:
        yield f"KL divergence of at most {most:g}: held"


def _roles(found: Decision) -> Iterable[tuple[str, str, str, str]]:
    """A line for the weights of each name, over all layers: their types from the most frequent on."""
    whole = sum(found.estimated.values()) or 1.0
    for role, names in roles(found.mix):
        counts = Counter(found.mix[name].name for name in names).most_common()
        size = sum(found.mix[name].nbytes(found.blueprint.pieces.weights[name].info.shape) for name in names)
        types = ", ".join(f"{count} {kind}" if len(names) > 1 else kind for kind, count in counts)
        yield role, types, human_size(size), f"{sum(found.estimated[name] for name in names) / whole:.0%}"


def roles(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """``blk.0.attn_k.weight`` and its like of other layers together, in order of first appearance."""
    found: dict[str, list[str]] = {}
    for name in names:
        match = ROLE.match(name)
        found.setdefault(match[1] if match else name.removesuffix(".weight"), []).append(name)
    return list(found.items())


def _front(found: Decision) -> Iterable[tuple[str, ...]]:
    weights = 8 * found.size_bytes / found.bits_per_weight
    points = [(point.size_bytes, point.kld, point.seconds, "") for point in found.front]
    points.append((found.size_bytes, found.distance.kld.value, found.seconds, "this file, measured"))
    slowest = max(seconds for _, _, seconds, _ in points)
    for size, kld, seconds, mark in sorted(points):
        speed = (f"{slowest / seconds:.2f}",) if seconds else ()
        yield human_size(size), f"{8 * size / weights:.2f}", f"{kld:.5f}", *speed, mark


def _record(found: Decision, path: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "path": str(path) if path else None,
        "size_bytes": found.size_bytes,
        "bits_per_weight": found.bits_per_weight,
        "distance": asdict(found.distance),
        "predictions": found.judged,
        "on": found.on,
        "tensors": {name: element.name for name, element in found.mix.items()},
        "estimated_kld": dict(found.estimated),
        "front": [asdict(point) for point in found.front],
    }


def _draw(found: Decision, path: Path) -> None:
    from ..plot import Chart, Series, draw

    whole = sum(found.estimated.values()) or 1.0
    bars = {role: sum(found.estimated[name] for name in names) / whole for role, names in roles(found.mix)}
    curve = tuple((point.size_bytes / 1e6, point.kld) for point in found.front if point.kld > 0)
    here = ((found.size_bytes / 1e6, found.distance.kld.value),)
    draw(
        path,
        Chart("What each size loses", "MB", "KL divergence", (Series("estimated", curve), Series("this file", here))),
        bars,
        "Share of the loss, by weights",
    )
